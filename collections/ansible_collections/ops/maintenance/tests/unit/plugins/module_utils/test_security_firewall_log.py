# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_firewall_log
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.log_lines import Clock
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-20T09:00:00+00:00")
DETAILS = "MAC=00:11 SRC={address} DST=192.0.2.1 LEN=60 TOS=0x00 TTL=50 ID=1 DF PROTO=TCP SPT=40000 DPT={port} WINDOW=1 SYN URGP=0"


def packet(now=NOW, prefix="[UFW BLOCK] ", address="198.51.100.7", port=23, arrives="eth0", leaves=""):
    moment = (now - timedelta(hours=2)).isoformat()
    return f"{moment} web kernel: [12345.678901] {prefix}IN={arrives} OUT={leaves} {DETAILS.format(address=address, port=port)}\n"


class Firewall:
    def __init__(self, folder):
        self.folder, self.log = folder, folder / "ufw.log"

    def review(self, lines, now=NOW, check_mode=False, paths=None, **more):
        self.log.write_text("".join(lines), errors="surrogateescape")
        os.utime(self.log, (now.timestamp(), now.timestamp()))
        source = {"name": "host", "paths": paths or [str(self.log)], "least_a_day": 10.0, **more}
        spec = {**security_firewall_log.OPTIONS, "state_dir": {"type": "path"}, "days": {"type": "int"}}
        params = filled(spec, {"firewall_logs": [source], "state_dir": str(self.folder / "state"), "days": 1})
        assert security_firewall_log.validate(params) == []
        [found] = security_firewall_log.look(Review(params, Host(), check_mode, now))
        return found


@pytest.fixture
def firewall(tmp_path):
    return Firewall(tmp_path)


def test_what_was_refused_is_told_by_address_and_port(firewall):
    lines = [packet(port=port) for port in (22, 23, 23)] + [packet(address="203.0.113.9")]
    lines += [
        packet(prefix="[UFW ALLOW] ", address="192.0.2.50"),
        packet(now=NOW - timedelta(days=3), address="192.0.2.51"),
        "other line\n",
    ]
    found = firewall.review(lines)
    assert (found.state, found.value) == ("ok", 4)
    assert found.evidence == ["198.51.100.7: 3 refused, 2 ports", "203.0.113.9: 1 refused, 1 ports"]


def test_a_source_that_is_not_there_or_logs_nothing_is_never_ok(firewall, tmp_path):
    """netpost-sec-10: on a serverless platform there is no host file; the provider's log is to be exported."""
    absent = firewall.review([], paths=[str(tmp_path / "absent*.log")])
    assert (absent.state, "source not available" in absent.summary) == ("unknown", True)
    assert firewall.review([]).state == "unknown"
    assert firewall.review(["2026-11-20T08:00:00Z web kernel: usb attached\n"]).state == "unknown"
    assert firewall.review([packet().replace("2026-11-20T", "when ")]).state == "unknown"


def test_far_more_than_in_earlier_periods_is_unusual_and_check_mode_keeps_nothing(firewall):
    for day in range(4):
        now = NOW + timedelta(days=day)
        assert firewall.review([packet(now)] * 20, now).state == "ok"
    now = NOW + timedelta(days=4)
    assert firewall.review([packet(now)] * 50, now, check_mode=True).state == "ok"
    before = (firewall.folder / "state/security_firewall_log.json").read_text()
    found = firewall.review([packet(now)] * 70, now, check_mode=True)
    assert (found.state, found.evidence[0]) == ("warning", "refused: 70.0 a day, usually 20.0")
    assert (firewall.folder / "state/security_firewall_log.json").read_text() == before


def test_what_the_host_itself_was_refused_is_a_warning(firewall):
    found = firewall.review([packet(), packet(arrives="", leaves="eth0", port=25)])
    assert (found.state, found.evidence[0]) == ("warning", "this host itself was refused tcp/25, 1 time")


def test_a_providers_json_lines_are_read(firewall):
    moment = (NOW - timedelta(hours=1)).isoformat()
    records = [
        {"timestamp": moment, "action": "block", "clientIp": "198.51.100.7"},
        {"timestamp": moment, "action": "challenge", "client_ip": "2001:db8::1"},
        {"timestamp": moment, "action": "allow", "client_ip": "192.0.2.50"},
    ]
    found = firewall.review([json.dumps(record) + "\n" for record in records])
    assert (found.state, found.value, list(found.evidence)) == ("ok", 2, ["198.51.100.7: 1 refused", "2001:db8::1: 1 refused"])


def test_a_file_and_its_compressed_twin_count_once(firewall):
    rotated = firewall.folder / "ufw.log.1"
    rotated.write_text(packet())
    (firewall.folder / "ufw.log.1.gz").write_bytes(gzip.compress(packet().encode()))
    (firewall.folder / "ufw.log.2.gz").write_bytes(gzip.compress(packet(address="203.0.113.9").encode()))
    for path in firewall.folder.glob("ufw.log.*"):
        os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    assert firewall.review([packet()]).value == 3


def test_lines_that_attack_the_report_are_data(firewall):
    found = firewall.review(
        [packet(address="\x1b[2J<script>"), packet(arrives="", leaves="e", port=25).replace("PROTO=TCP", "PROTO=\x1b[31m")]
    )
    assert "\x1b" not in json.dumps(found.as_dict())
    assert "(no address): 1 refused, 1 ports" in found.evidence


def test_memory_is_bounded():
    refused = security_firewall_log.Refused()
    for number in range(6000):
        refused.add(f"a{number}", "tcp/1")
    for number in range(1000):
        refused.add("a1", f"tcp/{number}")
    assert (len(refused.by), refused.total, len(refused.ports["a1"])) == (5001, 7000, 200)


@given(st.binary())
def test_no_line_stops_the_reader(raw):
    source = filled(security_firewall_log.SOURCE, {"name": "x", "paths": []})
    for line in (raw, b"[UFW BLOCK] IN=eth0 OUT= SRC=" + raw, b"{" + raw):
        security_firewall_log._take(source, line, Clock(NOW.timestamp()), (0, NOW.timestamp()), security_firewall_log.Refused())


def test_wrong_input_is_said():
    source = {"name": "x", "paths": ["ufw.log"], "blocked_pattern": "(", "factor": 0.5, "least_a_day": -1.0}
    said = " ".join(security_firewall_log.validate(filled(security_firewall_log.OPTIONS, {"firewall_logs": [source]})))
    for part in ("'ufw.log'", "not a regular expression", "factor is 0.5", "least_a_day is -1.0"):
        assert part in said
    more = [{"name": "y", "paths": [], "timezone": "Mars/Base"}]
    assert "Mars/Base" in " ".join(security_firewall_log.validate(filled(security_firewall_log.OPTIONS, {"firewall_logs": more})))


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({"state_dir": "", "days": 7}, Host(), True, NOW)
    assert security_firewall_log.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_firewall_log, "_packet", lambda *_: None)
    assert security_firewall_log.passes_bad_sample(review)


def test_records_that_do_not_say_what_was_done_are_not_called_let_in(firewall):
    moment = (NOW - timedelta(hours=1)).isoformat()
    known = {"timestamp": moment, "action": "block", "client_ip": "198.51.100.7"}
    renamed = {"timestamp": moment, "firewallAction": "block", "client_ip": "198.51.100.7"}
    assert firewall.review([json.dumps(known) + "\n"]).state == "ok"
    found = firewall.review([json.dumps(known) + "\n", json.dumps(renamed) + "\n"])
    assert found.state == "unknown"
    assert "1 record without any of action_fields" in found.not_covered
    assert firewall.review([json.dumps(renamed) + "\n"], action_fields=["firewallAction"]).value == 1


@pytest.mark.parametrize(("lines", "counted"), [([packet()], [1]), ([], []), (["{}\n"], [])])
def test_what_is_not_known_is_no_number_for_the_next_comparison(tmp_path, lines, counted):
    (tmp_path / "ufw.log").write_text("".join(lines))
    os.utime(tmp_path / "ufw.log", (NOW.timestamp(), NOW.timestamp()))
    source = filled(security_firewall_log.SOURCE, {"name": "host", "paths": [str(tmp_path / "ufw.log")]})
    review = Review({"firewall_logs": [source], "state_dir": str(tmp_path / "state"), "days": 1}, Host(), True, NOW)
    security_firewall_log.look(review)
    assert [metric.value for metric in review.metrics] == counted
