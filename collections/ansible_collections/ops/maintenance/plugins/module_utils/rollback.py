# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put back what a snapshot holds: proven first, the present state kept as evidence, verified afterwards."""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass, field
from datetime import datetime

from . import (
    postgresql_switch,
    rollback_choice,
    rollback_elsewhere,
    rollback_files,
    rollback_postgresql,
    rollback_trees,
    rollback_versions,
    snapshot_containers,
    snapshot_deployments,
    snapshot_postgresql,
    snapshot_store,
    sqlite_db,
    sqlite_restore,
)
from .backup_encryption import command_problems
from .errors import InputError, MaintenanceError, VerifyError, out_of_range, refusal, refuse
from .host import Host
from .judge import many
from .kept_state import keep_state
from .paths import read_state, sha256_of
from .record import Action, Finding, Json, Outcome, status_of

STATE = "rollback.json"

OPTIONS = {
    "root": {"type": "path", "default": "/var/backups/ops_maintenance"},
    "snapshot": {"type": "str", "default": ""},
    "postgresql": {"type": "list", "elements": "dict", "default": [], "options": snapshot_postgresql.SNAPSHOT_SERVER},
    "other_cluster": {"type": "bool", "default": False},
    "packages": {"type": "bool", "default": False},
    "again": {"type": "bool", "default": False},
    "keep_sound": {"type": "bool", "default": False},
    "reserve_bytes": {"type": "int", "default": 104857600},
    "only": {"type": "list", "elements": "str", "choices": list(rollback_choice.PARTS), "default": []},
    "paths": {"type": "list", "elements": "str", "default": []},
    "volumes": {"type": "bool", "default": False},
    "container_engine": {"type": "str", "choices": ["auto", *snapshot_containers.ENGINES], "default": "auto"},
    "deployments": {"type": "list", "elements": "dict", "default": [], "options": snapshot_deployments.DEPLOYMENT},
    "decrypt_command": {"type": "list", "elements": "str", "default": []},
}

_UNIT_FOLDERS = ("/etc/systemd/", "/lib/systemd/", "/usr/lib/systemd/")
_SHOWN = 20


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("reserve_bytes",))
    problems += rollback_choice.problems(params)
    problems += snapshot_deployments.problems(params["deployments"])
    problems += command_problems(params["decrypt_command"], "decrypt_command")
    if params["snapshot"]:
        problems += refusal(sqlite_restore.checked_run_id, params["snapshot"], datetime.min, "snapshot")
    return problems


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Roll back to the snapshot of this run, or to the one that is named."""
    refuse(input_problems(params))
    wanted = params["snapshot"] or params["run_id"]
    if not wanted:
        raise InputError.of("snapshot", wanted, "the id of a run whose snapshot is to be restored", "give one")
    name = sqlite_restore.checked_run_id(wanted, host.now(), "snapshot")
    problems = snapshot_postgresql.problems_of(params["postgresql"])
    if problems:
        raise InputError("The rollback cannot begin: " + "; ".join(problems) + "; correct the inventory.")
    job = Rollback(params, check_mode, host, name)
    try:
        job.run()
    except (MaintenanceError, OSError) as error:
        words = str(error)
        if isinstance(error, OSError):
            words = f"The rollback to {name} failed on {error.filename}: {error.strerror}; run it again when that is corrected."
        advice = "Correct the cause and roll back again, or restore from a backup."
        job.find("rollback.result", "critical", name, words, advice=advice)
        raise (
            type(error)(words, job.outcome(words)) if isinstance(error, VerifyError) else MaintenanceError(words, job.outcome(words))
        ) from error
    return job.outcome()


@dataclass
class Rollback:
    """One rollback."""

    params: dict[str, t.Any]
    check_mode: bool
    host: Host
    name: str
    findings: list[Finding] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root: str = self.params["root"]
        self.folder = os.path.join(self.root, self.name)
        self.manifest: dict[str, Json] = {}
        self.content = self.folder
        self.kept: set[str] = set()

    def find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(finding_id, state, subject, summary, **more))

    def outcome(self, failure: str = "") -> Outcome:
        """Sum up."""
        status = "failed" if failure else status_of(self.actions, self.check_mode)
        count = sum(action.status in ("changed", "due") for action in self.actions)
        words = failure or (f"rollback to {self.name}: {many(count, 'thing')} {status}" if count else f"nothing differs from {self.name}")
        return Outcome(self.folder, "rollback", status, words, findings=self.findings, actions=self.actions)

    def run(self) -> None:
        """Prove, compare, keep what is there, put back, verify."""
        if self.params["paths"]:
            self.findings += rollback_choice.versions(self.root, self.params["paths"])
            if self.check_mode and not os.path.lexists(self.folder):
                return
        if self.params["only"] == ["deployments"]:  # at once: which one was live stands in the manifest, whose checksum is enough
            self.manifest = rollback_choice.narrowed(snapshot_store.read(self.root, self.name), self.params)
            self._run()
            return
        with snapshot_store.proven(self.root, self.name, decrypt_command=self.params["decrypt_command"]) as (manifest, content):
            self.manifest, self.content = rollback_choice.narrowed(manifest, self.params), content
            self._run()

    def _run(self) -> None:
        rest = "its content: only which deployment was live is asked for" if self.params["only"] == ["deployments"] else ""
        words = (
            f"the snapshot of {self.manifest['finished']} is whole and sound"
            if not rest
            else f"the manifest of {self.manifest['finished']} is sound"
        )
        self.find("rollback.snapshot", "ok", self.name, words, not_covered=rest)
        more = (self.find, self.actions)
        self.postgresql = rollback_postgresql.Part(self.params, self.check_mode, self.host, self.content, self.manifest, *more)
        self.trees = rollback_trees.Part(self.params, self.host, self.content, self.manifest, *more)
        self.elsewhere = rollback_elsewhere.Part(self.params, self.host, self.manifest, self.findings, self.actions)
        self.key = rollback_choice.key_of(self.params, self.name)
        is_code_only = self.params["only"] == ["deployments"]
        done = {} if is_code_only else read_state(self.params["state_dir"], STATE).get(self.key)
        if done and not self.params["again"]:
            self._report_done(done)
        elif self.check_mode or not self.manifest.get("postgresql"):
            self._put_back()
        else:
            with postgresql_switch.alone(self.params["state_dir"]):
                self.postgresql.settle()
                self._put_back()
        self.elsewhere.containers()
        if rollback_choice.is_whole(self.params):
            versions = rollback_versions.Part(self.params, self.check_mode, self.host, self.manifest, *more)
            versions.packages()
            versions.python()

    def _put_back(self) -> None:
        self._check_folders()
        databases = [entry for entry in self.manifest["databases"] if self._database_differs(entry) and not self._may_stay(entry)]
        files = [entry for entry in self.manifest["files"] if rollback_files.differs(entry)]
        self._report_new_files()
        self._check_users(databases)
        self.postgresql.compare()
        self.trees.compare()
        self.elsewhere.compare()
        if self.check_mode:
            self._assess(databases, files)
            self.postgresql.assess()
            self.trees.assess()
            self.elsewhere.assess()
        else:
            self._apply(databases, files)

    def _check_folders(self) -> None:
        """Refuse to write through a link that came after the snapshot: whoever owns a folder above could aim it at any file."""
        for entry in [*self.manifest["databases"], *self.manifest["files"]]:
            now = os.path.realpath(os.path.dirname(entry["path"]))
            if now != entry["folder"]:
                raise MaintenanceError(
                    f"The folder of {entry['path']} leads to {now} now and led to {entry['folder']}; "
                    "nothing was changed. Find out who put a link there, and remove it."
                )

    def _report_done(self, done: dict[str, Json]) -> None:
        words = f"this snapshot was put back at {done['time']}; what was written since then stays"
        self.find("rollback.result", "ok", self.name, words)
        self.postgresql.report_done()
        self.elsewhere.report_done()
        for entry in self.manifest["databases"]:
            problems = sqlite_restore.prove(entry["path"]).problems
            if problems:
                advice = "Set again to true to put the snapshot back once more."
                self.find("rollback.database", "critical", entry["path"], problems[0], advice=advice)
            else:
                self.find("rollback.database", "ok", entry["path"], "integrity_check answered exactly ok")

    # Comparing

    def _database_differs(self, entry: dict[str, Json]) -> bool:
        path = entry["path"]
        if os.path.islink(path) or os.path.isdir(path):
            raise MaintenanceError(f"{path} is a link or a folder now, expected the database's file or nothing; move it away.")
        if not os.path.isdir(os.path.dirname(path)):
            raise MaintenanceError(f"The folder of {path} does not exist any more; create it, then roll back.")
        if not os.path.exists(path) or sqlite_restore.sized([path + end for end in ("-wal", "-journal")]):
            return True
        status = os.lstat(path)
        owner = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        return owner != (entry["uid"], entry["gid"], entry["mode"]) or sha256_of(path) != entry["sha256"]

    def _may_stay(self, entry: dict[str, Json]) -> bool:
        """Whether putting the copy back would only lose what users wrote since: the database is sound and has every row it had."""
        path = entry["path"]
        if not self.params["keep_sound"] or not os.path.exists(path):
            return False
        status = os.lstat(path)
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (entry["uid"], entry["gid"], entry["mode"]):
            return False
        proof = sqlite_restore.prove(path)
        if proof.problems or any(proof.rows.get(table, -1) < count for table, count in entry["rows"].items()):
            return False
        self.kept.add(path)
        self.find("rollback.database", "ok", path, "sound, with every row of the snapshot; kept with what was written since")
        return True

    def _report_new_files(self) -> None:
        new = rollback_files.new_paths(self.manifest)
        if new:
            words = f"{many(len(new), 'path')} that came after the snapshot {'stays' if len(new) == 1 else 'stay'}: {new[0]}"
            advice = "Remove those that must not be there; a rollback deletes nothing."
            self.find("rollback.new_files", "warning", self.name, words, evidence=new, advice=advice)

    def _check_users(self, databases: list[dict[str, Json]]) -> None:
        held = []
        for entry in databases:
            users = sqlite_db.users_of(entry["path"])
            held += [f"{entry['path']}: {who}" for who in users.holders + users.unseen]
        if not held:
            self.find("rollback.open_by", "ok", self.name, "no process has a database open that will be replaced")
            return
        words = f"{held[0]} may have it open, expected nobody"
        if not self.check_mode:
            raise MaintenanceError(f"{words}; stop it (the role does that for declared services). Nothing was changed.")
        advice = "The role stops the declared services first; stop anything else by hand."
        self.find("rollback.open_by", "warning", self.name, words, evidence=held, advice=advice)

    # Doing

    def _assess(self, databases: list[dict[str, Json]], files: list[dict[str, Json]]) -> None:
        for entry in databases:
            self.actions.append(Action(entry["path"], "restore_database", "due", "differs from the snapshot"))
        for entry in files[:_SHOWN]:
            self.actions.append(Action(entry["path"], "restore_file", "due", f"the {entry['kind']} differs from the snapshot"))

    def _apply(self, databases: list[dict[str, Json]], files: list[dict[str, Json]]) -> None:
        for folder in {os.path.dirname(e["path"]) for e in [*self.manifest["databases"], *self.manifest["files"]]}:
            if os.path.isdir(folder):
                sqlite_restore.sweep(folder)
        if databases or files:
            self._room(databases, files)
        self.trees.require_room()
        self.postgresql.stage()
        try:
            self._put_back_files(databases, files)
        except BaseException:
            self.postgresql.drop_staged()
            raise
        self.postgresql.switch()
        self._verify(files)
        # Before the platform is asked: where it refuses, what came back here must not be put over what users write from now on.
        done = read_state(self.params["state_dir"], STATE)
        time = self.host.now().isoformat()
        self.findings += keep_state(self.params["state_dir"], STATE, {**done, self.key: {"time": time, "run_id": self.params["run_id"]}})
        self.elsewhere.apply()
        part = rollback_choice.part_of(self.params)
        words = f"{part or 'everything the snapshot covers'} is as it was, and was read back"
        self.find("rollback.result", "ok", self.name, words, not_covered="everything else that the snapshot holds" if part else "")

    def _put_back_files(self, databases: list[dict[str, Json]], files: list[dict[str, Json]]) -> None:
        if databases or files:
            self._keep(databases, files)
        self.trees.keep()
        for entry in databases:
            self._restore_database(entry)
        for entry in files:
            rollback_files.put_back(entry, self.content)
        self.trees.apply()
        if files:
            words = f"{many(len(files), 'file, folder or link', 'files, folders and links')} put back with owner and mode"
            paths = [entry["path"] for entry in files[:_SHOWN]]
            self.actions.append(Action(self.name, "restore_files", "changed", words, {}, {"paths": paths}))
        if any(entry["path"].startswith(_UNIT_FOLDERS) for entry in files):
            ran = self.host.run(["systemctl", "daemon-reload"])
            if ran.rc != 0:
                raise MaintenanceError(f"systemd did not read the restored units: {ran.why()}.")

    def _room(self, databases: list[dict[str, Json]], files: list[dict[str, Json]]) -> None:
        reserve = self.params["reserve_bytes"]
        for entry in databases:
            sqlite_restore.require_room(os.path.dirname(entry["path"]), entry["size"] + reserve, f"restoring {entry['path']}")
        present = [name for entry in databases for name in sqlite_restore.with_sidecars(entry["path"])]
        present += [entry["path"] for entry in files if entry["kind"] == "file"]
        sqlite_restore.require_room(self.params["state_dir"], sqlite_restore.sized(present) + reserve, "keeping the present state")

    def _keep(self, databases: list[dict[str, Json]], files: list[dict[str, Json]]) -> None:
        present = [name for entry in databases for name in sqlite_restore.with_sidecars(entry["path"])]
        present += [e["path"] for e in files if e["kind"] == "file" and os.path.lexists(e["path"])]
        folder = sqlite_restore.evidence_folder(self.params["state_dir"], f"{self.name}-before-rollback")
        copies = sqlite_restore.keep(folder, present)
        words = f"{many(len(copies), 'file')} from before the rollback kept in {folder}"
        self.actions.append(Action(self.name, "keep_evidence", "changed", words))

    def _restore_database(self, entry: dict[str, Json]) -> None:
        path = entry["path"]
        before = {"rows": _rows(path)}
        place = sqlite_restore.Place(entry["uid"], entry["gid"], entry["mode"], entry["wal"])
        sqlite_restore.put_back(snapshot_store.stored(entry, self.content), path, place)
        after = {"rows": entry["rows"]}
        words = f"put back as of {self.manifest['started']}"
        self.actions.append(Action(path, "restore_database", "changed", words, before, after))

    def _verify(self, files: list[dict[str, Json]]) -> None:
        restored = [entry for entry in self.manifest["databases"] if entry["path"] not in self.kept]
        wrong = [entry["path"] for entry in restored if self._database_differs(entry)]
        wrong += [entry["path"] for entry in self.manifest["files"] if rollback_files.differs(entry)]
        wrong += self.trees.verify()
        for entry in restored:
            proof = sqlite_restore.prove(entry["path"])
            if proof.problems or proof.rows != entry["rows"] or sqlite_db.read_header(entry["path"]).wal != entry["wal"]:
                wrong.append(f"{entry['path']}: {(proof.problems or ['rows or journal mode differ'])[0]}")
            else:
                words = f"integrity_check answered exactly ok; the rows of {len(proof.rows)} tables are those of the snapshot"
                self.find("rollback.database", "ok", entry["path"], words)
        if wrong:
            raise VerifyError(f"After the rollback {many(len(wrong), 'thing')} not as in the snapshot: {'; '.join(wrong[:5])}.")
        self.findings += rollback_files.proof(self.name, files)


def _rows(path: str) -> Json:
    """Count the rows that will be replaced, as far as they can still be read."""
    try:
        return sqlite_restore.prove(path).rows
    except MaintenanceError as error:
        return str(error)
