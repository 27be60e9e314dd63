#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: port_scan
version_added: 0.1.0
short_description: Scan own addresses from outside
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Lets nmap try the TCP ports, and UDP ports where asked, of addresses that the inventory declares as its own, and compares what is open with what is
    expected. Run it where an outsider would be, with C(delegate_to).
  - Names and ranges are refused, so that nobody else's machine is scanned by mistake.
  - Without nmap, or where it does not finish, the finding is C(unknown). So it is where none of the expected ports answers.
requirements:
  - nmap on the machine that scans
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  addresses:
    description:
      - Single addresses of own machines.
    type: list
    elements: str
    default: []
  authorised_by:
    description:
      - Who allowed the scan, and when; goes into the evidence. Without it nothing is scanned.
    type: str
    default: ''
  expected:
    description:
      - Ports that are to be open, as C(tcp/443) or C(udp/51820).
    type: list
    elements: str
    default: []
  ports:
    description:
      - Ports that are tried.
    type: str
    default: 1-65535
  udp_ports:
    description:
      - UDP ports that are tried too, which needs root. A port that gives no answer may be open all the same, and is not judged.
    type: str
    default: ''
  detect_os:
    description:
      - Let nmap guess the operating system, which needs root.
    type: bool
    default: false
  expected_os:
    description:
      - Word that the likeliest system has in its name.
    type: str
    default: Linux
  seconds:
    description:
      - Time that nmap may take.
    type: float
    default: 600.0
"""

EXAMPLES = r"""
- name: See what the control node can reach of a host
  ops.maintenance.port_scan:
    addresses: [192.0.2.10]
    authorised_by: Mia Roth, 2026-11-02
    expected: [tcp/22, tcp/443]
  delegate_to: localhost
  become: false

- name: Try UDP as well, and guess the system
  ops.maintenance.port_scan:
    addresses: [192.0.2.10]
    authorised_by: Mia Roth, 2026-11-02
    expected: [tcp/22, tcp/443, udp/51820]
    udp_ports: 53,123,161,500,51820
    detect_os: true
  delegate_to: localhost
  become: true

- name: Try the usual ports only
  ops.maintenance.port_scan:
    addresses: ["2001:db8::10"]
    authorised_by: Mia Roth, 2026-11-02
    ports: 1-1024
  delegate_to: localhost
  become: false
"""

RETURN = r"""
maintenance_record:
  description: What was found, for the journal.
  returned: always
  type: dict
  sample:
    subject: ports
    operation: port_scan
    status: ok
    summary: 1 of 1 findings need attention
    before: {}
    after: {}
    findings:
      - id: security.port_scan
        state: critical
        subject: 192.0.2.10
        summary: 1 port open, not expected
        value: 1
        unit: count
        threshold: critical from 1
        basis: exact
        as_of: ""
        not_covered: UDP, ports beyond 1-65535
        advice: Close them, or declare them in security_review_scan_expected.
        evidence: ["open, not expected: tcp/5432 (postgresql)", "allowed by Mia Roth, 2026-11-02"]
    metrics:
      - {name: security.open_ports, subject: 192.0.2.10, value: 3, unit: count}
    actions: []
    started: "2026-11-21T02:10:00+00:00"
    finished: "2026-11-21T02:10:09+00:00"
"""

from ansible_collections.ops.maintenance.plugins.module_utils import port_scan
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(port_scan.OPTIONS, port_scan.run, subject=port_scan.SUBJECT, operation=port_scan.OPERATION)


if __name__ == "__main__":
    main()
