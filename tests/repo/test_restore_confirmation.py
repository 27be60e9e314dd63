"""A restore by hand happens only where somebody typed the host and the backup: otherwise the run ends before anything is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cycle import ANSIBLE_PLAYBOOK, COLLECTION

pytestmark = pytest.mark.slow

BACKUP = "/srv/backups/archives/shop.dump"
CONFIRM = "Refuse what nobody confirmed"
TO_TYPE = f'restore_confirm="h1 {BACKUP}"'
GIVEN = {
    "absent": [],
    "empty": ["-e", "restore_confirm="],
    "another host": ["-e", f"restore_confirm=h2 {BACKUP}"],
    "another backup": ["-e", "restore_confirm=h1 /srv/backups/archives/older.dump"],
    "the host alone": ["-e", "restore_confirm=h1"],
    "the backup alone": ["-e", f"restore_confirm={BACKUP}"],
    "yes": ["-e", "restore_confirm=yes"],
}
RIGHT = {"as it is shown": ["-e", f"restore_confirm=h1 {BACKUP}"], "as JSON": ["-e", f'{{"restore_confirm": "h1 {BACKUP}"}}']}


def work() -> list[dict[str, Any]]:
    """Return the tasks of a restore by hand between the lock and the way back."""
    tasks = yaml.safe_load((COLLECTION / "roles/cycle/tasks/restore_by_hand.yml").read_text())
    host = next(task for task in tasks if task["name"] == "Restore | Restore on the host")
    return next(task for task in host["block"] if task["name"] == "Restore | Work and bring the host back")["block"]


def run(folder: Path, given: list[str]) -> tuple[int, str, bool]:
    """Run the role's own task between a proven backup and a restore; return how it ended, what it said and whether it went on."""
    task = next(task for task in work() if task["name"] == f"Restore | {CONFIRM}")
    restored = folder / "restored"
    play = {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "vars": {
            "ansible_python_interpreter": sys.executable,
            "__snapshot_restore_assessment": {"database": "main/shop", "backup": BACKUP},
        },
        "tasks": [task, {"ansible.builtin.copy": {"content": "", "dest": str(restored), "mode": "0600"}}],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    (folder / "ansible.cfg").write_text("")
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    ran = subprocess.run(
        [str(ANSIBLE_PLAYBOOK), "play.yml", "-i", "h1,", *given],
        env={**env, "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "NO_COLOR": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ran.returncode, (ran.stdout + ran.stderr).replace('\\"', '"'), restored.exists()


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_without_the_right_words_nothing_is_restored_and_they_are_named(tmp_path: Path, given: list[str]) -> None:
    code, said, went_on = run(tmp_path, given)
    assert (code != 0, went_on) == (True, False), said
    assert f"Nothing was changed. To restore main/shop on h1 from {BACKUP}, run again with -e {TO_TYPE}." in said


@pytest.mark.parametrize("given", RIGHT.values(), ids=RIGHT)
def test_the_words_that_are_named_are_taken(tmp_path: Path, given: list[str]) -> None:
    code, said, went_on = run(tmp_path, given)
    assert (code, went_on) == (0, True), said


def test_before_it_is_confirmed_nothing_is_stopped_or_written() -> None:
    names = [task["name"].removeprefix("Restore | ") for task in work()]
    assert names == ["See what does not work and call those who recover it", "Prove the backup", CONFIRM, "Restore it"]
    prove = yaml.safe_load((COLLECTION / "roles/snapshot/tasks/restore_prove.yml").read_text())
    assert [task["check_mode"] for block in prove for task in block["block"]] == [True]
