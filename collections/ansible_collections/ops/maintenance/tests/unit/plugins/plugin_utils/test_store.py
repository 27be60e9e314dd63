# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils import store as store_module
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store

START = datetime(2026, 1, 3, 2, 0, tzinfo=UTC)


def finding(**more):
    return {"id": "disk.use", "state": "warning", "subject": "/", "summary": "full", "value": 91, "unit": "percent", **more}


def a_run(week=0, *, hosts=("a", "b"), cadence="weekly", check_mode=False, size=10.0, ended=True):
    start = START + timedelta(weeks=week)
    run_id = f"{cadence}-{start:%Y%m%dT%H%M%SZ}-{week:04x}"
    made = [
        {
            "kind": "run",
            "cadence": cadence,
            "playbook": f"{cadence}.yml",
            "check_mode": check_mode,
            "started": start.isoformat(),
            "performed_by": "u",
        }
    ]
    for number, host in enumerate(hosts):
        record = {
            "kind": "record",
            "host": host,
            "system": f"sys-{host}",
            "role": "ops.maintenance.patching",
            "phase": "apply",
            "operation": "op",
        }
        record |= {"status": "ok", "started": start.isoformat(), "finished": (start + timedelta(seconds=30 + number)).isoformat()}
        record |= {"findings": [finding()], "metrics": [{"name": "db.size", "subject": "/x.db", "value": size + number, "unit": "bytes"}]}
        made += [
            record,
            {"kind": "outcome", "host": host, "system": f"sys-{host}", "outcome": "completed", "reason": "", "downtime_seconds": 4.5},
        ]
    if ended:
        made.append({"kind": "end", "finished": (start + timedelta(minutes=5)).isoformat(), "status": "completed", "hosts": {}})
    return [{**line, "run_id": run_id, "seq": seq, "time": start.isoformat(), "hash": f"{seq:064x}"} for seq, line in enumerate(made, 1)]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/deep/store.sqlite"


def _postgres(*names):
    found = [
        shutil.which(name) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None) for name in names
    ]
    return [str(path) for path in found] if all(found) else None


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server of its own, reached through a socket in its folder."""
    programs = _postgres("initdb", "pg_ctl")
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    options = {"user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([programs[0], "-D", f"{folder}/data", "-U", "ops", "-A", "trust", "--no-sync"], check=True, **options)
    subprocess.run(
        [programs[1], "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses=", "start"],
        check=True,
        **options,
    )
    yield f"postgresql:///postgres?host={folder}&user=ops"
    subprocess.run([programs[1], "-D", f"{folder}/data", "-m", "immediate", "stop"], check=True, **options)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request, tmp_path):
    """A new, empty store in every kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite"
    server_url = request.getfixturevalue("server")
    name = f"store_{os.urandom(4).hex()}"
    engine = sqlalchemy.create_engine(server_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server_url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def store(url):
    with Store(url) as opened:
        yield opened


@pytest.fixture
def any_store(shared_url):
    with Store(shared_url) as opened:
        yield opened


def test_a_run_comes_back_as_it_was(any_store):
    lines = a_run()
    any_store.save_run(lines)
    assert any_store.lines_of(lines[0]["run_id"]) == lines
    run = any_store.runs()[0]
    assert (run["cadence"], run["status"], run["lines"], run["last_hash"]) == ("weekly", "completed", 6, f"{6:064x}")
    assert [(f["host"], f["id"], f["state"], f["value"]) for f in any_store.findings_of(run["run_id"])] == [
        ("a", "disk.use", "warning", 91.0),
        ("b", "disk.use", "warning", 91.0),
    ]
    assert any_store.outcomes_of(run["run_id"])[0]["downtime_seconds"] == 4.5


def test_saving_again_replaces_the_run_and_nothing_else(any_store):
    any_store.save_run(a_run(0))
    any_store.save_run(a_run(1, ended=False))
    assert [run["status"] for run in any_store.runs()] == ["completed", "interrupted"]
    any_store.save_run(a_run(1, size=50))
    any_store.save_run(a_run(1, size=50))
    assert [run["status"] for run in any_store.runs()] == ["completed", "completed"]
    assert [p["value"] for p in any_store.history("db.size", host="a")] == [10.0, 50.0]


def test_a_journal_that_differs_from_what_was_kept_shows(store):
    lines = a_run()
    assert store.mismatch(lines) == store.mismatch([]) == ""
    store.save_run(lines)
    assert store.has_run(lines[0]["run_id"])
    assert store.mismatch(lines) == ""
    assert store.mismatch([*lines, {**lines[-1], "kind": "signature", "hash": "f" * 64}]) == ""
    assert "kept 6 lines" in store.mismatch(lines[:5])
    assert store.mismatch([*lines[:5], {**lines[5], "hash": "0" * 64}])


def test_a_span_of_runs(any_store):
    for week in (2, 0, 1):
        any_store.save_run(a_run(week))
    any_store.save_run(a_run(1, cadence="daily", hosts=("c",)))
    found = [run["run_id"][:6] for run in any_store.runs(since="2026-01-10T00:00:00Z", until="2026-01-17")]
    assert sorted(found) == ["daily-", "weekly"]
    assert [run["run_id"][-4:] for run in any_store.runs(cadence="weekly")] == ["0000", "0001", "0002"]
    assert [run["run_id"][-4:] for run in any_store.runs(cadence="weekly", limit=2)] == ["0001", "0002"]
    assert [run["cadence"] for run in any_store.runs(system="sys-c")] == ["daily"]


def test_a_span_compares_instants_and_not_texts(store):
    store.save_run(a_run(0))
    assert len(store.runs(since="2026-01-03T03:00:00+01:00", until="2026-01-03T03:00:01+01:00")) == 1
    assert store.runs(since="2026-01-03T02:00:00.000001Z") == []


def test_a_time_that_is_none_is_refused(store):
    with pytest.raises(InputError, match="yesterday"):
        store.runs(since="yesterday")


def test_the_previous_run_is_the_last_real_one_of_the_same_cadence_before_this(any_store):
    for lines in (a_run(0), a_run(1), a_run(2, check_mode=True), a_run(3), a_run(2, cadence="daily")):
        any_store.save_run(lines)
    assert any_store.previous_run(a_run(3)[0]["started"], cadence="weekly")["run_id"].endswith("0001")
    assert any_store.previous_run(a_run(3)[0]["started"], cadence="weekly", real_only=False)["run_id"].endswith("0002")
    assert any_store.previous_run(a_run(3)[0]["started"], cadence="weekly", system="sys-a")["run_id"].endswith("0001")
    assert any_store.previous_run(a_run(3)[0]["started"], system="sys-nobody") is None
    assert any_store.previous_run(a_run(0)[0]["started"]) is None


def test_trends_are_summed_up_by_run(any_store):
    any_store.save_run(a_run(0, size=10))
    any_store.save_run(a_run(1, size=20))
    assert [(t["low"], t["mean"], t["high"], t["points"], t["unit"]) for t in any_store.trends(names=["db.size"])] == [
        (10, 10.5, 11, 2, "bytes"),
        (20, 20.5, 21, 2, "bytes"),
    ]
    assert [t["high"] for t in any_store.trends(system="sys-a")] == [10, 20]
    assert any_store.trends(names=["nothing"]) == []
    assert any_store.metric_names() == [{"name": "db.size", "unit": "bytes", "points": 4}]


def with_steps(run):
    """The run with a step of ten minutes for each record, which itself tells of half a minute."""
    made = []
    for line in run:
        made.append(line)
        if line["kind"] == "record":
            started = datetime.fromisoformat(line["finished"]) - timedelta(minutes=10)
            place = {name: line[name] for name in ("host", "system", "role", "finished", "run_id", "time")}
            made.append({**place, "kind": "step", "started": started.isoformat(), "tasks": 3})
    return [{**line, "seq": seq, "hash": f"{seq:064x}"} for seq, line in enumerate(made, 1)]


def test_durations_of_steps_come_from_real_runs_and_count_what_left_no_record(any_store):
    any_store.save_run(with_steps(a_run(0)))
    any_store.save_run(with_steps(a_run(1, check_mode=True)))
    found = any_store.step_durations(role="ops.maintenance.patching", system="sys-b")
    assert [(step["host"], step["seconds"]) for step in found] == [("b", 600.0)]


def test_the_last_durations_are_of_the_newest_real_runs_of_one_system(any_store):
    for week in range(4):
        any_store.save_run(a_run(week))
    any_store.save_run(a_run(5, check_mode=True))
    any_store.save_run(a_run(6, cadence="daily"))
    found = any_store.last_durations("sys-b", cadence="weekly", runs=2)
    assert {(row["role"], row["host"]) for row in found} == {("ops.maintenance.patching", "b")}
    assert [row["seconds"] for row in found] == [31.0, 31.0]
    assert {bool(row["changed"]) for row in found} <= {True, False}
    assert len(any_store.last_durations("sys-b", runs=9)) == 5
    assert any_store.last_durations("sys-b", cadence="monthly", runs=9) == []


def test_hostile_values_are_kept_as_values(any_store):
    evil = "'; DROP TABLE runs; -- \x00 \ud800".encode("utf-8", "backslashreplace").decode()
    lines = a_run(hosts=(evil, "x" * 1000))
    lines[1]["metrics"] += [{"name": "n", "subject": "s", "value": value, "unit": ""} for value in ("text", None, True, 10**18)]
    lines[1]["findings"] = [finding(value="text", summary=evil), finding(value={"a": 1})]
    any_store.save_run(lines)
    assert any_store.lines_of(lines[0]["run_id"]) == lines
    assert [p["value"] for p in any_store.history("n")] == [10**18]
    assert any_store.history("' OR 1=1 --") == []


def _save_many(url, cadence, count, barrier):
    barrier.wait()
    for week in range(count):
        with Store(url) as store:
            store.save_run(a_run(week, cadence=cadence))


def test_processes_writing_at_the_same_time_lose_nothing(shared_url):
    """The first of them makes the schema, too, all at once."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    names = ["c0", "c1", "c2", "c3"]
    workers = [context.Process(target=_save_many, args=(shared_url, name, 12, barrier)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    with Store(shared_url) as store:
        for name in names:
            runs = store.runs(cadence=name)
            assert len(runs) == 12
            assert all(store.lines_of(run["run_id"]) == a_run(week, cadence=name) for week, run in enumerate(runs))


def test_processes_writing_the_same_run_leave_it_once(shared_url):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_save_many, args=(shared_url, "weekly", 6, barrier)) for _number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 3
    with Store(shared_url) as store:
        assert len(store.runs()) == 6
        assert len(store.history("db.size")) == 12


def test_a_writer_killed_in_the_middle_leaves_the_old_run_whole(url):
    with Store(url) as store:
        store.save_run(a_run(0))
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); import test_store as t\n"
        "from ansible_collections.ops.maintenance.plugins.plugin_utils import store as s\n"
        "real = s._rows\n"
        "def cut(run, lines):\n    rows = real(run, lines)\n    yield next(rows)\n    os.kill(os.getpid(), 9)\n"
        "s._rows = cut\n"
        "s.Store(sys.argv[1]).save_run(t.a_run(0, size=99))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[7])}
    killed = subprocess.run([sys.executable, "-c", code, url, str(Path(__file__).parent)], env=env, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    with Store(url) as store:
        assert store.lines_of(a_run(0)[0]["run_id"]) == a_run(0)
        assert [p["value"] for p in store.history("db.size", host="a")] == [10.0]


def test_the_file_is_its_owners_alone_and_in_wal_mode(store, url):
    path = url.removeprefix("sqlite:///")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_of_a_newer_collection_is_refused_and_stays_as_it_is(store, url):
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 'x')")
    with pytest.raises(MaintenanceError, match="schema version 99"):
        Store(url)


def test_an_older_store_is_migrated_once_and_keeps_its_runs(store, url, monkeypatch):
    store.save_run(a_run(0))

    def _version_2(connection):
        connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN note TEXT")

    monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, _version_2))
    Store(url).close()
    with Store(url) as migrated:
        assert len(migrated.runs()) == 1
    rows = sqlite3.connect(url.removeprefix("sqlite:///")).execute("SELECT version FROM schema_version ORDER BY 1").fetchall()
    assert rows == [(1,), (2,)]


def test_a_migration_that_fails_leaves_the_store_as_it_was(store, url, monkeypatch):
    def _broken(connection):
        connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN note TEXT")
        connection.exec_driver_sql("ALTER TABLE nothing ADD COLUMN x TEXT")

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, _broken))
        with pytest.raises(MaintenanceError, match="could not be opened"):
            Store(url)
    columns = sqlite3.connect(url.removeprefix("sqlite:///")).execute("SELECT name FROM pragma_table_info('runs')").fetchall()
    assert ("note",) not in columns


@pytest.mark.parametrize("bad", ["no url", "sqlite:/x", "nonsense://x", "", "nonsense://u:hunter2@h/db"])
def test_a_url_that_is_none_is_refused_without_its_password(bad):
    with pytest.raises(InputError) as refused:
        Store(bad)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_that_does_not_answer_is_one_sentence_without_the_password():
    with pytest.raises(MaintenanceError, match="could not be opened") as refused:
        Store("postgresql://app:hunter2@127.0.0.1:1/x?connect_timeout=2")
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to look like one " * 40, b"SQLite format 3\x00" + b"\xff" * 2000]
)
def test_a_file_that_is_no_database_is_one_sentence_and_stays(tmp_path, content):
    path = tmp_path / "s.sqlite"
    path.write_bytes(content)
    with pytest.raises(MaintenanceError, match="could not be opened"):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_folder_instead_of_a_file_is_one_sentence(tmp_path):
    with pytest.raises(MaintenanceError, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("lines", [[], [{"kind": "record", "seq": 1}], [{"kind": "run"}]])
def test_lines_that_are_no_run_are_refused(store, lines):
    with pytest.raises(InputError):
        store.save_run(lines)
    assert store.runs() == []


def test_without_sqlalchemy_it_says_what_to_install(tmp_path):
    (tmp_path / "sqlalchemy.py").write_text("raise ImportError('not here')\n")
    code = (
        "from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store\n"
        "try:\n    Store('sqlite://')\nexcept Exception as error:\n    print(error)"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).resolve().parents[7]}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("The store needs the Python package SQLAlchemy"), done.stderr


def test_a_year_of_a_large_fleet_loads_quickly(store):
    """A tenth of 1,000 hosts, with a tenth of the time."""
    hosts = [f"h{number}" for number in range(100)]
    for week in range(52):
        store.save_run(with_steps(a_run(week, hosts=hosts)))
    started = time.monotonic()
    assert len(store.trends()) == 52
    assert len(store.history("db.size")) == 5200
    assert len(store.step_durations(since=START.isoformat())) == 5200
    assert store.previous_run("2030-01-01", cadence="weekly", system="sys-h3")
    assert time.monotonic() - started < 1.0
