# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.ops.maintenance.plugins.filter.commands_due import FilterModule, commands_due


def command(name: str, when: str = "after", **more: Any) -> dict[str, Any]:
    return {"name": name, "when": when, "argv": ["/bin/true"], **more}


def result(*findings: tuple[str, str]) -> dict[str, Any]:
    return {"maintenance_record": {"findings": [{"id": id_, "state": state} for id_, state in findings]}}


def names(commands: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in commands]


LOOK = command("look", when_finding={"id": "security.failed_logins"})


def test_a_stage_keeps_its_own_and_none_keeps_all():
    given = [command("a", "before"), command("b")]
    assert (names(commands_due(given, "before")), names(commands_due(given))) == (["a"], ["a", "b"])


@pytest.mark.parametrize(("state", "runs"), [("ok", False), ("unknown", False), ("warning", True), ("critical", True)])
def test_a_condition_asks_for_a_bad_finding_of_its_id_fossa_sec_02(state, runs):
    found = commands_due([command("always"), LOOK], "after", [{}, result(("security.failed_logins", state))])
    assert names(found) == ["always", "look"][: 1 + runs]


def test_another_finding_or_none_does_not_meet_a_condition():
    assert commands_due([LOOK], "after", [result(("security.brute_force", "critical")), {"skipped": True}]) == []
    assert commands_due([LOOK]) == []


def test_states_narrow_a_condition():
    only_critical = command("look", when_finding={"id": "x.y", "states": ["critical"]})
    assert commands_due([only_critical], results=[result(("x.y", "warning"))]) == []
    assert names(commands_due([only_critical], results=[result(("x.y", "critical"))])) == ["look"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"timeout_seconds": 0}, "site_commands, b: timeout_seconds is 0.0"),
        ({"when_finding": {"id": "a.b", "states": ["bad"]}}, "value of states must be one or more of"),
        ({"when_finding": {"states": ["critical"]}}, "missing required arguments: id"),
    ],
)
def test_one_that_could_not_run_refuses_the_list_before_the_first_runs(bad, said):
    with pytest.raises(AnsibleFilterError, match=said):
        commands_due([command("a"), command("b", **bad)], "after")


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"commands_due": commands_due}
