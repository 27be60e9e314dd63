#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/open_run.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: open_run
short_description: Read the whole plan of a run before any host is touched
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Works out the window of every system, checks every variable of every host, and puts one plan a system into the journal.
  - Every fault of the inventory is reported at once; a system with faults is not maintained.
  - Runs on the control node; no host is contacted.
options:
  cadence:
    description:
      - Cadence of the run.
    type: str
    required: true
  hosts:
    description:
      - Hosts of the run.
    type: list
    elements: str
    required: true
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
- name: Read the whole plan
  ops.maintenance.open_run:
    cadence: weekly
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true

- name: The same, for a system that cannot wait
  ops.maintenance.open_run:
    cadence: weekly
    hosts: [app1]
    force_window: security update of OpenSSL, agreed with the owner
  run_once: true
"""

RETURN = r"""
systems:
  description: For each system, whether it may start, why, until when (seconds since the epoch), its hosts and the faults of its inventory.
  returned: always
  type: dict
  sample: {demo: {open: true, reason: inside the window, deadline: 1795267648.0, hosts: [app1], faults: []}}
dead_runs:
  description: Ids of earlier runs from this control node whose process is gone.
  returned: always
  type: list
  elements: str
  sample: []
"""
