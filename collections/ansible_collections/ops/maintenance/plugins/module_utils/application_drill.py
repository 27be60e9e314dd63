# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a whole application into a throw-away place: database, files and configuration together, and the application started on them."""

from __future__ import annotations

import os
import time
import typing as t
from dataclasses import dataclass, field

from . import application_tree as tree
from . import application_unit as unit
from .backup_adaptor import Around, Climb
from .backup_adaptors import ADAPTORS
from .backup_pg_restore import Place
from .backup_proof import Scratch, prove_whole
from .backup_sets import HOUR, Backup, Declared
from .errors import MaintenanceError
from .judge import human_bytes, human_seconds, many
from .record import Finding, Metric

APPLICATION: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "database": {"type": "str", "default": ""},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "set": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "inside": {"type": "str", "default": ""},
        },
    },
    "manifest": {"type": "path", "default": ""},
    "references": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"query": {"type": "str", "required": True}, "below": {"type": "path", "required": True}},
    },
    "maximum_gap_minutes": {"type": "float", "default": 60.0},
    "maximum_rto_minutes": {"type": "float", "default": 0.0},
    "maximum_rpo_hours": {"type": "float", "default": 0.0},
    "start": {"type": "dict", "options": unit.START},
}
"""Argument spec of an application: the sets that hold it, and what tells that it works."""

_OF_FILES = ("files", "sqlite")
_SHOWN = 10


def problems(params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Say what of the applications cannot be used, one sentence each, from the input alone."""
    sets = {declared["name"]: declared for declared in params["sets"]}
    names: set[str] = set()
    for application in params.get("applications") or ():
        name = application["name"]
        if name in names or not name.strip():
            yield f"applications has the name {name!r} twice or empty, expected one of its own; correct it."
        names.add(name)
        of = f"of application {name}"
        wanted: list[tuple[str, str, tuple[str, ...]]] = (
            [(application["database"], "database", ("postgresql",))] if application["database"] else []
        )
        wanted += [(part["set"], "files.set", _OF_FILES) for part in application["files"]]
        if not wanted:
            yield f"files {of} is empty and so is database, expected the sets that hold it; name them."
        for set_name, option, kinds in wanted:
            kind = sets[set_name]["kind"] if set_name in sets else "no set"
            if kind not in kinds:
                yield f"{option} {of} is {set_name!r} ({kind}), expected a declared set of kind {' or '.join(kinds)}; correct it."
        yield from _path_problems(application, of)
        for option in ("maximum_gap_minutes", "maximum_rto_minutes", "maximum_rpo_hours"):
            if not application[option] >= 0:
                yield f"{option} {of} is {application[option]}, expected 0 or more; correct it."
        if application["references"] and not application["database"]:
            yield f"references {of} are given without database, expected the set whose rows name the files; name it, or leave them out."
        if application["start"]:
            yield from unit.problems(application["start"], of)


def _path_problems(application: Declared, of: str) -> t.Iterator[str]:
    places = [part["path"] for part in application["files"]]
    for path in places:
        if not unit.is_plain(path):
            yield f"files.path {of} is {path!r}, expected the full path where it lies, of letters, digits and . _ - @ + only; correct it."
    inner = [("manifest", application["manifest"])] if application["manifest"] else []
    inner += [("references.below", reference["below"]) for reference in application["references"]]
    for option, path in inner:
        if not any(tree.is_below(path, place) for place in places):
            yield f"{option} {of} is {path!r}, expected a path in one of its files ({', '.join(places) or 'none'}); correct it."


@dataclass
class Drill:
    """One application on its way back.

    :param newest: tells the newest finished backup of a set.
    """

    application: Declared
    sets: t.Mapping[str, Declared]
    newest: t.Callable[[Declared], Backup | None]
    around: Around
    scratch: Scratch
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    seconds: float = 0.0
    behind: float = 0.0
    works: bool = False

    def run(self) -> None:
        """Restore all parts, look at them together, start the application; nothing is left behind."""
        backups = self._backups()
        if backups is None:
            return
        self._together(backups)
        try:
            self._restored(backups)
        except (MaintenanceError, OSError) as error:
            self.find("drill.files", "unknown", f"could not be restored: {error}", advice="Give the scratch folder room, then drill again.")
        self._objectives(backups)

    def find(self, id_: str, state: str, summary: str, *, advice: str, **more: t.Any) -> None:
        """Add a finding about the application."""
        advice = "" if state == "ok" else advice
        self.findings.append(Finding(id_, state, str(self.application["name"]), summary, advice=advice, **more))

    def _names(self) -> list[str]:
        names = [part["set"] for part in self.application["files"]]
        return list(dict.fromkeys([self.application["database"], *names] if self.application["database"] else names))

    def _backups(self) -> dict[str, Backup] | None:
        found = {}
        for name in self._names():
            try:
                backup = self.newest(self.sets[name])
            except (MaintenanceError, OSError) as error:
                self.find("drill.together", "unknown", f"the set {name} could not be looked at: {error}", advice="Correct its declaration.")
                return None
            if backup is None:
                self.find("drill.together", "critical", f"the set {name} has no backup", advice="Make a backup of every part now.")
                return None
            found[name] = backup
        return found

    def _together(self, backups: t.Mapping[str, Backup]) -> None:
        """Compare the times of the parts: an application does not work on a database and files of different days."""
        ordered = sorted(backups.items(), key=lambda item: item[1].moment)
        gap = ordered[-1][1].moment - ordered[0][1].moment
        limit = float(self.application["maximum_gap_minutes"]) * 60
        words = f"{len(ordered)} parts, {human_seconds(gap)} apart"
        if gap > limit:
            words = f"{ordered[0][0]} is {human_seconds(gap)} older than {ordered[-1][0]}"
        self.find(
            "drill.together",
            "critical" if gap > limit else "ok",
            words,
            value=round(gap / 60, 1),
            unit="minutes",
            threshold=f"critical above {self.application['maximum_gap_minutes']:g} minutes",
            evidence=[f"{name}: {backup.path}" for name, backup in ordered],
            advice="Let the parts be backed up one right after the other; what lies between them does not fit together.",
        )

    # Restoring

    def _restored(self, backups: t.Mapping[str, Backup]) -> None:
        needed = sum(backup.size for backup in backups.values())
        with self.scratch.target(needed, False) as target:
            if target.problem:
                raise MaintenanceError(target.problem)
            started = time.monotonic()
            files = [tree.restore(backups[part["set"]], self.sets[part["set"]], part, target) for part in self.application["files"]]
            self.seconds = time.monotonic() - started
            self._files(files, target.folder or "")
            if not self.application["database"]:
                self._start(target.folder or "", None)
                return
            self._database(backups[self.application["database"]], target.folder or "")

    def _files(self, files: t.Sequence[tree.Restored], folder: str) -> None:
        if not files:
            advice = "Back up its files and configuration too, and declare the sets in files; code and keys come from nowhere else."
            words = "no backup of its files and configuration is declared, so only its database comes back"
            self.find("drill.files", "unknown", words, advice=advice)
            return
        wrong = [text for restored in files for text in restored.wrong]
        evidence, notes = wrong[:_SHOWN], [note for restored in files for note in restored.notes]
        words = f"{many(sum(restored.files for restored in files), 'file')}, {human_bytes(sum(r.size for r in files))} restored"
        manifest = self.application["manifest"]
        if manifest and not wrong:
            wrong = list(tree.against_manifest(folder, manifest))
            evidence = wrong[:_SHOWN]
            words += f", each as {os.path.basename(manifest)} says"
        elif not manifest:
            notes.append("whether they are what they were: no manifest is declared")
        if wrong:
            words = f"{len(wrong)} wrong, first: {wrong[0]}"
        self.find(
            "drill.files",
            "critical" if wrong else "ok",
            words,
            evidence=evidence,
            not_covered="; ".join(notes[:3]),
            advice="Do not rely on this backup of the files: make a new one, and look what the job leaves out.",
        )

    def _database(self, backup: Backup, folder: str) -> None:
        declared = {**self.sets[self.application["database"]], "restore_into": "", "restore_database": ""}
        compares = declared["count_tables"] or declared["sentinel"] or declared["minimum_rows"]
        declared["level"] = 5 if compares else 4
        climb = Climb(declared, backup, self.around, self.scratch, meanwhile=lambda place: self._on(place, climb, folder))
        proof = prove_whole(ADAPTORS["postgresql"], climb)
        worst = proof.findings[-1]
        rest = "" if compares else "rows and newest row: nothing is declared to compare (count_tables, minimum_rows, sentinel)"
        self.find(
            "drill.database",
            worst.state if proof.reached < declared["level"] else "ok",
            worst.summary,
            evidence=[finding.summary for finding in proof.findings],
            not_covered=rest,
            advice=worst.advice or "See the findings of the set itself.",
        )
        if not any(finding.id == "drill.application" for finding in self.findings):
            advice = "Mend the backup of the database first; see the findings of its set."
            self.find("drill.application", "unknown", "it was not started, for its database is not there", advice=advice)

    def _on(self, place: Place, climb: Climb, folder: str) -> None:
        """Look at files and database together, while the throw-away cluster runs."""
        self.seconds += climb.restore_seconds or 0.0
        if climb.rpo_seconds is not None:
            self.behind = climb.rpo_seconds
        self._references(place, folder)
        self._start(folder, place)

    def _references(self, place: Place, folder: str) -> None:
        for reference in self.application["references"]:
            where = os.path.join(folder, reference["below"].strip("/"))
            try:
                with place.session(read_only=True) as session:
                    session.set("search_path", "pg_catalog, public")
                    named = [str(next(iter(row.values()))) for row in session.rows(reference["query"]) if row]
            except MaintenanceError as error:
                self.find("drill.references", "unknown", f"the rows could not be read: {error}", advice="Correct the query.")
                continue
            missing = [name for name in named if not tree.holds(folder, where, name)]
            state = "critical" if missing else "ok" if named else "unknown"
            words = f"{len(named)} files that the database names are there"
            if missing:
                words = (
                    f"{len(missing)} of {len(named)} files that the database names are not in the backup of the files, first {missing[0]!r}"
                )
            self.find(
                "drill.references",
                state,
                words if named else "the database names no file at all",
                value=len(missing),
                unit="count",
                threshold="critical from 1",
                evidence=[repr(name) for name in missing[:_SHOWN]],
                advice="Back up the files after the database, and keep what a row may still name; correct the query if it is wrong.",
            )

    # Starting it, and what all of it took

    def _start(self, folder: str, place: Place | None) -> None:
        start = self.application["start"]
        if not start:
            advice = "Declare start: the application's own program, and the address that tells whether it works."
            self.find("drill.application", "unknown", "nothing is declared that would tell whether it works (start)", advice=advice)
            return
        if self.around.check_mode:
            advice = "Run the drill without check mode; it touches nothing that lives either."
            self.find("drill.application", "unknown", "it was not started, for check mode starts nothing", advice=advice)
            return
        paths = [part["path"] for part in self.application["files"]]
        said = unit.try_out(start, folder, paths, place, self.sets.get(self.application["database"], {}).get("database", ""))
        self.seconds += said.seconds
        self.works = said.state == "ok"
        self.find("drill.application", said.state, said.text, evidence=said.lines, advice=said.advice)

    def _objectives(self, backups: t.Mapping[str, Backup]) -> None:
        application, name = self.application, str(self.application["name"])
        if not self.works:
            for what, option in (("rto", "maximum_rto_minutes"), ("rpo", "maximum_rpo_hours")):
                if application[option]:
                    words = "not measured: no application that works came back"
                    self.find(f"drill.{what}", "unknown", words, advice="See the other findings of this drill.")
            return
        oldest = max(self.around.now - backup.moment for backup in backups.values())
        behind = max(oldest, self.behind)
        measured = (
            ("rto", self.seconds, application["maximum_rto_minutes"], 60.0, "minutes", "from the first byte to an application that works:", "exact"),
            ("rpo", behind, application["maximum_rpo_hours"], HOUR, "hours", "the oldest part would lose", "estimated"),
        )  # fmt: skip
        for what, seconds, limit, unit_seconds, unit_name, words, basis in measured:
            self.metrics.append(Metric(f"drill.{what}_seconds", name, round(seconds, 3), "seconds"))
            state = "critical" if limit and seconds > limit * unit_seconds else "ok"
            objective = f", the objective is {human_seconds(limit * unit_seconds)}" if limit else ", no objective is declared"
            self.find(
                f"drill.{what}",
                state,
                f"{words} {human_seconds(seconds)}{objective}",
                value=round(seconds / unit_seconds, 3),
                unit=unit_name,
                threshold=f"critical above {limit:g} {unit_name}" if limit else "",
                basis=basis,
                advice="Back up all parts more often, or restore faster; or let the owner change the objective.",
            )
