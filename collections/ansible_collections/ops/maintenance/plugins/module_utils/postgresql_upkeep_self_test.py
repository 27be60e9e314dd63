# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge planted bad tables, indexes and settings, and their sound twins, before the upkeep's word is believed."""

from __future__ import annotations

import os
import tempfile
import typing as t
from dataclasses import replace
from datetime import datetime, timezone

from . import postgresql_upkeep_indexes as indexes_of
from . import postgresql_upkeep_settings as settings_of
from . import postgresql_upkeep_tables as tables_of
from .postgresql_upkeep_indexes import Index
from .postgresql_upkeep_options import Limits
from .postgresql_upkeep_plan import no_room
from .postgresql_upkeep_settings import Setting
from .postgresql_upkeep_tables import Table

_PAGE = 8192
_LIMITS = Limits(10.0, 1000, 100_000_000, 10.0, 1000, "online", 50.0, 100_000, 50.0)
_THEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
_TABLE = Table(1, "public", "sample", "r", False, 100 * _PAGE, 10_000, 0, 0, _THEN, _THEN, None, 1000, True, 0, True)
_INDEX = Index(
    2, 1, "public", "sample_pkey", "public", "sample", "btree", False, True, False, False, False, 100 * _PAGE, 100 * _PAGE, 10_000.0, _PAGE,
    90, "UNIQUE btree (id)", "", True,
)  # fmt: skip
_COPY = replace(_INDEX, oid=3, name="sample_pkey_ccnew", valid=False)
_OTHER = replace(_INDEX, oid=4, name="other_ccnew", valid=False, definition="btree (other)")
_SETTING = Setting("work_mem", "8MB", "integer", "kB", "user", "configuration file", "8192", "8192", False)


def self_test() -> list[str]:
    """Return what was judged wrong; empty when the upkeep can be believed."""
    return [words for words, is_right in _judged() if not is_right]


def _judged() -> t.Iterator[tuple[str, bool]]:
    yield "dead rows", _tells(tables_of.vacuum_reason, replace(_TABLE, dead=9000))
    yield "old transactions", _tells(tables_of.vacuum_reason, replace(_TABLE, frozen_age=2_000_000_000))
    yield "a table that was never vacuumed", _tells(tables_of.vacuum_reason, replace(_TABLE, vacuumed=None, analyzed=None))
    yield "a table that was never analysed", _tells(tables_of.analyze_reason, replace(_TABLE, analyzed=None))
    yield "rows that changed", _tells(tables_of.analyze_reason, replace(_TABLE, changed=9000))
    broken = replace(_INDEX, valid=False)
    yield "an invalid index", indexes_of.invalid([broken]) == [broken] and not indexes_of.invalid([_INDEX, _COPY])
    # What is taken for a leftover is dropped, so nothing else may be.
    yield "a leftover of a rebuild", indexes_of.leftovers([_INDEX, _COPY, _OTHER], ()) == [_COPY]
    yield "a bloated index", _bloated(density=9.0) and not _bloated(density=90.0)
    yield "a full disk", _sees_the_disk()
    yield "a setting", replace(_SETTING, configured="4096").due and not _SETTING.due
    memory = 1 << 30
    too_much = settings_of.memory_problems({"shared_buffers": memory}, memory)[0]
    yield "more memory than there is", bool(too_much) and not settings_of.memory_problems({"shared_buffers": memory / 4}, memory)[0]


def _tells(reason: t.Callable[[Table, Limits], str], bad: Table) -> bool:
    return bool(reason(bad, _LIMITS)) and not reason(_TABLE, _LIMITS)


def _sees_the_disk() -> bool:
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        os.mkdir(os.path.join(folder, "pg_wal"))
        return bool(no_room(folder, "", 1 << 62, 0)) and not no_room(folder, "", 0, 0)


def _bloated(density: float) -> bool:
    stat = {"avg_leaf_density": density, "leaf_pages": 98, "internal_pages": 1}
    return indexes_of.is_due(indexes_of.measured(_INDEX, stat), _LIMITS)
