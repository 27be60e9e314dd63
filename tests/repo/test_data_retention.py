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
RUN_ID = "weekly-20261121T020000Z-3fa9"


def play(folder: Path, roles: list[str], given: dict[str, object], *more: str) -> tuple[int, str]:
    """Run roles on this machine."""
    book = {
        "hosts": "localhost", "connection": "local", "gather_facts": False, "roles": [f"ops.maintenance.{role}" for role in roles],
        "vars": {"ansible_python_interpreter": sys.executable},
    }  # fmt: skip
    (folder / "play.yml").write_text(yaml.safe_dump([book]))
    (folder / "ansible.cfg").write_text((ROOT / "ansible.cfg").read_text().replace("collections_path = ", f"collections_path = {ROOT}/"))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "OPS_MAINTENANCE_"))}
    env |= {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "OPS_MAINTENANCE_JOURNAL_DIR": str(folder / "journal"), "NO_COLOR": "1"}
    given = {"maintenance_state_dir": str(folder / "state"), **given}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "play.yml", *more, "-e", json.dumps(given)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def run(folder: Path, **variables: object) -> tuple[int, str]:
    """Run the role from the step on that comes after rows were found to be due, with a server that does not answer."""
    server = {"name": "main", "host": str(folder / "nowhere"), "os_user": "", "databases": ["shop"]}
    rule = {"server": "main", "database": "shop", "table": "log", "column": "at", "age_days": 30, "archive_table": ""}
    given = {
        "data_retention_postgresql": [server],
        "data_retention_rules": [rule],
        "data_retention_snapshot_root": str(folder / "snapshots"),
        "__data_retention_rows": {"changed": True},
        **variables,
    }
    return play(folder, ["data_retention"], given, "--start-at-task", SNAPSHOT)


def test_no_row_goes_when_the_snapshot_before_it_failed(tmp_path):
    """asr-03-1, netpost-db-07: deleting is preceded by a proven snapshot, or it does not happen."""
    code, said = run(tmp_path)
    assert code != 0
    assert SNAPSHOT in said
    assert REMOVAL not in said


def test_the_twin_that_does_not_ask_for_a_snapshot_goes_on(tmp_path):
    _code, said = run(tmp_path, data_retention_require_snapshot=False)
    assert REMOVAL in said


@pytest.mark.parametrize(
    ("seen", "declared", "asked"),
    [
        ({"servers": ["cache"]}, ["cache"], ""),
        ({"servers": ["cache"]}, ["cache", "queue"], "queue"),
        ({"skipped": True}, ["cache"], "cache"),
        (None, ["cache"], "cache"),
    ],
)
def test_a_redis_server_that_data_retention_has_looked_at_is_not_reviewed_again(tmp_path, seen, declared, asked):
    """The server does not answer, so the one that is asked is named."""
    servers = [{"name": name, "host": str(tmp_path / "nowhere")} for name in declared]
    given = {"database_review_redis": servers, **({"__data_retention_redis": seen} if seen else {})}
    code, said = play(tmp_path, ["database_review"], given)
    assert (code == 0, "No session with Redis" in said) == (not asked, bool(asked))
    assert f"No session with Redis {asked}" in said or not asked
    tasks = yaml.safe_load((ROOT / "collections/ansible_collections/ops/maintenance/roles/data_retention/tasks/main.yml").read_text())
    (step,) = [task for task in tasks[0]["block"] if "ops.maintenance.redis_upkeep" in task]
    assert step["register"] == "__data_retention_redis"


def sealing(folder: Path) -> dict[str, object]:
    """The variables by which the role snapshot seals."""
    (folder / "key").write_text("a key\n")
    seal = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", f"file:{folder}/key"]
    return {"snapshot_encrypt_command": seal, "snapshot_decrypt_command": [*seal, "-d"], "snapshot_root": str(folder / "snapshots")}


def retained(folder: Path) -> str:
    """What the role says from its snapshot on, where the inventory seals snapshots."""
    return run(folder, data_retention_postgresql=[], maintenance_run_id=RUN_ID, **sealing(folder))[1]


def test_the_sealed_snapshot_that_the_run_has_is_opened_before_rows_go(tmp_path):
    (tmp_path / "env").write_text("A=1\n")
    given = {"maintenance_run_id": RUN_ID, "snapshot_paths": [str(tmp_path / "env")], "snapshot_packages": False, **sealing(tmp_path)}
    code, said = play(tmp_path, ["snapshot"], given)
    assert code == 0, said
    assert REMOVAL in retained(tmp_path)


def test_a_snapshot_that_is_taken_before_rows_go_is_sealed_as_all_of_them(tmp_path):
    assert REMOVAL in retained(tmp_path)
    held = json.loads((tmp_path / "snapshots" / RUN_ID / "manifest.json").read_text())
    assert held["sealed"]["with"] == "openssl enc"
    assert (tmp_path / "snapshots" / RUN_ID / "content.sealed").exists()
