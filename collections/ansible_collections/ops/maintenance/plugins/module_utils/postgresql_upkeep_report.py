# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an upkeep of PostgreSQL found and did, kept short where there are thousands of tables."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .postgresql_upkeep_work import Done
from .record import Action, Finding, Json, Metric

_MOST_ACTIONS, _MOST_FINDINGS = 70, 40
_ORDER = {"failed": 0, "deferred": 1, "changed": 2, "due": 2, "skipped": 3, "ok": 4}
_SEVERITY = {"critical": 0, "warning": 1, "unknown": 2, "ok": 3}
_NOT_SHOWN = ("file", "rows")

LOCK_ADVICE = (
    "End or wait for what blocks it, then run again; terminate_blockers lets the run end such sessions, "
    "concurrent_wait_seconds and lock_timeout_seconds say how long it waits."
)


@dataclass
class Result:
    """Findings, metrics and actions of one server, and what went wrong, one sentence each."""

    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    waiting_for_mode: int = 0

    def find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(finding_id, state, subject, summary, **more))

    def fail(self, finding_id: str, subject: str, words: str, advice: str) -> None:
        """Add a critical finding, which makes the outcome fail; the rest goes on."""
        self.find(finding_id, "critical", subject, words, advice=advice)
        self.failures.append(f"{subject}: {words}")

    def act(self, subject: str, operation: str, status: str, summary: str, before: Json = None, after: Json = None) -> None:
        """Add an action."""
        self.actions.append(Action(subject, operation, status, summary, before or {}, after or {}))

    def note(self, done: Done, words: str = "") -> None:
        """Add what became of a job."""
        job = done.job
        summary = words or job.reason
        if done.status != "changed":
            summary = f"{job.reason}; {done.words}"
        before = {**visible(done.before), **job.note}
        self.act(job.subject, job.operation, done.status, summary, before, visible(done.after))
        if done.blocked:
            self.find(
                "upkeep.blocked", "critical", job.subject, f"{job.operation}: {done.words}", value=len(done.blockers), unit="count",
                advice=LOCK_ADVICE, evidence=done.blockers,
            )  # fmt: skip
            self.failures.append(f"{job.subject}: {job.operation}: {done.words}")
        elif done.status == "failed":
            self.fail("upkeep.failed", job.subject, f"{job.operation}: {done.words}", "Read the message, correct the cause, run again.")


def visible(figures: t.Mapping[str, Json]) -> dict[str, Json]:
    """Return the figures that say something to a person."""
    return {name: value for name, value in figures.items() if name not in _NOT_SHOWN and value is not None}


def shortened(actions: t.Sequence[Action], findings: t.Sequence[Finding]) -> tuple[list[Action], list[Finding]]:
    """Keep the worst one by one and add up the rest, so that a record stays small on any number of tables."""
    ordered = sorted(actions, key=lambda action: _ORDER[action.status])
    kept, rest = ordered[:_MOST_ACTIONS], ordered[_MOST_ACTIONS:]
    sums: dict[tuple[str, str, str], int] = {}
    for action in rest:
        place = (action.subject.split(": ")[0], action.operation, action.status)
        sums[place] = sums.get(place, 0) + 1
    kept += [Action(subject, what, status, f"{count} more") for (subject, what, status), count in sums.items()]
    worst = sorted(findings, key=lambda finding: _SEVERITY[finding.state])
    shown, hidden = worst[:_MOST_FINDINGS], worst[_MOST_FINDINGS:]
    counts: dict[tuple[str, str], int] = {}
    for finding in hidden:
        counts[finding.id, finding.state] = counts.get((finding.id, finding.state), 0) + 1
    shown += [
        Finding(name, state, "further objects", f"{count} more of these", value=count, unit="count", advice="See the others first.")
        for (name, state), count in counts.items()
    ]
    return kept, shown
