# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON files, tools that prove nothing, counters, and a real web server; the real tools are in tests/hosts/test_alert_rules.py."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import alert_delivery, alert_rules
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import filled

GOOD = "groups:\n- name: g\n  rules:\n  - alert: Down\n    expr: up == 0\n  - record: x:y\n    expr: sum(up)\n"


class Tools(Host):
    """Tools that are there and say nothing, or that are not there."""

    def __init__(self, installed=True):
        self.installed = installed

    def which(self, name):
        return f"/usr/bin/{name}" if self.installed else None

    def run(self, argv, **_options):
        if not self.installed:
            raise MaintenanceError(f"The command {argv[0]} is not installed.")
        return Ran(argv, 0, "", "")


def look(tmp_path, name, text=GOOD, kind="prometheus", host=None, **more):
    (tmp_path / name).write_text(text)
    params = filled(alert_rules.OPTIONS, {"rules": [{"path": str(tmp_path / name), "kind": kind, **more}]})
    return [(finding.id, finding.state, finding.value) for finding in alert_rules.run(params, False, host or Tools()).findings]


@pytest.mark.parametrize("kind", ["prometheus", "alertmanager"])
@pytest.mark.parametrize("installed", [True, False])
def test_tools_that_say_nothing_or_are_missing_prove_nothing(tmp_path, kind, installed):
    assert look(tmp_path, "rules.yml", kind=kind, host=Tools(installed))[0][1] in ("unknown", "warning")
    tests = [str(tmp_path / "rules.yml")]
    assert look(tmp_path, "rules.yml", host=Tools(installed), tests=tests)[1][:2] == ("alert_rules.tests", "unknown")


def test_alerts_are_looked_for_by_name(tmp_path):
    rules = json.dumps({"groups": [{"rules": [{"alert": "Down"}]}]})
    assert look(tmp_path, "a.json", rules, "json", alerts=["Down"]) == [("alert_rules.file", "ok", 1)]
    assert look(tmp_path, "a.json", rules, "json", alerts=["Down", "Full"])[1:] == [("alert_rules.missing", "critical", 1)]


def test_json_of_prometheus_and_of_grafana(tmp_path):
    prometheus = json.dumps({"groups": [{"rules": [{"alert": "Down", "expr": "up == 0"}, {"record": "a", "expr": "b"}]}]})
    grafana = json.dumps({"groups": [{"rules": [{"title": "Disk full", "condition": "C", "data": []}]}]})
    assert look(tmp_path, "a.json", prometheus, "json", alerts=["Down"]) == [("alert_rules.file", "ok", 1)]
    assert look(tmp_path, "b.json", grafana, "json", alerts=["Disk full"]) == [("alert_rules.file", "ok", 1)]
    assert look(tmp_path, "c.json", "{}", "json") == [("alert_rules.file", "warning", None)]
    assert look(tmp_path, "d.json", "{", "json") == [("alert_rules.file", "critical", None)]


def test_nothing_there_nothing_declared_and_a_link(tmp_path):
    params = filled(alert_rules.OPTIONS, {"rules": [{"path": str(tmp_path / "*.yml"), "kind": "json"}]})
    assert alert_rules.run(params, False, Tools()).findings[0].state == "critical"
    (tmp_path / "link.yml").symlink_to("/etc/passwd")
    assert alert_rules.run(params, False, Tools()).findings[0].state == "unknown"
    assert alert_rules.run({**params, "rules": []}, False, Tools()).findings[0].state == "unknown"


@pytest.fixture
def server():
    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/-/healthy" else 503)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_what_fires_the_alerts_has_to_answer(server):
    endpoints = [{"name": path, "url": f"{server}{path}", "ca_file": None} for path in ("/-/healthy", "/-/ready")]
    endpoints.append({"name": "none", "url": "http://127.0.0.1:1/", "ca_file": None})
    outcome = alert_rules.run(filled(alert_rules.OPTIONS, {"endpoints": endpoints}), False, Tools())
    assert [(finding.state, finding.value) for finding in outcome.findings] == [("ok", 200), ("critical", 503), ("critical", 0)]


def test_what_cannot_be_meant():
    given_ones = {
        "rules": [{"path": "rules.yml", "kind": "json", "tests": ["t.yml"]}],
        "endpoints": [{"name": "a", "url": "file:///etc/passwd"}],
        "deliveries": [{"name": "a", "url": "ftp://x", "wait_seconds": 0.0}],
        "timeout_seconds": 0,
    }
    said = r"timeout_seconds.*rules\[\]\.path.*rules\[\]\.tests is.*rules\[\]\.tests are.*endpoints\[\]\.url.*deliveries\[\]\.url.*wait_seconds"
    with pytest.raises(InputError, match=said):
        alert_rules.run(filled(alert_rules.OPTIONS, given_ones), False, Tools())


METRICS = """alertmanager_notifications_total{{integration="webhook"}} {0}
alertmanager_notification_requests_total{{integration="webhook",receiver_name="a"}} {1}
alertmanager_notification_requests_failed_total{{integration="webhook"}} {2}
"""


@pytest.mark.parametrize(
    ("now", "taken", "still_open"),
    [
        ((7, 7, 1), [], []),
        ((8, 8, 1), ["webhook"], []),
        ((8, 7, 1), [], ["webhook"]),
        ((8, 9, 3), [], ["webhook"]),
        ((8, 10, 3), ["webhook"], []),
        ((9, 8, 1), [], ["webhook"]),
    ],
)
def test_an_attempt_that_failed_is_no_delivery(now, taken, still_open):
    """Alertmanager counts a notification when it begins it, and one that it will try again is no failed one."""
    before, after = (alert_delivery.counters(METRICS.format(*counts)) for counts in ((7, 7, 1), now))
    assert alert_delivery.progress(before, after)[:2] == (taken, still_open)


@given(st.text() | st.lists(st.sampled_from([*METRICS.format(1, "NaN", "-inf").splitlines(), "x", "{}"])).map("\n".join))
def test_any_metrics_are_read(text):
    alert_delivery.counters(text)


@given(
    st.one_of(
        st.text(), st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(json.dumps)
    )
)
def test_any_json_is_read(text):
    with contextlib.suppress(alert_rules.UnsoundError):
        assert isinstance(alert_rules.alerts_in(text), set)


class Manager(BaseHTTPRequestHandler):
    """An Alertmanager whose answers to posted alerts are given, one after the other."""

    answers: list
    counts = 0

    def do_GET(self):
        body = TAKEN.format(count=self.counts) if self.path == "/metrics" else "[]"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).counts += 1
        self.send_response(self.answers.pop(0))
        self.end_headers()

    def log_message(self, *_arguments):
        pass


TAKEN = """alertmanager_notifications_total{{integration="email"}} {count}
alertmanager_notification_requests_total{{integration="email"}} {count}
"""


@pytest.mark.parametrize(
    ("answers", "state", "said"),
    [
        ([200, 200], "ok", "was sent and taken back"),
        ([200, 500], "ok", "could not be taken back"),
        ([500], "critical", "could not be sent"),
    ],
)
def test_what_is_said_of_a_test_alert_is_what_became_of_it(answers, state, said):
    handler = type("Told", (Manager,), {"answers": answers, "counts": 0})
    with HTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        entry = filled(
            alert_delivery.OPTIONS, {"name": "mail", "url": f"http://127.0.0.1:{running.server_address[1]}", "wait_seconds": 5.0}
        )
        finding, action = alert_delivery.Delivery(entry, Host(), 5.0).send()
        running.shutdown()
    assert (finding.state, said in action.summary) == (state, True)
