# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: a record stays small however many databases there are."""

from __future__ import annotations

import json
import typing as t
from dataclasses import replace

from .record import Finding, Metric, Outcome, worst

RECORD_BYTES = 60_000
"""Below the 64 KiB of a record, with room for what the journal adds."""

_METRICS = 200


def fitted(outcome: Outcome, limit: int = RECORD_BYTES) -> None:
    """Shorten a record until it fits: fewer lines of evidence, then one finding for several databases of a server.

    A verdict never gets better by that: the worst state stays, with the subjects that have it.
    """
    outcome.metrics = fewer_metrics(outcome.metrics, _METRICS)
    shorter: tuple[t.Callable[[list[Finding]], list[Finding]], ...] = (
        lambda findings: with_lines(findings, 5, 2),
        lambda findings: merged(findings, lambda finding: (finding.id, _server(finding), finding.state), only=("ok", "unknown")),
        lambda findings: merged(findings, lambda finding: (finding.id, _server(finding))),
        lambda findings: with_lines(findings, 3, 1),
        lambda findings: merged(findings, lambda finding: (finding.id,)),
        lambda findings: with_lines(findings, 1, 0),
    )
    for shape in shorter:
        if _size(outcome) <= limit:
            return
        outcome.findings = shape(outcome.findings)
    while _size(outcome) > limit and outcome.metrics:
        outcome.metrics = outcome.metrics[: len(outcome.metrics) // 2]


def _size(outcome: Outcome) -> int:
    return len(json.dumps(outcome.record()))


def _server(finding: Finding) -> str:
    return finding.subject.partition("/")[0]


def with_lines(findings: t.Iterable[Finding], bad: int, fine: int) -> list[Finding]:
    """Keep fewer lines of evidence, and say that there were more."""
    return [replace(finding, evidence=_first(finding.evidence, fine if finding.state == "ok" else bad)) for finding in findings]


def _first(lines: t.Sequence[str], most: int) -> list[str]:
    kept = list(lines[:most])
    return kept if len(lines) <= most or not most else [*kept, f"and {len(lines) - most} more lines"]


def merged(findings: t.Sequence[Finding], key: t.Callable[[Finding], tuple[str, ...]], only: t.Collection[str] = ()) -> list[Finding]:
    """Make one finding of those with the same key: the worst of them, naming the subjects that share its state."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        own = (finding.id, finding.subject, "", "") if only and finding.state not in only else key(finding)
        groups.setdefault(own, []).append(finding)
    return [group[0] if len(group) == 1 else _one(group) for group in groups.values()]


def _one(group: t.Sequence[Finding]) -> Finding:
    state = worst(finding.state for finding in group)
    bad = [finding for finding in group if finding.state == state]
    first = max(bad, key=lambda finding: finding.value if isinstance(finding.value, (int, float)) else float("-inf"))
    servers = {_server(finding) for finding in group}
    others = sorted({finding.state for finding in group} - {state, "ok"})
    gap = f"other subjects of this finding are {', '.join(others)}" if others else ""
    return replace(
        first,
        subject=next(iter(servers)) if len(servers) == 1 else f"{len(servers)} servers",
        summary=f"{len(bad)} of {len(group)} subjects are {state}, first {first.subject}: {first.summary}",
        not_covered="; ".join(dict.fromkeys(filter(None, [first.not_covered, gap]))),
        evidence=[f"{finding.subject}: {finding.summary}"[:160] for finding in bad[:10]],
    )


def fewer_metrics(metrics: t.Sequence[Metric], most: int) -> list[Metric]:
    """Keep the numbers of servers, and of the largest databases."""
    if len(metrics) <= most:
        return list(metrics)
    size = {metric.subject: metric.value for metric in metrics if metric.name == "postgresql.size"}
    order = sorted(metrics, key=lambda metric: ("/" in metric.subject, -size.get(metric.subject, 0), metric.subject))
    return order[:most]
