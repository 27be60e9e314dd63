# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one line of a log means. The fast way by blocks has to give the same answer, and tests hold one against the other."""

from __future__ import annotations

import math
import typing as t

from .log_access import ACCESS_LINE, LATENCY, TAG_OF_STATUS, Network, client_behind, level_of_status
from .log_database import database_event
from .log_forms import CONTINUED, PARSERS, RECORD_LIMIT_BYTES, Event, Parser, begins_csv_record
from .log_lines import Clock, json_record, level_of_record
from .log_shape import ACCOUNT_KEYS, ADDRESS_KEYS, ENDPOINT_KEYS, TEXT_LIMIT_BYTES, first_text, text_of_record
from .log_tally import ERROR_LEVELS, EXAMPLES_LIMIT, KEYS_LIMIT, Tally
from .log_texts import account_in, address_in, tags_of, template_of
from .record import clean

HOUR = 3600
_CSV_LIMIT_BYTES = 100_000


class LineCounter:
    """Counts lines, one at a time, into a tally.

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
        self.proxies = proxies
        self._clients: dict[tuple[bytes, bytes], bytes] = {}
        self._endpoints: dict[bytes, str] = {}
        self._parse: Parser = PARSERS[form]() if form in PARSERS else _no_event
        self._goes_on = CONTINUED.get(form)
        self._record, self._record_bytes, self._in_quotes = b"", 0, False
        own = {"json": self._json_line, "access": self._access_line, "postgresql_csv": self._csv_line}
        self._line = own.get(form, self._event_line)

    def add_lines(self, block: bytes) -> None:
        """Count the lines of a block, one by one."""
        for line in block.split(b"\n"):
            line = line.rstrip()
            if line:
                self.tally.lines += 1
                self._line(line)

    @property
    def held_bytes(self) -> int:
        """Bytes at the end of what was added that belong to a record that has not ended yet."""
        return self._record_bytes

    def finish(self) -> None:
        """Count the last record, as far as it came."""
        record, self._record, self._record_bytes, self._in_quotes = self._record, b"", 0, False
        if record:
            self._event_line(record.rstrip())

    def _json_line(self, line: bytes) -> None:
        record = json_record(line)
        moment = None if record is None else self.clock.of_record(record)
        if record is None or moment is None:
            self.tally.unparsed += 1
            return
        level = level_of_record(record)
        if self._in_span(moment, level):
            text = text_of_record(record)
            self.error(level, text)
            for tag in tags_of(text):
                self.tagged(tag, text, *(first_text(record, keys) for keys in (ACCOUNT_KEYS, ADDRESS_KEYS, ENDPOINT_KEYS)))

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
            self.error(event.level, text, event.shown[:TEXT_LIMIT_BYTES])
            if event.latency:
                self.tally.latencies[event.latency] += 1
            for tag in tags_of(text):
                self.tagged(tag, text, event.account, event.address, times=event.times)
            if self.tally.is_database:
                self._of_database(text)

    def _of_database(self, text: bytes) -> None:
        tag, size = database_event(text)
        if tag:
            self.tagged(tag, text, b"", b"")
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

    def _access_line(self, line: bytes) -> None:
        found = ACCESS_LINE.match(line)
        moment = self.clock.of_text(found.group(2)) if found else None
        if found is None or moment is None:
            self.tally.unparsed += 1
            return
        address, _stamp, request, status = found.groups()
        if self._in_span(moment, level_of_status(status)):
            if self.proxies:
                address = self._client(address, line.rstrip(b'"').rpartition(b'"')[2])
            self.tally.addresses[address] += 1
            self.tally.statuses[status] += 1
            self.request(address, request, status)
            self.latency(line.rpartition(b'"')[2])

    def _client(self, address: bytes, forwarded: bytes) -> bytes:
        """Return the client behind trusted proxies, by what the outermost of them was told (the last quoted field)."""
        key = (address, forwarded)
        if key not in self._clients:
            if len(self._clients) > KEYS_LIMIT:
                self._clients.clear()
            self._clients[key] = client_behind(address, forwarded, self.proxies)
        return self._clients[key]

    def _in_span(self, moment: float, level: str) -> bool:
        tally = self.tally
        tally.parsed += 1
        if moment < self.until:
            tally.latest = max(tally.latest, moment // 1)
        if not self.since <= moment < self.until:
            tally.outside += 1
            return False
        tally.hours[int(moment // HOUR) * HOUR, level] += 1
        return True

    # What the fast way counts by the record, too.

    def error(self, level: str, text: bytes, shown: bytes = b"") -> None:
        """Count the text of a record in its group, where its level is an error or worse."""
        if level in ERROR_LEVELS:
            self.tally.add_template(template_of(text), level, shown or text)

    def latency(self, tail: bytes, count: int = 1) -> None:
        """Count how long requests took, by what stands after the last quoted field of an access log."""
        latency = LATENCY.search(tail)
        if latency:
            self.tally.latencies[latency.group(1)] += count

    def tagged(self, tag: str, text: bytes, account: bytes, address: bytes, endpoint: bytes = b"", *, times: int = 1) -> None:
        """Count what a record speaks of, and who it speaks of."""
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

    def request(self, address: bytes, request: bytes, status: bytes) -> None:
        """Count a request that was answered with an error."""
        tag = TAG_OF_STATUS.get(status)
        if tag or status[:1] == b"5":
            asked = request.split(b"?", 1)[0]
            text, endpoint = asked + b" " + status, b" ".join(asked.split(b" ")[:2])
            if tag:
                self.tagged(tag, text, b"-", address, endpoint)
            else:
                if endpoint not in self._endpoints:
                    if len(self._endpoints) > KEYS_LIMIT:
                        self._endpoints.clear()
                    self._endpoints[endpoint] = template_of(endpoint)
                self.tally.add_template(f"{self._endpoints[endpoint]} {status.decode()}", "ERROR", text)


def _no_event(_line: bytes, _clock: Clock) -> Event | None:
    return None
