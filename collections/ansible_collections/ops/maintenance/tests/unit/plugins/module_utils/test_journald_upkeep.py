# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration and names of journald; tests/hosts has a real journal."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import journald_upkeep as journald
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host


def params(**changes):
    return {**{name: option.get("default") for name, option in journald.OPTIONS.items()}, "deadline": 0.0, **changes}


class NoJournal(Host):
    def which(self, _name):
        return None


def write(root, path, text):
    full = root / path
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_text(text)


def test_all_drop_ins_count_by_name_and_etc_hides_its_namesakes(tmp_path):
    write(tmp_path, "usr/lib/systemd/journald.conf", "[Journal]\nSystemMaxUse=1G\n")
    write(tmp_path, "etc/systemd/journald.conf", "[Journal]\n#Storage=none\nStorage=volatile\nSystemMaxUse=2G\n[Other]\nStorage=none\n")
    write(tmp_path, "usr/lib/systemd/journald.conf.d/10-a.conf", "[Journal]\nStorage=none\n")
    write(tmp_path, "etc/systemd/journald.conf.d/10-a.conf", "[Journal]\nStorage=persistent\n")
    write(tmp_path, "run/systemd/journald.conf.d/90-z.conf", "[Journal]\nSystemMaxUse=500M\nMaxFileSec=\n")
    write(tmp_path, "usr/lib/systemd/journald.conf.d/95-off.conf", "[Journal]\nSystemMaxUse=9G\n")
    os.symlink("/dev/null", tmp_path / "etc/systemd/journald.conf.d/95-off.conf")
    settings = journald.effective_settings(str(tmp_path))
    assert {name: value for name, (value, _path) in settings.items()} == {"Storage": "persistent", "SystemMaxUse": "500M"}
    assert settings["SystemMaxUse"][1].endswith("run/systemd/journald.conf.d/90-z.conf")


def test_archived_files_tell_their_beginning(tmp_path):
    folder = tmp_path / "var/log/journal/0123"
    folder.mkdir(parents=True)
    seqnum = "74d433ffde6e4123b76ab3a9c7f6717c-0000000000000001-"
    for name in ("system.journal", f"system@{seqnum}000661234a3283ed.journal", "user-1000@000661234a3283ed-74d433ffde6e4123.journal~"):
        (folder / name).write_text("x")
    os.symlink("/etc/passwd", folder / "link.journal")
    begun = [one.begun for one in journald.journal_files(str(tmp_path))]
    assert begun == [None, 0x661234A3283ED / 1e6, 0x661234A3283ED / 1e6]


def test_what_verify_says():
    text = "PASS: /a/system.journal\nFAIL: /a/system@1.journal (Bad message)\n1000: Invalid object\nFAIL: /a/x.journal\n"
    assert journald.parse_verify(text) == (["/a/system.journal"], ["/a/system@1.journal: Bad message", "/a/x.journal: damaged"])


def test_sizes_of_systemd():
    assert [journald.bytes_of(text) for text in ("10", "1K", "500M", "1.5G", "", "x")] == [
        10,
        1024,
        500 * 1024**2,
        1536 * 1024**2,
        None,
        None,
    ]


def test_absent_is_unknown_unless_none_is_expected():
    assert [journald.run(params(expected=expected), False, NoJournal()).findings[0].state for expected in (True, False)] == [
        "unknown",
        "ok",
    ]


@pytest.mark.parametrize("wrong", [{"vacuum_days": 0}, {"vacuum_size_mb": -1}, {"reach_days": 7, "vacuum_days": 3}])
def test_what_cannot_be_meant(wrong):
    with pytest.raises(InputError, match="vacuum_"):
        journald.run(params(**wrong), False, NoJournal())


@given(st.text())
def test_any_text_is_read(text):
    journald.parse_settings(text)
    journald.parse_verify(text)
