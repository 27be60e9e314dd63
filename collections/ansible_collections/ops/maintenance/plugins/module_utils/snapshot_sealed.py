# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot at rest as one encrypted file: only its manifest is in clear, and what it holds is opened for the time of a proof or a rollback."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import typing as t

from . import sqlite_restore, tree_archive
from .backup_encryption import command_problems, encryption_of_file
from .backup_stream import DamagedError, UnsupportedError, piped
from .errors import MaintenanceError
from .paths import fsync_folder, sha256_of
from .record import Json

FILE = "content.sealed"
_OPEN = ".open-"


def problems(params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Say what cannot be meant, one sentence each, from the input alone."""
    for option in ("encrypt_command", "decrypt_command"):
        yield from command_problems(params[option], option)
    if params["encrypt_command"] and not params["decrypt_command"]:
        yield "encrypt_command is given without decrypt_command, expected both; a rollback could not read its own snapshot."
    if not params["encrypt_command"]:
        return
    clear = [entry["copy_as"] for entry in params["databases"] if entry["copy_as"]]
    clear += [
        entry["copy_as"] for entry in (*params["postgresql"], *params["path_copies"]) if entry["copy_as"] and not entry["encrypt_command"]
    ]
    for copy in clear:
        yield f"copy_as {copy!r} is in clear while encrypt_command seals the snapshot; give it an encrypt_command too, or leave it out."


def seal(work: str, command: t.Sequence[str], decrypt_command: t.Sequence[str]) -> dict[str, Json]:
    """Put all that lies in a half-written snapshot into one encrypted file, prove that the key opens it, and remove what is in clear.

    :raises MaintenanceError: it did not come out encrypted, or the key does not open it.
    """
    names, target, clear_bytes = sorted(os.listdir(work)), os.path.join(work, FILE), tree_archive.size_of(work, ())
    try:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as writing:
            for chunk in piped(tree_archive.pack(work, [FILE], tree_archive.Packed()), command, work, "be encrypted"):
                writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        kind = encryption_of_file(target)
        if not kind:
            raise MaintenanceError(
                f"What {command[0]} made of the snapshot does not begin as an encrypted file does; correct encrypt_command."
            )
        _prove(target, work, decrypt_command)
    except (DamagedError, UnsupportedError) as error:
        raise MaintenanceError(f"The snapshot cannot be sealed: {error}") from error
    for name in names:
        path = os.path.join(work, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    fsync_folder(work)
    return {"file": FILE, "sha256": sha256_of(target), "size": os.lstat(target).st_size, "clear_bytes": clear_bytes, "with": kind}


def _prove(target: str, work: str, decrypt_command: t.Sequence[str]) -> None:
    """Read what was sealed through the key, and compare each byte with what still lies there in clear."""
    try:
        differ = tree_archive.differing(target, work, [FILE], decrypt_command)
    except DamagedError as error:
        raise MaintenanceError(f"The key does not open what encrypt_command made ({error}); correct decrypt_command.") from None
    if differ:
        raise MaintenanceError(f"What the key makes of the sealed snapshot is not what was sealed ({(differ.changed + differ.extra)[0]}).")


@contextlib.contextmanager
def opened(root: str, name: str, sealed: t.Mapping[str, Json], decrypt_command: t.Sequence[str]) -> t.Iterator[str]:
    """Yield a private folder with what a sealed snapshot holds, removed afterwards whatever happens.

    :raises MaintenanceError: there is no key, it does not fit, or there is no room.
    """
    if not decrypt_command:
        raise MaintenanceError(
            f"The snapshot {name} is sealed ({sealed['with']}) and cannot be opened without its key; give decrypt_command."
        )
    sweep(root)
    sqlite_restore.require_room(root, sealed["clear_bytes"], f"opening the snapshot {name}")
    folder = tempfile.mkdtemp(prefix=_OPEN, dir=root)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder_fd, fcntl.LOCK_EX)  # it goes with this process, however that ends; a number may be another's by then
        try:
            tree_archive.put_back(os.path.join(root, name, FILE), folder, None, (), decrypt_command)
        except MaintenanceError as error:
            raise MaintenanceError(f"The sealed snapshot {name} cannot be opened: {error}") from None
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(folder_fd)


def sweep(root: str) -> list[str]:
    """Remove what a killed run left open."""
    swept = []
    for name in sorted(name for name in os.listdir(root) if name.startswith(_OPEN)):
        folder_fd = os.open(os.path.join(root, name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        finally:
            os.close(folder_fd)
        shutil.rmtree(os.path.join(root, name))
        swept.append(name)
    return swept
