# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compress, move and delete single files so that at any instant every line exists in a complete file.

The order is always: a hidden temporary file, written and flushed to disk; read back and compared; given its final name,
which never replaces another file; and only then, while the kernel keeps writers out, is the old name removed. What
an interrupted run left is recognised by content: see :func:`settle`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import itertools
import lzma
import os
import re
import signal
import stat
import typing as t

from .errors import MaintenanceError
from .log_lines import LineReader
from .paths import open_regular
from .record import clean

TEMPORARY = ".ops_maintenance.tmp"
SUFFIX = {"gz": ".gz", "xz": ".xz"}

_CHUNK = 256 * 1024
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class HeldError(MaintenanceError):
    """A file was left as it is; the message says why."""


class Place(t.NamedTuple):
    """A file name in an opened folder."""

    dir_fd: int
    name: str


@contextlib.contextmanager
def place_of(root_fd: int, relative: str, make_like: int | None = None) -> t.Iterator[Place]:
    """Open the folder of a path below a root, never through a link.

    :param make_like: make missing folders, with the owner and mode of this opened one.
    """
    *folders, name = relative.split("/")
    current = os.dup(root_fd)
    try:
        for folder in folders:
            if make_like is not None:
                _make_folder(current, folder, os.fstat(make_like))
            child = os.open(folder, _DIR_FLAGS, dir_fd=current)
            os.close(current)
            current = child
        yield Place(current, name)
    finally:
        os.close(current)


def _make_folder(dir_fd: int, name: str, like: os.stat_result) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, stat.S_IMODE(like.st_mode) | 0o700, dir_fd=dir_fd)
        with contextlib.suppress(PermissionError):
            os.chown(name, like.st_uid, like.st_gid, dir_fd=dir_fd, follow_symlinks=False)
        os.fsync(dir_fd)


# Who writes ----------------------------------------------------------------------------------------------------------


class Writer(t.NamedTuple):
    """A process that has a file open for writing."""

    pid: int
    name: str
    appends: bool

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})" if self.name else f"process {self.pid}"


def open_for_writing() -> dict[tuple[int, int], Writer]:
    """Return the files that processes have open for writing, by device and inode, with one such process, rather one that does not append."""
    writers: dict[tuple[int, int], Writer] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError, ValueError, StopIteration):
                    status = os.stat(f"/proc/{pid}/fd/{number}")
                    flags = _flags(pid, number) if stat.S_ISREG(status.st_mode) else os.O_RDONLY
                    key, appends = (status.st_dev, status.st_ino), bool(flags & os.O_APPEND)
                    if flags & os.O_ACCMODE != os.O_RDONLY and (key not in writers or not appends):
                        writers[key] = Writer(int(pid), _name_of(pid), appends)
    return writers


def _flags(pid: str, number: str) -> int:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
        return next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))


def _name_of(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
        return clean(name.read().strip(), 40)


@contextlib.contextmanager
def writers_kept_out(file_fd: int) -> t.Iterator[None]:
    """Have the kernel make anybody who wants to open the file for writing wait (a read lease, for an instant).

    :raises HeldError: somebody has it open for writing.
    """
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)  # a broken lease is announced with SIGIO, which kills
    leased = False
    try:
        try:
            fcntl.fcntl(file_fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            leased = True
        except OSError as error:
            if error.errno == errno.EAGAIN:
                check_not_written(os.fstat(file_fd))  # names the process, where it can be seen
                raise HeldError("a process has it open for writing") from None
            check_not_written(os.fstat(file_fd))  # this file system, or this user, has no leases
        yield
    finally:
        if leased:
            with contextlib.suppress(OSError):
                fcntl.fcntl(file_fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        signal.signal(signal.SIGIO, previous)


def check_not_written(status: os.stat_result) -> None:
    """Look through all processes now.

    :raises HeldError: one of them has the file open for writing.
    """
    writer = open_for_writing().get((status.st_dev, status.st_ino))
    if writer is not None:
        raise HeldError(f"{writer} has it open for writing")


# Content -------------------------------------------------------------------------------------------------------------


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _open(place: Place) -> t.BinaryIO:
    return open_regular(place.name, place.dir_fd)


def _content(source: t.BinaryIO, path: str) -> t.Iterator[bytes]:
    """Yield a file's content, uncompressed.

    :raises HeldError: it is damaged.
    """
    if os.path.splitext(path)[1] not in SUFFIX.values():
        yield from iter(lambda: source.read(_CHUNK), b"")
        return
    reader = LineReader(path)
    yield from reader.raw(source)
    if reader.problem:
        raise HeldError(reader.problem)


def same_beginning(shorter: Place, longer: Place) -> str:
    """Compare the content of two files: ``same``, ``beginning`` (the first is how the second begins) or ``other``."""
    with _open(shorter) as one, _open(longer) as two:
        left, right = _content(one, shorter.name), _content(two, longer.name)
        pending = b""
        for chunk in left:
            while len(pending) < len(chunk):
                more = next(right, b"")
                if not more:
                    return "other"
                pending += more
            if not pending.startswith(chunk):
                return "other"
            pending = pending[len(chunk) :]
        return "beginning" if pending or next(right, b"") else "same"


def exists(place: Place) -> bool:
    """Say whether a name is taken."""
    try:
        os.stat(place.name, dir_fd=place.dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


# Steps ---------------------------------------------------------------------------------------------------------------


def compress(source: Place, target: Place, kind: str) -> int:
    """Compress a file to a new name in its folder and remove the old one; return the new size.

    :raises HeldError: it is written to, or somebody took the name; nothing was changed.
    """
    with _open(source) as reading:
        before = os.fstat(reading.fileno())

        def write(out: t.BinaryIO) -> str:
            digest = hashlib.sha256()
            with _compressor(out, kind) as packed:
                for chunk in iter(lambda: reading.read(_CHUNK), b""):
                    digest.update(chunk)
                    packed.write(chunk)
            return digest.hexdigest()

        with _temporary(target, before, write, unpacked=True) as temporary:
            return _replace(reading, before, source, temporary, target)


def move(source: Place, target: Place) -> int:
    """Move a file to another folder, also across file systems; return its size.

    :raises HeldError: it is written to, or somebody took the name; nothing was changed.
    """
    with _open(source) as reading:
        before = os.fstat(reading.fileno())
        try:
            return _replace(reading, before, source, source, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, *_NO_LINKS):
                raise

        def write(out: t.BinaryIO) -> str:
            digest = hashlib.sha256()
            for chunk in iter(lambda: reading.read(_CHUNK), b""):
                digest.update(chunk)
                out.write(chunk)
            return digest.hexdigest()

        with _temporary(target, before, write, unpacked=False) as temporary:
            return _replace(reading, before, source, temporary, target)


def delete(place: Place, expected: os.stat_result) -> None:
    """Delete a file that is still the one that was listed, and make sure that it is gone.

    :raises HeldError: it is another one by now, or somebody writes to it.
    """
    with _open(place) as reading, writers_kept_out(reading.fileno()):
        status = os.stat(place.name, dir_fd=place.dir_fd, follow_symlinks=False)
        if _identity(status) != _identity(expected):
            raise HeldError("it changed since it was listed")
        os.unlink(place.name, dir_fd=place.dir_fd)
    os.fsync(place.dir_fd)
    if exists(place):
        raise HeldError("it is still there after it was deleted")


def settle(source: Place, target: Place) -> str:
    """Finish or undo what an interrupted run left: a file, and beside it one that holds the same content.

    Returns ``finished`` (the old name is gone), ``undone`` (lines were added since: the copy is gone) or ``other``
    (the two have nothing to do with each other; nothing was changed).
    """
    mine, theirs = (os.stat(p.name, dir_fd=p.dir_fd, follow_symlinks=False) for p in (source, target))
    if not stat.S_ISREG(theirs.st_mode):
        return "other"
    same_file = (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino)
    try:
        relation = "same" if same_file else same_beginning(target, source)
    except HeldError:
        return "other"  # a damaged file is never taken for a copy
    if relation == "other":
        return "other"
    with _open(source) as reading, writers_kept_out(reading.fileno()):
        if _identity(os.stat(source.name, dir_fd=source.dir_fd, follow_symlinks=False)) != _identity(mine):
            raise HeldError("it is being written to")
        gone = source if relation == "same" else target
        os.fsync(target.dir_fd)
        os.unlink(gone.name, dir_fd=gone.dir_fd)
        os.fsync(gone.dir_fd)
    return "finished" if relation == "same" else "undone"


def names_for(place: Place) -> t.Iterator[Place]:
    """Yield a place, then the same with a number in its name: ``app.2.log.gz`` for ``app.log.gz``."""
    yield place
    name, packed = os.path.splitext(place.name)
    if packed not in SUFFIX.values():
        name, packed = place.name, ""
    stem, extension = os.path.splitext(name)
    for number in itertools.count(2):
        yield Place(place.dir_fd, f"{stem}.{number}{extension}{packed}")


def without_number(name: str) -> str:
    """Return a name without the number that :func:`names_for` put into it."""
    return re.sub(r"\.\d+(?=\.[^.]*$|$)", "", name)


def _compressor(out: t.BinaryIO, kind: str) -> t.Any:
    if kind == "xz":
        return lzma.LZMAFile(out, "wb")
    return gzip.GzipFile("", "wb", 6, out, mtime=0)


@contextlib.contextmanager
def _temporary(target: Place, like: os.stat_result, write: t.Callable[[t.BinaryIO], str], unpacked: bool) -> t.Iterator[Place]:
    """Write a hidden file beside the target, read it back, and remove it afterwards if it still has that name."""
    place = Place(target.dir_fd, f".{target.name}"[: 255 - len(TEMPORARY)] + TEMPORARY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file_fd = os.open(place.name, flags, 0o600, dir_fd=place.dir_fd)
    try:
        with os.fdopen(file_fd, "wb") as out:
            expected = write(out)
            out.flush()
            _copy_status(out.fileno(), like)
            os.fsync(out.fileno())
        digest = hashlib.sha256()
        with _open(place) as written:
            content = _content(written, target.name) if unpacked else iter(lambda: written.read(_CHUNK), b"")
            for chunk in content:
                digest.update(chunk)
        if digest.hexdigest() != expected:
            raise HeldError("what was written reads back differently; look at the disk")
        yield place
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.name, dir_fd=place.dir_fd)


def _copy_status(file_fd: int, like: os.stat_result) -> None:
    try:
        os.fchown(file_fd, like.st_uid, like.st_gid)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.fchown(file_fd, -1, like.st_gid)
    os.fchmod(file_fd, stat.S_IMODE(like.st_mode))
    os.utime(file_fd, ns=(like.st_atime_ns, like.st_mtime_ns))


def _replace(reading: t.BinaryIO, before: os.stat_result, source: Place, ready: Place, target: Place) -> int:
    """Give the ready file its name, and only then remove the source, with no writer in between."""
    with writers_kept_out(reading.fileno()):
        _unchanged(before, source)
        _publish(ready, target, may_rename=ready != source)
        os.fsync(target.dir_fd)
        try:
            _unchanged(before, source)
        except HeldError:
            os.unlink(target.name, dir_fd=target.dir_fd)
            raise
        os.unlink(source.name, dir_fd=source.dir_fd)
        os.fsync(source.dir_fd)
    return os.stat(target.name, dir_fd=target.dir_fd, follow_symlinks=False).st_size


def _unchanged(before: os.stat_result, source: Place) -> None:
    try:
        status = os.stat(source.name, dir_fd=source.dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        raise HeldError("it vanished while it was worked on") from None
    if _identity(status) != _identity(before):
        raise HeldError("it is being written to")


def _publish(ready: Place, target: Place, may_rename: bool) -> None:
    """Give a file a second name, or its new name, without ever replacing another file."""
    try:
        os.link(ready.name, target.name, src_dir_fd=ready.dir_fd, dst_dir_fd=target.dir_fd, follow_symlinks=False)
    except FileExistsError:
        raise HeldError(f"the name {target.name} was taken meanwhile") from None
    except OSError as error:
        if error.errno not in _NO_LINKS or not may_rename:
            raise
        if exists(target):
            raise HeldError(f"the name {target.name} was taken meanwhile") from None
        os.rename(ready.name, target.name, src_dir_fd=ready.dir_fd, dst_dir_fd=target.dir_fd)
