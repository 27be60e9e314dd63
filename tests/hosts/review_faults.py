"""What a review of PostgreSQL finds, planted in real servers, and twins in which nothing is wrong."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import typing as t
from datetime import date

from clusters import AS_IN_PRODUCTION, MAJOR
from upkeep_runs import flush

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_programs
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_review_server import END_OF_LIFE
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_scratch import scratch_cluster

FAULTY, CLEAN, DAMAGED = 'Shop "of" all', "clean", "da'maged=1"
PASSWORD = "m0nitor-s3cret"
# Autovacuum is on, as it should be, but does not come: the faults have to stay.
SETTINGS = {
    "autovacuum": "on",
    "autovacuum_naptime": "'2147483s'",
    "track_io_timing": "on",
    "max_replication_slots": "5",
    "password_encryption": "'scram-sha-256'",
}
"""What a server under review runs with."""
HBA = "local all postgres peer\nlocal all all scram-sha-256\nlocal replication all peer\n"
BAD_HBA = HBA + "host all all 0.0.0.0/0 md5\nhost all all ::/0 trust\nhost app all 127.0.0.1/0 trust\nnonsense\n"
IS_OUTDATED = date.today() > END_OF_LIFE.get(MAJOR, date.max)

BOTH = """
CREATE TABLE parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, note text);
CREATE TABLE child (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent_id bigint NOT NULL REFERENCES parent, at timestamptz);
CREATE INDEX child_parent ON child (parent_id);
CREATE TABLE parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO parent (code, note) SELECT 'c' || n, repeat('x', 60) FROM generate_series(1, 3000) n;
INSERT INTO child (parent_id, at) SELECT n, now() FROM generate_series(1, 3000) n;
INSERT INTO parts SELECT n, '2026-05-05' FROM generate_series(1, 100) n;
CREATE SEQUENCE "Round And Round" MAXVALUE 3 CYCLE;
SELECT nextval('"Round And Round"') FROM generate_series(1, 3);
"""
FAULTS = """
CREATE SCHEMA "my schema";
CREATE TABLE "my schema"."order" (id int PRIMARY KEY, "select" int, filler text) WITH (autovacuum_enabled = false);
INSERT INTO "my schema"."order" SELECT n, n % 10, repeat('y', 100) FROM generate_series(1, 5000) n;
DELETE FROM "my schema"."order" WHERE id % 2 = 0;
CREATE TABLE "Bloat ed" (id int PRIMARY KEY, filler text);
INSERT INTO "Bloat ed" SELECT n, repeat('z', 100) FROM generate_series(1, 20000) n;
DELETE FROM "Bloat ed" WHERE id % 20 <> 0;
CREATE TABLE "no ""key"" here" (a int, b text);
INSERT INTO "no ""key"" here" SELECT n, 'b' FROM generate_series(1, 5000) n;
CREATE UNLOGGED TABLE "Unlogged" (id int PRIMARY KEY);
CREATE TABLE never_analysed (id int PRIMARY KEY);
INSERT INTO never_analysed VALUES (1);
CREATE TABLE restored (id int NOT NULL);
INSERT INTO restored SELECT generate_series(1, 100);
CREATE INDEX restored_id ON restored (id);
CREATE TABLE only_vacuumed (id int PRIMARY KEY);
INSERT INTO only_vacuumed SELECT generate_series(1, 100);
CREATE INDEX "unused Index" ON parent (note);
CREATE INDEX code_twin ON parent (code);
CREATE INDEX parent_twin ON child (parent_id);
CREATE TABLE orphan (id int PRIMARY KEY, parent_id bigint REFERENCES parent, a int);
ALTER TABLE orphan ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
CREATE TABLE narrow (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
SELECT setval(pg_get_serial_sequence('narrow', 'id'), 2147483000);
CREATE SEQUENCE wide;
CREATE TABLE fed_by_wide (id int DEFAULT nextval('wide') PRIMARY KEY);
SELECT setval('wide', 2000000000);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "Off" BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE parent DISABLE TRIGGER "Off";
GRANT CREATE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION pgstattuple;
"""


def ask(cluster, database, *statements):
    with postgresql.connect(cluster.server, database) as session:
        session.execute("SET search_path = public, pg_catalog")
        for statement in statements:
            with contextlib.suppress(postgresql.StatementError) if statement.startswith("-- fails") else contextlib.nullcontext():
                session.execute(statement)


def damage(cluster, database, table, settings):
    """Overwrite a page of a table in its file, behind the server's back."""
    with postgresql.connect(cluster.server, database) as session:
        path = os.path.join(cluster.data, session.value("SELECT pg_relation_filepath(%s::regclass)", [f"public.{table}"]))
        session.execute("CHECKPOINT")
    cluster.stop()
    with open(path, "r+b") as target:
        target.seek(4000)
        target.write(b"damage" * 10)
    cluster.start({**AS_IN_PRODUCTION, **settings})


def write_hba(cluster, text):
    """Replace ``pg_hba.conf`` and have the server load it."""
    with open(os.path.join(cluster.data, "pg_hba.conf"), "w", encoding="utf-8") as target:
        target.write(text)
    ask(cluster, "postgres", "SELECT pg_reload_conf()")


def create(cluster, *names):
    with postgresql.connect(cluster.server) as session:
        for name in names:
            session.execute(f"CREATE DATABASE {session.identifier(name)}")


def plant_damage(cluster, settings):
    """Make a database with a damaged page that a session has met; the server is stopped and started with these settings."""
    create(cluster, DAMAGED)
    ask(cluster, DAMAGED, "CREATE TABLE broken AS SELECT n, repeat('x', 50) FROM generate_series(1, 1000) n", "CREATE EXTENSION amcheck")
    damage(cluster, DAMAGED, "broken", settings)
    ask(cluster, DAMAGED, "-- fails\nSELECT count(*) FROM broken")


def fill(cluster, name):
    """Make a database with the tables that both twins have."""
    create(cluster, name)
    # The old version has the columns total_time and mean_time, whatever the server.
    version = " VERSION '1.7'" if name == FAULTY else ""
    # Statistics that know when they began.
    ask(cluster, name, "SELECT pg_stat_reset()")
    ask(cluster, name, f"CREATE EXTENSION pg_stat_statements{version}", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", BOTH)


def plant_faults(cluster):
    """Make the faulty database."""
    fill(cluster, FAULTY)
    ask(cluster, FAULTY, FAULTS, '-- fails\nCREATE UNIQUE INDEX CONCURRENTLY dup_ccnew ON "no ""key"" here" (b)')
    ask(cluster, FAULTY, 'VACUUM ANALYZE "Bloat ed"', "ANALYZE parent", 'ANALYZE "my schema"."order"', "VACUUM only_vacuumed")


def make_twin(cluster):
    """Make its twin, in which nothing is wrong and every index is used."""
    fill(cluster, CLEAN)
    ask(cluster, CLEAN, "VACUUM ANALYZE")
    ask(
        cluster,
        CLEAN,
        *["SELECT * FROM public.child WHERE parent_id = 5", "SELECT 'a literal', 1 FROM public.parent WHERE id = 7"] * 20,
    )
    with postgresql.connect(cluster.server, CLEAN) as session:
        flush(session)


def run_statements(cluster, *, seconds=0.05, times=3, scans=7):
    """Have the faulty database answer slow statements, read a table from end to end, fail, sort on disk and end a deadlock."""
    slow = [f"SELECT pg_sleep({seconds}), 'Anna Example', 4711", f"SELECT pg_sleep({seconds}), 'Berta Example', 4712"]
    scan = 'SELECT count(*) FROM public."no ""key"" here" WHERE a < 7'
    ask(cluster, FAULTY, *[*slow, "-- fails\nSELECT 1/0"] * times, *[scan] * scans)
    ask(cluster, FAULTY, "SET work_mem = '64kB'", "SELECT * FROM generate_series(1, 50000) n ORDER BY n")
    ask(cluster, FAULTY, "CREATE ROLE \"O'Brien\" PASSWORD 'hidden-s3cret'", 'DROP ROLE "O\'Brien"')
    deadlock(cluster)
    time.sleep(1.2)  # until the sessions have handed their counters over


def deadlock(cluster):
    def other():
        with contextlib.suppress(postgresql.StatementError), postgresql.connect(cluster.server, FAULTY) as session:
            session.execute("BEGIN; SELECT * FROM public.parent WHERE id = 2 FOR UPDATE")
            barrier.wait()
            session.execute("SELECT * FROM public.parent WHERE id = 1 FOR UPDATE")

    barrier = threading.Barrier(2)
    thread = threading.Thread(target=other)
    with postgresql.connect(cluster.server, FAULTY) as session:
        session.execute("SET deadlock_timeout = '50ms'")
        session.execute("BEGIN; SELECT * FROM public.parent WHERE id = 1 FOR UPDATE")
        thread.start()
        barrier.wait()
        with contextlib.suppress(postgresql.StatementError):
            session.execute("SELECT * FROM public.parent WHERE id = 2 FOR UPDATE")
        session.close()
        thread.join(10)


FOUND: t.Sequence[tuple[str, str, t.Sequence[str]]] = (
    ("slow_statements", "warning", ["pg_sleep"]),
    ("error_share", "warning", ["rolled back"]),
    ("deadlocks", "warning", ["deadlocks"]),
    ("dead_rows", "warning", ['"my schema"."order"', "50 percent dead"]),
    ("vacuum_due", "warning", ['"my schema"."order"', "never vacuumed"]),
    ("statistics", "warning", [f"public.{name}: never analysed" for name in ("never_analysed", "restored", "only_vacuumed")]),
    ("autovacuum_tables", "warning", ['"my schema"."order"']),
    ("freeze_due", "warning", ["percent of the way"]),
    ("bloat", "critical", ['public."Bloat ed"']),
    ("unused_indexes", "warning", ['public."unused Index"']),
    ("duplicate_indexes", "warning", ["public.code_twin is superfluous beside public.parent_code_key (constraint)", "child_parent"]),
    ("invalid_indexes", "warning", ["public.dup_ccnew", "leftover of a concurrent rebuild"]),
    ("foreign_key_indexes", "warning", ["public.orphan (parent_id) → public.parent"]),
    ("missing_indexes", "warning", ['public."no ""key"" here"']),
    (
        "sequences",
        "critical",
        ["public.narrow_id_seq (identity column id of public.narrow, int4)", "public.wide (column id of public.fed_by_wide"],
    ),
    ("primary_keys", "warning", ['public."no ""key"" here"']),
    ("triggers", "warning", ['public.parent: "Off"']),
    ("constraints", "warning", ["public.orphan: positive (check)"]),
    ("unlogged_tables", "warning", ['public."Unlogged"']),
    ("extensions", "warning", ["pg_stat_statements: 1.7"]),
    ("public_schema", "warning", ["schema public"]),
)
"""What the review says of the faulty database: finding, state, words."""


@contextlib.contextmanager
def in_trouble(cluster, seconds=0.8):
    """Have a server be in trouble, of which ``seconds`` are over at first: roles, rules and settings, and sessions that hold each other up."""
    write_hba(cluster, BAD_HBA)
    ask(cluster, "postgres", *TROUBLE)
    ask(cluster, FAULTY, "BEGIN; CREATE TABLE public.by_two_phases (a int PRIMARY KEY); PREPARE TRANSACTION 'left over'")
    patient = {"statement_timeout_seconds": 0, "lock_timeout_seconds": 0}
    with postgresql.connect(cluster.server, FAULTY, **patient) as waiter:
        with postgresql.connect(cluster.server, FAULTY, application_name="the holder") as holder:
            holder.execute("SET idle_in_transaction_session_timeout = 0")
            holder.execute("BEGIN; LOCK TABLE public.parent")
            waiter.execute("BEGIN")
            thread = threading.Thread(target=_suppressed, args=(waiter, "LOCK TABLE public.parent"))
            thread.start()
            time.sleep(seconds)
            yield
        thread.join(10)
    ask(cluster, FAULTY, "ROLLBACK PREPARED 'left over'")
    ask(cluster, "postgres", *TROUBLE_OVER)
    write_hba(cluster, HBA)


TROUBLE = (
    "ALTER SYSTEM SET max_connections = 61",
    'CREATE ROLE "second Root" SUPERUSER LOGIN',
    "CREATE ROLE maker CREATEROLE LOGIN",
    'CREATE ROLE through LOGIN IN ROLE "second Root"',
    "CREATE ROLE reader LOGIN IN ROLE pg_read_server_files",
    "CREATE ROLE replica REPLICATION LOGIN VALID UNTIL '2099-01-01'",
    "CREATE ROLE crew CREATEDB BYPASSRLS",
    "CREATE ROLE shift IN ROLE crew",
    "CREATE ROLE borrower LOGIN IN ROLE shift VALID UNTIL '2099-01-01'",
    "CREATE ROLE gone LOGIN VALID UNTIL '2020-01-01'",
    "SET password_encryption = 'md5'",
    "CREATE ROLE weak LOGIN PASSWORD 'weak-s3cret'",
    "SELECT pg_create_physical_replication_slot('forgotten', true)",
    "SELECT pg_stat_reset_shared('bgwriter')",
    "SELECT pg_reload_conf()",
)
TROUBLE_OVER = (
    "SELECT pg_drop_replication_slot('forgotten')",
    'DROP ROLE through, borrower, shift, crew, reader, maker, replica, "second Root", gone, weak',
    "ALTER SYSTEM SET max_connections = 60",
)


def _suppressed(session, statement):
    with contextlib.suppress(postgresql.StatementError):
        session.execute(statement)


OF_SERVER: t.Sequence[tuple[str, str, t.Sequence[str]]] = (
    ("connections", "warning", ["active", "idle in transaction"]),
    ("idle_in_transaction", "warning", ["the holder"]),
    ("long_transactions", "warning", ["the holder"]),
    ("lock_waits", "warning", ["waits for a relation lock held by pid", "the holder"]),
    ("prepared_transactions", "warning", ["left over"]),
    ("replication_slots", "warning", ["forgotten (physical): inactive, keeps"]),
    ("version", "critical" if IS_OUTDATED else "warning", [f"{MAJOR}.99 is the newest"]),
    ("settings", "warning", ["work_mem is 4096 x kB, recommended >=1GB"]),
    ("settings_changed", "warning", ["max_connections waits for a restart"]),
    ("wraparound", "warning", ["template0, which allows no connection"]),
    ("superusers", "warning", ["second Root"]),
    ("unused_roles", "warning", ["second Root"]),
    ("expired_roles", "warning", ["gone, valid until 2020-01-01"]),
    ("password_encryption", "warning", ["weak has an MD5 password"]),
    (
        "role_rights",
        "warning",
        [
            "(4)",
            "borrower: CREATEDB, BYPASSRLS through crew",
            "maker: CREATEROLE",
            "through second Root, a superuser",
            "reader: member of pg_read_server_files",
        ],
    ),
    ("role_expiry", "warning", ["(5)", "maker", "reader", "second Root", "through", "weak"]),
    ("hba_loaded", "warning", ["1 lines have an error, so that rules loaded before stay in force"]),
    ("hba", "critical", ["0.0.0.0): open to every address", "trust lets everybody in", "host app all 127.0.0.1", "not in force"]),
)
"""What it says of a server in trouble."""


def age(cluster, segment=860):
    """Move a cluster that has not started yet on by hundreds of millions of transactions, as if they had been used."""
    _as_postgres(cluster, "pg_resetwal", "-x", str(segment * 1048576), cluster.data)
    path = os.path.join(cluster.data, "pg_xact", f"{segment:04X}")
    with open(path, "wb") as target:
        target.truncate(262144)
    owner = os.stat(cluster.data)
    os.chown(path, owner.st_uid, owner.st_gid)


def without_checksums(cluster):
    """Switch the checksums of a cluster that has not started yet off."""
    _as_postgres(cluster, "pg_checksums", "--disable", "--no-sync", "-D", cluster.data)


def _as_postgres(cluster, program, *arguments):
    ran = postgresql_programs.run_program(
        [postgresql_programs.find_program(program, cluster.major), *arguments], os_user="postgres", timeout=120
    )
    assert ran.rc == 0, ran.why()


@contextlib.contextmanager
def standby_of(cluster, name="replica_one", **settings):
    """Yield a replica that streams, unless settings (values quoted) say otherwise."""
    folder = os.path.dirname(os.path.dirname(cluster.folder))
    with scratch_cluster(os.path.join(folder, "r"), MAJOR) as standby:
        argv = ["-D", standby.data, "-h", cluster.socket, "-U", "postgres", "-c", "fast", "--no-verify-checksums"]
        _as_postgres(cluster, "pg_basebackup", *argv)
        with open(os.path.join(standby.data, "standby.signal"), "w", encoding="utf-8"):
            pass
        source = f"'host={cluster.socket} user=postgres application_name={name}'"
        standby.start({**AS_IN_PRODUCTION, **SETTINGS, "primary_conninfo": source, "hot_standby": "on", **settings})
        yield standby
