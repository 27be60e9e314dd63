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
    description: Declared backup sets, each name with the folder of its backups.
    type: dict
    required: true
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
    sets: {daily: /backup/daily}
  check_mode: true

- name: Restore a backup by name
  ops.maintenance.postgresql_restore:
    server: {name: main, sentinels: [public.orders]}
    database: shop
    backup: /backup/daily/20261120.dump
    sets: {daily: /backup/daily, weekly: /backup/weekly}
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
