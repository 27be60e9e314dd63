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

_MODES = ("AccessShare", "RowShare", "RowExclusive", "ShareUpdateExclusive", "Share", "ShareRowExclusive", "Exclusive", "AccessExclusive")
_CONFLICTS_FROM = (7, 6, 4, 3, 2, 2, 1, 0)
"""With which mode the ones begin that each of them does not go with; Share goes with itself all the same."""


def _conflict() -> str:
    """Return the condition that a lock held (``h``) does not go with a lock waited for (``l``)."""
    lines = []
    for mode, first in zip(_MODES, _CONFLICTS_FROM):
        held = ", ".join(f"'{other}Lock'" for other in _MODES[first:] if not mode == other == "Share")
        lines.append(f"WHEN '{mode}Lock' THEN ARRAY[{held}]")
    return f"h.mode = ANY (CASE l.mode {' '.join(lines)} END)"


_OBJECT = ("database", "relation", "page", "tuple", "virtualxid", "transactionid", "classid", "objid", "objsubid")


def prepared_holders(pid: str) -> str:
    """Return SQL for what names the prepared transactions that keep a process waiting, which the server shows as process 0.

    :param pid: the waiting process, as SQL.
    """
    held, wanted = (", ".join(f"{lock}.{column}" for column in _OBJECT) for lock in "hl")
    return f"""(
  SELECT array_agg(x.gid || ' of ' || x.owner || ' since ' || date_trunc('second', x.prepared)::text ORDER BY x.prepared)
  FROM pg_prepared_xacts x JOIN pg_locks own ON own.pid IS NULL AND own.transactionid = x.transaction
  WHERE EXISTS (SELECT FROM pg_locks h JOIN pg_locks l ON l.locktype = h.locktype AND ({held}) IS NOT DISTINCT FROM ({wanted})
    WHERE h.granted AND h.pid IS NULL AND h.virtualtransaction = own.virtualtransaction
      AND l.pid = {pid} AND NOT l.granted AND {_conflict()}))"""  # noqa: S608 - our own text


_BLOCKERS = f"""
SELECT w.pid AS waiting, p.pid, coalesce(b.backend_type = 'client backend', false) AS client,
  CASE WHEN p.pid = 0 THEN 'prepared transaction ' || coalesce(array_to_string({prepared_holders("w.pid")}, ', prepared transaction '),
         'that is over by now')
       ELSE format('pid %%s of user %%s, application %%s, %%s, since %%s', p.pid, coalesce(b.usename, '?'),
         coalesce(nullif(b.application_name, ''), b.backend_type, '?'), coalesce(b.state, 'gone'),
         date_trunc('second', coalesce(b.xact_start, b.backend_start))) END AS who
FROM pg_stat_activity w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS p(pid) LEFT JOIN pg_stat_activity b ON b.pid = p.pid
WHERE w.pid = ANY(%s::int[]) AND w.wait_event_type = 'Lock'
"""  # noqa: S608 - our own text

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
