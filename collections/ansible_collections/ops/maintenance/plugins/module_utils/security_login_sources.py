# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where log-ins are told: JSON lines, auth logs, wtmp, btmp and the journal, read into one tally."""

from __future__ import annotations

import os
import re
import typing as t
from array import array
from collections import Counter
from dataclasses import dataclass, field

from . import security_utmp
from .errors import MaintenanceError
from .judge import many
from .log_lines import Clock, LineReader, find_files, json_record, strip_compression, zone_of
from .record import clean
from .security_attempts import MAYBE, Attempt, AuthReader, JsonReader
from .security_common import Review, address_of, shown

OTHERS = "(others)"

_MAYBE = re.compile(rb"(?i)auth|log.?[io]n|logged|password|credential|sign.?in")
_DISTINCT_LIMIT = 50_000
_PROBED_LINES = 20
_SIBLINGS = ("", ".[0-9]*", "-[0-9]*", ".gz", ".xz", ".bz2", ".zst")
_JOURNAL_FOLDERS = ("/var/log/journal", "/run/log/journal")


@dataclass
class Tally:
    """What all sources said about the period; memory grows with failures (eight bytes each), not with the logs.

    :param folders: where each source lies that writes something in every period; the journal's place does not count.
    :param short: those of them that hold less than the period although they could hold it.
    """

    since: float
    until: float
    total: int = 0
    succeeded: int = 0
    undated: int = 0
    accounts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, array[int]] = field(default_factory=dict)
    account_failures: dict[str, array[int]] = field(default_factory=dict)
    successes: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reading: str = ""
    begins: dict[str, float] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)

    def see(self, moment: float | None) -> None:
        """Remember how far back the source that is being read reaches."""
        if moment is not None:
            self.begins[self.reading] = min(moment, self.begins.get(self.reading, moment))

    def add(self, attempt: Attempt, moment: float | None) -> None:
        """Count an attempt if its own time lies in the period."""
        self.see(moment)
        if moment is None:
            self.undated += attempt.times if attempt.failed else 0
            return
        if not self.since <= moment <= self.until:
            return
        address = attempt.address or "(no address)"
        if attempt.failed:
            self.total += attempt.times
            name = _bounded(attempt.account or "(no account)", self.accounts)
            self.accounts[name] += attempt.times
            for register, key in ((self.failures, _bounded(address, self.failures)), (self.account_failures, name)):
                register.setdefault(key, array("I")).extend([int(moment)] * attempt.times)
        else:
            self.succeeded += 1
            self.successes.setdefault(_bounded(address, self.successes), []).append((int(moment), _one_line(attempt.account)))


def _one_line(name: str) -> str:
    return clean(name.replace("\n", " "), 80)


def _bounded(name: str, known: t.Container[str]) -> str:
    name = _one_line(name)
    return name if name in known or len(known) < _DISTINCT_LIMIT else OTHERS  # type: ignore[arg-type]


def with_siblings(patterns: t.Iterable[str]) -> list[str]:
    """Add what rotation and compression make of each pattern's files."""
    return [pattern + suffix for pattern in patterns for suffix in (("",) if pattern.endswith("*") else _SIBLINGS)]


def no_file(source: t.Mapping[str, t.Any]) -> str:
    """Say that nothing is there of a source."""
    return f"{source['name']}: no file matches {', '.join(source['paths'])}"


def read_source(source: t.Mapping[str, t.Any], tally: Tally) -> int:
    """Read one declared source; return how many of its files were read."""
    tally.reading = source["name"]
    found = find_files(with_siblings(source["paths"]), "login_sources.paths")
    plain = set(found.files)
    files = [path for path in found.files if path == strip_compression(path) or strip_compression(path) not in plain]
    tally.problems.extend(f"{source['name']}: {shown(problem)}" for problem in found.problems)
    if not files:
        tally.problems.append(no_file(source))
    auth = AuthReader()
    read = 0
    for path in sorted(files, key=os.path.getmtime):
        if os.path.getmtime(path) < tally.since:
            tally.see(os.path.getmtime(path))  # its records end before the period
            read += 1
            continue
        if source["format"] in ("wtmp", "btmp"):
            read += _binary_file(path, source, tally)
            continue
        clock = Clock(os.path.getmtime(path), zone_of(source["timezone"], "login_sources.timezone"))
        reader = LineReader(path)
        problem = _auth_file(reader, clock, auth, tally) if source["format"] == "auth" else _json_file(reader, clock, source, tally)
        read += not reader.problem
        if reader.problem or problem:
            tally.problems.append(f"{source['name']}: {shown(path)}: {reader.problem or problem}")
    if read:
        tally.sources.append(f"{source['name']} ({many(read, 'file')})")
        if source["format"] != "btmp":  # nobody has to fail
            tally.folders[source["name"]] = sorted({os.path.dirname(path) for path in files})
    return read


def _binary_file(path: str, source: t.Mapping[str, t.Any], tally: Tally) -> bool:
    """Read a register of sessions (wtmp) or of failed attempts (btmp); return whether that went well."""
    failed = source["format"] == "btmp"
    try:
        for record in security_utmp.read_records(path):
            tally.see(record.moment or None)
            if failed or (record.kind == security_utmp.USER_PROCESS and record.user):
                tally.add(Attempt(failed, record.user, address_of(record.host) or record.host), record.moment)
    except (OSError, EOFError, MaintenanceError) as error:
        tally.problems.append(f"{source['name']}: {shown(path)}: {error}")
        return False
    return True


def _auth_file(reader: LineReader, clock: Clock, auth: AuthReader, tally: Tally) -> str:
    seen = dated = 0
    for raw in reader.lines():
        seen += 1
        if seen <= _PROBED_LINES:
            moment = clock.of_plain(raw)
            dated += moment is not None
            tally.see(moment)
        if not MAYBE.search(raw):
            continue
        attempt = auth.line(raw.decode("utf-8", "replace"))
        if attempt:
            tally.add(attempt, clock.of_plain(raw))
    return "no line begins with a time, so it is not an auth log" if seen and not dated else ""


def _json_file(reader: LineReader, clock: Clock, source: t.Mapping[str, t.Any], tally: Tally) -> str:
    json_reader = JsonReader(source)
    seen = decoded = broken = 0
    for raw in reader.lines():
        seen += 1
        probed = seen <= _PROBED_LINES
        if not (probed or json_reader.own_patterns or _MAYBE.search(raw)):
            continue
        record = json_record(raw)
        if record is None:
            broken += bool(raw.strip())
            continue
        decoded += 1
        attempt = json_reader.record(record)
        if probed:
            tally.see(clock.of_record(record))
        if attempt:
            tally.add(attempt, clock.of_record(record))
    if seen and not decoded:
        return "none of its lines is a JSON object"
    return f"{broken} lines that may tell of a log-in are not JSON objects and were not counted" if broken else ""


def read_journal(review: Review, tally: Tally) -> str:
    """Read what sshd, sudo, su and login said to the journal; return why that was not possible."""
    files = [os.path.join(place, name) for folder in _JOURNAL_FOLDERS for place, _unused, names in os.walk(folder) for name in names]
    system = [path for path in files if os.path.basename(path).startswith("system")]
    if not system:
        return "journal: this host keeps none, or it cannot be seen without become: true"
    if not all(os.access(path, os.R_OK) for path in system):
        return "journal: not readable without become: true"
    tally.reading = "journal"
    base = ["journalctl", "--output=json", "--no-pager", "--quiet"]
    programs = ["sshd", "sshd-session", "sshd-auth", "sudo", "su", "login"]
    try:
        for record in _journal(review, [*base, "--output-fields=MESSAGE"]):
            tally.see(_journal_time(record))
            break
        auth = AuthReader()
        for record in _journal(review, [*base, f"--since=@{int(tally.since)}", *(f"--identifier={name}" for name in programs)]):
            message = record.get("MESSAGE")
            if isinstance(message, list):  # bytes that are not UTF-8
                message = bytes(message).decode("utf-8", "replace")
            if isinstance(message, str):
                pid = str(record.get("_PID") or record.get("SYSLOG_PID") or "")
                attempt = auth.message(str(record.get("SYSLOG_IDENTIFIER", "")), pid, message)
                if attempt:
                    tally.add(attempt, _journal_time(record))
    except MaintenanceError as error:
        return f"journal: {error}"
    tally.sources.append("journal")
    tally.folders["journal"] = []
    return ""


def _journal(review: Review, argv: t.Sequence[str]) -> t.Iterator[dict[str, t.Any]]:
    for raw in review.host.lines(argv):
        record = json_record(raw)
        if record is not None:
            yield record


def _journal_time(record: t.Mapping[str, t.Any]) -> float | None:
    try:
        return int(record["__REALTIME_TIMESTAMP"]) / 1e6
    except (KeyError, TypeError, ValueError):
        return None
