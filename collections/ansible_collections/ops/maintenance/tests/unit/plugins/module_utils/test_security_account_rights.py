# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import os
import struct
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_account_rights, security_authorized_keys
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGOZvuWGFhbzZQRcS2xo2ppd3dP5Y7LcZ1Bb9CRXp9Fq mia@laptop"


def rsa(bits):
    modulus = (1 << (bits - 1)).to_bytes(bits // 8 + 1, "big")
    blob = b"".join(struct.pack(">I", len(part)) + part for part in (b"ssh-rsa", b"\x01\x00\x01", modulus))
    return f"ssh-rsa {base64.b64encode(blob).decode()} old@laptop"


class System:
    def __init__(self, folder):
        self.folder, self.etc = folder, folder / "etc"
        self.etc.mkdir()
        self.write("passwd", f"root:x:0:0::{folder}/root:/bin/sh\nmia:x:1000:1000::{folder}/mia:/bin/sh\n")
        self.write("group", "root:x:0:\nsudo:x:27:mia\nmia:x:1000:\n")
        self.write("shadow", "root:*:1:0:9:7:::\nmia:$y$j9T$salt$hash:1:0:9:7:::\n")
        self.write("sudoers", "root ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n")

    def write(self, name, text):
        (self.etc / name).write_text(text)

    def keys(self, *lines):
        (self.folder / "mia/.ssh").mkdir(parents=True, exist_ok=True)
        (self.folder / "mia/.ssh/authorized_keys").write_text("".join(f"{line}\n" for line in lines))

    def look(self, **given):
        params = filled({**security_account_rights.OPTIONS, "roster": {"type": "list"}}, given)
        found = security_account_rights.look(Review(params, Host(), True, NOW, str(self.etc)))
        return {finding.id.split(".")[1]: finding for finding in found}


@pytest.fixture
def system(tmp_path):
    return System(tmp_path)


def test_a_clean_host_is_silent(system):
    system.keys(GOOD, "# a comment", "", rsa(4096))
    roster = [{"account": "mia", "owner": "Mia Vogel", "admin": True}]
    assert {name: finding.state for name, finding in system.look(roster=roster).items()} == {
        "password_hash": "ok",
        "sudo_nopasswd": "ok",
        "key_strength": "ok",
        "admin_groups": "ok",
    }


@pytest.mark.parametrize(
    ("word", "method"),
    [
        ("$1$salt$hash", "MD5"),
        ("$md5,rounds=904$salt$hash", "MD5 (Sun)"),
        ("$sha1$1$salt$hash", "SHA-1"),
        ("$3$$8846f7eaee8fb117ad06bdd830b7586c", "NT"),
        ("ab9fa4bKx1QyM", "DES"),
        ("_J9..rasmBYk8r9AiWNc", "DES"),
        ("$2a$10$x", ""),
        ("$5$s$h", ""),
        ("$6$s$h", ""),
        ("$y$j9T$s$h", ""),
        ("$7$s$h", ""),
        ("*", ""),
        ("!", ""),
        ("!!", ""),
        ("!*", ""),
        ("", ""),
        ("!$1$salt$hash", ""),
        ("x", ""),
        ("$", ""),
    ],
)
def test_weak_hashes_are_known_by_their_prefix(word, method):
    assert security_account_rights.weak_hash(word) == method


def test_weak_hashes_are_named_without_the_hash(system):
    system.write("shadow", "mia:$1$s4lt$h4sh:1:0:9:7:::\n")
    found = system.look()["password_hash"]
    assert (found.state, found.evidence) == ("warning", ["mia: MD5"])
    assert "h4sh" not in str(found.as_dict())


def test_a_shadow_file_that_cannot_be_read_is_unknown(system):
    (system.etc / "shadow").unlink()
    (system.etc / "shadow").mkdir()
    assert system.look()["password_hash"].state == "unknown"


@pytest.mark.parametrize(
    ("rule", "who"),
    [
        ("mia ALL=(ALL) NOPASSWD: ALL", ["mia"]),
        ("mia ALL=(ALL:ALL) NOPASSWD:ALL", ["mia"]),
        ("%wheel ALL = NOPASSWD: /bin/ls, ALL", ["%wheel"]),
        ("mia, tom ALL=(root) NOPASSWD:SETENV: ALL", ["mia", "tom"]),
        ("mia ALL=(root) NOPASSWD: /bin/ls, (root:adm) ALL", ["mia"]),
        ("mia A=/bin/ls : B = NOPASSWD: ALL", ["mia"]),
        ("mia ALL=NOPASSWD: EVERYTHING", ["mia"]),
        ("mia ALL=CWD=/tmp NOPASSWD: ALL", ["mia"]),
        ("Defaults !authenticate", ["ALL"]),
        ("Defaults:mia env_reset, !authenticate", ["mia"]),
        ("mia ALL=(ALL) ALL", []),
        ("mia ALL=NOPASSWD: /bin/systemctl restart app", []),
        ("mia ALL=NOPASSWD: /bin/ls, PASSWD: ALL", []),
        ("mia ALL=NOPASSWD: SOME", []),
        ("mia ALL=NOPASSWD: !ALL", []),
        ("Defaults env_reset", []),
        ("Defaults authenticate", []),
        ("Cmnd_Alias X = ALL", []),
        ("User_Alias NOPASSWD = ALL", []),
    ],
)
def test_rules_that_give_everything_without_a_password(rule, who):
    aliases = ["Cmnd_Alias SOME = /bin/ls, /bin/cat : EVERYTHING = SOME, LOOP : LOOP = EVERYTHING, ALL"]
    assert [name for name, _rule in security_account_rights.nopasswd_all([*aliases, rule])] == who


@given(st.lists(st.text("aALN=(): ,!%/_PSWDO\\\"'\n\x1b", max_size=60), max_size=8))
def test_no_rule_breaks_the_reader(rules):
    for who, _rule in security_account_rights.nopasswd_all(rules):
        assert isinstance(who, str)


def test_rules_without_a_password_are_found_unless_declared(system):
    system.write("sudoers", "%sudo ALL=(ALL:ALL) NOPASSWD: ALL\n")
    assert system.look()["sudo_nopasswd"].state == "warning"
    assert system.look(sudo_nopasswd=["%sudo"])["sudo_nopasswd"].state == "ok"
    (system.etc / "sudoers").unlink()
    assert "sudo_nopasswd" not in system.look()


def test_rules_that_cannot_be_read_are_unknown(system):
    system.write("sudoers", "@include sudoers\n")  # a loop
    assert system.look()["sudo_nopasswd"].state == "unknown"


def test_administrators_that_nobody_declared_are_found(system):
    assert "admin_groups" not in system.look()
    found = system.look(roster=[{"account": "mia", "owner": "x", "admin": False}])["admin_groups"]
    assert (found.state, found.evidence) == ("warning", ["mia: sudo"])


def test_weak_keys_are_found_by_their_bytes(system):
    system.keys(rsa(1024), rsa(2048), "ssh-dss AAAAB3NzaC1kc3MAAACBAA== x", "cert-authority " + GOOD, "not a key at all")
    found = system.look()["key_strength"]
    assert (found.state, found.value) == ("warning", 4)
    said = " ".join(found.evidence)
    for part in ("RSA with 1024 bits", "DSA", "an authority", "not a key"):
        assert part in said
    assert "RSA with 2048 bits" not in said
    assert "RSA with 2048 bits" in " ".join(system.look(rsa_minimum_bits=3072)["key_strength"].evidence)


def test_options_are_read_outside_their_values(system):
    system.keys('command="echo cert-authority,ssh-dss x",from="10.0.0.0/8" ' + GOOD, 'expiry-time="20300101" ' + GOOD)
    assert system.look()["key_strength"].state == "ok"
    system.keys('expiry-time="20200101" ' + GOOD, 'environment="LD_PRELOAD=x" ' + GOOD)
    assert system.look()["key_strength"].value == 2


def test_a_folder_of_keys_that_is_a_link_is_not_followed(system):
    (system.folder / "elsewhere").mkdir()
    (system.folder / "elsewhere/authorized_keys").write_text(rsa(1024))
    (system.folder / "mia").mkdir()
    os.symlink(system.folder / "elsewhere", system.folder / "mia/.ssh")
    found = system.look()["key_strength"]
    assert found.state == "unknown"
    assert "symbolic link" in found.not_covered


@given(st.binary(max_size=300))
def test_any_blob_is_measured_without_an_error(blob):
    bits = security_account_rights.rsa_bits(blob)
    assert bits is None or bits >= 0


@given(st.text(max_size=200))
def test_any_line_is_a_key_or_none(line):
    key = security_authorized_keys.key_of(line)
    assert key is None or isinstance(security_account_rights.key_faults(key, 2048, NOW), list)


def test_the_self_test_notices_a_blind_verifier(system, monkeypatch):
    review = Review(filled(security_account_rights.OPTIONS, {}), Host(), True, NOW)
    assert security_account_rights.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_account_rights, "weak_hash", lambda _word: "")
    assert security_account_rights.passes_bad_sample(review)
