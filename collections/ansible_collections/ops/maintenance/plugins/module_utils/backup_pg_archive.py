# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What format a dump has, by its content, and what pg_restore says of an archive."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
import threading
import time
import typing as t
from dataclasses import dataclass

from .backup_pg_text import HEADER, Text
from .backup_stream import DamagedError, Reader, UnsupportedError, feed, is_tar, read_pipe
from .errors import MaintenanceError
from .postgresql_programs import find_program, installed_majors
from .record import clean

PLAIN, CUSTOM, TAR, DIRECTORY = "plain", "custom", "tar", "directory"
TOC = "toc.dat"
_MAGIC = b"PGDMP"
_LOOKED_AT = 65536
_TEXT_LIMIT = 1024 * 1024
STALL_SECONDS = 120.0
"""How long pg_restore may neither read nor write anything before it is stopped."""
# What pg_restore says when it, and not the archive, is at fault.
_NOT_ITS_FAULT = ("unsupported version", "not supported in this", "does not support compression", "no data will be available",
                  "compiled without")  # fmt: skip
_OUT_OF_ORDER = ("out-of-order", "out of order", "not seekable", "seekable")
_ENTRY = re.compile(r"^(\d+); (\d+) (\d+) (.+)$")


@dataclass(frozen=True)
class Contents:
    """The table of contents of an archive.

    :param data_tables: how many entries hold rows.
    """

    database: str
    server_major: int
    program_major: int
    entries: int
    data_tables: int


def format_of(first: bytes, path: str) -> str:
    """Tell the format of a dump from its first (decompressed) bytes; its name says nothing.

    :raises DamagedError: it is no dump.
    """
    if not first:
        raise DamagedError("empty", f"{path} holds 0 bytes once decompressed; look at the backup job.")
    if first.startswith(_MAGIC):
        return CUSTOM
    if is_tar(first):
        if not first.startswith(TOC.encode()):
            raise DamagedError("wrong content", f"{path} is a tar archive, but not one that pg_dump wrote: it does not begin with {TOC}.")
        return TAR
    if HEADER in first[:_LOOKED_AT]:
        return PLAIN
    raise DamagedError("wrong content", f"{path} is no dump of PostgreSQL: it begins with {first[:8].hex(' ')}.")


@functools.lru_cache(maxsize=1)
def pg_restore() -> str:
    """Return the newest pg_restore; it reads what every older pg_dump wrote.

    :raises UnsupportedError: there is none.
    """
    majors = installed_majors()
    try:
        if majors:
            return find_program("pg_restore", majors[-1])
    except MaintenanceError:
        pass
    raise UnsupportedError("pg_restore is not installed, so the archive cannot be looked into; install postgresql-client.")


def contents_of(path: str) -> Contents:
    """Read the table of contents with ``pg_restore --list``.

    :raises DamagedError: pg_restore refused it, or it has no entry at all.
    """
    pieces: list[bytes] = []
    _run([pg_restore(), "--list", path], None, pieces.append, path)
    return parse_contents(b"".join(pieces).decode("utf-8", "replace"), path)


def parse_contents(text: str, path: str) -> Contents:
    """Read what ``pg_restore --list`` answered.

    :raises DamagedError: it is not a table of contents.
    """
    head: dict[str, str] = {}
    entries = data_tables = 0
    for line in text.splitlines():
        if line.startswith(";"):
            name, colon, value = line.lstrip("; ").partition(": ")
            if colon:
                head[name.strip()] = value.strip()
            continue
        found = _ENTRY.match(line)
        if not found:
            continue
        entries += 1
        data_tables += found.group(4).startswith("TABLE DATA ")
    if "Format" not in head:
        raise DamagedError("damaged", f"{path}: pg_restore --list gave no table of contents.")
    if not entries:
        raise DamagedError("wrong content", f"{path} has an empty table of contents: nothing was dumped.")
    return Contents(
        head.get("dbname", ""), _major(head.get("Dumped from database version", "")), _major(head.get("Dumped by pg_dump version", "")),
        entries, data_tables,
    )  # fmt: skip


def _major(text: str) -> int:
    found = re.match(r"(\d+)", text)
    return int(found.group(1)) if found else 0


def read_archive(path: str, reader: Reader | None, text: Text) -> None:
    """Let pg_restore turn the whole archive into text, for ``--list`` alone believes a cut-off one.

    :param reader: gives the archive's bytes, so that they are read once; without it pg_restore opens the path itself.
    :raises DamagedError: pg_restore could not read it to its end.
    """
    argv = [pg_restore(), "--file=-", *([] if reader else [path])]
    pieces = (bytes(piece) for piece in reader.pieces(1 << 62)) if reader else None
    _run(argv, pieces, text.feed, path)


def convert(path: str, options: t.Sequence[str], sink: t.Callable[[bytes], None]) -> None:
    """Hand the text of an archive over, piece by piece.

    :raises DamagedError: pg_restore could not read it to its end.
    """
    _run([pg_restore(), *options, "--file=-", path], None, sink, path)


def is_out_of_order(error: DamagedError) -> bool:
    """Whether pg_restore only asked for a file in which it can go back."""
    return any(words in str(error) for words in _OUT_OF_ORDER)


class _Watch:
    """Kills a program that neither takes nor gives anything for too long: a damaged archive can send pg_restore round in circles."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self.has_killed = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def moved(self) -> None:
        """Note that it still works."""
        self._moved = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(STALL_SECONDS / 4, 5.0)):
            if time.monotonic() - self._moved > STALL_SECONDS:
                self.has_killed = True
                self._child.kill()


def _run(argv: t.Sequence[str], pieces: t.Iterator[bytes] | None, sink: t.Callable[[bytes], None], path: str) -> None:
    problems: list[BaseException] = []
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
    source = subprocess.PIPE if pieces is not None else subprocess.DEVNULL
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, stderr=errors, env=env) as child,
    ):
        watch = _Watch(child)
        feeder = threading.Thread(target=feed, args=(_noted(pieces or iter(()), watch), child.stdin, problems), daemon=True)
        if pieces is not None:
            feeder.start()
        try:
            for piece in read_pipe(child):
                watch.moved()
                sink(piece)
        except BaseException:
            child.kill()
            raise
        finally:
            if pieces is not None:
                feeder.join()
            child.wait()
            watch.close()
        errors.seek(0)
        said = errors.read(_TEXT_LIMIT).decode("utf-8", "replace").strip().splitlines()
    if problems:
        raise problems[0]
    if watch.has_killed:
        raise DamagedError(
            "damaged", f"{path} makes pg_restore go round in circles; it was stopped after {STALL_SECONDS:g} s without progress."
        )
    _judge(child.returncode, said, path)


def _noted(pieces: t.Iterator[bytes], watch: _Watch) -> t.Iterator[bytes]:
    for piece in pieces:
        watch.moved()
        yield piece


def _judge(status: int, said: t.Sequence[str], path: str) -> None:
    """Believe neither an exit status of 0 with warnings nor one that tells of the program instead of the archive."""
    if status == 0 and not said:
        return
    shown = clean(said[0] if said else f"ended with {status}", 300)
    if any(words in line for line in said for words in _NOT_ITS_FAULT):
        raise UnsupportedError(f"{path} cannot be looked into here: {shown}.")
    kind = "half written" if any("end of file" in line for line in said) else "damaged"
    raise DamagedError(kind, f"{path} cannot be read to its end: {shown}.")


def is_directory_dump(folder: str) -> bool:
    """Whether a folder holds a dump in directory format; a lost table of contents does not make it another thing."""
    names = os.listdir(folder)
    return TOC in names or any(re.fullmatch(r"\d+\.dat(\.(gz|lz4|zst))?", name) for name in names)
