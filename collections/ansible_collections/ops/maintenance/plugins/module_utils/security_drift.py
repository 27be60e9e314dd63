# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare names and what is said of them with the baseline that was accepted: what came, changed and went."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .errors import MaintenanceError
from .judge import many
from .paths import read_state
from .record import Finding, worst
from .security_common import Review, shown, unknown

Entries = t.Mapping[str, str]
_ADVICE = "Find out who made each change; then accept it with security_review_accept_baseline, or undo it."


class Change(t.NamedTuple):
    """One difference; ``old`` is empty for what came, ``new`` for what went."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        if not self.old:
            return f"added {shown(self.name)}: {self.new}"
        return f"changed {shown(self.name)}: {self.old} -> {self.new}" if self.new else f"removed {shown(self.name)}: {self.old}"


@dataclass(frozen=True)
class Question:
    """What is compared.

    :param state_file: file in the state folder, one object of baselines by subject.
    :param one: what one entry is called, ``more`` many of them.
    :param rank: state of a change.
    :param first: state at first sight; ``ok`` also takes what is seen for the baseline, ``unknown`` waits for acceptance.
    """

    finding_id: str
    state_file: str
    one: str
    more: str
    rank: t.Callable[[Change], str]
    first: str = "ok"


def changes(old: Entries, new: Entries, is_partial: bool = False) -> list[Change]:
    """Return the differences by name; where not all could be looked at, nothing counts as gone."""
    names = sorted(set(new) if is_partial else set(old) | set(new))
    return [Change(name, old.get(name, ""), new.get(name, "")) for name in names if old.get(name) != new.get(name)]


def compared(review: Review, question: Question, subject: str, now: Entries, gaps: t.Sequence[str] = ()) -> Finding:
    """Judge what is there now, and keep it for the baseline where that is due; check mode keeps nothing.

    :param now: entries as they are.
    :param gaps: what could not be looked at; then nothing is accepted and nothing counts as gone.
    """
    try:
        kept = read_state(review.params["state_dir"], question.state_file)
    except (OSError, MaintenanceError) as error:
        return unknown(question.finding_id, shown(subject), f"there is no baseline to compare with: {error}", "Follow that advice.")
    accept = review.params["accept_baseline"] and not gaps
    baseline = kept.get(subject)
    if (accept or (baseline is None and question.first == "ok" and not gaps)) and not review.check_mode:
        when = review.now.isoformat(timespec="seconds")
        review.keep(question.state_file, {**kept, subject: {"accepted": when, "entries": dict(now)}})
    if baseline is None:
        return _first_sight(review, question, subject, len(now), gaps)
    found = changes(baseline["entries"], now, bool(gaps))
    state = worst((question.rank(change) for change in found), none="unknown" if gaps else "ok")
    said = " (accepted as the new baseline)" if accept and found else ""
    return Finding(
        question.finding_id,
        "ok" if accept else state,
        shown(subject),
        f"{many(len(found), 'change')} in {many(len(now), question.one, question.more)} since the baseline of {baseline['accepted']}{said}",
        value=len(found),
        unit="count",
        threshold="warning or critical from the first change",
        not_covered="; ".join(gaps[:5]),
        advice="" if accept or state == "ok" else "Make all of it readable for the review." if state == "unknown" else _ADVICE,
        evidence=[str(change) for change in found[:20]],
    )


def _first_sight(review: Review, question: Question, subject: str, count: int, gaps: t.Sequence[str]) -> Finding:
    accepted = review.params["accept_baseline"]
    kept = not gaps and (accepted or question.first == "ok")
    written = "would become" if review.check_mode else "became"
    entries = many(count, question.one, question.more)
    state = "unknown" if gaps else "ok" if accepted else question.first
    advice = "Make all of it readable for the review." if gaps else "Look at it, then accept it with security_review_accept_baseline."
    return Finding(
        question.finding_id,
        state,
        shown(subject),
        f"first sight: {entries} {written} the baseline" if kept else f"there is no accepted baseline for {entries}",
        threshold="warning or critical from the first change",
        not_covered="; ".join([*gaps[:5], "changes before this run"]),
        advice="" if state == "ok" else advice,
    )
