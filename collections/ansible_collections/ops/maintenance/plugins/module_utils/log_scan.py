# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read all declared logs once, large amounts with two processes, and resume where the last run ended."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import typing as t
from dataclasses import dataclass, field
from datetime import timezone, tzinfo

from .errors import MaintenanceError
from .log_access import Network
from .log_counter import LogCounter
from .log_forms import form_of
from .log_lines import Clock, LineReader, find_files, is_compressed, last_record_time
from .log_resume import Candidate, Marks, copies, is_untouched, key_of, mark_of, positions, unread
from .log_tally import Tally
from .record import Json, clean

SPLIT_BYTES = 24 * 1024 * 1024
"""Smaller amounts are read by one process."""

WORKERS_LIMIT = 2
"""Readers beside the process that adds up, however many processors there are: each has tallies of its own, and 100 MB hold three."""

_UNPACKED = 8  # how much longer compressed data takes, about
_DAY = 86400.0


@dataclass(frozen=True)
class Source:
    """Logs that belong together, as the inventory declares them."""

    name: str
    paths: t.Sequence[str]
    form: str = "auto"
    zone: tzinfo = timezone.utc
    silence_hours: float = 0.0
    units: t.Sequence[str] = ()
    proxies: t.Sequence[Network] = ()


@dataclass
class FileSeen:
    """How far a file was read."""

    position: int = 0
    problem: str = ""
    key: str = ""
    mark: t.Mapping[str, Json] = field(default_factory=dict)


@dataclass
class Scanned:
    """What was found in one source."""

    source: Source
    tally: Tally = field(default_factory=Tally)
    files: dict[str, FileSeen] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    too_old: int = 0
    size: int = 0
    cursor: str = ""
    reaches_back_to: float | None = None
    """When the oldest entry of a journal was written."""

    @property
    def was_read(self) -> bool:
        """Whether there was anything at all to look at."""
        return bool(self.files or self.too_old)

    def marks(self) -> dict[str, t.Mapping[str, Json]]:
        """Return by what the files that were read are known again."""
        return {seen.key: seen.mark for seen in self.files.values() if seen.mark}


class _Part(t.NamedTuple):
    """A piece of work: a file, or a run of whole lines of a large one."""

    source: int
    path: str
    form: str
    start: int
    end: int | None
    weight: int
    reference: float
    unfinished: bool
    inode: tuple[int, int]


class _Span(t.NamedTuple):
    """Which records count."""

    since: float
    until: float


_Done = tuple[int, str, Tally, int, str, str, dict[str, Json]]


def scan(
    sources: t.Sequence[Source],
    since: float,
    now: float,
    known: Marks | None = None,
    workers: int | None = None,
    until: float = math.inf,
) -> list[Scanned]:
    """Read the files of the declared logs once.

    :param since: seconds since the epoch; what is older does not count.
    :param known: files as an earlier run remembered them (:mod:`.log_resume`): what was read then is left out.
    :param until: what is from then on or younger does not count.
    """
    scanned = [Scanned(source) for source in sources]
    fill(scanned, since, now, known, workers, until)
    return scanned


def fill(
    scanned: list[Scanned],
    since: float,
    now: float,
    known: Marks | None = None,
    workers: int | None = None,
    until: float = math.inf,
) -> None:
    """Do the same for sources that are begun already."""
    span = _Span(since, until)
    workers = workers or min(len(os.sched_getaffinity(0)), WORKERS_LIMIT)
    parts: list[_Part] = []
    for index, one in enumerate(scanned):
        parts += _parts_of_source(index, one, span, now, known, workers)
    for index, path, tally, position, problem, key, mark in _read_all(parts, scanned, span, workers):
        one = scanned[index]
        one.tally.merge(tally)
        seen = one.files.setdefault(path, FileSeen())
        if mark and position >= seen.position:
            seen.key, seen.mark = key, mark
        seen.position = max(seen.position, position)
        seen.problem = seen.problem or problem


def _parts_of_source(index: int, one: Scanned, span: _Span, now: float, known: Marks | None, workers: int) -> list[_Part]:
    found = find_files(one.source.paths, "sources[].paths")
    one.problems += found.problems
    files = []
    for path in found.files:
        with _problem_of(one, path):
            files.append(Candidate(path, os.stat(path, follow_symlinks=False), is_compressed(path)))
    doubled = copies(files)
    files = [file for file in files if file.path not in doubled]
    starts = positions(files, known) if known else {}
    for name in unread(files, starts, known or {}):
        one.problems.append(f"{name} was rotated or emptied, and what was written to it before that is not among these files any more")
    parts: list[_Part] = []
    for file in files:
        with _problem_of(one, file.path):
            parts += _parts_of(index, file, one, span, now, starts.get(file.path, 0), known, workers)
    return parts


@contextlib.contextmanager
def _problem_of(one: Scanned, path: str) -> t.Iterator[None]:
    """Take an error for a problem of that file."""
    try:
        yield
    except (OSError, MaintenanceError) as error:
        one.files[path] = FileSeen(problem=clean(getattr(error, "strerror", None) or str(error)))


def _parts_of(
    index: int, file: Candidate, one: Scanned, span: _Span, now: float, start: int, known: Marks | None, workers: int
) -> list[_Part]:
    path, status = file.path, file.status
    reference = min(status.st_mtime, now)
    if known and is_untouched(file, known):
        one.files[path] = FileSeen(start, "", file.key, known[file.key])
        return []
    if _is_too_old(path, status, file.compressed, span.since, Clock(reference, one.source.zone)):
        one.too_old += 1
        return []
    form = form_of(path, one.source.form)
    unfinished = file.compressed or known is None  # the next run that reads on is to find the last line whole
    one.files[path] = FileSeen(position=start)
    one.size += status.st_size - (0 if file.compressed else start)
    inode = (status.st_dev, status.st_ino)
    if file.compressed or status.st_size - start < SPLIT_BYTES or workers < 2 or form == "postgresql_csv":
        weight = status.st_size * (_UNPACKED if file.compressed else 1) - start
        return [_Part(index, path, form, start, None, max(weight, 1), reference, unfinished, inode)]
    ends = _line_ends(path, start, status.st_size, workers)
    return [
        _Part(index, path, form, first, last, (last or status.st_size) - first, reference, unfinished, inode)
        for first, last in zip([start, *ends], [*ends, None])
    ]


def _is_too_old(path: str, status: os.stat_result, compressed: bool, since: float, clock: Clock) -> bool:
    """Say whether a file cannot hold records of the span, by its last record (compressed: by its last change)."""
    if status.st_mtime >= since - _DAY:
        return False
    if compressed:
        return True
    last, _problem = last_record_time(path, clock)
    return last is not None and last < since


def _line_ends(path: str, start: int, size: int, count: int) -> list[int]:
    """Return positions right after line ends that divide a file into about equal parts."""
    ends: list[int] = []
    with open(path, "rb") as source:
        for number in range(1, count):
            source.seek(start + (size - start) * number // count)
            while True:
                data = source.read(64 * 1024)
                at = data.find(b"\n")
                if at >= 0 or not data:
                    break
            end = source.tell() - len(data) + at + 1
            if data and (not ends or end > ends[-1]) and start < end < size:
                ends.append(end)
    return ends


# Reading in several processes ----------------------------------------------------------------------------------------


def _read_all(parts: list[_Part], scanned: list[Scanned], span: _Span, workers: int) -> t.Iterator[_Done]:
    """Yield what each part held as it comes: all tallies at once would be much memory."""
    total = sum(part.weight for part in parts)
    if workers < 2 or len(parts) < 2 or total < SPLIT_BYTES:
        yield from (_read(part, scanned[part.source].source, span) for part in parts)
        return
    runs: list[list[_Part]] = [[] for _worker in range(workers)]
    done = 0
    for part in parts:
        runs[min(done * workers // total, workers - 1)].append(part)
        done += part.weight
    children = [_start(run, scanned, span) for run in runs if run]
    try:
        for child in children:
            yield from _results(child)
    finally:
        for pid, _pipe in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _start(run: list[_Part], scanned: list[Scanned], span: _Span) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        os.nice(5)
        results = [_read(part, scanned[part.source].source, span) for part in run]
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(results, pipe, protocol=4)
        status = 0
    finally:
        os._exit(status)


def _results(child: tuple[int, int]) -> list[_Done]:
    pid, reading = child
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _pid, status = os.waitpid(pid, 0)
    if status:
        raise MaintenanceError(
            f"A process that read logs ended with wait status {status}, so nothing was counted; look for memory pressure and run again."
        )
    results: list[_Done] = pickle.loads(data)  # noqa: S301 (from our own child)
    return results


def _read(part: _Part, source: Source, span: _Span) -> _Done:
    reader = LineReader(part.path, part.start, unfinished=part.unfinished, end=part.end, expected=part.inode)
    counter = LogCounter(part.form, Clock(part.reference, source.zone), span.since, span.until, source.proxies)
    for block in reader.blocks():
        counter.add(block)
        reader.held_bytes = 0 if part.unfinished else counter.held_bytes
    if part.unfinished:
        counter.finish()
    counter.tally.cut = reader.cut
    key, mark = "", {}
    is_empty = not reader.position and not reader.problem  # remembered too: what was read of it once is gone
    if reader.status and (reader.head or is_empty):
        key, mark = key_of(reader.status), mark_of(reader)
    return part.source, part.path, counter.tally, reader.position, reader.problem, key, mark
