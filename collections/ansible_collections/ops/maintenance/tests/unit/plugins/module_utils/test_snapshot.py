# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshot and rollback belong together: what one keeps, the other puts back."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import typing as t
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    inventory_of_host,
    rollback,
    snapshot,
    snapshot_store,
    sqlite_db,
    sqlite_restore,
    sqlite_upkeep,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
RUN = "weekly-20261121T020000Z-3fa9"


class Machine(Host):
    """The real machine, but with a fixed time and recorded answers of its package manager."""

    def __init__(self, now: datetime = NOW, packages: dict[str, str] | None = None) -> None:
        self.time = now
        self.packages = {"nginx": "1.22.1-9", "openssl": "3.0.17-1"} if packages is None else packages
        self.asked: list[list[str]] = []

    def now(self) -> datetime:
        return self.time

    def which(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name == "dpkg-query" else super().which(name)

    def run(self, argv: t.Sequence[str], **more: t.Any) -> Ran:
        self.asked.append(list(argv))
        if argv[0] == "dpkg-query":
            return Ran(argv, 0, "".join(f"ii \t{n}\t{v}\n" for n, v in self.packages.items()) + "rc \told\t1\n", "")
        if argv[0] == "apt-get":
            if "--simulate" not in argv:
                for name, _equals, version in (word.partition("=") for word in argv[argv.index("--") + 1 :]):
                    self.packages[name] = version
            removed = "Remv other [1]\n" if "openssl=0.9" in argv else "Remv extra [1]\n"
            return Ran(argv, 100 if "openssl=gone" in argv else 0, removed, "E: Version 'gone' was not found")
        if argv[0] == "systemctl":
            return Ran(argv, 0, "Id=app.service\nActiveState=active\nUnitFileState=enabled\n\nId=\n", "")
        return super().run(argv, **more)


@contextlib.contextmanager
def opened(path: t.Any) -> t.Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as connection:
        yield connection


def make(path: t.Any, rows: int = 500) -> str:
    with opened(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO orders (text) VALUES (?)", [("good " * 20,) for _row in range(rows)])
        connection.execute("COMMIT")
    return str(path)


def orders(path: t.Any) -> int:
    return sqlite_db.reading(str(path), lambda c: sqlite_db.table_counts(c, ["orders"]))["orders"]


def spoil(path: t.Any) -> None:
    """Do what a bad maintenance does, and leave it in a -wal as a killed application would."""
    code = (
        "import os,sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('update orders set text=0');"
        "c.execute('delete from orders where id>10'); c.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert os.path.getsize(f"{path}-wal") > 0


def take(tmp_path, *paths, databases=(), check=False, host=None, **more):
    params = {name: option.get("default") for name, option in snapshot.OPTIONS.items()}
    listed = [{"path": str(path), "required_tables": [], "copy_as": ""} for path in databases]
    params.update(root=str(tmp_path / "snapshots"), paths=[str(path) for path in paths], databases=listed)
    params.update({"run_id": RUN, "deadline": 0.0, "state_dir": str(tmp_path / "state"), "reserve_bytes": 0, **more})
    return snapshot.run(params, check, host or Machine())


def back(tmp_path, check=False, host=None, **more):
    params = {name: option.get("default") for name, option in rollback.OPTIONS.items()}
    params.update(root=str(tmp_path / "snapshots"), run_id=RUN, state_dir=str(tmp_path / "state"), reserve_bytes=0)
    return rollback.run({**params, **more}, check, host or Machine())


def states(outcome) -> dict[str, str]:
    return {finding.id: finding.state for finding in outcome.findings}


def done(outcome) -> dict[str, str]:
    return {action.operation: action.status for action in outcome.actions}


def listing(folder: t.Any) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


# Snapshot


def test_snapshot_holds_rows_of_the_wal_files_packages_and_units(tmp_path):
    path = make(tmp_path / "a.db")
    spoil(path)
    config = tmp_path / "etc"
    config.mkdir()
    (config / ".env").write_text("SECRET=1")
    (config / ".env").chmod(0o600)
    (config / "link").symlink_to("/etc/hostname")
    outcome = take(tmp_path, config, databases=[path], units=["app.service"])
    assert (outcome.status, states(outcome)["snapshot.present"]) == ("changed", "ok")
    folder = tmp_path / "snapshots" / RUN
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["databases"][0]["rows"] == {"orders": 10}, "the -wal was read"
    assert orders(folder / "databases/000.db") == 10
    kinds = {os.path.basename(entry["path"]): entry["kind"] for entry in manifest["files"]}
    assert kinds == {"etc": "folder", ".env": "file", "link": "link"}
    assert manifest["packages"]["versions"] == {"nginx": "1.22.1-9", "openssl": "3.0.17-1"}
    assert manifest["units"][0]["ActiveState"] == "active"
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()} == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in [folder, *folder.rglob("*")] if p.is_dir()} == {0o700}
    assert "SECRET" not in json.dumps(outcome.record())


def test_second_snapshot_of_a_run_is_proven_and_not_redone(tmp_path):
    path = make(tmp_path / "a.db")
    take(tmp_path, databases=[path])
    before = listing(tmp_path / "snapshots")
    with opened(path) as connection:
        connection.execute("DELETE FROM orders")
    outcome = take(tmp_path, databases=[path])
    assert (outcome.status, outcome.actions) == ("ok", [])
    assert listing(tmp_path / "snapshots") == before
    with pytest.raises(MaintenanceError, match="does not hold"):
        take(tmp_path, make(tmp_path / "other.db"), databases=[path])


def test_check_mode_says_due_and_leaves_no_trace(tmp_path):
    path = make(tmp_path / "a.db")
    before = listing(tmp_path)
    outcome = take(tmp_path, databases=[path], check=True)
    assert (outcome.status, done(outcome)) == ("due", {"take": "due"})
    assert listing(tmp_path) == before


def test_copy_for_people_has_the_time_in_its_name_and_is_proven(tmp_path):
    path = make(tmp_path / "a.db")
    entry = {"path": path, "required_tables": ["orders"], "copy_as": str(tmp_path / "b/maintenance/app_{time}.db")}
    outcome = taken(tmp_path, entry)
    (name,) = os.listdir(tmp_path / "b/maintenance")
    assert name == f"app_{NOW.astimezone():%Y%m%d_%H%M%S}.db"
    copy = tmp_path / "b/maintenance" / name
    assert (orders(copy), stat.S_IMODE(copy.stat().st_mode)) == (500, 0o600)
    assert done(outcome) == {"take": "changed", "copy": "changed"}
    copy.unlink()
    assert done(taken(tmp_path, entry)) == {"copy": "changed"}, "a killed run is completed"
    assert done(taken(tmp_path, entry)) == {}


def taken(tmp_path, entry):
    params = {name: option.get("default") for name, option in snapshot.OPTIONS.items()}
    params.update(root=str(tmp_path / "snapshots"), databases=[entry], run_id=RUN, reserve_bytes=0)
    return snapshot.run(params, False, Machine())


@pytest.mark.parametrize("kind", ["missing", "empty", "broken", "wrong tables"])
def test_a_database_that_is_not_sound_gives_no_snapshot(tmp_path, kind):
    path = tmp_path / "a.db"
    if kind == "empty":
        path.touch()
    elif kind == "broken":
        sqlite_upkeep.plant_broken_index(str(path))
    elif kind == "wrong tables":
        make(path)
    params = {"path": str(path), "required_tables": ["work_orders"] if kind == "wrong tables" else [], "copy_as": ""}
    with pytest.raises(MaintenanceError) as caught:
        taken(tmp_path, params)
    assert caught.value.outcome is not None
    assert states(caught.value.outcome)["snapshot.present"] == "critical"
    assert [name for name in os.listdir(tmp_path / "snapshots") if name != ".lock"] == []


def test_too_little_room_is_found_before_anything_is_written(tmp_path):
    path = make(tmp_path / "a.db")
    with pytest.raises(MaintenanceError, match="not enough room"):
        take(tmp_path, databases=[path], reserve_bytes=10**18)
    assert os.listdir(tmp_path / "snapshots") == [".lock"]


def test_missing_links_and_special_files_are_said_to_be_not_covered(tmp_path):
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/pipe")
    (tmp_path / "etc/file").touch()
    (tmp_path / "link").symlink_to("etc")
    outcome = take(tmp_path, tmp_path / "etc", tmp_path / "link", tmp_path / "absent")
    warned = {finding.subject for finding in outcome.findings if finding.state == "warning"}
    assert warned == {str(tmp_path / "link"), str(tmp_path / "absent")}
    (present,) = [finding for finding in outcome.findings if finding.id == "snapshot.present"]
    assert "pipe: neither file" in present.not_covered


def test_odd_file_names_survive(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    names = [b"-rf", b"new\nline", b"bytes\xff", b"%s?#"]
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(name)
    take(tmp_path, folder)
    shutil.rmtree(folder)
    back(tmp_path)
    assert sorted(os.listdir(os.fsencode(folder))) == sorted(names)


def test_wrong_input_is_named_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        take(tmp_path, "relative", "/a/../b", tmp_path, databases=["x.db"], keep_count=0, keep_days=-1.0, units=["-x"])
    for word in ("relative", "/a/../b", "holds the snapshots", "x.db", "keep_count", "keep_days", "'-x'"):
        assert word in str(caught.value)
    with pytest.raises(InputError, match="run_id"):
        take(tmp_path, run_id="../../etc")


def test_old_snapshots_go_and_the_newest_the_current_and_broken_ones_stay(tmp_path):
    path = make(tmp_path / "a.db")
    for days in range(10):
        take(tmp_path, databases=[path], run_id=f"run-{days}", host=Machine(NOW - timedelta(days=100 - days)), keep_count=99)
    broken = tmp_path / "snapshots/run-0"
    (broken / "manifest.json").write_text("{}")
    outcome = take(tmp_path, databases=[path], keep_count=3, keep_days=30.0)
    left = sorted(name for name in os.listdir(tmp_path / "snapshots") if name != ".lock")
    assert left == ["run-0", "run-8", "run-9", RUN]
    assert states(outcome)["snapshot.retention"] == "warning"
    young = take(tmp_path, databases=[path], run_id="next", keep_count=1, keep_days=1000.0)
    assert "prune" not in done(young)
    take(tmp_path, databases=[path], keep_count=1, keep_days=0.0, host=Machine(NOW + timedelta(days=1)))
    left = sorted(name for name in os.listdir(tmp_path / "snapshots") if name != ".lock")
    assert RUN in left, "that of this run stays although it is not the newest"


def test_two_runs_at_once_are_refused(tmp_path):
    take(tmp_path, make(tmp_path / "a.db"))
    with snapshot._locked(str(tmp_path / "snapshots")), pytest.raises(MaintenanceError, match="right now"):
        take(tmp_path, run_id="other")


@pytest.mark.slow
def test_snapshot_killed_anywhere_is_never_half_and_is_completed_by_the_next_run(tmp_path):
    path = make(tmp_path / "a.db", 20000)
    code = (
        "import sys,json; sys.path[:0]=sys.argv[2:]\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils import snapshot\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils.host import Host\n"
        "print('go',flush=True); snapshot.run(json.loads(sys.argv[1]), False, Host())"
    )
    chance = random.Random(3)
    for number in range(15):
        params = {name: option.get("default") for name, option in snapshot.OPTIONS.items()}
        databases = [{"path": path, "required_tables": [], "copy_as": ""}]
        root = str(tmp_path / "snapshots")
        params.update(root=root, databases=databases, packages=False, run_id=f"run-{number}", reserve_bytes=0)
        process = subprocess.Popen([sys.executable, "-c", code, json.dumps(params), *sys.path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.random() * 0.08)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name in snapshot_store.names(root):
            snapshot_store.prove(root, name)
        snapshot.run(params, False, Machine())
        assert snapshot_store.partials(root) == []
        assert snapshot_store.prove(root, f"run-{number}")["databases"][0]["rows"] == {"orders": 20000}
        assert orders(path) == 20000


# Rollback


def test_rollback_puts_database_and_files_back_and_an_old_wal_is_not_replayed(tmp_path):
    path, config = make(tmp_path / "a.db"), tmp_path / "etc"
    os.chmod(path, 0o640)
    config.mkdir(mode=0o750)
    (config / ".env").write_text("GOOD=1")
    (config / ".env").chmod(0o600)
    (config / "gone").write_text("was here")
    take(tmp_path, config, databases=[path])
    spoil(path)
    wal = pathlib.Path(path + "-wal").read_bytes()
    (config / ".env").write_text("BAD=1")
    (config / ".env").chmod(0o666)
    (config / "gone").unlink()
    (config / "new").touch()

    checked = back(tmp_path, check=True)
    assert (checked.status, done(checked)) == ("due", {"restore_database": "due", "restore_file": "due"})
    assert pathlib.Path(path + "-wal").read_bytes() == wal

    outcome = back(tmp_path)
    assert outcome.status == "changed"
    assert states(outcome)["rollback.result"] == "ok"
    assert orders(path) == 500, "the old -wal would have deleted 490 rows again"
    assert not os.path.exists(path + "-wal")
    assert sqlite_db.read_header(path).wal
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert ((config / ".env").read_text(), stat.S_IMODE((config / ".env").stat().st_mode)) == ("GOOD=1", 0o600)
    assert (config / "gone").read_text() == "was here"
    assert (config / "new").exists()
    assert states(outcome)["rollback.new_files"] == "warning"
    evidence = tmp_path / "state/evidence" / f"{RUN}-before-rollback"
    assert (evidence / (path + "-wal").lstrip("/")).read_bytes() == wal
    assert (evidence / str(config / ".env").lstrip("/")).read_text() == "BAD=1"

    with opened(path) as connection:
        connection.execute("INSERT INTO orders (text) VALUES ('after the rollback')")
    again = back(tmp_path)
    assert (again.status, again.actions) == ("ok", [])
    assert orders(path) == 501, "a second rollback must not lose what came after the first"
    assert back(tmp_path, again=True).status == "changed"
    assert orders(path) == 500


def test_the_trap_is_real_an_old_wal_is_replayed_over_a_copied_file(tmp_path):
    path = make(tmp_path / "a.db")
    good = pathlib.Path(path).read_bytes()
    spoil(path)
    with open(path, "wb") as file:
        file.write(good)  # what cp would do
    with opened(path) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (10,)


@pytest.mark.parametrize("damage", ["absent", "half", "manifest", "database", "file", "outside"])
def test_a_snapshot_that_is_absent_or_broken_is_refused_and_nothing_changes(tmp_path, damage):
    path, config = make(tmp_path / "a.db"), tmp_path / "app.conf"
    config.write_text("good")
    take(tmp_path, config, databases=[path])
    folder = tmp_path / "snapshots" / RUN
    if damage == "absent":
        shutil.rmtree(folder)
    elif damage == "half":
        (folder / "manifest.json").unlink()
    elif damage == "manifest":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"mode": 420', '"mode": 511'))
    elif damage == "database":
        with open(folder / "databases/000.db", "r+b") as file:
            file.seek(5000)
            file.write(b"x")
    elif damage == "file":
        next((folder / "files").rglob("app.conf")).write_text("gone")
    elif damage == "outside":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][0]["file"] = "../../../../etc/passwd"
        manifest["checksum"] = snapshot_store.checksum(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    spoil(path)
    config.write_text("bad")
    before = listing(tmp_path)
    for check in (True, False):
        with pytest.raises(MaintenanceError) as caught:
            back(tmp_path, check=check)
        assert RUN in str(caught.value)
        assert states(caught.value.outcome)["rollback.result"] == "critical"
    assert listing(tmp_path) == before


def test_rollback_without_a_name_or_with_a_path_is_refused(tmp_path):
    for name in ("", "../x", "a/b", "-x"):
        with pytest.raises(InputError):
            back(tmp_path, run_id="", snapshot=name)


def test_rollback_refuses_while_somebody_has_the_database_open(tmp_path):
    path = make(tmp_path / "a.db")
    take(tmp_path, databases=[path])
    with opened(path) as connection:
        connection.execute("DELETE FROM orders")
        before = listing(tmp_path)
        with pytest.raises(MaintenanceError, match="may have it open"):
            back(tmp_path)
        assert listing(tmp_path) == before
        assert states(back(tmp_path, check=True))["rollback.open_by"] == "warning"


def test_rollback_brings_a_deleted_database_back(tmp_path):
    path = make(tmp_path / "a.db")
    take(tmp_path, databases=[path])
    os.unlink(path)
    back(tmp_path)
    assert orders(path) == 500


def test_rollback_refuses_when_a_link_stands_in_the_place(tmp_path):
    path = make(tmp_path / "a.db")
    take(tmp_path, databases=[path])
    os.rename(path, tmp_path / "elsewhere.db")
    os.symlink("elsewhere.db", path)
    with pytest.raises(MaintenanceError, match="is a link"):
        back(tmp_path)
    assert os.path.islink(path)


@pytest.mark.parametrize("kept", ["conf", "dbs"])
def test_rollback_does_not_write_through_a_link_that_replaced_a_folder_above(tmp_path, kept):
    """Whoever owns the application's folder could aim root at /etc."""
    for name in ("app/conf", "app/dbs", "etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "app/conf/x.conf").write_text("mine")
    take(tmp_path, tmp_path / "app/conf/x.conf", databases=[make(tmp_path / "app/dbs/a.db")])
    (tmp_path / "app" / kept).rename(tmp_path / "moved")
    (tmp_path / "app" / kept).symlink_to(tmp_path / "etc")
    with pytest.raises(MaintenanceError, match=r"leads to .*/etc now"):
        back(tmp_path)
    assert list((tmp_path / "etc").iterdir()) == []


def test_rollback_needs_room_for_the_restore_and_the_evidence(tmp_path):
    path = make(tmp_path / "a.db")
    take(tmp_path, databases=[path])
    spoil(path)
    with pytest.raises(MaintenanceError, match="nothing was changed"):
        back(tmp_path, reserve_bytes=10**18)
    assert orders(path) == 10


def test_changed_packages_are_critical_until_they_are_put_back(tmp_path):
    path = make(tmp_path / "a.db")
    take(tmp_path, databases=[path])
    host = Machine(packages={"nginx": "1.22.1-9", "openssl": "3.0.22-1", "extra": "1"})
    outcome = back(tmp_path, host=host)
    (finding,) = [finding for finding in outcome.findings if finding.id == "rollback.packages"]
    assert finding.state == "critical"
    assert list(finding.evidence) == ["extra: was absent, is 1", "openssl: was 3.0.17-1, is 3.0.22-1"]
    checked = back(tmp_path, host=host, packages=True, check=True)
    assert (done(checked)["downgrade"], states(checked)["rollback.packages"]) == ("due", "warning")
    assert not [asked for asked in host.asked if asked[0] == "apt-get" and "--simulate" not in asked]
    back(tmp_path, host=host, packages=True)
    install = [asked for asked in host.asked if asked[0] == "apt-get"][-1]
    assert install[-2:] == ["extra-", "openssl=3.0.17-1"]
    assert "--allow-downgrades" in install


@pytest.mark.parametrize("version", ["gone", "0.9"], ids=["not in the source", "would remove another package"])
def test_packages_that_cannot_be_put_back_are_critical_and_nothing_is_installed(tmp_path, version):
    take(tmp_path, databases=[make(tmp_path / "a.db")], host=Machine(packages={"openssl": version}))
    host = Machine(packages={"openssl": "3.0.22-1"})
    outcome = back(tmp_path, host=host, packages=True)
    assert states(outcome)["rollback.packages"] == "critical"
    assert host.packages == {"openssl": "3.0.22-1"}


def test_a_snapshot_without_packages_cannot_tell(tmp_path):
    take(tmp_path, databases=[make(tmp_path / "a.db")], packages=False)
    assert states(back(tmp_path))["rollback.packages"] == "unknown"


def test_python_environment_is_compared(tmp_path):
    environment = tmp_path / "venv/bin"
    environment.mkdir(parents=True)
    python = environment / "python"
    python.write_text("#!/bin/sh\necho fastapi==0.100\necho uvicorn==0.20\n")
    python.chmod(0o755)
    take(tmp_path, databases=[make(tmp_path / "a.db")], python_environments=[str(tmp_path / "venv")])
    assert states(back(tmp_path))["rollback.python"] == "ok"
    python.write_text("#!/bin/sh\necho fastapi==0.115\necho uvicorn==0.20\n")
    (finding,) = [finding for finding in back(tmp_path).findings if finding.id == "rollback.python"]
    assert (finding.state, list(finding.evidence)) == ("critical", ["was fastapi==0.100", "is fastapi==0.115"])


def test_lock_files_and_requirements_go_back_and_are_named_fossa_em_06(tmp_path):
    kept = [tmp_path / name for name in ("package-lock.json", "requirements.txt", ".env")]
    for path in kept:
        path.write_text("before")
    take(tmp_path, *kept, databases=[make(tmp_path / "a.db")])
    for path in kept[:2]:
        path.write_text("after the update")
    outcome = back(tmp_path)
    assert [path.read_text() for path in kept] == ["before"] * 3
    [action] = [action for action in outcome.actions if action.operation == "restore_files"]
    assert (action.status, sorted(action.after["paths"])) == ("changed", [str(path) for path in kept[:2]])


def test_restored_units_are_read_again_by_systemd(tmp_path, monkeypatch):
    monkeypatch.setattr(rollback, "_UNIT_FOLDERS", (str(tmp_path / "systemd"),))
    unit = tmp_path / "systemd/app.service"
    unit.parent.mkdir()
    unit.write_text("good")
    take(tmp_path, unit)
    unit.write_text("bad")
    host = Machine()
    back(tmp_path, host=host)
    assert ["systemctl", "daemon-reload"] in host.asked


@pytest.mark.slow
def test_rollback_killed_anywhere_is_completed_by_the_next_run(tmp_path):
    path = make(tmp_path / "a.db", 20000)
    take(tmp_path, databases=[path], packages=False)
    code = (
        "import sys,json; sys.path[:0]=sys.argv[2:]\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils import rollback\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils.host import Host\n"
        "print('go',flush=True); rollback.run(json.loads(sys.argv[1]), False, Host())"
    )
    params = {name: option.get("default") for name, option in rollback.OPTIONS.items()}
    params.update(root=str(tmp_path / "snapshots"), run_id=RUN, reserve_bytes=0)
    params["again"] = True
    chance = random.Random(5)
    for number in range(15):
        params["state_dir"] = str(tmp_path / f"state{number}")
        spoil(path)
        process = subprocess.Popen([sys.executable, "-c", code, json.dumps(params), *sys.path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        outcome = rollback.run(params, False, Machine())
        assert states(outcome)["rollback.result"] == "ok"
        assert orders(path) == 20000
        assert [name for name in os.listdir(tmp_path) if name.startswith(".ops")] == []


def test_put_back_sets_wal_mode_again_for_a_copy_that_lost_it(tmp_path):
    path, copy = make(tmp_path / "a.db"), tmp_path / "copy.db"
    with opened(path) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    assert not sqlite_db.read_header(str(copy)).wal, "the trap is real"
    place = sqlite_restore.Place(os.getuid(), os.getgid(), 0o600, True)
    sqlite_restore.put_back(str(copy), path, place)
    assert sqlite_db.read_header(path).wal
    assert orders(path) == 500


def test_parsers_leave_out_what_is_not_installed():
    assert inventory_of_host.parse_dpkg("ii \ta\t1\nrc \tb\t2\nhi \tc:amd64\t3\n\nnonsense\n") == {"a": "1", "c:amd64": "3"}
    assert inventory_of_host.parse_units("Id=a.service\nLoadState=loaded\n\nId=b\nX=1=2\n") == [
        {"Id": "a.service", "LoadState": "loaded"},
        {"Id": "b", "X": "1=2"},
    ]


@pytest.mark.parametrize(
    ("statement", "orders_after", "status"),
    [("INSERT INTO orders SELECT id + 9000, text FROM orders LIMIT 3", 503, "ok"), ("DELETE FROM orders WHERE id < 4", 500, "changed")],
    ids=["rows_came", "rows_went"],
)
def test_an_automatic_rollback_keeps_a_sound_database_with_every_row(tmp_path, statement, orders_after, status):
    path = make(tmp_path / "app.db")
    take(tmp_path, databases=[path])
    with opened(path) as connection:
        connection.execute(statement)
    outcome = back(tmp_path, keep_sound=True)
    assert orders(path) == orders_after
    assert outcome.status == status
    assert states(outcome)["rollback.database"] == "ok"
