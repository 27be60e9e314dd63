"""Retention of rows on a real server: what is due, what is refused, and that no row is ever lost or doubled."""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from clusters import running_cluster
from faults import a_gate, kill_all
from retention_runs import Retention, fill, ids
from upkeep_runs import holding

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_retention_work
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_retention_rules import RULE


@pytest.fixture
def retention(cluster, database):
    return Retention(cluster.server, database)


def states(outcome, finding_id):
    return [finding.state for finding in outcome.findings if finding.id == finding_id]


def one(outcome, finding_id):
    found = [finding for finding in outcome.findings if finding.id == finding_id]
    assert len(found) == 1, outcome.findings
    return found[0]


# -- the rules that the systems have --


def test_sessions_go_seven_days_past_their_expiry_and_rows_without_one_are_counted(session, retention):
    """asr-05-1: in batches, counted, to be vacuumed; NULL never matches and is reported."""
    session.execute("CREATE TABLE user_sessions (id int PRIMARY KEY, expires_at timestamptz, started_at timestamptz)")
    session.execute("INSERT INTO user_sessions SELECT i, now() - make_interval(days => i), now() FROM generate_series(1, 30) i")
    session.execute("INSERT INTO user_sessions VALUES (100, NULL, now() - interval '1 year'), (101, NULL, now()), (102, NULL, NULL)")
    rule = retention.rule("user_sessions", "expires_at", 7.0, batch_rows=5)
    plan = retention.run(rule, check=True)
    assert (plan.status, plan.returned["due"]) == ("due", True)
    assert plan.actions[0].before == {"rows_due": 24}
    assert len(ids(session, "user_sessions")) == 33
    done = retention.run(rule)
    assert done.status == "changed"
    assert ids(session, "user_sessions") == [*range(1, 7), 100, 101, 102]
    assert done.actions[0].after == {"rows_due": 0, "rows_removed": 24}
    null = one(done, "retention.null_rows")
    assert (null.state, null.value) == ("warning", 3)
    assert done.returned["touched"] == [
        {
            "server": "main", "database": retention.database, "schema": "public", "table": "user_sessions", "rows": 24,
            "wants": ["vacuum", "analyze"],
        }
    ]  # fmt: skip
    again = retention.run(rule)
    assert (again.status, again.returned) == ("ok", {"due": False, "touched": []})
    by_start = retention.run({**rule, "null_column_age": "started_at"})
    assert ids(session, "user_sessions") == [*range(1, 7), 101, 102]
    assert one(by_start, "retention.null_rows").value == 1


def test_approvals_are_moved_whole_after_a_year_and_only_once(session, retention):
    """asr-05-2: the literal SQL copied without deleting, and copied again in each run."""
    fill(session, "po_approvals", 400, ", amount numeric(10,2) DEFAULT 7.25, tags text[] DEFAULT '{a}'")
    rule = retention.rule("po_approvals", "created_at", 365.0, "po_approvals_archive", create_archive=True, batch_rows=10)
    before = session.rows("SELECT * FROM po_approvals WHERE id >= 365 ORDER BY id")
    plan = retention.run(rule, check=True)
    assert [action.operation for action in plan.actions] == ["create_archive", "archive"]
    assert session.value("SELECT to_regclass('po_approvals_archive')") is None
    done = retention.run(rule)
    assert session.rows("SELECT * FROM po_approvals_archive ORDER BY id") == before
    assert ids(session, "po_approvals") == list(range(1, 365))
    assert [entry["table"] for entry in done.returned["touched"]] == ["po_approvals", "po_approvals_archive"]
    assert retention.run(rule).status == "ok"
    assert session.rows("SELECT * FROM po_approvals_archive ORDER BY id") == before


def test_what_was_only_copied_before_is_found_and_not_doubled(session, retention):
    """asr-05-2: an archive that the literal INSERT filled holds rows that are in the table too."""
    fill(session, "po_approvals", 400)
    session.execute("CREATE TABLE po_approvals_archive AS SELECT * FROM po_approvals WHERE id > 390")
    rule = retention.rule("po_approvals", "created_at", 365.0, "po_approvals_archive")
    done = retention.run(rule)
    assert "10 of the due rows" in one(done, "retention.archive").summary
    assert not done.is_change
    assert (len(ids(session, "po_approvals")), len(ids(session, "po_approvals_archive"))) == (400, 10)


@pytest.mark.parametrize(("table", "days"), [("audit_logs", 90.0), ("session_logs", 30.0)])
def test_logs_go_after_their_days(session, retention, table, days):
    """neff-weekly-06, neff-weekly-07: the retention is a setting, both are deleted in batches with counts."""
    fill(session, table, 120)
    done = retention.run(retention.rule(table, age_days=days, batch_rows=7))
    assert ids(session, table) == list(range(1, int(days)))
    assert done.actions[0].after["rows_removed"] == 121 - int(days)


def test_a_wrong_setting_does_not_empty_the_table(session, retention):
    """neff-weekly-06: a lower bound of the age, a largest share, a least number of rows."""
    fill(session, "audit_logs", 100)
    with pytest.raises(InputError, match=r"age_days 0\.9, expected at least minimum_age_days"):
        retention.run(retention.rule("audit_logs", age_days=0.9))
    too_much = retention.run(retention.rule("audit_logs", age_days=7.0, maximum_share_percent=60.0))
    assert "94 rows would go, 94 percent of the table" in one(too_much, "retention.share").summary
    assert one(too_much, "retention.rows").state == "warning"
    assert not too_much.is_change
    too_few = retention.run(retention.rule("audit_logs", age_days=7.0, minimum_rows_kept=7))
    assert states(too_few, "retention.share") == ["warning"]
    assert len(ids(session, "audit_logs")) == 100
    enough = retention.run(retention.rule("audit_logs", age_days=7.0, minimum_rows_kept=6))
    assert states(enough, "retention.share") == []
    assert len(ids(session, "audit_logs")) == 6


def test_the_share_is_of_what_would_stay(session, retention):
    fill(session, "log", 100)
    assert states(retention.run(retention.rule("log", age_days=41.0, maximum_share_percent=59.9), check=True), "retention.share")
    assert not states(retention.run(retention.rule("log", age_days=41.0, maximum_share_percent=60.0), check=True), "retention.share")
    first = retention.run(retention.rule("log", age_days=10.0, maximum_share_percent=60.0, allow_large_share=True))
    assert first.status == "changed"


def test_nothing_destructive_is_a_default():
    """netpost-db-07: table, column, age and what becomes of the rows have to be said."""
    assert all(RULE[name].get("required") and "default" not in RULE[name] for name in ("table", "column", "age_days", "archive_table"))


def test_audit_logs_are_archived_first(session, retention):
    """netpost-db-07: explicit settings, the archive keeps every row."""
    session.execute("CREATE SCHEMA audit")
    fill(session, "audit.logs", 60)
    retention.run(retention.rule("audit.logs", age_days=30.0, archive_table="audit.logs_archive", create_archive=True, batch_rows=9))
    assert ids(session, "audit.logs_archive") == list(range(30, 61))
    assert session.value("SELECT count(*) FROM audit.logs JOIN audit.logs_archive USING (id)") == 0


# -- what is due --


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_every_kind_of_time(session, retention, kind):
    fill(session, kind=kind, rows=40)
    retention.run(retention.rule("log"))
    # Of a date the whole day has to be older than 30 days.
    assert ids(session, "log") == list(range(1, 31 if kind == "date" else 30))


def test_times_without_a_zone_are_of_the_declared_zone(session, retention):
    session.execute("CREATE TABLE log (id int, at timestamp)")
    session.execute("INSERT INTO log VALUES (1, (now() AT TIME ZONE 'UTC') - interval '29 days 18 hours')")
    assert retention.run(retention.rule("log", "at"), check=True).status == "ok"
    # There it is 12 hours earlier, so a stored time is 12 hours younger; east of us it is older.
    assert retention.run(retention.rule("log", "at", timezone="Etc/GMT+12"), check=True).status == "ok"
    assert retention.run(retention.rule("log", "at", timezone="Etc/GMT-12"), check=True).status == "due"


def test_equal_values_are_values(session, retention):
    fill(session, more=", kind text DEFAULT 'x', hot boolean DEFAULT false", rows=50)
    session.execute("UPDATE log SET kind = 'it''s %s' WHERE id > 40")
    session.execute("UPDATE log SET hot = true WHERE id > 45")
    retention.run(retention.rule("log", equals={"kind": "it's %s", "hot": True, "id": 47}))
    assert set(range(1, 51)) - set(ids(session, "log")) == {47}
    outcome = retention.run(retention.rule("log", equals={"kind": "it's %s", "hot": True}))
    assert set(range(1, 51)) - set(ids(session, "log")) == {46, 47, 48, 49, 50}
    assert "it's" not in str(outcome.record())


def test_hostile_names(session, retention):
    table, archive = 'A "b" %s', "select"
    quoted, to = session.identifier("My schema", table), session.identifier("My schema", archive)
    session.execute('CREATE SCHEMA "My schema"')
    session.execute(f'CREATE TABLE {quoted} ("Order" int PRIMARY KEY, "user at%" date)')
    session.execute(f"INSERT INTO {quoted} VALUES (1, now() - interval '40 days'), (2, now()), (3, '-infinity'), (4, 'infinity')")
    rule = retention.rule(
        table, "user at%", 30.0, archive, schema="My schema", archive_schema="My schema", create_archive=True, equals={"Order": 1}
    )
    retention.run(rule)
    retention.run({**rule, "equals": {}})
    assert [row["Order"] for row in session.rows(f'SELECT "Order" FROM {to} ORDER BY 1')] == [1, 3]
    assert [row["Order"] for row in session.rows(f'SELECT "Order" FROM {quoted} ORDER BY 1')] == [2, 4]


def test_both_drivers(session, retention, monkeypatch):
    for number, driver in enumerate(("psycopg", "psycopg2")):
        monkeypatch.setattr(postgresql, "DRIVERS", (driver,))
        fill(session, f"log{number}", 40)
        retention.run(retention.rule(f"log{number}", archive_table=f"log{number}_archive", create_archive=True, equals={"said": "row 33"}))
        assert ids(session, f"log{number}_archive") == [33]


def test_generated_and_identity_columns_and_partitions(session, retention):
    session.execute(
        "CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz, twice bigint GENERATED ALWAYS AS (7) STORED) "
        "PARTITION BY RANGE (created_at)"
    )
    bound = session.value("SELECT (now() - interval '60 days')::text")
    session.execute(f"CREATE TABLE log_old PARTITION OF log FOR VALUES FROM (MINVALUE) TO ('{bound}')")
    session.execute("CREATE TABLE log_new PARTITION OF log DEFAULT")
    session.execute("INSERT INTO log (created_at) SELECT now() - make_interval(days => i) FROM generate_series(1, 90) i")
    session.execute(
        "CREATE TABLE archive (id bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz, twice bigint, put timestamptz DEFAULT now())"
    )
    retention.run(retention.rule("log", archive_table="archive", batch_rows=8))
    assert ids(session, "log") == list(range(1, 30))
    assert ids(session, "archive") == list(range(30, 91))
    assert session.value("SELECT sum(twice) FROM archive") == 7 * 61


# -- what others hold --


def test_children_go_first_and_held_rows_stay_with_the_constraint_named(session, retention):
    fill(session, "orders", 60)
    session.execute(
        "CREATE TABLE items (id int PRIMARY KEY, order_id int CONSTRAINT items_of_order REFERENCES orders, created_at timestamptz)"
    )
    session.execute("INSERT INTO items SELECT id, id, created_at FROM orders")
    session.execute("INSERT INTO items VALUES (1000, 50, now()), (1001, 50, now())")
    orders, items = retention.rule("orders"), retention.rule("items", archive_table="items_archive", create_archive=True)
    plan = retention.run(orders, items, check=True)
    assert [(action.operation, action.before["rows_due"]) for action in plan.actions if action.before] == [("archive", 31), ("purge", 31)]
    assert plan.actions[-1].after == {"rows_due": 1}
    done = retention.run(orders, items)
    assert ids(session, "orders") == [*range(1, 30), 50]
    assert ids(session, "items") == [*range(1, 30), 1000, 1001]
    held = one(done, "retention.references")
    assert held.state == "warning"
    assert held.evidence == ["items_of_order of public.items (ON DELETE NO ACTION): 1 rows"]
    assert [f.state for f in done.findings if f.id == "retention.rows"] == ["ok", "ok"]
    assert retention.run(orders, items).status == "ok"


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_a_cascade_deletes_nothing_behind_the_archive_s_back(session, retention, action):
    fill(session, "orders", 60)
    session.execute(f"CREATE TABLE items (id int, order_id int REFERENCES orders ON DELETE {action}, created_at timestamptz)")
    session.execute("INSERT INTO items VALUES (1, 40, now()), (2, NULL, now())")
    done = retention.run(retention.rule("orders", archive_table="orders_archive", create_archive=True))
    assert ids(session, "orders") == [*range(1, 30), 40]
    assert session.rows("SELECT id, order_id FROM items ORDER BY id")[0] == {"id": 1, "order_id": 40}
    assert f"ON DELETE {action}" in one(done, "retention.references").evidence[0]
    retention.run(retention.rule("orders", archive_table="orders_archive", allow_cascade=True))
    assert ids(session, "orders") == list(range(1, 30))


def test_rows_that_refer_to_each_other(session, retention):
    session.execute("CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree, created_at timestamptz)")
    session.execute("INSERT INTO tree SELECT i, nullif(i - 1, 0), now() - make_interval(days => 100 - i) FROM generate_series(1, 20) i")
    session.execute("INSERT INTO tree VALUES (50, 10, now())")
    rule = retention.rule("tree", batch_rows=3)
    retention.run(rule)
    assert ids(session, "tree") == [*range(1, 11), 50]
    assert retention.run(rule).status == "ok"


def test_keys_of_several_columns(session, retention):
    session.execute("CREATE TABLE parts (a int, b int, created_at timestamptz, PRIMARY KEY (b, a))")
    session.execute("INSERT INTO parts SELECT i, 1, now() - interval '40 days' FROM generate_series(1, 5) i")
    session.execute("CREATE TABLE uses (y int, x int, FOREIGN KEY (x, y) REFERENCES parts (a, b))")
    session.execute("INSERT INTO uses VALUES (1, 3), (NULL, 4)")
    done = retention.run(retention.rule("parts", archive_table="parts_archive", create_archive=True))
    assert [row["a"] for row in session.rows("SELECT a FROM parts")] == [3]
    assert session.value("SELECT count(*) FROM parts_archive") == 4
    assert one(done, "retention.references").value == 1


def test_triggers_find_their_tables_where_the_rule_says_so(session, retention):
    fill(session, rows=40)
    session.execute("CREATE TABLE seen (id int)")
    body = "BEGIN INSERT INTO seen VALUES (OLD.id); RETURN OLD; END"
    session.execute(f"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    session.execute("CREATE TRIGGER t BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION note()")
    failed = retention.run(retention.rule("log"))
    assert (failed.status, len(ids(session, "log"))) == ("failed", 40)
    assert retention.run(retention.rule("log", search_path=["public"])).status == "changed"
    assert ids(session, "seen") == list(range(30, 41))


def test_a_row_that_becomes_referred_to_meanwhile_stays(session, retention, cluster, monkeypatch):
    """Between the choice of a row and its lock another session may have committed a reference to it; CASCADE would eat that."""
    fill(session, "orders", 40)
    session.execute("CREATE TABLE items (id int, order_id int REFERENCES orders ON DELETE CASCADE)")
    original = postgresql.Session.rows

    def rows(self, statement, params=None):
        found = original(self, statement, params)
        if "SKIP LOCKED" in statement and found:
            # The snapshot of this statement is older than the commit: as if the lock had been taken after it.
            self.execute("INSERT INTO public.items SELECT 1, 35 WHERE NOT EXISTS (SELECT FROM public.items)")
        return found

    monkeypatch.setattr(postgresql.Session, "rows", rows)
    done = retention.run(retention.rule("orders"))
    monkeypatch.undo()
    assert done.status == "changed"
    assert ids(session, "orders") == [*range(1, 30), 35]
    assert session.value("SELECT count(*) FROM items") == 1


def test_rows_locked_by_others_are_skipped_and_said(session, retention, cluster):
    fill(session, rows=40)
    with postgresql.connect(cluster.server, retention.database) as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM public.log WHERE id = 35 FOR UPDATE")
        done = retention.run(retention.rule("log", batch_rows=2))
        assert ids(session, "log") == [*range(1, 30), 35]
        assert one(done, "retention.rows").state == "warning"
        other.execute("ROLLBACK")
    assert retention.run(retention.rule("log")).status == "changed"
    assert ids(session, "log") == list(range(1, 30))


def test_a_locked_table_is_no_endless_wait_and_who_holds_it_is_named(session, retention, cluster):
    """asr-05-2: a lock that is held for ever keeps one from reading, or from removing; nobody is ended for it."""
    locks = {"read": "ACCESS EXCLUSIVE", "removed": "SHARE"}
    for name in locks:
        fill(session, name, rows=40)
    with contextlib.ExitStack() as stack:
        for name, mode in locks.items():
            stack.enter_context(holding(cluster, retention.database, f"LOCK public.{name} IN {mode} MODE"))
        with ThreadPoolExecutor() as pool:
            runs = {name: pool.submit(retention.run, retention.rule(name)) for name in locks}
        for name, state in (("read", "unknown"), ("removed", "critical")):
            done = runs[name].result()
            found = one(done, "retention.rows")
            assert (done.status, found.state) == ("failed", state)
            assert re.search(
                r"blocked by pid \d+ of user postgres, application payroll, idle in transaction, since .*end it", found.summary
            )
    for name in locks:
        assert len(ids(session, name)) == 40
    assert retention.run(*map(retention.rule, locks)).status == "changed"


@pytest.mark.parametrize(
    ("limit", "status", "rest"),
    [({"statement_timeout_seconds": 1.0}, "failed", "failed"), ({"deadline": 3.0}, "changed", "deferred")],
)
def test_a_batch_that_takes_too_long_is_rolled_back_whole(session, retention, limit, status, rest):
    """asr-05-2: past statement_timeout, or when the window closes: what is through is through, the rest is where it was."""
    fill(session)
    session.execute("CREATE TABLE log_archive (LIKE log)")
    if "deadline" in limit:
        limit = {"deadline": time.time() + limit["deadline"]}
    rule = retention.rule("log", archive_table="log_archive", batch_rows=20)
    with a_gate() as gate:
        gate.build(session)
        body = "BEGIN IF OLD.id = 50 THEN PERFORM public.gate(1); END IF; RETURN OLD; END"
        session.execute(f"CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
        session.execute("CREATE TRIGGER t BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION wait()")
        gate.shut()
        done = retention.run(rule, **limit)
        assert (done.status, [action.status for action in done.actions]) == (status, ["changed", rest])
        assert (ids(session, "log"), ids(session, "log_archive")) == (list(range(1, 61)), list(range(61, 101)))
        said = "did not end within 1 seconds (statement_timeout_seconds)" if status == "failed" else "Give the window more time."
        found = one(done, "retention.rows")
        assert said in found.summary + found.advice
        gate.open()
        assert retention.run(rule).status == "changed"
    assert (ids(session, "log"), ids(session, "log_archive")) == (list(range(1, 30)), list(range(30, 101)))


@pytest.mark.parametrize("event", ["DELETE ON log", "INSERT ON archive"])
def test_a_trigger_that_swallows_rows_rolls_the_batch_back(session, retention, event):
    fill(session, rows=40)
    session.execute("CREATE TABLE archive (LIKE log)")
    row = "OLD" if "DELETE" in event else "NEW"
    body = f"BEGIN IF {row}.id = 38 THEN RETURN NULL; END IF; RETURN {row}; END"
    session.execute(f"CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    session.execute(f"CREATE TRIGGER t BEFORE {event} FOR EACH ROW EXECUTE FUNCTION swallow()")
    done = retention.run(retention.rule("log", archive_table="archive", batch_rows=2))
    assert done.status == "failed"
    assert "rolled back" in one(done, "retention.rows").summary
    assert sorted(ids(session, "log") + ids(session, "archive")) == list(range(1, 41))
    assert 38 in ids(session, "log")


# -- bad input, before anything is changed --


def archive_with(columns):
    return f"CREATE TABLE archive ({columns})"


@pytest.mark.parametrize(
    ("prepare", "change", "says"),
    [
        ("SELECT 1", {"table": "nolog"}, "does not exist"),
        ("SELECT 1", {"table": "Log"}, "letter case counts"),
        ("CREATE VIEW v AS SELECT * FROM log", {"table": "v"}, "a view, expected a table"),
        ("SELECT 1", {"column": "said"}, "of type text, expected timestamp"),
        ("SELECT 1", {"column": "nope"}, "expected one of the table's columns"),
        ("SELECT 1", {"null_column_age": "nope"}, "has null_column_age 'nope'"),
        ("SELECT 1", {"equals": {"nope": 1}}, "has equals.nope"),
        ("SELECT 1", {"timezone": "Mars/North"}, "does not know"),
        ("SELECT 1", {"archive_table": "archive"}, "does not exist; create it"),
        ("SELECT 1", {"archive_table": "nowhere.a", "create_archive": True}, "there is no schema 'nowhere'"),
        (archive_with("id int, created_at timestamptz"), {"archive_table": "archive"}, "said is missing there"),
        (archive_with("id int, created_at timestamp, said text"), {"archive_table": "archive"}, "expected timestamp with time zone"),
        (archive_with("id int, created_at timestamptz, said varchar(9)"), {"archive_table": "archive"}, "said is character varying"),
        (archive_with("id int, created_at timestamptz, said text, x int NOT NULL"), {"archive_table": "archive"}, "x is required"),
        ("CREATE UNLOGGED TABLE archive (LIKE log)", {"archive_table": "archive"}, "a crash would empty it"),
        ("CREATE TABLE part () INHERITS (log)", {"archive_table": "part"}, "part of the table itself"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence_and_stops_all_rules(session, retention, prepare, change, says):
    fill(session)
    fill(session, "sound")
    session.execute(prepare)
    for check in (True, False):
        with pytest.raises(InputError, match=says) as caught:
            retention.run(retention.rule("sound"), {**retention.rule("log"), **change}, check=check)
        assert caught.value.outcome.findings[0].id == "retention.rule"
    assert (len(ids(session, "sound")), len(ids(session, "log"))) == (100, 100)


def test_a_missing_privilege_is_named(session, retention, cluster):
    fill(session)
    session.execute("CREATE ROLE weak LOGIN")
    try:
        session.execute("GRANT SELECT, DELETE ON log TO weak")
        retention.server["user"] = "weak"
        with pytest.raises(InputError, match=r"needs UPDATE on public\.log"):
            retention.run(retention.rule("log"))
        session.execute("GRANT UPDATE (said) ON log TO weak")
        session.execute("ALTER TABLE log ENABLE ROW LEVEL SECURITY")
        hidden = retention.run(retention.rule("log"))
        assert one(hidden, "retention.rows").state == "unknown"
        session.execute("ALTER TABLE log DISABLE ROW LEVEL SECURITY")
        assert retention.run(retention.rule("log")).status == "changed"
    finally:
        session.execute("DROP OWNED BY weak")
        session.execute("DROP ROLE weak")


def test_a_server_that_does_not_answer_is_unknown_and_the_others_go_on(session, retention):
    fill(session)
    away = {**retention.server, "name": "away", "port": 5999}
    done = retention.run({**retention.rule("log"), "server": "away"}, retention.rule("log"), servers=[retention.server, away])
    assert done.status == "failed"
    assert sorted(states(done, "retention.rows")) == ["ok", "unknown"]
    assert len(ids(session, "log")) == 29


def test_no_rule_is_no_good_news(retention):
    assert retention.run().state == "unknown"


def test_a_big_table_wants_an_index(session, retention, monkeypatch):
    fill(session)
    session.execute("ANALYZE log")
    monkeypatch.setattr(postgresql_retention_work, "BIG_TABLE_ROWS", 50)
    refused = retention.run(retention.rule("log"))
    assert one(refused, "retention.index").state == "warning"
    assert one(refused, "retention.rows").state == "unknown"
    assert (refused.status, len(ids(session, "log"))) == ("ok", 100)
    session.execute("CREATE INDEX half ON log (created_at) WHERE id > 5")
    assert states(retention.run(retention.rule("log"), check=True), "retention.index") == ["warning"]
    session.execute("CREATE INDEX whole ON log (created_at)")
    assert states(retention.run(retention.rule("log"), check=True), "retention.index") == []
    session.execute("DROP INDEX whole")
    assert retention.run(retention.rule("log", allow_scan=True)).status == "changed"


# -- time --


class Shifted(Host):
    def __init__(self, seconds=0):
        self.seconds = seconds

    def sleep(self, seconds):
        self.seconds += seconds

    def now(self):
        return super().now() + timedelta(seconds=self.seconds)


def test_a_clock_that_is_wrong_removes_nothing(session, retention):
    fill(session)
    for seconds in (86400 * 365, -86400 * 365):
        done = retention.run(retention.rule("log"), host=Shifted(seconds))
        assert one(done, "retention.clock").state == "critical"
        assert not done.is_change
    assert len(ids(session, "log")) == 100


def test_what_does_not_fit_into_the_window_is_deferred(session, retention):
    fill(session)
    late = retention.run(retention.rule("log"), deadline=time.time() - 5)
    assert late.status == "deferred"
    assert len(ids(session, "log")) == 100
    some = retention.run(retention.rule("log", batch_rows=10, pause_seconds=50.0), deadline=time.time() + 120, host=Shifted())
    assert [action.status for action in some.actions] == ["changed", "deferred"]
    assert 29 < len(ids(session, "log")) < 100
    assert some.actions[0].after["rows_removed"] == 100 - len(ids(session, "log"))
    assert retention.run(retention.rule("log")).status == "changed"


def test_two_runs_at_once_share_the_work(session, retention):
    fill(session, rows=600)
    rule = retention.rule("log", archive_table="log_archive", batch_rows=5, create_archive=False)
    session.execute("CREATE TABLE log_archive (LIKE log)")
    runs = [threading.Thread(target=retention.run, args=(rule,)) for _ in range(3)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    retention.run(rule)
    assert ids(session, "log") == list(range(1, 30))
    assert ids(session, "log_archive") == list(range(30, 601))


# -- killed at any point --


@pytest.fixture(scope="module")
def mortal():
    """A cluster of its own, for its processes are killed; durable as in production."""
    with running_cluster() as cluster:
        yield cluster


class Battle:
    """One table with its archive, and a run that is killed."""

    ROWS = 110

    def __init__(self, cluster):
        self.cluster, self.retention = cluster, Retention(cluster.server, "postgres")
        self.rule = self.retention.rule("log", archive_table="log_archive", batch_rows=25)
        with self.session() as session:
            session.execute("DROP TABLE IF EXISTS public.log, public.log_archive")
            fill(session, "public.log", self.ROWS)
            session.execute("CREATE TABLE public.log_archive (LIKE public.log)")  # no key, so that doubles would get in

    def session(self):
        for _attempt in range(100):
            try:
                return postgresql.connect(self.cluster.server)
            except postgresql.NotReachableError:
                time.sleep(0.05)
        raise AssertionError(self.cluster.log_tail())

    def check(self):
        """Nothing lost, nothing doubled, nothing young moved; returns how many rows have moved."""
        with self.session() as session:
            active, archived = ids(session, "public.log"), ids(session, "public.log_archive")
        everything = Counter(active + archived)
        assert sorted(everything) == list(range(1, self.ROWS + 1))
        assert max(everything.values()) == 1
        assert set(range(1, 30)) <= set(active)
        return len(archived)

    def finish(self):
        """The next run completes the work."""
        self.retention.run(self.rule)
        assert self.check() == self.ROWS - 29


@contextlib.contextmanager
def at_statement(number, strike, after):
    """Strike before or after the n-th statement that a session which writes sends."""
    original, seen = postgresql.Session._run, []

    def run(self, statement, params):
        writes = self.writes = getattr(self, "writes", False) or statement == "BEGIN"
        if writes:
            seen.append(statement)
        if writes and len(seen) == number and not after:
            strike(self)
        cursor = original(self, statement, params)
        if writes and len(seen) == number and after:
            strike(self)
        return cursor

    postgresql.Session._run = run
    try:
        yield seen
    finally:
        postgresql.Session._run = original


# A batch is BEGIN, lock, move, COMMIT: before and after each of them, and in the second batch.
STRIKES = [(1, False), (2, True), (3, False), (3, True), (4, False), (4, True), (8, False), (8, True)]


def test_client_killed_at_every_statement(mortal):
    moved = set()
    for number, after in STRIKES:
        battle = Battle(mortal)
        child = os.fork()
        if not child:
            with at_statement(number, lambda _session: os.kill(os.getpid(), 9), after):
                battle.retention.run(battle.rule)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 9
        moved.add(battle.check())
        battle.finish()
    assert moved == {0, 25, 50}


def strike_backend(session):
    """Kill the server's process of a session; PostgreSQL then restarts all its processes."""
    pid = session.raw.info.backend_pid
    os.kill(pid, 9)
    time.sleep(0.05)


def test_server_process_killed_at_every_statement(mortal):
    for number, after in STRIKES:
        battle = Battle(mortal)
        with at_statement(number, strike_backend, after):
            done = battle.retention.run(battle.rule)
        assert done.status == "failed"
        assert "was lost" in done.summary
        battle.check()
        battle.finish()


def test_connection_cut_at_every_statement(mortal):
    for number, after in STRIKES:
        battle = Battle(mortal)
        with battle.session() as other:

            def cut(session, other=other):
                assert other.value("SELECT pg_terminate_backend(%s)", [session.raw.info.backend_pid])
                time.sleep(0.02)

            with at_statement(number, cut, after):
                done = battle.retention.run(battle.rule)
        assert done.status == "failed"
        battle.check()
        battle.finish()


def test_whole_server_stopped_at_every_statement(mortal):
    for place, (number, after) in enumerate(STRIKES):
        battle = Battle(mortal)
        # Immediate stop and SIGKILL of all its processes by turns.
        end = (lambda _session: kill_all(mortal.data)) if place % 2 else (lambda _session: mortal.stop())
        with at_statement(number, end, after):
            done = battle.retention.run(battle.rule)
        assert done.status == "failed"
        assert "was lost" in done.summary
        mortal.start(AGAIN)
        battle.check()
        battle.finish()


AGAIN = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "wal_level": "replica"}


def test_client_killed_at_any_time(mortal):
    """At random instants, in the middle of statements and commits too."""
    chance = random.Random(5)
    moved = []
    for _round in range(8):
        battle = Battle(mortal)
        child = os.fork()
        if not child:
            battle.retention.run({**battle.rule, "batch_rows": 3})
            os._exit(0)
        until = chance.randrange(1, battle.ROWS - 29)
        with battle.session() as session:
            while session.value("SELECT count(*) FROM public.log_archive") < until:
                pass
        time.sleep(chance.random() * 0.003)
        os.kill(child, 9)
        os.waitpid(child, 0)
        moved.append(battle.check())
        battle.finish()
    assert len(set(moved)) > 3


def test_a_standby_is_refused_with_one_sentence(mortal):
    battle = Battle(mortal)
    mortal.stop()
    signal_file = os.path.join(mortal.data, "standby.signal")
    mortal._write(signal_file, "")
    mortal.start(AGAIN)
    try:
        with pytest.raises(InputError, match="names a standby, which cannot be written to; name the primary"):
            battle.retention.run(battle.rule)
    finally:
        mortal.stop()
        os.unlink(signal_file)
        mortal.start(AGAIN)
    battle.finish()
