# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check what the inventory says of a host before anything is changed: every fault at once, one sentence each."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import role_inputs

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLES = Path(__file__).resolve().parents[2] / "roles"
# Upper case sets a template's placeholder apart from an ordinary expression such as {{ app_port }}.
_PLACEHOLDER = re.compile(
    r"\{\{\s*[A-Z][A-Z0-9_]+\s*\}\}|(?i:\byour-domain\.(?:com|org|net)\b|\bCHANGE_?ME\b|\[Contact Information\]|(?<![\w.])/path/to/)"
)
_OWN = ("maintenance_", "cycle_")
_SHARED_DEFAULT = re.compile(r"\{\{ (maintenance_\w+) \| default\(\[\]\) \}\}")
CADENCES = ("daily", "weekly", "monthly", "quarterly")
STAGES = ("before", "offline", "after")
_SHARED = frozenset(
    f"maintenance_{name}"
    for name in (
        *("run_id", "deadline", "state_dir", "self_test", "cadence", "steps", "only", "skip", "budgets"),
        *("system", "title", "windows", "blackouts", "contacts", "checklist", "duties", "targets", "integrations", "roster"),
        *("postgresql", "redis"),
        *("force_window", "break_lock", "serial", "target", "failure_budget_percent", "become", "fail_on", "require_backup"),
        *("report_dir", "store_url", "performed_by", "waivers", "signed_by", "signature", "note", "evidence", "gate"),
    )
)


@cache
def role_options() -> dict[str, dict[str, Any]]:
    """Return the options of every role, of all its entry points together, read from its argument spec."""
    specs: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        options = specs.setdefault(path.parent.parent.name, {})
        for entry_point in yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)["argument_specs"].values():  # noqa: S506 - safe, in C
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
    """Yield a sentence for each given value that its role's argument spec, or a module that gets it, refuses."""
    for role in role_options():
        yield from role_misfits(role, values)


def role_misfits(role: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each given value of one role's options that the role could not use."""
    options = role_options()[role]
    values = {**dict(_handed_over(options, values)), **values}
    fitting = {}
    for name in (name for name in options if name in values):
        spec = {name: {**options[name], "required": False}}
        messages = [f"role {role}: {text}." for text in ArgumentSpecValidator(spec).validate({name: values[name]}).error_messages]
        found = messages or list(_no_lists(options[name], values[name], name))
        yield from found
        if not found:
            fitting[name] = values[name]
    if fitting:
        yield from role_inputs.problems(role, options, fitting)


def _handed_over(options: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what options get from a shared variable by their defaults, such as the servers that several roles work on."""
    for name, option in options.items():
        shared = _SHARED_DEFAULT.fullmatch(str(option.get("default", "")))
        if shared and shared.group(1) in values:
            yield name, values[shared.group(1)]


def _no_lists(option: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
    """Yield a sentence for each number where a list is expected; Ansible would take it for a list of one text."""
    if option["type"] == "list" and isinstance(value, (int, float)):
        yield f"{where} is {value!r}, expected a list; make it one."
    items = value if isinstance(value, (list, tuple)) else [value]
    for item in (item for item in items if isinstance(item, Mapping)):
        for name, inner in (option.get("options") or {}).items():
            if name in item:
                yield from _no_lists(inner, item[name], f"{where}.{name}")


def step_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each step of a cadence that is none, and for each name to narrow by that no cadence has."""
    cadences = values.get("maintenance_steps", role_options()["cycle"]["maintenance_steps"]["default"])
    if not isinstance(cadences, Mapping) or not all(isinstance(stages, Mapping) for stages in cadences.values()):
        yield f"maintenance_steps is {str(cadences)[:80]!r}, expected steps by cadence and stage; see the README of the role cycle."
        return
    for cadence, stages in cadences.items():
        if cadence not in CADENCES:
            yield f"maintenance_steps names the cadence {cadence}, expected some of {', '.join(CADENCES)}; correct it."
        for stage, names in stages.items():
            yield from _stage_faults(f"maintenance_steps.{cadence}.{stage}", stage, names)
    known = {str(name) for stages in cadences.values() for names in stages.values() if isinstance(names, list) for name in names}
    for option in ("maintenance_only", "maintenance_skip"):
        names = values.get(option) or []
        for name in names if isinstance(names, (list, tuple)) else []:
            if name not in known and name not in role_options():  # a role that no cadence has may be left out all the same
                yield f"{option} names {name}, which is no step of any cadence; expected some of {', '.join(sorted(known))}."


def _stage_faults(where: str, stage: str, names: Any) -> Iterator[str]:
    if stage not in STAGES:
        yield f"{where} is no stage, expected some of {', '.join(STAGES)}; correct it."
        return
    if not isinstance(names, (list, tuple, type(None))):
        yield f"{where} is {names!r}, expected a list of steps; make it one."
        return
    part = "assess" if stage == "offline" else "main"
    known = sorted(path.parents[1].name for path in ROLES.glob(f"*/tasks/{part}.yml"))
    for name in names or []:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(known)}."
            yield f"{where} names {name}, which is no step of this stage; {hint}"


def budget_faults(budgets: Any) -> Iterator[str]:
    """Yield a sentence for each time budget that is none."""
    for name, seconds in budgets.items() if isinstance(budgets, Mapping) else ():
        if name in CADENCES and isinstance(seconds, Mapping):
            yield from (fault.replace("budgets.", f"budgets.{name}.", 1) for fault in budget_faults(seconds))
        elif isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
            yield f"maintenance_budgets.{name} is {seconds!r}, expected a number of seconds above 0; correct it."


def problems(raw: Mapping[str, Any], templated: Mapping[str, Any]) -> list[str]:
    """Return every fault of a host's variables.

    :param raw: the variables as written, placeholders unresolved.
    :param templated: the same variables as the roles will see them.
    """
    names = relevant(raw)
    found = [fault for name in names for fault in placeholders(raw[name], name)]
    found += unknown_options(names)
    known = {name: templated[name] for name in names if name in templated}
    found += misfits(known)
    found += step_faults(known)
    found += budget_faults(known.get("maintenance_budgets"))
    found += secrets(templated)
    return list(dict.fromkeys(found))
