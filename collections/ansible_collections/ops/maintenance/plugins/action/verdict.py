# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.entry import NO_JOURNAL
from ansible_collections.ops.maintenance.plugins.plugin_utils import control
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import read_journal

LEVELS = ("never", "failed", "critical", "unknown", "warning")


class ActionModule(ActionBase):
    """Turn the outcomes of all hosts into the exit status of the run."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "fail_on": {"type": "str", "default": "failed", "choices": list(LEVELS)},
                "of": {"type": "str", "default": "maintenance", "choices": ["maintenance", "scan"]},
                "ids": {"type": "list", "elements": "str", "default": ["*"]},
            }
        )
        journal = os.environ.get(control.JOURNAL, "")
        if not journal or not os.path.exists(journal):
            return {**result, "failed": True, "msg": f"Nothing says how the run ended. {NO_JOURNAL}"}
        if given["of"] == "scan":
            problems, counts = scanned(read_journal(journal).lines, given["fail_on"], given["ids"]), {}
        else:
            problems, counts = judge(read_journal(journal).lines, given["fail_on"])
        result.update(changed=False, hosts=counts, problems=problems, failed=bool(problems))
        fine = f"Every host was maintained: {_told(counts)}." if counts else "What was scanned meets the gate."
        result["msg"] = " ".join(problems) if problems else fine
        return result


def judge(lines: list[dict[str, Any]], fail_on: str) -> tuple[list[str], dict[str, int]]:
    """Return what speaks against exit status 0, and how many hosts had which outcome.

    :param fail_on: the mildest thing that fails the run; each level includes those before it.
    """
    level = LEVELS.index(fail_on)
    outcomes = {line["host"]: line for line in lines if line["kind"] == "outcome"}
    counts = dict(Counter(line["outcome"] for line in outcomes.values()))
    if level == 0:
        return [], counts
    problems = [
        f"{host}: {line['outcome']}{' (' + line['reason'].strip() + ')' if line.get('reason') else ''}."
        for host, line in sorted(outcomes.items())
        if line["outcome"] != "completed"
    ]
    if not outcomes:
        problems.append("No host has an outcome: nothing was maintained.")
    records = [line for line in lines if line["kind"] == "record"]
    broken = [line for line in records if line["status"] == "failed" and outcomes.get(line["host"], {}).get("outcome") == "completed"]
    problems += [f"{line['host']}: {line['operation']} failed ({line['summary']})." for line in broken]
    return [*problems, *_found(records, level)][:20], counts


def scanned(lines: list[dict[str, Any]], fail_on: str, ids: Sequence[str] = ("*",)) -> list[str]:
    """Return what speaks against a scan: nothing was looked at, a look failed, or something was found that nobody waived.

    :param ids: patterns of the findings that the scan is for.
    """
    records = [
        {**line, "findings": [found for found in line["findings"] if any(fnmatchcase(found["id"], pattern) for pattern in ids)]}
        for line in lines
        if line["kind"] == "record"
    ]
    problems = [f"{line['host']}: {line['operation']} failed ({line['summary']})." for line in records if line["status"] == "failed"]
    if not any(line["findings"] for line in records):
        problems.append("No finding: nothing was scanned.")
    return [*problems, *_found(records, LEVELS.index(fail_on))][:20] if fail_on != "never" else []


def _found(records: list[dict[str, Any]], level: int) -> list[str]:
    """Say of each state that counts how many findings have it, waived ones left out."""
    problems = []
    for state in LEVELS[2 : level + 1]:
        found = [f for line in records for f in line["findings"] if f["state"] == state and not f.get("waived")]
        if found:
            problems.append(f"{len(found)} findings are {state}; the first: {found[0]['summary']}")
    return problems


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
