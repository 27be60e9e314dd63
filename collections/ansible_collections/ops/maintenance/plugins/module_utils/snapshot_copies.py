# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of what a snapshot holds, under names that people know: mode 0600, whole or not there, never beside what may be published."""

from __future__ import annotations

import contextlib
import os
import typing as t
from datetime import datetime

from . import snapshot_postgresql, snapshot_store, sqlite_restore
from .backup_encryption import command_problems, encryption_of_file
from .backup_stream import piped
from .errors import MaintenanceError
from .paths import fsync_folder, sha256_of
from .record import Json

_TIME = "%Y%m%d_%H%M%S"
_CHUNK = 1024 * 1024


def problems(what: str, shown: str) -> list[str]:
    """Say what is wrong with the name of a copy."""
    if not os.path.isabs(shown) or os.path.normpath(shown) != shown or "{time}" not in os.path.basename(shown):
        return [f"copy_as of {what} is {shown!r}, expected an absolute path with {{time}} in the file's name; correct it."]
    return []


def problems_of_paths(copies: t.Sequence[t.Mapping[str, t.Any]], paths: t.Sequence[str]) -> list[str]:
    """Say what is wrong with the declared copies of files; one in a tree that is committed or deployed would give secrets away."""
    found = []
    for entry in copies:
        path, folder = entry["path"], os.path.dirname(entry["copy_as"])
        found += problems(path, entry["copy_as"])
        found += command_problems(entry["encrypt_command"], f"encrypt_command of {path}")
        if not any(path == held or path.startswith(held + "/") for held in paths):
            found.append(f"path_copies names {path}, which paths does not hold; add it there.")
        tree = os.path.dirname(path)
        if folder == tree or folder.startswith(tree + "/"):
            found.append(f"copy_as of {path} is {entry['copy_as']!r}, inside the tree of the file itself; name a folder outside.")
        elif work_tree_of(folder):
            found.append(f"copy_as of {path} is {entry['copy_as']!r}, inside the work tree {work_tree_of(folder)}; name a folder outside.")
    return found


def work_tree_of(folder: str) -> str:
    """Return the work tree that a folder lies in, empty when it lies in none."""
    while folder not in ("/", ""):
        if any(os.path.lexists(os.path.join(folder, name)) for name in (".git", ".hg", ".svn")):
            return folder
        folder = os.path.dirname(folder)
    return ""


def named(shown: str, moment: datetime) -> str:
    """Name a copy by the host's own clock, as a person on it would."""
    return shown.replace("{time}", moment.astimezone().strftime(_TIME))


def wanted(manifest: t.Mapping[str, Json]) -> t.Iterator[dict[str, Json]]:
    """Yield what a snapshot copies: ``what``, ``copy``, and where the snapshot keeps it with its checksum."""
    for entry in [*manifest["databases"], *manifest["files"]]:
        if entry.get("copy"):
            yield {**entry, **entry.get("encrypted", {}), "what": entry["path"]}
    for server, entry in snapshot_postgresql.databases(manifest):
        if entry["copy"]:
            sealed = entry.get("encrypted") or {}
            yield {
                **entry["files"][0],
                **sealed,
                "encrypted": sealed,
                "copy": entry["copy"],
                "what": f"{server['name']}/{entry['database']}",
            }


def write(entry: t.Mapping[str, Json], folder: str, name: str, reserve: int) -> bool:
    """Write a copy under a temporary name, compare it, and give it its name; return whether that was needed.

    :param folder: the snapshot's.
    :raises MaintenanceError: something else lies under that name, there is no room, or it came out different.
    """
    target = entry["copy"]
    if os.path.lexists(target):
        if not os.path.islink(target) and sha256_of(target) == entry["sha256"]:
            return False
        raise MaintenanceError(f"The copy {target} is there already with other content; it was left alone. Move it away.")
    parent = os.path.dirname(target)
    sqlite_restore.make_folders(parent)
    temporary = os.path.join(parent, f".snapshot-{name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    sqlite_restore.require_room(parent, entry["size"] + reserve, f"the copy {target}")
    sqlite_restore.copy_flushed(snapshot_store.stored(entry, folder), temporary)
    if sha256_of(temporary) != entry["sha256"]:
        raise MaintenanceError(f"The copy {target} came out different from the snapshot; look at the disk.")
    os.rename(temporary, target)
    fsync_folder(parent)
    return True


def remove(entry: t.Mapping[str, Json]) -> None:
    """Remove a copy, if it is still the one that was written."""
    copy = entry["copy"]
    if os.path.isfile(copy) and not os.path.islink(copy) and sha256_of(copy) == entry["sha256"]:
        os.unlink(copy)


def encrypted(work: str, file: str, command: t.Sequence[str]) -> dict[str, Json]:
    """Keep beside a file of the snapshot what the command makes of it, which is what its copy will be.

    Only who has the key can read that again, so it is proven to be encrypted and no more.
    """
    relative = os.path.join("encrypted", file)
    source, target = os.path.join(work, file), os.path.join(work, relative)
    sqlite_restore.make_folders(os.path.dirname(target))
    with open(source, "rb") as reading, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writing:
        for chunk in piped(iter(lambda: reading.read(_CHUNK), b""), command, source, "be encrypted"):
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    if not encryption_of_file(target):
        raise MaintenanceError(
            f"What {command[0]} made of {source} does not begin as an encrypted file does. "
            "Expected age, OpenPGP or openssl enc; correct encrypt_command."
        )
    return {"file": relative, "sha256": sha256_of(target), "size": os.lstat(target).st_size}
