# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_account_rights, security_authorized_keys, security_baseline
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGOZvuWGFhbzZQRcS2xo2ppd3dP5Y7LcZ1Bb9CRXp9Fq mia@laptop"
WEAK = "ssh-dss AAAAB3NzaC1kc3M= mia@old"


class SshdHost(Host):
    """An sshd that says what it is given, another thing for a user that is named."""

    def __init__(self, said, **users):
        self.said, self.users = said, users

    def run(self, argv, **_):
        if argv[0] != "sshd":
            return Ran(argv, 0, "", "")
        if self.said is None:
            raise MaintenanceError("sshd says nothing.")
        named = [said for user, said in self.users.items() if f"user={user}," in argv[-1]]
        return Ran(argv, 0, (named or [self.said])[0], "")


class System:
    def __init__(self, folder):
        self.folder, self.etc = folder, folder / "etc"
        self.write("etc/passwd", f"root:x:0:0::{folder}/root:/bin/sh\nmia:x:1000:1000::{folder}/mia:/bin/sh\n")
        self.write("etc/group", "root:x:0:\nmia:x:1000:\n")
        self.write("etc/shadow", "root:*:1:0:9:7:::\nmia:$y$j9T$salt$hash:1:0:9:7:::\n")

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def strength(self, said, config="AuthorizedKeysFile elsewhere\n", **users):
        self.write("etc/ssh/sshd_config", config)
        params = filled({**security_account_rights.OPTIONS, "roster": {"type": "list"}}, {})
        found = security_account_rights.look(Review(params, SshdHost(said, **users), True, Host().now(), str(self.etc)))
        return next(finding for finding in found if finding.id == "security.key_strength")

    def drift(self, said, **given):
        self.write("etc/ssh/sshd_config", "AuthorizedKeysFile elsewhere\n")
        params = filled({**security_baseline.OPTIONS, "state_dir": {"type": "path"}}, {"state_dir": str(self.folder / "state"), **given})
        found = security_baseline.look(Review(params, SshdHost(said), False, Host().now(), str(self.etc)))
        return next(finding for finding in found if finding.id == "security.ssh_keys")


@pytest.fixture
def system(tmp_path):
    return System(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        ("{folder}/keys/%u", "keys/mia"),
        ("{folder}/keys/%U/%%keys", "keys/1000/%keys"),
        ("%h/own_keys", "mia/own_keys"),
        (".ssh/more/keys", "mia/.ssh/more/keys"),
        ("{folder}/shared_keys", "shared_keys"),
        ("none {folder}/%u/.ssh/keys", "mia/.ssh/keys"),
    ],
)
def test_keys_are_read_where_sshd_looks_for_them(system, pattern, file):
    said = f"authorizedkeysfile {pattern.format(folder=system.folder)}\nauthorizedkeyscommand none\ntrustedusercakeys none\n"
    system.write("mia/.ssh/authorized_keys", f"{WEAK}\n")  # nobody gets in by these
    system.write(file, f"{GOOD}\n")
    assert system.strength(said).state == "ok"
    system.write(file, f"{WEAK}\n")
    found = system.strength(said)
    assert found.state == "warning"
    assert any(line.startswith("mia: DSA") for line in found.evidence)


def test_a_new_key_in_another_place_is_drift(system):
    said = f"authorizedkeysfile {system.folder}/keys/%u\n"
    assert system.drift(said).state == "ok"
    system.write("keys/mia", f"{GOOD}\n")
    assert system.drift(said).state == "warning"
    assert system.drift(said, accept_baseline=True).state == "ok"


def test_what_sshd_does_not_say_this_time_is_neither_drift_nor_accepted(system):
    said = f"authorizedkeysfile {system.folder}/keys/%u\n"
    system.write("keys/mia", f"{GOOD}\n")
    system.write("mia/.ssh/authorized_keys", f"{WEAK}\n")
    assert system.drift(said).state == "ok"
    for given in ({}, {"accept_baseline": True}):
        found = system.drift(None, **given)
        assert (found.state, found.value, found.not_covered.count("where sshd looks")) == ("unknown", 0, 1)
    assert (system.drift(said).state, system.drift(said).value) == ("ok", 0)


def test_a_match_block_with_another_file_is_followed(system):
    system.write("keys/mia", f"{WEAK}\n")
    config = f"Match\tUser mia\n\tAuthorizedKeysFile\t{system.folder}/keys/%u\n"
    found = system.strength("authorizedkeysfile .ssh/authorized_keys\n", config, mia=f"authorizedkeysfile {system.folder}/keys/%u\n")
    assert found.state == "warning"


@pytest.mark.parametrize(
    ("said", "gap"),
    [
        ("authorizedkeysfile none\nauthorizedkeyscommand /usr/bin/get_keys --token=hunter2 %u\n", "/usr/bin/get_keys gives"),
        ("authorizedkeysfile none\ntrustedusercakeys /etc/ssh/ca.pub\n", "authorities in /etc/ssh/ca.pub"),
        (None, "where sshd looks for keys"),
    ],
)
def test_what_is_not_in_files_is_not_called_healthy(system, said, gap):
    for found in (system.strength(said), system.drift(said), system.drift(said, accept_baseline=True)):
        assert found.state == "unknown"
        assert gap in found.not_covered
        assert "hunter2" not in str(found)


def test_a_match_block_that_cannot_be_made_up_is_named(system):
    found = system.strength("authorizedkeysfile none\n", "Match User *\n AuthorizedKeysFile /x\n")
    assert found.state == "unknown"
    assert "Match User *" in found.not_covered


def test_an_sshd_that_says_nothing_of_keys_is_not_even_asked(system):
    system.write("mia/.ssh/authorized_keys", f"{GOOD}\n")
    assert system.strength(None, "Match User *\n X11Forwarding no\n").state == "ok"


def test_links_below_the_place_are_not_followed(system):
    system.write("secret/mia", f"{WEAK}\n")
    Path(system.folder / "keys").mkdir()
    Path(system.folder / "homes").mkdir()
    os.symlink(system.folder / "secret", system.folder / "homes/mia")
    os.symlink(system.folder / "secret/mia", system.folder / "keys/mia")
    for place in ("keys/%u", "homes/%u/mia"):
        found = system.strength(f"authorizedkeysfile {system.folder}/{place}\n")
        assert found.state == "unknown"
        assert "symbolic link" in found.not_covered


def test_defaults_hold_without_a_configuration(tmp_path):
    review = Review({}, SshdHost(None), True, Host().now(), str(tmp_path))
    assert security_authorized_keys.places(review) == security_authorized_keys.Places()
