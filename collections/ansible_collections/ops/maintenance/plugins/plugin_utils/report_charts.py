# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Charts of metrics over the runs, as inline SVG that needs no script and follows the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from . import report_values as v
from .report_model import Point, Series

_TOP, _BOTTOM, _LEFT, _RIGHT = 8.0, 92.0, 54.0, 298.0
MAXIMUM_LINES = 6


@dataclass(frozen=True)
class Line:
    """A line of a chart: whose it is, its newest value and how it moved."""

    label: str
    now: str
    change: str


@dataclass(frozen=True)
class Chart:
    """One metric of one subject."""

    title: str
    about: str
    svg: Markup
    lines: list[Line]


def charts(all_series: Sequence[Series], several_systems: bool) -> list[Chart]:
    """Return a chart for each metric and subject, those over several runs first, the most moved on top."""
    grouped: dict[tuple[str, str, str, str], list[Series]] = {}
    for series in all_series:
        grouped.setdefault((series.system, series.name, series.unit, series.subject), []).append(series)
    ranked = sorted(grouped.values(), key=lambda group: (-_runs(group), -_moved(group)))
    return [_chart(group, several_systems) for group in ranked]


def _runs(group: list[Series]) -> int:
    return min(2, max(len(series.points) for series in group))


def _moved(group: list[Series]) -> float:
    return max(abs(_relative(series)) for series in group)


def _relative(series: Series) -> float:
    first, last = series.points[0].mean, series.points[-1].mean
    return (last - first) / abs(first) if first else float(last != 0)


def _chart(group: list[Series], several_systems: bool) -> Chart:
    # the highest first; what does not fit in stays in the JSON report
    highest = sorted(group, key=lambda series: -series.points[-1].mean)[:MAXIMUM_LINES]
    group = sorted(highest, key=lambda series: series.host)  # so that a host has one colour in all charts
    first = group[0]
    about = [first.system if several_systems else "", first.subject]
    if not first.host:
        about.append(f"mean and span of {v.plural(first.points[-1].count, 'value')}")
    about.append(v.plural(max(len(series.points) for series in group), "run"))
    lines = [_line(series) for series in group]
    title = first.name.removesuffix(f"_{first.unit}").replace("_", " ")
    return Chart(title, " · ".join(part for part in about if part), _svg(group, title, lines), lines)


def _line(series: Series) -> Line:
    last = series.points[-1]
    label = series.host or f"{v.amount(last.low, series.unit)} to {v.amount(last.high, series.unit)}"
    change = ""
    if len(series.points) > 1 and series.points[0].mean:
        change = f"{_relative(series):+.0%}"
    return Line(label, v.amount(last.mean, series.unit), change)


def _svg(group: list[Series], title: str, lines: list[Line]) -> Markup:
    times = sorted({(p.time, p.run_id) for series in group for p in series.points})
    place = {time: _LEFT + (_RIGHT - _LEFT) * (index / (len(times) - 1) if len(times) > 1 else 0.5) for index, time in enumerate(times)}
    low = min(p.low for series in group for p in series.points)
    high = max(p.high for series in group for p in series.points)
    unit = group[0].unit
    said = f"{title} over {v.plural(len(times), 'run')}: " + "; ".join(
        f"{line.label} now {line.now} {line.change}".strip() for line in lines
    )
    parts = [_band(series, place, low, high) for series in group if not series.host]
    parts += [_path(series, index, place, low, high) for index, series in enumerate(group)]
    dates = [time[0][:10] for time in (times[0], times[-1])]
    axis = Markup(
        '<path class="axis" d="M54 92H298M54 8H298"/><text x="54" y="104">{}</text><text x="298" y="104" text-anchor="end">{}</text>'
    )
    axis = axis.format(dates[0] if len(times) > 1 else "", dates[-1])
    scale = Markup('<text x="49" y="11" text-anchor="end">{}</text><text x="49" y="95" text-anchor="end">{}</text>')
    scale = scale.format(v.amount(high, unit), v.amount(low, unit) if high > low else "")
    return Markup('<svg viewBox="0 0 300 106" role="img" aria-label="{}">{}{}{}</svg>').format(said, axis, Markup("").join(parts), scale)


def _y(value: float, low: float, high: float) -> float:
    return (_TOP + _BOTTOM) / 2 if high <= low else _BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP)


def _path(series: Series, index: int, place: dict[tuple[str, str], float], low: float, high: float) -> Markup:
    spots = [(place[(p.time, p.run_id)], _y(p.mean, low, high)) for p in series.points]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    x, y = spots[-1]
    return Markup('<path class="series s{0}" d="{1}"/><circle class="series s{0}" cx="{2:.1f}" cy="{3:.1f}" r="2.5"/>').format(
        index, line, x, y
    )


def _band(series: Series, place: dict[tuple[str, str], float], low: float, high: float) -> Markup:
    def edge(points: Sequence[Point], name: str) -> list[str]:
        return [f"{place[(p.time, p.run_id)]:.1f} {_y(getattr(p, name), low, high):.1f}" for p in points]

    outline = "L".join([*edge(series.points, "high"), *edge(series.points[::-1], "low")])
    return Markup('<path class="band" d="M{}Z"/>').format(outline)
