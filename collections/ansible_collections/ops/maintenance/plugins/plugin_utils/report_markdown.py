# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as Markdown, with every field of a maintenance report and a maintenance log."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import report_values as v
from . import report_words as words
from .report_groups import group_actions, group_findings, group_passed
from .report_html import PHASE_WORDS, TEMPLATES, WORDS, checklist_columns, longest_downtime, services_words
from .report_model import Report

_LIMIT = 200
_SPECIAL = re.compile(r"([\\`*_\[\]|~$#!])")
_BLOCK = re.compile(r"^([-+=])(?=\s|\1|$)|^(\d+)([.)])(?=\s|$)")
_LINK = re.compile(r"(:)(?=//)|(?<=\bwww)(\.)|(?<!\S)(@)", re.IGNORECASE)


class Raw(str):
    """Text that is Markdown on purpose."""

    __slots__ = ()


def escape(value: Any) -> str:
    """Make any text inert in Markdown: no markup, no HTML, no links, one line."""
    if isinstance(value, Raw):
        return value
    if value is None or isinstance(value, (int, float)):
        return "" if value is None else str(value)
    flat = " ".join(v.text(value).split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = _SPECIAL.sub(r"\\\1", flat)
    flat = _BLOCK.sub(lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\{m[3]}", flat)
    return _LINK.sub(lambda m: f"\\{m[0]}", flat)  # an address stays text


def code(value: Any) -> Raw:
    """Return text as a code span that it cannot end, also within a table."""
    flat = " ".join(v.text(value).split()).replace("|", "¦")
    if not flat:
        return Raw("")
    fence = "`" * (max((len(run) for run in re.findall("`+", flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return Raw(f"{fence}{pad}{flat}{pad}{fence}")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(  # noqa: S701  not HTML: every value goes through escape
        loader=FileSystemLoader(TEMPLATES), finalize=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = code
    environment.filters["raw"] = Raw  # for macros, whose values are escaped within
    return environment


def render(report: Report) -> str:
    """Return the report in Markdown."""
    zone = report.systems[0].window.timezone if report.systems else "UTC"
    text = (
        _environment()
        .get_template("report.md.j2")
        .render(
            r=report,
            zone=zone,
            at=lambda value, form="%Y-%m-%d %H:%M %Z": v.local(value, zone, form),
            local=v.local,
            duration=v.duration,
            limit=_LIMIT,
            window=report.systems[0].window if report.systems else None,
            downtime=longest_downtime(report),
            groups=group_findings(report.findings),
            waived=group_findings(report.waived),
            actions=group_actions(report.actions),
            passed=group_passed(report.passed),
            columns=checklist_columns(report)[1:],
            words=WORDS,
            operation=words.operation,
            services=services_words(report),
            preview=report.run.check_mode,
            phases=PHASE_WORDS,
            bad_hosts=[host for host in report.hosts if host.verdict != "ok"],
            good_hosts=[host for host in report.hosts if host.verdict == "ok"],
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
