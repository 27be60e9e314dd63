#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/failures.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: failures
short_description: Collect how the hosts of the batches before ended
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Runs on the control node, once a batch.
attributes:
  check_mode:
    support: full
    description: Works the same; a journal is evidence, not a change.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Count once a batch
  ops.maintenance.failures:
  register: failures
  run_once: true

- name: Decide by it
  ops.maintenance.gate:
    cadence: weekly
    failures: "{{ failures }}"
"""

RETURN = r"""
total:
  description: Number of hosts of the play.
  returned: always
  type: int
  sample: 20
outcomes:
  description: Outcome of each host that is done.
  returned: always
  type: list
  elements: str
  sample: [completed, failed]
"""
