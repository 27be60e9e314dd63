"""The security review finds each planted fault on the faulty host, and nothing on its clean twin."""

from __future__ import annotations

import pytest
from helpers import finding, findings, of_kind

PLANTED = [
    ("security.file_mode", "/backend/.env", "critical"),
    ("security.file_mode", "/backend/data", "critical"),
    ("security.world_writable", "/backend", "critical"),
    ("security.certificate_expiry", "/etc/ssl/certs/fossawork.crt", "critical"),
    ("security.failed_logins", "log-ins", "warning"),
    ("security.brute_force", "log-ins", "warning"),
    ("security.success_after_failures", "log-ins", "critical"),
    ("security.root_accounts", "accounts", "critical"),
    ("security.empty_password", "accounts", "critical"),
    ("security.sudo_syntax", "/etc/sudoers", "warning"),
    ("security.sshd", "sshd", "warning"),
    ("security.listening", "ports", "warning"),
]


@pytest.mark.parametrize(("finding_id", "subject", "state"), PLANTED)
def test_a_planted_fault_arrives(finding_id, subject, state):
    found = finding(finding_id, host="fossa-faulty", subject=subject)
    assert found["state"] == state
    assert found["advice"]


@pytest.mark.parametrize(("finding_id", "subject"), [planted[:2] for planted in PLANTED])
def test_the_clean_twin_was_looked_at_and_is_well(finding_id, subject):
    assert finding(finding_id, host="fossa-clean", subject=subject)["state"] == "ok"


def test_the_attacker_is_named():
    found = finding("security.brute_force", host="fossa-faulty")
    assert any("203.0.113.77" in line for line in found["evidence"])


def test_the_clean_twin_has_no_other_security_finding():
    # Pending updates belong to the patching tests.
    bad = [one for one in findings(host="fossa-clean") if one["id"].startswith("security.") and one["state"] != "ok"]
    assert [one for one in bad if one["id"] != "security.pending_updates"] == []


def test_the_attack_starts_the_investigation_and_on_the_clean_twin_nothing_does():
    name = "investigation of failed log-ins"
    assert [one["host"] for one in of_kind("record", operation="site_command", subject=name)] == ["fossa-faulty"]
