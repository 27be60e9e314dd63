"""Hosts that may not be changed now: why, and that they were left as they are."""

from __future__ import annotations

from helpers import finding, findings, of_kind

testinfra_hosts = ["fossa-broken"]


def outcome(host: str) -> dict:
    [line] = of_kind("outcome", host=host)
    return line


def test_a_full_disk_refuses_the_host_before_anything_is_stopped():
    found = finding("preflight.room", host="fossa-full", subject="/backups/maintenance")
    assert found["state"] == "critical"
    assert outcome("fossa-full")["outcome"] == "refused"
    assert not of_kind("record", host="fossa-full", operation="maintenance_mode")


def test_a_failed_unit_is_critical():
    units = [found for found in findings("validation.unit", host="fossa-broken") if found["state"] == "critical"]
    assert [found["subject"] for found in units] == ["fossawork-frontend.service"]


def test_a_corrupt_database_is_critical_and_left_alone(host):
    found = [one for one in findings("database.integrity", host="fossa-broken") if one["state"] == "critical"]
    assert found
    assert not [one for one in of_kind("record", host="fossa-broken", operation="sqlite_upkeep") if one["status"] == "changed"]
    assert host.run("sqlite3 /backend/fossawork_v2.db 'PRAGMA integrity_check'").stdout.strip() != "ok"


def test_a_system_that_does_not_work_is_not_changed():
    assert outcome("fossa-broken")["outcome"] in ("refused", "failed")
    assert not of_kind("record", host="fossa-broken", operation="snapshot")


def test_the_clean_twin_is_maintained_and_has_no_finding():
    assert outcome("fossa-clean")["outcome"] == "completed"
    bad = [f"{found['id']} {found['subject']}: {found['summary']}" for found in findings(host="fossa-clean") if found["state"] != "ok"]
    assert bad == []


def test_the_faulty_host_is_maintained_all_the_same():
    assert outcome("fossa-faulty")["outcome"] == "completed"
