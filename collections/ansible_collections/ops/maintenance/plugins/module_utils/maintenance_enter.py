# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the services of a host out of use; each step is written down before it is taken."""

from __future__ import annotations

import os
import shutil
import time
import typing as t

from . import deadman, maintenance_actions, maintenance_page, undo
from .errors import InputError, MaintenanceError
from .host import Host
from .judge import many
from .maintenance_actions import listed, shown
from .maintenance_lock import latest_end
from .paths import ensure_private_folder
from .record import Finding, Outcome

_DRAIN_STEP_SECONDS = 1.0


def enter(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Show the page, suspend timers and cron, let sessions end, stop the services; write down each step before it is taken."""
    state = undo.load(params["state_dir"])
    if state.get("run_id") == params["run_id"] and state.get("phase") == "entered":
        return Outcome("host", "maintenance_mode", "ok", "already in maintenance mode")
    if state.get("run_id") == params["run_id"] and not check_mode:
        return _enter_again(params, state)
    plan = _survey(params, host)
    running = [service["name"] for service in plan["services"] if service["was_active"]]
    before = {"services": {service["name"]: maintenance_actions.word(service["was_active"]) for service in plan["services"]}}
    if check_mode:
        after = {"services": dict.fromkeys(before["services"], "stopped")}
        summary, actions = f"would stop {listed(running)}", maintenance_actions.due(plan)
        return Outcome("host", "maintenance_mode", "due", summary, before, after, actions=actions)
    ensure_private_folder(params["state_dir"])
    with undo.alone(params["state_dir"]):
        _refuse_a_lost_host(params)
        undo.save(params["state_dir"], plan)
    findings = [deadman.arm(params["state_dir"], plan, latest_end(params, host.now().timestamp()))]
    try:
        findings += _take_out(params, plan, host)
    except (MaintenanceError, OSError, RuntimeError) as error:
        said = f"Maintenance mode was not entered: {str(error).rstrip('.')}. {_give_up(params, plan)}"
        told = Outcome("host", "maintenance_mode", "failed", said, actions=maintenance_actions.given_up(plan))
        raise MaintenanceError(said, told) from error
    plan["phase"] = "entered"
    undo.save(params["state_dir"], plan)
    now = maintenance_actions.states(plan["services"])
    actions = maintenance_actions.taken_out(plan, now)
    return Outcome(
        "host", "maintenance_mode", "changed", f"stopped {listed(running)}", before, {"services": now}, findings, actions=actions
    )


def _refuse_a_lost_host(params: dict[str, t.Any]) -> None:
    """A run that slept or lost the network may find that its host came back without it, and that the next run works on it."""
    state_dir, mine = params["state_dir"], params["run_id"]
    for other in (undo.load(state_dir, undo.LOCK), undo.load(state_dir)):
        if other.get("run_id", mine) != mine:
            raise MaintenanceError(f"This host belongs to run {other['run_id']} by now; nothing was stopped. Wait for that run to end.")
    last = undo.load(state_dir, undo.LAST)
    if last.get("run_id") == mine and last.get("left_by") in ("deadman", "boot"):
        raise MaintenanceError(
            f"This host came back without this run ({last['left_by']}) and has been in use since; nothing was stopped, and nothing "
            "may be put back over what was written since. See how the application works; roll back by hand if it must be."
        )


def _give_up(params: dict[str, t.Any], plan: dict[str, t.Any]) -> str:
    with undo.alone(params["state_dir"]):
        problems = undo.bring_back(params["state_dir"], "run")
    if problems:
        return f"And it could not be brought back: {'; '.join(problems)}; mend that by hand, the dead-man switch tries again."
    deadman.disarm(plan)
    return "Everything is as it was before."


def _enter_again(params: dict[str, t.Any], state: dict[str, t.Any]) -> Outcome:
    """Stop once more what was started to be validated; what else was taken out still is."""
    again = [service for service in reversed(state["services"]) if service["was_active"]]
    for service in again:
        _stop(params["state_dir"], state, service)
    state["phase"], state["serving_at"] = "entered", None
    undo.save(params["state_dir"], state)
    actions = maintenance_actions.stopped_again(state, maintenance_actions.states(again))
    summary = f"stopped {listed([s['name'] for s in again])} again"
    return Outcome("host", "maintenance_mode", "changed", summary, actions=actions)


def _survey(params: dict[str, t.Any], host: Host) -> dict[str, t.Any]:
    services = [dict(service) for service in params["services"] if not service["keep_running"]]
    timers = [{"name": name, "manager": "systemd"} for name in params["timers"]]
    unknown = [unit["name"] for unit in services + timers if unit["manager"] == "systemd" and shown(unit, "LoadState") != "loaded"]
    if unknown:
        raise InputError.of("services", unknown, "units that systemd on this host knows", "correct the inventory")
    programs = [service[part][0] for service in services if service["manager"] == "command" for part in ("start", "stop", "status")]
    missing = sorted({program for program in programs if shutil.which(program, path=undo.search_path()) is None})
    if missing:
        raise InputError.of("services", missing, "programs that are installed on this host", "install them or correct the inventory")
    services += _dependents(services)
    for unit in services + timers:
        unit["was_active"], unit["stopped"] = undo.is_active(unit) or _is_restarting(unit), False
    return {
        "run_id": params["run_id"],
        "phase": "entering",
        "entered_at": host.now().timestamp(),
        "stopped_at": None,
        "services": services,
        "timers": timers,
        "cron": [],
        "page": {},
    }


def _dependents(services: t.Sequence[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return what systemd stops together with the declared services, and would not start again together with them."""
    queue = [_unit_name(service["name"]) for service in services if service["manager"] == "systemd"]
    declared = len(queue)
    for name in queue:  # grows while it is gone through: what depends on a dependent stops as well
        for kind in ("RequiredBy", "BoundBy", "ConsistsOf"):
            found = shown({"name": name}, kind).split()
            queue += [unit for unit in found if unit not in queue and unit.endswith((".service", ".socket", ".timer", ".path"))]
    return [{"name": name, "manager": "systemd"} for name in queue[declared:]]


def _unit_name(name: str) -> str:
    return name if "." in name else f"{name}.service"


def _is_restarting(unit: dict[str, t.Any]) -> bool:
    """Whether systemd would start a service again in the middle of the work, although it does not run at this moment."""
    return bool(unit["manager"] == "systemd" and shown(unit, "ActiveState") == "activating")


def _take_out(params: dict[str, t.Any], plan: dict[str, t.Any], host: Host) -> list[Finding]:
    findings = []
    if params["page"]:
        known = maintenance_page.files_of(params["page"])
        maintenance_page.see_ready(params["page"], known)
        plan["page"] = known
        plan["stopped_at"] = host.now().timestamp()
        undo.save(params["state_dir"], plan)
        findings.append(maintenance_page.show(params["page"], plan["page"]))
    for timer in plan["timers"]:
        _stop(params["state_dir"], plan, timer)
    _suspend_cron(params, plan)
    findings += _drain(params, host)
    for service in reversed(plan["services"]):
        plan["stopped_at"] = plan["stopped_at"] or host.now().timestamp()
        _stop(params["state_dir"], plan, service)
    return findings


def _stop(state_dir: str, plan: dict[str, t.Any], unit: dict[str, t.Any]) -> None:
    if not unit["was_active"]:
        return
    unit["stopped"] = True
    undo.save(state_dir, plan)
    problem = undo.stop(unit)
    if problem:
        raise MaintenanceError(f"{problem}.")


def _suspend_cron(params: dict[str, t.Any], plan: dict[str, t.Any]) -> None:
    for path in params["cron_files"]:
        # cron passes over names with a dot
        job = {"kind": "file", "path": path, "suspended_path": f"{path}.ops-maintenance-suspended"}
        if os.path.isfile(path):
            plan["cron"].append(job)
            undo.save(params["state_dir"], plan)
            os.rename(path, job["suspended_path"])
    for entry in params["cron_users"]:
        text = undo.read_crontab(entry["user"])
        changed = "\n".join(_suspended(line, entry["match"]) for line in text.split("\n"))
        if changed != text:
            plan["cron"].append({"kind": "user", "user": entry["user"]})
            undo.save(params["state_dir"], plan)
            undo.write_crontab(entry["user"], changed)


def _suspended(line: str, match: str) -> str:
    is_job = line.strip() and not line.lstrip().startswith("#")
    return undo.CRON_MARK + line if is_job and match in line else line


def _drain(params: dict[str, t.Any], host: Host) -> list[Finding]:
    ports = set(params["drain_ports"])
    if not ports:
        return []
    until = time.monotonic() + params["drain_timeout_seconds"]
    left = established(ports)
    while left and time.monotonic() < until:
        host.sleep(_DRAIN_STEP_SECONDS)
        left = established(ports)
    return [
        Finding(
            id="maintenance_mode.sessions",
            state="warning" if left else "ok",
            subject="ports " + ", ".join(str(port) for port in sorted(ports)),
            summary=f"{many(left, 'session')} still open when the services were stopped." if left else "All sessions had ended.",
            value=left,
            unit="count",
            threshold=f"warning from 1 after {params['drain_timeout_seconds']} seconds",
            advice="Raise drain_timeout_seconds, or announce the window earlier." if left else "",
        )
    ]


def established(ports: set[int], tables: t.Sequence[str] = ("/proc/net/tcp", "/proc/net/tcp6")) -> int:
    """Count established TCP connections to local ports."""
    count = 0
    for table in tables:
        try:
            with open(table, encoding="ascii") as source:
                rows = [line.split() for line in source.readlines()[1:]]
        except FileNotFoundError:
            continue
        count += sum(1 for row in rows if row[3] == "01" and int(row[1].rpartition(":")[2], 16) in ports)
    return count
