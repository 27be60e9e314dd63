# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import gzip
import json
import os
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import forecast, performance_host, performance_series
from ansible_collections.ops.maintenance.plugins.module_utils import performance_review as review
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.log_lines import Clock

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
GIB = 1 << 30


class FrozenHost(Host):
    def now(self):
        return NOW

    def sleep(self, _seconds):
        pass


def params_of(tmp_path, **more):
    params = {name: copy.deepcopy(spec.get("default")) for name, spec in review.OPTIONS.items()}
    return {**params, "state_dir": str(tmp_path / "state"), "self_test": False, "run_id": "", "deadline": 0.0, **more}


def series(*paths, **more):
    base = {"name": "cpu", "paths": [str(path) for path in paths], "field": "system.cpu_percent", "unit": "percent"}
    return {**base, "warning": None, "critical": None, "span_days": 7.0, "expected_interval_seconds": 0.0, **more}


def line(moment, value):
    return json.dumps({"timestamp": moment.isoformat(), "system": {"cpu_percent": value, "memory_percent": 50}}) + "\n"


def judged(declared):
    now = NOW.timestamp()
    read = performance_series.read_series(declared, now, Clock(now))
    findings, metrics = performance_series.judge_series(declared, read, now)
    return {finding.id: finding for finding in findings}, {metric.name: metric.value for metric in metrics}


# Series ------------------------------------------------------------------------


def test_samples_are_chosen_by_time_not_by_counting_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    old = [line(NOW - timedelta(days=8, minutes=n), 90) for n in range(100)]
    new = [line(NOW - timedelta(minutes=n), 10) for n in range(400)]  # more than 168, and out of order
    path.write_text("".join(new + old))
    findings, metrics = judged(series(path))
    assert findings["performance.series"].state == "ok"
    assert metrics == {
        "performance.cpu_average": 10, "performance.cpu_p95": 10, "performance.cpu_maximum": 10, "performance.cpu_samples": 400,
    }  # fmt: skip


@pytest.mark.parametrize("rotated", ["metrics.jsonl.1", "metrics.jsonl.2.gz", "metrics-20261118.jsonl.gz", "metrics.jsonl-20261118"])
def test_rotated_and_compressed_siblings_belong_to_it(tmp_path, rotated):
    (tmp_path / "metrics.jsonl").write_text(line(NOW - timedelta(hours=1), 10))
    data = line(NOW - timedelta(days=3), 30).encode()
    (tmp_path / rotated).write_bytes(gzip.compress(data) if rotated.endswith(".gz") else data)
    (tmp_path / "metrics-other.jsonl").write_text(line(NOW, 100))
    _findings, metrics = judged(series(tmp_path / "metrics.jsonl"))
    assert (metrics["performance.cpu_average"], metrics["performance.cpu_samples"]) == (20, 2)


def test_a_file_that_is_there_plain_and_compressed_counts_once(tmp_path):
    data = line(NOW - timedelta(hours=1), 10)
    (tmp_path / "metrics.jsonl.1").write_text(data)
    (tmp_path / "metrics.jsonl.1.gz").write_bytes(gzip.compress(data.encode()))
    _findings, metrics = judged(series(tmp_path / "metrics.jsonl"))
    assert metrics["performance.cpu_samples"] == 1


def test_no_data_is_unknown(tmp_path):
    assert judged(series(tmp_path / "metrics.jsonl"))[0]["performance.series"].state == "unknown"
    (tmp_path / "metrics.jsonl").write_text(line(NOW - timedelta(days=9), 10))
    findings, metrics = judged(series(tmp_path / "metrics.jsonl"))
    assert findings["performance.series"].state == "unknown"
    assert metrics == {}


def test_gaps_are_named(tmp_path):
    hours = [hour for hour in range(168) if not 50 <= hour < 60]
    (tmp_path / "metrics.jsonl").write_text("".join(line(NOW - timedelta(hours=hour), 10) for hour in hours))
    findings, _metrics = judged(series(tmp_path / "metrics.jsonl", expected_interval_seconds=3600.0))
    coverage = findings["performance.coverage"]
    assert (coverage.state, len(coverage.evidence)) == ("warning", 1)
    assert "11 h" in coverage.summary


def test_average_and_percentile_decide_by_declared_limits(tmp_path):
    values = [10] * 90 + [100] * 10
    (tmp_path / "metrics.jsonl").write_text("".join(line(NOW - timedelta(minutes=n), value) for n, value in enumerate(values)))
    findings, metrics = judged(series(tmp_path / "metrics.jsonl", warning=19.0, critical=50.0))
    assert findings["performance.series"].state == "warning"
    assert (metrics["performance.cpu_average"], metrics["performance.cpu_p95"]) == (19, 100)


def test_a_series_named_average_does_not_say_so_twice(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(line(NOW, 10))
    assert "performance.cpu_average" in judged(series(tmp_path / "metrics.jsonl*", name="cpu_average"))[1]


def test_hostile_lines_are_counted_not_believed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    bad = [
        b"\xff\xfe not json\n", b"{\n", b"[1]\n", b'{"timestamp": "yesterday"}\n', b"\n",
        json.dumps({"timestamp": NOW.isoformat(), "system": {"cpu_percent": True}}).encode() + b"\n",
        json.dumps({"timestamp": NOW.isoformat(), "system": {"cpu_percent": float("nan")}}).encode() + b"\n",
        json.dumps({"timestamp": NOW.isoformat(), "system": "cpu_percent"}).encode() + b"\n",
    ]  # fmt: skip
    path.write_bytes(b"".join(bad) + line(NOW, 42).encode())
    findings, metrics = judged(series(path))
    assert (metrics["performance.cpu_average"], metrics["performance.cpu_samples"]) == (42, 1)
    assert "4 lines without time or JSON" in findings["performance.series"].not_covered


def test_a_truncated_gzip_is_read_as_far_as_it_goes_and_said(tmp_path):
    data = gzip.compress(b"".join(line(NOW - timedelta(seconds=n), 10).encode() for n in range(5000)))
    (tmp_path / "metrics.jsonl.1.gz").write_bytes(data[: len(data) // 2])
    findings, _metrics = judged(series(tmp_path / "metrics.jsonl"))
    assert "middle of its compressed data" in findings["performance.series"].not_covered


def test_very_many_samples_keep_memory_and_the_average_exact(monkeypatch):
    monkeypatch.setattr(performance_series, "_KEPT", 100)
    samples = performance_series.Samples()
    for number in range(10_000):
        samples.add(float(number), float(number))
    assert len(samples.values) <= 101
    assert samples.total / samples.count == 4999.5
    assert abs(samples.percentile(0.95) - 9500) < 200
    assert samples.gaps(1.0, 0.0, 9999.0) == []


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300))
def test_percentile_is_one_of_the_values_and_high_enough(values):
    samples = performance_series.Samples()
    for number, value in enumerate(values):
        samples.add(float(number), value)
    p95 = samples.percentile(0.95)
    assert p95 in values
    assert sum(value <= p95 for value in values) >= 0.95 * len(values)


# The host -----------------------------------------------------------------------

MOUNTS = r"""
21 1 0:20 / /proc rw,nosuid - proc proc rw
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 8:1 /srv /srv/bind rw - ext4 /dev/sda1 rw
24 22 0:30 / /run rw - tmpfs tmpfs rw
25 22 0:31 / /mnt/with\040space\012line rw - nfs4 server:/export rw
26 22 7:3 / /snap/core ro - squashfs /dev/loop3 ro
27 22 254:0 / /pool rw shared:9 master:2 - zfs tank rw
28 22 0:40 / /sys/fs/cgroup rw - cgroup2 cgroup rw
broken line
"""


def test_mounts_are_the_real_ones_each_device_once_network_included():
    mounts = performance_host.parse_mounts(MOUNTS)
    assert [mount.point for mount in mounts] == ["/", "/mnt/with space\nline", "/pool"]
    assert [mount.is_network for mount in mounts] == [False, True, False]


def test_a_mount_that_does_not_answer_is_unknown_not_a_hang(monkeypatch):
    monkeypatch.setattr(performance_host, "_ANSWER_SECONDS", 0.05)
    never = __import__("threading").Event()
    monkeypatch.setattr(os, "statvfs", lambda _path: never.wait(2))
    with pytest.raises(MaintenanceError, match="did not answer"):
        performance_host.ask_mount(performance_host.Mount("/mnt/nfs", "0:31", "nfs4"))


def test_cache_is_not_memory_in_use():
    memory = performance_host.parse_memory("MemTotal: 1000 kB\nMemFree: 20 kB\nMemAvailable: 900 kB\nCached: 880 kB\n")
    assert memory.used_percent == pytest.approx(10)


def test_memory_without_memavailable_cannot_be_told():
    with pytest.raises(MaintenanceError):
        performance_host.parse_memory("MemTotal: 1000 kB\nMemFree: 20 kB\n")


def test_a_process_name_with_brackets_and_line_breaks_is_parsed():
    text = "7 (evil) (x\n) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 999 1000 25 18446744073709551615 1 1 0\n"
    process = performance_host.parse_process(text, 4096)
    assert process == (7, "evil) (x\n", 999, 42, 25 * 4096)


def test_a_pid_that_was_reused_is_not_the_same_process():
    old = performance_host.Process(5, "a", 100, 1000, 1)
    new = performance_host.Process(5, "b", 200, 5000, 1)
    by_cpu, by_memory = performance_host.top({(5, 100): old}, {(5, 200): new}, 1.0, 10)
    assert (by_cpu, by_memory) == ([], [new])


@pytest.mark.parametrize(("taken", "state"), [(84.9, "ok"), (85.0, "warning"), (95.0, "critical")])
def test_disk_limits(tmp_path, taken, state):
    mount = performance_host.Mount("/data", "8:1", "ext4")
    found = review.judge_disk(params_of(tmp_path), mount, taken * GIB, (100 - taken) * GIB, [])
    assert [finding.state for finding in found] == [state]
    assert "forecast needs" in found[0].not_covered


def test_a_disk_that_fills_up_is_forecast(tmp_path):
    mount = performance_host.Mount("/data", "8:1", "ext4")
    points = [[day * forecast.DAY, (40 + 2 * day) * GIB] for day in range(8)]
    found = review.judge_disk(params_of(tmp_path), mount, 54 * GIB, 16 * GIB, points)
    assert [finding.state for finding in found] == ["ok", "warning"]
    assert found[1].value == 8.0


def test_a_disk_that_shrinks_never_fills_and_two_points_are_no_forecast():
    assert forecast.days_until([[0, 9], [forecast.DAY, 8], [3 * forecast.DAY, 7]], 100) is None
    with pytest.raises(ValueError, match="needs 3"):
        forecast.days_until([[0, 9], [forecast.DAY, 10]], 100)


@pytest.mark.parametrize("load", [(0.0, 0.0, 0.0), (0.004, 0.004, 0.004)])
def test_a_very_small_load_is_ok_and_the_minute_value_does_not_decide(tmp_path, monkeypatch, load):
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, *load[1:]))
    outcome = review.run(params_of(tmp_path), True, FrozenHost())
    assert next(finding.state for finding in outcome.findings if finding.id == "performance.load") == "ok"


def test_load_is_relative_to_the_number_of_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 3.3, 0.0))
    outcome = review.run(params_of(tmp_path), True, FrozenHost())
    finding = next(finding for finding in outcome.findings if finding.id == "performance.load")
    assert (finding.state, finding.value) == ("warning", 82.5)


# The whole ------------------------------------------------------------------------


def test_a_review_looks_at_this_machine_and_changes_nothing(tmp_path, monkeypatch):
    opened = []
    real_open = open

    def watching(path, mode="r", *rest, **more):
        opened.append((str(path), mode))
        return real_open(path, mode, *rest, **more)

    monkeypatch.setattr("builtins.open", watching)
    outcome = review.run(params_of(tmp_path, self_test=True), False, FrozenHost())
    ids = {finding.id for finding in outcome.findings}
    assert {"performance.cpu", "performance.load", "performance.memory", "performance.swap", "performance.disk",
            "performance.processes", "performance.self_test"} <= ids  # fmt: skip
    assert not outcome.is_change
    assert not [path for path, _mode in opened if "drop_caches" in path or path.endswith("cmdline")]
    assert not [path for path, mode in opened if path.startswith("/proc") and mode != "r"]
    assert (tmp_path / "state" / review.HISTORY).exists()


def test_check_mode_keeps_nothing(tmp_path):
    review.run(params_of(tmp_path), True, FrozenHost())
    assert not (tmp_path / "state").exists()


def test_runs_remember_how_full_disks_were(tmp_path):
    for _run in range(2):
        review.run(params_of(tmp_path), False, FrozenHost())
    kept = json.loads((tmp_path / "state" / review.HISTORY).read_text())
    assert all(len(points) == 1 for points in kept["used"].values())  # the same moment is not counted twice
    assert "/" in kept["used"]


def test_a_blind_self_test_makes_everything_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(review, "from_limit", lambda *_: "ok")
    outcome = review.run(params_of(tmp_path, self_test=True), True, FrozenHost())
    assert {finding.state for finding in outcome.findings} == {"unknown"}


def test_all_input_problems_at_once(tmp_path):
    bad = [series("relative.jsonl"), series("/x", span_days=-1.0)]
    with pytest.raises(InputError) as caught:
        review.run(params_of(tmp_path, series=bad, disk_warning_percent=-5.0, top_count=999), False, FrozenHost())
    for expected in ("relative.jsonl", "share a name", "below 0", "disk_warning_percent", "top_count"):
        assert expected in str(caught.value)
