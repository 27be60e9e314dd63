#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: log_retention
short_description: Compress, archive and delete logs without losing a line
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Applies rules to the logs below declared roots. The age is that of the last record in the file; where it tells none, the date in its name;
    else the time of its last change, and then the finding says C(estimated).
  - A file is compressed to a hidden name beside it, flushed, read back and compared, given its final name, and only then is the old one removed,
    while the kernel keeps writers out. Killed at any instant, no line is lost, and the next run leaves none double.
  - Never overwrites. A name that is taken by other content gets a number, and a finding.
  - Files that a process has open for writing, that grow, or that are damaged are left alone and named, with the process. Symbolic links are never followed.
  - Below the archive, files lie in a folder of the month of their last record, with the path that they had below the root.
  - The names of all files that were treated are kept in C(log_retention_last.json) in O(state_dir).
options:
  rules:
    description:
      - What is kept how long. All rules are checked before the first is applied.
    type: list
    elements: dict
    required: true
    suboptions:
      root:
        description:
          - Folder that holds the logs. Not a symbolic link.
        type: path
        required: true
      pattern:
        description:
          - Names of the files without their compression suffix, such as V(*.jsonl). A bare V(*) is refused.
        type: list
        elements: str
        required: true
      compress_after_days:
        description:
          - Compress files whose last record is older.
        type: float
      archive_to:
        description:
          - Folder of the archive; made when needed.
        type: path
      archive_after_days:
        description:
          - Move compressed files to the archive when their last record is older.
        type: float
      delete_after_days:
        description:
          - Delete files, wherever they lie, when their last record is older.
        type: float
      hold:
        description:
          - Paths below the root, or patterns of them, that stay as they are whatever their age, such as those under an audit or legal hold.
          - In the archive they stay too, under the path that they had below the root.
        type: list
        elements: str
        default: []
      compression:
        description:
          - How to compress.
        type: str
        default: gz
        choices: [gz, xz]
      timezone:
        description:
          - Time zone of time stamps that do not say theirs.
        type: str
        default: UTC
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Keep a week plain, a month at hand, a quarter in the archive
  ops.maintenance.log_retention:
    rules:
      - root: /logs
        pattern: ["*.jsonl"]
        compress_after_days: 7
        archive_to: /archives/logs
        archive_after_days: 30
        delete_after_days: 90

- name: See what would be deleted
  ops.maintenance.log_retention:
    rules:
      - root: /var/log/app
        pattern: ["*.log"]
        delete_after_days: 30
  check_mode: true
"""

RETURN = r"""
maintenance_record:
  description: What was found and done, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: /logs
    operation: log_retention
    status: changed
    summary: 1 compressed, 0 moved to the archive, 0 deleted; 120.0 KiB reclaimed
    before: {/logs: {used_bytes: 163840, free_bytes: 8589934592}}
    after: {/logs: {used_bytes: 40960, free_bytes: 8590057472}}
    findings:
      - id: logs.held
        state: ok
        subject: /logs
        summary: 0 files are due but were left alone.
        value: 0
        unit: count
        threshold: ''
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: [{name: logs.compressed, subject: /logs, value: 1, unit: count}]
    actions:
      - subject: /logs
        operation: compress
        status: changed
        summary: 1 files (131.0 KiB) compressed
        before: {files: 1, bytes: 134144, names: [/logs/errors/errors-20261110.jsonl]}
        after: {bytes: 11264}
"""

from ansible_collections.ops.maintenance.plugins.module_utils import log_retention
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(log_retention.OPTIONS, log_retention.run, subject="log files", operation="log_retention")


if __name__ == "__main__":
    main()
