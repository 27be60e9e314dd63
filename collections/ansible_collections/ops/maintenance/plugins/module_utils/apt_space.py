# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many bytes an installation needs, for the archives, unpacked and in /boot, and whether they are there."""

from __future__ import annotations

import os
import re
import typing as t

from .apt_archives import CACHE_DIR
from .apt_packages import OWN_LISTS, Lists
from .host import Host
from .judge import human_bytes
from .package_plan import Planned
from .record import Finding

UNPACKED, BOOT = "/usr", "/boot"
KERNEL_BYTES = 120 * 1024 * 1024
"""What a kernel takes in /boot where none is there to measure."""
_URI = re.compile(r"^'([^']+)' \S+ (\d+)")
_IMAGE = re.compile(r"^linux-image-\d")
_AFTER_RELEASE = re.compile(r"(?:kdump)?\.(?:img|gz|xz|hmac)$")
"""What the RHEL family writes behind the release in the names of a kernel's files."""
_RESCUE = "0-rescue-"


class Room(t.NamedTuple):
    """The file system of a folder: which device, and how much is free for root."""

    device: int
    free: int


def parse_uris(text: str) -> int:
    """Add up what ``apt-get --print-uris`` would fetch; an archive on the host itself is not copied."""
    found = (_URI.match(line) for line in text.splitlines())
    return sum(int(match.group(2)) for match in found if match and not match.group(1).startswith(("file:", "cdrom:")))


def parse_sizes(text: str) -> dict[tuple[str, str], int]:
    """Read ``apt-cache show``: name and version to installed bytes."""
    sizes = {}
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if {"Package", "Version", "Installed-Size"} <= set(fields) and fields["Installed-Size"].isdigit():
            sizes[fields["Package"], fields["Version"]] = int(fields["Installed-Size"]) * 1024
    return sizes


def kernel_bytes(boot: str = BOOT) -> int:
    """Return what one kernel takes in /boot: the most that one of those there does."""
    by_release: dict[str, int] = {}
    try:
        with os.scandir(boot) as found:
            for entry in found:
                _kind, dash, release = entry.name.partition("-")
                release = _AFTER_RELEASE.sub("", release)
                if dash and not release.startswith(_RESCUE) and entry.is_file(follow_symlinks=False):
                    by_release[release] = by_release.get(release, 0) + entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return KERNEL_BYTES
    return max(by_release.values(), default=0) or KERNEL_BYTES


def unpacked_bytes(items: t.Iterable[Planned], sizes: t.Mapping[tuple[str, str], int]) -> int:
    """Return what unpacking adds at its worst moment: all growth, and the largest package twice."""
    growth, largest = 0, 0
    for item in items:
        name = item.name.partition(":")[0]
        new, old = sizes.get((name, item.version), 0), sizes.get((name, item.installed), 0)
        growth += max(0, new - old)
        largest = max(largest, new)
    return growth + largest


def needs(host: Host, items: t.Sequence[Planned], lists: Lists = OWN_LISTS) -> dict[str, int]:
    """Ask apt how many bytes the plan needs, by folder."""
    if not items:
        return {}
    specs = [item.spec for item in items]
    uris = host.run(["apt-get", *lists.options, "--print-uris", "-qq", "--only-upgrade", "install", *specs], timeout=180)
    both = specs + [f"{item.name}={item.installed}" for item in items if item.installed]
    sizes = parse_sizes(host.run(["apt-cache", *lists.options, "show", *both], timeout=180).stdout)
    kernels = sum(1 for item in items if _IMAGE.match(item.name) and not item.installed)
    found = {CACHE_DIR: parse_uris(uris.stdout), UNPACKED: unpacked_bytes(items, sizes)}
    return {**found, BOOT: kernels * kernel_bytes()} if kernels else found


def room(path: str) -> Room:
    """Return the file system that a folder lies in, or will when it is made."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return Room(os.stat(path).st_dev, status.f_bavail * status.f_frsize)


def space_finding(wanted: t.Mapping[str, int], rooms: t.Mapping[str, Room], reserve: int) -> Finding:
    """Judge whether each file system has what the installation needs and the reserve beyond it."""
    by_device: dict[int, list[str]] = {}
    for path in wanted:
        by_device.setdefault(rooms[path].device, []).append(path)
    evidence, lacks = [], [(0, "")]
    for paths in by_device.values():
        where, need, free = ", ".join(paths), sum(wanted[path] for path in paths), rooms[paths[0]].free
        evidence.append(f"{where}: {need} bytes needed, {free} free")
        lacks.append((need + reserve - free if need else 0, where))
    short, where = max(lacks)
    common: dict[str, t.Any] = {"id": "patching.space", "evidence": evidence, "unit": "bytes"}
    if short > 0:
        return Finding(
            state="critical",
            subject=where,
            summary=f"The installation lacks {human_bytes(short)} in {where}; nothing is installed.",
            value=short,
            threshold=f"critical when less than {human_bytes(reserve)} would be left",
            advice="Make room: fetched packages (apt-get clean, dnf clean packages), old kernels, logs; or enlarge it.",
            **common,
        )
    return Finding(state="ok", subject="file systems", summary="There is room for the installation.", value=0, **common)
