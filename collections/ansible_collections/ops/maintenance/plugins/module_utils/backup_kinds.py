# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kinds of backups there are: each restores its files into a throw-away folder, opens them and looks inside.

A further kind is one more class with the same methods, and one more line in :data:`KINDS`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import struct
import tarfile
import typing as t
from dataclasses import dataclass, field

from . import sqlite_db
from .backup_sets import HOUR, Declared, matches, may_be_behind
from .backup_stream import DamagedError, OnePass, Reader, UnsupportedError, is_tar, tar_members
from .errors import MaintenanceError
from .judge import human_bytes, human_seconds
from .log_lines import Clock
from .paths import sha256_of

_HEADER_BYTES = 100
_LIST_LIMIT = 1000
_ZIP = b"PK\x03\x04"


class Verdict(t.NamedTuple):
    """What one rung of the ladder said about one file."""

    level: int
    state: str
    text: str


class Target:
    """The throw-away folder that a backup is restored into; a full disk stops writing, never the reading.

    :param folder: private and empty; None reads without restoring.
    :param budget: bytes that may be written.
    :param keep_digests: note the SHA-256 of every file, so that it can be compared when read again.
    """

    def __init__(self, folder: str | None, budget: int = 0, keep_digests: bool = False) -> None:
        self.folder = folder
        self.problem = ""
        self.written = 0
        self._budget = budget
        self._digests: t.TextIO | None = None
        if folder and keep_digests:
            self._digests = open(f"{folder}.digests", "w", encoding="utf-8")  # noqa: SIM115

    @property
    def is_wanted(self) -> bool:
        """Whether there is still something to write to."""
        return self.folder is not None and not self.problem

    def path_of(self, relative: str) -> str:
        """Return where a restored file lies."""
        return os.path.join(self.folder or "", relative)

    def restore(self, relative: str, pieces: t.Iterable[memoryview]) -> int:
        """Write one file from its pieces; return how many bytes were read, written or not."""
        if not self.is_wanted:
            return sum(map(len, pieces))
        path, digest, size = self.path_of(relative), hashlib.sha256(), 0
        target: t.BinaryIO | None = None
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            target = open(path, "wb")  # noqa: SIM115
        except OSError as error:
            self.problem = f"{relative!r} could not be written: {error.strerror}"
        for piece in pieces:
            size += len(piece)
            if target is not None and self.is_wanted:
                self._write(target, piece, relative)
                if self._digests is not None:
                    digest.update(piece)
        if target is not None:
            with contextlib.suppress(OSError):
                target.close()
        if self._digests is not None and self.is_wanted:
            self._digests.write(json.dumps([digest.hexdigest(), relative]) + "\n")
        return size

    def _write(self, target: t.BinaryIO, piece: memoryview, relative: str) -> None:
        self.written += len(piece)
        if self.written > self._budget:
            self.problem = f"the scratch folder has no room for more than {human_bytes(self._budget)}"
            return
        try:
            target.write(piece)
        except OSError as error:
            self.problem = f"{relative!r} could not be written: {error.strerror}"

    def flush(self) -> None:
        """Close the list of digests."""
        if self._digests is not None:
            self._digests.close()

    def differing(self) -> t.Iterator[str]:
        """Read every restored file again and name those that are not what the backup held."""
        last: dict[str, str] = {}
        with open(f"{self.folder}.digests", encoding="utf-8") as lines:
            for line in lines:
                digest, relative = json.loads(line)
                last[relative] = digest
        for relative, digest in last.items():
            if sha256_of(self.path_of(relative)) != digest:
                yield relative


@dataclass
class Seen:
    """What the one reading of a file showed, and what the rungs above measured."""

    notes: list[str] = field(default_factory=list)
    files: int = 0
    content_bytes: int = 0
    newest: float = 0.0
    names_found: set[str] = field(default_factory=set)
    has_own_checksum: bool = False
    rpo_seconds: float | None = None


class Kind(t.Protocol):
    """A kind of backup."""

    def read(self, reading: OnePass, declared: Declared, target: Target) -> Seen:
        """Read the decompressed bytes once: judge their structure (rung 1) and restore them (rung 3)."""

    def quick(self, path: str, declared: Declared) -> list[Verdict]:
        """Rung 1 where nothing is restored: the tool's own check, on the backup itself, read-only."""

    def open(self, target: Target, declared: Declared) -> list[Verdict]:
        """Rung 4: open what was restored and check it completely."""

    def content(self, target: Target, seen: Seen, declared: Declared, now: float) -> list[Verdict]:
        """Rung 5: look for what must be in it and compare with the source."""


class Files:
    """Archives (tar, plain or compressed) and files without a structure of their own."""

    def read(self, reading: OnePass, declared: Declared, target: Target) -> Seen:
        """See :class:`Kind`."""
        seen = Seen(has_own_checksum=bool(reading.compression))
        reader, name = reading.reader, os.path.basename(reading.path)
        first = reader.peek(512)
        if is_tar(first):
            for member in tar_members(reader):
                self._member(member, reader, declared["required_files"], target, seen)
            return seen
        if ".tar" in name or name.endswith((".tgz", ".txz")):
            raise DamagedError("wrong content", f"{reading.path} ought to hold a tar archive by its name, but does not.")
        if first.startswith(_ZIP):
            raise UnsupportedError(f"{reading.path} is a zip archive, whose structure is not looked at here.")
        seen.files, seen.newest = 1, os.stat(reading.path).st_mtime
        seen.notes.append("no archive: it has no structure of its own to check")
        _note_name(name, declared["required_files"], seen)
        seen.content_bytes = target.restore("content", reader.pieces(1 << 62))
        if not seen.content_bytes:
            raise DamagedError("empty", f"{reading.path} holds 0 bytes once decompressed; look at the backup job.")
        return seen

    def _member(self, member: tarfile.TarInfo, reader: Reader, required: t.Sequence[str], target: Target, seen: Seen) -> None:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise DamagedError("damaged", f"the archive has a member that leads outside of it: {member.name!r}")
        if not member.isreg():
            return
        seen.files += 1
        seen.newest = max(seen.newest, member.mtime)
        _note_name("/".join(parts), required, seen)
        if member.issparse():
            seen.notes.append(f"sparse member {member.name!r} was read but not restored")
            return
        size = target.restore(os.path.join("tree", *parts), reader.pieces(member.size))
        seen.content_bytes += size
        if size < member.size:
            raise DamagedError("half written", f"the archive ends inside {member.name!r}: it is cut off")

    def quick(self, path: str, declared: Declared) -> list[Verdict]:  # noqa: ARG002
        """Nothing more: reading the archive through was the check."""
        return []

    def open(self, target: Target, declared: Declared) -> list[Verdict]:  # noqa: ARG002
        """Read every restored file again."""
        wrong = list(target.differing())
        if wrong:
            return [Verdict(4, "critical", f"{len(wrong)} restored files differ from the archive, first {wrong[0]!r}")]
        return [Verdict(4, "ok", "every restored file was read again and is what the archive holds")]

    def content(self, target: Target, seen: Seen, declared: Declared, now: float) -> list[Verdict]:  # noqa: ARG002
        """Find the required files; compare the newest file with the newest of the source folder."""
        if not seen.files:
            return [Verdict(5, "critical", "it holds no file at all")]
        verdicts = [
            Verdict(5, "critical", f"no file in it matches {pattern!r}")
            for pattern in declared["required_files"]
            if pattern not in seen.names_found
        ]
        if declared["source"]:
            verdicts.append(self._behind(seen, declared))
        if not verdicts and not declared["required_files"]:
            return [Verdict(5, "unknown", "nothing is declared to look for in it (required_files, source)")]
        return verdicts or [Verdict(5, "ok", f"{seen.files} files, the required ones among them")]

    def _behind(self, seen: Seen, declared: Declared) -> Verdict:
        newest = max(
            (os.lstat(os.path.join(folder, name)).st_mtime for folder, _sub, names in os.walk(declared["source"]) for name in names),
            default=0.0,
        )
        if not newest:
            return Verdict(5, "unknown", f"{declared['source']} holds no file to compare with")
        seen.rpo_seconds = max(newest - seen.newest, 0.0)
        return _rpo_verdict(seen.rpo_seconds, declared, "its newest file")


def _note_name(name: str, required: t.Sequence[str], seen: Seen) -> None:
    seen.names_found.update(pattern for pattern in required if pattern not in seen.names_found and matches(name, pattern))


def _rpo_verdict(seconds: float, declared: Declared, what: str) -> Verdict:
    limit = may_be_behind(declared)
    text = f"{what} is {human_seconds(seconds)} behind the source"
    return Verdict(5, "critical" if seconds > limit else "ok", f"{text} (limit {human_seconds(limit)})")


class Sqlite:
    """SQLite database files, plain or compressed."""

    def read(self, reading: OnePass, declared: Declared, target: Target) -> Seen:  # noqa: ARG002
        """See :class:`Kind`."""
        seen = Seen(files=1, has_own_checksum=bool(reading.compression))
        expected = _expected_bytes(reading.path, reading.reader.peek(_HEADER_BYTES))
        seen.content_bytes = target.restore("restored.db", reading.reader.pieces(1 << 62))
        if seen.content_bytes < expected:
            raise DamagedError(
                "half written",
                f"{reading.path} holds {seen.content_bytes} bytes of a database of {expected}: it is cut off or still being written.",
            )
        self._companions(reading.path, target)
        return seen

    def _companions(self, path: str, target: Target) -> None:
        if os.path.lexists(path + "-journal") and os.lstat(path + "-journal").st_size:
            raise DamagedError("half written", f"{path}-journal lies beside it: the tool that wrote the backup did not finish.")
        if os.path.lexists(path + "-wal") and target.is_wanted:
            with open(path + "-wal", "rb") as log:
                target.restore("restored.db-wal", (memoryview(piece) for piece in iter(lambda: log.read(1 << 20), b"")))

    def quick(self, path: str, declared: Declared) -> list[Verdict]:
        """Open the backup itself read-only, as nothing is restored at this level; a compressed one has its CRC."""
        with open(path, "rb") as source:
            if source.read(len(sqlite_db.MAGIC)) != sqlite_db.MAGIC:
                return []
        if os.path.lexists(path + "-wal"):
            return [Verdict(1, "unknown", f"{path}-wal lies beside it; both are only read together when restored (level 3)")]
        return [verdict._replace(level=1) for verdict in self._checked(path, declared, quick=True)]

    def open(self, target: Target, declared: Declared) -> list[Verdict]:
        """Let SQLite check the restored copy completely, and make sure that it is the declared database."""
        return self._checked(target.path_of("restored.db"), declared, quick=False)

    def _checked(self, path: str, declared: Declared, quick: bool) -> list[Verdict]:
        try:
            return sqlite_db.reading(path, lambda connection: self._examine(connection, declared, quick))
        except sqlite_db.DatabaseDamagedError as error:
            return [Verdict(4, "critical", str(error))]

    def _examine(self, connection: sqlite3.Connection, declared: Declared, quick: bool) -> list[Verdict]:
        problems = _quick_check(connection) if quick else sqlite_db.integrity(connection)
        lines = [line for problem in problems for line in problem.splitlines() if line and not line.startswith("***")]
        if problems:
            return [Verdict(4, "critical", f"SQLite's integrity check says: {line}") for line in (lines or problems)[:10]]
        verdicts = [Verdict(4, "critical", f"wrong database: {text}") for text in _wrong(connection, declared)]
        if not quick:
            found = sqlite_db.foreign_keys(connection)
            verdicts += [Verdict(4, "warning", f"foreign keys: {problem}") for problem in found[:5]]
        return verdicts or [Verdict(4, "ok", f"{'quick_check' if quick else 'integrity_check'} is ok")]

    def content(self, target: Target, seen: Seen, declared: Declared, now: float) -> list[Verdict]:
        """Count rows and compare the sentinel row, with the live database where one is declared."""
        if not declared["count_tables"] and not declared["sentinel"]:
            return [Verdict(5, "unknown", "nothing is declared to compare (count_tables, sentinel)")]
        try:
            kept = sqlite_db.reading(target.path_of("restored.db"), lambda found: _measure(found, declared))
        except MaintenanceError as error:
            return [Verdict(5, "critical", str(error))]
        try:
            live = sqlite_db.reading(declared["source"], lambda found: _measure(found, declared)) if declared["source"] else None
        except MaintenanceError as error:
            return [Verdict(5, "unknown", f"the source could not be asked: {error}")]
        verdicts = list(_compare_counts(kept.counts, live.counts if live else None, declared["count_change_percent"]))
        if declared["sentinel"]:
            verdicts.append(_compare_sentinel(kept.newest, live, seen, declared, now))
        return verdicts


class _Measured(t.NamedTuple):
    counts: dict[str, int]
    newest: t.Any


def _expected_bytes(path: str, header: bytes) -> int:
    if not header:
        raise DamagedError("empty", f"{path} holds 0 bytes once decompressed; look at the backup job.")
    if len(header) < _HEADER_BYTES or not header.startswith(sqlite_db.MAGIC):
        raise DamagedError("wrong content", f"{path} is not a SQLite database: it begins with {header[:8].hex(' ')}.")
    (page_size,) = struct.unpack(">H", header[16:18])
    change_counter, pages = struct.unpack(">II", header[24:32])
    (valid_for,) = struct.unpack(">I", header[92:96])
    page_bytes = 65536 if page_size == 1 else page_size
    if page_bytes < 512 or page_bytes & (page_bytes - 1):
        raise DamagedError("damaged", f"the header of {path} says a page size of {page_bytes}, which cannot be.")
    # Very old writers left the size in the header out of date and say so by this counter.
    return int(pages * page_bytes) if change_counter == valid_for else page_bytes


def _quick_check(connection: sqlite3.Connection) -> list[str]:
    with sqlite_db.translated("the database"):
        rows = [str(row[0]) for row in connection.execute("PRAGMA quick_check(100)")]
    return [] if rows == ["ok"] else rows or ["quick_check gave no answer"]


def _wrong(connection: sqlite3.Connection, declared: Declared) -> t.Iterator[str]:
    present = set(sqlite_db.tables(connection))
    if not present:
        yield "it has no table at all"
        return
    missing = [name for name in declared["required_tables"] if name not in present]
    if missing:
        yield f"it lacks the tables {', '.join(missing)}"
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if declared["application_id"] and found != declared["application_id"]:
        yield f"its application_id is {found}, expected {declared['application_id']}"


def _measure(connection: sqlite3.Connection, declared: Declared) -> _Measured:
    sentinel, newest = declared["sentinel"], None
    counts = sqlite_db.table_counts(connection, declared["count_tables"])
    if sentinel:
        column, order = (sqlite_db.quoted(name) for name in (sentinel["column"], sentinel["order"] or sentinel["column"]))
        query = f"SELECT {column} FROM {sqlite_db.quoted(sentinel['table'])} WHERE {column} IS NOT NULL ORDER BY {order} DESC LIMIT 1"  # noqa: S608
        with sqlite_db.translated(f"the sentinel {sentinel['table']}.{sentinel['column']}"):
            row = connection.execute(query).fetchone()
        newest = row[0] if row else None
    return _Measured(counts, newest)


def _compare_counts(kept: dict[str, int], live: dict[str, int] | None, percent: float) -> t.Iterator[Verdict]:
    for table, count in kept.items():
        if live is None:
            yield Verdict(5, "ok" if count else "warning", f"{table}: {count} rows (no source to compare with)")
            continue
        there = live[table]
        differs = abs(there - count) > max(there, count) * percent / 100
        state = "critical" if there and not count else "warning" if differs else "ok"
        yield Verdict(5, state, f"{table}: {count} rows in the backup, {there} in the source")


def _compare_sentinel(newest: t.Any, live: _Measured | None, seen: Seen, declared: Declared, now: float) -> Verdict:
    clock = Clock(now)
    what = f"the newest {declared['sentinel']['table']}.{declared['sentinel']['column']}"
    if newest is None:
        lost = live is None or live.newest is not None
        return Verdict(5, "critical" if lost else "ok", f"{what}: there is no row in the backup")
    kept_time = clock.of_text(str(newest).encode("utf-8", "replace"))
    if live is None:
        if kept_time is None:
            return Verdict(5, "ok", f"{what} is {newest!r} (no source to compare with)")
        age = max(now - kept_time, 0.0)
        late = bool(declared["maximum_rpo_hours"]) and age > declared["maximum_rpo_hours"] * HOUR
        return Verdict(5, "critical" if late else "ok", f"{what} is {human_seconds(age)} old (no source to compare with)")
    live_time = clock.of_text(str(live.newest).encode("utf-8", "replace"))
    if live.newest is None or (kept_time is not None and live_time is not None and live_time < kept_time):
        return Verdict(5, "warning", f"{what} is {newest!r}, in the source {live.newest!r}: the source lost rows")
    if kept_time is None or live_time is None or kept_time < 1e8:
        return Verdict(5, "ok", f"{what} is {newest!r}, in the source {live.newest!r}")
    seen.rpo_seconds = live_time - kept_time
    return _rpo_verdict(seen.rpo_seconds, declared, what)


KINDS: dict[str, Kind] = {"files": Files(), "sqlite": Sqlite()}
