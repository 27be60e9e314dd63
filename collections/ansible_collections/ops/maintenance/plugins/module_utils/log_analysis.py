# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Review logs: count errors, patterns, failed logins and silence of a span of time, and give verdicts."""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import tempfile
import typing as t
from collections import Counter
from datetime import datetime, timezone

from .errors import InputError, out_of_range, refusal, refuse
from .host import Host
from .kept_state import keep_state
from .log_database import EARLY
from .log_docker import containers_of
from .log_forms import FORMS
from .log_history import KEPT_DAYS, Look, learn
from .log_journal import read_journal
from .log_lines import Clock, zone_of
from .log_report import metrics_of, summary_of, write_report
from .log_resume import remember
from .log_scan import Scanned, Source, fill, scan
from .log_tally import Tally
from .log_verdicts import judge, nothing_declared, unproven
from .paths import read_state
from .record import Finding, Json, Outcome

LIMITS = {
    "error_limit": "int", "auth_failure_limit": "int", "brute_force_limit": "int", "rate_limited_limit": "int",
    "unparsed_percent": "float", "server_error_percent": "float", "deadlock_limit": "int", "latency_p95_seconds": "float",
    "anomaly_factor": "float", "checkpoint_limit": "int", "temporary_daily_bytes": "int",
}  # fmt: skip
"""Limits for all sources, each of which may have its own."""

OPTIONS: dict[str, t.Any] = {
    "sources": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "default": []},
            "format": {"type": "str", "default": "auto", "choices": list(FORMS)},
            "units": {"type": "list", "elements": "str", "default": []},
            "timezone": {"type": "str", "default": "UTC"},
            "silence_hours": {"type": "float", "default": 0.0},
            "trusted_proxies": {"type": "list", "elements": "str", "default": []},
            **{name: {"type": kind} for name, kind in LIMITS.items()},
        },
    },
    "span_days": {"type": "float", "default": 7.0},
    "since": {"type": "str", "default": ""},
    "until": {"type": "str", "default": ""},
    "only_new": {"type": "bool", "default": False},
    "error_limit": {"type": "int", "default": 100},
    "auth_failure_limit": {"type": "int", "default": 50},
    "brute_force_limit": {"type": "int", "default": 10},
    "rate_limited_limit": {"type": "int", "default": 100},
    "unparsed_percent": {"type": "float", "default": 5.0},
    "server_error_percent": {"type": "float", "default": 5.0},
    "deadlock_limit": {"type": "int", "default": 0},
    "checkpoint_limit": {"type": "int", "default": 0},
    "temporary_daily_bytes": {"type": "int", "default": 10737418240},
    "latency_p95_seconds": {"type": "float", "default": 0.0},
    "anomaly_factor": {"type": "float", "default": 3.0},
    "report": {"type": "str", "default": ""},
}

STATE = "log_analysis.json"
BYTES_PER_SECOND = 25 * 1024 * 1024
"""What a slow machine reads at least; decides whether the work fits into the window."""


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Read the logs once and judge them; keeps a report and where it stopped, but not in check mode."""
    refuse(input_problems(params))
    sources = [_source(entry) for entry in params["sources"]]
    started = host.now()
    now = started.timestamp()
    since, until = _span(params, now)
    report = _report_path(params["report"], started)
    state = read_state(params["state_dir"], STATE)
    scope = "new" if params["only_new"] else "span"
    earlier = state.get(scope, {})
    late = _too_late(sources, params, now)
    if late:
        return late
    proven = not params["self_test"] or proves_itself(now)
    scanned = _look(sources, since, until, now, earlier if params["only_new"] else None, host)
    look = Look(started, _hours(since, min(until, now), earlier if params["only_new"] else {}), adds_up=params["only_new"])
    findings = judge(scanned, _limits(params), earlier, min(until, now), since, look) or [nothing_declared()]
    if not proven:
        findings = [unproven(finding) for finding in findings]
    outcome = Outcome(
        subject=", ".join(source.name for source in sources) or "logs",
        operation="log_analysis",
        status="ok",
        summary=summary_of(scanned, since),
        findings=findings,
        metrics=metrics_of(scanned, (host.now() - started).total_seconds(), params["only_new"] and not check_mode),
    )
    if not check_mode:
        if report:
            write_report(report, scanned, findings, since, until, started)
        if until == math.inf:  # a look at the past is not where the next run goes on
            outcome.findings += keep_state(params["state_dir"], STATE, {**state, scope: _state(scanned, earlier, look)})
    outcome.after = {"report": report} if report and not check_mode else {}
    outcome.returned = {"report": report, "errors": {one.source.name: one.tally.errors() for one in scanned}}
    return outcome


def _look(sources: list[Source], since: float, until: float, now: float, resume: Json, host: Host) -> list[Scanned]:
    """Read every source once; ``resume`` is what the last run left, None to read all of the span."""
    scanned: list[Scanned] = []
    for source in sources:
        scanned += containers_of(source) if source.form == "docker" else [Scanned(source)]
    files = [one for one in scanned if one.source.form != "journal"]
    fill(files, since, now, None if resume is None else resume.get("files", {}), until=until)
    for one in scanned:
        if one.source.form == "journal":
            read_journal(one, since, until, (resume or {}).get("cursors", {}).get(one.source.name, ""), host)
    return scanned


def _hours(since: float, end: float, earlier: Json) -> float:
    """Return how many hours this run looks at: since the last one, where it reads on from there."""
    last = datetime.fromisoformat(earlier["finished"]).timestamp() if "finished" in earlier else since
    return max(end - max(since, last), 60.0) / 3600


def _limits(params: t.Mapping[str, t.Any]) -> dict[str, dict[str, float]]:
    """Return the limits of each source: its own where it has some, else those for all; for the empty name those."""
    common = {name: params[name] for name in LIMITS}
    own = {entry["name"]: {n: entry[n] for n in LIMITS if entry.get(n) is not None} for entry in params["sources"]}
    return {"": common, **{name: {**common, **limits} for name, limits in own.items()}}


# Input ---------------------------------------------------------------------------------------------------------------


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, LIMITS)
    problems += [
        f"{name} is {params[name]:g}, expected a positive number; correct it."
        for name in ("span_days", "brute_force_limit")
        if not params[name] > 0
    ]
    problems += refusal(_span, params, 0.0)
    if params["until"] and params["only_new"]:
        problems.append(str(InputError.of("until", params["until"], "no end where only_new reads on", "leave one of them out")))
    if params["report"] and not os.path.isabs(params["report"]):
        problems.append(_not_a_file(params["report"]))
    for entry in params["sources"]:
        problems += _source_problems(entry)
    names = Counter(entry["name"] for entry in params["sources"])
    problems += [f"The source name {name} is used {count} times; make it unique." for name, count in names.items() if count > 1]
    return problems


def _source_problems(entry: t.Mapping[str, t.Any]) -> list[str]:
    name, paths, is_journal = entry["name"], entry["paths"], entry["format"] == "journal"
    problems = [f"{problem} It is in source {name}." for problem in out_of_range(entry, (*LIMITS, "silence_hours"))]
    if entry.get("brute_force_limit") == 0:
        problems.append(f"brute_force_limit of {name} is 0, expected a positive number; correct it.")
    if is_journal and paths:
        problems.append(f"paths of {name} are {paths}, but the journal is asked through journalctl; leave them out.")
    elif not is_journal and not all(os.path.isabs(path) for path in paths):
        problems.append(f"paths of {name} are {paths}, expected absolute patterns; write them so.")
    elif not is_journal and not paths and entry["format"] != "docker":
        problems.append(f"paths of {name} are missing, expected absolute patterns; name them.")
    units = entry.get("units") or []
    if units and not is_journal:
        problems.append(f"units of {name} are {units}, expected only with format journal; leave them out.")
    problems += [
        f"units of {name} name {unit!r}, expected the name of a systemd unit; correct it."
        for unit in units
        if not re.fullmatch(r"[\w@:.*\\][\w@:.*\\-]*", unit)
    ]
    problems += refusal(zone_of, entry["timezone"], f"timezone of {name}")
    for proxy in entry.get("trusted_proxies") or []:
        problems += refusal(_network, proxy, name)
    return problems


def _network(text: str, name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        expected = "an address or a network such as 10.0.0.0/8"
        raise InputError.of(f"trusted_proxies of {name}", text, expected, "correct it") from None


def _source(entry: t.Mapping[str, t.Any]) -> Source:
    return Source(
        name=entry["name"],
        paths=entry["paths"],
        form=entry["format"],
        zone=zone_of(entry["timezone"]),
        silence_hours=entry["silence_hours"],
        units=entry.get("units") or [],
        proxies=[_network(proxy, entry["name"]) for proxy in entry.get("trusted_proxies") or []],
    )


def _span(params: t.Mapping[str, t.Any], now: float) -> tuple[float, float]:
    """Return from when on and until when records count."""
    until = _moment("until", params["until"], now) if params["until"] else math.inf
    before = min(until, now) - float(params["span_days"]) * 86400
    since = _moment("since", params["since"], now) if params["since"] else before
    if since >= until:
        raise InputError.of("until", params["until"], "a time after since", "correct one of them")
    return since, until


def _moment(option: str, text: str, now: float) -> float:
    moment = Clock(now).of_text(text.strip().encode())
    if moment is None:
        raise InputError.of(option, text, "an ISO 8601 time such as 2026-11-21T02:00:00Z", "write it so")
    return moment


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


# State ---------------------------------------------------------------------------------------------------------------


def _state(scanned: t.Sequence[Scanned], earlier: Json, look: Look) -> dict[str, Json]:
    """Describe where the next run goes on, and what it compares with."""
    now = look.started.timestamp()
    latest, cursors = dict(earlier.get("latest", {})), dict(earlier.get("cursors", {}))
    history = {name: kept for name, kept in earlier.get("history", {}).items() if _is_young(kept, look.started)}
    marks: dict[str, Json] = {}
    for one in scanned:
        name = one.source.name
        latest[name] = max(one.tally.latest, latest.get(name, 0.0))
        marks.update(one.marks())
        if one.source.form == "journal":
            cursors[name] = one.cursor
        if one.was_read:
            history[name] = learn(one, history.get(name, {}), look)
    return {
        "finished": look.started.isoformat(),
        "files": remember(earlier.get("files", {}), marks, now) if look.adds_up else {},
        "cursors": cursors,
        "latest": {name: moment for name, moment in latest.items() if now - moment < KEPT_DAYS * 86400},
        "history": history,
    }


def _is_young(kept: Json, now: datetime) -> bool:
    return (now - datetime.fromisoformat(kept["finished"])).days < KEPT_DAYS


# Self-test -----------------------------------------------------------------------------------------------------------


def proves_itself(now: float) -> bool:
    """Count planted logs that hold errors, failed logins and what a database tells of; say whether all are seen."""
    stamp = datetime.fromtimestamp(now - 60, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [
        {"timestamp": stamp, "level": "ERROR", "message": "disk I/O error on page 7"},
        {"timestamp": stamp, "level": "WARNING", "message": "Authentication failed for user eve from 192.0.2.1"},
        {"timestamp": "2001-01-01T00:00:00Z", "level": "ERROR", "message": "too old to count"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"timestamp": "' + stamp + '", "lev\n'
    tally = _planted(text, "auto", now)
    seen = (tally.lines, tally.unparsed, tally.outside, tally.errors(), tally.tags["auth_failures"], tally.tags["io_errors"])
    is_seen = seen == (4, 1, 1, 1, 1, 1) and bool(re.match(r"disk I/O error on page <n>$", next(iter(tally.templates), "")))
    return is_seen and _proves_itself_on_a_database(now)


def _proves_itself_on_a_database(now: float) -> bool:
    stamp = datetime.fromtimestamp(now - 60, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.000 UTC [7] ")
    said = (
        "ERROR:  deadlock detected",
        "LOG:  checkpoints are occurring too frequently (1 second apart)",
        'LOG:  temporary file: path "x", size 7',
    )
    tally = _planted("".join(f"{stamp}{line}\n" for line in said), "postgresql", now)
    seen = (tally.unparsed, tally.tags["deadlocks"], tally.tags[EARLY], dict(tally.temporary_sizes))
    return seen == (0, 1, 1, {b"7": 1})


def _planted(text: str, form: str, now: float) -> Tally:
    """Count a log of the last hour."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "planted.log")
        with open(path, "w", encoding="utf-8") as planted:
            planted.write(text)
        return scan([Source("planted", [path], form)], now - 3600, now)[0].tally
