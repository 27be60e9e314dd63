# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: steps
short_description: Narrow the steps of a cadence
version_added: 0.1.0
description:
  - Keeps the steps of each stage that were asked for and not left out.
options:
  _input:
    description: Names of roles by stage (V(before), V(offline), V(after)).
    type: dict
    required: true
  only:
    description: Names to keep; empty keeps all.
    type: list
    elements: str
    default: []
  skip:
    description: Names to leave out.
    type: list
    elements: str
    default: []
  idle:
    description: Names to leave out of the last stage, because nothing is declared for them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Only the database, of all that is done weekly
  ansible.builtin.debug:
    msg: "{{ maintenance_steps.weekly | ops.maintenance.steps(only=['database_maintenance']) }}"
"""

RETURN = r"""
_value:
  description: The same mapping, narrowed.
  type: dict
"""

from pathlib import Path

from ansible.errors import AnsibleFilterError

ROLES = Path(__file__).resolve().parents[2] / "roles"
STAGES = ("before", "offline", "after")


def steps(stages, only=(), skip=(), idle=()):
    if not all(isinstance(names, (list, tuple)) for names in (only, skip)):
        raise AnsibleFilterError(f"maintenance_only is {only!r} and maintenance_skip {skip!r}, expected lists of steps; make them lists.")
    known = {name for stage in STAGES for name in stages.get(stage) or []}
    strangers = [f"maintenance_only names {name}" for name in only if name not in known]
    # a step that this cadence does not have, but another, may be left out of all
    strangers += [f"maintenance_skip names {name}" for name in skip if name not in known and not _is_role(name)]
    if strangers:
        raise AnsibleFilterError(
            f"{'; '.join(strangers)}; the steps of this cadence in maintenance_steps are {', '.join(sorted(known))}. Correct one of them."
        )
    wanted = {stage: [name for name in stages.get(stage) or [] if (not only or name in only) and name not in skip] for stage in STAGES}
    return {**wanted, "after": [name for name in wanted["after"] if name not in idle]}


def _is_role(name):
    return isinstance(name, str) and name.isidentifier() and (ROLES / name).is_dir()


class FilterModule:
    def filters(self):
        return {"steps": steps}
