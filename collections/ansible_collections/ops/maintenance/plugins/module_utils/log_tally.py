# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answer every question about a log in one pass over it, in constant memory.

Python is slow by the line and fast by the block. So a block of whole lines is taken apart by one regular expression
that fits the lines exactly, and the columns are counted by C code. What does not fit goes line by line through the
plain functions below (``_json_line``, ``_event_line``, ``_access_line``), which alone define what a line means: the
fast way has to give the same answer, and the tests hold one against the other.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
import re
import typing as t
from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter

from .log_database import database_event
from .log_forms import CONTINUED, PARSERS, RECORD_LIMIT_BYTES, Event, Parser, begins_csv_record
from .log_lines import Clock, json_record, level_name, level_of_record
from .log_shape import ACCOUNT_KEYS, ADDRESS_KEYS, ENDPOINT_KEYS, TEXT_LIMIT_BYTES, Shape, first_text, learn, one_line, text_of_record
from .log_texts import STEMS, account_in, address_in, tags_of, template_of
from .record import clean

Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
ERROR_LEVELS = frozenset(("ERROR", "CRITICAL", "FATAL", "ALERT", "EMERGENCY"))
KEYS_LIMIT = 50_000
TEMPLATES_LIMIT = 2_000
EXAMPLES_LIMIT = 5
SHAPES_LIMIT = 8

_BOUNDED = ("accounts", "auth_addresses", "limited_addresses", "limited_endpoints", "addresses")
_CSV_LIMIT_BYTES = 100_000
_HOUR = 3600
_DIGITS = b"0123456789"


_NUMBERS = ("latencies", "temporary_sizes")


def _rounded(latencies: Counter[bytes]) -> Counter[bytes]:
    """Return counted numbers with three digits that count, so that there are never many different ones."""
    fewer: Counter[bytes] = Counter()
    for value, count in latencies.items():
        fewer[b"%.3g" % float(value)] += count
    return fewer


# The tally -----------------------------------------------------------------------------------------------------------


@dataclass
class Template:
    """One group of like error texts."""

    count: int
    example: str
    level: str


@dataclass
class Tally:
    """What was counted; tallies of parts of a log add up by :meth:`merge`."""

    lines: int = 0
    parsed: int = 0
    unparsed: int = 0
    continued: int = 0
    outside: int = 0
    cut: int = 0
    latest: float = 0.0
    hours: Counter[tuple[int, str]] = field(default_factory=Counter)
    templates: dict[str, Template] = field(default_factory=dict)
    tags: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    accounts: Counter[bytes] = field(default_factory=Counter)
    auth_addresses: Counter[bytes] = field(default_factory=Counter)
    limited_addresses: Counter[bytes] = field(default_factory=Counter)
    limited_endpoints: Counter[bytes] = field(default_factory=Counter)
    addresses: Counter[bytes] = field(default_factory=Counter)
    statuses: Counter[bytes] = field(default_factory=Counter)
    latencies: Counter[bytes] = field(default_factory=Counter)
    temporary_sizes: Counter[bytes] = field(default_factory=Counter)
    is_database: bool = False
    inexact: dict[str, int] = field(default_factory=dict)
    """Counters that had to forget rare keys, and by how much a count may be too low."""

    @property
    def records(self) -> int:
        """Records inside the span."""
        return self.parsed - self.outside

    def by_level(self) -> Counter[str]:
        """Return the records of the span by level."""
        levels: Counter[str] = Counter()
        for (_hour, level), count in self.hours.items():
            levels[level] += count
        return levels

    def errors(self) -> int:
        """Return how many records of the span are errors or worse."""
        return sum(count for (_hour, level), count in self.hours.items() if level in ERROR_LEVELS)

    def merge(self, other: Tally) -> None:
        """Add what was counted in a later part."""
        for name in ("lines", "parsed", "unparsed", "continued", "outside", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latest = max(self.latest, other.latest)
        self.hours.update(other.hours)
        self.tags.update(other.tags)
        for text, template in other.templates.items():
            self.add_template(text, template.level, template.example, template.count)
        for tag, examples in other.examples.items():
            self.examples[tag] = (self.examples.get(tag, []) + examples)[:EXAMPLES_LIMIT]
        self.is_database = self.is_database or other.is_database
        for name in (*_BOUNDED, *_NUMBERS, "statuses"):
            getattr(self, name).update(getattr(other, name))
        for name, lost in other.inexact.items():
            self.inexact[name] = self.inexact.get(name, 0) + lost
        self.bound()

    def add_template(self, text: str, level: str, example: bytes | str, count: int = 1) -> None:
        """Count an error text in its group; beyond the limit, all further groups share one."""
        known = self.templates.get(text)
        if known is None:
            if len(self.templates) >= TEMPLATES_LIMIT:
                text = "<other>"
                known = self.templates.get(text)
            if known is None:
                shown = example if isinstance(example, str) else clean(example.decode("utf-8", "replace"), 300)
                self.templates[text] = Template(count, shown, level)
                return
        known.count += count

    def bound(self) -> None:
        """Keep memory bounded: forget the rarest keys of a counter that has too many, and say so."""
        for name in _NUMBERS:
            if len(getattr(self, name)) > KEYS_LIMIT:
                setattr(self, name, _rounded(getattr(self, name)))
                self.inexact[name] = 0
        for name in _BOUNDED:
            counter: Counter[bytes] = getattr(self, name)
            if len(counter) > KEYS_LIMIT:
                kept = counter.most_common(KEYS_LIMIT // 2)
                self.inexact[name] = self.inexact.get(name, 0) + kept[-1][1]
                setattr(self, name, Counter(dict(kept)))


# Counting ------------------------------------------------------------------------------------------------------------


class LogCounter:
    """Counts the lines of one log (or a part of it) into a tally.

    :param form: ``json``, ``access`` or one of :data:`PARSERS`.
    :param since: seconds since the epoch; older records are read, but counted only as ``outside``.
    :param until: records from then on are counted likewise.
    :param proxies: behind these addresses, the last quoted field of an access log tells the client.
    """

    def __init__(self, form: str, clock: Clock, since: float = 0.0, until: float = math.inf, proxies: t.Sequence[Network] = ()) -> None:
        self.tally = Tally(is_database=form.startswith("postgresql"))
        self.form = form
        self.clock = clock
        self.since = since
        self.until = until
        self._proxies = proxies
        self._clients: dict[tuple[bytes, bytes], bytes] = {}
        self._shapes: list[Shape] = []
        self._tags: dict[bytes, bool] = {}
        self._levels: dict[bytes, str] = {}
        self._endpoints: dict[bytes, str] = {}
        self._starts: dict[tuple[bytes, bytes], float | None] = {}
        self._parse: Parser = PARSERS[form]() if form in PARSERS else _no_event
        self._goes_on = CONTINUED.get(form)
        self._record, self._record_bytes, self._in_quotes = b"", 0, False
        own = {"json": self._json_line, "access": self._access_line, "postgresql_csv": self._csv_line}
        self._line = own.get(form, self._event_line)

    def add(self, block: bytes) -> None:
        """Count the lines of a block, which holds whole lines."""
        if not block.endswith(b"\n"):
            block += b"\n"
        if self.form == "json":
            block = self._json_block(block)
        elif self.form == "access":
            block = self._access_block(block)
        for line in block.split(b"\n"):
            line = line.rstrip()
            if line:
                self.tally.lines += 1
                self._line(line)
        self.tally.bound()

    # One line: this is what lines mean.

    def _json_line(self, line: bytes) -> None:
        record = json_record(line)
        moment = None if record is None else self.clock.of_record(record)
        if record is None or moment is None:
            self.tally.unparsed += 1
            return
        level = level_of_record(record)
        if self._in_span(moment, level):
            text = text_of_record(record)
            self._error(level, text)
            for tag in tags_of(text):
                self._tagged(tag, text, *(first_text(record, keys) for keys in (ACCOUNT_KEYS, ADDRESS_KEYS, ENDPOINT_KEYS)))

    def _event_line(self, line: bytes) -> None:
        event = self._parse(line, self.clock)
        if event is None:
            if self._goes_on and self._goes_on.match(line):
                self.tally.continued += 1
                self.tally.lines -= 1
            else:
                self.tally.unparsed += 1
            return
        if self._in_span(event.moment, event.level):
            text = event.text[:TEXT_LIMIT_BYTES]
            self._error(event.level, text, event.shown[:TEXT_LIMIT_BYTES])
            if event.latency:
                self.tally.latencies[event.latency] += 1
            for tag in tags_of(text):
                self._tagged(tag, text, event.account, event.address, times=event.times)
            if self.tally.is_database:
                self._of_database(text)

    def _of_database(self, text: bytes) -> None:
        tag, size = database_event(text)
        if tag:
            self._tagged(tag, text, b"", b"")
        if size:
            self.tally.temporary_sizes[size] += 1

    def _csv_line(self, line: bytes) -> None:
        """Collect the lines of a CSV record, whose quoted fields may hold line ends."""
        if self._record:
            self.tally.continued += 1
            self.tally.lines -= 1
        elif not begins_csv_record(line):
            self.tally.unparsed += 1
            return
        if len(self._record) < _CSV_LIMIT_BYTES:
            self._record += line[:_CSV_LIMIT_BYTES] + b"\n"
        self._record_bytes += len(line) + 1
        self._in_quotes ^= bool(line.count(b'"') % 2)
        if not self._in_quotes or self._record_bytes > RECORD_LIMIT_BYTES:
            self.finish()

    @property
    def held_bytes(self) -> int:
        """Bytes at the end of what was added that belong to a record that has not ended yet."""
        return self._record_bytes

    def finish(self) -> None:
        """Count the last record, as far as it came."""
        record, self._record, self._record_bytes, self._in_quotes = self._record, b"", 0, False
        if record:
            self._event_line(record.rstrip())

    def _access_line(self, line: bytes) -> None:
        found = _ACCESS_LINE.match(line)
        moment = self.clock.of_text(found.group(2)) if found else None
        if found is None or moment is None:
            self.tally.unparsed += 1
            return
        address, _stamp, request, status = found.groups()
        if self._in_span(moment, _level_of_status(status)):
            if self._proxies:
                address = self._client(address, line.rstrip(b'"').rpartition(b'"')[2])
            self.tally.addresses[address] += 1
            self.tally.statuses[status] += 1
            self._request(address, request, status)
            self._latency(line.rpartition(b'"')[2])

    def _client(self, address: bytes, forwarded: bytes) -> bytes:
        """Return the client behind trusted proxies, by what the outermost of them was told (the last quoted field)."""
        key = (address, forwarded)
        if key not in self._clients:
            if len(self._clients) > KEYS_LIMIT:
                self._clients.clear()
            self._clients[key] = _behind(address, forwarded, self._proxies)
        return self._clients[key]

    def _latency(self, tail: bytes, count: int = 1) -> None:
        latency = _LATENCY.search(tail)
        if latency:
            self.tally.latencies[latency.group(1)] += count

    def _in_span(self, moment: float, level: str) -> bool:
        tally = self.tally
        tally.parsed += 1
        if moment < self.until:
            tally.latest = max(tally.latest, moment // 1)
        if not self.since <= moment < self.until:
            tally.outside += 1
            return False
        tally.hours[int(moment // _HOUR) * _HOUR, level] += 1
        return True

    def _error(self, level: str, text: bytes, shown: bytes = b"") -> None:
        if level in ERROR_LEVELS:
            self.tally.add_template(template_of(text), level, shown or text)

    def _tagged(self, tag: str, text: bytes, account: bytes, address: bytes, endpoint: bytes = b"", *, times: int = 1) -> None:
        tally = self.tally
        tally.tags[tag] += times
        if tag == "auth_failures":
            tally.accounts[account or account_in(text)] += times
            tally.auth_addresses[address or address_in(text)] += times
        elif tag == "rate_limited":
            tally.limited_addresses[address or address_in(text)] += times
            if endpoint:
                tally.limited_endpoints[endpoint[:200].split(b"?", 1)[0]] += times
        examples = tally.examples.setdefault(tag, [])
        if len(examples) < EXAMPLES_LIMIT:
            examples.append(clean(text.decode("utf-8", "replace"), 300))

    def _request(self, address: bytes, request: bytes, status: bytes) -> None:
        """Count a request that was answered with an error."""
        tag = _TAG_OF_STATUS.get(status)
        if tag or status[:1] == b"5":
            asked = request.split(b"?", 1)[0]
            text, endpoint = asked + b" " + status, b" ".join(asked.split(b" ")[:2])
            if tag:
                self._tagged(tag, text, b"-", address, endpoint)
            else:
                if endpoint not in self._endpoints:
                    if len(self._endpoints) > KEYS_LIMIT:
                        self._endpoints.clear()
                    self._endpoints[endpoint] = template_of(endpoint)
                self.tally.add_template(f"{self._endpoints[endpoint]} {status.decode()}", "ERROR", text)

    # Blocks: the same, faster. Each returns the lines that it could not answer for.

    def _json_block(self, block: bytes) -> bytes:
        simple = b"\\" not in block and len(block.translate(None, _NOT_IN_JSON)) == len(block)
        tried = 0
        while block:
            if tried == len(self._shapes) and not self._learn(block):
                return block
            shape, tried = self._shapes[tried], tried + 1
            lines = block.count(b"\n")
            rows = shape.loose.findall(block) if simple else []
            if len(rows) != lines:
                rows = shape.strict.findall(block)
            if not rows:
                continue
            rest = b"" if len(rows) == lines else shape.strict.sub(b"", block)
            if not self._json_rows(shape, rows, simple):
                return block
            block = rest
        return block

    def _learn(self, block: bytes) -> bool:
        """Learn the shape of one of the first lines that fitted no known one."""
        if len(self._shapes) >= SHAPES_LIMIT:
            return False
        shape = next(filter(None, map(learn, block.split(b"\n", 4)[:4])), None)
        if shape is not None:
            self._shapes.append(shape)
        return shape is not None

    def _json_rows(self, shape: Shape, rows: list[tuple[bytes, ...]], simple: bool) -> bool:
        raw_levels = [row[shape.level] for row in rows] if shape.level is not None else [b""] * len(rows)
        levels = Counter(raw_levels)
        zones = set(map(itemgetter(shape.offset), rows))
        spans = self._span_of([row[shape.stamp] for row in rows], zones.pop(), 13) if len(zones) == 1 else None
        if spans is None or not self._know_levels(shape, levels):
            return False
        names = self._levels
        self.tally.lines += len(rows)
        self.tally.parsed += len(rows)
        if not spans:
            self.tally.outside += len(rows)
            return True
        self._hours(rows, shape.stamp, spans, raw_levels, levels, names.__getitem__)
        texts = _texts(shape, rows, simple)
        errors = {raw for raw in levels if names[raw] in ERROR_LEVELS}
        if errors:
            for raw, text in zip(raw_levels, texts):
                if raw in errors:
                    self._error(names[raw], text)
        self._tag_rows(shape, rows, texts)
        return True

    def _know_levels(self, shape: Shape, levels: t.Iterable[bytes]) -> bool:
        """Learn the names of levels as they are written; False where the fast way cannot tell one."""
        names = self._levels
        for raw in levels:
            if raw not in names:
                if len(names) > 1000 or b"\\" in raw:
                    return False
                names[raw] = level_name(int(raw) if shape.level_is_number else raw.decode("utf-8", "replace"))
            if not names[raw] and shape.more_levels:
                return False
        return True

    def _hours(
        self,
        rows: list[tuple[bytes, ...]],
        stamp: int,
        spans: dict[bytes, int],
        values: list[bytes],
        counts: Counter[bytes],
        level: t.Callable[[bytes], str],
    ) -> None:
        """Count records by hour and level."""
        if len(spans) == 1:
            hour = next(iter(spans.values()))
            for value, count in counts.items():
                self.tally.hours[hour, level(value)] += count
            return
        names = map(itemgetter(slice(len(next(iter(spans))))), map(itemgetter(stamp), rows))
        for (name, value), count in Counter(zip(names, values)).items():
            self.tally.hours[spans[name], level(value)] += count

    def _tag_rows(self, shape: Shape, rows: list[tuple[bytes, ...]], texts: list[bytes]) -> None:
        """Look for tags in texts without their digits, each once; then exactly in those that may have one."""
        masked = b"\n".join(texts).translate(None, _DIGITS).split(b"\n")
        known = self._tags
        new = set(masked).difference(known)
        if new:
            if len(known) > KEYS_LIMIT:
                known.clear()
                new = set(masked)
            together = b"\n".join(new).lower()
            some = any(stem in together for stem in STEMS)
            known.update((text, some and bool(tags_of(text))) for text in new)
        if not any(map(known.__getitem__, set(masked))):
            return
        for row, text, short in zip(rows, texts, masked):
            if known[short]:
                for tag in tags_of(text):
                    self._tagged(tag, text, *(_field(row, index) for index in (shape.account, shape.address, shape.endpoint)))

    def _span_of(self, stamps: list[bytes], zone: bytes, width: int) -> dict[bytes, int] | None:
        """Return the hour (in UTC) of each hour named in stamps; empty where all are too old, None if it is not clear."""
        low, high = min(stamps), max(stamps)
        names = {low[:width]} if low[:width] == high[:width] else set(map(itemgetter(slice(width)), stamps))
        hours: dict[bytes, int] = {}
        for name in names:
            start = self._start_of(name, zone)
            if start is None or start % _HOUR:
                return None
            hours[name] = int(start)
        if len(hours) == 1:
            first, last = (self.clock.of_text(text + zone) for text in (low, high))
        else:
            first, newest = float(min(hours.values())), max(hours.values())
            names = {name for name in hours if hours[name] == newest}
            last = self.clock.of_text(max(text for text in stamps if text[:width] in names) + zone)
        if first is None or last is None:
            return None
        if first < self.since < last + 1 or first < self.until < last + 1:  # the columns hold no parts of a second
            return None
        if last < self.until:
            self.tally.latest = max(self.tally.latest, last)
        return hours if self.since <= last < self.until else {}

    def _start_of(self, hour: bytes, zone: bytes) -> float | None:
        """Return when a named hour began; None where the hour is not a plain one (a change of the clocks)."""
        key = (hour, zone)
        if key not in self._starts:
            if len(self._starts) > KEYS_LIMIT:
                self._starts.clear()
            start, end = (self.clock.of_text(hour + rest + zone) for rest in (b":00:00", b":59:59"))
            self._starts[key] = start if start is not None and end is not None and end - start == _HOUR - 1 else None
        return self._starts[key]

    def _access_block(self, block: bytes) -> bytes:
        if b"\\" in block or b"\r" in block or self._proxies:
            return block
        found = _ZONE.search(block)
        if found is None:
            return block
        zone = found.group(1)
        combined, any_access = _in_zone(zone)
        lines = block.count(b"\n")
        rows = combined.findall(block)
        if len(rows) != lines:
            rows = any_access.findall(block)
        rest = b"" if len(rows) == lines else any_access.sub(b"", block)
        spans = self._span_of([row[1] for row in rows], zone, 14) if rows else {}
        if spans is None:
            return block
        tally = self.tally
        tally.lines += len(rows)
        tally.parsed += len(rows)
        if not spans:
            tally.outside += len(rows)
            return rest
        tally.addresses.update(map(itemgetter(0), rows))
        statuses = [row[3] for row in rows]
        counts = Counter(statuses)
        for status, count in counts.items():
            tally.statuses[status] += count
        self._hours(rows, 1, spans, statuses, counts, _level_of_status)
        if len(rows[0]) > 4:
            for tail, count in Counter(map(itemgetter(4), rows)).items():
                self._latency(tail, count)
        bad = {status for status in counts if status in _TAG_OF_STATUS or status[:1] == b"5"}
        if bad:
            for row in rows:
                if row[3] in bad:
                    self._request(row[0], row[2], row[3])
        return rest


_NOT_IN_JSON = bytes(code for code in range(32) if code != 10)


def _behind(address: bytes, forwarded: bytes, proxies: t.Sequence[Network]) -> bytes:
    """Walk back from the server as far as each next hop is a trusted proxy; what stands before that anybody may have made up."""
    hops = [hop.strip() for hop in forwarded.split(b",")] if forwarded else []
    while hops and _is_among(address, proxies) and _is_address(hops[-1]):
        address = hops.pop()
    return address


def _is_address(text: bytes) -> bool:
    return _is_among(text, ()) is not None


def _is_among(text: bytes, networks: t.Sequence[Network]) -> bool | None:
    """Say whether an address lies in one of some networks; None where it is no address."""
    try:
        address = ipaddress.ip_address(text.decode("ascii", "replace"))
    except ValueError:
        return None
    return any(address in network for network in networks)


def _no_event(_line: bytes, _clock: Clock) -> Event | None:
    return None


# Access logs ---------------------------------------------------------------------------------------------------------

_ACCESS_LINE = re.compile(rb'(\S+) [^\["]*\[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d\d\d)(?= |$)')
_STAMP = rb"(\d\d/[A-Z][a-z][a-z]/\d{4}:[0-2]\d:[0-5]\d:[0-5]\d)"
_ZONE = re.compile(rb'\[[^\]"\n]{20}( [+-]\d{4})\] "')


@functools.lru_cache(maxsize=8)
def _in_zone(zone: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return expressions for lines whose times are in a zone.

    The first is for lines that end with a quoted field, and right only where it matches as often as there are lines.
    """
    stamp = rb"\[" + _STAMP + re.escape(zone) + rb"\]"
    combined = re.compile(rb'^(\S+) [^\["]*' + stamp + rb' "([^"]*)" (\d\d\d) .*"\n', re.M)
    return combined, re.compile(rb'^(\S+) [^\["\n]*' + stamp + rb' "([^"\n]*)" (\d\d\d)(?= )(?:[^\n]*")?([^"\n]*)\n', re.M)


_LATENCY = re.compile(rb"(?:(?<= )|\brt=)(\d{1,6}\.\d{1,6})(?= |$)")
"""The seconds that a request took, where the log has them after its last quoted field."""

_TAG_OF_STATUS = {b"401": "auth_failures", b"429": "rate_limited"}


def _level_of_status(status: bytes) -> str:
    return "ERROR" if status[:1] == b"5" else "WARNING" if status[:1] == b"4" else "INFO"


# JSON ----------------------------------------------------------------------------------------------------------------


def _texts(shape: Shape, rows: list[tuple[bytes, ...]], simple: bool) -> list[bytes]:
    """Return the same as :func:`text_of_record` for each row."""
    if len(shape.texts) == 1:
        texts = list(map(itemgetter(shape.texts[0]), rows))
        if simple and max(map(len, texts)) <= TEXT_LIMIT_BYTES and b"".join(texts).isascii():
            return texts
    return [one_line(b" ".join(filter(None, (_field(row, index) for index in shape.texts)))) for row in rows]


def _field(row: tuple[bytes, ...], index: int | None) -> bytes:
    """Return a column as :func:`json.loads` would have read it."""
    if index is None:
        return b""
    raw = row[index]
    if b"\\" not in raw and raw.isascii():
        return raw
    decoded: str = json.loads(b'"%s"' % raw.decode("utf-8", "replace").encode())
    return decoded.encode("utf-8", "replace")
