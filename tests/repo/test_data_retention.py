"""The role that lets go of rows, as `ansible-playbook` runs it: without its snapshot it goes no further."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT, REMOVAL = "Apply | Take a proven snapshot before the first row goes", "Apply | Move or remove the rows"


def run(folder: Path, **variables: object) -> tuple[int, str]:
    """Run the role from the step on that comes after rows were found to be due, with a server that does not answer."""
    server = {"name": "main", "host": str(folder / "nowhere"), "os_user": "", "databases": ["shop"]}
    rule = {"server": "main", "database": "shop", "table": "log", "column": "at", "age_days": 30, "archive_table": ""}
    given = {
        "maintenance_state_dir": str(folder / "state"),
        "data_retention_postgresql": [server],
        "data_retention_rules": [rule],
        "data_retention_snapshot_root": str(folder / "snapshots"),
        "__data_retention_rows": {"changed": True},
        **variables,
    }
    play = {
        "hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["ops.maintenance.data_retention"],
        "vars": {"ansible_python_interpreter": sys.executable},
    }  # fmt: skip
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    (folder / "ansible.cfg").write_text((ROOT / "ansible.cfg").read_text().replace("collections_path = ", f"collections_path = {ROOT}/"))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "OPS_MAINTENANCE_"))}
    env |= {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "OPS_MAINTENANCE_JOURNAL_DIR": str(folder / "journal"), "NO_COLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "play.yml", "--start-at-task", SNAPSHOT, "-e", json.dumps(given)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_no_row_goes_when_the_snapshot_before_it_failed(tmp_path):
    """asr-03-1, netpost-db-07: deleting is preceded by a proven snapshot, or it does not happen."""
    code, said = run(tmp_path)
    assert code != 0
    assert SNAPSHOT in said
    assert REMOVAL not in said


def test_the_twin_that_does_not_ask_for_a_snapshot_goes_on(tmp_path):
    _code, said = run(tmp_path, data_retention_require_snapshot=False)
    assert REMOVAL in said
