# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One walk below a declared folder: never through a link, never into another file system, never longer than allowed."""

from __future__ import annotations

import os
import stat
import time
import typing as t

from .errors import MaintenanceError
from .security_common import shown, why_unread

OPTIONS: dict[str, t.Any] = {"integrity_seconds": {"type": "float", "default": 60.0}}


class Met(t.NamedTuple):
    """Something below the root: its path, its name relative to the root and its status, links as themselves."""

    path: str
    relative: str
    status: os.stat_result


def until(params: t.Mapping[str, t.Any]) -> float:
    """Return the moment at which a walk that begins now has to end."""
    return time.monotonic() + float(params["integrity_seconds"])


def below(root: str, ends: float, unread: list[str], left_out: t.Callable[[str], bool] = lambda _relative: False) -> t.Iterator[Met]:
    """Yield what lies below a folder; what could not be looked at is appended to ``unread``.

    :param ends: moment (``time.monotonic``) at which it stops, which is said too.
    :param left_out: whether a relative name is not to be looked at, nor what lies below it.
    :raises MaintenanceError: the root is a link, or not a folder.
    """
    top = os.lstat(root)
    if not stat.S_ISDIR(top.st_mode):
        kind = "a symbolic link, which is not followed" if stat.S_ISLNK(top.st_mode) else "not a folder"
        raise MaintenanceError(f"{shown(root)} is {kind}; declare the folder itself.")

    def note(error: OSError) -> None:
        unread.append(f"{shown(str(error.filename))}: {why_unread(error)}")

    try:
        for place, folders, files, place_fd in os.fwalk(root, onerror=note, follow_symlinks=False):
            names, enter = sorted([*folders, *files]), []
            for name in names:
                if time.monotonic() > ends:
                    unread.append(f"the time was up at {shown(place)}; raise integrity_seconds")
                    return
                path = os.path.join(place, name)
                relative = os.path.relpath(path, root) if place != root else name
                if left_out(relative):
                    continue
                try:
                    status = os.stat(name, dir_fd=place_fd, follow_symlinks=False)
                except FileNotFoundError:  # it went away meanwhile
                    continue
                if stat.S_ISDIR(status.st_mode) and status.st_dev == top.st_dev:
                    enter.append(name)
                yield Met(path, relative, status)
            folders[:] = enter
    except OSError as error:
        note(error)
    except RecursionError:
        unread.append("folders are nested too deeply")
