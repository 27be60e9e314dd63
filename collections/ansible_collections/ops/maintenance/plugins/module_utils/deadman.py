# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dead-man switch: it brings a host back from maintenance when the control side never returns."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import typing as t
from datetime import datetime, timezone

from . import undo
from .errors import MaintenanceError
from .paths import write_atomic
from .record import Finding

UNITS = "/etc/systemd/system"
TIMER = "ops-maintenance-return.timer"
SERVICE = "ops-maintenance-return.service"
BOOT = "ops-maintenance-boot.service"
_PROGRAM = "undo.py"

_SERVICE_TEXT = """\
[Unit]
Description=Bring this host back from maintenance: {why}
ConditionPathExists={state_dir}/maintenance.json
{after}
[Service]
Type=oneshot
# services that a command starts live on in this unit
KillMode=process
# a service that does not start now may start in a minute
Restart=on-failure
RestartSec=60
ExecStart={python} -I {state_dir}/undo.py --state-dir {state_dir} --by {by}
"""
_BOOT_INSTALL = "\n[Install]\nWantedBy=multi-user.target\n"
_TIMER_TEXT = """\
[Unit]
Description=Dead-man switch of run {run_id}

[Timer]
OnCalendar={when}
Persistent=true
AccuracySec=1s
Unit={service}

[Install]
WantedBy=timers.target
"""


def arm(state_dir: str, state: undo.State, at: float) -> Finding:
    """Arm the switch for a moment, and for the next start of the host.

    :param at: seconds since the epoch.
    :raises MaintenanceError: it cannot be armed; then nothing may be stopped.
    """
    loader: t.Any = undo.__loader__  # of a file, or of the archive in which Ansible sends a module
    write_atomic(os.path.join(state_dir, _PROGRAM), loader.get_data(undo.__file__), 0o700)
    when = datetime.fromtimestamp(at, timezone.utc)
    if undo.systemd_is_here():
        state["deadman"] = {"kind": "systemd", "at": at}
        undo.save(state_dir, state)
        _arm_systemd(state_dir, str(state["run_id"]), when)
    else:
        state["deadman"] = {"kind": "process", "at": at, "pid": _arm_process(state_dir, at, str(state["run_id"]))}
        undo.save(state_dir, state)
    return Finding(
        id="maintenance_mode.deadman",
        state="ok",
        subject="host",
        summary=f"The host comes back by itself at {when:%Y-%m-%d %H:%M:%S} UTC, whatever happens to this run.",
        value=at,
        unit="epoch",
        not_covered="" if state["deadman"]["kind"] == "systemd" else "a restart of the machine: there is no systemd to act after it",
    )


def _arm_systemd(state_dir: str, run_id: str, when: datetime) -> None:
    common = {"state_dir": state_dir, "python": sys.executable or "/usr/bin/python3"}
    service = _SERVICE_TEXT.format(why="the control side never returned", after="", by="deadman", **common)
    boot = _SERVICE_TEXT.format(why="it was restarted", after="After=network.target\n", by="boot", **common) + _BOOT_INSTALL
    timer = _TIMER_TEXT.format(run_id=run_id, when=when.strftime("%Y-%m-%d %H:%M:%S UTC"), service=SERVICE)
    for name, text in ((SERVICE, service), (BOOT, boot), (TIMER, timer)):
        write_atomic(os.path.join(UNITS, name), text.encode(), 0o644)
    # restarted, not started: the timer of an earlier run whose switch has fired is active still, and would never fire again
    for argv in (["daemon-reload"], ["enable", "--quiet", BOOT], ["enable", "--quiet", TIMER], ["restart", TIMER]):
        done = undo.run(["systemctl", *argv])
        if done.returncode:
            _disarm_systemd()
            raise MaintenanceError(f"The dead-man switch cannot be armed: systemctl {argv[0]}: {done.stderr.strip()}")
    waits = undo.run(["systemctl", "show", "--property", "SubState", "--value", TIMER]).stdout.strip()
    if waits != "waiting":
        _disarm_systemd()
        raise MaintenanceError(f"The dead-man switch cannot be armed: {TIMER} is {waits or 'unknown'}, expected waiting.")


def _arm_process(state_dir: str, at: float, run_id: str) -> int:
    program = os.path.join(state_dir, _PROGRAM)
    argv = [sys.executable, "-I", program, "--state-dir", state_dir, "--by", "deadman", "--at", str(at), "--run-id", run_id]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, close_fds=True).pid


def disarm(state: t.Mapping[str, t.Any]) -> None:
    """Take the switch away, once the host is back."""
    switch = state.get("deadman") or {}
    if switch.get("kind") == "systemd":
        _disarm_systemd()
    elif switch.get("kind") == "process" and _is_switch(switch["pid"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(switch["pid"], signal.SIGTERM)


def _is_switch(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            return f"/{_PROGRAM}\0--state-dir\0".encode() in source.read()
    except OSError:
        return False


def _disarm_systemd() -> None:
    undo.run(["systemctl", "disable", "--quiet", "--now", TIMER])
    undo.run(["systemctl", "disable", "--quiet", BOOT])
    for name in (TIMER, SERVICE, BOOT):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(UNITS, name))
    undo.run(["systemctl", "daemon-reload"])
