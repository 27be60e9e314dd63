"""Faults in the middle of each statement of upkeep and of a restore drill: nothing is lost or left over, the next run does what was due."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from clusters import MAJOR, running_cluster
from dumps import clear, dump, fill
from faults import FAULTS, WAITING_AT_THE_GATE, a_gate, pids, seen, strike, up_again
from upkeep_runs import begin_upkeep, done, finding, flush, holding, invalid_indexes, kill_rows, node, options_for, settle, table, wait_for

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_upkeep_work import APPLICATION, end_orphans


@pytest.fixture(scope="module")
def victim():
    with running_cluster() as running:
        yield running


@pytest.fixture
def gate():
    with a_gate() as made:
        yield made


@dataclass
class Case:
    """A statement of upkeep that is due, and how it is held in its middle.

    :param waiting: a condition on pg_stat_activity that tells that it is there.
    :param options: of every run.
    :param slow: of the run that is struck.
    :param done: what the next run has to have done.
    """

    statement: str
    done: tuple
    waiting: str = WAITING_AT_THE_GATE
    options: dict = field(default_factory=dict)
    slow: dict = field(default_factory=dict)


INDEX = {"database": "postgres", "table": "public.t", "name": "by_n", "columns": ["n"], "where": "public.gate(id)"}
CASES = {
    # It calls no function, but rests between pages where it is told to.
    "vacuum": Case(
        "VACUUM", ("vacuum", "public.t"), "wait_event IN ('VacuumDelay', 'PgSleep')",
        slow={"vacuum_cost_delay_ms": 100.0, "vacuum_cost_limit": 1},
    ),
    "vacuum_full": Case(
        "VACUUM (FULL)", ("vacuum_full", "public.t"),
        options={"tables": [{"database": "postgres", "table": "public.t", "vacuum_full": True}], "maintenance_mode": True, "reindex": "never"},
    ),
    "analyze": Case("ANALYZE", ("analyze", "public.t")),
    "create_index": Case("CREATE INDEX CONCURRENTLY", ("reindex", "public.by_n"), options={"indexes": [INDEX]}),
    "update_extension": Case(
        "ALTER EXTENSION", ("update_extension", "pg_stat_statements"), "wait_event_type = 'Lock'",
        options={"extensions_to_update": ["pg_stat_statements"]},
    ),
}  # fmt: skip


def prepare(session, name, gate):
    """Make that statement due, and nothing before it."""
    session.execute("DROP TABLE IF EXISTS public.t")
    session.execute("DROP FUNCTION IF EXISTS public.gate")
    session.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
    session.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    gate.build(session)
    table(session)
    if name != "analyze":
        settle(session)
    if name == "vacuum":
        kill_rows(session)
    elif name == "vacuum_full":
        session.execute("DELETE FROM public.t WHERE id % 10 <> 0")
        settle(session)
    elif name == "update_extension":
        session.execute("CREATE EXTENSION pg_stat_statements SCHEMA public VERSION '1.7'")
    if name in ("vacuum_full", "analyze"):
        session.execute("CREATE INDEX gated ON public.t (n) WHERE public.gate(id)")
    if name == "analyze":
        session.execute("VACUUM public.t")
    flush(session)


def content(session):
    return session.value("SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM public.t")


def params(case, victim, tmp_path, **more):
    server = {**victim.server, "name": "main", "databases": ["postgres"]}
    waits = {"concurrent_wait_seconds": 30.0, "lock_timeout_seconds": 30.0}
    return options_for(server, state_dir=str(tmp_path / "state"), **{**waits, **case.options, **more})


@contextlib.contextmanager
def held(victim, name, gate):
    """Hold the statement in its middle."""
    gate.shut()
    with contextlib.ExitStack() as stack:
        if name == "update_extension":  # whose script drops this view
            stack.enter_context(holding(victim, "postgres", "SELECT count(*) FROM public.pg_stat_statements"))
        yield
    gate.open()


@pytest.mark.parametrize("how", FAULTS)
@pytest.mark.parametrize("name", CASES)
def test_struck_in_the_middle_nothing_is_lost_and_the_next_run_completes_it(victim, gate, tmp_path, name, how):
    """flow-monthly-3, flow-monthly-6, neff-monthly-05, neff-perf-04: in VACUUM, VACUUM FULL, ANALYZE, a build, an update of an extension."""
    case = CASES[name]
    with postgresql.connect(victim.server) as session:
        prepare(session, name, gate)
        before = content(session)
    with held(victim, name, gate):
        child = begin_upkeep(params(case, victim, tmp_path, **case.slow))
        at_work = f"application_name = '{APPLICATION}' AND query LIKE '{case.statement}%' AND {case.waiting}"
        assert seen(victim, at_work, child), child.communicate()
        with postgresql.connect(victim.server) as session:
            workers = pids(session, f"application_name = '{APPLICATION}'")
        strike(victim, how, child, workers)
        said, errors = child.communicate(timeout=60)
        session = up_again(victim, how)
        if how == "client":
            if MAJOR < 14:
                end_orphans(session)
            assert wait_for(lambda: not pids(session, f"application_name = '{APPLICATION}'")), "it goes on for nobody"
        else:
            status, _operations, failures = json.loads(said)
            assert status == "failed", errors
            assert any("was lost" in words and words.count("\n") == 0 for words in failures), failures
    with session:
        assert content(session) == before
        outcome = postgresql_upkeep.run(params(case, victim, tmp_path), False, Host())
        assert outcome.status == "changed", outcome.summary
        assert case.done in done(outcome), outcome.actions
        assert (content(session), invalid_indexes(session)) == (before, [])
        flush(session)
    assert done(postgresql_upkeep.run(params(case, victim, tmp_path), False, Host())) == []


@pytest.mark.parametrize("name", ["vacuum_full", "create_index"])
def test_what_takes_too_long_is_stopped_said_and_done_by_a_run_with_more_time(victim, gate, tmp_path, name):
    """netpost-db-08: statement_timeout ends it, and nothing of it is half done."""
    case = CASES[name]
    with postgresql.connect(victim.server) as session:
        prepare(session, name, gate)
        before, file = content(session), node(session, "public.t")
        with held(victim, name, gate):
            given = params(case, victim, tmp_path, statement_timeout_seconds=1.0, **case.slow)
            outcome = postgresql_upkeep.run(given, False, Host())
        operation = name, case.done[1]
        assert (outcome.status, operation in done(outcome, "failed")) == ("failed", True), outcome.actions
        words = next(f for f in finding(outcome, "upkeep.failed", "critical") if f.summary.startswith(f"{name}: ")).summary
        assert "did not end within 1 seconds (statement_timeout_seconds)" in words
        assert (content(session), node(session, "public.t")) == (before, file)
        outcome = postgresql_upkeep.run(params(case, victim, tmp_path), False, Host())
        assert (outcome.status, case.done in done(outcome)) == ("changed", True), outcome.actions
        assert (content(session), invalid_indexes(session)) == (before, [])


# -- the drill of a backup, in a throw-away cluster and on a declared server --

VERIFY = """
import json, sys
from dumps import the_set, verify
outcome = verify(sys.argv[1], the_set(sys.argv[1] + "/backups", **json.loads(sys.argv[2])), servers=json.loads(sys.argv[3]))
print(json.dumps([outcome.returned["proofs"]["db"]["level"], [[f.id, f.state, f.summary] for f in outcome.findings]]), flush=True)
"""
DRILLS = [("throw-away", "client"), ("throw-away", "server"), ("main", "backend"), ("main", "cut")]


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as made:
        os.chmod(made, 0o755)
        clear(f"{made}/backups")
        yield made


def drill(folder, place, victim):
    """Begin a drill in a process of its own."""
    more = {} if place == "throw-away" else {"restore_into": "main"}
    argv = [sys.executable, "-c", VERIFY, folder, json.dumps(more), json.dumps([{**victim.server, "name": "main"}])]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def where_it_restores(folder, place, victim, child):
    """Return the cluster into which the drill restores, as soon as there is one."""
    if place == "main":
        return victim
    sockets = f"{folder}/scratch/*/socket/.s.PGSQL.5432"
    assert wait_for(lambda: glob.glob(sockets) or child.poll() is not None), "no cluster came about"
    home = os.path.dirname(os.path.dirname(glob.glob(sockets)[0]))
    return SimpleNamespace(data=f"{home}/data", server={**victim.server, "host": f"{home}/socket"})


@pytest.mark.parametrize(("place", "how"), DRILLS)
def test_struck_in_the_middle_of_a_drill_it_proves_nothing_and_the_next_one_does(victim, gate, folder, place, how):
    """neff-quarterly-11: unknown and no fault of the backup; what was restored is gone, the source as it was."""
    with postgresql.connect(victim.server) as session:
        session.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        session.execute("CREATE DATABASE shop")
    fill(victim, "shop")
    with postgresql.connect(victim.server, "shop") as session:
        gate.build(session)
        session.execute("CREATE TABLE public.waiting (a int CHECK (public.gate(a)))")
        session.execute("INSERT INTO public.waiting VALUES (1)")
    dump(victim, "shop", f"{folder}/backups/a.dump")
    gate.shut()
    child = drill(folder, place, victim)
    cluster = where_it_restores(folder, place, victim, child)
    whom = seen(cluster, WAITING_AT_THE_GATE, child)
    assert whom, child.communicate()
    strike(cluster, how, child, whom)
    said, errors = child.communicate(timeout=60)
    if how != "client":
        level, findings = json.loads(said)
        restored = next((state, words) for name, state, words in findings if name == "backup.restore")
        assert (level, restored[0], "\n" in restored[1]) == (2, "unknown", False), (said, errors)
    with up_again(victim, how if place == "main" else "") as session:
        assert session.value("SELECT 1") == 1
    gate.open()
    with drill(folder, place, victim) as again:
        assert json.loads(again.communicate(timeout=120)[0])[0] == 5
    with postgresql.connect(victim.server, "shop") as session:
        assert session.value("SELECT count(*) FROM public.orders") == 300
        assert not session.rows("SELECT 1 FROM pg_database WHERE datname ~ '^ops_restore'")
    assert not glob.glob(f"{folder}/scratch/*")
