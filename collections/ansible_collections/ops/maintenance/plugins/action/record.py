# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.record import STATUSES, Outcome


class ActionModule(ActionBase):
    """Put a record into the journal for something that no module did, such as a step that was deferred."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "subject": {"type": "str", "required": True},
                "operation": {"type": "str", "required": True},
                "status": {"type": "str", "required": True, "choices": list(STATUSES)},
                "summary": {"type": "str", "required": True},
            }
        )
        result.update(changed=False, maintenance_record=Outcome(**given).record())
        return result
