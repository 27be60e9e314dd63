# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Minor releases of PostgreSQL: which packages, whose turn it is, and what speaks against a restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import apt_packages as apt
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_minor_findings as findings
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_minor_packages as packages
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_minor_server as servers
from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_minor_update as minor
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.package_plan import Planned
from ansible_collections.ops.maintenance.plugins.module_utils.postgresql_minor_server import Limits, Peers, Receiver, Seen, Standby

LIMITS = Limits(1024, 1)
SERVER, CLIENT, LIBRARY = "postgresql-15", "postgresql-client-15", "libpq5"
NAMES = (LIBRARY, SERVER, CLIENT)
OLD, NEW = "15.14-0+deb12u1", "15.15-0+deb12u1"


class Manager:
    """Rehearses as told."""

    def __init__(self, *pulls):
        self.pulls = pulls

    def rehearse(self, specs):
        steps = [apt.Step("Inst", *spec.split("=")[:1], OLD, spec.split("=")[1], ()) for spec in specs]
        return apt.Simulation((*steps, *(apt.Step("Inst", name, "", version, ()) for name, version in self.pulls)))


def update(name, candidate=NEW, **more):
    return apt.Update(name, OLD, candidate, ("Debian:stable",), **more)


def plan(*updates, pulls=(), whole=True):
    installed = {name: apt.Installed(name, OLD, "install", "installed" if whole else "half-configured") for name in NAMES}
    return packages.plan(15, NAMES, installed, apt.Pending(updates, (), None, ()), Manager(*pulls))


def test_all_packages_of_a_release_are_planned_together():
    made = plan(update(SERVER), update(CLIENT), update(LIBRARY))
    assert sorted(made.specs) == sorted(f"{name}={NEW}" for name in NAMES)
    assert (made.installed, made.target, made.refused) == (150014, 150015, "")


@pytest.mark.parametrize(
    ("updates", "pulls", "said"),
    [
        ([update(SERVER), update(LIBRARY, "16.1-1")], (), "pinned to 15.*"),  # a library of the next major
        ([update(SERVER)], [("postgresql-16", "16.1-1")], "postgresql-16"),
        ([update(SERVER)], [("postgresql-plperl-17", "17.1-1")], "postgresql-plperl-17"),
        ([update(SERVER, held=True)], (), "held"),
    ],
)
def test_plan_that_is_not_whole_or_not_only_of_this_major_is_refused_asr_13_2(updates, pulls, said):
    made = plan(*updates, pulls=pulls)
    assert said in made.refused


def test_server_that_is_only_offered_in_another_major_has_no_minor_release():
    made = plan(update(SERVER, "16.1-1"))
    assert (made.target, made.specs) == (150014, [])


def test_new_library_that_the_server_needs_may_come_along():
    made = plan(update(SERVER), pulls=[("libllvm16", "1:16.0.6-1")])
    assert (made.refused, made.specs) == ("", [f"{SERVER}={NEW}"])


def test_half_configured_server_is_refused():
    assert "not whole" in plan(update(SERVER), whole=False).refused


def test_packages_of_a_server_are_those_of_its_source():
    sources = {SERVER: SERVER, CLIENT: SERVER, LIBRARY: SERVER, "postgresql": "postgresql-common", "postgresql-15-postgis-3": "postgis"}
    assert packages.names_of(15, sources) == NAMES
    assert packages.installed_majors(sources) == [15]


def test_package_that_stands_for_the_next_major_is_named():
    found = packages.majors_offered(
        apt.Pending((apt.Update("postgresql", "15+248", "17+278", ()), apt.Update("postgresql-doc", "15+248", "15+249", ())), (), None, ())
    )
    assert found == {"postgresql": "17+278"}


@pytest.mark.parametrize(
    ("name", "version", "dependency", "other"),
    [
        ("postgresql-15", "15.15-1", False, False),
        ("postgresql-client-16", "16.1-1", True, True),
        ("postgresql-15-cron", "1.6-1", True, False),
        ("libpq5", "16.1-1", False, True),
        ("libllvm16", "1:16.0.6", True, False),
        ("postgresql-15", "17~beta1-1", False, True),
    ],
)
def test_other_majors_are_told_by_name_and_version(name, version, dependency, other):
    assert packages.is_of_another_major(Planned(name, "", version, False, (), dependency), 15) is other


def test_clusters_of_the_distribution():
    text = (
        "15 main    5432 online,recovery postgres /var/lib/postgresql/15/main /var/log/x\n"
        "17 \x1b[31mmain 5433 down postgres /d /l\nWarning: x\n\n"
    )
    assert packages.parse_clusters(text)[0] == packages.Cluster(15, "main", 5432, True)


@given(st.text())
def test_any_text_is_a_list_of_clusters(text):
    assert all(one.major >= 0 for one in packages.parse_clusters(text))


@given(st.integers(10, 99), st.integers(0, 99))
def test_version_is_the_number_that_the_server_says(major, release):
    assert packages.number_of(f"{major}.{release}-1.pgdg12+1") == major * 10000 + release
    assert servers.shown(major * 10000 + release) == f"{major}.{release}"


def seen(in_recovery=False, version=150014, **more):
    return Seen("main", 5432, version, in_recovery, "7", **more)


KEEPS_UP = Receiver("streaming", 0.0, 1.0)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (seen(True, receiver=KEEPS_UP), ""),
        (seen(True), "no receiver"),
        (seen(True, receiver=Receiver("waiting", 0.0, 1.0)), "waiting"),
        (seen(True, receiver=Receiver("streaming", None, 1.0)), "not said yet"),
        (seen(True, receiver=Receiver("streaming", 0.0, 400.0)), "said nothing"),
        (seen(True, receiver=Receiver("streaming", 4096.0, 1.0)), "4.0 KiB behind"),
        (seen(True, receiver=KEEPS_UP, paused=True), "paused"),
        (seen(standbys=(Standby("db2", "streaming", 10.0),)), ""),
        (seen(standbys=(Standby("db2", "catchup", 10.0),)), "catchup"),
        (seen(standbys=(Standby("db2", "streaming", 4096.0),)), "db2 is 4.0 KiB behind"),
        (seen(), "0 replicas of 1"),
        (seen(standbys=(Standby("db2", "streaming", 0.0),), lost_slots=("db3",)), "slot db3"),
    ],
)
def test_replication_has_to_keep_up(one, said):
    found = "; ".join(servers.behind(one, LIMITS))
    assert said in found
    assert bool(found) == bool(said)


def peer(version=150015, role="replica", system="7", behind=()):
    return {"host": "db2", "name": "main", "role": role, "system": system, "version": version, "behind": list(behind)}


@pytest.mark.parametrize(
    ("one", "peers", "free"),
    [
        (seen(standbys=(Standby("db2", "streaming", 0.0),)), [peer()], True),
        (seen(standbys=(Standby("db2", "streaming", 0.0),)), [], False),
        (seen(standbys=(Standby("db2", "streaming", 0.0),)), [peer(150014)], False),
        (seen(standbys=(Standby("db2", "streaming", 0.0),)), [peer(system="8")], False),  # of another cluster
        (seen(standbys=(Standby("db2", "streaming", 0.0),)), [peer(role="primary")], False),
        (seen(standbys=(Standby("db2", "streaming", 0.0),)), [peer(behind=["it is 4 GiB behind"])], False),
        (seen(standbys=(Standby("db2", "streaming", 0.0), Standby("db3", "streaming", 0.0))), [peer()], False),
        (seen(), [], False),  # one replica is expected, and none is connected
        (seen(True, receiver=KEEPS_UP), [], True),
        (seen(True, receiver=KEEPS_UP), [peer(150014)], True),
        (seen(True, receiver=KEEPS_UP), [peer(behind=["its replay is paused"])], False),
    ],
)
def test_replicas_come_first_and_one_after_the_other(one, peers, free):
    assert (servers.out_of_turn(one, LIMITS, Peers(peers), 150015) == []) is free


def test_lone_primary_needs_nobody_and_never_goes_beside_another():
    assert servers.out_of_turn(seen(), Limits(1024), Peers(), 150015) == []
    assert "maintenance_serial" in servers.out_of_turn(seen(), Limits(1024), Peers(at_once=["db2"]), 150015)[0]


def test_planted_servers_are_judged_and_a_broken_judge_is_caught(monkeypatch):
    assert servers.self_test() == []
    monkeypatch.setattr(servers, "out_of_turn", lambda *_: [])
    assert servers.self_test() == ["a primary before its replica"]


def server(**more):
    return {**{name: option.get("default") for name, option in minor.OPTIONS["servers"]["options"].items()}, "name": "main", **more}


def params(*declared, **more):
    return {**{name: option.get("default") for name, option in minor.OPTIONS.items()}, "servers": list(declared), **more}


@pytest.mark.parametrize(
    ("given_params", "said"),
    [
        (params(server(), server()), "twice"),
        (params(server(port=0)), "port"),
        (params(server(replicas_expected=-1)), "replicas_expected"),
        (params(server(), wait_seconds=-1), "wait_seconds"),
    ],
)
def test_senseless_input_is_told_in_a_sentence(given_params, said):
    [problem] = minor.input_problems(given_params)
    assert said in problem
    assert minor.input_problems(params(server())) == []


@pytest.mark.parametrize(
    ("blind", "offered", "state"),
    [
        ("", [], "ok"),
        ("", ["postgresql 16+250"], "warning"),
        ("lists", ["postgresql 16+250"], "warning"),
        ("there are no lists", [], "unknown"),
    ],
)
def test_no_package_lists_are_no_proof_that_no_major_version_is_offered(blind, offered, state):
    job = minor.Job(params(), True, Host(), packages=packages.Packages(majors_offered=offered), blind=blind)
    assert findings.majors(job).state == state


HERE = packages.Cluster(15, "main", 5432, True)
CURRENT = packages.Minor(15, 150014, 150014)


@pytest.mark.parametrize(
    ("target", "blind", "state"),
    [
        (minor.Target(server(), seen(), "", CURRENT, HERE), "", "ok"),
        (minor.Target(server(), seen(), "", CURRENT, HERE), "there are no package lists on the host", "unknown"),
        (minor.Target(server(), seen(), "", packages.Minor(15, 150014, 150014, refused="it would remove postgis"), HERE), "", "unknown"),
        (minor.Target(server(), seen()), "", "unknown"),
        (minor.Target(server(), seen()), "minor releases are planned with apt only, and this host has dnf", "unknown"),
        (minor.Target(server(), seen(), "", packages.Minor(15, 150014, 150015), HERE), "there are no package lists on the host", "ok"),
    ],
)
def test_a_server_is_not_called_ready_where_it_is_not_known_what_is_due(target, blind, state):
    job = minor.Job(params(), True, Host(), [target], packages.Packages(), [HERE], blind)
    assert findings.ready(job, target).state == state
    assert (findings.pending(job, target).state == "unknown") == (state == "unknown")
