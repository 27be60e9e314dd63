# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A damaged SQLite database: keep the evidence, and restore it from a proven backup where that is allowed."""

from __future__ import annotations

import contextlib
import glob
import grp
import os
import pwd
import stat
import typing as t
from dataclasses import dataclass, field

from . import held_folder, sqlite_db, sqlite_restore
from .errors import MaintenanceError, VerifyError
from .host import Host
from .judge import human_seconds, many
from .paths import sha256_of
from .record import Action, Finding, Json

SCRATCH = ".prove-"


def sweep(state_dir: str) -> None:
    """Remove the throw-away copies that a killed run left."""
    held_folder.sweep(state_dir, SCRATCH)


class Backup(t.NamedTuple):
    """A backup that passed every check."""

    path: str
    modified: float
    rows: dict[str, int]


@dataclass
class Recovery:
    """What is done for one damaged database."""

    spec: dict[str, t.Any]
    params: dict[str, t.Any]
    check_mode: bool
    host: Host
    findings: list[Finding] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path: str = self.spec["path"]

    def run(self, kept: dict[str, Json]) -> tuple[list[Finding], list[Action], dict[str, Json]]:
        """Keep evidence (once for the same damage), then restore or say why not.

        :param kept: what an earlier run said it kept: the folder, and the checksums of the files.
        """
        kept = self._keep_evidence(kept)
        backup = self._newest_proven()
        if backup is not None:
            self._restore(backup)
        return self.findings, self.actions, kept

    def _say(self, state: str, words: str, **more: t.Any) -> None:
        advice = "" if state == "ok" else more.pop("advice", "Decide which backup to restore; the evidence is kept.")
        self.findings.append(Finding("database.restore", state, self.path, words, advice=advice, **more))

    def _keep_evidence(self, kept: dict[str, Json]) -> dict[str, Json]:
        present = [name for name in sqlite_restore.with_sidecars(self.path) if stat.S_ISREG(os.lstat(name).st_mode)]
        sums: dict[str, Json] = {name: sha256_of(name) for name in present}
        if kept and kept.get("sums") == sums and os.path.isdir(kept["folder"]):
            return kept
        if not present or self.check_mode:
            if present:
                self.actions.append(Action(self.path, "keep_evidence", "due", "copies of the damaged files will be kept"))
            return kept
        state_dir = self.params["state_dir"]
        sqlite_restore.require_room(state_dir, sqlite_restore.sized(present) + self.params["reserve_bytes"], "a copy of the damaged files")
        run_id = sqlite_restore.checked_run_id(self.params["run_id"], self.host.now())
        folder = sqlite_restore.evidence_folder(state_dir, run_id)
        copies = sqlite_restore.keep(folder, present)
        words = f"{many(len(copies), 'damaged file')} copied to {folder}"
        self.actions.append(Action(self.path, "keep_evidence", "changed", words, {}, {"copies": copies}))
        return {"folder": folder, "sums": sums}

    def _newest_proven(self) -> Backup | None:
        """Return the newest backup that passes every check, where a restore is allowed and possible now."""
        if not self.spec["restore_from"]:
            self._say("critical", "no backups are named in restore_from, so none could be looked at")
            return None
        rejected: list[str] = []
        for path in self._candidates():
            backup, why = self._proven(path)
            if backup is not None:
                return backup if self._may_restore(backup, rejected) else None
            rejected.append(f"{path}: {why}")
        self._say("critical", "no backup passed the checks, so nothing was restored", evidence=rejected)
        return None

    def _candidates(self) -> list[str]:
        found = {path for pattern in self.spec["restore_from"] for path in glob.glob(pattern, recursive=True)}
        regular = [path for path in found if path != self.path and stat.S_ISREG(os.lstat(path).st_mode)]
        regular = [path for path in regular if not path.endswith(sqlite_db.SIDECARS)]
        return sorted(regular, key=lambda path: (os.lstat(path).st_mtime, path), reverse=True)

    def _proven(self, path: str) -> tuple[Backup | None, str]:
        """Prove a throw-away copy of a backup, so that the backup itself stays as it is."""
        with held_folder.held(self._scratch(), SCRATCH) as folder:
            copy = os.path.join(folder, "copy.db")
            try:
                sqlite_restore.require_room(folder, os.lstat(path).st_size, "a throw-away copy of a backup")
                sqlite_db.online_copy(path, copy)
                proof = sqlite_restore.prove(copy, self.spec["required_tables"])
            except MaintenanceError as error:
                return None, str(error)
        if proof.problems or proof.orphans:
            return None, (proof.problems + proof.orphans)[0]
        if not proof.rows:
            return None, "it holds no table"
        return Backup(path, os.lstat(path).st_mtime, proof.rows), ""

    def _scratch(self) -> str | None:
        """Return a folder for throw-away copies; check mode must not create the one of the collection."""
        state_dir = self.params["state_dir"]
        return state_dir if os.path.isdir(state_dir) and os.access(state_dir, os.W_OK) else None

    def _gap(self, backup: Backup) -> dict[str, Json]:
        now: dict[str, int] = {}
        with contextlib.suppress(MaintenanceError):

            def count(connection: t.Any) -> None:
                for name in sqlite_db.tables(connection):
                    with contextlib.suppress(MaintenanceError):
                        now.update(sqlite_db.table_counts(connection, [name]))

            sqlite_db.reading(self.path, count)
        rows = {name: {"damaged": now.get(name, "unreadable"), "backup": count} for name, count in backup.rows.items()}
        return {
            "backup": backup.path,
            "age_seconds": round(self.host.now().timestamp() - backup.modified),
            "rows": rows,
        }

    def _may_restore(self, backup: Backup, rejected: list[str]) -> bool:
        gap = self._gap(backup)
        age = human_seconds(max(0, gap["age_seconds"]))
        words = f"{backup.path} is the newest backup that passed every check; it is {age} old"
        rows = "; ".join(f"{name}: {row['damaged']} now, {row['backup']} in the backup" for name, row in gap["rows"].items())
        evidence = [f"rows of {rows}", *rejected]
        if not self.spec["allow_restore"]:
            self._say("critical", f"{words}; restoring is not allowed (allow_restore)", evidence=evidence)
            return False
        users = sqlite_db.users_of(self.path)
        if not self.check_mode and (users.holders or users.unseen):
            who = (users.holders + users.unseen)[0]
            self._say("critical", f"{words}; not restored, because {who} may have the database open", evidence=evidence)
            return False
        advice = f"Rows written within the last {age} are in the evidence at best; tell the system's owner."
        self._say("warning", words, value=gap["age_seconds"], unit="seconds", evidence=evidence, advice=advice)
        return True

    def _restore(self, backup: Backup) -> None:
        gap = self._gap(backup)
        if self.check_mode:
            self.actions.append(Action(self.path, "restore", "due", f"{backup.path} will be restored", {}, gap))
            return
        folder = os.path.dirname(self.path)
        sqlite_restore.require_room(folder, os.lstat(backup.path).st_size + self.params["reserve_bytes"], "the restore")
        with held_folder.held(self._scratch(), SCRATCH) as scratch:
            copy = os.path.join(scratch, "copy.db")
            sqlite_db.online_copy(backup.path, copy)
            sqlite_restore.put_back(copy, self.path, self._place(backup.path))
        proof = sqlite_restore.prove(self.path, self.spec["required_tables"])
        if proof.problems or proof.rows != backup.rows:
            raise VerifyError(f"{self.path} was restored from {backup.path}, but does not pass: {proof.problems[:3]}.")
        self.actions.append(Action(self.path, "restore", "changed", f"restored from {backup.path}", {}, gap))

    def _place(self, backup: str) -> sqlite_restore.Place:
        """Keep owner and mode of the damaged file; where there is none, take the declared owner."""
        wal = self.spec["journal_mode"] == "wal" or (self.spec["journal_mode"] == "keep" and sqlite_db.read_header(backup).wal)
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(self.path)
            return sqlite_restore.Place(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), wal)
        folder = os.lstat(os.path.dirname(self.path))
        uid = pwd.getpwnam(self.spec["owner"]).pw_uid if self.spec["owner"] else folder.st_uid
        gid = grp.getgrnam(self.spec["group"]).gr_gid if self.spec["group"] else folder.st_gid
        return sqlite_restore.Place(uid, gid, 0o600, wal)
