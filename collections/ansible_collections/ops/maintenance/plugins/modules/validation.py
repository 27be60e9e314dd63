#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: validation
short_description: See whether an application works
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Looks at units, HTTP endpoints and logs, and compares them with an earlier look.
  - The bodies of answers are judged on the control node, so that managed hosts need no JMESPath.
options:
  units:
    description:
      - Units that must be active.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the unit.
        type: str
        required: true
      manager:
        description:
          - How the service is controlled.
        type: str
        choices:
          - systemd
          - command
        default: systemd
      start:
        description:
          - Argument list that starts it, with V(command) only.
        type: list
        elements: str
        default: []
      stop:
        description:
          - Argument list that stops it, with V(command) only.
        type: list
        elements: str
        default: []
      status:
        description:
          - Argument list that exits with 0 while it runs, with V(command) only.
        type: list
        elements: str
        default: []
      enabled:
        description:
          - Whether it must start with the host.
        type: bool
        default: true
  start_inactive:
    description:
      - Start a unit that does not run; that is a finding all the same.
    type: bool
    default: false
  endpoints:
    description:
      - HTTP endpoints that must answer.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description:
          - URL to ask from the host itself.
        type: str
        required: true
      name:
        description:
          - Name in the report.
        type: str
        default: ''
      status:
        description:
          - Accepted HTTP status codes.
        type: list
        elements: int
        default:
          - 200
      body:
        description:
          - Assertions on a JSON answer.
        type: list
        elements: dict
        default: []
        suboptions:
          query:
            description:
              - JMESPath query.
            type: str
            required: true
          equals:
            description:
              - Value it must have. Without it, any value that is not empty or false will do.
            type: raw
          severity:
            description:
              - How bad another value is. With V(warning), only an answer that cannot be judged fails the validation.
            type: str
            choices: [critical, warning]
            default: critical
      samples:
        description:
          - Number of requests for the percentiles, 1 to 100.
        type: int
        default: 5
      p50_ms:
        description:
          - Warning when the median takes this long, in milliseconds.
        type: float
      p95_ms:
        description:
          - Warning when the 95th percentile takes this long, in milliseconds.
        type: float
      critical_ms:
        description:
          - Critical when the 95th percentile takes this long, in milliseconds.
        type: float
      timeout_seconds:
        description:
          - Time limit of one request, in seconds.
        type: float
        default: 10
      headers_file:
        description:
          - File on the host with a JSON object of request headers, such as a token.
        type: path
      ca_file:
        description:
          - File of certificates to trust.
        type: path
  logs:
    description:
      - Logs in which no critical line may appear.
    type: list
    elements: dict
    default: []
    suboptions:
      paths:
        description:
          - Globs of the files.
        type: list
        elements: str
        required: true
      format:
        description:
          - Format of the lines.
        type: str
        default: auto
      name:
        description:
          - Name in the report.
        type: str
        default: ''
  since:
    description:
      - Only lines from this time on count, in seconds since the epoch. V(0) means one hour ago.
    type: float
    default: 0.0
  baseline:
    description:
      - What an earlier call returned, to compare with.
    type: dict
    default: {}
  slower_percent:
    description:
      - Warning when the 95th percentile grew by more than this share of the baseline, in percent.
    type: float
    default: 50.0
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: See whether the application works
  ops.maintenance.validation:
    units:
      - name: app-backend
    endpoints:
      - url: http://localhost:8000/api/health
        body:
          - query: status
            equals: healthy
        p95_ms: 500

- name: See whether any critical line was logged in the last hour
  ops.maintenance.validation:
    logs:
      - paths: [/var/log/app/*.jsonl]
        format: json
"""

RETURN = r"""
passed:
  description: Whether nothing is critical.
  returned: always
  type: bool
  sample: true
baseline:
  description: What was measured, to compare a later call with.
  returned: success
  type: dict
  sample:
    units: {app-backend: active}
    p95_ms: {health: 12.5}
"""

from ansible_collections.ops.maintenance.plugins.module_utils import validation
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(validation.OPTIONS, validation.run, subject="application", operation="validation")


if __name__ == "__main__":
    main()
