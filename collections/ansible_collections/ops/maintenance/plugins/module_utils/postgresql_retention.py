# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep rows of PostgreSQL tables as long as the rules say: plan, move or delete in batches, look again."""

from __future__ import annotations

import contextlib
import typing as t
from datetime import datetime

from . import postgresql, postgresql_blockers, postgresql_retention_tables, postgresql_retention_work
from .errors import InputError, MaintenanceError, out_of_range, refusal, refuse
from .host import Host
from .postgresql_retention_report import Job, Place, outcome_of
from .postgresql_retention_rules import RULE, Rule, children_first, parse
from .postgresql_retention_self_test import self_test
from .postgresql_retention_tables import Facts
from .postgresql_retention_work import Mover, Plan, Terms
from .record import Finding, Outcome, self_test_finding

OPTIONS: dict[str, t.Any] = {
    "servers": {"type": "list", "elements": "dict", "required": True, "options": postgresql.SERVER},
    "rules": {"type": "list", "elements": "dict", "required": True, "options": RULE},
    "statement_timeout_seconds": {"type": "float", "default": 300.0},
    "clock_tolerance_seconds": {"type": "float", "default": 3600.0},
}


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
        _look(jobs, sessions, servers, host, params)
        problems = [problem for job in jobs if job.facts for problem in job.facts.problems]
        if problems:
            raise InputError(" ".join(problems), _refusal(jobs))
        jobs = _in_order(jobs)
        for job in jobs:
            _plan(job, jobs, sessions, servers)
    if not check_mode:
        for job in jobs:
            if job.wanted:
                _work(job, servers[job.rule.server], params, host)
    outcome = outcome_of(jobs, check_mode)
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


def _look(
    jobs: list[Job],
    sessions: dict[Place, postgresql.Session],
    servers: dict[str, postgresql.Server],
    host: Host,
    params: dict[str, t.Any],
) -> None:
    """Read the catalogue for every rule; all cut-offs count from one moment of each server's clock."""
    clocks: dict[str, str] = {}
    for job in jobs:
        if job.unseen:
            continue
        session = sessions[job.place]
        try:
            now = clocks.setdefault(job.rule.server, str(session.value("SELECT clock_timestamp()::text")))
            with postgresql_blockers.told(servers[job.rule.server], job.rule.database, session):
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


def _plan(job: Job, jobs: list[Job], sessions: dict[Place, postgresql.Session], servers: dict[str, postgresql.Server]) -> None:
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
        with postgresql_blockers.told(servers[job.rule.server], job.rule.database, session):
            postgresql_retention_work.count(session, plan, after_children=True)
    except MaintenanceError as error:
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
        with (
            postgresql_retention_work.work_session(server, job.rule.database, job.rule.options["search_path"], limit) as session,
            postgresql_blockers.told(server, job.rule.database, session),
        ):
            _carry_out(job, job.facts, session, params["deadline"], host)
    except MaintenanceError as error:
        was_cancelled = isinstance(error, postgresql.StatementError) and error.sqlstate == postgresql.QUERY_CANCELED
        if was_cancelled and limit < params["statement_timeout_seconds"]:
            job.deferred = True  # the window closed, and the batch was rolled back
        else:
            job.failure = _too_long(limit) if was_cancelled else str(error)


def _too_long(limit: float) -> str:
    """Word a time limit that was met; PostgreSQL's own words name neither the limit nor what to do."""
    return (
        f"a statement did not end within {limit:g} seconds (statement_timeout_seconds), or somebody cancelled it, and was rolled back; "
        "take smaller batches (batch_rows), raise the limit, or find out what holds it up"
    )


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
