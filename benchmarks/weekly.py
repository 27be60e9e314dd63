#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The weekly run against the same procedure in plain Ansible (baseline/weekly.yml): control-node CPU and wall time per host.

Hosts are systemd containers with the FossaWork of the tests, reached over the docker connection, so that modules run in the
containers and only what the control node does is counted: ansible-playbook, its workers and their `docker exec`. Ours keeps its
journal, store and report; the baseline keeps nothing.

first   the run that finds a week's work: updates, a database to compact, logs to archive; on hosts made anew for each run
steady  the run after it: nothing is due; both take turns on the same hosts, right after a first run of ours
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
IMAGE = os.environ.get("BENCH_IMAGE", "ops-maintenance-test:bookworm")
NAME = f"bench-weekly-{os.getpid()}"
PREPARE = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Install FossaWork
      ansible.builtin.include_tasks: ../shared/fossawork/tasks.yml
    - name: Have updates pending
      ansible.builtin.include_tasks: ../shared/local_repository/tasks.yml
      vars: {local_repository_arguments: [--pending]}
"""
CONFIG = """
[defaults]
collections_path = {root}/collections
{callbacks}
inject_facts_as_vars = false
interpreter_python = auto_silent
forks = 20
retry_files_enabled = false
internal_poll_interval = 0.02
[connection]
pipelining = true
"""
# In this order ours has had its first run on the hosts of the steady runs.
PLAYBOOKS = {"plain": str(ROOT / "benchmarks/baseline/weekly.yml"), "ours": "ops.maintenance.weekly"}
CALLBACKS = {"ours": "callbacks_enabled = ops.maintenance.journal", "plain": ""}


def docker(*words: str) -> str:
    """Run the docker client and return what it printed."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def wait_for_boot(name: str) -> None:
    """Wait until systemd has started everything; in its first moments it does not even answer."""
    deadline = time.monotonic() + 120
    command = ["docker", "exec", name, "systemctl", "is-system-running", "--wait"]
    while subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() not in {"running", "degraded"}:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} has not booted in 120 s")
        time.sleep(0.2)


class Fleet:
    """Hosts made from one prepared image, so that each is as the others, and made anew within seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = f"{NAME}:prepared"
        given = yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())["driver"]["host"]
        self.options = [
            *(f"--cap-add={name}" for name in given["capabilities"]),
            *(f"--security-opt={option}" for option in given["security_opts"]),
            *(f"--volume={volume}" for volume in given["volumes"]),
            *(f"--tmpfs={mount}" for mount in given["tmpfs"]),
            f"--cgroupns={given['cgroupns_mode']}",
            f"--stop-signal={given['stop_signal']}",
        ]
        self.hosts: list[str] = []

    def start(self, names: list[str], image: str) -> None:
        """Start hosts and wait until systemd has started everything."""
        self.hosts += names
        for name in names:
            docker("run", "--detach", f"--name={name}", *self.options, image, "/lib/systemd/systemd")
        for name in names:
            wait_for_boot(name)

    def remove(self) -> None:
        """Remove the hosts."""
        if self.hosts:
            subprocess.run(["docker", "rm", "--force", "--volumes", *self.hosts], check=False, capture_output=True)
        self.hosts = []

    def prepare(self) -> None:
        """Make the image: FossaWork with work that is due."""
        name = f"{NAME}-prepare"
        self.start([name], IMAGE)
        # where the tasks of the scenarios find their files
        playbook = self.folder / "molecule/bench/prepare.yml"
        playbook.parent.mkdir(parents=True)
        (self.folder / "molecule/shared").symlink_to(ROOT / "molecule/shared")
        playbook.write_text(PREPARE)
        run(self.folder, "plain", str(playbook), self.inventory([name]), {})
        docker("exec", name, "systemctl", "stop", "fossawork-backend", "fossawork-frontend")
        docker("commit", name, self.image)
        self.remove()

    def make(self, count: int) -> Path:
        """Make hosts anew and return their inventory."""
        self.remove()
        names = [f"{NAME}-{number:02d}" for number in range(1, count + 1)]
        self.start(names, self.image)
        return self.inventory(names)

    def inventory(self, names: list[str]) -> Path:
        """Write an inventory beside the production group_vars."""
        folder = self.folder / "inventory"
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (folder / "group_vars").symlink_to(ROOT / "inventories/prod/group_vars")
        hosts = dict.fromkeys(names)
        values = {"ansible_connection": "community.docker.docker"}
        groups = {"maintained": {"hosts": hosts, "vars": values}, "fossawork": {"hosts": hosts}}
        path = folder / "hosts.yml"
        path.write_text(yaml.safe_dump(groups))
        return path

    def close(self) -> None:
        """Leave nothing behind."""
        self.remove()
        subprocess.run(["docker", "rmi", "--force", self.image], check=False, capture_output=True)


def run(folder: Path, contestant: str, playbook: str, inventory: Path, variables: dict[str, Any]) -> dict[str, float]:
    """Run a playbook and return what it and all its children used on the control side."""
    config = folder / f"{contestant}.cfg"
    config.write_text(CONFIG.format(root=ROOT, callbacks=CALLBACKS[contestant]))
    extra, log = folder / f"{contestant}.json", folder / f"{contestant}.log"
    extra.write_text(json.dumps(variables))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), playbook, "-i", str(inventory), "-e", f"@{extra}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "OPS_MAINTENANCE_"))}
    environment |= {"ANSIBLE_CONFIG": str(config), "OPS_MAINTENANCE_JOURNAL_DIR": str(folder / "journal"), "ANSIBLE_NOCOLOR": "1"}
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    started = time.perf_counter()
    output = [(os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    pid = os.posix_spawn(command[0], command, environment, file_actions=output)
    try:
        _pid, status, usage = os.wait4(pid, 0)
    except BaseException:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        raise
    wall = time.perf_counter() - started
    text = log.read_text(errors="replace")
    if status:
        raise RuntimeError(f"{playbook} ended with {os.waitstatus_to_exitcode(status)}:\n{text[-6000:]}")
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "wall_seconds": wall, **recap(text)}


def recap(text: str) -> dict[str, float]:
    """Return tasks by their end, for one host, from Ansible's own recap."""
    hosts = re.findall(r"^\S+ +: ok=(\d+) +changed=(\d+) .*skipped=(\d+)", text.partition("PLAY RECAP")[2], re.MULTILINE)
    return {name: statistics.mean(int(host[index]) for host in hosts) for index, name in enumerate(("ok", "changed", "skipped"))}


class Match:
    """Both contestants on the same fleet."""

    def __init__(self, fleet: Fleet, count: int, serial: Any) -> None:
        self.fleet, self.count = fleet, count
        tests = yaml.safe_load((ROOT / "molecule/default/converge.yml").read_text())[0]["vars"]
        self.variables = {**tests, "maintenance_report_dir": str(fleet.folder / "report")}
        if serial:
            self.variables["maintenance_serial"] = serial

    def once(self, contestant: str, inventory: Path) -> dict[str, float]:
        """Let one contestant run once."""
        used = run(self.fleet.folder, contestant, PLAYBOOKS[contestant], inventory, self.variables)
        told = ", ".join(f"{key} {value / (self.count if 'seconds' in key else 1):.2f}" for key, value in used.items())
        print(f"weekly: {self.count} hosts, {contestant}: {told}", file=sys.stderr, flush=True)
        return used

    def play(self, firsts: int, steadies: int) -> dict[str, Any]:
        """Measure first and steady runs."""
        first: dict[str, list[dict[str, float]]] = {name: [] for name in PLAYBOOKS}
        steady: dict[str, list[dict[str, float]]] = {name: [] for name in PLAYBOOKS}
        for contestant in [*PLAYBOOKS] * firsts:
            inventory = self.fleet.make(self.count)
            first[contestant].append(self.once(contestant, inventory))
        for contestant in [*reversed(PLAYBOOKS)] * steadies:
            steady[contestant].append(self.once(contestant, inventory))
        # False where ours found work again, such as what the baseline left behind between its runs.
        quiet = not any(used["changed"] for used in steady["ours"])
        return {"first": self.summary(first), "steady": {**self.summary(steady), "nothing_was_due": quiet}}

    def summary(self, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
        """Return medians per host, and ours as a share of the baseline."""
        result: dict[str, Any] = {}
        for name, used in runs.items():
            median = {key: statistics.median(one[key] for one in used) for key in used[0]}
            result[name] = {"runs": len(used)} | {
                (f"{key}_per_host" if "seconds" in key else key): round(value / (self.count if "seconds" in key else 1), 3)
                for key, value in median.items()
            }
        result["ratios"] = {
            kind: round(result["ours"][f"{kind}_seconds_per_host"] / result["plain"][f"{kind}_seconds_per_host"], 3)
            for kind in ("cpu", "wall")
        }
        return result


@contextlib.contextmanager
def fleet() -> Iterator[Fleet]:
    """Make a fleet and take it down again, whatever happens."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    folder = Path(tempfile.mkdtemp(prefix="bench-weekly-"))
    made = Fleet(folder)
    try:
        made.prepare()
        yield made
    finally:
        for number in before:  # timeout(1) and impatient people send a second one
            signal.signal(number, signal.SIG_IGN)
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def main(out: Path, hosts: tuple[int, ...] = (1, 20), serial: Any = None) -> dict[str, Any]:
    """Measure, write the result as JSON to ``out`` and return it."""
    result: dict[str, Any] = {"hosts": {}, "serial": serial or [1, "25%"], "forks": 20, "connection": "docker", "pipelining": True}
    with fleet() as made:
        for count in hosts:
            result["hosts"][str(count)] = Match(made, count, serial).play(*((2, 3) if count < 5 else (1, 1)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hosts", default="1,20", help="numbers of hosts, by commas (1,20)")
    options.add_argument("--serial", help="hosts of a batch, for both; without it 1 and then a quarter")
    options.add_argument("--out", type=Path, default=Path(".cache/bench-weekly.json"))
    chosen = options.parse_args()
    print(json.dumps(main(chosen.out, tuple(int(word) for word in chosen.hosts.split(",")), chosen.serial), indent=2))
