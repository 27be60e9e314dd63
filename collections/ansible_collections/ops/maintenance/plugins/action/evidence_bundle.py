# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import write_atomic
from ansible_collections.ops.maintenance.plugins.module_utils.record import Finding, Outcome
from ansible_collections.ops.maintenance.plugins.plugin_utils import control, evidence, report, waivers

from .report import DEFAULT_REPORT_DIR, REPORT_DIR

WAIVERS = "OPS_MAINTENANCE_WAIVERS"
FINDING_ID = "evidence.bundle"


class ActionModule(ActionBase):
    """Pack the evidence of a run into one archive on the control node, or prove such an archive."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "run_id": {"type": "str", "default": ""},
                "folder": {"type": "path"},
                "waivers": {"type": "path"},
                "store_url": {"type": "str"},
                "verify": {"type": "path"},
            }
        )
        started = datetime.now(UTC)
        try:
            done = _proven(given, started) if given["verify"] else _packed(given, bool(self._task.check_mode), started)
        except MaintenanceError as error:
            return {**result, "failed": True, "msg": str(error), "maintenance_record": _record("failed", str(error), started)}
        self._display.display(f"Evidence: {done['msg']}")
        return {**result, **done}


def _packed(given: dict[str, Any], check_mode: bool, started: datetime) -> dict[str, Any]:
    if check_mode:
        said = "a preview is no evidence, so none is packed"
        return {"changed": False, "skipped": True, "msg": said, "maintenance_record": _record("skipped", said, started)}
    path = report.journal_of(given["run_id"]) if given["run_id"] else report.default_journal()
    if not path:
        raise InputError.of("run_id", given["run_id"], f"a run whose journal is in {control.journal_folder()}", "correct it")
    waiver_file = given["waivers"] or os.environ.get(WAIVERS) or waivers.beside(context.CLIARGS.get("inventory") or ())
    files = evidence.files_of(path, control.store_url(given["store_url"]), waiver_file)
    run_id = Path(path).stem
    folder = os.path.expanduser(given["folder"] or os.environ.get(REPORT_DIR) or DEFAULT_REPORT_DIR)
    target, packed = os.path.join(folder, f"evidence-{run_id}.tar.gz"), evidence.pack(run_id, files)
    same = _is_same(target, packed)
    if not same:
        _write(target, packed)
    _manifest, faults = evidence.faults_of(target)
    if faults:
        raise MaintenanceError(f"{target} was written and is not sound: {faults[0]}. Look at the disk and the journal.")
    said = f"evidence of {run_id}: {len(files)} files in {target}"
    record = _record("ok" if same else "changed", said, started, {"path": target, "bytes": len(packed)})
    return {"changed": not same, "path": target, "msg": said, "maintenance_record": record}


def _is_same(path: str, packed: bytes) -> bool:
    try:
        return not os.path.islink(path) and Path(path).read_bytes() == packed and os.stat(path).st_mode & 0o777 == 0o600
    except OSError:
        return False


def _write(path: str, packed: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        write_atomic(path, packed, mode=0o600)
    except OSError as error:
        raise MaintenanceError(f"{path} could not be written ({error.strerror}); name a folder that can be written.") from error


def _proven(given: dict[str, Any], started: datetime) -> dict[str, Any]:
    """Prove an archive by itself, and its journal by the store where there is one."""
    path = given["verify"]
    manifest, faults = evidence.faults_of(path, control.store_url(given["store_url"]), report.journal_of)
    ended = manifest.get("state") in ("completed", "failed")
    found = Finding(
        FINDING_ID,
        "critical" if faults else "ok",
        path,
        f"{len(faults)} things do not fit: {faults[0]}" if faults else f"all {len(manifest['files'])} files are as they were packed",
        value=len(faults),
        unit="count",
        threshold="critical from 1",
        not_covered="" if ended else "the end of the run, for it was packed before that",
        advice="Do not rely on it; find out who changed it, and pack the evidence anew from the journal." if faults else "",
        evidence=faults[:20],
    )
    said = f"{manifest['run_id']}: {found.summary}"
    record = {**_record("ok", said, started), "findings": [found.as_dict()]}
    return {"changed": False, "failed": bool(faults), "msg": said, "faults": faults, "manifest": manifest, "maintenance_record": record}


def _record(status: str, summary: str, started: datetime, after: dict[str, Any] | None = None) -> dict[str, Any]:
    times = {"started": started.isoformat(), "finished": datetime.now(UTC).isoformat()}
    return {**Outcome("evidence", "evidence_bundle", status, summary, after=after or {}).record(), **times}
