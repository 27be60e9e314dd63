# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lines of a journal say: pure functions from what Ansible tells to the fields of a line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.record import STATES, STATUSES, clean, plain
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import finding

Line = dict[str, Any]

_ITEM_LIMIT = 200
_NUMBER_LIMIT = 2**63
"""What a database can hold as an integer."""
_PHASE = re.compile(r"^\s*([\w -]{1,40}?)\s*\|\s")
_FINDING_ID = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")
_RECORD: Line = {"subject": "", "operation": "", "status": "failed", "summary": "", "before": {}, "after": {}}
_PLAN: Line = {
    "system": "",
    "hosts": [],
    "window": None,
    "next_windows": [],
    "contacts": {},
    "checklist": [],
    "duties": [],
    "targets": {},
    "services": [],
    "budgets": {},
}
_OUTCOME: Line = {"reason": "", "downtime_seconds": None, "services_restored": None, "rollback_required": None}
_SIGNATURE: Line = {"duty": "", "system": "", "signed_by": "", "signed_at": "", "note": ""}
_DEFAULTS = {"plan": _PLAN, "outcome": _OUTCOME, "signature": _SIGNATURE}
OTHER_KINDS = tuple(_DEFAULTS)
"""Kinds that a task may hand over besides records."""


def phase_of(task_name: str) -> str:
    """Return the phase in a task's name: ``assess`` of ``Assess | List updates``; empty when it names none."""
    found = _PHASE.match(task_name)
    return found.group(1).lower() if found else ""


def item_of(result: Mapping[str, Any]) -> str:
    """Return the loop item a result belongs to, in a few words."""
    if result.get("_ansible_no_log"):
        return "(hidden by no_log)"
    item = result.get("_ansible_item_label", result.get(result.get("ansible_loop_var", "item"), ""))
    return "" if item is None else clean(item if isinstance(item, str) else str(plain(item)), _ITEM_LIMIT)


def record_from(given: Any, times: tuple[str, str]) -> Line:
    """Complete a record that a module handed over; what cannot be used in it becomes a finding.

    :param times: start and end for a record that has none.
    """
    if not isinstance(given, Mapping):
        given = {"operation": "record", "summary": "a task returned a maintenance_record that is not a mapping", "findings": [given]}
    record = {**_RECORD, "started": times[0], "finished": times[1], **{str(key): plain(given[key]) for key in given if key in _KNOWN}}
    for name in ("before", "after"):
        if not isinstance(record[name], dict):
            record[name] = {"value": record[name]}
    for name in ("subject", "operation", "summary"):
        record[name] = str(record[name])
    record["operation"] = record["operation"] or "unnamed"
    if record["status"] not in STATUSES:
        record["status"] = "failed"
    findings, bad = _sorted_out(given.get("findings"), _finding)
    record["findings"] = findings
    for name, complete in (("metrics", _metric), ("actions", _action)):
        record[name], more = _sorted_out(given.get(name), complete)
        bad += more
    if bad:
        summary = f"{bad} findings, metrics or actions of {record['operation']} are malformed and were left out."
        findings.append(finding("journal.malformed", "unknown", record["subject"], summary, "Report this as a defect of the module."))
    return record


_KNOWN = (*_RECORD, "started", "finished")


def _sorted_out(given: Any, complete: Any) -> tuple[list[Line], int]:
    """Return the usable items of a list, and how many are not."""
    if given is None:
        return [], 0
    if not isinstance(given, Sequence) or isinstance(given, str):
        return [], 1
    made = [complete(plain(item)) if isinstance(item, Mapping) else None for item in given]
    good = [item for item in made if item is not None]
    return good, len(made) - len(good)


def _finding(item: Line) -> Line | None:
    if not _FINDING_ID.match(str(item.get("id"))) or item.get("state") not in STATES:
        return None
    full = finding(item["id"], item["state"], str(item.get("subject", "")), str(item.get("summary", "")), "")
    full.update({key: item[key] if key == "value" else str(item[key]) for key in full if key in item and key != "evidence"})
    if full["basis"] not in ("exact", "sampled", "estimated", "stale"):
        full["basis"] = "estimated"
    if full["state"] != "ok" and not full["advice"]:
        full["advice"] = "Look at what the summary names."
    evidence = item.get("evidence")
    full["evidence"] = [str(line) for line in evidence[:20]] if isinstance(evidence, list) else []
    return full


def _metric(item: Line) -> Line | None:
    value = item.get("value")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _NUMBER_LIMIT:
        return None
    if not re.match(r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$", str(item.get("name"))):
        return None
    return {"name": item["name"], "subject": str(item.get("subject", "")), "value": value, "unit": str(item.get("unit", ""))}


def _action(item: Line) -> Line | None:
    if item.get("status") not in STATUSES:
        return None
    texts = {name: str(item.get(name, "")) for name in ("subject", "operation", "status", "summary")}
    states = {name: item[name] if isinstance(item.get(name), dict) else {} for name in ("before", "after")}
    return {**texts, **states}


def failure(operation: str, subject: str, message: str, handled: str, times: tuple[str, str]) -> Line:
    """Make the record of a task that failed and left none."""
    said = clean(" ".join(message.split())) or "it failed without a message"
    state = "warning" if handled else "critical"
    made = finding("task.failed", state, subject, f"{operation} failed: {said}", "Correct what the message names, then run again.")
    return record_from({"subject": subject, "operation": operation, "summary": said, "findings": [made]}, times)


def unreachable(host: str, message: str, times: tuple[str, str]) -> Line:
    """Make the record of a host that did not answer."""
    said = clean(" ".join(message.split())) or "no answer"
    advice = "Restore the connection (network, SSH key, host power), then run again; nothing on this host was looked at."
    made = finding("host.unreachable", "unknown", host, f"{host} could not be reached: {said}", advice)
    return record_from({"subject": host, "operation": "connect", "summary": said, "findings": [made]}, times)


def hidden(operation: str, subject: str, times: tuple[str, str]) -> Line:
    """Make the record of a task whose own record was hidden by ``no_log``."""
    summary = f"The record of {operation} is hidden by no_log on its task."
    advice = "Remove no_log from the task; secrets belong into parameters that the module itself hides."
    made = finding("journal.hidden", "unknown", subject, summary, advice)
    return record_from({"subject": subject, "operation": operation, "status": "skipped", "summary": summary, "findings": [made]}, times)


def is_other(given: Any) -> bool:
    """Whether a task handed over a line of one of the :data:`OTHER_KINDS`."""
    return isinstance(given, Mapping) and given.get("kind") in OTHER_KINDS


def other_line(given: Mapping[str, Any], host: str, system_of: Mapping[str, str]) -> Line:
    """Complete a plan, outcome or signature that a task handed over."""
    kind = given["kind"]
    line = {**_DEFAULTS[kind], **{str(key): value for key, value in given.items() if key != "kind"}}
    if kind == "outcome":
        line["host"] = str(line.get("host") or host)
        line["system"] = str(line.get("system") or system_of.get(line["host"], ""))
    if kind == "plan":
        line["hosts"] = [str(name) for name in line["hosts"]]
    return line


def missing_outcomes(
    system_of: Mapping[str, str], known: Mapping[str, str], dark: Mapping[str, str], failed: Mapping[str, str], touched: set[str]
) -> list[Line]:
    """Make an outcome for each planned host that has none when the run ends.

    :param dark: hosts that did not answer, with the message.
    :param failed: hosts that failed, with the last message.
    :param touched: hosts that have records; they are never ``not_attempted``.
    """
    lines = []
    for host, system in system_of.items():
        if host in known:
            continue
        if host in dark:
            outcome, reason = "unreachable", dark[host]
        elif host in failed:
            outcome, reason = "failed", failed[host]
        elif host in touched:
            outcome, reason = "failed", "The run ended before it was done with this host; its last records say up to where it came."
        else:
            outcome, reason = "not_attempted", "The run ended before it came to this host."
        lines.append({**_OUTCOME, "host": host, "system": system, "outcome": outcome, "reason": clean(reason)})
    return lines


def end(outcomes: Mapping[str, str], has_failures: bool, now: str) -> Line:
    """Make the last line of a run."""
    is_good = not has_failures and all(outcome == "completed" for outcome in outcomes.values())
    status = "completed" if is_good else "failed"
    return {"finished": now, "status": status, "hosts": dict(sorted(Counter(outcomes.values()).items()))}


def message_of(given: Mapping[str, Any]) -> str:
    """Return what a failed result says of itself."""
    if "censored" in given:
        return "its output is hidden by no_log"
    said = [str(given[key]).strip() for key in ("msg", "reason", "stderr", "module_stderr") if given.get(key)]
    return ": ".join(dict.fromkeys(said))


def handled_how(task: Any, fields: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Say what the playbook does about a failure: ``ignored``, ``rescued`` or nothing."""
    if fields.get("ignore_unreachable" if given.get("unreachable") else "ignore_errors"):
        return "ignored"
    if given.get("unreachable"):  # no block rescues that
        return ""
    child, parent = task, task._parent
    while parent is not None:
        if getattr(parent, "rescue", None) and any(item._uuid == child._uuid for item in parent.block):
            return "rescued"
        child, parent = parent, parent._parent
    return ""
