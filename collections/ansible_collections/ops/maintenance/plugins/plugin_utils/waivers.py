# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waivers: a named person accepts a finding for a reason until a day.

A waived finding keeps its state. A waiver that has expired or is not complete waives nothing and becomes a finding itself.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.ops.maintenance.plugins.module_utils.record import clean
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import finding

FIELDS = ("id", "subject", "owner", "reason", "expires")
_ADVICE = f"Give each waiver {', '.join(FIELDS)}; expires is a day such as 2027-01-31."
_ALL = re.compile(r"^[*?.\s]*$")


@dataclass(frozen=True)
class Waiver:
    """One waiver; ``id`` and ``subject`` are patterns with ``*`` and ``?``."""

    id: str
    subject: str
    owner: str
    reason: str
    expires: date

    def covers(self, found: dict[str, Any]) -> bool:
        """Whether it waives a finding."""
        return _fits(found.get("id"), self.id) and _fits(found.get("subject"), self.subject)


def load(path: str, today: date) -> tuple[list[Waiver], list[dict[str, Any]]]:
    """Read a waiver file: a list, or a mapping that has one as ``maintenance_waivers``.

    :returns: the waivers in force, and findings about the rest of the file.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        return [], [finding("waiver.invalid", "unknown", path, f"The waiver file cannot be read: {reason}", "Correct or remove it.")]
    return parse(content, path, today)


def beside(sources: Sequence[str]) -> str:
    """Return the waiver file in the folder of the first inventory source, empty where there is none."""
    first = next(iter(sources), "")
    if not first or "," in first:
        return ""
    path = Path(first).absolute()
    found = (path if path.is_dir() else path.parent) / "waivers.yml"
    return str(found) if found.is_file() else ""


def parse(content: Any, where: str, today: date) -> tuple[list[Waiver], list[dict[str, Any]]]:
    """Check waivers as :func:`load` does."""
    given = content.get("maintenance_waivers") if isinstance(content, dict) else content
    if given is None and (content is None or "maintenance_waivers" in content):
        return [], []
    if not isinstance(given, list):
        return [], [finding("waiver.invalid", "warning", where, "The waiver file is not a list of waivers.", _ADVICE)]
    in_force, findings = [], []
    for number, item in enumerate(given, 1):
        waiver, fault = _one(item)
        subject = f"{where} no. {number}"
        if waiver is None:
            summary = f"Waiver {number} {fault}; it waives nothing."
            findings.append(finding("waiver.invalid", "warning", subject, summary, _ADVICE))
        elif waiver.expires < today:
            summary = f"The waiver of {waiver.owner} for {waiver.id} on {waiver.subject} expired on {waiver.expires}."
            advice = "Resolve what it waived, or have its owner renew it; then correct or remove the entry."
            findings.append(finding("waiver.expired", "warning", subject, summary, advice))
        else:
            in_force.append(waiver)
    return in_force, findings


def _one(item: Any) -> tuple[Waiver | None, str]:
    if not isinstance(item, dict):
        return None, "is not a mapping"
    missing = [name for name in FIELDS if item.get(name) is None or not str(item[name]).strip()]
    unknown = sorted(str(name) for name in item if name not in FIELDS)
    if missing or unknown:
        return None, f"lacks {', '.join(missing)}" if missing else f"has the unknown field {', '.join(unknown)}"
    if _ALL.match(str(item["id"])):
        return None, "has an id that matches every finding"
    expires = _day(item["expires"])
    if expires is None:
        return None, f"has the expiry {clean(str(item['expires']), 40)!r}, which is not a day"
    return Waiver(*(clean(str(item[name])) for name in FIELDS[:4]), expires), ""


def _fits(value: Any, pattern: str) -> bool:
    """Match with ``*`` and ``?``; brackets mean themselves, as subjects have them."""
    return fnmatchcase(str(value), pattern.replace("[", "[[]"))


def _day(value: Any) -> date | None:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        return None


def apply(findings: Sequence[dict[str, Any]], waivers: Sequence[Waiver]) -> list[dict[str, Any]]:
    """Return the findings, those that a waiver covers with ``waived``; a finding that is ok needs none."""
    return [_waived(found, waivers) for found in findings]


def used(findings: Sequence[dict[str, Any]], waivers: Sequence[Waiver]) -> set[Waiver]:
    """Return the waivers that cover one of the findings; one that is ok needs none."""
    needy = [found for found in findings if found.get("state") != "ok"]
    return {waiver for found in needy for waiver in waivers if waiver.covers(found)}


def unused(waivers: Sequence[Waiver], covering: Container[Waiver], where: str) -> dict[str, Any] | None:
    """Return the finding that says which waivers nothing in a run needed; None when each was needed.

    A run that looks at part of the systems need not meet what a waiver is for, so this is no fault.
    """
    idle = [waiver for waiver in waivers if waiver not in covering]
    if not idle:
        return None
    named = "; ".join(f"{waiver.id} on {waiver.subject} ({waiver.owner}, until {waiver.expires})" for waiver in idle[:10])
    summary = f"{len(idle)} of {len(waivers)} waivers in force matched nothing in this run: {named}"
    return finding("waiver.unused", "ok", where, summary, "Remove those whose finding is resolved.")


def _waived(found: dict[str, Any], waivers: Sequence[Waiver]) -> dict[str, Any]:
    waiver = next((waiver for waiver in waivers if waiver.covers(found)), None)
    found = {key: value for key, value in found.items() if key != "waived"}  # only the waiver file waives
    if waiver is None or found.get("state") == "ok":
        return found
    return {**found, "waived": {"owner": waiver.owner, "reason": waiver.reason, "expires": waiver.expires.isoformat()}}
