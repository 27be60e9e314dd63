# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of an inventory are found before anything is changed, each told in one sentence."""

from __future__ import annotations

import pytest

from ansible_collections.ops.maintenance.plugins.plugin_utils import inventory_check as check
from ansible_collections.ops.maintenance.plugins.plugin_utils import role_inputs


@pytest.mark.parametrize(
    "text",
    [
        "{{PRIMARY_ADMIN_EMAIL}}",
        "{{ DBA_EMAIL }}",
        "Call {{EMERGENCY_SUPPORT_PHONE}} at night",
        "https://your-domain.com/api/health",
        "https://YOUR-DOMAIN.com/",
        "CHANGEME",
        "change_me",
        "[Contact Information]",
        "/path/to/cert.pem",
        "{{ app_port }} at your-domain.com",
        "{{ app_port }} of {{DBA_EMAIL}}",
    ],
)
def test_placeholders_are_found(text):
    [fault] = check.placeholders(text, "maintenance_contacts.admin")
    assert fault.startswith("maintenance_contacts.admin still holds the placeholder ")
    assert "app_port" not in fault


@pytest.mark.parametrize(
    "text",
    [
        "{{ app_port }}",
        "http://localhost:{{ app_port }}/health",
        "{{ lookup('ansible.builtin.env', 'HOME') }}",
        "https://not-your-domain.company/",
        "/srv/path/to/cert.pem",
        "changement",
        "",
    ],
)
def test_ordinary_text_and_templates_are_no_placeholders(text):
    assert list(check.placeholders(text, "x")) == []


def test_placeholders_are_found_at_any_depth_and_told_where():
    value = {"hosts": [{"url": "https://example.org"}, {"url": "https://your-domain.com"}], 5: ("CHANGE_ME",), "port": 80, "none": None}
    found = list(check.placeholders(value, "v"))
    assert [fault.split(" ")[0] for fault in found] == ["v.hosts[1].url", "v.5[0]"]


def test_an_unknown_option_comes_with_a_suggestion():
    [fault] = check.unknown_options(["preflight_disk_warning_procent"])
    assert fault == "preflight_disk_warning_procent is not an option of any role; did you mean preflight_disk_warning_percent?"


def test_an_option_that_resembles_none_is_told_without_a_guess():
    [fault] = check.unknown_options(["cycle_zzzzqqqq9"])
    assert fault == "cycle_zzzzqqqq9 is not an option of any role; remove it, or see the role's README."


def test_options_of_all_entry_points_and_shared_ones_are_known():
    assert list(check.unknown_options(["snapshot_rollback_packages", "maintenance_windows", "preflight_tools", "site_commands"])) == []


def test_only_variables_of_the_collection_are_looked_at():
    names = ["app_port", "ansible_user", "preflighty", "preflight_tools", "maintenance_title", "site_commands", "cycle_x"]
    assert check.relevant(names) == ["cycle_x", "maintenance_title", "preflight_tools", "site_commands"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("preflight_disk_warning_percent", "much", "preflight_disk_warning_percent"),
        ("preflight_clock", "sometimes", "value of preflight_clock must be one of"),
        ("preflight_backups", [{"maximum_age_hours": 26}], "missing required arguments: set"),
        ("preflight_backups", "daily", "preflight_backups"),
        ("site_commands", [{"name": "x", "when": "never", "argv": ["x"]}], "value of when must be one of"),
        ("preflight_room", [{"path": "/backups", "fator": 2}], "fator"),
    ],
)
def test_values_that_a_role_would_refuse_are_found(name, value, said):
    found = list(check.misfits({name: value}))
    assert all(fault.startswith("role ") for fault in found)
    assert any(said in fault for fault in found)


def test_values_that_fit_are_no_fault_and_required_ones_need_not_be_given():
    assert (
        list(check.misfits({"preflight_disk_warning_percent": 85, "preflight_backups": [{"set": "daily", "maximum_age_hours": 26}]})) == []
    )
    assert list(check.misfits({})) == []


def test_all_faults_come_at_once_each_once():
    raw = {
        "app_port": "CHANGEME",
        "maintenance_contacts": {"admin": "{{PRIMARY_ADMIN_EMAIL}}"},
        "preflight_clok": "off",
        "preflight_load_warning_percent": "{{ much }}",
    }
    found = check.problems(raw, {**raw, "preflight_load_warning_percent": "a lot"})
    assert [fault.split(" ")[0] for fault in found] == ["maintenance_contacts.admin", "preflight_clok", "role"]


def test_a_template_is_judged_by_what_it_becomes():
    assert check.problems({"preflight_tools": "{{ tools }}"}, {"preflight_tools": ["openssl"]}) == []


def test_a_password_in_the_url_of_the_store_is_refused_without_being_repeated():
    values = {"maintenance_store_url": "postgresql://ops:hunter2@db/maintenance"}
    [fault] = check.problems(values, values)
    assert "password file" in fault
    assert "hunter2" not in fault


RULE = {"root": "/logs", "pattern": ["*.log"], "delete_after_days": -90}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("snapshot_keep_days", -1, "snapshot_keep_days is -1.0, expected 0 or more; correct it."),
        ("snapshot_rollback_id", "../etc", "snapshot_rollback_id is '../etc', expected letters"),
        ("snapshot_paths", ["etc"], "role snapshot: 'etc' is not an absolute path"),
        ("log_rotation_span_days", -3, "log_rotation_span_days is -3, expected a positive number; correct it."),
        ("log_rotation_rules", [RULE], "role log_rotation: The rule for /logs has delete_after_days -90, expected a positive number"),
        ("log_rotation_logrotate_maximum_age_hours", 0, "log_rotation_logrotate_maximum_age_hours is 0.0, expected a positive number"),
        ("patching_stale_after_days", -1, "patching_stale_after_days is -1, expected 0 or more"),
        ("patching_hold", 5, "patching_hold is 5, expected a list; make it one."),
        ("patching_hold", ["a b"], "patching_hold has 'a b', expected a package name"),
        ("patching_pins", {"nginx": 1.2}, "patching_pins of nginx is 1.2, expected a version"),
        ("patching_deadline_hours", {"high": -1}, "patching_deadline_hours of high is -1, expected 0 or more"),
        ("patching_severities", {"nginx": "urgent"}, "patching_severities of nginx is 'urgent', expected one of"),
        ("patching_kernels_keep", 1, "patching_kernels_keep is 1, expected 2 or more"),
        ("patching_settle_seconds", -1, "patching_settle_seconds is -1, expected 0 or more"),
        ("patching_scope", "listed", "patching_scope is 'listed', but packages names none"),
        ("patching_reboot_timeout_seconds", -1, "patching_reboot_timeout_seconds is -1, expected 0 or more"),
        ("patching_test_timeout_seconds", -1, "patching_test_timeout_seconds is -1, expected 0 or more"),
        ("patching_node_projects", [{"path": "/a", "update": ["--force"]}], "patching_node_projects.update is '--force'"),
        ("patching_python_environments", [{"path": "venv"}], "patching_python_environments.path is 'venv', expected an absolute path"),
        ("database_maintenance_sqlite", [{"path": "/a.db", "vacuum_free_percent": 200}], "vacuum_free_percent is 200.0, expected 0 to 100"),
        ("database_maintenance_bytes_per_second", 0, "database_maintenance_bytes_per_second is 0, expected 1 or more"),
        ("maintenance_mode_grace_seconds", -5, "maintenance_mode_grace_seconds is -5, expected a number of seconds"),
        ("maintenance_mode_drain_ports", [0], "maintenance_mode_drain_ports is [0], expected ports"),
        ("maintenance_mode_page", {"url": "ftp://x/"}, "maintenance_mode_page.url is 'ftp://x/', expected an http"),
        ("preflight_disk_warning_percent", -1, "preflight_disk_warning_percent is -1.0, expected a percentage"),
        ("preflight_backups", [{"set": "daily", "maximum_age_hours": 0}], "preflight_backups is {"),
        ("performance_review_disk_warning_days", -1, "performance_review_disk_warning_days is -1.0, expected 0 or more"),
        ("performance_review_top_count", 50, "performance_review_top_count is 50, expected 0 to 20"),
        ("security_review_days", 0, "security_review_days is 0, expected a number from 1 on"),
        ("security_review_listening", ["22"], "security_review_listening holds '22', expected tcp/PORT"),
        ("security_review_files", [{"path": "/a", "mode": "rw"}], "security_review_files.mode of /a is 'rw', expected an octal mode"),
        ("validation_endpoints", [{"url": "ftp://x/"}], "validation_endpoints.url is 'ftp://x/', expected an http"),
        ("validation_endpoints", [{"url": "http://x/", "body": [{"query": "a[["}]}], "validation_endpoints.body.query is {"),
        ("validation_logs", [{"paths": ["x.log"]}], "validation_logs.paths is 'x.log', expected an absolute path"),
        ("backup_verification_sets", [{"name": "a", "root": "backups"}], "root of set a is 'backups', expected an absolute path"),
        ("backup_verification_capacity_warning_percent", -1, "backup_verification_capacity_warning_percent is -1.0, expected 0 or more"),
        (
            "site_commands",
            [{"name": "x", "when": "after", "argv": ["x"], "timeout_seconds": 0}],
            "site_commands, x: timeout_seconds is 0.0",
        ),
        ("site_commands", [{"name": "x", "when": "after", "argv": 5}], "site_commands.argv is 5, expected a list; make it one."),
        ("notification_channels", [{"kind": "file", "path": "x"}], "path in notification_channels of kind file is 'x'"),
        ("notification_channels", [{"kind": "mail", "host": "h", "port": 0, "to": ["a@b.example"]}], "port is 0, expected 1 to 65535"),
        ("maintenance_failure_budget_percent", -5, "maintenance_failure_budget_percent is -5.0, expected 0 to 100; correct it."),
        ("cycle_reserve_seconds", -1, "cycle_reserve_seconds is -1, expected 0 or more; correct it."),
        ("maintenance_budgets", {"patching": -1}, "maintenance_budgets.patching is -1, expected a number of seconds above 0; correct it."),
    ],
)
def test_values_that_a_module_would_refuse_later_are_found_before_any_host_is_touched(name, value, said):
    [fault] = check.problems({name: value}, {name: value})
    assert said in fault, fault
    assert fault.endswith((".", "?"))


def test_the_modules_find_all_faults_of_one_list_and_a_type_of_another_hides_none():
    rules = [RULE, {**RULE, "root": "/other", "pattern": ["*"]}]
    values = {"log_rotation_rules": rules, "log_rotation_span_days": "long", "snapshot_keep_count": 0, "snapshot_keep_days": -1}
    found = " ".join(check.misfits(values))
    for said in ("/logs has delete_after_days -90", "/other has delete_after_days -90", "/other has pattern", "log_rotation_span_days"):
        assert said in found
    assert ("snapshot_keep_count is 0" in found, "snapshot_keep_days is -1" in found) == (True, True)


def test_every_role_whose_modules_run_on_hosts_is_asked():
    with_modules = {path.parents[1].name for path in check.ROLES.glob("*/tasks/*.yml") if "ops.maintenance." in path.read_text()}
    on_control = {"cycle", "notification", "report"}
    assert with_modules - on_control - set(role_inputs.CALLS) - {"site_commands"} == set()


def test_every_option_of_a_module_is_a_variable_of_its_role_or_has_a_default():
    for role, calls in role_inputs.CALLS.items():
        options = check.role_options()[role]
        for call in calls:
            assert set(call.names.values()) <= set(options), role
            lacking = [
                name
                for name, option in call.options.items()
                if option.get("required") and call.names.get(name, f"{role}_{name}") not in options
            ]
            assert lacking == [], role


def test_the_defaults_of_all_roles_have_no_fault():
    for role, options in check.role_options().items():
        values = {name: option["default"] for name, option in options.items() if "{{" not in str(option.get("default", "{{"))}
        assert list(check.role_misfits(role, values)) == [], role


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            {"weekly": {"offline": ["patchin"]}},
            "maintenance_steps.weekly.offline names patchin, which is no step of this stage; did you mean patching?",
        ),
        ({"weekly": {"offline": ["log_rotation"]}}, "maintenance_steps.weekly.offline names log_rotation, which is no step of this stage;"),
        ({"weekly": {"ofline": ["patching"]}}, "maintenance_steps.weekly.ofline is no stage, expected some of before, offline, after"),
        ({"weekly": {"after": "log_rotation"}}, "maintenance_steps.weekly.after is 'log_rotation', expected a list of steps"),
        ({"hourly": {"after": []}}, "maintenance_steps names the cadence hourly, expected some of daily"),
        ({"weekly": ["patching"]}, "expected steps by cadence and stage"),
    ],
)
def test_a_step_that_is_none_is_found_where_it_is_written(steps, said):
    [fault] = check.step_faults({"maintenance_steps": steps})
    assert said in fault


def test_a_typo_in_the_steps_is_not_blamed_on_what_narrows_them():
    steps = {"weekly": {"before": [], "offline": ["patchin"], "after": []}}
    [fault] = check.step_faults({"maintenance_steps": steps, "maintenance_skip": ["patching"]})
    assert fault.startswith("maintenance_steps.weekly.offline names patchin")


@pytest.mark.parametrize("option", ["maintenance_only", "maintenance_skip"])
def test_a_name_to_narrow_by_that_no_cadence_has_is_found(option):
    [fault] = check.step_faults({option: ["patching", "patchin"]})
    assert fault.startswith(f"{option} names patchin, which is no step of any cadence; expected some of backup_verification,")
