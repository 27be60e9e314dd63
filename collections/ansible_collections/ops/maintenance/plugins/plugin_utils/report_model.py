# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report holds. The JSON report is exactly this; HTML and Markdown are views of it.

docs/report.schema.json describes every field for machines.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "ops.maintenance.report/1"


@dataclass(frozen=True)
class Notice:
    """Something to know before reading on: ``critical`` (chain broken, interrupted), ``warning`` or ``info``."""

    level: str
    title: str
    text: str


@dataclass
class Run:
    """The run a report is about. ``state``: completed, failed, interrupted or running."""

    run_id: str
    cadence: str
    playbook: str
    check_mode: bool
    state: str
    started: str
    finished: str
    last_record: str
    control: str
    account: str
    job: str
    versions: dict[str, str]
    options: str
    chain: str  # intact, broken or unchecked
    chain_detail: str
    lines: int
    last_hash: str


@dataclass
class Finding:
    """A finding of a module with where it was made and how it compares with the last run that looked at the same.

    ``change``: new, worse, better, unchanged, fixed, gone (looked at again, not reported), unseen (not looked at this time), or
    empty where no earlier run looked at the same.
    """

    id: str
    state: str
    system: str
    host: str
    role: str
    phase: str
    subject: str
    summary: str
    value: str
    threshold: str
    basis: str
    not_covered: str
    advice: str
    evidence: list[str]
    waiver: str
    change: str = ""
    state_before: str = ""

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What makes it the same finding in two runs."""
        return (self.system, self.host, self.id, self.subject)


@dataclass
class Failure:
    """A record with status failed: a task that did not do its work.

    ``handled``: ``ignored`` or ``rescued`` by the playbook. ``has_finding``: a finding of the same record says it, too.
    """

    system: str
    host: str
    role: str
    task: str
    operation: str
    subject: str
    summary: str
    time: str
    handled: str
    has_finding: bool


@dataclass
class Action:
    """One thing that was done, is due, was deferred or failed; ``difference`` puts before and after side by side."""

    system: str
    host: str
    role: str
    operation: str
    subject: str
    status: str
    summary: str
    before: str
    after: str
    difference: str


@dataclass
class Host:
    """What became of a host. ``outcome`` is empty where the run made none (a role used alone), ``previewed`` in check mode."""

    system: str
    host: str
    verdict: str
    outcome: str
    reason: str
    downtime_seconds: float | None
    services_restored: bool | None
    rollback_required: bool | None
    states: dict[str, int]
    waived: int
    changed: int
    failed: int


@dataclass
class Window:
    """Planned and actual times of a system's maintenance."""

    planned_start: str
    planned_end: str
    timezone: str
    rule: str
    forced: bool
    reason: str
    started: str
    finished: str
    duration_seconds: float | None
    overrun_seconds: float | None
    downtime_seconds: float | None
    downtime_note: str


@dataclass
class System:
    """One system of the run, as its plan names it."""

    system: str
    title: str
    verdict: str
    summary: str
    hosts: int
    outcomes: dict[str, int]
    window: Window
    next_windows: list[str]
    special_activities: list[str]
    services: list[str]
    contacts: list[str]
    faults: list[str]


@dataclass
class Item:
    """An item of a checklist. ``state``: done, not_done, failed, missing, waived, open, signed or previewed (all is fine, in a preview).

    Only done and signed are ticked. ``attention``: what an activity that was done found to be not ok.
    """

    system: str
    id: str
    text: str
    kind: str
    phase: str
    state: str
    reason: str
    evidence: list[str]
    signed_by: str = ""
    signed_at: str = ""
    note: str = ""
    attention: str = ""

    @property
    def ticked(self) -> bool:
        """Whether there is proof, or a person's signature."""
        return self.state in ("done", "signed")


@dataclass
class Step:
    """How long a role took, per system, against its budget. ``state``: within, over, or none without a budget."""

    system: str
    role: str
    hosts: int
    longest_seconds: float
    longest_host: str
    median_seconds: float
    budget_seconds: float | None
    state: str


@dataclass(frozen=True)
class Point:
    """A metric in one run: one value of a host, or the span and mean over several (then ``host`` is empty)."""

    system: str
    name: str
    unit: str
    host: str
    subject: str
    run_id: str
    time: str
    low: float
    mean: float
    high: float
    count: int


@dataclass
class Series:
    """A metric over the runs, oldest first. ``host`` is empty where it sums up several hosts."""

    system: str
    name: str
    unit: str
    host: str
    subject: str
    points: list[Point]


@dataclass
class KeyMetric:
    """A number that the maintenance report template asks for, with its value in the run before."""

    title: str
    value: str
    before: str
    source: str


@dataclass
class Recommendation:
    """Proposed from a finding's advice; a person has to approve it."""

    text: str
    state: str
    because: str
    hosts: int


@dataclass
class Log:
    """The fields of a maintenance log entry."""

    date: str
    window: str
    type: str
    services_affected: list[str]
    changes_made: list[str]
    performed_by: str
    verified_by: str
    issues_encountered: list[str]
    rollback_required: str
    status: str
    status_reason: str


@dataclass
class PastRun:
    """A run in the overview of a span."""

    run_id: str
    cadence: str
    started: str
    state: str
    verdict: str
    hosts: dict[str, int]
    findings: dict[str, int]
    duration_seconds: float | None
    downtime_seconds: float | None


@dataclass
class Report:
    """All of it, worst first."""

    schema: str
    generated: str
    title: str
    verdict: str
    summary: str
    notices: list[Notice]
    run: Run
    span: list[PastRun]
    previous_run: str
    previous_started: str
    compared: list[str]
    counts: dict[str, dict[str, int]]
    systems: list[System]
    hosts: list[Host]
    failures: list[Failure]
    findings: list[Finding]
    fixed: list[Finding]
    gone: list[Finding]
    unseen: list[Finding]
    waived: list[Finding]
    passed: list[Finding]
    actions: list[Action]
    checklist: list[Item]
    activities: list[Item]
    duties: list[Item]
    steps: list[Step]
    metrics: list[KeyMetric]
    series: list[Series]
    recommendations: list[Recommendation]
    recommendations_approved: str
    log: Log
