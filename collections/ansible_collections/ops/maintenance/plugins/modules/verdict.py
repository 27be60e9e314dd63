#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/verdict.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: verdict
short_description: Turn the outcomes of all hosts into the exit status
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Fails when a host was not maintained, or, where asked, when something was found.
options:
  fail_on:
    description:
      - The mildest thing that fails the run; each level includes those before it.
    type: str
    default: failed
    choices:
      - never
      - failed
      - critical
      - unknown
      - warning
  of:
    description:
      - V(maintenance) asks that every host was maintained. V(scan) asks that something was looked at, which is enough where nothing is to
        be maintained, as before a deployment.
    type: str
    default: maintenance
    choices:
      - maintenance
      - scan
  ids:
    description:
      - Patterns of the findings that count, with O(of=scan). Without one of these, nothing was scanned.
    type: list
    elements: str
    default: ['*']
attributes:
  check_mode:
    support: full
    description: Works the same; a journal is evidence, not a change.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Fail when a host was not maintained
  ops.maintenance.verdict:
  run_once: true

- name: Fail when anything is critical, too
  ops.maintenance.verdict:
    fail_on: critical
  run_once: true
"""

RETURN = r"""
hosts:
  description: Number of hosts by outcome.
  returned: when the journal callback is enabled
  type: dict
  sample: {completed: 3}
problems:
  description: What speaks against exit status 0, one sentence each.
  returned: when the journal callback is enabled
  type: list
  elements: str
  sample: []
"""
