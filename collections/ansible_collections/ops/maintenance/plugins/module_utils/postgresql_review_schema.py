# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: sequences, keys, triggers, constraints, unlogged tables, extensions, who may create."""

from __future__ import annotations

import typing as t

from .judge import human_bytes
from .postgresql import Row
from .postgresql_review_common import About, Check, Fault, Look, Wording, found, percent
from .postgresql_review_indexes import fetch_indexes
from .postgresql_review_tables import fetch_tables
from .record import Finding

# The column that a sequence feeds may be narrower than the sequence: found by ownership (serial, identity) and by default. Names
# are qualified, for nothing but pg_catalog is in the search path. OFFSET 0 keeps the planner from reading all columns of all tables.
SEQUENCES = {
    "name": "c.oid::regclass::text",
    "step": "s.seqincrement",
    "lowest": "s.seqmin",
    "highest": "s.seqmax",
    "start": "s.seqstart",
    "cycles": "s.seqcycle",
    "readable": "c.readable",
    "last": "CASE WHEN c.readable THEN pg_sequence_last_value(c.oid) END",
    "table_name": "fed.rel::regclass::text",
    "column": "a.name",
    "is_identity": "a.is_identity",
    "width": "a.width",
}
FROM_SEQUENCES = """
pg_sequence s
JOIN (
  SELECT oid, has_sequence_privilege(oid, 'SELECT') OR has_sequence_privilege(oid, 'USAGE') AS readable
  FROM pg_class WHERE relkind = 'S' AND relpersistence <> 't' AND oid >= 16384 OFFSET 0
) c ON c.oid = s.seqrelid
LEFT JOIN (
  SELECT d.objid AS seq, d.refobjid AS rel, d.refobjsubid AS number
  FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
  UNION
  SELECT d.refobjid, f.adrelid, f.adnum
  FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
  WHERE d.deptype = 'n'
) fed ON fed.seq = s.seqrelid
LEFT JOIN LATERAL (
  SELECT quote_ident(attname) AS name, attidentity <> '' AS is_identity,
         CASE atttypid WHEN 'int2'::regtype THEN 2 WHEN 'int4'::regtype THEN 4 WHEN 'int8'::regtype THEN 8 END AS width
  FROM pg_attribute WHERE attrelid = fed.rel AND attnum = fed.number OFFSET 0
) a ON true"""

TRIGGERS = """
SELECT format('%I.%I', n.nspname, c.relname) AS table_name, format('%I', g.tgname) AS name, g.tgisinternal AS is_internal
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE g.tgenabled = 'D'
UNION ALL
SELECT 'the database', format('%I', evtname), false FROM pg_event_trigger WHERE evtenabled = 'D'
ORDER BY 1, 2"""

CONSTRAINTS = """
SELECT format('%I.%I', n.nspname, c.relname) AS table_name, format('%I', k.conname) AS name, k.contype::text AS type
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT k.convalidated AND k.conparentid = 0
ORDER BY 1, 2"""

EXTENSIONS = """
SELECT e.extname AS name, e.extversion AS installed, a.default_version AS available
FROM pg_extension e LEFT JOIN pg_available_extensions a ON a.name = e.extname
ORDER BY 1"""

CREATORS = """
SELECT format('schema %I', n.nspname) AS name, n.nspname = 'public' AS is_public
FROM pg_namespace n CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) p
WHERE p.grantee = 0 AND p.privilege_type = 'CREATE'
UNION ALL
SELECT format('database %I', d.datname), false
FROM pg_database d CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) p
WHERE d.datname = current_database() AND p.grantee = 0 AND p.privilege_type = 'CREATE'
ORDER BY 1"""

SEQUENCE = Wording(
    "postgresql.sequences",
    "every sequence has room",
    "sequences run out of numbers",
    "Change the column (and those that refer to it) to bigint in a maintenance window, and the sequence with it: ALTER SEQUENCE … AS bigint.",
    "percent",
)
KEYS = Wording(
    "postgresql.primary_keys",
    "every table has a primary key",
    "tables have no primary key",
    "Give them one; without it rows cannot be told apart and logical replication cannot update them.",
    counted=True,
)
DISABLED = Wording(
    "postgresql.triggers",
    "no trigger is disabled",
    "triggers are disabled",
    "ALTER TABLE … ENABLE TRIGGER; a disabled foreign key trigger let wrong rows in, so check them.",
    counted=True,
)
NOT_VALID = Wording(
    "postgresql.constraints",
    "every constraint is validated",
    "constraints were never validated",
    "ALTER TABLE … VALIDATE CONSTRAINT; correct the rows that break it first.",
    counted=True,
)
UNLOGGED = Wording(
    "postgresql.unlogged_tables",
    "no table is unlogged",
    "tables are unlogged: empty after a crash, and on every replica",
    "ALTER TABLE … SET LOGGED, or accept it with a waiver where the data can be lost.",
    counted=True,
)
EXTENSION = Wording(
    "postgresql.extensions",
    "every extension is as new as its files",
    "extensions have an update",
    "ALTER EXTENSION … UPDATE, after reading its release notes.",
    counted=True,
)
CREATE = Wording(
    "postgresql.public_schema",
    "not everybody may create objects",
    "places where everybody may create objects",
    "REVOKE CREATE ON SCHEMA … FROM PUBLIC, after giving it to the roles that need it: who may create can lure others into his functions.",
    counted=True,
)


def sequence_use(row: Row) -> tuple[float, int]:
    """Return how much of a sequence is used in percent, and how many numbers are left, its column's type respected."""
    widest = 2 ** (8 * row["width"] - 1) if row["width"] else None
    if row["last"] is None:
        return 0.0, abs(row["highest"] - row["lowest"])
    if row["step"] > 0:
        end = row["highest"] if widest is None else min(row["highest"], widest - 1)
        whole, left = end - max(row["lowest"], 0 if row["lowest"] < 0 <= row["start"] else row["lowest"]), end - row["last"]
    else:
        end = row["lowest"] if widest is None else max(row["lowest"], -widest)
        whole, left = min(row["highest"], row["start"]) - end, row["last"] - end
    return max(0.0, 100.0 - percent(max(left, 0), max(whole, 1))), max(int(left // max(abs(row["step"]), 1)), 0)


def judge_sequences(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge how much of each sequence is used; one that begins anew is judged only where it feeds a column."""
    faults, hidden, highest = [], [], 0.0
    for row in rows:
        if not row["readable"]:
            hidden.append(row["name"])
            continue
        if row["cycles"] and row["width"] is None:
            continue
        share, left = sequence_use(row)
        highest = max(highest, share)
        state = about.level(share, "sequence_percent")
        if state != "ok":
            kind = f"{'identity ' if row['is_identity'] else ''}column {row['column']} of {row['table_name']}, int{row['width']}"
            feeds = f" ({kind})" if row["width"] else ""
            faults.append(Fault(f"{row['name']}{feeds}: {share:.0f} percent used, {left} numbers left", share, state))
    wording = Wording(SEQUENCE.id, SEQUENCE.fine, SEQUENCE.wrong, SEQUENCE.advice, "percent", about.said("sequence_percent"))
    unseen = f"{len(hidden)} sequences, for want of SELECT on them" if hidden else ""
    remedy = "GRANT SELECT ON ALL SEQUENCES IN SCHEMA … to the review's role (pg_read_all_data does it too, but opens the data)."
    gap = "keys that the application numbers itself"
    return found(about, wording, faults, unseen=unseen, remedy=remedy, value=highest, not_covered=gap)


def fetch_keys(look: Look) -> Row:
    """Read which tables have a primary key."""
    return {"tables": fetch_tables(look), "keyed": {row["table_oid"] for row in fetch_indexes(look) if row["is_primary"]}}


def judge_keys(about: About, facts: Row) -> list[Finding]:
    """Name tables without a primary key; a partition has its parent's."""
    bare = [row for row in facts["tables"] if row["kind"] in ("r", "p") and not row["is_partition"] and row["oid"] not in facts["keyed"]]
    return found(about, KEYS, [Fault(row["name"], row["total_bytes"]) for row in bare])


def judge_triggers(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Name disabled triggers, those of foreign keys first."""
    faults = [
        Fault(f"{row['table_name']}: {row['name']}" + (" (of a foreign key)" if row["is_internal"] else ""), float(row["is_internal"]))
        for row in rows
    ]
    return found(about, DISABLED, faults)


def judge_constraints(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Name constraints that were never validated."""
    kinds = {"f": "foreign key", "c": "check", "n": "not null"}
    return found(about, NOT_VALID, [Fault(f"{row['table_name']}: {row['name']} ({kinds.get(row['type'], row['type'])})") for row in rows])


def judge_unlogged(about: About, tables: t.Sequence[Row]) -> list[Finding]:
    """Name unlogged tables."""
    unlogged = [row for row in tables if row["persistence"] == "u"]
    faults = [Fault(f"{row['name']}: {human_bytes(row['total_bytes'])}", row["total_bytes"]) for row in unlogged]
    return found(about, UNLOGGED, faults)


def judge_extensions(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Name extensions whose files are newer than what is installed in the database."""
    faults = [
        Fault(f"{row['name']}: {row['installed']} → {row['available']}")
        for row in rows
        if row["available"] and row["available"] != row["installed"]
    ]
    lost = [row["name"] for row in rows if not row["available"]]
    unseen = f"{', '.join(lost)}: the files of the extension are no longer on the server" if lost else ""
    return found(about, EXTENSION, faults, unseen=unseen, remedy="Install the extension's package again, or drop the extension.", value=0)


def judge_creators(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Name where PUBLIC may create objects."""
    return found(about, CREATE, [Fault(row["name"]) for row in rows])


def _bad_sequence() -> list[Row]:
    row = {
        "name": "public.s",
        "step": 1,
        "lowest": 1,
        "highest": 2**63 - 1,
        "start": 1,
        "cycles": False,
        "readable": True,
        "last": 2**31 - 2,
    }
    return [{**row, "table_name": "public.t", "column": "id", "is_identity": True, "width": 4}]


def _bad_table() -> Row:
    return {
        "oid": 1,
        "name": "public.t",
        "kind": "r",
        "is_partition": False,
        "persistence": "u",
        "total_bytes": 1,
    }


_ONE = {"table_name": "public.t", "name": "t", "is_internal": True, "type": "f", "installed": "1.0", "available": "1.1", "is_public": True}

CHECKS = (
    Check((SEQUENCE.id,), lambda look: look.many(SEQUENCES, FROM_SEQUENCES), judge_sequences, _bad_sequence),
    Check((KEYS.id,), fetch_keys, judge_keys, lambda: {"tables": [_bad_table()], "keyed": set()}, primary=True),
    Check((DISABLED.id,), lambda look: look.rows(TRIGGERS), judge_triggers, lambda: [_ONE], primary=True),
    Check((NOT_VALID.id,), lambda look: look.rows(CONSTRAINTS), judge_constraints, lambda: [_ONE], primary=True),
    Check((UNLOGGED.id,), fetch_tables, judge_unlogged, lambda: [_bad_table()], primary=True),
    Check((EXTENSION.id,), lambda look: look.rows(EXTENSIONS), judge_extensions, lambda: [_ONE], primary=True),
    Check((CREATE.id,), lambda look: look.rows(CREATORS), judge_creators, lambda: [_ONE], primary=True),
)
