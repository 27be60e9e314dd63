#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
version_added: 0.1.0
short_description: Put back what a snapshot holds
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Proves the snapshot first - its manifest, every byte against its checksum, every database copy - and refuses one that is
    absent or broken before anything is changed. In check mode that is all, together with what differs; do this before services
    are stopped.
  - Refuses while a process has a database open that will be replaced.
  - Keeps the present files as evidence, removes old C(-wal) and C(-shm) files, which would be replayed over the restored
    database, puts every file in place in one step with its owner and mode, and reads everything back.
  - A PostgreSQL database is restored beside the live one and verified (rows of every table, objects, no invalid index) before anything
    live is touched. Then both change names in one transaction, so that there always is a database of the live name. The one before
    is kept as C(<database>_before_<run>). A journal in O(state_dir) lets the next run finish or undo what a killed one left.
  - Connections are ended only to the database that is switched, and only inside maintenance mode; outside, a connection is a refusal.
  - A release goes back as a whole; what came into it after goes, once it is kept as evidence. What is declared as data is not touched, nor
    are volumes, unless O(volumes) says so. A link to the release in use is set last.
  - A deployment at a hosting platform is made live again where another one is, and its address asked.
  - Containers are compared with the images of the snapshot.
  - Files that came after the snapshot stay and are reported. Packages and Python environments are compared; packages
    are put back on request.
  - A snapshot that was put back is not put back again, because that would lose what was written since; see O(again).
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql.snapshot
  - ops.maintenance.deployments
options:
  root:
    description: Folder of the snapshots.
    type: path
    default: /var/backups/ops_maintenance
  snapshot:
    description: Id of the snapshot; empty means the one of this run.
    type: str
    default: ''
  other_cluster:
    description: Restore PostgreSQL databases into a cluster with another system identifier than that of the snapshot.
    type: bool
    default: false
  packages:
    description: Put packages back to the versions of the snapshot, where the package source still has them (apt only).
    type: bool
    default: false
  again:
    description: Put a snapshot back that was put back before.
    type: bool
    default: false
  keep_sound:
    description:
      - Leave a database alone that is sound and has every row of the snapshot, so that what users wrote since is kept.
      - Of PostgreSQL that is one whose tables were all read, whose objects and properties are those of the snapshot, whose indexes are
        valid, and agree with their tables where the extension amcheck is installed in it.
    type: bool
    default: false
  only:
    description:
      - Put back only these parts; empty means all. V(deployments) alone goes by the manifest and does not wait for the proof of the rest.
    type: list
    elements: str
    choices: [databases, configuration, releases, containers, deployments]
    default: []
  paths:
    description:
      - Put back only these files and folders. Which snapshots hold which version of them is said first, in check mode even without a
        snapshot of that name.
    type: list
    elements: str
    default: []
  volumes:
    description:
      - Put back volumes of containers as well, which loses what was written to them since.
    type: bool
    default: false
  container_engine:
    description: The engine that containers and volumes are asked of.
    type: str
    choices: [auto, docker, podman]
    default: auto
  decrypt_command:
    description: Argument list of a program that decrypts a sealed snapshot.
    type: list
    elements: str
    default: []
  reserve_bytes:
    description: Room that has to stay free.
    type: int
    default: 104857600
"""

EXAMPLES = r"""
- name: Prove the snapshot and show what differs, before anything is stopped
  ops.maintenance.rollback:
    snapshot: weekly-20261121T020000Z-3fa9
  check_mode: true

- name: Put one file back and prove its owner and mode
  ops.maintenance.rollback:
    snapshot: weekly-20261121T020000Z-3fa9
    paths: [/srv/shop/.env]

- name: Put it back, packages as well
  ops.maintenance.rollback:
    snapshot: weekly-20261121T020000Z-3fa9
    packages: true
"""

RETURN = r"""
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: /var/backups/ops_maintenance/weekly-20261121T020000Z-3fa9
    operation: rollback
    status: changed
    summary: 'rollback to weekly-20261121T020000Z-3fa9: 2 things changed'
    before: {}
    after: {}
    findings:
      - id: rollback.result
        state: ok
        subject: weekly-20261121T020000Z-3fa9
        summary: everything the snapshot covers is as it was, and was read back
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
      - subject: /srv/app/app.db
        operation: restore_database
        status: changed
        summary: put back as of 2026-11-21T02:00:11.204112+00:00
        before: {rows: {orders: 0}}
        after: {rows: {orders: 1200}}
    started: '2026-11-21T02:40:11.204112+00:00'
    finished: '2026-11-21T02:40:12.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import rollback
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(rollback.OPTIONS, rollback.run, subject="snapshot", operation="rollback")


if __name__ == "__main__":
    main()
