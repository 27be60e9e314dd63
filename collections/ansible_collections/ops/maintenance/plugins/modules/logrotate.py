#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: logrotate
short_description: Check the configuration of logrotate, write what is declared of it, and check that it runs
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Has logrotate read its whole configuration without doing anything, and reports unknown directives, logs that are named twice, folders that need
    C(su) and everything else it complains of. Its exit status alone would not tell.
  - >-
    Reads the whole configuration itself as well, with all that it includes, and holds it against the files it is meant for: files that logrotate
    ignores for their mode or owner, paths in two entries, patterns that match nothing, logs in no rule, folders that need C(su), dangers of
    C(copytruncate), services that write to rotated files, logs that grow despite their rule or were rotated too long ago.
  - Writes the files declared in O(files), and none that somebody else wrote.
  - Tells from the state file when it last ran.
  - With O(self_test) the lint first has to find planted faults; what it misses makes its findings V(unknown).
  - Rotates what is due only with O(run_when_due), with the whole configuration and never by force; the state file must show it afterwards.
options:
  config:
    description:
      - Main configuration file.
    type: path
    default: /etc/logrotate.conf
  state_file:
    description:
      - State file of logrotate.
    type: path
    default: /var/lib/logrotate/status
  maximum_age_hours:
    description:
      - Hours since the last run that are a warning.
    type: float
    default: 48.0
  expected:
    description:
      - Whether this system uses logrotate. Where it does and logrotate is missing, the finding is V(unknown).
    type: bool
    default: true
  run_when_due:
    description:
      - Run logrotate when it says that a log is due.
    type: bool
    default: false
  timeout_seconds:
    description:
      - Time limit of each run, in seconds.
    type: float
    default: 900.0
  log_roots:
    description:
      - Folders of logs to look through for files that no rule covers. Symbolic links are not followed.
    type: list
    elements: path
    default: []
  ignore:
    description:
      - Patterns of whole paths below O(log_roots) that need no rule.
    type: list
    elements: str
    default: []
  growth_limit_mb:
    description:
      - Size in MiB from which any log that logrotate handles has grown too large.
    type: float
    default: 1024.0
  files:
    description:
      - Configuration files to keep in O(folder). Each is tried with the whole configuration before it takes effect; where logrotate complains of
        it, nothing is changed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the file. Letters, digits, C(-) and C(_) only, for logrotate leaves others out.
        type: str
        required: true
      paths:
        description:
          - Absolute paths or patterns of the logs. A path that another file claims is refused.
        type: list
        elements: str
        required: true
      take_over:
        description:
          - Replace a file of that name that somebody else wrote. One of a package is refused all the same.
        type: bool
        default: false
      frequency:
        description:
          - How often to rotate.
        type: str
        default: daily
        choices: [hourly, daily, weekly, monthly, yearly]
      rotate:
        description:
          - How many rotated files are kept.
        type: int
        default: 7
      compress:
        description:
          - Compress what was rotated.
        type: bool
        default: true
      delaycompress:
        description:
          - Compress only at the next rotation, for services that write on for a moment.
        type: bool
        default: true
      dateext:
        description:
          - Name rotated files by date, not by number.
        type: bool
        default: false
      missingok:
        description:
          - Whether a log may be missing.
        type: bool
        default: true
      notifempty:
        description:
          - Leave empty logs alone.
        type: bool
        default: true
      copytruncate:
        description:
          - Copy and truncate, for services that cannot reopen their log. Lines written in between are lost.
        type: bool
        default: false
      create_mode:
        description:
          - Mode of the new log, such as V(0640); with owner and group.
        type: str
      create_owner:
        description:
          - Owner of the new log.
        type: str
      create_group:
        description:
          - Group of the new log.
        type: str
      su_user:
        description:
          - User who rotates, where others may write the folder of the log.
        type: str
      su_group:
        description:
          - Group who rotates, where others may write the folder of the log.
        type: str
      maxsize:
        description:
          - Rotate earlier when the log is larger, such as V(100M).
        type: str
      minsize:
        description:
          - Rotate only when the log is larger.
        type: str
      postrotate_units:
        description:
          - Units that reopen their log afterwards. One that does not run is left alone.
        type: list
        elements: str
        default: []
      postrotate_action:
        description:
          - >-
            What makes them do so: V(reload), or a signal to their main process.
        type: str
        default: reload
        choices: [reload, HUP, USR1, USR2]
  folder:
    description:
      - Folder of the configuration files. O(config) has to include it.
    type: path
    default: /etc/logrotate.d
  remove_undeclared:
    description:
      - Remove files that this module wrote before and that are not in O(files) any more.
    type: bool
    default: false
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Check the configuration and the last run
  ops.maintenance.logrotate:

- name: Keep the rotation of an application, and look for logs that nothing rotates
  ops.maintenance.logrotate:
    files:
      - name: shop
        paths: [/var/log/shop/*.log]
        rotate: 14
        create_mode: "0640"
        create_owner: shop
        create_group: adm
        postrotate_units: [shop.service]
    log_roots: [/var/log]

- name: Rotate what is due
  ops.maintenance.logrotate:
    run_when_due: true
"""

RETURN = r"""
due:
  description: Logs that logrotate says are due.
  returned: always
  type: list
  elements: str
  sample: [/var/log/app/app.log]
maintenance_record:
  description: What was found and done, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: /etc/logrotate.conf
    operation: logrotate
    status: ok
    summary: 9 entries, 0 logs due, 0 errors in the configuration
    before: {}
    after: {}
    findings:
      - id: logrotate.configuration
        state: ok
        subject: /etc/logrotate.conf
        summary: 0 errors in the configuration of 9 entries.
        value: 0
        unit: count
        threshold: warning from 1 count
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: [{name: logrotate.errors, subject: /etc/logrotate.conf, value: 0, unit: count}]
    actions: []
"""

from ansible_collections.ops.maintenance.plugins.module_utils import logrotate
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(logrotate.OPTIONS, logrotate.run, subject="logrotate", operation="logrotate")


if __name__ == "__main__":
    main()
