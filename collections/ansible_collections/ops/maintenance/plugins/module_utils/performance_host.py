# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Linux host uses at this moment: processor, memory, load, mounts, and the processes that take most."""

from __future__ import annotations

import os
import re
import threading
import typing as t
from dataclasses import dataclass

from .errors import MaintenanceError

_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "9p"))
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph", "fuse.davfs")
# Kernel interfaces and memory have no capacity to plan; images are full by nature.
_NO_CAPACITY = frozenset(
    ("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fuse.lxcfs",
     "fuse.portal", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs", "selinuxfs",
     "sysfs", "tmpfs", "tracefs", "squashfs", "iso9660", "erofs", "udf")
)  # fmt: skip
_ANSWER_SECONDS = 5.0
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(t.NamedTuple):
    """A mounted file system that can fill up."""

    point: str
    device: str
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether its answers come over a network, and so may not come at all."""
        return self.kind in _NETWORK or self.kind.startswith(_NETWORK_FUSE)


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounts of ``/proc/self/mountinfo`` that have a capacity, each device once, at its shortest path."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or not kinds or kinds[0] in _NO_CAPACITY:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), fields[4])
        mount = Mount(point, fields[2], kinds[0])
        known = found.get(mount.device)
        if known is None or len(point) < len(known.point):
            found[mount.device] = mount
    return sorted(found.values())


def ask_mount(mount: Mount) -> os.statvfs_result:
    """Ask a file system how full it is; a network one may hang for ever, so it gets a few seconds.

    :raises MaintenanceError: it did not answer, or answered with an error.
    """
    answers: list[t.Any] = []

    def ask() -> None:
        try:
            answers.append(os.statvfs(mount.point))
        except OSError as error:
            answers.append(error)

    if mount.is_network:
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_ANSWER_SECONDS)
    else:
        ask()
    if not answers:
        raise MaintenanceError(f"{mount.point} ({mount.kind}) did not answer within {_ANSWER_SECONDS:g} seconds.")
    if isinstance(answers[0], OSError):
        raise MaintenanceError(f"{mount.point} could not be asked: {answers[0].strerror}.")
    return t.cast(os.statvfs_result, answers[0])


@dataclass(frozen=True)
class Memory:
    """Memory in bytes; ``available`` is what programs can still get without swapping."""

    total: int
    available: int
    swap_total: int
    swap_free: int

    @property
    def used_percent(self) -> float:
        """Share that programs cannot get; caches, which they can, are not part of it."""
        return 100.0 * (self.total - self.available) / self.total

    @property
    def swap_percent(self) -> float:
        """Share of the swap space in use; 0 where there is none."""
        return 100.0 * (self.swap_total - self.swap_free) / self.swap_total if self.swap_total else 0.0


def parse_memory(text: str) -> Memory:
    """Read ``/proc/meminfo``.

    :raises MaintenanceError: it lacks what every Linux since 3.14 says.
    """
    values = {name: int(number) * 1024 for name, number in re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)}
    if not values.get("MemTotal") or "MemAvailable" not in values:
        raise MaintenanceError("/proc/meminfo says no MemTotal or MemAvailable; memory use cannot be told.")
    return Memory(values["MemTotal"], values["MemAvailable"], values.get("SwapTotal", 0), values.get("SwapFree", 0))


def parse_cpu(text: str) -> tuple[int, int]:
    """Read the first line of ``/proc/stat``: ticks the processors worked, and all ticks."""
    ticks = [int(number) for number in text.split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Process(t.NamedTuple):
    """A process by its short name; a command line may hold secrets and is never read."""

    pid: int
    name: str
    started: int
    ticks: int
    memory: int


def parse_process(text: str, page_bytes: int) -> Process:
    """Read ``/proc/<pid>/stat``; a name may hold anything, brackets and line breaks included."""
    start, end = text.index("("), text.rindex(")")
    fields = text[end + 2 :].split()
    return Process(
        int(text[:start]), text[start + 1 : end], int(fields[19]), int(fields[11]) + int(fields[12]), int(fields[21]) * page_bytes
    )


def processes(proc: str = "/proc") -> dict[tuple[int, int], Process]:
    """Read all processes, by pid and start time."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    found = {}
    for pid in os.listdir(proc):
        if not pid.isdigit():
            continue
        try:
            with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as source:
                process = parse_process(source.read(), page_bytes)
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
        found[(process.pid, process.started)] = process
    return found


def top(
    before: t.Mapping[tuple[int, int], Process], after: t.Mapping[tuple[int, int], Process], seconds: float, count: int
) -> tuple[list[tuple[Process, float]], list[Process]]:
    """Return who used most processor time meanwhile (with percent of one processor), and who holds most memory."""
    per_second = os.sysconf("SC_CLK_TCK")
    used = [
        (process, 100.0 * (process.ticks - before[key].ticks) / per_second / seconds) for key, process in after.items() if key in before
    ]
    by_cpu = sorted((item for item in used if item[1] > 0), key=lambda item: -item[1])[:count]
    return by_cpu, sorted(after.values(), key=lambda process: -process.memory)[:count]
