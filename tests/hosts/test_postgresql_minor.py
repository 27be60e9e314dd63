"""Minor releases of PostgreSQL with the real apt and dpkg, the distribution's own cluster, and a real streaming replica or primary of it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import pytest
from apt_archive import Archive
from clusters import MAJOR
from postgresql_packages import Server, ctl, installed_version

from ansible_collections.ops.maintenance.plugins.module_utils import (
    package_updates,
    postgresql,
    postgresql_minor_packages,
    postgresql_programs,
    snapshot,
)
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_minor_update as minor
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.paths import write_state
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_minor_server import runs_old_files
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_scratch import Cluster, scratch_cluster

pytestmark = pytest.mark.skipif(shutil.which("pg_lsclusters") is None or not MAJOR, reason="no packaged PostgreSQL")
RUN = "monthly-20261121T020000Z-3fa9"
DATA = pathlib.Path(f"/var/lib/postgresql/{MAJOR}/main")
CARELESS = pathlib.Path("/etc/dpkg/dpkg.cfg.d/test")
HOOK = pathlib.Path("/etc/apt/apt.conf.d/99needrestart")
STREAMING = {"wal_level": "replica", "max_wal_senders": "10", "max_connections": "100", "fsync": "off"}


def defaults(options, **given):
    common = {"run_id": RUN, "deadline": 0.0, "self_test": False}
    return {**common, **{name: option.get("default") for name, option in options.items()}, **given}


def server(name="main", host="", **more):
    spec = minor.OPTIONS["servers"]["options"]
    return {**{key: option.get("default") for key, option in spec.items()}, "name": name, "host": host, **more}


@pytest.fixture(scope="module")
def packaged():
    """The server in two versions; dpkg neither waits for the disk nor for needrestart meanwhile."""
    CARELESS.write_text("force-unsafe-io\n")
    HOOK.rename("/root/needrestart_hook")
    with tempfile.TemporaryDirectory(prefix="minor", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        made = Server(pathlib.Path(folder), MAJOR)
        yield made
        made.install(made.original)
    CARELESS.unlink()
    shutil.move("/root/needrestart_hook", HOOK)


@pytest.fixture(scope="module")
def archive(packaged, tmp_path_factory):
    """What apt has: the new release."""
    made = Archive(tmp_path_factory.mktemp("archive"))
    packaged.offer(made, packaged.new)
    yield made
    made.remove()


@pytest.fixture
def site(packaged, archive, tmp_path, monkeypatch):
    """A host with the old release installed and the new one to be had; without systemd the packages start no server again."""
    monkeypatch.setattr(minor, "_GRACE_SECONDS", 0.2)
    if installed_version(packaged.name) != packaged.old:
        stop()
        packaged.install(packaged.old)
    yield Site(packaged, tmp_path)
    stop()


def stop():
    with contextlib.suppress(subprocess.CalledProcessError):
        ctl(MAJOR, "stop")


class Site:
    """What tests ask of the host."""

    def __init__(self, packaged, tmp_path):
        self.packaged, self.state, self.root = packaged, str(tmp_path / "state"), str(tmp_path / "snapshots")
        self.old, self.new = (postgresql_minor_packages.number_of(version) for version in (packaged.old, packaged.new))

    def enter(self, run_id=RUN, phase="entered", taken=True):
        """Be in maintenance mode, with the snapshot of the run."""
        write_state(self.state, "maintenance.json", {"phase": phase, "run_id": run_id})
        if taken:
            given = {"root": self.root, "packages": False, "state_dir": self.state}
            snapshot.run(defaults(snapshot.OPTIONS, **given), False, Host())

    def run(self, *servers, check=False, **more):
        given = {"servers": list(servers) or [server()], "state_dir": self.state, "snapshot_root": self.root, "wait_seconds": 20.0, **more}
        return minor.run(defaults(minor.OPTIONS, **given), check, Host())

    def on_disk(self):
        return installed_version(self.packaged.name)


def keeping_up(site, declared):
    """What a replica says once its primary has sent it something."""
    for _attempt in range(50):
        with postgresql.connect(server()) as session:
            session.execute("SELECT pg_create_restore_point('something to send'), pg_switch_wal()")
        servers = site.run(declared, look_only=True).returned["servers"]
        if not servers[0]["behind"]:
            break
        Host().sleep(0.2)
    return servers


def found(outcome, name):
    return next(finding for finding in outcome.findings if finding.id == f"postgresql_minor.{name}")


def version(declared):
    with postgresql.connect(declared) as session:
        return int(session.value("SHOW server_version_num"))


def as_postgres(*argv):
    who = postgresql_programs.identity("postgres")
    subprocess.run(argv, check=True, capture_output=True, cwd="/", timeout=120, **who)


@contextlib.contextmanager
def own_primary():
    """A primary of its own, whose replica the packaged cluster is."""
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with scratch_cluster(os.path.join(folder, "s"), MAJOR) as primary:
            primary.initialise()
            primary.start({**STREAMING, "max_connections": "50"})
            with postgresql.connect(primary.server) as session:
                session.execute("CREATE TABLE public.orders AS SELECT generate_series(1, 1000) AS id")
            shutil.rmtree(DATA)
            base_backup(primary.socket, str(DATA))
            (DATA / "postgresql.auto.conf").write_text(f"primary_conninfo = 'host={primary.socket} user=postgres application_name=db2'\n")
            ctl(MAJOR, "start")
            yield primary
            stop()
    recreate()


def base_backup(host, target):
    as_postgres(
        postgresql_programs.find_program("pg_basebackup", MAJOR),
        "-h",
        host,
        "-U",
        "postgres",
        "-D",
        target,
        "-R",
        "-c",
        "fast",
        "-X",
        "stream",
    )


def recreate():
    """Give the host its empty cluster back."""
    for argv in (["pg_dropcluster", "--stop", str(MAJOR), "main"], ["pg_createcluster", str(MAJOR), "main"]):
        subprocess.run(argv, check=True, capture_output=True)


class NewCluster(Cluster):
    """A cluster that runs the programs of the new release, whatever is installed."""

    packaged = None

    def program(self, name):
        path = self.packaged.program(self.packaged.new, name)
        return path if os.path.exists(path) else super().program(name)


@contextlib.contextmanager
def own_replica(packaged, newer=False):
    """A replica of the packaged cluster, of the old or of the new release."""
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with scratch_cluster(os.path.join(folder, "s"), MAJOR) as replica:
            os.rmdir(replica.data)
            base_backup("/var/run/postgresql", replica.data)
            kind = NewCluster if newer else Cluster
            running = kind(replica.folder, MAJOR, replica.os_user)
            running.packaged = packaged
            running.start({**STREAMING, "primary_conninfo": "'host=/var/run/postgresql user=postgres application_name=db2'"})
            try:
                yield running
            finally:
                running.stop()


@pytest.fixture
def alone(site):
    ctl(MAJOR, "start")
    return site


@contextlib.contextmanager
def transaction(declared):
    """A transaction that somebody left open."""
    with postgresql.connect(declared, application_name="forgotten") as session:
        session.execute("BEGIN")
        session.execute("SELECT txid_current(), pg_sleep(0.2)")
        yield session


# A server of its own


def test_check_mode_says_what_is_to_be_had_and_touches_nothing(alone):
    outcome = alone.run(check=True)
    assert [(action.status, action.operation) for action in outcome.actions] == [("due", "update")]
    assert (found(outcome, "pending").state, found(outcome, "ready").state) == ("warning", "ok")
    assert outcome.returned["elsewhere"][alone.packaged.name] == postgresql_minor_packages.OURS
    assert (version(server()), alone.on_disk()) == (alone.old, alone.packaged.old)
    assert not os.path.exists(alone.state)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"phase": "left"}, "not in the maintenance mode"),
        ({"run_id": "weekly-another"}, "not in the maintenance mode"),
        ({"taken": False}, "no snapshot"),
    ],
)
def test_no_restart_outside_maintenance_mode_or_before_the_snapshot_asr_13_2(alone, given, said):
    alone.enter(**given)
    outcome = alone.run()
    assert outcome.status == "deferred"
    assert said in outcome.summary
    assert (version(server()), alone.on_disk()) == (alone.old, alone.packaged.old)


def test_running_server_says_the_new_release_once_a_transaction_has_ended_and_again_nothing_is_due(alone):
    alone.enter()
    with transaction(server()) as session:
        ends = threading.Timer(1.0, session.execute, ["COMMIT"])
        ends.start()
        outcome = alone.run(long_transaction_seconds=0.1)
        ends.join()
    assert outcome.status == "changed", outcome.summary
    assert version(server()) == alone.new
    assert found(outcome, "pending").state == "ok"
    assert outcome.before["main"] != outcome.after["main"]
    again = alone.run()
    assert (again.status, again.actions) == ("ok", [])


def test_window_that_closes_while_a_transaction_is_waited_for_is_kept(alone):
    alone.enter()
    with transaction(server()) as session:
        ends = threading.Timer(1.0, session.execute, ["COMMIT"])
        ends.start()
        deadline = Host().now().timestamp() + 5
        outcome = alone.run(long_transaction_seconds=0.1, deadline=deadline, minimum_seconds=4)
        ends.join()
    assert (outcome.status, "does not fit into the window" in outcome.summary) == ("deferred", True)
    assert (version(server()), alone.on_disk()) == (alone.old, alone.packaged.old)


def test_server_that_a_failed_update_has_stopped_is_started_again(alone):
    alone.enter()
    hook = pathlib.Path("/etc/apt/apt.conf.d/99fails")
    hook.write_text(f'DPkg::Post-Invoke {{ "pg_ctlcluster {MAJOR} main stop; exit 1"; }};\n')
    try:
        outcome = alone.run(wait_seconds=2.0)
    finally:
        hook.unlink()
    assert outcome.status == "failed"
    assert "apt-get" in outcome.summary
    assert found(outcome, "updated").state == "critical"
    assert version(server()) in (alone.old, alone.new)


def test_release_on_disk_that_does_not_run_yet_is_restarted(alone):
    """As an update leaves it whose restart was held back."""
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        alone.packaged.install(alone.packaged.new)
    finally:
        policy.unlink()
    assert version(server()) == alone.old
    assert runs_old_files(str(DATA))
    outcome = alone.run(check=True)
    assert [(action.operation, action.status) for action in outcome.actions] == [("restart", "due")]
    alone.enter()
    assert [(action.operation, action.status) for action in alone.run().actions] == [("restart", "changed")]
    assert version(server()) == alone.new
    assert not runs_old_files(str(DATA))
    assert alone.run().actions == []


def test_long_transaction_is_never_cut_off(alone):
    alone.enter()
    with transaction(server()) as session:
        checked = alone.run(check=True, long_transaction_seconds=0.1)
        assert (found(checked, "ready").state, checked.actions[0].status) == ("warning", "due")
        outcome = alone.run(long_transaction_seconds=0.1, wait_seconds=0.5)
        assert outcome.status == "deferred"
        assert "forgotten" in outcome.summary
        assert session.value("SELECT 1") == 1
    assert alone.on_disk() == alone.packaged.old


def test_cluster_that_nobody_declared_is_not_restarted_unseen(alone):
    subprocess.run(["pg_createcluster", "-p", "5499", "--start", str(MAJOR), "other"], check=True, capture_output=True)
    try:
        alone.enter()
        outcome = alone.run()
        assert (outcome.status, alone.on_disk()) == ("deferred", alone.packaged.old)
        assert f"{MAJOR}/other on port 5499" in outcome.summary
        assert [action.status for action in alone.run(server(), server("other", port=5499), check=True).actions] == ["due", "due"]
    finally:
        subprocess.run(["pg_dropcluster", "--stop", str(MAJOR), "other"], check=True, capture_output=True)


def test_held_server_is_a_finding_and_stays(alone):
    subprocess.run(["apt-mark", "hold", alone.packaged.name], check=True, capture_output=True)
    try:
        alone.enter()
        outcome = alone.run()
        assert (outcome.status, alone.on_disk()) == ("deferred", alone.packaged.old)
        assert "held" in outcome.summary
        assert found(outcome, "pending").state == "warning"
    finally:
        subprocess.run(["apt-mark", "unhold", alone.packaged.name], check=True, capture_output=True)


def test_ordinary_update_leaves_the_server_alone(alone, tmp_path):
    elsewhere = alone.run(check=True).returned["elsewhere"]
    given = {"scope": "all", "refresh": False, "elsewhere": elsewhere, "state_dir": str(tmp_path / "other")}
    planned = package_updates.run(defaults(package_updates.OPTIONS, **given), True, Host())
    assert planned.returned["left"][alone.packaged.name] == postgresql_minor_packages.OURS
    assert [item for item in planned.returned["plan"] if item["name"] == alone.packaged.name] == []
    assert planned.returned["elsewhere_due"] == [alone.packaged.name]
    emergency = package_updates.run(defaults(package_updates.OPTIONS, **given, overdue_only=True), True, Host())
    assert emergency.returned["elsewhere_due"] == [], "an emergency run would restart a server for what is not overdue"


def test_new_major_version_is_never_brought_along_asr_13_2(alone, archive, tmp_path):
    """The package that stands for the newest major is offered anew, and the minor release wants a package of that major."""
    other = MAJOR + 1
    meta = installed_version("postgresql")
    offered = meta.replace(str(MAJOR), str(other), 1)
    debs = [
        archive.package(f"postgresql-{other}", f"{other}.1-1"),
        archive.package("postgresql", offered, fields=f"Depends: postgresql-{other}\n"),
    ]
    archive.names -= {"postgresql"}  # not to be purged with what the test made
    archive.publish()
    try:
        alone.enter()
        outcome = alone.run()
        assert (outcome.status, version(server())) == ("changed", alone.new)
        assert found(outcome, "major").evidence == [f"postgresql {offered}"]
        assert installed_version("postgresql") == meta
        assert not os.path.exists(f"/var/lib/dpkg/info/postgresql-{other}.list")
        given = {"scope": "all", "refresh": False, "elsewhere": outcome.returned["elsewhere"], "state_dir": str(tmp_path / "other")}
        planned = package_updates.run(defaults(package_updates.OPTIONS, **given), True, Host()).returned["plan"]
        assert [item["name"] for item in planned if item["name"].startswith("postgresql")] == []
    finally:
        for deb in debs:
            deb.unlink()
        archive.publish()


def test_server_that_does_not_answer_or_is_not_of_a_package_is_unknown(site):
    outcome = site.run()
    assert {finding.state for finding in outcome.findings if finding.subject == "main"} == {"unknown"}
    assert outcome.actions == []
    assert site.packaged.name in outcome.returned["elsewhere"], "the ordinary update would restart it"


# Replication


@contextlib.contextmanager
def at_work(primary):
    """An application writes meanwhile."""
    over = threading.Event()

    def write(session):
        while not over.wait(0.3):
            session.execute("INSERT INTO public.orders VALUES (0)")

    with postgresql.connect(primary.server) as session:
        writer = threading.Thread(target=write, args=[session])
        writer.start()
        try:
            yield
        finally:
            over.set()
            writer.join()


def test_replica_is_restarted_only_while_it_keeps_up_and_has_caught_up_before_it_is_done(site):
    with own_primary() as primary, at_work(primary):
        site.enter()
        with postgresql.connect(server()) as session:
            session.execute("SELECT pg_wal_replay_pause()")
        paused = site.run(wait_seconds=0.5)
        assert (paused.status, "paused" in paused.summary) == ("deferred", True)
        assert site.on_disk() == site.packaged.old
        with postgresql.connect(server()) as session:
            session.execute("SELECT pg_wal_replay_resume()")
        outcome = site.run()
        assert outcome.status == "changed", outcome.summary
        assert (version(server()), version(primary.server)) == (site.new, site.old)
        [told] = outcome.returned["servers"]
        assert (told["role"], told["version"], told["behind"]) == ("replica", site.new, [])
        with postgresql.connect(primary.server) as session:
            rows = session.value("SELECT count(*) FROM public.orders")
        with postgresql.connect(server()) as session:
            assert until(lambda: session.value("SELECT count(*) FROM public.orders") >= rows > 1000)


def until(is_so):
    for _attempt in range(50):
        if is_so():
            return True
        Host().sleep(0.2)
    return False


def test_replica_that_lost_its_primary_is_not_restarted(site):
    with own_primary() as primary:
        site.enter()
        primary.stop()
        lost = site.run(wait_seconds=0.5)
        assert (lost.status, "no log from its primary" in lost.summary) == ("deferred", True)
        assert site.on_disk() == site.packaged.old


def test_primary_waits_until_its_replica_runs_the_new_release(alone):
    """The order of the fleet: the primary asks what its replica says, and goes second whatever the inventory's order is."""
    with own_replica(alone.packaged) as replica:
        alone.enter()
        declared = server(replicas_expected=1)
        beside = server("db2", replica.socket)
        refused = alone.run(declared)
        assert (refused.status, "replicas come first: 0 of 1" in refused.summary) == ("deferred", True)
        peers = alone.run(beside, look_only=True).returned["servers"]
        assert [(one["role"], one["version"]) for one in peers] == [("replica", alone.old)]
        assert alone.run(declared, peers=peers).status == "deferred"
        assert version(server()) == alone.old
    with own_replica(alone.packaged, newer=True) as replica:
        peers = keeping_up(alone, server("db2", replica.socket))
        assert [(one["role"], one["version"], one["behind"]) for one in peers] == [("replica", alone.new, [])]
        at_once = alone.run(declared, peers=peers, at_once=["db2"])
        assert (at_once.status, "at the same moment" in at_once.summary) == ("deferred", True)
        outcome = alone.run(declared, peers=peers)
        assert outcome.status == "changed", outcome.summary
        assert version(server()) == alone.new
        with postgresql.connect(server()) as session:
            assert session.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 1


def test_primary_whose_replica_is_away_is_not_restarted(alone):
    alone.enter()
    with postgresql.connect(server()) as session:
        session.execute("SELECT pg_create_physical_replication_slot('db2', true)")
    try:
        outcome = alone.run(wait_seconds=1.0)
        assert (outcome.status, version(server())) == ("deferred", alone.old)
        assert "replicas come first: 0 of 1" in outcome.summary
        assert any("slot db2" in line for line in found(outcome, "ready").evidence)
    finally:
        with postgresql.connect(server()) as session:
            session.execute("SELECT pg_drop_replication_slot('db2')")
