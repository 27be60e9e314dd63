# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What firewalls refused, by their logs: netfilter's lines of the kernel, or JSON lines of a provider. A source that is not there never passes."""

from __future__ import annotations

import math
import os
import re
import tempfile
import typing as t
from dataclasses import dataclass, field

from .errors import MaintenanceError
from .judge import many
from .log_lines import Clock, LineReader, find_files, json_record, strip_compression, zone_of
from .paths import read_state
from .record import Finding, clean
from .security_common import Review, address_of, filled, pattern_problems, shown, source_problems, unknown
from .security_login_patterns import unusual
from .security_login_sources import with_siblings

SOURCE: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "paths": {"type": "list", "elements": "str", "required": True},
    "timezone": {"type": "str", "default": "UTC"},
    "blocked_pattern": {"type": "str", "default": "(?i)block|drop|reject|den[yi]|challenge"},
    "action_fields": {"type": "list", "elements": "str", "default": ["action", "decision", "outcome", "event"]},
    "address_fields": {
        "type": "list",
        "elements": "str",
        "default": ["client_ip", "clientIp", "source_ip", "src_ip", "remote_addr", "remote_ip", "ip"],
    },
    "least_a_day": {"type": "float", "default": 100.0},
    "factor": {"type": "float", "default": 3.0},
}
OPTIONS: dict[str, t.Any] = {"firewall_logs": {"type": "list", "elements": "dict", "default": [], "options": SOURCE}}
IDS = ("security.firewall_log",)
STATE_FILE = "security_firewall_log.json"

_PACKET = re.compile(rb"\bIN=(\S*) OUT=(\S*)(?= ).*?\bSRC=(\S+)(?:.*?\bPROTO=(\S+))?(?:.*?\bDPT=(\d{1,5}))?")
_ADDRESSES = 5000
_PORTS = 200
_PERIODS = 60


@dataclass
class Refused:
    """What was refused in a period; memory is bounded by the number of addresses and ports that are told apart.

    :param by: packets or requests by address.
    :param ports: ports that each address tried.
    :param unjudged: records that do not say what the firewall did.
    :param outgoing: what this host itself tried and was refused, by address and port.
    """

    by: dict[str, int] = field(default_factory=dict)
    ports: dict[str, set[str]] = field(default_factory=dict)
    outgoing: dict[str, int] = field(default_factory=dict)
    records: int = 0
    undated: int = 0
    unjudged: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How much was refused."""
        return sum(self.by.values())

    def add(self, address: str, port: str) -> None:
        """Count one."""
        name = address if address in self.by or len(self.by) < _ADDRESSES else "(others)"
        self.by[name] = self.by.get(name, 0) + 1
        tried = self.ports.setdefault(name, set())
        if port and len(tried) < _PORTS:
            tried.add(port)


def read(source: t.Mapping[str, t.Any], since: float, until: float) -> Refused:
    """Count what was refused within a period, in the files of a source; a file and its compressed twin count once."""
    refused = Refused()
    found = find_files(with_siblings(source["paths"]), "firewall_logs.paths")
    refused.problems += [shown(problem) for problem in found.problems]
    plain = set(found.files)
    for path in found.files:
        changed = os.path.getmtime(path)
        if changed < since or (path != strip_compression(path) and strip_compression(path) in plain):
            continue
        clock, reader = Clock(changed, zone_of(source["timezone"], "firewall_logs.timezone")), LineReader(path)
        for raw in reader.lines():
            _take(source, raw, clock, (since, until), refused)
        if reader.problem:
            refused.problems.append(f"{shown(path)}: {reader.problem}")
    if not found.files:
        refused.problems.append(f"source not available: no file matches {', '.join(source['paths'])}")
    return refused


def _take(source: t.Mapping[str, t.Any], raw: bytes, clock: Clock, period: tuple[float, float], refused: Refused) -> None:
    packet = _PACKET.search(raw) if b"SRC=" in raw else None
    record = json_record(raw) if packet is None and raw[:1] == b"{" else None
    if packet is None and record is None:
        return
    moment = clock.of_plain(raw) if packet else clock.of_record(record or {})
    if moment is None:
        refused.undated += 1
    elif period[0] <= moment <= period[1]:
        refused.records += 1
        if packet:
            _packet(source, raw[: packet.start()], packet, refused)
        else:
            _request(source, record or {}, refused)


def _packet(source: t.Mapping[str, t.Any], prefix: bytes, packet: re.Match[bytes], refused: Refused) -> None:
    if not re.search(source["blocked_pattern"], prefix.decode("utf-8", "replace")):
        return
    arrived, _left, origin, protocol, port = (part.decode("utf-8", "replace") if part else "" for part in packet.groups())
    target = f"{protocol.lower()}/{port}" if port else protocol.lower()
    if arrived:
        refused.add(address_of(origin) or "(no address)", target)
    elif len(refused.outgoing) < _ADDRESSES:
        refused.outgoing[clean(target, 40)] = refused.outgoing.get(clean(target, 40), 0) + 1


def _request(source: t.Mapping[str, t.Any], record: t.Mapping[str, t.Any], refused: Refused) -> None:
    action = next((str(record[name]) for name in source["action_fields"] if isinstance(record.get(name), str)), None)
    if action is None:
        refused.unjudged += 1
    elif re.search(source["blocked_pattern"], action):
        given = next((str(record[name]) for name in source["address_fields"] if isinstance(record.get(name), str)), "")
        refused.add(address_of(given) or "(no address)", "")


def look(review: Review) -> list[Finding]:
    """Judge each source against its own earlier periods, and keep the numbers for the next run."""
    try:
        known = read_state(review.params["state_dir"], STATE_FILE)
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[0], "firewall", f"what earlier runs saw cannot be read: {error}", "Follow that advice.")]
    until, days = review.now.timestamp(), review.params["days"]
    findings, kept = [], dict(known)
    for source in review.params["firewall_logs"]:
        refused = read(source, until - days * 86400, until + 300)
        earlier = known.get(source["name"], [])
        findings.append(verdict(review, source, refused, earlier))
        if refused.records and not (refused.problems or refused.unjudged):
            kept[source["name"]] = [*earlier, {"until": until, "days": days, "total": refused.total}][-_PERIODS:]
    if not review.check_mode and kept != known:
        review.keep(STATE_FILE, kept)
    return findings


def verdict(review: Review, source: t.Mapping[str, t.Any], refused: Refused, known: t.Sequence[t.Mapping[str, t.Any]]) -> Finding:
    """Judge one source."""
    days = review.params["days"]
    since = review.now.timestamp() - days * 86400
    periods = [period["total"] / period["days"] for period in known if period["until"] <= since + 3600]
    said = unusual(refused.total / days, periods, source["factor"], source["least_a_day"])
    odd = [f"refused: {said}"] if said else []
    odd += [f"this host itself was refused {target}, {many(count, 'time')}" for target, count in refused.outgoing.items()]
    gaps = [*refused.problems]
    gaps += [f"{refused.undated} lines without a readable time"] if refused.undated else []
    gaps += [f"{many(refused.unjudged, 'record')} without any of action_fields"] if refused.unjudged else []
    gaps += [] if refused.records or refused.problems else ["not one packet or request was logged, so it may log nothing"]
    gaps += [] if periods else ["no earlier period to compare with"]
    blind = not refused.records or bool(refused.problems or refused.undated or refused.unjudged)
    if not blind:
        review.count(IDS[0], source["name"], refused.total)
    state = "warning" if odd else "unknown" if blind else "ok"
    advice = {"ok": "", "unknown": "Make the firewall log what it refuses, and export the log of a provider to where it is declared."}
    busiest = sorted(refused.by.items(), key=lambda pair: (-pair[1], pair[0]))[:15]
    lines = [f"{name}: {count} refused" + (f", {len(ports)} ports" if (ports := refused.ports[name]) else "") for name, count in busiest]
    return Finding(
        IDS[0],
        state,
        source["name"],
        f"{refused.total} refused from {many(len(refused.by), 'address', 'addresses')}, {many(len(odd), 'oddity', 'oddities')}"
        if refused.records
        else f"it is not known what was refused: {gaps[0]}",
        value=refused.total,
        unit="count",
        threshold=f"warning above {source['factor']:g} times the median of earlier periods from {source['least_a_day']:g} a day, "
        "and from the first that this host itself was refused",
        not_covered="; ".join(gaps),
        advice=advice.get(state, "Find out what changed; where it is the host itself, which process asks for that."),
        evidence=[*odd[:5], *lines],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    sources = params["firewall_logs"]
    wrong = [*source_problems("firewall_logs", sources, (("least_a_day", 0, math.inf), ("factor", 1, math.inf)))]
    for source in sources:
        wrong += pattern_problems(f"blocked_pattern of firewall_logs, {source['name']},", source["blocked_pattern"])
    return wrong


def passes_bad_sample(review: Review) -> str:
    """Plant a host that is refused what it asks for itself; return the sample when it counts as usual."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "kern.log")
        with open(path, "w", encoding="utf-8") as sample:
            sample.write(
                f"{review.now.isoformat()} h kernel: [UFW BLOCK] IN= OUT=eth0 SRC=192.0.2.1 DST=192.0.2.2 PROTO=TCP SPT=1 DPT=25 \n"
            )
        source, now = filled(SOURCE, {"name": "planted", "paths": [path]}), review.now.timestamp()
        silent = Review({**review.params, "days": 1}, review.host, True, review.now)
        found = verdict(silent, source, read(source, now - 86400, now + 300), [])
        return "a host that is refused what it asks for itself as usual" if found.state != "warning" else ""
