# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the upkeep of SQLite databases can be told, and what of it cannot be meant."""

from __future__ import annotations

import grp
import os
import pwd
import typing as t

from .errors import InputError, out_of_range

DATABASE = {
    "path": {"type": "str", "required": True},
    "owner": {"type": "str", "default": ""},
    "group": {"type": "str", "default": ""},
    "required_tables": {"type": "list", "elements": "str", "default": []},
    "count_tables": {"type": "list", "elements": "str", "default": []},
    "journal_mode": {"type": "str", "choices": ["wal", "delete", "keep"], "default": "keep"},
    "application_settings": {"type": "dict", "default": {}},
    "application_settings_in": {"type": "list", "elements": "str", "default": []},
    "vacuum_free_percent": {"type": "float", "default": 20.0},
    "vacuum_free_bytes": {"type": "int", "default": 1048576},
    "checkpoint_wal_bytes": {"type": "int", "default": 4194304},
    "analyze_after_days": {"type": "float", "default": 6.0},
    "analyze_when_changed_percent": {"type": "float", "default": 10.0},
    "reindex": {"type": "str", "choices": ["never", "when_due", "always"], "default": "when_due"},
    "reindex_after_days": {"type": "float", "default": 6.0},
    "max_shrink_rows_percent": {"type": "float", "default": 20.0},
    "size_warning_bytes": {"type": "int", "default": 0},
    "restore_from": {"type": "list", "elements": "str", "default": []},
    "allow_restore": {"type": "bool", "default": False},
}

OPTIONS = {
    "databases": {"type": "list", "elements": "dict", "required": True, "options": DATABASE},
    "reserve_bytes": {"type": "int", "default": 104857600},
    "bytes_per_second": {"type": "int", "default": 10485760},
    "require_snapshot": {"type": "bool", "default": False},
    "snapshot_root": {"type": "path", "default": "/var/backups/ops_maintenance"},
    "snapshot_max_age_hours": {"type": "float", "default": 24.0},
}

_PERCENT = ("vacuum_free_percent", "analyze_when_changed_percent", "max_shrink_rows_percent")
_NOT_NEGATIVE = (
    "vacuum_free_bytes",
    "checkpoint_wal_bytes",
    "analyze_after_days",
    "reindex_after_days",
    "size_warning_bytes",
)

Spec = dict[str, t.Any]


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("reserve_bytes", "snapshot_max_age_hours")) + out_of_range(params, ("bytes_per_second",), least=1)
    seen: set[str] = set()
    for spec in params["databases"]:
        path = spec["path"]
        if not os.path.isabs(path) or os.path.normpath(path) != path:
            problems.append(str(InputError.of("databases.path", path, "an absolute path without detours", "correct it")))
        if path in seen:
            problems.append(f"{path} is declared twice; remove one.")
        seen.add(path)
        problems += [f"{path}: {problem}" for problem in out_of_range(spec, _PERCENT, most=100) + out_of_range(spec, _NOT_NEGATIVE)]
    return problems


def unknown_names(spec: Spec) -> t.Iterator[str]:
    """Yield what is wrong with the names of an owner or a group on this host."""
    for option, look_up in (("owner", pwd.getpwnam), ("group", grp.getgrnam)):
        if spec[option]:
            try:
                look_up(spec[option])
            except KeyError:
                yield f"{option} is {spec[option]!r}, expected a name that this host knows"
