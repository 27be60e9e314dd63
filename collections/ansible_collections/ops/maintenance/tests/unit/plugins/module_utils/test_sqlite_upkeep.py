# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import typing as t
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import snapshot, sqlite_db, sqlite_upkeep, sqlite_upkeep_options, sqlite_work
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)


class At(Host):
    """The real machine at a given time."""

    def __init__(self, now: datetime = NOW) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time


@contextlib.contextmanager
def opened(path: t.Any) -> t.Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as connection:
        yield connection


def make(path: t.Any, rows: int = 2000, wal: bool = True) -> str:
    with opened(path) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("CREATE INDEX by_text ON orders (text)")
        connection.execute("CREATE TABLE pumps (id INTEGER PRIMARY KEY)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO orders (text) VALUES (?)", [(f"order {i} " * 20,) for i in range(rows)])
        connection.execute("COMMIT")
    return str(path)


def emptied(path: t.Any, rows: int = 2000, wal: bool = True) -> str:
    """Make a database of which most is unused."""
    make(path, rows, wal)
    with opened(path) as connection:
        connection.execute(f"DELETE FROM orders WHERE id > {rows // 10}")
    return str(path)


def spec(path: t.Any, **more: t.Any) -> dict[str, t.Any]:
    values = {name: option.get("default") for name, option in sqlite_upkeep_options.DATABASE.items()}
    return {**values, "vacuum_free_bytes": 10_000, **more, "path": str(path)}


def upkeep(tmp_path, *specs, check=False, now=NOW, **more):
    params = {name: option.get("default") for name, option in sqlite_upkeep_options.OPTIONS.items()}
    params.update(
        {"run_id": "weekly-1", "deadline": 0.0, "state_dir": str(tmp_path / "state"), "self_test": False}
        | {"databases": list(specs), "reserve_bytes": 0, **more}
    )
    return sqlite_upkeep.run(params, check, At(now))


def states(outcome) -> dict[str, str]:
    return {finding.id: finding.state for finding in outcome.findings}


def done(outcome) -> dict[str, str]:
    return {action.operation: action.status for action in outcome.actions}


def listing(folder: t.Any) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def test_upkeep_does_what_is_due_keeps_every_row_and_the_second_run_finds_nothing(tmp_path):
    path = emptied(tmp_path / "a.db")
    wanted = spec(path, required_tables=["orders"], count_tables=["orders", "pumps"], journal_mode="wal")
    first = upkeep(tmp_path, wanted)
    assert done(first) == {"reindex": "changed", "vacuum": "changed", "analyze": "changed"}
    assert first.status == "changed"
    assert set(states(first).values()) == {"ok"}
    (vacuum,) = [action for action in first.actions if action.operation == "vacuum"]
    assert vacuum.after["size_bytes"] < vacuum.before["size_bytes"] / 2
    assert vacuum.after["free_bytes"] == 0
    rows = {metric.subject: metric.value for metric in first.metrics if metric.name == "database.rows"}
    assert rows == {f"{path}: orders": 200, f"{path}: pumps": 0}
    names = {metric.name for metric in first.metrics}
    assert {"database.size_bytes", "database.tables", "database.free_bytes", "database.wal_bytes"} <= names
    again = upkeep(tmp_path, wanted, now=NOW + timedelta(hours=1))
    assert (again.status, again.actions) == ("ok", [])
    week = upkeep(tmp_path, wanted, now=NOW + timedelta(days=7))
    assert set(done(week)) == {"reindex", "analyze"}


def test_each_step_answers_for_its_own_effect_only(tmp_path):
    """Only VACUUM gives the unused pages back; before, the measures of the whole work stood beside every step."""
    path = emptied(tmp_path / "a.db")
    outcome = upkeep(tmp_path, spec(path, journal_mode="wal"))
    by_step = {action.operation: action for action in outcome.actions}
    reindex, vacuum, analyze = (by_step[step] for step in ("reindex", "vacuum", "analyze"))
    assert reindex.after["size_bytes"] == reindex.before["size_bytes"]
    assert reindex.after["free_bytes"] > 10_000
    assert (vacuum.before, vacuum.after["free_bytes"]) == (reindex.after, 0)
    assert analyze.before == vacuum.after
    assert 0 <= analyze.after["size_bytes"] - analyze.before["size_bytes"] <= 20_000
    assert not any("wal_bytes" in action.after for action in outcome.actions), "only a checkpoint is there to change it"


def test_check_mode_gives_the_same_verdicts_and_leaves_no_trace(tmp_path):
    path = emptied(tmp_path / "a.db")
    before = listing(tmp_path)
    checked = upkeep(tmp_path, spec(path, count_tables=["orders"]), check=True)
    assert listing(tmp_path) == before
    assert checked.status == "due"
    assert done(checked) == {"reindex": "due", "vacuum": "due", "analyze": "due"}
    assert states(upkeep(tmp_path, spec(path, count_tables=["orders"]))) == states(checked)


def test_nothing_declared_is_unknown(tmp_path):
    assert states(upkeep(tmp_path)) == {"database.present": "unknown"}


@pytest.mark.parametrize("kind", ["missing", "zero", "folder", "link", "text"])
def test_what_is_not_the_database_is_critical_and_left_alone(tmp_path, kind):
    path = tmp_path / "a.db"
    if kind == "zero":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        make(tmp_path / "real.db")
        path.symlink_to("real.db")
    elif kind == "text":
        path.write_text("no database" * 100)
    before = listing(tmp_path)
    outcome = upkeep(tmp_path, spec(path))
    assert states(outcome)["database.present"] == "critical"
    assert outcome.status == "failed"
    after = listing(tmp_path)
    assert {name: after.get(name) for name in before} == before


def test_wrong_tables_come_before_the_integrity_check(tmp_path):
    outcome = upkeep(tmp_path, spec(make(tmp_path / "a.db"), required_tables=["work_orders"]))
    assert states(outcome) == {"database.present": "critical"}
    assert not outcome.actions


def test_damage_stops_the_work_keeps_evidence_once_and_repairs_nothing(tmp_path):
    path = tmp_path / "a.db"
    sqlite_upkeep.plant_broken_index(str(path))
    bytes_before = path.read_bytes()
    outcome = upkeep(tmp_path, spec(path, reindex="always", vacuum_free_bytes=0, vacuum_free_percent=0.0))
    assert outcome.status == "failed"
    assert states(outcome)["database.integrity"] == "critical"
    assert states(outcome)["database.restore"] == "critical"
    assert done(outcome) == {"keep_evidence": "changed"}
    assert path.read_bytes() == bytes_before, "a REINDEX would have covered the damage up"
    kept = tmp_path / "state/evidence/weekly-1" / str(path).lstrip("/")
    assert kept.read_bytes() == bytes_before
    assert done(upkeep(tmp_path, spec(path))) == {}, "the same damage is kept once"


def test_restore_takes_the_newest_backup_that_passes_and_only_with_approval(tmp_path):
    good, bad, older = tmp_path / "b/good.db", tmp_path / "b/bad.db", tmp_path / "b/older.db"
    good.parent.mkdir()
    make(good, 50)
    make(older, 20)
    sqlite_upkeep.plant_broken_index(str(bad))
    for age, path in ((1, bad), (2, good), (9, older)):
        os.utime(path, (NOW.timestamp() - age * 86400,) * 2)
    path = tmp_path / "a.db"
    path.write_bytes(b"garbage" * 1000)
    (tmp_path / "a.db-wal").write_bytes(b"stale")
    path.chmod(0o640)
    wanted = spec(path, required_tables=["orders"], restore_from=[str(tmp_path / "b/*.db")])
    refused = upkeep(tmp_path, wanted)
    assert refused.status == "failed"
    assert "restore" not in done(refused)
    assert "good.db is the newest" in next(f.summary for f in refused.findings if f.id == "database.restore")
    wanted["allow_restore"] = True
    assert done(upkeep(tmp_path, wanted, check=True)) == {"restore": "due"}
    outcome = upkeep(tmp_path, wanted)
    assert outcome.status == "changed"
    (action,) = [action for action in outcome.actions if action.operation == "restore"]
    assert action.after["rows"]["orders"] == {"damaged": "unreadable", "backup": 50}
    assert action.after["age_seconds"] == 2 * 86400
    assert not (tmp_path / "a.db-wal").exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sqlite_db.reading(str(path), lambda c: sqlite_db.table_counts(c, ["orders"])) == {"orders": 50}
    assert sorted(os.listdir(good.parent)) == ["bad.db", "good.db", "older.db"], "backups are only read"
    assert states(upkeep(tmp_path, wanted))["database.integrity"] == "ok"


def test_an_open_database_is_not_vacuumed(tmp_path):
    path = emptied(tmp_path / "a.db")
    code = "import sqlite3,sys,time; c=sqlite3.connect(sys.argv[1]); c.execute('select 1 from orders').fetchone(); print(1,flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        outcome = upkeep(tmp_path, spec(path))
        assert states(outcome)["database.open_by"] == "warning"
        assert done(outcome) == {"reindex": "skipped", "vacuum": "skipped", "analyze": "changed"}
        assert done(upkeep(tmp_path, spec(path), check=True))["vacuum"] == "due", "services are stopped before the work"
    finally:
        process.kill()
        process.wait()


def test_a_locked_database_is_unknown_and_not_empty(tmp_path, monkeypatch):
    path = make(tmp_path / "a.db", wal=False)
    monkeypatch.setattr(sqlite_db.reading, "__defaults__", (0.2,))
    with opened(path) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        outcome = upkeep(tmp_path, spec(path, count_tables=["orders"]))
    assert states(outcome) == {"database.integrity": "unknown"}
    assert not [metric for metric in outcome.metrics if metric.name == "database.rows"]


def test_vacuum_needs_room_and_time_and_a_snapshot(tmp_path):
    path = emptied(tmp_path / "a.db")
    outcome = upkeep(tmp_path, spec(path, reindex="never"), reserve_bytes=10**18)
    assert (done(outcome)["vacuum"], states(outcome)["database.disk_room"]) == ("skipped", "warning")
    outcome = upkeep(tmp_path, spec(path, reindex="never"), deadline=NOW.timestamp() + 1)
    assert done(outcome) == {"vacuum": "deferred"}
    root = str(tmp_path / "snapshots")
    outcome = upkeep(tmp_path, spec(path), require_snapshot=True, snapshot_root=root)
    assert done(outcome) == {"reindex": "skipped", "vacuum": "skipped"}
    take(tmp_path, path, root)
    outcome = upkeep(tmp_path, spec(path), require_snapshot=True, snapshot_root=root)
    assert done(outcome)["vacuum"] == "changed"


def take(tmp_path, path, root):
    params = {name: option.get("default") for name, option in snapshot.OPTIONS.items()}
    databases = [{"path": path, "required_tables": [], "copy_as": ""}]
    params.update(root=root, databases=databases, packages=False, run_id="weekly-1", reserve_bytes=0)
    snapshot.run(params, False, At())


def test_wal_mode_is_stored_and_proven_after_reopening(tmp_path):
    path = make(tmp_path / "a.db", wal=False)
    outcome = upkeep(tmp_path, spec(path, journal_mode="wal", reindex="never"))
    assert done(outcome)["journal_mode"] == "changed"
    assert states(outcome)["database.journal_mode"] == "ok"
    assert sqlite_db.read_header(path).wal
    assert "journal_mode" not in done(upkeep(tmp_path, spec(path, journal_mode="wal")))


def test_settings_of_a_connection_are_only_believed_where_the_application_declares_them(tmp_path):
    path = make(tmp_path / "a.db")
    settings = {"synchronous": "NORMAL", "cache_size": 10000}
    assert states(upkeep(tmp_path, spec(path, application_settings=settings)))["database.settings"] == "unknown"
    code = tmp_path / "database.py"
    code.write_text('cursor.execute("PRAGMA synchronous=NORMAL")\ncursor.execute("PRAGMA cache_size = 100000")\n')
    places = {"application_settings": settings, "application_settings_in": [str(code)]}
    outcome = upkeep(tmp_path, spec(path, **places))
    assert states(outcome)["database.settings"] == "warning"
    code.write_text('PRAGMAS = {"synchronous": "normal", "cache_size": 10000}\n')
    assert states(upkeep(tmp_path, spec(path, **places)))["database.settings"] == "ok"


def test_a_missing_table_is_an_error_and_a_sudden_drop_is_noticed(tmp_path):
    path = make(tmp_path / "a.db", 1000)
    wanted = spec(path, count_tables=["orders", "dispensers"])
    first = [f for f in upkeep(tmp_path, wanted).findings if f.id == "database.rows"]
    assert {f.subject.split(": ")[1]: f.state for f in first} == {"orders": "ok", "dispensers": "critical"}
    with opened(path) as connection:
        connection.execute("DELETE FROM orders WHERE id > 700")
    wanted = spec(path, count_tables=["orders"])
    for days, state in ((7, "warning"), (7.1, "warning"), (14, "warning"), (21, "ok")):
        assert states(upkeep(tmp_path, wanted, now=NOW + timedelta(days=days)))["database.rows"] == state, days


def test_a_large_wal_is_emptied(tmp_path):
    path = make(tmp_path / "a.db", 10)
    code = "import os,sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('insert into pumps values (1)'); c.commit(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert os.path.getsize(path + "-wal") > 0
    outcome = upkeep(tmp_path, spec(path, checkpoint_wal_bytes=1, reindex="never", count_tables=["pumps"]))
    assert done(outcome)["checkpoint"] == "changed"
    assert not os.path.exists(path + "-wal")
    assert [m.value for m in outcome.metrics if m.name == "database.rows"] == [1]


def test_self_test_makes_findings_unknown_when_the_verifier_is_blind(tmp_path, monkeypatch):
    path = make(tmp_path / "a.db")
    assert set(states(upkeep(tmp_path, spec(path), self_test=True)).values()) == {"ok"}
    monkeypatch.setattr(sqlite_db, "integrity", lambda _connection: [])
    assert set(states(upkeep(tmp_path, spec(path), self_test=True)).values()) == {"unknown"}


def test_all_wrong_input_is_named_at_once(tmp_path):
    bad = spec("relative.db", vacuum_free_percent=-1.0, analyze_after_days=float("nan"), owner="no-such-user")
    with pytest.raises(InputError) as caught:
        upkeep(tmp_path, bad)
    for word in ("relative.db", "vacuum_free_percent", "analyze_after_days", "no-such-user"):
        assert word in str(caught.value)


def test_one_bad_database_does_not_hide_the_others(tmp_path):
    sqlite_upkeep.plant_broken_index(str(tmp_path / "bad.db"))
    outcome = upkeep(tmp_path, spec(tmp_path / "bad.db"), spec(make(tmp_path / "good.db")))
    by_subject = {(f.subject, f.id): f.state for f in outcome.findings}
    assert by_subject[(str(tmp_path / "bad.db"), "database.integrity")] == "critical"
    assert by_subject[(str(tmp_path / "good.db"), "database.integrity")] == "ok"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_root_every_file_stays_the_owners(tmp_path):
    folder = tmp_path / "backend"
    folder.mkdir()
    path = emptied(folder / "a.db")
    for name in (folder, folder / "a.db"):
        os.chown(name, 12345, 23456)
    os.chmod(path, 0o640)
    for parent in [folder, *folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o755)
    seen = set()

    def look(*_args):
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):  # a file beside the database goes while it is looked at
                seen.add((entry.name, entry.stat().st_uid, entry.stat().st_gid))

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        outcome = upkeep(tmp_path, spec(path, reindex="always"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert done(outcome)["vacuum"] == "changed"
    assert {"a.db", "a.db-wal", "a.db-shm"} <= {name for name, _uid, _gid in seen}
    assert {(uid, gid) for _name, uid, gid in seen} == {(12345, 23456)}
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o640)
    assert os.listdir(folder) == ["a.db"]


def interrupt(path: t.Any) -> None:
    """Die in the middle of a transaction that has already changed the file."""
    code = (
        "import os,sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('pragma cache_size=1');"
        "c.execute('update orders set text = text || 1'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert sqlite_db.interrupted(str(path))


def test_an_interrupted_transaction_is_undone_and_check_mode_only_says_so(tmp_path):
    path = make(tmp_path / "a.db", wal=False)
    interrupt(path)
    before = listing(tmp_path)
    checked = upkeep(tmp_path, spec(path), check=True)
    assert (done(checked), states(checked)) == ({"recover": "due"}, {"database.integrity": "unknown"})
    assert listing(tmp_path) == before
    outcome = upkeep(tmp_path, spec(path, count_tables=["orders"]))
    assert done(outcome)["recover"] == "changed"
    assert states(outcome)["database.integrity"] == "ok"
    assert not os.path.exists(path + "-journal")


def test_a_snapshot_undoes_an_interrupted_transaction_first(tmp_path):
    path = make(tmp_path / "a.db", wal=False)
    interrupt(path)
    take(tmp_path, path, str(tmp_path / "snapshots"))
    assert sqlite_db.reading(path, sqlite_db.integrity) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder that the owner of the file cannot write")
def test_a_folder_that_cannot_be_written_fails_with_one_sentence_and_changes_nothing(tmp_path):
    folder = tmp_path / "backend"
    folder.mkdir()
    path = emptied(folder / "a.db")
    os.chown(path, 12345, 12345)
    for parent in [folder, *folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    before = listing(folder)
    outcome = upkeep(tmp_path, spec(path))
    assert outcome.status == "failed"
    assert path in outcome.summary
    assert listing(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("wal", [True, False])
def test_killed_anywhere_no_row_is_lost_and_the_next_run_completes(tmp_path, wal):
    code = (
        "import os,sys; sys.path[:0]=sys.argv[3:]; os.setpgrp()\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils import sqlite_work as w\n"
        "print('go',flush=True); w.carry_out(sys.argv[1], ['reindex','vacuum','analyze','checkpoint'], 'keep')"
    )
    source = emptied(tmp_path / "source.db", 20000, wal)
    chance = random.Random(7)
    for number in range(10):
        path = tmp_path / f"a{number}.db"
        path.write_bytes((tmp_path / "source.db").read_bytes())
        process = subprocess.Popen([sys.executable, "-c", code, str(path), source, *sys.path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.random() * 0.12)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while sqlite_db.users_of(str(path)).holders:  # the child that works dies a moment later
            time.sleep(0.01)
        outcome = upkeep(tmp_path, spec(path, count_tables=["orders"], reindex="always"))
        assert outcome.status == "changed", outcome.summary
        assert [m.value for m in outcome.metrics if m.name == "database.rows"] == [2000]
        assert sqlite_db.reading(str(path), sqlite_db.integrity) == []


def test_statistics_come_after_everything_that_changes_what_they_describe_fossa_db_06(tmp_path, monkeypatch):
    path = make(tmp_path / "a.db")
    order = tmp_path / "order"
    really = sqlite_work._step

    def noted(connection: sqlite3.Connection, step: str, journal_mode: str) -> None:
        with order.open("a") as file:  # the steps run in a child process
            file.write(f"{step}\n")
        really(connection, step, journal_mode)

    monkeypatch.setattr(sqlite_work, "_step", noted)
    sqlite_work.carry_out(path, ["analyze", "checkpoint", "vacuum", "reindex", "journal_mode"], "wal")
    assert order.read_text().split() == ["reindex", "vacuum", "journal_mode", "analyze", "checkpoint"]
