# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Redis server says of itself, judged: memory, eviction, persistence, slow log, clients, replication, access."""

from __future__ import annotations

import typing as t
from collections import Counter
from dataclasses import dataclass, field

from .judge import from_limit, human_bytes, human_seconds, limits
from .record import Finding, Metric, clean
from .redis_client import parse_pairs

LIMITS: dict[str, t.Any] = {
    "memory_warning_percent": {"type": "float", "default": 80.0},
    "memory_critical_percent": {"type": "float", "default": 95.0},
    "fragmentation_warning_ratio": {"type": "float", "default": 1.5},
    "fragmentation_minimum_bytes": {"type": "int", "default": 67108864},
    "snapshot_age_hours": {"type": "float", "default": 26.0},
    "slow_hours": {"type": "float", "default": 24.0},
    "slow_warning_count": {"type": "int", "default": 10},
    "clients_warning_percent": {"type": "float", "default": 80.0},
    "blocked_warning_count": {"type": "int", "default": 20},
    "replica_lag_seconds": {"type": "float", "default": 30.0},
    "replicas_expected": {"type": "int", "default": 0},
    "persistence": {"type": "str", "choices": ["configured", "required"], "default": "configured"},
}
"""Limits of one server, part of its declaration."""

_SETTINGS = ("maxmemory", "maxmemory-policy", "save", "appendonly", "bind", "slowlog-log-slower-than", "maxclients", "protected-mode")


@dataclass
class Seen:
    """What a server answered: INFO, settings (None where it refused CONFIG), slow log (None likewise)."""

    subject: str
    info: dict[str, str]
    settings: dict[str, str] | None
    slow: list[list[t.Any]] | None
    now: float
    open_access: bool = False
    pure_cache: bool = False
    before: t.Mapping[str, t.Any] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """Return a number of INFO; None where this server does not say it."""
        try:
            return float(self.info[name])
        except (KeyError, ValueError):
            return None

    def setting(self, name: str) -> str | None:
        """Return a setting; None where it may not be read."""
        return None if self.settings is None else self.settings.get(name)


def settings_asked() -> tuple[str, ...]:
    """Return the names of the settings that the review reads."""
    return _SETTINGS


def review(seen: Seen, given: t.Mapping[str, t.Any]) -> list[Finding]:
    """Judge everything that a server said."""
    found = [_memory(seen, given), _fragmentation(seen, given), _eviction(seen)]
    found += [_persistence(seen, given), _slow(seen, given), _clients(seen, given)]
    found += _replication(seen, given)
    if seen.open_access:
        found.append(_access(seen))
    return found


def metrics(seen: Seen) -> list[Metric]:
    """Return the numbers worth comparing between runs."""
    wanted = {
        "used_memory": "bytes",
        "used_memory_rss": "bytes",
        "maxmemory": "bytes",
        "mem_fragmentation_ratio": "ratio",
        "evicted_keys": "count",
        "expired_keys": "count",
        "keyspace_hits": "count",
        "keyspace_misses": "count",
        "connected_clients": "count",
        "blocked_clients": "count",
        "rejected_connections": "count",
        "rdb_changes_since_last_save": "count",
        "uptime_in_seconds": "seconds",
    }
    found = ((name, unit, seen.number(name)) for name, unit in wanted.items())
    return [Metric(f"redis.{name}", seen.subject, value, unit) for name, unit, value in found if value is not None]


def _unknown(finding_id: str, seen: Seen, why: str, advice: str) -> Finding:
    return Finding(finding_id, "unknown", seen.subject, why, advice=advice)


def _since(seen: Seen, name: str) -> float | None:
    """Return by how much a counter grew since the last run; since the server's start where it started later."""
    now = seen.number(name)
    if now is None:
        return None
    same = seen.before.get("server_run") == seen.info.get("run_id") and name in seen.before
    return now - float(seen.before[name]) if same else now


def _memory(seen: Seen, given: t.Mapping[str, t.Any]) -> Finding:
    used, most, system = seen.number("used_memory"), seen.number("maxmemory"), seen.number("total_system_memory")
    if used is None or most is None:
        return _unknown("redis.memory", seen, "INFO says no used_memory or maxmemory", "Let the user call INFO.")
    if not most:
        words = f"{human_bytes(used)} used, and maxmemory is not set, so it grows until the host has no memory left"
        return Finding(
            "redis.memory",
            from_limit(100 * used / system, 0, given["memory_critical_percent"]) if system else "warning",
            seen.subject, words, value=used, unit="bytes", advice="Set maxmemory, with a policy that fits what is kept here.",
        )  # fmt: skip
    percent = 100 * used / most
    warning, critical = given["memory_warning_percent"], given["memory_critical_percent"]
    state = from_limit(percent, warning, critical)
    if seen.pure_cache and (seen.info.get("maxmemory_policy") or "noeviction") != "noeviction":
        state = "ok"  # a cache that is full and evicts does what it is for
    words = f"{human_bytes(used)} of {human_bytes(most)} used ({percent:.0f} percent)"
    advice = "Raise maxmemory, or remove keys without a time to live." if state != "ok" else ""
    return Finding(
        "redis.memory", state, seen.subject, words, value=round(percent, 1), unit="percent",
        threshold=limits("percent", warning, critical), advice=advice,
    )  # fmt: skip


def _fragmentation(seen: Seen, given: t.Mapping[str, t.Any]) -> Finding:
    ratio, used = seen.number("mem_fragmentation_ratio"), seen.number("used_memory")
    if ratio is None or used is None:
        return _unknown("redis.fragmentation", seen, "INFO says no mem_fragmentation_ratio", "Let the user call INFO.")
    limit, least = given["fragmentation_warning_ratio"], given["fragmentation_minimum_bytes"]
    big = used >= least
    state, advice = "ok", ""
    if big and ratio >= limit:
        state, advice = "warning", "Enable activedefrag, or restart it in a window; see what makes and frees keys of changing size."
    elif big and ratio < 0.9:
        state, advice = "warning", "Part of its memory is swapped out: give the host memory, or lower maxmemory."
    words = f"{ratio:.2f} bytes of the host's memory for each byte used" + ("" if big else f" (not judged below {human_bytes(least)})")
    threshold = f"warning from {limit:g} and below 0.9"
    return Finding("redis.fragmentation", state, seen.subject, words, value=ratio, unit="ratio", threshold=threshold, advice=advice)


def _eviction(seen: Seen) -> Finding:
    evicted, policy = _since(seen, "evicted_keys"), seen.info.get("maxmemory_policy") or seen.setting("maxmemory-policy")
    if evicted is None or not policy:
        return _unknown("redis.eviction", seen, "INFO says no evicted_keys or maxmemory_policy", "Let the user call INFO.")
    words = f"policy {policy}, {evicted:.0f} keys evicted since {_last(seen)}"
    more: dict[str, t.Any] = {"value": evicted, "unit": "count"}
    if seen.pure_cache:
        if policy == "noeviction" and seen.number("maxmemory"):
            advice = "A full cache refuses writes under this policy; set allkeys-lru or allkeys-lfu."
            return Finding("redis.eviction", "warning", seen.subject, words, advice=advice, **more)
        return Finding("redis.eviction", "ok", seen.subject, words, **more)
    if evicted:
        advice = "Keys went before their time, which may be sessions or queues: raise maxmemory, or move the cache to a server of its own."
        return Finding("redis.eviction", "warning", seen.subject, words, advice=advice, **more)
    if policy.startswith("allkeys"):
        advice = "This server holds more than a cache, but may evict any key: set noeviction or a volatile policy, or declare pure_cache."
        return Finding("redis.eviction", "warning", seen.subject, words, advice=advice, **more)
    return Finding("redis.eviction", "ok", seen.subject, words, **more)


def _last(seen: Seen) -> str:
    return "the last run" if seen.before.get("server_run") == seen.info.get("run_id") else "it started"


def _persistence(seen: Seen, given: t.Mapping[str, t.Any]) -> Finding:
    info, bad = seen.info, []
    if "rdb_last_bgsave_status" not in info:
        return _unknown("redis.persistence", seen, "INFO says nothing of persistence", "Let the user call INFO.")
    if info["rdb_last_bgsave_status"] != "ok":
        bad.append("the last snapshot (RDB) failed")
    append_only = info.get("aof_enabled") == "1"
    if append_only:
        bad += [
            f"{name} is {info[name]}" for name in ("aof_last_write_status", "aof_last_bgrewrite_status") if info.get(name, "ok") != "ok"
        ]
    changes, saved = seen.number("rdb_changes_since_last_save") or 0.0, seen.number("rdb_last_save_time") or 0.0
    age = max(0.0, seen.now - saved)
    words = f"last snapshot {human_seconds(age)} ago, {changes:.0f} changes since; append-only file {'on' if append_only else 'off'}"
    more: dict[str, t.Any] = {"value": round(age), "unit": "seconds", "threshold": f"warning from {given['snapshot_age_hours']:g} hours"}
    if bad:
        advice = "Read its log: disk full, no memory to fork, folder not writable? Until then a restart loses data."
        return Finding("redis.persistence", "critical", seen.subject, f"{'; '.join(bad)}; {words}", advice=advice, **more)
    save = seen.setting("save")
    if not append_only and save is None:
        return _unknown("redis.persistence", seen, f"{words}; whether snapshots are configured may not be read", "Allow CONFIG GET.")
    if not append_only and not save:
        fine = seen.pure_cache and given["persistence"] != "required"
        advice = "" if fine else "A restart loses everything: configure save or appendonly, or declare what it holds as pure_cache."
        return Finding("redis.persistence", "ok" if fine else "warning", seen.subject, "nothing is persisted", advice=advice, **more)
    late = bool(save) and not append_only and changes > 0 and age >= given["snapshot_age_hours"] * 3600
    advice = "See why no snapshot was made; compare its save setting with how much it changes." if late else ""
    return Finding("redis.persistence", "warning" if late else "ok", seen.subject, words, advice=advice, **more)


def _slow(seen: Seen, given: t.Mapping[str, t.Any]) -> Finding:
    if seen.slow is None:
        return _unknown("redis.slow_log", seen, "the slow log may not be read", "Allow SLOWLOG to the user.")
    limit = seen.setting("slowlog-log-slower-than")
    if limit is not None and int(limit) < 0:
        return _unknown("redis.slow_log", seen, "the slow log is off", "Set slowlog-log-slower-than, such as 10000 microseconds.")
    hours, most = given["slow_hours"], given["slow_warning_count"]
    recent = [entry for entry in seen.slow if seen.now - entry[1] <= hours * 3600]
    # Only the names of commands: what follows is the application's data.
    names = Counter(clean(entry[3][0].decode("ascii", "replace").upper(), 30) if entry[3] else "?" for entry in recent)
    longest = max((entry[2] for entry in recent), default=0)
    state = from_limit(len(recent), most)
    words = f"{len(recent)} slow commands in {hours:g} hours" + (f", the longest {longest / 1000:.1f} ms" if recent else "")
    return Finding(
        "redis.slow_log", state, seen.subject, words, value=len(recent), unit="count", threshold=limits("commands", most),
        basis="exact" if len(recent) == len(seen.slow) or limit is not None else "sampled",
        evidence=[f"{name}: {count}" for name, count in names.most_common(10)],
        advice="Look for large keys and for KEYS, SORT, SMEMBERS or long scripts." if state != "ok" else "",
    )  # fmt: skip


def _clients(seen: Seen, given: t.Mapping[str, t.Any]) -> Finding:
    clients, blocked = seen.number("connected_clients"), seen.number("blocked_clients")
    most = seen.number("maxclients") or float(seen.setting("maxclients") or 0)
    if clients is None or blocked is None or not most:
        return _unknown("redis.clients", seen, "INFO says nothing of clients, or maxclients may not be read", "Let the user call INFO.")
    refused = _since(seen, "rejected_connections") or 0.0
    percent = 100 * clients / most
    reasons = []
    if refused:
        reasons.append(f"{refused:.0f} connections refused since {_last(seen)}")
    if percent >= given["clients_warning_percent"]:
        reasons.append(f"{percent:.0f} percent of maxclients")
    if blocked >= given["blocked_warning_count"]:
        reasons.append(f"{blocked:.0f} blocked")
    words = f"{clients:.0f} of {most:.0f} clients, {blocked:.0f} blocked" + (f": {'; '.join(reasons)}" if reasons else "")
    advice = "Find who leaks connections or waits; raise maxclients only if they are needed." if reasons else ""
    return Finding(
        "redis.clients", "warning" if reasons else "ok", seen.subject, words, value=clients, unit="count",
        threshold=limits("percent", given["clients_warning_percent"]), advice=advice,
    )  # fmt: skip


def _replication(seen: Seen, given: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    info, lag = seen.info, given["replica_lag_seconds"]
    threshold = limits("seconds", lag)
    advice = "Read the logs of both sides; look at network, repl-backlog-size and output buffers."
    if info.get("role") == "slave":
        silent = seen.number("master_last_io_seconds_ago")
        link = info.get("master_link_status")
        broken = link != "up"
        late = silent is None or silent >= lag
        words = f"replica, the link to its primary is {link}, last heard of {silent if silent is not None else '?'} s ago"
        state = "critical" if broken else "warning" if late else "ok"
        yield Finding(
            "redis.replication", state, seen.subject, words, value=silent, unit="seconds", threshold=threshold,
            advice="" if state == "ok" else advice,
        )  # fmt: skip
        return
    expected = given["replicas_expected"]
    replicas = [parse_pairs(value) for name, value in sorted(info.items()) if name.startswith("slave") and "state=" in value]
    if not expected and not replicas:
        return
    well = [one for one in replicas if one.get("state") == "online" and float(one.get("lag", "inf")) < lag]
    state = "critical" if len(well) < expected else "warning" if len(well) < len(replicas) else "ok"
    words = f"{len(well)} of {max(expected, len(replicas))} replicas follow"
    yield Finding(
        "redis.replication", state, seen.subject, words, value=len(well), unit="count", threshold=threshold,
        advice="" if state == "ok" else advice,
    )  # fmt: skip


def _access(seen: Seen) -> Finding:
    bind = seen.setting("bind")
    local = bind is not None and all(part.lstrip("-") in ("127.0.0.1", "::1", "localhost") for part in bind.split()) and bool(bind)
    # From 7.0 on, this mode lets in nobody from outside while there is no password, whatever the addresses.
    guarded = seen.setting("protected-mode") == "yes" and seen.info.get("redis_version", "").partition(".")[0].isdigit()
    guarded = guarded and int(seen.info["redis_version"].partition(".")[0]) >= 7
    if local or guarded:
        return Finding("redis.access", "ok", seen.subject, "no password is wanted, and only this host can connect")
    if bind is None:
        return _unknown("redis.access", seen, "no password is wanted, and whom it listens to may not be read", "Set a password (ACL).")
    advice = "Set a password (requirepass or ACL), and bind it to the addresses that need it."
    return Finding("redis.access", "critical", seen.subject, "whoever reaches its port is let in without a password", advice=advice)
