# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Severities of distribution packages from an offline database in the OSV format (Debian, Ubuntu), by source package."""

from __future__ import annotations

import json
import math
import re
import typing as t
from dataclasses import dataclass, field

from . import osv
from .errors import InputError
from .package_severity import Advisory, level_of, worst

STALE_DAYS = 14
_MODIFIED = re.compile(rb'"modified"\s*:\s*"([0-9TZ:.+-]{10,40})"')
_METRICS = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_CHANGED_PRIVILEGES = {"N": 0.85, "L": 0.68, "H": 0.5}
_LEVELS = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"))


@dataclass
class Database:
    """What a database says of the wanted packages in one release, and how old it is."""

    advisories: list[Advisory] = field(default_factory=list)
    records: int = 0
    unreadable: int = 0
    modified: str = ""


def is_database(path: str) -> bool:
    """Whether a path is a folder or an archive of records, as the export of an ecosystem is."""
    return osv.is_folder(path) or path.endswith(".zip")


def load(path: str, ecosystem: str, wanted: t.Collection[str]) -> Database:
    """Read the records that name a wanted source package; the others are only counted, as a whole ecosystem is large.

    :param ecosystem: the release, such as ``Debian:12``.
    :raises InputError: nothing is there, or nothing of this release.
    """
    found = Database()
    release = f'"{ecosystem}'.encode()
    names = [f'"{name}"'.encode() for name in wanted]
    try:
        for text in osv.texts(path):
            if release in text:
                found.records += 1
                found.modified = max([found.modified, *(match.decode() for match in _MODIFIED.findall(text))])
                if any(name in text for name in names):
                    _add(found, text, ecosystem, wanted)
    except osv.UNREADABLE as error:
        raise InputError.of("advisories", path, f"a readable OSV database ({error})", "fetch it again") from error
    if not found.records:
        raise InputError.of("advisories", path, f"OSV records of {ecosystem}", "fetch the database of this distribution")
    return found


def _add(found: Database, text: bytes, ecosystem: str, wanted: t.Collection[str]) -> None:
    try:
        record = json.loads(text)
        if record.get("withdrawn"):
            return
        for item in record["affected"]:
            package = item["package"]
            if package["name"] in wanted and is_release(str(package["ecosystem"]), ecosystem):
                fixes = [event["fixed"] for span in item.get("ranges", []) for event in span.get("events", []) if "fixed" in event]
                severity, published = severity_of(record, item), str(record.get("published", ""))
                found.advisories += [Advisory(str(package["name"]), str(fix), severity, str(record["id"]), published) for fix in fixes]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found.unreadable += 1


def is_release(named: str, ecosystem: str) -> bool:
    """Whether a record's ecosystem is this release: ``Ubuntu:22.04:LTS`` is ``Ubuntu:22.04``, ``Debian:1`` is not ``Debian:12``."""
    return named == ecosystem or named.startswith(f"{ecosystem}:")


def severity_of(record: t.Mapping[str, t.Any], affected: t.Mapping[str, t.Any]) -> str:
    """Return the severity that the distribution gave, else that of the CVSS vector; empty where nobody gave any."""
    said = level_of(osv.severity_word(record, affected))
    if said:
        return said
    scores = [one for holder in (affected, record) for one in holder.get("severity") or [] if isinstance(one, dict)]
    return worst(level_of(one.get("score", "")) or cvss_level(str(one.get("score", ""))) for one in scores)


def cvss_level(vector: str) -> str:
    """Return the severity of a CVSS 3 base vector; empty for one that cannot be read (CVSS 2 and 4 among them)."""
    head, *parts = vector.split("/")
    given = dict(part.split(":", 1) for part in parts if ":" in part)
    if not head.startswith("CVSS:3") or not set(_METRICS) <= set(given) or given.get("S") not in ("U", "C"):
        return ""
    changed = given["S"] == "C"
    try:
        value = {name: known[given[name]] for name, known in _METRICS.items()}
    except KeyError:
        return ""
    privileges = _CHANGED_PRIVILEGES[given["PR"]] if changed else value["PR"]
    base = 1 - (1 - value["C"]) * (1 - value["I"]) * (1 - value["A"])
    impact = 7.52 * (base - 0.029) - 3.25 * (base - 0.02) ** 15 if changed else 6.42 * base
    exploitability = 8.22 * value["AV"] * value["AC"] * privileges * value["UI"]
    score = min(10.0, (impact + exploitability) * (1.08 if changed else 1.0)) if impact > 0 else 0.0
    score = math.ceil(round(score * 10, 4)) / 10
    return next((level for least, level in _LEVELS if score >= least), "")
