# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's firewall: whether it refuses what nobody allowed, lets in what is declared, is as accepted, and comes back at boot."""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
import typing as t

from .errors import MaintenanceError
from .judge import many
from .record import Finding
from .security_common import Review, read_small, shown, unknown
from .security_drift import Question, compared
from .security_firewall_rules import Opening, Ruleset, native_tables, nft_told, read_iptables, read_nft

OPTIONS: dict[str, t.Any] = {
    "firewall": {"type": "str", "choices": ["ignore", "review", "required"], "default": "ignore"},
    "firewall_rules": {"type": "list", "elements": "str"},
    "firewall_ignore": {"type": "list", "elements": "str", "default": ["*f2b*"]},
}
IDS = ("security.firewall", "security.firewall_rules", "security.firewall_drift", "security.firewall_boot")

_RULE = re.compile(r"allow (?P<protocol>tcp|udp|any)/(?P<port>\d{1,5}(?:-\d{1,5})?|any)(?: from (?P<source>\S+))?")
_SERVICES = ("nftables", "ufw", "firewalld", "netfilter-persistent", "iptables", "shorewall", "ferm")
_TABLES = {"ip": ("iptables", "/proc/net/ip_tables_names"), "ip6": ("ip6tables", "/proc/net/ip6_tables_names")}
_IPV6 = "/proc/net/if_inet6"
_SUBJECT = "firewall"


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return which declared rules cannot be understood, one sentence each."""
    return [
        f"firewall_rules holds {text!r}, expected allow tcp/PORT, or allow tcp/PORT from ADDRESS/LENGTH; correct it."
        for text in params["firewall_rules"] or ()
        if _opening(text) is None
    ]


def _opening(text: str) -> Opening | None:
    match = _RULE.fullmatch(text.strip())
    if not match:
        return None
    try:
        source = _source(match["source"] or "any")
    except ValueError:
        return None
    return Opening(match["protocol"], match["port"], source)


def _source(text: str) -> str:
    """Return a source in one form; every address is ``any``.

    :raises ValueError: it is not a network.
    """
    if text == "any":
        return text
    network = ipaddress.ip_network(text, strict=False)
    if network.prefixlen == 0:
        return "any"
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def look(review: Review) -> list[Finding]:
    """Read the rules once, with every tool that is there, and judge them."""
    rules = Ruleset()
    try:
        has_tool = collect(review, rules)
    except MaintenanceError as error:
        return [unknown(IDS[0], _SUBJECT, f"its rules could not be read: {error}", "Run with become: true, or repair the tool.")]
    if not has_tool:
        advice = "Install nftables (or what this host uses), or say firewall: ignore where another device does it."
        return [unknown(IDS[0], _SUBJECT, "its rules are not known: there is no nft and no iptables-save on this host", advice)]
    findings = [closed(rules, review.params["firewall"], _families())]
    if review.params["firewall_rules"] is not None:
        findings.append(as_declared(rules, review.params["firewall_rules"]))
    findings.append(_drift(review, rules))
    if not rules.is_empty:
        findings.append(_boot(review))
    return findings


def collect(review: Review, rules: Ruleset) -> bool:
    """Ask every tool that is there; return whether there is one.

    :raises MaintenanceError: a tool does not answer.
    """
    has_nft, has_iptables = review.host.which("nft") is not None, review.host.which("iptables-save") is not None
    told = nft_told(_ask(review, "nft", "-j", "list", "ruleset")) if has_nft else []
    elsewhere: set[str] = set()
    for family, (tool, names) in _TABLES.items():
        if has_iptables and review.host.which(f"{tool}-save"):
            elsewhere |= _iptables(review, family, tool, names, rules, native_tables(told))
    is_mixed = has_nft and read_nft(told, _ask(review, "nft", "-s", "list", "ruleset"), rules, elsewhere)
    if is_mixed or (not has_iptables and any(_holds(names) for _tool, names in _TABLES.values())):
        rules.gaps.append("rules of iptables: there is no iptables-save that tells them in full")
    rules.notes += _of_ufw(review)
    return has_nft or has_iptables


def _of_ufw(review: Review) -> list[str]:
    """Say whether ufw is active; what it lets in is told by iptables-save, and so is what others let in beside it."""
    if review.host.which("ufw") is None:
        return []
    try:
        is_active = re.search(r"^Status: active", _ask(review, "ufw", "status"), re.M)
    except MaintenanceError as error:
        return [f"whether ufw is active is not known: {error}"]
    return [] if is_active else ["ufw is installed and not active"]


def _iptables(review: Review, family: str, tool: str, names: str, rules: Ruleset, native: t.Collection[str]) -> set[str]:
    """Ask for the rules of one family; those of iptables-legacy lie beside the ones that nft knows, and both count."""
    text = _ask(review, f"{tool}-save")
    if "(nf_tables)" not in text.partition("\n")[0] and text.strip():
        read_iptables(text, family, rules, f"{tool}-legacy")
        newer = f"{tool}-nft-save"
        return read_iptables(_ask(review, newer), family, rules, tool, native) if review.host.which(newer) else set()
    told = read_iptables(text, family, rules, tool, native)
    if _holds(names):
        if review.host.which(f"{tool}-legacy-save"):
            read_iptables(_ask(review, f"{tool}-legacy-save"), family, rules, f"{tool}-legacy")
        else:
            rules.gaps.append(f"rules of {tool}-legacy: there is no {tool}-legacy-save to read them with")
    return told


def _ask(review: Review, *argv: str) -> str:
    ran = review.host.run(argv)
    if ran.rc != 0:
        raise MaintenanceError(ran.why())
    return ran.stdout


def _holds(names: str) -> bool:
    """Say whether the kernel has tables of the old kind."""
    try:
        return bool(read_small(names).strip())
    except (OSError, MaintenanceError):
        return False


def _families() -> tuple[str, ...]:
    return ("IPv4", "IPv6") if os.path.exists(_IPV6) else ("IPv4",)


def closed(rules: Ruleset, wish: str, families: t.Sequence[str] = ("IPv4", "IPv6")) -> Finding:
    """Judge what happens to packets that no rule expects."""
    open_for = [family for family in families if not rules.closed.get(family)]
    if not open_for:
        state, summary = "ok", f"what no rule expects is refused, over {' and '.join(families)}"
    elif rules.gaps:
        state, summary = "unknown", f"it could not be told what happens to unexpected packets over {' and '.join(open_for)}"
    else:
        state = "critical" if wish == "required" else "warning"
        summary = "there is no firewall" if rules.is_empty else f"what no rule expects is let in over {' and '.join(open_for)}"
    if open_for and rules.notes:
        summary += f" ({'; '.join(rules.notes)})"
    advice = {"unknown": "Install the tool that is named, then look again."}
    return Finding(
        IDS[0],
        state,
        _SUBJECT,
        summary,
        threshold=f"{'critical' if wish == 'required' else 'warning'} when unexpected packets are let in",
        not_covered="; ".join([*rules.gaps, "what containers and other devices on the way do, DHCP, mDNS and UPnP as ufw lets them in"]),
        advice="" if state == "ok" else advice.get(state, "Refuse by default (policy drop on input, IPv6 too), after allowing ssh."),
        evidence=[*rules.notes]
        + [f"let in: {shown(str(opening))}" for opening in sorted(rules.openings)]
        + [f"published by Docker past these rules: {port}" for port in sorted(rules.published)],
    )


def as_declared(rules: Ruleset, declared: t.Sequence[str]) -> Finding:
    """Compare what is let in with the whole declared list, both ways."""
    found = {_normal(opening) for opening in rules.openings}
    for protocol, _unused, port in (published.partition("/") for published in rules.published):
        found.add(Opening(protocol, port, "any"))
    wanted = {one for opening in map(_opening, declared) if opening for one in _meant(opening, found)}
    lines = [f"declared, but not let in: {opening}" for opening in sorted(wanted - found)]
    lines += [f"let in, but not declared: {shown(str(opening))}" for opening in sorted(found - wanted)]
    return Finding(
        IDS[1],
        "warning" if lines else "unknown" if rules.gaps else "ok",
        _SUBJECT,
        f"{many(len(lines), 'difference')} between what is let in and the {many(len(declared), 'declared rule')}",
        value=len(lines),
        unit="count",
        threshold="warning from 1",
        not_covered="; ".join([*rules.gaps, "conditions beside protocol, port and source"]),
        advice="Correct the firewall (ssh from the control node first), or the declaration." if lines or rules.gaps else "",
        evidence=lines,
    )


def _meant(wanted: Opening, found: t.Container[Opening]) -> list[Opening]:
    """Return what a declared rule stands for: ``any/53`` is kept as one rule by nft, and as one for TCP and one for UDP by ufw."""
    if wanted.protocol != "any" or wanted.port == "any" or wanted in found:
        return [wanted]
    return [wanted._replace(protocol=protocol) for protocol in ("tcp", "udp")]


def _normal(opening: Opening) -> Opening:
    try:
        return opening._replace(source=_source(opening.source))
    except ValueError:
        return opening


def _drift(review: Review, rules: Ruleset) -> Finding:
    def is_ignored(chain: str) -> bool:
        return any(fnmatch.fnmatchcase(chain, pattern) for pattern in review.params["firewall_ignore"])

    question = Question(IDS[2], "security_firewall.json", "rule", "rules", lambda _change: "warning")
    return compared(review, question, _SUBJECT, rules.entries(is_ignored), rules.gaps)


def _boot(review: Review) -> Finding:
    try:
        ran = review.host.run(["systemctl", "show", "--property=Id,UnitFileState", *(f"{name}.service" for name in _SERVICES)])
    except MaintenanceError as error:
        return unknown(IDS[3], _SUBJECT, f"whether the rules come back at boot is not known: {error}", "Look by hand.")
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in ran.stdout.split("\n\n")]
    if ran.rc != 0 or not any("UnitFileState" in block for block in blocks):
        return unknown(IDS[3], _SUBJECT, f"whether the rules come back at boot is not known: {ran.why()}", "Look by hand.")
    enabled = sorted(block["Id"] for block in blocks if block.get("UnitFileState", "").startswith("enabled"))
    if "ufw.service" in enabled and not _ufw_starts(review.etc):
        enabled.remove("ufw.service")
    return Finding(
        IDS[3],
        "ok" if enabled else "warning",
        _SUBJECT,
        f"the rules are loaded at boot by {', '.join(enabled)}" if enabled else "rules are loaded, but no service loads them at boot",
        threshold="warning when no known service is enabled",
        not_covered="whether that service loads the same rules",
        advice="" if enabled else "Save the rules and enable the service that loads them (systemctl enable nftables).",
    )


def _ufw_starts(etc: str) -> bool:
    """Say whether ufw loads anything at boot: its service is enabled as soon as it is installed, whatever it is told to do."""
    try:
        return re.search(rb"^ENABLED=[\"']?yes\b", read_small(os.path.join(etc, "ufw", "ufw.conf")), re.M | re.I) is not None
    except (OSError, MaintenanceError):
        return False


def passes_bad_sample(_review: Review) -> str:
    """Plant a firewall that lets everything in over IPv6; return it when it counts as closed."""
    sample = Ruleset()
    read_iptables("*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n", "ip", sample)
    read_iptables("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "ip6", sample)
    if closed(sample, "required").state != "critical":
        return "a firewall that is open over IPv6 as closed"
    return "an undeclared rule as declared" if as_declared(sample, []).state != "warning" else ""
