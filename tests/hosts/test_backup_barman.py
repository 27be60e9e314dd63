"""A real Barman with a real backup: intact it is proven, each fault is found at the level that claims to find it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time

import pytest
from backups import Verifier, copied, files_below
from campaign import campaign, compare, first_look, part
from physical import as_user, rows_of, server_of, source_cluster

from ansible_collections.ops.maintenance.plugins.module_utils import backup_barman, postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError


def _settings(place):
    incoming = f"{place}/home/main/incoming"
    return {"archive_mode": "on", "archive_command": f"'test ! -f {incoming}/%f && cp %p {incoming}/%f'"}


def _configure(path, home, cluster):
    address = f"host={cluster.socket} port=5432 user=postgres"
    lines = ["[barman]", "barman_user = barman", f"barman_home = {home}", f"log_file = {home}/barman.log", "configuration_files_directory = /none",
             "[main]", "description = test", f"conninfo = {address} dbname=postgres", f"streaming_conninfo = {address}",
             "backup_method = postgres", "archiver = on"]  # fmt: skip
    with open(path, "w", encoding="utf-8") as target:
        target.write("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def made():
    """One source of the user barman, and its backup over the socket by the method postgres."""
    with source_cluster(_settings, os_user="barman") as (cluster, place):
        as_user(cluster, "mkdir", "-p", f"{place}/home/main/incoming")
        _configure(f"{place}/barman.conf", f"{place}/home", cluster)
        barman = ["barman", "--config", f"{place}/barman.conf"]
        with postgresql.connect(cluster.server) as session:
            session.execute("SELECT pg_switch_wal()")
        _wait(lambda: os.listdir(f"{place}/home/main/incoming"))
        as_user(cluster, *barman, "archive-wal", "main")
        as_user(cluster, *barman, "backup", "main")
        for _attempt in range(3):
            with postgresql.connect(cluster.server) as session:
                session.execute("SELECT pg_logical_emit_message(true, 'test', 'something to switch after')")
                session.execute("SELECT pg_switch_wal()")
            time.sleep(1)
            as_user(cluster, *barman, "archive-wal", "main")
        as_user(cluster, *barman, "check-backup", "main", "latest")
        yield {"cluster": cluster, "place": place, "home": f"{place}/home", "configuration": f"{place}/barman.conf"}


def _wait(condition):
    for _attempt in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError


@pytest.fixture
def verify():
    with tempfile.TemporaryDirectory(prefix="v", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Verifier(folder)


@pytest.fixture
def other(made):
    """A copy of Barman's home that a test can damage, with a configuration of its own."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        home = copied(made["home"], os.path.join(folder, "home"))
        _configure(os.path.join(folder, "barman.conf"), home, made["cluster"])
        yield {**made, "home": home, "configuration": os.path.join(folder, "barman.conf")}


def declared(made, **more):
    repository = {"configuration": made["configuration"], "member": "main", **more.pop("repository", {})}
    return {"kind": "barman", "repository": repository, "level": 5, "database": "postgres", "count_tables": ["orders", "apart"],
            "sentinel": {"table": "orders", "column": "at"}, **more}  # fmt: skip


def test_an_intact_backup_raises_nothing(made, verify):
    seen = verify(**declared(made, source_server="live"), servers=[server_of(made["cluster"])])
    assert seen.bad == {}
    assert seen.level == 5
    assert any("2000 rows in the backup, 2000 in the source" in line for line in seen["content"].evidence)


def _data(home):
    return [path for path in files_below(os.path.join(home, "main", "base")) if "/data/base/" in path and os.path.getsize(path) > 40]


def test_a_missing_file_is_found_by_its_manifest(other, verify):
    path = _data(other["home"])[0]
    os.unlink(path)
    seen = verify(**declared(other))
    assert (seen.level, seen.state("checksum")) == (1, "critical"), seen.bad
    assert os.path.basename(path) in seen["checksum"].summary


def test_without_pg_verifybackup_the_bytes_are_unknown(made, verify, monkeypatch):
    monkeypatch.setattr(backup_barman, "installed_majors", list)
    seen = verify(**declared(made, level=2))
    assert (seen.level, seen.state("checksum")) == (1, "unknown")


def test_a_backup_without_its_write_ahead_log_is_found_though_it_is_called_done(other, verify):
    for path in files_below(os.path.join(other["home"], "main", "wals")):
        if os.path.basename(path)[:8].isdigit() and "." not in os.path.basename(path):
            os.unlink(path)
    seen = verify(**declared(other))
    assert (seen.level, seen.state("structure")) == (0, "critical"), seen.bad
    assert "write-ahead log" in seen["structure"].summary


@pytest.mark.parametrize("status", ["FAILED", "WAITING_FOR_WALS"])
def test_a_backup_that_is_not_done_is_none(other, verify, status):
    _status(other["home"], status)
    seen = verify(**declared(other, level=1))
    assert (seen.level, seen.state("present")) == (-1, "critical")
    assert status in str(seen["present"].evidence)


def _status(home, status):
    """Let Barman's catalogue say another status of the backup."""
    path = next(name for name in files_below(home) if name.endswith("backup.info"))
    with open(path, encoding="utf-8") as source:
        text = source.read()
    assert "status=" in text
    lines = [f"status={status}" if line.startswith("status=") else line for line in text.splitlines()]
    with open(path, "w", encoding="utf-8") as target:
        target.write("\n".join(lines) + "\n")


def test_an_empty_catalogue_is_no_backup_though_its_check_is_ok(other, verify):
    shutil.rmtree(os.path.join(other["home"], "main", "base"))
    os.mkdir(os.path.join(other["home"], "main", "base"))
    shutil.chown(os.path.join(other["home"], "main", "base"), "barman", "barman")
    shutil.rmtree(os.path.join(other["home"], "main", "meta"), ignore_errors=True)
    assert verify(**declared(other)).bad["present"][0] == "critical"


def test_a_server_that_barman_does_not_know_is_unknown(made, verify):
    assert verify(**declared(made, repository={"member": "other"})).bad["present"][0] == "unknown"
    with pytest.raises(InputError, match=r"repository\.member of set test"):
        verify(**declared(made, repository={"member": ""}))


def test_what_check_says_is_judged():
    """A failing check of the server warns; one of the store condemns what lies in it; silence is unknown."""
    good = {"directories": {"status": "OK", "hint": ""}}
    assert [item.state for item in backup_barman.judge_check(good)] == ["ok"]
    assert [item.state for item in backup_barman.judge_check({**good, "postgresql": {"status": "FAILED", "hint": ""}})] == ["warning"]
    assert [item.state for item in backup_barman.judge_check({"directories": {"status": "FAILED", "hint": "x"}})] == ["critical"]
    assert [item.state for item in backup_barman.judge_check({})] == ["unknown"]


# At random -----------------------------------------------------------------------------------------------------------


def ending(end, reach=None):
    """Damage some file below Barman's home whose name ends so."""
    return part(end, lambda home: [path for path in files_below(home) if path.endswith(end)], reach)


def test_random_damage_is_found_where_the_documentation_says(made, verify):
    """Barman's manifest says nothing of the write-ahead log: only starting the copy reads it."""
    data, log = part("a file of data", _data), part("the write-ahead log", _log, reach=250)
    manifest, info = ending("backup_manifest"), ending("backup.info")
    plan = {
        "bit flip": [each("bit flip") for each in (data, manifest, log)],
        "truncation": [each("truncation") for each in (data, manifest)],
        "zeroed block": [each("zeroed block") for each in (data, log)],
        "swapped": [data("swapped")],
        "empty": [each("empty") for each in (data, info)],
        "unreadable": [data("unreadable")],
        "half written": [lambda home, _noise: _status(home, "STARTED")],
    }
    more, identity = {}, {}
    plan["wrong database"] = [lambda _home, _noise: identity.update(id="7")]
    plan["stale"] = [lambda _home, _noise: more.update(maximum_age_hours=1e-6)]
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        configuration = os.path.join(folder, "barman.conf")

        def place():
            more.clear()
            identity.clear()
            home = copied(made["home"], os.path.join(folder, "home"))
            _configure(configuration, home, made["cluster"])
            return home

        def look(_home, level):
            return first_look(verify, **declared({**made, "configuration": configuration}, level=level, repository=identity, **more))

        row = campaign("Barman", plan, place, look, lambda _home: rows_of("barman", lambda into: restored(made, configuration, into)))
    compare(row, varies=True)
    assert row.missed == []


def _log(home):
    """The segment in which the backup began."""
    with open(next(path for path in files_below(home) if path.endswith("backup.info")), encoding="utf-8") as source:
        begun = next(line.strip().partition("=")[2] for line in source if line.startswith("begin_wal="))
    return [path for path in files_below(f"{home}/main/wals") if os.path.basename(path) == begun]


def restored(made, configuration, into):
    """Recover with Barman itself."""
    as_user(made["cluster"], "barman", "--config", configuration, "recover", "--target-immediate", "--tablespace", f"apart:{into.folder}/spaces",
            "main", "latest", into.data)  # fmt: skip
    return {
        "restore_command": f'\'cp "{into.data}/barman_wal/%f" "%p"\'',
        "recovery_target": "'immediate'",
        "recovery_target_action": "'promote'",
    }
