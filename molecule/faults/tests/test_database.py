"""What was planted by plant/database.yml arrives as findings, and nothing of it on the clean host."""

from __future__ import annotations

import pytest
from helpers import findings, of_kind

PLANTED = {
    "database.foreign_keys": "critical",
    "database.settings": "warning",
    "snapshot.retention": "warning",
}


@pytest.mark.parametrize("finding_id", PLANTED)
def test_planted_fault_is_found(finding_id):
    assert PLANTED[finding_id] in {found["state"] for found in findings(finding_id, host="fossa-faulty")}


def test_the_half_written_snapshot_is_removed():
    actions = [action for record in of_kind("record", host="fossa-faulty") for action in record["actions"]]
    assert [action for action in actions if action["operation"] == "sweep" and "weekly-planted" in action["subject"]]


def test_a_row_that_refers_to_nothing_does_not_make_the_file_damaged():
    assert {found["state"] for found in findings("database.integrity", host="fossa-faulty")} == {"ok"}


@pytest.mark.parametrize("area", ["database.", "snapshot."])
def test_clean_host_has_no_such_finding(area):
    own = [found for found in findings(host="fossa-clean") if found["id"].startswith(area)]
    assert own, "something was looked at"
    assert [found for found in own if found["state"] != "ok"] == []
