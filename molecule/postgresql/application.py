"""An application that goes on while its database is maintained: pgbench on the shop's database. Runs as postgres.

usage: application.py prepare FOLDER   make its tables, with work for every online form of upkeep
       application.py run FOLDER       work until the file `stop` is there, then say in `load.json` when each transaction ended and what it took
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from load import Load
from upkeep_runs import work_under_load

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql

SERVER = {name: spec.get("default") for name, spec in postgresql.SERVER.items()}
CLUSTER = SimpleNamespace(socket=postgresql.SOCKET_FOLDER, server={**SERVER, "name": "main"})
TABLES = "public.pgbench_accounts, public.pgbench_branches, public.pgbench_history, public.pgbench_tellers"


def prepare(folder):
    Load(CLUSTER, "shop", folder, scale=3)
    with postgresql.connect(CLUSTER.server, "shop") as session:
        work_under_load(session, CLUSTER, "shop", folder)


def run(folder):
    load = Load(CLUSTER, "shop", folder, scale=0, rate=100)
    while not (folder / "stop").exists():
        load.batch(2)
    # What it wrote after its upkeep is autovacuum's work, which does not come here: the next upkeep shall find nothing due.
    with postgresql.connect(CLUSTER.server, "shop") as session:
        session.execute(f"VACUUM (ANALYZE) {TABLES}")
    (folder / "load.new").write_text(json.dumps(load.timed))
    (folder / "load.new").rename(folder / "load.json")


if __name__ == "__main__":
    {"prepare": prepare, "run": run}[sys.argv[1]](Path(sys.argv[2]))
