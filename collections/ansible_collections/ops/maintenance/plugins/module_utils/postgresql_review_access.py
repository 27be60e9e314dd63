# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: who may do everything, who may log in and from where, how passwords are kept."""

from __future__ import annotations

import ipaddress
import typing as t

from .postgresql import Row
from .postgresql_review_common import DAY, About, Check, Fault, Look, Wording, found
from .record import Finding

ROLES = """
SELECT r.rolname AS name, r.rolsuper AS is_super, r.rolcanlogin AS logs_in, r.rolvaliduntil < now() AS is_expired,
       r.rolvaliduntil::text AS until, r.oid::text AS oid,
       EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid) AS is_here
FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1"""

MAY_READ = """
SELECT has_table_privilege('pg_authid', 'SELECT') AS hashes,
       has_table_privilege('pg_hba_file_rules', 'SELECT') AND has_function_privilege('pg_hba_file_rules()', 'EXECUTE') AS rules"""

HASHES = """
SELECT rolname AS name, rolpassword LIKE 'md5%' AS is_md5 FROM pg_authid WHERE rolcanlogin AND rolpassword IS NOT NULL ORDER BY 1"""

RULES = """
SELECT line_number AS line, type, database AS databases, user_name AS users, address, netmask, auth_method AS method, error
FROM pg_hba_file_rules ORDER BY line_number"""

SUPERUSERS = Wording(
    "postgresql.superusers",
    "only the declared roles are superusers",
    "roles are superusers that are not declared",
    "ALTER ROLE … NOSUPERUSER, with the privileges that it really needs; or declare it in superusers.",
    counted=True,
)
UNUSED = Wording(
    "postgresql.unused_roles",
    "every role that may log in does",
    "roles may log in and were never seen",
    "Ask whose they are, then ALTER ROLE … NOLOGIN; drop them when nobody missed them.",
    counted=True,
    basis="estimated",
)
EXPIRED = Wording(
    "postgresql.expired_roles",
    "no role has expired",
    "roles have expired",
    "Drop them, or renew them with ALTER ROLE … VALID UNTIL; expiry stops passwords only, not peer or certificate.",
    counted=True,
)
PASSWORDS = Wording(
    "postgresql.password_encryption",
    "passwords are kept as SCRAM-SHA-256",
    "weaknesses in how passwords are kept",
    "Set password_encryption to scram-sha-256, then set these passwords anew.",
    counted=True,
)
HBA = Wording(
    "postgresql.hba",
    "no rule of pg_hba.conf is too open",
    "rules of pg_hba.conf are too open, or wrong",
    "Name addresses, databases and roles; authenticate with scram-sha-256 over hostssl, or with peer on the socket.",
    counted=True,
)
_WEAK = {"password": "sends the password as it is", "md5": "can be broken from what is stored", "ident": "believes the other host"}


def judge_superusers(about: About, roles: t.Sequence[Row]) -> list[Finding]:
    """Name superusers that the inventory does not declare."""
    declared = set(about.params.get("superusers", ()))
    supers = [row["name"] for row in roles if row["is_super"]]
    about.count("superusers", len(supers))
    faults = [Fault(row["name"], float(row["logs_in"])) for row in roles if row["is_super"] and row["name"] not in declared]
    return found(about, SUPERUSERS, faults, also=supers)


def fetch_use(look: Look) -> Row:
    """Read roles; which of them ran a statement that is still counted is read with the statements."""
    return {"roles": look.rows(ROLES), "statements": look.shared.setdefault("statements", {})}


def judge_use(about: About, facts: Row) -> list[Finding]:
    """Judge which roles were never seen; PostgreSQL keeps no last login, so runs remember whom they met."""
    now, days = about.now.timestamp(), about.limits["role_unused_days"]
    kept, ran = about.kept.get("roles", {}), facts["statements"].get("ran", ())
    keep, faults, young = {}, [], []
    for row in facts["roles"]:
        if not row["logs_in"]:
            continue
        seen = row["is_here"] or row["oid"] in ran
        first, last = kept.get(row["name"], [now, 0])
        last = now if seen else last
        keep[row["name"]] = [first, last]
        quiet = (now - max(first, last)) / DAY
        if seen or (last and quiet < days):
            continue
        if quiet >= days:
            since = f"for {quiet:.0f} days" if last else f"in {quiet:.0f} days of runs"
            faults.append(Fault(f"{row['name']} was not seen {since}", quiet))
        else:
            young.append(row["name"])
    about.keep["roles"] = keep
    threshold = f"warning when not seen for {days:g} days"
    wording = Wording(UNUSED.id, UNUSED.fine, UNUSED.wrong, UNUSED.advice, "count", threshold, counted=True, basis="estimated")
    unseen = f"{len(young)} roles were not seen yet, but are watched for less than {days:g} days: {', '.join(young[:3])}" if young else ""
    gap = "logins between runs of roles whose statements are not counted"
    return found(about, wording, faults, unseen=unseen, remedy="Nothing now; later runs will tell.", not_covered=gap)


def judge_expired(about: About, roles: t.Sequence[Row]) -> list[Finding]:
    """Name roles whose time is over and that may still log in."""
    expired = [row for row in roles if row["is_expired"] and row["logs_in"]]
    return found(about, EXPIRED, [Fault(f"{row['name']}, valid until {row['until'][:10]}") for row in expired])


def fetch_passwords(look: Look) -> Row:
    """Read how passwords are stored, where the role may."""
    may = look.rows(MAY_READ)[0]["hashes"]
    return {"hashes": look.rows(HASHES) if may else None}


def judge_passwords(about: About, facts: Row) -> list[Finding]:
    """Judge how new passwords are stored, and how the present ones are."""
    method = about.settings.get("password_encryption", "")
    faults = [] if method == "scram-sha-256" else [Fault(f"password_encryption is {method}", 2)]
    hashes = facts["hashes"]
    faults += [Fault(f"{row['name']} has an MD5 password", 1) for row in hashes or () if row["is_md5"]]
    unseen = "" if hashes is not None else "the passwords that are stored now, for want of SELECT on pg_authid (superusers have it)"
    return found(about, PASSWORDS, faults, unseen=unseen, remedy="Run the review as a superuser once, or accept this with a waiver.")


# -- pg_hba.conf --


def fetch_rules(look: Look) -> list[Row] | None:
    """Read the rules of pg_hba.conf; None where the role may not."""
    return look.rows(RULES) if look.rows(MAY_READ)[0]["rules"] else None


def prefix_of(netmask: str) -> int:
    """Return the length of a network's prefix, which ``ipaddress`` does not read from an IPv6 mask."""
    return bin(int(ipaddress.ip_address(netmask))).count("1")


def is_everywhere(address: str | None, netmask: str | None) -> bool:
    """Whether a rule's address takes in a large part of the internet."""
    try:
        return address == "all" or (bool(netmask) and prefix_of(str(netmask)) < 8)
    except ValueError:
        return False


def is_loopback(address: str | None, netmask: str | None) -> bool:
    """Whether a rule is for this host only."""
    if is_everywhere(address, netmask):
        return False
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return address in ("samehost", "localhost")


def rule_faults(row: Row) -> t.Iterator[Fault]:
    """Say what is wrong with one rule."""
    place = f"line {row['line']}"
    if row["error"]:
        yield Fault(f"{place}: {row['error']}; it is not in force", 1)
        return
    what = f"{place} ({row['type']} {','.join(row['databases'] or ())} {','.join(row['users'] or ())} {row['address'] or ''})".replace(
        " )", ")"
    )
    away = row["type"] != "local" and not is_loopback(row["address"], row["netmask"])
    if row["method"] == "reject":
        return
    if row["method"] == "trust":
        yield Fault(f"{what}: trust lets everybody in without a password", 3 if away else 2, "critical" if away else "warning")
    if row["type"] != "local" and is_everywhere(row["address"], row["netmask"]):
        yield Fault(f"{what}: open to every address, {row['method']}", 2)
    if row["method"] in _WEAK and not (row["method"] == "password" and row["type"] == "hostssl"):
        yield Fault(f"{what}: {row['method']} {_WEAK[row['method']]}", 1)


def judge_rules(about: About, rows: t.Sequence[Row] | None) -> list[Finding]:
    """Judge every rule of pg_hba.conf."""
    if rows is None:
        remedy = "GRANT SELECT ON pg_hba_file_rules and EXECUTE ON FUNCTION pg_hba_file_rules() to the review's role."
        return found(about, HBA, [], unseen="pg_hba.conf, for want of SELECT on pg_hba_file_rules (superusers have it)", remedy=remedy)
    faults = [fault for row in rows for fault in rule_faults(row)]
    return found(
        about, HBA, faults, fine=f"{len(rows)} rules of pg_hba.conf, none too open", not_covered="rules that other rules before them hide"
    )


def _bad_role() -> Row:
    return {"name": "r", "is_super": True, "logs_in": True, "is_expired": True, "until": "2000-01-01", "oid": "1", "is_here": False}


def _bad_rule() -> list[Row]:
    row = {"line": 1, "type": "host", "databases": ["all"], "users": ["all"], "address": "::", "netmask": "::", "method": "trust"}
    return [{**row, "error": None}]


def _roles(look: Look) -> list[Row]:
    return look.rows(ROLES)


CHECKS = (
    Check((SUPERUSERS.id,), _roles, judge_superusers, lambda: [_bad_role()]),
    Check(
        (UNUSED.id,),
        fetch_use,
        judge_use,
        lambda: {"roles": [_bad_role()], "statements": {}},
        sample_kept={"roles": {"r": [0, 0]}},
        stats=True,
    ),
    Check((EXPIRED.id,), _roles, judge_expired, lambda: [_bad_role()]),
    Check((PASSWORDS.id,), fetch_passwords, judge_passwords, lambda: {"hashes": [{"name": "r", "is_md5": True}]}),
    Check((HBA.id,), fetch_rules, judge_rules, _bad_rule),
)
