"""A real journald of the host, started here, with a journal of its own in the container."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import journald_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

FOLDER = Path(journald_upkeep.PERSISTENT)
DROP_INS = Path("/etc/systemd/journald.conf.d")


@pytest.fixture
def journal(request):
    """A running journald; the test may ask for a volatile one."""
    for folder in (FOLDER, Path(journald_upkeep.VOLATILE)):
        shutil.rmtree(folder, ignore_errors=True)
    Path("/run/systemd/journal").mkdir(parents=True, exist_ok=True)
    if getattr(request, "param", "") == "volatile":
        DROP_INS.mkdir()
        (DROP_INS / "10-volatile.conf").write_text("[Journal]\nStorage=volatile\n")
    else:
        FOLDER.mkdir(parents=True)
    daemon = subprocess.Popen(["/lib/systemd/systemd-journald"], stderr=subprocess.DEVNULL)
    wait_for(lambda: Path("/run/systemd/journal/stdout").exists() and journald_upkeep.journal_files())
    if FOLDER.exists():
        journalctl("--flush")
    write("a line")
    yield daemon
    daemon.terminate()
    daemon.wait()
    shutil.rmtree(DROP_INS, ignore_errors=True)
    Path("/run/systemd/journal/stdout").unlink(missing_ok=True)


def wait_for(is_so):
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_so()


def journalctl(*arguments):
    return subprocess.run(["journalctl", *arguments], check=True, capture_output=True, text=True).stdout


def write(text):
    subprocess.run(["systemd-cat", "-t", "planted"], input=text.encode(), check=True)
    journalctl("--sync")


def params(**changes):
    return {**{name: option.get("default") for name, option in journald_upkeep.OPTIONS.items()}, "deadline": 0.0, **changes}


def faults(outcome):
    return {finding.id: finding for finding in outcome.findings if finding.state != "ok"}


def archived():
    return [one for one in journald_upkeep.journal_files() if one.begun is not None]


def test_a_sound_journal_is_silent_and_measured(journal):
    outcome = journald_upkeep.run(params(), False, Host())
    assert (faults(outcome), outcome.status) == ({}, "ok")
    assert outcome.metrics[0].value > 0
    assert "on disk and reaches back 0.0 days" in outcome.findings[0].summary


@pytest.mark.parametrize("journal", ["volatile"], indirect=True)
def test_a_volatile_journal_is_a_warning(journal):
    outcome = journald_upkeep.run(params(), False, Host())
    assert "gone after a reboot" in faults(outcome)["journald.persistence"].summary
    assert "journald.persistence" not in faults(journald_upkeep.run(params(persistent=False), False, Host()))


def test_reach_and_limits(journal):
    DROP_INS.mkdir()
    (DROP_INS / "50-large.conf").write_text("[Journal]\nSystemMaxUse=9G\n")
    outcome = journald_upkeep.run(params(reach_days=7, max_use_mb=500), True, Host())
    assert sorted(faults(outcome)) == ["journald.limits", "journald.persistence"]
    assert "50-large.conf" in faults(outcome)["journald.limits"].evidence[0]
    (DROP_INS / "60-small.conf").write_text("[Journal]\nSystemMaxUse=400M\n")
    assert faults(journald_upkeep.run(params(max_use_mb=500), True, Host())) == {}


def test_vacuum_removes_archived_files_only_and_not_in_check_mode(journal):
    journalctl("--rotate")
    write("after the rotation")
    assert len(archived()) == 1
    wanted = params(vacuum_size_mb=1)
    planned = journald_upkeep.run(wanted, True, Host())
    assert (planned.status, len(archived())) == ("due", 1)
    done = journald_upkeep.run(wanted, False, Host())
    assert (done.status, archived(), done.actions[0].before["archived"]) == ("changed", [], 1)
    assert done.before["used_bytes"] > done.after["used_bytes"]
    assert "after the rotation" in journalctl("--no-pager")
    again = journald_upkeep.run(wanted, False, Host())
    assert (again.status, sorted(faults(again))) == ("ok", ["journald.usage"]), "files in use stay, and that they are too large is said"


def test_vacuum_by_age_after_rotation(journal):
    journalctl("--rotate")
    [old] = archived()
    begun = f"{int((time.time() - 40 * 86400) * 1e6):016x}"
    Path(old.path).rename(f"{old.path.rpartition('-')[0]}-{begun}.journal")
    assert journald_upkeep.run(params(vacuum_days=60), False, Host()).status == "ok"
    assert journald_upkeep.run(params(vacuum_days=30), False, Host()).status == "changed"
    assert archived() == []


def test_rotation_first_lets_go_of_files_in_use_too_once(journal):
    wanted = params(vacuum_size_mb=1, rotate_first=True)
    assert journald_upkeep.run(wanted, False, Host()).status == "ok", "a fresh file cannot become smaller"
    write("".join(f"{os.urandom(20_000).hex()}\n" for _line in range(250)))
    assert journald_upkeep.run(params(vacuum_size_mb=1), False, Host()).status == "ok", "it is in use"
    outcome = journald_upkeep.run(wanted, False, Host())
    assert (outcome.status, "a line" in journalctl("--no-pager")) == ("changed", False)
    assert outcome.before["used_bytes"] > outcome.after["used_bytes"]
    assert journald_upkeep.run(wanted, False, Host()).status == "ok"


def test_a_damaged_file_is_found(journal):
    write("a needle in the journal")
    journalctl("--rotate")
    [old] = archived()
    data = Path(old.path).read_bytes()
    at = data.index(b"a needle in the journal")
    Path(old.path).write_bytes(data[:at] + b"A NEEDLE" + data[at + 8 :])
    found = faults(journald_upkeep.run(params(), False, Host()))
    assert list(found) == ["journald.verify"]
    assert old.path in found["journald.verify"].evidence[0]
