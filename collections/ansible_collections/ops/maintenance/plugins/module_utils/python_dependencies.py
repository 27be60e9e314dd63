# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python environments: what is outdated, what is vulnerable, and an update of the named packages."""

from __future__ import annotations

import json
import os
import re
import tempfile
import typing as t

from . import dependencies, dependencies_known, osv
from .app_folder import AppFolder
from .dependencies import AUDIT, LIMITS, Assessed, Audited, Change, audit_finding, existing, offline_audit, run_all
from .errors import InputError, MaintenanceError, refuse
from .host import Host, Ran
from .record import Finding, Metric, Outcome, unknown

OPTIONS: dict[str, t.Any] = {
    "environments": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "requirements": {"type": "path", "default": ""},
            "update": {"type": "list", "elements": "str", "default": []},
            "update_vulnerable": {"type": "bool", "default": False},
            **AUDIT,
            "test_command": {"type": "list", "elements": "str", "default": []},
        },
    },
    **LIMITS,
    **dependencies_known.OPTIONS,
}
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*([^;#@]*)(;[^#]*)?(?:\s*#.*)?$")
_INCOMPLETE = re.compile(r"WARNING: Retrying|Could not fetch|ERROR: ", re.IGNORECASE)


def constraints(text: str) -> tuple[list[str], list[str]]:
    """Turn requirements into constraints (no extras, no options); return those and the lines that say no range."""
    allowed, skipped = [], []
    for line in text.replace("\\\n", " ").splitlines():
        bare = re.sub(r"\s+--hash=\S+", "", line).strip()
        if not bare or bare.startswith("#"):
            continue
        match = _REQUIREMENT.match(bare)
        if match is None or bare.startswith("-") or "://" in bare:
            skipped.append(bare)
        elif match.group(2).strip():
            allowed.append(f"{match.group(1)}{match.group(2).strip()}{match.group(3) or ''}".strip())
    return allowed, skipped


def same_major(installed: t.Mapping[str, str], declared: t.Sequence[str]) -> list[str]:
    """Return a constraint that keeps each package within its major version, where its range is not declared.

    A year (``2024.8.30``) says nothing of what breaks.
    """
    named = {osv.normal_name(match.group(1)) for match in map(_REQUIREMENT.match, declared) if match}
    majors = {name: re.match(r"\d+(?=\.|$)", version) for name, version in installed.items() if osv.normal_name(name) not in named}
    return [f"{name}<{int(major.group()) + 1}" for name, major in sorted(majors.items()) if major and int(major.group()) < 1990]


def parse_packages(text: str) -> dict[str, str]:
    """Read ``pip list --format json``."""
    return {str(item["name"]): str(item["version"]) for item in json.loads(text)}


def parse_outdated(text: str) -> dict[str, str]:
    """Read ``pip list --outdated --format json``: name to newest version."""
    return {str(item["name"]): str(item["latest_version"]) for item in json.loads(text)}


def parse_report(text: str, installed: t.Mapping[str, str]) -> list[Change]:
    """Read ``pip install --dry-run --report``: what would be installed."""
    known = {osv.normal_name(name): (name, version) for name, version in installed.items()}
    changes = []
    for item in json.loads(text)["install"]:
        name, version = str(item["metadata"]["name"]), str(item["metadata"]["version"])
        shown, before = known.get(osv.normal_name(name), (name, ""))
        changes.append(Change(shown, before, version))
    return sorted(changes)


def parse_pip_audit(text: str) -> tuple[list[osv.Advisory], list[str]]:
    """Read ``pip-audit --format json``: the advisories, and the packages that it skipped."""
    found, skipped = [], []
    for item in json.loads(text)["dependencies"]:
        if "skip_reason" in item:
            skipped.append(str(item["name"]))
        for vuln in item.get("vulns", []):
            ids = (str(vuln["id"]), *map(str, vuln.get("aliases", [])))
            fixed = next(iter(vuln.get("fix_versions", [])), "")
            found.append(osv.Advisory(str(item["name"]), str(item["version"]), ids, str(fixed)))
    return found, skipped


class Environment:
    """One virtual environment."""

    def __init__(self, host: Host, declared: t.Mapping[str, t.Any], params: t.Mapping[str, t.Any]) -> None:
        self.host = host
        self.declared = declared
        self.params = params
        self.folder = AppFolder(host, declared["path"], "environments.path")
        self.folder.require_file("bin/python", "environments.path")
        requirements = declared["requirements"]
        if requirements and not existing(requirements):
            raise InputError.of("environments.requirements", requirements, "an existing file", "correct the path")

    def pip(self, *arguments: str, timeout: float = 120) -> Ran:
        """Run the environment's own pip as the owner, never asking, never caching."""
        python = os.path.join(self.folder.path, "bin/python")
        quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_NO_CACHE_DIR": "1"}
        limit = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": str(self.params["registry_timeout_seconds"])}
        no_trace = {"PYTHONDONTWRITEBYTECODE": "1"}
        return self.folder.run([python, "-m", "pip", *arguments], timeout=timeout, env={**quiet, **limit, **no_trace})

    def frozen(self) -> dict[str, str]:
        """Ask pip what is installed."""
        ran = self.pip("list", "--format", "json")
        if ran.rc != 0:
            raise MaintenanceError(f"pip of {self.folder.path} does not answer: {ran.why()}; repair the environment.")
        return parse_packages(ran.stdout)

    def paths(self) -> list[str]:
        """Return the environment itself."""
        return [self.folder.path]

    def assess(self) -> Assessed:
        """Look at everything."""
        installed = self.frozen()
        found = Assessed(self.folder.path)
        found.metrics.append(Metric("python.packages", self.folder.path, len(installed), "count"))
        found.findings.append(self._consistent())
        vulnerable: list[str] = []
        if self.declared["audit"]:
            finding, vulnerable = self._audit(installed)
            found.findings.append(finding)
        wanted = [*self.declared["update"], *(vulnerable if self.declared["update_vulnerable"] else [])]
        finding, found.changes = self._outdated(installed, sorted(set(wanted)))
        found.findings.append(finding)
        return found

    def _consistent(self) -> Finding:
        ran = self.pip("check")
        lines = [line for line in ran.stdout.splitlines() if line.strip()]
        if ran.rc == 0 and any("No broken requirements found" in line for line in lines):
            return Finding("python.consistent", "ok", self.folder.path, "Every requirement of its packages is met.")
        return Finding(
            "python.consistent",
            "warning",
            self.folder.path,
            f"{len(lines)} requirements of its packages are not met.",
            len(lines),
            "count",
            "warning from 1",
            advice="Install the missing or fitting versions, or build the environment anew.",
            evidence=lines[:20],
        )

    def _audit(self, installed: t.Mapping[str, str]) -> tuple[Finding, list[str]]:
        try:
            audited = self._audited(installed)
        except (MaintenanceError, ValueError, KeyError, TypeError) as error:
            advice = "Declare an offline database (advisories), or install pip-audit and let it reach its source."
            said = f"Vulnerabilities are not known: {error}"
            return unknown("python.vulnerable", self.folder.path, said, advice), []
        return audit_finding("python.vulnerable", self.folder.path, audited, self.declared["own_packages"]), audited.packages

    def _audited(self, installed: t.Mapping[str, str]) -> Audited:
        if self.declared["advisories"]:
            return offline_audit(self.declared, installed.items(), osv.PYPI, self.host)
        tool = os.path.join(self.folder.path, "bin/pip-audit")
        if not os.path.exists(tool) and not self.host.which("pip-audit"):
            raise MaintenanceError("pip-audit is not installed and no advisory database is declared.")
        site = self.folder.run([os.path.join(self.folder.path, "bin/python"), "-c", _SITE], timeout=60)
        command = tool if os.path.exists(tool) else "pip-audit"
        arguments = ["--format", "json", "--progress-spinner", "off", "--path", site.stdout.strip()]
        ran = self.folder.run([command, *arguments], timeout=self.params["registry_timeout_seconds"] * 5)
        if ran.rc not in (0, 1) or not ran.stdout.strip():
            raise MaintenanceError(ran.why())
        return Audited(*parse_pip_audit(ran.stdout))

    def _outdated(self, installed: t.Mapping[str, str], wanted: list[str]) -> tuple[Finding, list[Change]]:
        subject = self.folder.path
        known = {osv.normal_name(name) for name in installed}
        absent = [name for name in wanted if osv.normal_name(name) not in known]
        wanted = [name for name in wanted if name not in absent]
        advice = "Make the package index reachable for the host, or give pip one (pip.conf)."
        try:
            ran = self.pip("list", "--outdated", "--format", "json", timeout=900)
            if ran.rc != 0 or _INCOMPLETE.search(ran.stderr):
                raise MaintenanceError(f"the package index did not answer: {ran.why()}")
            outdated = parse_outdated(ran.stdout)
            changes = self._plan(wanted, installed) if wanted else []
        except (MaintenanceError, ValueError, KeyError) as error:
            return unknown("python.outdated", subject, f"What is outdated is not known: {error}", advice), []
        lines = [f"{name} {installed.get(name, '')} -> {latest}" for name, latest in outdated.items()]
        not_covered = f"not installed: {', '.join(absent)}" if absent else ""
        said = f"{len(outdated)} of {len(installed)} packages have a newer version, {len(changes)} would be changed."
        if changes:
            lines = [f"{c.name} {c.before or 'new'} -> {c.after} (planned)" for c in changes] + lines
        return (
            Finding(
                "python.outdated",
                "warning" if changes or absent else "ok",
                subject,
                said,
                len(outdated),
                "count",
                "warning when a package named for the update can be updated",
                not_covered=not_covered,
                advice="The next run in its window updates the named packages." if changes or absent else "",
                evidence=lines[:20],
            ),
            changes,
        )

    def _plan(self, wanted: list[str], installed: t.Mapping[str, str]) -> list[Change]:
        with tempfile.NamedTemporaryFile("w", prefix="ops_maintenance_", suffix=".txt", encoding="utf-8") as limits:
            os.chmod(limits.name, 0o644)
            declared = self._constraints()
            limits.write("\n".join([*declared, *same_major(installed, declared)]) + "\n")
            limits.flush()
            ran = self.pip(
                "install", "--dry-run", "--quiet", "--report", "-", "--upgrade", "--upgrade-strategy=only-if-needed",
                "--constraint", limits.name, "--", *wanted, timeout=900,
            )  # fmt: skip
        if ran.rc != 0:
            raise MaintenanceError(ran.why())
        return parse_report(ran.stdout, installed)

    def _constraints(self) -> list[str]:
        path = self.declared["requirements"]
        if not path:
            return []
        with open(path, encoding="utf-8", errors="replace") as source:
            return constraints(source.read())[0]

    def update(self, changes: t.Sequence[Change]) -> None:
        """Install exactly what was planned."""
        specs = [f"{change.name}=={change.after}" for change in changes]
        ran = self.pip("install", "--no-deps", "--", *specs, timeout=self.params["test_timeout_seconds"])
        if ran.rc != 0:
            raise MaintenanceError(ran.why())

    def check(self) -> str:
        """Check the requirements and run the test command."""
        consistent = self._consistent()
        if consistent.state != "ok":
            return f"{consistent.summary} {'; '.join(consistent.evidence[:3])}"
        command = self.declared["test_command"]
        if not command:
            return ""
        ran = self.folder.run(command, timeout=self.params["test_timeout_seconds"])
        return "" if ran.rc == 0 else f"the test command failed: {ran.why()}"


_SITE = "import sysconfig; print(sysconfig.get_paths()['purelib'])"


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    return dependencies.input_problems(params, "environments")


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every one and update what is named."""
    refuse(input_problems(params))
    return run_all("python", params["environments"], lambda declared: Environment(host, declared, params), params, check_mode, host)
