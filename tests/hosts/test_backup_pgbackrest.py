"""A real repository of pgBackRest: intact it is proven, each fault is found at the level that claims to find it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile

import pytest
from backups import Verifier, copied, files_below, snapshot_of
from campaign import campaign, compare, first_look, part
from clusters import MAJOR
from physical import as_user, rows_of, server_of, source_cluster

from ansible_collections.ops.maintenance.plugins.module_utils import backup_pgbackrest, postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError


def _settings(place):
    argv = f"pgbackrest --config={place}/pgbackrest.conf --stanza=main archive-push %p"
    return {"archive_mode": "on", "archive_command": f"'{argv}'"}


@pytest.fixture(scope="module")
def made():
    """One source and an encrypted repository with one full backup of it."""
    with source_cluster(_settings) as (cluster, place):
        for name in ("repo", "log", "lock"):
            as_user(cluster, "mkdir", f"{place}/{name}")
        _configure(place, cluster)
        base = ["pgbackrest", f"--config={place}/pgbackrest.conf", "--stanza=main", "--log-level-console=error"]
        as_user(cluster, *base, "stanza-create")
        as_user(cluster, *base, "--type=full", "backup")
        yield {"cluster": cluster, "place": place, "repo": f"{place}/repo", "configuration": f"{place}/pgbackrest.conf"}


def _configure(place, cluster, secret="s3cret-of-the-repository"):
    lines = ["[global]", f"repo1-path={place}/repo", "repo1-cipher-type=aes-256-cbc", f"repo1-cipher-pass={secret}", f"log-path={place}/log",
             f"lock-path={place}/lock", "start-fast=y", "repo1-retention-full=2", "[main]", f"pg1-path={cluster.data}",
             f"pg1-socket-path={cluster.socket}", "pg1-user=postgres"]  # fmt: skip
    path = f"{place}/pgbackrest.conf"
    with open(path, "w", encoding="utf-8") as target:
        target.write("\n".join(lines) + "\n")
    os.chmod(path, 0o640)
    shutil.chown(path, "root", "postgres")


@pytest.fixture
def verify():
    with tempfile.TemporaryDirectory(prefix="v", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Verifier(folder)


@pytest.fixture
def repo(made):
    """A copy of the repository that a test can damage."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield copied(made["repo"], os.path.join(folder, "repo"))


def declared(made, root="", **more):
    repository = {"configuration": made["configuration"], "member": "main", **more.pop("repository", {})}
    return {"kind": "pgbackrest", "root": root, "repository": repository, "level": 5, "database": "postgres", "count_tables": ["orders", "apart"],
            "sentinel": {"table": "orders", "column": "at"}, **more}  # fmt: skip


def test_an_intact_repository_raises_nothing_and_the_source_is_left_as_it_was(made, verify):
    """netpost-bak-03, asr-15-1: encrypted, restored with its key, and nothing of the source is touched, its tablespace included."""
    before = snapshot_of(made["place"])
    seen = verify(**declared(made, encrypted=True, source_server="live"), servers=[server_of(made["cluster"])])
    assert seen.bad == {}
    assert (seen.level, seen.state("encryption")) == (5, "ok")
    assert any("2000 rows in the backup, 2000 in the source" in line for line in seen["content"].evidence)
    after = snapshot_of(made["place"])
    assert {path for path in before if after.get(path) != before[path]} == set()
    assert "s3cret" not in seen.text


def test_a_missing_file_is_found_though_verify_ends_with_0(made, verify, repo):
    """``pgbackrest info`` says ok and ``verify`` exits 0: only what verify prints tells."""
    os.unlink(data_files(repo)[0])
    assert verify(**declared(made, repo, level=1)).bad == {}
    seen = verify(**declared(made, repo))
    assert (seen.level, seen.state("checksum")) == (1, "critical"), seen.bad


def data_files(repo):
    return [path for path in files_below(os.path.join(repo, "backup", "main")) if path.endswith(".gz") and "pg_data" in path]


def test_a_gap_in_the_write_ahead_log_is_found(made, verify, repo):
    """A backup whose own log is gone can be restored and never becomes consistent."""
    logs = sorted(path for path in files_below(os.path.join(repo, "archive")) if os.path.basename(path)[:8].isdigit())
    for path in logs[:-1]:
        os.unlink(path)
    seen = verify(**declared(made, repo))
    assert (seen.level, seen.state("structure")) == (0, "critical"), seen.bad
    assert "write-ahead log" in seen["structure"].summary


def test_a_wrong_key_is_unknown_and_said(made, verify):
    place, cluster = made["place"], made["cluster"]
    _configure(place, cluster, "an0ther-s3cret")
    try:
        seen = verify(**declared(made))
    finally:
        _configure(place, cluster)
    assert (seen.level, seen.state("present")) == (-1, "unknown")
    assert "an0ther-s3cret" not in seen.text


def test_an_empty_repository_and_another_stanza_are_no_backup(made, verify, repo):
    shutil.rmtree(os.path.join(repo, "backup", "main"))
    assert verify(**declared(made, repo)).bad["present"][0] in ("critical", "unknown")
    assert verify(**declared(made, repository={"member": "other"})).bad["present"][0] in ("critical", "unknown")
    with pytest.raises(InputError, match=r"repository\.member of set test"):
        verify(**declared(made, repository={"member": ""}))


def test_an_unreadable_repository_is_not_ok(made, verify, repo):
    locked_away(repo)
    seen = verify(**declared(made, repo))
    assert seen.level == -1
    assert seen.state("present") in ("unknown", "critical")


def locked_away(repo):
    """Let only root read a repository, which is opened by another user."""
    for folder, _folders, _names in os.walk(repo):
        os.chown(folder, 0, 0)
        os.chmod(folder, 0o700)


def _info(made):
    return json.loads(
        as_user(made["cluster"], "pgbackrest", f"--config={made['configuration']}", "--stanza=main", "info", "--output=json")
    )[0]


def test_what_info_says_is_judged_whatever_its_exit_status(made):
    stanza = _info(made)
    label = stanza["backup"][0]["label"]
    assert [item.state for item in backup_pgbackrest.judge_info(stanza, label, 1)] == ["ok"]
    with postgresql.connect(made["cluster"].server) as session:
        number = postgresql.system_identifier(session)
    assert [item.state for item in backup_pgbackrest.judge_info(stanza, label, 1, number)] == ["ok"]
    assert [item.state for item in backup_pgbackrest.judge_info(stanza, label, 1, "7")] == ["critical"]
    for change, state in (
        (lambda found: found["backup"][0].update(error=True), "critical"),
        (lambda found: found["backup"][0].pop("error"), "unknown"),
        (lambda found: found["backup"][0]["archive"].update(start=None), "critical"),
        (lambda found: found["archive"][0].update(max="000000010000000000000001"), "critical"),
        (lambda found: found["archive"].clear(), "critical"),
        (lambda found: found["repo"][0]["status"].update(code=99, message="other"), "critical"),
        (lambda found: found["status"].update(code=4, message="mixed"), "critical"),
    ):
        found = copy.deepcopy(stanza)
        change(found)
        assert state in [item.state for item in backup_pgbackrest.judge_info(found, label, 1)], change


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("", "unknown"),
        ("stanza: main\nstatus: ok\n", "unknown"),
        ("stanza: main\nstatus: error\n  No usable backup.info file\n", "critical"),
        ("stanza: main\nstatus: ok\n  backup: A, status: valid, total files checked: 0, total valid files: 0\n", "critical"),
        ("stanza: main\nstatus: error\n  backup: A, status: valid, total files checked: 5, total valid files: 5\n", "critical"),
        ("stanza: main\nstatus: ok\n  backup: A, status: valid, total files checked: 5, total valid files: 5\n", "ok"),
        ("stanza: main\nstatus: error\n  backup: B, status: invalid, total files checked: 5, total valid files: 4\n"
         "  backup: A, status: valid, total files checked: 5, total valid files: 5\n", "warning"),
    ],
)  # fmt: skip
def test_only_what_verify_says_of_this_backup_proves_it(said, state):
    worst = ["ok", "warning", "unknown", "critical"]
    assert max((found for found, _text in backup_pgbackrest.read_verify(said, "A", 0, "")), key=worst.index) == state


# At random -----------------------------------------------------------------------------------------------------------


def ending(*ends):
    """Damage some file whose path ends so; the copies that pgBackRest keeps of its lists are files of their own."""
    return part(ends[0], lambda repo: [path for path in files_below(repo) if path.endswith(ends) and not os.path.islink(path)])


def test_random_damage_is_found_where_the_documentation_says(made, verify):
    data, log = (
        part("a file of data", data_files),
        part("the write-ahead log", lambda repo: files_below(f"{repo}/archive/main/{MAJOR}-1/0000000100000000")),
    )
    manifest, info, copy = (
        ending("F/backup.manifest"),
        ending("backup/main/backup.info"),
        ending("backup.manifest.copy", "backup.info.copy"),
    )
    plan = {
        "bit flip": [each("bit flip") for each in (data, data, data, manifest, info, copy, log)],
        "truncation": [each("truncation") for each in (data, data, manifest)],
        "zeroed block": [each("zeroed block") for each in (data, data, manifest)],
        "swapped": [data("swapped")],
        "empty": [each("empty") for each in (data, manifest)],
        "unreadable": [lambda repo, _noise: locked_away(repo)],
        "half written": [lambda repo, _noise: [os.unlink(path) for path in files_below(f"{repo}/backup") if "backup.manifest" in path]],
    }
    more, identity = {}, {}
    plan["wrong database"] = [lambda _repo, _noise: identity.update(id="7")]
    plan["stale"] = [lambda _repo, _noise: more.update(maximum_age_hours=1e-6)]
    with postgresql.connect(made["cluster"].server) as session, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        system = postgresql.system_identifier(session)

        def place():
            more.clear()
            identity.update(id=system)
            return copied(made["repo"], os.path.join(folder, "repo"))

        def look(root, level):
            return first_look(verify, **declared(made, root, level=level, repository=identity, **more))

        row = campaign("pgBackRest", plan, place, look, lambda root: rows_of("postgres", lambda into: restored(made, root, into)))
    compare(row, varies=True)
    assert row.missed == []


def restored(made, repo, into):
    """Restore with pgBackRest itself."""
    base = ["pgbackrest", f"--config={made['configuration']}", "--stanza=main", f"--repo1-path={repo}", f"--pg1-path={into.data}",
            f"--lock-path={into.socket}", "--log-level-file=off"]  # fmt: skip
    as_user(made["cluster"], *base, "restore", "--type=immediate", f"--tablespace-map-all={into.folder}/spaces")
    return {
        "restore_command": f"'{' '.join(base)} archive-get %f \"%p\"'",
        "recovery_target": "'immediate'",
        "recovery_target_action": "'promote'",
    }
