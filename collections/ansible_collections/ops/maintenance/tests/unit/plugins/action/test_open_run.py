# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole inventory is judged before any host is touched, on inventories that Ansible really loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.ops.maintenance.plugins.action import open_run


@pytest.fixture
def hostvars(tmp_path: Path):
    """Load an inventory: variables of group ``shop``, and of single hosts."""

    def load(group: dict[str, Any], **hosts: dict[str, Any]) -> HostVars:
        names = hosts or {"shop1": {}}
        (tmp_path / "hosts").write_text("[shop]\n" + "\n".join(names) + "\n[maintained:children]\nshop\n")
        for folder, given in (("group_vars", {"shop": group}), ("host_vars", names)):
            (tmp_path / folder).mkdir()
            for name, values in given.items():
                (tmp_path / folder / f"{name}.yml").write_text(yaml.safe_dump(values))
        loader = DataLoader()
        manager = InventoryManager(loader=loader, sources=[str(tmp_path)])
        return HostVars(manager, VariableManager(loader=loader, inventory=manager), loader)

    return load


def test_a_sound_inventory_has_no_fault(hostvars):
    known = hostvars({"maintenance_title": "Shop {{ 1 + 1 }}", "preflight_tools": "{{ ['openssl'] }}"})
    assert open_run._faults(known, ["shop1"]) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("preflight_tools", "{{ nowhere }}", "'nowhere' is undefined"),
        ("preflight_tools", "{{ NOWHERE['x'] | default(nope) }}", "is undefined"),
        ("preflight_tools", "{{ 'JSON' | from_json }}", "from_json"),
        ("maintenance_contacts", {"admin": "{{ deep.down }}"}, "'deep' is undefined"),
    ],
)
def test_what_cannot_be_worked_out_is_told_once_and_never_let_through(hostvars, name, value, said):
    [fault] = open_run._faults(hostvars({name: value}), ["shop1"])
    assert fault.startswith(f"{name} cannot be worked out: ")
    assert said in fault
    assert fault.endswith(".")
    assert not fault.endswith("..")


def test_a_placeholder_is_told_as_such_only(hostvars):
    [fault] = open_run._faults(hostvars({"maintenance_contacts": {"admin": "{{ ADMIN_MAIL }}"}}), ["shop1"])
    assert fault == "maintenance_contacts.admin still holds the placeholder '{{ ADMIN_MAIL }}'; put the real value there."


def test_a_fault_of_one_host_names_it(hostvars):
    known = hostvars({}, shop1={}, shop2={"preflight_tolls": []})
    assert open_run._faults(known, ["shop1", "shop2"]) == [
        "shop2: preflight_tolls is not an option of any role; did you mean preflight_tools?"
    ]


def test_hosts_with_equal_variables_are_judged_once(hostvars):
    known = hostvars({"preflight_tolls": []}, shop1={}, shop2={}, shop3={})
    assert len(open_run._faults(known, ["shop1", "shop2", "shop3"])) == 1


def test_hosts_belong_to_the_system_that_is_named_or_to_their_group(hostvars):
    known = hostvars({}, shop1={"maintenance_system": "checkout"}, shop2={})
    assert open_run.by_system(known, ["shop1", "shop2"]) == {"checkout": ["shop1"], "shop": ["shop2"]}
