# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into a snapshot: databases, files, versions of packages, states of units; and what could not be put into it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import sqlite3
import stat
import typing as t
from datetime import datetime

from . import (
    inventory_of_host,
    snapshot_containers,
    snapshot_copies,
    snapshot_postgresql,
    snapshot_trees,
    sqlite_db,
    sqlite_restore,
    sqlite_work,
)
from .errors import MaintenanceError
from .host import Host
from .judge import human_bytes, many
from .paths import sha256_of
from .record import Action, Json, Metric


class Content:
    """The content of one snapshot.

    :param find: adds a finding.
    """

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        host: Host,
        started: datetime,
        find: t.Callable[..., None],
        metrics: list[Metric],
        actions: list[Action],
    ) -> None:
        self.not_covered: list[str] = []
        self.looked_at: dict[str, Json] = {}
        self._params = params
        self._host = host
        self._started = started
        self._find = find
        self._metrics = metrics
        self._actions = actions
        self._path_copies = {entry["path"]: entry for entry in params["path_copies"]}

    def walk(self) -> t.Iterator[tuple[str, os.stat_result]]:
        """Yield every declared path and what is below it, links as themselves, missing ones left out."""
        for path in self._params["paths"]:
            with contextlib.suppress(FileNotFoundError):
                yield from _tree(path)

    def missing(self, path: str) -> None:
        """Say that a declared path is not there."""
        self.not_covered.append(f"{path}: does not exist")
        advice = "Correct snapshot_paths, or find out who removed it."
        self._find("snapshot.files", "warning", path, f"{path} does not exist, so it is not in the snapshot", advice=advice)

    def database(self, work: str, number: int, entry: dict[str, t.Any]) -> dict[str, Json]:
        """Copy an SQLite database while it is in use, and say what the copy holds."""
        path = entry["path"]
        if sqlite_db.interrupted(path) and not sqlite_db.users_of(path).holders:
            sqlite_work.recover(path)
            self._actions.append(Action(path, "recover", "changed", "a killed process left a transaction half written"))
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
        self._metrics.append(Metric("snapshot.database_bytes", path, size, "bytes"))
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
            "copy": snapshot_copies.named(entry["copy_as"], self._started),
            "folder": os.path.realpath(os.path.dirname(path)),
        }

    def postgresql(self, work: str, number: int, source: snapshot_postgresql.Source) -> dict[str, Json]:
        """Dump the databases of one server."""
        entry = snapshot_postgresql.take(source, work, number, self._host, self._started, self._params["deadline"])
        for database in entry["databases"]:
            if database["copy"] and source.server["encrypt_command"]:
                file = database["files"][0]["file"]
                database["encrypted"] = snapshot_copies.encrypted(work, file, source.server["encrypt_command"])
            self._metrics.append(Metric("snapshot.database_bytes", f"{entry['name']}/{database['database']}", database["size"], "bytes"))
        if not source.superuser:
            self.not_covered.append(f"{entry['name']}: the passwords of its roles, which only a superuser can read")
        return entry

    def files(self, work: str) -> t.Iterator[dict[str, Json]]:
        """Copy what is declared, and say of each what it was."""
        for path in self._params["paths"]:
            if not os.path.lexists(path):
                self.missing(path)
            elif os.path.islink(path):
                self.not_covered.append(f"{path}: symbolic link, what it leads to is not covered")
                advice = f"Name the file it leads to ({os.path.realpath(path)}) in snapshot_paths as well."
                self._find("snapshot.files", "warning", path, f"{path} is a symbolic link, kept as a link", advice=advice)
        for path, status in self.walk():
            entry = self._file(work, path, status)
            if entry:
                yield entry

    def _file(self, work: str, path: str, status: os.stat_result) -> dict[str, Json] | None:
        entry: dict[str, Json] = {
            "path": path,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mode": stat.S_IMODE(status.st_mode),
            "owner": owner_of(status),
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
        copy = self._path_copies.get(path, {})
        return {
            **entry,
            "kind": "file",
            "file": relative,
            "sha256": sha256_of(target),
            "size": os.lstat(target).st_size,
            "copy": snapshot_copies.named(copy.get("copy_as", ""), self._started),
            "encrypted": snapshot_copies.encrypted(work, relative, copy["encrypt_command"]) if copy.get("encrypt_command") else {},
        }

    def trees(self, work: str, trees: t.Sequence[snapshot_trees.Tree]) -> t.Iterator[dict[str, Json]]:
        """Pack releases and volumes."""
        for number, tree in enumerate(trees):
            entry, left_out = snapshot_trees.take(tree, work, number)
            self.not_covered += left_out
            version = f" {tree.version}" if tree.version else ""
            words = f"{tree.kind}{version}: {many(entry['files'], 'file')}, {human_bytes(entry['bytes'])}, read back"
            data = f"data, which no rollback touches: {', '.join(tree.data)}" if tree.data else ""
            self._find(f"snapshot.{tree.kind}", "ok", tree.name, words, value=entry["size"], unit="bytes", evidence=[data] if data else [])
            yield entry

    def containers(self) -> list[dict[str, Json]]:
        """Return what containers run."""
        if not self._params["containers"]:
            return []
        try:
            found = self.looked_at.get("containers") or snapshot_containers.running(
                snapshot_containers.engine_of(self._host, self._params["container_engine"])
            )
        except MaintenanceError as error:
            self._gap("snapshot.containers", "containers", str(error))
            return []
        lines = [f"{entry['name']}: {next(iter(entry['digests']), 'image ' + entry['image'])}" for entry in found]
        built = [entry["name"] for entry in found if not entry["digests"]]
        rest = f"a digest of {', '.join(built[:5])}: built here, so only this host has the image" if built else ""
        self._find("snapshot.containers", "ok", "containers", f"the images of {many(len(found), 'container')} are kept", evidence=lines,
                   not_covered=rest)  # fmt: skip
        return found

    def packages(self) -> Json:
        """Return the versions of packages; nothing where they cannot be told."""
        if not self._params["packages"]:
            return None
        try:
            found = inventory_of_host.packages(self._host)
        except MaintenanceError as error:
            self._gap("snapshot.packages", "packages", str(error))
            return None
        self._find("snapshot.packages", "ok", "packages", f"versions of {many(len(found.versions), 'package')} are kept")
        return {"manager": found.manager, "versions": found.versions}

    def units(self) -> list[dict[str, str]]:
        """Return the state of units."""
        try:
            return inventory_of_host.units(self._host, self._params["units"])
        except MaintenanceError as error:
            self._gap("snapshot.units", "units", str(error))
            return []

    def python(self, environment: str) -> dict[str, Json]:
        """Return what is installed in one Python environment."""
        try:
            return {"path": environment, "freeze": inventory_of_host.frozen(self._host, environment)}
        except MaintenanceError as error:
            self._gap("snapshot.python", environment, str(error))
            return {"path": environment, "freeze": None}

    def _gap(self, finding_id: str, subject: str, words: str) -> None:
        self.not_covered.append(f"{subject}: {words}")
        self._find(finding_id, "unknown", subject, words, advice="A rollback could not compare it; correct it or leave it out.")


def owner_of(status: os.stat_result) -> str:
    """Name owner and group of a file, by number where nobody has that number."""
    user, group = str(status.st_uid), str(status.st_gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(status.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    return f"{user}:{group}"


def _tree(path: str) -> t.Iterator[tuple[str, os.stat_result]]:
    status = os.lstat(path)
    yield path, status
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(path)):
            yield from _tree(os.path.join(path, name))
