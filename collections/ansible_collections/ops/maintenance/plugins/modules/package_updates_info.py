#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_updates_info
version_added: 0.1.0
short_description: Find pending package updates and plan which to install
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Refreshes the package lists, finds every pending update and plans what the scope asks for, in exact versions.
  - An update is a security update because of the archive that carries it (with dnf, an advisory of type security that names it),
    never because of its name. With O(scope=security) a package goes to the newest version that has a security fix and not
    beyond, even when a newer ordinary one exists.
  - The plan is what the package manager itself says it can install together without removing a package or touching a hold.
    What cannot be installed is named with the reason.
  - Security updates have a deadline by their severity; what is overdue is a finding. When each was first seen is kept on the host.
  - Tells whether the host can take the plan (interrupted C(dpkg) or C(dnf), bytes needed and free,
    C(unattended-upgrades) or C(dnf-automatic) with other intentions),
    and what could be removed. Where it cannot, the plan is C(deferred).
  - Tells as well what the host is left with from before, such as services that run replaced files and a reboot that is needed.
  - Installs nothing. In check mode the lists are refreshed in a private copy, so that the host keeps its own.
  - A refresh that failed, absent lists and a host without a security archive are C(unknown), never C(no updates).
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  scope:
    description:
      - V(security) plans security updates, V(all) every update, V(listed) those of O(packages), V(none) nothing; what is pending is
        told all the same.
    type: str
    choices: [security, all, listed, none]
    default: security
  packages:
    description:
      - Packages for O(scope=listed).
    type: list
    elements: str
    default: []
  hold:
    description:
      - Packages (shell patterns) that are never updated, in addition to those that the package database holds.
    type: list
    elements: str
    default: []
  blocklist:
    description:
      - Packages (shell patterns) that a run may not touch at all, not even as a new dependency.
      - V(NAME=VERSION) (both patterns) blocks these versions only; the next better one is taken.
    type: list
    elements: str
    default: []
  pins:
    description:
      - Package (shell pattern) to the version that it may not pass, a whole one or the beginning of one (V(15.*)).
      - A pin without an epoch says nothing about the epoch.
    type: dict
    default: {}
  new_packages:
    description:
      - Whether an update may bring packages along that are not installed yet, as kernels do.
    type: bool
    default: true
  approval_required:
    description:
      - Plan only what O(approved) names. The rest waits, and its deadline goes on.
    type: bool
    default: false
  approved:
    description:
      - Packages that were reviewed (shell patterns), V(NAME) or V(NAME=VERSION); with a version only that one is meant.
    type: list
    elements: str
    default: []
  elsewhere:
    description:
      - Packages that another step updates, each with what is said of it. They are neither planned nor pulled in.
    type: dict
    default: {}
  severities:
    description:
      - Package (shell pattern) to the severity of its security updates, V(low), V(medium), V(high) or V(critical).
        It goes before O(advisories) and changelogs.
    type: dict
    default: {}
  advisories:
    description:
      - What tells severities on the host, either the JSON export of the Debian security tracker, a JSON list of objects with
        C(package), C(fixed_version), C(severity), C(published) and C(id), or a folder or C(.zip) of records in the OSV format (Debian,
        Ubuntu). Of those the distribution's own word counts, else the CVSS 3 vector.
      - Without it the changelogs of packages that were fetched already are read.
    type: path
    default: ''
  unknown_severity:
    description:
      - How a security update is treated whose severity nobody tells; the finding says for how many.
    type: str
    choices: [low, medium, high, critical]
    default: high
  deadline_hours:
    description:
      - Hours within which updates of a severity have to be installed, counted from when the fix became available; 0 means in the
        next window. What is not named stays at 24 (critical), 168 (high), 0 (medium) and 2160 (low).
    type: dict
    default: {}
  minimum_severity:
    description:
      - Plan only security updates of this severity and above.
    type: str
    choices: ['', low, medium, high, critical]
    default: ''
  overdue_only:
    description:
      - Plan only security updates that are overdue, for an emergency run.
    type: bool
    default: false
  repair:
    description:
      - Whether an interrupted C(dpkg) and unmet dependencies count as due for repair. With dnf it has no effect, which is a finding.
    type: bool
    default: false
  space_reserve_bytes:
    description:
      - What has to stay free beyond what the installation needs, on each file system.
    type: int
    default: 104857600
  kernels_keep:
    description:
      - How many kernels of a flavour to keep; the running one always stays. 0 leaves kernels alone. With dnf it has no effect, which
        is a finding.
    type: int
    default: 0
  autoremove:
    description:
      - Whether packages that nothing needs any more are due for removal. They are named in any case. With dnf it has no effect, which
        is a finding, and they are not named.
    type: bool
    default: false
  security_archives:
    description:
      - What makes an archive a security archive, as C(label:suite) or C(label:codename) patterns. With dnf an advisory decides.
    type: list
    elements: str
    default: ['Debian-Security:*', '*:*-security']
  refresh:
    description:
      - Fetch the package lists first.
    type: bool
    default: true
  stale_after_days:
    description:
      - With O(refresh=false), lists older than this are not believed when they name no update.
    type: int
    default: 2
  lock_timeout_seconds:
    description:
      - How long to wait for another package manager run to end.
    type: int
    default: 300
  restart:
    description:
      - Units (shell patterns, with or without C(.service)) whose restart is due when they run replaced files.
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
      - Whether a reboot that is needed counts as due.
    type: bool
    default: false
  minimum_seconds:
    description:
      - Installing is not begun when less time than this is left before O(deadline); the plan is then C(deferred).
    type: int
    default: 600
  backend:
    description:
      - Package manager of the host; V(auto) takes the first of them that is there.
      - V(dnf) is dnf 4; a host with dnf 5 is told that its updates are not known.
    type: str
    choices: [auto, apt, dnf]
    default: auto
seealso:
  - module: ops.maintenance.package_updates_prepare
  - module: ops.maintenance.package_updates_verify
"""

EXAMPLES = r"""
- name: Plan what is overdue, and nothing else
  ops.maintenance.package_updates_info:
    overdue_only: true
    advisories: /var/lib/advisories/debian.json

- name: Plan the security updates
  ops.maintenance.package_updates_info:
    hold: [postgresql-15]
  register: updates

- name: Say what is pending from the lists as they are
  ops.maintenance.package_updates_info:
    scope: all
    refresh: false
"""

RETURN = r"""
plan:
  description: What would be installed, dependencies included; empty when nothing is due or there is no time left.
  returned: success
  type: list
  elements: dict
  sample:
    - name: openssl
      installed: 3.0.19-1~deb12u2
      version: 3.0.22-1~deb12u2
      security: true
      archives: ["Debian-Security:bookworm-security"]
      dependency: false
install:
  description: The plan without dependencies, as the package manager's module takes it (C(name=version) with apt, C(name-version) with dnf).
  returned: success
  type: list
  elements: str
  sample: [openssl=3.0.22-1~deb12u2]
left:
  description: What is in scope and stays pending, each package with the reason.
  returned: success
  type: dict
  sample: {postgresql-15: pinned to 15.6}
elsewhere_due:
  description: Packages of O(elsewhere) that this run would have taken.
  returned: success
  type: list
  elements: str
  sample: [postgresql-15]
remove:
  description: Packages that were previewed for removal and may be removed, old kernels and with O(autoremove) what nothing needs.
  returned: success
  type: list
  elements: str
  sample: [linux-image-6.1.0-18-amd64]
deferred:
  description: Whether updates are due that cannot be begun, as no time or room is left or an installation was interrupted.
  returned: success
  type: bool
  sample: false
fresh:
  description: Whether the lists can be believed when they name no update.
  returned: success
  type: bool
  sample: true
backend:
  description: The package manager that was asked, C(apt) or C(dnf).
  returned: success
  type: str
  sample: apt
reboot:
  description: Whether a reboot is needed now, C(required), C(not_required) or C(unknown).
  returned: success
  type: str
  sample: not_required
maintenance_record:
  description: What was found, for the journal.
  returned: always
  type: dict
  sample:
    subject: packages
    operation: package_updates
    status: due
    summary: 1 updates are due (scope security)
    before: {openssl: 3.0.19-1~deb12u2}
    after: {openssl: 3.0.22-1~deb12u2}
    findings:
      - id: patching.pending
        state: warning
        subject: packages
        summary: 1 security updates are pending, of 3 updates in all.
        value: 1
        unit: count
        threshold: warning from 1 security update
        basis: exact
        as_of: ''
        not_covered: ''
        advice: Install them in the next window; the plan of this run names each version.
        evidence: ['openssl 3.0.19-1~deb12u2 -> 3.0.22-1~deb12u2']
    metrics:
      - {name: patching.pending_security, subject: packages, value: 1, unit: count}
    actions:
      - subject: openssl
        operation: upgrade
        status: due
        summary: openssl 3.0.19-1~deb12u2 -> 3.0.22-1~deb12u2
        before: {version: 3.0.19-1~deb12u2}
        after: {version: 3.0.22-1~deb12u2, security: true}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:14.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import package_updates
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(package_updates.OPTIONS, package_updates.run, subject="packages", operation="package_updates")


if __name__ == "__main__":
    main()
