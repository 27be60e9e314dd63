# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: commands_due
short_description: Choose the site's tools that are to run now
version_added: 0.1.0
description:
  - Keeps the tools of a stage, and of those with a condition the ones whose finding was made before in this run.
  - Refuses the whole list when one of the tools is declared in a way that could not run, before the first of them runs.
options:
  _input:
    description: Tools, as the role P(ops.maintenance.site_commands#role) takes them.
    type: list
    elements: dict
    required: true
  stage:
    description: Stage to keep; empty keeps all.
    type: str
    default: ''
  results:
    description: Results of modules of this collection, whose findings decide.
    type: list
    elements: dict
    default: []
  checked:
    description: The list was checked before, as the gate of the cycle does.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Tools of the last stage, and those that look into what the security review found
  ansible.builtin.debug:
    msg: "{{ site_commands | ops.maintenance.commands_due('after', [__security_review]) }}"
"""

RETURN = r"""
_value:
  description: The tools to run, in their order.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError

_BAD = ("warning", "critical")


def commands_due(commands, stage="", results=(), checked=False):
    if not checked:
        _refuse(commands)
    found = {(item["id"], item["state"]) for result in results for item in (result.get("maintenance_record") or {}).get("findings") or []}
    return [command for command in commands if stage in ("", command["when"]) and _is_met(command, found)]


def _refuse(commands):
    from ansible_collections.ops.maintenance.plugins.plugin_utils import inventory_check  # it takes its time, and the cycle needs it once

    problems = list(inventory_check.role_misfits("site_commands", {"site_commands": commands}))
    if problems:
        raise AnsibleFilterError(" ".join(problems))


def _is_met(command, found):
    condition = command.get("when_finding")
    return not condition or any((condition["id"], state) in found for state in condition.get("states") or _BAD)


class FilterModule:
    def filters(self):
        return {"commands_due": commands_due}
