# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups a policy keeps, and why; everything else may go once a newer one is proven. Pure: it looks at nothing."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field
from datetime import date

from .backup_sets import DAY, Backup

_RUN_ID = re.compile(r"(?:daily|weekly|monthly|quarterly|emergency|rollback)-\d{8}T\d{6}Z-[0-9a-z]+")


@dataclass
class Plan:
    """What becomes of every backup, oldest first.

    :param reasons: why each of the kept ones stays, by path.
    """

    keep: list[Backup] = field(default_factory=list)
    remove: list[Backup] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def plan(backups: t.Sequence[Backup], policy: t.Mapping[str, t.Any], now: float, *, proven: str, proven_moment: float | None) -> Plan:
    """Divide backups into those that stay and those that may go.

    :param backups: oldest first.
    :param proven: path of the newest backup that is proven; it never goes.
    :param proven_moment: when that one was made; None when none is proven, and then nothing goes.
    """
    reasons: dict[str, str] = {}
    holding = [backup for backup in backups if backup.size]
    for what, count, period in (
        ("daily", policy["keep_daily"], _day), ("weekly", policy["keep_weekly"], _week), ("monthly", policy["keep_monthly"], _month),
    ):  # fmt: skip
        for backup in _newest_of_each(holding, period, count):
            reasons.setdefault(backup.path, what)
    for backup in holding[max(len(holding) - policy["minimum_copies"], 0) :]:
        reasons.setdefault(backup.path, "one of the newest")
    for backup in backups:
        why = _untouchable(backup, policy, now, proven, proven_moment)
        if why:
            reasons.setdefault(backup.path, why)
    made = Plan(reasons=reasons)
    for backup in backups:
        (made.keep if backup.path in reasons else made.remove).append(backup)
    return made


def _untouchable(backup: Backup, policy: t.Mapping[str, t.Any], now: float, proven: str, proven_moment: float | None) -> str:
    if now - backup.moment < policy["minimum_age_days"] * DAY:
        return "too young"
    if backup.path == proven:
        return "the newest that is proven"
    if _RUN_ID.search(backup.path):
        return "it belongs to a maintenance run"
    if proven_moment is None or proven_moment <= backup.moment:
        return "no newer one is proven"
    return ""


def _newest_of_each(backups: t.Sequence[Backup], period: t.Callable[[date], t.Any], count: int) -> t.Iterator[Backup]:
    newest = {period(backup.day): backup for backup in backups}
    yield from (newest[key] for key in sorted(newest, reverse=True)[:count])


def _day(day: date) -> date:
    return day


def _week(day: date) -> tuple[int, int]:
    return day.isocalendar()[0], day.isocalendar()[1]


def _month(day: date) -> tuple[int, int]:
    return month_of(day)


def month_of(day: date) -> tuple[int, int]:
    """Return year and month."""
    return day.year, day.month


def months_without_copy(backups: t.Iterable[Backup], copied: t.Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the months that have backups but no monthly copy."""
    return {month_of(backup.day) for backup in backups if backup.size} - set(copied)
