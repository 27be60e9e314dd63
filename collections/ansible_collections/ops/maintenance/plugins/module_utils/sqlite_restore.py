# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a proven copy in the place of a SQLite database, and keep what was there before."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import typing as t
from datetime import datetime

from . import sqlite_db
from .errors import InputError, MaintenanceError
from .judge import human_bytes
from .paths import ensure_private_folder, fsync_folder, open_regular, sha256_of
from .record import Json

_RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_CHUNK = 1024 * 1024


def checked_run_id(run_id: str, now: datetime, option: str = "run_id") -> str:
    """Return a run id that is safe as a folder's name; without one, ``manual-<time>``."""
    if not run_id:
        return now.strftime("manual-%Y%m%dT%H%M%SZ")
    if not _RUN_ID.match(run_id):
        raise InputError.of(option, run_id, "letters, digits, dots, dashes and underscores", "give the id of a run")
    return run_id


def free_bytes(folder: str) -> int:
    """Return what an unprivileged process may still write below a folder (its nearest existing parent)."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def require_room(folder: str, needed: int, purpose: str) -> None:
    """Refuse before anything is written where a file system has too little room."""
    free = free_bytes(folder)
    if free < needed:
        raise MaintenanceError(
            f"{folder} has {human_bytes(free)} free, expected at least {human_bytes(needed)} for {purpose}; "
            "nothing was changed. Make room and run again."
        )


def sized(paths: t.Iterable[str]) -> int:
    """Return the sum of the sizes of those files that exist."""
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            total += os.lstat(path).st_size
    return total


def with_sidecars(path: str) -> list[str]:
    """Return the paths of a database and of its sidecar files, those that exist."""
    return [name for name in (path, *(path + end for end in sqlite_db.SIDECARS)) if os.path.lexists(name)]


def copy_flushed(source: str, target: str, mode: int = 0o600) -> None:
    """Copy a regular file's bytes to a new file and flush it to disk."""
    target_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open_regular(source) as reader, os.fdopen(target_fd, "wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)
        writer.flush()
        os.fsync(writer.fileno())


def make_folders(path: str) -> None:
    """Create a folder with its parents, each of them closed to others (os.makedirs closes only the last)."""
    if not os.path.isdir(path):
        make_folders(os.path.dirname(path))
        os.mkdir(path, 0o700)


def evidence_folder(state_dir: str, name: str) -> str:
    """Create a new private folder for evidence; an earlier one of the same name is kept."""
    root = os.path.join(state_dir, "evidence")
    ensure_private_folder(state_dir)
    ensure_private_folder(root)
    for attempt in range(1, 1000):
        folder = os.path.join(root, name if attempt == 1 else f"{name}-{attempt}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
            return folder
    raise MaintenanceError(f"{root} holds 999 folders named {name} already; move them away.")


def keep(folder: str, paths: t.Iterable[str]) -> list[str]:
    """Copy regular files below an evidence folder, under their full path, each compared with its source."""
    kept = []
    for path in paths:
        target = os.path.join(folder, path.lstrip("/"))
        make_folders(os.path.dirname(target))
        copy_flushed(path, target)
        if sha256_of(path) != sha256_of(target):
            raise MaintenanceError(f"{path} changed while it was copied to {target}; stop what writes to it and try again.")
        fsync_folder(os.path.dirname(target))
        kept.append(target)
    return kept


class Place(t.NamedTuple):
    """How the file of a database has to be: owner, group, mode and journal mode."""

    uid: int
    gid: int
    mode: int
    wal: bool


def put_back(copy: str, path: str, place: Place) -> str:
    """Put a proven copy in place of a database that nobody has open, in one step, and return its SHA-256.

    What was there before has to be kept by the caller. The order makes it safe to be killed anywhere: an old ``-wal``
    beside the new file would be replayed over it, so the sidecar files go before the new file comes.
    """
    folder = os.path.dirname(path)
    sweep(folder)
    temporary = temporary_in(folder)
    try:
        copy_flushed(copy, temporary)
        _set_journal_mode(temporary, place.wal)
        give(temporary, place.uid, place.gid, place.mode)
        digest = sha256_of(temporary)
        for name in with_sidecars(path):
            if name != path:
                os.unlink(name)
        fsync_folder(folder)
        os.rename(temporary, path)
        fsync_folder(folder)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return digest


def temporary_in(folder: str) -> str:
    """Return the name under which a restored file is written before it takes its place."""
    return os.path.join(folder, f".ops-maintenance-restore-{os.getpid()}.tmp")


def give(path: str, uid: int, gid: int, mode: int) -> None:
    """Set owner and mode of a file or folder and flush it, never through a link that somebody put in its place."""
    file_fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fchown(file_fd, uid, gid)
        os.fchmod(file_fd, mode)
        os.fsync(file_fd)
    finally:
        os.close(file_fd)


def sweep(folder: str) -> list[str]:
    """Remove what a killed restore left in a database's folder."""
    swept = []
    for name in sorted(os.listdir(folder)):
        if re.match(r"^\.ops-maintenance-restore-\d+\.tmp(-wal|-shm|-journal)?$", name):
            os.unlink(os.path.join(folder, name))
            swept.append(name)
    return swept


def _set_journal_mode(path: str, wal: bool) -> None:
    """A copy made by VACUUM INTO, for one, is not in WAL mode any more."""
    if sqlite_db.read_header(path).wal == wal:
        return
    with sqlite_db.translated(path), contextlib.closing(sqlite_db.open_writable(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
    if sqlite_db.read_header(path).wal != wal:
        raise MaintenanceError(f"{path} did not take the journal mode {'wal' if wal else 'delete'}; nothing was replaced.")


class Proof(t.NamedTuple):
    """What looking at a database or a copy showed; ``orphans`` are rows that refer to rows that do not exist."""

    problems: list[str]
    orphans: list[str]
    rows: dict[str, int]


def prove(path: str, required_tables: t.Sequence[str] = ()) -> Proof:
    """Check a database or a copy completely: tables, integrity, foreign keys; count the rows of every table."""

    def ask(connection: sqlite3.Connection) -> Proof:
        present = sqlite_db.tables(connection)
        problems = [f"there is no table {name}" for name in required_tables if name not in present]
        problems += sqlite_db.integrity(connection)
        if problems:
            return Proof(problems, [], {})
        return Proof([], sqlite_db.foreign_keys(connection), sqlite_db.table_counts(connection, present))

    try:
        return sqlite_db.reading(path, ask)
    except (sqlite_db.DatabaseUnusableError, sqlite_db.DatabaseDamagedError) as error:
        return Proof([str(error)], [], {})


def row_gap(before: t.Mapping[str, int], after: t.Mapping[str, int]) -> dict[str, Json]:
    """Say per table how many rows a restore takes away (negative) or brings back, tables without difference left out."""
    names = sorted(set(before) | set(after))
    return {name: after.get(name, 0) - before.get(name, 0) for name in names if before.get(name) != after.get(name)}
