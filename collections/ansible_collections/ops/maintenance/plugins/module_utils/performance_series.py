# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers in JSON lines over a span of time: average, percentile, gaps; rotated and compressed files included."""

from __future__ import annotations

import math
import os
import re
import typing as t
from array import array
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .judge import from_limit, human_seconds, limits
from .log_lines import Clock, LineReader, find_files, json_record, strip_compression
from .record import Finding, Metric

DAY = 86400.0
_KEPT = 200_000
# What rotation appends to or puts into a name: numbers, dates, the suffix of a compression.
_ROTATED = r"(?:[-._]?\d[\d\-_.T]*)?"

Declared = t.Mapping[str, t.Any]


@dataclass
class Samples:
    """Numbers with their times, in bounded memory: beyond a limit every second one is dropped, the sum stays exact."""

    count: int = 0
    total: float = 0.0
    highest: float = -math.inf
    times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))
    step: int = 1

    def add(self, time: float, value: float) -> None:
        """Take one number in."""
        if self.count % self.step == 0:
            self.times.append(time)
            self.values.append(value)
            if len(self.times) > _KEPT:
                self.times, self.values, self.step = self.times[::2], self.values[::2], self.step * 2
        self.count += 1
        self.total += value
        self.highest = max(self.highest, value)

    def percentile(self, share: float) -> float:
        """Return the smallest kept number that at least ``share`` of all do not exceed."""
        ordered = sorted(self.values)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

    def gaps(self, interval: float, start: float, end: float) -> list[tuple[float, float]]:
        """Return from when to when no number came for more than three intervals, the longest first."""
        allowed = 3 * interval * self.step
        points = [start, *sorted(self.times), end]
        found = [(left, right) for left, right in zip(points, points[1:]) if right - left > allowed]
        return sorted(found, key=lambda gap: gap[0] - gap[1])


@dataclass
class Read:
    """What reading the files of a series came to."""

    samples: Samples = field(default_factory=Samples)
    files: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    bad_lines: int = 0
    without_field: int = 0


def with_rotated(patterns: t.Sequence[str]) -> list[str]:
    """Return patterns that also find what rotation made of the files."""
    wider = []
    for pattern in patterns:
        stem, suffix = os.path.splitext(strip_compression(pattern))
        wider += [pattern, f"{stem}*{suffix}*"]
    return wider


def is_sibling(path: str, patterns: t.Sequence[str]) -> bool:
    """Whether a file is what a pattern names, or what rotation made of that."""
    name = strip_compression(os.path.basename(path))
    for pattern in patterns:
        stem, suffix = os.path.splitext(strip_compression(os.path.basename(pattern)))
        wild = (re.escape(part).replace(r"\*", ".*").replace(r"\?", ".") for part in (stem, suffix))
        if re.fullmatch(_ROTATED.join(wild) + _ROTATED, name):
            return True
    return False


def read_series(declared: Declared, now: float, clock: Clock) -> Read:
    """Read the numbers of the declared span; a file that ended before it is not opened."""
    result, start = Read(), now - declared["span_days"] * DAY
    found = find_files(with_rotated(declared["paths"]), f"paths of series {declared['name']}")
    result.problems += found.problems
    names = set(found.files)
    for path in found.files:
        plain = strip_compression(path)
        if not is_sibling(path, declared["paths"]) or (plain != path and plain in names):
            continue  # of a file that is there compressed and plain, the plain one is complete
        if os.lstat(path).st_mtime >= start:
            result.files.append(path)
            _read_file(path, declared["field"].split("."), start, now, clock, result)
    return result


def _read_file(path: str, keys: t.Sequence[str], start: float, now: float, clock: Clock, result: Read) -> None:
    reader = LineReader(path)
    for line in reader.lines():
        if not line.strip():
            continue
        record = json_record(line)
        time = clock.of_record(record) if record is not None else None
        if record is None or time is None:
            result.bad_lines += 1
        elif start <= time <= now + 300:
            value = number_in(record, keys)
            if value is None:
                result.without_field += 1
            else:
                result.samples.add(time, value)
    if reader.problem:
        result.problems.append(f"{path}: {reader.problem}")


def number_in(record: t.Any, keys: t.Sequence[str]) -> float | None:
    """Follow keys into a record; None where there is no finite number."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    if isinstance(record, bool) or not isinstance(record, (int, float)):
        return None
    return float(record) if math.isfinite(record) else None


def judge_series(declared: Declared, read: Read, now: float) -> tuple[list[Finding], list[Metric]]:
    """Judge one series: its average and 95th percentile, then how complete it is."""
    name, samples = declared["name"], read.samples
    if not samples.count:
        return [_no_data(declared, read)], []
    average, p95 = samples.total / samples.count, samples.percentile(0.95)
    state = from_limit(average, declared["warning"], declared["critical"])
    unit = declared["unit"]
    not_covered = "; ".join(read.problems[:3])
    if read.bad_lines:
        not_covered = "; ".join(filter(None, [not_covered, f"{read.bad_lines} lines without time or JSON"]))
    findings = [
        Finding(
            id="performance.series",
            state=state,
            subject=name,
            summary=f"average {average:.1f}, 95 percent of samples up to {p95:.1f}, highest {samples.highest:.1f} {unit} "
            f"({samples.count} samples in {declared['span_days']:g} days)",
            value=round(average, 2),
            unit=unit,
            threshold=limits(unit, declared["warning"], declared["critical"]),
            basis="sampled" if samples.step > 1 else "exact",
            not_covered=not_covered,
            advice="" if state == "ok" else "Look what used it at the highest values, and plan capacity if it stays.",
            evidence=read.files[:10],
        )
    ]
    findings += _gaps(declared, read, now)
    label = (re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or "series").removesuffix("_average")
    numbers = {"average": average, "p95": p95, "maximum": samples.highest}
    metrics = [Metric(f"performance.{label}_{part}", name, round(value, 3), unit) for part, value in numbers.items()]
    return findings, [*metrics, Metric(f"performance.{label}_samples", name, samples.count, "count")]


def _no_data(declared: Declared, read: Read) -> Finding:
    said = "no file was found" if not read.files else f"{len(read.files)} files hold no sample of {declared['field']}"
    return Finding(
        id="performance.series",
        state="unknown",
        subject=declared["name"],
        summary=f"no data in the last {declared['span_days']:g} days: {said}",
        advice="Look whether the monitor that writes it still runs, and whether paths and field are right.",
        not_covered="; ".join(read.problems[:3]),
        evidence=read.files[:10] or list(declared["paths"])[:10],
    )


def _gaps(declared: Declared, read: Read, now: float) -> list[Finding]:
    interval = declared["expected_interval_seconds"]
    if not interval:
        return []
    span = declared["span_days"] * DAY
    gaps = read.samples.gaps(interval, now - span, now)
    covered = 100 * min(read.samples.count * interval / span, 1.0)
    text = f"{covered:.0f} percent of the expected samples"
    if gaps:
        text += f", {len(gaps)} gaps, the longest {human_seconds(gaps[0][1] - gaps[0][0])}"
    return [
        Finding(
            id="performance.coverage",
            state="warning" if gaps else "ok",
            subject=declared["name"],
            summary=text,
            value=round(covered, 1),
            unit="percent",
            threshold=f"warning from a gap of {human_seconds(3 * interval)}",
            advice="Look why the monitor did not write then; averages leave these times out." if gaps else "",
            evidence=[f"{_stamp(left)} to {_stamp(right)}" for left, right in gaps[:10]],
        )
    ]


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")
