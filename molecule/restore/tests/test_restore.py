"""What the drill said of each backup, and what the restore left on the host."""

from __future__ import annotations

from helpers import findings, of_kind, runs

testinfra_hosts = ["shop"]


def name_of(host) -> str:
    return host.backend.get_hostname()


def ask(host, database: str, question: str) -> str:
    with host.sudo("postgres"):
        return host.check_output("psql -XAtd %s -c %s", database, question)


def drilled(host, name: str) -> dict[str, str]:
    found = findings(host=name_of(host), journal=runs()[0])
    return {one["id"]: one["state"] for one in found if one["subject"] == name or f"/{name}/" in one["subject"]}


def test_sound_backups_reach_the_last_level_and_keep_their_recovery_time(host):
    for name in ("archives", "plain"):
        states = drilled(host, name)
        assert {"backup.level", "backup.integrity", "backup.content", "backup.rto"} <= {
            one for one, state in states.items() if state == "ok"
        }, (
            name,
            states,
        )


def test_a_backup_whose_contents_list_reads_well_is_found_to_be_cut_off(host):
    states = drilled(host, "damaged")
    assert states["backup.level"] == "critical"
    assert "critical" in {states.get("backup.structure"), states.get("backup.checksum")}


def test_the_lost_orders_are_back_and_the_database_before_is_kept(host):
    assert ask(host, "shop", "SELECT count(*) FROM orders") == "20000"
    assert ask(host, "shop", "SELECT count(*) FROM approvals") == "700"
    kept = ask(host, "postgres", "SELECT datname, datallowconn FROM pg_database WHERE datname LIKE 'shop_before_%'")
    assert kept.endswith("|f")  # nobody works in it by mistake
    assert len(kept.splitlines()) == 1


def test_the_service_runs_on_the_restored_database(host):
    assert host.service("shop.service").is_running
    assert int(ask(host, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND query LIKE '%pg_sleep%'")) >= 1


def test_the_restore_ended_well_and_a_snapshot_was_taken_before(host):
    outcomes = {line["outcome"] for line in of_kind("outcome", runs()[-1], host=name_of(host))}
    assert outcomes == {"completed"}
    assert host.file("/var/backups/ops_maintenance").listdir()


def test_nothing_of_a_drill_is_left(host):
    assert host.run("pgrep -f '[o]ps_maintenance_scratch'").rc == 1
