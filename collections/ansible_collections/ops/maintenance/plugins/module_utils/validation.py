# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the system work: units, endpoints, logs, and the same compared with before."""

from __future__ import annotations

import base64
import json
import math
import os
import typing as t
from datetime import datetime, timezone

from . import undo
from .errors import InputError, MaintenanceError, out_of_range, refusal, refuse
from .host import Host
from .http_probe import BODY_LIMIT_BYTES, Answer, check_url, fetch
from .judge import from_limit, limits
from .log_lines import critical_since
from .paths import open_regular
from .record import Action, Finding, Metric, Outcome, status_of

OPTIONS: dict[str, t.Any] = {
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "manager": {"type": "str", "default": "systemd", "choices": ["systemd", "command"]},
            "start": {"type": "list", "elements": "str", "default": []},
            "stop": {"type": "list", "elements": "str", "default": []},
            "status": {"type": "list", "elements": "str", "default": []},
            "enabled": {"type": "bool", "default": True},
        },
    },
    "start_inactive": {"type": "bool", "default": False},
    "endpoints": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "url": {"type": "str", "required": True},
            "name": {"type": "str", "default": ""},
            "status": {"type": "list", "elements": "int", "default": [200]},
            "body": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "query": {"type": "str", "required": True},
                    "equals": {"type": "raw"},
                    "severity": {"type": "str", "choices": ["critical", "warning"], "default": "critical"},
                },
            },
            "samples": {"type": "int", "default": 5},
            "p50_ms": {"type": "float"},
            "p95_ms": {"type": "float"},
            "critical_ms": {"type": "float"},
            "timeout_seconds": {"type": "float", "default": 10},
            "headers_file": {"type": "path"},
            "ca_file": {"type": "path"},
        },
    },
    "logs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "paths": {"type": "list", "elements": "str", "required": True},
            "format": {"type": "str", "default": "auto"},
            "name": {"type": "str", "default": ""},
        },
    },
    "since": {"type": "float", "default": 0.0},
    "baseline": {"type": "dict", "default": {}},
    "slower_percent": {"type": "float", "default": 50.0},
}
_SLOWER_AT_LEAST_MS = 20.0


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at everything that was declared; change nothing but, where asked, start what does not run."""
    refuse(input_problems(params))
    outcome = Outcome("application", "validation", "ok", "")
    measured: dict[str, t.Any] = {"units": {}, "p95_ms": {}}
    for unit in params["units"]:
        _look_at_unit(unit, params, check_mode, outcome, measured)
    bodies = [_look_at_endpoint(endpoint, params, outcome, measured) for endpoint in params["endpoints"]]
    if params["logs"]:
        outcome.findings.append(_critical_lines(params, host))
    if not outcome.findings:
        outcome.findings.append(
            Finding(
                id="validation.declared",
                state="unknown",
                subject="application",
                summary="No unit, endpoint or log is declared, so nothing says whether the application works.",
                advice="Declare validation_units and validation_endpoints in the inventory.",
            )
        )
    bad = [finding for finding in outcome.findings if finding.state != "ok"]
    looked = len(outcome.findings)
    outcome.summary = f"{looked - len(bad)} of {looked} checks are ok" + (f"; first problem: {bad[0].summary}" if bad else "")
    outcome.status = status_of(outcome.actions, check_mode)
    # nothing declared is no proof that anything works
    failed = any(finding.state == "critical" or finding.id == "validation.declared" for finding in outcome.findings)
    outcome.returned = {"baseline": params["baseline"] or measured, "bodies": bodies, "passed": not failed}
    return outcome


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = [problem for endpoint in params["endpoints"] for problem in _endpoint_problems(endpoint)]
    problems += out_of_range(params, ("slower_percent", "since"))
    problems += [
        str(InputError.of(f"units[{unit['name']}]", unit["status"], "status (and start) as argument lists", "add them"))
        for unit in params["units"]
        if unit["manager"] == "command" and not (unit["status"] and (unit["start"] or not params["start_inactive"]))
    ]
    paths = [path for log in params["logs"] for path in log["paths"] if not os.path.isabs(path)]
    return problems + [str(InputError.of("logs.paths", path, "an absolute path or pattern", "write it from the root on")) for path in paths]


def _endpoint_problems(endpoint: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    yield from refusal(check_url, endpoint["url"], "endpoints.url")
    if not endpoint["status"]:
        yield str(InputError.of("endpoints.status", [], "at least one HTTP status", "name it"))
    if not 1 <= endpoint["samples"] <= 100:
        yield str(InputError.of("endpoints.samples", endpoint["samples"], "a number from 1 to 100", "correct it"))
    for name in ("p50_ms", "p95_ms", "critical_ms", "timeout_seconds"):
        if endpoint[name] is not None and not 0 < endpoint[name] < math.inf:
            yield str(InputError.of(f"endpoints.{name}", endpoint[name], "a number above 0", "correct it"))


# -- units --------------------------------------------------------------------------------------------------------------------


def _look_at_unit(unit: dict[str, t.Any], params: dict[str, t.Any], check_mode: bool, outcome: Outcome, measured: dict[str, t.Any]) -> None:
    shown = _shown(unit)
    was = measured["units"][unit["name"]] = shown["ActiveState"]
    if was != "active" and params["start_inactive"] and shown["LoadState"] == "loaded":
        problem = "" if check_mode else undo.start(unit)
        status = "due" if check_mode else "failed" if problem else "changed"
        shown = shown if check_mode else _shown(unit)
        summary = problem or f"{unit['name']} was {was}" + (" and would be started" if check_mode else " and was started")
        outcome.actions.append(Action(unit["name"], "start", status, summary, {"state": was}, {"state": shown["ActiveState"]}))
        outcome.findings.append(judge_unit(unit, shown, was))
        return
    before = params["baseline"].get("units", {}).get(unit["name"])
    outcome.findings.append(judge_unit(unit, shown, before))


def _shown(unit: dict[str, t.Any]) -> dict[str, str]:
    if unit["manager"] == "command":
        active = undo.is_active(unit)
        return {"LoadState": "loaded", "ActiveState": "active" if active else "inactive", "UnitFileState": "enabled"}
    names = "LoadState,ActiveState,UnitFileState"
    done = undo.run(["systemctl", "show", "--property", names, "--", unit["name"]])
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return {"LoadState": "", "ActiveState": "unknown", "UnitFileState": "", **shown}


def judge_unit(unit: t.Mapping[str, t.Any], shown: t.Mapping[str, str], before: str | None) -> Finding:
    """Judge what systemd says of a unit.

    :param before: its state before the work, where it is known.
    """
    name, active = unit["name"], shown["ActiveState"]
    common: dict[str, t.Any] = {"id": "validation.unit", "subject": name, "value": active}
    if shown["LoadState"] == "":
        advice = "Look at systemd itself: systemctl status."
        return Finding(state="unknown", summary=f"systemd did not say anything of {name}.", advice=advice, **common)
    if shown["LoadState"] != "loaded":
        summary = f"{name} is declared, but systemd does not know it ({shown['LoadState']})."
        return Finding(state="critical", summary=summary, advice="Install the unit or correct the inventory.", **common)
    if active != "active":
        was = f"; it was {before} before" if before and before != active else ""
        advice = f"Read why: journalctl --unit {name}, then start it."
        return Finding(state="critical", summary=f"{name} is {active}{was}.", advice=advice, **common)
    if unit["enabled"] and shown["UnitFileState"] in ("disabled", "masked"):
        advice = f"systemctl enable {name}"
        return Finding(state="warning", summary=f"{name} runs but would not start with the host.", advice=advice, **common)
    if before and before != "active":
        advice = f"Find out why it was {before}: journalctl --unit {name}."
        return Finding(state="warning", summary=f"{name} runs now; it was {before} before.", advice=advice, **common)
    return Finding(state="ok", summary=f"{name} runs.", **common)


# -- endpoints ----------------------------------------------------------------------------------------------------------------


def _look_at_endpoint(
    endpoint: dict[str, t.Any], params: dict[str, t.Any], outcome: Outcome, measured: dict[str, t.Any]
) -> dict[str, t.Any]:
    name = endpoint["name"] or endpoint["url"]
    asked = {"timeout": endpoint["timeout_seconds"], "headers": _headers(endpoint), "ca_file": endpoint["ca_file"]}
    answers = [fetch(endpoint["url"], **asked)]
    if answers[0].status in endpoint["status"]:
        answers += [fetch(endpoint["url"], **asked) for _more in range(endpoint["samples"] - 1)]
    outcome.findings.append(_status_finding(name, endpoint, answers))
    body: dict[str, t.Any] = {"name": name, "checks": endpoint["body"], "content": None, "why": answers[0].told()}
    if any(answer.status not in endpoint["status"] for answer in answers):
        return body
    times = sorted(answer.seconds * 1000 for answer in answers)
    p50, p95 = percentile(times, 50), percentile(times, 95)
    measured["p95_ms"][name] = p95
    outcome.metrics += [Metric("endpoint.p50", name, round(p50, 1), "ms"), Metric("endpoint.p95", name, round(p95, 1), "ms")]
    before = params["baseline"].get("p95_ms", {}).get(name)
    outcome.findings.append(judge_latency(name, endpoint, p50, p95, before, params["slower_percent"]))
    if endpoint["body"] and len(answers[0].body) < BODY_LIMIT_BYTES:
        body["content"] = base64.b64encode(answers[0].body).decode("ascii")
    elif endpoint["body"]:
        body["why"] = f"its answer is longer than {BODY_LIMIT_BYTES} bytes"
    return body


def _headers(endpoint: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Read request headers, such as a token, from a file on the host: a JSON object that only its owner can read."""
    path = endpoint["headers_file"]
    if not path:
        return {}
    try:
        with open_regular(path) as source:
            value = json.loads(source.read(BODY_LIMIT_BYTES))
    except (OSError, ValueError) as error:
        raise MaintenanceError(f"headers_file {path} cannot be read as a JSON object of headers: {error}.") from None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InputError.of("endpoints.headers_file", path, "a file with a JSON object of header texts", "correct the file")
    return value


def _status_finding(name: str, endpoint: t.Mapping[str, t.Any], answers: t.Sequence[Answer]) -> Finding:
    wrong = [answer for answer in answers if answer.status not in endpoint["status"]]
    wanted = " or ".join(str(status) for status in endpoint["status"])
    summary = f"{name} {answers[0].told()}"
    if wrong:
        share = f" in {len(wrong)} of {len(answers)} requests" if len(answers) > 1 else ""
        summary = f"{name} {wrong[0].told()}{share}, expected {wanted}"
    return Finding(
        id="validation.endpoint",
        state="critical" if wrong else "ok",
        subject=name,
        summary=summary + ".",
        value=wrong[0].status if wrong else answers[0].status,
        unit="status",
        threshold=f"critical unless {wanted}",
        advice="Read the application's log from the time of this run." if wrong else "",
    )


def percentile(ordered: t.Sequence[float], percent: float) -> float:
    """Return a percentile of ascending values by nearest rank."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def judge_latency(
    name: str, endpoint: t.Mapping[str, t.Any], p50: float, p95: float, before: float | None, slower_percent: float
) -> Finding:
    """Judge response times against the declared targets and against the time before the work."""
    state = max(
        from_limit(p95, endpoint["p95_ms"], endpoint["critical_ms"]),
        from_limit(p50, endpoint["p50_ms"]),
        key=("ok", "warning", "critical").index,
    )
    summary = f"{name} answers in {p50:.0f} ms (median) and {p95:.0f} ms (95th percentile)"
    slower = before is not None and p95 > before * (1 + slower_percent / 100) and p95 - before > _SLOWER_AT_LEAST_MS
    if slower:
        state = "warning" if state == "ok" else state
        summary += f"; it was {before:.0f} ms before the work"
    return Finding(
        id="validation.latency",
        state=state,
        subject=name,
        summary=summary + ".",
        value=round(p95, 1),
        unit="ms",
        threshold=limits("ms", endpoint["p95_ms"], endpoint["critical_ms"]),
        basis="sampled",
        not_covered=f"{endpoint['samples']} requests, one after another",
        advice="Compare with the trend in the report; look for slow queries and cold caches." if state != "ok" else "",
    )


# -- logs ---------------------------------------------------------------------------------------------------------------------


def _critical_lines(params: dict[str, t.Any], host: Host) -> Finding:
    since = params["since"] or host.now().timestamp() - 3600
    found = critical_since(params["logs"], since)
    when = datetime.fromtimestamp(since, timezone.utc)
    common: dict[str, t.Any] = {"id": "validation.logs", "subject": "application logs", "unit": "count"}
    if found.problems:
        advice = "Correct the declared log paths or their permissions."
        summary = f"The logs were not read completely: {'; '.join(found.problems)}."
        return Finding(state="unknown", summary=summary, advice=advice, **common)
    return Finding(
        state="critical" if found.count else "ok",
        summary=f"{found.count} critical lines since {when:%Y-%m-%d %H:%M:%S} UTC.",
        value=found.count,
        threshold="critical from 1 count",
        advice="Read them below; they were written after the work began." if found.count else "",
        evidence=found.examples,
        **common,
    )
