#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: evidence_bundle
short_description: Pack the evidence of a maintenance run into one archive, or prove such an archive
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Writes C(evidence-<run id>.tar.gz) with the journal, the report as HTML, Markdown and JSON, the waivers in force on the day of the
    run, a manifest with size and SHA-256 of each file, and the same sums for C(sha256sum -c).
  - The same run makes the same bytes, so packing again changes nothing. It does, when somebody signed a duty meanwhile or the run
    had not ended.
  - Only its owner can read the archive. It holds nothing but what the journal holds, which has no secrets.
  - With O(verify) it proves an archive instead, by itself, by the journal of its run where that is on the control node, and by the store.
    Reports in an archive are proven by their sums alone; make them anew from the journal where somebody may have made new sums.
options:
  run_id:
    description:
      - Id of the run. Without it, the run that is going on, else the newest one.
    type: str
    default: ''
  folder:
    description:
      - Folder on the control node, made when it is missing.
      - Without it, E(OPS_MAINTENANCE_REPORT_DIR), else C(~/.local/state/ops_maintenance/report).
    type: path
  waivers:
    description:
      - File of the waivers. Without it, E(OPS_MAINTENANCE_WAIVERS), else C(waivers.yml) in the folder of the first inventory source.
    type: path
  store_url:
    description:
      - SQLAlchemy URL of the store; an empty text means none.
      - Without it, E(OPS_MAINTENANCE_STORE_URL), else the file C(store.sqlite) beside the journals.
    type: str
  verify:
    description:
      - Archive to prove. Fails when anything in it does not fit. Where the control node has the journal of the run, or the
        store has the run, its journal has to be that one.
    type: path
extends_documentation_fragment:
  - ops.maintenance.common.attributes
attributes:
  check_mode:
    support: full
    description: Packs nothing, as a preview is no evidence. Proving works as always.
  diff_mode:
    support: none
    description: There is no state to compare.
seealso:
  - module: ops.maintenance.report
  - module: ops.maintenance.sign
"""

EXAMPLES = r"""
- name: Evidence | Pack that of the newest run
  ops.maintenance.evidence_bundle:
    folder: /srv/evidence
  run_once: true

- name: Evidence | Prove an archive
  ops.maintenance.evidence_bundle:
    verify: /srv/evidence/evidence-quarterly-20261121T020000Z-3fa9.tar.gz
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The archive.
  returned: when packed
  type: str
  sample: /srv/evidence/evidence-quarterly-20261121T020000Z-3fa9.tar.gz
faults:
  description: What does not fit.
  returned: when proven
  type: list
  elements: str
  sample: [report.html was changed]
manifest:
  description: The manifest of the archive.
  returned: when proven
  type: dict
  sample:
    schema: ops.maintenance.evidence/1
    run_id: quarterly-20261121T020000Z-3fa9
    state: completed
    verdict: warning
maintenance_record:
  description: What the journal keeps.
  returned: always
  type: dict
  sample:
    subject: evidence
    operation: evidence_bundle
    status: changed
    summary: "evidence of quarterly-20261121T020000Z-3fa9: 7 files in /srv/evidence/evidence-quarterly-20261121T020000Z-3fa9.tar.gz"
    before: {}
    after: {path: /srv/evidence/evidence-quarterly-20261121T020000Z-3fa9.tar.gz, bytes: 181220}
    findings: []
    metrics: []
    actions: []
    started: "2026-11-21T04:01:10+00:00"
    finished: "2026-11-21T04:01:11+00:00"
"""
