# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scanners of container images (trivy, grype): their answers, and how old the vulnerability database behind them is."""

from __future__ import annotations

import json
import os
import re
import tempfile
import typing as t
from collections import Counter
from datetime import datetime, timezone

from .errors import MaintenanceError
from .host import Host
from .paths import open_regular

SEVERITIES = ("critical", "high", "medium", "low", "negligible", "unknown")
_LIMIT = 256 * 1024 * 1024
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
    """What a scanner found.

    :param database: when its database was made; None where that is not known.
    :param ended: the system in the image, where its support has ended, so that nobody lists its vulnerabilities any more.
    :param knows_system: whether the packages of the system were looked at, not only those of languages.
    """

    found: list[Vulnerability]
    database: datetime | None = None
    ended: str = ""
    knows_system: bool = True


def parse_time(text: t.Any) -> datetime | None:
    """Read a time as Go programs write it (``2026-11-20T06:12:01.123456789Z``)."""
    try:
        bare = _FRACTION.sub("", str(text)).replace("Z", "+00:00")
        found = datetime.fromisoformat(bare)
    except ValueError:
        return None
    return found if found.tzinfo and found.year > 1 else None


def parse_trivy(text: str) -> Scan:
    """Read ``trivy image --format json``, which does not say how old its database is.

    :raises MaintenanceError: it names nothing that was looked at; an image without any package is not a sound one.
    """
    data = _object(text)
    results, system = _objects(data.get("Results")), _in(data, "Metadata", "OS")
    if not results:
        raise MaintenanceError("the scanner recognised nothing in the image")
    found = [
        Vulnerability(
            str(item.get("VulnerabilityID", "")),
            _severity(item.get("Severity")),
            str(item.get("PkgName", "")),
            str(item.get("InstalledVersion", "")),
            str(item.get("FixedVersion") or ""),
        )
        for result in results
        for item in _objects(result.get("Vulnerabilities"))
    ]
    ended = f"{system.get('Family')} {system.get('Name')}" if system.get("EOSL") else ""
    return Scan(found, ended=ended, knows_system=any(result.get("Class") == "os-pkgs" for result in results))


def parse_grype(text: str) -> Scan:
    """Read ``grype -o json``, which says itself how old its database is.

    :raises MaintenanceError: the answer has no list of matches, or an empty one of an image in which no system was recognised: it does
        not say what was looked at, so that may have been nothing.
    """
    data = _object(text)
    matches, system = data.get("matches"), _in(data, "distro")
    if not isinstance(matches, list):
        raise MaintenanceError("the scanner gave no list of matches")
    if not matches and not system.get("name"):
        raise MaintenanceError("the scanner recognised no system in the image")
    database = _in(data, "descriptor", "db")
    status = _in(database, "status") or database
    built = parse_time(status.get("built")) if status.get("valid", True) and not status.get("error") else None
    ended = f"{system.get('name')} {system.get('version')}" if data.get("alertsByPackage") else ""
    return Scan([_grype_match(match) for match in _objects(matches)], built, ended, bool(system.get("name")))


def _grype_match(match: t.Mapping[str, t.Any]) -> Vulnerability:
    found, artifact = _in(match, "vulnerability"), _in(match, "artifact")
    versions = _in(found, "fix").get("versions")
    fixed = ", ".join(map(str, versions if isinstance(versions, list) else []))
    name, version = str(artifact.get("name", "")), str(artifact.get("version", ""))
    return Vulnerability(str(found.get("id", "")), _severity(found.get("severity")), name, version, fixed)


def parse_trivy_database(text: str) -> datetime | None:
    """Read from ``trivy version --format json`` when its database was made."""
    try:
        return parse_time(_in(_object(text), "VulnerabilityDB").get("UpdatedAt"))
    except MaintenanceError:
        return None


def _object(text: str) -> dict[str, t.Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MaintenanceError(f"the scanner's answer is no JSON ({error})") from error
    if not isinstance(data, dict):
        raise MaintenanceError("the scanner did not answer with an object")
    return data


def _objects(items: t.Any) -> list[dict[str, t.Any]]:
    """Return items that have to be objects; nothing where there are none.

    :raises MaintenanceError: one is none, so what it says is not known.
    """
    found = items or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise MaintenanceError("the scanner's answer has another form than is known")
    return found


def _in(data: t.Mapping[str, t.Any], *names: str) -> t.Mapping[str, t.Any]:
    """Return an object inside others, an empty one where it is not there."""
    for name in names:
        inner = data.get(name)
        data = inner if isinstance(inner, dict) else {}
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
    # An answer may have many megabytes, so it goes to a file.
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "answer.json")
        if scanner == "trivy":
            options = ["--format", "json", "--scanners", "vuln", "--exit-code", "0", "--timeout", f"{timeout:.0f}s", "--output", path]
            ran = host.run(["trivy", "image", "--quiet", *options, image], timeout=timeout)
        else:
            ran = host.run(["grype", "--quiet", "--output", "json", "--file", path, image], timeout=timeout)
        # grype ends with 2 when it finds what its configuration forbids, and has then said all.
        if ran.rc != 0 and not (scanner == "grype" and ran.rc == 2 and os.path.exists(path)):
            raise MaintenanceError(ran.why())
        text = _answer(path)
    if scanner == "grype":
        return parse_grype(text)
    return parse_trivy(text)._replace(database=parse_trivy_database(host.run(["trivy", "version", "--format", "json"]).stdout))


def _answer(path: str) -> str:
    try:
        with open_regular(path) as source:
            data = source.read(_LIMIT + 1)
    except OSError as error:
        raise MaintenanceError(f"the scanner wrote no answer ({error.strerror})") from error
    if len(data) > _LIMIT:
        raise MaintenanceError(f"the scanner's answer is larger than {_LIMIT} bytes")
    return data.decode("utf-8", "replace")


def age_days(found: Scan, now: datetime) -> float | None:
    """Return how old the database is."""
    return (now.astimezone(timezone.utc) - found.database).total_seconds() / 86400 if found.database else None
