# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.module_utils.record import Finding, worst
from ansible_collections.ops.maintenance.plugins.plugin_utils.json_queries import query_problems

try:
    import jmespath
    from jmespath.exceptions import JMESPathError
except ImportError:
    jmespath, JMESPathError = None, ValueError


class ActionModule(ActionBase):
    """Run the module on the host; judge the bodies of the answers here, where JMESPath is at hand."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        problems = query_problems(self._task.args.get("endpoints") or [])
        if problems:
            return {**result, "failed": True, "msg": " ".join(problems), "error_kind": "input"}
        result.update(self._execute_module(task_vars=task_vars))
        findings = [judge_body(body, check) for body in result.pop("bodies", []) for check in body["checks"]]
        record = result.get("maintenance_record")
        if record is not None:
            record["findings"] += [finding.as_dict() for finding in findings]
            bad = [finding for finding in findings if finding.state != "ok"]
            if bad:
                record["summary"] += f"; {bad[0].summary}"
        if worst((finding.state for finding in findings), "ok") == "critical":
            result["passed"] = False
        return result


def judge_body(body: dict[str, Any], check: dict[str, Any]) -> Finding:
    """Judge one assertion on the body of an answer.

    :param body: ``name``, ``content`` (base64 or nothing) and ``why`` there is no content.
    :param check: ``query`` and, where the value must be a certain one, ``equals``; ``severity`` of another value.
    """
    severity = check.get("severity") or "critical"
    common: dict[str, Any] = {"id": "validation.body", "subject": body["name"], "threshold": f"{severity} unless {check['query']} fits"}
    if body["content"] is None:
        advice = "Mend the endpoint first."
        return Finding(state="unknown", summary=f"The body was not judged: {body['why']}.", advice=advice, **common)
    try:
        found = jmespath.search(check["query"], json.loads(base64.b64decode(body["content"])))
    except (ValueError, JMESPathError) as error:
        summary = f"The answer cannot be judged by {check['query']}: {error}."
        return Finding(state="critical", summary=summary, advice="The endpoint should answer with JSON.", **common)
    wanted = check.get("equals")
    same = found == wanted and isinstance(found, bool) == isinstance(wanted, bool)  # true is not 1 in JSON
    fits = same if wanted is not None else bool(found)
    expected = f"expected {wanted!r}" if wanted is not None else "expected something"
    return Finding(
        state="ok" if fits else severity,
        summary=f"{check['query']} is {found!r}" + ("." if fits else f", {expected}."),
        value=found if isinstance(found, (str, int, float, bool)) else None,
        advice="" if fits else "Read the application's log from the time of this run.",
        **common,
    )
