# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_app_users
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
SCHEMA = """
CREATE TABLE users (id INTEGER, username TEXT, password_hash TEXT, last_login TEXT, created_at TEXT);
INSERT INTO users VALUES (1, 'mia', 's3cret-hash', '2026-11-20 08:00:00', '2025-01-01');
INSERT INTO users VALUES (2, 'tom', 's3cret-hash', '2026-10-01T08:00:00Z', '2025-01-01');
INSERT INTO users VALUES (3, 'eva', 's3cret-hash', NULL, '2025-01-01');
INSERT INTO users VALUES (4, 'new', 's3cret-hash', NULL, '2026-11-19');
CREATE TABLE roles (id INTEGER, name TEXT);
INSERT INTO roles VALUES (1, 'editor'), (2, 'unused');
CREATE TABLE user_roles (user_id INTEGER, role_id INTEGER);
INSERT INTO user_roles VALUES (1, 1);
"""
PERMISSIONS = """
SELECT u.username, r.name AS role FROM users u LEFT JOIN user_roles ur ON ur.user_id = u.id LEFT JOIN roles r ON r.id = ur.role_id
UNION SELECT NULL, r.name FROM roles r LEFT JOIN user_roles ur ON ur.role_id = r.id WHERE ur.role_id IS NULL
"""


class App:
    def __init__(self, folder):
        self.folder, self.path = folder, str(folder / "app.db")
        self.sql(SCHEMA)

    def sql(self, script):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    def review(self, query, check_mode=False, accept=False, **more):
        rule = {"name": "users", "sqlite": self.path, "query": query, "columns": ["username"], **more}
        spec = {**security_app_users.OPTIONS, "state_dir": {"type": "path"}, "accept_baseline": {"type": "bool", "default": accept}}
        params = filled(spec, {"user_rules": [rule], "state_dir": str(self.folder / "state")})
        assert security_app_users.validate(params) == []
        (found,) = security_app_users.look(Review(params, Host(), check_mode, NOW))
        return found


@pytest.fixture
def app(tmp_path):
    return App(tmp_path)


def test_those_who_never_logged_in_are_not_lost(app):
    """The document compares the time alone, which drops every user whose last log-in is empty."""
    found = app.review("SELECT * FROM users", judge="last_login")
    assert (found.state, found.value) == ("warning", 3)
    assert found.evidence == ["eva: never logged in", "new: never logged in", "tom: 51 days ago"]
    counted = app.review("SELECT * FROM users", judge="last_login", created_column="created_at", critical_days=90)
    assert (counted.state, counted.evidence) == ("critical", ["eva: never logged in", "tom: 51 days ago"])


def test_nothing_beyond_the_declared_columns_is_shown_or_kept(app):
    found = app.review("SELECT * FROM users", judge="changes", columns=["username", "created_at"])
    assert "mia, 2025-01-01" in found.evidence
    kept = (app.folder / "state/security_app_users.json").read_text()
    assert "s3cret" not in str(found.as_dict()) + kept


def test_users_without_roles_and_roles_without_users_are_listed_and_changes_found_until_accepted(app):
    rule = {"judge": "changes", "columns": ["username", "role"]}
    first = app.review(PERMISSIONS, **rule)
    assert (first.state, first.evidence) == ("ok", ["-, unused", "eva, -", "mia, editor", "new, -", "tom, -"])
    app.sql("INSERT INTO user_roles VALUES (2, 2)")
    for _again in range(2):
        found = app.review(PERMISSIONS, **rule)
        assert (found.state, found.evidence) == ("warning", ["new: tom, unused", "gone: -, unused", "gone: tom, -"])
    assert app.review(PERMISSIONS, check_mode=True, accept=True, **rule).state == "ok"
    assert app.review(PERMISSIONS, **rule).state == "warning"
    assert app.review(PERMISSIONS, accept=True, **rule).state == "ok"
    assert app.review(PERMISSIONS, **rule).value == 0


def test_rows_that_differ_only_where_they_are_not_shown_are_two_rows(app):
    rule = {"judge": "changes", "columns": ["username", "created_at"]}
    app.sql(f"UPDATE users SET username = '{'x' * 90}1' WHERE id = 1; UPDATE users SET username = 'a, b' WHERE id = 2")
    first = app.review("SELECT * FROM users", **rule)
    assert first.value == 0
    app.sql(f"UPDATE users SET username = '{'x' * 90}2' WHERE id = 1")
    found = app.review("SELECT * FROM users", **rule)
    assert (found.state, found.value, len({line.split(" (sha256 ")[1] for line in found.evidence})) == ("warning", 2, 2)
    app.sql("UPDATE users SET username = 'a', created_at = 'b, 2025-01-01' WHERE id = 2")
    assert app.review("SELECT * FROM users", **rule).value == 4


@pytest.mark.parametrize(
    ("newest", "state"),
    [
        ("2026-11-21T08:30:00Z", "ok"),
        ("2026-11-21T07:30:00Z", "unknown"),
        ("2026-11-22T08:00:00Z", "unknown"),
        (None, "unknown"),
        ("soon", "unknown"),
    ],
)
def test_an_audit_log_without_a_young_row_is_not_known_to_work(app, newest, state):
    """asr-18-7: only a new action that was recorded proves it."""
    app.sql("CREATE TABLE audit_logs (created_at TEXT); INSERT INTO audit_logs VALUES ('2026-01-01')")
    with contextlib.closing(sqlite3.connect(app.path)) as connection:
        connection.execute("UPDATE audit_logs SET created_at = ?", [newest])
        connection.commit()
    rule = {"judge": "recent", "recent_column": "newest", "columns": ["newest"], "recent_minutes": 60.0}
    assert app.review("SELECT max(created_at) AS newest FROM audit_logs", **rule).state == state


def test_each_row_is_somebody_to_report(app):
    orphaned = "SELECT username FROM users u LEFT JOIN user_roles ur ON ur.user_id = u.id WHERE ur.user_id IS NULL ORDER BY username;"
    found = app.review(orphaned, critical_rows=3, advice="Ask personnel.")
    assert (found.state, found.evidence, found.advice) == ("critical", ["eva", "new", "tom"], "Ask personnel.")
    assert app.review("SELECT username FROM users WHERE id > 9").state == "ok"


def test_nobody_at_all_is_unknown(app):
    assert app.review("SELECT * FROM users WHERE id > 9", judge="last_login").state == "unknown"
    assert app.review("SELECT * FROM users WHERE id > 9", judge="changes").state == "unknown"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM absent",
        "SELECT other FROM users",
        "SELECT load_extension('x') AS username",
        "WITH x AS (DELETE FROM users RETURNING username) SELECT * FROM x",
        "SELECT 1 AS username) AS x UNION SELECT writefile('/tmp/x', 'x') AS username FROM (SELECT 1",
        "SELECT * FROM pragma_database_list",
    ],
)
def test_what_cannot_be_asked_is_unknown_and_changes_nothing(app, query):
    before = app.folder.joinpath("app.db").read_bytes()
    assert app.review(query).state == "unknown"
    assert app.folder.joinpath("app.db").read_bytes() == before
    assert sorted(os.listdir(app.folder)) == ["app.db"]


def test_a_query_without_end_is_stopped(app):
    endless = "WITH RECURSIVE n(username) AS (SELECT 1 UNION ALL SELECT username + 1 FROM n) SELECT max(username) AS username FROM n"
    found = app.review(endless, timeout_seconds=1.0)
    assert (found.state, "time limit" in found.summary) == ("unknown", True)


def test_very_many_rows_stay_bounded(app):
    many = "WITH RECURSIVE n(username) AS (SELECT 1 UNION ALL SELECT username + 1 FROM n LIMIT 1000000) SELECT username FROM n"
    assert app.review(many).summary == "at least 10000 rows found"
    assert app.review(many, judge="changes").state == "unknown"


def test_a_database_that_is_missing_a_link_or_damaged_is_unknown(app):
    os.rename(app.path, app.path + "2")
    assert app.review("SELECT username FROM users").state == "unknown"
    os.symlink(app.path + "2", app.path)
    assert app.review("SELECT username FROM users").state == "unknown"


def test_times_that_cannot_be_read_are_never_ok(app):
    app.sql("DELETE FROM users WHERE id > 1; UPDATE users SET last_login = 'soon'")
    assert app.review("SELECT * FROM users", judge="last_login").state == "unknown"


def test_names_that_attack_the_report_are_data(app):
    app.sql("UPDATE users SET username = 'a' || char(10) || char(27) || '[2J; DROP TABLE users'")
    assert app.review("SELECT DISTINCT username FROM users").as_dict()["evidence"] == ["a \\x1b[2J; DROP TABLE users"]


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 31, 0, 0),
        NOW.replace(month=1, day=31, hour=0),
        date(2026, 1, 31),
        "2026-01-31",
        1769817600,
        "1769817600",
        1769817600000,
    ],
)
def test_times_are_read_in_every_form_that_databases_have(value):
    assert security_app_users.moment_of(value, NOW.timestamp()) == 1769817600


@given(st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.booleans(), st.none()))
def test_any_value_is_a_time_or_none(value):
    moment = security_app_users.moment_of(value, NOW.timestamp())
    assert moment is None or isinstance(moment, float)


def test_wrong_input_is_said():
    rules = [
        {"name": "a", "query": "DELETE FROM users", "columns": []},
        {"name": "a", "query": "SELECT 1; SELECT 2", "columns": ["x"], "server": "main", "warning_days": 0},
        {"name": "b", "query": "SELECT 1", "columns": ["x"], "sqlite": "app.db", "judge": "recent"},
    ]
    said = " ".join(security_app_users.validate(filled(security_app_users.OPTIONS, {"user_rules": rules})))
    for part in ("'DELETE FROM users'", "semicolon", "both given or both empty", "columns is []", "'main'", "database is ''", "'app.db'"):
        assert part in said
    assert "user_rules.name is 'a'" in said
    assert "warning_days is 0" in said
    assert "recent_column is ''" in said


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), True, NOW)
    assert security_app_users.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_app_users, "from_limit", lambda *_: "ok")
    assert security_app_users.passes_bad_sample(review)
