# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import json
import os
from datetime import datetime, timedelta

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_api_use
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-20T09:00:00+00:00")


class Api:
    def __init__(self, folder):
        self.folder, self.lines = folder, []

    def requests(self, now, count, client="web", status=200, field="client_id"):
        moment = now - timedelta(hours=2)
        self.lines += [json.dumps({"timestamp": moment.isoformat(), field: client, "status": status})] * count

    def review(self, now=NOW, check_mode=False, **more):
        log = self.folder / "api.jsonl"
        log.write_text("".join(f"{line}\n" for line in self.lines))
        os.utime(log, (now.timestamp(), now.timestamp()))
        source = {"name": "api", "paths": [str(log)], "least_a_day": 10.0, **more}
        spec = {**security_api_use.OPTIONS, "state_dir": {"type": "path"}, "days": {"type": "int"}}
        params = filled(spec, {"api_sources": [source], "state_dir": str(self.folder / "state"), "days": 1})
        (found,) = security_api_use.look(Review(params, Host(), check_mode, now))
        return found


@pytest.fixture
def api(tmp_path):
    return Api(tmp_path)


def history(api, runs=4, count=50):
    for day in range(runs):
        now = NOW + timedelta(days=day)
        api.requests(now, count)
        assert api.review(now).state == "ok"
    return NOW + timedelta(days=runs)


def test_the_first_run_has_nothing_to_compare_with_and_says_so(api):
    api.requests(NOW, 5000)
    found = api.review()
    assert (found.state, found.value) == ("ok", 0)
    assert "no earlier period" in found.not_covered


def test_a_client_that_asks_far_more_than_usual_is_found(api):
    now = history(api)
    api.requests(now, 200)
    found = api.review(now)
    assert (found.state, found.evidence) == ("warning", ["web: 200.0 a day, usually 50.0"])


def test_a_new_client_and_one_that_is_gone_are_found(api):
    now = history(api)
    api.requests(now, 20, client="scraper")
    assert api.review(now).evidence == ["scraper: new, 20.0 requests a day", "web: gone, 50.0 a day before"]


def test_a_share_of_errors_is_found(api):
    now = history(api)
    api.requests(now, 35)
    api.requests(now, 15, status="403")
    assert api.review(now).evidence == ["web: 30 percent of its requests failed"]


def test_keys_are_never_shown_nor_kept(api):
    api.requests(NOW, 50, client="sk_live_s3cret", field="api_key", status=500)
    found = api.review()
    assert "api_key sha256:" in found.evidence[0]
    kept = (api.folder / "state/security_api_usage.json").read_text()
    assert "s3cret" not in str(found.as_dict()) + kept


def test_check_mode_keeps_nothing(api):
    api.requests(NOW, 50)
    api.review(check_mode=True)
    assert not os.path.exists(api.folder / "state")


def test_rotated_logs_count_and_damage_is_never_ok(api):
    api.requests(NOW, 20)
    (api.folder / "api.jsonl.1.gz").write_bytes(gzip.compress("\n".join(api.lines).encode()))
    os.utime(api.folder / "api.jsonl.1.gz", (NOW.timestamp(), NOW.timestamp()))
    assert "40 requests" in api.review().summary
    (api.folder / "api.jsonl.1.gz").write_bytes(gzip.compress("\n".join(api.lines).encode())[:-20])
    os.utime(api.folder / "api.jsonl.1.gz", (NOW.timestamp(), NOW.timestamp()))
    assert api.review().state == "unknown"


@pytest.mark.parametrize("line", ["", "text", json.dumps({"timestamp": NOW.isoformat(), "other": 1}), json.dumps({"client_id": "a"})])
def test_records_that_tell_nothing_are_unknown(api, line):
    api.lines.append(line)
    assert api.review().state == "unknown"


def test_names_that_attack_the_report_are_data(api):
    api.requests(NOW, 50, client="\x1b[2Ja\nb", status=500)
    (line,) = api.review().as_dict()["evidence"]
    assert line.startswith("\\x1b[2Ja b: 100 percent")


def test_more_clients_than_can_be_told_apart_stay_bounded(monkeypatch):
    monkeypatch.setattr(security_api_use, "_CLIENT_LIMIT", 10)
    use = security_api_use.Use()
    for number in range(1000):
        use.add(f"c{number}", False)
    assert (len(use.requests), use.requests["(others)"]) == (11, 990)


def test_wrong_input_is_said():
    source = {"name": "a", "paths": ["x"], "factor": 0.5, "error_percent": 200.0, "timezone": "Mars/Base"}
    said = " ".join(security_api_use.validate(filled(security_api_use.OPTIONS, {"api_sources": [source]})))
    for part in ("'x'", "factor is 0.5", "error_percent is 200", "Mars/Base"):
        assert part in said


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({"days": 7}, Host(), True, NOW)
    assert security_api_use.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_api_use, "unusual", lambda *_: "")
    assert security_api_use.passes_bad_sample(review)
