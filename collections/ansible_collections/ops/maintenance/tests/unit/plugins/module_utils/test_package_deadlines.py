# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How urgent an update is, by when it has to be installed, and what is overdue."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import package_deadlines as deadlines
from ansible_collections.ops.maintenance.plugins.module_utils import package_severity as severity
from ansible_collections.ops.maintenance.plugins.module_utils.apt_packages import Pending, Update
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
ARCHIVE = "Debian-Security:bookworm-security"
PARAMS = {"deadline_hours": {}, "unknown_severity": "high", "severities": {}}


def update(name: str = "openssl", installed: str = "3.0-1", version: str = "3.0-2") -> Update:
    return Update(name, installed, version, (ARCHIVE,), version)


def judged(level: str, age: timedelta, window: timedelta | None = None, **params) -> deadlines.Due:
    state = {"seen": {"openssl": {"since": (NOW - age).isoformat()}}}
    if window is not None:
        state["window"] = (NOW - window).isoformat()
    known = {"openssl": severity.Severity(level, "declared")} if level else {}
    (due,) = deadlines.judge([update()], known, state, NOW, {**PARAMS, **params})
    return due


@pytest.mark.parametrize(
    ("level", "age", "overdue"),
    [
        ("critical", timedelta(hours=23), False),
        ("critical", timedelta(hours=25), True),
        ("high", timedelta(days=6, hours=23), False),
        ("high", timedelta(days=7, hours=1), True),
        ("low", timedelta(days=89), False),
        ("low", timedelta(days=91), True),
        ("medium", timedelta(days=89), False),  # no window has been yet
        ("", timedelta(days=8), True),  # not known: treated as high
    ],
)
def test_each_severity_has_its_deadline(level, age, overdue):
    assert judged(level, age).overdue is overdue


def test_medium_is_overdue_when_a_window_has_passed_it_by():
    assert judged("medium", timedelta(days=2), window=timedelta(days=3)).overdue is False
    assert judged("medium", timedelta(days=2), window=timedelta(days=1)).overdue is True


def test_declared_hours_and_the_severity_for_what_nobody_knows():
    assert judged("critical", timedelta(hours=25), deadline_hours={"critical": 48}).overdue is False
    due = judged("", timedelta(days=8), unknown_severity="low")
    assert (due.level, due.source, due.overdue) == ("low", "not known, treated as low", False)


def test_clock_starts_at_the_first_sight_or_when_the_archive_was_published_and_goes_on_for_a_newer_version():
    published = {ARCHIVE: NOW - timedelta(hours=5)}
    first = deadlines.remember({"window": "x"}, [update()], published, NOW)
    assert first["seen"]["openssl"]["since"] == (NOW - timedelta(hours=5)).isoformat()
    assert first["window"] == "x"
    later = deadlines.remember(first, [update(version="3.0-3")], {}, NOW + timedelta(days=2))
    assert later["seen"]["openssl"]["since"] == first["seen"]["openssl"]["since"]
    assert deadlines.remember(later, [], {}, NOW)["seen"] == {}


def test_state_that_makes_no_sense_is_said_and_not_taken_for_empty(tmp_path):
    (tmp_path / deadlines.STATE).write_text("[1]")
    assert deadlines.read(str(tmp_path))[1]
    (tmp_path / deadlines.STATE).write_text('{"seen": 3}')
    assert deadlines.read(str(tmp_path))[1]
    assert deadlines.remember({"seen": {"openssl": {"since": "when?"}}}, [update()], {}, NOW)["seen"]["openssl"]["since"] == NOW.isoformat()


def pending(*found: Update, as_of: datetime | None = NOW) -> Pending:
    return Pending(found, (), as_of, (ARCHIVE,))


def test_overdue_is_critical_or_a_warning_and_unknown_when_nothing_is_known():
    late = deadlines.Deadlines((judged("critical", timedelta(days=3)),))
    assert deadlines.overdue_finding(late, pending(update()), True, NOW).state == "critical"
    assert "overdue by 2 d" in deadlines.overdue_finding(late, pending(update()), True, NOW).evidence[0]
    low = deadlines.Deadlines((judged("low", timedelta(days=100)),))
    assert deadlines.overdue_finding(low, pending(update()), True, NOW).state == "warning"
    assert deadlines.overdue_finding(deadlines.Deadlines(), pending(), True, NOW).state == "ok"
    assert deadlines.overdue_finding(deadlines.Deadlines(), pending(), False, NOW).state == "unknown"
    assert deadlines.overdue_finding(deadlines.Deadlines(), pending(as_of=None), True, NOW).state == "unknown"
    assert deadlines.overdue_finding(deadlines.Deadlines((), "no file"), pending(), True, NOW).state == "unknown"


def test_what_has_to_be_installed_within_a_day_is_a_warning_before_it_is_late():
    soon = deadlines.Deadlines((judged("critical", timedelta(hours=2)),))
    assert deadlines.overdue_finding(soon, pending(update()), True, NOW).state == "warning"
    later = deadlines.Deadlines((judged("high", timedelta(days=2)), judged("medium", timedelta(days=2))))
    assert deadlines.overdue_finding(later, pending(update()), True, NOW).state == "ok"


def test_what_is_not_known_is_said():
    found = deadlines.overdue_finding(deadlines.Deadlines((judged("", timedelta(0)),)), pending(update()), True, NOW)
    assert found.not_covered == "the severity of 1 update, treated as high"
    old = deadlines.Deadlines((judged("", timedelta(0)),), doubt="the advisories end at 2026-01-01")
    assert deadlines.overdue_finding(old, pending(update()), True, NOW).not_covered.endswith("high; the advisories end at 2026-01-01")
    known = deadlines.Deadlines((judged("low", timedelta(0)),), doubt="the advisories end at 2026-01-01")
    assert deadlines.overdue_finding(known, pending(update()), True, NOW).not_covered == ""


def test_emergency_run_leaves_the_rest_with_a_reason():
    due = deadlines.Deadlines((judged("medium", timedelta(0)),))
    ordinary = Update("bash", "1", "2", ("Debian:bookworm",))
    left = due.postponed([update(), ordinary], "high", False)
    assert left["openssl"].startswith("medium, and")
    assert "not a security update" in left["bash"]
    assert due.postponed([update()], "medium", False) == {}
    assert "openssl" in due.postponed([update()], "", True)
    assert due.postponed([update(), ordinary], "", False) == {}


def test_clock_proves_itself():
    assert deadlines.self_test_problem(update(), NOW) == ""


@pytest.mark.parametrize(
    "bad",
    [
        {"deadline_hours": {"urgent": 1}},
        {"deadline_hours": {"high": "soon"}},
        {"deadline_hours": {"high": -1}},
        {"deadline_hours": {"high": True}},
        {"severities": {"openssl": "urgent"}},
    ],
)
def test_senseless_input_is_refused(bad):
    assert len(deadlines.input_problems({**PARAMS, **bad})) == 1
    assert deadlines.input_problems(PARAMS) == []


# Where severities come from

CHANGELOG = """openssl (3.0-3) bookworm-security; urgency=medium

  * Two.

 -- N <n@example.com>  Mon, 03 Nov 2025 12:00:00 +0000

openssl (3.0-2) bookworm-security; urgency=high

  * openssl (9.9) in a text; urgency=critical does not count

 -- N <n@example.com>  Sat, 01 Nov 2025 12:00:00 +0000

openssl (3.0-1) bookworm; urgency=emergency

 -- N <n@example.com>  Sat, 01 Mar 2025 12:00:00 +0000
"""


def test_changelog_counts_down_to_the_installed_version():
    found = severity.of_changelog(CHANGELOG, "3.0-1")
    assert (found.level, found.since) == ("high", datetime(2025, 11, 1, 12, tzinfo=timezone.utc))
    assert severity.of_changelog(CHANGELOG, "3.0-3") == severity.Severity()
    assert severity.of_changelog("", "1") == severity.Severity()


@given(st.text(max_size=200))
def test_any_changelog_and_any_time_is_survived(text):
    severity.of_changelog(f"openssl (2) x; urgency={text}\n -- N <n@e>  {text}\n{text}", "1")
    severity.moment(text)


def test_advisory_counts_when_the_update_would_fix_it_by_binary_or_source_name():
    listed = [severity.Advisory("openssl", "3.0-2", "critical", "DSA-1", "2026-11-01T00:00:00Z")]
    found = severity.of_advisories(update(), "", listed)
    assert (found.level, found.source, found.since) == ("critical", "advisory DSA-1", datetime(2026, 11, 1, tzinfo=timezone.utc))
    assert severity.of_advisories(update("libssl3"), "openssl", listed).level == "critical"
    assert severity.of_advisories(update("libssl3"), "other", listed) == severity.Severity()
    assert severity.of_advisories(update(installed="3.0-2", version="3.0-3"), "", listed) == severity.Severity()  # fixed already
    assert severity.of_advisories(update(version="3.0-1+b1"), "", listed) == severity.Severity()  # not by this update


TRACKER = {
    "openssl": {
        "CVE-1": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "3.0-2", "urgency": "low**"}}},
        "CVE-2": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "3.0-2", "urgency": "not yet assigned"}}},
        "CVE-3": {"releases": {"bookworm": {"status": "open", "urgency": "high"}}},
        "CVE-4": {"releases": {"trixie": {"status": "resolved", "fixed_version": "3.0-2", "urgency": "high"}}},
    },
    "odd": 7,
}


def test_export_of_the_tracker_is_read_for_this_release(tmp_path):
    file = tmp_path / "tracker.json"
    file.write_text(json.dumps(TRACKER))
    assert [(one.id, one.severity) for one in severity.load_advisories(str(file), "bookworm")] == [("CVE-1", "low"), ("CVE-2", "")]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '[{"package": "x"}]', '{"x": {"CVE": []}}', '{"x": {"CVE": {"releases": 3}}}'])
def test_file_that_tells_nothing_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="advisories"):
        severity.load_advisories(str(tmp_path / "a.json"), "bookworm")


def test_declared_severity_goes_first_and_the_earliest_time_counts():
    early = NOW - timedelta(days=9)
    more = [severity.Severity("low", "advisory", NOW), severity.Severity("high", "changelog", early)]
    assert severity.severity_of(update(), {"open*": "critical"}, more) == severity.Severity("critical", "declared", early)
    assert severity.severity_of(update(), {}, more) == severity.Severity("low", "advisory", early)
    assert severity.severity_of(update(), {}, []).level == ""
