# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import dnf_lock, preflight, preflight_packages
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.paths import write_state
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils import processes
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import defaults, sub_defaults, tree

LIMITS = defaults(preflight.OPTIONS)
NOW = 1_800_000_000.0
WANTED = {"set": "daily", "maximum_age_hours": 26.0, "level": 4}


def run(tmp_path, check_mode=False, **given):
    params = {**LIMITS, "state_dir": str(tmp_path / "state"), "clock": "off", "package_manager": False}
    return preflight.run({**params, **given}, check_mode, Host())


def of(outcome, id_):
    return [found for found in outcome.findings if found.id == id_]


def room(path, **more):
    return [{**sub_defaults(preflight.OPTIONS["room"]["options"]), "factor": 1.0, "files": [], "free_bytes": 0, "path": str(path), **more}]


# -- disks --------------------------------------------------------------------------------------------------------------------


MOUNTS = """\
proc /proc proc rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/sda1 / ext4 rw 0 0
nas:/export /mnt/with\\040blank nfs4 rw 0 0
tank/data /tank/€ zfs rw 0 0
//server/share /srv/share cifs rw 0 0
cgroup2 /sys/fs/cgroup cgroup2 rw 0 0
short line
"""


def test_every_real_mount_counts_network_and_pool_too_and_the_kernels_own_do_not_fossa_pre_09():
    assert list(preflight.mounts(MOUNTS)) == ["/", "/mnt/with blank", "/tank/€", "/srv/share"]


@pytest.mark.parametrize(
    ("used", "inodes", "state"),
    [(84.9, 10.0, "ok"), (85.0, 10.0, "warning"), (95.0, 10.0, "critical"), (20.0, 96.0, "critical"), (0.0, 0.0, "ok")],
)
def test_use_of_space_or_inodes_decides_fossa_pre_09(used, inodes, state):
    assert preflight.judge_disk("/", used, inodes, 1000, LIMITS).state == state


def test_a_full_disk_stops_the_run_it_is_no_lost_line_of_a_loop_fossa_pre_09(tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(f"/dev/sda1 {tmp_path} ext4 rw 0 0\n")
    monkeypatch.setattr(preflight, "MOUNTS", str(tmp_path / "mounts"))
    outcome = run(tmp_path, disk_warning_percent=0.0, disk_critical_percent=0.0)
    assert [found.state for found in of(outcome, "preflight.disk")] == ["critical"]
    assert outcome.returned["ready"] is False
    assert str(tmp_path) in outcome.returned["reasons"][0]


def test_a_mount_that_does_not_answer_is_unknown(tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(f"nas:/export {tmp_path}/gone nfs rw 0 0\n")
    monkeypatch.setattr(preflight, "MOUNTS", str(tmp_path / "mounts"))
    assert [found.state for found in of(run(tmp_path), "preflight.disk")] == ["unknown"]


def test_no_mount_at_all_is_unknown_never_ok(tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    monkeypatch.setattr(preflight, "MOUNTS", str(tmp_path / "mounts"))
    assert [found.state for found in of(run(tmp_path), "preflight.disk")] == ["unknown"]


def test_room_for_snapshot_and_vacuum_is_asked_for_by_the_size_of_the_database_fossa_pre_09(tmp_path):
    database = tmp_path / "app.db"
    database.touch()
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    os.truncate(database, 3 * 1024 * 1024)
    [fits] = of(run(tmp_path, room=room(tmp_path / "not/made/yet", files=[str(database)], factor=2.0)), "preflight.room")
    assert (fits.state, "6.0 MiB" in fits.summary) == ("ok", True)
    os.truncate(database, free)  # a file with a hole takes no space
    outcome = run(tmp_path, room=room(tmp_path, files=[str(database)], factor=2.0))
    assert (of(outcome, "preflight.room")[0].state, outcome.returned["ready"]) == ("critical", False)


def test_a_file_that_is_not_there_makes_the_room_unknown_not_ok(tmp_path):
    [found] = of(run(tmp_path, room=room(tmp_path, files=[str(tmp_path / "missing.db"), str(tmp_path)])), "preflight.room")
    assert (found.state, "missing.db" in found.not_covered) == ("unknown", True)


# -- load and memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("five_minutes", "processors", "state"),
    [(0.0, 4, "ok"), (0.05, 1, "ok"), (0.009, 64, "ok"), (3.1, 4, "ok"), (3.2, 4, "warning"), (0.8, 1, "warning"), (8.0, 4, "critical")],
)
def test_load_is_judged_by_the_processors_small_values_too_fossa_pre_10(five_minutes, processors, state):
    assert preflight.judge_load(five_minutes, processors, LIMITS).state == state


def test_the_calmer_average_counts_whatever_the_locale_fossa_pre_10(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    _one, five, _fifteen = os.getloadavg()
    [found] = of(run(tmp_path), "preflight.load")
    assert found.value == pytest.approx(100 * five / len(os.sched_getaffinity(0)), abs=20)
    assert f"({found.value:g} percent)" in found.summary


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n", 25.0),
        ("MemTotal:  1000 kB\n", None),
        ("MemTotal:  0 kB\nMemAvailable: 0 kB\n", None),
        ("MemTotal:\nMemAvailable: many kB\n", None),
        ("", None),
    ],
)
def test_memory_is_what_programs_could_still_get(text, percent):
    assert preflight.available_percent(text) == percent


def test_little_memory_is_critical(tmp_path):
    given = {"memory_available_warning_percent": 1000.0, "memory_available_critical_percent": 999.0}
    assert [found.state for found in of(run(tmp_path, **given), "preflight.memory")] == ["critical"]


def test_a_clock_that_nobody_watches_is_unknown(tmp_path):
    [found] = of(run(tmp_path, clock="required"), "preflight.clock")
    assert found.state in (("unknown", "ok", "critical") if preflight.undo.systemd_is_here() else ("unknown",))
    assert of(run(tmp_path), "preflight.clock") == []


@pytest.mark.parametrize(
    ("said", "wish", "state"),
    [
        ("yes\n", "required", "ok"),
        ("yes\n", "wanted", "ok"),
        ("no\n", "required", "critical"),
        ("no\n", "wanted", "warning"),
        ("", "required", "unknown"),
        ("", "wanted", "unknown"),
        ("Failed to connect to bus", "required", "unknown"),
    ],
)
def test_a_clock_is_in_sync_only_when_timedatectl_says_so(tmp_path, monkeypatch, said, wish, state):
    program = tmp_path / "bin" / "timedatectl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncase \"$*\" in *NTPSynchronized*) printf '{said}' ;; esac\n")
    program.chmod(0o755)
    monkeypatch.setattr(preflight.undo, "_PATH", f"{program.parent}:{preflight.undo._PATH}")
    monkeypatch.setattr(preflight.undo, "systemd_is_here", lambda: True)
    outcome = run(tmp_path, clock=wish)
    [found] = of(outcome, "preflight.clock")
    assert (found.state, bool(found.advice)) == (state, state != "ok")
    assert (found.summary in outcome.returned["reasons"]) is (state == "critical")


# -- package manager ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def apt_lock(tmp_path, monkeypatch):
    (tmp_path / "dpkg/updates").mkdir(parents=True)
    monkeypatch.setattr(preflight_packages, "DPKG", str(tmp_path / "dpkg"))
    path = tmp_path / "lock-frontend"
    path.touch()
    monkeypatch.setattr(preflight_packages, "APT_LOCKS", (str(tmp_path / "missing"), str(path)))
    return path


HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep({})"


def held_by_another(path, seconds=60.0):
    other = subprocess.Popen([sys.executable, "-c", HOLD.format(seconds), str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    return other


def test_a_free_package_manager_is_ok(tmp_path, apt_lock):
    [found] = of(run(tmp_path, package_manager=True), "preflight.package_manager")
    assert found.state == "ok"
    (tmp_path / "dpkg/updates/0001").touch()
    [found] = of(run(tmp_path, package_manager=True), "preflight.package_manager")
    assert (found.state, "interrupted" in found.summary) == ("critical", True)


def test_another_process_with_the_lock_is_named_and_stops_the_run(tmp_path, apt_lock):
    with held_by_another(apt_lock) as other:
        outcome = run(tmp_path, package_manager=True, package_lock_timeout_seconds=0)
        other.kill()
    [found] = of(outcome, "preflight.package_manager")
    assert (found.state, f"process {other.pid} (" in found.summary) == ("critical", True)
    assert outcome.returned["ready"] is False


def test_a_lock_that_is_released_in_time_is_waited_for(tmp_path, apt_lock):
    started = time.monotonic()
    with held_by_another(apt_lock, 1.0):
        [found] = of(run(tmp_path, package_manager=True, package_lock_timeout_seconds=20), "preflight.package_manager")
    assert "holds the lock" not in found.summary
    assert time.monotonic() - started < 15


def test_looking_takes_no_lock_itself(tmp_path, apt_lock):
    run(tmp_path, package_manager=True)
    with apt_lock.open("w") as target:
        fcntl.lockf(target, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_account_that_may_not_look_does_not_say_free(tmp_path, apt_lock, monkeypatch):
    if os.geteuid() != 0:
        apt_lock.chmod(0)
        [found] = of(run(tmp_path, package_manager=True), "preflight.package_manager")
        assert found.state == "unknown"
        return
    apt_lock.chmod(0o600)
    monkeypatch.setattr(preflight_packages, "DPKG", "/")  # a folder that everybody sees

    def look_as_nobody():
        os.setuid(65534)
        found = preflight_packages.look(0, Host())
        return 0 if found.state == "unknown" else 1

    assert processes.run(look_as_nobody) == 0


class Without(Host):
    """A machine that lacks these commands."""

    def __init__(self, *lacks):
        self.lacks = lacks

    def which(self, name):
        return None if name in self.lacks else super().which(name)


def test_a_host_without_dpkg_and_rpm_is_told_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight_packages, "DPKG", str(tmp_path / "nowhere"))
    found = preflight_packages.look(0, Without("rpm"))
    assert (found.state, found.not_covered) == ("ok", "any other package manager")
    assert "neither dpkg nor rpm" in found.summary


def test_a_process_of_dnf_is_named_and_one_that_is_gone_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(dnf_lock, "places", lambda _host: (str(tmp_path), str(tmp_path / ".rpm.lock")))
    lock = tmp_path / "rpmdb_lock.pid"
    for content in ("999999999", "", "no number"):
        lock.write_text(content)
        assert dnf_lock.holder(Host(), [str(lock)]) == ""
    lock.write_text(str(os.getpid()))
    assert dnf_lock.holder(Host(), [str(lock)]).startswith(f"process {os.getpid()} ")


# -- tools and backups --------------------------------------------------------------------------------------------------------


def test_a_missing_tool_stops_the_run_and_all_of_them_are_told_at_once(tmp_path):
    outcome = run(tmp_path, tools=["sh", "no-such-tool", "nor-this"])
    assert [found.state for found in of(outcome, "preflight.tool")] == ["ok", "critical", "critical"]
    assert outcome.returned["ready"] is False
    assert [name in outcome.summary for name in ("no-such-tool", "nor-this")] == [True, True]


def proof(age_hours=1.0, level=4, **more):
    return {"daily": {"path": "/backups/daily/x.db.gz", "time": NOW - age_hours * 3600, "level": level, **more}}


def deep(sums, path="/backups/daily/x.db.gz"):
    return {"path": path, "level": 5, "sha256": sums}


@pytest.mark.parametrize(
    ("proofs", "state"),
    [
        (proof(), "ok"),
        (proof(level=5), "ok"),
        ({"sets": proof()}, "ok"),
        (proof(age_hours=25.99), "ok"),
        (proof(age_hours=26), "critical"),
        (proof(level=3), "critical"),
        (proof(time="2027-01-15T07:30:00+00:00"), "ok"),
        (proof(time="2027-01-15T07:30:00Z"), "ok"),
        (proof(age_hours=-2), "critical"),  # dated in the future: how old it is, nobody knows
        (proof(time="yesterday"), "critical"),
        (proof(time=None), "critical"),
        (proof(level=None), "critical"),
        (proof(path=""), "critical"),
        (proof(level=2, demanded=2, sha256={"a": "1"}, deeper=[deep({"a": "1"})]), "ok"),
        (proof(level=2, demanded=2, sha256={"a": "1"}, deeper=[deep({"a": "2"})]), "critical"),
        (proof(level=2, demanded=2, sha256={}, deeper=[deep({})]), "critical"),
        (proof(level=1, demanded=2, sha256={"a": "1"}, deeper=[deep({"a": "1"})]), "critical"),
        (proof(level=2, demanded=2, sha256={"a": "1"}, deeper=[deep({"a": "1"}, path="/backups/daily/w.db.gz")]), "critical"),
        (proof(level=2, deeper="text"), "critical"),
        ({"weekly": {}}, "critical"),
        ({"daily": "text"}, "critical"),
        ({"sets": []}, "critical"),
        ({}, "critical"),
    ],
)
def test_only_a_fresh_backup_that_was_proven_at_its_level_will_do(proofs, state):
    assert preflight.judge_backup(WANTED, proofs, NOW).state == state


def test_what_backup_verification_kept_is_read(tmp_path):
    kept = {"sets": {"daily": {"path": "/b/x", "time": time.time() - 60, "level": 4}}}
    write_state(str(tmp_path / "state"), "backup_proofs.json", kept)
    assert [found.state for found in of(run(tmp_path, backups=[WANTED]), "preflight.backup")] == ["ok"]


def test_without_any_proof_it_is_not_ready(tmp_path):
    outcome = run(tmp_path, backups=[WANTED])
    assert outcome.returned["ready"] is False
    assert "No backup of set daily was ever proven" in outcome.summary


# -- the whole ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check_mode", [False, True])
def test_looking_changes_nothing_and_check_mode_gives_the_same_verdicts(tmp_path, check_mode):
    before = tree(tmp_path)
    outcome = run(tmp_path, check_mode, tools=["no-such-tool"], backups=[WANTED], room=room(tmp_path))
    assert sorted({found.id for found in outcome.findings if found.state == "critical"} & {"preflight.tool", "preflight.backup"}) == [
        "preflight.backup",
        "preflight.tool",
    ]
    assert tree(tmp_path) == before
    assert outcome.is_change is False


@pytest.mark.parametrize(
    "given",
    [
        {"disk_warning_percent": -1.0},
        {"load_warning_percent": float("nan")},
        {"memory_available_warning_percent": 10**6},
        {"package_lock_timeout_seconds": -1},
        {"room": room("/tmp", free_bytes=-1)},
        {"room": room("/tmp", factor=-0.5)},
        {"room": room("/tmp", factor=float("inf"))},
        {"room": room("backups")},
        {"room": room("")},
        {"backups": [{**WANTED, "maximum_age_hours": 0.0}]},
        {"backups": [{**WANTED, "maximum_age_hours": float("nan")}]},
        {"backups": [{**WANTED, "level": 6}]},
        {"backups": [{**WANTED, "level": -1}]},
    ],
)
def test_bad_values_end_in_one_sentence(tmp_path, given):
    with pytest.raises(InputError, match="expected"):
        run(tmp_path, **given)
