# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import sqlite3
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_app_disable, security_app_disable_work
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, username TEXT, role TEXT, active BOOLEAN NOT NULL, status TEXT, last_login TEXT);
INSERT INTO users VALUES (1, 'mia', 'MAJORITY_OWNER', 1, 'open', '2026-11-20T08:00:00Z'), (2, 'tom', 'MAJORITY_OWNER', 1, 'open', '2026-01-01T08:00:00Z'),
  (3, 'eva', 'EMPLOYEE', 1, 'open', NULL), (4, 'old', 'EMPLOYEE', 1, 'open', '2026-05-01'), (5, 'svc-mail', 'EMPLOYEE', 1, 'open', NULL),
  (6, 'gone', 'EMPLOYEE', 0, 'off', NULL), (7, 'odd', 'EMPLOYEE', 1, 'open', 'soon'), (8, '100%s''; DROP TABLE users', 'EMPLOYEE', 1, NULL, NULL);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, user_id INTEGER);
INSERT INTO sessions (user_id) VALUES (1), (3), (3), (4);
CREATE TABLE tokens (owner TEXT, revoked BOOLEAN);
INSERT INTO tokens VALUES ('mia', 0), ('eva', 0);
"""
ADMINS = "SELECT username FROM users WHERE role = 'MAJORITY_OWNER' AND active"


def approved(*names, days=90):
    return [{"account": name, "approved_by": "Mia Vogel", "reason": "left", "inactive_days": days} for name in names]


class App:
    def __init__(self, folder):
        self.path = str(folder / "app.db")
        self.sql(SCHEMA)

    def sql(self, script):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    def rows(self, query):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def all(self):
        return [self.rows(f"SELECT * FROM {table} ORDER BY rowid") for table in ("users", "sessions", "tokens")]

    def disable(self, *names, check_mode=False, days=90, deadline=0, **more):
        rule = {
            "name": "people",
            "sqlite": self.path,
            "table": "users",
            "key_column": "username",
            "set": {"active": False, "status": "off"},
            "admin_query": ADMINS,
            "last_login_column": "last_login",
            "protected": ["svc-*"],
            "accounts": approved(*names, days=days),
            "sessions": [
                {"table": "sessions", "column": "user_id", "matches": "id"},
                {"table": "tokens", "column": "owner", "matches": "username", "set": {"revoked": True}},
            ],
            **more,
        }
        params = filled(
            {**security_app_disable.OPTIONS, "servers": {"default": []}, "deadline": {"default": deadline}}, {"disable_users": [rule]}
        )
        assert security_app_disable.validate(params) == []
        review = Review(params, Host(), check_mode, NOW)
        [found] = security_app_disable.look(review)
        return found, review.actions


@pytest.fixture
def app(tmp_path):
    return App(tmp_path)


def test_only_the_approved_are_disabled_with_their_sessions_and_nobody_is_removed(app):
    """asr-12-2, neff-monthly-12: eva never logged in, old not since May; nobody else is touched."""
    found, actions = app.disable("eva", "old")
    assert (found.state, found.value) == ("ok", 2)
    assert app.rows("SELECT username FROM users WHERE NOT active") == [("eva",), ("old",), ("gone",)]
    assert app.rows("SELECT count(*) FROM users") == [(8,)]
    assert app.rows("SELECT user_id FROM sessions") == [(1,)]
    assert app.rows("SELECT * FROM tokens") == [("mia", 0), ("eva", 1)]
    eva = actions[0]
    assert (eva.subject, eva.operation, eva.status) == ("people: eva", "disable_user", "changed")
    assert (dict(eva.before), dict(eva.after)) == ({"active": 1, "status": "open"}, {"active": False, "status": "off"})
    assert "as Mia Vogel approved: left; 3 sessions ended" in eva.summary


def test_a_second_run_finds_nothing_due(app):
    app.disable("eva")
    before = app.all()
    found, actions = app.disable("eva", "gone")
    assert (found.state, actions, app.all()) == ("ok", [], before)
    assert "2 already are" in found.summary


def test_the_recorded_statement_puts_everything_back(app):
    before = app.rows("SELECT * FROM users")
    _found, actions = app.disable("eva", "old", "100%s'; DROP TABLE users")
    assert app.rows("SELECT * FROM users") != before
    for action in actions:
        app.sql(action.summary.partition("to undo: ")[2])
    assert app.rows("SELECT * FROM users") == before


def test_check_mode_lists_what_is_due_and_leaves_every_byte(app):
    with open(app.path, "rb") as source:
        before = source.read()
    found, actions = app.disable("eva", "mia", check_mode=True)
    assert [(action.subject, action.status) for action in actions] == [("people: eva", "due")]
    assert found.evidence[-1] == "disabled: eva"
    with open(app.path, "rb") as source:
        assert source.read() == before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mia", "logged in 1 days ago"),
        ("svc-mail", "it is protected"),
        ("SVC-mail", "0 rows"),
        ("odd", "cannot be read"),
        ("nobody", "0 rows"),
        ("e%", "0 rows"),
        ("*", "0 rows"),
    ],
)
def test_what_speaks_against_it_is_said_and_nothing_changes(app, name, why):
    before = app.all()
    found, actions = app.disable(name)
    assert (found.state, why in found.evidence[0], actions, app.all()) == ("warning", True, [], before)


def test_never_the_last_administrator_even_where_all_are_on_the_list(app):
    found, actions = app.disable("mia", "tom", days=0)
    assert [action.subject for action in actions] == ["people: mia"]
    assert found.evidence[0] == "not disabled, tom: it is the last administrator by admin_query"
    again, actions = app.disable("tom", days=0)
    assert (again.state, actions) == ("warning", [])
    assert app.rows(ADMINS) == [("tom",)]


def test_a_query_that_tells_no_administrator_stops_the_rule(app):
    for query in ("SELECT username FROM users WHERE role = 'OWNER'", "SELECT role FROM users", "SELECT nonsense FROM users"):
        found, actions = app.disable("eva", admin_query=query)
        assert (found.state, actions) == ("unknown", [])
    assert app.rows("SELECT active FROM users WHERE username = 'eva'") == [(1,)]


def test_a_name_that_two_rows_have_is_nobody(app):
    app.sql("INSERT INTO users VALUES (9, 'eva', 'EMPLOYEE', 1, 'open', NULL)")
    found, _actions = app.disable("eva")
    assert "2 rows" in found.evidence[0]


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("CREATE TRIGGER t AFTER UPDATE ON users BEGIN UPDATE users SET active = 1 WHERE id = new.id; END", "eva is not disabled"),
        ("CREATE TRIGGER t AFTER UPDATE ON users BEGIN DELETE FROM users WHERE id = 4; END", "the table has 7 rows, and had 8"),
        (
            "CREATE TRIGGER t AFTER UPDATE ON users BEGIN UPDATE users SET active = 0, status = 'off' WHERE id = 4; END",
            "3 rows are disabled",
        ),
        ("CREATE TRIGGER t AFTER UPDATE ON users BEGIN UPDATE users SET role = '' WHERE id = 1; END", "administrators that are left"),
        ("CREATE TRIGGER t BEFORE UPDATE ON users BEGIN SELECT RAISE(ABORT, 'no'); END", "refused a statement"),
        ("CREATE TRIGGER t BEFORE UPDATE ON users BEGIN SELECT RAISE(ROLLBACK, 'no'); END", "refused a statement"),
        ("CREATE TRIGGER t BEFORE DELETE ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END", "refused a statement"),
    ],
)
def test_where_the_counts_do_not_agree_nothing_was_changed(app, trouble, why):
    app.sql(trouble)
    before = app.all()
    found, actions = app.disable("eva")
    assert (found.state, why in found.summary, app.all()) == ("critical", True, before)
    assert [action.status for action in actions] == ["failed"]


def test_an_administrator_query_that_does_not_follow_the_rule_is_noticed(app):
    before = app.all()
    found, _actions = app.disable("tom", admin_query="SELECT username FROM users WHERE role = 'MAJORITY_OWNER'")
    assert (found.state, app.all()) == ("critical", before)


def test_a_database_that_somebody_writes_is_not_waited_for_long(app, monkeypatch):
    monkeypatch.setattr(security_app_disable_work.sqlite_db.open_writable, "__defaults__", (0.1,))
    with contextlib.closing(sqlite3.connect(app.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        found, actions = app.disable("eva")
    assert (found.state, "locked" in found.summary, actions[0].status) == ("critical", True, "failed")


def test_after_the_window_it_is_deferred(app):
    before = app.all()
    found, actions = app.disable("eva", deadline=1)
    assert (found.state, actions[0].status, app.all()) == ("critical", "deferred", before)


def test_an_empty_list_and_a_missing_database(app, tmp_path):
    assert app.disable()[0].state == "ok"
    assert app.disable("eva", sqlite=str(tmp_path / "absent.db"))[0].state == "unknown"


def test_wrong_input_is_said():
    rule = {
        "name": "a",
        "sqlite": "app.db",
        "table": "users; DROP TABLE users",
        "key_column": "name",
        "set": {"password_hash": "", "name": "x", "flags": [1]},
        "admin_query": "DELETE FROM users",
        "accounts": [*approved("x", "x"), {"account": "y", "approved_by": " ", "reason": "", "inactive_days": -1}],
        "sessions": [{"table": "a.b.c", "column": "user id", "matches": "id"}],
    }
    params = filled({**security_app_disable.OPTIONS, "servers": {"default": []}}, {"disable_users": [rule]})
    said = " ".join(security_app_disable.validate(params))
    for part in (
        "'app.db'", "'users; DROP TABLE users'", "changes password_hash", "other columns than key_column", "a list or an object",
        "admin_query is 'DELETE FROM users'", "each account once", "accounts.approved_by", "accounts.reason", "inactive_days is -1",
        "'a.b.c'", "'user id'", "last_login_column is empty",
    ):  # fmt: skip
        assert part in said
    assert "set is {}" in " ".join(
        security_app_disable.validate(
            filled({**security_app_disable.OPTIONS, "servers": {"default": []}}, {"disable_users": [{**rule, "set": {}}]})
        )
    )


@given(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.text()))
def test_the_way_back_is_one_statement_whatever_the_values(name, value):
    due = security_app_disable_work.Due({"account": name}, {"status": value}, [])
    statement = security_app_disable_work.undo_statement({"table": "users", "key_column": "username"}, due)
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE users (username, status)")
        if (
            "\x00" not in statement
            and not any("\ud800" <= letter <= "\udfff" for letter in statement)
            and abs(value if isinstance(value, int) else 0) < 2**63
        ):
            connection.execute(statement)


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), True, NOW)
    assert security_app_disable.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_app_disable_work, "_objection", lambda *_of: "")
    assert security_app_disable.passes_bad_sample(review)
