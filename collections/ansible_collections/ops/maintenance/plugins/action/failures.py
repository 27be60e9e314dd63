# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Collect how the hosts of the batches before this one ended."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        known = task_vars or {}
        hosts, gone = known["ansible_play_hosts_all"], set(known["ansible_play_hosts_all"]) - set(known["ansible_play_hosts"])
        before = [host for host in hosts if host not in set(known["ansible_play_batch"])]
        outcomes = [_outcome(known["hostvars"].raw_get(host), host in gone) for host in before]
        result.update(changed=False, total=len(hosts), outcomes=[outcome for outcome in outcomes if outcome])
        return result


def _outcome(values: dict[str, Any], gone: bool) -> str:
    known = values.get("__cycle_outcome") or values.get("__cycle_gate") or {}
    return str(known.get("outcome") or ("unreachable" if gone else ""))
