# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put together what is the same on many hosts, so that a report of a fleet stays readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import report_values as v
from .report_attacks import same_attack
from .report_model import Action, Finding

WIDE = 200
"""With more groups than this, subjects are put together as well."""
_NAMED = 4


@dataclass
class Group:
    """A finding in all the places where it was made. ``also`` are findings that only tell of the same again."""

    id: str
    state: str
    summary: str
    threshold: str
    advice: str
    places: list[Finding] = field(default_factory=list)
    also: list[Group] = field(default_factory=list)

    @property
    def changes(self) -> list[tuple[str, int]]:
        """How many places are new, unchanged and so on."""
        return sorted(Counter(place.change for place in self.places if place.change).items())

    @property
    def where(self) -> str:
        """The hosts, named while they are few."""
        return named([place.host for place in self.places])


@dataclass
class ActionGroup:
    """An action on all the hosts where it went the same way."""

    operation: str
    subject: str
    status: str
    summary: str
    difference: str
    hosts: list[str]

    @property
    def where(self) -> str:
        """The hosts, named while they are few."""
        return named(self.hosts)


def named(hosts: Sequence[str]) -> str:
    """Name hosts while they are few, else count them."""
    unique = list(dict.fromkeys(host for host in hosts if host))
    return ", ".join(unique) if len(unique) <= _NAMED else f"{', '.join(unique[: _NAMED - 1])} and {len(unique) - _NAMED + 1:,} more"


def group_findings(findings: Sequence[Finding]) -> list[Group]:
    """Group findings of one id, state and subject over hosts, in the order given."""
    narrow = _grouped(findings, with_subject=True)
    return _told_once(narrow if len(narrow) <= WIDE else _grouped(findings, with_subject=False), findings)


def _told_once(groups: list[Group], findings: Sequence[Finding]) -> list[Group]:
    """Put a group whose findings all tell of attacks that one other group tells of beneath that one."""
    again = same_attack(findings)
    owner = {place.place: group for group in groups for place in group.places}
    told = []
    for group in groups:
        heads = {id(owner[again[place.place]]) if place.place in again else 0 for place in group.places}
        if len(heads) == 1 and heads != {0} and heads != {id(group)}:
            owner[again[group.places[0].place]].also.append(group)
        else:
            told.append(group)
    return told


def _grouped(findings: Sequence[Finding], with_subject: bool) -> list[Group]:
    found: dict[tuple[str, ...], Group] = {}
    for f in findings:
        key = (f.state, f.id, f.subject if with_subject else "")
        group = found.setdefault(key, Group(f.id, f.state, f.summary, f.threshold, f.advice))
        group.places.append(f)
    return [_worded(group) for group in found.values()]


def _worded(group: Group) -> Group:
    """Say the summary of many places: their common one, else that of the first as an example."""
    if len({place.summary for place in group.places}) > 1:
        group.summary = f"{v.plural(len(group.places), 'place')}, for example: {group.summary}"
    for name in ("threshold", "advice"):
        if len({getattr(place, name) for place in group.places}) > 1:
            setattr(group, name, f"{getattr(group, name)} (differs between hosts; this is of {group.places[0].host})")
    return group


def group_actions(actions: Sequence[Action]) -> list[ActionGroup]:
    """Group actions that went the same way on several hosts; sizes may differ, then those of the first are shown."""
    found: dict[tuple[str, ...], ActionGroup] = {}
    differing: set[tuple[str, ...]] = set()
    for a in actions:
        key = (a.status, a.operation, a.subject, a.summary)
        group = found.setdefault(key, ActionGroup(a.operation, a.subject, a.status, a.summary, a.difference, []))
        if group.difference != a.difference:
            differing.add(key)
        group.hosts.append(a.host)
    for key in differing:
        found[key].difference += f" (on {found[key].hosts[0]}; others differ)"
    return list(found.values())


@dataclass(frozen=True)
class Passed:
    """A kind of check that passed, over all hosts."""

    id: str
    count: int
    hosts: int
    basis: str
    not_covered: str


def group_passed(passed: Sequence[Finding]) -> list[Passed]:
    """Count passed checks by id."""
    kinds: dict[str, list[Finding]] = {}
    for finding in passed:
        kinds.setdefault(finding.id, []).append(finding)
    return [
        Passed(name, len(found), len({f.host for f in found}), _few({f.basis for f in found}), _few({f.not_covered for f in found}))
        for name, found in sorted(kinds.items())
    ]


def _few(values: set[str]) -> str:
    shown = sorted(value for value in values if value)
    return "; ".join(shown[:3]) + (f"; {len(shown) - 3} more" if len(shown) > 3 else "")
