# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fast way through a log gives the same answer as one json.loads a line."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import (
    log_access,
    log_line_counter,
    log_lines,
    log_shape,
    log_tally,
    log_texts,
)
from ansible_collections.ops.maintenance.plugins.module_utils.log_counter import LogCounter
from ansible_collections.ops.maintenance.plugins.module_utils.log_lines import Clock
from ansible_collections.ops.maintenance.plugins.module_utils.log_report import percentile
from ansible_collections.ops.maintenance.plugins.module_utils.log_tally import Tally

START = datetime(2026, 11, 15, 10, 58, 30, tzinfo=timezone.utc)
REFERENCE = START.timestamp() + 7 * 86400


def naive(form: str, data: bytes, clock: Clock, since: float, until: float = math.inf) -> Tally:
    """Count line by line, with nothing clever."""
    return (naive_json if form == "json" else naive_access)(data, clock, (since, until))


def naive_lines(data: bytes, tally: Tally):
    for raw in data.split(b"\n"):
        line = raw.rstrip()
        if line:
            tally.lines += 1
            yield line


def place(tally: Tally, moment: float | None, level: str, span: tuple[float, float]) -> bool:
    """Count a record by its time; say whether it belongs to the span."""
    if moment is None:
        tally.unparsed += 1
        return False
    tally.parsed += 1
    if moment < span[1]:
        tally.latest = max(tally.latest, moment // 1)
    if not span[0] <= moment < span[1]:
        tally.outside += 1
        return False
    tally.hours[int(moment // 3600) * 3600, level] += 1
    return True


def naive_json(data: bytes, clock: Clock, span: tuple[float, float]) -> Tally:
    tally = Tally()
    for line in naive_lines(data, tally):
        try:
            record = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            record = None
        moment = clock.of_record(record) if isinstance(record, dict) else None
        level = "" if moment is None else log_lines.level_of_record(record)
        if place(tally, moment, level, span):
            text = log_shape.text_of_record(record)
            if level in log_tally.ERROR_LEVELS:
                tally.add_template(log_texts.template_of(text), level, text)
            for tag in log_texts.tags_of(text):
                naive_tag(tally, tag, record, text)
    return tally


def naive_tag(tally: Tally, tag: str, record: dict, text: bytes) -> None:
    account, address = (
        next((record[key].encode("utf-8", "replace") for key in keys if isinstance(record.get(key), str)), b"")
        for keys in (log_shape.ACCOUNT_KEYS, log_shape.ADDRESS_KEYS)
    )
    tally.tags[tag] += 1
    if tag == "auth_failures":
        tally.accounts[account or log_texts.account_in(text)] += 1
        tally.auth_addresses[address or log_texts.address_in(text)] += 1
    elif tag == "rate_limited":
        tally.limited_addresses[address or log_texts.address_in(text)] += 1
        endpoint = next((record[key] for key in log_shape.ENDPOINT_KEYS if isinstance(record.get(key), str)), "")
        if endpoint:
            tally.limited_endpoints[endpoint.encode().split(b"?")[0]] += 1


def naive_access(data: bytes, clock: Clock, span: tuple[float, float]) -> Tally:
    tally = Tally()
    for line in naive_lines(data, tally):
        found = log_access.ACCESS_LINE.match(line)
        moment = clock.of_text(found.group(2)) if found else None
        level = {b"5": "ERROR", b"4": "WARNING"}.get(found.group(4)[:1], "INFO") if found else ""
        if place(tally, moment, level, span):
            address, _stamp, request, status = found.groups()
            tally.addresses[address] += 1
            tally.statuses[status] += 1
            latency = log_access.LATENCY.search(line.rpartition(b'"')[2])
            if latency:
                tally.latencies[latency.group(1)] += 1
            if status == b"401":
                tally.tags["auth_failures"] += 1
                tally.auth_addresses[address] += 1
            elif status == b"429":
                tally.tags["rate_limited"] += 1
                tally.limited_addresses[address] += 1
                endpoint = b" ".join(request.split(b"?")[0].split(b" ")[:2])
                if endpoint:
                    tally.limited_endpoints[endpoint] += 1
    return tally


def fast(form: str, data: bytes, clock: Clock, since: float, size: int, until: float = math.inf) -> Tally:
    """Count by blocks of whole lines, about ``size`` bytes each."""
    counter = LogCounter(form, clock, since, until)
    block = b""
    for line in data.splitlines(keepends=True) if b"\r" not in data else [part + b"\n" for part in data.split(b"\n")]:
        block += line
        if len(block) >= size:
            counter.add(block)
            block = b""
    if block:
        counter.add(block)
    return counter.tally


def facts(tally: Tally, form: str) -> dict[str, object]:
    """Return what both ways have to agree on (of groups that is the count, not which example is shown)."""
    names = [
        "lines",
        "parsed",
        "unparsed",
        "outside",
        "latest",
        "hours",
        "tags",
        "auth_addresses",
        "limited_addresses",
        "limited_endpoints",
    ]
    shown = {name: getattr(tally, name) for name in [*names, "addresses", "statuses", "latencies"]}
    if form == "json":
        shown["accounts"] = tally.accounts
        shown["templates"] = Counter({text: template.count for text, template in tally.templates.items()})
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in shown.items()}


WORDS = st.sampled_from(
    ["authentication failed for user bob", "from 192.0.2.7", "rate limit", "exceeded", "disk I/O error", "café", "page 17", '"q"',
     "\\", "\n", "\t", "0xdeadbeef", "é\ud800", "login", "failed", "out of memory", "oom1kill", "", "x" * 40, "y" * 4090, "{", "}", ", \"level\": \"ERROR\""]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=4).map(" ".join)
ENDS = st.sampled_from([math.inf, math.inf, 3600.0, 1800.5])
OFFSETS = st.sampled_from(["+00:00", "Z", "+05:30", "-0800", "", "+01:00"])
NUMBERS = st.sampled_from([0, 5, 12, 300, 300, 0.25, 1e-7, -4])
LEVELS = st.sampled_from(["INFO", "ERROR", "error", "warn", "CRITICAL", "odd", "", 30, 50, 7, None, True])


@st.composite
def stamps(draw):
    moment = START + timedelta(milliseconds=draw(st.integers(-7_200_000, 7_200_000)))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(
            st.sampled_from(["soon", "", None, 1795251421, 1795251421.25, 1795251421123, "2026-02-31T01:00:00Z", "2026-11-15T29:00:00Z"])
        )
    if kind == 1:
        return moment.strftime("%Y-%m-%d %H:%M:%S,%f")[:-3] + draw(OFFSETS)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + draw(st.sampled_from(["Z", "+00:00"]))


@st.composite
def json_lines(draw):
    """A few shapes of records, each used many times, with broken lines among them."""
    shapes = draw(st.lists(st.permutations(["time", "level", "text", "extra"]), min_size=1, max_size=3))
    compact, measured = draw(st.booleans()), draw(st.booleans())
    out = []
    for _number in range(draw(st.integers(1, 40))):
        shape = draw(st.sampled_from(shapes))
        values = {
            "time": (draw(st.sampled_from(["timestamp", "timestamp", "time", "@timestamp"])), draw(stamps())),
            "level": (draw(st.sampled_from(["level", "level", "severity"])), draw(LEVELS)),
            "text": (draw(st.sampled_from(["message", "message", "msg"])), draw(TEXTS)),
            "extra": draw(
                st.sampled_from(
                    [("n", 7), ("n", -1), ("n", 0.5), ("n", 10**20), ("n", 0), ("f", -1.5e3),
                     ("o", {"a": "b", "time": "x"}), ("l", [1, "two", None]), ("ip", "192.0.2.9"), ("user", "eve"),
                     ("status", "failed"), ("path", "/api?a=b"), ("route", "/r/\\"),
                     ("ts", "2026-11-15T11:00:00Z"), ("deep", {"a": {"b": 1}}), ("e", {}), ("levelname", "ERROR")]
                )
            ),
        }  # fmt: skip
        record = dict(values[name] for name in shape)
        if measured:
            record["duration_ms"] = draw(NUMBERS)
        line = json.dumps(record, ensure_ascii=draw(st.booleans()), separators=(",", ":") if compact else None)
        data = line.encode("utf-8", "surrogatepass")
        broken = draw(st.integers(0, 25))
        if broken == 0:
            data = data[: draw(st.integers(0, len(data)))]
        elif broken == 1:
            data = draw(
                st.sampled_from(
                    [b"", b"null", b"[1]", b"  " + data, data + b"\r", data + b" x", b"\xff\xfe", data.replace(b":", b"\x01", 1)]
                )
            )
        elif broken == 2:
            data = data.replace(b"failed", b"fai\xffled")
        out.append(data)
    return b"\n".join(out) + draw(st.sampled_from([b"", b"\n"]))


@settings(max_examples=400, deadline=None)
@given(json_lines(), st.sampled_from([0, 300, 10**6]), st.sampled_from([None, -3600.0, 0.0, 0.5, 1800.25]), ENDS)
def test_json_blocks_equal_one_json_loads_a_line(data, size, since, end):
    moment = 0.0 if since is None else START.timestamp() + since
    clock, until = Clock(REFERENCE), START.timestamp() + end
    assert facts(fast("json", data, clock, moment, size, until), "json") == facts(naive("json", data, clock, moment, until), "json")


@st.composite
def access_lines(draw):
    out = []
    for _number in range(draw(st.integers(1, 40))):
        moment = START + timedelta(seconds=draw(st.integers(-7200, 7200)))
        zone = draw(st.sampled_from(["+0000", "+0000", "+0000", "+0530", "-0100"]))
        status = draw(st.sampled_from(["200", "404", "401", "429", "500", "503", "20x"]))
        request = draw(
            st.sampled_from(
                ["GET / HTTP/1.1", "POST /login?user=bob HTTP/1.1", "", "\\x16\\x03", 'GET /\\"x HTTP/1.0', "GET /[a] HTTP/1.1"]
            )
        )
        tail = draw(st.sampled_from(["", "", "", " 0.123", ' "10.0.0.1" 1.500', " rt=0.250 uct=0.1", " rt=x"]))
        line = f'{draw(st.sampled_from(["192.0.2.1", "2001:db8::7", "h"]))} - - [{moment:%d/%b/%Y:%H:%M:%S} {zone}] "{request}" {status} 17'
        line += draw(st.sampled_from(["", ' "-" "agent/1.0 (x; y)"'])) + tail
        odd = draw(st.integers(0, 20))
        out.append({0: line[: len(line) // 2], 1: " " + line, 2: "", 3: line + "\r", 4: line.replace("Nov", "Nyx")}.get(odd, line).encode())
    return b"\n".join(out)


@settings(max_examples=300, deadline=None)
@given(access_lines(), st.sampled_from([0, 300, 10**6]), st.sampled_from([None, -3600.0, 0.0, 1800.0]), ENDS)
def test_access_blocks_equal_line_by_line(data, size, since, end):
    moment = 0.0 if since is None else START.timestamp() + since
    clock, until = Clock(REFERENCE), START.timestamp() + end
    assert facts(fast("access", data, clock, moment, size, until), "access") == facts(naive("access", data, clock, moment, until), "access")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_local_times_count_in_the_same_hours_both_ways(zone):
    """The hour that exists twice in October, and a zone that is half an hour off."""
    lines = [
        json.dumps({"time": f"2026-10-25T{minute // 60:02d}:{minute % 60:02d}:00", "level": "INFO", "message": "m"}).encode()
        for minute in range(0, 300, 7)
    ]
    data, clock = b"\n".join(lines), Clock(REFERENCE, ZoneInfo(zone))
    assert facts(fast("json", data, clock, 0.0, 10**6), "json") == facts(naive("json", data, clock, 0.0), "json")


def test_regular_lines_do_take_the_fast_way(monkeypatch):
    """Without this, the tests above could pass with no fast way at all."""
    monkeypatch.setattr(log_line_counter, "json_record", lambda line: pytest.fail(f"went line by line: {line!r}"))
    data = b"".join(
        b'{"timestamp": "2026-11-15T11:00:%02dZ", "level": "ERROR", "message": "say \\"no\\" %d", "n": 1}\n' % (i, i) for i in range(50)
    )
    tally = fast("json", data, Clock(REFERENCE), 0.0, 10**6)
    assert (tally.parsed, tally.errors(), list(tally.templates)) == (50, 50, ["say <text> <n>"])


def test_numbers_and_times_of_another_kind_do_not_leave_the_fast_way(monkeypatch):
    """The first expression expects them as the first line has them; a wider one takes over."""
    monkeypatch.setattr(log_line_counter, "json_record", lambda line: pytest.fail(f"went line by line: {line!r}"))
    counter = LogCounter("json", Clock(REFERENCE))
    line = b'{"timestamp": "2026-11-15T11:00:%02d%sZ", "level": "INFO", "message": "m", "ms": %s}\n'
    block = b"".join(line % (n, (b"", b".5", b",25")[n % 3], (b"1", b"-1", b"0.5", b"2e3")[n % 4]) for n in range(60))
    for _time in range(5):
        counter.add(block)
    shape = counter._blocks._shapes[0]
    assert (counter.tally.parsed, len(shape.fast.findall(block))) == (300, 60)


@pytest.mark.parametrize("wrong", [b"007", b"1.", b"--1", b"1_0"])
def test_what_is_not_a_number_is_not_a_record(wrong):
    good = b'{"timestamp": "2026-11-15T11:00:00Z", "level": "INFO", "message": "m", "ms": 1}\n'
    tally = fast("json", good + good.replace(b": 1}", b": " + wrong + b"}") + good, Clock(REFERENCE), 0.0, 10**6)
    assert (tally.parsed, tally.unparsed) == (2, 1)


@pytest.mark.parametrize("code", [*range(1, 10), *range(11, 32)])
def test_no_control_character_passes_in_a_text(code):
    good = b'{"timestamp": "2026-11-15T11:00:00Z", "level": "INFO", "message": "m", "id": "x"}\n'
    tally = fast("json", good + good.replace(b'"x"', b'"x%c"' % code) + good, Clock(REFERENCE), 0.0, 10**6)
    assert (tally.parsed, tally.unparsed) == (2, 1)


def test_a_text_that_is_torn_over_two_lines_is_not_one_record():
    """The faster expressions could take it for one; the number of lines tells."""
    good = b'{"timestamp": "2026-11-15T11:00:00Z", "level": "INFO", "message": "whole"}\n'
    torn = b'{"timestamp": "2026-11-15T11:00:00Z", "level": "INFO", "message": "begin\nend"}\n'
    tally = fast("json", good + torn + good, Clock(REFERENCE), 0.0, 10**6)
    assert (tally.lines, tally.parsed, tally.unparsed) == (4, 2, 2)
    access = b'192.0.2.1 - - [15/Nov/2026:11:00:00 +0000] "GET /%s HTTP/1.1" 200 5 "-" "-"\n'
    tally = fast("access", access % b"a" + access % b"b\nc" + access % b"d", Clock(REFERENCE), 0.0, 10**6)
    assert (tally.lines, tally.parsed, tally.unparsed) == (4, 2, 2)


def test_memory_stays_bounded_when_every_address_is_another():
    counter = LogCounter("access", Clock(REFERENCE))
    for part in range(4):
        counter.add(
            b"".join(
                b'10.%d.%d.%d - - [15/Nov/2026:11:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "-"\n' % (part, i // 256, i % 256)
                for i in range(30_000)
            )
        )
    assert len(counter.tally.addresses) <= log_tally.KEYS_LIMIT
    assert counter.tally.inexact["addresses"] >= 1
    assert sum(counter.tally.statuses.values()) == 120_000


def test_response_times_stay_few_and_their_high_ones_are_kept():
    """Forgetting rare values would forget the slow requests, for each of them is another one."""
    counter = LogCounter("access", Clock(REFERENCE))
    line = b'192.0.2.1 - - [15/Nov/2026:11:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "-" %d.%06d\n'
    for part in range(4):
        counter.add(b"".join(line % (n // 200, n * 61 % 1_000_000) for n in range(part * 20_000, part * 20_000 + 20_000)))
    exact = sorted(n // 200 + n * 61 % 1_000_000 / 1e6 for n in range(80_000))
    assert len(counter.tally.latencies) < 30_000
    for percent in (50, 95, 99):
        assert percentile(counter.tally.latencies, percent) == pytest.approx(exact[800 * percent - 1], rel=0.005)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (b"Authentication failed for user bob", ("auth_failures",)),
        (b"pam_unix(sshd:auth): authentication failure; rhost=192.0.2.1", ("auth_failures",)),
        (b"Failed password for invalid user admin from 192.0.2.1 port 22", ("auth_failures",)),
        (b"Login attempt rejected: invalid credentials", ("auth_failures",)),
        (b"user logged in", ()),
        (b"authentication succeeded", ()),
        (b"Rate limit exceeded for 192.0.2.1", ("rate_limited",)),
        (b"EXT4-fs error (device vda1)", ("io_errors",)),
        (b"sqlite3.DatabaseError: database disk image is malformed", ("io_errors",)),
        (b"python3 invoked oom-killer", ("out_of_memory",)),
        (b"the generate button", ()),
        (b"ERROR:  deadlock detected", ("deadlocks",)),
        (b'parameter "deadlock_timeout" changed', ()),
        (b'no pg_hba.conf entry for host "192.0.2.7"', ("auth_failures",)),
        (b"limiting requests, excess: 5.2", ("rate_limited",)),
        (b"sd 0:0:0:0: [sda] Sense Key : Medium Error [current]", ("io_errors",)),
    ],
)
def test_what_texts_speak_of(text, tags):
    assert log_texts.tags_of(text) == tags


@pytest.mark.parametrize(
    ("text", "template"),
    [
        (b"Timeout after 31 ms", "Timeout after <n> ms"),
        (b"visit 6fa459ea-ee8a-3ca4-894e-db77e160355e gone", "visit <uuid> gone"),
        (b"key 'a b' of \"c\" at 0x7f00aa", "key <text> of <text> at <hex>"),
        (b"from 192.0.2.1:80", "from <address>:<n>"),
        (b"can't open \x1b[31m", "can't open \\x1b[<n>m"),
    ],
)
def test_templates_mask_what_varies(text, template):
    assert log_texts.template_of(text) == template


PIECES = st.sampled_from(
    [b" ", b" ", b"  ", b"\t", b"12", b"0x1f", b"a@b.example", b"192.0.2.1", b"deadbeef1",
     b"6fa459ea-ee8a-3ca4-894e-db77e160355e", b"x", b"-", b".", b"it's", b'"a b"', b"\xff"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_words_are_masked_one_by_one_as_the_whole_text_would_be(text):
    assert log_texts.template_of(text) == log_texts._shown(log_texts._masked(text))


def test_who_failed_to_log_in():
    text = b"Failed password for invalid user admin from 192.0.2.1 port 22 ssh2"
    assert (log_texts.account_in(text), log_texts.address_in(text)) == (b"admin", b"192.0.2.1")
    assert log_texts.address_in(b"rhost=2001:db8::5 user=x") == b"2001:db8::5"
    assert log_texts.account_in(b"authentication failure; user=root") == b"root"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"Failed password for invalid user a from 127.0.0.1 port 1 ssh2 from 192.0.2.5 port 4000 ssh2", b"192.0.2.5"),
        (b"Invalid user x from 198.51.100.9 from 2001:db8::5 port 4000", b"2001:db8::5"),
        (b"Failed password for invalid user 198.51.100.9 from bad.example.org port 4000 ssh2", b""),
        (b"at 10:00:00 a login failed, client 192.0.2.5, cache from disk", b"192.0.2.5"),
        (b"login failed at 10:00:00", b""),
        (b"login failed from 999.0.0.1", b""),
    ],
)
def test_a_client_cannot_put_another_address_into_its_name(text, address):
    assert log_texts.address_in(text) == address


def test_parts_of_a_log_add_up():
    line = b'{"timestamp": "2026-11-15T11:00:00Z", "level": "ERROR", "message": "boom %d"}\n'
    whole = fast("json", b"".join(line % i for i in range(20)), Clock(REFERENCE), 0.0, 10**6)
    first = fast("json", b"".join(line % i for i in range(10)), Clock(REFERENCE), 0.0, 10**6)
    first.merge(fast("json", b"".join(line % i for i in range(10, 20)), Clock(REFERENCE), 0.0, 10**6))
    assert facts(first, "json") == facts(whole, "json")


def test_a_traceback_continues_its_record():
    data = b'2026-11-15 11:00:00 ERROR boom\nTraceback (most recent call last):\n  File "x"\nValueError: no\nnot a record\n'
    tally = fast("plain", data, Clock(REFERENCE), 0.0, 10**6)
    assert (tally.lines, tally.parsed, tally.continued, tally.unparsed) == (2, 1, 3, 1)
