"""The log roles find each planted fault on the faulty host, keep what they must keep, and find nothing on its clean twin."""

from __future__ import annotations

import pytest
from helpers import findings

testinfra_hosts = ["fossa-faulty"]

PLANTED = [
    ("logs.errors", "errors", "warning"),
    ("logs.unparsed", "errors", "warning"),
    ("logs.unreadable", "errors", "unknown"),
    ("logs.critical", "backend", "warning"),
    ("logs.io_errors", "backend", "critical"),
    ("logs.out_of_memory", "backend", "warning"),
    ("logs.rate_limited", "backend", "warning"),
    ("logs.held", "/logs", "warning"),
    ("logs.damaged", "/logs", "warning"),
    ("logs.name_taken", "/logs", "warning"),
]


@pytest.mark.parametrize(("finding_id", "subject", "state"), PLANTED)
def test_a_planted_fault_arrives(finding_id, subject, state):
    assert [found["state"] for found in findings(finding_id, host="fossa-faulty", subject=subject)] == [state]


@pytest.mark.parametrize(("finding_id", "subject"), [planted[:2] for planted in PLANTED])
def test_the_clean_twin_was_looked_at_and_is_well(finding_id, subject):
    assert [found["state"] for found in findings(finding_id, host="fossa-clean", subject=subject)] == ["ok"]


def test_the_open_log_is_named_and_still_there(host):
    held = findings("logs.held", host="fossa-faulty")[0]
    assert any("planted-open.jsonl" in line and "open for writing" in line for line in held["evidence"])
    assert host.file("/logs/backend/planted-open.jsonl").exists


def test_neither_of_two_logs_of_one_name_was_overwritten(host):
    first = host.check_output("zcat /logs/backend/planted-twice.jsonl.gz")
    second = host.check_output("zcat /logs/backend/planted-twice.2.jsonl.gz")
    assert "first" in first
    assert "second" in second
