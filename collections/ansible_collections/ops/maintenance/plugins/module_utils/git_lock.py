# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks in a work tree: one that a killed git left is moved aside, one that somebody may still hold is awaited a little."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .errors import MaintenanceError
from .host import Host
from .judge import human_seconds
from .log_files import open_for_writing
from .paths import ensure_private_folder
from .record import Finding

STALE_SECONDS = 600.0
"""No git that a run starts may take that long: each is killed after a minute or two."""
WAIT_SECONDS = 10.0
_STEP = 0.5
_ASIDE = "stale-locks"


def free(tree: str, host: Host, git: t.Callable[..., str]) -> list[Finding]:
    """See to it that no lock keeps git from committing in a work tree.

    :param git: runs git in the tree and returns what it printed.
    :raises MaintenanceError: somebody holds a lock, or may, and did not let go of it.
    """
    folder = os.path.join(tree, git("rev-parse", "--git-dir").strip())
    moved = [_aside(lock, folder) for lock in _places(tree, git) if _is_left(lock, tree, host)]
    if not moved:
        return []
    words = f"git could not commit in {tree}: {moved[0]}"
    advice = "Look why that git was killed; remove what was moved aside when nobody misses it."
    return [Finding("snapshot.version_lock", "warning", tree, words, evidence=moved, advice=advice)]


def _places(tree: str, git: t.Callable[..., str]) -> list[str]:
    names = ["index.lock", "HEAD.lock"]
    with contextlib.suppress(MaintenanceError):  # no branch is checked out
        names.append(git("symbolic-ref", "--quiet", "HEAD").strip() + ".lock")
    found = git("rev-parse", *(word for name in names for word in ("--git-path", name)))
    return [os.path.join(tree, line) for line in found.splitlines()]


def _is_left(lock: str, tree: str, host: Host) -> bool:
    """Whether a lock is there that nobody holds; waits for one that may be held.

    :raises MaintenanceError: it did not go.
    """
    waited = 0.0
    while os.path.lexists(lock):
        held = _held(lock, tree, host)
        if not held:
            return True
        if waited >= WAIT_SECONDS:
            raise MaintenanceError(
                f"git in {tree} is locked by {lock}: {held}, and that did not end within {human_seconds(WAIT_SECONDS)}; "
                "wait for it, or remove the lock when you know that no git works there, then run again."
            )
        host.sleep(_STEP)
        waited += _STEP
    return False


def _held(lock: str, tree: str, host: Host) -> str:
    """Say why a lock may be held, empty when nobody holds it."""
    try:
        status = os.lstat(lock)
    except FileNotFoundError:
        return "it went just now"
    writer = open_for_writing().get((status.st_dev, status.st_ino)) or _git_in(tree)
    if writer:
        return f"{writer} holds it"
    age = host.now().timestamp() - status.st_mtime  # a git in another container is not seen
    return "" if age > STALE_SECONDS else f"it is {human_seconds(max(age, 0))} old"


def _git_in(tree: str) -> str:
    """Return a git that works in the tree; between writing a lock and giving it its name no file is open."""
    root = os.path.realpath(tree)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
                is_git = name.read().strip() == "git"
            if is_git and (os.readlink(f"/proc/{pid}/cwd") + "/").startswith(root + "/"):
                return f"process {pid} (git)"
    return ""


def _aside(lock: str, git_folder: str) -> str:
    folder = os.path.join(git_folder, _ASIDE)
    ensure_private_folder(folder)
    changed = os.lstat(lock).st_mtime
    target = os.path.join(folder, f"{os.path.basename(lock)}.{changed:.0f}")
    os.rename(lock, target)
    return f"{lock}, which no process held, was moved to {target}"
