# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what log retention did, or would do: actions, findings, figures."""

from __future__ import annotations

import typing as t

from .judge import human_bytes, many
from .log_rules import STEPS
from .log_work import Work
from .record import Action, Finding, Metric, clean

_NAMES_SHOWN = 20
_WORDS = {"compress": "compressed", "archive": "moved to the archive", "delete": "deleted"}


def actions_of(work: Work, check_mode: bool) -> list[Action]:
    """Return what was done, is due or had to wait under one rule."""
    actions = []
    for name, step in work.steps.items():
        if step.done:
            done = f"{many(len(step.done), 'file')} ({human_bytes(step.size)})"
            actions.append(
                Action(
                    work.rule.root,
                    name,
                    "due" if check_mode else "changed",
                    f"{done} {'to be ' if check_mode else ''}{_WORDS[name]}",
                    before={"files": len(step.done), "bytes": step.size, "names": step.done[:_NAMES_SHOWN]},
                    after={} if check_mode else {"bytes": step.size_after},
                )
            )
        if step.deferred:
            summary = f"no time in this window for {many(len(step.deferred), 'file')}"
            before = {"files": len(step.deferred), "names": step.deferred[:_NAMES_SHOWN]}
            actions.append(Action(work.rule.root, name, "deferred", summary, before=before))
    if work.swept or work.settled or work.folders_removed:
        summary = (
            f"{many(work.swept, 'temporary file')} of an interrupted run removed, {work.settled} of its files settled, "
            f"{many(work.folders_removed, 'empty month folder')} removed"
        )
        actions.append(Action(work.rule.root, "tidy", "changed", summary))
    return actions


def findings_of(work: Work) -> list[Finding]:
    """Return the verdicts on one rule."""
    rule, findings = work.rule, []
    if not work.matched and not work.held and not work.on_hold:
        return [
            Finding(
                "logs.retention", "unknown", rule.root, f"No file below {rule.root} matches {', '.join(rule.patterns)}.",
                advice="Correct root or pattern of the rule, or remove it.",
            )
        ]  # fmt: skip
    left = [path for step in work.steps.values() for path in step.deferred]
    state = "warning" if left else "ok"
    findings.append(
        Finding(
            "logs.retention", state, rule.root,
            f"{work.matched} files below {rule.root} follow the rule{f', {len(left)} wait for a longer window' if left else ''}.",
            value=len(left), unit="count", threshold="warning from 1 count left undone",
            basis="estimated" if work.estimated else "exact", not_covered=_not_covered(work),
            advice="" if state == "ok" else "Give the window more time, or run the retention more often.", evidence=left[:10],
        )
    )  # fmt: skip
    findings += _listed(
        work.held, "logs.held", "warning", rule.root, "files are due but were left alone",
        "Let the service that writes them reopen its log, or exclude them by the rule's pattern.",
    )  # fmt: skip
    findings += _listed(
        work.damaged, "logs.damaged", "warning", rule.root, "files are damaged and were left alone",
        "Keep a copy, restore them from a backup, or remove them by hand.",
    )  # fmt: skip
    findings += _listed(
        dict.fromkeys(work.renamed, "its plain name was taken by a file with other content"),
        "logs.name_taken", "warning", rule.root, "files got a number in their name, so that none was overwritten",
        "See why the same name is used twice; rotation with dates in the names avoids it.",
    )  # fmt: skip
    return findings


def nothing_declared() -> Finding:
    """Return the finding that says that nothing was looked at."""
    return Finding(
        "logs.retention", "unknown", "log files", "No rule is declared, so no log was looked at.",
        advice="Declare which logs are kept how long.",
    )  # fmt: skip


def _not_covered(work: Work) -> str:
    said = []
    if work.estimated:
        said.append(f"{work.estimated} files hold no date, so the time of their last change decided")
    if work.on_hold:
        said.append(f"{many(len(work.on_hold), 'file')} under a hold: {', '.join(clean(path, 120) for path in sorted(work.on_hold)[:3])}")
    if work.no_files:
        said.append(
            f"{many(len(work.no_files), 'link or special file', 'links or special files')} not touched: {', '.join(sorted(work.no_files)[:3])}"
        )
    return "; ".join(said)


def _listed(what: t.Mapping[str, str], finding_id: str, state: str, root: str, words: str, advice: str) -> list[Finding]:
    if not what:
        return [Finding(finding_id, "ok", root, f"0 {words}.", value=0, unit="count")]
    lines = [clean(f"{clean(path, 120)}: {reason}", 200) for path, reason in sorted(what.items())]
    return [
        Finding(finding_id, state, root, f"{len(what)} {words}.", value=len(what), unit="count",
                threshold=f"{state} from 1 count", advice=advice, evidence=lines)
    ]  # fmt: skip


def summary_of(works: t.Sequence[Work], before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any], check_mode: bool) -> str:
    """Say in a line what was done, or is due."""
    counts = [(name, sum(len(work.steps[name].done) for work in works)) for name in STEPS]
    said = ", ".join(f"{count} {'to be ' if check_mode else ''}{_WORDS[name]}" for name, count in counts)
    return said if check_mode else f"{said}; {human_bytes(_reclaimed(before, after))} reclaimed"


def _reclaimed(before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> int:
    return sum(int(before[path]["used_bytes"]) - int(after[path]["used_bytes"]) for path in before)


def metrics_of(works: t.Sequence[Work], before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> list[Metric]:
    """Return the figures of a run."""
    metrics = [
        Metric(f"logs.{name}", work.rule.root, len(work.steps[step].done), "count")
        for work in works
        for step, name in (("compress", "compressed"), ("archive", "archived"), ("delete", "deleted"))
    ]
    metrics += [Metric("logs.disk_use", path, after[path]["used_bytes"], "bytes") for path in after]
    return [*metrics, Metric("logs.reclaimed", "all", _reclaimed(before, after), "bytes")]
