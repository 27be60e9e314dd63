#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: python_dependencies
version_added: 0.1.0
short_description: Audit Python environments and update the named packages
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Tells for each virtual environment which packages have known vulnerabilities, which are outdated, and whether every
    requirement is met.
  - Updates only the packages that are named, within the ranges of the requirements file, together with what they need.
    Before that the environment is copied and its package list kept; the copy is put back when an installation, C(pip check)
    or the test command fails.
  - Everything in an environment runs as the owner of its folder.
  - An index that does not answer is C(unknown), never C(no updates).
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.dependencies
options:
  environments:
    description:
      - The environments.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Folder of the virtual environment.
        type: path
        required: true
      requirements:
        description:
          - Requirements file whose ranges limit every update. A package without one stays within its major version.
        type: path
        default: ''
      update:
        description:
          - Packages to keep at the newest version that the ranges allow.
        type: list
        elements: str
        default: []
      update_vulnerable:
        description:
          - Update packages with known vulnerabilities as if they were named.
        type: bool
        default: false
      audit:
        description:
          - Look for known vulnerabilities.
        type: bool
        default: true
      advisories:
        description:
          - Folder, C(.zip) or file of advisories in the OSV format, for hosts without a way to an advisory service.
          - Without it C(pip-audit) is asked, of the environment or of the host.
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
      test_command:
        description:
          - Command, as a list, that must end with 0 after an update; it runs in the environment's folder.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Audit an environment with an offline advisory database
  ops.maintenance.python_dependencies:
    environments:
      - path: /srv/shop/venv
        advisories: /var/lib/advisories/PyPI-all.zip

- name: Keep two packages up to date within their ranges
  ops.maintenance.python_dependencies:
    environments:
      - path: /srv/shop/venv
        requirements: /srv/shop/requirements.txt
        update: [fastapi, uvicorn]
        test_command: [/srv/shop/venv/bin/python, -c, import shop]
"""

RETURN = r"""
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: python
    operation: python_dependencies
    status: changed
    summary: 3 findings, 1 packages to change or changed
    before: {}
    after: {}
    findings:
      - id: python.vulnerable
        state: ok
        subject: /srv/shop/venv
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
      - subject: '/srv/shop/venv: fastapi'
        operation: upgrade
        status: changed
        summary: fastapi 0.115.0 -> 0.115.6 was made and tested
        before: {version: 0.115.0}
        after: {version: 0.115.6}
    started: '2026-11-21T02:04:11.204112+00:00'
    finished: '2026-11-21T02:05:02.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import python_dependencies
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(python_dependencies.OPTIONS, python_dependencies.run, subject="python", operation="python_dependencies")


if __name__ == "__main__":
    main()
