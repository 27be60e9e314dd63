# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of an inventory are found before anything is changed, each told in one sentence."""

from __future__ import annotations

import pytest

from ansible_collections.ops.maintenance.plugins.plugin_utils import inventory_check as check


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
