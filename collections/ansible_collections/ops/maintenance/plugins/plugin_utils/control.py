# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the control node knows of runs: this one's id, and earlier ones whose process is gone."""

from __future__ import annotations

import getpass
import json
import os
import socket
from pathlib import Path
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.process import started as process_started

RUN_ID = "OPS_MAINTENANCE_RUN_ID"
JOURNAL = "OPS_MAINTENANCE_JOURNAL"
JOURNAL_DIR = "OPS_MAINTENANCE_JOURNAL_DIR"
STORE_URL = "OPS_MAINTENANCE_STORE_URL"
DEFAULT_JOURNAL_DIR = "~/.local/state/ops_maintenance/journal"
_TAIL_BYTES = 64 * 1024
_LOOK_BACK = 50


def run_id() -> str:
    """Return the id of this run, empty when the journal callback is not enabled."""
    return os.environ.get(RUN_ID, "")


def journal_folder() -> str:
    """Return the folder where journals are kept, as the journal callback is told."""
    return os.path.expanduser(os.environ.get(JOURNAL_DIR) or DEFAULT_JOURNAL_DIR)


def store_url(given: str | None) -> str:
    """Return the URL of the store: as given, else as the journal callback is told, else its file when there is one."""
    if given is not None:
        return given
    if STORE_URL in os.environ:
        return os.environ[STORE_URL]
    path = os.path.join(current_folder() or journal_folder(), "store.sqlite")
    return f"sqlite:///{path}" if os.path.isfile(path) else ""


def current_folder() -> str:
    """Return the folder of this run's journal, empty where there is none."""
    return os.path.dirname(os.environ.get(JOURNAL, ""))


def pid_namespace() -> str:
    """Return which processes this one sees: a container with the name of its host does not see the others' there."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def holder() -> dict[str, Any]:
    """Say who holds a lock taken now."""
    return {"host": socket.gethostname(), "user": _user()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def dead_runs(journal: str) -> list[str]:
    """Return ids of earlier runs from this machine whose journal has no end and whose process is gone."""
    if not journal:
        return []
    current = Path(journal)
    others = [path for path in current.parent.glob("*.jsonl") if path.name != current.name]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.stem for path in others[:_LOOK_BACK] if _is_dead(path)]


def _is_dead(path: Path) -> bool:
    try:
        with path.open("rb") as source:
            first = source.readline()
            source.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            tail = source.read()
    except OSError:
        return False
    if b'"kind":"end"' in tail.replace(b'": "', b'":"'):
        return False
    try:
        control = json.loads(first)["control"]
        here = control["host"] == socket.gethostname() and control.get("pid_namespace", pid_namespace()) == pid_namespace()
        alive = process_started(int(control["pid"])) == str(control["pid_started"])
    except (ValueError, KeyError, TypeError):
        return False
    return here and not alive
