# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep rows of PostgreSQL tables as long as the rules say: plan, move or delete in batches, look again."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass, field
from datetime import datetime

from . import postgresql, postgresql_retention_tables, postgresql_retention_work
from .errors import InputError, MaintenanceError, out_of_range, refusal, refuse
from .host import Host
from .postgresql_retention_rules import RULE, Rule, children_first, parse
from .postgresql_retention_self_test import self_test
from .postgresql_retention_tables import ACTIONS, Facts
from .postgresql_retention_work import Mover, Plan, Terms
from .record import Action, Finding, Metric, Outcome, self_test_finding, status_of

OPTIONS: dict[str, t.Any] = {
    "servers": {"type": "list", "elements": "dict", "required": True, "options": postgresql.SERVER},
    "rules": {"type": "list", "elements": "dict", "required": True, "options": RULE},
    "statement_timeout_seconds": {"type": "float", "default": 300.0},
    "clock_tolerance_seconds": {"type": "float", "default": 3600.0},
}

Place = t.Tuple[str, str]  # noqa: UP006 - evaluated when the module is loaded, on Python 3.9 too


@dataclass
class Job:
    """One rule on its way: what was seen, planned, done, and what went wrong."""

    rule: Rule
    number: int
    facts: Facts | None = None
    plan: Plan | None = None
    unseen: str = ""
    failure: str = ""
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    removed: int = 0
    created: bool = False
    deferred: bool = False
    left: int = 0
    left_free: int = 0
    held_by: dict[str, int] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Server and database."""
        return self.rule.server, self.rule.database

    @property
    def wanted(self) -> int:
        """How many rows the rule would remove now; 0 where something speaks against it."""
        return self.plan.removable if self.plan and self.plan.counted and not self.refused and not self.unseen else 0


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every rule's tables, plan, and outside check mode do what is due."""
    refuse(input_problems(params))
    proof = self_test_finding("retention.self_test", "postgresql_retention", self_test()) if params["self_test"] else None
    if proof and proof.state != "ok":
        words = f"No row was removed, for what guards them cannot be relied on: {proof.summary}."
        raise MaintenanceError(words, Outcome("retention", "postgresql_retention", "failed", words, findings=[proof]))
    servers: dict[str, postgresql.Server] = {server["name"]: server for server in params["servers"]}
    jobs = [Job(rule, number) for number, rule in enumerate(parse(params["rules"], servers))]
    with contextlib.ExitStack() as stack:
        sessions = _sessions(jobs, servers, params, stack)
        _look(jobs, sessions, host, params)
        problems = [problem for job in jobs if job.facts for problem in job.facts.problems]
        if problems:
            raise InputError(" ".join(problems), _refusal(jobs))
        jobs = _in_order(jobs)
        for job in jobs:
            _plan(job, jobs, sessions)
    if not check_mode:
        for job in jobs:
            if job.wanted:
                _work(job, servers[job.rule.server], params, host)
    outcome = _outcome(jobs, check_mode)
    outcome.findings += [proof] if proof else []
    return outcome


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = [problem for server in params["servers"] for problem in refusal(postgresql.check_server, server)]
    names = [server["name"] for server in params["servers"]]
    doubled = sorted({name for name in names if names.count(name) > 1})
    problems += [f"Two servers are called {name!r}, expected a name of its own for each; rename one." for name in doubled]
    problems += out_of_range(params, ("statement_timeout_seconds", "clock_tolerance_seconds"), least=1, most=86400)
    return problems + refusal(parse, params["rules"], names)


# Looking -------------------------------------------------------------------------------------------------------------


def _sessions(
    jobs: list[Job], servers: dict[str, postgresql.Server], params: dict[str, t.Any], stack: contextlib.ExitStack
) -> dict[Place, postgresql.Session]:
    """Open one session that can only read with each database; where that fails, its rules are not looked at."""
    sessions: dict[Place, postgresql.Session] = {}
    refusals: dict[Place, str] = {}
    for job in jobs:
        if job.place not in sessions and job.place not in refusals:
            try:
                timeout = params["statement_timeout_seconds"]
                opened = postgresql.connect(servers[job.rule.server], job.rule.database, read_only=True, statement_timeout_seconds=timeout)
                sessions[job.place] = stack.enter_context(opened)
                postgresql_retention_work.prepare(opened)
            except InputError:
                raise
            except MaintenanceError as error:
                refusals[job.place] = str(error)
        job.unseen = refusals.get(job.place, "")
    return sessions


def _look(jobs: list[Job], sessions: dict[Place, postgresql.Session], host: Host, params: dict[str, t.Any]) -> None:
    """Read the catalogue for every rule; all cut-offs count from one moment of each server's clock."""
    clocks: dict[str, str] = {}
    for job in jobs:
        if job.unseen:
            continue
        session = sessions[job.place]
        try:
            now = clocks.setdefault(job.rule.server, str(session.value("SELECT clock_timestamp()::text")))
            job.facts = postgresql_retention_tables.look(session, job.rule, now)
            if session.value("SELECT pg_is_in_recovery()"):
                words = f"The rule for {job.rule.subject} names a standby, which cannot be written to; name the primary."
                job.facts.problems.append(words)
        except MaintenanceError as error:
            job.unseen = str(error)
            continue
        apart = abs((datetime.fromisoformat(_iso(now)) - host.now()).total_seconds())
        if apart > params["clock_tolerance_seconds"]:
            words = f"the server's clock and this host's are {apart:.0f} seconds apart, so no age can be relied on"
            job.refused["retention.clock"] = (words, "Correct the clocks; nothing was removed.")


def _iso(text: str) -> str:
    """Turn PostgreSQL's text of a time into what Python 3.9 reads: six digits of a second, minutes in the zone."""
    moment, zone = text[:-3], text[-3:]
    seconds, _dot, fraction = moment.partition(".")
    return f"{seconds}.{fraction:0<6}{zone}:00"


def _refusal(jobs: list[Job]) -> Outcome:
    outcome = Outcome("retention", "postgresql_retention", "failed", "rules that cannot be used: nothing was changed")
    for job in jobs:
        for problem in job.facts.problems if job.facts else ():
            advice = "Correct the rule or the table; no rule was applied."
            outcome.findings.append(Finding("retention.rule", "critical", job.rule.subject, problem, advice=advice))
    return outcome


def _in_order(jobs: list[Job]) -> list[Job]:
    """Put the rules of tables that refer to others before those of what they refer to."""
    by_table: dict[tuple[Place, int], list[int]] = {}
    for job in jobs:
        for oid in job.facts.source.oids if job.facts else ():
            by_table.setdefault((job.place, oid), []).append(job.number)
    refers_to: dict[int, set[int]] = {}
    for job in jobs:
        for reference in job.facts.references if job.facts else ():
            for child in by_table.get((job.place, reference.child_oid), ()):
                refers_to.setdefault(child, set()).add(job.number)
    numbers = children_first([job.number for job in jobs], refers_to)
    return [next(job for job in jobs if job.number == number) for number in numbers]


# Planning ------------------------------------------------------------------------------------------------------------


def _plan(job: Job, jobs: list[Job], sessions: dict[Place, postgresql.Session]) -> None:
    """Count what the rule means, and refuse what would be a burden or looks like a mistake."""
    if job.unseen or job.facts is None:
        return
    session = sessions[job.place]
    leaving = {}
    for other in jobs:
        gone_first = other.facts is not None and other.place == job.place and not other.refused and not other.unseen
        if gone_first and other.facts is not None and (other.number == job.number or other.plan):
            leaving[other.facts.source.oid] = Terms(session, other.facts, other.number)
    job.plan = plan = Plan(job.facts, Terms(session, job.facts, job.number), leaving)
    scans = plan.scan_needed
    if scans and not job.rule.options["allow_scan"]:
        words = f"a big table has no index that leads with {', '.join(scans)}, so every batch would read it all"
        job.refused["retention.index"] = (words, "Create the index CONCURRENTLY, or set allow_scan: true for a quiet window.")
        job.unseen = "not counted, for want of an index"
        return
    try:
        postgresql_retention_work.count(session, plan, after_children=True)
    except postgresql.StatementError as error:
        job.unseen = str(error)
        return
    job.held_by = dict(plan.held_by)
    job.left = plan.due - plan.removable
    if not plan.kept_enough and not job.rule.options["allow_large_share"]:
        share = 100.0 * plan.removable / max(plan.total, plan.removable)
        words = f"{plan.removable} rows would go, {share:.0f} percent of the table; the rule allows {_allowed(job.rule)}"
        advice = "Check age and column; set allow_large_share: true for one run if it is right, such as the first one."
        job.refused["retention.share"] = (words, advice)
    if plan.doubled:
        words = f"{plan.doubled} of the due rows are in {'.'.join(job.rule.archive or ())} already, so moving them would double them"
        advice = "Something copied without deleting; compare them by the primary key and delete one of each pair."
        job.refused["retention.archive"] = (words, advice)


def _allowed(rule: Rule) -> str:
    least = rule.options["minimum_rows_kept"]
    return f"{rule.options['maximum_share_percent']:g} percent" + (f", and keeps at least {least} rows" if least else "")


# Working -------------------------------------------------------------------------------------------------------------


def _work(job: Job, server: postgresql.Server, params: dict[str, t.Any], host: Host) -> None:
    """Carry out one rule in a session of its own, then count again; a failure ends this rule only."""
    if job.plan is None or job.facts is None:
        raise AssertionError("only what was planned is carried out")
    limit = params["statement_timeout_seconds"]
    if params["deadline"]:
        limit = min(limit, params["deadline"] - host.now().timestamp())
        if limit < 1:
            job.deferred = True
            job.left = job.plan.due
            return
    try:
        with postgresql_retention_work.work_session(server, job.rule.database, job.rule.options["search_path"], limit) as session:
            _carry_out(job, job.facts, session, params["deadline"], host)
    except MaintenanceError as error:
        job.failure = str(error)


def _carry_out(job: Job, facts: Facts, session: postgresql.Session, deadline: float, host: Host) -> None:
    plan = Plan(facts, Terms(session, facts, job.number))
    job.left = job.plan.due if job.plan else 0
    if facts.rule.archive and facts.archive is None:
        postgresql_retention_work.create_archive(session, facts)
        job.created = True
    mover = Mover(session, plan, host, deadline, job.wanted)
    try:
        mover.run()
    finally:
        job.removed, job.deferred = mover.removed, mover.deferred
        job.left -= mover.removed
    postgresql_retention_work.count(session, plan, after_children=False)
    job.left, job.left_free, job.held_by = plan.due, plan.removable, dict(plan.held_by)


# Reporting -----------------------------------------------------------------------------------------------------------


def _outcome(jobs: list[Job], check_mode: bool) -> Outcome:
    outcome = Outcome("retention", "postgresql_retention", "ok", "")
    if not jobs:
        advice = "Declare the rules, or leave this step out."
        outcome.findings.append(Finding("retention.rule", "unknown", "retention", "no rule is declared", advice=advice))
    touched = []
    for job in jobs:
        outcome.findings += _findings(job, check_mode)
        outcome.metrics += _metrics(job)
        outcome.actions += _actions(job, check_mode)
        touched += _touched(job)
    due = {job.rule.subject: job.plan.due for job in jobs if job.plan and job.plan.counted}
    outcome.before = {"rows_due": due}
    outcome.after = {"rows_due": {job.rule.subject: _after(job) for job in jobs if job.plan and job.plan.counted}}
    failure = next((job.failure for job in jobs if job.failure), "")
    failure = failure or next((job.unseen for job in jobs if job.unseen and not job.refused), "")
    outcome.status = "failed" if failure else status_of(outcome.actions, check_mode)
    removed = sum(job.wanted if check_mode else job.removed for job in jobs)
    outcome.summary = failure or f"{len(jobs)} rule(s), worst state {outcome.state}, {removed} row(s) {'due' if check_mode else 'removed'}"
    outcome.returned = {"due": outcome.is_change, "touched": touched}
    return outcome


def _after(job: Job) -> int:
    """Return how many rows are due afterwards; in check mode, how many would be."""
    if job.plan is None:
        raise AssertionError("only planned rules are summed up")
    return job.left if job.removed or job.wanted or job.deferred else job.plan.due


def _findings(job: Job, check_mode: bool) -> list[Finding]:
    subject, found = job.rule.subject, []
    for finding_id, (words, advice) in job.refused.items():
        state = "critical" if finding_id == "retention.clock" else "warning"
        found.append(Finding(finding_id, state, subject, f"{words}; nothing was removed", advice=advice))
    if job.unseen:
        advice = "Read the reason, correct it, run again."
        found.append(Finding("retention.rows", "unknown", subject, job.unseen, advice=advice, not_covered="all rows"))
        return found
    plan = job.plan
    if plan is None:
        return found
    found.append(_rows(job, plan, check_mode))
    found.append(_ageless(job, plan))
    if job.held_by:
        found.append(_held(job, plan))
    elif plan.facts.references:
        found.append(Finding("retention.references", "ok", subject, "no foreign key holds a row that is due", value=0, unit="count"))
    return found


def _rows(job: Job, plan: Plan, check_mode: bool) -> Finding:
    rule = job.rule
    about = f"{'' if plan.exact else 'about '}{plan.total:.0f} rows"
    more: dict[str, t.Any] = {"unit": "count", "threshold": f"due from {rule.age_days:g} days after {rule.column}"}
    if job.failure:
        words = f"{job.removed} rows were removed, then the work stopped: {job.failure}"
        advice = "Correct the cause and run again; every row is in the table or in the archive, none in both."
        return Finding("retention.rows", "critical", rule.subject, words, value=job.removed, advice=advice, **more)
    if job.refused:
        return Finding(
            "retention.rows", "warning", rule.subject, f"{plan.due} of {about} are due and stay", value=plan.due,
            advice="See the other finding of this rule.", **more,
        )  # fmt: skip
    if check_mode or not job.wanted:
        words = f"{plan.due} of {about} are due, {job.wanted} can go ({rule.operation})"
        return Finding("retention.rows", "ok", rule.subject, words, value=plan.due, **more)
    words = f"{job.removed} of {about} were removed ({rule.operation}), {job.left} that are due are left"
    if not job.left_free and not job.deferred:
        return Finding("retention.rows", "ok", rule.subject, words, value=job.left, **more)
    advice = "Give the window more time." if job.deferred else "Other sessions held them or they came since; the next run takes them."
    return Finding("retention.rows", "warning", rule.subject, words, value=job.left, advice=advice, **more)


def _ageless(job: Job, plan: Plan) -> Finding:
    columns = " and ".join(plan.terms.parts)
    words = f"{plan.ageless} rows have no {columns}, so they never become due"
    advice = "Name another column in null_column_age, or find out why it is empty." if plan.ageless else ""
    state = "warning" if plan.ageless else "ok"
    return Finding("retention.null_rows", state, job.rule.subject, words, value=plan.ageless, unit="count", advice=advice)


def _held(job: Job, plan: Plan) -> Finding:
    names = {f"{r.name} of {'.'.join(r.child)}": ACTIONS.get(r.action, r.action) for r in plan.facts.references}
    evidence = [f"{name} (ON DELETE {names.get(name, '?')}): {number} rows" for name, number in sorted(job.held_by.items())]
    words = f"rows that are due stay because others refer to them: {evidence[0]}"
    advice = (
        "Give the referring table a rule, or let its rows go; allow_cascade: true lets CASCADE and SET NULL act, which archives nothing."
    )
    value = sum(job.held_by.values())
    return Finding("retention.references", "warning", job.rule.subject, words, value=value, unit="count", advice=advice, evidence=evidence)


def _metrics(job: Job) -> list[Metric]:
    plan = job.plan
    if plan is None or not plan.counted:
        return []
    numbers = {"rows": plan.total, "rows_due": plan.due, "rows_removed": job.removed, "rows_without_age": plan.ageless}
    return [Metric(f"retention.{name}", job.rule.subject, value, "count") for name, value in numbers.items()]


def _actions(job: Job, check_mode: bool) -> list[Action]:
    plan, rule = job.plan, job.rule
    if plan is None or not job.wanted:
        return []
    actions: list[Action] = []
    where = f"to {'.'.join(rule.archive)}" if rule.archive else "for good"
    before = {"rows_due": plan.due}
    creates = rule.archive is not None and plan.facts.archive is None
    if creates and (check_mode or job.created):
        words = f"{'.'.join(rule.archive or ())} is created like the table"
        actions.append(Action(rule.subject, "create_archive", "due" if check_mode else "changed", words))
    if check_mode:
        words = f"{job.wanted} rows with {rule.older} go {where}"
        actions.append(Action(rule.subject, rule.operation, "due", words, before, {"rows_due": plan.due - job.wanted}))
        return actions
    if job.removed:
        words = f"{job.removed} rows with {rule.older} went {where}"
        after = {"rows_due": job.left, "rows_removed": job.removed}
        actions.append(Action(rule.subject, rule.operation, "changed", words, before, after))
    if job.failure:
        actions.append(Action(rule.subject, rule.operation, "failed", job.failure, before))
    elif job.deferred:
        words = f"{job.wanted - job.removed} rows are due, but the window closes first"
        actions.append(Action(rule.subject, rule.operation, "deferred", words, before))
    return actions


def _touched(job: Job) -> list[dict[str, t.Any]]:
    """List the tables whose dead or new rows want VACUUM or ANALYZE."""
    if not job.removed:
        return []
    where = {"server": job.rule.server, "database": job.rule.database}
    tables = [{**where, "schema": job.rule.table[0], "table": job.rule.table[1], "rows": job.removed, "wants": ["vacuum", "analyze"]}]
    if job.rule.archive:
        schema, name = job.rule.archive
        tables.append({**where, "schema": schema, "table": name, "rows": job.removed, "wants": ["analyze"]})
    return tables
