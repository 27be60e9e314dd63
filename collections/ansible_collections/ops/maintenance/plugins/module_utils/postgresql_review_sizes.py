# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: how large every relation is, by its file or, where the role may not see that, by the server."""

from __future__ import annotations

import typing as t

from .postgresql import LOCK_NOT_AVAILABLE, Row, StatementError
from .postgresql_review_common import Look, filled

# An empty index or TOAST table has the planner's size, for there are thousands of them. What belongs together is added up
# here: joins of thousands of rows without statistics are slow.
SIZES = {
    "oid": "c.oid",
    "table_oid": "c.table_oid",
    "pages": "c.relpages",
    "guessed": "c.guessed",
    "main": "CASE WHEN c.guessed OR c.empty THEN c.relpages * current_setting('block_size')::bigint ELSE coalesce({main}, 0) END",
    "maps": "CASE WHEN c.guessed OR c.empty OR c.relkind = 'i' OR c.relpages BETWEEN 1 AND 4 THEN 0 ELSE coalesce({fsm}, 0) + coalesce({vm}, 0) END",
}
RELATIONS = """(
  SELECT c.oid::bigint AS oid, i.indrelid::bigint AS table_oid, c.relkind, c.relpages, {guessed} AS guessed,
         c.relkind IN ('i', 't') AND c.relpages <= 1
           AND pg_stat_get_live_tuples(coalesce(i.indrelid, c.oid)) + pg_stat_get_dead_tuples(coalesce(i.indrelid, c.oid)) = 0 AS empty
  FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
  WHERE c.relkind IN ('r', 'm', 't', 'i') AND c.relpersistence <> 't' AND c.oid >= 16384 AND {wanted}
  OFFSET 0) c"""

# To look at the files is the quickest way and needs no lock, but is for superusers.
MAY_SEE_FILES = "SELECT has_function_privilege('pg_catalog.pg_stat_file(text, boolean)', 'EXECUTE') AS may"
BY_FILE = {
    "main": "(pg_stat_file(pg_relation_filepath(c.oid::oid), true)).size",
    "fsm": "(pg_stat_file(pg_relation_filepath(c.oid::oid) || '_fsm', true)).size",
    "vm": "(pg_stat_file(pg_relation_filepath(c.oid::oid) || '_vm', true)).size",
    "guessed": "false",
}
# A relation that is locked exclusively would make us wait: its size is the planner's last one.
BY_LOCK = {
    "main": "pg_relation_size(c.oid::oid)",
    "fsm": "pg_relation_size(c.oid::oid, 'fsm')",
    "vm": "pg_relation_size(c.oid::oid, 'vm')",
    "guessed": """c.oid IN (
    SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND relation IS NOT NULL)""",
}
FILE_BYTES = 2**30
"""What a relation's first file holds at the most; of larger ones the server has to add up the files."""


def fetch_sizes(look: Look) -> list[Row]:
    """Read the size of every relation: by its file where the role may, and by the server where that does not tell."""
    if "sizes" not in look.once:
        sizes = {}
        if look.rows(MAY_SEE_FILES)[0]["may"]:
            sizes = {row["oid"]: row for row in _sizes(look, BY_FILE)}
        # A file that is gone was written anew meanwhile.
        unsure = [row["oid"] for row in sizes.values() if row["main"] >= FILE_BYTES or (row["pages"] and not row["main"])]
        if unsure or not sizes:
            sizes.update({row["oid"]: row for row in _sizes_by_lock(look, unsure)})
        look.once["sizes"] = list(sizes.values())
    return look.once["sizes"]


def _sizes(look: Look, way: t.Mapping[str, str], wanted: str = "true") -> list[Row]:
    columns = {name: filled(value, **way) for name, value in SIZES.items()}
    return look.many(columns, filled(RELATIONS, wanted=wanted, guessed=way["guessed"]))


def _sizes_by_lock(look: Look, oids: t.Sequence[int]) -> list[Row]:
    """Ask the server for the size of these relations, or of all; where a lock is in the way after all, for the planner's."""
    wanted = f"c.oid IN ({', '.join(str(oid) for oid in oids)})" if oids else "true"
    try:
        return _sizes(look, BY_LOCK, wanted)
    except StatementError as error:
        if error.sqlstate != LOCK_NOT_AVAILABLE:
            raise
    return _sizes(look, {**BY_LOCK, "guessed": "true"}, wanted)
