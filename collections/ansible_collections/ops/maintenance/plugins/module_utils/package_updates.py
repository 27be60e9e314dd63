# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which updates are pending, and which of them a run would install: the plan."""

from __future__ import annotations

import contextlib
import fnmatch
import typing as t
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from . import apt_packages, package_state
from .apt_packages import Pending, Update
from .errors import out_of_range, refuse
from .host import Host
from .judge import many
from .package_backends import BACKEND_OPTIONS, BACKENDS, Backend, choose
from .package_state import State
from .record import Action, Finding, Metric, Outcome, status_of

OPTIONS: dict[str, t.Any] = {
    "scope": {"type": "str", "choices": ["security", "all", "listed"], "default": "security"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "hold": {"type": "list", "elements": "str", "default": []},
    "refresh": {"type": "bool", "default": True},
    "stale_after_days": {"type": "int", "default": 2},
    "lock_timeout_seconds": {"type": "int", "default": 300},
    **BACKEND_OPTIONS,
    **package_state.OPTIONS,
}
ACTIONS_LIMIT = 100
"""A record stays small: what is planned beyond this number is one action that counts the rest."""


@dataclass(frozen=True)
class Planned:
    """One package that the run would bring to a version; ``installed`` is empty for a new dependency."""

    name: str
    installed: str
    version: str
    security: bool
    archives: tuple[str, ...]
    dependency: bool = False

    @property
    def spec(self) -> str:
        """Return the package and its exact version as apt takes it."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Plan:
    """What would be installed, what else that needs, and what was left out and why."""

    wanted: tuple[Planned, ...] = ()
    pulled: tuple[Planned, ...] = ()
    held: tuple[str, ...] = ()
    blocked: t.Mapping[str, str] | None = None


def is_held(update: Update, patterns: t.Sequence[str]) -> bool:
    """Whether the package database or the inventory holds a package."""
    return update.held or held_by(update.name, patterns)


def held_by(name: str, patterns: t.Sequence[str]) -> bool:
    """Whether the inventory's hold patterns name a package."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def select(updates: t.Iterable[Update], scope: str, packages: t.Sequence[str]) -> list[Planned]:
    """Choose what the scope asks for, in the version that it asks for.

    Within ``security`` a package goes to the newest version that a security archive carries, not beyond.
    """
    chosen = []
    for update in updates:
        if scope == "security" and not update.is_security:
            continue
        if scope == "listed" and update.name not in packages:
            continue
        version = update.security_version if scope == "security" else update.candidate
        chosen.append(Planned(update.name, update.installed, version, update.is_security, update.archives))
    return chosen


def make_plan(pending: Pending, params: t.Mapping[str, t.Any], backend: Backend) -> Plan:
    """Plan what the package manager itself says it can install together, removing nothing and touching no hold."""
    hold = params["hold"]
    in_scope = select(pending.updates, params["scope"], params["packages"])
    by_name = {update.name: update for update in pending.updates}
    free = [item for item in in_scope if not is_held(by_name[item.name], hold)]
    blocked: dict[str, str] = {}
    wanted = _installable(free, hold, backend, blocked)
    pulled = _pulled(wanted, backend, blocked)
    if blocked and wanted and _refusal(wanted, hold, backend):
        blocked.update({item.name: "cannot be installed together with the others" for item in wanted})
        wanted, pulled = [], []
    held = tuple(item.name for item in in_scope if is_held(by_name[item.name], hold))
    return Plan(tuple(wanted), tuple(pulled), held, blocked)


def _installable(items: list[Planned], hold: t.Sequence[str], backend: Backend, blocked: dict[str, str]) -> list[Planned]:
    """Keep what can be installed; what cannot is found by halves and named with the reason."""
    if not items:
        return []
    refusal = _refusal(items, hold, backend)
    if not refusal:
        return items
    if len(items) == 1:
        blocked[items[0].name] = refusal
        return []
    middle = len(items) // 2
    halves = items[:middle], items[middle:]
    return [kept for half in halves for kept in _installable(half, hold, backend, blocked)]


def _refusal(items: t.Sequence[Planned], hold: t.Sequence[str], backend: Backend) -> str:
    rehearsed = backend.rehearse([item.spec for item in items])
    if rehearsed.problem:
        return rehearsed.problem
    removed = rehearsed.of("Remv", "Purg")
    if removed:
        return f"would remove {', '.join(step.name for step in removed)}"
    named = {item.name for item in items}
    caught = [s.name for s in rehearsed.of("Inst") if s.name not in named and s.installed and held_by(s.name, hold)]
    return f"needs the held {', '.join(caught)}" if caught else ""


def _pulled(wanted: t.Sequence[Planned], backend: Backend, blocked: t.Mapping[str, str]) -> list[Planned]:
    if not wanted:
        return []
    named = {item.name for item in wanted}
    return [
        Planned(step.name, step.installed, step.version, False, step.archives, dependency=True)
        for step in backend.rehearse([item.spec for item in wanted]).of("Inst")
        if step.name not in named and step.name not in blocked
    ]


def pending_finding(pending: Pending, fresh: bool) -> Finding:
    """Judge how many security updates are pending.

    :param fresh: the lists were refreshed just now, or are young enough to be believed when they name no update.
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
        evidence=[f"{u.name} {u.installed} -> {u.security_version}" + (" (held)" if u.held else "") for u in security],
        **common,
    )


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


def _held_finding(plan: Plan, pending: Pending) -> Finding:
    held_security = [update for update in pending.security if update.name in plan.held or update.held]
    if held_security:
        return Finding(
            "patching.held",
            "warning",
            "packages",
            f"{len(held_security)} pending security updates are held.",
            len(held_security),
            "count",
            "warning from 1 held security update",
            advice="Release the hold (apt-mark unhold, or patching_hold in the inventory) once its reason is gone.",
            evidence=[f"{update.name} {update.installed} -> {update.security_version}" for update in held_security],
        )
    summary = f"No hold keeps a security update away; {many(len(pending.held), 'package')} held."
    return Finding("patching.held", "ok", "packages", summary, 0, "count", evidence=pending.held[:20])


def _blocked_finding(plan: Plan, pending: Pending) -> Finding:
    blocked = plan.blocked or {}
    if blocked:
        return Finding(
            "patching.blocked",
            "warning",
            "packages",
            f"{many(len(blocked), 'update')} in scope cannot be installed as things are.",
            len(blocked),
            "count",
            advice="Look at what they conflict with: apt-get --just-print install NAME=VERSION.",
            evidence=[f"{name}: {why}" for name, why in blocked.items()],
        )
    if pending.problem:
        return Finding(
            "patching.blocked",
            "unknown",
            "packages",
            f"The package manager could not say what it would install: {pending.problem}",
            advice="Repair the package database (dpkg --audit, apt-get --fix-broken install), then run again.",
        )
    return Finding("patching.blocked", "ok", "packages", "Everything in scope can be installed.", 0, "count")


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


def metrics_of(pending: Pending) -> list[Metric]:
    """Return the numbers worth comparing between runs; none where nothing could be known."""
    if pending.blind():
        return []
    return [
        Metric("patching.pending_security", "packages", len(pending.security), "count"),
        Metric("patching.pending", "packages", len(pending.updates), "count"),
        Metric("patching.held", "packages", len(pending.held), "count"),
    ]


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
    if params["scope"] == "listed" and not params["packages"]:
        problems.append("scope is 'listed', but packages names none; name them or choose another scope.")
    for option in ("packages", "hold"):
        bad = [name for name in params[option] if not name or name.startswith("-") or any(c.isspace() for c in name)]
        problems += [f"{option} has {name!r}, expected a package name; correct it." for name in bad]
    return problems


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Refresh the lists, find what is pending, plan what the scope asks for, look at the host. Installs nothing."""
    check_params(params)
    with contextlib.ExitStack() as stack:
        backend = choose(params["backend"], host)(host, params["security_archives"])
        if check_mode and params["refresh"]:
            stack.enter_context(backend.private())
        problem = backend.refresh(params["lock_timeout_seconds"]) if params["refresh"] else ""
        packages = backend.installed()
        pending = backend.pending(packages)
        plan = make_plan(pending, params, backend)
    refresh = refresh_finding(pending, problem, host.now(), params)
    state = package_state.look(host, packages)
    return _outcome(params, pending, plan, refresh, state, package_state.no_time(params, host), backend.name)


def _outcome(
    params: t.Mapping[str, t.Any], pending: Pending, plan: Plan, refresh: Finding, state: State, late: bool, backend: str
) -> Outcome:
    fresh = refresh.state == "ok"
    findings = [refresh, pending_finding(pending, fresh), _held_finding(plan, pending), _blocked_finding(plan, pending)]
    if params["self_test"] and self_test_problem():
        findings = untrusted(findings, self_test_problem())
    restarts = package_state.choose_restarts(state.stale, params["restart"], params["restart_exclude"])
    actions = plan_actions(plan, "deferred" if late else "due")
    actions += [] if late else package_state.restart_actions(restarts)
    actions += package_state.reboot_action(state, params["reboot_allowed"], late)
    items = [] if late else [*plan.wanted, *plan.pulled]
    return Outcome(
        subject="packages",
        operation="package_updates",
        status=status_of(actions, check_mode=True),
        summary=_summary(plan, late, params["scope"], refresh),
        before={item.name: item.installed for item in items[:ACTIONS_LIMIT]},
        after={item.name: item.version for item in items[:ACTIONS_LIMIT]},
        findings=findings + state.findings(params["reboot_allowed"]),
        metrics=metrics_of(pending),
        actions=actions,
        returned={
            "plan": [asdict(item) for item in items],
            "install": [BACKENDS[backend].spec(item.name, item.version) for item in items if not item.dependency],
            "deferred": late and bool(plan.wanted),
            "fresh": fresh,
            "backend": backend,
            "reboot": state.reboot,
        },
    )


def _summary(plan: Plan, late: bool, scope: str, refresh: Finding) -> str:
    if not plan.wanted:
        said = f"nothing to install in scope {scope}"
        return said if refresh.state == "ok" else f"{said}, but the lists are not fresh"
    verb = "put off, as the window closes before" if late else "due"
    return f"{many(len(plan.wanted), 'update')} {verb} (scope {scope})"
