"""Real PostgreSQL clusters for tests, with the settings of production and no data in them."""

from __future__ import annotations

import contextlib
import os
import tempfile

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_programs
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_scratch import scratch_cluster

MAJOR = int(os.environ.get("POSTGRESQL_MAJOR", 0)) or max(postgresql_programs.installed_majors(), default=0)
"""The version that is tested: the image's own, or one that scripts/postgresql_versions.sh adds to it."""

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


def client_program(name):
    """Return the path of a client program of that version, or of the image's own, which knows older servers too."""
    return postgresql_programs.find_program(name, MAJOR, or_newer=True)


@contextlib.contextmanager
def running_cluster(settings=None, prepare=None):
    """Yield a cluster that runs; further settings have their values already quoted.

    :param prepare: called with the cluster before it is started.
    """
    # A short folder, for the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with scratch_cluster(os.path.join(folder, "s"), MAJOR) as cluster:
            cluster.initialise()
            if prepare:
                prepare(cluster)
            cluster.start({**AS_IN_PRODUCTION, **(settings or {})})
            yield cluster
