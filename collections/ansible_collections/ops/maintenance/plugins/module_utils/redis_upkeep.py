# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Review Redis servers and remove what is stale by declared prefix; flush only what is declared as pure cache."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass, field

from . import redis_keys, redis_review
from .errors import refusal, refuse
from .host import Host
from .kept_state import keep_state
from .paths import read_state
from .record import Action, Finding, Metric, Outcome, status_of
from .redis_client import CONNECTION, Client, CommandError, NotReachableError, check_server, parse_info

PREFIX: dict[str, t.Any] = {
    "prefix": {"type": "str", "required": True},
    "without_ttl_allowed": {"type": "bool", "default": False},
    "remove_idle_days": {"type": "float", "default": 0.0},
    "minimum_idle_days": {"type": "float", "default": 1.0},
    "also_with_ttl": {"type": "bool", "default": False},
}

DATABASE: dict[str, t.Any] = {
    "number": {"type": "int", "required": True},
    "prefixes": {"type": "list", "elements": "dict", "default": [], "options": PREFIX},
    "pure_cache": {"type": "bool", "default": False},
    "flush": {"type": "bool", "default": False},
}

OPTIONS: dict[str, t.Any] = {
    "servers": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            **CONNECTION,
            **redis_review.LIMITS,
            "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
        },
    },
    "sample_size": {"type": "int", "default": 200000},
}

STATE = "redis.json"
DAY = 86400.0
_SLOW_ENTRIES = 512
_COUNTERS = ("evicted_keys", "rejected_connections")

Spec = t.Mapping[str, t.Any]


@dataclass
class Result:
    """What one server added to the outcome."""

    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    failure: str = ""
    removed: int = 0

    def find(self, finding_id: str, state: str, subject: str, summary: str, **more: t.Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(finding_id, state, subject, summary, **more))


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Review every server, then remove what is due."""
    refuse(input_problems(params))
    kept = read_state(params["state_dir"], STATE)
    outcome = Outcome("redis", "redis_upkeep", "ok", "")
    failure, removed = "", 0
    for server in params["servers"]:
        result = Result()
        Upkeep(server, params, check_mode, host, result, kept).run()
        outcome.findings += result.findings
        outcome.metrics += result.metrics
        outcome.actions += result.actions
        failure, removed = failure or result.failure, removed + result.removed
    if not params["servers"]:
        advice = "Declare the servers, or leave this step out."
        outcome.findings.append(Finding("redis.reachable", "unknown", "redis", "no server is declared", advice=advice))
    if not check_mode:
        outcome.findings += keep_state(params["state_dir"], STATE, kept)
    outcome.status = "failed" if failure else status_of(outcome.actions, check_mode)
    verb = "due" if check_mode else "removed"
    outcome.summary = failure or f"{len(params['servers'])} server(s), worst state {outcome.state}, {removed} key(s) {verb}"
    outcome.returned = {"due": outcome.is_change, "keys": removed, "servers": [server["name"] for server in params["servers"]]}
    return outcome


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems: list[str] = []
    names: set[str] = set()
    if params["sample_size"] < 1:
        problems.append(f"sample_size is {params['sample_size']}, expected 1 or more; correct it.")
    for server in params["servers"]:
        problems += refusal(check_server, server)
        if server["name"] in names:
            problems.append(f"Two servers are called {server['name']!r}, expected a name of its own for each; rename one.")
        names.add(server["name"])
        numbers = [database["number"] for database in server["databases"]]
        if len(set(numbers)) < len(numbers) or any(number < 0 for number in numbers):
            problems.append(f"Server {server['name']!r} has databases {numbers}, expected each number from 0 once; correct it.")
        for database in server["databases"]:
            where = f"Database {database['number']} of server {server['name']!r}"
            problems += [f"{where} {fault}" for fault in _database_faults(database)]
    return problems


def _database_faults(database: Spec) -> t.Iterator[str]:
    if database["flush"] and not database["pure_cache"]:
        yield "is to be flushed, but is not declared as pure_cache: sessions, queues and locks would go too; remove flush."
    prefixes = [entry["prefix"] for entry in database["prefixes"]]
    if len(set(prefixes)) < len(prefixes):
        yield f"has prefixes {prefixes}, expected each once; remove the double."
    for entry in database["prefixes"]:
        shown, idle, least = entry["prefix"], entry["remove_idle_days"], entry["minimum_idle_days"]
        if not shown:
            yield "has an empty prefix, which means every key; name the beginning of the keys."
        if not math.isfinite(idle) or idle < 0 or least < 0 or (idle and not least <= idle <= redis_keys.MOST_IDLE_DAYS):
            yield (
                f"has remove_idle_days {idle:g} for prefix {shown!r}, expected 0 (never), or from minimum_idle_days ({least:g}) "
                f"to {redis_keys.MOST_IDLE_DAYS:g}, for Redis cannot count further; correct it."
            )


@dataclass
class Upkeep:
    """Review and upkeep of one server."""

    server: Spec
    params: dict[str, t.Any]
    check_mode: bool
    host: Host
    result: Result
    kept: dict[str, t.Any]

    def run(self) -> None:
        """Connect, review, remove; what fails is said and ends this server only."""
        name = self.server["name"]
        try:
            with Client(self.server) as client:
                self.result.find("redis.reachable", "ok", name, "answers")
                self._review(client)
                for database in self.server["databases"]:
                    self._database(client, database)
        except NotReachableError as error:
            state = "unknown" if error.kind in ("password", "loading") else "critical"
            self.result.findings = [finding for finding in self.result.findings if finding.id != "redis.reachable"]
            advice = "Nothing that needs it was looked at; correct the cause, run again."
            self.result.find("redis.reachable", state, name, str(error), advice=advice)
            self.result.failure = str(error)

    def _review(self, client: Client) -> None:
        name = self.server["name"]
        try:
            info = parse_info(client.call("INFO", "everything"))
        except CommandError as error:
            advice = "Give the user +info; without it nothing of the server is known."
            self.result.find("redis.memory", "unknown", name, str(error), advice=advice, not_covered="the whole review")
            self._info: dict[str, str] = {}
            return
        self._info = info
        seen = redis_review.Seen(
            name,
            info,
            self._settings(client),
            self._slow(client),
            self.host.now().timestamp(),
            open_access=not (self.server["password"] or self.server["password_file"]) and not self.server["host"].startswith("/"),
            pure_cache=bool(self.server["databases"]) and all(database["pure_cache"] for database in self.server["databases"]),
            before=self.kept.get(name, {}),
        )
        self.result.findings += redis_review.review(seen, self.server)
        self.result.metrics += redis_review.metrics(seen)
        self.kept[name] = {"server_run": info.get("run_id", ""), **{c: seen.number(c) for c in _COUNTERS if seen.number(c) is not None}}

    @staticmethod
    def _settings(client: Client) -> dict[str, str] | None:
        answers = client.pipeline([["CONFIG", "GET", name] for name in redis_review.settings_asked()])
        if any(isinstance(answer, CommandError) for answer in answers):
            return None
        return {answer[0].decode(): answer[1].decode("utf-8", "backslashreplace") for answer in answers if answer}

    @staticmethod
    def _slow(client: Client) -> list[list[t.Any]] | None:
        answer = client.pipeline([["SLOWLOG", "GET", _SLOW_ENTRIES]])[0]
        return None if isinstance(answer, CommandError) else answer

    # Keys

    def _database(self, client: Client, database: Spec) -> None:
        subject = f"{self.server['name']}/{database['number']}"
        try:
            client.select(database["number"])
            self._census(client, database, subject)
        except CommandError as error:
            advice = "Correct the number of the database, or give the user SCAN, PTTL, DBSIZE and SELECT."
            self.result.find("redis.keys_without_ttl", "unknown", subject, str(error), advice=advice)
            return
        if not self._may_write(database, subject):
            return
        for entry in database["prefixes"]:
            if entry["remove_idle_days"]:
                self._stale(client, entry, f"{subject} {entry['prefix']}")
        if database["flush"]:
            self._flush(client, subject)

    def _may_write(self, database: Spec, subject: str) -> bool:
        if not (database["flush"] or any(entry["remove_idle_days"] for entry in database["prefixes"])):
            return True
        why = ""
        if self._info.get("role") != "master":
            why = "this is a replica, or does not say what it is; name the primary"
        elif self._info.get("cluster_enabled") == "1":
            why = "this server is part of a cluster, of which it sees only its own keys"
        if why:
            self.result.find("redis.stale_keys", "unknown", subject, f"nothing was removed: {why}", advice="Correct the declaration.")
        return not why

    def _census(self, client: Client, database: Spec, subject: str) -> None:
        declared = {entry["prefix"]: entry for entry in database["prefixes"]}
        found = redis_keys.census(client, list(declared), self.params["sample_size"])
        basis = "exact" if found.whole else "sampled"
        not_covered = "" if found.whole else f"{found.total - found.seen} of {found.total} keys"
        self.result.metrics.append(Metric("redis.keys", subject, found.total, "count"))
        for prefix, entry in declared.items():
            count = found.scaled(found.without[prefix])
            self.result.metrics.append(Metric("redis.keys_without_ttl", f"{subject} {prefix}", count, "count"))
            bad = bool(count) and not entry["without_ttl_allowed"]
            words = f"{count} of {found.scaled(found.by_prefix[prefix])} keys have no time to live"
            self.result.find(
                "redis.keys_without_ttl", "warning" if bad else "ok", f"{subject} {prefix}", words, value=count, unit="count",
                threshold="any number" if entry["without_ttl_allowed"] else "warning from 1", basis=basis, not_covered=not_covered,
                advice="Let the application set one (EX), or declare remove_idle_days for this prefix." if bad else "",
            )  # fmt: skip
        others = found.scaled(sum(found.others.values()))
        ok = not others or database["pure_cache"]
        self.result.find(
            "redis.keys_without_ttl", "ok" if ok else "warning", f"{subject} (other prefixes)",
            f"{others} keys of no declared prefix have no time to live", value=others, unit="count", threshold="warning from 1",
            basis=basis, not_covered=not_covered, advice="" if ok else "Declare the prefixes that are meant to stay, and see about the rest.",
            evidence=[f"{name} {found.scaled(count)}" for name, count in sorted(found.others.items(), key=lambda pair: (-pair[1], pair[0]))[:10]],
        )  # fmt: skip

    def _stale(self, client: Client, entry: Spec, subject: str) -> None:
        idle_seconds = math.ceil(entry["remove_idle_days"] * DAY)
        with_ttl = entry["also_with_ttl"]
        due = gone = 0
        late = False
        why = ""
        try:
            for keys in redis_keys.stale(client, entry["prefix"], idle_seconds, with_ttl):
                if self.params["deadline"] and self.host.now().timestamp() >= self.params["deadline"]:
                    late = True
                    break
                due += len(keys)
                if not self.check_mode:
                    gone += redis_keys.remove(client, keys, idle_seconds, with_ttl)
        except CommandError as error:
            why = str(error)
        except NotReachableError:
            self._note_removed(subject, entry, due, gone)
            raise
        self._note_removed(subject, entry, due, gone)
        count = due if self.check_mode else gone
        words = f"{count} keys unused for {entry['remove_idle_days']:g} days {'due' if self.check_mode else 'removed'}"
        if late:
            self.result.actions.append(Action(subject, "remove_stale_keys", "deferred", "the window closed before all was looked at"))
        if why:
            advice = (
                "Under an LFU policy Redis does not know how long a key was idle; otherwise give the user OBJECT, TTL, EVAL and UNLINK."
            )
            self.result.find(
                "redis.stale_keys", "unknown", subject, f"{words}, then it was refused: {why}", value=gone, unit="count", advice=advice
            )
        else:
            state, advice = ("warning", "Give the window more time.") if late else ("ok", "")
            self.result.find("redis.stale_keys", state, subject, words, value=count, unit="count", advice=advice)

    def _note_removed(self, subject: str, entry: Spec, due: int, gone: int) -> None:
        count = due if self.check_mode else gone
        if count:
            words = f"{count} keys that begin with {entry['prefix']} were unused for {entry['remove_idle_days']:g} days"
            status = "due" if self.check_mode else "changed"
            self.result.actions.append(Action(subject, "remove_stale_keys", status, words, {"keys": count}, {"keys": 0}))
            self.result.removed += count

    def _flush(self, client: Client, subject: str) -> None:
        count = int(client.call("DBSIZE"))
        if self.params["deadline"] and self.host.now().timestamp() >= self.params["deadline"]:
            self.result.actions.append(Action(subject, "flush", "deferred", "the window is closed"))
            return
        if not count:
            self.result.find("redis.flush", "ok", subject, "the cache is empty already", value=0, unit="count")
            return
        try:
            if not self.check_mode:
                client.call("FLUSHDB", "ASYNC")
        except CommandError as error:
            self.result.find("redis.flush", "unknown", subject, str(error), advice="Give the user +flushdb, or remove flush.")
            return
        status = "due" if self.check_mode else "changed"
        words = f"{count} keys of a pure cache"
        self.result.find("redis.flush", "ok", subject, words, value=count, unit="count")
        self.result.actions.append(Action(subject, "flush", status, words, {"keys": count}, {"keys": 0}))
        self.result.removed += count
