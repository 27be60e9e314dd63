"""The three ways to start a cadence run the same tasks: typed beside the playbooks, from the root as AWX does, and by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


def tasks(folder: Path, playbook: str, inventory: str) -> list[str]:
    """List what a call would run, without the heading, which names the playbook as it was given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    listed = subprocess.run(
        [str(ANSIBLE_PLAYBOOK), playbook, "-i", inventory, "--list-tasks"],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.strip() for line in listed.stdout.splitlines() if line.strip() and not line.startswith("playbook:")]


@pytest.mark.parametrize("cadence", ["daily", "weekly", "monthly", "quarterly", "restore_drill"])
def test_all_forms_of_a_call_run_the_same_tasks(cadence):
    beside_the_playbooks = tasks(ROOT / "playbooks", f"{cadence}.yml", "prod")
    assert len(beside_the_playbooks) > 3
    assert tasks(ROOT, f"playbooks/{cadence}.yml", "inventories/prod") == beside_the_playbooks
    assert tasks(ROOT, f"ops.maintenance.{cadence}", "inventories/prod") == beside_the_playbooks
