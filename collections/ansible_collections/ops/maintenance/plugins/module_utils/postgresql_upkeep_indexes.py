# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes of a database: how bloated they are, which are invalid, and which are left over from a rebuild that was cut short."""

from __future__ import annotations

import math
import re
import typing as t
from dataclasses import dataclass

from .postgresql import Session, StatementError, extension_schema
from .postgresql_upkeep_options import Limits
from .postgresql_upkeep_tables import allowed_sql, reading, tablespace_sql
from .record import Json

_INDEXES = """
WITH {locked}, busy AS (
  SELECT DISTINCT relation FROM pg_locks
  WHERE locktype = 'relation' AND mode IN ('ShareUpdateExclusiveLock', 'ShareLock') AND granted AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT i.indexrelid::bigint AS oid, i.indrelid::bigint AS table_oid, n.nspname AS schema, x.relname AS name,
  coalesce(mn.nspname, n.nspname) AS table_schema, coalesce(m.relname, c.relname) AS table_name,
  am.amname AS method, x.relkind = 'I' AS partitioned, i.indisvalid AS valid, i.indisexclusion AS exclusion,
  i.indrelid IN (SELECT relation FROM busy) AS busy,
  i.indrelid IN (SELECT relation FROM locked) OR i.indexrelid IN (SELECT relation FROM locked) AS locked,
  CASE WHEN x.relkind = 'I' THEN 0
       WHEN {sizes} AND i.indrelid NOT IN (SELECT relation FROM locked) AND i.indexrelid NOT IN (SELECT relation FROM locked)
       THEN pg_relation_size(x.oid)
       ELSE x.relpages::bigint * current_setting('block_size')::bigint END AS size,
  greatest(c.relpages, 1)::bigint * current_setting('block_size')::bigint AS table_size,
  x.reltuples::float8 AS rows, current_setting('block_size')::int AS block,
  coalesce((SELECT option_value::int FROM pg_options_to_table(x.reloptions) WHERE option_name = 'fillfactor'), 90) AS fillfactor,
  concat_ws('|', i.indkey::text, i.indclass::text, i.indcollation::text, i.indoption::text, i.indisunique::text, x.relam::text,
    regexp_replace(i.indexprs::text, ':location -?\\d+', '', 'g'), '|', regexp_replace(i.indpred::text, ':location -?\\d+', '', 'g')) AS definition,
  {tablespace} AS tablespace,
  {allowed} AS allowed
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_am am ON am.oid = x.relam
  LEFT JOIN pg_class m ON m.reltoastrelid = c.oid AND c.relkind = 't' LEFT JOIN pg_namespace mn ON mn.oid = m.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast_)?temp' AND x.relpersistence <> 't'
  AND coalesce(mn.nspname, '') <> 'pg_catalog'
ORDER BY n.nspname, x.relname
"""

# Widths of the keys; those of an expression are kept under the index's own name.
_WIDTHS = """
SELECT i.indexrelid::bigint AS oid, count(*) = count(s.avg_width) AS complete, sum((1 - s.null_frac) * s.avg_width)::float8 AS width
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
  LEFT JOIN pg_attribute a ON a.attrelid = CASE WHEN k.attnum = 0 THEN i.indexrelid ELSE i.indrelid END
    AND a.attnum = CASE WHEN k.attnum = 0 THEN k.place ELSE k.attnum END
  LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = CASE WHEN k.attnum = 0 THEN x.relname ELSE c.relname END
    AND s.attname = a.attname AND NOT s.inherited
WHERE i.indexrelid = ANY(%s::oid[])
GROUP BY i.indexrelid
"""

_LEFTOVER = re.compile(r"^(?P<base>.+)_cc(new|old)\d*$")
_PAGE_OVERHEAD, _ENTRY_OVERHEAD = 40, 12


@dataclass(frozen=True)
class Index:
    """One index as the catalogue shows it; ``table_name`` is the owning table where it is an index of its TOAST."""

    oid: int
    table_oid: int
    schema: str
    name: str
    table_schema: str
    table_name: str
    method: str
    partitioned: bool
    valid: bool
    exclusion: bool
    busy: bool
    locked: bool
    size: int
    table_size: int
    rows: float
    block: int
    fillfactor: int
    definition: str
    tablespace: str
    allowed: bool

    @property
    def key(self) -> str:
        """The index's name in the kept state."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Bloat:
    """How much of an index is not needed."""

    percent: float
    lost: int
    basis: str


def read_indexes(session: Session) -> list[Index]:
    """Return every index that is not of the system catalogue, those of TOAST included."""
    return [Index(**row) for row in reading(session, _INDEXES, allowed=allowed_sql(session), tablespace=tablespace_sql("x"))]


def twin_of(index: Index, indexes: t.Sequence[Index]) -> Index | None:
    """Return the index that an invalid ``_ccnew`` or ``_ccold`` was a copy of: same table, same definition, fitting name.

    PostgreSQL shortens a long name before it appends the suffix.
    """
    match = _LEFTOVER.match(index.name)
    if index.valid or index.partitioned or not match:
        return None
    base = match.group("base")
    shortened = len(index.name.encode()) >= 62
    for other in indexes:
        fits = other.name == base or (shortened and other.name.startswith(base))
        if other.oid != index.oid and other.table_oid == index.table_oid and fits and other.definition == index.definition:
            return other
    return None


def leftovers(indexes: t.Sequence[Index], there_before: t.Container[int]) -> list[Index]:
    """Return invalid copies beside a valid index: what a rebuild left that was cut short. Nothing else may be dropped.

    :param there_before: oids from before this run; a copy beside an invalid index is dropped when this run's own rebuild left it.
    """
    found = ((index, twin_of(index, indexes)) for index in indexes)
    return [index for index, twin in found if twin is not None and (twin.valid or index.oid not in there_before)]


def invalid(indexes: t.Sequence[Index]) -> list[Index]:
    """Return invalid indexes that have to be rebuilt: no copy of another one, and no rebuild works on them right now."""
    return [index for index in indexes if not index.valid and not index.partitioned and not twin_of(index, indexes)]


def is_due(bloat: Bloat | None, limits: Limits) -> bool:
    """Whether an index is bloated enough to be rebuilt."""
    return bloat is not None and bloat.percent >= limits.reindex_bloat_percent and bloat.lost >= limits.reindex_bloat_bytes


def measured(index: Index, stat: t.Mapping[str, Json]) -> Bloat:
    """Return the bloat from what pgstatindex counted: half-empty leaves, empty and deleted pages."""
    pages = max(1, index.size // index.block)
    density = float(stat["avg_leaf_density"])
    used = int(stat["leaf_pages"]) * min(1.0, density / index.fillfactor) if not math.isnan(density) else 0.0  # no leaf at all
    needed = 1 + int(stat["internal_pages"]) + used
    lost = max(0.0, pages - needed)
    return Bloat(100.0 * lost / pages, int(lost * index.block), "exact")


def estimated(index: Index, width: float) -> Bloat:
    """Return the bloat from the number of rows and the width of the keys; duplicates, which share space, make it look smaller."""
    entry = _ENTRY_OVERHEAD + 8 * -(-width // 8)
    per_page = max(1.0, (index.block - _PAGE_OVERHEAD) * index.fillfactor / 100 // entry)
    return from_needed(index, (2 + max(0.0, index.rows) / per_page * 1.01) * index.block)


def from_needed(index: Index, needed: float) -> Bloat:
    """Return the bloat of an index that would need so many bytes when it were new."""
    lost = max(0.0, index.size - needed)
    return Bloat(100.0 * lost / index.size if index.size else 0.0, int(lost), "estimated")


@dataclass
class Survey:
    """The bloat of the indexes of a database, and what could not be told."""

    bloat: dict[int, Bloat]
    not_told: dict[str, str]


def survey(
    session: Session,
    indexes: t.Sequence[Index],
    limits: t.Callable[[Index], Limits],
    kept: t.Mapping[str, t.Mapping[str, float]],
    *,
    measure: bool,
    out_of_time: t.Callable[[], bool],
) -> Survey:
    """Find out how bloated every index is that is large enough to matter.

    :param kept: bytes and rows of indexes when they were last rebuilt, which beats every estimate by widths.
    :param measure: read them with pgstattuple where it is installed.
    """
    found = Survey({}, {})
    candidates = []
    for index in indexes:
        if not index.valid or index.partitioned or limits(index).skip or limits(index).reindex == "never":
            continue
        if index.size >= max(limits(index).reindex_bloat_bytes, 2 * index.block):
            candidates.append(index)
    schema = extension_schema(session, "pgstattuple") if measure else ""
    rest = []
    for index in candidates:
        bloat = None
        if index.locked:
            found.not_told[index.key] = "somebody has it locked"
            continue
        if schema and index.method == "btree" and not out_of_time():
            bloat = _measure(session, schema, index)
        if bloat:
            found.bloat[index.oid] = bloat
        else:
            rest.append(index)
    _estimate(session, rest, kept, found)
    return found


def _measure(session: Session, schema: str, index: Index) -> Bloat | None:
    statement = f"SELECT * FROM {session.identifier(schema, 'pgstatindex')}(%s::oid::regclass)"  # noqa: S608 - quoted
    try:
        return measured(index, session.rows(statement, [index.oid])[0])
    except StatementError as error:
        if not error.sqlstate:
            raise
        return None


def _estimate(session: Session, rest: t.Sequence[Index], kept: t.Mapping[str, t.Mapping[str, float]], found: Survey) -> None:
    unknown = []
    for index in rest:
        then = kept.get(index.key)
        if then and then.get("rows", 0) > 0 and index.rows >= 0:
            found.bloat[index.oid] = from_needed(index, then["bytes"] * max(index.rows / then["rows"], 2 * index.block / then["bytes"]))
        elif index.method != "btree":
            found.not_told[index.key] = f"the bloat of a {index.method} index can only be told after one rebuild here"
        else:
            unknown.append(index)
    widths = {row["oid"]: row for row in session.rows(_WIDTHS, [[index.oid for index in unknown]])} if unknown else {}
    for index in unknown:
        row = widths.get(index.oid)
        if row and row["complete"] and index.rows >= 0:
            found.bloat[index.oid] = estimated(index, row["width"])
        else:
            found.not_told[index.key] = "no statistics of its columns (never analysed, or no right to read them)"


_MEASURE = """
SELECT pg_relation_size(x.oid) AS size_bytes, i.indisvalid AS valid, x.relfilenode::bigint AS file, x.reltuples::float8 AS rows
FROM pg_class x JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_index i ON i.indexrelid = x.oid
WHERE n.nspname = %s AND x.relname = %s
"""


def measure_index(session: Session, schema: str, name: str) -> dict[str, Json]:
    """Return the figures of one index before or after work; empty when there is none of that name."""
    found = session.rows(_MEASURE, [schema, name])
    return found[0] if found else {}
