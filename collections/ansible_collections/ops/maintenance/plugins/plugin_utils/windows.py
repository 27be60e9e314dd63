# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance windows: a recurrence rule in a time zone, with blackout dates.

The rule counts on the wall clock of its zone. A start that a clock change skips moves to the first minute after the gap; one that
happens twice means the first. The length is elapsed time, so a window never grows or shrinks by an hour.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError

try:
    from dateutil.rrule import rrulestr
except ImportError:
    rrulestr = None

MAXIMUM_DURATION = timedelta(days=7)
_KNOWN = {"rule", "start", "duration_minutes", "timezone", "title"}
_DEFAULT_START = datetime(2024, 1, 1)
_REFUSED = {
    r"DTSTART|\n": "the first day goes into start, and one rule is one line",
    r"FREQ=(?:HOURLY|MINUTELY|SECONDLY)": "windows do not open more than once a day by frequency; use BYHOUR",
    r"INTERVAL=(?:0|-)": "INTERVAL is at least 1",
    r"UNTIL=\w+Z": "UNTIL counts on the wall clock of the window's zone, so it has no Z",
}


@dataclass(frozen=True)
class Blackout:
    """Days, in the window's zone and both included, on which nothing starts."""

    first: date
    last: date
    reason: str


@dataclass(frozen=True)
class Window:
    """A recurring time span in which a system may be changed."""

    rule: str
    zone: ZoneInfo
    duration: timedelta
    first: datetime
    blackouts: tuple[Blackout, ...] = ()

    def starts(self, after: datetime) -> Iterator[tuple[datetime, Blackout | None]]:
        """Yield every start later than ``after`` in UTC, with the blackout that forbids it."""
        rule = _recurrence(self.rule, self.first)
        # one day of slack: local order and UTC order differ by at most a clock change
        local_after = after.astimezone(self.zone).replace(tzinfo=None) - timedelta(days=1)
        for local in rule.xafter(local_after, inc=True):
            begin = _to_utc(local, self.zone)
            if begin > after:
                yield begin, self.blackout_on(local.date())

    def blackout_on(self, day: date) -> Blackout | None:
        """Return the blackout that forbids a start on a day in the window's zone."""
        return next((b for b in self.blackouts if b.first <= day <= b.last), None)


@dataclass(frozen=True)
class Decision:
    """Whether work may start now, and until when."""

    is_open: bool
    reason: str
    start: datetime | None
    end: datetime | None
    next_starts: tuple[datetime, ...]

    @property
    def deadline(self) -> float:
        """End of the window in seconds since the epoch; 0 without one."""
        return self.end.timestamp() if self.end else 0.0


def _to_utc(local: datetime, zone: ZoneInfo) -> datetime:
    there = local.replace(tzinfo=zone, fold=0).astimezone(timezone.utc)
    if there.astimezone(zone).replace(tzinfo=None) == local:
        return there
    # the wall clock skips this time: find the clock change between the two ways to read it
    before, after = local.replace(tzinfo=zone, fold=1).astimezone(timezone.utc), there
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        before, after = (middle, after) if middle.astimezone(zone).utcoffset() == offset else (before, middle)
    return after.replace(microsecond=0)


def _recurrence(rule: str, first: datetime) -> Any:
    if rrulestr is None:
        raise MaintenanceError("Maintenance windows need the Python package python-dateutil on the control node; install it there.")
    return rrulestr(rule, dtstart=first)


def parse(window: Any, blackouts: Any, where: str) -> Window:
    """Check a window as the inventory gives it.

    :param where: name of the variable, for the error sentence.
    :raises InputError: with what is wrong and what was expected.
    """
    if not isinstance(window, Mapping) or not isinstance(window.get("rule"), str):
        expected = "a mapping with rule, duration_minutes and timezone"
        raise InputError.of(where, window, expected, "see the cadence table in the README")
    unknown = sorted(set(window) - _KNOWN)
    if unknown:
        raise InputError.of(where, unknown, f"only {', '.join(sorted(_KNOWN))}", "remove or correct these options")
    zone = _zone(window.get("timezone"), f"{where}.timezone")
    minutes = window.get("duration_minutes")
    if isinstance(minutes, bool) or not isinstance(minutes, int) or not 0 < minutes * 60 <= MAXIMUM_DURATION.total_seconds():
        raise InputError.of(f"{where}.duration_minutes", minutes, "whole minutes from 1 to 10080", "state the length")
    first = _first(window.get("start"), f"{where}.start")
    rule = window["rule"].removeprefix("RRULE:")
    try:
        for pattern, why in _REFUSED.items():
            if re.search(pattern, rule, re.IGNORECASE):
                raise ValueError(why)
        if next(iter(_recurrence(rule, first)), None) is None:
            raise ValueError("it never occurs")
    except (ValueError, TypeError, AttributeError) as error:
        expected = f"a recurrence rule of RFC 5545 ({error})"
        raise InputError.of(f"{where}.rule", rule, expected, "for example FREQ=WEEKLY;BYDAY=SA;BYHOUR=2;BYMINUTE=0") from None
    return Window(rule, zone, timedelta(minutes=minutes), first, tuple(_blackouts(blackouts)))


def _zone(name: Any, where: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise InputError.of(where, name, "a time zone such as Europe/Berlin", "state the zone, never 'local time'") from None


def _first(value: Any, where: str) -> datetime:
    if value is None:
        return _DEFAULT_START
    try:
        return datetime.fromisoformat(str(value)).replace(tzinfo=None)
    except ValueError:
        raise InputError.of(where, value, "a date or time such as 2025-01-04T02:00", "correct it") from None


def _blackouts(given: Any) -> Iterator[Blackout]:
    if not isinstance(given, (list, tuple, type(None))):
        raise InputError.of("maintenance_blackouts", given, "a list of first, last and reason", "correct the inventory")
    for number, item in enumerate(given or []):
        where = f"maintenance_blackouts[{number}]"
        try:
            first = date.fromisoformat(str(item["first"]))
            last = date.fromisoformat(str(item.get("last", item["first"])))
            reason = str(item["reason"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError.of(where, item, "first (and last) as YYYY-MM-DD and a reason", "complete it") from None
        if last < first:
            raise InputError.of(where, item, "last not before first", "exchange them")
        yield Blackout(first, last, reason)


def occurrences(window: Window, after: datetime, count: int) -> list[datetime]:
    """Return the next starts that no blackout forbids, in UTC."""
    allowed = (begin for begin, blackout in islice(window.starts(after), 500) if blackout is None)
    return list(islice(allowed, count))


def decide(window: Window | None, now: datetime, force_reason: str = "") -> Decision:
    """Decide whether work may start now.

    :param window: ``None`` where the inventory declares no window: then only a forced start is allowed.
    :param force_reason: why the gate is overridden; the end is then one window length from now.
    """
    following = tuple(occurrences(window, now, 3)) if window else ()
    hint = f"The next window starts {_spoken(following[0], window)}." if following and window else "No further window is declared."
    if window is not None:
        # a window that began on the evening before a blackout: nothing starts any more once the day has come
        today = window.blackout_on(now.astimezone(window.zone).date())
        for begin, blackout in window.starts(now - window.duration):
            if begin > now:
                break
            blackout = blackout or today
            if blackout is None:
                return Decision(True, "inside the window", begin, begin + window.duration, following)
            hint = f"{blackout.first} to {blackout.last} is a blackout ({blackout.reason}). {hint}"
    if force_reason:
        end = now + (window.duration if window else timedelta(hours=4))
        return Decision(True, f"window overridden: {force_reason}", now, end, following)
    what = "It is outside the maintenance window." if window else "No maintenance window is declared for this cadence."
    return Decision(False, f"{what} {hint} To start now, give maintenance_force_window a reason.", None, None, following)


def _spoken(moment: datetime, window: Window | None) -> str:
    local = moment.astimezone(window.zone) if window else moment
    return local.strftime("%A %Y-%m-%d %H:%M %Z")


def describe(windows: Mapping[str, Any] | None, cadence: str, blackouts: Sequence[Any] | None) -> Window | None:
    """Return the window of a cadence from ``maintenance_windows``, or ``None`` when it has none."""
    if windows is None or windows == {}:
        return None
    if not isinstance(windows, Mapping):
        raise InputError.of("maintenance_windows", windows, "a mapping of cadence to window", "correct the inventory")
    if cadence not in windows:
        return None
    return parse(windows[cadence], blackouts, f"maintenance_windows.{cadence}")
