# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_secret_scan, security_secrets
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")
TODAY = int(NOW.timestamp() // 86400)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9"
TOKEN = "gh" + "p_" + "a1B2c3D4e5" * 4


def aged(tmp_path, **secret):
    params = filled(security_secrets.OPTIONS, {"secrets": [{"name": "API key", **secret}]})
    assert security_secrets.validate(params) == []
    (found,) = security_secrets.look(Review(params, Host(), True, NOW, str(tmp_path)))
    return found


# ages


@pytest.mark.parametrize(("day", "state"), [("2026-11-01", "ok"), ("2026-08-01", "warning"), ("2025-11-01", "critical")])
def test_a_declared_day_is_judged_by_the_rule(tmp_path, day, state):
    assert aged(tmp_path, kind="date", date=day, warning_days=90, critical_days=365).state == state


@pytest.mark.parametrize("day", ["2026-08-01", "2025-11-01"])
def test_who_is_to_replace_a_secret_is_told_of_the_overlap_and_of_the_restarts_flow_sec_8(tmp_path, day):
    told = aged(tmp_path, kind="date", date=day, warning_days=90, critical_days=365).advice
    assert told == "Replace it; keep old and new valid together until every consumer was restarted."
    assert aged(tmp_path, kind="date", date="2026-11-01").advice == ""


def test_the_time_of_a_file_is_an_estimate(tmp_path):
    path = tmp_path / "key"
    path.write_text("s3cret")
    os.utime(path, (NOW.timestamp() - 100 * 86400,) * 2)
    found = aged(tmp_path, kind="file", path=str(path))
    assert (found.state, found.value, found.basis) == ("warning", 100.0, "estimated")
    (tmp_path / "link").symlink_to(path)
    assert aged(tmp_path, kind="file", path=str(tmp_path / "link")).state == "unknown"
    assert aged(tmp_path, kind="file", path=str(tmp_path / "absent")).state == "unknown"


@pytest.mark.parametrize(("changed", "state"), [(TODAY - 10, "ok"), (TODAY - 200, "warning"), ("", "unknown"), (0, "unknown")])
def test_passwords_have_the_age_that_the_shadow_file_says(tmp_path, changed, state):
    (tmp_path / "shadow").write_text(f"app:$y$x:{changed}:0:9:7:::\n")
    assert aged(tmp_path, kind="password", account="app").state == state
    assert aged(tmp_path, kind="password", account="other").state == "unknown"


def test_a_key_beside_the_secret_holds_its_day_and_the_secret_is_not_read_into_anything(tmp_path):
    env = tmp_path / ".env"
    env.write_text("API_KEY=s3cret-value\nexport API_KEY_ROTATED='2026-06-01'\n")
    found = aged(tmp_path, kind="env", path=str(env), date_key="API_KEY_ROTATED")
    assert (found.state, int(found.value)) == ("warning", 173)
    wrong = aged(tmp_path, kind="env", path=str(env), date_key="API_KEY")
    assert wrong.state == "unknown"
    assert "s3cret" not in str(found.as_dict()) + str(wrong.as_dict())
    (tmp_path / "c.json").write_text(json.dumps({"api": {"key": "s3cret-value", "rotated": "2026-11-01T00:00:00Z"}}))
    assert aged(tmp_path, kind="json", path=str(tmp_path / "c.json"), date_key="api.rotated").state == "ok"
    for key in ("api.key", "api.absent", "api", "other.x"):
        said = aged(tmp_path, kind="json", path=str(tmp_path / "c.json"), date_key=key)
        assert (said.state, "s3cret" in str(said.as_dict())) == ("unknown", False)
    (tmp_path / "c.json").write_text("[" * 100_000)
    assert aged(tmp_path, kind="json", path=str(tmp_path / "c.json"), date_key="a").state == "unknown"


def test_a_day_in_the_future_is_no_young_secret(tmp_path):
    assert aged(tmp_path, kind="date", date="2027-01-01").state == "unknown"


def test_wrong_input_about_secrets_is_said():
    secrets = [{"name": "a", "kind": "file"}, {"name": "b", "kind": "date", "date": "soon", "warning_days": 0}]
    secrets.append({"name": "c", "kind": "env", "path": "x"})
    said = " ".join(security_secrets.validate(filled(security_secrets.OPTIONS, {"secrets": secrets})))
    for part in ("path of secrets, a", "'soon'", "warning_days is 0", "date_key of secrets, c", "'x'"):
        assert part in said


# scan


class Tree:
    def __init__(self, folder):
        self.root = folder / "logs"
        self.root.mkdir(mode=0o755)
        self.root.chmod(0o755)

    def write(self, name, content, mode=0o640):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)

    def scan(self, **more):
        params = filled(security_secret_scan.OPTIONS, {"secret_scans": [{"root": str(self.root), "files": "all", **more}]})
        (found,) = security_secret_scan.look(Review(params, Host(), True, NOW))
        return found


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("-----BEGIN " + "RSA PRIVATE KEY-----", "private key"),
        ("-----BEGIN " + "PRIVATE KEY-----", "private key"),
        ("-----BEGIN " + "OPENSSH PRIVATE KEY-----", "private key"),
        ("aws_access_key_id=" + "AKIA" + "IOSFODNN7EXAMPLE", "AWS key id"),
        (f"remote: {TOKEN}", "GitHub token"),
        ("Authorization: Bearer abcdefghijklmnop1234567890", "bearer token"),
        (f"Authorization: Bearer {JWT}", "bearer token"),
        (f"session {JWT} opened", "JSON web token"),
        ("connect postgres://app:s3cretpw@db/app", "password in a URL"),
        ("DB_PASSWORD=hunter2hunter2", "password"),
        ('{"password": "c0rrect-horse"}', "password"),
        ("api_key: 0123456789abcdef", "password"),
        ("sk" + "_live_0123456789abcdefXYZ", "Stripe key"),
    ],
)
def test_credentials_are_known_by_their_form(line, kind):
    assert [found for found, _value in security_secret_scan.credentials(line.encode())] == [kind]


@pytest.mark.parametrize(
    "line",
    [
        "Failed password for root from 192.0.2.1 port 22 ssh2",
        "password: incorrect",
        "password=********",
        "password=${DB_PASSWORD1}",
        "password: {{ vault_password_1 }}",
        "token expired after 3600 seconds",
        "secret = <hidden 12345678>",
        "GET /reset-password?id=1 HTTP/1.1",
        "postgres://app:***@db/app",
        "see https://example.com/a:b@c",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----",
        "the bearer of this letter",
        "password_changed_at=2026-10-01",
    ],
)
def test_what_only_speaks_of_them_is_none(line):
    assert security_secret_scan.credentials(line.encode()) == []


@given(st.binary(max_size=400))
def test_any_line_is_read(line):
    security_secret_scan.credentials(line)


def test_place_and_kind_are_shown_and_the_value_never(tree):
    tree.write("app.log", "start\nlogin password=hunter2hunter2 ok\n")
    found = tree.scan()
    assert (found.state, found.value) == ("warning", 1)
    assert found.evidence[0].startswith(f"{tree.root}/app.log:2: password, sha256 ")
    assert "hunter2" not in str(found.as_dict())


def test_a_clean_tree_is_ok_and_an_empty_one_is_not(tree):
    assert tree.scan().state == "unknown"
    tree.write("app.log", "Accepted password for mia\n")
    assert tree.scan().state == "ok"


def test_what_everyone_can_read_is_critical_only_where_its_folders_are_open(tree):
    tree.write("open/.env", "API_KEY=0123456789abcdef\n", 0o644)
    assert tree.scan(files="world_readable").state == "critical"
    (tree.root / "open").chmod(0o750)
    assert tree.scan(files="world_readable").state == "ok"
    assert tree.scan().state == "warning"


def test_one_closed_folder_on_the_way_closes_all_below_it(tree):
    tree.write("private/sub/.env", "API_KEY=0123456789abcdef\n", 0o644)
    (tree.root / "private").chmod(0o700)
    (tree.root / "private/sub").chmod(0o755)
    assert tree.scan(files="world_readable").state == "ok"
    assert tree.scan().state == "warning"
    (tree.root / "private").chmod(0o711)
    assert tree.scan(files="world_readable").state == "critical"


@pytest.mark.parametrize("gone", ["b.log", "c"])
def test_what_is_rotated_away_during_a_scan_does_not_end_it(tree, monkeypatch, gone):
    tree.write("a.log", "nothing\n")
    tree.write("b.log", "nothing\n")
    tree.write("c/d.log", "nothing\n")
    tree.write("z.log", "password=hunter2hunter2\n")
    looked = os.stat

    def rotates(name, **given):
        if name == "a.log" and (tree.root / gone).exists():
            os.rename(tree.root / gone, tree.root.parent / "elsewhere")
        return looked(name, **given)

    monkeypatch.setattr(os, "stat", rotates)
    found = tree.scan()
    assert (found.state, found.value, found.not_covered) == ("warning", 1, "")


def test_packed_logs_are_read_and_binary_files_are_not(tree):
    tree.write("app.log.1.gz", gzip.compress(b"x\ny\npassword=hunter2hunter2\n"))
    tree.write("core", b"\0\1password=hunter2hunter2\n")
    found = tree.scan()
    assert (found.value, ".gz:3:" in found.evidence[0]) == (1, True)


def test_links_are_not_followed_out_of_the_root(tree, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/key").write_text("password=hunter2hunter2\n")
    tree.write("app.log", "nothing\n")
    (tree.root / "folder").symlink_to(tmp_path / "outside")
    (tree.root / "file").symlink_to(tmp_path / "outside/key")
    assert tree.scan().state == "ok"
    os.rename(tree.root, tmp_path / "real")
    tree.root.symlink_to(tmp_path / "real")
    assert tree.scan().state == "unknown"


def test_what_is_too_large_or_damaged_is_named_and_never_ok(tree):
    tree.write("app.log", b"x\n" * 1024 * 1024)
    found = tree.scan(limit_megabytes=1)
    assert (found.state, "limit_megabytes" in found.not_covered) == ("unknown", True)
    tree.write("app.log", gzip.compress(b"x\n" * 10000)[:-15])
    assert tree.scan().state == "unknown"


@pytest.mark.parametrize("piece", [b"password=", b"eyJ-", b"Bearer ", b"a://b:", b"ghp_", b"-----BEGIN A "])
def test_lines_without_end_are_bounded_and_take_no_time(tree, piece):
    tree.write("app.log", piece * (500_000 // len(piece)) + b"\n")
    begun = time.process_time()
    found = tree.scan()
    assert time.process_time() - begun < 3
    assert (found.state, "beyond" in found.not_covered) == ("unknown", True)


def test_names_that_attack_the_report_are_data(tree):
    tree.write("a\n\x1b[2J.log", "password=hunter2hunter2\n")
    assert "\x1b" not in str(tree.scan().as_dict())
    assert tree.scan(exclude=["*.log"]).state == "unknown"


def test_very_many_credentials_stay_few_lines(tree):
    tree.write("app.log", "password=hunter2hunter2\n" * 5000)
    found = tree.scan()
    assert (found.value, len(found.evidence)) == (5000, 20)


def test_wrong_input_about_scans_is_said():
    scans = [{"root": "logs", "limit_megabytes": 0}]
    said = " ".join(security_secret_scan.validate(filled(security_secret_scan.OPTIONS, {"secret_scans": scans})))
    assert "'logs'" in said
    assert "limit_megabytes is 0" in said


def test_the_self_tests_notice_blind_verifiers(monkeypatch):
    review = Review({}, Host(), True, NOW)
    assert security_secrets.passes_bad_sample(review) == security_secret_scan.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_secrets, "from_limit", lambda *_: "ok")
    monkeypatch.setattr(security_secret_scan, "credentials", lambda _line: [])
    assert security_secrets.passes_bad_sample(review)
    assert security_secret_scan.passes_bad_sample(review)
