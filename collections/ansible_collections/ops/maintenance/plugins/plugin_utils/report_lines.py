# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sort the lines of a journal by kind, and take findings out of records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import report_values as v
from .report_model import Finding

Line = Mapping[str, Any]
OWN_OPERATIONS = ("report", "sign", "evidence_bundle")
"""What writes about maintenance and does none itself."""
Place = tuple[str, str, str, str]
Look = tuple[str, str, str, str]
"""System, host, operation, and the operation's subject, which is empty where any subject is meant."""
_NO_LOOK = ("failed", "skipped", "deferred")


@dataclass
class Lines:
    """The lines of one run by kind.

    ``unfinished`` are the records of each host since its last step ended.
    ``latest`` is each finding as it was seen last, ``look_of`` the look that made it, and ``looked`` all looks that came to their end.
    """

    run: Line = field(default_factory=dict)
    plans: dict[str, Line] = field(default_factory=dict)
    records: list[Line] = field(default_factory=list)
    steps: list[Line] = field(default_factory=list)
    unfinished: dict[str, list[Line]] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], Line] = field(default_factory=dict)
    signatures: list[Line] = field(default_factory=list)
    end: Line | None = None
    last: Line = field(default_factory=dict)
    count: int = 0
    system_of: dict[str, str] = field(default_factory=dict)
    latest: dict[Place, Finding] = field(default_factory=dict)
    look_of: dict[Place, Look] = field(default_factory=dict)
    looked: set[Look] = field(default_factory=set)

    @property
    def is_preview(self) -> bool:
        """Whether the run was in check mode: nothing was changed."""
        return self.run.get("check_mode") is True

    def system(self, line: Line) -> str:
        """Return the system of a line, from the plan when the line itself has none."""
        return v.text(line.get("system")) or self.system_of.get(v.text(line.get("host")), "")


def sort_lines(lines: Iterable[Line]) -> Lines:
    """Sort journal lines by kind; an outcome written twice counts as it was written last."""
    found = Lines()
    for line in lines:
        if not isinstance(line, Mapping):
            continue
        found.count += 1
        found.last = line
        _sort(line, line.get("kind"), found)
    found.records = list(_without_plans(found.records))
    started = v.moment(found.run.get("started"))
    for record in found.records:
        look = (found.system(record), *(v.text(record.get(name)) for name in ("host", "operation", "subject")))
        if record.get("status") not in _NO_LOOK:
            found.looked.update((look, any_subject(look)))
        for finding in findings_of(record, found.system(record), started):
            found.look_of[finding.place] = look if finding.subject == look[3] else any_subject(look)
            # seen again later in the run: the state after the work is what counts
            found.latest.pop(finding.place, None)
            found.latest[finding.place] = finding
    return found


def any_subject(look: Look) -> Look:
    """Return a look at whatever the operation looks at on a host."""
    return (*look[:3], "")


def _without_plans(records: list[Line]) -> Iterable[Line]:
    """Yield the records; what was due first and then done in the same run is told once, by the record that did it."""
    last = {_work(record): number for number, record in enumerate(records)}
    for number, record in enumerate(records):
        was_plan = record.get("status") == "due" and last[_work(record)] > number
        yield {**record, "status": "ok", "actions": []} if was_plan else record


def _work(record: Line) -> tuple[str, ...]:
    return tuple(v.text(record.get(name)) for name in ("host", "operation", "subject"))


def _sort(line: Line, kind: Any, found: Lines) -> None:
    if kind == "run":
        found.run = line
    elif kind == "plan":
        system = v.text(line.get("system"))
        found.plans[system] = line
        found.system_of.update((host, system) for host in v.texts(line.get("hosts")))
    elif kind == "record":
        found.records.append(line)
        found.unfinished.setdefault(v.text(line.get("host")), []).append(line)
    elif kind == "step":
        found.steps.append(line)
        found.unfinished.pop(v.text(line.get("host")), None)
    elif kind == "outcome":
        found.outcomes[(found.system(line), v.text(line.get("host")))] = line
    elif kind == "signature":
        found.signatures.append(line)
    elif kind == "end":
        found.end = line


def findings_of(record: Line, system: str, started: Any) -> Iterable[Finding]:
    """Yield the findings of a record."""
    host, role, phase = (v.text(record.get(name)) for name in ("host", "role", "phase"))
    for finding in v.mappings(record.get("findings")):
        yield Finding(
            id=v.text(finding.get("id")) or "unnamed",
            state=v.state(finding.get("state")),
            system=system,
            host=host,
            role=role,
            phase=phase,
            subject=v.text(finding.get("subject")),
            summary=v.text(finding.get("summary")),
            value=v.text(v.amount(finding.get("value"), v.text(finding.get("unit")))),
            threshold=v.text(finding.get("threshold")),
            basis=_basis(finding),
            not_covered=v.text(finding.get("not_covered")),
            advice=v.text(finding.get("advice")),
            evidence=v.texts(finding.get("evidence"))[:20],
            waiver=_waiver(finding.get("waived"), started),
        )


def _basis(finding: Line) -> str:
    basis, as_of = v.text(finding.get("basis")), v.iso(finding.get("as_of"))
    return f"{basis} since {as_of}" if as_of else basis


def _waiver(value: Any, started: Any) -> str:
    """Say a waiver that holds: owner, reason and expiry are mandatory, and it must not have ended before the run."""
    waived = v.mapping(value)
    owner, reason, expires = (v.text(waived.get(name)) for name in ("owner", "reason", "expires"))
    if not (owner and reason and expires):
        return ""
    # a bare date holds until the end of that day
    end = v.moment(f"{expires}T23:59:59" if len(expires) == 10 else expires)
    if end is None or (started is not None and end < started):
        return ""
    return f"{owner}: {reason} (until {expires})"
