# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder as one tar archive, and back: owners and modes kept, no link followed, what is declared as data never touched."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tarfile
import typing as t
from dataclasses import dataclass, field

from .backup_stream import DamagedError, Reader, one_pass, tar_members
from .errors import MaintenanceError
from .paths import Entry

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1024 * 1024
_BLOCK = 512


@dataclass
class Packed:
    """What went into an archive."""

    files: int = 0
    size: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass
class Difference:
    """What of a folder is not as in its archive; ``extra`` came after, each folder before what lies in it; ``size`` is to be written."""

    changed: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.changed or self.extra)

    def add(self, relative: str, member: tarfile.TarInfo) -> None:
        """Note a member that is not there as it was."""
        self.changed.append(relative)
        self.size += member.size


def entries(dir_fd: int, data: t.Sequence[str], relative: str = "") -> t.Iterator[Entry]:
    """Yield what lies below a folder, folders before their content; neither data nor what a link leads to."""
    for name in sorted(os.listdir(dir_fd)):
        path = os.path.join(relative, name)
        if path in data:
            continue
        try:
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:  # it went meanwhile
            continue
        yield Entry(path, dir_fd, name, status)
        if stat.S_ISDIR(status.st_mode):
            with _opened(name, dir_fd) as child_fd:
                yield from entries(child_fd, data, path)


def _is_kept(status: os.stat_result) -> bool:
    """Whether it is of a kind that an archive can hold; sockets and pipes come and go with their service."""
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)


def size_of(root: str, data: t.Sequence[str]) -> int:
    """Return the bytes of its regular files."""
    return sum(status.st_size for status in statuses(root, data) if stat.S_ISREG(status.st_mode))


def statuses(root: str, data: t.Sequence[str] = ()) -> list[os.stat_result]:
    """Return the status of everything below a folder but data."""
    with _opened(root) as root_fd:
        return [entry.status for entry in entries(root_fd, data)]


# Packing -------------------------------------------------------------------------------------------------------------


def pack(root: str, data: t.Sequence[str], packed: Packed) -> t.Iterator[bytes]:
    """Yield a folder as a tar archive, in constant memory.

    :param data: paths below it that are left out.
    :raises MaintenanceError: a file changed while it was read.
    """
    with _opened(root) as root_fd:
        yield _header(".", os.fstat(root_fd), tarfile.DIRTYPE)
        for entry in entries(root_fd, data):
            mode = entry.status.st_mode
            if stat.S_ISREG(mode):
                yield from _file(entry, packed)
            elif stat.S_ISDIR(mode):
                yield _header(entry.relative, entry.status, tarfile.DIRTYPE)
            elif stat.S_ISLNK(mode):
                yield _header(entry.relative, entry.status, tarfile.SYMTYPE, os.readlink(entry.name, dir_fd=entry.dir_fd))
            else:
                packed.left_out.append(f"{os.path.join(root, entry.relative)}: neither file, folder nor link")
    yield bytes(2 * _BLOCK)


def _header(relative: str, status: os.stat_result, kind: bytes, target: str = "") -> bytes:
    info = tarfile.TarInfo(relative)
    info.type, info.linkname = kind, target
    info.mode, info.uid, info.gid, info.mtime = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns / 1e9
    info.size = status.st_size if kind == tarfile.REGTYPE else 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _file(entry: Entry, packed: Packed) -> t.Iterator[bytes]:
    try:
        opened = _regular(entry.name, entry.dir_fd)
    except FileNotFoundError:
        packed.left_out.append(f"{entry.relative}: went while it was copied")
        return
    with opened as source:
        status = os.fstat(source.fileno())
        yield _header(entry.relative, status, tarfile.REGTYPE)
        left = status.st_size
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise MaintenanceError(f"{entry.relative} became shorter while it was read; stop what writes to it and try again.")
            left -= len(chunk)
            yield chunk
    yield bytes(-status.st_size % _BLOCK)
    packed.files, packed.size = packed.files + 1, packed.size + status.st_size


# Comparing and putting back ------------------------------------------------------------------------------------------


def members(archive: str, decrypt_command: t.Sequence[str] = ()) -> t.Iterator[tuple[str, tarfile.TarInfo, Reader]]:
    """Yield each member of an archive with its path below the folder, empty for the folder itself.

    :raises DamagedError: the archive is damaged, or a member leads out of it.
    """
    with one_pass(archive, decrypt_command) as reading:
        for member in tar_members(reading.reader):
            names = [name for name in member.name.split("/") if name not in ("", ".")]
            if ".." in names or not (member.isreg() or member.isdir() or member.issym()):
                raise DamagedError("damaged", f"{archive} has a member that a snapshot never writes: {member.name!r}")
            yield "/".join(names), member, reading.reader
        reading.finish()


def differing(archive: str, root: str, data: t.Sequence[str], decrypt_command: t.Sequence[str] = ()) -> Difference:
    """Compare a folder with its archive: kind, owner, mode and content of everything but data."""
    found, known = Difference(), set()
    if not os.path.lexists(root):
        for relative, member, _reader in members(archive, decrypt_command):
            found.add(relative, member)
        return found
    with _opened(root) as root_fd:
        for relative, member, reader in members(archive, decrypt_command):
            known.add(relative)
            if not _same(root_fd, relative, member, reader):
                found.add(relative, member)
        found.extra = [entry.relative for entry in entries(root_fd, data) if entry.relative not in known and _is_kept(entry.status)]
    return found


def _same(root_fd: int, relative: str, member: tarfile.TarInfo, reader: Reader) -> bool:
    try:
        with _parent(root_fd, relative) as (dir_fd, name):
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if member.issym():
                return stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=dir_fd) == member.linkname
            owner = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
            if owner != (member.uid, member.gid, member.mode):
                return False
            if member.isdir():
                return stat.S_ISDIR(status.st_mode)
            if not stat.S_ISREG(status.st_mode) or status.st_size != member.size:
                return False
            with _regular(name, dir_fd) as live:
                return all(live.read(len(piece)) == piece for piece in reader.pieces(member.size))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def put_back(
    archive: str, root: str, wanted: t.Collection[str] | None, data: t.Sequence[str], decrypt_command: t.Sequence[str] = ()
) -> None:
    """Write those members to below a folder, each in one step, never through a link.

    :param wanted: paths; None means all.

    :raises MaintenanceError: data lies where something else belongs.
    """
    if not os.path.lexists(root):
        os.mkdir(root, 0o700)
    with _opened(root) as root_fd:
        for relative, member, reader in members(archive, decrypt_command):
            if wanted is None or relative in wanted:
                _place(root_fd, relative, member, reader, data)
    os.sync()  # once for all of it: tens of thousands of files, flushed one by one, would take minutes


def _place(root_fd: int, relative: str, member: tarfile.TarInfo, reader: Reader, data: t.Sequence[str]) -> None:
    with _parent(root_fd, relative) as (dir_fd, name):
        if relative:
            _clear(dir_fd, name, relative, member.isdir(), data)
        if member.isdir():
            if relative:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=dir_fd)
            with _opened(name, dir_fd) as folder_fd:
                os.fchown(folder_fd, member.uid, member.gid)
                os.fchmod(folder_fd, member.mode)
            return
        temporary = f".ops-maintenance-restore-{secrets.token_hex(8)}.tmp"
        try:
            if member.issym():
                os.symlink(member.linkname, temporary, dir_fd=dir_fd)
                os.chown(temporary, member.uid, member.gid, dir_fd=dir_fd, follow_symlinks=False)
            else:
                _write(dir_fd, temporary, member, reader)
            os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=dir_fd)


def _write(dir_fd: int, name: str, member: tarfile.TarInfo, reader: Reader) -> None:
    file_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    with os.fdopen(file_fd, "wb") as target:
        for piece in reader.pieces(member.size):
            target.write(piece)
        target.flush()
        os.fchown(file_fd, member.uid, member.gid)
        os.fchmod(file_fd, member.mode)
        os.utime(file_fd, (member.mtime, member.mtime))


def _clear(dir_fd: int, name: str, relative: str, is_folder: bool, data: t.Sequence[str]) -> None:
    """Make way where something of another kind stands; a folder that holds data, or a link that leads to it, is left alone."""
    try:
        stands = stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    if stands != is_folder and _is_above(relative, data):
        words = (
            "is a folder with data in it now, and was none"
            if stands
            else "is no folder now, or a link to one, and was a folder with data in it"
        )
        raise MaintenanceError(f"{relative} {words}; move the data away, or back, then try again.")
    if stands and not is_folder:
        with _opened(name, dir_fd) as folder_fd:
            remove(folder_fd, [entry.relative for entry in entries(folder_fd, ())])
        os.rmdir(name, dir_fd=dir_fd)
    elif is_folder and not stands:
        os.unlink(name, dir_fd=dir_fd)


def _is_above(relative: str, data: t.Sequence[str]) -> bool:
    return any(path.startswith(relative + "/") for path in data)


def remove(root: int | str, extra: t.Sequence[str], data: t.Sequence[str] = ()) -> list[str]:
    """Remove what came after, the innermost first; return what stays, because data lies in it or behind it."""
    stay = []
    with _opened(root) if isinstance(root, str) else contextlib.nullcontext(root) as root_fd:
        for relative in reversed(extra):
            if _is_above(relative, data):
                stay.append(relative)
                continue
            with _parent(root_fd, relative) as (dir_fd, name):
                if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=dir_fd)
                    continue
                try:
                    os.rmdir(name, dir_fd=dir_fd)
                except OSError:
                    stay.append(relative)
    return stay


# Never through a link ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(name: str, dir_fd: int | None = None) -> t.Iterator[int]:
    folder_fd = os.open(name, _DIR_FLAGS, dir_fd=dir_fd)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


@contextlib.contextmanager
def _parent(root_fd: int, relative: str) -> t.Iterator[tuple[int, str]]:
    """Open the folder that a path lies in, each step a real folder; yield it with the last name."""
    *above, name = relative.split("/")
    with contextlib.ExitStack() as stack:
        dir_fd = root_fd
        for step in above:
            dir_fd = stack.enter_context(_opened(step, dir_fd))
        yield dir_fd, name or "."


def _regular(name: str, dir_fd: int) -> t.BinaryIO:
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd), "rb")
