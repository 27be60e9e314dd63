# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log-in attempts of a period: how many, whose, from where, and who got in."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import typing as t
from bisect import bisect_left, bisect_right
from collections import Counter
from datetime import datetime, timezone

from . import log_journal, security_login_patterns
from .errors import MaintenanceError
from .judge import many
from .record import Finding
from .security_common import Review, filled, unknown
from .security_login_patterns import bursts
from .security_login_sources import OTHERS, Tally, no_file, read_journal, read_source

OPTIONS: dict[str, t.Any] = {
    "days": {"type": "int", "default": 7},
    "login_sources": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
            "format": {"type": "str", "choices": ["json", "auth", "wtmp", "btmp"], "default": "json"},
            "timezone": {"type": "str", "default": "UTC"},
            "event_fields": {"type": "list", "elements": "str", "default": ["event", "event_type", "action"]},
            "account_fields": {
                "type": "list",
                "elements": "str",
                "default": ["username", "user", "account", "email", "login", "user_name", "user_id"],
            },
            "address_fields": {
                "type": "list",
                "elements": "str",
                "default": ["client_ip", "remote_addr", "source_ip", "src_ip", "ip_address", "remote_ip", "ip"],
            },
            "failure_pattern": {"type": "str"},
            "success_pattern": {"type": "str"},
        },
    },
    "journal": {"type": "str", "choices": ["auto", "true", "false"], "default": "auto"},
    "failed_logins_warning": {"type": "int", "default": 50},
    "failed_logins_critical": {"type": "int"},
    "brute_force_failures": {"type": "int", "default": 10},
    "brute_force_minutes": {"type": "int", "default": 10},
    "success_after_failures": {"type": "int", "default": 5},
    **security_login_patterns.OPTIONS,
}
IDS = ("security.failed_logins", "security.brute_force", "security.success_after_failures", *security_login_patterns.IDS[:3])

SUCCESS_WINDOW_SECONDS = 86400
_SLACK_SECONDS = 3600


def intrusions(tally: Tally, failures: int) -> list[str]:
    """Return who logged in from an address that had failed at least so often in the day before."""
    found = []
    for address, successes in tally.successes.items():
        ordered = sorted(tally.failures.get(address, ()))
        for moment, account in sorted(successes):
            before = bisect_right(ordered, moment) - bisect_left(ordered, moment - SUCCESS_WINDOW_SECONDS)
            if address != "(no address)" and before >= failures:
                when = datetime.fromtimestamp(moment, timezone.utc).isoformat()
                found.append(f"{account or '(no account)'} from {address} at {when} after {before} failures")
                break
    return sorted(found)


def look(review: Review) -> list[Finding]:
    """Read every source once and judge the period."""
    params = review.params
    until = review.now.timestamp()
    tally = Tally(until - params["days"] * 86400, until + 300)
    auth_read = 0
    for source in params["login_sources"]:
        read = read_source(source, tally)
        auth_read += read if source["format"] == "auth" else 0
    if params["journal"] == "true" or (params["journal"] == "auto" and not auth_read):
        problem = read_journal(review, tally)
        if problem and (params["journal"] == "true" or not tally.sources):
            tally.problems.append(problem)
        if not problem:  # hosts without rsyslog keep no auth log, and the journal has what it would say
            absent = {no_file(source) for source in params["login_sources"] if source["format"] == "auth"}
            tally.problems = [said for said in tally.problems if said not in absent]
    return verdicts(review, tally)


def verdicts(review: Review, tally: Tally) -> list[Finding]:
    """Turn the tally into findings."""
    params = review.params
    subject = "log-ins"
    if not tally.sources:
        reason = "; ".join(tally.problems) or "no source is declared"
        advice = "Declare log-in sources that exist and can be read, or run with become: true."
        return [unknown(name, subject, f"no source of log-ins could be read: {reason}", advice) for name in IDS]
    review.count("security.failed_logins", subject, tally.total)
    review.count("security.failed_login_addresses", subject, len(tally.failures))
    tally.short = [name for name in tally.folders if _is_short(review, tally, name)]
    gaps = _gaps(tally)
    findings = [_total(params, tally, gaps), _brute_force(params, tally, gaps), _intrusion(params, tally, gaps)]
    return findings + security_login_patterns.verdicts(review, tally, gaps, _missed(tally))


def _is_short(review: Review, tally: Tally, name: str) -> bool:
    """Whether a source lacks the begin of the period, and neither the host nor the source is so young: one that was emptied looks so."""
    oldest = tally.begins.get(name, tally.until)
    return oldest > tally.since + _SLACK_SECONDS and oldest > _exists_since(review, tally.folders[name]) + _SLACK_SECONDS


def _exists_since(review: Review, folders: t.Sequence[str]) -> float:
    """Return since when a source can have been written: since this host is there, or since the first of its folders was made."""
    births = []
    if folders:
        with contextlib.suppress(MaintenanceError):
            said = review.host.run(["stat", "--format=%W", "--", *folders]).stdout.split()
            births = [int(word) for word in said if word.isdigit()]
    return max(log_journal.host_since(), min(births, default=0))


def _gaps(tally: Tally) -> str:
    gaps = list(tally.problems)
    if tally.undated:
        gaps.append(f"{tally.undated} failures without a readable time were not counted")
    for name, oldest in tally.begins.items():
        if oldest > tally.since + _SLACK_SECONDS:
            begin = datetime.fromtimestamp(oldest, timezone.utc).isoformat(timespec="minutes")
            gaps.append(f"{name} begins at {begin}, after the period's start")
    gaps += [f"{name} holds no record with a time" for name in tally.short if name not in tally.begins]
    return "; ".join(gaps)


def _missed(tally: Tally) -> bool:
    return bool(tally.problems or tally.undated or tally.short)


def _total(params: t.Mapping[str, t.Any], tally: Tally, gaps: str) -> Finding:
    warning, critical = params["failed_logins_warning"], params["failed_logins_critical"]
    state = "warning" if tally.total > warning else "ok"
    if critical is not None and tally.total > critical:
        state = "critical"
    accounts = ", ".join(f"{name} ({count})" for name, count in tally.accounts.most_common(10))
    addresses = Counter({address: len(times) for address, times in tally.failures.items()}).most_common(10)
    return Finding(
        "security.failed_logins",
        "unknown" if state == "ok" and _missed(tally) else state,
        "log-ins",
        f"{tally.total} failed and {many(tally.succeeded, 'successful log-in')} in {many(params['days'], 'day')}",
        value=tally.total,
        unit="count",
        threshold=f"warning above {warning}" + (f", critical above {critical}" if critical is not None else ""),
        not_covered=gaps,
        advice=_advice(state, tally, "Look at the accounts and addresses behind them; block the addresses or lock the accounts."),
        evidence=[
            f"sources: {', '.join(tally.sources)}",
            *([f"accounts: {accounts}"] if accounts else []),
            *(f"address {address}: {many(count, 'failure')}" for address, count in addresses),
        ],
    )


def _brute_force(params: t.Mapping[str, t.Any], tally: Tally, gaps: str) -> Finding:
    limit, minutes = params["brute_force_failures"], params["brute_force_minutes"]
    attackers = Counter(
        {
            address: most
            for address, times in tally.failures.items()
            for most in [bursts(times, limit, minutes * 60)]
            if most and address not in (OTHERS, "(no address)")
        }
    )
    state = "warning" if attackers else "ok"
    return Finding(
        "security.brute_force",
        "unknown" if state == "ok" and _missed(tally) else state,
        "log-ins",
        f"{many(len(attackers), 'address', 'addresses')} failed {limit} times or more within {minutes} minutes",
        value=len(attackers),
        unit="count",
        threshold=f"warning from {limit} failures of one address within {minutes} minutes",
        not_covered=gaps,
        advice=_advice(state, tally, "Block these addresses (firewall, fail2ban) and check that none of them got in."),
        evidence=[
            f"{address}: up to {most} within {minutes} minutes, {len(tally.failures[address])} in all"
            for address, most in attackers.most_common(20)
        ],
    )


def _intrusion(params: t.Mapping[str, t.Any], tally: Tally, gaps: str) -> Finding:
    limit = params["success_after_failures"]
    found = intrusions(tally, limit)
    state = "critical" if found else "ok"
    return Finding(
        "security.success_after_failures",
        "unknown" if state == "ok" and _missed(tally) else state,
        "log-ins",
        f"{many(len(found), 'address', 'addresses')} logged in after failing {limit} times or more within a day",
        value=len(found),
        unit="count",
        threshold=f"critical from {limit} failures before a success from the same address",
        not_covered=gaps,
        advice=_advice(state, tally, "Ask the owner of the account; if it was not them, lock it and treat the host as intruded."),
        evidence=found[:20],
    )


def _advice(state: str, tally: Tally, otherwise: str) -> str:
    if state != "ok":
        return otherwise
    return "Make the sources readable and complete (see what was not covered)." if _missed(tally) else ""


def passes_bad_sample(review: Review) -> str:
    """Plant a failed log-in in a JSON log and an auth log; return the sample that was not noticed."""
    moment = review.now.isoformat()
    samples = {
        "json": json.dumps({"timestamp": moment, "event": "login_failed", "username": "a", "client_ip": "192.0.2.1"}) + "\n",
        "auth": f"{moment} host sshd[1]: Failed password for a from 192.0.2.1 port 2 ssh2\n",
    }
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        for kind, text in samples.items():
            path = os.path.join(folder, kind)
            with open(path, "w", encoding="utf-8") as sample:
                sample.write(text)
            tally = Tally(review.now.timestamp() - 3600, review.now.timestamp() + 3600)
            source = {"name": kind, "paths": [path], "format": kind}
            read_source(filled(OPTIONS["login_sources"]["options"], source), tally)
            if tally.total != 1:
                return f"a log ({kind}) with one failed log-in as a log without"
    return ""
