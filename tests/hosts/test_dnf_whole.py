"""What the real dnf left half done is found and completed, what is removed was named before, and old versions come back."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import time
import types

import pytest
import rpms
from dnf_runs import configure, finding, info, leave, planned, prepare, ran, rpm, state, verify

from ansible_collections.ops.maintenance.plugins.module_utils import dnf_checks, dnf_packages, package_regression
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError, VerifyError

pytestmark = pytest.mark.skipif(not shutil.which("dnf"), reason="this image has no dnf")
SLOW, ENTERED, REFUSES = (pathlib.Path(f"/tmp/dnf_{word}") for word in ("slow", "entered", "refuses"))
MACROS = pathlib.Path.home() / ".rpmmacros"
KERNELS = ("5.1", "5.2", "5.3", "5.4")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder of packages as they are installed at first, and one of what came later."""
    root = tmp_path_factory.mktemp("rpms")
    old, new = root / "old", root / "new"
    rpms.built(old, "ops-base", "1.0", "Provides: /bin/sh")
    for folder, version in ((old, "1.0"), (new, "1.1")):
        rpms.built(folder, "ops-lib", version)
        rpms.built(folder, "ops-app", version, f"Requires: ops-lib = {version}")
        rpms.built(folder, "ops-slow", version, post=f"date >>{ENTERED}\n[ ! -e {SLOW} ] || exec sleep 60")
        rpms.built(folder, "ops-later", version, f"Requires: ops-slow = {version}")
        rpms.built(folder, "ops-rest", version, "Requires: ops-slow")
        rpms.built(folder, "ops-odd", version, post=f"[ ! -e {REFUSES} ] || {{ echo will not; exit 3; }}")
    for version in KERNELS:
        rpms.built(old, "kernel-core", version, several=True)
        rpms.built(old, "kernel-modules-core", version, f"Requires: kernel-core = {version}", several=True)
    rpms.built(old, "ops-module", "1.0", "Requires: kernel-core = 5.2")
    for folder in (old, new):
        rpms.repository(folder)
    rpms.repository(new, rpms.advisory("OPS-1", ("ops-app", "1.1")))
    return root


@pytest.fixture
def host(packages):
    """A host on which dnf can install what a test needs."""
    MACROS.write_text("%__transaction_unshare %{nil}\n")  # rpm's plugin for scriptlets, which a container does not let it use
    configure("old", packages / "old")
    configure("new", packages / "new")
    rpm("-i", str(packages / "old" / "ops-base-1.0-1.noarch.rpm"))
    yield packages
    for file in (SLOW, ENTERED, REFUSES, MACROS):
        file.unlink(missing_ok=True)
    leave(*(name for name in ("old", "new") if pathlib.Path(f"/etc/yum.repos.d/{name}.repo").exists()))


def dnf(*argv):
    return ran("dnf", "-q", "-y", *argv)


def installed():
    return sorted(line for line in ran("rpm", "-qa").split() if not line.startswith("ops-base"))


def listed(*names, **more):
    return info(scope="listed", packages=list(names), **more)


def killed_in_its_scriptlet(*specs):
    """Install as the role does, and kill dnf, and what it runs, while the new version's scriptlet is at work."""
    SLOW.touch()
    with subprocess.Popen(
        ["dnf", "-y", "install", *specs], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        give_up = time.monotonic() + 30
        while not ENTERED.exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
    SLOW.unlink()
    assert ENTERED.exists(), "it was not killed in the middle"
    ENTERED.unlink()


def test_a_killed_transaction_is_found_completed_and_the_rest_installed(host):
    """What could not stay behind comes with the repair, what could by the plan that is made anew."""
    names = ["ops-slow", "ops-later", "ops-rest"]
    dnf("install", *(f"{name}-1.0" for name in names))
    ENTERED.unlink()
    planned_before = listed(*names).returned
    assert len(planned_before["install"]) == 3
    killed_in_its_scriptlet(*planned_before["install"])
    assert installed() == ["ops-later-1.0-1.noarch", "ops-rest-1.0-1.noarch", "ops-slow-1.0-1.noarch", "ops-slow-1.1-1.noarch"]

    found = listed(*names)
    assert (state(found, "interrupted"), state(found, "broken"), found.returned["deferred"]) == ("critical", "critical", True)
    assert "ops-slow-1.0-1.noarch" in finding(found, "interrupted").summary
    assert "interrupted or failed" in finding(found, "broken").evidence[0]
    proven = {action.subject: action for action in verify(planned_before["plan"]).actions}
    assert (proven["ops-slow"].status, "interrupted" in proven["ops-slow"].summary) == ("failed", True)

    due = prepare([], check=True, repair=True)
    assert [(action.operation, action.status) for action in due.actions] == [("complete", "due")]
    assert "remove --duplicates and upgrade ops-later-1.1-1.noarch" in due.actions[0].summary
    assert len(installed()) == 4
    done = prepare([], repair=True)
    assert [(action.operation, action.status) for action in done.actions] == [("complete", "changed")]
    assert done.returned["replan"]
    assert len(ENTERED.read_text().splitlines()) == 1, "the scriptlet that was cut off ran again, once"

    again = listed(*names)
    assert (state(again, "interrupted"), state(again, "broken"), planned(again)) == ("ok", "ok", {"ops-rest": "1.1-1"})
    dnf("install", *again.returned["install"])
    assert {action.status for action in verify(planned_before["plan"]).actions} == {"changed"}


def test_a_new_package_killed_in_its_scriptlet_is_no_whole_one(host):
    """rpm counts it as installed, and nothing stands beside it; only the history knows."""
    killed_in_its_scriptlet("ops-slow-1.1")
    assert installed() == ["ops-slow-1.1-1.noarch"]
    found = info(repair=True)
    assert state(found, "interrupted") == "critical"
    assert [action.summary for action in found.actions] == ["dnf -y reinstall ops-slow-1.1-1.noarch"]
    assert [action.status for action in prepare([], repair=True).actions] == ["changed"]
    assert ENTERED.exists()
    assert state(info(repair=True), "interrupted") == "ok"


def test_a_scriptlet_that_failed_fails_its_package_until_it_is_repaired(host):
    """dnf ends with 0 all the same."""
    dnf("install", "ops-odd-1.0")
    plan = listed("ops-odd").returned["plan"]
    REFUSES.touch()
    dnf("install", "ops-odd-1.1")
    [action] = verify(plan).actions
    assert (action.status, "its %post scriptlet failed, exit status 3" in action.summary) == ("failed", True)
    [failed] = prepare([], repair=True).actions
    assert (failed.status, "dnf -y reinstall ops-odd" in failed.summary) == ("failed", True)
    REFUSES.unlink()
    [repaired] = prepare([], repair=True).actions
    assert repaired.status == "changed"
    assert [action.status for action in verify(plan).actions] == ["changed"]


def test_unmet_dependencies_are_met_again_or_left_to_a_person(host):
    dnf("install", "ops-app-1.0")
    rpm("-e", "--nodeps", "ops-lib")
    found = listed("ops-app", repair=True)
    assert (state(found, "interrupted"), "ops-lib = 1.0" in finding(found, "interrupted").summary) == ("critical", True)
    assert [(action.operation, action.status) for action in prepare([], repair=True).actions] == [("fix_broken", "changed")]
    assert installed() == ["ops-app-1.0-1.noarch", "ops-lib-1.0-1.noarch"]
    rpm("-e", "--nodeps", "ops-lib")
    for name in ("old", "new"):
        pathlib.Path(f"/etc/yum.repos.d/{name}.repo").write_text(
            f"[{name}]\nname={name}\nbaseurl=file://{host}/{name}\nexcludepkgs=ops-lib\n"
        )
    stuck = listed("ops-app", repair=True)
    assert "cannot repair that by itself" in finding(stuck, "interrupted").summary
    assert prepare([], repair=True).actions == []


def test_old_kernels_go_down_to_a_number_and_only_as_previewed(host, monkeypatch):
    dnf("--setopt=installonly_limit=0", "install", *(f"kernel-modules-core-{version}" for version in KERNELS))
    assert len(installed()) == 8
    running = types.SimpleNamespace(release="5.1-1.noarch")
    monkeypatch.setattr(dnf_checks.os, "uname", lambda: running)
    old = ["kernel-core-5.2-1.noarch", "kernel-modules-core-5.2-1.noarch"]
    found = info(kernels_keep=2, scope="all")
    assert (found.returned["remove"], state(found, "broken")) == (old, "ok")
    assert finding(found, "removable").evidence == [f"old kernel: {name}" for name in old]
    assert {action.subject: action.status for action in found.actions} == dict.fromkeys(old, "due")
    assert [action.status for action in prepare([], check=True, remove=old).actions] == ["due", "due"]
    assert len(installed()) == 8

    rpm("-i", str(host / "old" / "ops-module-1.0-1.noarch.rpm"))
    kept = info(kernels_keep=2)
    assert (kept.returned["remove"], state(kept, "removable")) == ([], "unknown")
    assert "ops-module" in finding(kept, "removable").summary
    with pytest.raises(VerifyError, match="ops-module"):
        prepare([], remove=old)
    rpm("-e", "ops-module")

    assert [action.status for action in prepare([], remove=old).actions] == ["changed", "changed"]
    assert not set(old) & set(installed())
    assert len(installed()) == 6
    assert state(info(kernels_keep=5), "removable") == "warning", "dnf itself keeps three"


def test_what_nothing_needs_is_named_and_removed_only_where_that_is_asked_for(host):
    dnf("install", "ops-app-1.0")
    dnf("remove", "--noautoremove", "ops-app")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in pathlib.Path("/var/lib/dnf").iterdir())
    found = info(check=True)
    assert (finding(found, "removable").evidence, found.returned["remove"]) == (["not needed: ops-lib-1.0-1.noarch"], [])
    assert sorted((str(path), path.stat().st_mtime_ns) for path in pathlib.Path("/var/lib/dnf").iterdir()) == before
    asked = info(autoremove=True)
    assert [(action.subject, action.status) for action in asked.actions] == [("ops-lib-1.0-1.noarch", "due")]
    prepare([], remove=asked.returned["remove"])
    assert installed() == []
    assert finding(info(autoremove=True), "removable").value == 0


WORSE = package_regression.Regression("nothing listens on tcp/0.0.0.0:80 any more")


@pytest.fixture
def updated(host, monkeypatch):
    """Two packages updated, of which the new version of the first makes the host worse; returns the plan."""
    dnf("install", "ops-app-1.0")
    found = listed("ops-app")
    dnf("install", *found.returned["install"])
    contents = pathlib.Path("/usr/share/ops-test/ops-app")
    monkeypatch.setattr(package_regression, "settle", lambda *_: [WORSE] if contents.read_text() == "1.1\n" else [])
    return found.returned["plan"]


def actions_of(outcome, operation):
    return {action.subject: action.status for action in outcome.actions if action.operation == operation}


def test_the_whole_set_goes_back_to_old_versions_that_are_still_to_be_had(updated):
    said = verify(updated, baseline={"services": []})
    assert "dnf downgrade ops-app-1.0-1.noarch ops-lib-1.0-1.noarch" in finding(said, "regression").advice
    assert actions_of(said, "downgrade") == {}
    back = verify(updated, baseline={"services": []}, downgrade=True)
    assert actions_of(back, "downgrade") == {"ops-app": "changed", "ops-lib": "changed"}
    assert actions_of(back, "compare") == {"host": "changed"}
    assert back.status == "failed", "the rollout stops all the same"
    assert installed() == ["ops-app-1.0-1.noarch", "ops-lib-1.0-1.noarch"]


def test_old_versions_come_from_the_cache_where_no_repository_has_them(updated, host):
    pathlib.Path("/etc/yum.repos.d/old.repo").unlink()
    gone = verify(updated, baseline={"services": []}, downgrade=True)
    assert "No old version is to be had" in finding(gone, "regression").advice
    assert actions_of(gone, "downgrade") == {}
    cache = next(pathlib.Path(dnf_packages.CACHE_DIR).glob("new-*")) / "packages"
    cache.mkdir(exist_ok=True)
    for name in ("ops-app", "ops-lib"):
        shutil.copy2(host / "old" / f"{name}-1.0-1.noarch.rpm", cache)
    assert actions_of(verify(updated, baseline={"services": []}, downgrade=True), "downgrade") == {
        "ops-app": "changed",
        "ops-lib": "changed",
    }
    assert installed() == ["ops-app-1.0-1.noarch", "ops-lib-1.0-1.noarch"]


def test_old_versions_that_nobody_could_look_for_are_not_called_gone(updated):
    for repo in pathlib.Path("/etc/yum.repos.d").glob("*.repo"):
        repo.write_text(repo.read_text() + "skip_if_unavailable=0\n")
    shutil.rmtree(dnf_packages.CACHE_DIR)
    judged = finding(verify(updated, baseline={"services": []}, fresh=None), "regression")
    assert (judged.state, "dnf could not say which old versions" in judged.not_covered) == ("critical", True)
    assert "No old version" not in judged.advice


def test_another_that_holds_the_lock_is_named_and_awaited(host):
    with subprocess.Popen(["sleep", "60"]) as other:
        lock = pathlib.Path("/var/lib/dnf/rpmdb_lock.pid")
        lock.write_text(str(other.pid), encoding="ascii")
        with pytest.raises(MaintenanceError, match=f"process {other.pid} .sleep 60. held the lock"):
            prepare([], lock_timeout_seconds=1)
        other.kill()
    assert state(prepare([]), "lock") == "ok"
    lock.unlink()
