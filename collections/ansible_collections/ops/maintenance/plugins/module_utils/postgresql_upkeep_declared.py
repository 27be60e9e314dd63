# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory declares to be in a database: indexes, and extensions in the version that is installed on the host."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .postgresql import Session
from .postgresql_upkeep_options import Params, split_name
from .record import Json

_INDEX = """
SELECT c.relname AS table_name, tn.nspname AS table_schema, i.indisvalid AS valid, i.indisunique AS unique, am.amname AS method,
  i.indpred IS NOT NULL AS partial, i.indnkeyatts AS keys,
  ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0 ORDER BY k.place) AS columns
FROM pg_class x JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_index i ON i.indexrelid = x.oid
  JOIN pg_am am ON am.oid = x.relam JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = c.relnamespace
WHERE n.nspname = %s AND x.relname = %s
"""

_TABLE = """
SELECT c.oid::bigint AS oid, c.relkind::text AS kind, c.relpages::bigint * current_setting('block_size')::bigint AS size,
  ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'm')
"""


def find_table(session: Session, name: str) -> dict[str, Json] | None:
    """Return oid, kind, size and columns of a table that an option names; None when there is none of that name."""
    found = session.rows(_TABLE, list(split_name(name)))
    return found[0] if found else None


@dataclass(frozen=True)
class Declared:
    """One declared index against what is there: ``ok``, ``build`` (absent), ``differs``, ``invalid`` or ``wrong`` (cannot be built)."""

    spec: Params
    state: str
    words: str
    table: t.Mapping[str, Json]

    @property
    def schema(self) -> str:
        """The schema of the table, and so of the index."""
        return split_name(self.spec["table"])[0]


def look_at_index(session: Session, spec: Params) -> Declared:
    """Compare a declared index with the database; ``IF NOT EXISTS`` would take an invalid one for good."""
    table = find_table(session, spec["table"])
    if table is None:
        words = f"table {spec['table']} does not exist (names are taken as written, case counts); correct the table of index {spec['name']}"
        return Declared(spec, "wrong", words, {})
    missing = [name for name in [*spec["columns"], *spec["include"]] if name not in table["columns"]]
    if missing:
        words = f"table {spec['table']} has no column {', '.join(missing)}; correct the columns of index {spec['name']}"
        return Declared(spec, "wrong", words, table)
    if table["kind"] == "p":
        words = f"{spec['table']} is partitioned, and PostgreSQL cannot build an index on it concurrently; declare it on each partition"
        return Declared(spec, "wrong", words, table)
    schema, name = split_name(spec["table"])
    found = session.rows(_INDEX, [schema, spec["name"]])
    if not found:
        return Declared(spec, "build", "it does not exist", table)
    gaps = differences(found[0], spec, schema, name)
    if gaps:
        return Declared(spec, "differs", f"it exists, but {', '.join(gaps)}", table)
    if not found[0]["valid"]:
        return Declared(spec, "invalid", "it is invalid: the planner does not use it", table)
    return Declared(spec, "ok", "it exists and is valid", table)


def differences(found: t.Mapping[str, Json], spec: Params, schema: str, table: str) -> list[str]:
    """Say in what an index is not the declared one."""
    gaps = []
    if (found["table_schema"], found["table_name"]) != (schema, table):
        gaps.append(f"on table {found['table_schema']}.{found['table_name']}")
    columns = [name or "an expression" for name in found["columns"]]
    if columns != [*spec["columns"], *spec["include"]] or found["keys"] != len(spec["columns"]):
        gaps.append(f"on {', '.join(columns)}")
    if found["unique"] != spec["unique"]:
        gaps.append("unique" if found["unique"] else "not unique")
    if found["method"] != spec["method"]:
        gaps.append(f"with method {found['method']}")
    if found["partial"] != bool(spec["where"].strip()):
        gaps.append("with a condition" if found["partial"] else "without a condition")
    return gaps


def create_statement(session: Session, spec: Params) -> str:
    """Return the statement that builds a declared index while the table stays in use."""
    schema, table = split_name(spec["table"])

    def names(columns: t.Sequence[str]) -> str:
        return ", ".join(session.identifier(column) for column in columns)

    unique = "UNIQUE " if spec["unique"] else ""
    include = f" INCLUDE ({names(spec['include'])})" if spec["include"] else ""
    where = f" WHERE {spec['where']}" if spec["where"].strip() else ""
    return (
        f"CREATE {unique}INDEX CONCURRENTLY {session.identifier(spec['name'])} ON {session.identifier(schema, table)} "
        f"USING {session.identifier(spec['method'])} ({names(spec['columns'])}){include}{where}"
    )


_EXTENSIONS = """
SELECT e.extname AS name, e.extversion AS installed, a.default_version AS available,
  e.extversion = a.default_version OR EXISTS (
    SELECT FROM pg_extension_update_paths(e.extname) p WHERE p.source = e.extversion AND p.target = a.default_version AND p.path IS NOT NULL
  ) AS reachable
FROM pg_extension e LEFT JOIN pg_available_extensions a ON a.name = e.extname
WHERE e.extname = ANY(%s)
"""


@dataclass(frozen=True)
class Extension:
    """An extension of a database: the version it has, and the one that the host's packages bring (empty: none)."""

    name: str
    installed: str
    available: str | None
    reachable: bool

    @property
    def due(self) -> bool:
        """Whether an update leads to another version."""
        return bool(self.available) and self.installed != self.available and self.reachable


def read_extensions(session: Session, names: t.Sequence[str]) -> list[Extension]:
    """Return those of the named extensions that are in this database."""
    return [Extension(**row) for row in session.rows(_EXTENSIONS, [list(names)])] if names else []


def preloaded(session: Session, name: str) -> bool:
    """Whether an extension that only works when it is preloaded is; true for all others."""
    if name != "pg_stat_statements":
        return True
    libraries = str(session.value("SELECT current_setting('shared_preload_libraries', true)") or "")
    return name in [library.strip().strip('"') for library in libraries.split(",")]
