#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sign
short_description: Sign a duty of a maintenance run
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Adds a person's signature to the journal of a run that is over, and to the store. The chain of hashes goes on.
  - What only a person can confirm stays open in the report until somebody has signed it.
  - Signing the same again changes nothing.
options:
  duty:
    description:
      - Id of a duty or of a checklist item of kind C(attestation), as the report names it.
      - V(performed_by), V(verified_by) and V(recommendations) can be signed for every run.
    type: str
    required: true
  signed_by:
    description:
      - Name of the person. The account that ran the automation is refused, and so is verifying what one performed oneself.
    type: str
    required: true
  system:
    description:
      - System whose duty it is. Empty means each system of the run.
    type: str
    default: ''
  note:
    description:
      - What the person wants to add.
    type: str
    default: ''
  run_id:
    description:
      - Id of the run. Empty means the newest one.
    type: str
    default: ''
  store_url:
    description:
      - SQLAlchemy URL of the store; an empty text means none.
      - Without it, E(OPS_MAINTENANCE_STORE_URL), else the file C(store.sqlite) beside the journals.
    type: str
extends_documentation_fragment:
  - ops.maintenance.common.attributes
attributes:
  check_mode:
    support: full
    description: Checks everything and writes nothing.
  diff_mode:
    support: none
    description: A signature has no state before.
seealso:
  - module: ops.maintenance.report
"""

EXAMPLES = r"""
- name: Sign | Confirm who verified the newest run
  ops.maintenance.sign:
    duty: verified_by
    signed_by: Mara Lindt

- name: Sign | Confirm the review of accounts in one system
  ops.maintenance.sign:
    run_id: weekly-20261121T020000Z-3fa9
    system: shop
    duty: access_review
    signed_by: Jonas Weber
    note: two accounts closed, ticket 4711
"""

RETURN = r"""
journal:
  description: The journal that has the signature.
  returned: success
  type: str
  sample: /home/automation/.local/state/ops_maintenance/journal/weekly-20261121T020000Z-3fa9.jsonl
maintenance_record:
  description: What the journal of the signing run keeps.
  returned: always
  type: dict
  sample:
    subject: signature
    operation: sign
    status: changed
    summary: Mara Lindt signs verified_by of weekly-20261121T020000Z-3fa9
    before: {}
    after: {duty: verified_by, system: "", signed_by: Mara Lindt, note: ""}
    findings: []
    metrics: []
    actions: []
    started: "2026-11-21T09:12:44+00:00"
    finished: "2026-11-21T09:12:44+00:00"
"""
