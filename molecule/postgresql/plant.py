"""Servers with everything wrong that a review finds, and one that is sound; they run until this program ends.

usage: plant.py FOLDER   (its file `ready` appears when all of them run; beside it lies each server's socket folder by name)
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import clusters
import review_faults as faults

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql

# The test that looks for left-over restores goes by the name that they give themselves.
NAMED = {"cluster_name": "'planted'"}
SOUND = {**faults.SETTINGS, **NAMED, "work_mem": "'1GB'"}
# Few connections, so that some of them are many; so far from a forced vacuum that nothing freezes what is old.
TROUBLED = {**faults.SETTINGS, **NAMED, "max_connections": "20", "autovacuum_freeze_max_age": "2000000000"}
NEGLECTED = {**NAMED, "autovacuum": "off", "shared_preload_libraries": "''", "archive_mode": "on", "archive_command": "'false'"}
IDLE_SESSIONS = 11
# A segment of the write-ahead log is over.
SWITCH = ["SELECT pg_logical_emit_message(false, 'planted', 'x')", "SELECT pg_switch_wal()"]


def troubled(stack):
    """A server that is old, crowded and open to everybody, with the faulty database and a damaged one."""
    cluster = stack.enter_context(clusters.running_cluster(TROUBLED, prepare=faults.age))
    faults.plant_damage(cluster, TROUBLED)
    faults.plant_faults(cluster)
    # Often and long enough for the limits of production.
    faults.run_statements(cluster, seconds=0.12, times=6, scans=101)
    stack.enter_context(faults.in_trouble(cluster, seconds=0))
    for _number in range(IDLE_SESSIONS):
        stack.enter_context(postgresql.connect(cluster.server))
    return cluster


def sound(stack):
    """A server of which the review has nothing to say, and its replica, which keeps up."""
    cluster = stack.enter_context(clusters.running_cluster(SOUND))
    faults.write_hba(cluster, faults.HBA)
    faults.make_twin(cluster)
    faults.ask(cluster, faults.CLEAN, "CREATE EXTENSION amcheck", "SELECT pg_create_physical_replication_slot('in_use', true)")
    replica = stack.enter_context(faults.standby_of(cluster, "replica", **SOUND, primary_slot_name="'in_use'"))
    faults.write_hba(replica, faults.HBA)
    return cluster, replica


def neglected(stack):
    """A server without autovacuum, checksums, archive and counted statements, and its replicas: one is behind, one gets nothing."""
    cluster = stack.enter_context(clusters.running_cluster(NEGLECTED, prepare=faults.without_checksums))
    faults.ask(cluster, "postgres", "CREATE EXTENSION pg_stat_statements", "SELECT pg_create_physical_replication_slot('lonely', true)")
    behind = stack.enter_context(faults.standby_of(cluster, "behind", **NAMED))
    cut_off = stack.enter_context(faults.standby_of(cluster, "cut_off", **NAMED, primary_conninfo="'host=/nowhere'"))
    faults.ask(behind, "postgres", "SELECT pg_wal_replay_pause()")
    faults.ask(cluster, "postgres", *SWITCH * 3)
    return cluster, behind, cut_off


def main(folder):
    with contextlib.ExitStack() as stack:
        servers = dict(zip(("neglected", "behind", "cut_off"), neglected(stack), strict=True))
        servers.update(zip(("sound", "replica"), sound(stack), strict=True))
        servers["troubled"] = troubled(stack)
        os.makedirs(folder, exist_ok=True)
        for name, cluster in servers.items():
            os.symlink(cluster.socket, os.path.join(folder, name))
        with open(os.path.join(folder, "ready"), "w", encoding="utf-8") as ready:
            ready.write(f"{time.time()}\n")
        signal.signal(signal.SIGTERM, lambda *_of: sys.exit())
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
