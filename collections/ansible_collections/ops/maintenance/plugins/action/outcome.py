# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

OUTCOMES = ("completed", "refused", "failed", "rolled_back", "rollback_failed", "unreachable", "not_attempted")


class ActionModule(ActionBase):
    """Record how the run ended for a host."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "outcome": {"type": "str", "required": True, "choices": list(OUTCOMES)},
                "reason": {"type": "str", "default": ""},
                "downtime_seconds": {"type": "float"},
                "services_restored": {"type": "bool"},
                "rollback_required": {"type": "bool", "default": False},
            }
        )
        line = {"kind": "outcome", "host": (task_vars or {}).get("inventory_hostname", ""), **given}
        result.update(changed=False, outcome=given["outcome"], reason=given["reason"], maintenance_lines=[line])
        return result
