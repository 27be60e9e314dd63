# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders of log retention: archives, what an interrupted run left, the space they take."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .log_files import TEMPORARY
from .log_rules import MONTH_FOLDER, Rule
from .paths import walk


def make_archive(path: str) -> None:
    """Make the folder of an archive where there is none."""
    if not os.path.lexists(path):
        os.makedirs(path, mode=0o750, exist_ok=True)


def sweep(root_fd: int) -> int:
    """Remove temporary files of ours that an interrupted run left; no other run is under way."""
    count = 0
    for entry in walk(root_fd):
        if entry.name.startswith(".") and entry.name.endswith(TEMPORARY) and stat.S_ISREG(entry.status.st_mode):
            os.unlink(entry.name, dir_fd=entry.dir_fd)
            count += 1
    return count


def remove_empty_months(archive: str) -> int:
    """Remove month folders, and folders in them, that hold nothing any more."""
    if not os.path.isdir(archive):
        return 0
    count = 0
    for folder, _folders, _files, folder_fd in os.fwalk(archive, topdown=False, follow_symlinks=False):
        relative = os.path.relpath(folder, archive)
        if MONTH_FOLDER.match(relative.split("/")[0]) and not os.listdir(folder_fd):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
                count += "/" not in relative
    return count


def space_of(rules: t.Sequence[Rule]) -> dict[str, t.Any]:
    """Return the disk use of every root and archive (as du counts) and the free space below it (as df counts)."""
    space: dict[str, t.Any] = {}
    for path in dict.fromkeys([*(rule.root for rule in rules), *(rule.archive_to for rule in rules if rule.archive_to)]):
        if os.path.isdir(path):
            system = os.statvfs(path)
            space[path] = {"used_bytes": _disk_use(path), "free_bytes": system.f_bavail * system.f_frsize}
        else:
            space[path] = {"used_bytes": 0, "free_bytes": None}
    return space


def _disk_use(path: str) -> int:
    """Return the bytes that a folder takes on disk, each file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for _folder, folders, files, folder_fd in os.fwalk(path, follow_symlinks=False):
        for name in [*folders, *files]:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total
