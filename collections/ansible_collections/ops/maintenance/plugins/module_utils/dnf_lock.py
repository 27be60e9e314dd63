# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds the locks of dnf and rpm."""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import apt_lock
from .errors import MaintenanceError
from .host import Host

LOCKS = (
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
)
"""Each has the id of the process that holds it; one that was killed leaves its file behind."""


def holder(host: Host, paths: t.Iterable[str] = LOCKS, proc: str = "/proc") -> str:
    """Return which other process holds a lock of dnf, or rpm's own, empty when none does.

    :raises PermissionError: this account may not ask.
    :raises MaintenanceError: rpm does not tell where its lock is.
    """
    for path in paths:
        with contextlib.suppress(FileNotFoundError, ValueError):
            with open(path, encoding="ascii", errors="replace") as source:
                pid = int(source.read(20))
            if os.path.isdir(os.path.join(proc, str(pid))):
                return apt_lock.described(pid, proc)
    return apt_lock.holder([places(host)[1]], proc)


def places(host: Host) -> tuple[str, str]:
    """Return where rpm keeps its database, and its lock.

    :raises MaintenanceError: rpm does not tell.
    """
    ran = host.run(["rpm", "--eval", "%{_dbpath}\n%{?_rpmlock_path}"], timeout=30)
    folder, _line, lock = ran.stdout.strip().partition("\n")
    if ran.rc != 0 or not folder.startswith("/"):
        raise MaintenanceError(f"Where the package database of rpm is cannot be told: {ran.why()}.")
    return folder, lock or os.path.join(folder, ".rpm.lock")
