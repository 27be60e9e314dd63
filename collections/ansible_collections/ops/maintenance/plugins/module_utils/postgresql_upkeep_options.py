# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory says about the upkeep of PostgreSQL: options, limits of one table, names of tables."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, fields

from .errors import InputError, refusal
from .postgresql import SERVER, Server, check_server

Params = t.Mapping[str, t.Any]

_LIMITS: dict[str, dict[str, t.Any]] = {
    "vacuum_dead_percent": {"type": "float", "default": 20.0},
    "vacuum_dead_rows": {"type": "int", "default": 1000},
    "freeze_age": {"type": "int", "default": 150000000},
    "analyze_changed_percent": {"type": "float", "default": 10.0},
    "analyze_changed_rows": {"type": "int", "default": 500},
    "reindex": {"type": "str", "choices": ["online", "locking", "never"], "default": "online"},
    "reindex_bloat_percent": {"type": "float", "default": 30.0},
    "reindex_bloat_bytes": {"type": "int", "default": 10485760},
    "vacuum_full_bloat_percent": {"type": "float", "default": 50.0},
}

_PLACE: dict[str, t.Any] = {
    "server": {"type": "str", "default": ""},
    "database": {"type": "str", "required": True},
    "table": {"type": "str", "required": True},
}

TABLE: dict[str, t.Any] = {
    **_PLACE,
    "skip": {"type": "bool", "default": False},
    "vacuum_full": {"type": "bool", "default": False},
    **{name: {key: value for key, value in spec.items() if key != "default"} for name, spec in _LIMITS.items()},
}

INDEX: dict[str, t.Any] = {
    **_PLACE,
    "name": {"type": "str", "required": True},
    "columns": {"type": "list", "elements": "str", "required": True},
    "include": {"type": "list", "elements": "str", "default": []},
    "where": {"type": "str", "default": ""},
    "unique": {"type": "bool", "default": False},
    "method": {"type": "str", "default": "btree"},
}

OPTIONS: dict[str, t.Any] = {
    "servers": {"type": "list", "elements": "dict", "required": True, "options": SERVER},
    **{name: spec for name, spec in _LIMITS.items() if name != "reindex"},
    "reindex": {"type": "str", "choices": ["online", "never"], "default": "online"},
    "measure_bloat": {"type": "bool", "default": True},
    "tables": {"type": "list", "elements": "dict", "default": [], "options": TABLE},
    "indexes": {"type": "list", "elements": "dict", "default": [], "options": INDEX},
    "extensions_to_update": {"type": "list", "elements": "str", "default": []},
    "settings": {"type": "dict", "default": {}},
    "reset_statistics": {"type": "bool", "default": False},
    "reset_statistics_after_days": {"type": "float", "default": 6.0},
    "parallel": {"type": "int", "default": 2},
    "vacuum_cost_delay_ms": {"type": "float", "default": 0.0},
    "vacuum_cost_limit": {"type": "int", "default": 200},
    "lock_timeout_seconds": {"type": "float", "default": 5.0},
    "concurrent_wait_seconds": {"type": "float", "default": 120.0},
    "lock_attempts": {"type": "int", "default": 2},
    "statement_timeout_seconds": {"type": "float", "default": 14400.0},
    "terminate_blockers": {"type": "bool", "default": False},
    "maintenance_mode": {"type": "bool", "default": False},
    "on_standby": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
    "reserve_bytes": {"type": "int", "default": 1073741824},
    "bytes_per_second": {"type": "int", "default": 20971520},
}

_PERCENT = ("vacuum_dead_percent", "analyze_changed_percent", "reindex_bloat_percent", "vacuum_full_bloat_percent")
_AT_LEAST: dict[str, float] = {
    "vacuum_dead_rows": 1,
    "freeze_age": 1,
    "analyze_changed_rows": 1,
    "reindex_bloat_bytes": 0,
    "parallel": 1,
    "vacuum_cost_delay_ms": 0,
    "vacuum_cost_limit": 1,
    "lock_timeout_seconds": 0.1,
    "concurrent_wait_seconds": 0.1,
    "lock_attempts": 1,
    "statement_timeout_seconds": 1,
    "reset_statistics_after_days": 0,
    "reserve_bytes": 0,
    "bytes_per_second": 1,
}
_AT_MOST: dict[str, float] = {"parallel": 64, "vacuum_cost_delay_ms": 100, "vacuum_cost_limit": 10000}
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')
_NAME = re.compile(r"^[a-z_][a-z0-9_]*$")
_SETTING = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$")
# Settings with a password in them, and those that ALTER SYSTEM does not take.
_REFUSED_SETTINGS = ("primary_conninfo", "ssl_passphrase_command", "data_directory", "config_file", "hba_file", "ident_file")


@dataclass(frozen=True)
class Limits:
    """When something is due for one table: the module's options, with what the inventory says of this table in front."""

    vacuum_dead_percent: float
    vacuum_dead_rows: int
    freeze_age: int
    analyze_changed_percent: float
    analyze_changed_rows: int
    reindex: str
    reindex_bloat_percent: float
    reindex_bloat_bytes: int
    vacuum_full_bloat_percent: float
    vacuum_full: bool = False
    skip: bool = False


def split_name(text: str) -> tuple[str, str]:
    """Return schema and name of ``schema.table``, taken as it is written: case counts, a part with a dot is double-quoted.

    :raises ValueError: it is not made of exactly two parts.
    """
    parts: list[str] = []
    place = 0
    while place < len(text) and len(parts) < 3:
        match = _PART.match(text, place)
        if not match:
            break
        parts.append(match.group(1).replace('""', '"') if match.group(1) else match.group(2))
        place = match.end()
        if place < len(text) and text[place] == "." and place + 1 < len(text):
            place += 1
        else:
            break
    if place != len(text) or len(parts) != 2:
        raise ValueError(text)
    return parts[0], parts[1]


def limits_of(params: Params, server: str, database: str, schema: str, name: str) -> Limits:
    """Return the limits that hold for one table."""
    names = [field.name for field in fields(Limits)]
    merged = {key: params[key] for key in names if key in params}
    for spec in params["tables"]:
        if spec["server"] in ("", server) and spec["database"] == database and split_name(spec["table"]) == (schema, name):
            merged.update({key: spec[key] for key in names if spec.get(key) is not None})
    return Limits(**merged)


def declared_for(params: Params, option: str, server: str, database: str) -> list[Params]:
    """Return the entries of ``tables`` or ``indexes`` that belong to one database."""
    return [spec for spec in params[option] if spec["server"] in ("", server) and spec["database"] == database]


def input_problems(params: Params) -> list[str]:
    """Return what cannot be meant, from the input alone."""
    return refusal(check_input, params)


def check_input(params: Params) -> None:
    """Refuse options that cannot work, all problems at once.

    :raises InputError: what is wrong, and what was expected.
    """
    problems = [*_number_problems(params, "")]
    servers: list[Server] = params["servers"]
    names = [server["name"] for server in servers]
    problems += [f"server {name!r} is declared twice" for name in sorted(set(names)) if names.count(name) > 1]
    for server in servers:
        try:
            check_server(server)
        except InputError as error:
            problems.append(str(error).rstrip("."))
    for option in ("tables", "indexes"):
        for spec in params[option]:
            problems += _place_problems(option, spec, servers)
            problems += _number_problems(spec, f"{spec['database']}: {spec['table']}: ")
    problems += _twice(params)
    for spec in params["indexes"]:
        if not spec["columns"]:
            problems.append(f"index {spec['name']} has no columns, expected one or more")
        if not _NAME.match(spec["method"]):
            problems.append(f"method of index {spec['name']} is {spec['method']!r}, expected a name such as btree")
    problems += [f"setting {name!r} cannot be set here" for name in params["settings"] if not _settable(str(name))]
    if problems:
        raise InputError("The upkeep of PostgreSQL cannot be done as declared: " + "; ".join(problems) + "; correct the inventory.")


def _settable(name: str) -> bool:
    return bool(_SETTING.match(name)) and name.lower() not in _REFUSED_SETTINGS


def _number_problems(spec: Params, where: str) -> t.Iterator[str]:
    for name in _PERCENT:
        if spec.get(name) is not None and not 0 < spec[name] <= 100:
            yield f"{where}{name} is {spec[name]:g}, expected more than 0 and at most 100"
    for name, lowest in _AT_LEAST.items():
        if spec.get(name) is not None and not spec[name] >= lowest:
            yield f"{where}{name} is {spec[name]:g}, expected {lowest:g} or more"
    for name, highest in _AT_MOST.items():
        if spec.get(name) is not None and spec[name] > highest:
            yield f"{where}{name} is {spec[name]:g}, expected {highest:g} or less"


def _place_problems(option: str, spec: Params, servers: t.Sequence[Server]) -> t.Iterator[str]:
    try:
        split_name(spec["table"])
    except ValueError:
        yield f"table of {option} is {spec['table']!r}, expected schema.table (a part that has a dot in it in double quotes)"
    meant = [server for server in servers if spec["server"] in ("", server["name"])]
    if not meant:
        yield f"server of {option} for {spec['table']} is {spec['server']!r}, expected the name of a declared server"
    elif all(server["databases"] and spec["database"] not in server["databases"] for server in meant):
        yield f"database of {option} for {spec['table']} is {spec['database']!r}, expected a database of a declared server"


def _twice(params: Params) -> t.Iterator[str]:
    for option, keys in (("tables", ("server", "database", "table")), ("indexes", ("server", "database", "table", "name"))):
        seen = [tuple(spec[key] for key in keys) for spec in params[option]]
        for entry in sorted({entry for entry in seen if seen.count(entry) > 1}):
            yield f"{' '.join(filter(None, entry))} is declared twice in {option}"
