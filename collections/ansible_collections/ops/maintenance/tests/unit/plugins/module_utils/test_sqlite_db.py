# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import typing as t

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import sqlite_db, sqlite_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError


@contextlib.contextmanager
def opened(path: t.Any) -> t.Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(sqlite_db.uri_of(str(path), "mode=rwc"), uri=True, isolation_level=None)
    with contextlib.closing(connection):
        yield connection


def make(path: t.Any, rows: int = 500, wal: bool = True) -> None:
    with opened(path) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("CREATE INDEX by_text ON orders (text)")
        connection.executemany("INSERT INTO orders (text) VALUES (?)", [(f"order {i}" * 5,) for i in range(rows)])


def count(path: t.Any) -> dict[str, int]:
    return sqlite_db.reading(str(path), lambda c: sqlite_db.table_counts(c, ["orders"]))


def test_missing_zero_byte_foreign_and_cut_off_files_are_not_databases(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a database " * 50)
    (tmp_path / "cut").write_bytes(sqlite_db.MAGIC + b"\0" * 20)
    (tmp_path / "folder").mkdir()
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    expected = {
        "absent": "missing",
        "empty": "empty",
        "text": "foreign",
        "cut": "foreign",
        "folder": "kind",
        "link": "link",
        "pipe": "kind",
    }
    before = sorted(os.listdir(tmp_path))
    for name, reason in expected.items():
        with pytest.raises(sqlite_db.DatabaseUnusableError) as caught:
            sqlite_db.open_readonly(str(tmp_path / name))
        assert caught.value.reason == reason
        assert name in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before, "looking creates nothing"


@pytest.mark.parametrize("name", ["-dash.db", "a?b.db", "a#b.db", "a%20b.db", "new\nline.db", "a&mode=rwc.db", "ü \udcff.db"])
def test_odd_names_are_opened_as_they_are(tmp_path, name):
    path = str(tmp_path / name)
    make(path, 3)
    assert count(path) == {"orders": 3}
    sqlite_db.online_copy(path, str(tmp_path / ("copy" + name)))
    assert count(tmp_path / ("copy" + name)) == {"orders": 3}
    assert sorted(os.fsencode(p) for p in os.listdir(tmp_path)) == sorted([os.fsencode(name), b"copy" + os.fsencode(name)])


def test_reading_a_closed_wal_database_leaves_no_sidecar(tmp_path):
    make(tmp_path / "a.db")
    assert count(tmp_path / "a.db") == {"orders": 500}
    assert os.listdir(tmp_path) == ["a.db"]
    assert sqlite_db.read_header(str(tmp_path / "a.db")).journal_mode == "wal"


def test_copy_holds_committed_rows_that_are_only_in_the_wal(tmp_path):
    path, plain, copy = tmp_path / "a.db", tmp_path / "plain.db", tmp_path / "copy.db"
    with opened(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.executemany("INSERT INTO orders VALUES (?)", [(i,) for i in range(500)])
        plain.write_bytes(path.read_bytes())  # what cp would copy
        sqlite_db.online_copy(str(path), str(copy))
    assert count(plain) == {"orders": 0}, "the trap is real"
    assert count(copy) == {"orders": 500}
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sqlite_db.read_header(str(copy)).wal


def test_copy_is_consistent_while_somebody_writes(tmp_path):
    path, stop = tmp_path / "a.db", threading.Event()
    with opened(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE one (id INTEGER)")
        connection.execute("CREATE TABLE two (id INTEGER)")

    def write() -> None:
        with opened(path) as connection:
            while not stop.is_set():
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO one VALUES (1)")
                connection.execute("INSERT INTO two VALUES (1)")
                connection.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            copy = str(tmp_path / f"copy{number}.db")
            sqlite_db.online_copy(str(path), copy)
            rows = sqlite_db.reading_fixed(copy, lambda c: sqlite_db.table_counts(c, ["one", "two"]))
            assert rows["one"] == rows["two"]
    finally:
        stop.set()
        writer.join()
    assert rows["one"] > 0


def test_copy_waits_for_a_lock_and_gives_up_in_time(tmp_path):
    make(tmp_path / "a.db", wal=False)
    with opened(tmp_path / "a.db") as holder:
        holder.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(sqlite_db.DatabaseBusyError):
            sqlite_db.online_copy(str(tmp_path / "a.db"), str(tmp_path / "copy.db"), timeout=0.5)
        assert time.monotonic() - started < 5
    assert os.listdir(tmp_path) == ["a.db"]


def test_copy_of_a_damaged_database_is_refused_and_removed(tmp_path):
    sqlite_upkeep.plant_broken_index(str(tmp_path / "bad.db"))
    with pytest.raises(sqlite_db.DatabaseDamagedError, match="integrity check"):
        sqlite_db.online_copy(str(tmp_path / "bad.db"), str(tmp_path / "copy.db"))
    assert os.listdir(tmp_path) == ["bad.db"]


def test_copy_never_replaces_a_file(tmp_path):
    make(tmp_path / "a.db")
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(MaintenanceError, match="exists already"):
        sqlite_db.online_copy(str(tmp_path / "a.db"), str(tmp_path / "copy.db"))
    assert (tmp_path / "copy.db").read_text() == "mine"


def test_integrity_sees_an_index_with_a_missing_row_and_vacuum_does_not_repair_it(tmp_path):
    path = str(tmp_path / "bad.db")
    sqlite_upkeep.plant_broken_index(path)
    assert sqlite_db.reading(path, sqlite_db.integrity)
    with opened(path) as connection:
        connection.execute("VACUUM")
    assert sqlite_db.reading(path, sqlite_db.integrity), "VACUUM must not be taken for a repair"


def test_integrity_reports_bytes_that_were_overwritten(tmp_path):
    path = tmp_path / "a.db"
    make(path)
    with open(path, "r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    assert sqlite_db.reading(str(path), sqlite_db.integrity)


def test_foreign_keys_are_checked_as_well(tmp_path):
    with opened(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent (id))")
        connection.execute("INSERT INTO child VALUES (1, 7)")
    assert sqlite_db.reading(str(tmp_path / "a.db"), sqlite_db.integrity) == []
    problems = sqlite_db.reading(str(tmp_path / "a.db"), sqlite_db.foreign_keys)
    assert len(problems) == 1
    assert "child row 1" in problems[0]


def test_a_missing_table_or_a_lock_is_an_error_and_never_0_rows(tmp_path):
    make(tmp_path / "a.db", wal=False)
    with pytest.raises(MaintenanceError, match="no table dispensers"):
        sqlite_db.reading(str(tmp_path / "a.db"), lambda c: sqlite_db.table_counts(c, ["dispensers"]))
    with opened(tmp_path / "a.db") as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite_db.DatabaseBusyError):
            sqlite_db.reading(str(tmp_path / "a.db"), lambda c: sqlite_db.table_counts(c, ["orders"]), timeout=0.2)


def test_table_names_are_quoted(tmp_path):
    name = 'a"; DROP TABLE orders; --'
    make(tmp_path / "a.db", 2)
    with opened(tmp_path / "a.db") as connection:
        connection.execute(f"CREATE TABLE {sqlite_db.quoted(name)} (x)")
    rows = sqlite_db.reading(str(tmp_path / "a.db"), lambda c: sqlite_db.table_counts(c, [name, "orders"]))
    assert rows == {name: 0, "orders": 2}


def holder_of(path: str, ready: str = "select 1") -> subprocess.Popen[bytes]:
    code = (
        "import sqlite3,sys,time; c=sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]).fetchall(); print('up',flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path, ready], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_users_are_found_by_descriptor_and_by_lock(tmp_path):
    path = str(tmp_path / "a.db")
    make(path)
    assert sqlite_db.users_of(path).holders == []
    process = holder_of(path, "select count(*) from orders")
    try:
        (holder,) = sqlite_db.users_of(path).holders
        assert f"process {process.pid} " in holder
        (tmp_path / "proc").mkdir()
        (hidden,) = sqlite_db.users_of(path, proc=str(tmp_path / "proc")).holders
        assert hidden == f"process {process.pid} (by its lock)"
    finally:
        process.kill()
        process.wait()
    assert sqlite_db.users_of(path).holders == []


def test_a_full_disk_leaves_no_half_copy(tmp_path):
    make(tmp_path / "a.db", 5000)

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code = (
        "import sys; from ansible_collections.ops.maintenance.plugins.module_utils import sqlite_db as s\n"
        "try: s.online_copy(sys.argv[1], sys.argv[2])\n"
        "except s.MaintenanceError as error: print(error); sys.exit(3)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.db"), str(tmp_path / "copy.db")],
        check=False,
        preexec_fn=little_room,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 3, ran.stderr
    assert "could not be" in ran.stdout
    assert os.listdir(tmp_path) == ["a.db"]


@pytest.mark.slow
def test_a_killed_copy_leaves_nothing_under_the_target(tmp_path):
    make(tmp_path / "a.db", 20000)
    code = (
        "import sys; from ansible_collections.ops.maintenance.plugins.module_utils import sqlite_db as s\n"
        "print('go', flush=True); s.online_copy(sys.argv[1], sys.argv[2])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for number in range(12):
        target = tmp_path / f"copy{number}.db"
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.db"), str(target)], stdout=subprocess.PIPE, env=env)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(number * 0.004)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if target.exists():
            assert sqlite_db.reading_fixed(str(target), sqlite_db.integrity) == []
            assert count(target) == {"orders": 20000}
    assert count(tmp_path / "a.db") == {"orders": 20000}
