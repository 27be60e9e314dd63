# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count records of a whole block by hour and level."""

from __future__ import annotations

import typing as t
from collections import Counter
from operator import itemgetter

from .log_line_counter import HOUR, LineCounter
from .log_tally import KEYS_LIMIT


class Hours:
    """The hours that time stamps name, as text, and when each began.

    :param width: so many bytes of a time stamp name its hour.
    """

    def __init__(self, counter: LineCounter, width: int) -> None:
        self._counter = counter
        self._width = width
        self._starts: dict[tuple[bytes, bytes], float | None] = {}

    def of(self, stamps: t.Sequence[bytes], zone: bytes) -> dict[bytes, int] | None:
        """Return the start (in UTC) of each hour named in stamps; empty where all are too old, None if it is not clear."""
        counter, width = self._counter, self._width
        low, high = min(stamps), max(stamps)
        names = {low[:width]} if low[:width] == high[:width] else set(map(itemgetter(slice(width)), stamps))
        hours: dict[bytes, int] = {}
        for name in names:
            start = self._start_of(name, zone)
            if start is None or start % HOUR:
                return None
            hours[name] = int(start)
        if len(hours) == 1:
            first, last = (counter.clock.of_text(text + zone) for text in (low, high))
        else:
            first, newest = float(min(hours.values())), max(hours.values())
            names = {name for name in hours if hours[name] == newest}
            last = counter.clock.of_text(max(text for text in stamps if text[:width] in names) + zone)
        if first is None or last is None:
            return None
        if first < counter.since < last + 1 or first < counter.until < last + 1:  # the columns hold no parts of a second
            return None
        if last < counter.until:
            counter.tally.latest = max(counter.tally.latest, last)
        return hours if counter.since <= last < counter.until else {}

    def _start_of(self, hour: bytes, zone: bytes) -> float | None:
        """Return when a named hour began; None where the hour is not a plain one (a change of the clocks)."""
        key = (hour, zone)
        if key not in self._starts:
            if len(self._starts) > KEYS_LIMIT:
                self._starts.clear()
            start, end = (self._counter.clock.of_text(hour + rest + zone) for rest in (b":00:00", b":59:59"))
            self._starts[key] = start if start is not None and end is not None and end - start == HOUR - 1 else None
        return self._starts[key]

    def count(
        self,
        hours: dict[bytes, int],
        stamps: t.Sequence[bytes],
        values: t.Sequence[bytes],
        counts: Counter[bytes],
        level: t.Callable[[bytes], str],
    ) -> None:
        """Count records by hour and by the level of a value, each of which occurs so many times."""
        tally = self._counter.tally
        if len(hours) == 1:
            hour = next(iter(hours.values()))
            for value, count in counts.items():
                tally.hours[hour, level(value)] += count
            return
        names = map(itemgetter(slice(self._width)), stamps)
        for (name, value), count in Counter(zip(names, values)).items():
            tally.hours[hours[name], level(value)] += count
