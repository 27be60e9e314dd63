"""Whole applications with a real database: what its rows name is looked for in the backup of the files; nothing is started that cannot be kept apart."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time

import pytest
from backups import COMMON, filled
from clusters import MAJOR

from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification, postgresql, postgresql_programs
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

FILES = {"shop/uploads/a.pdf": b"a", "shop/uploads/b b.pdf": b"b"}


@pytest.fixture
def dump(cluster, database, tmp_path):
    with postgresql.connect(cluster.server, database) as session:
        session.execute("CREATE TABLE public.uploads (path text)")
        session.execute("INSERT INTO public.uploads VALUES ('a.pdf'), ('b b.pdf')")
    (tmp_path / "db").mkdir()
    program = postgresql_programs.find_program("pg_dump", MAJOR)
    command = [program, "-Fc", "-h", cluster.socket, "-U", "postgres", "-f", str(tmp_path / "db/shop.dump"), "-d", database]
    subprocess.run(command, check=True, capture_output=True)
    return database


def drill(tmp_path, database, backed_up, query="SELECT path FROM uploads", **start):
    os.makedirs(tmp_path / "files", exist_ok=True)
    with tarfile.open(tmp_path / "files/shop.tar.gz", "w:gz") as archive:
        for name, data in backed_up.items():
            (tmp_path / "one").write_bytes(data)
            archive.add(tmp_path / "one", name)
    application = {
        "name": "shop",
        "database": "db",
        "files": [{"set": "files", "path": "/srv/shop", "inside": "shop"}],
        "references": [{"query": query, "below": "/srv/shop/uploads"}],
        "maximum_rto_minutes": 60.0,
        **start,
    }
    sets = [
        {"name": "db", "kind": "postgresql", "root": str(tmp_path / "db"), "database": database, "minimum_rows": {"uploads": 2}},
        {"name": "files", "root": str(tmp_path / "files")},
    ]
    with_room = f"/tmp/d{time.monotonic_ns()}"  # its user has to be able to pass
    os.mkdir(with_room, 0o755)
    given = {"sets": sets, "applications": [application], "scratch": f"{with_room}/scratch", "settle_seconds": 0.0, "level": 0}
    params = {**filled(backup_verification.OPTIONS, given), **COMMON, "state_dir": str(tmp_path / "state")}
    outcome = backup_verification.run(params, False, Host())
    assert os.listdir(with_room) == [], "something stayed"
    return {finding.id.partition(".")[2]: finding for finding in outcome.findings if finding.id.startswith("drill.")}


def test_what_rows_name_is_in_the_backup_of_the_files(tmp_path, dump):
    found = drill(tmp_path, dump, FILES)
    assert [found[name].state for name in ("together", "files", "database", "references")] == ["ok"] * 4, found
    assert (found["application"].state, found["rto"].state) == ("unknown", "unknown"), "nothing tells whether it works"


def test_a_file_that_a_row_names_and_the_backup_lacks_is_found(tmp_path, dump):
    found = drill(tmp_path, dump, {"shop/uploads/a.pdf": b"a"})
    assert found["references"].state == "critical"
    assert found["references"].summary.startswith("1 of 2 files that the database names are not in the backup of the files")
    assert list(found["references"].evidence) == ["'b b.pdf'"]


def test_a_query_that_is_refused_or_names_nothing_is_not_ok(tmp_path, dump):
    assert drill(tmp_path, dump, FILES, "DELETE FROM uploads RETURNING path")["references"].state == "unknown"
    assert drill(tmp_path, dump, FILES, "SELECT path FROM uploads WHERE false")["references"].state == "unknown"


def test_a_damaged_dump_leaves_the_application_unknown(tmp_path, dump):
    os.truncate(tmp_path / "db/shop.dump", os.path.getsize(tmp_path / "db/shop.dump") - 60)
    found = drill(tmp_path, dump, FILES)
    assert (found["database"].state, found["application"].state, found["rto"].state) == ("critical", "unknown", "unknown"), found
    assert "references" not in found


def test_what_cannot_be_kept_apart_is_not_started(tmp_path, dump):
    """This container has no systemd: the program would run with the host's own network and files."""
    started = tmp_path / "started"
    tmp_path.chmod(0o777)
    os.makedirs("/srv/shop", exist_ok=True)
    found = drill(tmp_path, dump, FILES, start={"argv": ["/usr/bin/touch", str(started)], "user": "root"})
    assert found["application"].state == "unknown"
    assert "was not started" in found["application"].summary or "could not be started" in found["application"].summary
    assert not started.exists()


def test_a_database_alone_is_not_called_a_whole_application(tmp_path, dump):
    found = drill(tmp_path, dump, FILES, files=[], references=[])
    assert (found["files"].state, found["database"].state) == ("unknown", "ok")
    assert "only its database comes back" in found["files"].summary
