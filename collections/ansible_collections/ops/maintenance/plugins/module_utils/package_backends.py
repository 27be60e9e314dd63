# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package managers, each behind the same few methods."""

from __future__ import annotations

import contextlib
import typing as t

from . import apt_packages
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
        """Say what installing exactly these would do."""


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


BACKENDS: dict[str, type[Backend]] = {"apt": Apt}

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
