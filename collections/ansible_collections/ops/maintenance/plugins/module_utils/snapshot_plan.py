# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back, written down before the work: what lies in the snapshot, what a rollback does with it, and what it cannot put back."""

from __future__ import annotations

import hashlib
import json
import typing as t

from . import snapshot_postgresql
from .judge import human_bytes
from .record import Json
from .snapshot_deployments import CODE_ONLY

FILE = "ROLLBACK.txt"


def configuration_version(files: t.Sequence[t.Mapping[str, Json]]) -> str:
    """Name a state of the configuration: the same for the same paths with the same content, owners and modes."""
    parts = [(entry["path"], entry["kind"], entry["uid"], entry["gid"], entry["mode"], entry.get("sha256", entry.get("target", "")))
             for entry in files]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def steps(manifest: t.Mapping[str, Json]) -> list[str]:
    """Return what a rollback puts back, one line each; no secret is in them."""
    lines = [f"SQLite database {entry['path']}: {sum(entry['rows'].values())} rows" for entry in manifest["databases"]]
    lines += [
        f"PostgreSQL database {server['name']}/{entry['database']}: {sum(entry['rows'].values())} rows, as of {entry['wal_position']}"
        for server, entry in snapshot_postgresql.databases(manifest)
    ]
    if manifest["files"]:
        lines.append(f"configuration version {manifest['configuration']}: {len(manifest['files'])} paths with owner and mode")
    for entry in manifest["trees"]:
        what = (
            f"release {entry['name']} {entry['version'] or '(no version known)'}"
            if entry["kind"] == "release"
            else f"volume {entry['name']}"
        )
        link = f", then {entry['path']} leads to it" if entry["link"] else ""
        only = ", only where it is asked for" if entry["kind"] == "volume" else ""
        lines.append(f"{what}: {entry['files']} files, {human_bytes(entry['bytes'])} below {entry['root']}{link}{only}")
    return lines + [f"deployment {entry['name']}: {entry['deployment']}, code only" for entry in manifest["deployments"]]


def by_hand(manifest: t.Mapping[str, Json]) -> list[str]:
    """Return what a rollback only compares or cannot do."""
    lines = [f"container {entry['name']}: {entry['reference']}, image {entry['image'][:12]}, digest {next(iter(entry['digests']), 'none')}"
             for entry in manifest["containers"]]  # fmt: skip
    lines += [CODE_ONLY] if manifest["deployments"] else []
    return lines + list(manifest["not_covered"])


def text(manifest: t.Mapping[str, Json], folder: str) -> str:
    """Return the plan as it lies in the snapshot, readable where nothing else works."""
    run = manifest["id"]
    lines = [
        f"The way back from maintenance {run}, of {manifest['finished']}",
        "",
        f"Rehearse: ansible-playbook playbooks/rollback.yml -i INVENTORY --limit HOST -e maintenance_run_id={run} --check",
        f"Do it:    ansible-playbook playbooks/rollback.yml -i INVENTORY --limit HOST -e maintenance_run_id={run}",
        f"It lies in {folder}",
        "",
        "What comes back:",
        *(f"- {line}" for line in steps(manifest) or ["nothing"]),
        "",
        "What is compared only, or not covered:",
        *(f"- {line}" for line in by_hand(manifest) or ["nothing"]),
    ]
    return "\n".join(lines) + "\n"
