# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in an application's folder as its owner, with a copy from before that can be put back."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import tempfile
import typing as t

from .errors import InputError, MaintenanceError
from .host import Host, Ran
from .paths import open_root

_SUFFIX = ".before_maintenance"


class AppFolder:
    """A folder whose commands run as the folder's owner, so that nothing in it ever runs as root for another user."""

    def __init__(self, host: Host, path: str, option: str) -> None:
        if os.path.lexists(path + _SUFFIX) and not os.path.lexists(path):
            raise MaintenanceError(f"{path} is missing: putting it back was interrupted. Move {path}{_SUFFIX}, its state before, there.")
        with open_root(path, option) as root_fd:
            self.owner = os.fstat(root_fd)
        self.host = host
        self.path = os.path.normpath(path)

    def run(self, argv: t.Sequence[str], *, timeout: float, env: t.Mapping[str, str] | None = None) -> Ran:
        """Run a command in the folder as its owner; one with a slash in its name is found from there."""
        program = os.path.join(self.path, argv[0]) if "/" in argv[0] else argv[0]
        argv = [*_become(self.owner), program, *argv[1:]]
        ran = self.host.run(argv, timeout=timeout, cwd=self.path, env={"HOME": _home(self.owner), **(env or {})})
        return Ran(argv[len(_become(self.owner)) :], ran.rc, ran.stdout, ran.stderr)

    def require_file(self, name: str, option: str) -> None:
        """Refuse a folder without this regular file."""
        if not os.path.isfile(os.path.join(self.path, name)):
            raise InputError.of(option, self.path, f"a folder with {name}", "correct the path or create the file")

    @contextlib.contextmanager
    def copy(self, without: t.Collection[str]) -> t.Iterator[AppFolder]:
        """Give a copy of the folder that belongs to the same owner and goes afterwards.

        :param without: names directly in the folder that are left out.
        """
        with tempfile.TemporaryDirectory(prefix="ops_maintenance_build_") as place:
            os.chown(place, self.owner.st_uid, self.owner.st_gid)
            self.hand_over([name for name in sorted(os.listdir(self.path)) if name not in without], place)
            yield AppFolder(self.host, place, "the copy")

    def hand_over(self, names: t.Sequence[str], target: str) -> None:
        """Copy files and folders of this folder into another one of the same owner, as that owner."""
        paths = [os.path.join(self.path, name) for name in names]
        ran = self.host.run([*_become(self.owner), "cp", "-a", "--reflink=auto", "--", *paths, target], timeout=900)
        if ran.rc != 0:
            raise MaintenanceError(f"{self.path} could not be copied to {target}: {ran.why()}")


class Copies:
    """Copies of files and folders beside them, made before a change and put back when it fails."""

    def __init__(self, host: Host, paths: t.Sequence[str]) -> None:
        self.host = host
        self.paths = [path for path in paths if os.path.lexists(path)]
        self.missing = [path for path in paths if not os.path.lexists(path)]

    def leftover(self) -> str:
        """Return the copy of an earlier run that was interrupted, empty when there is none."""
        paths = [*self.paths, *self.missing]
        return next((path + _SUFFIX for path in paths if os.path.lexists(path + _SUFFIX)), "")

    def take(self) -> None:
        """Copy everything.

        :raises MaintenanceError: there is no room, or a copy could not be made; nothing was changed.
        """
        needed = sum(_size(path) for path in self.paths)
        for path in self.paths:
            if shutil.disk_usage(os.path.dirname(path)).free < needed * 1.2:
                raise MaintenanceError(f"There is no room beside {path} for a copy of {needed} bytes; make room first.")
        for path in self.paths:
            self._beside(path, ["cp", "-a", "--reflink=auto", "-T", "--", path, path + _SUFFIX])

    def put_back(self) -> None:
        """Replace everything by its copy; what the change created goes."""
        for path in [*self.paths, *self.missing]:
            if os.path.lexists(path):
                self._beside(path, ["rm", "-rf", "--", path])
        for path in self.paths:
            self._beside(path, ["mv", "-T", "--", path + _SUFFIX, path])

    def drop(self) -> None:
        """Remove the copies."""
        for path in self.paths:
            self._beside(path, ["rm", "-rf", "--", path + _SUFFIX])

    def _beside(self, path: str, argv: t.Sequence[str]) -> None:
        ran = self.host.run([*_become(os.lstat(os.path.dirname(path))), *argv], timeout=900)
        if ran.rc != 0:
            raise MaintenanceError(f"{argv[0]} of {path} failed ({ran.why()}); look for {path}{_SUFFIX}, which holds the state before.")


def _become(status: os.stat_result) -> list[str]:
    if os.geteuid() != 0 or status.st_uid == 0:
        return []
    return ["setpriv", f"--reuid={status.st_uid}", f"--regid={status.st_gid}", "--clear-groups", "--"]


def _home(status: os.stat_result) -> str:
    try:
        return pwd.getpwuid(status.st_uid).pw_dir
    except KeyError:
        return "/"


def _size(path: str) -> int:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return os.lstat(path).st_size
    return sum(os.lstat(os.path.join(d, n)).st_size for d, _folders, names in os.walk(path) for n in names)
