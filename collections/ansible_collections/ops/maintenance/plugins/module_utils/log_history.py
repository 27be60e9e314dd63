# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier looks at a source found, kept on the host: error patterns, and counts by day to compare weekdays with."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

from .log_scan import Scanned
from .log_tally import TEMPLATES_LIMIT
from .record import Json

KEPT_DAYS = 100
LEAST_LOOKS = 3
"""So many earlier looks on the same weekday are needed for a comparison."""

_LEAST_DIFFERENCE = 20
_MEASURES = ("records", "errors", "auth_failures", "server_errors")


@dataclass(frozen=True)
class Look:
    """When and how far back this run looks, and whether it adds to what the day's earlier runs have read."""

    started: datetime
    hours: float
    adds_up: bool

    @property
    def day(self) -> str:
        """Return the date that history is kept by."""
        return self.started.strftime("%Y-%m-%d")


class Compared(t.NamedTuple):
    """Counts that are far from usual, in words, and how many looks they were compared with."""

    unusual: list[str]
    looks: int


def counts_of(one: Scanned) -> dict[str, int]:
    """Return the numbers of a source that history keeps."""
    tally = one.tally
    failed = sum(count for status, count in tally.statuses.items() if status[:1] == b"5")
    return dict(zip(_MEASURES, (tally.records, tally.errors(), tally.tags["auth_failures"], failed)))


def recent(history: Json, look: Look) -> dict[str, Json]:
    """Return what is not too old in a history."""
    oldest = look.started - timedelta(days=KEPT_DAYS)
    return {
        "finished": history.get("finished", ""),
        "patterns": {text: seen for text, seen in history.get("patterns", {}).items() if seen[1] >= oldest.isoformat()},
        "days": {day: entry for day, entry in history.get("days", {}).items() if day >= oldest.strftime("%Y-%m-%d")},
    }


def compare(one: Scanned, history: Json, look: Look, factor: float) -> Compared:
    """Compare the counts of a source with those of earlier looks on the same weekday that went about as far back."""
    days = [
        entry
        for day, entry in recent(history, look)["days"].items()
        if day != look.day
        and datetime.strptime(day, "%Y-%m-%d").weekday() == look.started.weekday()
        and 0.75 * look.hours <= entry["hours"] <= look.hours / 0.75
    ]
    unusual = []
    if len(days) >= LEAST_LOOKS:
        for name, count in counts_of(one).items():
            usual = _median([entry[name] / entry["hours"] for entry in days]) * look.hours
            more = count >= factor * usual and count - usual >= _LEAST_DIFFERENCE
            fewer = name == "records" and count * factor <= usual and usual - count >= _LEAST_DIFFERENCE
            if more or fewer:
                unusual.append(f"{count} {name.replace('_', ' ')}, usually {usual:.0f}")
    return Compared(unusual, len(days))


def _median(values: list[float]) -> float:
    """Return the median; the module statistics would take longer to load than a small log takes to read."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def patterns_against(one: Scanned, history: Json, look: Look) -> tuple[list[str], list[str]]:
    """Return the error patterns that no kept look had, and those that the previous look had and this one has not."""
    kept = recent(history, look)
    now = set(one.tally.templates)
    gone = (text for text, seen in kept["patterns"].items() if seen[1] == kept["finished"] and text not in now)
    return sorted(now - set(kept["patterns"])), sorted(gone)


def learn(one: Scanned, history: Json, look: Look) -> dict[str, Json]:
    """Add what a source holds now to its history, and drop what is too old."""
    finished = look.started.isoformat()
    kept = recent(history, look)
    patterns, days = kept["patterns"], kept["days"]
    for text in one.tally.templates:
        patterns[text] = [patterns.get(text, [finished])[0], finished]
    newest = sorted(patterns, key=lambda text: (patterns[text][1], text), reverse=True)
    today = {"hours": look.hours, **counts_of(one)}
    if look.adds_up and look.day in days:
        today = {name: days[look.day][name] + value for name, value in today.items()}
    return {
        "finished": finished,
        "patterns": {text: patterns[text] for text in newest[: TEMPLATES_LIMIT + 1]},
        "days": {**days, look.day: today},
    }
