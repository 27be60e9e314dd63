"""Real PostgreSQL clusters for tests, with the settings of production and no data in them."""

from __future__ import annotations

import contextlib
import os
import tempfile

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_programs
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_scratch import scratch_cluster

MAJOR = max(postgresql_programs.installed_majors(), default=0)
# What a production server has and a scratch one has not.
AS_IN_PRODUCTION = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "max_wal_senders": "5",
    "max_wal_size": "'1GB'",
    "max_prepared_transactions": "5",
    "max_connections": "60",
    "shared_preload_libraries": "'pg_stat_statements'",
    "autovacuum": "off",
}


@contextlib.contextmanager
def running_cluster(settings=None):
    """Yield a cluster that runs; further settings have their values already quoted."""
    # A short folder, for the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with scratch_cluster(os.path.join(folder, "s"), MAJOR) as cluster:
            cluster.initialise()
            cluster.start({**AS_IN_PRODUCTION, **(settings or {})})
            yield cluster
