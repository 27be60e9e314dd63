#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_rotation
short_description: Remove backups that a policy no longer keeps, once a newer one is proven
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Keeps the newest backup of each of the last days, weeks and months, a minimum of copies whatever their age, and everything that is too young.
  - Removes the others only while M(ops.maintenance.backup_verification) has proven a newer one of the set to the demanded level, and what was proven
    is unchanged. The newest proven one, half-written ones and those of maintenance runs are never removed.
  - Promotes the proven backup of each month to a monthly copy before the daily ones of that month go.
  - Archives before it removes, where asked. An archive is written under a temporary name, read back and compared, gets its checksum beside it, and is
    never written over.
options:
  rules:
    description: What to rotate.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the rule in findings.
        type: str
        required: true
      set:
        description: Name of the set of M(ops.maintenance.backup_verification) whose proof allows removals.
        type: str
        required: true
      root:
        description: Folder that holds the backups. Nothing outside of it is removed.
        type: path
        required: true
      pattern:
        description: Names of the backups below the root; without C(/) it is matched with the name, else with the path below the root.
        type: str
        required: true
      layout:
        description: What a backup is; V(files), each matching file; V(folders), each matching folder; V(dated_folders), each folder named by a date.
        type: str
        choices: [files, folders, dated_folders]
        default: files
      date_format:
        description: How the date is written in the names. Without it, the time stamp of the file counts.
        type: str
        default: ''
      manifest:
        description: Name of the checksum file beside a backup, removed with it; C({name}) stands for the backup's name.
        type: str
        default: ''
      keep_daily:
        description: Of how many days the newest backup is kept.
        type: int
        default: 30
      keep_weekly:
        description: Of how many weeks the newest backup is kept.
        type: int
        default: 0
      keep_monthly:
        description: Of how many months the newest backup is kept.
        type: int
        default: 0
      minimum_age_days:
        description: Age below which nothing is removed, in days.
        type: float
        default: 1.0
      minimum_copies:
        description: Number of newest backups that always stay.
        type: int
        default: 3
      demanded_level:
        description: Level to which a newer backup of the set must be proven.
        type: int
        choices: [1, 2, 3, 4, 5]
        default: 2
      maximum_proof_age_hours:
        description: Age from which a proof no longer counts, in hours.
        type: float
        default: 26.0
      monthly_to:
        description:
          - Folder, outside of the root, for the proven copy of each month. Empty makes none.
          - A copy has the month before its name, as V(202611-20261121.dump); the rule and the set that look at the copies need a pattern for that.
        type: path
        default: ''
      archive_to:
        description: Folder, outside of the root and best on other storage, for archives of what is removed. Empty archives nothing.
        type: path
        default: ''
      archive_name:
        description: Name of the archive of a month, with C(%Y) and C(%m).
        type: str
        default: monthly_backup_%Y%m.tar.gz
  timezone:
    description: Time zone of dates in names and of days. Empty means the host's own.
    type: str
    default: ''
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Keep daily dumps for 30 days and a proven copy of each of 12 months
  ops.maintenance.backup_rotation:
    rules:
      - name: daily dumps
        set: shop
        root: /backups/daily
        pattern: "*.dump"
        date_format: "%Y%m%d"
        keep_daily: 30
        monthly_to: /backups/monthly
      - name: monthly copies
        set: shop
        root: /backups/monthly
        pattern: "[0-9]*-*.dump"
        keep_daily: 0
        keep_monthly: 12

- name: Archive dumps older than 30 days by month, then remove them
  ops.maintenance.backup_rotation:
    rules:
      - name: dumps
        set: logistics
        root: /backups
        pattern: "*.sql.gz"
        keep_daily: 30
        archive_to: /archive
        archive_name: monthly_backup_%Y%m.tar.gz
"""

RETURN = r"""
maintenance_record:
  description: What was found and done, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: backups
    operation: backup_rotation
    status: changed
    summary: 1 rules, 1 backups removed
    before: {}
    after: {}
    findings:
      - id: backup.rotation
        state: ok
        subject: daily dumps
        summary: '30 backups stay, 1 were removed (12.0 MiB)'
        value: 1
        unit: count
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: ['removed: /backups/daily/20261021.dump']
    metrics: [{name: backup.rotated_bytes, subject: daily dumps, value: 12582912, unit: bytes}]
    actions:
      - subject: /backups/daily/20261021.dump
        operation: remove_backup
        status: changed
        summary: of 2026-10-21, 12.0 MiB
        before: {}
        after: {}
"""

from ansible_collections.ops.maintenance.plugins.module_utils import backup_rotation
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(backup_rotation.OPTIONS, backup_rotation.run, subject="backups", operation="backup_rotation")


if __name__ == "__main__":
    main()
