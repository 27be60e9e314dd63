# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of the PostgreSQL review share: facts are read in one session, judged afterwards without one."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .host import Host
from .judge import from_limit, human_bytes, human_seconds
from .postgresql import Row, Server, Session
from .record import Finding, Json, Metric, worst

DAY = 86400.0
SHOWN = 10
"""How many subjects a finding names, worst first."""

MARK = "/* ops.maintenance */"
"""Stands in our own statements, so that the review does not report itself."""

LIMITS: dict[str, float] = {
    "connections_percent": 80,
    "connections_critical_percent": 95,
    "idle_in_transaction_seconds": 300,
    "idle_in_transaction_critical_seconds": 3600,
    "transaction_seconds": 3600,
    "transaction_critical_seconds": 21600,
    "lock_wait_seconds": 30,
    "lock_wait_critical_seconds": 300,
    "prepared_seconds": 3600,
    "prepared_critical_seconds": 86400,
    "replication_lag_bytes": 134217728,
    "replication_lag_seconds": 300,
    "slot_retained_bytes": 5368709120,
    "archive_lag_seconds": 600,
    "archive_lag_critical_seconds": 3600,
    "wraparound_percent": 40,
    "wraparound_critical_percent": 75,
    "statement_mean_ms": 100,
    "statement_min_calls": 10,
    "error_percent": 0.1,
    "error_min_transactions": 1000,
    "temporary_bytes": 10737418240,
    "deadlocks": 1,
    "dead_rows_percent": 20,
    "dead_rows_min": 1000,
    "bloat_percent": 40,
    "bloat_critical_percent": 80,
    "bloat_min_bytes": 10485760,
    "index_bloat_percent": 50,
    "pgstattuple_tables": 20,
    "analyse_days": 30,
    "analyse_changed_percent": 20,
    "vacuum_lag_hours": 24,
    "freeze_percent": 100,
    "growth_percent": 50,
    "growth_min_bytes": 104857600,
    "unused_index_days": 30,
    "foreign_key_min_rows": 0,
    "missing_index_min_rows": 10000,
    "missing_index_scans": 100,
    "sequence_percent": 75,
    "sequence_critical_percent": 90,
    "role_unused_days": 90,
    "bulk_rows": 10000,
}
"""Where verdicts change unless the inventory says otherwise. The module's documentation says what each of them means."""

READ_ALL_STATS = "pg_read_all_stats (part of pg_monitor)"


@dataclass
class About:
    """What a judge has to know besides the facts.

    :param subject: ``server`` or ``server/database``.
    :param kept: what the last run kept of this subject; empty at the first one.
    :param keep: what the next run is to find.
    :param settings: the server's settings by name, in their own units.
    :param stats: whether the role may read everybody's statistics.
    """

    subject: str
    limits: t.Mapping[str, float] = field(default_factory=lambda: LIMITS)
    params: t.Mapping[str, t.Any] = field(default_factory=dict)
    now: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)
    major: int = 17
    kept: t.Mapping[str, Json] = field(default_factory=dict)
    keep: dict[str, Json] = field(default_factory=dict)
    settings: t.Mapping[str, str] = field(default_factory=dict)
    stats: bool = True
    metrics: list[Metric] = field(default_factory=list)
    lists: dict[str, Json] = field(default_factory=dict)

    def count(self, name: str, value: float, unit: str = "count") -> None:
        """Keep a number for the comparison between runs."""
        self.metrics.append(Metric(f"postgresql.{name}", self.subject, round(float(value), 3), unit))

    def setting(self, name: str, default: float) -> float:
        """Return a numeric setting of the server."""
        try:
            return float(self.settings[name])
        except (KeyError, ValueError):
            return default

    def level(self, value: float, name: str) -> str:
        """Judge a value that is bad when high by the limit ``<name>`` and, where there is one, its critical twin."""
        what, _sep, unit = name.rpartition("_")
        return from_limit(value, self.limits[name], self.limits.get(f"{what}_critical_{unit}"))

    def said(self, name: str) -> str:
        """Say a limit and its critical twin in words."""
        what, _sep, unit = name.rpartition("_")
        limits = (("warning", self.limits[name]), ("critical", self.limits.get(f"{what}_critical_{unit}")))
        return ", ".join(f"{state} from {_amount(limit, unit)}" for state, limit in limits if limit is not None)


def _amount(limit: float, unit: str) -> str:
    if unit == "bytes":
        return human_bytes(limit)
    if unit == "seconds":
        return human_seconds(limit)
    return f"{limit:g} {unit}"


@dataclass
class Look:
    """One session under review, and what checks have read in it so far.

    :param shared: what the sessions of one server share.
    """

    session: Session
    server: Server
    about: About
    host: Host
    database: str = ""
    standby: bool = False
    shared: dict[str, t.Any] = field(default_factory=dict)
    once: dict[str, list[Row]] = field(default_factory=dict)

    def rows(self, statement: str, params: t.Sequence[t.Any] | t.Mapping[str, t.Any] | None = None) -> list[Row]:
        """Run a query, once in each session: checks that ask the same share its rows."""
        key = repr((statement, params))
        if key not in self.once:
            self.once[key] = self.session.rows(MARK + statement, params)
        return self.once[key]

    def many(self, columns: t.Mapping[str, str], source: str, params: t.Sequence[t.Any] | None = None) -> list[Row]:
        """Read thousands of rows of plain types: with each column as one value they cost a fraction of what single ones do.

        :param columns: what each column is, as SQL.
        :param source: what follows FROM.
        """
        values = ", ".join(f"json_agg({value})" for value in columns.values())
        text = self.rows(f"SELECT json_build_array({values})::text AS found FROM {source}", params)[0]["found"]  # noqa: S608 - our own text
        return [dict(zip(columns, row)) for row in zip(*(column or () for column in json.loads(text)))]


@dataclass(frozen=True)
class Check:
    """One question of the review.

    :param ids: every finding that it makes.
    :param fetch: reads the facts.
    :param judge: turns facts into findings, without a session.
    :param sample: bad facts; a judge that finds one of its ``ids`` ok in them is not to be trusted. None where it only shows.
    :param sample_kept: what an earlier run has to have kept for the sample to be bad.
    :param stats: the facts are hidden from a role that may not read everybody's statistics.
    :param primary: a standby does not know them.
    :param declared: whether the inventory asks for it.
    """

    ids: tuple[str, ...]
    fetch: t.Callable[[Look], t.Any]
    judge: t.Callable[[About, t.Any], list[Finding]]
    sample: t.Callable[[], t.Any] | None
    sample_kept: t.Mapping[str, Json] = field(default_factory=dict)
    stats: bool = False
    primary: bool = False
    declared: t.Callable[[t.Mapping[str, t.Any]], bool] = lambda _params: True


def filled(statement: str, **parts: str) -> str:
    """Put parts that are SQL already into a statement."""
    for name, text in parts.items():
        statement = statement.replace("{" + name + "}", text)
    return statement


class Fault(t.NamedTuple):
    """Something that a finding names: what, how bad, the number that it is ordered by."""

    line: str
    value: float = 0
    state: str = "warning"


@dataclass(frozen=True)
class Wording:
    """How a finding speaks.

    :param fine: the summary when nothing is wrong.
    :param wrong: what the faults are: ``<wrong> (3)``.
    :param counted: the value is the number of faults, not the worst of their values.
    """

    id: str
    fine: str
    wrong: str
    advice: str
    unit: str = "count"
    threshold: str = ""
    counted: bool = False
    basis: str = "exact"


def found(
    about: About,
    wording: Wording,
    faults: t.Sequence[Fault],
    *,
    unseen: str = "",
    remedy: str = "",
    value: float | None = None,
    also: t.Sequence[str] = (),
    not_covered: str = "",
    fine: str = "",
    as_of: str = "",
    shown: int = SHOWN,
) -> list[Finding]:
    """Make the one finding of an id and a subject out of all that is wrong with it.

    :param unseen: what could not be looked at: without a fault the finding is ``unknown``.
    :param remedy: what to do so that it can be looked at.
    :param value: the number to show when nothing is wrong.
    :param also: lines to show when nothing is wrong.
    :param as_of: since when the data behind it is; what would be exact is then stale, an estimate stays one.
    :param shown: how many lines at the most.
    """
    order = sorted(faults, key=lambda fault: (fault.state != "critical", fault.state == "unknown", -fault.value, fault.line))
    state = worst((fault.state for fault in faults), none="unknown" if unseen else "ok")
    gaps = "; ".join(filter(None, (unseen, not_covered)))
    worst_value: float | None = value
    if faults:
        summary = f"{wording.wrong} ({len(faults)}): {order[0].line}"
        worst_value = len(faults) if wording.counted else max(fault.value for fault in faults)
        advice = wording.advice
    else:
        summary = unseen or fine or wording.fine
        advice = remedy or "Make it visible to the review's role, then run it again."
        worst_value = len(faults) if wording.counted and value is None and not unseen else value
    lines = [fault.line for fault in order[:shown]] or list(also[:shown])
    if len(order) > shown:
        lines.append(f"and {len(order) - shown} more")
    return [
        Finding(
            wording.id,
            state,
            about.subject,
            summary,
            value=_rounded(worst_value),
            unit=wording.unit if worst_value is not None else "",
            threshold=wording.threshold,
            basis="stale" if as_of and wording.basis == "exact" else wording.basis,
            as_of=as_of,
            not_covered=gaps if faults or not unseen else not_covered or unseen,
            advice=advice if state != "ok" else "",
            evidence=[line[:200] for line in lines],
        )
    ]


def _rounded(value: float | None) -> float | int | None:
    if value is None or float(value).is_integer():
        return None if value is None else int(value)
    return round(float(value), 3)


def blind(ids: t.Iterable[str], subject: str, why: str, advice: str) -> list[Finding]:
    """Say of findings that it was not possible to look."""
    return [Finding(found_id, "unknown", subject, why, advice=advice, not_covered=why) for found_id in ids]


def percent(part: float, whole: float) -> float:
    """Return a share; nothing of nothing is 0."""
    return 100.0 * float(part) / float(whole) if whole else 0.0


def iso(moment: float) -> str:
    """Say a moment, given in seconds since the epoch, as ISO 8601."""
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")


def oldest_analyse(tables: t.Iterable[Row]) -> str:
    """Return when the statistics of the tables that were analysed are from at the oldest; empty when none was."""
    moments = [table["analysed"] for table in tables if table.get("analysed") is not None]
    return iso(min(moments)) if moments else ""


def age_of(about: About, moment: float | None) -> float | None:
    """Return how many seconds ago something was, given in seconds since the epoch; None when it never was."""
    return None if moment is None else about.now.timestamp() - moment
