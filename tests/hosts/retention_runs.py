"""What the tests of the retention of rows share: rules, tables with rows of every age, which rows are where."""

from __future__ import annotations

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_retention
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_retention_rules import RULE


class Retention:
    """Rules on one database."""

    def __init__(self, server, database):
        self.server, self.database = {**server, "name": "main"}, database

    def rule(self, table, column="created_at", age_days=30.0, archive_table="", **more):
        given = {name: option.get("default") for name, option in RULE.items()}
        given.update(server="main", database=self.database, table=table, column=column, age_days=age_days, archive_table=archive_table)
        given.update({"maximum_share_percent": 100.0, **more})
        return given

    def run(self, *rules, check=False, host=None, **more):
        params = {
            "run_id": "",
            "deadline": 0.0,
            "state_dir": "/nowhere",
            "self_test": False,
            "servers": [self.server],
            "rules": list(rules),
            "statement_timeout_seconds": 60.0,
            "clock_tolerance_seconds": 3600.0,
            **more,
        }
        outcome = postgresql_retention.run(params, check, host or Host())
        outcome.record()
        return outcome


def ids(session, table):
    return sorted(row["id"] for row in session.rows(f"SELECT id FROM {table}"))


def fill(session, table="log", rows=100, more="", kind="timestamptz"):
    """Rows 1 to n, of which number i is i days old."""
    session.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, created_at {kind}, said text{more})")
    session.execute(f"INSERT INTO {table} SELECT i, now() - make_interval(days => i), 'row ' || i FROM generate_series(1, {rows}) i")
