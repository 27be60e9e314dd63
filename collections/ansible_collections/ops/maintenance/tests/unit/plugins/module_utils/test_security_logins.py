# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
import time
from array import array
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import log_journal, security_attempts, security_login_sources, security_logins
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_attempts import Attempt, AuthReader, JsonReader
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")


class FixedHost(Host):
    def now(self):
        return NOW


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory, monkeypatch):
    """A folder of its own for what the next run is to know, and a host so young that no log can reach further back."""
    monkeypatch.setattr(log_journal, "host_since", lambda: 4e9)
    monkeypatch.setenv("TEST_STATE_DIR", str(tmp_path_factory.mktemp("state")))


def parameters(**given):
    return filled({**security_logins.OPTIONS, "state_dir": {"type": "path"}}, {"state_dir": os.environ["TEST_STATE_DIR"], **given})


def reviewed(journal="false", **given):
    review = Review(parameters(journal=journal, **given), FixedHost(), False, NOW)
    return {finding.id.split(".")[1]: finding for finding in security_logins.look(review)}


def record(days_ago=1.0, seconds=0, **fields):
    moment = NOW - timedelta(days=days_ago) + timedelta(seconds=seconds)
    fields = {"event": "login_failed", "username": "mia", "client_ip": "203.0.113.9", **fields}
    return json.dumps({"timestamp": moment.isoformat(), "level": "WARNING", **fields})


def source(tmp_path, lines, name="app.jsonl", **more):
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return {"name": "app", "paths": [str(tmp_path / "*.jsonl")], **more}


def test_only_this_week_counts_and_compressed_logs_count_too(tmp_path):
    """The document greps the whole content of the plain files."""
    old, new = [record(30) for _n in range(100)], [record(2) for _n in range(3)]
    declared = source(tmp_path, old + new)
    with gzip.open(tmp_path / "app-20261115.jsonl.gz", "wt") as rotated:
        rotated.write("\n".join([record(5)] * 4 + [record(8)] * 50) + "\n")
    found = reviewed(login_sources=[declared])["failed_logins"]
    assert (found.value, found.state) == (7, "ok")


def test_a_file_and_its_compressed_twin_count_once(tmp_path):
    declared = source(tmp_path, [record()] * 3)
    with gzip.open(tmp_path / "app.jsonl.gz", "wt") as twin:
        twin.write("\n".join([record()] * 3) + "\n")
    assert reviewed(login_sources=[declared])["failed_logins"].value == 3


@pytest.mark.parametrize(("count", "state"), [(50, "ok"), (51, "warning"), (101, "critical")])
def test_more_than_fifty_is_too_many(tmp_path, count, state):
    declared = source(tmp_path, [record(seconds=i * 600) for i in range(count)])
    assert reviewed(login_sources=[declared], failed_logins_critical=100)["failed_logins"].state == state


def test_accounts_and_addresses_are_named(tmp_path):
    lines = [record(username="root", client_ip="198.51.100.7:4711")] * 3 + [record(client_ip="::ffff:198.51.100.7")]
    found = reviewed(login_sources=[source(tmp_path, lines)])["failed_logins"]
    assert "accounts: root (3), mia (1)" in found.evidence
    assert "address 198.51.100.7: 4 failures" in found.evidence


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({"event": "auth_failure"}, True),
        ({"event": "login_success", "message": "after 3 failed logins"}, False),
        ({"event": "request", "message": "Authentication failed for user 'mia' from 203.0.113.9"}, True),
        ({"event": None, "message": "Invalid password for mia"}, True),
        ({"event": None, "message": "login failed: wrong password"}, True),
        ({"event": None, "message": "author update failed"}, None),
        ({"event": "backup_failed", "message": "disk full"}, None),
        ({"event": None, "message": "User mia logged in"}, False),
    ],
)
def test_records_are_recognised_by_event_then_message(fields, failed):
    declared = parameters(login_sources=[{"name": "a", "paths": ["/a"]}])["login_sources"][0]
    attempt = JsonReader(declared).record({"username": "mia", **fields})
    assert (attempt and attempt.failed) == failed


def test_own_patterns_and_nested_fields(tmp_path):
    line = json.dumps({"time": NOW.timestamp() - 60, "event": "E4711", "context": {"user": "mia", "ip": "2001:db8::1"}})
    declared = source(tmp_path, [line] * 2, failure_pattern="^E4711$")
    found = reviewed(login_sources=[declared])["failed_logins"]
    assert (found.value, found.evidence[2]) == (2, "address 2001:db8::1: 2 failures")


def test_brute_force_is_a_burst_of_one_address(tmp_path):
    burst = [record(seconds=i * 20, client_ip="192.0.2.66") for i in range(12)]
    slow = [record(days_ago=6, seconds=i * 3600, client_ip="192.0.2.7") for i in range(12)]
    found = reviewed(login_sources=[source(tmp_path, burst + slow)])["brute_force"]
    assert (found.state, found.value) == ("warning", 1)
    assert found.evidence[0].startswith("192.0.2.66: up to 12")


def test_a_success_after_failures_is_critical_in_whatever_order_the_lines_stand(tmp_path):
    success = record(seconds=500, event="login_success")
    failures = [record(seconds=i) for i in range(5)]
    found = reviewed(login_sources=[source(tmp_path, [success, *failures])])["success_after_failures"]
    assert found.state == "critical"
    assert "203.0.113.9" in found.evidence[0]
    early = record(seconds=-500, event="login_success")
    assert reviewed(login_sources=[source(tmp_path, [early, *failures])])["success_after_failures"].state == "ok"


def test_very_many_failures_and_successes_of_one_address_take_no_time():
    """All failures added up for each success would be a hundred million steps."""
    tally = security_login_sources.Tally(0, 10**9)
    tally.failures["192.0.2.9"] = array("I", range(10_000))
    tally.successes["192.0.2.9"] = [(moment, "mia") for moment in range(10_000)]
    begun = time.process_time()
    assert security_logins.intrusions(tally, 60_000) == []
    assert time.process_time() - begun < 1


def test_nothing_to_read_is_unknown_for_every_question(tmp_path):
    found = reviewed(login_sources=[{"name": "app", "paths": [str(tmp_path / "*.jsonl")]}])
    assert {finding.state for finding in found.values()} == {"unknown"}
    assert {finding.state for finding in reviewed().values()} == {"unknown"}


@pytest.mark.parametrize("spoiled", ["damaged", "undated", "broken", "plain", "folder"])
def test_a_source_that_was_read_in_part_is_never_ok(tmp_path, spoiled):
    declared = source(tmp_path, [record()])
    if spoiled == "damaged":
        (tmp_path / "old.jsonl.gz").write_bytes(gzip.compress((record(30) + "\n").encode() * 1000)[:-20])
    elif spoiled == "undated":
        (tmp_path / "b.jsonl").write_text('{"event": "login_failed"}\n')
    elif spoiled == "broken":
        (tmp_path / "b.jsonl").write_text(record() + "\n" + record()[:-9] + "\n")
    elif spoiled == "plain":
        (tmp_path / "b.jsonl").write_text("Nov 21 08:00:00 this is not JSON\n")
    else:
        declared["paths"].append(str(tmp_path))
    found = reviewed(login_sources=[declared])["failed_logins"]
    assert found.state == "unknown"
    assert found.not_covered
    assert found.value >= 1


def test_lines_that_attack_the_report_are_data(tmp_path):
    evil = "<script>alert(1)</script>\x1b[2J\nok\u202e"
    found = reviewed(login_sources=[source(tmp_path, [record(username=evil, client_ip=evil)] * 3)])["failed_logins"]
    kept = json.dumps(found.as_dict())
    assert found.value == 3
    assert "\\u001b" not in kept
    assert "\\u202e" not in kept
    assert all("\n" not in line for line in found.evidence)


AUTH = """\
2026-11-20T10:00:00.123456+00:00 web sshd[101]: Invalid user oracle from 192.0.2.5 port 4000
2026-11-20T10:00:01.123456+00:00 web sshd[101]: Failed none for invalid user oracle from 192.0.2.5 port 4000 ssh2
2026-11-20T10:00:02.123456+00:00 web sshd[101]: Failed password for invalid user oracle from 192.0.2.5 port 4000 ssh2
2026-11-20T10:00:03.123456+00:00 web sshd[101]: message repeated 2 times: [ Failed password for invalid user oracle from 192.0.2.5 port 4000 ssh2]
2026-11-20T10:00:04.123456+00:00 web sshd[101]: Connection closed by invalid user oracle 192.0.2.5 port 4000 [preauth]
2026-11-20T10:01:00.123456+00:00 web sshd-session[102]: Connection closed by authenticating user root 192.0.2.6 port 4001 [preauth]
2026-11-20T10:02:00.123456+00:00 web sshd[103]: Accepted publickey for mia from 198.51.100.1 port 4002 ssh2: ED25519 SHA256:abc
Nov 20 10:03:00 web sudo: pam_unix(sudo:auth): authentication failure; logname=mia uid=1000 euid=0 tty=/dev/pts/0 ruser=mia rhost=  user=mia
Nov 20 10:03:01 web sudo:      mia : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls
Nov 20 10:04:00 web sshd[104]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.6
Nov  1 10:04:00 web sshd[105]: Failed password for root from 192.0.2.6 port 4003 ssh2
"""


def test_an_auth_log_counts_attempts_not_lines(tmp_path):
    (tmp_path / "auth.log").write_text(AUTH)
    with gzip.open(tmp_path / "auth.log.2.gz", "wt") as rotated:
        rotated.write("Nov 15 10:00:00 web sshd[9]: Failed password for root from 192.0.2.9 port 1 ssh2\n")
    declared = {"name": "auth", "paths": [str(tmp_path / "auth.log")], "format": "auth"}
    found = reviewed(login_sources=[declared])["failed_logins"]
    assert found.value == 3 + 1 + 1 + 1
    assert "accounts: oracle (3), root (2), mia (1)" in found.evidence
    assert "1 successful" in found.summary
    assert found.state == "ok"


@pytest.mark.parametrize(
    ("program", "message", "account"),
    [
        ("login", "pam_unix(login:session): session opened for user mia(uid=1000) by LOGIN(uid=0)", "mia"),
        ("login", "pam_unix(login:session): session opened for user root by LOGIN(uid=0)", "root"),
        ("su", "pam_unix(su-l:session): session opened for user root(uid=0) by mia(uid=1000)", "root"),
        ("sudo", "pam_unix(sudo-i:session): session opened for user root(uid=0) by mia(uid=1000)", "root"),
        # no log-ins: root becoming another, one command, a job, and a text that only tells of it
        ("su", "pam_unix(su:session): session opened for user postgres(uid=110) by (uid=0)", None),
        ("sudo", "pam_unix(sudo:session): session opened for user root(uid=0) by mia(uid=1000)", None),
        ("CRON", "pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)", None),
        ("sudo", "mia : COMMAND=/bin/echo pam_unix(login:session): session opened for user eva(uid=1) by LOGIN(uid=0)", None),
    ],
)
def test_log_ins_at_the_console_and_becoming_another_are_successes(tmp_path, program, message, account):
    assert AuthReader().message(program, "7", message) == (account and Attempt(False, account, ""))
    (tmp_path / "auth.log").write_text(f"Nov 20 10:03:00 web {program}[7]: {message}\n")
    found = reviewed(login_sources=[{"name": "auth", "paths": [str(tmp_path / "auth.log")], "format": "auth"}])["failed_logins"]
    assert f"{int(account is not None)} successful" in found.summary


@pytest.mark.parametrize("text", ["", "Nov 20 10:03:00 web CRON[7]: nothing\n", AUTH])
def test_an_auth_log_that_was_emptied_is_never_ok_unless_host_or_log_are_as_young(tmp_path, monkeypatch, text):
    (tmp_path / "auth.log").write_text(text)
    declared = {"name": "auth", "paths": [str(tmp_path / "auth.log")], "format": "auth"}
    born = {"host": 0.0, "folder": 0.0}
    monkeypatch.setattr(log_journal, "host_since", lambda: born["host"])
    monkeypatch.setattr(FixedHost, "run", lambda _self, argv, **_: Ran(argv, 0, f"{born['folder']:.0f}\n", ""), raising=False)
    reaches = text == AUTH  # its last line is of the first of November
    for which in ("", "host", "folder"):
        born.update(dict.fromkeys(born, 0.0), **({which: NOW.timestamp()} if which else {}))
        found = reviewed(login_sources=[declared])
        states = {found[name].state for name in ("failed_logins", "brute_force", "success_after_failures", "brute_force_accounts")}
        assert states == ({"ok"} if which or reaches else {"unknown"})
        assert reaches or which or "auth" in found["failed_logins"].not_covered


def test_a_client_cannot_put_another_address_into_its_name():
    line = "x sshd[1]: Failed password for invalid user a from 127.0.0.1 port 1 ssh2 from 192.0.2.5 port 4000 ssh2"
    assert AuthReader().line(line) == Attempt(True, "a from 127.0.0.1 port 1 ssh2", "192.0.2.5")


class JournalHost(FixedHost):
    def __init__(self, records):
        self.records, self.asked = records, []

    def lines(self, argv, **_):
        self.asked.append(list(argv))
        yield from (json.dumps(one).encode() + b"\n" for one in self.records)


def journal_record(message, **more):
    stamp = str(int((NOW - timedelta(hours=5)).timestamp() * 1e6))
    return {"__REALTIME_TIMESTAMP": stamp, "SYSLOG_IDENTIFIER": "sshd", "_PID": "7", "MESSAGE": message, **more}


def test_the_journal_is_read_when_no_auth_log_is(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "system.journal").write_bytes(b"")
    monkeypatch.setattr(security_login_sources, "_JOURNAL_FOLDERS", (str(tmp_path),))
    text = "Failed password for root from 192.0.2.5 port 4000 ssh2"
    host = JournalHost([journal_record(text), journal_record(list(text.encode() + b"\xff")), journal_record(None)])
    review = Review(parameters(), host, False, NOW)
    found = security_logins.look(review)[0]
    assert (found.value, found.evidence[0]) == (2, "sources: journal")
    assert f"--since=@{int((NOW - timedelta(days=7)).timestamp())}" in host.asked[1]
    assert "journal begins at" in found.not_covered
    (tmp_path / "auth.log").write_text(AUTH)
    declared = {"name": "auth", "paths": [str(tmp_path / "auth.log")], "format": "auth"}
    review = Review(parameters(login_sources=[declared]), JournalHost([journal_record(text)]), False, NOW)
    assert security_logins.look(review)[0].value == 5  # not counted twice


def test_a_host_without_rsyslog_is_judged_by_its_journal_alone(tmp_path, monkeypatch):
    """The document greps a file that such a host has not; no match makes grep end with 1."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "system.journal").write_bytes(b"")
    monkeypatch.setattr(security_login_sources, "_JOURNAL_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(log_journal, "host_since", lambda: NOW.timestamp() - 5 * 3600)
    absent = {"name": "auth", "paths": [str(tmp_path / "auth.log")], "format": "auth"}
    records = [journal_record("Failed password for root from 192.0.2.5 port 4000 ssh2")]
    found = security_logins.look(Review(parameters(login_sources=[absent]), JournalHost(records), True, NOW))[0]
    assert (found.state, found.value) == ("ok", 1)
    application = {"name": "app", "paths": [str(tmp_path / "app.jsonl")]}
    found = security_logins.look(Review(parameters(login_sources=[absent, application]), JournalHost(records), True, NOW))[0]
    assert (found.state, "app: no file matches" in found.not_covered) == ("unknown", True)
    monkeypatch.setattr(log_journal, "host_since", lambda: 0.0)
    assert security_logins.look(Review(parameters(login_sources=[absent]), JournalHost(records), True, NOW))[0].state == "unknown"


def test_a_journal_that_is_asked_for_and_absent_is_not_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(security_login_sources, "_JOURNAL_FOLDERS", (str(tmp_path / "absent"),))
    declared = source(tmp_path, [record()])
    assert reviewed(journal="true", login_sources=[declared])["failed_logins"].state == "unknown"
    assert reviewed(journal="auto", login_sources=[declared])["failed_logins"].state == "ok"


@given(st.lists(st.integers(0, 5000), max_size=60), st.integers(2, 8), st.integers(1, 900))
def test_bursts_agree_with_looking_at_every_span(times, failures, seconds):
    most = max((sum(start <= other <= start + seconds for other in times) for start in times), default=0)
    assert security_logins.bursts(times, failures, seconds) == (most if most >= failures else 0)


@given(st.binary(max_size=300))
def test_no_line_stops_the_readers(raw):
    AuthReader().line(raw.decode("utf-8", "replace"))


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review(parameters(), FixedHost(), False, NOW)
    assert security_logins.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_attempts.AuthReader, "_sshd", lambda *_: None)
    assert "auth" in security_logins.passes_bad_sample(review)
