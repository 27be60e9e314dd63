"""Upkeep of a real server: what is due is done and its effect shows, what is not due is left alone, nothing of an application breaks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import time

import pytest
import small_disk
from clusters import MAJOR, client_program, running_cluster
from faults import pids, strike, up_again
from load import Load, p95
from upkeep_runs import (
    begin_upkeep,
    bloat_index,
    done,
    finding,
    flush,
    holding,
    invalid_indexes,
    kill_rows,
    node,
    options_for,
    settle,
    table,
    wait_for,
    work_under_load,
    workers,
)

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_programs, postgresql_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_upkeep_work import end_orphans

HOSTILE = [("public", 'Mixed "Case" table'), ("sch.ema 1", "select"), ("ünï", "a.b; DROP TABLE x --%s")]


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request, monkeypatch):
    """Both drivers, for tests that cover most statements."""
    monkeypatch.setattr(postgresql, "DRIVERS", (request.param,))


@pytest.fixture
def upkeep(cluster, database, tmp_path):
    """Run the upkeep of the test's database."""

    def run(check_mode=False, server=None, **changes):
        wanted = {**(server or cluster.server), "name": "main"}
        wanted["databases"] = changes.pop("databases", [database])
        changes.setdefault("state_dir", str(tmp_path / "state"))
        for name in ("tables", "indexes"):
            changes[name] = [{"database": database, **entry} for entry in changes.get(name, [])]
        return postgresql_upkeep.run(options_for(wanted, **changes), check_mode, Host())

    return run


def test_a_clean_database_has_nothing_due_and_nothing_is_done(session, upkeep):
    table(session)
    settle(session)
    session.execute("CREATE TABLE public.empty (a int)")
    session.execute("CREATE EXTENSION pgstattuple")
    for check_mode in (True, False):
        outcome = upkeep(check_mode)
        assert (outcome.status, done(outcome)) == ("ok", [])
        assert finding(outcome, "upkeep.due", "ok")
        assert not outcome.returned["due"]
        assert {f.state for f in outcome.findings if f.id not in ("upkeep.autovacuum",)} == {"ok"}


def test_dead_rows_are_vacuumed_then_counted_and_the_second_run_does_nothing(driver, session, upkeep):
    """asr-04-1, flow-monthly-3, netpost-db-08."""
    table(session)
    settle(session)
    table(session, "public.quiet")
    settle(session, "public.quiet")
    session.execute("DELETE FROM public.t WHERE id % 2 = 0")
    flush(session)
    assert done(upkeep(True)) == [("analyze", "public.t"), ("vacuum", "public.t")]
    outcome = upkeep()
    assert outcome.status == "changed", outcome.summary
    assert done(outcome) == [("analyze", "public.t"), ("vacuum", "public.t")]
    vacuum = next(a for a in outcome.actions if a.operation == "vacuum")
    assert vacuum.before["dead_rows"] >= 2500
    assert vacuum.after["dead_rows"] == 0
    assert session.value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 't'") == 0
    again = upkeep()
    assert (again.status, again.actions) == ("ok", [])


# -- VACUUM and ANALYZE --


def test_check_mode_touches_nothing(session, upkeep, tmp_path):
    table(session, rows=20000)
    settle(session)
    session.execute("DELETE FROM public.t WHERE id % 10 <> 0")
    session.execute("VACUUM public.t")
    session.execute("UPDATE public.t SET n = n + 1")
    flush(session)
    seen = """SELECT c.oid, relfilenode, vacuum_count, analyze_count, n_dead_tup FROM pg_class c
        LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid WHERE c.oid >= 16384 ORDER BY c.oid"""
    before = session.rows(seen), session.rows("SELECT name, setting FROM pg_file_settings")
    index = {"table": "public.t", "name": "by_n", "columns": ["n"]}
    outcome = upkeep(True, settings={"work_mem": "5MB"}, indexes=[index], reset_statistics=True, reset_statistics_after_days=0.0)
    assert {"vacuum", "analyze", "reindex", "create_index", "set", "reset_statistics"} == {what for what, _of in done(outcome)}
    assert (outcome.status, outcome.returned["due"]) == ("due", True)
    assert (session.rows(seen), session.rows("SELECT name, setting FROM pg_file_settings")) == before
    assert not os.path.exists(tmp_path / "state")


def test_what_was_never_analysed_or_changed_a_lot_is_analysed(session, upkeep):
    """neff-weekly-04, netpost-db-05."""
    table(session, "public.never")
    table(session, "public.changed")
    settle(session, "public.changed")
    session.execute("INSERT INTO public.changed SELECT g, 'x', 1 FROM generate_series(5001, 6000) g")
    flush(session)
    assert session.value("SELECT count(*) FROM pg_stats WHERE tablename = 'never'") == 0
    outcome = upkeep()
    assert ("analyze", "public.never") in done(outcome)
    assert ("analyze", "public.changed") in done(outcome)
    assert session.value("SELECT count(*) FROM pg_stats WHERE tablename = 'never'") == 3
    assert session.value("SELECT reltuples FROM pg_class WHERE relname = 'changed'") == 6000
    assert done(upkeep()) == []


def test_a_partitioned_table_is_analysed_itself_and_its_partitions_not_twice(session, upkeep):
    """asr-04-2: autovacuum skips it, and so does ANALYZE of the partitions."""
    session.execute("CREATE TABLE public.p (id int, at int) PARTITION BY RANGE (at)")
    for number in range(3):
        session.execute(f"CREATE TABLE public.p{number} PARTITION OF public.p FOR VALUES FROM ({number}) TO ({number + 1})")
    session.execute("INSERT INTO public.p SELECT g, g % 3 FROM generate_series(1, 3000) g")
    flush(session)
    for number in range(3):
        settle(session, f"public.p{number}")
    inherited = "SELECT count(*) FROM pg_stats WHERE tablename = 'p' AND inherited"
    assert session.value(inherited) == 0
    assert done(upkeep()) == [("analyze", "public.p")]
    assert session.value(inherited) == 2
    flush(session)
    assert done(upkeep()) == []
    session.execute("INSERT INTO public.p SELECT g, 1 FROM generate_series(1, 2000) g")
    flush(session)
    assert done(upkeep()) == [("analyze", "public.p")]
    flush(session)
    assert done(upkeep()) == []


def test_statistics_are_made_last(session, upkeep):
    """asr-04-2: after VACUUM, rebuilds and index builds, and once."""
    table(session, rows=30000)
    settle(session)
    session.execute("CREATE EXTENSION pgstattuple")
    session.execute("DELETE FROM public.t WHERE id % 10 <> 0")
    flush(session)
    session.execute("CREATE TABLE public.log (tag text, at timestamptz)")
    session.execute("""CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.log VALUES (tg_tag, clock_timestamp()); END $$""")
    session.execute("CREATE EVENT TRIGGER note ON ddl_command_end WHEN tag IN ('CREATE INDEX') EXECUTE FUNCTION public.note()")
    outcome = upkeep(indexes=[{"table": "public.t", "name": "by_n", "columns": ["n"]}])
    assert {"analyze", "create_index", "reindex", "vacuum"} <= {what for what, _of in done(outcome)}, outcome.summary
    assert [a.operation for a in outcome.actions if a.subject.endswith("public.t") and a.operation == "analyze"] == ["analyze"]
    row = session.rows("SELECT last_analyze, last_vacuum, analyze_count FROM pg_stat_user_tables WHERE relname = 't'")[0]
    assert row["last_analyze"] > row["last_vacuum"]
    assert row["last_analyze"] > session.value("SELECT max(at) FROM public.log")
    assert row["analyze_count"] == 2


def test_old_transactions_are_frozen(session, upkeep):
    table(session)
    settle(session)
    session.execute("DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    override = [{"table": "public.t", "freeze_age": 2000}]
    outcome = upkeep(tables=override)
    assert done(outcome) == [("vacuum", "public.t")]
    assert "oldest transaction" in outcome.actions[0].summary
    assert session.value("SELECT age(relfrozenxid) FROM pg_class WHERE relname = 't'") < 2000
    assert done(upkeep(tables=override)) == []


def test_dead_rows_that_an_old_transaction_keeps_are_a_failure_that_names_it(session, upkeep, cluster, database):
    table(session)
    settle(session)
    with holding(cluster, database, "SELECT count(*) FROM pg_class"):
        kill_rows(session)
        outcome = upkeep()
        assert outcome.status == "failed"
        assert re.search(r"vacuum: it left 2500 dead rows, which are kept for session \d+ of postgres \(payroll\)", outcome.summary)
    assert upkeep().status == "changed"


def test_what_the_inventory_leaves_out_is_left_alone_and_said(session, upkeep):
    table(session)
    settle(session)
    kill_rows(session)
    outcome = upkeep(tables=[{"table": "public.t", "skip": True}])
    assert done(outcome) == []
    assert finding(outcome, "upkeep.due", "ok")[0].not_covered


def test_vacuum_goes_slower_where_that_is_asked(session, upkeep):
    table(session, rows=20000)
    settle(session)
    took = []
    for every, asked in ((2, {"vacuum_cost_delay_ms": 100.0, "vacuum_cost_limit": 20}), (3, {})):
        kill_rows(session, every=every)
        started = time.monotonic()
        assert ("vacuum", "public.t") in done(upkeep(**asked))
        took.append(time.monotonic() - started)
    assert took[0] > took[1] + 1


def test_an_upkeep_without_the_right_is_not_called_done(session, upkeep, cluster, database):
    """netpost-db-08, asr-06-5: VACUUM of somebody else's table is a mere warning of PostgreSQL."""
    session.execute("CREATE ROLE guest LOGIN")
    try:
        table(session)
        settle(session)
        kill_rows(session)
        guest = {**cluster.server, "user": "guest"}
        assert finding(upkeep(True, server=guest), "upkeep.failed", "critical")
        outcome = upkeep(server=guest)
        assert outcome.status == "failed"
        assert "MAINTAIN" in outcome.summary
        assert session.value("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 't'") == 1
    finally:
        session.execute("DROP ROLE guest")


def test_a_table_that_vacuum_skips_without_an_error_is_a_failure(session, upkeep, cluster, database):
    """netpost-db-08, asr-06-5: the owner of a database may vacuum its tables, but those that all databases share are skipped."""
    session.execute("CREATE ROLE landlord LOGIN")
    try:
        session.execute(f"ALTER DATABASE {database} OWNER TO landlord")
        for _number in range(50):
            session.value("SELECT pg_current_xact_id()::text")
        outcome = upkeep(server={**cluster.server, "user": "landlord"}, tables=[{"table": "pg_catalog.pg_authid", "freeze_age": 1}])
        assert (outcome.status, done(outcome, "failed")) == ("failed", [("vacuum", "pg_catalog.pg_authid")])
        assert "PostgreSQL skipped it without an error" in outcome.summary
    finally:
        session.execute(f"ALTER DATABASE {database} OWNER TO postgres")
        session.execute("DROP ROLE landlord")


# -- indexes --


@pytest.mark.parametrize(("driver", "with_extension"), [("psycopg", True), ("psycopg2", False)], indirect=["driver"])
def test_a_bloated_index_is_rebuilt_online_and_a_sound_one_is_not(driver, session, upkeep, with_extension):
    """neff-weekly-05, flow-monthly-4: decided by bloat, REINDEX INDEX CONCURRENTLY, no remainder."""
    if with_extension:
        session.execute("CREATE EXTENSION pgstattuple")
    bloat_index(session)
    table(session, "public.sound", rows=30000)
    settle(session, "public.sound")
    sound = node(session, "public.sound_pkey")
    before = session.value("SELECT pg_relation_size('public.t_pkey')")
    outcome = upkeep()
    assert done(outcome) == [("reindex", "public.t_pkey")], outcome.summary
    action = outcome.actions[0]
    assert ("measured" if with_extension else "estimated") in action.summary
    assert action.after["size_bytes"] < before / 4
    assert session.value("SELECT pg_relation_size('public.t_pkey')") == action.after["size_bytes"]
    assert node(session, "public.sound_pkey") == sound
    assert invalid_indexes(session) == []
    assert done(upkeep()) == []
    assert finding(outcome, "upkeep.bloat")[0].basis == ("exact" if with_extension else "estimated")


def test_after_one_rebuild_the_bloat_of_any_index_is_told_without_an_extension(session, upkeep):
    session.execute("CREATE TABLE public.g (id int, r int4range)")
    session.execute("INSERT INTO public.g SELECT x, int4range(x, x + 5) FROM generate_series(1, 8000) x")
    session.execute("CREATE INDEX by_range ON public.g USING gist (r)")
    settle(session, "public.g")
    session.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.by_range'::regclass")
    assert ("reindex", "public.by_range") in done(upkeep())
    for _turn in range(2):
        session.execute("DELETE FROM public.g WHERE id % 4 <> 0")
        settle(session, "public.g")
    outcome = upkeep()
    assert done(outcome) == [("reindex", "public.by_range")]
    assert "estimated" in outcome.actions[0].summary
    assert done(upkeep()) == []


def leave_a_remainder(cluster, database, session, name="public.t_pkey"):
    """Cut a REINDEX CONCURRENTLY short: it has built its copy and waits for an old snapshot."""
    with holding(cluster, database, "SELECT count(*) FROM pg_class"), postgresql.connect(cluster.server, database) as rebuild:
        rebuild.set("lock_timeout", "300ms")
        with pytest.raises(postgresql.StatementError):
            rebuild.execute(f"REINDEX INDEX CONCURRENTLY {name}")


def test_remainders_of_a_rebuild_are_swept_and_nothing_else_is_dropped(session, upkeep, cluster, database):
    """neff-weekly-05, flow-monthly-4: INVALID _ccnew remainders go; an invalid index that only looks like one is rebuilt."""
    table(session)
    session.execute("CREATE INDEX lonely_ccnew ON public.t (label)")
    long = "i" * 63
    session.execute(f"CREATE INDEX {long} ON public.t (n, label)")
    settle(session)
    leave_a_remainder(cluster, database, session)
    leave_a_remainder(cluster, database, session)
    leave_a_remainder(cluster, database, session, f"public.{long}")
    session.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.lonely_ccnew'::regclass")
    assert len(invalid_indexes(session)) == 4
    assert ("drop_leftover", "public.t_pkey_ccnew") in done(upkeep(True))
    outcome = upkeep()
    assert outcome.status == "changed", outcome.summary
    assert [what for what, _of in done(outcome)] == ["drop_leftover"] * 3 + ["reindex"]
    assert ("reindex", "public.lonely_ccnew") in done(outcome)
    assert invalid_indexes(session) == []
    assert session.value("SELECT count(*) FROM pg_index WHERE indrelid = 'public.t'::regclass AND indisvalid") == 3
    assert done(upkeep()) == []


def test_a_rebuild_that_somebody_else_does_right_now_is_left_alone(session, upkeep, cluster, database):
    table(session)
    settle(session)
    with (
        holding(cluster, database, "SELECT count(*) FROM pg_class") as holder,
        postgresql.connect(cluster.server, database, lock_timeout_seconds=0) as admin,
    ):
        thread = threading.Thread(target=admin.execute, args=["REINDEX INDEX CONCURRENTLY public.t_pkey"])
        thread.start()
        until = time.monotonic() + 10
        while not invalid_indexes(session) and time.monotonic() < until:
            time.sleep(0.05)
        outcome = upkeep()
        assert invalid_indexes(session) == ["t_pkey_ccnew"]
        assert ("drop_leftover", "public.t_pkey_ccnew") not in done(outcome, "changed", "failed")
        assert finding(outcome, "upkeep.index", "unknown")
        holder.execute("COMMIT")
        thread.join()
    assert invalid_indexes(session) == []


def test_one_failure_stops_nothing_else_but_the_outcome(session, upkeep):
    """asr-06-5: any error makes it fail and is named; what failed leaves nothing behind."""
    session.execute("CREATE TABLE public.dup (a int)")
    session.execute("INSERT INTO public.dup VALUES (1), (1)")
    with pytest.raises(postgresql.StatementError):
        session.execute("CREATE UNIQUE INDEX CONCURRENTLY dup_a ON public.dup (a)")
    settle(session, "public.dup")
    table(session)
    settle(session)
    kill_rows(session)
    outcome = upkeep()
    assert outcome.status == "failed"
    assert "public.dup_a" in outcome.summary
    assert "23505" in outcome.summary
    assert ("vacuum", "public.t") in done(outcome)
    assert invalid_indexes(session) == ["dup_a"]
    assert outcome.returned["failures"]
    session.execute("DELETE FROM public.dup")
    assert upkeep().status == "changed"
    assert invalid_indexes(session) == []


APPOINTMENTS = {
    "table": "public.appointments",
    "name": "idx_appointments_date_status",
    "columns": ["appointment_date", "status"],
    "where": "status IN ('scheduled', 'confirmed')",
}


def test_a_declared_index_is_built_online_once_and_rebuilt_when_invalid(session, upkeep, cluster, database):
    """neff-perf-04: IF NOT EXISTS would accept the invalid one that a failed build leaves."""
    session.execute("CREATE TABLE public.appointments (id int, appointment_date date, status text)")
    session.execute("INSERT INTO public.appointments SELECT g, current_date + g, 'confirmed' FROM generate_series(1, 500) g")
    settle(session, "public.appointments")
    name = "public.idx_appointments_date_status"
    assert done(upkeep(True, indexes=[APPOINTMENTS])) == [("create_index", name)]
    assert done(upkeep(indexes=[APPOINTMENTS])) == [("create_index", name)]
    assert "'scheduled'" in session.value("SELECT pg_get_indexdef(%s::regclass)", [name])
    assert done(upkeep(indexes=[APPOINTMENTS])) == []
    built = session.value("SELECT pg_get_indexdef(%s::regclass)", [name])
    session.execute(f"DROP INDEX {name}")
    session.set("lock_timeout", "300ms")
    with holding(cluster, database, "SELECT count(*) FROM pg_class"), pytest.raises(postgresql.StatementError):
        session.execute(built.replace("INDEX", "INDEX CONCURRENTLY", 1))
    assert invalid_indexes(session) == ["idx_appointments_date_status"]
    assert done(upkeep(indexes=[APPOINTMENTS])) == [("reindex", name)]
    assert session.value("SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", [name])
    assert done(upkeep(indexes=[APPOINTMENTS])) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table": "public.Appointments"}, "table public.Appointments does not exist .*case counts"),
        ({"columns": ["day"]}, "has no column day"),
        ({"where": "status = ("}, "syntax error"),
    ],
)
def test_a_declared_index_that_cannot_be_built_is_one_sentence(session, upkeep, change, says):
    session.execute("CREATE TABLE public.appointments (id int, appointment_date date, status text)")
    outcome = upkeep(indexes=[{**APPOINTMENTS, **change}])
    assert outcome.status == "failed"
    assert re.search(says, outcome.summary)
    assert "\n" not in outcome.summary
    assert invalid_indexes(session) == []


def test_an_index_of_that_name_that_is_another_one_is_not_touched(session, upkeep):
    session.execute("CREATE TABLE public.appointments (id int, appointment_date date, status text)")
    session.execute("CREATE INDEX idx_appointments_date_status ON public.appointments (status)")
    outcome = upkeep(indexes=[APPOINTMENTS])
    assert "it exists, but on status, without a condition" in finding(outcome, "upkeep.declared", "warning")[0].summary
    assert done(outcome) == []


# -- the locking forms --

FULL = [{"table": "public.t", "vacuum_full": True}]


def test_vacuum_full_only_where_named_in_maintenance_mode_and_above_the_measured_limit(session, upkeep):
    """flow-monthly-6."""
    for name in ("public.t", "public.unnamed"):
        bloat_index(session, name)
    files = {name: node(session, name) for name in ("public.t", "public.unnamed")}
    quiet = {"reindex": "never", "maintenance_mode": True}
    outcome = upkeep(tables=FULL, **quiet)
    assert "pgstattuple is not installed" in finding(outcome, "upkeep.bloat", "unknown")[0].summary
    session.execute("CREATE EXTENSION pgstattuple")
    outcome = upkeep(tables=FULL, reindex="never")
    assert done(outcome, "skipped") == [("vacuum_full", "public.t")]
    assert outcome.returned["due_in_maintenance_mode"]
    assert done(upkeep(tables=[{**FULL[0], "vacuum_full_bloat_percent": 99.5}], **quiet)) == []
    assert done(upkeep(tables=FULL, reserve_bytes=10**15, **quiet), "skipped") == [("vacuum_full", "public.t")]
    assert {name: node(session, name) for name in files} == files
    outcome = upkeep(tables=FULL, **quiet)
    assert ("vacuum_full", "public.t") in done(outcome), outcome.summary
    action = next(a for a in outcome.actions if a.operation == "vacuum_full")
    assert action.after["size_bytes"] < action.before["size_bytes"] / 4
    assert node(session, "public.t") != files["public.t"]
    assert node(session, "public.unnamed") == files["public.unnamed"]
    assert done(upkeep(tables=FULL, **quiet)) == []


def test_vacuum_full_behind_a_reader_holds_nobody_up_for_long(session, upkeep, cluster, database):
    """flow-monthly-6: while it waits for one reader, all later queries queue behind it."""
    session.execute("CREATE EXTENSION pgstattuple")
    bloat_index(session)
    worst = 0.0
    with holding(cluster, database, "SELECT count(*) FROM public.t"):
        results = []
        thread = threading.Thread(
            target=lambda: results.append(upkeep(tables=FULL, reindex="never", maintenance_mode=True, lock_timeout_seconds=0.5))
        )
        thread.start()
        while thread.is_alive():
            started = time.monotonic()
            session.rows("SELECT id FROM public.t WHERE id = 10")
            worst = max(worst, time.monotonic() - started)
            time.sleep(0.01)
        thread.join()
    assert results[0].status == "failed"
    assert "application payroll" in finding(results[0], "upkeep.blocked", "critical")[0].summary
    assert 0.2 < worst < 2.0


def test_a_locking_rebuild_only_where_named_and_in_maintenance_mode(session, upkeep, cluster):
    """neff-weekly-05: the constraint that cannot be rebuilt online is said, not forced."""
    session.execute("CREATE TABLE public.rooms (id int, during int4range, EXCLUDE USING gist (during WITH &&))")
    session.execute("INSERT INTO public.rooms SELECT g, int4range(g, g + 1) FROM generate_series(1, 1000) g")
    settle(session, "public.rooms")
    name = "public.rooms_during_excl"
    session.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [name])
    before = node(session, name)
    assert finding(upkeep(), "upkeep.index", "warning")
    locking = [{"table": "public.rooms", "reindex": "locking"}]
    assert done(upkeep(tables=locking), "skipped") == [("reindex_locking", name)]
    outcome = upkeep(tables=locking, maintenance_mode=True, reserve_bytes=10**15)
    assert done(outcome, "skipped") == [("reindex_locking", name)]
    assert re.search(r"it needs .* free in .*, there are ", finding(outcome, "upkeep.disk_room", "warning")[0].summary)
    session.execute("CREATE ROLE keeper LOGIN")  # which may not see where the server has its data
    session.execute("ALTER TABLE public.rooms OWNER TO keeper")
    try:
        outcome = upkeep(server={**cluster.server, "user": "keeper"}, tables=locking, maintenance_mode=True)
        assert done(outcome, "skipped") == [("reindex_locking", name)]
        assert "its disk cannot be looked at" in finding(outcome, "upkeep.disk_room", "unknown")[0].summary
    finally:
        session.execute("ALTER TABLE public.rooms OWNER TO postgres")
        session.execute("DROP ROLE keeper")
    assert node(session, name) == before
    assert done(upkeep(tables=locking, maintenance_mode=True)) == [("reindex_locking", name)]
    assert node(session, name) != before


# -- others at work --


def test_a_lock_held_for_ever_is_named_and_stops_nothing_else(driver, session, upkeep, cluster, database):
    """flow-monthly-3: one locked table; the others are done, the holder lives."""
    for name in ("public.locked", "public.t"):
        table(session, name)
        settle(session, name)
        kill_rows(session, name)
    with holding(cluster, database, "LOCK TABLE public.locked") as holder:
        pid = holder.value("SELECT pg_backend_pid()")
        assert ("vacuum", "public.locked") in done(upkeep(True))
        outcome = upkeep()
        assert outcome.status == "failed"
        found = finding(outcome, "upkeep.blocked", "critical")[0]
        assert found.subject.endswith("public.locked")
        assert re.search(
            rf"blocked by pid {pid} of user postgres, application payroll, idle in transaction, since \d\d\d\d-", found.summary
        )
        assert {("vacuum", "public.t"), ("analyze", "public.t")} <= set(done(outcome))
        assert holder.value("SELECT 1") == 1
    assert ("vacuum", "public.locked") in done(upkeep())


def test_of_two_prepared_transactions_the_one_that_blocks_is_named(session, upkeep):
    """flow-monthly-3: the older one holds a lock of the same table that goes with VACUUM."""
    table(session)
    settle(session)
    kill_rows(session)
    for gid, mode in (("innocent", "ROW EXCLUSIVE"), ("guilty", "SHARE UPDATE EXCLUSIVE")):
        session.execute(f"BEGIN; LOCK TABLE public.t IN {mode} MODE; PREPARE TRANSACTION '{gid}'")
    try:
        found = finding(upkeep(), "upkeep.blocked", "critical")[0]
        assert "blocked by prepared transaction guilty of postgres since 20" in found.summary
        assert "innocent" not in str(found)
    finally:
        for gid in ("innocent", "guilty"):
            session.execute(f"ROLLBACK PREPARED '{gid}'")


def test_blockers_are_ended_only_where_the_inventory_says_so(session, upkeep, cluster, database):
    table(session)
    settle(session)
    kill_rows(session)
    with holding(cluster, database, "LOCK TABLE public.t") as holder:
        outcome = upkeep(terminate_blockers=True, concurrent_wait_seconds=5.0)
        assert outcome.status == "changed", outcome.summary
        ended = next(a for a in outcome.actions if a.operation == "terminate")
        assert "application payroll" in ended.summary
        with pytest.raises(postgresql.StatementError):
            holder.value("SELECT 1")


@pytest.mark.parametrize(
    ("operation", "name", "given"),
    [
        ("reindex", "public.t_pkey", {"concurrent_wait_seconds": 5.0}),
        ("vacuum_full", "public.t", {"tables": FULL, "reindex": "never", "maintenance_mode": True, "lock_timeout_seconds": 5.0}),
    ],
)
def test_what_blocks_a_rebuild_is_ended_only_where_the_inventory_says_so(session, upkeep, cluster, database, operation, name, given):
    """neff-weekly-05, flow-monthly-6: a reader that never ends its transaction."""
    session.execute("CREATE EXTENSION pgstattuple")
    bloat_index(session)
    with holding(cluster, database, "SELECT count(*) FROM public.t") as holder:
        outcome = upkeep(**{**given, "concurrent_wait_seconds": 0.3, "lock_timeout_seconds": 0.3})
        assert (outcome.status, done(outcome)) == ("failed", [])
        assert "application payroll" in finding(outcome, "upkeep.blocked", "critical")[0].summary
        assert holder.value("SELECT 1") == 1
        outcome = upkeep(terminate_blockers=True, **given)
        assert (operation, name) in done(outcome), outcome.summary
        assert "application payroll" in next(a for a in outcome.actions if a.operation == "terminate").summary
        with pytest.raises(postgresql.StatementError):
            holder.value("SELECT 1")
    assert invalid_indexes(session) == []


def test_several_tables_are_worked_on_at_once(session, upkeep, cluster, database):
    for number in range(3):
        table(session, f"public.t{number}")
        settle(session, f"public.t{number}")
        kill_rows(session, f"public.t{number}")
    with holding(cluster, database, "LOCK TABLE public.t0, public.t1, public.t2"):
        took = {}
        for parallel in (3, 1):
            started = time.monotonic()
            outcome = upkeep(parallel=parallel, concurrent_wait_seconds=0.7, analyze_changed_rows=10**6)
            took[parallel] = time.monotonic() - started
            assert len(finding(outcome, "upkeep.blocked")) == 3
    assert took[1] - took[3] > 0.7


def test_when_the_window_closes_work_stops_and_the_rest_is_deferred(session, upkeep, cluster, database):
    for name in ("public.locked", "public.t"):
        table(session, name)
        settle(session, name)
        kill_rows(session, name)
    outcome = upkeep(deadline=time.time() + 1)
    assert set(done(outcome, "deferred")) >= {("vacuum", "public.locked"), ("vacuum", "public.t")}
    assert (outcome.status, done(outcome)) == ("deferred", [])
    with holding(cluster, database, "LOCK TABLE public.locked"):
        deadline = time.time() + 7
        outcome = upkeep(deadline=deadline, concurrent_wait_seconds=60.0, parallel=1, tables=[{"table": "public.locked", "freeze_age": 1}])
        assert time.time() < deadline
    words = {(a.operation, a.subject.partition(": ")[2]): a.summary for a in outcome.actions if a.status == "deferred"}
    assert "stopped when the window closed" in words["vacuum", "public.locked"]
    assert "would not end" in words["vacuum", "public.t"]
    assert done(outcome) == []
    assert wait_for(lambda: workers(session) == 0, 2)
    outcome = upkeep(deadline=time.time() + 20, bytes_per_second=1000)
    assert "would not end" in next(a.summary for a in outcome.actions if a.status == "deferred")


def test_what_a_rebuild_leaves_that_was_stopped_with_the_window_is_swept_at_once(session, upkeep, cluster, database):
    session.execute("CREATE EXTENSION pgstattuple")
    bloat_index(session)
    with holding(cluster, database, "SELECT count(*) FROM pg_class"):
        deadline = time.time() + 7
        outcome = upkeep(deadline=deadline, concurrent_wait_seconds=60.0)
        assert time.time() < deadline
    assert ("reindex", "public.t_pkey") in done(outcome, "deferred")
    assert ("drop_leftover", "public.t_pkey_ccnew") in done(outcome)
    assert invalid_indexes(session) == []


def test_two_runs_at_once_are_refused_with_who_is_at_it(session, upkeep, cluster):
    with postgresql.connect(cluster.server) as other:
        other.value("SELECT pg_try_advisory_lock(%s)", [postgresql_upkeep._LOCK])
        pid = other.value("SELECT pg_backend_pid()")
        outcome = upkeep()
        assert outcome.status == "failed"
        assert f"another upkeep of this server runs: pid {pid} of postgres since" in outcome.summary
    assert upkeep().status != "failed"


def test_a_run_that_is_just_ending_is_awaited(session, upkeep, cluster):
    """The server notices a moment late that a client has gone, on a busy machine most of all."""
    with postgresql.connect(cluster.server) as other:
        other.value("SELECT pg_try_advisory_lock(%s)", [postgresql_upkeep._LOCK])
        leaving = threading.Timer(1.0, other.close)
        leaving.start()
        assert upkeep().status != "failed"
        leaving.join()


def test_an_application_under_load_loses_no_transaction(session, cluster, database, tmp_path):
    """neff-weekly-05, flow-monthly-4, netpost-db-08: the online forms are online."""
    load = Load(cluster, database, tmp_path)
    idle = load.batch(3)
    options = work_under_load(session, cluster, database, tmp_path)
    child = begin_upkeep(options)
    during = load.during(child)
    said, errors = child.communicate(timeout=60)
    assert said, errors
    status, operations, _failures = json.loads(said)
    assert status == "changed"
    assert {"vacuum", "reindex", "create_index", "analyze"} <= set(operations)
    print(f"\npgbench: p95 {p95(idle):.1f} ms idle, {p95(during):.1f} ms during upkeep, {len(during)} transactions, 0 failed")
    assert len(during) > 100
    assert p95(during) < 1000, "the application was held up"


def test_a_state_folder_that_is_full_loses_no_record(session, upkeep):
    """What was done is reported all the same, and so is that the next run will not know it."""
    table(session)
    small_disk.fill()
    try:
        outcome = upkeep(state_dir=str(small_disk.ROOT / "state"))
        assert outcome.status == "failed"
        assert ("analyze", "public.t") in done(outcome)
        assert "No space left on device" in finding(outcome, "upkeep.state", "critical")[0].summary
    finally:
        small_disk.free()
        shutil.rmtree(small_disk.ROOT / "state", ignore_errors=True)


# -- extensions, settings, statistics --


def test_an_extension_is_updated_when_its_version_differs_and_only_then(driver, session, upkeep):
    """neff-monthly-05."""
    session.execute("CREATE EXTENSION pg_stat_statements VERSION '1.7'")
    session.execute("CREATE EXTENSION pgstattuple")
    wanted = session.value("SELECT default_version FROM pg_available_extensions WHERE name = 'pg_stat_statements'")
    names = ["pg_stat_statements", "pgstattuple", "hstore"]
    outcome = upkeep(extensions_to_update=names)
    assert done(outcome) == [("update_extension", "pg_stat_statements")]
    assert (outcome.actions[0].before, outcome.actions[0].after) == ({"version": "1.7"}, {"version": wanted})
    assert "hstore is in none" in finding(outcome, "upkeep.extension", "unknown")[0].summary
    assert session.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_stat_statements'") == wanted
    assert done(upkeep(extensions_to_update=names)) == []


def test_settings_are_set_once_and_what_waits_for_a_restart_is_said(driver, session, upkeep, cluster):
    """neff-perf-08."""
    wanted = {"shared_buffers": "64MB", "effective_cache_size": "256MB", "work_mem": "5MB", "log_min_duration_statement": 1500}
    try:
        assert [what for what, _of in done(upkeep(True, settings=wanted))] == ["set"] * 4
        outcome = upkeep(settings=wanted)
        assert [what for what, _of in done(outcome)] == ["set"] * 4, outcome.summary
        with postgresql.connect(cluster.server) as fresh:
            assert [fresh.value(f"SHOW {name}") for name in list(wanted)[1:]] == ["256MB", "5MB", "1500ms"]
            assert fresh.value("SELECT pending_restart FROM pg_settings WHERE name = 'shared_buffers'")
        found = finding(outcome, "upkeep.setting", "warning")[0]
        assert found.subject == "main: shared_buffers"
        assert "after the next restart" in found.summary
        again = upkeep(settings={**wanted, "shared_buffers": "65536kB", "work_mem": "5120kB"})
        assert done(again) == []
        assert finding(again, "upkeep.setting", "warning")[0].subject == "main: shared_buffers"
    finally:
        for name in wanted:
            session.execute(f"ALTER SYSTEM RESET {name}")
        session.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"shared_buffers": "9999GB", "work_mem": "4MB"}, "shared_buffers of .* is more than half of the host's"),
        ({"work_memory": "4MB"}, "setting work_memory is not known"),
        ({"work_mem": "4 quarts"}, "expected a number with a unit"),
        ({"block_size": 8192}, "cannot be changed"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_none_is_set(session, upkeep, wanted, says):
    """neff-perf-08: fixed values are checked against the host."""
    before = session.rows("SELECT name, setting FROM pg_file_settings")
    outcome = upkeep(settings={"random_page_cost": 1.1, **wanted})
    assert outcome.status == "failed"
    assert re.search(says, outcome.summary)
    assert session.rows("SELECT name, setting FROM pg_file_settings") == before


def test_work_mem_of_all_connections_is_weighed(session, upkeep):
    """neff-perf-08: work_mem counts for each sort and each connection."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    outcome = upkeep(True, settings={"work_mem": f"{memory // 20 // 1024}kB"})
    assert "for 60 connections" in finding(outcome, "upkeep.memory", "warning")[0].summary


def test_a_list_setting_stays_a_list(session, upkeep):
    try:
        assert upkeep(settings={"session_preload_libraries": "auto_explain, pg_stat_statements"}).status == "changed"
        assert (
            session.value("SELECT setting FROM pg_file_settings WHERE name = 'session_preload_libraries'")
            == "auto_explain, pg_stat_statements"
        )
    finally:
        session.execute("ALTER SYSTEM RESET session_preload_libraries")
        session.execute("SELECT pg_reload_conf()")


def test_counters_are_reset_only_when_asked_and_every_table_is_analysed_then(session, upkeep):
    table(session)
    settle(session)
    reset = "SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()"
    # Before PostgreSQL 15 the counters of a new database count as reset when it was first used.
    before = session.value(reset)
    upkeep()
    assert session.value(reset) == before
    asked = {"reset_statistics": True, "reset_statistics_after_days": 0.0}
    late = upkeep(deadline=time.time() + 3.2, **asked)
    assert ("reset_statistics", "") in done(late, "deferred")
    assert session.value(reset) == before
    outcome = upkeep(**asked)
    assert [what for what, _of in done(outcome)] == ["analyze", "reset_statistics"]
    assert wait_for(lambda: session.value(reset) not in (None, before), 5)
    assert session.value("SELECT last_analyze IS NOT NULL FROM pg_stat_user_tables WHERE relname = 't'")
    assert done(upkeep(reset_statistics=True)) == []


# -- names, and input that cannot be --


def test_hostile_names_are_names(driver, session, upkeep):
    session.execute("CREATE EXTENSION pgstattuple")
    indexes, tables = [], []
    for schema, name in HOSTILE:
        quoted = session.identifier(schema, name)
        session.execute(f"CREATE SCHEMA IF NOT EXISTS {session.identifier(schema)}")
        table(session, quoted, rows=30000)
        settle(session, quoted)
        session.execute(f"DELETE FROM {quoted} WHERE id > 3000 AND id % 50 <> 0")
        flush(session)
        shown = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))
        indexes.append({"table": shown, "name": f"by {name}"[:60], "columns": ["label"], "where": "n > 1"})
        tables.append({"table": shown, "vacuum_dead_percent": 1.0, "vacuum_full": True})
    outcome = upkeep(indexes=indexes, tables=tables, maintenance_mode=True)
    assert outcome.status == "changed", outcome.returned["failures"]
    for schema, name in HOSTILE:
        assert {("vacuum", f"{schema}.{name}"), ("vacuum_full", f"{schema}.{name}"), ("analyze", f"{schema}.{name}")} <= set(done(outcome))
    assert sum(what == "create_index" for what, _of in done(outcome)) == 3
    assert done(upkeep(indexes=indexes, tables=tables, maintenance_mode=True)) == []


def test_a_table_that_is_not_there_is_one_sentence_and_the_rest_is_done(session, upkeep):
    table(session)
    settle(session)
    kill_rows(session)
    outcome = upkeep(tables=[{"table": "public.T"}])
    assert outcome.status == "failed"
    assert "table public.T does not exist in database" in outcome.summary
    assert ("vacuum", "public.t") in done(outcome)


def test_a_database_that_is_not_there_stops_no_other(session, upkeep, database):
    table(session)
    settle(session)
    kill_rows(session)
    outcome = upkeep(databases=["no such", database])
    assert outcome.status == "failed"
    assert "no such" in outcome.summary
    assert ("vacuum", "public.t") in done(outcome)


def test_input_that_cannot_be_is_refused_all_at_once(upkeep):
    with pytest.raises(InputError) as caught:
        upkeep(parallel=0, vacuum_dead_percent=0.0, tables=[{"table": "orders"}], settings={"primary_conninfo": "x"}, indexes=[
            {"table": "public.t", "name": "i", "columns": [], "server": "other"},
        ])  # fmt: skip
    for words in (
        "parallel is 0",
        "vacuum_dead_percent is 0",
        "'orders', expected schema.table",
        "primary_conninfo",
        "has no columns",
        "'other'",
    ):
        assert words in str(caught.value)


def test_a_server_that_is_set_to_read_only_is_one_sentence(session, upkeep, database):
    table(session)
    session.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    outcome = upkeep()
    assert outcome.status == "failed"
    assert "read only" in outcome.summary
    assert done(outcome) == []


# -- a cluster that is killed, and its standby --


@pytest.fixture(scope="module")
def victim():
    with running_cluster() as running:
        yield running


def test_a_standby_is_one_sentence(victim, tmp_path):
    with postgresql.connect(victim.server) as session:
        table(session, "public.t")
    folder = os.path.join(victim.folder, "standby")
    argv = [
        client_program("pg_basebackup"),
        "-D",
        folder,
        "-R",
        "-X",
        "stream",
        "-c",
        "fast",
        "-h",
        victim.socket,
        "-U",
        "postgres",
        "--no-sync",
    ]
    assert postgresql_programs.run_program(argv, os_user="postgres").rc == 0
    control = [victim.program("pg_ctl"), "-D", folder, "-w", "-l", f"{folder}.log"]
    assert postgresql_programs.run_program([*control, "-o", "-p 5433", "start"], os_user="postgres").rc == 0
    try:
        server = {**victim.server, "port": 5433, "databases": ["postgres"]}
        for check_mode in (True, False):
            outcome = postgresql_upkeep.run(options_for(server, state_dir=str(tmp_path / "s")), check_mode, Host())
            assert outcome.status == "failed"
            assert "the server is a standby" in outcome.summary
        outcome = postgresql_upkeep.run(options_for(server, state_dir=str(tmp_path / "s"), on_standby="skip"), False, Host())
        assert (outcome.status, outcome.actions[0].status) == ("ok", "skipped")
    finally:
        postgresql_programs.run_program([*control, "-m", "immediate", "stop"], os_user="postgres")


# What REINDEX CONCURRENTLY waits for at its stages; without any of it the kill comes at some moment of the build.
STAGES = {
    "writers": "INSERT INTO public.t VALUES (-1, 'x', 1)",
    "snapshots": "SELECT count(*) FROM pg_class",
    "none": "",
}


ENDS = [(how, stage) for how in ("client", "stop") for stage in STAGES] + [(how, "snapshots") for how in ("backend", "server", "cut")]


@pytest.mark.parametrize(("how", "stage"), ENDS)
def test_killed_in_a_rebuild_the_next_run_sweeps_and_completes(victim, tmp_path, how, stage):
    """neff-weekly-05, flow-monthly-4: at each stage of REINDEX CONCURRENTLY; in the other statements: test_postgresql_faults.py."""
    with postgresql.connect(victim.server) as session:
        session.execute("DROP TABLE IF EXISTS public.t")
        session.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
        bloat_index(session)
    options = options_for({**victim.server, "databases": ["postgres"]}, state_dir=str(tmp_path / "s"), concurrent_wait_seconds=30.0)
    with contextlib.ExitStack() as stack:
        if STAGES[stage]:
            stack.enter_context(holding(victim, "postgres", STAGES[stage]))
        child = begin_upkeep(options)
        with postgresql.connect(victim.server) as session:
            met = wait_for(lambda: invalid_indexes(session) or child.poll() is not None)
            assert met or stage == "none"
            whom = pids(session, "application_name = 'ops.maintenance.upkeep'")
        strike(victim, how, child, whom)
        said, errors = child.communicate(timeout=60)
        with up_again(victim, how) as session:
            if how == "client":
                if MAJOR < 14:  # whose server does not look after its clients: the next run ends what they do
                    end_orphans(session)
                assert wait_for(lambda: workers(session) == 0), "the sessions of a killed run end by themselves"
            else:
                assert "failed" in said or (stage == "none" and said), errors
            if STAGES[stage]:
                assert invalid_indexes(session) == ["t_pkey_ccnew"]
    outcome = postgresql_upkeep.run(options, False, Host())
    assert outcome.status in (("changed",) if STAGES[stage] else ("changed", "ok")), outcome.summary
    with postgresql.connect(victim.server) as session:
        assert invalid_indexes(session) == []
        assert session.value("SELECT pg_relation_size('public.t_pkey')") < 150_000
        assert session.value("SELECT count(*) FROM public.t WHERE id > 0") == 3000
        assert session.value("SELECT count(*) FROM pg_index WHERE indrelid = 'public.t'::regclass") == 1
    assert done(postgresql_upkeep.run(options, False, Host())) == []


def test_a_session_that_is_leaving_is_none_of_a_killed_run(victim):
    """The server needs a moment to see that a client has gone."""
    leaving = postgresql.connect(victim.server, application_name="ops.maintenance.upkeep")
    with postgresql.connect(victim.server) as session:
        assert wait_for(lambda: workers(session) == 1, 5)
        timer = threading.Timer(0.3, leaving.close)
        timer.start()
        assert end_orphans(session) == 0
        timer.join()


def test_what_a_killed_run_still_does_is_ended_first(victim, tmp_path):
    """A server that cannot look after its clients (PostgreSQL 13) goes on working for nobody."""
    options = options_for({**victim.server, "databases": ["postgres"]}, state_dir=str(tmp_path / "s"))
    with (
        postgresql.connect(victim.server, application_name="ops.maintenance.upkeep") as orphan,
        postgresql.connect(victim.server) as session,
    ):
        assert wait_for(lambda: workers(session) == 1, 5)
        outcome = postgresql_upkeep.run(options, False, Host())
        assert ("end_orphans", "") in done(outcome)
        with pytest.raises(postgresql.StatementError):
            orphan.value("SELECT 1")
