# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: what roles may beyond their data, whose passwords never end, and whether pg_hba.conf is what is in force."""

from __future__ import annotations

import typing as t

from .postgresql import Row
from .postgresql_review_access import fetch_rules
from .postgresql_review_common import About, Check, Fault, Look, Wording, found
from .record import Finding

_WEIGHTY = (
    "pg_execute_server_program",
    "pg_write_server_files",
    "pg_read_server_files",
    "pg_write_all_data",
    "pg_read_all_data",
    "pg_maintain",
    "pg_create_subscription",
)
"""Predefined roles that reach beyond what was granted by name."""

RIGHTS = """
WITH RECURSIVE within AS (
  SELECT member, roleid FROM pg_auth_members
  UNION
  SELECT w.member, m.roleid FROM within w JOIN pg_auth_members m ON m.member = w.roleid
)
SELECT r.rolname AS name, r.rolsuper AS is_super, r.rolcanlogin AS logs_in, r.rolcreaterole AS makes_roles, r.rolcreatedb AS makes_databases,
       r.rolreplication AS replicates, r.rolbypassrls AS bypasses, NULLIF(r.rolvaliduntil, 'infinity')::text AS until,
       ARRAY(SELECT g.rolname::text FROM within w JOIN pg_roles g ON g.oid = w.roleid WHERE w.member = r.oid ORDER BY 1) AS groups,
       ARRAY(SELECT g.rolname::text FROM within w JOIN pg_roles g ON g.oid = w.roleid WHERE w.member = r.oid AND g.rolsuper ORDER BY 1)
         AS super_groups,
       ARRAY(SELECT concat_ws(', ', CASE WHEN g.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN g.rolcreatedb THEN 'CREATEDB' END,
                                    CASE WHEN g.rolreplication THEN 'REPLICATION' END, CASE WHEN g.rolbypassrls THEN 'BYPASSRLS' END)
                    || ' through ' || g.rolname
             FROM within w JOIN pg_roles g ON g.oid = w.roleid
             WHERE w.member = r.oid AND NOT g.rolsuper AND (g.rolcreaterole OR g.rolcreatedb OR g.rolreplication OR g.rolbypassrls)
             ORDER BY g.rolname) AS through
FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1"""

MAY_STAT = """
SELECT has_function_privilege('pg_stat_file(text)', 'EXECUTE') AND r.rolsuper
       OR has_function_privilege('pg_stat_file(text)', 'EXECUTE') AND pg_has_role(current_user, 'pg_read_server_files', 'USAGE')
          AND pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') AS may
FROM pg_roles r WHERE r.rolname = current_user"""

LOADED = """
SELECT pg_conf_load_time() AS loaded, max((pg_stat_file(file)).modification) AS changed
FROM (SELECT current_setting('hba_file') AS file {more}) files"""

RIGHT = Wording(
    "postgresql.role_rights",
    "only superusers and declared roles may more than was granted to them by name",
    "roles may more than was granted to them by name, and are not declared",
    "Take the right from them (ALTER ROLE …, REVOKE … FROM …), or declare them in privileged_roles.",
    counted=True,
)
EXPIRY = Wording(
    "postgresql.role_expiry",
    "every role that may log in has an end, or may be without one",
    "roles may log in for ever",
    "ALTER ROLE … VALID UNTIL, or declare them in roles_without_expiry.",
    counted=True,
)
IN_FORCE = Wording(
    "postgresql.hba_loaded",
    "the server has loaded pg_hba.conf as it stands",
    "the server does not follow pg_hba.conf as it stands",
    "Correct the lines with an error, then SELECT pg_reload_conf() and look again.",
    counted=True,
)


def _rights(row: Row) -> list[str]:
    said = {
        "CREATEROLE": row["makes_roles"],
        "CREATEDB": row["makes_databases"],
        "REPLICATION": row["replicates"],
        "BYPASSRLS": row["bypasses"],
    }
    groups = [f"through {name}, a superuser" for name in row["super_groups"]]
    groups += row["through"]  # SET ROLE gives a member what its group may
    groups += [f"member of {name}" for name in row["groups"] if name in _WEIGHTY]
    return [name for name, has in said.items() if has] + groups


def role_line(row: Row) -> str:
    """Say everything of one role in a line."""
    parts = ["superuser"] if row["is_super"] else []
    parts += _rights(row) if not row["is_super"] else []
    parts += [f"until {row['until'][:10]}" if row["until"] else "no end"] if row["logs_in"] else ["no log-in"]
    others = [name for name in row["groups"] if name not in _WEIGHTY and name not in row["super_groups"]]
    return f"{row['name']}: {', '.join([*parts, *(f'member of {name}' for name in others)])}"


def judge_rights(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Name roles with a right that reaches far; superusers have a finding of their own."""
    declared = set(about.params.get("privileged_roles") or ())
    about.count("roles", len(rows))
    faults = [
        Fault(f"{row['name']}: {', '.join(rights)}", len(rights))
        for row, rights in ((row, _rights(row)) for row in rows if not row["is_super"] and row["name"] not in declared)
        if rights
    ]
    return found(about, RIGHT, faults, also=[role_line(row) for row in rows])


def judge_expiry(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Name roles that may log in and have no end."""
    allowed = set(about.params.get("roles_without_expiry") or ())
    endless = [row["name"] for row in rows if row["logs_in"] and not row["until"] and row["name"] not in allowed]
    return found(about, EXPIRY, [Fault(name) for name in endless])


def fetch_in_force(look: Look) -> Row:
    """Read when the configuration was loaded and when its files changed, as far as the role may."""
    rules = fetch_rules(look)
    facts: Row = {"errors": None if rules is None else sum(bool(row["error"]) for row in rules), "loaded": None, "changed": None}
    if look.rows(MAY_STAT)[0]["may"]:
        included = rules is not None and look.about.major >= 16  # since then other files can be included
        more = "UNION SELECT file_name FROM pg_hba_file_rules" if included else ""
        facts.update(look.rows(LOADED.replace("{more}", more))[0])
    return facts


def judge_in_force(about: About, facts: Row) -> list[Finding]:
    """The view shows the file; say whether the server has loaded that file."""
    faults = []
    if facts["errors"]:
        faults.append(Fault(f"{facts['errors']} lines have an error, so that rules loaded before stay in force", 2))
    if facts["loaded"] and facts["changed"] > facts["loaded"]:
        faults.append(
            Fault(f"it was changed at {facts['changed']:%Y-%m-%d %H:%M:%S}, and loaded at {facts['loaded']:%Y-%m-%d %H:%M:%S}", 1)
        )
    wanting = [] if facts["loaded"] else ["when the file was changed, for want of pg_read_server_files and pg_read_all_settings"]
    wanting += ["errors in the file, for want of SELECT on pg_hba_file_rules"] if facts["errors"] is None else []
    remedy = "Run the review as a superuser once, or accept this with a waiver."
    return found(about, IN_FORCE, faults, unseen="; ".join(wanting), remedy=remedy)


def _bad_role() -> list[Row]:
    rights = dict.fromkeys(("logs_in", "makes_roles", "makes_databases", "replicates", "bypasses"), True)
    return [{"name": "r", "is_super": False, "until": None, "groups": [], "super_groups": [], "through": [], **rights}]


def _bad_load() -> Row:
    now = About("").now
    return {"errors": 1, "loaded": now, "changed": now}


CHECKS = (
    Check((RIGHT.id,), lambda look: look.rows(RIGHTS), judge_rights, _bad_role),
    Check(
        (EXPIRY.id,),
        lambda look: look.rows(RIGHTS),
        judge_expiry,
        _bad_role,
        declared=lambda params: params["roles_without_expiry"] is not None,
    ),
    Check((IN_FORCE.id,), fetch_in_force, judge_in_force, _bad_load),
)
