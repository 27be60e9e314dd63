"""Users of an application in a real PostgreSQL: asked by declared queries that can only read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.ops.maintenance.plugins.module_utils import security_app_disable, security_app_users
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

SCHEMA = """
CREATE TABLE users (id int, username text, password_hash text, last_login timestamptz, created_at date);
INSERT INTO users VALUES (1, 'mia', 's3cret', now(), now()), (2, 'tom', 's3cret', now() - interval '40 days', '2025-01-01'),
  (3, 'eva', 's3cret', NULL, '2025-01-01'), (4, '100%s; DROP TABLE users', 's3cret', now(), now())
"""


def asked(cluster, database, tmp_path, query, **more):
    rule = {"name": "users", "server": cluster.server["name"], "database": database, "query": query, "columns": ["username"], **more}
    spec = {**security_app_users.OPTIONS, "state_dir": {"type": "path"}, "accept_baseline": {"type": "bool", "default": False}}
    params = filled(spec, {"user_rules": [rule], "servers": [cluster.server], "state_dir": str(tmp_path / "state")})
    assert security_app_users.validate(params) == []
    host = Host()
    (found,) = security_app_users.look(Review(params, host, False, host.now()))
    return found


@pytest.fixture
def users(session):
    session.execute(SCHEMA)


@pytest.mark.usefixtures("users")
def test_users_without_a_log_in_are_found_and_nothing_else_is_shown(cluster, database, tmp_path):
    found = asked(cluster, database, tmp_path, "SELECT * FROM users", judge="last_login", created_column="created_at")
    assert (found.state, found.evidence) == ("warning", ["eva: never logged in", "tom: 40 days ago"])
    names = asked(cluster, database, tmp_path, "SELECT * FROM users WHERE username LIKE '%DROP%'")
    assert names.evidence == ["100%s; DROP TABLE users"]
    assert "s3cret" not in str(found.as_dict())


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("WITH gone AS (DELETE FROM users RETURNING username) SELECT * FROM gone", "0A000"),
        ("SELECT nextval('s')::text AS username", "25006"),
        ("SELECT set_config('transaction_read_only', 'off', false) AS username", "25001"),
        ("SELECT pg_sleep(9)::text AS username", "57014"),
        ("SELECT username FROM absent", "42P01"),
    ],
)
def test_what_writes_waits_or_is_wrong_is_unknown_and_changes_nothing(cluster, database, session, tmp_path, query, why):
    session.execute("CREATE SEQUENCE s")
    found = asked(cluster, database, tmp_path, query, timeout_seconds=1.0)
    assert found.state == "unknown"
    assert why in found.summary
    assert session.value("SELECT count(*) FROM users") == 4


def test_the_audit_of_neff_paving_loses_nobody(cluster, database, session, tmp_path):
    """Its document's own comparison drops who never logged in, and its inner joins drop users without roles and roles without permissions."""
    for statement in (
        "CREATE TABLE users (id int, username text, last_login timestamptz, role text, active boolean)",
        "INSERT INTO users VALUES (1, 'mia', now(), 'admin', true), (2, 'eva', NULL, 'staff', true), (3, 'tom', now() - interval '31 days', '', true)",
        "CREATE TABLE roles (id int, role_name text)",
        "INSERT INTO roles VALUES (1, 'admin'), (2, 'empty')",
        "CREATE TABLE permissions (id int, permission_name text)",
        "INSERT INTO permissions VALUES (1, 'write')",
        "CREATE TABLE user_roles (user_id int, role_id int)",
        "INSERT INTO user_roles VALUES (1, 1)",
        "CREATE TABLE role_permissions (role_id int, permission_id int)",
        "INSERT INTO role_permissions VALUES (1, 1)",
    ):
        session.execute(statement)
    path = Path(__file__).resolve().parents[2] / "inventories/prod/group_vars/neff_paving/security_review.yml"

    def here(rule):
        return {**{name: value for name, value in rule.items() if name != "database"}, "server": cluster.server["name"]}

    unused, permissions = yaml.safe_load(path.read_text())["security_review_user_rules"]
    found = asked(cluster, database, tmp_path, **here(unused))
    assert (found.state, found.evidence) == ("warning", ["eva, staff: never logged in", "tom, : 31 days ago"])
    rule = here(permissions)
    first = asked(cluster, database, tmp_path, **rule)
    assert first.evidence == ["-, empty, -", "eva, -, -", "mia, admin, write", "tom, -, -"]
    session.execute("INSERT INTO user_roles VALUES (2, 1)")
    assert asked(cluster, database, tmp_path, **rule).evidence == ["new: eva, admin, write", "gone: eva, -, -"]


def test_a_database_that_is_not_there_is_unknown(cluster, tmp_path):
    assert asked(cluster, "absent", tmp_path, "SELECT 1 AS username").state == "unknown"


PEOPLE = (
    "CREATE TABLE users (id serial PRIMARY KEY, username text, role text, is_active boolean NOT NULL DEFAULT true, last_login timestamptz)",
    "INSERT INTO users (username, role, last_login) VALUES ('mia', 'MAJORITY_OWNER', now()), ('tom', 'MAJORITY_OWNER', now() - interval '200 days'), "
    "('eva', 'EMPLOYEE', NULL), ('svc-mail', 'EMPLOYEE', NULL), ('100%s', 'EMPLOYEE', NULL), ('kim', 'EMPLOYEE', now() - interval '9 days')",
    "CREATE TABLE user_sessions (user_id int, expires_at timestamptz)",
    "INSERT INTO user_sessions VALUES (1, now()), (3, now()), (3, now())",
)


def disabled(cluster, database, *names, check_mode=False, days=90, **more):
    rule = {
        "name": "people",
        "server": cluster.server["name"],
        "database": database,
        "table": "public.users",
        "key_column": "username",
        "set": {"is_active": False},
        "admin_query": "SELECT username FROM users WHERE role LIKE '%OWNER' AND is_active",
        "last_login_column": "last_login",
        "protected": ["svc-*"],
        "accounts": [{"account": name, "approved_by": "Mia Vogel", "reason": "left", "inactive_days": days} for name in names],
        "sessions": [{"table": "user_sessions", "column": "user_id", "matches": "id"}],
        **more,
    }
    params = filled({**security_app_disable.OPTIONS, "servers": {"default": []}}, {"disable_users": [rule], "servers": [cluster.server]})
    assert security_app_disable.validate(params) == []
    host = Host()
    review = Review(params, host, check_mode, host.now())
    (found,) = security_app_disable.look(review)
    return found, review.actions


@pytest.fixture
def people(session):
    for statement in PEOPLE:
        session.execute(statement)
    return lambda: session.rows("SELECT * FROM public.users ORDER BY id")


def open_ones(people):
    return [row["username"] for row in people() if row["is_active"]]


def test_approved_users_are_disabled_and_come_back_by_the_recorded_statement(cluster, database, session, people):
    """asr-12-2, neff-monthly-12: check mode lists, the run disables and ends sessions, again there is nothing to do."""
    before = people()
    _due, actions = disabled(cluster, database, "eva", "100%s", "kim", "svc-mail", check_mode=True)
    assert ([action.status for action in actions], people()) == (["due", "due"], before)
    found, actions = disabled(cluster, database, "eva", "100%s", "kim", "svc-mail")
    assert (found.state, [action.status for action in actions]) == ("warning", ["changed", "changed"])
    assert list(found.evidence[:2]) == [
        "not disabled, kim: it logged in 9 days ago, approved from 90 days on",
        "not disabled, svc-mail: it is protected (a service or an account for emergencies)",
    ]
    assert open_ones(people) == ["mia", "tom", "svc-mail", "kim"]
    assert (len(people()), session.value("SELECT count(*) FROM user_sessions")) == (6, 1)
    assert disabled(cluster, database, "eva", "100%s")[1] == []
    for action in actions:
        session.execute(action.summary.partition("to undo: ")[2])
    assert people() == before


def test_the_last_administrator_stays(cluster, database, people):
    found, actions = disabled(cluster, database, "tom", "mia", days=0)
    assert ([action.subject for action in actions], open_ones(people)[0]) == (["people: tom"], "mia")
    assert "mia: it is the last administrator" in found.evidence[0]


@pytest.mark.parametrize(
    "body",
    [
        "NEW.is_active := true; RETURN NEW;",
        "DELETE FROM public.users WHERE username = 'kim'; RETURN NEW;",
        "UPDATE public.users SET is_active = false WHERE username = 'kim' AND is_active; RETURN NEW;",
        "RETURN NULL;",
        "RAISE EXCEPTION 'no';",
    ],
)
def test_where_the_counts_do_not_agree_postgresql_takes_everything_back(cluster, database, session, people, body):
    session.execute(f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    session.execute("CREATE TRIGGER meddle BEFORE UPDATE ON users FOR EACH ROW WHEN (OLD.username = 'eva') EXECUTE FUNCTION meddle()")
    before = people()
    found, actions = disabled(cluster, database, "eva", "100%s")
    assert (found.state, [action.status for action in actions], people()) == ("critical", ["failed"], before)
    assert session.value("SELECT count(*) FROM user_sessions") == 3


def test_a_function_that_somebody_put_into_public_is_not_run(cluster, database, session, people):
    """Whoever may create there could have the review's role run anything, or make the counts agree."""
    session.execute("CREATE FUNCTION public.planted(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$")
    session.execute("CREATE AGGREGATE public.count(*) (sfunc = public.planted, stype = bigint, initcond = '0')")
    found, actions = disabled(
        cluster, database, "eva", admin_query="SELECT username FROM (SELECT *, count(*) OVER () FROM users) u WHERE role LIKE '%OWNER'"
    )
    assert (found.state, [action.status for action in actions]) == ("ok", ["changed"]), found.summary


def test_a_row_that_somebody_holds_is_not_waited_for_long(cluster, database, session, people):
    session.execute("BEGIN; UPDATE users SET role = role WHERE username = 'eva'")
    found, actions = disabled(cluster, database, "eva", timeout_seconds=1.0)
    session.execute("ROLLBACK")
    assert (found.state, actions[0].status, open_ones(people)[2]) == ("critical", "failed", "eva")
