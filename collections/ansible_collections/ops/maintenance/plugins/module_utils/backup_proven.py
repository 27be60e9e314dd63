# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proofs that are kept of a set: the last one, and earlier ones that went deeper; they count as long as they are of the same content."""

from __future__ import annotations

import hashlib
import os
import stat
import typing as t

from .backup_sets import File
from .paths import open_folder, walk
from .record import Json

Proven = t.Mapping[str, Json]
_OF_DEEPER = ("path", "time", "level", "verified", "is_fresh", "sha256", "files")


def deeper(before: Proven, level: int) -> list[dict[str, Json]]:
    """Return the earlier proofs of a set that went deeper than the one of now, newest first: each level's last."""
    last = [{name: before.get(name) for name in _OF_DEEPER}] if before.get("path") else []
    kept = []
    for proof in [*last, *before.get("deeper", [])]:
        if proof["level"] > level:
            kept.append(proof)
            level = proof["level"]
    return kept


def is_short(proof: Proven) -> bool:
    """Whether the last proof fell short of what its run demanded; then no earlier one makes up for it."""
    return bool(proof["level"] < proof.get("demanded", proof["level"]))


def deepest(proof: Proven) -> int:
    """Return the highest level that the newest backup was ever proven to, byte by byte as it was read last."""
    level = int(proof.get("level", -1))
    if is_short({**proof, "level": level}):
        return level
    same = [kept for kept in proof.get("deeper", []) if kept["path"] == proof["path"] and kept["sha256"]]
    return max([level, *(int(kept["level"]) for kept in same if kept["sha256"] == proof.get("sha256"))])


def has_changed(file: File) -> bool:
    """Whether a file is no longer what was listed."""
    try:
        status = os.lstat(file.path)
    except OSError:
        return True
    return not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns)


def fingerprint(path: str) -> str:
    """Return a name for the files of a backup, from their names, sizes and times alone; empty when they cannot be looked at."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            with open_folder(path) as folder_fd:
                found = [(entry.relative, entry.status) for entry in walk(folder_fd)]
        else:
            found = [("", os.lstat(path))]
    except OSError:
        return ""
    lines = (f"{name!a} {status.st_mode} {status.st_size} {status.st_mtime_ns}\n" for name, status in sorted(found, key=lambda one: one[0]))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
