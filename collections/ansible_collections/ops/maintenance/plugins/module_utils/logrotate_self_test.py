# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the lint of logrotate find what it must: a sound configuration and one with every fault, in a folder of its own."""

from __future__ import annotations

import os
import tempfile
import time
import typing as t

from . import log_files
from .logrotate_lint import Look, lint
from .logrotate_tree import read_tree

_SOUND = "weekly\nrotate 4\nmissingok\ninclude {folder}/sound.d\n"
_SOUND_ENTRY = '"{folder}/logs/app.log" {{\n    daily\n    postrotate\n        true }} {{ fooo\n    endscript\n}}\n'
_BAD = "include {folder}/bad.d\n"
_BAD_ENTRIES = {
    "a": "{folder}/logs/app.log {{\n    daily\n    copytruncate\n    fooo\n}}\n{folder}/logs/*.log {{\n    daily\n}}\n",
    "b": "{folder}/nowhere/*.log {{\n    daily\n}}\n{folder}/open/x.log {{\n    size 10\n}}\n",
    "c": "# group may write\n",
}
_EXPECTED = ("claims", "copytruncate", "files", "growth", "overdue", "patterns", "reopened", "su", "syntax", "uncovered")


def problems() -> list[str]:
    """Return what the lint misses or makes up, one sentence each."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        now = time.time()
        _plant(folder, now)
        writers = log_files.open_for_writing()
        for name in ("app.log", "app.log.1"):
            status = os.stat(f"{folder}/logs/{name}")
            writers[(status.st_dev, status.st_ino)] = log_files.Writer(1, "sample", False)
        sizes = {f"{folder}/open/x.log": {"inode": os.stat(f"{folder}/open/x.log").st_ino, "size": 20, "at": now - 1000}}
        old = {f"{folder}/logs/app.log": now - 9e6}
        bad = _states(f"{folder}/bad.conf", Look(now, old, now, sizes, writers, [f"{folder}/logs"]))
        sound = _states(f"{folder}/sound.conf", Look(now, rotated={f"{folder}/logs/app.log": now}, ran=now))
    missed = [f"a planted fault was not found: {name}" for name in _EXPECTED if bad.get(f"logrotate.{name}") != "warning"]
    return missed + [f"a sound configuration was refused: {name}" for name, state in sound.items() if state != "ok"]


def _states(config: str, look: Look) -> dict[str, str]:
    return {finding.id: finding.state for finding in lint(config, read_tree(config), look)[0]}


def _plant(folder: str, now: float) -> None:
    for name, mode in (("logs", 0o755), ("open", 0o777), ("sound.d", 0o755), ("bad.d", 0o755)):
        os.mkdir(f"{folder}/{name}")
        os.chmod(f"{folder}/{name}", mode)
    files: dict[str, t.Any] = {"sound.conf": _SOUND, "sound.d/app": _SOUND_ENTRY, "bad.conf": _BAD}
    files.update({f"bad.d/{name}": text for name, text in _BAD_ENTRIES.items()})
    for name, text in files.items():
        _write(f"{folder}/{name}", text.format(folder=folder), 0o664 if name == "bad.d/c" else 0o644)
        os.utime(f"{folder}/{name}", (now - 9e6, now - 9e6))
    for name in ("logs/app.log", "logs/app.log.1", "logs/stray.txt", "open/x.log"):
        _write(f"{folder}/{name}", "some lines of a log\n" * 2, 0o640)


def _write(path: str, text: str, mode: int) -> None:
    with open(path, "w", encoding="utf-8") as target:
        target.write(text)
    os.chmod(path, mode)
