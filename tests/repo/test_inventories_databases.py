"""What the production inventories say of databases: which rows and files go when, which backups are kept how long, and what they are compared by."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import yaml
from production import values

from ansible_collections.ops.maintenance.plugins.module_utils.backup_sets import matches
from ansible_collections.ops.maintenance.plugins.modules import backup_rotation

SYSTEMS = ["asr_po", "flow_motion", "fossawork", "neff_paving", "netpost"]
DRILLED_EVERY_HOURS = 7 * 24


def sets(system: str) -> dict[str, Any]:
    return {one["name"]: one for one in values(system)["backup_verification_sets"]}


def rotation(system: str) -> dict[str, Any]:
    return {rule["name"]: rule for rule in values(system).get("backup_verification_rotation", [])}


def rows_that_go(system: str) -> dict[str, tuple[str, float, str]]:
    return {rule["table"]: (rule["column"], rule["age_days"], rule["archive_table"]) for rule in values(system)["data_retention_rules"]}


# Rows and files


@pytest.mark.parametrize(
    ("system", "wanted"),
    [
        ("asr_po", {"user_sessions": ("expires_at", 7, ""), "po_approvals": ("created_at", 365, "po_approvals_archive")}),
        ("neff_paving", {"audit_logs": ("created_at", 90, "audit_logs_archive"), "session_logs": ("created_at", 30, "")}),
        ("netpost", {"audit_logs": ("created_at", 365, "audit_logs_archive")}),
    ],
)
def test_rows_go_at_the_ages_of_the_documents_asr_05_1_asr_05_2_neff_weekly_06_neff_weekly_07(system, wanted):
    assert rows_that_go(system) == wanted
    known = values(system)
    for rule in known["data_retention_rules"]:
        assert rule["database"] in known["maintenance_postgresql"][0]["databases"]
        assert rule["server"] == known["maintenance_postgresql"][0]["name"]
        assert rule.get("create_archive", False) is bool(rule["archive_table"])
        assert not rule.get("allow_large_share", False)


def test_a_session_that_never_expires_is_counted_and_stays_asr_05_1():
    (sessions,) = [rule for rule in values("asr_po")["data_retention_rules"] if rule["table"] == "user_sessions"]
    assert not sessions.get("null_column_age", "")


def test_only_unfinished_uploads_that_no_row_names_go_after_thirty_days_asr_05_3():
    (uploads,) = values("asr_po")["data_retention_files"]
    assert (uploads["root"], uploads["age_days"]) == ("/srv/asr-po/uploads/tmp", 30)
    assert {(one["server"], one["database"]) for one in uploads["referenced_by"]} == {("main", "asr_po")}
    assert not any(one.get("may_be_empty", False) for one in uploads["referenced_by"]), "a table that names nothing is a fault"


def test_what_netpost_left_for_a_week_goes_netpost_weekly_08():
    assert {rule["name"]: rule["age_days"] for rule in values("netpost")["data_retention_files"]} == {
        "temporary files": 7, "unfinished uploads": 7,
    }  # fmt: skip


@pytest.mark.parametrize("system", ["asr_po", "flow_motion"])
def test_keys_without_a_time_to_live_are_looked_for_and_nothing_is_flushed_asr_05_4(system):
    (server,) = values(system)["maintenance_redis"]
    assert [one["number"] for one in server["databases"]] == [0]
    for one in server["databases"]:
        assert (one.get("pure_cache", False), one.get("flush", False)) == (False, False), "no document calls it a pure cache"


# Backups


def test_netpost_keeps_daily_dumps_for_30_days_monthly_ones_for_a_year_and_files_for_7_netpost_bak_02_bak_07():
    assert {name: (one["retention"]["maximum_age_days"], one["retention"]["minimum_count"]) for name, one in sets("netpost").items()} == {
        "database": (30, 7), "database monthly": (366, 12), "files": (7, 3),
    }  # fmt: skip
    assert {name: (rule["keep_daily"], rule.get("keep_monthly", 0)) for name, rule in rotation("netpost").items()} == {
        "daily": (30, 0), "monthly": (0, 12), "files": (7, 0),
    }  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_rotated_is_what_is_proven(system):
    for rule in rotation(system).values():
        proven = sets(system)[rule["set"]]
        assert (rule["root"], rule["pattern"]) == (proven["root"], proven["pattern"])
        assert rule["demanded_level"] <= proven["level"], "or nothing would ever go"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_monthly_copy_is_found_under_the_name_that_it_gets_netpost_bak_02(system):
    """The rotation puts the month before the name of the daily one."""
    promoting = [rule for rule in rotation(system).values() if rule.get("monthly_to")]
    assert bool(promoting) is (system == "netpost")
    for rule in promoting:
        daily = rule["pattern"].replace("*", f"{date(2026, 11, 21):%Y%m%d}_020003")
        assert matches(daily, rule["pattern"])
        looking = [one for one in (*sets(system).values(), *rotation(system).values()) if one["root"] == rule["monthly_to"]]
        assert len(looking) == 2, "one proves the copies, one keeps twelve"
        for one in looking:
            assert matches(f"202611-{daily}", one["pattern"])
            assert not matches(daily, one["pattern"])


def test_the_example_of_the_module_finds_its_monthly_copies_and_takes_no_daily_one_for_one():
    example = yaml.safe_load(backup_rotation.EXAMPLES)[0]["ops.maintenance.backup_rotation"]
    daily, monthly = example["rules"]
    assert monthly["root"] == daily["monthly_to"]
    assert (matches("202611-20261121.dump", monthly["pattern"]), matches("20261121.dump", monthly["pattern"])) == (True, False)


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_set_that_asks_for_level_five_declares_what_to_compare(system):
    """Without it L5 is unknown for ever, and what demands it never happens."""
    for one in sets(system).values():
        if one["level"] < 5:
            continue
        kind = one.get("kind", "files")
        looked_for = ("required_files", "source") if kind == "files" else ("sentinel", "count_tables", "minimum_rows")
        assert any(one.get(option) for option in looked_for), f"{system}, {one['name']}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_to_lose_at_most_so_much_says_which_row_tells(system):
    assert [one["name"] for one in sets(system).values() if one.get("maximum_rpo_hours") and not one.get("sentinel")] == []


def test_netpost_counts_in_its_snapshots_what_it_counts_in_its_backups():
    known, database = values("netpost"), sets("netpost")["database"]
    assert [server["sentinels"] for server in known["snapshot_postgresql"]] == [["public.audit_logs"]]
    assert (database["count_tables"], database["sentinel"]["table"]) == (["audit_logs"], "audit_logs")


def test_what_netpost_demands_of_a_drill_holds_until_the_next_one():
    """Drills are weekly work: a proof that counts for a day would be missing on six of seven."""
    for rule in rotation("netpost").values():
        if rule["demanded_level"] > 2:
            assert DRILLED_EVERY_HOURS < rule["maximum_proof_age_hours"] <= DRILLED_EVERY_HOURS + 48


def test_the_copy_of_a_month_is_young_enough_until_the_next_one_is_made():
    """It is made of the first dump of a month that a drill proves: up to five weeks, a day until that drill, one night late."""
    assert sets("netpost")["database monthly"]["maximum_age_hours"] >= (5 * 7 + 2) * 24
