# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notices over real sockets: a mail relay and a web server, small but true, in threads."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ops.maintenance.plugins.action import notify
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import JournalWriter

WEEKLY = {"weekly": {"rule": "FREQ=WEEKLY;BYDAY=SA;BYHOUR=2;BYMINUTE=0", "duration_minutes": 240, "timezone": "America/Los_Angeles"}}
START = datetime(2026, 11, 28, 10, tzinfo=timezone.utc)
DAY_BEFORE = START - timedelta(hours=24)
END = START + timedelta(hours=4)
SECRET = "hunter2-token"


class Relay(socketserver.ThreadingTCPServer):
    """As much of SMTP as one notice needs; it refuses recipients whose name begins with `gone`."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.mails: list[tuple[list[str], str]] = []
        self.refuse: tuple[str, ...] = ("gone",)


class Conversation(socketserver.StreamRequestHandler):
    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def handle(self) -> None:
        to: list[str] = []
        self.say("220 relay")
        for raw in self.rfile:
            said = raw.decode().strip()
            verb = said[:4].upper()
            if verb == "EHLO":
                self.wfile.write(b"250-relay\r\n250 AUTH PLAIN\r\n")
            elif verb == "AUTH":
                self.say(f"535 {SECRET} is wrong")
            elif verb == "RCPT":
                name = said.partition("<")[2].partition(">")[0]
                if name.startswith(self.server.refuse):
                    self.say("550 no such person")
                else:
                    to.append(name)
                    self.say("250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append((to, b"".join(lines).decode()))
                to = []
                self.say("250 ok")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(body)))
        self.send_response(self.server.answer)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def web() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.got, server.answer = [], 204
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPS_MAINTENANCE_JOURNAL", str(tmp_path / "journal/announce-1.jsonl"))
    monkeypatch.setenv("OPS_MAINTENANCE_RUN_ID", "weekly-1")
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "journal").mkdir(mode=0o700)
    return tmp_path


def mail(relay: Relay, *to: str, **more: Any) -> dict[str, Any]:
    return {"kind": "mail", "host": "127.0.0.1", "port": relay.server_address[1], "sender": "ops@shop.internal", "to": list(to), **more}


def tell(channels: list[dict[str, Any]], now: datetime = DAY_BEFORE, check_mode: bool = False, **given: Any) -> Any:
    defaults = {name: spec.get("default") for name, spec in notify.OPTIONS.items()}
    return notify.tell("shop", {**defaults, "windows": WEEKLY, "title": "Shop", **given, "channels": channels}, now, check_mode)


def states(outcome: Any) -> list[tuple[str, str]]:
    return [(finding.id, finding.state) for finding in outcome.findings]


def test_a_window_is_announced_24_hours_ahead_once_with_all_that_is_asked_fossa_pre_02(relay):
    known = {"services": ["checkout"], "contacts": {"owner": "Jo, +1 555"}}
    first = tell([mail(relay, "a@shop.internal", "b@shop.internal")], **known)
    assert (first.status, states(first)) == ("changed", [("notification.delivery", "ok")])
    assert [(metric.name, metric.value) for metric in first.metrics] == [("notification.lead", 24 * 3600)]
    [(to, text)] = relay.mails
    assert to == ["a@shop.internal", "b@shop.internal"]
    for said in (
        "Subject: Planned maintenance of Shop: Saturday 2026-11-28 02:00 PST",
        "Window starts: Saturday 2026-11-28 02:00 PST (2026-11-28 10:00 UTC)",
        "Window ends: Saturday 2026-11-28 06:00 PST (2026-11-28 14:00 UTC)",
        *("Planned length: 4 hours", "Services affected: checkout", "- patching", "- database maintenance", "- owner: Jo, +1 555"),
    ):
        assert said in text
    again = tell([mail(relay, "a@shop.internal", "b@shop.internal")], DAY_BEFORE + timedelta(hours=1), **known)
    assert (again.status, states(again), len(relay.mails)) == ("ok", [("notification.delivery", "ok")], 1)
    next_week = tell([mail(relay, "a@shop.internal")], DAY_BEFORE + timedelta(days=7))
    assert (next_week.status, len(relay.mails)) == ("changed", 2)


def test_earlier_than_that_nothing_is_sent_and_it_says_so(relay):
    early = tell([mail(relay, "a@shop.internal")], DAY_BEFORE - timedelta(seconds=1))
    assert (early.status, states(early), relay.mails) == ("ok", [("notification.window", "ok")], [])
    assert "Saturday 2026-11-28 02:00 PST" in early.summary


def test_a_blackout_is_not_announced_and_no_window_is_unknown(relay):
    blackouts = [{"first": "2026-11-28", "reason": "holiday"}]
    assert states(tell([mail(relay, "a@shop.internal")], blackouts=blackouts)) == [("notification.window", "ok")]
    assert states(tell([mail(relay, "a@shop.internal")], windows={})) == [("notification.window", "unknown")]
    assert relay.mails == []


def test_without_a_channel_it_is_unknown_that_anybody_knows():
    outcome = tell([])
    assert (outcome.status, states(outcome)) == ("ok", [("notification.delivery", "unknown")])


def test_check_mode_says_what_is_due_and_leaves_no_trace(relay, folder):
    assert tell([mail(relay, "a@shop.internal")], check_mode=True).status == "due"
    assert (relay.mails, list((folder / "journal").iterdir())) == ([], [])
    tell([mail(relay, "a@shop.internal")])
    assert tell([mail(relay, "a@shop.internal")], check_mode=True).status == "ok"


def test_who_was_refused_is_told_and_alone_gets_it_again(relay):
    both = [mail(relay, "a@shop.internal", "gone@shop.internal")]
    first = tell(both)
    assert states(first) == [("notification.delivery", "critical")]
    assert first.findings[0].evidence == ["gone@shop.internal: the relay answered 550 no such person"]
    assert states(tell(both)) == [("notification.delivery", "critical")]
    relay.refuse = ("nobody",)
    assert states(tell(both)) == [("notification.delivery", "ok")]
    assert [to for to, _text in relay.mails] == [["a@shop.internal"], ["gone@shop.internal"]]


def test_a_relay_that_is_down_is_critical_and_the_other_channels_go_on(relay, folder):
    down = {**mail(relay, "a@shop.internal"), "port": 1}
    outcome = tell([down, {"kind": "file", "path": str(folder / "status.txt")}])
    assert states(outcome) == [("notification.delivery", "critical"), ("notification.delivery", "ok")]
    assert "refused" in outcome.summary
    assert (folder / "status.txt").read_text().startswith("Planned maintenance of Shop: ")


@pytest.mark.parametrize(
    "channel",
    [
        {"kind": "mail", "host": "127.0.0.1", "sender": "ops@shop.internal", "to": []},
        {"kind": "mail", "host": "mail.invalid", "sender": "a\nBcc: all@shop.internal", "to": ["a@shop.internal"]},
        {"kind": "mail", "host": "mail.example", "sender": "ops@shop.internal", "to": ["a@shop.internal"], "user": "ops"},
        {"kind": "webhook", "url": f"file:///etc/{SECRET}"},
        {"kind": "webhook", "url": f"http://127.0.0.1:{SECRET}/"},
        {"kind": "webhook", "url_file": "/nowhere"},
        {"kind": "file", "path": "relative.txt"},
        {"kind": "file", "path": "/proc/notice.txt"},
    ],
)
def test_a_channel_that_cannot_work_is_a_critical_finding_without_its_secret(channel):
    outcome = tell([channel])
    assert states(outcome) == [("notification.delivery", "critical")]
    assert SECRET not in json.dumps([outcome.record(), outcome.returned])


def test_passwords_and_addresses_of_webhooks_are_in_no_result(relay, web, folder):
    (folder / "password").write_text(f"{SECRET}\n")
    (folder / "url").write_text(f"http://127.0.0.1:{web.server_address[1]}/{SECRET}\n")
    hook = {"kind": "webhook", "url_file": str(folder / "url")}
    outcome = tell([mail(relay, "a@shop.internal", user="ops", password_file=str(folder / "password")), hook])
    assert states(outcome) == [("notification.delivery", "critical"), ("notification.delivery", "ok")]
    assert SECRET not in json.dumps([outcome.record(), outcome.returned])
    assert SECRET not in (folder / "journal/notices.json").read_text()
    [(path, told)] = web.got
    assert (path, told["kind"], told["system"]) == (f"/{SECRET}", "announcement", "shop")


@pytest.mark.parametrize("answer", [302, 404, 500])
def test_a_webhook_that_does_not_accept_is_critical_and_a_redirect_is_not_delivery(web, answer):
    web.answer = answer
    outcome = tell([{"kind": "webhook", "url": f"http://127.0.0.1:{web.server_address[1]}/"}])
    assert states(outcome) == [("notification.delivery", "critical")]
    assert str(answer) in outcome.summary


def test_a_hostile_reason_is_one_harmless_line(relay):
    reason = "late\r\n.\r\nMAIL FROM:<x>\nBcc: all@shop.internal \x1b[2J <!channel> @here {{ 1 + 1 }} \udcff" + "x" * 9999
    given = {"kind": "extension", "new_end": "2026-11-28T07:00", "reason": reason, "title": "Shop\nBcc: all@shop.internal"}
    outcome = tell([mail(relay, "a@shop.internal")], END + timedelta(minutes=5), **given)
    assert states(outcome) == [("notification.delivery", "ok")]
    [(to, text)] = relay.mails
    assert to == ["a@shop.internal"]
    assert "Bcc" not in [line.partition(":")[0] for line in text.splitlines()]
    [shown] = [line for line in outcome.returned["notice"].splitlines() if line.startswith("Reason: late")]
    assert "{{ 1 + 1 }}" in shown
    assert [bad for bad in ("\x1b", "<!", "@here", "\udcff") if bad in shown] == []
    assert len(shown) <= 501


def test_an_extension_tells_the_revised_timeline_once_for_each_new_end(relay):
    during = START + timedelta(hours=3)
    given = {"kind": "extension", "reason": "VACUUM is slow"}
    for new_end in ("2026-11-28T07:00", "2026-11-28T15:00:00+00:00", "2026-11-28T08:00"):
        assert states(tell([mail(relay, "a@shop.internal")], during, new_end=new_end, **given)) == [("notification.delivery", "ok")]
    assert len(relay.mails) == 2  # 15:00 UTC is 07:00 there
    assert "Expected to be over: Saturday 2026-11-28 07:00 PST (2026-11-28 15:00 UTC)" in relay.mails[0][1]
    assert "Reason: VACUUM is slow" in relay.mails[0][1]


@pytest.mark.parametrize("new_end", ["", "soon", "2026-11-28T06:00", "2026-11-28T04:00"])
def test_an_extension_to_no_later_time_is_refused(relay, new_end):
    with pytest.raises(InputError, match="notification_new_end"):
        tell([mail(relay, "a@shop.internal")], START + timedelta(hours=3), kind="extension", new_end=new_end)
    assert relay.mails == []


def test_an_overrun_is_told_once_for_the_system_and_run_with_what_is_left_fossa_em_02(relay, monkeypatch):
    given = {"kind": "overrun", "deadline": END.timestamp(), "planned": ["log_rotation"]}
    late = END + timedelta(minutes=2)
    assert "notification.delivery" not in dict(states(tell([mail(relay, "a@shop.internal")], END - timedelta(seconds=1), **given)))
    for _host in range(2):
        outcome = tell([mail(relay, "a@shop.internal")], late, **given)
        assert states(outcome) == [("notification.delivery", "ok"), ("notification.overrun", "warning")]
    [(_to, text)] = relay.mails
    for said in ("Window ends: Saturday 2026-11-28 06:00 PST", "Expected to be over: Saturday 2026-11-28 06:17 PST", "- log rotation"):
        assert said in text
    monkeypatch.setenv("OPS_MAINTENANCE_RUN_ID", "weekly-2")
    tell([mail(relay, "a@shop.internal")], late, **given)
    assert len(relay.mails) == 2


def running_journal(folder: Path, outcomes: tuple[str, ...] = (), pid: int | None = None) -> None:
    """Write the journal of a run that this very process could be."""
    import socket

    from ansible_collections.ops.maintenance.plugins.plugin_utils import control

    writer = JournalWriter(str(folder / "journal/weekly-20261128T100000Z-0001.jsonl"), "weekly-20261128T100000Z-0001")
    me = {"host": socket.gethostname(), "pid": pid or os.getpid(), "pid_started": control.process_started(os.getpid())}
    writer.append("run", {"cadence": "weekly", "check_mode": False, "control": me})
    writer.append("plan", {"system": "shop", "hosts": ["shop1", "shop2"], "window": {"end": END.isoformat()}})
    for host in outcomes:
        writer.append("outcome", {"host": host, "system": "shop", "outcome": "completed"})
    writer.close()


def test_a_run_stuck_in_one_long_task_is_found_from_outside_fossa_em_02(relay, folder):
    running_journal(folder, outcomes=("shop1",))
    assert states(tell([mail(relay, "a@shop.internal")], END, kind="overrun")) == [("notification.overrun", "ok")]
    for minutes in (1, 6):
        late = tell([mail(relay, "a@shop.internal")], END + timedelta(minutes=minutes), kind="overrun")
        assert states(late) == [("notification.delivery", "ok"), ("notification.overrun", "warning")]
    [(_to, text)] = relay.mails
    assert "- shop2" in text
    assert "- shop1" not in text


@pytest.mark.parametrize("given", [{"outcomes": ("shop1", "shop2")}, {"pid": 2**22}])
def test_a_run_that_is_done_or_dead_is_no_overrun(relay, folder, given):
    running_journal(folder, **given)
    assert states(tell([mail(relay, "a@shop.internal")], END + timedelta(hours=1), kind="overrun")) == [("notification.overrun", "ok")]
    assert relay.mails == []


def test_a_memory_that_cannot_be_read_is_critical_and_nothing_is_sent_twice_blindly(relay, folder):
    (folder / "journal/notices.json").write_text("[")
    assert states(tell([mail(relay, "a@shop.internal")])) == [("notification.delivery", "critical")]
    assert relay.mails == []


def test_hosts_of_a_system_that_tell_at_the_same_time_send_one_notice(relay):
    given = {"kind": "overrun", "deadline": END.timestamp()}
    threads = [
        threading.Thread(target=tell, args=([mail(relay, "a@shop.internal")], END + timedelta(minutes=1)), kwargs=given)
        for _attempt in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(relay.mails) == 1


def test_a_test_says_so_once_a_day_and_acceptance_is_not_called_arrival(relay, web, folder):
    page = folder / "status.txt"
    to = [
        mail(relay, "sre@shop.internal"),
        {"kind": "webhook", "url": f"http://127.0.0.1:{web.server_address[1]}/"},
        {"kind": "file", "path": str(page)},
    ]
    outcome = tell(to, kind="test", windows={})
    [(people, text)] = relay.mails
    code = outcome.after["code"]
    assert (outcome.status, people, "Subject: TEST" in text, code in text) == ("changed", ["sre@shop.internal"], True, True)
    assert code in json.dumps(web.got[0][1])
    assert not page.exists(), "a status page shows no test"
    assert {(finding.state, finding.not_covered) for finding in outcome.findings} == {
        ("ok", "whether it arrived: ask a recipient for the code in it")
    }
    assert tell(to, kind="test", windows={}).status == "ok"
    assert len(relay.mails) == 1
    tomorrow = tell(to, DAY_BEFORE + timedelta(days=1), kind="test", windows={})
    assert (tomorrow.status, len(relay.mails), tomorrow.after["code"] == code) == ("changed", 2, False)


def test_a_test_that_a_channel_refuses_is_critical(relay):
    assert states(tell([mail(relay, "gone@shop.internal")], kind="test")) == [("notification.delivery", "critical")]


def test_an_incident_calls_those_who_recover_it_once_a_run_with_what_does_not_work_netpost_em_7(relay):
    given = {"kind": "incident", "reason": "database is gone\nBcc: all@shop.internal", "planned": ["app.service is failed"]}
    outcome = tell([mail(relay, "a@shop.internal")], START, **given)
    assert outcome.findings[0].state == "ok"
    ((to, text),) = relay.mails
    assert to == ["a@shop.internal"]
    assert "INCIDENT" in text
    assert "app.service is failed" in text
    assert "\nBcc:" not in text
    tell([mail(relay, "a@shop.internal")], START, **given)
    assert len(relay.mails) == 1, "nobody gets it twice"
    with pytest.raises(InputError, match="what happened"):
        tell([mail(relay, "a@shop.internal")], START, **{**given, "reason": " "})
