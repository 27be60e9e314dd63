# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.record import Outcome
from ansible_collections.ops.maintenance.plugins.plugin_utils import control, report

REPORT_DIR = "OPS_MAINTENANCE_REPORT_DIR"
DEFAULT_REPORT_DIR = "~/.local/state/ops_maintenance/report"


class ActionModule(ActionBase):
    """Write the report of a run on the control node, whatever became of the hosts."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "run_id": {"type": "str", "default": ""},
                "journal": {"type": "path"},
                "span_days": {"type": "float", "default": 0.0},
                "folder": {"type": "path"},
                "formats": {"type": "list", "elements": "str", "default": list(report.FORMATS), "choices": list(report.FORMATS)},
                "store_url": {"type": "str"},
                "name": {"type": "str", "default": ""},
            }
        )
        started = datetime.now(UTC)
        try:
            made = _build(given)
            folder = given["folder"] or os.environ.get(REPORT_DIR) or DEFAULT_REPORT_DIR
            written = report.write(made, folder, given["formats"], given["name"] or _name(made, given["span_days"]))
        except MaintenanceError as error:
            return {**result, "failed": True, "msg": str(error), "maintenance_record": _record("failed", str(error), {}, started)}
        self._display.display(f"Report: {next(iter(written.paths.values()))}")
        counts = made.counts["findings"]
        summary = f"report of {made.run.run_id}: {made.verdict}, {made.summary}"
        result.update(
            changed=False,
            run_id=made.run.run_id,
            verdict=made.verdict,
            summary=made.summary,
            counts=made.counts,
            status=made.log.status,
            paths=written.paths,
            msg=f"{made.verdict.upper()}: {made.summary} {next(iter(written.paths.values()))}",
            maintenance_record=_record("ok", summary, {"verdict": made.verdict, **counts, "paths": written.paths}, started),
        )
        return result


def _build(given: dict[str, Any]) -> report.Report:
    chosen = [name for name in ("run_id", "journal", "span_days") if given[name]]
    if len(chosen) > 1:
        raise InputError.of("report", chosen, "one of run_id, journal and span_days", "leave the others out")
    if given["span_days"] < 0:
        raise InputError.of("span_days", given["span_days"], "a number of days above zero", "correct it")
    store_url = control.store_url(given["store_url"])
    if given["span_days"]:
        return report.report_of_span(given["span_days"], store_url)
    if given["run_id"]:
        path = report.journal_of(given["run_id"])
        if not path and store_url:
            return report.report_of_run(given["run_id"], store_url)
        if not path:
            raise InputError.of(
                "run_id", given["run_id"], f"a run whose journal is in {control.journal_folder()}", "correct it, or set store_url"
            )
    else:
        path = given["journal"] or report.default_journal()
    return report.report_of(path, store_url, running=report.is_own_run(path) or report.is_running(path))


def _name(made: report.Report, span_days: float) -> str | None:
    return f"span-{made.generated[:10]}-{span_days:g}d" if span_days else None


def _record(status: str, summary: str, after: dict[str, Any], started: datetime) -> dict[str, Any]:
    times = {"started": started.isoformat(), "finished": datetime.now(UTC).isoformat()}
    return {**Outcome("report", "report", status, summary, after=after).record(), **times}
