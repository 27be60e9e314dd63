# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_accounts, security_authorized_keys, security_baseline
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGOZvuWGFhbzZQRcS2xo2ppd3dP5Y7LcZ1Bb9CRXp9Fq"


class SudoHost(Host):
    """Answers for visudo, so that the tests do not need sudo."""

    def __init__(self, rc=0, said="parsed OK"):
        self.answer = rc, said

    def run(self, argv, **_):
        assert argv[:2] == ["visudo", "-c"]
        return Ran(argv, self.answer[0], self.answer[1], "")


class System:
    """A folder that looks like /etc, with homes beside it."""

    def __init__(self, folder):
        self.folder, self.etc = folder, folder / "etc"
        self.etc.mkdir()
        self.state = str(folder / "state")
        self.passwd = {"root": ("0", "0", "/bin/bash"), "mia": ("1000", "1000", "/bin/bash")}
        self.group = {"root": ("0", ""), "mia": ("1000", ""), "sudo": ("27", "")}
        self.shadow = {"root": "*", "mia": "$y$x"}
        self.write("sudoers", "Defaults env_reset # why\nroot ALL=(ALL:ALL) ALL\n@includedir sudoers.d\n")
        (self.etc / "sudoers.d").mkdir()

    def write(self, name, text):
        path = self.folder / name if "/" in name else self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def home(self, name):
        return self.folder / "home" / name

    def review(self, check_mode=False, host=None, **given):
        lines = [f"{name}:x:{uid}:{gid}::{self.home(name)}:{shell}" for name, (uid, gid, shell) in self.passwd.items()]
        self.write("passwd", "\n".join(lines) + "\n")
        self.write("group", "".join(f"{name}:x:{gid}:{members}\n" for name, (gid, members) in self.group.items()))
        self.write("shadow", "".join(f"{name}:{word}:1:0:9:7:::\n" for name, word in self.shadow.items()))
        spec = {**security_baseline.OPTIONS, "state_dir": {"type": "path"}}
        params = filled(spec, {"state_dir": self.state, **given})
        review = Review(params, host or SudoHost(), check_mode, Host().now(), str(self.etc))
        return {finding.id.split(".")[1]: finding for finding in security_baseline.look(review)}


@pytest.fixture
def system(tmp_path):
    return System(tmp_path)


def states(found):
    return {name: finding.state for name, finding in found.items()}


def test_the_first_run_writes_the_baseline_and_says_so(system):
    found = system.review()
    assert set(states(found).values()) == {"ok"}
    assert "first sight" in found["accounts"].summary
    assert found["accounts"].not_covered
    kept = json.loads((system.folder / "state" / "security_baseline.json").read_text())
    assert sorted(kept["accounts"]) == ["mia", "root"]
    again = system.review()
    assert "0 changes" in again["accounts"].summary
    assert set(states(again).values()) == {"ok"}


def test_check_mode_gives_the_same_verdicts_and_writes_nothing(system):
    assert states(system.review(check_mode=True)) == states(system.review(check_mode=True))
    assert not os.path.exists(system.state)


def test_drift_of_accounts_is_found_until_it_is_accepted(system):
    system.review()
    system.passwd.update(eve=("1001", "1001", "/bin/sh"), mia=("1000", "1000", "/bin/zsh"))
    found = system.review()["accounts"]
    assert (found.state, found.value) == ("warning", 2)
    assert any("new account eve" in line for line in found.evidence)
    assert system.review()["accounts"].state == "warning"  # not forgotten by looking
    assert system.review(check_mode=True, accept_baseline=True)["accounts"].state == "ok"
    assert system.review()["accounts"].state == "warning"  # check mode accepted nothing
    accepted = system.review(accept_baseline=True)["accounts"]
    assert (accepted.state, accepted.value) == ("ok", 2)
    assert system.review()["accounts"].value == 0
    del system.passwd["eve"]
    assert "removed account eve" in system.review()["accounts"].evidence


def test_a_new_way_to_become_root_is_critical(system):
    system.review()
    system.group["sudo"] = ("27", "mia")
    assert system.review()["accounts"].state == "critical"
    system.group["sudo"] = ("27", "")
    system.passwd["toor"] = ("0", "0", "/bin/sh")
    found = system.review()
    assert (found["accounts"].state, found["root_accounts"].state) == ("critical", "critical")
    assert found["root_accounts"].evidence == ["toor"]


@pytest.mark.parametrize("uid", ["0", "00", " 0"])
def test_every_spelling_of_uid_zero_is_root(uid):
    assert security_accounts.root_twins({"toor": {"uid": uid}, "root": {"uid": "0"}, "mia": {"uid": "10"}}) == ["toor"]


def test_empty_passwords_are_critical_and_locked_ones_are_not(system):
    system.shadow["mia"] = ""
    found = system.review()["empty_password"]
    assert (found.state, found.evidence) == ("critical", ["mia"])
    system.shadow["mia"] = "!"
    assert system.review()["empty_password"].state == "ok"


def test_a_shadow_file_that_cannot_be_read_is_unknown(system, monkeypatch):
    real = security_accounts.read_small

    def refuse(path):
        if path.endswith("shadow"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(security_accounts, "read_small", refuse)
    found = system.review()["empty_password"]
    assert found.state == "unknown"
    assert "become" in found.summary


def test_a_new_sudo_rule_is_critical_wherever_it_is_included(system):
    system.review()
    (system.etc / "sudoers.d" / "60-app").write_text("# comment\nmia ALL=(ALL) \\\n    NOPASSWD: ALL # quick\n#1000 ALL=ALL\n")
    found = system.review()["sudo"]
    assert (found.state, found.value) == ("critical", 2)
    assert found.evidence[0].endswith("60-app: #1000 ALL=ALL")
    assert found.evidence[1].endswith("60-app: mia ALL=(ALL) NOPASSWD: ALL")
    (system.etc / "sudoers.d" / "60-app").write_text("mia ALL=(ALL) NOPASSWD: ALL\n#1000   ALL=ALL\n")
    system.review(accept_baseline=True)
    (system.etc / "sudoers.d" / "60-app").write_text("# only a comment changed\nmia  ALL=(ALL)  NOPASSWD: ALL\n#1000 ALL=ALL\n")
    assert system.review()["sudo"].state == "ok"


def test_rules_that_do_not_parse_or_are_ignored_are_found(system):
    found = system.review(host=SudoHost(1, "/etc/sudoers:3:9: syntax error"))["sudo_syntax"]
    assert (found.state, found.evidence) == ("critical", ["/etc/sudoers:3:9: syntax error"])
    (system.etc / "sudoers.d" / "60.app").write_text("mia ALL=ALL\n")
    assert system.review()["sudo_syntax"].state == "warning"


def test_a_sudoers_file_that_includes_itself_ends_in_a_finding(system):
    system.write("sudoers", "@include sudoers\n")
    assert system.review()["sudo"].state == "unknown"


def test_a_host_without_sudo_has_no_rules_and_notices_the_first(system):
    (system.etc / "sudoers").unlink()
    assert system.review()["sudo"].state == "ok"
    system.write("sudoers", "mia ALL=ALL\n")
    assert system.review()["sudo"].state == "critical"


def keys_file(system, name, text):
    path = system.home(name) / ".ssh" / "authorized_keys"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_keys_are_compared_by_fingerprint(system):
    keys_file(system, "mia", f"{KEY} mia@desk\n")
    system.review()
    keys_file(system, "mia", f'# moved\nfrom="10.0.0.*",command="a b" {KEY} mia@desk\n')
    found = system.review()["ssh_keys"]
    assert (found.state, found.value) == ("warning", 2)
    assert not any("a b" in line for line in found.evidence)  # a command may hold a secret
    keys_file(system, "mia", f'from="10.0.0.*",command="a c" {KEY} mia@desk\n')
    assert system.review()["ssh_keys"].evidence != found.evidence
    keys_file(system, "mia", f"{KEY} mia@desk\n")
    keys_file(system, "root", f"{KEY}\n")
    assert system.review()["ssh_keys"].state == "critical"


def test_fingerprints_are_those_of_ssh_keygen(tmp_path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    path = tmp_path / "key"
    path.write_text(KEY + " mia\n")
    said = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] in security_authorized_keys.keys_of(path.read_text())[0]


def test_odd_key_lines_are_kept_as_such():
    assert security_authorized_keys.keys_of("\n#x\nhello\nssh-rsa ???\n") == ["not a key: hello", "not a key: ssh-rsa ???"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_keys_behind_a_link_are_unknown_and_not_read(system, what):
    secret = system.write("elsewhere/authorized_keys", f"{KEY}\n")
    home = system.home("mia")
    home.mkdir(parents=True)
    if what == "folder":
        (home / ".ssh").symlink_to(secret.parent)
    else:
        (home / ".ssh").mkdir()
        (home / ".ssh" / "authorized_keys").symlink_to(secret)
    found = system.review()["ssh_keys"]
    assert found.state == "unknown"
    assert "symbolic link" in found.not_covered
    # once it can be read, it is seen for the first time, and known from then on
    (home / ".ssh").unlink() if what == "folder" else (home / ".ssh" / "authorized_keys").unlink()
    keys_file(system, "mia", f"{KEY}\n")
    assert system.review()["ssh_keys"].state == "ok"
    keys_file(system, "mia", "")
    assert system.review()["ssh_keys"].state == "warning"


def test_a_baseline_that_cannot_be_read_is_kept_and_said(system):
    system.review()
    path = system.folder / "state" / "security_baseline.json"
    path.write_text("{")
    found = system.review(accept_baseline=True)
    assert {found[name].state for name in ("accounts", "sudo", "ssh_keys")} == {"unknown"}
    assert path.read_text() == "{"


def test_no_accounts_file_is_unknown_for_all(tmp_path):
    params = {"state_dir": str(tmp_path), "accept_baseline": False}
    found = security_baseline.look(Review(params, SudoHost(), False, Host().now(), str(tmp_path / "none")))
    assert {finding.state for finding in found} == {"unknown"}
    assert len(found) == len(security_baseline.IDS)


def test_a_folder_in_place_of_a_file_is_named(system):
    (system.etc / "sudoers").unlink()
    (system.etc / "sudoers").mkdir()
    with pytest.raises(MaintenanceError, match="is a folder, expected a file"):
        security_accounts.sudo_rules(str(system.etc / "sudoers"))
    assert system.review()["sudo"].state == "unknown"


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_baseline.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_accounts, "root_twins", lambda *_: [])
    assert security_baseline.passes_bad_sample(review)


def test_one_number_with_several_names_is_told(system):
    assert system.review()["shared_ids"].state == "ok"
    system.passwd["tim"] = ("1000", "1000", "/bin/sh")
    system.group["admins"] = ("027", "")
    found = system.review()["shared_ids"]
    assert (found.state, found.value) == ("warning", 2)
    assert found.evidence == ["uid 1000: mia, tim", "gid 27: sudo, admins"]


def test_a_member_of_a_number_is_a_member_of_all_its_names(system):
    system.review()
    system.group["games"] = ("27", "mia")
    assert security_accounts.accounts(str(system.etc))["mia"]["groups"] == ["mia"]
    found = system.review()["accounts"]
    assert found.state == "critical"
    assert any("games,mia,sudo" in line for line in found.evidence)
