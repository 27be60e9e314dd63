# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was counted in a log, in constant memory; tallies of parts of a log add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .record import clean

ERROR_LEVELS = frozenset(("ERROR", "CRITICAL", "FATAL", "ALERT", "EMERGENCY"))
KEYS_LIMIT = 30_000
TEMPLATES_LIMIT = 2_000
EXAMPLES_LIMIT = 5

_BOUNDED = ("accounts", "auth_addresses", "limited_addresses", "limited_endpoints", "addresses")
_NUMBERS = ("latencies", "temporary_sizes")


@dataclass
class Template:
    """One group of like error texts."""

    count: int
    example: str
    level: str


@dataclass
class Tally:
    """What was counted; tallies of parts of a log add up by :meth:`merge`."""

    lines: int = 0
    parsed: int = 0
    unparsed: int = 0
    continued: int = 0
    outside: int = 0
    cut: int = 0
    latest: float = 0.0
    hours: Counter[tuple[int, str]] = field(default_factory=Counter)
    templates: dict[str, Template] = field(default_factory=dict)
    tags: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    accounts: Counter[bytes] = field(default_factory=Counter)
    auth_addresses: Counter[bytes] = field(default_factory=Counter)
    limited_addresses: Counter[bytes] = field(default_factory=Counter)
    limited_endpoints: Counter[bytes] = field(default_factory=Counter)
    addresses: Counter[bytes] = field(default_factory=Counter)
    statuses: Counter[bytes] = field(default_factory=Counter)
    latencies: Counter[bytes] = field(default_factory=Counter)
    temporary_sizes: Counter[bytes] = field(default_factory=Counter)
    is_database: bool = False
    inexact: dict[str, int] = field(default_factory=dict)
    """Counters that had to forget rare keys, and by how much a count may be too low."""

    @property
    def records(self) -> int:
        """Records inside the span."""
        return self.parsed - self.outside

    def by_level(self) -> Counter[str]:
        """Return the records of the span by level."""
        levels: Counter[str] = Counter()
        for (_hour, level), count in self.hours.items():
            levels[level] += count
        return levels

    def errors(self) -> int:
        """Return how many records of the span are errors or worse."""
        return sum(count for (_hour, level), count in self.hours.items() if level in ERROR_LEVELS)

    def merge(self, other: Tally) -> None:
        """Add what was counted in a later part."""
        for name in ("lines", "parsed", "unparsed", "continued", "outside", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latest = max(self.latest, other.latest)
        self.hours.update(other.hours)
        self.tags.update(other.tags)
        for text, template in other.templates.items():
            self.add_template(text, template.level, template.example, template.count)
        for tag, examples in other.examples.items():
            self.examples[tag] = (self.examples.get(tag, []) + examples)[:EXAMPLES_LIMIT]
        self.is_database = self.is_database or other.is_database
        for name in (*_BOUNDED, *_NUMBERS, "statuses"):
            getattr(self, name).update(getattr(other, name))
        for name, lost in other.inexact.items():
            self.inexact[name] = self.inexact.get(name, 0) + lost
        self.bound()

    def add_template(self, text: str, level: str, example: bytes | str, count: int = 1) -> None:
        """Count an error text in its group; beyond the limit, all further groups share one."""
        known = self.templates.get(text)
        if known is None:
            if len(self.templates) >= TEMPLATES_LIMIT:
                text = "<other>"
                known = self.templates.get(text)
            if known is None:
                shown = example if isinstance(example, str) else clean(example.decode("utf-8", "replace"), 300)
                self.templates[text] = Template(count, shown, level)
                return
        known.count += count

    def bound(self) -> None:
        """Keep memory bounded: forget the rarest keys of a counter that has too many, and say so."""
        for name in _NUMBERS:
            if len(getattr(self, name)) > KEYS_LIMIT:
                setattr(self, name, _rounded(getattr(self, name)))
                self.inexact[name] = 0
        for name in _BOUNDED:
            counter: Counter[bytes] = getattr(self, name)
            if len(counter) > KEYS_LIMIT:
                kept = counter.most_common(KEYS_LIMIT // 2)
                self.inexact[name] = self.inexact.get(name, 0) + kept[-1][1]
                setattr(self, name, Counter(dict(kept)))


def _rounded(numbers: Counter[bytes]) -> Counter[bytes]:
    """Return counted numbers with three digits that count, so that there are never many different ones."""
    fewer: Counter[bytes] = Counter()
    for value, count in numbers.items():
        fewer[b"%.3g" % float(value)] += count
    return fewer
