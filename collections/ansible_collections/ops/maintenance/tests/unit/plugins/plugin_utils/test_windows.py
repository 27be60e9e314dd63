# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows open when their rule says so on the wall clock of their zone, and keep their length whatever clocks do."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils import windows

UTC = timezone.utc
# hours of daylight saving: one on either half of the globe, half an hour, two, none, and zones off the full hour
ZONES = [
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "UTC",
]
SATURDAYS = {"rule": "FREQ=WEEKLY;BYDAY=SA;BYHOUR=2;BYMINUTE=0", "duration_minutes": 240, "timezone": "America/Los_Angeles"}


def window(blackouts: Any = (), **changes: Any) -> windows.Window:
    return windows.parse({**SATURDAYS, **changes}, list(blackouts), "maintenance_windows.weekly")


def daily(hour: int, minute: int, zone: str, **changes: Any) -> windows.Window:
    return window(rule=f"FREQ=DAILY;BYHOUR={hour};BYMINUTE={minute}", timezone=zone, **changes)


def starts(of: windows.Window, after: datetime, count: int) -> list[datetime]:
    return windows.occurrences(of, after, count)


moments = st.datetimes(datetime(2024, 2, 1), datetime(2029, 12, 31), timezones=st.just(UTC))
clock = {"hour": st.integers(0, 23), "minute": st.sampled_from([0, 15, 30, 59]), "zone": st.sampled_from(ZONES)}


@given(now=moments, **clock)
def test_starts_show_the_time_of_the_rule_unless_the_clock_skips_it(now, hour, minute, zone):
    here = ZoneInfo(zone)
    for begin in starts(daily(hour, minute, zone), now, 3):
        local = begin.astimezone(here)
        if (local.hour, local.minute) == (hour, minute):
            assert local.fold == 0
            continue
        wanted = local.replace(hour=hour, minute=minute, second=0, fold=0)
        assert wanted.astimezone(UTC).astimezone(here).replace(tzinfo=None) != wanted.replace(tzinfo=None)
        # the instant before still had the old offset: it is the first one after the gap
        assert (begin - timedelta(seconds=1)).astimezone(here).utcoffset() < local.utcoffset()


@given(now=moments, **clock)
def test_starts_come_once_a_day_in_order_and_later_than_now(now, hour, minute, zone):
    found = starts(daily(hour, minute, zone), now, 5)
    assert found[0] > now
    assert found == sorted(set(found))
    days = [begin.astimezone(ZoneInfo(zone)).date() for begin in found]
    assert days == [days[0] + timedelta(days=number) for number in range(5)]


@given(now=moments, minutes=st.integers(1, 10080), **clock)
def test_the_length_is_elapsed_time_whatever_the_clock_does(now, minutes, hour, minute, zone):
    of = daily(hour, minute, zone, duration_minutes=minutes)
    begin = starts(of, now, 1)[0]
    decision = windows.decide(of, begin)
    assert decision.is_open
    assert decision.end - decision.start == timedelta(minutes=minutes)
    assert decision.deadline == decision.end.timestamp()


@given(now=moments, **clock)
def test_a_window_is_open_from_its_first_to_before_its_last_second(now, hour, minute, zone):
    of = daily(hour, minute, zone, duration_minutes=60)
    begin = starts(of, now, 1)[0]
    assert not windows.decide(of, begin - timedelta(seconds=1)).is_open
    assert windows.decide(of, begin + timedelta(minutes=60, seconds=-1)).is_open
    assert not windows.decide(of, begin + timedelta(minutes=60)).is_open


@pytest.mark.parametrize(
    ("zone", "hour", "minute", "day", "begin"),
    [
        ("America/Los_Angeles", 2, 0, date(2026, 3, 8), datetime(2026, 3, 8, 10, 0, tzinfo=UTC)),  # 02:00 becomes 03:00
        ("America/Los_Angeles", 2, 30, date(2026, 3, 8), datetime(2026, 3, 8, 10, 0, tzinfo=UTC)),
        ("America/Los_Angeles", 1, 30, date(2026, 11, 1), datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),  # twice: the first
        ("Europe/Berlin", 2, 30, date(2027, 3, 28), datetime(2027, 3, 28, 1, 0, tzinfo=UTC)),
        ("Europe/Berlin", 2, 30, date(2027, 10, 31), datetime(2027, 10, 31, 0, 30, tzinfo=UTC)),
        ("Australia/Lord_Howe", 2, 15, date(2026, 10, 4), datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),  # half an hour only
        ("Antarctica/Troll", 2, 0, date(2027, 3, 28), datetime(2027, 3, 28, 1, 0, tzinfo=UTC)),  # two hours
    ],
)
def test_skipped_and_repeated_times(zone, hour, minute, day, begin):
    midnight = datetime.combine(day, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    assert starts(daily(hour, minute, zone), midnight - timedelta(seconds=1), 1) == [begin]


def test_a_whole_day_that_a_zone_skipped_begins_with_the_next():
    """Samoa had no 30 December 2011."""
    of = daily(12, 0, "Pacific/Apia", start="2011-12-01")
    found = starts(of, datetime(2011, 12, 29, 23, tzinfo=UTC), 2)
    assert found == [datetime(2011, 12, 30, 10, 0, tzinfo=UTC), datetime(2011, 12, 30, 22, 0, tzinfo=UTC)]


def test_a_window_over_a_clock_change_lasts_as_long_as_any_other():
    of = window(duration_minutes=24 * 60)
    spring = starts(of, datetime(2026, 3, 7, tzinfo=UTC), 1)[0]
    decision = windows.decide(of, spring)
    assert decision.end - spring == timedelta(hours=24)
    assert decision.end.astimezone(of.zone).hour == 3


def test_the_first_day_anchors_rules_with_an_interval():
    of = window(rule="FREQ=WEEKLY;INTERVAL=2;BYDAY=SA;BYHOUR=2;BYMINUTE=0", start="2026-01-10")
    found = [begin.astimezone(of.zone).date() for begin in starts(of, datetime(2026, 1, 1, tzinfo=UTC), 2)]
    assert found == [date(2026, 1, 10), date(2026, 1, 24)]


HOLIDAYS = {"first": date(2026, 12, 24), "last": "2027-01-01", "reason": "holidays"}
IN_THE_HOLIDAYS = datetime(2026, 12, 26, 11, tzinfo=UTC)


def test_nothing_starts_on_blackout_days_and_the_reason_is_told():
    of = window([HOLIDAYS])
    decision = windows.decide(of, IN_THE_HOLIDAYS)
    assert not decision.is_open
    assert "2026-12-24 to 2027-01-01 is a blackout (holidays)" in decision.reason
    assert "Saturday 2027-01-02 02:00 PST" in decision.reason
    assert decision.next_starts[0] == datetime(2027, 1, 2, 10, tzinfo=UTC)


def test_a_blackout_without_last_is_one_day():
    of = window([{"first": "2026-12-26", "reason": "stock taking"}])
    assert not windows.decide(of, IN_THE_HOLIDAYS).is_open
    assert windows.decide(of, IN_THE_HOLIDAYS - timedelta(weeks=1)).is_open


def test_blackout_days_are_those_of_the_windows_zone():
    of = daily(23, 0, "America/Los_Angeles", blackouts=[{"first": "2026-12-24", "reason": "holidays"}])
    assert windows.decide(of, datetime(2026, 12, 24, 7, 30, tzinfo=UTC)).is_open  # 23:30 on the 23rd
    assert not windows.decide(of, datetime(2026, 12, 25, 7, 30, tzinfo=UTC)).is_open  # 23:30 on the 24th


def test_a_window_of_the_evening_before_lets_nothing_start_once_the_blackout_has_come():
    of = daily(22, 0, "UTC", duration_minutes=240, blackouts=[{"first": "2026-12-24", "reason": "holidays"}])
    assert windows.decide(of, datetime(2026, 12, 23, 23, 59, tzinfo=UTC)).is_open
    assert not windows.decide(of, datetime(2026, 12, 24, 0, 0, tzinfo=UTC)).is_open


@given(now=moments, first=st.dates(date(2024, 3, 1), date(2029, 12, 1)), days=st.integers(0, 40), **clock)
def test_no_start_that_is_offered_lies_in_a_blackout(now, first, days, hour, minute, zone):
    last = first + timedelta(days=days)
    of = daily(hour, minute, zone, blackouts=[{"first": first, "last": last, "reason": "x"}])
    for begin in starts(of, now, 5):
        assert not first <= begin.astimezone(ZoneInfo(zone)).date() <= last


@given(now=moments)
def test_a_forced_start_lasts_one_window_from_now_and_says_so(now):
    of = window([{"first": "2020-01-01", "last": "2035-01-01", "reason": "never"}])
    decision = windows.decide(of, now, "a leak has to be closed")
    assert decision.is_open
    assert (decision.start, decision.end) == (now, now + timedelta(minutes=240))
    assert "a leak has to be closed" in decision.reason
    assert decision.reason.startswith("window overridden")


def test_a_start_inside_the_window_is_not_called_forced():
    begin = datetime(2026, 12, 5, 10, tzinfo=UTC)
    assert windows.decide(window(), begin, "just in case").reason == "inside the window"


def test_without_a_window_only_a_forced_start_is_allowed():
    now = datetime(2026, 11, 21, tzinfo=UTC)
    refused = windows.decide(None, now)
    assert (refused.is_open, refused.deadline) == (False, 0.0)
    assert "No maintenance window is declared" in refused.reason
    assert "maintenance_force_window" in refused.reason
    assert windows.decide(None, now, "because").is_open


def test_outside_the_next_window_is_told():
    reason = windows.decide(window(), datetime(2026, 11, 25, tzinfo=UTC)).reason
    assert "outside the maintenance window. The next window starts Saturday 2026-11-28 02:00 PST." in reason


def test_a_cadence_without_a_window_has_none():
    assert windows.describe({"weekly": SATURDAYS}, "daily", []) is None
    assert windows.describe(None, "daily", None) is None
    assert windows.describe({"weekly": SATURDAYS}, "weekly", None) == window()


BAD = [
    ({"rule": "nonsense"}, "weekly.rule is 'nonsense'"),
    ({"rule": ""}, "weekly.rule is ''"),
    ({"rule": "FREQ=WEEKLY;BYDAY=XX"}, "BYDAY"),
    ({"rule": "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30"}, "it never occurs"),
    ({"rule": "DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY"}, "the first day goes into start"),
    ({"rule": "FREQ=DAILY;INTERVAL=0"}, "INTERVAL is at least 1"),
    ({"rule": "FREQ=MINUTELY"}, "not open more than once a day"),
    ({"rule": "FREQ=DAILY;UNTIL=20271231T000000Z"}, "it has no Z"),
    ({"rule": 7}, "a mapping with rule, duration_minutes and timezone"),
    ({"duration_minutes": 0}, "whole minutes from 1 to 10080"),
    ({"duration_minutes": -5}, "whole minutes from 1 to 10080"),
    ({"duration_minutes": 10081}, "whole minutes from 1 to 10080"),
    ({"duration_minutes": "240"}, "whole minutes from 1 to 10080"),
    ({"duration_minutes": True}, "whole minutes from 1 to 10080"),
    ({"timezone": "local time"}, "a time zone such as Europe/Berlin"),
    ({"timezone": None}, "a time zone such as Europe/Berlin"),
    ({"timezone": "../../etc/passwd"}, "a time zone such as Europe/Berlin"),
    ({"timezone": ""}, "a time zone such as Europe/Berlin"),
    ({"timezone": {}}, "a time zone such as Europe/Berlin"),
    ({"start": "next week"}, "a date or time such as"),
    ({"lenght": 3}, "['lenght']"),
]


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_bad_input_ends_in_one_sentence_that_says_where(changes, said):
    with pytest.raises(InputError) as caught:
        window(**changes)
    message = str(caught.value)
    assert said in message
    assert message.startswith("maintenance_windows.weekly")
    assert message.endswith(".")


@pytest.mark.parametrize("given_window", [None, "FREQ=DAILY", [], 5, {}])
def test_what_is_no_window_is_refused(given_window):
    with pytest.raises(InputError, match="expected a mapping with rule"):
        windows.parse(given_window, [], "w")


@pytest.mark.parametrize(
    "blackouts",
    [
        ["2026-12-24"],
        [{"first": "2026-12-24"}],
        [{"first": "24.12.2026", "reason": "x"}],
        [{"first": "2026-12-24", "last": "2026-12-23", "reason": "x"}],
        [None],
        {"first": "2026-12-24", "reason": "x"},
        "2026-12-24",
        5,
    ],
)
def test_bad_blackouts_are_refused(blackouts):
    with pytest.raises(InputError, match=r"^maintenance_blackouts"):
        windows.parse(SATURDAYS, blackouts, "w")


@pytest.mark.parametrize("declared", ["daily", 5, ["weekly"]])
def test_windows_that_are_no_mapping_are_refused(declared):
    with pytest.raises(InputError, match=r"^maintenance_windows is"):
        windows.describe(declared, "weekly", [])


@given(rule=st.text(max_size=60) | st.text("ABDEFHILMNOQRSTUVWYZ=;,0123456789-+", max_size=60))
def test_any_text_as_a_rule_is_parsed_or_refused_never_worse(rule):
    try:
        of = window(rule=rule)
    except InputError:
        return
    assert all(begin > datetime(2026, 1, 1, tzinfo=UTC) for begin in starts(of, datetime(2026, 1, 1, tzinfo=UTC), 2))


def test_a_control_node_without_dateutil_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(windows, "rrulestr", None)
    with pytest.raises(MaintenanceError, match="python-dateutil"):
        window()
