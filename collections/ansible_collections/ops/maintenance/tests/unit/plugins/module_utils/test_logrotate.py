# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What logrotate 3.21 of Debian says, and what a run of it must leave."""

from __future__ import annotations

import os
from datetime import datetime, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import logrotate
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError, VerifyError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran

DEBUG = """\
reading config file /etc/logrotate.conf
including /etc/logrotate.d
reading config file a
error: a:3 unknown option 'fooo' -- ignoring line
reading config file b
error: b:1 duplicate log entry for /var/log/app/a.log
error: found error in file b, skipping
Handling 4 logs

rotating pattern: /var/log/app/*.log  after 1 days (4 rotations)
considering log /var/log/app/a.log
error: skipping "/var/log/app/a.log" because parent directory has insecure permissions (It's world writable or writable by \
group which is not "root") Set "su" directive in config file to tell logrotate which user/group should be used for rotation.
considering log /var/log/web/b.log
  Now: 2026-11-21 09:46
  Last rotated at 2026-11-01 06:00
  log needs rotating
considering log /var/log/missing.log
error: stat of /var/log/missing.log failed: No such file or directory
error: b:1 duplicate log entry for /var/log/app/a.log
"""
CLEAN = "Handling 1 logs\nconsidering log {log}\n  log {word}\n"
STATE = 'logrotate state -- version 2\n"{log}" 2026-11-{day}-6:0:0\n'


class FakeHost(Host):
    """logrotate as it answers; a real run writes the state file."""

    def __init__(self, debug: str, state=None, installed: bool = True, works: bool = True) -> None:
        self.debug, self.state, self.installed, self.works, self.ran = debug, state, installed, works, []

    def which(self, name):
        return f"/usr/sbin/{name}" if self.installed else None

    def now(self):
        return datetime.now(timezone.utc)

    def run(self, argv, **_options):
        self.ran.append(list(argv))
        if "-d" not in argv and self.works:
            self.state.write_text(STATE.format(log="/var/log/b.log", day=21))
        return Ran(argv, int("error" in self.debug), "", self.debug)


@pytest.fixture
def params(tmp_path):
    config, state = tmp_path / "logrotate.conf", tmp_path / "status"
    config.write_text("weekly\n")
    state.write_text(STATE.format(log="/var/log/b.log", day=14))
    defaults = {name: option.get("default") for name, option in logrotate.OPTIONS.items()}
    common = {"deadline": 0.0, "state_dir": str(tmp_path / "state"), "self_test": False}
    return {**defaults, **common, "config": str(config), "state_file": str(state)}


def states(outcome):
    """What logrotate itself says; test_logrotate_lint.py has the rest."""
    own = ("logrotate.configuration", "logrotate.last_run")
    return {finding.id: finding.state for finding in outcome.findings if finding.id in own}


def test_what_logrotate_complains_of_is_read_not_its_exit_status():
    plan = logrotate.parse_debug(DEBUG)
    assert (plan.handled, plan.due) == (4, ["/var/log/web/b.log"])
    assert [error.split()[0] for error in plan.errors] == ["a:3", "b:1", "found", "skipping"]
    assert 'Set "su" directive' in plan.errors[3]


def test_what_the_newer_logrotate_only_warns_of_counts_too():
    said = (
        "warning: logrotate in debug mode does nothing except printing debug messages!  Consider using verbose mode (-v) instead.\n"
        "warning: zapp:3 unknown option 'fooo' -- ignoring line\nwarning: Potentially dangerous mode on zx: 0755\nHandling 3 logs\n"
    )
    assert logrotate.parse_debug(said).errors == ["zapp:3 unknown option 'fooo' -- ignoring line", "Potentially dangerous mode on zx: 0755"]


def test_the_whole_tree_is_linted_and_the_lint_proves_itself(params, tmp_path):
    log = tmp_path / "b.log"
    log.write_text("x")
    (tmp_path / "logrotate.conf").write_text(f"{log} {{\n daily\n}}\n{log} {{\n weekly\n}}\n")
    outcome = logrotate.run({**params, "self_test": True}, False, FakeHost("Handling 1 logs\n"))
    found = {finding.id: finding.state for finding in outcome.findings}
    assert (found["logrotate.claims"], found["logrotate.syntax"], found["logrotate.self_test"]) == ("warning", "ok", "ok")
    assert list((tmp_path / "state").iterdir()) == [tmp_path / "state" / logrotate.SIZES]


def test_a_state_file_with_impossible_dates_is_no_reason_to_fail(params, tmp_path):
    (tmp_path / "status").write_text('logrotate state -- version 2\n"/a" 2026-13-45-99:0:0\n')
    assert logrotate.run(params, True, FakeHost("Handling 1 logs\n")).status == "ok"
    assert not (tmp_path / "state").exists()


def test_the_state_file():
    text = 'logrotate state -- version 2\n"/var/log/a \\"b\\".log" 2026-11-20-6:5:4\n"/c" 2026-1-2\n'
    assert logrotate.parse_state(text) == {'/var/log/a "b".log': "2026-11-20T06:05:04", "/c": "2026-01-02T00:00:00"}
    with pytest.raises(MaintenanceError, match="does not begin as one"):
        logrotate.parse_state("nonsense")


def test_a_sound_configuration_that_ran_today(params):
    outcome = logrotate.run(params, False, FakeHost(CLEAN.format(log="/var/log/b.log", word="does not need rotating")))
    assert (states(outcome), outcome.status) == ({"logrotate.configuration": "ok", "logrotate.last_run": "ok"}, "ok")


def test_faults_are_warnings_and_an_old_run_too(params):
    os.utime(params["state_file"], (0, 0))
    outcome = logrotate.run(params, False, FakeHost(DEBUG))
    assert states(outcome) == {"logrotate.configuration": "warning", "logrotate.last_run": "warning"}


def test_it_runs_only_when_asked_and_due_and_the_state_file_must_show_it(params, tmp_path):
    due = CLEAN.format(log="/var/log/b.log", word="needs rotating")
    state = tmp_path / "status"
    assert not logrotate.run(params, False, FakeHost(due, state)).is_change
    params["run_when_due"] = True
    planned = FakeHost(due, state)
    assert (logrotate.run(params, True, planned).status, len(planned.ran)) == ("due", 1)
    done = logrotate.run(params, False, FakeHost(due, state))
    assert (done.status, done.before, done.after) == (
        "changed",
        {"/var/log/b.log": "2026-11-14T06:00:00"},
        {"/var/log/b.log": "2026-11-21T06:00:00"},
    )
    state.write_text(STATE.format(log="/var/log/b.log", day=14))
    with pytest.raises(VerifyError, match="does not show"):
        logrotate.run(params, False, FakeHost(due, state, works=False))
    params["deadline"] = 1.0
    assert logrotate.run(params, False, FakeHost(due, state)).status == "deferred"


def test_absent_is_unknown_unless_none_is_expected(params):
    assert states(logrotate.run(params, False, FakeHost("", installed=False))) == {"logrotate.configuration": "unknown"}
    params["expected"] = False
    assert states(logrotate.run(params, False, FakeHost("", installed=False))) == {"logrotate.configuration": "ok"}


def test_no_state_file_and_no_logs_are_unknown(params):
    os.unlink(params["state_file"])
    outcome = logrotate.run(params, False, FakeHost("Handling 0 logs\n"))
    assert states(outcome) == {"logrotate.configuration": "unknown", "logrotate.last_run": "unknown"}


def test_a_configuration_that_is_not_there(params):
    with pytest.raises(InputError, match="main configuration file"):
        logrotate.run({**params, "config": "/nowhere"}, False, FakeHost(""))
