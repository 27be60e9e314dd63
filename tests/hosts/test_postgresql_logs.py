"""The log of a real server, in each of its forms: what was provoked is found, and a quiet server stays silent."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest
from clusters import MAJOR, running_cluster

from ansible_collections.ops.maintenance.plugins.module_utils import log_analysis, postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

FORMS = {"text": ".log", "csv": ".csv", "json": ".json"}
SETTINGS = {
    "logging_collector": "on",
    "log_directory": "'log'",
    "log_filename": "'server.log'",
    "log_destination": "'stderr,csvlog,jsonlog'" if MAJOR >= 15 else "'stderr,csvlog'",
    "log_line_prefix": "'%m [%p] %q%u@%d '",
    "log_temp_files": "0",
    "log_checkpoints": "on",
    "checkpoint_warning": "'1h'",
    "deadlock_timeout": "'100ms'",
    "max_wal_size": "'32MB'",
}
ONES = "INSERT INTO public.t SELECT 1 FROM generate_series(1, 100)"


def read(cluster, form, **limits):
    """Analyse the log in one form."""
    source = {name: option.get("default") for name, option in log_analysis.OPTIONS["sources"]["options"].items()}
    source.update(name="database", format="postgresql", paths=[os.path.join(cluster.data, "log", f"server{FORMS[form]}")])
    params = {name: option.get("default") for name, option in log_analysis.OPTIONS.items()}
    params.update(sources=[source], state_dir=os.path.join(cluster.folder, "no_state"), deadline=0.0, self_test=True, run_id="", **limits)
    return {finding.id: finding for finding in log_analysis.run(params, True, Host()).findings}


def deadlock(cluster):
    """Have two sessions wait for each other, until the server ends one of them."""
    with postgresql.connect(cluster.server) as first, postgresql.connect(cluster.server) as second:
        for session, number in ((first, 1), (second, 2)):
            session.execute("BEGIN")
            session.execute(f"SELECT pg_advisory_xact_lock({number})")

        def cross():
            with contextlib.suppress(postgresql.StatementError):
                second.execute("SELECT pg_advisory_xact_lock(1)")
            second.execute("ROLLBACK")

        other = threading.Thread(target=cross)
        other.start()
        with contextlib.suppress(postgresql.StatementError):
            first.execute("SELECT pg_advisory_xact_lock(2)")
        first.execute("ROLLBACK")
        other.join()


def early_checkpoints(cluster, session):
    """Fill segments of the write-ahead log until their number forces checkpoints twice in a row."""
    log = os.path.join(cluster.data, "log", "server.log")
    for _segment in range(200):
        session.execute(ONES)
        session.value("SELECT pg_switch_wal()::text")
        with open(log, encoding="utf-8") as source:
            if "checkpoints are occurring too frequently" in source.read():
                return
        time.sleep(0.05)
    raise AssertionError("the server forced no checkpoint")


@pytest.fixture(scope="module")
def troubled():
    """A server with a deadlock, temporary files, early checkpoints and an error behind it."""
    with running_cluster(SETTINGS) as cluster:
        with postgresql.connect(cluster.server) as session:
            session.execute("CREATE TABLE public.t (a int)")
            session.set("work_mem", "64kB")
            session.value("SELECT count(*) FROM (SELECT n FROM generate_series(1, 200000) n ORDER BY md5(n::text)) s")
            with contextlib.suppress(postgresql.StatementError):
                session.execute("SELECT 's3cret' FROM public.missing")
            early_checkpoints(cluster, session)
            session.execute("CHECKPOINT")
        deadlock(cluster)
        yield cluster


@pytest.fixture(scope="module")
def quiet():
    with running_cluster({**SETTINGS, "max_wal_size": "'1GB'"}) as cluster:
        with postgresql.connect(cluster.server) as session:
            session.execute("CHECKPOINT")
        yield cluster


@pytest.mark.parametrize("form", [form for form in FORMS if form != "json" or MAJOR >= 15])
def test_errors_deadlocks_checkpoints_and_temporary_files_are_found(troubled, form):
    """netpost-db-04: each by its own finding, with the sizes of the files."""
    found = read(troubled, form, error_limit=0, temporary_daily_bytes=1_000_000)
    assert found["logs.unparsed"].value == 0
    assert (found["logs.deadlocks"].state, found["logs.deadlocks"].value) == ("warning", 1)
    assert (found["logs.checkpoints"].state, found["logs.checkpoints"].not_covered) == ("warning", "")
    assert "too frequently" in found["logs.checkpoints"].evidence[0]
    files = found["logs.temporary_files"]
    assert files.state == "warning"
    assert "2 temporary files" in files.summary
    assert files.value == pytest.approx(11.5e6, rel=0.3)
    assert found["logs.errors"].state == "warning"
    assert 'relation "public.missing" does not exist' in str(found["logs.errors"].evidence)
    assert read(troubled, form, temporary_daily_bytes=10**9)["logs.temporary_files"].state == "ok"


@pytest.mark.parametrize("form", ["text", "csv"])
def test_the_log_of_a_quiet_server_is_silent(quiet, form):
    found = read(quiet, form)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert "log_temp_files is off" in found["logs.temporary_files"].not_covered
    assert found["logs.checkpoints"].not_covered == ""
