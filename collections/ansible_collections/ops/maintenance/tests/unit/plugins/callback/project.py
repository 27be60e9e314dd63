# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A project in a temporary folder: a copy of this collection with a role and two plugins that only tests have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

COLLECTION = Path(__file__).resolve().parents[4]

PROBE_MODULE = """
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ops.maintenance.plugins.module_utils.record import Action, Finding, Metric, Outcome
import datetime, time

def main():
    module = AnsibleModule(
        argument_spec={"subject": {"default": "thing"}, "state": {"default": "ok"}, "fail": {"type": "bool", "default": False},
                       "change": {"type": "bool", "default": False}, "sleep": {"type": "float", "default": 0.0},
                       "password": {"no_log": True}, "before": {"type": "dict", "default": {}}, "summary": {"default": "looked"}},
        supports_check_mode=True)
    p = module.params
    started = datetime.datetime.now(datetime.timezone.utc).isoformat()
    time.sleep(p["sleep"])
    status = "failed" if p["fail"] else ("due" if module.check_mode else "changed") if p["change"] else "ok"
    found = Finding("probe.state", p["state"], p["subject"], p["summary"], 5, "count", advice="Look.")
    actions = [Action(p["subject"], "touch", status, "did it", {"a": 1}, {"a": 2})] if p["change"] else []
    record = Outcome(p["subject"], "probe", status, p["summary"], p["before"], {}, [found], [Metric("probe.size", p["subject"], 7, "bytes")], actions).record()
    record.update(started=started, finished=datetime.datetime.now(datetime.timezone.utc).isoformat())
    result = dict(changed=p["change"], maintenance_record=record)
    if p["fail"]:
        module.fail_json(msg="the probe failed", **result)
    module.exit_json(**result)

if __name__ == "__main__":
    main()
"""

HAND_OVER_ACTION = """
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        result.update(changed=False, **self._task.args)
        return result
"""


class Project:
    """Runs ``ansible-playbook`` in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journals = root / "state" / "journal"
        self.collection = root / "collections" / "ansible_collections" / "ops" / "maintenance"
        ignore = shutil.ignore_patterns("__pycache__", "roles", "tests", "playbooks")
        shutil.copytree(COLLECTION, self.collection, ignore=ignore)
        self.write("collections/ansible_collections/ops/maintenance/plugins/modules/probe.py", PROBE_MODULE)
        self.write("collections/ansible_collections/ops/maintenance/plugins/action/hand_over.py", HAND_OVER_ACTION)
        self.write("collections/ansible_collections/ops/maintenance/plugins/modules/hand_over.py", "")
        self.write(
            "inventory/hosts",
            "here ansible_connection=local\nthere ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_common_args='-o ConnectTimeout=3'\n",
        )

    def write(self, name: str, content: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def role(self, content: str, name: str = "probed") -> None:
        """Write the tasks of a role of the collection."""
        self.write(f"collections/ansible_collections/ops/maintenance/roles/{name}/tasks/main.yml", content)

    def env(self, **more: str) -> dict[str, str]:
        """Return the environment of a run; nothing of the caller's Ansible settings is in it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "OPS_", "PYTHONPATH", "NO_COLOR"))}
        return {
            **kept,
            "ANSIBLE_COLLECTIONS_PATH": f"{self.root}/collections",
            "ANSIBLE_CALLBACKS_ENABLED": "ops.maintenance.journal",
            "ANSIBLE_HOME": f"{self.root}/home",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "OPS_MAINTENANCE_JOURNAL_DIR": str(self.journals),
            **more,
        }

    def command(self, *playbooks: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command of a run."""
        return [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/hosts", *options, *playbooks]

    def run(self, *playbooks: str, options: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
        """Run playbooks to their end."""
        command = self.command(*playbooks, options=options)
        return subprocess.run(command, cwd=self.root, env=self.env(**env), capture_output=True, text=True, check=False, timeout=120)

    def journal_files(self) -> list[Path]:
        """Return the journals, in the order of their names."""
        return sorted(self.journals.glob("*.jsonl"))


def of_kind(lines: list[dict[str, Any]], kind: str, **equal: Any) -> list[dict[str, Any]]:
    """Return the lines of a kind whose fields have these values."""
    return [line for line in lines if line["kind"] == kind and all(line.get(name) == value for name, value in equal.items())]
