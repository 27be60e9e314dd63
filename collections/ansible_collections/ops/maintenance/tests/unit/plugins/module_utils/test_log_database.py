# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log of a PostgreSQL server tells besides errors: checkpoints and temporary files."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.log_database import (
    CHECKPOINTS,
    EARLY,
    TEMPORARY,
    database_event,
    early_checkpoints,
    temporary_files,
)
from ansible_collections.ops.maintenance.plugins.module_utils.log_lines import Clock
from ansible_collections.ops.maintenance.plugins.module_utils.log_tally import LogCounter

STAMP = "2026-11-20 10:00:00.000 UTC [7] "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"checkpoint complete: wrote 44 buffers (0.3%); 0 WAL file(s) added", (CHECKPOINTS, b"")),
        (b"restartpoint complete: wrote 1 buffers", (CHECKPOINTS, b"")),
        (b"checkpoint starting: time", ("", b"")),
        (b"checkpoints are occurring too frequently (1 second apart)", (EARLY, b"")),
        (b'temporary file: path "base/pgsql_tmp/pgsql_tmp7.0", size 3022848', (TEMPORARY, b"3022848")),
        (b'temporary file: path "base/pgsql_tmp/pgsql_tmp7.0", size 30x', ("", b"")),
        (b"duration: 1.0 ms  statement: SELECT 'temporary file: path \"x\", size 9'", ("", b"")),
    ],
)
def test_a_message_counts_under_one_tag(text, expected):
    assert database_event(text) == expected


@given(st.binary(max_size=80))
def test_any_message_is_read(text):
    tag, size = database_event(text)
    assert size == b"" or tag == TEMPORARY


def counted(*messages, form="postgresql"):
    counter = LogCounter(form, Clock(0.0))
    counter.add("".join(f"{STAMP}LOG:  {message}\n" for message in messages).encode())
    return counter.tally


def test_what_an_application_writes_is_none_of_a_database():
    message = 'temporary file: path "x", size 5'
    assert counted(message).temporary_sizes == Counter({b"5": 1})
    other = counted(message, form="plain")
    assert (other.temporary_sizes, other.is_database) == (Counter(), False)


def test_parts_of_a_log_add_up():
    first, second = counted('temporary file: path "x", size 5'), counted('temporary file: path "y", size 5', "checkpoint complete: 1")
    first.merge(second)
    assert (first.temporary_sizes, first.tags[CHECKPOINTS], first.is_database) == (Counter({b"5": 2}), 1, True)


def test_more_sizes_than_can_be_kept_are_rounded_and_said_to_be(monkeypatch):
    monkeypatch.setattr("ansible_collections.ops.maintenance.plugins.module_utils.log_tally.KEYS_LIMIT", 2)
    tally = counted(*[f'temporary file: path "x", size {size}' for size in (10001, 10002, 10003)])
    assert (sum(tally.temporary_sizes.values()), "temporary_sizes" in tally.inexact) == (3, True)
    assert temporary_files("db", tally.temporary_sizes, 1.0, 1, is_exact=False).basis == "estimated"


def test_bytes_are_judged_by_the_day():
    sizes = Counter({b"6000": 2, b"2000": 1})
    assert temporary_files("db", sizes, 1.0, 14000, is_exact=True).state == "warning"
    assert temporary_files("db", sizes, 7.0, 14000, is_exact=True).state == "ok"
    shown = temporary_files("db", sizes, 1.0, 14000, is_exact=True)
    assert (shown.value, "the largest of 5.9 KiB" in shown.summary) == (14000, True)


def test_what_the_server_does_not_log_is_said():
    assert "log_temp_files is off" in temporary_files("db", Counter(), 1.0, 1, is_exact=True).not_covered
    assert "log_checkpoints is off" in early_checkpoints("db", {}, [], 0).not_covered
    assert early_checkpoints("db", {CHECKPOINTS: 3}, [], 0).not_covered == ""


def test_early_checkpoints_are_a_warning_above_what_is_usual():
    said = ["checkpoints are occurring too frequently (9 seconds apart)"]
    assert early_checkpoints("db", {EARLY: 1}, said, 0).state == "warning"
    assert early_checkpoints("db", {EARLY: 1}, said, 1).state == "ok"
