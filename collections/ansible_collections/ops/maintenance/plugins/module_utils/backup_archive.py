# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of backups: written under a temporary name, read back and compared, and never over one that is there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import typing as t

from .backup_sets import Backup, File
from .backup_stream import DamagedError, one_pass, tar_members
from .errors import MaintenanceError, VerifyError
from .paths import fsync_folder, open_regular, sha256_of, write_atomic

_CHUNK = 1024 * 1024
_PACKED = (".gz", ".xz", ".zst", ".bz2", ".tgz", ".dump", ".age", ".gpg")
_MODE = 0o600


def copy(source: str, target: str) -> str:
    """Copy one file to where none is, prove the copy and return its SHA-256; its time stamp is the source's.

    :raises MaintenanceError: there is one already.
    :raises VerifyError: the copy is not what the source is.
    """
    digest = hashlib.sha256()
    with open_regular(source) as opened, _to_be(target) as (temporary, written):
        for chunk in iter(lambda: opened.read(_CHUNK), b""):
            digest.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
        if sha256_of(temporary) != digest.hexdigest():
            raise VerifyError(f"The copy of {source} in {os.path.dirname(target)} is not what was read; look at the storage.")
        status = os.fstat(opened.fileno())
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
    return digest.hexdigest()


def pack(backups: t.Sequence[Backup], root: str, target: str) -> dict[str, str]:
    """Put backups into one tar archive, read it back, store its checksum beside it; return SHA-256 by path.

    :raises MaintenanceError: there is one already.
    :raises VerifyError: the archive does not hold what was put in.
    """
    files = [file for backup in backups for file in backup.files]
    digests: dict[str, str] = {}
    with _to_be(target) as (temporary, written):
        mode = "w:gz" if target.endswith((".gz", ".tgz")) else "w"
        # What is compressed already only costs time to compress again.
        more: dict[str, t.Any] = {"compresslevel": 1 if _is_packed(files) else 6} if mode == "w:gz" else {}
        opened: t.Any = tarfile.open
        with opened(fileobj=written, mode=mode, format=tarfile.PAX_FORMAT, **more) as archive:
            for file in files:
                digests[file.path] = _add(archive, file, os.path.relpath(file.path, root))
        written.flush()
        os.fsync(written.fileno())
        expected = {os.path.relpath(path, root): digest for path, digest in digests.items()}
        whole, held = _held(temporary)
        if held != expected:
            raise VerifyError(f"The archive for {target} does not hold what was put in; look at the storage. Nothing was removed.")
    write_atomic(f"{target}.sha256", f"{whole}  {os.path.basename(target)}\n".encode(), _MODE)
    return digests


def held_in(target: str) -> dict[str, str]:
    """Return the SHA-256 of every member of an archive that is there; nothing when it cannot be read to its end."""
    try:
        return _held(target)[1]
    except (OSError, MaintenanceError):
        return {}


def _add(archive: tarfile.TarFile, file: File, name: str) -> str:
    digest = hashlib.sha256()
    with open_regular(file.path) as source:
        member = archive.gettarinfo(arcname=name, fileobj=source)

        class Hashing:
            """Hashes what tarfile reads."""

            def read(self, size: int) -> bytes:
                """Return the next bytes."""
                data = source.read(size)
                digest.update(data)
                return data

        archive.addfile(member, t.cast("t.IO[bytes]", Hashing()))
        after = os.fstat(source.fileno())
    if (after.st_size, after.st_mtime_ns) != (file.size, file.mtime_ns):
        raise VerifyError(f"{file.path} changed while it was archived; it is still being written. Nothing was removed.")
    return digest.hexdigest()


def _held(path: str) -> tuple[str, dict[str, str]]:
    held = {}
    with one_pass(path) as reading:
        for member in tar_members(reading.reader):
            if not member.isreg():
                continue
            digest, size = hashlib.sha256(), 0
            for piece in reading.reader.pieces(member.size):
                digest.update(piece)
                size += len(piece)
            if size < member.size:
                raise DamagedError("half written", f"{path} ends inside {member.name!r}")
            held[member.name] = digest.hexdigest()
        return reading.finish(), held


def _is_packed(files: t.Sequence[File]) -> bool:
    return all(file.path.endswith(_PACKED) for file in files)


@contextlib.contextmanager
def _to_be(target: str) -> t.Iterator[tuple[str, t.BinaryIO]]:
    """Give a temporary file that gets its name when all went well, unless that name is taken."""
    if os.path.lexists(target):
        raise MaintenanceError(f"{target} is there already and is not written over; move it away, or give another name.")
    folder, name = os.path.split(target)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    file_fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(file_fd, "w+b") as written:
            yield temporary, t.cast("t.BinaryIO", written)
        os.link(temporary, target)  # unlike a rename, it fails where the name was taken meanwhile
    except FileExistsError:
        raise MaintenanceError(f"{target} was made by somebody else meanwhile; it was left alone.") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    fsync_folder(folder)
