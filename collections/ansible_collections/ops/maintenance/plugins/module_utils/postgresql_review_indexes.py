# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: indexes that are double, invalid or missing on foreign keys."""

from __future__ import annotations

import re
import typing as t

from .judge import human_bytes
from .postgresql import Row
from .postgresql_review_common import About, Check, Fault, Look, Wording, found, oldest_analyse
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


# -- duplicate, invalid, missing on foreign keys --


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


def _bad_keys() -> Row:
    key = {"constraint": "k", "table_name": "public.t", "table_oid": 1, "columns": [2], "refers_to": "public.u", "named": "b"}
    return {"keys": [key], "indexes": bad_indexes(), "tables": {1: {"live": 10**9, "planned_rows": 10.0**9}}}


CHECKS = (
    Check((DUPLICATE.id,), fetch_indexes, judge_duplicates, bad_indexes, primary=True),
    Check((INVALID.id,), fetch_indexes, judge_invalid, bad_indexes, primary=True),
    Check((FOREIGN.id,), fetch_foreign_keys, judge_foreign_keys, _bad_keys, primary=True),
)
