# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs of Docker's containers: is there a limit, by daemon and by container, and what do they take on disk. Looks only."""

from __future__ import annotations

import glob
import json
import os
import typing as t
from dataclasses import dataclass

from . import container_engine
from .errors import InputError, MaintenanceError, out_of_range, refuse
from .host import Host
from .judge import human_bytes, many
from .paths import open_regular
from .record import Finding, Metric, Outcome, clean

OPTIONS: dict[str, t.Any] = {
    "expected": {"type": "bool", "default": True},
    "daemon_config": {"type": "path", "default": "/etc/docker/daemon.json"},
    "limit_mb": {"type": "float", "default": 1024.0},
    "timeout_seconds": {"type": "float", "default": 60.0},
}

SUBJECT = "container logs"
BOUND_BY_THEMSELVES = frozenset(("local",))
"""Drivers that write files and have a limit of their own."""

_INFO = '{"driver":{{json .LoggingDriver}},"root":{{json .DockerRootDir}}}'
_CONTAINER = '{"id":{{json .Id}},"name":{{json .Name}},"log":{{json .HostConfig.LogConfig}},"path":{{json .LogPath}}}'


@dataclass(frozen=True)
class Container:
    """A container with how it logs; ``size`` is None where its files could not be seen."""

    name: str
    driver: str
    options: t.Mapping[str, str]
    size: int | None = None

    @property
    def fault(self) -> str:
        """Say what is wrong with how it logs, empty when nothing is."""
        return fault_of(self.driver, self.options)


def fault_of(driver: str, options: t.Mapping[str, t.Any]) -> str:
    """Say what is wrong with a log driver and its options."""
    if driver == "none":
        return "driver none keeps nothing"
    if driver == "json-file" and str(options.get("max-size", "-1")).strip() in ("-1", "0", ""):
        return "driver json-file without max-size grows without end"
    return ""


def parse_containers(text: str, root: str) -> list[Container]:
    """Read one JSON object a line, as :data:`_CONTAINER` has them written.

    :raises MaintenanceError: a line is none.
    """
    found = []
    for line in filter(str.strip, text.splitlines()):
        try:
            one = json.loads(line)
            log, name = one["log"], one["name"].lstrip("/")
            path = one["path"] or os.path.join(root, "containers", one["id"], "local-logs", "container.log")
            writes = log["Type"] in ("json-file", *BOUND_BY_THEMSELVES)
            found.append(Container(clean(name, 100), log["Type"], log["Config"] or {}, size_of(path) if writes else 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MaintenanceError(f"docker inspect answered what cannot be read ({error}): {clean(line, 200)}") from error
    return found


def size_of(path: str) -> int | None:
    """Return what a log and its rotated siblings take on disk, None where the folder cannot be seen."""
    try:
        os.listdir(os.path.dirname(path))
    except FileNotFoundError:
        return None if not os.path.isdir(os.path.dirname(os.path.dirname(path))) else 0
    except OSError:
        return None
    return sum(os.stat(one).st_blocks * 512 for one in glob.glob(glob.escape(path) + "*") if os.path.isfile(one))


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("limit_mb",)) + out_of_range(params, ("timeout_seconds",), least=1)
    if not os.path.isabs(params["daemon_config"]):
        problems.append(str(InputError.of("daemon_config", params["daemon_config"], "an absolute path", "write it from the root on")))
    return problems


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:  # noqa: ARG001 (looks only)
    """Look at the daemon's configuration and at every container."""
    refuse(input_problems(params))
    try:
        if host.which("docker") is None:
            return _absent(params["expected"])
        info = json.loads(_asked(host, ["docker", "info", "--format", _INFO], params["timeout_seconds"]))
        containers = _containers(host, info["root"], params["timeout_seconds"])
    except (MaintenanceError, ValueError, KeyError, TypeError) as error:
        found = _unknown("container_logs.limits", f"Docker could not be asked: {clean(str(error), 300)}", "See whether Docker runs.")
        return Outcome(SUBJECT, "container_logs", "ok", found.summary, findings=[_daemon(params, None), found])
    total = sum(one.size or 0 for one in containers)
    return Outcome(
        SUBJECT, "container_logs", "ok", f"{many(len(containers), 'container')}, {human_bytes(total)} of logs",
        findings=[_daemon(params, info["driver"]), _limits(containers), _sizes(containers, params["limit_mb"])],
        metrics=[
            Metric("container_logs.size", SUBJECT, total, "bytes"),
            *(Metric("container_logs.size", one.name, one.size, "bytes") for one in containers if one.size),
        ],
    )  # fmt: skip


def _absent(expected: bool) -> Outcome:
    if expected:
        found = _unknown(
            "container_logs.limits", "docker is not installed, so nothing could be looked at.", "Install it, or declare that none is used."
        )
        return Outcome(SUBJECT, "container_logs", "ok", found.summary, findings=[found])
    found = Finding("container_logs.limits", "ok", SUBJECT, "docker is not installed, and none is expected here.")
    return Outcome(SUBJECT, "container_logs", "skipped", found.summary, findings=[found])


def _unknown(finding_id: str, summary: str, advice: str) -> Finding:
    return Finding(finding_id, "unknown", SUBJECT, summary, advice=advice)


def _asked(host: Host, argv: t.Sequence[str], timeout: float) -> str:
    ran = host.run(argv, timeout=timeout)
    if not ran.stdout.strip() or ran.rc:
        raise MaintenanceError(ran.why())
    return ran.stdout


def _containers(host: Host, root: str, timeout: float) -> list[Container]:
    ids = container_engine.listed(host, "docker", "--all", timeout=timeout)
    texts = container_engine.inspected(host, "docker", ids, "--format", _CONTAINER, timeout=timeout)
    return [one for text in texts for one in parse_containers(text, root)]


def _daemon(params: t.Mapping[str, t.Any], driver: str | None) -> Finding:
    """Judge how a new container would log."""
    path = params["daemon_config"]
    try:
        with open_regular(path) as source:
            config = json.loads(source.read(1024 * 1024))
        options = config.get("log-opts") or {}
        driver = driver or config.get("log-driver") or "json-file"
        fault = fault_of(driver, options)
    except FileNotFoundError:
        options, driver = {}, driver or "json-file"
        fault = fault_of(driver, options)
    except (OSError, MaintenanceError) as error:
        return Finding(
            "container_logs.daemon", "unknown", path, f"It cannot be read: {clean(str(error), 200)}", advice="Let the module read it."
        )
    except (ValueError, AttributeError) as error:
        return Finding(
            "container_logs.daemon", "critical", path, f"It is not a JSON object ({clean(str(error), 150)}), so Docker will not start again.",
            advice="Correct it before Docker is restarted.",
        )  # fmt: skip
    shown = ", ".join(f"{name}={options[name]}" for name in ("max-size", "max-file") if name in options) or "no limit"
    return Finding(
        "container_logs.daemon", "warning" if fault else "ok", path, f"New containers log with driver {clean(driver, 60)} and {clean(shown, 100)}.",
        not_covered="options on the command line of dockerd",
        advice=f"{fault.capitalize()}: set max-size and max-file in log-opts, or driver local; then make the containers anew." if fault else "",
    )  # fmt: skip


def _limits(containers: t.Sequence[Container]) -> Finding:
    if not containers:
        advice = "Declare that this system has no containers, or see why there are none."
        return _unknown("container_logs.limits", "There is no container, so nothing was looked at.", advice)
    faults = [one for one in sorted(containers, key=lambda one: -(one.size or 0)) if one.fault]
    return Finding(
        "container_logs.limits", "warning" if faults else "ok", SUBJECT,
        f"{len(faults)} of {many(len(containers), 'container')} {'has' if len(faults) == 1 else 'have'} no sound limit for logs.",
        value=len(faults), unit="count", threshold="warning from 1 count", evidence=[f"{one.name}: {one.fault}, {_shown(one.size)} now" for one in faults],
        advice="Set max-size and max-file, or driver local, and make the container anew; ship what has to be kept." if faults else "",
    )  # fmt: skip


def _sizes(containers: t.Sequence[Container], limit_mb: float) -> Finding:
    large = [one for one in containers if one.size is not None and one.size > limit_mb * 1024**2]
    unseen = [one.name for one in containers if one.size is None]
    state = "warning" if large else "unknown" if unseen else "ok"
    return Finding(
        "container_logs.size", state, SUBJECT, f"{many(len(large), 'container')} with more than {limit_mb:g} MB of logs.",
        value=max((one.size or 0 for one in containers), default=0), unit="bytes", threshold=f"warning above {limit_mb:g} MB",
        evidence=[f"{one.name}: {_shown(one.size)}" for one in sorted(large, key=lambda one: -(one.size or 0))],
        not_covered=f"logs of {many(len(unseen), 'container')} could not be seen: {', '.join(unseen[:3])}" if unseen else "",
        advice="" if state == "ok" else "Limit them; let the module run as root, on the host of the daemon, where they could not be seen.",
    )  # fmt: skip


def _shown(size: int | None) -> str:
    return "size not seen" if size is None else human_bytes(size)
