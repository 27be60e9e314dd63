"""A cluster with data, a tablespace and nothing of production missing, to make physical backups of."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile

from clusters import AS_IN_PRODUCTION, MAJOR

from ansible_collections.ops.maintenance.plugins.module_utils import backup_physical, postgresql, postgresql_programs
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_scratch import scratch_cluster

# A copy does not start with less than the source had.
AS_THERE = {name: AS_IN_PRODUCTION[name] for name in ("wal_level", "max_connections", "max_prepared_transactions", "max_wal_senders")}


@contextlib.contextmanager
def source_cluster(settings=None, os_user="postgres"):
    """Yield a running cluster with a table of 2000 orders, and a folder that its user may write to."""
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with scratch_cluster(os.path.join(folder, "s"), MAJOR, os_user) as cluster:
            cluster.initialise()
            place = os.path.join(folder, "w")
            os.mkdir(place)
            owner = postgresql_programs.identity(os_user)
            os.chown(place, owner["user"], owner["group"])
            cluster.start({**AS_IN_PRODUCTION, **(settings(place) if settings else {})})
            space = os.path.join(place, "space")
            as_user(cluster, "mkdir", space)
            with postgresql.connect(cluster.server) as session:
                session.execute(f"CREATE TABLESPACE apart LOCATION {session.literal(space)}")
                session.execute("CREATE TABLE public.orders (id int PRIMARY KEY, text text, at timestamptz DEFAULT now())")
                session.execute("INSERT INTO public.orders SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i")
                session.execute("CREATE TABLE public.apart (id int) TABLESPACE apart")
                session.execute("INSERT INTO public.apart SELECT generate_series(1, 500)")
                session.execute("CHECKPOINT")
            yield cluster, place


def as_user(cluster, *argv, env=None):
    """Run a program as the cluster's user; it has to succeed."""
    path = f"/usr/lib/postgresql/{MAJOR}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    argv = [cluster.program(argv[0]) if argv[0].startswith("pg_") else argv[0], *argv[1:]]
    who = postgresql_programs.identity(cluster.os_user)
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env={"PATH": path, **(env or {})}, timeout=180, cwd="/", **who)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


def path_of(cluster, table="orders"):
    """Return where a table's file lies below the data folder, as the server says it."""
    with postgresql.connect(cluster.server) as session:
        return session.value("SELECT pg_relation_filepath(%s::regclass)", [f"public.{table}"])


def server_of(cluster):
    """The cluster as a declared server named ``live``."""
    return {**cluster.server, "name": "live"}


def rows_of(os_user, fill):
    """Start what a backup's own tool puts into an empty data folder; return a digest of its rows, None when that does not work.

    :param fill: puts it there and returns settings to start it with.
    """
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with scratch_cluster(folder, MAJOR, os_user) as cluster:
            try:
                settings = fill(cluster)
                backup_physical.own(cluster)
                cluster.start({"archive_mode": "off", "hot_standby": "off", **AS_THERE, **settings})
                backup_physical._wait_until_writable(cluster, 60.0)
                with postgresql.connect(cluster.server) as session:
                    digest = "SELECT md5(string_agg(r::text, '|' ORDER BY r::text)) FROM"
                    return [session.value(f"{digest} public.{table} r") for table in ("orders", "apart")]
            except (AssertionError, MaintenanceError, OSError) as error:
                print(f"it cannot be restored: {error}")
                return None
