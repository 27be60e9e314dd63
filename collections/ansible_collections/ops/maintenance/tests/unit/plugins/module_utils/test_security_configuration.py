# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_configuration, security_utmp
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
ENV = """# comment
DATABASE_URL=postgresql://app:hunter2@db/app
export API_KEY='s3cret value'
DEBUG=false
"""


class Site:
    def __init__(self, folder):
        self.folder, self.path = folder, folder / ".env"

    def review(self, text=None, check_mode=False, accept=False, kind="env", path=None):
        if text is not None:
            self.path.write_text(text)
            os.utime(self.path, (1795000000, 1795000000))
        spec = {**security_configuration.OPTIONS, "state_dir": {"type": "path"}, "accept_baseline": {"type": "bool"}}
        given_ = {
            "configurations": [{"path": str(path or self.path), "kind": kind}],
            "state_dir": str(self.folder / "state"),
            "accept_baseline": accept,
        }
        params = filled(spec, given_)
        assert security_configuration.validate(params) == []
        [found] = security_configuration.look(Review(params, Host(), check_mode, NOW, str(self.folder / "root/etc")))
        return found


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def names(found):
    return [line.split(" (")[0] for line in found.evidence if not line.startswith("logged in")]


def test_what_changed_since_it_was_accepted_is_told_by_name_and_never_by_value(site):
    """netpost-sec-13: names and hashes of changed variables, with when; the values are in no record and no state."""
    first = site.review(ENV)
    assert (first.state, first.value, "at first sight" in first.summary) == ("ok", 0, True)
    changed = (
        ENV.replace("hunter2", "hunter3").replace("DEBUG=false", "DEBUG=false\nNEW_FLAG=1").replace("export API_KEY='s3cret value'\n", "")
    )
    for _again in range(2):
        found = site.review(changed)
        assert (found.state, names(found)) == ("warning", ["new: NEW_FLAG", "gone: API_KEY", "changed: DATABASE_URL"])
        assert "since it was accepted on 2026-11-21; last written 2026-11-18" in found.summary
    told = str(found.as_dict()) + (site.folder / "state/security_configuration.json").read_text()
    assert [value for value in ("hunter2", "hunter3", "s3cret", "postgresql://") if value in told] == []
    assert site.review(changed, check_mode=True, accept=True).state == "ok"
    assert site.review(changed).state == "warning"
    assert site.review(changed, accept=True).state == "ok"
    assert site.review(changed).value == 0


def test_who_was_there_before_it_was_written_is_told(site):
    """netpost-sec-13: with who and when."""
    log = site.folder / "root/var/log"
    log.mkdir(parents=True)
    written = 1795000000
    sessions = [("mia", written - 3600), ("tom", written - 2 * 86400), ("eva", written + 60), ("old", written - 86399)]
    (log / "wtmp").write_bytes(b"".join(session(name, moment) for name, moment in sessions))
    site.review("A=1\n")
    assert site.review("A=2\n").evidence[-1] == "logged in within the day before it was written: mia, old"
    (log / "wtmp").unlink()
    with contextlib.closing(sqlite3.connect(log / "wtmp.db")) as register:
        register.execute("CREATE TABLE wtmp (Type INTEGER, User TEXT, Login INTEGER)")
        register.executemany("INSERT INTO wtmp VALUES (3, ?, ?)", [(name, moment * 1_000_000) for name, moment in sessions])
        register.commit()
    assert site.review("A=2\n").evidence[-1] == "logged in within the day before it was written: mia, old"
    (log / "wtmp").write_bytes(b"nonsense" * 100)
    assert "cannot be told" in site.review("A=2\n").evidence[-1]


def session(name, moment):
    form = security_utmp.layout()
    return form.pack(security_utmp.USER_PROCESS, 1, b"tty1", b"1", name.encode(), b"", 0, 0, 0, moment, 0, bytes(16), bytes(20))


def test_a_digest_cannot_be_tried_by_somebody_without_this_hosts_key(site, tmp_path):
    site.review(ENV)
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    other.review(ENV)
    kept = [json.loads((one.folder / "state/security_configuration.json").read_text())["files"] for one in (site, other)]
    mine, theirs = (next(iter(files.values()))["values"] for files in kept)
    assert mine["DEBUG"] != theirs["DEBUG"]
    assert (site.folder / "state").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "key",
    [
        'PRIVATE_KEY="-----BEGIN PRIVATE KEY-----\nMIIEabc=def\nQk3xsecret==\n-----END PRIVATE KEY-----"\nLAST=1\n',
        "PRIVATE_KEY=-----BEGIN PRIVATE KEY-----\nMIIEabc=def\nQk3xsecret==\n-----END PRIVATE KEY-----\nLAST=1\n",
        "-----BEGIN PRIVATE KEY-----\nMIIEabc=def\nQk3xsecret==\n-----END PRIVATE KEY-----\nLAST=1\n",
        "PRIVATE_KEY='open\nMIIEabc=def\nQk3xsecret==\n",
    ],
)
def test_a_key_over_several_lines_is_one_value_and_no_line_of_it_a_name(site, key):
    site.review("A=1\n")
    found = site.review(key)
    assert not any("MIIE" in line or "Qk3x" in line for line in found.evidence)
    again = site.review(key, accept=True)
    assert (again.state, site.review(key.replace("Qk3x", "Qk4x")).state) == ("ok", "warning")


def test_json_and_whole_files(site):
    site.review(json.dumps({"a": {"b": [1, {"c": "s3cret"}]}, "d": {}}), kind="json")
    found = site.review(json.dumps({"a": {"b": [1, {"c": "other"}, 3]}, "d": {}}), kind="json")
    assert names(found) == ["new: a.b.2", "changed: a.b.1.c"]
    assert site.review("not json", kind="json").state == "unknown"


def test_what_cannot_be_read_is_unknown(site, tmp_path):
    assert site.review(path=tmp_path / "absent").state == "unknown"
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert site.review(path=tmp_path / "link").state == "unknown"
    site.review(ENV)
    (site.folder / "state/security_configuration.json").write_text("{")
    assert site.review(ENV).state == "unknown"


def test_hostile_names_are_data(site):
    site.review("A=1\n", kind="env")
    found = site.review(json.dumps({"x\x1b[2J\n<script>": 1}), kind="json", accept=True)
    assert "\x1b" not in str(found.as_dict())


@given(st.text())
def test_any_text_has_values_and_no_value_is_among_the_names(text):
    assert all(name == "(lines without a name)" or name in text for name in security_configuration.env_values(text))


def test_wrong_input_is_said():
    files = [{"path": "app/.env"}, {"path": "/a"}, {"path": "/a"}]
    said = " ".join(security_configuration.validate(filled(security_configuration.OPTIONS, {"configurations": files})))
    assert ("'app/.env'" in said, "each file once" in said) == (True, True)


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), True, NOW)
    assert security_configuration.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_configuration, "digests", lambda *_: {"PLANTED": "0"})
    assert security_configuration.passes_bad_sample(review)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("env", "A=1\nA=2\n", "A=9\nA=2\n"),
        ("json", '{"a.b": 1, "a": {"b": 2}}', '{"a.b": 9, "a": {"b": 2}}'),
        ("json", '{"a": 1, "a": 2}', '{"a": 9, "a": 2}'),
    ],
)
def test_a_value_that_another_of_the_same_name_follows_is_compared_too(site, kind, before, after):
    site.review(before, kind=kind)
    assert site.review(before, kind=kind).state == "ok"
    assert site.review(after, kind=kind).state == "warning"
