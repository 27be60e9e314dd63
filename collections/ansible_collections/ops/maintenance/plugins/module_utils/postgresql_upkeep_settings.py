# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared settings of a server: compared in their own unit, checked against the host's memory, set with ALTER SYSTEM."""

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t
from dataclasses import dataclass

from .judge import human_bytes
from .postgresql import Session, StatementError
from .record import Json

_SETTINGS = """
SELECT s.name, s.vartype AS type, coalesce(s.unit, '') AS unit, s.context, s.source, s.pending_restart, s.enumvals,
  CASE WHEN s.source = 'session' THEN s.reset_val ELSE s.setting END AS effective
FROM pg_settings s WHERE s.name = ANY(%s)
"""
_FILES = "SELECT name, setting, sourcefile FROM pg_file_settings WHERE name = ANY(%s) ORDER BY seqno"

_BYTES = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(r"^\s*(-?\d+(?:\.\d+)?(?:[eE]-?\d+)?)\s*(us|ms|s|min|h|d|B|kB|MB|GB|TB)?\s*$")
_UNIT = re.compile(r"^(\d*)(\w+)$")
_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
# PostgreSQL takes one quoted text as one name in a list, commas and all.
_LISTS = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries", "search_path", "temp_tablespaces")
_OVERRIDES = ("command line", "override", "environment variable")
_WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Setting:
    """One declared setting against the server's.

    :param configured: what the files say, which holds after the next reload or restart.
    """

    name: str
    declared: str
    type: str
    unit: str
    context: str
    source: str
    effective: str
    configured: str
    pending_restart: bool

    @property
    def due(self) -> bool:
        """Whether it has to be set."""
        return bool(self.amount(self.configured) != self.amount(self.declared))

    @property
    def in_effect(self) -> bool:
        """Whether the server works with the declared value."""
        return bool(self.amount(self.effective) == self.amount(self.declared))

    @property
    def overridden(self) -> bool:
        """Whether the server's command line decides, so that no file can."""
        return self.source in _OVERRIDES

    def amount(self, text: str) -> Json:
        """Return a value in a form that compares: bytes, seconds, a number, a truth, a text."""
        return amount_of(text, self.type, self.unit)

    @property
    def needs_restart(self) -> bool:
        """Whether only a restart of the server brings it into effect."""
        return self.context == "postmaster"


def text_of(value: Json) -> str:
    """Return a value of the inventory as PostgreSQL writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def amount_of(text: str, kind: str, unit: str) -> Json:
    """Return the value of a setting in a form that compares.

    :param unit: the unit that a bare number is in, as pg_settings names it: ``8kB``, ``ms``.
    """
    if kind == "bool":
        lowered = text.strip().lower()
        return True if lowered in _ON else False if lowered in _OFF else lowered
    match = _AMOUNT.match(text) if kind in ("integer", "real") else None
    if not match:
        return re.sub(r"\s*,\s*", ",", text.strip().lower() if kind == "enum" else text.strip().replace('"', ""))
    number = float(match.group(1))
    scale = _scale(match.group(2) or "") if match.group(2) else _scale(unit)
    return round(number * scale, 6)


def _scale(unit: str) -> float:
    match = _UNIT.match(unit)
    if not match:
        return 1.0
    factor = float(match.group(1) or 1)
    return factor * (_BYTES.get(match.group(2)) or _SECONDS.get(match.group(2)) or 1.0)


def read_settings(session: Session, declared: t.Mapping[str, Json]) -> tuple[list[Setting], list[str]]:
    """Return the declared settings against the server's, and a sentence for each that cannot be set."""
    names = [str(name).lower() for name in declared]
    wanted = {str(name).lower(): text_of(value) for name, value in declared.items()}
    files: dict[str, str] = {}
    with contextlib.suppress(StatementError):  # only superusers may read the files; ALTER SYSTEM will say so too
        files = {str(row["name"]).lower(): str(row["setting"]) for row in session.rows(_FILES, [names])}
    found, problems = [], []
    rows = {str(row["name"]).lower(): row for row in session.rows(_SETTINGS, [_spelt(session, names)])}
    for name in names:
        row = rows.get(name)
        if row is None:
            problems.append(f"setting {name} is not known to this server; correct its name, or preload the library that brings it")
            continue
        setting = Setting(
            row["name"], wanted[name], row["type"], row["unit"], row["context"], row["source"], str(row["effective"]),
            files.get(name, str(row["effective"])), bool(row["pending_restart"]),
        )  # fmt: skip
        if setting.context == "internal":
            problems.append(f"setting {name} cannot be changed on any server; take it out")
        elif setting.type in ("integer", "real") and not isinstance(setting.amount(setting.declared), float):
            problems.append(f"setting {name} is {setting.declared!r}, expected a number with a unit such as MB or s")
        elif setting.type == "enum" and setting.declared.strip().lower() not in [str(item).lower() for item in row["enumvals"]]:
            problems.append(f"setting {name} is {setting.declared!r}, expected one of {', '.join(row['enumvals'])}")
        else:
            found.append(setting)
    return found, problems


def _spelt(session: Session, names: t.Sequence[str]) -> list[str]:
    """Return the names as the server spells them (``TimeZone``, ``DateStyle``)."""
    return [str(row["name"]) for row in session.rows("SELECT name FROM pg_settings WHERE lower(name) = ANY(%s)", [list(names)])]


def set_statement(session: Session, setting: Setting) -> str:
    """Return the statement that writes a setting into the server's own file."""
    parts = [part.strip() for part in setting.declared.split(",")] if setting.name in _LISTS else [setting.declared]
    return f"ALTER SYSTEM SET {session.identifier(*setting.name.split('.'))} = {', '.join(session.literal(part) for part in parts)}"


def apply(session: Session, settings: t.Sequence[Setting]) -> list[Setting]:
    """Set what is due, have the server read its files, and return the settings as they are then."""
    for setting in settings:
        session.execute(set_statement(session, setting))
    session.execute("SELECT pg_reload_conf()")
    declared = {setting.name: setting.declared for setting in settings}
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        after, _problems = read_settings(session, declared)
        if all(not s.due and (s.in_effect or s.pending_restart) for s in after) or time.monotonic() > until:
            return after
        time.sleep(0.1)


def memory_bytes(path: str = "/proc/meminfo", limit: str = "/sys/fs/cgroup/memory.max") -> int:
    """Return the memory of this host, or of the container we are in where that is less; 0 when it cannot be read."""
    total = 0
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii", errors="replace") as source:
        match = re.search(r"^MemTotal:\s+(\d+) kB", source.read(), re.MULTILINE)
        total = int(match.group(1)) * 1024 if match else 0
    with contextlib.suppress(OSError, ValueError), open(limit, encoding="ascii", errors="replace") as source:
        total = min(total, int(source.read()))
    return total


def memory_problems(values: t.Mapping[str, float], memory: int) -> tuple[list[str], list[str]]:
    """Judge bytes of memory settings and ``max_connections`` against a host's memory: what may not be set, and what is a risk."""
    shared, work = values.get("shared_buffers", 0), values.get("work_mem", 0)
    refused = [
        f"{name} of {human_bytes(values[name])} is more than the host's {human_bytes(memory)}"
        for name in ("effective_cache_size", "work_mem", "maintenance_work_mem")
        if values.get(name, 0) > memory
    ]
    if shared > memory / 2:
        refused.append(f"shared_buffers of {human_bytes(shared)} is more than half of the host's {human_bytes(memory)}")
    connections = int(values.get("max_connections", 0))
    together = shared + work * connections
    risks = []
    if together > memory:
        risks.append(
            f"work_mem counts for each sort of each connection: {human_bytes(work)} for {connections} connections and shared_buffers "
            f"are {human_bytes(together)}, the host has {human_bytes(memory)}"
        )
    return refused, risks


MEMORY_SETTINGS = ("shared_buffers", "work_mem", "effective_cache_size", "maintenance_work_mem", "max_connections")


def is_here(session: Session) -> str:
    """Return the data folder of the server when it runs on this host and is not in a container of its own; empty otherwise.

    The start time in the folder's own ``postmaster.pid`` has to be the server's, for a path alone proves nothing.
    """
    try:
        folder = str(session.value("SELECT setting FROM pg_settings WHERE name = 'data_directory'") or "")
        if not folder:
            return ""
        started = int(session.value("SELECT extract(epoch FROM pg_postmaster_start_time())::bigint"))
        with open(os.path.join(folder, "postmaster.pid"), encoding="utf-8", errors="replace") as source:
            lines = source.read().splitlines()
        return folder if abs(int(lines[2]) - started) <= 2 else ""
    except (OSError, ValueError, IndexError, StatementError):
        return ""
