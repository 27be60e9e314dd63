# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of log retention: what is to happen to the logs of one root, and when."""

from __future__ import annotations

import fnmatch
import os
import re
import typing as t
from dataclasses import dataclass
from datetime import tzinfo

from .errors import InputError, refusal, refuse
from .log_files import without_number
from .log_lines import strip_compression, zone_of
from .record import clean

STEPS = ("compress", "archive", "delete")
MONTH_FOLDER = re.compile(r"20\d\d(?:0[1-9]|1[0-2])$")


@dataclass(frozen=True)
class Rule:
    """What is to happen to the logs of one root."""

    root: str
    patterns: tuple[str, ...]
    compress_after: float | None
    archive_to: str | None
    archive_after: float | None
    delete_after: float | None
    compression: str
    zone: tzinfo
    hold: tuple[str, ...] = ()

    def is_held(self, relative: str) -> bool:
        """Say whether a file stays as it is whatever its age, compressed or archived before or not."""
        plain = strip_compression(relative)
        month, _slash, below = plain.partition("/")
        names = [relative, plain, *([below] if MONTH_FOLDER.match(month) else [])]
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.hold)

    def matches(self, relative: str) -> bool:
        """Say whether the rule means a file, compressed or not, numbered by us or not."""
        name = strip_compression(os.path.basename(relative))
        names = (name, without_number(name))
        return any(fnmatch.fnmatchcase(candidate, pattern) for candidate in names for pattern in self.patterns)


def parse_rules(given: t.Sequence[t.Mapping[str, t.Any]]) -> list[Rule]:
    """Check the rules, all of them before anything is done.

    :raises InputError: with a sentence for each problem.
    """
    refuse(input_problems({"rules": given}))
    return [
        Rule(
            os.path.normpath(entry["root"]),
            tuple(entry["pattern"]),
            entry["compress_after_days"],
            os.path.normpath(entry["archive_to"]) if entry["archive_to"] else None,
            entry["archive_after_days"],
            entry["delete_after_days"],
            entry["compression"],
            zone_of(entry["timezone"], "rules[].timezone"),
            tuple(entry.get("hold") or ()),
        )
        for entry in given
    ]


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    return [problem for entry in params["rules"] for problem in _faults(entry)]


def _faults(entry: t.Mapping[str, t.Any]) -> list[str]:
    where = f"The rule for {clean(str(entry['root']))}"
    ages = {name: entry[f"{name}_after_days"] for name in STEPS}
    faults = [
        f"{where} has {name}_after_days {age:g}, expected a positive number; correct it."
        for name, age in ages.items()
        if age is not None and not 0 < age < 100_000
    ]
    order = [(name, age) for name, age in ages.items() if age is not None]
    faults += [
        f"{where} has {first}_after_days {a:g} but {second}_after_days {b:g}, expected them in rising order; correct them."
        for (first, a), (second, b) in zip(order, order[1:])
        if a > b
    ]
    if not order:
        faults.append(f"{where} names no age, expected at least one of compress, archive, delete_after_days; add one.")
    if bool(entry["archive_to"]) != (ages["archive"] is not None):
        faults.append(f"{where} needs archive_to and archive_after_days together; give both or none.")
    patterns = entry["pattern"]
    if not patterns or any("/" in pattern or not pattern.strip("*?.") for pattern in patterns):
        faults.append(f"{where} has pattern {patterns}, expected file names such as *.jsonl; a bare * is too much.")
    if any(os.path.isabs(pattern) or not pattern for pattern in entry.get("hold") or []):
        faults.append(f"{where} has hold {entry['hold']}, expected paths below the root; write them from there on.")
    faults += refusal(zone_of, entry["timezone"], "rules[].timezone")
    faults += [
        str(InputError.of(f"rules[].{name}", entry[name], "an absolute path", "write it from the root on"))
        for name in ("root", "archive_to")
        if entry[name] and not os.path.isabs(entry[name])
    ]
    root, archive = os.path.normpath(entry["root"]), os.path.normpath(entry["archive_to"] or "/-")
    if root == archive or root.startswith(archive + "/"):
        faults.append(f"{where} archives into {archive}, which holds the logs themselves; name another folder.")
    return faults
