# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: space that tables and indexes hold without needing it, and pages that are damaged."""

from __future__ import annotations

import math
import re
import typing as t

from .errors import MaintenanceError
from .judge import human_bytes
from .postgresql import Row, StatementError, extension_schema
from .postgresql_programs import client_environment, client_user, find_program, run_program
from .postgresql_review_common import MARK, About, Check, Fault, Look, Wording, found, oldest_analyse, percent
from .postgresql_review_indexes import fetch_indexes
from .postgresql_review_tables import fetch_tables
from .record import Finding

PAGE = 8192
_PAGE_HEADER, _LINE_POINTER, _ROW_HEADER, _INDEX_HEADER, _INDEX_SPECIAL = 24, 4, 23, 8, 16
_ESTIMATED_AT_MOST = 200

WIDTHS = {
    "oid": "a.attrelid::bigint",
    "number": "a.attnum",
    "fixed": "a.attlen",
    "nulls": "s.null_frac::float8",
    "width": "s.avg_width::float8",
}
FROM_WIDTHS = """
pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY (%s::oid[])"""

RIGHTS = """
SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE')) AS may, count(DISTINCT p.proname) AS present
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = %s
WHERE p.proname = ANY (%s)"""

APPROX = "SELECT dead_tuple_percent + approx_free_percent AS share FROM {function}(%s::oid::regclass)"
DENSITY = "SELECT 100 - avg_leaf_density AS share FROM {function}(%s::oid::regclass)"

BLOAT = Wording(
    "postgresql.bloat",
    "no table holds much space that it does not need",
    "tables hold much space that they do not need",
    "Find out why VACUUM comes late; rewriting (pg_repack, or VACUUM FULL, which locks everybody out) is a decision for a window.",
    "percent",
    basis="estimated",
)
INDEX_BLOAT = Wording(
    "postgresql.index_bloat",
    "no index holds much space that it does not need",
    "indexes hold much space that they do not need",
    "REINDEX INDEX CONCURRENTLY; a plain REINDEX would lock the table.",
    "percent",
    basis="estimated",
)
DAMAGE = Wording(
    "postgresql.amcheck",
    "pg_amcheck found no damage",
    "relations are damaged",
    "Do not write to them; restore from a proven backup. An index alone may be rebuilt once its table is proven.",
    counted=True,
)


def _aligned(size: float) -> float:
    return math.ceil(size / 8) * 8


def fill_factor(options: t.Sequence[str], default: int) -> float:
    """Return how full pages are meant to be, as a share."""
    given = next((text.partition("=")[2] for text in options if text.startswith("fillfactor=")), "")
    return int(given) / 100 if given.isdigit() else default / 100


def table_bytes(rows: float, columns: t.Sequence[Row], options: t.Sequence[str]) -> float | None:
    """Estimate how much space the rows of a table need; None where the width of a column is not known."""
    widths = [_width(column) for column in columns]
    if None in widths or not columns:
        return None
    nulls = (len(columns) + 7) // 8 if any(column["nulls"] for column in columns) else 0
    row = _LINE_POINTER + _aligned(_ROW_HEADER + nulls) + _aligned(sum(width for width in widths if width is not None))
    return math.ceil(rows * row / ((PAGE - _PAGE_HEADER) * fill_factor(options, 100))) * PAGE


def index_bytes(entries: float, columns: t.Sequence[Row], options: t.Sequence[str]) -> float | None:
    """Estimate how much space the entries of a B-tree need; equal keys that it stores once count in full."""
    widths = [_width(column) for column in columns]
    if None in widths or not columns:
        return None
    entry = _LINE_POINTER + _aligned(_INDEX_HEADER + sum(width for width in widths if width is not None))
    return (1 + math.ceil(entries * entry / ((PAGE - _PAGE_HEADER - _INDEX_SPECIAL) * fill_factor(options, 90)))) * PAGE


def _width(column: Row) -> float | None:
    if column["width"] is not None:
        return float(column["width"] * (1 - (column["nulls"] or 0)))
    return float(column["fixed"]) if column["fixed"] > 0 else None


# -- reading --


def fetch_bloat(look: Look) -> Row:
    """Read the widths of the larger tables' columns, and what pgstattuple measures where that is asked."""
    least = look.about.limits["bloat_min_bytes"]
    tables = [row for row in fetch_tables(look) if row["kind"] != "p" and row["main_bytes"] >= least]
    tables = sorted(tables, key=lambda row: -row["main_bytes"])[:_ESTIMATED_AT_MOST]
    indexes = [row for row in fetch_indexes(look) if row["kind"] == "i" and row["method"] == "btree" and row["bytes"] >= least]
    indexes = sorted(indexes, key=lambda row: -row["bytes"])[:_ESTIMATED_AT_MOST]
    oids = "{" + ",".join(str(oid) for oid in sorted({row["oid"] for row in tables} | {row["table_oid"] for row in indexes})) + "}"
    columns: dict[int, list[Row]] = {}
    for row in look.many(WIDTHS, FROM_WIDTHS, [oids]) if len(oids) > 2 else ():
        columns.setdefault(row["oid"], []).append(row)
    facts: Row = {"tables": tables, "indexes": indexes, "columns": columns, "all": {row["oid"]: row for row in fetch_tables(look)}}
    return {**facts, **_measured(look, tables, indexes)}


def _measured(look: Look, tables: t.Sequence[Row], indexes: t.Sequence[Row]) -> Row:
    """Ask pgstattuple about the largest tables and indexes, one at a time so that a lock on one costs only that one."""
    if not look.about.params["pgstattuple"]:
        return {"measured": {}, "why": ""}
    if "measured" in look.once:
        return look.once["measured"][0]
    measured: Row = {"measured": {}, "why": ""}
    look.once["measured"] = [measured]
    schema = extension_schema(look.session, "pgstattuple")
    if not schema:
        measured["why"] = "the extension pgstattuple is not in this database"
        return measured
    wanted = [["pgstattuple_approx", "pgstatindex"]]
    if not look.rows(RIGHTS, ["pgstattuple", *wanted])[0]["may"]:
        measured["why"] = "pgstattuple, for want of pg_stat_scan_tables (part of pg_monitor)"
        return measured
    most = int(look.about.limits["pgstattuple_tables"])
    approx, index = (look.session.identifier(schema, name) for name in ("pgstattuple_approx", "pgstatindex"))
    for rows, statement in (
        (tables, APPROX.replace("{function}", approx)),
        (indexes, DENSITY.replace("{function}", index)),
    ):
        for row in [row for row in rows if row.get("is_valid", True)][:most]:
            try:
                measured["measured"][row["oid"]] = float(look.session.value(MARK + statement, [row["oid"]]))
            except StatementError as error:
                measured["why"] = f"{row['name']}: {error}"
    return measured


# -- judging --


def judge_bloat(about: About, facts: Row) -> list[Finding]:
    """Judge tables by what pgstattuple measured, else by an estimate from rows and widths."""
    shares, unseen, wasted = [], [], 0.0
    for table in facts["tables"]:
        share = facts["measured"].get(table["oid"])
        how = "measured"
        if share is None:
            rows = table["live"] or max(table["planned_rows"], 0)
            needed = table_bytes(rows, facts["columns"].get(table["oid"], ()), table["options"])
            if needed is None or (not rows and not table["dead"] and table["analysed"] is None):
                unseen.append(table)
                continue
            share, how = max(0.0, percent(table["main_bytes"] - needed, table["main_bytes"])), "estimated"
        wasted += share / 100 * table["main_bytes"]
        shares.append((share, f"{table['name']}: {share:.0f} percent of {human_bytes(table['main_bytes'])} ({how})"))
    about.count("bloat", wasted, "bytes")
    return _judged(about, BLOAT, "bloat_percent", shares, unseen, {**facts, "from": facts["tables"]})


def judge_index_bloat(about: About, facts: Row) -> list[Finding]:
    """Judge B-trees by what pgstattuple measured, else by an estimate from entries and widths."""
    shares, unseen, wasted = [], [], 0.0
    for index in facts["indexes"]:
        share, how = facts["measured"].get(index["oid"]), "measured"
        spare = 100 * (1 - fill_factor(index["storage"], 90))
        if share is not None:
            share = max(0.0, share - spare)
        else:
            by_number = {column["number"]: column for column in facts["columns"].get(index["table_oid"], ())}
            columns = [by_number[number] for number in index["columns"] if number in by_number]
            table = facts["all"].get(index["table_oid"], {})
            entries = index["entries"] if index["entries"] > 0 else max(table.get("live", 0), 0)
            is_whole = len(columns) == len(index["columns"]) and (entries > 0 or table.get("analysed") or table.get("vacuumed"))
            needed = index_bytes(entries, columns, index["storage"]) if is_whole else None
            if needed is None:
                unseen.append({**index, "readable": table.get("readable", True)})
                continue
            share, how = max(0.0, percent(index["bytes"] - needed, index["bytes"])), "estimated"
        wasted += share / 100 * index["bytes"]
        shares.append((share, f"{index['name']}: {share:.0f} percent of {human_bytes(index['bytes'])} ({how})"))
    about.count("index_bloat", wasted, "bytes")
    tables = [facts["all"].get(index["table_oid"], {}) for index in facts["indexes"]]
    return _judged(about, INDEX_BLOAT, "index_bloat_percent", shares, unseen, {**facts, "from": tables})


def _judged(
    about: About, wording: Wording, limit: str, shares: t.Sequence[tuple[float, str]], unseen: t.Sequence[Row], facts: Row
) -> list[Finding]:
    gaps = []
    hidden = [row["name"] for row in unseen if not row["readable"]]
    bare = [row["name"] for row in unseen if row["readable"]]
    if hidden:
        gaps.append(f"{len(hidden)} for want of SELECT on the table (pg_stats hides its columns): {', '.join(hidden[:3])}")
    if bare:
        gaps.append(f"{len(bare)} without planner statistics, or on an expression: {', '.join(bare[:3])}")
    if facts["why"]:
        gaps.append(f"measured bloat: {facts['why']}")
    least = f"of {human_bytes(about.limits['bloat_min_bytes'])} or more"
    basis = "sampled" if facts["measured"] and not any("estimated" in line for _share, line in shares) else "estimated"
    wording = Wording(wording.id, wording.fine, wording.wrong, wording.advice, "percent", f"{about.said(limit)}, {least}", basis=basis)
    faults = [Fault(line, share, about.level(share, limit)) for share, line in shares if about.level(share, limit) != "ok"]
    remedy = "ANALYZE these tables; or install pgstattuple and set pgstattuple to true, which needs pg_stat_scan_tables (part of pg_monitor) only."
    highest = max((share for share, _line in shares), default=0.0)
    fine = f"{wording.fine} ({len(shares)} {least})"
    as_of = oldest_analyse(facts["from"]) if basis == "estimated" else ""
    return found(about, wording, faults, unseen="; ".join(gaps), remedy=remedy, value=highest, fine=fine, as_of=as_of)


# -- pg_amcheck --


def fetch_amcheck(look: Look) -> Row:
    """Let pg_amcheck read every table and B-tree of the database.

    :raises MaintenanceError: it is not installed, or did not end in time.
    """
    if not extension_schema(look.session, "amcheck"):
        return {"why": "the extension amcheck is not in this database", "remedy": "CREATE EXTENSION amcheck."}
    rights = look.rows(RIGHTS, ["amcheck", ["bt_index_check", "verify_heapam"]])[0]
    if rights["present"] < 2:
        # pg_amcheck would call every table damaged whose check does not exist.
        remedy = "ALTER EXTENSION amcheck UPDATE; on PostgreSQL 13, whose amcheck reads B-trees only, call bt_index_check yourself."
        return {"why": "pg_amcheck, for amcheck in this database is older than version 1.3, which reads tables", "remedy": remedy}
    if not rights["may"]:
        remedy = "GRANT EXECUTE on the functions of amcheck to the review's role, or run this as a superuser."
        return {"why": "pg_amcheck, for want of EXECUTE on the functions of amcheck", "remedy": remedy}
    program = find_program("pg_amcheck", max(look.about.major, 14), or_newer=True)
    quoted = look.database.replace("\\", "\\\\").replace("'", "\\'")
    timeout = float(look.about.params["amcheck_seconds"])
    if look.about.params["deadline"]:
        timeout = min(timeout, look.about.params["deadline"] - look.host.now().timestamp())
    if timeout < 1:
        raise MaintenanceError("pg_amcheck was not begun: the window closes; give it one of its own.")
    with client_environment(look.server) as env:
        argv = [program, "--no-password", f"--maintenance-db=dbname='{quoted}'", f"dbname='{quoted}'"]
        ran = run_program(argv, os_user=client_user(look.server), env=env, timeout=timeout)
    return {"rc": ran.rc, "said": ran.stdout, "errors": ran.stderr}


def judge_amcheck(about: About, facts: Row) -> list[Finding]:
    """Judge what pg_amcheck said: only its silence together with its success is ok."""
    if "why" in facts:
        return found(about, DAMAGE, [], unseen=facts["why"], remedy=facts["remedy"])
    damaged: dict[str, str] = {}
    lines = facts["said"].splitlines()
    for number, line in enumerate(lines):
        match = re.match(r'(heap table|btree index|.*?) "(.*?)"(?:,|:)', line)
        if match and not line.startswith(" "):
            damaged.setdefault(match.group(2), lines[number + 1].strip()[:100] if number + 1 < len(lines) else "")
    faults = [Fault(f"{name}: {words}", state="critical") for name, words in damaged.items()]
    if not faults and (facts["rc"] != 0 or facts["said"].strip() or facts["errors"].strip()):
        words = (facts["errors"].strip() or facts["said"].strip() or "nothing").splitlines()[-1]
        return found(
            about,
            DAMAGE,
            [],
            unseen=f"pg_amcheck ended with {facts['rc']} and said: {words}",
            remedy="Correct what it names, then run again.",
        )
    return found(about, DAMAGE, faults, not_covered="what indexes other than B-trees hold")


def _bad_bloat() -> Row:
    table = {"oid": 1, "name": "public.t", "main_bytes": 10**12, "live": 1, "planned_rows": 1.0, "dead": 0, "analysed": None, "options": []}
    index = {"oid": 2, "table_oid": 1, "name": "public.i", "bytes": 10**12, "entries": 1.0, "columns": [1], "storage": []}
    column = {"number": 1, "fixed": 4, "nulls": 0.0, "width": 4.0}
    return {"tables": [table], "indexes": [index], "columns": {1: [column]}, "all": {1: table}, "measured": {}, "why": ""}


CHECKS = (
    Check((BLOAT.id,), fetch_bloat, judge_bloat, _bad_bloat, primary=True),
    Check((INDEX_BLOAT.id,), fetch_bloat, judge_index_bloat, _bad_bloat, primary=True),
    Check(
        (DAMAGE.id,),
        fetch_amcheck,
        judge_amcheck,
        lambda: {"rc": 2, "said": 'heap table "d.public.t", block 1:\n    damaged\n', "errors": ""},
        declared=lambda params: bool(params["amcheck"]),
    ),
)
