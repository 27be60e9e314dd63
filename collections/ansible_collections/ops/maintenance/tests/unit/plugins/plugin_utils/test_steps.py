# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.ops.maintenance.plugins.plugin_utils.steps import Stopwatch


def told(line):
    return line and (line["host"], line["role"], line["started"], line["finished"], line["tasks"])


def test_a_step_lasts_until_the_next_role_begins():
    watch = Stopwatch()
    assert watch.begin("web1", "patching", False, "01") is None
    watch.end("web1", "02")
    assert watch.begin("web1", "patching", False, "03") is None
    watch.end("web1", "05")
    assert told(watch.begin("web1", "snapshot", False, "06")) == ("web1", "patching", "01", "06", 2)


def test_an_include_counts_for_what_it_includes():
    watch = Stopwatch()
    watch.begin("web1", "patching", False, "01")
    assert watch.begin("web1", "cycle", True, "04") is None
    assert watch.begin("web1", "cycle", True, "05") is None, "an include within an include"
    assert told(watch.begin("web1", "snapshot", False, "06")) == ("web1", "patching", "01", "04", 1)
    watch.end("web1", "08")
    assert [told(line) for line in watch.close()] == [("web1", "snapshot", "04", "08", 1)]


def test_hosts_do_not_disturb_each_other_and_a_play_ends_with_the_last_task():
    watch = Stopwatch()
    watch.begin("web1", "patching", False, "01")
    watch.begin("web2", "patching", False, "02")
    watch.end("web2", "03")
    watch.end("web1", "09")
    assert [told(line) for line in watch.close()] == [("web1", "patching", "01", "09", 1), ("web2", "patching", "02", "03", 1)]
    assert watch.close() == []


def test_tasks_of_no_role_end_a_step_and_are_none():
    watch = Stopwatch()
    watch.begin("web1", "patching", False, "01")
    assert told(watch.begin("web1", "", False, "02")) == ("web1", "patching", "01", "02", 1)
    assert watch.begin("web1", "snapshot", False, "03") is None
