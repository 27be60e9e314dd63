# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restored database says: whether the engine finds it sound (rung 4), and how it compares with its source (rung 5)."""

from __future__ import annotations

import contextlib
import typing as t
from datetime import date, datetime, timezone, tzinfo

from . import postgresql
from .backup_kinds import Verdict
from .backup_sets import Declared, may_be_behind
from .errors import MaintenanceError
from .judge import human_seconds
from .postgresql import Session

_SHOWN = 5
_OF_THE_SITE = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_RELATIONS = f"""
SELECT n.nspname AS schema, c.relname AS name, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND {_OF_THE_SITE}
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2"""  # noqa: S608 - no value in it
_INDEXES = f"""
SELECT n.nspname AS schema, c.relname AS name, c.oid, i.indisvalid AND i.indisready AS is_valid, a.amname = 'btree' AS is_btree
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind = 'i' AND {_OF_THE_SITE} ORDER BY 1, 2"""  # noqa: S608
_UNCHECKED = f"""
SELECT n.nspname AS schema, c.relname AS name, o.conname AS constraint FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT o.convalidated AND {_OF_THE_SITE} ORDER BY 1, 2, 3"""  # noqa: S608

_NOT_OF_AN_EXTENSION = (
    "NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = {oid} AND d.classid = '{catalogue}'::regclass AND d.deptype = 'e')"
)
_RELATION = f"{_OF_THE_SITE} AND {_NOT_OF_AN_EXTENSION.format(oid='c.oid', catalogue='pg_class')}"
_DEFINITIONS = f"""
SELECT 'column ' || n.nspname || '.' || c.relname || '.' || a.attname AS name,
  md5(format_type(a.atttypid, a.atttypmod) || a.attnotnull || coalesce(pg_get_expr(f.adbin, f.adrelid), '')) AS definition
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND {_RELATION}
UNION ALL SELECT 'constraint ' || n.nspname || '.' || c.relname || '.' || o.conname, md5(pg_get_constraintdef(o.oid))
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_RELATION}
UNION ALL SELECT 'index ' || n.nspname || '.' || c.relname, md5(pg_get_indexdef(c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('i', 'I') AND {_RELATION}
UNION ALL SELECT 'view ' || n.nspname || '.' || c.relname, md5(pg_get_viewdef(c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {_RELATION}
UNION ALL SELECT 'trigger ' || n.nspname || '.' || c.relname || '.' || g.tgname, md5(pg_get_triggerdef(g.oid))
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT g.tgisinternal AND {_RELATION}
UNION ALL SELECT 'function ' || n.nspname || '.' || p.oid::regprocedure::text, md5(pg_get_functiondef(p.oid))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prokind IN ('f', 'p') AND {_OF_THE_SITE} AND {_NOT_OF_AN_EXTENSION.format(oid="p.oid", catalogue="pg_proc")}"""  # noqa: S608

Table = t.Tuple[str, str]  # noqa: UP006 - evaluated when the module is loaded
Tables = t.Mapping[Table, int]
"""Schema and name of every table of the site, with its number in the catalogue."""


def tables_of(session: Session) -> dict[Table, int]:
    """Return the tables of a database that belong to the site."""
    return {(row["schema"], row["name"]): int(row["oid"]) for row in session.rows(_RELATIONS)}


def table_named(name: str, tables: t.Collection[Table]) -> Table | None:
    """Find a declared table: by ``schema.table``, else in ``public``, else wherever it is the only one of that name."""
    for schema, table in tables:
        if f"{schema}.{table}" == name:
            return schema, table
    found = [pair for pair in tables if pair[1] == name]
    return ("public", name) if ("public", name) in found else found[0] if len(found) == 1 else None


def sound(session: Session, declared: Declared, rows: t.Mapping[tuple[str, ...], int], major: int) -> list[Verdict]:
    """Rung 4: required tables, every row that the dump holds, indexes and tables checked by the engine, constraints."""
    tables = tables_of(session)
    if not tables:
        return [Verdict(4, "critical", "wrong database: it has no table at all")]
    missing = [name for name in declared["required_tables"] if table_named(name, tables) is None]
    verdicts = [Verdict(4, "critical", f"wrong database: it lacks the tables {', '.join(missing)}")] if missing else []
    verdicts += _all_rows(session, rows)
    verdicts += _indexes(session, major)
    unchecked = session.rows(_UNCHECKED)
    if unchecked:
        shown = ", ".join(f"{row['schema']}.{row['name']}: {row['constraint']}" for row in unchecked[:_SHOWN])
        verdicts.append(Verdict(4, "warning", f"{len(unchecked)} constraints were never validated in the source: {shown}"))
    return verdicts


def _all_rows(session: Session, rows: t.Mapping[tuple[str, ...], int]) -> t.Iterator[Verdict]:
    wrong = []
    split = "SELECT nspname AS schema, relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'p'"
    partitioned = {(row["schema"], row["name"]) for row in session.rows(split)}
    for parts, count in rows.items():
        name = session.identifier(*parts) if parts in partitioned else f"ONLY {session.identifier(*parts)}"
        kept = int(session.value(f"SELECT count(*) FROM {name}"))  # noqa: S608 - quoted by the driver
        if kept != count:
            wrong.append(f"{'.'.join(parts)} has {kept} of {count}")
    if wrong:
        yield Verdict(4, "critical", f"rows of the dump are missing after the restore: {'; '.join(wrong[:_SHOWN])}")
    elif rows:
        yield Verdict(4, "ok", f"all {sum(rows.values())} rows of {len(rows)} tables are there")


def _indexes(session: Session, major: int) -> list[Verdict]:
    indexes = session.rows(_INDEXES)
    invalid = [f"{row['schema']}.{row['name']}" for row in indexes if not row["is_valid"]]
    if invalid:
        return [Verdict(4, "critical", f"{len(invalid)} invalid indexes: {', '.join(invalid[:_SHOWN])}")]
    with contextlib.suppress(postgresql.StatementError):
        session.execute("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pg_catalog")
    schema = postgresql.extension_schema(session, "amcheck")
    if not schema:
        return [Verdict(4, "unknown", "the extension amcheck is not installed where it was restored, so indexes were not checked")]
    check = session.identifier(schema, "bt_index_check")
    trees = [row for row in indexes if row["is_btree"]]
    try:
        for row in trees:
            session.execute(f"SELECT {check}(%s::oid::regclass, true)", [row["oid"]])
        damaged = _heaps(session, schema) if major >= 14 else []
    except postgresql.StatementError as error:
        return [Verdict(4, "critical" if error.sqlstate.startswith("XX") else "unknown", f"amcheck: {error}")]
    if damaged:
        return [Verdict(4, "critical", f"amcheck finds damaged tables: {', '.join(damaged[:_SHOWN])}")]
    return [Verdict(4, "ok", f"amcheck finds {len(trees)} indexes and every table sound")]


def _heaps(session: Session, schema: str) -> list[str]:
    check = session.identifier(schema, "verify_heapam")
    statement = f"""
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL {check}(relation => c.oid::regclass, on_error_stop => true) AS damage
WHERE c.relkind IN ('r', 'm') AND {_OF_THE_SITE}"""  # noqa: S608 - quoted by the driver
    return [str(row["name"]) for row in session.rows(statement)]


# Rung 5 --------------------------------------------------------------------------------------------------------------


class Measured(t.NamedTuple):
    """What the declaration asks of a database: rows by table, its newest sentinel, all its tables.

    :ivar definitions: of columns, constraints, indexes, views, triggers and functions, as digests by name.
    :ivar roles: every role of the server.
    """

    counts: dict[str, int]
    newest: t.Any
    tables: frozenset[Table]
    definitions: dict[str, str]
    roles: frozenset[str]
    major: int


def measured(session: Session, declared: Declared) -> Measured:
    """Count the declared tables and find the newest sentinel.

    :raises MaintenanceError: a declared table or column is not there.
    """
    tables = tables_of(session)
    counts = {}
    for name in dict.fromkeys([*declared["count_tables"], *declared["minimum_rows"]]):
        counts[name] = int(session.value(f"SELECT count(*) FROM {session.identifier(*_found(name, tables, session))}"))  # noqa: S608
    sentinel, newest = declared["sentinel"], None
    if sentinel:
        table = session.identifier(*_found(sentinel["table"], tables, session))
        column, order = (session.identifier(name) for name in (sentinel["column"], sentinel["order"] or sentinel["column"]))
        newest = session.value(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY {order} DESC LIMIT 1")  # noqa: S608
    definitions = {str(row["name"]): str(row["definition"]) for row in session.rows(_DEFINITIONS)}
    roles = frozenset(str(row["rolname"]) for row in session.rows("SELECT rolname FROM pg_roles"))
    return Measured(counts, newest, frozenset(tables), definitions, roles, postgresql.major_version(session))


def _found(name: str, tables: t.Collection[Table], session: Session) -> Table:
    found = table_named(name, tables)
    if found is None:
        raise MaintenanceError(f"{session.where} has no table {name!r}, or several of that name; declare it as schema.table.")
    return found


def compared(
    kept: Measured, live: Measured | None, declared: Declared, roles: t.Collection[str], now: float, zone: tzinfo | None
) -> tuple[list[Verdict], float | None]:
    """Rung 5: counts against floors and the source, definitions against those of the source, and how far the newest row is behind.

    :param roles: those that the dump names.
    """
    verdicts = []
    for name, floor in declared["minimum_rows"].items():
        if kept.counts[name] < int(floor):
            verdicts.append(Verdict(5, "critical", f"{name}: {kept.counts[name]} rows in the backup, at least {floor} are declared"))
    verdicts += [_count(name, kept, live, declared["count_change_percent"]) for name in kept.counts]
    if live is not None:
        verdicts += _like_the_source(kept, live, roles)
    rpo = None
    if declared["sentinel"]:
        verdict, rpo = _sentinel(kept, live, declared, now, zone)
        verdicts.append(verdict)
    return verdicts, rpo


def _like_the_source(kept: Measured, live: Measured, roles: t.Collection[str]) -> t.Iterator[Verdict]:
    """Compare definitions; what was changed after the backup differs as well, hence no more than a warning."""
    lost = sorted(f"{schema}.{name}" for schema, name in live.tables - kept.tables)
    if lost:
        yield Verdict(5, "warning", f"{len(lost)} tables of the source are not in the backup: {', '.join(lost[:_SHOWN])}")
    differ = sorted(set(kept.definitions) ^ set(live.definitions))
    if kept.major == live.major:  # each version writes some definitions in its own way
        differ += sorted(name for name, digest in kept.definitions.items() if live.definitions.get(name, digest) != digest)
    if differ:
        yield Verdict(5, "warning", f"{len(differ)} definitions are not those of the source: {', '.join(differ[:_SHOWN])}")
    unknown = sorted(role for role in roles if role not in live.roles)
    if unknown:
        yield Verdict(5, "warning", f"the dump names roles that the source has not: {', '.join(unknown[:_SHOWN])}")


def _count(name: str, kept: Measured, live: Measured | None, percent: float) -> Verdict:
    count = kept.counts[name]
    if live is None:
        return Verdict(5, "ok" if count else "warning", f"{name}: {count} rows (no source to compare with)")
    there = live.counts[name]
    differs = abs(there - count) > max(there, count) * percent / 100
    state = "critical" if there and not count else "warning" if differs else "ok"
    return Verdict(5, state, f"{name}: {count} rows in the backup, {there} in the source")


def _sentinel(kept: Measured, live: Measured | None, declared: Declared, now: float, zone: tzinfo | None) -> tuple[Verdict, float | None]:
    what = f"the newest {declared['sentinel']['table']}.{declared['sentinel']['column']}"
    if kept.newest is None:
        lost = live is None or live.newest is not None
        return Verdict(5, "critical" if lost else "ok", f"{what}: there is no row in the backup"), None
    made = _moment(kept.newest, zone)
    last = _moment(live.newest, zone) if live is not None else now
    if live is not None and (
        live.newest is None or (made is None and type(live.newest) is type(kept.newest) and live.newest < kept.newest)
    ):
        return Verdict(5, "warning", f"{what} is newer than in the source: the source lost rows"), None
    if made is None or last is None:
        return Verdict(5, "ok", f"{what} is there"), None
    if live is not None and last < made:
        return Verdict(5, "warning", f"{what} is newer than in the source: the source lost rows"), None
    behind = max(last - made, 0.0)
    limit = may_be_behind(declared)
    text = f"{what} is {human_seconds(behind)} {'behind the source' if live is not None else 'old'}"
    # Without a source nobody can tell an old backup from one of a quiet application.
    state = "critical" if live is not None and behind > limit else "ok"
    return Verdict(5, state, f"{text} (limit {human_seconds(limit)})"), behind


def _moment(value: t.Any, zone: tzinfo | None) -> float | None:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=zone or timezone.utc)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone or timezone.utc).timestamp()
    return None
