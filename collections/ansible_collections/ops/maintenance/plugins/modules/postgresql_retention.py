#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_retention
version_added: 0.1.0
short_description: Purge or archive the rows of PostgreSQL tables that are old enough
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Each rule names a table, the column whose age counts and the age. Rows older than that are moved into an archive table of the same
    database, or deleted where the rule says so with an empty O(rules[].archive_table).
  - The cut-off is taken once from the server's clock. Each batch is one transaction that locks rows (those of other sessions are skipped),
    inserts them into the archive with named columns, deletes them and compares the counts. Whatever is killed, every row is in the
    table or in the archive, and none is in both; the next run goes on.
  - Everything is checked before the first change - tables, columns and their types, privileges, the archive's columns, a standby,
    the clock. A rule that cannot be used stops all rules.
  - Foreign keys are honoured. Rules of tables that refer to others come first, and a row that another one refers to stays and is
    reported with the name of the constraint, C(ON DELETE CASCADE) included.
  - A rule that would remove too large a share of its table is refused, as is one that would read a big table from end to end for want
    of an index, until the rule allows it.
  - Rows without a date never become due; their number is reported.
  - It takes no backup itself. Rows that were deleted come back from a snapshot or a backup only, so that whoever calls it outside check
    mode takes one first. The role C(data_retention) counts, takes a snapshot, proves it, and goes no further when that fails.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql
options:
  rules:
    description:
      - What is kept how long. None at all is reported as C(unknown).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Tells two rules of one table apart in findings.
        type: str
        default: ''
      server:
        description: Name of one of O(servers).
        type: str
        required: true
      database:
        description: Name of the database.
        type: str
        required: true
      table:
        description: The table as C(schema.table), or only its name in the schema C(public). Letter case counts.
        type: str
        required: true
      schema:
        description: Schema of the table, needed only where a name has a dot.
        type: str
        default: ''
      column:
        description: The column whose age counts; C(timestamp), C(timestamptz) or C(date).
        type: str
        required: true
      age_days:
        description: Rows older than this are due. Of a date, the whole day has to be older.
        type: float
        required: true
      minimum_age_days:
        description: The lower bound for O(rules[].age_days), so that a slip does not empty the table.
        type: float
        default: 7.0
      timezone:
        description: Time zone of a column without one, as PostgreSQL calls it.
        type: str
        default: UTC
      null_column_age:
        description: Column whose age counts for rows where O(rules[].column) is empty. Without it such rows stay and are counted.
        type: str
        default: ''
      equals:
        description: Further columns and the value that each must have; values are never part of a statement's text or of a record.
        type: dict
        default: {}
      archive_table:
        description: Where the rows go, as C(schema.table). Empty deletes them for good, which has to be said explicitly.
        type: str
        required: true
      archive_schema:
        description: Schema of the archive, needed only where a name has a dot.
        type: str
        default: ''
      create_archive:
        description: Create a missing archive with the columns, the primary key and the owner of the table.
        type: bool
        default: false
      batch_rows:
        description: Rows in one transaction.
        type: int
        default: 5000
      pause_seconds:
        description: Pause between two batches, for the sake of replicas and users.
        type: float
        default: 0.0
      minimum_rows_kept:
        description: Rows that have to stay in the table.
        type: int
        default: 0
      maximum_share_percent:
        description: Largest share of the table that one run may remove.
        type: float
        default: 60.0
      allow_large_share:
        description: The approval to remove more than that, such as in the first run.
        type: bool
        default: false
      allow_scan:
        description: Work on a table of more than 100000 rows although no index leads with the column, or a foreign key on it has none.
        type: bool
        default: false
      allow_cascade:
        description:
          - Remove rows although C(ON DELETE CASCADE), C(SET NULL) or C(SET DEFAULT) then changes rows of other tables, which archives
            nothing of them.
        type: bool
        default: false
      search_path:
        description: Schemas that the triggers of the tables need to find; this module's own statements need none.
        type: list
        elements: str
        default: []
  statement_timeout_seconds:
    description: Longest time of one statement.
    type: float
    default: 300.0
  clock_tolerance_seconds:
    description: Refuse to work when the server's clock and the host's are further apart.
    type: float
    default: 3600.0
"""

EXAMPLES = r"""
- name: Say what is due; check mode changes nothing
  ops.maintenance.postgresql_retention:
    servers:
      - name: main
    rules:
      - server: main
        database: purchase
        table: user_sessions
        column: expires_at
        age_days: 7
        archive_table: ''
        maximum_share_percent: 95
  check_mode: true

- name: Archive approvals after a year
  ops.maintenance.postgresql_retention:
    servers:
      - name: main
        host: db1.example.org
        user: retention
        password_file: /etc/ops_maintenance/retention.password
        ssl_mode: verify-full
        ssl_root_certificate: /etc/ssl/certs/ca-certificates.crt
    rules:
      - server: main
        database: purchase
        table: po_approvals
        column: created_at
        age_days: 365
        minimum_age_days: 300
        archive_table: po_approvals_archive
        create_archive: true
"""

RETURN = r"""
due:
  description: Whether anything was done, or in check mode is due.
  returned: success
  type: bool
  sample: true
touched:
  description: Tables that lost or gained rows, and what they want now.
  returned: success
  type: list
  elements: dict
  sample:
    - {server: main, database: purchase, schema: public, table: po_approvals, rows: 1200, wants: [vacuum, analyze]}
    - {server: main, database: purchase, schema: public, table: po_approvals_archive, rows: 1200, wants: [analyze]}
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: retention
    operation: postgresql_retention
    status: changed
    summary: 1 rule(s), worst state ok, 1200 row(s) removed
    before: {rows_due: {'main/purchase: public.po_approvals': 1200}}
    after: {rows_due: {'main/purchase: public.po_approvals': 0}}
    findings:
      - id: retention.rows
        state: ok
        subject: 'main/purchase: public.po_approvals'
        summary: 1200 of 9000 rows were removed (archive), 0 that are due are left
        value: 0
        unit: count
        threshold: due from 365 days after created_at
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics:
      - {name: retention.rows_removed, subject: 'main/purchase: public.po_approvals', value: 1200, unit: count}
    actions:
      - subject: 'main/purchase: public.po_approvals'
        operation: archive
        status: changed
        summary: 1200 rows with created_at more than 365 days ago went to public.po_approvals_archive
        before: {rows_due: 1200}
        after: {rows_due: 0, rows_removed: 1200}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:14.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_retention
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(postgresql_retention.OPTIONS, postgresql_retention.run, subject="retention", operation="postgresql_retention")


if __name__ == "__main__":
    main()
