#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_logs
short_description: Check that the logs of Docker's containers are limited
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Looks at how new containers would log by the daemon's configuration, at the log driver and its limits of every container, and at what their logs
    take on disk. Changes nothing.
  - Docker that is missing or does not answer is V(unknown), never ok.
options:
  expected:
    description:
      - Whether this system uses Docker.
    type: bool
    default: true
  daemon_config:
    description:
      - Configuration file of the daemon.
    type: path
    default: /etc/docker/daemon.json
  limit_mb:
    description:
      - Size in MiB from which the logs of one container are a warning.
    type: float
    default: 1024.0
  timeout_seconds:
    description:
      - Time limit of each question to Docker, in seconds.
    type: float
    default: 60.0
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Check the logs of all containers
  ops.maintenance.container_logs:

- name: Check them against a smaller size
  ops.maintenance.container_logs:
    limit_mb: 100
"""

RETURN = r"""
maintenance_record:
  description: What was found, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: container logs
    operation: container_logs
    status: ok
    summary: 1 container, 2.0 MiB of logs
    before: {}
    after: {}
    findings:
      - id: container_logs.limits
        state: warning
        subject: container logs
        summary: 1 of 1 container has no sound limit for logs.
        value: 1
        unit: count
        threshold: warning from 1 count
        basis: exact
        as_of: ''
        not_covered: ''
        advice: Set max-size and max-file, or driver local, and make the container anew; ship what has to be kept.
        evidence: ['web: driver json-file without max-size grows without end, 2.0 MiB now']
    metrics: [{name: container_logs.size, subject: container logs, value: 2097152, unit: bytes}]
    actions: []
"""

from ansible_collections.ops.maintenance.plugins.module_utils import container_logs
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(container_logs.OPTIONS, container_logs.run, subject="container logs", operation="container_logs")


if __name__ == "__main__":
    main()
