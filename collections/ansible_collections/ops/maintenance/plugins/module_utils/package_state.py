# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state that updates leave a host in: broken packages, services on old files, reboot, configuration to compare."""

from __future__ import annotations

import fnmatch
import os
import typing as t
from dataclasses import dataclass

from . import reboot_need
from .apt_packages import Installed
from .host import Host
from .judge import many
from .reboot_need import REQUIRED, UNKNOWN, Source, Stale
from .record import Action, Finding

OPTIONS: dict[str, t.Any] = {
    "restart": {"type": "list", "elements": "str", "default": []},
    "restart_exclude": {"type": "list", "elements": "str", "default": []},
    "reboot_allowed": {"type": "bool", "default": False},
    "minimum_seconds": {"type": "int", "default": 600},
}
_LEFTOVERS = (".dpkg-dist", ".dpkg-new", ".ucf-dist", ".rpmnew", ".rpmsave")


@dataclass(frozen=True)
class State:
    """What was seen, before it is judged."""

    packages: t.Mapping[str, Installed]
    stale: Stale
    sources: t.Sequence[Source]
    leftovers: t.Sequence[str]
    boot: str

    @property
    def reboot(self) -> str:
        """Return ``required``, ``not_required`` or ``unknown``."""
        return reboot_need.decide(self.sources)

    def findings(self, reboot_allowed: bool) -> list[Finding]:
        """Judge everything."""
        return [
            broken_finding(self.packages),
            services_finding(self.stale),
            reboot_finding(self.sources, reboot_allowed),
            conffiles_finding(self.leftovers),
        ]


def look(host: Host, packages: t.Mapping[str, Installed]) -> State:
    """Look at the host."""
    return State(
        packages=packages,
        stale=reboot_need.stale_services(host),
        sources=reboot_need.sources(host, lambda release: _kernel_version(packages, release)),
        leftovers=leftovers(),
        boot=reboot_need.boot_marker(),
    )


def no_time(params: t.Mapping[str, t.Any], host: Host) -> bool:
    """Whether too little is left of the window to begin."""
    return bool(params["deadline"]) and params["deadline"] - host.now().timestamp() < params["minimum_seconds"]


def reboot_action(state: State, allowed: bool, late: bool) -> list[Action]:
    """Return the reboot that is due or deferred, when it is required and allowed."""
    if state.reboot != REQUIRED or not allowed:
        return []
    said = "the reboot does not fit into the window" if late else "a reboot is due"
    return [Action("host", "reboot", "deferred" if late else "due", said, {"boot": state.boot})]


def _kernel_version(packages: t.Mapping[str, Installed], release: str) -> str:
    package = packages.get(f"linux-image-{release}")
    return package.version if package else ""


def leftovers(folder: str = "/etc") -> list[str]:
    """Return the configuration files that a package brought while the local one was kept."""
    found = []
    for parent, _folders, names in os.walk(folder):
        found += [os.path.join(parent, name) for name in names if name.endswith(_LEFTOVERS)]
    return sorted(found)


def choose_restarts(stale: Stale, restart: t.Sequence[str], exclude: t.Sequence[str]) -> list[str]:
    """Return the units that may be restarted, the manager itself first."""
    allowed = [u for u in stale.units if _like(u, restart) and not _like(u, exclude)]
    return sorted(allowed, key=lambda unit: (unit != reboot_need.MANAGER, unit))


def restart_actions(units: t.Iterable[str]) -> list[Action]:
    """Return the restarts that are due."""
    return [Action(unit, "restart", "due", f"{unit} runs replaced files") for unit in units]


def _like(unit: str, patterns: t.Sequence[str]) -> bool:
    name = unit[: -len(".service")] if unit.endswith(".service") else unit
    return any(fnmatch.fnmatchcase(unit, pattern) or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def broken_finding(packages: t.Mapping[str, Installed]) -> Finding:
    """Judge whether every package of the database is installed as a whole."""
    broken = [package for package in packages.values() if not package.is_whole]
    if not packages:
        return Finding(
            "patching.broken",
            "unknown",
            "packages",
            "The package database names no package.",
            advice="Look at the package database of the host; an empty one is damaged.",
        )
    if broken:
        return Finding(
            "patching.broken",
            "critical",
            "packages",
            f"{many(len(broken), 'package')} not installed as a whole: {', '.join(p.name for p in broken[:5])}.",
            len(broken),
            "count",
            "critical from 1",
            advice="Read what the maintainer script said (/var/log/apt/term.log), repair it, then dpkg --configure -a.",
            evidence=[f"{p.name} {p.version}: {p.status} {'' if p.flag == 'ok' else p.flag}".strip() for p in broken],
        )
    return Finding("patching.broken", "ok", "packages", "Every package is installed as a whole.", 0, "count")


def services_finding(stale: Stale) -> Finding:
    """Judge which services still run replaced files."""
    if stale.unread and not stale.units:
        return Finding(
            "patching.services",
            "unknown",
            "services",
            f"{stale.unread} processes could not be looked at.",
            advice="Run with become: only root sees the files of every process.",
        )
    if stale.units:
        return Finding(
            "patching.services",
            "warning",
            "services",
            f"Files that an update replaced are still run by {many(len(stale.units), 'service')}.",
            len(stale.units),
            "count",
            "warning from 1",
            not_covered=f"{stale.unread} processes" if stale.unread else "",
            advice="Restart them (patching_service_restart), or reboot for those that cannot be restarted.",
            evidence=[f"{unit}: {', '.join(files[:2]) or 'says needrestart'}" for unit, files in stale.units.items()],
        )
    summary = f"No service runs replaced files; {stale.sessions} sessions of people do."
    return Finding("patching.services", "ok", "services", summary, 0, "count")


def reboot_finding(sources: t.Sequence[Source], allowed: bool) -> Finding:
    """Judge whether a reboot is needed."""
    verdict = reboot_need.decide(sources)
    reasons = [source.reason for source in sources if source.verdict == verdict]
    evidence = [f"{source.name}: {source.verdict}, {source.reason}" for source in sources]
    if verdict == REQUIRED:
        advice = "It comes as the last step of this run." if allowed else "Allow it (patching_reboot_allowed) or do it."
        said = f"A reboot is required: {'; '.join(reasons)}."
        return Finding("patching.reboot", "warning", "host", said, verdict, advice=advice, evidence=evidence)
    if verdict == UNKNOWN:
        said = "Whether a reboot is required is not known."
        advice = "Install needrestart, or compare the running kernel with the installed one by hand."
        return Finding("patching.reboot", "unknown", "host", said, verdict, advice=advice, evidence=evidence)
    return Finding("patching.reboot", "ok", "host", "No reboot is required.", verdict, evidence=evidence)


def conffiles_finding(paths: t.Sequence[str]) -> Finding:
    """List the configuration files that wait for a person to compare them."""
    if paths:
        return Finding(
            "patching.conffiles",
            "warning",
            "/etc",
            f"{len(paths)} configuration files were kept while the package brought another version.",
            len(paths),
            "count",
            "warning from 1",
            advice="Compare each with the file beside it, take over what is needed, and remove it.",
            evidence=paths[:20],
        )
    return Finding("patching.conffiles", "ok", "/etc", "No configuration file waits for a comparison.", 0, "count")
