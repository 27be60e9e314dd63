# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of each retention rule, and how that is told: findings, metrics, actions, and the tables that were touched."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .postgresql_retention_rules import Rule
from .postgresql_retention_tables import ACTIONS, Facts
from .postgresql_retention_work import Plan
from .record import Action, Finding, Metric, Outcome, status_of

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


def outcome_of(jobs: list[Job], check_mode: bool) -> Outcome:
    """Sum up what became of all rules."""
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
