# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of ansible-playbook on this machine; nothing of Ansible is replaced."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import read_journal
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store, seconds_of


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_project = _load("project", Path(__file__).with_name("project.py"))
Project, of_kind = _project.Project, _project.of_kind
schema = _load("schema", Path(__file__).parents[1] / "schema.py")

WEEKLY = """
- name: Open
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Open | Plan
      ops.maintenance.hand_over:
        maintenance_lines:
          - {kind: plan, system: shop, hosts: [here, there, never], services: [web]}
          - {kind: signature, duty: read the log, signed_by: N. Name, signed_at: "2026-11-20"}
          - {kind: end, status: completed}
- name: Hosts
  hosts: here
  gather_facts: false
  roles: [ops.maintenance.probed]
- name: Gone
  hosts: there
  gather_facts: false
  ignore_unreachable: true
  tasks:
    - name: Assess | Gone
      ops.maintenance.probe:
- name: Done
  hosts: here
  gather_facts: false
  tasks:
    - name: Leave | Tell
      ops.maintenance.hand_over:
        maintenance_lines: [{kind: outcome, outcome: completed, downtime_seconds: 1.5}]
"""

ROLE = """
- name: Assess | Look
  ops.maintenance.probe: {subject: good}
- name: Apply | Change
  ops.maintenance.probe: {subject: changed, change: true}
  notify: Tell
- name: Assess | Each
  ops.maintenance.probe: {subject: "{{ item }}", change: true}
  loop: [one, two, two]
  notify: Tell
- name: Assess | Some fail
  ops.maintenance.probe: {subject: "{{ item.name }}", fail: "{{ item.name == 'bad' }}"}
  loop: [{name: fine}, {name: bad}]
  loop_control: {label: "{{ item.name }}"}
  ignore_errors: true
- name: Assess | Two records
  ops.maintenance.hand_over:
    maintenance_records:
      - {subject: r1, operation: first, status: ok, summary: s}
      - {subject: r2, operation: second, status: great, summary: s}
- name: Apply | Built in
  ansible.builtin.command: /bin/false
  ignore_errors: true
- name: Rescue
  block:
    - name: Apply | Break
      ansible.builtin.fail: {msg: "broke with password=hunter2 inside"}
  rescue:
    - name: Verify | Put back
      ops.maintenance.probe: {subject: rescued}
- name: Assess | Hidden
  ops.maintenance.probe: {subject: hidden-subject}
  no_log: true
- name: Assess | Secret parameter
  ops.maintenance.probe: {subject: with parameter, password: hunter2, summary: "it said hunter2", before: {api_key: hunter2}}
- name: Assess | Skipped
  ops.maintenance.probe: {subject: never}
  when: false
- name: Assess | Unharmed
  ansible.builtin.command: /bin/true
- name: Assess | In check mode
  ops.maintenance.probe: {subject: checked, change: true}
  check_mode: true
- name: Assess | Unasked word
  ops.maintenance.probe: {nonsense: 1}
  ignore_errors: true
"""

HANDLERS = """
- name: Tell
  ops.maintenance.probe: {subject: handler}
"""

WAIVERS = """
- {id: probe.state, subject: "wa*", owner: N, reason: r, expires: "2999-01-01"}
- {id: probe.state, subject: x, owner: N, reason: r, expires: "2001-01-01"}
- {id: probe.state, subject: x}
- {id: probe.state, subject: nowhere, owner: N, reason: r, expires: "2999-01-01"}
"""


@pytest.fixture(scope="module")
def weekly(tmp_path_factory):
    """One run with everything in it: (project, finished process, journal)."""
    project = Project(tmp_path_factory.mktemp("weekly"))
    project.write("weekly.yml", WEEKLY)
    project.role(ROLE)
    project.write("collections/ansible_collections/ops/maintenance/roles/probed/handlers/main.yml", HANDLERS)
    done = project.run("weekly.yml", options=("--limit", "localhost,here,there", "-e", "maintenance_force_window=test"))
    files = project.journal_files()
    assert len(files) == 1, done.stdout + done.stderr
    return project, done, read_journal(str(files[0]))


def test_every_line_agrees_with_the_schema_and_the_chain_is_whole(weekly):
    done, journal = weekly[1:]
    assert [fault for line in journal.lines for fault in schema.faults(line)] == []
    assert (journal.complete, journal.broken_at) == (True, 0)
    assert {line["kind"] for line in journal.lines} == {"run", "plan", "record", "step", "outcome", "signature", "end"}
    assert "Journal:" not in done.stderr


def test_the_first_line_says_who_did_what_with_what(weekly):
    run = weekly[2].lines[0]
    assert (run["cadence"], run["check_mode"], run["job"]) == ("weekly", False, None)
    assert run["run_id"] == Path(weekly[2].path).stem
    assert run["run_id"].startswith("weekly-2")
    assert run["options"] == {"tags": ["all"], "skip_tags": [], "limit": "localhost,here,there", "force_window": "test"}
    assert run["control"]["pid_started"].isdigit()
    assert run["versions"]["collection"] == "0.1.0"


def test_a_record_is_stamped_with_where_it_comes_from(weekly):
    record = of_kind(weekly[2].lines, "record", subject="good")[0]
    expected = {"host": "here", "system": "shop", "role": "ops.maintenance.probed", "task": "Assess | Look", "phase": "assess"}
    assert {name: record[name] for name in expected} == expected
    assert (record["check_mode"], record["item"], record["status"]) == (False, "", "ok")
    assert record["findings"][0]["id"] == "probe.state"
    assert record["metrics"] == [{"name": "probe.size", "subject": "good", "value": 7, "unit": "bytes"}]


def test_each_item_of_a_loop_is_one_record_even_when_it_notifies_a_handler(weekly):
    items = of_kind(weekly[2].lines, "record", task="Assess | Each")
    assert [(r["item"], r["subject"], r["status"]) for r in items] == [
        ("one", "one", "changed"),
        ("two", "two", "changed"),
        ("two", "two", "changed"),
    ]


def test_an_item_that_fails_keeps_its_own_record(weekly):
    items = of_kind(weekly[2].lines, "record", task="Assess | Some fail")
    assert [(r["item"], r["status"], r.get("handled")) for r in items] == [("fine", "ok", None), ("bad", "failed", "ignored")]


def test_one_task_may_hand_over_several_records_and_a_bad_status_is_failed(weekly):
    found = of_kind(weekly[2].lines, "record", task="Assess | Two records")
    assert [(r["operation"], r["status"]) for r in found] == [("first", "ok"), ("second", "failed")]


def test_a_built_in_task_that_fails_in_a_role_of_the_collection_is_a_record(weekly):
    record = of_kind(weekly[2].lines, "record", task="Apply | Built in")[0]
    assert (record["operation"], record["status"], record["handled"]) == ("command", "failed", "ignored")
    assert record["findings"][0]["state"] == "warning"
    assert "non-zero return code" in record["summary"]


def test_a_failure_that_is_rescued_is_a_record_without_its_secret(weekly):
    record = of_kind(weekly[2].lines, "record", task="Apply | Break")[0]
    assert (record["operation"], record["status"], record["handled"]) == ("fail", "failed", "rescued")
    assert record["summary"] == "broke with password=(redacted) inside"
    assert of_kind(weekly[2].lines, "record", subject="rescued")


def test_arguments_that_a_module_refuses_are_a_record(weekly):
    record = of_kind(weekly[2].lines, "record", task="Assess | Unasked word")[0]
    assert (record["operation"], record["status"]) == ("probe", "failed")
    assert "nonsense" in record["summary"]


def test_what_no_log_hides_is_unknown_and_nothing_of_it_is_kept(weekly):
    record = of_kind(weekly[2].lines, "record", task="Assess | Hidden")[0]
    assert record["findings"][0]["state"] == "unknown"
    assert b"hidden-subject" not in Path(weekly[2].path).read_bytes()


def test_no_secret_is_in_the_journal_or_the_store(weekly):
    project = weekly[0]
    for path in project.journals.iterdir():
        assert b"hunter2" not in path.read_bytes(), path
    assert of_kind(weekly[2].lines, "record", subject="with parameter")[0]["before"] == {"api_key": "(redacted)"}


def test_a_task_in_check_mode_says_so(weekly):
    record = of_kind(weekly[2].lines, "record", subject="checked")[0]
    assert (record["check_mode"], record["status"]) == (True, "due")


def test_handlers_are_recorded_once(weekly):
    assert len(of_kind(weekly[2].lines, "record", subject="handler")) == 1


def test_skipped_and_successful_built_in_tasks_leave_no_record(weekly):
    assert of_kind(weekly[2].lines, "record", task="Assess | Skipped") == []
    assert of_kind(weekly[2].lines, "record", task="Assess | Unharmed") == []


def test_an_unreachable_host_is_a_record_and_an_outcome(weekly):
    record = of_kind(weekly[2].lines, "record", operation="connect")[0]
    assert (record["host"], record["system"], record["findings"][0]["state"]) == ("there", "shop", "unknown")
    assert "Connection refused" in record["summary"]
    outcome = of_kind(weekly[2].lines, "outcome", host="there")[0]
    assert (outcome["outcome"], outcome["services_restored"]) == ("unreachable", None)
    assert "Connection refused" in outcome["reason"]


def test_a_planned_host_that_the_run_never_came_to_is_not_attempted(weekly):
    assert of_kind(weekly[2].lines, "outcome", host="never")[0]["outcome"] == "not_attempted"


def test_an_outcome_that_a_task_handed_over_stands(weekly):
    outcome = of_kind(weekly[2].lines, "outcome", host="here")
    assert [(o["outcome"], o["system"], o["downtime_seconds"]) for o in outcome] == [("completed", "shop", 1.5)]


def test_a_task_cannot_hand_over_the_end(weekly):
    ends = of_kind(weekly[2].lines, "end")
    assert [(e["status"], e["hosts"]) for e in ends] == [("failed", {"completed": 1, "not_attempted": 1, "unreachable": 1})]


def test_the_run_is_in_the_store_as_the_journal_has_it(weekly):
    with Store(f"sqlite:///{weekly[0].journals}/store.sqlite") as store:
        assert [(run["run_id"], run["status"]) for run in store.runs()] == [(weekly[2].run_id, "failed")]
        assert store.lines_of(weekly[2].run_id) == weekly[2].lines
        assert store.runs()[0]["last_hash"] == weekly[2].last_hash


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    made.role("- name: Assess | Look\n  ops.maintenance.probe: {subject: waived, state: warning, sleep: '{{ pause | default(0) }}'}\n")
    made.write("short.yml", "- hosts: here\n  gather_facts: false\n  roles: [ops.maintenance.probed]\n")
    made.write("plain.yml", "- hosts: here\n  gather_facts: false\n  tasks: [{ansible.builtin.fail: {}, ignore_errors: true}]\n")
    return made


def only_journal(project):
    files = project.journal_files()
    assert len(files) == 1
    return read_journal(str(files[0]))


def test_a_playbook_without_the_collection_leaves_nothing(project):
    assert project.run("plain.yml").returncode == 0
    assert not project.journals.exists()


def test_workers_and_lookups_see_the_run(project):
    project.write(
        "see.yml",
        "- hosts: here\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.debug: {msg: \"<{{ lookup('env', 'OPS_MAINTENANCE_RUN_ID') }}|{{ lookup('env', 'OPS_MAINTENANCE_JOURNAL') }}>\"}\n"
        "    - ansible.builtin.command: printenv OPS_MAINTENANCE_RUN_ID\n"
        "    - ops.maintenance.probe:\n",
    )
    said = project.run("see.yml").stdout
    path = project.journal_files()[0]
    assert f"<{path.stem}|{path}>" in said


def test_two_playbooks_of_one_command_are_two_runs(project):
    project.write("other.yml", (project.root / "short.yml").read_text())
    project.run("short.yml", "other.yml", OPS_MAINTENANCE_RUN_ID="given-1")
    assert [path.stem[:6] for path in project.journal_files()] == ["given-", "other-"]


def test_check_mode_is_on_every_line_that_has_it(project):
    project.run("short.yml", options=("--check",))
    lines = only_journal(project).lines
    assert [line["check_mode"] for line in lines if "check_mode" in line] == [True, True]


def test_a_run_id_that_is_set_already_is_used_and_never_twice(project):
    project.run("short.yml", OPS_MAINTENANCE_RUN_ID="mine-1")
    first = (project.journals / "mine-1.jsonl").read_bytes()
    again = project.run("short.yml", OPS_MAINTENANCE_RUN_ID="mine-1")
    assert "was used before" in again.stderr
    assert (project.journals / "mine-1.jsonl").read_bytes() == first
    assert len(project.journal_files()) == 2


def test_a_run_id_that_is_no_file_name_is_warned_of_and_replaced(project):
    done = project.run("short.yml", OPS_MAINTENANCE_RUN_ID="../../outside")
    assert done.returncode == 0
    assert "../../outside" in done.stderr
    assert only_journal(project).run_id.startswith("short-")


def test_waivers_beside_the_inventory_apply_and_bad_ones_are_findings(project):
    project.write("inventory/waivers.yml", WAIVERS)
    project.run("short.yml")
    lines = only_journal(project).lines
    assert [fault for line in lines for fault in schema.faults(line)] == []
    assert [f["id"] for f in of_kind(lines, "record", host="localhost")[0]["findings"]] == ["waiver.expired", "waiver.invalid"]
    waived = of_kind(lines, "record", subject="waived")[0]["findings"][0]
    assert waived["waived"] == {"owner": "N", "reason": "r", "expires": "2999-01-01"}
    assert waived["state"] == "warning"
    (unused,) = of_kind(lines, "record", host="localhost")[-1]["findings"]
    assert (unused["id"], unused["state"], "nowhere" in unused["summary"]) == ("waiver.unused", "ok", True)


def test_without_a_store_url_nothing_is_stored(project):
    project.run("short.yml", OPS_MAINTENANCE_STORE_URL="")
    assert only_journal(project).complete
    assert not (project.journals / "store.sqlite").exists()


@pytest.mark.parametrize(
    "url", ["nonsense://x", "sqlite:////proc/nowhere/x.sqlite", "postgresql://u:hunter2@127.0.0.1:1/x?connect_timeout=1"]
)
def test_a_store_that_does_not_work_is_a_warning_and_never_fails_the_run(project, url):
    done = project.run("short.yml", OPS_MAINTENANCE_STORE_URL=url)
    assert done.returncode == 0
    assert "Journal:" in done.stderr
    assert "hunter2" not in done.stderr
    assert only_journal(project).complete


def test_a_journal_folder_that_cannot_be_used_is_a_warning_and_never_fails_the_run(project):
    project.write("file", "")
    done = project.run("short.yml", OPS_MAINTENANCE_JOURNAL_DIR=str(project.root / "file" / "x"))
    assert done.returncode == 0
    assert "OPS_MAINTENANCE_JOURNAL_DIR" in done.stderr


REPORT = """
import json

def write_reports(journal, folder, store_url=""):
    with open(folder + "/seen", "w") as target:
        json.dump([journal, store_url], target)
    return {"html": folder + "/x.html"}
"""


def test_a_run_without_a_report_gets_one_at_its_end(project):
    project.write("collections/ansible_collections/ops/maintenance/plugins/plugin_utils/report.py", REPORT)
    (project.root / "reports").mkdir()
    done = project.run("short.yml", OPS_MAINTENANCE_REPORT_DIR=str(project.root / "reports"))
    assert "x.html" in done.stdout
    journal, store = json.loads((project.root / "reports" / "seen").read_text())
    assert read_journal(journal).complete
    assert store.endswith("/store.sqlite")


def test_a_run_with_a_report_gets_no_second_one(project):
    project.write("collections/ansible_collections/ops/maintenance/plugins/plugin_utils/report.py", REPORT)
    (project.root / "reports").mkdir()
    project.role("- ops.maintenance.hand_over: {maintenance_record: {operation: report, status: changed, subject: r, summary: s}}\n")
    project.run("short.yml", OPS_MAINTENANCE_REPORT_DIR=str(project.root / "reports"))
    assert not (project.root / "reports" / "seen").exists()


def test_a_report_that_breaks_is_a_warning_and_never_fails_the_run(project):
    project.write("collections/ansible_collections/ops/maintenance/plugins/plugin_utils/report.py", "raise ValueError('broken')\n")
    done = project.run("short.yml", OPS_MAINTENANCE_REPORT_DIR=str(project.root))
    assert done.returncode == 0
    assert "broken" in done.stderr


def test_what_the_journal_could_not_keep_is_told_at_its_end(project):
    project.role("- ops.maintenance.hand_over: {maintenance_records: 5, maintenance_lines: [text, {kind: nonsense}]}\n")
    done = project.run("short.yml")
    assert done.returncode == 0
    assert "Journal:" in done.stderr
    lines = only_journal(project).lines
    assert [line["kind"] for line in lines] == ["run", "step", "record", "end"]
    assert [(f["id"], f["state"]) for f in lines[2]["findings"]] == [("journal.lost", "unknown")]
    assert [fault for line in lines for fault in schema.faults(line)] == []


def test_a_step_counts_what_leaves_no_record_and_each_role_has_its_own(project):
    """Seen with apt: the record of the proof took seven seconds, the installation before it an hour and a half."""
    project.role("- name: Apply | Install\n  ansible.builtin.command: sleep 1.5\n- name: Verify | Prove\n  ops.maintenance.probe:\n")
    project.role("- name: Assess | Look\n  ops.maintenance.probe:\n", "other")
    project.role(
        "- name: Work | Include\n  ansible.builtin.include_role: {name: 'ops.maintenance.{{ item }}'}\n  loop: [probed, other, probed]\n",
        "cycle",
    )
    project.write("short.yml", "- hosts: here\n  gather_facts: false\n  roles: [ops.maintenance.cycle]\n")
    done = project.run("short.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = only_journal(project).lines
    steps = of_kind(lines, "step")
    assert [(line["role"].rpartition(".")[2], line["host"], line["tasks"]) for line in steps] == [
        ("probed", "here", 2),
        ("other", "here", 1),
        ("probed", "here", 2),
    ]
    assert [seconds_of(step) >= limit for step, limit in zip(steps, (1.5, 0, 1.5), strict=True)] == [True] * 3
    assert all(seconds_of(record) < 1 for record in of_kind(lines, "record"))
    # nothing between two steps is lost: what Ansible does to load the next role counts for it
    assert [earlier["finished"] == later["started"] for earlier, later in pairwise(steps)] == [True, True]
    # each step is on disk when the next one has begun, after its own records
    assert [line["kind"] for line in lines] == ["run", "record", "step", "record", "step", "record", "step", "end"]
    assert [fault for line in lines for fault in schema.faults(line)] == []


def test_a_run_whose_hosts_all_fail_is_still_closed(project):
    project.role("- name: Apply | Break\n  ansible.builtin.fail: {msg: it broke}\n")
    assert project.run("short.yml").returncode == 2
    journal = only_journal(project)
    assert (journal.state, journal.lines[-1]["kind"]) == ("failed", "end")
    assert of_kind(journal.lines, "record")[-1]["findings"][0]["state"] == "critical"


def test_a_host_that_was_touched_and_has_no_outcome_counts_as_failed(project):
    project.write(
        "short.yml",
        "- hosts: here\n  gather_facts: false\n  tasks:\n"
        "    - ops.maintenance.hand_over: {maintenance_lines: [{kind: plan, system: s, hosts: [here, there]}]}\n"
        "    - ops.maintenance.probe:\n",
    )
    project.run("short.yml")
    outcomes = {line["host"]: line["outcome"] for line in of_kind(only_journal(project).lines, "outcome")}
    assert outcomes == {"here": "failed", "there": "not_attempted"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_says_interrupted_and_up_to_where(project, how):
    project.role(
        "- name: Assess | First\n  ops.maintenance.probe: {subject: first}\n"
        "- name: Apply | Endless\n  ops.maintenance.probe: {subject: second, sleep: 60}\n"
    )
    with subprocess.Popen(
        project.command("short.yml"),
        cwd=project.root,
        env=project.env(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if project.journal_files() and of_kind(only_journal(project).lines, "record"):
                break
            time.sleep(0.05)
        assert only_journal(project).state == "running"
        process.send_signal(how)
        process.wait(20)
    journal = only_journal(project)
    assert (journal.state, journal.complete, journal.broken_at, journal.torn) == ("interrupted", False, 0, False)
    assert journal.interrupted["where"] == "record ops.maintenance.probed Assess | First on here"
    project.write("next.yml", "- hosts: here\n  gather_facts: false\n  tasks: [{ops.maintenance.probe: }]\n")
    project.run("next.yml")
    with Store(f"sqlite:///{project.journals}/store.sqlite") as store:
        assert {run["cadence"]: run["status"] for run in store.runs()} == {"short": "interrupted", "next": "completed"}
        assert store.lines_of(journal.run_id) == journal.lines


def test_runs_that_missed_the_store_are_kept_by_the_next_but_no_tampered_ones(project):
    for run_id in ("one", "two"):
        project.run("short.yml", OPS_MAINTENANCE_STORE_URL="nonsense://x", OPS_MAINTENANCE_RUN_ID=run_id)
    path = project.journals / "two.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"warning"', b'"ok"', 1))
    done = project.run("short.yml", OPS_MAINTENANCE_RUN_ID="three")
    with Store(f"sqlite:///{project.journals}/store.sqlite") as store:
        assert [run["run_id"] for run in store.runs()] == ["one", "three"]
    assert "two.jsonl is not kept" in " ".join(done.stderr.split())
