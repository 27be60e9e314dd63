# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host with apt needs before an installation: repair what was interrupted, remove what was previewed, fetch what was planned."""

from __future__ import annotations

import typing as t

from . import apt_health, apt_packages, apt_space
from .apt_packages import OWN_LISTS, UNTOUCHED, Lists
from .errors import VerifyError
from .host import Host
from .judge import human_bytes, many
from .record import Action, clean

_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "APT_LISTCHANGES_FRONTEND": "none"}


def _lists(check_mode: bool) -> Lists:
    return UNTOUCHED if check_mode else OWN_LISTS


def repair(host: Host, check_mode: bool) -> list[Action]:
    """Run the repairs that are due, one after the other, and look again whether they helped."""
    due = apt_health.look(host, apt_packages.installed(host), _lists(check_mode)).repairs()
    if check_mode:
        return [apt_health.repair_action(repair, "due") for repair in due]
    said = {repair: host.run(apt_health.COMMANDS[repair], timeout=3600, env=_QUIET) for repair in due}
    left = apt_health.look(host, apt_packages.installed(host)).repairs() if due else []
    return [
        apt_health.repair_action(repair, "failed" if repair in left else "changed", ran.why() if repair in left else "")
        for repair, ran in said.items()
    ]


def remove(host: Host, names: t.Sequence[str], check_mode: bool) -> list[Action]:
    """Remove exactly the packages that were previewed; when apt would remove anything else, nothing."""
    packages = apt_packages.installed(host) if names else {}
    present = [name for name in names if name in packages]
    if not present:
        return []
    would = {step.name for step in apt_packages.simulate(host, ["remove", *present], _lists(check_mode)).of("Remv", "Purg")}
    if would != set(present):
        more = ", ".join(sorted(would ^ set(present))[:5])
        raise VerifyError(f"Nothing was removed: removing {', '.join(present[:5])} would not be what was previewed ({more}). Look at it.")
    if check_mode:
        return [Action(name, "remove", "due", f"{name} is to be removed") for name in present]
    host.run(["apt-get", "-y", "remove", *present], timeout=1800, env=_QUIET)
    packages = apt_packages.installed(host)
    return [removed(name, name in packages) for name in present]


def removed(name: str, is_there: bool) -> Action:
    """Say whether a package is gone, as the package database has it."""
    return Action(name, "remove", "failed" if is_there else "changed", f"{name} is {'still there' if is_there else 'removed'}")


def download(host: Host, specs: t.Sequence[str], check_mode: bool) -> list[Action]:
    """Fetch what the plan needs into apt's cache and look whether it is all there."""
    left = _missing_bytes(host, specs, _lists(check_mode))
    if not left:
        return []
    said = f"{human_bytes(left)} for {many(len(specs), 'package')}"
    if check_mode:
        return [Action("packages", "download", "due", f"{said} to be fetched")]
    ran = host.run(["apt-get", "-y", "--download-only", "--no-remove", "--only-upgrade", "install", *specs], timeout=3600, env=_QUIET)
    missing = _missing_bytes(host, specs)
    if missing:
        summary = clean(f"{human_bytes(missing)} of {said} could not be fetched: {ran.why()}")
        return [Action("packages", "download", "failed", summary)]
    return [Action("packages", "download", "changed", f"{said} fetched", {"bytes": left}, {"bytes": 0})]


def _missing_bytes(host: Host, specs: t.Sequence[str], lists: Lists = OWN_LISTS) -> int:
    if not specs:
        return 0
    ran = host.run(["apt-get", *lists.options, "--print-uris", "-qq", "--only-upgrade", "install", *specs], timeout=180)
    return apt_space.parse_uris(ran.stdout)
