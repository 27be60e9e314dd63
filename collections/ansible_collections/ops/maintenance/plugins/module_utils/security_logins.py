# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log-in attempts from JSON lines, auth logs and the journal: how many, whose, from where, and who got in."""

from __future__ import annotations

import json
import os
import re
import tempfile
import typing as t
from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .errors import MaintenanceError
from .judge import many
from .log_lines import Clock, LineReader, find_files, json_record, strip_compression, zone_of
from .record import Finding, clean
from .security_attempts import Attempt, AuthReader, JsonReader
from .security_common import Review, filled, shown, unknown

OPTIONS: dict[str, t.Any] = {
    "days": {"type": "int", "default": 7},
    "login_sources": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
            "format": {"type": "str", "choices": ["json", "auth"], "default": "json"},
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
}
IDS = ("security.failed_logins", "security.brute_force", "security.success_after_failures")

SUCCESS_WINDOW_SECONDS = 86400
_MAYBE = re.compile(rb"(?i)auth|log.?[io]n|logged|password|credential|sign.?in")
_DISTINCT_LIMIT = 50_000
_OTHERS = "(others)"
_PROBED_LINES = 20
_SIBLINGS = ("", ".[0-9]*", "-[0-9]*", ".gz", ".xz", ".bz2", ".zst")
_JOURNAL_FOLDERS = ("/var/log/journal", "/run/log/journal")


@dataclass
class Tally:
    """What all sources said about the period; memory grows with failures (four bytes each), not with the logs."""

    since: float
    until: float
    total: int = 0
    succeeded: int = 0
    undated: int = 0
    accounts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, array[int]] = field(default_factory=dict)
    successes: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reading: str = ""
    begins: dict[str, float] = field(default_factory=dict)

    def see(self, moment: float | None) -> None:
        """Remember how far back the source that is being read reaches."""
        if moment is not None:
            self.begins[self.reading] = min(moment, self.begins.get(self.reading, moment))

    def add(self, attempt: Attempt, moment: float | None) -> None:
        """Count an attempt if its own time lies in the period."""
        self.see(moment)
        if moment is None:
            self.undated += attempt.times if attempt.failed else 0
            return
        if not self.since <= moment <= self.until:
            return
        address = attempt.address or "(no address)"
        if attempt.failed:
            self.total += attempt.times
            self.accounts[_bounded(attempt.account or "(no account)", self.accounts)] += attempt.times
            times = self.failures.setdefault(_bounded(address, self.failures), array("I"))
            times.extend([int(moment)] * attempt.times)
        else:
            self.succeeded += 1
            self.successes.setdefault(_bounded(address, self.successes), []).append((int(moment), attempt.account))


def _bounded(name: str, known: t.Container[str]) -> str:
    name = clean(name.replace("\n", " "), 80)
    return name if name in known or len(known) < _DISTINCT_LIMIT else _OTHERS  # type: ignore[arg-type]


def with_siblings(patterns: t.Iterable[str]) -> list[str]:
    """Add what rotation and compression make of each pattern's files."""
    return [pattern + suffix for pattern in patterns for suffix in (("",) if pattern.endswith("*") else _SIBLINGS)]


def read_source(source: t.Mapping[str, t.Any], tally: Tally) -> int:
    """Read one declared source; return how many of its files were read."""
    tally.reading = source["name"]
    found = find_files(with_siblings(source["paths"]), "login_sources.paths")
    plain = set(found.files)
    files = [path for path in found.files if path == strip_compression(path) or strip_compression(path) not in plain]
    tally.problems.extend(f"{source['name']}: {shown(problem)}" for problem in found.problems)
    if not files:
        tally.problems.append(f"{source['name']}: no file matches {', '.join(source['paths'])}")
    auth = AuthReader()
    read = 0
    for path in sorted(files, key=os.path.getmtime):
        if os.path.getmtime(path) < tally.since:
            tally.see(os.path.getmtime(path))  # its records end before the period
            read += 1
            continue
        clock = Clock(os.path.getmtime(path), zone_of(source["timezone"], "login_sources.timezone"))
        reader = LineReader(path)
        problem = _auth_file(reader, clock, auth, tally) if source["format"] == "auth" else _json_file(reader, clock, source, tally)
        read += not reader.problem
        if reader.problem or problem:
            tally.problems.append(f"{source['name']}: {shown(path)}: {reader.problem or problem}")
    if read:
        tally.sources.append(f"{source['name']} ({many(read, 'file')})")
    return read


def _auth_file(reader: LineReader, clock: Clock, auth: AuthReader, tally: Tally) -> str:
    seen = dated = 0
    for raw in reader.lines():
        seen += 1
        if seen <= _PROBED_LINES:
            moment = clock.of_plain(raw)
            dated += moment is not None
            tally.see(moment)
        if b"repeated" not in raw and not re.search(rb"Failed|preauth|Accepted|authentication failure", raw):
            continue
        attempt = auth.line(raw.decode("utf-8", "replace"))
        if attempt:
            tally.add(attempt, clock.of_plain(raw))
    return "no line begins with a time, so it is not an auth log" if seen and not dated else ""


def _json_file(reader: LineReader, clock: Clock, source: t.Mapping[str, t.Any], tally: Tally) -> str:
    json_reader = JsonReader(source)
    seen = decoded = broken = 0
    for raw in reader.lines():
        seen += 1
        probed = seen <= _PROBED_LINES
        if not (probed or json_reader.own_patterns or _MAYBE.search(raw)):
            continue
        record = json_record(raw)
        if record is None:
            broken += bool(raw.strip())
            continue
        decoded += 1
        attempt = json_reader.record(record)
        if probed:
            tally.see(clock.of_record(record))
        if attempt:
            tally.add(attempt, clock.of_record(record))
    if seen and not decoded:
        return "none of its lines is a JSON object"
    return f"{broken} lines that may tell of a log-in are not JSON objects and were not counted" if broken else ""


def read_journal(review: Review, tally: Tally) -> str:
    """Read what sshd, sudo, su and login said to the journal; return why that was not possible."""
    files = [os.path.join(place, name) for folder in _JOURNAL_FOLDERS for place, _unused, names in os.walk(folder) for name in names]
    system = [path for path in files if os.path.basename(path).startswith("system")]
    if not system:
        return "journal: this host keeps none, or it cannot be seen without become: true"
    if not all(os.access(path, os.R_OK) for path in system):
        return "journal: not readable without become: true"
    tally.reading = "journal"
    base = ["journalctl", "--output=json", "--no-pager", "--quiet"]
    programs = ["sshd", "sshd-session", "sshd-auth", "sudo", "su", "login"]
    try:
        for record in _journal(review, [*base, "--output-fields=MESSAGE"]):
            tally.see(_journal_time(record))
            break
        auth = AuthReader()
        for record in _journal(review, [*base, f"--since=@{int(tally.since)}", *(f"--identifier={name}" for name in programs)]):
            message = record.get("MESSAGE")
            if isinstance(message, list):  # bytes that are not UTF-8
                message = bytes(message).decode("utf-8", "replace")
            if isinstance(message, str):
                pid = str(record.get("_PID") or record.get("SYSLOG_PID") or "")
                attempt = auth.message(str(record.get("SYSLOG_IDENTIFIER", "")), pid, message)
                if attempt:
                    tally.add(attempt, _journal_time(record))
    except MaintenanceError as error:
        return f"journal: {error}"
    tally.sources.append("journal")
    return ""


def _journal(review: Review, argv: t.Sequence[str]) -> t.Iterator[dict[str, t.Any]]:
    for raw in review.host.lines(argv):
        record = json_record(raw)
        if record is not None:
            yield record


def _journal_time(record: t.Mapping[str, t.Any]) -> float | None:
    try:
        return int(record["__REALTIME_TIMESTAMP"]) / 1e6
    except (KeyError, TypeError, ValueError):
        return None


def bursts(times: t.Sequence[int], failures: int, seconds: int) -> int:
    """Return the most failures within any span of that many seconds if they reach ``failures``, else 0."""
    ordered = sorted(times)
    start, most = 0, 0
    for end, moment in enumerate(ordered):
        while moment - ordered[start] > seconds:
            start += 1
        most = max(most, end - start + 1)
    return most if most >= failures else 0


def intrusions(tally: Tally, failures: int) -> list[str]:
    """Return who logged in from an address that had failed at least so often in the day before."""
    found = []
    for address, successes in tally.successes.items():
        ordered = sorted(tally.failures.get(address, ()))
        for moment, account in sorted(successes):
            before = sum(moment - SUCCESS_WINDOW_SECONDS <= failed <= moment for failed in ordered)
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
    gaps = _gaps(tally)
    return [_total(params, tally, gaps), _brute_force(params, tally, gaps), _intrusion(params, tally, gaps)]


def _gaps(tally: Tally) -> str:
    gaps = list(tally.problems)
    if tally.undated:
        gaps.append(f"{tally.undated} failures without a readable time were not counted")
    for name, oldest in tally.begins.items():
        if oldest > tally.since + 3600:
            begin = datetime.fromtimestamp(oldest, timezone.utc).isoformat(timespec="minutes")
            gaps.append(f"{name} begins at {begin}, after the period's start")
    return "; ".join(gaps)


def _missed(tally: Tally) -> bool:
    return bool(tally.problems or tally.undated)


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
            if most and address not in (_OTHERS, "(no address)")
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
