# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files inside a declared root: never through a symbolic link, never outside, never half written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import typing as t

from .errors import InputError, MaintenanceError

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1024 * 1024
_FORBIDDEN_ROOTS = frozenset(
    ("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/usr", "/var")
)


class Entry(t.NamedTuple):
    """A file met by :func:`walk`: path relative to the root, its folder's descriptor, its own name and status."""

    relative: str
    dir_fd: int
    name: str
    status: os.stat_result


@contextlib.contextmanager
def open_root(path: str, option: str = "root") -> t.Iterator[int]:
    """Open a declared root folder for use as ``dir_fd``.

    :raises InputError: relative, missing, a symbolic link, not a folder, or a folder of the system itself.
    """
    if not os.path.isabs(path) or os.path.normpath(path) in _FORBIDDEN_ROOTS:
        raise InputError.of(option, path, "an absolute path of a folder that holds only the declared data", "name it")
    try:
        root_fd = os.open(path, _DIR_FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):
            advice = f"give the folder it leads to ({os.path.realpath(path)}) if that is meant"
            raise InputError.of(option, path, "a folder, found a symbolic link", advice) from None
        if error.errno == errno.ENOTDIR:
            raise InputError.of(option, path, "a folder, found something else", "correct the path") from None
        if error.errno == errno.ENOENT:
            raise InputError.of(option, path, "an existing folder", "create it or correct the path") from None
        raise MaintenanceError(f"The folder {path} could not be opened: {error.strerror}.") from error
    try:
        yield root_fd
    finally:
        os.close(root_fd)


@contextlib.contextmanager
def open_folder(name: str, dir_fd: int | None = None) -> t.Iterator[int]:
    """Open a folder for use as ``dir_fd`` without following a link.

    :raises MaintenanceError: it is a symbolic link.
    """
    try:
        folder_fd = os.open(name, _DIR_FLAGS, dir_fd=dir_fd)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise MaintenanceError(f"{name} is a symbolic link, which was not followed") from None
        raise
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def walk(root_fd: int, relative: str = "") -> t.Iterator[Entry]:
    """Yield every entry below a root that is not a folder, in name order, symbolic links as themselves.

    Folders are entered only when they are real folders; one that cannot be read raises OSError.
    What goes away between being listed and being looked at, as a rotated log does, is not there.
    ``Entry.dir_fd`` is open only until the next entry is asked for.
    """
    with os.scandir(root_fd) as found:
        names = sorted(entry.name for entry in found)
    for name in names:
        try:
            status = os.stat(name, dir_fd=root_fd, follow_symlinks=False)
            child_fd = os.open(name, _DIR_FLAGS, dir_fd=root_fd) if stat.S_ISDIR(status.st_mode) else -1
        except FileNotFoundError:
            continue
        path = os.path.join(relative, name)
        if child_fd >= 0:
            try:
                yield from walk(child_fd, path)
            finally:
                os.close(child_fd)
        else:
            yield Entry(path, root_fd, name, status)


def open_regular(name: str, dir_fd: int | None = None) -> t.BinaryIO:
    """Open a regular file for reading without following a link and without blocking on a pipe.

    :raises MaintenanceError: it is a folder, link, pipe or device.
    """
    try:
        file_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise MaintenanceError(f"{name} is a symbolic link, expected a regular file; it was left alone.") from None
        raise
    if not stat.S_ISREG(os.fstat(file_fd).st_mode):
        os.close(file_fd)
        raise MaintenanceError(f"{name} is not a regular file; it was left alone.")
    return os.fdopen(file_fd, "rb")


def password_of(server: t.Mapping[str, t.Any]) -> str:
    """Return the password of a declared server, empty when it has none.

    :param server: has ``name``, ``password`` and ``password_file``.
    :raises InputError: the password file is missing, empty, or others can read it.
    """
    path = server["password_file"]
    if not path:
        return str(server["password"])
    option = f"password_file of server {server['name']!r}"
    try:
        with open_regular(path) as source:
            mode = os.fstat(source.fileno()).st_mode
            text = source.read(4096).decode("utf-8", "surrogateescape")
    except (OSError, MaintenanceError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{option} is {path}, which cannot be read ({said}); put the password there, mode 0600.") from None
    if mode & 0o077:
        raise InputError(f"{option} is {path} with mode {mode & 0o777:04o}, expected 0600; others could read it: chmod it.")
    password = text.splitlines()[0] if text else ""
    if not password:
        raise InputError(f"{option} is {path}, whose first line is empty, expected the password; put it there.")
    return password


def fsync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    folder_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a regular file, read in constant memory."""
    digest = hashlib.sha256()
    with open_regular(path) as source:
        for chunk in iter(lambda: source.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: str, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace a file in one step: temporary name beside it, fsync, rename, fsync of the folder.

    :param owner: user and group id; ``None`` leaves the process's own.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    file_fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file_fd, "wb") as target:
            target.write(data)
            target.flush()
            if owner is not None:
                os.fchown(target.fileno(), *owner)
            os.fchmod(target.fileno(), mode)
            os.fsync(target.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(folder)


def ensure_private_folder(path: str) -> None:
    """Create a folder (parents too) that only its owner can enter, or check that it is one."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise MaintenanceError(
            f"{path} is not a folder that only its owner (uid {os.geteuid()}) can write; "
            "others could change what is kept there. Correct its owner and mode (0700) or name another state_dir."
        )


def read_state(state_dir: str, name: str) -> dict[str, t.Any]:
    """Read a JSON object that an earlier run kept on the host; empty when there is none.

    :raises MaintenanceError: it is there but cannot be read as one (never silently taken for empty).
    """
    path = os.path.join(state_dir, name)
    try:
        with open_regular(path) as source:
            value = json.loads(source.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise MaintenanceError(f"{path} cannot be read ({error}); move it away to start without it.") from error
    if not isinstance(value, dict):
        raise MaintenanceError(f"{path} does not hold a JSON object; move it away to start without it.")
    return value


def write_state(state_dir: str, name: str, value: t.Mapping[str, t.Any]) -> None:
    """Keep a JSON object on the host for the next run.

    :raises MaintenanceError: it cannot be written, such as on a full disk; what was there before is still there.
    """
    path = os.path.join(state_dir, name)
    try:
        ensure_private_folder(state_dir)
        write_atomic(path, json.dumps(value, sort_keys=True, indent=1).encode())
    except OSError as error:
        raise MaintenanceError(
            f"{path} could not be written ({error.strerror}), so the next run will not know of this one; "
            "make room there and see who owns the folder, then run again."
        ) from error
