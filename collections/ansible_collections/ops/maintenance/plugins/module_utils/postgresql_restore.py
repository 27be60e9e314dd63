# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a PostgreSQL database from a backup that somebody named, or from the newest one that is proven to be clean."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from . import postgresql_backup_file, postgresql_facts, postgresql_restore_sets, postgresql_switch
from .backup_encryption import encryption_of_file
from .backup_sets import Declared
from .errors import InputError, MaintenanceError
from .host import Host
from .judge import human_bytes
from .postgresql import SERVER, Server, Session, check_server, connect, major_version
from .postgresql_backup_file import Dump
from .postgresql_restore_sets import Known, clean_before, proven
from .postgresql_switch import Plan, Switcher
from .record import Action, Finding, Outcome, status_of

_SERVER: dict[str, t.Any] = {
    **SERVER,
    "jobs": {"type": "int", "default": 2},
    "sentinels": {"type": "list", "elements": "str", "default": []},
}

OPTIONS: dict[str, t.Any] = {
    "server": {"type": "dict", "required": True, "options": _SERVER},
    "database": {"type": "str", "required": True},
    "backup": {"type": "str", "default": ""},
    "sets": {"type": "list", "elements": "dict", "required": True, "options": postgresql_restore_sets.OPTIONS},
    "scratch": {"type": "path", "default": "/var/lib/ops_maintenance/scratch"},
    "demanded_level": {"type": "int", "choices": [2, 3, 4, 5], "default": 4},
    "again": {"type": "bool", "default": False},
    "other_database": {"type": "str", "default": ""},
    "reserve_bytes": {"type": "int", "default": 104857600},
}

_ADVICE = "Correct the cause and run again; the live database is as it was, or the one before is kept beside it."


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Prove the backup, restore it beside the live database, verify, switch."""
    check_server(params["server"])
    postgresql_restore_sets.check(params["sets"])
    job = Restore(params, check_mode, host)
    try:
        job.run()
    except (MaintenanceError, OSError) as error:
        words = str(error).replace(job.opened, job.backup) if job.opened else str(error)
        if isinstance(error, OSError):
            words = f"The restore of {job.key} failed on {error.filename}: {error.strerror}; run it again when that is corrected."
        job.find("restore.result", "critical", job.key, words, advice=_ADVICE)
        kind = InputError if isinstance(error, InputError) else MaintenanceError
        raise kind(words, job.outcome(words)) from error
    return job.outcome()


@dataclass
class Restore:
    """One restore."""

    params: dict[str, t.Any]
    check_mode: bool
    host: Host
    findings: list[Finding] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    backup: str = ""
    opened: str = ""

    def __post_init__(self) -> None:
        self.server: Server = self.params["server"]
        self.sets: list[Declared] = self.params["sets"]
        self.key = f"{self.server['name']}/{self.params['database']}"
        run_id = self.params["run_id"] or self.host.now().strftime("restore-%Y%m%dT%H%M%SZ")
        self.switcher = Switcher(self.params["state_dir"], run_id, self.host)

    def find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(finding_id, state, subject, summary, **more))

    def outcome(self, failure: str = "") -> Outcome:
        """Sum up."""
        status = "failed" if failure else status_of(self.actions, self.check_mode)
        done = {"changed": "was restored", "due": "would be restored", "ok": "is in place already"}
        words = failure or f"{self.key} {done.get(status, status)} from {self.backup}"
        returned = {"backup": self.backup, "database": self.key}
        return Outcome(self.key, "restore", status, words, findings=self.findings, actions=self.actions, returned=returned)

    def run(self) -> None:
        """Choose, prove, restore beside, verify, switch."""
        self.backup = self._chosen()
        declared = self._set_of(self.backup)
        with postgresql_restore_sets.readable(self.backup, declared, self.params["scratch"]) as self.opened:
            dump = postgresql_backup_file.read(self.opened, self.server)
            self._check_database(dump.database or " ".join(declared["database"].splitlines()))
            self._use(dump)

    def _use(self, dump: Dump) -> None:
        rows = f", {len(dump.rows)} table(s) with {sum(dump.rows.values())} row(s)" if dump.rows is not None else ""
        gap = "" if dump.rows is not None else "the rows by table: only an archive (custom, directory, tar) tells them beyond doubt"
        words = f"the backup ({dump.form}, {human_bytes(dump.size)}{rows}) was read to its end"
        self.find("restore.backup", "ok", self.backup, words, value=dump.size, unit="bytes", not_covered=gap)
        if self.check_mode:
            self._prepare(dump)
            return
        with postgresql_switch.alone(self.params["state_dir"]):
            for key, how in self.switcher.settle([self.server], {self.key: dump.digest}):
                self.actions.append(Action(key, "settle", "changed", f"the restore that a killed run left was {how}"))
            plan = self._prepare(dump)
            if plan:
                self._restore(plan)

    # Choosing

    def _chosen(self) -> str:
        known = proven(self.params["state_dir"], self.sets)
        names = [one["name"] for one in self._own_sets()]
        good = [one for one in known if one.level >= self.params["demanded_level"] and one.set_name in names]
        named = self.params["backup"]
        if not named:
            return self._newest_clean(good)
        self._check_path(named)
        level = max([one.level for one in known if one.path == named], default=-1)
        words = f"it is proven to level {level}" if level >= 0 else "verification has not proven it"
        if level >= self.params["demanded_level"]:
            self.find(
                "restore.choice", "ok", named, f"{words}, level {self.params['demanded_level']} is demanded", value=level, unit="level"
            )
            return str(named)
        better = f"The newest one that is proven is {good[0].path} of {good[0].time}." if good else "No backup is proven to that level."
        advice = f"{better} This one is read whole now, restored beside the live database and verified there before it takes its place."
        more: dict[str, t.Any] = {"value": level, "unit": "level", "threshold": f"warning below level {self.params['demanded_level']}"}
        self.find("restore.choice", "warning", named, words, advice=advice, **more)
        return str(named)

    def _newest_clean(self, good: t.Sequence[Known]) -> str:
        """Choose the newest that is proven, which the newest may not be."""
        for one in [*good, *clean_before(self.params["state_dir"], self._own_sets())]:
            try:
                self._check_path(one.path)
                if not encryption_of_file(one.path):
                    postgresql_backup_file.form_of(one.path)
            except (MaintenanceError, OSError):
                continue
            said = f"proven to level {one.level}" if one.level >= 0 else "found clean by an earlier run, unchanged since"
            self.find("restore.choice", "ok", one.path, f"the newest of the declared sets that is clean ({said}, {one.time})")
            return one.path
        own = ", ".join(sorted(one["name"] for one in self._own_sets()))
        raise MaintenanceError(
            f"No backup of the declared sets of database {self.params['database']!r} ({own or 'none declares it'}) is proven to level "
            f"{self.params['demanded_level']}; run the backup verification, or name a backup. Nothing was changed."
        )

    def _own_sets(self) -> list[Declared]:
        """Return the sets of this database: what lies in another one is never chosen, only named."""
        return [one for one in self.sets if one["database"] == self.params["database"]]

    def _set_of(self, path: str) -> Declared:
        """Return the set that a backup lies in, the innermost of several; its own database's first where they share a folder."""
        around = [one for one in self.sets if path.startswith(one["root"] + "/")]
        return max(around, key=lambda one: (len(one["root"]), one["database"] == self.params["database"]))

    def _check_path(self, path: str) -> None:
        roots = sorted({one["root"] for one in self.sets})
        expected = f"the full path of a dump below {' or '.join(roots)}"
        if not postgresql_restore_sets.is_absolute(path) or not any(path.startswith(root + "/") for root in roots):
            raise InputError.of("backup", path, expected, "name one of a declared set")
        real = os.path.realpath(path)
        if os.path.islink(path):
            raise InputError(f"backup is {path}, a symbolic link, which may lead to a half-written dump; name the dump itself ({real}).")
        if not os.path.exists(path):
            raise InputError.of("backup", path, expected, "it does not exist; correct it")
        if not any(real.startswith(os.path.realpath(root) + "/") for root in roots):
            raise InputError(f"backup is {path}, which leads to {real}, outside the declared sets; name the dump itself.")

    def _check_database(self, made_of: str) -> None:
        """Refuse a backup of another database that nobody confirmed by its name.

        :raises InputError: it is one.
        """
        wanted = self.params["database"]
        if made_of in ("", " ".join(wanted.splitlines())):
            return
        if made_of != self.params["other_database"]:
            raise InputError(
                f"The backup {self.backup} is of the database {made_of!r}, expected one of {wanted!r}; nothing was changed. "
                f"Name another backup, or confirm that this one is to take its place with snapshot_restore_other_database={made_of!r}."
            )
        self.find(
            "restore.other_database", "warning", self.backup, f"it was made of {made_of!r}, and takes the place of {wanted!r} as confirmed",
            advice="Make sure that the application that uses it finds what it needs.",
        )  # fmt: skip

    # Doing

    def _prepare(self, dump: Dump) -> Plan | None:
        """Look at the server; return what is to be done, None when this backup is in place already."""
        with postgresql_switch.beside(self.server, self.params["database"]) as session:
            if session.value("SELECT pg_is_in_recovery()"):
                raise MaintenanceError(f"{session.where} is a standby, which cannot be written; restore on its primary.")
            plan = self._plan(session, dump)
            if self.switcher.is_in_place(session, plan) and not self.params["again"]:
                words = "this backup was restored before and is in place; what was written since stays"
                self.find("restore.database", "ok", self.key, words)
                return None
            found = postgresql_switch.obstacles(session, plan)
            if found:
                raise MaintenanceError(f"The database {self.key} cannot be replaced: {'; '.join(found)}; nothing was changed.")
            if not postgresql_switch.require_room(session, plan, self.params["reserve_bytes"]):
                advice = "Look at the server's disk by hand: the restored database lies beside the live one."
                self.find("restore.disk_room", "unknown", self.key, "the room of this server cannot be seen from here", advice=advice)
            self._check_users(session)
        if self.check_mode:
            words = "would be restored beside the live database, verified, then take its place"
            self.actions.append(Action(self.key, "restore_database", "due", words, {}, {"backup": self.backup}))
        return plan

    def _plan(self, session: Session, dump: Dump) -> Plan:
        database = self.params["database"]
        known = postgresql_facts.properties(session, database)
        size = int(session.value("SELECT pg_database_size(oid) FROM pg_database WHERE datname = %s", [database]) or 0)
        if not known:
            owner = str(session.value("SELECT current_user"))
            known = {**postgresql_facts.properties(session, "template1"), "acl": None, "settings": [], "comment": None, "owner": owner}
        major = major_version(session)

        def fill(scratch: str) -> None:
            postgresql_backup_file.restore(dump, self.server, scratch, major)

        sentinels = self.server["sentinels"]
        return Plan(self.server, database, known, dump.digest, max(size, dump.unpacked), fill, dump.rows or {}, {}, sentinels)

    def _check_users(self, session: Session) -> None:
        users = postgresql_switch.users_of(session, postgresql_switch.oid_of(session, self.params["database"]))
        if not users or postgresql_switch.in_maintenance(self.params["state_dir"]):
            return
        words = f"{self.key}: {users[0]} is connected, expected nobody outside maintenance mode"
        if not self.check_mode:
            raise MaintenanceError(f"{words}; stop it, or enter maintenance mode, where connections are ended. Nothing was changed.")
        advice = "The playbook enters maintenance mode first, where the remaining connections to this database are ended."
        self.find("restore.open_by", "warning", self.key, words, evidence=users, advice=advice)

    def _restore(self, plan: Plan) -> None:
        scratch = self.switcher.stage(plan)
        kept = self.switcher.switch(plan, scratch)
        with connect(self.server, plan.database, statement_timeout_seconds=0) as session:
            tables = [table for table in (postgresql_facts.table_of(session, name) for name in plan.sentinels) if table]
            rows = postgresql_facts.counts(session, tables)
        words = f"restored from {self.backup}" + (f"; the one before is kept as {kept!r}" if kept else "; there was none of that name")
        self.actions.append(Action(self.key, "restore_database", "changed", words, {"kept_as": kept}, {"rows": rows}))
        evidence = [f"{table}: {count} row(s)" for table, count in rows.items()]
        advice = f"To go back: rename {plan.database!r} away and {kept!r} to its name." if kept else ""
        self.find(
            "restore.database",
            "ok",
            self.key,
            "restored, verified before it took its place, and it answers",
            evidence=evidence,
            advice=advice,
        )
