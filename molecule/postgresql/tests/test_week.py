"""The week of a system on PostgreSQL: what changed in the databases, and what the records say of them."""

from __future__ import annotations

import json

import pytest
from helpers import findings, of_kind, runs

testinfra_hosts = ["shop"]

CHECKED, FIRST, SECOND = range(3)
FAULTS = {
    "postgresql.autovacuum_tables": "public.events",
    "postgresql.duplicate_indexes": "orders_customer",
    "postgresql.foreign_key_indexes": "public.events",
    "postgresql.sequences": "Old Invoices_id_seq",
    "postgresql.primary_keys": "public.events",
    "postgresql.triggers": "audit",
    "postgresql.constraints": "total_positive",
    "postgresql.unlogged_tables": "public.carts",
    "postgresql.public_schema": "public",
}


def name_of(host) -> str:
    return host.backend.get_hostname()


def records(host, run: int, operation: str) -> list[dict]:
    return of_kind("record", runs()[run], host=name_of(host), operation=operation)


def ask(host, database: str, question: str) -> str:
    with host.sudo("postgres"):
        return host.check_output("psql -XAtd %s -c %s", database, question)


def review(host, database: str, run: int = FIRST) -> dict[str, dict]:
    return {found["id"]: found for found in findings(host=name_of(host), subject=f"main/{database}", journal=runs()[run])}


@pytest.mark.parametrize("finding_id", FAULTS)
def test_each_planted_fault_is_found_and_named(host, finding_id):
    found = review(host, "shop")[finding_id]
    assert found["state"] in ("warning", "critical")
    assert FAULTS[finding_id] in found["summary"] + " ".join(found["evidence"])


def test_the_clean_twin_is_silent(host):
    # Statistics of a server that was just made are too young for two questions; the server's faults are its own.
    young = {"postgresql.unused_indexes", "postgresql.error_share"}
    assert {name for name, found in review(host, "twin").items() if found["state"] != "ok"} <= young
    assert len(review(host, "twin")) > 20


def test_no_approval_is_lost_or_doubled(host):
    counts = [int(ask(host, "shop", f"SELECT count(*) FROM {table}")) for table in ("approvals", "approvals_archive")]
    assert sum(counts) == 700
    assert counts[1] in (335, 336)
    both = "SELECT count(*) FROM (SELECT id FROM approvals UNION ALL SELECT id FROM approvals_archive) t GROUP BY id HAVING count(*) > 1"
    assert ask(host, "shop", both) == ""


def test_sessions_go_a_week_past_their_end_and_the_twin_keeps_its_own(host):
    assert ask(host, "shop", "SELECT count(*) FROM user_sessions WHERE expires_at < now() - interval '7 days 2 hours'") == "0"
    assert ask(host, "twin", "SELECT count(*) FROM user_sessions") == "1000"
    assert ask(host, "twin", "SELECT count(*) FROM approvals") == "700"


def test_rows_were_removed_after_a_proven_snapshot_only(host):
    journal = [record["operation"] for record in of_kind("record", runs()[FIRST], host=name_of(host)) if record["status"] == "changed"]
    assert journal.index("snapshot") < journal.index("postgresql_retention") < journal.index("postgresql_upkeep")
    [snapshot] = host.file("/var/backups/ops_maintenance").listdir()
    manifest = json.loads(host.file(f"/var/backups/ops_maintenance/{snapshot}/manifest.json").content_string)
    assert "shop" in json.dumps(manifest["postgresql"])


def test_an_old_upload_goes_unless_a_row_names_it(host):
    assert sorted(host.file("/srv/shop/uploads").listdir()) == ["kept.pdf", "new.tmp"]


def test_dead_rows_are_gone_and_an_invalid_index_is_whole(host):
    assert int(ask(host, "shop", "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'events'")) < 1000
    assert ask(host, "shop", "SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_broken'::regclass") == "t"
    assert ask(host, "shop", "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == "0"


def test_the_backup_is_proven_by_a_measured_restore_and_nothing_of_it_is_left(host):
    [record] = records(host, FIRST, "backup_verification")
    assert "daily L5" in record["summary"]
    assert (
        ask(host, "postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate")
        == "postgres shop twin"
    )
    assert host.run("pgrep -f '[o]ps_maintenance_scratch'").rc == 1


def test_nothing_had_to_stop(host):
    [outcome] = of_kind("outcome", runs()[FIRST], host=name_of(host))
    assert (outcome["outcome"], outcome["downtime_seconds"]) == ("completed", 0)


def test_check_mode_found_the_work_that_was_then_done(host):
    operations = ("postgresql_retention", "postgresql_upkeep", "stale_files")
    assert [records(host, CHECKED, name)[0]["status"] for name in operations] == ["due"] * 3
    assert [records(host, FIRST, name)[-1]["status"] for name in operations] == ["changed"] * 3


def test_the_second_run_had_nothing_to_do(host):
    changed = [record["operation"] for record in of_kind("record", runs()[SECOND], host=name_of(host)) if record["status"] == "changed"]
    assert changed == []
