"""What the production inventory says about accounts, log-ins and logs finds what the systems' documents are afraid of."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from production import ROOT, hosts, inventory, values

from ansible_collections.ops.maintenance.plugins.action.validation import judge_body
from ansible_collections.ops.maintenance.plugins.module_utils import (
    security_account_rights,
    security_account_use,
    security_app_disable,
    security_app_users,
    security_attestations,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.record import Finding
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled
from ansible_collections.ops.maintenance.plugins.plugin_utils import inventory_check

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)

PEOPLE = """
CREATE TABLE employees (id INTEGER);
INSERT INTO employees VALUES (1), (2), (3), (4);
CREATE TABLE users (id INTEGER PRIMARY KEY, active BOOLEAN DEFAULT 1, username TEXT, role TEXT, employee_id INTEGER, is_active BOOLEAN,
  last_login TEXT, created_at TEXT);
INSERT INTO users (username, role, employee_id, is_active, last_login, created_at) VALUES ('mia', 'MAJORITY_OWNER', 1, 1, '2026-11-20T08:00:00Z', '2024-01-01'),
  ('never', 'EMPLOYEE', 2, 1, NULL, '2024-01-01'), ('quiet', 'EMPLOYEE', 3, 1, '2026-10-01T08:00:00Z', '2024-01-01'),
  ('fresh', 'EMPLOYEE', 4, 1, NULL, '2026-11-19'), ('gone', 'EMPLOYEE', 9, 0, NULL, '2020-01-01');
"""


def of_day(system: str, variable: str, cadence: str) -> Any:
    written = inventory()[1].raw_get(hosts(system)[0])[variable]
    return Templar(DataLoader(), {"maintenance_cadence": cadence}).template(written)


def asked(system: str, rule_name: str, folder: Path, script: str) -> Finding:
    """Ask a rule of the inventory of a database with these rows."""
    path = folder / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    [rule] = [rule for rule in values(system)["security_review_user_rules"] if rule["name"] == rule_name]
    here = {**{name: value for name, value in rule.items() if name not in ("server", "database")}, "sqlite": str(path)}
    spec = {**security_app_users.OPTIONS, "state_dir": {"type": "path"}, "accept_baseline": {"type": "bool", "default": False}}
    params = filled(spec, {"user_rules": [here], "state_dir": str(folder / "state")})
    [found] = security_app_users.look(Review(params, Host(), False, NOW))
    return found


@pytest.mark.parametrize(("system", "rule"), [("asr_po", "unused accounts"), ("flow_motion", "inactive accounts")])
def test_who_never_logged_in_is_among_the_unused_accounts_asr_12_1_flow_sec_7(system, rule, tmp_path):
    found = asked(system, rule, tmp_path, PEOPLE)
    assert (found.state, found.evidence) == ("critical", ["never, EMPLOYEE: never logged in", "quiet, EMPLOYEE: 51 days ago"])


def test_an_account_without_a_person_or_a_role_is_orphaned_asr_12_1(tmp_path):
    assert asked("asr_po", "orphaned accounts", tmp_path, PEOPLE).state == "ok"
    more = "INSERT INTO users (username, role, employee_id, is_active) VALUES ('left', 'EMPLOYEE', 7, 1), ('bare', NULL, 1, 1)"
    (tmp_path / "more").mkdir()
    found = asked("asr_po", "orphaned accounts", tmp_path / "more", PEOPLE + more)
    assert (found.state, sorted(found.evidence)) == ("warning", ["bare, -", "left, EMPLOYEE"])


def test_active_accounts_of_asr_are_listed(tmp_path):
    assert asked("asr_po", "active accounts", tmp_path, PEOPLE).evidence == [
        "fresh, EMPLOYEE",
        "mia, MAJORITY_OWNER",
        "never, EMPLOYEE",
        "quiet, EMPLOYEE",
    ]


def test_permissions_of_flow_lose_neither_people_nor_roles_flow_sec_7(tmp_path):
    rights = "CREATE TABLE role_permissions (role TEXT, permission TEXT); INSERT INTO role_permissions VALUES ('EMPLOYEE', 'read'), ('AUDITOR', 'read all');"
    found = asked("flow_motion", "permissions", tmp_path, PEOPLE + rights)
    assert {"mia, MAJORITY_OWNER, -", "quiet, EMPLOYEE, read", "-, AUDITOR, read all"} <= set(found.evidence)


@pytest.mark.parametrize("system", ["asr_po", "flow_motion", "netpost"])
def test_log_ins_to_host_and_application_are_read(system):
    """asr-08-4, asr-12-4, flow-daily-5, netpost-sec-08: by account and address, of the host at least."""
    sources = values(system)["security_review_login_sources"]
    assert "auth" in [source.get("format") for source in sources]
    assert (system == "flow_motion") == ("application" not in [source["name"] for source in sources])


def test_asr_compares_times_sources_and_volumes_with_earlier_months_asr_12_4():
    known = values("asr_po")
    assert known["security_review_days"] == 35
    assert known["security_review_usual_hours"]
    assert known["security_review_usual_hours_timezone"] == "America/Los_Angeles"


@pytest.mark.parametrize("system", ["flow_motion", "netpost"])
@pytest.mark.parametrize(("cadence", "days"), [("daily", 1), ("weekly", 7), ("monthly", 35), ("quarterly", 35)])
def test_the_daily_run_looks_at_the_last_day_flow_daily_5_netpost_sec_08(system, cadence, days):
    assert of_day(system, "security_review_days", cadence) == days
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["daily"]
    assert "security_review" in steps["after"]


def test_neff_reviews_a_scan_of_this_week_each_week_neff_weekly_17():
    known = values("neff_paving")
    assert known["security_review_lynis_report"]
    assert 7 <= known["security_review_lynis_max_age_days"] < 14, "the scan of last week but one would do"


def test_what_flow_scans_is_what_runs_from_moderate_on_flow_sec_3():
    known = values("flow_motion")
    assert known["container_images_scan_severity"] == "medium"
    assert [of_day("flow_motion", "container_images_scanner", cadence) for cadence in ("weekly", "monthly")] == ["none", "auto"]


def test_flow_reads_access_logs_whole_containers_and_has_rules_on_logs_flow_weekly_3_monthly_10_mon_3():
    known = values("flow_motion")
    assert {source.get("format") for source in known["log_rotation_sources"]} >= {"access", "docker"}
    assert known["log_rotation_containers_used"] is True
    assert {alert for rules in known["log_rotation_alert_rules"] for alert in rules["alerts"]} >= {"ApiGatewayDown", "LogErrorRate"}
    assert [end["name"] for end in known["log_rotation_alert_endpoints"]] == ["Loki", "Alertmanager"]


def test_netpost_compares_the_use_of_its_api_daily_netpost_sec_09():
    assert [source["name"] for source in values("netpost")["security_review_api_sources"]] == ["API"]


@pytest.mark.parametrize("cadence", ["weekly", "monthly"])
def test_netpost_scans_its_dependencies_weekly_and_monthly_netpost_monthly_6(cadence):
    known = values("netpost")
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"][cadence]
    assert "patching" in steps["offline"]
    assert "patching" not in known.get("maintenance_skip", [])
    [project] = known["patching_node_projects"]
    assert project.get("audit", True)


def test_netpost_counts_active_alerts_from_json_netpost_weekly_05():
    [end] = [end for end in values("netpost")["validation_endpoints"] if end["name"] == "active alerts"]
    assert end["url"].endswith("/api/monitoring/alerts?status=active")
    [check] = end["body"]

    def state(content: bytes) -> str:
        return judge_body({"name": "alerts", "content": base64.b64encode(content).decode(), "why": ""}, check).state

    answers = [b'{"data": {"alerts": []}}', b'{"data": {"alerts": [{"id": 1}]}}', b"{}", b"<html>200 OK</html>"]
    assert [state(answer) for answer in answers] == ["ok", "warning", "critical", "critical"]


def test_netpost_clears_old_logs_and_temporary_files_each_week_netpost_weekly_08():
    known = values("netpost")
    [rule] = known["log_rotation_rules"]
    assert rule["delete_after_days"] == 30
    assert {file["root"] for file in known["data_retention_files"]} == {"/srv/netpost/tmp", "/srv/netpost/uploads/tmp"}
    assert min(file["age_days"] for file in known["data_retention_files"]) >= 7
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["weekly"]
    assert {"data_retention", "log_rotation"} <= set(steps["after"])


@pytest.mark.parametrize("system", ["flow_motion", "neff_paving"])
def test_node_flaws_count_from_moderate_on_neff_quarterly_02_flow_sec_4(system):
    assert [project["audit_level"] for project in values(system)["patching_node_projects"]] == ["moderate"]


def test_neff_reviews_roles_and_access_rules_neff_quarterly_04_05():
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["quarterly"]
    assert "database_review" in steps["after"]
    known = values("neff_paving")
    assert known["database_review_roles_without_expiry"] == ["postgres", "neff_admin"]
    assert [server["name"] for server in known["maintenance_postgresql"]] == ["main"]


def test_netpost_watches_for_suspicious_statements_each_week_netpost_sec_12():
    known = values("netpost")
    assert known["database_review_watch_statements"] is True
    assert known["maintenance_postgresql"][0]["user"] in known["database_review_schema_roles"]
    assert "database_review" in inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["weekly"]["after"]


@pytest.mark.parametrize(("system", "admin", "column"), [("asr_po", "MAJORITY_OWNER", "is_active"), ("neff_paving", "admin", "active")])
def test_nobody_is_disabled_but_from_an_approved_list_asr_12_2_neff_monthly_12(system, admin, column, tmp_path):
    [rule] = values(system)["security_review_disable_users"]
    assert rule["accounts"] == []
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            PEOPLE.replace("MAJORITY_OWNER", admin) + "CREATE TABLE user_sessions (user_id); INSERT INTO user_sessions VALUES (1), (2)"
        )
    approved = [{"account": name, "approved_by": "somebody", "reason": "left", "inactive_days": 0} for name in ("mia", "never")]
    here = {name: value for name, value in rule.items() if name not in ("server", "database")}
    params = filled(
        {**security_app_disable.OPTIONS, "servers": {"default": []}},
        {"disable_users": [{**here, "sqlite": str(path), "accounts": approved}]},
    )
    review = Review(params, Host(), False, NOW)
    [found] = security_app_disable.look(review)
    assert [action.subject for action in review.actions] == [f"{rule['name']}: never"]
    assert "mia: it is the last administrator" in found.evidence[0]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        left = [name for (name,) in connection.execute(f"SELECT username FROM users WHERE {column} ORDER BY username")]
        assert ("never" in left, {"fresh", "mia", "quiet"} <= set(left)) == (False, True)
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (5,)
        assert connection.execute("SELECT count(*) FROM user_sessions").fetchone() == (1 if rule.get("sessions") else 2,)


@pytest.mark.parametrize("system", ["neff_paving", "netpost"])
def test_a_penetration_test_that_nobody_made_is_never_ok(system):
    params = filled(security_attestations.OPTIONS, {"attestations": values(system)["security_review_attestations"]})
    [found] = security_attestations.look(Review(params, Host(), True, NOW))
    assert (found.subject, found.state) == ("penetration test", "unknown")


@pytest.mark.parametrize("cadence", ["monthly", "quarterly"])
def test_deep_runs_leave_their_evidence(cadence):
    tasks = yaml.safe_load((ROOT / "collections/ansible_collections/ops/maintenance/playbooks/conclude.yml").read_text())[0]["tasks"]
    [task] = [task for task in tasks if "ops.maintenance.evidence_bundle" in task]
    said = Templar(DataLoader(), {"maintenance_cadence": cadence}).evaluate_conditional(trust_as_template(task["when"]))
    assert said is True
    assert not Templar(DataLoader(), {"maintenance_cadence": "weekly"}).evaluate_conditional(trust_as_template(task["when"]))


def scan_task() -> dict[str, Any]:
    [block] = yaml.safe_load((ROOT / "collections/ansible_collections/ops/maintenance/roles/security_review/tasks/main.yml").read_text())
    [task] = [task for task in block["block"] if "ops.maintenance.port_scan" in task]
    return task


@pytest.mark.parametrize(
    ("own", "given", "addresses"),
    [
        (True, [], ["192.0.2.10", "2001:db8::10"]),
        (True, ["192.0.2.10", "192.0.2.11"], ["192.0.2.10", "192.0.2.11", "2001:db8::10"]),
        (False, ["192.0.2.11"], ["192.0.2.11"]),
    ],
)
def test_what_is_scanned_are_the_addresses_of_the_host_itself_neff_quarterly_01(own, given, addresses):
    """A name may lead to a provider's machine; the host knows by which address it leaves."""
    task = scan_task()
    facts = {"default_ipv4": {"address": "192.0.2.10"}, "default_ipv6": {"address": "2001:db8::10"}}
    variables = {name: trust_as_template(value) for name, value in task["vars"].items()}
    templar = Templar(
        DataLoader(), {**variables, "ansible_facts": facts, "security_review_scan_own": own, "security_review_scan_addresses": given}
    )
    assert templar.template(trust_as_template(task["ops.maintenance.port_scan"]["addresses"])) == addresses
    without = Templar(
        DataLoader(), {**variables, "ansible_facts": {}, "security_review_scan_own": True, "security_review_scan_addresses": []}
    )
    assert without.template(trust_as_template("{{ __security_review_addresses }}")) == []


def test_neff_scans_quarterly_with_leave_and_a_list_to_judge_by_neff_quarterly_01():
    known = values("neff_paving")
    assert [of_day("neff_paving", "security_review_scan_own", cadence) for cadence in ("monthly", "quarterly")] == [False, True]
    assert known["security_review_scan_authorised_by"].strip()
    assert known["security_review_scan_expected"] == ["tcp/22", "tcp/80", "tcp/443"]
    assert known["security_review_scan_detect_os"] is known["security_review_scan_become"] is True
    assert "neff-quarterly-01" in [duty["requirement"] for duty in known["maintenance_duties"]]


def test_netpost_reads_the_platforms_firewall_and_audits_its_configuration_netpost_sec_10_13():
    known = values("netpost")
    assert "platform" in [source["name"] for source in known["security_review_firewall_logs"]]
    assert "/srv/netpost/.env.production" in [file["path"] for file in known["security_review_configurations"]]
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]
    assert all("security_review" in steps[cadence]["after"] for cadence in ("daily", "weekly"))


@pytest.mark.parametrize(
    ("newest", "state"), [("'2026-11-21T08:40:00Z'", "ok"), ("'2026-11-21T05:00:00Z'", "unknown"), ("NULL", "unknown")]
)
def test_the_audit_log_of_asr_has_to_show_a_new_action_asr_18_7(newest, state, tmp_path):
    script = f"CREATE TABLE audit_logs (created_at TEXT); INSERT INTO audit_logs VALUES ({newest});"
    assert asked("asr_po", "audit log after the maintenance", tmp_path, script).state == state
    after = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["monthly"]["after"]
    assert "security_review" in after


@pytest.mark.parametrize("system", ["asr_po", "flow_motion", "fossawork", "neff_paving", "netpost"])
def test_every_system_is_measured_by_the_whole_baseline_each_month(system):
    names = ("sshd_policy", "host_policy", "package_integrity", "privileged_roots")
    full, none = [True, True, True, ["/usr", "/opt", "/srv", "/home", "/tmp", "/var/tmp"]], [False, False, False, []]
    for cadence, expected in {"daily": none, "weekly": none, "monthly": full, "quarterly": full}.items():
        assert [of_day(system, f"security_review_{name}", cadence) for name in names] == expected, cadence
    # Else nobody would ever look.
    assert {"monthly", "quarterly"} <= set(values(system)["maintenance_windows"])
    for cadence in ("monthly", "quarterly"):
        steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"][cadence]
        assert any("security_review" in stage for stage in steps.values())


SYSTEMS = ["asr_po", "flow_motion", "fossawork", "neff_paving", "netpost"]


def account_findings(system: str, etc: Path, *more: str) -> dict[str, Finding]:
    """Judge a host that has the accounts of the roster as services, and those given as people who may become root."""
    roster = values(system)["security_review_roster"]
    services = [entry["account"] for entry in roster if entry["account"] != "root"]
    users = {"root": 0, **{name: 900 + n for n, name in enumerate(services)}, **{name: 1000 + n for n, name in enumerate(more)}}
    (etc / "passwd").write_text("".join(f"{name}:x:{uid}:{uid}::/nonexistent:/bin/sh\n" for name, uid in users.items()))
    groups = "".join(f"{name}:x:{uid}:\n" for name, uid in users.items())
    (etc / "group").write_text(f"{groups}sudo:x:27:{','.join(more)}\n")
    (etc / "shadow").write_text("".join(f"{name}:!:20000:0:99999:7:::\n" for name in users))
    spec = {**security_account_use.OPTIONS, **security_account_rights.OPTIONS}
    review = Review(filled(spec, {"roster": roster}), Host(), True, NOW, str(etc))
    return {one.id: one for part in (security_account_use, security_account_rights) for one in part.look(review)}


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_account_that_nobody_answers_for_is_told_on_each_system_and_its_own_are_not(system, tmp_path):
    asked_about = ("security.account_owner", "security.admin_groups")
    sound = account_findings(system, tmp_path)
    assert [sound[name].state for name in asked_about] == ["ok", "ok"]
    found = account_findings(system, tmp_path, "mallory")
    assert [found[name].state for name in asked_about] == ["warning", "warning"]
    assert [list(found[name].evidence) for name in asked_about] == [["mallory"], ["mallory: sudo"]]


@pytest.mark.parametrize("system", SYSTEMS)
def test_whoever_answers_for_an_account_is_among_the_contacts(system):
    roster = values(system)["security_review_roster"]
    assert {entry["owner"] for entry in roster} <= set(values(system)["maintenance_contacts"])
    assert [entry["account"] for entry in roster if entry.get("admin")] == ["root"], "no account of people is guessed"
    owned = {file["owner"] for file in values(system).get("security_review_files", []) if "owner" in file}
    assert owned <= {entry["account"] for entry in roster}
