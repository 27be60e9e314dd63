# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upkeep of SQLite databases: prove first, then do what is due, then prove again."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import sqlite3
import tempfile
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from . import snapshot_store, sqlite_db, sqlite_recovery, sqlite_restore, sqlite_work
from .errors import InputError, MaintenanceError, VerifyError, out_of_range, refuse
from .host import Host
from .judge import from_limit, human_bytes, limits, many
from .kept_state import keep_state
from .paths import open_regular, read_state
from .record import Action, Finding, Json, Metric, Outcome, status_of

STATE = "sqlite.json"
DAY = 86400.0

DATABASE = {
    "path": {"type": "str", "required": True},
    "owner": {"type": "str", "default": ""},
    "group": {"type": "str", "default": ""},
    "required_tables": {"type": "list", "elements": "str", "default": []},
    "count_tables": {"type": "list", "elements": "str", "default": []},
    "journal_mode": {"type": "str", "choices": ["wal", "delete", "keep"], "default": "keep"},
    "application_settings": {"type": "dict", "default": {}},
    "application_settings_in": {"type": "list", "elements": "str", "default": []},
    "vacuum_free_percent": {"type": "float", "default": 20.0},
    "vacuum_free_bytes": {"type": "int", "default": 1048576},
    "checkpoint_wal_bytes": {"type": "int", "default": 4194304},
    "analyze_after_days": {"type": "float", "default": 6.0},
    "analyze_when_changed_percent": {"type": "float", "default": 10.0},
    "reindex": {"type": "str", "choices": ["never", "when_due", "always"], "default": "when_due"},
    "reindex_after_days": {"type": "float", "default": 6.0},
    "max_shrink_rows_percent": {"type": "float", "default": 20.0},
    "size_warning_bytes": {"type": "int", "default": 0},
    "restore_from": {"type": "list", "elements": "str", "default": []},
    "allow_restore": {"type": "bool", "default": False},
}

OPTIONS = {
    "databases": {"type": "list", "elements": "dict", "required": True, "options": DATABASE},
    "reserve_bytes": {"type": "int", "default": 104857600},
    "bytes_per_second": {"type": "int", "default": 10485760},
    "require_snapshot": {"type": "bool", "default": False},
    "snapshot_root": {"type": "path", "default": "/var/backups/ops_maintenance"},
    "snapshot_max_age_hours": {"type": "float", "default": 24.0},
}

_CHANGED = ("size_bytes", "free_bytes", "journal_mode")
_CHANGED_BY = {"checkpoint": ("wal_bytes",)}
"""What a step is there to change; that others fill the -wal for a moment, until the database is closed, is no news."""
_EXCLUSIVE = ("reindex", "vacuum", "journal_mode")
_PERCENT = ("vacuum_free_percent", "analyze_when_changed_percent", "max_shrink_rows_percent")
_NOT_NEGATIVE = (
    "vacuum_free_bytes",
    "checkpoint_wal_bytes",
    "analyze_after_days",
    "reindex_after_days",
    "size_warning_bytes",
)

Spec = dict[str, t.Any]


@dataclass
class Result:
    """What one database added to the outcome, and what the next run has to know of it."""

    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    state: dict[str, Json] = field(default_factory=dict)
    damage: str = ""

    @property
    def restored(self) -> bool:
        """Whether a backup took, or in check mode will take, the place of a damaged file."""
        return any(action.operation == "restore" for action in self.actions)

    def find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(finding_id, state, subject, summary, **more))


@dataclass(frozen=True)
class Facts:
    """What a look at a database showed."""

    problems: list[str]
    orphans: list[str]
    tables: list[str]
    rows: dict[str, int]
    unreadable: dict[str, str]
    free: int
    analyzed: bool


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
    refuse(problems + [f"{spec['path']}: {problem}; correct it." for spec in params["databases"] for problem in _unknown_names(spec)])


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("reserve_bytes", "snapshot_max_age_hours")) + out_of_range(params, ("bytes_per_second",), least=1)
    seen: set[str] = set()
    for spec in params["databases"]:
        path = spec["path"]
        if not os.path.isabs(path) or os.path.normpath(path) != path:
            problems.append(str(InputError.of("databases.path", path, "an absolute path without detours", "correct it")))
        if path in seen:
            problems.append(f"{path} is declared twice; remove one.")
        seen.add(path)
        problems += [f"{path}: {problem}" for problem in out_of_range(spec, _PERCENT, most=100) + out_of_range(spec, _NOT_NEGATIVE)]
    return problems


def _unknown_names(spec: Spec) -> t.Iterator[str]:
    for option, look_up in (("owner", pwd.getpwnam), ("group", grp.getgrnam)):
        if spec[option]:
            try:
                look_up(spec[option])
            except KeyError:
                yield f"{option} is {spec[option]!r}, expected a name that this host knows"


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
            self._report(facts)
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

    # Reporting

    def _report(self, facts: Facts) -> None:
        self._report_foreign_keys(facts)
        self._report_rows(facts)
        self._report_size(facts)
        self._report_owner()
        self._report_journal_mode()
        self._report_settings()

    def _report_foreign_keys(self, facts: Facts) -> None:
        if facts.orphans:
            words = f"{many(len(facts.orphans), 'reference')} to rows that do not exist: {facts.orphans[0]}"
            advice = "Ask the application's developers; maintenance must not delete or invent rows."
            self.result.find("database.foreign_keys", "critical", self.path, words, advice=advice, evidence=facts.orphans)
        else:
            self.result.find("database.foreign_keys", "ok", self.path, "every reference leads to a row")

    def _report_rows(self, facts: Facts) -> None:
        for name, why in facts.unreadable.items():
            advice = "Correct the table's name in count_tables, or find out who dropped or locked it."
            self.result.find("database.rows", "critical", f"{self.path}: {name}", why, advice=advice)
        limit = self.spec["max_shrink_rows_percent"]
        last = self.result.state.get("rows", {})
        for name, count in facts.rows.items():
            subject = f"{self.path}: {name}"
            self.result.metrics.append(Metric("database.rows", subject, count, "count"))
            lost = 100.0 * (last[name] - count) / last[name] if last.get(name) else 0.0
            words = f"{count} rows" + (f", {count - last[name]:+d} since the last run" if name in last else "")
            fell = lost > 0 and lost >= limit
            self.result.find(
                "database.rows",
                "warning" if fell else "ok",
                subject,
                words,
                value=count,
                unit="count",
                threshold=f"warning when {limit:g} percent fewer than at the last run",
                advice="Find out who deleted them; the last snapshot and the backups still hold them." if fell else "",
            )

    def _report_size(self, facts: Facts) -> None:
        size, wal = os.lstat(self.path).st_size, sqlite_restore.sized([self.path + "-wal"])
        for name, value in (("size_bytes", size), ("free_bytes", facts.free), ("wal_bytes", wal)):
            self.result.metrics.append(Metric(f"database.{name}", self.path, value, "bytes"))
        self.result.metrics.append(Metric("database.tables", self.path, len(facts.tables), "count"))
        last = self.result.state.get("size")
        grown = f", {'+' if size >= last else '-'}{human_bytes(abs(size - last))} since the last run" if last else ""
        limit = self.spec["size_warning_bytes"] or None
        state = from_limit(size, limit)
        self.result.find(
            "database.size",
            state,
            self.path,
            f"{human_bytes(size)} in {len(facts.tables)} tables{grown}",
            value=size,
            unit="bytes",
            threshold=limits("bytes", limit),
            advice="Archive or delete old rows, or raise size_warning_bytes." if state != "ok" else "",
        )
        self.result.find(
            "database.free_space",
            "ok",
            self.path,
            f"{human_bytes(facts.free)} of the file are unused pages ({self._free_percent(facts):.1f} percent)",
            value=facts.free,
            unit="bytes",
            threshold=f"VACUUM from {self.spec['vacuum_free_percent']:g} percent and {human_bytes(self.spec['vacuum_free_bytes'])}",
        )

    def _report_owner(self) -> None:
        wanted = {"owner": self.spec["owner"], "group": self.spec["group"]}
        if not any(wanted.values()):
            return
        wrong = []
        for name in sqlite_restore.with_sidecars(self.path):
            status = os.lstat(name)
            if wanted["owner"] and status.st_uid != pwd.getpwnam(wanted["owner"]).pw_uid:
                wrong.append(f"{name} belongs to uid {status.st_uid}")
            if wanted["group"] and status.st_gid != grp.getgrnam(wanted["group"]).gr_gid:
                wrong.append(f"{name} belongs to gid {status.st_gid}")
        shown = ":".join(filter(None, wanted.values()))
        if wrong:
            advice = f"chown {shown} the files; otherwise the application may not be able to write."
            words = f"not all files belong to {shown}: {wrong[0]}"
            self.result.find("database.owner", "critical", self.path, words, advice=advice, evidence=wrong)
        else:
            self.result.find("database.owner", "ok", self.path, f"all files belong to {shown}")

    def _report_journal_mode(self) -> None:
        stored = sqlite_db.read_header(self.path).journal_mode
        wanted = self.spec["journal_mode"]
        fits = wanted == "keep" or (stored == "wal") == (wanted == "wal")
        self.result.find(
            "database.journal_mode",
            "ok" if fits else "warning",
            self.path,
            f"the journal mode stored in the file is {stored}" + ("" if fits else f", expected {wanted}"),
            value=stored,
            advice="" if fits else "It is set when nobody has the database open; the application may set another one.",
        )

    def _report_settings(self) -> None:
        settings = self.spec["application_settings"]
        if not settings:
            return
        shown = ", ".join(f"{name}={value}" for name, value in sorted(settings.items()))
        not_covered = "what the application's connections really use: these settings hold for one connection only"
        try:
            texts = [_text_of(path) for path in self.spec["application_settings_in"]]
        except (OSError, MaintenanceError) as error:
            texts, shown = [], f"{shown} ({error})"
        missing = [name for name, value in settings.items() if not any(declares(text, name, value) for text in texts)]
        if not texts:
            state, words = "unknown", f"{shown}: the database file does not keep them and no readable place was named"
        elif missing:
            state, words = "warning", f"the application's files do not set {', '.join(missing)} as declared"
        else:
            state, words = "ok", f"the application's files set {shown}"
        advice = "Set them where the application opens its connections and name that file in application_settings_in."
        advice = "" if state == "ok" else advice
        self.result.find("database.settings", state, self.path, words, not_covered=not_covered, advice=advice)

    # Deciding

    def _free_percent(self, facts: Facts) -> float:
        return 100.0 * facts.free / max(1, os.lstat(self.path).st_size)

    def _older_than(self, name: str, days: float) -> bool:
        last = self.result.state.get(name)
        return last is None or self.now - datetime.fromisoformat(last) >= timedelta(days=days)

    def _due(self, facts: Facts) -> dict[str, str]:
        """Return the steps that are due, each with its reason."""
        due = {}
        if self._reindex_due():
            due["reindex"] = f"indexes are rebuilt every {self.spec['reindex_after_days']:g} days or with a new SQLite"
        enough = facts.free >= self.spec["vacuum_free_bytes"] and facts.free > 0
        if enough and self._free_percent(facts) >= self.spec["vacuum_free_percent"]:
            due["vacuum"] = f"{human_bytes(facts.free)} ({self._free_percent(facts):.0f} percent) are unused"
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


def declares(text: str, name: str, value: Json) -> bool:
    """Whether a text sets a pragma: ``PRAGMA cache_size = 10000`` or ``"cache_size": 10000``."""
    pattern = rf"(?<![\w]){re.escape(name)}\W{{1,8}}{re.escape(str(value))}(?![\w])"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _text_of(path: str) -> str:
    with open_regular(path) as source:
        return source.read(4 * 1024 * 1024).decode("utf-8", "backslashreplace")


def _sqlite_temporary_folder() -> str:
    """Return the folder that SQLite writes temporary files to."""
    for folder in (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp"):  # noqa: S108 (SQLite chooses them)
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return "."
