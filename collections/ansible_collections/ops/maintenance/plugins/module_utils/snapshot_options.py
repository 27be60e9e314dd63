# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be asked of a snapshot, and what of it cannot be meant."""

from __future__ import annotations

import os
import typing as t

from . import (
    snapshot_containers,
    snapshot_copies,
    snapshot_deployments,
    snapshot_postgresql,
    snapshot_sealed,
    snapshot_trees,
    snapshot_versions,
)
from .errors import out_of_range

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
