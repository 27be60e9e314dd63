# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what nft and iptables tell: what happens to unexpected packets, what is let in, and every rule on a line."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import typing as t
from dataclasses import dataclass, field, replace

from .errors import MaintenanceError

FAMILIES = {"ip": ("IPv4",), "ip6": ("IPv6",), "inet": ("IPv4", "IPv6")}
_CLOSED = ("drop", "reject")
_DEPTH = 8
_OF_UFW = re.compile(
    r"-A ufw6?-before-input .*(?:--sport 67 --dport 68|--sport 547 --dport 546"
    r"|-d (?:224\.0\.0\.251/32|ff02::fb/128) .*--dport 5353|-d (?:239\.255\.255\.250/32|ff02::f/128) .*--dport 1900) -j ACCEPT"
)
"""What ufw lets in by itself: DHCP, and what mDNS and UPnP send to everybody in the network."""
_INCOMPATIBLE = re.compile(r"^# Table `(\w+)' .*incompatible", re.M)


class Opening(t.NamedTuple):
    """Packets that are let in: ``any`` stands for every protocol, port or source."""

    protocol: str
    port: str
    source: str

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port} from {self.source}"


@dataclass
class Step:
    """One rule of a chain, as far as it matters for what comes in."""

    verdict: str = ""
    target: str = ""
    protocols: t.Sequence[str] = ("any",)
    ports: t.Sequence[str] = ("any",)
    sources: t.Sequence[str] = ("any",)
    is_harmless: bool = False
    is_bare: bool = True


@dataclass
class Ruleset:
    """What was read, from all tools together.

    :param closed: address family to whether unexpected packets are refused there.
    :param lines: chain to its rules in order, for the comparison with the baseline.
    :param published: ports that Docker leads past the rules for input.
    :param notes: what else is worth telling.
    """

    closed: dict[str, bool] = field(default_factory=dict)
    openings: set[Opening] = field(default_factory=set)
    lines: dict[str, list[str]] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_input(self, families: t.Iterable[str], policy: str, chain: str, chains: t.Mapping[str, list[Step]]) -> None:
        """Follow a chain that sees what comes in."""
        steps = list(_followed(chain, chains, _DEPTH))
        last = chains.get(chain, [])[-1:]
        is_closed = policy in _CLOSED or any(step.verdict in _CLOSED and step.is_bare for step in last)
        is_closed &= not any(step.verdict == "accept" and step.is_bare and not step.is_harmless for step in steps)
        for family in families:
            self.closed[family] = self.closed.get(family, False) or is_closed
        for step in steps:
            if step.verdict == "accept" and not step.is_harmless and not (step.is_bare and not is_closed):
                self.openings |= {Opening(p, port, s) for p in step.protocols for port in step.ports for s in step.sources}

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is refused or let in by a rule."""
        return not any(line != "policy ACCEPT" for lines in self.lines.values() for line in lines)

    def entries(self, is_ignored: t.Callable[[str], bool]) -> dict[str, str]:
        """Return each rule by name, and the order of each chain, for the comparison with the baseline."""
        found = {}
        for chain, lines in self.lines.items():
            if not is_ignored(chain):
                found.update({f"{chain}: {line}": "present" for line in lines})
                found[f"{chain} (order)"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
        return found


def _followed(chain: str, chains: t.Mapping[str, list[Step]], depth: int) -> t.Iterator[Step]:
    for step in chains.get(chain, []):
        yield step
        if step.target and depth and not step.is_harmless:
            yield from (_narrowed(step, inner) for inner in _followed(step.target, chains, depth - 1))


def _narrowed(outer: Step, inner: Step) -> Step:
    """Return a rule as it applies to what came by a jump."""

    def both(one: t.Sequence[str], other: t.Sequence[str]) -> t.Sequence[str]:
        return other if tuple(one) == ("any",) else one

    return replace(
        inner,
        target="",
        protocols=both(outer.protocols, inner.protocols),
        ports=both(outer.ports, inner.ports),
        sources=both(outer.sources, inner.sources),
        is_bare=outer.is_bare and inner.is_bare,
    )


Told = t.Sequence[t.Mapping[str, t.Any]]
_NATIVE = re.compile(r'"set":|"@|"vmap":')
"""What no iptables makes: iptables-save leaves it out of a rule, so that the rule looks like another."""


def nft_told(text: str) -> Told:
    """Return what ``nft -j list ruleset`` printed, thing by thing.

    :raises MaintenanceError: it is not what nft prints.
    """
    try:
        return [item for item in json.loads(text)["nftables"] if next(iter(item.items()))]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise _unexpected(error) from error


def _unexpected(error: Exception) -> MaintenanceError:
    return MaintenanceError(f"nft said something unexpected ({type(error).__name__} at {error})")


def native_tables(told: Told) -> set[str]:
    """Return the tables with rules that iptables cannot tell."""
    rules = [item["rule"] for item in told if isinstance(item.get("rule"), dict)]
    return {f"{rule.get('family')} {rule.get('table')}" for rule in rules if _NATIVE.search(json.dumps(rule.get("expr")))}


def read_nft(told: Told, plain: str, rules: Ruleset, elsewhere: t.Container[str] = ()) -> bool:
    """Read what nft told, and its plain form; return whether some rules are of iptables and so not told in full.

    :param elsewhere: tables that iptables-save has told, and in full.
    :raises MaintenanceError: it is not what nft prints.
    """
    is_mixed = False
    chains: dict[str, list[Step]] = {}
    bases = []
    try:
        for item in told:
            (kind, one) = next(iter(item.items()))
            if kind not in ("chain", "rule") or f"{one['family']} {one['table']}" in elsewhere:
                continue
            is_mixed |= '"xt":' in json.dumps(one)
            table = f"{one['family']} {one['table']}"
            if kind == "rule":
                chains.setdefault(f"{table} {one['chain']}", []).append(_nft_step(one.get("expr", []), table))
                continue
            chains.setdefault(f"{table} {one['name']}", [])
            if one.get("hook") == "input" and one.get("type") == "filter" and one["family"] in FAMILIES:
                bases.append((FAMILIES[one["family"]], one.get("policy", "accept"), f"{table} {one['name']}"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unexpected(error) from error
    for families, policy, key in bases:
        rules.add_input(families, policy, key, chains)
    rules.lines.update({block: lines for block, lines in _nft_lines(plain).items() if " ".join(block.split()[:2]) not in elsewhere})
    return is_mixed


def _nft_step(expressions: t.Sequence[t.Mapping[str, t.Any]], table: str) -> Step:
    step = Step()
    for expression in expressions:
        for name, value in expression.items():
            if name in ("accept", "drop", "reject"):
                step.verdict = name
            elif name in ("jump", "goto"):
                step.target = f"{table} {value['target']}"
            elif name == "match":
                step.is_bare = False
                _nft_match(step, value)
            elif name == "xt":
                step.is_bare, step.is_harmless = False, True  # told by iptables-save
            elif name not in ("counter", "log", "comment", "meter", "limit"):
                step.is_bare = False
    return step


def _nft_match(step: Step, match: t.Mapping[str, t.Any]) -> None:
    left, values = match["left"], _nft_values(match["right"])
    payload, meta = left.get("payload", {}), left.get("meta", {}).get("key", "")
    is_field = match["op"] in ("==", "in") and isinstance(payload, dict)
    if is_field and payload.get("field") == "dport":
        step.ports = values
        if payload["protocol"] != "th":
            step.protocols = (payload["protocol"],)
    elif is_field and payload.get("field") == "saddr":
        step.sources = values
    elif is_field and (payload.get("protocol") in ("icmp", "icmpv6") or payload.get("field") in ("protocol", "nexthdr")):
        step.protocols = values if payload.get("field") in ("protocol", "nexthdr") else ("icmp",)
    elif meta == "l4proto":
        step.protocols = values
    elif meta in ("iif", "iifname") and match["op"] == "==" and values == ["lo"]:
        step.is_harmless = True
    if "ct" in left and left["ct"].get("key") == "state" and "new" not in values:
        step.is_harmless = True
    step.is_harmless |= set(step.protocols) <= {"icmp", "icmpv6", "ipv6-icmp"}


def _nft_values(right: t.Any) -> list[str]:
    if isinstance(right, list):
        return [value for one in right for value in _nft_values(one)]
    if isinstance(right, dict):
        if "set" in right:
            return _nft_values(right["set"])
        if "prefix" in right:
            return [f"{right['prefix']['addr']}/{right['prefix']['len']}"]
        if "range" in right:
            return ["-".join(str(end) for end in right["range"])]
        return [json.dumps(right, sort_keys=True)]
    return [str(right)]


def _nft_lines(plain: str) -> dict[str, list[str]]:
    table, block = "", ""
    found: dict[str, list[str]] = {}
    for line in plain.splitlines():
        text = line.strip()
        if text.startswith("table ") and text.endswith("{"):
            table = text[6:-1].strip()
        elif table and not block and text.endswith("{"):
            block = f"{table} {text[:-1].split(maxsplit=1)[1].strip()}"
            found[block] = []
        elif text == "}":
            table, block = (table, "") if block else ("", "")
        elif block and text:
            found[block].append(text)
    return found


def read_iptables(text: str, family: str, rules: Ruleset, told_by: str = "iptables", untold: t.Iterable[str] = ()) -> set[str]:
    """Read ``iptables-save`` (``ip``) or ``ip6tables-save`` (``ip6``); return the tables that it told.

    :param untold: tables that it cannot tell in full, and that are not read here.
    """
    table, policy = "", ""
    left_out = {*untold, *(f"{family} {name}" for name in _INCOMPATIBLE.findall(text))}
    tables: set[str] = set()
    chains: dict[str, list[Step]] = {}
    for line in text.splitlines():
        words = _split(line)
        if line.startswith("*"):
            table = line[1:].strip()
            tables |= {f"{family} {table}"} - left_out
        elif f"{family} {table}" in left_out:
            continue
        elif line.startswith(":") and len(words) > 1 and words[1] != "-":
            rules.lines.setdefault(f"{family} {table} {words[0][1:]} ({told_by})", []).append(f"policy {words[1]}")
            if words[0] == ":INPUT" and table == "filter":
                policy = words[1].lower()
        elif line.startswith("-A ") and len(words) > 1:
            rules.lines.setdefault(f"{family} {table} {words[1]} ({told_by})", []).append(" ".join(words[2:]))
            if table == "filter":
                step = _iptables_step(words[2:])
                step.is_harmless |= _OF_UFW.match(line) is not None
                chains.setdefault(words[1], []).append(step)
            elif table == "nat" and "DNAT" in words and words[1] == "DOCKER":
                step = _iptables_step(words[2:])
                rules.published |= {f"{protocol}/{port}" for protocol in step.protocols for port in step.ports}
    if policy or "INPUT" in chains:
        rules.add_input(FAMILIES[family], policy, "INPUT", chains)
    return tables


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _iptables_step(words: t.Sequence[str]) -> Step:
    step = Step()
    for index, (word, value) in enumerate(zip(words, [*words[1:], ""])):
        is_negated = index > 0 and words[index - 1] == "!"
        if word in ("-j", "-g"):
            step.verdict = value.lower() if value in ("ACCEPT", "DROP", "REJECT") else ""
            step.target = "" if step.verdict else value
        elif word == "-p":
            step.protocols = (value,)
        elif word in ("--dport", "--dports"):
            step.ports = value.replace(":", "-").split(",")
        elif word == "-s" and not is_negated:
            step.sources = value.split(",")
        elif (word == "-i" and value == "lo" and not is_negated) or (word in ("--state", "--ctstate") and "NEW" not in value.split(",")):
            step.is_harmless = True
        if word in ("-p", "-s", "-d", "-i", "-m"):
            step.is_bare = False
    step.is_harmless |= set(step.protocols) <= {"icmp", "icmpv6", "ipv6-icmp"}
    step.sources = tuple(source.removesuffix("/32").removesuffix("/128") for source in step.sources)
    return step
