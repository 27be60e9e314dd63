# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a report gets its lines from: a journal file, the runs before it, and the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError

from . import report_values as v
from .journal import Journal, journals, read_journal
from .report_compare import looks_missing
from .report_lines import OWN_OPERATIONS, Line, Lines, sort_lines
from .report_metrics import DETAIL_HOSTS, points_of
from .report_model import Point
from .store import Store

HISTORY_DAYS = 371
"""A year of weeks, and the run of a year ago."""
_LOOK_BACK = 12
OWN_CADENCES = ("report", "sign", "announce", "extend", "evidence")
"""Runs that only write or tell about other runs."""
Load = Callable[[set[str], set[str]], list[Line]]
"""Loads the lines of a run: those of some hosts and operations, or more; of all where a set is empty."""


@dataclass
class Source:
    """What a report is made of."""

    lines: list[Line]
    chain_fault: str | None = None
    earlier: list[list[Line]] = field(default_factory=list)
    history: list[Point] = field(default_factory=list)
    warning: str = ""


def from_journal(path: str, store_url: str = "") -> Source:
    """Read a run from its journal; what came before from the store, or from the journals beside it.

    A store that does not answer costs only the history, and the report says so.
    """
    journal = read_journal(path)
    source = Source(list(journal.lines), _chain_fault(journal))
    now = sort_lines(source.lines)
    if store_url:
        try:
            with Store(store_url) as store:
                source.earlier, source.history = _past_of(store, now)
            return source
        except MaintenanceError as error:
            source.warning = str(error)
    source.earlier = _compared(now, _earlier_journals(Path(path), now))
    if source.earlier:
        source.history = points_of(sort_lines(source.earlier[0]), _is_detailed(now))
    return source


def from_store(run_id: str, store_url: str) -> Source:
    """Read a run from the store, for which there is no journal on this machine."""
    with Store(store_url) as store:
        lines = store.lines_of(run_id)
        if not lines:
            known = ", ".join(run["run_id"] for run in store.runs(limit=3)[::-1]) or "none"
            raise MaintenanceError(f"The store {store.name} has no run {run_id!r}; the newest it has: {known}.")
        earlier, history = _past_of(store, sort_lines(lines))
    return Source(lines, _fault_of_lines(lines), earlier, history)


def _chain_fault(journal: Journal) -> str:
    if journal.broken_at:
        return f"Line {journal.broken_at} does not fit: {journal.broken_why}."
    return ""


def _fault_of_lines(lines: list[Line]) -> str | None:
    """Check the chain of lines from the store by their sequence; their bytes are in the journal only."""
    for earlier, later in pairwise(lines):
        if later.get("previous") != earlier.get("hash"):
            return f"Line {v.text(later.get('seq'))} does not follow the line before it."
    return None


def hosts_of(now: Lines) -> set[str]:
    """Return the hosts of a run."""
    found = {v.text(r.get("host")) for r in now.records if r.get("operation") not in OWN_OPERATIONS}
    return set(now.system_of) | {host for host in found if host}


def _is_detailed(now: Lines) -> bool:
    return len(hosts_of(now)) <= DETAIL_HOSTS


def _past_of(store: Store, now: Lines) -> tuple[list[list[Line]], list[Point]]:
    started, cadence = v.iso(now.run.get("started")), v.text(now.run.get("cadence"))
    return _compared(now, _earlier_runs(store, started, cadence)), _history(store, now, started, cadence)


def _compared(now: Lines, candidates: Iterator[Load]) -> list[list[Line]]:
    """Return the earlier runs that looked at what this run looked at: as few as it takes.

    Runs of the same cadence come first, because a cadence demands its own level of proof.
    """
    found: list[list[Line]] = []
    missing = looks_missing(now, [])
    for load in candidates:
        if not missing:
            break
        lines = load({look[1] for look in missing}, {look[2] for look in missing} if found else set())
        run = sort_lines(lines)
        if missing & run.looked:
            found.append(lines)
            missing -= run.looked
    return found


def _earlier_runs(store: Store, before: str, cadence: str) -> Iterator[Load]:
    """Yield how to load the real runs that the store has from before a time: those of the cadence, then the others, newest first."""
    for same in (True, False):
        runs = store.runs(until=before, cadence=cadence if same else "", limit=_LOOK_BACK * (1 if same else 3))[::-1] if before else []
        for run in runs:
            if not run["check_mode"] and (same or run["cadence"] not in (cadence, *OWN_CADENCES)):
                yield partial(store.lines_of, run["run_id"])


def _history(store: Store, now: Lines, started: str, cadence: str) -> list[Point]:
    begun = v.moment(started)
    if begun is None:
        return []
    span = {"since": (begun - timedelta(days=HISTORY_DAYS)).isoformat(), "until": started, "cadence": cadence}
    current = points_of(now, detail=False)
    if _is_detailed(now):
        return [_exact(row, p.name) for p in _once(current) for row in store.history(p.name, system=p.system, **span)]
    found = []
    for system in dict.fromkeys(point.system for point in current):
        names = sorted({point.name for point in current if point.system == system})
        found += [_summed(row, system) for row in store.trends(names=names, system=system, **span)]
    return found


def _once(points: list[Point]) -> Iterator[Point]:
    yield from {(point.system, point.name): point for point in points}.values()


def _exact(row: Line, name: str) -> Point:
    value = row["value"]
    return Point(row["system"], name, row["unit"], row["host"], row["subject"], row["run_id"], v.iso(row["time"]), value, value, value, 1)


def _summed(row: Line, system: str) -> Point:
    time = v.iso(row["time"])
    return Point(system, row["name"], row["unit"], "", "", row["run_id"], time, row["low"], row["mean"], row["high"], row["points"])


def _earlier_journals(path: Path, now: Lines) -> Iterator[Load]:
    """Yield how to load earlier runs from the journals in the same folder: those of the cadence, then the others, newest first."""
    started, cadence = v.moment(now.run.get("started")), now.run.get("cadence")
    others: list[Path] = []
    count = 0
    for other in journals(str(path.parent)):
        first = first_line(other)
        begun = v.moment(first.get("started"))
        if other == path or first.get("check_mode") is True or begun is None or started is None or begun >= started:
            continue
        if first.get("cadence") != cadence:
            others += [other] if first.get("cadence") not in (None, *OWN_CADENCES) else []
        elif count < _LOOK_BACK:
            count += 1
            yield partial(_lines_of_journal, other)
    yield from (partial(_lines_of_journal, other) for other in others[:_LOOK_BACK])


def _lines_of_journal(path: Path, _hosts: set[str], _operations: set[str]) -> list[Line]:
    return list(read_journal(str(path)).lines)


def first_line(path: Path) -> dict[str, Any]:
    """Return the first line of a journal, empty when it cannot be read."""
    try:
        with path.open("rb") as source:
            value = json.loads(source.readline(1024 * 1024))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
