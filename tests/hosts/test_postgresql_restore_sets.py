"""Which set a backup is restored from, and encrypted backups: real databases, real age."""

from __future__ import annotations

import os
import subprocess

import pytest
from postgresql_states import drop, fill, names, of, orders
from recovery_runs import dump_set, dumped, restore
from test_postgresql_restore import prove, spoil

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError

AGE = ["age", "--decrypt", "--identity", "{key}"]


@pytest.fixture
def clean(cluster):
    before = names(cluster)
    yield
    drop(cluster, *sorted(names(cluster) - before))


@pytest.fixture
def backups(tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


def test_a_newer_dump_of_another_database_s_set_is_not_chosen(cluster, database, clean, tmp_path, backups):
    """A plain dump does not say what it was made of: its set does."""
    fill(cluster, database)
    own = dumped(cluster, database, backups / "own.sql", "plain")
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE DATABASE sibling")
    fill(cluster, "sibling", 77)
    (tmp_path / "siblings").mkdir()
    other = dumped(cluster, "sibling", tmp_path / "siblings" / "other.sql", "plain")
    sets = [dump_set(backups, database), dump_set(tmp_path / "siblings", "sibling", "siblings")]
    prove(tmp_path, daily=(own, 4, "2026-11-19T01:00:00+00:00"), siblings=(other, 5, "2026-11-20T01:00:00+00:00"))
    assert restore(cluster, database, tmp_path, check=True, sets=sets).returned["backup"] == own
    with pytest.raises(InputError, match=r"is of the database 'sibling', expected one of 'db_.*nothing was changed"):
        restore(cluster, database, tmp_path, sets=sets, backup=other)
    prove(tmp_path, siblings=(other, 5, "2026-11-20T01:00:00+00:00"))
    with pytest.raises(MaintenanceError, match=r"No backup of the declared sets of database 'db_.* \(daily\) is proven to level 4"):
        restore(cluster, database, tmp_path, sets=sets)
    assert orders(cluster.server, database) == 200
    assert restore(cluster, database, tmp_path, sets=sets, backup=other, other_database="sibling").status == "changed"
    assert orders(cluster.server, database) == 77


def key_and_seal(tmp_path, path):
    """Encrypt a dump for a new key, and leave nothing but that."""
    key = tmp_path / f"key-{os.path.basename(path)}"
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    recipient = subprocess.run(["age-keygen", "-y", str(key)], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["age", "--recipient", recipient, "--output", f"{path}.age", path], check=True)
    os.unlink(path)
    return key, f"{path}.age"


@pytest.mark.parametrize("form", ["plain", "custom", "gzip"])
def test_an_encrypted_backup_is_restored_with_the_key_that_is_fetched(cluster, database, clean, tmp_path, backups, form):
    """netpost-res-1, netpost-em-7: chosen, decrypted and restored; neither key nor decrypted copy stays."""
    fill(cluster, database)
    key, path = key_and_seal(tmp_path, dumped(cluster, database, backups / "backup_20261120.sql", form))
    spoil(cluster, database)
    sets = [dump_set(backups, database, encrypted=True, decrypt_command=AGE, recovery_key=recovery("cat", str(key)))]
    prove(tmp_path, daily=(path, 5, "2026-11-20T01:00:00+00:00"))
    assert restore(cluster, database, tmp_path, check=True, sets=sets).status == "due"
    assert orders(cluster.server, database) == 11
    outcome = restore(cluster, database, tmp_path, sets=sets)
    assert (outcome.status, outcome.returned["backup"]) == ("changed", path)
    assert orders(cluster.server, database) == 200
    assert [finding.state for finding in of(outcome, "restore.backup")] == ["ok"]
    assert not os.path.exists(tmp_path / "scratch")
    assert restore(cluster, database, tmp_path, sets=sets).status == "ok"


def recovery(*command):
    return {"command": list(command), "os_user": "", "environment_file": "", "timeout_seconds": 10.0}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no command", r"is encrypted \(age\), expected decrypt_command in its set 'daily'"),
        ("no key", "could not be fetched: false ended with 1"),
        ("another key", "the key does not fit, or its data is damaged"),
        ("no dump", r"backups/backup_20261120\.sql\.age is neither an archive of pg_dump nor its text"),
        ("cut off", "the key does not fit, or its data is damaged"),
    ],
)
def test_an_encrypted_backup_that_cannot_be_opened_changes_nothing(cluster, database, clean, tmp_path, backups, fault, says):
    fill(cluster, database)
    plain = dumped(cluster, database, backups / "backup_20261120.sql", "plain")
    if fault == "no dump":
        (backups / "backup_20261120.sql").write_text("<html>an error page</html>\n")
    key, path = key_and_seal(tmp_path, plain)
    spoil(cluster, database)
    command = ["cat", str(key)]
    if fault == "another key":
        subprocess.run(["age-keygen", "-o", str(tmp_path / "another")], check=True, capture_output=True)
        command = ["cat", str(tmp_path / "another")]
    elif fault == "no key":
        command = ["false"]
    elif fault == "cut off":
        os.truncate(path, os.path.getsize(path) - 20)
    declared = {"encrypted": True, "decrypt_command": AGE, "recovery_key": recovery(*command)}
    sets = [dump_set(backups, database, **({} if fault == "no command" else declared))]
    before = names(cluster)
    with pytest.raises(MaintenanceError, match=says):
        restore(cluster, database, tmp_path, sets=sets, backup=path)
    assert orders(cluster.server, database) == 11
    assert names(cluster) == before
    assert not os.path.exists(tmp_path / "scratch")
