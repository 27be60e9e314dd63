# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import deadman, undo
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import order, runs, service

pytestmark = pytest.mark.skipif(undo.systemd_is_here(), reason="with systemd the switch is a timer: see molecule/recovery")


@pytest.fixture
def state(tmp_path):
    stopped = {**service(tmp_path, "db", active=False), "was_active": True, "stopped": True}
    state = {"run_id": "weekly-1", "services": [stopped], "timers": [], "cron": [], "page": {}}
    undo.save(str(tmp_path), state)
    yield state
    deadman.disarm(state)


def ended(pid, seconds=60.0):
    """Wait until a process is gone; it is our child, so it has to be reaped."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.02)
    return False


def test_the_switch_brings_the_host_back_at_its_time_and_not_before(tmp_path, state):
    finding = deadman.arm(str(tmp_path), state, time.time() + 1.0)
    time.sleep(0.4)
    assert not runs(tmp_path, "db")
    assert ended(state["deadman"]["pid"])
    assert runs(tmp_path, "db")
    assert undo.load(str(tmp_path), undo.LAST)["left_by"] == "deadman"
    assert "no systemd" in finding.not_covered


def test_it_does_nothing_once_the_host_is_back(tmp_path, state):
    deadman.arm(str(tmp_path), state, time.time() + 1.0)
    undo.bring_back(str(tmp_path), "run")
    (tmp_path / "db.runs").unlink()  # somebody stops it by hand
    assert ended(state["deadman"]["pid"])
    assert order(tmp_path) == ["start db"]
    assert not runs(tmp_path, "db")


def test_it_is_disarmed(tmp_path, state):
    deadman.arm(str(tmp_path), state, time.time() + 600)
    deadman.disarm(state)
    assert ended(state["deadman"]["pid"])


def test_a_number_that_another_process_has_now_is_not_killed(tmp_path, state):
    deadman.disarm({"deadman": {"kind": "process", "pid": os.getpid()}})
    deadman.disarm({"deadman": {"kind": "process", "pid": 2**22 + 1}})


def test_its_program_is_private(tmp_path, state):
    deadman.arm(str(tmp_path), state, time.time() + 600)
    assert (tmp_path / "undo.py").stat().st_mode & 0o777 == 0o700


def test_a_timer_that_an_earlier_run_left_active_is_started_anew_or_nothing_is_stopped(tmp_path, state, monkeypatch):
    """Started only, a timer that has fired once stays ``elapsed`` and never fires again."""
    units, asked, timer = tmp_path / "units", [], {"state": "elapsed"}
    units.mkdir()

    def systemctl(argv):
        asked.append(argv[1])
        if argv[1] == "restart" and "answer" in timer:
            timer["state"] = timer["answer"]
        return subprocess.CompletedProcess(argv, 0, timer["state"] + "\n" if argv[1] == "show" else "", "")

    monkeypatch.setattr(deadman, "UNITS", str(units))
    monkeypatch.setattr(undo, "systemd_is_here", lambda: True)
    monkeypatch.setattr(undo, "run", systemctl)
    with pytest.raises(MaintenanceError, match="is elapsed, expected waiting"):
        deadman.arm(str(tmp_path), state, time.time() + 600)
    assert list(units.iterdir()) == []
    timer["answer"] = "waiting"
    deadman.arm(str(tmp_path), state, time.time() + 600)
    assert asked[-2:] == ["restart", "show"]
    assert len(list(units.iterdir())) == 3
