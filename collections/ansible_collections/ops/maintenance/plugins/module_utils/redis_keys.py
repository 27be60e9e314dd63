# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of a Redis database: which have no time to live, which are stale, and removing those; with SCAN, never KEYS."""

from __future__ import annotations

import re
import typing as t
from collections import Counter
from dataclasses import dataclass, field

from .redis_client import Argument, Client, CommandError, literal_pattern

BATCH = 500
MOST_IDLE_DAYS = 190.0
"""Redis counts idle seconds in 24 bits; after 194 days a key looks fresh again."""

_WORD = re.compile(rb"^[A-Za-z][A-Za-z_-]{0,39}$")

# Looks and removes in one step, so that a key that somebody just used stays.
REMOVE = b"""
local gone = 0
for _, key in ipairs(KEYS) do
  local idle = redis.call('OBJECT', 'IDLETIME', key)
  if idle and tonumber(idle) >= tonumber(ARGV[1]) and (ARGV[2] == '1' or redis.call('TTL', key) == -1) then
    gone = gone + redis.call('UNLINK', key)
  end
end
return gone
"""


@dataclass
class Census:
    """Keys without a time to live, counted in one walk through a database."""

    total: int
    seen: int = 0
    by_prefix: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def whole(self) -> bool:
        """Whether every key was looked at."""
        return self.seen >= self.total

    def scaled(self, count: int) -> int:
        """Scale a count of the sample to the whole database."""
        return count if self.whole or not self.seen else round(count * self.total / self.seen)


def scan(client: Client, pattern: bytes | None = None) -> t.Iterator[list[bytes]]:
    """Yield the keys of the selected database batch by batch; one may come twice, as SCAN has it."""
    cursor = b"0"
    wanted: list[t.Any] = ["MATCH", pattern] if pattern else []
    while True:
        cursor, keys = client.call("SCAN", cursor, *wanted, "COUNT", BATCH)
        if keys:
            yield keys
        if cursor == b"0":
            return


def group_of(key: bytes) -> str:
    """Return the beginning of a key that is a word, for the report; anything else could be a user's data."""
    first, colon, _rest = key.partition(b":")
    return first.decode() + ":" if colon and _WORD.match(first) else "(other)"


def census(client: Client, prefixes: t.Sequence[str], most: int) -> Census:
    """Count keys without a time to live by declared prefix; at most so many keys, which is a sample where there are more."""
    found = Census(int(client.call("DBSIZE")))
    # The longest prefix that fits is the one that was meant.
    declared = sorted(((prefix.encode(), prefix) for prefix in prefixes), key=lambda pair: -len(pair[0]))
    known: set[bytes] = set()
    for batch in scan(client):
        fresh = [key for key in dict.fromkeys(batch) if key not in known]
        known.update(fresh)
        for key, left in zip(fresh, client.pipeline([["PTTL", key] for key in fresh])):
            if isinstance(left, CommandError):
                raise left
            if left == -2:  # gone meanwhile
                continue
            found.seen += 1
            prefix = next((name for raw, name in declared if key.startswith(raw)), None)
            if prefix is not None:
                found.by_prefix[prefix] += 1
                found.without[prefix] += left == -1
            elif left == -1:
                found.others[group_of(key)] += 1
        if found.seen >= most:
            return found
    found.total = found.seen  # keys that expired meanwhile are no gap
    return found


def stale(client: Client, prefix: str, idle_seconds: int, also_with_ttl: bool) -> t.Iterator[list[bytes]]:
    """Yield the keys with exactly this beginning that nobody used for so long, each once.

    :raises CommandError: Redis does not know how long keys were idle (an LFU policy), or the user may not ask.
    """
    start = prefix.encode()
    known: set[bytes] = set()
    for batch in scan(client, literal_pattern(start)):
        keys = [key for key in dict.fromkeys(batch) if key.startswith(start) and key not in known]
        commands: list[list[Argument]] = []
        for key in keys:
            commands += [["OBJECT", "IDLETIME", key], ["TTL", key]]
        answers = client.pipeline(commands)
        for answer in answers:
            if isinstance(answer, CommandError):
                raise answer
        pairs = zip(keys, answers[::2], answers[1::2])
        old = [
            key for key, idle, left in pairs if idle is not None and idle >= idle_seconds and (left == -1 or (also_with_ttl and left >= 0))
        ]
        if old:
            known.update(old)
            yield old


def remove(client: Client, keys: t.Sequence[bytes], idle_seconds: int, also_with_ttl: bool) -> int:
    """Unlink those of some keys that are still stale; returns how many."""
    return int(client.call("EVAL", REMOVE, len(keys), *keys, idle_seconds, int(also_with_ttl)))
