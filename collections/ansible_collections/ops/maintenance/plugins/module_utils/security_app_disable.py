# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users of applications that a person approved to be disabled: never removed, never the last administrator, always reversible."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import tempfile
import typing as t

from .errors import InputError, MaintenanceError, out_of_range
from .judge import many
from .record import Action, Finding
from .security_app_disable_work import Due, Plan, apply, plan, undo_statement, with_store
from .security_app_users import place_problems, query_problems
from .security_common import Review, filled, unknown, why_unread

RULE: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "sqlite": {"type": "path", "default": ""},
    "server": {"type": "str", "default": ""},
    "database": {"type": "str", "default": ""},
    "table": {"type": "str", "required": True},
    "key_column": {"type": "str", "required": True, "no_log": False},
    "set": {"type": "dict", "required": True},
    "admin_query": {"type": "str", "required": True},
    "last_login_column": {"type": "str", "default": ""},
    "protected": {"type": "list", "elements": "str", "default": []},
    "accounts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "account": {"type": "str", "required": True},
            "approved_by": {"type": "str", "required": True},
            "reason": {"type": "str", "required": True},
            "inactive_days": {"type": "int", "default": 90},
        },
    },
    "sessions": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "table": {"type": "str", "required": True},
            "column": {"type": "str", "required": True},
            "matches": {"type": "str", "required": True},
            "set": {"type": "dict", "default": {}},
        },
    },
    "timeout_seconds": {"type": "float", "default": 30.0},
}
OPTIONS: dict[str, t.Any] = {"disable_users": {"type": "list", "elements": "dict", "default": [], "options": RULE}}
IDS = ("security.disabled_users",)

_NAME = re.compile(r"[^\W\d][\w$]*")
_MOST = 40
_SECRET = re.compile(r"(?i)pass|hash|secret|token|salt|key")

Rule = t.Mapping[str, t.Any]


def look(review: Review) -> list[Finding]:
    """Work on each rule by itself; one that cannot be worked on leaves its database as it is, and the others go on."""
    return [_one(review, rule) for rule in review.params["disable_users"]]


def _one(review: Review, rule: Rule) -> Finding:
    if not rule["accounts"]:
        return _verdict(review, rule, Plan())
    now, servers = review.now.timestamp(), review.params["servers"]
    try:
        made = with_store(rule, servers, False, lambda store: plan(rule, store, now))
    except InputError:
        raise
    except (OSError, MaintenanceError) as error:
        advice = "Correct the rule, or make the database readable."
        return unknown(IDS[0], rule["name"], f"nobody was disabled, for it could not be asked: {why_unread(error)}", advice)
    if review.check_mode or not made.due:
        _tell(review, rule, made, "due", {})
        return _verdict(review, rule, made)
    deadline = review.params.get("deadline") or 0
    if deadline and review.host.now().timestamp() >= deadline:
        _tell(review, rule, made, "deferred", {})
        return _verdict(review, rule, made, "the window closed before it was begun")
    try:
        made, ended = with_store(rule, servers, True, lambda store: apply(rule, store, now))
    except (OSError, MaintenanceError) as error:
        review.actions.append(Action(rule["name"], "disable_user", "failed", f"nobody was disabled: {why_unread(error)}"))
        return _verdict(review, rule, made, why_unread(error))
    _tell(review, rule, made, "changed", ended)
    return _verdict(review, rule, made)


def _tell(review: Review, rule: Rule, made: Plan, status: str, ended: t.Mapping[str, int]) -> None:
    """Make an action of each account, with its state before and after and the way back."""
    for due in made.due:
        said = f"{'' if status == 'changed' else 'would be '}disabled as {due.entry['approved_by']} approved: {due.entry['reason']}"
        said += f"; {many(ended[due.name], 'session')} ended" if ended.get(due.name) else ""
        summary = f"{said}; to undo: {undo_statement(rule, due)}"
        review.actions.append(Action(f"{rule['name']}: {due.name}", "disable_user", status, summary, due.before, rule["set"]))


def _verdict(review: Review, rule: Rule, made: Plan, failed: str = "") -> Finding:
    state = "critical" if failed else "warning" if made.refused else "ok"
    done: t.Sequence[Due] = () if failed else made.due
    was = "would be" if review.check_mode else "were"
    summary = f"{many(len(done), 'user')} {was} disabled, {made.already} already are, {len(made.refused)} on the list {was} not"
    return Finding(
        IDS[0],
        state,
        rule["name"],
        f"{summary}: {failed}" if failed else summary,
        value=len(done),
        unit="count",
        threshold="warning from one user on the approved list that something speaks against, critical where it could not be done",
        advice="Correct the list in security_review_disable_users, or what speaks against it." if state != "ok" else "",
        evidence=[*(f"not disabled, {line}" for line in made.refused), *(f"disabled: {due.name}" for due in done)],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    servers = {server["name"] for server in params["servers"]}
    return [
        f"{problem} It is in disable_users, {rule['name']}." for rule in params["disable_users"] for problem in _problems(rule, servers)
    ]


def _problems(rule: Rule, servers: t.Container[str]) -> t.Iterator[str]:
    yield from place_problems(rule, servers)
    yield from query_problems("admin_query", rule["admin_query"])
    yield from _wrong_names(rule)
    if not rule["set"]:
        yield str(InputError.of("set", {}, "the column that closes an account and its value", "name them"))
    for values in (rule["set"], *(session["set"] for session in rule["sessions"])):
        if not all(value is None or isinstance(value, (str, int, float)) for value in values.values()):
            yield "set has a value that is a list or an object, expected a text, a number, true, false or nothing; correct it."
    for column in rule["set"]:
        if _SECRET.search(str(column)):
            yield (
                f"set changes {column}, expected a column that says whether the account is open, "
                "for the old value is recorded; name such a column."
            )
    if rule["key_column"] in rule["set"]:
        yield str(InputError.of("set", rule["key_column"], "other columns than key_column", "leave it out"))
    yield from _wrong_accounts(rule)
    yield from out_of_range(rule, ("timeout_seconds",), least=1)


def _wrong_names(rule: Rule) -> t.Iterator[str]:
    """Names become part of a statement, quoted; what is none at all is refused here."""
    given = [("table", rule["table"]), ("key_column", rule["key_column"]), *(("set", column) for column in rule["set"])]
    given += [("last_login_column", rule["last_login_column"])] if rule["last_login_column"] else []
    for session in rule["sessions"]:
        given += [(f"sessions.{name}", session[name]) for name in ("table", "column", "matches")]
        given += [("sessions.set", column) for column in session["set"]]
    for option, name in given:
        parts = str(name).split(".") if option.endswith("table") else [str(name)]
        if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
            yield str(InputError.of(option, name, "a name of letters, digits and _", "correct it"))


def _wrong_accounts(rule: Rule) -> t.Iterator[str]:
    names = [entry["account"] for entry in rule["accounts"]]
    if len(names) > _MOST:
        yield f"accounts has {len(names)} entries, expected {_MOST} at most; disable the others in a later run."
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield str(InputError.of("accounts.account", name, "each account once", "leave one out"))
    for entry in rule["accounts"]:
        for option in ("account", "approved_by", "reason"):
            if not entry[option].strip():
                yield str(InputError.of(f"accounts.{option}", entry[option], "some words", "say who approved it and why"))
        yield from out_of_range(entry, ("inactive_days",))
        if entry["inactive_days"] and not rule["last_login_column"]:
            yield "last_login_column is empty, expected the column that tells disuse; name it, or approve with inactive_days 0."


def passes_bad_sample(review: Review) -> str:
    """Plant the last administrator on the list; return the sample when it would be disabled."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "planted.db")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE users (name TEXT, active INTEGER)")
            connection.execute("INSERT INTO users VALUES ('planted', 1)")
            connection.commit()
        rule = filled(
            RULE,
            {
                "name": "planted",
                "sqlite": path,
                "table": "users",
                "key_column": "name",
                "set": {"active": 0},
                "admin_query": "SELECT name FROM users WHERE active",
                "accounts": [{"account": "planted", "approved_by": "nobody", "reason": "a sample", "inactive_days": 0}],
            },
        )
        made = with_store(rule, (), False, lambda store: plan(rule, store, review.now.timestamp()))
        return "the last administrator of an application as one who may be disabled" if made.due else ""
