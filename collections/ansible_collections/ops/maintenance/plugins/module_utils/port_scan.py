# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be reached from outside: nmap's report on addresses that the inventory declares as its own, and on no others."""

from __future__ import annotations

import ipaddress
import os
import re
import typing as t
from dataclasses import dataclass, field
from xml.etree import ElementTree

from .errors import InputError, MaintenanceError, out_of_range, refuse
from .host import Host
from .judge import many
from .record import Finding, Metric, Outcome, clean

OPTIONS: dict[str, t.Any] = {
    "addresses": {"type": "list", "elements": "str", "default": []},
    "authorised_by": {"type": "str", "default": ""},
    "expected": {"type": "list", "elements": "str", "default": []},
    "ports": {"type": "str", "default": "1-65535"},
    "udp_ports": {"type": "str", "default": ""},
    "detect_os": {"type": "bool", "default": False},
    "expected_os": {"type": "str", "default": "Linux"},
    "seconds": {"type": "float", "default": 600.0},
}
SUBJECT, OPERATION, FINDING_ID, OS_ID = "ports", "port_scan", "security.port_scan", "security.scanned_os"

_PORTS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")
_EXPECTED = re.compile(r"(tcp|udp)/\d{1,5}")
_AS_ROOT = "UDP and the detection of the system need root; set security_review_scan_become, or leave them out"


@dataclass
class Scanned:
    """What the report tells of one address.

    :param open: port, such as ``tcp/443``, to what nmap takes it for.
    :param silent: how many UDP ports gave no answer, which open ones may do as well.
    :param systems: what the operating system may be, the likeliest first.
    :param problem: why the address was not looked at as a whole.
    """

    open: dict[str, str] = field(default_factory=dict)
    silent: int = 0
    systems: list[str] = field(default_factory=list)
    problem: str = ""


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    wrong = [problem for address in params["addresses"] for problem in _address_problems(address)]
    if params["addresses"] and not params["authorised_by"].strip():
        wrong.append("authorised_by is empty, expected who allowed this scan, and when; a scan without leave can be an offence.")
    for option in ("ports", "udp_ports"):
        given = params[option]
        may_be_empty = option == "udp_ports" and not given
        if not may_be_empty and (not _PORTS.fullmatch(given) or any(int(port) > 65535 for port in re.findall(r"\d+", given))):
            wrong.append(str(InputError.of(option, given, "ports such as 1-1024,8080", "correct it")))
    if params["detect_os"] and not params["expected_os"].strip():
        wrong.append(
            "expected_os is empty, expected a word of the system's name such as Linux, for an unjudged listing is no check; give it."
        )
    wrong += [
        str(InputError.of("expected", text, "tcp/PORT or udp/PORT", "correct it"))
        for text in params["expected"]
        if not _EXPECTED.fullmatch(text) or int(text[4:]) > 65535
    ]
    return wrong + out_of_range(params, ("seconds",), least=1)


def _address_problems(text: str) -> list[str]:
    """A name may lead to a provider's machine, and a range to a neighbour's: only single addresses are scanned."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [str(InputError.of("addresses", text, "a single IP address of an own machine", "write the address, not a name or a range"))]
    if address.is_multicast or address.is_unspecified or "%" in text:
        return [str(InputError.of("addresses", text, "the address of one machine", "correct it"))]
    return []


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:  # noqa: ARG001 - it only looks
    """Scan the declared addresses and compare what is open with what is expected."""
    refuse(input_problems(params))
    scanned = {address: Scanned(problem="it was not scanned") for address in params["addresses"]}
    for version in (4, 6):
        addresses = [address for address in scanned if ipaddress.ip_address(address).version == version]
        if addresses:
            scanned.update(_scan(params, addresses, version, host))
    findings = [verdict(address, found, params) for address, found in scanned.items()]
    findings += [os_verdict(address, found, params) for address, found in scanned.items() if params["detect_os"]]
    if not findings:
        advice = "Declare the own addresses in security_review_scan_addresses."
        findings = [Finding(FINDING_ID, "unknown", SUBJECT, "no address was declared, so none was scanned", advice=advice)]
    bad = sum(finding.state != "ok" for finding in findings)
    metrics = [Metric("security.open_ports", address, len(found.open), "count") for address, found in scanned.items() if not found.problem]
    return Outcome(SUBJECT, OPERATION, "ok", f"{bad} of {len(findings)} findings need attention", findings=findings, metrics=metrics)


def _scan(params: t.Mapping[str, t.Any], addresses: t.Sequence[str], version: int, host: Host) -> dict[str, Scanned]:
    is_root, udp = os.geteuid() == 0, params["udp_ports"]
    ports = f"T:{params['ports']},U:{udp}" if udp else params["ports"]
    how = ["-sS" if is_root else "-sT", *(["-sU"] if udp else []), *(["-O"] if params["detect_os"] else [])]
    argv = ["nmap", "-oX", "-", "-n", "-Pn", *how, "-p", ports, *(["-6"] if version == 6 else []), *addresses]
    try:
        if not is_root and (udp or params["detect_os"]):
            raise MaintenanceError(_AS_ROOT)
        ran = host.run(argv, timeout=params["seconds"])
        if ran.rc != 0:
            raise MaintenanceError(ran.why())
        return parse(ran.stdout, addresses)
    except MaintenanceError as error:
        return {address: Scanned(problem=str(error)) for address in addresses}


def parse(text: str, addresses: t.Sequence[str]) -> dict[str, Scanned]:
    """Read nmap's report; an address that it does not tell of was not scanned.

    :raises MaintenanceError: it is not a whole report of nmap.
    """
    if "<!ENTITY" in text:
        raise MaintenanceError("nmap's report declares entities, which nmap never does; it was not read")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - see above
    except ElementTree.ParseError as error:
        raise MaintenanceError(f"nmap's report could not be read ({error})") from error
    finished = root.find("runstats/finished")
    if finished is None or finished.get("exit") != "success":
        raise MaintenanceError(
            f"nmap did not finish: {clean('' if finished is None else finished.get('errormsg', ''), 200) or 'no reason given'}"
        )
    found = {address: Scanned(problem="nmap does not tell of it") for address in addresses}
    for machine in root.findall("host"):
        for place in machine.findall("address"):
            name = next((address for address in addresses if _same(address, place.get("addr", ""))), "")
            if name:
                found[name] = _machine(machine)
    return found


def _same(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False


def _machine(machine: ElementTree.Element) -> Scanned:
    if machine.get("timedout") == "true":
        return Scanned(problem="it did not answer in time")
    scanned = Scanned()
    for port in machine.findall("ports/port"):
        state, service = port.find("state"), port.find("service")
        name = f"{port.get('protocol', '')}/{port.get('portid', '')}"
        if state is not None and state.get("state") == "open" and _EXPECTED.fullmatch(name):
            scanned.open[name] = clean("" if service is None else service.get("name", ""), 60)
    silent = [state for state in machine.findall("ports/port/state") if state.get("state") == "open|filtered"]
    groups = [group for group in machine.findall("ports/extraports") if group.get("state") == "open|filtered"]
    scanned.silent = len(silent) + sum(int(group.get("count", "0")) for group in groups if group.get("count", "").isdigit())
    scanned.systems = [
        f"{clean(match.get('name', ''), 100)} ({clean(match.get('accuracy', ''), 3)} percent)" for match in machine.findall("os/osmatch")
    ]
    return scanned


def verdict(address: str, scanned: Scanned, params: t.Mapping[str, t.Any]) -> Finding:
    """Judge one address; where nothing that is to be open is, the scan may have met another machine or a filter."""
    expected = set(params["expected"])
    surplus = sorted(set(scanned.open) - expected, key=_order)
    problem = scanned.problem
    if not problem and not surplus and expected and not expected & set(scanned.open):
        problem = "none of the expected ports answers, so this is another machine, or something between filters"
    state = "critical" if surplus else "unknown" if problem else "ok"
    summary = f"it is not known what can be reached: {problem}" if problem else f"{many(len(surplus), 'port')} open, not expected"
    advice = {
        "critical": "Close them, or declare them in security_review_scan_expected.",
        "unknown": "Scan from where an outsider is, the own address, with nmap and enough time.",
    }
    lines = [f"open, not expected: {port} ({scanned.open[port] or 'unknown service'})" for port in surplus]
    lines += [f"expected, not open: {port}" for port in sorted(expected - set(scanned.open), key=_order)] if not scanned.problem else []
    return Finding(
        FINDING_ID,
        state,
        address,
        summary,
        value=len(surplus),
        unit="count",
        threshold="critical from 1",
        not_covered=_not_covered(scanned, params),
        advice=advice.get(state, ""),
        evidence=[*lines[:19], f"allowed by {params['authorised_by']}"],
    )


def _order(port: str) -> tuple[str, int]:
    protocol, _slash, number = port.partition("/")
    return protocol, int(number)


def _not_covered(scanned: Scanned, params: t.Mapping[str, t.Any]) -> str:
    if not params["udp_ports"]:
        return f"UDP, ports beyond {params['ports']}"
    silent = f", {scanned.silent} UDP ports that gave no answer" if scanned.silent else ""
    return f"TCP ports beyond {params['ports']}, UDP ports beyond {params['udp_ports']}{silent}"


def os_verdict(address: str, scanned: Scanned, params: t.Mapping[str, t.Any]) -> Finding:
    """Judge what nmap takes the operating system for against the declared one."""
    wanted = params["expected_os"]
    best = scanned.systems[0] if scanned.systems else ""
    fits = wanted.casefold() in best.casefold()
    state = "unknown" if not best else "ok" if fits else "warning"
    why = scanned.problem or "nmap knows no system that answers so"
    return Finding(
        OS_ID,
        state,
        address,
        f"the system is not known: {why}" if not best else f"it looks like {best}" + ("" if fits else f", expected {wanted}"),
        threshold=f"warning unless it looks like {wanted}",
        basis="estimated",
        advice=""
        if state == "ok"
        else "Make sure that the address is the own machine, and scan it with an open and a closed port in reach.",
        evidence=scanned.systems[:5],
    )
