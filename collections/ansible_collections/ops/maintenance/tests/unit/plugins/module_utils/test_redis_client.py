# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire format of Redis and what is made of its answers, without a server."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import redis_review, redis_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.redis_client import (
    CommandError,
    encode,
    literal_pattern,
    parse_info,
    read_reply,
)
from ansible_collections.ops.maintenance.plugins.module_utils.redis_keys import group_of, stale


def wire(value):
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(wire, value))
    if value is None:
        return b"$-1\r\n"
    return b":%d\r\n" % value if isinstance(value, int) else b"$%d\r\n%s\r\n" % (len(value), value)


ANSWERS = st.recursive(st.none() | st.binary() | st.integers(-(2**63), 2**63 - 1), lambda inner: st.lists(inner, max_size=4), max_leaves=12)


def depth(value):
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(ANSWERS.filter(lambda value: depth(value) < 8), ANSWERS.filter(lambda value: depth(value) < 8))
def test_answers_come_back_as_they_were_sent(first, second):
    source = io.BytesIO(wire(first) + wire(second))
    assert [read_reply(source), read_reply(source)] == [first, second]


@given(st.lists(st.binary() | st.integers(0, 9), min_size=1))
def test_what_is_sent_is_what_was_meant(arguments):
    sent = read_reply(io.BytesIO(encode(arguments)))
    assert sent == [one if isinstance(one, bytes) else str(one).encode() for one in arguments]


@given(st.binary(max_size=60))
def test_rubbish_is_an_error_and_never_hangs(text):
    with contextlib.suppress(ValueError, EOFError):
        read_reply(io.BytesIO(text))


@pytest.mark.parametrize("text", [b"$5\r\nabc\r\n", b"$3\r\nabcde", b"*2\r\n:1\r\n", b"", b"$99999999999\r\n", b"*1\r\n" * 50 + b":1\r\n"])
def test_answers_that_end_early_or_are_endless(text):
    with pytest.raises((ValueError, EOFError)):
        read_reply(io.BytesIO(text))


def test_a_refusal_is_returned():
    answer = read_reply(io.BytesIO(b"-NOPERM this user\x1b[31m has no permissions\r\n"))
    assert isinstance(answer, CommandError)
    assert (answer.code, str(answer)) == ("NOPERM", "NOPERM this user\\x1b[31m has no permissions")


@given(st.text(min_size=1, max_size=8), st.text(max_size=5))
def test_a_pattern_matches_its_prefix_only(prefix, rest):
    pattern = literal_pattern(prefix.encode())
    assert pattern.endswith(b"*")
    plain = re.sub(rb"\\(.)", rb"\1", pattern[:-1], flags=re.DOTALL)
    assert plain == prefix.encode()
    unescaped = re.sub(rb"\\.", b"", pattern[:-1], flags=re.DOTALL)
    assert not set(unescaped) & set(b"*?[]")
    assert fnmatch.fnmatchcase(prefix + rest, prefix.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]") + "*")


@pytest.mark.parametrize(
    ("key", "group"),
    [(b"cache:1", "cache:"), (b"jane@example.org:1", "(other)"), (b"token", "(other)"), (b"\xff:1", "(other)"), (b"4711:a", "(other)")],
)
def test_only_words_get_into_the_report(key, group):
    assert group_of(key) == group


class Walked:
    """A database of which SCAN returns a key a second time in a later batch, as it may while the table shrinks."""

    def call(self, _name, cursor, *_more):
        return [b"7", [b"cache:1", b"cache:2", b"cache:1"]] if cursor == b"0" else [b"0", [b"cache:2", b"cache:3", b"cachet:4"]]

    def pipeline(self, commands):
        return [90 * 86400 if command[0] == "OBJECT" else -1 for command in commands]


def test_a_key_that_scan_returns_twice_is_stale_once():
    """asr-07-3: what check mode counts is what would go."""
    assert list(stale(Walked(), "cache:", 86400, also_with_ttl=False)) == [[b"cache:1", b"cache:2"], [b"cache:3"]]


def seen(**info):
    base = {"run_id": "a", "role": "master", "maxclients": "100", "connected_clients": "1", "blocked_clients": "0", "evicted_keys": "0"}
    settings = {"save": "3600 1", "bind": "*", "slowlog-log-slower-than": "10000", "maxclients": "100"}
    return redis_review.Seen("cache", {**base, **info}, settings, [], 1_000_000.0)


GIVEN = {name: option["default"] for name, option in redis_upkeep.OPTIONS["servers"]["options"].items() if "default" in option}


def state(finding_id, look):
    return next(finding.state for finding in redis_review.review(look, GIVEN) if finding.id == finding_id)


@pytest.mark.parametrize(
    ("used", "expected"), [(10, "ok"), (799, "ok"), (800, "warning"), (949, "warning"), (950, "critical"), (2000, "critical")]
)
def test_memory(used, expected):
    assert state("redis.memory", seen(used_memory=str(used), maxmemory="1000")) == expected


@pytest.mark.parametrize(
    ("ratio", "used", "expected"), [("1.49", 10**8, "ok"), ("1.5", 10**8, "warning"), ("0.5", 10**8, "warning"), ("9", 10**6, "ok")]
)
def test_fragmentation_is_judged_where_it_matters(ratio, used, expected):
    assert state("redis.fragmentation", seen(mem_fragmentation_ratio=ratio, used_memory=str(used))) == expected


@pytest.mark.parametrize("what", ["redis.memory", "redis.fragmentation", "redis.eviction", "redis.persistence"])
def test_what_info_does_not_say_is_unknown(what):
    assert state(what, seen()) == "unknown"


@pytest.mark.parametrize(
    ("link", "silent", "expected"), [("up", "1", "ok"), ("up", "31", "warning"), ("down", "1", "critical"), ("up", "x", "warning")]
)
def test_a_replica(link, silent, expected):
    look = seen(role="slave", master_link_status=link, master_last_io_seconds_ago=silent)
    assert state("redis.replication", look) == expected


def test_the_append_only_file_is_judged_too():
    fine = {"rdb_last_bgsave_status": "ok", "aof_enabled": "1", "rdb_last_save_time": "999000"}
    assert state("redis.persistence", seen(**fine)) == "ok"
    assert state("redis.persistence", seen(**fine, aof_last_write_status="err")) == "critical"


def test_info():
    assert parse_info(b"# Memory\r\nused_memory:12\r\nslave0:ip=a:1,state=online\r\n\r\nbroken\r\n") == {
        "used_memory": "12",
        "slave0": "ip=a:1,state=online",
    }
