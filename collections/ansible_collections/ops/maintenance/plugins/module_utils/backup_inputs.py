# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sets of backups can be declared, and what of it cannot be meant."""

from __future__ import annotations

import os
import typing as t
from collections import Counter

from . import application_drill, backup_keys
from .backup_adaptors import ADAPTORS, CHOICES, set_options
from .backup_encryption import command_problems
from .backup_sets import Declared, check_date_format
from .errors import InputError, out_of_range, refusal, refuse
from .log_lines import zone_of
from .paths import open_root
from .postgresql import SERVER

_SENTINEL = {
    "table": {"type": "str", "required": True},
    "column": {"type": "str", "required": True},
    "order": {"type": "str", "default": ""},
}
_SET: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": CHOICES, "default": "files"},
    "root": {"type": "path", "default": ""},
    "pattern": {"type": "str", "default": "*"},
    "layout": {"type": "str", "choices": ["files", "folders", "dated_folders"], "default": "files"},
    "date_format": {"type": "str", "default": ""},
    "maximum_age_hours": {"type": "float", "default": 26.0},
    "expected": {
        "type": "dict",
        "options": {
            "every": {"type": "str", "choices": ["hourly", "daily", "weekly"], "required": True},
            "days": {"type": "int", "default": 7},
            "keep_count": {"type": "int", "default": 0},
        },
    },
    "level": {"type": "int", "choices": [0, 1, 2, 3, 4, 5], "default": 4},
    "manifest": {"type": "str", "default": ""},
    "required_tables": {"type": "list", "elements": "str", "default": []},
    "required_files": {"type": "list", "elements": "str", "default": []},
    "application_id": {"type": "int", "default": 0},
    "count_tables": {"type": "list", "elements": "str", "default": []},
    "count_change_percent": {"type": "float", "default": 20.0},
    "sentinel": {"type": "dict", "options": _SENTINEL},
    "source": {"type": "path", "default": ""},
    "maximum_rpo_hours": {"type": "float", "default": 0.0},
    "retention": {
        "type": "dict",
        "options": {
            "maximum_age_days": {"type": "float", "required": True},
            "minimum_count": {"type": "int", "default": 3},
        },
    },
    "minimum_size_bytes": {"type": "int", "default": 1},
    "size_change_percent": {"type": "float", "default": 50.0},
    "emergency": {"type": "bool", "default": False},
    "every_level": {"type": "int", "choices": [0, 1, 2], "default": 0},
    "maximum_rto_minutes": {"type": "float", "default": 0.0},
    "minimum_history_days": {"type": "float", "default": 0.0},
    "encrypted": {"type": "bool", "default": False},
    "decrypt_command": {"type": "list", "elements": "str", "default": []},
    **backup_keys.OPTIONS,
    **set_options(),
}

OPTIONS: dict[str, t.Any] = {
    "sets": {"type": "list", "elements": "dict", "required": True, "options": _SET},
    "servers": {"type": "list", "elements": "dict", "default": [], "options": SERVER},
    "applications": {"type": "list", "elements": "dict", "default": [], "options": application_drill.APPLICATION},
    "scratch": {"type": "path", "default": "/var/lib/ops_maintenance/scratch"},
    "kinds": {"type": "list", "elements": "str", "default": []},
    "level": {"type": "int", "choices": [-1, 0, 1, 2, 3, 4, 5], "default": -1},
    "maximum_level": {"type": "int", "choices": [0, 1, 2, 3, 4, 5], "default": 5},
    "timezone": {"type": "str", "default": ""},
    "emergency_command": {"type": "list", "elements": "str", "default": []},
    "emergency_timeout_seconds": {"type": "float", "default": 1800.0},
    "capacity_warning_percent": {"type": "float", "default": 85.0},
    "capacity_critical_percent": {"type": "float", "default": 95.0},
    "capacity_warning_days": {"type": "float", "default": 14.0},
    "settle_seconds": {"type": "float", "default": 2.0},
}

_POSITIVE = ("maximum_age_hours", "minimum_size_bytes", "size_change_percent")
_NOT_NEGATIVE = ("maximum_rpo_hours", "maximum_rto_minutes", "minimum_history_days", "count_change_percent", "application_id")


def check_declared(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what cannot be used, all of it at once.

    :raises InputError: one sentence for each problem.
    """
    problems = input_problems(params)
    for declared in params["sets"]:
        if not refusal(_check_paths, declared, params):
            problems += refusal(_check_places, declared, params)
    refuse(problems)


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = [
        problem
        for declared in params["sets"]
        for check in (_check_names, _check_numbers, _check_paths)
        for problem in refusal(check, declared, params)
    ]
    problems += [f"kinds has {kind!r}, expected {', '.join(CHOICES)}; correct it." for kind in params["kinds"] if kind not in CHOICES]
    for declared in params["sets"]:
        problems += command_problems(declared["decrypt_command"], f"decrypt_command of set {declared['name']}")
        problems += backup_keys.problems(declared)
        if declared["kind"] in ADAPTORS:
            problems += ADAPTORS[declared["kind"]].problems(declared, params)
    problems += application_drill.problems(params)
    names = Counter(declared["name"] for declared in params["sets"])
    problems += [f"The set name {name!r} is used {count} times; give each its own." for name, count in names.items() if count > 1]
    amounts = ("capacity_warning_percent", "capacity_critical_percent", "capacity_warning_days", "settle_seconds")
    problems += out_of_range(params, amounts)
    if params["timezone"]:
        problems += refusal(zone_of, params["timezone"])
    if params["emergency_timeout_seconds"] <= 0:
        problems.append(
            str(InputError.of("emergency_timeout_seconds", params["emergency_timeout_seconds"], "seconds above 0", "correct it"))
        )
    if any(declared["emergency"] for declared in params["sets"]) and not params["emergency_command"]:
        problems.append("A set has emergency: true, but emergency_command is empty; give the command as a list.")
    return problems


def _check_names(declared: Declared, _params: t.Mapping[str, t.Any]) -> None:
    name = declared["name"]
    if not name.strip():
        raise InputError.of("name", name, "a name that only this set has", "give each set its own")
    check_date_format(declared["date_format"], f"date_format of set {name}")
    if declared["layout"] == "dated_folders" and not declared["date_format"]:
        raise InputError.of(f"date_format of set {name}", "", "the format of the folders' names", "give one such as %Y%m%d")


def _check_numbers(declared: Declared, _params: t.Mapping[str, t.Any]) -> None:
    for option in _POSITIVE:
        if not declared[option] > 0:
            raise InputError.of(f"{option} of set {declared['name']}", declared[option], "a number above 0", "correct it")
    for option in _NOT_NEGATIVE:
        if not declared[option] >= 0:
            raise InputError.of(f"{option} of set {declared['name']}", declared[option], "0 or more", "correct it")
    for option, key, least in (("expected", "days", 1), ("expected", "keep_count", 0),
                               ("retention", "maximum_age_days", 1), ("retention", "minimum_count", 1)):  # fmt: skip
        value = (declared[option] or {}).get(key)
        if value is not None and not value >= least:
            raise InputError.of(f"{option}.{key} of set {declared['name']}", value, f"{least} or more", "correct it")


def _check_paths(declared: Declared, params: t.Mapping[str, t.Any]) -> None:
    for option, path in (
        (f"root of set {declared['name']}", declared["root"] or ("" if needs_root(declared) else "/")),
        (f"source of set {declared['name']}", declared["source"] or "/"),
        ("scratch", params["scratch"]),
    ):
        if not os.path.isabs(path):
            raise InputError.of(option, path, "an absolute path", "write it from the root on")
    _check_apart(declared, params, os.path.normpath)


def _check_places(declared: Declared, params: t.Mapping[str, t.Any]) -> None:
    if declared["root"] and os.path.lexists(declared["root"]):
        with open_root(declared["root"], f"root of set {declared['name']}"):
            pass
    _check_apart(declared, params, os.path.realpath)


def _check_apart(declared: Declared, params: t.Mapping[str, t.Any], leads_to: t.Callable[[str], str]) -> None:
    scratch = leads_to(params["scratch"])
    for place, what in ((declared["root"], "root"), (declared["source"], "source")):
        place = leads_to(place) if place else ""
        if place and os.path.commonpath([place, scratch]) in (place, scratch):
            raise InputError.of(
                "scratch", params["scratch"], f"a folder apart from the {what} of set {declared['name']} ({place})",
                "a restore drill never goes near the source; name another folder",
            )  # fmt: skip


def needs_root(declared: Declared) -> bool:
    """Whether the backups of a set lie in a folder of this host."""
    adaptor = ADAPTORS.get(declared["kind"])
    return adaptor is None or adaptor.needs_root
