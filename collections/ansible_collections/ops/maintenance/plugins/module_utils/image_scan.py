# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scanners of container images (trivy, grype): their answers, and how old the vulnerability database behind them is."""

from __future__ import annotations

import json
import re
import typing as t
from collections import Counter
from datetime import datetime, timezone

from .errors import MaintenanceError
from .host import Host

SEVERITIES = ("critical", "high", "medium", "low", "negligible", "unknown")
_FRACTION = re.compile(r"\.\d+")


class Vulnerability(t.NamedTuple):
    """One vulnerability of one package in an image; ``fixed`` is the version with the fix, where there is one."""

    id: str
    severity: str
    package: str
    version: str
    fixed: str

    @property
    def line(self) -> str:
        """Say it in one line."""
        return f"{self.id} ({self.severity}) in {self.package} {self.version}, {f'fixed in {self.fixed}' if self.fixed else 'no fix'}"


class Scan(t.NamedTuple):
    """What a scanner found, and when its database was made (None: not known)."""

    found: list[Vulnerability]
    database: datetime | None


def parse_time(text: t.Any) -> datetime | None:
    """Read a time as Go programs write it (``2026-11-20T06:12:01.123456789Z``)."""
    try:
        bare = _FRACTION.sub("", str(text)).replace("Z", "+00:00")
        found = datetime.fromisoformat(bare)
    except ValueError:
        return None
    return found if found.tzinfo and found.year > 1 else None


def parse_trivy(text: str) -> list[Vulnerability]:
    """Read ``trivy image --format json``.

    :raises MaintenanceError: it names nothing that was looked at; an image without any package is not a sound one.
    """
    results = _object(text).get("Results")
    if not isinstance(results, list) or not results:
        raise MaintenanceError("the scanner recognised nothing in the image")
    return [
        Vulnerability(
            str(item.get("VulnerabilityID", "")),
            _severity(item.get("Severity")),
            str(item.get("PkgName", "")),
            str(item.get("InstalledVersion", "")),
            str(item.get("FixedVersion") or ""),
        )
        for result in results
        for item in result.get("Vulnerabilities") or []
    ]


def parse_grype(text: str) -> Scan:
    """Read ``grype -o json``, which says itself how old its database is.

    :raises MaintenanceError: the answer has no list of matches.
    """
    data = _object(text)
    matches = data.get("matches")
    if not isinstance(matches, list):
        raise MaintenanceError("the scanner gave no list of matches")
    database = (data.get("descriptor") or {}).get("db") or {}
    built = database.get("built") or (database.get("status") or {}).get("built")
    return Scan([_grype_match(match) for match in matches], parse_time(built))


def _grype_match(match: t.Mapping[str, t.Any]) -> Vulnerability:
    found, artifact = match.get("vulnerability") or {}, match.get("artifact") or {}
    fixed = ", ".join(map(str, (found.get("fix") or {}).get("versions") or []))
    name, version = str(artifact.get("name", "")), str(artifact.get("version", ""))
    return Vulnerability(str(found.get("id", "")), _severity(found.get("severity")), name, version, fixed)


def parse_trivy_database(text: str) -> datetime | None:
    """Read from ``trivy version --format json`` when its database was made."""
    try:
        return parse_time((_object(text).get("VulnerabilityDB") or {}).get("UpdatedAt"))
    except MaintenanceError:
        return None


def _object(text: str) -> dict[str, t.Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise MaintenanceError(f"the scanner's answer is no JSON ({error})") from error
    if not isinstance(data, dict):
        raise MaintenanceError("the scanner did not answer with an object")
    return data


def _severity(text: t.Any) -> str:
    given = str(text).lower()
    return given if given in SEVERITIES else "unknown"


def at_least(found: t.Iterable[Vulnerability], severity: str) -> list[Vulnerability]:
    """Return those of a severity and above, worst first."""
    wanted = SEVERITIES[: SEVERITIES.index(severity) + 1]
    return sorted((one for one in found if one.severity in wanted), key=lambda one: (SEVERITIES.index(one.severity), one.package, one.id))


def counted(found: t.Iterable[Vulnerability]) -> dict[str, int]:
    """Count by severity, each named."""
    counts = Counter(one.severity for one in found)
    return {severity: counts[severity] for severity in SEVERITIES}


def choose(name: str, host: Host) -> str:
    """Return the scanner asked for, or the one that is there.

    :raises MaintenanceError: there is none.
    """
    names = ["trivy", "grype"] if name == "auto" else [name]
    found = next((one for one in names if host.which(one)), "")
    if not found:
        raise MaintenanceError(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not installed")
    return found


def scan(host: Host, scanner: str, image: str, timeout: float) -> Scan:
    """Scan a local image by its id; the scanner itself decides whether to fetch its database first.

    :raises MaintenanceError: it gave no answer that can be believed.
    """
    if scanner == "trivy":
        ran = host.run(
            ["trivy", "image", "--quiet", "--format", "json", "--scanners", "vuln", "--timeout", f"{timeout:.0f}s", image], timeout=timeout
        )
    else:
        ran = host.run(["grype", "--quiet", "--output", "json", image], timeout=timeout)
    if ran.rc != 0:
        raise MaintenanceError(ran.why())
    if scanner == "grype":
        return parse_grype(ran.stdout)
    return Scan(parse_trivy(ran.stdout), parse_trivy_database(host.run(["trivy", "version", "--format", "json"]).stdout))


def age_days(found: Scan, now: datetime) -> float | None:
    """Return how old the database is."""
    return (now.astimezone(timezone.utc) - found.database).total_seconds() / 86400 if found.database else None
