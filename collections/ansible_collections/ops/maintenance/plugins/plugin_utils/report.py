# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the report of a run, or of a span of runs, as HTML, Markdown and JSON."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import write_atomic

from . import control, report_html, report_json, report_markdown
from .control import JOURNAL_DIR, current_folder, journal_folder
from .journal import journals, read_journal
from .report_build import build, past_run
from .report_model import Notice, PastRun, Report
from .report_source import OWN_CADENCES, Source, first_line, from_journal, from_store
from .store import Store

FORMATS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "html": ("html", report_html.render),
    "md": ("md", report_markdown.render),
    "json": ("json", report_json.render),
}
_PREVIEW = "preview-"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
_MODE = 0o640


@dataclass(frozen=True)
class Written:
    """What was written, and the report it shows."""

    paths: dict[str, str]
    report: Report


def write_reports(
    journal: str,
    folder: str,
    store_url: str = "",
    formats: Sequence[str] = ("html", "md", "json"),
    name: str | None = None,
    *,
    running: bool = False,
) -> dict[str, str]:
    """Write the report of a journal as ``<run id>.html`` and so on, and the same again as ``latest``; see :func:`write`.

    :param name: another name than the run's id.
    :param running: the run of this journal is the one that writes the report, so it needs no end yet.
    :returns: the path of each format.
    """
    return write(report_of(journal, store_url, running=running), folder, formats, name).paths


def report_of(journal: str, store_url: str = "", *, running: bool = False, generated: datetime | None = None) -> Report:
    """Build the report of a journal.

    :param generated: what it calls its own time; now, where it is not given.
    """
    return _report(from_journal(journal, store_url), running, generated=generated)


def report_of_run(run_id: str, store_url: str) -> Report:
    """Build the report of a run that only the store has."""
    return _report(from_store(run_id, store_url), running=False)


def _report(source: Source, running: bool, span: Sequence[PastRun] = (), generated: datetime | None = None) -> Report:
    now = generated or datetime.now(UTC)
    made = build(source.lines, source.earlier, source.history, generated=now, running=running, chain_fault=source.chain_fault, span=span)
    if source.warning:
        made.notices.append(Notice("warning", "The store could not be read", f"Trends are missing. {source.warning}"))
    return made


def report_of_span(days: float, store_url: str, until: datetime | None = None) -> Report:
    """Build the report of all runs of the last days: an overview, then the newest of them in full."""
    if not store_url:
        raise MaintenanceError("A report over several runs is made from the store, and no store is configured; set store_url.")
    end = until or datetime.now(UTC)
    with Store(store_url) as store:
        runs = store.runs(since=(end - timedelta(days=days)).isoformat(), until=end.isoformat())
        runs = [run for run in runs if run["cadence"] not in OWN_CADENCES and not run["check_mode"]]
        if not runs:
            raise MaintenanceError(f"The store {store.name} has no run of the last {days:g} days; choose a longer span.")
        overview = [past_run(build(store.lines_of(run["run_id"]), generated=end, chain_fault="")) for run in reversed(runs)]
    made = _report(from_store(runs[-1]["run_id"], store_url), False, overview)
    made.title = f"Maintenance from {runs[0]['started'][:10]} to {runs[-1]['started'][:10]}"
    return made


def write(report: Report, folder: str, formats: Sequence[str], name: str | None = None) -> Written:
    """Write a report, and the same again as ``latest``; each file is replaced in one step.

    A preview (check mode) never takes the place of the report of a maintenance: it is ``preview-<run id>`` and ``preview-latest``.
    """
    latest = f"{_PREVIEW}latest" if report.run.check_mode else "latest"
    base = name or f"{_PREVIEW if report.run.check_mode else ''}{report.run.run_id}"
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise InputError.of("formats", list(formats), f"some of {', '.join(FORMATS)}", "choose among them")
    if not _NAME.match(base) or base in ("latest", f"{_PREVIEW}latest"):
        raise InputError.of("name", base, "letters, digits, dots, dashes and underscores, and not a kind of 'latest'", "give another name")
    target = Path(os.path.expanduser(folder))
    try:
        target.mkdir(mode=0o750, parents=True, exist_ok=True)
        paths = {}
        for kind in formats:
            suffix, render = FORMATS[kind]
            content = render(report).encode("utf-8", "backslashreplace")
            for stem in (base, latest):
                write_atomic(str(target / f"{stem}.{suffix}"), content, mode=_MODE)
            paths[kind] = str(target / f"{base}.{suffix}")
    except OSError as error:
        raise MaintenanceError(
            f"The report could not be written to {target} ({error.strerror}); name a folder that can be written."
        ) from error
    return Written(paths, report)


def default_journal() -> str:
    """Return the journal to report on: of the run that asks, when it maintains something, else the newest.

    :raises MaintenanceError: there is none.
    """
    current = os.environ.get(control.JOURNAL, "")
    if current and os.path.exists(current) and is_about_maintenance(Path(current)):
        return current
    folder = current_folder() or journal_folder()
    for path in journals(folder):
        if is_about_maintenance(path):
            return str(path)
    raise MaintenanceError(
        f"There is no journal of a maintenance run in {folder}; run a maintenance with the journal callback enabled "
        f"(callbacks_enabled = ops.maintenance.journal in ansible.cfg), or name a journal, or set {JOURNAL_DIR}."
    )


def is_about_maintenance(path: Path) -> bool:
    """Whether a journal is of a run that did more than write reports or signatures."""
    return first_line(path).get("cadence") not in (None, *OWN_CADENCES)


def journal_of(run_id: str) -> str:
    """Return the path of a run's journal, empty when it is not on this machine.

    :raises InputError: the id cannot be one.
    """
    if not _NAME.match(run_id):
        raise InputError.of("run_id", run_id, "the id of a run such as weekly-20261121T020000Z-3fa9", "take it from a report's name")
    for folder in dict.fromkeys((current_folder(), journal_folder())):
        path = os.path.join(folder, f"{run_id}.jsonl")
        if folder and os.path.isfile(path):
            return path
    return ""


def is_own_run(path: str) -> bool:
    """Whether a journal belongs to the run that this process is part of."""
    return bool(path) and os.path.realpath(path) == os.path.realpath(os.environ.get(control.JOURNAL, "") or os.devnull)


def is_running(path: str) -> bool:
    """Whether the run of a journal has not ended and its process is alive on this machine."""
    return read_journal(path).state == "running"
