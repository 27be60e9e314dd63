# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses an API, how much and with how many errors, against what earlier runs saw of the same key or account."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
import tempfile
import typing as t
from dataclasses import dataclass, field

from .errors import MaintenanceError
from .judge import many
from .log_lines import Clock, LineReader, find_files, json_record, zone_of
from .paths import read_state
from .record import Finding, clean
from .security_common import Review, filled, shown, source_problems, unknown
from .security_login_patterns import unusual
from .security_login_sources import with_siblings

OPTIONS: dict[str, t.Any] = {
    "api_sources": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
            "timezone": {"type": "str", "default": "UTC"},
            "client_fields": {"type": "list", "elements": "str", "default": ["api_key_id", "client_id", "username", "user_id", "api_key"]},
            "status_fields": {"type": "list", "elements": "str", "default": ["status", "status_code"]},
            "least_a_day": {"type": "float", "default": 100.0},
            "factor": {"type": "float", "default": 3.0},
            "error_percent": {"type": "float", "default": 25.0},
        },
    },
}
IDS = ("security.api_usage",)
STATE_FILE = "security_api_usage.json"

_SECRET = re.compile(r"(?i)(?:key|token|secret|authorization|cookie)$")
_CLIENT_LIMIT = 5000
_PERIODS = 30
_NEW_CLIENT = "new"


@dataclass
class Use:
    """Requests of a period by client; memory is bounded by the number of clients that are told apart."""

    requests: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    records: int = 0
    undated: int = 0
    nameless: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, client: str, failed: bool) -> None:
        """Count one request."""
        name = client if client in self.requests or len(self.requests) < _CLIENT_LIMIT else "(others)"
        self.requests[name] = self.requests.get(name, 0) + 1
        self.errors[name] = self.errors.get(name, 0) + failed


def client_of(record: t.Mapping[str, t.Any], names: t.Sequence[str]) -> str:
    """Return who made a request; of what is a secret by its name only the beginning of its digest."""
    for name in names:
        value = record.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            if _SECRET.search(name):
                return f"{name} sha256:{hashlib.sha256(str(value).encode()).hexdigest()[:12]}"
            return clean(str(value).replace("\n", " "), 80)
    return ""


def read(source: t.Mapping[str, t.Any], since: float, until: float) -> Use:
    """Count the requests of a period in the files of a source."""
    use = Use()
    found = find_files(with_siblings(source["paths"]), "api_sources.paths")
    use.problems += [shown(problem) for problem in found.problems]
    if not found.files:
        use.problems.append(f"no file matches {', '.join(source['paths'])}")
    for path in found.files:
        changed = os.path.getmtime(path)
        if changed >= since:
            clock, reader = Clock(changed, zone_of(source["timezone"], "api_sources.timezone")), LineReader(path)
            for raw in reader.lines():
                record = json_record(raw)
                if record is not None:
                    _count(source, record, clock.of_record(record), (since, until), use)
            if reader.problem:
                use.problems.append(f"{shown(path)}: {reader.problem}")
    return use


def _count(
    source: t.Mapping[str, t.Any], record: t.Mapping[str, t.Any], moment: float | None, period: tuple[float, float], use: Use
) -> None:
    use.records += 1
    client = client_of(record, source["client_fields"])
    if moment is None:
        use.undated += 1
    elif period[0] <= moment <= period[1]:
        use.nameless += not client
        status = next((record[name] for name in source["status_fields"] if isinstance(record.get(name), (int, str))), "")
        if client:
            use.add(client, str(status)[:1] in ("4", "5") and len(str(status)) == 3)


def look(review: Review) -> list[Finding]:
    """Judge each source against its own history, and keep what was seen for the next run."""
    try:
        known = read_state(review.params["state_dir"], STATE_FILE)
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[0], "API", f"what earlier runs saw cannot be read: {error}", "Follow that advice.")]
    until = review.now.timestamp()
    findings, kept = [], dict(known)
    for source in review.params["api_sources"]:
        use = read(source, until - review.params["days"] * 86400, until + 300)
        findings.append(verdict(review, source, use, known.get(source["name"], [])))
        if use.records and not use.problems:
            period = {"until": until, "days": review.params["days"], "requests": use.requests}
            kept[source["name"]] = [*known.get(source["name"], []), period][-_PERIODS:]
    if not review.check_mode and kept != known:
        review.keep(STATE_FILE, kept)
    return findings


def verdict(review: Review, source: t.Mapping[str, t.Any], use: Use, known: t.Sequence[t.Mapping[str, t.Any]]) -> Finding:
    """Judge one source."""
    days = review.params["days"]
    since = review.now.timestamp() - days * 86400
    periods = [period for period in known if period["until"] <= since + 3600]
    found = [
        line
        for client, count in use.requests.items()
        for line in _oddities(source, client, count / days, use.errors[client], periods, days)
    ]
    found += [
        f"{client}: gone, {usual:.1f} a day before"
        for client in (periods[-1]["requests"] if periods else {})
        for usual in [statistics.median(period["requests"].get(client, 0) / period["days"] for period in periods)]
        if client not in use.requests and usual >= source["least_a_day"]
    ]
    total = sum(use.requests.values())
    review.count("security.api_requests", source["name"], total)
    gaps = [*use.problems]
    gaps += [f"{use.undated} records without a readable time"] if use.undated else []
    gaps += [f"{use.nameless} requests without a known client"] if use.nameless else []
    gaps += [] if periods else ["no earlier period to compare with"]
    blind = not use.requests or bool(use.problems or use.undated)
    state = "warning" if found else "unknown" if blind else "ok"
    advice = {"ok": "", "unknown": "Declare paths and client_fields that fit the records, and make the files readable."}
    return Finding(
        IDS[0],
        state,
        source["name"],
        f"{many(total, 'request')} of {many(len(use.requests), 'client')}, {many(len(found), 'oddity', 'oddities')}",
        value=len(found),
        unit="count",
        threshold=f"warning above {source['factor']:g} times the median of earlier periods from {source['least_a_day']:g} requests a day, "
        f"from {source['error_percent']:g} percent of errors, for a new client with so many requests",
        not_covered="; ".join(gaps),
        advice=advice.get(state, "Ask the owner of the key; revoke it where nobody can explain it."),
        evidence=found[:20],
    )


def _oddities(
    source: t.Mapping[str, t.Any], client: str, a_day: float, errors: int, periods: t.Sequence[t.Mapping[str, t.Any]], days: int
) -> t.Iterator[str]:
    if a_day < source["least_a_day"]:
        return
    earlier = [period["requests"].get(client, 0) / period["days"] for period in periods]
    percent = 100 * errors / (a_day * days)
    if percent >= source["error_percent"]:
        yield f"{client}: {percent:.0f} percent of its requests failed"
    if periods and not any(earlier):
        yield f"{client}: {_NEW_CLIENT}, {a_day:.1f} requests a day"
        return
    said = unusual(a_day, earlier, source["factor"], source["least_a_day"])
    if said:
        yield f"{client}: {said}"


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    ranges = (("least_a_day", 0, math.inf), ("factor", 1, math.inf), ("error_percent", 0, 100))
    return list(source_problems("api_sources", params["api_sources"], ranges))


def passes_bad_sample(review: Review) -> str:
    """Plant a key that is suddenly used a hundred times as much; return the sample when it counts as usual."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "api.jsonl")
        with open(path, "w", encoding="utf-8") as sample:
            sample.writelines(
                json.dumps({"timestamp": review.now.isoformat(), "client_id": "a", "status": 200}) + "\n" for _n in range(100)
            )
        source = filled(OPTIONS["api_sources"]["options"], {"name": "planted", "paths": [path], "least_a_day": 1.0})
        now = review.now.timestamp()
        earlier = [{"until": now - 9 * 86400 * n, "days": 1, "requests": {"a": 1}} for n in (1, 2, 3)]
        silent = Review({**review.params, "days": 1}, review.host, True, review.now)
        found = verdict(silent, source, read(source, now - 86400, now + 300), earlier)
        return "a hundred times the usual requests as usual" if found.state == "ok" else ""
