# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all sets of backups share during one call."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from datetime import tzinfo

from .backup_adaptor import Around
from .backup_sets import HOUR, Backup, Declared
from .host import Host
from .judge import human_seconds
from .record import Action, Finding, Metric

MAKE_ONE = "Make a backup now, and look why the job did not."
FEW_LINES = 15


@dataclass
class Run:
    """What all sets share during one call."""

    params: t.Mapping[str, t.Any]
    check_mode: bool
    host: Host
    zone: tzinfo | None
    history: dict[str, t.Any]
    proofs: dict[str, t.Any]
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    @property
    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self.host.now().timestamp()

    @property
    def around(self) -> Around:
        """What adaptors are told of the call."""
        return Around(self.params, self.host, self.zone, self.check_mode)


def finding_of(id_: str, state: str, subject: str, summary: str, *, advice: str = "", **more: t.Any) -> Finding:
    """Make a finding; advice on what is not ok only."""
    return Finding(id=id_, state=state, subject=subject, summary=summary, advice="" if state == "ok" else advice, **more)


def why_not_fresh(newest: Backup | None, declared: Declared, now: float) -> str:
    """Say why a backup is not what may be relied on now; empty when it is."""
    if newest is None:
        return "there is no backup"
    if newest.size < declared["minimum_size_bytes"]:
        return f"the newest backup holds {newest.size} bytes"
    if now - newest.moment > declared["maximum_age_hours"] * HOUR:
        return f"the newest backup is {human_seconds(now - newest.moment)} old"
    return ""
