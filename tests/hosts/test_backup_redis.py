"""Real backups of Redis: RDB and append-only files are proven, each fault is found at the level that claims to find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time

import pytest
from backups import Verifier, copied, flip, ran, snapshot_of
from campaign import campaign, compare, first_look, part, tree_of

from ansible_collections.ops.maintenance.plugins.module_utils import backup_redis

# Short enough that Redis stores it as it is.
_MARK = b"0123456789abcdef"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a Redis left after saving: an RDB file, and an append-only file with a base and a tail."""
    folder = tempfile.mkdtemp(prefix="q", dir="/tmp")
    path = os.path.join(folder, "s")
    argv = [
        "redis-server",
        "--port",
        "0",
        "--unixsocket",
        path,
        "--dir",
        folder,
        "--save",
        "",
        "--appendonly",
        "yes",
        "--enable-debug-command",
        "local",
    ]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as child:

        def ask(*words):
            return ran("redis-cli", "-s", path, *words).strip()

        while not os.path.exists(path):
            time.sleep(0.02)
        ask("SET", "session:1", "v" * 100)
        ask("EVAL", "for i = 1, 500 do redis.call('SET', 'k:' .. i, string.rep('v', 200)) end", "0")
        ask("SET", "written_at", str(int(time.time())))
        ask("SET", "marked", _MARK.decode())
        ask("-n", "3", "SET", "other", "1")
        ask("SET", "soon", "gone", "PX", "5000")
        gone = time.monotonic() + 5.2
        ask("SAVE")
        ask("BGREWRITEAOF")
        while "aof_rewrite_in_progress:0" not in ask("INFO", "persistence"):
            time.sleep(0.05)
        for number in range(20):
            ask("SET", f"tail:{number}", "w" * 50)
        time.sleep(max(gone - time.monotonic(), 0))
        child.terminate()
        child.wait()
    root = tmp_path_factory.mktemp("redis")
    (root / "rdb").mkdir()
    shutil.copy(f"{folder}/dump.rdb", root / "rdb" / "dump-20261125.rdb")
    shutil.copytree(f"{folder}/appendonlydir", root / "aof" / "20261125")
    shutil.rmtree(folder)
    return {"rdb": str(root / "rdb"), "aof": str(root / "aof")}


@pytest.fixture
def verify(tmp_path):
    with tempfile.TemporaryDirectory(prefix="v", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Verifier(folder)


def rdb(root, **more):
    return {"kind": "redis", "root": str(root), "pattern": "*.rdb*", "level": 5, "minimum_rows": {"keys": 500},
            "sentinel": {"table": "written_at", "column": "time"}, **more}  # fmt: skip


def aof(root, **more):
    return {**rdb(root), "layout": "folders", "pattern": "*", **more}


def damaged(made, form, tmp_path):
    root = copied(made[form], tmp_path / "root")
    return root, sorted(os.path.join(folder, name) for folder, _sub, names in os.walk(root) for name in names)


def test_an_intact_rdb_file_raises_nothing_and_is_left_as_it_was(made, verify):
    """A key that expired since is counted as there: it is no loss."""
    before = snapshot_of(made["rdb"])
    seen = verify(**rdb(made["rdb"]))
    assert (seen.bad, seen.level) == ({}, 5)
    assert "(1 had expired meanwhile)" in seen["integrity"].summary
    assert seen.proof["rpo_seconds"] is not None
    assert snapshot_of(made["rdb"]) == before


def test_an_intact_append_only_file_raises_nothing(made, verify):
    seen = verify(**aof(made["aof"]))
    assert (seen.bad, seen.level) == ({}, 5)


def test_a_compressed_rdb_file_is_proven_too(made, verify, tmp_path):
    root, paths = damaged(made, "rdb", tmp_path)
    ran("gzip", paths[0])
    seen = verify(**rdb(root))
    assert (seen.bad, seen.level) == ({}, 5)
    flip(paths[0] + ".gz")
    assert verify(**rdb(root)).state("structure") == "critical"


@pytest.mark.parametrize(
    ("fault", "level", "found"), [("flipped value", 1, "checksum"), ("truncated", 0, "structure"), ("header", 0, "structure")]
)
def test_damage_of_an_rdb_file_is_found(made, verify, tmp_path, fault, level, found):
    root, (path,) = damaged(made, "rdb", tmp_path)
    if fault == "truncated":
        os.truncate(path, os.path.getsize(path) // 2)
    elif fault == "header":
        flip(path, 2)
    else:
        _flip_value(path)
    seen = verify(**rdb(root))
    assert (seen.level, seen.state(found)) == (level, "critical"), seen.bad


def _flip_value(path):
    with open(path, "rb") as source:
        place = source.read().index(_MARK) + 8
    flip(path, place)


def test_an_empty_or_a_missing_file_is_found(made, verify, tmp_path):
    root, (path,) = damaged(made, "rdb", tmp_path)
    os.truncate(path, 0)
    assert verify(**rdb(root)).state("size") == "critical"
    os.unlink(path)
    assert verify(**rdb(root)).state("present") == "critical"


def test_another_file_called_rdb_is_found(verify, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "dump.rdb").write_bytes(os.urandom(5000))
    assert verify(**rdb(root)).state("structure") == "critical"


@pytest.mark.parametrize("fault", ["cut tail", "missing base", "missing tail", "missing manifest", "flipped base", "flipped command"])
def test_damage_of_an_append_only_file_is_found(made, verify, tmp_path, fault):
    root, paths = damaged(made, "aof", tmp_path)
    base, tail, manifest = (next(path for path in paths if path.endswith(end)) for end in (".base.rdb", ".incr.aof", ".manifest"))
    if fault == "cut tail":
        os.truncate(tail, os.path.getsize(tail) - 3)
    elif fault == "flipped base":
        _flip_value(base)
    elif fault == "flipped command":
        flip(tail, 0)
    else:
        os.unlink({"missing base": base, "missing tail": tail, "missing manifest": manifest}[fault])
    seen = verify(**aof(root))
    assert seen.level <= 1, seen.bad
    assert seen.state("level") == "critical", seen.bad


def test_a_flipped_value_in_the_tail_shows_only_against_a_checksum_and_the_first_look_says_so(made, verify, tmp_path):
    """Commands have a form, but no checksum: redis-check-aof and Redis itself take another value for a value."""
    root, paths = damaged(made, "aof", tmp_path)
    tail = next(path for path in paths if path.endswith(".incr.aof"))
    folder = os.path.dirname(tail)
    sums = ran("sha256sum", *map(os.path.basename, paths), cwd=folder)
    with open(tail, "rb") as source:
        place = source.read().index(b"w" * 50) + 8
    assert verify(**aof(root)).bad == {}
    flip(tail, place)
    seen_before = verify(**aof(root))
    assert (seen_before.level, seen_before.state("checksum")) == (1, "critical"), seen_before.bad

    verify.state_dir += "-another"
    first_look = verify(**aof(root))
    assert (first_look.bad, first_look["checksum"].basis) == ({}, "estimated")
    assert "values in the commands of the append-only file" in first_look["structure"].not_covered

    with open(os.path.join(folder, "SHA256SUMS"), "w") as target:
        target.write(sums)
    verify.state_dir += "-third"
    against_manifest = verify(**aof(root, manifest="SHA256SUMS"))
    assert (against_manifest.level, against_manifest.state("checksum")) == (1, "critical"), against_manifest.bad


def test_a_server_that_loads_nothing_is_not_taken_for_a_restored_one(made, verify, tmp_path):
    """With a wrong file name Redis starts empty and answers PONG."""
    folder = tempfile.mkdtemp(prefix="l", dir="/tmp")
    with backup_redis._server(shutil.which("redis-server"), folder, False, backup_redis._Parts("", "", "", [])) as server:
        server.wait()
        assert backup_redis._keyspace(server.ask("INFO", "keyspace")) == 0
    shutil.rmtree(folder)
    root, (path,) = damaged(made, "rdb", tmp_path)
    _emptied(path)
    assert verify(**rdb(root)).level <= 3


def _emptied(path):
    folder = tempfile.mkdtemp(prefix="e", dir="/tmp")
    with subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", f"{folder}/s", "--dir", folder, "--save", ""], stdout=subprocess.DEVNULL
    ) as child:
        while not os.path.exists(f"{folder}/s"):
            time.sleep(0.02)
        ran("redis-cli", "-s", f"{folder}/s", "SAVE")
        child.terminate()
        child.wait()
    shutil.copy(f"{folder}/dump.rdb", path)
    shutil.rmtree(folder)


def test_too_few_keys_and_a_missing_or_old_sentinel_are_found(made, verify):
    assert verify(**rdb(made["rdb"], minimum_rows={"keys": 10_000})).state("content") == "critical"
    assert verify(**rdb(made["rdb"], sentinel={"table": "nothing", "column": "time"})).state("content") == "critical"
    assert verify(**rdb(made["rdb"], sentinel={"table": "session:1", "column": "time"})).state("content") == "critical"
    assert verify(**rdb(made["rdb"], sentinel=None, minimum_rows={})).state("content") == "unknown"


def test_a_file_without_a_checksum_is_told():
    """redis-check-rdb says OK of a file that holds no checksum."""
    said = "[offset 0] Checking RDB file d\n[offset 9] \\o/ RDB looks OK! \\o/\n[info] 3 keys read\n"
    assert [state for _level, state, _text in backup_redis.read_check_rdb(0, said)] == ["ok", "warning"]
    assert backup_redis.read_check_rdb(0, "")[0][1] == "unknown"


# At random -----------------------------------------------------------------------------------------------------------


FILE_FAULTS = {"bit flip": 12, "truncation": 5, "zeroed block": 5, "swapped": 3, "empty": 1, "unreadable": 1}


def test_random_damage_of_an_rdb_file_is_found_where_the_documentation_says(made, verify, tmp_path):
    whole = part("the file", lambda root: [os.path.join(root, name) for name in os.listdir(root)])
    plan = {fault: [whole(fault)] * times for fault, times in FILE_FAULTS.items()}
    plan["wrong database"] = [lambda root, _noise: _emptied(_file(root))]
    plan["stale"] = [lambda root, _noise: os.utime(_file(root), (1_700_000_000, 1_700_000_000))]
    plan["half written"] = [lambda root, noise: _being_saved(_file(root), noise)]
    compare_redis("Redis RDB", rdb, plan, made["rdb"], verify, tmp_path)


def _being_saved(path, noise):
    """Redis writes under such a name until all is there."""
    os.truncate(path, noise.randrange(os.path.getsize(path)))
    os.rename(path, os.path.join(os.path.dirname(path), "temp-4711.rdb"))


def _file(root):
    (name,) = os.listdir(root)
    return os.path.join(root, name)


def test_random_damage_of_an_append_only_file_is_found_where_the_documentation_says(made, verify, tmp_path):
    """Values in the tail are protected by nothing: what changes there is seen with a manifest only, and the table says so."""

    def ending(end):
        return part(end, lambda root: [path for path in _files(root) if path.endswith(end)])

    base, tail, manifest = ending(".base.rdb"), ending(".incr.aof"), ending(".manifest")
    plan = {
        "bit flip": [each("bit flip") for each in (base, base, base, tail, tail, tail, tail, tail, tail, manifest, manifest)],
        **{
            fault: [each(fault) for each in (base, base, tail, manifest)] for fault in ("truncation", "zeroed block", "empty", "unreadable")
        },
        "swapped": [
            part("base and tail", lambda root: [path for path in _files(root) if not path.endswith(".manifest")])("swapped"),
            tail("swapped"),
        ],
        "wrong database": [lambda root, _noise: _other_log(root)],
        "stale": [lambda root, _noise: [os.utime(path, (1_700_000_000, 1_700_000_000)) for path in _files(root)]],
        "half written": [lambda root, _noise: [os.unlink(path) for path in _files(root) if path.endswith(".manifest")]],
    }
    compare_redis("Redis AOF", aof, plan, made["aof"], verify, tmp_path)


def _files(root):
    return sorted(os.path.join(folder, name) for folder, _sub, names in os.walk(root) for name in names if name != "SHA256SUMS")


def _other_log(root):
    """Put a sound append-only file of another Redis there."""
    folder = os.path.dirname(_files(root)[0])
    for path in _files(root):
        os.unlink(path)
    with open(os.path.join(folder, "appendonly.aof.1.incr.aof"), "wb") as target:
        target.write(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$10\r\nwritten_at\r\n$10\r\n%d\r\n" % time.time())
    with open(os.path.join(folder, "appendonly.aof.manifest"), "wb") as target:
        target.write(b"file appendonly.aof.1.incr.aof seq 1 type i\n")


def compare_redis(format_, declared, plan, intact, verify, tmp_path):

    def look(root, level, **more):
        return first_look(verify, **declared(root, pattern="*.rdb" if declared is rdb else "*", level=level, **more))

    def proven(root):
        for name, digest in tree_of(intact).items():
            folder, name = os.path.split(name)
            with open(os.path.join(root, folder, f"{name}.sha256" if declared is rdb else "SHA256SUMS"), "a", encoding="utf-8") as target:
                target.write(f"{digest}  {name}\n")
            os.utime(target.name, (1_600_000_000, 1_600_000_000))
        return look(root, 2, manifest="{name}.sha256" if declared is rdb else "SHA256SUMS")

    row = campaign(format_, plan, lambda: copied(intact, tmp_path / "root"), look, _digest, proven)
    compare(row, varies=True)
    assert [case for case in row.missed if "bit flip" not in case or declared is rdb] == []


def _digest(root):
    """Let Redis itself load a copy; return its digest of every key and value, None when it refuses."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as folder:
        for path in _files(root):
            is_rdb = os.path.dirname(path) == root
            os.makedirs(f"{folder}/appendonlydir", exist_ok=True)
            shutil.copy(path, f"{folder}/dump.rdb" if is_rdb else f"{folder}/appendonlydir/")
        argv = ["redis-server", "--port", "0", "--unixsocket", f"{folder}/s", "--dir", folder, "--save", "", "--enable-debug-command", "local",
                "--aof-load-truncated", "no", "--appendonly", "no" if is_rdb else "yes"]  # fmt: skip
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            said = ""
            while child.poll() is None and len(said) != 40:
                asked = subprocess.run(["redis-cli", "-s", f"{folder}/s", "DEBUG", "DIGEST"], check=False, capture_output=True, text=True)
                said = asked.stdout.strip()
            child.kill()
        return said if len(said) == 40 else None
