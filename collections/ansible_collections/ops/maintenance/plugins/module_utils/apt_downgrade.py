# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back from an update: the old versions, as far as an archive or apt's cache still has them."""

from __future__ import annotations

import typing as t

from . import apt_packages
from .apt_archives import cached
from .apt_packages import Installed, Policy
from .host import Host
from .record import Action

_OPTIONS = ("-y", "--allow-downgrades", "--no-remove", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold")
Item = t.Mapping[str, t.Any]


class Way(t.NamedTuple):
    """One package's way back: what to give to apt, empty where the old version is nowhere."""

    name: str
    old: str
    new: str
    spec: str


def ways(plan: t.Iterable[Item], policies: t.Mapping[str, Policy], cache: t.Callable[[str, str], str] = cached) -> list[Way]:
    """Find the old version of every updated package: in an archive by version, in the cache by file."""
    found = []
    for item in plan:
        name, old = item["name"], item["installed"]
        if old:
            spec = f"{name}={old}" if name in policies and _is_offered(policies[name], old) else cache(name, old)
            found.append(Way(name, old, item["version"], spec))
    return found


def _is_offered(policy: Policy, old: str) -> bool:
    """Whether an archive carries a version; dpkg's own database is none."""
    return any(version.version == old and any(a.suite != "now" for a in version.archives) for version in policy.versions)


def look(host: Host, plan: t.Sequence[Item]) -> list[Way]:
    """Ask apt for the ways back from a plan."""
    names = [item["name"] for item in plan if item["installed"]]
    if not names or not host.which("apt-cache"):
        return []
    archives = apt_packages.parse_archives(host.run(["apt-cache", "policy"], timeout=180).stdout)
    text = host.run(["apt-cache", "policy", *names], timeout=180).stdout
    return ways(plan, apt_packages.parse_policy(text, archives))


def owners(host: Host, paths: t.Sequence[str]) -> set[str]:
    """Return the names of the packages that files belong to."""
    ran = host.run(["dpkg-query", "-S", "--", *paths])
    found = {owner.strip() for line in ran.stdout.splitlines() if ": " in line for owner in line.split(": ", 1)[0].split(",")}
    return found | {owner.partition(":")[0] for owner in found}


def go_back(host: Host, found: t.Sequence[Way], timeout: float = 1800) -> list[Action]:
    """Install the old versions, all or none, and prove them in the package database."""
    specs = [way.spec for way in found if way.spec]
    environment = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "APT_LISTCHANGES_FRONTEND": "none"}
    ran = host.run(["apt-get", *_OPTIONS, "install", *specs], timeout=timeout, env=environment)
    packages = apt_packages.installed(host)
    return [proven(way, packages.get(way.name), "" if ran.rc == 0 else ran.why()) for way in found]


def proven(way: Way, package: Installed | None, said: str) -> Action:
    """Say whether a package went back, as the package database has it."""
    before, now = {"version": way.new}, {"version": package.version if package else ""}
    if package and package.version == way.old and package.is_whole:
        return Action(way.name, "downgrade", "changed", f"{way.name} {way.new} -> {way.old}", before, now)
    why = "the old version is nowhere to be had" if not way.spec else said or f"it is {now['version'] or 'not installed'}"
    return Action(way.name, "downgrade", "failed", f"{way.name} did not go back to {way.old}: {why}", before, now)
