# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package managers, each behind the same few methods."""

from __future__ import annotations

import contextlib
import typing as t

from . import apt_packages, dnf_packages
from .apt_packages import Installed, Pending, Simulation
from .errors import MaintenanceError
from .host import Host


class Backend(t.Protocol):
    """What planning and verifying ask of a package manager."""

    name: str
    command: t.ClassVar[str]

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

    @staticmethod
    def spec(name: str, version: str) -> str:
        """Return a package in an exact version as the package manager's module takes it."""


class Apt:
    """Debian and Ubuntu."""

    name = "apt"
    command: t.ClassVar[str] = "apt-get"

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

    @staticmethod
    def spec(name: str, version: str) -> str:
        """Write it as apt does."""
        return f"{name}={version}"


class Dnf:
    """The RHEL family; advisories make a security update, so there are no patterns of archives."""

    name = "dnf"
    command: t.ClassVar[str] = "dnf"

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
        """Ask rpm."""
        rpms = dnf_packages.rpm_rows(self.host)
        self.native = dnf_packages.native_arch(arch for _name, arch, _evr in rpms)
        return dnf_packages.installed_of(rpms, dnf_packages.several_versions(self.host, rpms))

    def pending(self, packages: t.Mapping[str, Installed]) -> Pending:
        """Ask dnf's library."""
        return dnf_packages.pending(self.host, self.conf, packages, self.native)

    def rehearse(self, specs: t.Sequence[str]) -> Simulation:
        """Let dnf resolve the transaction without making it."""
        return dnf_packages.rehearse(self.host, self.conf, specs, self.native)

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
