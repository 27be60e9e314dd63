# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: indexes that nobody uses, that are double, invalid or missing."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime

from .judge import human_bytes
from .postgresql import Row
from .postgresql_review_common import DAY, SHOWN, About, Check, Fault, Look, Wording, age_of, found, iso, oldest_analyse, percent
from .postgresql_review_sizes import fetch_sizes
from .postgresql_review_tables import fetch_tables
from .record import Finding

# Expressions are compared as trees without the places that they had in the text: pg_get_expr would wait for locks. Names of
# tables are known from the tables.
INDEXES = {
    "oid": "i.indexrelid::bigint",
    "table_oid": "i.indrelid::bigint",
    "index": "quote_ident(c.relname)",
    "kind": "c.relkind",
    "method": "m.amname",
    "is_unique": "i.indisunique",
    "is_primary": "i.indisprimary",
    "is_exclusion": "i.indisexclusion",
    "is_identity": "i.indisreplident",
    "is_clustered": "i.indisclustered",
    "is_valid": "i.indisvalid AND i.indisready AND i.indislive",
    "is_building": "i.indexrelid IN (SELECT index_relid FROM pg_stat_progress_create_index WHERE index_relid IS NOT NULL)",
    "is_part": "c.relispartition",
    "backs_constraint": "i.indexrelid IN (SELECT conindid FROM pg_constraint)",
    "key_count": "i.indnkeyatts",
    "columns": "string_to_array(i.indkey::text, ' ')::int[]",
    "classes": "i.indclass::text",
    "collations": "i.indcollation::text",
    "options": "i.indoption::text",
    "expressions": "coalesce(regexp_replace(i.indexprs::text, ':(location|stmt_len) -?\\d+', '', 'g'), '')",
    "predicate": "coalesce(regexp_replace(i.indpred::text, ':(location|stmt_len) -?\\d+', '', 'g'), '')",
    "entries": "c.reltuples::float8",
    "storage": "coalesce(c.reloptions, '{}')",
    "scans": "pg_stat_get_numscans(c.oid)",
    "read": "pg_stat_get_tuples_returned(c.oid)",
    "fetched": "pg_stat_get_tuples_fetched(c.oid)",
    "used": "NULL::float8",
}
LAST_USE = {"used": "extract(epoch FROM pg_stat_get_lastscan(c.oid))::float8"}
"""What PostgreSQL 16 and newer know besides."""
FROM_INDEXES = """
pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam
WHERE i.indexrelid >= 16384 AND c.relpersistence <> 't' AND i.indrelid NOT IN (SELECT reltoastrelid FROM pg_class)"""

FOREIGN_KEYS = """
SELECT k.conname AS constraint, format('%I.%I', n.nspname, c.relname) AS table_name, k.conrelid::bigint AS table_oid,
       k.conkey::int[] AS columns, format('%I.%I', fn.nspname, fc.relname) AS refers_to,
       (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY u.place)
        FROM unnest(k.conkey) WITH ORDINALITY u (number, place) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number) AS named
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class fc ON fc.oid = k.confrelid
JOIN pg_namespace fn ON fn.oid = fc.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
  AND c.oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e')
ORDER BY 2, 1"""

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
DUPLICATE = Wording(
    "postgresql.duplicate_indexes",
    "no index is there twice",
    "indexes are there twice",
    "DROP INDEX CONCURRENTLY what is named as superfluous; where every copy backs a constraint, drop one of the constraints.",
    counted=True,
)
INVALID = Wording(
    "postgresql.invalid_indexes",
    "every index is valid",
    "indexes are invalid",
    "DROP INDEX CONCURRENTLY leftovers (_ccnew, _ccold); REINDEX INDEX CONCURRENTLY the others.",
    counted=True,
)
FOREIGN = Wording(
    "postgresql.foreign_key_indexes",
    "every foreign key has an index",
    "foreign keys have no index",
    "CREATE INDEX CONCURRENTLY on these columns: every DELETE or UPDATE of the referred table scans this one.",
    counted=True,
)
MISSING = Wording(
    "postgresql.missing_indexes",
    "no table is mostly read from end to end",
    "tables are mostly read from end to end",
    "Look at their statements in postgresql.slow_statements; an index on what they filter by may be missing.",
    "rows",
    basis="estimated",
)


def fetch_indexes(look: Look) -> list[Row]:
    """Read all indexes of the tables in one query."""
    if "indexes" not in look.once:
        newer = LAST_USE if look.about.major >= 16 else {}
        sizes = {row["oid"]: row["main"] for row in fetch_sizes(look)}
        tables = {row["oid"]: row for row in fetch_tables(look)}
        rows = [row for row in look.many({**INDEXES, **newer}, FROM_INDEXES) if row["table_oid"] in tables]
        for row in rows:
            table = tables[row["table_oid"]]
            row.update(name=f"{table['space']}.{row['index']}", table_name=table["name"], bytes=sizes.get(row["oid"], 0))
        look.once["indexes"] = sorted(rows, key=lambda row: str(row["name"]))
    return look.once["indexes"]


def keeps(index: Row) -> str:
    """Say what an index is needed for, even if nobody reads it; empty when nothing."""
    reasons = (
        ("is_primary", "primary key"),
        ("backs_constraint", "constraint"),
        ("is_identity", "replica identity"),
        ("is_exclusion", "exclusion constraint"),
        ("is_unique", "unique"),
        ("is_clustered", "CLUSTER"),
    )
    return next((words for name, words in reasons if index[name]), "")


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


# -- duplicate, invalid, missing --


_SAME = ("method", "key_count", "classes", "collations", "options", "expressions", "predicate")


def _twins(indexes: t.Iterable[Row]) -> t.Iterator[list[Row]]:
    """Yield the indexes that are the same, where there are several."""
    whole = [row for row in indexes if row["is_valid"] and not row["is_part"]]
    for group in _groups(whole, lambda row: (row["table_oid"], *row["columns"])):
        yield from _groups(group, lambda row: tuple(row[name] for name in _SAME))


def _groups(rows: t.Iterable[Row], key: t.Callable[[Row], tuple[t.Any, ...]]) -> list[list[Row]]:
    groups: dict[tuple[t.Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def judge_duplicates(about: About, indexes: t.Sequence[Row]) -> list[Finding]:
    """Name indexes that have a twin, and never the twin that something needs."""
    faults = []
    for group in _twins(indexes):
        needed = [row for row in group if keeps(row)]
        spare = [row for row in group if not keeps(row)]
        if not needed:
            spare.sort(key=lambda row: (row["scans"], row["name"]))
            needed = [spare.pop()]
        keep = f"{needed[0]['name']}" + (f" ({keeps(needed[0])})" if keeps(needed[0]) else "")
        faults += [Fault(f"{row['name']} is superfluous beside {keep}: {human_bytes(row['bytes'])}", row["bytes"]) for row in spare]
        faults += [Fault(f"{row['name']} ({keeps(row)}) is the same as {keep}; both are needed", row["bytes"]) for row in needed[1:]]
    return found(about, DUPLICATE, faults)


def judge_invalid(about: About, indexes: t.Sequence[Row]) -> list[Finding]:
    """Name invalid indexes; one that is just being built is none."""
    faults = []
    for row in indexes:
        if row["is_valid"] or row["is_building"]:
            continue
        leftover = re.search(r'_cc(?:new|old)\d*"?$', row["index"])
        words = "leftover of a concurrent rebuild" if leftover else "a concurrent build failed, or not every partition has it"
        faults.append(Fault(f"{row['name']} on {row['table_name']}: {words}", row["bytes"]))
    return found(about, INVALID, faults)


def fetch_foreign_keys(look: Look) -> Row:
    """Read foreign keys, and what could serve them."""
    tables = {row["oid"]: row for row in fetch_tables(look)}
    return {"keys": look.rows(FOREIGN_KEYS), "indexes": fetch_indexes(look), "tables": tables}


def serves(index: Row, columns: t.Sequence[int]) -> bool:
    """Whether an index finds rows by these columns: they come first in it, in any order."""
    if not index["is_valid"] or index["method"] not in ("btree", "hash"):
        return False
    only_without_null = index["predicate"].startswith("{NULLTEST") and ":nulltesttype 1" in index["predicate"]
    if index["predicate"] and not only_without_null:
        return False
    return set(index["columns"][: len(columns)]) == set(columns) and len(columns) <= index["key_count"]


def judge_foreign_keys(about: About, facts: Row) -> list[Finding]:
    """Name foreign keys whose own columns no index begins with."""
    by_table: dict[int, list[Row]] = {}
    for index in facts["indexes"]:
        by_table.setdefault(index["table_oid"], []).append(index)
    faults, least = [], about.limits["foreign_key_min_rows"]
    for key in facts["keys"]:
        table = facts["tables"].get(key["table_oid"], {})
        rows = max(table.get("live", 0), table.get("planned_rows", 0))
        if rows >= least and not any(serves(index, key["columns"]) for index in by_table.get(key["table_oid"], ())):
            line = f"{key['table_name']} ({key['named']}) → {key['refers_to']}: about {rows:.0f} rows"
            faults.append(Fault(line, rows))
    threshold = f"warning for tables of {least:g} rows or more"
    wording = Wording(FOREIGN.id, FOREIGN.fine, FOREIGN.wrong, FOREIGN.advice, "count", threshold, True, "estimated")
    keyed = (facts["tables"].get(key["table_oid"], {}) for key in facts["keys"])
    return found(about, wording, faults, as_of=oldest_analyse(keyed))


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


def bad_indexes() -> list[Row]:
    """Return two equal indexes that nobody uses, and one that is invalid."""
    row = {
        "oid": 1, "table_oid": 1, "name": "public.a", "index": "a", "table_name": "public.t", "kind": "i",
        "method": "btree", "is_unique": False, "is_primary": False, "is_exclusion": False, "is_identity": False, "is_clustered": False,
        "is_valid": True, "key_count": 1, "columns": [1], "classes": "1", "collations": "0", "options": "0", "expressions": "", "predicate": "",
        "backs_constraint": False, "is_part": False, "bytes": 10**9, "entries": 1.0, "storage": [], "scans": 0, "read": 0,
        "fetched": 0, "used": None, "is_building": False,
    }  # fmt: skip
    return [row, {**row, "name": "public.b", "index": "b"}, {**row, "name": "public.c_ccnew", "index": "c_ccnew", "is_valid": False}]


def _bad_usage() -> Row:
    begin = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
    server = {"reset": begin, "all_reset": begin, "started": begin, "standby": False, "cluster": "1", "replicas": 0}
    return {**server, "indexes": bad_indexes(), "keys": [], "others": []}


def _bad_keys() -> Row:
    key = {"constraint": "k", "table_name": "public.t", "table_oid": 1, "columns": [2], "refers_to": "public.u", "named": "b"}
    return {"keys": [key], "indexes": bad_indexes(), "tables": {1: {"live": 10**9, "planned_rows": 10.0**9}}}


def _bad_scans() -> Row:
    return {**_bad_usage(), "indexes": [], "tables": [{"name": "public.t", "scans": 10**6, "scanned": 10**15}]}


CHECKS = (
    Check((USAGE.id,), fetch_usage, judge_usage, None),
    Check((UNUSED.id,), fetch_usage, judge_unused, _bad_usage),
    Check((DUPLICATE.id,), fetch_indexes, judge_duplicates, bad_indexes, primary=True),
    Check((INVALID.id,), fetch_indexes, judge_invalid, bad_indexes, primary=True),
    Check((FOREIGN.id,), fetch_foreign_keys, judge_foreign_keys, _bad_keys, primary=True),
    Check((MISSING.id,), fetch_scans, judge_scans, _bad_scans),
)
