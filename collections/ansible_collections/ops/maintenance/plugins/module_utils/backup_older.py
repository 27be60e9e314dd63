# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The older backups of a set: each read as far as is asked, for one that is damaged is history lost."""

from __future__ import annotations

import typing as t

from .backup_proof import LEVELS, Proof
from .backup_sets import Backup, Declared
from .record import Finding, worst

_SHOWN = 15


def older(
    declared: Declared, backups: t.Iterable[Backup], prove: t.Callable[[Declared, Backup], Proof], is_late: t.Callable[[], bool]
) -> tuple[Finding, dict[str, str]]:
    """Read every older backup up to ``every_level``; return the verdict, and the digests by path of those that are sound."""
    level, name = declared["every_level"], declared["name"]
    asked = {**declared, "level": level}
    bad, states, left, digests, looked_at = [], ["ok"], 0, {}, 0
    for backup in backups:
        if is_late():
            left += 1
            continue
        looked_at += 1
        proof = prove(asked, backup) if backup.size else Proof(reached=-1)
        if backup.size and proof.reached >= level:
            digests.update(proof.digests)
            continue
        states.append(proof.findings[-1].state if proof.findings else "critical")
        bad.append(f"{backup.path}: {proof.findings[-1].summary if proof.findings else 'it is empty'}")
    state = worst(states)
    text = f"{looked_at - len(bad)} of {looked_at} older backups are proven to L{level} ({LEVELS[level]})"
    if left:
        text += f", {left} were left for the next run"
    finding = Finding(
        id="backup.older", state="unknown" if state == "ok" and left else state, subject=name, summary=text, value=len(bad), unit="count",
        threshold="critical from 1 that fails", not_covered=f"{left} older backups: the deadline was near" if left else "",
        advice="" if state == "ok" and not left else "Do not count on these; look at the storage, and keep what is sound for longer.",
        evidence=bad[:_SHOWN],
    )  # fmt: skip
    return finding, digests
