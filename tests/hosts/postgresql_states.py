"""What the tests of snapshots, rollbacks and restores of PostgreSQL share: filling, looking, killing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timezone

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
RUN = "weekly-20261121T020000Z-3fa9"
HOSTILE = 'My "odd" db\'s; $(x) = %s \\ ü'


class Machine(Host):
    """The real machine with a fixed time."""

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


def fill(cluster, database, rows=200):
    """Make tables, odd names and what looks like the text of a dump."""
    with postgresql.connect(cluster.server, database) as session:
        session.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, said text)")
        session.execute(f"INSERT INTO public.orders SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, {rows}) i")
        session.execute("CREATE TABLE public.lines (id serial PRIMARY KEY, order_id bigint REFERENCES public.orders)")
        session.execute("INSERT INTO public.lines (order_id) SELECT id FROM public.orders")
        session.execute('CREATE TABLE public."Mixed . ""Case""" (a text)')
        session.execute('INSERT INTO public."Mixed . ""Case""" VALUES (%s), (%s), (NULL)', ["COPY public.x FROM stdin;\n\\.\n", "\\."])
        session.execute("CREATE TABLE public.empty (a int)")
        session.execute("CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS 'SELECT ''\nCOPY public.y (a) FROM stdin;\n1\n'''")
        session.execute("SELECT lo_from_bytea(0, '\\x0a434f5059')")


def orders(server, database):
    with postgresql.connect(server, database) as session:
        return session.value("SELECT count(*) FROM public.orders")


def names(cluster):
    with postgresql.connect(cluster.server) as session:
        return {row["datname"] for row in session.rows("SELECT datname FROM pg_database")}


def drop(cluster, *databases):
    with postgresql.connect(cluster.server) as session:
        for name in databases:
            session.execute(f"DROP DATABASE IF EXISTS {session.identifier(name)} WITH (FORCE)")


def of(outcome, finding_id):
    return [finding for finding in outcome.findings if finding.id == finding_id]


def enter_maintenance(state_dir, phase="entered"):
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    with open(os.path.join(state_dir, "maintenance.json"), "w", encoding="utf-8") as target:
        json.dump({"run_id": RUN, "phase": phase}, target)


def in_process(module, params, before="pass"):
    """Run a module's work in a process of its own, which ends with 3 when it is refused; ``before`` is code that runs first."""
    code = (
        "import json, os, sys\n"
        f"from ansible_collections.ops.maintenance.plugins.module_utils import {module} as work, postgresql_switch, rollback\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError\n"
        "from ansible_collections.ops.maintenance.plugins.module_utils.host import Host\n"
        f"{before}\n"
        "try: work.run(json.loads(sys.argv[1]), False, Host())\n"
        "except MaintenanceError as error: print(error, flush=True); sys.exit(3)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, json.dumps(params)], stdout=subprocess.PIPE, text=True)
