#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: log_analysis
short_description: Review logs in one pass
version_added: 0.1.0
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Reads the declared logs once, plain, C(.gz), C(.xz), C(.bz2) and C(.zst) (with the C(zstd) command), in constant memory and with all
    processors, and counts by the time stamps of the records, whatever the age of the files.
  - Counts levels by hour, errors and their patterns (numbers, ids and addresses masked), patterns that are new or gone against earlier runs,
    failed logins by account and address, requests over a rate limit, disk errors, lack of memory, deadlocks, early checkpoints and temporary
    files of PostgreSQL, clients, status codes, response times, silence, and lines that could not be understood.
  - Compares counts with those of earlier runs on the same weekday, kept for 100 days in O(state_dir).
  - Changes nothing but its own O(state_dir) and the O(report), which count as no change. In check mode it writes neither.
options:
  sources:
    description:
      - Logs to read. Each is judged on its own.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the source, in findings and in the report.
        type: str
        required: true
      paths:
        description:
          - Absolute paths or patterns with C(*), C(?), C([…]) and C(**) for any depth. Symbolic links are not followed, but named.
          - Needed but for V(journal), which has none, and V(docker), which by default reads the logs of all containers.
        type: list
        elements: str
        default: []
      format:
        description:
          - How lines are written. V(json) is one JSON object a line, V(access) the common or combined log of a web server, V(plain) any line that
            begins with a time. V(auto) looks at the first lines of each file.
          - V(syslog) is RFC 3164 or 5424, V(nginx_error) the error log of nginx, V(postgresql) the log of a PostgreSQL server with any prefix that
            holds a time, or in its CSV or JSON form.
          - V(docker) is what the logging driver json-file writes; each container is judged as a source of its own, C(<name>/<container>).
          - V(journal) asks C(journalctl), and tells when the journal does not reach back as far as the span.
        type: str
        default: auto
        choices: [auto, json, plain, access, syslog, nginx_error, postgresql, docker, journal]
      units:
        description:
          - Only entries of these systemd units, for V(journal).
        type: list
        elements: str
        default: []
      timezone:
        description:
          - Time zone of time stamps that do not say theirs.
        type: str
        default: UTC
      silence_hours:
        description:
          - Hours without a record from which the source is called silent. V(0) means that it may be silent.
        type: float
        default: 0.0
      trusted_proxies:
        description:
          - Addresses or networks of proxies whose requests an access log holds. The client is then the last address before them in the last quoted
            field of the line, which has to be the header C(X-Forwarded-For).
        type: list
        elements: str
        default: []
      error_limit:
        description:
          - As O(error_limit), for this source.
        type: int
      auth_failure_limit:
        description:
          - As O(auth_failure_limit), for this source.
        type: int
      brute_force_limit:
        description:
          - As O(brute_force_limit), for this source.
        type: int
      rate_limited_limit:
        description:
          - As O(rate_limited_limit), for this source.
        type: int
      unparsed_percent:
        description:
          - As O(unparsed_percent), for this source.
        type: float
      server_error_percent:
        description:
          - As O(server_error_percent), for this source.
        type: float
      deadlock_limit:
        description:
          - As O(deadlock_limit), for this source.
        type: int
      checkpoint_limit:
        description:
          - As O(checkpoint_limit), for this source.
        type: int
      temporary_daily_bytes:
        description:
          - As O(temporary_daily_bytes), for this source.
        type: int
      latency_p95_seconds:
        description:
          - As O(latency_p95_seconds), for this source.
        type: float
      anomaly_factor:
        description:
          - As O(anomaly_factor), for this source.
        type: float
  span_days:
    description:
      - Records of so many past days count.
    type: float
    default: 7.0
  since:
    description:
      - Records from this ISO 8601 time on count, instead of O(span_days).
    type: str
    default: ''
  until:
    description:
      - Records before this ISO 8601 time count, for a look at the past. Nothing is kept for the next run then.
    type: str
    default: ''
  only_new:
    description:
      - Leave out what an earlier run with this option has read, also after rotation, renaming, truncation or compression of the file.
      - Only such counts add up over runs. Metrics of counts of any other run, and of one in check mode, end in C(_in_span), as
        C(logs.errors_in_span), for runs may have read the same lines.
    type: bool
    default: false
  error_limit:
    description:
      - Errors of a source that are still usual in the span.
    type: int
    default: 100
  auth_failure_limit:
    description:
      - Failed logins of a source that are still usual in the span.
    type: int
    default: 50
  brute_force_limit:
    description:
      - Failed logins by one address that are a warning; ten times as many are critical.
    type: int
    default: 10
  rate_limited_limit:
    description:
      - Requests over a rate limit that are still usual in the span.
    type: int
    default: 100
  unparsed_percent:
    description:
      - Share of lines that could not be understood that is a warning, in percent.
    type: float
    default: 5.0
  server_error_percent:
    description:
      - Share of requests answered with a server error that is a warning, in percent (access logs).
    type: float
    default: 5.0
  deadlock_limit:
    description:
      - Deadlocks of a source that are still usual in the span.
    type: int
    default: 0
  checkpoint_limit:
    description:
      - Warnings of a PostgreSQL server that its checkpoints come too early which are still usual in the span.
    type: int
    default: 0
  temporary_daily_bytes:
    description:
      - Bytes of temporary files that a PostgreSQL server wrote in a day which are a warning. It logs them where log_temp_files says so.
    type: int
    default: 10737418240
  latency_p95_seconds:
    description:
      - Response time of 95 of 100 requests that is a warning, in seconds. V(0) means that it is not judged.
    type: float
    default: 0.0
  anomaly_factor:
    description:
      - So many times the usual count of that weekday is a warning; so are as many times fewer records. V(0) switches the comparison off.
    type: float
    default: 3.0
  report:
    description:
      - File for the whole result as JSON; C({date}) becomes the date (UTC) as C(YYYYMMDD). Missing folders are made. Empty means no file.
    type: str
    default: ''
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
"""

EXAMPLES = r"""
- name: Review the week of an application
  ops.maintenance.log_analysis:
    sources:
      - name: errors
        paths: [/logs/errors/*.jsonl, /logs/errors/*.jsonl.gz]
        format: json
    report: /logs/reports/weekly-log-analysis-{date}.json

- name: See what a web server wrote since yesterday
  ops.maintenance.log_analysis:
    sources:
      - name: nginx
        paths: ["/var/log/nginx/access.log*"]
        format: access
        silence_hours: 6
    span_days: 1

- name: Read on in the journal, the database's log and all containers
  ops.maintenance.log_analysis:
    sources:
      - name: journal
        format: journal
      - name: postgresql
        paths: ["/var/log/postgresql/*.log*"]
        format: postgresql
        timezone: Europe/Berlin
        error_limit: 10
      - name: containers
        format: docker
    only_new: true

- name: See what a week of last month held
  ops.maintenance.log_analysis:
    sources:
      - name: application
        paths: ["/srv/app/logs/*.log*"]
    since: 2026-10-12T00:00:00Z
    until: 2026-10-19T00:00:00Z
"""

RETURN = r"""
report:
  description: The file that was written, or would be.
  returned: always
  type: str
  sample: /logs/reports/weekly-log-analysis-20261121.json
errors:
  description: Errors in the span, by source.
  returned: always
  type: dict
  sample: {errors: 3}
maintenance_record:
  description: What was found, as the journal keeps it.
  returned: always
  type: dict
  sample:
    subject: errors
    operation: log_analysis
    status: ok
    summary: 1204 records since 2026-11-14T02:00+00:00, 3 of them errors, in 8 files (310.2 KiB)
    before: {}
    after: {report: /logs/reports/weekly-log-analysis-20261121.json}
    findings:
      - id: logs.errors
        state: ok
        subject: errors
        summary: 3 errors in errors.
        value: 3
        unit: count
        threshold: warning from 101 count
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics: [{name: logs.errors_in_span, subject: errors, value: 3, unit: count}]
    actions: []
"""

from ansible_collections.ops.maintenance.plugins.module_utils import log_analysis
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(log_analysis.OPTIONS, log_analysis.run, subject="logs", operation="log_analysis")


if __name__ == "__main__":
    main()
