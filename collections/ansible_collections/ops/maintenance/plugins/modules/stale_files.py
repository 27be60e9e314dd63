#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: stale_files
version_added: 0.1.0
short_description: Remove temporary files and uploads of a declared age
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Removes regular files below a declared root that match a pattern and are old enough, to the second. Symbolic links are neither
    followed nor removed, other file systems are not entered, and a folder of the system itself is refused as a root.
  - A file stays that a process has open, or that a row of a database names where the rule declares O(rules[].referenced_by). Where that
    cannot be asked, nothing of the rule is removed and the finding is C(unknown).
  - The names of what was removed are kept in O(state_dir), in C(stale_files_last.json).
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql
options:
  rules:
    description:
      - What may go. None at all is reported as C(unknown).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the rule is called in findings; the patterns when empty.
        type: str
        default: ''
      root:
        description: Absolute path of the folder; a symbolic link is refused.
        type: path
        required: true
      patterns:
        description: Shell patterns of file names, or of paths below the root where they have a slash. Nothing else is removed.
        type: list
        elements: str
        required: true
      exclude:
        description: Patterns of what stays although it matches.
        type: list
        elements: str
        default: []
      age_days:
        description: Files older than this are due.
        type: float
        required: true
      minimum_age_days:
        description: The lower bound for O(rules[].age_days), so that a slip does not remove what is in use.
        type: float
        default: 1.0
      age_by:
        description:
          - V(modified) counts from the last change of the content. V(changed) counts from that or from the last change of owner, mode or
            name, whichever is later, for files that bring an old time with them.
        type: str
        choices: [modified, changed]
        default: modified
      remove_empty_folders:
        description: Remove folders below the root that are old enough and empty afterwards.
        type: bool
        default: false
      referenced_by:
        description: Columns of databases that name files; a file that a row names stays.
        type: list
        elements: dict
        default: []
        suboptions:
          server:
            description: Name of one of O(servers).
            type: str
            required: true
          database:
            description: Name of the database.
            type: str
            required: true
          schema:
            description: Schema of the table.
            type: str
            default: public
          table:
            description: Name of the table. Letter case counts.
            type: str
            required: true
          column:
            description: The column that holds a file name, a path or a URL.
            type: str
            required: true
          match:
            description:
              - V(name) compares the last part of the value with the file's name. V(contains) looks for the name anywhere in the value,
                as JSON and free text need; it reads the table for every file.
            type: str
            choices: [name, contains]
            default: name
          may_be_empty:
            description: Believe a column that names no file at all. Otherwise that is taken for a fault, and nothing is removed.
            type: bool
            default: false
notes:
  - Give V([]) as O(servers) where no rule asks a database.
"""

EXAMPLES = r"""
- name: Say which temporary uploads are older than 30 days; check mode changes nothing
  ops.maintenance.stale_files:
    servers:
      - name: main
    rules:
      - root: /srv/purchase/uploads/tmp
        patterns: ['*']
        age_days: 30
        referenced_by:
          - server: main
            database: purchase
            table: po_attachments
            column: stored_path
  check_mode: true

- name: Remove old exports and the folders that they leave empty
  ops.maintenance.stale_files:
    servers: []
    rules:
      - root: /srv/app/exports
        patterns: ['*.csv', '*.xlsx']
        exclude: ['template*']
        age_days: 30
        remove_empty_folders: true
"""

RETURN = r"""
due:
  description: Whether anything was removed, or in check mode is due.
  returned: success
  type: bool
  sample: true
files:
  description: Number of files removed, or due.
  returned: success
  type: int
  sample: 42
bytes:
  description: Their size.
  returned: success
  type: int
  sample: 73400320
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: stale files
    operation: stale_files
    status: changed
    summary: 1 rule(s), worst state ok, 42 file(s) of 70.0 MiB removed
    before: {}
    after: {}
    findings:
      - id: stale_files.files
        state: ok
        subject: /srv/purchase/uploads/tmp (*)
        summary: 42 of 45 old files removed (70.0 MiB), 0 empty folders removed
        value: 42
        unit: count
        threshold: older than 30 days, by the time it was last modified
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: [a1b2.part]
    metrics:
      - {name: stale_files.removed_files, subject: /srv/purchase/uploads/tmp (*), value: 42, unit: count}
    actions:
      - subject: /srv/purchase/uploads/tmp (*)
        operation: remove_files
        status: changed
        summary: 42 files of 70.0 MiB older than 30 days
        before: {files: 42, bytes: 73400320, folders: 0}
        after: {files: 0, bytes: 0, folders: 0}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:14.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import stale_files
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(stale_files.OPTIONS, stale_files.run, subject="stale files", operation="stale_files")


if __name__ == "__main__":
    main()
