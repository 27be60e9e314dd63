#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_minor_update
version_added: 0.1.0
short_description: Bring PostgreSQL servers to the newest minor release, replicas first
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Finds the newest minor release of each installed major version of PostgreSQL that apt has, and installs exactly the packages that
    belong to it. A plan that holds another major version, removes a package or touches a hold is refused as a whole.
  - A server is restarted only in the maintenance mode of the same run and after its snapshot, when no transaction has lasted too long, no
    base backup runs, its replay and that of its replicas keep up, and no cluster of the host would be restarted unseen. What time may mend
    is waited for, O(wait_seconds) at most; then the update is C(deferred).
  - A primary waits until as many replicas as it has run the new release already and have caught up, as O(peers) say. A replica waits for
    the other replicas to catch up. A server does not go while another one of its cluster is maintained (O(at_once)).
  - Afterwards the running server has to say the new version and the same role, and its replication has to catch up.
  - A server that runs an older release than is on disk, or replaced files, is restarted under the same conditions.
  - What cannot be seen is C(unknown), and nothing is restarted.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql.minor
options:
  look_only:
    description:
      - Say only what the servers say, for another host to hand on as O(peers).
    type: bool
    default: false
  peers:
    description:
      - The other servers of the cluster, each as RV(servers) of a call on its host with O(look_only).
    type: list
    elements: dict
    default: []
  at_once:
    description:
      - Other hosts of the cluster that are maintained at the same moment.
    type: list
    elements: str
    default: []
  long_transaction_seconds:
    description:
      - A transaction that has lasted so long is not cut off.
    type: float
    default: 300
  maximum_lag_bytes:
    description:
      - A replica that has more than this of the log still to replay does not keep up.
    type: int
    default: 16777216
  wait_seconds:
    description:
      - How long to wait for transactions to end and replicas to catch up, before the restart and again afterwards.
    type: float
    default: 300
  minimum_seconds:
    description:
      - An update is not begun when less time than this is left before O(deadline); it is then C(deferred).
    type: int
    default: 600
  snapshot_root:
    description:
      - Where the snapshot of the run has to be.
    type: path
    default: /var/backups/ops_maintenance
  refresh:
    description:
      - Fetch the package lists first, in check mode into a private copy.
    type: bool
    default: true
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
      - Package manager of the host. Minor releases are planned with V(apt) only; with another one they are C(unknown).
    type: str
    choices: [auto, apt, dnf]
    default: auto
seealso:
  - module: ops.maintenance.package_updates_info
  - module: ops.maintenance.snapshot
"""

EXAMPLES = r"""
- name: See what is due
  ops.maintenance.postgresql_minor_update:
    servers:
      - name: main
        replicas_expected: 1
  check_mode: true

- name: Ask the other servers of the cluster
  ops.maintenance.postgresql_minor_update:
    servers:
      - name: main
    look_only: true
  delegate_to: db2.example.com
  register: other

- name: Update, replicas first
  ops.maintenance.postgresql_minor_update:
    servers:
      - name: main
        replicas_expected: 1
    peers: "{{ other.servers }}"
"""

RETURN = r"""
servers:
  description: What each server said.
  returned: success
  type: list
  elements: dict
  sample:
    - {host: db2, name: main, role: replica, system: '7440098317623341109', version: 150015, behind: []}
elsewhere:
  description: Packages that an ordinary update has to leave alone, each with the reason.
  returned: success
  type: dict
  sample: {postgresql-15: left to the update of PostgreSQL}
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: postgresql
    operation: postgresql_minor_update
    status: changed
    summary: 'replica main: 15.14 -> 15.15'
    before: {main: '15.14'}
    after: {main: '15.15'}
    findings:
      - id: postgresql_minor.updated
        state: ok
        subject: main
        summary: 'The running server says so: replica main: 15.14 -> 15.15.'
        value: null
        unit: ''
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: []
    actions:
      - subject: main
        operation: update
        status: changed
        summary: 'replica main: 15.14 -> 15.15'
        before: {version: '15.14'}
        after: {version: '15.15', packages: {postgresql-15: 15.15-0+deb12u1}}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:34.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_minor_update
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(postgresql_minor_update.OPTIONS, postgresql_minor_update.run, subject="postgresql", operation="postgresql_minor_update")


if __name__ == "__main__":
    main()
