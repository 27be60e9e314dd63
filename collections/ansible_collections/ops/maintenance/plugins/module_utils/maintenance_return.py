# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a host back: start its services, prove that they work, release what was held."""

from __future__ import annotations

import os
import time
import typing as t

from . import deadman, maintenance_actions, undo
from .host import Host
from .http_probe import fetch
from .judge import human_seconds
from .maintenance_actions import listed, shown
from .record import Finding, Metric, Outcome


def serve(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Start the services again and prove that they stay up and answer; the page and the suspended jobs stay as they are."""
    state = undo.load(params["state_dir"])
    if check_mode or state.get("run_id") != params["run_id"]:
        return Outcome("host", "serve", "ok", "nothing was stopped")
    if params["reboot_expected"]:
        undo.save(params["state_dir"], {**state, "reboot_expected": True})
        return Outcome("host", "serve", "ok", "the next start of this host is expected")
    stopped = [service for service in state["services"] if service["was_active"] and service["stopped"]]
    before = maintenance_actions.states(stopped)
    problems = undo.start_services(state) or _not_steady(params, stopped, host) or _not_ready(params, host)
    findings = [_service_finding(service["name"], problems) for service in stopped]
    actions = maintenance_actions.started(before, maintenance_actions.states(stopped), stopped)
    if problems:
        return Outcome("host", "serve", "failed", "; ".join(problems), findings=findings, actions=actions)
    state["phase"], state["serving_at"] = "serving", host.now().timestamp()
    undo.save(params["state_dir"], state)
    names = [service["name"] for service in stopped]
    return Outcome("host", "serve", "changed", f"started {listed(names)}", findings=findings, actions=actions)


def _not_steady(params: dict[str, t.Any], services: t.Sequence[dict[str, t.Any]], host: Host) -> list[str]:
    """A service that systemd has to restart again and again looks active at any one moment."""
    before = [_restarts(service) for service in services]
    host.sleep(params["settle_seconds"])
    return [
        f"{service['name']} does not stay up ({_restarts(service) - count} restarts in {params['settle_seconds']:g} s)"
        for service, count in zip(services, before)
        if not undo.is_active(service) or _restarts(service) != count
    ]


def _restarts(service: dict[str, t.Any]) -> int:
    if service.get("manager", "systemd") != "systemd":
        return 0
    restarts = shown(service, "NRestarts")
    return int(restarts) if restarts.isdigit() else 0


def _not_ready(params: dict[str, t.Any], host: Host) -> list[str]:
    until = time.monotonic() + params["ready_timeout_seconds"]
    problems = []
    for endpoint in params["ready"]:
        answer = fetch(endpoint["url"], timeout=5)
        while answer.status not in endpoint["status"] and time.monotonic() < until:
            host.sleep(0.5)
            answer = fetch(endpoint["url"], timeout=5)
        if answer.status not in endpoint["status"]:
            problems.append(f"{endpoint['url']} did not become ready within {params['ready_timeout_seconds']} s: {answer.told()}")
    return problems


def _service_finding(name: str, problems: t.Sequence[str]) -> Finding:
    mine = [problem for problem in problems if problem.startswith(name)]
    summary = mine[0] + "." if mine else f"{name} was started, but the application is not ready." if problems else f"{name} runs again."
    evidence: list[str] = []
    if problems:
        logged = undo.run(["journalctl", "--unit", name, "--lines", "20", "--no-pager", "--output", "short-iso"], timeout=10)
        evidence = logged.stdout.splitlines() if logged.returncode == 0 else []
    return Finding(
        id="maintenance_mode.service",
        state="critical" if problems else "ok",
        subject=name,
        summary=summary,
        advice="Read its last journal lines below." if problems else "",
        evidence=evidence,
    )


def leave(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Bring back everything, prove it, disarm the dead-man switch and release the lock."""
    state_dir = params["state_dir"]
    state = undo.load(state_dir)
    mine = state.get("run_id") == params["run_id"]
    if check_mode:
        return Outcome("host", "leave", "ok", "nothing to bring back in check mode")
    outcome = Outcome("host", "leave", "ok", "was not in maintenance mode")
    if mine:
        before = maintenance_actions.states(state["services"])
        with undo.alone(state_dir):
            problems = undo.bring_back(state_dir, "run", host.now().timestamp())
        if problems:
            finding = Finding(
                id="maintenance_mode.left",
                state="critical",
                subject="host",
                summary=f"The host could not be brought back completely: {'; '.join(problems)}.",
                advice="Mend this by hand now; the dead-man switch stays armed and tries again.",
            )
            actions = maintenance_actions.started(before, maintenance_actions.states(state["services"]), state["services"])
            return Outcome("host", "leave", "failed", finding.summary, findings=[finding], actions=actions)
        deadman.disarm(state)
        last = undo.load(state_dir, undo.LAST)
        outcome = _left(last, before)
        undo.save(state_dir, {**last, "told": True}, undo.LAST)
    else:
        outcome = _left_already(state_dir, params, outcome)
    if not params["keep_lock"] and undo.load(state_dir, undo.LOCK).get("run_id") == params["run_id"]:
        os.unlink(os.path.join(state_dir, undo.LOCK))
    return outcome


def _left(last: dict[str, t.Any], before: dict[str, str], how: str = "started again") -> Outcome:
    end = last["left_at"] if last.get("page") else last.get("serving_at") or last["left_at"]
    downtime = max(0.0, end - last["stopped_at"]) if last.get("stopped_at") else 0.0
    running = maintenance_actions.states(last["services"])
    wanted = {service["name"]: maintenance_actions.word(service["was_active"]) for service in last["services"]}
    summary = f"maintenance mode left; out of use for {human_seconds(downtime)}"
    metric = Metric("maintenance_mode.downtime", "host", round(downtime, 3), "seconds")
    finding = Finding(
        id="maintenance_mode.left",
        state="ok" if running == wanted else "critical",
        subject="host",
        summary="Every service is as it was before." if running == wanted else f"Services are {running}, were {wanted}.",
        advice="" if running == wanted else "Start the missing services now and read their journals.",
    )
    returned = {"downtime_seconds": round(downtime, 3), "services_restored": running == wanted}
    actions, was = maintenance_actions.brought_back(before, running, last, how), {"services": before}
    return Outcome("host", "leave", "changed", summary, was, {"services": running}, [finding], [metric], actions, returned)


def _left_already(state_dir: str, params: dict[str, t.Any], outcome: Outcome) -> Outcome:
    last = undo.load(state_dir, undo.LAST)
    if last.get("run_id") != params["run_id"]:
        return outcome
    # What it had started to be validated ran already; the rest was started by whoever brought it back.
    was_down = [] if last.get("serving_at") else [unit for unit in last["services"] if unit["was_active"] and unit["stopped"]]
    before = {unit["name"]: "stopped" for unit in was_down}
    already = _left(last, before, f"started again ({last.get('left_by')})")
    already.status = "ok"
    already.summary = f"already brought back by {last.get('left_by')}"
    if last.get("told"):
        already.metrics, already.actions = [], []
    if last.get("left_by") in ("deadman", "boot"):
        summary = f"The host came back by itself ({last['left_by']}) while this run was at work; it was in use from then on."
        advice = "See in the report which steps came after that; give the run more time (maintenance_mode_grace_seconds)."
        already.findings.append(Finding("cycle.interrupted", "warning", "host", summary, advice=advice))
    undo.save(state_dir, {**last, "told": True}, undo.LAST)
    return already
