#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_upkeep
version_added: 0.1.0
short_description: Do the upkeep of PostgreSQL that is due, inside a time budget
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Looks at every database, does what thresholds say is due, and looks again. The order is settings, remainders of rebuilds that
    were cut short, extensions, VACUUM, VACUUM FULL, declared indexes, REINDEX, and ANALYZE last, so that nothing is done twice.
  - Only online forms are used (plain VACUUM, C(REINDEX CONCURRENTLY), C(CREATE INDEX CONCURRENTLY)), unless a table is named for a
    locking one, O(maintenance_mode=true), the measured bloat is above the limit and the disk has room.
  - Several tables are worked on at once, worst first. Every statement has a lock and a statement time-out. Whoever blocks one is named
    with pid, user, application and since when.
  - What would not end before O(deadline) is not begun; what still runs then is stopped. Both are reported as C(deferred).
  - An invalid index is dropped only when it is an invalid copy (C(_ccnew), C(_ccold)) of a valid index of the same table and definition,
    or when this run's own rebuild left it. Every other invalid index is rebuilt.
  - A failure of one object does not stop the others; the module fails at the end and says which.
  - Tables of the system catalogue are looked at for the age of their transactions only; autovacuum looks after the rest.
  - The role has to own the tables, or to have C(pg_maintain) (PostgreSQL 17). O(settings) needs a superuser.
extends_documentation_fragment:
  - ops.maintenance.postgresql
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  vacuum_dead_percent:
    description: VACUUM is due when at least this share of a table's rows is dead, and O(vacuum_dead_rows) as well.
    type: float
    default: 20.0
  vacuum_dead_rows:
    description: VACUUM is due when at least this many rows are dead.
    type: int
    default: 1000
  freeze_age:
    description: C(VACUUM (FREEZE)) is due when the oldest transaction of a table is this many transactions back.
    type: int
    default: 150000000
  analyze_changed_percent:
    description: ANALYZE is due when this share of the rows changed since the last one, and O(analyze_changed_rows) as well.
    type: float
    default: 10.0
  analyze_changed_rows:
    description: ANALYZE is due when this many rows changed since the last one. A table never analysed is due as well.
    type: int
    default: 500
  reindex:
    description: Whether bloated and invalid indexes are rebuilt.
    type: str
    choices: [online, never]
    default: online
  reindex_bloat_percent:
    description: A rebuild is due when this share of an index is not needed, and O(reindex_bloat_bytes) as well.
    type: float
    default: 30.0
  reindex_bloat_bytes:
    description: A rebuild is due when this many bytes of an index are not needed.
    type: int
    default: 10485760
  vacuum_full_bloat_percent:
    description: For tables with O(tables[].vacuum_full=true), the share of dead and free space that makes VACUUM FULL due.
    type: float
    default: 50.0
  measure_bloat:
    description:
      - Measure the bloat of indexes with C(pgstattuple) where it is installed in the database; that reads every large index once.
        Otherwise it is estimated from statistics, or from the size after the last rebuild by this module.
    type: bool
    default: true
  tables:
    description: Tables with limits of their own, or that may be locked in maintenance mode. A missing one is an error.
    type: list
    elements: dict
    default: []
    suboptions:
      server:
        description: Name of the server; empty means every one.
        type: str
        default: ''
      database:
        description: Its database.
        type: str
        required: true
      table:
        description:
          - The table as C(schema.table), taken as written. Case counts. A part that has a dot in it stands in double quotes.
        type: str
        required: true
      skip:
        description: Leave it alone.
        type: bool
        default: false
      vacuum_full:
        description: Allow VACUUM FULL. It locks the table and needs C(pgstattuple), O(maintenance_mode) and room on the disk.
        type: bool
        default: false
      vacuum_dead_percent:
        description: See O(vacuum_dead_percent).
        type: float
      vacuum_dead_rows:
        description: See O(vacuum_dead_rows).
        type: int
      freeze_age:
        description: See O(freeze_age).
        type: int
      analyze_changed_percent:
        description: See O(analyze_changed_percent).
        type: float
      analyze_changed_rows:
        description: See O(analyze_changed_rows).
        type: int
      reindex:
        description: See O(reindex). V(locking) allows a plain REINDEX, which locks the table, in maintenance mode.
        type: str
        choices: [online, locking, never]
      reindex_bloat_percent:
        description: See O(reindex_bloat_percent).
        type: float
      reindex_bloat_bytes:
        description: See O(reindex_bloat_bytes).
        type: int
      vacuum_full_bloat_percent:
        description: See O(vacuum_full_bloat_percent).
        type: float
  indexes:
    description:
      - Indexes that have to be there. One that is absent is built with C(CREATE INDEX CONCURRENTLY), an invalid one is rebuilt, one with
        another definition is reported and left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      server:
        description: Name of the server; empty means every one.
        type: str
        default: ''
      database:
        description: Its database.
        type: str
        required: true
      table:
        description: The table, as in O(tables[].table).
        type: str
        required: true
      name:
        description: Name of the index; it lives in the table's schema.
        type: str
        required: true
      columns:
        description: Its columns, in order.
        type: list
        elements: str
        required: true
      include:
        description: Further columns that it carries.
        type: list
        elements: str
        default: []
      where:
        description: Condition of a partial index, in SQL. Functions and types outside C(pg_catalog) have to be qualified.
        type: str
        default: ''
      unique:
        description: Whether it is unique.
        type: bool
        default: false
      method:
        description: The access method.
        type: str
        default: btree
  extensions_to_update:
    description: Extensions to update where the version in a database is not the one that the host's packages bring.
    type: list
    elements: str
    default: []
  settings:
    description:
      - Settings to make with ALTER SYSTEM, followed by a reload. What only a restart brings into effect is reported (C(pending_restart)).
        Amounts of memory are compared with the host's; none is set when one of them cannot be.
    type: dict
    default: {}
  reset_statistics:
    description:
      - Forget the counters of each database, those of C(pg_stat_statements) included, and analyse every table right after, because
        autovacuum goes by these counters.
    type: bool
    default: false
  reset_statistics_after_days:
    description: How long ago the last reset has to be.
    type: float
    default: 6.0
  parallel:
    description: How many tables of a database are worked on at once, each by a session of its own.
    type: int
    default: 2
  vacuum_cost_delay_ms:
    description: Pause of VACUUM each time it has done O(vacuum_cost_limit) worth of work; V(0) lets it run at full speed.
    type: float
    default: 0.0
  vacuum_cost_limit:
    description: Work of VACUUM between two pauses.
    type: int
    default: 200
  lock_timeout_seconds:
    description: Longest wait for a lock of a locking form; others queue behind it meanwhile.
    type: float
    default: 5.0
  concurrent_wait_seconds:
    description: Longest wait of an online form, behind which no reader and no writer queues, for a lock or for old transactions.
    type: float
    default: 120.0
  lock_attempts:
    description: How often something that was locked is tried, each time after the rest.
    type: int
    default: 2
  statement_timeout_seconds:
    description: Longest time of one statement.
    type: float
    default: 14400.0
  terminate_blockers:
    description: End client sessions that block the upkeep, after two seconds. Their transactions are rolled back.
    type: bool
    default: false
  maintenance_mode:
    description: Whether the application is in maintenance mode, so that locking forms may run.
    type: bool
    default: false
  on_standby:
    description: Whether a standby in O(servers) is an error or is left out.
    type: str
    choices: [fail, skip]
    default: fail
  reserve_bytes:
    description: Room that has to stay free on the disk on top of what a rebuild needs.
    type: int
    default: 1073741824
  bytes_per_second:
    description: How fast work goes, to tell whether it ends before O(deadline).
    type: int
    default: 20971520
"""

EXAMPLES = r"""
- name: See what is due; check mode changes nothing
  ops.maintenance.postgresql_upkeep:
    servers:
      - name: main
        databases: [shop]
  check_mode: true

- name: Do the monthly upkeep, two tables at once, with a declared index and settings
  ops.maintenance.postgresql_upkeep:
    servers:
      - name: main
        databases: [shop]
    parallel: 2
    vacuum_cost_delay_ms: 2
    extensions_to_update: [pg_stat_statements]
    settings:
      work_mem: 4MB
      shared_buffers: 256MB
    indexes:
      - database: shop
        table: public.orders
        name: idx_orders_day_status
        columns: [day, status]
        where: status IN ('open', 'paid')
    tables:
      - database: shop
        table: public.orders
        vacuum_full: true
        vacuum_full_bloat_percent: 60
"""

RETURN = r"""
due:
  description: Whether anything was done, or in check mode is due.
  returned: success
  type: bool
  sample: true
due_in_maintenance_mode:
  description: Whether something is due that only maintenance mode allows.
  returned: success
  type: bool
  sample: false
failures:
  description: What failed, one sentence each.
  returned: success
  type: list
  elements: str
  sample: []
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: servers
    operation: postgresql_upkeep
    status: changed
    summary: '1 server(s) looked at: 2 changed'
    before: {}
    after: {}
    findings:
      - id: upkeep.due
        state: ok
        subject: main/shop
        summary: nothing is due in 74 tables and 3 indexes
        value: 0
        unit: count
        threshold: warning from 1 count
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: []
    actions:
      - subject: 'main/shop: public.orders'
        operation: vacuum
        status: changed
        summary: 2500 dead rows, 50 percent (limit 20); dead rows 2500 → 0, 344.0 KiB → 344.0 KiB
        before:
          size_bytes: 352256
          live_rows: 2500
          dead_rows: 2500
          frozen_age: 5
          last_vacuum: '2026-11-21 02:00:11.204112+00'
          last_analyze: '2026-11-21 02:00:11.304112+00'
        after:
          size_bytes: 352256
          live_rows: 2500
          dead_rows: 0
          frozen_age: 5
          last_vacuum: '2026-11-28 02:00:11.204112+00'
          last_analyze: '2026-11-21 02:00:11.304112+00'
    started: '2026-11-28T02:00:11.004112+00:00'
    finished: '2026-11-28T02:00:12.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(postgresql_upkeep.OPTIONS, postgresql_upkeep.run, subject="servers", operation="postgresql_upkeep")


if __name__ == "__main__":
    main()
