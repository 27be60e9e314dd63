# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a host: taken for one run, taken over from a dead one, never from a living one."""

from __future__ import annotations

import typing as t

from . import deadman, undo
from .errors import MaintenanceError
from .host import Host
from .paths import ensure_private_folder
from .record import Finding, Outcome


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
    content = {**params["holder"], "run_id": params["run_id"], "since": now.isoformat(), "expires": latest_end(params, now.timestamp())}
    undo.save(state_dir, content, undo.LOCK)


def latest_end(params: dict[str, t.Any], now: float) -> float:
    """Return when this run is past its latest end, as seconds since the epoch."""
    if params["return_after_seconds"]:
        return now + float(params["return_after_seconds"])
    return max(float(params["deadline"]), now) + float(params["grace_seconds"]) if params["deadline"] else now + 4 * 3600.0
