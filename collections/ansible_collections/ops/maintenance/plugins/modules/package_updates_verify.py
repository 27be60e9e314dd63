#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_updates_verify
version_added: 0.1.0
short_description: Prove what an update did, restart what needs it, and tell whether a reboot is needed
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Compares a plan of M(ops.maintenance.package_updates_info) with the package database, package by package.
    A planned package that is not there in that version, whole, fails the task with its name and the reason.
  - Finds the services that still run files which an update replaced and restarts those that O(restart) names.
  - Tells from several sources whether a reboot is needed; RV(reboot) is V(unknown) when none of them can settle it.
  - Compares services, listening ports, mounts and the kernel with O(baseline); what is worse fails the task, with the packages that did it
    and the old versions that are still to be had.
  - Lists packages that are not installed as a whole, and configuration files that wait for a comparison.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  plan:
    description:
      - The plan that was to be installed, as M(ops.maintenance.package_updates_info) returned it.
      - With O(boot_before) it names what may have made something worse, and only packages that are not there any more are told.
    type: list
    elements: dict
    default: []
  fresh:
    description:
      - Whether the package lists can be believed when they name no update. Without it, what is pending is not judged.
    type: bool
  manager_output:
    description:
      - What the package manager said when it failed; lines that name a package become part of its reason.
    type: str
    default: ''
  security_archives:
    description:
      - What makes an archive a security archive, as C(label:suite) or C(label:codename) patterns. With dnf an advisory decides.
    type: list
    elements: str
    default: ['Debian-Security:*', '*:*-security']
  restart:
    description:
      - Units (shell patterns, with or without C(.service)) that are restarted when they run replaced files.
      - C(init.scope) is the service manager itself, which is re-executed.
    type: list
    elements: str
    default: []
  restart_exclude:
    description:
      - Units (shell patterns) that are not restarted although O(restart) names them.
    type: list
    elements: str
    default: []
  reboot_allowed:
    description:
      - Whether the caller would reboot the host when it needs that; RV(reboot_now) is V(true) only then.
    type: bool
    default: false
  minimum_seconds:
    description:
      - A reboot is deferred when less time than this is left before O(deadline).
    type: int
    default: 600
  boot_before:
    description:
      - RV(boot) of an earlier call; the host must have booted since, otherwise the task fails.
    type: str
    default: ''
  left:
    description:
      - What stays pending and why, as M(ops.maintenance.package_updates_info) returned it.
    type: dict
    default: {}
  baseline:
    description:
      - What worked before, as M(ops.maintenance.package_updates_prepare) returned it. A service that ran, a port that listened or
        a file system that was mounted and is not so any more fails the task, and the finding names the packages.
    type: dict
    default: {}
  settle_seconds:
    description:
      - How long a service may take to come up again before it counts as broken.
    type: int
    default: 30
  downgrade:
    description:
      - Install the old versions again when something works no more and an archive or the cache still has them, of the likely cause first,
        and of all the others only when that does not help. The task fails all the same.
    type: bool
    default: false
  backend:
    description:
      - Package manager of the host; V(auto) takes the first of them that is there.
      - V(dnf) is dnf 4; a host with dnf 5 is told that its updates are not known.
    type: str
    choices: [auto, apt, dnf]
    default: auto
seealso:
  - module: ops.maintenance.package_updates_info
  - module: ops.maintenance.package_updates_prepare
"""

EXAMPLES = r"""
- name: Prove the update and restart what runs old files
  ops.maintenance.package_updates_verify:
    plan: "{{ updates.plan }}"
    fresh: "{{ updates.fresh }}"
    restart: ["*"]
    restart_exclude: [dbus, systemd-logind]

- name: Tell whether a reboot is needed
  ops.maintenance.package_updates_verify:
  register: state
"""

RETURN = r"""
reboot:
  description: Whether a reboot is needed.
  returned: success
  type: str
  sample: not_required
reboot_now:
  description: Whether a reboot is needed, allowed, not done yet and fits into the window.
  returned: success
  type: bool
  sample: false
reboot_reasons:
  description: Why a reboot is needed.
  returned: success
  type: list
  elements: str
  sample: [/run/reboot-required is there for linux-image-amd64]
boot:
  description: A text that changes with every boot.
  returned: success
  type: str
  sample: 6fbd5e5c-0c4e-4bb4-8a3a-0a7f4c1a0a56/2
services:
  description: Units that still run replaced files.
  returned: success
  type: list
  elements: str
  sample: [dbus.service]
leftovers:
  description: Configuration files that a package brought while the local one was kept.
  returned: success
  type: list
  elements: str
  sample: [/etc/ssh/sshd_config.dpkg-dist]
regressions:
  description: What worked before and does not any more.
  returned: success
  type: list
  elements: str
  sample: [nginx.service has failed]
maintenance_record:
  description: What was done and found, for the journal.
  returned: always
  type: dict
  sample:
    subject: packages
    operation: package_updates
    status: changed
    summary: 1 steps done and seen
    before: {openssl: 3.0.19-1~deb12u2}
    after: {openssl: 3.0.22-1~deb12u2}
    findings:
      - id: patching.reboot
        state: ok
        subject: host
        summary: No reboot is required.
        value: not_required
        unit: ''
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: ['kernel: not_required, kernel 6.1.0-41-amd64 is the newest installed']
    metrics: []
    actions:
      - subject: openssl
        operation: upgrade
        status: changed
        summary: openssl 3.0.19-1~deb12u2 -> 3.0.22-1~deb12u2
        before: {version: 3.0.19-1~deb12u2}
        after: {version: 3.0.22-1~deb12u2}
    started: '2026-11-21T02:01:40.310042+00:00'
    finished: '2026-11-21T02:01:42.119218+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import package_verify
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(package_verify.OPTIONS, package_verify.run, subject="packages", operation="package_updates")


if __name__ == "__main__":
    main()
