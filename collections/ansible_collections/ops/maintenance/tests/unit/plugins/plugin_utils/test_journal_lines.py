# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.plugin_utils import journal_lines as lines

_spec = importlib.util.spec_from_file_location("schema", Path(__file__).parents[1] / "schema.py")
schema = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(schema)

TIMES = ("2026-11-21T02:00:00+00:00", "2026-11-21T02:00:01+00:00")


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("Assess | List updates", "assess"),
        ("Maintenance mode | Enter", "maintenance mode"),
        ("apply | x", "apply"),
        ("No phase", ""),
        ("", ""),
        ("a|b", ""),
        ("x" * 50 + " | y", ""),
    ],
)
def test_the_phase_is_what_stands_before_the_bar(name, phase):
    assert lines.phase_of(name) == phase


def test_items_are_short_and_never_those_of_no_log():
    assert lines.item_of({"item": "a", "ansible_loop_var": "item"}) == "a"
    assert lines.item_of({"pkg": {"n": 1}, "ansible_loop_var": "pkg"}) == "{'n': 1}"
    assert lines.item_of({"item": "secret", "_ansible_item_label": "shown"}) == "shown"
    assert lines.item_of({"item": "secret", "_ansible_no_log": True}) == "(hidden by no_log)"
    assert len(lines.item_of({"item": "x" * 9999})) == 200


@pytest.mark.parametrize(
    "given_record", [None, "text", [], 3, {}, {"status": "great", "before": 1}, {"findings": "x"}, {"findings": [{"id": "Bad"}]}]
)
def test_a_record_that_is_none_is_kept_as_unknown_and_never_as_good(given_record):
    record = lines.record_from(given_record, TIMES)
    assert schema.record_faults(record) == []
    assert record["status"] == "failed"


def test_one_bad_finding_does_not_take_the_good_ones_along():
    good = {"id": "a.b", "state": "critical", "subject": "s", "summary": "t", "advice": "u"}
    record = lines.record_from({"operation": "op", "status": "ok", "findings": [good, {"id": "a.b", "state": "fine"}]}, TIMES)
    assert [(f["id"], f["state"]) for f in record["findings"]] == [("a.b", "critical"), ("journal.malformed", "unknown")]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["subject", "operation", "status", "summary", "before", "after", "findings", "metrics", "actions"]
PARTS = st.lists(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("id", "state", "subject", "advice", "basis", "evidence", "name", "value", "unit", "status"), ANY)
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, ANY | PARTS)))
def test_whatever_a_module_returns_becomes_a_record_of_the_schema(given_record):
    assert schema.record_faults(lines.record_from(given_record, TIMES)) == []


def test_a_failed_task_is_critical_unless_the_playbook_handles_it():
    assert lines.failure("apt", "h", "no\nspace", "", TIMES)["findings"][0]["state"] == "critical"
    assert lines.failure("apt", "h", "no", "rescued", TIMES)["findings"][0]["state"] == "warning"
    record = lines.failure("apt", "h", "", "", TIMES)
    assert (record["operation"], record["status"], record["summary"]) == ("apt", "failed", "it failed without a message")


def test_an_unreachable_host_is_unknown_and_never_ok():
    record = lines.unreachable("h", "timed out", TIMES)
    assert (record["operation"], record["status"], record["findings"][0]["state"]) == ("connect", "failed", "unknown")


def test_every_planned_host_gets_an_outcome():
    system_of = {"done": "s", "gone": "s", "bad": "s", "waits": "s", "begun": "s"}
    made = lines.missing_outcomes(system_of, {"done": "completed"}, {"gone": "no route"}, {"bad": "broke", "gone": "x"}, {"begun", "bad"})
    assert {line["host"]: (line["outcome"], line["reason"]) for line in made} == {
        "gone": ("unreachable", "no route"),
        "bad": ("failed", "broke"),
        "begun": ("failed", "The run ended before it was done with this host; its last records say up to where it came."),
        "waits": ("not_attempted", "The run ended before it came to this host."),
    }


def test_the_end_is_completed_only_when_every_host_is():
    assert lines.end({"a": "completed", "b": "completed"}, False, TIMES[1])["status"] == "completed"
    assert lines.end({}, False, TIMES[1])["status"] == "completed"
    assert lines.end({}, True, TIMES[1])["status"] == "failed"
    for other in ("refused", "failed", "rolled_back", "rollback_failed", "unreachable", "not_attempted"):
        ended = lines.end({"a": "completed", "b": other}, False, TIMES[1])
        assert ended["status"] == "failed"
        assert ended["hosts"] == {"completed": 1, other: 1}
