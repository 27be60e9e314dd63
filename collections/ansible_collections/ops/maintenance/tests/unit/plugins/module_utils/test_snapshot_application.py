# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a deployed application in a snapshot: its release, the deployment at a platform, its containers, its configuration."""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import stat
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    environment_file,
    rollback,
    snapshot,
    snapshot_deployments,
    snapshot_store,
    snapshot_versions,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError, VerifyError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Ran
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import web
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.test_snapshot import (
    RUN,
    Machine,
    back,
    done,
    make,
    orders,
    states,
    take,
)

SECRET = "hunter2-of-production"
ENV = f"# settings\nexport DATABASE_URL='postgresql://shop:{SECRET}@db/shop'\nNODE_ENV=production\n"


def found(outcome, name):
    return next(finding for finding in outcome.findings if finding.id == name)


def text_of(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


# Releases


@pytest.fixture
def app(tmp_path):
    """A release in place, with what users uploaded inside its tree."""
    for name, text in {
        "package.json": '{"version": "2.3.1"}',
        "server.js": "old",
        "node_modules/a/index.js": "built",
        "public/uploads/1": "mine",
    }.items():
        path = tmp_path / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "app/server.js").chmod(0o750)
    return tmp_path / "app"


def release(path, **more):
    return {"name": "shop", "path": str(path), "data": ["public/uploads"], "version_file": "package.json", **more}


def deploy(app):
    """Deploy the next version over it, while users go on."""
    (app / "package.json").write_text('{"version": "3.0.0"}')
    (app / "server.js").write_text("new!")
    (app / "server.js").chmod(0o777)
    (app / "node_modules/a/index.js").unlink()
    (app / "node_modules/b").mkdir()
    (app / "node_modules/b/index.js").write_text("of the new one")
    (app / "public/uploads/1").write_text("mine, changed")
    (app / "public/uploads/2").write_text("uploaded since")


def test_a_release_comes_back_without_building_and_user_data_is_never_rolled_back_asr_03_2(tmp_path, app):
    outcome = take(tmp_path, releases=[release(app)])
    assert "2.3.1" in found(outcome, "snapshot.release").summary
    before = text_of(app)
    deploy(app)
    seen = back(tmp_path, check=True)
    assert done(seen) == {"restore_release": "due"}
    assert (app / "server.js").read_text() == "new!"
    outcome = back(tmp_path)
    assert states(outcome)["rollback.release"] == "ok"
    after = text_of(app)
    assert {name: text for name, text in after.items() if "uploads" not in name} == {n: t for n, t in before.items() if "uploads" not in n}
    assert (after["public/uploads/1"], after["public/uploads/2"]) == ("mine, changed", "uploaded since")
    assert stat.S_IMODE((app / "server.js").stat().st_mode) == 0o750
    assert not (app / "node_modules/b").exists(), "a file of the new version would be mixed into the old one"
    (kept,) = (tmp_path / "state/evidence").iterdir()
    listed = subprocess.run(["tar", "tf", str(kept / "release.tar")], check=True, capture_output=True, text=True).stdout
    assert "node_modules/b/index.js" in listed, "what was there is kept"


def test_what_is_user_data_has_to_be_said(tmp_path, app):
    assert rollback.OPTIONS["only"]["choices"]
    with pytest.raises(InputError, match="expected a path below"):
        take(tmp_path, releases=[release(app, data=["../elsewhere"])])
    with pytest.raises(InputError, match="twice"):
        take(tmp_path, releases=[release(app), release(app)])


@pytest.mark.parametrize("cleaned", [False, True])
def test_the_link_to_the_release_goes_back_even_where_the_old_folder_was_cleaned_away(tmp_path, app, cleaned):
    (tmp_path / "releases").mkdir()
    old, new, current = tmp_path / "releases/1", tmp_path / "releases/2", tmp_path / "current"
    app.rename(old)
    current.symlink_to("releases/1")
    take(tmp_path, releases=[release(current, version_file="")])
    new.mkdir()
    (new / "server.js").write_text("new")
    current.unlink()
    current.symlink_to("releases/2")
    if cleaned:
        subprocess.run(["rm", "-r", str(old)], check=True)
    outcome = back(tmp_path)
    assert (os.readlink(current), (current / "server.js").read_text()) == ("releases/1", "old")
    assert (new / "server.js").read_text() == "new"
    assert states(outcome)["rollback.release"] == "ok"
    assert done(back(tmp_path, again=True)) == {}


def test_a_link_that_was_planted_in_the_tree_is_not_written_through(tmp_path, app):
    take(tmp_path, releases=[release(app)])
    victim = tmp_path / "victim"
    victim.mkdir()
    subprocess.run(["rm", "-r", str(app / "node_modules")], check=True)
    (app / "node_modules").symlink_to(victim)
    back(tmp_path)
    assert list(victim.iterdir()) == []
    assert (app / "node_modules/a/index.js").read_text() == "built"


def test_data_in_the_way_is_never_removed(tmp_path, app):
    subprocess.run(["rm", "-r", str(app / "public")], check=True)
    (app / "public").write_text("a file in the old release")
    take(tmp_path, releases=[release(app)])
    (app / "public").unlink()
    (app / "public/uploads").mkdir(parents=True)
    (app / "public/uploads/1").write_text("mine")
    with pytest.raises(MaintenanceError, match="folder with data in it"):
        back(tmp_path)
    assert (app / "public/uploads/1").read_text() == "mine"


def test_a_release_whose_archive_was_changed_is_refused(tmp_path, app):
    take(tmp_path, releases=[release(app)])
    archive = tmp_path / "snapshots" / RUN / "trees/000.tar"
    data = bytearray(archive.read_bytes())
    data[600] ^= 1
    archive.write_bytes(data)
    deploy(app)
    with pytest.raises(MaintenanceError, match="checksum"):
        back(tmp_path)
    assert (app / "server.js").read_text() == "new!"


# Sealed


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_text("a key that lies elsewhere\n")
    options = ["-aes-256-cbc", "-pbkdf2", "-iter", "1000", "-pass", f"file:{path}"]
    return {"encrypt_command": ["openssl", "enc", *options], "decrypt_command": ["openssl", "enc", "-d", *options]}


def test_environment_files_are_encrypted_at_rest_and_never_shown_and_come_back_0600_asr_03_3(tmp_path, app, key):
    (app / ".env").write_text(ENV)
    (app / ".env").chmod(0o600)
    path = make(tmp_path / "a.db")
    outcome = take(tmp_path, app / ".env", databases=[path], releases=[release(app)], **key)
    assert states(outcome)["snapshot.sealed"] == "ok"
    folder = tmp_path / "snapshots" / RUN
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "ROLLBACK.txt", "content.sealed"}
    assert all(SECRET.encode() not in p.read_bytes() for p in folder.rglob("*"))
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}
    assert SECRET not in json.dumps(outcome.record())
    (app / ".env").write_text("gone")
    (app / ".env").chmod(0o644)
    os.unlink(path)
    outcome = back(tmp_path, decrypt_command=key["decrypt_command"])
    assert (app / ".env").read_text() == ENV
    assert stat.S_IMODE((app / ".env").stat().st_mode) == 0o600
    assert orders(path) == 500
    assert SECRET not in json.dumps(outcome.record())
    assert [p.name for p in (tmp_path / "snapshots").iterdir() if p.name.startswith(".open")] == [], "nothing stays open"


def test_a_sealed_snapshot_without_its_key_or_with_another_is_refused(tmp_path, key):
    (tmp_path / ".env").write_text(ENV)
    take(tmp_path, tmp_path / ".env", **key)
    (tmp_path / ".env").write_text("changed")
    with pytest.raises(MaintenanceError, match="without its key"):
        back(tmp_path)
    (tmp_path / "key").write_text("another key\n")
    with pytest.raises(MaintenanceError, match="cannot be opened"):
        back(tmp_path, decrypt_command=key["decrypt_command"])
    assert (tmp_path / ".env").read_text() == "changed"


@pytest.mark.parametrize("command", [["cat"], ["false"], ["head", "-c", "100"]])
def test_what_does_not_come_out_encrypted_or_not_whole_gives_no_snapshot(tmp_path, key, command):
    (tmp_path / ".env").write_text(ENV)
    with pytest.raises(MaintenanceError, match=r"seal|encrypt"):
        take(tmp_path, tmp_path / ".env", encrypt_command=command, decrypt_command=key["decrypt_command"])
    assert snapshot_store.names(str(tmp_path / "snapshots")) == []
    assert snapshot_store.partials(str(tmp_path / "snapshots")) == []


def test_a_key_that_does_not_open_what_was_sealed_gives_no_snapshot(tmp_path, key):
    (tmp_path / ".env").write_text(ENV)
    (tmp_path / "other").write_text("another key\n")
    wrong = [part.replace(f"{tmp_path}/key", f"{tmp_path}/other") for part in key["decrypt_command"]]
    with pytest.raises(MaintenanceError, match="The key does not open"):
        take(tmp_path, tmp_path / ".env", encrypt_command=key["encrypt_command"], decrypt_command=wrong)
    assert snapshot_store.names(str(tmp_path / "snapshots")) == []


def test_a_copy_in_clear_beside_a_sealed_snapshot_is_refused(tmp_path, key):
    copies = [{"path": str(tmp_path / ".env"), "copy_as": "/srv/backups/.env.{time}", "encrypt_command": []}]
    with pytest.raises(InputError, match="is in clear while encrypt_command"):
        take(tmp_path, tmp_path / ".env", path_copies=copies, **key)
    with pytest.raises(InputError, match="without decrypt_command"):
        take(tmp_path, tmp_path / ".env", encrypt_command=key["encrypt_command"])


# Killed anywhere

_IN_A_PROCESS = (
    "import sys,json; sys.path[:0]=sys.argv[3:]\n"
    "from ansible_collections.ops.maintenance.plugins.module_utils import rollback, snapshot\n"
    "from ansible_collections.ops.maintenance.plugins.module_utils.host import Host\n"
    "print('go',flush=True); {'snapshot': snapshot, 'rollback': rollback}[sys.argv[1]].run(json.loads(sys.argv[2]), False, Host())"
)


def killed(what, params, seconds):
    """Run a module in a process of its own and kill it after a while."""
    process = subprocess.Popen([sys.executable, "-c", _IN_A_PROCESS, what, json.dumps(params), *sys.path], stdout=subprocess.PIPE)
    with process:
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()


def all_options(module, tmp_path, **more):
    common = {"root": str(tmp_path / "snapshots"), "run_id": RUN, "deadline": 0.0, "state_dir": str(tmp_path / "state"), "reserve_bytes": 0}
    return {**{name: option.get("default") for name, option in module.OPTIONS.items()}, **common, **more}


def test_a_release_whose_rollback_is_killed_anywhere_is_completed_by_the_next_and_data_stays(tmp_path, app):
    for number in range(60):
        (app / f"node_modules/a/{number}.js").write_text("old" * 2000)
    take(tmp_path, releases=[release(app)])
    before = {name: text for name, text in text_of(app).items() if "uploads" not in name}
    chance = random.Random(7)
    for number in range(6):
        for changed in range(60):
            (app / f"node_modules/a/{changed}.js").write_text("new" * 3000)
        deploy(app)
        (app / "public/uploads/1").write_text(f"mine, {number}")
        (app / "node_modules/a/index.js").unlink(missing_ok=True)
        params = all_options(rollback, tmp_path, again=True, state_dir=str(tmp_path / f"state{number}"))
        killed("rollback", params, chance.random() * 0.12)
        rollback.run(params, False, Machine())
        after = text_of(app)
        assert {name: text for name, text in after.items() if "uploads" not in name} == before
        assert after["public/uploads/1"] == f"mine, {number}"
        subprocess.run(["rm", "-rf", str(app / "node_modules/b")], check=True)


def test_a_sealed_snapshot_that_is_killed_anywhere_leaves_nothing_in_clear_after_the_next_run(tmp_path, app, key):
    (app / ".env").write_text(ENV)
    chance = random.Random(11)
    for number in range(6):
        params = all_options(
            snapshot, tmp_path, paths=[str(app / ".env")], releases=[release(app)], packages=False, run_id=f"r{number}", **key
        )
        killed("snapshot", params, chance.random() * 0.15)
        for name in snapshot_store.names(params["root"]):
            snapshot_store.prove(params["root"], name, decrypt_command=key["decrypt_command"])
        snapshot.run(params, False, Machine())
        held = [path for path in (tmp_path / "snapshots").rglob("*") if path.is_file()]
        assert {path.name for path in held} == {".lock", "manifest.json", "ROLLBACK.txt", "content.sealed"}
        assert all(SECRET.encode() not in path.read_bytes() for path in held)


# Deployments at a platform

_PLATFORM = """#!/bin/sh
case "$1" in
inspect) echo "fetching..." >&2; cat live ;;
rollback) [ -e refuses ] && { echo "Error: only the previous deployment" >&2; exit 1; }; [ -e ignores ] || echo "url https://$2" >live ;;
esac
"""


@pytest.fixture
def platform(tmp_path):
    folder = tmp_path / "platform"
    folder.mkdir()
    (folder / "live").write_text("url https://shop-1.example.app\n")
    (folder / "tool").write_text(_PLATFORM)
    (folder / "tool").chmod(0o755)
    return folder


def deployment(platform, **more):
    tool = str(platform / "tool")
    given = {"name": "web", "record": [tool, "inspect"], "pattern": r"https://([a-z0-9.-]+\.example\.app)", "rollback": [tool, "rollback", "{deployment}"],
             "promote": [tool, "promote", "shop"], "chdir": str(platform), "timeout_seconds": 20.0, "settle_seconds": 0.0}  # fmt: skip
    options = {name: option.get("default") for name, option in snapshot_deployments.DEPLOYMENT.items()}
    return {**options, **given, **more}


def test_the_deployment_recorded_before_is_made_live_again_and_its_health_is_asked_netpost_dep_12(tmp_path, platform):
    with web(lambda _path, _number: (200, {}, b"ok")) as (url, _asked):
        entry = deployment(platform, url=f"{url}/api/health")
        outcome = take(tmp_path, deployments=[entry])
        assert "shop-1.example.app is live" in found(outcome, "snapshot.deployment").summary
        (platform / "live").write_text("url https://shop-2.example.app\n")
        assert done(back(tmp_path, check=True, deployments=[entry], only=["deployments"])) == {"roll_back_deployment": "due"}
        assert "shop-2" in (platform / "live").read_text()
        outcome = back(tmp_path, deployments=[entry], only=["deployments"])
    assert "shop-1" in (platform / "live").read_text()
    ended = found(outcome, "rollback.deployment")
    assert (ended.state, "answered 200" in ended.summary) == ("ok", True)
    assert "database migrations and environment variables" in ended.not_covered
    promotion = found(outcome, "rollback.promotion")
    assert (promotion.state, "promote shop" in promotion.advice) == ("warning", True)
    again = take(tmp_path, deployments=[entry], run_id="next-1")
    assert states(again)["rollback.promotion"] == "warning", "said until another is live"
    (platform / "live").write_text("url https://shop-3.example.app\n")
    assert "rollback.promotion" not in states(take(tmp_path, deployments=[entry], run_id="next-2"))


@pytest.mark.parametrize(
    ("fault", "says"), [("refuses", "only the previous deployment"), ("ignores", "shop-2.example.app is live, expected shop-1")]
)
def test_a_rollback_that_the_platform_refuses_or_does_not_do_is_found(tmp_path, platform, fault, says):
    entry = deployment(platform)
    take(tmp_path, deployments=[entry])
    (platform / "live").write_text("url https://shop-2.example.app\n")
    (platform / fault).touch()
    with pytest.raises(MaintenanceError, match=says):
        back(tmp_path, deployments=[entry], only=["deployments"])


def test_an_application_that_does_not_answer_after_the_rollback_is_not_called_healthy(tmp_path, platform):
    with web(lambda _path, _number: (503, {}, b"")) as (url, _asked):
        entry = deployment(platform, url=f"{url}/api/health")
        take(tmp_path, deployments=[entry])
        (platform / "live").write_text("url https://shop-2.example.app\n")
        with pytest.raises(VerifyError, match="answered 503"):
            back(tmp_path, deployments=[entry])


def test_a_platform_that_does_not_say_what_is_live_gives_no_snapshot(tmp_path, platform):
    (platform / "live").write_text("Error: not logged in\n")
    with pytest.raises(MaintenanceError, match="said nothing that the pattern"):
        take(tmp_path, deployments=[deployment(platform)])
    assert snapshot_store.names(str(tmp_path / "snapshots")) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rollback": ["vercel", "rollback"]}, "lacks {deployment}"),
        ({"record": ["vercel", "inspect", "--token", "s3cret"]}, "has a token among its arguments"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "(a)(b)"}, "one group at most"),
        ({"url": "https://a:b@c/"}, "without a password"),
        ({"record": []}, "is empty"),
    ],
)
def test_a_deployment_that_cannot_be_meant_is_refused(tmp_path, platform, wrong, says):
    with pytest.raises(InputError, match=says.replace("{", r"\{")) as caught:
        take(tmp_path, deployments=[deployment(platform, **wrong)])
    assert "s3cret" not in str(caught.value)


# Containers and volumes


class Docker(Machine):
    """A machine whose docker answers as recorded."""

    def __init__(self, folder, image="a" * 64, runs=True):
        super().__init__()
        self.answers = True
        self.folder, self.image, self.runs, self.images = folder, image, runs, {"a" * 64, "b" * 64}

    def which(self, name):
        return "/usr/bin/docker" if name == "docker" else None if name == "podman" else super().which(name)

    def run(self, argv, **more):
        if argv[0] != "docker":
            return super().run(argv, **more)
        if not self.answers:
            return Ran(argv, 1, "", "Cannot connect to the Docker daemon")
        if argv[1] == "ps":
            return Ran(argv, 0, "c1\n" if self.runs else "", "")
        if argv[1] == "inspect":
            mounts = [{"Type": "volume", "Name": "orders"}]
            return Ran(
                argv,
                0,
                json.dumps([{"Name": "/api", "Image": f"sha256:{self.image}", "Config": {"Image": "shop/api:1"}, "Mounts": mounts}]),
                "",
            )
        if argv[1:3] == ["image", "inspect"]:
            known = argv[3] in self.images
            said = json.dumps([{"Id": f"sha256:{argv[3]}", "RepoDigests": [f"shop/api@sha256:{'d' * 64}"]}])
            return Ran(argv, 0 if known else 1, said if known else "", "" if known else "Error: No such image: x")
        return Ran(argv, 0, json.dumps([{"Mountpoint": str(self.folder)}]), "")


@pytest.fixture
def volume(tmp_path):
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "order").write_text("one")
    return folder


def test_digests_and_volumes_are_kept_and_a_rollback_leaves_volumes_alone_unless_asked_flow_pre_3(tmp_path, volume):
    host = Docker(volume, runs=False)
    outcome = take(tmp_path, containers=True, volumes=["orders"], host=host)
    assert states(outcome)["snapshot.volume"] == "ok"
    (volume / "order").write_text("two")
    outcome = back(tmp_path, host=host)
    assert (states(outcome)["rollback.volume"], (volume / "order").read_text()) == ("ok", "two")
    assert found(outcome, "rollback.volume").not_covered
    outcome = back(tmp_path, host=host, volumes=True, again=True)
    assert (volume / "order").read_text() == "one"


def test_a_container_of_another_image_is_found_with_the_way_back_and_a_lost_image_is_said(tmp_path, volume):
    host = Docker(volume)
    outcome = take(tmp_path, containers=True, host=host)
    assert "sha256:" + "d" * 64 in found(outcome, "snapshot.containers").evidence[0]
    assert states(back(tmp_path, host=host))["rollback.containers"] == "ok"
    host.image = "b" * 64
    finding = found(back(tmp_path, host=host, only=["containers"]), "rollback.containers")
    assert (finding.state, "docker tag aaaaaaaaaaaa shop/api:1" in finding.evidence[0]) == ("critical", True)
    host.images.remove("a" * 64)
    assert "api" in found(back(tmp_path, host=host, only=["containers"]), "rollback.containers").not_covered


def test_a_volume_in_use_is_said_and_one_with_a_live_cluster_is_refused(tmp_path, volume):
    host = Docker(volume)
    outcome = take(tmp_path, volumes=["orders"], host=host)
    assert states(outcome)["snapshot.volume_in_use"] == "warning"
    assert "orders" in found(outcome, "snapshot.present").not_covered
    (volume / "order").write_text("two")
    with pytest.raises(MaintenanceError, match="is used by api; stop it first"):
        back(tmp_path, host=host, volumes=True)
    (volume / "PG_VERSION").write_text("16")
    with pytest.raises(MaintenanceError, match="a copy would not start"):
        take(tmp_path, volumes=["orders"], host=host, run_id="next")


def test_what_runs_is_kept_before_maintenance_stops_the_engine_and_only_for_its_own_run(tmp_path, volume):
    host = Docker(volume)
    looked = take(tmp_path, containers=True, volumes=["orders"], host=host, look=True)
    assert (looked.status, looked.is_change, (tmp_path / "snapshots").exists()) == ("ok", False, False)
    host.answers = False
    outcome = take(tmp_path, containers=True, volumes=["orders"], host=host)
    assert states(outcome)["snapshot.containers"] == "ok"
    assert "snapshot.volume_in_use" not in states(outcome), "with the engine stopped nobody writes to it"
    manifest = snapshot_store.read(str(tmp_path / "snapshots"), RUN)
    assert (manifest["containers"][0]["name"], manifest["trees"][0]["files"]) == ("api", 1)
    with pytest.raises(MaintenanceError, match="cannot be looked at"):
        take(tmp_path, volumes=["orders"], host=host, run_id="another-run")
    (volume / "PG_VERSION").write_text("16")
    host.answers = True
    with pytest.raises(MaintenanceError, match="a copy would not start"):
        take(tmp_path, volumes=["orders"], host=host, run_id="third-run")


def test_an_engine_that_is_missing_is_unknown(tmp_path):
    (tmp_path / "a").touch()
    host = Machine()
    host.which = lambda name: None if name in ("docker", "podman") else Machine.which(host, name)
    assert states(take(tmp_path, tmp_path / "a", containers=True, host=host))["snapshot.containers"] == "unknown"


# The plan


def test_the_way_back_is_written_down_before_the_work_netpost_weekly_03(tmp_path, app, platform):
    (app / ".env").write_text(ENV)
    path = make(tmp_path / "a.db")
    outcome = take(tmp_path, app / ".env", databases=[path], releases=[release(app)], deployments=[deployment(platform)])
    plan = (tmp_path / "snapshots" / RUN / "ROLLBACK.txt").read_text()
    for part in (f"maintenance_run_id={RUN}", "500 rows", "release shop 2.3.1", "shop-1.example.app, code only", "configuration version"):
        assert part in plan
    assert "database migrations and environment variables" in plan
    assert SECRET not in plan
    assert states(outcome)["snapshot.plan"] == "ok"


def test_the_version_of_the_configuration_changes_with_content_owner_or_mode_only(tmp_path):
    (tmp_path / "c").mkdir()
    file = tmp_path / "c/app.ini"
    file.write_text("a=1")
    names = []
    for number, change in enumerate((lambda: None, lambda: os.utime(file), lambda: file.chmod(0o600), lambda: file.write_text("a=2"))):
        change()
        take(tmp_path, tmp_path / "c", run_id=f"r{number}")
        names.append(snapshot_store.read(str(tmp_path / "snapshots"), f"r{number}")["configuration"])
    assert names[0] == names[1]
    assert len(set(names)) == 3


# Configuration by name


def test_files_come_back_by_name_with_owner_and_mode_and_nothing_else_does_flow_em_8(tmp_path, app):
    path = make(tmp_path / "a.db")
    (app / ".env").write_text(ENV)
    (app / ".env").chmod(0o640)
    (app / "other.ini").write_text("old")
    take(tmp_path, app / ".env", app / "other.ini", databases=[path], releases=[release(app)])
    (app / ".env").write_text("broken")
    (app / ".env").chmod(0o666)
    (app / "other.ini").write_text("new")
    os.unlink(path)
    outcome = back(tmp_path, paths=[str(app / ".env")])
    assert ((app / ".env").read_text(), stat.S_IMODE((app / ".env").stat().st_mode)) == (ENV, 0o640)
    assert ((app / "other.ini").read_text(), os.path.exists(path)) == ("new", False)
    mine = pwd.getpwuid(os.geteuid()).pw_name
    assert any(line.startswith(f"{app}/.env: 0640 {mine}:") for line in found(outcome, "rollback.files").evidence)
    with pytest.raises(MaintenanceError, match="a path that the snapshot"):
        back(tmp_path, paths=["/etc/hostname"])


def test_an_owner_whose_number_belongs_to_somebody_else_now_is_told(tmp_path):
    file = tmp_path / "app.ini"
    file.write_text("a")
    take(tmp_path, file)
    manifest_path = tmp_path / "snapshots" / RUN / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest["files"][0]["owner"] = "shop:shop"
    manifest["checksum"] = snapshot_store.checksum(manifest)
    manifest_path.write_text(json.dumps(manifest))
    file.write_text("b")
    assert states(back(tmp_path))["rollback.owners"] == "warning"


def test_which_snapshot_holds_which_version_is_told_before_one_is_chosen_netpost_res_2(tmp_path):
    file = tmp_path / "app.ini"
    for number in (1, 2):
        file.write_text(f"a={number}")
        take(tmp_path, file, run_id=f"r{number}")
    finding = found(back(tmp_path, check=True, paths=[str(file)], run_id="", snapshot="none-yet"), "rollback.versions")
    assert finding.value == 2
    assert [line.rpartition(", ")[2] for line in finding.evidence if line.startswith("r2 ")] == ["as it is now"]
    assert [line.rpartition(", ")[2] for line in finding.evidence if line.startswith("r1 ")] == ["another"]
    back(tmp_path, paths=[str(file)], snapshot="r1")
    assert file.read_text() == "a=1"
    nowhere = found(back(tmp_path, check=True, paths=["/etc/nowhere"], snapshot="none-yet"), "rollback.versions")
    assert nowhere.state == "unknown"


# Version control


def git(tree, *argv):
    return subprocess.run(["git", "-C", str(tree), *argv], check=True, capture_output=True).stdout


@pytest.fixture
def versions(tmp_path, key):
    tree = tmp_path / "versions"
    tree.mkdir(mode=0o700)
    git(tree, "init", "--quiet")
    return {"tree": str(tree), "encrypt_command": key["encrypt_command"], "push": False}


def test_configuration_is_committed_encrypted_with_names_and_hashes_only_netpost_bak_05(tmp_path, versions, key):
    env, ini = tmp_path / "app/.env", tmp_path / "app/app.ini"
    env.parent.mkdir()
    env.write_text(ENV)
    ini.write_text("[shop]\nlimit = 3\n")
    outcome = take(tmp_path, env, ini, version_control=versions)
    assert states(outcome)["snapshot.version_control"] == "ok"
    tree = tmp_path / "versions"
    names = git(tree, "ls-tree", "-r", "--name-only", "HEAD").decode().split()
    everything = git(tree, "log", "-p", "--all", "--text") + b"".join(git(tree, "cat-file", "blob", f"HEAD:{name}") for name in names)
    assert SECRET.encode() not in everything
    index = json.loads((tree / "configuration.json").read_text())
    assert list(index[str(env)]["variables"]) == ["DATABASE_URL", "NODE_ENV"]
    sealed = tree / (str(env).lstrip("/") + ".sealed")
    assert subprocess.run([*key["decrypt_command"], "-in", str(sealed)], check=True, capture_output=True).stdout == ENV.encode()

    again = take(tmp_path, env, ini, version_control=versions, run_id="second")
    assert "commit" not in done(again), "nothing changed, so there is no new version"
    env.write_text(ENV.replace("production\n", "staging\n"))
    third = take(tmp_path, env, ini, version_control=versions, run_id="third")
    assert done(third)["commit"] == "changed"
    assert list(found(third, "snapshot.version_control").evidence) == [str(env)]
    now = json.loads((tree / "configuration.json").read_text())[str(env)]["variables"]
    before = index[str(env)]["variables"]
    assert (now["DATABASE_URL"] == before["DATABASE_URL"], now["NODE_ENV"] == before["NODE_ENV"]) == (True, False)


def test_a_program_that_does_not_encrypt_commits_nothing(tmp_path, versions):
    (tmp_path / ".env").write_text(ENV)
    for command in (["cat"], ["sed", "1s/^/Salted__/"]):
        with pytest.raises(MaintenanceError, match=r"not encrypted|in clear"):
            take(tmp_path, tmp_path / ".env", version_control={**versions, "encrypt_command": command}, run_id=f"r-{command[0]}")
    assert subprocess.run(["git", "-C", versions["tree"], "rev-parse", "HEAD"], check=False, capture_output=True).returncode != 0
    assert not any(SECRET in path.read_text(errors="replace") for path in (tmp_path / "versions").rglob("*.sealed"))


def test_a_version_that_cannot_be_pushed_is_a_warning_and_is_committed(tmp_path, versions):
    (tmp_path / "app.ini").write_text("a=1")
    finding = found(take(tmp_path, tmp_path / "app.ini", version_control={**versions, "push": True}), "snapshot.version_control")
    assert (finding.state, "lost with this host" in finding.advice) == ("warning", True)
    assert git(versions["tree"], "rev-parse", "HEAD")


def test_a_work_tree_that_others_may_write_or_that_is_none_is_refused(tmp_path, versions):
    (tmp_path / "app.ini").write_text("a=1")
    os.chmod(versions["tree"], 0o777)
    with pytest.raises(MaintenanceError, match="only its owner"):
        take(tmp_path, tmp_path / "app.ini", version_control=versions)
    with pytest.raises(MaintenanceError, match="is no folder"):
        take(tmp_path, tmp_path / "app.ini", version_control={**versions, "tree": "/srv/nowhere"}, run_id="two")


@pytest.mark.parametrize(("name", "tracked"), [(".env", True), (".env", False), ("app.ini", True)])
def test_an_environment_file_that_its_own_repository_keeps_in_clear_is_found(tmp_path, name, tracked):
    app = tmp_path / "app"
    app.mkdir()
    git(app, "init", "--quiet")
    (app / name).write_text(ENV if name == ".env" else "[shop]\n")
    if tracked:
        git(app, "add", name)
    outcome = take(tmp_path, app / name)
    assert states(outcome).get("snapshot.clear_secrets") == ("critical" if name == ".env" and tracked else None)


PEM = b"-----BEGIN PRIVATE KEY-----\nMIIEvAIB\nADANBgkq==\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        b'A="' + PEM + b'"\nB=2\n',
        b"A='" + PEM + b"'  # signs tokens\nB=2\n",
        b"export A=`" + PEM + b"`\r\nB=2\n",
        b"A=" + PEM + b"\nB=2\n",
    ],
)
def test_a_value_over_several_lines_is_kept_out_as_any_other(tmp_path, text):
    assert environment_file.variables(text) == {"A": PEM, "B": b"2"}
    app = tmp_path / "app"
    app.mkdir()
    git(app, "init", "--quiet")
    (app / "settings").write_bytes(text)
    git(app, "add", "settings")
    outcome = take(tmp_path, app / "settings")
    assert states(outcome)["snapshot.clear_secrets"] == "critical"
    assert "MIIE" not in json.dumps(outcome.record())


def test_an_environment_file_that_is_not_understood_is_one_by_its_name(tmp_path):
    app = tmp_path / "app"
    app.mkdir()
    git(app, "init", "--quiet")
    for name in (".env.production", "shop.env", "notes.txt"):
        (app / name).write_text('KEY=hunter2\nCONFIG={\n  "a": 1\n}\n')
    git(app, "add", ".")
    outcome = take(tmp_path, app)
    assert list(found(outcome, "snapshot.clear_secrets").evidence) == [str(app / ".env.production"), str(app / "shop.env")]


def test_variables_are_read_as_a_shell_writes_them_and_other_files_have_none():
    assert environment_file.variables(b"# a\nexport A='x y'\nB = 2 \n\n") == {"A": b"x y", "B": b"2"}
    assert environment_file.variables(b'A="it\nB="x"\nC=-----BEGIN X-----\n') == {"A": b"it", "B": b"x", "C": b"-----BEGIN X-----"}
    assert environment_file.variables(b'A="1 \\" 2\n3" \nB=""\n') == {"A": b'1 \\" 2\n3', "B": b""}
    for other in (b"", b"[section]\nA=1\n", b"#only\n", b"\x00\xff", b'{"A": 1}', b'A="1\n2"\nno variable\n'):
        assert environment_file.variables(other) == {}


def test_hostile_files_are_read_in_a_moment():
    started = time.monotonic()
    for line in (b"A=-----BEGIN X-----\n", b'A="\n', b"A='\n", b'A="\\\n', b"A=`x\nB='\n"):
        environment_file.variables(line * (2 * 1024 * 1024 // len(line) // 4))
    assert time.monotonic() - started < 10


@given(st.binary(max_size=200))
def test_any_bytes_are_described_without_a_value_of_theirs(content):
    found = snapshot_versions.described(content, {"mode": 0o600, "uid": 0, "gid": 0, "sha256": "0" * 64}, b"key")
    told = json.dumps({**found, "variables": sorted(found["variables"].values())})
    for value in environment_file.variables(content).values():
        if len(value) >= 6 and not re.fullmatch(rb"[0-9a-f]+", value):
            assert json.dumps(value.decode("latin-1")).strip('"') not in told
