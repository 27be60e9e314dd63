# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    apt_packages,
    security_files,
    security_review,
    security_updates,
)
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, address_of, filled, read_small

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
OFF = {"journal": "false", "updates": False, "accounts": False}


def parameters(**given):
    return filled({**security_review.OPTIONS, "state_dir": {"type": "path"}, "self_test": {"type": "bool"}}, given)


def reviewed(check_mode=False, **given):
    return security_review.run(parameters(**{**OFF, **given}), check_mode, Host())


def test_nothing_declared_is_unknown():
    outcome = reviewed()
    assert (outcome.state, outcome.findings[0].id) == ("unknown", "security.review")


def test_one_call_answers_every_question(tmp_path):
    log = tmp_path / "app.jsonl"
    log.write_text(json.dumps({"timestamp": Host().now().isoformat(), "event": "login_failed"}) + "\n")
    env = tmp_path / ".env"
    env.write_text("x")
    env.chmod(0o644)
    outcome = reviewed(
        self_test=True,
        state_dir=str(tmp_path / "state"),
        login_sources=[{"name": "app", "paths": [str(log)]}],
        files=[{"path": str(env), "mode": "0600", "correct": True}],
        certificates=[{"path": str(tmp_path / "absent.crt")}],
        accounts=True,
        sshd={"PermitRootLogin": "no"},
        listening=["tcp/22"],
    )
    ids = {finding.id for finding in outcome.findings}
    assert ids >= {
        "security.failed_logins",
        "security.file_mode",
        "security.certificate_expiry",
        "security.accounts",
        "security.sshd",
        "security.listening",
    }
    assert (outcome.status, len(outcome.actions)) == ("changed", 1)
    assert not any("self-test" in finding.summary for finding in outcome.findings)
    assert len(json.dumps(outcome.record())) < 65536


def test_check_mode_is_due_with_the_same_verdicts_and_no_trace(tmp_path):
    env = tmp_path / ".env"
    env.write_text("x")
    env.chmod(0o644)
    given = {"files": [{"path": str(env), "mode": "0600", "correct": True}], "accounts": True, "state_dir": str(tmp_path / "state")}
    preview = reviewed(check_mode=True, **given)
    assert preview.status == "due"
    assert preview.is_change
    assert sorted(os.listdir(tmp_path)) == [".env"]
    real = reviewed(**given)
    assert [(f.id, f.state) for f in preview.findings] == [(f.id, f.state) for f in real.findings]
    assert reviewed(**given).is_change is False


def test_all_wrong_input_is_said_at_once_and_nothing_is_changed(tmp_path):
    env = tmp_path / ".env"
    env.write_text("x")
    env.chmod(0o644)
    with pytest.raises(InputError) as refused:
        reviewed(
            days=-7,
            brute_force_failures=0,
            files=[{"path": str(env), "mode": "0600", "correct": True}, {"path": "b", "mode": "600"}],
            login_sources=[{"name": "a", "paths": ["x.log"], "failure_pattern": "(", "timezone": "Mars/Base"}],
            listening=["ssh"],
        )
    for part in ("days is -7", "brute_force_failures is 0", "'600'", "'b'", "'x.log'", "regular expression", "Mars/Base", "'ssh'"):
        assert part in str(refused.value)
    assert env.stat().st_mode & 0o777 == 0o644


def test_a_verifier_that_passes_the_bad_sample_makes_its_findings_unknown(tmp_path, monkeypatch):
    env = tmp_path / ".env"
    env.write_text("x")
    env.chmod(0o600)
    given = {"files": [{"path": str(env), "mode": "0600"}], "self_test": True}
    assert reviewed(**given).state == "ok"
    monkeypatch.setattr(security_files, "excess", lambda *_: 0)
    assert {finding.state for finding in reviewed(**given).findings} == {"unknown"}


def test_a_check_that_meets_an_error_is_unknown_and_the_others_go_on(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "lstat", fail)
    outcome = reviewed(world_writable_roots=[str(tmp_path)], listening=[])
    assert [finding.state for finding in outcome.findings if finding.id == "security.world_writable"] == ["unknown"]
    assert any(finding.id == "security.listening" for finding in outcome.findings)


def updates(count=0, days_old=0.1, archives=("Debian-Security:bookworm-security",), lists=True):
    named = apt_packages.Update("libsecurity-perl", "1", "2", ("Debian:bookworm",))  # ordinary, whatever its name
    fixed = [apt_packages.Update(f"p{i}", "1", "2", ("Debian-Security:bookworm-security",), "2", held=True) for i in range(count)]
    pending = apt_packages.Pending((named, *fixed), (), NOW - timedelta(days=days_old) if lists else None, archives)
    review = Review({"updates_max_age_days": 7}, Host(), True, NOW)
    return security_updates.verdict(review, pending)


def test_updates_are_counted_by_archive_and_never_by_name():
    """The document counts every line that holds the word, and prints 0 twice when none does."""
    found = updates(count=3)
    assert (found.state, found.value, found.evidence[0]) == ("warning", 3, "p0 1 -> 2 (held)")
    assert (updates().state, updates().value) == ("ok", 0)


def test_lists_that_are_old_or_absent_prove_nothing():
    assert (updates(days_old=2).state, updates(days_old=2).basis) == ("ok", "stale")
    assert (updates(days_old=8).state, updates(days_old=8).basis) == ("unknown", "stale")
    assert updates(count=1, days_old=8).state == "warning"
    assert updates(lists=False).state == "unknown"
    assert updates(archives=()).state == "unknown"


class NoPackages(Host):
    def which(self, _):
        return None


def test_a_host_without_a_package_manager_is_unknown():
    assert security_updates.look(Review({}, NoPackages(), True, NOW))[0].state == "unknown"


def test_the_self_test_of_updates_notices_a_blind_verifier(monkeypatch):
    review = Review({"updates_max_age_days": 7}, Host(), True, NOW)
    assert security_updates.passes_bad_sample(review) == ""
    monkeypatch.setattr(apt_packages, "update_of", lambda *_, **__: None)
    assert security_updates.passes_bad_sample(review)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:DB8::1]:80", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_addresses_have_one_form(text, address):
    assert address_of(text) == address


def test_small_files_are_read_and_pipes_do_not_block(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert read_small(str(tmp_path / "a")) == b"x"
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(Exception, match="expected a file"):
            read_small(str(tmp_path / name))


@pytest.mark.parametrize("option", ["login_sources", "api_sources", "firewall_logs"])
def test_what_is_kept_by_name_needs_a_name_of_its_own(option):
    """Two sources of one name would be compared with each other's past."""
    twins = [{"name": "edge", "paths": ["/var/log/a"]}, {"name": "edge", "paths": ["/var/log/b"]}]
    said = security_review.input_problems(parameters(**{option: twins}))
    assert said == [f"{option} names 'edge' twice, and what is seen of each is kept by its name; give each a name of its own."]
    assert security_review.input_problems(parameters(**{option: [twins[0], {**twins[1], "name": "inner"}]})) == []


@pytest.mark.parametrize("option", ["login_sources", "api_sources", "firewall_logs"])
def test_a_source_that_cannot_be_meant_is_refused(option):
    said = security_review.input_problems(parameters(**{option: [{"name": "edge", "paths": ["a.log"], "timezone": "Mars/Base"}]}))
    assert [("'a.log'" in said[0], "Mars/Base" in said[1], len(said))] == [(True, True, 2)]
