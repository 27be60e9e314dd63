# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, folders and links of a snapshot: what differs, each put back in one step, owner and mode read back."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from . import snapshot_store, sqlite_db, sqlite_restore
from .errors import MaintenanceError
from .judge import many
from .paths import fsync_folder, sha256_of
from .record import Finding, Json
from .snapshot_content import owner_of

_SHOWN = 20


def differs(entry: dict[str, Json]) -> bool:
    """Whether a path is not as in the snapshot: kind, owner, mode, content.

    :raises MaintenanceError: it is of another kind now.
    """
    path = entry["path"]
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    kind = _kind(status)
    if kind != entry["kind"]:
        raise MaintenanceError(f"{path} is a {kind} now and was a {entry['kind']}; move it away, then roll back again.")
    if kind == "link":
        return bool(os.readlink(path) != entry["target"])
    owner = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    if owner != (entry["uid"], entry["gid"], entry["mode"]):
        return True
    return kind == "file" and sha256_of(path) != entry["sha256"]


def put_back(entry: dict[str, Json], content: str) -> None:
    """Put one path back.

    :param content: where the snapshot keeps its files.
    """
    path = entry["path"]
    if entry["kind"] == "folder":
        sqlite_restore.make_folders(path)
        sqlite_restore.give(path, entry["uid"], entry["gid"], entry["mode"])
        return
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise MaintenanceError(f"The folder of {path} does not exist any more; create it, then roll back again.")
    sqlite_restore.sweep(folder)
    temporary = sqlite_restore.temporary_in(folder)
    try:
        if entry["kind"] == "link":
            os.symlink(entry["target"], temporary)
            os.lchown(temporary, entry["uid"], entry["gid"])
        else:
            sqlite_restore.copy_flushed(snapshot_store.stored(entry, content), temporary)
            os.utime(temporary, ns=(entry["mtime_ns"], entry["mtime_ns"]), follow_symlinks=False)
            sqlite_restore.give(temporary, entry["uid"], entry["gid"], entry["mode"])
        os.rename(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    fsync_folder(folder)


def new_paths(manifest: t.Mapping[str, Json]) -> list[str]:
    """Return what came into the folders of a snapshot after it."""
    known = {entry["path"] for entry in manifest["files"]} | {entry["path"] for entry in manifest["databases"]}
    known |= {path + end for path in known for end in sqlite_db.SIDECARS}
    new = []
    for folder in (entry["path"] for entry in manifest["files"] if entry["kind"] == "folder"):
        with contextlib.suppress(OSError):
            new += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [path for path in new if path not in known]


def proof(name: str, restored: t.Sequence[t.Mapping[str, Json]]) -> list[Finding]:
    """Say with which owner and mode the restored paths lie there now, and whose number is another's than it was.

    :param restored: entries that were put back and read back.
    """
    if not restored:
        return []
    lines, others = [], []
    for entry in restored:
        now = owner_of(os.lstat(entry["path"]))
        mode = "" if entry["kind"] == "link" else f"{stat.S_IMODE(os.lstat(entry['path']).st_mode):04o} "
        lines.append(f"{entry['path']}: {mode}{now}")
        if entry.get("owner", now) != now:
            others.append(f"{entry['path']}: was of {entry['owner']}, is of {now}, who has that number now")
    words = f"{many(len(restored), 'path')} read back: content, owner and mode are those of the snapshot"
    found = [Finding("rollback.files", "ok", name, words, len(restored), "count", evidence=lines[:_SHOWN])]
    if others:
        advice = "Give them to the right user (chown) before the application starts."
        found.append(Finding("rollback.owners", "warning", name, others[0], len(others), "count", evidence=others[:_SHOWN], advice=advice))
    return found


def _kind(status: os.stat_result) -> str:
    for kind, test in (("file", stat.S_ISREG), ("folder", stat.S_ISDIR), ("link", stat.S_ISLNK)):
        if test(status.st_mode):
            return kind
    return "special file"
