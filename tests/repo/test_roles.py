"""A role's defaults and its argument specification say the same, and no host pays for a call that it does not need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "collections/ansible_collections/ops/maintenance/roles"
CHECKS_INPUT = "ops.maintenance.inputs"


def entry_points(role: str) -> dict[str, Any]:
    return yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]


def defaults(role: str) -> dict[str, Any]:
    path = ROLES / role / "defaults/main.yml"
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def options(role: str) -> dict[str, Any]:
    """Return the inputs of all entry points together; they share one defaults/main.yml."""
    found: dict[str, Any] = {}
    for spec in entry_points(role).values():
        found |= spec.get("options") or {}
    return found


def all_roles() -> list[str]:
    return sorted(path.name for path in ROLES.iterdir() if path.is_dir())


@pytest.mark.parametrize("role", all_roles())
def test_every_default_is_a_documented_input(role):
    assert sorted(set(defaults(role)) - set(options(role))) == []


@pytest.mark.parametrize("role", all_roles())
def test_documented_defaults_are_the_ones_in_force(role):
    documented = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert {name: defaults(role).get(name) for name in documented} == documented


@pytest.mark.parametrize("role", all_roles())
def test_a_required_input_has_no_default(role):
    assert [name for name, option in options(role).items() if option.get("required") and name in defaults(role)] == []


@pytest.mark.parametrize("role", all_roles())
def test_every_input_is_described_and_typed(role):
    for name, option in options(role).items():
        assert option.get("description"), name
        assert option.get("type"), name


def test_an_input_that_roles_share_has_one_default():
    seen: dict[str, tuple[str, Any]] = {}
    for role in all_roles():
        for name, value in defaults(role).items():
            first, known = seen.setdefault(name, (role, value))
            assert value == known, f"{name} differs between {first} and {role}"


def calls(role: str, file: str = "main.yml") -> Iterator[tuple[str, str]]:
    """Return the module calls that every host gets: the name of the task and the module, without what has a condition."""
    yield from _calls(yaml.safe_load((ROLES / role / "tasks" / file).read_text()), role)


def _calls(tasks: list[dict[str, Any]], role: str) -> Iterator[tuple[str, str]]:
    for task in tasks:
        if "when" in task:
            continue
        yield from _calls(task.get("block", []), role)
        if "ansible.builtin.import_tasks" in task:
            yield from calls(role, task["ansible.builtin.import_tasks"])
        yield from ((task["name"], module) for module in task if module.startswith("ops.maintenance.") and module != CHECKS_INPUT)


@pytest.mark.parametrize(
    ("role", "module"),
    [("patching", "package_updates_info"), ("log_rotation", "log_analysis"), ("security_review", "security_review")],
)
def test_one_call_assesses_a_host_for_which_nothing_special_is_declared(role, module):
    assert [called for name, called in calls(role) if name.startswith("Assess | ")] == [f"ops.maintenance.{module}"]
