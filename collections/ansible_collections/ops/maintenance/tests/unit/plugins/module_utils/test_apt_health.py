# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether apt is fit to install: room in bytes, unattended-upgrades, old kernels; and who holds the locks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import apt_health as health
from ansible_collections.ops.maintenance.plugins.module_utils import apt_lock, apt_packages, apt_space, package_checks
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.package_plan import Planned, Rules

MIB = 1024 * 1024


def test_fetched_bytes_are_those_that_cross_a_network():
    text = "'http://h/a.deb' a_1_all.deb 1000 SHA256:x\n'file:/srv/b.deb' b_1_all.deb 5000 \n'copy:/srv/c.deb' c.deb 24 \nNote: x\n"
    assert apt_space.parse_uris(text) == 1024


def test_unpacking_needs_the_growth_and_the_largest_package_twice():
    text = "Package: a\nVersion: 2\nInstalled-Size: 10\n\nPackage: a\nVersion: 1\nInstalled-Size: 4\n\nPackage: b\nVersion: 1\nInstalled-Size: 3\n"
    sizes = apt_space.parse_sizes(text)
    items = [Planned("a:i386", "1", "2", True, ()), Planned("b", "", "1", False, (), dependency=True)]
    assert apt_space.unpacked_bytes(items, sizes) == (6 + 3 + 10) * 1024


def test_kernel_takes_in_boot_what_the_largest_one_there_does(tmp_path):
    for name, size in (("vmlinuz-6.1.0-9-amd64", 10), ("initrd.img-6.1.0-9-amd64", 50), ("vmlinuz-6.1.0-10-amd64", 11), ("grub", 1)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert apt_space.kernel_bytes(str(tmp_path)) == 60
    assert apt_space.kernel_bytes(str(tmp_path / "none")) == apt_space.KERNEL_BYTES


def test_files_of_a_kernel_are_told_together_on_the_rhel_family_and_the_rescue_one_is_none(tmp_path):
    release = "5.14.0-503.el9.x86_64"
    names = {f"vmlinuz-{release}": 10, f"initramfs-{release}.img": 50, f"initramfs-{release}kdump.img": 20, f"symvers-{release}.gz": 1}
    for name, size in {**names, f".vmlinuz-{release}.hmac": 2, "initramfs-0-rescue-4d2a.img": 500}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert apt_space.kernel_bytes(str(tmp_path)) == 83


@pytest.mark.parametrize(
    ("boot_free", "usr_free", "state", "where"),
    [
        (300 * MIB, 500 * MIB, "ok", "file systems"),
        (120 * MIB, 500 * MIB, "critical", "/boot"),  # enough for the kernel, not for the reserve
        (300 * MIB, 100 * MIB, "critical", "/var/cache/apt/archives, /usr"),  # both on one file system
    ],
)
def test_room_is_judged_by_file_system_in_bytes(boot_free, usr_free, state, where):
    wanted = {"/var/cache/apt/archives": 60 * MIB, "/usr": 60 * MIB, "/boot": 100 * MIB}
    usr = apt_space.Room(1, usr_free)
    rooms = {"/var/cache/apt/archives": usr, "/usr": usr, "/boot": apt_space.Room(2, boot_free)}
    found = apt_space.space_finding(wanted, rooms, 50 * MIB)
    assert (found.state, found.subject) == (state, where)


def test_file_system_that_needs_nothing_may_be_full():
    rooms = {"/usr": apt_space.Room(1, 10**9), "/var/cache/apt/archives": apt_space.Room(2, 0)}
    assert apt_space.space_finding({"/usr": 5, "/var/cache/apt/archives": 0}, rooms, 50).state == "ok"


CONFIG = """APT "";
APT::Periodic "";
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade::Package-Blacklist "";
Unattended-Upgrade::Package-Blacklist:: "postgresql-";
Unattended-Upgrade::Package-Blacklist:: "(";
"""
NAMES = ["postgresql-15", "nginx", "openssl"]


def test_unattended_upgrades_that_would_update_what_is_kept_is_named():
    config = health.parse_config(CONFIG)
    assert health.unattended_problems(config, NAMES, Rules(hold=["postgresql-*"])) == []
    assert "nginx" in health.unattended_problems(config, NAMES, Rules(hold=["nginx"]))[0]
    assert "nginx" in health.unattended_problems(config, NAMES, Rules(pins={"nginx": "1.22"}))[0]
    assert health.unattended_problems(config, NAMES, Rules(on_hold=["nginx"])) == []  # it honours what dpkg holds
    off = health.parse_config(CONFIG.replace('Upgrade "1"', 'Upgrade "0"'))
    assert health.unattended_problems(off, NAMES, Rules(hold=["nginx"])) == []


def test_unattended_upgrades_that_reboots_by_itself_is_named():
    config = health.parse_config(CONFIG + 'Unattended-Upgrade::Automatic-Reboot "true";\n')
    assert health.unattended_problems(config, [], Rules()) == ["it reboots the host by itself"]


@given(st.text(max_size=200))
def test_any_text_of_apt_is_survived(text):
    health.parse_config(text)
    apt_space.parse_uris(text)
    apt_space.parse_sizes(text)
    apt_packages.unmet(f"The following packages have unmet dependencies:\n{text}")


KERNELS = [f"linux-image-6.1.0-{number}-amd64" for number in (8, 9, 10, 11)]
OTHERS = [
    "linux-image-amd64",
    "linux-headers-6.1.0-8-amd64",
    "linux-headers-6.1.0-8-common",
    "linux-image-6.9.1-1-rt-amd64",
    "linux-libc-dev",
]


def test_old_kernels_are_all_but_the_newest_and_the_running_one():
    assert health.old_kernels(KERNELS + OTHERS, "6.1.0-11-amd64", 0) == []
    two = health.old_kernels(KERNELS, "6.1.0-11-amd64", 2)
    assert two == ["linux-image-6.1.0-8-amd64", "linux-image-6.1.0-9-amd64"]
    assert "linux-image-6.1.0-8-amd64" not in health.old_kernels(KERNELS + OTHERS, "6.1.0-8-amd64", 2)
    assert not {"linux-image-amd64", "linux-libc-dev"} & set(health.old_kernels(KERNELS + OTHERS, "x", 2))


def test_keeping_a_single_kernel_is_refused():
    params = {"kernels_keep": 1, "space_reserve_bytes": 0}
    assert package_checks.input_problems(params)[0].startswith("kernels_keep is 1")
    assert package_checks.input_problems({**params, "kernels_keep": 2}) == []


def test_repairs_come_in_order_and_never_by_removing():
    assert health.Health(True, (), "unmet").repairs() == ["configure", "fix_broken"]
    assert health.Health(False, (), "unmet", "it would remove nginx").repairs() == []
    assert "it would remove nginx" in health.interrupted_finding(health.Health(False, (), "unmet", "it would remove nginx"), True).summary
    assert all("--no-remove" in command or command[0] == "dpkg" for command in health.COMMANDS.values())


def test_unmet_dependencies_are_said_in_the_words_of_apt():
    text = "Reading\nThe following packages have unmet dependencies:\n a : Depends: b (>= 3) but it is not installable\nE: broken\n"
    assert apt_packages.unmet(text) == "a : Depends: b (>= 3) but it is not installable"
    assert apt_packages.unmet("E: broken") == ""


class Impatient(Host):
    """Counts how long it was told to wait."""

    waited = 0.0

    def sleep(self, seconds):
        self.waited += seconds


def test_free_lock_is_not_waited_for(tmp_path):
    (tmp_path / "lock").touch()
    host = Impatient()
    waited = apt_lock.wait(host, 60, lambda: apt_lock.holder([str(tmp_path / "lock"), str(tmp_path / "missing")]))
    assert (waited, host.waited) == (apt_lock.Wait("", 0.0, True), 0.0)
    assert apt_lock.lock_finding(waited).state == "ok"
    assert apt_lock.lock_finding(apt_lock.Wait("process 7 (apt)", 60.0, False)).state == "critical"
