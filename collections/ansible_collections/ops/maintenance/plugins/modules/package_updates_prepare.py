#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_updates_prepare
version_added: 0.1.0
short_description: Make a host ready for an installation of packages
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Waits until no other package manager run holds a lock (C(unattended-upgrades) included), and names who held it.
  - Repairs what was interrupted and unmet dependencies where O(repair) allows that, never by removing a package.
  - Removes exactly the packages of O(remove), or none when the package manager would remove anything else with them.
  - Fetches what is to be installed, so that the installation itself needs no network.
  - Remembers which services run, which ports listen (TCP and UDP), what is mounted and which kernel runs, for
    M(ops.maintenance.package_updates_verify) to compare.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  install:
    description:
      - What is to be installed, as M(ops.maintenance.package_updates_info) returned it.
    type: list
    elements: str
    default: []
  remove:
    description:
      - What may be removed, as M(ops.maintenance.package_updates_info) previewed it.
    type: list
    elements: str
    default: []
  repair:
    description:
      - Run C(dpkg --configure -a) and C(apt-get --fix-broken install) where they are needed.
      - With dnf, remove the older of two versions of a package, together with the updates that this needs and that the interrupted
        transaction would have brought, install packages again that came half or whose scriptlet failed, and install what others need.
    type: bool
    default: false
  download_only:
    description:
      - Only fetch; repair and remove nothing.
    type: bool
    default: false
  lock_timeout_seconds:
    description:
      - How long to wait for another package manager run to end.
    type: int
    default: 300
  security_archives:
    description:
      - What makes an archive a security archive, as C(label:suite) or C(label:codename) patterns.
    type: list
    elements: str
    default: ['Debian-Security:*', '*:*-security']
  backend:
    description:
      - Package manager of the host.
    type: str
    choices: [auto, apt, dnf]
    default: auto
seealso:
  - module: ops.maintenance.package_updates_info
  - module: ops.maintenance.package_updates_verify
"""

EXAMPLES = r"""
- name: Fetch before the window
  ops.maintenance.package_updates_prepare:
    install: "{{ updates.install }}"
    download_only: true

- name: Make ready inside the window
  ops.maintenance.package_updates_prepare:
    install: "{{ updates.install }}"
    remove: "{{ updates.remove }}"
    repair: true
  register: ready
"""

RETURN = r"""
baseline:
  description: What works now; empty with O(download_only).
  returned: success
  type: dict
  sample:
    services: [cron.service, ssh.service]
    failed: []
    listening: ["tcp/0.0.0.0:22"]
    mounts: [/]
    kernel: 6.1.0-41-amd64
replan:
  description: Whether something was repaired or removed, so that the updates have to be planned anew.
  returned: success
  type: bool
  sample: false
maintenance_record:
  description: What was done and found, for the journal.
  returned: always
  type: dict
  sample:
    subject: packages
    operation: package_updates
    status: changed
    summary: 1 step before the installation
    before: {}
    after: {}
    findings:
      - id: patching.lock
        state: ok
        subject: package manager
        summary: The package manager is free. process 4711 (unattended-upgrade) held the lock for 12 seconds
        value: 12.0
        unit: seconds
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: []
    actions:
      - subject: packages
        operation: download
        status: changed
        summary: 3.1 MiB for 2 packages fetched
        before: {bytes: 3250585}
        after: {bytes: 0}
    started: '2026-11-21T02:00:15.310042+00:00'
    finished: '2026-11-21T02:00:31.119218+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import package_prepare
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(package_prepare.OPTIONS, package_prepare.run, subject="packages", operation="package_updates")


if __name__ == "__main__":
    main()
