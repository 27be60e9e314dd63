# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check what the inventory says of a host before anything is changed: every fault at once, one sentence each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = Path(__file__).resolve().parents[2] / "roles"
_PLACEHOLDER = re.compile(
    r"\{\{\s*[A-Z][A-Z0-9_]+\s*\}\}|\byour-domain\.(?:com|org|net)\b|\bCHANGE_?ME\b|\[Contact Information\]|/path/to/", re.IGNORECASE
)
_UPPER_TEMPLATE = re.compile(r"\{\{\s*[A-Z][A-Z0-9_]+\s*\}\}")
_OWN = ("maintenance_", "cycle_")
_SHARED = frozenset(
    """maintenance_run_id maintenance_deadline maintenance_state_dir maintenance_self_test maintenance_system maintenance_title
    maintenance_windows maintenance_blackouts maintenance_contacts maintenance_checklist maintenance_duties maintenance_targets
    maintenance_budgets maintenance_steps maintenance_only maintenance_skip maintenance_force_window maintenance_break_lock
    maintenance_serial maintenance_target maintenance_failure_budget_percent maintenance_report_dir maintenance_store_url
    maintenance_performed_by maintenance_require_backup maintenance_integrations maintenance_roster maintenance_cadence
    maintenance_waivers maintenance_signed_by maintenance_signature maintenance_become maintenance_fail_on""".split()
)


@lru_cache(maxsize=None)
def role_options() -> dict[str, dict[str, Any]]:
    """Return the options of every role's main entry point, read from its argument spec."""
    specs = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        entry_points = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        specs[path.parent.parent.name] = entry_points.get("main", {}).get("options", {})
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
        if found and (not found.group().startswith("{{") or _UPPER_TEMPLATE.search(value)):
            yield f"{where} still holds the placeholder {found.group()!r}; put the real value there."


def relevant(names: Iterable[str]) -> list[str]:
    """Return the variables that belong to the collection: by the prefix of a role, or shared ones."""
    prefixes = tuple(f"{role}_" for role in role_options()) + _OWN
    return sorted(name for name in names if name.startswith(prefixes))


def unknown_options(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each variable that has a role's prefix but is no option of any role."""
    known = set(_SHARED).union(*(set(options) for options in role_options().values()))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it, or see the role's README."
            yield f"{name} is not an option of any role; {hint}"


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
    return list(dict.fromkeys(found))
