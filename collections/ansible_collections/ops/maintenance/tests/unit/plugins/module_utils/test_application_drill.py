# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import os
import pwd
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import application_tree as tree
from ansible_collections.ops.maintenance.plugins.module_utils import application_unit as unit
from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification as verification
from ansible_collections.ops.maintenance.plugins.module_utils.backup_sets import Backup, File
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)


class FrozenHost(Host):
    """A host whose clock stands still."""

    def now(self):
        return NOW

    def sleep(self, _seconds):
        pass


def filled(options, given):
    """Fill in defaults as AnsibleModule does."""
    assert not set(given) - set(options), set(given) - set(options)
    full = {}
    for name, spec in options.items():
        value = given.get(name, spec.get("default"))
        if value is not None and "options" in spec:
            value = [filled(spec["options"], item) for item in value] if spec["type"] == "list" else filled(spec["options"], value)
        full[name] = value
    return full


def archive(path, files, *more, mtime=NOW):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as target:
        for member in more:
            target.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o6777
            target.addfile(member, io.BytesIO(data))
    os.utime(path, (mtime.timestamp(), mtime.timestamp()))
    return path


def link(name, leads_to, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, leads_to
    return member


def params_of(tmp_path, sets, **application):
    common = {"run_id": "r", "deadline": 0.0, "self_test": False, "state_dir": str(tmp_path / "state")}
    given = {"sets": sets, "applications": [{"name": "shop", **application}], "scratch": str(tmp_path / "scratch"), "level": 0}
    return {**filled(verification.OPTIONS, given), **common}


def drill(tmp_path, sets, **application):
    outcome = verification.run(params_of(tmp_path, sets, **application), False, FrozenHost())
    assert not (tmp_path / "scratch").exists(), "something stayed"
    return {finding.id.partition(".")[2]: finding for finding in outcome.findings if finding.id.startswith("drill.")}


def files_set(tmp_path, name="files", **more):
    return {"name": name, "root": str(tmp_path / name), "pattern": "*.tar.gz", **more}


PART = {"set": "files", "path": "/srv/shop", "inside": "shop"}
FILES = {"shop/app.py": b"print()", "shop/uploads/a": b"an upload", "elsewhere/b": b"of somebody else"}
SUMS = "".join(f"{hashlib.sha256(data).hexdigest()}  {name[5:]}\n" for name, data in FILES.items() if name.startswith("shop/")).encode()


def test_files_that_are_what_their_manifest_says_are_ok_and_the_rest_is_not_claimed(tmp_path):
    archive(tmp_path / "files/a.tar.gz", {**FILES, "shop/SUMS": SUMS})
    found = drill(tmp_path, [files_set(tmp_path)], files=[PART], manifest="/srv/shop/SUMS", maximum_rto_minutes=5)
    assert (found["files"].state, found["together"].state) == ("ok", "ok")
    assert found["files"].summary.startswith("3 files,")
    assert found["application"].state == "unknown", "nothing is declared that would tell"
    assert (found["rto"].state, "rpo" in found) == ("unknown", False)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"shop/app.py": b"print()", "shop/SUMS": SUMS}, "'uploads/a' of the manifest is not there"),
        ({**FILES, "shop/app.py": b"other", "shop/SUMS": SUMS}, "'app.py' is not what the manifest says"),
        (FILES, "the declared manifest /srv/shop/SUMS is not there"),
        ({"elsewhere/b": b"x"}, "holds no file below 'shop'"),
    ],
)
def test_files_that_are_missing_or_others_are_found(tmp_path, files, says):
    archive(tmp_path / "files/a.tar.gz", files)
    found = drill(tmp_path, [files_set(tmp_path)], files=[PART], manifest="/srv/shop/SUMS")
    assert found["files"].state == "critical"
    assert says in " ".join(found["files"].evidence)


def test_parts_of_different_times_are_found_and_those_of_one_time_are_not(tmp_path):
    archive(tmp_path / "files/a.tar.gz", FILES)
    archive(tmp_path / "configuration/a.tar.gz", {"etc/shop.ini": b"x"}, mtime=NOW - timedelta(minutes=90))
    sets = [files_set(tmp_path), files_set(tmp_path, "configuration")]
    parts = [PART, {"set": "configuration", "path": "/srv/shop/etc", "inside": "etc"}]
    found = drill(tmp_path, sets, files=parts)
    assert found["together"].state == "critical"
    assert found["together"].summary == "configuration is 1 h 30 min older than files"
    assert drill(tmp_path, sets, files=parts, maximum_gap_minutes=91.0)["together"].state == "ok"


def test_a_part_without_a_backup_is_critical_and_nothing_else_is_claimed(tmp_path):
    (tmp_path / "files").mkdir()
    found = drill(tmp_path, [files_set(tmp_path)], files=[PART])
    assert {name: finding.state for name, finding in found.items()} == {"together": "critical"}


def test_a_database_file_and_dated_folders_lie_where_they_belong(tmp_path):
    folder = tmp_path / "daily/20261121"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
    target = tree.Target(str(tmp_path / "out"), 1 << 30)
    status = os.stat(folder / "app.db")
    backup = Backup(str(folder), (tree_file(folder / "app.db", status),), NOW.timestamp(), NOW.date())
    declared = {"layout": "dated_folders", "decrypt_command": []}
    done = tree.restore(backup, declared, {"path": "/srv/data", "inside": "", "set": "x"}, target)
    assert (done.files, done.wrong, (tmp_path / "out/srv/data/app.db").exists()) == (1, [], True)


def tree_file(path, status):
    return File(str(path), status.st_size, status.st_mtime_ns)


def test_no_member_gets_out_of_the_tree(tmp_path):
    """A link that comes before a file, a hard link, a device and a path upwards all stay inside."""
    victim = tmp_path / "victim"
    victim.mkdir()
    path = archive(
        tmp_path / "files/a.tar.gz",
        {"shop/way/planted": b"x", "shop/ok": b"y"},
        link("shop/way", str(victim)),
        link("shop/hard", "/etc/passwd", tarfile.LNKTYPE),
        link("shop/null", "", tarfile.CHRTYPE),
    )
    backup = Backup(str(path), (tree_file(path, os.stat(path)),), NOW.timestamp(), NOW.date())
    target = tree.Target(str(tmp_path / "out"), 1 << 30)
    done = tree.restore(backup, {"layout": "files", "decrypt_command": []}, PART, target)
    assert (done.files, list(victim.iterdir())) == (2, [])
    assert sorted(os.listdir(tmp_path / "out/srv/shop")) == ["ok", "way"]
    assert os.stat(tmp_path / "out/srv/shop/ok").st_mode & 0o7777 == 0o755
    assert len(done.notes) == 2
    path = archive(tmp_path / "files/b.tar.gz", {"shop/../../x": b"x"})
    backup = Backup(str(path), (tree_file(path, os.stat(path)),), NOW.timestamp(), NOW.date())
    assert "leads outside" in tree.restore(backup, {"layout": "files", "decrypt_command": []}, PART, target).wrong[0]


def test_a_name_that_leads_to_a_live_file_is_not_there(tmp_path):
    root = tmp_path / "tree"
    (root / "srv/uploads").mkdir(parents=True)
    (root / "srv/uploads/a").write_text("x")
    (root / "srv/other").write_text("x")
    (tmp_path / "live").write_text("x")
    (root / "srv/uploads/way").symlink_to(tmp_path)
    folder = str(root / "srv/uploads")
    assert [tree.holds(str(root), folder, name) for name in ("a", "/a", "./a")] == [True] * 3
    assert not any(tree.holds(str(root), folder, name) for name in ("b", "", ".", "../other", "way/live", "../../../live"))


@given(st.text(max_size=30))
def test_whatever_a_row_holds_it_is_only_a_name(name):
    assert tree.holds("/nonexistent/root", "/nonexistent/root/x", name.replace("\0", "")) is False


@pytest.mark.parametrize(
    ("application", "says"),
    [
        ({}, "files of application shop is empty and so is database"),
        ({"files": [{**PART, "set": "nobody"}]}, "files.set of application shop is 'nobody' (no set)"),
        (
            {"database": "files", "files": [PART]},
            "database of application shop is 'files' (files), expected a declared set of kind postgresql",
        ),
        ({"files": [{**PART, "path": "/srv/sh op:x"}]}, "files.path of application shop"),
        ({"files": [PART], "manifest": "/etc/SUMS"}, "manifest of application shop is '/etc/SUMS', expected a path in one of its files"),
        (
            {"files": [PART], "references": [{"query": "q", "below": "/srv/shop"}]},
            "references of application shop are given without database",
        ),
        ({"files": [PART], "maximum_gap_minutes": -1.0}, "maximum_gap_minutes of application shop is -1.0"),
        ({"files": [PART], "start": {"argv": ["serve"]}}, "start.argv of application shop is ['serve'], expected the full path"),
        ({"files": [PART], "start": {"argv": ["/bin/x", "$HOME"]}}, "holds a $ or NUL"),
        (
            {"files": [PART], "start": {"argv": ["/bin/x"], "url": "http://shop.example/"}},
            "only that can be reached in a network of its own",
        ),
        ({"files": [PART], "start": {"argv": ["/bin/x"], "environment": {"A B": 1}}}, "start.environment of application shop"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_looked_at(tmp_path, application, says):
    with pytest.raises(InputError) as refused:
        drill(tmp_path, [files_set(tmp_path)], **application)
    assert says in str(refused.value)


def test_a_value_of_the_environment_stays_one_value():
    assert unit._quoted('a"b\\c$d`e\nf') == '"a\\"b\\\\c\\$d\\`e f"'


def test_check_mode_starts_nothing_and_does_not_claim_that_it_works(tmp_path, monkeypatch):
    """The unit is started by systemd-run; here one stands in its place that says that it was asked."""
    archive(tmp_path / "files/a.tar.gz", FILES)
    (tmp_path / "bin").mkdir()
    (tmp_path / "live").mkdir()
    for name in ("systemd-run", "systemctl"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    start = {"argv": ["/bin/true"], "user": pwd.getpwuid(os.geteuid()).pw_name}
    params = params_of(
        tmp_path, [files_set(tmp_path)], files=[{**PART, "path": str(tmp_path / "live")}], start=start, maximum_rto_minutes=5
    )
    for check in (True, False):
        outcome = verification.run(params, check, FrozenHost())
        states = {finding.id: finding.state for finding in outcome.findings}
        assert (states["drill.files"], states["drill.application"], states["drill.rto"]) == ("ok", "unknown", "unknown")
        assert (tmp_path / "asked").exists() is not check, "without check mode it is asked"
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(("printed", "state"), [("the key", "ok"), ("another one", "critical")])
def test_an_encrypted_part_is_opened_with_the_key_from_elsewhere_even_where_its_set_is_not_verified(tmp_path, printed, state):
    archive(tmp_path / "files/a.tar.gz", FILES)
    (tmp_path / "key").write_text("the key")
    options = ["-aes-256-cbc", "-pbkdf2", "-pass"]
    path = tmp_path / "files/a.tar.gz"
    subprocess.run(["openssl", "enc", *options, f"file:{tmp_path}/key", "-in", path, "-out", f"{path}.enc"], check=True)
    path.unlink()
    os.utime(f"{path}.enc", (NOW.timestamp(), NOW.timestamp()))
    (tmp_path / "key").write_text(printed)
    encrypted = {
        "pattern": "*.enc",
        "encrypted": True,
        "decrypt_command": ["openssl", "enc", "-d", *options, "file:{key}"],
        "recovery_key": {"command": ["cat", str(tmp_path / "key")]},
    }
    assert drill(tmp_path, [files_set(tmp_path, **encrypted)], files=[PART])["files"].state == state
