# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refresh the lists, find what is pending, plan what the scope asks for and judge it. Installs nothing."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import asdict, dataclass

from . import (
    apt_lock,
    apt_packages,
    package_checks,
    package_deadlines,
    package_findings,
    package_plan,
    package_state,
    package_urgency,
)
from .apt_packages import Pending, Update
from .errors import out_of_range, refuse
from .host import Host
from .judge import many
from .package_backends import BACKEND_OPTIONS, BACKENDS, Backend, choose
from .package_checks import Checks
from .package_deadlines import Deadlines
from .package_plan import Plan, Rules, make_plan
from .package_state import State
from .record import Action, Finding, Outcome, status_of

OPTIONS: dict[str, t.Any] = {
    **package_plan.OPTIONS,
    **package_deadlines.OPTIONS,
    **package_checks.OPTIONS,
    "refresh": {"type": "bool", "default": True},
    "stale_after_days": {"type": "int", "default": 2},
    "lock_timeout_seconds": {"type": "int", "default": 300},
    **BACKEND_OPTIONS,
    **package_state.OPTIONS,
}
SAMPLE = Update("sample", "1", "2", (), "2")
ACTIONS_LIMIT = 100
"""A record stays small: what is planned beyond this number is one action that counts the rest."""


def plan_actions(plan: Plan, status: str) -> list[Action]:
    """Return one action for each planned package, the many beyond the limit in one."""
    items = [*plan.wanted, *plan.pulled]
    actions = [
        Action(
            item.name,
            "upgrade" if item.installed else "install",
            status,
            f"{item.name} {item.installed or 'new'} -> {item.version}" + (" (dependency)" if item.dependency else ""),
            {"version": item.installed},
            {"version": item.version, "security": item.security},
        )
        for item in items[:ACTIONS_LIMIT]
    ]
    if len(items) > ACTIONS_LIMIT:
        left = len(items) - ACTIONS_LIMIT
        actions.append(Action("packages", "upgrade", status, f"{many(left, 'more package')}", {}, {"packages": left}))
    return actions


def self_test_problem() -> str:
    """Feed the classifier a planted sample: a security update, and a package that only sounds like one."""
    archives = apt_packages.parse_archives(
        " 500 http://a s/main amd64 Packages\n     release a=x-security,n=x,l=Acme\n"
        " 500 http://a o/main amd64 Packages\n     release a=x,n=x,l=Acme\n"
    )
    text = "".join(
        f"{name}:\n  Installed: 1\n  Candidate: 2\n  Version table:\n     2 500\n        500 {source}\n *** 1 100\n"
        for name, source in (("bad", "http://a s/main amd64 Packages"), ("security", "http://a o/main amd64 Packages"))
    )
    found = [apt_packages.update_of(p, held=False) for p in apt_packages.parse_policy(text, archives).values()]
    seen = {update.name for update in found if update and update.is_security}
    return "" if seen == {"bad"} else "the planted security update was not told from an ordinary one"


def untrusted(findings: t.Iterable[Finding], problem: str) -> list[Finding]:
    """Turn findings of a verifier that failed its own test into unknown ones."""
    return [Finding(f.id, "unknown", f.subject, f"Not trusted: {problem}.", advice="Report this as a defect.") for f in findings]


def check_params(params: t.Mapping[str, t.Any]) -> None:
    """Refuse values that make no sense, all at once, before anything is read or changed.

    :raises InputError: says which.
    """
    refuse(input_problems(params))


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("stale_after_days", "lock_timeout_seconds", "minimum_seconds"))
    checked = (package_plan, package_deadlines, package_checks)
    return problems + [problem for part in checked for problem in part.input_problems(params)]


@dataclass(frozen=True)
class Seen:
    """Everything that was seen of a host, before it is said."""

    pending: Pending
    plan: Plan
    deadlines: Deadlines
    refresh: Finding
    state: State
    checks: Checks
    backend: str
    late: bool
    postponed: t.Mapping[str, str]

    @property
    def obstacle(self) -> str:
        """Say why nothing of the plan is begun, empty when it is."""
        return "the window closes before" if self.late else self.checks.obstacle


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Refresh the lists, find what is pending, plan what the scope asks for, look at the host. Installs nothing."""
    check_params(params)
    with contextlib.ExitStack() as stack:
        backend = choose(params["backend"], host)(host, params["security_archives"])
        if check_mode and params["refresh"]:
            stack.enter_context(backend.private())
        refreshes = params["refresh"] and not check_mode
        lock = [_await_lock(host, backend, params["lock_timeout_seconds"])] if refreshes else []
        problem = backend.refresh(params["lock_timeout_seconds"]) if params["refresh"] else ""
        packages = backend.installed()
        pending = backend.pending(packages)
        lists = getattr(backend, "lists", apt_packages.OWN_LISTS)
        deadlines = package_urgency.deadlines(params, pending, host, check_mode, lists.folder)
        postponed = deadlines.postponed(pending.updates, params["minimum_severity"], params["overdue_only"])
        plan = make_plan(pending, params, backend, postponed)
        rules = Rules.of(params, pending.held)
        checks = backend.checks(params, packages, plan, rules)
    refresh = package_findings.refresh_finding(pending, problem, host.now(), params)
    state = package_state.look(host, packages)
    late = package_state.no_time(params, host)
    checks.findings.extend(lock)
    seen = Seen(pending, plan, deadlines, refresh, state, checks, backend.name, late, postponed)
    return _outcome(params, seen, host)


def _await_lock(host: Host, backend: Backend, timeout: float) -> Finding:
    try:
        return apt_lock.lock_finding(apt_lock.wait(host, timeout, backend.holder))
    except PermissionError as error:
        return apt_lock.unseen(str(error))


def _findings(params: t.Mapping[str, t.Any], seen: Seen, host: Host) -> list[Finding]:
    fresh = seen.refresh.state == "ok"
    findings = [
        seen.refresh,
        package_findings.pending_finding(seen.pending, fresh, seen.plan.left),
        package_deadlines.overdue_finding(seen.deadlines, seen.pending, fresh, host.now()),
        package_findings.held_finding(seen.plan, seen.pending),
        package_findings.blocked_finding(seen.plan, seen.pending),
        *seen.deadlines.unkept,
    ]
    problem = params["self_test"] and (self_test_problem() or package_deadlines.self_test_problem(SAMPLE, host.now()))
    return untrusted(findings, problem) if problem else findings


def _outcome(params: t.Mapping[str, t.Any], seen: Seen, host: Host) -> Outcome:
    plan, late, waits = seen.plan, seen.late or params["scope"] == "none", bool(seen.obstacle)
    restarts = package_state.choose_restarts(seen.state.stale, params["restart"], params["restart_exclude"])
    actions = [] if late else list(seen.checks.actions)
    actions += plan_actions(plan, "deferred" if waits else "due")
    actions += [] if late else package_state.restart_actions(restarts)
    actions += package_state.reboot_action(seen.state, params["reboot_allowed"] and params["scope"] != "none", late)
    items = [] if waits else [*plan.wanted, *plan.pulled]
    return Outcome(
        subject="packages",
        operation="package_updates",
        status=status_of(actions, check_mode=True),
        summary=_summary(seen, params["scope"]),
        before={item.name: item.installed for item in items[:ACTIONS_LIMIT]},
        after={item.name: item.version for item in items[:ACTIONS_LIMIT]},
        findings=_findings(params, seen, host) + seen.checks.findings + seen.state.findings(params["reboot_allowed"]),
        metrics=package_findings.metrics_of(seen.pending, seen.deadlines),
        actions=actions,
        returned={
            "plan": [asdict(item) for item in items],
            "install": [BACKENDS[seen.backend].spec(item.name, item.version) for item in items if not item.dependency],
            "left": plan.left,
            "elsewhere_due": [name for name in plan.waiting if name in params["elsewhere"] and name not in seen.postponed],
            "remove": [] if late else seen.checks.remove,
            "deferred": waits and bool(plan.wanted),
            "fresh": seen.refresh.state == "ok",
            "backend": seen.backend,
            "reboot": seen.state.reboot,
        },
    )


def _summary(seen: Seen, scope: str) -> str:
    plan = seen.plan
    if scope == "none":
        return f"{many(len(seen.pending.updates), 'update')} pending, and this run installs none"
    if not plan.wanted:
        said = f"nothing to install in scope {scope}"
        return said if seen.refresh.state == "ok" else f"{said}, but the lists are not fresh"
    verb = f"put off, as {seen.obstacle}" if seen.obstacle else "due"
    return f"{many(len(plan.wanted), 'update')} {verb} (scope {scope})"
