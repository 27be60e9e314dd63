# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a file system will be full, from what earlier runs measured."""

from __future__ import annotations

import typing as t

DAY = 86400.0
MINIMUM_POINTS = 3
MINIMUM_SPAN_DAYS = 2.0
_POINTS_KEPT = 60

Point = t.Sequence[float]
"""Time in seconds since the epoch, and bytes used."""


def appended(points: t.Iterable[Point], time: float, used: float) -> list[list[float]]:
    """Add a measurement to a history of bounded length; measurements from the future are dropped."""
    kept = [[float(point[0]), float(point[1])] for point in points if point[0] < time]
    return [*kept, [time, used]][-_POINTS_KEPT:]


def days_until(points: t.Sequence[Point], limit: float) -> float | None:
    """Return in how many days use reaches the limit (least squares line); None when it does not grow.

    :raises ValueError: too few measurements, or over too short a time.
    """
    if len(points) < MINIMUM_POINTS or points[-1][0] - points[0][0] < MINIMUM_SPAN_DAYS * DAY:
        raise ValueError(f"a forecast needs {MINIMUM_POINTS} measurements over {MINIMUM_SPAN_DAYS:g} days")
    origin = points[-1][0]
    days = [(point[0] - origin) / DAY for point in points]
    middle_day, middle_used = sum(days) / len(days), sum(point[1] for point in points) / len(points)
    spread = sum((day - middle_day) ** 2 for day in days)
    slope = sum((day - middle_day) * (point[1] - middle_used) for day, point in zip(days, points)) / spread
    if slope <= 0:
        return None
    return max((limit - points[-1][1]) / slope, 0.0)
