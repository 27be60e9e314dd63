# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_host_policy, security_host_settings
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

SOUND = {
    "etc/login.defs": "# UMASK 000\nUMASK\t\t027\nPASS_MAX_DAYS 90\nUSERGROUPS_ENAB yes\n",
    "etc/pam.d/common-session": "# session optional pam_umask.so umask=000\nsession\toptional\tpam_umask.so\n",
    "etc/profile": "# umask 000\nif true; then\n  umask 077\nfi\n",
    "etc/shadow": "root:*:1:0:99999:7:::\nlocked:!$y$x:1:0:99999:7:::\nmia:$y$x:1:0:90:7:::\n",
    "etc/security/limits.conf": "#* hard core unlimited\n* soft core 0\n* hard core 0 # none\n",
    "etc/issue": "Only for authorised users.\n",
    "etc/issue.net": "Only for authorised users.\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12"\nNAME="Debian GNU/Linux"\n',
    "proc/sys/fs/suid_dumpable": "0\n",
    "proc/sys/kernel/core_pattern": "core\n",
}


class Machine(Host):
    """A host whose sshd shows this banner."""

    banner = "/etc/issue.net"

    def which(self, name):
        return f"/usr/sbin/{name}" if self.banner else None

    def run(self, argv, **_):
        return Ran(argv, 0, f"banner {self.banner}\n", "")


class System:
    def __init__(self, root):
        self.root, self.host = root, Machine()
        for name, text in SOUND.items():
            self.write(name, text)

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def look(self, **given_options):
        params = filled(security_host_policy.OPTIONS, {"host_policy": True, **given_options})
        review = Review(params, self.host, False, Host().now(), str(self.root / "etc"))
        return {one.subject: one for one in security_host_policy.look(review, str(self.root / "proc"))}


@pytest.fixture
def system(tmp_path):
    return System(tmp_path)


def test_a_sound_host_stays_silent(system):
    found = system.look(login_banner=True)
    assert {subject: one.state for subject, one in found.items()} == {"host": "ok"}, found
    assert "4 were looked at" in found["host"].summary


@pytest.mark.parametrize(
    ("name", "text", "subject", "evidence"),
    [
        ("etc/login.defs", "UMASK 022\nPASS_MAX_DAYS 90\n", "umask", "login.defs: umask 0022"),
        ("etc/login.defs", "PASS_MAX_DAYS 90\nUMASK 027\nUMASK 002\n", "umask", "login.defs: umask 0002"),
        ("etc/pam.d/common-session", "session optional pam_umask.so umask=0022\n", "umask", "pam_umask: umask 0022"),
        ("etc/profile", "[ $UID -gt 9 ] && umask 022\n", "umask", "profile: umask 0022"),
        ("etc/bash.bashrc", "umask u=rwx,g=rx,o=rx\n", "umask", "bash.bashrc: umask 0022"),
        ("etc/profile.d/x.sh", "umask a=rwx\n", "umask", "profile.d/x.sh: umask 0000"),
        ("etc/login.defs", "UMASK 027\nPASS_MAX_DAYS 99999\n", "password_age", "new accounts: PASS_MAX_DAYS is 99999"),
        ("etc/login.defs", "UMASK 027\n", "password_age", "new accounts: PASS_MAX_DAYS is none"),
        ("etc/shadow", "mia:$y$x:1:0:99999:7:::\n", "password_age", "mia: its password may grow 99999 days old"),
        ("etc/shadow", "mia:$y$x:1:0::7:::\n", "password_age", "mia: its password has no age"),
        ("etc/security/limits.conf", "* soft core 0\n", "core_dumps", "limits.conf: the hard limit of core for * is not set"),
        ("etc/security/limits.d/9.conf", "* - core unlimited\n", "core_dumps", "limits.conf: the hard limit of core for * is unlimited"),
        (
            "proc/sys/fs/suid_dumpable",
            "2\n",
            "core_dumps",
            "fs.suid_dumpable is 2: programs with more rights than their user leave dumps too",
        ),
        ("proc/sys/kernel/core_pattern", "|/usr/lib/systemd/systemd-coredump %P\n", "core_dumps", "coredump.conf: Storage is not set"),
        ("etc/issue", "\n", "banner", "issue says nothing"),
        ("etc/issue.net", "Welcome to Debian GNU/Linux 12\n", "banner", "issue.net tells which system this is"),
        ("etc/issue", "Only for users of \\r\n", "banner", "issue tells which system this is"),
    ],
)
def test_each_broken_rule_is_a_finding_of_its_own(system, name, text, subject, evidence):
    system.write(name, text)
    found = system.look(login_banner=True)
    assert list(found) == [f"host.{subject}"]
    assert (found[f"host.{subject}"].state, evidence in found[f"host.{subject}"].evidence) == ("warning", True), found


def test_a_umask_that_nothing_applies_is_none(system):
    system.write("etc/profile", "")
    assert list(system.look()) == ["host"]
    system.write("etc/pam.d/common-session", "")
    assert "nothing gives sessions a umask of their own" in system.look()["host.umask"].summary


def test_where_systemd_takes_the_dumps_it_has_to_keep_none(system):
    system.write("proc/sys/kernel/core_pattern", "|/usr/lib/systemd/systemd-coredump %P\n")
    system.write("etc/systemd/coredump.conf", "[Coredump]\n#Storage=none\nStorage = none\nProcessSizeMax=2G\n")
    assert list(system.look()["host.core_dumps"].evidence) == ["coredump.conf: ProcessSizeMax is 2G"]
    system.write("etc/systemd/coredump.conf.d/9.conf", "[Coredump]\nProcessSizeMax=0\n")
    assert list(system.look()) == ["host"]


def test_a_banner_is_asked_for_only_where_it_is_declared_and_of_sshd_too(system):
    system.write("etc/issue", "")
    assert list(system.look()) == ["host"]
    system.write("etc/issue", SOUND["etc/issue"])
    system.host.banner = "none"
    assert list(system.look(login_banner=True)["host.banner"].evidence) == ["sshd shows no banner"]
    system.host.banner = ""  # no sshd here
    assert list(system.look(login_banner=True)) == ["host"]


def test_what_is_declared_goes_before_a_rule(system):
    system.write("etc/login.defs", "UMASK 022\nPASS_MAX_DAYS 99999\n")
    system.write("etc/security/limits.conf", "")
    assert set(system.look()) == {"host.umask", "host.password_age", "host.core_dumps"}
    found = system.look(umask="022", password_max_days=0, core_dumps=True)
    assert {subject: one.state for subject, one in found.items()} == {"host": "ok"}
    assert system.look(umask="", password_max_days=0, core_dumps=True)["host"].state == "unknown"


@pytest.mark.parametrize("name", ["etc/login.defs", "etc/shadow", "etc/profile", "proc/sys/fs/suid_dumpable", "etc/security/limits.conf"])
def test_what_cannot_be_read_is_unknown(system, name):
    (system.root / name).unlink()
    (system.root / name).mkdir()
    assert system.look()["host"].state == "unknown"


def test_a_host_that_does_not_tell_of_dumps_is_unknown(system):
    (system.root / "proc/sys/fs/suid_dumpable").unlink()
    assert system.look()["host"].state == "unknown"


@pytest.mark.parametrize(
    ("option", "value"), [("umask", "23"), ("umask", "0797"), ("umask", "u=rwx"), ("password_max_days", -1), ("password_max_days", 99999)]
)
def test_values_that_cannot_be_meant_are_refused(option, value):
    """A bare 0027 is 23 to YAML."""
    assert len(security_host_policy.validate(filled(security_host_policy.OPTIONS, {option: value}))) == 1
    assert security_host_policy.validate(filled(security_host_policy.OPTIONS, {"umask": ""})) == []


@given(st.text(max_size=200))
def test_any_text_of_a_file_is_read(text):
    for mask in (one.mask for one in security_host_settings.umasks("/nowhere", lambda _path: text)):
        assert 0 <= mask <= 0o7777
    security_host_settings.hard_core_limit("/nowhere", lambda _path: text)
    security_host_settings.coredump("/nowhere", lambda _path: text)


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review(filled(security_host_policy.OPTIONS, {}), Host(), False, Host().now())
    assert security_host_policy.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_host_settings, "login_defs", lambda _text: {"PASS_MAX_DAYS": "9"})
    assert "umask" not in security_host_policy.passes_bad_sample(review)  # then nothing applies one, and that is told
    monkeypatch.setattr(security_host_settings, "hard_core_limit", lambda *_: "0")
    monkeypatch.setattr(security_host_policy.Seen, "read", lambda *_: "0")
    assert "core_dumps" in security_host_policy.passes_bad_sample(review)


def test_the_documented_rules_are_the_real_ones():
    """docs/findings.md tells sections of the benchmark as facts, so they have to be those that findings tell."""
    folder = next(parent for parent in Path(__file__).parents if (parent / "galaxy.yml").exists())
    rows = re.findall(
        r"^\| `host\.(\w+)` \| .* \| ([\d., ]+) \| `security_review_(\w+)` \|$", (folder / "docs" / "findings.md").read_text(), re.M
    )
    assert [row[:2] for row in rows] == [(rule.name, rule.cis) for rule in security_host_policy.RULES]
    assert {row[2] for row in rows} == set(security_host_policy.OPTIONS) - {"host_policy"}


def test_settings_of_the_kernel_are_read():
    assert security_host_settings.text_of("/proc/sys/kernel/core_pattern").strip()
