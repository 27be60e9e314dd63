# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an update run did to the package database, what still runs old files, and whether a reboot is needed."""

from __future__ import annotations

import typing as t

from . import package_deadlines, package_findings, package_regression, package_state, package_updates, reboot_need
from .apt_downgrade import Item, Way
from .apt_packages import Installed
from .errors import MaintenanceError
from .host import Host
from .judge import many
from .package_backends import BACKEND_OPTIONS, Backend, choose
from .package_regression import Regression
from .package_state import State
from .reboot_need import REQUIRED
from .record import Action, Finding, Outcome, status_of

OPTIONS: dict[str, t.Any] = {
    "plan": {"type": "list", "elements": "dict", "default": []},
    "fresh": {"type": "bool"},
    "manager_output": {"type": "str", "default": ""},
    "boot_before": {"type": "str", "default": ""},
    "left": {"type": "dict", "default": {}},
    "baseline": {"type": "dict", "default": {}},
    "settle_seconds": {"type": "int", "default": 30},
    "downgrade": {"type": "bool", "default": False},
    **BACKEND_OPTIONS,
    **package_state.OPTIONS,
}


def reconcile(
    plan: t.Sequence[t.Mapping[str, t.Any]], packages: t.Mapping[str, Installed], check_mode: bool, message: str = ""
) -> list[Action]:
    """Compare each planned package with the package database.

    :param message: what the package manager said when it failed; lines that name a package become its reason.
    """
    actions = [_reconciled(item, packages.get(item["name"]), check_mode, message) for item in plan]
    kept = [action for action in actions if action.status == "failed"]
    others = [action for action in actions if action.status != "failed"]
    room = max(0, package_updates.ACTIONS_LIMIT - len(kept))
    if len(others) > room:
        more = Action("packages", "upgrade", others[-1].status, many(len(others) - room, "more package"))
        others = [*others[:room], more]
    return kept + others


def _reconcile(params: t.Mapping[str, t.Any], packages: t.Mapping[str, Installed], check_mode: bool) -> list[Action]:
    """Reconcile the plan; what was installed before a reboot has been counted, so afterwards only what is not there any more is told."""
    actions = reconcile(params["plan"], packages, check_mode, params["manager_output"])
    return [action for action in actions if action.status == "failed"] if params["boot_before"] else actions


def reason_for(name: str, message: str) -> str:
    """Find in the output of dpkg or dnf why a package failed: the script's last words, and what was made of them."""
    lines = [line.strip() for line in message.splitlines()]
    for number, line in enumerate(lines):
        if line.startswith((f"dpkg: error processing package {name} ", f"{name}: ")) or line.endswith(f" rpm package {name}"):
            return "; ".join(filter(None, lines[max(0, number - 1) : number + 2]))
    return ""


def _reconciled(item: t.Mapping[str, t.Any], package: Installed | None, check_mode: bool, message: str) -> Action:
    name, wanted = item["name"], item["version"]
    before, now = {"version": item["installed"]}, {"version": package.version if package else ""}
    operation = "upgrade" if item["installed"] else "install"
    if package and package.version == wanted and package.is_whole:
        return Action(name, operation, "changed", f"{name} {item['installed'] or 'new'} -> {wanted}", before, now)
    if check_mode:
        return Action(name, operation, "due", f"{name} is to become {wanted}", before, {"version": wanted})
    broken = package is not None and not package.is_whole
    why = (
        f"it is {package.status if package.flag == 'ok' else package.flag}"
        if package and broken
        else f"it is still {now['version'] or 'not installed'}"
    )
    said = reason_for(name, message)
    return Action(name, operation, "failed", f"{name} {wanted}: {why}" + (f" ({said})" if said else ""), before, now)


def restart_unit(host: Host, unit: str) -> Action:
    """Restart a unit and look whether it is active afterwards."""
    if unit == reboot_need.MANAGER:
        ran = host.run(["systemctl", "daemon-reexec"], timeout=90)
        state = "active" if ran.rc == 0 else "failed"
    else:
        ran = host.run(["systemctl", "restart", "--", unit], timeout=300)
        state = host.run(["systemctl", "is-active", "--", unit]).stdout.strip()
    done = ran.rc == 0 and state == "active"
    summary = f"{unit} was restarted" if done else f"{unit} is {state or 'unknown'} after its restart: {ran.why()}"
    before = {"files": "replaced"}
    return Action(unit, "restart", "changed" if done else "failed", summary, before, {"state": state})


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Reconcile, restart what may be restarted, and look at everything again."""
    backend = choose(params["backend"], host)(host, params["security_archives"])
    packages = backend.installed()
    actions = _reconcile(params, packages, check_mode)
    state = package_state.look(host, packages)
    due = package_state.choose_restarts(state.stale, params["restart"], params["restart_exclude"])
    if check_mode:
        actions += package_state.restart_actions(due)
    elif due:
        actions += [restart_unit(host, unit) for unit in due]
        state = package_state.look(host, packages)
    actions += _boot_actions(params["boot_before"], state.boot, check_mode)
    late = package_state.no_time(params, host)
    reboot_allowed = params["reboot_allowed"] and not params["boot_before"]
    actions += package_state.reboot_action(state, reboot_allowed, late)
    findings = _pending(params, check_mode, backend, packages) + state.findings(params["reboot_allowed"])
    worse = [] if check_mode or not params["baseline"] else _compare(params, host, backend, actions, findings)
    if not check_mode and params["fresh"] is not None:
        findings += package_deadlines.mark_window(params["state_dir"], host.now())
    return _outcome(actions, findings, check_mode, state, reboot_now=reboot_allowed and not late and not worse, worse=worse)


def _compare(
    params: t.Mapping[str, t.Any], host: Host, backend: Backend, actions: list[Action], findings: list[Finding]
) -> list[Regression]:
    """Compare with what worked before; where that is asked for, go back to the old versions and compare again."""
    found = package_regression.settle(host, params["baseline"], params["settle_seconds"])
    names = [item["name"] for item in params["plan"]]
    ways, unsought = _ways_back(backend, params["plan"]) if found else ([], "")
    suspected = package_regression.suspects(host, found, names, backend.owners)
    back = [way.spec for way in ways if way.spec and (way.name in suspected or not suspected)]
    rebooted = any((action.operation, action.status) == ("reboot", "changed") for action in actions)
    findings.append(package_regression.finding(found, names, suspected, back, backend.downgrade, unsought, rebooted))
    if found and params["downgrade"]:
        actions += _go_back(params, host, backend, ways, suspected, sorted({one.unit for one in found if one.unit}))
    return found


def _ways_back(backend: Backend, plan: t.Sequence[Item]) -> tuple[list[Way], str]:
    """Find the old versions, or say why they could not be looked for."""
    try:
        return backend.ways_back(plan), ""
    except MaintenanceError as error:
        return [], str(error)


def _go_back(
    params: t.Mapping[str, t.Any],
    host: Host,
    backend: Backend,
    ways: t.Sequence[Way],
    suspected: t.Collection[str],
    units: t.Sequence[str],
) -> list[Action]:
    """Install old versions again: of the likely cause first, so that other fixes stay, and of the rest when that does not help.

    Scripts of rpm packages restart a service only while it runs, so what does not run then is started.
    """
    actions: list[Action] = []
    for batch in ([way for way in ways if way.name in suspected], [way for way in ways if way.name not in suspected]):
        if any(way.spec for way in batch):
            actions += backend.go_back(batch)
            stopped = [unit for unit in units if host.run(["systemctl", "is-active", "--", unit]).rc != 0]
            actions += [restart_unit(host, unit) for unit in stopped]
            left = package_regression.settle(host, params["baseline"], params["settle_seconds"])
            words = f"{many(len(left), 'thing')} still worse: {left[0].said}" if left else "nothing is worse any more"
            actions.append(Action("host", "compare", "failed" if left else "changed", f"After going back to the old versions {words}."))
            if not left:
                break
    return actions


def _pending(params: t.Mapping[str, t.Any], check_mode: bool, backend: Backend, packages: t.Mapping[str, Installed]) -> list[Finding]:
    if check_mode or params["fresh"] is None:
        return []
    return [package_findings.pending_finding(backend.pending(packages), params["fresh"], params["left"])]


def _boot_actions(before: str, now: str, check_mode: bool) -> list[Action]:
    if not before or check_mode:
        return []
    if before == now:
        return [Action("host", "reboot", "failed", "The host was not rebooted: its boot id is the same.")]
    return [Action("host", "reboot", "changed", "The host was rebooted.", {"boot": before}, {"boot": now})]


def _outcome(
    actions: list[Action], findings: list[Finding], check_mode: bool, state: State, reboot_now: bool, worse: t.Sequence[Regression] = ()
) -> Outcome:
    failed = [action.summary for action in actions if action.status == "failed"]
    failed += [finding.summary for finding in findings if worse and finding.id == "patching.regression"]
    counts = {word: sum(a.status == word for a in actions) for word in ("changed", "due")}
    said = f"{counts['changed']} steps done and seen" + (f", {counts['due']} are due" if counts["due"] else "")
    return Outcome(
        subject="packages",
        operation="package_updates",
        status="failed" if worse else status_of(actions, check_mode),
        summary=f"{many(len(failed), 'step')} failed: {'; '.join(failed[:3])}" if failed else said,
        before={action.subject: action.before.get("version") for action in actions if "version" in action.before},
        after={action.subject: action.after.get("version") for action in actions if "version" in action.after},
        findings=findings,
        actions=actions,
        returned={
            "reboot": state.reboot,
            "reboot_now": reboot_now and state.reboot == REQUIRED,
            "reboot_reasons": [source.reason for source in state.sources if source.verdict == REQUIRED],
            "boot": state.boot,
            "services": sorted(state.stale.units),
            "leftovers": list(state.leftovers),
            "regressions": [one.said for one in worse],
        },
    )
