# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What maintenance mode did to each unit, job and page: one action for each, which the report of the run reads."""

from __future__ import annotations

import typing as t

from . import undo
from .record import Action

Plan = dict[str, t.Any]
States = t.Mapping[str, str]


def word(active: bool) -> str:
    """Say whether a unit runs."""
    return "active" if active else "stopped"


def states(services: t.Sequence[Plan]) -> dict[str, str]:
    """Return the state of each service at this moment."""
    return {service["name"]: word(undo.is_active(service)) for service in services}


def shown(unit: dict[str, t.Any], name: str) -> str:
    """Return a property of a unit, as systemd has it; empty when it does not tell."""
    told = undo.run(["systemctl", "show", "--property", name, "--value", "--", unit["name"]])
    return told.stdout.strip() if told.returncode == 0 else ""


def listed(names: t.Sequence[str]) -> str:
    """Name them all."""
    return ", ".join(names) if names else "nothing"


def due(plan: Plan) -> list[Action]:
    """Return what entering would stop."""
    before, after = {"state": "active"}, {"state": "stopped"}
    return [Action(unit["name"], "stop", "due", "would be stopped", before, after) for unit in reversed(_running(plan))]


def taken_out(plan: Plan, now: States, summary: str = "stopped for the maintenance") -> list[Action]:
    """Return what entering stopped, suspended and showed."""
    return _stopped(plan, now, summary) + _others(plan, "suspend", "show_page", "rests for the maintenance", "shown instead")


def stopped_again(plan: Plan, now: States) -> list[Action]:
    """Return what was stopped once more for a rollback."""
    return _stopped(plan, now, "stopped once more")


def given_up(plan: Plan) -> list[Action]:
    """Return what an entry had stopped when it failed."""
    summary = "maintenance mode was not entered"
    now = states([unit for unit in plan["services"] if unit["stopped"]])
    return [Action(name, "stop", "failed", summary, {"state": "active"}, {"state": state}) for name, state in now.items()]


def started(before: States, now: States, services: t.Sequence[Plan], summary: str = "started again") -> list[Action]:
    """Return what was started: the services that had run, and were stopped before."""
    names = [unit["name"] for unit in services if unit["was_active"] and before.get(unit["name"]) == "stopped"]
    return [
        Action(name, "start", "changed" if now[name] == "active" else "failed", summary, {"state": "stopped"}, {"state": now[name]})
        for name in names
    ]


def brought_back(before: States, now: States, last: Plan, summary: str = "started again") -> list[Action]:
    """Return what leaving started, resumed and took away."""
    others = _others(last, "resume", "remove_page", "works again as before", "taken away")
    return started(before, now, last["services"], summary) + others


def _stopped(plan: Plan, now: States, summary: str) -> list[Action]:
    names = [unit["name"] for unit in reversed(_running(plan))]
    return [Action(name, "stop", "changed", summary, {"state": "active"}, {"state": now[name]}) for name in names]


def _running(plan: Plan) -> list[Plan]:
    return [service for service in plan["services"] if service["was_active"]]


def _others(plan: Plan, job: str, page: str, rests: str, shown: str) -> list[Action]:
    names = [timer["name"] for timer in plan["timers"] if timer["stopped"]]
    names += [entry.get("path") or f"crontab of {entry['user']}" for entry in plan["cron"]]
    found = [Action(name, job, "changed", rests) for name in names]
    return found + [Action(path, page, "changed", f"the maintenance page was {shown}") for path in plan["page"].get("files", [])[:1]]
