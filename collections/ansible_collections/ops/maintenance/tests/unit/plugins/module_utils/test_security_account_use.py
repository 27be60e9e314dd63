# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import struct
from datetime import datetime

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    security_account_disable,
    security_account_use,
    security_accounts,
    security_utmp,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
TODAY = int(NOW.timestamp() // 86400)
CREATED = TODAY - 400


class System(Host):
    """A folder that looks like a root, and the answers of usermod, which really edits its shadow file."""

    def __init__(self, folder):
        self.folder, self.rows, self.logged, self.groups, self.asked = folder, {}, {}, {}, []
        (folder / "var/log").mkdir(parents=True)
        (folder / "etc").mkdir()
        self.sudo("root ALL=(ALL:ALL) ALL", "%sudo ALL=(ALL:ALL) ALL")

    def now(self):
        return NOW

    def account(self, name, uid, used=None, word="$y$x", created=CREATED, expires="", shell="/bin/bash"):
        self.rows[name] = (uid, shell, f"{name}:{word}:{created}:0:99999:7::{expires}:")
        if used is not None:
            self.logged[uid] = NOW.timestamp() - used * 86400
        return self

    def sudo(self, *rules):
        (self.folder / "etc/sudoers").write_text("".join(f"{rule}\n" for rule in rules))

    def run(self, argv, **_):
        self.asked.append(list(argv))
        name = argv[-1]
        uid, shell, row = self.rows[name]
        fields = row.split(":")
        fields[1], fields[7] = f"!{fields[1]}", argv[argv.index("--expiredate") + 1]
        self.rows[name] = (uid, shell, ":".join(fields))
        self.write()
        return Ran(argv, 0, "", "")

    def write(self):
        lines = {"passwd": [], "shadow": [], "group": [f"{name}:x:{gid}:{members}" for name, (gid, members) in self.groups.items()]}
        data = bytearray(292 * (max(uid for uid, _shell, _row in self.rows.values()) + 1))
        for name, (uid, shell, row) in self.rows.items():
            lines["passwd"].append(f"{name}:x:{uid}:{uid}::{self.folder}/home/{name}:{shell}")
            lines["shadow"].append(row)
            if uid in self.logged:
                struct.pack_into("=I32s256s", data, 292 * uid, int(self.logged[uid]), b"", b"")
        for name, rows in lines.items():
            (self.folder / "etc" / name).write_text("".join(f"{row}\n" for row in rows))
        (self.folder / "var/log/lastlog").write_bytes(data)

    def look(self, check_mode=False, **given):
        self.write()
        review = Review(filled(security_account_use.OPTIONS, given), self, check_mode, NOW, str(self.folder / "etc"))
        found = {finding.id.split(".")[1]: finding for finding in security_account_use.look(review)}
        return found, review.actions


@pytest.fixture
def system(tmp_path):
    """Mia is an administrator and logs in daily, tom was not seen for long."""
    made = System(tmp_path).account("root", 0, word="*").account("mia", 1000, used=1).account("tom", 1001, used=45)
    made.groups["sudo"] = (27, "mia")
    return made


def allowed(account, **more):
    return {"account": account, "approved_by": "Mia Vogel", "reason": "left", **more}


def test_accounts_are_active_inactive_or_long_inactive(system):
    found = system.look()[0]["inactive_accounts"]
    assert (found.state, found.value) == ("warning", 1)
    assert "tom: last used on 2026-10-07, at least 45 days ago" in found.evidence
    assert "active: mia" in found.evidence
    system.account("eva", 1002, used=120)
    assert system.look()[0]["inactive_accounts"].state == "critical"
    assert system.look(inactive_warning_days=200, inactive_critical_days=300)[0]["inactive_accounts"].state == "ok"


def test_an_account_that_was_never_used_is_found_and_a_new_one_is_not(system):
    """A comparison of ages alone would drop it, for there is no last log-in to compare."""
    system.account("eva", 1002).account("new", 1003, created=TODAY - 2)
    found = system.look()[0]["inactive_accounts"]
    assert found.state == "critical"
    assert any(line.startswith("eva: never used as far as is known, at least 400 days") for line in found.evidence)
    assert not any("new:" in line for line in found.evidence)
    assert "active: mia, new" in found.evidence


def test_accounts_nobody_can_log_in_to_and_those_of_services_are_no_inactive_people(system):
    system.account("shut", 1002, word="!$y$x", expires=1).account("svc", 1003, shell="/usr/sbin/nologin").account("bot", 1004)
    found = system.look(roster=[{"account": "bot", "owner": "team", "kind": "service"}])[0]["inactive_accounts"]
    assert found.value == 1


def test_what_no_trace_tells_is_unknown_and_never_ok(system):
    del system.rows["tom"]
    system.logged.clear()
    found = system.look()[0]["inactive_accounts"]
    assert found.state == "unknown"
    assert "mia" in found.not_covered


def test_a_short_wtmp_proves_only_as_much_as_it_reaches_back(system, tmp_path):
    system.logged.clear()
    form, begin = security_utmp.layout(), int(NOW.timestamp() - 10 * 86400)
    (tmp_path / "var/log/wtmp").write_bytes(form.pack(7, 1, b"", b"", b"mia", b"", 0, 0, 0, begin, 0, b"", b""))
    found = system.look()[0]["inactive_accounts"]
    assert found.state == "unknown"
    assert "since 2026-11-11 only" in found.not_covered
    assert "tom" in found.not_covered
    assert system.look(inactive_warning_days=7)[0]["inactive_accounts"].state == "warning"


def test_accounts_without_an_owner_are_found_and_a_roster_for_all_hosts_is_no_fault(system):
    assert "account_owner" not in system.look()[0]
    roster = [{"account": name, "owner": "Mia Vogel"} for name in ("mia", "elsewhere")]
    found = system.look(roster=roster)[0]["account_owner"]
    assert (found.state, found.evidence) == ("warning", ["tom"])
    assert system.look(roster=[*roster, {"account": "tom", "owner": "x"}])[0]["account_owner"].state == "ok"


def test_a_service_account_that_may_become_root_needs_an_owner_too(system):
    system.account("backup", 34).groups["docker"] = (999, "backup")
    assert system.look(roster=[])[0]["account_owner"].evidence == ["backup", "mia", "tom"]


def test_accounts_beyond_their_time_are_found(system):
    roster = [{"account": "tom", "owner": "Mia Vogel", "until": "2026-11-20"}]
    assert system.look(roster=roster)[0]["expired_accounts"].state == "critical"
    roster[0]["until"] = "2026-11-21"
    assert system.look(roster=roster)[0]["expired_accounts"].state == "ok"
    system.account("mia", 1000, used=1, expires=TODAY - 1)
    found = system.look()[0]["expired_accounts"]
    assert found.state == "warning"
    assert "mia: expired, and still in sudo" in found.evidence


def test_a_directory_service_is_named_as_not_covered_and_never_enumerated(system):
    (system.folder / "etc/nsswitch.conf").write_text("passwd: files [NOTFOUND=continue] ldap sss\n")
    assert "accounts of ldap, sss: only local files are read" in system.look()[0]["inactive_accounts"].not_covered
    assert system.asked == []


def test_a_million_local_accounts_are_a_clear_finding(system):
    system.write()
    with (system.folder / "etc/passwd").open("a") as target:
        target.writelines(f"user{number}:x:{number}:100::/home/u:/bin/sh\n" for number in range(2000, 1_002_000))
    review = Review(filled(security_account_use.OPTIONS, {}), system, False, NOW, str(system.folder / "etc"))
    found = security_account_use.look(review)
    assert {finding.state for finding in found} == {"unknown"}
    assert "larger than" in found[0].summary


@pytest.mark.parametrize("name", ["$(reboot)", "a b", "ünï", "\x1b[31m"])
def test_odd_names_are_inert(system, name):
    system.account(name, 1002, used=200)
    found, actions = system.look(disable_accounts=[allowed("[!mt]*")])
    assert found["inactive_accounts"].state == "critical"
    assert [argv[-2:] for argv in system.asked] == [["--", name]]
    assert all("\x1b" not in str(action.as_dict()) for action in actions)
    assert "\x1b" not in str(found["inactive_accounts"].as_dict())


# disabling


def test_a_proven_unused_account_that_a_person_named_is_locked_and_expired_once(system):
    system.account("tom", 1001, used=120)
    found, actions = system.look(disable_accounts=[allowed("tom")])
    assert system.asked == [["usermod", "--lock", "--expiredate", "1", "--", "tom"]]
    assert (actions[0].status, actions[0].before) == ("changed", {"locked": False, "expires_day": -1})
    assert "to undo: usermod --unlock --expiredate '' -- tom" in actions[0].summary
    assert "Mia Vogel" in actions[0].summary
    assert found["disabled_accounts"].state == "ok"
    assert system.look(disable_accounts=[allowed("tom")])[1] == []  # done already


def test_check_mode_says_what_would_be_done(system):
    system.account("tom", 1001, used=120)
    found, actions = system.look(check_mode=True, disable_accounts=[allowed("tom")])
    assert (system.asked, actions[0].status) == ([], "due")
    assert "would be disabled" in found["disabled_accounts"].summary


def test_without_a_rule_nothing_is_disabled(system):
    system.account("tom", 1001, used=400)
    found, actions = system.look()
    assert (actions, system.asked, "disabled_accounts" in found) == ([], [], False)


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("mia", {}, "the last open administrator"),
        ("tom", {"protected_accounts": ["tom"]}, "protected"),
        ("tom", {"roster": [{"account": "tom", "owner": "x", "kind": "break_glass"}]}, "break_glass"),
        ("tom", {"roster": [{"account": "tom", "owner": "x", "kind": "service"}]}, "service"),
        ("root", {}, "not one of a person"),
        ("daemon", {}, "not one of a person"),
        ("young", {}, "proven unused for 40 of 90 days"),
    ],
)
def test_what_speaks_against_disabling_is_said_and_nothing_is_done(system, name, given, why):
    system.account("daemon", 1).account("tom", 1001, used=120).account("young", 1005, used=40).account("mia", 1000, used=100)
    system.account("other", 1006, used=1)
    found, actions = system.look(disable_accounts=[allowed(name)], **given)
    assert (actions, system.asked) == ([], [])
    assert found["disabled_accounts"].state == "warning"
    assert why in found["disabled_accounts"].evidence[0]


def test_of_two_administrators_one_stays(system):
    system.account("mia", 1000, used=100).account("tom", 1001, used=100).account("eva", 1002, used=1)
    system.groups["sudo"] = (27, "mia,tom")
    found, actions = system.look(disable_accounts=[allowed("*")])
    assert [action.subject for action in actions] == ["mia"]
    assert any(line.startswith("not disabled, tom: it is the last open administrator") for line in found["disabled_accounts"].evidence)


@pytest.mark.parametrize(
    "rules",
    [
        ("mia ALL=(ALL) ALL",),
        ("mia ALL=(ALL) ALL", "%sudo ALL=(www-data) ALL"),
        ("User_Alias ADMINS = mia", "ADMINS ALL = NOPASSWD: ALL"),
        ("%ops ALL=(ALL:ALL) ALL",),
        ("#1000 ALL=(ALL) NOPASSWD:ALL",),
        ("mia web1=(ALL) ALL",),  # nobody is certain
        ("ALL ALL=(ALL) ALL", "Defaults targetpw"),  # with root's password, which nobody has
    ],
)
def test_administrators_are_those_whom_the_rules_of_sudo_name_not_a_group_of_a_name(system, rules):
    system.account("mia", 1000, used=100).account("tom", 1001, used=1)
    system.groups.update(sudo=(27, "tom"), ops=(600, "mia"))
    system.sudo(*rules)
    found, actions = system.look(disable_accounts=[allowed("mia")])
    assert (actions, system.asked) == ([], [])
    assert "administrator" in found["disabled_accounts"].evidence[0]


def test_root_with_a_password_is_an_administrator_who_is_left(system):
    system.account("mia", 1000, used=100).account("root", 0, word="$y$x")
    assert [action.subject for action in system.look(disable_accounts=[allowed("mia")])[1]] == ["mia"]


def test_who_has_no_password_that_sudo_asks_for_does_not_count_as_left(system):
    system.account("mia", 1000, used=100).account("key", 1002, used=1, word="!")
    system.groups["sudo"] = (27, "mia,key")
    keys = system.folder / "home/key/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== key\n")
    assert system.look(disable_accounts=[allowed("mia")])[1] == []
    system.sudo("%sudo ALL=(ALL) NOPASSWD: ALL")
    keys.write_text('command="/bin/date" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== key\n')
    assert system.look(disable_accounts=[allowed("mia")])[1] == []
    keys.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== key\n")
    assert [action.subject for action in system.look(disable_accounts=[allowed("mia")])[1]] == ["mia"]


@pytest.mark.parametrize("fault", ["gone", "broken", "directory"])
def test_where_administrators_are_not_known_nobody_is_disabled(system, fault):
    system.account("tom", 1001, used=400)
    if fault == "gone":
        system.sudo("@include elsewhere")
    elif fault == "broken":
        system.sudo("mia ALL=(ALL NOPASSWD ALL")
    else:
        (system.folder / "etc/nsswitch.conf").write_text("sudoers: files sss\n")
    found, actions = system.look(disable_accounts=[allowed("tom")])
    assert (actions, system.asked, found["disabled_accounts"].state) == ([], [], "unknown")
    assert "who is an administrator is not known" in found["disabled_accounts"].summary


def test_an_account_that_somebody_can_log_in_to_is_a_person_whatever_its_uid(system):
    system.account("legacy", 150, used=200).account("cloud", 70000, used=200).account("postgres", 110, word="*")
    system.account("www", 33, shell="/usr/sbin/nologin").account("shut", 151, word="!")
    found, actions = system.look(roster=[], disable_accounts=[allowed("legacy")])
    assert found["account_owner"].evidence == ["cloud", "legacy", "mia", "tom"]
    assert found["inactive_accounts"].value == 3
    assert actions == []  # it can be one of a service
    known = system.look(roster=[{"account": "legacy", "owner": "team", "kind": "service"}])[0]
    assert (known["inactive_accounts"].value, "legacy" in known["account_owner"].evidence) == (2, False)


def test_the_connecting_user_is_found_by_sudo_and_by_the_processes_above(system, monkeypatch):
    system.account("tom", 1001, used=120)
    monkeypatch.setenv("SUDO_USER", "tom")
    assert "connected" in system.look(disable_accounts=[allowed("tom")])[0]["disabled_accounts"].evidence[0]
    monkeypatch.delenv("SUDO_USER")
    proc = system.folder / "proc"
    for pid, (uid, parent) in {os.getpid(): (0, 77), 77: (1001, 1), 1: (0, 0)}.items():
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "status").write_text(f"Name:\tx\nState:\tS (sleeping)\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (proc / "self").mkdir()
    (proc / "self/loginuid").write_text("4294967295")
    system.write()
    assert {"tom", "root"} <= security_account_disable.users_of_this_run(str(system.folder / "etc"), str(proc))


def test_a_usermod_that_did_nothing_is_a_failed_action(system, monkeypatch):
    system.account("tom", 1001, used=120)
    monkeypatch.setattr(System, "run", lambda _self, argv, **_: Ran(argv, 0, "", ""))
    found, actions = system.look(disable_accounts=[allowed("tom")])
    assert (actions[0].status, found["disabled_accounts"].state) == ("failed", "critical")


def test_an_unreadable_shadow_file_disables_nobody(system, monkeypatch):
    system.account("tom", 1001, used=400)

    def refuse(_etc):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(security_accounts, "shadows", refuse)
    found, actions = system.look(disable_accounts=[allowed("tom")])
    assert actions == []
    assert "shadow" in found["disabled_accounts"].evidence[0]
    assert found["expired_accounts"].state == "unknown"


def test_wrong_input_is_said_in_sentences():
    params = filled(
        security_account_use.OPTIONS,
        {
            "inactive_warning_days": 0,
            "roster": [{"account": "a", "owner": " ", "until": "soon"}],
            "disable_accounts": [{"account": "*", "approved_by": "", "reason": "x", "inactive_days": -1}],
        },
    )
    said = " ".join(security_account_use.validate(params))
    for part in ("inactive_warning_days is 0", "owner in roster, account 'a'", "'soon'", "approved_by", "inactive_days is -1", "is '*'"):
        assert part in said


def test_the_self_test_notices_a_blind_verifier(system, monkeypatch):
    review = Review(filled(security_account_use.OPTIONS, {}), system, True, NOW)
    assert security_account_use.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_account_use, "from_limit", lambda *_: "ok")
    assert security_account_use.passes_bad_sample(review)
