"""Files that rows of a real database name are never removed, and nothing is removed when that cannot be asked."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import stale_files
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host


@pytest.fixture
def uploads(cluster, database, session, tmp_path):
    root = tmp_path / "uploads"
    root.mkdir()

    def run(check=False, age_days=30.0, **reference):
        base = {"server": "main", "database": database, "schema": "public", "table": "files", "column": "path", "match": "name"}
        rule = {name: option.get("default") for name, option in stale_files.RULE.items()}
        rule.update(root=str(root), patterns=["*"], age_days=age_days, referenced_by=[{**base, "may_be_empty": False, **reference}])
        params = {
            "run_id": "", "deadline": 0.0, "state_dir": str(tmp_path / "state"), "self_test": False, "rules": [rule],
            "servers": [{**cluster.server, "name": "main"}],
        }  # fmt: skip
        return stale_files.run(params, check, Host())

    session.execute("CREATE TABLE files (path text)")
    run.root = root
    return run


def put(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(str(root)), os.fsencode(name))
        with open(path, "wb"):
            pass
        os.utime(path, (time.time() - 40 * 86400,) * 2)


def left(root):
    return sorted(os.listdir(root))


def references(outcome):
    return next(finding for finding in outcome.findings if finding.id == "stale_files.references")


def test_files_that_a_row_names_stay(session, uploads):
    """asr-05-3: attachments that a row names are records, wherever and however the row names them."""
    values = ["plain.pdf", "/srv/uploads/2024/absolute.pdf", "C:\\up\\windows.pdf", "https://cdn.example.org/u/signed.pdf?sig=1#p",
              "https://cdn.example.org/%C3%BC%20ber.pdf", "it's 100% %s.pdf", None]  # fmt: skip
    for value in values:
        session.execute("INSERT INTO files VALUES (%s)", [value])
    named = ["plain.pdf", "absolute.pdf", "windows.pdf", "signed.pdf", "ü ber.pdf", "it's 100% %s.pdf"]
    put(uploads.root, *named, "nobody.pdf", "pdf", "lain.pdf")
    assert uploads(check=True).returned["files"] == 3
    done = uploads()
    assert left(uploads.root) == sorted(named)
    assert (references(done).state, references(done).value) == ("ok", 6)


def test_a_name_inside_json(session, uploads):
    session.execute("""CREATE TABLE docs (path jsonb)""")
    session.execute("""INSERT INTO docs VALUES ('{"files": [{"name": "a.pdf"}]}')""")
    put(uploads.root, "a.pdf", "b.pdf")
    uploads(table="docs", match="contains")
    assert left(uploads.root) == ["a.pdf"]


def test_a_name_that_is_no_text_stays(session, uploads):
    session.execute("INSERT INTO files VALUES ('x')")
    put(uploads.root, b"\xff", "y")
    uploads()
    assert left(uploads.root) == [os.fsdecode(b"\xff")]


@pytest.mark.parametrize("change", [{"table": "nope"}, {"column": "nope"}, {"database": "nope"}, {}])
def test_nothing_goes_when_nobody_can_say(session, uploads, change):
    """A missing table, column or database, and a table that names no file at all, as after a failed restore."""
    put(uploads.root, "a")
    if change:
        session.execute("INSERT INTO files VALUES ('b')")
    for check in (True, False):
        outcome = uploads(check, **change)
        assert references(outcome).state == "unknown"
        assert not outcome.is_change
    assert left(uploads.root) == ["a"]
    if not change:
        assert uploads(may_be_empty=True).returned["files"] == 1


def test_rows_that_a_policy_hides_are_no_proof(session, uploads, cluster, monkeypatch):
    session.execute("INSERT INTO files VALUES ('a')")
    session.execute("ALTER TABLE files ENABLE ROW LEVEL SECURITY")
    session.execute("CREATE ROLE reader LOGIN")
    try:
        session.execute("GRANT SELECT ON files TO reader")
        monkeypatch.setattr(cluster, "server", {**cluster.server, "user": "reader"})
        put(uploads.root, "a")
        assert references(uploads(may_be_empty=True)).state == "unknown"
        assert left(uploads.root) == ["a"]
    finally:
        session.execute("DROP OWNED BY reader")
        session.execute("DROP ROLE reader")
