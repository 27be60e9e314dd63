# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of ansible-playbook, with and without a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("project", Path(__file__).with_name("project.py"))
_project = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_project)

WEEKLY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Open | Plan
      ops.maintenance.hand_over:
        maintenance_lines: [{kind: plan, system: s, hosts: [here, also, there], window: {end: "2999-01-01T00:00:00+00:00"}}]
- hosts: all
  gather_facts: false
  ignore_unreachable: true
  roles: [ops.maintenance.patching, ops.maintenance.verifying]
"""
PATCHING = """
- name: Assess | Look
  ops.maintenance.probe: {subject: /, sleep: 1.5, state: "{{ 'critical' if inventory_hostname == 'here' else 'ok' }}",
                          summary: "the newest backup of the database does not pass its own integrity check at all"}
- name: Apply | Break one
  ansible.builtin.command: /bin/ls /no/such/folder
  when: inventory_hostname == 'also'
"""
VERIFYING = """
- name: Verify | Warn
  ops.maintenance.hand_over: {warnings: [Ansible says something in the middle]}
- name: Verify | Say
  ansible.builtin.debug: {msg: "a message for people"}
- name: Verify | Look
  ops.maintenance.probe: {subject: y}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = _project.Project(tmp_path_factory.mktemp("progress"))
    made.write("weekly.yml", WEEKLY)
    made.role(PATCHING, "patching")
    made.role(VERIFYING, "verifying")
    made.write(
        "inventory/hosts", "here ansible_connection=local\nalso ansible_connection=local\nthere ansible_host=127.0.0.1 ansible_port=1\n"
    )
    return made


@pytest.fixture(scope="module")
def plain(project):
    return project.run("weekly.yml", ANSIBLE_STDOUT_CALLBACK="ops.maintenance.progress", TERM="xterm")


def on_a_terminal(project, columns=80, **env):
    """Run with a terminal of so many columns; return every byte it got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    full = project.env(ANSIBLE_STDOUT_CALLBACK="ops.maintenance.progress", TERM="xterm", **env)
    full.pop("COLUMNS", None)
    process = subprocess.Popen(project.command("weekly.yml"), cwd=project.root, env=full, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux raises EIO when the last writer is gone
        while chunk := os.read(ours, 65536):
            seen += chunk
    os.close(ours)
    process.wait(60)
    return seen.decode()


@pytest.fixture(scope="module")
def live(project):
    return on_a_terminal(project, NO_COLOR="1")


def test_without_a_terminal_each_step_is_one_plain_line(plain):
    assert "\x1b" not in plain.stdout
    assert "\r" not in plain.stdout
    steps = [line for line in plain.stdout.splitlines() if re.match(r" +\d+:\d\d  ", line)]
    assert [line.split(maxsplit=1)[1].split("  ")[0] for line in steps] == ["patching (assess, apply)", "verifying (verify)"]
    assert steps[0].endswith("0 ok, 1 attention, 2 failed")


def test_failures_and_findings_are_full_sentences_within_80_columns(plain):
    lines = plain.stdout.splitlines()
    text = " ".join(plain.stdout.split())
    assert all(len(line) < 80 for line in lines if "Journal:" not in line), plain.stdout
    assert "Critical on here (probe.state): the newest backup of the database does not pass its own integrity check at all. Look." in text
    assert "also failed in patching, Apply | Break one: non-zero return code: /bin/ls: cannot access" in text
    assert text.count("there cannot be reached:") == 1
    assert re.search(r"Ended after 0:\d\d: 3 hosts, 0 ok, 1 attention, 2 failed\. Failed: also, there\.", text)


def test_the_run_is_named_at_the_start_and_the_journal_at_the_end(plain, project):
    lines = plain.stdout.splitlines()
    assert lines[0].startswith("Run weekly-")
    assert lines[-1].startswith(f"Journal: {project.journals}/weekly-")


def test_messages_and_warnings_are_still_shown(plain):
    assert "a message for people" in plain.stdout
    assert "Ansible says something in the middle" in plain.stderr


def test_on_a_terminal_one_line_is_kept_current(live):
    drawn = re.findall(r"\r([^\r\n\x1b]+)\x1b\[K", live)
    assert len({line for line in drawn if line.startswith("patching: assess")}) >= 2, "it moves while a task runs"
    assert any("of window left" in line for line in drawn)
    assert all(len(line) < 80 for line in drawn)


def test_on_a_terminal_nothing_is_printed_into_the_live_line(live):
    """What stays on the screen: take away each line that was erased, and look for its remains."""
    stays = re.sub(r"\r[^\r\n\x1b]*\x1b\[K(?=\r)", "", live)
    assert "of window left" not in stays
    for whole in ("Run weekly-", "Critical on here", "[WARNING]: Ansible says", "a message for people", "Ended after"):
        assert re.search(rf"(^|\n|\r\x1b\[K){re.escape(whole)}", stays), whole


def test_no_color_means_none(live):
    assert set(re.findall(r"\x1b\[[0-9;]*[A-Za-z]", live)) == {"\x1b[K"}


def test_colours_are_there_otherwise(project):
    assert re.search(r"\x1b\[[0-9;]*31m", on_a_terminal(project))


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"OPS_MAINTENANCE_PROGRESS_LIVE": "never"}])
def test_a_terminal_that_cannot_or_shall_not_gets_plain_lines(project, env):
    full = project.env(**{"ANSIBLE_STDOUT_CALLBACK": "ops.maintenance.progress", "NO_COLOR": "1", "TERM": "xterm", **env})
    ours, theirs = pty.openpty()
    command = project.command("weekly.yml", options=("--limit", "localhost,here"))
    with subprocess.Popen(command, cwd=project.root, env=full, stdout=theirs, stderr=theirs) as process:
        process.wait(60)
    seen = os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert b"\x1b" not in seen
    assert b"Ended after" in seen


def test_a_terminal_of_40_columns_gets_lines_that_fit(project):
    seen = on_a_terminal(project, 40, NO_COLOR="1")
    shown = [line for line in re.split(r"[\r\n]|\x1b\[K", seen) if "/" not in line and "WARNING" not in line]
    assert [line for line in shown if len(line) > 60] == []
    assert all(len(line) < 40 for line in re.findall(r"\r([^\r\n\x1b]+)\x1b\[K", seen))
