# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a report gets its lines from: a journal file, the runs before it, and the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError

from . import report_values as v
from .journal import Journal, journals, read_journal
from .report_lines import OWN_OPERATIONS, Line, Lines, sort_lines
from .report_metrics import DETAIL_HOSTS, points_of
from .report_model import Point
from .store import Store

HISTORY_DAYS = 371
"""A year of weeks, and the run of a year ago."""
_LOOK_BACK = 3


@dataclass
class Source:
    """What a report is made of."""

    lines: list[Line]
    chain_fault: str | None = None
    previous: list[Line] | None = None
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
                source.previous, source.history = _past_of(store, now)
            return source
        except MaintenanceError as error:
            source.warning = str(error)
    source.previous = _previous_journal(Path(path), now)
    if source.previous is not None:
        source.history = points_of(sort_lines(source.previous), _is_detailed(now))
    return source


def from_store(run_id: str, store_url: str) -> Source:
    """Read a run from the store, for which there is no journal on this machine."""
    with Store(store_url) as store:
        lines = store.lines_of(run_id)
        if not lines:
            known = ", ".join(run["run_id"] for run in store.runs(limit=3)[::-1]) or "none"
            raise MaintenanceError(f"The store {store.name} has no run {run_id!r}; the newest it has: {known}.")
        previous, history = _past_of(store, sort_lines(lines))
    return Source(lines, _fault_of_lines(lines), previous, history)


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


def _past_of(store: Store, now: Lines) -> tuple[list[Line] | None, list[Point]]:
    started, cadence = v.iso(now.run.get("started")), v.text(now.run.get("cadence"))
    return _previous_runs(store, now, started, cadence), _history(store, now, started, cadence)


def _previous_runs(store: Store, now: Lines, before: str, cadence: str) -> list[Line] | None:
    """Return the run before; for hosts that it left out (``--limit``), the one before that."""
    missing, found = hosts_of(now), None
    for _round in range(_LOOK_BACK):
        run = store.previous_run(before, cadence=cadence)
        if run is None or not missing:
            break
        lines = store.lines_of(run["run_id"])
        covered = {v.text(line.get("host")) for line in lines if line.get("findings")} & missing
        if covered:
            found = (found or lines[:1]) + [line for line in lines if v.text(line.get("host")) in covered]
        missing -= covered
        before = run["started"]
    return found


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


def _previous_journal(path: Path, now: Lines) -> list[Line] | None:
    """Return the newest earlier run of the same cadence from the journals in the same folder."""
    started, cadence = v.moment(now.run.get("started")), now.run.get("cadence")
    for other in journals(str(path.parent)):
        first = first_line(other)
        begun = v.moment(first.get("started"))
        if other == path or first.get("cadence") != cadence or first.get("check_mode") is True:
            continue
        if begun is not None and started is not None and begun < started:
            return list(read_journal(str(other)).lines)
    return None


def first_line(path: Path) -> dict[str, Any]:
    """Return the first line of a journal, empty when it cannot be read."""
    try:
        with path.open("rb") as source:
            value = json.loads(source.readline(1024 * 1024))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
