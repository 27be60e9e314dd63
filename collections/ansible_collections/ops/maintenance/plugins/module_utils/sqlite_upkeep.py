# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upkeep of SQLite databases: prove first, then do what is due, then prove again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

from . import snapshot_store, sqlite_db, sqlite_recovery, sqlite_restore, sqlite_work
from .errors import MaintenanceError, VerifyError, refuse
from .host import Host
from .judge import human_bytes, many
from .kept_state import keep_state
from .paths import read_state
from .record import Action, Finding, Json, Outcome, status_of
from .sqlite_upkeep_options import Spec, input_problems, unknown_names
from .sqlite_upkeep_report import Facts, Report, Result, free_percent

STATE = "sqlite.json"


_CHANGED = ("size_bytes", "free_bytes", "journal_mode")
_CHANGED_BY = {"checkpoint": ("wal_bytes",)}
"""What a step is there to change; that others fill the -wal for a moment, until the database is closed, is no news."""
_EXCLUSIVE = ("reindex", "vacuum", "journal_mode")


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every database, do what is due, and look again."""
    _check(params)
    blind = not _self_test_passed() if params["self_test"] else False
    kept = read_state(params["state_dir"], STATE)
    if not check_mode:
        sqlite_recovery.sweep(params["state_dir"])
    outcome = Outcome("databases", "sqlite_upkeep", "ok", "")
    if not params["databases"]:
        advice = "List the databases in database_maintenance_sqlite, or leave this role out."
        outcome.findings.append(Finding("database.present", "unknown", "databases", "no SQLite database is declared", advice=advice))
    failure = ""
    unkept: list[Finding] = []
    damaged: list[str] = []
    restoring: list[str] = []
    for spec in params["databases"]:
        result = Result(state=dict(kept.get(spec["path"], {})))
        try:
            Upkeep(spec, params, check_mode, host, result).run()
        except MaintenanceError as error:
            failure = failure or str(error)
            advice = "Read the message, correct the cause, run again."
            result.find("database.upkeep", "critical", spec["path"], str(error), advice=advice)
        if result.damage:
            (restoring if result.restored else damaged).append(spec["path"])
        if result.damage and not result.restored and not check_mode:
            failure = failure or result.damage
        kept[spec["path"]] = result.state
        outcome.findings += _unproven(result.findings) if blind else result.findings
        outcome.metrics += result.metrics
        outcome.actions += result.actions
        if not check_mode:
            unkept = keep_state(params["state_dir"], STATE, kept)
    outcome.findings += unkept
    outcome.status = "failed" if failure else status_of(outcome.actions, check_mode)
    outcome.summary = failure or _summary(outcome, len(params["databases"]))
    outcome.returned = {"due": outcome.is_change, "damaged": damaged, "restoring": restoring}
    return outcome


def _summary(outcome: Outcome, count: int) -> str:
    done = sum(action.status in ("changed", "due") for action in outcome.actions)
    return f"{many(count, 'database')} looked at, worst state {outcome.state}, {many(done, 'thing')} {'due or done' if done else 'to do'}"


def _check(params: dict[str, t.Any]) -> None:
    problems = input_problems(params)
    refuse(problems + [f"{spec['path']}: {problem}; correct it." for spec in params["databases"] for problem in unknown_names(spec)])


def plant_broken_index(path: str) -> None:
    """Make a small database whose index misses a row: every page is well formed, only a full check sees it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE sample (a INTEGER PRIMARY KEY, b TEXT)")
        connection.execute("CREATE INDEX by_b ON sample (b)")
        connection.execute("INSERT INTO sample VALUES (1, 'one')")
        entry = connection.execute("SELECT * FROM sqlite_master WHERE name = 'by_b'").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master WHERE name = 'by_b'")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO sample VALUES (2, 'two')")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", entry)


def _self_test_passed() -> bool:
    """Whether an empty file and a broken index are found in samples planted for that."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        empty, broken = os.path.join(folder, "empty.db"), os.path.join(folder, "broken.db")
        with open(empty, "wb"):
            pass
        plant_broken_index(broken)
        return bool(sqlite_restore.prove(empty).problems and sqlite_restore.prove(broken).problems)


def _unproven(findings: list[Finding]) -> list[Finding]:
    advice = "Report this with the versions of Python and SQLite on the host."
    return [
        Finding(f.id, "unknown", f.subject, "the verifier passed a planted bad sample, so this means nothing", advice=advice)
        for f in findings
    ]


@dataclass
class Upkeep:
    """The upkeep of one database."""

    spec: Spec
    params: dict[str, t.Any]
    check_mode: bool
    host: Host
    result: Result

    def __post_init__(self) -> None:
        self.path: str = self.spec["path"]
        self.now: datetime = self.host.now()

    def run(self) -> None:
        """Look, stop at damage, do what is due, look again."""
        facts = self._look()
        if facts is None:
            return
        try:
            if self._work(facts, self._due(facts)):
                facts = sqlite_db.reading(self.path, self._facts)
        finally:
            Report(self.spec, self.result).run(facts)
        self._remember(facts)

    # Looking

    def _look(self) -> Facts | None:
        """Return the facts of a sound database; otherwise say what is wrong and return None."""
        try:
            sqlite_db.read_header(self.path)
            if not self._undone():
                return None
            facts = sqlite_db.reading(self.path, self._facts)
        except sqlite_db.DatabaseUnusableError as error:
            state = "unknown" if error.reason == "unreadable" else "critical"
            self._bad("database.present", state, str(error), restorable=error.reason in ("missing", "empty", "foreign"))
            return None
        except sqlite_db.DatabaseBusyError as error:
            self._bad("database.integrity", "unknown", str(error), restorable=False)
            return None
        except sqlite_db.DatabaseDamagedError as error:
            self._bad("database.integrity", "critical", str(error), restorable=True)
            return None
        missing = [name for name in self.spec["required_tables"] if name not in facts.tables]
        if missing:
            words = f"{self.path} has no table {', '.join(missing)}, so it is not the expected database"
            self._bad("database.present", "critical", words, restorable=False)
            return None
        words = f"{self.path} is a SQLite database with {len(facts.tables)} tables"
        self.result.find("database.present", "ok", self.path, words, value=len(facts.tables), unit="count")
        if facts.problems:
            words = f"integrity_check found {many(len(facts.problems), 'problem')}: {facts.problems[0]}"
            self._bad("database.integrity", "critical", words, restorable=True, evidence=facts.problems)
            return None
        self.result.find("database.integrity", "ok", self.path, "integrity_check answered exactly ok")
        return facts

    def _undone(self) -> bool:
        """Whether no half-written transaction is left; check mode cannot look behind one."""
        if not sqlite_db.interrupted(self.path) or sqlite_db.users_of(self.path).holders:
            return True
        words = "a killed process left a transaction half written"
        if self.check_mode:
            self._act("recover", "due", words)
            advice = "The next run that is not in check mode, or the application, lets SQLite undo it."
            self.result.find("database.integrity", "unknown", self.path, f"{words}, which check mode must not undo", advice=advice)
            return False
        sqlite_work.recover(self.path)
        self._act("recover", "changed", words)
        return True

    def _facts(self, connection: sqlite3.Connection) -> Facts:
        present = sqlite_db.tables(connection)
        problems = sqlite_db.integrity(connection)
        if problems:
            return Facts(problems, [], present, {}, {}, 0, False)
        rows, unreadable = {}, {}
        for name in self.spec["count_tables"]:
            try:
                rows.update(sqlite_db.table_counts(connection, [name]))
            except MaintenanceError as error:
                unreadable[name] = str(error)
        analyzed = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone()[0]
        orphans, free = sqlite_db.foreign_keys(connection), sqlite_db.freeable_bytes(connection)
        return Facts([], orphans, present, rows, unreadable, free, bool(analyzed))

    def _bad(self, finding_id: str, state: str, words: str, *, restorable: bool, evidence: t.Sequence[str] = ()) -> None:
        advice = "Nothing was done to this database; find the cause, then restore it from a proven backup."
        self.result.find(finding_id, state, self.path, words, evidence=evidence, advice=advice)
        self.result.damage = words if state == "critical" else ""
        if restorable and state == "critical":
            recovery = sqlite_recovery.Recovery(self.spec, self.params, self.check_mode, self.host)
            found, actions, kept = recovery.run(self.result.state.get("evidence", {}))
            self.result.findings += found
            self.result.actions += actions
            self.result.state["evidence"] = kept

    # Deciding

    def _older_than(self, name: str, days: float) -> bool:
        last = self.result.state.get(name)
        return last is None or self.now - datetime.fromisoformat(last) >= timedelta(days=days)

    def _due(self, facts: Facts) -> dict[str, str]:
        """Return the steps that are due, each with its reason."""
        due = {}
        if self._reindex_due():
            due["reindex"] = f"indexes are rebuilt every {self.spec['reindex_after_days']:g} days or with a new SQLite"
        enough = facts.free >= self.spec["vacuum_free_bytes"] and facts.free > 0
        if enough and free_percent(self.path, facts) >= self.spec["vacuum_free_percent"]:
            due["vacuum"] = f"{human_bytes(facts.free)} ({free_percent(self.path, facts):.0f} percent) are unused"
        wanted = self.spec["journal_mode"]
        if wanted != "keep" and (wanted == "wal") != sqlite_db.read_header(self.path).wal:
            due["journal_mode"] = f"the file is to be in journal mode {wanted}"
        changed = self._changed_percent(facts)
        if not facts.analyzed or self._older_than("analyzed", self.spec["analyze_after_days"]):
            due["analyze"] = "the planner's statistics are missing or old"
        elif changed >= self.spec["analyze_when_changed_percent"] > 0:
            due["analyze"] = f"{changed:.0f} percent of the rows were added or removed since the last ANALYZE"
        wal = sqlite_restore.sized([self.path + "-wal"])
        if wal and wal >= self.spec["checkpoint_wal_bytes"]:
            due["checkpoint"] = f"the -wal file has {human_bytes(wal)}"
        return due

    def _reindex_due(self) -> bool:
        when, state = self.spec["reindex"], self.result.state
        if when == "always":
            return not self.params["run_id"] or state.get("reindexed_by") != self.params["run_id"]
        if when == "never":
            return False
        other = state.get("reindexed_with") != sqlite3.sqlite_version
        return other or self._older_than("reindexed", self.spec["reindex_after_days"])

    def _changed_percent(self, facts: Facts) -> float:
        last = self.result.state.get("analyzed_rows", {})
        total = sum(last.values())
        return 100.0 * sum(abs(facts.rows.get(n, 0) - count) for n, count in last.items()) / total if total else 0.0

    # Doing

    def _act(self, step: str, status: str, words: str, before: Json = None, after: Json = None) -> None:
        self.result.actions.append(Action(self.path, step, status, words, before or {}, after or {}))

    def _work(self, facts: Facts, due: dict[str, str]) -> bool:
        """Do what is due and may be done now; return whether anything was done."""
        steps = self._allowed(due)
        if self.check_mode:
            for step in steps:
                self._act(step, "due", due[step])
        if self.check_mode or not steps:
            return False
        rows = sqlite_db.reading(self.path, _all_rows)
        place = os.lstat(self.path)
        measured = sqlite_work.carry_out(self.path, steps, self.spec["journal_mode"])
        self._verify(facts, rows, place, steps)
        for step, before, after in zip(steps, measured, measured[1:]):
            names = _CHANGED_BY.get(step, _CHANGED)
            self._act(step, "changed", due[step], {n: before[n] for n in names}, {n: after[n] for n in names})
        self._note_done(facts, steps)
        return True

    def _allowed(self, due: dict[str, str]) -> list[str]:
        """Return the due steps that may be done now; each of the others becomes a deferred or skipped action."""
        steps = [step for step in sqlite_work.STEPS if step in due]
        steps = self._without(steps, [s for s in steps if s in _EXCLUSIVE] and self._open_elsewhere(), _EXCLUSIVE, "skipped")
        steps = self._without(steps, "vacuum" in steps and self._no_room(), ("vacuum",), "skipped")
        steps = self._without(steps, "vacuum" in steps and self._no_snapshot(), ("vacuum", "reindex"), "skipped")
        return self._without(steps, steps and self._no_time(), sqlite_work.STEPS, "deferred")

    def _without(self, steps: list[str], reason: t.Any, those: t.Collection[str], status: str) -> list[str]:
        if not reason:
            return steps
        for step in steps:
            if step in those:
                self._act(step, status, f"due, but {reason}")
        return [step for step in steps if step not in those]

    def _open_elsewhere(self) -> str:
        users = sqlite_db.users_of(self.path)
        gap = f"{many(len(users.unseen), 'process', 'processes')} that would not let us look" if users.unseen else ""
        if not users.holders:
            words = "no process has the database open"
            self.result.find("database.open_by", "ok", self.path, words, value=0, unit="count", not_covered=gap)
            return ""
        words = f"open in {many(len(users.holders), 'process', 'processes')}: {users.holders[0]}"
        advice = "Stop them (maintenance mode does that for declared services), cron jobs included, and run again."
        state = "ok" if self.check_mode else "warning"
        self.result.find(
            "database.open_by",
            state,
            self.path,
            words,
            value=len(users.holders),
            unit="count",
            advice=advice,
            evidence=users.holders,
            not_covered=gap,
        )
        return "" if self.check_mode else words

    def _no_room(self) -> str:
        size = sqlite_restore.sized(sqlite_restore.with_sidecars(self.path))
        reserve = self.params["reserve_bytes"]
        needs = {_sqlite_temporary_folder(): size + reserve, os.path.dirname(self.path): 2 * size + reserve}
        for folder, needed in needs.items():
            free = sqlite_restore.free_bytes(folder)
            if free < needed:
                words = f"VACUUM needs {human_bytes(needed)} free in {folder}, there are {human_bytes(free)}"
                advice = "Make room; VACUUM writes the whole database twice."
                self.result.find("database.disk_room", "warning", self.path, words, value=free, unit="bytes", advice=advice)
                return words
        self.result.find("database.disk_room", "ok", self.path, "there is room for VACUUM", value=free, unit="bytes")
        return ""

    def _no_snapshot(self) -> str:
        if not self.params["require_snapshot"] or self.check_mode:
            return ""
        since = self.now - timedelta(hours=self.params["snapshot_max_age_hours"])
        if snapshot_store.covers(self.params["snapshot_root"], self.path, since):
            return ""
        words = f"no proven snapshot younger than {self.params['snapshot_max_age_hours']:g} hours holds this database"
        advice = "Run the snapshot role first (the cycle does), or set require_snapshot to false."
        self.result.find("database.snapshot", "warning", self.path, words, advice=advice)
        return words

    def _no_time(self) -> str:
        if not self.params["deadline"]:
            return ""
        size = sqlite_restore.sized(sqlite_restore.with_sidecars(self.path))
        end = self.now.timestamp() + 2 + 4 * size / self.params["bytes_per_second"]
        return "it would not end before the window closes" if end > self.params["deadline"] else ""

    # Proving the effect

    def _verify(self, facts: Facts, before: dict[str, int], place: os.stat_result, steps: list[str]) -> None:
        after = sqlite_restore.prove(self.path)
        now = os.lstat(self.path)
        wrong = after.problems + [orphan for orphan in after.orphans if orphan not in facts.orphans]
        if before != after.rows and set(steps) & set(_EXCLUSIVE):
            wrong.append(f"rows differ by table: {sqlite_restore.row_gap(before, after.rows)}")
        if (now.st_uid, now.st_gid, now.st_mode) != (place.st_uid, place.st_gid, place.st_mode):
            wrong.append("owner, group or mode of the file changed")
        if "journal_mode" in steps and sqlite_db.read_header(self.path).wal != (self.spec["journal_mode"] == "wal"):
            wrong.append("the journal mode was not stored")
        if "vacuum" in steps and sqlite_db.reading(self.path, sqlite_db.freeable_bytes) >= facts.free > 0:
            wrong.append("VACUUM gave nothing back")
        if wrong:
            raise VerifyError(f"{self.path} after {', '.join(steps)}: {'; '.join(wrong[:5])}; roll back to the snapshot of this run.")

    # Remembering

    def _note_done(self, facts: Facts, steps: list[str]) -> None:
        state, now = self.result.state, self.now.isoformat()
        if "reindex" in steps:
            state.update(reindexed=now, reindexed_with=sqlite3.sqlite_version, reindexed_by=self.params["run_id"])
        if "analyze" in steps:
            state.update(analyzed=now, analyzed_rows=facts.rows)

    def _remember(self, facts: Facts) -> None:
        """Keep sizes and rows; rows that fell suddenly are compared with the old count for six more days."""
        state = self.result.state
        fell = any(f.id == "database.rows" and f.state == "warning" for f in self.result.findings)
        since = datetime.fromisoformat(state["fell"]) if state.get("fell") else self.now
        if fell and self.now - since < timedelta(days=6):
            state["fell"] = since.isoformat()
        else:
            state.pop("fell", None)
            state["rows"] = {**state.get("rows", {}), **facts.rows}
        state.update(time=self.now.isoformat(), size=os.lstat(self.path).st_size)


def _all_rows(connection: sqlite3.Connection) -> dict[str, int]:
    return sqlite_db.table_counts(connection, sqlite_db.tables(connection))


def _sqlite_temporary_folder() -> str:
    """Return the folder that SQLite writes temporary files to."""
    for folder in (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp"):  # noqa: S108 (SQLite chooses them)
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return "."
