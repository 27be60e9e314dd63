# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases and volumes of a snapshot, put back: what is there now is kept first, data of users is not touched, the link comes last."""

from __future__ import annotations

import os
import typing as t

from . import snapshot_containers, snapshot_store, snapshot_trees, sqlite_restore, tree_archive
from .errors import MaintenanceError
from .host import Host
from .judge import many
from .paths import fsync_folder
from .record import Action, Json

_SHOWN = 20


class Part:
    """The releases of one rollback, and its volumes where they are asked for.

    :param folder: where the snapshot keeps its content.
    :param find: adds a finding.
    """

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        host: Host,
        folder: str,
        manifest: t.Mapping[str, Json],
        find: t.Callable[..., None],
        actions: list[Action],
    ) -> None:
        self._params = params
        self._host = host
        self._folder = folder
        self._find = find
        self._actions = actions
        self._name = str(manifest["id"])
        self._trees: list[dict[str, Json]] = []
        for entry in manifest.get("trees", []):
            if entry["kind"] == "release" or params["volumes"]:
                self._trees.append(entry)
            else:
                words = "it is in the snapshot and was left as it is, for users may have written to it since"
                self._find("rollback.volume", "ok", entry["name"], words, not_covered="the content of the volume")
        self._due: list[tuple[dict[str, Json], tree_archive.Difference]] = []
        self._evidence: list[str] = []

    def compare(self) -> None:
        """See what differs.

        :raises MaintenanceError: a folder above leads elsewhere now, or a container uses a volume that is to be replaced.
        """
        for entry in self._trees:
            self._check_places(entry)
            found = tree_archive.differing(self._archive(entry), entry["root"], entry["data"])
            if not found and not self._link_differs(entry):
                self._say_ok(entry)
                continue
            if entry["kind"] == "volume":
                self._check_users(entry)
            self._due.append((entry, found))

    def _check_places(self, entry: dict[str, Json]) -> None:
        for path, wanted in ((entry["path"], entry["folder"]), (entry["root"], os.path.dirname(entry["root"]))):
            now = os.path.realpath(os.path.dirname(path))
            if now != wanted:
                raise MaintenanceError(
                    f"The folder of {path} leads to {now} now and led to {wanted}; nothing was changed. Find out who put a link there, and remove it."
                )
        if not os.path.isdir(os.path.dirname(entry["root"])):
            raise MaintenanceError(
                f"The folder of {entry['root']} does not exist any more; create it, then roll back. Nothing was changed."
            )
        if os.path.islink(entry["root"]):
            raise MaintenanceError(f"{entry['root']} is a link now and was a folder; nothing was changed. Move it away, then roll back.")

    def _check_users(self, entry: dict[str, Json]) -> None:
        try:
            engine = snapshot_containers.engine_of(self._host, self._params["container_engine"])
            users = [container.name for container in engine.containers() if entry["name"] in container.volumes]
        except MaintenanceError:  # maintenance stopped it
            users = snapshot_trees.open_by(entry["root"])
        if users:
            raise MaintenanceError(f"The volume {entry['name']} is used by {', '.join(users)}; stop it first. Nothing was changed.")

    def assess(self) -> None:
        """Say what a rollback would change."""
        for entry, found in self._due:
            self._actions.append(Action(entry["name"], f"restore_{entry['kind']}", "due", _words(entry, found)))

    def require_room(self) -> None:
        """Refuse before anything of the rollback is done where there is no room to keep what is there, and to put back what was."""
        reserve = self._params["reserve_bytes"]
        present = 0
        for entry, found in self._due:
            if found:
                present += tree_archive.size_of(entry["root"], entry["data"]) if os.path.lexists(entry["root"]) else 0
                sqlite_restore.require_room(
                    os.path.dirname(entry["root"]), found.size + reserve, f"restoring {entry['kind']} {entry['name']}"
                )
        if present:
            sqlite_restore.require_room(self._params["state_dir"], present + reserve, "keeping the present state of releases and volumes")

    def keep(self) -> None:
        """Keep what is there now, of all of them before the first is put back."""
        for number, (entry, found) in enumerate(self._due):
            self._evidence.append(self._keep(number, entry) if os.path.lexists(entry["root"]) and found else "")

    def apply(self) -> None:
        """Put back what differs; what came only after the evidence was packed is kept nowhere else, and stays."""
        for (entry, found), before in zip(self._due, self._evidence):
            stay: list[str] = []
            if found:
                tree_archive.put_back(self._archive(entry), entry["root"], set(found.changed), entry["data"])
                again = tree_archive.differing(self._archive(entry), entry["root"], entry["data"])
                known = set(found.extra)
                stay = [path for path in again.extra if path not in known]
                stay += tree_archive.remove(entry["root"], [path for path in again.extra if path in known], entry["data"])
            if self._link_differs(entry):
                self._relink(entry)
            words = _words(entry, found) + (f"; what was there is kept in {before}" if before else "")
            self._actions.append(Action(entry["name"], f"restore_{entry['kind']}", "changed", words, {}, {"version": entry["version"]}))
            if stay:
                advice = "Look what lies there; a rollback removes no data, and nothing that came while it worked."
                words = f"{stay[0]} stays, for it is data or came meanwhile"
                self._find("rollback.new_files", "warning", entry["name"], words, evidence=stay, advice=advice)

    def _keep(self, number: int, entry: dict[str, Json]) -> str:
        """Pack what is there now as evidence, and read that back before anything of it is replaced or removed."""
        folder = sqlite_restore.evidence_folder(self._params["state_dir"], f"{self._name}-before-rollback-{number}")
        target = os.path.join(folder, f"{entry['kind']}.tar")
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as writing:
            for chunk in tree_archive.pack(entry["root"], entry["data"], tree_archive.Packed()):
                writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        if tree_archive.differing(target, entry["root"], entry["data"]):
            raise MaintenanceError(f"{entry['root']} changed while it was kept as evidence; stop what writes to it. Nothing was put back.")
        fsync_folder(folder)
        return target

    def _link_differs(self, entry: dict[str, Json]) -> bool:
        if not entry["link"]:
            return False
        path = entry["path"]
        if os.path.lexists(path) and not os.path.islink(path):
            raise MaintenanceError(f"{path} was a link to the release in use and is none now; move it away, then roll back again.")
        return not os.path.lexists(path) or os.readlink(path) != entry["link"]

    def _relink(self, entry: dict[str, Json]) -> None:
        folder = os.path.dirname(entry["path"])
        temporary = sqlite_restore.temporary_in(folder)
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(entry["link"], temporary)
        os.rename(temporary, entry["path"])
        fsync_folder(folder)

    def verify(self) -> list[str]:
        """Read everything back; return what is not as in the snapshot."""
        wrong = []
        for entry, _found in self._due:
            found = tree_archive.differing(self._archive(entry), entry["root"], entry["data"])
            if found.changed or self._link_differs(entry) or os.path.realpath(entry["path"]) != entry["root"]:
                wrong.append(f"{entry['kind']} {entry['name']}")
            else:
                self._say_ok(entry)
        return wrong

    def _say_ok(self, entry: dict[str, Json]) -> None:
        version = f" {entry['version']}" if entry["version"] else ""
        words = f"{entry['kind']}{version}: {many(entry['files'], 'file')} with content, owner and mode of the snapshot"
        data = f"data, left as it is: {', '.join(entry['data'])}" if entry["data"] else ""
        self._find(f"rollback.{entry['kind']}", "ok", entry["name"], words, evidence=[data] if data else [])

    def _archive(self, entry: dict[str, Json]) -> str:
        return snapshot_store.stored(entry, self._folder)


def _words(entry: t.Mapping[str, Json], found: tree_archive.Difference) -> str:
    return f"{many(len(found.changed), 'path')} differ, {len(found.extra)} came after; back to {entry['version'] or 'the snapshot'}"
