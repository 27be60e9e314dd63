"""Security updates are installed and nothing else, by archive, around a hold, a changed file, a lock and a broken script."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
import testinfra
from helpers import findings, of_kind, runs

testinfra_hosts = ["whole"]
WHOLE = ("patching-bookworm", "patching-trixie")
HOSTS = (*WHOLE, "patching-broken", "patching-regression", "patching-stubborn", "patching-clean")
CHECK, CONVERGE, AGAIN = 0, 1, -1
RUN_ONLY = {"patching.lock"}
"""Check mode refreshes a copy of the package lists, for which it needs no lock."""


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("demo-tls", "1.1"),
        ("demo-conf", "1.1"),
        ("demo-both", "1.1"),  # a newer ordinary version exists
        ("demo-tool", "1.0"),  # ordinary
        ("libsecurity-foo", "1.0"),  # ordinary, whatever its name
        ("demo-held", "1.0"),
        ("demo-kept", "1.0"),  # its update would remove demo-tool
    ],
)
def test_version(host, package, version):
    assert host.package(package).version == version


def test_service_runs_again_in_its_old_version():
    regression = testinfra.get_host("docker://patching-regression")
    assert regression.package("demo-service").version == "1.0"
    assert regression.package("demo-tls").version == "1.1"  # not to blame, so its fix stays
    assert regression.service("demo-service").is_running


def test_changed_configuration_file_stays_and_the_new_one_is_reported(host):
    assert host.file("/etc/demo-conf/demo-conf.conf").content_string == "setting = ours\n"
    found = findings("patching.conffiles", host=name_of(host), journal=runs()[CONVERGE])
    assert found[-1]["evidence"] == ["/etc/demo-conf/demo-conf.conf.dpkg-dist"]


def name_of(host) -> str:
    return host.backend.get_hostname()


def records(host: str, run: int) -> list[dict]:
    return of_kind("record", runs()[run], host=host)


def actions(host: str, run: int) -> list[tuple[str, str, str]]:
    return [(a["operation"], a["subject"], a["status"]) for record in records(host, run) for a in record["actions"]]


def states(host: str, run: int, finding_id: str) -> list[str]:
    return [found["state"] for found in findings(finding_id, host=host, journal=runs()[run])]


@pytest.mark.parametrize("name", WHOLE)
def test_check_mode_planned_what_was_then_done(name):
    planned = {subject for operation, subject, status in actions(name, CHECK) if (operation, status) == ("upgrade", "due")}
    done = {subject for operation, subject, status in actions(name, CONVERGE) if (operation, status) == ("upgrade", "changed")}
    assert planned == done == {"demo-tls", "demo-conf", "demo-both"}


def before_any_change(host: str, run: int) -> list[tuple]:
    """Return what a run said of a host before it changed anything: all that its plan found."""
    plan = next(record for record in records(host, run) if record["task"] == "Assess | Plan the package updates")
    fields = ("id", "subject", "state", "value", "unit", "threshold", "summary", "not_covered")
    return sorted(tuple(str(one[field]) for field in fields) for one in plan["findings"] if one["id"] not in RUN_ONLY)


@pytest.mark.parametrize("name", HOSTS)
def test_check_mode_gave_the_same_verdicts(name):
    assert before_any_change(name, CHECK) == before_any_change(name, CONVERGE)
    assert len(before_any_change(name, CHECK)) >= 12


@pytest.mark.parametrize("name", WHOLE)
def test_pending_before_and_only_the_held_one_after(name):
    pending = findings("patching.pending", host=name, journal=runs()[CONVERGE])
    assert [found["value"] for found in pending] == [5, 2]
    assert pending[-1]["evidence"] == ["demo-held 1.0 -> 1.1 (held)", "demo-kept 1.0 -> 1.1 (would remove demo-tool)"]
    assert states(name, CONVERGE, "patching.held") == ["warning"]


@pytest.mark.parametrize("name", WHOLE)
def test_services_on_a_replaced_library_were_restarted(name):
    assert ("restart", "cron.service", "changed") in actions(name, CONVERGE)


@pytest.mark.parametrize("name", WHOLE)
def test_services_that_may_not_be_restarted_were_left_and_named(name):
    delicate = {"dbus.service", "systemd-logind.service"}
    assert delicate.isdisjoint(subject for operation, subject, _status in actions(name, CONVERGE) if operation == "restart")
    _plan, after_restarts, *_later = found(name, CONVERGE, "patching.services")
    assert delicate <= {line.split(":")[0] for line in after_restarts["evidence"]}


def test_one_host_has_needrestart_and_one_has_not(host):
    asked = any(line.startswith("needrestart:") for line in found(name_of(host), CONVERGE, "patching.reboot")[0]["evidence"])
    assert host.exists("needrestart") == asked == (name_of(host) == "patching-bookworm")


@pytest.mark.parametrize("name", WHOLE)
def test_reboot_was_the_last_step_and_is_proven(name):
    assert actions(name, CONVERGE)[-1] == ("reboot", "host", "changed")
    assert states(name, CONVERGE, "patching.reboot")[-1] == "ok"


def test_boot_id_is_another_one_after_the_reboot(host):
    done = [action for record in records(name_of(host), CONVERGE) for action in record["actions"]]
    [reboot] = [action for action in done if (action["operation"], action["status"]) == ("reboot", "changed")]
    before, after = (reboot[when]["boot"].split("/")[0] for when in ("before", "after"))
    of_the_machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len({before, after, of_the_machine}) == 3
    assert host.check_output("cat /proc/sys/kernel/random/boot_id") == after


def test_host_that_took_the_order_to_reboot_and_stayed_up_is_told_as_not_rebooted():
    done = [action for record in records("patching-stubborn", CONVERGE) for action in record["actions"] if action["operation"] == "reboot"]
    assert [action["status"] for action in done] == ["due", "due", "failed"]
    assert done[-1]["summary"] == "The host was not rebooted: its boot id is the same."
    assert set(states("patching-stubborn", CONVERGE, "patching.reboot")) == {"warning"}
    assert records("patching-stubborn", CONVERGE)[-1]["status"] == "failed"


@pytest.mark.parametrize("name", WHOLE)
def test_second_run_had_nothing_to_do(name):
    assert actions(name, AGAIN) == []


def test_broken_package_is_named_and_stays_critical():
    failed = [action for action in actions("patching-broken", CONVERGE) if action[2] == "failed"]
    assert failed == [("upgrade", "demo-broken", "failed")]
    assert states("patching-broken", AGAIN, "patching.broken") == ["critical"] * len(states("patching-broken", AGAIN, "patching.broken"))
    assert states("patching-broken", AGAIN, "patching.broken")


def found(host: str, run: int, finding_id: str) -> list[dict]:
    return findings(finding_id, host=host, journal=runs()[run])


@pytest.mark.parametrize("name", WHOLE)
def test_what_would_remove_a_package_is_kept_back_with_the_reason(name):
    assert found(name, CONVERGE, "patching.blocked")[0]["evidence"] == ["demo-kept: would remove demo-tool"]


@pytest.mark.parametrize("name", WHOLE)
def test_update_that_waited_too_long_was_overdue_and_is_not_any_more(name):
    first = found(name, CONVERGE, "patching.overdue")[0]
    assert (first["state"], first["value"]) == ("critical", 1)
    assert first["evidence"][0].startswith("demo-tls 1.0 -> 1.1: high (not known, treated as high), to be had since 2026-01-01")
    assert found(name, AGAIN, "patching.overdue")[0]["state"] == "ok"


@pytest.mark.parametrize("name", WHOLE)
def test_lock_was_awaited_and_its_holder_named(name):
    assert any("python3" in one["summary"] and "held the lock" in one["summary"] for one in found(name, CONVERGE, "patching.lock"))


@pytest.mark.parametrize("name", WHOLE)
def test_archives_lay_in_the_cache_before_the_installation_which_had_nothing_left_to_fetch(name):
    (fetched,) = of_kind("record", runs()[CONVERGE], host=name, task="Apply | Fetch the planned packages")
    assert [(action["operation"], action["status"]) for action in fetched["actions"]] == [("download", "changed")]
    (ready,) = of_kind("record", runs()[CONVERGE], host=name, task="Apply | Make the host ready")
    assert ready["actions"] == []
    archives = " ".join(f"/var/cache/apt/archives/{package}_1.1_all.deb" for package in ("demo-tls", "demo-conf", "demo-both"))
    came = testinfra.get_host(f"docker://{name}").check_output(f"stat -c %Z {archives}").split()
    assert max(map(int, came)) <= datetime.fromisoformat(ready["started"]).timestamp()


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_works_worse_than_before_neither_after_the_update_nor_after_the_reboot(name):
    assert [one["state"] for one in found(name, CONVERGE, "patching.regression")] == ["ok", "ok"]


def test_half_done_package_was_repaired_first_and_it_is_recorded():
    done = [status for operation, _subject, status in actions("patching-regression", CONVERGE) if operation == "configure"]
    assert done == ["due", "changed"]
    assert [one["state"] for one in found("patching-regression", CONVERGE, "patching.interrupted")] == ["critical", "ok"]


def test_service_that_died_of_its_update_is_named_with_its_package_and_the_way_back():
    (regression,) = found("patching-regression", CONVERGE, "patching.regression")
    assert regression["state"] == "critical"
    assert "demo-service is the likely cause" in regression["summary"]
    assert any("demo-service.service" in line for line in regression["evidence"])
    assert "demo-service=1.0" in regression["advice"]


def test_old_version_came_back_and_the_host_was_not_rebooted_as_if_all_were_well():
    done = actions("patching-regression", CONVERGE)
    assert ("downgrade", "demo-service", "changed") in done
    assert ("compare", "host", "changed") in done
    assert not [one for one in done if one[0] == "reboot" and one[2] == "changed"]


def test_clean_host_has_no_finding_and_nothing_to_do():
    for run in (CHECK, CONVERGE, AGAIN):
        own = [one for one in findings(host="patching-clean", journal=runs()[run]) if one["id"].startswith("patching.")]
        assert len(own) >= 12
        assert [(one["id"], one["summary"]) for one in own if one["state"] != "ok"] == []
        assert actions("patching-clean", run) == []
