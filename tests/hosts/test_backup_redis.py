"""Real backups of Redis: RDB and append-only files are proven, each fault is found at the level that claims to find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time

import pytest
from backups import Verifier, copied, flip, ran, snapshot_of

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
