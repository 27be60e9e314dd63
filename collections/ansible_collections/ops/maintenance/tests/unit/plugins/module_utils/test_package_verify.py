# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an update did, what still runs old files, and whether a reboot is needed."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import package_state as state
from ansible_collections.ops.maintenance.plugins.module_utils import package_verify as verify
from ansible_collections.ops.maintenance.plugins.module_utils import reboot_need as need
from ansible_collections.ops.maintenance.plugins.module_utils.apt_downgrade import Way
from ansible_collections.ops.maintenance.plugins.module_utils.apt_packages import Installed
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.package_regression import Regression

PLAN = [{"name": "foo", "installed": "1.0", "version": "1.1"}]
DPKG_SAID = """Setting up foo (1.1) ...
foo cannot be configured
dpkg: error processing package foo (--configure):
 installed foo package post-installation script subprocess returned error exit status 3
"""


def package(version: str, status: str = "installed") -> dict[str, Installed]:
    return {"foo": Installed("foo", version, "install", status)}


def test_installed_whole_in_the_planned_version_is_changed():
    (action,) = verify.reconcile(PLAN, package("1.1"), check_mode=False)
    assert (action.status, action.before, action.after) == ("changed", {"version": "1.0"}, {"version": "1.1"})


def test_half_configured_package_is_failed_although_its_version_is_right():
    (action,) = verify.reconcile(PLAN, package("1.1", "half-configured"), check_mode=False, message=DPKG_SAID)
    assert action.status == "failed"
    assert all(text in action.summary for text in ("half-configured", "cannot be configured", "exit status 3"))


@pytest.mark.parametrize("packages", [package("1.0"), {}])
def test_package_that_did_not_move_is_failed_after_apply_and_due_in_check_mode(packages):
    assert verify.reconcile(PLAN, packages, check_mode=False)[0].status == "failed"
    assert verify.reconcile(PLAN, packages, check_mode=True)[0].status == "due"


def test_failed_packages_come_first_and_none_is_cut_off():
    plan = [{"name": f"p{n}", "installed": "1", "version": "2"} for n in range(400)]
    packages = {f"p{n}": Installed(f"p{n}", "2", "install", "installed") for n in range(399)}
    actions = verify.reconcile(plan, packages, check_mode=False)
    assert (actions[0].subject, actions[0].status) == ("p399", "failed")
    assert len(actions) <= 101


def test_broken_package_is_critical_and_an_empty_database_unknown():
    assert state.broken_finding(package("1", "unpacked")).state == "critical"
    assert state.broken_finding(package("1")).state == "ok"
    assert state.broken_finding({}).state == "unknown"


def test_kept_configuration_is_listed(tmp_path):
    (tmp_path / "ssh").mkdir()
    (tmp_path / "ssh" / "sshd_config.dpkg-dist").touch()
    (tmp_path / "own.conf").touch()
    assert state.leftovers(str(tmp_path)) == [str(tmp_path / "ssh" / "sshd_config.dpkg-dist")]
    assert state.conffiles_finding(state.leftovers(str(tmp_path))).state == "warning"


# Reboot


def test_marker_requires_and_names_its_packages(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "reboot-required").touch()
    (tmp_path / "run" / "reboot-required.pkgs").write_bytes(b"linux-image-amd64\nlibc6\nlibc6\n\xff\n")
    source = need.from_marker(str(tmp_path))
    assert source.verdict == "required"
    assert "libc6, linux-image-amd64" in source.reason


def test_absent_marker_proves_nothing(tmp_path):
    assert need.from_marker(str(tmp_path)).verdict == "unknown"
    assert need.decide([need.from_marker(str(tmp_path))]) == "unknown"


DEBIAN = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.90-1 (2024-05-03)"


@pytest.mark.parametrize(
    ("running", "images", "package_version", "container", "expected"),
    [
        ("6.1.0-9-amd64", ["6.1.0-9-amd64", "6.1.0-10-amd64"], "", False, "required"),
        ("6.1.0-21-amd64", ["6.1.0-21-amd64"], "6.1.90-1", False, "not_required"),
        ("6.1.0-21-amd64", ["6.1.0-21-amd64"], "6.1.94-1", False, "required"),  # same name, rebuilt
        ("6.1.0-21-amd64", ["6.1.0-21-amd64", "6.9.1-1-rt-amd64"], "6.1.90-1", False, "not_required"),  # another flavour
        ("6.8.0-1-custom", ["6.1.0-21-amd64"], "", False, "unknown"),
        ("5.15.0-100-generic", ["5.15.0-99-generic", "5.15.0-100-generic"], "", False, "not_required"),
        ("6.18.1-host", [], "", True, "not_required"),
        ("6.18.1-host", [], "", False, "unknown"),
    ],
)
def test_running_kernel_against_the_installed_ones(running, images, package_version, container, expected):
    assert need.from_kernel(running, DEBIAN, images, package_version, container).verdict == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NEEDRESTART-VER: 3.6\n", "unknown"),
        ("NEEDRESTART-VER: 3.6\nNEEDRESTART-KCUR: 6.1.0-9-amd64\nNEEDRESTART-KEXP: 6.1.0-10-amd64\nNEEDRESTART-KSTA: 3\n", "required"),
        ("NEEDRESTART-KEXP: 6.1.0-9-amd64\nNEEDRESTART-KSTA: 1\n", "not_required"),
        ("NEEDRESTART-KSTA: 0\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_needrestart(text, expected):
    assert need.from_needrestart(text).verdict == expected


def test_one_source_that_requires_is_enough():
    sources = [need.Source("kernel", "not_required", ""), need.Source("marker", "required", "why")]
    assert need.decide(sources) == "required"
    assert state.reboot_finding(sources, allowed=False).state == "warning"
    assert state.reboot_finding([need.Source("marker", "unknown", "absent")], allowed=True).state == "unknown"


def test_kernels_are_found_in_boot_and_beside_their_modules(tmp_path):
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "vmlinuz-6.1.0-9-amd64").touch()
    (tmp_path / "boot" / "vmlinuz-0-rescue-abc").touch()
    (tmp_path / "lib/modules/5.14.0-1.el9").mkdir(parents=True)
    (tmp_path / "lib/modules/5.14.0-1.el9/vmlinuz").touch()
    (tmp_path / "lib/modules/left-behind").mkdir()
    assert need.installed_kernels(str(tmp_path)) == ["5.14.0-1.el9", "6.1.0-9-amd64"]


# Services

MAPS = """7f0dd976d000-7f0dd9793000 r--p 00000000 00:27 1517798                    /usr/lib/x86_64-linux-gnu/libc.so.6 (deleted)
7f0dd9793000-7f0dd98e9000 r-xp 00026000 00:27 1517798                    /usr/lib/x86_64-linux-gnu/libc.so.6 (deleted)
7f0dd9a00000-7f0dd9a01000 r-xp 00000000 00:27 1517799                    /usr/lib/x86_64-linux-gnu/libm.so.6
7f0dd9b00000-7f0dd9b01000 rw-s 00000000 00:01 99                         /memfd:doublemapper (deleted)
7f0dd9c00000-7f0dd9c01000 r-xp 00000000 00:27 3                          /tmp/jit.so (deleted)
"""


def test_only_replaced_programs_and_libraries_count():
    assert need.replaced_files(MAPS) == ["/usr/lib/x86_64-linux-gnu/libc.so.6"]


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("9:name=systemd:/docker/ab/system.slice/system-postgresql.slice/postgresql@15-main.service\n", "postgresql@15-main.service"),
        ("0::/init.scope\n", "init.scope"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", ""),
        ("0::/system.slice/docker-ab.scope\n", ""),
        ("", ""),
    ],
)
def test_unit_of_a_process(cgroup, unit):
    assert need.unit_of(cgroup) == unit


class NoTools(Host):
    """A host without needrestart."""

    def which(self, name):  # noqa: ARG002
        return None


class Runs(NoTools):
    """A host on which every command does what it is to do."""

    def run(self, argv, **_more):
        return Ran(argv, 0, "active", "")


class Updated:
    """The backend of a host whose updates of foo and bar are installed."""

    downgrade = "apt-get install --allow-downgrades"

    def __init__(self):
        self.installed_again = []

    def installed(self):
        return {name: Installed(name, "1.1", "install", "installed") for name in ("foo", "bar")}

    def ways_back(self, plan):
        return [Way(item["name"], item["installed"], item["version"], f"{item['name']}={item['installed']}") for item in plan]

    def owners(self, _paths):
        return {"foo"}

    def go_back(self, found):
        self.installed_again += [way.spec for way in found]
        return []


@pytest.fixture
def after_reboot(monkeypatch):
    """Verify on a host that booted anew and on which foo.service does not run any more."""
    backend = Updated()
    worse = [Regression("foo.service runs no more", "foo.service")]
    monkeypatch.setattr(verify, "choose", lambda *_: lambda *_: backend)
    monkeypatch.setattr(verify.package_regression, "settle", lambda *_: worse)
    monkeypatch.setattr(
        verify.package_regression.inventory_of_host,
        "units",
        lambda *_: [{"Id": "foo.service", "FragmentPath": "/usr/lib/systemd/system/foo"}],
    )
    monkeypatch.setattr(state, "look", lambda *_: state.State(backend.installed(), need.Stale({}), [], [], "id/2"))

    def run(**given):
        common = {"deadline": 0.0, "state_dir": "", "boot_before": "id/1", "baseline": {"services": ["foo.service"]}}
        params = {**{name: option.get("default") for name, option in verify.OPTIONS.items()}, **common, **given}
        return verify.run(params, False, Runs()), backend

    return run


BOTH = [*PLAN, {"name": "bar", "installed": "1.0", "version": "1.1"}]


def test_what_is_worse_after_the_reboot_is_laid_to_the_packages_and_the_way_back_told(after_reboot):
    outcome, backend = after_reboot(plan=BOTH)
    (found,) = [one for one in outcome.findings if one.id == "patching.regression"]
    assert (
        found.summary == "1 thing worked before and not after foo, bar and the reboot: foo.service runs no more. foo is the likely cause."
    )
    assert "foo=1.0" in found.advice
    assert (outcome.status, backend.installed_again) == ("failed", [])


def test_after_the_reboot_old_versions_come_back_where_that_is_declared(after_reboot):
    _outcome, backend = after_reboot(plan=BOTH, downgrade=True)
    assert backend.installed_again[0] == "foo=1.0"


def test_packages_count_once_and_one_that_the_reboot_lost_is_failed(after_reboot):
    outcome, _backend = after_reboot(plan=[*BOTH, {"name": "lost", "installed": "1.0", "version": "1.1"}])
    upgrades = [(action.subject, action.status) for action in outcome.actions if action.operation == "upgrade"]
    assert upgrades == [("lost", "failed")]


def process(proc: pathlib.Path, pid: str, unit: str, maps: str = MAPS) -> None:
    folder = proc / pid
    folder.mkdir(parents=True)
    (folder / "maps").write_text(maps)
    (folder / "cgroup").write_text(f"0::/system.slice/{unit}\n")


def test_services_on_replaced_files_are_found_in_proc(tmp_path):
    process(tmp_path, "10", "app.service")
    process(tmp_path, "11", "fine.service", maps="")
    process(tmp_path, "12", "docker-ab.scope")
    (tmp_path / "13").mkdir()  # ended between listing and reading
    stale = need.stale_services(NoTools(), str(tmp_path))
    assert dict(stale.units) == {"app.service": ("/usr/lib/x86_64-linux-gnu/libc.so.6",)}
    assert stale.sessions == 1


def test_processes_that_nobody_could_look_at_are_not_ok():
    assert state.services_finding(need.Stale({}, 0, unread=3)).state == "unknown"
    assert state.services_finding(need.Stale({}, 2, 0)).state == "ok"
    assert state.services_finding(need.Stale({"a.service": ()}, 0, 0)).state == "warning"


def test_restarts_are_those_asked_for_and_the_manager_comes_first():
    stale = need.Stale({"app.service": (), "dbus.service": (), "getty@tty1.service": (), "init.scope": ()})
    assert state.choose_restarts(stale, ["*"], ["dbus", "getty@*"]) == ["init.scope", "app.service"]
    assert state.choose_restarts(stale, [], []) == []


def test_boot_marker_changes_with_either_part(tmp_path):
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("id\n")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "stat").write_text("1 (a ) b) S " + " ".join(str(number) for number in range(4, 53)))
    assert need.boot_marker(str(tmp_path)) == "id/22"


def test_boot_id_that_stayed_is_a_failure():
    assert verify._boot_actions("id/1", "id/1", check_mode=False)[0].status == "failed"
    assert verify._boot_actions("id/1", "id/2", check_mode=False)[0].status == "changed"
    assert verify._boot_actions("", "id/2", check_mode=False) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to read every process")
def test_this_machine_can_be_looked_at():
    found = state.look(Host(), package("1"))
    assert found.reboot in ("required", "not_required", "unknown")
