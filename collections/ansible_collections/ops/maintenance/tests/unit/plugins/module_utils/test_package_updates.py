# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what the scope takes, what holds and conflicts leave out, and what is not known."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import apt_packages as apt
from ansible_collections.ops.maintenance.plugins.module_utils import package_findings, package_plan
from ansible_collections.ops.maintenance.plugins.module_utils import package_updates as updates
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
SECURITY = ("Debian-Security:bookworm-security",)


def update(name: str, security: str = "", candidate: str = "2", **more) -> apt.Update:
    return apt.Update(name, "1", candidate, SECURITY if security else ("Debian:bookworm",), security, **more)


def pending(*found: apt.Update, as_of: datetime | None = NOW, security=SECURITY, held=(), problem="") -> apt.Pending:
    return apt.Pending(tuple(found), tuple(held), as_of, tuple(security), problem)


class Manager:
    """A package manager that refuses what the test says and pulls in what the test says."""

    name = "apt"

    def __init__(self, refuses=(), pulls=(), removes=()):
        self.refuses, self.pulls, self.removes = set(refuses), tuple(pulls), tuple(removes)

    def rehearse(self, specs):
        names = {spec.split("=")[0] for spec in specs}
        if names & self.refuses:
            return apt.Simulation((), "apt-get ended with 100: E: Unable to correct problems")
        steps = [apt.Step("Inst", spec.split("=")[0], "1", spec.split("=")[1], ()) for spec in specs]
        steps += [apt.Step("Inst", name, old, new, ()) for name, old, new in self.pulls]
        return apt.Simulation((*steps, *(apt.Step("Remv", name, "1", "", ()) for name in self.removes)))

    @contextlib.contextmanager
    def private(self):
        yield


def plan(found: apt.Pending, manager=None, **params) -> package_plan.Plan:
    return package_plan.make_plan(found, {"scope": "security", "packages": [], "hold": [], **params}, manager or Manager())


def specs(made: package_plan.Plan) -> list[str]:
    return [item.spec for item in made.wanted]


MIXED = pending(update("openssl", "1.1", "1.1"), update("libsecurity-foo"), update("both", "1.5", "2"))


def test_security_scope_takes_security_versions_only_and_not_beyond():
    assert specs(plan(MIXED)) == ["openssl=1.1", "both=1.5"]


def test_scope_all_and_listed():
    assert specs(plan(MIXED, scope="all")) == ["openssl=1.1", "libsecurity-foo=2", "both=2"]
    assert specs(plan(MIXED, scope="listed", packages=["libsecurity-foo"])) == ["libsecurity-foo=2"]


def test_holds_of_dpkg_and_of_the_inventory_are_left_out_and_named():
    made = plan(pending(update("a", "2"), update("b", "2", held=True), update("postgresql-15", "2")), hold=["postgresql-*"])
    assert specs(made) == ["a=2"]
    assert made.held == ("b", "postgresql-15")


def test_what_cannot_be_installed_is_found_among_many_and_named_with_the_reason():
    found = pending(*(update(f"p{number}", "2") for number in range(20)))
    made = plan(found, Manager(refuses=["p13"]))
    assert len(made.wanted) == 19
    assert list(made.blocked or {}) == ["p13"]
    assert "Unable to correct" in (made.blocked or {})["p13"]


def test_plan_that_would_remove_a_package_is_refused():
    made = plan(pending(update("a", "2")), Manager(removes=["nginx"]))
    assert specs(made) == []
    assert "nginx" in (made.blocked or {})["a"]


def test_dependency_on_a_held_package_blocks_and_a_free_one_is_part_of_the_plan():
    blocked = plan(pending(update("a", "2")), Manager(pulls=[("libheld", "1", "2")]), hold=["libheld"])
    assert "libheld" in (blocked.blocked or {})["a"]
    free = plan(pending(update("a", "2")), Manager(pulls=[("linux-image-9", "", "9.1")]))
    assert [(item.name, item.installed, item.dependency) for item in free.pulled] == [("linux-image-9", "", True)]


def test_no_update_is_ok_only_with_fresh_lists_and_a_security_archive():
    assert package_findings.pending_finding(pending(), fresh=True).state == "ok"
    assert package_findings.pending_finding(pending(), fresh=False).state == "unknown"
    assert package_findings.pending_finding(pending(security=()), fresh=True).state == "unknown"
    assert package_findings.pending_finding(pending(as_of=None), fresh=True).state == "unknown"


def test_security_updates_on_old_lists_are_still_reported_and_called_stale():
    finding = package_findings.pending_finding(pending(update("a", "2")), fresh=False)
    assert (finding.state, finding.value, finding.basis, finding.as_of) == ("warning", 1, "stale", NOW.isoformat())


PARAMS = {"scope": "security", "packages": [], "hold": [], "refresh": True, "stale_after_days": 2,
          "lock_timeout_seconds": 1, "minimum_seconds": 600}  # fmt: skip


def test_failed_refresh_is_unknown():
    finding = package_findings.refresh_finding(pending(), "Err:1 http://h unreachable", NOW, PARAMS)
    assert finding.state == "unknown"
    assert "unreachable" in finding.summary


@pytest.mark.parametrize(("days", "state"), [(1, "ok"), (3, "unknown")])
def test_lists_that_were_not_refreshed_are_believed_while_young(days, state):
    finding = package_findings.refresh_finding(pending(), "", NOW + timedelta(days=days), {**PARAMS, "refresh": False})
    assert finding.state == state


@pytest.mark.parametrize(
    ("rc", "said", "fails"),
    [
        (0, "Hit:1 http://h x InRelease\nReading package lists...", False),
        (0, "Err:1 http://h x InRelease\n  Could not connect\nW: Some index files failed to download.", True),
        (0, "W: Failed to fetch http://h/x  Could not resolve 'h'", True),
        (0, "W: GPG error: http://h x InRelease: NO_PUBKEY", True),
        (0, "W: http://h: Key is stored in legacy trusted.gpg keyring", False),
        (100, "E: Could not get lock /var/lib/apt/lists/lock", True),
        (100, "", True),
    ],
)
def test_refresh_that_ends_with_0_but_says_that_it_failed_has_failed(rc, said, fails):
    assert bool(apt.refresh_problem(rc, said)) is fails


@pytest.mark.parametrize(
    "bad",
    [
        {"scope": "listed"},
        {"stale_after_days": -1},
        {"hold": ["--force"]},
        {"packages": ["a b"]},
        {"hold": [""]},
    ],
)
def test_senseless_input_is_refused(bad):
    with pytest.raises(InputError):
        updates.check_params({**PARAMS, **bad})


def test_all_problems_of_the_input_come_at_once():
    with pytest.raises(InputError) as caught:
        updates.check_params({**PARAMS, "stale_after_days": -1, "lock_timeout_seconds": -5, "hold": ["-o"]})
    assert all(text in str(caught.value) for text in ("stale_after_days", "lock_timeout_seconds", "'-o'"))


def test_many_planned_packages_stay_within_a_record():
    many = package_plan.Plan(tuple(package_plan.Planned(f"p{n}", "1", "2", True, SECURITY) for n in range(3000)))
    actions = updates.plan_actions(many, "due")
    assert len(actions) == updates.ACTIONS_LIMIT + 1
    assert "2900 more" in actions[-1].summary


def test_classifier_proves_itself():
    assert updates.self_test_problem() == ""


# Blocklist, pins, phases, what is left for another run


def offered(name: str, *offers: tuple[str, bool], **more) -> apt.Update:
    security = next((version for version, is_security in offers if is_security), "")
    return apt.Update(name, "1", offers[0][0], SECURITY, security, offers=offers, **more)


def test_pin_takes_the_newest_version_below_it_and_names_itself_where_there_is_none():
    found = pending(offered("db", ("16.1", True), ("15.6", True), ("15.5", False)))
    assert specs(plan(found)) == ["db=16.1"]
    assert specs(plan(found, pins={"db": "15"})) == ["db=15.6"]
    assert plan(found, pins={"d*": "14"}).left == {"db": "pinned to 14"}
    assert specs(plan(found, scope="all", blocklist=["db=16.*", "db=15.6"])) == ["db=15.5"]


def test_blocklisted_package_is_neither_updated_nor_pulled_in():
    assert plan(pending(update("a", "2")), blocklist=["a"]).left == {"a": "on the blocklist"}
    made = plan(pending(update("a", "2")), Manager(pulls=[("telemetry", "", "1")]), blocklist=["telemetry"])
    assert made.left == {"a": "needs telemetry, which is on the blocklist"}
    passed = plan(pending(update("a", "2")), Manager(pulls=[("libdb", "1", "16")]), pins={"libdb": "15"})
    assert passed.left == {"a": "needs libdb 16: pinned to 15"}


def test_package_that_only_dpkg_holds_is_not_changed_by_another_one():
    made = plan(pending(update("a", "2"), held=["libheld"]), Manager(pulls=[("libheld", "1", "2")]))
    assert made.left == {"a": "needs the held libheld"}


def test_hold_of_a_name_counts_for_a_foreign_architecture_too():
    assert plan(pending(update("libc6:i386", "2")), hold=["libc6"]).left == {"libc6:i386": "held"}


def test_new_packages_come_only_where_they_may():
    manager = Manager(pulls=[("linux-image-9", "", "9")])
    assert plan(pending(update("a", "2")), manager, new_packages=False).left == {"a": "needs the new package linux-image-9"}


@pytest.mark.parametrize(("kept_back", "phased", "taken"), [(True, 10, False), (False, 10, True), (True, 100, True)])
def test_phased_update_waits_only_where_apt_itself_keeps_it_back(kept_back, phased, taken):
    found = pending(offered("a", ("2", False), kept_back=kept_back, phased=phased))
    made = plan(found, scope="all")
    assert bool(made.wanted) is taken
    assert ("a" in made.waiting) is not taken


def test_postponed_updates_wait_with_the_reason_and_are_not_called_blocked():
    found = pending(update("a", "2"), update("b", "2"))
    made = package_plan.make_plan(found, {"scope": "security", "packages": [], "hold": []}, Manager(), {"b": "low"})
    assert (specs(made), made.left) == (["a=2"], {"b": "low"})
    assert package_findings.blocked_finding(made, found).state == "ok"


def test_pending_finding_says_why_each_is_still_pending():
    found = package_findings.pending_finding(pending(update("a", "2"), update("b", "2", held=True)), True, {"a": "pinned to 1"})
    assert found.evidence == ["a 1 -> 2 (pinned to 1)", "b 1 -> 2 (held)"]


@pytest.mark.parametrize(
    "bad", [{"pins": {"a": 15}}, {"pins": {"a": "*"}}, {"pins": {"-a": "1"}}, {"blocklist": ["=1"]}, {"blocklist": ["a b"]}]
)
def test_senseless_rules_are_refused(bad):
    assert len(package_plan.input_problems({**PARAMS, **bad})) == 1


def test_only_what_was_approved_is_planned_in_the_approved_version():
    """flow-monthly-1: the literal apt upgrade takes everything, reviewed or not."""
    found = pending(update("openssl", "1.1", "1.1"), update("bash", "1.2", "1.2"), update("docker-ce", "1.3", "1.3"))
    made = plan(found, approval_required=True, approved=["openssl", "bash=1.1"])
    assert specs(made) == ["openssl=1.1"]
    assert made.left == {"bash": "1.2 is not approved", "docker-ce": "1.3 is not approved"}
    assert specs(plan(found, approval_required=True)) == []
    assert len(specs(plan(found, approved=["openssl"]))) == 3


def test_unapproved_update_does_not_come_along_with_an_approved_one():
    made = plan(MIXED, Manager(pulls=[("libc6", "1", "2")]), approval_required=True, approved=["openssl"])
    assert made.blocked == {"openssl": "needs libc6: 2 is not approved"}
    new = plan(MIXED, Manager(pulls=[("linux-image-6.1.0-40", "", "2")]), approval_required=True, approved=["openssl"])
    assert specs(new) == ["openssl=1.1"]


def test_package_that_another_step_updates_is_neither_planned_nor_pulled_in():
    said = {"both": "left to the update of PostgreSQL", "server": "left to the update of PostgreSQL"}
    made = plan(MIXED, elsewhere=said)
    assert specs(made) == ["openssl=1.1"]
    assert (made.held, made.left) == ((), {"both": said["both"]})
    assert "both" in plan(pending(update("both", "1.5", "2", held=True)), elsewhere=said).waiting
    assert specs(plan(MIXED, Manager(pulls=[("server", "", "2")]), elsewhere=said)) == []


def test_scope_none_plans_nothing_although_something_is_pending():
    assert plan(MIXED, scope="none") == package_plan.Plan(blocked={})
