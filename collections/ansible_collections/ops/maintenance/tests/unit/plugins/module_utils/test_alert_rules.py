# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What promtool and amtool of Debian 12 answered, JSON files, and a real web server."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import alert_rules
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran

GOOD = "groups:\n- name: g\n  rules:\n  - alert: Down\n    expr: up == 0\n  - record: x:y\n    expr: sum(up)\n"
ANSWERS = {
    "good.yml": (0, "Checking good.yml\n  SUCCESS: 2 rules found\n\n", ""),
    "bad.yml": (
        1,
        "Checking bad.yml\n",
        '  FAILED:\nbad.yml: 5:11: group "g", rule 1, "Down": could not parse expression: 1:6: parse error: unexpected end of input\n',
    ),
    "empty.yml": (0, "Checking empty.yml\n  SUCCESS: 0 rules found\n\n", ""),
    "mute.yml": (0, "", ""),
    "am.yml": (0, "Checking 'am.yml'  SUCCESS\nFound:\n - global config\n - route\n - 1 receivers\n", ""),
    "ambad.yml": (
        1,
        "Checking 'ambad.yml'  FAILED: undefined receiver \"b\" used in route\n",
        "amtool: error: failed to validate 1 file(s)\n",
    ),
}


class Tools(Host):
    """The tools as they answered of these files."""

    def __init__(self, installed=True):
        self.installed = installed

    def which(self, name):
        return f"/usr/bin/{name}" if self.installed else None

    def run(self, argv, **_options):
        return Ran(argv, *ANSWERS[argv[-1].rpartition("/")[2]])


def look(tmp_path, name, text=GOOD, kind="prometheus", host=None, alerts=()):
    (tmp_path / name).write_text(text)
    rules = [{"path": str(tmp_path / name), "kind": kind, "alerts": list(alerts)}]
    params = {"rules": rules, "endpoints": [], "timeout_seconds": 5.0}
    return [(finding.id, finding.state, finding.value) for finding in alert_rules.run(params, False, host or Tools()).findings]


def test_files_of_prometheus_and_alertmanager(tmp_path):
    assert look(tmp_path, "good.yml") == [("alert_rules.file", "ok", 2)]
    assert look(tmp_path, "bad.yml") == [("alert_rules.file", "critical", None)]
    assert look(tmp_path, "am.yml", kind="alertmanager") == [("alert_rules.file", "ok", 1)]
    assert look(tmp_path, "ambad.yml", kind="alertmanager") == [("alert_rules.file", "critical", None)]


def test_a_success_of_no_rule_and_no_answer_are_not_ok(tmp_path):
    assert look(tmp_path, "empty.yml", "") == [("alert_rules.file", "warning", None)]
    assert look(tmp_path, "mute.yml") == [("alert_rules.file", "unknown", None)]
    assert look(tmp_path, "good.yml", host=Tools(installed=False)) == [("alert_rules.file", "unknown", None)]


def test_alerts_are_looked_for_by_name(tmp_path):
    assert look(tmp_path, "good.yml", alerts=["Down"]) == [("alert_rules.file", "ok", 2)]
    assert look(tmp_path, "good.yml", alerts=["Down", "Full"])[1:] == [("alert_rules.missing", "critical", 1)]


def test_json_of_prometheus_and_of_grafana(tmp_path):
    prometheus = json.dumps({"groups": [{"rules": [{"alert": "Down", "expr": "up == 0"}, {"record": "a", "expr": "b"}]}]})
    grafana = json.dumps({"groups": [{"rules": [{"title": "Disk full", "condition": "C", "data": []}]}]})
    assert look(tmp_path, "a.json", prometheus, "json", alerts=["Down"]) == [("alert_rules.file", "ok", 1)]
    assert look(tmp_path, "b.json", grafana, "json", alerts=["Disk full"]) == [("alert_rules.file", "ok", 1)]
    assert look(tmp_path, "c.json", "{}", "json") == [("alert_rules.file", "warning", None)]
    assert look(tmp_path, "d.json", "{", "json") == [("alert_rules.file", "critical", None)]


def test_nothing_there_nothing_declared_and_a_link(tmp_path):
    params = {"rules": [{"path": str(tmp_path / "*.yml"), "kind": "json", "alerts": []}], "endpoints": [], "timeout_seconds": 5.0}
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
    outcome = alert_rules.run({"rules": [], "endpoints": endpoints, "timeout_seconds": 5.0}, False, Tools())
    assert [(finding.state, finding.value) for finding in outcome.findings] == [("ok", 200), ("critical", 503), ("critical", 0)]


def test_what_cannot_be_meant():
    params = {
        "rules": [{"path": "rules.yml", "kind": "json", "alerts": []}],
        "endpoints": [{"url": "file:///etc/passwd"}],
        "timeout_seconds": 0,
    }
    with pytest.raises(InputError, match=r"timeout_seconds.*rules\[\]\.path.*endpoints\[\]\.url"):
        alert_rules.run(params, False, Tools())


@given(
    st.one_of(
        st.text(), st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(json.dumps)
    )
)
def test_any_json_is_read(text):
    with contextlib.suppress(alert_rules.UnsoundError):
        assert isinstance(alert_rules.alerts_in(text), set)
