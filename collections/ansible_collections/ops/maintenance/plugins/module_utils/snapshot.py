# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a snapshot that a rollback can trust: databases, files, package versions, unit states."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import stat
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from . import (
    inventory_of_host,
    postgresql_kept,
    postgresql_switch,
    snapshot_copies,
    snapshot_postgresql,
    snapshot_store,
    sqlite_db,
    sqlite_restore,
    sqlite_work,
)
from .errors import MaintenanceError, out_of_range, refuse
from .host import Host
from .judge import human_bytes, many
from .paths import ensure_private_folder, fsync_folder, sha256_of, write_atomic
from .record import Action, Finding, Json, Metric, Outcome, status_of

DATABASE = {
    "path": {"type": "str", "required": True},
    "required_tables": {"type": "list", "elements": "str", "default": []},
    "copy_as": {"type": "str", "default": ""},
}

PATH_COPY = {
    "path": {"type": "path", "required": True},
    "copy_as": {"type": "str", "required": True},
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
        if check_mode:
            job.assess()
        else:
            ensure_private_folder(params["root"])
            with _locked(params["root"]):
                job.make()
                job.prune()
    except (MaintenanceError, OSError) as error:
        words = str(error)
        if isinstance(error, OSError):
            words = f"The snapshot {name} below {params['root']} failed on {error.filename}: {error.strerror}."
        advice = "Correct the cause; do not begin the maintenance without a snapshot."
        job.find("snapshot.present", "critical", name, words, advice=advice)
        raise MaintenanceError(words, job.outcome(words)) from error
    return job.outcome()


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
    not_covered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root: str = self.params["root"]
        self.folder = os.path.join(self.root, self.name)
        self.started: datetime = self.host.now()
        self.sources: list[snapshot_postgresql.Source] = []
        self.path_copies = {entry["path"]: entry["copy_as"] for entry in self.params["path_copies"]}

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
        for problem in problems:
            advice = "Correct the cause; do not begin the maintenance without a snapshot."
            self.find("snapshot.present", "critical", self.name, problem, advice=advice)
        if not problems:
            self._review_kept()
        self._check_room()
        for path in self.params["paths"]:
            if not os.path.lexists(path):
                self._missing(path)
        for source in self.sources:
            for database, size in source.databases.items():
                words = f"{human_bytes(size)} will be dumped in the format {source.server['format']}"
                self.actions.append(Action(f"{source.server['name']}/{database}", "dump", "due", words))
        self.actions.append(Action(self.folder, "take", "due", f"the snapshot {self.name} will be taken"))

    def _existing(self) -> dict[str, Json]:
        """Prove the snapshot that this run took before, and that it holds what is declared now."""
        manifest = snapshot_store.prove(self.root, self.name)
        held = {entry["path"] for entry in [*manifest["databases"], *manifest["files"]]}
        wanted = [entry["path"] for entry in self.params["databases"]]
        missing = [path for path in [*wanted, *self.params["paths"]] if path not in held and os.path.lexists(path)]
        dumped = {(server["name"], entry["database"]) for server, entry in snapshot_postgresql.databases(manifest)}
        servers = {name for name, _database in dumped}
        for server in self.params["postgresql"]:
            missing += [f"{server['name']}/{name}" for name in server["databases"] if (server["name"], name) not in dumped]
            missing += [server["name"]] if server["name"] not in servers else []
        if missing:
            raise MaintenanceError(
                f"The snapshot {self.name} is there already, but does not hold {', '.join(missing[:5])}; "
                "take one snapshot of everything first, or start a new run."
            )
        return manifest

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
        return total + sum(status.st_size for _path, status in self._walk() if stat.S_ISREG(status.st_mode))

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

    def _walk(self) -> t.Iterator[tuple[str, os.stat_result]]:
        """Yield every declared path and what is below it, links as themselves, missing ones left out."""
        for path in self.params["paths"]:
            with contextlib.suppress(FileNotFoundError):
                yield from _tree(path)

    def _missing(self, path: str) -> None:
        self.not_covered.append(f"{path}: does not exist")
        advice = "Correct snapshot_paths, or find out who removed it."
        self.find("snapshot.files", "warning", path, f"{path} does not exist, so it is not in the snapshot", advice=advice)

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

    def _review_kept(self) -> None:
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
            manifest = self._existing()
            self._copies(manifest)
            self._report_proven(manifest)
            return
        self.sources = [snapshot_postgresql.look(server) for server in self.params["postgresql"]]
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
        manifest = snapshot_store.prove(self.root, self.name, archives=False)
        self._copies(manifest)
        after = {"databases": len(_database_entries(manifest)), "files": len(manifest["files"])}
        self.actions.append(Action(self.folder, "take", "changed", f"the snapshot {self.name} was taken", {}, after))
        self._report_proven(manifest)

    def _fill(self, work: str) -> None:
        manifest: dict[str, Json] = {
            "schema": snapshot_store.SCHEMA,
            "id": self.name,
            "started": self.started.isoformat(),
            "databases": [self._database(work, number, entry) for number, entry in enumerate(self.params["databases"])],
            "postgresql": [self._postgresql(work, number, source) for number, source in enumerate(self.sources)],
            "files": list(self._files(work)),
            "packages": self._packages(),
            "units": self._units(),
            "python": [self._python(environment) for environment in self.params["python_environments"]],
        }
        manifest["not_covered"] = self.not_covered
        manifest["finished"] = self.host.now().isoformat()
        manifest["checksum"] = snapshot_store.checksum(manifest)
        data = json.dumps(manifest, sort_keys=True, indent=1).encode()
        write_atomic(os.path.join(work, snapshot_store.MANIFEST), data)

    def _database(self, work: str, number: int, entry: dict[str, t.Any]) -> dict[str, Json]:
        path = entry["path"]
        if sqlite_db.interrupted(path) and not sqlite_db.users_of(path).holders:
            sqlite_work.recover(path)
            self.actions.append(Action(path, "recover", "changed", "a killed process left a transaction half written"))
        relative = os.path.join("databases", f"{number:03d}.db")
        sqlite_restore.make_folders(os.path.join(work, "databases"))
        target = os.path.join(work, relative)
        header, status = sqlite_db.read_header(path), os.lstat(path)
        sqlite_db.online_copy(path, target)

        def ask(connection: sqlite3.Connection) -> tuple[list[str], dict[str, int]]:
            present = sqlite_db.tables(connection)
            return present, sqlite_db.table_counts(connection, present)

        present, rows = sqlite_db.reading_fixed(target, ask)
        missing = [name for name in entry["required_tables"] if name not in present]
        if missing:
            raise MaintenanceError(f"{path} has no table {', '.join(missing)}, so it is not the expected database.")
        size = os.lstat(target).st_size
        self.metrics.append(Metric("snapshot.database_bytes", path, size, "bytes"))
        return {
            "path": path,
            "file": relative,
            "sha256": sha256_of(target),
            "size": size,
            "rows": rows,
            "integrity": "ok",
            "wal": header.wal,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mode": stat.S_IMODE(status.st_mode),
            "copy": snapshot_copies.named(entry["copy_as"], self.started),
            "folder": os.path.realpath(os.path.dirname(path)),
        }

    def _postgresql(self, work: str, number: int, source: snapshot_postgresql.Source) -> dict[str, Json]:
        entry = snapshot_postgresql.take(source, work, number, self.host, self.started, self.params["deadline"])
        for database in entry["databases"]:
            self.metrics.append(Metric("snapshot.database_bytes", f"{entry['name']}/{database['database']}", database["size"], "bytes"))
        if not source.superuser:
            self.not_covered.append(f"{entry['name']}: the passwords of its roles, which only a superuser can read")
        return entry

    def _files(self, work: str) -> t.Iterator[dict[str, Json]]:
        for path in self.params["paths"]:
            if not os.path.lexists(path):
                self._missing(path)
            elif os.path.islink(path):
                self.not_covered.append(f"{path}: symbolic link, what it leads to is not covered")
                advice = f"Name the file it leads to ({os.path.realpath(path)}) in snapshot_paths as well."
                self.find("snapshot.files", "warning", path, f"{path} is a symbolic link, kept as a link", advice=advice)
        for path, status in self._walk():
            entry = self._file(work, path, status)
            if entry:
                yield entry

    def _file(self, work: str, path: str, status: os.stat_result) -> dict[str, Json] | None:
        entry: dict[str, Json] = {
            "path": path,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mode": stat.S_IMODE(status.st_mode),
            "mtime_ns": status.st_mtime_ns,
            "folder": os.path.realpath(os.path.dirname(path)),
        }
        if stat.S_ISDIR(status.st_mode):
            return {**entry, "kind": "folder"}
        if stat.S_ISLNK(status.st_mode):
            return {**entry, "kind": "link", "target": os.readlink(path)}
        if not stat.S_ISREG(status.st_mode):
            self.not_covered.append(f"{path}: neither file, folder nor link")
            return None
        relative = os.path.join("files", path.lstrip("/"))
        target = os.path.join(work, relative)
        sqlite_restore.make_folders(os.path.dirname(target))
        sqlite_restore.copy_flushed(path, target)
        return {
            **entry,
            "kind": "file",
            "file": relative,
            "sha256": sha256_of(target),
            "size": os.lstat(target).st_size,
            "copy": snapshot_copies.named(self.path_copies.get(path, ""), self.started),
        }

    def _packages(self) -> Json:
        if not self.params["packages"]:
            return None
        try:
            found = inventory_of_host.packages(self.host)
        except MaintenanceError as error:
            self._gap("snapshot.packages", "packages", str(error))
            return None
        self.find("snapshot.packages", "ok", "packages", f"versions of {many(len(found.versions), 'package')} are kept")
        return {"manager": found.manager, "versions": found.versions}

    def _units(self) -> list[dict[str, str]]:
        try:
            return inventory_of_host.units(self.host, self.params["units"])
        except MaintenanceError as error:
            self._gap("snapshot.units", "units", str(error))
            return []

    def _python(self, environment: str) -> dict[str, Json]:
        try:
            return {"path": environment, "freeze": inventory_of_host.frozen(self.host, environment)}
        except MaintenanceError as error:
            self._gap("snapshot.python", environment, str(error))
            return {"path": environment, "freeze": None}

    def _gap(self, finding_id: str, subject: str, words: str) -> None:
        self.not_covered.append(f"{subject}: {words}")
        self.find(finding_id, "unknown", subject, words, advice="A rollback could not compare it; correct it or leave it out.")

    def _copies(self, manifest: dict[str, Json]) -> None:
        """Write the copies under the names that people know; a killed run's are completed."""
        for entry in snapshot_copies.wanted(manifest):
            if snapshot_copies.write(entry, self.folder, self.name, self.params["reserve_bytes"]):
                self.actions.append(Action(entry["copy"], "copy", "changed", f"a proven copy of {entry['what']} was written"))

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
        self._report_postgresql(manifest)
        gaps = "; ".join(manifest["not_covered"])
        if not databases and not manifest["files"]:
            advice = "Declare snapshot_databases, snapshot_postgresql and snapshot_paths, or a rollback has nothing to put back."
            self.find("snapshot.present", "unknown", self.name, "the snapshot holds no database and no file", advice=advice)
        else:
            self.find("snapshot.present", "ok", self.name, words, not_covered=gaps)
        size = sum(entry.get("size", 0) for entry in [*databases, *manifest["files"]])
        self.metrics.append(Metric("snapshot.size_bytes", self.name, size, "bytes"))

    def _report_postgresql(self, manifest: dict[str, Json]) -> None:
        for server, entry in snapshot_postgresql.databases(manifest):
            subject = f"{server['name']}/{entry['database']}"
            rows = sum(entry["rows"].values())
            words = (
                f"the dump ({entry['format']}, {human_bytes(entry['size'])}) was read whole: {len(entry['rows'])} table(s), {rows} row(s)"
            )
            evidence = [f"{table}: {count} row(s) at the moment of the dump" for table, count in entry["sentinels"].items()]
            self.find("snapshot.postgresql", "ok", subject, words, value=entry["size"], unit="bytes", evidence=evidence)
        for server in manifest.get("postgresql", ()):
            words = "roles and tablespaces are kept"
            if server["globals"]["passwords"]:
                self.find("snapshot.globals", "ok", server["name"], f"{words}, with the hashes of passwords, mode 0600")
            else:
                advice = "Connect as a superuser to keep them, or be ready to set the passwords again after the loss of the whole cluster."
                self.find(
                    "snapshot.globals", "warning", server["name"], f"{words} without passwords: the role is no superuser", advice=advice
                )

    # Letting go

    def prune(self) -> None:
        """Remove snapshots beyond both limits; never this one, never the newest proven one, never a broken one."""
        readable, broken = [], []
        for name in snapshot_store.names(self.root):
            try:
                readable.append((snapshot_store.read(self.root, name)["finished"], name))
            except snapshot_store.BrokenSnapshotError as error:
                broken.append(str(error))
        self._review_kept()
        newest_first = sorted(readable, reverse=True)
        for finished, name in newest_first[self.params["keep_count"] :]:
            age = self.host.now() - datetime.fromisoformat(finished)
            if name != self.name and age > timedelta(days=self.params["keep_days"]):
                self._remove(name)
        left = len(snapshot_store.names(self.root))
        words = f"{many(left, 'snapshot')} kept"
        if broken:
            advice = "Look at them and remove them by hand; a broken snapshot is never removed by itself."
            words += f", {len(broken)} of them broken: {broken[0]}"
            self.find("snapshot.retention", "warning", self.root, words, advice=advice, evidence=broken)
        else:
            self.find("snapshot.retention", "ok", self.root, words, value=left, unit="count")

    def _remove(self, name: str) -> None:
        """Remove a snapshot in an order that leaves no half one behind that looks whole."""
        manifest, folder = snapshot_store.read(self.root, name), os.path.join(self.root, name)
        for entry in snapshot_copies.wanted(manifest):
            snapshot_copies.remove(entry)
        doomed = os.path.join(self.root, snapshot_store.PARTIAL + name)
        os.rename(folder, doomed)
        shutil.rmtree(doomed)
        self.actions.append(Action(folder, "prune", "changed", f"snapshot {name} of {manifest['finished']} was removed"))


def _database_entries(manifest: dict[str, Json]) -> list[dict[str, Json]]:
    return [*manifest["databases"], *(entry for _server, entry in snapshot_postgresql.databases(manifest))]


def _tree(path: str) -> t.Iterator[tuple[str, os.stat_result]]:
    status = os.lstat(path)
    yield path, status
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(path)):
            yield from _tree(os.path.join(path, name))


def _flush_tree(folder: str) -> None:
    for name, _folders, _files in os.walk(folder):
        fsync_folder(name)
