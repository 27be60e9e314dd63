# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: how indexes and tables are read, and since when that is counted."""

from __future__ import annotations

import typing as t
from datetime import datetime

from .judge import human_bytes
from .postgresql import Row
from .postgresql_review_common import DAY, SHOWN, About, Check, Fault, Look, Wording, age_of, found, iso, percent
from .postgresql_review_indexes import FOREIGN_KEYS, bad_indexes, fetch_indexes, keeps, serves
from .postgresql_review_tables import fetch_tables
from .record import Finding

SINCE = """
SELECT stats_reset AS reset, (SELECT least(b.stats_reset, a.stats_reset) FROM pg_stat_bgwriter b, pg_stat_archiver a) AS all_reset,
       pg_postmaster_start_time() AS started, pg_is_in_recovery() AS standby,
       (SELECT system_identifier::text FROM pg_control_system()) AS cluster,
       (SELECT count(*) FROM pg_stat_replication WHERE application_name NOT IN ('pg_receivewal', 'pg_basebackup', 'pg_recvlogical'))
         AS replicas
FROM pg_stat_database WHERE datname = current_database()"""

UNUSED = Wording(
    "postgresql.unused_indexes",
    "every index that may go is used",
    "indexes are never used",
    "Ask the application's developers, then DROP INDEX CONCURRENTLY; none of these backs a constraint, a foreign key or a replica identity.",
    counted=True,
    basis="estimated",
)
USAGE = Wording("postgresql.index_usage", "", "", "")
MISSING = Wording(
    "postgresql.missing_indexes",
    "no table is mostly read from end to end",
    "tables are mostly read from end to end",
    "Look at their statements in postgresql.slow_statements; an index on what they filter by may be missing.",
    "rows",
    basis="estimated",
)


# -- usage, on replicas too --


def fetch_usage(look: Look) -> Row:
    """Read how often indexes are used here; what replicas say is added before it is judged."""
    return {**look.rows(SINCE)[0], "indexes": fetch_indexes(look), "keys": look.rows(FOREIGN_KEYS), "database": look.database, "others": []}


def judge_usage(about: About, facts: Row) -> list[Finding]:
    """Show the indexes that are used most."""
    indexes = sorted((row for row in facts["indexes"] if row["kind"] == "i"), key=lambda row: (-row["scans"], row["name"]))
    about.lists["index_usage"] = [
        {"index": row["name"], "table": row["table_name"], "scans": row["scans"], "rows_read": row["read"], "rows_fetched": row["fetched"],
         "bytes": row["bytes"]}
        for row in indexes[:SHOWN]
    ]  # fmt: skip
    scans = sum(row["scans"] for row in indexes)
    words = f"{len(indexes)} indexes were used {scans} times"
    lines = [f"{row['name']}: {row['scans']} scans, {row['read']} rows read, {row['fetched']} fetched" for row in indexes]
    about.count("indexes", len(indexes))
    return found(about, Wording(USAGE.id, words, "", ""), [], value=scans, also=lines)


def counted_days(about: About, facts: Row) -> float:
    """Return for how many days, at the least, the counters have been counting.

    A crash empties them all without a word in those of the database, but the time of those that all databases share is set then.
    """
    if facts["reset"]:
        return float((about.now - facts["reset"]).total_seconds()) / DAY
    kept = about.kept.get("counting", {})
    started = facts["started"].timestamp()
    first = float(kept.get("since", started)) if kept.get("reset", "") == "" else started
    emptied = facts["all_reset"].timestamp() if facts["all_reset"] else started
    return float(about.now.timestamp() - max(min(first, started), emptied)) / DAY


def judge_unused(about: About, facts: Row) -> list[Finding]:
    """Judge which indexes nobody uses, neither here nor on a replica, over a period that is long enough."""
    days, wanted = counted_days(about, facts), about.limits["unused_index_days"]
    about.keep["counting"] = {"reset": facts["reset"].isoformat() if facts["reset"] else "", "since": about.now.timestamp() - days * DAY}
    candidates = [row for row in facts["indexes"] if row["kind"] == "i" and row["is_valid"] and not row["is_part"]]
    candidates = [row for row in candidates if not keeps(row) and not _serves_any(row, facts["keys"])]
    elsewhere: set[str] = set()
    for other in facts["others"]:
        elsewhere |= {row["name"] for row in other["indexes"] if _in_use(about, row, wanted)}
    unused = [row for row in candidates if not _in_use(about, row, wanted) and row["name"] not in elsewhere]
    faults = [
        Fault(f"{row['name']} on {row['table_name']}: {human_bytes(row['bytes'])}, {row['scans']} scans", row["bytes"]) for row in unused
    ]
    unsure = _unsure(about, facts, days, wanted)
    as_of = iso(about.now.timestamp() - days * DAY)
    since = f"counted since {as_of[:10]}, for {days:.0f} days"
    threshold = f"warning when unused for {wanted:g} days"
    wording = Wording(UNUSED.id, UNUSED.fine, f"{UNUSED.wrong}, {since}", UNUSED.advice, "count", threshold, True, UNUSED.basis)
    gap = "since when each index exists"
    if faults and unsure:
        words = f"indexes look unused ({len(faults)}), but {unsure}"
        remedy = "Run the review again later, with primary and replicas all declared as servers."
        return found(about, wording, [], unseen=words, remedy=remedy, also=[fault.line for fault in faults], as_of=as_of)
    fine = f"{UNUSED.fine} ({since}{_with_replicas(facts)})"
    return found(about, wording, faults, not_covered=gap if faults else "", fine=fine, as_of=as_of)


def _serves_any(index: Row, keys: t.Iterable[Row]) -> bool:
    """Whether a foreign key would lose an index that finds its rows."""
    return any(key["table_oid"] == index["table_oid"] and serves(index, key["columns"]) for key in keys)


def _with_replicas(facts: Row) -> str:
    return f", {len(facts['others'])} replicas included" if facts["others"] else ""


def _in_use(about: About, row: Row, days: float) -> bool:
    quiet = age_of(about, row["used"])
    if days and quiet is not None and quiet > days * DAY:
        return False
    return bool(row["scans"])


def _unsure(about: About, facts: Row, days: float, wanted: float) -> str:
    if facts["standby"] and not facts["others"]:
        return "this is a standby, and its primary was not looked at"
    short = min([days, *(counted_days(About("", now=about.now), other) for other in facts["others"])])
    if short < wanted:
        return f"they have been counted for {short:.1f} days only, expected {wanted:g}"
    missing = facts["replicas"] - sum(other["standby"] for other in facts["others"])
    return f"{missing} connected replicas were not looked at, which may use them" if missing > 0 else ""


# -- tables --


def fetch_scans(look: Look) -> Row:
    """Read how tables are read, and since when that is counted."""
    return {**look.rows(SINCE)[0], "tables": fetch_tables(look), "indexes": fetch_indexes(look)}


def judge_scans(about: About, facts: Row) -> list[Finding]:
    """Name larger tables that are read from end to end more often than through an index."""
    through: dict[str, int] = {}
    for index in facts["indexes"]:
        through[index["table_name"]] = through.get(index["table_name"], 0) + index["scans"]
    rows_least, scans_least = about.limits["missing_index_min_rows"], about.limits["missing_index_scans"]
    faults = []
    for table in facts["tables"]:
        each = table["scanned"] / table["scans"] if table["scans"] else 0
        if table["scans"] >= scans_least and table["scans"] > through.get(table["name"], 0) and each >= rows_least:
            share = percent(table["scans"], table["scans"] + through.get(table["name"], 0))
            line = f"{table['name']}: {share:.0f} percent of reads are whole scans, of {each:.0f} rows each ({table['scans']} scans)"
            faults.append(Fault(line, table["scanned"]))
    threshold = f"warning from {scans_least:g} whole scans of {rows_least:g} rows on average, when most reads are such"
    wording = Wording(MISSING.id, MISSING.fine, MISSING.wrong, MISSING.advice, "rows", threshold, basis="estimated")
    since = about.now.timestamp() - counted_days(about, facts) * DAY
    return found(about, wording, faults, as_of=iso(since))


# -- samples --


def _bad_usage() -> Row:
    begin = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
    server = {"reset": begin, "all_reset": begin, "started": begin, "standby": False, "cluster": "1", "replicas": 0}
    return {**server, "indexes": bad_indexes(), "keys": [], "others": []}


def _bad_scans() -> Row:
    return {**_bad_usage(), "indexes": [], "tables": [{"name": "public.t", "scans": 10**6, "scanned": 10**15}]}


CHECKS = (
    Check((USAGE.id,), fetch_usage, judge_usage, None),
    Check((UNUSED.id,), fetch_usage, judge_unused, _bad_usage),
    Check((MISSING.id,), fetch_scans, judge_scans, _bad_scans),
)
