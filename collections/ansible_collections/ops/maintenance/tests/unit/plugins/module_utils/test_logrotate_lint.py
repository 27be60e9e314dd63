# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each fault of a logrotate configuration arrives, and its clean twin stays silent; in real folders."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import log_files, logrotate_lint, logrotate_self_test, logrotate_tree
from ansible_collections.ops.maintenance.plugins.module_utils.logrotate_lint import Look, lint
from ansible_collections.ops.maintenance.plugins.module_utils.logrotate_tree import read_tree

NOW = time.time()
DAY = 86400.0


class Site:
    """A configuration and the logs it is meant for."""

    def __init__(self, base: Path) -> None:
        self.logs, self.folder, self.config = base / "logs", base / "logrotate.d", base / "logrotate.conf"
        self.logs.mkdir(mode=0o755)
        self.folder.mkdir(mode=0o755)
        self.write(self.config, f"weekly\nrotate 4\ninclude {self.folder}\n")
        self.log("app.log")
        self.entry("app", "app.log", "daily", "missingok")

    def write(self, path: Path, text: str, mode: int = 0o644) -> Path:
        path.write_text(text)
        path.chmod(mode)
        os.utime(path, (NOW - 100 * DAY, NOW - 100 * DAY))
        return path

    def log(self, name: str, size: int = 20) -> Path:
        path = self.logs / name
        path.write_bytes(b"x" * size)
        return path

    def entry(self, name: str, pattern: str, *directives: str, mode: int = 0o644) -> Path:
        lines = "".join(f"    {directive}\n" for directive in directives)
        return self.write(self.folder / name, f"{self.logs}/{pattern} {{\n{lines}}}\n", mode)

    def found(self, **look):
        findings, self.sizes = lint(str(self.config), read_tree(str(self.config)), Look(**{"now": NOW, "roots": [str(self.logs)], **look}))
        return {finding.id.partition(".")[2]: finding for finding in findings}

    def faults(self, **look):
        return {name: "\n".join(finding.evidence) for name, finding in self.found(**look).items() if finding.state != "ok"}


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def only(faults, name):
    assert list(faults) == [name], faults
    return faults[name]


def test_a_sound_configuration_is_silent(site):
    for name in ("app.log.1", "app.log.2.gz", "app.log-20261101", "lastlog"):
        site.log(name)
    assert site.faults(rotated={f"{site.logs}/app.log": NOW - DAY}, ran=NOW - 3600) == {}


def test_two_entries_for_one_path(site):
    site.entry("zz", "*.log", "weekly")
    assert "app.log: " in only(site.faults(), "claims")
    site.entry("app", "app.log", "daily", "ignoreduplicates")
    assert site.faults() == {}


def test_two_entries_for_one_pattern_that_matches_nothing_yet(site):
    site.entry("b", "x/*.log", "missingok")
    site.entry("c", "x/*.log", "missingok")
    assert "x/*.log" in only(site.faults(), "claims")


@pytest.mark.parametrize(("mode", "why"), [(0o664, "mode 0664"), (0o646, "mode 0646")])
def test_a_configuration_file_that_others_may_write_is_ignored_by_logrotate(site, mode, why):
    site.entry("app", "app.log", "daily", mode=mode)
    faults = site.faults()
    assert (sorted(faults), why in faults["files"]) == (["files", "uncovered"], True)


def test_owner_and_kind_of_a_configuration_file(site):
    status = os.stat(site.config)
    assert logrotate_tree.refusal_of(status, {status.st_uid}) == ""
    assert "owned by uid" in logrotate_tree.refusal_of(status, {status.st_uid + 1})
    os.mkfifo(site.folder / "pipe")
    assert "not a regular file" in only(site.faults(), "files")


def test_names_that_logrotate_leaves_out(site):
    site.entry("app.dpkg-old", "app.log", "daily")
    site.entry("other~", "app.log", "daily")
    found = site.found()
    assert {finding.state for finding in found.values()} == {"ok"}
    assert "2 files left out by name" in found["files"].not_covered
    site.write(site.config, f"tabooext .odd\ninclude {site.folder}\n")
    assert "claims" in site.faults()
    site.write(site.config, f"taboopat + app.*,*~\ninclude {site.folder}\n")
    assert site.faults() == {}


def test_an_editors_hidden_file_is_read_for_a_star_does_not_mean_it(site):
    site.entry(".app.swp", "app.log", "daily")
    assert ".app.swp" in only(site.faults(), "claims")


def test_includes_nest_and_never_run_in_circles(site):
    site.write(site.folder / "loop", f"include {site.config}\n")
    assert "included in itself" in only(site.faults(), "syntax")
    site.write(site.folder / "loop", f"include {site.folder}/*.conf\n")
    assert "patterns are not allowed" in only(site.faults(), "syntax")


def test_a_setting_before_an_entry_holds_in_it_and_the_later_one_wins(site):
    site.write(site.config, f"copytruncate\nmissingok\nsize 5M\ninclude {site.folder}\n")
    site.entry("app", "app.log", "nocopytruncate", "monthly")
    [entry] = read_tree(str(site.config)).entries
    assert entry.settings == {"missingok": "", "monthly": ""}


def test_an_unknown_directive(site):
    site.entry("app", "app.log", "daily", "fooo 3")
    assert f"{site.folder}/app:3: unknown directive fooo" in only(site.faults(), "syntax")


def test_a_pattern_that_matches_nothing(site):
    site.entry("b", "none/*.log", "daily")
    assert "matches nothing" in only(site.faults(), "patterns")
    site.entry("b", "none/*.log", "daily", "missingok")
    assert site.faults() == {}


def test_a_pattern_that_means_rotated_files_too(site):
    site.log("app.log.1")
    site.entry("app", "*", "daily")
    assert "rotated files such as" in only(site.faults(), "patterns")


def test_log_files_in_no_rule(site):
    site.log("other.log")
    site.log("empty.log", 0)
    assert "other.log: 20 bytes" in only(site.faults(), "uncovered")
    assert site.faults(ignore=[f"{site.logs}/other.*"]) == {}
    assert site.found(roots=["/nowhere-at-all"])["uncovered"].state == "unknown"


def test_a_folder_that_others_may_write(site):
    site.logs.chmod(0o777)
    assert "mode 0777" in only(site.faults(), "su")
    site.entry("app", "app.log", "daily", "su root root")
    assert site.faults() == {}


def test_only_a_group_other_than_root_counts():
    def folder(mode, group):
        return os.stat_result((mode, 0, 0, 0, 0, group, 0, 0, 0, 0))

    insecure = [logrotate_lint.is_insecure(folder(*one)) for one in ((0o775, 4), (0o775, 0), (0o777, 0), (0o755, 4))]
    assert insecure == [True, False, True, False]


def test_copytruncate_is_named_and_a_writer_that_does_not_append_is_a_fault(site):
    site.entry("app", "app.log", "daily", "copytruncate")
    path = site.logs / "app.log"
    quiet = site.found()["copytruncate"]
    assert (quiet.state, "lines written between copy and truncation are lost" in quiet.not_covered) == ("ok", True)
    key = (path.stat().st_dev, path.stat().st_ino)
    assert site.faults(writers={key: log_files.Writer(7, "java", True)}) == {}
    assert "process 7 (java) does not append" in only(site.faults(writers={key: log_files.Writer(7, "java", False)}), "copytruncate")


def test_a_service_that_still_writes_to_the_rotated_file(site):
    status = site.log("app.log.1").stat()
    writers = {(status.st_dev, status.st_ino): log_files.Writer(9, "app", True)}
    assert "process 9 (app)" in only(site.faults(writers=writers), "reopened")


def test_a_log_that_was_rotated_too_long_ago(site):
    path = str(site.logs / "app.log")
    assert "4 days ago" in only(site.faults(rotated={path: NOW - 4 * DAY}), "overdue")
    assert site.faults(rotated={path: NOW - 2 * DAY}) == {}
    site.entry("app", "app.log", "daily", "notifempty")
    site.log("app.log", 0)
    assert site.faults(rotated={path: NOW - 4 * DAY}) == {}
    site.entry("app", "app.log", "monthly")
    site.log("app.log")
    assert site.faults(rotated={path: NOW - 40 * DAY}) == {}


def test_growth_despite_a_rule_needs_history(site):
    path = site.log("app.log", 3000)
    site.entry("app", "app.log", "size 1k")
    assert site.faults(ran=NOW) == {}
    seen = {key: {**value, "at": NOW - DAY} for key, value in site.sizes.items()}
    assert "its rule says 1.0 KiB" in only(site.faults(ran=NOW, sizes=seen), "growth")
    assert site.faults(ran=NOW - 2 * DAY, sizes=seen) == {}, "logrotate has not run since"
    path.unlink()
    site.log("fresh", 1).unlink()
    site.log("app.log", 2000)
    assert site.faults(ran=NOW, sizes=seen) == {}, "it was rotated or truncated since"
    assert "more than 1.0 KiB" in only(site.faults(growth_bytes=1024), "growth")


def test_what_originals_calls_a_rotated_file():
    for name in (
        "app.log",
        "app.log.1",
        "app.log.12.gz",
        "app.log-20261101",
        "app.log-20261101.xz",
        "app-20261101.log.gz",
        "app.1.log",
        "app.log.gz",
    ):
        assert "/l/app.log" in logrotate_lint.originals(f"/l/{name}"), name
    assert logrotate_lint.originals("/l/worker-7a.log") == {"/l/worker-7a.log"}


def test_hostile_names_are_inert(site):
    site.log("x\x1b[31m\nerror: all.log")
    assert "\x1b" not in only(site.faults(), "uncovered")


def test_the_lint_proves_itself_and_says_what_it_misses(monkeypatch):
    assert logrotate_self_test.problems() == []
    monkeypatch.setattr(logrotate_lint, "is_insecure", lambda _status: False)
    assert logrotate_self_test.problems() == ["a planted fault was not found: su"]
