# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.plugin_utils import inventory_check


class ActionModule(ActionBase):
    """Ask the modules of a role on the control node what they would refuse, before the first of them works."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {"role": {"type": "str", "required": True, "choices": sorted(inventory_check.role_options())}}
        )
        known = task_vars or {}
        names = [name for name in inventory_check.role_options()[given["role"]] if name in known]
        values = {name: self._templar.template(known[name]) for name in names}
        problems = list(inventory_check.role_misfits(given["role"], values))
        result.update(changed=False, problems=problems)
        if problems:
            result.update(failed=True, msg=" ".join(problems), error_kind="input")
        return result
