# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: slow statements, failed transactions, temporary files, deadlocks."""

from __future__ import annotations

import re
import typing as t

from .judge import human_bytes
from .postgresql import Row, extension_schema
from .postgresql_review_common import DAY, MARK, READ_ALL_STATS, SHOWN, About, Check, Fault, Look, Wording, filled, found, iso, percent
from .record import Finding

# Letters, and with digits and $ what a word goes on with; all that is no ASCII is a letter. To name that range takes long.
_LETTER, _PART, _WORD = r"[^\x00-@\[-^`{-\x7f]", r"[^\x00-/:-@\[-^`{-\x7f]", r"[^\x00-#%-/:-@\[-^`{-\x7f]"

# Ends of quoted things may be missing: the text of a statement can be cut off.
_TOKEN = re.compile(
    rf"""
      (?P<comment>--[^\n]*|/\*.*?(?:\*/|$))
    | (?P<name>"(?:[^"]|"")*(?:"|$))
    | (?P<dollar>\$(?P<tag>{_LETTER}{_PART}*|)\$.*?(?:\$(?P=tag)\$|$))
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*(?:'|\\?$))
    | (?P<text>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|$))
    | (?P<parameter>\$\d+)
    | (?P<word>{_LETTER}{_WORD}*)
    | (?P<number>\.?\d[\w.]*(?:(?<=[eE])[+-]?\d+)?)
    | (?P<space>\s+)
    """,
    re.VERBOSE | re.DOTALL,
)


def normalised(statement: str, limit: int = 160) -> str:
    """Return a statement without its literals and comments, on one line.

    ``pg_stat_statements`` does most of that itself, but leaves utility statements as they were typed.
    """

    def shown(match: re.Match[str]) -> str:
        kind = match.lastgroup if match.lastgroup != "tag" else "dollar"
        if kind in ("comment", "space"):
            return " "
        return "?" if kind in ("dollar", "escaped", "text", "number") else match.group()

    text = re.sub(r"\s+", " ", _TOKEN.sub(shown, statement)).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


# -- slow statements --

STATEMENTS = """
WITH named AS (
  SELECT d.datname, s.queryid::text AS queryid, left(s.query, 4000) AS query, s.calls, s.rows,
         s.{total} AS total_ms, s.{mean} AS mean_ms, s.calls >= %s AS often
  FROM {view} s JOIN pg_database d ON d.oid = s.dbid
  WHERE s.query NOT LIKE %s AND s.calls > 0
), ranked AS (
  SELECT named.*, row_number() OVER (PARTITION BY datname ORDER BY total_ms DESC) AS by_total,
         row_number() OVER (PARTITION BY datname, often ORDER BY mean_ms DESC) AS by_mean,
         count(*) FILTER (WHERE often AND mean_ms >= %s) OVER (PARTITION BY datname) AS slow
  FROM named
)
SELECT * FROM ranked WHERE by_total <= {shown} OR (often AND by_mean <= {shown})"""

# What every statement took that took as long as one slow call does: what a later run is compared with.
TOTALS = """
SELECT d.datname AS database, s.queryid::text || '/' || s.userid::text AS key, min(left(s.query, 1000)) AS query,
       sum(s.calls)::bigint AS calls, sum(s.{total})::float8 AS total_ms
FROM {view} s JOIN pg_database d ON d.oid = s.dbid
WHERE s.query NOT LIKE %s AND s.calls > 0
GROUP BY 1, 2 HAVING sum(s.{total}) >= %s"""

WHO_RAN = "SELECT DISTINCT userid::text AS oid FROM {view}"

COUNTING = "SELECT stats_reset AS since, dealloc AS lost FROM {view}"

COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""

WHY_NOT_COUNTED = "Add it to shared_preload_libraries, restart in a maintenance window, then CREATE EXTENSION pg_stat_statements."

SLOW = Wording(
    "postgresql.slow_statements",
    "no statement is slow on average",
    "statements are slow on average",
    "Look at their plans with EXPLAIN (ANALYZE, BUFFERS) on a copy; indexes, statistics and batch sizes are the usual remedies.",
    "milliseconds",
    basis="estimated",
)


def fetch_statements(look: Look) -> Row:
    """Read the statements of every database once a server, in the first session whose database has the extension."""
    shared: Row = look.shared.setdefault("statements", {})
    facts = {"shared": shared, "database": look.database}
    if "rows" in shared:
        return facts
    schema = extension_schema(look.session, "pg_stat_statements")
    if not schema:
        shared.setdefault("why", "the extension pg_stat_statements is in none of the databases looked at")
        return facts
    libraries = look.about.settings.get("shared_preload_libraries")
    if libraries is not None and "pg_stat_statements" not in re.split(r"[\s,\"]+", libraries):
        shared["why"] = "pg_stat_statements is not in shared_preload_libraries, so nothing is counted"
        return facts
    view = look.session.identifier(schema, "pg_stat_statements")
    names = {row["attname"] for row in look.rows(COLUMNS, [view])}
    columns = {name: f"{name}_exec_time" if f"{name}_exec_time" in names else f"{name}_time" for name in ("total", "mean")}
    limits = look.about.limits
    given = [limits["statement_min_calls"], f"%{MARK}%", limits["statement_mean_ms"]]
    shared["rows"] = look.rows(filled(STATEMENTS, view=view, shown=str(SHOWN), **columns), given)
    shared["totals"] = look.rows(filled(TOTALS, view=view, total=columns["total"]), [f"%{MARK}%", limits["statement_mean_ms"]])
    shared["ran"] = {row["oid"] for row in look.rows(filled(WHO_RAN, view=view))}
    shared.update(_counting_since(look, schema))
    return facts


def _counting_since(look: Look, schema: str) -> Row:
    info = look.session.identifier(schema, "pg_stat_statements_info")
    if not look.rows("SELECT 1 WHERE to_regclass(%s) IS NOT NULL", [info]):
        return {"since": None, "lost": None}
    return look.rows(filled(COUNTING, view=info))[0]


def judge_statements(about: About, facts: Row) -> list[Finding]:
    """Judge the mean time of statements that ran often enough for a mean to say something."""
    shared = facts["shared"]
    least = f"{about.limits['statement_min_calls']:g} calls"
    wording = _with_threshold(SLOW, f"warning from {about.limits['statement_mean_ms']:g} ms on average, of at least {least}")
    if "rows" not in shared:
        return found(about, wording, [], unseen=shared["why"], remedy=WHY_NOT_COUNTED)
    rows = [row for row in shared["rows"] if row["datname"] == facts["database"]]
    total = sorted((row for row in rows if row["by_total"] <= SHOWN), key=lambda row: row["by_total"])
    mean = sorted((row for row in rows if row["often"] and row["by_mean"] <= SHOWN), key=lambda row: row["by_mean"])
    about.lists["statements_by_total_time"] = [_statement(row) for row in total]
    about.lists["statements_by_mean_time"] = [_statement(row) for row in mean]
    if mean:
        about.count("statement_worst_mean", mean[0]["mean_ms"], "milliseconds")
    began = f", counted since {shared['since']:%Y-%m-%d}" if shared.get("since") else ""
    as_of = iso(shared["since"].timestamp()) if shared.get("since") else ""
    wrong = f"{SLOW.wrong}{began or ', since when is not known'}"
    slow = [Fault(_line(row), row["mean_ms"]) for row in mean if row["mean_ms"] >= about.limits["statement_mean_ms"]]
    if slow and mean[0]["slow"] > len(slow):
        wrong = f"of {mean[0]['slow']} {wrong}"
    wording = _with_threshold(wording, wording.threshold, wrong)
    hidden = sum(row["query"] == "<insufficient privilege>" for row in rows)
    gaps = [f"the text of {hidden} statements, for want of {READ_ALL_STATS}"] if hidden else []
    if shared.get("lost"):
        gaps.append(f"rare statements: {shared['lost']} times some were forgotten, raise pg_stat_statements.max")
    fine = f"no statement of at least {least} is slow on average{began}" if mean else f"no statement has run {least} yet{began}"
    unseen = "" if about.stats else f"statements of other roles, for want of {READ_ALL_STATS}"
    lines = ["by total time: " + _line(row) for row in total]
    return found(about, wording, slow, also=lines, not_covered="; ".join(gaps), fine=fine, unseen=unseen, as_of=as_of)


def _with_threshold(wording: Wording, threshold: str, wrong: str = "") -> Wording:
    return Wording(
        wording.id, wording.fine, wrong or wording.wrong, wording.advice, wording.unit, threshold, wording.counted, wording.basis
    )


def _line(row: Row) -> str:
    return f"{row['mean_ms']:.1f} ms x {row['calls']} calls = {row['total_ms'] / 1000:.1f} s: {normalised(row['query'])}"


def _statement(row: Row) -> Row:
    return {
        "query_id": row["queryid"],
        "query": normalised(row["query"]),
        "calls": row["calls"],
        "mean_ms": round(row["mean_ms"], 3),
        "total_ms": round(row["total_ms"], 3),
        "rows": row["rows"],
    }


def bad_statements() -> Row:
    """Return a statement that takes a second."""
    row = {"datname": "sample", "queryid": "1", "query": "SELECT 1", "calls": 100, "rows": 100, "total_ms": 1e5, "mean_ms": 1e3}
    rows = [{**row, "often": True, "by_total": 1, "by_mean": 1, "slow": 1}]
    return {"database": "sample", "shared": {"rows": rows, "since": About("").now}}


# -- counters of a database --

COUNTERS = """
SELECT xact_commit, xact_rollback, blks_read, blks_hit, temp_files, temp_bytes, deadlocks, stats_reset,
       pg_postmaster_start_time() AS started
FROM pg_stat_database WHERE datname = current_database()"""

ERRORS = Wording(
    "postgresql.error_share",
    "transactions hardly ever fail",
    "share of failed transactions is too high",
    "Find the errors in the server's log (log_min_error_statement) and correct the application.",
    "percent",
    basis="estimated",
)
TEMPORARY = Wording(
    "postgresql.temporary_files",
    "few temporary files are written",
    "volume of temporary files is too high",
    "Set log_temp_files to find the statements; give them work_mem, or an index to sort by.",
    "bytes",
)
DEADLOCKS = Wording(
    "postgresql.deadlocks",
    "no deadlock",
    "number of deadlocks is too high",
    "Read the server's log for the statements; take locks in the same order everywhere, in short transactions.",
)
_COUNTED = ("xact_commit", "xact_rollback", "blks_read", "blks_hit", "temp_files", "temp_bytes", "deadlocks")


def since_last(about: About, row: Row) -> tuple[Row, str, float]:
    """Return the counters since the last run (else since they began), since when that is in words, and over how many days."""
    kept = about.kept.get("counters", {})
    reset = row["stats_reset"].isoformat() if row["stats_reset"] else ""
    about.keep["counters"] = {**{name: int(row[name]) for name in _COUNTED}, "reset": reset, "time": about.now.timestamp()}
    goes_on = kept and kept["reset"] == reset and all(row[name] >= kept[name] for name in _COUNTED)
    if goes_on:
        days = max(about.now.timestamp() - kept["time"], 1.0) / DAY
        return {name: row[name] - kept[name] for name in _COUNTED}, "since the last run", days
    begin = row["stats_reset"] or row["started"]
    words = f"since the statistics began ({begin:%Y-%m-%d})" if row["stats_reset"] else "since the statistics began"
    return {name: row[name] for name in _COUNTED}, words, max((about.now - begin).total_seconds(), DAY) / DAY


def judge_counters(about: About, facts: t.Sequence[Row]) -> list[Finding]:
    """Judge failed transactions, temporary files and deadlocks since the last run."""
    counted, since, days = since_last(about, facts[0])
    count = counted["xact_commit"] + counted["xact_rollback"]
    reads = counted["blks_read"] + counted["blks_hit"]
    if reads:
        about.count("cache_hit", percent(counted["blks_hit"], reads), "percent")
    about.count("transactions", count)
    about.count("error_share", percent(counted["xact_rollback"], count), "percent")
    about.count("temporary_bytes_per_day", counted["temp_bytes"] / days, "bytes")
    about.count("deadlocks", counted["deadlocks"])
    return [
        *_errors(about, counted["xact_rollback"], count, since),
        *_temporary(about, counted, since, days),
        *_dead(about, counted, since),
    ]


def _errors(about: About, failed: int, count: int, since: str) -> list[Finding]:
    share, least = percent(failed, count), about.limits["error_min_transactions"]
    words = f"{failed} of {count} transactions ({share:.3f} percent) were rolled back {since}"
    limit = about.limits["error_percent"]
    wording = Wording(ERRORS.id, words, ERRORS.wrong, ERRORS.advice, "percent", f"warning from {limit:g} percent", basis="estimated")
    gap = "which of these were errors and which the application's own ROLLBACK; errors caught inside a transaction"
    if failed and count < least:
        remedy = "Run the review again when there was more traffic, or lower the limit error_min_transactions."
        return found(
            about, wording, [], unseen=f"{words}: fewer than {least:g} are too few to judge a share of {limit:g} percent", remedy=remedy
        )
    faults = [Fault(words, share)] if failed and share >= limit else []
    return found(about, wording, faults, value=share, not_covered=gap)


def _temporary(about: About, counted: Row, since: str, days: float) -> list[Finding]:
    rate = counted["temp_bytes"] / days
    words = f"{counted['temp_files']} temporary files, {human_bytes(counted['temp_bytes'])} {since}"
    limit = about.limits["temporary_bytes"]
    wording = _with_threshold(TEMPORARY, f"warning from {human_bytes(limit)} a day")
    if rate >= limit and not since.endswith((")", "run")):
        return found(about, wording, [], unseen=f"{words}, and since when is not known", remedy="The next run can tell.")
    return found(about, wording, [Fault(words, rate)] if rate >= limit else [], value=rate, fine=words)


def _dead(about: About, counted: Row, since: str) -> list[Finding]:
    words, limit = f"{counted['deadlocks']} deadlocks {since}", about.limits["deadlocks"]
    wording = _with_threshold(DEADLOCKS, f"warning from {limit:g} since the last run")
    is_bad = counted["deadlocks"] >= limit
    return found(about, wording, [Fault(words, counted["deadlocks"])] if is_bad else [], value=counted["deadlocks"], fine=words)


def bad_counters() -> list[Row]:
    """Return counters of a day with errors, temporary files and deadlocks."""
    begin = About("").now
    return [
        {
            **dict.fromkeys(_COUNTED, 10**12),
            "stats_reset": begin,
            "started": begin,
        }
    ]


CHECKS = (
    Check((SLOW.id,), fetch_statements, judge_statements, bad_statements),
    Check((ERRORS.id, TEMPORARY.id, DEADLOCKS.id), lambda look: look.rows(COUNTERS), judge_counters, bad_counters),
)
