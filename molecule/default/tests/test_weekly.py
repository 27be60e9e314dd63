"""The whole week of FossaWork: what changed on the host, and what the records say of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from helpers import findings, of_kind, runs

testinfra_hosts = ["fossawork"]

CHECKED, FIRST, SECOND = range(3)


def name_of(host) -> str:
    return host.backend.get_hostname()


def records(host, run: int, operation: str) -> list[dict]:
    return of_kind("record", runs()[run], host=name_of(host), operation=operation)


def test_the_services_run_and_answer(host):
    for unit in ("fossawork-backend", "fossawork-frontend", "fossawork-sync.timer"):
        assert host.service(unit).is_running
    answer = host.check_output("curl -s http://localhost:8000/api/health")
    assert json.loads(answer)["data"] == [{"work_orders": 25000}]


def test_the_cron_entry_is_back(host):
    assert host.file("/etc/cron.d/fossawork").exists
    assert host.file("/etc/cron.d").listdir().count("fossawork.ops-maintenance-suspended") == 0


def test_nothing_of_the_dead_man_switch_is_left(host):
    assert [name for name in host.file("/etc/systemd/system").listdir() if name.startswith("ops-maintenance")] == []
    assert "lock.json" not in host.file("/var/lib/ops_maintenance").listdir()


def test_security_updates_are_installed_and_ordinary_ones_are_not(host):
    assert host.package("demo-tls").version == "1.1"
    assert host.package("demo-tool").version == "1.0"
    assert host.package("libsecurity-foo").version == "1.0"


def test_a_configuration_file_that_was_edited_is_kept(host):
    assert "from the package" in host.file("/etc/demo-conf/demo-conf.conf").content_string


def test_the_database_is_smaller_sound_and_whole(host):
    query = "PRAGMA integrity_check; SELECT count(*) FROM work_orders; SELECT count(*) FROM dispensers; PRAGMA journal_mode;"
    assert host.check_output(f"sqlite3 /backend/fossawork_v2.db '{query}'").split() == ["ok", "25000", "2000", "wal"]
    assert int(host.check_output("sqlite3 /backend/fossawork_v2.db 'PRAGMA freelist_count'")) < 10
    file = host.file("/backend/fossawork_v2.db")
    assert (file.user, file.group, file.mode) == ("fossawork", "fossawork", 0o600)


def test_the_copy_before_the_work_is_a_whole_database(host):
    [copy] = [name for name in host.file("/backups/maintenance").listdir() if name.endswith(".db")]
    count = host.check_output(f"sqlite3 'file:/backups/maintenance/{copy}?mode=ro' 'SELECT count(*) FROM work_orders'")
    assert count == "25000"


def test_old_logs_are_compressed_archived_and_deleted(host):
    plain = [name for name in host.file("/logs/backend").listdir() if name.endswith(".jsonl") and name != "backend.jsonl"]
    assert len(plain) == 4, plain  # 0, 1, 3 and 5 days old
    assert len([name for name in host.file("/logs/backend").listdir() if name.endswith(".gz")]) == 3  # 9, 12, 20 days
    archived = host.check_output("find /archives/logs -name '*.gz'").split()
    assert any("/backend/backend-" in path for path in archived)
    assert not host.run("find /logs /archives -name '*tmp*' | grep .").stdout


def test_no_log_line_was_lost(host):
    # 300 lines a day and 3 errors, of ten days; the day of 120 days ago is past its 90 days
    script = "{ find /logs/backend -name 'backend-*.jsonl' -exec cat {} +; find /logs/backend /archives -name 'backend-*.gz' -exec zcat {} +; } | wc -l"
    assert int(host.check_output(script)) == 9 * 303


def test_the_run_in_check_mode_found_the_same_work(host):
    due = {record["operation"] for record in of_kind("record", runs()[CHECKED], host=name_of(host)) if record["status"] == "due"}
    changed = {record["operation"] for record in of_kind("record", runs()[FIRST], host=name_of(host)) if record["status"] == "changed"}
    assert {"package_updates", "sqlite_upkeep", "maintenance_mode", "snapshot"} <= due & changed


def test_the_second_run_left_the_services_alone(host):
    assert not records(host, SECOND, "serve")
    [outcome] = of_kind("outcome", runs()[SECOND], host=name_of(host))
    assert outcome["outcome"] == "completed"
    assert outcome["downtime_seconds"] == 0


def test_downtime_was_measured(host):
    [outcome] = of_kind("outcome", runs()[FIRST], host=name_of(host))
    assert outcome["outcome"] == "completed"
    assert 0 < outcome["downtime_seconds"] < 120
    assert outcome["services_restored"]


def test_backups_were_proven_to_the_last_level(host):
    [record] = records(host, FIRST, "backup_verification")
    assert "daily L5, weekly L5" in record["summary"]


def test_a_healthy_system_has_no_finding_worse_than_ok_after_the_work(host):
    bad = [found for found in findings(host=name_of(host), journal=runs()[SECOND]) if found["state"] != "ok"]
    assert bad == []


def test_the_report_is_written(host):
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "report")
    for suffix in ("html", "md", "json"):
        assert (folder / f"latest.{suffix}").stat().st_size > 1000


def test_the_verifiers_prove_themselves_first(host):
    proven = [one for one in findings(host=name_of(host), journal=runs()[FIRST]) if one["id"].endswith(".self_test")]
    assert {one["id"]: one["state"] for one in proven} == dict.fromkeys(
        ("backup.self_test", "logrotate.self_test", "performance.self_test"), "ok"
    )
