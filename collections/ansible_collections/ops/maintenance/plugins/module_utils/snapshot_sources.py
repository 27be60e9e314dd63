# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot is made of, looked at before anything is written."""

from __future__ import annotations

import os
import stat
import typing as t
from datetime import datetime

from . import (
    snapshot_containers,
    snapshot_content,
    snapshot_deployments,
    snapshot_postgresql,
    snapshot_trees,
    sqlite_restore,
    tree_archive,
)
from .errors import MaintenanceError
from .host import Host
from .judge import human_bytes
from .paths import read_state
from .record import Finding, Json


class Sources:
    """The sources of one snapshot.

    :param add: adds a finding.
    """

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        host: Host,
        started: datetime,
        content: snapshot_content.Content,
        add: t.Callable[[Finding], None],
    ) -> None:
        self.servers: list[snapshot_postgresql.Source] = []
        self.trees: list[snapshot_trees.Tree] = []
        self.deployments: list[dict[str, Json]] = []
        self._params = params
        self._host = host
        self._started = started
        self._content = content
        self._add = add

    def _find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        self._add(Finding(finding_id, state, subject, summary, **more))

    def require_held(self, manifest: dict[str, Json]) -> None:
        """Refuse a snapshot that does not hold what is declared now.

        :raises MaintenanceError: naming what is missing.
        """
        held = {entry["path"] for entry in [*manifest["databases"], *manifest["files"]]}
        wanted = [entry["path"] for entry in self._params["databases"]]
        missing = [path for path in [*wanted, *self._params["paths"]] if path not in held and os.path.lexists(path)]
        dumped = {(server["name"], entry["database"]) for server, entry in snapshot_postgresql.databases(manifest)}
        servers = {name for name, _database in dumped}
        packed = {(tree["kind"], tree["name"]) for tree in manifest.get("trees", [])}
        missing += [release["name"] for release in self._params["releases"] if ("release", release["name"]) not in packed]
        missing += [name for name in self._params["volumes"] if ("volume", name) not in packed]
        known = {deployment["name"] for deployment in manifest.get("deployments", [])}
        missing += [deployment["name"] for deployment in self._params["deployments"] if deployment["name"] not in known]
        for server in self._params["postgresql"]:
            missing += [f"{server['name']}/{name}" for name in server["databases"] if (server["name"], name) not in dumped]
            missing += [server["name"]] if server["name"] not in servers else []
        if missing:
            raise MaintenanceError(
                f"The snapshot {manifest['id']} is there already, but does not hold {', '.join(missing[:5])}; "
                "take one snapshot of everything first, or start a new run."
            )

    def _looked_at(self) -> dict[str, Json]:
        wanted = self._params["containers"] or self._params["volumes"]
        return snapshot_containers.looked_at(self._params, self._host) if wanted else {}

    def look_around(self) -> None:
        """Look at releases, volumes and deployments before anything is written.

        :raises MaintenanceError: one of them is not there, or does not say what is needed.
        """
        self.trees = [snapshot_trees.release_of(release) for release in self._params["releases"]]
        self._content.looked_at = self._looked_at()
        for name in self._params["volumes"]:
            if name in self._content.looked_at.get("volumes", {}):
                tree, users = snapshot_trees.volume_at(name, self._content.looked_at["volumes"][name])
            else:
                engine = snapshot_containers.engine_of(self._host, self._params["container_engine"])
                tree, users = snapshot_trees.volume_of(self._host, engine, name)
            self.trees.append(tree)
            if users:
                self._content.not_covered.append(
                    f"volume {name}: {users[0]} writes to it meanwhile, so that its files may not fit together"
                )
                advice = "Let the service stop first (maintenance_mode_services), or dump what it writes."
                self._find("snapshot.volume_in_use", "warning", name, f"copied while {', '.join(users)} used it", advice=advice)
        if self.trees:
            databases = [entry["path"] for entry in self._params["databases"]]
            snapshot_trees.refuse_owned(self.trees, databases, [self._params["root"], self._params["state_dir"]])
        self.deployments = list(snapshot_deployments.recorded(self._params["deployments"], self._started.isoformat()))
        rolled_back = read_state(self._params["state_dir"], snapshot_deployments.STATE) if self.deployments else {}
        for entry in self.deployments:
            words = f"{entry['deployment']} is live, and is what a rollback makes live again"
            self._find("snapshot.deployment", "ok", entry["name"], words, not_covered=snapshot_deployments.CODE_ONLY)
            if rolled_back.get(entry["name"]) == entry["deployment"]:
                declared = next(one for one in self._params["deployments"] if one["name"] == entry["name"])
                self._add(snapshot_deployments.unpromoted(declared, entry["deployment"]))

    def problems(self) -> list[str]:
        """Look at everything and return what would keep a snapshot from coming about."""
        problems = []
        for entry in self._params["databases"]:
            try:
                proof = sqlite_restore.prove(entry["path"], entry["required_tables"])
                problems += [f"{entry['path']}: {problem}" for problem in proof.problems[:3]]
            except MaintenanceError as error:
                problems.append(str(error))
        for server in self._params["postgresql"]:
            try:
                self.servers.append(snapshot_postgresql.look(server))
            except MaintenanceError as error:
                problems.append(str(error))
        try:
            self.look_around()
        except MaintenanceError as error:
            problems.append(str(error))
        return problems

    def look(self) -> None:
        """Look at everything that is not copied as a file.

        :raises MaintenanceError: something would keep the snapshot from coming about.
        """
        self.servers = [snapshot_postgresql.look(server) for server in self._params["postgresql"]]
        self.look_around()

    def _needed_bytes(self) -> int:
        total = sum(
            sqlite_restore.sized(sqlite_restore.with_sidecars(entry["path"])) * (2 if entry["copy_as"] else 1)
            for entry in self._params["databases"]
        )
        total += snapshot_postgresql.needed_bytes(self.servers)
        total += sum(tree_archive.size_of(tree.root, tree.data) for tree in self.trees)
        total += sum(status.st_size for _path, status in self._content.walk() if stat.S_ISREG(status.st_mode))
        return total * (2 if self._params["encrypt_command"] else 1)

    def has_room(self, root: str) -> bool:
        """Say whether there is room for it."""
        needed = self._needed_bytes() + self._params["reserve_bytes"]
        free = sqlite_restore.free_bytes(root)
        threshold = f"critical below {human_bytes(needed)}"
        more = {"value": free, "unit": "bytes", "threshold": threshold, "basis": "estimated" if self.servers else "exact"}
        if free < needed:
            words = f"{root} has {human_bytes(free)} free, the snapshot needs {human_bytes(needed)}"
            self._find("snapshot.disk_room", "critical", root, words, advice="Make room and run again.", **more)
        else:
            self._find("snapshot.disk_room", "ok", root, f"{human_bytes(free)} free", **more)
        return bool(free >= needed)
