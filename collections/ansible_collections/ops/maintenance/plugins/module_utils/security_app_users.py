# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and roles of applications, by queries that the inventory declares: read only, bounded, only declared columns shown."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import time
import typing as t
from datetime import date, datetime, timezone

from . import postgresql, sqlite_db
from .errors import InputError, MaintenanceError, out_of_range, refusal
from .judge import from_limit, limits, many
from .log_lines import Clock, from_number
from .paths import read_state
from .record import Finding, clean
from .security_common import Review, filled, unknown

RULE: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "sqlite": {"type": "path", "default": ""},
    "server": {"type": "str", "default": ""},
    "database": {"type": "str", "default": ""},
    "query": {"type": "str", "required": True},
    "columns": {"type": "list", "elements": "str", "required": True},
    "judge": {"type": "str", "choices": ["rows", "last_login", "changes", "recent"], "default": "rows"},
    "last_login_column": {"type": "str", "default": "last_login"},
    "created_column": {"type": "str", "default": ""},
    "recent_column": {"type": "str", "default": ""},
    "recent_minutes": {"type": "float", "default": 60.0},
    "warning_days": {"type": "int", "default": 30},
    "critical_days": {"type": "int"},
    "warning_rows": {"type": "int", "default": 1},
    "critical_rows": {"type": "int"},
    "advice": {"type": "str", "default": ""},
    "timeout_seconds": {"type": "float", "default": 30.0},
}
OPTIONS: dict[str, t.Any] = {
    "user_rules": {"type": "list", "elements": "dict", "default": [], "options": RULE},
    "servers": {"type": "list", "elements": "dict", "default": [], "options": postgresql.SERVER},
}
IDS = ("security.app_users",)
STATE_FILE = "security_app_users.json"
ROW_LIMIT = 10_000

_DAY = 86400.0
_READING = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, 33))  # 33: a recursive query
_STEPS = 10_000

Row = t.Mapping[str, t.Any]


def look(review: Review) -> list[Finding]:
    """Ask every rule; one that cannot be asked is unknown, the others go on."""
    try:
        known = read_state(review.params["state_dir"], STATE_FILE)
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[0], "applications", f"what earlier runs saw cannot be read: {error}", "Follow that advice.")]
    findings, kept = [], dict(known)
    for rule in review.params["user_rules"]:
        try:
            rows = ask(review, rule)
            findings.append(verdict(review, rule, rows, known, kept))
        except InputError:
            raise
        except (OSError, MaintenanceError) as error:
            findings.append(
                unknown(IDS[0], rule["name"], f"it could not be asked: {error}", "Correct the rule, or make the database readable.")
            )
    if not review.check_mode and kept != known:
        review.keep(STATE_FILE, kept)
    return findings


def bounded(query: str) -> str:
    """Return a query as part of one that reads at most a row more than the limit, which refuses everything but a query."""
    return f"SELECT * FROM (\n{query.strip().rstrip(';')}\n) AS declared_rule LIMIT {ROW_LIMIT + 1}"  # noqa: S608 - the inventory's own


def ask(review: Review, rule: t.Mapping[str, t.Any]) -> list[Row]:
    """Run the query of a rule.

    :raises MaintenanceError: it could not be run, or its rows lack a column that the rule names.
    """
    rows = _of_sqlite(rule) if rule["sqlite"] else _of_postgresql(review, rule)
    wanted = list(rule["columns"])
    if rule["judge"] == "last_login":
        wanted += [rule[name] for name in ("last_login_column", "created_column") if rule[name]]
    wanted += [rule["recent_column"]] if rule["judge"] == "recent" else []
    missing = [name for name in wanted if rows and name not in rows[0]]
    if missing:
        raise MaintenanceError(f"the query returns no column {', '.join(missing)}, expected all that the rule names; correct one of them.")
    return rows


def _of_sqlite(rule: t.Mapping[str, t.Any]) -> list[Row]:
    end = time.monotonic() + rule["timeout_seconds"]

    def read(connection: sqlite3.Connection) -> list[Row]:
        connection.set_authorizer(lambda action, *_of: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY)
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        try:
            cursor = connection.execute(bounded(rule["query"]))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor]
        except sqlite3.OperationalError as error:
            late = "it was stopped after its time limit" if time.monotonic() > end else clean(str(error), 200)
            raise MaintenanceError(f"SQLite refused the query: {late}; correct it.") from None
        except sqlite3.DatabaseError as error:
            raise MaintenanceError(f"SQLite refused the query: {clean(str(error), 200)}; only reading is allowed.") from None

    return sqlite_db.reading(rule["sqlite"], read)


def _of_postgresql(review: Review, rule: t.Mapping[str, t.Any]) -> list[Row]:
    server = next(server for server in review.params["servers"] if server["name"] == rule["server"])
    limit = rule["timeout_seconds"]
    with postgresql.connect(server, rule["database"], read_only=True, statement_timeout_seconds=limit) as session:
        session.set("search_path", 'pg_catalog, "$user", public')
        return t.cast("list[Row]", session.rows(bounded(rule["query"])))


def shown_row(rule: t.Mapping[str, t.Any], row: Row) -> str:
    """Say the declared columns of a row, and nothing else of it."""
    return ", ".join(_shown(row[name]) for name in rule["columns"])


def _shown(value: t.Any) -> str:
    return "-" if value is None else clean(str(value).replace("\n", " "), 80)


def compared_row(rule: t.Mapping[str, t.Any], row: Row) -> str:
    """Say a row so that no other one is said the same: where a value is not shown as it is, a digest of the whole ones follows."""
    values = [None if row[name] is None else str(row[name]) for name in rule["columns"]]
    if all(value is None or (_shown(value) == value != "-" and ", " not in value) for value in values):
        return shown_row(rule, row)
    return f"{shown_row(rule, row)} (sha256 {hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]})"


def verdict(
    review: Review, rule: t.Mapping[str, t.Any], rows: t.Sequence[Row], known: t.Mapping[str, t.Any], kept: dict[str, t.Any]
) -> Finding:
    """Judge the rows as the rule asks for."""
    if rule["judge"] == "rows":
        return _rows(rule, rows)
    if not rows:
        return unknown(IDS[0], rule["name"], "the query returned nobody, so nobody was looked at", "Correct the query or the database.")
    if rule["judge"] == "changes":
        return _changes(review, rule, rows, known, kept)
    if rule["judge"] == "recent":
        return _recent(review, rule, rows)
    return _last_logins(review, rule, rows)


def _rows(rule: t.Mapping[str, t.Any], rows: t.Sequence[Row]) -> Finding:
    state = from_limit(len(rows), rule["warning_rows"], rule["critical_rows"])
    at_least = "at least " if len(rows) > ROW_LIMIT else ""
    return Finding(
        IDS[0],
        state,
        rule["name"],
        f"{at_least}{many(min(len(rows), ROW_LIMIT), 'row')} found",
        value=min(len(rows), ROW_LIMIT),
        unit="count",
        threshold=limits("rows", rule["warning_rows"], rule["critical_rows"]),
        advice=_advice(rule, "Have a person decide about each of them.") if state != "ok" else "",
        evidence=[shown_row(rule, row) for row in rows[:20]],
    )


def _advice(rule: t.Mapping[str, t.Any], otherwise: str) -> str:
    return str(rule["advice"]).strip() or otherwise


def moment_of(value: t.Any, now: float) -> float | None:
    """Return a time as a database gives it; None where it is none."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=timezone.utc).timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return from_number(float(value))
    text = str(value).strip()
    if len(text) == len("2026-01-31") and text[4] == "-":
        text += "T00:00:00Z"
    return Clock(now).of_text(text.encode("utf-8", "replace"))


def _last_logins(review: Review, rule: t.Mapping[str, t.Any], rows: t.Sequence[Row]) -> Finding:
    """Judge by age in days; somebody without a last log-in was never there, and counts from the creation, if that is known."""
    now = review.now.timestamp()
    inactive: list[tuple[float, str]] = []
    unreadable = []
    for row in rows[:ROW_LIMIT]:
        last = row[rule["last_login_column"]]
        since = last if last is not None else row[rule["created_column"]] if rule["created_column"] else None
        moment = moment_of(since, now) if since is not None else 0.0
        if moment is None:
            unreadable.append(shown_row(rule, row))
        elif (now - moment) / _DAY >= rule["warning_days"]:
            days = (now - moment) / _DAY
            said = "never logged in" if last is None else f"{days:.0f} days ago"
            inactive.append((days, f"{shown_row(rule, row)}: {said}"))
    longest = max((days for days, _said in inactive), default=0.0)
    state = from_limit(longest, rule["warning_days"], rule["critical_days"]) if inactive else "unknown" if unreadable else "ok"
    gaps = [f"{many(len(unreadable), 'row')} with a time that cannot be read: {'; '.join(unreadable[:3])}"] if unreadable else []
    gaps += [f"rows beyond {ROW_LIMIT}"] if len(rows) > ROW_LIMIT else []
    return Finding(
        IDS[0],
        "unknown" if state == "ok" and gaps else state,
        rule["name"],
        f"{len(inactive)} of {min(len(rows), ROW_LIMIT)} not logged in for {rule['warning_days']} days or more, or never",
        value=len(inactive),
        unit="count",
        threshold=limits("days without a log-in", rule["warning_days"], rule["critical_days"]),
        not_covered="; ".join(gaps),
        advice=_advice(rule, "Have a person decide which of them to disable.") if state != "ok" or gaps else "",
        evidence=[said for _days, said in sorted(inactive, key=lambda pair: -pair[0])[:20]],
    )


def _recent(review: Review, rule: t.Mapping[str, t.Any], rows: t.Sequence[Row]) -> Finding:
    """Judge the youngest row; where none is young enough, nobody knows whether the next one would be written."""
    now = review.now.timestamp()
    moments = [moment for row in rows if row[rule["recent_column"]] is not None and (moment := moment_of(row[rule["recent_column"]], now))]
    minutes = (now - max(moments)) / 60 if moments else None
    fine = minutes is not None and -5 <= minutes <= rule["recent_minutes"]
    said = "no row has a time that can be read" if minutes is None else f"the youngest row is {minutes:.0f} minutes old"
    return Finding(
        IDS[0],
        "ok" if fine else "unknown",
        rule["name"],
        said,
        value=None if minutes is None else round(minutes, 1),
        unit="" if minutes is None else "minutes",
        threshold=f"ok up to {rule['recent_minutes']:g} minutes",
        advice="" if fine else _advice(rule, "Do once what ought to be recorded, then look again."),
        evidence=[shown_row(rule, row) for row in rows[:5]],
    )


def _changes(
    review: Review, rule: t.Mapping[str, t.Any], rows: t.Sequence[Row], known: t.Mapping[str, t.Any], kept: dict[str, t.Any]
) -> Finding:
    """Compare with the rows that were accepted; the first ones are, and later ones when a person says so."""
    if len(rows) > ROW_LIMIT:
        raise MaintenanceError(f"it returns more than {ROW_LIMIT} rows, which cannot be compared; narrow the query.")
    now = sorted({compared_row(rule, row) for row in rows})
    before = known.get(rule["name"])
    accepted = review.params["accept_baseline"]
    if before is None or accepted:
        kept[rule["name"]] = now
    came, gone = (sorted(set(now) - set(before)), sorted(set(before) - set(now))) if before is not None else ([], [])
    bad = bool(came or gone) and not accepted
    return Finding(
        IDS[0],
        "warning" if bad else "ok",
        rule["name"],
        f"{len(came)} new and {len(gone)} gone of {many(len(now), 'row')}"
        if before is not None
        else f"first sight of {many(len(now), 'row')}",
        value=len(came) + len(gone),
        unit="count",
        threshold="warning from the first change since the rows that were accepted",
        not_covered="changes before this run" if before is None else "",
        advice=_advice(rule, "Find out who made each change; then accept it with security_review_accept_baseline, or undo it.")
        if bad
        else "",
        evidence=[*(f"new: {row}" for row in came), *(f"gone: {row}" for row in gone)] or now[:20],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    servers = {server["name"] for server in params["servers"]}
    wrong = [problem for server in params["servers"] for problem in refusal(postgresql.check_server, server)]
    names = [rule["name"] for rule in params["user_rules"]]
    wrong += [
        str(InputError.of("user_rules.name", name, "a name of its own", "rename one"))
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    for rule in params["user_rules"]:
        wrong += [f"{problem} It is in user_rules, {rule['name']}." for problem in _problems(rule, servers)]
    return wrong


def _problems(rule: t.Mapping[str, t.Any], servers: t.Container[str]) -> t.Iterator[str]:
    yield from query_problems("query", rule["query"])
    yield from place_problems(rule, servers)
    if not rule["columns"]:
        yield str(InputError.of("columns", [], "the columns that may be shown", "name at least one"))
    if rule["judge"] == "recent" and not rule["recent_column"]:
        yield str(InputError.of("recent_column", "", "the column with the time of a row", "name it"))
    yield from out_of_range(rule, ("warning_days", "critical_days", "warning_rows", "critical_rows", "timeout_seconds"), least=1)
    yield from out_of_range(rule, ("recent_minutes",), least=1)


def query_problems(name: str, query: str) -> t.Iterator[str]:
    """Say why a declared query is not one SELECT."""
    words = query.split()
    if not words or words[0].upper() not in ("SELECT", "WITH"):
        yield str(InputError.of(name, clean(query, 60), "one SELECT", "correct it"))
    if ";" in query.rstrip().rstrip(";"):
        yield f"{name} has a semicolon inside, expected one SELECT; remove what follows, or write the character as char(59) or chr(59)."


def place_problems(rule: t.Mapping[str, t.Any], servers: t.Container[str]) -> t.Iterator[str]:
    """Say why it is not clear which database is meant."""
    if bool(rule["sqlite"]) == bool(rule["server"]):
        yield "sqlite and server are both given or both empty, expected one of them; correct it."
    if rule["sqlite"] and not os.path.isabs(rule["sqlite"]):
        yield str(InputError.of("sqlite", rule["sqlite"], "an absolute path", "write it from the root on"))
    if rule["server"] and rule["server"] not in servers:
        yield str(InputError.of("server", rule["server"], "the name of one of servers", "declare it or correct the name"))
    if rule["server"] and not rule["database"]:
        yield str(InputError.of("database", "", "the name of a database", "name it"))


def passes_bad_sample(review: Review) -> str:
    """Plant a user who never logged in; return the sample when it counts as active."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "planted.db")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE users (username TEXT, last_login TEXT)")
            connection.execute("INSERT INTO users VALUES ('planted', NULL)")
            connection.commit()
        rule = filled(
            RULE, {"name": "planted", "sqlite": path, "query": "SELECT * FROM users", "columns": ["username"], "judge": "last_login"}
        )
        found = verdict(review, rule, ask(review, rule), {}, {})
        return "a user who never logged in as an active one" if found.state == "ok" else ""
