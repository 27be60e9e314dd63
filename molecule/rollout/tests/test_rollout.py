"""A service dies of its update on the second host: the run says which packages did it, and the third host stays as it is."""

from __future__ import annotations

import json

import pytest
import testinfra
from helpers import finding, findings, journal_dir, of_kind

testinfra_hosts = ["rollout-next"]
UPDATED = ("demo-both", "demo-conf", "demo-held", "demo-tls")


def outcome(host: str) -> dict:
    [line] = of_kind("outcome", host=host)
    return line


def test_the_first_host_was_patched_and_the_rollout_went_on():
    assert outcome("rollout-sound")["outcome"] == "completed"
    sound = testinfra.get_host("docker://rollout-sound")
    assert {sound.package(name).version for name in UPDATED} == {"1.1"}
    assert finding("patching.regression", host="rollout-sound")["state"] == "ok"


def test_the_regression_names_the_packages_the_service_and_the_likely_cause():
    found = finding("patching.regression", host="rollout-dies")
    assert found["state"] == "critical"
    assert "demo-both, demo-conf, demo-held, demo-service, demo-tls" in found["summary"]
    assert "demo-service is the likely cause" in found["summary"]
    assert any("demo-service.service" in line for line in found["evidence"])


def test_the_host_did_not_end_well_and_its_outcome_says_why():
    ended = outcome("rollout-dies")
    assert ended["outcome"] == "rolled_back"
    assert "demo-service is the likely cause" in ended["reason"]


def test_its_service_runs_again():
    dies = testinfra.get_host("docker://rollout-dies")
    assert dies.service("demo-service").is_running
    assert dies.package("demo-service").version == "1.0"
    assert dies.package("demo-tls").version == "1.1"  # not to blame, so its fix stays


def test_the_next_host_was_not_attempted():
    ended = outcome("rollout-next")
    assert ended["outcome"] == "not_attempted"
    assert "1 rolled_back" in ended["reason"]
    assert of_kind("record", host="rollout-next") == []
    assert findings(host="rollout-next") == []


@pytest.mark.parametrize("package", [*UPDATED, "demo-service"])
def test_its_packages_are_the_old_ones_although_updates_are_to_be_had(host, package):
    assert host.package(package).version == "1.0"
    newest = "2.0" if package == "demo-both" else "1.1"
    assert f"Inst {package} [1.0] ({newest} " in host.check_output("apt-get --just-print upgrade")


def test_nothing_of_the_run_is_on_it(host):
    assert host.service("demo-service").is_running
    assert not host.file("/var/lib/ops_maintenance").exists


def test_the_report_says_where_it_stopped_and_what_did_it():
    report = (journal_dir().parent / "report/latest.md").read_text(encoding="utf-8")
    assert "demo-service is the likely cause" in report
    assert "rollout-next" in report
    assert "not attempted" in report.lower()
    assert json.loads((journal_dir().parent / "report/latest.json").read_text(encoding="utf-8"))
