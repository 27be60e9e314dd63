"""Accounts of a real host: made by useradd, aged by chage, logged in by lastlog and wtmp, disabled by usermod, judged by sudo's own tools."""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import re
import resource
import shutil
import struct
import subprocess
import sys
import time

import directory_stub
import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_accounts, security_review, security_sudo_rights, security_utmp
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import filled

DAY = 86400
FILES = (
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/nsswitch.conf",
    "/var/log/lastlog",
    "/var/log/wtmp",
)


def call(*argv, stdin=""):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


@pytest.fixture
def host(tmp_path):
    """The container as it is, put back afterwards."""
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in FILES:
        shutil.copy2(path, kept / path.replace("/", "_"))
    homes = set(os.listdir("/home"))
    yield tmp_path
    for path in FILES:
        shutil.copy2(kept / path.replace("/", "_"), path)
    for name in set(os.listdir("/home")) - homes:
        os.unlink(f"/home/{name}") if os.path.islink(f"/home/{name}") else shutil.rmtree(f"/home/{name}")
    for name in os.listdir("/etc/sudoers.d"):
        if name != "README":
            os.unlink(f"/etc/sudoers.d/{name}")


def person(name, *groups, created=400, password="a-l0ng-one"):
    call("useradd", "--create-home", "--shell", "/bin/bash", *(["--groups", ",".join(groups)] if groups else []), name)
    call("chpasswd", stdin=f"{name}:{password}\n")
    call("chage", "--lastday", str(int(time.time() // DAY) - created), name)
    return name


def logged_in(name, days_ago):
    """Write what pam_lastlog and login write."""
    moment = int(time.time() - days_ago * DAY)
    uid = int(call("id", "-u", name))
    with open("/var/log/lastlog", "r+b") as target:
        target.seek(uid * 292)
        target.write(struct.pack("=I32s256s", moment, b"pts/0", b"192.0.2.1"))
    form = security_utmp.layout()
    with open("/var/log/wtmp", "ab") as target:
        target.write(form.pack(7, 1, b"pts/0", b"0", name.encode(), b"192.0.2.1", 0, 0, 0, moment, 0, b"", b""))


def reviewed(folder, check_mode=False, self_test=False, **given):
    spec = {**security_review.OPTIONS, "state_dir": {"type": "path"}, "self_test": {"type": "bool"}}
    off = {"journal": "false", "updates": False, "state_dir": str(folder / "state"), "self_test": self_test}
    outcome = security_review.run(filled(spec, {**off, **given}), check_mode, Host())
    outcome.record()
    return outcome


def found(outcome, name):
    (finding,) = [finding for finding in outcome.findings if finding.id == f"security.{name}"]
    return finding


def rule(account, **more):
    return {"account": account, "approved_by": "Mia Vogel", "reason": "left", **more}


def field(name, place):
    return call("getent", "shadow", name).rstrip("\n").split(":")[place]


def test_a_clean_host_is_silent_and_planted_faults_arrive(host):
    logged_in(person("mia", "sudo"), 1)
    logged_in(person("tom"), 2)
    roster = [{"account": "mia", "owner": "Mia Vogel", "admin": True}, {"account": "tom", "owner": "Tom Berg"}]
    clean = reviewed(host, self_test=True, roster=roster)
    assert [(f.id, f.summary, f.not_covered) for f in clean.findings if f.state != "ok"] == []
    logged_in(person("eva", "disk"), 120)
    person("ida")  # never
    call("groupadd", "--non-unique", "--gid", call("id", "-g", "tom").strip(), "twins")
    call("usermod", "--password", "$1$salt$UsBvpBUPV7hAmiGNYJ3b8.", "tom")
    with open("/etc/sudoers.d/eva", "w", encoding="utf-8") as target:
        target.write("eva ALL=(ALL) NOPASSWD: ALL\n")
    os.chmod("/etc/sudoers.d/eva", 0o440)
    call("ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(host / "short"))
    os.makedirs("/home/tom/.ssh", mode=0o700)
    shutil.copy(host / "short.pub", "/home/tom/.ssh/authorized_keys")
    bad = reviewed(host, roster=roster)
    states = {f.id.partition(".")[2]: f.state for f in bad.findings}
    assert states == {
        "accounts": "critical",  # drift: eva may become root through the group disk
        "root_accounts": "ok",
        "shared_ids": "warning",
        "empty_password": "ok",
        "sudo": "critical",
        "sudo_syntax": "ok",
        "ssh_keys": "warning",
        "inactive_accounts": "critical",
        "account_files": "ok",
        "account_owner": "warning",
        "expired_accounts": "ok",
        "password_hash": "warning",
        "sudo_nopasswd": "warning",
        "key_strength": "warning",
        "admin_groups": "warning",
    }
    assert found(bad, "account_owner").evidence == ["eva", "ida"]
    assert [line.split(":")[0] for line in found(bad, "inactive_accounts").evidence[:2]] == ["ida", "eva"]
    assert "tom: RSA with 1024 bits" in found(bad, "key_strength").evidence[0]


def test_what_the_host_itself_reads_from_wtmp_is_what_is_read(host):
    logged_in(person("mia"), 3)
    name, _line, *when, _host = call("who", "/var/log/wtmp").split()
    (record,) = [record for record in security_utmp.read_records("/var/log/wtmp") if record.user == "mia"]
    assert name == "mia"
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(record.moment)) == " ".join(when)
    assert record.host == "192.0.2.1"


def test_disabling_is_seen_by_chage_and_passwd_and_undone_by_the_recorded_command(host):
    logged_in(person("mia", "sudo"), 1)
    logged_in(person("tom"), 120)
    before = field("tom", 1)
    preview = reviewed(host, check_mode=True, disable_accounts=[rule("tom")])
    assert (preview.status, field("tom", 1)) == ("due", before)
    real = reviewed(host, disable_accounts=[rule("tom")])
    assert (real.status, found(real, "disabled_accounts").state) == ("changed", "ok")
    assert call("passwd", "--status", "tom").split()[1] == "L"
    assert "Jan 02, 1970" in call("chage", "--list", "tom")
    assert os.path.isdir("/home/tom")
    assert reviewed(host, disable_accounts=[rule("tom")]).status == "ok"
    undo = real.actions[0].summary.partition("to undo: ")[2]
    call("sh", "-c", undo)
    assert (field("tom", 1), field("tom", 7)) == (before, "")


def test_neither_the_last_administrator_nor_the_connecting_user_nor_a_service_is_disabled(host, monkeypatch):
    logged_in(person("mia"), 200)
    with open("/etc/sudoers.d/90-cloud-init-users", "w", encoding="utf-8") as target:
        target.write("mia ALL=(ALL) ALL\n")
    os.chmod("/etc/sudoers.d/90-cloud-init-users", 0o440)
    logged_in(person("tom"), 200)
    logged_in(person("eva"), 1)
    monkeypatch.setenv("SUDO_USER", "tom")
    outcome = reviewed(host, disable_accounts=[rule("mia"), rule("tom"), rule("postgres"), rule("root")])
    said = found(outcome, "disabled_accounts").evidence
    assert outcome.actions == []
    assert [why for why in ("last open administrator", "connected", "not one of a person") if not any(why in line for line in said)] == []
    assert [name for name in ("mia", "tom", "postgres", "root") if field(name, 7)] == []


def test_who_becomes_root_is_what_sudo_itself_says(host):
    rules = (
        "User_Alias ADMINS = ann, %ops\nCmnd_Alias SOME = /bin/ls, /bin/su\nADMINS ALL=(ALL:ALL) ALL\n#1777 ALL = (root) NOPASSWD: ALL\n"
        "cat ALL=(www-data) ALL\ndan ALL=(root) SOME\neve elsewhere=(ALL) ALL\n"
    )
    call("groupadd", "ops")
    for name in ("ann", "cat", "dan", "eve"):
        person(name)
    person("bob", "ops")
    call("useradd", "--uid", "1777", "uma")
    with open("/etc/sudoers.d/rules", "w", encoding="utf-8") as target:
        target.write(rules)
    os.chmod("/etc/sudoers.d/rules", 0o440)
    try:
        accounts = security_accounts.accounts("/etc")
        ours = security_sudo_rights.read("/etc", accounts)
        said = {name: call("sudo", "--list", "--other-user", name) for name in ("ann", "bob", "cat", "dan", "eve", "uma")}
    finally:
        call("groupdel", "ops")
    root = {name for name, text in said.items() if re.search(r"\((ALL|root)( : ALL)?\) (NOPASSWD: )?ALL$", text, re.M)}
    assert root == ours.certain & set(said) == {"ann", "bob", "uma"}
    assert ours.free & set(said) == {"uma"}
    assert {name for name, text in said.items() if "not allowed to run" not in text} <= ours.possible


def test_somebody_who_left_is_disabled_at_once_and_what_runs_is_ended(host):
    logged_in(person("mia", "sudo"), 1)
    logged_in(person("tom"), 1)
    uid = int(call("id", "-u", "tom"))
    ignoring = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(99)",
    ]
    with subprocess.Popen(ignoring, user=uid, stdout=subprocess.PIPE) as running:
        try:
            running.stdout.readline()
            busy = reviewed(host, disable_accounts=[rule("tom", inactive_days=0)])
            assert "running processes" in found(busy, "disabled_accounts").evidence[0]
            done = reviewed(host, disable_accounts=[rule("tom", inactive_days=0, end_sessions=True)])
            assert done.status == "changed"
            assert running.wait(5) == -9
        finally:
            running.kill()


def test_a_sudoers_file_that_does_not_parse_is_a_clear_finding(host):
    with open("/etc/sudoers.d/broken", "w", encoding="utf-8") as target:
        target.write("mia ALL=(ALL NOPASSWD ALL\n\x1b[2Jtom ALL = (((\n")
    outcome = reviewed(host)
    syntax = found(outcome, "sudo_syntax")
    assert syntax.state == "critical"
    assert "broken" in " ".join(syntax.as_dict()["evidence"])
    assert "\x1b" not in str([finding.as_dict() for finding in outcome.findings])


def test_an_unreadable_shadow_file_is_unknown_for_whoever_is_not_root(host):
    """The review as an ordinary user: nothing of it is called good, and nothing is disabled."""
    logged_in(person("mia", "sudo"), 1)
    logged_in(person("tom"), 200)
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.setgid(65534)
            os.setgroups([])
            os.setuid(65534)
            outcome = reviewed(host, disable_accounts=[rule("tom")])
            unknown = {f.id for f in outcome.findings if f.state == "unknown"}
            wanted = {"security.empty_password", "security.password_hash", "security.expired_accounts", "security.sudo"}
            os._exit(0 if wanted <= unknown and not outcome.actions else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_links_below_a_home_are_not_followed_and_odd_names_are_inert(host):
    person("mia")
    os.symlink("/root", "/home/mia/.ssh")
    call("useradd", "--badname" if "--badname" in call("useradd", "--help") else "--badnames", "--create-home", "odd$(reboot)")
    outcome = reviewed(host)
    assert found(outcome, "key_strength").state == "unknown"
    assert "symbolic link" in found(outcome, "key_strength").not_covered
    assert "odd$(reboot)" in security_accounts.accounts("/etc")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for this processor")
def test_a_directory_service_with_a_million_accounts_is_not_asked(host):
    """Whoever enumerates it spends seconds on what nobody declared; the review says that it left these accounts out."""
    logged_in(person("tom"), 200)
    with directory_stub.directory() as asked:
        assert call("sh", "-c", "getent passwd | wc -l").strip() >= str(directory_stub.ACCOUNTS), "the stub does answer"
        begun, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = reviewed(host, disable_accounts=[rule("tom")])
        spent, grown = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        pwd.getpwall()
        assert asked.value == directory_stub.ACCOUNTS, "whoever enumerates is counted, and the review was not"
    assert (spent < 10, grown < 64 * 1024) == (True, True), (spent, grown)
    assert "accounts of stub" in found(outcome, "inactive_accounts").not_covered
    assert [line.split(":")[0] for line in found(outcome, "inactive_accounts").evidence][:1] == ["tom"]


def test_a_million_local_accounts_are_a_clear_finding_in_bounded_time(host):
    with open("/etc/passwd", "a", encoding="utf-8") as target:
        target.writelines(f"user{number}:x:{number}:100::/home/u:/bin/sh\n" for number in range(100_000, 1_100_000))
    begun = time.monotonic()
    outcome = reviewed(host)
    assert time.monotonic() - begun < 10
    for name in ("accounts", "root_accounts", "inactive_accounts", "account_owner", "admin_groups"):
        assert found(outcome, name).state == "unknown", name
    assert "larger than" in found(outcome, "inactive_accounts").summary


@pytest.mark.parametrize("link", ["/home/mia", "/home/mia/.ssh", "/home/mia/.ssh/authorized_keys"])
def test_nothing_is_read_through_a_home_or_key_that_is_a_link(host, link):
    """An account may point these at what only root may read, and wait for root to show it."""
    person("mia")
    secret = host / "secret" / ".ssh"
    secret.mkdir(parents=True)
    (secret / "authorized_keys").write_text("ssh-dss AAAAB3NzaC1kc3M= only-for-root\n")
    places = {"/home/mia": secret.parent, "/home/mia/.ssh": secret, "/home/mia/.ssh/authorized_keys": secret / "authorized_keys"}
    if link == "/home/mia":
        shutil.rmtree(link)
    else:
        os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(places[link], link)
    os.chown(link, int(call("id", "-u", "mia")), -1, follow_symlinks=False)
    outcome = reviewed(host)
    for name in ("ssh_keys", "key_strength"):
        assert found(outcome, name).state == "unknown", name
        assert "symbolic link" in found(outcome, name).not_covered, name
    assert "only-for-root" not in str([finding.as_dict() for finding in outcome.findings])


def test_a_home_that_root_put_elsewhere_is_read_as_sshd_reads_it(host):
    person("mia")
    shutil.move("/home/mia", host / "elsewhere")
    os.symlink(host / "elsewhere", "/home/mia")
    os.makedirs("/home/mia/.ssh")
    call("ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(host / "short"))
    shutil.copy(host / "short.pub", "/home/mia/.ssh/authorized_keys")
    assert "mia: RSA with 1024 bits" in " ".join(found(reviewed(host), "key_strength").evidence)


def test_keys_are_read_where_the_real_sshd_looks_for_them(host):
    person("mia")
    call("ssh-keygen", "-A")
    os.makedirs("/run/sshd", exist_ok=True)
    more = "/etc/ssh/sshd_config.d/keys.conf"
    with open(more, "w", encoding="utf-8") as target:
        target.write(f"AuthorizedKeysFile\tnone\nMatch\tUser mia\n\tAuthorizedKeysFile\t{host}/keys/%u\n")
    (host / "keys").mkdir()
    try:
        assert [found(reviewed(host), name).state for name in ("ssh_keys", "key_strength")] == ["ok", "ok"]
        call("ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(host / "short"))
        shutil.copy(host / "short.pub", host / "keys/mia")
        outcome = reviewed(host)
        assert [found(outcome, name).state for name in ("ssh_keys", "key_strength")] == ["warning", "warning"]
        assert "mia: RSA with 1024 bits" in found(outcome, "key_strength").evidence[0]
        with open(more, "w", encoding="utf-8") as target:
            target.write("AuthorizedKeysCommand /usr/bin/true s3cret %u\nAuthorizedKeysCommandUser nobody\n")
        gap = found(reviewed(host), "key_strength")
        assert (gap.state, gap.not_covered) == ("unknown", "keys that the AuthorizedKeysCommand /usr/bin/true gives")
    finally:
        os.unlink(more)
