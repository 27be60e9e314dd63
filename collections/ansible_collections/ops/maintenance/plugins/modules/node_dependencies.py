#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_dependencies
version_added: 0.1.0
short_description: Audit Node.js projects and update the named packages
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Tells for each project which packages have known vulnerabilities and which are outdated, from what npm says, or from the
    lock file and an offline database of advisories.
  - Updates only the packages that are named, within the ranges of C(package.json), and never with force. Before that
    C(package.json), the lock file and C(node_modules) are copied; the copies are put back when the installation, C(npm ls)
    or the test command fails.
  - npm and the test command run as the owner of the project's folder.
  - A missing npm or lock file, a package that is asked for and not locked, one from a repository, a file or an address instead of
    a registry, or a registry that does not answer, is C(unknown), never C(no updates).
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.dependencies
options:
  projects:
    description:
      - The projects.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Folder with C(package.json) and the lock file.
        type: path
        required: true
      update:
        description:
          - Packages to keep at the newest version that C(package.json) allows; V(*) is every one that it names.
        type: list
        elements: str
        default: []
      update_vulnerable:
        description:
          - Let npm fix vulnerable packages as far as the declared ranges allow (C(npm audit fix), never with force).
          - With O(projects[].advisories), update them as if they were named.
        type: bool
        default: false
      update_severity:
        description:
          - Of the vulnerable packages, update only those of this severity and above; they are then updated by name. What has no
            severity is left.
        type: str
        choices: ['', low, moderate, high, critical]
        default: ''
      build_first:
        description:
          - Make the update in a copy of the folder (without C(node_modules)) and run the test command there first. Only then is the
            lock file taken over and installed with C(npm ci).
        type: bool
        default: false
      audit:
        description:
          - Look for known vulnerabilities.
        type: bool
        default: true
      advisories:
        description:
          - Folder, C(.zip) or file of advisories in the OSV format. The lock file is then compared with those instead of asking
            C(npm audit), which needs neither npm nor a registry.
        type: path
        default: ''
      advisories_stale_after_days:
        description:
          - An offline database whose newest record is older than this is not believed when it names nothing.
        type: int
        default: 14
      own_packages:
        description:
          - Packages of one's own, which no advisory can name. Any other that could not be compared keeps the verdict from being V(ok).
        type: list
        elements: str
        default: []
      production_only:
        description:
          - Leave development dependencies out of the audit.
        type: bool
        default: false
      audit_level:
        description:
          - Least severity that is a warning, of what npm audit tells. Milder ones are counted and named as such. Advisories
            in the OSV format have no severity that is read, so all of them count.
        type: str
        choices: [critical, high, moderate, low, info]
        default: info
      test_command:
        description:
          - Command, as a list, that must end with 0 after an update, such as a build; it runs in the project's folder.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Audit a project
  ops.maintenance.node_dependencies:
    projects:
      - path: /srv/shop/web

- name: Keep a package up to date within its range and build
  ops.maintenance.node_dependencies:
    projects:
      - path: /srv/shop/web
        update: [vite]
        test_command: [npm, run, build]
"""

RETURN = r"""
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: node
    operation: node_dependencies
    status: changed
    summary: 3 findings, 1 packages to change or changed
    before: {}
    after: {}
    findings:
      - id: node.vulnerable
        state: ok
        subject: /srv/shop/web
        summary: No known vulnerability affects it.
        value: 0
        unit: count
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: []
    actions:
      - subject: '/srv/shop/web: vite'
        operation: upgrade
        status: changed
        summary: vite 5.4.10 -> 5.4.11 was made and tested
        before: {version: 5.4.10}
        after: {version: 5.4.11}
    started: '2026-11-21T02:04:11.204112+00:00'
    finished: '2026-11-21T02:05:02.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import node_dependencies
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(node_dependencies.OPTIONS, node_dependencies.run, subject="node", operation="node_dependencies")


if __name__ == "__main__":
    main()
