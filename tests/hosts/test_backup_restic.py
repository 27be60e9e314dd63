"""Real repositories of restic: intact ones are proven, each fault is found at the level that claims to find it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time

import pytest
from backups import Verifier, copied, files_below, flip, ran, snapshot_of
from campaign import campaign, compare, first_look, part, tree_of
from restic_key import weaken_key

from ansible_collections.ops.maintenance.plugins.module_utils import backup_repository, backup_restic
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with one snapshot of a folder with files and a database, and its password."""
    folder = tmp_path_factory.mktemp("restic")
    source = folder / "src"
    source.mkdir()
    for number in range(3):
        (source / f"file{number}").write_bytes(os.urandom(200_000))
    (source / "empty").touch()
    with sqlite3.connect(source / "app.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO orders (text) VALUES (?)", [("x" * 50,)] * 500)
    connection.close()
    password = folder / "password"
    password.write_text("s3cret-of-the-repository\n")
    password.chmod(0o600)
    env = {"RESTIC_REPOSITORY": str(folder / "repo"), "RESTIC_PASSWORD_FILE": str(password), "HOME": str(folder)}
    ran("restic", "init", env=env)
    weaken_key(str(folder / "repo"), b"s3cret-of-the-repository")
    ran("restic", "backup", "--host", "web1", str(source), env=env)
    return {"repo": str(folder / "repo"), "password": str(password), "source": str(source), "env": env, "folder": folder}


@pytest.fixture
def verify(tmp_path):
    return Verifier(tmp_path)


def declared(made, root=None, **more):
    repository = {"password_file": made["password"], "host": "web1", **more.pop("repository", {})}
    return {"kind": "restic", "root": root or made["repo"], "repository": repository, "level": 5, **more}


def damaged(made, tmp_path):
    return copied(made["repo"], tmp_path / "repo")


def pack_of_data(repo):
    return files_below(os.path.join(repo, "data"))[0]


def test_an_intact_repository_raises_nothing_and_is_left_as_it_was(made, verify):
    before = snapshot_of(made["repo"])
    seen = verify(**declared(made, required_files=["app.db", "file0"], source=made["source"], encrypted=True, expected={"every": "weekly"}))
    assert seen.bad == {}
    assert (seen.level, seen.proof["bytes"] > 600_000) == (5, True)
    assert seen.proof["rto_seconds"] > 0
    assert seen.proof["rpo_seconds"] is not None
    assert snapshot_of(made["repo"]) == before
    again = verify(check_mode=True, **declared(made, level=1))
    assert again.bad == {}
    assert snapshot_of(made["repo"]) == before


def test_a_flipped_bit_passes_the_check_and_is_found_when_the_data_is_read(made, verify, tmp_path):
    """``restic check`` reads no data: only level 2 may claim it."""
    repo = damaged(made, tmp_path)
    flip(pack_of_data(repo), 5000)
    assert verify(**declared(made, repo, level=1)).bad == {}
    seen = verify(**declared(made, repo))
    assert (seen.level, seen.state("checksum"), seen.state("level")) == (1, "critical", "critical")


def test_a_flipped_bit_keeps_the_snapshot_from_being_restored(made, tmp_path):
    repo = damaged(made, tmp_path)
    flip(pack_of_data(repo), 5000)
    given = {"name": "x", "root": repo, "level": 5, "repository": {**_defaults(), "password_file": made["password"]}}
    restored = backup_restic._restore(backup_restic._tool(given), "latest", str(tmp_path / "out"), given)
    assert [verdict.state for verdict in restored.verdicts][:1] == ["critical"]


def _defaults():
    return {name: option["default"] for name, option in backup_repository.REPOSITORY.items()}


@pytest.mark.parametrize("fault", ["truncated pack", "missing pack", "missing index", "flipped index"])
def test_damage_of_the_repository_is_found_by_its_check(made, verify, tmp_path, fault):
    repo = damaged(made, tmp_path)
    packs, index = files_below(os.path.join(repo, "data")), files_below(os.path.join(repo, "index"))[0]
    os.chmod(packs[0], 0o600)
    if fault == "truncated pack":
        os.truncate(packs[0], os.path.getsize(packs[0]) // 2)
    elif fault == "missing pack":
        os.unlink(packs[0])
    elif fault == "missing index":
        os.unlink(index)
    else:
        flip(index)
    seen = verify(**declared(made, repo))
    assert seen.state("level") in ("critical", "unknown")
    assert (seen.level, seen.state("structure")) == (0, "critical"), seen.bad


def test_a_snapshot_that_cannot_be_loaded_is_left_out_with_exit_status_0_and_still_told(made, verify, tmp_path):
    repo = damaged(made, tmp_path)
    flip(files_below(os.path.join(repo, "snapshots"))[0])
    seen = verify(**declared(made, repo))
    assert (seen.level, seen.state("present")) == (-1, "critical")
    assert any("load" in line for line in seen["present"].evidence)


def test_an_empty_repository_is_no_backup_though_its_check_finds_no_errors(made, verify, tmp_path):
    repo = damaged(made, tmp_path)
    shutil.rmtree(os.path.join(repo, "snapshots"))
    os.mkdir(os.path.join(repo, "snapshots"))
    assert "no errors were found" in ran("restic", "check", env={**made["env"], "RESTIC_REPOSITORY": repo})
    assert verify(**declared(made, repo)).bad["present"][0] == "critical"


@pytest.mark.parametrize("other", [{"host": "web2"}, {"paths": ["/srv/elsewhere"]}])
def test_snapshots_of_another_host_or_path_are_not_this_set(made, verify, other):
    seen = verify(**declared(made, repository=other))
    assert (seen.level, seen.state("present")) == (-1, "critical")
    assert "other hosts or paths" in seen["present"].evidence[0]


def test_several_hosts_in_one_repository_want_a_declared_host(made, verify, tmp_path):
    repo = damaged(made, tmp_path)
    ran("restic", "backup", "--host", "web2", "/etc/hostname", env={**made["env"], "RESTIC_REPOSITORY": repo})
    assert verify(**declared(made, repo, level=0, repository={"host": ""})).state("present") == "warning"
    assert verify(**declared(made, repo, level=0)).state("present") == "ok"


def test_a_wrong_password_is_unknown_and_said(made, verify, tmp_path):
    """Nothing is reported healthy that could not be looked at; and the secret is nowhere."""
    wrong = tmp_path / "wrong"
    wrong.write_text("an0ther-s3cret\n")
    wrong.chmod(0o600)
    seen = verify(**declared(made, repository={"password_file": str(wrong)}))
    assert (seen.level, seen.state("present")) == (-1, "unknown")
    assert "wrong password" in seen["present"].summary
    assert "an0ther-s3cret" not in seen.text


def test_a_password_file_that_others_may_read_is_refused(made, verify, tmp_path):
    loose = tmp_path / "loose"
    loose.write_text("x\n")
    loose.chmod(0o644)
    with pytest.raises(InputError, match="mode 0644, expected 0600"):
        verify(**declared(made, repository={"password_file": str(loose)}))
    with pytest.raises(InputError, match="repository of set test is None"):
        verify(kind="restic", root=made["repo"])


def test_where_there_is_no_repository_there_is_no_backup(made, verify, tmp_path):
    seen = verify(**declared(made, str(tmp_path / "nowhere")))
    assert (seen.level, seen.state("present")) == (-1, "critical")


def test_a_stale_lock_is_told_and_one_in_use_is_not(made, verify, tmp_path):
    repo = damaged(made, tmp_path)
    env = {**os.environ, **made["env"], "RESTIC_REPOSITORY": repo}
    with subprocess.Popen(["restic", "backup", "--stdin"], env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        _wait_for(os.path.join(repo, "locks"))
        assert verify(**declared(made, repo, level=1)).bad == {}
        child.kill()
    given = {"name": "x", "root": repo, "level": 1, "repository": {**_defaults(), "password_file": made["password"]}}
    assert backup_restic._locks(backup_restic._tool(given), time.time()) == []
    later = backup_restic._locks(backup_restic._tool(given), time.time() + 7200)
    assert [verdict.state for verdict in later] == ["warning"]


def _wait_for(folder):
    for _attempt in range(200):
        if os.listdir(folder):
            return
        time.sleep(0.05)
    raise AssertionError(folder)


def test_another_repository_under_the_same_address_is_found(made, verify):
    real = json.loads(ran("restic", "cat", "config", env=made["env"]))["id"]
    assert verify(**declared(made, level=1, repository={"id": real[:12]})).bad == {}
    assert verify(**declared(made, level=1, repository={"id": "0" * 12})).state("structure") == "critical"


def test_reading_a_part_of_the_data_says_so(made, verify):
    seen = verify(**declared(made, level=2, repository={"read_data_percent": 50}))
    assert (seen["checksum"].basis, seen["checksum"].not_covered) == ("sampled", "50 percent of the packs were not read")


def test_what_the_set_must_hold_is_looked_for(made, verify):
    seen = verify(**declared(made, required_files=["payroll.db"]))
    assert (seen.level, seen.state("content")) == (4, "critical")


def test_files_in_it_are_proven_by_their_own_kind(made, verify, tmp_path):
    content = {"kind": "sqlite", "pattern": "*.db"}
    seen = verify(**declared(made, content=content, required_tables=["orders"], count_tables=["orders"], source=f"{made['source']}/app.db"))
    assert (seen.bad, seen.level) == ({}, 5)
    assert any("500 rows in the backup" in line for line in seen["content"].evidence)
    source = tmp_path / "bad"
    source.mkdir()
    shutil.copy(f"{made['source']}/app.db", source / "app.db")
    with open(source / "app.db", "r+b") as target:
        target.seek(8192)
        target.write(bytes(4096))
    repo = damaged(made, tmp_path)
    ran("restic", "backup", "--host", "web1", str(source), env={**made["env"], "RESTIC_REPOSITORY": repo})
    seen = verify(**declared(made, repo, content=content))
    assert (seen.level, seen.state("integrity")) == (3, "critical")
    seen = verify(**declared(made, content={"kind": "sqlite", "pattern": "*.sqlite3"}))
    assert (seen.level, seen.state("integrity")) == (3, "critical")


def test_only_a_part_restored_is_said(made, verify):
    seen = verify(**declared(made, repository={"restore_paths": [f"{made['source']}/app.db"]}, required_files=["app.db"]))
    assert (seen.bad, seen.level, seen["restore"].basis) == ({}, 5, "sampled")
    assert "app.db" in seen["restore"].not_covered


def test_an_unreadable_repository_is_unknown(made, verify, tmp_path):
    repo = damaged(made, tmp_path)
    seen = verify(**declared(made, repo, repository=locked_away(made, repo, tmp_path)))
    assert (seen.level, seen.state("present")) == (-1, "unknown")
    assert "permission denied" in seen["present"].summary


def locked_away(made, repo, folder):
    """Let only root read a repository, and return how somebody else opens it."""
    for where, _folders, _names in os.walk(repo):
        os.chown(where, 0, 0)
        os.chmod(where, 0o700)
    os.chmod(folder, 0o755)
    password = folder / "nobody"
    shutil.copy(made["password"], password)
    shutil.chown(password, "nobody")
    return {"password_file": str(password), "os_user": "nobody"}


def test_a_tool_that_is_not_there_is_unknown(made, verify, monkeypatch):
    monkeypatch.setattr(backup_repository, "_PATH", "/nonexistent")
    seen = verify(**declared(made))
    assert (seen.level, seen.state("present")) == (-1, "unknown")
    assert "not installed" in seen["present"].summary


def test_a_repository_with_an_empty_password_is_not_encrypted(made, verify, tmp_path):
    """netpost-bak-03: encryption that anybody can undo is none."""
    empty = tmp_path / "empty"
    empty.touch(mode=0o600)
    seen = verify(**declared(made, level=1, encrypted=True, repository={"password_file": str(empty)}))
    assert seen.level == -1
    assert verify(**declared(made, level=1, encrypted=True)).state("encryption") == "ok"


# At random -----------------------------------------------------------------------------------------------------------


def below(folder, smallest=0):
    """Name the files of a folder of the repository; of packs, smaller ones hold trees and larger ones data."""
    return lambda repo: [path for path in files_below(os.path.join(repo, folder)) if os.path.getsize(path) > smallest]


def test_random_damage_is_found_where_the_documentation_says(made, verify, tmp_path):
    data, packs, index, snapshots, keys = (
        part("a pack of data", below("data", 100_000)), part("a pack", below("data")), part("an index", below("index")),
        part("a snapshot", below("snapshots")), part("a key", below("keys")),
    )  # fmt: skip
    config = part("config", lambda repo: [os.path.join(repo, "config")])
    plan = {
        "bit flip": [each("bit flip") for each in (data, data, data, packs, index, snapshots, config)],
        "truncation": [each("truncation") for each in (data, packs, index, snapshots, keys, config)],
        "zeroed block": [each("zeroed block") for each in (data, data, packs, index, snapshots)],
        "swapped": [packs("swapped"), data("swapped")],
        "empty": [each("empty") for each in (index, snapshots)],
        "wrong database": [lambda repo, _noise: another_repository(made, repo)],
        "stale": [lambda repo, _noise: an_older_snapshot(made, repo)],
        # restic tries again for minutes where a file cannot be opened, unless it may not
        "unreadable": [lambda repo, _noise: of_nobody.update(locked_away(made, repo, tmp_path))],
        "half written": [lambda repo, _noise: unfinished(repo, "snapshots"), lambda repo, _noise: unfinished(repo, "snapshots", "index")],
    }  # fmt: skip
    identity, of_nobody = json.loads(ran("restic", "cat", "config", env=made["env"]))["id"], {}

    def place():
        of_nobody.clear()
        return damaged(made, tmp_path)

    def look(repo, level):
        repository = {"id": identity, **of_nobody}
        return first_look(
            verify, **declared(made, repo, level=level, repository=repository, maximum_age_hours=26.0, required_files=["app.db"])
        )

    row = campaign("restic", plan, place, look, lambda repo: restored(made, repo, tmp_path / "out"))
    compare(row, varies=True)
    assert row.missed == []


def restored(made, repo, folder):
    """Restore with restic itself."""
    shutil.rmtree(folder, ignore_errors=True)
    argv = ["restic", "--no-lock", "--no-cache", "restore", "latest", "--host", "web1", "--target", str(folder)]
    done = subprocess.run(argv, check=False, capture_output=True, env={**os.environ, **made["env"], "RESTIC_REPOSITORY": repo}, timeout=60)
    return tree_of(folder) if done.returncode == 0 else None


def another_repository(made, repo):
    """Put a sound repository with the same password there."""
    shutil.rmtree(repo)
    env = {**made["env"], "RESTIC_REPOSITORY": repo}
    ran("restic", "init", env=env)
    weaken_key(repo, b"s3cret-of-the-repository")
    ran("restic", "backup", "--host", "web1", "/etc/hostname", env=env)


def an_older_snapshot(made, repo):
    """Leave only a snapshot that was made long ago."""
    unfinished(repo, "snapshots")
    ran(
        "restic",
        "backup",
        "--host",
        "web1",
        "--time",
        "2024-02-03 04:05:06",
        made["source"],
        env={**made["env"], "RESTIC_REPOSITORY": repo},
    )


def unfinished(repo, *folders):
    """Take away what restic writes last."""
    for folder in folders:
        for path in files_below(os.path.join(repo, folder)):
            os.unlink(path)
