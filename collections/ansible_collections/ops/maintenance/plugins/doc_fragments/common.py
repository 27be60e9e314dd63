# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  run_id:
    description:
      - Id of the maintenance run; the journal callback makes it. Empty when the callback is not enabled.
    type: str
    default: ''
  deadline:
    description:
      - End of the maintenance window, in seconds since the epoch (UTC). V(0) means no window.
      - Work that would not end before it is not begun and reported as C(deferred).
    type: float
    default: 0.0
  state_dir:
    description:
      - Folder on the host that keeps what the next run needs. Created with mode 0700.
    type: path
    default: /var/lib/ops_maintenance
  self_test:
    description:
      - Feed each verifier a bad sample first; where it passes that, its findings become V(unknown).
    type: bool
    default: false
notes:
  - Every module returns RV(ignore:maintenance_record), which the journal callback keeps and the report reads.
    The fields are described in C(docs/journal.md) of the collection.
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Reads everything, gives the same verdicts, reports what is due and changes nothing.
  diff_mode:
    support: full
    description: Shows the state before and after in the same shape.
"""
