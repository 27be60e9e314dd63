"""Rollback of real PostgreSQL databases: beside the live one, verified, switched in one step; killed anywhere, nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from datetime import timedelta

import pytest
from clusters import running_cluster
from postgresql_states import HOSTILE, NOW, RUN, Machine, drop, enter_maintenance, fill, in_process, names, of, orders, server_of
from recovery_runs import take

from ansible_collections.ops.maintenance.plugins.module_utils import (
    postgresql,
    postgresql_facts,
    postgresql_switch,
    rollback,
    snapshot_store,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import read_state


def back_params(tmp_path, *servers, **more):
    params = {name: option.get("default") for name, option in rollback.OPTIONS.items()}
    params.update(
        root=str(tmp_path / "snapshots"), postgresql=list(servers), run_id=RUN, state_dir=str(tmp_path / "state"), reserve_bytes=0
    )
    return {**params, **more}


def back(tmp_path, *servers, check=False, **more):
    return rollback.run(back_params(tmp_path, *servers, **more), check, Machine())


def spoil(server, database):
    """Do what a bad maintenance does, after users wrote something more."""
    with postgresql.connect(server, database) as session:
        session.execute("INSERT INTO public.orders VALUES (999999, 'written after the snapshot')")
        session.execute("DELETE FROM public.lines")
        session.execute("DELETE FROM public.orders WHERE id BETWEEN 11 AND 900000")


def kept_of(cluster, database):
    return sorted(name for name in names(cluster) if name.startswith(f"{database}_before_"))


def scratch_of(cluster):
    return sorted(name for name in names(cluster) if name.startswith("ops_restore_"))


@pytest.fixture
def clean(cluster):
    before = names(cluster)
    yield
    with postgresql.connect(cluster.server) as session:
        for row in session.rows("SELECT datname FROM pg_database WHERE datname <> ALL(%s)", [sorted(before)]):
            session.execute(f"DROP DATABASE {session.identifier(row['datname'])} WITH (FORCE)")


@pytest.mark.parametrize("fmt", ["custom", "directory"])
def test_the_database_is_as_it_was_and_the_one_before_is_kept(cluster, database, clean, tmp_path, fmt):
    """asr-em-1, netpost-res-1, neff-em-04, flow-em-6: restored beside, switched, the broken state kept, configuration together."""
    fill(cluster, database)
    env = tmp_path / ".env"
    env.write_text("VERSION=1\n")
    server = server_of(cluster, database, format=fmt, sentinels=["orders"])
    take(tmp_path, server, paths=[str(env)])
    spoil(server, database)
    env.write_text("VERSION=2\n")
    checked = back(tmp_path, server, check=True)
    assert checked.status == "due"
    assert scratch_of(cluster) == kept_of(cluster, database) == []
    assert orders(server, database) == 11
    outcome = back(tmp_path, server)
    assert outcome.status == "changed"
    assert of(outcome, "rollback.postgresql")[0].state == "ok"
    assert orders(server, database) == 200
    assert env.read_text() == "VERSION=1\n"
    [kept] = kept_of(cluster, database)
    assert kept == f"{database}_before_{RUN}"
    assert scratch_of(cluster) == []
    with postgresql.connect(cluster.server) as session:
        session.execute(f"ALTER DATABASE {session.identifier(kept)} ALLOW_CONNECTIONS true")
    with postgresql.connect(cluster.server, kept) as session:
        assert session.value("SELECT said FROM public.orders WHERE id = 999999") == "written after the snapshot"
    with postgresql.connect(cluster.server, database) as session:
        session.execute("INSERT INTO public.orders VALUES (5000, 'new')")
    again = back(tmp_path, server)
    assert again.status == "ok"
    assert orders(server, database) == 201


def test_owner_privileges_and_settings_of_the_database_are_kept(cluster, clean, tmp_path):
    """netpost-res-1: a database made anew would have lost all of them."""
    with postgresql.connect(cluster.server) as session:
        for role in ('"App owner"', "reader"):
            session.execute(f"CREATE ROLE {role} LOGIN")
        name = session.identifier(HOSTILE)
        session.execute(f"CREATE DATABASE {name} OWNER \"App owner\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' CONNECTION LIMIT 7")
        for statement in (
            "REVOKE ALL ON DATABASE {} FROM PUBLIC",
            "GRANT CONNECT ON DATABASE {} TO reader WITH GRANT OPTION",
            "COMMENT ON DATABASE {} IS 'what ''it'' is'",
            'ALTER DATABASE {} SET search_path TO "App, owner", public, "$user"',
            "ALTER DATABASE {} SET work_mem TO '9MB'",
            "ALTER DATABASE {} SET default_transaction_read_only TO on",
            "ALTER DATABASE {} SET my_app.word TO 'it''s'",
            "ALTER ROLE reader IN DATABASE {} SET statement_timeout TO '3s'",
        ):
            session.execute(statement.format(name))
    try:
        server = server_of(cluster, HOSTILE)
        with postgresql.connect(server, HOSTILE) as session:
            session.set("default_transaction_read_only", "off")
            session.execute('CREATE TABLE public."größe" (a int)')
            session.execute('INSERT INTO public."größe" VALUES (1)')
        with postgresql.connect(cluster.server) as session:
            before = postgresql_facts.properties(session, HOSTILE)
        take(tmp_path, server)
        with postgresql.connect(cluster.server) as session:
            session.execute(f"ALTER DATABASE {name} RESET ALL")
            session.execute(f"ALTER DATABASE {name} OWNER TO postgres")
        back(tmp_path, server)
        with postgresql.connect(cluster.server) as session:
            after = postgresql_facts.properties(session, HOSTILE)
        assert {**after, "oid": 0} == {**before, "oid": 0}
        assert before["acl"]
        assert len(before["settings"]) == 5
        with postgresql.connect(cluster.server, HOSTILE) as session:
            assert session.value('SELECT count(*) FROM public."größe"') == 1
            assert session.value("SHOW work_mem") == "9MB"
            assert session.value("SELECT reset_val FROM pg_settings WHERE name = 'search_path'") == '"App, owner", public, "$user"'
    finally:
        drop(cluster, *[n for n in names(cluster) if n.startswith("My ")])
        with postgresql.connect(cluster.server) as session:
            session.execute('DROP ROLE "App owner", reader')


def test_a_database_that_is_gone_comes_back(cluster, clean, tmp_path):
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE DATABASE lost_one")
    fill(cluster, "lost_one")
    server = server_of(cluster, "lost_one")
    take(tmp_path, server)
    drop(cluster, "lost_one")
    back(tmp_path, server)
    assert orders(server, "lost_one") == 200
    assert kept_of(cluster, "lost_one") == []


def test_a_corrupted_snapshot_is_refused_before_anything_is_changed(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    spoil(server, database)
    file = snapshot_store.read(str(tmp_path / "snapshots"), RUN)["postgresql"][0]["databases"][0]["files"][0]["file"]
    path = tmp_path / "snapshots" / RUN / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(MaintenanceError, match="does not have its checksum"):
        back(tmp_path, server)
    assert orders(server, database) == 11
    assert scratch_of(cluster) == kept_of(cluster, database) == []


def test_another_cluster_is_refused_unless_it_is_meant(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    with running_cluster() as other:
        elsewhere = {**server, **other.server, "databases": [database]}
        with pytest.raises(MaintenanceError, match="Set other_cluster to true"):
            back(tmp_path, elsewhere)
        assert database not in names(other)
        outcome = back(tmp_path, elsewhere, other_cluster=True)
        assert of(outcome, "rollback.cluster")[0].state == "warning"
        assert orders(other.server, database) == 200


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ("rows", "row"),
        ("objects", "tables, expected"),
    ],
)
def test_what_came_out_different_never_takes_the_live_name(cluster, database, clean, tmp_path, monkeypatch, spoilt, says):
    """netpost-res-1: verified before the switch."""
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    spoil(server, database)
    real = postgresql_switch.Switcher._verify

    def verify(self, plan, scratch):
        with postgresql.connect(plan.server, scratch) as session:
            session.execute("DELETE FROM public.lines" if spoilt == "rows" else "CREATE TABLE public.more ()")
        real(self, plan, scratch)

    monkeypatch.setattr(postgresql_switch.Switcher, "_verify", verify)
    with pytest.raises(MaintenanceError, match=says):
        back(tmp_path, server)
    assert orders(server, database) == 11
    assert scratch_of(cluster) == kept_of(cluster, database) == []


def test_too_little_room_is_found_before_anything_is_changed(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    with pytest.raises(MaintenanceError, match=r"free, expected at least .* beside the live one; nothing was changed"):
        back(tmp_path, server, reserve_bytes=1 << 60)
    assert scratch_of(cluster) == []


def test_a_server_that_is_not_declared_is_said(cluster, database, tmp_path):
    take(tmp_path, server_of(cluster, database))
    with pytest.raises(MaintenanceError, match="server 'scratch', which is not declared"):
        back(tmp_path)


# -- connections --


def test_somebody_connected_is_a_refusal_outside_maintenance_mode(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    with postgresql.connect(server, database, application_name="the shop") as user:
        checked = back(tmp_path, server, check=True)
        assert of(checked, "rollback.open_by")[-1].state == "warning"
        enter_maintenance(tmp_path / "state", "serving")
        with pytest.raises(MaintenanceError, match=r"the shop.* is connected"):
            back(tmp_path, server)
        assert user.value("SELECT 1") == 1
    assert kept_of(cluster, database) == scratch_of(cluster) == []


def test_in_maintenance_mode_only_the_application_s_connections_end_and_reconnecting_meets_the_restored_one(
    cluster, database, clean, tmp_path
):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    spoil(server, database)
    enter_maintenance(tmp_path / "state")
    stop, seen, sessions = threading.Event(), [], [postgresql.connect(server, database) for _number in range(20)]
    with postgresql.connect(server, "postgres") as stranger:

        def pool():
            # Sessions were opened before: connecting as another user would change this whole process.
            for session in sessions:
                while not stop.is_set():
                    try:
                        seen.append(session.value("SELECT count(*) FROM public.orders"))
                    except postgresql.StatementError:
                        break

        client = subprocess.Popen(reconnecting(cluster, database), stdout=subprocess.PIPE, text=True, user="postgres")
        users = threading.Thread(target=pool)
        users.start()
        try:
            outcome = back(tmp_path, server)
            time.sleep(0.5)
        finally:
            stop.set()
            users.join()
            for session in sessions:
                session.close()
            client.terminate()
        assert outcome.status == "changed"
        assert stranger.value("SELECT 1") == 1
    lines = client.communicate()[0].split()
    assert lines[-1] == "200"
    assert set(lines) <= {"11", "200", "-"}
    assert "11" not in lines[lines.index("200") :]
    assert orders(server, database) == 200


def reconnecting(cluster, database):
    """A client that connects, counts, and connects again, as a pool does whose server ends its sessions."""
    code = (
        "import sys\ntry: import psycopg as d\nexcept ImportError: import psycopg2 as d\n"
        "while True:\n try:\n"
        "  with d.connect(host=sys.argv[1], user='postgres', dbname=sys.argv[2]) as c:\n"
        "   k = c.cursor(); k.execute('SELECT count(*) FROM public.orders'); print(k.fetchone()[0], flush=True)\n"
        " except d.Error: print('-', flush=True)\n"
    )
    return ["/usr/bin/python3", "-c", code, cluster.socket, database]


def test_a_forgotten_prepared_transaction_is_said_before_anything_is_changed(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    with postgresql.connect(server, database) as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO public.empty VALUES (1)")
        session.execute("PREPARE TRANSACTION 'forgotten'")
        try:
            with pytest.raises(MaintenanceError, match="1 prepared transaction"):
                back(tmp_path, server)
        finally:
            session.execute("ROLLBACK PREPARED 'forgotten'")
    assert scratch_of(cluster) == []


# -- what users wrote since --


def test_an_automatic_rollback_keeps_a_sound_database_with_what_users_wrote(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    with postgresql.connect(server, database) as session:
        session.execute("CREATE EXTENSION amcheck SCHEMA public")
        session.execute("INSERT INTO public.orders VALUES (5000, 'new')")
    outcome = back(tmp_path, server, keep_sound=True)
    [finding] = of(outcome, "rollback.postgresql")
    assert "kept with what was written since" in finding.summary
    assert orders(server, database) == 201
    assert kept_of(cluster, database) == []


@pytest.mark.parametrize("how", ["rows", "table", "setting", "index"])
def test_a_database_that_lost_anything_is_not_kept(cluster, database, clean, tmp_path, how):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    with postgresql.connect(server, database) as session:
        session.execute(
            {
                "rows": "DELETE FROM public.lines WHERE id = 7",
                "table": "DROP TABLE public.empty",
                "setting": f"ALTER DATABASE {session.identifier(database)} SET work_mem = '1MB'",
                "index": "UPDATE pg_catalog.pg_index SET indisvalid = false WHERE indexrelid = 'public.orders_pkey'::regclass",
            }[how]
        )
    back(tmp_path, server, keep_sound=True)
    assert len(kept_of(cluster, database)) == 1
    with postgresql.connect(server, database) as session:
        assert session.value("SELECT count(*) FROM public.lines") == 200


# -- killed --

POINTS = {
    "before_creating": "fail = lambda self, key, **e: die() if e.get('step') == 'creating' else real(self, key, **e)",
    "after_creating": "fail = lambda self, key, **e: (real(self, key, **e), e.get('step') == 'creating' and die())[0]",
    "created": "fail = lambda self, key, **e: die() if e.get('step') == 'restoring' else real(self, key, **e)",
    "restored": "fail = lambda self, key, **e: die() if e.get('step') == 'verified' else real(self, key, **e)",
    "verified": "fail = lambda self, key, **e: (real(self, key, **e), e.get('step') == 'verified' and die())[0]",
    "switching": "fail = lambda self, key, **e: (real(self, key, **e), e.get('step') == 'switching' and die())[0]",
    "switched": "fail = lambda self, key, **e: real(self, key, **e) if e else die()",
}


@pytest.mark.parametrize(
    ("point", "next_run"),
    [*((point, "rollback") for point in POINTS), *((point, "snapshot") for point in ("created", "verified", "switched"))],
)
def test_killed_at_any_step_nothing_is_lost_and_the_next_run_ends_it(cluster, database, clean, tmp_path, point, next_run):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    spoil(server, database)
    before = f"die = lambda: os.kill(os.getpid(), 9)\nreal = postgresql_switch.Switcher.note\n{POINTS[point]}\npostgresql_switch.Switcher.note = fail"
    child = in_process("rollback", back_params(tmp_path, server), before)
    assert child.wait(60) == -signal.SIGKILL
    assert orders(server, database) == (200 if point == "switched" else 11)
    if next_run == "snapshot":
        take(tmp_path, server, run_id="next-run")
        assert scratch_of(cluster) == []
        assert orders(server, database) == (200 if point == "switched" else 11)
    back(tmp_path, server)
    assert orders(server, database) == 200
    assert scratch_of(cluster) == []
    assert len(kept_of(cluster, database)) == 1
    assert read_state(str(tmp_path / "state"), postgresql_switch.JOURNAL) == {}


def test_killed_at_random_moments_there_always_is_a_database_and_every_row_is_somewhere(cluster, database, clean, tmp_path):
    fill(cluster, database, 2000)
    server = server_of(cluster, database)
    take(tmp_path, server)
    spoil(server, database)
    for number in range(8):
        child = in_process("rollback", back_params(tmp_path, server, run_id=f"r{number}", snapshot=RUN))
        time.sleep(0.25 + number * 0.12)
        child.kill()
        child.communicate()
        assert orders(server, database) in (11, 2000)
    back(tmp_path, server)
    assert orders(server, database) == 2000
    assert scratch_of(cluster) == []
    [kept] = kept_of(cluster, database)
    with postgresql.connect(cluster.server) as session:
        session.execute(f"ALTER DATABASE {session.identifier(kept)} ALLOW_CONNECTIONS true")
    assert orders(server, kept) == 11


@pytest.mark.parametrize("point", ["creating", "restoring", "verified", "switching", "done"])
def test_the_server_stops_at_once_at_any_step_and_nothing_is_lost(own_cluster, tmp_path, monkeypatch, point):
    # Started again, it commits late (synchronous_commit is off): what was switched has to be durable all the same.
    cluster = own_cluster
    drop(cluster, "shop", *kept_of(cluster, "shop"))
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE DATABASE shop")
    fill(cluster, "shop")
    server = server_of(cluster, "shop")
    take(tmp_path, server)
    spoil(server, "shop")
    real = postgresql_switch.Switcher.note

    def note(self, key, **entry):
        said = real(self, key, **entry)
        if entry.get("step", "done") == point:
            cluster.stop()
        return said

    monkeypatch.setattr(postgresql_switch.Switcher, "note", note)
    with pytest.raises(MaintenanceError):
        back(tmp_path, server)
    monkeypatch.undo()
    cluster.start()
    assert orders(server, "shop") == (200 if point == "done" else 11)
    back(tmp_path, server)
    assert orders(server, "shop") == 200
    assert scratch_of(cluster) == []
    assert len(kept_of(cluster, "shop")) == 1


@pytest.fixture(scope="module")
def own_cluster():
    with running_cluster() as running:
        yield running


def test_a_state_folder_that_is_full_leaves_the_live_database_alone(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    spoil(server, database)
    before = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    child = in_process("rollback", back_params(tmp_path, server), before)
    assert child.wait(60) == 3
    assert orders(server, database) == 11
    assert scratch_of(cluster) == []


# -- what is kept --


def test_kept_databases_are_named_with_size_and_go_only_where_asked(cluster, database, clean, tmp_path):
    fill(cluster, database)
    server = server_of(cluster, database)
    take(tmp_path, server)
    spoil(server, database)
    back(tmp_path, server)
    [kept] = kept_of(cluster, database)
    later = Machine(NOW + timedelta(days=15))
    [finding] = of(take(tmp_path, server, run_id="b", host=later), "snapshot.kept_databases")
    assert finding.state == "warning"
    assert finding.value > 1_000_000
    assert f'DROP DATABASE "{kept}"' in finding.advice
    take(tmp_path, server, run_id="c", host=later, drop_kept_after_days=16.0)
    checked = take(tmp_path, server, run_id="d", check=True, host=later, drop_kept_after_days=14.0)
    assert "drop_kept" in {action.operation for action in checked.actions}
    assert kept_of(cluster, database) == [kept]
    take(tmp_path, server, run_id="d", host=later, drop_kept_after_days=14.0)
    assert kept_of(cluster, database) == []
    assert orders(server, database) == 200
    assert of(take(tmp_path, server, run_id="e", host=later), "snapshot.kept_databases") == []


def test_names_of_kept_databases_fit_and_differ():
    run = "weekly-20261121T020000Z-3fa9"
    assert postgresql_switch.kept_name("shop", run) == f"shop_before_{run}"
    long = [postgresql_switch.kept_name("ü" * 28 + end, run) for end in "ab"]
    assert len(set(long)) == 2
    assert all(len(name.encode()) <= 63 for name in [*long, postgresql_switch.kept_name("x" * 60, "r" * 100)])


@pytest.fixture
def age(tmp_path):
    key = str(tmp_path / "age.key")
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    recipient = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True).stdout.strip()
    return {"encrypt_command": ["age", "--recipient", recipient], "decrypt_command": ["age", "--decrypt", "--identity", key]}


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_sealed_dump_is_proven_and_restored_through_its_key(cluster, database, clean, tmp_path, age, form):
    """At rest nothing of the database is in clear, neither in the snapshot nor in the copy for people; the way back needs the key."""
    fill(cluster, database)
    copy = (
        {"copy_as": str(tmp_path / "copies/backup_{time}.dump.age"), "encrypt_command": age["encrypt_command"]} if form == "custom" else {}
    )
    server = server_of(cluster, database, format=form, **copy)
    outcome = take(tmp_path, server, **age)
    assert of(outcome, "snapshot.sealed")[0].state == "ok"
    folder = tmp_path / "snapshots" / RUN
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "ROLLBACK.txt", "content.sealed"}
    for path in [*folder.iterdir(), *(tmp_path / "copies").glob("*")]:
        assert b"PGDMP" not in path.read_bytes()
    if form == "custom":  # what data_retention asks before rows go
        assert take(tmp_path, server_of(cluster, database), **age).status == "ok"
        with pytest.raises(MaintenanceError, match="without its key"):
            take(tmp_path, server_of(cluster, database))
    spoil(server, database)
    with pytest.raises(MaintenanceError, match="without its key"):
        back(tmp_path, server)
    outcome = back(tmp_path, server, decrypt_command=age["decrypt_command"])
    assert orders(cluster.server, database) == 200
    assert of(outcome, "rollback.result")[0].state == "ok"
    if form == "custom":
        (copied,) = (tmp_path / "copies").iterdir()
        opened = subprocess.run([*age["decrypt_command"], str(copied)], check=True, capture_output=True).stdout
        assert opened.startswith(b"PGDMP")
        assert copied.stat().st_mode & 0o777 == 0o600


def test_only_what_is_named_goes_back_and_the_database_keeps_what_users_wrote(cluster, database, clean, tmp_path):
    """netpost-res-2: a restore of configuration touches no database."""
    fill(cluster, database)
    server = server_of(cluster, database)
    file = tmp_path / "app.ini"
    file.write_text("old")
    take(tmp_path, server, paths=[str(file)])
    file.write_text("new")
    with postgresql.connect(cluster.server, database) as session:
        session.execute("INSERT INTO public.orders VALUES (999999, 'written since')")
    back(tmp_path, server, paths=[str(file)])
    assert (file.read_text(), orders(cluster.server, database), kept_of(cluster, database)) == ("old", 201, [])
