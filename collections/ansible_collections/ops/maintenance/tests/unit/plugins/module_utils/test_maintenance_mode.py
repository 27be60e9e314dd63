# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import signal
import socket
import time
from functools import partial

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import maintenance_enter, maintenance_mode, undo
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils import processes
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import (
    crontab_program,
    defaults,
    order,
    runs,
    service,
    tree,
    web,
)


def take(folder, state, check_mode=False, host=None, **more):
    params = {**defaults(maintenance_mode.OPTIONS)}
    params.update(
        state=state, run_id="weekly-1", state_dir=str(folder / "state"), settle_seconds=0.0, holder={"user": "eve", "host": "ctl"}
    )
    return maintenance_mode.run({**params, **more}, check_mode, host or Host())


@pytest.fixture
def services(tmp_path):
    return [service(tmp_path, "db"), service(tmp_path, "api"), service(tmp_path, "old", active=False)]


@pytest.fixture(autouse=True)
def no_switch_is_left_behind(tmp_path):
    yield
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if is_running(tmp_path / "state", pid):
            os.kill(pid, signal.SIGKILL)


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as source:
            return source.read()
    except OSError:
        return ""


def is_running(folder, pid):
    return str(folder) in cmdline(pid)


def finding(outcome, id_):
    return next(found for found in outcome.findings if found.id == id_)


# -- lock ---------------------------------------------------------------------------------------------------------------------


def test_a_free_host_is_locked_for_this_run_with_who_and_since(tmp_path):
    assert take(tmp_path, "locked").returned == {"locked": True}
    held = undo.load(str(tmp_path / "state"), undo.LOCK)
    assert (held["run_id"], held["user"], held["host"]) == ("weekly-1", "eve", "ctl")
    assert time.time() + 3 * 3600 < held["expires"]
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_the_same_run_may_lock_again(tmp_path):
    take(tmp_path, "locked")
    assert take(tmp_path, "locked").returned == {"locked": True}


def test_a_second_run_is_refused_and_told_who_and_since_when(tmp_path):
    take(tmp_path, "locked")
    since = undo.load(str(tmp_path / "state"), undo.LOCK)["since"]
    before = tree(tmp_path)
    outcome = take(tmp_path, "locked", run_id="weekly-2")
    assert outcome.returned["locked"] is False
    assert outcome.returned["reason"] == f"This host is locked by run weekly-1 of eve on ctl since {since}."
    assert "maintenance_break_lock=weekly-1" in finding(outcome, "cycle.locked").advice
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"dead_runs": ["weekly-1"]}, "whose process is gone"),
        ({"break_lock": "weekly-1"}, "which you said is dead"),
    ],
)
def test_the_lock_of_a_dead_run_is_taken_over(tmp_path, given, why):
    take(tmp_path, "locked")
    outcome = take(tmp_path, "locked", run_id="weekly-2", **given)
    assert outcome.returned == {"locked": True}
    assert why in finding(outcome, "cycle.interrupted").summary
    assert undo.load(str(tmp_path / "state"), undo.LOCK)["run_id"] == "weekly-2"


def test_a_lock_past_its_latest_end_is_taken_over(tmp_path):
    take(tmp_path, "locked", deadline=time.time() - 100, grace_seconds=0)
    time.sleep(0.01)
    assert "past its latest end" in finding(take(tmp_path, "locked", run_id="weekly-2"), "cycle.interrupted").summary


def test_breaking_the_lock_of_another_run_than_the_named_one_is_refused(tmp_path):
    take(tmp_path, "locked")
    assert take(tmp_path, "locked", run_id="weekly-2", break_lock="weekly-0").returned["locked"] is False


def test_of_many_runs_at_the_same_moment_one_gets_a_dead_runs_lock(tmp_path):
    take(tmp_path, "locked")

    def grab(number):
        return 0 if take(tmp_path, "locked", run_id=f"other-{number}", dead_runs=["weekly-1"]).returned["locked"] else 3

    children = [processes.start(partial(grab, number)) for number in range(8)]
    assert sorted(processes.end(child) for child in children) == [0] + [3] * 7


def test_check_mode_judges_the_lock_and_takes_none(tmp_path):
    assert take(tmp_path, "locked", check_mode=True).returned == {"locked": True}
    assert list(tmp_path.iterdir()) == []
    take(tmp_path, "locked")
    assert take(tmp_path, "locked", check_mode=True, run_id="weekly-2").returned["locked"] is False


def test_without_a_run_id_nothing_is_locked_and_the_line_to_add_is_named(tmp_path):
    with pytest.raises(InputError, match=r"callbacks_enabled = ops\.maintenance\.journal"):
        take(tmp_path, "locked", run_id="")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_file_ends_in_one_sentence(tmp_path):
    take(tmp_path, "locked")
    (tmp_path / "state" / undo.STATE).write_text("{")
    with pytest.raises(MaintenanceError, match="move it away"):
        take(tmp_path, "locked", run_id="weekly-2", dead_runs=["weekly-1"])


def test_a_state_folder_that_others_can_write_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(MaintenanceError, match="only its owner"):
        take(tmp_path, "locked")


# -- there and back -----------------------------------------------------------------------------------------------------------


def test_services_stop_in_reverse_order_start_in_order_and_exactly_those_that_ran(tmp_path, services):
    outcome = take(tmp_path, "entered", services=services)
    assert outcome.before["services"] == {"db": "active", "api": "active", "old": "stopped"}
    assert order(tmp_path) == ["stop api", "stop db"]
    take(tmp_path, "serving", services=services)
    assert order(tmp_path)[2:] == ["start db", "start api"]
    left = take(tmp_path, "left", services=services)
    assert left.returned["services_restored"] is True
    assert (runs(tmp_path, "db"), runs(tmp_path, "api"), runs(tmp_path, "old")) == (True, True, False)
    assert order(tmp_path)[4:] == [], "what was started to be validated is not started again"


def test_a_service_that_is_kept_running_is_left_alone(tmp_path, services):
    services[0]["keep_running"] = True
    take(tmp_path, "entered", services=services)
    assert order(tmp_path) == ["stop api"]


def test_entering_twice_changes_nothing_the_second_time(tmp_path, services):
    take(tmp_path, "entered", services=services)
    again = take(tmp_path, "entered", services=services)
    assert (again.status, order(tmp_path)) == ("ok", ["stop api", "stop db"])


def test_what_was_started_to_be_validated_can_be_stopped_again_for_the_rollback(tmp_path, services):
    for state in ("entered", "serving", "entered"):
        take(tmp_path, state, services=services)
    assert order(tmp_path)[-2:] == ["stop api", "stop db"]
    take(tmp_path, "left", services=services)
    assert (runs(tmp_path, "db"), runs(tmp_path, "api"), runs(tmp_path, "old")) == (True, True, False)


def test_leaving_without_serving_brings_everything_back_and_counts_the_downtime(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    time.sleep(0.2)
    left = take(tmp_path, "left", services=services)
    assert 0.2 <= left.returned["downtime_seconds"] < 5
    assert not (tmp_path / "state" / undo.LOCK).exists()
    assert take(tmp_path, "left", services=services).returned["services_restored"] is True


def test_leaving_without_having_entered_only_releases_the_lock(tmp_path):
    take(tmp_path, "locked")
    assert take(tmp_path, "left").status == "ok"
    assert not (tmp_path / "state" / undo.LOCK).exists()


def test_leaving_does_not_touch_what_another_run_has(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    take(tmp_path, "left", run_id="weekly-2", services=services)
    assert not runs(tmp_path, "db")
    assert undo.load(str(tmp_path / "state"), undo.LOCK)["run_id"] == "weekly-1"


def test_cron_files_rest_meanwhile(tmp_path, services):
    (tmp_path / "job").write_text("* * * * * root work\n")
    take(tmp_path, "entered", services=services, cron_files=[f"{tmp_path}/job", f"{tmp_path}/missing"])
    [suspended] = [path.name for path in tmp_path.glob("job*")]
    assert "." in suspended, "cron passes over names with a dot"
    take(tmp_path, "left")
    assert (tmp_path / "job").read_text() == "* * * * * root work\n"


def test_the_applications_lines_of_a_users_crontab_rest_meanwhile(tmp_path, services, monkeypatch):
    folder = crontab_program(tmp_path / "bin", monkeypatch)
    before = "# /srv/app/report: by hand\nMAILTO=ops\n5 * * * * /srv/app/report\n\n0 3 * * * /usr/bin/other\n  @daily /srv/app/sync\n"
    (folder / "crontab.app").write_text(before)
    (folder / "crontab.other").write_text("0 1 * * * /srv/app/report\n")
    users = [{"user": "app", "match": "/srv/app/"}, {"user": "other", "match": "nowhere"}, {"user": "nobody", "match": ""}]
    take(tmp_path, "entered", services=services, cron_users=users)
    mark = undo.CRON_MARK
    assert mark.startswith("#"), "cron passes over comments"
    assert (folder / "crontab.app").read_text().splitlines() == [
        "# /srv/app/report: by hand",
        "MAILTO=ops",
        f"{mark}5 * * * * /srv/app/report",
        "",
        "0 3 * * * /usr/bin/other",
        f"{mark}  @daily /srv/app/sync",
    ]
    assert (folder / "crontab.other").read_text() == "0 1 * * * /srv/app/report\n"
    assert not (folder / "crontab.nobody").exists()
    take(tmp_path, "left")
    assert (folder / "crontab.app").read_text() == before


def test_a_problem_on_the_way_back_fails_keeps_the_switch_and_can_be_mended(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    (tmp_path / "db.broken").touch()
    outcome = take(tmp_path, "left")
    assert (outcome.status, finding(outcome, "maintenance_mode.left").state) == ("failed", "critical")
    assert "no licence" in outcome.summary
    assert is_running(tmp_path, undo.load(str(tmp_path / "state"))["deadman"]["pid"])
    assert (tmp_path / "state" / undo.LOCK).exists()
    (tmp_path / "db.broken").unlink()
    assert take(tmp_path, "left").returned["services_restored"] is True


# -- what the record says of each unit ----------------------------------------------------------------------------------------


def done(outcome, *operations):
    """The actions: what was done to what, how it ended, and the state before and after."""
    return [
        (a.operation, a.subject, a.status, a.before.get("state"), a.after.get("state"))
        for a in outcome.actions
        if not operations or a.operation in operations
    ]


def test_each_service_that_was_stopped_and_started_is_an_action_with_its_states(tmp_path, services):
    """The report lists them as the services affected; the one that did not run before was not affected."""
    entered = take(tmp_path, "entered", services=services)
    assert done(entered) == [("stop", "api", "changed", "active", "stopped"), ("stop", "db", "changed", "active", "stopped")]
    served = take(tmp_path, "serving", services=services)
    assert done(served) == [("start", "db", "changed", "stopped", "active"), ("start", "api", "changed", "stopped", "active")]
    left = take(tmp_path, "left", services=services)
    assert done(left) == [], "they ran already"
    assert left.before["services"] == {"db": "active", "api": "active", "old": "stopped"}


def test_leaving_without_serving_tells_what_it_started_and_resumed_once(tmp_path, services):
    (tmp_path / "job").touch()
    entered = take(tmp_path, "entered", services=services, cron_files=[f"{tmp_path}/job"])
    assert done(entered, "suspend") == [("suspend", f"{tmp_path}/job", "changed", None, None)]
    left = take(tmp_path, "left", services=services)
    assert [a[:3] for a in done(left)] == [
        ("start", "db", "changed"),
        ("start", "api", "changed"),
        ("resume", f"{tmp_path}/job", "changed"),
    ]
    assert done(take(tmp_path, "left", services=services)) == []


def test_a_service_that_does_not_start_again_is_a_failed_action(tmp_path, services):
    take(tmp_path, "entered", services=services)
    (tmp_path / "db.broken").touch()
    wanted = [("start", "db", "failed", "stopped", "stopped"), ("start", "api", "changed", "stopped", "active")]
    assert done(take(tmp_path, "serving", services=services)) == wanted
    assert done(take(tmp_path, "left", services=services)) == wanted[:1]


def test_check_mode_names_what_it_would_stop(tmp_path, services):
    outcome = take(tmp_path, "entered", check_mode=True, services=services)
    assert [a[:3] for a in done(outcome)] == [("stop", "api", "due"), ("stop", "db", "due")]
    assert order(tmp_path) == []


def test_what_a_failed_entry_had_stopped_is_told_as_well(tmp_path, services):
    (tmp_path / "db.stuck").touch()
    with pytest.raises(MaintenanceError) as raised:
        take(tmp_path, "entered", services=services)
    assert ("stop", "api", "failed", "active", "active") in done(raised.value.outcome)


def test_what_came_back_by_itself_is_told_by_the_run_that_finds_it(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    with undo.alone(str(tmp_path / "state")):
        undo.bring_back(str(tmp_path / "state"), "deadman")
    assert [a.summary for a in take(tmp_path, "left").actions] == ["started again (deadman)"] * 2


# -- a failed or interrupted entry --------------------------------------------------------------------------------------------


def test_a_service_that_does_not_stop_ends_the_entry_and_everything_runs(tmp_path, services):
    (tmp_path / "db.stuck").touch()
    (tmp_path / "job").touch()
    with pytest.raises(MaintenanceError, match=r"db did not stop: .* Everything is as it was before\."):
        take(tmp_path, "entered", services=services, cron_files=[f"{tmp_path}/job"])
    assert (runs(tmp_path, "db"), runs(tmp_path, "api"), (tmp_path / "job").exists()) == (True, True, True)
    assert undo.load(str(tmp_path / "state")) == {}


def test_an_entry_that_cannot_be_undone_says_so_and_keeps_the_switch(tmp_path, services):
    (tmp_path / "db.stuck").touch()
    (tmp_path / "api.broken").touch()
    with pytest.raises(MaintenanceError, match="could not be brought back: api did not start: no licence"):
        take(tmp_path, "entered", services=services)
    assert is_running(tmp_path, undo.load(str(tmp_path / "state"))["deadman"]["pid"])


def test_a_missing_crontab_program_is_one_sentence_and_everything_runs(tmp_path, services, monkeypatch):
    monkeypatch.setattr(undo, "_PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", os.defpath + ":" + os.path.dirname(os.path.realpath("/bin/sh")))
    if undo.shutil.which("crontab", path=undo.search_path()):
        pytest.skip("this machine has cron")
    with pytest.raises(MaintenanceError, match="Everything is as it was before"):
        take(tmp_path, "entered", services=services, cron_users=[{"user": "app", "match": ""}])
    assert runs(tmp_path, "db")


def enter_and_die(folder, services, cron_files, at):
    """Enter in a process of its own that is killed at its n-th save or command; return whether it lived that long."""
    steps = iter(range(1, 1000))

    def mortal(real):
        def step(*args, **kwargs):
            if next(steps) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return step

    def enter():
        undo.save, undo.run, os.rename = mortal(undo.save), mortal(undo.run), mortal(os.rename)
        take(folder, "entered", services=services, cron_files=cron_files)

    return processes.run(enter) == -signal.SIGKILL


def test_an_entry_killed_at_any_step_is_undone_completely_by_the_next_run(tmp_path):
    killed = 0
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        services = [service(folder, "db"), service(folder, "api"), service(folder, "old", active=False)]
        (folder / "job").write_text("job")
        take(folder, "locked")
        died = enter_and_die(folder, services, [f"{folder}/job"], at)
        killed += died
        outcome = take(folder, "locked", run_id="weekly-2", dead_runs=["weekly-1"])
        assert outcome.returned["locked"], at
        assert (runs(folder, "db"), runs(folder, "api"), runs(folder, "old")) == (True, True, False), f"killed at step {at}"
        assert (folder / "job").read_text() == "job", f"killed at step {at}"
        assert undo.load(str(folder / "state")) == {}
        if not died:
            break
    assert killed > 15


def test_an_entry_killed_half_way_can_be_finished_by_the_same_run_and_undone(tmp_path):
    services = [service(tmp_path, "db"), service(tmp_path, "api")]
    take(tmp_path, "locked")
    assert enter_and_die(tmp_path, services, [], 10)
    assert undo.load(str(tmp_path / "state"))["phase"] == "entering"
    take(tmp_path, "entered", services=services)
    assert (runs(tmp_path, "db"), runs(tmp_path, "api")) == (False, False)
    take(tmp_path, "left")
    assert (runs(tmp_path, "db"), runs(tmp_path, "api")) == (True, True)


def test_an_earlier_run_that_cannot_be_brought_back_stops_the_next_one(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    (tmp_path / "db.broken").touch()
    with pytest.raises(MaintenanceError, match="Run weekly-1 left this host in maintenance mode"):
        take(tmp_path, "locked", run_id="weekly-2", dead_runs=["weekly-1"])
    assert is_running(tmp_path, undo.load(str(tmp_path / "state"))["deadman"]["pid"])
    assert undo.load(str(tmp_path / "state"), undo.LOCK)["run_id"] == "weekly-1"


def test_a_host_that_came_back_by_itself_is_told_once(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    undo.bring_back(str(tmp_path / "state"), "boot")
    assert "power loss or reboot" in finding(take(tmp_path, "locked", run_id="weekly-2"), "cycle.interrupted").summary
    assert take(tmp_path, "locked", run_id="weekly-2").findings == []


def test_a_run_that_wakes_up_late_does_not_enter_a_host_that_the_next_run_has(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    with undo.alone(str(tmp_path / "state")):
        undo.bring_back(str(tmp_path / "state"), "deadman")
    take(tmp_path, "locked", run_id="weekly-2")
    take(tmp_path, "entered", run_id="weekly-2", services=services)
    with pytest.raises(MaintenanceError, match="belongs to run weekly-2"):
        take(tmp_path, "entered", services=services)
    take(tmp_path, "left", run_id="weekly-2")
    assert runs(tmp_path, "db")
    assert runs(tmp_path, "api")


def test_nothing_is_put_back_over_what_was_written_since_the_host_came_back_by_itself(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    with undo.alone(str(tmp_path / "state")):
        undo.bring_back(str(tmp_path / "state"), "deadman")
    with pytest.raises(MaintenanceError, match="has been in use since"):
        take(tmp_path, "entered", services=services)
    assert runs(tmp_path, "db")
    assert finding(take(tmp_path, "left"), "cycle.interrupted").state == "warning"


def test_the_application_can_be_given_back_before_the_lock_and_the_downtime_counts_once(tmp_path, services):
    take(tmp_path, "locked")
    take(tmp_path, "entered", services=services)
    early = take(tmp_path, "left", keep_lock=True)
    assert runs(tmp_path, "db")
    assert undo.load(str(tmp_path / "state"), undo.LOCK)["run_id"] == "weekly-1"
    late = take(tmp_path, "left")
    assert not (tmp_path / "state" / undo.LOCK).exists()
    assert late.returned == early.returned
    assert (len(early.metrics), len(late.metrics)) == (1, 0)


# -- serving ------------------------------------------------------------------------------------------------------------------


def test_a_service_that_does_not_stay_up_is_found_fossa_db_09(tmp_path, services):
    """It starts, is active for a moment, and is gone again: a look right after the start would call it healthy."""
    flapping = service(tmp_path, "db")
    flapping["start"] = ["sh", "-c", f"touch {tmp_path}/db.runs; (sleep 0.3; rm -f {tmp_path}/db.runs) >/dev/null 2>&1 &"]
    take(tmp_path, "entered", services=[flapping])
    outcome = take(tmp_path, "serving", services=[flapping], settle_seconds=1.0)
    assert (outcome.status, finding(outcome, "maintenance_mode.service").state) == ("failed", "critical")
    assert "db does not stay up" in outcome.summary
    flapping["start"] = service(tmp_path, "db")["start"]


SYSTEMCTL = """#!/bin/sh
# a unit that systemd restarts again and again: active at every look
echo "$@" >>"$0.log"
case "$*" in
*NRestarts*) wc -l <"$0.log" ;;
*LoadState*) echo loaded ;;
*ActiveState*) echo active ;;
*is-active*) [ "$(grep -c ^stop "$0.log")" = "$(grep -c ^start "$0.log")" ] ;;
esac
"""


def test_a_restart_loop_that_looks_active_at_every_moment_is_found_fossa_db_09(tmp_path, monkeypatch):
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setattr(undo, "_PATH", f"{tmp_path}:{undo._PATH}")
    unit = {**service(tmp_path, "app.service"), "manager": "systemd"}
    take(tmp_path, "entered", services=[unit])
    outcome = take(tmp_path, "serving", services=[unit])
    assert (outcome.status, "app.service does not stay up" in outcome.summary) == ("failed", True)


def test_the_application_must_answer_before_it_counts_as_started(tmp_path, services):
    with web(lambda _path, number: (200 if number > 2 else 503, {}, b"")) as (url, asked):
        take(tmp_path, "entered", services=services)
        outcome = take(tmp_path, "serving", services=services, ready=[{"url": f"{url}/api/health", "status": [200]}])
    assert (outcome.status, len(asked)) == ("changed", 3)


def test_an_application_that_does_not_become_ready_fails_in_time(tmp_path, services):
    with web(lambda *_: (503, {}, b"")) as (url, _asked):
        take(tmp_path, "entered", services=services)
        started = time.monotonic()
        outcome = take(tmp_path, "serving", services=services, ready=[{"url": url, "status": [200]}], ready_timeout_seconds=1)
    assert outcome.status == "failed"
    assert f"{url} did not become ready within 1 s: answered 503" in outcome.summary
    assert time.monotonic() - started < 10


def test_serving_in_a_run_that_stopped_nothing_starts_nothing(tmp_path, services):
    assert take(tmp_path, "serving", services=services).status == "ok"
    assert order(tmp_path) == []


# -- sessions, check mode, input ----------------------------------------------------------------------------------------------


def test_open_sessions_are_waited_for_and_then_reported(tmp_path, services):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            found = take(tmp_path, "entered", services=services, drain_ports=[port], drain_timeout_seconds=0)
            assert finding(found, "maintenance_mode.sessions").state == "warning"
    take(tmp_path, "left")
    assert finding(take(tmp_path, "entered", services=services, drain_ports=[port]), "maintenance_mode.sessions").state == "ok"


def test_a_session_that_ends_in_time_is_waited_for_before_anything_stops(tmp_path, services):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served = server.accept()[0]
        stopped = []

        class Waiting(Host):
            """The user leaves while the run waits."""

            def sleep(self, _seconds):
                stopped.append(order(tmp_path))
                client.close()
                served.close()

        found = take(tmp_path, "entered", host=Waiting(), services=services, drain_ports=[port], drain_timeout_seconds=60)
    assert stopped == [[]], "it waited once, and before the first service was stopped"
    assert (finding(found, "maintenance_mode.sessions").state, order(tmp_path)) == ("ok", ["stop api", "stop db"])


def test_check_mode_writes_nothing_and_says_what_would_stop(tmp_path, services):
    before = tree(tmp_path)
    assert take(tmp_path, "locked", check_mode=True).returned["locked"]
    entered = take(tmp_path, "entered", check_mode=True, services=services)
    assert (entered.status, entered.summary) == ("due", "would stop db, api")
    for state in ("serving", "left"):
        assert take(tmp_path, state, check_mode=True, services=services).status == "ok"
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "given",
    [
        {"settle_seconds": -1.0},
        {"settle_seconds": float("nan")},
        {"ready_timeout_seconds": -5},
        {"grace_seconds": 10**12},
        {"drain_ports": [0]},
        {"drain_ports": [-80]},
        {"ready": [{"url": "ftp://host/", "status": [200]}]},
        {"ready": [{"url": "http://user:secret@host/", "status": [200]}]},
        {"page": {"url": "not a url", "title": "", "text": "", "retry_after_seconds": 60}},
        {"page": {"url": "http://host/", "title": "", "text": "", "retry_after_seconds": 0}},
    ],
)
def test_bad_values_end_in_one_sentence_before_anything_is_stopped(tmp_path, services, given):
    with pytest.raises(InputError, match="expected") as caught:
        take(tmp_path, "entered", services=services, **given)
    assert "secret" not in str(caught.value)
    assert order(tmp_path) == []


@pytest.mark.parametrize("name", ["", "-.mount", "a b", "x;reboot", "--now", "é"])
def test_names_that_no_service_has_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="the name of a service"):
        take(tmp_path, "entered", services=[{**service(tmp_path, "db"), "name": name}])


@pytest.mark.parametrize("part", ["start", "stop", "status"])
def test_a_command_that_is_not_given_or_not_installed_stops_nothing(tmp_path, services, part):
    with pytest.raises(InputError, match="start, stop and status"):
        take(tmp_path, "entered", services=[{**services[0], part: []}, services[1]])
    with pytest.raises(InputError, match="programs that are installed"):
        take(tmp_path, "entered", services=[{**services[0], part: ["/missing/tool"]}, services[1]])
    assert order(tmp_path) == []


# -- the dead-man switch ------------------------------------------------------------------------------------------------------


def test_the_state_tells_when_and_by_whom_the_host_comes_back(tmp_path, services):
    take(tmp_path, "entered", services=services, return_after_seconds=600)
    state = json.loads((tmp_path / "state" / undo.STATE).read_text())
    assert abs(state["deadman"]["at"] - time.time() - 600) < 10
    assert is_running(tmp_path, state["deadman"]["pid"])
    take(tmp_path, "left")
    time.sleep(0.1)
    assert not is_running(tmp_path, state["deadman"]["pid"])


def test_what_systemd_stops_together_with_a_service_comes_back_with_it(monkeypatch):
    """``systemctl stop`` takes away what requires the unit, and ``start`` does not bring that back."""
    units = {("db.service", "RequiredBy"): "api.service worker.service multi-user.target", ("worker.service", "BoundBy"): "mail.timer"}
    monkeypatch.setattr(maintenance_enter, "shown", lambda unit, kind: units.get((unit["name"], kind), ""))
    declared = [{"name": "db", "manager": "systemd"}, {"name": "api", "manager": "systemd"}, {"name": "x", "manager": "command"}]
    assert [unit["name"] for unit in maintenance_enter._dependents(declared)] == ["worker.service", "mail.timer"]
