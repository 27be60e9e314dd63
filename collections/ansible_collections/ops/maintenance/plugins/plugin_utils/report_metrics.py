# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of a report: metrics over the runs, the few that every report names, and how long steps took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from statistics import median

from . import report_values as v
from .report_lines import OWN_OPERATIONS, Line, Lines
from .report_model import KeyMetric, Point, Series, Step

DETAIL_HOSTS = 6
"""Up to this many hosts a metric is followed per host; above it, as span and mean of all."""

Key = tuple[str, str, str, str, str]

KEY_METRICS = (
    ("Database size", ("database.size", "database.size_bytes", "sqlite.size*"), "sum"),
    ("Average CPU usage", ("performance.cpu*average", "performance.cpu_mean", "performance.cpu_percent", "performance.cpu_now"), "mean"),
    (
        "Average memory usage",
        ("performance.memory*average", "performance.memory_mean", "performance.memory_percent", "performance.memory_now"),
        "mean",
    ),
    ("Error count", ("logs.errors", "logs.errors_in_span"), "sum"),
)
"""Title, names in order of preference, and how several hosts or subjects are put together."""


def points_of(lines: Lines, detail: bool) -> list[Point]:
    """Return the metrics of one run, each host's own or summed up over hosts and subjects."""
    groups: dict[Key, list[float]] = defaultdict(list)
    for record in lines.records:
        system, host = lines.system(record), v.text(record.get("host")) if detail else ""
        for metric in v.mappings(record.get("metrics")):
            value = v.number(metric.get("value"))
            if value is not None:
                name, unit, subject = (v.text(metric.get(part)) for part in ("name", "unit", "subject"))
                groups[(system, name, unit, host, subject if detail else "")].append(value)
    run_id, time = v.text(lines.run.get("run_id")), v.iso(lines.run.get("started"))
    return [_point(key, values, run_id, time) for key, values in groups.items()]


def _point(key: Key, values: list[float], run_id: str, time: str) -> Point:
    used = values[-1:] if key[3] else values  # of one host: measured again later in the run, the last counts
    return Point(*key, run_id, time, min(used), sum(used) / len(used), max(used), len(used))


def series(history: Iterable[Point], now: Sequence[Point]) -> list[Series]:
    """Join earlier points with those of this run, oldest first; only metrics that this run still has."""
    wanted = {_key(point) for point in now}
    current = {point.run_id for point in now}
    found: dict[Key, list[Point]] = defaultdict(list)
    for point in [*(p for p in history if p.run_id not in current), *now]:
        if _key(point) in wanted:
            found[_key(point)].append(point)
    return [Series(*key, sorted(points, key=lambda p: (p.time, p.run_id))) for key, points in sorted(found.items())]


def _key(point: Point) -> Key:
    return (point.system, point.name, point.unit, point.host, point.subject)


def key_metrics(all_series: list[Series], run_id: str) -> list[KeyMetric]:
    """Return the metrics that the report template names; one that nothing measured says so."""
    return [_key_metric(title, patterns, how, all_series, run_id) for title, patterns, how in KEY_METRICS]


def _key_metric(title: str, patterns: Sequence[str], how: str, all_series: list[Series], run_id: str) -> KeyMetric:
    for pattern in patterns:
        chosen = [s for s in all_series if fnmatchcase(s.name, pattern) and s.points[-1].run_id == run_id]
        if chosen:
            unit = chosen[0].unit
            chosen = [s for s in chosen if s.unit == unit]
            before = [s.points[-2] for s in chosen if len(s.points) > 1]
            source = ", ".join(sorted({s.name for s in chosen}))
            return KeyMetric(title, _together([s.points[-1] for s in chosen], how, unit), _together(before, how, unit), source)
    return KeyMetric(title, "not measured", "", "")


def _together(points: list[Point], how: str, unit: str) -> str:
    if not points:
        return ""
    total, count = sum(p.mean * p.count for p in points), sum(p.count for p in points)
    return v.amount(total if how == "sum" else total / count, unit)


def steps(lines: Lines) -> list[Step]:
    """Return how long each role took on its slowest and on its middle host, against its budget."""
    spent: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in lines.steps:
        _spend(spent, lines, line, line.get("finished"))
    for block in _blocks(lines):
        _spend(spent, lines, block[0], block[-1].get("finished"))
    return [_step(system, role, hosts, lines) for (system, role), hosts in spent.items()]


def _spend(spent: dict[tuple[str, str], dict[str, float]], lines: Lines, first: Line, finished: object) -> None:
    role = v.text(first.get("role")) or v.text(first.get("operation"))
    spent[(lines.system(first), role)][v.text(first.get("host"))] += v.seconds_between(first.get("started"), finished) or 0.0


def _blocks(lines: Lines) -> Iterable[list[Line]]:
    """Yield records of one role that follow each other on a host and have no step of their own: the run ended before that."""
    for records in lines.unfinished.values():
        block: list[Line] = []
        for record in records:
            if record.get("operation") in OWN_OPERATIONS or not (v.moment(record.get("started")) and v.moment(record.get("finished"))):
                continue
            if block and record.get("role") != block[-1].get("role"):
                yield block
                block = []
            block.append(record)
        if block:
            yield block


def _step(system: str, role: str, hosts: dict[str, float], lines: Lines) -> Step:
    longest_host = max(hosts, key=lambda host: hosts[host])
    longest = hosts[longest_host]
    budgets = v.mapping(v.mapping(lines.plans.get(system)).get("budgets"))
    budget = v.number(budgets.get(role, budgets.get(role.rpartition(".")[2])))
    state = "" if budget is None else "over" if longest > budget else "within"
    return Step(system, role.rpartition(".")[2], len(hosts), longest, longest_host, median(hosts.values()), budget, state)
