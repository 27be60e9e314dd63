# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the upkeep of a SQLite database says of a sound one."""

from __future__ import annotations

import grp
import os
import pwd
import re
import typing as t
from dataclasses import dataclass, field

from . import sqlite_db, sqlite_restore
from .errors import MaintenanceError
from .judge import from_limit, human_bytes, limits, many
from .paths import open_regular
from .record import Action, Finding, Json, Metric
from .sqlite_upkeep_options import Spec


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


def free_percent(path: str, facts: Facts) -> float:
    """Return how much of the file is unused pages."""
    return 100.0 * facts.free / max(1, os.lstat(path).st_size)


class Report:
    """What is said of one database, in its result."""

    def __init__(self, spec: Spec, result: Result):
        self.spec, self.result = spec, result
        self.path: str = spec["path"]

    def run(self, facts: Facts) -> None:
        """Add a finding of each kind."""
        self._foreign_keys(facts)
        self._rows(facts)
        self._size(facts)
        self._owner()
        self._journal_mode()
        self._settings()

    def _foreign_keys(self, facts: Facts) -> None:
        if facts.orphans:
            words = f"{many(len(facts.orphans), 'reference')} to rows that do not exist: {facts.orphans[0]}"
            advice = "Ask the application's developers; maintenance must not delete or invent rows."
            self.result.find("database.foreign_keys", "critical", self.path, words, advice=advice, evidence=facts.orphans)
        else:
            self.result.find("database.foreign_keys", "ok", self.path, "every reference leads to a row")

    def _rows(self, facts: Facts) -> None:
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

    def _size(self, facts: Facts) -> None:
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
            f"{human_bytes(facts.free)} of the file are unused pages ({free_percent(self.path, facts):.1f} percent)",
            value=facts.free,
            unit="bytes",
            threshold=f"VACUUM from {self.spec['vacuum_free_percent']:g} percent and {human_bytes(self.spec['vacuum_free_bytes'])}",
        )

    def _owner(self) -> None:
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

    def _journal_mode(self) -> None:
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

    def _settings(self) -> None:
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


def declares(text: str, name: str, value: Json) -> bool:
    """Whether a text sets a pragma: ``PRAGMA cache_size = 10000`` or ``"cache_size": 10000``."""
    pattern = rf"(?<![\w]){re.escape(name)}\W{{1,8}}{re.escape(str(value))}(?![\w])"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _text_of(path: str) -> str:
    with open_regular(path) as source:
        return source.read(4 * 1024 * 1024).decode("utf-8", "backslashreplace")
