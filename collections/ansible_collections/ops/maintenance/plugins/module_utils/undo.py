# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a host back from maintenance: start what was running, resume what was suspended, take the page away.

This file stands alone on purpose (standard library, no relative import): entering maintenance mode also copies it to the host, where
the dead-man switch runs it when the control side never returns. It undoes only what the state file says was done.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

STATE = "maintenance.json"
LAST = "maintenance.last.json"
LOCK = "lock.json"
CRON_MARK = "#ops.maintenance suspended: "
_OUTPUT_BYTES = 4 * 1024 * 1024
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

State = dict[str, t.Any]


class DamagedStateError(Exception):
    """A state file cannot be read: what was stopped is not known, so nothing may go on."""


def load(state_dir: str, name: str = STATE) -> State:
    """Return a state file's content, empty when it does not exist.

    :raises DamagedStateError: it is there, but is not a JSON object.
    """
    path = os.path.join(state_dir, name)
    try:
        with open(path, encoding="utf-8") as source:
            value = json.load(source)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DamagedStateError(f"{path} cannot be read ({error}); see by hand what does not run, then move it away.") from None
    if not isinstance(value, dict):
        raise DamagedStateError(f"{path} does not hold a JSON object; see by hand what does not run, then move it away.")
    return value


@contextlib.contextmanager
def alone(state_dir: str) -> t.Iterator[None]:
    """Keep a run, the next run and the dead-man switch from undoing or locking at the same moment."""
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def save(state_dir: str, state: State, name: str = STATE) -> None:
    """Replace a state file in one durable step."""
    path = os.path.join(state_dir, name)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as target:
        json.dump(state, target, indent=1, sort_keys=True)
        target.flush()
        os.fsync(target.fileno())
    os.rename(temporary, path)
    folder = os.open(state_dir, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def run(argv: t.Sequence[str], stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command given as an argument list; a time-out counts as a failure, not as an exception.

    Its output goes through files: a service that keeps its starter's output open would hold up a pipe.
    """
    env = {**os.environ, "LC_ALL": "C", "PATH": search_path()}
    text = (stdin or "").encode("utf-8", "surrogateescape")
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(text)
        source.seek(0)
        try:
            code = subprocess.run(list(argv), check=False, env=env, timeout=timeout, stdin=source, stdout=out, stderr=err).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(list(argv), 127, "", str(error))
        said = []
        for output in (out, err):
            output.seek(0)
            said.append(output.read(_OUTPUT_BYTES).decode("utf-8", "surrogateescape"))
    return subprocess.CompletedProcess(list(argv), code, said[0], said[1])


def search_path() -> str:
    """Return where commands are looked for, the system's folders first."""
    return _PATH + ":" + os.environ.get("PATH", "")


def _said(done: subprocess.CompletedProcess[str]) -> str:
    last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return last.encode("utf-8", "backslashreplace").decode("utf-8")


def is_active(service: State) -> bool:
    """Return whether a service runs."""
    if service.get("manager", "systemd") == "systemd":
        return run(["systemctl", "is-active", "--quiet", "--", service["name"]]).returncode == 0
    return run(service["status"]).returncode == 0


def start(service: State) -> str:
    """Start a service; return why that failed, empty when it runs."""
    systemd = service.get("manager", "systemd") == "systemd"
    done = run(["systemctl", "start", "--", service["name"]] if systemd else service["start"])
    if is_active(service):
        return ""
    return f"{service['name']} did not start: {_said(done)}"


def stop(service: State) -> str:
    """Stop a service; return why that failed, empty when it no longer runs."""
    systemd = service.get("manager", "systemd") == "systemd"
    done = run(["systemctl", "stop", "--", service["name"]] if systemd else service["stop"])
    return f"{service['name']} did not stop: {_said(done)}" if is_active(service) else ""


def start_services(state: State) -> list[str]:
    """Start, in the declared order, exactly the services that ran before and that we stopped."""
    problems = []
    for service in state.get("services", []):
        if service.get("was_active") and service.get("stopped") and not is_active(service):
            problem = start(service)
            if problem:
                problems.append(problem)
    return problems


def resume_timers(state: State) -> list[str]:
    """Start the timers that ran before and that we stopped."""
    wanted = [timer for timer in state.get("timers", []) if timer.get("was_active") and timer.get("stopped")]
    return [problem for problem in map(start, wanted) if problem]


def resume_cron(state: State) -> list[str]:
    """Put suspended cron files and lines back, without touching what was changed since."""
    problems = []
    for job in state.get("cron", []):
        try:
            if job["kind"] == "file":
                _resume_cron_file(job)
            else:
                _resume_user_crontab(job["user"])
        except (OSError, RuntimeError) as error:
            problems.append(f"cron entry {job.get('path') or job.get('user')} was not resumed: {error}")
    return problems


def _resume_cron_file(job: State) -> None:
    if not os.path.exists(job["suspended_path"]):
        return
    if os.path.exists(job["path"]):
        raise RuntimeError(f"{job['path']} exists again; {job['suspended_path']} was left for you to compare")
    os.rename(job["suspended_path"], job["path"])


def read_crontab(user: str) -> str:
    """Return a user's crontab, empty when there is none."""
    listed = run(["crontab", "-u", user, "-l"])
    if listed.returncode != 0 and "no crontab" not in listed.stderr:
        raise RuntimeError(_said(listed))
    return listed.stdout if listed.returncode == 0 else ""


def write_crontab(user: str, text: str) -> None:
    """Replace a user's crontab and check that it holds the text."""
    done = run(["crontab", "-u", user, "-"], stdin=text)
    if done.returncode != 0:
        raise RuntimeError(_said(done))


def _resume_user_crontab(user: str) -> None:
    text = read_crontab(user)
    if CRON_MARK in text:
        lines = [line[len(CRON_MARK) :] if line.startswith(CRON_MARK) else line for line in text.split("\n")]
        write_crontab(user, "\n".join(lines))


def remove_page(state: State) -> list[str]:
    """Take the maintenance page away and let the web server know."""
    page = state.get("page") or {}
    if not page:
        return []
    for path in page["files"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    done = run(page["reload"])
    return [f"the web server did not reload without the maintenance page: {_said(done)}"] if done.returncode else []


STEPS: t.Sequence[t.Callable[[State], list[str]]] = (start_services, resume_timers, resume_cron, remove_page)


def bring_back(state_dir: str, by: str, now: float | None = None) -> list[str]:
    """Undo everything the state file says was done, then archive it and release the lock. Call it inside :func:`alone`.

    :param by: ``run``, ``next run``, ``deadman`` or ``boot``; kept for the report.
    :return: what could not be undone; then the state file stays, so that it can be tried again.
    """
    state = load(state_dir)
    if not state:
        return []
    problems = [problem for step in STEPS for problem in step(state)]
    state["left_by"], state["left_at"], state["problems"] = by, now or time.time(), problems
    save(state_dir, state)
    if problems:
        return problems
    os.replace(os.path.join(state_dir, STATE), os.path.join(state_dir, LAST))
    if by in ("deadman", "boot") and load(state_dir, LOCK).get("run_id") == state.get("run_id"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(state_dir, LOCK))
    return []


def _wait_until(state_dir: str, moment: float, run_id: str) -> bool:
    """Wait while the run is in maintenance mode; a switch that outlived its run must not touch the next one's."""
    while time.time() < moment:
        if load(state_dir).get("run_id") != run_id:
            return False
        time.sleep(min(2.0, max(0.05, moment - time.time())))
    return True


def main(argv: t.Sequence[str] | None = None) -> int:
    """Entry point of the dead-man switch."""
    parser = argparse.ArgumentParser(description="Bring this host back from maintenance.")
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--by", choices=("deadman", "boot"), default="deadman")
    parser.add_argument("--at", type=float, default=0.0, help="seconds since the epoch; wait until then")
    parser.add_argument("--run-id", default="", help="with --at: the run that the switch belongs to")
    given = parser.parse_args(argv)
    if given.at and not _wait_until(given.state_dir, given.at, given.run_id):
        return 0
    with alone(given.state_dir):
        state = load(given.state_dir)
        if given.at and state.get("run_id") != given.run_id:
            return 0
        if given.by == "boot" and state.get("reboot_expected"):
            state["reboot_expected"] = False
            save(given.state_dir, state)
            return 0
        problems = bring_back(given.state_dir, given.by)
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return 1 if problems else 0


def systemd_is_here() -> bool:
    """Return whether systemd manages this machine and we may talk to it."""
    return os.path.isdir("/run/systemd/system") and os.geteuid() == 0 and shutil.which("systemctl", path=_PATH) is not None


if __name__ == "__main__":
    raise SystemExit(main())
