#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/inputs.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: inputs
short_description: Refuse what the modules of a role could not use, before the first of them works
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Asks the modules' own checks of the variables of a role, all of them at once, so that the second module of a role does not refuse
    its input after the first has changed something.
  - Runs on the control node; no host is contacted. The cycle does the same for all roles at its gate.
options:
  role:
    description:
      - Role of this collection whose variables are looked at.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Works the same; nothing is changed.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Refuse what the modules could not use
  ops.maintenance.inputs:
    role: log_rotation
"""

RETURN = r"""
problems:
  description: One sentence for each thing that cannot be meant; the task fails when there is one.
  returned: always
  type: list
  elements: str
  sample: ['log_rotation_span_days is -3, expected a positive number; correct it.']
"""
