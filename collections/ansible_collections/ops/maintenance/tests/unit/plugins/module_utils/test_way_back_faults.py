# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots and rollbacks when something happens at the wrong moment, or lies where nobody expected it."""

# Fixtures are imported by name.
# ruff: noqa: F401, F811
# pylint: disable=unused-import
from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    snapshot_sealed,
    snapshot_store,
    snapshot_versions,
    sqlite_restore,
    tree_archive,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.test_snapshot import (
    RUN,
    Machine,
    back,
    done,
    make,
    states,
    take,
)
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.test_snapshot_application import (
    ENV,
    Docker,
    app,
    deploy,
    deployment,
    found,
    git,
    key,
    platform,
    release,
    versions,
    volume,
)

# Releases


def test_what_users_write_while_a_release_is_put_back_is_not_removed(tmp_path, app, monkeypatch):
    take(tmp_path, releases=[release(app)])
    deploy(app)
    real = tree_archive.put_back

    def put_back(*arguments, **more):
        real(*arguments, **more)
        (app / "invoice.pdf").write_text("written after the evidence was packed")

    monkeypatch.setattr(tree_archive, "put_back", put_back)
    outcome = back(tmp_path)
    assert (app / "invoice.pdf").exists(), "nothing else holds it"
    assert found(outcome, "rollback.new_files").evidence == ["invoice.pdf"]
    assert not (app / "node_modules/b").exists()


@pytest.mark.parametrize("was_there", [True, False])
def test_a_link_that_data_moved_behind_is_left_alone(tmp_path, app, was_there):
    away = tmp_path / "mount"
    if not was_there:
        shutil.rmtree(app / "public")
    take(tmp_path, releases=[release(app)])
    if was_there:
        (app / "public").rename(away)
    else:
        (away / "uploads").mkdir(parents=True)
        (away / "uploads/1").write_text("mine")
    (app / "public").symlink_to(away)
    if was_there:
        with pytest.raises(MaintenanceError, match="move the data"):
            back(tmp_path)
    else:
        assert "rollback.new_files" in states(back(tmp_path))
    assert (app / "public/uploads/1").read_text() == "mine"


@pytest.mark.parametrize("data", [["public/uploads"], ["app.db"]])
def test_a_database_inside_a_release_has_to_be_data_with_its_sidecars(tmp_path, app, data):
    path = make(app / "app.db")
    with pytest.raises(MaintenanceError, match=r"app\.db lies in release shop"):
        take(tmp_path, databases=[path], releases=[release(app, data=data)])
    (app / "db").mkdir()
    path = make(app / "db/app.db")
    (app / "app.db").unlink()
    outcome = take(tmp_path, databases=[path], releases=[release(app, data=["public/uploads", "db"])], run_id="r2")
    assert states(outcome)["snapshot.present"] == "ok"


def test_snapshots_that_a_link_hides_in_a_release_are_refused(tmp_path, app):
    (tmp_path / "current").symlink_to(app)
    with pytest.raises(MaintenanceError, match="holds the snapshots"):
        take(tmp_path, releases=[release(tmp_path / "current")], root=str(app / "backups"))


def test_too_little_room_for_a_release_is_found_before_a_database_is_put_back(tmp_path, app, monkeypatch):
    config = tmp_path / "app.ini"
    config.write_text("a=1")
    take(tmp_path, config, releases=[release(app)])
    config.write_text("a=2")
    deploy(app)
    real = sqlite_restore.require_room

    def require_room(folder, needed, purpose):
        if "release" in purpose or "shop" in purpose:
            raise MaintenanceError(f"{folder} has no room for {purpose}")
        real(folder, needed, purpose)

    monkeypatch.setattr(sqlite_restore, "require_room", require_room)
    with pytest.raises(MaintenanceError, match="no room"):
        back(tmp_path)
    assert (config.read_text(), (app / "server.js").read_text()) == ("a=2", "new!"), "all or nothing"


def test_a_release_that_changes_while_evidence_is_packed_is_found_before_anything_is_put_back(tmp_path, app, monkeypatch):
    config = tmp_path / "app.ini"
    config.write_text("a=1")
    take(tmp_path, config, releases=[release(app)])
    config.write_text("a=2")
    deploy(app)
    real = tree_archive.pack

    def pack(*arguments):
        yield from real(*arguments)
        (app / "server.js").write_text("a service goes on")

    monkeypatch.setattr(tree_archive, "pack", pack)
    with pytest.raises(MaintenanceError, match="changed while it was kept"):
        back(tmp_path)
    assert config.read_text() == "a=2", "all or nothing"


def test_a_release_whose_folder_above_is_gone_is_found_before_anything_is_put_back(tmp_path, app):
    config = tmp_path / "app.ini"
    config.write_text("a=1")
    (tmp_path / "releases").mkdir()
    app.rename(tmp_path / "releases/1")
    take(tmp_path, config, releases=[release(tmp_path / "releases/1")])
    config.write_text("a=2")
    shutil.rmtree(tmp_path / "releases")
    with pytest.raises(MaintenanceError, match="does not exist any more"):
        back(tmp_path)
    assert config.read_text() == "a=2"


# Deployments


def test_a_platform_that_is_out_of_reach_does_not_keep_the_host_from_coming_back(tmp_path, platform):
    config, entry = tmp_path / "app.ini", deployment(platform)
    config.write_text("a=1")
    take(tmp_path, config, deployments=[entry])
    config.write_text("a=2")
    (platform / "live").write_text("Error: no network\n")
    seen = back(tmp_path, check=True, deployments=[entry])
    assert (done(seen)["restore_file"], done(seen)["roll_back_deployment"]) == ("due", "due")
    assert states(seen)["rollback.deployment"] == "unknown"
    with pytest.raises(MaintenanceError, match=r"only: \[deployments\]"):
        back(tmp_path, deployments=[entry])
    assert config.read_text() == "a=1"
    config.write_text("a=3, of users")
    (platform / "live").write_text("url https://shop-2.example.app\n")
    again = back(tmp_path, deployments=[entry])
    assert config.read_text() == "a=3, of users", "what was put back once is not put back over what came since"
    assert states(again)["rollback.deployment"] == "warning"
    back(tmp_path, deployments=[entry], only=["deployments"])
    assert "shop-1" in (platform / "live").read_text()


def test_a_part_that_was_put_back_is_not_called_all_of_it(tmp_path, platform):
    take(tmp_path, deployments=[deployment(platform)])
    finding = found(back(tmp_path, deployments=[deployment(platform)], only=["deployments"]), "rollback.result")
    assert ("everything" in finding.summary, "deployments" in finding.summary, bool(finding.not_covered)) == (False, True, True)


# Volumes


def test_a_volume_below_a_link_can_be_put_back(tmp_path, volume):
    (tmp_path / "docker").symlink_to(tmp_path)
    host = Docker(tmp_path / "docker/volume", runs=False)
    take(tmp_path, volumes=["orders"], host=host)
    (volume / "order").write_text("two")
    back(tmp_path, host=host, volumes=True)
    assert (volume / "order").read_text() == "one"


def test_a_volume_comes_back_while_maintenance_has_stopped_its_engine(tmp_path, volume):
    host = Docker(volume, runs=False)
    take(tmp_path, volumes=["orders"], host=host)
    (volume / "order").write_text("two")
    host.answers = False
    with open(volume / "order"), pytest.raises(MaintenanceError, match="is used by process"):
        back(tmp_path, host=host, volumes=True)
    back(tmp_path, host=host, volumes=True)
    assert (volume / "order").read_text() == "one"


def test_an_engine_that_does_not_answer_is_not_taken_for_one_that_stands_still(tmp_path, volume):
    host = Docker(volume)
    take(tmp_path, volumes=["orders"], host=host, look=True)
    host.answers = False
    (volume / "PG_VERSION").write_text("16")
    with open(volume / "order"), pytest.raises(MaintenanceError, match="a copy would not start"):
        take(tmp_path, volumes=["orders"], host=host)
    (volume / "PG_VERSION").unlink()
    with open(volume / "order"):
        outcome = take(tmp_path, volumes=["orders"], host=host)
    assert states(outcome)["snapshot.volume_in_use"] == "warning"


def test_a_volume_that_changes_while_it_is_copied_is_said(tmp_path, volume, monkeypatch):
    real = tree_archive.pack

    def pack(*arguments):
        yield from real(*arguments)
        (volume / "order").write_text("three")

    monkeypatch.setattr(tree_archive, "pack", pack)
    outcome = take(tmp_path, volumes=["orders"], host=Docker(volume, runs=False))
    assert "order changed while it was copied" in found(outcome, "snapshot.present").not_covered


# Versions of the configuration


def test_a_version_whose_commit_failed_is_committed_by_the_next_run(tmp_path, versions):
    config = tmp_path / "app.ini"
    config.write_text("a=1")
    hook = tmp_path / "versions/.git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    for run, text in (("one", "a=1"), ("two", "a=2")):
        config.write_text(text)
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
        with pytest.raises(MaintenanceError, match="was not kept"):
            take(tmp_path, config, version_control=versions, run_id=run)
        hook.unlink()
        outcome = take(tmp_path, config, version_control=versions, run_id=run)
        assert done(outcome)["commit"] == "changed"
        assert git(versions["tree"], "status", "--porcelain") == b""


def test_a_change_far_into_a_file_is_a_new_version(tmp_path, versions, monkeypatch):
    monkeypatch.setattr(snapshot_versions, "_LIMIT", 10)
    config = tmp_path / "app.ini"
    config.write_text("# a long beginning\na=1")
    take(tmp_path, config, version_control=versions)
    config.write_text("# a long beginning\na=2")
    assert done(take(tmp_path, config, version_control=versions, run_id="two"))["commit"] == "changed"


def test_a_repository_among_the_paths_does_not_keep_a_version_from_being_kept(tmp_path, versions):
    folder = tmp_path / "etc"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / ".env").write_text(ENV)
    outcome = take(tmp_path, folder, version_control=versions)
    assert states(outcome)["snapshot.version_control"] == "ok"


class Waits(Machine):
    """A machine whose clock is the real one, and where waiting takes no time; what happens meanwhile can be given."""

    def __init__(self, meanwhile=lambda: None):
        super().__init__(datetime.now(timezone.utc))
        self.meanwhile = meanwhile
        self.waited = 0.0

    def sleep(self, seconds):
        self.waited += seconds
        self.meanwhile()


@pytest.fixture
def locked(tmp_path, versions):
    """The lock of the tree of versions, as a git that was killed an hour ago left it."""
    (tmp_path / "app.ini").write_text("a=1")
    lock = tmp_path / "versions/.git/index.lock"
    lock.write_text("half an index")
    hour_ago = time.time() - 3600
    os.utime(lock, (hour_ago, hour_ago))
    return lock


def test_a_lock_that_a_killed_git_left_is_moved_aside_and_told(tmp_path, versions, locked):
    branch = git(versions["tree"], "symbolic-ref", "HEAD").decode().strip()
    other = tmp_path / "versions/.git" / f"{branch}.lock"
    locked.rename(other.parent / "kept")
    shutil.copy2(other.parent / "kept", locked)
    (other.parent / "kept").rename(other)
    host = Waits()
    outcome = take(tmp_path, tmp_path / "app.ini", version_control=versions, host=host)
    assert (done(outcome)["commit"], states(outcome)["snapshot.version_lock"], host.waited) == ("changed", "warning", 0)
    told = found(outcome, "snapshot.version_lock")
    assert [line.split(",")[0] for line in told.evidence] == [str(locked), str(other)]
    left = sorted((tmp_path / "versions/.git/stale-locks").iterdir())
    assert [path.read_text() for path in left] == ["half an index"] * 2
    assert git(versions["tree"], "fsck") + git(versions["tree"], "status", "--porcelain") == b""
    again = take(tmp_path, tmp_path / "app.ini", version_control=versions, host=host, run_id="two")
    assert "snapshot.version_lock" not in states(again)


@pytest.mark.parametrize("why", ["young", "open", "a git works there"])
def test_a_lock_that_may_be_held_is_awaited_a_little_and_then_told(tmp_path, versions, locked, why):
    host = Waits()
    opens = [sys.executable, "-c", "import sys; held = open(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()", str(locked)]
    programs = {"open": opens, "a git works there": ["git", "-C", versions["tree"], "cat-file", "--batch"]}
    with contextlib.ExitStack() as stack:
        if why == "young":
            os.utime(locked)
        else:
            holder = stack.enter_context(subprocess.Popen(programs[why], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            holder.stdin.write(b"HEAD\n")
            holder.stdin.flush()
            holder.stdout.readline()
        with pytest.raises(MaintenanceError, match=rf"is locked by {locked}: .*(s old|holds it)") as caught:
            take(tmp_path, tmp_path / "app.ini", version_control=versions, host=host)
        assert "remove the lock when you know" in str(caught.value)
    assert (locked.read_text(), host.waited) == ("half an index", 10)


def test_a_lock_that_goes_while_it_is_awaited_is_none(tmp_path, versions, locked):
    os.utime(locked)
    outcome = take(tmp_path, tmp_path / "app.ini", version_control=versions, host=Waits(locked.unlink))
    assert (done(outcome)["commit"], states(outcome).get("snapshot.version_lock")) == ("changed", None)


# Sealed snapshots


def test_what_a_killed_run_left_open_goes_whoever_has_its_number_now(tmp_path, key):
    (tmp_path / ".env").write_text(ENV)
    take(tmp_path, tmp_path / ".env", **key)
    left = tmp_path / "snapshots/.open-1-left"
    left.mkdir()
    (left / ".env").write_text(ENV)
    root = str(tmp_path / "snapshots")
    manifest = snapshot_store.read(root, RUN)
    with snapshot_sealed.opened(root, RUN, manifest["sealed"], key["decrypt_command"]) as folder:
        assert not left.exists()
        assert snapshot_sealed.sweep(root) == [], "it is in use"
    assert not os.path.exists(folder)
