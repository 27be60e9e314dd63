# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime

import pytest

from ansible_collections.ops.maintenance.plugins.plugin_utils.progress import Board, elapsed, wrapped

END = "2026-11-21T06:00:00+00:00"
CLOCK = datetime.fromisoformat("2026-11-21T05:30:00+00:00").timestamp()


def record(state="ok", found_id="a.b", summary="It is so", advice="Act"):
    return {"findings": [{"id": found_id, "state": state, "subject": "x", "summary": summary, "advice": advice}]}


@pytest.fixture
def board():
    made = Board(100.0)
    made.plan({"system": "s", "hosts": [f"h{n}" for n in range(4)], "window": {"end": END}})
    made.enter("patching", "assess", 100.0)
    for name in ("localhost", "h0", "h1", "h2"):
        made.host(name)
    return made


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (59.9, "0:59"), (245, "4:05"), (3845, "1:04:05"), (90000, "25:00:00"), (-5, "0:00")]
)
def test_durations_read_like_a_clock(seconds, said):
    assert elapsed(seconds) == said


def test_hosts_are_counted_by_their_worst(board):
    board.record("h0", record("ok"))
    board.record("h1", record("warning"))
    board.record("h2", record("critical"))
    board.failure("h2", "Apply | X", "broke", handled=False)
    assert board.counts(board.seen) == "1 ok, 1 attention, 1 failed"


def test_unknown_is_never_counted_as_ok(board):
    assert board.record("h0", record("unknown"))[0][0] == "unknown"
    assert board.counts({"h0"}) == "0 ok, 1 attention"


def test_the_control_node_counts_only_when_something_is_wrong_there(board):
    assert board.counts(board.seen) == "3 ok"
    board.failure("localhost", "Open | X", "broke", handled=False)
    assert board.counts(board.seen) == "3 ok, 1 failed"


def test_a_handled_failure_is_told_and_not_counted(board):
    said = board.failure("h0", "Apply | X", "broke", handled=True)
    assert said == "h0 failed in patching, Apply | X: broke. The run goes on with it."
    assert board.counts({"h0"}) == "1 ok"


def test_findings_are_sentences_and_the_same_one_is_not_repeated(board):
    assert board.record("h0", record("critical")) == [("critical", "Critical on h0 (a.b): It is so. Act.")]
    assert board.record("h0", record("critical")) == []
    shown = [board.record(f"x{n}", record("critical")) for n in range(20)]
    assert sum(bool(said) for said in shown) == 4
    assert "a.b (critical) was found 21 times; the first 5 are shown above." in board.summary(200)


def test_the_status_line_says_where_and_how_long(board):
    board.record("h1", record("warning"))
    status = board.status(80, 345.0, CLOCK)
    assert status == "patching: assess  3/4 hosts  2 ok, 1 attention  4:05  30:00 of window left"
    assert board.status(80, 345.0, CLOCK + 3600).endswith("window over by 30:00")


@pytest.mark.parametrize("width", range(1, 100, 7))
def test_the_status_line_fits_any_width(board, width):
    board.enter("a_role_with_a_very_long_name_indeed_and_more", "verify", 101.0)
    assert len(board.status(width, 345.0, CLOCK)) <= width


def test_a_step_leaves_one_line_when_it_ends_and_fits_80_columns(board):
    board.record("h0", record("ok"))
    assert board.enter("patching", "apply", 110.0) == ""
    line = board.enter("database_maintenance", "assess", 130.0)
    assert line.split(maxsplit=1) == ["0:30", "patching (assess, apply)                 3 ok"]
    assert len(line) < 80
    assert board.enter("log_rotation", "", 140.0) == "", "a step without records leaves no line"


def test_a_host_that_is_gone_is_said_once(board):
    assert board.unreachable("h0", "no route") == "h0 cannot be reached: no route."
    assert board.unreachable("h0", "no route") == ""
    assert board.counts({"h0"}) == "0 ok, 1 failed"


@pytest.mark.parametrize("window", [None, {}, {"end": None}, {"end": "soon"}, {"end": 5}])
def test_a_plan_without_an_end_has_no_time_left(window):
    board = Board(0.0)
    board.plan({"system": "s", "hosts": None, "window": window})
    assert "window" not in board.status(80, 1.0, CLOCK)


def test_the_earliest_end_of_several_systems_counts(board):
    board.plan({"system": "t", "hosts": [], "window": {"end": "2026-11-21T05:31:00+00:00"}})
    assert "1:00 of window left" in board.status(200, 101.0, CLOCK)


def test_hostile_text_cannot_drive_the_terminal(board):
    said = board.record("h\x1b[2J", record("critical", summary="a\nb\x1b]0;x\x07\u202e"))[0][1]
    said += board.failure("h0", "t\x1b[31m", "m\r\nn\x9b", handled=False) + board.unreachable("h1", "\x1b[1m")
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 or letter == "\u202e" for letter in said)


def test_long_sentences_are_broken_and_indented():
    lines = wrapped("word " * 40 + "x" * 200, 79).splitlines()
    assert all(len(line) <= 79 for line in lines)
    assert lines[1].startswith("          word")
