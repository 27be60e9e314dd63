# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd journal, streamed through journalctl, resumed by its cursor."""

from __future__ import annotations

import math
import os
import typing as t

from .errors import MaintenanceError
from .host import Host
from .log_counter import LogCounter
from .log_lines import Clock, json_record
from .log_scan import FileSeen, Scanned
from .record import clean

TIMEOUT_SECONDS = 1800.0
_BASE = ("journalctl", "--no-pager", "-o", "json", "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_SYSTEMD_UNIT")
_BLOCK_LINES = 1000
_NO_ENTRIES = b"-- "


def read_journal(one: Scanned, since: float, until: float, cursor: str, host: Host) -> None:
    """Count the entries of a span, or those after a cursor, into a source that is the journal."""
    seen = one.files.setdefault("journal", FileSeen())
    counter = LogCounter("journal", Clock(0.0), since, until)
    one.tally = counter.tally
    try:
        seen.problem = _hidden(host)
        one.reaches_back_to = _oldest(host)
        last = b""
        for block in _blocks(host.lines([*_BASE, *_choice(one, since, until, cursor)], timeout=TIMEOUT_SECONDS)):
            counter.add(b"".join(block))
            one.size += sum(map(len, block))
            last = block[-1]
        one.cursor = str((json_record(last) or {}).get("__CURSOR", "")) or cursor
    except MaintenanceError as error:
        seen.problem = clean(str(error))
        one.cursor = ""  # the next run begins anew; with a cursor that is refused it would never look at anything


def _choice(one: Scanned, since: float, until: float, cursor: str) -> list[str]:
    units = [f"--unit={unit}" for unit in one.source.units]
    end = [] if until == math.inf else [f"--until=@{math.ceil(until)}"]
    return [f"--after-cursor={cursor}" if cursor else f"--since=@{int(since)}", *end, *units]


def _blocks(lines: t.Iterator[bytes]) -> t.Iterator[list[bytes]]:
    block: list[bytes] = []
    for line in lines:
        if line.startswith(_NO_ENTRIES):
            continue
        block.append(line)
        if len(block) >= _BLOCK_LINES:
            yield block
            block = []
    if block:
        yield block


def _hidden(host: Host) -> str:
    """Say what journalctl complains of: it ends with 0 also where it may show only a part of the journal."""
    ran = host.run([*_BASE, "-n", "1"])
    said = " ".join(ran.stderr.split())
    if ran.rc:
        raise MaintenanceError(ran.why())
    return clean(f"journalctl says: {said}", 300) if said else ""


def _oldest(host: Host) -> float | None:
    lines = t.cast("t.Generator[bytes, None, None]", host.lines([*_BASE]))
    first = next(lines, b"")
    lines.close()
    stamp = str((json_record(first) or {}).get("__REALTIME_TIMESTAMP"))
    return int(stamp) / 1e6 if stamp.isdigit() else None


def is_persistent() -> bool:
    """Say whether this host keeps its journal over a reboot."""
    return any(os.path.isdir(os.path.join("/var/log/journal", name)) for name in _machine_ids())


def host_since() -> float:
    """Return since when this installation exists, as far as its machine id tells; 0 where it does not."""
    try:
        return os.stat("/etc/machine-id").st_mtime
    except OSError:
        return 0.0


def _machine_ids() -> list[str]:
    try:
        with open("/etc/machine-id", encoding="ascii") as source:
            return [source.read().strip()]
    except (OSError, ValueError):
        return []
