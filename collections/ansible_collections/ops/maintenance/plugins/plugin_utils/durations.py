# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the steps of a cadence may be expected to take on a host: from earlier runs, or else from the time budgets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

RUNS = 5
"""So many runs say what is usual; older ones knew other data."""

Steps = Mapping[str, Sequence[str]]
Expected = dict[str, dict[str, Any]]


def budgets_of(budgets: Any, cadence: str) -> dict[str, float]:
    """Return the seconds of each role in a cadence: its own where the inventory gives some, else those of all cadences."""
    given = budgets if isinstance(budgets, Mapping) else {}
    own = given.get(cadence)
    merged = {**given, **(own if isinstance(own, Mapping) else {})}
    return {str(name): float(value) for name, value in merged.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}


def expected(hosts: Iterable[str], steps: Steps, budgets: Mapping[str, float], rows: Iterable[Mapping[str, Any]]) -> dict[str, Expected]:
    """Return what each step should take on each host: seconds, and what says so.

    :param steps: names of roles by stage.
    :param rows: what earlier runs took, see :meth:`Store.last_durations`. Of offline steps only runs count that had something to do.
    """
    offline = set(steps.get("offline") or ())
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        step = row["role"].rpartition(".")[2]
        if row["changed"] or step not in offline:
            took[row["host"], step].append(row["seconds"])
    names = sorted({name for stage in steps.values() for name in stage or ()})
    return {host: {name: _one(took.get((host, name), []), budgets.get(name)) for name in names} for host in hosts}


def _one(took: Sequence[float], budget: float | None) -> dict[str, Any]:
    if took:
        return {
            "seconds": round(median(took), 1),
            "basis": f"the median of its last {len(took)} runs here" if len(took) > 1 else "its last run here",
        }
    if budget is not None:
        return {"seconds": budget, "basis": "its time budget"}
    return {"seconds": 0.0, "basis": "nothing known of it"}


def from_store(url: str, system: str, cadence: str) -> list[dict[str, Any]]:
    """Read what steps took, in the last runs of the cadence, or of any cadence where it has none.

    :raises MaintenanceError: the store does not answer.
    """
    from .store import Store  # SQLAlchemy takes its time

    with Store(url) as store:
        return store.last_durations(system, cadence=cadence, runs=RUNS) or store.last_durations(system, runs=RUNS)
