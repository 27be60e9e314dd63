"""A primary and its replica after one run: who was updated when, and what the servers themselves say."""

from __future__ import annotations

import re

from helpers import findings, of_kind, runs

testinfra_hosts = ["shop"]
CHECKED, FIRST, SECOND = range(3)
REPLICA, PRIMARY = "minor-replica", "minor-primary"


def ask(host, question: str) -> str:
    with host.sudo("postgres"):
        return host.check_output("psql -XAtc %s", question)


def name_of(host) -> str:
    return host.backend.get_hostname()


def updates(run: int, **fields) -> list[dict]:
    return of_kind("record", runs()[run], operation="postgresql_minor_update", **fields)


def test_running_server_says_the_release_that_apt_had(host):
    offered = host.check_output("apt-cache madison postgresql-15").split("|")[1]
    assert ask(host, "SHOW server_version").split()[0] == re.match(r"\s*([\d.]+)", offered).group(1)


def test_each_kept_its_role_and_the_replica_follows(host):
    assert ask(host, "SELECT pg_is_in_recovery()") == ("t" if name_of(host) == REPLICA else "f")
    assert ask(host, "SELECT count(*) FROM orders") == "1000"
    if name_of(host) == PRIMARY:
        assert ask(host, "SELECT state FROM pg_stat_replication") == "streaming"


def test_replica_was_done_before_the_primary_began():
    [replica] = updates(FIRST, host=REPLICA, status="changed")
    [primary] = updates(FIRST, host=PRIMARY, status="changed")
    assert replica["finished"] < primary["started"]


def test_it_was_inside_maintenance_mode_and_after_the_snapshot(host):
    [update] = updates(FIRST, host=name_of(host), status="changed")
    records = of_kind("record", runs()[FIRST], host=name_of(host))
    [entered] = [one for one in records if one["operation"] == "maintenance_mode" and one["status"] == "changed"]
    [taken] = [one for one in records if one["operation"] == "snapshot" and one["status"] == "changed"]
    assert entered["finished"] < taken["started"]
    assert taken["finished"] < update["started"]


def test_check_mode_said_so_and_the_second_run_has_nothing_to_do(host):
    assert "due" in {record["status"] for record in updates(CHECKED, host=REPLICA)}
    # The primary is not asked to go first, in check mode neither.
    assert "deferred" in {record["status"] for record in updates(CHECKED, host=PRIMARY)}
    assert {record["status"] for record in updates(SECOND, host=name_of(host))} == {"ok"}
    found = findings("postgresql_minor.pending", host=name_of(host), journal=runs()[SECOND])
    assert {one["state"] for one in found} == {"ok"}
