# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read log files of any size in constant memory, compressed ones too, and tell the time of a record."""

from __future__ import annotations

import bz2
import calendar
import fnmatch
import json
import lzma
import os
import re
import shutil
import stat
import subprocess
import typing as t
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from .errors import InputError, MaintenanceError
from .paths import open_regular
from .record import clean

LINE_LIMIT_BYTES = 1024 * 1024
"""A longer line is cut there, and counted; so that no line decides how much memory a run takes."""

BLOCK_BYTES = 256 * 1024
ENDS_BYTES = 1024
"""So much of the beginning and of the end of what was read is kept to know it again."""

TIME_KEYS = ("timestamp", "time", "ts", "@timestamp")
LEVEL_KEYS = ("level", "levelname", "severity", "log_level", "loglevel", "lvl")
MESSAGE_KEYS = ("message", "msg", "event", "error", "text")
CRITICAL_LEVELS = frozenset(("CRITICAL", "FATAL", "ALERT", "EMERGENCY"))

_MAGIC = ((b"\x1f\x8b", "gz"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bz2"), (b"\x28\xb5\x2f\xfd", "zst"))
_SUFFIXES = {".gz": "gz", ".xz": "xz", ".bz2": "bz2", ".zst": "zst"}


def strip_compression(name: str) -> str:
    """Return a file's name without its compression suffix."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix in _SUFFIXES else name


# Finding files -------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """Files that patterns matched, each once, and what stood in the way of looking."""

    files: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_files(patterns: t.Iterable[str], option: str = "paths") -> Found:
    """Find regular files by absolute patterns (``*``, ``?``, ``[…]``, ``**`` for any depth); links are not followed.

    :raises InputError: a pattern is not absolute.
    """
    found = Found()
    seen: set[tuple[int, int]] = set()
    for pattern in patterns:
        if not os.path.isabs(pattern):
            raise InputError.of(option, pattern, "an absolute path or pattern", "write it from the root on")
        parts = [part for part in pattern.split("/") if part]
        fixed = next((i for i, part in enumerate(parts[:-1]) if _is_wild(part)), max(len(parts) - 1, 0))
        _match("/" + "/".join(parts[:fixed]), parts[fixed:], found, seen)
    found.files.sort()
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _is_wild(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _listed(folder: str, found: Found) -> list[os.DirEntry[str]]:
    try:
        if os.path.islink(folder):
            found.problems.append(f"{folder} is a symbolic link and was not entered; name {os.path.realpath(folder)}")
            return []
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        found.problems.append(f"{folder} could not be read: {error.strerror}")
        return []


def _match(folder: str, parts: list[str], found: Found, seen: set[tuple[int, int]]) -> None:
    entries = _listed(folder, found)
    if not parts:
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        _match(folder, rest or ["*"], found, seen)
    for entry in entries:
        if head != "**" and not (entry.name == head or fnmatch.fnmatchcase(entry.name, head)):
            continue
        if entry.is_dir(follow_symlinks=False):
            if head == "**" or rest:
                _match(entry.path, parts if head == "**" else rest, found, seen)
            elif entry.name == head:
                found.problems.append(f"{entry.path} is a folder, expected a file")
        elif not rest and head != "**":
            _take(entry, found, seen)
        elif entry.is_symlink() and entry.is_dir():
            found.problems.append(f"{entry.path} is a symbolic link and was not entered; name {os.path.realpath(entry.path)}")


def _take(entry: os.DirEntry[str], found: Found, seen: set[tuple[int, int]]) -> None:
    if not entry.is_file(follow_symlinks=False):
        kind = "a symbolic link" if entry.is_symlink() else "not a regular file"
        found.problems.append(f"{entry.path} is {kind} and was not read")
        return
    status = entry.stat(follow_symlinks=False)
    if (status.st_dev, status.st_ino) not in seen:
        seen.add((status.st_dev, status.st_ino))
        found.files.append(entry.path)


# Reading -------------------------------------------------------------------------------------------------------------


class _Gunzip:
    """zlib behind the interface that lzma and bz2 share."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


_DECOMPRESSORS: dict[str, t.Callable[[], t.Any]] = {
    "gz": _Gunzip,
    "xz": lzma.LZMADecompressor,
    "bz2": bz2.BZ2Decompressor,
}


class LineReader:
    """One log file, read once from ``offset`` on.

    ``blocks`` yields whole lines in large pieces (fast), ``lines`` one line at a time; use one of them, once.
    Afterwards ``problem`` says what stood in the way (empty: all was read), ``cut`` how many lines were longer
    than ``limit``, ``position`` where the last complete line ended (of the content, not of the compressed file).

    :param offset: bytes of content to skip, as ``position`` said earlier.
    :param unfinished: yield a last line that has no line end yet.
    :param end: stop at this position of a file that is not compressed.
    :param expected: device and inode that the file must have; another one by that name is not read.
    """

    def __init__(
        self,
        path: str,
        offset: int = 0,
        limit: int = LINE_LIMIT_BYTES,
        unfinished: bool = True,
        end: int | None = None,
        expected: tuple[int, int] | None = None,
    ) -> None:
        self.path = path
        self.limit = limit
        self.position = offset
        self.cut = 0
        self.problem = ""
        self.compression = ""
        self.status: os.stat_result | None = None
        self.head, self.tail = b"", b""
        self.held_bytes = 0
        """Bytes at the end of what was yielded that the caller could not use yet: ``position`` ends before them."""
        self._expected = expected
        self._unfinished = unfinished
        self._end = end

    def blocks(self) -> t.Iterator[bytes]:
        """Yield pieces of the content that end with a line end (but the last, where the file does not)."""
        try:
            with open_regular(self.path) as source:
                self.status = os.fstat(source.fileno())
                if self._expected not in (None, (self.status.st_dev, self.status.st_ino)):
                    self.problem = "it was rotated just when it was to be read; the next run reads it"
                    return
                yield from self._whole_lines(self._content(source))
                self.position -= self.held_bytes
                if not self.compression:
                    self.head, self.tail = self.ends(source, self.position)
        except (OSError, MaintenanceError) as error:
            self.problem = clean(getattr(error, "strerror", None) or str(error))

    @staticmethod
    def ends(source: t.BinaryIO, position: int) -> tuple[bytes, bytes]:
        """Return the first and the last bytes before a position of a file that is not compressed."""
        size = min(ENDS_BYTES, position)
        return os.pread(source.fileno(), size, 0), os.pread(source.fileno(), size, position - size)

    def raw(self, source: t.BinaryIO) -> t.Iterator[bytes]:
        """Yield the content of a file that is open already, in pieces that need not end at a line end."""
        self.status = os.fstat(source.fileno())
        return self._content(source)

    def lines(self) -> t.Iterator[bytes]:
        """Yield lines without their line end (``\\r\\n`` counts as one)."""
        for block in self.blocks():
            lines = block.split(b"\n")
            if not lines[-1]:
                lines.pop()
            for line in lines:
                yield line[:-1] if line.endswith(b"\r") else line

    def _content(self, source: t.BinaryIO) -> t.Iterator[bytes]:
        start = source.read(6)
        self.compression = next((kind for magic, kind in _MAGIC if start.startswith(magic)), "")
        named = _SUFFIXES.get(os.path.splitext(self.path)[1], "")
        if named and not self.compression:
            self.problem = f"it is named .{named}, but its content is not; nothing was read from it"
            return iter(())
        source.seek(0 if self.compression else self.position)
        if not self.compression:
            return self._plain(source)
        if self.compression == "zst":
            return self._after_offset(self._by_command(source, "zstd"))
        return self._after_offset(self._decompressed(source, _DECOMPRESSORS[self.compression]))

    def _after_offset(self, chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
        left = self.position
        for chunk in chunks:
            self.head += chunk[: ENDS_BYTES - len(self.head)]
            self.tail = (self.tail + chunk)[-ENDS_BYTES:]
            if left < len(chunk):
                yield chunk[left:]
            left = max(left - len(chunk), 0)

    def _plain(self, source: t.BinaryIO) -> t.Iterator[bytes]:
        size = min(BLOCK_BYTES, self.limit)
        left = float("inf") if self._end is None else self._end - self.position
        while left > 0:
            data = source.read(int(min(size, left)))
            if not data:
                return
            left -= len(data)
            yield data

    def _decompressed(self, source: t.BinaryIO, make: t.Callable[[], t.Any]) -> t.Iterator[bytes]:
        size = min(BLOCK_BYTES, self.limit)
        stream, data = make(), b""
        try:
            while True:
                if not data and stream.needs_input:
                    data = source.read(size)
                    if not data:
                        self.problem = "it ends in the middle of its compressed data; what came before was read"
                        return
                content = stream.decompress(data, size)
                data = b""
                if content:
                    yield content
                if stream.eof:
                    data = (stream.unused_data or source.read(size)).lstrip(b"\0")
                    if not data:
                        return
                    stream = make()
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            self.problem = clean(f"its compressed data is damaged ({error}); what came before was read")

    def _by_command(self, source: t.BinaryIO, name: str) -> t.Iterator[bytes]:
        program = shutil.which(name)
        if program is None:
            self.problem = f"the command {name} is not installed, so nothing was read from it"
            return
        os.lseek(source.fileno(), 0, os.SEEK_SET)  # the command shares the descriptor, which is where the buffer was read to
        argv = [program, "-dc"]
        with subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            output = t.cast("t.BinaryIO", child.stdout)
            yield from iter(lambda: output.read(min(BLOCK_BYTES, self.limit)), b"")
        if child.returncode:
            self.problem = f"{name} ended with {child.returncode}; what came before was read"

    def _whole_lines(self, chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
        """Join chunks (none longer than ``limit``) at line ends; only a line across chunks can be too long."""
        rest, skipped = b"", 0
        for chunk in chunks:
            first = chunk.find(b"\n")
            if skipped:
                if first < 0:
                    skipped += len(chunk)
                    continue
                self.position += skipped + first + 1
                skipped, chunk = 0, chunk[first + 1 :]
                first = chunk.find(b"\n")
            if len(rest) + (first if first >= 0 else len(chunk)) > self.limit:
                self.cut += 1
                yield (rest + chunk[: self.limit])[: self.limit] + b"\n"
                if first < 0:
                    rest, skipped = b"", len(rest) + len(chunk)
                    continue
                self.position += len(rest) + first + 1
                rest, chunk = b"", chunk[first + 1 :]
            last = chunk.rfind(b"\n") + 1
            if not last:
                rest += chunk
                continue
            block = b"".join((rest, memoryview(chunk)[:last]))
            rest = chunk[last:]
            self.position += len(block)
            yield block
        if self._unfinished:
            self.position += len(rest) + skipped
            if rest:
                yield rest


# Time ----------------------------------------------------------------------------------------------------------------

_ISO = re.compile(rb"(\d{4}-\d\d-\d\d)[T ](\d\d):?(\d\d):?(\d\d)(?:[.,](\d{1,9}))?\d*[ ]?(?:(Z|UTC|GMT)|([+-])(\d\d):?(\d\d)?)?")
_SYSLOG = re.compile(rb"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(\d{1,2}) (\d\d):(\d\d):(\d\d)")
_ACCESS = re.compile(rb"(\d\d)/(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/(\d{4}):(\d\d):(\d\d):(\d\d)(?: ([+-])(\d\d)(\d\d))?")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?$")
_MONTHS = {name: i for i, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_BEFORE_TIME = re.compile(rb"(?:<\d{1,3}>(?:1 )?)?[\[( <]{0,8}")


def zone_of(name: str, option: str = "timezone") -> tzinfo:
    """Return a time zone by its IANA name.

    :raises InputError: this host does not know it.
    """
    if name in ("UTC", "Etc/UTC", "Z"):
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise InputError.of(option, name, "a time zone name of this host, such as Europe/Berlin", "correct it or install tzdata") from None


class Clock:
    """Tells the time of records, as seconds since the epoch.

    :param zone: the zone of times that do not say theirs.
    :param reference: no record is much younger than this; decides the year where a line has none.
    """

    def __init__(self, reference: float, zone: tzinfo = timezone.utc) -> None:
        self.reference = reference
        self.zone = zone
        self._days: dict[bytes, int] = {}
        self._latest = datetime.fromtimestamp(reference, timezone.utc) + timedelta(days=2)

    def of_text(self, text: bytes) -> float | None:
        """Return the time that a text says in any known form: ISO 8601, access log, syslog or a number."""
        number = _NUMBER.match(text)
        if number:
            return from_number(float(text))
        for pattern, read in ((_ISO, self._iso), (_ACCESS, self._access), (_SYSLOG, self._syslog)):
            found = pattern.match(text)
            if found:
                return read(found)
        return None

    def of_record(self, record: t.Mapping[str, t.Any]) -> float | None:
        """Return the time of a decoded JSON record, by the first known key that tells one."""
        for key in TIME_KEYS:
            value = record.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return from_number(float(value))
            if isinstance(value, str):
                moment = self.of_text(value.strip().encode("utf-8", "replace"))
                if moment is not None:
                    return moment
        return None

    def of_plain(self, line: bytes) -> float | None:
        """Return the time that a plain or syslog line begins with (a syslog priority or bracket may come first)."""
        start = self.start_of_plain(line)
        return start[0] if start else None

    def start_of_plain(self, line: bytes) -> tuple[float, int] | None:
        """Return the same, and where in the line that time ends."""
        before = _BEFORE_TIME.match(line)
        start = before.end() if before else 0
        for pattern, read in ((_ISO, self._iso), (_SYSLOG, self._syslog)):
            found = pattern.match(line, start, start + 64)
            moment = read(found) if found else None
            if found and moment is not None:
                return moment, found.end()
        return None

    def of_access(self, line: bytes) -> float | None:
        """Return the time of a line of a combined or common access log."""
        start = line.find(b"[") + 1
        found = _ACCESS.match(line, start) if start else None
        return self._access(found) if found else None

    def of_json(self, line: bytes) -> float | None:
        """Return the time of a JSON line; None where it is not a JSON object or tells no time."""
        record = json_record(line)
        return None if record is None else self.of_record(record)

    def of_line(self, line: bytes) -> float | None:
        """Return the time of a line of whatever format it looks like."""
        if line.lstrip()[:1] == b"{":
            return self.of_json(line)
        moment = self.of_plain(line)
        return self.of_access(line) if moment is None else moment

    def _iso(self, found: re.Match[bytes]) -> float | None:
        day, hour, minute, second, fraction, utc, sign, off_hours, off_minutes = found.groups()
        start = self._day(day)
        if start is None or int(hour) > 24 or int(minute) > 59 or int(second) > 60:
            return None
        moment = float(start + int(hour) * 3600 + int(minute) * 60 + int(second))
        if fraction:
            moment += float(b"0." + fraction)
        if sign:
            return moment - _offset(sign, off_hours, off_minutes)
        return moment if utc else self._local(moment)

    def _access(self, found: re.Match[bytes]) -> float | None:
        day, month, year, hour, minute, second, sign, off_hours, off_minutes = found.groups()
        start = self._day(b"%s-%02d-%s" % (year, _MONTHS[month], day))
        if start is None:
            return None
        moment = float(start + int(hour) * 3600 + int(minute) * 60 + int(second))
        return moment - _offset(sign, off_hours, off_minutes) if sign else self._local(moment)

    def _syslog(self, found: re.Match[bytes]) -> float | None:
        month, day, hour, minute, second = found.groups()
        for year in (self._latest.year, self._latest.year - 1):
            start = self._day(b"%04d-%02d-%02d" % (year, _MONTHS[month], int(day)))
            if start is None:
                continue
            moment = self._local(float(start + int(hour) * 3600 + int(minute) * 60 + int(second)))
            if moment <= self._latest.timestamp():
                return moment
        return None

    def _day(self, day: bytes) -> int | None:
        known = self._days.get(day)
        if known is None:
            try:
                year, month, number = (int(part) for part in day.split(b"-"))
                known = calendar.timegm(datetime(year, month, number).timetuple())
            except ValueError:
                return None
            if len(self._days) < 4096:
                self._days[day] = known
        return known

    def _local(self, moment: float) -> float:
        if self.zone is timezone.utc:
            return moment
        naive = datetime.fromtimestamp(moment, timezone.utc).replace(tzinfo=self.zone)
        return naive.timestamp()


def _offset(sign: bytes, hours: bytes, minutes: bytes | None) -> int:
    seconds = int(hours) * 3600 + int(minutes or b"0") * 60
    return -seconds if sign == b"-" else seconds


def from_number(value: float) -> float | None:
    """Take a number for seconds, milli-, micro- or nanoseconds since the epoch, by its size."""
    for limit, factor in ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9)):
        if abs(value) < limit:
            return value / factor if value > 0 else None
    return None


def last_record_time(path: str, clock: Clock) -> tuple[float | None, str]:
    """Return the time of the last record of a log file that tells one, and what stood in the way of reading it.

    The end of a plain file is enough; a compressed one is read through.
    """
    reader = LineReader(path)
    for size in (64 * 1024, 4 * LINE_LIMIT_BYTES, 0):
        offset = max(os.stat(path, follow_symlinks=False).st_size - size, 0) if size else 0
        if offset and is_compressed(path):
            continue
        reader, moment = LineReader(path, offset), None
        for block in reader.blocks():
            for line in reversed(block.split(b"\n")):
                found = clock.of_line(line) if line else None
                if found is not None:
                    moment = found
                    break
        if moment is not None or not offset:
            return moment, reader.problem
    return None, reader.problem


def is_compressed(path: str) -> bool:
    """Say whether a file's content begins like compressed data."""
    with open_regular(path) as source:
        start = source.read(6)
    return any(start.startswith(magic) for magic, _kind in _MAGIC)


# JSON lines and levels -----------------------------------------------------------------------------------------------

_LEVELS = {
    "WARN": "WARNING", "ERR": "ERROR", "CRIT": "CRITICAL", "EMERG": "EMERGENCY", "PANIC": "EMERGENCY",
    "INFORMATION": "INFO", "SEVERE": "ERROR",
}  # fmt: skip
KNOWN_LEVELS = frozenset(("TRACE", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "FATAL", "ALERT", "EMERGENCY"))
_NUMERIC_LEVELS = {10: "TRACE", 20: "DEBUG", 30: "INFO", 40: "WARNING", 50: "ERROR", 60: "FATAL"}  # pino, bunyan
_PLAIN_LEVEL = re.compile(
    rb"\b(TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|FATAL|ALERT|EMERG(?:ENCY)?|PANIC|SEVERE)\b"
    rb"|\[(trace|debug|info|notice|warn(?:ing)?|error|crit(?:ical)?|fatal|alert|emerg)\]|<(?:\d+\.)?(error|crit)>"
)


def json_record(line: bytes) -> dict[str, t.Any] | None:
    """Decode a JSON line; None where it is not a JSON object. Invalid UTF-8 survives as replacement characters."""
    try:
        record = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def level_name(value: object) -> str:
    """Return the usual name of a level; empty where it is not one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _NUMERIC_LEVELS.get(value, "")
    if not isinstance(value, str):
        return ""
    upper = value.strip().upper()
    upper = _LEVELS.get(upper, upper)
    return upper if upper in KNOWN_LEVELS else ""


def level_of_record(record: t.Mapping[str, t.Any]) -> str:
    """Return the level of a decoded JSON record; empty where it has none."""
    return next((name for name in (level_name(record.get(key)) for key in LEVEL_KEYS) if name), "")


def level_of_plain(line: bytes) -> str:
    """Return the level that a plain line names near its start; empty where it names none."""
    found = _PLAIN_LEVEL.search(line, 0, 400)
    return level_name((found.group(1) or found.group(2) or found.group(3)).decode()) if found else ""


def message_of_record(record: t.Mapping[str, t.Any]) -> str:
    """Return the text of a decoded JSON record; the whole record where no known key holds one."""
    for key in MESSAGE_KEYS:
        value = record.get(key)
        if isinstance(value, str) and value:
            return value
    return json.dumps(record, ensure_ascii=False, sort_keys=True, default=str)


# Critical lines since a moment ---------------------------------------------------------------------------------------

_MAYBE_CRITICAL = re.compile(rb"(?i)crit|fatal|alert|emerg|panic|\b60\b|out of memory|oom-kill")


@dataclass
class Critical:
    """Lines at a critical level since a moment."""

    count: int = 0
    examples: list[str] = field(default_factory=list)
    files: int = 0
    problems: list[str] = field(default_factory=list)


def critical_since(sources: t.Sequence[t.Mapping[str, t.Any]], since: float) -> Critical:
    """Find records at a critical level whose own time is ``since`` (seconds since the epoch) or later.

    :param sources: as ``log_rotation_sources``: ``paths``, optionally ``timezone``.
    """
    answer = Critical()
    for source in sources:
        found = find_files(source["paths"])
        answer.problems.extend(found.problems)
        if not found.files:
            answer.problems.append(f"no file matches {', '.join(source['paths'])}")
        zone = zone_of(source.get("timezone") or "UTC")
        for path in found.files:
            answer.files += 1
            _critical_in(path, zone, since, answer)
    return answer


def _critical_in(path: str, zone: tzinfo, since: float, answer: Critical) -> None:
    status = os.stat(path, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or status.st_mtime < since:
        return  # nothing was written to it since then
    clock, moment = Clock(status.st_mtime, zone), None
    reader = LineReader(path)
    for block in reader.blocks():
        if not _MAYBE_CRITICAL.search(block):
            continue
        for line in block.splitlines():
            if not _MAYBE_CRITICAL.search(line):
                continue
            record = json_record(line) if line.lstrip()[:1] == b"{" else None
            level = level_of_record(record) if record is not None else level_of_plain(line)
            if level not in CRITICAL_LEVELS:
                continue
            moment = clock.of_record(record) if record is not None else clock.of_line(line)
            if moment is None or moment >= since:
                answer.count += 1
                if len(answer.examples) < 20:
                    answer.examples.append(clean(line.decode("utf-8", "replace"), 300))
    if reader.problem:
        answer.problems.append(f"{clean(path)}: {reader.problem}")
