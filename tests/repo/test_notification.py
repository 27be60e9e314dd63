"""What stakeholders are told: `announce.yml` as a timer runs it, an extension, and a test notice that really arrives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import journals, read_journal

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def window(hours: float) -> dict[str, Any]:
    start = datetime.now(UTC).replace(tzinfo=None, second=0, microsecond=0) + timedelta(hours=hours)
    return {"weekly": {"rule": "FREQ=WEEKLY", "start": start.isoformat(), "duration_minutes": 120, "timezone": "UTC"}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    def system(name: str, hours: float) -> dict[str, Any]:
        given = {
            "maintenance_title": name.title(),
            "maintenance_windows": window(hours),
            "maintenance_mode_services": [{"name": f"{name}.service"}],
            "notification_channels": [{"kind": "file", "path": str(tmp_path / f"{name}.txt")}],
        }
        return {"hosts": {f"{name}1": {}, f"{name}2": {}}, "vars": given}

    groups = {"soon": system("soon", 20), "later": system("later", 40)}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"maintained": {"children": groups}}))
    return tmp_path


def play(site: Path, playbook: str, *argv: str) -> tuple[str, list[dict[str, Any]]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "OPS_MAINTENANCE_"))}
    env |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "OPS_MAINTENANCE_JOURNAL_DIR": str(site / "journal"), "NO_COLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(ROOT / "playbooks" / playbook), "-i", str(site / "hosts.yml")]
    done = subprocess.run([*command, *argv], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = read_journal(str(next(journals(str(site / "journal"))))).lines
    return done.stdout, [line for line in lines if line["kind"] == "record" and line["operation"] == "notify"]


def test_announce_tells_each_system_once_and_only_within_a_day_of_its_window(site):
    _said, checked = play(site, "announce.yml", "--check")
    assert {record["status"] for record in checked} == {"ok", "due"}
    assert not (site / "soon.txt").exists()
    for status in ("changed", "ok"):
        _said, records = play(site, "announce.yml")
        found = {(record["subject"], record["status"], finding["id"]) for record in records for finding in record["findings"]}
        assert found == {
            ("soon", status, "notification.delivery"),
            ("later", "ok", "notification.window"),
            *((system, "ok", "notification.overrun") for system in ("soon", "later")),
        }
        assert {record["host"] for record in records} == {"soon1", "later1"}
        text = (site / "soon.txt").read_text()
    assert text.startswith("Planned maintenance of Soon: ")
    assert "Services affected: soon.service" in text
    assert "- database maintenance" in text
    assert not (site / "later.txt").exists()


def test_extend_tells_the_revised_timeline(site):
    inventory = yaml.safe_load((site / "hosts.yml").read_text())
    inventory["maintained"]["children"]["soon"]["vars"]["maintenance_windows"] = window(-1)
    (site / "hosts.yml").write_text(yaml.safe_dump(inventory))
    new_end = (datetime.now(UTC) + timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M")
    play(site, "extend.yml", "--limit", "soon", "-e", f"notification_new_end={new_end}", "-e", 'notification_reason="a slow disk"')
    assert "Reason: a slow disk" in (site / "soon.txt").read_text()


@pytest.fixture
def receiver() -> Iterator[Any]:
    """Keeps the notices that a webhook gets, in `got`."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_what: Any) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.got = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_log_rotation_sends_a_test_notice_only_where_asked(site, receiver):
    """It arrives once, with the code that its recipient can name; no status page shows it, and not asked it does not leave."""
    inventory = yaml.safe_load((site / "hosts.yml").read_text())
    for system in ("soon", "later"):
        known = inventory["maintained"]["children"][system]["vars"]
        url = f"http://127.0.0.1:{receiver.server_address[1]}/{system}"
        known["notification_channels"].append({"kind": "webhook", "url": url})
        known |= {"log_rotation_test_notice": system == "soon", "maintenance_state_dir": str(site / f"state-{system}")}
    (site / "hosts.yml").write_text(yaml.safe_dump(inventory))
    tasks = [{"ansible.builtin.include_role": {"name": "ops.maintenance.log_rotation"}}]
    play_ = {"hosts": "soon1,later1", "connection": "local", "gather_facts": False, "tasks": tasks}
    play_["vars"] = {"ansible_python_interpreter": sys.executable}
    (site / "logs.yml").write_text(yaml.safe_dump([play_]))
    for status in ("changed", "ok"):
        _said, records = play(site, str(site / "logs.yml"))
        assert [(record["subject"], record["status"]) for record in records] == [("soon", status)]
        [got] = receiver.got
        assert "TEST of the notices of Soon: nothing has happened" in got
        assert records[0]["after"]["code"] in json.loads(got)["text"]
    assert not (site / "soon.txt").exists()
