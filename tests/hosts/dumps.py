"""Databases that are dumped for tests, and the declaration of a set of such dumps."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess

from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification as verification
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_programs
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

PACKERS = {"gz": ["gzip", "-c"], "zst": ["zstd", "-qc"], "xz": ["xz", "-1c"], "bz2": ["bzip2", "-c"]}

CONTENT = """
CREATE TABLE public.customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, made timestamptz NOT NULL);
CREATE TABLE public.orders (
  id bigint PRIMARY KEY, customer bigint NOT NULL REFERENCES public.customers, note text, changed timestamptz NOT NULL, total numeric CHECK (total >= 0)
);
CREATE TABLE public."Mixed ""case"" table" (id int PRIMARY KEY, "select" text);
CREATE INDEX orders_changed ON public.orders (changed);
CREATE SCHEMA archive;
CREATE TABLE archive.old_orders (LIKE public.orders);
CREATE TABLE public.parts (id int, made date) PARTITION BY RANGE (made);
CREATE TABLE public.parts_2026 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE FUNCTION public.twice(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  -- a line that looks like data:
  RETURN n * 2;
END $$;
INSERT INTO public.customers (name, made) SELECT 'customer ' || n, now() - n * interval '1 hour' FROM generate_series(1, 40) n;
INSERT INTO public.orders SELECT n, 1 + n % 40, E'tab\\there\\\\. ' || md5(n::text) || E'\\nsecond line', now() - n * interval '1 minute', n
  FROM generate_series(1, 300) n;
INSERT INTO public."Mixed ""case"" table" VALUES (1, E'\\\\.'), (2, NULL);
INSERT INTO archive.old_orders SELECT * FROM public.orders LIMIT 20;
INSERT INTO public.parts SELECT n, date '2026-01-01' + n FROM generate_series(0, 30) n;
"""


def fill(cluster, database, statements=CONTENT):
    """Put the tables and rows of an application into a database, owned by a role of its own."""
    with postgresql.connect(cluster.server, database) as session:
        session.execute("SET search_path = public, pg_catalog")
        session.execute("SELECT set_config('client_min_messages', 'warning', false)")
        if not session.value("SELECT 1 FROM pg_roles WHERE rolname = 'shop owner'"):
            session.execute('CREATE ROLE "shop owner"')
        session.execute(statements)
        if statements != CONTENT:
            return
        session.execute('ALTER TABLE public.orders OWNER TO "shop owner"')
        session.execute('GRANT SELECT ON public.customers TO "shop owner"')


def dump(cluster, database, path, form="custom", *options, pack=""):
    """Dump a database as pg_dump does, packed by another program where asked."""
    path = str(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    argv = [cluster.program("pg_dump"), f"--format={form}", *options, database]
    with postgresql_programs.client_environment(cluster.server) as env:
        if form == "directory":
            subprocess.run([*argv, f"--file={path}"], check=True, env={**os.environ, **env}, timeout=60)
            return path
        said = subprocess.run(argv, check=True, capture_output=True, env={**os.environ, **env}, timeout=60).stdout
    if pack:
        said = subprocess.run(PACKERS[pack], check=True, input=said, capture_output=True, timeout=60).stdout
    with open(path, "wb") as target:
        target.write(said)
    return path


def with_defaults(options, given):
    """Fill in defaults as AnsibleModule does."""
    full = {}
    for name, spec in options.items():
        value = given.get(name, copy.deepcopy(spec.get("default")))
        if value is not None and "options" in spec:
            nested = spec["options"]
            value = [with_defaults(nested, item) for item in value] if spec["type"] == "list" else with_defaults(nested, value)
        full[name] = value
    assert not set(given) - set(options), set(given) - set(options)
    return full


def verify(folder, *sets, check_mode=False, host=None, state=None, **more):
    """Run the module on sets; its scratch and state folders lie in a folder that PostgreSQL's user can reach."""
    given = {"sets": list(sets), "scratch": f"{folder}/scratch", "timezone": "UTC", "settle_seconds": 0.0}
    given |= {name: value for name, value in more.items() if name in verification.OPTIONS}
    full = with_defaults(verification.OPTIONS, given)
    common = {"run_id": "", "deadline": 0.0, "self_test": False, "state_dir": state or f"{folder}/state"}
    common |= {name: value for name, value in more.items() if name in common}
    return verification.run({**common, **full}, check_mode, host or Host())


def the_set(root, **more):
    """Declare a set of dumps of the application above."""
    declared = {
        "name": "db",
        "kind": "postgresql",
        "root": str(root),
        "level": 5,
        "count_tables": ["orders"],
        "required_tables": ["orders"],
    }
    return {**declared, **more}


def finding(outcome, id_):
    """Return the first finding of that id."""
    return next(found for found in outcome.findings if found.id == id_)


def level(outcome, name="db"):
    """Return the level that a set is proven to."""
    return outcome.returned["proofs"][name]["level"]


def clear(folder):
    """Remove what an earlier case left."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
