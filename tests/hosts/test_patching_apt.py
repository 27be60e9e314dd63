"""Planning, preparing and going back with the real apt and dpkg, on an archive of packages made for each test."""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from apt_archive import Archive, quiet
from upkeep_runs import wait_for

from ansible_collections.ops.maintenance.plugins.module_utils import (
    apt_archives,
    apt_downgrade,
    apt_health,
    apt_lock,
    apt_packages,
    apt_space,
    package_deadlines,
    package_prepare,
    package_updates,
    package_urgency,
    reboot_need,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError, VerifyError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.package_plan import Rules
from ansible_collections.ops.maintenance.plugins.module_utils.package_versions import compare


@pytest.fixture
def archive(tmp_path):
    made = Archive(tmp_path / "archive")
    yield made
    made.remove()


def defaults(options, **given):
    common = {"run_id": "", "deadline": 0.0, "state_dir": "", "self_test": False}
    return {**common, **{name: option.get("default") for name, option in options.items()}, **given}


@pytest.fixture
def plan(tmp_path):
    def run(check=False, **given):
        params = defaults(package_updates.OPTIONS, state_dir=str(tmp_path / "state"), **given)
        return package_updates.run(params, check, Quick())

    return run


class Quick(Host):
    """This host without needrestart, which is slow and not asked for here."""

    def which(self, name):
        return None if name.startswith("needrestart") else super().which(name)


def prepare(check=False, **given):
    return package_prepare.run(defaults(package_prepare.OPTIONS, **given), check, Host())


def state(outcome, finding_id):
    return next(found for found in outcome.findings if found.id == finding_id)


def pair(archive, name, new="1.1", old="1.0", **more):
    """Install an old version and have a new one wait."""
    archive.install(archive.package(name, old, "stable"))
    archive.package(name, new, **more)


# The plan


def test_kept_back_updates_are_named_with_the_reason_and_nothing_is_removed(archive, plan):
    archive.install(archive.package("demo-tool", "1.0", "stable"))
    pair(archive, "demo-plain")
    pair(archive, "demo-pushy", fields="Conflicts: demo-tool\n")
    pair(archive, "demo-grown", fields="Depends: demo-extra\n")
    archive.package("demo-extra", "1.0")
    pair(archive, "demo-lost", fields="Depends: demo-nowhere (>= 3)\n")
    archive.publish()
    made = plan()
    assert sorted(made.returned["install"]) == ["demo-grown=1.1", "demo-plain=1.1"]
    assert [item["name"] for item in made.returned["plan"] if item["dependency"]] == ["demo-extra"]
    assert made.returned["left"]["demo-pushy"] == "would remove demo-tool"
    assert "demo-nowhere" in made.returned["left"]["demo-lost"]
    assert state(made, "patching.blocked").state == "warning"
    without = plan(new_packages=False)
    assert without.returned["install"] == ["demo-plain=1.1"]
    assert without.returned["left"]["demo-grown"] == "needs the new package demo-extra"


def test_update_that_needs_a_held_package_stays_with_it(archive, plan):
    pair(archive, "demo-library")
    pair(archive, "demo-program", fields="Depends: demo-library (>= 1.1)\n")
    archive.publish()
    quiet("apt-mark", "hold", "demo-library")
    made = plan()
    assert made.returned["install"] == []
    assert made.returned["left"]["demo-library"] == "held"
    assert "demo-library" in made.returned["left"]["demo-program"]


def test_phased_update_waits_as_apt_decides(archive, plan):
    pair(archive, "demo-phased", suite="stable", extra="Phased-Update-Percentage: 0\n")
    pair(archive, "demo-everybody", suite="stable", extra="Phased-Update-Percentage: 100\n")
    archive.publish()
    made = plan(scope="all")
    assert made.returned["install"] == ["demo-everybody=1.1"]
    assert made.returned["left"]["demo-phased"].startswith("phased: 0 percent")
    assert state(made, "patching.blocked").state == "ok"


def test_pins_and_the_blocklist_choose_the_next_best_version_or_none(archive, plan):
    pair(archive, "demo-database", new="15.6-1", old="15.4-1")
    archive.package("demo-database", "16.1-1")
    archive.publish()
    assert plan().returned["install"] == ["demo-database=16.1-1"]
    assert plan(pins={"demo-data*": "15.*"}).returned["install"] == ["demo-database=15.6-1"]
    assert plan(pins={"demo-database": "15.5"}).returned["left"] == {"demo-database": "pinned to 15.5"}
    assert plan(blocklist=["demo-database=16.*"]).returned["install"] == ["demo-database=15.6-1"]
    blocked = plan(blocklist=["demo-d*"])
    assert blocked.returned["left"] == {"demo-database": "on the blocklist"}
    assert state(blocked, "patching.held").state == "warning"


def test_dependency_is_not_pulled_past_a_pin(archive, plan):
    pair(archive, "demo-library", new="2.0")
    pair(archive, "demo-program", fields="Depends: demo-library (>= 2.0)\n")
    archive.publish()
    made = plan(pins={"demo-library": "1"})
    assert made.returned["install"] == []
    assert "pinned to 1" in made.returned["left"]["demo-program"]


def test_versions_are_ordered_as_dpkg_orders_them():
    parts = ["0", "1", "10", "2", "a", "Z", "~", "~~", "+", ".", "-1", "-", "rc1", "~deb12u1", "+b1", "1:"]
    chance = random.Random(4)
    for _ in range(150):
        one, other = ("1" + "".join(chance.choices(parts[:-1], k=chance.randint(0, 4))) for _ in range(2))
        one, other = (f"{chance.choice(['', '1:', '0:'])}{text}".rstrip("-") for text in (one, other))
        word = {-1: "lt", 0: "eq", 1: "gt"}[compare(one, other)]
        ran = subprocess.run(["dpkg", "--compare-versions", one, word, other], check=False, capture_output=True, text=True)
        assert ran.returncode == 0, (one, word, other)


# Severity and deadlines

CHANGELOG = """demo-tls (1.1) stable-security; urgency=high

  * Fix it.

 -- N <n@example.com>  Sat, 01 Nov 2025 12:00:00 +0000

demo-tls (1.0) stable; urgency=low

 -- N <n@example.com>  Sat, 01 Mar 2025 12:00:00 +0000
"""


def test_changelog_of_a_fetched_package_tells_urgency_and_date(archive, plan):
    pair(archive, "demo-tls", changelog=CHANGELOG)
    archive.publish()
    before = plan()
    assert "treated as high" in state(before, "patching.overdue").not_covered
    fetched = prepare(install=before.returned["install"], download_only=True)
    assert [(action.operation, action.status) for action in fetched.actions] == [("download", "changed")]
    assert apt_packages.installed(Host())["demo-tls"].version == "1.0"
    found = state(plan(), "patching.overdue")
    assert (found.state, found.value, found.not_covered) == ("critical", 1, "")
    assert "high (changelog), to be had since 2025-11-01" in found.evidence[0]
    assert plan(deadline_hours={"high": 10**6}).returned["install"] == ["demo-tls=1.1"]
    assert plan(deadline_hours={"high": 10**6}, overdue_only=True).returned["install"] == []
    assert plan(overdue_only=True).returned["install"] == ["demo-tls=1.1"]


def test_advisories_by_source_package_and_an_emergency_run(archive, plan, tmp_path):
    archive.install(archive.package("demo-libx1", "1.0", "stable", fields="Source: demo-x\n"))
    archive.package("demo-libx1", "1.1", fields="Source: demo-x\n")
    pair(archive, "demo-other")
    archive.publish()
    first = datetime.now(timezone.utc) - timedelta(hours=30)
    file = tmp_path / "advisories.json"
    entry = {"package": "demo-x", "fixed_version": "1.1", "severity": "critical", "published": first.isoformat(), "id": "DSA-1"}
    file.write_text(json.dumps([entry, {**entry, "package": "demo-other", "severity": "low"}]))
    made = plan(advisories=str(file), minimum_severity="high")
    assert made.returned["install"] == ["demo-libx1=1.1"]
    assert made.returned["left"]["demo-other"].startswith("low, and this run takes updates from high only")
    assert state(made, "patching.overdue").value == 1
    broken = plan(advisories=str(tmp_path / "missing.json"))
    assert state(broken, "patching.overdue").state == "unknown"


def test_severities_of_an_offline_database_in_the_osv_format(archive, plan, tmp_path):
    """The planted critical fix of a source package is overdue; its twin of another release, and one without a record, are not."""
    for name in ("demo-x", "demo-y", "demo-z"):
        archive.install(archive.package(f"{name}-bin", "1.0", "stable", fields=f"Source: {name}\n"))
        archive.package(f"{name}-bin", "1.1", fields=f"Source: {name}\n")
    archive.publish()
    release = package_urgency.ecosystem(package_urgency.os_release())
    folder = tmp_path / "osv"
    folder.mkdir()
    since = (datetime.now(timezone.utc) - timedelta(hours=30)).isoformat()
    for name, where in (("demo-x", release), ("demo-y", "Debian:1")):
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}]
        affected = [{"package": {"ecosystem": where, "name": name}, "ranges": ranges}]
        vector = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]
        one = {"id": f"DSA-{name}", "published": since, "modified": since, "affected": affected, "severity": vector}
        (folder / f"{name}.json").write_text(json.dumps(one))
    found = state(plan(advisories=str(folder)), "patching.overdue")
    assert (found.state, found.value) == ("critical", 1)
    assert found.evidence[0].startswith("demo-x-bin 1.0 -> 1.1: critical (advisory DSA-demo-x)")
    assert "the severity of 2 updates" in found.not_covered
    assert plan(advisories=str(folder), overdue_only=True).returned["install"] == ["demo-x-bin=1.1"]


def test_first_sight_is_kept_but_not_by_check_mode(archive, plan, tmp_path):
    pair(archive, "demo-tls")
    archive.publish()
    kept = tmp_path / "state" / package_deadlines.STATE
    plan(check=True)
    assert not kept.exists()
    plan()
    old = (datetime.now(timezone.utc) - timedelta(days=8)).isoformat()
    kept.write_text(json.dumps({"seen": {"demo-tls": {"since": old}}}))
    assert state(plan(), "patching.overdue").state == "critical"
    quiet("apt-get", "-y", "install", "demo-tls")
    assert state(plan(), "patching.overdue").state == "ok"
    assert json.loads(kept.read_text())["seen"] == {}


# Repair, room, locks, removal


def test_interrupted_dpkg_is_found_and_repaired_only_where_that_is_allowed(archive, plan):
    archive.publish()
    quiet("dpkg", "--unpack", str(archive.package("demo-half", "1.0", "stable")))
    assert state(plan(), "patching.interrupted").state == "critical"
    assert prepare().actions == []
    due = plan(repair=True)
    assert [action.operation for action in due.actions if action.subject == "package database"] == ["configure"]
    for cache in pathlib.Path("/var/cache/apt").glob("*.bin"):
        cache.unlink()
    assert prepare(repair=True, check=True).actions[0].status == "due"
    assert not list(pathlib.Path("/var/cache/apt").glob("*.bin"))
    assert apt_packages.installed(Host())["demo-half"].status == "unpacked"
    done = prepare(repair=True)
    assert [(action.operation, action.status) for action in done.actions] == [("configure", "changed")]
    assert done.returned["replan"] is True
    assert state(plan(), "patching.interrupted").state == "ok"


def test_journal_that_a_killed_dpkg_left_keeps_the_installation_from_beginning(archive, plan):
    pair(archive, "demo-tls")
    archive.publish()
    stanza = quiet("dpkg-query", "-s", "demo-tls")
    pathlib.Path("/var/lib/dpkg/updates/0000").write_text(stanza)
    try:
        made = plan()
        assert (made.returned["install"], made.returned["deferred"]) == ([], True)
        assert "dpkg was interrupted" in state(made, "patching.interrupted").summary
        assert [action.status for action in prepare(repair=True).actions] == ["changed"]
    finally:
        pathlib.Path("/var/lib/dpkg/updates/0000").unlink(missing_ok=True)
    assert plan().returned["install"] == ["demo-tls=1.1"]


APT = ["apt-get", "-y", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", "--only-upgrade", "install"]
REPAIR = """
import json, sys
from ansible_collections.ops.maintenance.plugins.module_utils import package_prepare
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
package_prepare.run(json.loads(sys.argv[1]), False, Host())
"""


def kill_with_children(child):
    """Kill a process and all below it, whatever session they are in, as the end of a machine does."""
    found = [child.pid]
    for pid in found:
        found += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    child.communicate()
    return len(found)


def slow_update(archive, tmp_path, script):
    """Have an update wait whose maintainer script takes as long as a file is there, and notes each time that it is run."""
    runs, shut = tmp_path / "runs", tmp_path / "shut"
    text = f"#!/bin/sh\ncase $1 in upgrade|configure) echo >>{runs}; while [ -e {shut} ]; do sleep 0.05; done;; esac\n"
    pair(archive, "demo-slow", scripts={script: text})
    archive.publish()
    shut.touch()
    return runs, shut


def killed_in_the_script(argv, runs, number):
    """Run a command, and kill it with its dpkg when the script is run for the n-th time."""
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: runs.exists() and len(runs.read_text()) == number)
    assert child.poll() is None
    assert kill_with_children(child) >= 3


def is_mended(plan):
    slow = apt_packages.installed(Host())["demo-slow"]
    assert (slow.version, slow.is_whole, quiet("dpkg", "--audit")) == ("1.1", True, "")
    made = plan()
    assert (state(made, "patching.interrupted").state, made.returned["install"]) == ("ok", [])


def test_killed_while_a_package_is_configured_the_next_run_completes_it(archive, plan, tmp_path):
    """SIGKILL of the process, of its dpkg and of the script: first in the installation, then in the repair of it."""
    runs, shut = slow_update(archive, tmp_path, "postinst")
    killed_in_the_script([*APT, *plan().returned["install"]], runs, 1)
    repair = [sys.executable, "-c", REPAIR, json.dumps(defaults(package_prepare.OPTIONS, repair=True))]
    for number in (2, 3):
        found = state(plan(), "patching.interrupted")
        assert (found.state, "demo-slow" in found.summary) == ("critical", True), found.summary
        if number == 2:
            killed_in_the_script(repair, runs, number)
    shut.unlink()
    done = prepare(repair=True)
    assert ([action.status for action in done.actions], done.returned["replan"]) == (["changed"], True)
    is_mended(plan)


def test_killed_while_a_package_is_unpacked_it_is_named_and_the_next_run_installs_it(archive, plan, tmp_path):
    """dpkg --configure -a does not mend what is half installed; only installing it again does, so that is not called sound meanwhile."""
    runs, shut = slow_update(archive, tmp_path, "preinst")
    killed_in_the_script([*APT, *plan().returned["install"]], runs, 1)
    shut.unlink()
    prepare(repair=True)
    made = plan(repair=True)
    found = state(made, "patching.interrupted")
    assert (found.state, "half installed (demo-slow)" in found.summary) == ("critical", True), found.summary
    assert "let this run update it" in found.advice
    assert made.returned["install"] == ["demo-slow=1.1"]
    quiet(*APT, *made.returned["install"])
    is_mended(plan)


def test_repair_that_does_not_help_is_failed(archive):
    archive.publish()
    scripts = {"postinst": "#!/bin/sh\necho no >&2\nexit 3\n"}
    quiet("dpkg", "--unpack", str(archive.package("demo-bad", "1.0", "stable", scripts=scripts)))
    assert [action.status for action in prepare(repair=True).actions] == ["failed"]


def test_unmet_dependencies_are_repaired_and_never_by_removing(archive, plan):
    archive.install(archive.package("demo-tool", "1.0", "stable"))
    needy = archive.package("demo-needy", "1.0", "stable", fields="Depends: demo-missing\n")
    quiet("dpkg", "--force-depends", "-i", str(needy))
    archive.publish()
    found = state(plan(repair=True), "patching.interrupted")
    assert (found.state, "apt cannot repair that by itself" in found.summary) == ("critical", True)
    assert prepare(repair=True).actions == []
    assert apt_packages.installed(Host())["demo-needy"].is_whole  # apt would have removed it

    archive.package("demo-missing", "1.0", "stable")
    archive.publish()
    due = plan(repair=True)
    assert "demo-missing" in state(due, "patching.interrupted").summary
    assert [action.operation for action in due.actions if action.subject == "package database"] == ["fix_broken"]
    assert [(action.operation, action.status) for action in prepare(repair=True).actions] == [("fix_broken", "changed")]
    assert apt_packages.installed(Host())["demo-missing"].is_whole
    assert state(plan(), "patching.interrupted").state == "ok"


def test_new_kernel_that_does_not_fit_into_boot_is_not_begun(archive, plan, monkeypatch):
    """/small is a file system of its own with less room than a kernel takes."""
    pair(archive, "linux-image-demo", fields="Depends: linux-image-6.1.0-9-demo\n")
    archive.package("linux-image-6.1.0-9-demo", "1.0")
    archive.publish()
    fits = plan()
    assert state(fits, "patching.space").state == "ok"
    assert len(fits.returned["install"]) == 1
    monkeypatch.setattr(apt_space, "BOOT", "/small")
    made = plan()
    found = state(made, "patching.space")
    assert (found.state, found.subject) == ("critical", "/small")
    assert (made.returned["install"], made.returned["deferred"]) == ([], True)


def test_no_room_means_nothing_is_begun(archive, plan):
    pair(archive, "demo-large", kbytes=300)
    archive.publish()
    made = plan(space_reserve_bytes=10**18)
    assert (made.returned["install"], made.returned["deferred"]) == ([], True)
    assert state(made, "patching.space").state == "critical"
    roomy = plan(space_reserve_bytes=0)
    assert state(roomy, "patching.space").state == "ok"
    assert any("bytes needed" in line for line in state(roomy, "patching.space").evidence)


def test_archive_that_cannot_be_fetched_is_failed(archive, plan):
    pair(archive, "demo-tls")
    archive.publish()
    specs = plan().returned["install"]
    (archive.root / "archive/pool/stable-security/demo-tls_1.1_all.deb").write_bytes(b"something else")
    done = prepare(install=specs, download_only=True)
    assert [action.status for action in done.actions] == ["failed"]


HOLD = """import fcntl, sys
held = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


class Patient(Host):
    """A host that lets go of the lock while it is waited for."""

    def __init__(self, holder=None):
        self.holder = holder

    def sleep(self, seconds):  # noqa: ARG002
        if self.holder:
            self.holder.communicate("go\n")
            self.holder = None


def test_lock_is_awaited_and_its_holder_is_named(tmp_path):
    script = tmp_path / "unattended-upgrade"
    script.write_text(HOLD)
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        assert "unattended-upgrade" in apt_lock.holder()
        with pytest.raises(MaintenanceError, match=r"unattended-upgrade\) held the lock .* still does"):
            package_prepare.run(defaults(package_prepare.OPTIONS, lock_timeout_seconds=3), False, Patient())
        done = package_prepare.run(defaults(package_prepare.OPTIONS), False, Patient(child))
    assert "unattended-upgrade" in state(done, "patching.lock").summary
    assert state(done, "patching.lock").state == "ok"
    assert state(done, "patching.regression").state == "unknown"  # no systemd here, which is said
    assert apt_lock.holder() == ""


UNATTENDED = pathlib.Path("/etc/apt/apt.conf.d/99unattended-test")


@pytest.mark.parametrize(("blacklist", "judged"), [("", "warning"), ("demo-", "ok")])
def test_unattended_upgrades_that_works_against_the_inventory_is_named(archive, blacklist, judged):
    archive.publish()
    settings = 'APT::Periodic::Enable "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'
    UNATTENDED.write_text(f'{settings}Unattended-Upgrade::Package-Blacklist {{ "{blacklist}"; }};\n')
    packages = {name: apt_packages.Installed(name, "1", "install", "installed") for name in ("unattended-upgrades", "demo-kept")}
    try:
        found = apt_health.unattended_finding(Host(), packages, Rules(hold=["demo-kept"]))
    finally:
        UNATTENDED.unlink()
    assert (found.state, "demo-kept" in found.summary) == (judged, judged == "warning")


def test_program_whose_file_was_replaced_is_seen_in_the_maps_of_its_process(tmp_path):
    program = pathlib.Path("/opt/demo-program")
    shutil.copy2(sys.executable, program)
    argv = [program, "-c", "print('runs', flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "runs\n"
            assert not reboot_need.replaced_files(pathlib.Path(f"/proc/{child.pid}/maps").read_text())
            before = reboot_need.stale_services(Quick()).sessions
            shutil.copy2(program, tmp_path / "new")
            program.unlink()
            shutil.copy2(tmp_path / "new", program)
            assert reboot_need.replaced_files(pathlib.Path(f"/proc/{child.pid}/maps").read_text()) == [str(program)]
            assert reboot_need.stale_services(Quick()).sessions == before + 1
        finally:
            child.communicate("\n")
            program.unlink()


def test_old_kernels_go_as_previewed_and_never_the_running_one(archive, plan):
    names = [f"linux-image-6.1.0-{number}-demo" for number in (8, 9, 10, 11)]
    archive.install(*(archive.package(name, "1.0", "stable") for name in [*names, "linux-headers-6.1.0-8-demo"]))
    archive.publish()
    made = plan(kernels_keep=2)
    assert made.returned["remove"] == ["linux-headers-6.1.0-8-demo", "linux-image-6.1.0-8-demo", "linux-image-6.1.0-9-demo"]
    assert set(apt_packages.installed(Host())) >= set(names)
    kept = apt_health.removable(Host(), apt_packages.installed(Host()), "6.1.0-8-demo", 2)
    assert kept.kernels == ["linux-image-6.1.0-9-demo"]
    done = prepare(remove=made.returned["remove"])
    assert {action.status for action in done.actions} == {"changed"}
    assert [name for name in names if name in apt_packages.installed(Host())] == names[2:]
    assert plan(kernels_keep=2).returned["remove"] == []


def test_removal_that_would_take_more_along_is_refused(archive):
    archive.install(archive.package("demo-base", "1.0", "stable"))
    archive.install(archive.package("demo-above", "1.0", "stable", fields="Depends: demo-base\n"))
    archive.publish()
    with pytest.raises(VerifyError, match="demo-above"):
        prepare(remove=["demo-base"])
    assert {"demo-base", "demo-above"} <= set(apt_packages.installed(Host()))


def test_what_nothing_needs_is_named_and_removed_only_where_that_is_asked_for(archive, plan):
    archive.install(archive.package("demo-orphan", "1.0", "stable"))
    quiet("apt-mark", "auto", "demo-orphan")
    archive.publish()
    assert "not needed: demo-orphan" in state(plan(), "patching.removable").evidence
    assert "demo-orphan" not in plan().returned["remove"]
    assert "demo-orphan" in plan(autoremove=True).returned["remove"]


# The way back


def test_old_version_comes_back_from_an_archive_or_the_cache(archive):
    pair(archive, "demo-archived")
    old = archive.package("demo-cached", "1:1.0", "stable")
    archive.install(old)
    archive.package("demo-cached", "1:1.1")
    pathlib.Path("/var/cache/apt/archives", old.name).write_bytes(old.read_bytes())
    gone = archive.package("demo-gone", "1.0", "stable")
    archive.install(gone)
    archive.package("demo-gone", "1.1")
    old.unlink()
    gone.unlink()
    archive.publish()
    plan = [
        {"name": name, "installed": f"{epoch}1.0", "version": f"{epoch}1.1"}
        for name, epoch in (("demo-archived", ""), ("demo-cached", "1:"), ("demo-gone", ""))
    ]
    quiet("apt-get", "-y", "install", *(item["name"] for item in plan))
    found = apt_downgrade.look(Host(), plan)
    assert [way.spec for way in found] == ["demo-archived=1.0", apt_archives.cached("demo-cached", "1:1.0"), ""]
    done = apt_downgrade.go_back(Host(), found)
    assert [action.status for action in done] == ["changed", "changed", "failed"]
    assert apt_packages.installed(Host())["demo-cached"].version == "1:1.0"
