"""Runs that are killed, cut off or lose their host: services come back, no data is lost, the next run works, the journal tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers import findings, of_kind, runs

from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import read_journal

NAME = "fossa-recovery"
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
SCENARIO = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CONVERGE = PROJECT / "molecule/recovery/converge.yml"
ROWS = ["ok", "25000", "2000"]
SOON = 30
"""Seconds after which the dead-man switch acts in these tests; a busy machine takes some of them from the stop to the snapshot."""


def inside(*argv: str) -> str:
    return subprocess.run(["docker", "exec", NAME, *argv], check=True, capture_output=True, text=True).stdout.strip()


def is_active(unit: str) -> bool:
    return subprocess.run(["docker", "exec", NAME, "systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


def rows() -> list[str]:
    query = "PRAGMA integrity_check; SELECT count(*) FROM work_orders; SELECT count(*) FROM dispensers;"
    return inside("sqlite3", "/backend/fossawork_v2.db", query).split()


def wait(what: str, seconds: float, check) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, f"waited {seconds} s for: {what}"
        time.sleep(0.1)


def everything_runs() -> bool:
    units = ("fossawork-backend", "fossawork-frontend", "fossawork-sync.timer")
    return all(is_active(unit) for unit in units) and "fossawork" in inside("ls", "/etc/cron.d").split()


def write_hosts(folder: Path) -> None:
    """Say where the host is now: after an interruption it may have come back with another address."""
    address = subprocess.run(
        ["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", NAME],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    options = (
        "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=3 -o ServerAliveInterval=1 -o ServerAliveCountMax=3"
    )
    host = {
        "ansible_host": address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(SCENARIO / "id_ed25519"),
        "ansible_ssh_common_args": f"{options} -o ControlMaster=no",
    }
    text = {"maintained": {"children": {"fossawork": {"hosts": {NAME: host}}}}}
    if address or not (folder / "hosts.yml").exists():
        (folder / "hosts.yml").write_text(yaml.safe_dump(text))


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """The host through ssh, as a real one is reached, with the production variables of its group."""
    (tmp_path / "group_vars").symlink_to(PROJECT / "inventories/prod/group_vars")
    write_hosts(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def work_is_due() -> Iterator[None]:
    """Make VACUUM due: a run then goes through the whole transaction."""
    wait("the host to be in service", 60, everything_runs)
    script = "INSERT INTO work_orders SELECT id + 100000, site, status, notes FROM work_orders; DELETE FROM work_orders WHERE id > 100000;"
    inside("sqlite3", "/backend/fossawork_v2.db", ".timeout 10000", script)
    yield
    # whatever a failed test left behind must not fail the next
    for argv in (
        ["docker", "start", NAME],
        ["docker", "network", "connect", "bridge", NAME],
        ["docker", "exec", NAME, "python3", "/var/lib/ops_maintenance/undo.py", "--state-dir", "/var/lib/ops_maintenance"],
    ):
        subprocess.run(argv, check=False, capture_output=True)


class Run:
    """A run of the week in a process group of its own."""

    def __init__(self, inventory: Path, **extra: object) -> None:
        self.before = set(runs())
        write_hosts(inventory)
        log = (SCENARIO / "run.log").open("w")
        argv = ["ansible-playbook", str(CONVERGE), "-i", str(inventory / "hosts.yml"), "-e", json.dumps(extra)]
        env = {**os.environ, "OPS_MAINTENANCE_REPORT_DIR": str(SCENARIO / "report"), "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
        self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=env, cwd=PROJECT, start_new_session=True)

    @property
    def journal(self) -> Path | None:
        new = set(runs()) - self.before
        return new.pop() if new else None

    def wait_for(self, operation: str, status: str) -> None:
        """Wait until the journal has a record."""

        def is_there() -> bool:
            assert self.process.poll() is None, (SCENARIO / "run.log").read_text()[-3000:]
            if self.journal is None:
                return False
            lines = read_journal(str(self.journal)).lines
            return any(line["kind"] == "record" and (line["operation"], line["status"]) == (operation, status) for line in lines)

        wait(f"{operation} {status}", 300, is_there)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> int:
        return self.process.wait(timeout=600)


def completes(inventory: Path) -> Path:
    """Run again, undisturbed, and return the journal."""
    run = Run(inventory)
    assert run.finish() == 0, (SCENARIO / "run.log").read_text()[-3000:]
    assert run.journal is not None
    [outcome] = of_kind("outcome", run.journal)
    assert outcome["outcome"] == "completed"
    assert everything_runs()
    assert rows() == ROWS
    return run.journal


def was_interrupted(journal: Path | None) -> dict[str, str]:
    read = read_journal(str(journal))
    assert read.state == "interrupted"
    assert not read.broken_at
    assert read.interrupted is not None
    return read.interrupted


@pytest.mark.parametrize(
    ("operation", "status"),
    [("lock", "ok"), ("maintenance_mode", "changed"), ("snapshot", "changed"), ("sqlite_upkeep", "changed"), ("serve", "changed")],
)
def test_the_next_run_works_after_the_control_process_was_killed(inventory, operation, status):
    run = Run(inventory)
    run.wait_for(operation, status)
    run.kill()
    was_interrupted(run.journal)
    assert rows() == ROWS
    journal = completes(inventory)
    assert next(found["state"] for found in findings("cycle.interrupted", journal=journal)) == "warning"


@pytest.mark.parametrize(("operation", "status"), [("maintenance_mode", "changed"), ("snapshot", "changed")])
def test_the_host_comes_back_by_itself_after_the_control_process_was_killed(inventory, operation, status):
    run = Run(inventory, maintenance_mode_return_after_seconds=SOON)
    run.wait_for(operation, status)
    run.kill()
    assert not is_active("fossawork-backend")
    assert not is_active("fossawork-sync.timer")
    assert "fossawork" not in inside("ls", "/etc/cron.d").split()
    wait("the dead-man switch", SOON + 30, everything_runs)
    assert rows() == ROWS
    interrupted = was_interrupted(run.journal)
    assert interrupted
    journal = completes(inventory)
    assert any("dead-man switch" in found["summary"] for found in findings("cycle.interrupted", journal=journal))


def test_the_host_comes_back_by_itself_when_the_network_is_cut(inventory):
    run = Run(inventory, maintenance_mode_return_after_seconds=SOON)
    run.wait_for("maintenance_mode", "changed")
    subprocess.run(["docker", "network", "disconnect", "bridge", NAME], check=True)
    assert run.finish() != 0
    wait("the dead-man switch", SOON + 30, everything_runs)
    assert rows() == ROWS
    [outcome] = of_kind("outcome", run.journal)
    assert outcome["outcome"] == "unreachable"
    assert (SCENARIO / "report/latest.html").stat().st_mtime >= run.journal.stat().st_mtime - 60
    subprocess.run(["docker", "network", "connect", "bridge", NAME], check=True)


@pytest.mark.parametrize(("operation", "status"), [("maintenance_mode", "changed"), ("snapshot", "changed")])
def test_the_host_comes_back_by_itself_after_a_power_loss(inventory, operation, status):
    run = Run(inventory)
    run.wait_for(operation, status)
    subprocess.run(["docker", "kill", "--signal", "KILL", NAME], check=True, capture_output=True)
    assert run.finish() != 0
    [outcome] = of_kind("outcome", run.journal)
    assert outcome["outcome"] == "unreachable"
    subprocess.run(["docker", "start", NAME], check=True, capture_output=True)
    wait("the host's start", 60, everything_runs)
    assert rows() == ROWS


def test_a_host_that_is_down_is_reported_and_does_not_hang_the_run(inventory):
    subprocess.run(["docker", "kill", "--signal", "KILL", NAME], check=True, capture_output=True)
    run = Run(inventory)
    assert run.finish() != 0
    [outcome] = of_kind("outcome", run.journal)
    assert outcome["outcome"] == "unreachable"
    subprocess.run(["docker", "start", NAME], check=True, capture_output=True)


def test_a_second_run_at_the_same_time_is_refused(inventory):
    first = Run(inventory)
    first.wait_for("maintenance_mode", "changed")
    second = Run(inventory)
    assert second.finish() != 0
    [outcome] = of_kind("outcome", second.journal)
    assert outcome["outcome"] == "refused"
    assert "locked by run" in outcome["reason"]
    assert first.finish() == 0


def test_a_change_that_loses_rows_is_rolled_back(inventory):
    """The site's check deletes rows and fails: the snapshot is put back, and the check passes after that."""
    lossy = "#!/bin/sh\n[ -e /run/lossy ] && exit 0\ntouch /run/lossy\nsqlite3 /backend/fossawork_v2.db 'DELETE FROM dispensers WHERE id > 100'\nexit 1\n"
    assert rolled_back(inventory, lossy)["outcome"] == "rolled_back"
    assert rows() == ROWS


def test_a_rollback_keeps_what_users_wrote_when_the_database_is_sound(inventory):
    insert = "INSERT INTO dispensers VALUES (9001, 1, 'written meanwhile')"
    busy = f'#!/bin/sh\n[ -e /run/busy ] && exit 0\ntouch /run/busy\nsqlite3 /backend/fossawork_v2.db "{insert}"\nexit 1\n'
    assert rolled_back(inventory, busy)["outcome"] == "rolled_back"
    assert inside("sqlite3", "/backend/fossawork_v2.db", "SELECT model FROM dispensers WHERE id = 9001") == "written meanwhile"
    inside("sqlite3", "/backend/fossawork_v2.db", ".timeout 10000", "DELETE FROM dispensers WHERE id = 9001")


def rolled_back(inventory: Path, check: str) -> dict:
    """Run with another health check of the site, and return the outcome."""
    tool = "/tools/operations/health-check.py"
    original = inside("cat", tool)
    subprocess.run(["docker", "exec", "-i", NAME, "tee", tool], input=check, check=True, text=True, capture_output=True)
    try:
        run = Run(inventory)
        assert run.finish() != 0
        [outcome] = of_kind("outcome", run.journal)
        assert everything_runs()
        return outcome
    finally:
        subprocess.run(["docker", "exec", "-i", NAME, "tee", tool], input=original + "\n", check=True, text=True, capture_output=True)
