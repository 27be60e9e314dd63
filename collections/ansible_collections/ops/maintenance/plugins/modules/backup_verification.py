#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verification
short_description: Prove that backups can be restored
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Lists each declared set of backups, finds the newest by time, and climbs a ladder with it; its level is the rung that it was proven to.
  - L0 present, fresh, plausible size. L1 its own structure check. L2 every byte read against a checksum. L3 restored into a throw-away folder.
    L4 opened and completely checked. L5 its content compared with the source, which measures how much would be lost (RPO) and how long the restore
    took (RTO).
  - A backup is read once for checksum, decompression, structure and restore together, in constant memory.
  - Names the days without a backup, what is too old or too few, and when the file system of the backups will be full. Nothing is deleted.
  - Keeps the proofs in C(backup_proofs.json) in O(state_dir), where M(ops.maintenance.preflight) reads them.
options:
  sets:
    type: list
    description:
      - Sets of backups to verify.
    elements: dict
    required: true
    suboptions:
      name:
        type: str
        description:
          - Name of the set, in findings and in the list of proofs.
        required: true
      kind:
        type: str
        description:
          - What the backups are. V(files) are archives (tar, plain or compressed) and single files, V(sqlite) database files, plain or compressed,
            V(postgresql) dumps of PostgreSQL databases in any format,
            V(pg_basebackup) folders of C(pg_basebackup), plain or tar; V(redis) RDB and append-only files; V(restic), V(borg), V(pgbackrest) and V(barman)
            repositories of these tools, which are called for it; V(command) a store that only the site's own command reaches.
        choices:
          - files
          - sqlite
          - postgresql
          - barman
          - borg
          - command
          - pg_basebackup
          - pgbackrest
          - redis
          - restic
        default: files
      root:
        type: path
        description:
          - Folder that holds the backups. Not a symbolic link. Needed unless a tool of the kind keeps them elsewhere.
        default: ''
      pattern:
        type: str
        description:
          - Names of the backups below the root. Without C(/) it is matched with the name, else with the path below the root; C({daily,weekly}) is
            either. In dated folders,
            the files that hold what O(sets[].kind) says.
        default: '*'
      layout:
        type: str
        description:
          - V(files) when each matching file is a backup, V(folders) when each folder whose name or path matches is one,
            V(dated_folders) when each folder below the root whose name is a date is one.
        choices:
          - files
          - folders
          - dated_folders
        default: files
      date_format:
        type: str
        description:
          - How the date is written in the names, with C(%Y %y %m %d %j %H %M %S). Without it, the time stamp of the file counts.
        default: ''
      maximum_age_hours:
        type: float
        description:
          - Age from which the newest backup is too old, in hours.
        default: 26.0
      expected:
        type: dict
        description:
          - How often a backup is made.
        suboptions:
          every:
            type: str
            description:
              - One an hour, a day or a week.
            choices:
              - hourly
              - daily
              - weekly
            required: true
          days:
            type: int
            description:
              - Number of past days that are looked at.
            default: 7
          keep_count:
            type: int
            description:
              - Number of backups that must be kept at least.
            default: 0
      level:
        type: int
        description:
          - Level of the ladder to climb to, from V(0) (listed) to V(5) (restored, opened and its content compared).
        choices:
          - 0
          - 1
          - 2
          - 3
          - 4
          - 5
        default: 4
      manifest:
        type: str
        description:
          - Name of a file in the format of C(sha256sum) beside the backup or in the dated folder; C({name}) stands for the backup's name.
        default: ''
      required_tables:
        type: list
        description:
          - Tables that the database must have.
        elements: str
        default: []
      required_files:
        type: list
        description:
          - Names or patterns of files that an archive must hold.
        elements: str
        default: []
      application_id:
        type: int
        description:
          - Value of C(PRAGMA application_id) that the database must have. V(0) means any.
        default: 0
      count_tables:
        type: list
        description:
          - Tables whose rows are counted and compared with O(sets[].source).
        elements: str
        default: []
      count_change_percent:
        type: float
        description:
          - Difference of a row count from the source that is still usual, in percent.
        default: 20.0
      sentinel:
        type: dict
        description:
          - Row that tells how new the content is.
        suboptions:
          table:
            type: str
            description:
              - Table of the row.
            required: true
          column:
            type: str
            description:
              - Column with the time, or a growing number.
            required: true
          order:
            type: str
            description:
              - Column that decides which row is the newest. Empty means O(sets[].sentinel.column).
            default: ''
      source:
        type: path
        description:
          - Live database, or folder, that the backup was made of. It is only read.
        default: ''
      maximum_rpo_hours:
        type: float
        description:
          - Objective for how far the content may be behind the source, in hours. V(0) means none.
          - The content itself fails beyond the longer of this and O(sets[].maximum_age_hours), for a missed objective makes no backup unsound.
        default: 0.0
      retention:
        type: dict
        description:
          - How long backups are kept. Nothing is deleted; what is too old is listed.
        suboptions:
          maximum_age_days:
            type: float
            description:
              - Age from which a backup is too old, in days.
            required: true
          minimum_count:
            type: int
            description:
              - Number of newest backups that are never too old.
            default: 3
      minimum_size_bytes:
        type: int
        description:
          - Size below which a backup cannot be one, in bytes.
        default: 1
      size_change_percent:
        type: float
        description:
          - Change against the usual size that is a warning, in percent.
        default: 50.0
      emergency:
        type: bool
        description:
          - Run O(emergency_command) when the newest backup is missing, empty or too old.
        default: false
      every_level:
        type: int
        description:
          - Level that every older backup of the set is read to as well, V(1) its structure, V(2) every byte. V(0) looks at the newest alone.
        choices:
          - 0
          - 1
          - 2
        default: 0
      maximum_rto_minutes:
        type: float
        description:
          - Recovery time objective in minutes, which the measured restore is compared with. V(0) means none.
        default: 0.0
      minimum_history_days:
        type: float
        description:
          - How long after it happened damage must still be recoverable, in days; compared with the retention. V(0) means none.
        default: 0.0
      encrypted:
        type: bool
        description:
          - The backups must be encrypted, which is told by their first bytes (age, OpenPGP, openssl enc, LUKS) or by their repository.
        default: false
      decrypt_command:
        type: list
        description:
          - Argument list of the command that decrypts from its input to its output. A key file or an agent, never a secret among the arguments.
        elements: str
        default: []
      recovery_key:
        type: dict
        description:
          - How the key of encrypted backups is had when this host is lost. It is fetched for each reading, decryption sees this key and none of this
            host, and nothing of it stays. Without it, a restore test of encrypted backups says that this is not known.
        suboptions:
          command:
            type: list
            description:
              - Argument list of the program that prints the key, from where it is kept apart from this host. C({key}) in
                decrypt_command stands for the file that it is in.
            elements: str
            required: true
          os_user:
            type: str
            description:
              - User to run it as.
            default: ''
          environment_file:
            type: path
            description:
              - File with its variables, mode 0600.
            default: ''
          timeout_seconds:
            type: float
            description:
              - Longest wait for the key.
            default: 60.0
      database:
        type: str
        description:
          - For PostgreSQL, the name of the database in the source. A V(postgresql) archive of another one is refused.
        default: ''
      source_server:
        type: str
        description:
          - For PostgreSQL, the name of the server in O(servers) that the content is compared with; it is only read.
        default: ''
      restore_into:
        type: str
        description:
          - For kind V(postgresql), the name of the server in O(servers) to restore into, under a generated name that is dropped afterwards. Empty
            means a throw-away cluster in O(scratch).
        default: ''
      restore_database:
        type: str
        description:
          - A fixed name for the database that is restored, allowed only where no such database exists and O(sets[].restore_into) is proven to be
            another server than O(sets[].source_server), by system identifier.
        default: ''
      restore_jobs:
        type: int
        description:
          - Number of parallel jobs of C(pg_restore).
        default: 2
      minimum_rows:
        type: dict
        description:
          - Least number of rows by table that a restored database must have; of V(redis), C(keys) is the number of its keys.
        default: {}
      repository:
        type: dict
        description:
          - What the kinds V(borg), V(restic), V(pgbackrest) and V(barman) have to know of their repository. Secrets are given as files.
        suboptions:
          location:
            type: str
            description:
              - Address of the repository where it is no folder of this host, as its tool writes it. Empty means O(sets[].root). A secret
                in it stays out of records.
            default: ''
          id:
            type: str
            description:
              - Id that the repository must have (the beginning of it); of physical backups of PostgreSQL, the system identifier of the
                cluster.
            default: ''
          member:
            type: str
            description:
              - Stanza of pgBackRest, or server of Barman.
            default: ''
          configuration:
            type: path
            description:
              - Configuration file of pgBackRest or Barman. Empty means the one of the system.
            default: ''
          password_file:
            type: path
            description:
              - File with the password of restic or Borg, mode 0600.
            default: ''
          environment_file:
            type: path
            description:
              - File with C(NAME=value) lines that the tool gets as its environment, such as keys of a store, mode 0600.
            default: ''
          os_user:
            type: str
            description:
              - User that the tool runs as. Empty means V(postgres) for pgBackRest, V(barman) for Barman, else the one who runs the
                module.
            default: ''
          host:
            type: str
            description:
              - Only backups of this host count (restic, Borg).
            default: ''
          paths:
            type: list
            description:
              - Only snapshots that hold all of these paths count (restic).
            elements: str
            default: []
          read_data_percent:
            type: float
            description:
              - How much of the data restic reads at level 2. Less than 100 is said as sampled.
            default: 100.0
          restore_paths:
            type: list
            description:
              - What is restored at level 3 (restic, Borg). Empty means everything; a part is said as sampled.
            elements: str
            default: []
          timeout_seconds:
            type: float
            description:
              - Time limit of all that the tool does for one set, in seconds.
            default: 14400.0
      content:
        type: dict
        description:
          - Files in a restored tree of restic or Borg that are proven by their own kind at levels 4 and 5.
        suboptions:
          kind:
            type: str
            description:
              - What the files are.
            choices:
              - files
              - postgresql
              - redis
              - sqlite
            required: true
          pattern:
            type: str
            description:
              - Names of the files, as in O(sets[].pattern).
            default: '*'
      command:
        type: dict
        description:
          - For kind V(command), how the site reaches a store such as one in a cloud.
        suboptions:
          list:
            type: list
            description:
              - Argument list of the command that prints one line for each backup, with its size in bytes, its time (ISO 8601) and its
                name; or a JSON list of objects with C(size), C(time) and C(name).
            elements: str
            required: true
          fetch:
            type: list
            description:
              - Argument list of the command that writes one backup into a file. C({name}) stands for its name, C({target}) for the file;
                both are needed.
            elements: str
            required: true
          kind:
            type: str
            description:
              - What is fetched.
            choices:
              - files
              - postgresql
              - redis
              - sqlite
            default: files
          os_user:
            type: str
            description:
              - User that both commands run as. Empty means the one who runs the module.
            default: ''
          environment_file:
            type: path
            description:
              - File with C(NAME=value) lines that both commands get as their environment, mode 0600.
            default: ''
          maximum_bytes:
            type: int
            description:
              - Largest size that may be fetched, in bytes. Needed.
            default: 0
          timeout_seconds:
            type: float
            description:
              - Time limit of both commands, in seconds.
            default: 14400.0
  applications:
    type: list
    description:
      - Whole applications to restore into a throw-away place, each from the newest backups of the sets that hold it, and to start there.
    elements: dict
    suboptions:
      name:
        type: str
        description:
          - Name of the application, in findings.
        required: true
      database:
        type: str
        description:
          - Set of kind V(postgresql) with its database. It is restored into a throw-away cluster of its own.
        default: ''
      files:
        type: list
        description:
          - Sets of kind V(files) or V(sqlite) with its files and configuration.
        elements: dict
        default: []
        suboptions:
          set:
            type: str
            description:
              - Name of the set.
            required: true
          path:
            type: path
            description:
              - Where these files lie on the host. The application sees the restored ones there; the live ones are out of its reach.
            required: true
          inside:
            type: str
            description:
              - Folder in the archive that is that path. Empty means the whole archive.
            default: ''
      manifest:
        type: path
        description:
          - File of checksums, as C(sha256sum) writes it, among the restored files, that they are compared with. Its path is that on the host.
        default: ''
      references:
        type: list
        description:
          - What rows of the database say of files, each of which has to be among the restored ones.
        elements: dict
        default: []
        suboptions:
          query:
            type: str
            description:
              - Query whose first column names the files.
            required: true
          below:
            type: path
            description:
              - Folder, by its path on the host, that the names are relative to.
            required: true
      maximum_gap_minutes:
        type: float
        description:
          - How far apart the backups of its parts may be made, in minutes.
        default: 60.0
      maximum_rto_minutes:
        type: float
        description:
          - Objective for the time until the restored application works, in minutes. 0 only measures.
        default: 0.0
      maximum_rpo_hours:
        type: float
        description:
          - Objective for how much is lost, by the oldest of its parts, in hours. 0 only measures.
        default: 0.0
      start:
        type: dict
        description:
          - How the restored application is started, in a unit of systemd with a network, sockets and temporary files of its own, so that it can
            neither reach a partner nor the live data. Without it, whether the application works stays unknown.
        suboptions:
          argv:
            type: list
            description:
              - Full path of the program and its arguments. Without O(applications[].start.url) it is a check that has to end with 0.
            elements: str
            required: true
          user:
            type: str
            description:
              - User of the host that it runs as.
            default: nobody
          chdir:
            type: path
            description:
              - Folder that it starts in.
            default: ''
          environment:
            type: dict
            description:
              - Further variables of its environment. C(PGHOST), C(PGPORT), C(PGDATABASE) and C(PGUSER) lead to the restored database,
                which listens on the usual socket in C(/run/postgresql) only.
            default: {}
          url:
            type: str
            description:
              - Address on C(127.0.0.1), in its own network, that tells whether it works.
            default: ''
          expect_status:
            type: list
            description:
              - Statuses of HTTP that are right.
            elements: int
            default: [200]
          expect_text:
            type: str
            description:
              - Text that the answer has to hold.
            default: ''
          timeout_seconds:
            type: float
            description:
              - Longest time until it has to work, in seconds.
            default: 60.0
          database_user:
            type: str
            description:
              - Role that it logs in as.
            default: postgres
    default: []
  scratch:
    type: path
    description:
      - Private folder for restore drills, with room for the largest backup. Nothing stays in it.
    default: /var/lib/ops_maintenance/scratch
  kinds:
    type: list
    description:
      - Kinds of backups that are verified in this run. None means all; the proofs of the others stay as they are.
    elements: str
    default: []
  level:
    type: int
    description:
      - Level that every set is verified to in this run, instead of its own. V(-1) means its own.
    choices:
      - -1
      - 0
      - 1
      - 2
      - 3
      - 4
      - 5
    default: -1
  maximum_level:
    type: int
    description:
      - Level that no set is verified beyond in this run.
    choices:
      - 0
      - 1
      - 2
      - 3
      - 4
      - 5
    default: 5
  timezone:
    type: str
    description:
      - Time zone of dates in names and of days. Empty means the host's own.
    default: ''
  emergency_command:
    type: list
    description:
      - Argument list of the command that makes a backup now.
    elements: str
    default: []
  emergency_timeout_seconds:
    type: float
    description:
      - Time limit of that command, in seconds.
    default: 1800.0
  capacity_warning_percent:
    type: float
    description:
      - Use of the backups' file system that is a warning, in percent.
    default: 85.0
  capacity_critical_percent:
    type: float
    description:
      - Use of the backups' file system that is critical, in percent.
    default: 95.0
  capacity_warning_days:
    type: float
    description:
      - Forecast until the file system is full that is a warning, in days.
    default: 14.0
  settle_seconds:
    type: float
    description:
      - How long a backup written just now is watched for growth, in seconds.
    default: 2.0
extends_documentation_fragment:
  - ops.maintenance.postgresql.optional
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Prove the daily database backups up to their content
  ops.maintenance.backup_verification:
    sets:
      - name: daily database
        kind: sqlite
        root: /backups/daily
        layout: dated_folders
        date_format: "%Y%m%d"
        pattern: "*.db"
        level: 5
        expected: { every: daily, keep_count: 7 }
        required_tables: [orders]
        count_tables: [orders]
        sentinel: { table: orders, column: updated_at }
        source: /srv/app/app.db
        retention: { maximum_age_days: 30, minimum_count: 7 }

- name: Restore drill of the newest dump, compared with the server that it was made of
  ops.maintenance.backup_verification:
    servers:
      - name: main
        user: ops_monitor
        databases: [shop]
    sets:
      - name: shop
        kind: postgresql
        root: /backups
        pattern: "{daily,weekly}/*.dump"
        level: 5
        database: shop
        source_server: main
        count_tables: [orders, customers]
        minimum_rows: { orders: 1000 }
        sentinel: { table: orders, column: updated_at }
        expected: { every: daily }
        maximum_rto_minutes: 120
        maximum_rpo_hours: 24

- name: Read the archives of uploads against their checksums
  ops.maintenance.backup_verification:
    sets:
      - name: uploads
        root: /backups/uploads
        pattern: "*.tar.gz"
        level: 2
        manifest: "{name}.sha256"

- name: Restore a whole application, look at its parts together and start it on them
  ops.maintenance.backup_verification:
    sets:
      - { name: shop, kind: postgresql, root: /backups/database, pattern: "*.dump", database: shop }
      - { name: uploads, root: /backups/files, pattern: "*.tar.gz" }
    applications:
      - name: shop
        database: shop
        files:
          - { set: uploads, path: /srv/shop }
        references:
          - { query: SELECT path FROM uploads, below: /srv/shop/uploads }
        start:
          argv: [/srv/shop/bin/serve, --port, "8080"]
          user: shop
          url: http://127.0.0.1:8080/health
        maximum_rto_minutes: 120
        maximum_rpo_hours: 24

- name: Prove the repositories that hold the physical backups and the files
  ops.maintenance.backup_verification:
    sets:
      - name: cluster
        kind: pgbackrest
        repository: { member: main }
        encrypted: true
        level: 5
        database: orders
        count_tables: [orders]
        sentinel: { table: orders, column: updated_at }
      - name: files
        kind: restic
        root: /srv/restic
        repository: { password_file: /etc/restic/password, host: web1, read_data_percent: 10 }
        required_files: [.env]
        level: 5
"""

RETURN = r"""
proofs:
  description: By set, what is proven of its newest backup; the same as in C(backup_proofs.json).
  returned: always
  type: dict
  sample:
    daily database:
      path: /backups/daily/20261121
      kind: sqlite
      time: '2026-11-21T01:04:11+00:00'
      age_seconds: 3349
      is_fresh: true
      bytes: 40960
      level: 5
      demanded: 5
      levels: {'0': '2026-11-21T02:00:00+00:00', '5': '2026-11-21T02:00:00+00:00'}
      checksum_basis: first seen
      sha256: {/backups/daily/20261121/app.db: 20286e7d726a35a0a1a6353860cebde865542e78a42f6b8c2518c145961b2504}
      files: 5b1d3bb3a2f1c1cf0f4d9b6f0e4e7f0a5c3b0a4f7a3c2d1e0f9e8d7c6b5a4930
      deeper: []
      source: /srv/app/app.db
      rpo_seconds: 600.0
      rto_seconds: 0.41
      verified: '2026-11-21T02:00:00+00:00'
      run_id: weekly-20261121T020000Z-3fa9
maintenance_record:
  description: What was found, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: backups
    operation: backup_verification
    status: ok
    summary: '1 sets, proven: daily database L5'
    before: {}
    after: {levels: {daily database: 5}}
    findings:
      - id: backup.integrity
        state: ok
        subject: /backups/daily/20261121
        summary: 'L4: integrity_check is ok'
        value: null
        unit: ''
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: [integrity_check is ok]
    metrics: [{name: backup.rto_seconds, subject: daily database, value: 0.41, unit: seconds}]
    actions: []
"""

from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(backup_verification.OPTIONS, backup_verification.run, subject="backups", operation="backup_verification")


if __name__ == "__main__":
    main()
