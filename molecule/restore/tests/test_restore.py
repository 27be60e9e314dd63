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


def drill(host, application: str) -> dict[str, dict]:
    found = findings(host=name_of(host), subject=application, journal=runs()[0])
    return {one["id"].partition(".")[2]: one for one in found if one["id"].startswith("drill.")}


def test_a_whole_application_comes_back_and_works_on_what_was_restored(host):
    """asr-15-1: database, files and configuration together; the live database had lost its orders by then."""
    found = drill(host, "shop")
    assert {name: one["state"] for name, one in found.items()} == dict.fromkeys(
        ["together", "files", "references", "database", "application", "rto", "rpo"], "ok"
    ), found
    assert found["files"]["not_covered"] == ""
    assert 0 < found["rto"]["value"] < 120
    assert found["rpo"]["value"] < 24


def test_files_that_do_not_fit_their_database_are_found(host):
    found = drill(host, "shop without an upload")
    assert found["together"]["state"] == "critical"
    assert found["files"]["state"] == "critical"
    assert "kept.pdf" in found["files"]["summary"]
    assert found["references"]["state"] == "critical"
    assert "kept.pdf" in found["references"]["summary"]
    assert found["rpo"]["state"] == "critical"


def test_an_application_that_lacks_its_configuration_does_not_work(host):
    """The live configuration is there all the while, and is out of its reach."""
    found = drill(host, "shop without configuration")
    assert found["database"]["state"] == "ok"
    assert found["application"]["state"] == "critical"
    assert found["rto"]["state"] == "unknown"


def test_a_restored_copy_reaches_nothing_that_is_live(host):
    """asr-15-1: it must not send or sync a second time. The copy tries; its answer, which was demanded, says that it could not."""
    assert host.socket("tcp://22").is_listening  # what it tried to reach is there for others
    for folder in ("/srv/shop/uploads", "/srv/shared", "/tmp"):
        assert not host.file(f"{folder}/by_the_copy").exists
    assert host.file("/srv/shop/etc/shop.ini").content_string == "greeting = the restored shop\n"
    assert host.run("systemctl list-units --all --no-legend 'ops-maintenance-drill-*'").stdout == ""
    assert host.run("pgrep -f [/]srv/shop/app.py").rc == 1


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
