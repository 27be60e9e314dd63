# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a report from the lines of a run: a pure function of what the journal and the store hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from ansible_collections.ops.maintenance.plugins.module_utils.record import worst

from . import report_values as v
from .report_checklist import activities, checklist, duties, open_items, sign_off
from .report_compare import Settled, mark_changes, settled, worst_first
from .report_groups import named
from .report_lines import OWN_OPERATIONS, Line, Lines, sort_lines
from .report_log import log_entry, recommendations, special_activities
from .report_metrics import DETAIL_HOSTS, key_metrics, points_of, series, steps
from .report_model import SCHEMA, Action, Failure, Finding, Host, Notice, PastRun, Point, Report, Run, System, Window

OUTCOME_STATE = {
    "completed": "ok",
    "previewed": "ok",
    "refused": "warning",
    "not_attempted": "unknown",
    "failed": "critical",
    "rolled_back": "critical",
    "rollback_failed": "critical",
    "unreachable": "critical",
}
_STATUS_ORDER = ("failed", "deferred", "due", "changed", "skipped")


def build(
    lines: Iterable[Line],
    earlier: Sequence[Iterable[Line]] = (),
    history: Iterable[Point] = (),
    *,
    generated: datetime,
    running: bool = False,
    chain_fault: str | None = "",
    span: Sequence[PastRun] = (),
) -> Report:
    """Build the report of a run.

    :param lines: the journal lines of the run.
    :param earlier: the lines of earlier runs to compare with, the one that counts first before the others.
    :param history: metrics of earlier runs.
    :param generated: the time to print on the report.
    :param running: the run is still going, so a missing end does not mean that it was interrupted; once every planned host has
        its outcome, the work counts as over.
    :param chain_fault: where the chain of hashes breaks; empty when it is intact, ``None`` when it was not checked.
    :param span: earlier runs to list, for a report over a span of time.
    """
    now = sort_lines(lines)
    before = [sort_lines(run) for run in earlier]
    mark_changes(now, before)
    since = settled(now, before)
    found = list(now.latest.values())
    open_ = worst_first(f for f in found if f.state != "ok" and not f.waiver)
    run = _run(now, running, chain_fault)
    failures, actions = list(_failures(now)), list(_actions(now))
    hosts = _hosts(now, run, found, failures, actions)
    all_duties, items = duties(now), checklist(now)
    proposals = recommendations(open_)
    systems = [_system(name, now, hosts, actions, found, open_items([*all_duties, *items])) for name in _systems(now, hosts)]
    took = steps(now)
    notices = [*_notices(run, systems, bool(before)), *_over_budget(took)]
    everything = series(history, points_of(now, len(hosts) <= DETAIL_HOSTS))
    counts = _counts(open_, since, found, hosts, actions)
    verdict = worst([*(system.verdict for system in systems), *(finding.state for finding in open_[:1]), *_run_states(run)])
    about = ", ".join(s.title for s in systems[:3]) + (f" and {len(systems) - 3} more" if len(systems) > 3 else "")
    return Report(
        schema=SCHEMA,
        generated=generated.isoformat(timespec="seconds"),
        title=_title(run, about or "no system"),
        verdict=verdict,
        summary=_summary(run, hosts, counts),
        notices=notices,
        run=run,
        span=list(span),
        previous_run=v.text(before[0].run.get("run_id")) if before else "",
        previous_started=v.iso(before[0].run.get("started")) if before else "",
        compared=[v.text(run.run.get("run_id")) for run in before],
        counts=counts,
        systems=systems,
        hosts=hosts,
        failures=failures,
        findings=open_,
        fixed=since.fixed,
        gone=since.gone,
        unseen=since.unseen,
        waived=worst_first(f for f in found if f.state != "ok" and f.waiver),
        passed=sorted((f for f in found if f.state == "ok"), key=lambda f: (f.system, f.host, f.id, f.subject)),
        actions=actions,
        checklist=items,
        activities=activities(now),
        duties=all_duties,
        steps=took,
        metrics=key_metrics(everything, run.run_id),
        series=everything,
        recommendations=proposals,
        recommendations_approved=_signature(sign_off("recommendations", now)),
        log=log_entry(now, run, systems, hosts, actions, failures, open_),
    )


def _title(run: Run, about: str) -> str:
    cadence = (run.cadence or "maintenance").replace("_", " ")
    what = f"{cadence}{' maintenance' if cadence != 'maintenance' else ''} of {about}"
    return f"Preview of the {what}" if run.check_mode else what[:1].upper() + what[1:]


def _run(now: Lines, running: bool, chain_fault: str | None) -> Run:
    line, end = now.run, now.end
    control = v.mapping(line.get("control"))
    state = "interrupted"
    if end is not None:
        state = "failed" if end.get("status") != "completed" else "completed"
    elif running:
        state = _state_so_far(now)
    job = v.mapping(line.get("job"))
    return Run(
        run_id=v.text(line.get("run_id")) or v.text(now.last.get("run_id")) or "unknown",
        cadence=v.text(line.get("cadence")),
        playbook=v.text(line.get("playbook")),
        check_mode=line.get("check_mode") is True,
        state=state,
        started=v.iso(line.get("started")) or v.iso(line.get("time")),
        finished=_finished(now) if state in ("completed", "failed") else "",
        last_record=_last_record(now),
        control=v.text(control.get("host")),
        account=v.text(control.get("user")),
        job=" ".join(v.text(part) for part in job.values()) if job else v.text(line.get("job")) if line.get("job") else "",
        versions={v.text(name): v.text(version) for name, version in v.mapping(line.get("versions")).items()},
        options=v.state_text({k: o for k, o in v.mapping(line.get("options")).items() if o}),
        chain="unchecked" if chain_fault is None else "broken" if chain_fault else "intact",
        chain_detail=v.text(chain_fault),
        lines=now.count,
        last_hash=v.text(now.last.get("hash")),
    )


def _state_so_far(now: Lines) -> str:
    """Say the state of a run that writes its own report: once each planned host has its outcome, the work is over."""
    if not now.system_of or {(system, host) for host, system in now.system_of.items()} - set(now.outcomes):
        return "running"
    return "completed" if all(line.get("outcome") == "completed" for line in now.outcomes.values()) else "failed"


def _finished(now: Lines) -> str:
    return (v.iso(now.end.get("finished")) if now.end else "") or v.iso(now.last.get("time"))


def _last_record(now: Lines) -> str:
    if not now.records:
        return "no task had reported yet"
    last = now.records[-1]
    what = v.text(last.get("operation")) or v.text(last.get("task"))
    subject = v.text(last.get("subject"))
    if subject and subject.replace(" ", "_") != what:
        what += f" of {subject}"
    return f"{what} on {v.text(last.get('host'))}, {v.iso(last.get('time')) or 'time unknown'} (line {v.text(last.get('seq'))})"


def _failures(now: Lines) -> Iterator[Failure]:
    for record in now.records:
        if record.get("status") == "failed":
            names = ("host", "role", "task", "operation", "subject", "summary")
            host, role, task, operation, subject, summary = (v.text(record.get(name)) for name in names)
            time, handled = v.iso(record.get("time")), v.text(record.get("handled"))
            said = any(finding.get("state") != "ok" for finding in v.mappings(record.get("findings")))
            yield Failure(now.system(record), host, role.rpartition(".")[2], task, operation, subject, summary, time, handled, said)


def _actions(now: Lines) -> list[Action]:
    found = [action for record in now.records for action in _actions_of(record, now.system(record))]
    return sorted(found, key=lambda action: _STATUS_ORDER.index(action.status))


def _actions_of(record: Line, system: str) -> Iterator[Action]:
    """Yield what a record did; one that changed something without naming actions counts as one itself."""
    parts = v.mappings(record.get("actions"))
    if (not parts and not v.mappings(record.get("findings"))) or (not parts and record.get("status") in ("changed", "due", "deferred")):
        parts = [record]
    for part in parts:
        status = v.text(part.get("status"))
        if status in _STATUS_ORDER:
            yield Action(
                system=system,
                host=v.text(record.get("host")),
                role=v.text(record.get("role")).rpartition(".")[2],
                operation=v.text(part.get("operation")),
                subject=v.text(part.get("subject")),
                status=status,
                summary=v.text(part.get("summary")),
                before=v.state_text(part.get("before")),
                after=v.state_text(part.get("after")),
                difference=v.difference(part.get("before"), part.get("after")),
            )


def _hosts(now: Lines, run: Run, found: list[Finding], failures: list[Failure], actions: list[Action]) -> list[Host]:
    places = dict.fromkeys((system, host) for system, plan in now.plans.items() for host in v.texts(plan.get("hosts")))
    places.update(dict.fromkeys(now.outcomes))
    places.update(dict.fromkeys((now.system(r), v.text(r.get("host"))) for r in now.records if not _is_control(r, now)))
    states: dict[tuple[str, str], Counter[str]] = {place: Counter() for place in places}
    waived, changed, failed = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for finding in found:
        if finding.waiver and finding.state != "ok":
            waived[(finding.system, finding.host)] += 1
        elif (finding.system, finding.host) in states:
            states[(finding.system, finding.host)][finding.state] += 1
    changed.update((a.system, a.host) for a in actions if a.status == "changed")
    failed.update((f.system, f.host) for f in failures if not f.handled)
    hosts = [
        _host(place, now.outcomes.get(place, {}), run, dict(states[place]), (waived[place], changed[place], failed[place]))
        for place in places
    ]
    return sorted(hosts, key=lambda h: (-v.RANK[h.verdict], h.outcome in ("completed", "previewed"), h.system, h.host))


def _is_control(record: Line, now: Lines) -> bool:
    """Whether a record is about the control node, not about a host that is maintained."""
    if record.get("operation") in OWN_OPERATIONS or not record.get("host"):
        return True
    return bool(now.plans) and not now.system(record)


def _host(place: tuple[str, str], outcome: Line, run: Run, states: dict[str, int], counts: tuple[int, int, int]) -> Host:
    result = _previewed(v.text(outcome.get("outcome")), run)
    measured = {} if run.check_mode else outcome  # a preview stops nothing, whatever its outcome says
    waived, changed, failed = counts
    reason = v.text(outcome.get("reason"))
    verdicts = [*states]
    if waived and not states:
        verdicts.append("ok")
    if result:
        verdicts.append(OUTCOME_STATE.get(result, "unknown"))
    elif run.state == "interrupted":
        verdicts.append("unknown")
        reason = reason or "the run ended before it was done with this host"
    if not states and not waived:
        verdicts.append("unknown")
        reason = reason or "nothing was looked at"
    if failed or measured.get("services_restored") is False:
        verdicts.append("critical")
    return Host(
        system=place[0],
        host=place[1],
        verdict=worst(verdicts),
        outcome=result,
        reason=reason,
        downtime_seconds=v.number(measured.get("downtime_seconds")),
        services_restored=v.flag(measured.get("services_restored")),
        rollback_required=v.flag(measured.get("rollback_required")),
        states=states,
        waived=waived,
        changed=changed,
        failed=failed,
    )


def _previewed(outcome: str, run: Run) -> str:
    """Return how the run ended for a host; a preview completes nothing."""
    return "previewed" if run.check_mode and outcome == "completed" else outcome


def _systems(now: Lines, hosts: list[Host]) -> list[str]:
    """Return the systems, worst first."""
    names = dict.fromkeys([*(host.system for host in hosts), *now.plans])
    ranks = {name: max((v.RANK[h.verdict] for h in hosts if h.system == name), default=1) for name in names}
    return sorted(names, key=lambda name: (-ranks[name], name))


def _system(name: str, now: Lines, hosts: list[Host], actions: list[Action], found: list[Finding], to_sign: list) -> System:
    plan = v.mapping(now.plans.get(name))
    own = [host for host in hosts if host.system == name]
    faults = v.texts(plan.get("faults"))
    outcomes = dict(Counter(host.outcome or "no outcome" for host in own))
    verdict = worst([*(host.verdict for host in own), *(["critical"] if faults else [])])
    contacts = plan.get("contacts")
    return System(
        system=name,
        title=v.text(plan.get("title")) or name or "no system",
        verdict=verdict,
        summary=_outcomes_text(outcomes, len(own)),
        hosts=len(own),
        outcomes=outcomes,
        window=_window(plan, now, own),
        next_windows=[v.iso(v.mapping(w).get("start") or w) for w in v.items(plan.get("next_windows"))][:3],
        special_activities=special_activities(name, plan, actions, found, to_sign),
        services=[v.text(v.mapping(s).get("name") or s) for s in v.items(plan.get("services"))],
        contacts=[f"{v.text(role)}: {v.state_text(who)}" for role, who in v.mapping(contacts).items()] or v.texts(contacts),
        faults=faults,
    )


def _outcomes_text(outcomes: dict[str, int], hosts: int) -> str:
    if len(outcomes) <= 1 and set(outcomes) <= {"completed", "previewed"}:
        return f"{v.plural(hosts, 'host')} {next(iter(outcomes))}" if hosts else "no host"
    parts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(outcomes.items()))
    return f"{v.plural(hosts, 'host')}: {parts}"


def _window(plan: Line, now: Lines, hosts: list[Host]) -> Window:
    planned = v.mapping(plan.get("window"))
    started = v.iso(now.run.get("started")) or v.iso(now.run.get("time"))
    finished = _finished(now)
    measured = [host for host in hosts if host.downtime_seconds is not None]
    worst_host = max(measured, key=lambda h: h.downtime_seconds or 0.0, default=None)
    return Window(
        planned_start=v.iso(planned.get("start")),
        planned_end=v.iso(planned.get("end")),
        timezone=v.text(planned.get("timezone")) or "UTC",
        rule=v.text(planned.get("rule")),
        forced=planned.get("forced") is True,
        reason=v.text(planned.get("reason")),
        started=started,
        finished=finished,
        duration_seconds=v.seconds_between(started, finished),
        overrun_seconds=v.seconds_between(planned.get("end"), finished) or None,
        downtime_seconds=worst_host.downtime_seconds if worst_host else None,
        downtime_note=_downtime_note(worst_host, len(measured), len(hosts)),
    )


def _downtime_note(worst_host: Host | None, measured: int, hosts: int) -> str:
    if worst_host is None:
        return "not measured"
    note = f"longest of {v.plural(measured, 'host')}: {worst_host.host}" if hosts > 1 else f"measured on {worst_host.host}"
    return note + (f"; not measured on {hosts - measured}" if hosts > measured else "")


def _run_states(run: Run) -> list[str]:
    states = []
    if run.chain == "broken" or run.state in ("interrupted", "failed"):
        states.append("critical")
    if run.chain == "unchecked":
        states.append("unknown")
    return states


def _notices(run: Run, systems: list[System], compared: bool) -> Iterator[Notice]:
    if run.chain == "broken":
        text = f"{run.chain_detail} Lines were changed, removed or added after they were written; do not rely on this report."
        yield Notice("critical", "The journal's chain is broken", text)
    if run.chain == "unchecked":
        yield Notice("warning", "The journal's chain was not checked", "This report was made without the journal's own file.")
    if run.state == "interrupted":
        text = f"The journal has no end. The last record is {run.last_record}. What came after it is not known."
        yield Notice("critical", "This run was interrupted", text)
    if run.state == "running":
        yield Notice("info", "This run is still going", "The report holds what was recorded so far.")
    if run.check_mode:
        text = "Check mode: everything was read and judged, nothing was changed. What the maintenance would do is listed as due."
        yield Notice("info", "This is a preview", text)
    yield from _per_system(systems)
    if not compared:
        yield Notice("info", "First run", "No earlier run looked at the same, so nothing is marked as new or fixed.")


def _per_system(systems: list[System]) -> Iterator[Notice]:
    """Yield what is to be known of systems; where several have the same, as one notice."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for system in systems:
        if system.faults:
            found.setdefault(("critical", "has faults in its inventory", " ".join(system.faults)), []).append(system.title)
        if system.window.forced:
            reason = system.window.reason or "No reason was given."
            found.setdefault(("warning", "was maintained with its window overridden", reason), []).append(system.title)
        if system.window.overrun_seconds:
            late = f"The run ended {v.duration(system.window.overrun_seconds)} after the window had closed."
            found.setdefault(("warning", "exceeded its window", late), []).append(system.title)
    for (level, what, text), titles in found.items():
        yield Notice(level, f"{named(titles)} {what}", text)


def _over_budget(took: list) -> Iterator[Notice]:
    over = [
        f"{step.role.replace('_', ' ')} took {v.duration(step.longest_seconds)} of {v.duration(step.budget_seconds)} on {step.longest_host}"
        for step in took
        if step.state == "over"
    ]
    if over:
        yield Notice("warning", "Over budget", "; ".join(over[:5]) + (f"; {len(over) - 5} more" if len(over) > 5 else "") + ".")


def _counts(
    open_: list[Finding], since: Settled, found: list[Finding], hosts: list[Host], actions: list[Action]
) -> dict[str, dict[str, int]]:
    states = Counter(f.state for f in found if not (f.waiver and f.state != "ok"))
    changes = Counter(f.change for f in open_ if f.change)
    changes.update(fixed=len(since.fixed), gone=len(since.gone), unseen=len(since.unseen))
    return {
        "findings": {state: states[state] for state in ("critical", "warning", "unknown", "ok")}
        | {"waived": sum(1 for f in found if f.waiver and f.state != "ok")},
        "changes": {name: changes[name] for name in ("new", "worse", "better", "unchanged", "fixed", "gone", "unseen")},
        "hosts": dict(Counter(host.outcome or "no_outcome" for host in hosts)),
        "verdicts": dict(Counter(host.verdict for host in hosts)),
        "actions": dict(Counter(action.status for action in actions)),
    }


def _summary(run: Run, hosts: list[Host], counts: dict[str, dict[str, int]]) -> str:
    done = counts["hosts"].get("completed", 0)
    parts = []
    if run.check_mode:
        done, parts = counts["hosts"].get("previewed", 0), ["a preview, nothing was changed"]
    if counts["hosts"].keys() - {"no_outcome"}:
        parts.append(f"{done:,} of {v.plural(len(hosts), 'host')} {_verb(run, len(hosts) == 1 or done == 1)}")
        others = [
            f"{n:,} {name.replace('_', ' ')}"
            for name, n in sorted(counts["hosts"].items())
            if name not in ("completed", "previewed", "no_outcome")
        ]
        parts += [", ".join(others)] if others else []
    else:
        parts.append(f"{v.plural(len(hosts), 'host')} looked at")
    found = counts["findings"]
    bad = [f"{found[state]:,} {state}" for state in ("critical", "warning", "unknown") if found[state]]
    if bad:
        parts.append(f"{' and '.join([', '.join(bad[:-1]), bad[-1]] if len(bad) > 1 else bad)} to look at")
    else:
        parts.append(f"every check passed ({found['ok']:,})" if found["ok"] and not found["waived"] else _nothing_open(found))
    if bad and found["waived"]:
        parts.append(f"{found['waived']:,} more waived")
    if run.state == "interrupted":
        parts.append("the run was interrupted")
    said = "; ".join(parts) + "."
    return said[:1].upper() + said[1:]


def _verb(run: Run, singular: bool) -> str:
    if run.check_mode:
        return "would be maintained"
    return f"{'was' if singular else 'were'} maintained to the end"


def _nothing_open(found: dict[str, int]) -> str:
    if not found["ok"] and not found["waived"]:
        return "nothing was checked"
    return f"{v.plural(found['ok'], 'check')} passed, {found['waived']:,} not ok but waived"


def _signature(item) -> str:
    return f"{item.signed_by}, {item.signed_at}{f' ({item.note})' if item.note else ''}" if item.state == "signed" else ""


def past_run(report: Report) -> PastRun:
    """Return the line of a run in the overview of a span."""
    first = report.systems[0].window if report.systems else None
    downtimes = [h.downtime_seconds for h in report.hosts if h.downtime_seconds is not None]
    return PastRun(
        run_id=report.run.run_id,
        cadence=report.run.cadence,
        started=report.run.started,
        state=report.run.state,
        verdict=report.verdict,
        hosts=report.counts["hosts"],
        findings=report.counts["findings"],
        duration_seconds=first.duration_seconds if first else None,
        downtime_seconds=max(downtimes, default=None),
    )
