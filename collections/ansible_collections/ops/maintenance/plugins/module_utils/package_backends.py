# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package managers, each behind the same few methods."""

from __future__ import annotations

import contextlib
import typing as t

from . import (
    apt_downgrade,
    apt_lock,
    apt_packages,
    apt_prepare,
    dnf_checks,
    dnf_downgrade,
    dnf_health,
    dnf_lock,
    dnf_packages,
    dnf_removal,
    package_checks,
)
from .apt_downgrade import Item, Way
from .apt_packages import Installed, Pending, Simulation
from .errors import MaintenanceError
from .host import Host
from .package_checks import Checks
from .package_plan import Plan, Rules
from .record import Action


class Backend(t.Protocol):
    """What planning, preparing and verifying ask of a package manager."""

    name: str
    command: t.ClassVar[str]
    downgrade: t.ClassVar[str]

    def __init__(self, host: Host, security_archives: t.Sequence[str]) -> None:
        """Remember the machine, and what makes an archive a security archive."""

    def private(self) -> t.ContextManager[None]:
        """Work on a private copy of the lists from here on, so that the host's own stay as they are."""

    def refresh(self, lock_timeout: float) -> str:
        """Fetch the lists; return why that failed, empty when it did not."""

    def installed(self) -> dict[str, Installed]:
        """Return the package database."""

    def pending(self, packages: t.Mapping[str, Installed]) -> Pending:
        """Return every pending update."""

    def rehearse(self, specs: t.Sequence[str]) -> Simulation:
        """Say what installing exactly these (``name=version``) would do."""

    def checks(self, params: t.Mapping[str, t.Any], packages: t.Mapping[str, Installed], plan: Plan, rules: Rules) -> Checks:
        """Look at everything that an installation needs."""

    def holder(self) -> str:
        """Return which other process holds a lock, empty when none does."""

    def repair(self, check_mode: bool) -> list[Action]:
        """Repair what was interrupted, never by removing a package."""

    def remove(self, names: t.Sequence[str], check_mode: bool) -> list[Action]:
        """Remove exactly these packages, or none when that would remove anything else."""

    def download(self, specs: t.Sequence[str], check_mode: bool, lock_timeout: float) -> list[Action]:
        """Fetch what installing these needs."""

    def ways_back(self, plan: t.Sequence[Item]) -> list[Way]:
        """Find the old versions of what was updated."""

    def go_back(self, found: t.Sequence[Way]) -> list[Action]:
        """Install old versions again and prove them."""

    def owners(self, paths: t.Sequence[str]) -> set[str]:
        """Return the packages that files belong to."""

    @staticmethod
    def spec(name: str, version: str) -> str:
        """Return a package in an exact version as the package manager's module takes it."""


class Apt:
    """Debian and Ubuntu."""

    name = "apt"
    command: t.ClassVar[str] = "apt-get"
    downgrade: t.ClassVar[str] = "apt-get install --allow-downgrades"

    def __init__(self, host: Host, security_archives: t.Sequence[str]) -> None:
        self.host = host
        self.security_archives = security_archives
        self.lists = apt_packages.OWN_LISTS

    @contextlib.contextmanager
    def private(self) -> t.Iterator[None]:
        """Use a private copy of the lists."""
        with apt_packages.private_lists() as self.lists:
            yield

    def refresh(self, lock_timeout: float) -> str:
        """Run ``apt-get update``."""
        return apt_packages.refresh(self.host, self.lists, lock_timeout)

    def installed(self) -> dict[str, Installed]:
        """Ask dpkg."""
        return apt_packages.installed(self.host)

    def pending(self, packages: t.Mapping[str, Installed]) -> Pending:
        """Ask apt."""
        return apt_packages.pending(self.host, security_archives=self.security_archives, lists=self.lists, packages=packages)

    def rehearse(self, specs: t.Sequence[str]) -> Simulation:
        """Let apt simulate."""
        return apt_packages.simulate(self.host, ["--only-upgrade", "install", *specs], self.lists)

    def checks(self, params: t.Mapping[str, t.Any], packages: t.Mapping[str, Installed], plan: Plan, rules: Rules) -> Checks:
        """Look at dpkg, the room, what could be removed, and unattended-upgrades."""
        return package_checks.look(params, self.host, packages, plan, rules, self.lists)

    def holder(self) -> str:
        """Look at the locks of dpkg and apt."""
        return apt_lock.holder()

    def repair(self, check_mode: bool) -> list[Action]:
        """Let dpkg and apt complete what they began."""
        return apt_prepare.repair(self.host, check_mode)

    def remove(self, names: t.Sequence[str], check_mode: bool) -> list[Action]:
        """Let apt remove them."""
        return apt_prepare.remove(self.host, names, check_mode)

    def download(self, specs: t.Sequence[str], check_mode: bool, lock_timeout: float) -> list[Action]:  # noqa: ARG002
        """Fetch into apt's cache."""
        return apt_prepare.download(self.host, specs, check_mode)

    def ways_back(self, plan: t.Sequence[Item]) -> list[Way]:
        """Ask apt and look into its cache."""
        return apt_downgrade.look(self.host, plan)

    def go_back(self, found: t.Sequence[Way]) -> list[Action]:
        """Let apt install the old versions."""
        return apt_downgrade.go_back(self.host, found)

    def owners(self, paths: t.Sequence[str]) -> set[str]:
        """Ask dpkg."""
        return apt_downgrade.owners(self.host, paths)

    @staticmethod
    def spec(name: str, version: str) -> str:
        """Write it as apt does."""
        return f"{name}={version}"


class Dnf:
    """The RHEL family; advisories make a security update, so there are no patterns of archives."""

    name = "dnf"
    command: t.ClassVar[str] = "dnf"
    downgrade: t.ClassVar[str] = "dnf downgrade"

    def __init__(self, host: Host, security_archives: t.Sequence[str]) -> None:  # noqa: ARG002
        self.host = host
        self.conf: dict[str, str] = {}
        self.native = ""

    @contextlib.contextmanager
    def private(self) -> t.Iterator[None]:
        """Use a private copy of the metadata."""
        with dnf_packages.private_cache() as self.conf:
            yield

    def refresh(self, lock_timeout: float) -> str:
        """Run ``dnf makecache``."""
        return dnf_packages.refresh(self.host, self.conf, lock_timeout)

    def installed(self) -> dict[str, Installed]:
        """Ask rpm, and dnf's history."""
        rpms = dnf_packages.rpm_rows(self.host)
        self.native = dnf_packages.native_arch(arch for _name, arch, _evr in rpms)
        return dnf_packages.installed(self.host, rpms)

    def pending(self, packages: t.Mapping[str, Installed]) -> Pending:
        """Ask dnf's library."""
        return dnf_packages.pending(self.host, self.conf, packages, self.native)

    def rehearse(self, specs: t.Sequence[str]) -> Simulation:
        """Let dnf resolve the transaction without making it."""
        return dnf_packages.rehearse(self.host, self.conf, specs, self.native)

    def checks(self, params: t.Mapping[str, t.Any], packages: t.Mapping[str, Installed], plan: Plan, rules: Rules) -> Checks:
        """Look at rpm's packages, the room, what could be removed, and dnf-automatic."""
        specs = [self.spec(item.name, item.version) for item in (*plan.wanted, *plan.pulled) if not item.dependency]
        return dnf_checks.look(params, self.host, packages, specs, rules, self.conf)

    def holder(self) -> str:
        """Look at the locks of dnf and rpm."""
        return dnf_lock.holder(self.host)

    def repair(self, check_mode: bool) -> list[Action]:
        """Let dnf complete what it began."""
        return dnf_health.repair(self.host, check_mode)

    def remove(self, names: t.Sequence[str], check_mode: bool) -> list[Action]:
        """Let dnf remove them."""
        return dnf_removal.remove(self.host, names, check_mode)

    def download(self, specs: t.Sequence[str], check_mode: bool, lock_timeout: float) -> list[Action]:
        """Fetch into dnf's cache."""
        return dnf_checks.download(self.host, specs, check_mode, lock_timeout)

    def ways_back(self, plan: t.Sequence[Item]) -> list[Way]:
        """Ask dnf and look into its cache."""
        return dnf_downgrade.look(self.host, plan)

    def go_back(self, found: t.Sequence[Way]) -> list[Action]:
        """Let dnf install the old versions."""
        return dnf_downgrade.go_back(self.host, found)

    def owners(self, paths: t.Sequence[str]) -> set[str]:
        """Ask rpm."""
        return dnf_downgrade.owners(self.host, paths)

    @staticmethod
    def spec(name: str, version: str) -> str:
        """Write it as dnf does."""
        return dnf_packages.spec(name, version)


BACKENDS: dict[str, type[Backend]] = {"apt": Apt, "dnf": Dnf}

BACKEND_OPTIONS: dict[str, t.Any] = {
    "security_archives": {"type": "list", "elements": "str", "default": list(apt_packages.SECURITY_ARCHIVES)},
    "backend": {"type": "str", "choices": ["auto", *BACKENDS], "default": "auto"},
}


def choose(name: str, host: Host) -> type[Backend]:
    """Return the backend asked for, or the one whose command the host has.

    :raises MaintenanceError: the host has none of them.
    """
    if name != "auto":
        return BACKENDS[name]
    for backend in BACKENDS.values():
        if host.which(backend.command):
            return backend
    raise MaintenanceError(f"No supported package manager was found; expected one of {', '.join(BACKENDS)}.")
