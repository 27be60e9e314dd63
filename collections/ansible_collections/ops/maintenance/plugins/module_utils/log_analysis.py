# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Review logs: count errors, patterns, failed logins and silence of a span of time, and give verdicts."""

from __future__ import annotations

import json
import os
import re
import tempfile
import typing as t
from collections import Counter
from datetime import datetime, timezone

from .errors import InputError, MaintenanceError, out_of_range, refusal, refuse
from .host import Host
from .judge import from_limit, human_bytes, many
from .log_lines import Clock, zone_of
from .log_scan import FORMS, Scanned, Source, remember, scan
from .log_tally import ERROR_LEVELS
from .paths import open_regular, read_state, write_atomic, write_state
from .record import Finding, Json, Metric, Outcome, clean

OPTIONS: dict[str, t.Any] = {
    "sources": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
            "format": {"type": "str", "default": "auto", "choices": list(FORMS)},
            "timezone": {"type": "str", "default": "UTC"},
            "silence_hours": {"type": "float", "default": 0.0},
        },
    },
    "span_days": {"type": "float", "default": 7.0},
    "since": {"type": "str", "default": ""},
    "only_new": {"type": "bool", "default": False},
    "error_limit": {"type": "int", "default": 100},
    "auth_failure_limit": {"type": "int", "default": 50},
    "brute_force_limit": {"type": "int", "default": 10},
    "rate_limited_limit": {"type": "int", "default": 100},
    "unparsed_percent": {"type": "float", "default": 5.0},
    "server_error_percent": {"type": "float", "default": 5.0},
    "report": {"type": "str", "default": ""},
}

STATE = "log_analysis.json"
BYTES_PER_SECOND = 25 * 1024 * 1024
"""What a slow machine reads at least; decides whether the work fits into the window."""

_PATTERNS_KEPT = 500
_EVIDENCE_BYTES = 12_000


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Read the logs once and judge them; keeps a report and where it stopped, but not in check mode."""
    refuse(input_problems(params))
    sources = [_source(entry) for entry in params["sources"]]
    started = host.now()
    since = _since(params, started.timestamp())
    report = _report_path(params["report"], started)
    state = read_state(params["state_dir"], STATE)
    scope = "new" if params["only_new"] else "span"
    earlier = state.get(scope, {})
    late = _too_late(sources, params, started.timestamp())
    if late:
        return late
    proven = not params["self_test"] or proves_itself(started.timestamp())
    scanned = scan(sources, since, started.timestamp(), earlier.get("files", {}) if params["only_new"] else None)
    findings = judge(scanned, params, earlier, started.timestamp()) or [_nothing_declared()]
    if not proven:
        findings = [_unproven(finding) for finding in findings]
    outcome = Outcome(
        subject=", ".join(source.name for source in sources) or "logs",
        operation="log_analysis",
        status="ok",
        summary=_summary(scanned, since),
        findings=findings,
        metrics=_metrics(scanned, (host.now() - started).total_seconds()),
    )
    if not check_mode:
        if report:
            write_report(report, scanned, findings, since, started)
        write_state(params["state_dir"], STATE, {**state, scope: _state(scanned, earlier, started)})
    outcome.after = {"report": report} if report and not check_mode else {}
    outcome.returned = {"report": report, "errors": {one.source.name: one.tally.errors() for one in scanned}}
    return outcome


# Input ---------------------------------------------------------------------------------------------------------------


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    limits = ("span_days", "error_limit", "auth_failure_limit", "brute_force_limit", "rate_limited_limit")
    problems = [
        f"{name} is {params[name]:g}, expected a positive number; correct it."
        for name in limits
        if not params[name] >= 0 or (name in ("span_days", "brute_force_limit") and params[name] == 0)
    ]
    problems += out_of_range(params, ("unparsed_percent", "server_error_percent"))
    problems += refusal(_since, params, 0.0)
    if params["report"] and not os.path.isabs(params["report"]):
        problems.append(_not_a_file(params["report"]))
    for entry in params["sources"]:
        if entry["silence_hours"] < 0:
            problems.append(f"silence_hours of {entry['name']} is {entry['silence_hours']}, expected hours; correct it.")
        if not entry["paths"] or not all(os.path.isabs(path) for path in entry["paths"]):
            problems.append(f"paths of {entry['name']} are {entry['paths']}, expected absolute patterns; write them so.")
        problems += refusal(zone_of, entry["timezone"], f"timezone of {entry['name']}")
    names = Counter(entry["name"] for entry in params["sources"])
    problems += [f"The source name {name} is used {count} times; make it unique." for name, count in names.items() if count > 1]
    return problems


def _source(entry: t.Mapping[str, t.Any]) -> Source:
    return Source(entry["name"], entry["paths"], entry["format"], zone_of(entry["timezone"]), entry["silence_hours"])


def _since(params: t.Mapping[str, t.Any], now: float) -> float:
    if not params["since"]:
        return now - float(params["span_days"]) * 86400
    since = Clock(now).of_text(params["since"].strip().encode())
    if since is None:
        raise InputError.of("since", params["since"], "an ISO 8601 time such as 2026-11-21T02:00:00Z", "write it so")
    return since


def _report_path(path: str, started: datetime) -> str:
    if not path:
        return ""
    path = path.replace("{date}", started.strftime("%Y%m%d"))
    if not os.path.isabs(path) or os.path.isdir(path) or os.path.islink(path):
        raise InputError(_not_a_file(path))
    return path


def _not_a_file(path: str) -> str:
    return str(InputError.of("report", path, "an absolute path of a file", "name a file that this module may write"))


def _too_late(sources: list[Source], params: t.Mapping[str, t.Any], now: float) -> Outcome | None:
    left = params["deadline"] - now
    if not params["deadline"] or left > 60:
        return None
    summary = f"the window ends in {max(left, 0):.0f} s; logs were not read"
    advice = "Give the window more time, or run the log analysis earlier in it."
    found = [Finding("logs.errors", "unknown", s.name, f"{s.name}: {summary}.", advice=advice) for s in sources]
    return Outcome(", ".join(s.name for s in sources), "log_analysis", "deferred", summary, findings=found)


# Verdicts ------------------------------------------------------------------------------------------------------------


def judge(scanned: t.Sequence[Scanned], params: t.Mapping[str, t.Any], earlier: Json, now: float) -> list[Finding]:
    """Give the verdicts on every source."""
    findings: list[Finding] = []
    budget = max(3, min(20, _EVIDENCE_BYTES // (160 * max(len(scanned), 1))))
    for one in scanned:
        findings += _readable(one)
        if not one.files and not one.too_old:
            continue
        findings += _silence(one, earlier, now)
        if not one.tally.parsed:
            if one.tally.lines or any(seen.problem for seen in one.files.values()):
                findings.append(_nothing_read(one))
            else:
                findings += _counted(one, params, earlier, budget)
            continue
        findings += [_unparsed(one, params["unparsed_percent"]), *_counted(one, params, earlier, budget)]
    return findings


def _nothing_declared() -> Finding:
    return Finding(
        "logs.missing", "unknown", "logs", "No source of logs is declared, so nothing was looked at.",
        advice="Declare the logs of this system as sources.",
    )  # fmt: skip


def _readable(one: Scanned) -> list[Finding]:
    name = one.source.name
    findings = []
    if not one.files and not one.too_old:
        findings.append(
            Finding(
                "logs.missing", "unknown", name, f"No file matches {', '.join(one.source.paths)}.",
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
                advice="Look at each: a damaged file is worth a copy, a link needs its target named in paths.",
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


def _counted(one: Scanned, params: t.Mapping[str, t.Any], earlier: Json, budget: int) -> list[Finding]:
    tally = one.tally
    critical = sum(count for level, count in tally.by_level().items() if level in ERROR_LEVELS and level != "ERROR")
    counts = [
        _Count("logs.errors", "errors", tally.errors(), params["error_limit"] + 1, "warning",
               "Go through the patterns below, most frequent first; the report holds all of them.", top_patterns(one, budget)),
        _Count("logs.critical", "records worse than an error", critical, 1, "warning",
               "Look at each of them before further changes.", top_patterns(one, 5, worse=True)),
        _Count("logs.auth_failures", "failed logins", tally.tags["auth_failures"], params["auth_failure_limit"] + 1, "warning",
               "See which accounts and addresses they come from; lock out or block what is no mistake.",
               _top(tally.auth_addresses, "from") + _top(tally.accounts, "account")),
        _Count("logs.rate_limited", "requests over a rate limit", tally.tags["rate_limited"], params["rate_limited_limit"] + 1,
               "warning", "See which clients ask too often; slow them down or raise their limit.",
               _top(tally.limited_addresses, "from")),
        _Count("logs.io_errors", "input or output errors", tally.tags["io_errors"], 1, "critical",
               "Check the disk, the file system and the newest backup before anything else.", tally.examples.get("io_errors", [])),
        _Count("logs.out_of_memory", "times out of memory", tally.tags["out_of_memory"], 1, "warning",
               "Find what grew; give the service a memory limit or the host more memory.",
               tally.examples.get("out_of_memory", [])),
    ]  # fmt: skip
    findings = [_count_finding(one, count) for count in counts]
    findings += [_brute_force(one, params["brute_force_limit"]), *_new_patterns(one, earlier, budget)]
    if tally.statuses:
        findings.append(_server_errors(one, params["server_error_percent"]))
    return findings


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


def _top(counter: Counter[bytes], word: str) -> list[str]:
    return [
        f"{count} x {word} {clean(key.decode('utf-8', 'replace'), 80)}"
        for key, count in sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:5]
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


def _new_patterns(one: Scanned, earlier: Json, budget: int) -> list[Finding]:
    name = one.source.name
    now = set(one.tally.templates)
    if name not in earlier.get("patterns", {}):
        return [
            Finding(
                "logs.new_patterns", "ok", name, f"{len(now)} error patterns are kept to compare the next run with.",
                not_covered="a comparison, as no earlier run is known",
            )
        ]  # fmt: skip
    before = set(earlier["patterns"][name])
    new, gone = sorted(now - before), sorted(before - now)
    state = "warning" if new else "ok"
    return [
        Finding(
            "logs.new_patterns", state, name,
            f"{len(new)} error patterns of {name} are new since the previous run, {len(gone)} vanished.",
            value=len(new), unit="count", threshold="warning from 1 count",
            advice="" if state == "ok" else "Find out what changed since the previous run; document what is known.",
            evidence=[f"new: {clean(text, 150)}" for text in new[:budget]] + [f"vanished: {clean(text, 150)}" for text in gone[:3]],
        )
    ]  # fmt: skip


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


def _unproven(finding: Finding) -> Finding:
    return Finding(
        finding.id, "unknown", finding.subject, f"The log reader did not pass its own test. {finding.summary}",
        advice="Report this as a defect of the collection.",
    )  # fmt: skip


# Results -------------------------------------------------------------------------------------------------------------


def percentile(counter: Counter[bytes], percent: float) -> float | None:
    """Return a percentile (nearest rank) of counted numbers."""
    total = sum(counter.values())
    rank = max(1, -(-total * percent // 100))
    seen = 0
    for value, count in sorted((float(key), count) for key, count in counter.items()):
        seen += count
        if seen >= rank:
            return value
    return None


def _summary(scanned: t.Sequence[Scanned], since: float) -> str:
    total = sum(one.tally.records for one in scanned)
    errors = sum(one.tally.errors() for one in scanned)
    files = sum(len(one.files) for one in scanned)
    start = datetime.fromtimestamp(since, timezone.utc).isoformat(timespec="minutes")
    size = human_bytes(sum(one.size for one in scanned))
    return f"{total} records since {start}, {errors} of them errors, in {files} files ({size})"


def _metrics(scanned: t.Sequence[Scanned], seconds: float) -> list[Metric]:
    metrics = []
    for one in scanned:
        name, tally = one.source.name, one.tally
        numbers: list[tuple[str, float, str]] = [
            ("logs.records", tally.records, "count"),
            ("logs.errors", tally.errors(), "count"),
            ("logs.unparsed", tally.unparsed, "count"),
            ("logs.read", one.size, "bytes"),
            *((f"logs.{tag}", count, "count") for tag, count in sorted(tally.tags.items())),
        ]
        for percent in (50, 95, 99):
            value = percentile(tally.latencies, percent)
            if value is not None:
                numbers.append((f"logs.latency_p{percent}", value, "seconds"))
        metrics += [Metric(metric, name, value, unit) for metric, value, unit in numbers]
    return [*metrics, Metric("logs.analysis_time", "all", round(seconds, 3), "seconds")]


def _state(scanned: t.Sequence[Scanned], earlier: Json, started: datetime) -> dict[str, Json]:
    files = remember(scanned)
    latest = dict(earlier.get("latest", {}))
    for one in scanned:
        latest[one.source.name] = max(one.tally.latest, latest.get(one.source.name, 0.0))
    return {
        "finished": started.isoformat(),
        "files": {**{k: v for k, v in earlier.get("files", {}).items() if os.path.lexists(v["path"])}, **files},
        "latest": latest,
        "patterns": {one.source.name: [text for text, _n in _by_count(one)[:_PATTERNS_KEPT]] for one in scanned if one.files},
    }


def _by_count(one: Scanned) -> list[tuple[str, int]]:
    return sorted(((k, v.count) for k, v in one.tally.templates.items()), key=lambda item: (-item[1], item[0]))


def report_of(one: Scanned) -> dict[str, Json]:
    """Return all that is known of a source, for the report file."""
    tally = one.tally

    def top(counter: Counter[bytes], count: int = 50) -> dict[str, int]:
        return {clean(key.decode("utf-8", "replace"), 200): number for key, number in counter.most_common(count)}

    hours: dict[str, dict[str, int]] = {}
    for (hour, level), count in sorted(tally.hours.items()):
        name = datetime.fromtimestamp(hour, timezone.utc).strftime("%Y-%m-%dT%H:00Z")
        hours.setdefault(name, {})[level or "none"] = count
    return {
        "name": one.source.name,
        "files": {clean(path): {"read": seen.position, "problem": seen.problem} for path, seen in one.files.items()},
        "files_too_old": one.too_old,
        "problems": [clean(problem) for problem in one.problems],
        "lines": tally.lines,
        "records": tally.records,
        "older_than_the_span": tally.outside,
        "unparsed": tally.unparsed,
        "cut": tally.cut,
        "errors": tally.errors(),
        "by_level": {level or "none": count for level, count in tally.by_level().most_common()},
        "by_hour": hours,
        "patterns": [
            {"pattern": k, "count": v.count, "level": v.level, "example": v.example}
            for k, v in sorted(tally.templates.items(), key=lambda item: (-item[1].count, item[0]))[:_PATTERNS_KEPT]
        ],
        "events": dict(tally.tags),
        "failed_logins": {"by_address": top(tally.auth_addresses), "by_account": top(tally.accounts)},
        "rate_limited_by_address": top(tally.limited_addresses),
        "statuses": top(tally.statuses),
        "addresses": top(tally.addresses),
        "latency_seconds": {f"p{p}": percentile(tally.latencies, p) for p in (50, 90, 95, 99)} if tally.latencies else {},
        "counts_may_be_low_by": tally.inexact,
    }


def write_report(path: str, scanned: t.Sequence[Scanned], findings: t.Sequence[Finding], since: float, started: datetime) -> None:
    """Write the report as JSON, and read it back."""
    report = {
        "generated": started.isoformat(timespec="seconds"),
        "since": datetime.fromtimestamp(since, timezone.utc).isoformat(timespec="seconds"),
        "sources": [report_of(one) for one in scanned],
        "findings": [finding.as_dict() for finding in findings],
    }
    try:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        write_atomic(path, (json.dumps(report, indent=1) + "\n").encode(), mode=0o640)
        with open_regular(path) as written:
            json.loads(written.read())
    except (OSError, ValueError) as error:
        raise MaintenanceError(f"The log report {path} could not be written ({error}); correct the report option or the folder.") from error


# Self-test -----------------------------------------------------------------------------------------------------------


def proves_itself(now: float) -> bool:
    """Count a planted log that holds an error, failed logins, a disk error and a broken line; say whether all are seen."""
    stamp = datetime.fromtimestamp(now - 60, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [
        {"timestamp": stamp, "level": "ERROR", "message": "disk I/O error on page 7"},
        {"timestamp": stamp, "level": "WARNING", "message": "Authentication failed for user eve from 192.0.2.1"},
        {"timestamp": "2001-01-01T00:00:00Z", "level": "ERROR", "message": "too old to count"},
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "planted.jsonl")
        with open(path, "w", encoding="utf-8") as planted:
            planted.write("".join(json.dumps(line) + "\n" for line in lines) + '{"timestamp": "' + stamp + '", "lev\n')
        tally = scan([Source("planted", [path])], now - 3600, now)[0].tally
    seen = (tally.lines, tally.unparsed, tally.outside, tally.errors(), tally.tags["auth_failures"], tally.tags["io_errors"])
    return seen == (4, 1, 1, 1, 1, 1) and bool(re.match(r"disk I/O error on page <n>$", next(iter(tally.templates), "")))
