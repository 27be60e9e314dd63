# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a host ready for an installation: wait for other tools, repair, make room, fetch, and remember what works now."""

from __future__ import annotations

import typing as t

from . import apt_lock, package_regression
from .errors import MaintenanceError, out_of_range, refuse
from .host import Host
from .judge import many
from .package_backends import BACKEND_OPTIONS, Backend, choose
from .record import Action, Finding, Outcome, status_of

OPTIONS: dict[str, t.Any] = {
    "install": {"type": "list", "elements": "str", "default": []},
    "remove": {"type": "list", "elements": "str", "default": []},
    "repair": {"type": "bool", "default": False},
    "download_only": {"type": "bool", "default": False},
    "lock_timeout_seconds": {"type": "int", "default": 300},
    **BACKEND_OPTIONS,
}


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    return out_of_range(params, ("lock_timeout_seconds",))


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Do what comes before an installation; with ``download_only`` nothing but fetch."""
    refuse(input_problems(params))
    backend = choose(params["backend"], host)(host, params["security_archives"])
    actions: list[Action] = []
    findings = [_wait(host, backend, params["lock_timeout_seconds"])]
    if not params["download_only"]:
        actions += backend.repair(check_mode) if params["repair"] else []
        actions += backend.remove(params["remove"], check_mode)
    if not actions:
        actions += backend.download(params["install"], check_mode, params["lock_timeout_seconds"])
    failed = [action.summary for action in actions if action.status == "failed"]
    baseline = {} if params["download_only"] else _baseline(host, findings)
    replan = any(action.operation != "download" for action in actions)
    return Outcome(
        subject="packages",
        operation="package_updates",
        status=status_of(actions, check_mode),
        summary="; ".join(failed[:3]) or (f"{many(len(actions), 'step')} before the installation" if actions else "ready to install"),
        findings=findings,
        actions=actions,
        returned={"baseline": baseline, "replan": replan and not check_mode},
    )


def _baseline(host: Host, findings: list[Finding]) -> package_regression.Baseline:
    """Remember what works now; where that cannot be seen, a regression will not be either, which is said."""
    try:
        return package_regression.remember(host)
    except (MaintenanceError, OSError) as error:
        findings.append(package_regression.unseen(str(error)))
        return {}


def _wait(host: Host, backend: Backend, timeout: float) -> Finding:
    finding = apt_lock.lock_finding(apt_lock.wait(host, timeout, backend.holder))
    if finding.state == "ok":
        return finding
    outcome = Outcome("packages", "package_updates", "failed", finding.summary, findings=[finding])
    raise MaintenanceError(f"Nothing was changed. {finding.summary} {finding.advice}", outcome)
