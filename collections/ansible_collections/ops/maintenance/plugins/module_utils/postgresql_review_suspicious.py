# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: statements that no earlier run saw, and what is suspicious about them: who, what, how much."""

from __future__ import annotations

import hashlib
import re
import typing as t

from .judge import many
from .postgresql import Row, extension_schema
from .postgresql_review_common import MARK, About, Check, Fault, Look, Wording, found
from .postgresql_review_statements import normalised
from .record import Finding

STATEMENTS = """
SELECT pg_get_userbyid(s.userid)::text AS role, s.queryid::text AS queryid, coalesce(left(s.query, 2000), '{hidden}') AS query, sum(s.calls)::bigint AS calls,
       sum(s.rows)::bigint AS rows
FROM {view} s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.calls > 0
      AND (s.userid <> (SELECT oid FROM pg_roles WHERE rolname = current_user) OR s.query IS NULL OR s.query NOT LIKE %s)
GROUP BY 1, 2, 3 ORDER BY 1, 2"""

SUSPICIOUS = Wording(
    "postgresql.suspicious_statements",
    "nothing new is suspicious",
    "new statements are suspicious",
    "Ask the owner of the role whether it was meant; else withdraw the role's rights and treat the host as intruded.",
    counted=True,
)
_NEVER_MEANT = re.compile(
    r"(?i)\bcopy\b.*\bprogram\b|\bpg_read_(?:binary_)?file\b|\bpg_ls_dir\b|\blo_(?:import|export)\b|\bpg_(?:authid|shadow)\b"
)
_CHANGES = re.compile(
    r"(?i)^\W*(?:create|alter|drop|truncate|grant|revoke|comment|security\s+label|reassign|import\s+foreign|copy|load|do|set\s+(?:session|role))\b"
)
_IN_BLOCK = re.compile(r"(?i)^\W*do\b")
_HIDDEN = "<insufficient privilege>"
_KEPT = 20_000


def fetch(look: Look) -> Row:
    """Read every statement that is counted for this database; a reason where none is."""
    schema = extension_schema(look.session, "pg_stat_statements")
    if not schema:
        return {"why": "the extension pg_stat_statements is not in this database, so statements are not counted"}
    view = look.session.identifier(schema, "pg_stat_statements")
    return {"rows": look.rows(STATEMENTS.replace("{view}", view).replace("{hidden}", _HIDDEN), [f"%{MARK}%"])}


def _key(row: Row) -> str:
    return hashlib.sha256(f"{row['role']} {row['queryid']}".encode()).hexdigest()[:16]


def doubts(row: Row, new_role: bool, schema_roles: t.Container[str], bulk_rows: float) -> list[str]:
    """Say what is suspicious about a new statement."""
    text = normalised(row["query"], 2000)
    whole = " ".join(row["query"].split()) if _IN_BLOCK.match(text) else text
    said = ["reaches beyond the database's tables"] if _NEVER_MEANT.search(whole) else []
    said += ["the first statement of this role here"] if new_role else []
    if row["role"] in schema_roles:
        return said
    said += ["changes schema or rights, or copies a table"] if _CHANGES.search(text) else []
    return said + ([f"{row['rows'] // row['calls']} rows a call"] if row["rows"] / row["calls"] >= bulk_rows else [])


def judge(about: About, facts: Row) -> list[Finding]:
    """Compare with the statements that earlier runs met; the first run learns them."""
    if "why" in facts:
        return found(about, SUSPICIOUS, [], unseen=facts["why"], remedy="CREATE EXTENSION pg_stat_statements in it.")
    rows = [row for row in facts["rows"] if row["query"] != _HIDDEN]
    hidden = len(facts["rows"]) - len(rows)
    unseen = f"the text of {many(hidden, 'statement')}" if hidden else ""
    remedy = "GRANT pg_read_all_stats to the role of the review."
    kept = about.kept.get("statements_met")
    met = set(kept["keys"]) if kept else set()
    roles = set(kept["roles"]) if kept else set()
    known = met | {_key(row) for row in rows}
    about.keep["statements_met"] = {
        "keys": sorted(known if len(known) <= _KEPT else {_key(row) for row in rows}),
        "roles": sorted(roles | {row["role"] for row in rows}),
    }
    if kept is None:
        fine, before = f"first sight of {len(rows)} statements", "statements before this run"
        return found(about, SUSPICIOUS, [], unseen=unseen, remedy=remedy, fine=fine, not_covered=before)
    new = [row for row in rows if _key(row) not in met]
    schema_roles = about.params.get("schema_roles") or ()
    faults = []
    for row in new:
        said = doubts(row, row["role"] not in roles, schema_roles, about.limits["bulk_rows"])
        if said:
            faults.append(Fault(f"{row['role']}: {normalised(row['query'], 100)} ({'; '.join(said)})", len(said)))
    fine = f"{len(new)} of {len(rows)} statements are new, none of them is suspicious"
    also = [f"new: {row['role']}: {normalised(row['query'], 120)}" for row in new]
    return found(about, SUSPICIOUS, faults, also=also, fine=fine, unseen=unseen, remedy=remedy)


def _sample() -> Row:
    return {"rows": [{"role": "r", "queryid": "1", "query": "COPY t TO PROGRAM 'x'", "calls": 1, "rows": 10**6}]}


CHECKS = (
    Check(
        (SUSPICIOUS.id,),
        fetch,
        judge,
        _sample,
        sample_kept={"statements_met": {"keys": [], "roles": []}},
        stats=True,
        declared=lambda params: bool(params["watch_statements"]),
    ),
)
