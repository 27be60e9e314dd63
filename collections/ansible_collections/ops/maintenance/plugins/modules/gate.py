#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/gate.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
short_description: Decide whether a host may start
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Uses the plan of M(ops.maintenance.open_run), or decides by itself where there is none.
  - No batch starts after more hosts failed than the budget allows.
  - Runs on the control node; no host is contacted.
options:
  cadence:
    description:
      - Cadence of the run.
    type: str
    required: true
  opened_by:
    description:
      - Host whose result of M(ops.maintenance.open_run) holds the plan.
    type: str
    default: ''
  failures:
    description:
      - Result of M(ops.maintenance.failures).
    type: dict
    default: {}
  budget_percent:
    description:
      - Share of all hosts that may fail, in percent.
    type: float
    default: 10.0
  windows:
    description:
      - Window by cadence, used where there is no plan.
    type: dict
  blackouts:
    description:
      - Days on which nothing starts, used where there is no plan.
    type: list
    elements: dict
  force_window:
    description:
      - Why to start outside the window; empty means not to.
    type: str
    default: ''
attributes:
  check_mode:
    support: full
    description: Works the same; a journal is evidence, not a change.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Decide by the plan of the run
  ops.maintenance.gate:
    cadence: weekly
    opened_by: "{{ ansible_play_hosts_all[0] }}"

- name: Decide without a plan
  ops.maintenance.gate:
    cadence: weekly
    windows:
      weekly: {rule: "FREQ=WEEKLY;BYDAY=SA;BYHOUR=2;BYMINUTE=0", duration_minutes: 240, timezone: Europe/Berlin}
"""

RETURN = r"""
open:
  description: Whether the host may start.
  returned: always
  type: bool
  sample: true
reason:
  description: Why.
  returned: always
  type: str
  sample: inside the window
deadline:
  description: End of the window, in seconds since the epoch; 0 without one.
  returned: always
  type: float
  sample: 1795267648.0
"""
