# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The upkeep of one database: look, do what is due in an order in which nothing is done twice, look again."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import postgresql_upkeep_declared as declared_in
from . import postgresql_upkeep_indexes as indexes_of
from . import postgresql_upkeep_tables as tables_of
from .judge import human_bytes
from .postgresql import Server, Session, StatementError, extension_schema
from .postgresql_upkeep_indexes import Index, Survey
from .postgresql_upkeep_options import Limits, Params, declared_for, limits_of, split_name
from .postgresql_upkeep_plan import Planner, no_room
from .postgresql_upkeep_report import Result
from .postgresql_upkeep_tables import Table
from .postgresql_upkeep_work import Bounds, Done, Job, Pool, open_worker, refuse_read_only

TIDY_SECONDS = 2.0
"""What a stopped rebuild left is still dropped when the time for work is over."""

NOT_ALLOWED = "the role may not: it has to own the table, or to have MAINTAIN (pg_maintain) from PostgreSQL 17"
ALLOW_ADVICE = "Run the upkeep as the owner, as a superuser, or grant pg_maintain (PostgreSQL 17 and newer)."

Kept = t.Dict[str, t.Dict[str, float]]  # noqa: UP006 - evaluated when the module is loaded, on Python 3.9 too


@dataclass
class DatabaseUpkeep:
    """The upkeep of one database.

    :param look: a read-only session with the database, for looking and for watching the others.
    :param kept: figures of indexes when they were last rebuilt, for the next run.
    :param folder: data folder of the server, empty when it is not on this host.
    """

    params: Params
    server: Server
    database: str
    look: Session
    bounds: Bounds
    check_mode: bool
    folder: str
    kept: Kept
    result: Result

    def __post_init__(self) -> None:
        self.where = f"{self.server['name']}/{self.database}"
        self.plan = Planner(self.look, self.params, self.where)
        self.pool: Pool | None = None
        self._limits: dict[tuple[str, str], Limits] = {}
        self._there_before: set[int] = set()

    def run(self) -> None:
        """Look, and do what is due.

        :raises MaintenanceError: the database is set to read only, or the server went away.
        """
        refuse_read_only(self.look, f"database {self.database}")
        self._there_before = {index.oid for index in indexes_of.read_indexes(self.look)}
        self._check_declared_tables()
        if self.check_mode:
            self._phases()
            self._report()
            return
        workers = [open_worker(self.server, self.database) for _number in range(self.params["parallel"])]
        try:
            self.pool = Pool(self.look, workers, self.bounds)
            self._phases()
            self._report()
        finally:
            for worker in workers:
                worker.close()
            for who in self.pool.terminated if self.pool else []:
                self.result.act(self.where, "terminate", "changed", f"{who}: ended, for it blocked the upkeep")

    def _phases(self) -> None:
        """Space is freed before it is measured, indexes come after the rows, and statistics last, so that none is stale at once."""
        for phase in (
            self._sweep, self._extensions, self._vacuum, self._vacuum_full, self._declared_indexes, self._reindex, self._sweep_again,
            self._statistics,
        ):  # fmt: skip
            try:
                phase()
            except StatementError as error:
                if not error.sqlstate:
                    raise
                self.result.fail("upkeep.failed", self.where, str(error), "Read the message, correct the cause, run again.")

    # Limits and declarations

    def _of(self, thing: Table | Index) -> Limits:
        place = (thing.table_schema, thing.table_name) if isinstance(thing, Index) else (thing.schema, thing.name)
        if place not in self._limits:
            self._limits[place] = limits_of(self.params, self.server["name"], self.database, *place)
        return self._limits[place]

    def _check_declared_tables(self) -> None:
        for spec in declared_for(self.params, "tables", self.server["name"], self.database):
            if declared_in.find_table(self.look, spec["table"]) is None:
                words = f"table {spec['table']} does not exist in database {self.database} (names are taken as written, case counts)"
                self.result.fail("upkeep.declared", f"{self.where}: {spec['table']}", words, "Correct its name in tables, or take it out.")

    # Doing

    def _do(self, jobs: t.Sequence[Job], bounds: Bounds | None = None) -> list[Done]:
        """Do jobs, or in check mode report them as due."""
        if self.check_mode or self.pool is None:
            for job in jobs:
                self.result.act(job.subject, job.operation, "due", job.reason, job.note)
            return []
        if not jobs:
            return []
        done = self.pool.run(jobs, bounds or self.bounds)
        for one in done:
            words = f"{one.job.reason}; {tables_of.shown(one.before, one.after)}" if "dead_rows" in one.after else ""
            self.result.note(one, words)
        return done

    def _permitted(self, thing: Table | Index, operation: str, reason: str) -> bool:
        if thing.allowed:
            return True
        subject = self.plan.subject(thing.schema, thing.name)
        self.result.act(subject, operation, "skipped" if self.check_mode else "failed", f"{reason}; {NOT_ALLOWED}")
        if self.check_mode:
            self.result.find("upkeep.failed", "critical", subject, f"{operation} is due, but {NOT_ALLOWED}", advice=ALLOW_ADVICE)
        else:
            self.result.fail("upkeep.failed", subject, f"{operation}: {NOT_ALLOWED}", ALLOW_ADVICE)
        return False

    def _sweep(self, bounds: Bounds | None = None) -> None:
        indexes = indexes_of.read_indexes(self.look)
        jobs = []
        for index in indexes_of.leftovers(indexes, self._there_before):
            twin = indexes_of.twin_of(index, indexes)
            if index.busy:
                self._busy(index, "a rebuild works on its table right now, so it is no leftover yet")
            elif twin and self._permitted(index, "drop_leftover", "it is left over"):
                jobs.append(self.plan.drop_leftover(index, twin.name))
        self._do(jobs, bounds)

    def _sweep_again(self) -> None:
        if not self.check_mode:
            self._sweep(self.bounds.later(TIDY_SECONDS))

    def _busy(self, index: Index, words: str) -> None:
        subject = self.plan.subject(index.schema, index.name)
        if not any(f.id == "upkeep.index" and f.subject == subject for f in self.result.findings):
            self.result.find("upkeep.index", "unknown", subject, f"it is invalid: {words}", advice="Run again when that has ended.")

    def _extensions(self) -> None:
        jobs = []
        for extension in declared_in.read_extensions(self.look, self.params["extensions_to_update"]):
            subject = f"{self.where}: {extension.name}"
            if extension.due:
                jobs.append(self.plan.update(extension))
            elif not extension.available or not extension.reachable:
                offered = extension.available or "none"
                words = f"version {extension.installed} cannot become {offered}, the version of the host's packages"
                self.result.find("upkeep.extension", "warning", subject, words, advice="Install the extension's package of this server.")
            else:
                self.result.find("upkeep.extension", "ok", subject, f"version {extension.installed}", value=extension.installed)
            if not declared_in.preloaded(self.look, extension.name):
                advice = "Add it to shared_preload_libraries and restart the server."
                self.result.find(
                    "upkeep.extension", "warning", subject, "its library is not preloaded, so it gathers nothing", advice=advice
                )
        self._do(jobs)

    def _vacuum(self) -> None:
        tables = tables_of.read_tables(self.look)
        chosen = [(t, why) for t, why in tables_of.vacuums(tables, self._of) if self._permitted(t, "vacuum", why)]
        self._do([self.plan.vacuum(table, why, self._of(table)) for table, why in chosen])

    # The locking form

    def _vacuum_full(self) -> None:
        jobs = []
        for table in tables_of.read_tables(self.look):
            limits = self._of(table)
            if limits.vacuum_full and not limits.skip and table.kind != "p" and not table.of_system:
                job = self._full_job(table, limits)
                if job:
                    jobs.append(job)
        self._do(jobs)

    def _full_job(self, table: Table, limits: Limits) -> Job | None:
        subject = self.plan.subject(table.schema, table.name)
        try:
            bloat = tables_of.measured_bloat(self.look, table)
            if bloat is None:
                advice = "CREATE EXTENSION pgstattuple in this database (package postgresql-contrib)."
                words = "VACUUM FULL is allowed for this table, but its bloat cannot be measured: pgstattuple is not installed"
                self.result.find("upkeep.bloat", "unknown", subject, words, advice=advice)
                return None
            row = self.look.rows(
                f"SELECT pg_total_relation_size(oid) AS size, {tables_of.tablespace_sql('c')} AS place FROM pg_class c WHERE oid = %s",  # noqa: S608
                [table.oid],
            )[0]
        except StatementError as error:
            words = f"its bloat could not be measured: {error}"
            self.result.find(
                "upkeep.bloat", "unknown", subject, words, advice="End what has it locked, or give the role pg_stat_scan_tables."
            )
            return None
        percent, lost = bloat
        due = percent >= limits.vacuum_full_bloat_percent
        self.result.find(
            "upkeep.bloat", "ok" if not due else "warning", subject, f"{human_bytes(lost)} ({percent:.0f} percent) of the table are free or dead",
            value=round(percent, 1), unit="percent", threshold=f"VACUUM FULL from {limits.vacuum_full_bloat_percent:g} percent",
            advice="It is written anew in maintenance mode." if due else "",
        )  # fmt: skip
        why = f"{percent:.0f} percent of the table are free or dead (limit {limits.vacuum_full_bloat_percent:g})"
        if not due or not self._permitted(table, "vacuum_full", why):
            return None
        if not self._may_lock(subject, "vacuum_full", why, int(row["size"]), str(row["place"])):
            return None
        return self.plan.vacuum_full(table, why, percent, int(row["size"]))

    def _may_lock(self, subject: str, operation: str, why: str, size: int, tablespace: str) -> bool:
        """Whether a statement that locks a table may run: only in maintenance mode, and only with room that was seen."""
        if not self.params["maintenance_mode"]:
            self.result.waiting_for_mode += 1
            self.result.act(subject, operation, "skipped", f"{why}; it locks the table, so only in maintenance mode")
            return False
        no = no_room(self.folder, tablespace, size, self.params["reserve_bytes"])
        if not self.folder:
            no = "the server is not on this host, so that its disk cannot be looked at"
        if no:
            state = "warning" if self.folder else "unknown"
            self.result.find("upkeep.disk_room", state, subject, no, advice="Make room, or give the disk more; it is not done without.")
            self.result.act(subject, operation, "skipped", f"{why}; {no}")
        return not no

    # Indexes

    def _declared_indexes(self) -> None:
        jobs = []
        for spec in declared_for(self.params, "indexes", self.server["name"], self.database):
            declared = declared_in.look_at_index(self.look, spec)
            subject = self.plan.subject(split_name(spec["table"])[0], spec["name"])
            if declared.state == "wrong":
                self.result.fail("upkeep.declared", subject, declared.words, "Correct the inventory.")
            elif declared.state == "differs":
                advice = "Drop or rename it, or correct the declaration; nothing was done to it."
                self.result.find("upkeep.declared", "warning", subject, declared.words, advice=advice)
            elif declared.state == "build":
                jobs.append(self.plan.build(declared))
            elif declared.state == "ok":
                gap = "whether its condition is the declared one" if spec["where"] else ""
                self.result.find("upkeep.declared", "ok", subject, declared.words, not_covered=gap)
        self._do(jobs)

    def _reindex(self) -> None:
        """Rebuild invalid indexes first: copies beside them are leftovers only when they are valid again."""
        indexes = indexes_of.read_indexes(self.look)
        broken = []
        for index in indexes_of.invalid(indexes):
            if self._of(index).skip:
                continue
            if self._of(index).reindex == "never":
                words = "it is invalid, and the inventory says never to rebuild indexes of this table"
                advice = "Rebuild it with REINDEX INDEX CONCURRENTLY, or allow that with reindex: online."
                self.result.find("upkeep.index", "warning", self.plan.subject(index.schema, index.name), words, advice=advice)
            elif index.busy:
                self._busy(index, "something builds on its table right now")
            else:
                job = self._reindex_job(index, "it is invalid: a build of it was cut short", {})
                broken += [job] if job else []
        self._remember(self._do(broken))
        indexes = indexes_of.read_indexes(self.look)
        survey = indexes_of.survey(
            self.look, indexes, self._of, self.kept, measure=self.params["measure_bloat"], out_of_time=self.bounds.over
        )
        self._report_bloat(survey)
        bloated = [index for index in indexes if indexes_of.is_due(survey.bloat.get(index.oid), self._of(index))]
        jobs = []
        for index in sorted(bloated, key=lambda one: -survey.bloat[one.oid].lost):
            bloat, limits = survey.bloat[index.oid], self._of(index)
            if limits.reindex == "locking" and bloat.basis != "exact":
                words = f"{bloat.percent:.0f} percent bloat are estimated only, which does not do for locking the table"
                advice = "CREATE EXTENSION pgstattuple in this database, or use reindex: online."
                self.result.find("upkeep.bloat", "unknown", self.plan.subject(index.schema, index.name), words, advice=advice)
                continue
            how = "measured" if bloat.basis == "exact" else "estimated"
            why = f"{human_bytes(bloat.lost)} ({bloat.percent:.0f} percent) bloat, {how} (limit {limits.reindex_bloat_percent:g})"
            job = self._reindex_job(index, why, {"bloat_percent": round(bloat.percent, 1)})
            jobs += [job] if job else []
        self._remember(self._do(jobs))

    def _reindex_job(self, index: Index, why: str, note: t.Mapping[str, t.Any]) -> Job | None:
        subject = self.plan.subject(index.schema, index.name)
        locking = self._of(index).reindex == "locking"
        if not self._permitted(index, "reindex", why):
            return None
        if index.exclusion and not locking:
            words = "it belongs to an exclusion constraint, which PostgreSQL cannot rebuild while the table is in use"
            advice = "Allow it with reindex: locking for this table; it is then done in maintenance mode."
            self.result.find("upkeep.index", "warning", subject, f"{why}; {words}", advice=advice)
            return None
        if locking:
            return self.plan.reindex(index, why, note, locking=True) if self._may_lock(
                subject, "reindex_locking", why, index.size, index.tablespace
            ) else None  # fmt: skip
        no = no_room(self.folder, index.tablespace, index.size, self.params["reserve_bytes"])
        if not self.folder and not any(f.id == "upkeep.disk_room" and f.subject == self.where for f in self.result.findings):
            words = "the server is not on this host, so rebuilds are done without a look at its disk"
            self.result.find("upkeep.disk_room", "unknown", self.where, words, advice="Look at the disk of the server's host yourself.")
        if no:
            self.result.find("upkeep.disk_room", "warning", subject, no, advice="Make room; a rebuild needs a second copy and its log.")
            self.result.act(subject, "reindex", "skipped", f"{why}; {no}")
            return None
        return self.plan.reindex(index, why, note)

    def _remember(self, done: t.Sequence[Done]) -> None:
        for one in done:
            if one.status == "changed" and one.after.get("size_bytes"):
                self.kept[one.job.target] = {"bytes": float(one.after["size_bytes"]), "rows": float(one.after["rows"])}

    def _report_bloat(self, survey: Survey) -> None:
        exact = sum(bloat.basis == "exact" for bloat in survey.bloat.values())
        gaps = [f"{name}: {why}" for name, why in sorted(survey.not_told.items())]
        looked = len(survey.bloat)
        self.result.find(
            "upkeep.bloat", "ok" if looked or not gaps else "unknown", self.where,
            f"bloat of {looked} index(es) of relevant size known, {exact} measured and {looked - exact} estimated",
            value=looked, unit="count", basis="exact" if exact == looked else "estimated",
            not_covered=f"{len(gaps)} index(es): {'; '.join(gaps[:3])}" if gaps else "",
            advice="" if looked or not gaps else "Install pgstattuple in this database, or let ANALYZE run first.",
        )  # fmt: skip

    # Statistics

    def _reset_statistics(self) -> bool:
        """Forget the counters where that is asked for and some days have passed; return whether it is due.

        The counters tell autovacuum what to do, so all tables are analysed right after.
        """
        if not self.params["reset_statistics"]:
            return False
        days = self.look.value(
            "SELECT extract(epoch FROM now() - stats_reset)::float8 / 86400 FROM pg_stat_database WHERE datname = current_database()"
        )
        if days is not None and days < self.params["reset_statistics_after_days"]:
            return False
        since = "never" if days is None else f"{days:.1f} days ago"
        words = f"the counters are to be reset, the last time was {since}"
        if self.check_mode:
            self.result.act(self.where, "reset_statistics", "due", words)
            return True
        every = tables_of.analyses(tables_of.read_tables(self.look), self._of, True)
        if sum(self.plan.analyze(*pair).seconds for pair in every) / self.params["parallel"] > self.bounds.left():
            self.result.act(self.where, "reset_statistics", "deferred", f"{words}; ANALYZE of all tables would not end in time")
            return False
        with open_worker(self.server, self.database) as session:
            session.execute("SELECT pg_stat_reset()")
            schema = extension_schema(session, "pg_stat_statements")
            if schema and declared_in.preloaded(session, "pg_stat_statements"):
                forget = session.identifier(schema, "pg_stat_statements_reset")
                session.execute(f"SELECT {forget}(0, oid, 0) FROM pg_database WHERE datname = current_database()")  # noqa: S608 - quoted
        self.result.act(self.where, "reset_statistics", "changed", words)
        return True

    def _statistics(self) -> None:
        every = self._reset_statistics()
        tables = tables_of.read_tables(self.look)
        chosen = tables_of.analyses(tables, self._of, every)
        self._do([self.plan.analyze(table, why) for table, why in chosen if self._permitted(table, "analyze", why)])

    # Looking again

    def _report(self) -> None:
        tables = tables_of.read_tables(self.look)
        indexes = indexes_of.read_indexes(self.look)
        due = [f"vacuum {t.schema}.{t.name}: {why}" for t, why in tables_of.vacuums(tables, self._of)]
        due += [f"analyze {t.schema}.{t.name}: {why}" for t, why in tables_of.analyses(tables, self._of)]
        due += [f"{i.schema}.{i.name} is left over" for i in indexes_of.leftovers(indexes, self._there_before)]
        due += [f"{i.schema}.{i.name} is invalid" for i in indexes_of.invalid(indexes) if not self._of(i).skip]
        when = "are due" if self.check_mode else "are still due"
        self.result.find(
            "upkeep.due", "warning" if due else "ok", self.where,
            f"{len(due)} thing(s) {when} in {len(tables)} tables and {len(indexes)} indexes" if due
            else f"nothing is due in {len(tables)} tables and {len(indexes)} indexes",
            value=len(due), unit="count", threshold="warning from 1 count", evidence=due[:20],
            advice="Run the upkeep outside check mode; what stays due became so meanwhile or could not be done." if due else "",
            not_covered="tables that the inventory leaves out" if any(self._of(table).skip for table in tables) else "",
        )  # fmt: skip
