"""What the tests of the upkeep of PostgreSQL share: options, tables in need of it, others at work, what became of it."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
import time

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_upkeep


def defaults(options):
    return {name: copy.deepcopy(spec.get("default")) for name, spec in options.items()}


def options_for(server, **changes):
    """The module's parameters as AnsibleModule would hand them over; small limits, so that small tables count."""
    options = {
        **defaults(postgresql_upkeep.OPTIONS),
        "run_id": "",
        "deadline": 0.0,
        "state_dir": changes.pop("state_dir"),
        "self_test": False,
    }
    for name in ("tables", "indexes"):
        spec = postgresql_upkeep.OPTIONS[name]["options"]
        changes[name] = [{**defaults(spec), **entry} for entry in changes.get(name, [])]
    small = {
        "reindex_bloat_bytes": 100_000,
        "reserve_bytes": 0,
        "lock_timeout_seconds": 1.0,
        "concurrent_wait_seconds": 1.0,
        "lock_attempts": 1,
    }
    return {**options, **small, "servers": [server], **changes}


def done(outcome, *statuses):
    """What was done: operation and the object's name, as pairs."""
    wanted = statuses or ("changed", "due")
    return sorted((a.operation, a.subject.partition(": ")[2]) for a in outcome.actions if a.status in wanted)


def finding(outcome, name, state=None):
    return [f for f in outcome.findings if f.id == name and state in (None, f.state)]


def table(session, name="public.t", rows=5000):
    session.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, label text, n int)")
    session.execute(f"INSERT INTO {name} SELECT g, 'label ' || g, g % 7 FROM generate_series(1, {rows}) g")
    flush(session)


def flush(session):
    """Have the session's counters counted at once; before PostgreSQL 15 a process collects them twice a second and shows them as late."""
    if postgresql.major_version(session) >= 15:
        session.rows("SELECT pg_stat_force_next_flush()")
        session.rows("SELECT 1")
        return
    for _sent_then_shown in range(2):
        time.sleep(0.6)
        session.rows("SELECT 1")


def settle(session, name="public.t"):
    flush(session)
    session.execute(f"VACUUM (ANALYZE) {name}")
    flush(session)


def kill_rows(session, name="public.t", every=2):
    session.execute(f"DELETE FROM {name} WHERE id % {every} = 0")
    flush(session)


def bloat_index(session, name="public.t"):
    table(session, name, rows=30000)
    session.execute(f"DELETE FROM {name} WHERE id % 10 <> 0")
    flush(session)
    settle(session, name)


def invalid_indexes(session):
    return [
        row["n"]
        for row in session.rows("SELECT relname AS n FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE NOT indisvalid ORDER BY 1")
    ]


def node(session, name):
    """The file of a table or index: another one after it was written anew."""
    return session.value("SELECT relfilenode FROM pg_class WHERE oid = %s::regclass", [name])


@contextlib.contextmanager
def holding(cluster, database, statement, application="payroll"):
    """Another application in the middle of a transaction."""
    with postgresql.connect(cluster.server, database, application_name=application) as holder:
        holder.execute("SET idle_in_transaction_session_timeout = 0")
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute(statement)
        yield holder


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.001)
    return condition()


def workers(session):
    return session.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ops.maintenance.upkeep'")


CODE = """
import json, sys
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
outcome = postgresql_upkeep.run(json.loads(sys.argv[1]), False, Host())
changed = [action.operation for action in outcome.actions if action.status == "changed"]
print(json.dumps([outcome.status, changed, outcome.returned["failures"]]), flush=True)
"""


def begin_upkeep(options):
    """Begin an upkeep in a process of its own, which writes its status, what it did and what failed."""
    return subprocess.Popen([sys.executable, "-c", CODE, json.dumps(options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def work_under_load(session, cluster, database, folder):
    """Have every online form of upkeep due on the tables of pgbench; return the options of an upkeep that does it."""
    session.execute("CREATE EXTENSION pgstattuple")
    session.execute("UPDATE public.pgbench_accounts SET filler = 'x' WHERE aid % 2 = 0")
    session.execute("DELETE FROM public.pgbench_history")
    flush(session)
    index = {"database": database, "table": "public.pgbench_accounts", "name": "by_balance", "columns": ["abalance", "bid"]}
    limits = {"vacuum_dead_percent": 1.0, "reindex_bloat_percent": 5.0, "concurrent_wait_seconds": 30.0}
    server = {**cluster.server, "databases": [database]}
    return options_for(server, state_dir=str(folder / "state"), indexes=[index], **limits)
