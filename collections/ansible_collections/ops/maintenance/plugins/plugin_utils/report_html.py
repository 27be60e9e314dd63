# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML page: no network, no fonts, readable without its small script."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import report_values as v
from . import report_words as words
from .report_charts import charts
from .report_groups import group_actions, group_findings, group_passed
from .report_model import Item, Report, Step, Window

TEMPLATES = Path(__file__).resolve().parent / "templates"
LIMIT = 200
_PLACES = 6000
_HOSTS = 2000
_CHARTS = 24
_PASSED_ROWS = 400

_VERDICT_WORDS = {
    "ok": "Healthy: everything that was looked at is ok",
    "warning": "Warning: something needs attention soon",
    "critical": "Critical: something needs attention now",
    "unknown": "Unknown: not everything could be looked at",
}
_TONE = {
    "done": "ok",
    "signed": "ok",
    "failed": "critical",
    "not_done": "warning",
    "missing": "unknown",
    "waived": "neutral",
    "open": "neutral",
    "previewed": "neutral",
}
_SHAPE = {
    "done": "done",
    "signed": "done",
    "failed": "failed",
    "not_done": "missing",
    "missing": "missing",
    "waived": "missing",
    "open": "open",
    "previewed": "open",
}
WORDS = {
    "done": "Done",
    "signed": "Signed",
    "failed": "Failed",
    "not_done": "Not done",
    "missing": "No evidence",
    "waived": "Waived",
    "open": "Open",
    "previewed": "Previewed",
}
_ACTION_TONE = {"failed": "critical", "deferred": "warning", "due": "warning", "changed": "ok", "skipped": "neutral"}
PHASE_WORDS = {"pre": "Before", "during": "During", "post": "After", "": "Checklist"}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render(report: Report) -> str:
    """Return the page."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    zone = report.systems[0].window.timezone if report.systems else "UTC"
    groups = group_findings(report.findings)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            r=report,
            css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704  own file, no text of a host in it
            script=Markup(script),  # noqa: S704  likewise
            script_hash=digest,
            zone=zone,
            at=lambda value, form="%Y-%m-%d %H:%M %Z": v.local(value, zone, form),
            local=v.local,
            duration=v.duration,
            limit=LIMIT,
            verdict_words=_VERDICT_WORDS,
            tone=_TONE,
            shape=_SHAPE,
            word=WORDS,
            operation=words.operation,
            services=services_words(report),
            preview=report.run.check_mode,
            action_tone=_ACTION_TONE,
            failures=[failure for failure in report.failures if not failure.has_finding],
            groups=groups[:LIMIT],
            groups_left=max(0, len(groups) - LIMIT),
            places_limit=max(20, _PLACES // max(1, len(groups))),
            waived=group_findings(report.waived),
            window=report.systems[0].window if report.systems else _NO_WINDOW,
            downtime=longest_downtime(report),
            sections=_sections(report),
            **_host_lists(report),
            checklist=checklist_columns(report),
            actions=group_actions(report.actions),
            actions_limit=LIMIT,
            **_step_bars(report.steps),
            **_charts(report),
            passed_rows=report.passed if len(report.passed) <= _PASSED_ROWS else [],
            passed_kinds=group_passed(report.passed),
        )
    )


_NO_WINDOW = Window("", "", "UTC", "", False, "", "", "", None, None, None, "not measured")


def services_words(report: Report) -> dict[bool | None, str]:
    """Say what became of the services of a host."""
    return {True: "restored", False: "NOT restored", None: "not touched" if report.run.check_mode else "not known"}


def longest_downtime(report: Report) -> Window:
    """Return the window of the system that was down longest."""
    windows = [system.window for system in report.systems]
    return max(windows, key=lambda w: -1.0 if w.downtime_seconds is None else w.downtime_seconds, default=_NO_WINDOW)


def checklist_columns(report: Report) -> list[tuple[str, list[Item]]]:
    """Return the items under their headings: activities, each system's checklist by phase, duties."""
    columns = [("Activities", report.activities)]
    prefix = len(report.systems) > 1
    found: dict[tuple[str, str], list[Item]] = {}
    for item in report.checklist:
        found.setdefault((item.system, item.phase), []).append(item)
    for (system, phase), items in found.items():
        columns.append((f"{PHASE_WORDS[phase]}{f' ({system})' if prefix else ''}", items))
    duties: dict[str, list[Item]] = {}
    for item in report.duties:
        duties.setdefault(item.system, []).append(item)
    columns += [(f"Duties of a person{f' ({system})' if prefix else ''}", items) for system, items in duties.items()]
    return columns


def _sections(report: Report) -> list[tuple[str, str, int | None]]:
    found: list[tuple[str, str, int | None]] = [("runs", "Runs", len(report.span))] if report.span else []
    ticked = sum(item.ticked for item in [*report.checklist, *report.activities, *report.duties])
    return [
        *found,
        ("findings", "Attention", len(report.findings)),
        ("hosts", "Hosts", len(report.hosts)),
        ("checklist", "Checklist", ticked),
        ("actions", "Actions", len(report.actions)),
        ("time", "Time and trends", None),
        ("record", "Log", None),
        ("next", "Next", None),
        ("passed", "Passed", len(report.passed)),
    ]


def _host_lists(report: Report) -> dict[str, Any]:
    good = [host for host in report.hosts if host.verdict == "ok"]
    bad = [host for host in report.hosts if host.verdict != "ok"]
    return {"good_hosts": good, "bad_hosts": bad[:_HOSTS], "bad_hosts_left": max(0, len(bad) - _HOSTS)}


def _step_bars(steps: list[Step]) -> dict[str, Any]:
    """Scale each step against its own budget; without one against the longest step."""
    longest = max((step.longest_seconds for step in steps), default=0.0) or 1.0
    bars = []
    for step in steps[:LIMIT]:
        whole = max(step.longest_seconds, step.budget_seconds or longest) or 1.0
        mark = None if not step.budget_seconds else round(step.budget_seconds / whole * 100, 1)
        bars.append({"step": step, "width": round(step.longest_seconds / whole * 100, 1), "mark": mark})
    return {"steps": bars, "steps_left": max(0, len(steps) - LIMIT)}


def _charts(report: Report) -> dict[str, Any]:
    found = charts(report.series, len(report.systems) > 1)
    return {"charts": found[:_CHARTS], "charts_left": max(0, len(found) - _CHARTS)}
