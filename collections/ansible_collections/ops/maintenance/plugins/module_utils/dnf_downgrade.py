# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back from an update with dnf: the old versions, as far as a repository or dnf's cache still has them."""

from __future__ import annotations

import glob
import os
import typing as t

from . import dnf_packages
from .apt_downgrade import Item, Way, proven
from .errors import MaintenanceError
from .host import Host
from .record import Action, clean


def look(host: Host, plan: t.Sequence[Item]) -> list[Way]:
    """Find the old version of every updated package; one that is still there beside the new one, as of a kernel, needs no way back.

    :raises MaintenanceError: dnf could not say what is offered.
    """
    rows = dnf_packages.rpm_rows(host)
    native = dnf_packages.native_arch(arch for _name, arch, _evr in rows)
    there = {(name, evr) for name, _arch, evr in rows}
    items = [item for item in plan if item["installed"] and (item["name"], item["installed"]) not in there]
    wanted = [(*dnf_packages.name_and_arch(item["name"], native), item["installed"]) for item in items]
    both = [(name, one, evr) for name, arch, evr in wanted for one in (arch, "noarch")]
    answer = dnf_packages.ask(host, {"conf": {}, "offered": both}) if both else {}
    if "problem" in answer:
        raise MaintenanceError(clean(f"dnf could not say which old versions are offered: {answer['problem'].strip()}", 300))
    offered = {dnf_packages.nevra(package) for package in answer.get("offered", ())}
    return [Way(item["name"], item["installed"], item["version"], _spec(*old, offered)) for item, old in zip(items, wanted)]


def _spec(name: str, arch: str, old: str, offered: t.Collection[str], cache: str = dnf_packages.CACHE_DIR) -> str:
    """Return what to give to dnf: the version where a repository has it, else the file in the cache, else nothing."""
    for one in (arch, "noarch"):
        spec = dnf_packages.nevra((name, one, old))
        if spec in offered:
            return spec
        # An epoch is no part of a file's name.
        file = f"{name}-{old.rpartition(':')[2]}.{one}.rpm"
        found = sorted(glob.glob(f"{glob.escape(cache)}/*/packages/{glob.escape(file)}"))
        plain = [path for path in found if os.path.isfile(path) and not os.path.islink(path)]
        if plain:
            return plain[0]
    return ""


def go_back(host: Host, found: t.Sequence[Way], timeout: float = 1800) -> list[Action]:
    """Install the old versions, all or none, and prove them in the package database."""
    specs = [way.spec for way in found if way.spec]
    ran = host.run(["dnf", "-y", "downgrade", *specs], timeout=timeout)
    packages = dnf_packages.installed(host, dnf_packages.rpm_rows(host))
    return [proven(way, packages.get(way.name), "" if ran.rc == 0 else ran.why()) for way in found]


def owners(host: Host, paths: t.Sequence[str]) -> set[str]:
    """Return the names of the packages that files belong to."""
    ran = host.run(["rpm", "-qf", "--qf", "%{NAME}\\n", "--", *paths])
    return {line for line in ran.stdout.splitlines() if line and " " not in line}
