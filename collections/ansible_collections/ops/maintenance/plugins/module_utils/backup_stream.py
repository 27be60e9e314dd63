# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a backup file exactly once: checksum, decompression and structure from the same bytes, in constant memory."""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import typing as t
import zlib
from concurrent.futures import Future, ThreadPoolExecutor

from .backup_encryption import encryption_of
from .errors import MaintenanceError
from .paths import open_regular

_CHUNK = 1024 * 1024
_OUTPUT_LIMIT = 4 * _CHUNK
_END_SECONDS = 60.0
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
_SUFFIXES = {".gz": "gzip", ".tgz": "gzip", ".xz": "xz", ".txz": "xz", ".bz2": "bzip2", ".zst": "zstd"}


class DamagedError(MaintenanceError):
    """The bytes of a backup show that it cannot be restored.

    :param kind: ``empty``, ``half written``, ``damaged`` or ``wrong content``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnsupportedError(MaintenanceError):
    """The format of a backup cannot be looked into here."""


class Reader:
    """What tarfile asks of a file (read, tell, seek forward), over a sequence of byte chunks."""

    def __init__(self, chunks: t.Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self._position = 0

    def pieces(self, size: int) -> t.Iterator[memoryview]:
        """Yield the next ``size`` bytes (fewer at the end) without copying them."""
        while size > 0:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    return
            piece = self._rest[:size]
            self._rest = self._rest[len(piece) :]
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def peek(self, size: int) -> bytes:
        """Return up to ``size`` bytes that the next read will return again."""
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest = memoryview(bytes(self._rest) + chunk)
        return bytes(self._rest[:size])

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end."""
        return b"".join(self.pieces(size))

    def drain(self) -> int:
        """Read to the end and return the position there."""
        for _piece in self.pieces(1 << 62):
            pass
        return self._position

    def tell(self) -> int:
        """Return the position in the stream."""
        return self._position

    def seek(self, offset: int) -> None:
        """Skip forward."""
        for _piece in self.pieces(offset - self._position):
            pass


class OnePass:
    """One reading of one file: ``reader`` gives the decompressed bytes while the SHA-256 of the stored ones grows.

    The hash is calculated in a second thread; both it and decompression leave Python's lock.
    """

    def __init__(self, path: str, source: t.BinaryIO, decrypt_command: t.Sequence[str] = ()) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self.path = path
        self.stored_bytes = 0
        self._before = os.fstat(source.fileno())
        self._first = source.read(_CHUNK)
        if not self._first:
            raise DamagedError("empty", f"{path} is empty (0 bytes); look why the backup job wrote nothing.")
        self.encryption = encryption_of(self._first)
        stored: t.Iterator[bytes] = self._stored()
        beginning = self._first
        if self.encryption:
            beginning, stored = _decrypted(stored, path, self.encryption, decrypt_command)
        self.compression = compression_of("" if self.encryption else path, beginning)
        self.reader = Reader(decompressed(stored, self.compression, path))

    def _stored(self) -> t.Iterator[bytes]:
        chunk = self._first
        while chunk:
            self._hash(chunk)
            yield chunk
            chunk = self._source.read(_CHUNK)

    def _hash(self, chunk: bytes) -> None:
        if self._pending is not None:
            self._pending.result()
        self._pending = self._pool.submit(self._digest.update, chunk)
        self.stored_bytes += len(chunk)

    def finish(self) -> str:
        """Read what is left, make sure that the file stood still meanwhile, and return its SHA-256."""
        self.reader.drain()
        if self._pending is not None:
            self._pending.result()
        after = os.fstat(self._source.fileno())
        if (after.st_size, after.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise DamagedError("half written", f"{self.path} changed while it was read: it is still being written; verify it later.")
        return self._digest.hexdigest()

    def close(self) -> None:
        """Stop the second thread."""
        self._pool.shutdown()


@contextlib.contextmanager
def one_pass(path: str, decrypt_command: t.Sequence[str] = ()) -> t.Iterator[OnePass]:
    """Open a backup file for its one reading.

    :param decrypt_command: argument list that turns an encrypted file, on its input, into what was encrypted.
    :raises DamagedError: it is empty, or no regular file.
    """
    try:
        source = open_regular(path)
    except MaintenanceError as error:
        raise DamagedError("wrong content", str(error)) from None
    with source:
        reading = OnePass(path, source, decrypt_command)
        try:
            yield reading
        finally:
            reading.close()


def compression_of(path: str, first: bytes) -> str:
    """Tell the compression of a file from its first bytes; the name only tells what it ought to be."""
    found = next((name for magic, name in _MAGIC if first.startswith(magic)), "")
    promised = _SUFFIXES.get(os.path.splitext(path)[1].lower(), "")
    if promised and promised != found:
        raise DamagedError(
            "damaged",
            f"{path} ought to be {promised} data by its name, but begins with {first[:6].hex(' ')}; "
            "it was overwritten, damaged or never compressed.",
        )
    return found


def _decrypted(chunks: t.Iterator[bytes], path: str, encryption: str, command: t.Sequence[str]) -> tuple[bytes, t.Iterator[bytes]]:
    if not command:
        raise UnsupportedError(f"{path} is encrypted ({encryption}) and cannot be read without its key; declare decrypt_command.")
    clear = piped(chunks, command, path, f"be decrypted ({encryption}): the key does not fit, or its data is damaged")
    first = next(clear, b"")
    if not first:
        raise DamagedError("empty", f"{path} holds 0 bytes once decrypted; look at the backup job.")

    def whole() -> t.Iterator[bytes]:
        yield first
        yield from clear

    return first, whole()


def piped(chunks: t.Iterator[bytes], command: t.Sequence[str], path: str, what: str) -> t.Iterator[bytes]:
    """Send bytes through a program and yield what it makes of them, in constant memory.

    :raises UnsupportedError: the program is not installed.
    :raises DamagedError: it ended with an error.
    """
    program = shutil.which(command[0])
    if program is None:
        raise UnsupportedError(f"{path} needs the program {command[0]}, which is not installed; install it.")
    problems: list[BaseException] = []
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "LC_ALL": "C"}
        ) as child,
    ):
        feeder = threading.Thread(target=feed, args=(chunks, child.stdin, problems), daemon=True)
        feeder.start()
        try:
            yield from read_pipe(child)
        except BaseException:
            child.kill()
            raise
        finally:
            # Its last output is there before it has ended: to kill it now would make a sound backup look damaged.
            feeder.join(_END_SECONDS)
            if feeder.is_alive():
                child.kill()
                feeder.join()
        if problems:
            raise problems[0]
        if child.wait() != 0:
            errors.seek(0)
            said = errors.read(2000).decode("utf-8", "replace").strip().splitlines()
            raise DamagedError("damaged", f"{path} cannot {what} ({said[-1] if said else 'no message'}).")


def read_pipe(child: subprocess.Popen[bytes]) -> t.Iterator[bytes]:
    """Yield what a program writes, as it comes."""
    if child.stdout is not None:
        descriptor = child.stdout.fileno()
        yield from iter(lambda: os.read(descriptor, _CHUNK), b"")


def feed(chunks: t.Iterable[bytes], target: t.Any, problems: list[BaseException]) -> None:
    """Write every chunk to a program and close its input; one that is no longer wanted is still read, for the checksum."""
    is_wanted = True
    try:
        for chunk in chunks:
            try:
                if is_wanted:
                    target.write(chunk)
            except BrokenPipeError:
                is_wanted = False
    except BaseException as error:
        problems.append(error)
    finally:
        with contextlib.suppress(BrokenPipeError):
            target.close()


def decompressed(chunks: t.Iterator[bytes], compression: str, path: str) -> t.Iterator[bytes]:
    """Decompress bytes as they come; zstd is a program's work.

    :param path: what the bytes are of, for messages.
    :raises DamagedError: once they show that they are damaged or cut off.
    """
    if not compression:
        return chunks
    if compression == "zstd":
        return piped(chunks, ["zstd", "-dcq"], path, "be decompressed: its zstd data is cut off or damaged")
    if compression == "gzip":
        return _guarded(_inflate(chunks), path, compression)
    make = lzma.LZMADecompressor if compression == "xz" else bz2.BZ2Decompressor
    return _guarded(_unpack(chunks, t.cast("t.Callable[[], t.Any]", make)), path, compression)


def _guarded(chunks: t.Iterator[bytes], path: str, compression: str) -> t.Iterator[bytes]:
    try:
        yield from chunks
    except EOFError:
        raise DamagedError(
            "half written", f"{path} ends in the middle of its {compression} data: it is cut off or still being written."
        ) from None
    except (zlib.error, lzma.LZMAError, ValueError) as error:
        raise DamagedError("damaged", f"{path} cannot be decompressed ({error}): its {compression} data is damaged.") from None
    except OSError as error:
        if error.errno is None:  # bz2 says so when the data is bad
            raise DamagedError("damaged", f"{path} cannot be decompressed ({error}): its data is damaged.") from None
        raise


def _inflate(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    """Decompress gzip members one after another; zlib compares the CRC-32 and the length of each."""
    engine = zlib.decompressobj(31)
    for chunk in chunks:
        left = chunk
        while left:
            if engine.eof:
                left = left.lstrip(b"\0")  # padding after the last member is allowed
                if not left:
                    break
                engine = zlib.decompressobj(31)
            data = engine.decompress(left, _OUTPUT_LIMIT)
            left = engine.unused_data if engine.eof else engine.unconsumed_tail
            if data:
                yield data
    rest = engine.flush()
    if rest:
        yield rest
    if not engine.eof:
        raise EOFError


def _unpack(chunks: t.Iterator[bytes], make: t.Callable[[], t.Any]) -> t.Iterator[bytes]:
    engine = make()
    for chunk in chunks:
        left = chunk
        while left or not (engine.eof or engine.needs_input):
            if engine.eof:
                left = left.lstrip(b"\0")
                if not left:
                    break
                engine = make()
            data = engine.decompress(left, _OUTPUT_LIMIT)
            left = engine.unused_data if engine.eof else b""
            if data:
                yield data
    if not engine.eof:
        raise EOFError


# Known to Python since 3.2, though not to its type stubs: the end mark, and nothing where a header ought to be.
_EndMark: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_NothingThere: type[Exception] = tarfile.EmptyHeaderError  # type: ignore[attr-defined]
_BadHeader = tarfile.HeaderError


class _StrictInfo(tarfile.TarInfo):
    """A member header; where tarfile would take a bad one for the end of the archive, this raises."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _StrictInfo:
        try:
            return super().fromtarfile(tarfile)
        except _EndMark:
            raise
        except _NothingThere:
            raise DamagedError("half written", "the archive stops without its end mark: it is cut off") from None
        except _BadHeader as error:
            kind = "half written" if "truncated" in str(error) else "damaged"
            raise DamagedError(kind, f"a member header cannot be read ({error})") from None


def is_tar(first: bytes) -> bool:
    """Whether decompressed data begins with a tar header."""
    return first[257:262] == b"ustar"


def tar_members(reader: Reader) -> t.Iterator[tarfile.TarInfo]:
    """Yield each member; the caller may read its data from ``reader`` before asking for the next.

    :raises DamagedError: a header is bad, or the archive stops before its end mark.
    """
    try:
        archive = tarfile.TarFile(fileobj=t.cast("t.IO[bytes]", reader), mode="r", tarinfo=_StrictInfo, errors="surrogateescape")
        while True:
            member = archive.next()
            if member is None:
                _expect_only_zeros(reader)
                return
            archive.members = []  # type: ignore[attr-defined]  # or the list of all members would grow in memory
            yield member
    except tarfile.TarError as error:
        kind = "half written" if "unexpected end" in str(error) else "damaged"
        raise DamagedError(kind, f"the archive cannot be read ({error})") from None


def _expect_only_zeros(reader: Reader) -> None:
    for piece in reader.pieces(1 << 62):
        if piece.tobytes().strip(b"\0"):
            raise DamagedError("damaged", "data follows the end mark of the archive: a header inside it was zeroed")
