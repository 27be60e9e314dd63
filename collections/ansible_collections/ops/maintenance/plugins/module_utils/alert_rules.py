# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the declared alert rules there, sound, not empty and do they fire as their tests say; does what fires them answer and tell somebody."""

from __future__ import annotations

import glob
import json
import os
import re
import typing as t

from . import alert_delivery, alert_tests, http_probe
from .errors import InputError, MaintenanceError, out_of_range, refusal, refuse
from .host import Host
from .judge import many
from .paths import open_regular
from .record import Action, Finding, Metric, Outcome, clean, status_of

OPTIONS: dict[str, t.Any] = {
    "rules": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "kind": {"type": "str", "default": "prometheus", "choices": ["alertmanager", "json", "prometheus"]},
            "alerts": {"type": "list", "elements": "str", "default": []},
            "tests": {"type": "list", "elements": "str", "default": []},
        },
    },
    "endpoints": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "ca_file": {"type": "path"},
        },
    },
    "deliveries": {"type": "list", "elements": "dict", "default": [], "options": alert_delivery.OPTIONS},
    "timeout_seconds": {"type": "float", "default": 10.0},
}

SUBJECT = "alert rules"
TOOLS = {"prometheus": ("promtool", "check", "rules"), "alertmanager": ("amtool", "check-config")}
"""What checks a kind of file; YAML is not read here."""

_LIMIT = 16 * 1024 * 1024
_RULES = re.compile(r"SUCCESS: (\d+) rules? found")
_ALERT = re.compile(r"^\s*(?:-\s+)?alert:\s*[\"']?([^\"'#\n]+)", re.MULTILINE)


class UnsoundError(Exception):
    """Why a file is no good: state, what, and what to do."""

    def __init__(self, state: str, what: str, advice: str) -> None:
        super().__init__(what)
        self.state, self.advice = state, advice


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("timeout_seconds",), least=0.1)
    problems += [
        str(InputError.of("rules[].path", entry["path"], "an absolute path or pattern", "write it from the root on"))
        for entry in params["rules"]
        if not os.path.isabs(entry["path"])
    ]
    for entry in params["rules"]:
        problems += [
            str(InputError.of("rules[].tests", path, "an absolute path or pattern", "write it from the root on"))
            for path in entry["tests"]
            if not os.path.isabs(path)
        ]
        if entry["tests"] and entry["kind"] != "prometheus":
            problems.append(
                f"rules[].tests are given for {entry['path']!r} of kind {entry['kind']}, expected kind prometheus; remove them."
            )
    for option in ("endpoints", "deliveries"):
        problems += [problem for entry in params[option] for problem in refusal(http_probe.check_url, entry["url"], f"{option}[].url")]
    return problems + [problem for entry in params["deliveries"] for problem in out_of_range(entry, ("wait_seconds",), 1, 600)]


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every file, ask every endpoint, and send the test alerts that are asked for."""
    refuse(input_problems(params))
    findings = [finding for entry in params["rules"] for finding in _of_pattern(entry, host, params["timeout_seconds"])]
    findings += [finding for entry in params["rules"] if entry["tests"] for finding in alert_tests.look(entry["tests"], host)]
    findings += [_health(entry, params["timeout_seconds"]) for entry in params["endpoints"]]
    actions: list[Action] = []
    for entry in params["deliveries"]:
        if check_mode:
            actions.append(Action(clean(entry["name"], 100), "test_alert", "due", "a test alert is to be sent"))
            continue
        finding, action = alert_delivery.Delivery(entry, host, params["timeout_seconds"]).send()
        findings.append(finding)
        actions += [action] if action.status == "changed" else []
    if not findings and not actions:
        advice = "Declare the files of the rules, and where Prometheus or Alertmanager answer."
        findings = [Finding("alert_rules.file", "unknown", SUBJECT, "Nothing is declared, so nothing was looked at.", advice=advice)]
    bad = sum(finding.state != "ok" for finding in findings)
    metrics = [
        Metric("alert_rules.rules", f.subject, f.value, "count") for f in findings if f.id == "alert_rules.file" and f.value is not None
    ]
    return Outcome(
        SUBJECT,
        "alert_rules",
        status_of(actions, check_mode),
        f"{bad} of {many(len(findings), 'finding')} need attention",
        findings=findings,
        metrics=metrics,
        actions=actions,
    )


def _of_pattern(entry: t.Mapping[str, t.Any], host: Host, timeout: float) -> list[Finding]:
    paths = sorted(glob.glob(entry["path"]))
    if not paths:
        advice = "Correct the path, or put the rules in place; without them nobody is told."
        return [
            Finding(
                "alert_rules.file",
                "critical",
                clean(entry["path"], 200),
                "No file of rules is there.",
                value=0,
                unit="count",
                advice=advice,
            )
        ]
    found, defined = [], set()
    for path in paths:
        try:
            count, names, said = _look(path, entry["kind"], host, timeout)
        except UnsoundError as problem:
            found.append(Finding("alert_rules.file", problem.state, clean(path, 200), clean(str(problem), 400), advice=problem.advice))
            continue
        defined |= names
        found.append(Finding("alert_rules.file", "ok", clean(path, 200), said, value=count, unit="count", threshold="warning below 1 rule"))
    missing = sorted(set(entry["alerts"]) - defined)
    if missing and all(finding.state == "ok" for finding in found):
        found.append(
            Finding(
                "alert_rules.missing", "critical", clean(entry["path"], 200), f"{many(len(missing), 'declared alert')} in no file.",
                value=len(missing), unit="count", threshold="critical from 1 count", evidence=missing, advice="Add the rules, or correct their names.",
            )
        )  # fmt: skip
    return found


def _look(path: str, kind: str, host: Host, timeout: float) -> tuple[int, set[str], str]:
    """Return how many rules a sound file holds, the names of its alerts, and a sentence.

    :raises UnsoundError: it is not sound, empty, or could not be looked at.
    """
    try:
        with open_regular(path) as source:
            text = source.read(_LIMIT).decode("utf-8", "replace")
    except (OSError, MaintenanceError) as error:
        raise UnsoundError("unknown", f"It cannot be read: {error}", "Let the module read the file itself, not a link.") from None
    if kind == "json":
        names = alerts_in(text)
        count = len(names)
    else:
        count, names = _by_tool(path, kind, host, timeout), {clean(name.strip(), 100) for name in _ALERT.findall(text)}
    if not count:
        raise UnsoundError(
            "warning", "It is sound, but holds no rule.", "Put the rules in place; a check of an empty file always succeeds."
        )
    return count, names, f"{many(count, 'rule')} in a sound file, {many(len(names), 'alert')} by name."


def _by_tool(path: str, kind: str, host: Host, timeout: float) -> int:
    tool = TOOLS[kind]
    if host.which(tool[0]) is None:
        raise UnsoundError(
            "unknown",
            f"{tool[0]} is not installed, so the file could not be checked.",
            f"Install {tool[0]}, or check the file where it is made.",
        )
    try:
        ran = host.run([*tool, path], timeout=max(timeout, 30))
    except MaintenanceError as error:
        raise UnsoundError("unknown", str(error), f"Run {' '.join(tool)} by hand.") from None
    counted = _RULES.search(ran.stdout)
    if ran.rc == 0 and "lint error" in ran.stderr:
        said = " ".join(line.strip() for line in ran.stderr.splitlines() if line.strip() not in ("", "FAILED:"))
        raise UnsoundError("warning", f"{tool[0]} warns: {clean(said, 300)}", "Remove what is there twice; Prometheus loads both.")
    if ran.rc or "FAILED" in ran.stdout or "FAILED" in ran.stderr:
        lines = [line for line in f"{ran.stdout}\n{ran.stderr}".splitlines() if line.strip() and not line.startswith("Checking ")]
        raise UnsoundError(
            "critical",
            f"{tool[0]} refuses it: {' '.join(lines)[:300]}",
            "Correct the file; at its next start the service refuses it as a whole.",
        )
    if kind == "alertmanager":
        return int("SUCCESS" in ran.stdout)
    if counted is None:
        raise UnsoundError("unknown", f"{tool[0]} said nothing of rules: {ran.why()}", f"Run {' '.join(tool)} by hand.")
    return int(counted.group(1))


def alerts_in(text: str) -> set[str]:
    """Return the names of the alerts in a JSON file: rules as Prometheus has them, or as Grafana exports them.

    :raises UnsoundError: it is no JSON.
    """
    try:
        top = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnsoundError("critical", f"It is no JSON ({error}).", "Correct the file; nothing in it is in force.") from None
    names, open_ends = set(), [top]
    while open_ends:
        one = open_ends.pop()
        if isinstance(one, dict):
            name = one.get("alert") or (one.get("title") if "condition" in one and "data" in one else None)
            if isinstance(name, str):
                names.add(clean(name, 100))
            open_ends.extend(one.values())
        elif isinstance(one, list):
            open_ends.extend(one)
    return names


def _health(entry: t.Mapping[str, t.Any], timeout: float) -> Finding:
    answer = http_probe.fetch(entry["url"], timeout=timeout, ca_file=entry["ca_file"])
    state = "ok" if answer.status == 200 else "critical"
    return Finding(
        "alert_rules.health", state, clean(entry["name"], 100), f"{clean(entry['name'], 100)} {answer.told()}.", value=answer.status, unit="status",
        threshold="critical unless 200", advice="" if state == "ok" else "Start it or correct the URL; meanwhile nobody is told of anything.",
    )  # fmt: skip
