# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_files
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

UID, GID = str(os.geteuid()), str(os.getegid())


def reviewed(check_mode=False, **given):
    params = filled(security_files.OPTIONS, given)
    assert security_files.validate(params) == []
    review = Review(params, Host(), check_mode, Host().now())
    findings = {}
    for finding in security_files.look(review):
        findings.setdefault((finding.id, finding.subject), finding)
    return findings, review.actions


def made(path, mode, text="x"):
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize(
    ("mode", "state"), [(0o600, "ok"), (0o400, "ok"), (0o640, "warning"), (0o604, "critical"), (0o644, "critical"), (0o4600, "critical")]
)
def test_a_file_is_judged_by_the_mode_it_has(tmp_path, mode, state):
    path = made(tmp_path / "app.db", mode)
    findings, actions = reviewed(files=[{"path": path, "mode": "0600"}])
    assert findings["security.file_mode", path].state == state
    assert not actions


def test_everything_in_a_folder_is_judged_and_header_lines_do_not_exist(tmp_path):
    """The document's own check called every entry of the data folder good, whatever its mode."""
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    data.chmod(0o700)
    (data / "deep").chmod(0o755)
    made(data / "-rw-------", 0o644)
    made(data / "total 8\nname.env", 0o604)
    made(data / "closed", 0o600)
    findings, _actions = reviewed(files=[{"path": str(data), "kind": "directory", "mode": "0700", "recurse": True}])
    found = findings["security.file_mode", str(data)]
    assert (found.state, found.value) == ("critical", 3)
    assert any("total 8\\nname.env is 0604" in line for line in found.evidence)
    assert not any("closed" in line for line in found.evidence)


def test_a_missing_file_is_a_finding_unless_it_is_optional(tmp_path):
    path = str(tmp_path / ".env")
    findings, _actions = reviewed(files=[{"path": path, "mode": "0600"}])
    assert findings["security.file_missing", path].state == "critical"
    assert reviewed(files=[{"path": path, "mode": "0600", "optional": True}])[0] == {}


def test_what_sqlite_keeps_beside_the_database_is_judged_too(tmp_path):
    path = made(tmp_path / "app.db", 0o600)
    made(tmp_path / "app.db-wal", 0o644)
    findings, _actions = reviewed(files=[{"path": path, "mode": "0600", "sqlite": True}])
    assert findings["security.file_mode", path].state == "critical"
    assert reviewed(files=[{"path": path, "mode": "0600"}])[0]["security.file_mode", path].state == "ok"


def test_owner_and_group_are_judged(tmp_path):
    path = made(tmp_path / "app.db", 0o600)
    findings, _actions = reviewed(files=[{"path": path, "owner": str(int(UID) + 1), "group": GID}])
    assert findings["security.file_owner", path].state == "critical"
    findings, _actions = reviewed(files=[{"path": path, "owner": UID, "group": GID}])
    assert findings["security.file_owner", path].state == "ok"
    findings, _actions = reviewed(files=[{"path": path, "owner": "no-such-user-here"}])
    assert findings["security.file_mode", path].state == "unknown"


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_not_a_file_is_named_and_not_followed(tmp_path, kind):
    target = made(tmp_path / "real", 0o600)
    path = tmp_path / "declared"
    path.symlink_to(target) if kind == "link" else path.mkdir()
    findings, actions = reviewed(files=[{"path": str(path), "mode": "0600", "correct": True}])
    found = findings["security.file_mode", str(path)]
    assert found.state == "warning"
    assert ("symbolic link" if kind == "link" else "a folder") in found.summary
    assert not actions


def test_links_below_a_folder_are_not_followed_out_of_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    made(outside / "open", 0o666)
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "way-out").symlink_to(outside)
    item = {"path": str(data), "kind": "directory", "mode": "0700", "recurse": True, "correct": True}
    findings, actions = reviewed(files=[item], world_writable_roots=[str(data)])
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert not actions
    assert mode_of(outside / "open") == 0o666


def test_correction_happens_only_where_declared_and_once(tmp_path):
    path = made(tmp_path / ".env", 0o644)
    item = {"path": path, "mode": "0600", "correct": True}
    preview, due = reviewed(check_mode=True, files=[item])
    assert (due[0].status, mode_of(path)) == ("due", 0o644)
    findings, done = reviewed(files=[item])
    assert (done[0].status, mode_of(path)) == ("changed", 0o600)
    assert done[0].before[path].startswith("0644")
    assert done[0].after[path].startswith("0600")
    assert due[0].after == done[0].after
    # what was readable may have been read: the verdict is the one that check mode gave
    assert findings["security.file_mode", path].state == preview["security.file_mode", path].state == "critical"
    findings, actions = reviewed(files=[item])
    assert (findings["security.file_mode", path].state, actions) == ("ok", [])
    other = made(tmp_path / "other", 0o644)
    assert reviewed(files=[{"path": other, "mode": "0600"}])[1] == []
    assert mode_of(other) == 0o644


def test_a_file_with_a_second_name_is_not_corrected(tmp_path):
    path = made(tmp_path / ".env", 0o644)
    os.link(path, tmp_path / "another")
    _findings, actions = reviewed(files=[{"path": path, "mode": "0600", "correct": True}])
    assert (actions[0].status, mode_of(path)) == ("failed", 0o644)


def test_a_file_that_was_replaced_meanwhile_is_not_corrected(tmp_path):
    path = made(tmp_path / ".env", 0o644)
    before = os.lstat(path)
    os.rename(made(tmp_path / "new", 0o644), path)
    assert "replaced" in security_files._correct_one(path, security_files.Rule(0o600, None, None), before)
    assert mode_of(path) == 0o644


def test_doors_that_are_open_to_all_are_found(tmp_path):
    root = tmp_path / "root"
    (root / "sticky").mkdir(parents=True)
    (root / "sticky").chmod(0o1777)
    made(root / "closed", 0o640)
    findings, _actions = reviewed(world_writable_roots=[str(root)])
    assert findings["security.world_writable", str(root)].state == "ok"
    made(root / "open", 0o602)
    findings, _actions = reviewed(world_writable_roots=[str(root)])
    assert findings["security.world_writable", str(root)].state == "critical"
    findings, _actions = reviewed(world_writable_roots=[str(tmp_path / "absent")])
    assert findings["security.world_writable", str(tmp_path / "absent")].state == "unknown"


def test_a_folder_that_cannot_be_entered_is_unknown(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(data))

    monkeypatch.setattr(os, "fwalk", refuse)
    item = {"path": str(data), "kind": "directory", "mode": "0700", "recurse": True}
    findings, _actions = reviewed(files=[item], world_writable_roots=[str(data)])
    assert {finding.state for finding in findings.values()} == {"unknown"}
    assert all("become: true" in finding.not_covered for finding in findings.values())


def test_values_that_yaml_turned_into_numbers_are_refused():
    for mode in ("384", "420", "600", "rw-------", "-0600", "0888"):
        params = filled(security_files.OPTIONS, {"files": [{"path": "/a", "mode": mode}]})
        assert "in quotes" in security_files.validate(params)[0]
    params = filled(security_files.OPTIONS, {"files": [{"path": "relative"}], "world_writable_roots": ["x"]})
    assert len(security_files.validate(params)) == 3


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_files.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_files, "excess", lambda *_: 0)
    assert "0646" in security_files.passes_bad_sample(review)
