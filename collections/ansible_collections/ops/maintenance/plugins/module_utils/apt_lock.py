# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds the locks of dpkg and apt, and waiting until nobody does."""

from __future__ import annotations

import fcntl
import os
import struct
import typing as t

from .host import Host
from .record import Finding, clean

LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
    "/run/unattended-upgrades.lock",
)
_PAUSE_SECONDS = 1.0


def holder(paths: t.Iterable[str] = LOCKS, proc: str = "/proc") -> str:
    """Return which other process holds one of the locks, empty when none does.

    :raises PermissionError: this account may not ask.
    """
    for path in paths:
        try:
            lock_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            held = fcntl.fcntl(lock_fd, fcntl.F_GETLK, _whole_file_lock())
        finally:
            os.close(lock_fd)
        kind, _whence, _start, _length, pid = struct.unpack("hhqqi4x", held)
        if kind != fcntl.F_UNLCK:
            name = _name_of(int(pid), proc)
            return f"process {pid}" + (f" ({name})" if name else "")
    return ""


def _whole_file_lock() -> bytes:
    return struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def _name_of(pid: int, proc: str) -> str:
    try:
        with open(os.path.join(proc, str(pid), "cmdline"), "rb") as source:
            words = source.read(4096).split(b"\0")
    except OSError:
        return ""
    shown = [os.path.basename(word.decode("utf-8", "backslashreplace")) for word in words[:2] if word]
    return clean(" ".join(shown), 80)


class Wait(t.NamedTuple):
    """How waiting for the locks ended: who was waited for, for how long, and whether they are free now."""

    holder: str
    seconds: float
    free: bool

    def said(self) -> str:
        """Say it in words, empty when there was nothing to wait for."""
        if not self.holder:
            return ""
        return f"{self.holder} held the lock for {self.seconds:.0f} seconds" + ("" if self.free else " and still does")


def wait(host: Host, timeout: float, paths: t.Iterable[str] = LOCKS, also: t.Callable[[], str] = lambda: "") -> Wait:
    """Wait until nobody holds a lock, at most so many seconds.

    :param also: returns who else keeps the package manager busy, empty when nobody does.
    """
    paths = tuple(paths)
    first = held = holder(paths) or also()
    waited = 0.0
    while held and waited < timeout:
        host.sleep(_PAUSE_SECONDS)
        waited += _PAUSE_SECONDS
        held = holder(paths) or also()
    return Wait(held or first, waited, not held)


def lock_finding(waited: Wait) -> Finding:
    """Judge whether the package manager was to be had."""
    common: dict[str, t.Any] = {"id": "patching.lock", "subject": "package manager", "value": waited.seconds, "unit": "seconds"}
    if waited.free:
        return Finding(state="ok", summary=f"The package manager is free. {waited.said()}".strip(), **common)
    advice = "Let it end, or end it by hand when it hangs; then run again."
    return Finding(state="critical", summary=f"The package manager is not free: {waited.said()}.", advice=advice, **common)


def unseen(problem: str) -> Finding:
    """Say that this account may not see who holds the locks."""
    summary = f"Whether the package manager is free is not known: {problem}"
    return Finding("patching.lock", "unknown", "package manager", summary, advice="Run with become: true.")
