# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalogue says of the tables that retention rules name, and why a rule cannot be used on them."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import postgresql
from .postgresql import Session
from .postgresql_retention_rules import Named, Rule

DATED = {"timestamp with time zone": "timestamptz", "timestamp without time zone": "timestamp", "date": "date"}
"""Types that a condition column may have, and what a cut-off is cast to."""

ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_KINDS = {"v": "a view", "m": "a materialised view", "f": "a foreign table", "i": "an index", "S": "a sequence", "c": "a type"}


@dataclass(frozen=True)
class Column:
    """One column; ``filled`` says whether an insert may leave it out."""

    type: str
    base: str
    length: int
    required: bool
    generated: bool
    filled: bool


@dataclass(frozen=True)
class Table:
    """One table with all that holds its rows: itself, or its partitions and descendants."""

    oid: int
    named: Named
    kind: str
    owner: str
    columns: dict[str, Column]
    key: list[str]
    leaves: list[Named]
    oids: list[int]
    rows: float
    unlogged: bool
    foreign: bool
    indexed: set[str]


@dataclass(frozen=True)
class Reference:
    """A foreign key of another table (or of the same) that refers to a table."""

    name: str
    action: str
    child: Named
    child_oid: int
    pairs: list[tuple[str, str, str]]
    rows: float
    indexed: bool
    readable: bool

    @property
    def reaches_on(self) -> bool:
        """Whether deleting what is referred to changes the rows that refer to it."""
        return self.action in ("c", "n", "d")


@dataclass
class Facts:
    """What a look at a rule's tables showed; ``problems`` are sentences, each a reason not to use the rule."""

    rule: Rule
    problems: list[str] = field(default_factory=list)
    table: Table | None = None
    archive: Table | None = None
    references: list[Reference] = field(default_factory=list)
    cutoff: str = ""
    null_cutoff: str = ""

    @property
    def source(self) -> Table:
        """The table, of which it is known that it exists."""
        if self.table is None:
            raise AssertionError("rules without a table have problems and go no further")
        return self.table

    def kind_of(self, column: str) -> str:
        """Return what a cut-off for a column is cast to."""
        return DATED[self.source.columns[column].type]

    @property
    def moved(self) -> list[str]:
        """The columns that are copied into the archive; it computes its generated ones itself."""
        there = self.archive.columns if self.archive else {}
        return [name for name in self.source.columns if name not in there or not there[name].generated]


def look(session: Session, rule: Rule, now: str) -> Facts:
    """Look at the tables of a rule.

    :param now: the server's time from which cut-offs count, the same for all rules.
    """
    facts = Facts(rule, table=find_table(session, rule.table))
    shown = f"The rule for {rule.subject}"
    if facts.table is None:
        facts.problems.append(f"{shown} names a table that does not exist; correct table and schema (letter case counts).")
        return facts
    facts.problems += [f"{shown} {why}" for why in _table_faults(session, rule, facts.table)]
    if not facts.problems:
        facts.cutoff = _cutoff(session, rule, now, facts.kind_of(rule.column))
        facts.null_cutoff = _cutoff(session, rule, now, facts.kind_of(rule.null_column)) if rule.null_column else ""
    facts.references = _references(session, facts.table)
    hidden = [reference.name for reference in facts.references if not reference.readable]
    if hidden:
        facts.problems.append(f"{shown} needs SELECT on the tables whose foreign keys refer to it ({', '.join(hidden)}); grant it.")
    if rule.archive:
        facts.archive = find_table(session, rule.archive)
        facts.problems += [f"{shown} {why}" for why in _archive_faults(session, rule, facts)]
    return facts


def find_table(session: Session, named: Named) -> Table | None:
    """Read what the catalogue says of a table; None where there is no such name."""
    found = session.rows(
        "SELECT c.oid::int8 AS oid, relkind::text AS kind, pg_get_userbyid(relowner)::text AS owner "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s",
        list(named),
    )
    if not found:
        return None
    oid = found[0]["oid"]
    parts = session.rows(
        "WITH RECURSIVE tree (oid) AS (SELECT %s::oid UNION SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid) "
        "SELECT c.oid::int8 AS oid, nspname::text AS schema, relname::text AS name, relkind::text AS kind, reltuples AS rows, "
        "relpersistence::text AS persistence, pg_relation_size(c.oid) AS size "
        "FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = relnamespace ORDER BY 2, 3",
        [oid],
    )
    leaves = [part for part in parts if part["kind"] not in ("p", "I")]
    return Table(
        oid,
        named,
        found[0]["kind"],
        found[0]["owner"],
        _columns(session, oid),
        _key(session, oid),
        [(part["schema"], part["name"]) for part in leaves],
        [part["oid"] for part in parts],
        sum(_rows(part) for part in leaves),
        any(part["persistence"] != "p" for part in leaves),
        any(part["kind"] == "f" for part in leaves),
        _leading_columns(session, [part["oid"] for part in leaves]),
    )


def _rows(part: postgresql.Row) -> float:
    """Estimate rows the way the planner does; a table that was never analysed counts with many small rows."""
    return float(part["rows"]) if part["rows"] >= 0 and (part["rows"] or not part["size"]) else part["size"] / 40.0


def _columns(session: Session, oid: int) -> dict[str, Column]:
    found = session.rows(
        "SELECT attname::text AS name, format_type(atttypid, NULL) AS type, format_type(atttypid, atttypmod) AS full_type, "
        "atttypmod AS length, attnotnull AS required, attgenerated <> '' AS generated, atthasdef OR attidentity <> '' AS filled "
        "FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [oid],
    )
    return {
        row["name"]: Column(
            row["full_type"] if row["type"] not in DATED else row["type"],
            row["type"],
            row["length"],
            row["required"],
            row["generated"],
            row["filled"],
        )
        for row in found
    }


def _key(session: Session, oid: int) -> list[str]:
    statement = (
        "SELECT attname::text AS name FROM pg_index i JOIN pg_attribute a ON attrelid = indrelid AND attnum = ANY (indkey) "
        "WHERE indrelid = %s AND indisprimary ORDER BY array_position(indkey::int2[], attnum)"
    )
    return [row["name"] for row in session.rows(statement, [oid])]


def _leading_columns(session: Session, oids: list[int]) -> set[str]:
    """Return the columns that lead a usable index in every one of some tables."""
    found = session.rows(
        "SELECT DISTINCT indrelid::int8 AS oid, attname::text AS name FROM pg_index i JOIN pg_class c ON c.oid = indexrelid "
        "JOIN pg_am ON pg_am.oid = relam JOIN pg_attribute a ON attrelid = indrelid AND attnum = indkey[0] "
        "WHERE indrelid = ANY (%s::oid[]) AND indisvalid AND indpred IS NULL AND amname = 'btree'",
        [oids],
    )
    names: dict[int, set[str]] = {oid: set() for oid in oids}
    for row in found:
        names[row["oid"]].add(row["name"])
    return set.intersection(*names.values()) if names else set()


def _references(session: Session, table: Table) -> list[Reference]:
    found = session.rows(
        "SELECT conname::text AS name, confdeltype::text AS action, conrelid::int8 AS child_oid, nspname::text AS schema, "
        "k.relname::text AS child, has_table_privilege(conrelid, 'SELECT') AS readable, "
        "(SELECT sum(CASE WHEN reltuples > 0 THEN reltuples ELSE pg_relation_size(oid) / 40 END) FROM pg_class "
        " WHERE oid = conrelid OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = conrelid)) AS rows, "
        "EXISTS (SELECT FROM pg_index WHERE indrelid = conrelid AND indisvalid AND indpred IS NULL "
        " AND (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey) AS indexed, "
        "ARRAY (SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS u (n, o) "
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = n ORDER BY o) AS child_columns, "
        "ARRAY (SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS u (n, o) "
        " JOIN pg_attribute ON attrelid = confrelid AND attnum = n ORDER BY o) AS columns, "
        "ARRAY (SELECT format('OPERATOR(%%I.%%s)', s.nspname, oprname) FROM unnest(conpfeqop) WITH ORDINALITY AS u (n, o) "
        " JOIN pg_operator p ON p.oid = n JOIN pg_namespace s ON s.oid = oprnamespace ORDER BY o) AS operators "
        "FROM pg_constraint c JOIN pg_class k ON k.oid = conrelid JOIN pg_namespace s ON s.oid = k.relnamespace "
        "WHERE contype = 'f' AND confrelid = ANY (%s::oid[]) AND NOT EXISTS ("
        " SELECT FROM pg_constraint p WHERE p.oid = c.conparentid AND p.confrelid = ANY (%s::oid[])) ORDER BY schema, child, name",
        [table.oids, table.oids],
    )
    return [
        Reference(
            row["name"],
            row["action"],
            (row["schema"], row["child"]),
            row["child_oid"],
            list(zip(row["columns"], row["operators"], row["child_columns"])),
            float(row["rows"] or 0),
            row["indexed"],
            row["readable"],
        )
        for row in found
    ]


def _cutoff(session: Session, rule: Rule, now: str, kind: str) -> str:
    moment = "CAST(%s AS timestamptz) - make_interval(secs => %s)"
    if kind == "timestamptz":
        return str(session.value(f"SELECT ({moment})::text", [now, rule.age_days * 86400]))
    return str(session.value(f"SELECT (({moment}) AT TIME ZONE %s)::{kind}::text", [now, rule.age_days * 86400, rule.timezone]))


def _table_faults(session: Session, rule: Rule, table: Table) -> t.Iterator[str]:
    if table.kind not in ("r", "p"):
        yield f"names {_KINDS.get(table.kind, 'something else')}, expected a table; name the table that holds the rows."
        return
    if table.foreign:
        yield "names a table of which a part is a foreign table; name the parts that this server holds."
    for option, name in (("column", rule.column), ("null_column_age", rule.null_column)):
        if name and name not in table.columns:
            yield f"has {option} {name!r}, expected one of the table's columns ({', '.join(table.columns)}); correct it."
        elif name and table.columns[name].type not in DATED:
            yield f"has {option} {name!r} of type {table.columns[name].type}, expected timestamp, timestamptz or date; name another."
    for name, _value in rule.equals:
        if name not in table.columns:
            yield f"has equals.{name}, expected one of the table's columns ({', '.join(table.columns)}); correct it."
    try:
        session.value("SELECT now() AT TIME ZONE %s", [rule.timezone])
    except postgresql.StatementError:
        yield f"has timezone {rule.timezone!r}, which PostgreSQL does not know; correct it, for example Europe/Berlin."
    lacking = _lacking(session, [table.named, *table.leaves], ("SELECT", "DELETE", "UPDATE"))
    if lacking:
        yield f"needs {lacking} (UPDATE is what locking a row takes); grant it to the role."


def _lacking(session: Session, tables: t.Sequence[Named], privileges: t.Sequence[str]) -> str:
    """Say which privilege on which table the role lacks; empty when it has all."""
    for named in tables:
        for privilege in privileges:
            asked = "has_any_column_privilege" if privilege == "UPDATE" else "has_table_privilege"
            if not session.value(f"SELECT {asked}(%s, %s)", [session.identifier(*named), privilege]):
                return f"{privilege} on {'.'.join(named)}"
    return ""


def _archive_faults(session: Session, rule: Rule, facts: Facts) -> t.Iterator[str]:
    archive, named = facts.archive, ".".join(rule.archive or ())
    if archive is None:
        yield from _creation_faults(session, rule, named)
        return
    if archive.kind not in ("r", "p") or archive.foreign:
        yield f"archives into {named}, which is {_KINDS.get(archive.kind, 'a foreign table')}, expected a table; name another."
        return
    if set(archive.oids) & set(facts.source.oids):
        yield f"archives into {named}, which is part of the table itself; name another."
    if archive.unlogged:
        yield f"archives into {named}, which is unlogged or temporary, so a crash would empty it; ALTER TABLE … SET LOGGED."
    wrong = column_faults(facts.source.columns, archive.columns)
    if wrong:
        yield f"archives into {named}, whose columns do not fit ({'; '.join(wrong)}); nothing is moved until they do."
    lacking = _lacking(session, [archive.named], ("INSERT", "SELECT"))
    if lacking:
        yield f"needs {lacking}; grant it to the role."


def _creation_faults(session: Session, rule: Rule, named: str) -> t.Iterator[str]:
    schema = (rule.archive or ("", ""))[0]
    if not rule.options["create_archive"]:
        yield f"archives into {named}, which does not exist; create it, correct the name, or set create_archive: true."
    elif not session.value("SELECT count(*) FROM pg_namespace WHERE nspname = %s", [schema]):
        yield f"is to create {named}, but there is no schema {schema!r}; create it or correct archive_schema."
    elif not session.value("SELECT has_schema_privilege(%s, 'CREATE')", [schema]):
        yield f"is to create {named}, but the role may not create tables in schema {schema!r}; grant it or create the table."


def column_faults(source: t.Mapping[str, Column], archive: t.Mapping[str, Column]) -> list[str]:
    """Say why rows of a table would not fit into its archive, column by column."""
    wrong = []
    for name, column in source.items():
        there = archive.get(name)
        if there is None:
            wrong.append(f"{name} is missing there")
        elif not _holds(there, column):
            wrong.append(f"{name} is {there.type} there, expected {column.type}")
    wrong += [
        f"{name} is required there, but the table has no such column"
        for name, column in archive.items()
        if name not in source and column.required and not column.filled
    ]
    return wrong


def _holds(archive: Column, source: Column) -> bool:
    """Whether a column of the archive takes every value of the table's column unchanged."""
    if archive.base == source.base:
        return archive.length == source.length or archive.length == -1
    return archive.base == "text" and source.base == "character varying"
