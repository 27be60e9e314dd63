"""Faults that strike PostgreSQL or our own process in the middle of work, and a gate that holds the work there meanwhile."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import tempfile

from clusters import AS_IN_PRODUCTION
from upkeep_runs import wait_for

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql

FAULTS = ("client", "backend", "server", "stop", "cut")
"""SIGKILL of our process, of the server's process, of every process of the server; immediate stop; a connection that is cut."""

_FUNCTION = """
CREATE FUNCTION public.gate(a int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  WHILE (pg_stat_file('{path}', true)).size IS NOT NULL LOOP PERFORM pg_sleep(0.02); END LOOP;
  RETURN true;
END $$
"""


class Gate:
    """What calls ``public.gate`` (a check, a condition of an index, a trigger) waits while this is shut, in whatever cluster it is."""

    def __init__(self):
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="gate", dir="/tmp"))
        self._folder.chmod(0o755)
        self._file = self._folder / "shut"

    def build(self, session):
        session.execute(_FUNCTION.format(path=self._file))

    def shut(self):
        self._file.touch()

    def open(self):
        self._file.unlink(missing_ok=True)

    def remove(self):
        shutil.rmtree(self._folder)


@contextlib.contextmanager
def a_gate():
    gate = Gate()
    try:
        yield gate
    finally:
        gate.remove()


WAITING_AT_THE_GATE = "wait_event = 'PgSleep'"


def pids(session, condition):
    """Return the server's processes of other sessions that a condition on pg_stat_activity names."""
    return [row["pid"] for row in session.rows(f"SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {condition}")]


def reached(cluster):
    """Open a session with a server that may be starting."""
    opened = []

    def connect():
        with contextlib.suppress(postgresql.NotReachableError, postgresql.StatementError):
            opened.append(postgresql.connect(cluster.server))
        return opened

    assert wait_for(connect), cluster.server
    return opened[0]


def seen(cluster, condition, child):
    """Wait until there are such processes, or the child has ended; return them."""
    with reached(cluster) as session:
        return wait_for(lambda: pids(session, condition) or child.poll() is not None) and pids(session, condition)


def kill_all(data):
    """Kill every process of a server at once, as the end of its machine does."""
    postmaster = int(pathlib.Path(data, "postmaster.pid").read_text().split()[0])
    children = pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not any(alive(pid) for pid in (postmaster, *map(int, children))))


def alive(pid):
    with contextlib.suppress(OSError, IndexError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def strike(cluster, how, child, whom):
    """Strike our own process, the server's processes of the sessions named, or the whole server."""
    if how == "client":
        child.kill()
    elif how == "backend":
        os.kill(whom[0], signal.SIGKILL)
    elif how == "server":
        kill_all(cluster.data)
    elif how == "stop":
        cluster.stop()
    else:
        with postgresql.connect(cluster.server) as session:
            assert session.rows("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [whom])


def up_again(cluster, how):
    """Start the server where the fault ended it, and return a session; after the end of a process it starts anew by itself."""
    if how in ("server", "stop"):
        cluster.start(AS_IN_PRODUCTION)
    return reached(cluster)
