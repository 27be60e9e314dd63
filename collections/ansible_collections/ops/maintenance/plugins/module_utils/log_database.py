# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log of a PostgreSQL server tells of its work besides errors: checkpoints that come too early, temporary files and their sizes."""

from __future__ import annotations

import re
import typing as t
from collections import Counter

from .judge import from_limit, human_bytes, many
from .record import Finding, clean

if t.TYPE_CHECKING:
    from .log_tally import Tally

CHECKPOINTS, EARLY, TEMPORARY = "checkpoints", "early_checkpoints", "temporary_files"
"""Tags of what is counted."""

_SIGNS = {
    CHECKPOINTS: re.compile(rb"(?:check|restart)point complete:"),
    EARLY: re.compile(rb"checkpoints are occurring too frequently"),
    TEMPORARY: re.compile(rb'temporary file: path "[^"]*", size (\d{1,18})$'),
}


def database_event(text: bytes) -> tuple[str, bytes]:
    """Return which tag a message of the server is counted under, and the size of a temporary file; both empty for any other message."""
    for tag, sign in _SIGNS.items():
        found = sign.match(text)
        if found:
            return tag, found.group(1) if found.groups() else b""
    return "", b""


def database_findings(name: str, tally: Tally, limits: t.Mapping[str, float]) -> list[Finding]:
    """Judge what was counted in the log of a server."""
    hours = [hour for hour, _level in tally.hours]
    days = max((max(hours) - min(hours)) / 86400, 1.0) if hours else 1.0
    is_exact = "temporary_sizes" not in tally.inexact
    return [
        early_checkpoints(name, tally.tags, tally.examples.get(EARLY, []), int(limits["checkpoint_limit"])),
        temporary_files(name, tally.temporary_sizes, days, int(limits["temporary_daily_bytes"]), is_exact=is_exact),
    ]


def early_checkpoints(name: str, counted: t.Mapping[str, int], examples: t.Sequence[str], limit: int) -> Finding:
    """Judge checkpoints that the volume of changes forced before their time."""
    early, written = counted.get(EARLY, 0), counted.get(CHECKPOINTS, 0)
    state = from_limit(early, limit + 1)
    return Finding(
        "logs.checkpoints", state, name,
        f"{name} warned {many(early, 'time')} that checkpoints come too early; {many(written, 'checkpoint')} logged.",
        value=early, unit="count", threshold=f"warning from {limit + 1} count",
        not_covered="" if written else "how many checkpoints there were: log_checkpoints is off",
        advice="" if state == "ok" else "Raise max_wal_size, until checkpoint_timeout decides when a checkpoint comes.",
        evidence=[] if state == "ok" else [clean(line, 160) for line in examples],
    )  # fmt: skip


def temporary_files(name: str, sizes: Counter[bytes], days: float, limit: int, *, is_exact: bool) -> Finding:
    """Judge how much was sorted and joined on disk in a day; a server that logs no such files shows none."""
    total = sum(int(float(size)) * count for size, count in sizes.items())
    largest = max((int(float(size)) for size in sizes), default=0)
    rate, state = total / days, from_limit(total / days, limit)
    words = f"{many(sum(sizes.values()), 'temporary file')} of {human_bytes(total)} in {name}, the largest of {human_bytes(largest)}."
    return Finding(
        "logs.temporary_files", state, name, words if sizes else f"{name} tells of no temporary file.",
        value=round(rate), unit="bytes", threshold=f"warning from {human_bytes(limit)} a day", basis="exact" if is_exact else "estimated",
        not_covered="temporary files smaller than log_temp_files" if sizes else "temporary files, where log_temp_files is off (-1)",
        advice="" if state == "ok" else "See the statements beside them in the log; give them more work_mem, or an index to sort by.",
    )  # fmt: skip
