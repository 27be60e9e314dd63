"""What was planted by plant/backup_performance.yml arrives as findings, and nothing of it on the clean host."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from helpers import findings, lines

testinfra_hosts = ["fossa-faulty"]

PLANTED = {
    "backup.integrity": "critical",
    "backup.level": "critical",
    "backup.present": "warning",
    "backup.retention": "warning",
    "backup.completeness": "warning",
    "performance.coverage": "warning",
    "site.command": "critical",
    "site.output": "critical",
}


@pytest.mark.parametrize("finding_id", PLANTED)
def test_planted_fault_is_found(finding_id):
    assert PLANTED[finding_id] in {found["state"] for found in findings(finding_id, host="fossa-faulty")}


def test_the_missing_day_is_named():
    day = (datetime.now(UTC) - timedelta(days=4)).date().isoformat()
    assert any(day in found["summary"] for found in findings("backup.completeness", host="fossa-faulty"))


def test_the_good_daily_backup_beside_the_bad_weekly_one_is_proven():
    daily = [found for found in findings("backup.level", host="fossa-faulty") if "/backups/daily/" in found["subject"]]
    assert [found["state"] for found in daily] == ["ok"]


def test_the_secret_that_a_tool_printed_is_not_in_the_journal():
    assert "planted-secret" not in json.dumps(lines())


def test_a_week_of_processor_use_is_averaged_by_time():
    metrics = [metric for line in lines() for metric in line.get("metrics", []) if metric["name"] == "performance.cpu_average"]
    assert metrics
    assert all(20 <= metric["value"] <= 40 for metric in metrics)


def test_no_restored_copy_is_left_on_the_host(host):
    assert not host.file("/var/lib/ops_maintenance/scratch").exists


@pytest.mark.parametrize("area", ["backup.", "site.", "performance.series", "performance.coverage"])
def test_clean_host_has_no_such_finding(area):
    own = [found for found in findings(host="fossa-clean") if found["id"].startswith(area)]
    assert own, "something was looked at"
    assert [found for found in own if found["state"] != "ok"] == []
