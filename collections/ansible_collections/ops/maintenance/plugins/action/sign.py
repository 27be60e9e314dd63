# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.record import Outcome
from ansible_collections.ops.maintenance.plugins.plugin_utils import control, report
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import Line, append_signature, read_journal
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store

SIGN_OFFS = ("performed_by", "verified_by", "recommendations")


class ActionModule(ActionBase):
    """Let a person sign a duty of a run: a line in its journal that the report shows."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "duty": {"type": "str", "required": True},
                "signed_by": {"type": "str", "required": True},
                "system": {"type": "str", "default": ""},
                "note": {"type": "str", "default": ""},
                "run_id": {"type": "str", "default": ""},
                "store_url": {"type": "str"},
            }
        )
        try:
            return {**result, **self._sign(given, bool(self._task.check_mode))}
        except MaintenanceError as error:
            return {**result, "failed": True, "msg": str(error), "maintenance_record": _record("failed", str(error), {})}

    def _sign(self, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        path = report.journal_of(given["run_id"]) if given["run_id"] else report.default_journal()
        if not path:
            raise InputError.of("run_id", given["run_id"], f"a run whose journal is in {control.journal_folder()}", "correct it")
        lines = read_journal(path).lines
        check(given, lines)
        fields = {name: given[name].strip() for name in ("duty", "system", "signed_by", "note")}
        summary = f"{fields['signed_by']} signs {fields['duty']} of {lines[0]['run_id']}"
        if any(line["kind"] == "signature" and fields.items() <= line.items() for line in lines):
            return {"changed": False, "journal": path, "maintenance_record": _record("ok", f"{summary}: signed already", fields)}
        if check_mode:
            return {"changed": True, "journal": path, "maintenance_record": _record("due", summary, fields)}
        now = datetime.now(UTC)
        append_signature(path, {**fields, "signed_at": now.isoformat()}, now)
        self._keep(path, control.store_url(given["store_url"]))
        return {"changed": True, "journal": path, "maintenance_record": _record("changed", summary, fields)}

    def _keep(self, path: str, store_url: str) -> None:
        """Tell the store, too; the journal is the original, so a store that does not answer is only a warning."""
        try:
            if store_url:
                with Store(store_url) as store:
                    store.save_run(read_journal(path).lines)
        except MaintenanceError as error:
            self._display.warning(f"The signature is in the journal, not in the store: {error}")


def check(given: dict[str, Any], lines: list[Line]) -> None:
    """Refuse a signature that would be worth nothing.

    :raises InputError: no name, an account instead of a person, a duty that the run does not have, or a self-verification.
    """
    signer = given["signed_by"].strip()
    run = lines[0]
    control = run.get("control")
    account = control.get("user") if isinstance(control, dict) else ""
    if not signer or signer == account:
        raise InputError.of("signed_by", signer, "the name of a person, not of the account that ran the automation", "give your own name")
    duties = {*SIGN_OFFS}
    for plan in (line for line in lines if line["kind"] == "plan"):
        items = [*plan.get("duties", []), *(item for item in plan.get("checklist", []) if item.get("kind") == "attestation")]
        duties |= {str(item.get("id") or item.get("duty") or "") if isinstance(item, dict) else str(item) for item in items}
    if given["duty"].strip() not in duties:
        raise InputError.of("duty", given["duty"], f"one of {', '.join(sorted(duties - {''}))}", "see the open items of the report")
    performers = {
        str(line.get("signed_by")).casefold() for line in lines if line["kind"] == "signature" and line.get("duty") == "performed_by"
    }
    if given["duty"].strip() == "verified_by" and signer.casefold() in performers:
        raise InputError.of("signed_by", signer, "another person than the one who performed it", "let a colleague verify")


def _record(status: str, summary: str, after: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {**Outcome("signature", "sign", status, summary, after=after).record(), "started": now, "finished": now}
