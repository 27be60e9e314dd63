"""What changed on a real host is found, and what did not is not: dpkg's and rpm's files, capabilities, AIDE."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    security_aide,
    security_packages,
    security_privileges,
    security_review,
    security_rpm,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

OPTIONS = {**security_review.OPTIONS, "state_dir": {"type": "path"}, "self_test": {"type": "bool"}}
FILES = "security.package_files"


def review_of(tmp_path, **given):
    params = filled(OPTIONS, {"state_dir": str(tmp_path / "state"), **given})
    return Review(params, Host(), False, Host().now())


def packages(tmp_path, **given):
    return {
        (found.id, found.subject): found
        for found in security_packages.look(review_of(tmp_path, package_integrity=True, integrity_seconds=600.0, **given))
    }


def debsums_says(*arguments):
    """What the real debsums finds, as a second opinion."""
    ran = subprocess.run(["debsums", *arguments], capture_output=True, text=True, check=False)
    return {line.split()[0] for line in ran.stdout.splitlines() if line.startswith("/")}


@pytest.fixture
def changed_packages():
    """A changed program, a program that is gone, changed configuration, and a program that was diverted on purpose."""
    program, gone, config, diverted = (Path(p) for p in ("/usr/bin/xz", "/usr/sbin/logrotate", "/etc/logrotate.conf", "/usr/bin/zstd"))
    kept = {path: (path.read_bytes(), path.stat().st_mode) for path in (program, gone, config)}
    diversion = ["--local", "--rename", "--divert", f"{diverted}.real"]
    subprocess.run(["dpkg-divert", *diversion, "--add", str(diverted)], check=True, capture_output=True)
    try:
        program.write_bytes(kept[program][0] + b"x")
        config.write_bytes(kept[config][0] + b"# ours\n")
        diverted.write_text("#!/bin/sh\nexec /usr/bin/zstd.real\n")
        gone.unlink()
        yield program, gone, config
    finally:
        diverted.unlink()
        subprocess.run(["dpkg-divert", *diversion, "--remove", str(diverted)], check=True, capture_output=True)
        for path, (content, mode) in kept.items():
            path.write_bytes(content)
            path.chmod(mode)


def test_packages_are_judged_as_debsums_judges_them(tmp_path, changed_packages):
    program, gone, config = changed_packages
    found = packages(tmp_path)
    states = {subject: one.state for (name, subject), one in found.items() if name == FILES}
    assert states == {"xz-utils": "critical", "logrotate": "warning"}
    told = {line.split()[0] for (name, _), one in found.items() if name == FILES for line in one.evidence}
    assert told == {str(program), str(gone)}
    assert told >= debsums_says("--changed", "xz-utils", "zstd") == {str(program)}
    assert f"{config} has another content" in found["security.package_conffiles", "packages"].evidence


def test_the_whole_review_takes_less_than_five_seconds(tmp_path):
    given = {
        "journal": "false", "updates": False, "accounts": False, "world_writable_roots": ["/usr", "/etc", "/srv"], "privileged_roots": ["/"],
        "package_integrity": True, "trees": [{"path": "/etc"}], "listening": ["tcp/22"], "firewall": "review", "accept_baseline": True,
        "integrity_seconds": 600.0, "state_dir": str(tmp_path / "state"),
    }  # fmt: skip
    begin = time.process_time()  # not by the clock: other suites run at the same time
    outcome = security_review.run(filled(OPTIONS, given), False, Host())
    assert time.process_time() - begin < 5
    assert {found.id: found.state for found in outcome.findings if found.id == FILES} == {FILES: "ok"}


def privileges(tmp_path):
    return security_privileges.look(review_of(tmp_path, privileged_roots=["/usr"]))[0]


def test_a_new_capability_is_seen_on_the_real_file_system(tmp_path):
    assert privileges(tmp_path).state == "ok"
    planted = Path("/usr/local/bin/planted")
    shutil.copy("/bin/true", planted)
    try:
        os.setxattr(planted, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 7, 0, 0, 0))
        found = privileges(tmp_path)
        assert (found.state, found.value) == ("critical", 1)
        assert found.evidence[0].endswith("0755 root:root cap_setuid=ep")
        os.setxattr(planted, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
        assert privileges(tmp_path).evidence[0].endswith("cap_net_raw=ep")
    finally:
        planted.unlink()
    assert privileges(tmp_path).state == "ok"


@pytest.fixture
def aide(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "kept").write_text("one")
    config = tmp_path / "aide.conf"
    config.write_text(f"database_in=file:{tmp_path}/aide.db\ndatabase_out=file:{tmp_path}/aide.db.new\n{data} p+u+g+sha256\n")

    def look():
        return security_aide.look(review_of(tmp_path, aide=True, aide_config=str(config)))[0]

    look.data = data
    look.init = lambda: (
        subprocess.run(["aide", "--init", "--config", str(config)], check=True, capture_output=True),
        os.rename(tmp_path / "aide.db.new", tmp_path / "aide.db"),
    )
    return look


def test_aide_is_read_and_without_its_database_nothing_is_known(aide):
    assert aide().state == "unknown"
    aide.init()
    assert aide().state == "ok"
    (aide.data / "kept").write_text("two")
    (aide.data / "new\nline").write_text("")
    found = aide()
    assert (found.state, found.value >= 2) == ("critical", True)
    assert any(line == f"changed {aide.data}/kept" for line in found.evidence)
    assert any(line.startswith(f"added {aide.data}/new") for line in found.evidence)


@pytest.fixture
def rpm_root(tmp_path):
    """A root folder with one package of rpm in it: a program, a configuration file and a document."""
    spec, root = tmp_path / "demo.spec", tmp_path / "root"
    spec.write_text(
        "Name: demo\nVersion: 1\nRelease: 1\nSummary: demo\nLicense: MIT\nBuildArch: noarch\n%description\ndemo\n%install\n"
        "mkdir -p %{buildroot}/opt/demo %{buildroot}/etc\necho one >%{buildroot}/opt/demo/program\necho one >%{buildroot}/etc/demo.conf\n"
        "%files\n/opt/demo/program\n%config /etc/demo.conf\n"
    )
    subprocess.run(["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/build", str(spec)], check=True, capture_output=True)
    built = next((tmp_path / "build/RPMS").rglob("*.rpm"))
    root.mkdir()
    install = ["rpm", "--root", str(root), "--nodeps", "--nosignature", "-i", str(built)]
    # Debian 12's rpm wants to be forced, Debian 13's does not know that option.
    assert any(subprocess.run([*install, *extra], capture_output=True).returncode == 0 for extra in ([], ["--force-debian"]))
    return root


def test_the_files_of_rpm_are_judged(rpm_root):
    def checked():
        return security_rpm.check(Host(), 30, ["--root", str(rpm_root)])

    clean = checked()
    assert (clean.packages, clean.changed, clean.conffiles, clean.unread) == (1, {}, [], [])
    (rpm_root / "etc/demo.conf").write_text("ours\n")
    (rpm_root / "opt/demo/program").chmod(0o777)
    found = checked()
    assert (found.grave, len(found.conffiles), len(found.changed["rpm"])) == (set(), 1, 1)
    (rpm_root / "opt/demo/program").write_text("two\n")
    assert checked().grave == {"rpm"}
    shutil.rmtree(rpm_root / "opt")
    assert "is missing" in checked().changed["rpm"][0]


def test_an_rpm_database_without_packages_is_refused(tmp_path):
    with pytest.raises(MaintenanceError, match="no installed package"):
        security_rpm.check(Host(), 30, ["--dbpath", str(tmp_path)])
