# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import undo
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import crontab_program, order, runs, service


@pytest.fixture
def crontab(tmp_path, monkeypatch):
    return crontab_program(tmp_path / "bin", monkeypatch)


def left_by(folder, *services, **more):
    """A state file as entering maintenance mode leaves it."""
    state = {"run_id": "weekly-1", "services": list(services), "timers": [], "cron": [], "page": {}, **more}
    undo.save(str(folder), state)
    return state


def stopped(folder, name):
    return {**service(folder, name, active=False), "was_active": True, "stopped": True}


def test_only_what_was_stopped_is_started_in_the_declared_order(tmp_path):
    never_ran = {**service(tmp_path, "old", active=False), "was_active": False, "stopped": False}
    not_reached = {**service(tmp_path, "web", active=False), "was_active": True, "stopped": False}
    left_by(tmp_path, stopped(tmp_path, "db"), never_ran, not_reached, stopped(tmp_path, "api"))
    assert undo.bring_back(str(tmp_path), "run") == []
    assert order(tmp_path) == ["start db", "start api"]


def test_what_was_undone_is_kept_for_the_report(tmp_path):
    left_by(tmp_path, stopped(tmp_path, "db"))
    undo.bring_back(str(tmp_path), "deadman", 1234.0)
    last = undo.load(str(tmp_path), undo.LAST)
    assert (last["left_by"], last["left_at"], last["problems"]) == ("deadman", 1234.0, [])
    assert undo.load(str(tmp_path)) == {}


def test_a_problem_keeps_the_state_so_that_it_can_be_tried_again(tmp_path):
    (tmp_path / "db.broken").touch()
    left_by(tmp_path, stopped(tmp_path, "db"), stopped(tmp_path, "api"))
    assert undo.bring_back(str(tmp_path), "run") == ["db did not start: no licence"]
    assert runs(tmp_path, "api"), "one service that fails must not keep the others down"
    assert undo.load(str(tmp_path))["problems"] == ["db did not start: no licence"]
    (tmp_path / "db.broken").unlink()
    assert undo.bring_back(str(tmp_path), "next run") == []
    assert runs(tmp_path, "db")


def test_nothing_to_undo_is_no_problem(tmp_path):
    assert undo.bring_back(str(tmp_path), "run") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b'{"run_id": "week', b"[]", b"\xff\xfe"])
def test_a_damaged_state_file_is_never_taken_for_nothing_to_do(tmp_path, content):
    (tmp_path / undo.STATE).write_bytes(content)
    with pytest.raises(undo.DamagedStateError, match=r"see by hand what does not run, then move it away\.$"):
        undo.load(str(tmp_path))


@pytest.mark.parametrize(("by", "remains"), [("run", True), ("next run", True), ("deadman", False), ("boot", False)])
def test_only_who_comes_instead_of_the_run_releases_its_lock(tmp_path, by, remains):
    undo.save(str(tmp_path), {"run_id": "weekly-1"}, undo.LOCK)
    left_by(tmp_path)
    undo.bring_back(str(tmp_path), by)
    assert (tmp_path / undo.LOCK).exists() is remains


def test_the_lock_of_another_run_is_left_alone(tmp_path):
    undo.save(str(tmp_path), {"run_id": "weekly-2"}, undo.LOCK)
    left_by(tmp_path)
    undo.bring_back(str(tmp_path), "deadman")
    assert undo.load(str(tmp_path), undo.LOCK) == {"run_id": "weekly-2"}


def test_a_start_that_leaves_its_output_open_is_not_waited_for(tmp_path):
    started = time.monotonic()
    done = undo.run(["sh", "-c", "sleep 20 & echo $!"], timeout=10)
    os.kill(int(done.stdout), 9)
    assert (done.returncode, time.monotonic() - started < 5) == (0, True)


def test_a_command_that_hangs_or_is_missing_is_a_failure(tmp_path):
    assert undo.run(["sleep", "20"], timeout=0.1).returncode == 127
    assert undo.run([str(tmp_path / "missing")]).returncode == 127


def test_a_suspended_cron_file_comes_back(tmp_path):
    (tmp_path / "job.suspended").write_text("job")
    left_by(tmp_path, cron=[{"kind": "file", "path": f"{tmp_path}/job", "suspended_path": f"{tmp_path}/job.suspended"}])
    assert undo.bring_back(str(tmp_path), "run") == []
    assert (tmp_path / "job").read_text() == "job"


def test_a_cron_file_that_was_made_anew_is_not_overwritten(tmp_path):
    (tmp_path / "job.suspended").write_text("old")
    (tmp_path / "job").write_text("new")
    left_by(tmp_path, cron=[{"kind": "file", "path": f"{tmp_path}/job", "suspended_path": f"{tmp_path}/job.suspended"}])
    [problem] = undo.bring_back(str(tmp_path), "run")
    assert "exists again" in problem
    assert ((tmp_path / "job").read_text(), (tmp_path / "job.suspended").read_text()) == ("new", "old")
    assert undo.load(str(tmp_path))


def test_lines_of_a_users_crontab_come_back_byte_by_byte_and_new_ones_stay(tmp_path, crontab):
    table = crontab / "crontab.app"
    table.write_bytes(b"# by hand\n" + undo.CRON_MARK.encode() + b"5 * * * * report --name=M\xfcller\x0c\n0 3 * * * new\n")
    left_by(tmp_path, cron=[{"kind": "user", "user": "app"}])
    assert undo.bring_back(str(tmp_path), "run") == []
    assert table.read_bytes() == b"# by hand\n5 * * * * report --name=M\xfcller\x0c\n0 3 * * * new\n"


def test_a_crontab_that_is_gone_is_no_problem(tmp_path, crontab):
    left_by(tmp_path, cron=[{"kind": "user", "user": "nobody"}])
    assert undo.bring_back(str(tmp_path), "run") == []


def test_a_page_goes_away_even_when_its_file_is_already_gone(tmp_path):
    page = {"files": [f"{tmp_path}/gone.conf", f"{tmp_path}/there.conf"], "reload": ["touch", f"{tmp_path}/reloaded"]}
    (tmp_path / "there.conf").touch()
    left_by(tmp_path, page=page)
    assert undo.bring_back(str(tmp_path), "run") == []
    assert not (tmp_path / "there.conf").exists()
    assert (tmp_path / "reloaded").exists()


def test_a_web_server_that_does_not_reload_is_a_problem(tmp_path):
    left_by(tmp_path, page={"files": [], "reload": ["false"]})
    assert "did not reload" in undo.bring_back(str(tmp_path), "run")[0]


def program(folder, *argv):
    """The dead-man switch as it runs on the host: the file alone, without the collection."""
    command = [sys.executable, "-I", undo.__file__, "--state-dir", str(folder), *argv]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")


def test_the_program_stands_alone(tmp_path):
    left_by(tmp_path, stopped(tmp_path, "db"))
    done = program(tmp_path, "--by", "deadman")
    assert (done.returncode, done.stderr) == (0, "")
    assert runs(tmp_path, "db")


def test_the_program_says_what_it_could_not_undo(tmp_path):
    (tmp_path / "db.broken").touch()
    left_by(tmp_path, stopped(tmp_path, "db"))
    done = program(tmp_path, "--by", "boot")
    assert (done.returncode, done.stderr) == (1, "db did not start: no licence\n")


def test_a_restart_that_is_expected_undoes_nothing_the_next_one_does(tmp_path):
    left_by(tmp_path, stopped(tmp_path, "db"), reboot_expected=True)
    assert program(tmp_path, "--by", "boot").returncode == 0
    assert not runs(tmp_path, "db")
    assert program(tmp_path, "--by", "boot").returncode == 0
    assert runs(tmp_path, "db")


def test_a_switch_that_outlived_its_run_does_not_touch_the_next_run(tmp_path):
    left_by(tmp_path, stopped(tmp_path, "db"), run_id="weekly-2")
    assert program(tmp_path, "--by", "deadman", "--at", str(time.time() + 0.2), "--run-id", "weekly-1").returncode == 0
    assert not runs(tmp_path, "db")


def test_who_undoes_does_it_alone(tmp_path):
    left_by(tmp_path, stopped(tmp_path, "db"))
    with undo.alone(str(tmp_path)):
        waiting = subprocess.Popen([sys.executable, "-I", undo.__file__, "--state-dir", str(tmp_path)])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        undo.bring_back(str(tmp_path), "run")
    assert waiting.wait(10) == 0
    assert order(tmp_path) == ["start db"]
    assert undo.load(str(tmp_path), undo.LAST)["left_by"] == "run"
