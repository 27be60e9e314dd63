# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of an installed major version of PostgreSQL, and the minor version that is to be had: never another major."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from .apt_packages import Installed, Pending
from .errors import MaintenanceError
from .host import Host
from .package_plan import Planned, Rehearses, make_plan
from .package_urgency import source_names
from .record import clean

_SERVER = re.compile(r"^postgresql-(\d+)$")
_OF_A_MAJOR = re.compile(r"^postgresql(?:-[a-z]+)*-(\d+)(?:-[a-z0-9.+-]+)?$")
_VERSION = re.compile(r"^(?:\d+:)?(\d+)\.(\d+)")
_META = re.compile(r"^(?:\d+:)?(\d+)\+")
OURS = "left to the update of PostgreSQL"
INSTALL = (
    *("apt-get", "-y", "--no-remove", "--only-upgrade"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "APT_LISTCHANGES_FRONTEND": "none"}


@dataclass(frozen=True)
class Cluster:
    """A cluster that the distribution's tools know."""

    major: int
    name: str
    port: int
    online: bool


@dataclass(frozen=True)
class Minor:
    """The packages of one major version.

    :param installed: the version on disk as a number, 0 when it is not installed from a package.
    :param target: the version that an update would bring; the installed one where there is none.
    :param planned: what apt would install for it.
    :param refused: why nothing of it is installed, empty when it may be.
    :param names: packages that belong to the server, pending or not.
    """

    major: int
    installed: int = 0
    target: int = 0
    planned: tuple[Planned, ...] = ()
    refused: str = ""
    names: tuple[str, ...] = ()

    @property
    def specs(self) -> list[str]:
        """Return the packages in their exact versions, as apt takes them, without what they bring along."""
        return [item.spec for item in self.planned if not item.dependency]


@dataclass
class Packages:
    """All majors of a host, and what the ordinary update has to leave alone."""

    minors: dict[int, Minor] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    majors_offered: list[str] = field(default_factory=list)


def number_of(version: str) -> int:
    """Return a package's version as the server writes it (150014), 0 for what is none."""
    match = _VERSION.match(version)
    return int(match.group(1)) * 10000 + int(match.group(2)) if match else 0


def installed_majors(packages: t.Iterable[str]) -> list[int]:
    """Return the majors whose server is installed from a package."""
    found = (_SERVER.match(name) for name in packages)
    return sorted(int(match.group(1)) for match in found if match)


def look(host: Host, packages: t.Mapping[str, Installed], pending: Pending, backend: Rehearses) -> Packages:
    """Plan the minor update of each installed major."""
    sources = source_names(host, list(packages))
    found = Packages()
    for major in installed_majors(packages):
        names = names_of(major, sources)
        found.minors[major] = plan(major, names, packages, pending, backend)
        found.elsewhere.update(dict.fromkeys(names, OURS))
    for name, offered in majors_offered(pending).items():
        found.elsewhere[name] = f"{offered} would bring another major version of PostgreSQL"
        found.majors_offered.append(f"{name} {offered}")
    return found


def names_of(major: int, sources: t.Mapping[str, str]) -> tuple[str, ...]:
    """Return the packages that are built together with a server, its client and libraries among them."""
    source = sources.get(f"postgresql-{major}") or f"postgresql-{major}"
    return tuple(sorted(name for name, made_of in sources.items() if made_of == source))


def majors_offered(pending: Pending) -> dict[str, str]:
    """Return the packages without a server of their own (``postgresql``) whose update stands for another major version."""
    found = {}
    for update in pending.updates:
        old, new = _META.match(update.installed), _META.match(update.candidate)
        if update.name.startswith("postgresql") and old and new and old.group(1) != new.group(1):
            found[update.name] = update.candidate
    return found


def plan(major: int, names: t.Sequence[str], packages: t.Mapping[str, Installed], pending: Pending, backend: Rehearses) -> Minor:
    """Plan the packages of one major together, or refuse them all."""
    server = f"postgresql-{major}"
    there = number_of(packages[server].version)
    rules = {"scope": "listed", "packages": names, "hold": [], "pins": dict.fromkeys(names, f"{major}.*")}
    broken = [name for name in names if name in packages and not packages[name].is_whole]
    if broken:
        return Minor(major, there, there, (), f"{', '.join(broken)} is not whole; repair dpkg first", tuple(names))
    if pending.problem and not pending.updates:
        return Minor(major, there, there, (), pending.problem, tuple(names))
    made = make_plan(pending, rules, backend)
    planned = (*made.wanted, *made.pulled)
    offered = [version for update in pending.updates if update.name == server for version, _security in update.choices()]
    target = max([there, *(number for number in map(number_of, offered) if number // 10000 == major)])
    return Minor(major, there, target, planned, _refusal(major, planned, made.left), tuple(names))


def _refusal(major: int, planned: t.Sequence[Planned], left: t.Mapping[str, str]) -> str:
    """Say why a plan is not followed: it is not whole, or it is not only of this major."""
    other = [item.spec for item in planned if is_of_another_major(item, major)]
    if other:
        return f"it would bring another major version: {', '.join(other[:3])}"
    if left:
        return clean("; ".join(f"{name}: {why}" for name, why in sorted(left.items())[:3]), 300)
    return ""


def is_of_another_major(item: Planned, major: int) -> bool:
    """Whether a planned package belongs to another major version, by its name or, where it comes with the server, its version."""
    named = _OF_A_MAJOR.match(item.name)
    if named and int(named.group(1)) != major:
        return True
    return not item.dependency and number_of(item.version) // 10000 != major


def clusters(host: Host) -> list[Cluster]:
    """Return what ``pg_lsclusters`` knows; nothing where it is not installed."""
    if not host.which("pg_lsclusters"):
        return []
    ran = host.run(["pg_lsclusters", "--no-header"])
    if ran.rc != 0:
        raise MaintenanceError(f"The clusters of this host are not known: {ran.why()}.")
    return parse_clusters(ran.stdout)


def parse_clusters(text: str) -> list[Cluster]:
    """Read ``pg_lsclusters --no-header``."""
    rows = [line.split() for line in text.splitlines()]
    return [
        Cluster(int(row[0]), row[1], int(row[2]), row[3].startswith("online"))
        for row in rows
        if len(row) >= 4 and row[0].isdigit() and row[2].isdigit()
    ]
