# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs for what is due in one database: the statements, how long they may wait, and how their effect shows."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .judge import human_bytes
from .postgresql import Session
from .postgresql_upkeep_declared import Declared, Extension, create_statement
from .postgresql_upkeep_indexes import Index, measure_index
from .postgresql_upkeep_options import Limits, Params, split_name
from .postgresql_upkeep_tables import Table, holders, is_freeze, measure
from .postgresql_upkeep_work import APPLICATION, Figures, Job
from .record import Json

_PAGE, _DIRTY_COST = 8192, 22
_SKIPPED = "PostgreSQL skipped it without an error; the role has to own the table, or to have MAINTAIN (pg_maintain) from PostgreSQL 17"


@dataclass(frozen=True)
class Planner:
    """Makes jobs for one database; ``where`` is ``server/database``."""

    session: Session
    params: Params
    where: str

    def subject(self, schema: str, name: str) -> str:
        """Say which object of which database is meant."""
        return f"{self.where}: {schema}.{name}"

    def seconds(self, size: float, *, limited: bool = False) -> float:
        """Say how long it takes to work through so many bytes."""
        rate = float(self.params["bytes_per_second"])
        delay = self.params["vacuum_cost_delay_ms"]
        if limited and delay > 0:
            rate = min(rate, self.params["vacuum_cost_limit"] / (delay / 1000) / _DIRTY_COST * _PAGE)
        return 0.5 + size / rate

    def vacuum(self, table: Table, reason: str, limits: Limits) -> Job:
        """Plain VACUUM: the table stays in use."""
        freeze = is_freeze(table, limits)
        options = "(FREEZE) " if freeze else ""
        settings = {"vacuum_cost_delay": f"{self.params['vacuum_cost_delay_ms']:g}ms"}
        settings["vacuum_cost_limit"] = str(self.params["vacuum_cost_limit"])

        def problem(session: Session, before: Figures, after: Figures, started: str) -> str:
            if not after or after["last_vacuum"] == before["last_vacuum"]:
                return _SKIPPED
            rows = after["dead_rows"] + after["live_rows"]
            dead = after["dead_rows"] >= limits.vacuum_dead_rows and 100.0 * after["dead_rows"] / rows >= limits.vacuum_dead_percent
            if dead or (freeze and after["frozen_age"] >= limits.freeze_age):
                held = holders(session, started, APPLICATION)
                if held:
                    left = f"{after['dead_rows']} dead rows" if dead else f"an age of {after['frozen_age']} transactions"
                    return f"it left {left}, which are kept for {'; '.join(held[:5])}; end that, then run again"
            return ""

        return Job(
            self.subject(table.schema, table.name), "vacuum", f"VACUUM {options}{self.session.identifier(table.schema, table.name)}",
            reason, table.oid, self.seconds(2 * table.size, limited=True), lambda s: measure(s, table.oid), problem, settings,
            self.params["concurrent_wait_seconds"],
        )  # fmt: skip

    def vacuum_full(self, table: Table, reason: str, bloat: float, size: int) -> Job:
        """VACUUM FULL: locks the table and writes it anew."""

        def problem(_session: Session, before: Figures, after: Figures, _started: str) -> str:
            return _SKIPPED if not after or after["file"] == before["file"] else ""

        return Job(
            self.subject(table.schema, table.name), "vacuum_full", f"VACUUM (FULL) {self.session.identifier(table.schema, table.name)}",
            reason, table.oid, self.seconds(3 * size), lambda s: measure(s, table.oid), problem, {},
            self.params["lock_timeout_seconds"], {"bloat_percent": round(bloat, 1)},
        )  # fmt: skip

    def analyze(self, table: Table, reason: str) -> Job:
        """ANALYZE; of a partitioned table with all its partitions."""

        def problem(_session: Session, before: Figures, after: Figures, _started: str) -> str:
            # PostgreSQL 13 counts no ANALYZE of a partitioned table.
            countless = table.kind == "p" and after and after["last_analyze"] is None
            return _SKIPPED if not countless and (not after or after["last_analyze"] == before["last_analyze"]) else ""

        return Job(
            self.subject(table.schema, table.name), "analyze", f"ANALYZE {self.session.identifier(table.schema, table.name)}", reason,
            table.oid, self.seconds(min(table.size, 30000 * _PAGE)), lambda s: measure(s, table.oid), problem, {},
            self.params["concurrent_wait_seconds"],
        )  # fmt: skip

    def reindex(self, index: Index, reason: str, note: t.Mapping[str, Json], *, locking: bool = False) -> Job:
        """REINDEX INDEX, with the table in use unless ``locking``."""

        def problem(_session: Session, before: Figures, after: Figures, _started: str) -> str:
            if not after or not after["valid"]:
                return "the index is invalid afterwards"
            return "it was not built anew" if after["file"] == before["file"] else ""

        form = "" if locking else "CONCURRENTLY "
        return Job(
            self.subject(index.schema, index.name), "reindex_locking" if locking else "reindex",
            f"REINDEX INDEX {form}{self.session.identifier(index.schema, index.name)}", reason, index.table_oid,
            self.seconds(index.table_size * (1 if locking else 2) + index.size), lambda s: measure_index(s, index.schema, index.name),
            problem, {}, self.params["lock_timeout_seconds" if locking else "concurrent_wait_seconds"], note, index.key,
        )  # fmt: skip

    def drop_leftover(self, index: Index, twin: str) -> Job:
        """DROP INDEX CONCURRENTLY of an invalid copy."""
        reason = f"an invalid copy of the valid index {twin}, left by a rebuild that was cut short"

        def look(session: Session) -> Figures:
            return measure_index(session, index.schema, index.name) or {"size_bytes": 0, "gone": True}

        def problem(_session: Session, _before: Figures, after: Figures, _started: str) -> str:
            return "" if after.get("gone") else "it is still there"

        return Job(
            self.subject(index.schema, index.name), "drop_leftover",
            f"DROP INDEX CONCURRENTLY IF EXISTS {self.session.identifier(index.schema, index.name)}", reason, index.table_oid, 0.0,
            look, problem, {}, self.params["concurrent_wait_seconds"],
        )  # fmt: skip

    def build(self, declared: Declared) -> Job:
        """CREATE INDEX CONCURRENTLY of a declared index that is absent."""
        schema, name = declared.schema, declared.spec["name"]

        def look(session: Session) -> Figures:
            return measure_index(session, schema, name) or {"size_bytes": 0, "valid": False}

        def problem(_session: Session, _before: Figures, after: Figures, _started: str) -> str:
            return "" if after["valid"] else "the index is invalid afterwards"

        table = ".".join(split_name(declared.spec["table"]))
        return Job(
            self.subject(schema, name), "create_index", create_statement(self.session, declared.spec),
            f"it is declared for {table}, and does not exist", declared.table["oid"], self.seconds(2 * declared.table["size"]),
            look, problem, {}, self.params["concurrent_wait_seconds"],
        )  # fmt: skip

    def update(self, extension: Extension) -> Job:
        """ALTER EXTENSION UPDATE."""
        name = extension.name

        def look(session: Session) -> Figures:
            version = session.value("SELECT extversion FROM pg_extension WHERE extname = %s", [name])
            return {"version": version} if version else {}

        def problem(_session: Session, _before: Figures, after: Figures, _started: str) -> str:
            return "" if after.get("version") == extension.available else f"it is at {after.get('version')} afterwards"

        return Job(
            f"{self.where}: {name}", "update_extension", f"ALTER EXTENSION {self.session.identifier(name)} UPDATE",
            f"version {extension.installed} → {extension.available}", 0, 1.0, look, problem, {}, self.params["lock_timeout_seconds"],
        )  # fmt: skip


def no_room(folder: str, tablespace: str, size: int, reserve: int) -> str:
    """Say why there is no room for a new copy of so many bytes and as much log; empty when there is, or when the server is elsewhere.

    :param folder: the server's data folder; empty when it is not on this host.
    """
    needed = 2 * size + reserve
    if not folder:
        return ""
    # The log may lie on a disk of its own; without room there the whole server stops.
    for place in filter(None, (folder, os.path.join(folder, "pg_wal"), tablespace)):
        try:
            status = os.statvfs(place)
        except OSError as error:
            return f"the room in {place} cannot be told ({error.strerror})"
        free = status.f_bavail * status.f_frsize
        if free < needed:
            return f"it needs {human_bytes(needed)} free in {place}, there are {human_bytes(free)}"
    return ""
