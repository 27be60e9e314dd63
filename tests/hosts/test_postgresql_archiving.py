"""The way of the write-ahead log to its archive on a real server: netpost-bak-01, where an hour is all that may be lost."""

from __future__ import annotations

import os
import time

import pytest
from clusters import running_cluster

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_review
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

WAITS = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"


@pytest.fixture(scope="module")
def cluster():
    with running_cluster({"archive_mode": "on", "archive_command": "'false'"}) as running:
        with postgresql.connect(running.server) as session:
            session.execute("CREATE ROLE watcher LOGIN IN ROLE pg_monitor")
        yield running


def archiving(cluster, user="watcher", **limits):
    spec = {name: option.get("default") for name, option in postgresql_review.OPTIONS.items()}
    server = {**cluster.server, "name": "main", "user": user, "databases": []}
    common = {"run_id": "", "deadline": 0.0, "state_dir": "/tmp/archiving_state_unused", "self_test": False}
    outcome = postgresql_review.run({**spec, **common, "servers": [server], "limits": limits}, True, Host())
    return next(finding for finding in outcome.findings if finding.id == "postgresql.archiving")


def eventually(cluster, question):
    deadline = time.monotonic() + 30
    while True:
        with postgresql.connect(cluster.server) as session:
            if session.value(question):
                return
        assert time.monotonic() < deadline, question
        time.sleep(0.1)


def configure(cluster, command):
    with postgresql.connect(cluster.server) as session:
        session.execute(f"ALTER SYSTEM SET archive_command = '{command}'")
        session.execute("SELECT pg_reload_conf()")


def test_a_segment_that_cannot_be_archived_is_critical_and_one_that_can_is_fine(cluster):
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE TABLE public.written (n int)")
        session.execute("SELECT pg_switch_wal()")
    eventually(cluster, "SELECT failed_count > 0 FROM pg_stat_archiver")
    finding = archiving(cluster)
    assert finding.state == "critical"
    assert "could not be archived, 1 segment waiting" in finding.summary
    configure(cluster, "true")
    eventually(cluster, f"SELECT ({WAITS}) = 0 AND archived_count > 0 AND last_archived_time > last_failed_time FROM pg_stat_archiver")
    assert archiving(cluster).state == "ok"


def test_an_archiver_that_hangs_is_found_by_how_long_the_oldest_segment_waits(cluster):
    configure(cluster, "sleep 600")
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE TABLE public.more (n int)")
        session.execute("SELECT pg_switch_wal()")
    eventually(cluster, f"SELECT ({WAITS}) > 0")
    assert archiving(cluster).state == "ok"
    status = os.path.join(cluster.data, "pg_wal/archive_status")
    for name in os.listdir(status):
        if name.endswith(".ready"):
            os.utime(os.path.join(status, name), (time.time() - 1800,) * 2)
    late = archiving(cluster)
    assert (late.state, "the oldest for 30 min" in late.summary) == ("warning", True)
    assert archiving(cluster, archive_lag_critical_seconds=900).state == "critical"


def test_who_may_not_look_is_told_so(cluster):
    with postgresql.connect(cluster.server) as session:
        session.execute("CREATE ROLE nobody_special LOGIN")
    assert archiving(cluster, user="nobody_special").state == "unknown"


def test_a_server_without_an_archive_says_where_a_restore_ends():
    with running_cluster() as plain:
        finding = archiving(plain, user="postgres")
    assert (finding.state, "ends at the last backup" in finding.summary) == ("ok", True)
