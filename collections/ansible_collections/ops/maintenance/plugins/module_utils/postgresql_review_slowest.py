# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: the slow statements that took most time since the last run."""

from __future__ import annotations

import typing as t

from .judge import human_seconds, many
from .postgresql import Row
from .postgresql_review_common import READ_ALL_STATS, About, Check, Wording, found
from .postgresql_review_statements import WHY_NOT_COUNTED, fetch_statements, normalised
from .record import Finding

SLOWEST = Wording("postgresql.slowest_statements", "", "", "", "seconds")
LISTED = 20
"""How many statements are listed; of a record's evidence that is all."""
_KEPT = 5000


def _since_last(about: About, shared: Row, database: str) -> tuple[list[Row], str]:
    """Return calls and time of each statement since the last run (else since counting began), and since when that is in words."""
    reset = shared["since"].isoformat() if shared["since"] else ""
    rows = sorted((row for row in shared["totals"] if row["database"] == database), key=lambda row: -row["total_ms"])
    last = about.kept.get("statements", {})
    now = {row["key"]: [row["calls"], row["total_ms"]] for row in rows[:_KEPT]}
    about.keep["statements"] = {"reset": reset, "counted": now}
    if not last or last["reset"] != reset:
        return rows, f"since {shared['since']:%Y-%m-%d}" if shared["since"] else "since counting began"
    return [_later(row, last["counted"].get(row["key"], (0, 0.0))) for row in rows], "since the last run"


def _later(row: Row, before: t.Sequence[float]) -> Row:
    """Return what was counted after the last run; a statement with fewer calls than then was forgotten, and counted anew."""
    calls, total = before if row["calls"] >= before[0] else (0, 0.0)
    return {**row, "calls": row["calls"] - calls, "total_ms": max(row["total_ms"] - total, 0.0)}


def judge_slowest(about: About, facts: Row) -> list[Finding]:
    """List the statements with most time among those that are slow on average; whether any is too slow is another finding."""
    shared = facts["shared"]
    if "totals" not in shared:
        return found(about, SLOWEST, [], unseen=shared["why"], remedy=WHY_NOT_COUNTED)
    rows, since = _since_last(about, shared, facts["database"])
    limit = about.limits["statement_mean_ms"]
    slow = sorted((row for row in rows if row["calls"] and _mean(row) >= limit), key=lambda row: -row["total_ms"])
    about.lists["slowest_statements"] = [_listed(row) for row in slow[:LISTED]]
    seconds = sum(row["total_ms"] for row in slow) / 1000
    words = f"{many(len(slow), 'statement')} took {limit:g} ms or more on average {since}, {human_seconds(seconds)} in all"
    unseen = "" if about.stats else f"statements of other roles, for want of {READ_ALL_STATS}"
    gap = "statements that were forgotten between runs, raise pg_stat_statements.max" if shared.get("lost") else ""
    lines = [f"{row['total_ms'] / 1000:.1f} s = {_mean(row):.1f} ms x {row['calls']} calls: {normalised(row['query'])}" for row in slow]
    return found(about, SLOWEST, [], fine=words, also=lines, value=seconds, unseen=unseen, not_covered=gap, shown=LISTED)


def _mean(row: Row) -> float:
    return float(row["total_ms"] / row["calls"])


def _listed(row: Row) -> Row:
    return {
        "query_id": row["key"].partition("/")[0],
        "query": normalised(row["query"]),
        "calls": row["calls"],
        "mean_ms": round(_mean(row), 3),
        "total_ms": round(row["total_ms"], 3),
    }


# It only lists, so there is nothing that a bad sample could show.
CHECKS = (Check((SLOWEST.id,), fetch_statements, judge_slowest, None),)
