# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which part of a snapshot is put back, and which snapshots hold which version of a file."""

from __future__ import annotations

import os
import typing as t

from . import snapshot_store
from .errors import InputError, MaintenanceError
from .paths import sha256_of
from .record import Finding, Json

PARTS: dict[str, tuple[str, ...]] = {
    "databases": ("databases", "postgresql"),
    "configuration": ("files",),
    "releases": ("trees",),
    "containers": ("containers",),
    "deployments": ("deployments",),
}
"""What can be asked for by name, and where a manifest keeps it."""

_SHOWN = 20


def problems(params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Say what cannot be meant, one sentence each, from the input alone."""
    for path in params["paths"]:
        if not os.path.isabs(path) or os.path.normpath(path) != path:
            yield f"paths has {path!r}, expected an absolute path without detours; correct it."
    if params["paths"] and params["only"] not in ([], ["configuration"]):
        yield f"paths names files while only is {params['only']}, expected configuration alone or nothing; leave one of them out."


def is_whole(params: t.Mapping[str, t.Any]) -> bool:
    """Whether all of a snapshot is meant."""
    return not params["only"] and not params["paths"]


def key_of(params: t.Mapping[str, t.Any], name: str) -> str:
    """Name what is put back, so that only the same is not put back twice."""
    return name if is_whole(params) else f"{name}: {part_of(params)}"


def part_of(params: t.Mapping[str, t.Any]) -> str:
    """Say what of a snapshot is meant, nothing where all of it is."""
    return ", ".join(sorted([*params["only"], *params["paths"]]))


def narrowed(manifest: dict[str, Json], params: t.Mapping[str, t.Any]) -> dict[str, Json]:
    """Return a manifest with nothing in it but what is asked for.

    :raises InputError: the snapshot does not hold what is named.
    """
    if is_whole(params):
        return manifest
    wanted = ["configuration"] if params["paths"] else params["only"]
    kept = {key for part in wanted for key in PARTS[part]}
    less = {**manifest, "python": [], **{key: [] for keys in PARTS.values() for key in keys if key not in kept}}
    if params["paths"]:
        less["files"] = [entry for entry in manifest["files"] if _is_named(entry["path"], params["paths"])]
        missing = [path for path in params["paths"] if not any(_is_named(entry["path"], [path]) for entry in less["files"])]
        if missing:
            raise InputError.of("paths", missing[0], f"a path that the snapshot {manifest['id']} holds", "see which snapshot does")
    return less


def _is_named(path: str, named: t.Sequence[str]) -> bool:
    return any(path == name or path.startswith(name.rstrip("/") + "/") for name in named)


def versions(root: str, paths: t.Sequence[str]) -> list[Finding]:
    """Say for each file which snapshots hold it, the newest first, and which of them is what is there now."""
    manifests = []
    for name in snapshot_store.names(root):
        try:
            manifests.append(snapshot_store.read(root, name))
        except snapshot_store.BrokenSnapshotError:
            continue
    manifests.sort(key=lambda manifest: str(manifest["finished"]), reverse=True)
    return [_versions_of(path, manifests) for path in paths]


def _versions_of(path: str, manifests: t.Sequence[dict[str, Json]]) -> Finding:
    try:
        now = sha256_of(path)
    except (OSError, MaintenanceError):
        now = ""
    lines = []
    for manifest in manifests:
        for entry in manifest["files"]:
            if entry["path"] == path and entry["kind"] == "file":
                same = "as it is now" if entry["sha256"] == now else "another"
                mode = f"{entry['mode']:04o} {entry.get('owner', '')}".strip()
                lines.append(f"{manifest['id']} of {manifest['finished']}: {entry['sha256'][:12]}, {mode}, {same}")
    if not lines:
        return Finding("rollback.versions", "unknown", path, "no snapshot holds it", advice="Look into the version control or a backup.")
    return Finding(
        "rollback.versions", "ok", path, f"{len(lines)} snapshot(s) hold it, the newest first", len(lines), "count", evidence=lines[:_SHOWN]
    )
