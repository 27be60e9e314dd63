#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_mode
short_description: Take a host into maintenance and bring it back
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Locks a host, stops its services in order, suspends timers and cron entries, shows a maintenance page, and brings back exactly that.
  - Every step is written down before it is taken; a dead-man switch on the host undoes it when the control side never returns.
options:
  state:
    description:
      - The state to take the host to. V(locked) takes the lock, V(entered) stops the services, V(serving) starts them again, V(left) brings everything
        back and releases the lock.
    type: str
    choices:
      - locked
      - entered
      - serving
      - left
    required: true
  services:
    description:
      - Services in the order in which they are started; they are stopped in the reverse order.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the unit, or of the service where O(services[].manager=command).
        type: str
        required: true
      manager:
        description:
          - How the service is controlled.
        type: str
        choices:
          - systemd
          - command
        default: systemd
      start:
        description:
          - Argument list that starts it, with V(command) only.
        type: list
        elements: str
        default: []
      stop:
        description:
          - Argument list that stops it, with V(command) only.
        type: list
        elements: str
        default: []
      status:
        description:
          - Argument list that exits with 0 while it runs, with V(command) only.
        type: list
        elements: str
        default: []
      keep_running:
        description:
          - Leave this service alone.
        type: bool
        default: false
  timers:
    description:
      - systemd timers of the application, suspended meanwhile.
    type: list
    elements: str
    default: []
  cron_files:
    description:
      - Files below C(/etc/cron.d) that are suspended meanwhile.
    type: list
    elements: path
    default: []
  cron_users:
    description:
      - Crontabs of users that are suspended meanwhile.
    type: list
    elements: dict
    default: []
    suboptions:
      user:
        description:
          - Owner of the crontab.
        type: str
        required: true
      match:
        description:
          - Only lines that contain this text.
        type: str
        default: ''
  page:
    description:
      - Maintenance page shown by nginx with status 503.
    type: dict
    suboptions:
      url:
        description:
          - URL that users see; it proves the page.
        type: str
        required: true
      include_dir:
        description:
          - Folder whose C(*.conf) the server block of nginx includes.
        type: path
        default: /etc/nginx/ops_maintenance.d
      title:
        description:
          - Heading of the page.
        type: str
        default: Maintenance
      text:
        description:
          - Text of the page.
        type: str
        default: This service is being maintained and will be back soon.
      retry_after_seconds:
        description:
          - Value of the header Retry-After, in seconds.
        type: int
        default: 3600
  drain_ports:
    description:
      - Ports whose sessions may end before the services are stopped.
    type: list
    elements: int
    default: []
  drain_timeout_seconds:
    description:
      - How long to wait for sessions, in seconds.
    type: int
    default: 60
  ready:
    description:
      - Endpoints that must answer before the application counts as started.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description:
          - URL to ask.
        type: str
        required: true
      status:
        description:
          - Accepted HTTP status codes.
        type: list
        elements: int
        default:
          - 200
  ready_timeout_seconds:
    description:
      - How long to wait for them, in seconds.
    type: int
    default: 60
  settle_seconds:
    description:
      - How long a service is watched for restarts after its start, in seconds.
    type: float
    default: 2.0
  return_after_seconds:
    description:
      - When the dead-man switch brings the host back, in seconds from entry. V(0) means the end of the window plus O(grace_seconds), or four
        hours without a window.
    type: int
    default: 0
  grace_seconds:
    description:
      - Time after the end of the window until the dead-man switch acts, in seconds.
    type: int
    default: 900
  reboot_expected:
    description:
      - The next start of the host belongs to this run.
    type: bool
    default: false
  keep_lock:
    description:
      - With O(state=left), whether the host stays locked for work that does not need the application to stand still.
    type: bool
    default: false
  holder:
    description:
      - Who holds the lock, for the message to others.
    type: dict
    default: {}
  dead_runs:
    description:
      - Ids of runs whose process is known to be gone.
    type: list
    elements: str
    default: []
  break_lock:
    description:
      - Id of a run that you know is dead.
    type: str
    default: ''
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Take the application out of use
  ops.maintenance.maintenance_mode:
    state: entered
    services:
      - name: app-backend
      - name: app-frontend
    timers: [app-sync.timer]

- name: Bring it back
  ops.maintenance.maintenance_mode:
    state: left
"""

RETURN = r"""
locked:
  description: Whether this run holds the lock.
  returned: when O(state=locked)
  type: bool
  sample: true
downtime_seconds:
  description: Time during which the application was out of use, in seconds.
  returned: when O(state=left) and the host was in maintenance mode
  type: float
  sample: 42.5
services_restored:
  description: Whether every service is as it was before.
  returned: when O(state=left) and the host was in maintenance mode
  type: bool
  sample: true
"""

from ansible_collections.ops.maintenance.plugins.module_utils import maintenance_mode
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(maintenance_mode.OPTIONS, maintenance_mode.run, subject="host", operation="maintenance_mode")


if __name__ == "__main__":
    main()
