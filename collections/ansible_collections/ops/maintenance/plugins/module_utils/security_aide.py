# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AIDE says about the files of the host; its report is read, and its exit code has to agree."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass

from .errors import MaintenanceError
from .judge import many
from .record import Finding
from .security_common import Review, shown, unknown

OPTIONS: dict[str, t.Any] = {
    "aide": {"type": "bool", "default": False},
    "aide_config": {"type": "str"},
    "aide_seconds": {"type": "float", "default": 600.0},
}
IDS = ("security.aide",)

CONFIGS = ("/etc/aide/aide.conf", "/etc/aide.conf")
_BITS = {1: "added", 2: "removed", 4: "changed"}
_COUNT = re.compile(r"^\s+(Added|Removed|Changed) entries:\s+(\d+)\s*$", re.M)
_ENTRY = re.compile(r"^[A-Za-z?|!]\S*.*?: (/.*)$")
_SECTION = re.compile(r"^(Added|Removed|Changed) entries:\s*$")


@dataclass(frozen=True)
class Report:
    """What a report of AIDE tells; ``counts`` is empty where it does not come to a verdict."""

    counts: t.Mapping[str, int]
    lines: t.Sequence[str]


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what is wrong with AIDE's options, one sentence each."""
    path = params["aide_config"]
    return [] if not path or os.path.isabs(path) else [f"aide_config is {path!r}, expected an absolute path; correct it."]


def look(review: Review) -> list[Finding]:
    """Let AIDE compare the host with its database."""
    config = review.params["aide_config"] or next(filter(os.path.exists, CONFIGS), CONFIGS[0])
    try:
        ran = review.host.run(["aide", "--check", "--config", config], timeout=review.params["aide_seconds"])
    except MaintenanceError as error:
        return [unknown(IDS[0], "aide", f"nothing was compared: {error}", "Install aide, or raise aide_seconds.")]
    return [verdict(ran.rc, parse(ran.stdout), ran.why())]


def parse(text: str) -> Report:
    """Read a report in AIDE's plain form."""
    if "found NO differences" in text:
        return Report(dict.fromkeys(_BITS.values(), 0), ())
    counts = {kind.lower(): int(count) for kind, count in _COUNT.findall(text)}
    section, lines = "", []
    for line in text.splitlines():
        header, entry = _SECTION.match(line), _ENTRY.match(line)
        if header:
            section = header[1].lower()
        elif line.startswith("Detailed information"):
            section = ""
        elif section and entry:
            lines.append(f"{section} {shown(entry[1])}")
    return Report(counts, lines)


def verdict(code: int, report: Report, why: str) -> Finding:
    """Judge by the report; a code beyond the three bits, or one that the report contradicts, means that AIDE did not finish."""
    told = {kind for bit, kind in _BITS.items() if code & bit}
    listed = {kind for kind, count in report.counts.items() if count}
    if not 0 <= code <= 7 or not report.counts or told != listed:
        advice = "Make its database with aideinit (or aide --init) from a state that you trust, and look at what AIDE says."
        return unknown(IDS[0], "aide", f"AIDE came to no verdict: {why}", advice)
    total = sum(report.counts.values())
    return Finding(
        IDS[0],
        "critical" if total else "ok",
        "aide",
        f"AIDE found {many(total, 'difference')}"
        + (f": {', '.join(f'{count} {kind}' for kind, count in sorted(report.counts.items()) if count)}" if total else ""),
        value=total,
        unit="count",
        threshold="critical from 1",
        not_covered="what AIDE's own rules leave out; changes before its database was made",
        advice="Find out who made each change; then let AIDE update its database (aide --update), or undo it." if total else "",
        evidence=list(report.lines[:20]),
    )


def passes_bad_sample(_review: Review) -> str:
    """Plant a report with a changed file; return it when it counts as none."""
    sample = "Summary:\n  Added entries:\t0\n  Removed entries:\t0\n  Changed entries:\t1\n\nChanged entries:\n\nf  ... C..: /planted\n"
    return "a changed file in AIDE's report as none" if verdict(4, parse(sample), "").state != "critical" else ""
