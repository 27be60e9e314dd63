# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.plugin_utils import report_html, report_json, report_markdown
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_build import build, past_run
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_lines import sort_lines
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_metrics import points_of
from ansible_collections.ops.maintenance.tests.unit.plugins.plugin_utils.sample_runs import (
    START,
    SampleRun,
    action,
    finding,
    metric,
    weekly,
)

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def report(run, previous=None, history=(), **options):
    """The report of a run, compared with one earlier run or with several, newest first."""
    earlier = previous if isinstance(previous, list) else [previous] if previous else []
    return build(run.lines, [before.lines for before in earlier], history, generated=NOW, **options)


def run_with(*findings, **plan):
    """A completed run of one host that reported some findings."""
    run = SampleRun().opened().plan("shop", ["web1"], **plan)
    run.record("shop", "web1", "ops.maintenance.security_review", "security_review", findings=list(findings))
    return run.outcome("shop", "web1").ended()


def item(run, item_id):
    return next(item for item in report(run).checklist if item.id == item_id)


def automated(*evidence, **more):
    return {"checklist": [{"id": "x", "text": "The thing", "kind": "automated", "phase": "post", "evidence": list(evidence), **more}]}


# verdicts


@pytest.mark.parametrize("state", ["ok", "unknown", "warning", "critical"])
def test_the_worst_finding_is_the_verdict(state):
    made = report(run_with(finding("a.one", "ok", "x", "fine"), finding("a.two", state, "y", "so so")))
    assert (made.verdict, made.systems[0].verdict, made.hosts[0].verdict) == (state, state, state)


def test_a_host_on_which_nothing_was_looked_at_is_unknown():
    made = report(SampleRun().opened().plan("shop", ["web1"]).outcome("shop", "web1").ended())
    assert (made.verdict, made.hosts[0].reason) == ("unknown", "nothing was looked at")


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        ("refused", "warning"),
        ("not_attempted", "unknown"),
        ("unreachable", "critical"),
        ("failed", "critical"),
        ("rolled_back", "critical"),
    ],
)
def test_an_outcome_counts_in_the_verdict(outcome, verdict):
    run = SampleRun().opened().plan("shop", ["web1"])
    run.record("shop", "web1", "ops.maintenance.preflight", "preflight", findings=[finding("a.one", "ok", "x", "fine")])
    made = report(run.outcome("shop", "web1", outcome).ended("failed"))
    assert made.hosts[0].verdict == verdict
    assert made.log.status == "Failed"


def test_a_state_that_is_none_counts_as_unknown():
    assert report(run_with(finding("a.one", "fine", "x", "odd"))).verdict == "unknown"


def test_findings_come_worst_first_and_new_before_old():
    old = run_with(finding("a.b", "critical", "x", "s"), finding("z.z", "warning", "x", "s"))
    now = run_with(
        finding("a.a", "warning", "x", "s"), finding("a.b", "critical", "x", "s"), finding("a.c", "unknown", "x", "s"),
        finding("z.z", "critical", "y", "s"),
    )  # fmt: skip
    assert [f.id for f in report(now, old).findings] == ["z.z", "a.b", "a.a", "a.c"]


def test_hosts_and_systems_come_worst_first():
    run = SampleRun().opened().plan("calm", ["a"]).plan("loud", ["b", "c"])
    for system, host, state in (("calm", "a", "ok"), ("loud", "b", "ok"), ("loud", "c", "critical")):
        run.record(system, host, "r", "op", findings=[finding("a.a", state, "x", "s")]).outcome(system, host)
    made = report(run.ended())
    assert [s.system for s in made.systems] == ["loud", "calm"]
    assert [h.host for h in made.hosts] == ["c", "a", "b"]


def test_what_was_seen_last_counts():
    run = SampleRun().opened().plan("shop", ["web1"])
    for state in ("critical", "ok"):
        run.record("shop", "web1", "r", "op", findings=[finding("a.a", state, "x", "s")])
    assert report(run.outcome("shop", "web1").ended()).verdict == "ok"


def test_a_failed_task_makes_its_host_critical_and_the_run_failed():
    run = SampleRun().opened().plan("shop", ["web1"])
    run.record("shop", "web1", "r", "op", findings=[finding("a.a", "ok", "x", "s")])
    run.record("shop", "web1", "r", "apt", status="failed", summary="no space left")
    made = report(run.outcome("shop", "web1").ended())
    assert (made.hosts[0].verdict, made.log.status) == ("critical", "Failed")
    assert "no space left" in made.log.issues_encountered[0]


def test_a_rescued_failure_is_listed_but_does_not_fail_the_run():
    run = SampleRun().opened().plan("shop", ["web1"])
    run.record("shop", "web1", "r", "op", findings=[finding("a.a", "ok", "x", "s")])
    run.record("shop", "web1", "r", "uri", status="failed", handled="rescued")
    made = report(run.outcome("shop", "web1").ended())
    assert (made.hosts[0].verdict, made.log.status, len(made.failures)) == ("ok", "Success", 1)


def test_a_finding_about_the_control_node_counts_but_adds_no_host():
    run = SampleRun().opened().plan("shop", ["web1"])
    run.record("shop", "web1", "r", "op", findings=[finding("a.a", "ok", "x", "s")])
    run.record("", "localhost", "", "waivers", findings=[finding("waiver.expired", "warning", "w", "s")])
    made = report(run.outcome("shop", "web1").ended())
    assert ([h.host for h in made.hosts], made.verdict) == (["web1"], "warning")


# waivers


WAIVER = {"owner": "Jonas Weber", "reason": "replacement in May", "expires": "2027-01-31"}


def test_a_waived_finding_stands_apart_and_does_not_count():
    made = report(run_with(finding("a.a", "critical", "x", "s", waived=WAIVER), finding("a.b", "ok", "x", "s")))
    assert (made.verdict, made.findings, len(made.waived), made.counts["findings"]["waived"]) == ("ok", [], 1, 1)
    assert "Jonas Weber" in made.waived[0].waiver
    assert made.summary.endswith("1 check passed, 1 not ok but waived.")
    assert "every check" not in report_html.render(made).lower()


@pytest.mark.parametrize("change", [{"expires": "2026-11-20"}, {"expires": "soon"}, {"owner": ""}, {"reason": None}])
def test_an_expired_or_incomplete_waiver_waives_nothing(change):
    made = report(run_with(finding("a.a", "critical", "x", "s", waived={**WAIVER, **change})))
    assert (made.verdict, made.waived) == ("critical", [])


# changes since the run before


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (None, "warning", "new"),
        ("ok", "warning", "new"),
        ("warning", "warning", "unchanged"),
        ("warning", "critical", "worse"),
        ("critical", "warning", "better"),
    ],
)
def test_change_since_the_run_before(before, now, change):
    earlier = run_with(*([finding("a.a", before, "x", "s")] if before else []))
    made = report(run_with(finding("a.a", now, "x", "s")), earlier)
    assert (made.findings[0].change, made.counts["changes"][change]) == (change, 1)


def test_fixed_means_looked_at_again_and_ok():
    earlier = run_with(finding("a.fixed", "warning", "x", "s"), finding("a.gone", "warning", "x", "s"))
    made = report(run_with(finding("a.fixed", "ok", "x", "s")), earlier)
    assert ([f.id for f in made.fixed], [f.id for f in made.gone]) == (["a.fixed"], ["a.gone"])


def test_without_an_earlier_run_nothing_is_called_new():
    made = report(run_with(finding("a.a", "warning", "x", "s")))
    assert made.findings[0].change == ""
    assert made.notices[-1].title == "First run"


def test_the_same_id_on_another_subject_is_another_finding():
    made = report(run_with(finding("a.a", "warning", "x", "s")), run_with(finding("a.a", "warning", "y", "s")))
    assert (made.findings[0].change, made.gone[0].subject) == ("new", "y")


# checklist: ticked by evidence only


def test_an_item_is_ticked_when_all_it_names_was_seen_and_is_ok():
    assert item(run_with(finding("a.one", "ok", "x", "s"), **automated("a.*")), "x").ticked


@pytest.mark.parametrize("state", ["unknown", "warning", "critical"])
def test_one_finding_that_is_not_ok_keeps_an_item_open(state):
    found = item(run_with(finding("a.one", "ok", "x", "s"), finding("a.two", state, "x", "bad"), **automated("a.*")), "x")
    assert (found.ticked, found.state) == (False, "failed")
    assert f"a.two on web1 is {state}: bad" in found.reason


def test_no_evidence_is_no_tick():
    found = item(run_with(finding("a.one", "ok", "x", "s"), **automated("a.one", "b.two")), "x")
    assert (found.ticked, found.state, found.reason) == (False, "missing", "no evidence: nothing reported b.two")


def test_an_item_without_patterns_is_never_ticked():
    assert item(run_with(finding("a.one", "ok", "x", "s"), **automated()), "x").state == "missing"


def test_a_waived_finding_does_not_tick_an_item():
    found = item(run_with(finding("a.one", "warning", "x", "s", waived=WAIVER), **automated("a.one")), "x")
    assert (found.ticked, found.state) == (False, "waived")


@pytest.mark.parametrize("status", ["failed", "skipped", "due", "deferred"])
def test_an_operation_that_was_not_done_does_not_tick_an_item(status):
    run = SampleRun().opened().plan("shop", ["web1"], **automated("snapshot"))
    run.record("shop", "web1", "ops.maintenance.snapshot", "snapshot", status=status)
    found = item(run.outcome("shop", "web1").ended(), "x")
    assert not found.ticked
    assert "snapshot on web1" in found.reason


def test_what_an_operation_found_counts_for_its_item():
    run = SampleRun().opened().plan("shop", ["web1"], **automated("verify"))
    run.record("shop", "web1", "r", "verify", findings=[finding("backup.age", "critical", "daily", "too old")])
    assert item(run.outcome("shop", "web1").ended(), "x").state == "failed"


@pytest.mark.parametrize("outcome", ["unreachable", "not_attempted", "refused"])
def test_a_host_that_was_left_out_keeps_an_item_open(outcome):
    run = SampleRun().opened().plan("shop", ["web1", "web2"], **automated("a.one"))
    run.record("shop", "web1", "r", "op", findings=[finding("a.one", "ok", "x", "s")]).outcome("shop", "web1")
    found = item(run.outcome("shop", "web2", outcome).ended("failed"), "x")
    assert (found.ticked, found.reason) == (False, "no evidence from web2")


def test_evidence_of_another_system_does_not_tick_an_item():
    run = SampleRun().opened().plan("shop", ["web1"], **automated("a.one")).plan("mail", ["mx1"], checklist=[])
    run.record("mail", "mx1", "r", "op", findings=[finding("a.one", "ok", "x", "s")])
    assert item(run.outcome("shop", "web1").outcome("mail", "mx1").ended(), "x").state == "missing"


def test_an_attestation_is_ticked_by_a_signature_only():
    plan = automated("a.one", kind="attestation")
    run = run_with(finding("a.one", "ok", "x", "s"), **plan)
    assert item(run, "x").state == "open"
    found = item(run.signed("x", "Mara Lindt", "shop", "by mail"), "x")
    assert (found.ticked, found.signed_by, found.note) == (True, "Mara Lindt", "by mail")
    assert found.signed_at.startswith("2026-11-21T08:00")


def test_a_signature_for_another_system_or_without_a_name_signs_nothing():
    run = run_with(**automated(kind="attestation")).signed("x", "Mara Lindt", "mail").signed("x", "  ")
    assert item(run, "x").state == "open"


# the fields of a maintenance report and a maintenance log


def test_six_activities_are_listed_and_ticked_from_the_task_result():
    run = SampleRun().opened().plan("shop", ["web1"])
    run.record("shop", "web1", "ops.maintenance.patching", "package_updates_verify", status="changed")
    run.record("shop", "web1", "ops.maintenance.database_maintenance", "sqlite_upkeep", status="failed")
    run.record("shop", "web1", "ops.maintenance.log_rotation", "log_analysis", status="skipped")
    run.record("shop", "web1", "ops.maintenance.security_review", "security_review", findings=[finding("a.a", "critical", "x", "s")])
    states = {a.text: a.state for a in report(run.outcome("shop", "web1").ended()).activities}
    assert states == {
        "System updates and security patches": "done",
        "Database maintenance and optimization": "failed",
        "Log analysis and cleanup": "not_done",
        "Performance analysis": "missing",
        "Security review": "done",
        "Backup verification": "missing",
    }


def test_an_activity_is_not_ticked_while_a_host_has_no_record_of_it():
    run = SampleRun().opened().plan("shop", ["web1", "web2"])
    run.record("shop", "web1", "ops.maintenance.patching", "package_updates_verify")
    first = report(run.outcome("shop", "web1").outcome("shop", "web2", "failed").ended("failed")).activities[0]
    assert (first.ticked, first.reason) == (False, "no record of it from web2")


def test_an_activity_with_deferred_work_is_not_ticked():
    run = SampleRun().opened().plan("shop", ["web1"])
    reboot = action("kernel", "reboot", "deferred", "no time left")
    run.record("shop", "web1", "ops.maintenance.patching", "package_updates_verify", status="changed", actions=[reboot])
    made = report(run.outcome("shop", "web1").ended())
    assert made.activities[0].state == "not_done"
    assert made.systems[0].special_activities[0] == "deferred from this run: reboot: kernel (web1)"


def test_downtime_is_what_was_measured_not_the_length_of_the_run():
    run = SampleRun().opened().plan("shop", ["web1", "web2"])
    run.record("shop", "web1", "r", "op", took=3600).record("shop", "web2", "r", "op", took=60)
    window = (
        report(run.outcome("shop", "web1", downtime_seconds=12.5).outcome("shop", "web2", downtime_seconds=40).ended()).systems[0].window
    )
    assert (window.duration_seconds, window.downtime_seconds, window.downtime_note) == (3660, 40, "longest of 2 hosts: web2")


def test_downtime_that_nobody_measured_is_not_zero():
    run = SampleRun().opened().plan("shop", ["web1"]).record("shop", "web1", "r", "op")
    window = report(run.outcome("shop", "web1", downtime_seconds=None).ended()).systems[0].window
    assert (window.downtime_seconds, window.downtime_note) == (None, "not measured")


def test_performed_by_is_a_persons_sign_off_not_the_automation_account():
    run = run_with()
    assert report(run).log.performed_by == "open (named at the start: Mara Lindt; not signed)"
    made = report(run.signed("performed_by", "Mara Lindt"))
    assert made.log.performed_by == "Mara Lindt, signed 2026-11-21 08:00 UTC"
    assert made.log.verified_by == "open"


def test_verified_by_has_to_be_another_person():
    run = run_with().signed("performed_by", "Mara Lindt").signed("verified_by", "mara lindt")
    assert report(run).log.verified_by.startswith("open (mara lindt signed")
    assert report(run.signed("verified_by", "Jonas Weber")).log.verified_by.startswith("Jonas Weber, signed")


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (SampleRun().opened(), "Routine"),
        (SampleRun(cadence="emergency").opened(), "Emergency"),
        (SampleRun().opened(options={"tags": ["patching"]}), "Security"),
        (SampleRun().opened(options={"tags": ["patching", "log_rotation"]}), "Routine"),
        (SampleRun().opened(options={"type": "emergency"}), "Emergency"),
    ],
)
def test_type_of_maintenance(run, kind):
    assert report(run.ended()).log.type == kind


@pytest.mark.parametrize(("outcome", "answer"), [("completed", "No"), ("rolled_back", "Yes (web1)"), ("unreachable", "Not known")])
def test_rollback_required(outcome, answer):
    required = {"completed": False, "rolled_back": True, "unreachable": None}[outcome]
    run = SampleRun().opened().plan("shop", ["web1"]).outcome("shop", "web1", outcome, rollback_required=required)
    assert report(run.ended("failed")).log.rollback_required == answer


def test_recommendations_are_proposals_until_a_person_approves_them():
    run = run_with(finding("a.a", "warning", "x", "s", advice="Do it."), finding("a.a", "warning", "y", "s", advice="Do it."))
    made = report(run)
    assert ([r.text for r in made.recommendations], made.recommendations_approved) == (["Do it."], "")
    assert report(run.signed("recommendations", "Mara Lindt")).recommendations_approved.startswith("Mara Lindt")


def test_key_metrics_and_what_nobody_measured():
    run = SampleRun().opened().plan("shop", ["web1"])
    run.record(
        "shop",
        "web1",
        "r",
        "op",
        metrics=[metric("sqlite.size_bytes", "a.db", 1024**2, "bytes"), metric("sqlite.size_bytes", "b.db", 1024**2, "bytes")],
    )
    values = {m.title: m.value for m in report(run.outcome("shop", "web1").ended()).metrics}
    assert values == {
        "Database size": "2.0 MiB",
        "Average CPU usage": "not measured",
        "Average memory usage": "not measured",
        "Error count": "not measured",
    }


@pytest.mark.parametrize("name", ["logs.errors", "logs.errors_in_span"])
def test_the_error_count_is_told_of_new_lines_and_of_a_span(name):
    run = SampleRun().opened().plan("shop", ["web1"])
    run.record("shop", "web1", "r", "op", metrics=[metric(name, "app", 3, "count"), metric(name, "web", 4, "count")])
    [told] = [one for one in report(run.outcome("shop", "web1").ended()).metrics if one.title == "Error count"]
    assert (told.value, told.source) == ("7", name)


# interrupted, running, broken chain, check mode


def test_a_run_without_an_end_is_interrupted_and_names_its_last_record():
    run = weekly()
    run.lines = run.lines[:15]
    made = report(run)
    assert (made.run.state, made.verdict, made.log.status) == ("interrupted", "critical", "Failed")
    notice = made.notices[0]
    assert notice.level == "critical"
    assert "The last record is preflight on fossa-app2" in notice.text
    assert {h.host: h.verdict for h in made.hosts}["fossa-app2"] != "ok"
    assert made.run.finished == ""


def test_the_run_that_writes_the_report_is_not_interrupted():
    run = weekly(faulty=False)
    run.lines = run.lines[:-2]  # no end, and no outcome of the last host
    made = report(run, running=True)
    assert (made.run.state, made.verdict, made.log.status) == ("running", "ok", "In progress")


@pytest.mark.parametrize(("outcome", "state", "status"), [("completed", "completed", "Success"), ("rolled_back", "failed", "Failed")])
def test_the_work_is_over_once_every_planned_host_has_its_outcome(outcome, state, status):
    run = weekly(faulty=False)
    run.lines = run.lines[:-2]
    made = report(run.outcome("fossawork", "fossa-app2", outcome), running=True)
    assert (made.run.state, made.log.status) == (state, status)
    assert made.run.finished
    assert "interrupted" not in [notice.title for notice in made.notices]


def test_a_signature_after_the_end_does_not_open_the_run_again():
    assert report(weekly(faulty=False).signed("verified_by", "Jonas Weber")).run.state == "completed"


def test_a_broken_chain_is_a_loud_notice_and_critical():
    made = report(weekly(faulty=False), chain_fault="Line 7 does not fit.")
    assert (made.verdict, made.run.chain, made.notices[0].level) == ("critical", "broken", "critical")


def test_a_chain_nobody_checked_is_not_called_intact():
    made = report(weekly(faulty=False), chain_fault=None)
    assert (made.verdict, made.run.chain) == ("unknown", "unchecked")


def test_faults_of_the_inventory_are_shown():
    run = SampleRun().opened().plan("shop", ["web1"], faults=["x_y is not an option of any role."]).outcome("shop", "web1", "refused")
    made = report(run.ended("failed"))
    assert (made.systems[0].verdict, made.notices[0].text) == ("critical", "x_y is not an option of any role.")


def test_an_overrun_and_a_forced_window_are_notices():
    begin = START - timedelta(hours=5)
    window = {
        "start": begin.isoformat(),
        "end": (begin + timedelta(hours=4)).isoformat(),
        "timezone": "UTC",
        "forced": True,
        "reason": "fix",
    }
    titles = [n.title for n in report(run_with(window=window)).notices]
    assert titles[:2] == ["Shop was maintained with its window overridden", "Shop exceeded its window"]


# durations and trends


def test_steps_are_held_against_their_budgets():
    run = SampleRun().opened().plan("shop", ["web1", "web2"], budgets={"patching": 100})
    for host, took in (("web1", 90), ("web2", 130)):
        run.record("shop", host, "ops.maintenance.patching", "package_updates_verify", took=took).outcome("shop", host)
    step = report(run.ended()).steps[0]
    assert (step.role, step.hosts, step.longest_host, step.longest_seconds, step.budget_seconds, step.state) == (
        "patching",
        2,
        "web2",
        130,
        100,
        "over",
    )


def test_a_step_that_has_two_parts_does_not_count_what_lies_between():
    run = SampleRun().opened().plan("shop", ["web1"])
    for role, took in (("patching", 10), ("snapshot", 500), ("patching", 20)):
        run.record("shop", "web1", role, "op", took=took)
    assert {s.role: s.longest_seconds for s in report(run.outcome("shop", "web1").ended()).steps} == {"patching": 30, "snapshot": 500}


def test_metrics_are_followed_over_the_runs():
    runs = [weekly(False, week) for week in range(4)]
    history = [point for run in runs[:-1] for point in points_of(sort_lines(run.lines), detail=True)]
    series = next(s for s in report(runs[-1], history=history).series if s.name == "sqlite.rows" and s.subject == "work_orders")
    assert [p.mean for p in series.points] == [120_000, 120_810, 121_620, 122_430]
    assert series.host == "fossa-app1"


def test_metrics_of_a_fleet_are_summed_up():
    run = weekly(False, hosts=tuple(f"web{n}" for n in range(8)))
    series = [s for s in report(run).series if s.name == "host.disk_percent"]
    assert [(s.host, s.points[0].count) for s in series] == [("", 8)]


def test_a_span_lists_its_runs():
    past = past_run(report(weekly()))
    assert (past.verdict, past.hosts, past.findings["critical"], past.downtime_seconds) == ("critical", {"completed": 2}, 5, 41.5)


# damaged lines

_NAMES = st.sampled_from(["id", "state", "name", "value", "text", "subject", "start"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=8) | st.sampled_from(["ok", "critical", "run", "2026-11-21T02:00:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damaged_line_still_gives_a_report_in_all_formats(data):
    run = weekly(hosts=("web1",))
    line = data.draw(st.sampled_from(run.lines))
    for name in data.draw(st.lists(st.sampled_from(sorted(set(line) - {"kind"})), min_size=1, max_size=3)):
        line[name] = data.draw(_JSON)
    made = report(run)
    assert report_html.render(made).startswith("<!doctype html>")
    assert "## Maintenance log" in report_markdown.render(made)
    json.loads(report_json.render(made))


def test_an_empty_journal_gives_a_report_that_calls_nothing_healthy():
    made = build([], generated=NOW)
    assert (made.run.state, made.verdict, made.log.status) == ("interrupted", "critical", "Failed")
    assert "no task had reported yet" in report_html.render(made)


def test_what_was_due_and_then_done_is_told_once():
    run = SampleRun().opened().plan("shop", ["web1"])
    for status in ("due", "changed"):
        parts = [action("db", "vacuum", status, "free pages")]
        run.record("shop", "web1", "ops.maintenance.database_maintenance", "sqlite_upkeep", status=status, actions=parts)
    made = report(run.outcome("shop", "web1").ended())
    assert [done.status for done in made.actions] == ["changed"]
    [activity] = [one for one in made.activities if one.text.startswith("Database")]
    assert activity.state == "done"
