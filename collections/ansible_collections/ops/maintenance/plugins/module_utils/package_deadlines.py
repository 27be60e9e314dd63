# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By when each pending security update has to be installed, and which of them are overdue.

The clock starts when the fix became available: as an advisory or a changelog says, otherwise when this host first saw it, which is
kept on the host, or when the archive that carried it then had been published.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

from .apt_packages import Pending, Update
from .errors import InputError, MaintenanceError, out_of_range
from .judge import human_seconds, many
from .kept_state import keep_state
from .package_severity import SEVERITIES, Severity
from .package_severity import moment as moment_of
from .paths import read_state
from .record import Finding

STATE = "package_deadlines.json"
DEADLINES = {"critical": 24.0, "high": 168.0, "medium": 0.0, "low": 2160.0}
"""Hours; 0 means in the next window."""
_SOON = timedelta(days=1)
OPTIONS: dict[str, t.Any] = {
    "severities": {"type": "dict", "default": {}},
    "advisories": {"type": "path", "default": ""},
    "unknown_severity": {"type": "str", "choices": list(SEVERITIES), "default": "high"},
    "deadline_hours": {"type": "dict", "default": {}},
    "minimum_severity": {"type": "str", "choices": ["", *SEVERITIES], "default": ""},
    "overdue_only": {"type": "bool", "default": False},
}


@dataclass(frozen=True)
class Due:
    """One pending security update with its deadline; ``by`` is ``None`` where it is the next window."""

    update: Update
    level: str
    source: str
    since: datetime
    by: datetime | None
    overdue: bool

    def said(self, now: datetime) -> str:
        """Say it in one line."""
        version = self.update.security_version
        late = f"overdue by {human_seconds((now - self.by).total_seconds())}" if self.overdue and self.by else "overdue"
        when = late if self.overdue else f"due by {self.by.isoformat(timespec='minutes')}" if self.by else "due in the next window"
        since = self.since.isoformat(timespec="minutes")
        return f"{self.update.name} {self.update.installed} -> {version}: {self.level} ({self.source}), to be had since {since}, {when}"


@dataclass(frozen=True)
class Deadlines:
    """All pending security updates with their deadlines, and what could not be known of them.

    :param doubt: why a severity that the advisories do not name may exist all the same, such as their age.
    """

    due: tuple[Due, ...] = ()
    problem: str = ""
    doubt: str = ""
    unkept: tuple[Finding, ...] = ()

    @property
    def overdue(self) -> list[Due]:
        """Return what should have been installed by now, the most urgent first."""
        late = [due for due in self.due if due.overdue]
        return sorted(late, key=lambda due: (-SEVERITIES.index(due.level), due.since))

    @property
    def guessed(self) -> list[Due]:
        """Return those whose severity nobody could tell."""
        return [due for due in self.due if due.source.startswith("not known")]

    def postponed(self, updates: t.Iterable[Update], minimum: str, overdue_only: bool) -> dict[str, str]:
        """Return what an emergency run leaves for an ordinary one, with the reason."""
        if not minimum and not overdue_only:
            return {}
        by_name = {due.update.name: due for due in self.due}
        return {update.name: said for update in updates if (said := _postponed(by_name.get(update.name), minimum, overdue_only))}


def _postponed(due: Due | None, minimum: str, overdue_only: bool) -> str:
    if due is None:
        return "not a security update, and this run takes the urgent ones only"
    if minimum and SEVERITIES.index(due.level) < SEVERITIES.index(minimum):
        return f"{due.level}, and this run takes updates from {minimum} only"
    return "not overdue, and this run takes what is overdue only" if overdue_only and not due.overdue else ""


def judge(
    updates: t.Iterable[Update],
    severities: t.Mapping[str, Severity],
    state: t.Mapping[str, t.Any],
    now: datetime,
    params: t.Mapping[str, t.Any],
) -> tuple[Due, ...]:
    """Give every security update its severity and its deadline.

    :param severities: what is known of each, by name.
    :param state: what earlier runs kept, with this run's sight of the updates in it already.
    """
    hours = {**DEADLINES, **params["deadline_hours"]}
    window = moment_of(str(state.get("window", "")))
    found = []
    for update in updates:
        known = severities.get(update.name, Severity())
        level = known.level or params["unknown_severity"]
        source = known.source if known.level else f"not known, treated as {level}"
        seen = moment_of(str(state.get("seen", {}).get(update.name, {}).get("since", ""))) or now
        since = min(known.since or seen, seen, now)
        by = since + timedelta(hours=hours[level]) if hours[level] else None
        late = now > by if by else window is not None and window > since
        found.append(Due(update, level, source, since, by, late))
    return tuple(found)


def remember(
    state: t.Mapping[str, t.Any], updates: t.Iterable[Update], published: t.Mapping[str, datetime], now: datetime
) -> dict[str, t.Any]:
    """Return the state with this sight of the updates: one seen before keeps its time, one no longer pending goes.

    :param published: when each archive was published; an update was there by then when it is seen for the first time.
    """
    before = state.get("seen", {})
    seen = {}
    for update in updates:
        first = min([now, *(published[archive] for archive in update.archives if archive in published)])
        known = before.get(update.name, {})
        since = known.get("since") if isinstance(known, dict) and moment_of(str(known.get("since", ""))) else first.isoformat()
        seen[update.name] = {"since": since, "version": update.security_version}
    return {**state, "seen": seen}


def read(state_dir: str) -> tuple[dict[str, t.Any], str]:
    """Return what earlier runs kept, and why it cannot be used (then nothing of it is)."""
    try:
        state = read_state(state_dir, STATE)
    except MaintenanceError as error:
        return {}, str(error)
    return (state, "") if isinstance(state.get("seen", {}), dict) else ({}, f"{state_dir}/{STATE} is not what this role wrote.")


def keep(state_dir: str, state: t.Mapping[str, t.Any]) -> list[Finding]:
    """Keep it for the next run; return a finding when that is not possible."""
    return keep_state(state_dir, STATE, state)


def mark_window(state_dir: str, now: datetime) -> list[Finding]:
    """Remember that a run could install at this time: what was to be had before it and is still pending then is late."""
    state, problem = read(state_dir)
    return [] if problem else keep(state_dir, {**state, "window": now.isoformat()})


def overdue_finding(deadlines: Deadlines, pending: Pending, fresh: bool, now: datetime) -> Finding:
    """Judge whether a security update is overdue."""
    late = deadlines.overdue
    guessed = deadlines.guessed
    said = f"the severity of {many(len(guessed), 'update')}, treated as {guessed[0].level}" if guessed else ""
    unknown = pending.blind() or deadlines.problem or ("" if fresh or late else "the lists could not be refreshed and may be old")
    said = "; ".join(filter(None, (said, deadlines.doubt if guessed else "")))
    common: dict[str, t.Any] = {"id": "patching.overdue", "subject": "packages", "not_covered": said}
    if unknown:
        return Finding(
            state="unknown",
            summary=f"Whether a security update is overdue is not known: {unknown}",
            advice="Make the archives reachable and keep the state folder of the host whole, then run again.",
            **common,
        )
    common.update(unit="count", threshold="warning from 1 or from a day before, critical from 1 of high or critical severity")
    if late:
        return Finding(
            state="critical" if SEVERITIES.index(late[0].level) >= SEVERITIES.index("high") else "warning",
            summary=f"{many(len(late), 'security update')} overdue, the worst of them {late[0].level}.",
            value=len(late),
            advice="Install them now: run with patching_overdue_only, in a forced window where that is needed.",
            evidence=[due.said(now) for due in late],
            **common,
        )
    first = sorted(deadlines.due, key=lambda due: (due.by is None, due.by or now))
    soon = [due for due in first if due.by and due.by - now <= _SOON]
    if soon:
        return Finding(
            state="warning",
            summary=f"{many(len(soon), 'security update has', 'security updates have')} to be installed within a day.",
            value=0,
            advice="Install them today: run with patching_minimum_severity, in a forced window where that is needed.",
            evidence=[due.said(now) for due in first],
            **common,
        )
    summary = f"No security update is overdue; {many(len(deadlines.due), 'one is', 'are')} pending."
    return Finding(state="ok", summary=summary, value=0, evidence=[due.said(now) for due in first], **common)


def self_test_problem(update: Update, now: datetime) -> str:
    """Feed the clock a critical update of yesterday and one of today."""
    params = {"deadline_hours": {}, "unknown_severity": "high"}
    for hours, expected in ((25, True), (1, False)):
        known = {update.name: Severity("critical", "declared", now - timedelta(hours=hours))}
        if judge([update], known, {}, now, params)[0].overdue is not expected:
            return f"a critical update that is {hours} hours old was judged wrongly"
    return ""


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    known = ", ".join(SEVERITIES)
    hours = params.get("deadline_hours") or {}
    problems = [str(InputError.of("deadline_hours", name, f"one of {known}", "correct it")) for name in hours if name not in SEVERITIES]
    wrong = {name: value for name, value in hours.items() if isinstance(value, bool) or not isinstance(value, (int, float))}
    problems += [str(InputError.of(f"deadline_hours of {n}", v, "a number of hours", "correct it")) for n, v in wrong.items()]
    numbers = {name: value for name, value in hours.items() if name not in wrong}
    problems += [f"deadline_hours of {problem}" for problem in out_of_range(numbers, numbers)]
    for name, level in (params.get("severities") or {}).items():
        if level not in SEVERITIES:
            problems.append(str(InputError.of(f"severities of {name}", level, f"one of {known}", "correct it")))
    return problems
