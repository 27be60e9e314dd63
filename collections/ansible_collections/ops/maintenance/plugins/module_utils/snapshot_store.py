# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots on disk: one folder each with a manifest that holds checksums of everything and of itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import typing as t
from datetime import datetime

from . import snapshot_postgresql, snapshot_sealed, sqlite_db
from .errors import MaintenanceError
from .paths import open_regular, sha256_of
from .record import Json

SCHEMA = "ops.maintenance.snapshot/1"
MANIFEST = "manifest.json"
PARTIAL = ".partial-"
_MANIFEST_LIMIT = 256 * 1024 * 1024


class BrokenSnapshotError(MaintenanceError):
    """A snapshot is absent, half written or not what its manifest says."""


def checksum(manifest: t.Mapping[str, Json]) -> str:
    """Return the SHA-256 of a manifest without its own checksum, as canonical JSON."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(root: str, name: str) -> dict[str, Json]:
    """Read the manifest of a snapshot and check it against its own checksum.

    :raises BrokenSnapshotError: there is no such snapshot, or its manifest is cut off or was changed.
    """
    folder = os.path.join(root, name)
    if not os.path.isdir(folder) or os.path.islink(folder):
        raise BrokenSnapshotError(f"There is no snapshot {name} in {root}; name one that exists: {_names(root)}.")
    try:
        with open_regular(os.path.join(folder, MANIFEST)) as source:
            manifest = json.loads(source.read(_MANIFEST_LIMIT))
    except FileNotFoundError:
        raise BrokenSnapshotError(f"The snapshot {folder} has no {MANIFEST}, so it is half written; use another one.") from None
    except (OSError, ValueError) as error:
        raise BrokenSnapshotError(f"The manifest of {folder} cannot be read ({error}); use another snapshot.") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or manifest.get("checksum") != checksum(manifest):
        raise BrokenSnapshotError(f"The manifest of {folder} does not agree with its own checksum; use another snapshot.")
    if manifest["id"] != name:
        raise BrokenSnapshotError(f"The manifest of {folder} is that of {manifest['id']}; use another snapshot.")
    return manifest


def names(root: str) -> list[str]:
    """Return the names of the folders in a snapshot root that look finished."""
    try:
        found = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [name for name in found if not name.startswith(".") and os.path.isdir(os.path.join(root, name))]


def _names(root: str) -> str:
    return ", ".join(names(root)[-5:]) or "none does"


def partials(root: str) -> list[str]:
    """Return the names of half-written snapshots."""
    try:
        found = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [name for name in found if name.startswith(PARTIAL)]


def stored(entry: t.Mapping[str, Json], folder: str) -> str:
    """Return where a snapshot keeps a file, and refuse a name that leads out of it."""
    relative = str(entry["file"])
    if os.path.isabs(relative) or ".." in relative.split("/"):
        raise BrokenSnapshotError(f"The manifest of {folder} names {relative!r}, which is outside; use another snapshot.")
    return os.path.join(folder, relative)


def prove(root: str, name: str, *, archives: bool = True, decrypt_command: t.Sequence[str] = ()) -> dict[str, Json]:
    """Prove a snapshot as :func:`proven` does, and return its manifest."""
    with proven(root, name, archives=archives, decrypt_command=decrypt_command) as (manifest, _folder):
        return manifest


@contextlib.contextmanager
def proven(
    root: str, name: str, *, archives: bool = True, decrypt_command: t.Sequence[str] = ()
) -> t.Iterator[tuple[dict[str, Json], str]]:
    """Read every byte of a snapshot against its manifest and check the database copies; yield the manifest and where all of it lies.

    :param archives: unpack PostgreSQL's archives as well; their bytes alone do for the one that was read whole just now.
    :raises BrokenSnapshotError: anything is missing or differs.
    """
    manifest, folder = read(root, name), os.path.join(root, name)
    with contextlib.ExitStack() as stack:
        if manifest.get("sealed"):
            _prove_file(manifest["sealed"], folder, name)
            folder = stack.enter_context(snapshot_sealed.opened(root, name, manifest["sealed"], decrypt_command))
        _prove_content(manifest, folder, name, archives)
        yield manifest, folder


def _prove_content(manifest: dict[str, Json], folder: str, name: str, archives: bool) -> None:
    held = [entry for entry in manifest["files"] if entry["kind"] == "file"]
    sealed = [entry["encrypted"] for entry in held if entry.get("encrypted")]
    sealed += [database["encrypted"] for _server, database in snapshot_postgresql.databases(manifest) if database.get("encrypted")]
    trees = manifest.get("trees", [])
    for entry in [*manifest["databases"], *held, *sealed, *trees, *snapshot_postgresql.files(manifest)]:
        _prove_file(entry, folder, name)
    for entry in manifest["databases"]:
        _prove_database(stored(entry, folder), entry, name)
    wrong = snapshot_postgresql.prove_archives(manifest, folder) if archives else ""
    if wrong:
        raise BrokenSnapshotError(f"The snapshot {name} is not sound: {wrong}")


def _prove_file(entry: t.Mapping[str, Json], folder: str, name: str) -> None:
    path = stored(entry, folder)
    try:
        same = sha256_of(path) == entry["sha256"]
    except (OSError, MaintenanceError) as error:
        raise BrokenSnapshotError(f"{path} of the snapshot {name} cannot be read ({error}); use another one.") from None
    if not same:
        raise BrokenSnapshotError(f"{path} of the snapshot {name} does not have its checksum; use another one.")


def _prove_database(path: str, entry: t.Mapping[str, Json], name: str) -> None:
    def ask(connection: t.Any) -> tuple[list[str], dict[str, int]]:
        problems = sqlite_db.integrity(connection)
        return problems, {} if problems else sqlite_db.table_counts(connection, sqlite_db.tables(connection))

    try:
        problems, rows = sqlite_db.reading_fixed(path, ask)
    except MaintenanceError as error:
        raise BrokenSnapshotError(f"The copy of {entry['path']} in the snapshot {name} is not usable: {error}") from None
    if problems or rows != entry["rows"]:
        why = problems[0] if problems else "its rows are not those of the manifest"
        raise BrokenSnapshotError(f"The copy of {entry['path']} in the snapshot {name} is not sound: {why}; use another one.")


def covers(root: str, database: str, since: datetime) -> bool:
    """Whether a finished snapshot not older than ``since`` holds a proven copy of a database."""
    for name in reversed(names(root)):
        try:
            manifest = read(root, name)
        except BrokenSnapshotError:
            continue
        held = any(entry["path"] == database for entry in manifest["databases"])
        if held and datetime.fromisoformat(manifest["finished"]) >= since:
            return _sound(root, name)
    return False


def _sound(root: str, name: str) -> bool:
    """Whether a snapshot is sound; a sealed one was proven through its key when it was made, its bytes tell whether it still is that."""
    try:
        manifest = read(root, name)
        if manifest.get("sealed"):
            _prove_file(manifest["sealed"], os.path.join(root, name), name)
        else:
            prove(root, name)
    except BrokenSnapshotError:
        return False
    return True
