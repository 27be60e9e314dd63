# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given as given_text
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    security_sshd,
    security_sshd_config,
    security_sshd_policy,
    security_sshd_started,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

SSHD = "port 22\npermitrootlogin without-password\npasswordauthentication no\nmaxauthtries 6\nallowusers mia\nallowusers leo\n"
HARDENED = """permitrootlogin no
passwordauthentication no
permitemptypasswords no
hostbasedauthentication no
ignorerhosts yes
usepam yes
permituserenvironment no
disableforwarding yes
x11forwarding yes
logingracetime 30
maxauthtries 3
maxsessions 10
clientaliveinterval 300
clientalivecountmax 3
loglevel INFO
ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com
macs hmac-sha2-512-etm@openssh.com,hmac-sha2-256
kexalgorithms curve25519-sha256,diffie-hellman-group16-sha512
pubkeyacceptedalgorithms ssh-ed25519,rsa-sha2-512
pidfile none
"""


class SshdHost(Host):
    """An sshd that answers what it is given, another thing for a connection that is named in it."""

    def __init__(self, rc=0, stdout=SSHD, **connections):
        self.answer, self.connections, self.asked = (rc, stdout), connections, []

    def run(self, argv, **_):
        self.asked.append(list(argv))
        if self.answer[0] is None:
            raise MaintenanceError("The command sshd is not installed.")
        for user, told in self.connections.items():
            if any(word.startswith(f"user={user},") for word in argv):
                return Ran(argv, 0 if told else 1, told, "bad")
        return Ran(argv, self.answer[0], self.answer[1], "")


def reviewed(tmp_path, host=None, config="", **given):
    (tmp_path / "ssh").mkdir(exist_ok=True)
    (tmp_path / "ssh" / "sshd_config").write_text(config)
    review = Review(filled(security_sshd.OPTIONS, given), host or SshdHost(), False, Host().now(), str(tmp_path))
    (tmp_path / "proc").mkdir(exist_ok=True)
    return {(finding.id, finding.subject): finding for finding in security_sshd.look(review, str(tmp_path / "proc"))}


def declared(tmp_path, policy, host=None, config=""):
    return reviewed(tmp_path, host, config, sshd=policy)["security.sshd", "sshd"]


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        ({"PermitRootLogin": "prohibit-password", "PasswordAuthentication": False}, "ok"),
        ({"permitrootlogin": ["no", "without-password"]}, "ok"),
        ({"PermitRootLogin": "no"}, "warning"),
        ({"PasswordAuthentication": True}, "warning"),
        ({"MaxAuthTries": 6}, "ok"),
        ({"MaxAuthTries": 3}, "warning"),
        ({"AllowUsers": ["mia", "leo"]}, "ok"),
        ({"AllowUsers": ["mia"]}, "warning"),
        ({"PermitRotLogin": "no"}, "unknown"),
        ({"PermitRotLogin": "no", "MaxAuthTries": 3}, "warning"),
    ],
)
def test_effective_options_are_held_against_what_is_declared(tmp_path, policy, state):
    assert declared(tmp_path, policy).state == state


@pytest.mark.parametrize("host", [SshdHost(None), SshdHost(255, "no hostkeys available"), SshdHost(0, "")])
def test_an_sshd_that_does_not_answer_is_unknown(tmp_path, host):
    found = reviewed(tmp_path, host, sshd={"PermitRootLogin": "no"}, sshd_policy=True)
    assert {finding.state for finding in found.values()} == {"unknown"}
    assert {finding_id for finding_id, _subject in found} == set(security_sshd.IDS)


def test_a_hardened_sshd_keeps_every_built_in_rule(tmp_path):
    found = reviewed(tmp_path, SshdHost(0, HARDENED), sshd_policy=True)
    assert found["security.sshd_policy", "sshd"].state == "ok"
    assert {finding.state for finding in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("line", "subject", "state"),
    [
        ("permitrootlogin yes", "sshd.permit_root_login", "critical"),
        ("permitemptypasswords yes", "sshd.permit_empty_passwords", "critical"),
        ("passwordauthentication yes", "sshd.password_authentication", "warning"),
        ("logingracetime 0", "sshd.login_grace_time", "warning"),
        ("logingracetime 120", "sshd.login_grace_time", "warning"),
        ("clientaliveinterval 0", "sshd.client_alive_interval", "warning"),
        ("maxauthtries 6", "sshd.max_auth_tries", "warning"),
        ("ciphers aes256-ctr,aes128-cbc", "sshd.ciphers", "warning"),
        ("macs hmac-sha2-256,hmac-sha1-etm@openssh.com", "sshd.macs", "warning"),
        ("macs umac-64@openssh.com", "sshd.macs", "warning"),
        ("kexalgorithms diffie-hellman-group14-sha1", "sshd.kex_algorithms", "warning"),
        ("pubkeyacceptedalgorithms ssh-ed25519,ssh-rsa", "sshd.pubkey_algorithms", "warning"),
        ("disableforwarding no", "sshd.x11_forwarding", "warning"),
    ],
)
def test_each_broken_rule_is_a_finding_of_its_own(tmp_path, line, subject, state):
    option = line.split()[0]
    text = "".join(f"{kept}\n" for kept in HARDENED.splitlines() if kept.split()[0] != option) + line + "\n"
    found = reviewed(tmp_path, SshdHost(0, text), sshd_policy=True)
    assert found["security.sshd_policy", subject].state == state
    assert ("security.sshd_policy", "sshd") not in found


def test_what_is_declared_goes_before_a_built_in_rule(tmp_path):
    text = HARDENED.replace("maxauthtries 3", "maxauthtries 6")
    found = reviewed(tmp_path, SshdHost(0, text), sshd_policy=True, sshd={"MaxAuthTries": 6})
    assert {finding.state for finding in found.values()} == {"ok"}


def test_rules_have_names_and_sections_of_their_own():
    assert len({rule.name for rule in security_sshd_policy.RULES}) == len(security_sshd_policy.RULES)
    for rule in security_sshd_policy.RULES:
        assert sum(bool(way) for way in (rule.allowed, rule.most, rule.weak)) == 1


def test_a_match_block_that_opens_a_door_is_found(tmp_path):
    config = "Match User backup\n  PasswordAuthentication yes\n"
    host = SshdHost(0, HARDENED, backup=HARDENED.replace("passwordauthentication no", "passwordauthentication yes"))
    found = reviewed(tmp_path, host, config, sshd_policy=True, sshd={"PasswordAuthentication": "no"})
    assert found["security.sshd", "sshd"].state == "warning"
    assert "for user=backup" in found["security.sshd", "sshd"].evidence[0]
    assert [found["security.sshd", "sshd"].value, found["security.sshd_policy", "sshd"].state] == [1, "ok"]
    alone = reviewed(tmp_path, host, config, sshd_policy=True)
    assert "for user=backup" in alone["security.sshd_policy", "sshd.password_authentication"].summary


def test_a_match_block_that_cannot_be_tried_is_unknown_until_a_connection_is_declared(tmp_path):
    config = "Match User *,!root\n  X11Forwarding yes\n"
    assert declared(tmp_path, {"MaxAuthTries": 6}, config=config).state == "unknown"
    host = SshdHost()
    found = reviewed(tmp_path, host, config, sshd={"MaxAuthTries": 6}, sshd_connections=["user=mia,host=h,addr=192.0.2.7"])
    assert found["security.sshd", "sshd"].state == "ok"
    assert host.asked[-1][-2:] == ["-C", "user=mia,host=h,addr=192.0.2.7"]
    failing = SshdHost(mia="")
    found = reviewed(tmp_path, failing, "", sshd={"MaxAuthTries": 6}, sshd_connections=["user=mia,host=h,addr=192.0.2.7"])
    assert found["security.sshd", "sshd"].state == "unknown"


@pytest.mark.parametrize(
    ("block", "connection"),
    [
        ("all", "user=root,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"),
        ("User deploy,other", "user=deploy,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"),
        ("user=deploy", "user=deploy,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"),
        ("Address 192.168.1.0/24", "user=root,host=localhost,addr=192.168.1.1,laddr=127.0.0.1,lport=22"),
        ("User a* ", None),
        ("Exec /bin/true", None),
        ("LocalPort 2222", "user=root,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=2222"),
        ("Group no-such-group", None),
        ("User evil,inject=1", None),
        ("Address not-an-address", None),
    ],
)
def test_connections_are_made_up_from_match_blocks(block, connection):
    found, unclear = security_sshd_config.connections([block])
    assert (found, bool(unclear)) == ([connection] if connection else [], connection is None)


def test_included_files_are_read_and_one_that_cannot_be_is_said(tmp_path):
    (tmp_path / "ssh/sshd_config.d").mkdir(parents=True)
    (tmp_path / "ssh/sshd_config.d" / "10.conf").write_text('Match User "mia"\n')
    found = reviewed(tmp_path, SshdHost(), "Include sshd_config.d/*.conf\nMatch all\n", sshd={"MaxAuthTries": 6})
    assert found["security.sshd", "sshd"].state == "ok"
    config = security_sshd_config.read(str(tmp_path / "ssh/sshd_config"))
    assert config.blocks == ['User "mia"', "all"]
    (tmp_path / "ssh/sshd_config.d" / "20.conf").mkdir()
    found = reviewed(tmp_path, SshdHost(), "Include sshd_config.d/*.conf\n", sshd={"MaxAuthTries": 6})
    assert found["security.sshd", "sshd"].state == "unknown"


def planted_process(proc, pid, title, ticks):
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_bytes(title)
    (proc / str(pid) / "stat").write_text(f"{pid} (sshd (x) y) S 1 {' '.join(['0'] * 17)} {ticks} 0\n")


def test_the_running_sshd_is_asked_when_it_read_its_configuration(tmp_path):
    proc, pid_file = tmp_path / "proc", tmp_path / "sshd.pid"
    planted_process(proc, 77, b"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0", 1000)
    planted_process(proc, 99, b"sshd: mia [priv]\0", 9000)
    (proc / "stat").write_text("cpu 1\nbtime 1700000000\n")
    started = 1700000000 + 1000 / os.sysconf("SC_CLK_TCK")
    [running] = security_sshd_started.listeners(str(proc))
    assert (running.pid, running.since, running.words) == ("77", started, ("-D",))
    assert security_sshd_started.loaded(running, str(pid_file)) == started
    pid_file.write_text("77\n")  # written anew on SIGHUP
    assert security_sshd_started.loaded(running, str(pid_file)) == pytest.approx(time.time(), abs=60)
    pid_file.write_text("78\n")  # another's
    assert security_sshd_started.loaded(running, str(pid_file)) == started
    (tmp_path / "empty").mkdir()
    assert security_sshd_started.listeners(str(tmp_path / "empty")) == []


def listening(tmp_path, *command_lines):
    """Plant sshds that run with these command lines, the last one started last."""
    proc = tmp_path / "proc"
    for number, words in enumerate(command_lines):
        planted_process(proc, 70 + number, f"sshd: /usr/sbin/sshd {words} [listener] 0 of 10-100 startups\0".encode(), 1000 + number)
    (proc / "stat").write_text("cpu 1\nbtime 1700000000\n")


def test_what_sshd_was_started_with_goes_before_its_files(tmp_path):
    host = SshdHost(0, HARDENED)
    listening(tmp_path, "-D -o PermitRootLogin=yes -p 2222 -E /var/log/sshd")
    reviewed(tmp_path, host, "", sshd_policy=True)
    assert host.asked == [["sshd", "-T", "-f", str(tmp_path / "ssh/sshd_config"), "-o", "PermitRootLogin=yes", "-p", "2222"]]


def test_the_file_that_sshd_was_started_with_is_the_one_that_is_read(tmp_path):
    (tmp_path / "other").write_text("Match User mia\n")
    host = SshdHost(0, HARDENED)
    listening(tmp_path, f"-D -f {tmp_path / 'other'}")
    reviewed(tmp_path, host, "Match User leo\n", sshd_policy=True)
    assert [words[2:4] for words in host.asked] == [["-f", str(tmp_path / "other")]] * 2
    assert "user=mia" in host.asked[1][-1]


@pytest.mark.parametrize("command_lines", [["-D -Z 3"], ["-D stray"], ["-D", "-D -o PermitRootLogin=yes -p 2222", "-D"]])
def test_what_sshd_was_started_with_and_nobody_understands_is_unknown(tmp_path, command_lines):
    listening(tmp_path, *command_lines)
    found = reviewed(tmp_path, SshdHost(0, HARDENED), sshd_policy=True)
    assert found["security.sshd_policy", "sshd"].state == "unknown"
    assert "was started with" in found["security.sshd_policy", "sshd"].not_covered


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("-D -e -4", []),
        ("-De4oMaxAuthTries=3", ["-o", "MaxAuthTries=3"]),
        ("-o AllowUsers mia leo -D", ["-o", "AllowUsers mia leo"]),
        ("-u0 -f/etc/ssh/b -b 5", ["-f", "/etc/ssh/b"]),
        ("-o", ["-o", ""]),
    ],
)
def test_the_command_line_of_sshd_is_taken_apart(words, options):
    assert security_sshd_started.options_of(words.split()) == options


@given_text(st.lists(st.text(max_size=8), max_size=6))
def test_any_command_line_is_understood_or_refused(words):
    with contextlib.suppress(MaintenanceError):
        assert len(security_sshd_started.options_of(words)) % 2 == 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("default/ssh", "# SSHD_OPTS=-x\nSSHD_OPTS=\n", []),
        ("default/ssh", "SSHD_OPTS='-o PermitRootLogin=yes -4'\n", ["-o", "PermitRootLogin=yes"]),
        ("sysconfig/sshd", 'OPTIONS="-p 2222"\n', ["-p", "2222"]),
    ],
)
def test_where_sshd_is_started_for_each_connection_its_file_tells(tmp_path, name, text, words):
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(text)
    assert list(security_sshd_started.started(str(tmp_path), "").given[2:]) == words
    path.write_text(f"{text.splitlines()[-1].partition('=')[0]}='-4\n")
    assert security_sshd_started.started(str(tmp_path), "").gaps


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (b"sshd: /usr/sbin/sshd -D -o Port=1 [listener] 0 of 10-100 startups\0\0\0", ("-D", "-o", "Port=1")),
        (b"sshd: /usr/sbin/sshd -D -o Po", ("-D", "-o", "Po", "-(cut off)")),
        (b"/usr/sbin/sshd\0-D\0-o\0AllowUsers a b\0", ("-D", "-o", "AllowUsers a b")),
        (b"/usr/sbin/sshd\0-D\0-R\0", None),
        (b"sshd: mia [priv]\0", None),
        (b"sshd: mia@pts/0\0", None),
        (b"", None),
    ],
)
def test_an_sshd_that_waits_is_known_by_its_title_or_its_name(tmp_path, argv, words):
    planted_process(tmp_path, 7, argv, 100)
    (tmp_path / "stat").write_text("btime 1700000000\n")
    assert [one.words for one in security_sshd_started.listeners(str(tmp_path))] == ([] if words is None else [words])
    if words and words[-1] == "-(cut off)":
        with pytest.raises(MaintenanceError):
            security_sshd_started.options_of(words)


def test_files_that_changed_since_then_are_named(tmp_path):
    path = tmp_path / "sshd_config"
    path.write_text("")
    config = security_sshd_config.Config([str(path)], {str(tmp_path), str(tmp_path / "absent")})
    assert security_sshd_config.changed_since(config, time.time() + 5) == []
    assert security_sshd_config.changed_since(config, time.time() - 60) == [str(path), str(tmp_path)]


@pytest.mark.parametrize("text", ["mia", "user=", "user=a b", "user=a;addr=b", "who=me"])
def test_connections_that_cannot_be_meant_are_refused(text):
    assert len(security_sshd.validate({"sshd_connections": [text]})) == 1
    assert security_sshd.validate({"sshd_connections": ["user=a,host=b,addr=::1"]}) == []


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_sshd.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_sshd, "parse_sshd", lambda *_: {})
    assert security_sshd.passes_bad_sample(review)


def test_the_documented_rules_are_the_real_ones():
    """docs/findings.md tells sections of the benchmark as facts, so they have to be those that findings tell."""
    folder = next(parent for parent in Path(__file__).parents if (parent / "galaxy.yml").exists())
    text = (folder / "docs" / "findings.md").read_text()
    rows = re.findall(r"^\| `sshd\.(\w+)` \| .* \| (\S+) \| (\w+) \|$", text, re.M)
    assert rows == [(rule.name, rule.cis or "-", rule.state) for rule in security_sshd_policy.RULES]


def test_a_match_block_after_a_tab_is_seen(tmp_path):
    (tmp_path / "sshd_config").write_text("Match\tUser mia\n\tPasswordAuthentication\tyes\nInclude\tmore/*\n")
    config = security_sshd_config.read(str(tmp_path / "sshd_config"))
    assert config.blocks == ["User mia"]
    assert config.folders == {str(tmp_path / "more")}
    assert config.keywords == {"match", "passwordauthentication", "include"}
