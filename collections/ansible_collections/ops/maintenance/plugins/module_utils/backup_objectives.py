# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is promised of a set of backups: recovery time and point, history, encryption; kept or not, and whether it can be kept at all."""

from __future__ import annotations

import os
import typing as t

from .backup_encryption import encryption_of_file
from .backup_sets import DAY, HOUR, Backup, Declared
from .judge import human_seconds
from .record import Finding

if t.TYPE_CHECKING:
    from .backup_proof import Proof

_INTERVALS = {"hourly": HOUR, "daily": DAY, "weekly": 7 * DAY}
_LOOKED_AT = 20
_FILES = ("files", "borg", "restic")


def conflicts(declared: Declared) -> list[Finding]:
    """Say where what is declared contradicts itself: no backup job can ever keep such a promise, however well it runs."""
    if not (declared["maximum_rpo_hours"] or declared["minimum_history_days"]):
        return []
    found = [text for text in (_schedule(declared), _history(declared)) if text]
    return [
        Finding(
            id="backup.objectives",
            state="critical" if found else "ok",
            subject=declared["name"],
            summary="; ".join(found) or "schedule and retention can meet the declared objectives",
            value=round(_interval(declared) / HOUR, 2),
            unit="hours",
            threshold=_promises(declared),
            advice="Let the owner decide: back up more often (or archive the write-ahead log), keep backups longer, or change the objective."
            if found
            else "",
        )
    ]


def _promises(declared: Declared) -> str:
    parts = []
    if declared["maximum_rpo_hours"]:
        parts.append(f"critical when backups are more than {declared['maximum_rpo_hours']:g} hours apart")
    if declared["minimum_history_days"]:
        parts.append(f"critical when they are kept for less than {declared['minimum_history_days']:g} days")
    return ", ".join(parts)


def _interval(declared: Declared) -> float:
    """Return the seconds between two backups: as declared, else what the age limit lets pass."""
    every = (declared["expected"] or {}).get("every", "")
    return _INTERVALS.get(every, float(declared["maximum_age_hours"]) * HOUR)


def _schedule(declared: Declared) -> str:
    limit = declared["maximum_rpo_hours"] * HOUR
    if not limit or _interval(declared) <= limit:
        return ""
    return (
        f"a backup every {human_seconds(_interval(declared))} cannot keep a recovery point objective of {human_seconds(limit)}: "
        f"up to {human_seconds(_interval(declared))} would be lost"
    )


def _history(declared: Declared) -> str:
    wanted = declared["minimum_history_days"]
    kept = (declared["retention"] or {}).get("maximum_age_days")
    if not wanted or kept is None or kept >= wanted:
        return ""
    return f"backups are kept for {kept:g} days, so damage that is noticed after that is beyond recovery ({wanted:g} days are wanted)"


def encryption(declared: Declared, newest: Backup) -> list[Finding]:
    """Say whether the files of the newest backup begin as encrypted ones do, where that is declared."""
    if not declared["encrypted"] or not newest.files:
        return []
    clear, names, unread = [], set(), []
    for file in [file for file in newest.files if file.size][:_LOOKED_AT]:
        try:
            name = encryption_of_file(file.path)
        except OSError as error:
            unread.append(f"{file.path}: {error.strerror}")
            continue
        if name:
            names.add(name)
        elif os.path.basename(file.path) != declared["manifest"].replace("{name}", os.path.basename(newest.path)):
            clear.append(file.path)
    state = "critical" if clear else "unknown" if unread or not names else "ok"
    text = f"encrypted ({', '.join(sorted(names))})"
    if clear:
        text = f"{len(clear)} files of the newest backup are not encrypted"
    elif state == "unknown":
        text = f"could not be looked at: {unread[0] if unread else 'no file holds anything'}"
    return [
        Finding(
            id="backup.encryption", state=state, subject=newest.path, summary=text, evidence=clear[:10],
            not_covered="" if len(newest.files) <= _LOOKED_AT else f"{len(newest.files) - _LOOKED_AT} further files",
            advice="" if state == "ok" else "Encrypt the backup where it is made, and look who could read the clear one meanwhile.",
        )
    ]  # fmt: skip


def measured(declared: Declared, proof: Proof, before: t.Mapping[str, t.Any], stamp: str) -> list[Finding]:
    """Compare what was measured, now or at the last drill, with the recovery objectives."""
    kept = remembered(proof, before, stamp)
    found = []
    if declared["maximum_rto_minutes"]:
        limit = declared["maximum_rto_minutes"] * 60
        found.append(_against("rto", kept, limit, (60.0, "minutes"), declared, proof.rto_seconds is not None))
    if declared["maximum_rpo_hours"]:
        limit = declared["maximum_rpo_hours"] * HOUR
        found.append(_against("rpo", kept, limit, (HOUR, "hours"), declared, proof.rpo_seconds is not None))
    return found


_WORDS = {
    "rto": ("restoring took", "Restore faster (parallel, physical backups, better storage), or let the owner change the objective."),
    "rpo": (
        "what the newest backup holds is behind by",
        "Back up more often or archive the write-ahead log, or let the owner change the objective.",
    ),
}


def _against(what: str, kept: t.Mapping[str, t.Any], limit: float, counted: tuple[float, str], declared: Declared, is_now: bool) -> Finding:
    name = declared["name"]
    words, advice = _WORDS[what]
    unit_seconds, unit = counted
    last = kept.get(what)
    threshold = f"critical above {limit / unit_seconds:g} {unit}"
    if last is None:
        return Finding(
            id=f"backup.{what}", state="unknown", subject=name, summary=f"{what.upper()} was never measured", threshold=threshold,
            advice=_to_measure(what, declared),
        )  # fmt: skip
    seconds = float(last["seconds"])
    state = "critical" if seconds > limit else "ok"
    return Finding(
        id=f"backup.{what}", state=state, subject=name,
        summary=f"{words} {human_seconds(seconds)}, the objective is {human_seconds(limit)}",
        value=round(seconds / unit_seconds, 3), unit=unit, threshold=threshold, basis="exact" if is_now else "stale",
        as_of="" if is_now else str(last["at"]), advice="" if state == "ok" else advice,
    )  # fmt: skip


def _to_measure(what: str, declared: Declared) -> str:
    """Say how it comes to be measured: of a set that does not say how old its content is, no drill ever tells."""
    kind = (declared.get("command") or declared)["kind"]
    option, means = ("source", "the live folder") if kind in _FILES else ("sentinel", "the row or key that tells how new the content is")
    needed = f"Declare {option}, {means}, for without it no drill can tell; then run" if what == "rpo" and not declared[option] else "Run"
    return f"{needed} a restore drill (level {3 if what == 'rto' else 5}) of this set."


def remembered(proof: Proof, before: t.Mapping[str, t.Any], stamp: str) -> dict[str, t.Any]:
    """Return the last measured times, those of this run where it measured any."""
    kept = dict(before.get("measured", {}))
    for what, seconds in (("rto", proof.rto_seconds), ("rpo", proof.rpo_seconds)):
        if seconds is not None:
            kept[what] = {"seconds": round(seconds, 3), "at": stamp}
    return kept
