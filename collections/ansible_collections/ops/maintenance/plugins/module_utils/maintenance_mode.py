# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock a host, take its services out of use, and bring back exactly what was taken."""

from __future__ import annotations

import re
import typing as t

from . import maintenance_page, undo
from .errors import InputError, MaintenanceError, refusal, refuse
from .host import Host
from .http_probe import check_url
from .maintenance_enter import enter
from .maintenance_lock import lock
from .maintenance_return import leave, serve
from .record import Outcome

STATES = ("locked", "entered", "serving", "left")
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
