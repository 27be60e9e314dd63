# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a review of logs says: its summary, its metrics and the report file."""

from __future__ import annotations

import json
import os
import typing as t
from collections import Counter
from datetime import datetime, timezone

from .errors import MaintenanceError
from .judge import human_bytes
from .log_scan import Scanned
from .paths import open_regular, write_atomic
from .record import Finding, Json, Metric, clean

_PATTERNS_SHOWN = 500
_STATUS_CLASSES = (b"2", b"3", b"4", b"5")


def percentile(counter: Counter[bytes], percent: float) -> float | None:
    """Return a percentile (nearest rank) of counted numbers; None where nothing was counted."""
    total = sum(counter.values())
    rank = max(1, -(-total * percent // 100))
    seen = 0
    for value, count in sorted((float(key), count) for key, count in counter.items()):
        seen += count
        if seen >= rank:
            return value
    return None


def summary_of(scanned: t.Sequence[Scanned], since: float) -> str:
    total = sum(one.tally.records for one in scanned)
    errors = sum(one.tally.errors() for one in scanned)
    files = sum(len(one.files) for one in scanned)
    start = datetime.fromtimestamp(since, timezone.utc).isoformat(timespec="minutes")
    size = human_bytes(sum(one.size for one in scanned))
    return f"{total} records since {start}, {errors} of them errors, in {files} files ({size})"


def metrics_of(scanned: t.Sequence[Scanned], seconds: float, adds_up: bool) -> list[Metric]:
    """Return the numbers of each source.

    :param adds_up: the run read what no other has read; else runs overlap, and their counts have names of their own.
    """
    metrics = [Metric("logs.analysis_time", "all", round(seconds, 3), "seconds")]
    counts: list[tuple[str, str, int]] = []
    for one in scanned:
        name, tally = one.source.name, one.tally
        latencies = [(f"logs.latency_p{percent}", percentile(tally.latencies, percent)) for percent in (50, 95, 99)]
        metrics.append(Metric("logs.read", name, one.size, "bytes"))
        metrics += [Metric(metric, name, value, "seconds") for metric, value in latencies if value is not None]
        counts += [("records", name, tally.records), ("errors", name, tally.errors()), ("unparsed", name, tally.unparsed)]
        counts += [(tag, name, count) for tag, count in sorted(tally.tags.items())]
    kinds = sorted(_by_level_and_class(scanned).items())
    counts += [(kind, name, count) for (name, kind), count in kinds]
    end = "" if adds_up else "_in_span"
    return [Metric(f"logs.{count}{end}", name, value, "count") for count, name, value in counts] + metrics


def _by_level_and_class(scanned: t.Sequence[Scanned]) -> Counter[tuple[str, str]]:
    """Count records by level and answers by class of status; containers together, for there may be hundreds."""
    counted: Counter[tuple[str, str]] = Counter()
    for one in scanned:
        name = one.source.name.partition("/")[0]
        for level, count in one.tally.by_level().items():
            counted[name, f"level_{(level or 'none').lower()}"] += count
        for status, count in one.tally.statuses.items():
            if status[:1] in _STATUS_CLASSES:
                counted[name, f"status_{status[:1].decode()}xx"] += count
    return counted


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
        "outside_the_span": tally.outside,
        "unparsed": tally.unparsed,
        "cut": tally.cut,
        "errors": tally.errors(),
        "by_level": {level or "none": count for level, count in tally.by_level().most_common()},
        "by_hour": hours,
        "patterns": [
            {"pattern": k, "count": v.count, "level": v.level, "example": v.example}
            for k, v in sorted(tally.templates.items(), key=lambda item: (-item[1].count, item[0]))[:_PATTERNS_SHOWN]
        ],
        "events": dict(tally.tags),
        "failed_logins": {"by_address": top(tally.auth_addresses), "by_account": top(tally.accounts)},
        "rate_limited": {"by_address": top(tally.limited_addresses), "by_endpoint": top(tally.limited_endpoints)},
        "statuses": top(tally.statuses),
        "addresses": top(tally.addresses),
        "latency_seconds": {f"p{p}": percentile(tally.latencies, p) for p in (50, 90, 95, 99)} if tally.latencies else {},
        "counts_may_be_low_by": tally.inexact,
    }


def write_report(
    path: str, scanned: t.Sequence[Scanned], findings: t.Sequence[Finding], since: float, until: float, started: datetime
) -> None:
    """Write the report as JSON, and read it back."""
    report = {
        "generated": started.isoformat(timespec="seconds"),
        "since": datetime.fromtimestamp(since, timezone.utc).isoformat(timespec="seconds"),
        "until": datetime.fromtimestamp(min(until, started.timestamp()), timezone.utc).isoformat(timespec="seconds"),
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
