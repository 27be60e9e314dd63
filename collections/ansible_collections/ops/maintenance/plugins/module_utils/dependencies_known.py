# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which known vulnerabilities of environments and projects are new since the run before."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .errors import MaintenanceError
from .kept_state import keep_state
from .paths import read_state
from .record import Finding

OPTIONS: dict[str, t.Any] = {"remember": {"type": "bool", "default": False}}


def with_news(kind: str, findings: t.Sequence[Finding], params: t.Mapping[str, t.Any], check_mode: bool) -> list[Finding]:
    """Put first what the run before did not see, and keep for the next one what this one saw.

    Check mode keeps nothing, unless a role that assesses in check mode says that the run itself is none. A run that looks twice
    compares with the run before both times. What was not looked at this time stays as it was known.
    """
    name, run_id = f"dependencies_{kind}.json", params.get("run_id", "")
    try:
        known = read_state(params["state_dir"], name)
    except MaintenanceError as error:
        return [_uncompared(finding, str(error)) if _tells(kind, finding) else finding for finding in findings]
    before = known.get("before" if run_id and known.get("run_id") == run_id else "seen", {})
    seen = {finding.subject: list(finding.evidence) for finding in findings if _tells(kind, finding)}
    unkept: list[Finding] = []
    if seen and (params.get("remember") or not check_mode):
        unkept = keep_state(params["state_dir"], name, {"run_id": run_id, "before": before, "seen": {**known.get("seen", {}), **seen}})
    return unkept + [_compared(finding, before.get(finding.subject)) if _tells(kind, finding) else finding for finding in findings]


def _tells(kind: str, finding: Finding) -> bool:
    return finding.id == f"{kind}.vulnerable" and finding.state != "unknown"


def _compared(finding: Finding, before: t.Sequence[str] | None) -> Finding:
    if before is None:
        return finding
    came = [line for line in finding.evidence if line not in before]
    stayed = [line for line in finding.evidence if line in before]
    if not came:
        return finding
    return replace(
        finding, summary=f"{finding.summary} {len(came)} new since the run before.", evidence=[f"new: {line}" for line in came] + stayed
    )


def _uncompared(finding: Finding, why: str) -> Finding:
    gap = f"what is new, for what the run before saw is lost: {why}"
    return replace(finding, not_covered="; ".join(filter(None, (finding.not_covered, gap))))
