# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's own private folder. A lock says that its run lives, for that goes with the process, and a process number may be another's by then."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import typing as t

_LOCK = ".lock"


@contextlib.contextmanager
def held(parent: str | None, prefix: str) -> t.Iterator[str]:
    """Make a folder and hold it; it is removed afterwards whatever happens.

    :param parent: ``None`` for the system's folder of temporary files.
    """
    folder, lock_fd = _made(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock_fd)


def _made(parent: str | None, prefix: str) -> tuple[str, int]:
    """Make a folder and lock it; another one, should somebody have swept it before it was locked."""
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
        with contextlib.suppress(FileNotFoundError):
            lock_fd = _open(folder)
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            if os.fstat(lock_fd).st_nlink:
                return folder, lock_fd
            os.close(lock_fd)


def _open(folder: str) -> int:
    return os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def sweep(parent: str, prefix: str) -> None:
    """Remove the folders that nobody holds: a killed run left them, and they may hold what nobody else may see."""
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(parent)):
            folder = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                if name.startswith(prefix) and stat.S_ISDIR(os.lstat(folder).st_mode):
                    _remove_unheld(folder)


def _remove_unheld(folder: str) -> None:
    lock_fd = _open(folder)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock_fd)
