# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether apt and dpkg are fit to install: interrupted or broken, other tools at work, what could be removed."""

from __future__ import annotations

import os
import re
import typing as t

from .apt_packages import OWN_LISTS, Installed, Lists, simulate
from .host import Host
from .judge import many
from .package_plan import Rules, held_by
from .package_versions import compare
from .record import Action, Finding

DPKG_UPDATES = "/var/lib/dpkg/updates"
CONFIGURE, FIX = "configure", "fix_broken"
COMMANDS = {
    CONFIGURE: ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"],
    FIX: ["apt-get", "-y", "--no-remove", "-o", "Dpkg::Options::=--force-confold", "--fix-broken", "install"],
}
_LEFT = ("unpacked", "half-configured", "triggers-awaited", "triggers-pending")
_CONFIG = re.compile(r'^([A-Za-z0-9:_.-]+?)(?:::)? "(.*)";$')
_KERNEL = re.compile(r"^linux-(?:image|headers|modules|modules-extra)(?:-unsigned)?-(\d[^:]*)$")


class Health(t.NamedTuple):
    """What an interrupted or broken installation left; ``unfixable`` says why apt cannot repair it without a person."""

    journal: bool
    left: tuple[str, ...]
    broken: str
    unfixable: str = ""
    half_installed: tuple[str, ...] = ()

    def repairs(self) -> list[str]:
        """Return which repairs would help, in order."""
        configure = [CONFIGURE] if self.journal or self.left else []
        return configure + ([FIX] if self.broken and not self.unfixable else [])


def look(host: Host, packages: t.Mapping[str, Installed], lists: Lists = OWN_LISTS, updates: str = DPKG_UPDATES) -> Health:
    """Ask for the journal of an interrupted dpkg, packages left half done, and unmet dependencies."""
    try:
        journal = any(name.isdigit() for name in os.listdir(updates))
    except FileNotFoundError:
        journal = False
    left = tuple(sorted(package.name for package in packages.values() if package.status in _LEFT))
    broken = simulate(host, ["install"], lists).problem
    half_installed = tuple(sorted(package.name for package in packages.values() if package.status == "half-installed"))
    return Health(journal, left, broken, _unfixable(host, lists) if broken else "", half_installed)


def _unfixable(host: Host, lists: Lists) -> str:
    fixed = simulate(host, ["--fix-broken", "install"], lists)
    removed = [step.name for step in fixed.of("Remv", "Purg")]
    return fixed.problem or (f"it would remove {', '.join(removed)}" if removed else "")


def interrupted_finding(health: Health, allowed: bool) -> Finding:
    """Judge whether an installation was interrupted or left dependencies unmet."""
    said = ["dpkg was interrupted"] if health.journal else []
    said += [f"{many(len(health.left), 'package')} half done ({', '.join(health.left[:5])})"] if health.left else []
    cut = ", ".join(health.half_installed[:5])
    said += [f"{many(len(health.half_installed), 'package')} half installed ({cut}), which only installing again mends"] if cut else []
    said += [f"dependencies are not met: {health.broken}"] if health.broken else []
    said += [f"apt cannot repair that by itself: {health.unfixable}"] if health.unfixable else []
    if not said:
        return Finding("patching.interrupted", "ok", "package database", "No installation was interrupted, no dependency is unmet.")
    advice = (
        "This run repairs it first."
        if allowed and health.repairs()
        else "Allow the repair (patching_repair), or run dpkg --configure -a and look."
    )
    if cut:
        advice += " What is half installed: let this run update it, or run apt-get install --reinstall for it."
    return Finding("patching.interrupted", "critical", "package database", f"{'; '.join(said)}.", advice=advice)


def repair_action(repair: str, status: str, said: str = "") -> Action:
    """Return a repair as an action, with the command that it is."""
    return Action("package database", repair, status, " ".join(COMMANDS[repair]) + (f": {said}" if said else ""))


def parse_config(text: str) -> dict[str, list[str]]:
    """Read ``apt-config dump``; an option that is a list has several values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = _CONFIG.match(line)
        if match and (match.group(2) or not found.get(match.group(1))):
            found.setdefault(match.group(1), []).append(match.group(2))
    return found


def unattended_problems(config: t.Mapping[str, t.Sequence[str]], names: t.Iterable[str], rules: Rules) -> list[str]:
    """Return where unattended-upgrades, when it is on, works against what the inventory says."""
    if not any(value not in ("", "0") for value in config.get("APT::Periodic::Unattended-Upgrade", ())):
        return []
    if not any(value not in ("", "0") for value in config.get("APT::Periodic::Enable", ("1",))):
        return []
    listed = [pattern for pattern in config.get("Unattended-Upgrade::Package-Blacklist", ()) if pattern]
    kept = [name for name in names if is_kept(name, rules) and not any(_matches(pattern, name) for pattern in listed)]
    problems = []
    if kept:
        shown = ", ".join(sorted(kept)[:5])
        problems.append(f"it may update {shown}{' and more' if len(kept) > 5 else ''}, which the inventory keeps")
    if any(value.lower() in ("true", "1", "yes") for value in config.get("Unattended-Upgrade::Automatic-Reboot", ())):
        problems.append("it reboots the host by itself")
    return problems


def is_kept(name: str, rules: Rules) -> bool:
    """Whether the inventory says anything of a package; holds of dpkg are honoured by unattended-upgrades as well."""
    return held_by(name, [*rules.hold, *rules.pins, *(entry.partition("=")[0] for entry in rules.blocklist)])


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.match(pattern, name) is not None
    except re.error:
        return False


def unattended_finding(host: Host, packages: t.Mapping[str, Installed], rules: Rules) -> Finding:
    """Judge whether unattended-upgrades and this role want the same."""
    common: dict[str, t.Any] = {"id": "patching.unattended", "subject": "unattended-upgrades"}
    if "unattended-upgrades" not in packages:
        return Finding(state="ok", summary="unattended-upgrades is not installed.", **common)
    ran = host.run(["apt-config", "dump"])
    if ran.rc != 0:
        advice = "Repair the configuration of apt; apt-config dump says what is wrong."
        return Finding(state="unknown", summary=f"The configuration of apt cannot be read: {ran.why()}", advice=advice, **common)
    problems = unattended_problems(parse_config(ran.stdout), packages, rules)
    if not problems:
        return Finding(state="ok", summary="unattended-upgrades does nothing that the inventory forbids.", **common)
    advice = "Name these packages in Unattended-Upgrade::Package-Blacklist as well, and let this role reboot."
    return Finding(state="warning", summary=f"unattended-upgrades is on, and {'; '.join(problems)}.", advice=advice, **common)


def old_kernels(packages: t.Iterable[str], running: str, keep: int) -> list[str]:
    """Return the packages of old kernels, each with its headers and modules: all but the newest few and the running one.

    :param keep: how many to keep; 0 keeps all.
    """
    by_release: dict[str, list[str]] = {}
    for name in packages:
        match = _KERNEL.match(name)
        if match and any(c == "-" for c in match.group(1)):
            by_release.setdefault(match.group(1), []).append(name)
    images = [release for release, names in by_release.items() if any(name.startswith("linux-image-") for name in names)]
    flavours: dict[str, list[str]] = {}
    for release in images:
        flavours.setdefault(release.rsplit("-", 1)[-1], []).append(release)
    old = []
    for releases in flavours.values():
        ordered = sorted(releases, key=_Ordered, reverse=True)
        old += [release for release in ordered[max(keep, 1) :] if release != running] if keep else []
    return sorted(name for release in old for name in by_release[release])


class _Ordered(str):
    """A kernel release that sorts as a version."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return compare(self, other) < 0


class Removal(t.NamedTuple):
    """What could be removed: packages of old kernels, packages that nothing needs any more; or why that cannot be told."""

    kernels: t.Sequence[str] = ()
    unneeded: t.Sequence[str] = ()
    problem: str = ""


def removable(host: Host, packages: t.Iterable[str], running: str, keep: int, lists: Lists = OWN_LISTS) -> Removal:
    """Preview both removals; kernels whose removal would take anything else along stay."""
    kernels = old_kernels(packages, running, keep)
    simulated = simulate(host, ["autoremove"], lists)
    unneeded = sorted({step.name for step in simulated.of("Remv", "Purg")} - set(kernels))
    if simulated.problem or not kernels:
        return Removal((), unneeded, simulated.problem)
    would = simulate(host, ["remove", *kernels], lists)
    more = sorted({step.name for step in would.of("Remv", "Purg")} ^ set(kernels))
    if would.problem or more:
        return Removal((), unneeded, would.problem or f"removing the old kernels would change more: {', '.join(more[:5])}")
    return Removal(kernels, unneeded)


def removal_finding(removal: Removal, keep: int, autoremove: bool) -> Finding:
    """Preview what would be removed; nothing is ever removed that was not named here before."""
    common: dict[str, t.Any] = {"id": "patching.removable", "subject": "packages"}
    if removal.problem:
        advice = "Repair the package database, or look with apt-get --just-print autoremove (dnf autoremove --assumeno)."
        return Finding(state="unknown", summary=f"What could be removed is not known: {removal.problem}", advice=advice, **common)
    said = f"{many(len(removal.unneeded), 'package is', 'packages are')} no longer needed and {'go' if autoremove else 'stay'}"
    said += f"; {many(len(removal.kernels), 'package')} of kernels beyond the {keep} to keep" if keep else ""
    evidence = [f"old kernel: {name}" for name in removal.kernels] + [f"not needed: {name}" for name in removal.unneeded]
    count = len(removal.unneeded) + len(removal.kernels)
    return Finding(state="ok", summary=f"{said}.", value=count, unit="count", evidence=evidence, **common)
