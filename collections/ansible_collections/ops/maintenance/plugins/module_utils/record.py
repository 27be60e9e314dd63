# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record that every module returns: findings, metrics and actions of one operation.

docs/journal.md describes every field; docs/record.schema.json is the same for machines.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

STATES = ("ok", "warning", "critical", "unknown")
"""Verdicts of a finding. ``unknown`` means that it was not possible to look; it is never ``ok``."""

STATUSES = ("ok", "due", "changed", "skipped", "deferred", "failed")
"""``due``: check mode found work. ``deferred``: due, but it does not fit into the time left."""

BASES = ("exact", "sampled", "estimated", "stale")

_SEVERITY = {"ok": 0, "unknown": 1, "warning": 2, "critical": 3}
_FINDING_ID = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_TEXT_LIMIT = 500
_EVIDENCE_LIMIT = 20

Json = t.Any


def clean(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Make text from a host safe to store and show: no control or direction characters, bounded length.

    Line breaks and tabs stay; anything else that could drive a terminal becomes ``\\xNN``.
    """
    shown = _CONTROL.sub(lambda m: f"\\x{ord(m.group()):02x}", text.replace("\r\n", "\n"))
    shown = shown.encode("utf-8", "backslashreplace").decode("utf-8")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def plain(value: Json, limit: int = _TEXT_LIMIT) -> Json:
    """Copy a value into what JSON can hold, every text in it cleaned."""
    if isinstance(value, str):
        return clean(value, limit)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "backslashreplace"), limit)
    if isinstance(value, dict):
        return {clean(str(key)): plain(item, limit) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, limit) for item in value]
    return clean(str(value), limit)


def worst(states: t.Iterable[str], none: str = "unknown") -> str:
    """Return the worst of several states; ``none`` where there is no state at all."""
    return max(states, key=_SEVERITY.__getitem__, default=none)


@dataclass(frozen=True)
class Finding:
    """One verdict on one subject.

    :param id: dotted, stable and documented, such as ``backup.age``.
    :param state: one of :data:`STATES`.
    :param subject: what was looked at, such as a path, a unit or ``database.table``.
    :param summary: one sentence for a person.
    :param value: what was measured, in ``unit``.
    :param unit: ``seconds``, ``bytes``, ``percent``, ``count``, ``days`` … (empty for text).
    :param threshold: where the verdict changes, in words with a unit: ``warning from 85 percent``.
    :param basis: ``exact``, ``sampled``, ``estimated``, or ``stale``.
    :param as_of: ISO 8601 time of the data behind a stale basis, or of the oldest statistics behind an estimated one.
    :param not_covered: what was not looked at, empty when all was.
    :param advice: what to do about it; mandatory for every state but ``ok``.
    :param evidence: a few lines that show it (at most 20, never a secret).
    """

    id: str
    state: str
    subject: str
    summary: str
    value: Json = None
    unit: str = ""
    threshold: str = ""
    basis: str = "exact"
    as_of: str = ""
    not_covered: str = ""
    advice: str = ""
    evidence: t.Sequence[str] = ()

    def __post_init__(self) -> None:
        if not _FINDING_ID.match(self.id):
            raise ValueError(f"finding id {self.id!r} is not dotted lower case")
        if self.state not in STATES:
            raise ValueError(f"finding {self.id}: state {self.state!r} is not one of {STATES}")
        if self.basis not in BASES:
            raise ValueError(f"finding {self.id}: basis {self.basis!r} is not one of {BASES}")
        if self.state != "ok" and not self.advice:
            raise ValueError(f"finding {self.id}: state {self.state} without advice")

    def as_dict(self) -> dict[str, Json]:
        """Return the finding as the journal stores it."""
        found = {name: plain(getattr(self, name)) for name in self.__dataclass_fields__}
        found["evidence"] = found["evidence"][:_EVIDENCE_LIMIT]
        return found


def unknown(finding_id: str, subject: str, summary: str, advice: str, **more: t.Any) -> Finding:
    """Return the finding for what could not be looked at."""
    return Finding(finding_id, "unknown", subject, summary, advice=advice, **more)


def self_test_finding(finding_id: str, subject: str, missed: t.Sequence[str]) -> Finding:
    """Say whether planted bad samples were found, and which were not."""
    if not missed:
        return Finding(finding_id, "ok", subject, "planted bad samples were found, and their sound twins were not")
    words = f"planted samples were judged wrong: {', '.join(missed)}"
    return Finding(finding_id, "unknown", subject, words, advice="Rely on nothing of this run; report it as a defect and look by hand.")


@dataclass(frozen=True)
class Metric:
    """One number worth comparing between runs: dotted name, subject, value, unit."""

    name: str
    subject: str
    value: float
    unit: str

    def as_dict(self) -> dict[str, Json]:
        """Return the metric as the journal stores it."""
        return {"name": self.name, "subject": clean(self.subject), "value": self.value, "unit": self.unit}


@dataclass(frozen=True)
class Action:
    """One thing that was done, or is due in check mode, with the state before and after."""

    subject: str
    operation: str
    status: str
    summary: str
    before: t.Mapping[str, Json] = field(default_factory=dict)
    after: t.Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"action {self.operation}: status {self.status!r} is not one of {STATUSES}")

    def as_dict(self) -> dict[str, Json]:
        """Return the action as the journal stores it."""
        return {name: plain(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass
class Outcome:
    """What one module call found and did; :meth:`record` is what the journal keeps.

    ``returned`` holds what tasks need afterwards and is not part of the record.
    """

    subject: str
    operation: str
    status: str
    summary: str
    before: t.Mapping[str, Json] = field(default_factory=dict)
    after: t.Mapping[str, Json] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    returned: dict[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"outcome {self.operation}: status {self.status!r} is not one of {STATUSES}")

    @property
    def is_change(self) -> bool:
        """Whether Ansible is to count the task as changed (in check mode: would change)."""
        return self.status in ("due", "changed") or any(a.status in ("due", "changed") for a in self.actions)

    @property
    def state(self) -> str:
        """The worst state of the findings; ``unknown`` when there is none."""
        return worst(finding.state for finding in self.findings)

    def record(self) -> dict[str, Json]:
        """Return the record without the fields that only the journal can know."""
        return {
            "subject": clean(self.subject),
            "operation": self.operation,
            "status": self.status,
            "summary": clean(self.summary),
            "before": plain(dict(self.before)),
            "after": plain(dict(self.after)),
            "findings": [finding.as_dict() for finding in self.findings],
            "metrics": [metric.as_dict() for metric in self.metrics],
            "actions": [action.as_dict() for action in self.actions],
        }


def status_of(actions: t.Sequence[Action], check_mode: bool) -> str:
    """Sum up the status of an outcome from its actions, worst first."""
    seen = {action.status for action in actions}
    for status in ("failed", "changed", "due", "deferred"):
        if status in seen:
            return "due" if check_mode and status == "changed" else status
    return "ok"
