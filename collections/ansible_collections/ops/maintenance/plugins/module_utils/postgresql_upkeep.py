# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upkeep of PostgreSQL servers inside a time budget: settings first, then database by database."""

from __future__ import annotations

import contextlib
import time
import typing as t

from . import postgresql_upkeep_settings as settings_of
from .errors import MaintenanceError
from .host import Host
from .paths import read_state, write_state
from .postgresql import Server, Session, StatementError, connect, databases_of, system_identifier
from .postgresql_upkeep_database import DatabaseUpkeep, Kept
from .postgresql_upkeep_declared import read_extensions
from .postgresql_upkeep_options import OPTIONS, Params, check_input
from .postgresql_upkeep_report import Result, shortened
from .postgresql_upkeep_self_test import self_test
from .postgresql_upkeep_settings import Setting
from .postgresql_upkeep_work import APPLICATION, Bounds, end_orphans, open_worker, refuse_read_only
from .record import Outcome, self_test_finding, status_of

__all__ = ["OPTIONS", "run"]

STATE = "postgresql_upkeep.json"
_LOCK = 7233982131
_LOCK_WAIT_SECONDS = 5.0
_CLEANUP_SECONDS = 3.0
_AGAIN = "Read the message, correct the cause, run again."


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every server, do what is due, and look again."""
    check_input(params)
    proof = self_test_finding("upkeep.self_test", "postgresql_upkeep", self_test()) if params["self_test"] else None
    if proof and proof.state != "ok":
        words = f"Nothing was done, for the upkeep cannot be believed: {proof.summary}."
        raise MaintenanceError(words, Outcome("servers", "postgresql_upkeep", "failed", words, findings=[proof]))
    kept = read_state(params["state_dir"], STATE)
    outcome = Outcome("servers", "postgresql_upkeep", "ok", "")
    result = Result()
    result.findings += [proof] if proof else []
    if not params["servers"]:
        advice = "List the servers in database_maintenance_postgresql, or leave this out."
        result.find("upkeep.server", "unknown", "servers", "no PostgreSQL server is declared", advice=advice)
    for server in params["servers"]:
        try:
            ServerUpkeep(params, server, check_mode, host, kept, result).run()
        except MaintenanceError as error:
            result.fail("upkeep.server", server["name"], str(error), _AGAIN)
        if not check_mode:
            try:
                write_state(params["state_dir"], STATE, kept)
            except MaintenanceError as error:
                result.fail("upkeep.state", server["name"], str(error), _AGAIN)
    outcome.status = "failed" if result.failures else status_of(result.actions, check_mode)
    changed = any(action.status in ("changed", "due") for action in result.actions)
    outcome.summary = _summary(result, len(params["servers"]))
    outcome.metrics = result.metrics
    outcome.actions, outcome.findings = shortened(result.actions, result.findings)
    outcome.returned = {"due": changed, "due_in_maintenance_mode": result.waiting_for_mode > 0, "failures": result.failures[:20]}
    return outcome


def _summary(result: Result, servers: int) -> str:
    counts: dict[str, int] = {}
    for action in result.actions:
        counts[action.status] = counts.get(action.status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "nothing was due"
    if result.failures:
        more = f" (and {len(result.failures) - 1} more)" if len(result.failures) > 1 else ""
        return f"{len(result.failures)} thing(s) failed; {told}; {result.failures[0]}{more}"
    return f"{servers} server(s) looked at: {told}"


class ServerUpkeep:
    """The upkeep of one server."""

    def __init__(self, params: Params, server: Server, check_mode: bool, host: Host, kept: dict[str, t.Any], result: Result) -> None:
        self.params = params
        self.server = server
        self.check_mode = check_mode
        self.kept = kept
        self.result = result
        self.name = str(server["name"])
        stop_at = params["deadline"] - _CLEANUP_SECONDS if params["deadline"] else 0.0
        self.bounds = Bounds(
            stop_at,
            params["statement_timeout_seconds"],
            params["lock_attempts"],
            params["terminate_blockers"],
            lambda: host.now().timestamp(),
        )

    def run(self) -> None:
        """Look at the server as a whole, then at each database."""
        with connect(self.server, application_name=f"{APPLICATION}.control") as control:
            if self._not_writable(control) or self._taken(control):
                return
            folder = settings_of.is_here(control)
            self._autovacuum(control)
            with self._reported("settings"):
                self._settings(control, folder)
            kept = self.kept.setdefault(self._identity(control), {})
            seen: set[str] = set()
            for database in databases_of(control, self.server):
                with self._reported(database):
                    self._database(database, folder, kept.setdefault(database, {}), seen)
            for extension in sorted(set(self.params["extensions_to_update"]) - seen):
                words = f"extension {extension} is in none of the databases, so there is nothing to update"
                advice = "CREATE EXTENSION it where it is wanted, or take it out of extensions_to_update."
                self.result.find("upkeep.extension", "unknown", f"{self.name}: {extension}", words, advice=advice)

    def _identity(self, control: Session) -> str:
        """Return what tells the server from others; its name where the role may not read the number."""
        try:
            return system_identifier(control)
        except StatementError:
            return self.name

    @contextlib.contextmanager
    def _reported(self, what: str) -> t.Iterator[None]:
        """Let what goes wrong with one thing not stop the others."""
        try:
            yield
        except MaintenanceError as error:
            self.result.fail("upkeep.server", f"{self.name}/{what}", str(error), _AGAIN)

    def _database(self, database: str, folder: str, kept: Kept, seen: set[str]) -> None:
        look = {"read_only": True, "statement_timeout_seconds": 1800.0, "lock_timeout_seconds": 1.0}
        with connect(self.server, database, application_name=f"{APPLICATION}.look", **look) as session:  # type: ignore[arg-type]
            seen |= {extension.name for extension in read_extensions(session, self.params["extensions_to_update"])}
            DatabaseUpkeep(self.params, self.server, database, session, self.bounds, self.check_mode, folder, kept, self.result).run()

    def _not_writable(self, control: Session) -> bool:
        if control.value("SELECT pg_is_in_recovery()"):
            words = "the server is a standby, on which nothing can be maintained; the primary's upkeep reaches it by replication"
            if self.params["on_standby"] == "skip":
                self.result.find("upkeep.server", "ok", self.name, words)
                self.result.act(self.name, "upkeep", "skipped", words)
            else:
                advice = "Name the primary in the inventory, or set on_standby to skip."
                self.result.fail("upkeep.server", self.name, words, advice)
            return True
        refuse_read_only(control, "the server")
        self.result.find("upkeep.server", "ok", self.name, "the server answers and takes changes")
        return False

    @staticmethod
    def _lock(control: Session) -> bool:
        """Take the run's lock; a session that just ended holds it a moment longer on a busy server."""
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        while not control.value("SELECT pg_try_advisory_lock(%s)", [_LOCK]):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _taken(self, control: Session) -> bool:
        """Whether another run works on this server. The lock goes with the session, so a killed run holds none."""
        if self.check_mode:
            return False
        if not self._lock(control):
            who = control.rows(
                "SELECT a.pid, a.usename, a.backend_start::text AS since FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                " WHERE l.locktype = 'advisory' AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.granted",
                [_LOCK],
            )
            told = f"pid {who[0]['pid']} of {who[0]['usename']} since {who[0]['since']}" if who else "a session that may not be seen"
            self.result.fail("upkeep.server", self.name, f"another upkeep of this server runs: {told}", "Wait for it to end.")
            return True
        ended = end_orphans(control)
        if ended:
            self.result.act(self.name, "end_orphans", "changed", f"{ended} session(s) of a killed upkeep were still at work and were ended")
        return False

    def _autovacuum(self, control: Session) -> None:
        """Manual upkeep does not replace autovacuum, so its being off is said here too."""
        off = [
            row["name"]
            for row in control.rows("SELECT name FROM pg_settings WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off'")
        ]
        words = f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off" if off else "autovacuum and its counters are on"
        advice = "Switch it on: this upkeep adds to autovacuum and does not replace it." if off else ""
        self.result.find("upkeep.autovacuum", "critical" if off else "ok", self.name, words, advice=advice)

    # Settings

    def _settings(self, control: Session, folder: str) -> None:
        if not self.params["settings"]:
            return
        settings, problems = settings_of.read_settings(control, self.params["settings"])
        refused = self._memory(control, settings, folder)
        if problems or refused:
            words = "; ".join(problems + refused)
            self.result.fail("upkeep.setting", f"{self.name}: settings", f"{words}; none was set", "Correct the declared settings.")
            return
        due = [setting for setting in settings if setting.due]
        after = {setting.name: setting for setting in settings}
        if due and not self.check_mode:
            with open_worker(self.server, str(self.server["connect_database"])) as session:
                after.update({setting.name: setting for setting in settings_of.apply(session, due)})
        for setting in settings:
            self._report_setting(setting, after[setting.name])

    def _report_setting(self, before: Setting, after: Setting) -> None:
        subject = f"{self.name}: {before.name}"
        values = {"configured": before.configured, "effective": before.effective}
        if before.due and self.check_mode:
            self.result.act(subject, "set", "due", f"{before.configured} → {before.declared}", values)
        elif before.due:
            now = {"configured": after.configured, "effective": after.effective, "pending_restart": after.pending_restart}
            status = "failed" if after.due else "changed"
            self.result.act(subject, "set", status, f"{before.configured} → {before.declared}", values, now)
            if after.due:
                self.result.failures.append(f"{subject}: it is {after.configured} after it was set to {before.declared}")
        state, words, advice = "ok", f"it is {after.declared}", ""
        if after.overridden and not after.in_effect:
            state, words = "warning", f"it is {after.effective} by the server's {after.source}, which no file can change"
            advice = "Correct how the server is started."
        elif not after.in_effect and not after.due and after.needs_restart:
            state, words = "warning", f"it is {after.declared} after the next restart, until then {after.effective} (pending_restart)"
            advice = "Restart the server in a maintenance window."
        elif not after.in_effect:
            state, words = "warning", f"it is {after.effective}, expected {after.declared}"
            advice = "Set it with a run outside check mode; where that was done, ALTER ROLE or ALTER DATABASE overrides it."
        self.result.find("upkeep.setting", state, subject, words, value=after.effective, advice=advice)

    def _memory(self, control: Session, settings: t.Sequence[Setting], folder: str) -> list[str]:
        """Judge the declared amounts against the host's memory; return what must not be set."""
        if not {setting.name for setting in settings} & set(settings_of.MEMORY_SETTINGS):
            return []
        memory = settings_of.memory_bytes() if folder else 0
        subject = f"{self.name}: memory"
        if not memory:
            words = "the server is not on this host, so the declared amounts cannot be compared with its memory"
            self.result.find("upkeep.memory", "unknown", subject, words, advice="Compare them by hand with the memory of its host.")
            return []
        now, _none = settings_of.read_settings(control, dict.fromkeys(settings_of.MEMORY_SETTINGS, 0))
        values = {setting.name: float(setting.amount(setting.configured)) for setting in now}
        values.update({s.name: float(s.amount(s.declared)) for s in settings if s.name in settings_of.MEMORY_SETTINGS})
        refused, risks = settings_of.memory_problems(values, memory)
        wrong = refused + risks
        state = "critical" if refused else "warning" if risks else "ok"
        advice = "Lower them, or give the host more memory." if wrong else ""
        words = "; ".join(wrong) or "the declared amounts fit into the host's memory"
        self.result.find("upkeep.memory", state, subject, words, value=memory, unit="bytes", advice=advice)
        return refused
