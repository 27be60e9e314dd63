# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""logrotate, where a system uses it: is its whole configuration sound, does it run, and is anything due."""

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from . import log_files, logrotate_files, logrotate_self_test
from .errors import InputError, MaintenanceError, VerifyError, refuse
from .host import Host
from .judge import from_limit, many
from .kept_state import keep_state
from .logrotate_lint import Look, lint
from .logrotate_tree import read_tree
from .paths import open_regular, read_state
from .record import Action, Finding, Metric, Outcome, clean, status_of

OPTIONS: dict[str, t.Any] = {
    "config": {"type": "path", "default": "/etc/logrotate.conf"},
    "state_file": {"type": "path", "default": "/var/lib/logrotate/status"},
    "maximum_age_hours": {"type": "float", "default": 48.0},
    "expected": {"type": "bool", "default": True},
    "run_when_due": {"type": "bool", "default": False},
    "timeout_seconds": {"type": "float", "default": 900.0},
    "log_roots": {"type": "list", "elements": "path", "default": []},
    "ignore": {"type": "list", "elements": "str", "default": []},
    "growth_limit_mb": {"type": "float", "default": 1024.0},
    "files": {"type": "list", "elements": "dict", "default": [], "options": logrotate_files.OPTIONS},
    "folder": {"type": "path", "default": "/etc/logrotate.d"},
    "remove_undeclared": {"type": "bool", "default": False},
}

SIZES = "logrotate_sizes.json"

_ENTRY = re.compile(r'"((?:[^"\\]|\\.)*)" (\d+)-(\d+)-(\d+)(?:-(\d+):(\d+):(\d+))?$')
_SAID = re.compile(r"(?:error|warning): (.*)")
_HARMLESS = re.compile(r"stat of .* failed: No such file or directory|.*unable to open .* for writing|logrotate in debug mode does nothing")


@dataclass
class Plan:
    """What ``logrotate -d`` says: logs it handles, logs that are due, and what is wrong with the configuration."""

    handled: int = 0
    due: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def parse_debug(text: str) -> Plan:
    """Read the output of ``logrotate -d``; its exit status alone says neither what is wrong nor what is due."""
    plan = Plan()
    current = ""
    for line in text.splitlines():
        if line.startswith("considering log "):
            current = line[len("considering log ") :].strip()
        elif line.startswith("Handling "):
            plan.handled = int(line.split()[1])
        elif line.strip() == "log needs rotating":
            plan.due.append(current)
        elif _SAID.match(line):  # version 3.22 only warns of what 3.21 called an error
            _add_said(plan.errors, line.partition(": ")[2])
    return plan


def _add_said(errors: list[str], said: str) -> None:
    if not _HARMLESS.match(said) and clean(said, 300) not in errors:
        errors.append(clean(said, 300))


def parse_state(text: str) -> dict[str, str]:
    """Read a state file: when each log was last rotated, as ``YYYY-MM-DDTHH:MM:SS`` in the host's own time.

    :raises MaintenanceError: it is not one.
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith("logrotate state -- version "):
        raise MaintenanceError("The state file of logrotate does not begin as one; move it away, logrotate makes a new one.")
    rotated: dict[str, str] = {}
    for line in lines[1:]:
        found = _ENTRY.match(line)
        if found:
            year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[1:])
            name = re.sub(r"\\(.)", r"\1", found.group(1))
            rotated[name] = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    return rotated


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = [
        str(InputError.of(name, params[name], f"a positive number of {name.rpartition('_')[2]}", "correct it"))
        for name in ("maximum_age_hours", "timeout_seconds", "growth_limit_mb")
        if not params[name] > 0
    ]
    problems += logrotate_files.input_problems(params["files"])
    return problems + [
        str(InputError.of(name, path, "an absolute path", "write it from the root on"))
        for name, path in (("folder", params["folder"]), *(("log_roots", root) for root in params["log_roots"]))
        if not os.path.isabs(path)
    ]


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Assess the configuration and the last run; rotate what is due only where that is asked for."""
    config = params["config"]
    refuse(input_problems(params))
    if host.which("logrotate") is None:
        return _absent(config, params["expected"])
    if not os.path.isfile(config):
        raise InputError.of("config", config, "the main configuration file of logrotate", "correct the path")
    changes = logrotate_files.plan(params, read_tree(config), host)
    if not check_mode and (changes.write or changes.remove):
        logrotate_files.apply(params, changes, lambda main: _plan(params, host, main).errors)
    plan = _plan(params, host, config)
    before, last_run, problem = _state(params["state_file"])
    actions = logrotate_files.actions_of(changes, check_mode)
    if plan.due and params["run_when_due"]:
        actions.append(_rotate(params, check_mode, host, plan, before))
        before_due, (after, last_run, problem) = plan.due, _state(params["state_file"])
        before = {name: before.get(name, "") for name in before_due}
        after = {name: after.get(name, "") for name in before_due}
    else:
        before, after = {}, {}
    findings = [_config_finding(config, plan), _run_finding(params, last_run, problem, host.now(), plan)]
    findings += _lint(params, check_mode, host, last_run)
    if params["files"] or changes.left or changes.remove:
        findings.append(logrotate_files.finding_of(params, changes, check_mode))
    return Outcome(
        subject=config,
        operation="logrotate",
        status=status_of(actions, check_mode),
        summary=f"{many(plan.handled, 'entry', 'entries')}, {many(len(plan.due), 'log')} due, {many(len(plan.errors), 'error')} in the configuration",
        before={**before, **changes.before},
        after={**after, **changes.write},
        findings=findings,
        metrics=[
            Metric("logrotate.errors", config, len(plan.errors), "count"),
            Metric("logrotate.due", config, len(plan.due), "count"),
        ],
        actions=actions,
        returned={"due": plan.due},
    )


def _lint(params: t.Mapping[str, t.Any], check_mode: bool, host: Host, ran: float | None) -> list[Finding]:
    """Hold the whole tree against the files it is meant for; keep their sizes for the next run."""
    look = Look(
        now=host.now().timestamp(), rotated=_moments(_state(params["state_file"])[0]), ran=ran, sizes=read_state(params["state_dir"], SIZES),
        writers=log_files.open_for_writing(), roots=params["log_roots"], ignore=params["ignore"],
        growth_bytes=int(params["growth_limit_mb"] * 1024**2),
    )  # fmt: skip
    findings, sizes = lint(params["config"], read_tree(params["config"]), look)
    if not check_mode:
        findings = [*findings, *keep_state(params["state_dir"], SIZES, sizes)]
    return _proven(findings) if params["self_test"] else findings


def _moments(rotated: t.Mapping[str, str]) -> dict[str, float]:
    """Turn the dates of a state file, which are in the host's own time, into seconds since the epoch."""
    moments = {}
    for name, when in rotated.items():
        with contextlib.suppress(ValueError, OverflowError):
            moments[name] = time.mktime(time.strptime(when, "%Y-%m-%dT%H:%M:%S"))
    return moments


def _proven(findings: list[Finding]) -> list[Finding]:
    """Let the lint prove itself on planted faults; what it says is unknown where it misses one."""
    problems = logrotate_self_test.problems()
    if problems:
        advice = "Report this as a defect; check the configuration by hand until it is mended."
        findings = [replace(finding, state="unknown", advice=advice) for finding in findings]
    summary = problems[0] if problems else "Every planted fault was found, the sound configuration passed."
    state = "unknown" if problems else "ok"
    advice = "Do not trust what this run says of logrotate." if problems else ""
    return [*findings, Finding("logrotate.self_test", state, "logrotate", summary, advice=advice, evidence=problems)]


def _absent(config: str, expected: bool) -> Outcome:
    if not expected:
        found = Finding("logrotate.configuration", "ok", config, "logrotate is not installed, and none is expected here.")
        return Outcome(config, "logrotate", "skipped", found.summary, findings=[found])
    found = Finding(
        "logrotate.configuration", "unknown", config, "logrotate is not installed, so nothing could be looked at.",
        advice="Install logrotate, or declare that this system does not use it.",
    )  # fmt: skip
    return Outcome(config, "logrotate", "ok", found.summary, findings=[found])


def _plan(params: t.Mapping[str, t.Any], host: Host, config: str) -> Plan:
    argv = ["logrotate", "-d", "-s", params["state_file"], config]
    ran = host.run(argv, timeout=params["timeout_seconds"])
    plan = parse_debug(ran.stdout + "\n" + ran.stderr)
    if not plan.handled and not plan.errors and ran.rc:
        plan.errors.append(ran.why())
    return plan


def _state(path: str) -> tuple[dict[str, str], float | None, str]:
    """Return when each log was rotated, when logrotate last ran, and what stood in the way of knowing it."""
    try:
        with open_regular(path) as source:
            status = os.fstat(source.fileno())
            text = source.read(4 * 1024 * 1024).decode("utf-8", "replace")
        return parse_state(text), status.st_mtime, ""
    except FileNotFoundError:
        return {}, None, "there is no state file"
    except (OSError, MaintenanceError) as error:
        return {}, None, clean(str(error))


def _rotate(params: t.Mapping[str, t.Any], check_mode: bool, host: Host, plan: Plan, before: t.Mapping[str, str]) -> Action:
    names = {"logs": plan.due[:20], "count": len(plan.due)}
    if check_mode:
        return Action(params["config"], "rotate", "due", f"{many(len(plan.due), 'log')} due for rotation", before=names)
    deadline = params["deadline"]
    if deadline and host.now().timestamp() + 60 > deadline:
        return Action(params["config"], "rotate", "deferred", f"{many(len(plan.due), 'log')} put off until a longer window", before=names)
    ran = host.run(["logrotate", "-s", params["state_file"], params["config"]], timeout=params["timeout_seconds"])
    after, _last_run, problem = _state(params["state_file"])
    still = [name for name in plan.due if after.get(name, "") == before.get(name, "")]
    if still:
        raise VerifyError(
            f"logrotate ran, but its state file does not show that {clean(still[0])} was rotated "
            f"({len(still)} of {len(plan.due)}; {problem or ran.why()}); run logrotate -v by hand and read what it says."
        )
    return Action(params["config"], "rotate", "changed", f"{many(len(plan.due), 'log')} rotated", before=names, after={"rc": ran.rc})


def _config_finding(config: str, plan: Plan) -> Finding:
    if not plan.handled and not plan.errors:
        return Finding(
            "logrotate.configuration", "unknown", config, f"{config} names no log at all.",
            advice="Check that it includes /etc/logrotate.d.",
        )  # fmt: skip
    state = "warning" if plan.errors else "ok"
    return Finding(
        "logrotate.configuration", state, config, f"{many(len(plan.errors), 'error')} in the configuration of {many(plan.handled, 'entry', 'entries')}.",
        value=len(plan.errors), unit="count", threshold="warning from 1 count", evidence=plan.errors,
        advice="" if state == "ok" else "Correct each; an entry with an error is left out, so its logs grow without end.",
    )  # fmt: skip


def _run_finding(params: t.Mapping[str, t.Any], last_run: float | None, problem: str, now: datetime, plan: Plan) -> Finding:
    path, limit = params["state_file"], params["maximum_age_hours"]
    if last_run is None:
        return Finding(
            "logrotate.last_run", "unknown", path, f"It is not known when logrotate last ran: {problem}.",
            threshold=f"warning from {limit:g} hours", advice="Check logrotate.timer or the daily cron job, and the path of the state file.",
        )  # fmt: skip
    hours = max(now.timestamp() - last_run, 0.0) / 3600
    state = from_limit(hours, limit)
    when = datetime.fromtimestamp(last_run, timezone.utc).isoformat(timespec="minutes")
    return Finding(
        "logrotate.last_run", state, path, f"logrotate last ran at {when}; {many(len(plan.due), 'log')} due when it was asked.",
        value=round(hours, 1), unit="hours", threshold=f"warning from {limit:g} hours",
        advice="" if state == "ok" else "Check logrotate.timer or the daily cron job.",
    )  # fmt: skip
