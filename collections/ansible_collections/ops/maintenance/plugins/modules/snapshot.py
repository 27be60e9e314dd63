#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
version_added: 0.1.0
short_description: Take a proven snapshot that a rollback can use
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Copies SQLite databases while they are in use, committed rows in the C(-wal) file included, and proves each copy.
  - Dumps PostgreSQL databases. Row counts and dump are of the same exported moment, and the archive is read whole, because a list of
    its contents would not notice that it is cut off.
  - Copies files and folders with owner, mode and time, and keeps package versions, unit states and the contents of Python
    environments for comparison.
  - Everything is written below a temporary name, flushed to disk and renamed last. A half-written one of a killed run is removed.
  - The folder is named after O(run_id). A second call in the same run proves what is there and changes nothing.
  - Old snapshots go when both limits are passed; the one of this run and broken ones are never removed.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql.snapshot
options:
  root:
    description: Folder of the snapshots, mode 0700.
    type: path
    default: /var/backups/ops_maintenance
  databases:
    description: SQLite databases.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the file.
        type: str
        required: true
      required_tables:
        description: Tables that make it the expected database.
        type: list
        elements: str
        default: []
      copy_as:
        description:
          - A second copy for people, with C({time}) in its name, which becomes year, month, day, hour, minute and second
            on the host's clock. It is removed together with its snapshot.
        type: str
        default: ''
  paths:
    description: Files and folders, with everything below them. Symbolic links are kept as links.
    type: list
    elements: str
    default: []
  path_copies:
    description:
      - Second copies of files in O(paths), for people, mode 0600. Never inside the tree of the file itself or inside a work tree.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      copy_as:
        description: Absolute path with C({time}) in the file's name.
        type: str
        required: true
      encrypt_command:
        description:
          - Argument list of a program that encrypts its standard input for somebody else, who keeps the key. Empty keeps the copy in clear.
          - What it writes is proven to begin as files of age, OpenPGP or openssl do.
        type: list
        elements: str
        default: []
  packages:
    description: Keep the versions of installed packages.
    type: bool
    default: true
  units:
    description: Units whose state and enablement are kept.
    type: list
    elements: str
    default: []
  python_environments:
    description: Python environments whose distributions are kept.
    type: list
    elements: str
    default: []
  keep_count:
    description: This many snapshots stay whatever their age.
    type: int
    default: 5
  keep_days:
    description: A snapshot beyond O(keep_count) stays for this long.
    type: float
    default: 30.0
  drop_kept_after_days:
    description:
      - Databases that a restore kept under the name C(<database>_before_<run>) are dropped after this many days; 0 means never.
    type: float
    default: 0.0
  reserve_bytes:
    description: Room that has to stay free.
    type: int
    default: 104857600
"""

EXAMPLES = r"""
- name: Snapshot of an application before its maintenance
  ops.maintenance.snapshot:
    databases:
      - path: /srv/app/app.db
        copy_as: "/srv/backups/maintenance/app_{time}.db"
    paths: [/srv/app/.env, /etc/systemd/system/app.service]
    units: [app.service]

- name: Snapshot of a PostgreSQL database and of the configuration, with copies that people find
  ops.maintenance.snapshot:
    postgresql:
      - name: main
        databases: [netpost_production]
        sentinels: [public.users]
        copy_as: "/srv/backups/manual/backup_{time}.dump"
    paths: [/srv/netpost/.env.production]
    path_copies:
      - path: /srv/netpost/.env.production
        copy_as: "/srv/backups/config/.env.production.backup.{time}.age"
        encrypt_command: [age, --recipients-file, /etc/ops_maintenance/backup.recipients]

- name: Snapshot of configuration only
  ops.maintenance.snapshot:
    paths: [/etc/nginx]
    packages: false
    keep_count: 3
"""

RETURN = r"""
snapshot:
  description: Id of the snapshot.
  returned: success
  type: str
  sample: weekly-20261121T020000Z-3fa9
folder:
  description: Where it is.
  returned: success
  type: str
  sample: /var/backups/ops_maintenance/weekly-20261121T020000Z-3fa9
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: /var/backups/ops_maintenance/weekly-20261121T020000Z-3fa9
    operation: snapshot
    status: changed
    summary: 'snapshot weekly-20261121T020000Z-3fa9: taken'
    before: {}
    after: {}
    findings:
      - id: snapshot.disk_room
        state: ok
        subject: /var/backups/ops_maintenance
        summary: 18.2 GiB free
        value: 19541999616
        unit: bytes
        threshold: critical below 102.4 MiB
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics:
      - {name: snapshot.database_bytes, subject: /srv/app/app.db, value: 1048576, unit: bytes}
    actions:
      - subject: /var/backups/ops_maintenance/weekly-20261121T020000Z-3fa9
        operation: take
        status: changed
        summary: the snapshot weekly-20261121T020000Z-3fa9 was taken
        before: {}
        after: {databases: 1, files: 2}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:14.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import snapshot
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(snapshot.OPTIONS, snapshot.run, subject="snapshot", operation="snapshot")


if __name__ == "__main__":
    main()
