"""Users of an application in a real PostgreSQL: asked by declared queries that can only read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.ops.maintenance.plugins.module_utils import security_app_users
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
