# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compress, archive and delete in real folders; nothing is lost, doubled, overwritten or followed."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import log_files, log_retention
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.log_files import Place
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils import processes

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)


class FixedHost(Host):
    def now(self):
        return NOW


def text(days: float, lines: int = 3, name: str = "x") -> str:
    """Records of which the last is so many days old."""
    moments = [NOW - timedelta(days=days, minutes=lines - 1 - number) for number in range(lines)]
    return "".join(
        json.dumps({"timestamp": m.isoformat(), "level": "INFO", "message": f"{name} {n}"}) + "\n" for n, m in enumerate(moments)
    )


class Tree:
    """Logs and archive as FossaWork has them."""

    def __init__(self, base: Path) -> None:
        self.logs, self.archive, self.state = base / "logs", base / "archives" / "logs", base / "state"
        self.logs.mkdir()
        (base / "archives").mkdir()

    def write(self, relative: str, data: str | bytes, mtime_days: float | None = None) -> Path:
        path = self.logs / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        data = data.encode() if isinstance(data, str) else data
        path.write_bytes(gzip.compress(data) if relative.endswith(".gz") else data)
        if mtime_days is not None:
            moment = NOW.timestamp() - mtime_days * 86400
            os.utime(path, (moment, moment))
        return path

    def rule(self, **changes) -> dict:
        rule = {
            "root": str(self.logs),
            "pattern": ["*.jsonl"],
            "compress_after_days": 7.0,
            "archive_to": str(self.archive),
            "archive_after_days": 30.0,
            "delete_after_days": 90.0,
            "compression": "gz",
            "timezone": "UTC",
        }
        return {**rule, **changes}

    def params(self, *rules: dict, deadline: float = 0.0) -> dict:
        return {"rules": list(rules) or [self.rule()], "state_dir": str(self.state), "deadline": deadline, "run_id": "", "self_test": False}

    def run(self, *rules: dict, check: bool = False, deadline: float = 0.0):
        return log_retention.run(self.params(*rules, deadline=deadline), check, FixedHost())

    def files(self) -> list[str]:
        base = self.logs.parent
        return sorted(str(p.relative_to(base)) for top in (self.logs, base / "archives") for p in top.rglob("*") if not p.is_dir())


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def found(outcome, finding_id):
    return next(finding for finding in outcome.findings if finding.id == finding_id)


def step(outcome, name):
    return next((action for action in outcome.actions if action.operation == name), None)


# What is done ---------------------------------------------------------------------------------------------------------


def test_a_week_of_fossawork(tree):
    tree.write("errors/new.jsonl", text(6))
    tree.write("errors/week.jsonl", text(8))
    tree.write("errors/month.jsonl", text(31))
    tree.write("backend/packed.jsonl.gz", text(40), mtime_days=40)
    tree.write("backend/ancient.jsonl.gz", text(91), mtime_days=91)
    outcome = tree.run()
    assert tree.files() == [
        "archives/logs/202610/backend/packed.jsonl.gz",
        "archives/logs/202610/errors/month.jsonl.gz",
        "logs/errors/new.jsonl",
        "logs/errors/week.jsonl.gz",
    ]
    assert gzip.decompress((tree.logs / "errors/week.jsonl.gz").read_bytes()).decode() == text(8)
    counts = {name: step(outcome, name).before["files"] for name in ("compress", "archive", "delete")}
    assert counts == {"compress": 2, "archive": 2, "delete": 1}
    assert step(outcome, "compress").before["bytes"] == len(text(8)) + len(text(31))
    assert outcome.status == "changed"


def test_counts_are_of_what_was_done_not_of_what_is_left(tree):
    """gzip keeps the time of the last change, so counting fresh .gz files afterwards finds none; deleted ones even less."""
    tree.write("a.jsonl", text(10), mtime_days=10)
    tree.write("b.jsonl.gz", text(95), mtime_days=95)
    outcome = tree.run()
    assert (tree.logs / "a.jsonl.gz").stat().st_mtime == NOW.timestamp() - 10 * 86400
    metrics = {(m.name, m.subject): m.value for m in outcome.metrics}
    assert metrics["logs.compressed", str(tree.logs)] == 1
    assert metrics["logs.deleted", str(tree.logs)] == 1


def test_second_run_changes_nothing(tree):
    for days in (1, 8, 31, 91):
        tree.write(f"d{days}.jsonl", text(days))
    assert tree.run().is_change
    before = tree.files()
    again = tree.run()
    assert (again.status, again.actions, tree.files()) == ("ok", [], before)


def test_check_mode_lists_the_same_and_leaves_no_trace(tree):
    for days in (8, 31, 91):
        tree.write(f"d{days}.jsonl", text(days))
    before = tree.files()
    planned = tree.run(check=True)
    assert (planned.status, tree.files(), tree.state.exists(), tree.archive.exists()) == ("due", before, False, False)
    done = tree.run()
    for name in ("compress", "archive", "delete"):
        assert step(planned, name).before["files"] == step(done, name).before["files"]
        assert step(planned, name).status == "due"
    assert [(f.id, f.state) for f in planned.findings] == [(f.id, f.state) for f in done.findings]


def test_same_names_of_different_folders_both_reach_the_archive(tree):
    """Moving all into one month folder would overwrite the first."""
    tree.write("a/app.jsonl.gz", text(40, name="a"))
    tree.write("b/app.jsonl.gz", text(40, name="b"))
    tree.run()
    kept = {p: gzip.decompress((tree.archive / f"202610/{p}/app.jsonl.gz").read_bytes()).decode() for p in ("a", "b")}
    assert kept == {"a": text(40, name="a"), "b": text(40, name="b")}


def test_age_is_that_of_the_last_record_not_of_the_file(tree):
    tree.write("touched.jsonl", text(10), mtime_days=0.1)
    tree.write("old-file-young-records.jsonl", text(2), mtime_days=60)
    tree.write("archived.jsonl.gz", text(95), mtime_days=1)
    tree.run()
    assert tree.files() == ["logs/old-file-young-records.jsonl", "logs/touched.jsonl.gz"]


def test_age_falls_back_to_the_name_then_to_the_change_time(tree):
    tree.write("app-2026-11-01.jsonl", "no record\n", mtime_days=1)
    tree.write("app.jsonl", "no record\n", mtime_days=9)
    outcome = tree.run()
    assert tree.files() == ["logs/app-2026-11-01.jsonl.gz", "logs/app.jsonl.gz"]
    assert found(outcome, "logs.retention").basis == "estimated"


def test_empty_month_folders_go(tree):
    tree.write("x/old.jsonl.gz", text(89))
    tree.run()
    assert tree.files() == ["archives/logs/202608/x/old.jsonl.gz"]
    moved = tree.archive / "202608/x/old.jsonl.gz"
    moved.write_bytes(gzip.compress(text(99).encode()))
    (tree.archive / "keep").mkdir()
    tree.run()
    assert [p.name for p in tree.archive.iterdir()] == ["keep"]


def test_owner_mode_and_time_stay(tree):
    path = tree.write("a.jsonl", text(40), mtime_days=40)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    tree.run()
    after = (tree.archive / "202610/a.jsonl.gz").stat()
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
        before.st_mtime_ns,
    )


def test_xz_and_numbers_before_the_extension(tree):
    tree.write("a.jsonl", text(8))
    tree.run(tree.rule(compression="xz"))
    assert lzma.decompress((tree.logs / "a.jsonl.xz").read_bytes()).decode() == text(8)


@pytest.mark.slow
def test_a_record_of_100_mb_is_compressed_in_little_memory(tree):
    """Its line holds no time that could be read, so the age is that of the file."""
    path = tree.write("long.jsonl", text(9), mtime_days=9)
    with path.open("ab") as log:
        log.write(b'{"message": "')
        for _part in range(100):
            log.write(b"x" * 1_000_000)
        log.write(b'"}\n')
    size = path.stat().st_size
    os.utime(path, (NOW.timestamp() - 9 * 86400,) * 2)

    def compress():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tree.run()
        return 0 if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024 else 1

    assert processes.run(compress) == 0
    assert tree.files() == ["logs/long.jsonl.gz"]
    with gzip.open(tree.logs / "long.jsonl.gz") as packed:
        assert sum(len(part) for part in iter(lambda: packed.read(1_000_000), b"")) == size


def test_disk_use_before_and_after(tree):
    tree.write("a.jsonl", text(8, lines=20_000))
    outcome = tree.run()
    before, after = (part[str(tree.logs)]["used_bytes"] for part in (outcome.before, outcome.after))
    reclaimed = next(m.value for m in outcome.metrics if m.name == "logs.reclaimed")
    assert before - after == reclaimed > 1_000_000
    assert after == int(subprocess.check_output(["du", "-sB1", str(tree.logs)]).split()[0]) - tree.logs.stat().st_blocks * 512


# What is left alone ---------------------------------------------------------------------------------------------------


def test_an_existing_gz_with_other_content_is_never_overwritten(tree):
    tree.write("a.jsonl", text(9, name="second"))
    tree.write("a.jsonl.gz", text(10, name="first"))
    outcome = tree.run()
    contents = {p.name: gzip.decompress(p.read_bytes()).decode() for p in tree.logs.iterdir()}
    assert contents == {"a.jsonl.gz": text(10, name="first"), "a.2.jsonl.gz": text(9, name="second")}
    assert found(outcome, "logs.name_taken").state == "warning"
    assert not tree.run().is_change


def test_a_number_in_the_name_still_belongs_to_the_rule(tree):
    tree.write("a.2.jsonl.gz", text(95))
    tree.write("b.2.jsonl.gz", text(40))
    tree.run()
    assert tree.files() == ["archives/logs/202610/b.2.jsonl.gz"]


def test_a_taken_name_in_the_archive_is_never_overwritten(tree):
    tree.write("a.jsonl.gz", text(40, name="new"))
    (tree.archive / "202610").mkdir(parents=True)
    (tree.archive / "202610/a.jsonl.gz").write_bytes(gzip.compress(text(41, name="old").encode()))
    tree.run()
    assert tree.files() == ["archives/logs/202610/a.2.jsonl.gz", "archives/logs/202610/a.jsonl.gz"]


def test_a_file_open_for_writing_is_skipped_and_named(tree):
    path = tree.write("performance-metrics.jsonl", text(8))
    with subprocess.Popen(["sleep", "60"], stdout=path.open("ab")) as writer:
        try:
            outcome = tree.run()
        finally:
            writer.kill()
    held = found(outcome, "logs.held")
    assert path.exists()
    assert (held.state, str(path) in held.evidence[0], str(writer.pid) in held.evidence[0]) == ("warning", True, True)
    assert not outcome.is_change


def test_the_process_that_holds_a_file_is_named(tree):
    path = tree.write("open.jsonl", text(91))
    with subprocess.Popen(["sleep", "60"], stdout=path.open("ab")) as writer:
        try:
            evidence = found(tree.run(), "logs.held").evidence
        finally:
            writer.kill()
    assert evidence == [f"{path}: process {writer.pid} (sleep) has it open for writing"]


def test_a_hold_overrides_every_age(tree):
    tree.write("audit/case-7.jsonl", text(200))
    tree.write("audit/case-8.jsonl.gz", text(200))
    tree.write("other.jsonl", text(200))
    (tree.archive / "202601/audit").mkdir(parents=True)
    (tree.archive / "202601/audit/case-9.jsonl.gz").write_bytes(gzip.compress(text(200).encode()))
    outcome = tree.run(tree.rule(hold=["audit/case-*.jsonl"]))
    assert tree.files() == ["archives/logs/202601/audit/case-9.jsonl.gz", "logs/audit/case-7.jsonl", "logs/audit/case-8.jsonl.gz"]
    assert "3 files under a hold" in found(outcome, "logs.retention").not_covered
    with pytest.raises(InputError, match="expected paths below the root"):
        tree.run(tree.rule(hold=["/logs/audit/*"]))


def test_days_are_whole_and_rotated_names_count_too(tree):
    """``find -mtime +30`` would wait for 31 days and pass app.log.1 over."""
    rule = tree.rule(pattern=["*.log"], compress_after_days=30.0, archive_to=None, archive_after_days=None, delete_after_days=None)
    for name, days in (("app.log", 30.1), ("app.log.1", 30.1), ("young.log", 29.9)):
        tree.write(name, text(days))
    tree.run(rule)
    assert tree.files() == ["logs/app.log.1.gz", "logs/app.log.gz", "logs/young.log"]


def test_seven_days_are_seven_and_what_goes_is_listed_first(tree):
    """``find -mtime +7`` would wait for 8 days, and tells nothing."""
    rule = tree.rule(pattern=["*.log"], compress_after_days=None, archive_to=None, archive_after_days=None, delete_after_days=7.0)
    old, young = tree.write("old.log", text(7.1)), tree.write("young.log", text(6.9))
    assert step(tree.run(rule, check=True), "delete").before["names"] == [str(old)]
    outcome = tree.run(rule)
    assert (step(outcome, "delete").before["names"], old.exists(), young.exists()) == ([str(old)], False, True)


def test_a_relative_root_is_refused_for_it_would_mean_another_folder(tree):
    with pytest.raises(InputError, match="absolute path"):
        tree.run(tree.rule(root="logs"))


def test_a_writer_that_comes_late_is_noticed_too(tree, monkeypatch):
    """The list of open files is from the start of the run; the kernel's lease is asked right before the end."""
    path = tree.write("late.jsonl", text(8))
    monkeypatch.setattr(log_files, "open_for_writing", dict)
    with path.open("ab"):
        outcome = tree.run()
    assert tree.files() == ["logs/late.jsonl"]
    assert found(outcome, "logs.held").state == "warning"


def test_a_file_that_grows_meanwhile_is_kept_whole(tree, monkeypatch):
    path = tree.write("a.jsonl", text(8))
    real = log_files._copy_status

    def grow(*arguments):
        real(*arguments)
        with path.open("a") as more:
            more.write("one more line\n")

    monkeypatch.setattr(log_files, "_copy_status", grow)
    outcome = tree.run()
    assert tree.files() == ["logs/a.jsonl"]
    assert path.read_text() == text(8) + "one more line\n"
    assert "being written" in found(outcome, "logs.held").evidence[0]


def test_what_does_not_read_back_alike_is_not_kept(tree, monkeypatch):
    tree.write("a.jsonl", text(8))
    monkeypatch.setattr(log_files, "_content", lambda *_content: iter([b"other"]))
    outcome = tree.run()
    assert tree.files() == ["logs/a.jsonl"]
    assert "reads back differently" in found(outcome, "logs.held").evidence[0]


def test_everything_is_on_the_disk_before_the_original_goes(tree, monkeypatch):
    """A kill does not show it, a power cut would: content, then the new name, and only then the end of the old one."""
    tree.write("a.jsonl", text(8))
    calls = []
    for name in ("fsync", "link", "unlink"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real, **kwargs: (calls.append((name, args[0])), real(*args, **kwargs)))
    keeper = log_retention.Keeper({}, FixedHost(), 0.0, False)
    keeper.keep(log_retention.parse_rules([tree.rule()])[0])
    names = [name for name, _what in calls]
    assert names == ["fsync", "link", "fsync", "unlink", "fsync", "unlink"]
    assert calls[3][1] == "a.jsonl"


def test_links_are_neither_followed_nor_removed(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text(text(95))
    (tree.logs / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (tree.logs / "folder").symlink_to(outside)
    tree.write("real.jsonl", text(1))
    outcome = tree.run()
    assert (outside / "secret.jsonl").read_text() == text(95)
    assert sorted(p.name for p in tree.logs.iterdir()) == ["folder", "link.jsonl", "real.jsonl"]
    assert "link.jsonl" in found(outcome, "logs.retention").not_covered


@pytest.mark.parametrize("name", ["two\nlines.jsonl", "-rf.jsonl", "--help.jsonl", "na\udcffme.jsonl", "sp ace's.jsonl", "\x1b[31m.jsonl"])
def test_hostile_names(tree, name):
    tree.write(name, text(31))
    outcome = tree.run()
    assert tree.files() == [f"archives/logs/202610/{name}.gz"]
    json.dumps(outcome.record()).encode()
    assert not tree.run().is_change


def test_damaged_archives_are_kept_and_named(tree):
    path = tree.write("a.jsonl.gz", text(95, lines=2000), mtime_days=95)
    path.write_bytes(path.read_bytes()[:-20])
    os.utime(path, (NOW.timestamp() - 95 * 86400,) * 2)
    outcome = tree.run()
    assert path.exists()
    assert found(outcome, "logs.damaged").state == "warning"


def test_nothing_matched_is_unknown(tree):
    assert found(tree.run(), "logs.retention").state == "unknown"


def test_what_does_not_fit_into_the_window_is_deferred(tree):
    tree.write("a.jsonl", text(8))
    outcome = tree.run(deadline=NOW.timestamp() - 1)
    assert (outcome.status, tree.files()) == ("deferred", ["logs/a.jsonl"])
    assert found(outcome, "logs.retention").state == "warning"


def test_only_one_run_at_a_time(tree):
    tree.write("a.jsonl", text(8))
    tree.state.mkdir(mode=0o700)
    with log_retention._only_one(str(tree.state)), pytest.raises(MaintenanceError, match="Another run"):
        tree.run()


# Input that cannot be meant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compress_after_days": -1.0}, "positive number"),
        ({"delete_after_days": 0.0}, "positive number"),
        ({"compress_after_days": 31.0}, "rising order"),
        ({"delete_after_days": 20.0}, "rising order"),
        ({"archive_to": None}, "together"),
        ({"pattern": ["*"]}, "too much"),
        ({"pattern": ["../*.jsonl"]}, "file names"),
        ({"pattern": []}, "file names"),
        ({"compress_after_days": None, "archive_after_days": None, "delete_after_days": None, "archive_to": None}, "no age"),
        ({"root": "/etc"}, "absolute path of a folder"),
        ({"root": "logs"}, "absolute path"),
        ({"root": "/nowhere/logs"}, "existing folder"),
        ({"timezone": "Mars/North"}, "time zone"),
        ({"delete_after_days": float("nan")}, "positive number"),
    ],
)
def test_one_sentence_and_nothing_changed(tree, change, words):
    tree.write("a.jsonl", text(95))
    with pytest.raises(InputError, match=words):
        tree.run(tree.rule(), tree.rule(**change))
    assert tree.files() == ["logs/a.jsonl"]


def test_all_problems_at_once(tree):
    with pytest.raises(InputError) as caught:
        tree.run(tree.rule(compress_after_days=-1.0, pattern=["*"]))
    assert "positive number" in str(caught.value)
    assert "too much" in str(caught.value)


def test_a_root_that_is_a_link_or_a_file(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree.logs)
    (tmp_path / "file").write_text("")
    tree.write("a.jsonl", text(95))
    with pytest.raises(InputError, match="symbolic link"):
        tree.run(tree.rule(root=str(tmp_path / "link")))
    with pytest.raises(InputError, match="something else"):
        tree.run(tree.rule(root=str(tmp_path / "file")))
    with pytest.raises(InputError, match="symbolic link"):
        tree.run(tree.rule(archive_to=str(tmp_path / "link")))
    assert tree.files() == ["logs/a.jsonl"]


def test_an_archive_around_the_root_is_refused(tree):
    with pytest.raises(InputError, match="holds the logs themselves"):
        tree.run(tree.rule(archive_to=str(tree.logs.parent)))


def test_an_archive_inside_the_root_works(tree):
    rule = tree.rule(archive_to=str(tree.logs / "archive"))
    tree.write("a.jsonl", text(40))
    tree.run(rule)
    assert tree.files() == ["logs/archive/202610/a.jsonl.gz"]
    assert not tree.run(rule).is_change


# Across file systems --------------------------------------------------------------------------------------------------


def test_a_move_to_another_file_system_copies_verifies_and_then_removes(tmp_path):
    other = Path("/dev/shm") / f"ops-maintenance-{os.getpid()}"
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    other.mkdir()
    try:
        (tmp_path / "a").write_bytes(b"x" * 1_000_000)
        one, two = os.open(tmp_path, os.O_RDONLY), os.open(other, os.O_RDONLY)
        assert log_files.move(Place(one, "a"), Place(two, "b")) == 1_000_000
        assert ([p.name for p in tmp_path.iterdir()], [p.name for p in other.iterdir()]) == ([], ["b"])
        (tmp_path / "a").write_bytes(b"y")
        with pytest.raises(log_files.HeldError, match="was taken"):
            log_files.move(Place(one, "a"), Place(two, "b"))
        assert ((tmp_path / "a").read_bytes(), (other / "b").read_bytes()) == (b"y", b"x" * 1_000_000)
    finally:
        for path in other.iterdir():
            path.unlink()
        other.rmdir()


# Killed at any instant ------------------------------------------------------------------------------------------------

ALONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from datetime import datetime, timezone
from ansible_collections.ops.maintenance.plugins.module_utils import log_retention
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

class FixedHost(Host):
    def now(self):
        return datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)

log_retention.run(json.loads(sys.argv[2]), False, FixedHost())
"""
TOUCH_THE_DISK = ("open", "fdopen", "link", "unlink", "rename", "fsync", "mkdir", "rmdir", "utime", "fchmod", "fchown")


def killed_at(tree: Tree, fatal: int, half: str) -> int:
    """Run in a process of its own that is killed just before or after its so-manieth call; return how it ended."""
    calls = 0

    def armed(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            number = calls
            if number == fatal and half == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if number == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    def run_armed() -> None:
        for name in TOUCH_THE_DISK:
            setattr(os, name, armed(getattr(os, name)))
        tree.run()

    return processes.run(run_armed)


def plant(base: Path) -> Tree:
    base.mkdir()
    tree = Tree(base)
    tree.write("errors/a.jsonl", text(8, 40, "ea"))
    tree.write("backend/a.jsonl", text(33, 40, "ba"))
    tree.write("backend/b.jsonl.gz", text(45, 40, "bb"), mtime_days=45)
    tree.write("backend/c.jsonl", text(12, 40, "bc"))
    tree.write("backend/c.jsonl.gz", text(20, 40, "old bc"), mtime_days=20)
    tree.write("now.jsonl", text(1, 40, "now"))
    tree.write("dead.jsonl.gz", text(99, 40, "dead"), mtime_days=99)
    return tree


def lines_of(tree: Tree) -> Counter[str]:
    """Every line of every file that counts: temporary files do not."""
    lines: Counter[str] = Counter()
    for relative in tree.files():
        if not relative.endswith(log_files.TEMPORARY):
            path = tree.logs.parent / relative
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            lines.update(json.loads(line)["message"] for line in data.decode().splitlines())
    return lines


def check_after_kill(tree: Tree, wanted: Counter[str], where: str) -> None:
    """Nothing is missing at once, and nothing is double once the next run is through."""
    present = lines_of(tree)
    assert all(present[line] >= 1 for line in wanted), f"{where}: lost lines"
    assert all(count <= 2 for count in present.values()), f"{where}: more than one copy"
    tree.run()
    present = lines_of(tree)
    assert {line: n for line, n in present.items() if line in wanted} == wanted, f"{where}: not exactly once"
    assert not [name for name in tree.files() if name.endswith(".tmp")], f"{where}: temporary files left"
    assert not tree.run().is_change, f"{where}: not settled"


@pytest.fixture
def in_memory(tmp_path):
    """A folder whose flushes cost nothing, where there is one: SIGKILL does not empty the page cache anyway."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=memory, prefix="ops-maintenance-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    tree = plant(tmp_path_factory.mktemp("whole") / "t")
    lines = Counter({line: n for line, n in lines_of(tree).items() if not line.startswith("dead")})
    tree.run()
    assert lines_of(tree) == lines
    return lines


@pytest.mark.slow
def test_killed_before_and_after_every_step(in_memory, wanted):
    """More than 100 points: each call that touches the disk, just before and just after it, until a run gets through."""
    points = 0
    for half in ("before", "after"):
        for number in range(1, 10_000):
            tree = plant(in_memory / f"{number}{half}")
            status = killed_at(tree, number, half)
            if status == 0:
                break
            assert status == -signal.SIGKILL
            points += 1
            check_after_kill(tree, wanted, f"killed {half} call {number}")
            shutil.rmtree(in_memory / f"{number}{half}")
    assert points >= 100


@pytest.mark.slow
def test_killed_at_random_instants(tmp_path, wanted):
    """A process of its own, as on a host, killed by the clock; with a file large enough to be in the middle of it."""
    chance = random.Random(20261121)
    top = str(Path(log_retention.__file__).parents[5])
    everything = wanted + Counter({f"large {line}": 1 for line in range(30_000)})
    duration, killed = 0.0, 0
    for number in range(16):
        tree = plant(tmp_path / str(number))
        tree.write("backend/large.jsonl", text(9, 30_000, "large"))
        command = [sys.executable, "-c", ALONE, top, json.dumps(tree.params())]
        started = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            try:
                assert child.wait(timeout=duration * (0.3 + 0.6 * chance.random()) if number else None) == 0
                duration = duration or time.monotonic() - started
            except subprocess.TimeoutExpired:
                child.kill()
                killed += 1
        check_after_kill(tree, everything, f"killed at random, try {number}")
    assert killed >= 5


def test_lines_added_after_a_kill_are_not_doubled(tmp_path):
    """Killed between the new name and the end of the old one; then the service goes on writing."""
    tree = Tree(tmp_path)
    path = tree.write("a.jsonl", text(8))
    tree.write("a.jsonl.gz", text(8))
    with path.open("a") as more:
        more.write(text(0.1, 1, "young"))
    tree.run()
    assert tree.files() == ["logs/a.jsonl"]
    assert path.read_text() == text(8) + text(0.1, 1, "young")
