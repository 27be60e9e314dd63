# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of any length, any compression and any damage; times of records."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import log_lines
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.log_lines import (
    Clock,
    LineReader,
    critical_since,
    find_files,
    last_record_time,
)

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc).timestamp()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, check=True, capture_output=True).stdout


PACKERS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstd}
NO_ZSTD = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd; tests/hosts/test_logrotate.py has it")


@given(
    st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and not line.endswith(b"\r")), max_size=30),
    st.integers(1, 40),
    st.booleans(),
)
def test_lines_come_back_whole_or_cut_at_the_limit(tmp_path_factory, lines, limit, ended):
    path = tmp_path_factory.mktemp("l") / "log"
    data = b"\n".join([b"#", *lines]) + (b"\n" if ended else b"")  # the first bytes never look compressed
    path.write_bytes(data)
    reader = LineReader(str(path), limit=limit)
    wanted = data.split(b"\n")
    if not wanted[-1]:
        wanted.pop()
    shortened = [line[:limit] for line in wanted]
    assert list(reader.lines()) == [line[:-1] if line.endswith(b"\r") else line for line in shortened]
    assert reader.cut == sum(len(line) > limit for line in wanted)
    assert (reader.problem, reader.position) == ("", len(data))


@pytest.mark.parametrize("suffix", [pytest.param(one, marks=NO_ZSTD) if one == ".zst" else one for one in PACKERS])
def test_every_compression_is_read(tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    path.write_bytes(PACKERS[suffix](b"one\ntwo\n") + (PACKERS[suffix](b"three\n")))
    reader = LineReader(str(path))
    assert (list(reader.lines()), reader.problem) == ([b"one", b"two", b"three"], "")
    later = LineReader(str(path), offset=4)
    assert list(later.lines()) == [b"two", b"three"]


def test_zst_without_its_command_is_said(tmp_path, monkeypatch):
    path = tmp_path / "log.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd rest")
    monkeypatch.setenv("PATH", str(tmp_path))
    reader = LineReader(str(path))
    assert list(reader.lines()) == []
    assert "zstd is not installed" in reader.problem


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_truncated_data_yields_what_came_before_and_a_problem(tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    content = os.urandom(300_000).hex().encode() + b"\n"
    path.write_bytes(PACKERS[suffix](b"first\n" * 1000 + content * 3)[:-1000])
    reader = LineReader(str(path))
    assert next(reader.lines()) == b"first"
    reader = LineReader(str(path))
    assert sum(1 for _line in reader.lines()) > 1000
    assert "what came before was read" in reader.problem


def test_damage_a_folder_a_link_and_a_lie_are_problems_not_errors(tmp_path):
    damaged = bytearray(gzip.compress(os.urandom(100_000)))
    damaged[50_000] ^= 255
    (tmp_path / "damaged.gz").write_bytes(damaged)
    (tmp_path / "lie.gz").write_text("plain\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("lie.gz")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "damaged.gz": "damaged",
        "lie.gz": "its content is not",
        "folder": "not a regular file",
        "link": "symbolic link",
        "pipe": "not a regular file",
        "none": "No such file",
    }.items():
        reader = LineReader(str(tmp_path / name))
        list(reader.lines())
        assert words in reader.problem, name


def test_a_line_of_100_mb_costs_no_memory(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as log:
        log.write(b"first\n")
        for _part in range(100):
            log.write(b"y" * 1_000_000)
        log.write(b"\nlast\xff\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils.log_lines import LineReader\n"
        "reader = LineReader(sys.argv[1]); lines = list(reader.lines())\n"
        "assert [len(l) for l in lines] == [5, 1048576, 5] and lines[2] == b'last\\xff' and reader.cut == 1\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    top = str(Path(log_lines.__file__).parents[5])
    done = subprocess.run([sys.executable, "-c", code, str(path), top], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 60 * 1024 * 1024


# Finding files --------------------------------------------------------------------------------------------------------


def test_patterns_find_each_file_once_and_follow_no_link(tmp_path):
    for name in ("a/one.log", "a/b/two.log", "a/b/-rf.log", "a/b/new\nline.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "a/link").symlink_to(tmp_path / "a/b")
    (tmp_path / "a/link.log").symlink_to(tmp_path / "a/one.log")
    (tmp_path / "a/folder.log").mkdir()
    found = find_files([f"{tmp_path}/a/*.log", f"{tmp_path}/a/**/*.log", f"{tmp_path}/none/*.log"])
    assert sorted(os.path.relpath(path, tmp_path) for path in found.files) == [
        "a/b/-rf.log",
        "a/b/new\nline.log",
        "a/b/two.log",
        "a/one.log",
    ]
    assert any("link.log is a symbolic link" in problem for problem in found.problems)
    assert "symbolic link and was not entered" in find_files([f"{tmp_path}/a/link/*.log"]).problems[0]
    assert "is a folder" in find_files([f"{tmp_path}/a/folder.log"]).problems[0]
    with pytest.raises(InputError, match="absolute path"):
        find_files(["logs/*.log"])


@pytest.mark.parametrize("pattern", ["*/one.log", "**/one.log", "**", "sit*/one.log"])
def test_a_folder_that_is_a_link_is_named_wherever_a_pattern_meets_it(tmp_path, pattern):
    """What lies behind it was not looked at, and a log that is read beside it does not make that good."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/one.log").write_text("x")
    logs = tmp_path / "logs"
    (logs / "site1").mkdir(parents=True)
    (logs / "site1/one.log").write_text("x")
    (logs / "site2").symlink_to(tmp_path / "elsewhere")
    found = find_files([f"{logs}/{pattern}", f"{logs}/{pattern}"])
    assert found.files == [f"{logs}/site1/one.log"]
    assert found.problems
    assert len(found.problems) == len(set(found.problems))
    assert all(problem.startswith(f"{logs}/site2 is a symbolic link") for problem in found.problems)


# Times ----------------------------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 11, 20, 8, 57, 1, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (b"2026-11-20T08:57:01Z", MOMENT),
        (b"2026-11-20 08:57:01,250", MOMENT + 0.25),
        (b"2026-11-20T09:57:01+01:00", MOMENT),
        (b"2026-11-20T00:57:01.0-0800", MOMENT),
        (b"1795165021", MOMENT),
        (b"1795165021.5", MOMENT + 0.5),
        (b"1795165021500", MOMENT + 0.5),
        (b"1795165021500000000", MOMENT + 0.5),
        (b"20/Nov/2026:08:57:01 +0000", MOMENT),
        (b"Nov 20 08:57:01", MOMENT),
        (b"Dec 31 23:59:59", datetime(2025, 12, 31, 23, 59, 59, tzinfo=timezone.utc).timestamp()),
        (b"2026-02-30T00:00:00Z", None),
        (b"soon", None),
        (b"", None),
    ],
)
def test_times(text, moment):
    assert Clock(NOW).of_text(text) == moment


def test_times_without_a_zone_are_of_the_declared_one():
    clock = Clock(NOW, ZoneInfo("Europe/Berlin"))
    assert clock.of_text(b"2026-11-20T09:57:01") == MOMENT
    assert clock.of_text(b"2026-07-01T12:00:00") == datetime(2026, 7, 1, 10, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    "line",
    [
        b"<34>1 2026-11-20T08:57:01Z host app - - - text",
        b"<13>Nov 20 08:57:01 host app[1]: text",
        b"[2026-11-20 08:57:01] text",
        b'192.0.2.1 - - [20/Nov/2026:08:57:01 +0000] "GET / HTTP/1.1" 200 1',
        b'{"level": "INFO", "time": "2026-11-20T08:57:01Z"}',
        b'{"ts": 1795165021}',
    ],
)
def test_times_of_lines(line):
    assert Clock(NOW).of_line(line) == MOMENT


@given(st.binary(max_size=200))
def test_no_line_breaks_the_clock(line):
    clock = Clock(NOW)
    for tell in (clock.of_line, clock.of_text, clock.of_plain, clock.of_access, clock.of_json):
        moment = tell(line)
        assert moment is None or isinstance(moment, float)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_last_record_tells_even_before_a_long_tail_without_times(tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    data = b"2026-11-20T08:57:01Z last\n" + b"  at frame of a trace\n" * 10_000
    path.write_bytes(PACKERS[suffix](b"2026-11-01T00:00:00Z first\n" * 1000 + data))
    assert last_record_time(str(path), Clock(NOW)) == (MOMENT, "")


# Critical since -------------------------------------------------------------------------------------------------------


def test_only_critical_records_since_the_start_of_the_window_count(tmp_path):
    (tmp_path / "app.jsonl").write_text(
        '{"timestamp": "2026-11-20T08:57:00Z", "level": "CRITICAL", "message": "before"}\n'
        '{"timestamp": "2026-11-20T08:57:02Z", "level": "INFO", "message": "critical path done"}\n'
        '{"timestamp": "2026-11-20T08:57:02Z", "level": "fatal", "message": "after"}\n'
        '{"timestamp": "2026-11-20T08:57:03Z", "level": 60, "message": "pino"}\n'
    )
    (tmp_path / "plain.log").write_text("2026-11-20 08:57:03 CRITICAL boom\x1b[2J\n2026-11-20 08:57:03 ERROR no\n")
    answer = critical_since([{"name": "app", "paths": [f"{tmp_path}/*"], "format": "json"}], MOMENT)
    assert (answer.count, answer.files, answer.problems) == (3, 2, [])
    assert not any("\x1b" in example for example in answer.examples)


def test_nothing_matched_is_a_problem(tmp_path):
    assert critical_since([{"paths": [f"{tmp_path}/*.none"]}], MOMENT).problems
