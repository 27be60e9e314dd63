"""Real repositories of Borg: intact ones are proven, each fault is found at the level that claims to find it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tempfile
import zlib

import pytest
from backups import Verifier, copied, files_below, ran, snapshot_of
from campaign import campaign, compare, first_look, part, tree_of

from ansible_collections.ops.maintenance.plugins.module_utils import backup_borg

_MAGIC = b"BORG_SEG"
_PUT = 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with one archive of a folder, and its password."""
    folder = tmp_path_factory.mktemp("borg")
    source = folder / "src"
    source.mkdir()
    for number in range(3):
        (source / f"file{number}").write_bytes(os.urandom(200_000))
    (source / "empty").touch()
    password = folder / "pass word"
    password.write_text("s3cret-of-the-repository\n")
    password.chmod(0o600)
    env = {"BORG_PASSCOMMAND": f"cat '{password}'", "BORG_BASE_DIR": str(folder / "base"), "BORG_SELFTEST": "disabled",
           "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}  # fmt: skip
    repo = str(folder / "repo")
    ran("borg", "init", "-e", "repokey", repo, env=env)
    ran("borg", "create", f"{repo}::web1-1", "src", env=env, cwd=folder)
    return {"repo": repo, "password": str(password), "source": str(source), "env": env, "folder": folder}


@pytest.fixture
def verify(tmp_path):
    return Verifier(tmp_path)


def declared(made, root=None, **more):
    repository = {"password_file": made["password"], **more.pop("repository", {})}
    return {"kind": "borg", "root": root or made["repo"], "pattern": "web1-*", "repository": repository, "level": 5, **more}


def damaged(made, tmp_path):
    return copied(made["repo"], tmp_path / "repo")


def segment_of_data(repo):
    return files_below(os.path.join(repo, "data"))[0]


def forged(path):
    """Flip a bit of a chunk and mend the segment's CRC, as a faulty memory would have written it."""
    with open(path, "r+b") as target:
        data = bytearray(target.read())
        place = len(_MAGIC)
        while True:
            _crc, size, tag = struct.unpack_from("<IIB", data, place)
            if tag == _PUT and size > 100_000:
                break
            place += size
        data[place + size // 2] ^= 1
        crc = zlib.crc32(data[place + 4 : place + size])
        struct.pack_into("<I", data, place, crc)
        target.seek(0)
        target.write(data)


def test_an_intact_repository_raises_nothing_and_is_left_as_it_was(made, verify):
    before = snapshot_of(made["repo"])
    seen = verify(**declared(made, required_files=["file0"], source=made["source"], encrypted=True, expected={"every": "weekly"}))
    assert seen.bad == {}
    assert (seen.level, seen.proof["bytes"]) == (5, 600_000)
    assert seen.proof["rto_seconds"] > 0
    assert seen.proof["rpo_seconds"] < 1
    noted = {os.path.join(made["repo"], name) for name in ("nonce", "config")}
    after = snapshot_of(made["repo"])
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} <= noted


def test_data_with_a_right_crc_and_wrong_content_is_only_found_when_it_is_verified(made, verify, tmp_path):
    """``borg check`` compares CRCs only; what was damaged before they were made needs ``--verify-data``."""
    repo = damaged(made, tmp_path)
    forged(segment_of_data(repo))
    assert verify(**declared(made, repo, level=1)).bad == {}
    seen = verify(**declared(made, repo))
    assert (seen.level, seen.state("checksum")) == (1, "critical")


def test_a_missing_index_is_rebuilt_and_the_archive_is_still_proven(made, verify, tmp_path):
    repo = damaged(made, tmp_path)
    for name in os.listdir(repo):
        if name.startswith(("index.", "hints.", "integrity.")):
            os.unlink(os.path.join(repo, name))
    assert verify(**declared(made, repo, level=2)).level == 2


def test_a_checkpoint_is_no_backup(made, verify, tmp_path):
    """What a broken run leaves is named like an archive, and is none."""
    repo = damaged(made, tmp_path)
    an_interrupted_archive(made, repo)
    seen = verify(**declared(made, repo))
    assert (seen.level, seen.state("present")) == (-1, "critical")
    assert "checkpoint" in seen["present"].evidence[0]


@pytest.mark.parametrize("other", [{"pattern": "db-*"}, {"repository": {"host": "another"}}])
def test_archives_of_another_name_or_host_are_not_this_set(made, verify, other):
    seen = verify(**declared(made, **other))
    assert (seen.level, seen.state("present")) == (-1, "critical")


def test_a_wrong_password_is_unknown_and_said(made, verify, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("an0ther-s3cret\n")
    wrong.chmod(0o600)
    seen = verify(**declared(made, repository={"password_file": str(wrong)}))
    assert (seen.level, seen.state("present")) == (-1, "unknown")
    assert "incorrect" in seen["present"].summary
    assert "an0ther-s3cret" not in seen.text


def test_where_there_is_no_repository_there_is_no_backup(made, verify, tmp_path):
    seen = verify(**declared(made, str(tmp_path / "nowhere")))
    assert (seen.level, seen.state("present")) == (-1, "critical")


def test_a_repository_that_is_not_encrypted_is_found_where_it_ought_to_be(made, verify, tmp_path):
    """netpost-bak-03: encryption is proven by what the repository says, not by what was meant."""
    repo = str(tmp_path / "plain")
    ran("borg", "init", "-e", "none", repo, env=made["env"])
    ran("borg", "create", f"{repo}::web1-1", "src", env=made["env"], cwd=made["folder"])
    assert verify(**declared(made, repo, level=1, encrypted=True)).state("encryption") == "critical"
    assert verify(**declared(made, repo, level=1)).bad == {}


def test_a_lock_that_nobody_holds_is_told_and_waited_for_by_nobody(made, verify, tmp_path):
    repo = damaged(made, tmp_path)
    lock = os.path.join(repo, "lock.exclusive")
    os.mkdir(lock)
    assert verify(**declared(made, repo, level=1)).bad == {}
    os.utime(lock, (1_600_000_000, 1_600_000_000))
    assert verify(**declared(made, repo, level=1)).bad["structure"][0] == "warning"
    assert os.path.isdir(lock)


def test_what_the_set_must_hold_is_looked_for(made, verify):
    seen = verify(**declared(made, required_files=["payroll.db"]))
    assert (seen.level, seen.state("content")) == (4, "critical")


def test_only_a_part_restored_is_said(made, verify):
    seen = verify(**declared(made, repository={"restore_paths": ["src/file1"]}, required_files=["file1"]))
    assert (seen.bad, seen.level, seen["restore"].basis) == ({}, 5, "sampled")


def test_a_restored_file_that_differs_is_found(made, tmp_path):
    (tmp_path / "f").write_bytes(b"other")
    nodes = [backup_borg.Node("f", 5, 0.0, "0" * 64)]
    assert [verdict.state for verdict in backup_borg._differing(str(tmp_path), nodes)] == ["critical"]


# At random -----------------------------------------------------------------------------------------------------------


def test_random_damage_is_found_where_the_documentation_says(made, verify, tmp_path):
    segments = part(
        "a segment of data", lambda repo: [path for path in files_below(os.path.join(repo, "data")) if os.path.getsize(path) > 100_000]
    )
    metadata = part("a segment", lambda repo: files_below(os.path.join(repo, "data")))
    config = part("config", lambda repo: [os.path.join(repo, "config")])
    plan = {
        "bit flip": [each("bit flip") for each in (segments, metadata)],
        "truncation": [segments("truncation")],
        "zeroed block": [segments("zeroed block")],
        "swapped": [segments("swapped")],
        "empty": [each("empty") for each in (metadata, config)],
        "wrong database": [lambda repo, _noise: another_repository(made, repo)],
        "stale": [lambda repo, _noise: an_older_archive(made, repo)],
        "unreadable": [segments("unreadable")],
        "half written": [lambda repo, _noise: an_interrupted_archive(made, repo)],
    }
    identity = json.loads(ran("borg", "info", "--json", made["repo"], env=made["env"]))["repository"]["id"]

    def look(repo, level):
        return first_look(
            verify, **declared(made, repo, level=level, repository={"id": identity}, maximum_age_hours=26.0, required_files=["file0"])
        )

    row = campaign("Borg", plan, lambda: damaged(made, tmp_path), look, lambda repo: restored(made, repo, tmp_path / "out"))
    compare(row, varies=True)
    assert row.missed == []


def restored(made, repo, folder):
    """Extract with Borg itself."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    with tempfile.TemporaryDirectory() as base:
        argv = ["borg", "extract", f"{repo}::web1-1"]
        done = subprocess.run(
            argv, check=False, capture_output=True, env={**os.environ, **made["env"], "BORG_BASE_DIR": base}, cwd=folder, timeout=60
        )
    return tree_of(folder) if done.returncode == 0 else None


def another_repository(made, repo):
    """Put a sound repository with the same password and names there."""
    shutil.rmtree(repo)
    with tempfile.TemporaryDirectory() as base:
        env = {**made["env"], "BORG_BASE_DIR": base}
        ran("borg", "init", "-e", "repokey", repo, env=env)
        ran("borg", "create", f"{repo}::web1-1", "/etc/hostname", env=env)


def an_older_archive(made, repo):
    """Leave only an archive that was made long ago."""
    with tempfile.TemporaryDirectory() as base:
        env = {**made["env"], "BORG_BASE_DIR": base}
        ran("borg", "delete", f"{repo}::web1-1", env=env)
        ran("borg", "create", "--timestamp", "2024-02-03T04:05:06", f"{repo}::web1-0", "src", env=env, cwd=made["folder"])


def an_interrupted_archive(made, repo):
    """Leave only what a broken run leaves."""
    with tempfile.TemporaryDirectory() as base:
        ran("borg", "rename", f"{repo}::web1-1", "web1-1.checkpoint", env={**made["env"], "BORG_BASE_DIR": base})
