# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that say how long the rows of a table are kept: what they hold, what is wrong with them, in which order they run."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass, field

from .errors import InputError

RULE: dict[str, t.Any] = {
    "name": {"type": "str", "default": ""},
    "server": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "table": {"type": "str", "required": True},
    "schema": {"type": "str", "default": ""},
    "column": {"type": "str", "required": True},
    "age_days": {"type": "float", "required": True},
    "minimum_age_days": {"type": "float", "default": 7.0},
    "timezone": {"type": "str", "default": "UTC"},
    "null_column_age": {"type": "str", "default": ""},
    "equals": {"type": "dict", "default": {}},
    "archive_table": {"type": "str", "required": True},
    "archive_schema": {"type": "str", "default": ""},
    "create_archive": {"type": "bool", "default": False},
    "batch_rows": {"type": "int", "default": 5000},
    "pause_seconds": {"type": "float", "default": 0.0},
    "minimum_rows_kept": {"type": "int", "default": 0},
    "maximum_share_percent": {"type": "float", "default": 60.0},
    "allow_large_share": {"type": "bool", "default": False},
    "allow_scan": {"type": "bool", "default": False},
    "allow_cascade": {"type": "bool", "default": False},
    "search_path": {"type": "list", "elements": "str", "default": []},
}
"""Argument spec of one rule. There is no default for the age, nor for where rows go: an empty ``archive_table`` is a decision."""

_MOST_DAYS = 36500.0
_MOST_BATCH = 100_000

Named = t.Tuple[str, str]  # noqa: UP006 - evaluated when the module is loaded, on Python 3.9 too


@dataclass(frozen=True)
class Rule:
    """One rule whose values can be used.

    :param table: schema and name; ``archive`` likewise, None to delete for good.
    :param equals: columns that must have these values, as text.
    """

    name: str
    server: str
    database: str
    table: Named
    column: str
    age_days: float
    timezone: str
    null_column: str
    equals: tuple[tuple[str, str], ...]
    archive: Named | None
    options: t.Mapping[str, t.Any] = field(compare=False)

    @property
    def subject(self) -> str:
        """What the rule is called in findings."""
        more = f" ({self.name})" if self.name else ""
        return f"{self.server}/{self.database}: {'.'.join(self.table)}{more}"

    @property
    def operation(self) -> str:
        """``archive`` or ``purge``."""
        return "archive" if self.archive else "purge"

    @property
    def older(self) -> str:
        """Say in words which rows it means."""
        return f"{self.column} more than {self.age_days:g} days ago"


def parse(given: t.Sequence[t.Mapping[str, t.Any]], servers: t.Collection[str]) -> list[Rule]:
    """Check the rules, all of them before anything is done.

    :raises InputError: with a sentence for each problem.
    """
    problems: list[str] = []
    rules: list[Rule] = []
    for entry in given:
        faults = list(_faults(entry, servers))
        problems += faults
        if not faults:
            rules.append(_rule(entry))
    seen: set[tuple[t.Any, ...]] = set()
    for rule in rules:
        key = (rule.server, rule.database, rule.table, rule.equals)
        if key in seen:
            problems.append(f"{rule.subject} has two rules for the same rows; remove one.")
        seen.add(key)
    if problems:
        raise InputError(" ".join(problems))
    return rules


def _rule(entry: t.Mapping[str, t.Any]) -> Rule:
    return Rule(
        entry["name"],
        entry["server"],
        entry["database"],
        _named(entry["table"], entry["schema"]),
        entry["column"],
        entry["age_days"],
        entry["timezone"],
        entry["null_column_age"],
        tuple(sorted((str(name), _text(value)) for name, value in entry["equals"].items())),
        _named(entry["archive_table"], entry["archive_schema"]) if entry["archive_table"] else None,
        entry,
    )


def _named(table: str, schema: str) -> Named:
    """Return schema and name: ``audit.log`` is a table of a schema unless the schema is given on its own."""
    if schema or "." not in table:
        return schema or "public", table
    before, _dot, name = table.partition(".")
    return before, name


def _text(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _faults(entry: t.Mapping[str, t.Any], servers: t.Collection[str]) -> t.Iterator[str]:
    where = f"The rule for table {entry['table']!r}"
    if entry["server"] not in servers:
        yield f"{where} names server {entry['server']!r}, expected one of servers ({', '.join(sorted(servers)) or 'none'}); correct it."
    for option in ("database", "table", "column", "timezone"):
        if not entry[option].strip() or "\0" in entry[option]:
            yield f"{where} has {option} {entry[option]!r}, expected a name; give it one."
    yield from _faulty_names(entry, where)
    yield from _faulty_numbers(entry, where)
    for name, value in entry["equals"].items():
        if not isinstance(value, (str, int, float, bool)) or "\0" in str(value):
            yield f"{where} has equals.{name} of type {type(value).__name__}, expected one text, number or truth value; correct it."


def _faulty_names(entry: t.Mapping[str, t.Any], where: str) -> t.Iterator[str]:
    for option, schema in (("table", "schema"), ("archive_table", "archive_schema")):
        parts = entry[option].split(".")
        if not entry[schema] and entry[option] and (len(parts) > 2 or not all(parts)):
            yield f"{where} has {option} {entry[option]!r}, expected schema.table; name the schema in {schema} where a name has a dot."
    if entry["create_archive"] and not entry["archive_table"]:
        yield f"{where} has create_archive without archive_table; name the archive or remove create_archive."
    if entry["archive_table"] and _named(entry["archive_table"], entry["archive_schema"]) == _named(entry["table"], entry["schema"]):
        yield f"{where} archives into the table itself; name another archive_table."


def _faulty_numbers(entry: t.Mapping[str, t.Any], where: str) -> t.Iterator[str]:
    age, least, share = entry["age_days"], entry["minimum_age_days"], entry["maximum_share_percent"]
    if not 0 <= least <= _MOST_DAYS:
        yield f"{where} has minimum_age_days {least:g}, expected 0 to {_MOST_DAYS:g}; correct it."
    elif not 0 < age <= _MOST_DAYS or age < least:
        yield (
            f"{where} has age_days {age:g}, expected at least minimum_age_days ({least:g}) and at most {_MOST_DAYS:g}; "
            "correct it, or lower minimum_age_days if such young rows really may go."
        )
    if not 0 < share <= 100:
        yield f"{where} has maximum_share_percent {share:g}, expected more than 0 and at most 100; correct it."
    if not 1 <= entry["batch_rows"] <= _MOST_BATCH:
        yield f"{where} has batch_rows {entry['batch_rows']}, expected 1 to {_MOST_BATCH}; correct it."
    if entry["minimum_rows_kept"] < 0:
        yield f"{where} has minimum_rows_kept {entry['minimum_rows_kept']}, expected 0 or more; correct it."
    if not 0 <= entry["pause_seconds"] <= 60:
        yield f"{where} has pause_seconds {entry['pause_seconds']:g}, expected 0 to 60; correct it."


def rows_to_keep(due: int, least: int, share_percent: float) -> int:
    """Return how many rows have to stay in a table from which so many are to go."""
    if not due:
        return 0
    return max(least, math.ceil(due * (100.0 - share_percent) / share_percent - 1e-9))


Key = t.TypeVar("Key", bound=t.Hashable)


def children_first(keys: t.Sequence[Key], refers_to: t.Mapping[Key, t.Collection[Key]]) -> list[Key]:
    """Put what refers to others before what it refers to; otherwise, and in a circle, keep the order given."""
    order: list[Key] = []
    left = list(keys)
    while left:
        free = [key for key in left if not any(other != key and key in refers_to.get(other, ()) for other in left)]
        chosen = free[0] if free else left[0]
        order.append(chosen)
        left.remove(chosen)
    return order
