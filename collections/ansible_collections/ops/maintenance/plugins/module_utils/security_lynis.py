# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the last audit by Lynis found, read from its report; one that is old, missing or was cut off proves nothing."""

from __future__ import annotations

import os
import typing as t
from datetime import datetime

from .errors import InputError, MaintenanceError, out_of_range
from .judge import many
from .paths import open_regular, read_state
from .record import Finding, clean
from .security_common import READ_LIMIT_BYTES, Review, unknown, why_unread

OPTIONS: dict[str, t.Any] = {
    "lynis_report": {"type": "path", "default": ""},
    "lynis_max_age_days": {"type": "int", "default": 35},
    "lynis_minimum_index": {"type": "int"},
}
IDS = ("security.lynis",)
STATE_FILE = "security_lynis.json"

_DAY = 86400.0
_ADVICE = "Run lynis audit system as root, by a timer before the review, then look again."


class Report(t.NamedTuple):
    """What counts of a report."""

    finished: bool
    hardening: int | None
    warnings: list[str]
    suggestions: list[str]


def parse(text: str) -> Report:
    """Read the lines of a report: ``key=value``, and lists as ``key[]=value`` with fields between bars."""
    single: dict[str, str] = {}
    several: dict[str, list[str]] = {"warning": [], "suggestion": []}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            if key.endswith("[]"):
                several.setdefault(key[:-2], []).append(value)
            else:
                single[key] = value
    index = single.get("hardening_index", "")
    return Report(
        single.get("finish") == "true",
        int(index) if index.isascii() and index.isdigit() and len(index) < 4 else None,
        [_said(value) for value in several["warning"]],
        [_said(value) for value in several["suggestion"]],
    )


def _said(value: str) -> str:
    fields = [field.strip() for field in value.split("|")]
    details = [field for field in fields[2:3] if field not in ("", "-")]
    return clean(" ".join([f"{fields[0]}:", *fields[1:2], *(f"({detail})" for detail in details)]), 200)


def look(review: Review) -> list[Finding]:
    """Judge the report, and say what is new in it since the one before."""
    path = review.params["lynis_report"]
    try:
        with open_regular(path) as source:
            changed = os.fstat(source.fileno()).st_mtime
            report = parse(source.read(READ_LIMIT_BYTES).decode("utf-8", "backslashreplace"))
        known = read_state(review.params["state_dir"], STATE_FILE)
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[0], path, f"there is no report that can be read: {why_unread(error)}", _ADVICE)]
    if not report.finished or report.hardening is None:
        return [unknown(IDS[0], path, "the audit did not come to its end, or this is no report of Lynis", _ADVICE)]
    before = known.get("before") if known.get("report") == changed else known.get("open")
    if not review.check_mode and known.get("report") != changed:
        review.keep(STATE_FILE, {"report": changed, "open": report.warnings + report.suggestions, "before": before})
    review.count("security.lynis_index", path, report.hardening)
    return [verdict(review, path, report, changed, before)]


def verdict(review: Review, path: str, report: Report, changed: float, before: t.Sequence[str] | None) -> Finding:
    """Judge a report that is whole."""
    minimum, limit = review.params["lynis_minimum_index"], review.params["lynis_max_age_days"]
    days = (review.now.timestamp() - changed) / _DAY
    below = minimum is not None and report.hardening is not None and report.hardening < minimum
    old = not -1 <= days <= limit
    state = "warning" if report.warnings or below else "unknown" if old else "ok"
    came = set(report.warnings + report.suggestions) - set(before) if before is not None else set()
    lines = [(said in came, said) for said in report.warnings] + [(said in came, f"suggestion {said}") for said in report.suggestions]
    advice = {"ok": "", "unknown": _ADVICE}
    return Finding(
        IDS[0],
        state,
        path,
        f"hardening index {report.hardening}, {many(len(report.warnings), 'warning')}, {many(len(report.suggestions), 'suggestion')}"
        + (f", {len(came)} new since the report before" if before is not None else "")
        + (f"; the report is {days:.0f} days old" if old else ""),
        value=report.hardening,
        threshold=f"warning from the first warning{f' or below index {minimum}' if minimum is not None else ''}, unknown after {limit} days",
        basis="stale" if old else "exact",
        as_of=datetime.fromtimestamp(changed, review.now.tzinfo).isoformat(timespec="seconds") if old else "",
        advice=advice.get(state, "Resolve the warnings; lynis show details names what each test saw."),
        evidence=[f"new: {said}" if new else said for new, said in sorted(lines, key=lambda line: not line[0])][:20],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    path = params["lynis_report"]
    wrong = out_of_range(params, ("lynis_max_age_days",), least=1) + out_of_range(params, ("lynis_minimum_index",), most=100)
    if path and not os.path.isabs(path):
        wrong.append(str(InputError.of("lynis_report", path, "an absolute path such as /var/log/lynis-report.dat", "correct it")))
    return wrong


def passes_bad_sample(review: Review) -> str:
    """Plant a report with a warning; return the sample when it counts as clean."""
    report = parse("warning[]=TEST-1|planted|-|-|\nhardening_index=90\nfinish=true\n")
    params = {"lynis_minimum_index": None, "lynis_max_age_days": 1}
    silent = Review(params, review.host, True, review.now)
    found = verdict(silent, "planted", report, review.now.timestamp(), None)
    return "a report with a warning as one without" if found.state == "ok" else ""
