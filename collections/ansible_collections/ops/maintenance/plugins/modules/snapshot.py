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
  - Keeps the release of an application, volumes of containers, the images that containers run, and which deployment is live at a
    hosting platform; and writes down the way back in C(ROLLBACK.txt) beside the manifest.
  - Everything is written below a temporary name, flushed to disk and renamed last. A half-written one of a killed run is removed.
  - The folder is named after O(run_id). A second call in the same run proves what is there and changes nothing.
  - Old snapshots go when both limits are passed; the one of this run and broken ones are never removed.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql.snapshot
  - ops.maintenance.deployments
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
  releases:
    description:
      - Deployed applications, each kept as one archive that can be put back without building anything.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What it is called in findings.
        type: str
        required: true
      path:
        description:
          - The folder of the release, or the link to the one that is in use. A link is put back last.
        type: path
        required: true
      data:
        description:
          - Paths below it that hold what is no part of a release, such as uploads, logs and caches. They are neither copied nor ever
            rolled back. Has to be given, if only as an empty list. The folder of an SQLite database that is declared has to be one.
        type: list
        elements: str
        required: true
      version_file:
        description:
          - File below it that tells the version, by C(version) of a JSON file or in its first line. Without it, the name of the folder
            that a link leads to.
        type: str
        default: ''
  containers:
    description:
      - Keep which image every container runs, with its digest. A rollback compares, and says how each gets back.
    type: bool
    default: false
  container_engine:
    description:
      - The engine that O(containers) and O(volumes) are asked of.
    type: str
    choices: [auto, docker, podman]
    default: auto
  volumes:
    description:
      - Named volumes of containers, each kept as one archive. Stop what writes to them first; a PostgreSQL cluster in use is refused.
    type: list
    elements: str
    default: []
  look:
    description:
      - Take no snapshot, only keep for the one of this run what the engine of containers cannot tell any more once it is stopped.
    type: bool
    default: false
  encrypt_command:
    description:
      - Argument list of a program that encrypts its standard input. With it, all that the snapshot holds is at rest one encrypted file;
        only the manifest (names, sizes, checksums, versions) and the plan of the way back stay in clear.
    type: list
    elements: str
    default: []
  decrypt_command:
    description:
      - Argument list of a program that decrypts what O(encrypt_command) made. It is tried before the snapshot counts, and a rollback
        needs it.
    type: list
    elements: str
    default: []
  version_control:
    description:
      - Commit the files of O(paths) to a work tree, too. Each is encrypted; an index has names of variables with keyed hashes, so that it
        shows which one changed. No value ever gets there in clear.
    type: dict
    suboptions:
      tree:
        description:
          - A git work tree that only root can write, apart from what O(paths) names.
        type: path
        default: ''
      encrypt_command:
        description:
          - Argument list of the program that encrypts each file for somebody else, who keeps the key.
        type: list
        elements: str
        default: []
      push:
        description:
          - Push after each commit. What could not be pushed is a warning.
        type: bool
        default: false
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

- name: Snapshot of a release and its settings, encrypted at rest, without what users uploaded
  ops.maintenance.snapshot:
    releases:
      - name: shop
        path: /srv/shop/current
        data: [public/uploads, storage]
        version_file: package.json
    paths: [/srv/shop/.env]
    encrypt_command: [age, --recipients-file, /etc/ops_maintenance/backup.recipients]
    decrypt_command: [age, --decrypt, --identity, /etc/ops_maintenance/backup.key]

- name: What is live at a hosting platform, before a deployment
  ops.maintenance.snapshot:
    deployments:
      - name: web
        record: [vercel, inspect, shop.example.com]
        pattern: "https://([a-z0-9-]+\\.vercel\\.app)"
        rollback: [vercel, rollback, "{deployment}", --timeout, 3m]
        promote: [vercel, promote, DEPLOYMENT]
        url: https://shop.example.com/api/health
        user: deploy

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
