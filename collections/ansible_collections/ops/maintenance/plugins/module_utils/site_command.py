# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a site's own tool as a declared step: bounded, without a shell, and judged by what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import selectors
import shutil
import signal
import stat
import subprocess
import time
import typing as t

from .errors import InputError, MaintenanceError, refuse
from .host import Host
from .judge import human_seconds
from .paths import open_regular, sha256_of
from .record import Action, Finding, Metric, Outcome, clean

OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "argv": {"type": "list", "elements": "str", "required": True},
    "timeout_seconds": {"type": "float", "default": 300.0},
    "expect_rc": {"type": "list", "elements": "int", "default": [0]},
    "warning_rc": {"type": "list", "elements": "int", "default": []},
    "creates_json": {"type": "str", "default": ""},
    "keeps_files": {"type": "list", "elements": "path", "default": []},
    "user": {"type": "str", "default": ""},
    "chdir": {"type": "path", "default": ""},
    "environment_file": {"type": "path", "default": ""},
    "required": {"type": "bool", "default": False},
    "changes": {"type": "bool", "default": False},
    "run_in_check_mode": {"type": "bool", "default": False},
}

_OUTPUT_LIMIT = 256 * 1024
_JSON_LIMIT = 64 * 1024 * 1024
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECRET = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|private[_-]?key|authorization|credential)[\w.-]*"
    r"[\"']?\s*[:=]\s*)(?:bearer\s+)?(\"[^\"]*\"|'[^']*'|\S+)"
)
_URL_LOGIN = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_VARIABLE = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(.*)$")


class _Ended(t.NamedTuple):
    rc: int
    output: str
    seconds: float
    timed_out: bool
    was_cut: bool


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Run the tool, or say that it is due; see :class:`record.Outcome`."""
    _check(params)
    name, now = params["name"], host.now()
    outcome = Outcome(name, "site_command", "skipped", "")
    json_path = now.astimezone().strftime(params["creates_json"]) if params["creates_json"] else ""
    argv = [part.replace("{creates_json}", json_path) for part in params["argv"]]
    program = shutil.which(argv[0], path=_PATH)
    missing = _missing(argv, program, params["chdir"])
    if missing or program is None:
        _add(outcome, "site.command", "unknown", missing, "Install it, or correct argv in the inventory.")
    elif check_mode and not params["run_in_check_mode"]:
        outcome.actions.append(Action(name, "run", "due", f"{os.path.basename(argv[0])} would run"))
        _add(outcome, "site.command", "unknown", "not run in check mode",
             "Set run_in_check_mode where the tool changes nothing.")  # fmt: skip
    elif 0 < params["deadline"] < now.timestamp() + params["timeout_seconds"]:
        outcome.actions.append(Action(name, "run", "deferred", "its time limit reaches beyond the deadline"))
        _add(outcome, "site.command", "unknown", "deferred: its time limit reaches beyond the deadline",
             "Give the window more time, or the tool a shorter limit.")  # fmt: skip
    else:
        _run_and_judge(params, [program, *argv[1:]], json_path, outcome)
    return _closed(outcome, params, check_mode)


def _closed(outcome: Outcome, params: t.Mapping[str, t.Any], check_mode: bool) -> Outcome:
    outcome.summary = "; ".join(finding.summary for finding in outcome.findings)
    statuses = [action.status for action in outcome.actions]
    if params["required"] and outcome.state != "ok" and statuses != ["due"]:
        outcome.status = "failed"
        outcome.summary = f"{params['name']} is required and did not pass: {outcome.summary}."
    elif statuses == ["failed"]:
        outcome.status = "ok"  # the step was taken and its finding says how it went; only a required tool stops the run
    elif statuses:
        outcome.status = "due" if check_mode and statuses[0] == "changed" else statuses[0]
    outcome.returned = {"state": outcome.state}
    return outcome


def _add(outcome: Outcome, id_: str, state: str, summary: str, advice: str, **more: t.Any) -> None:
    advice = "" if state == "ok" else advice
    outcome.findings.append(Finding(id=id_, state=state, subject=outcome.subject, summary=summary, advice=advice, **more))


def _check(params: t.Mapping[str, t.Any]) -> None:
    problems = input_problems(params)
    if params["user"]:
        try:
            pwd.getpwnam(params["user"])
        except KeyError:
            problems.append(str(InputError.of("user", params["user"], "a user of this host", "create or correct it")))
    refuse(problems)


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = []
    if not params["argv"] or not params["argv"][0].strip():
        problems.append(str(InputError.of("argv", params["argv"], "the program and its arguments as a list", "give them")))
    elif any("\0" in part for part in params["argv"]):
        problems.append("argv holds a NUL character, which no program can be given; remove it.")
    if not params["timeout_seconds"] > 0:
        problems.append(str(InputError.of("timeout_seconds", params["timeout_seconds"], "seconds above 0", "correct it")))
    problems += [
        str(InputError.of(option, params[option], "an absolute path", "write it from the root on"))
        for option in ("creates_json", "chdir", "environment_file")
        if params[option] and not os.path.isabs(params[option])
    ]
    if set(params["expect_rc"]) & set(params["warning_rc"]) or not params["expect_rc"]:
        problems.append("expect_rc and warning_rc share a number, or expect_rc is empty; give each its own.")
    return problems


def _missing(argv: t.Sequence[str], program: str | None, chdir: str) -> str:
    """Say what is not there: the program, or the script that an interpreter is to run."""
    if program is None:
        return f"{argv[0]} is not installed or not executable"
    if chdir and not os.path.isdir(chdir):
        return f"the folder {chdir} does not exist"
    script = argv[1] if len(argv) > 1 and re.match(r"(python|bash|sh|perl|ruby|node|php)[\d.]*$", os.path.basename(program)) else ""
    if script and not script.startswith("-") and not os.path.isfile(os.path.join(chdir or "/", script)):
        return f"the script {script} does not exist"
    return ""


# Running -------------------------------------------------------------------------------------------------------------


def _run_and_judge(params: t.Mapping[str, t.Any], argv: list[str], json_path: str, outcome: Outcome) -> None:
    environment, secrets = _environment(params)
    kept = {path: _fingerprint(path) for path in params["keeps_files"]}
    started = time.time()
    try:
        ended = _execute(params, argv, environment)
    except OSError as error:
        _add(outcome, "site.command", "unknown", f"{argv[0]} could not be started: {error.strerror}", "Correct its permissions.")
        return
    lines = shown(ended.output, secrets)
    state, text = _verdict(params, ended)
    status = "failed" if state in ("critical", "unknown") else "changed" if params["changes"] else "ok"
    outcome.actions.append(Action(outcome.subject, "run", status, text, after={"rc": ended.rc}))
    outcome.metrics.append(Metric("site.command_seconds", outcome.subject, round(ended.seconds, 2), "seconds"))
    _add(outcome, "site.command", state, text, "Read its output below and its own log.", value=ended.rc, unit="exit status",
         threshold=f"ok: {params['expect_rc']}, warning: {params['warning_rc']}", evidence=lines,
         not_covered="output was cut" if ended.was_cut else "")  # fmt: skip
    if json_path:
        _judge_json(json_path, started, outcome)
    changed = [path for path, before in kept.items() if _fingerprint(path) != before]
    if kept:
        text = f"changed: {', '.join(changed)}" if changed else f"{len(kept)} files are as before"
        _add(outcome, "site.kept", "critical" if changed else "ok", text,
             "The tool overwrote what it was to compare with; put the file back from a backup.")  # fmt: skip


def answer_of(params: t.Mapping[str, t.Any], argv: t.Sequence[str]) -> str:
    """Run a declared tool for what it prints, errors included, and return that.

    :param params: ``user``, ``environment_file``, ``chdir`` and ``timeout_seconds``.
    :raises MaintenanceError: it is missing, failed or did not end in time; no secret is in the message.
    """
    program = shutil.which(argv[0], path=_PATH)
    if program is None:
        raise MaintenanceError(f"{argv[0]} is not installed or not executable; install it, or correct the inventory.")
    environment, secrets = _environment(params)
    try:
        ended = _execute(params, [program, *argv[1:]], environment)
    except OSError as error:
        raise MaintenanceError(f"{argv[0]} could not be started: {error.strerror}.") from None
    if ended.timed_out or ended.rc != 0:
        how = f"did not end within {human_seconds(params['timeout_seconds'])}" if ended.timed_out else f"ended with {ended.rc}"
        said = shown(ended.output, secrets)
        raise MaintenanceError(f"{os.path.basename(argv[0])} {how} ({said[-1] if said else 'no output'}).")
    return ended.output


def _execute(params: t.Mapping[str, t.Any], argv: list[str], environment: dict[str, str]) -> _Ended:
    identity: dict[str, t.Any] = {}
    if params["user"] and os.geteuid() == 0:
        user = pwd.getpwnam(params["user"])
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}
    began = time.monotonic()
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        cwd=params["chdir"] or "/", start_new_session=True, umask=0o027, **identity,
    )  # fmt: skip
    with child:
        output, was_cut, timed_out = _collect(child, began + params["timeout_seconds"])
        _end_group(child)
        rc = child.wait()
    return _Ended(rc, output.decode("utf-8", "backslashreplace"), time.monotonic() - began, timed_out, was_cut)


def _collect(child: subprocess.Popen[bytes], end: float) -> tuple[bytes, bool, bool]:
    """Read until the tool itself ends; what it left running in the background may hold the pipe open for ever."""
    pipe = t.cast("t.IO[bytes]", child.stdout)
    output, was_cut = bytearray(), False
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            has_ended = child.poll() is not None
            left = end - time.monotonic()
            if left <= 0 and not has_ended:
                return bytes(output), was_cut, True
            if selector.select(0 if has_ended else min(left, 0.2)):
                data = os.read(pipe.fileno(), 65536)
                room = _OUTPUT_LIMIT - len(output)
                output += data[:room]
                was_cut = was_cut or len(data) > room
                if data and left > 0:
                    continue
                if not data:
                    selector.unregister(pipe)
                    return bytes(output), was_cut, not _ends(child, end)
            if has_ended:
                return bytes(output), was_cut, False


def _ends(child: subprocess.Popen[bytes], end: float) -> bool:
    try:
        child.wait(max(end - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
        return False
    return True


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Stop the tool where it still runs, and what it left running in its session."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sign)
            if child.poll() is None:
                _ends(child, time.monotonic() + 2)


def _environment(params: t.Mapping[str, t.Any]) -> tuple[dict[str, str], list[str]]:
    user = pwd.getpwnam(params["user"]) if params["user"] else pwd.getpwuid(os.geteuid())
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": user.pw_dir, "USER": user.pw_name}
    given: dict[str, str] = {}
    if params["environment_file"]:
        try:
            with open_regular(params["environment_file"]) as source:
                text = source.read(1024 * 1024).decode("utf-8", "surrogateescape")
        except (OSError, MaintenanceError) as error:
            raise InputError(f"environment_file {params['environment_file']} cannot be read: {error}.") from None
        for line in text.splitlines():
            found = _VARIABLE.match(line.strip())
            if found:
                given[found.group(1)] = found.group(2).strip().strip("'\"")
    return {**environment, **given}, [value for value in given.values() if len(value) >= 6]


def shown(output: str, secrets: t.Sequence[str]) -> list[str]:
    """Return the last lines of the output, without what looks like a secret or is one of the environment's values."""
    for secret in secrets:
        output = output.replace(secret, "***")
    output = _URL_LOGIN.sub(r"\1***@", _SECRET.sub(r"\1***", output))
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return [clean(line, 300) for line in lines[-20:]]


# Judging -------------------------------------------------------------------------------------------------------------


def _verdict(params: t.Mapping[str, t.Any], ended: _Ended) -> tuple[str, str]:
    program = os.path.basename(params["argv"][0])
    if ended.timed_out:
        return "critical", f"{program} did not end within {human_seconds(params['timeout_seconds'])} and was stopped"
    how = f"by signal {-ended.rc}" if ended.rc < 0 else f"with {ended.rc}"
    text = f"{program} ended {how} after {human_seconds(ended.seconds)}"
    if ended.rc in params["expect_rc"]:
        return "ok", text
    return ("warning" if ended.rc in params["warning_rc"] else "critical"), text


def _judge_json(path: str, started: float, outcome: Outcome) -> None:
    """Make sure that the promised file is there, was written just now and holds JSON."""
    advice = "Run the tool by hand and see why it does not write its result."
    try:
        with open_regular(path) as source:
            status = os.fstat(source.fileno())
            content = source.read(_JSON_LIMIT)
    except (OSError, MaintenanceError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        _add(outcome, "site.output", "critical", f"{path} was not written: {said}", advice)
        return
    if status.st_mtime < started - 1:
        _add(outcome, "site.output", "critical", f"{path} is older than this run: the tool did not write it", advice)
        return
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        _add(outcome, "site.output", "critical", f"{path} does not hold valid JSON: {clean(str(error), 120)}", advice)
        return
    state = "ok" if value not in ({}, [], None, "") else "warning"
    _add(outcome, "site.output", state, f"{path} holds {len(content)} bytes of JSON" if state == "ok" else f"{path} is empty JSON",
         advice, value=len(content), unit="bytes", evidence=[path])  # fmt: skip


def _fingerprint(path: str) -> str:
    try:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            return sha256_of(path)
        return f"mode {status.st_mode}"
    except OSError as error:
        return f"error {error.errno}"
