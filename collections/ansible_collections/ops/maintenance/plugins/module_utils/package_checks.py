# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host with apt can take the plan: an interrupted dpkg, room, unattended-upgrades, what would be removed."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from . import apt_health, apt_space
from .apt_packages import OWN_LISTS, Installed, Lists
from .errors import InputError, out_of_range
from .host import Host
from .package_plan import Plan, Rules
from .record import Action, Finding

OPTIONS: dict[str, t.Any] = {
    "repair": {"type": "bool", "default": False},
    "space_reserve_bytes": {"type": "int", "default": 100 * 1024 * 1024},
    "kernels_keep": {"type": "int", "default": 0},
    "autoremove": {"type": "bool", "default": False},
}


@dataclass(frozen=True)
class Checks:
    """What was seen, what is due before an installation, and what keeps it from beginning (``obstacle``)."""

    findings: list[Finding] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    obstacle: str = ""


def look(
    params: t.Mapping[str, t.Any], host: Host, packages: t.Mapping[str, Installed], plan: Plan, rules: Rules, lists: Lists = OWN_LISTS
) -> Checks:
    """Look at everything that an installation by apt needs; changes nothing."""
    health = apt_health.look(host, packages, lists)
    removal = apt_health.removable(host, packages, os.uname().release, params["kernels_keep"], lists)
    wanted = apt_space.needs(host, [*plan.wanted, *plan.pulled], lists)
    space = apt_space.space_finding(wanted, {path: apt_space.room(path) for path in wanted}, params["space_reserve_bytes"])
    remove = [*removal.kernels, *(removal.unneeded if params["autoremove"] else [])]
    repairs = health.repairs() if params["repair"] else []
    return Checks(
        [
            apt_health.interrupted_finding(health, params["repair"]),
            space,
            apt_health.unattended_finding(host, packages, rules),
            apt_health.removal_finding(removal, params["kernels_keep"], params["autoremove"]),
        ],
        [apt_health.repair_action(repair, "due") for repair in repairs]
        + [Action(name, "remove", "due", f"{name} is to be removed") for name in remove],
        remove,
        _obstacle(health, params["repair"], space),
    )


def _obstacle(health: apt_health.Health, repair: bool, space: Finding) -> str:
    if health.journal and not repair:
        return "dpkg was interrupted and its repair is not allowed"
    return "" if space.state == "ok" else f"{space.subject} has no room for it"


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("space_reserve_bytes", "kernels_keep"))
    if params.get("kernels_keep") == 1:
        problems.append(str(InputError.of("kernels_keep", 1, "2 or more, or 0 to leave kernels alone", "keep one to fall back on")))
    return problems
