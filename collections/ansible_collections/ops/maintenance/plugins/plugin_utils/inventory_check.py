# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check what the inventory says of a host before anything is changed: every fault at once, one sentence each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = Path(__file__).resolve().parents[2] / "roles"
# Upper case sets a template's placeholder apart from an ordinary expression such as {{ app_port }}.
_PLACEHOLDER = re.compile(
    r"\{\{\s*[A-Z][A-Z0-9_]+\s*\}\}|(?i:\byour-domain\.(?:com|org|net)\b|\bCHANGE_?ME\b|\[Contact Information\]|(?<![\w.])/path/to/)"
)
_OWN = ("maintenance_", "cycle_")
_SHARED = frozenset(
    f"maintenance_{name}"
    for name in (
        *("run_id", "deadline", "state_dir", "self_test", "cadence", "steps", "only", "skip", "budgets"),
        *("system", "title", "windows", "blackouts", "contacts", "checklist", "duties", "targets", "integrations", "roster"),
        *("postgresql", "redis"),
        *("force_window", "break_lock", "serial", "target", "failure_budget_percent", "become", "fail_on", "require_backup"),
        *("report_dir", "store_url", "performed_by", "waivers", "signed_by", "signature", "note"),
    )
)


@cache
def role_options() -> dict[str, dict[str, Any]]:
    """Return the options of every role, of all its entry points together, read from its argument spec."""
    specs: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        options = specs.setdefault(path.parent.parent.name, {})
        for entry_point in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            options.update(entry_point.get("options") or {})
    return specs


def placeholders(value: Any, where: str) -> Iterator[str]:
    """Yield a sentence for each text that is still a template's placeholder."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from placeholders(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from placeholders(item, f"{where}[{number}]")
    elif isinstance(value, str):
        found = _PLACEHOLDER.search(value)
        if found:
            yield f"{where} still holds the placeholder {found.group()!r}; put the real value there."


def relevant(names: Iterable[str]) -> list[str]:
    """Return the variables that belong to the collection: by the name or prefix of a role, or shared ones."""
    roles = role_options()
    prefixes = tuple(f"{role}_" for role in roles) + _OWN
    return sorted(name for name in names if name in roles or name.startswith(prefixes))


def unknown_options(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each variable that has a role's prefix but is no option of any role."""
    known = set(_SHARED).union(*(set(options) for options in role_options().values()))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it, or see the role's README."
            yield f"{name} is not an option of any role; {hint}"


def secrets(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for a password where results, and so job events, would show it."""
    if urlsplit(str(values.get("maintenance_store_url", ""))).password:
        yield "maintenance_store_url holds a password; keep it in a password file (PGPASSFILE) or in OPS_MAINTENANCE_STORE_URL."


def misfits(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each given value that its role's argument spec refuses."""
    for role, options in role_options().items():
        given = {name: values[name] for name in options if name in values}
        if not given:
            continue
        spec = {name: {**options[name], "required": False} for name in given}
        for message in ArgumentSpecValidator(spec).validate(given).error_messages:
            yield f"role {role}: {message}."


def problems(raw: Mapping[str, Any], templated: Mapping[str, Any]) -> list[str]:
    """Return every fault of a host's variables.

    :param raw: the variables as written, placeholders unresolved.
    :param templated: the same variables as the roles will see them.
    """
    names = relevant(raw)
    found = [fault for name in names for fault in placeholders(raw[name], name)]
    found += unknown_options(names)
    found += misfits({name: templated[name] for name in names if name in templated})
    found += secrets(templated)
    return list(dict.fromkeys(found))
