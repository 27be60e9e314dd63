#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Write the report of a maintenance run
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Writes what a run did and found as a self-contained HTML page, as Markdown and as JSON, worst first.
  - Reads nothing but the journal, and the store for trends and for what is new or fixed, so any run can be reported at any time.
  - Works on the control node only, also when every host failed. A report changes no host, so check mode writes it as well.
options:
  run_id:
    description:
      - Id of the run. Without it, O(journal) and O(span_days), the run that is going on, else the newest one.
    type: str
    default: ''
  journal:
    description:
      - Path of a journal on the control node.
    type: path
  span_days:
    description:
      - Report on all runs of the last days, from the store. V(0) means one run.
    type: float
    default: 0.0
  folder:
    description:
      - Folder on the control node for the files, made when it is missing.
      - Without it, E(OPS_MAINTENANCE_REPORT_DIR), else C(~/.local/state/ops_maintenance/report).
    type: path
  formats:
    description:
      - What to write.
    type: list
    elements: str
    choices: [html, md, json]
    default: [html, md, json]
  store_url:
    description:
      - SQLAlchemy URL of the store; an empty text means none.
      - Without it, E(OPS_MAINTENANCE_STORE_URL), else the file C(store.sqlite) beside the journals.
    type: str
  name:
    description:
      - Name of the files without their ending. Without it, the id of the run. C(latest) is always written as well.
      - The report of a run in check mode is a preview; it is C(preview-) and the id of the run, and C(preview-latest) instead of C(latest).
    type: str
    default: ''
extends_documentation_fragment:
  - ops.maintenance.common.attributes
attributes:
  check_mode:
    support: full
    description: Writes the report as well, because a report is evidence and changes no host.
  diff_mode:
    support: none
    description: There is no state to compare.
seealso:
  - module: ops.maintenance.sign
"""

EXAMPLES = r"""
- name: Report | Write down the run that is going on
  ops.maintenance.report:
    folder: /srv/reports
  run_once: true

- name: Report | Sum up the last quarter as a page
  ops.maintenance.report:
    span_days: 92
    formats: [html]
    name: quarter
  delegate_to: localhost
"""

RETURN = r"""
run_id:
  description: The run that the report is about.
  returned: success
  type: str
  sample: weekly-20261121T020000Z-3fa9
verdict:
  description: The worst of all, V(ok), V(unknown), V(warning) or V(critical).
  returned: success
  type: str
  sample: warning
summary:
  description: The report in one sentence.
  returned: success
  type: str
  sample: 2 of 2 hosts were maintained to the end; 1 warning to look at.
status:
  description: What the maintenance log says, V(Success), V(Failed) or V(In progress).
  returned: success
  type: str
  sample: Success
counts:
  description: How many findings, changes since the run before, hosts, verdicts and actions there are of each kind.
  returned: success
  type: dict
  sample:
    findings: {critical: 0, warning: 1, unknown: 0, ok: 41, waived: 0}
    changes: {new: 1, worse: 0, better: 0, unchanged: 0, fixed: 2, gone: 0}
    hosts: {completed: 2}
    verdicts: {ok: 1, warning: 1}
    actions: {changed: 9}
paths:
  description: The files by format.
  returned: success
  type: dict
  sample: {html: /srv/reports/weekly-20261121T020000Z-3fa9.html}
maintenance_record:
  description: What the journal keeps.
  returned: always
  type: dict
  sample:
    subject: report
    operation: report
    status: ok
    summary: "report of weekly-20261121T020000Z-3fa9: warning, 2 of 2 hosts were maintained to the end; 1 warning to look at."
    before: {}
    after: {verdict: warning, critical: 0, warning: 1, unknown: 0, ok: 41, waived: 0}
    findings: []
    metrics: []
    actions: []
    started: "2026-11-21T04:01:10+00:00"
    finished: "2026-11-21T04:01:11+00:00"
"""
