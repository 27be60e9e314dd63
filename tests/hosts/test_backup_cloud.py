"""Backups in a store behind the site's own command: listed, fetched one at a time, verified as files of their kind."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import sys

import pytest
from backups import Verifier, flip

from ansible_collections.ops.maintenance.plugins.module_utils import backup_cloud
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError

_TOOL = """#!{python}
import json, os, shutil, sys, time
from datetime import datetime, timezone
store = os.environ["STORE"]
if os.environ.get("TOKEN") != "s3cret-of-the-store":
    sys.exit("denied: " + os.environ.get("TOKEN", ""))
if sys.argv[1] == "list":
    for name in sorted(os.listdir(store)):
        status = os.stat(os.path.join(store, name))
        print(int(os.environ.get("SIZE") or status.st_size), datetime.fromtimestamp(status.st_mtime, timezone.utc).isoformat(), name)
elif os.environ.get("HANG"):
    time.sleep(60)
elif os.environ.get("FLOOD"):
    with open(sys.argv[3], "wb") as target:
        while True:
            target.write(bytes(1 << 20)); target.flush(); time.sleep(0.01)
elif not os.environ.get("SILENT"):
    data = open(os.path.join(store, sys.argv[2]), "rb").read()
    open(sys.argv[3], "wb").write(data[: int(os.environ.get("CUT") or len(data))])
"""


@pytest.fixture
def store(tmp_path):
    """A store with one packed database, and the tool that reaches it with a secret."""
    folder = tmp_path / "store"
    folder.mkdir()
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO orders (text) VALUES (?)", [(os.urandom(30).hex(),) for _row in range(500)])
    connection.close()
    (folder / "app.db.gz").write_bytes(gzip.compress((tmp_path / "app.db").read_bytes()))
    tool = tmp_path / "tool"
    tool.write_text(_TOOL.format(python=sys.executable))
    tool.chmod(0o755)
    return tmp_path


def declared(store, secret="s3cret-of-the-store", command=None, **more):
    environment = store / "environment"
    lines = {"STORE": str(store / "store"), "TOKEN": secret, **more.pop("environment", {})}
    environment.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    environment.chmod(0o600)
    tool = str(store / "tool")
    given = {"list": [tool, "list"], "fetch": [tool, "fetch", "{name}", "{target}"], "kind": "sqlite", "environment_file": str(environment),
             "maximum_bytes": 10_000_000, **(command or {})}  # fmt: skip
    return {"kind": "command", "command": given, "level": 5, "required_tables": ["orders"], "count_tables": ["orders"],
            "source": str(store / "app.db"), **more}  # fmt: skip


@pytest.fixture
def verify(tmp_path_factory):
    return Verifier(tmp_path_factory.mktemp("v"))


def test_an_intact_backup_is_fetched_and_proven_and_the_transfer_is_timed(store, verify):
    """asr-14-6: the retrieval from where the backup lies is tested, and how long the transfer takes is measured."""
    seen = verify(**declared(store))
    assert (seen.bad, seen.level) == ({}, 5)
    assert "a second" in str(seen["structure"].evidence)
    metrics = {metric.name: metric.value for metric in seen.outcome.metrics}
    assert metrics["backup.read_seconds"] > 0
    assert metrics["backup.rto_seconds"] >= metrics["backup.read_seconds"]
    assert "s3cret" not in seen.text


@pytest.mark.parametrize("fault", ["flipped", "cut off in the store", "empty", "cut off on the way", "nothing fetched"])
def test_damage_in_the_store_or_on_the_way_is_found(store, verify, fault):
    path, environment = store / "store" / "app.db.gz", {}
    if fault == "flipped":
        flip(path)
    elif fault == "cut off in the store":
        os.truncate(path, path.stat().st_size // 2)
    elif fault == "empty":
        os.truncate(path, 0)
    elif fault == "cut off on the way":
        environment = {"CUT": "1000"}
    else:
        environment = {"SILENT": "1"}
    seen = verify(**declared(store, environment=environment))
    assert seen.level <= 0
    assert seen.state("level") == "critical"


def test_a_transfer_that_broke_off_is_found_by_its_size_where_nothing_else_shows_it(store, verify):
    (store / "store" / "app.db.gz").unlink()
    (store / "store" / "export.csv").write_text("1;2;3\n" * 1000)
    command = {"kind": "files"}
    assert verify(**declared(store, command=command, level=2)).level == 2
    seen = verify(**declared(store, command=command, level=2, environment={"CUT": "1000"}))
    assert (seen.level, seen.state("structure")) == (0, "critical")
    assert "1000 bytes were fetched" in seen["structure"].summary


def test_a_wrong_secret_and_a_missing_tool_are_unknown_and_the_secret_is_nowhere(store, verify):
    seen = verify(**declared(store, secret="an0ther-s3cret"))
    assert (seen.level, seen.state("present")) == (-1, "unknown")
    assert "an0ther-s3cret" not in seen.text
    assert verify(**declared(store, command={"list": ["/nonexistent/tool"]})).state("present") == "unknown"


def test_more_than_the_limit_is_not_fetched_and_a_flood_is_stopped(store, verify):
    seen = verify(**declared(store, command={"maximum_bytes": 100}))
    assert (seen.level, seen.state("structure")) == (0, "unknown")
    seen = verify(**declared(store, environment={"FLOOD": "1"}))
    assert (seen.level, seen.state("structure")) == (0, "unknown")
    assert "more than the limit" in seen["structure"].summary


def test_a_transfer_that_hangs_is_stopped(store, verify):
    seen = verify(**declared(store, environment={"HANG": "1"}, command={"timeout_seconds": 1.5}))
    assert (seen.level, seen.state("structure")) == (0, "unknown")
    assert "did not end in time" in seen["structure"].summary


def test_an_empty_store_and_a_stale_backup_are_found(store, verify):
    os.utime(store / "store" / "app.db.gz", (1_700_000_000, 1_700_000_000))
    assert verify(**declared(store, level=0)).state("age") == "critical"
    os.unlink(store / "store" / "app.db.gz")
    assert verify(**declared(store)).state("present") == "critical"


def test_encryption_is_told_by_what_was_fetched(store, verify):
    """netpost-bak-03: stored encrypted, proven by its bytes."""
    assert verify(**declared(store, encrypted=True)).state("encryption") == "critical"


def test_a_declaration_that_cannot_work_is_refused_all_at_once(store, verify):
    with pytest.raises(InputError) as caught:
        verify(**declared(store, command={"fetch": ["/bin/cp"], "maximum_bytes": 0}))
    assert "{name} and {target}" in str(caught.value)
    assert "maximum_bytes" in str(caught.value)


def test_a_list_is_read_as_lines_or_json_and_nothing_else():
    when = "2026-11-25T01:00:00Z"
    assert list(backup_cloud.read_list(f"12 {when} a b.gz\n")) == [(12, when, "a b.gz")]
    assert list(backup_cloud.read_list(json.dumps([{"size": 12, "time": when, "name": "a"}]))) == [(12, when, "a")]
    assert list(backup_cloud.read_list("")) == []
    for said in ("usage: tool list\n", '[{"size": 1}]', "[1"):
        with pytest.raises(MaintenanceError):
            list(backup_cloud.read_list(said))
