# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases that were kept when a restored one took their place: named with size and age, dropped only where that was asked for."""

from __future__ import annotations

import typing as t
from datetime import datetime

from .errors import MaintenanceError
from .judge import human_bytes
from .postgresql import Server, Session, connect
from .postgresql_switch import Kept, kept_databases, oid_of
from .record import Action


def review(
    servers: t.Iterable[Server], state_dir: str, drop_after_days: float, now: datetime, check_mode: bool, find: t.Callable[..., None]
) -> list[Action]:
    """Report the kept databases of all servers and drop those that are old enough.

    :param drop_after_days: 0 means never.
    """
    actions = []
    for server in servers:
        with connect(server, statement_timeout_seconds=600) as session:
            for kept in kept_databases(session, server, state_dir):
                age = (now - datetime.fromisoformat(kept.time)).total_seconds() / 86400
                if drop_after_days and age > drop_after_days:
                    actions.append(_drop(session, server, kept, check_mode))
                else:
                    _report(session, server, kept, age, drop_after_days, find)
    return actions


def _drop(session: Session, server: Server, kept: Kept, check_mode: bool) -> Action:
    subject = f"{server['name']}/{kept.name}"
    words = f"the state of {kept.database!r} before the restore of {kept.time}, {human_bytes(kept.size)}"
    if check_mode:
        return Action(subject, "drop_kept", "due", f"{words}, would be dropped")
    # Looked at once more: whatever has this name now must be what was kept.
    if oid_of(session, kept.name) != kept.oid:
        raise MaintenanceError(f"{subject} is another database than the one that was kept; it was left alone.")
    session.execute(f"DROP DATABASE {session.identifier(kept.name)}")
    return Action(subject, "drop_kept", "changed", f"{words}, was dropped")


def _report(session: Session, server: Server, kept: Kept, age: float, drop_after_days: float, find: t.Callable[..., None]) -> None:
    name = session.identifier(kept.name)
    when = f"It goes after {drop_after_days:g} days." if drop_after_days else "Nothing drops it by itself (drop_kept_after_days)."
    find(
        "snapshot.kept_databases",
        "warning",
        f"{server['name']}/{kept.name}",
        f"{kept.database!r} as it was before the restore of {kept.time} is kept and takes {human_bytes(kept.size)}",
        value=kept.size,
        unit="bytes",
        threshold="warning from 1 kept database",
        advice=f"When nobody needs it any more: DROP DATABASE {name}; to look into it first: ALTER DATABASE {name} ALLOW_CONNECTIONS true. {when}",
        evidence=[f"kept for {age:.1f} days"],
    )
