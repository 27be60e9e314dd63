# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a snapshot that a rollback can trust: databases, files, package versions, unit states."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import typing as t
from dataclasses import dataclass, field
from datetime import datetime

from . import (
    postgresql_kept,
    postgresql_switch,
    snapshot_containers,
    snapshot_content,
    snapshot_copies,
    snapshot_plan,
    snapshot_postgresql,
    snapshot_retention,
    snapshot_sealed,
    snapshot_sources,
    snapshot_store,
    snapshot_versions,
    sqlite_restore,
)
from .errors import MaintenanceError, refuse
from .host import Host
from .judge import human_bytes, many
from .kept_state import keep_state
from .paths import ensure_private_folder, fsync_folder, write_atomic
from .record import Action, Finding, Json, Metric, Outcome, status_of
from .snapshot_options import OPTIONS, input_problems

__all__ = ["OPTIONS", "Snapshot", "input_problems", "run"]


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Take the snapshot of this run unless it is there and proven; then let old ones go."""
    refuse(input_problems(params))
    name = sqlite_restore.checked_run_id(params["run_id"], host.now())
    job = Snapshot(params, check_mode, host, name)
    try:
        if params["look"]:
            job.look()
        elif check_mode:
            job.assess()
        else:
            ensure_private_folder(params["root"])
            with _locked(params["root"]):
                job.make()
                job.review_kept()
                job.actions += snapshot_retention.prune(params["root"], name, params, host.now(), job.find)
    except (MaintenanceError, OSError) as error:
        words = str(error)
        if isinstance(error, OSError):
            words = f"The snapshot {name} below {params['root']} failed on {error.filename}: {error.strerror}."
        advice = "Correct the cause; do not begin the maintenance without a snapshot."
        job.find("snapshot.present", "critical", name, words, advice=advice)
        raise MaintenanceError(words, job.outcome(words)) from error
    return job.outcome() if not params["look"] else job.outcome_of_look()


@contextlib.contextmanager
def _locked(root: str) -> t.Iterator[None]:
    """Keep a second run out, which would take our half-written snapshot for a leftover."""
    lock_fd = os.open(os.path.join(root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MaintenanceError(f"Another run takes a snapshot below {root} right now; wait for it to end.") from None
        yield
    finally:
        os.close(lock_fd)


@dataclass
class Snapshot:
    """The making of one snapshot."""

    params: dict[str, t.Any]
    check_mode: bool
    host: Host
    name: str
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root: str = self.params["root"]
        self.folder = os.path.join(self.root, self.name)
        self.started: datetime = self.host.now()
        self.content = snapshot_content.Content(self.params, self.host, self.started, self.find, self.metrics, self.actions)
        self.sources = snapshot_sources.Sources(self.params, self.host, self.started, self.content, self.findings.append)

    def find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(finding_id, state, subject, summary, **more))

    def outcome(self, failure: str = "") -> Outcome:
        """Sum up."""
        done = {"changed": "taken", "due": "due", "ok": "there already and proven"}
        status = "failed" if failure else status_of(self.actions, self.check_mode)
        words = failure or f"snapshot {self.name}: {done.get(status, status)}"
        return Outcome(
            self.folder,
            "snapshot",
            status,
            words,
            findings=self.findings,
            metrics=self.metrics,
            actions=self.actions,
            returned={"snapshot": self.name, "folder": self.folder},
        )

    def outcome_of_look(self) -> Outcome:
        """Say that nothing was taken yet."""
        return Outcome(
            "containers", "snapshot_look", "ok", "what containers run is kept for the snapshot of this run", findings=self.findings
        )

    # Looking

    def assess(self) -> None:
        """Say in check mode what would be done; every source is looked at."""
        leftovers = snapshot_store.partials(self.root)
        self._report_leftovers(leftovers, "due")
        if os.path.lexists(self.folder):
            self._report_proven(self._existing())
            return
        problems = self.sources.problems()
        for problem in problems:
            advice = "Correct the cause; do not begin the maintenance without a snapshot."
            self.find("snapshot.present", "critical", self.name, problem, advice=advice)
        if not problems:
            self.review_kept()
        self.sources.has_room(self.root)
        for path in self.params["paths"]:
            if not os.path.lexists(path):
                self.content.missing(path)
        for source in self.sources.servers:
            for database, size in source.databases.items():
                words = f"{human_bytes(size)} will be dumped in the format {source.server['format']}"
                self.actions.append(Action(f"{source.server['name']}/{database}", "dump", "due", words))
        self.actions.append(Action(self.folder, "take", "due", f"the snapshot {self.name} will be taken"))

    def _proven(self, archives: bool = True) -> contextlib.AbstractContextManager[tuple[dict[str, Json], str]]:
        return snapshot_store.proven(self.root, self.name, archives=archives, decrypt_command=self.params["decrypt_command"])

    def _existing(self) -> dict[str, Json]:
        """Prove the snapshot that this run took before, and that it holds what is declared now."""
        with self._proven() as (manifest, folder):
            self.sources.require_held(manifest)
            if not self.check_mode:
                self._copies(manifest, folder)
        return manifest

    def look(self) -> None:
        """Keep what the engine of containers can only tell before maintenance stops it."""
        seen = snapshot_containers.look(self.params, self.host)
        if not self.check_mode:
            self.findings += keep_state(self.params["state_dir"], snapshot_containers.STATE, seen)

    # Doing

    def _settle(self) -> None:
        """Finish or undo a restore that a killed run left: what lies half restored must not get into the snapshot."""
        if not self.params["postgresql"]:
            return
        state_dir = self.params["state_dir"]
        switcher = postgresql_switch.Switcher(state_dir, self.name, self.host)
        if not switcher.entries():
            return
        with postgresql_switch.alone(state_dir):
            for key, how in switcher.settle(self.params["postgresql"]):
                self.actions.append(Action(key, "settle", "changed", f"the restore that a killed run left was {how}"))

    def review_kept(self) -> None:
        """Say which databases restores kept, and drop those whose time is over."""
        if not self.params["postgresql"]:
            return
        more = (self.params["drop_kept_after_days"], self.host.now(), self.check_mode, self.find)
        self.actions += postgresql_kept.review(self.params["postgresql"], self.params["state_dir"], *more)

    def make(self) -> None:
        """Take the snapshot under a temporary name, prove it, and only then give it its name."""
        self._settle()
        leftovers = snapshot_store.partials(self.root)
        for leftover in leftovers:
            shutil.rmtree(os.path.join(self.root, leftover))
        self._report_leftovers(leftovers, "changed")
        if os.path.lexists(self.folder):
            self._report_proven(self._existing())
            return
        self.sources.look()
        if not self.sources.has_room(self.root):
            raise MaintenanceError(f"There is not enough room below {self.root} for the snapshot; nothing was written.")
        partial = snapshot_store.PARTIAL + self.name
        work = os.path.join(self.root, partial)
        os.mkdir(work, 0o700)
        try:
            self._fill(work)
            _flush_tree(work)
            os.rename(work, self.folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        fsync_folder(self.root)
        with self._proven(archives=False) as (manifest, folder):
            self._copies(manifest, folder)
        after = {"databases": len(_database_entries(manifest)), "files": len(manifest["files"])}
        self.actions.append(Action(self.folder, "take", "changed", f"the snapshot {self.name} was taken", {}, after))
        self._report_proven(manifest)

    def _fill(self, work: str) -> None:
        manifest: dict[str, Json] = {
            "schema": snapshot_store.SCHEMA,
            "id": self.name,
            "started": self.started.isoformat(),
            "databases": [self.content.database(work, number, entry) for number, entry in enumerate(self.params["databases"])],
            "postgresql": [self.content.postgresql(work, number, source) for number, source in enumerate(self.sources.servers)],
            "files": list(self.content.files(work)),
            "packages": self.content.packages(),
            "units": self.content.units(),
            "python": [self.content.python(environment) for environment in self.params["python_environments"]],
            "trees": list(self.content.trees(work, self.sources.trees)),
            "containers": self.content.containers(),
            "deployments": self.sources.deployments,
        }
        manifest["configuration"] = snapshot_plan.configuration_version(manifest["files"])
        if self.params["encrypt_command"]:
            manifest["sealed"] = snapshot_sealed.seal(work, self.params["encrypt_command"], self.params["decrypt_command"])
        manifest["not_covered"] = self.content.not_covered
        manifest["finished"] = self.host.now().isoformat()
        plan = snapshot_plan.text(manifest, self.folder)
        write_atomic(os.path.join(work, snapshot_plan.FILE), plan.encode("utf-8", "surrogateescape"))
        manifest["checksum"] = snapshot_store.checksum(manifest)
        data = json.dumps(manifest, sort_keys=True, indent=1).encode()
        write_atomic(os.path.join(work, snapshot_store.MANIFEST), data)

    def _copies(self, manifest: dict[str, Json], folder: str) -> None:
        """Write the copies under the names that people know, and the version of the configuration; a killed run's are completed."""
        files = [entry for entry in manifest["files"] if entry["kind"] == "file"]
        self.findings += snapshot_versions.clear_secrets(self.host, files, folder)
        if (self.params["version_control"] or {}).get("tree"):
            declared, state_dir = self.params["version_control"], self.params["state_dir"]
            findings, actions = snapshot_versions.keep(declared, files, folder, manifest, state_dir, self.host)
            self.findings += findings
            self.actions += actions
        for entry in snapshot_copies.wanted(manifest):
            if snapshot_copies.write(entry, folder, self.name, self.params["reserve_bytes"]):
                self.actions.append(
                    Action(
                        entry["copy"],
                        "copy",
                        "changed",
                        f"{'an encrypted' if entry.get('encrypted') else 'a proven'} copy of {entry['what']} was written",
                    )
                )

    def _report_leftovers(self, leftovers: list[str], status: str) -> None:
        for leftover in leftovers:
            words = f"half-written snapshot {leftover[len(snapshot_store.PARTIAL) :]} of a killed run"
            self.actions.append(Action(os.path.join(self.root, leftover), "sweep", status, words))

    def _report_proven(self, manifest: dict[str, Json]) -> None:
        databases = _database_entries(manifest)
        words = (
            f"snapshot {self.name} is proven: {many(len(databases), 'database')} passed the integrity check or were read whole, "
            f"{many(len(manifest['files']), 'file')} with a checksum"
        )
        snapshot_postgresql.report(manifest, self.find)
        self._report_plan(manifest)
        gaps = "; ".join(manifest["not_covered"])
        if not databases and not any(manifest.get(part) for part in ("files", "trees", "deployments")):
            advice = "Declare snapshot_databases, snapshot_postgresql and snapshot_paths, or a rollback has nothing to put back."
            self.find("snapshot.present", "unknown", self.name, "the snapshot holds no database and no file", advice=advice)
        else:
            self.find("snapshot.present", "ok", self.name, words, not_covered=gaps)
        size = sum(entry.get("size", 0) for entry in [*databases, *manifest["files"], *manifest.get("trees", [])])
        self.metrics.append(Metric("snapshot.size_bytes", self.name, size, "bytes"))

    def _report_plan(self, manifest: dict[str, Json]) -> None:
        if manifest.get("sealed"):
            words = f"at rest it is one encrypted file ({manifest['sealed']['with']}), and its key opened it"
            self.find("snapshot.sealed", "ok", self.name, words)
        if "configuration" in manifest:
            lines, rest = snapshot_plan.steps(manifest), snapshot_plan.by_hand(manifest)
            words = f"the way back is written down in {self.folder}/{snapshot_plan.FILE}: {many(len(lines), 'thing')} to put back"
            self.find("snapshot.plan", "ok", self.name, words, evidence=lines, not_covered="; ".join(rest)[:500])


def _database_entries(manifest: dict[str, Json]) -> list[dict[str, Json]]:
    return [*manifest["databases"], *(entry for _server, entry in snapshot_postgresql.databases(manifest))]


def _flush_tree(folder: str) -> None:
    for name, _folders, _files in os.walk(folder):
        fsync_folder(name)
