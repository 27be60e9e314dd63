# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count access log lines by the block: one regular expression takes all lines apart, and columns are counted by C code."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter

from .log_access import TAG_OF_STATUS, ZONE, in_zone, level_of_status
from .log_hours import Hours
from .log_line_counter import LineCounter


class AccessBlocks:
    """The fast way through an access log."""

    def __init__(self, counter: LineCounter) -> None:
        self._counter = counter
        self._hours = Hours(counter, 14)

    def take(self, block: bytes) -> bytes:
        """Count the lines of a block, and return those that it could not answer for."""
        if b"\\" in block or b"\r" in block or self._counter.proxies:
            return block
        found = ZONE.search(block)
        if found is None:
            return block
        zone = found.group(1)
        combined, any_access = in_zone(zone)
        lines = block.count(b"\n")
        rows = combined.findall(block)
        if len(rows) != lines:
            rows = any_access.findall(block)
        rest = b"" if len(rows) == lines else any_access.sub(b"", block)
        if not rows:
            return rest
        return rest if self._count(rows, zone) else block

    def _count(self, rows: list[tuple[bytes, ...]], zone: bytes) -> bool:
        counter, tally = self._counter, self._counter.tally
        stamps = list(map(itemgetter(1), rows))
        hours = self._hours.of(stamps, zone)
        if hours is None:
            return False
        tally.lines += len(rows)
        tally.parsed += len(rows)
        if not hours:
            tally.outside += len(rows)
            return True
        tally.addresses.update(map(itemgetter(0), rows))
        statuses = list(map(itemgetter(3), rows))
        counts = Counter(statuses)
        for status, count in counts.items():
            tally.statuses[status] += count
        self._hours.count(hours, stamps, statuses, counts, level_of_status)
        if len(rows[0]) > 4:
            for tail, count in Counter(map(itemgetter(4), rows)).items():
                counter.latency(tail, count)
        bad = {status for status in counts if status in TAG_OF_STATUS or status[:1] == b"5"}
        if bad:
            for row in rows:
                if row[3] in bad:
                    counter.request(row[0], row[2], row[3])
        return True
