#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: site_command
short_description: Run a site's own tool as a declared step
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Runs a program given as an argument list, without a shell, with a time limit, and as another user where wanted.
  - 'Judges its exit status and the JSON file that it ought to write: there, new and valid. A tool that is missing is V(unknown), never ok.'
  - Its output is shortened, and what looks like a secret is left out.
options:
  name:
    type: str
    description:
      - Name of the step, in findings.
    required: true
  argv:
    type: list
    description:
      - Program and arguments as a list; no shell is involved. C({creates_json}) stands for the expanded O(creates_json).
    elements: str
    required: true
  timeout_seconds:
    type: float
    description:
      - Time limit in seconds; then the program and what it started are stopped.
    default: 300.0
  expect_rc:
    type: list
    description:
      - Exit statuses that mean all is well.
    elements: int
    default:
      - 0
  warning_rc:
    type: list
    description:
      - Exit statuses that mean a warning.
    elements: int
    default: []
  creates_json:
    type: str
    description:
      - File that the program writes, with C(strftime) placeholders such as V(%Y%m%d). It must be new and hold JSON.
    default: ''
  keeps_files:
    type: list
    description:
      - Files that the program must leave as they are, such as a stored baseline that it compares with.
    elements: path
    default: []
  user:
    type: str
    description:
      - User to run as. Empty means the user of the task.
    default: ''
  chdir:
    type: path
    description:
      - Folder to run in. Empty means C(/).
    default: ''
  environment_file:
    type: path
    description:
      - File with lines C(NAME=value) for the environment. Its values are never shown.
    default: ''
  required:
    type: bool
    description:
      - Fail the task unless all findings are ok.
    default: false
  changes:
    type: bool
    description:
      - Whether the program changes the system, so that the task reports a change.
    default: false
  run_in_check_mode:
    type: bool
    description:
      - Run it in check mode too, because it changes nothing.
    default: false
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Check the thresholds with the application's own monitor
  ops.maintenance.site_command:
    name: thresholds
    argv: [python3, /opt/app/tools/monitor.py, --check-thresholds]
    warning_rc: [1]
    user: app
    run_in_check_mode: true

- name: Run the benchmark, whose result carries the date
  ops.maintenance.site_command:
    name: benchmark
    argv: [python3, /opt/app/tools/benchmark.py, --output, "{creates_json}"]
    creates_json: /logs/reports/benchmark-%Y%m%d.json
    keeps_files: [/logs/reports/baseline.json]
    timeout_seconds: 900
"""

RETURN = r"""
state:
  description: The worst state of its findings.
  returned: always
  type: str
  sample: ok
maintenance_record:
  description: What was found, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: thresholds
    operation: site_command
    status: ok
    summary: python3 ended with 0 after 0.4 s
    before: {}
    after: {}
    findings:
      - id: site.command
        state: ok
        subject: thresholds
        summary: python3 ended with 0 after 0.4 s
        value: 0
        unit: exit status
        threshold: 'ok: [0], warning: [1]'
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: [3 thresholds checked, none exceeded]
    metrics: [{name: site.command_seconds, subject: thresholds, value: 0.4, unit: seconds}]
    actions: [{subject: thresholds, operation: run, status: ok, summary: python3 ended with 0 after 0.4 s, before: {}, after: {rc: 0}}]
"""

from ansible_collections.ops.maintenance.plugins.module_utils import site_command
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(site_command.OPTIONS, site_command.run, subject="site command", operation="site_command")


if __name__ == "__main__":
    main()
