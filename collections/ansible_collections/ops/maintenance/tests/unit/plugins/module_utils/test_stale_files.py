# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old files in real folders: only what a rule names goes, never through a link, never what is in use."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import stale_files
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.stale_files_references import can_be_asked

NOW = datetime.now(timezone.utc)


class FixedHost(Host):
    def __init__(self, days=0.0):
        self.moment = NOW + timedelta(days=days)

    def now(self):
        return self.moment


class Tree:
    """A folder of uploads, with what must never be touched beside it."""

    def __init__(self, base):
        self.root, self.state = base / "uploads", base / "state"
        self.root.mkdir()

    def file(self, name, days=40.0, data=b"x" * 10):
        path = os.path.join(os.fsencode(str(self.root)), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as target:
            target.write(data)
        self.age(path, days)
        return path

    def age(self, path, days):
        moment = NOW.timestamp() - days * 86400
        os.utime(path, (moment, moment), follow_symlinks=False)

    def names(self):
        return sorted(os.path.relpath(os.path.join(at, name), self.root) for at, _folders, files in os.walk(self.root) for name in files)

    def rule(self, **more):
        given = {name: option.get("default") for name, option in stale_files.RULE.items()}
        return {**given, "root": str(self.root), "patterns": ["*"], "age_days": 30.0, **more}

    def run(self, *rules, check=False, host=None, deadline=0.0):
        params = {
            "run_id": "r",
            "deadline": deadline,
            "state_dir": str(self.state),
            "self_test": False,
            "servers": [],
            "rules": list(rules),
        }
        outcome = stale_files.run(params, check, host or FixedHost())
        json.dumps(outcome.record()).encode()
        return outcome


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_files_go_after_thirty_days_to_the_second(tree):
    """asr-05-3: `-mtime +30` would keep what is 30 days and some hours old."""
    tree.file("young", 29.999)
    tree.file("old", 30.001)
    plan = tree.run(tree.rule(), check=True)
    assert (plan.status, plan.returned) == ("due", {"due": True, "files": 1, "bytes": 10})
    assert tree.names() == ["old", "young"]
    assert not tree.state.exists()
    done = tree.run(tree.rule())
    assert (done.status, done.returned) == ("changed", plan.returned)
    assert tree.names() == ["young"]
    assert json.loads((tree.state / stale_files.LISTS).read_text())["removed"] == {f"{tree.root} (*)": ["old"]}
    again = tree.run(tree.rule())
    assert (again.status, again.returned["due"]) == ("ok", False)


def test_only_what_the_rule_names(tree):
    """asr-05-3: attachments are records and stay, however old they are."""
    for name in ("a.tmp", "keep.tmp", "order.pdf", "sub/b.tmp", "cache/c.bin", "other/c.bin"):
        tree.file(name)
    tree.run(tree.rule(patterns=["*.tmp", "cache/*"], exclude=["keep*"]))
    assert tree.names() == ["keep.tmp", "order.pdf", "other/c.bin"]


def test_links_are_neither_followed_nor_removed(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    tree.age(outside / "precious", 400)
    for name, target in (("folder", outside), ("file", outside / "precious"), ("dangling", tmp_path / "nowhere")):
        (tree.root / name).symlink_to(target)
        tree.age(tree.root / name, 400)
    os.mkfifo(tree.root / "pipe")
    tree.age(tree.root / "pipe", 400)
    done = tree.run(tree.rule(remove_empty_folders=True))
    assert done.status == "ok"
    assert (outside / "precious").exists()
    assert sorted(os.listdir(tree.root)) == ["dangling", "file", "folder", "pipe"]
    kept = [finding for finding in done.findings if finding.id == "stale_files.kept"]
    assert [(finding.value, "regular" in finding.summary) for finding in kept] == [(4, True)]


def test_a_folder_that_is_replaced_by_a_link_on_the_way_leads_nowhere(tree, tmp_path, monkeypatch):
    tree.file("sub/a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("precious")
    tree.age(outside / "a", 400)
    original = os.open

    def swap(path, *args, **kwargs):
        if path == "sub":
            os.rename(tree.root / "sub", tmp_path / "moved")
            (tree.root / "sub").symlink_to(outside)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", swap)
    done = tree.run(tree.rule())
    assert (outside / "a").exists()
    assert (tmp_path / "moved" / "a").exists()
    assert "sub" in next(finding for finding in done.findings if finding.id == "stale_files.files").not_covered


@pytest.mark.parametrize("name", ["-rf", "two\nlines", b"not \xff text", "sp ace", "ünï", "*", "a" * 255, "$(reboot)", ".hidden"])
def test_hostile_names(tree, name):
    tree.file(name)
    assert tree.run(tree.rule(), check=True).returned["files"] == 1
    assert tree.run(tree.rule()).returned["files"] == 1
    assert tree.names() == []


def test_names_that_no_database_can_hold():
    assert can_be_asked("ünï")
    assert not can_be_asked(os.fsdecode(b"not \xff text"))


def test_files_that_a_process_has_open_stay(tree):
    path = tree.file("in use")
    tree.file("idle")
    with open(path, "rb"):
        done = tree.run(tree.rule())
    assert tree.names() == ["in use"]
    assert any("open in a process" in finding.summary for finding in done.findings)
    tree.run(tree.rule())
    assert tree.names() == []


def test_a_file_that_changes_after_it_was_looked_at_stays(tree, monkeypatch):
    path = tree.file("a")
    original = stale_files.Cleaner._referred_to

    def touch(self, stale):
        tree.age(path, 35)
        return original(self, stale)

    monkeypatch.setattr(stale_files.Cleaner, "_referred_to", touch)
    done = tree.run(tree.rule())
    assert tree.names() == ["a"]
    assert done.status == "ok"


def test_age_by_the_later_of_both_times(tree):
    """A file that was copied here with its old time is new here."""
    tree.file("copied", 400)
    tree.run(tree.rule(age_by="changed"))
    assert tree.names() == ["copied"]
    tree.run(tree.rule(age_by="changed"), host=FixedHost(31))
    assert tree.names() == []


def test_empty_folders_go_when_they_are_old_too(tree):
    tree.file("old/a/b/file")
    tree.file("busy/young", 1)
    for name in ("new", "old/kept", "empty/deep"):
        (tree.root / name).mkdir(parents=True)
    for name in ("old/a/b", "old/a", "old", "empty/deep", "empty", "busy"):
        tree.age(tree.root / name, 50)
    plan = tree.run(tree.rule(remove_empty_folders=True), check=True)
    done = tree.run(tree.rule(remove_empty_folders=True))
    assert plan.actions[0].before == done.actions[0].before == {"files": 1, "bytes": 10, "folders": 4}
    assert sorted(os.listdir(tree.root)) == ["busy", "new", "old"]
    assert os.listdir(tree.root / "old") == ["kept"]
    assert os.path.isdir(tree.root)


def test_folders_stay_unless_asked_for(tree):
    tree.file("sub/a")
    tree.run(tree.rule())
    assert os.listdir(tree.root) == ["sub"]


def test_the_window_ends_the_work(tree):
    tree.file("a")
    done = tree.run(tree.rule(), deadline=NOW.timestamp() - 1)
    assert done.status == "deferred"
    assert tree.names() == ["a"]


def test_no_rule_is_no_good_news(tree):
    assert tree.run().state == "unknown"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"root": "/etc"}, "a folder that holds only the declared data"),
        ({"root": "relative"}, "an absolute path"),
        ({"root": "/no/such/folder"}, "an existing folder"),
        ({"age_days": 0.5}, "expected at least minimum_age_days"),
        ({"age_days": float("inf")}, "has age_days inf"),
        ({"patterns": []}, "has no patterns"),
        ({"patterns": ["../*"]}, "has pattern '../\\*'"),
        ({"patterns": ["/etc/*"]}, "has pattern '/etc/\\*'"),
        ({"referenced_by": [{"server": "nowhere"}]}, "by server 'nowhere'"),
    ],
)
def test_what_cannot_be_used_stops_everything(tree, change, says):
    tree.file("a")
    with pytest.raises(InputError, match=says) as caught:
        tree.run(tree.rule(), tree.rule(**change), tree.rule(patterns=[""]))
    assert "has pattern ''" in str(caught.value)
    assert tree.names() == ["a"]


def test_a_link_as_root_is_refused(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree.root)
    with pytest.raises(InputError, match="found a symbolic link"):
        tree.run(tree.rule(root=str(tmp_path / "link")))
