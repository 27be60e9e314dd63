# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import islice, takewhile
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ops.maintenance.plugins.action.open_run import by_system
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.record import Finding, Metric, Outcome
from ansible_collections.ops.maintenance.plugins.plugin_utils import channels, control, inventory_check, report, windows
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import journals, read_journal
from ansible_collections.ops.maintenance.plugins.plugin_utils.notices import (
    Facts,
    Notice,
    announcement,
    code_of,
    extension,
    incident,
    length,
    overrun,
    spoken,
    test_notice,
)

_RECENT_RUNS = 30
_LIST = {"type": "list", "elements": "raw", "default": []}
_CHANNEL = {
    "kind": {"type": "str", "required": True, "choices": ["mail", "webhook", "file"]},
    "host": {"type": "str"},
    "port": {"type": "int", "default": 25},
    "starttls": {"type": "bool", "default": False},
    "sender": {"type": "str"},
    "to": {"type": "list", "elements": "str", "default": []},
    "user": {"type": "str"},
    "password_file": {"type": "path"},
    "url": {"type": "str", "no_log": True},
    "url_file": {"type": "path"},
    "path": {"type": "path"},
    "timeout_seconds": {"type": "float", "default": 10.0},
}
_NEEDS = [("kind", "mail", ("host", "sender", "to")), ("kind", "webhook", ("url", "url_file"), True), ("kind", "file", ("path",))]
OPTIONS = {
    "kind": {"type": "str", "default": "announcement", "choices": ["announcement", "overrun", "extension", "incident", "test"]},
    "channels": {"type": "list", "elements": "dict", "default": [], "options": _CHANNEL, "required_if": _NEEDS},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "title": {"type": "str", "default": ""},
    "cadence": {"type": "str", "default": "weekly"},
    "windows": {"type": "dict", "default": {}},
    "blackouts": {"type": "list", "elements": "dict", "default": []},
    "ahead_hours": {"type": "float", "default": 24.0},
    "contacts": {"type": "dict", "default": {}},
    "services": _LIST,
    "planned": {"type": "list", "elements": "raw"},
    "skip": _LIST,
    "deadline": {"type": "float", "default": 0.0},
    "reserve_seconds": {"type": "int", "default": 900},
    "new_end": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
}


class NothingToTell(Exception):  # noqa: N818 - it is no error
    """There is no notice to send now; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.summary)
        self.finding = finding


class ActionModule(ActionBase):
    """Tell stakeholders of a window that comes, is exceeded or is extended; nobody gets the same notice twice."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(OPTIONS)
        known = task_vars or {}
        host, hostvars = known["inventory_hostname"], known["hostvars"]
        system = next(iter(by_system(hostvars, [host])))
        speaker = next((members[0] for name, members in by_system(hostvars, given["hosts"]).items() if name == system), host)
        if speaker != host:
            return {**result, "skipped": True, "changed": False, "skip_reason": f"{speaker} speaks for {system}"}
        started = datetime.now(timezone.utc)
        try:
            outcome = tell(system, given, started, bool(self._task.check_mode))
        except MaintenanceError as error:
            outcome = Outcome(system, "notify", "failed", str(error))
            result.update(failed=True, msg=str(error))
        record = {**outcome.record(), "started": started.isoformat(), "finished": datetime.now(timezone.utc).isoformat()}
        return {**result, "changed": outcome.is_change, **outcome.returned, "maintenance_record": record}


def tell(system: str, given: dict[str, Any], now: datetime, check_mode: bool) -> Outcome:
    """Make the notice that is due and send it.

    :raises InputError: the window or the new end is wrong, so there is nothing to tell.
    """
    try:
        facts, notice = _KINDS[given["kind"]](system, given, now)
    except NothingToTell as nothing:
        return Outcome(system, "notify", "ok", str(nothing), findings=[nothing.finding], returned={"verdict": nothing.finding.state})
    is_test = given["kind"] == "test"  # which has no place in a file, for that is what a status page shows
    to = [channel for channel in given["channels"] if not (is_test and channel["kind"] == "file")]
    outcome = deliver(notice, to, now, check_mode)
    if is_test:
        unproven = "whether it arrived: ask a recipient for the code in it"
        outcome.findings = [replace(finding, not_covered=unproven) if finding.state == "ok" else finding for finding in outcome.findings]
        outcome.after = {**outcome.after, "code": code_of(system, now.strftime("%Y-%m-%d"))}
    if given["kind"] == "overrun":
        outcome.findings.append(_overrun_finding(system, facts, now))
    elif facts.start and outcome.status == "changed":
        lead = round((facts.start - now).total_seconds())
        outcome.metrics.append(Metric("notification.lead", system, lead, "seconds"))
    return outcome


def deliver(notice: Notice, to: list[channels.Channel], now: datetime, check_mode: bool) -> Outcome:
    """Send a notice by each channel to those who do not have it yet."""
    where = channels.folder()
    try:
        if check_mode:
            sent = channels.recall(where)
            findings = [_judged(notice, name, len(missing), {}, due=True) for name, _channel, missing in _missing(sent, notice, to)]
            return _outcome(notice, findings, "due" if any(f.value for f in findings) else "ok")
        with channels.remembered(where) as sent:
            findings = [_send(sent, notice, name, channel, missing, now) for name, channel, missing in _missing(sent, notice, to)]
    except MaintenanceError as error:
        findings = [_not_delivered(notice, "critical", f"The {notice.kind} was not sent: {error}", "Mend that, then run it again.")]
    return _outcome(notice, findings, "changed" if any(f.value for f in findings) else "ok")


def _missing(sent: dict[str, Any], notice: Notice, to: list[channels.Channel]) -> Iterator[tuple[str, channels.Channel, list[str]]]:
    kept = sent.get(notice.id) or {}
    for number, channel in enumerate(to, 1):
        name = f"{channel['kind']} {number}"
        everybody = channels.recipients(channel)
        have = kept.get(name) or []
        yield name, channel, [one for one in everybody if one not in have]


def _send(sent: dict[str, Any], notice: Notice, name: str, channel: channels.Channel, missing: list[str], now: datetime) -> Finding:
    problems = channels.hand_over(channel, notice, missing) if missing else {}
    served = [one for one in missing if one not in problems]
    if served:
        kept = sent.setdefault(notice.id, {"time": now.isoformat()})
        kept[name] = [*kept.get(name, []), *served]
    return _judged(notice, name, len(served), problems)


def _judged(notice: Notice, name: str, served: int, problems: channels.Problems, *, due: bool = False) -> Finding:
    subject = f"{notice.kind} of {notice.system} by {name}"
    if problems:
        who = f"{len(problems)} of its recipients" if served else "anybody"
        summary = f"The {notice.kind} did not reach {who}: {'; '.join(dict.fromkeys(problems.values()))}."
        evidence = [f"{one}: {why}" for one, why in problems.items() if one]
        advice = "Mend the channel and run it again, or tell them by hand; those who have it do not get it twice."
        return Finding("notification.delivery", "critical", subject, summary, value=served, unit="count", advice=advice, evidence=evidence)
    did = "is due" if due else "was accepted for delivery"
    summary = f"The {notice.kind} {did}." if served else f"The {notice.kind} was sent before."
    return Finding("notification.delivery", "ok", subject, summary, value=served, unit="count")


def _not_delivered(notice: Notice, state: str, summary: str, advice: str) -> Finding:
    return Finding("notification.delivery", state, f"{notice.kind} of {notice.system}", summary, advice=advice)


def _outcome(notice: Notice, findings: list[Finding], status: str) -> Outcome:
    if not findings:
        advice = "Declare notification_channels, or tell stakeholders by hand."
        findings = [_not_delivered(notice, "unknown", f"No channel is configured, so nobody was sent the {notice.kind}.", advice)]
    worst = max(findings, key=lambda f: ("ok", "unknown", "critical").index(f.state))
    after = {"id": notice.id, "subject": notice.subject}
    returned = {"verdict": worst.state, "notice": notice.text}
    return Outcome(notice.system, "notify", status, worst.summary, after=after, findings=findings, returned=returned)


def _overrun_finding(system: str, facts: Facts, now: datetime) -> Finding:
    late = now - facts.end
    summary = (
        f"The window ended {spoken(facts.end, facts.zone)}; the work is expected to be over {spoken(facts.new_end or now, facts.zone)}."
    )
    advice = "Find the cause, then decide to continue, to roll back or to postpone the rest."
    seconds = round(late.total_seconds())
    return Finding(
        "notification.overrun", "warning", system, summary, seconds, "seconds", "warning from 0 seconds", "estimated", advice=advice
    )


def _facts(system: str, given: dict[str, Any], window: windows.Window | None, start: datetime | None, end: datetime, **more: Any) -> Facts:
    shared = {"services": given["services"], "contacts": given["contacts"], "planned": _planned(given)}
    return Facts(system, given["title"] or system, window.zone if window else timezone.utc, start, end, **{**shared, **more})


def _planned(given: dict[str, Any]) -> list[str]:
    """Return the steps of the cadence in words, as given or as the cycle does them."""
    steps = given["planned"]
    if steps is None:
        stages = inventory_check.role_options()["cycle"]["maintenance_steps"]["default"].get(given["cadence"], {})
        steps = [step for names in stages.values() for step in names]
    return [str(step).replace("_", " ") for step in dict.fromkeys(map(str, steps)) if step not in given["skip"]]


def _window(given: dict[str, Any]) -> windows.Window | None:
    return windows.describe(given["windows"], given["cadence"], given["blackouts"])


def _announcement(system: str, given: dict[str, Any], now: datetime) -> tuple[Facts, Notice]:
    window = _window(given)
    start = next(iter(windows.occurrences(window, now, 1)), None) if window else None
    if window is None or start is None:
        summary = f"No {given['cadence']} window of {system} is declared or to come, so there is none to announce."
        advice = "Declare it in maintenance_windows, or announce another cadence."
        raise NothingToTell(Finding("notification.window", "unknown", system, summary, advice=advice))
    if start - now > timedelta(hours=given["ahead_hours"]):
        summary = f"The next {given['cadence']} window of {system} starts {spoken(start, window.zone)}, in {length(start - now)}: too early to announce."
        raise NothingToTell(
            Finding("notification.window", "ok", system, summary, threshold=f"announced {given['ahead_hours']:g} hours ahead")
        )
    facts = _facts(system, given, window, start, start + window.duration)
    return facts, announcement(facts)


def _overrun(system: str, given: dict[str, Any], now: datetime) -> tuple[Facts, Notice]:
    if given["deadline"]:
        run_id, end, left = control.run_id(), datetime.fromtimestamp(given["deadline"], timezone.utc), _planned(given)
    else:
        run_id, end, left = next(_overdue(system, now), ("", now, []))
    if end >= now:
        raise NothingToTell(Finding("notification.overrun", "ok", system, f"No run on {system} is known here to work after its window."))
    try:
        window = _window(given)
    except MaintenanceError:  # the run itself was refused for it, or began before somebody broke it
        window = None
    new_end = now + timedelta(seconds=given["reserve_seconds"])
    facts = _facts(system, given, window, None, end, new_end=new_end, reason=given["reason"], planned=left)
    return facts, overrun(facts, run_id or end.isoformat())


def _overdue(system: str, now: datetime) -> Iterator[tuple[str, datetime, list[str]]]:
    """Yield running runs that are still on hosts of a system after the end of its window, with these hosts."""
    about = (path for path in journals(channels.folder()) if path.stem.partition("-")[0] not in report.OWN_CADENCES)
    for path in islice(about, _RECENT_RUNS):
        journal = read_journal(str(path))
        if journal.state != "running" or journal.lines[0].get("check_mode"):
            continue
        done = {line["host"] for line in journal.lines if line["kind"] == "outcome"}
        for plan in (line for line in journal.lines if line["kind"] == "plan" and line["system"] == system):
            end = (plan.get("window") or {}).get("end")
            left = [host for host in plan["hosts"] if host not in done]
            if end and left and datetime.fromisoformat(end) < now:
                yield journal.run_id, datetime.fromisoformat(end), left


def _extension(system: str, given: dict[str, Any], now: datetime) -> tuple[Facts, Notice]:
    window = _window(given)
    if window is None:
        expected = f"a {given['cadence']} window of {system}"
        raise InputError.of("maintenance_windows", sorted(given["windows"]), expected, "declare it, or name another maintenance_cadence")
    try:
        new_end = datetime.fromisoformat(given["new_end"].strip())
    except ValueError:
        expected = f"a time such as 2026-11-21T07:00, on the clock of {window.zone} where it names no offset"
        raise InputError.of("notification_new_end", given["new_end"], expected, "correct it") from None
    new_end = (new_end if new_end.tzinfo else new_end.replace(tzinfo=window.zone)).astimezone(timezone.utc)
    started = [begin for begin, _blackout in takewhile(lambda one: one[0] <= now, window.starts(now - windows.MAXIMUM_DURATION))]
    if not started:
        raise InputError.of("notification_new_end", given["new_end"], "a window that has begun", "name its maintenance_cadence")
    start, end = started[-1], started[-1] + window.duration
    if new_end <= max(now, end):
        expected = f"a time later than now and than the end of the window ({spoken(end, window.zone)})"
        raise InputError.of("notification_new_end", given["new_end"], expected, "correct it")
    facts = _facts(system, given, window, start, end, new_end=new_end, reason=given["reason"])
    return facts, extension(facts)


def _incident(system: str, given: dict[str, Any], now: datetime) -> tuple[Facts, Notice]:
    if not given["reason"].strip():
        raise InputError.of("reason", given["reason"], "what happened, in a sentence", "give it")
    facts = _facts(system, given, None, None, now, planned=given["planned"] or [], reason=given["reason"])
    return facts, incident(facts, control.run_id() or now.isoformat())


def _test(system: str, given: dict[str, Any], now: datetime) -> tuple[Facts, Notice]:
    facts = _facts(system, given, None, None, now, services=[], planned=[])
    return facts, test_notice(facts, now)


_KINDS = {"announcement": _announcement, "overrun": _overrun, "extension": _extension, "incident": _incident, "test": _test}
