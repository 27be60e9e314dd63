"""What the tasks of patching hand to the modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from production import ROOT

TASKS = ROOT / "collections/ansible_collections/ops/maintenance/roles/patching/tasks"


def flat(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from flat(task.get(part, []))


def told(file: str, name: str, **known: Any) -> tuple[bool, dict[str, Any]]:
    """Return whether a task runs, and the options that its module gets of what the run knows by then."""
    (task,) = [task for task in flat(yaml.safe_load((TASKS / file).read_text())) if task.get("name") == name]
    (module,) = [key for key in task if key.startswith("ops.maintenance.")]
    templar = Templar(DataLoader(), known)
    runs = templar.template(trust_as_template(f"{{{{ {task.get('when', 'true')} }}}}"))
    given = {key: trust_as_template(value) if isinstance(value, str) else value for key, value in task[module].items()}
    return bool(runs), templar.template(given)


INSTALLED = {
    "__patching_boot": "id/1",
    "__patching_packages": {"plan": [{"name": "demo", "installed": "1.0", "version": "1.1"}]},
    "__patching_ready": {"baseline": {"services": ["demo.service"]}},
    "patching_backend": "auto",
    "patching_settle_seconds": 5,
    "patching_lock_timeout_seconds": 60,
    "patching_downgrade": True,
}


REMEMBER = "Apply | Remember what works before the reboot"
VERIFY = "Verify | Prove that the host has booted anew"


@pytest.mark.parametrize("ready", [{}, {"__patching_ready": {"baseline": {}}}])
def test_a_reboot_without_an_update_before_it_is_compared_with_what_works_now(ready):
    """Whatever was not remembered before an installation is remembered before the reboot, without changing anything."""
    known = {key: value for key, value in INSTALLED.items() if key != "__patching_ready"} | ready
    runs, given = told("reboot.yml", REMEMBER, **known)
    assert runs
    assert {"install", "remove", "repair", "download_only"}.isdisjoint(given)
    seen = {"services": ["other.service"]}
    assert told("reboot.yml", VERIFY, **known, __patching_working={"baseline": seen})[1]["baseline"] == seen
    order = [task.get("name") for task in flat(yaml.safe_load((TASKS / "reboot.yml").read_text()))]
    assert order.index(REMEMBER) < order.index("Apply | Reboot and wait for the host") < order.index(VERIFY)


def test_a_reboot_after_an_update_is_compared_with_what_worked_before_the_update():
    assert not told("reboot.yml", REMEMBER, **INSTALLED)[0]
    skipped = {"changed": False, "skipped": True}
    assert told("reboot.yml", VERIFY, **INSTALLED, __patching_working=skipped)[1]["baseline"] == {"services": ["demo.service"]}


def test_after_the_reboot_the_packages_are_known_and_the_way_back_as_it_is_declared():
    runs, given = told("reboot.yml", VERIFY, **INSTALLED)
    assert runs
    assert given["plan"] == INSTALLED["__patching_packages"]["plan"]
    assert given["baseline"] == INSTALLED["__patching_ready"]["baseline"]
    assert (given["boot_before"], given["downgrade"]) == ("id/1", True)
