#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_renewal
version_added: 0.1.0
short_description: Renew what certbot keeps when it is due, and prove what is served
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Reads certbot's own folder and tells for each certificate how long it is good for, whether its files belong together and
    lead to a trusted root, and whether a timer renews it and something is reloaded afterwards.
  - With O(renew), a certificate that ends within O(renew_before_days) is renewed by C(certbot renew), and the declared service is
    reloaded once its configuration was checked. A renewal counts only when a newer certificate lies there.
  - Compares the certificate and the chain that an endpoint serves with the files, before and after. A service that goes on
    serving the old certificate is reloaded where it is declared, and is a finding otherwise.
  - With O(rehearse), certbot rehearses a renewal with the test service of Let's Encrypt, or with the authority that the certificate
    is of where that is another one. An authority out of reach is C(unknown).
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  config_dir:
    description:
      - certbot's folder, with C(live) and C(renewal).
    type: path
    default: /etc/letsencrypt
  work_dir:
    description:
      - certbot's folder for work in progress.
    type: path
    default: /var/lib/letsencrypt
  logs_dir:
    description:
      - certbot's folder for logs.
    type: path
    default: /var/log/letsencrypt
  certificates:
    description:
      - What is known of certificates beyond what certbot knows. Those that are not named are looked at as well.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the certificate, as C(certbot certificates) shows it.
        type: str
        required: true
      connect:
        description:
          - Endpoint (C(host:port)) that is to serve it.
        type: str
        default: ''
      host:
        description:
          - Host name to ask for there; the first name of the certificate when it is not given.
        type: str
        default: ''
      trust:
        description:
          - File with the root of an authority of one's own.
        type: path
        default: ''
      service:
        description:
          - Unit to reload when a newer certificate lies there than is served.
          - Either this or O(certificates[].reload_command).
        type: str
        default: ''
      reload_command:
        description:
          - Command, as a list, that makes what serves the certificate take it up, where that is no unit, such as one in a container.
        type: list
        elements: str
        default: []
      check_command:
        description:
          - Command, as a list, that must end with 0 before the reload, such as V([nginx, -t]).
        type: list
        elements: str
        default: []
  renew:
    description:
      - Renew what is due.
    type: bool
    default: false
  rehearse:
    description:
      - Rehearse the renewal of every certificate. It leaves an account of the test service in certbot's folder, and is therefore
        not done in check mode.
      - An authority that has no test service makes a real certificate for it, which certbot throws away; that may count against its limits.
    type: bool
    default: false
  renew_before_days:
    description:
      - A renewal is due when less than this is left, where the certificate's renewal file does not say otherwise. One that lives for
        less than three times as long is due in its last third.
    type: float
    default: 30.0
  critical_days:
    description:
      - Critical when less than this is left, and no sooner than half of the time in which a renewal is due is over.
    type: float
    default: 7.0
  authority_ca_file:
    description:
      - PEM file with the roots by which certbot trusts the authority's own HTTPS, for an authority of one's own. The system's when empty.
    type: path
    default: ''
  timeout_seconds:
    description:
      - How long certbot may take for one certificate.
    type: float
    default: 300.0
  minimum_seconds:
    description:
      - Nothing is begun when less time than this is left before O(deadline); it is then C(deferred).
    type: int
    default: 300
seealso:
  - module: ops.maintenance.security_review
"""

EXAMPLES = r"""
- name: Renew what is due, and let nginx serve it
  ops.maintenance.certificate_renewal:
    renew: true
    certificates:
      - name: shop.example.org
        connect: 127.0.0.1:443
        service: nginx
        check_command: [nginx, -t]

- name: Prove each month that a renewal would work
  ops.maintenance.certificate_renewal:
    rehearse: true
"""

RETURN = r"""
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: certificates
    operation: certificate_renewal
    status: changed
    summary: 1 certificate, 2 steps due or done
    before: {}
    after: {}
    findings:
      - id: certificate.served
        state: ok
        subject: 127.0.0.1:443
        summary: It serves shop.example.org with its chain, and clients accept it.
        value:
        unit: ''
        threshold: critical when another one is served or a client refuses it
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: [served sha256 4bf5…, file sha256 4bf5…]
    metrics:
      - {name: certificate.days_left, subject: shop.example.org, value: 89.9, unit: days}
    actions:
      - subject: shop.example.org
        operation: renew
        status: changed
        summary: shop.example.org is good for 89.9 days now
        before: {days_left: 12.4, sha256: 09ac…}
        after: {days_left: 89.9, sha256: 4bf5…}
      - subject: nginx
        operation: reload
        status: changed
        summary: nginx was reloaded
        before: {}
        after: {}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:44.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import certificate_renewal
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(certificate_renewal.OPTIONS, certificate_renewal.run, subject="certificates", operation="certificate_renewal")


if __name__ == "__main__":
    main()
