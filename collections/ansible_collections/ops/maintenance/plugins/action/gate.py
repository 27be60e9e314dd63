# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.entry import NO_JOURNAL
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils import control, windows

BAD = frozenset(("failed", "rolled_back", "rollback_failed", "unreachable"))


class ActionModule(ActionBase):
    """Decide on the control node whether a host may start: window, inventory, failures of the hosts before it."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "cadence": {"type": "str", "required": True},
                "opened_by": {"type": "str", "default": ""},
                "failures": {"type": "dict", "default": {}},
                # raw: of the wrong type they are faults of the inventory, which the run was opened with
                "budget_percent": {"type": "raw", "default": 10.0},
                "windows": {"type": "raw"},
                "blackouts": {"type": "raw"},
                "force_window": {"type": "str", "default": ""},
            }
        )
        known = task_vars or {}
        host = known.get("inventory_hostname", "")
        # read here, not through a template: the plan of a thousand hosts is large
        opened = known["hostvars"].raw_get(given["opened_by"]).get("__cycle_opened") if given["opened_by"] else None
        if opened:
            mine = [system for system in opened["systems"].values() if host in system["hosts"]]
            verdict = mine[0] if mine else {"open": False, "reason": "The run was opened without this host."}
        else:
            if not control.run_id():
                self._display.warning(NO_JOURNAL)
            verdict = _decide(given)
        outcome, reason = "refused", verdict["reason"]
        stop = over_budget(given["failures"], float(given["budget_percent"])) if verdict["open"] else ""
        if stop:
            outcome, reason, verdict = "not_attempted", stop, {**verdict, "open": False}
        result.update(
            changed=False,
            open=verdict["open"],
            reason=reason,
            deadline=verdict.get("deadline", 0.0),
            durations=verdict.get("durations", {}).get(host, {}),
            dead_runs=(opened or {}).get("dead_runs", []),
            run_id=control.run_id(),
            holder=control.holder(),
        )
        if not verdict["open"]:
            result["msg"] = reason
            result["outcome"] = outcome
            result["maintenance_lines"] = [{"kind": "outcome", "host": host, "outcome": outcome, "reason": reason}]
        return result


def _decide(given: dict[str, Any]) -> dict[str, Any]:
    try:
        window = windows.describe(given["windows"], given["cadence"], given["blackouts"])
        decision = windows.decide(window, datetime.now(timezone.utc), given["force_window"])
    except MaintenanceError as error:
        return {"open": False, "reason": str(error)}
    return {"open": decision.is_open, "reason": decision.reason, "deadline": decision.deadline}


def over_budget(failures: dict[str, Any], percent: float) -> str:
    """Say why no further batch may start, empty when it may.

    :param failures: ``total`` hosts of the play and ``outcomes`` of those that are done.
    """
    counted = Counter(failures.get("outcomes", []))
    bad = sum(counted[outcome] for outcome in BAD)
    allowed = int(failures.get("total", 0) * percent / 100)
    if bad <= allowed:
        return ""
    what = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counted.items()) if outcome in BAD)
    return f"Not attempted: the hosts before it ended with {what}, more than the budget of {allowed} allows."
