# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts on what was counted in each source of logs."""

from __future__ import annotations

import ipaddress
import typing as t
from collections import Counter
from datetime import datetime, timezone

from .judge import from_limit, many
from .log_database import database_findings
from .log_history import LEAST_LOOKS, Look, compare, patterns_against
from .log_journal import host_since, is_persistent
from .log_report import percentile
from .log_scan import Scanned
from .log_tally import ERROR_LEVELS
from .record import Finding, Json, clean

_EVIDENCE_BYTES = 12_000
_YOUNG_HOST_SECONDS = 3600.0
_SOURCES_IN_FULL = 12
_PROXY_REQUESTS = 100
_PROXY_SHARE = 0.9


Limits = t.Mapping[str, float]


def judge(
    scanned: t.Sequence[Scanned], limits: t.Mapping[str, Limits], earlier: Json, now: float, since: float, look: Look
) -> list[Finding]:
    """Give the verdicts on every source.

    :param limits: by the name of the source; those of a container are its source's.
    """
    findings: list[Finding] = []
    budget = max(3, min(20, _EVIDENCE_BYTES // (160 * max(len(scanned), 1))))
    for one in scanned:
        own = limits.get(one.source.name) or limits.get(one.source.name.partition("/")[0]) or limits[""]
        findings += _readable(one)
        if not one.was_read:
            continue
        findings += [*_silence(one, earlier, now), *_reach(one, since)]
        if one.tally.parsed:
            findings.append(_unparsed(one, own["unparsed_percent"]))
        elif one.tally.lines or any(seen.problem for seen in one.files.values()):
            findings.append(_nothing_read(one))
            continue
        findings += _counted(one, own, earlier.get("history", {}).get(one.source.name, {}), look, budget)
    if len(scanned) > _SOURCES_IN_FULL:  # many containers: what is well of each is said once, so that the record stays small
        findings = [finding for finding in findings if finding.state != "ok" or finding.id == "logs.errors"]
    return findings


def nothing_declared() -> Finding:
    return Finding(
        "logs.missing", "unknown", "logs", "No source of logs is declared, so nothing was looked at.",
        advice="Declare the logs of this system as sources.",
    )  # fmt: skip


def _readable(one: Scanned) -> list[Finding]:
    name = one.source.name
    findings = []
    if not one.was_read:
        said = f"No file matches {', '.join(one.source.paths)}." if one.source.paths else f"Some logs of {name} are out of reach."
        findings.append(
            Finding(
                "logs.missing", "unknown", name, said,
                advice="Correct the paths of this source, or find out why it writes no logs.",
                evidence=one.problems,
            )
        )  # fmt: skip
    elif one.problems or any(seen.problem for seen in one.files.values()):
        bad = [f"{clean(path)}: {seen.problem}" for path, seen in one.files.items() if seen.problem]
        lines = [*bad, *map(clean, one.problems)]
        findings.append(
            Finding(
                "logs.unreadable", "unknown", name, f"{len(lines)} of the files of {name} could not be read whole.",
                value=len(lines), unit="count", threshold="unknown from 1 count",
                not_covered="what these files hold, as far as it could not be read",
                advice="Look at each: a damaged file is worth a copy, a link needs its target named in paths, a rotated log its other forms.",
                evidence=lines,
            )
        )  # fmt: skip
    else:
        findings.append(Finding("logs.unreadable", "ok", name, f"{many(len(one.files), 'file')} read whole."))
    return findings


def _silence(one: Scanned, earlier: Json, now: float) -> list[Finding]:
    limit = one.source.silence_hours
    if not limit:
        return []
    latest = max(one.tally.latest, float(earlier.get("latest", {}).get(one.source.name, 0.0)))
    if not latest:
        return [
            Finding(
                "logs.silent", "warning", one.source.name, f"{one.source.name} holds no record that tells its time.",
                threshold=f"warning from {limit:g} hours", advice="Find out whether the service still writes its log.",
            )
        ]  # fmt: skip
    hours = max(now - latest, 0.0) / 3600
    gap = _longest_gap(one)
    state = from_limit(max(hours, gap), limit)
    said = f"The last record of {one.source.name} is {hours:.1f} hours old, the longest pause in the span {gap:.0f} hours."
    advice = "Find out whether the service was down, logs elsewhere, or lost its log file at a rotation."
    return [
        Finding(
            "logs.silent", state, one.source.name, said, value=round(max(hours, gap), 1), unit="hours",
            threshold=f"warning from {limit:g} hours", advice="" if state == "ok" else advice,
        )
    ]  # fmt: skip


def _reach(one: Scanned, since: float) -> list[Finding]:
    """Judge whether a journal holds the span at all: a volatile one begins anew with each boot."""
    if one.source.form != "journal" or one.reaches_back_to is None:
        return []
    oldest = one.reaches_back_to
    shown = datetime.fromtimestamp(oldest, timezone.utc).isoformat(timespec="minutes")
    missing = (oldest - since) / 3600
    if missing <= 1 or oldest <= host_since() + _YOUNG_HOST_SECONDS:
        return [Finding("logs.journal_reach", "ok", one.source.name, f"The journal reaches back to {shown}.")]
    kept = is_persistent()
    why = "it was rotated since" if kept else "it does not outlive a reboot"
    advice = "Raise SystemMaxUse in journald.conf." if kept else "Set Storage=persistent in journald.conf, and restart systemd-journald."
    return [
        Finding(
            "logs.journal_reach", "unknown", one.source.name, f"The journal reaches back to {shown} only; {why}.",
            value=round(missing, 1), unit="hours", threshold="unknown from 1 hours missing",
            not_covered=f"the first {missing:.0f} hours of the span", advice=advice,
        )
    ]  # fmt: skip


def _longest_gap(one: Scanned) -> float:
    """Return the longest pause between records of the span, in whole hours."""
    hours = sorted({hour for hour, _level in one.tally.hours})
    return max((b - a) / 3600 - 1 for a, b in zip(hours, hours[1:])) if len(hours) > 1 else 0.0


def _nothing_read(one: Scanned) -> Finding:
    return Finding(
        "logs.unparsed", "unknown", one.source.name,
        f"None of the {one.tally.lines} lines of {one.source.name} could be understood.",
        value=100.0, unit="percent", advice="Set the format of this source to what it really writes.",
    )  # fmt: skip


def _unparsed(one: Scanned, limit: float) -> Finding:
    tally = one.tally
    share = 100.0 * tally.unparsed / max(tally.lines, 1)
    state = from_limit(share, limit) if tally.unparsed else "ok"
    cut = f", {tally.cut} longer than the limit were cut" if tally.cut else ""
    return Finding(
        "logs.unparsed", state, one.source.name,
        f"{tally.unparsed} of {tally.lines} lines of {one.source.name} could not be understood{cut}.",
        value=round(share, 3), unit="percent", threshold=f"warning from {limit:g} percent",
        not_covered=f"{tally.unparsed} lines" if tally.unparsed else "",
        advice="" if state == "ok" else "Set the format of this source, or find out what breaks its lines.",
    )  # fmt: skip


class _Count(t.NamedTuple):
    """A verdict on a number: what to say, from which value on, and how bad that is."""

    id: str
    what: str
    seen: int
    limit: int
    state: str
    advice: str
    evidence: list[str]


def _counted(one: Scanned, limits: Limits, history: Json, look: Look, budget: int) -> list[Finding]:
    findings = [_count_finding(one, count) for count in _counts(one, limits, budget)]
    findings += [_brute_force(one, int(limits["brute_force_limit"])), _new_patterns(one, history, look, budget)]
    if limits["anomaly_factor"]:
        findings.append(_anomaly(one, history, look, limits["anomaly_factor"]))
    if one.tally.statuses:
        findings += [_server_errors(one, limits["server_error_percent"]), _clients(one)]
    if limits["latency_p95_seconds"] and one.tally.records:
        findings.append(_latency(one, limits["latency_p95_seconds"]))
    if one.tally.is_database:
        findings += database_findings(one.source.name, one.tally, limits)
    return findings


def _counts(one: Scanned, limits: Limits, budget: int) -> list[_Count]:
    tally = one.tally
    critical = sum(count for level, count in tally.by_level().items() if level in ERROR_LEVELS and level != "ERROR")
    return [
        _Count("logs.errors", "errors", tally.errors(), int(limits["error_limit"]) + 1, "warning",
               "Go through the patterns below, most frequent first; the report holds all of them.", top_patterns(one, budget)),
        _Count("logs.critical", "records worse than an error", critical, 1, "warning",
               "Look at each of them before further changes.", top_patterns(one, 5, worse=True)),
        _Count("logs.auth_failures", "failed logins", tally.tags["auth_failures"], int(limits["auth_failure_limit"]) + 1, "warning",
               "See which accounts and addresses they come from; lock out or block what is no mistake.",
               _top(tally.auth_addresses, "from") + _top(tally.accounts, "account")),
        _Count("logs.rate_limited", "requests over a rate limit", tally.tags["rate_limited"],
               int(limits["rate_limited_limit"]) + 1, "warning",
               "See which clients ask too often; slow them down or raise their limit.",
               _top(tally.limited_addresses, "from") + _top(tally.limited_endpoints, "to")),
        _Count("logs.io_errors", "input or output errors", tally.tags["io_errors"], 1, "critical",
               "Check the disk, the file system and the newest backup before anything else.", tally.examples.get("io_errors", [])),
        _Count("logs.out_of_memory", "records of lacking memory", tally.tags["out_of_memory"], 1, "warning",
               "Find what grew; give the service a memory limit or the host more memory.",
               tally.examples.get("out_of_memory", [])),
        _Count("logs.deadlocks", "deadlocks", tally.tags["deadlocks"], int(limits["deadlock_limit"]) + 1, "warning",
               "See which statements wait for each other; let the application take its locks in one order.",
               tally.examples.get("deadlocks", [])),
    ]  # fmt: skip


def _count_finding(one: Scanned, count: _Count) -> Finding:
    state = count.state if count.seen >= count.limit else "ok"
    return Finding(
        count.id, state, one.source.name, f"{count.seen} {count.what} in {one.source.name}.",
        value=count.seen, unit="count", threshold=f"{count.state} from {count.limit} count",
        advice="" if state == "ok" else count.advice,
        evidence=[] if state == "ok" else [clean(line, 160) for line in count.evidence],
    )  # fmt: skip


def top_patterns(one: Scanned, count: int, worse: bool = False) -> list[str]:
    """Return the most frequent error patterns with an example each; ``worse``: only those worse than an error."""
    templates = [(k, v) for k, v in one.tally.templates.items() if not worse or v.level != "ERROR"]
    templates.sort(key=lambda item: (-item[1].count, item[0]))
    return [f"{v.count} x {clean(k, 90)} | {v.example}" for k, v in templates[:count]]


def _top(counter: Counter[bytes], word: str, most: int = 5) -> list[str]:
    return [
        f"{count} x {word} {clean(key.decode('utf-8', 'replace'), 80)}"
        for key, count in sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:most]
        if key not in (b"", b"-")
    ]


def _brute_force(one: Scanned, limit: int) -> Finding:
    addresses = Counter({key: n for key, n in one.tally.auth_addresses.items() if key not in (b"", b"-")})
    most = max(addresses.values(), default=0)
    guessing = sum(1 for count in addresses.values() if count >= limit)
    state = from_limit(most, limit, limit * 10)
    nameless = one.tally.tags["auth_failures"] - sum(addresses.values())
    return Finding(
        "logs.brute_force", state, one.source.name,
        f"{many(guessing, 'address', 'addresses')} failed to log in {limit} times or more; the most by one address is {most}.",
        value=most, unit="count", threshold=f"warning from {limit} count, critical from {limit * 10} count",
        basis="estimated" if "auth_addresses" in one.tally.inexact else "exact",
        not_covered=f"{nameless} failed logins that name no address" if nameless > 0 else "",
        advice="" if state == "ok" else "Block these addresses, and check whether one of them logged in at last.",
        evidence=[] if state == "ok" else _top(addresses, "from"),
    )  # fmt: skip


def _new_patterns(one: Scanned, history: Json, look: Look, budget: int) -> Finding:
    name = one.source.name
    if not history:
        return Finding(
            "logs.new_patterns", "ok", name, f"{len(one.tally.templates)} error patterns are kept to compare the next run with.",
            not_covered="a comparison, as no earlier run is known",
        )  # fmt: skip
    new, gone = patterns_against(one, history, look)
    state = "warning" if new else "ok"
    return Finding(
        "logs.new_patterns", state, name,
        f"{len(new)} error patterns of {name} were never seen before, {len(gone)} vanished since the previous run.",
        value=len(new), unit="count", threshold="warning from 1 count",
        advice="" if state == "ok" else "Find out what changed since the previous run; document what is known.",
        evidence=[f"new: {clean(text, 150)}" for text in new[:budget]] + [f"vanished: {clean(text, 150)}" for text in gone[:3]],
    )  # fmt: skip


def _anomaly(one: Scanned, history: Json, look: Look, factor: float) -> Finding:
    name, day = one.source.name, look.started.strftime("%A")
    compared = compare(one, history, look, factor)
    if compared.looks < LEAST_LOOKS:
        return Finding(
            "logs.anomaly", "ok", name, f"The counts of {name} are kept to compare other {day}s with.",
            not_covered=f"a comparison, as {compared.looks} of {LEAST_LOOKS} earlier {day}s are known",
        )  # fmt: skip
    state = "warning" if compared.unusual else "ok"
    return Finding(
        "logs.anomaly", state, name, f"{many(len(compared.unusual), 'count')} of {name} differ from what a {day} usually brings.",
        value=len(compared.unusual), unit="count", threshold=f"warning from {factor:g} times the usual count, or a part of it",
        advice="" if state == "ok" else "Find out what changed: load, a release, a client, or a service that stopped.",
        evidence=compared.unusual,
    )  # fmt: skip


def _latency(one: Scanned, limit: float) -> Finding:
    value = percentile(one.tally.latencies, 95)
    if value is None:
        return Finding(
            "logs.latency", "unknown", one.source.name, f"No record of {one.source.name} tells a response time.",
            threshold=f"warning from {limit:g} seconds",
            advice="Have the server log it, such as nginx with $request_time, or leave latency_p95_seconds out.",
        )  # fmt: skip
    state = from_limit(value, limit)
    return Finding(
        "logs.latency", state, one.source.name, f"95 of 100 requests of {one.source.name} took {value:g} s or less.",
        value=value, unit="seconds", threshold=f"warning from {limit:g} seconds",
        basis="estimated" if "latencies" in one.tally.inexact else "exact",
        advice="" if state == "ok" else "See which requests are slow and since which hour.",
    )  # fmt: skip


def _clients(one: Scanned) -> Finding:
    """Name the busiest clients; where nearly all seem to be one private address, that is a proxy and no client."""
    addresses, name = one.tally.addresses, one.source.name
    total = sum(one.tally.statuses.values())
    busiest = _top(addresses, "from", 20)
    first, most = max(addresses.items(), key=lambda item: item[1], default=(b"", 0))
    if total >= _PROXY_REQUESTS and most >= _PROXY_SHARE * total and not one.source.proxies and _is_private(first):
        shown = clean(first.decode("utf-8", "replace"), 60)
        return Finding(
            "logs.clients", "unknown", name, f"{most} of {total} requests come from {shown}, which looks like a proxy.",
            value=most, unit="count", not_covered="the clients behind it",
            advice="Name it in trusted_proxies, and log X-Forwarded-For as the last quoted field.", evidence=busiest,
        )  # fmt: skip
    return Finding(
        "logs.clients", "ok", name, f"{many(len(addresses), 'address', 'addresses')} sent {total} requests.",
        value=len(addresses), unit="count", basis="estimated" if "addresses" in one.tally.inexact else "exact", evidence=busiest,
    )  # fmt: skip


def _is_private(text: bytes) -> bool:
    try:
        return ipaddress.ip_address(text.decode("ascii", "replace")).is_private
    except ValueError:
        return False


def _server_errors(one: Scanned, limit: float) -> Finding:
    answers = sum(one.tally.statuses.values())
    failed = sum(count for status, count in one.tally.statuses.items() if status[:1] == b"5")
    share = 100.0 * failed / answers
    state = from_limit(share, limit)
    return Finding(
        "logs.server_errors", state, one.source.name, f"{failed} of {answers} requests ended with a server error.",
        value=round(share, 3), unit="percent", threshold=f"warning from {limit:g} percent",
        advice="" if state == "ok" else "See which paths fail, and the application's log at the same hours.",
        evidence=[] if state == "ok" else [clean(line, 160) for line in top_patterns(one, 5)],
    )  # fmt: skip


def unproven(finding: Finding) -> Finding:
    return Finding(
        finding.id, "unknown", finding.subject, f"The log reader did not pass its own test. {finding.summary}",
        advice="Report this as a defect of the collection.",
    )  # fmt: skip
