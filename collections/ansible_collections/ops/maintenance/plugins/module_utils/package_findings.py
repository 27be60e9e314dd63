# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said about pending updates: how many, how old the lists are, what is held and what cannot be installed."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

from .apt_packages import Pending, Update
from .judge import many
from .package_deadlines import Deadlines
from .package_plan import Plan
from .record import Finding, Metric


def pending_finding(pending: Pending, fresh: bool, left: t.Mapping[str, str] | None = None) -> Finding:
    """Judge how many security updates are pending.

    :param fresh: the lists were refreshed just now, or are young enough to be believed when they name no update.
    :param left: why updates in scope are not installed, by name.
    """
    security = pending.security
    as_of = pending.lists_as_of.isoformat() if pending.lists_as_of else ""
    blind = pending.blind() or ("the lists could not be refreshed and may be old" if not fresh and not security else "")
    common: dict[str, t.Any] = {
        "id": "patching.pending",
        "subject": "packages",
        "threshold": "warning from 1 security update",
        "basis": "exact" if fresh else "stale",
        "as_of": "" if fresh else as_of,
    }
    if blind:
        return Finding(
            state="unknown",
            summary=f"Pending security updates are not known: {blind}.",
            advice="Make the archives reachable, configure one that carries security updates, and run again.",
            **common,
        )
    if not security:
        return Finding(
            state="ok",
            summary=f"No security update is pending; {len(pending.updates)} other updates are.",
            value=0,
            unit="count",
            **common,
        )
    return Finding(
        state="warning",
        summary=f"{many(len(security), 'security update')} pending, of {many(len(pending.updates), 'update')} in all.",
        value=len(security),
        unit="count",
        advice="Install them in the next window; the plan of this run names each version.",
        evidence=[_line(update, left or {}) for update in security],
        **common,
    )


def _line(update: Update, reasons: t.Mapping[str, str]) -> str:
    why = "held" if update.held else reasons.get(update.name, "")
    return f"{update.name} {update.installed} -> {update.security_version}" + (f" ({why})" if why else "")


def refresh_finding(pending: Pending, problem: str, now: datetime, params: t.Mapping[str, t.Any]) -> Finding:
    """Judge whether the package lists can be believed."""
    age = now - pending.lists_as_of if pending.lists_as_of else None
    days = params["stale_after_days"]
    common: dict[str, t.Any] = {"id": "patching.refresh", "subject": "package lists"}
    if problem:
        return Finding(
            state="unknown",
            summary=f"The package lists could not be refreshed: {problem}",
            advice="Repair the archive or its configuration; until then an update can be missed.",
            basis="stale",
            as_of=pending.lists_as_of.isoformat() if pending.lists_as_of else "",
            **common,
        )
    if params["refresh"]:
        return Finding(state="ok", summary="The package lists were refreshed.", **common)
    if age is None or age > timedelta(days=days):
        shown = "there are none" if age is None else f"they are {age.days} days old"
        return Finding(
            state="unknown",
            summary=f"The package lists were not refreshed and {shown}.",
            threshold=f"unknown from {days} days",
            advice="Let the run refresh them (refresh) or refresh them regularly on the host.",
            **common,
        )
    return Finding(state="ok", summary=f"The package lists are {age.days} days old.", value=age.days, unit="days", **common)


def held_finding(plan: Plan, pending: Pending) -> Finding:
    """Judge which security updates a hold, the blocklist or a pin keeps away."""
    kept = [update for update in pending.security if update.name in plan.held or update.held]
    if kept:
        return Finding(
            "patching.held",
            "warning",
            "packages",
            f"{many(len(kept), 'pending security update is', 'pending security updates are')} held.",
            len(kept),
            "count",
            "warning from 1 held security update",
            advice="Release it (apt-mark unhold, or patching_hold, patching_blocklist, patching_pins) once its reason is gone.",
            evidence=[_line(update, plan.reasons) for update in kept],
        )
    summary = f"No hold keeps a security update away; {many(len(pending.held), 'package')} held."
    return Finding("patching.held", "ok", "packages", summary, 0, "count", evidence=pending.held[:20])


def blocked_finding(plan: Plan, pending: Pending) -> Finding:
    """Judge what cannot be installed, and say what is not yet its turn."""
    blocked = plan.blocked or {}
    waiting = [f"{name}: {why}" for name, why in plan.waiting.items()]
    if blocked:
        return Finding(
            "patching.blocked",
            "warning",
            "packages",
            f"{many(len(blocked), 'update')} in scope cannot be installed as things are.",
            len(blocked),
            "count",
            advice="Look at what they conflict with: apt-get --just-print install NAME=VERSION.",
            evidence=[f"{name}: {why}" for name, why in blocked.items()] + waiting,
        )
    if pending.problem:
        return Finding(
            "patching.blocked",
            "unknown",
            "packages",
            f"The package manager could not say what it would install: {pending.problem}",
            advice="Repair the package database (dpkg --audit, apt-get --fix-broken install), then run again.",
        )
    said = f"Everything in scope can be installed; {len(waiting)} not yet." if waiting else "Everything in scope can be installed."
    return Finding("patching.blocked", "ok", "packages", said, 0, "count", evidence=waiting)


def metrics_of(pending: Pending, deadlines: Deadlines | None = None) -> list[Metric]:
    """Return the numbers worth comparing between runs; none where nothing could be known."""
    if pending.blind():
        return []
    return [
        Metric("patching.pending_security", "packages", len(pending.security), "count"),
        Metric("patching.pending", "packages", len(pending.updates), "count"),
        Metric("patching.held", "packages", len(pending.held), "count"),
        *([Metric("patching.overdue", "packages", len(deadlines.overdue), "count")] if deadlines and not deadlines.problem else []),
    ]
