# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who blocks whom: looked at while somebody waits for a lock, for afterwards it cannot be told."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from .errors import MaintenanceError
from .postgresql import LOCK_NOT_AVAILABLE, Row, Server, Session, StatementError, connect

APPLICATION = "ops.maintenance.watch"
ADVICE = "end it or wait for it, then run again"

_TURN_SECONDS = 0.2

_BLOCKERS = """
SELECT w.pid AS waiting, p.pid, coalesce(b.backend_type = 'client backend', false) AS client,
  CASE WHEN p.pid = 0 THEN 'prepared transaction ' || coalesce((SELECT gid || ' of ' || owner || ' since '
         || date_trunc('second', prepared)::text FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 1), '')
       ELSE format('pid %%s of user %%s, application %%s, %%s, since %%s', p.pid, coalesce(b.usename, '?'),
         coalesce(nullif(b.application_name, ''), b.backend_type, '?'), coalesce(b.state, 'gone'),
         date_trunc('second', coalesce(b.xact_start, b.backend_start))) END AS who
FROM pg_stat_activity w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS p(pid) LEFT JOIN pg_stat_activity b ON b.pid = p.pid
WHERE w.pid = ANY(%s::int[]) AND w.wait_event_type = 'Lock'
"""

_OF_APPLICATION = """
SELECT pid FROM pg_stat_activity
WHERE application_name = %s AND datname = current_database() AND usename = current_user AND backend_start >= %s::timestamptz
"""


def blockers_of(session: Session, pids: t.Sequence[int]) -> list[Row]:
    """Return who keeps sessions waiting for a lock: ``waiting`` and ``pid``, whether it is a ``client``, and ``who`` in words."""
    return session.rows(_BLOCKERS, [list(pids)])


def named(who: t.Iterable[str]) -> str:
    """Name blockers in a sentence; one that was gone too soon is said to be."""
    return f"blocked by {'; '.join(who) or 'somebody who was gone before it could be seen'}"


class Watch:
    """Looks in a thread of its own, as long as it is entered, who keeps others waiting.

    :param eyes: a session that nobody else uses meanwhile.
    :param waiting: the sessions that may have to wait, asked anew each time.
    """

    def __init__(self, eyes: Session, waiting: t.Callable[[], t.Sequence[int]]) -> None:
        self._eyes = eyes
        self._waiting = waiting
        self._over = threading.Event()
        self._seen: dict[int, str] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_of: t.Any) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_TURN_SECONDS):
            with contextlib.suppress(MaintenanceError):
                self._seen.update({row["pid"]: row["who"] for row in blockers_of(self._eyes, self._waiting())})

    def words(self) -> str:
        """Name those that were seen."""
        return named(self._seen.values())


@contextlib.contextmanager
def told(server: Server, database: str, session: Session) -> t.Iterator[None]:
    """Let the error of a statement of a session that got no lock in time name who held it.

    :raises StatementError: what the session raised, in those words where it waited in vain.
    """
    pid = int(session.value("SELECT pg_backend_pid()"))
    with connect(server, database, read_only=True, application_name=APPLICATION) as eyes, Watch(eyes, lambda: [pid]) as watch:
        try:
            yield
        except StatementError as error:
            if error.sqlstate != LOCK_NOT_AVAILABLE:
                raise
            words = f"{session.where} gave no lock in time: {watch.words()}; {ADVICE}."
            raise StatementError(error.sqlstate, words) from error


@contextlib.contextmanager
def watched(server: Server, database: str, application: str) -> t.Iterator[Watch]:
    """Look meanwhile who keeps a program waiting that goes by that name and connects to that database from now on."""
    with connect(server, database, read_only=True, application_name=APPLICATION) as eyes:
        since = str(eyes.value("SELECT clock_timestamp()::text"))

        def pids() -> list[int]:
            return [row["pid"] for row in eyes.rows(_OF_APPLICATION, [application, since])]

        with Watch(eyes, pids) as watch:
            yield watch
