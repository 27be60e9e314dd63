# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of upkeep in parallel, one session a thread: bounded in time, watched for who blocks them, ended when the window closes."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import typing as t
from dataclasses import dataclass, field

from .errors import MaintenanceError
from .postgresql import LOCK_NOT_AVAILABLE, QUERY_CANCELED, UNDEFINED_TABLE, Server, Session, StatementError, connect, major_version
from .postgresql_blockers import blockers_of, named
from .record import Json

APPLICATION = "ops.maintenance.upkeep"
"""What the sessions call themselves, so that those of a killed run are known."""

_TURN_SECONDS = 0.1
_PAUSES = (0.0, 0.3, 0.7)
_DEADLOCK = "40P01"
_GONE = (UNDEFINED_TABLE, "42704")

_READ_ONLY = "SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'"

Figures = t.Dict[str, Json]  # noqa: UP006 - evaluated when the module is loaded, on Python 3.9 too


@dataclass(frozen=True)
class Job:
    """One statement on one object.

    :param key: no two jobs with the same key run at once.
    :param seconds: how long it is going to take, as far as one can tell.
    :param measure: figures before and after.
    :param problem: why the statement had no effect, from the figures; empty when it had.
    :param settings: settings of the session while it runs.
    """

    subject: str
    operation: str
    statement: str
    reason: str
    key: int
    seconds: float
    measure: t.Callable[[Session], Figures]
    problem: t.Callable[[Session, Figures, Figures, str], str]
    settings: t.Mapping[str, str] = field(default_factory=dict)
    lock_timeout_seconds: float = 5.0
    note: t.Mapping[str, Json] = field(default_factory=dict)
    target: str = ""


@dataclass
class Done:
    """What became of a job: ``changed``, ``failed``, ``deferred``, ``skipped`` (gone meanwhile)."""

    job: Job
    status: str
    words: str = ""
    before: Figures = field(default_factory=dict)
    after: Figures = field(default_factory=dict)
    blockers: list[str] = field(default_factory=list)
    blocked: bool = False


@dataclass(frozen=True)
class Bounds:
    """How long anything may take.

    :param stop_at: when everything has to have stopped, in seconds since the epoch; 0 for never.
    """

    stop_at: float
    statement_timeout_seconds: float
    lock_attempts: int
    terminate_blockers: bool
    clock: t.Callable[[], float]

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.stop_at - self.clock() if self.stop_at else float("inf")

    def later(self, seconds: float) -> Bounds:
        """Return bounds with that much more time, for what tidies up after work that was stopped."""
        return dataclasses.replace(self, stop_at=self.stop_at + seconds if self.stop_at else 0.0)

    def over(self) -> bool:
        """Whether the window has closed."""
        return self.left() <= 0

    def statement_timeout(self) -> int:
        """Return the limit of one statement in milliseconds, never past the end of the window."""
        return max(1, int(min(self.statement_timeout_seconds, self.left() + 1) * 1000))


def open_worker(server: Server, database: str, **more: t.Any) -> Session:
    """Open a session that works; it ends by itself when this process dies (PostgreSQL 14 and newer)."""
    session = connect(server, database, application_name=APPLICATION, **more)
    with contextlib.suppress(StatementError):  # not every operating system can
        if major_version(session) >= 14:
            session.set("client_connection_check_interval", "1s")
    return session


def refuse_read_only(session: Session, what: str) -> None:
    """Leave alone what somebody has set to read only; VACUUM and REINDEX would not mind.

    :raises MaintenanceError: it is.
    """
    if session.value(_READ_ONLY) == "on":
        raise MaintenanceError(
            f"{what} is set to read only (default_transaction_read_only), so nothing is done to it; find out who set that and why."
        )


class Pool:
    """A few sessions with one database that do jobs; the calling thread watches them through a session of its own."""

    def __init__(self, control: Session, sessions: t.Sequence[Session], bounds: Bounds) -> None:
        self.terminated: list[str] = []
        self._control = control
        self._sessions = list(sessions)
        self._pids = {int(session.value("SELECT pg_backend_pid()")): session for session in sessions}
        self._bounds = bounds
        self._turn = threading.Condition()
        self._waiting: list[tuple[Job, int]] = []
        self._keys: set[int] = set()
        self._running: dict[int, Job] = {}
        self._blockers: dict[int, dict[int, str]] = {}
        self._since: dict[int, float] = {}
        self._done: list[Done] = []
        self._stopping = False

    def run(self, jobs: t.Sequence[Job], bounds: Bounds | None = None) -> list[Done]:
        """Do the jobs in their order, and return what became of each; nothing is left running."""
        self._bounds = bounds or self._bounds
        self._waiting = [(job, 1) for job in jobs]
        self._done = []
        self._stopping = False
        wanted = min(len(self._pids), len(jobs))
        threads = [threading.Thread(target=self._work, args=pair, daemon=True) for pair in list(self._pids.items())[:wanted]]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                self._watch()
                time.sleep(_TURN_SECONDS)
        except BaseException:
            self._stopping = True
            self._cancel()
            raise
        for job, _attempt in self._waiting:
            self._done.append(Done(job, "failed", "no session was left to do it; read the server's log, then run again"))
        return self._done

    # In the threads

    def _work(self, pid: int, session: Session) -> None:
        while True:
            taken = self._take(pid)
            if taken is None:
                return
            job, attempt = taken
            try:
                done, lost = self._do(session, job), False
            except StatementError as error:
                done, lost = self._failed(job, pid, error), not error.sqlstate
            except Exception as error:  # a thread that dies silently would hide its job
                done, lost = Done(job, "failed", f"unexpected {type(error).__name__}: {error}"), False
            with self._turn:
                self._running.pop(pid, None)
                self._keys.discard(job.key)
                if done.blocked and attempt < self._bounds.lock_attempts and not self._bounds.over():
                    self._waiting.append((job, attempt + 1))
                else:
                    self._done.append(done)
                if lost:
                    self._pids.pop(pid, None)
                self._turn.notify_all()
            if lost:
                return

    def _take(self, pid: int) -> tuple[Job, int] | None:
        with self._turn:
            while self._waiting:
                for place, (job, attempt) in enumerate(self._waiting):
                    if self._stopping or job.seconds > self._bounds.left():
                        self._done.append(Done(job, "deferred", "it would not end before the window closes"))
                        del self._waiting[place]
                        break
                    if job.key not in self._keys:
                        del self._waiting[place]
                        self._keys.add(job.key)
                        self._running[pid] = job
                        self._blockers[pid] = {}
                        self._since.pop(pid, None)
                        return job, attempt
                else:
                    self._turn.wait(_TURN_SECONDS)
            return None

    def _do(self, session: Session, job: Job) -> Done:
        session.set("statement_timeout", self._bounds.statement_timeout())
        session.set("lock_timeout", int(job.lock_timeout_seconds * 1000))
        for name, value in job.settings.items():
            session.set(name, value)
        started = str(session.value("SELECT clock_timestamp()::text"))
        before = job.measure(session)
        if not before:
            return Done(job, "skipped", "it is gone meanwhile")
        session.execute(job.statement)
        session.set("statement_timeout", 60_000)
        after, problem = self._effect(session, job, before, started)
        return Done(job, "failed" if problem else "changed", problem, before, after)

    def _effect(self, session: Session, job: Job, before: Figures, started: str) -> tuple[Figures, str]:
        """Measure again; counters of PostgreSQL 13 and 14 come a moment late."""
        for pause in _PAUSES:
            time.sleep(pause)
            after = job.measure(session)
            problem = job.problem(session, before, after, started)
            if not problem:
                break
        return after, problem

    def _failed(self, job: Job, pid: int, error: StatementError) -> Done:
        blockers = list(self._blockers.get(pid, {}).values())
        if error.sqlstate in (LOCK_NOT_AVAILABLE, _DEADLOCK):
            words = f"no lock within {job.lock_timeout_seconds:g} seconds: {named(blockers)}"
            return Done(job, "failed", words, blockers=blockers, blocked=True)
        if error.sqlstate == QUERY_CANCELED and (self._stopping or self._bounds.over()):
            return Done(job, "deferred", "it was stopped when the window closed")
        if error.sqlstate == QUERY_CANCELED:
            limit = f"{self._bounds.statement_timeout_seconds:g} seconds (statement_timeout_seconds)"
            words = f"it did not end within {limit}, or somebody cancelled it; raise the limit, or find out what holds it up"
            return Done(job, "failed", words)
        if error.sqlstate in _GONE:
            return Done(job, "skipped", "it is gone meanwhile")
        return Done(job, "failed", str(error))

    # In the calling thread

    def _watch(self) -> None:
        with contextlib.suppress(MaintenanceError):
            self._note_blockers()
            if self._bounds.over():
                self._stopping = True
                self._cancel()

    def _cancel(self) -> None:
        pids = list(self._running)
        if pids:
            self._control.rows("SELECT pg_cancel_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])

    def _note_blockers(self) -> None:
        pids = list(self._running)
        if not pids:
            return
        own = set(self._pids)
        for row in blockers_of(self._control, pids):
            waiting, blocker = row["waiting"], row["pid"]
            job = self._running.get(waiting)
            if job is None or blocker in own:
                continue
            self._blockers.setdefault(waiting, {})[blocker] = row["who"]
            since = self._since.setdefault(waiting, time.monotonic())
            patient = time.monotonic() - since < min(2.0, job.lock_timeout_seconds / 2)
            if patient or not row["client"] or not self._bounds.terminate_blockers:
                continue
            if self._control.value("SELECT pg_terminate_backend(%s)", [blocker]):
                self.terminated.append(row["who"])


_ORPHANS = """
SELECT pid FROM pg_stat_activity
WHERE application_name = %s AND usename = current_user AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def end_orphans(control: Session, seconds: float = 10.0, patience: float = 1.0) -> int:
    """End what the sessions of a killed run still do; only for who holds the run's lock, for then nobody else works.

    :param patience: how long a session may take to leave by itself: the server needs a moment to see that its client has gone.
    """
    orphans = _orphans(control, patience)
    if orphans:
        control.rows("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [orphans])
        _orphans(control, seconds)
    return len(orphans)


def _orphans(control: Session, seconds: float) -> list[int]:
    """Wait for the sessions of a killed run to end; return those that did not."""
    until = time.monotonic() + seconds
    while True:
        found = [row["pid"] for row in control.rows(_ORPHANS, [APPLICATION])]
        if not found or time.monotonic() >= until:
            return found
        time.sleep(_TURN_SECONDS)
