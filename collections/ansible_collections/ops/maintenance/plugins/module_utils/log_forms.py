# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one line means, by the format of its log: syslog, nginx errors, PostgreSQL, Docker containers, the journal, plain lines."""

from __future__ import annotations

import csv
import re
import typing as t

from .log_lines import Clock, LineReader, json_record, level_name, level_of_plain, level_of_record
from .log_shape import ACCOUNT_KEYS, ADDRESS_KEYS, first_text, text_of_record

FORMS = ("auto", "json", "plain", "access", "syslog", "nginx_error", "postgresql", "docker", "journal")
"""Formats that a source may declare; C(postgresql) and C(auto) are settled for each file by :func:`form_of`."""

RECORD_LIMIT_BYTES = 1024 * 1024
"""A record over several lines that grows longer is given up."""

_SAMPLE_LINES = 20


class Event(t.NamedTuple):
    """One record. ``text`` is what groups it (no time, host or process id), ``shown`` what a person is to see."""

    moment: float
    level: str
    text: bytes
    shown: bytes = b""
    account: bytes = b""
    address: bytes = b""
    latency: bytes = b""
    times: int = 1


Parser = t.Callable[[bytes, Clock], t.Optional[Event]]

# Plain lines and syslog ----------------------------------------------------------------------------------------------

_SEPARATORS = b" \t])|,:-"
_PROGRAM = re.compile(rb"(\S+) ([^\s:\[]+)(?:\[(\d+)\])?: ?")
_RFC5424 = re.compile(
    rb"<\d{1,3}>1 (\S+) \S+ (\S+) \S+ \S+ (?:-|(?:\[[^\s\]\"=]+(?: [^\s\]\"=]+=\"(?:[^\"\\\]]|\\.)*\")*\])+)(?: (?:\xef\xbb\xbf)?|$)"
)
_SYSLOG_START = re.compile(
    rb"(?:<\d{1,3}>)?(?:(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d \S+ "
    rb"|<\d{1,3}>1 |\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) \S+ (?:kernel:|[^\s:\[]+\[\d+\]:))"
)
_UPTIME = re.compile(rb"\[ *\d+\.\d+\] ")
_REPEATED = re.compile(rb"message repeated (\d{1,9}) times: \[ ?(.*)\]$", re.S)
_SAID_LEVEL = re.compile(rb"(?i)\s*(debug|info|notice|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|alert|emerg(?:ency)?|panic): ")
_SYSLOG_LEVELS = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")


def plain_event(line: bytes, clock: Clock) -> Event | None:
    """Read any line that begins with a time."""
    start = clock.start_of_plain(line)
    if start is None:
        return None
    moment, end = start
    return Event(moment, level_of_plain(line), line[end:].lstrip(_SEPARATORS), line)


def syslog_event(line: bytes, clock: Clock) -> Event | None:
    """Read a line of syslog: RFC 3164 and 5424, with or without its priority, with any usual time."""
    modern = _RFC5424.match(line)
    if modern:
        moment = clock.of_text(modern.group(1))
        program, text = modern.group(2), line[modern.end() :]
    else:
        start = clock.start_of_plain(line)
        moment = start[0] if start else None
        rest = line[start[1] :].lstrip(b" ") if start else b""
        named = _PROGRAM.match(rest)
        program, text = (named.group(2), rest[named.end() :]) if named else (b"", rest.partition(b" ")[2])
    if moment is None:
        return None
    uptime = _UPTIME.match(text)
    text = text[uptime.end() :] if uptime else text
    repeated = _REPEATED.match(text)
    times, text = (int(repeated.group(1)), repeated.group(2)) if repeated else (1, text)
    level = _priority_of(line) or _level_said(text)
    return Event(moment, level, program + b": " + text if program else text, line, times=times)


def _priority_of(line: bytes) -> str:
    found = re.match(rb"<(\d{1,3})>", line)
    return _SYSLOG_LEVELS[int(found.group(1)) & 7] if found else ""


def _level_said(text: bytes) -> str:
    said = _SAID_LEVEL.match(text)
    return level_name(said.group(1).decode()) if said else level_of_plain(text)


# nginx ---------------------------------------------------------------------------------------------------------------

_NGINX = re.compile(rb"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(debug|info|notice|warn|error|crit|alert|emerg)\] \d+#\d+: (?:\*\d+ )?")
_NGINX_CLIENT = re.compile(rb", client: ([^,\s]+)")


def nginx_event(line: bytes, clock: Clock) -> Event | None:
    """Read a line of nginx's error log."""
    found = _NGINX.match(line)
    moment = clock.of_text(found.group(1).replace(b"/", b"-")) if found else None
    if found is None or moment is None:
        return None
    client = _NGINX_CLIENT.search(line, found.end())
    text = line[found.end() : client.start()] if client else line[found.end() :]
    return Event(moment, level_name(found.group(2).decode()), text, line, b"", client.group(1) if client else b"")


# PostgreSQL ----------------------------------------------------------------------------------------------------------

_SEVERITIES = {
    "LOG": "INFO", "INFO": "INFO", "NOTICE": "NOTICE", "WARNING": "WARNING", "ERROR": "ERROR",
    "FATAL": "ERROR",  # of one session; what ends the server is PANIC
    "PANIC": "EMERGENCY", **{f"DEBUG{number}": "DEBUG" for number in range(1, 6)},
}  # fmt: skip
_ADDENDA = rb"DETAIL|HINT|STATEMENT|CONTEXT|QUERY|LOCATION|BACKTRACE"
_PG_LINE = re.compile(rb"(.{0,300}?)\b(?:(LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC|DEBUG[1-5])|" + _ADDENDA + rb"):  ?(?:[0-9A-Z]{5}: )?")
_PG_TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\b\d{10}\.\d{3}\b")
_PG_CSV = re.compile(rb'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [^,"]{1,40},(?:"(?:[^"]|"")*")?,(?:"(?:[^"]|"")*")?,\d+,')
_PG_CLIENT = re.compile(rb"\b(\d{1,3}(?:\.\d{1,3}){3}|(?=[0-9a-f]*:[0-9a-f:]*:)[0-9a-f:]{4,39}\b)(?:\(\d+\))?")
_PG_ACCOUNT = re.compile(rb"\buser=([\w.-]+)|([\w.-]+)@[\w.-]*")
_PG_DURATION = re.compile(rb"duration: (\d+\.\d+) ms")
_PG_SQL = re.compile(rb"(?:statement|(?:parse|bind|execute) [^:]*): ")


def postgresql_event(line: bytes, clock: Clock) -> Event | None:
    """Read a line of PostgreSQL's server log with any prefix that holds a time."""
    found = _PG_LINE.match(line)
    if found is None or not found.group(2):
        return None
    prefix = found.group(1)
    stamp = _PG_TIME.search(prefix)
    moment = clock.of_text(prefix[stamp.start() :].rstrip() if b"-" in stamp.group() else stamp.group()) if stamp else None
    if moment is None or stamp is None:
        return None
    rest = prefix[stamp.end() :]
    account, client = _PG_ACCOUNT.search(rest), _PG_CLIENT.search(rest)
    who = next(filter(None, account.groups()), b"") if account else b""
    return _pg_event(moment, found.group(2).decode(), line[found.end() :], line, who, client.group(1) if client else b"")


def begins_csv_record(line: bytes) -> bool:
    """Say whether a line begins like a record of PostgreSQL's log in CSV form."""
    return bool(_PG_CSV.match(line))


def postgresql_csv_event(line: bytes, clock: Clock) -> Event | None:
    """Read a record of PostgreSQL's log in CSV form, which may hold line ends."""
    row = next(csv.reader([line.decode("utf-8", "replace").replace("\n", " ").replace("\0", " ")]), [])
    moment = clock.of_text(row[0].encode()) if len(row) > 13 else None
    if moment is None or row[11] not in _SEVERITIES:
        return None
    fields = [field.encode("utf-8", "replace") for field in (row[1], row[4].rpartition(":")[0], row[13])]
    return _pg_event(moment, row[11], fields[2], fields[2], fields[0], fields[1])


def postgresql_json_event(line: bytes, clock: Clock) -> Event | None:
    """Read a record of PostgreSQL's log in JSON form."""
    record = json_record(line)
    moment = clock.of_record(record) if record else None
    severity = record.get("error_severity") if record else None
    if record is None or moment is None or severity not in _SEVERITIES:
        return None
    message = first_text(record, ("message",))
    return _pg_event(moment, str(severity), message, message, first_text(record, ("user",)), first_text(record, ("remote_host",)))


def _pg_event(moment: float, severity: str, text: bytes, shown: bytes, account: bytes, address: bytes) -> Event:
    """Make an event; what a client asked the server to do says nothing about the server, so it is left out of the text."""
    duration = _PG_DURATION.match(text)
    latency = b"%.3f" % (float(duration.group(1)) / 1000) if duration else b""
    asked = _PG_SQL.search(text) if severity == "LOG" else None
    if address in (b"[local]", b"::"):
        address = b""
    return Event(moment, _SEVERITIES[severity], text[: asked.start()] if asked else text, shown, account, address, latency)


# Docker and the journal ----------------------------------------------------------------------------------------------


class DockerParser:
    """Reads what the driver json-file writes; a long line comes in pieces, which only its last one ends."""

    def __init__(self) -> None:
        self.open: set[object] = set()

    def __call__(self, line: bytes, clock: Clock) -> Event | None:
        """Return the event of a line."""
        record = json_record(line)
        said = record.get("log") if record else None
        moment = clock.of_record(record) if record else None
        if record is None or not isinstance(said, str) or moment is None:
            return None
        stream = str(record.get("stream"))
        goes_on = stream in self.open
        (self.open.discard if said.endswith("\n") else self.open.add)(stream)
        text = said.encode("utf-8", "replace").strip()
        if goes_on:
            return Event(moment, "", b"", text)
        inner = json_record(text) if text.startswith(b"{") else None
        if inner is not None:
            account, address = (first_text(inner, keys) for keys in (ACCOUNT_KEYS, ADDRESS_KEYS))
            return Event(moment, level_of_record(inner), text_of_record(inner), text, account, address)
        start = clock.start_of_plain(text)
        return Event(moment, level_of_plain(text), text[start[1] :].lstrip(_SEPARATORS) if start else text, text)


def journal_event(line: bytes, _clock: Clock) -> Event | None:
    """Read an entry of the systemd journal as ``journalctl -o json`` shows it."""
    record = json_record(line)
    stamp = str(record.get("__REALTIME_TIMESTAMP")) if record else ""
    if record is None or not (stamp.isascii() and stamp.isdigit()):
        return None
    said = record.get("MESSAGE")
    if isinstance(said, list) and all(isinstance(code, int) and 0 <= code < 256 for code in said):
        text = bytes(said)  # not UTF-8, so it comes as numbers
    else:
        text = said.encode("utf-8", "replace") if isinstance(said, str) else b"(no text)"
    priority = str(record.get("PRIORITY", ""))
    level = _SYSLOG_LEVELS[int(priority)] if priority in tuple("01234567") else ""
    program = first_text(record, ("SYSLOG_IDENTIFIER", "_COMM", "_SYSTEMD_UNIT"))
    text = (program + b": " + text if program else text).replace(b"\n", b" ")
    return Event(int(stamp) / 1e6, level, text, text)


def _always(parser: Parser) -> t.Callable[[], Parser]:
    return lambda: parser


PARSERS: dict[str, t.Callable[[], Parser]] = {
    "plain": _always(plain_event),
    "syslog": _always(syslog_event),
    "nginx_error": _always(nginx_event),
    "postgresql": _always(postgresql_event),
    "postgresql_csv": _always(postgresql_csv_event),
    "postgresql_json": _always(postgresql_json_event),
    "docker": DockerParser,
    "journal": _always(journal_event),
}
"""A parser for one file, by format."""

_TRACE = rb"[ \t]|Traceback \(|Caused by\b|During handling\b|The above exception\b|[\w.]+(?:Error|Exception)\b"
CONTINUED = {
    "plain": re.compile(_TRACE),
    "syslog": re.compile(_TRACE),
    "nginx_error": re.compile(rb"[ \t]|PHP |Stack trace:|#\d+ |thrown in |\" while "),
    "postgresql": re.compile(rb"[ \t]|.{0,300}?\b(?:" + _ADDENDA + rb"):  ?"),
}
"""What lines that continue a record look like, where a format has such lines."""

# Telling the format of a file ----------------------------------------------------------------------------------------


def form_of(path: str, declared: str) -> str:
    """Tell the format of a log file from its first lines, as far as the declaration leaves it open."""
    if declared not in ("auto", "postgresql"):
        return declared
    votes: dict[str, int] = {}
    clock = Clock(0.0)
    for number, line in enumerate(LineReader(path).lines()):
        if line.strip():
            form = _form_of_line(line, clock)
            votes[form] = votes.get(form, 0) + 1
        if number >= _SAMPLE_LINES:
            break
    if declared == "postgresql":
        votes = {form: count for form, count in votes.items() if form.startswith("postgresql")}
        return max(votes, key=votes.__getitem__, default="postgresql")
    return max(votes, key=votes.__getitem__, default="plain")


def _form_of_line(line: bytes, clock: Clock) -> str:
    if line.lstrip()[:1] == b"{":
        record = json_record(line) or {}
        if "error_severity" in record:
            return "postgresql_json"
        return "docker" if {"log", "stream", "time"} == {*record} - {"attrs"} else "json"
    if _NGINX.match(line):
        return "nginx_error"
    if _PG_CSV.match(line):
        return "postgresql_csv"
    if clock.of_access(line) is not None:
        return "access"
    found = _PG_LINE.match(line)
    if found and b":  " in line[found.start() : found.end()] and _PG_TIME.search(found.group(1)):
        return "postgresql"
    return "syslog" if _SYSLOG_START.match(line) else "plain"
