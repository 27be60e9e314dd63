# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import json
import socket
import time
from datetime import datetime, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import validation
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils.maintained import (
    defaults,
    order,
    runs,
    service,
    sub_defaults,
    tree,
    web,
)

ENDPOINT_OPTIONS = validation.OPTIONS["endpoints"]["options"]


def run(check_mode=False, **given):
    return validation.run({**defaults(validation.OPTIONS), **given}, check_mode, Host())


def endpoint(url, **more):
    return {**sub_defaults(ENDPOINT_OPTIONS), "url": url, "samples": 1, **more}


def unit(folder, name, active=True):
    return {**service(folder, name, active), "enabled": True}


def finding(outcome, id_):
    return next(found for found in outcome.findings if found.id == id_)


def test_nothing_declared_is_unknown_never_ok():
    outcome = run()
    assert (outcome.state, finding(outcome, "validation.declared").state) == ("unknown", "unknown")


# -- units --------------------------------------------------------------------------------------------------------------------


def test_units_that_run_are_ok_and_one_that_does_not_fails(tmp_path):
    outcome = run(units=[unit(tmp_path, "db"), unit(tmp_path, "api", active=False)])
    assert [found.state for found in outcome.findings] == ["ok", "critical"]
    assert outcome.returned["passed"] is False


def test_a_unit_that_had_to_be_started_is_looked_at_again_and_is_a_finding_fossa_post_02(tmp_path):
    outcome = run(units=[unit(tmp_path, "api", active=False)], start_inactive=True)
    found = finding(outcome, "validation.unit")
    assert (outcome.status, found.state, found.summary) == ("changed", "warning", "api runs now; it was inactive before.")
    assert outcome.actions[0].after == {"state": "active"}
    assert outcome.returned["passed"] is True


def test_a_unit_that_does_not_start_fails_whatever_its_start_said_fossa_post_02(tmp_path):
    (tmp_path / "api.broken").touch()
    broken, lying = unit(tmp_path, "api", active=False), {**unit(tmp_path, "web", active=False), "start": ["true"]}
    outcome = run(units=[broken, lying], start_inactive=True)
    assert [found.state for found in outcome.findings] == ["critical", "critical"]
    assert [action.status for action in outcome.actions] == ["failed", "failed"]
    assert outcome.returned["passed"] is False


def test_check_mode_starts_nothing_and_says_what_would_be(tmp_path):
    units = [unit(tmp_path, "api", active=False)]
    before = tree(tmp_path)
    outcome = run(check_mode=True, units=units, start_inactive=True)
    assert (outcome.status, outcome.state) == ("due", "critical")
    assert tree(tmp_path) == before
    assert order(tmp_path) == []


def test_without_the_wish_nothing_is_started(tmp_path):
    assert run(units=[unit(tmp_path, "api", active=False)]).status == "ok"
    assert not runs(tmp_path, "api")


@pytest.mark.parametrize(
    ("shown", "before", "state"),
    [
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}, None, "ok"),
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}, "failed", "warning"),
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "disabled"}, None, "warning"),
        ({"LoadState": "loaded", "ActiveState": "activating", "UnitFileState": "enabled"}, "active", "critical"),
        ({"LoadState": "loaded", "ActiveState": "failed", "UnitFileState": "enabled"}, "active", "critical"),
        ({"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}, None, "critical"),
        ({"LoadState": "masked", "ActiveState": "inactive", "UnitFileState": "masked"}, None, "critical"),
        ({"LoadState": "", "ActiveState": "unknown", "UnitFileState": ""}, None, "unknown"),
    ],
)
def test_what_systemd_says_is_judged(shown, before, state):
    assert validation.judge_unit({"name": "api.service", "enabled": True}, shown, before).state == state


# -- endpoints ----------------------------------------------------------------------------------------------------------------


def test_status_decides_and_the_declared_one_may_be_401_fossa_post_03():
    with web(lambda path, _number: ({"/api/health": 200, "/api/orders": 401}.get(path, 500), {}, b"")) as (url, _asked):
        outcome = run(
            endpoints=[endpoint(f"{url}/api/health"), endpoint(f"{url}/api/orders", status=[401]), endpoint(f"{url}/api/dispensers")]
        )
    found = [(f.state, f.value) for f in outcome.findings if f.id == "validation.endpoint"]
    assert found == [("ok", 200), ("ok", 401), ("critical", 500)]
    assert outcome.returned["passed"] is False


def test_no_connection_is_told_as_such_not_as_a_status_fossa_post_03():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = finding(run(endpoints=[endpoint(f"http://127.0.0.1:{port}/api/health", name="health")]), "validation.endpoint")
    assert (found.state, found.value) == ("critical", 0)
    assert "health did not answer" in found.summary
    assert "000" not in found.summary


def test_one_bad_answer_among_many_fails_fossa_post_03():
    with web(lambda _path, number: (500 if number == 4 else 200, {}, b"")) as (url, _asked):
        found = finding(run(endpoints=[endpoint(url, samples=5)]), "validation.endpoint")
    assert (found.state, "in 1 of 5 requests" in found.summary) == ("critical", True)


def test_a_redirect_to_a_log_in_page_is_not_200():
    with web(lambda *_: (302, {"Location": "/login"}, b"")) as (url, asked):
        assert finding(run(endpoints=[endpoint(f"{url}/api")]), "validation.endpoint").state == "critical"
    assert asked == ["/api"]


def test_percentiles_are_by_nearest_rank():
    assert validation.percentile([7.0], 95) == 7.0
    assert validation.percentile([float(n) for n in range(1, 101)], 95) == 95.0
    assert validation.percentile([1.0, 2.0, 3.0, 4.0, 100.0], 95) == 100.0
    assert validation.percentile([1.0, 2.0, 3.0, 4.0, 100.0], 50) == 3.0


@pytest.mark.parametrize(
    ("p95", "before", "state"),
    [
        (400.0, None, "ok"),
        (500.0, None, "warning"),
        (2000.0, None, "critical"),
        (400.0, 200.0, "warning"),
        (290.0, 200.0, "ok"),
        (3.0, 1.0, "ok"),  # three times as long, but a difference that nobody feels
    ],
)
def test_latency_is_judged_by_target_and_by_what_it_was_before(p95, before, state):
    given = endpoint("http://host/", p95_ms=500.0, critical_ms=2000.0)
    assert validation.judge_latency("health", given, 10.0, p95, before, 50.0).state == state


def test_a_slow_median_is_a_warning_of_its_own():
    assert validation.judge_latency("x", endpoint("http://host/", p50_ms=100.0), 150.0, 160.0, None, 50.0).state == "warning"


def test_an_application_that_became_slower_is_seen_against_the_baseline():
    slow = {"now": False}

    def answer(_path, _number):
        time.sleep(0.15 if slow["now"] else 0)
        return 200, {}, b""

    with web(answer) as (url, _asked):
        before = run(endpoints=[endpoint(url, name="health", samples=2)])
        slow["now"] = True
        after = run(endpoints=[endpoint(url, name="health", samples=2)], baseline=before.returned["baseline"])
    assert finding(before, "validation.latency").state == "ok"
    found = finding(after, "validation.latency")
    assert (found.state, "before the work" in found.summary) == ("warning", True)
    assert after.returned["baseline"] == before.returned["baseline"], "what it was before stays the measure"


def test_the_body_is_handed_over_for_its_assertions():
    checks = [{"query": "status", "equals": "healthy"}]
    with web(lambda *_: (200, {}, b'{"status": "healthy"}')) as (url, _asked):
        [body] = run(endpoints=[endpoint(url, name="health", body=checks)]).returned["bodies"]
    assert (body["name"], body["checks"]) == ("health", checks)
    assert json.loads(base64.b64decode(body["content"])) == {"status": "healthy"}


def test_a_token_is_read_from_a_file_on_the_host_and_never_shown(tmp_path):
    (tmp_path / "headers.json").write_text('{"Authorization": "Bearer topsecret"}')
    with web(lambda *_: (200, {}, b"")) as (url, asked):
        outcome = run(endpoints=[endpoint(url, headers_file=str(tmp_path / "headers.json"))])
    assert (outcome.returned["passed"], len(asked)) == (True, 1)
    assert "topsecret" not in json.dumps(outcome.record())


@pytest.mark.parametrize("content", [None, "{", "[]", '{"a": 1}', "\xff"])
def test_a_bad_headers_file_ends_in_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "headers.json").write_text(content, encoding="latin-1")
    with pytest.raises(MaintenanceError, match="headers_file"):
        run(endpoints=[endpoint("http://127.0.0.1:1/", headers_file=str(tmp_path / "headers.json"))])


# -- logs ---------------------------------------------------------------------------------------------------------------------


def log(folder, *entries):
    lines = [json.dumps({"timestamp": moment.isoformat(), "level": level, "message": text}) for moment, level, text in entries]
    (folder / "app.jsonl").write_text("\n".join(lines) + "\n")
    return [{"paths": [f"{folder}/*.jsonl"], "format": "auto", "name": "app"}]


def at(hour):
    return datetime(2026, 11, 21, hour, tzinfo=timezone.utc)


def test_only_critical_lines_since_the_work_began_count_fossa_post_05(tmp_path):
    old = log(tmp_path, (at(1), "CRITICAL", "before the window"), (at(3), "INFO", "started"))
    assert finding(run(logs=old, since=at(2).timestamp()), "validation.logs").state == "ok"
    new = log(tmp_path, (at(1), "CRITICAL", "before the window"), (at(3), "CRITICAL", "disk I/O error"))
    found = finding(run(logs=new, since=at(2).timestamp()), "validation.logs")
    assert (found.state, found.value) == ("critical", 1)
    assert "disk I/O error" in " ".join(found.evidence)


def test_logs_that_do_not_exist_are_unknown_fossa_post_05(tmp_path):
    logs = [{"paths": [f"{tmp_path}/missing/*.jsonl"], "format": "auto", "name": "app"}]
    assert finding(run(logs=logs, since=at(2).timestamp()), "validation.logs").state == "unknown"


# -- input --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"endpoints": [endpoint("http://host/", samples=0)]},
        {"endpoints": [endpoint("http://host/", samples=-1)]},
        {"endpoints": [endpoint("http://host/", samples=101)]},
        {"endpoints": [endpoint("http://host/", timeout_seconds=0.0)]},
        {"endpoints": [endpoint("http://host/", p95_ms=-1.0)]},
        {"endpoints": [endpoint("http://host/", critical_ms=float("nan"))]},
        {"endpoints": [endpoint("http://host/", status=[])]},
        {"endpoints": [endpoint("gopher://host/")]},
        {"slower_percent": -1.0},
        {"since": -1.0},
        {"units": [{"name": "db", "manager": "command", "status": [], "start": [], "stop": [], "enabled": True}]},
    ],
)
def test_bad_values_end_in_one_sentence(given):
    with pytest.raises(InputError, match="expected"):
        run(**given)
