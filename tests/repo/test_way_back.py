"""A snapshot before a deployment, and the way back to it by name, as `ansible-playbook` runs them on hosts that are folders of this machine."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cycle import COLLECTION, Run, Site

pytestmark = pytest.mark.slow

SECRET = "hunter2-of-production"


def site_of(folder: Path, **more: Any) -> Site:
    here = f"{folder}/site/{{{{ inventory_hostname }}}}"
    redeploy = {"name": "redeploy", "when": "restored", "argv": ["/bin/sh", "-c", f"test ! -e {here}/runs && echo new >{here}/deployed"]}
    variables = {
        "snapshot_paths": [f"{here}/data/.env"],
        "snapshot_releases": [{"name": "app", "path": f"{here}/app", "data": ["uploads"], "version_file": "VERSION"}],
        "snapshot_version_control": {
            "tree": f"{here}/versions",
            "encrypt_command": ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", f"file:{here}/key"],
        },
        "site_commands": [{**redeploy, "required": True, "changes": True}],
        **more,
    }
    site = Site(folder / "site", {"h1": {}}, variables)
    home = site.folder / "h1"
    (home / "data/.env").write_text(f"PASSWORD={SECRET}\n")
    (home / "data/.env").chmod(0o600)
    (home / "key").write_text("a key\n")
    (home / "app/uploads").mkdir(parents=True)
    (home / "app/VERSION").write_text("1.0\n")
    (home / "versions").mkdir(mode=0o700)
    subprocess.run(["git", "-C", str(home / "versions"), "init", "--quiet"], check=True)
    return site


def snapshot(site: Site, *argv: str) -> Run:
    return site.run(*argv, playbook=f"{COLLECTION}/playbooks/snapshot.yml")


def deploy(home: Path) -> None:
    (home / "app/VERSION").write_text("2.0\n")
    (home / "app/uploads/1").write_text("of a user")
    (home / "data/.env").write_text("PASSWORD=wrong\n")
    (home / "data/.env").chmod(0o644)
    with sqlite3.connect(home / "data/app.db") as database:
        database.execute("INSERT INTO orders (text) VALUES ('written since')")
    database.close()


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Run]:
    site = site_of(tmp_path_factory.mktemp("taken"))
    return site, snapshot(site)


def test_a_snapshot_before_a_deployment_stops_nothing_and_holds_database_and_configuration_netpost_dep_05(taken: tuple[Site, Run]) -> None:
    site, run = taken
    home = site.folder / "h1"
    assert (run.code, run.outcomes, run.has_report) == (0, {"h1": "completed"}, True), run.said
    assert not (home / "order").exists(), "no service was stopped"
    assert (home / "runs").exists()
    assert not (home / "state/lock.json").exists()
    record = run.records("snapshot")[0]
    found = {finding["id"]: finding["state"] for finding in record["findings"]}
    assert (found["snapshot.present"], found["snapshot.version_control"], found["snapshot.plan"], found["snapshot.release"]) == ("ok",) * 4
    assert SECRET not in run.said
    assert all(SECRET.encode() not in path.read_bytes() for path in (site.folder / "journal").iterdir() if path.is_file())


def test_configuration_comes_back_by_name_and_the_application_is_told_before_it_starts_netpost_res_2(taken: tuple[Site, Run]) -> None:
    site, first = taken
    home = site.folder / "h1"
    deploy(home)
    run = site.run(
        playbook=f"{COLLECTION}/playbooks/rollback.yml",
        maintenance_run_id=first.lines[0]["run_id"],
        snapshot_rollback_paths=[f"{home}/data/.env"],
    )
    assert (run.code, run.outcomes) == (0, {"h1": "completed"}), run.said
    assert (home / "data/.env").read_text() == f"PASSWORD={SECRET}\n"
    assert stat.S_IMODE((home / "data/.env").stat().st_mode) == 0o600
    assert (home / "deployed").read_text() == "new\n", "while the service stood still"
    assert (site.rows("h1"), (home / "app/VERSION").read_text()) == (101, "2.0\n"), "nothing else went back"
    assert SECRET not in run.said


def test_the_release_goes_back_and_uploads_and_rows_stay_asr_03_2(taken: tuple[Site, Run]) -> None:
    site, first = taken
    home = site.folder / "h1"
    run = site.run(
        playbook=f"{COLLECTION}/playbooks/rollback.yml", maintenance_run_id=first.lines[0]["run_id"], snapshot_rollback_only=["releases"]
    )
    assert (run.code, (home / "app/VERSION").read_text()) == (0, "1.0\n"), run.said
    assert ((home / "app/uploads/1").read_text(), site.rows("h1")) == ("of a user", 101)


def test_the_pipeline_ends_where_no_snapshot_comes_about(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    subprocess.run(["rm", "-r", str(site.folder / "h1/app")], check=True)
    run = snapshot(site)
    assert (run.code != 0, run.outcomes) == (True, {"h1": "failed"}), run.said
    assert (site.folder / "h1/runs").exists()
    assert not (site.folder / "h1/state/lock.json").exists()


def test_check_mode_looks_and_leaves_no_trace(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    run = snapshot(site, "--check")
    assert run.outcomes == {"h1": "completed"}, run.said
    assert site.is_untouched("h1")
    assert list((site.folder / "h1/versions").iterdir()) == [site.folder / "h1/versions/.git"]


def test_in_an_incident_the_scope_is_told_before_anything_is_tried_netpost_em_7(tmp_path: Path) -> None:
    notice = tmp_path / "notice"
    site = site_of(tmp_path, notification_channels=[{"kind": "file", "path": str(notice)}], maintenance_contacts={"lead": "on call"})
    (site.folder / "h1/runs").unlink()
    run = site.run(playbook=f"{COLLECTION}/playbooks/restore.yml", restore_incident="the database is gone")
    assert run.outcomes == {"h1": "failed"}, "there is no server to restore into here"
    told = notice.read_text()
    assert "the database is gone" in told
    assert "app" in told.partition("What does not work")[2]
    assert "on call" in told
    assert [line["operation"] for line in run.of_kind("record") if line["operation"] in ("validation", "notify", "restore")][:2] == [
        "validation",
        "notify",
    ]


def test_an_incident_that_cannot_be_told_does_not_keep_anybody_from_the_way_back(tmp_path: Path) -> None:
    site = site_of(tmp_path, notification_channels=[{"kind": "pigeon"}])
    run = site.run(playbook=f"{COLLECTION}/playbooks/restore.yml", restore_incident="the database is gone")
    assert any(line["operation"] == "incident" and line["status"] == "failed" for line in run.of_kind("record")), run.said
    (outcome,) = run.of_kind("outcome")
    assert "Prove the backup" in outcome["reason"], "it went on, and there is no server to restore into here"


def test_an_application_is_told_of_a_restore_after_it_was_verified_and_before_it_starts_netpost_res_1() -> None:
    tasks = yaml.safe_load((COLLECTION / "roles/cycle/tasks/restore_backup.yml").read_text())
    names = [task["name"] for task in tasks]
    verified, told, started = (names.index(f"Restore | {name}") for name in (
        "Restore beside the live database, verify, switch", "Let the application know", "Start the services again"))  # fmt: skip
    assert verified < told < started
