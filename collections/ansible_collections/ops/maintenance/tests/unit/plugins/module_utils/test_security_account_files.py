# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_account_files
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review

SOUND = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nmia:x:1000:1000::/home/mia:/bin/sh\n",
    "shadow": "root:*:20000:0:99999:7:::\nmia:$y$x:20000:0:90:7:::\n",
    "group": "root:x:0:\nsudo:x:27:mia,root\nmia:x:1000:\n",
    "gshadow": "root:*::\nsudo:*::root,mia\nmia:!::\n",
}


def looked(tmp_path, **texts):
    for name, text in {**SOUND, **texts}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    [found] = security_account_files.look(Review({}, Host(), False, Host().now(), str(tmp_path)))
    return found


def test_sound_files_stay_silent(tmp_path):
    found = looked(tmp_path)
    assert (found.state, found.value, list(found.evidence)) == ("ok", 0, [])
    assert looked(tmp_path, passwd=SOUND["passwd"] + "+@admins::::::\n+::::::\n\n").state == "ok"


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("passwd", "half:x:1001", "passwd, line 3: 3 fields where 7 belong"),
        ("passwd", "# a comment", "passwd, line 3: 1 field where 7 belong"),
        ("passwd", "mia:x:1001:1000::/:/bin/sh", "in passwd mia is there 2 times"),
        ("passwd", "a b:*:1001:1000::/:/bin/sh", "in passwd 'a b' is no name"),
        ("passwd", ":*:1001:1000::/:/bin/sh", "in passwd '' is no name"),
        ("passwd", "leo:*:x:1000::/:/bin/sh", "in passwd leo has 'x' where a number belongs"),
        ("passwd", "leo:*:1001:9999::/:/bin/sh", "in passwd the group 9999 of leo is not there"),
        ("passwd", "leo:x:1001:1000::/:/bin/sh", "leo of passwd is not in shadow"),
        ("passwd", "leo:$6$x:1001:1000::/:/bin/sh", "in passwd the password of leo is kept where everybody may read it"),
        ("shadow", "gone:*:1:0:9:7:::", "gone of shadow is not in passwd"),
        ("shadow", "mia:*:1:0:9:7::", "shadow, line 3: 8 fields where 9 belong"),
        ("group", "web:x:33:gone", "in group the member gone of web is not there"),
        ("group", "web:x:33:", "web of group is not in gshadow"),
        ("group", "mia:*:1002:", "in group mia is there 2 times"),
        ("group", "web:*::", "in group web has '' where a number belongs"),
        ("gshadow", "gone:!::", "gone of gshadow is not in group"),
    ],
)
def test_what_does_not_hold_together_is_told(tmp_path, name, line, said):
    found = looked(tmp_path, **{name: f"{SOUND[name]}{line}\n"})
    assert (found.state, said in found.evidence) == ("warning", True), found.evidence


def test_other_members_and_a_day_that_is_still_to_come_are_told(tmp_path):
    assert list(looked(tmp_path, gshadow=SOUND["gshadow"].replace("root,mia", "mia")).evidence) == [
        "sudo has other members in gshadow than in group"
    ]
    late = SOUND["shadow"].replace("$y$x:20000", "$y$x:90000")
    found = looked(tmp_path, gshadow=SOUND["gshadow"], shadow=late)
    assert list(found.evidence) == ["in shadow the password of mia was changed on a day that is still to come"]


def test_what_a_directory_may_know_is_not_taken_for_missing(tmp_path):
    (tmp_path / "nsswitch.conf").write_text("passwd: files sss\n")
    found = looked(tmp_path, passwd=SOUND["passwd"] + "leo:*:1001:9999::/:/bin/sh\n")
    assert (found.state, found.not_covered) == ("ok", "accounts and groups of sss")


def test_what_is_not_there_or_not_readable_is_unknown_unless_it_need_not_be_there(tmp_path):
    (tmp_path / "shadow").mkdir()
    assert looked(tmp_path, shadow=None).state == "unknown"
    (tmp_path / "shadow").rmdir()
    assert looked(tmp_path, shadow=None).state == "unknown"
    (tmp_path / "gshadow").unlink()
    assert looked(tmp_path, gshadow=None).state == "ok"
    (tmp_path / "group").unlink()
    assert looked(tmp_path, group=None).state == "unknown"


def test_no_line_of_a_file_can_drive_a_terminal_or_tell_a_password(tmp_path):
    found = looked(tmp_path, passwd=SOUND["passwd"] + "evil\x1b[31m:$6$salt$secret:1001:1000::/:/bin/sh\nhalf:$6$secret\n")
    assert "\x1b" not in str(found.as_dict())
    assert "secret" not in str(found.as_dict())


@given(st.fixed_dictionaries({name: st.text(max_size=80) for name in SOUND}), st.booleans())
def test_any_text_is_judged(texts, has_directory):
    assert all(isinstance(fault, str) for fault in security_account_files.faults_of(texts, 20000, has_directory))


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_account_files.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_account_files, "_missing", lambda *_: [])
    assert security_account_files.passes_bad_sample(review)
