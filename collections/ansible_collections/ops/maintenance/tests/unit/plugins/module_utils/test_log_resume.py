# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every line counts exactly once, whatever is rotated, compressed, copied or truncated between the runs."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import log_scan
from ansible_collections.ops.maintenance.plugins.module_utils.log_resume import KEPT_SECONDS, remember
from ansible_collections.ops.maintenance.plugins.module_utils.log_scan import Source, scan

NOW = 1795168800.0
PACK = {"gz": gzip.compress, "xz": lambda data: lzma.compress(data, preset=0)}


class Writer:
    """A service that logs, and what rotates its log; knows which lines a reader could have seen."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.log = self.folder / "app.log"
        self.log.touch()
        self.written = 0
        self.unread: set[int] = set()
        self.half = b""
        self.known: dict = {}
        self.emptied = False
        self.counted: dict[str, int] = {}

    def append(self, count: int) -> None:
        with self.log.open("ab") as log:
            log.write(self.half)
            self.half = b""
            for _line in range(count):
                log.write(self._line())

    def append_half(self) -> None:
        """Write the beginning of a line, whose end comes with the next ones."""
        self.append(0)
        line = self._line()
        with self.log.open("ab") as log:
            log.write(line[:-4])
        self.half = line[-4:]

    def _line(self) -> bytes:
        self.written += 1
        self.unread.add(self.written)
        name = "".join(chr(97 + int(digit)) for digit in str(self.written))  # letters, for digits are masked in patterns
        return f"2026-11-20 10:00:00 ERROR line {name}\n".encode()

    def rotate(self) -> None:
        self.append(0)
        self._move_up()
        self.log.rename(self.folder / "app.log.1")
        self.log.touch()

    def copytruncate(self) -> None:
        self.append(0)
        self._move_up()
        shutil.copy(self.log, self.folder / "app.log.1")
        os.truncate(self.log, 0)

    def _move_up(self) -> None:
        for path in sorted(self.folder.glob("app.log.*"), key=lambda path: -int(path.name.split(".")[2])):
            name, log, number, *packed = path.name.split(".")
            path.rename(self.folder / ".".join([name, log, str(int(number) + 1), *packed]))

    def compress(self, kind: str) -> None:
        for path in self.folder.glob("app.log.*"):
            if path.suffix[1:].isdigit():
                (self.folder / f"{path.name}.{kind}").write_bytes(PACK[kind](path.read_bytes()))
                path.unlink()

    def run(self) -> None:
        one = scan([Source("app", [f"{self.folder}/app.log*"])], 0.0, NOW, self.known)[0]
        assert self.emptied or not one.problems
        self.emptied = False
        assert not any(seen.problem for seen in one.files.values())
        self.known = remember(self.known, one.marks(), NOW)
        for text, template in one.tally.templates.items():
            self.counted[text] = self.counted.get(text, 0) + template.count
        assert one.tally.unparsed == 0

    def truncate(self) -> None:
        """Throw the log away; what no run has seen is lost to any reader, so one comes first."""
        self.append(0)
        self.run()
        os.truncate(self.log, 0)
        self.emptied = True


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.sampled_from(["append_half", "truncate", "run"])),
        st.tuples(st.sampled_from(["rotate", "copytruncate"])),
        st.tuples(st.just("compress"), st.sampled_from(sorted(PACK))),
    ),
    min_size=5,
    max_size=20,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_every_line_counts_exactly_once(steps):
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(folder)
        for name, *arguments in steps:
            getattr(writer, name)(*arguments)
        writer.append(1)
        writer.run()
        assert len(writer.counted) == writer.written
        assert set(writer.counted.values()) == {1}


@pytest.fixture
def writer(tmp_path):
    return Writer(str(tmp_path))


def errors(writer) -> int:
    before = sum(writer.counted.values())
    writer.run()
    return sum(writer.counted.values()) - before


def test_a_new_log_that_gets_the_inode_of_a_deleted_one_is_read_whole(writer):
    writer.append(5)
    assert errors(writer) == 5
    mark = next(iter(writer.known.values()))
    writer.log.unlink()
    writer.log.touch()
    writer.append(30)
    status = writer.log.stat()
    writer.known = {f"{status.st_dev}:{status.st_ino}": mark}
    writer.emptied = True
    assert errors(writer) == 30


def test_a_copy_that_gets_the_inode_of_a_deleted_file_is_still_known(writer):
    writer.append(40)
    assert errors(writer) == 40
    other = {**next(iter(writer.known.values())), "head": "x", "tail": "x"}
    writer.copytruncate()
    status = (writer.folder / "app.log.1").stat()
    writer.known[f"{status.st_dev}:{status.st_ino}"] = other
    assert errors(writer) == 0


def problems(writer) -> list[str]:
    one = scan([Source("app", [f"{writer.folder}/app.log*"])], 0.0, NOW, writer.known)[0]
    writer.known = remember(writer.known, one.marks(), NOW)
    return one.problems


def test_lines_that_went_away_between_two_runs_are_said_once(writer):
    """A container's log that is rotated away before the next run, as max-file has it."""
    writer.append(40)
    writer.run()
    for _rotation in range(3):
        writer.rotate()
        writer.append(40)
    (writer.folder / "app.log.3").unlink()
    [said] = problems(writer)
    assert said.startswith(f"{writer.log} was rotated or emptied")
    assert problems(writer) == []
    os.truncate(writer.log, 0)
    assert [len(problems(writer)) for _run in range(2)] == [1, 0]


def test_what_was_read_whole_may_go_and_so_may_a_log_that_is_not_written_any_more(writer):
    writer.append(40)
    writer.rotate()
    writer.append(40)
    other = writer.folder / "app.log-of-another"
    other.write_bytes(writer.log.read_bytes())
    writer.run()
    (writer.folder / "app.log.1").unlink()
    other.unlink()
    assert problems(writer) == []


def test_compression_that_is_not_done_counts_nothing_twice(writer):
    writer.append(40)
    writer.rotate()
    plain = writer.folder / "app.log.1"
    packed = writer.folder / "app.log.1.gz"
    for written in (b"", gzip.compress(plain.read_bytes())[:-30], gzip.compress(plain.read_bytes())):
        packed.write_bytes(written)
        assert errors(writer) == (40 if not written else 0)
    plain.unlink()
    assert errors(writer) == 0


def test_a_short_log_with_the_same_words_as_the_rotated_one_is_a_new_one(writer):
    line = b"2026-11-20 10:00:00 ERROR started\n"
    writer.log.write_bytes(line)
    assert errors(writer) == 1
    writer.rotate()
    writer.log.write_bytes(line)
    assert errors(writer) == 1


def test_a_log_truncated_and_begun_with_the_same_lines_is_read_anew(writer):
    writer.append(60)
    beginning = b"".join(writer.log.read_bytes().splitlines(keepends=True)[:40])
    assert len(beginning) > 1024
    assert errors(writer) == 60
    writer.log.write_bytes(beginning)
    writer.append(40)
    writer.emptied = True
    assert errors(writer) == 80


def test_a_log_that_is_rotated_while_it_is_read_is_left_to_the_next_run(writer, monkeypatch):
    writer.append(10)
    real = log_scan._read

    def rotate_first(*arguments):
        monkeypatch.setattr(log_scan, "_read", real)
        writer.rotate()
        return real(*arguments)

    monkeypatch.setattr(log_scan, "_read", rotate_first)
    one = scan([Source("app", [f"{writer.folder}/app.log*"])], 0.0, NOW, writer.known)[0]
    assert "rotated" in one.files[str(writer.log)].problem
    assert (one.tally.lines, one.marks()) == (0, {})
    assert errors(writer) == 10


def test_compressed_files_that_did_not_change_are_not_unpacked_again(writer, monkeypatch):
    writer.append(10)
    writer.rotate()
    writer.compress("gz")
    assert errors(writer) == 10
    monkeypatch.setattr(log_scan, "_read", lambda part, *_rest: pytest.fail(part.path) if part.path.endswith("gz") else real(part, *_rest))
    assert errors(writer) == 0


real = log_scan._read


def test_a_damaged_file_stays_a_problem(writer):
    writer.append(2000)
    writer.rotate()
    writer.compress("gz")
    packed = writer.folder / "app.log.1.gz"
    packed.write_bytes(packed.read_bytes()[:-2000])
    for _run in range(2):
        one = scan([Source("app", [f"{writer.folder}/app.log*"])], 0.0, NOW, writer.known)[0]
        assert one.files[str(packed)].problem
        writer.known = remember(writer.known, one.marks(), NOW)
    assert one.tally.lines == 0


def test_a_csv_record_that_is_half_written_waits_for_its_end(tmp_path):
    start = '2026-11-20 10:00:00.123 UTC,"eve","shop",1,"192.0.2.7:5",6743.12,{},"SELECT",2026-11-20 09:00:00 UTC,3/12,0,ERROR,40P01,'
    log = tmp_path / "postgresql.csv"
    log.write_text(start.format(1) + '"one",,,,,,"",,,"",,0\n' + start.format(2) + '"two\nlines')
    source, known = [Source("db", [str(log)], "postgresql")], {}
    first = scan(source, 0.0, NOW, known)[0]
    with log.open("a") as more:
        more.write('",,,,,,"",,,"",,0\n')
    second = scan(source, 0.0, NOW, remember(known, first.marks(), NOW))[0]
    assert (list(first.tally.templates), list(second.tally.templates)) == (["one"], ["two lines"])


def test_what_is_remembered_is_bounded():
    mark = {"position": 1}
    old = {f"1:{n}": {**mark, "seen": NOW - KEPT_SECONDS - 1} for n in range(10)}
    many = {f"2:{n}": mark for n in range(6000)}
    kept = remember(old, many, NOW)
    assert len(kept) == 5000
    assert all(key.startswith("2:") for key in kept)
