# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host with dnf can take the plan, and fetching it."""

from __future__ import annotations

import os
import re
import typing as t

from . import apt_space, dnf_automatic, dnf_health, dnf_packages, dnf_removal
from .apt_packages import Installed
from .errors import MaintenanceError
from .host import Host
from .judge import human_bytes, many
from .package_checks import Checks
from .package_plan import Rules
from .record import Action, Finding, clean, unknown

_KERNEL = re.compile(r"^kernel(?:-(?!modules)[a-z0-9]+)*-core$")
_OBSTACLES = {"critical": "{} has no room for it", "unknown": "whether there is room for it is not known"}
Weight = t.Mapping[str, t.Any]
Conf = t.Mapping[str, str]


def look(
    params: t.Mapping[str, t.Any],
    host: Host,
    packages: t.Mapping[str, Installed],
    specs: t.Sequence[str],
    rules: Rules,
    conf: Conf,
) -> Checks:
    """Look at everything that an installation by dnf needs; changes nothing."""
    health = dnf_health.look(host, conf)
    removal, limit = dnf_removal.removable(host, conf, os.uname().release, params["kernels_keep"])
    remove = [*removal.kernels, *(removal.unneeded if params["autoremove"] else [])]
    space = space_finding(host, specs, conf, params["space_reserve_bytes"])
    repairs = health.repairs() if params["repair"] else []
    return Checks(
        [
            dnf_health.interrupted_finding(health, params["repair"]),
            space,
            dnf_automatic.finding(host, packages, rules),
            dnf_removal.finding(removal, limit, params["kernels_keep"], params["autoremove"]),
        ],
        [dnf_health.repair_action(health, repair, "due") for repair in repairs]
        + [Action(name, "remove", "due", f"{name} is to be removed") for name in remove],
        remove,
        dnf_health.obstacle(health, params["repair"]) or _OBSTACLES.get(space.state, "").format(space.subject),
    )


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
