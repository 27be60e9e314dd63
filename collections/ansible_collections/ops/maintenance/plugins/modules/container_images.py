#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_images
version_added: 0.1.0
short_description: Compare what containers run with what their tags point to, and scan it
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Tells for each running container whether it runs what its tag points to now, on the host and (with O(remote)) in the registry.
  - Records the digest of what runs, and how many containers run another image than at the last run.
  - Names containers that were started from a tag without a version, that a reboot would leave stopped, or that ran at the last run
    and do not now.
  - With O(scanner), lets trivy or grype look at the very images that run. A scanner whose database is old is not believed when it
    finds nothing.
  - Reads only; nothing is pulled and no container is changed. An engine, a registry or a scanner that does not answer is C(unknown).
  - The record holds no environment variables of containers.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  engine:
    description:
      - Container engine; V(auto) takes the first that is installed, and is not configured where there is none.
    type: str
    choices: [auto, docker, podman]
    default: auto
  ignore:
    description:
      - Containers (shell patterns) that are left out.
    type: list
    elements: str
    default: []
  remote:
    description:
      - Ask registries what the tags point to there, through Docker itself, which can ask those that need no login, then with C(skopeo) and
        C(docker buildx), which know the logins of the user.
    type: bool
    default: false
  scanner:
    description:
      - Scanner of vulnerabilities; V(auto) takes the one that is installed.
    type: str
    choices: [none, auto, trivy, grype]
    default: none
  scan_severity:
    description:
      - Least severity that counts.
    type: str
    choices: [critical, high, medium, low]
    default: high
  scan_only_fixed:
    description:
      - Count only vulnerabilities for which there is a fix.
    type: bool
    default: false
  scan_database_days:
    description:
      - A scanner whose database is older than this is not believed when it finds nothing.
    type: float
    default: 3.0
  scan_timeout_seconds:
    description:
      - How long the scan of one image may take.
    type: float
    default: 600.0
  registry_timeout_seconds:
    description:
      - How long to wait for an answer of a registry.
    type: float
    default: 60.0
"""

EXAMPLES = r"""
- name: See whether containers run what their tags are in the registry
  ops.maintenance.container_images:
    remote: true
    ignore: [build-*]

- name: Scan what runs
  ops.maintenance.container_images:
    scanner: trivy
    scan_only_fixed: true
"""

RETURN = r"""
maintenance_record:
  description: What was found, for the journal.
  returned: always
  type: dict
  sample:
    subject: containers
    operation: container_images
    status: ok
    summary: 1 container, 0 of another image than at the last run
    before: {api: sha256:9f86d0…}
    after: {api: sha256:9f86d0…}
    findings:
      - id: container.image_current
        state: warning
        subject: api
        summary: It runs 4bf5122f3445, and shop/api:1.4 is 09ac3f5a2c11 now.
        value:
        unit: ''
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: Recreate the container from its tag, after a backup and with a test.
        evidence: ['image shop/api:1.4', runs 4bf5122f3445…]
    metrics:
      - {name: container.running, subject: containers, value: 1, unit: count}
    actions: []
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:12.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import container_images
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(container_images.OPTIONS, container_images.run, subject="containers", operation="container_images")


if __name__ == "__main__":
    main()
