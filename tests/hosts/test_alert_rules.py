"""Rules judged by the real promtool and amtool, and a test alert that goes through a real Alertmanager to a real receiver."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from authority import wait_for

from ansible_collections.ops.maintenance.plugins.module_utils import alert_rules, http_probe
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import filled

GOOD = "groups:\n- name: g\n  rules:\n  - alert: Down\n    expr: up == 0\n    for: 5m\n  - record: x:y\n    expr: sum(up)\n"
TESTED = """rule_files: [{rules}]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - series: up{{job="a"}}
    values: {values}
  alert_rule_test:
  - eval_time: 6m
    alertname: Down
    exp_alerts: {expected}
"""
FIRES = "[{exp_labels: {job: a}}]"
PORT = 9093


def look(check=False, **given):
    outcome = alert_rules.run(filled(alert_rules.OPTIONS, given), check, Host())
    outcome.record()
    return outcome


def states(outcome):
    return [(finding.id.split(".")[1], finding.state, finding.value) for finding in outcome.findings]


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        (GOOD, "ok", "2 rules"),
        (GOOD.replace("up == 0", "up =="), "critical", "parse error"),
        (GOOD.replace("rules:", "rulez:"), "critical", "rulez"),
        (GOOD.replace("    for: 5m\n", "    annotations: {summary: '{{ $labels.x | nofunc }}'}\n"), "critical", "nofunc"),
        ("groups: []\n", "warning", "no rule"),
        ("", "warning", "no rule"),
        (GOOD + GOOD[GOOD.index("  - alert") :], "warning", "duplicate"),
    ],
)
def test_rules_are_judged_as_prometheus_judges_them(tmp_path, text, state, words):
    (tmp_path / "rules.yml").write_text(text)
    (found,) = look(rules=[{"path": str(tmp_path / "rules.yml"), "alerts": ["Down"] if state == "ok" else []}]).findings
    assert (found.state, words in found.summary) == (state, True), found.summary


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("route: {receiver: a}\nreceivers:\n- name: a\n", "ok"),
        ("route: {receiver: b}\nreceivers:\n- name: a\n", "critical"),
        ("route: {receiver: a}\nreceivers:\n- name: a\n  webhook_configs: [{urls: 'http://x'}]\n", "critical"),
    ],
)
def test_configurations_are_judged_as_alertmanager_judges_them(tmp_path, text, state):
    (tmp_path / "alertmanager.yml").write_text(text)
    (found,) = look(rules=[{"path": str(tmp_path / "alertmanager.yml"), "kind": "alertmanager"}]).findings
    assert found.state == state


@pytest.mark.parametrize(
    ("rules", "values", "expected", "state"),
    [
        ("rules.yml", "0x10", FIRES, "ok"),
        ("rules.yml", "1x10", "[]", "ok"),
        ("rules.yml", "1x10", FIRES, "critical"),
        ("rules.yml", "0x10", "[]", "critical"),
        ("gone.yml", "0x10", "[]", "critical"),
    ],
)
def test_rules_fire_as_their_tests_say(tmp_path, rules, values, expected, state):
    """A test that names no rules succeeds, where it expects that nothing fires."""
    (tmp_path / "rules.yml").write_text(GOOD)
    (tmp_path / "test.yml").write_text(TESTED.format(rules=rules, values=values, expected=expected))
    outcome = look(rules=[{"path": str(tmp_path / "rules.yml"), "tests": [str(tmp_path / "test*.yml")]}])
    assert states(outcome) == [("file", "ok", 2), ("tests", state, 1)]


def test_no_test_is_no_success(tmp_path):
    (tmp_path / "rules.yml").write_text(GOOD)
    (tmp_path / "none.yml").write_text("rule_files: [rules.yml]\ntests: []\n")
    paths = [str(tmp_path / "none.yml"), str(tmp_path / "absent.yml")]
    outcome = look(rules=[{"path": str(tmp_path / "rules.yml"), "tests": paths}])
    assert states(outcome)[1:] == [("tests", "warning", 0), ("tests", "critical", None)]


class Receiver(HTTPServer):
    """What somebody is told by."""

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.told = status, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told += [(alert["status"], alert["labels"], alert["annotations"]) for alert in told["alerts"]]
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@contextlib.contextmanager
def receiving(status=200):
    with Receiver(status) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def alertmanager(folder: pathlib.Path, *urls):
    """Run it with one receiver, which tells these URLs; alerts of drills go nowhere."""
    hooks = "".join(f"  - {{url: '{url}', http_config: {{}}}}\n" for url in urls)
    route = "route: {receiver: people, group_wait: 0s, group_by: [alertname], routes: [{match: {severity: none}, receiver: nobody}]}\n"
    receivers = f"receivers:\n- name: nobody\n- name: people\n  webhook_configs:\n{hooks}"
    (folder / "alertmanager.yml").write_text(route + receivers)
    argv = ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data"]
    listen = [f"--web.listen-address=127.0.0.1:{PORT}", "--cluster.listen-address="]
    with subprocess.Popen([*argv, *listen], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            wait_for(lambda: http_probe.fetch(f"http://127.0.0.1:{PORT}/-/ready").status == 200)
            yield
        finally:
            child.kill()


def deliver(check=False, **more):
    return look(check, deliveries=[{"name": "pager", "url": f"http://127.0.0.1:{PORT}/", "wait_seconds": 2.0, **more}])


def test_a_test_alert_arrives_says_so_and_is_taken_back(tmp_path):
    with receiving() as phone, receiving() as mail, alertmanager(tmp_path, phone.url, mail.url):
        planned = deliver(check=True)
        assert (planned.status, planned.findings) == ("due", [])
        assert not phone.told, "check mode sends nothing"
        done = deliver(labels={"severity": "critical"})
        assert states(done) == [("delivery", "ok", None)], done.findings[0].summary
        assert (done.status, "people" in done.findings[0].summary) == ("changed", True)
        for receiver in (phone, mail):
            ((status, labels, annotations),) = receiver.told
            assert (status, labels) == ("firing", {"alertname": "OpsMaintenanceTest", "severity": "critical"})
            assert "nothing to do" in annotations["summary"]
        assert done.findings[0].basis == "exact"
        left = json.loads(http_probe.fetch(f"http://127.0.0.1:{PORT}/api/v2/alerts").body)
        assert left == [], "it does not go on"


def test_what_went_out_among_other_alerts_is_an_estimate(tmp_path):
    with receiving() as phone, alertmanager(tmp_path, phone.url):
        other = json.dumps([{"labels": {"alertname": "Full"}}]).encode()
        assert http_probe.post(f"http://127.0.0.1:{PORT}/api/v2/alerts", other).status == 200
        (found,) = deliver().findings
        assert (found.state, found.basis, "another alert" in found.not_covered) == ("ok", "estimated", True)


def test_what_alertmanager_accepts_and_nobody_takes_is_critical(tmp_path):
    with receiving() as phone, receiving(500) as broken, alertmanager(tmp_path, phone.url, broken.url):
        refused = deliver()
        assert states(refused) == [("delivery", "critical", None)]
        assert "webhook did not take" in refused.findings[0].summary
        assert phone.told, "one of two channels works, which is not enough"
        nowhere = deliver(labels={"severity": "none"})
        assert states(nowhere) == [("delivery", "critical", None)]
        assert "sent nothing" in nowhere.findings[0].summary
        assert "nobody" in nowhere.findings[0].summary


def test_a_silence_over_everything_is_noticed(tmp_path):
    with receiving() as phone, alertmanager(tmp_path, phone.url):
        silence = ["amtool", f"--alertmanager.url=http://127.0.0.1:{PORT}", "silence", "add", "--comment=x", "--author=x", "alertname=~.+"]
        subprocess.run(silence, check=True, capture_output=True)
        held = deliver()
        assert (held.findings[0].state, "silence" in held.findings[0].summary, phone.told) == ("critical", True, [])


def test_no_alertmanager_there_tells_nobody():
    outcome = deliver()
    assert (states(outcome), outcome.actions, outcome.status) == ([("delivery", "critical", None)], [], "ok")
