"""Security updates are installed and nothing else, by archive, around a hold, a changed file, a lock and a broken script."""

from __future__ import annotations

import pytest
from helpers import findings, of_kind, runs

testinfra_hosts = ["all"]
WHOLE = ("patching-bookworm", "patching-trixie")
CHECK, CONVERGE, AGAIN = 0, 1, -1


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("demo-tls", "1.1"),
        ("demo-conf", "1.1"),
        ("demo-both", "1.1"),  # a newer ordinary version exists
        ("demo-tool", "1.0"),  # ordinary
        ("libsecurity-foo", "1.0"),  # ordinary, whatever its name
        ("demo-held", "1.0"),
    ],
)
def test_version(host, package, version):
    assert host.package(package).version == version


def test_changed_configuration_file_stays_and_the_new_one_is_reported(host):
    assert host.file("/etc/demo-conf/demo-conf.conf").content_string == "setting = ours\n"
    name = host.backend.get_hostname()
    found = findings("patching.conffiles", host=name, journal=runs()[CONVERGE])
    assert found[-1]["evidence"] == ["/etc/demo-conf/demo-conf.conf.dpkg-dist"]


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


@pytest.mark.parametrize("name", WHOLE)
def test_pending_before_and_only_the_held_one_after(name):
    pending = findings("patching.pending", host=name, journal=runs()[CONVERGE])
    assert [found["value"] for found in pending] == [4, 1]
    assert pending[-1]["evidence"] == ["demo-held 1.0 -> 1.1 (held)"]
    assert states(name, CONVERGE, "patching.held") == ["warning"]


@pytest.mark.parametrize("name", WHOLE)
def test_services_on_a_replaced_library_were_restarted(name):
    assert ("restart", "cron.service", "changed") in actions(name, CONVERGE)


@pytest.mark.parametrize("name", WHOLE)
def test_reboot_was_the_last_step_and_is_proven(name):
    assert actions(name, CONVERGE)[-1] == ("reboot", "host", "changed")
    assert states(name, CONVERGE, "patching.reboot")[-1] == "ok"


@pytest.mark.parametrize("name", WHOLE)
def test_second_run_had_nothing_to_do(name):
    assert actions(name, AGAIN) == []


def test_broken_package_is_named_and_stays_critical():
    failed = [action for action in actions("patching-broken", CONVERGE) if action[2] == "failed"]
    assert failed == [("upgrade", "demo-broken", "failed")]
    assert states("patching-broken", AGAIN, "patching.broken") == ["critical"] * len(states("patching-broken", AGAIN, "patching.broken"))
    assert states("patching-broken", AGAIN, "patching.broken")
