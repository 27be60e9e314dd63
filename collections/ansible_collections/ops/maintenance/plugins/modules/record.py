#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/record.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: record
short_description: Put a record into the journal
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - For what no module did, such as a step that was deferred.
options:
  subject:
    description:
      - What it is about.
    type: str
    required: true
  operation:
    description:
      - What was to be done.
    type: str
    required: true
  status:
    description:
      - What became of it.
    type: str
    required: true
    choices:
      - ok
      - due
      - changed
      - skipped
      - deferred
      - failed
  summary:
    description:
      - One sentence for a person.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Works the same; a journal is evidence, not a change.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Say that a step does not fit into the window any more
  ops.maintenance.record:
    subject: log_rotation
    operation: step
    status: deferred
    summary: the window closes in less than 15 minutes

- name: Say that a step was left out
  ops.maintenance.record:
    subject: patching
    operation: step
    status: skipped
    summary: frozen until the release
"""

RETURN = r"""
maintenance_record:
  description: The record.
  returned: always
  type: dict
  sample: {subject: log_rotation, operation: step, status: deferred, summary: the window closes in less than 15 minutes}
"""
