# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  deployments:
    description:
      - "Applications at a hosting platform. Which deployment is live is recorded before the work; a rollback makes it live again and asks
        whether it works. That changes code only: no migration of a database and no variable goes back with it."
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What it is called in findings.
        type: str
        required: true
      record:
        description:
          - "Argument list of the program that tells which deployment is live. It must change nothing: check mode runs it too."
        type: list
        elements: str
        required: true
      pattern:
        description:
          - Regular expression that finds the deployment in what O(deployments[].record) prints, errors included; its group, where it has
            one.
        type: str
        required: true
      rollback:
        description:
          - "Argument list of the program that makes a deployment live, with C({deployment}) where it stands. Empty means that a person
            does it."
        type: list
        elements: str
        default: []
      promote:
        description:
          - What ends the state after a rollback in which new deployments do not go live. It is not run, but told.
        type: list
        elements: str
        default: []
      url:
        description:
          - Address that tells whether the application works, asked after a rollback.
        type: str
        default: ''
      expect_status:
        description:
          - Answers of O(deployments[].url) that are well.
        type: list
        elements: int
        default: [200]
      settle_seconds:
        description:
          - How long the platform may take until the deployment is live, and the application to answer.
        type: float
        default: 60.0
      user:
        description:
          - User to run the programs as; empty stays the one that the module runs as.
        type: str
        default: ''
      chdir:
        description:
          - Folder to run them in.
        type: path
        default: ''
      environment_file:
        description:
          - File on the host with their variables, such as a token; values of it never reach a record.
        type: path
        default: ''
      timeout_seconds:
        description:
          - Longest run of one program.
        type: float
        default: 120.0
"""
