# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node.js projects: what is outdated, what is vulnerable, and an update of the named packages within their ranges."""

from __future__ import annotations

import json
import os
import tempfile
import typing as t

from . import dependencies, dependencies_known, osv
from .app_folder import AppFolder
from .dependencies import (
    AUDIT,
    LIMITS,
    Assessed,
    Change,
    audit_finding,
    offline_audit,
    run_all,
    uncompared_finding,
    uncompared_words,
    vulnerable_finding,
)
from .errors import MaintenanceError, VerifyError, refuse
from .host import Host, Ran
from .node_lock import Lock, declared_names
from .record import Finding, Metric, Outcome, unknown

OPTIONS: dict[str, t.Any] = {
    "projects": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "update": {"type": "list", "elements": "str", "default": []},
            "update_vulnerable": {"type": "bool", "default": False},
            "update_severity": {"type": "str", "choices": ["", "low", "moderate", "high", "critical"], "default": ""},
            "build_first": {"type": "bool", "default": False},
            **AUDIT,
            "production_only": {"type": "bool", "default": False},
            "audit_level": {"type": "str", "choices": ["critical", "high", "moderate", "low", "info"], "default": "info"},
            "test_command": {"type": "list", "elements": "str", "default": []},
        },
    },
    **LIMITS,
    **dependencies_known.OPTIONS,
}
ALL = "*"
"""Stands for every package that package.json names, in ``update``."""
_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
_SEVERITIES = ("critical", "high", "moderate", "low", "info")


class Outdated(t.NamedTuple):
    """A package with a newer version; ``wanted`` is the newest within the declared range."""

    current: str
    wanted: str
    latest: str


def parse_outdated(text: str) -> dict[str, Outdated]:
    """Read ``npm outdated --json``.

    :raises MaintenanceError: npm reported an error instead.
    """
    data = _answer(text)
    found = {}
    for name, item in data.items():
        first = item[0] if isinstance(item, list) and item else item
        if isinstance(first, dict) and "wanted" in first:
            found[name] = Outdated(*(str(first.get(key, "")) for key in ("current", "wanted", "latest")))
    return found


def parse_audit(text: str, level: str = "info") -> tuple[dict[str, int], list[str]]:
    """Read ``npm audit --json``: a count by severity, and a line for each vulnerable package, worst first.

    :param level: lines of packages that are less severe are left out; npm's own option changes nothing but its exit code.
    :raises MaintenanceError: npm reported an error, or the answer has no counts.
    """
    data = _answer(text)
    counts = (data.get("metadata") or {}).get("vulnerabilities")
    if not isinstance(counts, dict):
        raise MaintenanceError("npm audit gave no counts")
    found = [item for item in (data.get("vulnerabilities") or {}).values() if isinstance(item, dict)]
    milder = set(_SEVERITIES) - set(_from(level))
    order = {name: rank for rank, name in enumerate(_SEVERITIES)}
    found.sort(key=lambda item: (order.get(str(item.get("severity")), 9), str(item.get("name"))))
    return {name: int(counts.get(name, 0)) for name in _SEVERITIES}, [_line(item) for item in found if item.get("severity") not in milder]


def _from(level: str) -> tuple[str, ...]:
    """Return a severity and all that are worse."""
    return _SEVERITIES[: _SEVERITIES.index(level) + 1]


def fixable(text: str, least: str = "") -> list[str]:
    """Return the vulnerable packages of ``npm audit --json`` that have a fix within the declared ranges.

    :param least: leave out what is less severe; what says no severity is.
    """
    found = _answer(text).get("vulnerabilities") or {}
    items = {name: item for name, item in found.items() if isinstance(item, dict) and item.get("fixAvailable") is True}
    return sorted(name for name, item in items.items() if reaches(str(item.get("severity")), least))


def reaches(severity: str, least: str) -> bool:
    """Whether a severity is the least one asked for, or a worse one."""
    return not least or severity in _from(least)


def _line(item: t.Mapping[str, t.Any]) -> str:
    fix = item.get("fixAvailable")
    how = "no fix" if not fix else "fix within the range" if fix is True else "fix needs a new major version"
    if isinstance(fix, dict) and not fix.get("isSemVerMajor"):
        how = f"fix with {fix.get('name')} {fix.get('version')}"
    return f"{item.get('name')} ({item.get('severity')}): {how}"


def _answer(text: str) -> dict[str, t.Any]:
    data = json.loads(text or "{}")
    if not isinstance(data, dict):
        raise MaintenanceError("npm did not answer with an object")
    error = data.get("error")
    if error is not None or ("message" in data and "metadata" not in data):
        summary = error.get("summary") if isinstance(error, dict) else error
        raise MaintenanceError(f"npm answered: {summary or data.get('message') or 'an error without a reason'}")
    return data


_BLIND = "Install npm, or commit the lock file (npm install --package-lock-only)."


class Project:
    """One project with a ``package.json`` and a lock file."""

    def __init__(self, host: Host, declared: t.Mapping[str, t.Any], params: t.Mapping[str, t.Any]) -> None:
        self.host = host
        self.declared = declared
        self.params = params
        self.fixes: list[str] = []
        self.wanted = set(declared["update"])
        self.named: set[str] = set()
        self.folder = AppFolder(host, declared["path"], "projects.path")
        self.folder.require_file("package.json", "projects.path")

    @property
    def lock(self) -> str:
        """Return the lock file's path, empty when there is none."""
        paths = (os.path.join(self.folder.path, name) for name in _LOCKS)
        return next((path for path in paths if os.path.isfile(path)), "")

    def npm(self, *arguments: str, timeout: float, folder: AppFolder | None = None) -> Ran:
        """Run npm as the owner, with a cache of its own that goes afterwards."""
        with tempfile.TemporaryDirectory(prefix="ops_maintenance_npm_") as cache:
            os.chown(cache, self.folder.owner.st_uid, self.folder.owner.st_gid)
            wait = str(self.params["registry_timeout_seconds"] * 1000)
            env = {
                "npm_config_cache": cache,
                "npm_config_update_notifier": "false",
                "npm_config_fund": "false",
                "npm_config_fetch_retries": "1",
                "npm_config_fetch_timeout": wait,
                "npm_config_force": "false",
            }
            return (folder or self.folder).run(["npm", *arguments], timeout=timeout, env=env)

    def locked(self) -> Lock:
        """Read the lock file."""
        with open(self.lock, encoding="utf-8", errors="replace") as source:
            return Lock.of(source.read())

    def frozen(self) -> dict[str, str]:
        """Return the version of each place of the lock file."""
        return {package.place: package.version for package in self.locked().packages}

    def paths(self) -> list[str]:
        """Return what an update writes."""
        return [os.path.join(self.folder.path, name) for name in ("package.json", *_LOCKS, "node_modules")]

    def assess(self) -> Assessed:
        """Look at everything."""
        found = Assessed(self.folder.path)
        self.fixes, self.named = [], set()
        why = self._blind()
        if self.declared["audit"]:
            finding, metrics = self._offline() if self.declared["advisories"] else self._audit() if not why else (self._unseen(why), [])
            found.findings.append(finding)
            found.metrics += metrics
        if why:
            found.findings.append(unknown("node.outdated", self.folder.path, f"Not known: {why}.", _BLIND))
            return found
        finding, found.changes = self._outdated()
        pinned = self.frozen()
        for name in self.fixes:
            if name not in self.named:
                found.changes.append(Change(name, pinned.get(f"node_modules/{name}", "several"), "fixed version in range"))
        found.findings.append(finding)
        return found

    def _blind(self) -> str:
        if not self.host.which("npm"):
            return "npm is not installed"
        return "" if self.lock else "there is no lock file"

    def _unseen(self, why: str) -> Finding:
        return unknown("node.vulnerable", self.folder.path, f"Not known: {why}.", _BLIND)

    def _offline(self) -> tuple[Finding, list[Metric]]:
        """Compare the lock file with the declared database; that needs neither npm nor a registry."""
        try:
            if not self.lock:
                raise MaintenanceError("there is no lock file")
            lock = self.locked()
            production = self.declared["production_only"]
            packages = [package for package in lock.packages if package.registry and not (production and package.development)]
            audited = offline_audit(self.declared, {(p.name, p.version) for p in packages}, osv.NPM, self.host)
            unjudged = self._unjudged(lock)
        except (MaintenanceError, OSError) as error:
            return self._unseen(str(error).rstrip(".")), []
        audited.skipped += unjudged
        if self.declared["update_vulnerable"]:
            least = self.declared["update_severity"]
            self.wanted |= {advisory.package for advisory in audited.advisories if reaches(advisory.severity, least)}
        finding = audit_finding("node.vulnerable", self.folder.path, audited, self.declared["own_packages"])
        return finding, [Metric("node.vulnerable_packages", self.folder.path, len(audited.packages), "count")]

    def _unjudged(self, lock: Lock) -> list[str]:
        """Return what no advisory can name, as it is from no registry, and what is asked for but not locked.

        :raises MaintenanceError: ``package.json`` does not say what it asks for.
        """
        production = self.declared["production_only"]
        foreign = [p.name for p in lock.packages if not p.registry and not (production and p.development)]
        return foreign + lock.missing(self._declared_names(production))

    def _declared_names(self, production: bool) -> list[str]:
        """Return what ``package.json`` asks for.

        :raises MaintenanceError: it does not say.
        """
        with open(os.path.join(self.folder.path, "package.json"), encoding="utf-8", errors="replace") as source:
            return declared_names(source.read(), production)

    def _audit(self) -> tuple[Finding, list[Metric]]:
        arguments = ["--omit=dev"] if self.declared["production_only"] else []
        level = self.declared["audit_level"]
        try:
            ran = self.npm("audit", "--json", *arguments, timeout=300)
            counts, lines = parse_audit(ran.stdout, level)
            self.fixes = fixable(ran.stdout, self.declared["update_severity"]) if self.declared["update_vulnerable"] else []
        except (MaintenanceError, ValueError) as error:
            advice = "Make the registry reachable for the host (npm config set registry, proxy)."
            said = f"Vulnerabilities are not known: {error}"
            return unknown("node.vulnerable", self.folder.path, said, advice), []
        metrics = [Metric(f"node.vulnerable_{s}", self.folder.path, n, "count") for s, n in counts.items()]
        unjudged = [name for name in self._unjudged(self.locked()) if name not in self.declared["own_packages"]]
        omitted = "development dependencies" if self.declared["production_only"] else ""
        not_covered = "; ".join(filter(None, (omitted, uncompared_words(unjudged))))
        count = sum(counts[severity] for severity in _from(level))
        milder = sum(counts.values()) - count
        asked = "" if level == "info" else f" of severity {level} or worse"
        if unjudged and not count:
            return uncompared_finding("node.vulnerable", self.folder.path, len(unjudged), asked, milder, not_covered=not_covered), metrics
        finding = vulnerable_finding("node.vulnerable", self.folder.path, lines, count, asked, milder, not_covered=not_covered)
        return finding, metrics

    def _outdated(self) -> tuple[Finding, list[Change]]:
        subject = self.folder.path
        try:
            ran = self.npm("outdated", "--json", timeout=300)
            if ran.rc not in (0, 1) or (ran.rc == 1 and not ran.stdout.strip()) or "npm error" in ran.stderr:
                raise MaintenanceError(ran.why())
            outdated = parse_outdated(ran.stdout)
        except (MaintenanceError, ValueError) as error:
            advice = "Make the registry reachable for the host (npm config set registry, proxy)."
            return unknown("node.outdated", subject, f"What is outdated is not known: {error}", advice), []
        named = {name: item for name, item in outdated.items() if ALL in self.wanted or name in self.wanted}
        changes = [Change(n, i.current, i.wanted) for n, i in sorted(named.items()) if i.current != i.wanted]
        self.named = {change.name for change in changes}
        return (
            Finding(
                "node.outdated",
                "warning" if changes else "ok",
                subject,
                f"{len(outdated)} packages have a newer version, {len(changes)} of those named within their range.",
                len(outdated),
                "count",
                "warning when a package named for the update can be updated",
                advice="The next run in its window updates the named packages." if changes else "",
                evidence=[f"{n} {i.current} -> {i.wanted} (latest {i.latest})" for n, i in outdated.items()][:20],
            ),
            changes,
        )

    def update(self, changes: t.Sequence[Change]) -> None:
        """Update the named packages, and fix vulnerable ones, within their ranges; never with force."""
        if not self.declared["build_first"]:
            self._change(self.folder, changes)
            return
        with self.folder.copy(without=("node_modules", ".git")) as built:
            self._change(built, changes)
            problem = self._wrong(built)
            if problem:
                raise VerifyError(f"it does not work in a copy, and the project was not touched: {problem}")
            built.hand_over(
                [name for name in ("package.json", *_LOCKS) if os.path.isfile(os.path.join(built.path, name))], self.folder.path
            )
        ran = self.npm("ci", "--no-audit", timeout=self.params["test_timeout_seconds"])
        if ran.rc != 0:
            raise MaintenanceError(ran.why())

    def _change(self, folder: AppFolder, changes: t.Sequence[Change]) -> None:
        timeout = self.params["test_timeout_seconds"]
        # npm audit fix knows no severity, so what is chosen by it is updated by name.
        chosen = set(self.fixes) if self.declared["update_severity"] else set()
        names = [change.name for change in changes if change.name in self.named | chosen]
        if names:
            ran = self.npm("update", "--no-audit", "--", *names, timeout=timeout, folder=folder)
            if ran.rc != 0:
                raise MaintenanceError(ran.why())
        if self.fixes and not chosen:
            ran = self.npm("audit", "fix", "--json", timeout=timeout, folder=folder)
            if ran.rc not in (0, 1) or "npm error" in ran.stderr:  # 1: something without a fix in range is left
                raise MaintenanceError(ran.why())

    def check(self) -> str:
        """Check that what is installed fits the lock file, and run the build or test command."""
        return self._wrong(self.folder)

    def _wrong(self, folder: AppFolder) -> str:
        ran = self.npm("ls", "--json", timeout=120, folder=folder)
        if ran.rc != 0:
            return f"npm ls: {ran.why()}"
        command = self.declared["test_command"]
        if not command:
            return ""
        ran = folder.run(command, timeout=self.params["test_timeout_seconds"])
        return "" if ran.rc == 0 else f"the test command failed: {ran.why()}"


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    return dependencies.input_problems(params, "projects")


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every one and update what is named."""
    refuse(input_problems(params))
    return run_all("node", params["projects"], lambda declared: Project(host, declared, params), params, check_mode, host)
