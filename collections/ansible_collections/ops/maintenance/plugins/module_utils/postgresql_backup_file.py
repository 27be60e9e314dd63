# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump that somebody made: what it is by its content, whether it is whole, and how it gets into an empty database."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import threading
import typing as t
from dataclasses import dataclass

from . import backup_pg_archive, postgresql_dump
from .backup_stream import DamagedError, compression_of, decompressed
from .errors import MaintenanceError
from .paths import open_regular, sha256_of
from .postgresql import Server
from .postgresql_dump import DamagedDumpError, connection_text
from .postgresql_programs import client_environment, client_user, find_program, identity, installed_majors, run_program, version_of

_ARCHIVES = ("custom", "directory", "tar")
_PACKED = ("gzip", "xz", "zstd", "bzip2")
_CHUNK = 1024 * 1024
_END = b"-- PostgreSQL database dump complete"
_OTHER_DATABASE = re.compile(rb"^(?:\\connect\b|\\c\b|(?:CREATE|DROP|ALTER) DATABASE\b|CREATE ROLE\b)", re.M)
_COMMAND = re.compile(rb"^\\(?!(?:restrict|unrestrict)\b)[a-z!]", re.M)
_COPY = re.compile(rb"^COPY .* FROM stdin;\r?\n", re.M)
_TAIL_BYTES = 4096
_GROWS_BY = 6


@dataclass(frozen=True)
class Dump:
    """A dump that was read from beginning to end.

    :param form: ``custom``, ``directory``, ``tar``, ``plain``, or what a plain one is compressed with (``gzip``, ``xz``, ``zstd``, ``bzip2``).
    :param digest: SHA-256 over all its bytes.
    :param rows: rows by table; None where the format does not let them be counted beyond doubt.
    :param database: the database that it was made of; empty where the format does not say.
    """

    path: str
    form: str
    digest: str
    size: int
    unpacked: int
    rows: dict[str, int] | None
    database: str = ""


def form_of(path: str) -> str:
    """Recognise a dump by its content, whatever its name says.

    :raises DamagedDumpError: it is none, or empty.
    """
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "toc.dat")):
            return "directory"
        raise DamagedDumpError(f"{path} is a folder without toc.dat, so it is no dump in directory format; name another one.")
    with open_regular(path) as source:
        head = source.read(512)
    if not head:
        raise DamagedDumpError(f"{path} is empty, expected a dump; name another one.")
    if head.startswith(b"PGDMP"):
        return "custom"
    packed = compression_of("", head)
    if packed:
        return packed
    if head[257:262] == b"ustar" and head.startswith(b"toc.dat\0"):
        return "tar"
    if b"-- PostgreSQL database" in head:
        return "plain"
    raise DamagedDumpError(f"{path} is neither an archive of pg_dump nor its text; name another one.")


def read(path: str, server: Server) -> Dump:
    """Read a dump from beginning to end.

    :raises DamagedDumpError: it is cut off or damaged, or holds more than one database.
    """
    form = form_of(path)
    files = postgresql_dump.files_of(path)
    size = sum(os.lstat(name).st_size for name in files)
    digest = hashlib.sha256("".join(os.path.basename(name) + sha256_of(name) for name in files).encode()).hexdigest()
    if form in _ARCHIVES:
        if form == "tar":
            _check_tar(path)
        if form == "directory" and not all(_is_open(name, server) for name in (path, *files)):
            user = client_user(server)
            raise MaintenanceError(f"{path} cannot be opened by the user {user}, who has to restore it; give it to that user, or copy it.")
        rows = postgresql_dump.read_whole(path, _newest_reader(), client_user(server) if _is_open(path, server) else "")
        return Dump(path, form, digest, size, size * _GROWS_BY, rows, backup_pg_archive.contents_of(path).database)
    return Dump(path, form, digest, size, _read_text(path, form), None)


def _check_tar(path: str) -> None:
    """Read a tar archive to its end mark first: pg_restore never comes back from one that is cut off."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                data = archive.extractfile(member)
                while data and data.read(1024 * 1024):
                    pass
            with open_regular(path) as source:
                source.seek(archive.offset)
                ends = source.read(512) == bytes(512)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DamagedDumpError(f"{path} cannot be read to its end ({error}); use another one.") from None
    if not ends:
        raise DamagedDumpError(f"{path} has no end mark, so it is cut off; use another one.")


def _newest_reader() -> int:
    majors = [major for major in installed_majors() if _has_reader(major)]
    if not majors:
        raise MaintenanceError("pg_restore is not installed; install the package postgresql-client.")
    return majors[-1]


def _has_reader(major: int) -> bool:
    try:
        return version_of(find_program("pg_restore", major)) == major
    except MaintenanceError:
        return False


def _is_open(path: str, server: Server) -> bool:
    """Whether the user of the server's programs may open a dump, leaving aside the folders above, which are opened for it."""
    owner = identity(client_user(server))
    status = os.stat(path)
    return not owner or bool(status.st_mode & 0o004) or bool(status.st_uid == owner["user"])


def _text(path: str, form: str) -> t.Iterator[bytes]:
    """Yield the text of a dump as it comes out of its file, in constant memory."""
    with open_regular(path) as source:
        yield from decompressed(iter(lambda: source.read(_CHUNK), b""), form if form in _PACKED else "", path)


def _whole_lines(pieces: t.Iterable[bytes]) -> t.Iterator[bytes]:
    rest: list[bytes] = []
    for piece in pieces:
        whole, newline, begun = piece.rpartition(b"\n")
        if newline:
            yield b"".join([*rest, whole, newline])
            rest = []
        rest.append(begun)
    yield b"".join(rest)


def _read_text(path: str, form: str) -> int:
    """Read the text of a dump and return its length; refuse what would leave the database it is restored into."""
    tail, total, inside = b"", 0, False
    try:
        for block in _whole_lines(_text(path, form)):
            if not total and form in _PACKED and not block.lstrip().startswith(b"--"):
                raise DamagedDumpError(f"{path} is compressed ({form}), but holds no text of pg_dump; unpack it, or name another one.")
            total += len(block)
            tail = (tail + block)[-_TAIL_BYTES:]
            inside = _check_block(block, inside, path)
    except (OSError, DamagedError) as error:
        raise DamagedDumpError(f"{path} cannot be read to its end ({error}); use another one.") from None
    if _END not in tail:
        raise DamagedDumpError(f"{path} has no end (the line {_END.decode()!r}), so it is cut off; use another one.")
    return total


def _check_block(block: bytes, inside: bool, path: str) -> bool:
    """Look at whole lines outside the rows of tables; return whether the block ends inside rows."""
    at = 0
    while True:
        if inside:
            end = block.find(b"\\.\n", at) if block[at : at + 3] == b"\\.\n" else block.find(b"\n\\.\n", at)
            if end < 0:
                return True
            at, inside = block.index(b"\\.\n", end) + 3, False
        begin = _COPY.search(block, at)
        _check_statements(block[at : begin.start() if begin else len(block)], path)
        if not begin:
            return False
        at, inside = begin.end(), True


def _check_statements(text: bytes, path: str) -> None:
    for pattern, why in (
        (_OTHER_DATABASE, "it names the database or roles it belongs to (made by pg_dumpall, or with --create)"),
        (_COMMAND, "it holds a command of psql"),
    ):
        found = pattern.search(text)
        if found:
            line = found.group().decode("ascii", "replace")
            raise DamagedDumpError(f"{path} cannot be restored beside the live database: {why}: {line!r}; use a dump of one database.")


def restore(dump: Dump, server: Server, database: str, major: int) -> None:
    """Restore a dump into an empty database; the first error ends it.

    :param major: version of the server.
    """
    limit = postgresql_dump.NO_LIMIT_SECONDS
    if dump.form in _ARCHIVES:
        jobs = 1 if dump.form == "tar" else server["jobs"]
        as_input = not _is_open(dump.path, server)
        postgresql_dump.restore(server, database, dump.path, major, jobs=jobs, timeout=limit, as_input=as_input)
        return
    program = find_program("psql", major, or_newer=True)
    argv = [program, "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    argv += [f"--dbname={connection_text(database)}", "--file=-"]
    read_end, write_end = os.pipe()
    with client_environment(server) as env, os.fdopen(read_end, "rb") as pipe:
        feeder = _Feeder(dump, write_end)
        feeder.start()
        try:
            ran = run_program(argv, os_user=client_user(server), env=env, timeout=limit, stdin=pipe)
        finally:
            pipe.close()
            feeder.join()
    if ran.rc != 0 or feeder.failed:
        said = next((line for line in ran.stderr.splitlines() if "ERROR" in line or "error" in line), feeder.failed or ran.why())
        raise MaintenanceError(f"{dump.path} was not restored: {said.strip()[:300]}; nothing of it is in use.")


class _Feeder(threading.Thread):
    """Writes the text of a dump into a pipe; a reader that ends early is no failure of its own."""

    def __init__(self, dump: Dump, write_end: int) -> None:
        super().__init__(daemon=True)
        self._dump = dump
        self._write_end = write_end
        self.failed = ""

    def run(self) -> None:
        try:
            with os.fdopen(self._write_end, "wb") as target:
                for piece in _text(self._dump.path, self._dump.form):
                    target.write(piece)
        except BrokenPipeError:
            return
        except (OSError, MaintenanceError) as error:
            self.failed = str(error)
