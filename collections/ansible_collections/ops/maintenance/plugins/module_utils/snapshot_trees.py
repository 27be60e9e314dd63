# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of applications and volumes of containers in a snapshot: each a tar archive; what is user data is never in a release."""

from __future__ import annotations

import json
import os
import typing as t

from . import snapshot_containers, sqlite_db, tree_archive
from .container_engine import Engine
from .errors import MaintenanceError
from .host import Host
from .paths import fsync_folder, open_regular, open_root, sha256_of
from .record import Json, clean

RELEASE: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "data": {"type": "list", "elements": "str", "required": True},
    "version_file": {"type": "str", "default": ""},
}
"""A release as it is deployed. ``data`` has to be given, if only as an empty list: nobody else can tell what users own."""

FOLDER = "trees"


class Tree(t.NamedTuple):
    """A folder that goes into a snapshot.

    :param path: as declared: the folder, or the link to the release that is in use.
    :param root: the folder itself.
    """

    kind: str
    name: str
    path: str
    root: str
    data: t.Sequence[str] = ()
    version: str = ""


def problems(releases: t.Sequence[t.Mapping[str, t.Any]], root: str) -> t.Iterator[str]:
    """Say what cannot be meant, one sentence each, from the input alone."""
    names = [release["name"] for release in releases]
    for name in sorted({name for name in names if names.count(name) > 1 or not name.strip()}):
        yield f"releases has the name {name!r} twice or empty, expected one of its own; correct it."
    for release in releases:
        of, path = f"of release {release['name']}", release["path"]
        if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
            yield f"releases.path {of} is {path!r}, expected an absolute path without detours; correct it."
        elif root == path or root.startswith(path + "/"):
            yield f"releases.path {of} is {path!r}, which holds the snapshots themselves (root is {root}); name another folder."
        inside = [("data", below) for below in release["data"]] + [("version_file", release["version_file"])]
        for option, below in inside:
            if below and (os.path.isabs(below) or os.path.normpath(below) != below or below.split("/")[0] in ("..", ".")):
                yield f"releases.{option} {of} has {below!r}, expected a path below {path}, such as public/uploads; correct it."


def release_of(release: t.Mapping[str, t.Any]) -> Tree:
    """Look at a release.

    :raises MaintenanceError: it is not there, or its version cannot be told.
    """
    root = os.path.realpath(release["path"])
    with open_root(root, f"path of release {release['name']}"):
        version = _version(os.path.join(root, release["version_file"])) if release["version_file"] else ""
    link = os.path.islink(release["path"])
    return Tree(
        "release", release["name"], release["path"], root, tuple(release["data"]), version or (os.path.basename(root) if link else "")
    )


def _version(path: str) -> str:
    """Read the version that a file tells: the one of a package.json, or its first line."""
    try:
        with open_regular(path) as source:
            text = source.read(1024 * 1024).decode("utf-8", "replace")
        version = json.loads(text).get("version", "") if path.endswith(".json") else next(iter(text.split("\n")), "")
    except (OSError, ValueError, AttributeError, MaintenanceError) as error:
        raise MaintenanceError(f"The version of the release cannot be read from {path} ({error}); correct version_file.") from None
    if not str(version).strip():
        raise MaintenanceError(f"{path} names no version; correct version_file.")
    return clean(str(version).strip(), 100)


def volume_of(host: Host, engine: Engine, name: str) -> tuple[Tree, list[str]]:
    """Look at a volume; return it with the containers that use it right now.

    :raises MaintenanceError: there is no such volume, or a running server keeps its database in it.
    """
    place = snapshot_containers.place_of(host, engine, name)
    return _volume(name, place, [container.name for container in engine.containers() if name in container.volumes])


def volume_at(name: str, place: str) -> tuple[Tree, list[str]]:
    """Look at a volume whose engine does not answer; that nothing has it open says that the engine stands still.

    :raises MaintenanceError: a running server keeps its database in it.
    """
    return _volume(name, place, open_by(os.path.realpath(place)))


def open_by(root: str) -> list[str]:
    """Return the processes that have a file below a folder open, whatever container they are in."""
    found = tree_archive.statuses(root)
    users = sqlite_db.open_by({(status.st_dev, status.st_ino) for status in found}, {status.st_uid for status in found})
    return [*users.holders, *users.unseen]


def _volume(name: str, place: str, users: list[str]) -> tuple[Tree, list[str]]:
    root = os.path.realpath(place)
    with open_root(root, f"the place of the volume {name}"):
        if users and os.path.lexists(os.path.join(root, "PG_VERSION")):
            raise MaintenanceError(
                f"The volume {name} holds a PostgreSQL cluster that {users[0]} runs on; a copy would not start. Declare it in postgresql."
            )
    return Tree("volume", name, root, root), users


def refuse_owned(trees: t.Sequence[Tree], databases: t.Sequence[str], own: t.Sequence[str]) -> None:
    """Refuse a tree whose rollback would put back or remove what is not its own.

    :param databases: files of SQLite, which come with others beside them.
    :param own: folders of the maintenance itself.
    :raises MaintenanceError: naming what has to be declared as data.
    """
    names = [(path, path + end) for path in databases for end in ("", *sqlite_db.SIDECARS)]
    for tree in trees:
        for path, name in names:
            if _is_in(tree, os.path.realpath(name)):
                raise MaintenanceError(
                    f"The database {path} lies in {tree.kind} {tree.name}, whose rollback would put an old copy over it; "
                    "name its folder in data, which covers the files beside it too."
                )
        for path in own:
            if _is_in(tree, os.path.realpath(path)):
                raise MaintenanceError(
                    f"{tree.kind} {tree.name} holds the snapshots or the state of maintenance ({path}); move that elsewhere."
                )


def _is_in(tree: Tree, path: str) -> bool:
    inside = path.startswith(tree.root + "/")
    below = path[len(tree.root) + 1 :]
    return inside and not any(below == data or below.startswith(data + "/") for data in tree.data)


def take(tree: Tree, work: str, number: int) -> tuple[dict[str, Json], list[str]]:
    """Pack a tree below a half-written snapshot, read it back, and describe it; with what could not be packed."""
    os.makedirs(os.path.join(work, FOLDER), mode=0o700, exist_ok=True)
    relative = os.path.join(FOLDER, f"{number:03d}.tar")
    target, packed = os.path.join(work, relative), tree_archive.Packed()
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as writing:
        for chunk in tree_archive.pack(tree.root, tree.data, packed):
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    fsync_folder(os.path.dirname(target))
    changed = tree_archive.differing(target, tree.root, tree.data)
    if changed and tree.kind == "release":
        raise MaintenanceError(f"{tree.root} changed while it was copied ({(changed.changed + changed.extra)[0]}); stop what writes to it.")
    if changed:
        packed.left_out.append(f"{tree.kind} {tree.name}: {(changed.changed + changed.extra)[0]} changed while it was copied")
    entry = {
        "kind": tree.kind, "name": tree.name, "path": tree.path, "root": tree.root, "data": list(tree.data), "version": tree.version,
        "link": os.readlink(tree.path) if os.path.islink(tree.path) else "", "folder": os.path.realpath(os.path.dirname(tree.path)),
        "file": relative, "sha256": sha256_of(target), "size": os.lstat(target).st_size, "files": packed.files, "bytes": packed.size,
    }  # fmt: skip
    return entry, packed.left_out
