# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an application, brought out of their backups into one tree as they lie on the host; nothing leads out of it."""

from __future__ import annotations

import os
import tarfile
import typing as t
from dataclasses import dataclass, field

from .backup_kinds import Target
from .backup_proof import manifest_at
from .backup_sets import Backup, Declared
from .backup_stream import DamagedError, OnePass, UnsupportedError, is_tar, one_pass, tar_members
from .errors import MaintenanceError
from .paths import sha256_of


@dataclass
class Restored:
    """What one part brought."""

    files: int = 0
    size: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies below it, by its name."""
    path, folder = os.path.normpath(path), os.path.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def restore(backup: Backup, declared: Declared, part: t.Mapping[str, t.Any], target: Target) -> Restored:
    """Restore one part to below ``target`` at the path that it has on the host.

    :raises MaintenanceError: there is no room for it.
    """
    done, place = Restored(), part["path"].strip("/")
    for file in backup.files:
        try:
            with one_pass(file.path, declared["decrypt_command"]) as reading:
                if declared["layout"] == "files" and is_tar(reading.reader.peek(512)):
                    _unpacked(reading, [name for name in part["inside"].split("/") if name], place, target, done)
                else:
                    relative = "" if declared["layout"] == "files" else os.path.relpath(file.path, backup.path)
                    done.size += target.restore(os.path.join(place, relative).rstrip("/"), reading.reader.pieces(1 << 62))
                    done.files += 1
                reading.finish()
        except (DamagedError, UnsupportedError) as error:
            done.wrong.append(str(error))
        if target.problem:
            raise MaintenanceError(target.problem)
    if not done.files and not done.wrong:
        inside = f" below {part['inside']!r}" if part["inside"] else ""
        done.wrong.append(f"{backup.path} holds no file{inside}")
    return done


def _unpacked(reading: OnePass, inside: t.Sequence[str], place: str, target: Target, done: Restored) -> None:
    """Write regular files and folders first: a link that came before could lead the next file out of the tree."""
    links: list[tuple[str, str]] = []
    for member in tar_members(reading.reader):
        names = [name for name in member.name.split("/") if name not in ("", ".")]
        if ".." in names:
            raise DamagedError("damaged", f"{reading.path} has a member that leads outside of it: {member.name!r}")
        if names[: len(inside)] != list(inside):
            continue
        relative = os.path.join(place, *names[len(inside) :])
        if member.isreg() and not member.issparse():
            size = target.restore(relative, reading.reader.pieces(member.size))
            if size < member.size:
                raise DamagedError("half written", f"{reading.path} ends inside {member.name!r}: it is cut off")
            _set_mode(target.path_of(relative), member)
            done.files, done.size = done.files + 1, done.size + size
        elif member.isdir():
            os.makedirs(target.path_of(relative), mode=0o755, exist_ok=True)
        elif member.issym():
            links.append((member.linkname, target.path_of(relative)))
        else:
            done.notes.append(f"{member.name!r} is no plain file, folder or symbolic link and was left out")
    for leads_to, path in links:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if not os.path.lexists(path):
            os.symlink(leads_to, path)


def _set_mode(path: str, member: tarfile.TarInfo) -> None:
    if os.path.isfile(path):
        os.chmod(path, member.mode & 0o755 | 0o600)


def holds(root: str, folder: str, name: str) -> bool:
    """Whether a file that a row names lies in the restored tree; one that leads out of it is not there."""
    real = os.path.realpath(os.path.join(folder, name.lstrip("/")))
    return real.startswith(os.path.realpath(root) + "/") and is_below(real, os.path.realpath(folder)) and os.path.isfile(real)


def against_manifest(root: str, path: str) -> t.Iterator[str]:
    """Compare the restored files with the checksums that were backed up with them."""
    manifest = manifest_at(os.path.join(root, path.strip("/")))
    if manifest.problem:
        yield manifest.problem.replace(root, "")
    folder = os.path.dirname(manifest.path)
    for name, expected in manifest.digests.items():
        if not holds(root, folder, name):
            yield f"{name!r} of the manifest is not there"
        elif sha256_of(os.path.realpath(os.path.join(folder, name))) != expected:
            yield f"{name!r} is not what the manifest says"
