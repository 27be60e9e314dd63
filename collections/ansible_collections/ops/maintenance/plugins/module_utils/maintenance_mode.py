# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock a host, take its services out of use, and bring back exactly what was taken."""

from __future__ import annotations

import os
import re
import shutil
import time
import typing as t

from . import deadman, maintenance_actions, maintenance_page, undo
from .errors import InputError, MaintenanceError, refusal, refuse
from .host import Host
from .http_probe import check_url, fetch
from .judge import human_seconds, many
from .paths import ensure_private_folder
from .record import Finding, Metric, Outcome

STATES = ("locked", "entered", "serving", "left")
_DRAIN_STEP_SECONDS = 1.0
_LONGEST_SECONDS = 7 * 86400
_SERVICE_NAME = re.compile(r"^[A-Za-z0-9@:._\\][A-Za-z0-9@:._\\-]*$")

SERVICE_OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "manager": {"type": "str", "default": "systemd", "choices": ["systemd", "command"]},
    "start": {"type": "list", "elements": "str", "default": []},
    "stop": {"type": "list", "elements": "str", "default": []},
    "status": {"type": "list", "elements": "str", "default": []},
    "keep_running": {"type": "bool", "default": False},
}

OPTIONS: dict[str, t.Any] = {
    "state": {"type": "str", "required": True, "choices": list(STATES)},
    "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE_OPTIONS},
    "timers": {"type": "list", "elements": "str", "default": []},
    "cron_files": {"type": "list", "elements": "path", "default": []},
    "cron_users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"user": {"type": "str", "required": True}, "match": {"type": "str", "default": ""}},
    },
    "page": {"type": "dict", "options": maintenance_page.OPTIONS},
    "drain_ports": {"type": "list", "elements": "int", "default": []},
    "drain_timeout_seconds": {"type": "int", "default": 60},
    "ready": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "url": {"type": "str", "required": True},
            "status": {"type": "list", "elements": "int", "default": [200]},
        },
    },
    "ready_timeout_seconds": {"type": "int", "default": 60},
    "settle_seconds": {"type": "float", "default": 2.0},
    "return_after_seconds": {"type": "int", "default": 0},
    "grace_seconds": {"type": "int", "default": 900},
    "reboot_expected": {"type": "bool", "default": False},
    "keep_lock": {"type": "bool", "default": False},
    "holder": {"type": "dict", "default": {}},
    "dead_runs": {"type": "list", "elements": "str", "default": []},
    "break_lock": {"type": "str", "default": ""},
}


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Take a host to the wanted state."""
    _check(params)
    steps: dict[str, t.Callable[[dict[str, t.Any], bool, Host], Outcome]] = {
        "locked": lock,
        "entered": enter,
        "serving": serve,
        "left": leave,
    }
    try:
        return steps[params["state"]](params, check_mode, host)
    except undo.DamagedStateError as error:
        raise MaintenanceError(str(error)) from error


def _check(params: dict[str, t.Any]) -> None:
    if not params["run_id"]:
        advice = "enable the journal (callbacks_enabled = ops.maintenance.journal in ansible.cfg) or set maintenance_run_id"
        raise InputError.of("run_id", "", "the id of this run, which the lock and the way back are tied to", advice)
    refuse(input_problems(params))


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = [
        str(InputError.of(name, params[name], f"a number of seconds from 0 to {_LONGEST_SECONDS}", "correct it"))
        for name in ("drain_timeout_seconds", "ready_timeout_seconds", "return_after_seconds", "grace_seconds", "settle_seconds")
        if not 0 <= params[name] <= _LONGEST_SECONDS
    ]
    if not all(0 < port < 65536 for port in params["drain_ports"]):
        problems.append(str(InputError.of("drain_ports", params["drain_ports"], "ports from 1 to 65535", "correct it")))
    for endpoint in params["ready"]:
        problems += refusal(check_url, endpoint["url"], "ready.url")
    if params["page"]:
        problems += refusal(check_url, params["page"]["url"], "page.url") + maintenance_page.input_problems(params["page"])
    return problems + [problem for service in params["services"] for problem in _service_problems(service)]


def _service_problems(service: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    if not _SERVICE_NAME.match(service["name"]):
        yield str(InputError.of("services.name", service["name"], "the name of a service", "correct it"))
    missing = [part for part in ("start", "stop", "status") if service["manager"] == "command" and not service[part]]
    if missing:
        where = f"services[{service['name']}]"
        yield str(InputError.of(where, missing, "start, stop and status as argument lists", "add them"))


# -- lock ---------------------------------------------------------------------------------------------------------------------


def lock(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Take the lock of this host, after bringing it back from a run that never finished."""
    if check_mode:
        return _lock(params, check_mode, host)
    ensure_private_folder(params["state_dir"])
    with undo.alone(params["state_dir"]):
        return _lock(params, check_mode, host)


def _lock(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    state_dir, mine = params["state_dir"], params["run_id"]
    held = undo.load(state_dir, undo.LOCK)
    outcome = Outcome("host", "lock", "ok", "the host is locked for this run")
    outcome.returned = {"locked": True}
    if held and held.get("run_id") != mine:
        finding = _judge_lock(held, params, host)
        outcome.findings.append(finding)
        if finding.state == "critical":
            outcome.status, outcome.summary = "skipped", finding.summary
            outcome.returned = {"locked": False, "reason": finding.summary}
            return outcome
    if check_mode:
        outcome.summary = "the host is free to be locked"
        return outcome
    state = undo.load(state_dir)
    if state and state.get("run_id") != mine:
        outcome.findings.append(_bring_back_earlier(params, state))
    outcome.findings += _returned_without_us(state_dir)
    _write_lock(state_dir, params, host)
    return outcome


def _judge_lock(held: dict[str, t.Any], params: dict[str, t.Any], host: Host) -> Finding:
    since = str(held.get("since", "an unknown time"))
    run_id = held.get("run_id")
    who = f"run {run_id} of {held.get('user', 'somebody')} on {held.get('host', 'an unknown host')}"
    if run_id in params["dead_runs"]:
        why = "whose process is gone"
    elif run_id == params["break_lock"]:
        why = "which you said is dead"
    elif float(held.get("expires", 0)) < host.now().timestamp():
        why = "which is past its latest end"
    else:
        return Finding(
            id="cycle.locked",
            state="critical",
            subject="host",
            summary=f"This host is locked by {who} since {since}.",
            advice=f"Wait for it; if you know that it is dead, start again with -e maintenance_break_lock={run_id}.",
        )
    return Finding(
        id="cycle.interrupted",
        state="warning",
        subject="host",
        summary=f"The lock of {who}, {why}, was taken over; it had been held since {since}.",
        advice=f"Read the report of run {run_id}: it says up to where that run came.",
    )


def _bring_back_earlier(params: dict[str, t.Any], state: dict[str, t.Any]) -> Finding:
    problems = undo.bring_back(params["state_dir"], "next run")
    if problems:
        raise MaintenanceError(
            f"Run {state.get('run_id')} left this host in maintenance mode, and it could not be brought back: "
            f"{'; '.join(problems)}. Mend that first; nothing was begun."
        )
    deadman.disarm(state)
    return Finding(
        id="cycle.interrupted",
        state="warning",
        subject="host",
        summary=f"Run {state.get('run_id')} had left this host in maintenance mode; its services are back now.",
        advice="Read the report of that run: it says up to where it came.",
    )


def _returned_without_us(state_dir: str) -> list[Finding]:
    last = undo.load(state_dir, undo.LAST)
    if last.get("left_by") not in ("deadman", "boot") or last.get("told"):
        return []
    undo.save(state_dir, {**last, "told": True}, undo.LAST)
    deadman.disarm(last)
    how = {"deadman": "its dead-man switch", "boot": "its start after a power loss or reboot"}[last["left_by"]]
    return [
        Finding(
            id="cycle.interrupted",
            state="warning",
            subject="host",
            summary=f"Run {last.get('run_id')} never finished; the host was brought back by {how}.",
            advice="Read the report of that run: it says up to where it came.",
        )
    ]


def _write_lock(state_dir: str, params: dict[str, t.Any], host: Host) -> None:
    now = host.now()
    content = {**params["holder"], "run_id": params["run_id"], "since": now.isoformat(), "expires": _latest_end(params, now.timestamp())}
    undo.save(state_dir, content, undo.LOCK)


def _latest_end(params: dict[str, t.Any], now: float) -> float:
    if params["return_after_seconds"]:
        return now + float(params["return_after_seconds"])
    return max(float(params["deadline"]), now) + float(params["grace_seconds"]) if params["deadline"] else now + 4 * 3600.0


# -- enter --------------------------------------------------------------------------------------------------------------------


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
        summary, actions = f"would stop {_listed(running)}", maintenance_actions.due(plan)
        return Outcome("host", "maintenance_mode", "due", summary, before, after, actions=actions)
    ensure_private_folder(params["state_dir"])
    with undo.alone(params["state_dir"]):
        _refuse_a_lost_host(params)
        undo.save(params["state_dir"], plan)
    findings = [deadman.arm(params["state_dir"], plan, _latest_end(params, host.now().timestamp()))]
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
        "host", "maintenance_mode", "changed", f"stopped {_listed(running)}", before, {"services": now}, findings, actions=actions
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
    summary = f"stopped {_listed([s['name'] for s in again])} again"
    return Outcome("host", "maintenance_mode", "changed", summary, actions=actions)


def _survey(params: dict[str, t.Any], host: Host) -> dict[str, t.Any]:
    services = [dict(service) for service in params["services"] if not service["keep_running"]]
    timers = [{"name": name, "manager": "systemd"} for name in params["timers"]]
    unknown = [unit["name"] for unit in services + timers if unit["manager"] == "systemd" and _shown(unit, "LoadState") != "loaded"]
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
            found = _shown({"name": name}, kind).split()
            queue += [unit for unit in found if unit not in queue and unit.endswith((".service", ".socket", ".timer", ".path"))]
    return [{"name": name, "manager": "systemd"} for name in queue[declared:]]


def _unit_name(name: str) -> str:
    return name if "." in name else f"{name}.service"


def _shown(unit: dict[str, t.Any], name: str) -> str:
    shown = undo.run(["systemctl", "show", "--property", name, "--value", "--", unit["name"]])
    return shown.stdout.strip() if shown.returncode == 0 else ""


def _is_restarting(unit: dict[str, t.Any]) -> bool:
    """Whether systemd would start a service again in the middle of the work, although it does not run at this moment."""
    return bool(unit["manager"] == "systemd" and _shown(unit, "ActiveState") == "activating")


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


# -- serve and leave ----------------------------------------------------------------------------------------------------------


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
    return Outcome("host", "serve", "changed", f"started {_listed(names)}", findings=findings, actions=actions)


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
    shown = _shown(service, "NRestarts")
    return int(shown) if shown.isdigit() else 0


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


def _listed(names: t.Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing"
