# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dnf's answers mean; the real dnf is asked in tests/hosts/test_dnf.py."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import apt_space, dnf_checks, dnf_session
from ansible_collections.ops.maintenance.plugins.module_utils import dnf_packages as dnf
from ansible_collections.ops.maintenance.plugins.module_utils import reboot_need as need
from ansible_collections.ops.maintenance.plugins.module_utils import rpm_versions as versions
from ansible_collections.ops.maintenance.plugins.module_utils.apt_packages import Installed
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

RISING = [
    "1.0~rc1-1", "1.0-1", "1.0^git1-1", "1.0.1-1", "1.0.9-1", "1.0.10-1", "1.0.10-2.el9", "1.0.10-10.el9", "2a-1", "2.0-1", "1:0.1-1",
]  # fmt: skip


def test_versions_are_ordered_as_rpm_does():
    assert sorted(random.Random(1).sample(RISING, len(RISING)), key=versions.newness) == RISING


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_two_texts_have_an_order_that_turns_round(left, right):
    back = versions.compare(right, left)  # pylint: disable=arguments-out-of-order
    assert (versions.compare(left, right) > 0) == (back < 0)


def upgrade(evr, allowed=True, repo="updates", name="openssl", arch="x86_64"):
    return {"package": [name, arch, evr], "repo": repo, "allowed": allowed}


def advisory(evr, security=True, identifier="RHSA-1", severity="critical", name="openssl"):
    return {"package": [name, "x86_64", evr], "id": identifier, "security": security, "severity": severity}


def pending(upgrades, advisories=(), **repo):
    answer = {
        "upgrades": upgrades,
        "advisories": advisories,
        "repos": [{"id": "updates", "as_of": 1700000000.0, "advisories": True, **repo}],
    }
    return dnf.pending_of(answer, {"openssl": Installed("openssl", "1:3.0-1", "install", "installed")}, "x86_64")


def test_fix_is_the_lowest_offered_version_that_has_it():
    (update,) = pending(
        [upgrade("1:3.0-3"), upgrade("1:3.0-4"), upgrade("1:3.0-5")], [advisory("1:3.0-2"), advisory("1:3.0-4", security=False)]
    ).updates
    assert (update.security_version, update.candidate, update.held) == ("1:3.0-3", "1:3.0-5", False)
    assert update.archives == ("updates", "RHSA-1 critical")


def test_fix_that_an_exclude_hides_is_held():
    (update,) = pending([upgrade("1:3.0-2", allowed=False)], [advisory("1:3.0-2")]).updates
    assert (update.held, update.security_version) == (True, "1:3.0-2")


def test_fix_that_no_repository_has_is_pending_all_the_same():
    found = pending([], [advisory("1:3.0-9")])
    assert [(u.security_version, u.held) for u in found.security] == [("1:3.0-9", False)]


def test_repository_without_metadata_leaves_everything_unknown():
    assert "no package lists" in pending([], as_of=None).blind()
    answer = {"upgrades": [], "advisories": [], "repos": [{"id": "updates", "as_of": 1.0, "advisories": False}]}
    assert "carries security updates" in dnf.pending_of(answer, {}, "x86_64").blind()
    assert pending([]).blind() == ""


def test_foreign_architecture_is_named_and_found_again():
    assert dnf.shown_name("glibc", "i686", "x86_64") == "glibc.i686"
    assert dnf.name_and_arch("glibc.i686", "x86_64") == ("glibc", "i686")
    assert dnf.name_and_arch("python3.11", "x86_64") == ("python3.11", "x86_64")
    assert dnf.spec("glibc.i686", "2.34-1") == "glibc-2.34-1.i686"
    assert dnf.spec("openssl", "1:3.0-1") == "openssl-1:3.0-1"


def test_several_kernels_are_normal_and_two_of_anything_else_are_not():
    rpms = [("kernel", "x86_64", "5.14-1"), ("kernel", "x86_64", "5.14-2"), ("bash", "x86_64", "5.1-1"), ("bash", "x86_64", "5.1-2")]
    found = dnf.installed_of(rpms, {"kernel"})
    assert (found["kernel"].version, found["kernel"].is_whole) == ("5.14-2", True)
    assert (found["bash"].version, found["bash"].is_whole) == ("5.1-2", False)


@pytest.mark.parametrize(
    ("rc", "said", "expected"),
    [
        (0, "Metadata cache created.", ""),
        (0, "Ignoring repositories: updates\nMetadata cache created.", "Ignoring repositories: updates"),
        (0, "There are no enabled repositories in \"/etc/yum.repos.d\".", "there are no enabled repositories"),
        (1, "Error: Failed to download metadata for repo 'updates'", "Error: Failed to download metadata for repo 'updates'"),
        (3, "", "dnf makecache ended with 3"),
    ],
)  # fmt: skip
def test_refresh_that_missed_something_is_told(rc, said, expected):
    assert dnf.refresh_problem(rc, said) == expected


def test_dnf_5_and_a_missing_dnf_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MaintenanceError, match="not installed"):
        dnf.interpreter(Host())
    (tmp_path / "dnf").write_bytes(b"\x7fELF")
    (tmp_path / "dnf").chmod(0o755)
    with pytest.raises(MaintenanceError, match="not dnf 4"):
        dnf.interpreter(Host())


def test_room_is_counted_by_folder_and_kernels_need_boot(monkeypatch):
    lib = {"name": "lib", "fetch": 5, "unpacked": 100, "replaced": 90}
    shrunk = {"name": "shrunk", "fetch": 0, "unpacked": 10, "replaced": 90}
    assert dnf_checks.needs([]) == {}
    assert dnf_checks.needs([lib, shrunk]) == {"/var/cache/dnf": 5, "/usr": 110}
    monkeypatch.setattr(apt_space, "kernel_bytes", lambda: 70)
    kernels = [
        {"name": name, "fetch": 1, "unpacked": 2, "replaced": 0}
        for name in ("kernel", "kernel-core", "kernel-modules-core", "kernel-rt-core")
    ]
    assert dnf_checks.needs(kernels)["/boot"] == 140


def test_program_for_dnfs_own_interpreter_keeps_to_old_syntax():
    """RHEL 8 runs dnf in Python 3.6."""
    source = dnf_session.__loader__.get_source(dnf_session.__name__)
    assert "from __future__" not in source
    compile(source, "dnf_session", "exec")


@pytest.mark.parametrize(
    ("rc", "said", "verdict"),
    [
        (0, "No core libraries or services have been updated since boot-up.\nReboot should not be necessary.\n", "not_required"),
        (1, "Core libraries or services have been updated since boot-up:\n  * kernel\n\nReboot is required to fully utilize these updates.\n", "required"),
        (1, "No such command: needs-restarting. Please use /usr/bin/dnf --help\n", "unknown"),
        (0, "", "unknown"),
    ],
)  # fmt: skip
def test_needs_restarting_is_read_and_not_its_exit_code_alone(rc, said, verdict):
    assert need.from_needs_restarting(rc, said, "why").verdict == verdict


@pytest.mark.parametrize(
    ("running", "newest"),
    [
        ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-503.11.1.el9_5.x86_64"),
        ("4.18.0-553.rt7.342.el8_10.x86_64", "4.18.0-553.16.1.rt7.357.el8_10.x86_64"),
        ("5.15.0-206.153.7.el9uek.x86_64", "5.15.0-300.161.13.el9uek.x86_64"),
        ("6.1.0-0.deb11.9-amd64", "6.1.0-0.deb11.21-amd64"),
        ("6.8.5-301.fc40.x86_64", "6.11.4-101.fc40.x86_64"),
    ],
)
def test_newer_kernel_requires_a_reboot_whatever_its_release_of_the_distribution(running, newest):
    """What the distribution's release adds to a kernel's name is no flavour."""
    assert need.from_kernel(running, "", [running, newest], "", False).verdict == "required"
    assert need.from_kernel(newest, "", [running, newest], "", False).verdict == "not_required"
    assert need.from_kernel(running, "", [running, "9.9-1.el9.aarch64"], "", False).verdict == "not_required"


def test_an_update_is_as_urgent_as_the_worst_it_mends_since_the_first_of_them():
    rated = [
        {**advisory("1:3.0-2", severity="moderate", identifier="RHSA-1"), "issued": "2026-03-01T10:00:00+00:00"},
        {**advisory("1:3.0-2", severity="important", identifier="RHSA-2"), "issued": "2026-04-01T10:00:00+00:00"},
        {**advisory("1:3.0-2", severity="critical", identifier="RHBA-3", security=False), "issued": "2026-01-01T10:00:00+00:00"},
    ]
    (update,) = pending([upgrade("1:3.0-2")], rated).updates
    assert (update.severity, update.issued) == ("important", "2026-03-01T10:00:00+00:00")
