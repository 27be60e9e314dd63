"""Updates planned, installed and proven with the real dnf and rpm, from repositories with real packages and advisories."""

from __future__ import annotations

import functools
import http.server
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest
import rpms
from dnf_runs import configure, fetched, finding, info, leave, planned, prepare, ran, rpm, state, verify, versions
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    dnf_lock,
    preflight_packages,
    rpm_versions,
    security_updates,
)
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review

pytestmark = pytest.mark.skipif(not shutil.which("dnf"), reason="this image has no dnf")
NAMES = ("plain", "secure", "locked", "lib", "app", "stuck", "gone", "fine")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Two folders of packages: what is installed at first, and what came later."""
    root = tmp_path_factory.mktemp("rpms")
    old, new = root / "old", root / "new"
    for name in NAMES:
        rpms.built(old, f"ops-{name}", "1.0", *(["Requires: ops-lib = 1.0"] if name == "app" else []))
    for name in ("plain", "secure", "locked", "lib"):
        rpms.built(new, f"ops-{name}", "1.1")
    rpms.built(new, "ops-secure", "1.2")
    rpms.built(new, "ops-app", "1.1", "Requires: ops-lib = 1.1")
    rpms.built(new, "ops-stuck", "1.1", "Requires: ops-nowhere")
    rpms.built(new, "ops-heir", "2.0", "Obsoletes: ops-gone < 2.0", "Provides: ops-gone = 2.0")
    return root


@pytest.fixture
def host(packages, tmp_path):
    """The packages of the first folder installed, the repository of the second configured."""
    new = tmp_path / "new"
    shutil.copytree(packages / "new", new)
    rpms.repository(packages / "old")
    rpms.repository(
        new,
        rpms.advisory("OPS-1", ("ops-secure", "1.1"), severity="Critical"),
        rpms.advisory("OPS-2", ("ops-locked", "1.1")),
        rpms.advisory("OPS-3", ("ops-app", "1.1"), severity="Low"),
        rpms.advisory("OPS-4", ("ops-stuck", "1.1"), severity="Moderate"),
        rpms.advisory("OPS-5", ("ops-plain", "1.1"), kind="bugfix", severity=""),
        rpms.advisory("OPS-0", ("ops-fine", "0.9")),
    )
    shutil.rmtree("/var/cache/dnf", ignore_errors=True)
    configure("old", packages / "old")
    configure("new", new, "excludepkgs=ops-locked")
    rpm("-U", "--oldpackage", *(str(packages / "old" / f"ops-{name}-1.0-1.noarch.rpm") for name in NAMES))
    yield new
    leave("old", "new")


@pytest.fixture
def server(host):
    """The repository of the new packages behind HTTP, so that they have to be fetched."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(host))) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        repo = pathlib.Path("/etc/yum.repos.d/new.repo")
        repo.write_text(repo.read_text().replace(f"file://{host}", f"http://127.0.0.1:{web.server_port}"))
        yield host
        web.shutdown()


def test_security_updates_are_planned_installed_and_proven(host):
    """The fix and not beyond, with what it needs; a bug fix, a hold, a broken and an older advisory are left out."""
    before = versions()
    found = info()
    assert planned(found) == {"ops-secure": "1.1-1", "ops-app": "1.1-1", "ops-lib": "1.1-1"}
    assert sorted(found.returned["install"]) == ["ops-app-1.1-1", "ops-secure-1.1-1"]
    assert (state(found, "pending"), finding(found, "pending").value) == ("warning", 4)
    assert state(found, "held") == "warning"
    assert finding(found, "held").evidence == ["ops-locked 1.0-1 -> 1.1-1 (held)"]
    assert any(line.startswith("ops-secure 1.0-1 -> 1.1-1: critical (archive)") for line in finding(found, "overdue").evidence)
    assert any("ops-stuck" in line and "ops-nowhere" in line for line in finding(found, "blocked").evidence)
    assert {"new", "OPS-1 critical"} <= set(next(item for item in found.returned["plan"] if item["name"] == "ops-secure")["archives"])
    assert versions() == before
    ran("dnf", "-y", "install", *found.returned["install"])
    proven = verify(found.returned["plan"])
    assert {action.status for action in proven.actions} == {"changed"}
    assert versions() == {**before, "secure": "1.1-1", "app": "1.1-1", "lib": "1.1-1"}
    assert planned(info()) == {}


def test_what_was_not_installed_is_said(host):
    found = info(scope="listed", packages=["ops-secure"])
    proven = verify(found.returned["plan"])
    assert {action.status for action in proven.actions} == {"failed"}
    assert proven.status == "failed"


def test_check_mode_leaves_no_trace_and_says_the_same(host):
    def trace():
        return {
            str(path): path.lstat().st_mtime_ns
            for root in ("/var/cache/dnf", "/var/lib/dnf", "/var/log")
            for path in pathlib.Path(root).rglob("*")
        }

    shutil.rmtree("/var/cache/dnf", ignore_errors=True)
    before = trace()
    found = info(check=True, scope="listed", packages=["ops-secure"])
    assert trace() == before
    assert planned(found) == {"ops-secure": "1.2-1"}


def test_scope_all_and_the_inventorys_hold(host):
    """ops-gone would be replaced by another package, which is a removal."""
    found = info(scope="all", hold=["ops-pl*", "ops-stuck"])
    assert planned(found) == {"ops-secure": "1.2-1", "ops-app": "1.1-1", "ops-lib": "1.1-1"}
    assert planned(info(scope="listed", packages=["ops-plain"])) == {"ops-plain": "1.1-1"}


def test_a_repository_without_advisories_is_no_good_news(host):
    shutil.rmtree(host / "repodata")
    rpms.repository(host)
    found = info()
    assert state(found, "pending") == "unknown"
    assert "carries security updates" in finding(found, "pending").summary
    assert planned(found) == {}


def test_a_repository_out_of_reach_is_unknown_even_where_it_may_be_skipped(host):
    with open("/etc/yum.repos.d/new.repo", "a", encoding="utf-8") as repo:
        repo.write("skip_if_unavailable=1\n")
    shutil.rmtree(host / "repodata")
    found = info()
    assert state(found, "refresh") == "unknown"
    assert state(found, "pending") == "unknown"


def test_nothing_pending_is_said_only_after_looking(host):
    ran("dnf", "-y", "install", "ops-secure-1.1", "ops-app-1.1", "ops-lib-1.1")
    rpm("-e", "ops-stuck", "ops-locked")
    found = info()
    assert (found.status, state(found, "pending"), state(found, "held")) == ("ok", "ok", "ok")


class RedHat(Host):
    """A host that has dnf and no apt."""

    def which(self, name):
        return None if name.startswith("apt") else super().which(name)


def test_the_security_review_counts_advisories_and_leaves_no_trace(host):
    def reviewed():
        [found] = security_updates.look(Review({"updates_max_age_days": 7}, RedHat(), True, Host().now()))
        return found

    assert reviewed().state == "unknown", "nothing was fetched yet"
    ran("dnf", "makecache")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in pathlib.Path("/var/cache/dnf").rglob("*"))
    found = reviewed()
    assert (found.state, found.value) == ("warning", 4)
    assert "ops-locked 1.0-1 -> 1.1-1 (held)" in found.evidence
    assert not any(line.startswith(("ops-plain", "ops-fine")) for line in found.evidence)
    assert sorted((str(path), path.stat().st_mtime_ns) for path in pathlib.Path("/var/cache/dnf").rglob("*")) == before
    ran("dnf", "-y", "install", "ops-secure-1.1", "ops-app-1.1", "ops-lib-1.1")
    rpm("-e", "ops-stuck", "ops-locked")
    assert (reviewed().state, reviewed().value) == ("ok", 0)


def test_an_interrupted_transaction_is_broken(host, packages):
    rpm("-i", "--force", "--nodeps", str(packages / "new" / "ops-plain-1.1-1.noarch.rpm"))
    found = info()
    assert state(found, "broken") == "critical"
    assert finding(found, "broken").evidence == ["ops-plain 1.1-1: installed in two versions at once"]
    rpm("-e", "--nodeps", "ops-plain-1.0-1")


LOCK = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"


def test_a_host_with_rpm_alone_is_ready_only_when_rpm_is_free_and_whole(host, packages, monkeypatch):
    def preflight():
        found = preflight_packages.look(0, Host())
        return found.state, found.summary

    monkeypatch.setattr(preflight_packages, "DPKG", str(packages / "no dpkg"))
    assert preflight() == ("ok", "The package manager is free.")
    _folder, lock = dnf_lock.places(Host())
    held = [sys.executable, "-c", LOCK, lock]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert preflight() == ("critical", f"The package manager is not free: process {other.pid} (python3 -c) holds the lock.")
    rpm("-i", "--force", "--nodeps", str(packages / "new" / "ops-plain-1.1-1.noarch.rpm"))
    state_, words = preflight()
    assert (state_, "interrupted, 1 package in two versions: ops-plain" in words) == ("critical", True)
    rpm("-e", "--nodeps", "ops-plain-1.0-1")
    monkeypatch.setattr(dnf_lock, "places", lambda _host: (str(packages / "no rpm"), str(packages / "no rpm/.rpm.lock")))
    assert preflight()[0] == "critical"


def test_planned_packages_are_fetched_and_not_installed(server):
    before = versions()
    found = info()
    assert "/var/cache/dnf" in finding(found, "space").evidence[0], finding(found, "space").summary
    due = prepare(found.returned["install"], check=True, download_only=True)
    assert ([action.status for action in due.actions], fetched()) == (["due"], [])
    done = prepare(found.returned["install"], download_only=True)
    assert [(action.operation, action.status) for action in done.actions] == [("download", "changed")]
    assert fetched() == [f"ops-{name}-1.1-1.noarch.rpm" for name in ("app", "lib", "secure")]
    assert versions() == before
    assert done.returned["replan"] is False
    assert prepare(found.returned["install"]).actions == []
    for package in server.glob("*.rpm"):
        package.unlink()  # what was fetched is enough
    ran("dnf", "-y", "install", *found.returned["install"])
    assert versions()["secure"] == "1.1-1"


def test_what_cannot_be_fetched_is_said(server):
    found = info()
    (server / "ops-lib-1.1-1.noarch.rpm").unlink()
    [action] = prepare(found.returned["install"], download_only=True).actions
    assert (action.operation, action.status) == ("download", "failed")
    assert "could not be fetched" in action.summary
    [nowhere] = prepare(["ops-secure-7-1"]).actions
    assert (nowhere.status, "ops-secure-7-1" in nowhere.summary) == ("failed", True)


def test_without_room_nothing_is_begun(server):
    """Check mode counts what the host has fetched already."""

    def need(outcome):
        return sum(int(line.split(": ")[1].split()[0]) for line in finding(outcome, "space").evidence)

    made = info(space_reserve_bytes=10**18)
    assert (state(made, "space"), made.returned["install"]) == ("critical", [])
    assert {action.status for action in made.actions} == {"deferred"}
    roomy = info(space_reserve_bytes=0)
    assert state(roomy, "space") == "ok"
    prepare(roomy.returned["install"], download_only=True)
    assert 0 < need(info()) < need(roomy)
    assert need(info(check=True)) == need(info())


def test_pins_and_blocked_versions_leave_the_next_better_one(host):
    assert planned(info(scope="listed", packages=["ops-secure"])) == {"ops-secure": "1.2-1"}
    assert planned(info(scope="listed", packages=["ops-secure"], blocklist=["ops-secure=1.2*"])) == {"ops-secure": "1.1-1"}
    assert planned(info(scope="listed", packages=["ops-secure"], pins={"ops-secure": "1.1*"})) == {"ops-secure": "1.1-1"}
    kept = info(scope="listed", packages=["ops-secure", "ops-app"], pins={"ops-secure": "1.0*"}, blocklist=["ops-lib"])
    assert planned(kept) == {}
    assert kept.returned["left"] == {"ops-secure": "pinned to 1.0*", "ops-app": "needs ops-lib, which is on the blocklist"}


def test_versions_are_compared_as_rpm_does():
    part = st.text("0123456789abzAZ.~^+_", min_size=1, max_size=8)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(part, part), min_size=20, max_size=20))
    def compare(pairs):
        lua = "".join(f"print(rpm.vercmp('{a}', '{b}') .. ' ')" for a, b in pairs)
        said = subprocess.run(["rpm", "--eval", f"%{{lua:{lua}}}"], check=True, capture_output=True, text=True).stdout.split()
        own = [rpm_versions.compare_parts(a, b) for a, b in pairs]
        assert [(n > 0) - (n < 0) for n in own] == [int(n) for n in said], pairs

    compare()
