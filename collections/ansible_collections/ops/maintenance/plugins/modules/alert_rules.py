#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alert_rules
short_description: Check that alert rules are sound and fire, and that somebody is told
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Checks files of rules with C(promtool), configurations of Alertmanager with C(amtool), and rules in JSON itself, and looks for alerts by name.
    A sound file without a rule is a warning, for the tools call it a success.
  - Lets C(promtool test rules) try the rules on the series of their tests.
  - With O(deliveries), sends a test alert through Alertmanager and sees by its counters whether each channel of the receiver took it.
  - A tool that is missing makes the finding V(unknown), never ok. Nothing else is changed; in check mode nothing is sent.
options:
  rules:
    description:
      - Files of rules.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Absolute path or pattern. That nothing matches is critical.
        type: str
        required: true
      kind:
        description:
          - V(prometheus) for rules of Prometheus in YAML, V(alertmanager) for a configuration of Alertmanager, V(json) for rules as Prometheus or
            Grafana have them, in JSON.
        type: str
        default: prometheus
        choices: [alertmanager, json, prometheus]
      alerts:
        description:
          - Names of alerts that the files have to define.
        type: list
        elements: str
        default: []
      tests:
        description:
          - Absolute paths or patterns of tests as C(promtool test rules) takes them. Tests that name no rules, or hold no test, are no success.
        type: list
        elements: str
        default: []
  endpoints:
    description:
      - Where Prometheus, Alertmanager or Grafana tell that they are well.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name in findings.
        type: str
        required: true
      url:
        description:
          - URL that answers 200, such as V(http://localhost:9093/-/healthy).
        type: str
        required: true
      ca_file:
        description:
          - PEM file of the authorities to trust.
        type: path
  deliveries:
    description:
      - Alertmanagers to send a test alert through. It is named C(OpsMaintenanceTest), says that there is nothing to do, and is taken back at once.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name in findings.
        type: str
        required: true
      url:
        description:
          - Where Alertmanager answers, such as V(http://localhost:9093).
        type: str
        required: true
      ca_file:
        description:
          - PEM file of the authorities to trust.
        type: path
      labels:
        description:
          - Further labels, by which the alert takes the route that is to be tried, such as C(severity).
        type: dict
        default: {}
      wait_seconds:
        description:
          - How long to wait for the channels, in seconds, 600 at most. More than the C(group_wait) of the route.
        type: float
        default: 60.0
  timeout_seconds:
    description:
      - Time limit of each endpoint, in seconds.
    type: float
    default: 10.0
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Check the rules of Prometheus
  ops.maintenance.alert_rules:
    rules:
      - path: /etc/prometheus/rules/*.yml
        alerts: [HostDown, DiskFull]
        tests: [/etc/prometheus/tests/*.yml]
    endpoints:
      - name: prometheus
        url: http://localhost:9090/-/healthy

- name: Prove that somebody is told of what is critical
  ops.maintenance.alert_rules:
    deliveries:
      - name: pager
        url: http://localhost:9093
        labels: {severity: critical}

- name: Check what Grafana exported
  ops.maintenance.alert_rules:
    rules:
      - path: /etc/grafana/provisioning/alerting/rules.json
        kind: json
"""

RETURN = r"""
maintenance_record:
  description: What was found, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: alert rules
    operation: alert_rules
    status: ok
    summary: 0 of 1 finding need attention
    before: {}
    after: {}
    findings:
      - id: alert_rules.file
        state: ok
        subject: /etc/prometheus/rules/host.yml
        summary: 2 rules in a sound file, 1 alert by name.
        value: 2
        unit: count
        threshold: warning below 1 rule
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: [{name: alert_rules.rules, subject: /etc/prometheus/rules/host.yml, value: 2, unit: count}]
    actions: []
"""

from ansible_collections.ops.maintenance.plugins.module_utils import alert_rules
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(alert_rules.OPTIONS, alert_rules.run, subject="alert rules", operation="alert_rules")


if __name__ == "__main__":
    main()
