#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_upkeep
version_added: 0.1.0
short_description: Review Redis servers and remove stale keys by declared prefix
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Reads what a server says of its memory, eviction, persistence, slow log, clients and replication, and counts the keys without a
    time to live by declared prefix. C(SCAN) is used, never C(KEYS); a large database is looked at as a sample, which the finding says.
  - Removes keys of a declared prefix that nobody used for the declared time, in small steps with C(UNLINK). Whether a key is still unused
    is looked at in the same step that removes it. Characters of patterns in a prefix stand for themselves.
  - Where Redis does not know how long keys were idle (an LFU policy), or on a replica or a part of a cluster, nothing is removed and
    the finding is C(unknown).
  - A database is flushed only when it is declared as a pure cache and flushing is asked for.
  - Only the names of commands and the first word of keys get into the record, never their content.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
options:
  servers:
    description:
      - The servers. None at all is reported as C(unknown).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the server is called in findings.
        type: str
        required: true
      host:
        description: Host name or address, or the path of a socket file.
        type: str
        default: 127.0.0.1
      port:
        description: Port; without a meaning for a socket file.
        type: int
        default: 6379
      user:
        description: ACL user; empty is the default user.
        type: str
        default: ''
      password:
        description: Password, from a vault. Never part of a record or of a command line.
        type: str
        default: ''
      password_file:
        description: File on the host with the password in its first line; mode 0600.
        type: path
        default: ''
      tls:
        description: Connect with TLS; the server's certificate is always checked.
        type: bool
        default: false
      tls_root_certificate:
        description: File with the certificates of the authorities to trust; those of the system when empty.
        type: path
        default: ''
      tls_certificate:
        description: Certificate of the client, where the server wants one.
        type: path
        default: ''
      tls_key:
        description: Key of that certificate.
        type: path
        default: ''
      timeout_seconds:
        description: Longest wait for a connection or an answer.
        type: float
        default: 10.0
      memory_warning_percent:
        description: Warn from this share of C(maxmemory).
        type: float
        default: 80.0
      memory_critical_percent:
        description: Critical from this share of C(maxmemory).
        type: float
        default: 95.0
      fragmentation_warning_ratio:
        description: Warn when the host's memory is this many times what is used.
        type: float
        default: 1.5
      fragmentation_minimum_bytes:
        description: Fragmentation is not judged below this use of memory.
        type: int
        default: 67108864
      snapshot_age_hours:
        description: Warn when there are changes and the last snapshot is older than this.
        type: float
        default: 26.0
      slow_hours:
        description: Span of the slow log that is looked at.
        type: float
        default: 24.0
      slow_warning_count:
        description: Warn from this many slow commands in the span.
        type: int
        default: 10
      clients_warning_percent:
        description: Warn from this share of C(maxclients).
        type: float
        default: 80.0
      blocked_warning_count:
        description: Warn from this many blocked clients.
        type: int
        default: 20
      replica_lag_seconds:
        description: Warn when a replica is this far behind.
        type: float
        default: 30.0
      replicas_expected:
        description: Critical when fewer replicas than this follow.
        type: int
        default: 0
      persistence:
        description: V(required) warns when nothing is persisted even of a pure cache.
        type: str
        choices: [configured, required]
        default: configured
      databases:
        description: The databases whose keys are looked at.
        type: list
        elements: dict
        default: []
        suboptions:
          number:
            description: Number of the database.
            type: int
            required: true
          pure_cache:
            description: Nothing in it is missed when it goes; no sessions, queues or locks.
            type: bool
            default: false
          flush:
            description: Empty the whole database in every run; only with O(servers[].databases[].pure_cache).
            type: bool
            default: false
          prefixes:
            description: How the keys of the application begin.
            type: list
            elements: dict
            default: []
            suboptions:
              prefix:
                description: The beginning of the keys, literally.
                type: str
                required: true
              without_ttl_allowed:
                description: Keys without a time to live are meant.
                type: bool
                default: false
              remove_idle_days:
                description: Remove keys that nobody read or wrote for this long, at most 190 days; V(0) removes none.
                type: float
                default: 0.0
              minimum_idle_days:
                description: The lower bound for O(servers[].databases[].prefixes[].remove_idle_days).
                type: float
                default: 1.0
              also_with_ttl:
                description: Remove idle keys that have a time to live too, though Redis will drop them by itself.
                type: bool
                default: false
  sample_size:
    description: Most keys to look at in one database for their time to live.
    type: int
    default: 200000
"""

EXAMPLES = r"""
- name: Review a server and say which keys are stale; check mode changes nothing
  ops.maintenance.redis_upkeep:
    servers:
      - name: cache
        host: /run/redis/redis-server.sock
        databases:
          - number: 0
            prefixes:
              - prefix: 'cache:'
                remove_idle_days: 14
              - prefix: 'session:'
              - prefix: 'config:'
                without_ttl_allowed: true
  check_mode: true

- name: Empty a pure cache
  ops.maintenance.redis_upkeep:
    servers:
      - name: pages
        host: cache.example.org
        tls: true
        user: maintenance
        password_file: /etc/ops_maintenance/redis.password
        databases:
          - number: 3
            pure_cache: true
            flush: true
"""

RETURN = r"""
due:
  description: Whether anything was removed, or in check mode is due.
  returned: success
  type: bool
  sample: true
keys:
  description: Number of keys removed, or due.
  returned: success
  type: int
  sample: 1520
servers:
  description: Names of the servers that were looked at.
  returned: success
  type: list
  elements: str
  sample: [main]
maintenance_record:
  description: What was found and done, for the journal.
  returned: always
  type: dict
  sample:
    subject: redis
    operation: redis_upkeep
    status: changed
    summary: 1 server(s), worst state ok, 1520 key(s) removed
    before: {}
    after: {}
    findings:
      - id: redis.memory
        state: ok
        subject: cache
        summary: 310.2 MiB of 1.0 GiB used (30 percent)
        value: 30.3
        unit: percent
        threshold: warning from 80 percent, critical from 95 percent
        basis: exact
        as_of: ''
        not_covered: ''
        advice: ''
        evidence: []
    metrics:
      - {name: redis.used_memory, subject: cache, value: 325267456, unit: bytes}
    actions:
      - subject: 'cache/0 cache:'
        operation: remove_stale_keys
        status: changed
        summary: '1520 keys that begin with cache: were unused for 14 days'
        before: {keys: 1520}
        after: {keys: 0}
    started: '2026-11-21T02:00:11.204112+00:00'
    finished: '2026-11-21T02:00:14.881530+00:00'
"""

from ansible_collections.ops.maintenance.plugins.module_utils import redis_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(redis_upkeep.OPTIONS, redis_upkeep.run, subject="redis", operation="redis_upkeep")


if __name__ == "__main__":
    main()
