# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from ansible_collections.ops.maintenance.plugins.plugin_utils import control


@pytest.fixture
def process():
    running = subprocess.Popen(["sleep", "60"])
    yield running
    running.kill()
    running.wait()


def journal(folder, run_id, pid, pid_started=None, host=None, end=False):
    started = control.process_started(pid) if pid_started is None else pid_started
    first = {"kind": "run", "control": {"host": host or socket.gethostname(), "user": "x", "pid": pid, "pid_started": started}}
    lines = [first, {"kind": "record"}] + [{"kind": "end"}] * end
    (folder / f"{run_id}.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return started


def dead(folder):
    return control.dead_runs(str(folder / "current.jsonl"))


def test_a_run_whose_process_lives_is_not_dead_and_one_that_was_killed_is(tmp_path, process):
    journal(tmp_path, "weekly-1", process.pid)
    assert dead(tmp_path) == []
    process.kill()
    process.wait()
    assert dead(tmp_path) == ["weekly-1"]


def test_a_killed_process_that_nobody_has_waited_for_is_dead_too(tmp_path, process):
    journal(tmp_path, "weekly-1", process.pid)
    os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while dead(tmp_path) != ["weekly-1"]:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_another_process_with_the_same_number_is_not_the_run(tmp_path, process):
    journal(tmp_path, "weekly-1", process.pid, pid_started="1")
    assert dead(tmp_path) == ["weekly-1"]


def test_a_run_in_a_container_that_shares_the_name_of_its_host_cannot_be_judged_from_outside(tmp_path):
    journal(tmp_path, "weekly-1", 2**22 + 1, pid_started="1")
    path = tmp_path / "weekly-1.jsonl"
    assert dead(tmp_path) == ["weekly-1"]
    path.write_text(path.read_text().replace('"user":"x"', f'"user":"x","pid_namespace":"{control.pid_namespace()}"'))
    assert dead(tmp_path) == ["weekly-1"]
    path.write_text(path.read_text().replace(control.pid_namespace(), "pid:[1]"))
    assert dead(tmp_path) == []


def test_a_run_that_ended_is_not_dead(tmp_path):
    journal(tmp_path, "weekly-1", 2**22 + 1, end=True)
    assert dead(tmp_path) == []


def test_nothing_is_known_of_runs_of_another_machine(tmp_path):
    journal(tmp_path, "weekly-1", 2**22 + 1, host="elsewhere")
    assert dead(tmp_path) == []


def test_the_current_run_is_never_dead(tmp_path):
    journal(tmp_path, "current", 2**22 + 1)
    assert dead(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"control": {"host": 1}}\n', b"\xff\xfe\n", b'{"control": null}\n'])
def test_a_file_that_is_no_journal_says_nothing(tmp_path, content):
    (tmp_path / "weekly-1.jsonl").write_bytes(content)
    assert dead(tmp_path) == []


def test_a_folder_among_the_journals_says_nothing(tmp_path):
    (tmp_path / "weekly-1.jsonl").mkdir()
    assert dead(tmp_path) == []


def test_without_a_journal_there_are_no_dead_runs(monkeypatch):
    monkeypatch.delenv(control.RUN_ID, raising=False)
    assert (control.dead_runs(""), control.run_id()) == ([], "")


def test_the_holder_of_a_lock_is_named():
    assert control.holder()["host"] == socket.gethostname()
    assert control.holder()["user"]


def test_when_a_process_started_tells_it_from_others(process):
    assert control.process_started(process.pid).isdigit()
    assert control.process_started(2**22 + 1) == ""
