# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read all declared logs once, with as many processes as there are processors, and resume where the last run ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import signal
import stat
import typing as t
from dataclasses import dataclass, field
from datetime import timezone, tzinfo

from .errors import MaintenanceError
from .log_lines import Clock, LineReader, find_files, is_compressed, last_record_time
from .log_tally import LogCounter, Tally
from .record import clean

FORMS = ("auto", "json", "plain", "access")
SPLIT_BYTES = 24 * 1024 * 1024
"""Smaller amounts are read by one process."""

_WORKERS_LIMIT = 4
_UNPACKED = 8  # how much longer compressed data takes, about
_HEAD_BYTES = 1024
_DAY = 86400.0


@dataclass(frozen=True)
class Source:
    """Logs that belong together, as the inventory declares them."""

    name: str
    paths: t.Sequence[str]
    form: str = "auto"
    zone: tzinfo = timezone.utc
    silence_hours: float = 0.0


@dataclass
class FileSeen:
    """How far a file was read."""

    position: int = 0
    problem: str = ""


@dataclass
class Scanned:
    """What was found in one source."""

    source: Source
    tally: Tally = field(default_factory=Tally)
    files: dict[str, FileSeen] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    too_old: int = 0
    size: int = 0


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


_Done = tuple[int, str, Tally, int, str]


def scan(
    sources: t.Sequence[Source],
    since: float,
    now: float,
    known: t.Mapping[str, t.Any] | None = None,
    workers: int | None = None,
) -> list[Scanned]:
    """Read the declared logs once.

    :param since: seconds since the epoch; what is older does not count.
    :param known: files as an earlier run remembered them (:func:`remember`): what was read then is left out.
    """
    scanned = [Scanned(source) for source in sources]
    parts: list[_Part] = []
    workers = workers or min(len(os.sched_getaffinity(0)), _WORKERS_LIMIT)
    for index, one in enumerate(scanned):
        found = find_files(one.source.paths, "sources[].paths")
        one.problems = found.problems
        for path in found.files:
            parts += _parts_of(index, path, one, since, now, known, workers)
    for index, path, tally, position, problem in _read_all(parts, scanned, since, workers):
        one = scanned[index]
        one.tally.merge(tally)
        seen = one.files.setdefault(path, FileSeen())
        seen.position = max(seen.position, position)
        seen.problem = seen.problem or problem
    return scanned


def _parts_of(
    index: int, path: str, one: Scanned, since: float, now: float, known: t.Mapping[str, t.Any] | None, workers: int
) -> list[_Part]:
    try:
        status = os.stat(path, follow_symlinks=False)
        compressed = is_compressed(path)
        reference = min(status.st_mtime, now)
        if _is_too_old(path, status, compressed, since, Clock(reference, one.source.zone)):
            one.too_old += 1
            return []
        start = _resume_at(path, status, compressed, known) if known else 0
        form = form_of(path) if one.source.form == "auto" else one.source.form
    except (OSError, MaintenanceError) as error:
        one.files[path] = FileSeen(problem=clean(getattr(error, "strerror", None) or str(error)))
        return []
    unfinished = compressed or known is None  # the next run that reads on is to find the last line whole
    one.files[path] = FileSeen(position=start)
    one.size += status.st_size - (0 if compressed else start)
    if compressed or status.st_size - start < SPLIT_BYTES or workers < 2:
        weight = status.st_size * (_UNPACKED if compressed else 1) - start
        return [_Part(index, path, form, start, None, max(weight, 1), reference, unfinished)]
    ends = _line_ends(path, start, status.st_size, workers)
    return [
        _Part(index, path, form, first, last, (last or status.st_size) - first, reference, unfinished)
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


def form_of(path: str) -> str:
    """Tell the format of a log file from its first lines."""
    votes = {"json": 0, "access": 0, "plain": 0}
    clock = Clock(0.0)
    for number, line in enumerate(LineReader(path).lines()):
        if line.strip():
            form = "json" if line.lstrip()[:1] == b"{" else "access" if clock.of_access(line) is not None else "plain"
            votes[form] += 1
        if number >= 20:
            break
    return max(votes, key=votes.__getitem__) if any(votes.values()) else "plain"


# Reading in several processes ----------------------------------------------------------------------------------------


def _read_all(parts: list[_Part], scanned: list[Scanned], since: float, workers: int) -> list[_Done]:
    total = sum(part.weight for part in parts)
    if workers < 2 or len(parts) < 2 or total < SPLIT_BYTES:
        return [_read(part, scanned[part.source].source.zone, since) for part in parts]
    runs: list[list[_Part]] = [[] for _worker in range(workers)]
    done = 0
    for part in parts:
        runs[min(done * workers // total, workers - 1)].append(part)
        done += part.weight
    children = [_start(run, scanned, since) for run in runs if run]
    try:
        return [result for child in children for result in _results(child)]
    finally:
        for pid, _pipe in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _start(run: list[_Part], scanned: list[Scanned], since: float) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        os.nice(5)
        results = [_read(part, scanned[part.source].source.zone, since) for part in run]
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


def _read(part: _Part, zone: tzinfo, since: float) -> _Done:
    reader = LineReader(part.path, part.start, unfinished=part.unfinished, end=part.end)
    counter = LogCounter(part.form, Clock(part.reference, zone), since)
    for block in reader.blocks():
        counter.add(block)
    counter.tally.cut = reader.cut
    return part.source, part.path, counter.tally, reader.position, reader.problem


# Where the last run ended --------------------------------------------------------------------------------------------


def remember(scanned: t.Sequence[Scanned]) -> dict[str, t.Any]:
    """Describe how far each file was read, so that it is recognised after rotation, renaming and compression."""
    known: dict[str, t.Any] = {}
    for one in scanned:
        for path, seen in one.files.items():
            try:
                status = os.stat(path, follow_symlinks=False)
                head = _head(path, min(seen.position, _HEAD_BYTES))
            except (OSError, MaintenanceError):
                continue
            known[f"{status.st_dev}:{status.st_ino}"] = {
                "path": path,
                "position": seen.position,
                "head": hashlib.sha256(head).hexdigest(),
                "head_bytes": len(head),
            }
    return known


def _resume_at(path: str, status: os.stat_result, compressed: bool, known: t.Mapping[str, t.Any]) -> int:
    """Return how much of a file's content an earlier run has read, whatever the file was called then."""
    if not stat.S_ISREG(status.st_mode):
        return 0
    head = _head(path, _HEAD_BYTES)
    same = known.get(f"{status.st_dev}:{status.st_ino}")
    for entry in [same] if same else list(known.values()):
        size = entry["head_bytes"]
        if size >= 16 and len(head) >= size and hashlib.sha256(head[:size]).hexdigest() == entry["head"]:
            if not compressed and status.st_size < entry["position"]:
                return 0  # truncated, and begun anew with the same words
            return int(entry["position"])
    return 0


def _head(path: str, size: int) -> bytes:
    """Return the first bytes of the content."""
    head = b""
    for block in LineReader(path).blocks():
        head += block[: size - len(head)]
        if len(head) >= size:
            break
    return head
