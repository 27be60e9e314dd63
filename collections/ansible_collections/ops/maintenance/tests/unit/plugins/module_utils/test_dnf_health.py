# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of rpm's packages is not whole, what may be removed, and what else is at work; the real dnf is asked in tests/hosts/test_dnf.py."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    dnf_automatic,
    dnf_downgrade,
    dnf_health,
    dnf_history,
    dnf_lock,
    dnf_packages,
    dnf_removal,
)
from ansible_collections.ops.maintenance.plugins.module_utils.apt_health import Removal
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.package_plan import Rules
from ansible_collections.ops.maintenance.plugins.module_utils.package_verify import reason_for

FAILED = (7, "warning: %post(web-1:2-1.x86_64) scriptlet failed, exit status 3")


@pytest.mark.parametrize(
    ("item", "said", "wrong"),
    [
        (("web", "x86_64", "1:2-1", 7, 1), [FAILED], "its %post scriptlet failed, exit status 3"),
        (("web", "x86_64", "1:2-1", 8, 1), [FAILED], ""),
        (("web", "x86_64", "1:3-1", 7, 1), [FAILED], ""),
        (("web", "x86_64", "1:2-1", 7, 1), [(7, FAILED[1].replace("%post", "%postun"))], ""),
        (("web", "x86_64", "0:2-1", 7, 0), [], "transaction 7 was interrupted or failed"),
        (("web", "x86_64", "0:2-1", 7, 1), [], ""),
    ],
)
def test_the_last_transaction_of_a_version_says_whether_it_is_whole(item, said, wrong):
    """A later one that went well, another version, and the script of the version that left say nothing against it."""
    plain = item[2][2:] if item[2].startswith("0:") else item[2]
    assert dnf_history.judge([item], said) == ({("web", "x86_64", plain): wrong} if wrong else {})


def test_no_history_is_no_transaction_and_a_damaged_one_is_an_error(tmp_path):
    path = tmp_path / "history.sqlite"
    assert dnf_history.flags(str(path)) == {}
    path.write_bytes(b"no database " * 100)
    with pytest.raises(MaintenanceError, match="history could not be read"):
        dnf_history.flags(str(path))


def test_what_is_wrong_with_a_version_makes_its_package_not_whole():
    rows = [("kernel", "x86_64", "5-1"), ("kernel", "x86_64", "5-2"), ("lib", "x86_64", "1-1")]
    found = dnf_packages.installed_of(rows, {"kernel"}, {("kernel", "x86_64", "5-1"): "bad", ("lib", "x86_64", "0-9"): "gone"})
    assert (found["kernel"].version, found["kernel"].flag) == ("5-2", "5-1: bad")
    assert found["lib"].is_whole


def test_older_versions_beside_a_newer_one_are_found_by_rpms_order():
    rows = [
        ("a", "noarch", "1.9-1"),
        ("a", "noarch", "1.10-1"),
        ("a", "i686", "1.9-1"),
        ("kernel", "x86_64", "5-1"),
        ("kernel", "x86_64", "5-2"),
    ]
    assert dnf_health.beside_newer(rows, {"kernel"}) == (("a", "noarch", "1.9-1"),)


def test_unmet_dependencies_are_read_whole():
    text = (
        "Unsatisfied dependencies for app-1.1-1.noarch:\n\tlib = 1.1 is needed by (installed) app-1.1-1.noarch\n"
        "\t(b if c) is needed by app-1.1-1.noarch\n.......T.  c /etc/x\n"
    )
    assert dnf_health.parse_unmet(text) == ("(b if c)", "lib = 1.1")


@given(st.text(max_size=300))
def test_any_text_is_read_as_unmet_dependencies(text):
    assert all(dnf_health.parse_unmet(text))


def test_nothing_is_repaired_that_needs_a_person():
    health = dnf_health.Health(("b-2-1.noarch",), (("b", "noarch", "1-1"),), (("c", "noarch", "2-1"),), ("lib = 1.1",))
    assert health.repairs() == ["complete", "fix_broken"]
    assert health.said("complete") == "dnf -y remove --duplicates and upgrade c-2-1.noarch; dnf -y reinstall b-2-1.noarch"
    assert health.said("fix_broken") == "dnf -y install lib = 1.1"
    assert dnf_health.obstacle(health, allowed=True) == ""
    assert "not allowed" in dnf_health.obstacle(health, allowed=False)
    stuck = health._replace(unfixable="it would remove app")
    assert stuck.repairs() == []
    judged = dnf_health.interrupted_finding(stuck, allowed=True)
    assert (judged.state, "it would remove app" in judged.summary) == ("critical", True)
    assert dnf_health.interrupted_finding(dnf_health.Health(), allowed=False).state == "ok"


def kernel(version, *parts, flavour="kernel", arch="x86_64"):
    return [(flavour + part, arch, version) for part in ("", *parts)]


PARTS = ("-core", "-modules", "-modules-core", "-devel")
KERNELS = [*kernel("5.14-9", *PARTS), *kernel("5.14-10", *PARTS), *kernel("5.14-11", *PARTS)]


@pytest.mark.parametrize(
    ("running", "keep", "old"),
    [
        ("5.14-11.x86_64", 2, "5.14-9"),
        ("5.14-9.x86_64", 2, ""),
        ("5.14-9.x86_64+debug", 2, ""),
        ("5.14-11.x86_64", 3, ""),
        ("5.14-11.x86_64", 0, ""),
    ],
)
def test_old_kernels_go_with_their_parts_and_never_the_running_one(running, keep, old):
    found = dnf_removal.old_kernels(KERNELS, running, keep)
    assert found == sorted(package for package in KERNELS if package[2] == old)


def test_each_flavour_keeps_its_own_and_what_is_no_kernel_stays():
    others = [
        *kernel("5.14-8", "-core", flavour="kernel-rt"),
        ("kernel-devel", "x86_64", "5.14-1"),
        ("kmod-x", "x86_64", "1-1"),
        ("kmod-x", "x86_64", "2-1"),
        ("kmod-x", "x86_64", "3-1"),
    ]
    assert dnf_removal.old_kernels([*KERNELS, *others], "5.14-11.x86_64", 2) == sorted(kernel("5.14-9", *PARTS))


def test_dnf_that_keeps_fewer_kernels_than_asked_for_is_told():
    assert dnf_removal.finding(Removal(), 3, 2, autoremove=False).state == "ok"
    assert dnf_removal.finding(Removal(), 0, 5, autoremove=False).state == "ok"
    judged = dnf_removal.finding(Removal(["kernel-1-1.x86_64"]), 3, 5, autoremove=False)
    assert (judged.state, judged.evidence) == ("warning", ["old kernel: kernel-1-1.x86_64"])


RULES = Rules(hold=["web*"], blocklist=["db=2*"])


@pytest.mark.parametrize(
    ("automatic", "main", "timers", "expected"),
    [
        ("[commands]\napply_updates = yes\n", "", [dnf_automatic.BY_CONFIG], ["db, web"]),
        ("[commands]\napply_updates = yes\n", "", [], []),
        ("[commands]\napply_updates = no\n", "", [dnf_automatic.BY_CONFIG], []),
        ("", "", [dnf_automatic.INSTALL], ["db, web"]),
        ("[base]\nexcludepkgs = d*\n", "[main]\nexclude=web\n", [dnf_automatic.INSTALL], []),
        ("[base]\nexcludepkgs=db,web\n[commands]\nreboot = when-needed\n", "", [dnf_automatic.INSTALL], ["reboots the host"]),
    ],
)
def test_dnf_automatic_is_compared_with_the_inventory(tmp_path, automatic, main, timers, expected):
    (tmp_path / "automatic").write_text(automatic, encoding="utf-8")
    (tmp_path / "main").write_text(main, encoding="utf-8")
    read = [dnf_automatic.read(str(tmp_path / name)) for name in ("automatic", "main")]
    found = dnf_automatic.problems(*read, timers, ["db", "lib", "web"], RULES)
    assert [[part in said for part in expected] for said in found] == [[True]] * len(expected)


def test_settings_of_dnf_automatic_that_cannot_be_read_are_an_error(tmp_path):
    (tmp_path / "bad").write_text("no section\n", encoding="utf-8")
    with pytest.raises(ValueError, match="bad"):
        dnf_automatic.read(str(tmp_path / "bad"))
    assert dnf_automatic.read(str(tmp_path / "absent")) == {}


class Quiet(Host):
    """Whose rpm keeps its database in a folder of the test."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, argv, **_more):
        return Ran(argv, 0, f"{self.folder}\n", "")


def test_lock_is_held_by_a_live_process_only(tmp_path):
    lock = tmp_path / "lock.pid"
    host = Quiet(tmp_path)
    for text in ("999999999", "", "no number"):
        lock.write_text(text, encoding="ascii")
        assert dnf_lock.holder(host, [str(lock), str(tmp_path / "absent")]) == ""
    lock.write_text(str(os.getpid()), encoding="ascii")
    assert f"process {os.getpid()}" in dnf_lock.holder(host, [str(lock)])


@pytest.mark.parametrize(
    ("old", "offered", "expected"),
    [("1:1-1", {"web-1:1-1.x86_64"}, "web-1:1-1.x86_64"), ("1:1-1", set(), "FILE"), ("1:0-9", set(), ""), ("1:0-8", set(), "")],
)
def test_way_back_is_a_repository_else_the_cache_else_nothing(tmp_path, old, offered, expected):
    folder = tmp_path / "updates-1" / "packages"
    folder.mkdir(parents=True)
    (folder / "web-1-1.x86_64.rpm").touch()
    (folder / "web-0-8.x86_64.rpm").symlink_to(folder / "web-1-1.x86_64.rpm")
    found = dnf_downgrade._spec("web", "x86_64", old, offered, str(tmp_path))
    assert found == (str(folder / "web-1-1.x86_64.rpm") if expected == "FILE" else expected)


def test_reason_of_a_failed_package_is_what_its_scriptlet_said():
    said = "Running transaction\noh no\nError in PREIN scriptlet in rpm package web\nError: Transaction failed\n"
    assert "oh no; Error in PREIN scriptlet in rpm package web" in reason_for("web", said)
    assert reason_for("we", said) == ""
