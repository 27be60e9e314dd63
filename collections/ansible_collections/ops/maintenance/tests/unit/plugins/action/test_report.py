# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of ansible-playbook that write reports and signatures; nothing of Ansible is replaced."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import read_journal
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store
from ansible_collections.ops.maintenance.tests.unit.plugins.plugin_utils.sample_runs import weekly


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Project = _load("project", Path(__file__).parents[1] / "callback" / "project.py").Project

CYCLE = """
- hosts: here
  gather_facts: false
  tasks:
    - ops.maintenance.hand_over:
        maintenance_lines:
          - {kind: plan, system: shop, hosts: [here]}
          - {kind: outcome, host: here, outcome: completed, downtime_seconds: 1.5, rollback_required: false}
    - ops.maintenance.probe:
    - ops.maintenance.report:
        folder: "{{ playbook_dir }}/reports"
"""
REPORT = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ops.maintenance.report:
        folder: "{{ playbook_dir }}/reports"
        formats: [json]
"""
SIGN = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ops.maintenance.sign:
        duty: "{{ duty | default('verified_by') }}"
        signed_by: Jonas Weber
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("project"))
    made.write("cycle.yml", CYCLE)
    made.write("report.yml", REPORT)
    made.write("sign.yml", SIGN)
    return made


@pytest.fixture
def journal(project):
    """The journal of a finished run, the only one there."""
    for path in project.journals.glob("*"):
        path.unlink()
    project.journals.mkdir(parents=True, exist_ok=True)
    return weekly().write(project.journals)


def latest(project):
    return json.loads((project.root / "reports" / "latest.json").read_text(encoding="utf-8"))


def test_a_run_that_reports_itself_is_not_called_interrupted(project):
    done = project.run("cycle.yml")
    assert done.returncode == 0, done.stdout
    assert "Report: " in done.stdout
    made = latest(project)
    assert (made["run"]["state"], made["verdict"], made["log"]["status"]) == ("completed", "ok", "Success")
    assert "interrupted" not in (project.root / "reports" / "latest.html").read_text(encoding="utf-8")


def test_a_report_in_check_mode_is_written_and_changes_nothing(project, journal):
    done = project.run("report.yml", options=("--check",))
    assert "changed=0" in done.stdout
    made = latest(project)
    assert (made["run"]["run_id"], made["run"]["state"], made["verdict"]) == (journal.stem, "completed", "critical")
    own = next(path for path in project.journal_files() if path.stem.startswith("report-"))
    record = next(line for line in read_journal(str(own)).lines if line["kind"] == "record")
    assert (record["operation"], record["status"], record["after"]["verdict"]) == ("report", "ok", "critical")


def test_without_any_journal_the_error_says_what_to_do(project, journal):
    journal.unlink()
    done = project.run("report.yml")
    assert done.returncode == 2
    assert "There is no journal of a maintenance run in" in done.stdout + done.stderr


def test_a_signature_changes_once_and_reaches_journal_and_store(project, journal):
    with Store(f"sqlite:///{project.journals}/store.sqlite") as store:
        store.save_run(read_journal(str(journal)).lines)
    before = journal.read_bytes()
    assert "changed=1" in project.run("sign.yml", options=("--check",)).stdout
    assert journal.read_bytes() == before
    assert "changed=1" in project.run("sign.yml").stdout
    assert "changed=0" in project.run("sign.yml").stdout
    signed = read_journal(str(journal))
    assert (signed.broken_at, [line["kind"] for line in signed.lines[-2:]]) == (0, ["end", "signature"])
    with Store(f"sqlite:///{project.journals}/store.sqlite") as store:
        assert store.lines_of(journal.stem)[-1]["signed_by"] == "Jonas Weber"
        assert next(run for run in store.runs() if run["run_id"] == journal.stem)["status"] == "completed"


def test_a_duty_that_the_run_does_not_have_is_refused(project, journal):
    before = journal.read_bytes()
    done = project.run("sign.yml", options=("-e", "duty=party"))
    assert done.returncode == 2
    assert "duty is 'party', expected one of" in done.stdout + done.stderr
    assert journal.read_bytes() == before


EVIDENCE = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ops.maintenance.evidence_bundle:
        folder: "{{ playbook_dir }}/reports"
    - ops.maintenance.evidence_bundle:
        verify: "{{ item }}"
      loop: "{{ query('ansible.builtin.fileglob', playbook_dir + '/reports/evidence-*.tar.gz') }}"
"""


def test_the_evidence_of_a_run_is_packed_once_and_proven(project, journal):
    project.write("evidence.yml", EVIDENCE)
    for old in (project.root / "reports").glob("evidence-*"):
        old.unlink()
    assert "changed=0" in project.run("evidence.yml", options=("--check",)).stdout
    assert list((project.root / "reports").glob("evidence-*")) == []
    assert "changed=1" in project.run("evidence.yml").stdout
    [packed] = (project.root / "reports").glob("evidence-*")
    assert (packed.name, packed.stat().st_mode & 0o777) == (f"evidence-{journal.stem}.tar.gz", 0o600)
    assert "changed=0" in project.run("evidence.yml").stdout
    packed.with_name("evidence-other.tar.gz").write_bytes(packed.read_bytes()[:-200])
    done = project.run("evidence.yml")
    assert done.returncode != 0
    assert "cannot be read as an archive" in done.stdout
