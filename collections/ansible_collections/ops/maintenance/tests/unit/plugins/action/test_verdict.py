# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a run exit with a failure, from the lines of its journal."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ops.maintenance.plugins.action.verdict import LEVELS, judge, scanned


def outcome(host: str = "db1", state: str = "completed", reason: str = "") -> dict[str, Any]:
    return {"kind": "outcome", "host": host, "outcome": state, "reason": reason}


def record(host: str = "db1", status: str = "ok", *states: str, **finding: Any) -> dict[str, Any]:
    findings = [{"id": "disk.use", "state": state, "summary": f"disk is {state}", **finding} for state in states]
    return {"kind": "record", "host": host, "operation": "preflight", "status": status, "summary": "looked", "findings": findings}


def problems(lines: list[dict[str, Any]], fail_on: str = "failed") -> list[str]:
    return judge(lines, fail_on)[0]


def test_completed_hosts_are_no_problem_and_are_counted():
    assert judge([outcome("a"), outcome("b"), record("a")], "failed") == ([], {"completed": 2})


def test_a_run_without_any_outcome_maintained_nothing():
    assert problems([record()]) == ["No host has an outcome: nothing was maintained."]


@pytest.mark.parametrize("state", ["refused", "failed", "rolled_back", "rollback_failed", "unreachable", "not_attempted"])
def test_every_other_outcome_is_a_problem_with_its_reason(state):
    assert problems([outcome(state=state, reason=" out of time ")]) == [f"db1: {state} (out of time)."]
    assert problems([outcome(state=state)]) == [f"db1: {state}."]


def test_the_last_outcome_of_a_host_counts():
    assert problems([outcome(state="failed"), outcome(state="completed")]) == []
    assert problems([outcome(state="completed"), outcome(state="failed")]) == ["db1: failed."]


def test_a_task_that_failed_on_a_completed_host_is_a_problem():
    assert problems([outcome(), record("db1", "failed")]) == ["db1: preflight failed (looked)."]


def test_a_failed_task_is_not_told_twice_for_a_host_that_failed():
    assert problems([outcome(state="failed", reason="disk full"), record("db1", "failed")]) == ["db1: failed (disk full)."]


@pytest.mark.parametrize("fail_on", LEVELS)
def test_each_level_includes_the_graver_ones(fail_on):
    for state in ("critical", "unknown", "warning"):
        fails = LEVELS.index(fail_on) >= LEVELS.index(state)
        assert bool(problems([outcome(), record("db1", "ok", state)], fail_on)) == fails


@pytest.mark.parametrize("fail_on", LEVELS)
def test_what_is_ok_or_waived_fails_no_run(fail_on):
    assert problems([outcome(), record("db1", "ok", "ok"), record("db1", "ok", "critical", waived={"owner": "Jane"})], fail_on) == []


def test_findings_are_counted_and_the_first_is_named():
    lines = [outcome(), record("db1", "ok", "critical", "critical")]
    assert problems(lines, "critical") == ["2 findings are critical; the first: disk is critical"]


def test_never_means_never_and_still_counts():
    assert judge([outcome(state="failed")], "never") == ([], {"failed": 1})
    assert judge([], "never") == ([], {})


def test_a_thousand_failed_hosts_are_told_shortly():
    lines = [outcome(f"h{number}", "failed") for number in range(1000)]
    found, counts = judge(lines, "failed")
    assert (len(found), counts) == (20, {"failed": 1000})


def test_a_scan_that_looked_at_nothing_or_failed_does_not_meet_the_gate():
    assert scanned([], "critical") == ["No finding: nothing was scanned."]
    assert scanned([record()], "failed") == ["No finding: nothing was scanned."]
    assert scanned([record("db1", "failed", "ok")], "failed") == ["db1: preflight failed (looked)."]
    assert scanned([record()], "never") == []
    assert scanned([record("h", "ok", "ok")], "critical", ["*.vulnerable"]) == ["No finding: nothing was scanned."]
    assert scanned([record("h", "ok", "critical"), record("h", "ok", "ok", id="node.vulnerable")], "critical", ["*.vulnerable"]) == []


@pytest.mark.parametrize(
    ("gate", "stopped"), [("critical", ["critical"]), ("unknown", ["critical", "unknown"]), ("warning", ["critical", "unknown", "warning"])]
)
def test_the_gate_of_a_scan_is_a_level_and_waived_findings_pass(gate, stopped):
    """netpost-dep-03"""
    assert [state for state in ("ok", "warning", "unknown", "critical") if scanned([record("h", "ok", state)], gate)] == sorted(
        stopped, key=["warning", "unknown", "critical"].index
    )
    assert scanned([record("h", "ok", "critical", waived={"owner": "Mia"})], gate) == []
