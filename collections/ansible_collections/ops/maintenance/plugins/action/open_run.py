# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from ansible import context
from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.entry import NO_JOURNAL
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils import control, durations, inventory_check, windows

_PLAN_TEXTS = {"title": "", "contacts": {}, "duties": [], "targets": {}, "budgets": {}}


class ActionModule(ActionBase):
    """Read the whole inventory once, before any host is touched: windows, faults, plan."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "cadence": {"type": "str", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
                "force_window": {"type": "str", "default": ""},
            }
        )
        hostvars = (task_vars or {})["hostvars"]
        now = datetime.now(timezone.utc)
        systems: dict[str, dict[str, Any]] = {}
        lines = []
        for name, members in by_system(hostvars, given["hosts"]).items():
            values = hostvars[members[0]]
            faults = [*_narrowed(), *_faults(hostvars, members)]
            try:
                window = windows.describe(values.get("maintenance_windows"), given["cadence"], values.get("maintenance_blackouts"))
                decision = windows.decide(window, now, given["force_window"])
            except MaintenanceError as error:
                faults.insert(0, str(error))
                window, decision = None, windows.Decision(False, "", None, None, ())
            faults += [*_shapes(values), *_no_steps(values, given["cadence"])]
            systems[name] = {"hosts": members, **_verdict(decision, faults)}
            if systems[name]["open"]:
                systems[name]["durations"] = self._durations(name, members, values, given["cadence"])
            lines.append(_plan(name, members, values, given, window, decision, faults))
        if not control.run_id():
            self._display.warning(NO_JOURNAL)
        result.update(
            changed=False,
            systems=systems,
            dead_runs=control.dead_runs(os.environ.get(control.JOURNAL, "")),
            run_id=control.run_id(),
            holder=control.holder(),
            maintenance_lines=lines,
            maintenance_settings=_settings(hostvars, given["hosts"]),
        )
        return result

    def _durations(self, system: str, hosts: list[str], values: Mapping[str, Any], cadence: str) -> dict[str, Any]:
        """Say what each step should take on each host; a store that does not answer leaves the time budgets."""
        steps = _steps_of(values, cadence)
        rows: list[dict[str, Any]] = []
        url = control.store_url(str(_safe(values, "maintenance_store_url", "")) or None)
        try:
            rows = durations.from_store(url, system, cadence) if url and steps else []
        except MaintenanceError as error:
            self._display.warning(f"The time budgets alone say what fits into the window. {error}")
        return durations.expected(hosts, steps, durations.budgets_of(_safe(values, "maintenance_budgets", {}), cadence), rows)


def _steps_of(values: Mapping[str, Any], cadence: str) -> Mapping[str, Any]:
    given = _safe(values, "maintenance_steps", inventory_check.role_options()["cycle"]["maintenance_steps"]["default"])
    return dict(given.get(cadence) or {})


def _narrowed() -> list[str]:
    """A transaction is whole or not at all: tags would leave parts of it out, or do nothing."""
    if not {*context.CLIARGS.get("tags", ())} - {"all"}:
        return []
    return ['Tags do not narrow maintenance; name the steps instead, for example -e \'{"maintenance_only": ["patching"]}\'.']


def _settings(hostvars: Any, hosts: list[str]) -> dict[str, str]:
    """Return where the inventory wants this run to be kept and reported; the journal callback needs it at the end."""
    values = hostvars[hosts[0]] if hosts else {}
    names = {"store_url": "maintenance_store_url", "report_dir": "maintenance_report_dir"}
    given = {key: str(_safe(values, name, "")) for key, name in names.items()}
    return {key: value for key, value in given.items() if value and not urlsplit(value).password}


def by_system(hostvars: Any, hosts: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for host in hosts:
        raw = hostvars.raw_get(host)
        groups = [group for group in raw.get("group_names", []) if group != "maintained"]
        found.setdefault(str(raw.get("maintenance_system") or (groups or ["ungrouped"])[0]), []).append(host)
    return found


def _faults(hostvars: Any, hosts: list[str]) -> list[str]:
    """Check each host, but each set of equal variables only once: a fleet shares its groups' variables."""
    seen: set[str] = set()
    found: list[str] = []
    for host in hosts:
        raw = hostvars.raw_get(host)
        names = inventory_check.relevant(raw)
        key = repr([(name, raw[name]) for name in names])
        if key in seen:
            continue
        seen.add(key)
        values, broken = _templated(hostvars[host], raw, names)
        prefix = "" if len(hosts) == 1 else f"{host}: "
        found += [prefix + fault for fault in [*inventory_check.problems({n: raw[n] for n in names}, values), *broken]]
    return list(dict.fromkeys(found))


def _templated(values: Mapping[str, Any], raw: Mapping[str, Any], names: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Work out the variables; what cannot be is told, unless a placeholder in it is told already."""
    found: dict[str, Any] = {}
    broken = []
    for name in names:
        try:
            found[name] = values[name]
        except Exception as error:  # the templating engine raises many kinds; each is a fault of the inventory
            if not any(inventory_check.placeholders(raw[name], name)):
                broken.append(f"{name} cannot be worked out: {str(error).rstrip('.')}.")
    return found, broken


def _verdict(decision: windows.Decision, faults: list[str]) -> dict[str, Any]:
    reason = decision.reason
    if faults:
        reason = f"The inventory has {len(faults)} fault{'s' * (len(faults) > 1)}: " + " ".join(faults)
    return {"open": decision.is_open and not faults, "reason": reason, "faults": faults, "deadline": decision.deadline}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _plan(
    name: str,
    hosts: list[str],
    values: Mapping[str, Any],
    given: Mapping[str, Any],
    window: windows.Window | None,
    decision: windows.Decision,
    faults: list[str],
) -> dict[str, Any]:
    cadence = given["cadence"]
    plan = {key: _shaped(values, key, default) for key, default in _PLAN_TEXTS.items()}
    return {
        "kind": "plan",
        "system": name,
        "hosts": hosts,
        **plan,
        "budgets": durations.budgets_of(plan["budgets"], cadence),
        "checklist": _of_cadence(_safe(values, "maintenance_checklist", []), cadence),
        "duties": _of_cadence(plan["duties"], cadence),
        "services": [item["name"] for item in _entries(_safe(values, "maintenance_mode_services", [])) if "name" in item],
        "window": {
            "start": _iso(decision.start),
            "end": _iso(decision.end),
            "timezone": str(window.zone) if window else "UTC",
            "rule": window.rule if window else "",
            "forced": bool(given["force_window"]) and decision.reason.startswith("window overridden"),
            "reason": decision.reason,
        },
        "next_windows": [moment.isoformat() for moment in decision.next_starts],
        "faults": faults,
    }


def _shaped(values: Mapping[str, Any], key: str, default: Any) -> Any:
    value = _safe(values, f"maintenance_{key}", default)
    return value if isinstance(value, type(default)) else default


def _shapes(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each variable of the plan, which no role's argument spec describes, that has the wrong shape."""
    for key, default in {**_PLAN_TEXTS, "checklist": []}.items():
        value = _safe(values, f"maintenance_{key}", default)
        fits = (
            len(_entries(value)) == len(value)
            if isinstance(default, list) and isinstance(value, list)
            else isinstance(value, type(default))
        )
        if not fits:
            expected = {list: "a list of mappings", dict: "a mapping", str: "a text"}[type(default)]
            yield f"maintenance_{key} is {str(value)[:80]!r}, expected {expected}; correct the inventory."


def _no_steps(values: Mapping[str, Any], cadence: str) -> Iterator[str]:
    """Yield a sentence where the inventory replaces the steps of all cadences and leaves this one out."""
    cadences = _safe(values, "maintenance_steps", {})
    if cadence in inventory_check.CADENCES and isinstance(cadences, Mapping) and cadences and cadence not in cadences:
        yield f"maintenance_steps has no {cadence}, which this run is; add its steps."


def _of_cadence(items: Any, cadence: str) -> list[Any]:
    return [item for item in _entries(items) if cadence in item.get("cadences", [cadence])]


def _entries(items: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of a list; anything else is already among the faults."""
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, (list, tuple)) else []


def _safe(values: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a variable for the plan; one that cannot be worked out is already among the faults."""
    try:
        return values.get(name) or default
    except Exception:  # see _templated
        return default
