"""Sessions with a real server: who connects, what is refused, how that is said."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import threading

import pytest
from authority import Authority
from clusters import MAJOR, running_cluster
from review_faults import standby_of

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_programs, postgresql_scratch
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request, monkeypatch):
    monkeypatch.setattr(postgresql, "DRIVERS", (request.param,))
    return request.param


def test_rows_come_by_name_and_values_are_never_text_of_a_statement(cluster, database, driver):
    hostile = "x'; DROP TABLE t; -- %s \" \\"
    with postgresql.connect(cluster.server, database) as session:
        assert session.rows("SELECT %s AS said, 1 AS n", [hostile]) == [{"said": hostile, "n": 1}]
        table = session.identifier("public", 'Mixed "case" table')
        session.execute(f"CREATE TABLE {table} (a int)")
        assert session.execute(f"INSERT INTO {table} VALUES (1), (2)") == 2
        assert session.value(f"SELECT count(*) FROM {table}") == 2


def test_a_read_only_session_cannot_write(cluster, database, driver):
    with postgresql.connect(cluster.server, database, read_only=True) as session, pytest.raises(postgresql.StatementError) as caught:
        session.execute("CREATE TABLE public.t (a int)")
    assert caught.value.sqlstate == "25006"


def test_a_transaction_is_whole_or_not_at_all(cluster, database, driver):
    with postgresql.connect(cluster.server, database) as session:
        session.execute("CREATE TABLE public.t (a int)")
        with pytest.raises(postgresql.StatementError, match="22012"), session.transaction():
            assert session.execute("INSERT INTO public.t VALUES (1)") == session.value("SELECT 1/0")
        with session.transaction():
            session.execute("INSERT INTO public.t VALUES (2)")
        assert session.rows("SELECT a FROM public.t") == [{"a": 2}]


def test_locks_and_statements_are_not_waited_for_without_end(cluster, database, driver):
    with (
        postgresql.connect(cluster.server, database) as holder,
        postgresql.connect(cluster.server, database, lock_timeout_seconds=0.2, statement_timeout_seconds=1) as session,
    ):
        holder.execute("CREATE TABLE public.t (a int)")
        holder.execute("BEGIN")
        holder.execute("LOCK public.t")
        with pytest.raises(postgresql.StatementError) as caught:
            session.execute("SELECT * FROM public.t")
        assert caught.value.sqlstate == postgresql.LOCK_NOT_AVAILABLE
        with pytest.raises(postgresql.StatementError) as caught:
            session.execute("SELECT pg_sleep(30)")
        assert caught.value.sqlstate == postgresql.QUERY_CANCELED


def test_a_lost_session_says_so_each_time_it_is_used(cluster, database, driver):
    with postgresql.connect(cluster.server) as other, postgresql.connect(cluster.server, database) as session:
        other.execute("SELECT pg_terminate_backend(%s)", [session.value("SELECT pg_backend_pid()")])
        for _turn in range(2):
            with pytest.raises(postgresql.StatementError, match="was lost") as caught:
                session.rows("SELECT 1")
            assert caught.value.sqlstate == postgresql.CONNECTION_LOST


def test_the_process_is_root_again_after_connecting_as_the_server_s_user(cluster):
    with postgresql.connect(cluster.server):
        assert os.geteuid() == 0


def test_sessions_that_are_opened_at_once_are_all_opened_as_the_server_s_user(driver):
    """The user is the whole process's, so that the one who is ready first would take it from the others."""
    with running_cluster() as cluster:
        with open(os.path.join(cluster.data, "pg_hba.conf"), "w", encoding="utf-8") as target:
            target.write("local all postgres peer\n")
        assert postgresql_programs.run_program([cluster.program("pg_ctl"), "reload", "-D", cluster.data], os_user="postgres").rc == 0
        refused = []

        def open_many():
            for _number in range(8):
                try:
                    postgresql.connect(cluster.server).close()
                except MaintenanceError as error:
                    refused.append(error)

        threads = [threading.Thread(target=open_many) for _number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not refused
    assert os.geteuid() == 0


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"port": 5999}, "refused", "correct host .* and port"),
        ({"host": "127.0.0.1", "port": 5999}, "refused", "Start PostgreSQL"),
        ({"connect_database": 'no "such" db'}, "no_database", "Correct the name"),
        ({"user": "nobody_here"}, "no_role", "Correct the user"),
    ],
)
def test_why_there_is_no_session_is_one_sentence(cluster, driver, change, kind, says):
    with pytest.raises(postgresql.NotReachableError, match=says) as caught:
        postgresql.connect({**cluster.server, **change})
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_a_server_that_is_up_and_lets_nobody_in_yet_is_one_sentence(cluster, monkeypatch):
    """neff-daily-03: a standby that is not to be asked refuses just as a server that is starting up (57P03)."""
    with standby_of(cluster, hot_standby="off") as standby:
        for name in ("psycopg2", "psycopg"):
            monkeypatch.setattr(postgresql, "DRIVERS", (name,))
            with pytest.raises(postgresql.NotReachableError, match=r"the database system is (not accepting|starting up)") as caught:
                postgresql.connect(standby.server)
            assert caught.value.kind == "starting"
            assert "\n" not in str(caught.value)
            assert re.search(r"(Set hot_standby to on|Wait until it has started).*\.$", str(caught.value))


def test_a_wrong_password_is_said_and_never_shown(driver, tmp_path):
    with running_cluster({"listen_addresses": "'127.0.0.1'"}) as cluster:
        with postgresql.connect(cluster.server) as session:
            session.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
            with open(os.path.join(cluster.data, "pg_hba.conf"), "w", encoding="utf-8") as target:
                target.write("host all app 127.0.0.1/32 scram-sha-256\n")
            session.execute("SELECT pg_reload_conf()")
        server = {**cluster.server, "host": "127.0.0.1", "user": "app"}
        with pytest.raises(postgresql.NotReachableError, match="Give password_file") as caught:
            postgresql.connect(server)
        assert caught.value.kind == "password"
        with pytest.raises(postgresql.NotReachableError, match="Correct the password") as caught:
            postgresql.connect({**server, "password": "wr0ng-s3cret"})
        assert "wr0ng-s3cret" not in str(caught.value)
        secret = tmp_path / "password"
        secret.write_text("right\n")
        secret.chmod(0o600)
        with postgresql.connect({**server, "password_file": str(secret)}) as session:
            assert session.value("SELECT current_user") == "app"
        secret.chmod(0o644)
        with pytest.raises(InputError, match="mode 0644, expected 0600"):
            postgresql.connect({**server, "password_file": str(secret)})


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory):
    """A server that takes TLS only, with a certificate for localhost, and how it is reached with it."""
    theirs = Authority(tmp_path_factory.mktemp("theirs"))

    def prepare(cluster):
        owner = pwd.getpwnam(cluster.os_user)
        for name, source in (("server.crt", theirs.ca_file), ("server.key", theirs.folder / "https.key")):
            target = os.path.join(cluster.data, name)
            shutil.copyfile(source, target)
            os.chmod(target, 0o600)
            os.chown(target, owner.pw_uid, owner.pw_gid)

    with running_cluster({"listen_addresses": "'127.0.0.1'", "ssl": "on"}, prepare) as cluster:
        with postgresql.connect(cluster.server) as session:
            session.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
            with open(os.path.join(cluster.data, "pg_hba.conf"), "a", encoding="utf-8") as target:
                target.write("hostssl all app 127.0.0.1/32 scram-sha-256\n")
            session.execute("SELECT pg_reload_conf()")
        tls = {"ssl_mode": "verify-full", "ssl_root_certificate": str(theirs.ca_file)}
        yield {**cluster.server, "host": "localhost", "user": "app", "password": "right", **tls}


@pytest.fixture
def one_address(monkeypatch):
    """localhost is one address only: of several, psycopg 3 tells what the last of them said."""
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")


def test_the_right_authority_gives_a_session_over_tls(with_tls, one_address, driver):
    with postgresql.connect(with_tls) as session:
        assert session.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"authority": "another"}, "certificate verify failed. Correct ssl_root_certificate, ssl_mode or the server's certificate."),
        (
            {"host": "127.0.0.1"},
            'server certificate for "localhost" (and 1 other name) does not match host name "127.0.0.1". '
            "Correct ssl_root_certificate, ssl_mode or the server's certificate.",
        ),
        ({"ssl_root_certificate": "/nowhere/root.pem"}, "Correct ssl_root_certificate, ssl_mode or the server's certificate."),
    ],
)
def test_a_certificate_that_proves_nothing_is_one_sentence(with_tls, one_address, driver, tmp_path, change, says):
    if "authority" in change:
        change = {"ssl_root_certificate": str(Authority(tmp_path).ca_file)}
    with pytest.raises(postgresql.NotReachableError) as caught:
        postgresql.connect({**with_tls, **change})
    assert (caught.value.kind, str(caught.value)[-len(says) :]) == ("certificate", says), str(caught.value)
    assert "\n" not in str(caught.value)
    assert "right" not in str(caught.value)


def test_a_name_is_not_looked_at_where_only_the_authority_counts(with_tls, one_address, driver):
    with postgresql.connect({**with_tls, "host": "127.0.0.1", "ssl_mode": "verify-ca"}) as session:
        assert session.value("SELECT current_user") == "app"


def test_without_a_driver_the_package_is_named(cluster, monkeypatch):
    monkeypatch.setattr(postgresql, "DRIVERS", ("no_such_driver",))
    with pytest.raises(postgresql.DriverMissingError, match="install python3-psycopg2"):
        postgresql.connect(cluster.server)


# -- throw-away clusters --


def test_nothing_is_left_of_a_cluster_even_after_an_error():
    with pytest.raises(RuntimeError), running_cluster() as cluster:
        raise RuntimeError
    assert not os.path.exists(cluster.folder)


def test_a_cluster_keeps_to_itself(cluster):
    with postgresql.connect(cluster.server) as session:
        assert session.value("SHOW listen_addresses") == ""
        assert session.value("SHOW data_checksums") == "on"


def test_what_a_killed_run_left_is_stopped_and_removed():
    scratch = "/tmp/sw"
    code = (
        "import os, sys\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_scratch import scratch_cluster\n"
        "with scratch_cluster(sys.argv[1], int(sys.argv[2])) as cluster:\n"
        "    cluster.initialise(); cluster.start(); print(cluster.folder, flush=True); os.kill(os.getpid(), 9)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, scratch, str(MAJOR)], check=False, capture_output=True, text=True, timeout=120)
    folder = ran.stdout.strip()
    assert ran.returncode == -9
    assert os.path.exists(os.path.join(folder, "data", "postmaster.pid"))
    with open(os.path.join(folder, "data", "postmaster.pid"), encoding="ascii") as source:
        pid = int(source.readline())
    assert postgresql_scratch.sweep(scratch) == [folder]
    assert not os.path.exists(folder)
    with open(f"/proc/{pid}/stat", encoding="ascii") if os.path.exists(f"/proc/{pid}") else open(os.devnull, encoding="ascii") as source:
        assert source.read().rpartition(")")[2].split()[:1] in ([], ["Z"])


def test_a_cluster_in_use_is_not_swept(cluster):
    assert postgresql_scratch.sweep(os.path.dirname(cluster.folder)) == []
    with postgresql.connect(cluster.server) as session:
        assert session.value("SELECT 1") == 1


def test_a_scratch_folder_that_postgresql_cannot_reach_is_refused(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(MaintenanceError, match="cannot reach the scratch folder"),
        postgresql_scratch.scratch_cluster(str(closed / "a" / "b"), MAJOR),
    ):
        pass
