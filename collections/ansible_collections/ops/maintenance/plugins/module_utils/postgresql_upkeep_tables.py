# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of a database: what the counters say of them, and whether VACUUM or ANALYZE is due."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

from .judge import human_bytes
from .postgresql import LOCK_NOT_AVAILABLE, Session, StatementError, extension_schema, major_version
from .postgresql_upkeep_options import Limits
from .record import Json

# The size of a table that somebody has locked would have to be waited for, so that of the last VACUUM is taken.
LOCKED = """
locked AS (
  SELECT DISTINCT relation FROM pg_locks
  WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""

_TABLES = """
WITH {locked}
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
  n.nspname IN ('pg_catalog', 'information_schema') AS of_system,
  CASE WHEN c.relkind = 'p' THEN 0
       WHEN {sizes} AND c.oid NOT IN (SELECT relation FROM locked) THEN pg_relation_size(c.oid)
       ELSE greatest(c.relpages, 1)::bigint * current_setting('block_size')::bigint END AS size,
  pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead,
  pg_stat_get_mod_since_analyze(c.oid) AS changed,
  greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) AS vacuumed,
  greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed,
  pg_stat_get_last_autoanalyze_time(c.oid) AS autoanalyzed,
  CASE WHEN c.relkind = 'p' THEN 0 ELSE greatest(age(c.relfrozenxid), coalesce(age(toast.relfrozenxid), 0),
    mxid_age(c.relminmxid), coalesce(mxid_age(toast.relminmxid), 0)) END AS frozen_age,
  c.relkind = 'p' AND EXISTS (SELECT FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND s.inherited)
    AS has_statistics,
  CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid::bigint ELSE 0 END AS root,
  {allowed} AS allowed
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY n.nspname, c.relname
"""

_OWNER = "pg_has_role(c.relowner, 'USAGE')"
_MAINTAINER = f"({_OWNER} OR has_table_privilege(c.oid, 'MAINTAIN'))"
_OF_DATABASE = "(SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database())"


@dataclass(frozen=True)
class Table:
    """One table as the catalogue and the counters show it."""

    oid: int
    schema: str
    name: str
    kind: str
    of_system: bool
    size: int
    live: int
    dead: int
    changed: int
    vacuumed: datetime | None
    analyzed: datetime | None
    autoanalyzed: datetime | None
    frozen_age: int
    has_statistics: bool
    root: int
    allowed: bool

    @property
    def never_counted(self) -> bool:
        """Whether nothing was ever counted for it, or the counters were lost (a crash and pg_stat_reset do that)."""
        return self.vacuumed is None and self.analyzed is None

    @property
    def dead_percent(self) -> float:
        """Share of dead rows."""
        return 100.0 * self.dead / (self.live + self.dead) if self.dead else 0.0


def allowed_sql(session: Session) -> str:
    """Return the condition on pg_class ``c`` that the session's role may maintain the table."""
    return _MAINTAINER if major_version(session) >= 17 else _OWNER


def tablespace_sql(relation: str) -> str:
    """Return the folder of the tablespace that a row of pg_class lies in, its database's own included; empty for the data folder."""
    own = "(SELECT dattablespace FROM pg_database WHERE datname = current_database())"
    return f"pg_tablespace_location(coalesce(nullif({relation}.reltablespace, 0), {own}))"


def reading(session: Session, statement: str, **parts: str) -> list[dict[str, Json]]:
    """Run a query on sizes; where a lock came in between, sizes are those of the last VACUUM."""
    for sizes in ("true", "false"):
        try:
            return session.rows(statement.format(locked=LOCKED, sizes=sizes, **parts))
        except StatementError as error:
            if error.sqlstate != LOCK_NOT_AVAILABLE or sizes == "false":
                raise
    raise AssertionError("unreachable")


def read_tables(session: Session) -> list[Table]:
    """Return every table, materialised view and partitioned table of a database; those of the system for their age only."""
    return [Table(**row) for row in reading(session, _TABLES, allowed=f"({allowed_sql(session)} OR {_OF_DATABASE})")]


def vacuum_reason(table: Table, limits: Limits) -> str:
    """Say why VACUUM is due; empty when it is not."""
    if table.kind == "p" or limits.skip:
        return ""
    if table.frozen_age >= limits.freeze_age:
        return f"its oldest transaction is {table.frozen_age} transactions back (limit {limits.freeze_age})"
    if table.of_system:
        return ""
    if table.dead >= limits.vacuum_dead_rows and table.dead_percent >= limits.vacuum_dead_percent:
        return f"{table.dead} dead rows, {table.dead_percent:.0f} percent (limit {limits.vacuum_dead_percent:g})"
    if table.never_counted and table.size > 0:
        return "it was never vacuumed, or its counters were lost"
    return ""


def is_freeze(table: Table, limits: Limits) -> bool:
    """Whether the age of its transactions is what makes VACUUM due."""
    return table.frozen_age >= limits.freeze_age


def analyze_reason(table: Table, limits: Limits) -> str:
    """Say why ANALYZE is due for a table that holds rows itself; empty when it is not."""
    if table.kind == "p" or table.of_system or limits.skip:
        return ""
    if table.analyzed is None:
        return "it was never analysed, or its counters were lost" if table.size > 0 else ""
    share = 100.0 * table.changed / max(1, table.live)
    if table.changed >= limits.analyze_changed_rows and share >= limits.analyze_changed_percent:
        return f"{table.changed} rows changed since the last ANALYZE, {share:.0f} percent (limit {limits.analyze_changed_percent:g})"
    return ""


def parent_reason(parent: Table, partitions: t.Sequence[Table], due: t.Container[int], limits: Limits) -> str:
    """Say why ANALYZE is due for a partitioned table, which autovacuum never analyses; it covers its partitions too."""
    if limits.skip or not any(part.size > 0 for part in partitions):
        return ""
    if not parent.has_statistics:
        return "the partitioned table itself was never analysed"
    waiting = [part for part in partitions if part.oid in due]
    if waiting:
        return f"{len(waiting)} of its {len(partitions)} partitions are due, and so is it"
    since = parent.analyzed
    newer = [part for part in partitions if since and part.autoanalyzed and part.autoanalyzed > since]
    if newer:
        return f"autovacuum analysed {len(newer)} of its partitions since, but never the partitioned table"
    return ""


def analyses(tables: t.Sequence[Table], limits: t.Callable[[Table], Limits], every: bool = False) -> list[tuple[Table, str]]:
    """Return the tables to analyse with the reason, worst first; what a partitioned table covers is not analysed twice.

    :param every: all that have rows, because the counters are going to be reset.
    """
    leaves: dict[int, list[Table]] = {}
    for table in tables:
        if table.root and table.kind != "p":
            leaves.setdefault(table.root, []).append(table)
    words = "the counters are reset"
    own = {table.oid: analyze_reason(table, limits(table)) or (words if every and _has_rows(table) else "") for table in tables}
    due = {oid for oid, reason in own.items() if reason}
    chosen: list[tuple[Table, str]] = []
    covered: set[int] = set()
    for table in tables:
        if table.kind == "p" and not table.root:
            reason = parent_reason(table, leaves.get(table.oid, []), due, limits(table))
            if reason:
                chosen.append((table, reason))
                covered |= {part.oid for part in leaves.get(table.oid, [])}
    chosen += [(table, own[table.oid]) for table in tables if own[table.oid] and table.oid not in covered]
    return sorted(chosen, key=lambda pair: (pair[0].analyzed is not None and pair[0].kind != "p", -pair[0].changed))


def _has_rows(table: Table) -> bool:
    return table.kind != "p" and not table.of_system and table.size > 0


def vacuums(tables: t.Sequence[Table], limits: t.Callable[[Table], Limits]) -> list[tuple[Table, str]]:
    """Return the tables to vacuum with the reason, worst first: age before dead rows, many before few."""
    chosen = [(table, vacuum_reason(table, limits(table))) for table in tables]
    return sorted(
        (pair for pair in chosen if pair[1]),
        key=lambda pair: (not is_freeze(pair[0], limits(pair[0])), -pair[0].dead, -pair[0].frozen_age),
    )


_MEASURE = """
SELECT pg_table_size(c.oid) AS size_bytes, pg_stat_get_live_tuples(c.oid) AS live_rows, pg_stat_get_dead_tuples(c.oid) AS dead_rows,
  CASE WHEN c.relkind = 'p' THEN 0 ELSE age(c.relfrozenxid) END AS frozen_age, c.relfilenode::bigint AS file,
  pg_stat_get_last_vacuum_time(c.oid)::text AS last_vacuum, pg_stat_get_last_analyze_time(c.oid)::text AS last_analyze
FROM pg_class c WHERE c.oid = %s
"""


def measure(session: Session, oid: int) -> dict[str, Json]:
    """Return the figures of one table before or after work; empty when it is gone."""
    found = session.rows(_MEASURE, [oid])
    return found[0] if found else {}


_HOLDERS = """
SELECT 'session ' || pid || ' of ' || coalesce(usename, '?') || ' (' || coalesce(nullif(application_name, ''), 'no name') || '), in a'
  || ' transaction since ' || date_trunc('second', xact_start)::text AS who
FROM pg_stat_activity
WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid() AND xact_start < %(since)s::timestamptz
  AND application_name <> %(own)s
UNION ALL
SELECT 'prepared transaction ' || gid || ' since ' || date_trunc('second', prepared)::text FROM pg_prepared_xacts
WHERE prepared < %(since)s::timestamptz
UNION ALL
SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE xmin IS NOT NULL
"""


def holders(session: Session, since: str, own: str) -> list[str]:
    """Name what has kept dead rows from being removed since before a time: old transactions, prepared ones, slots."""
    return [str(row["who"]) for row in session.rows(_HOLDERS, {"since": since, "own": own})]


def measured_bloat(session: Session, table: Table) -> tuple[float, int] | None:
    """Return share (percent) and bytes of a table that are dead or free, by reading it all; None without pgstattuple.

    :raises StatementError: it is locked, or the role may not.
    """
    schema = extension_schema(session, "pgstattuple")
    if not schema:
        return None
    reader = session.identifier(schema, "pgstattuple")
    statement = f"SELECT table_len, dead_tuple_len + free_space AS lost FROM {reader}(%s::oid::regclass)"  # noqa: S608 - quoted
    found = session.rows(statement, [table.oid])[0]
    return (100.0 * found["lost"] / found["table_len"] if found["table_len"] else 0.0), int(found["lost"])


def shown(before: t.Mapping[str, Json], after: t.Mapping[str, Json]) -> str:
    """Say in words what became of dead rows and size."""
    if not before or not after:
        return ""
    sizes = f"{human_bytes(before['size_bytes'])} → {human_bytes(after['size_bytes'])}"
    return f"dead rows {before['dead_rows']} → {after['dead_rows']}, {sizes}"
