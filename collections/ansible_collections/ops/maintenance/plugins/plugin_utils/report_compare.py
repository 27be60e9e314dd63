# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the findings of a run with those of the run before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .report_lines import Lines
from .report_model import Finding
from .report_values import RANK


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings: worst state first, new before old, then by id and place."""
    age = {"new": 0, "worse": 1, "better": 2, "unchanged": 3}
    return sorted(findings, key=lambda f: (-RANK[f.state], age.get(f.change, 4), f.id, f.system, f.host, f.subject))


def mark_changes(now: Lines, before: Lines | None) -> None:
    """Say for each finding that is not ok how it compares with the run before."""
    if before is None:
        return
    for place, finding in now.latest.items():
        if finding.state == "ok":
            continue
        earlier = before.latest.get(place)
        finding.state_before = earlier.state if earlier else ""
        finding.change = _change(finding.state, finding.state_before)


def _change(state: str, earlier: str) -> str:
    if earlier in ("", "ok"):
        return "new"
    if state == earlier:
        return "unchanged"
    return "worse" if RANK[state] > RANK[earlier] else "better"


def settled(now: Lines, before: Lines | None) -> tuple[list[Finding], list[Finding]]:
    """Return what was not ok before and is ok now, and what was not reported at all this time.

    The second list is not called fixed: nobody looked, or what was looked at does not exist any more.
    """
    if before is None:
        return [], []
    systems = set(now.system_of.values()) | {place[0] for place in now.latest}
    fixed, gone = [], []
    for place, earlier in before.latest.items():
        if earlier.state == "ok" or place[0] not in systems:
            continue
        current = now.latest.get(place)
        if current is None:
            gone.append(replace(earlier, change="gone", state_before=earlier.state))
        elif current.state == "ok":
            fixed.append(replace(current, change="fixed", state_before=earlier.state))
    return worst_first(fixed), worst_first(gone)
