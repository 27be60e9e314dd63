#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: See whether a host is ready for maintenance
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Looks at room, load, memory, clock, package manager, tools and the proof of backups, and reports every problem at once.
  - Changes nothing.
options:
  room:
    description:
      - Space that this run may need.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Folder that will be written to.
        type: path
        required: true
      free_bytes:
        description:
          - Bytes needed there.
        type: int
        default: 0
      files:
        description:
          - Files whose size counts as needed too.
        type: list
        elements: path
        default: []
      factor:
        description:
          - How many times their size.
        type: float
        default: 1.0
  disk_warning_percent:
    description:
      - Warning from this use of a file system, space or inodes, in percent.
    type: float
    default: 85.0
  disk_critical_percent:
    description:
      - Critical from this use, in percent.
    type: float
    default: 95.0
  load_warning_percent:
    description:
      - Warning from this load over five minutes, in percent of the processors.
    type: float
    default: 80.0
  load_critical_percent:
    description:
      - Critical from this load, in percent of the processors.
    type: float
    default: 200.0
  memory_available_warning_percent:
    description:
      - Warning below this share of available memory, in percent.
    type: float
    default: 10.0
  memory_available_critical_percent:
    description:
      - Critical below this share, in percent.
    type: float
    default: 3.0
  clock:
    description:
      - Whether a synchronised clock is V(required), V(wanted), or not asked for (V(off)).
    type: str
    choices:
      - required
      - wanted
      - 'off'
    default: required
  tools:
    description:
      - Commands that must be installed.
    type: list
    elements: str
    default: []
  package_manager:
    description:
      - Whether the package manager must be free.
    type: bool
    default: true
  package_lock_timeout_seconds:
    description:
      - How long to wait for it, in seconds.
    type: int
    default: 120
  proofs:
    description:
      - What this run's backup_verification proved. Without it, what the last one kept on the host counts.
    type: dict
    default: {}
  backups:
    description:
      - Backup sets that must have a fresh, proven backup. backup_verification keeps the proof.
    type: list
    elements: dict
    default: []
    suboptions:
      set:
        description:
          - Name of the set.
        type: str
        required: true
      maximum_age_hours:
        description:
          - Critical from this age, in hours.
        type: float
        required: true
      level:
        description:
          - Level of the ladder that must have been reached, 0 to 5.
        type: int
        default: 4
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: See whether the host is ready
  ops.maintenance.preflight:
    tools: [sqlite3]
    backups:
      - set: daily
        maximum_age_hours: 26

- name: See whether a snapshot will fit
  ops.maintenance.preflight:
    room:
      - path: /var/backups
        files: [/srv/app/app.db]
        factor: 3
"""

RETURN = r"""
ready:
  description: Whether nothing is critical.
  returned: success
  type: bool
  sample: true
reasons:
  description: What is critical, one sentence each.
  returned: success
  type: list
  elements: str
  sample: []
time:
  description: When the look began, in seconds since the epoch.
  returned: success
  type: float
  sample: 1795226400.0
"""

from ansible_collections.ops.maintenance.plugins.module_utils import preflight
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(preflight.OPTIONS, preflight.run, subject="host", operation="preflight")


if __name__ == "__main__":
    main()
