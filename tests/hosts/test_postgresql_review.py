"""The review of real servers: every fault is planted and found, and a clean twin stays silent."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from datetime import datetime

import pytest
from clusters import AS_IN_PRODUCTION, MAJOR, running_cluster
from faults import kill_all
from review_faults import (
    CLEAN,
    DAMAGED,
    FAULTY,
    FOUND,
    HBA,
    IS_OUTDATED,
    OF_SERVER,
    SETTINGS,
    ask,
    in_trouble,
    make_twin,
    plant_damage,
    plant_faults,
    run_statements,
    standby_of,
    write_hba,
)
from upkeep_runs import flush, wait_for

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_review
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

PASSWORD = "m0nitor-s3cret"
LOW = {
    "statement_min_calls": 2,
    "statement_mean_ms": 30,
    "error_min_transactions": 1,
    "temporary_bytes": 1000,
    "bloat_min_bytes": 65536,
    "freeze_percent": 0.0000001,
    "missing_index_min_rows": 1000,
    "missing_index_scans": 5,
    "unused_index_days": 0,
    "role_unused_days": 0,
}
"""Limits as low as a small and young database needs them for its faults to show."""


def options(cluster, *databases, **given):
    spec = {name: option.get("default") for name, option in postgresql_review.OPTIONS.items()}
    server = {**cluster.server, "name": "main", "databases": list(databases)}
    common = {"run_id": "", "deadline": 0.0, "state_dir": given.pop("state_dir", "/tmp/review_state_unused"), "self_test": False}
    return {**spec, **common, "newest_minor": {str(MAJOR): minor(cluster)}, "servers": [server], **given}


def minor(cluster):
    with postgresql.connect(cluster.server) as session:
        return str(int(session.value("SHOW server_version_num")) % 10000)


def review(cluster, *databases, check_mode=True, **given):
    return postgresql_review.run(options(cluster, *databases, **given), check_mode, Host())


def by_id(outcome, subject=None):
    return {finding.id: finding for finding in outcome.findings if subject is None or finding.subject == subject}


def bad(outcome):
    return {finding.id: finding.state for finding in outcome.findings if finding.state != "ok"}


@pytest.fixture(scope="module")
def instance():
    """A server with a faulty database, its clean twin, and one with a damaged page."""
    with running_cluster(SETTINGS) as cluster:
        ask(cluster, "postgres", f"CREATE ROLE monitor LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor")
        plant_damage(cluster, SETTINGS)
        write_hba(cluster, HBA)
        plant_faults(cluster)
        make_twin(cluster)
        yield cluster


@pytest.fixture
def state_dir(tmp_path):
    return str(tmp_path / "state")


# -- the clean twin --


def test_a_clean_database_on_a_sound_server_is_silent(instance, state_dir):
    """netpost-monthly-2: no warning, no critical, no unknown where nothing is wrong."""
    limits = {"unused_index_days": 0, "role_unused_days": 90}
    with session_of(instance, "monitor"):
        outcome = review(instance, CLEAN, state_dir=state_dir, limits=limits, recommended_settings={"fsync": True, "wal_level": "replica"})
    wrong = {name: by_id(outcome)[name].summary for name in bad(outcome)}
    # The damaged page of the third database is the server's, and of all that use it.
    assert set(wrong) == {"postgresql.checksum_failures", *(["postgresql.version"] if IS_OUTDATED else [])}
    assert len(outcome.findings) > 40
    assert not os.path.exists(state_dir)


@contextlib.contextmanager
def session_of(cluster, role, database="postgres"):
    with postgresql.connect({**cluster.server, "user": role, "password": PASSWORD}, database) as session:
        yield session


def test_select_1_is_asked_of_every_declared_database(instance):
    """neff-daily-03, flow-em-2: with a time limit, never asking for a password, never showing it."""
    found = [finding for finding in review(instance, CLEAN, FAULTY).findings if finding.id == "postgresql.reachable"]
    assert [(finding.subject, finding.state) for finding in found] == [("main", "ok"), ("main/clean", "ok"), (f"main/{FAULTY}", "ok")]
    server = {"user": "monitor", "password": "wrong-s3cret"}
    outcome = review(instance, CLEAN, servers=[{**instance.server, "name": "main", "databases": [CLEAN], **server}])
    reachable = by_id(outcome)["postgresql.reachable"]
    assert reachable.state == "critical"
    assert "Correct the password" in reachable.summary
    assert "s3cret" not in json.dumps(outcome.record())


@pytest.mark.parametrize("change", [{"port": 5999}, {"connect_database": "no such"}])
def test_without_a_session_everything_else_is_unknown(instance, change):
    outcome = review(instance, servers=[{**instance.server, "name": "main", "databases": [CLEAN], **change}])
    states = {finding.id: finding.state for finding in outcome.findings}
    assert states.pop("postgresql.reachable") == "critical"
    assert len(states) > 35
    assert set(states.values()) == {"unknown"}
    assert len(json.dumps(outcome.record())) < 65536


def test_a_missing_database_does_not_hide_the_others(instance):
    outcome = review(instance, CLEAN, "not here")
    assert by_id(outcome, "main/not here")["postgresql.reachable"].state == "critical"
    assert by_id(outcome, "main/not here")["postgresql.dead_rows"].state == "unknown"
    assert by_id(outcome, "main/clean")["postgresql.dead_rows"].state == "ok"
    assert by_id(outcome, "main")["postgresql.connections"].state == "ok"


# -- the faults of a database --


@pytest.fixture(scope="module")
def faulty(instance):
    """The review of the faulty database, after its statements ran."""
    run_statements(instance)
    return review(instance, FAULTY, limits=LOW)


@pytest.mark.parametrize(("name", "state", "says"), FOUND, ids=[name for name, _state, _says in FOUND])
def test_each_fault_of_a_database_is_found(faulty, name, state, says):
    """neff-perf-02: tables that are mostly read from end to end may want an index, whatever n_distinct and correlation say."""
    finding = by_id(faulty, f"main/{FAULTY}")[f"postgresql.{name}"]
    assert finding.state == state, finding
    text = "\n".join([finding.summary, *finding.evidence])
    assert [words for words in says if words not in text] == []
    assert finding.advice


ESTIMATES = ("dead_rows", "statistics", "vacuum_due", "bloat", "index_bloat", "foreign_key_indexes", "missing_indexes")


def test_an_estimate_says_how_old_its_statistics_are(instance):
    outcome = by_id(review(instance, CLEAN, limits=LOW), "main/clean")
    for name in ESTIMATES:
        finding = outcome[f"postgresql.{name}"]
        assert finding.basis == "estimated"
        assert 0 <= time.time() - datetime.fromisoformat(finding.as_of).timestamp() < 3600, name


def test_temporary_files_are_counted(faulty):
    found = by_id(faulty, f"main/{FAULTY}")["postgresql.temporary_files"]
    assert found.state == "warning"
    assert "temporary files" in found.summary


def test_one_record_is_small_and_valid(faulty):
    assert len(json.dumps(faulty.record())) < 65536
    ids = [(finding.id, finding.subject) for finding in faulty.findings]
    assert len(ids) == len(set(ids))
    assert all(finding.threshold or finding.state == "ok" or finding.unit in ("count", "", "bytes") for finding in faulty.findings)


def test_the_ten_statements_with_most_time_are_listed_without_literals(instance, faulty):
    """neff-weekly-01, netpost-db-02, flow-monthly-7: columns by the extension's version, a minimum of calls, no personal data."""
    lists = faulty.returned["servers"]["main"]["databases"][FAULTY]
    total, mean = lists["statements_by_total_time"], lists["statements_by_mean_time"]
    assert 0 < len(total) <= 10
    assert [row["total_ms"] for row in total] == sorted((row["total_ms"] for row in total), reverse=True)
    assert mean[0]["query"].startswith("SELECT pg_sleep(")
    assert mean[0]["calls"] == 6
    assert all(row["calls"] >= LOW["statement_min_calls"] for row in mean)
    everything = json.dumps([faulty.record(), faulty.returned])
    for literal in ("Anna", "Berta", "4711", "s3cret"):
        assert literal not in everything


def test_new_names_of_the_columns_are_used_too(instance):
    """neff-weekly-01: the clean database has the extension of the server's own version."""
    outcome = review(instance, CLEAN)
    assert by_id(outcome, "main/clean")["postgresql.slow_statements"].state == "ok"
    assert outcome.returned["servers"]["main"]["databases"][CLEAN]["statements_by_total_time"]


def test_one_slow_call_is_no_slow_statement(instance):
    """netpost-db-02: ordering by the mean lets single calls dominate."""
    ask(instance, CLEAN, "SELECT pg_sleep(0.3) AS once_only")
    assert by_id(review(instance, CLEAN), "main/clean")["postgresql.slow_statements"].state == "ok"
    limits = {"statement_min_calls": 1}
    assert by_id(review(instance, CLEAN, limits=limits), "main/clean")["postgresql.slow_statements"].state == "warning"


def test_the_worst_statements_since_the_last_run_are_listed(instance, state_dir):
    """asr-04-3, neff-perf-01, neff-kpi-03: of this database, the 20 with most time, without what the review itself asks."""
    given = {"state_dir": state_dir, "check_mode": False, "limits": {"statement_mean_ms": 0.000001}}

    def listed():
        outcome = review(instance, CLEAN, **given)
        found = by_id(outcome, "main/clean")["postgresql.slowest_statements"]
        return found, outcome.returned["servers"]["main"]["databases"][CLEAN]["slowest_statements"]

    ask(instance, CLEAN, "SELECT pg_sleep(0.01), 'before', 1, 1, 1, 1, 1")
    ask(instance, FAULTY, "SELECT pg_sleep(0.01), 'elsewhere', 1, 1, 1, 1, 1, 1, 1")
    first, rows = listed()
    assert "since 20" in first.summary or "since counting began" in first.summary
    assert any(row["query"].count("$") == 7 for row in rows)
    different = [f"SELECT pg_sleep(0.0{10 + number}), 'after'" + ", 1" * number for number in range(1, 26)]
    ask(instance, CLEAN, *different, different[-1])
    found, rows = listed()
    assert (found.state, len(found.evidence), len(rows)) == ("ok", 20, 20)
    assert "since the last run" in found.summary
    assert (rows[0]["calls"], rows[0]["query"].count("$")) == (2, 27)
    assert [row["total_ms"] for row in rows] == sorted((row["total_ms"] for row in rows), reverse=True)
    assert "after" not in str(found)
    again, rows = listed()
    own = [row["query"] for row in rows if "ops.maintenance" in row["query"] or "pg_stat_activity" in row["query"]]
    assert (again.state, own, [row for row in rows if "pg_sleep" in row["query"]]) == ("ok", [], [])


def test_statements_are_read_from_whichever_database_has_the_extension(instance):
    """neff-weekly-01: the counters are the server's; without the extension anywhere it is unknown, never ok."""
    outcome = review(instance, DAMAGED, CLEAN)
    assert by_id(outcome, f"main/{DAMAGED}")["postgresql.slow_statements"].state == "ok"
    alone = by_id(review(instance, DAMAGED), f"main/{DAMAGED}")["postgresql.slow_statements"]
    assert alone.state == "unknown"
    assert "pg_stat_statements" in alone.summary
    assert "CREATE EXTENSION" in alone.advice


def test_tables_are_listed_by_total_size_whatever_their_names(instance, faulty):
    """asr-06-2, neff-weekly-02, netpost-db-11: mixed case, quotes, reserved words; views are no tables; the size of all is recorded."""
    listed = faulty.returned["servers"]["main"]["databases"][FAULTY]["tables_by_size"]
    with postgresql.connect(instance.server, FAULTY) as session:
        statement = (
            "SELECT format('%I.%I', nspname, relname) AS name, pg_total_relation_size(c.oid) AS bytes FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname IN ('public', 'my schema') ORDER BY 2 DESC LIMIT 5"
        )
        expected = session.rows(statement)
        size = session.value("SELECT pg_database_size(current_database())")
    recorded = {metric.subject: metric.value for metric in faulty.metrics if metric.name == "postgresql.size"}
    assert recorded[f"main/{FAULTY}"] == pytest.approx(size, rel=0.1)
    assert [row["table"] for row in listed[:5]] == [row["name"] for row in expected]
    assert [row["total_bytes"] for row in listed[:5]] == pytest.approx([row["bytes"] for row in expected], rel=0.1)
    assert '"my schema"."order"' in [row["table"] for row in listed]


def test_index_usage_is_listed_most_used_first(instance):
    """neff-weekly-03, flow-monthly-5: from the statistics of indexes, not from pg_stats."""
    time.sleep(1.1)
    outcome = review(instance, CLEAN)
    usage = outcome.returned["servers"]["main"]["databases"][CLEAN]["index_usage"]
    assert usage[0]["scans"] >= 20
    assert [row["scans"] for row in usage] == sorted((row["scans"] for row in usage), reverse=True)
    used = {row["index"]: row for row in usage}
    assert {"rows_read", "rows_fetched", "table"} <= set(used["public.child_parent"])
    assert used["public.child_parent"]["scans"] >= 20


def test_unused_indexes_never_name_what_something_needs(faulty):
    """asr-06-1, neff-perf-03, flow-monthly-8: idx_scan = 0 also holds for keys and unique indexes that must stay."""
    found = by_id(faulty, f"main/{FAULTY}")["postgresql.unused_indexes"]
    named = {line.split(" on ")[0] for line in found.evidence}
    # Either of two equal indexes serves the foreign key; that one of them is superfluous is said by another finding.
    assert named == {'public."unused Index"', "public.code_twin", "public.restored_id"} - _used(faulty)
    assert found.as_of[:10] in found.summary
    assert "_pkey" not in str(found)
    assert "_key" not in str(found)


def _used(outcome):
    listed = outcome.returned["servers"]["main"]["databases"][FAULTY]["index_usage"]
    return {row["index"] for row in listed if row["scans"]}


def test_young_statistics_prove_no_index_unused(instance):
    """asr-06-1, flow-monthly-8: how long the counters have been counting decides."""
    found = by_id(review(instance, FAULTY), f"main/{FAULTY}")["postgresql.unused_indexes"]
    assert found.state == "unknown"
    assert "days only, expected 30" in found.summary


def test_a_crash_begins_the_period_of_unused_indexes_anew(state_dir):
    """asr-06-1, flow-monthly-8: it empties the counters, and from PostgreSQL 15 on the database's own time of reset stays empty."""

    def unused():
        outcome = review(cluster, "postgres", state_dir=state_dir, check_mode=False, limits={"unused_index_days": 0})
        with open(path, encoding="utf-8") as source:
            return by_id(outcome, "main/postgres")["postgresql.unused_indexes"], json.load(source)

    path = os.path.join(state_dir, "postgresql_review.json")
    with running_cluster(SETTINGS) as cluster:
        ask(cluster, "postgres", "CREATE TABLE t AS SELECT generate_series(1, 3000) AS a", "CREATE INDEX by_a ON t (a)", "ANALYZE t")
        ask(cluster, "postgres", *["SELECT * FROM t WHERE a = 5"] * 3)
        with postgresql.connect(cluster.server) as session:
            flush(session)
        found, kept = unused()
        assert found.state == "ok", found
        kept["main"]["databases"]["postgres"]["counting"] = {"reset": "", "since": time.time() - 40 * 86400}
        with open(path, "w", encoding="utf-8") as target:
            json.dump(kept, target)
        killed = time.time()
        kill_all(cluster.data)
        cluster.start({**AS_IN_PRODUCTION, **SETTINGS})
        found, kept = unused()
        assert "public.by_a on public.t" in str(found.evidence)
        if MAJOR >= 15:
            with postgresql.connect(cluster.server) as session:
                assert session.value("SELECT stats_reset FROM pg_stat_database WHERE datname = 'postgres'") is None
        assert kept["main"]["databases"]["postgres"]["counting"]["since"] > killed
        found = by_id(review(cluster, "postgres", state_dir=state_dir), "main/postgres")["postgresql.unused_indexes"]
        assert (found.state, "days only, expected 30" in found.summary) == ("unknown", True)


def test_a_replica_identity_is_never_unused(instance):
    ask(instance, CLEAN, "CREATE TABLE ident (a int NOT NULL PRIMARY KEY, b int NOT NULL)", "CREATE UNIQUE INDEX ident_b ON ident (b)")
    try:
        ask(instance, CLEAN, "ALTER TABLE ident REPLICA IDENTITY USING INDEX ident_b")
        found = by_id(review(instance, CLEAN, limits={"unused_index_days": 0}), "main/clean")["postgresql.unused_indexes"]
        assert "ident_b" not in str(found)
    finally:
        ask(instance, CLEAN, "DROP TABLE ident")


def test_bloat_is_measured_where_asked(instance, faulty):
    """asr-06-3, netpost-db-06: an estimate otherwise; nothing is rewritten, and the advice is the online form."""
    estimated = by_id(faulty, f"main/{FAULTY}")["postgresql.bloat"]
    assert estimated.basis == "estimated"
    limits = {**LOW, "index_bloat_percent": 30}
    outcome = by_id(review(instance, FAULTY, limits=limits, pgstattuple=True), f"main/{FAULTY}")
    measured, index = outcome["postgresql.bloat"], outcome["postgresql.index_bloat"]
    assert measured.basis == "sampled"
    assert abs(measured.value - estimated.value) < 15
    assert "(measured)" in str(measured.evidence)
    assert 'Bloat ed_pkey"' in str(index.evidence)
    assert index.state == "warning"
    assert "CONCURRENTLY" in index.advice
    absent = by_id(review(instance, CLEAN, limits=LOW, pgstattuple=True), "main/clean")["postgresql.bloat"]
    assert absent.state == "unknown"
    assert "pgstattuple is not in this database" in absent.summary


def test_counters_lost_in_a_crash_are_no_proof_of_health(instance):
    """asr-06-3: the server crashed after this table was written, so there are no dead rows to be seen."""
    found = by_id(review(instance, DAMAGED), f"main/{DAMAGED}")
    assert found["postgresql.dead_rows"].state == "unknown"
    assert "public.broken" in found["postgresql.dead_rows"].summary
    assert found["postgresql.statistics"].state == "warning"


@pytest.mark.parametrize(
    ("user", "says"), [("postgres", "statistics of unknown age, for their counters"), ("monitor", "for want of SELECT on them")]
)
def test_statistics_whose_age_was_lost_are_not_called_fresh(instance, user, says):
    """neff-weekly-04: they are there, so it was analysed once; when that was went with the counters."""
    ask(instance, CLEAN, "CREATE TABLE forgotten AS SELECT generate_series(1, 100) AS a", "VACUUM ANALYZE forgotten")
    try:
        ask(instance, CLEAN, "SELECT pg_stat_reset_single_table_counters('public.forgotten'::regclass)")
        server = {**instance.server, "name": "main", "databases": [CLEAN], "user": user, "password": PASSWORD}
        found = by_id(review(instance, servers=[server]), "main/clean")["postgresql.statistics"]
        assert (found.state, says in found.summary, "public.forgotten" in found.summary) == ("unknown", True, True), found
        ask(instance, CLEAN, "ANALYZE forgotten")
        assert by_id(review(instance, servers=[server]), "main/clean")["postgresql.statistics"].state == "ok"
    finally:
        ask(instance, CLEAN, "DROP TABLE forgotten")


@pytest.mark.parametrize("user", ["postgres", "monitor"])
def test_a_table_that_is_locked_is_not_waited_for(instance, user):
    """Who may see the files knows its size all the same."""
    server = {**instance.server, "name": "main", "databases": [FAULTY], "user": user, "password": PASSWORD}
    with postgresql.connect(instance.server, FAULTY) as holder:
        holder.execute('BEGIN; LOCK TABLE public."Bloat ed" IN ACCESS EXCLUSIVE MODE')
        begun = time.monotonic()
        outcome = review(instance, servers=[server])
        assert time.monotonic() - begun < 20
        found = by_id(outcome, f"main/{FAULTY}")["postgresql.size"]
        assert found.state == "ok"
        assert ('public."Bloat ed"' in found.not_covered) is (user == "monitor")
        assert outcome.returned["servers"]["main"]["databases"][FAULTY]["tables_by_size"][0]["table"] == 'public."Bloat ed"'
        holder.execute("ROLLBACK")


def sizes(cluster, user):
    server = {**cluster.server, "name": "main", "databases": [FAULTY], "user": user, "password": PASSWORD}
    listed = review(cluster, servers=[server]).returned["servers"]["main"]["databases"][FAULTY]["tables_by_size"]
    return [(row["table"], row["main_bytes"], row["index_bytes"]) for row in listed]


def test_sizes_do_not_depend_on_whether_the_files_may_be_seen(instance):
    seen = sizes(instance, "postgres")
    assert len(seen) == 10
    assert seen == sizes(instance, "monitor")


@pytest.mark.parametrize("user", ["postgres", "monitor"])
def test_lost_counters_make_no_index_and_no_toast_empty(instance, user):
    """asr-06-2, netpost-db-11: after a reset nothing says that there are rows, but the table's own file does."""
    ask(instance, FAULTY, "CREATE TABLE reset (id int PRIMARY KEY, big text)", "ALTER TABLE reset ALTER COLUMN big SET STORAGE EXTERNAL")
    ask(instance, FAULTY, "INSERT INTO reset SELECT n, CASE WHEN n < 90 THEN repeat('x', 20000) END FROM generate_series(1, 3000) n")
    try:
        with postgresql.connect(instance.server, FAULTY) as session:
            flush(session)
            reset = "SELECT pg_stat_reset_single_table_counters(unnest(ARRAY[oid, reltoastrelid])) FROM pg_class WHERE oid = %s::regclass"
            session.rows(reset, ["public.reset"])
            measured = "SELECT pg_total_relation_size(c) AS total, pg_indexes_size(c) AS indexes FROM (SELECT %s::regclass AS c) x"
            [expected] = session.rows(measured, ["public.reset"])
        server = {**instance.server, "name": "main", "databases": [FAULTY], "user": user, "password": PASSWORD}
        listed = review(instance, servers=[server]).returned["servers"]["main"]["databases"][FAULTY]["tables_by_size"]
        [row] = [row for row in listed if row["table"] == "public.reset"]
        assert (row["total_bytes"], row["index_bytes"]) == (expected["total"], expected["indexes"])
    finally:
        ask(instance, FAULTY, "DROP TABLE reset")


def test_a_table_of_several_files_has_the_size_of_all(instance):
    ask(instance, FAULTY, "CREATE TABLE huge AS SELECT 1 AS a", "CHECKPOINT")
    try:
        with postgresql.connect(instance.server, FAULTY) as session:
            path = os.path.join(instance.data, session.value("SELECT pg_relation_filepath('public.huge')"))
        os.truncate(path, 2**30)
        with open(f"{path}.1", "wb") as second:
            second.truncate(3 * 8192)
        os.chown(f"{path}.1", os.stat(path).st_uid, os.stat(path).st_gid)
        assert sizes(instance, "postgres")[0] == ("public.huge", 2**30 + 3 * 8192, 0)
    finally:
        ask(instance, FAULTY, "DROP TABLE huge")


def test_a_damaged_page_is_found(instance):
    outcome = review(instance, DAMAGED, CLEAN, amcheck=True)
    failures = by_id(outcome, "main")["postgresql.checksum_failures"]
    assert failures.state == "critical"
    assert DAMAGED in failures.summary
    checked = by_id(outcome, f"main/{DAMAGED}")["postgresql.amcheck"]
    if MAJOR >= 14:
        assert checked.state == "critical", checked
        assert "public.broken" in checked.summary
    without = by_id(outcome, "main/clean")["postgresql.amcheck"]
    assert without.state == "unknown"
    assert "amcheck is not in this database" in without.summary


def test_amcheck_passes_a_sound_database_and_an_old_one_does_not_call_it_damaged(instance):
    ask(instance, CLEAN, "CREATE EXTENSION amcheck VERSION '1.2'")
    try:
        old = by_id(review(instance, CLEAN, amcheck=True), "main/clean")["postgresql.amcheck"]
        assert old.state == "unknown", old
        assert "older than version 1.3" in old.summary
        assert "ALTER EXTENSION amcheck UPDATE" in old.advice
        ask(instance, CLEAN, "ALTER EXTENSION amcheck UPDATE")
        found = by_id(review(instance, CLEAN, amcheck=True), "main/clean")["postgresql.amcheck"]
        assert found.state == ("ok" if MAJOR >= 14 else "unknown"), found
    finally:
        ask(instance, CLEAN, "DROP EXTENSION amcheck")


def test_both_drivers_say_the_same(instance, monkeypatch):
    given = {"limits": LOW, "pgstattuple": True}
    first = review(instance, FAULTY, **given)
    monkeypatch.setattr(postgresql, "DRIVERS", ("psycopg",))
    second = review(instance, FAULTY, **given)
    assert [(finding.id, finding.state, finding.subject) for finding in first.findings] == [
        (finding.id, finding.state, finding.subject) for finding in second.findings
    ]


def test_without_a_driver_everything_is_unknown(instance, monkeypatch):
    arguments = options(instance, CLEAN)
    monkeypatch.setattr(postgresql, "DRIVERS", ("no_such_driver",))
    outcome = postgresql_review.run(arguments, True, Host())
    assert {finding.state for finding in outcome.findings} == {"unknown"}
    assert "install python3-psycopg2" in by_id(outcome)["postgresql.reachable"].summary


def test_what_was_found_is_told_even_if_it_cannot_be_kept(instance, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(MaintenanceError, match="could not be kept") as caught:
        review(instance, CLEAN, state_dir=str(tmp_path / "open"), check_mode=False)
    assert by_id(caught.value.outcome)["postgresql.reachable"].state == "ok"


# -- the faults of a server --


@pytest.fixture(scope="module")
def troubled(instance):
    """The review of the server while it is in trouble."""
    limits = {
        "connections_percent": 5,
        "idle_in_transaction_seconds": 0.2,
        "transaction_seconds": 0.2,
        "lock_wait_seconds": 0.2,
        "prepared_seconds": 0.2,
        "wraparound_percent": 0.00000001,
        "role_unused_days": 0,
    }
    settings = {"work_mem": ">=1GB", "fsync": True, "shared_buffers": "<=4TB", "no_such": 1}
    roles = {"privileged_roles": ["replica", "crew", "shift"], "roles_without_expiry": ["postgres", "monitor"]}
    with in_trouble(instance):
        return review(instance, CLEAN, limits=limits, recommended_settings=settings, newest_minor={str(MAJOR): f"{MAJOR}.99"}, **roles)


@pytest.mark.parametrize(("name", "state", "says"), OF_SERVER, ids=[name for name, _state, _says in OF_SERVER])
def test_each_fault_of_a_server_is_found(troubled, name, state, says):
    finding = by_id(troubled, "main")[f"postgresql.{name}"]
    assert finding.state == state, finding
    text = "\n".join([finding.summary, *finding.evidence, finding.not_covered])
    assert [words for words in says if words not in text] == []


def test_settings_that_cannot_be_compared_are_said(troubled):
    assert "no_such is not known" in by_id(troubled, "main")["postgresql.settings"].not_covered


def test_of_two_prepared_transactions_the_one_that_blocks_is_named(instance):
    """The server says only that it is one of them."""
    for gid, mode in (("innocent", "ROW EXCLUSIVE"), ("guilty", "SHARE UPDATE EXCLUSIVE")):
        ask(instance, CLEAN, f"BEGIN; LOCK TABLE public.parent IN {mode} MODE; PREPARE TRANSACTION '{gid}'")
    try:
        with postgresql.connect(instance.server, CLEAN, lock_timeout_seconds=30) as waiter:
            waiter.execute("BEGIN")
            thread = threading.Thread(target=waiter.execute, args=("LOCK TABLE public.parent IN SHARE UPDATE EXCLUSIVE MODE",))
            thread.start()
            with postgresql.connect(instance.server) as session:
                assert wait_for(lambda: session.value("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            found = by_id(review(instance, CLEAN, limits={"lock_wait_seconds": 0.000001}), "main")["postgresql.lock_waits"]
            ask(instance, CLEAN, "ROLLBACK PREPARED 'guilty'")
            thread.join(10)
        assert found.state == "warning"
        assert "held by prepared transaction guilty of postgres since 20" in found.summary
        assert "innocent" not in str(found)
    finally:
        ask(instance, CLEAN, "ROLLBACK PREPARED 'innocent'", "-- fails\nROLLBACK PREPARED 'guilty'")


def test_connections_are_client_backends_by_state(instance):
    """neff-daily-09, netpost-db-01, neff-mon-03: background processes do not count; a pooler has its own figures."""
    with session_of(instance, "monitor"), session_of(instance, "monitor") as second:
        second.execute("BEGIN")
        outcome = review(instance, CLEAN)
        found = by_id(outcome, "main")["postgresql.connections"]
    with postgresql.connect(instance.server) as session:
        assert session.value("SELECT count(*) FROM pg_stat_activity") > 4
    assert found.summary.startswith("3 of 57 connections (")
    assert "1 idle in transaction" in found.summary
    assert "1 idle" in found.summary
    assert "pooler" in found.not_covered
    metrics = {metric.name: metric.value for metric in outcome.metrics if metric.subject == "main"}
    assert metrics["postgresql.connections"] == 3
    assert metrics["postgresql.connections_idle_in_transaction"] == 1


def test_the_package_of_a_server_on_this_host_is_seen_over_tcp_too():
    """What decides is whether it runs here, not how it is reached."""
    with running_cluster({**SETTINGS, "listen_addresses": "'127.0.0.1'"}) as cluster:
        write_hba(cluster, f"{HBA}host all all 127.0.0.1/32 trust\n")
        server = {**cluster.server, "name": "main", "host": "localhost", "databases": ["postgres"]}
        found = by_id(review(cluster, servers=[server], newest_minor={}), "main")["postgresql.version"]
    assert found.state == ("critical" if IS_OUTDATED else "ok"), found
    assert "newer than the installed package" in found.not_covered


# -- privileges --


def test_pg_monitor_suffices_for_most_and_the_rest_says_what_is_wanting(instance):
    server = {**instance.server, "name": "main", "user": "monitor", "password": PASSWORD, "databases": [CLEAN]}
    limits = {"unused_index_days": 0, "bloat_min_bytes": 65536}
    found = by_id(review(instance, servers=[server], limits=limits))
    unknown = {name: finding for name, finding in found.items() if finding.state == "unknown"}
    assert set(unknown) == {
        "postgresql.hba",
        "postgresql.hba_loaded",
        "postgresql.password_encryption",
        "postgresql.sequences",
        "postgresql.bloat",
        "postgresql.index_bloat",
    }
    assert all("for want of" in finding.summary for finding in unknown.values())
    assert all(
        "GRANT" in finding.advice or "superuser" in finding.advice or "pgstattuple" in finding.advice for finding in unknown.values()
    )
    assert found["postgresql.connections"].state == "ok"


def test_a_role_without_pg_monitor_is_told_so(instance):
    ask(instance, "postgres", f"CREATE ROLE nobody_special LOGIN PASSWORD '{PASSWORD}'")
    try:
        server = {**instance.server, "name": "main", "user": "nobody_special", "password": PASSWORD, "databases": [CLEAN]}
        found = by_id(review(instance, servers=[server]))
        for name in ("connections", "idle_in_transaction", "lock_waits", "slow_statements"):
            assert found[f"postgresql.{name}"].state == "unknown", name
        assert "pg_monitor" in found["postgresql.connections"].summary
        assert found["postgresql.primary_keys"].state == "ok"
    finally:
        ask(instance, "postgres", "DROP ROLE nobody_special")


# -- between runs --


def test_a_file_that_was_changed_and_not_loaded_is_not_in_force(instance):
    """neff-quarterly-05: the view shows the file, and the server goes on by what it loaded."""
    path = os.path.join(instance.data, "pg_hba.conf")
    assert by_id(review(instance, CLEAN), "main")["postgresql.hba_loaded"].state == "ok"
    later = time.time() + 2
    os.utime(path, (later, later))
    assert "it was changed at" in by_id(review(instance, CLEAN), "main")["postgresql.hba_loaded"].summary
    os.utime(path, (later - 3600, later - 3600))
    assert by_id(review(instance, CLEAN), "main")["postgresql.hba_loaded"].state == "ok"


def test_new_statements_that_are_suspicious_are_found_and_ordinary_ones_listed(instance, state_dir):
    """netpost-sec-12: new statements, unusual users, changes of the schema, bulk access."""
    given = {"state_dir": state_dir, "watch_statements": True, "schema_roles": ["postgres"], "limits": {"bulk_rows": 1000}}
    assert "first sight of" in by_id(review(instance, CLEAN, check_mode=False, **given))["postgresql.suspicious_statements"].summary
    ask(instance, CLEAN, "CREATE ROLE app LOGIN", "GRANT SELECT ON parent TO app", "GRANT CREATE ON SCHEMA public TO app")
    ask(instance, CLEAN, "SELECT code AS fresh FROM parent WHERE id = 1")
    found = by_id(review(instance, CLEAN, **given))["postgresql.suspicious_statements"]
    assert (found.state, "new: postgres: SELECT code AS fresh" in "\n".join(found.evidence)) == ("ok", True)
    try:
        ask(instance, CLEAN, "SET ROLE app", "SELECT count(*) FROM parent", "SELECT * FROM parent", "CREATE TABLE loot (a int)")
        ask(instance, CLEAN, "SELECT count(*) FROM pg_authid WHERE rolpassword = 's3cret'")
        bad_ones = by_id(review(instance, CLEAN, check_mode=False, **given))["postgresql.suspicious_statements"]
        text = "\n".join(bad_ones.evidence)
        assert bad_ones.state == "warning"
        for words in ("app: SELECT count(*) FROM parent (the first", "3000 rows a call", "CREATE TABLE loot (a int) (", "pg_authid"):
            assert words in text
        assert "s3cret" not in text
        assert by_id(review(instance, CLEAN, **given))["postgresql.suspicious_statements"].state == "ok"
    finally:
        ask(instance, CLEAN, "DROP TABLE IF EXISTS loot", "DROP OWNED BY app", "DROP ROLE app")


def test_growth_errors_and_settings_are_compared_with_the_last_run(instance, state_dir):
    """neff-kpi-05, asr-06-4: failed transactions and growth since the last run, not since the server was made."""
    given = {"state_dir": state_dir, "limits": {"growth_min_bytes": 10000, "error_min_transactions": 20}}
    ask(instance, CLEAN, "CREATE TABLE growing (id int PRIMARY KEY)", "ANALYZE growing", *["-- fails\nSELECT 1/0"] * 50)
    try:
        time.sleep(1.1)
        first = by_id(review(instance, CLEAN, check_mode=False, **given))
        assert "there is no earlier run" in first["postgresql.size"].not_covered
        assert first["postgresql.error_share"].state == "warning"
        ask(instance, "postgres", "ALTER SYSTEM SET work_mem = '9MB'", "ALTER SYSTEM SET archive_command = 'cp --password=s3cret'")
        ask(instance, "postgres", "SELECT pg_reload_conf()")
        ask(instance, CLEAN, "INSERT INTO growing SELECT generate_series(1, 20000)", *["SELECT 1"] * 30)
        time.sleep(1.2)
        preview = bad(review(instance, CLEAN, **given))
        outcome = review(instance, CLEAN, check_mode=False, **given)
        second = by_id(outcome)
        assert preview == bad(outcome)  # check mode says the same, and keeps nothing
        assert second["postgresql.error_share"].state == "ok", second["postgresql.error_share"]
        assert second["postgresql.size"].state == "warning"
        assert "public.growing" in second["postgresql.size"].summary
        assert "work_mem: its default → 9216 x kB" in str(second["postgresql.settings_changed"].evidence)
        assert "archive_command changed" in str(second["postgresql.settings_changed"].evidence)
        with open(os.path.join(state_dir, "postgresql_review.json"), encoding="utf-8") as source:
            assert "s3cret" not in source.read() + json.dumps(outcome.record())
        third = by_id(review(instance, CLEAN, check_mode=False, **given))
        assert {name: third[name].state for name in ("postgresql.size", "postgresql.settings_changed")} == dict.fromkeys(
            ("postgresql.size", "postgresql.settings_changed"), "ok"
        ), third
    finally:
        ask(instance, CLEAN, "DROP TABLE growing")
        ask(instance, "postgres", "ALTER SYSTEM RESET work_mem", "ALTER SYSTEM RESET archive_command", "SELECT pg_reload_conf()")


# -- cost --


def counted(monkeypatch, cluster, database):
    seen = []
    original = postgresql.Session._run

    def run(self, statement, params):
        seen.append(statement)
        return original(self, statement, params)

    with monkeypatch.context() as patch:
        patch.setattr(postgresql.Session, "_run", run)
        outcome = review(cluster, database, limits={"foreign_key_min_rows": 0})
    return seen, outcome


def test_a_thousand_tables_take_as_many_statements_as_ten(instance, monkeypatch):
    make = "DO $$ BEGIN FOR i IN {}..{} LOOP EXECUTE format('CREATE TABLE t%s (a int)', i); END LOOP; END $$"
    with postgresql.connect(instance.server) as session:
        session.execute("CREATE DATABASE large")
    try:
        ask(instance, "large", make.format(1, 10), "CREATE TABLE keyed (id int PRIMARY KEY REFERENCES keyed)")
        few, outcome = counted(monkeypatch, instance, "large")
        assert by_id(outcome, "main/large")["postgresql.primary_keys"].value == 10
        ask(instance, "large", make.format(11, 1000))
        many, outcome = counted(monkeypatch, instance, "large")
        found = by_id(outcome, "main/large")["postgresql.primary_keys"]
        assert found.value == 1000
        assert len(found.evidence) == 11
        assert len(many) == len(few) < 60
        assert len(json.dumps(outcome.record())) < 65536
    finally:
        with postgresql.connect(instance.server) as session:
            session.execute("DROP DATABASE large WITH (FORCE)")


def test_the_server_itself_refuses_to_write(instance, monkeypatch):
    """The sessions are read-only, so nothing that is read here can change anything."""
    seen = []
    original = postgresql_review.connect
    monkeypatch.setattr(postgresql_review, "connect", lambda *args, **given: seen.append(given) or original(*args, **given))
    review(instance, CLEAN, FAULTY)
    assert [given["read_only"] for given in seen] == [True] * 3


# -- replicas --


def test_an_index_that_a_replica_uses_is_not_unused(instance, state_dir):
    """neff-perf-03: the counters of each server are its own."""
    ask(instance, CLEAN, "CREATE TABLE only_there (id int PRIMARY KEY, a int)", "CREATE INDEX there ON only_there (a)")
    ask(instance, CLEAN, "CREATE INDEX nowhere ON only_there (id, a)")
    ask(instance, CLEAN, "INSERT INTO only_there SELECT n, n FROM generate_series(1, 3000) n", "VACUUM ANALYZE only_there")
    limits = {"unused_index_days": 0}
    try:
        with standby_of(instance) as standby:
            for _ in range(100):
                with postgresql.connect(instance.server) as session:
                    if session.value("SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"):
                        break
                time.sleep(0.1)
            with postgresql.connect(standby.server, CLEAN) as session:
                for _ in range(3):
                    session.execute("SELECT * FROM public.only_there WHERE a = 5")
            time.sleep(1.2)
            alone = by_id(review(instance, CLEAN, limits=limits, state_dir=state_dir), "main/clean")["postgresql.unused_indexes"]
            assert alone.state == "unknown"
            assert "1 connected replicas were not looked at" in alone.summary
            servers = [{**instance.server, "name": "main", "databases": [CLEAN]}, {**standby.server, "name": "copy", "databases": [CLEAN]}]
            both = review(instance, servers=servers, limits=limits, state_dir=state_dir, check_mode=False)
            found = by_id(both, "main/clean")["postgresql.unused_indexes"]
            assert found.state == "warning"
            assert "public.nowhere" in str(found.evidence)
            assert "public.there" not in str(found.evidence)
            assert by_id(both, "main")["postgresql.replication_lag"].state == "ok"
            assert by_id(both, "copy")["postgresql.replication_lag"].state == "ok"
            assert "postgresql.dead_rows" not in by_id(both, "copy/clean")
            copy = review(instance, servers=servers[1:], limits=limits)
            assert by_id(copy, "copy/clean")["postgresql.dead_rows"].state == "unknown"
        time.sleep(0.5)
        away = by_id(review(instance, CLEAN, state_dir=state_dir), "main")["postgresql.replication_lag"]
        assert away.state == "critical"
        assert "replica_one at the socket is away" in away.summary
    finally:
        ask(instance, CLEAN, "DROP TABLE only_there")


# -- input, self-test, time --


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"limits": {"dead_rows": 3}}, "limits is 'dead_rows', expected one of the documented limits"),
        ({"limits": {"dead_rows_percent": "many"}}, "limits.dead_rows_percent is 'many', expected a number"),
        ({"limits": {"connections_percent": 96}}, "limits.connections_critical_percent is 95, expected connections_percent"),
        ({"newest_minor": {"17": 17.1}}, "quote it"),
        ({"newest_minor": {"17": "16.4"}}, "expected a minor release"),
        ({"amcheck_seconds": 0}, "amcheck_seconds is 0"),
    ],
)
def test_bad_input_is_one_clear_sentence(instance, given, says):
    with pytest.raises(InputError, match=says.replace(".", r"\.").replace("(", r"\(")):
        review(instance, CLEAN, **given)


def test_a_judge_that_passes_a_planted_sample_is_not_trusted(instance, monkeypatch):
    assert postgresql_review.self_test() == set()
    monkeypatch.setattr(postgresql_review.postgresql_review_tables, "percent", lambda *_of: 0.0)
    outcome = by_id(review(instance, CLEAN, self_test=True), "main/clean")
    assert outcome["postgresql.dead_rows"].state == "unknown"
    assert "self-test failed" in outcome["postgresql.dead_rows"].summary
    assert outcome["postgresql.primary_keys"].state == "ok"


def test_what_the_window_leaves_no_time_for_is_deferred(instance):
    outcome = review(instance, CLEAN, deadline=time.time() - 1)
    assert by_id(outcome, "main/clean")["postgresql.dead_rows"].state == "unknown"
    assert [(action.subject, action.status) for action in outcome.actions] == [("main/clean", "deferred")]
