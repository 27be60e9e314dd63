# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  remember:
    description:
      - Keep what is vulnerable for the next run, which says what is new, in check mode too. For roles that assess in check mode in a run
        that is none.
    type: bool
    default: false
  registry_timeout_seconds:
    description:
      - How long to wait for an answer of the registry.
    type: int
    default: 60
  test_timeout_seconds:
    description:
      - How long an installation, and the test command, may take.
    type: int
    default: 900
  minimum_seconds:
    description:
      - An update is not begun when less time than this is left before O(deadline); it is then C(deferred).
    type: int
    default: 600
"""
