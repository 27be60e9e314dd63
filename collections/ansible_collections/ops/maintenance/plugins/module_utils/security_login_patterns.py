# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is unusual about log-ins: one account under attack, an address new to an account, odd hours, an unusual number."""

from __future__ import annotations

import ipaddress
import re
import statistics
import typing as t
from collections import Counter
from datetime import datetime, timezone

from .errors import InputError, MaintenanceError, refusal
from .judge import many
from .log_lines import zone_of
from .paths import read_state
from .record import Finding
from .security_common import Review, unknown

if t.TYPE_CHECKING:
    from .security_login_sources import Tally

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OPTIONS: dict[str, t.Any] = {
    "known_networks": {"type": "list", "elements": "str", "default": []},
    "usual_hours": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "days": {"type": "list", "elements": "str", "choices": list(DAYS), "default": list(DAYS)},
            "begin": {"type": "str", "required": True},
            "end": {"type": "str", "required": True},
        },
    },
    "usual_hours_timezone": {"type": "str", "default": "UTC"},
    "usual_hours_except": {"type": "list", "elements": "str", "default": []},
    "volume_factor": {"type": "float", "default": 3.0},
}
IDS = ("security.brute_force_accounts", "security.new_addresses", "security.login_volume", "security.odd_hours")
STATE_FILE = "security_logins.json"

_SUBJECT = "log-ins"
_KEEP_SECONDS = 400 * 86400
_KNOWN_LIMIT = 20_000
_PERIODS = 500
_LEAST_PERIODS = 3
_LEAST_A_DAY = 10.0
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)$|24:00$")


def bursts(times: t.Sequence[int], failures: int, seconds: int) -> int:
    """Return the most failures within any span of that many seconds if they reach ``failures``, else 0."""
    ordered = sorted(times)
    start, most = 0, 0
    for end, moment in enumerate(ordered):
        while moment - ordered[start] > seconds:
            start += 1
        most = max(most, end - start + 1)
    return most if most >= failures else 0


def verdicts(review: Review, tally: Tally, gaps: str, missed: bool) -> list[Finding]:
    """Judge the period by itself and against what earlier runs saw.

    :param missed: part of the sources was not read, so that an empty answer proves nothing.
    """
    findings = [_attacked(review, tally, gaps, missed)]
    try:
        known = read_state(review.params["state_dir"], STATE_FILE)
    except (OSError, MaintenanceError) as error:
        findings += [unknown(name, _SUBJECT, f"what earlier runs saw cannot be read: {error}", "Follow that advice.") for name in IDS[1:3]]
    else:
        findings += [_new_addresses(review, tally, known, gaps, missed), _volume(review, tally, known, gaps, missed)]
        if not review.check_mode:
            review.keep(STATE_FILE, remembered(known, tally, review))
    if review.params["usual_hours"]:
        findings.append(_odd_hours(review, tally, gaps, missed))
    return findings


def _finding(
    finding_id: str, bad: str, found: t.Sequence[str], summary: str, threshold: str, advice: str, gaps: str, missed: bool
) -> Finding:
    state = bad if found else "unknown" if missed else "ok"
    incomplete = "Make the sources readable and complete (see what was not covered)."
    return Finding(
        finding_id,
        state,
        _SUBJECT,
        summary,
        value=len(found),
        unit="count",
        threshold=threshold,
        not_covered=gaps,
        advice={"ok": "", "unknown": incomplete}.get(state, advice),
        evidence=found[:20],
    )


def _attacked(review: Review, tally: Tally, gaps: str, missed: bool) -> Finding:
    limit, minutes = review.params["brute_force_failures"], review.params["brute_force_minutes"]
    named = {name: times for name, times in tally.account_failures.items() if not name.startswith("(")}
    most = Counter({name: bursts(times, limit, minutes * 60) for name, times in named.items()})
    found = [f"{name}: up to {count} within {minutes} minutes" for name, count in most.most_common() if count]
    return _finding(
        IDS[0],
        "warning",
        found,
        f"{many(len(found), 'account')} met {limit} failures or more within {minutes} minutes, from whatever addresses",
        f"warning from {limit} failures of one account within {minutes} minutes",
        "Look whether these accounts exist and got in afterwards; lock them or ask for a second factor.",
        gaps,
        missed,
    )


def _is_known_network(address: str, networks: t.Sequence[str]) -> bool:
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        return address == "(no address)"
    return host.is_loopback or any(host in ipaddress.ip_network(network, strict=False) for network in networks)


def first_uses(tally: Tally) -> dict[str, dict[str, int]]:
    """Return when each account first logged in from each address within the period."""
    found: dict[str, dict[str, int]] = {}
    for address, successes in tally.successes.items():
        for moment, account in successes:
            uses = found.setdefault(account or "(no account)", {})
            uses[address] = min(moment, uses.get(address, moment))
    return found


def _new_addresses(review: Review, tally: Tally, known: t.Mapping[str, t.Any], gaps: str, missed: bool) -> Finding:
    begun = known.get("begun")
    before = known.get("addresses", {})
    new = [
        f"{account} from {address} since {datetime.fromtimestamp(moment, timezone.utc).isoformat()}"
        for account, uses in sorted(first_uses(tally).items())
        for address, moment in uses.items()
        for first in [min(moment, before.get(account, {}).get(address, [moment])[0])]
        if begun is not None and first > begun and first >= tally.since
        if not _is_known_network(address, review.params["known_networks"])
    ]
    first_sight = "first sight, later runs report what is new" if begun is None else ""
    return _finding(
        IDS[1],
        "warning",
        new,
        first_sight or f"{many(len(new), 'log-in')} from an address that is new to the account",
        "warning from 1 outside security_review_known_networks",
        "Ask the owner of the account; where it was not them, lock it and treat the host as intruded.",
        "; ".join(filter(None, [gaps, "log-ins before this run" if first_sight else ""])),
        missed,
    )


def unusual(now: float, earlier: t.Sequence[float], factor: float, least: float) -> str:
    """Say how far a number a day is above that of earlier periods; empty when it is not, or too few are known."""
    if len(earlier) < _LEAST_PERIODS or now < least:
        return ""
    usual = statistics.median(earlier)
    return f"{now:.1f} a day, usually {usual:.1f}" if now > factor * max(usual, least / factor) else ""


def _volume(review: Review, tally: Tally, known: t.Mapping[str, t.Any], gaps: str, missed: bool) -> Finding:
    periods = _apart(known, tally)
    days, factor = review.params["days"], review.params["volume_factor"]
    found = []
    for name, count, place in (("successful", tally.succeeded, 1), ("failed", tally.total, 2)):
        said = unusual(count / days, [period[place] for period in periods], factor, _LEAST_A_DAY)
        found += [f"{name} log-ins: {said}"] if said else []
    enough = len(periods) >= _LEAST_PERIODS
    few = "" if enough else f"fewer than {_LEAST_PERIODS} earlier periods are known"
    return _finding(
        IDS[2],
        "warning",
        found,
        "more log-ins than usual" if found else "as many log-ins as usual" if enough else "not enough earlier runs to compare with",
        f"warning above {factor:g} times the median of earlier periods, from {_LEAST_A_DAY:g} a day",
        "Look who or what logs in so often.",
        "; ".join(filter(None, [gaps, few])),
        missed,
    )


def _apart(known: t.Mapping[str, t.Any], tally: Tally) -> list[list[float]]:
    """Return the earlier periods that ended before this one began, so that a daily run is not compared with itself."""
    return [period for period in known.get("periods", []) if period[0] <= tally.since + 3600]


def remembered(known: t.Mapping[str, t.Any], tally: Tally, review: Review) -> dict[str, t.Any]:
    """Return what the next run is to know: first and last use of each address, log-ins a day; old ones are dropped."""
    addresses: dict[str, dict[str, list[int]]] = {name: dict(uses) for name, uses in known.get("addresses", {}).items()}
    room = _KNOWN_LIMIT - sum(map(len, addresses.values()))
    for account, uses in first_uses(tally).items():
        for address, moment in uses.items():
            old = addresses.setdefault(account, {}).get(address)
            if old or room > 0:
                room -= not old
                addresses[account][address] = [min(moment, *old[:1]) if old else moment, int(tally.until)]
    oldest = tally.until - _KEEP_SECONDS
    kept = {name: {address: span for address, span in uses.items() if span[1] >= oldest} for name, uses in addresses.items()}
    days = review.params["days"]
    periods = [*known.get("periods", []), [review.now.timestamp(), tally.succeeded / days, tally.total / days]]
    return {
        "begun": known.get("begun", review.now.timestamp()),
        "addresses": {name: uses for name, uses in kept.items() if uses},
        "periods": periods[-_PERIODS:],
    }


def _odd_hours(review: Review, tally: Tally, gaps: str, missed: bool) -> Finding:
    zone = zone_of(review.params["usual_hours_timezone"], "usual_hours_timezone")
    spans = [(entry["days"], _minutes(entry["begin"]), _minutes(entry["end"])) for entry in review.params["usual_hours"]]
    found = [
        f"{account or '(no account)'} from {address} at {moment.isoformat()}"
        for address, successes in tally.successes.items()
        for seconds, account in successes
        if account not in review.params["usual_hours_except"]
        for moment in [datetime.fromtimestamp(seconds, zone)]
        if not is_usual(moment, spans)
    ]
    return _finding(
        IDS[3],
        "warning",
        sorted(found),
        f"{many(len(found), 'log-in')} outside the usual hours",
        "warning from 1 outside security_review_usual_hours",
        "Ask the owner of the account whether it was them.",
        gaps,
        missed,
    )


def is_usual(moment: datetime, spans: t.Iterable[tuple[t.Sequence[str], int, int]]) -> bool:
    """Whether a moment lies in one of the spans; one that ends before it begins goes on into the next day."""
    minute, day, day_before = moment.hour * 60 + moment.minute, DAYS[moment.weekday()], DAYS[moment.weekday() - 1]
    for days, begin, end in spans:
        if begin <= end and day in days and begin <= minute < end:
            return True
        if begin > end and ((day in days and minute >= begin) or (day_before in days and minute < end)):
            return True
    return False


def _minutes(clock: str) -> int:
    hours, _colon, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = refusal(zone_of, params["usual_hours_timezone"], "usual_hours_timezone")
    for entry in params["usual_hours"]:
        unclear = [name for name in ("begin", "end") if not _CLOCK.match(entry[name])]
        wrong += [str(InputError.of(f"usual_hours.{name}", entry[name], "a time such as 07:30", "correct it")) for name in unclear]
    for network in params["known_networks"]:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            wrong.append(str(InputError.of("known_networks", network, "a network such as 10.0.0.0/8", "correct it")))
    if not params["volume_factor"] > 1:
        wrong.append(str(InputError.of("volume_factor", params["volume_factor"], "a number above 1", "correct it")))
    return wrong
