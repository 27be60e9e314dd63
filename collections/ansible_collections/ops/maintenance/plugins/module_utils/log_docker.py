# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The logs of Docker containers as files: one source a container, by the container's name."""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import replace

from .errors import MaintenanceError
from .log_lines import find_files
from .log_scan import Scanned, Source
from .paths import open_regular
from .record import clean

DEFAULT_PATHS = ("/var/lib/docker/containers/*/*-json.log*",)


def containers_of(source: Source) -> list[Scanned]:
    """Return a source for each container whose log the paths match, and what stands in the way of others."""
    rest = Scanned(replace(source, paths=source.paths or DEFAULT_PATHS))
    found = find_files(rest.source.paths, "sources[].paths")
    rest.problems = found.problems
    by_folder: dict[str, list[str]] = {}
    for path in found.files:
        by_folder.setdefault(os.path.dirname(path), []).append(path)
    containers = []
    for folder, paths in sorted(by_folder.items()):
        one = Scanned(source)
        name = _name_of(folder, one.problems)
        one.source = replace(source, name=f"{source.name}/{name}", paths=[_pattern_of(paths)])
        containers.append(one)
    rest.problems += _elsewhere(rest.source.paths, set(by_folder))
    if containers:
        rest.source = replace(rest.source, paths=[])  # they are read already
    return [*containers, rest] if rest.problems or not containers else containers


def _pattern_of(paths: list[str]) -> str:
    """Return a pattern for the log of a container and its rotated forms."""
    return f"{min(paths, key=len).rpartition('-json.log')[0]}-json.log*"


def _name_of(folder: str, problems: list[str]) -> str:
    known = _config(os.path.join(folder, "config.v2.json"))
    name = known.get("Name") if known else None
    if isinstance(name, str) and name.strip("/"):
        return clean(name.strip("/"), 100)
    problems.append(f"{folder}/config.v2.json does not tell the container's name")
    return clean(os.path.basename(folder)[:12])


def _config(path: str) -> dict[str, t.Any] | None:
    try:
        with open_regular(path) as source:
            value = json.loads(source.read())
    except (OSError, ValueError, MaintenanceError):
        return None
    return value if isinstance(value, dict) else None


def _elsewhere(patterns: t.Sequence[str], seen: set[str]) -> list[str]:
    """Name containers that keep no such file, because of their logging driver."""
    problems = []
    configs = find_files([f"{os.path.dirname(pattern)}/hostconfig.json" for pattern in patterns]).files
    for path in configs:
        folder = os.path.dirname(path)
        config = (_config(path) or {}).get("LogConfig") or {}
        driver = config.get("Type") if isinstance(config, dict) else None
        if folder not in seen and driver != "json-file":
            name = _name_of(folder, [])
            problems.append(f"container {name} logs with the driver {clean(str(driver), 40)}, so its lines are not in such files")
    return problems
