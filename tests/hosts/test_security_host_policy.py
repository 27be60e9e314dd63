"""What pwck and grpck refuse is told, and what the built-in rules call sound is what those who log in really get."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_account_files, security_host_policy, security_review
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

FILES = (
    "passwd",
    "shadow",
    "group",
    "gshadow",
    "subuid",
    "subgid",
    "login.defs",
    "pam.d/common-session",
    "pam.d/su-l",
    "issue",
    "issue.net",
)
CORE = Path("/etc/security/limits.d/core.conf")
DUMPS = Path("/proc/sys/fs/suid_dumpable").read_text().strip()


@pytest.fixture(autouse=True)
def put_back(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(f"/etc/{name}", tmp_path / name)
    yield
    for name in FILES:
        shutil.copy2(tmp_path / name, f"/etc/{name}")
    CORE.unlink(missing_ok=True)
    shutil.rmtree("/home/uma", ignore_errors=True)


def review(**given):
    return Review(filled(security_review.OPTIONS, given), Host(), False, Host().now())


def account_files():
    [found] = security_account_files.look(review())
    return found


def broken(**given):
    found = security_host_policy.look(review(host_policy=True, **given))
    return {one.subject.removeprefix("host."): list(one.evidence) for one in found if one.state == "warning"}


def refused(*argv):
    return subprocess.run(argv, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode != 0


def append(name, line):
    with open(f"/etc/{name}", "a", encoding="utf-8") as target:
        target.write(f"{line}\n")


def test_a_host_with_the_accounts_of_useradd_is_silent_to_both():
    subprocess.run(["useradd", "--create-home", "--groups", "sudo", "uma"], check=True)
    assert not refused("pwck", "-q", "-r")
    assert not refused("grpck", "-r")
    assert account_files().state == "ok"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("passwd", "nohome:x:2009:9999::/nowhere:/bin/sh"),
        ("passwd", "root:x:0:0::/root:/bin/sh"),
        ("passwd", "half:x:2009"),
        ("passwd", "uma:x:2009:100::/tmp:/bin/sh"),
        ("shadow", "gone:*:19000:0:99999:7:::"),
        ("group", "web:x:2009:gone"),
        ("group", "half:x"),
        ("gshadow", "gone:!::"),
    ],
)
def test_what_pwck_or_grpck_refuses_is_told(name, line):
    append(name, line)
    assert refused("pwck", "-q", "-r") or refused("grpck", "-r")
    assert account_files().state == "warning"


def test_a_host_that_keeps_the_rules_gives_them_to_those_who_log_in():
    stock = broken(login_banner=True)
    assert {"umask", "password_age", "core_dumps", "banner"} <= set(stock)
    text = Path("/etc/login.defs").read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("UMASK", "PASS_MAX_DAYS", "USERGROUPS_ENAB"))]
    Path("/etc/login.defs").write_text("\n".join([*kept, "UMASK 027", "PASS_MAX_DAYS 90", "USERGROUPS_ENAB no", ""]))
    if "pam_umask" not in Path("/etc/pam.d/common-session").read_text():
        append("pam.d/common-session", "session optional pam_umask.so")
    append("pam.d/su-l", "session required pam_limits.so")
    CORE.write_text("* hard core 0\n")
    subprocess.run(["useradd", "--create-home", "--gid", "users", "--shell", "/bin/sh", "uma"], check=True)
    subprocess.run(["chpasswd"], input=b"uma:a-l0ng-one\n", check=True)
    assert set(broken()) == ({"core_dumps"} if DUMPS != "0" else set())
    told = subprocess.run(["su", "-l", "uma", "-c", "umask; ulimit -H -c"], check=True, capture_output=True, text=True).stdout
    assert told.split() == ["0027", "0"]
    assert "\t: 90\n" in subprocess.run(["chage", "--list", "uma"], check=True, capture_output=True, text=True).stdout
    subprocess.run(["chage", "--maxdays", "-1", "uma"], check=True)
    assert broken()["password_age"] == ["uma: its password has no age"]
