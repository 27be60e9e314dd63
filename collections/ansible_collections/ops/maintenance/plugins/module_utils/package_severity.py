# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How urgent a security update is, and since when it was to be had, from what can be known without a network.

Asked in this order: what the inventory declares, a file of advisories, the changelog in the package that was fetched already.
"""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from .apt_packages import Update
from .errors import InputError, MaintenanceError
from .package_plan import held_by
from .package_versions import compare
from .paths import open_regular

SEVERITIES = ("low", "medium", "high", "critical")
_WORDS = {
    "low": "low", "unimportant": "low", "negligible": "low", "minor": "low",
    "medium": "medium", "moderate": "medium",
    "high": "high", "important": "high",
    "critical": "critical", "emergency": "critical",
}  # fmt: skip
_ENTRY = re.compile(r"^\S+ \(([^()\s]+)\) [^;]*;(?:[^\n]*\burgency=([A-Za-z]+))?")
_SIGNED = re.compile(r"^ -- .*>  (.+)$")
_LIMIT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Advisory:
    """A fix of a package, binary or source, in a version."""

    package: str
    fixed: str
    severity: str
    id: str = ""
    published: str = ""


class Severity(t.NamedTuple):
    """How urgent an update is (empty: not known), who says so, and since when the fix is out (``None``: not said)."""

    level: str = ""
    source: str = ""
    since: datetime | None = None


def level_of(word: object) -> str:
    """Return the severity that a word of an archive or a tracker stands for, empty when it stands for none."""
    return _WORDS.get(str(word).strip().rstrip("*").lower(), "")


def worst(levels: t.Iterable[str]) -> str:
    """Return the most urgent of some severities, empty when there is none."""
    known = [level for level in levels if level in SEVERITIES]
    return max(known, key=SEVERITIES.index, default="")


def load_advisories(path: str, codename: str) -> list[Advisory]:
    """Read advisories: a list of them, or the export of the Debian security tracker.

    :param codename: the release whose fixes count in a tracker's export.
    :raises InputError: the file is not there or is neither.
    """
    expected = "a JSON list of advisories or the export of the Debian security tracker"
    try:
        with open_regular(path) as source:
            data = json.loads(source.read(_LIMIT_BYTES))
    except (OSError, ValueError, MaintenanceError) as error:
        raise InputError.of("advisories", path, expected, f"it cannot be read ({error}), fetch it again") from error
    found = _listed(data) if isinstance(data, list) else _tracked(data, codename) if isinstance(data, dict) else []
    if not found:
        raise InputError.of("advisories", path, f"{expected} with entries for {codename or 'this release'}", "fetch it again")
    return found


def _listed(data: list[t.Any]) -> list[Advisory]:
    entries = [entry for entry in data if isinstance(entry, dict) and entry.get("package") and entry.get("fixed_version")]
    return [
        Advisory(
            str(entry["package"]),
            str(entry["fixed_version"]),
            level_of(entry.get("severity", "")),
            str(entry.get("id", "")),
            str(entry.get("published", "")),
        )
        for entry in entries
    ]


def _tracked(data: dict[str, t.Any], codename: str) -> list[Advisory]:
    found = []
    for package, issues in data.items():
        for issue, said in issues.items() if isinstance(issues, dict) else ():
            releases = said.get("releases") if isinstance(said, dict) else None
            release = releases.get(codename) if isinstance(releases, dict) else None
            if isinstance(release, dict) and release.get("status") == "resolved" and release.get("fixed_version") not in (None, "", "0"):
                found.append(Advisory(package, str(release["fixed_version"]), level_of(release.get("urgency", "")), str(issue)))
    return found


def moment(text: str) -> datetime | None:
    """Read a time as advisories (ISO 8601) or changelogs and Release files (RFC 5322) write it; ``None`` when it is none."""
    try:
        read = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        try:
            read = parsedate_to_datetime(text)
        except (TypeError, ValueError, IndexError):
            return None
    try:
        return read.astimezone(timezone.utc) if read.tzinfo else read.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None


def of_advisories(update: Update, source: str, advisories: t.Iterable[Advisory]) -> Severity:
    """Sum up the advisories that the update would fix: the worst severity, since the first of them."""
    names = {update.name.partition(":")[0], source}
    hit = [
        advisory
        for advisory in advisories
        if advisory.package in names
        and compare(update.installed, advisory.fixed) < 0
        and compare(advisory.fixed, update.security_version or update.candidate) <= 0
    ]
    times = [time for time in (moment(advisory.published) for advisory in hit) if time]
    level = worst(advisory.severity for advisory in hit)
    worst_ids = [advisory.id for advisory in hit if advisory.id and advisory.severity == level]
    return Severity(level, f"advisory {worst_ids[0]}" if worst_ids else "advisory", min(times, default=None)) if hit else Severity()


def of_changelog(text: str, installed: str) -> Severity:
    """Sum up a changelog's entries above the installed version: the worst urgency, since the oldest of them."""
    levels: list[str] = []
    since: datetime | None = None
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            if compare(entry.group(1), installed) <= 0:
                break
            levels.append(level_of(entry.group(2) or ""))
        signed = _SIGNED.match(line)
        if signed and levels:
            since = moment(signed.group(1)) or since
    return Severity(worst(levels), "changelog", since) if levels else Severity()


def severity_of(update: Update, declared: t.Mapping[str, str], more: t.Iterable[Severity]) -> Severity:
    """Decide by the first that knows; the earliest time that any of them names counts.

    :param declared: package patterns with their severity.
    :param more: what the other sources say, the better ones first.
    """
    said = [Severity(level, "declared") for pattern, level in declared.items() if held_by(update.name, [pattern])]
    said += more
    first = next((one for one in said if one.level), Severity())
    return first._replace(since=min((one.since for one in said if one.since), default=None))
