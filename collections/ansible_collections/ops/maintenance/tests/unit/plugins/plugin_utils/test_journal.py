# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.record import Action, Finding, Metric, Outcome
from ansible_collections.ops.maintenance.plugins.plugin_utils import journal_lines as lines
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import (
    LINE_LIMIT_BYTES,
    JournalWriter,
    bounded,
    canonical,
    check_run_id,
    latest_journal,
    new_run_id,
    read_journal,
)

_spec = importlib.util.spec_from_file_location("schema", Path(__file__).parents[1] / "schema.py")
schema = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(schema)

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
TIMES = (NOW.isoformat(), NOW.isoformat())
RUN_ID = "weekly-20261121T020000Z-3fa9"
PLACE = {"host": "a", "system": "s", "role": "r", "task": "t", "phase": "assess", "check_mode": False, "item": ""}
OUTCOME = {"reason": "", "downtime_seconds": 3.5, "services_restored": True, "rollback_required": False}
RUN = {
    "cadence": "weekly",
    "playbook": "weekly.yml",
    "check_mode": False,
    "started": NOW.isoformat(),
    "control": {"host": "c", "user": "u", "pid": 1, "pid_started": "12"},
    "performed_by": "u",
    "job": None,
    "versions": {"collection": "0.1.0", "ansible_core": "2.19.0", "python": "3.11.2"},
    "options": {"tags": ["all"], "skip_tags": [], "limit": "", "force_window": ""},
}


def a_record(**more):
    findings = [Finding("backup.age", "warning", "/b", "old", 9, "days", advice="Back up."), Finding("a.b", "ok", "x", "fine")]
    actions = [Action("x", "vacuum", "changed", "done", {"size": 2}, {"size": 1})]
    outcome = Outcome("x", "op", "changed", "it is", findings=findings, metrics=[Metric("db.size", "x", 1.5, "bytes")], actions=actions)
    return {**PLACE, **lines.record_from({**outcome.record(), **more}, TIMES)}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal" / f"{RUN_ID}.jsonl")


@pytest.fixture
def full(path):
    writer = JournalWriter(path, RUN_ID)
    writer.append("run", RUN)
    writer.append("plan", lines.other_line({"kind": "plan", "system": "s", "hosts": ["a", "b"]}, "localhost", {}))
    writer.append("record", a_record())
    writer.append("signature", lines.other_line({"kind": "signature", "duty": "d", "signed_by": "N", "signed_at": "2026-11-20"}, "a", {}))
    writer.append("outcome", {"host": "a", "system": "s", "outcome": "completed", **OUTCOME})
    writer.append("end", lines.end({"a": "completed"}, False, NOW.isoformat()))
    writer.close()
    return path


def rewritten(path, change):
    """Change the lines of a journal as somebody with an editor would."""
    content = Path(path).read_bytes().splitlines(keepends=True)
    Path(path).write_bytes(b"".join(change(content)))
    return read_journal(path)


def test_every_kind_of_line_agrees_with_the_schema_and_the_chain_is_whole(full):
    journal = read_journal(full)
    assert [line["kind"] for line in journal.lines] == ["run", "plan", "record", "signature", "outcome", "end"]
    assert [fault for line in journal.lines for fault in schema.faults(line)] == []
    assert (journal.complete, journal.broken_at, journal.state, journal.interrupted) == (True, 0, "completed", None)


def test_the_hash_is_what_the_documentation_says(full):
    previous = "0" * 64
    for raw in Path(full).read_text().splitlines():
        line = json.loads(raw)
        assert line["previous"] == previous
        previous = line.pop("hash")
        plain = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(plain.encode()).hexdigest() == previous


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("record", {"status": "fine"}),
        ("record", {"host": ""}),
        ("record", {"findings": [{"id": "a.b", "state": "ok"}]}),
        ("record", {"surprise": 1}),
        ("run", {"control": {}}),
        ("outcome", {"outcome": "great"}),
        ("outcome", {"downtime_seconds": -1}),
        ("end", {"hosts": {"great": 1}}),
        ("plan", {"hosts": "a"}),
        ("signature", {"signed_by": ""}),
    ],
)
def test_the_schema_refuses_what_is_wrong(full, kind, change):
    line = next(line for line in read_journal(full).lines if line["kind"] == kind)
    assert schema.faults(line) == []
    assert schema.faults({**line, **change})


def test_the_schema_demands_advice_for_a_finding_that_is_not_ok():
    record = Outcome("x", "op", "ok", "s", findings=[Finding("a.b", "critical", "x", "bad", advice="Act.")]).record()
    assert schema.record_faults(record) == []
    record["findings"][0]["advice"] = ""
    assert schema.record_faults(record)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_an_edit_of_any_line_shows_at_that_line(full, number):
    def edit(content):
        content[number - 1] = content[number - 1].replace(b'"kind"', b'"Kind":0,"kind"')
        return content

    journal = rewritten(full, edit)
    assert (journal.broken_at, journal.complete) == (number, False)
    assert len(journal.lines) == 6


def test_an_edit_that_keeps_the_meaning_shows_too(full):
    assert rewritten(full, lambda c: [*c[:2], c[2].replace(b'":"', b'": "', 1), *c[3:]]).broken_at == 3


def test_a_repeated_key_shows(full):
    assert rewritten(full, lambda c: [*c[:2], c[2].replace(b'{"', b'{"status":"ok","', 1), *c[3:]]).broken_at == 3


def test_a_line_with_a_new_hash_shows_at_the_next_line(full):
    def forge(content):
        line = json.loads(content[2])
        line["status"] = "ok"
        del line["hash"]
        line["hash"] = hashlib.sha256(canonical(line)).hexdigest()
        return [*content[:2], canonical(line) + b"\n", *content[3:]]

    assert rewritten(full, forge).broken_at == 4


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_a_missing_line_shows(full, gone):
    assert rewritten(full, lambda c: [*c[:gone], *c[gone + 1 :]]).broken_at == gone + 1


def test_swapped_lines_show(full):
    assert rewritten(full, lambda c: [c[0], c[2], c[1], *c[3:]]).broken_at == 2


def test_a_line_after_the_end_shows(full):
    assert rewritten(full, lambda c: [*c, c[-1]]).broken_at == 7


def test_a_line_that_is_no_json_shows_and_the_rest_is_read(full):
    journal = rewritten(full, lambda c: [*c[:2], b"\xff\x00 not json\n", *c[3:]])
    assert (journal.broken_at, len(journal.lines)) == (3, 5)


def test_a_journal_cut_at_any_byte_is_read_up_to_the_last_whole_line(full):
    whole = Path(full).read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    for size in range(0, len(whole), 97):
        Path(full).write_bytes(whole[:size])
        journal = read_journal(full)
        expected = sum(1 for end in ends if end <= size)
        assert (len(journal.lines), journal.broken_at, journal.complete) == (expected, 0, False)
        assert journal.torn == (size not in (0, *ends))
        assert journal.state == "interrupted"


def test_interrupted_names_the_last_record(full):
    journal = rewritten(full, lambda c: c[:3])
    assert journal.interrupted == {"when": journal.lines[-1]["time"], "where": "record r t on a", "seq": "3"}


def test_a_run_whose_process_lives_is_running(path):
    from ansible_collections.ops.maintenance.plugins.plugin_utils.control import process_started

    writer = JournalWriter(path, RUN_ID)
    control = {"host": os.uname().nodename, "user": "u", "pid": os.getpid(), "pid_started": process_started(os.getpid())}
    writer.append("run", {**RUN, "control": control})
    assert read_journal(path).state == "running"


def test_another_process_with_the_same_pid_is_not_this_run(path):
    writer = JournalWriter(path, RUN_ID)
    writer.append("run", {**RUN, "control": {"host": os.uname().nodename, "user": "u", "pid": os.getpid(), "pid_started": "1"}})
    assert read_journal(path).state == "interrupted"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _p: None, "no journal"),
        (lambda p: p.mkdir(), "not a regular file"),
        (lambda p: p.write_bytes(b"\x00\xff\n" * 5), "is not a journal"),
        (lambda p: p.write_text("[1]\n{}\n"), "is not a journal"),
        (lambda p: p.write_text("[" * 100000 + "\n"), "is not a journal"),
        (lambda p: p.symlink_to("/etc/passwd"), "symbolic link"),
        (os.mkfifo, "not a regular file"),
    ],
)
def test_what_is_no_journal_is_refused_in_one_sentence(tmp_path, make, said):
    target = tmp_path / "x.jsonl"
    make(target)
    with pytest.raises(MaintenanceError, match=said) as refused:
        read_journal(str(target))
    assert str(target) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_file_is_a_run_interrupted_before_anything(tmp_path):
    (tmp_path / "x.jsonl").touch()
    assert read_journal(str(tmp_path / "x.jsonl")).interrupted["where"] == "before anything was recorded"


def test_two_runs_never_share_a_file(path):
    JournalWriter(path, RUN_ID)
    with pytest.raises(MaintenanceError, match="exists already"):
        JournalWriter(path, RUN_ID)


def test_only_the_owner_can_read(full):
    assert stat.S_IMODE(os.stat(full).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(full)).st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MaintenanceError, match="OPS_MAINTENANCE_JOURNAL_DIR"):
        JournalWriter(str(tmp_path / "file" / "x" / "a.jsonl"), RUN_ID)


def test_a_full_disk_leaves_whole_lines_and_the_chain_goes_on(path):
    """RLIMIT_FSIZE makes the kernel cut a write short, as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import JournalWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"writer = JournalWriter({path!r}, {RUN_ID!r})\n"
        "line = {'cadence': 'x' * 1000}\n"
        "writer.append('run', line)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "try:\n    writer.append('record', line)\n    sys.exit(9)\n"
        "except Exception as error:\n    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "writer.append('end', line)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_env(), check=False)
    assert done.returncode == 0, done.stderr
    assert "could not be written (File too large)" in done.stdout
    journal = read_journal(path)
    assert [line["kind"] for line in journal.lines] == ["run", "end"]
    assert (journal.broken_at, journal.torn) == (0, False)


def test_killed_at_many_points_the_journal_is_whole_up_to_then(tmp_path):
    code = (
        "import sys, itertools\n"
        "from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import JournalWriter\n"
        "writer = JournalWriter(sys.argv[1], 'r')\n"
        "for n in itertools.count(1):\n    writer.append('record', {'n': n, 'text': 'x' * 3000})\n    print(n, flush=True)\n"
    )
    for kill in range(8):
        target = str(tmp_path / f"{kill}.jsonl")
        child = subprocess.Popen([sys.executable, "-c", code, target], stdout=subprocess.PIPE, text=True, env=_env())
        child.stdout.readline()
        time.sleep(0.013 * kill)
        child.send_signal(signal.SIGKILL)
        promised = [int(line) for line in child.stdout.read().split()] or [1]
        child.wait()
        journal = read_journal(target)
        assert journal.broken_at == 0
        assert len(journal.lines) >= promised[-1]
        assert journal.state == "interrupted"


def _env():
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[7])}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(fields=st.dictionaries(st.text(max_size=12), JSON, max_size=6))
@example(fields={"a": "\u2028\x85\n\ud800", "password": "x"})
def test_anything_json_like_can_be_kept_and_keeps_the_chain_whole(tmp_path_factory, fields):
    target = str(tmp_path_factory.mktemp("any") / "x.jsonl")
    writer = JournalWriter(target, "r")
    writer.append("record", fields)
    writer.append("end", fields)
    writer.close()
    journal = read_journal(target)
    assert (journal.broken_at, len(journal.lines), journal.torn) == (0, 2, False)
    for raw in Path(target).read_bytes().splitlines():
        json.loads(raw, parse_constant=pytest.fail)


def test_a_huge_line_keeps_its_findings_and_says_what_went(path):
    evidence = ["e" * 400] * 20
    findings = [Finding("a.b", "critical", f"/{n}", "bad", advice="Act.", evidence=evidence).as_dict() for n in range(30)]
    metrics = [Metric("a.b", f"{n}", n, "count").as_dict() for n in range(1000)]
    record = a_record(before={"rows": ["x" * 400] * 1000}, findings=findings, metrics=metrics)
    writer = JournalWriter(path, RUN_ID)
    writer.append("record", record)
    line = read_journal(path).lines[0]
    assert len(canonical(line)) <= LINE_LIMIT_BYTES
    assert [f["subject"] for f in line["findings"]] == [f"/{n}" for n in range(30)]
    assert line["before"] == {}
    assert len(line["metrics"]) == 40
    assert "before and after left out" in line["shortened"]
    assert "960 of 1000 metrics left out" in line["shortened"]
    assert schema.faults(line) == []


def test_more_findings_than_any_line_holds_keep_the_worst_and_leave_an_unknown():
    ok = [Finding("a.b", "ok", f"/{n}", "s" * 400).as_dict() for n in range(4000)]
    bad = Finding("a.c", "critical", "/x", "bad", advice="Act.").as_dict()
    line = bounded(a_record(findings=[*ok, bad]))
    assert len(canonical(line)) < 1024 * 1024
    assert line["findings"][0] == bad
    assert line["findings"][-1]["id"] == "journal.shortened"
    assert line["findings"][-1]["state"] == "unknown"


def test_a_small_line_stays_as_it_is():
    record = a_record()
    assert bounded(record) == record


def test_run_ids_are_file_names_and_differ():
    ids = {new_run_id("weekly", NOW) for _number in range(20)}
    assert all(i.startswith("weekly-20261121T020000Z-") and len(i) == 28 for i in ids)
    assert len(ids) > 15
    assert new_run_id("../Ünder/x y", NOW).startswith("nder_x_y-")
    assert check_run_id(RUN_ID) == RUN_ID


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "-rf", "a\nb", "x" * 101, ".hidden"])
def test_a_run_id_that_is_no_file_name_is_refused(bad):
    with pytest.raises(InputError):
        check_run_id(bad)


def test_the_latest_journal_is_the_one_that_started_last(tmp_path):
    for name in ("weekly-20261121T020000Z-0001", "weekly-20261114T020000Z-ffff", "daily-20261122T020000Z-0001"):
        (tmp_path / f"{name}.jsonl").touch()
    (tmp_path / "weekly-20991121T020000Z-0001.jsonl").symlink_to("/etc/passwd")
    assert latest_journal(str(tmp_path)).endswith("daily-20261122T020000Z-0001.jsonl")
    assert latest_journal(str(tmp_path), "weekly").endswith("weekly-20261121T020000Z-0001.jsonl")
    assert latest_journal(str(tmp_path), "monthly") is None
    assert latest_journal(str(tmp_path / "missing")) is None


def test_appending_is_quick_enough(path):
    writer = JournalWriter(path, RUN_ID)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for _number in range(200):
        writer.append("record", a_record())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 1.0
