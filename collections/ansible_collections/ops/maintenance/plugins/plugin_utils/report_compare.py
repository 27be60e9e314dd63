# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare each finding of a run with the last run that looked at the same.

A run that was refused, narrowed or killed did not look at everything; what it left out is compared with the run before it, and
so on. What nobody looked at before is not called new, and what nobody looked at now is not called gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .report_lines import Lines, Look, Place, any_subject
from .report_model import Finding
from .report_values import RANK


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings: worst state first, new before old, then by id and place."""
    age = {"new": 0, "worse": 1, "better": 2, "unchanged": 3}
    return sorted(findings, key=lambda f: (-RANK[f.state], age.get(f.change, 4), f.id, f.system, f.host, f.subject))


def mark_changes(now: Lines, earlier: Sequence[Lines]) -> None:
    """Say for each finding that is not ok how it compares with the last time that somebody looked.

    :param earlier: earlier runs, the one that counts first before the others.
    """
    for place, finding in now.latest.items():
        before = None if finding.state == "ok" else _state_before(place, now.look_of[place], earlier)
        if before is not None:
            finding.state_before = before
            finding.change = _change(finding.state, before)


def _state_before(place: Place, look: Look, earlier: Sequence[Lines]) -> str | None:
    """Return a finding's state at the last look, empty where that look did not report it, ``None`` without a look."""
    for run in earlier:
        if place in run.latest:
            return run.latest[place].state
        if look in run.looked:
            return ""
    return None


def _change(state: str, earlier: str) -> str:
    if earlier in ("", "ok"):
        return "new"
    if state == earlier:
        return "unchanged"
    return "worse" if RANK[state] > RANK[earlier] else "better"


@dataclass
class Settled:
    """What was not ok at the last look.

    :param fixed: it is ok now.
    :param gone: this run looked again and did not report it: what was looked at does not exist any more, or the rule changed.
    :param unseen: this run did not look.
    """

    fixed: list[Finding] = field(default_factory=list)
    gone: list[Finding] = field(default_factory=list)
    unseen: list[Finding] = field(default_factory=list)


def settled(now: Lines, earlier: Sequence[Lines]) -> Settled:
    """Return what became of the findings that were not ok before."""
    found = Settled()
    hosts = set(now.system_of) | {place[1] for place in now.latest}
    for place, look, was in _open_before(earlier):
        current = now.latest.get(place)
        if current is not None and current.state == "ok":
            found.fixed.append(replace(current, change="fixed", state_before=was.state))
        elif current is None and look in now.looked:
            found.gone.append(replace(was, change="gone", state_before=was.state))
        elif current is None and was.host in hosts and not was.waiver:
            found.unseen.append(replace(was, change="unseen", state_before=was.state))
    return Settled(worst_first(found.fixed), worst_first(found.gone), worst_first(found.unseen))


def _open_before(earlier: Sequence[Lines]) -> Iterator[tuple[Place, Look, Finding]]:
    """Yield what was not ok when it was looked at last."""
    told: set[Place] = set()
    looked: set[Look] = set()
    for run in earlier:
        for place, finding in run.latest.items():
            # a later run that looked and did not report it has told already that it is gone
            if place not in told and run.look_of[place] not in looked and finding.state != "ok":
                yield place, run.look_of[place], finding
        told |= set(run.latest)
        looked |= run.looked


def looks_missing(now: Lines, earlier: Iterable[Lines]) -> set[Look]:
    """Return the looks of this run that no earlier run has made; subjects do not count."""
    wanted = {any_subject(look) for look in now.look_of.values()}
    for run in earlier:
        wanted -= run.looked
    return wanted
