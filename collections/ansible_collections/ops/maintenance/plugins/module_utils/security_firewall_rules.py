# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what nft, iptables and ufw tell: what happens to unexpected packets, what is let in, and every rule on a line."""

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
    """

    closed: dict[str, bool] = field(default_factory=dict)
    openings: set[Opening] = field(default_factory=set)
    lines: dict[str, list[str]] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)
    gaps: list[str] = field(default_factory=list)

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


def read_nft(text: str, plain: str, rules: Ruleset) -> bool:
    """Read ``nft -j list ruleset`` and its plain form; return whether some rules are of iptables and so not told in full.

    :raises MaintenanceError: it is not what nft prints.
    """
    try:
        told = json.loads(text)["nftables"]
        chains: dict[str, list[Step]] = {}
        bases = []
        for item in told:
            if "chain" in item:
                chain = item["chain"]
                key = f"{chain['family']} {chain['table']} {chain['name']}"
                chains.setdefault(key, [])
                if chain.get("hook") == "input" and chain.get("type") == "filter" and chain["family"] in FAMILIES:
                    bases.append((FAMILIES[chain["family"]], chain.get("policy", "accept"), key))
            elif "rule" in item:
                rule = item["rule"]
                table = f"{rule['family']} {rule['table']}"
                chains.setdefault(f"{table} {rule['chain']}", []).append(_nft_step(rule.get("expr", []), table))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MaintenanceError(f"nft said something unexpected ({type(error).__name__} at {error})") from error
    for families, policy, key in bases:
        rules.add_input(families, policy, key, chains)
    rules.lines.update(_nft_lines(plain))
    return '"xt":' in text


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


def read_iptables(text: str, family: str, rules: Ruleset) -> None:
    """Read ``iptables-save`` (``ip``) or ``ip6tables-save`` (``ip6``)."""
    table, policy = "", ""
    chains: dict[str, list[Step]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":INPUT ") and table == "filter":
            policy = line.split()[1].lower()
        elif line.startswith("-A "):
            words = _split(line)
            rules.lines.setdefault(f"{family} {table} {words[1]} (iptables)", []).append(" ".join(words[2:]))
            if table == "filter":
                chains.setdefault(words[1], []).append(_iptables_step(words[2:]))
            elif table == "nat" and "DNAT" in words and words[1] == "DOCKER":
                step = _iptables_step(words[2:])
                rules.published |= {f"{protocol}/{port}" for protocol in step.protocols for port in step.ports}
    if policy or "INPUT" in chains:
        rules.add_input(FAMILIES[family], policy, "INPUT", chains)


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


_UFW = re.compile(r"^(?P<to>\S.*?)\s{2,}(?P<action>ALLOW|LIMIT|DENY|REJECT)(?: IN)?\s{2,}(?P<source>\S.*?)\s*(?:#.*)?$")


def read_ufw(text: str, rules: Ruleset) -> bool:
    """Read ``ufw status verbose``; return whether it is active."""
    if not re.search(r"^Status: active", text, re.M):
        return False
    default = re.search(r"^Default: (\w+) \(incoming\)", text, re.M)
    is_closed = default is not None and default[1] in ("deny", "reject")
    rules.closed = dict.fromkeys(("IPv4", "IPv6"), is_closed)
    rules.openings = set()  # its own chains are not followed: it says itself what it lets in
    for line in text.splitlines():
        match = _UFW.match(line)
        if match and match["action"] in ("ALLOW", "LIMIT"):
            ports, _unused, protocol = match["to"].replace(" (v6)", "").split(" on ")[0].partition("/")
            source = match["source"].replace(" (v6)", "").replace("Anywhere", "any").split("/tcp")[0].split("/udp")[0]
            wanted = ports.replace(":", "-").split(",") if ports != "Anywhere" else ["any"]
            rules.openings |= {Opening(protocol or "any", port, source) for port in wanted}
    return True
