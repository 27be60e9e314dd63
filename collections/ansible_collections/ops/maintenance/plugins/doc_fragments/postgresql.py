# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  servers:
    description:
      - The PostgreSQL servers, version 13 or newer. Needs psycopg 3 or psycopg2 on the host (C(python3-psycopg2)).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the server is called in findings and rules.
        type: str
        required: true
      host:
        description: Host name or address, or the folder of the socket; empty is V(/var/run/postgresql).
        type: str
        default: ''
      port:
        description: Port, on a socket too.
        type: int
        default: 5432
      user:
        description: Role to log in as.
        type: str
        default: postgres
      os_user:
        description:
          - Operating system's user to connect as on a socket, and to run PostgreSQL's programs as, where the module runs as root.
            Peer authentication wants it. Empty stays the user that the module runs as.
        type: str
        default: postgres
      password:
        description: Password, from a vault. Never part of a record or of a command line.
        type: str
        default: ''
      password_file:
        description: File on the host with the password in its first line; mode 0600.
        type: path
        default: ''
      ssl_mode:
        description: How a TCP connection is protected.
        type: str
        choices: [prefer, require, verify-ca, verify-full]
        default: prefer
      ssl_root_certificate:
        description: File with the certificates of the authorities that the server's certificate is checked against.
        type: path
        default: ''
      connect_timeout_seconds:
        description: Longest wait for a session.
        type: int
        default: 10
      connect_database:
        description: Database to connect to for what concerns the whole server.
        type: str
        default: postgres
      databases:
        description: Databases to work on; none means all that allow connections and are no templates.
        type: list
        elements: str
        default: []
"""

    # Annotated, so that ansible-test does not take it for a literal.
    OPTIONAL: str = DOCUMENTATION.replace("required: true", "default: []", 1)

    _SERVER: str = DOCUMENTATION.partition("    suboptions:\n")[2]

    SNAPSHOT: str = f"""
options:
  postgresql:
    description:
      - PostgreSQL servers, version 13 or newer, whose databases belong to the snapshot, together with roles and tablespaces; a rollback
        wants them under the same names. Needs psycopg 3 or psycopg2 on the host, and PostgreSQL's client programs of the server's
        version or newer.
    type: list
    elements: dict
    default: []
    suboptions:
{_SERVER}
      format:
        description: Format of the dumps. Only V(directory) is written by several processes.
        type: str
        choices: [custom, directory]
        default: custom
      jobs:
        description: Processes that dump (format V(directory)) and restore at once.
        type: int
        default: 2
      sentinels:
        description:
          - Tables (C(schema.table), letter case as in the catalog) that have to be there. Their rows are counted at the moment of the dump.
        type: list
        elements: str
        default: []
      copy_as:
        description:
          - A second copy for people, mode 0600, with C({{time}}) in its name and C({{database}}) where there are several. Format V(custom) only.
        type: str
        default: ''
      encrypt_command:
        description:
          - Argument list of a program that encrypts that copy for somebody else, who keeps the key. Empty keeps it in clear.
        type: list
        elements: str
        default: []
"""

    RESTORE: str = f"""
options:
  server:
    description:
      - The PostgreSQL server, version 13 or newer. Needs psycopg 3 or psycopg2 on the host, and PostgreSQL's client programs.
        Its C(databases) are not used here; see O(database).
    type: dict
    required: true
    suboptions:
{_SERVER}
      jobs:
        description: Processes that restore a custom or directory archive at once.
        type: int
        default: 2
      sentinels:
        description: Tables (C(schema.table), letter case as in the catalog) that have to be in the backup.
        type: list
        elements: str
        default: []
"""

    MINOR: str = f"""
options:
  servers:
    description:
      - The PostgreSQL servers of this host, version 13 or newer. Needs psycopg 3 or psycopg2 on the host, and a role that is a member of
        C(pg_monitor). All clusters of a major version that run on the host have to be named, as they share the packages.
    type: list
    elements: dict
    default: []
    suboptions:
{_SERVER}
      replicas_expected:
        description: How many replicas have to be connected while this server is the primary.
        type: int
        default: 0
"""
