# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    security_aide,
    security_dpkg,
    security_packages,
    security_privileges,
    security_rpm,
    security_trees,
    security_walk,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

OPTIONS = {
    **security_privileges.OPTIONS,
    **security_trees.OPTIONS,
    **security_packages.OPTIONS,
    **security_aide.OPTIONS,
    **security_walk.OPTIONS,
    "state_dir": {"type": "path"},
    "accept_baseline": {"type": "bool", "default": False},
}


def review_of(tmp_path, host=None, check_mode=False, **given_options):
    params = filled(OPTIONS, {"state_dir": str(tmp_path / "state"), **given_options})
    return Review(params, host or Host(), check_mode, Host().now())


def privileges(tmp_path, **more):
    return security_privileges.look(review_of(tmp_path, privileged_roots=[str(tmp_path / "root")], **more))[0]


def program(path, mode):
    path.write_bytes(b"x")
    path.chmod(mode)
    return path


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def test_first_sight_becomes_the_baseline_and_changes_are_reported(tmp_path, root):
    program(root / "known", 0o4755)
    program(root / "plain", 0o755)
    assert privileges(tmp_path, check_mode=True).state == "ok"
    assert not (tmp_path / "state").exists()
    first = privileges(tmp_path)
    assert (first.state, "1 privileged file became" in first.summary) == ("ok", True)
    assert privileges(tmp_path).state == "ok"
    program(root / "new", 0o2755)
    found = privileges(tmp_path)
    assert (found.state, found.value) == ("warning", 1)
    program(root / "root-shell", 0o4755)
    found = privileges(tmp_path)
    assert found.state == ("critical" if os.geteuid() == 0 else "warning")
    assert any(line.startswith(f"added {root}/root-shell: 4755") for line in found.evidence)


def test_accepting_ends_a_drift_and_a_lost_bit_is_a_change(tmp_path, root):
    known = program(root / "known", 0o2755)
    privileges(tmp_path)
    known.chmod(0o755)
    found = privileges(tmp_path)
    assert (found.state, found.evidence[0].split()[0]) == ("warning", "removed")
    assert privileges(tmp_path, accept_baseline=True, check_mode=True).state == "ok"
    assert privileges(tmp_path).state == "warning"
    assert privileges(tmp_path, accept_baseline=True).state == "ok"
    assert privileges(tmp_path).state == "ok"


def test_hostile_names_stay_on_one_line_and_links_are_not_followed(tmp_path, root):
    privileges(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    program(outside / "hidden", 0o4755)
    (root / "link").symlink_to(outside)
    program(root / "a\nb\x1b[31m", 0o2755)
    found = privileges(tmp_path)
    assert found.value == 1
    assert "\n" not in found.evidence[0]
    assert "\x1b" not in found.as_dict()["evidence"][0]


def test_a_root_that_is_a_link_a_file_or_absent_is_unknown(tmp_path, root):
    root.rmdir()
    assert privileges(tmp_path).state == "unknown"
    root.write_text("")
    assert "not a folder" in privileges(tmp_path).summary
    root.unlink()
    (tmp_path / "real").mkdir()
    root.symlink_to(tmp_path / "real")
    assert "symbolic link" in privileges(tmp_path).summary


def test_what_could_not_be_read_is_unknown_and_nothing_is_accepted_or_counts_as_gone(tmp_path, root, monkeypatch):
    program(root / "known", 0o2755)
    privileges(tmp_path)
    real = os.getxattr

    def refuse(path, *arguments, **options):
        if str(path).endswith("other"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    (root / "known").unlink()
    program(root / "other", 0o755)
    monkeypatch.setattr(os, "getxattr", refuse)
    found = privileges(tmp_path, accept_baseline=True)
    assert (found.state, found.value, "other" in found.not_covered) == ("unknown", 0, True)
    monkeypatch.undo()
    assert privileges(tmp_path).evidence[0].startswith("removed")


def test_a_walk_ends_when_its_time_is_up(tmp_path, root):
    program(root / "known", 0o2755)
    unread = []
    assert list(security_walk.below(str(root), time.monotonic() - 1, unread)) == []
    assert "time was up" in unread[0]


def test_another_file_system_is_not_entered(tmp_path, root):
    (root / "mount").mkdir()
    program(root / "mount" / "inside", 0o2755)
    real = os.stat

    def elsewhere(path, *arguments, **options):
        status = real(path, *arguments, **options)
        if path == "mount":
            return os.stat_result([*status[:2], status.st_dev + 1, *status[3:]])
        return status

    names = [met.relative for met in security_walk.below(str(root), time.monotonic() + 9, [])]
    assert names == ["mount", os.path.join("mount", "inside")]
    security_walk.os.stat = elsewhere
    try:
        names = [met.relative for met in security_walk.below(str(root), time.monotonic() + 9, [])]
    finally:
        security_walk.os.stat = real
    assert names == ["mount"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0), "cap_net_raw=ep"),
        (struct.pack("<IIIII", 0x02000000, 1 << 10, 0, 1 << 7, 0), "cap_net_bind_service,cap_bpf=p"),
        (struct.pack("<IIIIII", 0x03000001, 0, 1 << 7, 0, 0, 1000), "cap_setuid=i"),
        (struct.pack("<III", 0x01000001, 1 << 21, 0), "cap_sys_admin=ep"),
        (b"xx", "capabilities of an unknown form (7878)"),
    ],
)
def test_capabilities_are_said_as_getcap_says_them(raw, said):
    assert security_privileges.capabilities(raw) == said


@given(st.binary(max_size=40))
def test_any_attribute_is_read_without_an_error(raw):
    assert isinstance(security_privileges.capabilities(raw), str)


def test_a_new_capability_is_critical():
    change = security_privileges.Change("x", "", "0755 root:root cap_setuid=ep")
    assert security_privileges.rank(change) == "critical"


def tree(tmp_path, severity="critical", exclude=(), **more):
    item = {"path": str(tmp_path / "root"), "severity": severity, "exclude": list(exclude)}
    return security_trees.look(review_of(tmp_path, trees=[item], **more))[0]


def test_a_tree_is_unknown_until_its_manifest_is_accepted(tmp_path, root):
    (root / "a").write_text("a")
    assert tree(tmp_path).state == "unknown"
    assert tree(tmp_path).state == "unknown"
    assert tree(tmp_path, accept_baseline=True, check_mode=True).state == "ok"
    assert tree(tmp_path).state == "unknown"
    assert tree(tmp_path, accept_baseline=True).state == "ok"
    assert tree(tmp_path).state == "ok"


def test_every_kind_of_change_in_a_tree_is_found(tmp_path, root):
    for name in ("content", "mode", "gone", "kind"):
        (root / name).write_text("one")
    (root / "link").symlink_to("content")
    (root / "sub").mkdir()
    tree(tmp_path, accept_baseline=True)
    status = (root / "content").stat()
    (root / "content").write_text("two")
    os.utime(root / "content", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / "mode").chmod(0o600)
    (root / "gone").unlink()
    (root / "kind").unlink()
    (root / "kind").mkdir()
    (root / "link").unlink()
    (root / "link").symlink_to("/etc/passwd")
    (root / "sub" / "a\nb").write_text("")
    found = tree(tmp_path)
    assert (found.state, found.value) == ("critical", 6)
    told = sorted(" ".join(line.split()[:2]).rstrip(":") for line in found.evidence)
    assert told == ["added sub/a\\nb", "changed content", "changed kind", "changed link", "changed mode", "removed gone"]
    assert tree(tmp_path, severity="warning").state == "warning"


def test_what_is_excluded_may_change(tmp_path, root):
    (root / "cache").mkdir()
    tree(tmp_path, accept_baseline=True, exclude=["cache/*", "*.pyc"])
    (root / "cache" / "x").write_text("")
    (root / "a.pyc").write_text("")
    assert tree(tmp_path, exclude=["cache/*", "*.pyc"]).state == "ok"
    assert tree(tmp_path).state == "critical"


def test_a_damaged_manifest_is_unknown_and_never_taken_for_none(tmp_path, root):
    tree(tmp_path, accept_baseline=True)
    kept = next((tmp_path / "state").iterdir())
    kept.write_text("{")
    assert (tree(tmp_path).state, kept.read_text()) == ("unknown", "{")


def test_paths_that_cannot_be_meant_are_refused():
    params = filled(OPTIONS, {"trees": [{"path": "a"}, {"path": "/b"}, {"path": "/b"}], "privileged_roots": ["x"], "aide_config": "y"})
    assert len(security_trees.validate(params)) == 2
    assert len(security_privileges.validate(params)) == 1
    assert len(security_aide.validate(params)) == 1


class Dpkg:
    """A root folder with a database of dpkg."""

    def __init__(self, folder):
        self.folder, self.status = folder, ""
        (folder / "var/lib/dpkg/info").mkdir(parents=True)

    def put(self, path, text):
        place = self.folder / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def package(self, name, files, conffiles=(), sums=True, state="install ok installed"):
        self.status += f"Package: {name}\nStatus: {state}\nArchitecture: amd64\n"
        if conffiles:
            self.status += "Conffiles:\n" + "".join(f" {path} {md5(text)}\n" for path, text in conffiles)
        self.status += "Description: x\n\n"
        self.put("var/lib/dpkg/status", self.status)
        for path, text in [*files, *conffiles]:
            self.put(path, text)
        self.put(f"var/lib/dpkg/info/{name}.list", "".join(f"{path}\n" for path, _text in files))
        if sums:
            self.put(f"var/lib/dpkg/info/{name}:amd64.md5sums", "".join(f"{md5(text)}  {path[1:]}\n" for path, text in files))

    def findings(self, **more):
        review = review_of(self.folder, package_integrity=True, **more)
        return {(finding.id, finding.subject): finding for finding in security_packages.look(review, str(self.folder))}


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


@pytest.fixture
def dpkg(tmp_path):
    return Dpkg(tmp_path)


FILES, CONFFILES = "security.package_files", "security.package_conffiles"


def test_packages_as_they_were_brought_are_ok(dpkg):
    dpkg.package("one", [("/usr/bin/one", "1")], [("/etc/one", "conf")])
    dpkg.package("gone", [("/usr/bin/gone", "1")], state="deinstall ok config-files")
    (dpkg.folder / "usr/bin/gone").unlink()
    found = dpkg.findings()
    assert {key: finding.state for key, finding in found.items()} == {(FILES, "packages"): "ok", (CONFFILES, "packages"): "ok"}
    assert "2 files of 1 package" in found[FILES, "packages"].summary


def test_changed_and_missing_files_are_told_by_package(dpkg):
    dpkg.package("one", [("/usr/bin/one", "1")])
    dpkg.package("two", [("/usr/bin/two", "2"), ("/usr/share/two", "2")])
    dpkg.package("three", [("/usr/lib/three", "3")])
    dpkg.put("/usr/bin/one", "x")
    (dpkg.folder / "usr/share/two").unlink()
    (dpkg.folder / "usr/lib/three").unlink()
    (dpkg.folder / "usr/lib/three").symlink_to("/bin/sh")
    found = dpkg.findings()
    assert {subject: finding.state for (name, subject), finding in found.items() if name == FILES} == {
        "one": "critical",
        "two": "warning",
        "three": "critical",
    }
    assert list(found[FILES, "one"].evidence) == ["/usr/bin/one has another content"]
    assert list(found[FILES, "two"].evidence) == ["/usr/share/two is missing"]


def test_changed_configuration_is_told_and_no_fault(dpkg):
    dpkg.package("one", [("/usr/bin/one", "1")], [("/etc/one", "conf")])
    dpkg.put("/etc/one", "ours")
    found = dpkg.findings()
    assert found[FILES, "packages"].state == found[CONFFILES, "packages"].state == "ok"
    assert list(found[CONFFILES, "packages"].evidence) == ["/etc/one has another content"]


def test_diversions_are_honoured(dpkg):
    dpkg.package("one", [("/usr/bin/one", "1")])
    dpkg.package("two", [])
    dpkg.put("/usr/bin/one.real", "1")
    dpkg.put("/usr/bin/one", "ours")
    assert dpkg.findings()[FILES, "one"].state == "critical"
    dpkg.put("var/lib/dpkg/diversions", "/usr/bin/one\n/usr/bin/one.real\n:\n")
    assert dpkg.findings()[FILES, "packages"].state == "ok"
    dpkg.put("var/lib/dpkg/diversions", "/usr/bin/one\n/usr/bin/one.real\none\n")
    assert dpkg.findings()[FILES, "one"].state == "critical"


def test_what_dpkg_was_told_to_leave_out_is_not_missed(dpkg):
    dpkg.package("one", [("/usr/share/doc/one/README", "1"), ("/usr/share/doc/one/copyright", "2")])
    for name in ("README", "copyright"):
        (dpkg.folder / "usr/share/doc/one" / name).unlink()
    dpkg.put("etc/dpkg/dpkg.cfg.d/less", "path-exclude=/usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n")
    assert list(dpkg.findings()[FILES, "one"].evidence) == ["/usr/share/doc/one/copyright is missing"]


def test_packages_without_sums_are_said(dpkg):
    dpkg.package("one", [("/usr/bin/one", "1")])
    dpkg.package("bare", [("/usr/bin/bare", "1")], sums=False)
    dpkg.package("meta", [], sums=False)
    assert "1 package without sums: bare" in dpkg.findings()[FILES, "packages"].not_covered


def test_what_could_not_be_checked_is_unknown(dpkg, monkeypatch):
    dpkg.package("one", [("/usr/bin/one", "1")])
    dpkg.put("var/lib/dpkg/info/one:amd64.md5sums", "no sum\n")
    assert dpkg.findings()[FILES, "packages"].state == "unknown"
    dpkg.put("var/lib/dpkg/info/one:amd64.md5sums", f"{md5('1')}  usr/bin/one\n")
    assert dpkg.findings(integrity_seconds=-1.0)[FILES, "packages"].state == "unknown"

    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(security_dpkg, "_md5", refuse)
    assert "become: true" in dpkg.findings()[FILES, "packages"].not_covered
    dpkg.put("var/lib/dpkg/status", "")
    assert dpkg.findings()[FILES, "packages"].state == "unknown"


def test_many_changed_packages_do_not_flood_the_record(dpkg):
    for number in range(33):
        dpkg.package(f"p{number}", [(f"/usr/bin/p{number}", "1")])
        dpkg.put(f"/usr/bin/p{number}", "x")
    found = dpkg.findings()
    assert len([key for key in found if key[0] == FILES]) == 31
    assert found[FILES, "packages"].summary.startswith("3 more")


RPM = """S.5....T.  c /etc/ssh/sshd_config
..5....T.    /usr/bin/ls
.M.......    /var/log/audit
missing     /usr/share/doc/x
missing   d /usr/share/man/y
.........  g /run/z
........P    /usr/bin/ping
"""


def test_the_lines_of_rpm_are_read():
    checked = security_rpm.parse(RPM)
    assert checked.conffiles == ["/etc/ssh/sshd_config differs (S5T)"]
    assert checked.grave == {"rpm"}
    assert [line.split()[0] for line in checked.changed["rpm"]] == ["/usr/bin/ls", "/var/log/audit", "/usr/share/doc/x", "/usr/bin/ping"]
    assert not security_rpm.parse(".M.......    /var/log/audit\n").grave
    assert security_rpm.parse("error: something\n").unread
    assert security_rpm.parse("..?......    /etc/shadow\n").unread == ["/etc/shadow: not all of it could be read"]


class RpmHost(Host):
    def __init__(self, known="bash\n", told="", errors=""):
        self.known, self.told, self.errors = known, told, errors

    def which(self, name):
        return f"/usr/bin/{name}" if name == "rpm" and self.known is not None else None

    def run(self, argv, **_):
        return Ran(argv, 0, self.known, "") if "-qa" in argv else Ran(argv, int(bool(self.told)), self.told, self.errors)


@pytest.mark.parametrize(
    ("host", "state"),
    [
        (RpmHost(), "ok"),
        (RpmHost(told="..5......    /usr/bin/ls\n"), "critical"),
        (RpmHost(known=""), "unknown"),
        (RpmHost(errors="error: rpmdb open failed\n"), "unknown"),
        (RpmHost(known=None), "unknown"),
    ],
)
def test_a_host_with_rpm_is_asked_by_rpm(tmp_path, host, state):
    found = security_packages.look(review_of(tmp_path, host, package_integrity=True), str(tmp_path))
    assert found[0].state == state


CHANGED = """AIDE found differences between database and filesystem!!

Summary:
  Total number of entries:\t10
  Added entries:\t\t1
  Removed entries:\t\t0
  Changed entries:\t\t1

---------------------------------------------------
Added entries:
---------------------------------------------------

f++++++++++++++++: /etc/new

---------------------------------------------------
Changed entries:
---------------------------------------------------

f   ...    .C... : /etc/passwd

---------------------------------------------------
Detailed information about changes:
---------------------------------------------------

File: /etc/passwd
 SHA256 : x | y
"""


@pytest.mark.parametrize(
    ("code", "text", "state"),
    [
        (0, "AIDE found NO differences between database and filesystem. Looks okay!!\n", "ok"),
        (5, CHANGED, "critical"),
        (0, CHANGED, "unknown"),
        (1, CHANGED, "unknown"),
        (0, "", "unknown"),
        (5, "AIDE found NO differences between database and filesystem. Looks okay!!\n", "unknown"),
        (17, "", "unknown"),
        (18, CHANGED, "unknown"),
        (-9, "", "unknown"),
    ],
)
def test_code_and_report_of_aide_have_to_agree(code, text, state):
    found = security_aide.verdict(code, security_aide.parse(text), "aide ended")
    assert found.state == state
    if state == "critical":
        assert list(found.evidence) == ["added /etc/new", "changed /etc/passwd"]


class NoAide(Host):
    def run(self, *_arguments, **_options):
        raise MaintenanceError("The command aide is not installed.")


def test_a_host_without_aide_is_unknown(tmp_path):
    assert security_aide.look(review_of(tmp_path, NoAide(), aide=True))[0].state == "unknown"


@pytest.mark.parametrize(
    ("part", "blind", "answer"),
    [
        (security_privileges, "privileged", {}),
        (security_trees, "changes", []),
        (security_packages.security_dpkg, "check", security_dpkg.Checked()),
        (security_aide, "parse", security_aide.Report({"added": 0, "removed": 0, "changed": 0}, ())),
    ],
)
def test_the_self_tests_notice_blind_verifiers(monkeypatch, part, blind, answer):
    tested = security_packages if part is security_dpkg else part
    review = Review({}, Host(), False, Host().now())
    assert tested.passes_bad_sample(review) == ""
    monkeypatch.setattr(part, blind, lambda *_: answer)
    assert tested.passes_bad_sample(review)
