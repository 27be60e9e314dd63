#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journald_upkeep
short_description: Check the journal of systemd and keep it within limits
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Tells whether the journal outlives a reboot and how far back it reaches, which limits are in effect from all configuration files, what it takes
    on disk, and which of its files are damaged.
  - Removes archived files beyond O(vacuum_size_mb) and O(vacuum_days) with C(journalctl), and looks afterwards whether they are gone. Files in use
    are never removed.
options:
  expected:
    description:
      - Whether this system has a journal. Where it does and C(journalctl) is missing, the finding is V(unknown).
    type: bool
    default: true
  persistent:
    description:
      - Whether the journal has to lie on disk.
    type: bool
    default: true
  reach_days:
    description:
      - Days that the journal has to reach back.
    type: float
  max_use_mb:
    description:
      - Most that C(SystemMaxUse) may be, and that the journal may take, in MiB. Where it is not set at all, that is a warning.
    type: float
  vacuum_size_mb:
    description:
      - Remove archived files, oldest first, until the journal takes no more than so many MiB.
    type: float
  vacuum_days:
    description:
      - Remove archived files that began more days ago.
    type: float
  rotate_first:
    description:
      - Archive the files in use first, so that they can be removed as well.
    type: bool
    default: false
  verify:
    description:
      - Have C(journalctl) read every file whole.
    type: bool
    default: true
  timeout_seconds:
    description:
      - Time limit of each run of C(journalctl), in seconds.
    type: float
    default: 900.0
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Look at the journal
  ops.maintenance.journald_upkeep:
    reach_days: 7

- name: Keep a month, and no more than a gigabyte
  ops.maintenance.journald_upkeep:
    vacuum_days: 30
    vacuum_size_mb: 1024
"""

RETURN = r"""
maintenance_record:
  description: What was found and done, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: journal of systemd
    operation: journald_upkeep
    status: changed
    summary: 8.0 MiB in 1 file, 3.6 MiB reclaimed
    before: {used_bytes: 12136448, files: 2}
    after: {used_bytes: 8392704, files: 1}
    findings:
      - id: journald.verify
        state: ok
        subject: journal of systemd
        summary: 1 file sound, 0 damaged.
        value: 0
        unit: count
        threshold: warning from 1 count
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: [{name: journald.used, subject: journal of systemd, value: 8392704, unit: bytes}]
    actions:
      - subject: journal of systemd
        operation: vacuum
        status: changed
        summary: 3.6 MiB reclaimed
        before: {used_bytes: 12136448, archived: 1, due: [1 archived file begun more than 30 days ago]}
        after: {used_bytes: 8392704, archived: 0}
"""

from ansible_collections.ops.maintenance.plugins.module_utils import journald_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(journald_upkeep.OPTIONS, journald_upkeep.run, subject="journal of systemd", operation="journald_upkeep")


if __name__ == "__main__":
    main()
