"""What was planted arrives, the twin stays silent, nothing counts twice, and hostile lines stay text."""

from __future__ import annotations

import json

import pytest
from helpers import findings, lines, of_kind, runs

testinfra_hosts = ["logs-faults"]
CHECK, CONVERGE, AGAIN = 0, 1, 2


def of_analysis(name: str, run: int) -> list[dict]:
    records = of_kind("record", runs()[run], host=name, operation="log_analysis")
    return [found for record in records for found in record["findings"]]


def found(finding_id: str, subject: str, run: int = CONVERGE, name: str = "logs-faults") -> dict:
    return next(f for f in of_analysis(name, run) if (f["id"], f["subject"]) == (finding_id, subject))


@pytest.mark.parametrize(
    ("subject", "finding_id", "state", "value"),
    [
        ("application", "logs.errors", "warning", 150),
        ("auth", "logs.brute_force", "warning", 40),
        ("auth", "logs.auth_failures", "ok", 40),
        ("access", "logs.server_errors", "warning", 10.345),
        ("access", "logs.latency", "warning", 4.5),
        ("nginx", "logs.errors", "warning", 10),
        ("nginx", "logs.rate_limited", "warning", 10),
        ("kernel", "logs.out_of_memory", "warning", 2),
        ("kernel", "logs.io_errors", "critical", 1),
        ("worker", "logs.silent", "warning", 72.0),
        ("postgresql", "logs.deadlocks", "warning", 10),
        ("postgresql", "logs.errors", "warning", 10),
        ("postgresql", "logs.out_of_memory", "ok", 0),
        ("uploads", "logs.errors", "warning", 5),
        ("uploads", "logs.unreadable", "unknown", 1),
        ("containers/web", "logs.errors", "warning", 20),
        ("containers/db", "logs.errors", "ok", 0),
        ("journal", "logs.errors", "warning", 1),
    ],
)
def test_planted(subject, finding_id, state, value):
    seen = found(finding_id, subject)
    assert (seen["state"], seen["value"]) == (state, pytest.approx(value, abs=0.2))


def test_the_journal_of_an_old_host_begins_too_late():
    assert found("logs.journal_reach", "journal")["state"] == "unknown"


def test_the_symbolic_link_is_named_and_was_not_read():
    assert "shadow.log is a symbolic link" in found("logs.unreadable", "uploads")["evidence"][0]
    assert "root:" not in json.dumps(lines(runs()[CONVERGE]))


def test_the_address_of_the_brute_force_is_named():
    assert found("logs.brute_force", "auth")["evidence"] == ["40 x from 203.0.113.7"]


@pytest.mark.parametrize("name", ["logs-faults", "logs-twin"])
def test_check_mode_gave_the_same_verdicts(name):
    verdicts = [[(f["id"], f["subject"], f["state"]) for f in findings(host=name, journal=runs()[run])] for run in (CHECK, CONVERGE)]
    assert verdicts[0] == verdicts[1]
    assert {"logs.errors", "logs.retention"} <= {finding_id for finding_id, _subject, _state in verdicts[0]}


@pytest.mark.parametrize("run", [CHECK, CONVERGE, AGAIN])
def test_the_twin_is_silent(run):
    told = findings(host="logs-twin", journal=runs()[run])
    loud = [f"{f['id']} {f['subject']}: {f['summary']} {f['evidence']}" for f in told if f["state"] != "ok"]
    assert loud == []
    assert len(of_analysis("logs-twin", run)) > 80
    assert {"logs.retention", "logs.held", "logs.damaged"} <= {f["id"] for f in told}


def test_the_second_run_read_on_across_the_rotation():
    assert found("logs.errors", "application", AGAIN)["value"] == 1
    new = found("logs.new_patterns", "application", AGAIN)
    assert (new["state"], new["evidence"][0]) == ("warning", "new: Licence server says no")
    assert any(line.startswith("vanished: Timeout after") for line in new["evidence"])
    for subject in ("auth", "access", "kernel", "postgresql", "uploads", "containers/web", "journal"):
        assert found("logs.errors", subject, AGAIN)["value"] == 0, subject


@pytest.mark.parametrize("name", ["logs-faults", "logs-twin"])
def test_counts_of_new_lines_only_add_up(name):
    """The first run has all errors, the second only those since; check mode counts under another name."""

    def errors(run: int, metric: str = "logs.errors") -> float:
        told = of_kind("record", runs()[run], host=name, operation="log_analysis")
        return sum(one["value"] for record in told for one in record["metrics"] if one["name"] == metric)

    assert (errors(CONVERGE) > 0, errors(AGAIN)) == ((True, 1) if name == "logs-faults" else (False, 0))
    assert errors(CHECK) == 0
    assert errors(CHECK, "logs.errors_in_span") == errors(CONVERGE)


def test_hostile_lines_are_text(host):
    report = host.file(host.check_output("ls /srv/reports/logs-*.json")).content_string
    assert json.loads(report)["sources"]
    journal = runs()[CONVERGE].read_text(encoding="utf-8")
    for text in (report, journal, *(json.dumps(f, ensure_ascii=False) for f in findings("logs.errors", journal=runs()[CONVERGE]))):
        assert not any(sign in text for sign in "\x1b\x07\u202e")
    shown = found("logs.errors", "uploads")["evidence"]
    assert any("<script>" in line for line in shown)
    assert all(len(line) <= 200 for line in shown)
