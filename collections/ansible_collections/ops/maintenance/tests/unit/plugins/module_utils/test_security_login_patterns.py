# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    log_journal,
    security_login_patterns,
    security_logins,
    security_utmp,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-20T09:00:00+00:00")  # a Friday


class Application:
    """An application's log, reviewed at any moment."""

    def __init__(self, folder):
        self.folder, self.lines = folder, []

    def event(self, moment, event="login_success", account="mia", address="198.51.100.7"):
        self.lines.append(json.dumps({"timestamp": moment.isoformat(), "event": event, "username": account, "client_ip": address}))

    def review(self, now=NOW, check_mode=False, **given):
        log = self.folder / "app.jsonl"
        log.write_text("".join(f"{line}\n" for line in self.lines))
        os.utime(log, (now.timestamp(), now.timestamp()))
        spec = {**security_logins.OPTIONS, "state_dir": {"type": "path"}}
        sources = {"login_sources": [{"name": "app", "paths": [str(log)]}], "state_dir": str(self.folder / "state"), "journal": "false"}
        review = Review(filled(spec, {**sources, **given}), Host(), check_mode, now)
        return {finding.id.split(".")[1]: finding for finding in security_logins.look(review)}


@pytest.fixture
def app(tmp_path, monkeypatch):
    """On a host so young that no log can reach further back."""
    monkeypatch.setattr(log_journal, "host_since", lambda: 4e9)
    return Application(tmp_path)


def test_one_account_attacked_from_many_addresses_is_found(app):
    """Each address alone stays below the limit."""
    for number in range(12):
        app.event(NOW - timedelta(hours=2, seconds=number), "login_failed", "root", f"203.0.113.{number}")
    found = app.review()
    assert (found["brute_force"].state, found["brute_force_accounts"].state) == ("ok", "warning")
    assert found["brute_force_accounts"].evidence[0].startswith("root: up to 12 within 10 minutes")


def test_failures_spread_over_the_day_are_no_attack(app):
    for number in range(12):
        app.event(NOW - timedelta(hours=number), "login_failed", "root", f"203.0.113.{number}")
    assert app.review()["brute_force_accounts"].state == "ok"


def test_an_address_new_to_an_account_is_reported_for_the_period_and_then_known(app):
    app.event(NOW - timedelta(days=2))
    first = app.review()["new_addresses"]
    assert (first.state, "first sight" in first.summary) == ("ok", True)
    day = NOW + timedelta(days=1)
    app.event(day - timedelta(hours=1), address="203.0.113.5")
    app.event(day - timedelta(hours=1), account="tom")
    for now in (day, day + timedelta(days=3)):  # looking does not make it forgotten
        found = app.review(now)["new_addresses"]
        assert (found.state, found.value) == ("warning", 2)
    assert found.evidence[0].startswith("mia from 203.0.113.5 since 2026-11-21T08:00:00")
    app.event(day + timedelta(days=8), address="203.0.113.5")
    assert app.review(day + timedelta(days=9))["new_addresses"].state == "ok"


def test_check_mode_remembers_nothing(app):
    app.event(NOW - timedelta(days=2))
    app.review(check_mode=True)
    assert not os.path.exists(app.folder / "state")


def test_known_networks_are_no_news(app):
    app.review()
    app.event(NOW + timedelta(hours=1), address="10.1.2.3")
    app.event(NOW + timedelta(hours=1), address="127.0.0.1")
    later = NOW + timedelta(hours=2)
    assert app.review(later, check_mode=True)["new_addresses"].value == 1
    assert app.review(later, known_networks=["10.0.0.0/8"])["new_addresses"].state == "ok"


def test_a_state_that_cannot_be_read_is_unknown(app):
    app.event(NOW - timedelta(days=1))
    (app.folder / "state").mkdir(mode=0o700)
    (app.folder / "state/security_logins.json").write_text("[")
    found = app.review()
    assert (found["new_addresses"].state, found["login_volume"].state, found["failed_logins"].state) == ("unknown", "unknown", "ok")


def test_more_log_ins_than_in_earlier_months_are_found(app):
    for month in range(4):
        now = NOW + timedelta(days=31 * month)
        for number in range(310 * (5 if month == 3 else 1)):
            app.event(now - timedelta(days=number % 30, minutes=1 + number % 50))
        found = app.review(now, days=31)["login_volume"]
        assert found.state == ("warning" if month == 3 else "ok"), month
    assert found.evidence == ["successful log-ins: 50.0 a day, usually 10.0"]


def test_runs_whose_periods_overlap_are_not_compared(app):
    """A daily run looks at the same week again and again."""
    app.event(NOW - timedelta(days=1))
    for day in range(5):
        found = app.review(NOW + timedelta(days=day))["login_volume"]
    assert "not enough earlier runs" in found.summary


def test_log_ins_outside_the_usual_hours_are_found(app):
    app.event(datetime(2026, 11, 18, 8, 30, tzinfo=timezone.utc))  # a Wednesday, 09:30 in Berlin
    assert "odd_hours" not in app.review()
    hours = {"usual_hours": [{"days": ["mon", "tue", "wed", "thu", "fri"], "begin": "07:00", "end": "20:00"}]}
    hours["usual_hours_timezone"] = "Europe/Berlin"
    assert app.review(**hours)["odd_hours"].state == "ok"
    app.event(datetime(2026, 11, 18, 19, 30, tzinfo=timezone.utc))  # 20:30
    app.event(datetime(2026, 11, 15, 10, 0, tzinfo=timezone.utc))  # a Sunday
    app.event(datetime(2026, 11, 18, 2, 0, tzinfo=timezone.utc), account="robot")
    found = app.review(**hours, usual_hours_except=["robot"])["odd_hours"]
    assert (found.state, found.value) == ("warning", 2)
    assert "mia from 198.51.100.7 at 2026-11-15T11:00:00+01:00" in found.evidence


@pytest.mark.parametrize(
    ("day", "hour", "usual"), [(18, 23, True), (19, 3, True), (19, 6, False), (20, 3, False), (18, 12, False), (19, 23, False)]
)
def test_a_span_over_midnight_belongs_to_the_day_it_begins_on(day, hour, usual):
    moment = datetime(2026, 11, day, hour, tzinfo=timezone.utc)
    assert security_login_patterns.is_usual(moment, [(["wed"], 22 * 60, 6 * 60)]) is usual


def utmp(user, moment, kind=7, host="203.0.113.9"):
    return security_utmp.layout().pack(kind, 1, b"ssh", b"", user.encode(), host.encode(), 0, 0, 0, int(moment.timestamp()), 0, b"", b"")


def test_wtmp_and_btmp_are_sources(app):
    moment = NOW - timedelta(hours=3)
    (app.folder / "btmp").write_bytes(b"".join(utmp("root", moment + timedelta(seconds=n), 6) for n in range(11)))
    (app.folder / "wtmp").write_bytes(utmp("reboot", moment, 2) + utmp("root", moment + timedelta(minutes=1)) + utmp("LOGIN", moment, 6))
    (app.folder / "wtmp.1.gz").write_bytes(gzip.compress(utmp("mia", NOW - timedelta(days=3))))
    sources = [{"name": kind, "paths": [str(app.folder / kind)], "format": kind} for kind in ("btmp", "wtmp")]
    found = app.review(login_sources=sources)
    assert found["failed_logins"].value == 11
    assert "11 failed and 2 successful" in found["failed_logins"].summary
    assert found["success_after_failures"].state == "critical"
    (app.folder / "btmp").write_bytes(b"text " * 100)
    assert app.review(login_sources=sources)["failed_logins"].state == "unknown"


@pytest.mark.parametrize(
    "name", ["x\x1b]0;owned\x07", "a\nb from 10.0.0.1", "'; DROP TABLE users; --", "<script>", "{{ 7*7 }}", "mia\u202etxt"]
)
def test_names_that_attack_the_report_are_data(app, name):
    app.review()
    app.event(NOW + timedelta(hours=1), account=name)
    found = app.review(NOW + timedelta(hours=2))["new_addresses"]
    assert (found.state, len(found.evidence)) == ("warning", 1)
    said = str(found.as_dict())
    assert not any(char in said for char in "\x1b\x07\u202e")
    assert "\n" not in found.as_dict()["evidence"][0]


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1e6), max_size=20))
def test_few_or_quiet_periods_are_never_unusual(now, earlier):
    said = security_login_patterns.unusual(now, earlier, 3.0, 10.0)
    assert not said or (now >= 10 and len(earlier) >= 3)


def test_wrong_input_is_said():
    given = {"known_networks": ["10.0.0.0/99"], "usual_hours": [{"begin": "7", "end": "24:00"}], "volume_factor": 1.0}
    said = " ".join(
        security_login_patterns.validate(filled(security_login_patterns.OPTIONS, {**given, "usual_hours_timezone": "Mars/Base"}))
    )
    for part in ("10.0.0.0/99", "usual_hours.begin is '7'", "volume_factor is 1.0", "Mars/Base"):
        assert part in said
    assert "24:00" not in said
