# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: how large every relation is, by its file or, where the role may not see that, by the server."""

from __future__ import annotations

import typing as t

from .postgresql import LOCK_NOT_AVAILABLE, Row, StatementError
from .postgresql_review_common import Look, filled

# An empty index or TOAST table has the planner's size, for there are thousands of them; without counters of a table that has
# a file with something in it nobody knows whether they are empty, so that they are asked for after all. What belongs together is added up
# here: joins of thousands of rows without statistics are slow.
SIZES = {
    "oid": "c.oid",
    "table_oid": "c.table_oid",
    "toast": "c.toast",
    "pages": "c.relpages",
    "uncounted": "c.uncounted",
    "empty": "c.empty",
    "guessed": "c.guessed",
    "main": "CASE WHEN c.guessed OR c.empty THEN c.relpages * current_setting('block_size')::bigint ELSE coalesce({main}, 0) END",
    "maps": "CASE WHEN c.guessed OR c.empty OR c.relkind = 'i' OR c.relpages BETWEEN 1 AND 4 THEN 0 ELSE coalesce({fsm}, 0) + coalesce({vm}, 0) END",
}
RELATIONS = """(
  SELECT c.oid::bigint AS oid, i.indrelid::bigint AS table_oid, c.reltoastrelid::bigint AS toast, c.relkind, c.relpages,
         {guessed} AS guessed, u.uncounted, {shortcut} AND c.relkind IN ('i', 't') AND c.relpages <= 1 AND u.uncounted AS empty
  FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid CROSS JOIN LATERAL (
    SELECT pg_stat_get_live_tuples(coalesce(i.indrelid, c.oid)) + pg_stat_get_dead_tuples(coalesce(i.indrelid, c.oid)) = 0 AS uncounted) u
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
        read = _by_file if look.rows(MAY_SEE_FILES)[0]["may"] else _by_lock
        sizes = {row["oid"]: row for row in read(look, ())}
        again = _perhaps_not_empty(sizes.values())
        if again:
            sizes.update({row["oid"]: row for row in read(look, again)})
        look.once["sizes"] = list(sizes.values())
    return look.once["sizes"]


def _perhaps_not_empty(rows: t.Collection[Row]) -> list[int]:
    """Return the indexes and TOAST tables taken for empty of tables that are not, and of which nothing was counted."""
    lost = [row for row in rows if row["uncounted"] and row["main"] and row["table_oid"] is None and not row["empty"]]
    toasts = {row["toast"] for row in lost}
    tables = toasts | {row["oid"] for row in lost}
    return [row["oid"] for row in rows if row["empty"] and (row["table_oid"] in tables or row["oid"] in toasts)]


def _by_file(look: Look, oids: t.Sequence[int]) -> list[Row]:
    sizes = {row["oid"]: row for row in _sizes(look, BY_FILE, oids)}
    # A file that is gone was written anew meanwhile.
    unsure = [row["oid"] for row in sizes.values() if row["main"] >= FILE_BYTES or (row["pages"] and not row["main"])]
    if unsure:
        sizes.update({row["oid"]: row for row in _by_lock(look, unsure)})
    return list(sizes.values())


def _by_lock(look: Look, oids: t.Sequence[int]) -> list[Row]:
    """Ask the server for the size of these relations, or of all; where a lock is in the way after all, for the planner's."""
    try:
        return _sizes(look, BY_LOCK, oids)
    except StatementError as error:
        if error.sqlstate != LOCK_NOT_AVAILABLE:
            raise
    return _sizes(look, {**BY_LOCK, "guessed": "true"}, oids)


def _sizes(look: Look, way: t.Mapping[str, str], oids: t.Sequence[int]) -> list[Row]:
    """Read sizes of all relations, with the short cut for empty ones, or of these, which are looked at whatever they seem."""
    wanted = f"c.oid IN (SELECT unnest('{{{', '.join(str(oid) for oid in oids)}}}'::oid[]))" if oids else "true"
    columns = {name: filled(value, **way) for name, value in SIZES.items()}
    return look.many(columns, filled(RELATIONS, wanted=wanted, guessed=way["guessed"], shortcut="false" if oids else "true"))
