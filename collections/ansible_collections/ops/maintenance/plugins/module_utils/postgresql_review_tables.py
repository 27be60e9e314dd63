# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: dead rows, planner statistics, vacuum and freeze, size and growth of tables."""

from __future__ import annotations

import typing as t

from .judge import human_bytes, human_seconds
from .postgresql import Row
from .postgresql_review_common import DAY, SHOWN, About, Check, Fault, Look, Wording, age_of, found, oldest_analyse, percent
from .postgresql_review_sizes import fetch_sizes
from .record import Finding

# Counters come from functions, which know every table whatever the view's joins cost.
TABLES = {
    "oid": "c.oid::bigint",
    "toast": "c.reltoastrelid::bigint",
    "schema": "n.nspname",
    "space": "quote_ident(n.nspname)",
    "plain": "c.relname",
    "table": "quote_ident(c.relname)",
    "kind": "c.relkind",
    "persistence": "c.relpersistence",
    "is_partition": "c.relispartition",
    "planned_rows": "c.reltuples::float8",
    "live": "pg_stat_get_live_tuples(c.oid)",
    "dead": "pg_stat_get_dead_tuples(c.oid)",
    "changed": "pg_stat_get_mod_since_analyze(c.oid)",
    "scans": "pg_stat_get_numscans(c.oid)",
    "scanned": "pg_stat_get_tuples_returned(c.oid)",
    "vacuumed": "extract(epoch FROM greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)))::float8",
    "analysed": "extract(epoch FROM greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)))::float8",
    "options": "coalesce(c.reloptions, '{}')",
    "readable": "has_table_privilege(c.oid, 'SELECT')",
    "filtered": "c.relrowsecurity AND row_security_active(c.oid)",
}
FROM_TABLES = """
pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND c.oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e')"""

OLDEST = """
SELECT oid::regclass::text AS name, xid_age, mxid_age
FROM (
  SELECT oid, age(relfrozenxid) AS xid_age, mxid_age(relminmxid) AS mxid_age
  FROM pg_class WHERE relkind IN ('r', 'm', 't')
  ORDER BY greatest(age(relfrozenxid) / current_setting('autovacuum_freeze_max_age')::float8,
                    mxid_age(relminmxid) / current_setting('autovacuum_multixact_freeze_max_age')::float8) DESC
  LIMIT 50
) c"""

# A role sees the statistics of the columns that it may read.
ANALYSED = """
SELECT DISTINCT schemaname AS schema, tablename AS table FROM pg_stats
WHERE (schemaname, tablename) IN (SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                  WHERE c.oid = ANY(%s::oid[]))"""

SIZE = "SELECT pg_database_size(oid) AS bytes FROM pg_database WHERE datname = current_database()"

DEAD = Wording(
    "postgresql.dead_rows",
    "no table has many dead rows",
    "tables have many dead rows",
    "VACUUM them; where dead rows come back, look for long transactions and lower autovacuum_vacuum_scale_factor for the table.",
    "percent",
)
STATISTICS = Wording(
    "postgresql.statistics",
    "every table with rows was analysed",
    "tables have no planner statistics, or old ones",
    "ANALYZE them; partitioned parents and restored databases are never analysed by themselves.",
    counted=True,
)
VACUUM = Wording(
    "postgresql.vacuum_due",
    "autovacuum keeps up",
    "tables have been due for VACUUM for long",
    "VACUUM them; give autovacuum more workers or a higher autovacuum_vacuum_cost_limit.",
    counted=True,
)
FREEZE = Wording(
    "postgresql.freeze_due",
    "no table is due for freezing",
    "tables are due for freezing",
    "VACUUM (FREEZE) them in a quiet hour, before autovacuum has to.",
    "percent",
)
OFF = Wording(
    "postgresql.autovacuum_tables",
    "autovacuum is on for every table",
    "tables have autovacuum switched off",
    "ALTER TABLE … RESET (autovacuum_enabled), unless a job of the application vacuums them.",
    counted=True,
)
GROWTH = Wording(
    "postgresql.size",
    "",
    "grew more than usual",
    "Find out what fills it; archive or delete old rows, or raise growth_percent.",
    "bytes",
)


def fetch_tables(look: Look) -> list[Row]:
    """Read all tables in one query and their sizes in another, the largest first."""
    if "tables" not in look.once:
        sizes = {row["oid"]: row for row in fetch_sizes(look)}
        indexes: dict[int, int] = {}
        for row in sizes.values():
            if row["table_oid"]:
                indexes[row["table_oid"]] = indexes.get(row["table_oid"], 0) + row["main"]
        nothing = {"main": 0, "maps": 0, "guessed": False}
        tables = look.many(TABLES, FROM_TABLES)
        for table in tables:
            own, toast = sizes.get(table["oid"], nothing), sizes.get(table["toast"], nothing)
            mine = indexes.get(table["oid"], 0)
            total = own["main"] + own["maps"] + toast["main"] + toast["maps"] + mine + indexes.get(table["toast"], 0)
            table.update(
                name=f"{table['space']}.{table['table']}",
                main_bytes=own["main"],
                index_bytes=mine,
                total_bytes=total,
                guessed=own["guessed"],
            )
        look.once["tables"] = sorted(tables, key=lambda table: (-table["total_bytes"], table["name"]))
    return look.once["tables"]


def _stored(tables: t.Iterable[Row]) -> list[Row]:
    return [table for table in tables if table["kind"] != "p"]


def never_counted(table: Row) -> bool:
    """Whether a table holds something of which the counters know nothing: they were reset, or lost in a crash."""
    return bool(table["main_bytes"]) and not table["live"] and not table["dead"] and table["vacuumed"] is None and table["analysed"] is None


def judge_dead(about: About, tables: t.Sequence[Row]) -> list[Finding]:
    """Judge the share of dead rows; a table that the counters do not know is no clean table."""
    limit, least = about.limits["dead_rows_percent"], about.limits["dead_rows_min"]
    faults, lost = [], []
    live, dead = 0, 0
    for table in _stored(tables):
        live, dead = live + table["live"], dead + table["dead"]
        share = percent(table["dead"], table["live"] + table["dead"])
        if never_counted(table):
            lost.append(table["name"])
        elif table["dead"] >= least and share >= limit:
            when = age_of(about, table["vacuumed"])
            vacuumed = "never vacuumed" if when is None else f"vacuumed {human_seconds(when)} ago"
            faults.append(Fault(f"{table['name']}: {share:.0f} percent dead ({table['dead']} rows), {vacuumed}", share))
    about.count("dead_rows_share", percent(dead, live + dead), "percent")
    wording = Wording(
        DEAD.id, DEAD.fine, DEAD.wrong, DEAD.advice, "percent", f"warning from {limit:g} percent and {least:g} rows", basis="estimated"
    )
    unseen = f"{len(lost)} tables have data, but no counters (reset, or lost in a crash): {_some(lost)}" if lost else ""
    remedy, as_of = "ANALYZE them, so that their rows are counted.", oldest_analyse(_stored(tables))
    return found(about, wording, faults, unseen=unseen, remedy=remedy, value=percent(dead, live + dead), as_of=as_of)


def _some(names: t.Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def fetch_statistics(look: Look) -> Row:
    """Read of which tables without a known ANALYZE there are statistics: a load, VACUUM and CREATE INDEX count rows, but make none."""
    tables = fetch_tables(look)
    asked = [table for table in _stored(tables) if table["analysed"] is None and table["main_bytes"]]
    seen = {(row["schema"], row["table"]) for row in look.rows(ANALYSED, [[table["oid"] for table in asked]])} if asked else set()
    names = {table["name"]: (table["schema"], table["plain"]) for table in asked}
    return {"tables": tables, "undated": [name for name, key in names.items() if key in seen]}


def judge_statistics(about: About, facts: Row) -> list[Finding]:
    """Judge when tables were analysed; never is not ok, however few rows changed or have been counted by other means."""
    faults, undated, hidden = [], [], []
    by_name = {table["name"]: table for table in facts["tables"]}
    for table in by_name.values():
        is_parent = table["kind"] == "p"
        if is_parent and about.major < 14:
            continue
        age, rows = age_of(about, table["analysed"]), table["live"]
        changed = percent(table["changed"], rows)
        has_rows = is_parent or bool(table["main_bytes"] or rows)
        if table["name"] in facts["undated"]:
            undated.append(table["name"])
        elif has_rows and age is None and not is_parent and table["planned_rows"] > 0 and (not table["readable"] or table["filtered"]):
            hidden.append(table["name"])
        elif has_rows and (table["planned_rows"] < 0 or (age is None and not is_parent)):
            faults.append(Fault(f"{table['name']}: never analysed", float(table["total_bytes"])))
        elif age is not None and age > about.limits["analyse_days"] * DAY and changed >= about.limits["analyse_changed_percent"]:
            faults.append(Fault(f"{table['name']}: {changed:.0f} percent changed since it was analysed {human_seconds(age)} ago", changed))
    threshold = (
        f"warning when never analysed, or {about.limits['analyse_days']:g} days ago and "
        f"{about.limits['analyse_changed_percent']:g} percent changed since"
    )
    wording = Wording(STATISTICS.id, STATISTICS.fine, STATISTICS.wrong, STATISTICS.advice, "count", threshold, True, "estimated")
    lost = f"{len(undated)} tables have statistics of unknown age, for their counters were reset or lost: {_some(undated)}"
    unread = f"whether {len(hidden)} tables were ever analysed, for want of SELECT on them: {_some(hidden)}"
    unseen = "; ".join(words for words, names in ((lost, undated), (unread, hidden)) if names)
    remedy = "ANALYZE them, so that it is known when that was."
    return found(about, wording, faults, unseen=unseen, remedy=remedy, as_of=oldest_analyse(by_name.values()))


def _option(table: Row, name: str) -> str | None:
    return next((text.partition("=")[2] for text in table["options"] if text.startswith(name + "=")), None)


def vacuum_threshold(about: About, table: Row) -> float:
    """Return from how many dead rows on autovacuum means to vacuum a table."""
    base, scale = (
        float(_option(table, name) or about.setting(name, default))
        for name, default in (("autovacuum_vacuum_threshold", 50), ("autovacuum_vacuum_scale_factor", 0.2))
    )
    highest = about.setting("autovacuum_vacuum_max_threshold", -1)
    due = base + scale * max(float(table["planned_rows"]), 0.0)
    return min(due, highest) if highest >= 0 else due


def judge_vacuum(about: About, tables: t.Sequence[Row]) -> list[Finding]:
    """Judge whether tables that autovacuum has to vacuum were vacuumed lately."""
    hours = about.limits["vacuum_lag_hours"]
    faults = []
    for table in _stored(tables):
        if table["dead"] <= about.limits["dead_rows_min"]:
            continue
        due = max(vacuum_threshold(about, table), about.limits["dead_rows_min"])
        age = age_of(about, table["vacuumed"])
        if table["dead"] > due and (age is None or age > hours * 3600):
            when = "never vacuumed" if age is None else f"vacuumed {human_seconds(age)} ago"
            faults.append(Fault(f"{table['name']}: {table['dead']} dead rows, due from {due:.0f}, {when}", table["dead"]))
    threshold = f"warning when due and not done for {hours:g} hours"
    wording = Wording(VACUUM.id, VACUUM.fine, VACUUM.wrong, VACUUM.advice, "count", threshold, True, "estimated")
    return found(about, wording, faults, as_of=oldest_analyse(_stored(tables)))


def judge_off(about: About, tables: t.Sequence[Row]) -> list[Finding]:
    """Name tables that autovacuum leaves alone."""
    off = [t_ for t_ in _stored(tables) if _option(t_, "autovacuum_enabled") in ("false", "off", "no", "0", "f", "n")]
    return found(about, OFF, [Fault(table["name"], table["main_bytes"]) for table in off])


def judge_freeze(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge the age of the oldest relations against the age at which autovacuum has to freeze them."""
    xids = about.setting("autovacuum_freeze_max_age", 2e8)
    mxids = about.setting("autovacuum_multixact_freeze_max_age", 4e8)
    limit = about.limits["freeze_percent"]
    shares = [(row, max(percent(row["xid_age"], xids), percent(row["mxid_age"], mxids))) for row in rows]
    faults = [Fault(f"{row['name']}: {share:.0f} percent of the way to a forced vacuum", share) for row, share in shares if share >= limit]
    wording = Wording(
        FREEZE.id, FREEZE.fine, FREEZE.wrong, FREEZE.advice, "percent", f"warning from {limit:g} percent of autovacuum_freeze_max_age"
    )
    return found(about, wording, faults, value=max((share for _row, share in shares), default=0.0))


# -- size and growth --


def fetch_size(look: Look) -> Row:
    """Read the size of the database and of its tables."""
    return {"bytes": look.rows(SIZE)[0]["bytes"], "tables": fetch_tables(look)}


def judge_size(about: About, facts: Row) -> list[Finding]:
    """Show the largest tables, and judge growth since the last run."""
    size, tables = facts["bytes"], facts["tables"]
    stored = sorted(_stored(tables), key=lambda table: (-table["total_bytes"], table["name"]))
    largest = stored[:SHOWN]
    about.lists["tables_by_size"] = [
        {
            "table": row["name"],
            "schema": row["schema"],
            **{name: row[name] for name in ("total_bytes", "main_bytes", "index_bytes", "live")},
        }
        for row in largest
    ]
    about.count("size", size, "bytes")
    about.count("tables", len(tables))
    last = about.kept.get("size", {})
    sizes = {"": size, **{row["name"]: row["total_bytes"] for row in stored[:50]}}
    about.keep["size"] = {"time": about.now.timestamp(), "bytes": sizes}
    days = (about.now.timestamp() - last["time"]) / DAY if last else 0.0
    faults = [Fault(line, value) for line, value in _grown(about, last.get("bytes", {}), sizes, days)]
    growth = f", {size - last['bytes']['']:+d} bytes since the last run {days:.1f} days ago" if last else ""
    words = f"{human_bytes(size)} in {len(stored)} tables{growth}"
    threshold = f"warning when it grew {about.limits['growth_percent']:g} percent and {human_bytes(about.limits['growth_min_bytes'])} since the last run"
    wording = Wording(GROWTH.id, words, GROWTH.wrong, GROWTH.advice, "bytes", threshold)
    guessed = [row["name"] for row in stored if row["guessed"]]
    gaps = ["" if last else "growth: there is no earlier run to compare with"]
    gaps.append(f"the present size of tables that are locked: {_some(guessed)}" if guessed else "")
    lines = [f"{row['name']}: {human_bytes(row['total_bytes'])}, of it indexes {human_bytes(row['index_bytes'])}" for row in largest]
    return found(about, wording, faults, value=size, also=lines, not_covered="; ".join(filter(None, gaps)))


def _grown(about: About, last: t.Mapping[str, int], sizes: t.Mapping[str, int], days: float) -> t.Iterator[tuple[str, float]]:
    for name, size in sizes.items():
        more = size - last.get(name, size)
        if more >= about.limits["growth_min_bytes"] and percent(more, last[name]) >= about.limits["growth_percent"]:
            yield f"{name or 'the database'}: {human_bytes(last[name])} → {human_bytes(size)} in {days:.1f} days", more


def bad_tables() -> list[Row]:
    """Return a table with every fault that a table can have."""
    return [
        {
            "name": "public.sample", "schema": "public", "kind": "r", "main_bytes": 10**12, "total_bytes": 10**12, "index_bytes": 0,
            "live": 10**8, "dead": 10**9, "changed": 10**9, "planned_rows": -1.0, "vacuumed": None, "analysed": None,
            "options": ["autovacuum_enabled=false"], "guessed": False, "is_partition": False, "persistence": "u", "readable": True, "filtered": False,
        }
    ]  # fmt: skip


def _bad_statistics() -> Row:
    return {"tables": bad_tables(), "undated": []}


def _bad_size() -> Row:
    return {"bytes": 10**15, "tables": bad_tables()}


CHECKS = (
    Check((DEAD.id,), fetch_tables, judge_dead, bad_tables, primary=True),
    Check((STATISTICS.id,), fetch_statistics, judge_statistics, _bad_statistics, primary=True),
    Check((VACUUM.id,), fetch_tables, judge_vacuum, bad_tables, primary=True),
    Check((OFF.id,), fetch_tables, judge_off, bad_tables, primary=True),
    Check((FREEZE.id,), lambda look: look.rows(OLDEST), judge_freeze, lambda: [{"name": "sample", "xid_age": 2**31 - 1, "mxid_age": 0}]),
    Check((GROWTH.id,), fetch_size, judge_size, _bad_size, sample_kept={"size": {"time": 0.0, "bytes": {"": 10**9}}}),
)
