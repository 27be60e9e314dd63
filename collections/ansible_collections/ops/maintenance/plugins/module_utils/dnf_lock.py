# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds the locks of dnf and rpm."""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import apt_lock
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
    """
    for path in paths:
        with contextlib.suppress(FileNotFoundError, ValueError):
            with open(path, encoding="ascii", errors="replace") as source:
                pid = int(source.read(20))
            if os.path.isdir(os.path.join(proc, str(pid))):
                return apt_lock.described(pid, proc)
    return apt_lock.holder([os.path.join(_database(host), ".rpm.lock")], proc)


def _database(host: Host) -> str:
    ran = host.run(["rpm", "--eval", "%{_dbpath}"])
    return ran.stdout.strip() if ran.rc == 0 else "/var/lib/rpm"
