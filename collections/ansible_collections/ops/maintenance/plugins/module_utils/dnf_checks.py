# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host with dnf can take the plan and fetch it, and which options have no effect there."""

from __future__ import annotations

import re
import typing as t

from . import apt_space, dnf_packages
from .apt_packages import Installed
from .errors import MaintenanceError
from .host import Host
from .judge import human_bytes, many
from .package_checks import Checks
from .record import Action, Finding, clean, unknown

_KERNEL = re.compile(r"^kernel(?:-(?!modules)[a-z0-9]+)*-core$")
Weight = t.Mapping[str, t.Any]
Conf = t.Mapping[str, str]


def look(params: t.Mapping[str, t.Any], host: Host, packages: t.Mapping[str, Installed], specs: t.Sequence[str], conf: Conf) -> Checks:
    """Look at the room that an installation by dnf needs, and say what is not looked at or done there; changes nothing."""
    space = space_finding(host, specs, conf, params["space_reserve_bytes"])
    obstacles = {"critical": f"{space.subject} has no room for it", "unknown": "whether there is room for it is not known"}
    return Checks([space, *ignored(params), *unattended(packages)], obstacle=obstacles.get(space.state, ""))


def weigh(host: Host, specs: t.Sequence[str], conf: Conf) -> list[Weight]:
    """Ask dnf what installing these takes.

    :raises MaintenanceError: it could not say.
    """
    answer = dnf_packages.ask(host, {"conf": conf, "specs": list(specs)}) if specs else {"weights": []}
    if "problem" in answer:
        raise MaintenanceError(clean(f"dnf could not say what the installation takes: {answer['problem'].strip()}", 300))
    return list(answer["weights"])


def needs(weights: t.Sequence[Weight]) -> dict[str, int]:
    """Return how many bytes the plan needs, by folder; unpacking takes all growth, and the largest package twice."""
    if not weights:
        return {}
    growth = sum(max(0, item["unpacked"] - item["replaced"]) for item in weights)
    kernels = sum(1 for item in weights if _KERNEL.match(item["name"]))
    found = {
        dnf_packages.CACHE_DIR: sum(item["fetch"] for item in weights),
        apt_space.UNPACKED: growth + max(item["unpacked"] for item in weights),
    }
    return {**found, apt_space.BOOT: kernels * apt_space.kernel_bytes()} if kernels else found


def space_finding(host: Host, specs: t.Sequence[str], conf: Conf, reserve: int) -> Finding:
    """Judge whether there is room for the plan."""
    try:
        wanted = needs(weigh(host, specs, conf))
    except MaintenanceError as error:
        return unknown("patching.space", "file systems", str(error), "Look what dnf install --assumeno says of these packages.")
    return apt_space.space_finding(wanted, {path: apt_space.room(path) for path in wanted}, reserve)


def ignored(params: t.Mapping[str, t.Any]) -> list[Finding]:
    """Say of each option that is set and does nothing with dnf that it does nothing."""
    found = []
    if params.get("repair"):
        said = "An interrupted transaction is not repaired: patching_repair has no effect with dnf."
        advice = (
            "Look at patching.broken and at what dnf check says, and repair it by hand (dnf distro-sync of what is named, dnf history)."
        )
        found.append(unknown("patching.interrupted", "package database", said, advice))
    options = [name for name in ("kernels_keep", "autoremove", "remove") if params.get(name)]
    if options:
        named = " and ".join("the list to remove" if name == "remove" else f"patching_{name}" for name in options)
        said = (
            f"Nothing is removed, and what could be was not looked at: {named} {'has' if len(options) == 1 else 'have'} no effect with dnf."
        )
        advice = "Let dnf keep fewer kernels (installonly_limit in /etc/dnf/dnf.conf), and look what dnf autoremove --assumeno says."
        found.append(unknown("patching.removable", "packages", said, advice))
    return found


def unattended(packages: t.Collection[str]) -> list[Finding]:
    """Say where dnf-automatic is there, whose configuration is not read."""
    if "dnf-automatic" not in packages:
        return []
    said = "dnf-automatic is installed; whether it updates what the inventory keeps was not looked at."
    advice = "Set apply_updates = no in /etc/dnf/automatic.conf and turn off dnf-automatic-install.timer, or remove it."
    return [unknown("patching.unattended", "dnf-automatic", said, advice)]


def download(host: Host, specs: t.Sequence[str], check_mode: bool, lock_timeout: float) -> list[Action]:
    """Fetch what the plan needs into dnf's cache and look whether it is all there; dnf itself waits for others that hold its lock."""
    said = f"{many(len(specs), 'package')} and what they need"
    try:
        left = _missing(host, specs)
    except MaintenanceError as error:
        if check_mode:  # it was planned from metadata of its own
            return [Action("packages", "download", "due", f"{said} to be fetched")]
        return [Action("packages", "download", "failed", str(error))]
    if not left:
        return []
    said = f"{human_bytes(left)} for {said}"
    if check_mode:
        return [Action("packages", "download", "due", f"{said} to be fetched")]
    ran = host.run(["dnf", "-y", "--downloadonly", "install", *specs], timeout=3600 + lock_timeout)
    try:
        missing = _missing(host, specs)
    except MaintenanceError as error:
        return [Action("packages", "download", "failed", str(error))]
    if missing:
        return [Action("packages", "download", "failed", clean(f"{human_bytes(missing)} of {said} could not be fetched: {ran.why()}"))]
    return [Action("packages", "download", "changed", f"{said} fetched", {"bytes": left}, {"bytes": 0})]


def _missing(host: Host, specs: t.Sequence[str]) -> int:
    return sum(item["fetch"] for item in weigh(host, specs, {}))
