# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a snapshot that a rollback can trust: databases, files, package versions, unit states."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import typing as t
from dataclasses import dataclass, field
from datetime import datetime

from . import (
    postgresql_kept,
    postgresql_switch,
    snapshot_containers,
    snapshot_content,
    snapshot_copies,
    snapshot_deployments,
    snapshot_plan,
    snapshot_postgresql,
    snapshot_retention,
    snapshot_sealed,
    snapshot_store,
    snapshot_trees,
    snapshot_versions,
    sqlite_restore,
    tree_archive,
)
from .errors import MaintenanceError, out_of_range, refuse
from .host import Host
from .judge import human_bytes, many
from .kept_state import keep_state
from .paths import ensure_private_folder, fsync_folder, read_state, write_atomic
from .record import Action, Finding, Json, Metric, Outcome, status_of

DATABASE = {
    "path": {"type": "str", "required": True},
    "required_tables": {"type": "list", "elements": "str", "default": []},
    "copy_as": {"type": "str", "default": ""},
}

PATH_COPY = {
    "path": {"type": "path", "required": True},
    "copy_as": {"type": "str", "required": True},
    "encrypt_command": {"type": "list", "elements": "str", "default": []},
}

OPTIONS = {
    "root": {"type": "path", "default": "/var/backups/ops_maintenance"},
    "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
    "postgresql": {"type": "list", "elements": "dict", "default": [], "options": snapshot_postgresql.SNAPSHOT_SERVER},
    "paths": {"type": "list", "elements": "str", "default": []},
    "path_copies": {"type": "list", "elements": "dict", "default": [], "options": PATH_COPY},
    "packages": {"type": "bool", "default": True},
    "units": {"type": "list", "elements": "str", "default": []},
    "python_environments": {"type": "list", "elements": "str", "default": []},
    "releases": {"type": "list", "elements": "dict", "default": [], "options": snapshot_trees.RELEASE},
    "containers": {"type": "bool", "default": False},
    "container_engine": {"type": "str", "choices": ["auto", *snapshot_containers.ENGINES], "default": "auto"},
    "volumes": {"type": "list", "elements": "str", "default": []},
    "deployments": {"type": "list", "elements": "dict", "default": [], "options": snapshot_deployments.DEPLOYMENT},
    "look": {"type": "bool", "default": False},
    "encrypt_command": {"type": "list", "elements": "str", "default": []},
    "decrypt_command": {"type": "list", "elements": "str", "default": []},
    "version_control": {"type": "dict", "options": snapshot_versions.VERSION_CONTROL},
    "keep_count": {"type": "int", "default": 5},
    "keep_days": {"type": "float", "default": 30.0},
    "drop_kept_after_days": {"type": "float", "default": 0.0},
    "reserve_bytes": {"type": "int", "default": 104857600},
}


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


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = []
    paths = [entry["path"] for entry in params["databases"]]
    for path in [*paths, *params["paths"], *params["python_environments"]]:
        if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
            problems.append(f"{path!r} is not an absolute path without detours; correct it.")
        elif _inside(params["root"], path):
            problems.append(f"{path} holds the snapshots themselves (root is {params['root']}); name another folder.")
    problems += [f"{path} is declared twice; remove one." for path in sorted({path for path in paths if paths.count(path) > 1})]
    for entry in params["databases"]:
        problems += snapshot_copies.problems(entry["path"], entry["copy_as"]) if entry["copy_as"] else []
    problems += snapshot_copies.problems_of_paths(params["path_copies"], params["paths"])
    problems += snapshot_postgresql.problems_of(params["postgresql"])
    problems += snapshot_trees.problems(params["releases"], params["root"])
    problems += snapshot_deployments.problems(params["deployments"])
    problems += snapshot_sealed.problems(params)
    problems += snapshot_versions.problems(params["version_control"], params["paths"])
    problems += out_of_range(params, ("keep_count",), least=1)
    problems += out_of_range(params, ("keep_days", "reserve_bytes", "drop_kept_after_days"))
    return problems + [f"The unit name {name!r} begins with a dash; correct it." for name in params["units"] if name.startswith("-")]


def _inside(root: str, path: str) -> bool:
    return path == root or root.startswith(path + "/")


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
        self.sources: list[snapshot_postgresql.Source] = []
        self.trees: list[snapshot_trees.Tree] = []
        self.deployments: list[dict[str, Json]] = []
        self.content = snapshot_content.Content(self.params, self.host, self.started, self.find, self.metrics, self.actions)

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
        problems = self._source_problems()
        for server in self.params["postgresql"]:
            try:
                self.sources.append(snapshot_postgresql.look(server))
            except MaintenanceError as error:
                problems.append(str(error))
        try:
            self._look_around()
        except MaintenanceError as error:
            problems.append(str(error))
        for problem in problems:
            advice = "Correct the cause; do not begin the maintenance without a snapshot."
            self.find("snapshot.present", "critical", self.name, problem, advice=advice)
        if not problems:
            self.review_kept()
        self._check_room()
        for path in self.params["paths"]:
            if not os.path.lexists(path):
                self.content.missing(path)
        for source in self.sources:
            for database, size in source.databases.items():
                words = f"{human_bytes(size)} will be dumped in the format {source.server['format']}"
                self.actions.append(Action(f"{source.server['name']}/{database}", "dump", "due", words))
        self.actions.append(Action(self.folder, "take", "due", f"the snapshot {self.name} will be taken"))

    def _proven(self, archives: bool = True) -> contextlib.AbstractContextManager[tuple[dict[str, Json], str]]:
        return snapshot_store.proven(self.root, self.name, archives=archives, decrypt_command=self.params["decrypt_command"])

    def _existing(self) -> dict[str, Json]:
        """Prove the snapshot that this run took before, and that it holds what is declared now."""
        with self._proven() as (manifest, folder):
            self._require_declared(manifest)
            if not self.check_mode:
                self._copies(manifest, folder)
        return manifest

    def _require_declared(self, manifest: dict[str, Json]) -> None:
        held = {entry["path"] for entry in [*manifest["databases"], *manifest["files"]]}
        wanted = [entry["path"] for entry in self.params["databases"]]
        missing = [path for path in [*wanted, *self.params["paths"]] if path not in held and os.path.lexists(path)]
        dumped = {(server["name"], entry["database"]) for server, entry in snapshot_postgresql.databases(manifest)}
        servers = {name for name, _database in dumped}
        packed = {(tree["kind"], tree["name"]) for tree in manifest.get("trees", [])}
        missing += [release["name"] for release in self.params["releases"] if ("release", release["name"]) not in packed]
        missing += [name for name in self.params["volumes"] if ("volume", name) not in packed]
        known = {deployment["name"] for deployment in manifest.get("deployments", [])}
        missing += [deployment["name"] for deployment in self.params["deployments"] if deployment["name"] not in known]
        for server in self.params["postgresql"]:
            missing += [f"{server['name']}/{name}" for name in server["databases"] if (server["name"], name) not in dumped]
            missing += [server["name"]] if server["name"] not in servers else []
        if missing:
            raise MaintenanceError(
                f"The snapshot {self.name} is there already, but does not hold {', '.join(missing[:5])}; "
                "take one snapshot of everything first, or start a new run."
            )

    def _looked_at(self) -> dict[str, Json]:
        wanted = self.params["containers"] or self.params["volumes"]
        return snapshot_containers.looked_at(self.params, self.host) if wanted else {}

    def look(self) -> None:
        """Keep what the engine of containers can only tell before maintenance stops it."""
        seen = snapshot_containers.look(self.params, self.host)
        if not self.check_mode:
            self.findings += keep_state(self.params["state_dir"], snapshot_containers.STATE, seen)

    def _look_around(self) -> None:
        """Look at releases, volumes and deployments before anything is written."""
        self.trees = [snapshot_trees.release_of(release) for release in self.params["releases"]]
        self.content.looked_at = self._looked_at()
        for name in self.params["volumes"]:
            if name in self.content.looked_at.get("volumes", {}):
                self.trees.append(snapshot_trees.volume_at(name, self.content.looked_at["volumes"][name]))
                continue
            engine = snapshot_containers.engine_of(self.host, self.params["container_engine"])
            tree, users = snapshot_trees.volume_of(self.host, engine, name)
            self.trees.append(tree)
            if users:
                self.content.not_covered.append(f"volume {name}: {users[0]} writes to it meanwhile, so that its files may not fit together")
                advice = "Let the service stop first (maintenance_mode_services), or dump what it writes."
                self.find("snapshot.volume_in_use", "warning", name, f"copied while {', '.join(users)} used it", advice=advice)
        self.deployments = list(snapshot_deployments.recorded(self.params["deployments"], self.started.isoformat()))
        rolled_back = read_state(self.params["state_dir"], snapshot_deployments.STATE) if self.deployments else {}
        for entry in self.deployments:
            words = f"{entry['deployment']} is live, and is what a rollback makes live again"
            self.find("snapshot.deployment", "ok", entry["name"], words, not_covered=snapshot_deployments.CODE_ONLY)
            if rolled_back.get(entry["name"]) == entry["deployment"]:
                declared = next(one for one in self.params["deployments"] if one["name"] == entry["name"])
                self.findings.append(snapshot_deployments.unpromoted(declared, entry["deployment"]))

    def _source_problems(self) -> list[str]:
        problems = []
        for entry in self.params["databases"]:
            try:
                proof = sqlite_restore.prove(entry["path"], entry["required_tables"])
                problems += [f"{entry['path']}: {problem}" for problem in proof.problems[:3]]
            except MaintenanceError as error:
                problems.append(str(error))
        return problems

    def _needed_bytes(self) -> int:
        total = sum(
            sqlite_restore.sized(sqlite_restore.with_sidecars(entry["path"])) * (2 if entry["copy_as"] else 1)
            for entry in self.params["databases"]
        )
        total += snapshot_postgresql.needed_bytes(self.sources)
        total += sum(tree_archive.size_of(tree.root, tree.data) for tree in self.trees)
        total += sum(status.st_size for _path, status in self.content.walk() if stat.S_ISREG(status.st_mode))
        return total * (2 if self.params["encrypt_command"] else 1)

    def _check_room(self) -> int:
        needed = self._needed_bytes() + self.params["reserve_bytes"]
        free = sqlite_restore.free_bytes(self.root)
        threshold = f"critical below {human_bytes(needed)}"
        more = {"value": free, "unit": "bytes", "threshold": threshold, "basis": "estimated" if self.sources else "exact"}
        if free < needed:
            words = f"{self.root} has {human_bytes(free)} free, the snapshot needs {human_bytes(needed)}"
            self.find("snapshot.disk_room", "critical", self.root, words, advice="Make room and run again.", **more)
        else:
            self.find("snapshot.disk_room", "ok", self.root, f"{human_bytes(free)} free", **more)
        return 0 if free >= needed else needed

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
        self.sources = [snapshot_postgresql.look(server) for server in self.params["postgresql"]]
        self._look_around()
        if self._check_room():
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
            "postgresql": [self.content.postgresql(work, number, source) for number, source in enumerate(self.sources)],
            "files": list(self.content.files(work)),
            "packages": self.content.packages(),
            "units": self.content.units(),
            "python": [self.content.python(environment) for environment in self.params["python_environments"]],
            "trees": list(self.content.trees(work, self.trees)),
            "containers": self.content.containers(),
            "deployments": self.deployments,
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
            finding, actions = snapshot_versions.keep(declared, files, folder, manifest, state_dir, self.host)
            self.findings.append(finding)
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
