# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When accounts were last used, from everything on the host that tells, and since when that is wholly known."""

from __future__ import annotations

import glob
import os
import sqlite3
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timezone

from . import security_utmp, sqlite_db
from .errors import MaintenanceError
from .host import Host
from .log_lines import json_record
from .security_common import why_unread

_LOGIND_NEW_SESSION = "8d45620c1a4348dbb17410da57c60c66"
_STALE_SECONDS = 86400.0
_WTMP_FILES = 24
_LASTLOG2 = "var/lib/lastlog/lastlog2.db"
_WTMPDB = ("var/lib/wtmpdb/wtmp.db", "var/log/wtmp.db")


@dataclass
class LastSeen:
    """What all sources together say.

    :param moments: the latest use of each account that any source has.
    :param since: since when each use would have left a trace (seconds since the epoch); None where nothing tells.
    """

    moments: dict[str, float] = field(default_factory=dict)
    since: float | None = None
    sources: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, moment: float) -> None:
        """Take a use of an account into account."""
        self.moments[name] = max(moment, self.moments.get(name, 0.0))

    def covers(self, source: str, since: float) -> None:
        """Note that a source has every log-in since a moment."""
        self.sources.append(f"{source} since {said(since)}" if since else source)
        self.since = since if self.since is None else min(since, self.since)


def said(moment: float) -> str:
    """Say a moment as a day."""
    return datetime.fromtimestamp(moment, timezone.utc).date().isoformat()


def gather(host: Host, root: str, uids: t.Mapping[str, int], period_seconds: float) -> LastSeen:
    """Ask every source below a root folder (``/``, tests give their own).

    :param period_seconds: how far back the journal is asked.
    """
    seen = LastSeen()
    for ask in (_wtmp, _wtmpdb):
        _asked(seen, lambda ask=ask: ask(seen, root))  # type: ignore[misc]
    if root == "/":
        _asked(seen, lambda: _journal(seen, host, period_seconds))
    newest = max([host.now().timestamp() - period_seconds, *seen.moments.values()])
    _asked(seen, lambda: _lastlog2(seen, root, newest))
    _asked(seen, lambda: _kept(seen, "lastlog", security_utmp.last_log_ins(os.path.join(root, "var/log/lastlog"), uids), newest))
    return seen


def _asked(seen: LastSeen, ask: t.Callable[[], None]) -> None:
    try:
        ask()
    except FileNotFoundError:
        return
    except (OSError, MaintenanceError, EOFError, OverflowError) as error:
        seen.problems.append(why_unread(error) if isinstance(error, OSError) else str(error))


def _wtmp(seen: LastSeen, root: str) -> None:
    begins = None
    for path in _wtmp_paths(root):
        for record in security_utmp.read_records(path):
            if not record.moment:
                continue
            begins = record.moment if begins is None else min(begins, record.moment)
            if record.kind == security_utmp.USER_PROCESS and record.user:
                seen.add(record.user, record.moment)
    if begins is not None:
        seen.covers("wtmp", begins)


def logged_in(root: str, since: float, until: float) -> list[str]:
    """Return who logged in within a span, by wtmp or wtmpdb.

    :raises MaintenanceError: one of them is there and cannot be read.
    :raises OSError: the same.
    """
    names: set[str] = set()
    for path in _wtmp_paths(root):
        sessions = (record for record in security_utmp.read_records(path) if record.kind == security_utmp.USER_PROCESS)
        names |= {record.user for record in sessions if since <= record.moment <= until}
    path = _wtmpdb_path(root)
    if path and os.path.getsize(path):
        span = f"Login BETWEEN {int(since * 1e6)} AND {int(until * 1e6)}"
        names |= {str(name) for (name,) in _rows(path, f"SELECT DISTINCT User FROM wtmp WHERE Type = 3 AND {span}")}  # noqa: S608 - numbers
    return sorted(names - {""})


def _wtmp_paths(root: str) -> list[str]:
    """Return wtmp and what rotation made of it; a database of wtmpdb that lies beside it is none of these."""
    found = glob.glob(f"{glob.escape(os.path.join(root, 'var/log/wtmp'))}*")
    return sorted(path for path in found if not path.endswith(".db"))[:_WTMP_FILES]


def _wtmpdb_path(root: str) -> str:
    return next((path for path in (os.path.realpath(os.path.join(root, name)) for name in _WTMPDB) if os.path.exists(path)), "")


def _wtmpdb(seen: LastSeen, root: str) -> None:
    path = _wtmpdb_path(root)
    if path and os.path.getsize(path):
        begins = _rows(path, "SELECT min(Login) FROM wtmp")[0][0]
        for name, moment in _rows(path, "SELECT User, max(Login) FROM wtmp WHERE Type = 3 GROUP BY User"):
            seen.add(str(name), float(moment or 0) / 1e6)
        if begins:
            seen.covers("wtmpdb", float(begins) / 1e6)


def _rows(path: str, query: str) -> list[tuple[t.Any, ...]]:
    def ask(connection: sqlite3.Connection) -> list[tuple[t.Any, ...]]:
        with sqlite_db.translated(path):
            return connection.execute(query).fetchall()

    return sqlite_db.reading(path, ask)


def _journal(seen: LastSeen, host: Host, period_seconds: float) -> None:
    """Ask for the sessions that systemd-logind began, by the fixed id of that message."""
    if host.which("journalctl") is None or not os.path.isdir("/run/systemd/system"):
        return
    base = ["journalctl", "--output=json", "--no-pager", "--quiet"]
    first = next(iter(host.lines([*base, "--output-fields=USER_ID"])), None)
    if first is None:
        return
    since = max(_moment(first), host.now().timestamp() - period_seconds)
    for raw in host.lines([*base, "--output-fields=USER_ID", f"--since=@{int(since)}", f"MESSAGE_ID={_LOGIND_NEW_SESSION}"]):
        name = (json_record(raw) or {}).get("USER_ID")
        if isinstance(name, str):
            seen.add(name, _moment(raw))
    seen.covers("journal", since)


def _moment(raw: bytes) -> float:
    try:
        return int((json_record(raw) or {})["__REALTIME_TIMESTAMP"]) / 1e6
    except (KeyError, TypeError, ValueError):
        raise MaintenanceError("journalctl answered without times; run it by hand.") from None


def _lastlog2(seen: LastSeen, root: str, newest: float) -> None:
    path = os.path.join(root, _LASTLOG2)
    rows = _rows(path, "SELECT Name, Time FROM Lastlog2") if os.path.exists(path) else []
    _kept(seen, "lastlog2", {str(name): float(moment or 0) for name, moment in rows}, newest)


def _kept(seen: LastSeen, source: str, found: t.Mapping[str, float], newest: float) -> None:
    """Take what a register of last log-ins has; one that misses newer log-ins is no longer written and proves no absence."""
    for name, moment in found.items():
        seen.add(name, moment)
    if found and max(found.values()) >= newest - _STALE_SECONDS:
        seen.covers(source, 0.0)
    elif found:
        seen.problems.append(f"{source} is no longer written (its newest log-in is of {said(max(found.values()))})")
