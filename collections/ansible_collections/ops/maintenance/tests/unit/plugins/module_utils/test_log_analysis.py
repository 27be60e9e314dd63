# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The review of a week: by record time, over compressed files, resumed after rotation, never ok where nothing was read."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import log_analysis, log_json_blocks, log_line_counter, log_scan, log_verdicts
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.log_scan import Source, scan
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils import processes

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)


class FixedHost(Host):
    days = 0

    def now(self):
        return NOW + timedelta(days=self.days)


def record(days: float, level: str = "ERROR", message: str = "boom 7", **more) -> bytes:
    stamp = (NOW - timedelta(days=days)).isoformat()
    return json.dumps({"timestamp": stamp, "level": level, "message": message, **more}).encode() + b"\n"


class Site:
    def __init__(self, base: Path) -> None:
        self.logs, self.state, self.report = base / "logs", base / "state", base / "reports" / "week-{date}.json"
        self.logs.mkdir()
        self.host = FixedHost()

    def write(self, name: str, data: bytes) -> Path:
        path = self.logs / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    def run(self, check: bool = False, sources: list | None = None, **changes):
        suboptions = log_analysis.OPTIONS["sources"]["options"].items()
        source = {**{name: option.get("default") for name, option in suboptions}, "name": "app", "paths": [f"{self.logs}/*"]}
        params = {
            **{name: option.get("default") for name, option in log_analysis.OPTIONS.items()},
            "sources": [source] if sources is None else [{**source, **one} for one in sources],
            "state_dir": str(self.state), "deadline": 0.0, "self_test": False, "run_id": "", "report": str(self.report),
        }  # fmt: skip
        return log_analysis.run({**params, **changes}, check, self.host)

    def written(self) -> dict:
        return json.loads((self.report.parent / "week-20261121.json").read_text())


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def found(outcome, finding_id, subject="app"):
    return next(finding for finding in outcome.findings if (finding.id, finding.subject) == (finding_id, subject))


# What counts ----------------------------------------------------------------------------------------------------------


def test_errors_count_by_their_own_time_compressed_files_too(site):
    """Counting all lines of recently changed files would find 300 here, and miss the compressed ones."""
    site.write("old-lines.jsonl", record(20) * 250 + record(1) * 50)
    site.write("packed.jsonl.gz", record(3) * 50)
    assert found(site.run(), "logs.errors").value == 100
    assert found(site.run(), "logs.errors").state == "ok"
    site.write("one-more.jsonl", record(6.9, "CRITICAL"))
    assert (found(site.run(), "logs.errors").value, found(site.run(), "logs.errors").state) == (101, "warning")
    assert found(site.run(), "logs.critical").state == "warning"


def test_more_than_a_hundred_list_their_patterns_with_examples(site):
    site.write("a.jsonl", b"".join(record(1, message=f"timeout after {n} ms") for n in range(90)) + record(1, message="no disk") * 20)
    finding = found(site.run(), "logs.errors")
    assert finding.evidence == ["90 x timeout after <n> ms | timeout after 0 ms", "20 x no disk | no disk"]


def test_an_old_change_time_does_not_hide_young_records(site):
    path = site.write("a.jsonl", record(1))
    os.utime(path, (0, 0))
    assert found(site.run(), "logs.errors").value == 1


def test_the_report_is_valid_its_folder_is_made_and_check_mode_writes_nothing(site):
    site.write("a.jsonl", record(1, message="\x1b[31mred\u202e <script>"))
    checked = site.run(check=True)
    assert not site.report.parent.exists()
    assert not site.state.exists()
    done = site.run()
    assert [(f.id, f.state) for f in checked.findings] == [(f.id, f.state) for f in done.findings]
    assert not done.is_change
    assert site.written()["sources"][0]["errors"] == 1
    assert "\x1b" not in json.dumps(site.written(), ensure_ascii=False)


def test_a_report_that_cannot_be_written_is_an_error(site):
    site.write("a.jsonl", record(1))
    (site.logs.parent / "reports").write_text("a file where a folder is expected")
    with pytest.raises(MaintenanceError, match="could not be written"):
        site.run()


def test_brute_force_and_failed_logins(site):
    lines = [record(1, "WARNING", f"Authentication failed for user u{n % 3} from 203.0.113.{n % 2}") for n in range(60)]
    site.write("a.jsonl", b"".join(lines))
    outcome = site.run()
    assert (found(outcome, "logs.auth_failures").value, found(outcome, "logs.auth_failures").state) == (60, "warning")
    brute = found(outcome, "logs.brute_force")
    assert (brute.value, brute.state, brute.evidence[0]) == (30, "warning", "30 x from 203.0.113.0")
    assert found(site.run(brute_force_limit=3), "logs.brute_force").state == "critical"


def test_disk_errors_memory_and_rate_limits(site):
    site.write(
        "a.jsonl",
        record(1, message="disk I/O error") + record(1, message="Out of memory") + record(1, "INFO", "rate limit hit by 192.0.2.1") * 101,
    )
    outcome = site.run()
    states = {name: found(outcome, f"logs.{name}").state for name in ("io_errors", "out_of_memory", "rate_limited")}
    assert states == {"io_errors": "critical", "out_of_memory": "warning", "rate_limited": "warning"}


def test_new_and_vanished_patterns(site):
    site.write("a.jsonl", record(1, message="known") + record(1, message="leaves"))
    first = found(site.run(), "logs.new_patterns")
    assert (first.state, bool(first.not_covered)) == ("ok", True)
    site.write("a.jsonl", record(1, message="known") + record(1, message="arrives"))
    second = found(site.run(), "logs.new_patterns")
    assert (second.state, second.value, second.evidence) == ("warning", 1, ["new: arrives", "vanished: leaves"])
    assert found(site.run(), "logs.new_patterns").state == "ok"


def test_silence(site):
    site.write("a.jsonl", record(0.5, "INFO"))
    outcome = site.run(sources=[{"silence_hours": 12.5}])
    assert found(outcome, "logs.silent").state == "ok"
    assert found(site.run(sources=[{"silence_hours": 12.0}]), "logs.silent").state == "warning"
    site.write("a.jsonl", record(3, "INFO") + record(0.1, "INFO"))
    assert found(site.run(sources=[{"silence_hours": 24.0}]), "logs.silent").state == "warning"


def test_an_access_log(site):
    line = '192.0.2.{} - - [20/Nov/2026:10:00:00 +0000] "GET /x/{} HTTP/1.1" {} 5 "-" "-" 0.{:03d}\n'
    site.write("access.log", "".join(line.format(n % 9, n, 500 if n % 10 == 0 else 200, n % 1000) for n in range(200)).encode())
    outcome = site.run()
    assert (found(outcome, "logs.server_errors").state, found(outcome, "logs.server_errors").value) == ("warning", 10.0)
    source = site.written()["sources"][0]
    assert (source["statuses"], source["latency_seconds"]["p50"]) == ({"200": 180, "500": 20}, 0.099)
    assert source["patterns"][0]["pattern"] == "GET /x/<n> 500"


def metrics(outcome) -> dict:
    return {metric.name: metric.value for metric in outcome.metrics if metric.subject == "app"}


def test_records_are_counted_by_level_status_class_and_hour(site):
    site.write("a.jsonl", record(1) * 3 + record(2, "INFO") * 4 + record(2, "odd") * 2)
    line = '192.0.2.1 - - [20/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" {} 5 "-" "-"\n'
    site.write("access.log", "".join(line.format(status) for status in (200, 204, 302, 404, 500, 503, 503, 100)).encode())
    seen = metrics(site.run(only_new=True))
    levels = {name: value for name, value in seen.items() if name.startswith("logs.level_")}
    assert levels == {"logs.level_error": 6, "logs.level_info": 8, "logs.level_none": 2, "logs.level_warning": 1}
    assert sum(levels.values()) == seen["logs.records"] == 17
    classes = {name: value for name, value in seen.items() if name.startswith("logs.status_")}
    assert classes == {"logs.status_2xx": 2, "logs.status_3xx": 1, "logs.status_4xx": 1, "logs.status_5xx": 3}
    hours = site.written()["sources"][0]["by_hour"]
    assert hours["2026-11-19T02:00Z"] == {"INFO": 4, "none": 2}
    assert hours["2026-11-20T02:00Z"] == {"ERROR": 3}


def test_only_counts_of_new_lines_have_the_names_that_are_added_up(site):
    """A daily and a weekly run over the same week would count its errors twice."""
    site.write("a.jsonl", record(1) * 3)
    for changes in ({}, {}, {"only_new": True, "check": True}):
        seen = metrics(site.run(**changes))
        assert seen["logs.errors_in_span"] == seen["logs.records_in_span"] == seen["logs.level_error_in_span"] == 3
        assert set(seen) & {"logs.errors", "logs.records", "logs.level_error", "logs.unparsed"} == set()
    total = 0
    for more in (b"", b"", record(0.5) * 2):
        with (site.logs / "a.jsonl").open("ab") as log:
            log.write(more)
        seen = metrics(site.run(only_new=True))
        assert not [name for name in seen if name.endswith("_in_span")]
        total += seen["logs.errors"]
    assert total == 5


def test_limits_may_differ_by_source(site):
    site.write("a.jsonl", record(1) * 5)
    outcome = site.run(sources=[{"error_limit": 4}, {"name": "other"}], error_limit=5)
    assert [found(outcome, "logs.errors", name).state for name in ("app", "other")] == ["warning", "ok"]


def test_rate_limits_by_client_and_endpoint(site):
    line = '192.0.2.{} - - [20/Nov/2026:10:00:00 +0000] "GET /api/orders?page={} HTTP/1.1" 429 5 "-" "-"\n'
    site.write("access.log", "".join(line.format(n % 2, n) for n in range(120)).encode())
    assert found(site.run(), "logs.rate_limited").evidence == [
        "60 x from 192.0.2.0",
        "60 x from 192.0.2.1",
        "120 x to GET /api/orders",
    ]
    site.write("access.log", record(1, "WARNING", "rate limit exceeded", path="/api/orders", ip="192.0.2.9") * 120)
    assert found(site.run(), "logs.rate_limited").evidence == ["120 x from 192.0.2.9", "120 x to /api/orders"]


def access(address: str, forwarded: str = "-", seconds: str = "0.100") -> bytes:
    return f'{address} - - [20/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "agent" "{forwarded}" {seconds}\n'.encode()


def test_clients_behind_a_proxy_are_told_by_what_the_proxy_saw(site):
    """The first of the forwarded addresses is what the client says of itself; a stranger may write the header, too."""
    lines = [access("10.0.0.5", f"6.6.6.6, 192.0.2.{n % 4}, 10.0.0.9") for n in range(100)] + [access("192.0.2.200", "192.0.2.1")] * 3
    site.write("access.log", b"".join(line.replace(b" 0.100", b"") for line in lines))
    blind = found(site.run(sources=[{"format": "access"}]), "logs.clients")
    assert (blind.state, "10.0.0.5" in blind.summary) == ("unknown", True)
    seen = found(site.run(sources=[{"format": "access", "trusted_proxies": ["10.0.0.0/24"]}]), "logs.clients")
    assert (seen.state, seen.evidence[:2], seen.evidence[4:]) == (
        "ok", ["25 x from 192.0.2.0", "25 x from 192.0.2.1"], ["3 x from 192.0.2.200"],
    )  # fmt: skip


def test_response_times_where_a_limit_is_declared(site):
    site.write("access.log", b"".join(access("192.0.2.1", seconds=f"{n / 100:.3f}") for n in range(1, 101)))
    assert not [f for f in site.run().findings if f.id == "logs.latency"]
    finding = found(site.run(latency_p95_seconds=0.95), "logs.latency")
    assert (finding.value, finding.state) == (0.95, "warning")
    assert found(site.run(latency_p95_seconds=0.96), "logs.latency").state == "ok"
    site.write("access.log", access("192.0.2.1").replace(b" 0.100", b"") * 9)
    assert found(site.run(latency_p95_seconds=1.0), "logs.latency").state == "unknown"


def test_a_postgresql_log_with_deadlocks(site):
    line = (
        "2026-11-20 10:00:00.000 UTC [7] app@shop ERROR:  deadlock detected\n2026-11-20 10:00:00.000 UTC [7] app@shop DETAIL:  Process 7\n"
    )
    site.write("postgresql.log", line.encode() * 3)
    outcome = site.run()
    assert (found(outcome, "logs.deadlocks").value, found(outcome, "logs.deadlocks").state) == (3, "warning")
    assert found(outcome, "logs.errors").value == 3
    assert found(site.run(deadlock_limit=3), "logs.deadlocks").state == "ok"


# Against history ------------------------------------------------------------------------------------------------------


def test_a_pattern_is_new_only_when_no_kept_look_had_it(site):
    for day, message in ((0, "one"), (1, "two"), (2, "one"), (110, "one")):
        site.host.days = day
        site.write("a.jsonl", record(0.1 - day, message=message))
        finding = found(site.run(), "logs.new_patterns")
        expected = {0: ("ok", None), 1: ("warning", 1), 2: ("ok", 0), 110: ("warning", 1)}[day]
        assert (finding.state, finding.value) == expected


def test_counts_are_compared_with_the_same_weekday(site):
    """Sundays are quiet here: compared with all days, a busy Sunday would look usual."""
    for day in range(21):
        site.host.days = day
        quiet = (NOW + timedelta(days=day)).weekday() == 6
        site.write("a.jsonl", record(0.1 - day, "INFO") * (100 if quiet else 1000))
        finding = found(site.run(span_days=1.0), "logs.anomaly")
        assert (finding.state, bool(finding.not_covered)) == ("ok", True)
    for day, count, expected in ((21, 1000, []), (22, 1000, ["1000 records, usually 100"]), (23, 200, ["200 records, usually 1000"])):
        site.host.days = day
        site.write("a.jsonl", record(0.1 - day, "INFO") * count)
        finding = found(site.run(span_days=1.0), "logs.anomaly")
        assert (finding.state, finding.evidence) == ("warning" if expected else "ok", expected)
    assert not [f for f in site.run(span_days=1.0, anomaly_factor=0.0).findings if f.id == "logs.anomaly"]


def test_history_is_bounded(site):
    for day in range(0, 300, 3):
        site.host.days = day
        site.write("a.jsonl", record(0.1 - day, message=f"only {'x' * (day // 20)} then {'y' * (day % 20)}"))
        site.run()
    kept = json.loads((site.state / "log_analysis.json").read_text())["span"]["history"]["app"]
    assert (len(kept["days"]), len(kept["patterns"])) == (34, 34)


def test_a_look_at_the_past_counts_that_span_and_leaves_the_state_alone(site):
    site.write("a.jsonl", record(15, message="before") + record(12) * 4 + record(9, message="after") + record(1, message="now"))
    site.run(only_new=True)
    site.run()
    state = (site.state / "log_analysis.json").read_bytes()
    past = site.run(since="2026-11-08T00:00:00Z", until="2026-11-10T00:00:00Z", sources=[{"silence_hours": 48.0}])
    assert (found(past, "logs.errors").value, found(past, "logs.silent").state) == (4, "ok")
    assert site.written()["until"] == "2026-11-10T00:00:00+00:00"
    assert found(site.run(until="2026-11-10T00:00:00Z", span_days=2.0), "logs.errors").value == 4
    assert (site.state / "log_analysis.json").read_bytes() == state
    assert found(site.run(only_new=True), "logs.errors").value == 0


# Containers -----------------------------------------------------------------------------------------------------------


def container(site, number: int, name: str | None, text: str, driver: str = "json-file") -> Path:
    folder = site.logs / f"{number:064x}"
    folder.mkdir()
    if name:
        (folder / "config.v2.json").write_text(json.dumps({"Name": f"/{name}"}))
    (folder / "hostconfig.json").write_text(json.dumps({"LogConfig": {"Type": driver, "Config": {}}}))
    line = json.dumps({"log": text + "\n", "stream": "stderr", "time": "2026-11-20T10:00:00.1Z"}) + "\n"
    if driver == "json-file":
        (folder / f"{number:064x}-json.log").write_text(line)
        (folder / f"{number:064x}-json.log.1").write_text(line)
        (folder / f"{number:064x}-json.log.2.gz").write_bytes(gzip.compress(line.encode()))
    return folder


def test_each_container_is_a_source_by_its_name(site):
    container(site, 1, "web", "ERROR boom")
    container(site, 2, "db", "INFO fine")
    source = {"name": "docker", "format": "docker", "paths": [f"{site.logs}/*/*-json.log*"], "error_limit": 2}
    outcome = site.run(sources=[source])
    assert (found(outcome, "logs.errors", "docker/web").value, found(outcome, "logs.errors", "docker/web").state) == (3, "warning")
    assert found(outcome, "logs.errors", "docker/db").value == 0
    assert not [f for f in outcome.findings if f.state == "unknown"]


def test_a_container_that_logs_elsewhere_or_has_no_name_is_unknown(site):
    container(site, 1, None, "INFO fine")
    container(site, 2, "db", "", driver="journald")
    outcome = site.run(sources=[{"name": "docker", "format": "docker", "paths": [f"{site.logs}/*/*-json.log*"]}])
    assert found(outcome, "logs.unreadable", f"docker/{1:064x}"[:19]).state == "unknown"
    elsewhere = found(outcome, "logs.missing", "docker")
    assert (elsewhere.state, "container db logs with the driver journald" in elsewhere.evidence[0]) == ("unknown", True)


def test_a_host_with_many_containers_has_a_small_record(site):
    for number in range(100):
        container(site, number, f"worker-{number}", "ERROR boom" if number % 10 == 0 else "INFO fine")
    outcome = site.run(sources=[{"name": "docker", "format": "docker", "paths": [f"{site.logs}/*/*-json.log*"], "error_limit": 2}])
    assert [found(outcome, "logs.errors", f"docker/worker-{number}").state for number in (0, 1)] == ["warning", "ok"]
    assert len(json.dumps(outcome.record())) < 64 * 1024


def test_no_container_at_all_is_unknown(site):
    outcome = site.run(sources=[{"name": "docker", "format": "docker", "paths": [f"{site.logs}/*/*-json.log*"]}])
    assert [(f.id, f.state) for f in outcome.findings] == [("logs.missing", "unknown")]


# The journal ----------------------------------------------------------------------------------------------------------

JOURNALCTL = """#!/bin/sh
echo "$@" >>"$0.asked"
[ -e "$0.fails" ] && { echo "Failed to seek to cursor" >&2; exit 1; }
[ -e "$0.hint" ] && echo "Hint: You are currently not seeing messages from other users and the system." >&2
cat "$0.entries"
"""


@pytest.fixture
def journal(site, tmp_path, monkeypatch):
    """What journalctl writes; the real one is asked by the scenario ``logs``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "journalctl"
    program.write_text(JOURNALCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def entries(*days: float) -> None:
        lines = [
            {"__CURSOR": f"c{n}", "__REALTIME_TIMESTAMP": str(int((NOW - timedelta(days=day)).timestamp() * 1e6)), "PRIORITY": "3",
             "SYSLOG_IDENTIFIER": "app", "MESSAGE": "boom"} for n, day in enumerate(days)
        ]  # fmt: skip
        (folder / "journalctl.entries").write_text("".join(json.dumps(line) + "\n" for line in lines))

    entries(8, 6, 1)
    site.journal = {"name": "journal", "format": "journal", "paths": []}
    site.folder, site.entries = folder, entries
    return site


def test_the_journal_is_read_by_span_or_on_from_its_cursor(journal):
    assert found(journal.run(sources=[journal.journal]), "logs.errors", "journal").value == 2
    journal.run(sources=[{**journal.journal, "units": ["app.service"]}], only_new=True)
    journal.run(sources=[journal.journal], only_new=True)
    asked = (journal.folder / "journalctl.asked").read_text()
    assert f"--since=@{int((NOW - timedelta(days=7)).timestamp())} --unit=app.service" in asked
    assert "--after-cursor=c2" in asked


def test_a_journal_that_does_not_reach_back_a_week_is_unknown(journal, monkeypatch):
    monkeypatch.setattr(log_verdicts, "host_since", lambda: 0.0)
    assert found(journal.run(sources=[journal.journal]), "logs.journal_reach", "journal").state == "ok"
    journal.entries(2, 1)
    for kept, word in ((False, "Storage=persistent"), (True, "SystemMaxUse")):
        monkeypatch.setattr(log_verdicts, "is_persistent", partial(bool, kept))
        finding = found(journal.run(sources=[journal.journal]), "logs.journal_reach", "journal")
        assert (finding.state, finding.value, word in finding.advice) == ("unknown", 120.0, True)
    monkeypatch.setattr(log_verdicts, "host_since", (NOW - timedelta(days=2)).timestamp)
    assert found(journal.run(sources=[journal.journal]), "logs.journal_reach", "journal").state == "ok"


@pytest.mark.parametrize("trouble", ["fails", "hint"])
def test_a_journal_that_is_not_shown_whole_is_unknown(journal, trouble):
    journal.run(sources=[journal.journal], only_new=True)
    (journal.folder / f"journalctl.{trouble}").touch()
    finding = found(journal.run(sources=[journal.journal], only_new=True), "logs.unreadable", "journal")
    assert (finding.state, "journalctl" in finding.evidence[0]) == ("unknown", True)


def test_without_journalctl_the_journal_is_unknown(site, monkeypatch):
    monkeypatch.setattr(FixedHost, "which", lambda *_arguments: None)
    outcome = site.run(sources=[{"name": "journal", "format": "journal", "paths": []}])
    assert found(outcome, "logs.unreadable", "journal").state == "unknown"
    assert found(outcome, "logs.unparsed", "journal").state == "unknown"


# What was not looked at -----------------------------------------------------------------------------------------------


def test_nothing_matched_and_nothing_declared_are_unknown(site):
    assert [(f.id, f.state) for f in site.run().findings] == [("logs.missing", "unknown")]
    assert [(f.id, f.state) for f in site.run(sources=[]).findings] == [("logs.missing", "unknown")]


def test_what_cannot_be_understood_is_unknown_or_a_warning(site):
    site.write("a.jsonl", b"{broken\n" * 10)
    outcome = site.run(sources=[{"format": "json"}])
    assert found(outcome, "logs.unparsed").state == "unknown"
    assert not any(finding.id == "logs.errors" for finding in outcome.findings)
    site.write("a.jsonl", b"{broken\n" + record(1, "INFO") * 15)
    outcome = site.run(sources=[{"format": "json"}])
    assert (found(outcome, "logs.unparsed").state, found(outcome, "logs.unparsed").value) == ("warning", 6.25)


def test_truncated_gzip_is_named_and_counted_as_far_as_it_goes(site):
    path = site.write("a.jsonl.gz", b"".join(record(1, message=os.urandom(8).hex()) for _n in range(5000)))
    path.write_bytes(path.read_bytes()[:-5000])
    outcome = site.run()
    assert found(outcome, "logs.unreadable").state == "unknown"
    assert 100 < found(outcome, "logs.errors").value < 5000


def test_hostile_files(site):
    site.write("-rf.jsonl", record(1))
    site.write("new\nline.jsonl", record(1))
    (site.logs / "link.jsonl").symlink_to("/etc/passwd")
    (site.logs / "folder").mkdir()
    site.write("long.jsonl", b'{"timestamp": "' + b"x" * 5_000_000 + b'"}\n' + record(1) + b"\xff\xfe" + record(1))
    outcome = site.run()
    assert found(outcome, "logs.errors").value == 3
    assert found(outcome, "logs.unreadable").state == "unknown"
    assert found(outcome, "logs.unparsed").value == pytest.approx(40, abs=1)
    json.dumps(outcome.record()).encode()


@pytest.mark.slow
def test_a_record_of_100_mb_costs_no_memory_and_hides_no_other(site):
    """A record of JSON whose line is far longer than any buffer, between two that count."""
    with (site.logs / "long.jsonl").open("wb") as log:
        log.write(record(1) + b'{"timestamp": "2026-11-20T02:00:00Z", "level": "ERROR", "message": "')
        for _part in range(100):
            log.write(b"x" * 1_000_000)
        log.write(b'"}\n' + record(1))

    def look():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = site.run()
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        readers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before
        return 0 if found(outcome, "logs.errors").value == 2 and max(used, readers) < 40 * 1024 else 1

    assert processes.run(look) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"span_days": -1.0}, "span_days is -1"),
        ({"error_limit": -5}, "error_limit is -5"),
        ({"since": "yesterday"}, "ISO 8601"),
        ({"report": "reports/x.json"}, "absolute path"),
        ({"sources": [{"paths": ["logs/*.log"]}]}, "absolute patterns"),
        ({"sources": [{}, {}]}, "used 2 times"),
        ({"sources": [{"timezone": "Mars/North"}]}, "time zone"),
        ({"sources": [{"silence_hours": -1.0}]}, "silence_hours"),
        ({"sources": [{"error_limit": -1}]}, "error_limit is -1.*source app"),
        ({"sources": [{"brute_force_limit": 0}]}, "brute_force_limit of app"),
        ({"sources": [{"paths": []}]}, "paths of app are missing"),
        ({"sources": [{"format": "journal"}]}, "leave them out"),
        ({"sources": [{"units": ["nginx.service"]}]}, "only with format journal"),
        ({"sources": [{"format": "journal", "paths": [], "units": ["--vacuum-size=1"]}]}, "name of a systemd unit"),
        ({"sources": [{"trusted_proxies": ["proxy1"]}]}, "trusted_proxies of app"),
        ({"since": "2026-11-20T00:00:00Z", "until": "2026-11-19T00:00:00Z"}, "a time after since"),
        ({"until": "2026-11-19T00:00:00Z", "only_new": True}, "no end where only_new"),
    ],
)
def test_one_sentence_and_nothing_written(site, change, words):
    site.write("a.jsonl", record(1))
    with pytest.raises(InputError, match=words):
        site.run(**change)
    assert not site.state.exists()


def test_a_window_that_is_over_defers(site):
    site.write("a.jsonl", record(1))
    outcome = site.run(deadline=NOW.timestamp() + 5)
    assert (outcome.status, found(outcome, "logs.errors").state) == ("deferred", "unknown")


def test_self_test_notices_a_reader_that_sees_nothing_of_a_database(site, monkeypatch):
    site.write("a.jsonl", record(0.1, "INFO"))
    monkeypatch.setattr(log_line_counter, "database_event", lambda _text: ("", b""))
    assert {f.state for f in site.run(self_test=True).findings} == {"unknown"}


def test_self_test_notices_a_reader_that_sees_nothing(site, monkeypatch):
    site.write("a.jsonl", record(1))
    assert {f.state for f in site.run(self_test=True).findings} == {"ok"}
    for module in (log_line_counter, log_json_blocks):
        monkeypatch.setattr(module, "tags_of", lambda _text: ())
    assert {f.state for f in site.run(self_test=True).findings} == {"unknown"}


# Only what is new -----------------------------------------------------------------------------------------------------


def test_only_new_lines_across_rotation_compression_and_truncation(site):
    log = site.write("app.jsonl", record(1, message="first line") * 3)

    def errors() -> int:
        return found(site.run(only_new=True), "logs.errors").value

    assert errors() == 3
    assert errors() == 0
    with log.open("ab") as more:
        more.write(record(0.9, message="second") + record(0.9, message="half written")[:-9])
    assert errors() == 1
    with log.open("ab") as more:
        more.write(record(0.9, message="half written")[-9:])
    assert errors() == 1
    log.rename(site.logs / "app.jsonl.1")
    with (site.logs / "app.jsonl.1").open("ab") as more:
        more.write(record(0.8, message="written after the rotation"))
    site.write("app.jsonl", record(0.7, message="a new file"))
    assert errors() == 2
    rotated = site.logs / "app.jsonl.1"
    site.write("app.jsonl.1.gz", rotated.read_bytes())
    rotated.unlink()
    assert errors() == 0
    log.write_bytes(record(0.6, message="truncated and begun anew"))
    assert errors() == 1


def test_a_log_truncated_and_begun_with_the_same_words_is_read_anew(site):
    same = record(1, message="same words") * 20
    log = site.write("app.jsonl", same * 2)
    assert found(site.run(only_new=True), "logs.errors").value == 40
    log.write_bytes(same)
    assert found(site.run(only_new=True), "logs.errors").value == 20


# Several processes ----------------------------------------------------------------------------------------------------


def test_several_processes_count_the_same_as_one(site, monkeypatch):
    monkeypatch.setattr(log_scan, "SPLIT_BYTES", 1000)
    site.write("a.jsonl", b"".join(record(1, message=f"number {n}") for n in range(3000)))
    site.write("b.jsonl.gz", record(2) * 500)
    source = [Source("app", [f"{site.logs}/*"])]
    one, three = (scan(source, 0.0, NOW.timestamp(), workers=count)[0].tally for count in (1, 3))
    assert (one.lines, one.hours, one.tags, {k: v.count for k, v in one.templates.items()}) == (
        three.lines, three.hours, three.tags, {k: v.count for k, v in three.templates.items()},
    )  # fmt: skip
    assert one.lines == 3500


def test_a_reader_that_dies_is_no_empty_log(site, monkeypatch):
    monkeypatch.setattr(log_scan, "SPLIT_BYTES", 1000)
    site.write("a.jsonl", record(1) * 3000)
    parent = os.getpid()
    real = log_scan._read

    def die(*arguments):
        return real(*arguments) if os.getpid() == parent else os._exit(9)

    monkeypatch.setattr(log_scan, "_read", die)
    with pytest.raises(MaintenanceError, match="nothing was counted"):
        scan([Source("app", [f"{site.logs}/*"])], 0.0, NOW.timestamp(), workers=2)


def test_a_copy_under_another_name_is_another_file(site):
    path = site.write("a.jsonl", record(1))
    shutil.copy(path, site.logs / "b.jsonl")
    assert found(site.run(), "logs.errors").value == 2
