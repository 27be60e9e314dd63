#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: performance_review
short_description: See how a host does and what will become short
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Averages declared metrics over the last days by the times of their records, rotated and compressed files included, with percentiles and gaps.
  - Looks at processor, load, memory, swap, every mounted file system and its inodes, and at the processes that take most, by their short names
    only.
  - Forecasts from earlier runs when a file system will be full.
  - The kernel's caches are never dropped, as that frees nothing that programs could not get anyway and hides a leak.
options:
  series:
    type: list
    description:
      - Metrics in JSON lines that the application or its monitor writes.
    elements: dict
    default: []
    suboptions:
      name:
        type: str
        description:
          - Name of the series. V(cpu) gives the metric C(performance.cpu_average), and so on.
        required: true
      paths:
        type: list
        description:
          - Absolute paths or patterns of the files. What rotation made of them is found as well.
        elements: str
        required: true
      field:
        type: str
        description:
          - Field of the number in each record, with dots for nested ones.
        required: true
      unit:
        type: str
        description:
          - Unit of the number.
        default: percent
      warning:
        type: float
        description:
          - Average from which it is a warning.
      critical:
        type: float
        description:
          - Average from which it is critical.
      span_days:
        type: float
        description:
          - Time that is looked back, in days.
        default: 7.0
      expected_interval_seconds:
        type: float
        description:
          - Time between two samples, in seconds, to find gaps. V(0) means not known.
        default: 0.0
  timezone:
    type: str
    description:
      - Time zone of records that do not say theirs.
    default: UTC
  cpu_warning_percent:
    type: float
    description:
      - Use of all processors at the moment that is a warning, in percent.
    default: 90.0
  load_warning_percent:
    type: float
    description:
      - Load over five minutes relative to the number of processors that is a warning, in percent.
    default: 80.0
  load_critical_percent:
    type: float
    description:
      - The same, critical.
    default: 200.0
  memory_warning_percent:
    type: float
    description:
      - Memory in use, without what can be freed at once, that is a warning, in percent.
    default: 85.0
  memory_critical_percent:
    type: float
    description:
      - The same, critical.
    default: 95.0
  swap_warning_percent:
    type: float
    description:
      - Swap space in use that is a warning, in percent.
    default: 50.0
  disk_warning_percent:
    type: float
    description:
      - Use of a file system, or of its inodes, that is a warning, in percent.
    default: 85.0
  disk_critical_percent:
    type: float
    description:
      - The same, critical.
    default: 95.0
  disk_warning_days:
    type: float
    description:
      - Forecast until a file system is full that is a warning, in days.
    default: 14.0
  disk_ignore:
    type: list
    description:
      - Mount points that are left out.
    elements: str
    default: []
  top_count:
    type: int
    description:
      - Number of processes to list.
    default: 10
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Review the host
  ops.maintenance.performance_review:

- name: Review the host and a week of the application's metrics
  ops.maintenance.performance_review:
    series:
      - name: cpu
        paths: [/logs/performance/metrics.jsonl]
        field: system.cpu_percent
        warning: 70
        critical: 90
        expected_interval_seconds: 3600
"""

RETURN = r"""
maintenance_record:
  description: What was found, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: host
    operation: performance_review
    status: ok
    summary: nothing is short
    before: {}
    after: {}
    findings:
      - id: performance.series
        state: ok
        subject: cpu
        summary: average 31.4, 95 percent of samples up to 58.0, highest 77.2 percent (168 samples in 7 days)
        value: 31.4
        unit: percent
        threshold: warning from 70 percent, critical from 90 percent
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: [/logs/performance/metrics.jsonl]
    metrics: [{name: performance.cpu_average, subject: cpu, value: 31.4, unit: percent}]
    actions: []
"""

from ansible_collections.ops.maintenance.plugins.module_utils import performance_review
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(performance_review.OPTIONS, performance_review.run, subject="host", operation="performance_review")


if __name__ == "__main__":
    main()
