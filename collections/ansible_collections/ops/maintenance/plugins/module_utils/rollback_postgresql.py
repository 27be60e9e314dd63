# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL databases of a rollback: restored beside the live ones before anything else is touched, switched at the end."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from . import postgresql_dump, postgresql_facts, postgresql_switch, snapshot_postgresql
from .errors import MaintenanceError
from .host import Host
from .judge import human_bytes
from .postgresql import DriverMissingError, NotReachableError, Server, Session, StatementError, connect, system_identifier
from .postgresql_switch import Plan, Switcher
from .record import Action, Json

Find = t.Callable[..., None]


@dataclass
class Part:
    """What a rollback does with PostgreSQL."""

    params: t.Mapping[str, t.Any]
    check_mode: bool
    host: Host
    folder: str
    manifest: t.Mapping[str, Json]
    find: Find
    actions: list[Action]
    plans: list[Plan] = field(default_factory=list)
    staged: list[tuple[Plan, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.servers: dict[str, Server] = {server["name"]: server for server in self.params["postgresql"]}
        self.switcher = Switcher(self.params["state_dir"], self.params["run_id"] or str(self.manifest["id"]), self.host)

    def compare(self) -> None:
        """Look at every server and database of the snapshot, and plan what is to be put back; nothing is changed."""
        for held in self.manifest.get("postgresql", ()):
            server = self.servers.get(held["name"])
            if server is None:
                raise MaintenanceError(
                    f"The snapshot holds databases of the PostgreSQL server {held['name']!r}, which is not declared; "
                    "declare it in postgresql (the role: snapshot_postgresql)."
                )
            for entry in held["databases"]:
                self._compare(server, held, entry)

    def _compare(self, server: Server, held: dict[str, Json], entry: dict[str, Json]) -> None:
        plan = self._plan(server, held, entry)
        with postgresql_switch.beside(server, plan.database) as session:
            self._check_cluster(session, held)
            if self.switcher.is_in_place(session, plan) and not self.params["again"]:
                self.find(
                    "rollback.postgresql",
                    "ok",
                    plan.key,
                    "this dump was put in place by a run that did not end; what was written since stays",
                )
                return
            live = postgresql_facts.properties(session, plan.database)
        if live and self.params["keep_sound"] and self._may_stay(plan, live, entry):
            return
        with postgresql_switch.beside(server, plan.database) as session:
            self._check_obstacles(session, plan)
            self._check_room(session, plan)
            self._check_users(session, plan)
        self.plans.append(plan)

    def _plan(self, server: Server, held: dict[str, Json], entry: dict[str, Json]) -> Plan:
        path = os.path.join(self.folder, entry["file"])

        def fill(scratch: str) -> None:
            timeout = postgresql_dump.NO_LIMIT_SECONDS
            major = max(held["major"], held["dump_major"])
            postgresql_dump.restore(server, scratch, path, major, jobs=server["jobs"], timeout=timeout)

        return Plan(
            server,
            entry["database"],
            entry["properties"],
            entry["files"][0]["sha256"],
            entry["bytes_live"],
            fill,
            entry["rows"],
            entry["objects"],
            list(entry["sentinels"]),
        )

    def _check_cluster(self, session: Session, held: dict[str, Json]) -> None:
        now = system_identifier(session)
        if now == held["system_identifier"]:
            return
        words = f"{session.where} is the cluster {now}, and the snapshot is of {held['system_identifier']}"
        if not self.params["other_cluster"]:
            raise MaintenanceError(f"{words}; nothing was changed. Set other_cluster to true if the cluster was made anew.")
        advice = "See that this is the server that was meant."
        self.find("rollback.cluster", "warning", held["name"], f"{words}; restored there, as it was asked", advice=advice)

    def _may_stay(self, plan: Plan, live: dict[str, Json], entry: dict[str, Json]) -> bool:
        """Whether putting the dump back would only lose what users wrote since: everything is readable, and every row is there."""
        if postgresql_facts.differences(plan.known, live) or not live["allows_connections"]:
            return False
        try:
            with connect(plan.server, plan.database, statement_timeout_seconds=0) as session:
                problems = postgresql_facts.row_problems(session, plan.rows, at_least=True)
                now = postgresql_facts.objects(session)
                problems += [name for name, count in entry["objects"].items() if now[name] != count]
                problems += postgresql_facts.invalid_indexes(session)
                problems += [] if problems else postgresql_facts.damage(session)
                covered = postgresql_facts.has_amcheck(session)
        except (NotReachableError, StatementError):
            return False
        if problems:
            return False
        gap = "" if covered else "indexes were not compared with their tables: the extension amcheck is not installed in it"
        words = "sound, with every row of the snapshot; kept with what was written since"
        self.find("rollback.postgresql", "ok", plan.key, words, not_covered=gap)
        return True

    def _check_obstacles(self, session: Session, plan: Plan) -> None:
        found = postgresql_switch.obstacles(session, plan)
        if found:
            raise MaintenanceError(f"The database {plan.key} cannot be put back: {'; '.join(found)}; nothing was changed.")
        slots = postgresql_switch.slots_of(session, plan.database)
        if slots:
            advice = "Make the logical replication slots anew on the restored database, and drop the old ones: they keep WAL."
            words = f"{len(slots)} logical replication slot(s) stay with the database that is kept"
            self.find("rollback.slots", "warning", plan.key, words, evidence=slots, advice=advice)

    def _check_room(self, session: Session, plan: Plan) -> None:
        if not postgresql_switch.require_room(session, plan, self.params["reserve_bytes"]):
            advice = "Look at the server's disk by hand: the restored database lies beside the live one."
            words = "the room of this server cannot be seen from here"
            self.find("rollback.disk_room", "unknown", plan.key, words, advice=advice, basis="estimated")

    def _check_users(self, session: Session, plan: Plan) -> None:
        users = postgresql_switch.users_of(session, postgresql_switch.oid_of(session, plan.database))
        if not users or postgresql_switch.in_maintenance(self.params["state_dir"]):
            return
        words = f"{plan.key}: {users[0]} is connected, expected nobody outside maintenance mode"
        if not self.check_mode:
            raise MaintenanceError(f"{words}; stop it, or enter maintenance mode, where connections are ended. Nothing was changed.")
        advice = "The role enters maintenance mode first, where the remaining connections to this database are ended."
        self.find("rollback.open_by", "warning", plan.key, words, evidence=users, advice=advice)

    def assess(self) -> None:
        """Say in check mode what would be put back."""
        for plan in self.plans:
            words = f"would be restored beside the live database ({human_bytes(plan.needed_bytes)}), verified, then take its place"
            self.actions.append(Action(plan.key, "restore_database", "due", words))
        for key, entry in self.switcher.entries().items():
            self.actions.append(Action(key, "settle", "due", f"a killed run left a restore at the step {entry['step']}"))

    def settle(self) -> None:
        """Finish or undo what a killed run left, before anything is looked at."""
        resume = {f"{held['name']}/{e['database']}": e["files"][0]["sha256"] for held, e in snapshot_postgresql.databases(self.manifest)}
        for key, how in self.switcher.settle(self.servers.values(), resume):
            self.actions.append(Action(key, "settle", "changed", f"the restore that a killed run left was {how}"))

    def stage(self) -> None:
        """Restore everything beside and verify it, before anything live is touched; one failure undoes all."""
        try:
            for plan in self.plans:
                self.staged.append((plan, self.switcher.stage(plan)))
        except BaseException:
            self.drop_staged()
            raise

    def drop_staged(self) -> None:
        """Drop what was restored beside and did not take its place."""
        for plan, _scratch in self.staged:
            if plan.key in self.switcher.entries():
                self.switcher.settle([plan.server])
        self.staged = []

    def switch(self) -> None:
        """Give every restored database its name, and look at it under that name."""
        for plan, scratch in self.staged:
            kept = self.switcher.switch(plan, scratch)
            self._look_again(plan)
            words = (
                f"put back as of the snapshot; the present database is kept as {kept!r}"
                if kept
                else "put back; there was none of that name"
            )
            self.actions.append(Action(plan.key, "restore_database", "changed", words, {"kept_as": kept}, {"rows": plan.rows}))

    def _look_again(self, plan: Plan) -> None:
        with postgresql_switch.beside(plan.server, plan.database) as session:
            differing = postgresql_facts.differences(plan.known, postgresql_facts.properties(session, plan.database))
        problems = [f"its {name} differs" for name in differing]
        with connect(plan.server, plan.database) as session:
            problems += [f"there is no table {name}" for name in plan.sentinels if not postgresql_facts.table_of(session, name)]
        if problems:
            raise MaintenanceError(f"After the rollback of {plan.key}: {'; '.join(problems)}; the database before is kept beside it.")
        words = f"the rows of {len(plan.rows)} table(s), all objects, owner, privileges and settings are those of the snapshot"
        self.find("rollback.postgresql", "ok", plan.key, words)

    def report_done(self) -> None:
        """Say of a snapshot that was put back before whether its databases still answer."""
        for held, entry in snapshot_postgresql.databases(self.manifest):
            key = f"{held['name']}/{entry['database']}"
            server = self.servers.get(held["name"])
            try:
                if server is None:
                    raise MaintenanceError(f"the server {held['name']!r} is not declared")
                with connect(server, entry["database"], read_only=True):
                    self.find("rollback.postgresql", "ok", key, "the database answers")
            except (DriverMissingError, NotReachableError, MaintenanceError) as error:
                advice = "Set again to true to put the snapshot back once more."
                self.find("rollback.postgresql", "critical", key, str(error), advice=advice)
