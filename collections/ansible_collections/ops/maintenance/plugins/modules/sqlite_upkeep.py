#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_upkeep
version_added: 0.1.0
short_description: Prove SQLite databases and do the upkeep that is due
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Makes sure that the file is there, is a SQLite database and has the expected tables, then runs a full integrity and
    foreign key check and counts rows, all without locking out the application and without leaving a trace.
  - Only a sound database is worked on. REINDEX, VACUUM, the journal mode, ANALYZE and emptying the C(-wal) file are done when
    a threshold says so, in this order, as the owner of the file. VACUUM, REINDEX and a change of the journal mode wait until no
    process has the database open; VACUUM also needs room for two more copies.
  - Afterwards everything is checked again, and every table must have as many rows as before.
  - A damaged database stops the work. Its files are copied as evidence; it is restored only when O(databases[].allow_restore)
    says so, and only from the newest backup that itself passes all checks. The module fails when damage remains.
  - VACUUM may renumber the rowids of tables without an C(INTEGER PRIMARY KEY). Leave such a database out of VACUUM with
    O(databases[].vacuum_free_percent=100) if the application keeps rowids.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  databases:
    description:
      - The databases. None at all is reported as C(unknown).
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path of the file; a symbolic link is refused.
        type: str
        required: true
      owner:
        description: User that has to own the file and its C(-wal) and C(-shm).
        type: str
        default: ''
      group:
        description: Group that has to own them.
        type: str
        default: ''
      required_tables:
        description: Tables that make it the expected database.
        type: list
        elements: str
        default: []
      count_tables:
        description: Tables whose rows are reported and compared with the last run. A missing one is an error, never 0 rows.
        type: list
        elements: str
        default: []
      journal_mode:
        description: The journal mode to store in the file; V(keep) leaves it.
        type: str
        choices: [wal, delete, keep]
        default: keep
      application_settings:
        description:
          - Settings such as C(synchronous) that hold for one connection only, so that only the application can make them.
            They are looked for in O(databases[].application_settings_in), never set.
        type: dict
        default: {}
      application_settings_in:
        description: Files of the application in which the settings have to appear.
        type: list
        elements: str
        default: []
      vacuum_free_percent:
        description: VACUUM is due when at least this share of the file is unused, and O(databases[].vacuum_free_bytes) as well.
        type: float
        default: 20.0
      vacuum_free_bytes:
        description: VACUUM is due when at least this many bytes are unused.
        type: int
        default: 1048576
      checkpoint_wal_bytes:
        description: The C(-wal) file is emptied from this size.
        type: int
        default: 4194304
      analyze_after_days:
        description: ANALYZE is due this long after the last one.
        type: float
        default: 6.0
      analyze_when_changed_percent:
        description: ANALYZE is due earlier when the counted tables gained or lost this share of rows; V(0) turns that off.
        type: float
        default: 10.0
      reindex:
        description: V(when_due) follows O(databases[].reindex_after_days) and the SQLite version, V(always) is once in each run.
        type: str
        choices: [never, when_due, always]
        default: when_due
      reindex_after_days:
        description: REINDEX is due this long after the last one.
        type: float
        default: 6.0
      max_shrink_rows_percent:
        description: A counted table that lost this share of its rows since the last run is a warning.
        type: float
        default: 20.0
      size_warning_bytes:
        description: Warn from this size; V(0) turns that off.
        type: int
        default: 0
      restore_from:
        description: Patterns of backup files that a damaged database may be restored from.
        type: list
        elements: str
        default: []
      allow_restore:
        description: The approval to restore a damaged database.
        type: bool
        default: false
  reserve_bytes:
    description: Room that has to stay free on top of what the work needs.
    type: int
    default: 104857600
  bytes_per_second:
    description: How fast the slowest step goes, to tell whether the work ends before O(deadline).
    type: int
    default: 10485760
  require_snapshot:
    description: Do VACUUM and REINDEX only when a proven snapshot holds the database.
    type: bool
    default: false
  snapshot_root:
    description: Folder of the snapshots.
    type: path
    default: /var/backups/ops_maintenance
  snapshot_max_age_hours:
    description: How old that snapshot may be.
    type: float
    default: 24.0
"""

EXAMPLES = r"""
- name: Look at a database; check mode changes nothing
  ops.maintenance.sqlite_upkeep:
    databases:
      - path: /srv/app/app.db
        required_tables: [orders]
        count_tables: [orders]
  check_mode: true

- name: Do the weekly upkeep of a database in WAL mode
  ops.maintenance.sqlite_upkeep:
    require_snapshot: true
    databases:
      - path: /srv/app/app.db
        owner: app
        group: app
        required_tables: [orders]
        count_tables: [orders]
        journal_mode: wal
        restore_from: [/srv/backups/daily/*.db]
"""

RETURN = r"""
due:
  description: Whether anything was done, or in check mode is due.
  returned: success
  type: bool
  sample: true
damaged:
  description: Databases that are damaged and were not restored.
  returned: success
  type: list
  elements: str
  sample: []
restoring:
  description: Databases that were restored, or in check mode will be.
  returned: success
  type: list
  elements: str
  sample: []
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: databases
    operation: sqlite_upkeep
    status: changed
    summary: 1 database looked at, worst state ok, 1 thing due or done
    before: {}
    after: {}
    findings:
      - id: database.integrity
        state: ok
        subject: /srv/app/app.db
        summary: integrity_check answered exactly ok
        value: null
        unit: ''
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics:
      - {name: database.size_bytes, subject: /srv/app/app.db, value: 1048576, unit: bytes}
    actions:
      - subject: /srv/app/app.db
        operation: vacuum
        status: changed
        summary: 1.2 MiB (54 percent) are unused
        before: {size_bytes: 2301952, free_bytes: 1257472, journal_mode: wal}
        after: {size_bytes: 1048576, free_bytes: 0, journal_mode: wal}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:14.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import sqlite_upkeep, sqlite_upkeep_options
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(sqlite_upkeep_options.OPTIONS, sqlite_upkeep.run, subject="databases", operation="sqlite_upkeep")


if __name__ == "__main__":
    main()
