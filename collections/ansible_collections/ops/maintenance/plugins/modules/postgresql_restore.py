#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_restore
version_added: 0.1.0
short_description: Restore a PostgreSQL database from a backup
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Takes the backup that is named, or the newest of the declared sets that verification proved to the demanded level. The newest one
    may be the one that holds the damage, and a link to the latest may lead to half a dump.
  - Recognises the dump by its content (custom, directory, tar, plain, plain compressed with gzip, xz, zstd or bzip2) and reads it to its end before anything
    is changed. In check mode that is all, together with what stands in the way; do this before services are stopped.
  - Restores it beside the live database, stops at the first error, verifies it there, then gives both their names in one transaction. The
    database before is kept as C(<database>_before_<run>), with owner, privileges and settings carried over to the restored one.
  - A journal in O(state_dir) lets the next run finish or undo what a killed one left.
  - Connections are ended only to this database, and only inside maintenance mode; outside, a connection is a refusal.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql.restore
options:
  database:
    description: The database that is replaced. Made anew where there is none.
    type: str
    required: true
  backup:
    description: Full path of the dump, below a folder of O(sets). Empty means the newest that is proven.
    type: str
    default: ''
  sets:
    description:
      - Declared sets of PostgreSQL dumps. A backup is chosen only from those of O(database); one of another set can be named.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What backup verification calls the set.
        type: str
        required: true
      root:
        description: Folder of its backups.
        type: str
        required: true
      database:
        description: Database that its backups are of.
        type: str
        default: ''
      encrypted:
        description: Whether its backups are encrypted.
        type: bool
        default: false
      decrypt_command:
        description:
          - Argument list of the command that decrypts from its input to its output. An encrypted backup is decrypted into O(scratch), and that copy is
            removed in the end.
        type: list
        elements: str
        default: []
      recovery_key:
        description: How the key is fetched from where it is kept. Decryption sees this key and none of this host, and nothing of it stays.
        type: dict
        suboptions:
          command:
            description: Argument list of the program that prints the key. C({key}) in decrypt_command stands for the file that it is in.
            type: list
            elements: str
            required: true
          os_user:
            description: User to run it as.
            type: str
            default: ''
          environment_file:
            description: File with its variables, mode 0600.
            type: path
            default: ''
          timeout_seconds:
            description: Longest wait for the key.
            type: float
            default: 60.0
  scratch:
    description: Private folder for the decrypted copy of an encrypted backup.
    type: path
    default: /var/lib/ops_maintenance/scratch
  demanded_level:
    description: Level of proof that a backup has to have to be chosen, and below which a named one is a warning.
    type: int
    choices: [2, 3, 4, 5]
    default: 4
  again:
    description: Restore a backup that was restored before and is in place, which loses what was written since.
    type: bool
    default: false
  other_database:
    description: Name of the database that the archive was made of, where it is another one than O(database). Without it, such an archive is refused.
    type: str
    default: ''
  reserve_bytes:
    description: Room that has to stay free.
    type: int
    default: 104857600
"""

EXAMPLES = r"""
- name: Prove the newest clean backup and show what stands in the way
  ops.maintenance.postgresql_restore:
    server: {name: main}
    database: shop
    sets: [{name: daily, root: /backup/daily, database: shop}]
  check_mode: true

- name: Restore a backup by name
  ops.maintenance.postgresql_restore:
    server: {name: main, sentinels: [public.orders]}
    database: shop
    backup: /backup/daily/20261120.dump
    sets:
      - {name: daily, root: /backup/daily, database: shop}
      - name: weekly
        root: /backup/weekly
        database: shop
        encrypted: true
        decrypt_command: [age, --decrypt, --identity, "{key}"]
        recovery_key: {command: [/usr/local/sbin/recovery-key]}
"""

RETURN = r"""
backup:
  description: Path of the backup that was chosen.
  returned: always
  type: str
  sample: /backup/daily/20261120.dump
database:
  description: Server and database.
  returned: always
  type: str
  sample: main/shop
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: main/shop
    operation: restore
    status: changed
    summary: main/shop was restored from /backup/daily/20261120.dump
    before: {}
    after: {}
    findings:
      - id: restore.backup
        state: ok
        subject: /backup/daily/20261120.dump
        summary: the backup (custom, 18.0 MiB, 42 table(s) with 120345 row(s)) was read to its end
        value: 18874368
        unit: bytes
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: []
    actions:
      - subject: main/shop
        operation: restore_database
        status: changed
        summary: restored from /backup/daily/20261120.dump; the one before is kept as 'shop_before_restore-20261121T020000Z-3fa9'
        before: {kept_as: shop_before_restore-20261121T020000Z-3fa9}
        after: {rows: {public.orders: 1200}}
    started: '2026-11-21T02:40:11.204112+00:00'
    finished: '2026-11-21T02:40:42.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_restore
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(postgresql_restore.OPTIONS, postgresql_restore.run, subject="database", operation="restore")


if __name__ == "__main__":
    main()
