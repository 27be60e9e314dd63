#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_review
version_added: 0.1.0
short_description: Review PostgreSQL servers and their databases
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Reads one session a database and one a server, all of them read-only, with a constant number of catalogue queries however many
    tables there are. No text of a running query is read, and statements are shown without their literals.
  - Judges statements, tables, indexes, sequences, constraints, connections, transactions, locks, replication, settings, version and
    access. One finding for each question and database (or server) names the worst subjects.
  - A role with C(pg_monitor) suffices for most questions. What PostgreSQL hides from it is reported as C(unknown) with the privilege
    that is wanting.
  - A table that is locked exclusively is not waited for. Who may look at the server's files (superusers) gets its size all the same,
    others the planner's last one.
  - Declare a primary and its replicas together. An index that a replica uses is not unused, and what a replica cannot tell is asked
    of the primary.
  - Sizes, counters and settings are kept in O(state_dir), not in check mode, and compared by the next run.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql
options:
  limits:
    description:
      - Where verdicts change. Only those that differ from the defaults need to be given.
      - C(connections_percent) V(80), C(connections_critical_percent) V(95) of the connections that are not reserved.
      - C(idle_in_transaction_seconds) V(300), C(idle_in_transaction_critical_seconds) V(3600).
      - C(transaction_seconds) V(3600), C(transaction_critical_seconds) V(21600).
      - C(lock_wait_seconds) V(30), C(lock_wait_critical_seconds) V(300).
      - C(prepared_seconds) V(3600), C(prepared_critical_seconds) V(86400) for prepared transactions.
      - C(replication_lag_bytes) V(134217728), C(replication_lag_seconds) V(300).
      - C(slot_retained_bytes) V(5368709120) of WAL kept by a slot; an inactive slot that keeps as much is critical.
      - C(archive_lag_seconds) V(600), C(archive_lag_critical_seconds) V(3600) that a segment has waited for its archive.
      - C(wraparound_percent) V(40), C(wraparound_critical_percent) V(75) of the transaction numbers.
      - C(statement_mean_ms) V(100), for statements of at least C(statement_min_calls) V(10).
      - C(error_percent) V(0.1) of transactions rolled back, judged from C(error_min_transactions) V(1000) on.
      - C(temporary_bytes) V(10737418240) of temporary files a day, C(deadlocks) V(1) since the last run.
      - C(dead_rows_percent) V(20) and C(dead_rows_min) V(1000) rows in a table.
      - C(bloat_percent) V(40), C(bloat_critical_percent) V(80) and C(index_bloat_percent) V(50), for tables and indexes of
        C(bloat_min_bytes) V(10485760) or more; C(pgstattuple_tables) V(20) of them are measured.
      - C(analyse_days) V(30) and C(analyse_changed_percent) V(20) since the last ANALYZE.
      - C(vacuum_lag_hours) V(24) that a table has been due for VACUUM, C(freeze_percent) V(100) of C(autovacuum_freeze_max_age).
      - C(growth_percent) V(50) and C(growth_min_bytes) V(104857600) since the last run.
      - C(unused_index_days) V(30) that an index was not used; V(0) asks only whether it ever was since counting began.
      - C(foreign_key_min_rows) V(0) of tables whose foreign keys need an index.
      - C(missing_index_scans) V(100) whole scans of C(missing_index_min_rows) V(10000) rows on average.
      - C(sequence_percent) V(75), C(sequence_critical_percent) V(90) of the numbers of a sequence or of its column.
      - C(role_unused_days) V(90) that a role which may log in was not seen.
      - C(bulk_rows) V(10000) rows a call of a new statement, with O(watch_statements).
    type: dict
    default: {}
  superusers:
    description: Roles that are meant to be superusers.
    type: list
    elements: str
    default: [postgres]
  privileged_roles:
    description:
      - Roles, beside superusers, that are meant to make roles or databases, replicate, see past row security, or be members of a
        role that reaches as far. Members of such a role need to be named as well.
    type: list
    elements: str
    default: []
  roles_without_expiry:
    description:
      - Roles that may log in without an end. With this option, even an empty one, all others need C(VALID UNTIL).
    type: list
    elements: str
  watch_statements:
    description:
      - Compare the statements that pg_stat_statements counts with those that earlier runs met. New ones are suspicious that
        change schema or rights, copy tables, reach for files or password hashes, return very many rows, or come from a role that
        never asked anything before. Others that are new are listed.
    type: bool
    default: false
  schema_roles:
    description:
      - Roles that change the schema or copy tables as a part of their work, such as those of deployments, maintenance and backups.
    type: list
    elements: str
    default: []
  recommended_settings:
    description:
      - Settings and the values that they should have. Units are understood (V(1GB), V(5min)), and V(>=) or V(<=) before a number.
      - None at all leaves the question out.
    type: dict
    default: {}
  newest_minor:
    description:
      - The newest minor release of each major version in use, as quoted text, such as C({'17'}) V('17.6').
      - Without it the running version is compared with the package that is installed on this host, and C(unknown) elsewhere.
    type: dict
    default: {}
  pgstattuple:
    description:
      - Measure the bloat of the largest tables and indexes with the extension C(pgstattuple) instead of estimating it. That reads them.
    type: bool
    default: false
  amcheck:
    description:
      - Let C(pg_amcheck) read every table and B-tree, which takes as long as reading them does. Needs the extension C(amcheck) and
        PostgreSQL 14 or newer.
    type: bool
    default: false
  amcheck_seconds:
    description: Longest time that C(pg_amcheck) may take for one database.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Review the local server as its monitoring role
  ops.maintenance.postgresql_review:
    servers:
      - name: main
        user: monitor
        os_user: monitor
        databases: [shop]
    newest_minor:
      '17': '17.6'

- name: Review a primary and its replica, with what the site recommends
  ops.maintenance.postgresql_review:
    servers:
      - name: primary
        host: db1.example.org
        user: monitor
        password_file: /etc/ops_maintenance/monitor.password
        ssl_mode: verify-full
      - name: replica
        host: db2.example.org
        user: monitor
        password_file: /etc/ops_maintenance/monitor.password
        ssl_mode: verify-full
    superusers: [postgres, dba]
    recommended_settings:
      shared_buffers: '>=1GB'
      log_min_duration_statement: 1s
      ssl: true
    limits:
      statement_mean_ms: 200
      unused_index_days: 60
"""

RETURN = r"""
servers:
  description: The longest lists of each database, at most ten entries each, twenty of slowest_statements.
  returned: success
  type: dict
  sample:
    main:
      databases:
        shop:
          statements_by_total_time:
            - {query_id: '-4563', query: SELECT total FROM orders WHERE id = $1, calls: 1200, mean_ms: 0.4, total_ms: 480.0, rows: 1200}
          statements_by_mean_time: []
          slowest_statements:
            - {query_id: '9127', query: SELECT * FROM orders WHERE note LIKE $1, calls: 40, mean_ms: 210.5, total_ms: 8420.0}
          tables_by_size:
            - {table: public.orders, schema: public, total_bytes: 10731520, main_bytes: 8192000, index_bytes: 2506752, live: 120000}
          index_usage:
            - {index: public.orders_pkey, table: public.orders, scans: 1200, rows_read: 1200, rows_fetched: 1200, bytes: 2506752}
maintenance_record:
  description: What was found, for the journal.
  returned: always
  type: dict
  sample:
    subject: databases
    operation: postgresql_review
    status: ok
    summary: 1 server(s) looked at, worst state warning, 1 of 44 findings need attention
    before: {}
    after: {}
    findings:
      - id: postgresql.dead_rows
        state: warning
        subject: main/shop
        summary: 'tables have many dead rows (1): public.orders: 31 percent dead (53921 rows), never vacuumed'
        value: 31.003
        unit: percent
        threshold: warning from 20 percent and 1000 rows
        basis: estimated
        as_of: '2026-11-14T02:10:05+00:00'
        not_covered: ''
        advice: VACUUM them; where dead rows come back, look for long transactions and lower autovacuum_vacuum_scale_factor for the table.
        evidence: ['public.orders: 31 percent dead (53921 rows), never vacuumed']
    metrics:
      - {name: postgresql.connections, subject: main, value: 12.0, unit: count}
    actions: []
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:11.481530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_review
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(postgresql_review.OPTIONS, postgresql_review.run, subject=postgresql_review.SUBJECT, operation=postgresql_review.OPERATION)


if __name__ == "__main__":
    main()
