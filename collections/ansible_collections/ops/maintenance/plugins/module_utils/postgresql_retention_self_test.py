# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put planted bad rules, tables and archives before what guards rows, and their sound twins, before any row is removed."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .errors import refusal
from .postgresql import Session
from .postgresql_retention_rules import RULE, children_first, parse, rows_to_keep
from .postgresql_retention_tables import Column, Facts, Reference, Table, column_faults
from .postgresql_retention_work import BIG_TABLE_ROWS, Plan, Terms

_DATE = Column("timestamp with time zone", "timestamp with time zone", -1, True, False, False)
_TEXT = Column("character varying(20)", "character varying", 24, False, False, False)
_COLUMNS = {"at": _DATE, "said": _TEXT}
_NAME = ("public", "sample")
_TABLE = Table(1, _NAME, "r", "owner", _COLUMNS, ["id"], [_NAME], [1], 10.0 * BIG_TABLE_ROWS, False, False, {"at"})
_REFERENCE = Reference("of_sample", "c", ("public", "child"), 2, [("id", "=", "sample_id")], 10.0, True, True)
_RULE: dict[str, t.Any] = {
    **{name: option.get("default") for name, option in RULE.items()},
    "server": "main",
    "database": "sample",
    "table": "sample",
    "column": "at",
    "age_days": 30.0,
    "archive_table": "",
}


def self_test() -> list[str]:
    """Return which guards were wrong; empty when they can be relied on."""
    return [words for words, is_right in _judged() if not is_right]


def _judged() -> t.Iterator[tuple[str, bool]]:
    for words, bad in (
        ("an age that is too low", {"age_days": 0.5}),
        ("an archive that is the table itself", {"archive_table": "public.sample"}),
        ("a server that is not declared", {"server": "other"}),
    ):
        yield words, bool(refusal(parse, [{**_RULE, **bad}], ["main"])) and not refusal(parse, [_RULE], ["main"])
    yield "too large a share", rows_to_keep(95, 0, 60.0) > 5 and rows_to_keep(95, 200, 60.0) == 200 and rows_to_keep(5, 0, 60.0) <= 5
    yield "an archive without a column", _unfit({"at": _DATE})
    yield "an archive whose column is too narrow", _unfit({**_COLUMNS, "said": replace(_TEXT, length=14)})
    yield "an archive that wants more", _unfit({**_COLUMNS, "more": replace(_TEXT, required=True)})
    yield "a big table without an index", bool(_plan(replace(_TABLE, indexed=set())).scan_needed) and not _plan(_TABLE).scan_needed
    yield "rows that others refer to", _plan(_TABLE, _REFERENCE).holding == [_REFERENCE] and not _plan(_TABLE).holding
    yield "the order of tables", children_first(["parent", "child"], {"child": {"parent"}}) == ["child", "parent"]


def _unfit(archive: dict[str, Column]) -> bool:
    return bool(column_faults(_COLUMNS, archive)) and not column_faults(_COLUMNS, _COLUMNS)


def _plan(table: Table, *references: Reference) -> Plan:
    facts = Facts(parse([_RULE], ["main"])[0], table=table, references=list(references))
    return Plan(facts, Terms(t.cast(Session, None), facts, 0))
