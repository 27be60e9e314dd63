"""The production inventory, loaded as Ansible loads it, says what the roles understand and what the systems' documents ask for."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from production import PROD, ROOT, hosts, inventory, values

from ansible_collections.ops.maintenance.plugins.action import open_run
from ansible_collections.ops.maintenance.plugins.module_utils import package_plan
from ansible_collections.ops.maintenance.plugins.plugin_utils import durations, inventory_check, windows

COLLECTION = ROOT / "collections/ansible_collections/ops/maintenance"
SYSTEMS = ["asr_po", "flow_motion", "fossawork", "neff_paving", "netpost"]
CADENCES = {"daily", "weekly", "monthly", "quarterly"}
ON_OCCASION = {"emergency", "deploy"}


def faults(system: str) -> list[str]:
    return open_run._faults(inventory()[1], hosts(system))


def starts(system: str, cadence: str) -> list[datetime]:
    """Every start of 2026 and 2027, on the wall clock of the window."""
    window = windows.parse(values(system)["maintenance_windows"][cadence], [], cadence)
    every = takewhile(
        lambda begin: begin < datetime(2028, 1, 1, tzinfo=UTC), (b for b, _ in window.starts(datetime(2025, 12, 31, 12, tzinfo=UTC)))
    )
    return [begin.astimezone(window.zone) for begin in every]


def weekly_days(first: datetime, zone_hour: int) -> list[tuple[Any, int, int]]:
    days = [first + timedelta(weeks=week) for week in range(105)]
    return [(day.date(), zone_hour, 0) for day in days if day.year in (2026, 2027)]


def told(moments: list[datetime]) -> list[tuple[Any, int, int]]:
    return [(moment.date(), moment.hour, moment.minute) for moment in moments]


def test_every_system_is_a_group_of_its_own_below_maintained():
    manager, _ = inventory()
    assert sorted(group.name for group in manager.groups["maintained"].child_groups) == SYSTEMS
    assert sorted(host.name for host in manager.get_hosts("maintained")) == sorted(name for system in SYSTEMS for name in hosts(system))
    assert all(hosts(system) for system in SYSTEMS)


@pytest.mark.parametrize("system", ["flow_motion", "fossawork", "neff_paving"])
def test_a_system_that_is_ready_has_no_fault(system):
    assert faults(system) == []


@pytest.mark.parametrize(("system", "placeholder"), [("asr_po", "{{ PRIMARY_ADMIN_EMAIL }}"), ("netpost", "your-domain.com")])
def test_a_system_with_placeholders_is_refused_for_these_alone(system, placeholder):
    found = faults(system)
    assert any(placeholder in fault for fault in found)
    assert [fault for fault in found if "still holds the placeholder" not in fault] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_gate_would_open_every_window_that_is_declared(system):
    declared = values(system)["maintenance_windows"]
    assert set(declared) <= CADENCES
    for cadence in declared:
        window = windows.describe(declared, cadence, values(system).get("maintenance_blackouts"))
        begin = windows.occurrences(window, datetime(2027, 2, 1, tzinfo=UTC), 1)[0]
        assert windows.decide(window, begin).is_open
        assert not windows.decide(window, begin - timedelta(seconds=1)).is_open
        assert not windows.decide(window, begin + window.duration).is_open


def test_fossawork_starts_every_saturday_at_two_local_time_through_clock_changes():
    begins = starts("fossawork", "weekly")
    assert told(begins) == weekly_days(datetime(2026, 1, 3), 2)
    assert {begin.utcoffset() for begin in begins} == {timedelta(hours=-8), timedelta(hours=-7)}


def test_fossawork_does_not_start_over_the_holidays():
    window = windows.describe(values("fossawork")["maintenance_windows"], "weekly", values("fossawork")["maintenance_blackouts"])
    assert not windows.decide(window, datetime(2026, 12, 26, 11, tzinfo=UTC)).is_open
    assert windows.decide(window, datetime(2027, 1, 2, 11, tzinfo=UTC)).is_open


def test_asr_starts_at_six_on_first_saturdays_only():
    begins = starts("asr_po", "monthly")
    assert len(begins) == 24
    assert {(begin.weekday(), begin.hour, begin.minute) for begin in begins} == {(5, 6, 0)}
    assert all(begin.day <= 7 for begin in begins)
    assert {begin.utcoffset() for begin in begins} == {timedelta(hours=-8), timedelta(hours=-7)}
    deep = starts("asr_po", "quarterly")
    assert [begin.month for begin in deep] == [1, 4, 7, 10] * 2
    assert set(deep) <= set(begins)


def test_netpost_starts_at_two_utc_on_sundays():
    assert told(starts("netpost", "weekly")) == weekly_days(datetime(2026, 1, 4), 2)
    monthly = starts("netpost", "monthly")
    assert len(monthly) == 24
    assert all(begin.day <= 7 and begin.weekday() == 6 for begin in monthly)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_time_budgets_fit_into_the_longest_window(system):
    """FossaWork's own document allows more than its window holds; what does not fit is deferred."""
    longest = max(window["duration_minutes"] for window in values(system)["maintenance_windows"].values())
    budgets = durations.budgets_of(values(system)["maintenance_budgets"], "")
    assert sum(budgets.values()) <= longest * 60 + (900 if system == "fossawork" else 0)
    assert set(budgets) <= {path.name for path in (COLLECTION / "roles").iterdir()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_first_run_of_which_nothing_is_known_fits_into_its_window_with_the_reserve(system):
    """FossaWork's weekly upper bounds do not; its later steps wait for what earlier runs took."""
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]
    for cadence, window in values(system)["maintenance_windows"].items():
        budgets = durations.budgets_of(values(system)["maintenance_budgets"], cadence)
        # What stands in two stages has one budget for both.
        needed = sum(budgets.get(name, 0) for name in {name for stage in steps[cadence].values() for name in stage})
        longest = max((budgets.get(name, 0) for stage in steps[cadence].values() for name in stage), default=0)
        fits = needed + 900 < window["duration_minutes"] * 60 or (system == "fossawork" and cadence != "daily")
        assert fits or (cadence == "weekly" and needed - budgets["patching"] + 900 < window["duration_minutes"] * 60), (cadence, needed)
        assert longest + 900 < window["duration_minutes"] * 60


def known_evidence() -> str:
    """Everything that the collection can report, as text: finding ids and operations."""
    return "\n".join(path.read_text() for path in sorted((COLLECTION / "plugins").glob("[am]*/*.py")))


@pytest.mark.parametrize("system", SYSTEMS)
def test_evidence_names_what_the_collection_reports(system):
    known = known_evidence()
    for item in values(system)["maintenance_checklist"]:
        assert item["kind"] == "automated", f"{item['id']}: what a person signs is a duty"
        assert item["phase"] in ("pre", "during", "post")
        assert item["evidence"], item["id"]
        assert set(item.get("cadences", [])) <= set(values(system)["maintenance_windows"]), item["id"]
        for name in set(item["evidence"]):
            pattern = re.escape(name).replace(r"\*", "[a-z_]+")
            assert re.search(rf"""["']{pattern}["']""", known), f"{system}: nothing reports {name}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_duties_have_an_owner_among_the_contacts(system):
    contacts = values(system)["maintenance_contacts"]
    for duty in values(system)["maintenance_duties"]:
        assert {"id", "text", "owner", "due", "requirement"} <= set(duty)
        assert duty["owner"] in contacts, duty
        assert set(duty.get("cadences", [])) <= set(values(system)["maintenance_windows"]) | ON_OCCASION, duty


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_name_to_sign_means_one_thing(system):
    names = [item["id"] for key in ("maintenance_checklist", "maintenance_duties") for item in values(system)[key]]
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_file_holds_the_variables_of_its_role(system):
    shared = {"maintenance", "checklist", "duties", "ansible"}
    for path in sorted((PROD / "group_vars" / system).glob("*.yml")):
        prefix = "maintenance_" if path.stem in shared - {"ansible"} else f"{path.stem}_"
        given = set(yaml.load(path.read_text(), Loader=_AnyTag)) - {"maintenance_skip"}
        assert [name for name in given if not f"{name}_".startswith(prefix)] == [], path
        assert path.stem in shared or (COLLECTION / "roles" / path.stem).is_dir(), path


class _AnyTag(yaml.SafeLoader):
    """Reads names of variables without knowing Ansible's tags."""


_AnyTag.add_multi_constructor("!", lambda loader, _tag, node: loader.construct_scalar(node))


def test_fossawork_keeps_the_numbers_of_its_document():
    known = values("fossawork")
    [rule] = known["log_rotation_rules"]
    assert (rule["compress_after_days"], rule["archive_after_days"], rule["delete_after_days"]) == (7, 30, 90)
    assert known["log_rotation_error_limit"] == 100
    assert known["security_review_failed_logins_warning"] == 50
    assert (known["preflight_disk_warning_percent"], known["preflight_load_warning_percent"]) == (85, 80)
    assert known["performance_review_memory_warning_percent"] == 85
    assert known["security_review_certificates"][0]["warning_days"] == 30
    assert {kept["retention"]["maximum_age_days"] for kept in known["backup_verification_sets"]} == {30}
    assert {file["path"]: file["mode"] for file in known["security_review_files"]} == {
        "/backend/fossawork_v2.db": "0600",
        "/backend/.env": "0600",
        "/backend/data": "0700",
    }
    assert [end["url"] for end in known["validation_endpoints"]] == [
        f"http://localhost:8000/api/{name}" for name in ("health", "work-orders", "dispensers")
    ]


def test_fossawork_investigates_more_than_fifty_failed_logins_and_more_than_a_hundred_errors_fossa_sec_02():
    looks = {one["when_finding"]["id"]: one for one in values("fossawork")["site_commands"] if "when_finding" in one}
    assert looks["security.failed_logins"]["argv"] == ["/tools/operations/security-monitor.py", "--investigate", "--brute-force"]
    assert looks["logs.errors"]["argv"] == ["/tools/operations/log-analyzer.py", "--errors", "--last-week"]
    assert {one["when"] for one in looks.values()} == {"after"}, "the reviews have to come first"
    after = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["weekly"]["after"]
    assert max(after.index(role) for role in ("security_review", "log_rotation")) < after.index("site_commands")


def test_fossawork_updates_within_ranges_tests_that_and_can_take_it_back_fossa_upd_04_upd_05_em_06():
    known = values("fossawork")
    [python], [node] = known["patching_python_environments"], known["patching_node_projects"]
    assert python["update"] == ["fastapi", "uvicorn", "sqlalchemy", "requests"]
    for declared in (python, node):
        assert (declared["update_vulnerable"], bool(declared["test_command"])) == (True, True)
    assert python["requirements"] in known["snapshot_paths"]
    assert {"/frontend/package.json", "/frontend/package-lock.json", "/backend/.env"} <= set(known["snapshot_paths"])
    assert known["snapshot_python_environments"] == [python["path"]]


def test_fossawork_starts_a_service_that_does_not_run_fossa_post_02():
    assert values("fossawork")["validation_start_inactive"] is True


def test_neff_paving_rotates_what_is_due_and_looks_at_its_panels():
    known = values("neff_paving")
    assert (known["log_rotation_logrotate_used"], known["log_rotation_logrotate_run"]) == (True, True)
    [rotated] = known["log_rotation_logrotate_files"]
    assert (rotated["name"], rotated["postrotate_units"], rotated["postrotate_action"]) == ("neffpaving", ["pm2.service"], "USR2")
    assert (known["log_rotation_journald_used"], known["log_rotation_journald_reach_days"]) == (True, 7)
    urls = {end["url"] for end in known["validation_endpoints"]}
    assert {"https://neffpaving.com/admin", "https://neffpaving.com/admin/alerts", "https://neffpaving.com/api/health"} <= urls


@pytest.mark.parametrize(("cadence", "proves"), [("daily", False), ("weekly", False), ("monthly", True), ("quarterly", True)])
def test_verifiers_prove_themselves_at_least_monthly(cadence, proves):
    written = inventory_check.role_options()["backup_verification"]["maintenance_self_test"]["default"]
    assert Templar(DataLoader(), {"maintenance_cadence": cadence}).template(trust_as_template(written)) is proves
    assert (COLLECTION / f"playbooks/{cadence}.yml").read_text().count(f"maintenance_cadence: {cadence}") == 1


def test_the_weekly_budgets_of_fossawork_are_the_upper_ends_of_its_document():
    budgets = durations.budgets_of(values("fossawork")["maintenance_budgets"], "weekly")
    minutes = {role: seconds / 60 for role, seconds in budgets.items()}
    assert minutes == {
        "patching": 45,
        "database_maintenance": 60,
        "log_rotation": 30,
        "performance_review": 45,
        "security_review": 45,
        "backup_verification": 30,
    }


def test_asr_and_flow_keep_their_logs_as_long_as_their_documents_say():
    [asr] = values("asr_po")["log_rotation_rules"]
    assert (asr["root"], asr["compress_after_days"], asr["delete_after_days"]) == ("/var/log/po-system", 30, 90)
    [flow] = values("flow_motion")["log_rotation_rules"]
    assert (flow["root"], flow["delete_after_days"]) == ("/srv/flow-motion/logs", 7)
    assert values("flow_motion")["log_rotation_containers_used"] is True
    assert values("flow_motion")["backup_verification_sets"][0]["retention"]["maximum_age_days"] == 30


def test_flow_reviews_a_day_daily_and_a_week_weekly():
    """What came since the run of yesterday; the span ends what a run reads that has missed some days."""
    assert {cadence: reads_on("flow_motion", cadence) for cadence in ("daily", "weekly", "monthly")} == {
        "daily": True, "weekly": False, "monthly": False,
    }  # fmt: skip
    assert values("flow_motion").get("log_rotation_span_days", 7) == 7


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_line_counts_once_and_none_is_left_out(system):
    """Daily runs read on, else monthly ones; from one to the next is never longer than the span. A week is judged whole."""
    declared = set(values(system)["maintenance_windows"])
    reading_on = {"daily"} if "daily" in declared else declared
    assert {cadence: reads_on(system, cadence) for cadence in declared} == {cadence: cadence in reading_on for cadence in declared}
    assert values(system).get("log_rotation_span_days", 7) > (1 if "daily" in declared else 35)


def reads_on(system: str, cadence: str) -> bool:
    written = inventory()[1].raw_get(hosts(system)[0])["log_rotation_only_new"]
    return Templar(DataLoader(), {"maintenance_cadence": cadence}).template(written) is True


def test_netpost_reads_the_log_of_its_database_and_backs_up_what_people_uploaded_netpost_db_04_bak_06():
    known = values("netpost")
    assert [source["name"] for source in known["log_rotation_sources"] if source.get("format") == "postgresql"] == ["database"]
    wanted = known["database_review_recommended_settings"]
    assert (wanted["log_temp_files"], wanted["log_checkpoints"]) == (">=0", "on")
    assert "log_rotation" in steps_of("daily")
    (files,) = [one for one in known["backup_verification_sets"] if one["name"] == "files"]
    assert (files["required_files"], files["level"], files["expected"]["every"]) == (["*uploads/*"], 5, "daily")
    (daily,) = [one for one in known["backup_verification_sets"] if one["name"] == "database"]
    assert (daily["expected"]["every"], daily["maximum_rpo_hours"]) == ("daily", 1)


def steps_of(cadence):
    """The roles that a cadence runs, whatever the stage."""
    stages = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"][cadence]
    return {role for stage in stages.values() for role in stage}


def evidence_of(system, item_id):
    (item,) = [one for one in values(system)["maintenance_checklist"] if one["id"] == item_id]
    return item


def test_netpost_reviews_and_optimises_its_database_each_month_netpost_monthly_2():
    assert {"database_review", "database_maintenance"} <= steps_of("monthly")
    assert values("netpost").get("maintenance_skip", []) == []
    assert values("netpost")["maintenance_postgresql"][0]["databases"] == ["netpost_production"]
    item = evidence_of("netpost", "database-monthly")
    assert ("monthly" in item["cadences"], set(item["evidence"])) == (True, {"postgresql_review", "postgresql_upkeep"})


@pytest.mark.parametrize("cadence", sorted(CADENCES))
def test_neff_measures_its_database_and_reads_its_backups_in_every_run_neff_mon_03(cadence):
    assert {"database_review", "backup_verification"} <= steps_of(cadence)
    known = values("neff_paving")
    assert known["maintenance_targets"]["database_query_ms"] == 100  # the limit of postgresql.slow_statements
    assert evidence_of("neff_paving", "database-watched").get("cadences") is None
    (daily,) = [one for one in known["backup_verification_sets"] if one["name"] == "daily"]
    assert (daily["expected"]["every"], daily["level"]) == ("daily", 5)
    written = inventory()[1].raw_get(hosts("neff_paving")[0])["backup_verification_maximum_level"]
    assert Templar(DataLoader(), {"maintenance_cadence": cadence}).template(written) >= 2  # every byte


def test_asr_looks_at_how_long_backups_take_what_is_in_them_and_at_room_for_the_next_window():
    known = values("asr_po")
    database, files, _off_site = known["backup_verification_sets"]
    assert "%H%M" in database["date_format"]
    assert (bool(files["required_files"]), files["level"]) == (True, 5)
    assert known["backup_verification_capacity_warning_days"] >= 60


def test_netpost_judges_by_its_alert_thresholds():
    known = values("netpost")
    assert {(end["p95_ms"], end["critical_ms"]) for end in known["validation_endpoints"] if "p95_ms" in end} == {(1000, 2000)}
    assert (known["performance_review_memory_warning_percent"], known["performance_review_memory_critical_percent"]) == (80, 90)


@pytest.mark.parametrize(("cadence", "skipped"), [("weekly", ["patching"]), ("monthly", []), ("quarterly", [])])
def test_updates_are_installed_monthly_not_weekly(cadence, skipped):
    written = inventory()[1].raw_get(hosts("neff_paving")[0])["maintenance_skip"]
    assert Templar(DataLoader(), {"maintenance_cadence": cadence}).template(written) == skipped


@pytest.mark.parametrize(("cadence", "scope"), [("weekly", "none"), ("monthly", "security"), ("quarterly", "security")])
def test_flow_updates_dependencies_weekly_and_reviewed_packages_monthly(cadence, scope):
    """flow-monthly-1: the list comes first, then an approval; flow-weekly-1 and 2 need no package of the system for that."""
    written = inventory()[1].raw_get(hosts("flow_motion")[0])["patching_scope"]
    assert Templar(DataLoader(), {"maintenance_cadence": cadence}).template(written) == scope
    known = values("flow_motion")
    assert "maintenance_skip" not in known
    assert (known["patching_approval_required"], known["patching_approved"]) == (True, [])
    assert any(duty["requirement"] == "flow-monthly-1" for duty in duties_of("flow_motion", cadence)) == (cadence != "weekly")
    daily = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["daily"]
    assert "patching" in daily["after"], "nobody could review what is not listed"


def test_flow_restarts_containers_only_when_they_are_stopped_and_sees_them_all_again():
    """flow-monthly-1 and 2: an update of Docker restarts every container; a reboot leaves those without a policy stopped."""
    known = values("flow_motion")
    assert {"name": "docker.service"} in known["maintenance_mode_services"]
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]
    for cadence in ("monthly", "quarterly"):
        assert "patching" in steps[cadence]["offline"]
        assert "container_images" in steps[cadence]["after"]
    assert known["patching_reboot_allowed"] is True
    assert {"gateway", "gateway ready", "api"} <= {end["name"] for end in known["validation_endpoints"]}
    [item] = [item for item in known["maintenance_checklist"] if item["id"] == "containers"]
    assert item["evidence"] == ["container.gone", "container.restart_policy"]


@pytest.mark.parametrize(
    ("system", "update", "severity"), [("asr_po", [], "critical"), ("flow_motion", [], ""), ("neff_paving", ["*"], "")]
)
def test_node_updates_are_built_and_tested_outside_the_live_tree(system, update, severity):
    """asr-07-2, flow-weekly-1, neff-monthly-04: never npm update or npm audit fix in the folder that the application runs from."""
    [project] = values(system)["patching_node_projects"]
    assert (project["build_first"], bool(project["test_command"])) == (True, True)
    assert project.get("update", []) == update
    assert project.get("update_severity", "") == severity
    assert project.get("update_vulnerable", False) is (update == [])
    assert project.get("audit", True) is True


def test_asr_updates_only_what_is_critical_and_keeps_the_lock_file_from_before_asr_07_1_07_2():
    known = values("asr_po")
    [project] = known["patching_node_projects"]
    assert (project["production_only"], project["update_severity"]) == (True, "critical")
    assert f"{project['path']}/package-lock.json" in known["snapshot_paths"]


def test_asr_takes_security_updates_only_and_holds_what_the_application_runs_on_asr_13_1():
    known = values("asr_po")
    assert known["patching_scope"] == "security"
    kept = package_plan.Rules.of({"hold": known["patching_hold"]})
    assert [name for name in ("nodejs", "nodejs-doc", "npm", "redis-server") if kept.keeps(name) != "held"] == []
    assert kept.keeps("openssl") == ""
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["monthly"]
    assert "patching" in steps["offline"], "a reboot has to come before the validation"


def test_asr_updates_its_database_server_only_by_minor_releases_in_the_window_asr_13_2():
    """Never with the other packages; and the server has to run while the application stands still."""
    known = values("asr_po")
    assert known["patching_postgresql"] == known["maintenance_postgresql"]
    assert [one for one in known["maintenance_mode_services"] if "postgresql" in one["name"] and not one.get("keep_running")] == []
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["monthly"]
    assert "patching" in steps["offline"]
    transaction = (COLLECTION / "roles/cycle/tasks/transaction.yml").read_text()
    places = [
        transaction.index(words)
        for words in ("maintenance_mode_state: entered", "Snapshot | Keep what can be put back", "include_tasks: apply.yml")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_run_brings_a_new_major_version_of_what_an_application_runs_on_neff_quarterly_19(system):
    """Node.js stays as a person installed it; a server of PostgreSQL takes fixes of its own major version and no other."""
    known = values(system)
    kept = package_plan.Rules.of({"hold": known["patching_hold"]})
    assert known["patching_node_projects"], "all five have Node.js"
    assert [name for name in ("nodejs", "nodejs-doc", "npm") if kept.keeps(name) != "held"] == []
    assert kept.keeps("openssl") == ""
    if not known.get("maintenance_postgresql") or known.get("patching_postgresql"):
        return  # no server, or one that postgresql_minor_update alone updates
    brings = ("postgresql", "postgresql-contrib", "postgresql-client")
    assert [name for name in brings if kept.keeps(name) != "held"] == []
    assert [name for name in ("postgresql-16", "postgresql-client-16", "postgresql-common", "libpq5") if kept.keeps(name)] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_packages_are_fetched_before_the_window_where_a_daily_run_precedes_it(system):
    known = values(system)
    assert known.get("patching_predownload", False) is ("daily" in known["maintenance_windows"])
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"]["daily"]
    assert any("patching" in stage for stage in steps.values())


def test_the_systems_with_a_server_of_postgresql_are_these():
    assert [system for system in SYSTEMS if values(system).get("maintenance_postgresql")] == sorted(WITH_DATABASE)


def test_asr_lists_pending_updates_of_every_kind_before_the_window_asr_01_4():
    [item] = [item for item in values("asr_po")["maintenance_checklist"] if item["id"] == "updates-listed"]
    assert item["phase"] == "pre"
    assert {"patching.pending", "patching.overdue", "node.vulnerable", "postgresql_minor.pending"} <= set(item["evidence"])


def test_flow_renews_for_the_nginx_in_its_container_and_asks_that_what_it_serves_flow_sec_6():
    """Whether the container sees the renewed files shows in what its published port serves after the reload."""
    known = values("flow_motion")
    (declared,) = known["certificate_renewal_certificates"]
    inside = ["docker", "compose", "--project-directory", "/srv/flow-motion", "exec", "-T", "nginx", "nginx"]
    assert declared["check_command"] == [*inside, "-t"]
    assert declared["reload_command"] == [*inside, "-s", "reload"], "a reload, or connections break off"
    assert "service" not in declared, "the unit of the host serves nothing there"
    assert declared["connect"] == "flow-motion.internal:443"
    assert known["security_review_certificates"][0]["path"] == f"/etc/letsencrypt/live/{declared['name']}/cert.pem"


def test_flow_updates_python_services_within_their_ranges_and_tests_them_flow_weekly_2():
    [service] = values("flow_motion")["patching_python_environments"]
    assert service["requirements"].endswith("requirements.txt")
    assert (service["update_vulnerable"], bool(service["test_command"]), service.get("audit", True)) == (True, True, True)
    [item] = [item for item in values("flow_motion")["maintenance_checklist"] if item["id"] == "dependencies"]
    assert "weekly" in item["cadences"]
    assert "python_dependencies" in item["evidence"]


def duties_of(system: str, cadence: str) -> list[dict[str, Any]]:
    return [duty for duty in values(system)["maintenance_duties"] if cadence in duty.get("cadences", [cadence])]


@pytest.mark.parametrize(
    ("system", "requirement", "cadences"),
    [
        ("netpost", "netpost-weekly-07", ["weekly", "monthly", "quarterly"]),
        ("netpost", "netpost-sec-06", ["weekly", "monthly", "quarterly", "deploy"]),
        ("neff_paving", "neff-monthly-04", ["monthly"]),
        ("flow_motion", "flow-weekly-1", ["weekly"]),
    ],
)
def test_what_happens_in_a_repository_is_a_duty_that_somebody_signs(system, requirement, cadences):
    for cadence in cadences:
        assert [duty["id"] for duty in duties_of(system, cadence) if duty["requirement"] == requirement], cadence


def test_netpost_changes_no_dependency_on_a_server_netpost_weekly_07():
    """The lock file changes by a commit with a preview deployment; a server only audits."""
    [project] = values("netpost")["patching_node_projects"]
    assert (project.get("update", []), project.get("update_vulnerable", False), project.get("audit", True)) == ([], False, True)


@pytest.mark.parametrize(
    ("cadence", "least", "installs"), [("daily", "medium", False), ("weekly", "medium", True), ("quarterly", "low", True)]
)
def test_netpost_looks_daily_for_what_is_overdue_and_installs_low_ones_quarterly(cadence, least, installs):
    """netpost-sec-01 to 04: no weekly run can keep a day, so the daily one says what is overdue; an emergency run takes only that."""
    steps = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"][cadence]
    assert any("patching" in stage for stage in steps.values())
    own = values("netpost")
    assert own["patching_deadline_hours"] == {"critical": 24, "high": 168, "medium": 0, "low": 2208}
    written = inventory()[1].raw_get(hosts("netpost")[0])["patching_minimum_severity"]
    templar = Templar(DataLoader(), {"maintenance_cadence": cadence})
    assert templar.template(written) == least
    default = inventory_check.role_options()["patching"]["patching_install"]["default"]
    assert templar.template(trust_as_template(default)) is installs


@pytest.mark.parametrize(
    ("system", "contacts"),
    [
        ("neff_paving", ["admin@neffpaving.com", "dba@neffpaving.com", "security@neffpaving.com", "(555) 123-HELP"]),
        ("neff_paving", ["support@hostingprovider.com", "PostgreSQL community", "support@sslprovider.com", "Stripe"]),
        ("flow_motion", ["maintenance@company.com", "+1-555-0123", "PagerDuty", "security@company.com", "+1-555-0124", "sre@company.com"]),
    ],
)
def test_contacts_of_the_documents_are_carried(system, contacts):
    told_contacts = " ".join(values(system)["maintenance_contacts"].values())
    assert [contact for contact in contacts if contact not in told_contacts] == []


WITH_DATABASE = ["asr_po", "neff_paving", "flow_motion", "netpost"]


@pytest.mark.parametrize("system", WITH_DATABASE)
def test_each_system_on_postgresql_can_be_drilled_as_a_whole_and_is_started_for_it(system):
    (application,) = values(system)["backup_verification_applications"]
    assert application["database"] in {one["name"] for one in values(system)["backup_verification_sets"]}
    assert application["start"]["argv"][0].startswith("/usr/bin/")


@pytest.mark.parametrize("system", WITH_DATABASE)
def test_snapshots_are_sealed_for_environment_files_are_in_them_asr_03_3(system):
    known = values(system)
    assert any(".env" in path for path in known["snapshot_paths"])
    assert (known["snapshot_encrypt_command"][0], known["snapshot_decrypt_command"][0]) == ("age", "age")
    assert "age" in known["preflight_tools"]


@pytest.mark.parametrize("system", ["asr_po", "neff_paving"])
def test_a_release_leaves_out_what_users_own_and_the_environment_asr_03_2(system):
    (release,) = values(system)["snapshot_releases"]
    assert {"uploads", ".env"} <= set(release["data"])
    assert release["version_file"] == "package.json"


def test_flow_keeps_digests_and_volumes_and_its_database_stays_meanwhile_flow_pre_3():
    known = values("flow_motion")
    assert known["snapshot_containers"] is True
    assert known["snapshot_volumes"]
    assert {"name": "postgresql.service", "keep_running": True} in known["maintenance_mode_services"], "or it could not be dumped"


def test_asr_fetches_a_backup_from_where_the_copies_lie_asr_14_6():
    (off_site,) = [one for one in values("asr_po")["backup_verification_sets"] if one.get("kind") == "command"]
    assert off_site["level"] >= 2


def test_netpost_reads_its_backups_with_a_key_from_elsewhere_netpost_bak_03():
    for declared in values("netpost")["backup_verification_sets"]:
        assert (declared["encrypted"], "{key}" in declared["decrypt_command"], bool(declared["recovery_key"]["command"])) == (
            True,
            True,
            True,
        )
        assert declared["pattern"].endswith(".age")


def test_netpost_keeps_no_configuration_and_no_dump_in_clear_netpost_bak_05():
    known = values("netpost")
    assert known["snapshot_version_control"]["encrypt_command"][0] == "age"
    assert known["snapshot_version_control"]["push"] is True
    assert [server["encrypt_command"][0] for server in known["snapshot_postgresql"]] == ["age"]
    assert [copy["encrypt_command"][0] for copy in known["snapshot_path_copies"]] == ["age"]


def test_netpost_goes_back_to_the_deployment_before_and_asks_its_health_netpost_dep_12():
    (deployment,) = values("netpost")["snapshot_deployments"]
    assert deployment["rollback"][:2] == ["vercel", "rollback"]
    assert any("{deployment}" in part for part in deployment["rollback"])
    assert deployment["url"].endswith("/api/health")
    assert deployment["promote"][:2] == ["vercel", "promote"]


def test_netpost_gets_its_variables_and_a_deployment_after_a_restore_netpost_res_1():
    told = [command for command in values("netpost")["site_commands"] if command["when"] == "restored"]
    assert [command["name"] for command in told] == ["variables", "redeployment"], (
        "a restart does not exist there, so the variables come first"
    )
    assert all(command["required"] for command in told)
