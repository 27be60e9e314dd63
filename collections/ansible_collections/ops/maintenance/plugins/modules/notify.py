#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: the work is in plugins/action/notify.py, on the control node.

from __future__ import annotations

DOCUMENTATION = r"""
module: notify
short_description: Tell stakeholders of a maintenance window
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Tells by mail, webhook or file of a window that comes, of a run that takes longer than its window, or of an extension.
  - The system is the one of the host that the task runs for, as C(maintenance_system) or its first group names it.
  - Nobody gets the same notice twice. What was sent is remembered in C(notices.json) beside the journal, or in
    C(~/.local/state/ops_maintenance) without one. A recipient that a notice did not reach gets it with the next call.
  - A notice that cannot be delivered is a critical finding, never a failed task.
  - Runs on the control node; no host is contacted.
options:
  kind:
    description:
      - V(announcement) tells of the next window of the cadence, once it starts within O(ahead_hours).
      - V(overrun) tells that a run still works after the end of its window, which is O(deadline). Without O(deadline) it looks into
        the journals of this control node for such a run.
      - V(extension) tells of O(new_end), which a person decided.
      - V(incident) calls those together who recover the system, once a run, with O(reason) and what does not work (O(planned)).
      - V(test) tells that it is a test, once a day for a system, by mail and webhook. It holds a code, which the record holds as well, so that a
        recipient can prove that it arrived; that a channel accepted it does not.
    type: str
    choices: [announcement, overrun, extension, incident, test]
    default: announcement
  channels:
    description:
      - How to tell. The file of kind V(file) holds the newest notice, for a status page.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description:
          - What it is.
        type: str
        choices: [mail, webhook, file]
        required: true
      host:
        description:
          - Mail relay.
        type: str
      port:
        description:
          - Port of the mail relay.
        type: int
        default: 25
      starttls:
        description:
          - Encrypt the connection to the relay, whose certificate must be trusted. Mandatory with O(channels[].user), except on localhost.
        type: bool
        default: false
      sender:
        description:
          - Address that the mail comes from.
        type: str
      to:
        description:
          - Addresses that the mail goes to.
        type: list
        elements: str
        default: []
      user:
        description:
          - Account at the relay.
        type: str
      password_file:
        description:
          - File on the control node whose first line is the password.
        type: path
      url_file:
        description:
          - File on the control node whose first line is the address of the webhook, which is a secret.
        type: path
      url:
        description:
          - Address of the webhook, where it is no secret.
        type: str
      path:
        description:
          - File on the control node to write the notice to.
        type: path
      timeout_seconds:
        description:
          - How long to wait for an answer.
        type: float
        default: 10.0
  hosts:
    description:
      - Hosts of the play. The first one of each system speaks for it, the others are skipped. Empty means that each host speaks.
    type: list
    elements: str
    default: []
  title:
    description:
      - Title of the system in notices; empty means its name.
    type: str
    default: ''
  cadence:
    description:
      - Which window.
    type: str
    default: weekly
  windows:
    description:
      - Window by cadence, as in C(maintenance_windows).
    type: dict
    default: {}
  blackouts:
    description:
      - Days without windows, as in C(maintenance_blackouts).
    type: list
    elements: dict
    default: []
  ahead_hours:
    description:
      - How long before its start a window is announced, in hours.
    type: float
    default: 24.0
  contacts:
    description:
      - Whom to ask, by role.
    type: dict
    default: {}
  services:
    description:
      - Names of the services that users will miss.
    type: list
    elements: raw
    default: []
  planned:
    description:
      - What is planned, or what is still to do. Without it, the steps that the role C(cycle) does by default.
    type: list
    elements: raw
  skip:
    description:
      - What of it to leave out.
    type: list
    elements: raw
    default: []
  deadline:
    description:
      - End of the window of this run, in seconds since the epoch.
    type: float
    default: 0.0
  reserve_seconds:
    description:
      - How long an overrun is expected to last from now, in seconds.
    type: int
    default: 900
  new_end:
    description:
      - New end of the window, such as V(2026-11-21T07:00); without an offset, on the clock of the window.
    type: str
    default: ''
  reason:
    description:
      - Why it takes longer.
    type: str
    default: ''
attributes:
  check_mode:
    support: full
    description: Says what is due, sends nothing and remembers nothing.
  diff_mode:
    support: none
    description: A notice has no state before.
"""

EXAMPLES = r"""
- name: Announce the next weekly window a day ahead
  ops.maintenance.notify:
    windows:
      weekly: {rule: "FREQ=WEEKLY;BYDAY=SA;BYHOUR=2;BYMINUTE=0", duration_minutes: 240, timezone: Europe/Berlin}
    channels:
      - kind: mail
        host: localhost
        sender: maintenance@shop.internal
        to: [everybody@shop.internal]
      - kind: webhook
        url_file: ~/.config/ops_maintenance/chat_url

- name: Tell that this run takes longer
  ops.maintenance.notify:
    kind: overrun
    deadline: 1795267648
    planned: [log_rotation]
    channels:
      - kind: file
        path: /var/www/status/maintenance.txt
"""

RETURN = r"""
verdict:
  description: Worst state of the deliveries; V(unknown) where no channel or no window is declared.
  returned: success
  type: str
  sample: ok
notice:
  description: The notice as plain text.
  returned: when there is one
  type: str
  sample: "Shop will be maintained.\n\nWindow starts: Saturday 2026-11-28 02:00 CET (2026-11-28 01:00 UTC)\n"
maintenance_record:
  description: What the journal keeps.
  returned: always
  type: dict
  sample:
    subject: shop
    operation: notify
    status: changed
    summary: The announcement was accepted for delivery.
    before: {}
    after:
      id: announcement shop 2026-11-28T01:00:00+00:00
      subject: "Planned maintenance of Shop: Saturday 2026-11-28 02:00 CET"
    findings:
      - id: notification.delivery
        state: ok
        subject: announcement of shop by mail 1
        summary: The announcement was accepted for delivery.
        value: 1
        unit: count
        threshold: ""
        basis: exact
        as_of: ""
        not_covered: ""
        advice: ""
        evidence: []
    metrics:
      - {name: notification.lead, subject: shop, value: 86100, unit: seconds}
    actions: []
    started: "2026-11-27T01:05:00+00:00"
    finished: "2026-11-27T01:05:01+00:00"
"""
