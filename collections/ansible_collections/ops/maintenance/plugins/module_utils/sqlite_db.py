# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite files: look without leaving a trace, check, count, copy while in use.

Never open a database file by another way while a connection of this process is open on it: closing any descriptor of
a file drops every POSIX lock that the process holds on it, SQLite's own included.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import sqlite3
import stat
import struct
import time
import typing as t
from urllib.parse import quote

from .errors import MaintenanceError
from .paths import fsync_folder, open_regular
from .record import clean

MAGIC = b"SQLite format 3\x00"
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
SIDECARS = ("-wal", "-shm", "-journal")
BUSY_SECONDS = 5.0
_HEADER_BYTES = 100
_PROBLEM_LIMIT = 100
# SQLite keeps its locks on these bytes of the main file (its "pending", "reserved" and "shared" bytes).
_LOCK_START = 0x40000000
_LOCK_LENGTH = 512
_BUSY_MESSAGES = ("locked", "busy")


class DatabaseUnusableError(MaintenanceError):
    """The path does not lead to a SQLite database.

    :param reason: ``missing``, ``link``, ``kind`` (not a regular file), ``empty``, ``foreign`` or ``unreadable``.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DatabaseBusyError(MaintenanceError):
    """Somebody else holds a lock for longer than we wait."""


class DatabaseDamagedError(MaintenanceError):
    """The database engine says that the file is damaged."""


class Header(t.NamedTuple):
    """What the first bytes of the file say."""

    page_size: int
    wal: bool

    @property
    def journal_mode(self) -> str:
        """The journal mode that is stored in the file: ``wal`` or ``rollback`` (delete, truncate or persist)."""
        return "wal" if self.wal else "rollback"


def read_header(path: str) -> Header:
    """Read the header of a database file, after making sure that it is one.

    :raises DatabaseUnusableError: missing, link, not a regular file, empty, or something else than a SQLite database.
    """
    try:
        file_fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        status = os.fstat(file_fd)
        if not stat.S_ISREG(status.st_mode):
            raise DatabaseUnusableError(f"{path} is not a regular file, expected a SQLite database; correct the path.", "kind")
        start = os.read(file_fd, _HEADER_BYTES)
    except OSError as error:
        raise _unusable(path, error) from None
    finally:
        os.close(file_fd)
    if not status.st_size:
        raise DatabaseUnusableError(
            f"{path} has zero bytes, expected a SQLite database; an empty file would answer every check with ok. "
            "Find out what emptied it and restore it.",
            "empty",
        )
    if len(start) < _HEADER_BYTES or not start.startswith(MAGIC):
        raise DatabaseUnusableError(
            f"{path} does not begin like a SQLite 3 database (it is something else, cut off or encrypted); "
            "correct the path or restore the file.",
            "foreign",
        )
    (page_size,) = struct.unpack(">H", start[16:18])
    return Header(65536 if page_size == 1 else page_size, start[18] == 2 or start[19] == 2)


def _unusable(path: str, error: OSError) -> DatabaseUnusableError:
    if error.errno == errno.ELOOP:
        return DatabaseUnusableError(f"{path} is a symbolic link, expected the SQLite database itself; name the file it leads to.", "link")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DatabaseUnusableError(f"{path} does not exist, expected a SQLite database; correct the path or restore it.", "missing")
    return DatabaseUnusableError(f"{path} could not be read: {error.strerror}; correct its permissions.", "unreadable")


def uri_of(path: str, query: str) -> str:
    """Return the URI of a database file; any byte that a name may hold is quoted."""
    return f"file:///{quote(os.fsencode(os.path.abspath(path)).lstrip(b'/'))}?{query}"


def open_readonly(path: str, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a database for reading only; never creates a file where none is needed.

    A database in WAL mode that nobody has open (no ``-wal`` beside it) is opened as immutable, because SQLite would
    otherwise leave a ``-wal`` and a ``-shm`` behind. Where somebody may open it meanwhile, use :func:`reading`.

    :raises DatabaseUnusableError: see :func:`read_header`.
    """
    header = read_header(path)
    return _connect(path, "mode=ro&immutable=1" if header.wal and not _has_wal(path) else "mode=ro", timeout)


def open_writable(path: str, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open an existing database for writing; never creates one."""
    read_header(path)
    return _connect(path, "mode=rw", timeout)


def _connect(path: str, query: str, timeout: float) -> sqlite3.Connection:
    with translated(path):
        connection = sqlite3.connect(uri_of(path, query), uri=True, timeout=timeout, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
    return connection


def _has_wal(path: str) -> bool:
    return os.path.lexists(path + "-wal")


Result = t.TypeVar("Result")


def reading(path: str, ask: t.Callable[[sqlite3.Connection], Result], timeout: float = BUSY_SECONDS) -> Result:
    """Ask a database that may be in use: open for reading, ``ask(connection)``, close.

    Where the file changed below an immutable connection, what was read means nothing and is asked again.
    """
    before = _fingerprint(path)
    immutable = read_header(path).wal and not before.has_wal
    if immutable:
        with contextlib.suppress(DatabaseDamagedError):
            with contextlib.closing(_connect(path, "mode=ro&immutable=1", timeout)) as connection:
                answer = ask(connection)
            if _fingerprint(path) == before:
                return answer
        immutable = _fingerprint(path) == before
    with contextlib.closing(_connect(path, "mode=ro&immutable=1" if immutable else "mode=ro", timeout)) as connection:
        return ask(connection)


def reading_fixed(path: str, ask: t.Callable[[sqlite3.Connection], Result]) -> Result:
    """Ask a database file that nobody writes, such as a finished copy: exactly its bytes, no sidecar file is read."""
    read_header(path)
    with contextlib.closing(_connect(path, "mode=ro&immutable=1", BUSY_SECONDS)) as connection:
        return ask(connection)


class _Fingerprint(t.NamedTuple):
    has_wal: bool
    inode: int
    size: int
    mtime_ns: int


def _fingerprint(path: str) -> _Fingerprint:
    try:
        status = os.lstat(path)
    except OSError as error:
        raise _unusable(path, error) from None
    return _Fingerprint(_has_wal(path), status.st_ino, status.st_size, status.st_mtime_ns)


@contextlib.contextmanager
def translated(path: str) -> t.Iterator[None]:
    """Turn sqlite3's errors into ours; a lock, damage and a failed read are three different things."""
    try:
        yield
    except sqlite3.OperationalError as error:
        said = clean(str(error), 200)
        if any(word in said for word in _BUSY_MESSAGES):
            raise DatabaseBusyError(f"{path} is locked by somebody else ({said}); find out who holds it and try again.") from None
        raise MaintenanceError(f"{path} could not be read or written: {said}; look at the disk and the path.") from None
    except sqlite3.DatabaseError as error:
        raise DatabaseDamagedError(f"{path} is damaged: {clean(str(error), 200)}; restore it from a proven backup.") from None


def interrupted(path: str) -> bool:
    """Whether a killed process left a transaction half written, which the next one that may write has to undo."""
    try:
        with open_regular(path + "-journal") as source:
            return source.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC
    except FileNotFoundError:
        return False


def quoted(identifier: str) -> str:
    """Quote a table or index name for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def path_of(connection: sqlite3.Connection) -> str:
    """Return the path of the main database of a connection."""
    row = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
    return str(row[0]) if row and row[0] else "the database"


def integrity(connection: sqlite3.Connection) -> list[str]:
    """Return what ``PRAGMA integrity_check`` finds (tables, indexes, constraints); empty only for the exact answer ok.

    :raises DatabaseBusyError: it was not possible to look.
    """
    try:
        with translated("the database"):
            rows = connection.execute(f"PRAGMA integrity_check({_PROBLEM_LIMIT})").fetchall()
    except DatabaseDamagedError as error:
        return [str(error)]
    if [tuple(row) for row in rows] == [("ok",)]:
        return []
    return [clean(str(row[0]), 300) for row in rows] or ["integrity_check gave no answer"]


def foreign_keys(connection: sqlite3.Connection) -> list[str]:
    """Return the rows that refer to a row that does not exist, at most 100, in words."""
    problems = []
    with translated("the database"):
        for table, rowid, parent, _key in connection.execute("PRAGMA foreign_key_check"):
            problems.append(clean(f"{table} row {rowid} refers to a row that {parent} does not have", 300))
            if len(problems) >= _PROBLEM_LIMIT:
                break
    return problems


def tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the tables, those of SQLite itself left out."""
    with translated("the database"):
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return [row[0] for row in rows if not row[0].startswith("sqlite_")]


def table_counts(connection: sqlite3.Connection, names: t.Iterable[str]) -> dict[str, int]:
    """Count the rows of tables.

    :raises MaintenanceError: a table is missing, locked or unreadable; it never counts as 0 rows.
    """
    present = set(tables(connection))
    counts: dict[str, int] = {}
    for name in names:
        if name not in present:
            raise MaintenanceError(f"The database has no table {name}; correct the name or find out who dropped it.")
        with translated(f"table {name}"):
            counts[name] = connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]  # noqa: S608
    return counts


def freeable_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes in unused pages, which VACUUM would give back."""
    with translated("the database"):
        pages = connection.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])


def journal_mode(connection: sqlite3.Connection) -> str:
    """Return the journal mode that the connection uses; for the stored one see :attr:`Header.journal_mode`."""
    with translated("the database"):
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0]).lower()


def online_copy(source: str, target: str, timeout: float = 60.0) -> None:
    """Copy a database while others use it, committed rows in the ``-wal`` included, and prove the copy.

    The copy appears under ``target`` (which may not exist yet) only when it is complete, flushed to disk and
    passed the integrity check; mode 0600. Its journal mode is that of the source.

    :param timeout: seconds to wait for locks of others.
    :raises DatabaseDamagedError: source or copy is damaged; nothing is left under ``target``.
    """
    folder = os.path.dirname(os.path.abspath(target))
    if os.path.lexists(target):
        raise MaintenanceError(f"{target} exists already, expected a free name for a copy of {source}; it was left alone.")
    temporary = os.path.join(folder, f".copy-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        reading(source, lambda connection: _copy_pages(connection, temporary, source, timeout), timeout)
        flush(temporary)
        _prove_copy(source, temporary)
        os.rename(temporary, target)
        fsync_folder(folder)
    except OSError as error:
        raise MaintenanceError(f"{source} could not be copied to {target}: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _copy_pages(connection: sqlite3.Connection, temporary: str, source: str, timeout: float) -> None:
    os.truncate(temporary, 0)
    end = time.monotonic() + timeout

    def still_in_time(_status: int, left: int, total: int) -> None:
        # Python repeats a busy step for ever; without this a lock would hang the run.
        if (left or not total) and time.monotonic() > end:
            raise DatabaseBusyError(f"{source} stayed locked for {timeout:g} seconds while it was copied; try again later.")

    with translated(source):
        copy = sqlite3.connect(uri_of(temporary, "mode=rw"), uri=True, isolation_level=None)
        with contextlib.closing(copy):
            # The file is not yet anyone's: no journal beside it; one flush at the end makes it durable.
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            connection.backup(copy, pages=-1, progress=still_in_time, sleep=0.1)


def flush(path: str) -> None:
    """Make the bytes of a file durable."""
    file_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file_fd)
    finally:
        os.close(file_fd)


def _prove_copy(source: str, copy: str) -> None:
    try:
        read_header(copy)
    except DatabaseUnusableError as error:
        raise DatabaseDamagedError(f"The copy of {source} is not a database ({error.reason}); it was removed.") from None
    problems = reading_fixed(copy, integrity)
    if problems:
        raise DatabaseDamagedError(
            f"The copy of {source} did not pass the integrity check ({problems[0]}), so {source} is damaged; "
            "the copy was removed. Restore the database from a proven backup."
        )


class Users(t.NamedTuple):
    """Who has a database open, in words; ``unseen`` are processes that may have it open but would not let us look."""

    holders: list[str]
    unseen: list[str]


def users_of(path: str, proc: str = "/proc") -> Users:
    """Find the processes that have a database or its sidecar files open, or hold a lock on it.

    The lock test also sees processes of other containers, which ``/proc`` does not show.
    """
    files, owners = set(), {0}
    for name in (path, *(path + sidecar for sidecar in SIDECARS)):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(name)
            files.add((status.st_dev, status.st_ino))
            owners.add(status.st_uid)
    holders, unseen = open_by(files, owners, proc)
    locker = _lock_holder(path)
    if locker is not None and not any(holder.startswith(f"process {locker} ") for holder in holders):
        holders.append(f"process {locker} (by its lock)" if locker > 0 else "a process elsewhere (by its lock)")
    return Users(holders, unseen)


def open_by(files: t.Collection[tuple[int, int]], owners: t.Collection[int], proc: str = "/proc") -> Users:
    """Find the processes that have one of these files open.

    :param files: device and inode of each.
    :param owners: users whose processes could open them, though nobody may look into those processes.
    """
    holders, unseen = [], []
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        try:
            if _has_open(os.path.join(proc, pid, "fd"), files):
                holders.append(f"process {pid} ({_command_of(proc, pid)})")
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            # The init process opens no database; a process of another user could not open this one.
            with contextlib.suppress(FileNotFoundError):
                if pid != "1" and os.stat(os.path.join(proc, pid)).st_uid in owners:
                    unseen.append(f"process {pid} ({_command_of(proc, pid)})")
    return Users(holders, unseen)


def _has_open(folder: str, files: t.Collection[tuple[int, int]]) -> bool:
    for descriptor in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(os.path.join(folder, descriptor))
            if (status.st_dev, status.st_ino) in files:
                return True
    return False


def _command_of(proc: str, pid: str) -> str:
    with contextlib.suppress(OSError), open(os.path.join(proc, pid, "cmdline"), "rb") as source:
        return clean(source.read(200).replace(b"\0", b" ").decode("utf-8", "backslashreplace").strip(), 120) or "no name"
    return "no name"


def _lock_holder(path: str) -> int | None:
    """Return the pid that holds one of SQLite's locks on a file (0 or less: not one of ours to see), or None."""
    layout = "hhqqi"  # struct flock: type, whence, start, length, pid
    try:
        file_fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, _LOCK_START, _LOCK_LENGTH, 0)
        kind, _whence, _start, _length, pid = struct.unpack(layout, fcntl.fcntl(file_fd, fcntl.F_GETLK, asked))
    finally:
        os.close(file_fd)
    return None if kind == fcntl.F_UNLCK else int(pid)
