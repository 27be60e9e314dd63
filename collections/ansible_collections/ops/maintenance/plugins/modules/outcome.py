#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/outcome.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: outcome
short_description: Record how the run ended for a host
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Puts an outcome line into the journal.
options:
  outcome:
    description:
      - How it ended.
    type: str
    required: true
    choices:
      - completed
      - refused
      - failed
      - rolled_back
      - rollback_failed
      - unreachable
      - not_attempted
  reason:
    description:
      - Why, one sentence.
    type: str
    default: ''
  downtime_seconds:
    description:
      - Time out of use, in seconds.
    type: float
  services_restored:
    description:
      - Whether every service is as it was before.
    type: bool
  rollback_required:
    description:
      - Whether the host had to be rolled back.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Works the same; a journal is evidence, not a change.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Say that it ended well
  ops.maintenance.outcome:
    outcome: completed
    downtime_seconds: 42.5
    services_restored: true

- name: Say that the host was left alone
  ops.maintenance.outcome:
    outcome: refused
    reason: No backup of set daily was ever proven on this host.
"""

RETURN = r"""
outcome:
  description: The outcome.
  returned: always
  type: str
  sample: completed
"""
