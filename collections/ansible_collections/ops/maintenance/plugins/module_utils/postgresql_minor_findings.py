# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said about minor releases of PostgreSQL: what is pending, what a restart would meet, and what was refused."""

from __future__ import annotations

import typing as t

from .postgresql_minor_server import shown
from .record import Action, Finding

if t.TYPE_CHECKING:
    from .postgresql_minor_update import Job, Target


def all_of(job: Job, actions: t.Sequence[Action]) -> list[Finding]:
    """Return the findings of every server and of the packages."""
    findings = [finding for target in job.targets for finding in (pending(job, target), ready(job, target))]
    findings += [updated(action) for action in actions if action.status in ("changed", "failed")]
    return findings + ([majors(job)] if job.packages.minors else [])


def not_known(job: Job, target: Target) -> str:
    """Say why it is not known what is due for a server that answers, empty when it is."""
    if target.minor is None or target.cluster is None:
        return job.blind or "no package or cluster of this host is the one that answers"
    return "" if target.work else job.blind or target.minor.refused


def pending(job: Job, target: Target) -> Finding:
    """Judge whether a server runs the newest minor release that is to be had."""
    seen, minor = target.seen, target.minor
    common: dict[str, t.Any] = {"id": "postgresql_minor.pending", "subject": target.name, "threshold": "warning from one minor release"}
    if seen is None:
        advice = "Let the server answer, or correct how it is declared."
        return Finding(state="unknown", summary=f"Its version is not known: {target.problem}", advice=advice, **common)
    if minor is None or target.cluster is None:
        why = not_known(job, target)
        advice = "Take it out of patching_postgresql; whoever provides the server updates it."
        return Finding(
            state="unknown", summary=f"It runs {shown(seen.version)}; what is to be had is not known: {why}.", advice=advice, **common
        )
    lines = [f"{item.name} {item.installed or 'new'} -> {item.version}" for item in minor.planned]
    if target.work:
        words = {"update": f"{shown(minor.target)} is to be had", "restart": "what is on disk is newer than what runs"}[target.work]
        advice = "Update it in the next window: replicas first, then the primary."
        return Finding(
            state="warning",
            summary=f"It runs {shown(seen.version)}; {words}.",
            value=1,
            unit="count",
            advice=advice,
            evidence=lines,
            **common,
        )
    why = not_known(job, target)
    if why:
        advice = "Mend what is named, then run again."
        return Finding(
            state="unknown", summary=f"It runs {shown(seen.version)}; what is to be had is not known: {why}", advice=advice, **common
        )
    return Finding(
        state="ok", summary=f"It runs {shown(seen.version)}, the newest minor release that is to be had.", value=0, unit="count", **common
    )


def ready(job: Job, target: Target) -> Finding:
    """Judge whether a server could be restarted now."""
    limit = job.params["maximum_lag_bytes"]
    common: dict[str, t.Any] = {
        "id": "postgresql_minor.ready",
        "subject": target.name,
        "threshold": f"warning from {limit} bytes of lag, from a transaction of {job.params['long_transaction_seconds']:g} seconds",
    }
    if target.seen is None:
        return Finding(state="unknown", summary=f"It could not be asked: {target.problem}", advice="Let the server answer.", **common)
    if target.seen.blind:
        advice = "Grant pg_monitor to the role."
        return Finding(state="unknown", summary=f"Long transactions are not known: {target.seen.blind}.", advice=advice, **common)
    if not target.work:
        why = not_known(job, target)
        if why:
            words = f"Whether a restart is due is not known, so that nothing that speaks against one was looked for: {why}"
            return Finding(state="unknown", summary=words, advice="Mend what postgresql_minor.pending says, then run again.", **common)
        return Finding(state="ok", summary="Nothing is due, so that it is not restarted.", value=0, unit="count", **common)
    said = job.refusals(target) + job.waits_for(target)
    if said:
        advice = "Let transactions end and replicas catch up; update replicas first, one after the other."
        return Finding(
            state="warning",
            summary=f"A restart has to wait: {said[0]}.",
            value=len(said),
            unit="count",
            advice=advice,
            evidence=said,
            **common,
        )
    return Finding(state="ok", summary=f"Nothing speaks against a restart of this {target.seen.role}.", value=0, unit="count", **common)


def updated(action: Action) -> Finding:
    """Say what became of a server that was updated."""
    if action.status == "failed":
        advice = "Read the server's log; the packages from before are in the snapshot of this run."
        return Finding("postgresql_minor.updated", "critical", action.subject, action.summary, advice=advice)
    return Finding("postgresql_minor.updated", "ok", action.subject, f"The running server says so: {action.summary}.")


def majors(job: Job) -> Finding:
    """Name what would bring another major version; that is never installed here."""
    offered = job.packages.majors_offered
    if not offered and job.blind:
        said = f"Whether a package would bring another major version is not known: {job.blind}."
        return Finding("postgresql_minor.major", "unknown", "packages", said, advice="Mend what is named, then run again.")
    if not offered:
        return Finding("postgresql_minor.major", "ok", "packages", "No pending package stands for another major version.", 0, "count")
    advice = "Plan the upgrade to the new major version as a project of its own; until then hold these packages."
    said = "Packages that would bring another major version are left alone."
    return Finding("postgresql_minor.major", "warning", "packages", said, len(offered), "count", advice=advice, evidence=list(offered))
