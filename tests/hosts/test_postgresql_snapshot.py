"""Snapshots of real PostgreSQL databases: whole, of one moment, proven, and refused where they would not be."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
import small_disk
from clusters import MAJOR, running_cluster
from faults import FAULTS, seen, strike, up_again
from postgresql_states import RUN, in_process
from recovery_runs import snapshot_params, take
from upkeep_runs import holding, wait_for

from ansible_collections.ops.maintenance.plugins.module_utils import (
    postgresql,
    postgresql_dump,
    postgresql_programs,
    snapshot,
    snapshot_store,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
HOSTILE = 'My "odd" db\'s; $(x) = %s \\ ü'


class Machine(Host):
    def __init__(self, now=NOW):
        self.time = now

    def now(self):
        return self.time


def server_of(cluster, *databases, **more):
    return {
        **cluster.server,
        "databases": list(databases),
        "format": "custom",
        "jobs": 2,
        "sentinels": [],
        "copy_as": "",
        "encrypt_command": [],
        **more,
    }


def of(outcome, finding_id):
    return [finding for finding in outcome.findings if finding.id == finding_id]


def fill(cluster, database, rows=200):
    with postgresql.connect(cluster.server, database) as session:
        session.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, said text)")
        session.execute(f"INSERT INTO public.orders SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, {rows}) i")
        session.execute('CREATE TABLE public."Mixed . ""Case""" (a text)')
        session.execute('INSERT INTO public."Mixed . ""Case""" VALUES (%s), (%s), (NULL)', ["COPY public.x FROM stdin;\n\\.\n", "\\."])
        session.execute("CREATE TABLE public.empty (a int)")
        session.execute("CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS 'SELECT ''\nCOPY public.y (a) FROM stdin;\n1\n'''")
        session.execute("SELECT lo_from_bytea(0, '\\x0a434f5059')")


def manifest_of(tmp_path, run=RUN):
    return snapshot_store.read(str(tmp_path / "snapshots"), run)


@contextlib.contextmanager
def odd_database(cluster, name=HOSTILE):
    with postgresql.connect(cluster.server) as session:
        session.execute(f"CREATE DATABASE {session.identifier(name)}")
    yield name
    with postgresql.connect(cluster.server) as session:
        session.execute(f"DROP DATABASE {session.identifier(name)} WITH (FORCE)")


@pytest.mark.parametrize("fmt", ["custom", "directory"])
def test_a_snapshot_is_whole_and_says_what_it_holds(cluster, database, tmp_path, fmt):
    """asr-03-1, flow-pre-3, netpost-dep-05: custom or directory format, read whole, with everything that proves it."""
    fill(cluster, database)
    env = tmp_path / "app" / ".env"
    env.parent.mkdir()
    env.write_text("SECRET=1\n")
    outcome = take(tmp_path, server_of(cluster, database, format=fmt, sentinels=["orders"]), paths=[str(env)])
    assert outcome.status == "changed"
    assert [f.state for f in of(outcome, "snapshot.postgresql")] == ["ok"]
    manifest = manifest_of(tmp_path)
    server = manifest["postgresql"][0]
    [entry] = server["databases"]
    assert entry["rows"] == {"public.orders": 200, 'public."Mixed . ""Case"""': 3, "public.empty": 0}
    assert entry["sentinels"] == {"public.orders": 200}
    with postgresql.connect(cluster.server) as session:
        assert server["system_identifier"] == postgresql.system_identifier(session)
        assert session.value("SELECT %s::pg_lsn <= pg_current_wal_lsn()", [entry["wal_position"]])
    assert server["major"] == MAJOR
    assert server["server_version"].startswith(str(MAJOR))
    assert entry["started"] <= entry["finished"]
    folder = tmp_path / "snapshots" / RUN
    for file in [server["globals"], *entry["files"]]:
        status = os.stat(folder / file["file"])
        assert status.st_size == file["size"]
        assert stat.S_IMODE(status.st_mode) & 0o077 == 0
    assert os.path.isdir(folder / entry["file"]) == (fmt == "directory")
    assert b"CREATE ROLE postgres" in (folder / server["globals"]["file"]).read_bytes()
    assert stat.S_IMODE(os.stat(folder / server["globals"]["file"]).st_mode) == 0o600
    assert snapshot_store.prove(str(tmp_path / "snapshots"), RUN)["id"] == RUN
    assert manifest["files"][0]["path"] == str(env)
    again = take(tmp_path, server_of(cluster, database, format=fmt, sentinels=["orders"]), paths=[str(env)])
    assert again.status == "ok"


def test_rows_are_counted_at_the_moment_of_the_dump(cluster, database, tmp_path, monkeypatch):
    """asr-03-1: what users write while the dump runs is neither in the count nor in the dump."""
    fill(cluster, database)
    real = postgresql_dump.dump

    def dump(server, name, *more, **options):
        with postgresql.connect(cluster.server, name) as session:
            session.execute("INSERT INTO public.orders SELECT i FROM generate_series(1001, 1100) i")
        return real(server, name, *more, **options)

    monkeypatch.setattr(postgresql_dump, "dump", dump)
    take(tmp_path, server_of(cluster, database, sentinels=["public.orders"]))
    [entry] = manifest_of(tmp_path)["postgresql"][0]["databases"]
    assert entry["sentinels"]["public.orders"] == entry["rows"]["public.orders"] == 200


def test_writers_all_the_time_do_not_make_counts_and_dump_disagree(cluster, database, tmp_path):
    fill(cluster, database)
    stop = threading.Event()
    session = postgresql.connect(cluster.server, database)

    def write():
        with session:
            number = 10_000
            while not stop.is_set():
                number += 1
                session.execute("INSERT INTO public.orders VALUES (%s, 'x')", [number])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for fmt in ("custom", "directory"):
            take(tmp_path, server_of(cluster, database, sentinels=["orders"], format=fmt), run_id=f"run-{fmt}")
            [entry] = manifest_of(tmp_path, f"run-{fmt}")["postgresql"][0]["databases"]
            assert entry["sentinels"]["public.orders"] == entry["rows"]["public.orders"] > 200
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("fmt", ["custom", "directory"])
def test_a_name_with_anything_in_it_is_only_a_name(cluster, tmp_path, fmt):
    with odd_database(cluster) as name:
        fill(cluster, name)
        take(tmp_path, server_of(cluster, name, format=fmt, sentinels=['Mixed . "Case"', "public.orders"][1:]))
        [entry] = manifest_of(tmp_path)["postgresql"][0]["databases"]
        assert entry["database"] == name
        assert entry["rows"]["public.orders"] == 200


def test_check_mode_says_what_it_would_take_and_leaves_nothing(cluster, database, tmp_path):
    fill(cluster, database)
    outcome = take(tmp_path, server_of(cluster, database), check=True)
    assert outcome.status == "due"
    assert [a.subject for a in outcome.actions if a.operation == "dump"] == [f"scratch/{database}"]
    assert of(outcome, "snapshot.disk_room")[0].basis == "estimated"
    assert not os.listdir(tmp_path)


def test_all_databases_are_taken_where_none_is_named(cluster, database, tmp_path):
    take(tmp_path, server_of(cluster))
    names = {entry["database"] for entry in manifest_of(tmp_path)["postgresql"][0]["databases"]}
    assert {database, "postgres"} <= names


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
@pytest.mark.parametrize("fmt", ["custom", "directory"])
def test_damage_of_the_archive_is_found(cluster, database, tmp_path, fmt, damage):
    fill(cluster, database)
    take(tmp_path, server_of(cluster, database, format=fmt))
    [entry] = manifest_of(tmp_path)["postgresql"][0]["databases"]
    victim = max((tmp_path / "snapshots" / RUN / f["file"] for f in entry["files"]), key=os.path.getsize)
    data = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        victim.write_bytes({"cut": data[:-100], "flip": flipped, "empty": b""}[damage])
    with pytest.raises(snapshot_store.BrokenSnapshotError):
        snapshot_store.prove(str(tmp_path / "snapshots"), RUN)


def test_an_archive_that_is_cut_off_is_found_by_reading_it_where_its_list_is_accepted(cluster, database, tmp_path, monkeypatch):
    """asr-03-1: ``pg_restore --list`` accepts it; without reading everything the snapshot would have been called good."""
    fill(cluster, database, 5000)
    real = postgresql_dump.dump
    listed = []

    def dump(*given, **more):
        path = real(*given, **more)
        os.truncate(path, os.path.getsize(path) - 4000)
        program = postgresql_programs.find_program("pg_restore", MAJOR)
        listed.append(subprocess.run([program, "--list", path], check=False, capture_output=True).returncode)
        return path

    monkeypatch.setattr(postgresql_dump, "dump", dump)
    with pytest.raises(MaintenanceError, match="cannot be read to its end"):
        take(tmp_path, server_of(cluster, database))
    assert listed == [0]
    assert snapshot_store.names(str(tmp_path / "snapshots")) == []


def test_a_failed_dump_leaves_nothing_and_stops_the_maintenance(cluster, database, tmp_path):
    """asr-03-5, netpost-bak-08: nothing under a final name, and the run fails."""
    fill(cluster, database)
    with postgresql.connect(cluster.server, database) as session:
        session.execute("CREATE ROLE reader LOGIN")
    try:
        shown = str(tmp_path / "copies" / "backup_{time}.dump")
        with pytest.raises(MaintenanceError, match=r"orders|permission denied") as caught:
            take(tmp_path, server_of(cluster, database, user="reader", os_user="", copy_as=shown))
        assert caught.value.outcome.status == "failed"
        assert of(caught.value.outcome, "snapshot.present")[0].state == "critical"
        assert snapshot_store.names(str(tmp_path / "snapshots")) == snapshot_store.partials(str(tmp_path / "snapshots")) == []
        assert not os.path.exists(tmp_path / "copies")
    finally:
        with postgresql.connect(cluster.server) as session:
            session.execute("DROP ROLE reader")


def test_a_role_that_is_no_superuser_keeps_no_passwords_and_that_is_said(cluster, database, tmp_path):
    with postgresql.connect(cluster.server, database) as session:
        session.execute("CREATE TABLE public.t (a int)")
        session.execute("CREATE ROLE backup LOGIN PASSWORD 'hidden-one' IN ROLE pg_read_all_data")
    try:
        outcome = take(tmp_path, server_of(cluster, database, user="backup"))
        [finding] = of(outcome, "snapshot.globals")
        assert finding.state == "warning"
        assert "without passwords" in finding.summary
        globals_file = tmp_path / "snapshots" / RUN / manifest_of(tmp_path)["postgresql"][0]["globals"]["file"]
        assert b"SCRAM" not in globals_file.read_bytes()
    finally:
        with postgresql.connect(cluster.server) as session:
            session.execute("DROP ROLE backup")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"databases": ["no such"]}, "has no database 'no such'"),
        ({"sentinels": ["public.nothing"]}, "has the table public.nothing"),
        ({"port": 5999}, "Start PostgreSQL"),
        ({"user": "nobody_here"}, "Correct the user"),
    ],
)
def test_what_cannot_be_dumped_is_said_before_anything_is_written(cluster, database, tmp_path, change, says):
    with pytest.raises(MaintenanceError, match=says):
        take(tmp_path, {**server_of(cluster, database), **change})
    assert snapshot_store.names(str(tmp_path / "snapshots")) == []
    checked = take(tmp_path, {**server_of(cluster, database), **change}, check=True)
    assert of(checked, "snapshot.present")[0].state == "critical"


def test_everything_wrong_with_the_declaration_is_said_at_once(cluster, tmp_path):
    wrong = [
        server_of(cluster, "a", jobs=0, copy_as="backup.dump"),
        server_of(cluster, "a", "b", copy_as="/b/backup_{time}.dump", format="directory"),
    ]
    with pytest.raises(InputError) as caught:
        take(tmp_path, *wrong)
    for words in ("declared twice", "jobs of", "absolute path with {time}", "format custom", "{database}"):
        assert words in str(caught.value)


def test_pg_dump_older_than_the_server_is_refused(cluster, database, tmp_path, monkeypatch):
    monkeypatch.setattr(postgresql_programs, "version_of", lambda _path: MAJOR - 1)
    with pytest.raises(MaintenanceError, match=f"pg_dump of PostgreSQL {MAJOR} or newer is not installed"):
        take(tmp_path, server_of(cluster, database))


def test_too_little_room_is_found_before_anything_is_written(cluster, database, tmp_path):
    with pytest.raises(MaintenanceError, match="not enough room"):
        take(tmp_path, server_of(cluster, database), reserve_bytes=1 << 60)
    assert snapshot_store.names(str(tmp_path / "snapshots")) == snapshot_store.partials(str(tmp_path / "snapshots")) == []


def test_a_disk_that_gets_full_leaves_no_snapshot(cluster, database, tmp_path, monkeypatch):
    """asr-03-5, netpost-bak-08: really full, in the middle of the dump."""
    fill(cluster, database, 4000)
    root = str(small_disk.ROOT / "snapshots")
    server, real = server_of(cluster, database, sentinels=["orders"]), postgresql_dump.dump

    def dump(*given, **more):
        small_disk.fill(leave=30_000)
        return real(*given, **more)

    monkeypatch.setattr(postgresql_dump, "dump", dump)
    try:
        with pytest.raises(MaintenanceError, match="No space left on device") as caught:
            take(tmp_path, server, root=root)
        monkeypatch.undo()
        assert caught.value.outcome.status == "failed"
        assert snapshot_store.names(root) == snapshot_store.partials(root) == []
        small_disk.free()
        assert take(tmp_path, server, root=root).status == "changed"
        assert snapshot_store.prove(root, RUN)["id"] == RUN
    finally:
        small_disk.free()
        shutil.rmtree(root)


def test_killed_at_any_moment_the_next_run_takes_it(cluster, database, tmp_path):
    fill(cluster, database, 3000)
    server = server_of(cluster, database, sentinels=["orders"])
    for number in range(8):
        params = snapshot_params(tmp_path, server, run_id=f"run-{number}")
        child = in_process("snapshot", params)
        time.sleep(0.1 + number * 0.12)
        child.send_signal(signal.SIGKILL)
        child.wait()
        for name in snapshot_store.names(params["root"]):
            snapshot_store.prove(params["root"], name)
        snapshot.run(params, False, Machine())
        assert f"run-{number}" in snapshot_store.names(params["root"])
        assert snapshot_store.partials(params["root"]) == []


@pytest.fixture(scope="module")
def mortal():
    with running_cluster() as running:
        yield running


# Whom it hits while pg_dump waits for a lock: its own session, or the one whose moment it dumps.
WHOM = {
    "pg_dump": "state = 'active' AND wait_event_type = 'Lock'",
    "moment": "state = 'idle in transaction' AND application_name = 'ops.maintenance'",
}


@pytest.mark.parametrize(("how", "whom"), [*((how, "pg_dump") for how in FAULTS), ("backend", "moment"), ("cut", "moment")])
def test_cut_off_in_the_middle_nothing_is_left_and_the_next_run_takes_it(mortal, tmp_path, how, whom):
    """asr-03-5, netpost-bak-08: our process, the server's or the whole server killed, a connection cut, an immediate stop."""
    with postgresql.connect(mortal.server) as session:
        session.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        session.execute("CREATE DATABASE shop")
    fill(mortal, "shop")
    params = snapshot_params(tmp_path, server_of(mortal, "shop"))
    with holding(mortal, "shop", "LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE") as holder:
        child = in_process("snapshot", params)
        assert seen(mortal, WHOM["pg_dump"], child)
        strike(mortal, how, child, seen(mortal, WHOM[whom], child))
        if how in ("client", "cut"):
            holder.execute("ROLLBACK")
        said = child.communicate(timeout=60)[0]
    if how != "client":
        assert (child.returncode, said.count("\n")) == (3, 1), said
        assert snapshot_store.names(params["root"]) == snapshot_store.partials(params["root"]) == []
    with up_again(mortal, how), postgresql.connect(mortal.server, "shop") as session:
        assert session.value("SELECT count(*) FROM public.orders") == 200
    assert snapshot.run(params, False, Machine()).status == "changed"
    assert snapshot_store.prove(params["root"], RUN)["id"] == RUN
    assert snapshot_store.partials(params["root"]) == []


@pytest.mark.parametrize("sentinels", [[], ["public.orders"]])
def test_a_lock_held_for_ever_ends_the_snapshot_and_its_holder_is_named(cluster, database, tmp_path, monkeypatch, sentinels):
    """asr-03-5: pg_dump waits for it, or the count of the sentinel tables; neither for ever, and nobody is ended for it."""
    monkeypatch.setattr(postgresql_dump, "LOCK_WAIT_SECONDS", 1.0)
    fill(cluster, database)
    server = server_of(cluster, database, sentinels=sentinels)
    with holding(cluster, database, "LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE") as holder:
        pid = holder.value("SELECT pg_backend_pid()")
        says = rf"blocked by pid {pid} of user postgres, application payroll, idle in transaction, since .*; end it or wait for it"
        with pytest.raises(MaintenanceError, match=says) as caught:
            take(tmp_path, server)
        assert "\n" not in str(caught.value)
        root = str(tmp_path / "snapshots")
        assert snapshot_store.names(root) == snapshot_store.partials(root) == []
        assert holder.value("SELECT 1") == 1
    assert take(tmp_path, server).status == "changed"


ODD_PASSWORD = "a:b\\c"


@pytest.fixture
def over_tcp(tmp_path):
    """A server that wants a password over TCP, one with what a file of passwords has to escape, and how it is reached."""
    secret = tmp_path / "password"
    secret.write_text(f"{ODD_PASSWORD}\n")
    secret.chmod(0o600)
    with running_cluster({"listen_addresses": "'127.0.0.1'", "password_encryption": "'scram-sha-256'"}) as cluster:
        with postgresql.connect(cluster.server) as session:
            session.execute(f"CREATE ROLE app SUPERUSER LOGIN PASSWORD {session.literal(ODD_PASSWORD)}")
            session.execute("CREATE DATABASE shop")
            with open(os.path.join(cluster.data, "pg_hba.conf"), "a", encoding="utf-8") as target:
                target.write("host all app 127.0.0.1/32 scram-sha-256\n")
            session.execute("SELECT pg_reload_conf()")
        yield cluster, {**server_of(cluster, "shop"), "host": "127.0.0.1", "user": "app", "password_file": str(secret)}


def processes():
    """Return command line and environment of every process, as anybody who may look sees them."""
    seen = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            seen[int(folder.name)] = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
    return seen


def test_a_password_is_on_no_command_line_and_in_no_environment(over_tcp, tmp_path):
    cluster, server = over_tcp
    fill(cluster, "shop")
    params = snapshot_params(tmp_path, server)
    with (
        holding(cluster, "shop", "LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE") as holder,
        postgresql.connect(cluster.server) as session,
    ):
        child = in_process("snapshot", params)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND wait_event_type = 'Lock'"
        assert wait_for(lambda: session.value(waiting) or child.poll() is not None)
        seen = processes()
        [environment] = [env for argv, env in seen.values() if os.path.basename(argv.split(b"\0")[0]) == b"pg_dump"]
        passfile = pathlib.Path(dict(item.split(b"=", 1) for item in environment.split(b"\0") if item)[b"PGPASSFILE"].decode())
        assert (passfile.read_text(), stat.S_IMODE(passfile.stat().st_mode)) == ("*:*:*:*:a\\:b\\\\c\n", 0o600)
        assert stat.S_IMODE(passfile.parent.stat().st_mode) == 0o700
        for form in (ODD_PASSWORD, "a\\:b", json.dumps(ODD_PASSWORD)):
            assert [argv for argv, env in seen.values() if form.encode() in argv + env] == []
        holder.execute("ROLLBACK")
        assert child.wait(60) == 0
    assert not passfile.parent.exists()
    assert list(pathlib.Path(tempfile.gettempdir()).glob("ops_maintenance_*")) == []
    assert snapshot_store.prove(params["root"], RUN)["id"] == RUN
    assert ODD_PASSWORD not in (tmp_path / "snapshots" / RUN / "manifest.json").read_text()


def test_old_snapshots_go_with_their_copies(cluster, database, tmp_path):
    shown = str(tmp_path / "manual" / "backup_{time}.dump")
    server = server_of(cluster, database, copy_as=shown)
    for day in range(3):
        take(tmp_path, server, run_id=f"run-{day}", host=Machine(NOW + timedelta(days=day)), keep_count=1, keep_days=0)
    assert snapshot_store.names(str(tmp_path / "snapshots")) == ["run-2"]
    assert len(os.listdir(tmp_path / "manual")) == 1


def test_a_copy_has_the_name_that_people_know_and_is_for_nobody_else(cluster, database, tmp_path):
    """netpost-bak-08, netpost-bak-09: dated to the second, mode 0600, whole, the secrets outside the project's tree."""
    fill(cluster, database)
    project = tmp_path / "netpost"
    project.mkdir()
    env = project / ".env.production"
    env.write_text("KEY=1\n")
    env.chmod(0o644)
    more = {
        "paths": [str(env)],
        "path_copies": [{"path": str(env), "copy_as": str(tmp_path / "config" / ".env.production.backup.{time}"), "encrypt_command": []}],
    }
    take(tmp_path, server_of(cluster, database, copy_as=str(tmp_path / "manual" / "backup_{time}.dump")), **more)
    take(tmp_path, run_id="second", host=Machine(NOW + timedelta(seconds=61)), **more)
    stamps = [(NOW + timedelta(seconds=late)).astimezone().strftime("%Y%m%d_%H%M%S") for late in (0, 61)]
    assert os.listdir(tmp_path / "manual") == [f"backup_{stamps[0]}.dump"]
    assert sorted(os.listdir(tmp_path / "config")) == [f".env.production.backup.{stamp}" for stamp in stamps]
    for path in [*pathlib.Path(tmp_path / "manual").iterdir(), *pathlib.Path(tmp_path / "config").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = postgresql_dump.read_whole(str(next((tmp_path / "manual").iterdir())), MAJOR, "")
    assert rows["public.orders"] == 200


def test_a_copy_of_secrets_in_a_tree_that_is_committed_or_deployed_is_refused(tmp_path):
    """netpost-bak-09: the copy never lies where it can be committed or deployed."""
    project = tmp_path / "netpost"
    (tmp_path / "other" / ".git").mkdir(parents=True)
    project.mkdir()
    env = project / ".env.production"
    env.write_text("KEY=1\n")
    for folder in (project, project / "backups", tmp_path / "other" / "deep"):
        copies = [{"path": str(env), "copy_as": str(folder / ".env.backup.{time}"), "encrypt_command": []}]
        with pytest.raises(InputError, match=r"inside the (tree|work tree)"):
            take(tmp_path, paths=[str(env)], path_copies=copies)


def test_a_deadline_ends_the_dump_and_leaves_nothing(cluster, database, tmp_path):
    fill(cluster, database)
    with postgresql.connect(cluster.server, database) as session:
        session.execute("BEGIN")
        session.execute("LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
        deadline = Machine().now().timestamp() + 1
        with pytest.raises(MaintenanceError, match="did not end within 1 seconds"):
            take(tmp_path, server_of(cluster, database), deadline=deadline)
    assert snapshot_store.names(str(tmp_path / "snapshots")) == []
