"""The key of encrypted backups comes from where it is kept for the loss of this host; the restore test uses that one and no key of the host."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys

import pytest
from backups import Verifier, ran
from recovery_runs import take
from test_backup_cloud import _TOOL

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError

AGE = ["age", "--decrypt", "--identity", "{key}"]


@pytest.fixture
def escrow(tmp_path):
    """A key that lies elsewhere, and a backup that is encrypted for it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ran("age-keygen", "-o", str(elsewhere / "key"))
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO orders (text) VALUES (?)", [("good " * 20,) for _row in range(100)])
    connection.close()
    (tmp_path / "store").mkdir()
    recipient = ran("age-keygen", "-y", str(elsewhere / "key")).strip()
    ran("age", "--recipient", recipient, "--output", str(tmp_path / "store/app.db.age"), str(tmp_path / "app.db"))
    return elsewhere / "key"


def declared(tmp_path, key, **more):
    return {
        "root": str(tmp_path / "store"), "kind": "sqlite", "pattern": "*", "level": 5, "required_tables": ["orders"], "encrypted": True,
        "count_tables": ["orders"], "source": str(tmp_path / "app.db"), "decrypt_command": AGE,
        "recovery_key": {"command": ["cat", str(key)]}, **more,
    }  # fmt: skip


@pytest.fixture
def verify(tmp_path):
    return Verifier(str(tmp_path))


def test_the_restore_test_fetches_the_key_and_leaves_none_behind(tmp_path, escrow, verify):
    """netpost-bak-03: stored encrypted, proven readable with a key that is had without this host."""
    seen = verify(**declared(tmp_path, escrow))
    assert (seen.level, seen.bad) == (5, {})
    assert "it alone opened the newest backup" in seen["recovery_key"].summary
    secret = escrow.read_text().split("\n")[-2]
    assert secret.startswith("AGE-SECRET-KEY-")
    assert secret not in seen.text
    assert not os.path.exists(verify.scratch)


@pytest.mark.parametrize("fault", ["another key", "gone", "nothing printed", "not installed", "hangs"])
def test_a_key_that_cannot_be_had_without_this_host_is_found(tmp_path, escrow, verify, fault):
    command = {
        "gone": ["cat", "/nowhere"],
        "nothing printed": ["true"],
        "not installed": ["vault-of-the-site"],
        "hangs": ["sleep", "60"],
    }.get(fault)
    if fault == "another key":
        ran("age-keygen", "-o", str(tmp_path / "other"))
        command = ["cat", str(tmp_path / "other")]
    seen = verify(**declared(tmp_path, escrow, recovery_key={"command": command, "timeout_seconds": 1.0}))
    assert seen.state("recovery_key") == "critical"
    assert (seen.level, seen.state("level") in ("critical", "unknown")) == (0, True)


def test_a_key_in_the_keyring_of_this_host_does_not_help(tmp_path, verify, monkeypatch):
    """netpost-bak-03, the mistake itself: the test passes with the local key, and after the loss of the host nobody can read anything."""
    home = tmp_path / "home"
    (home / ".gnupg").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GNUPGHOME", str(home / ".gnupg"))
    quiet = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"]
    ran(*quiet, "--quick-generate-key", "shop", "default", "default", "never")
    (tmp_path / "store").mkdir()
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    connection.close()
    ran(*quiet, "--recipient", "shop", "--output", str(tmp_path / "store/app.db.gpg"), "--encrypt", str(tmp_path / "app.db"))
    plain = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--decrypt"]
    local = verify(**declared(tmp_path, "", decrypt_command=plain, recovery_key=None))
    assert (local.level, local.state("recovery_key")) == (5, "unknown"), "it can be read here, and that is all that is known"
    (tmp_path / "written-down").write_text("not the key\n")
    with_it = [*plain[:-1], "--passphrase-file", "{key}", "--decrypt"]
    seen = verify(**declared(tmp_path, tmp_path / "written-down", decrypt_command=with_it))
    assert (seen.level, seen.state("recovery_key")) == (0, "critical")
    ran("gpgconf", "--kill", "all")


def test_reading_daily_with_a_key_of_the_host_says_nothing_and_the_drill_says_unknown(tmp_path, escrow, verify):
    by_host = [*AGE[:-1], str(escrow)]
    assert "backup.recovery_key" not in verify(**declared(tmp_path, "", level=2, decrypt_command=by_host, recovery_key=None)).findings
    assert verify(**declared(tmp_path, "", level=3, decrypt_command=by_host, recovery_key=None)).state("recovery_key") == "unknown"


def test_what_lies_in_clear_is_not_called_readable_with_the_key(tmp_path, escrow, verify):
    shutil.copy(tmp_path / "app.db", tmp_path / "store/app.db.age")
    seen = verify(**declared(tmp_path, escrow))
    assert (seen.state("encryption"), seen.state("recovery_key")) == ("critical", "critical")
    assert "nothing was read with it" in seen["recovery_key"].summary


def test_a_backup_in_the_cloud_is_fetched_and_opened_with_the_fetched_key(tmp_path, escrow, verify):
    """netpost-bak-03 and asr-14-6: from the store, timed, encrypted, read with the key that lies elsewhere."""
    tool = tmp_path / "tool"
    tool.write_text(_TOOL.format(python=sys.executable))
    tool.chmod(0o755)
    (tmp_path / "environment").write_text(f"STORE={tmp_path}/store\nTOKEN=s3cret-of-the-store\n")
    (tmp_path / "environment").chmod(0o600)
    command = {"list": [str(tool), "list"], "fetch": [str(tool), "fetch", "{name}", "{target}"], "kind": "sqlite",
               "environment_file": str(tmp_path / "environment"), "maximum_bytes": 10_000_000}  # fmt: skip
    seen = verify(**{**declared(tmp_path, escrow), "root": "", "kind": "command", "command": command})
    assert (seen.level, seen.bad) == (5, {})
    assert seen.state("encryption") == "ok"
    assert {metric.name: metric.value for metric in seen.outcome.metrics}["backup.read_seconds"] > 0


def test_a_declaration_that_cannot_work_is_refused(tmp_path, escrow, verify):
    for wrong, says in (
        ({"decrypt_command": ["age", "--decrypt"]}, "lacks {key}"),
        ({"recovery_key": None}, "which fetches it"),
        ({"encrypted": False}, "encrypted of set test is false"),
        ({"recovery_key": {"command": []}}, "the program that prints the key"),
        ({"recovery_key": {"command": ["x"], "timeout_seconds": 0.0}}, "It is in recovery_key of set test"),
    ):
        with pytest.raises(InputError) as caught:
            verify(**declared(tmp_path, escrow, **wrong))
        assert says in str(caught.value)


def test_a_snapshot_is_sealed_for_age_and_its_copy_opens_with_the_key_that_lies_elsewhere(tmp_path, escrow):
    """asr-03-3: environment files at rest, 0600, with the tool that the inventories name."""
    secret = tmp_path / "app/.env"
    secret.parent.mkdir()
    secret.write_text("DATABASE_PASSWORD=hunter2\n")
    recipient = ran("age-keygen", "-y", str(escrow)).strip()
    sealed = {"encrypt_command": ["age", "--recipient", recipient], "decrypt_command": ["age", "--decrypt", "--identity", str(escrow)]}
    outcome = take(tmp_path, paths=[str(secret)], **sealed)
    (folder,) = [path for path in (tmp_path / "snapshots").iterdir() if path.is_dir()]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "ROLLBACK.txt", "content.sealed"}
    assert all(b"hunter2" not in path.read_bytes() for path in folder.iterdir())
    assert "hunter2" not in str(outcome.record())
