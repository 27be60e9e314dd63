#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: logrotate
short_description: Check the configuration of logrotate and that it runs
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Has logrotate read its whole configuration without doing anything, and reports unknown directives, logs that are named twice, folders that need
    C(su) and everything else it complains of. Its exit status alone would not tell.
  - Tells from the state file when it last ran.
  - Rotates what is due only with O(run_when_due), with the whole configuration and never by force; the state file must show it afterwards.
options:
  config:
    description:
      - Main configuration file.
    type: path
    default: /etc/logrotate.conf
  state_file:
    description:
      - State file of logrotate.
    type: path
    default: /var/lib/logrotate/status
  maximum_age_hours:
    description:
      - Hours since the last run that are a warning.
    type: float
    default: 48.0
  expected:
    description:
      - Whether this system uses logrotate. Where it does and logrotate is missing, the finding is V(unknown).
    type: bool
    default: true
  run_when_due:
    description:
      - Run logrotate when it says that a log is due.
    type: bool
    default: false
  timeout_seconds:
    description:
      - Time limit of each run, in seconds.
    type: float
    default: 900.0
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Check the configuration and the last run
  ops.maintenance.logrotate:

- name: Rotate what is due
  ops.maintenance.logrotate:
    run_when_due: true
"""

RETURN = r"""
due:
  description: Logs that logrotate says are due.
  returned: always
  type: list
  elements: str
  sample: [/var/log/app/app.log]
maintenance_record:
  description: What was found and done, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: /etc/logrotate.conf
    operation: logrotate
    status: ok
    summary: 9 entries, 0 logs due, 0 errors in the configuration
    before: {}
    after: {}
    findings:
      - id: logrotate.configuration
        state: ok
        subject: /etc/logrotate.conf
        summary: 0 errors in the configuration of 9 entries.
        value: 0
        unit: count
        threshold: warning from 1 count
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: [{name: logrotate.errors, subject: /etc/logrotate.conf, value: 0, unit: count}]
    actions: []
"""

from ansible_collections.ops.maintenance.plugins.module_utils import logrotate
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(logrotate.OPTIONS, logrotate.run, subject="logrotate", operation="logrotate")


if __name__ == "__main__":
    main()
