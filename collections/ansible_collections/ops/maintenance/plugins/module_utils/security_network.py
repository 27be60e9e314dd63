# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host offers to the network: sshd's effective options and the ports that listen."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import typing as t

from .errors import MaintenanceError
from .judge import many
from .record import Finding, clean
from .security_common import Review, unknown, why_unread

OPTIONS: dict[str, t.Any] = {
    "sshd": {"type": "dict", "default": {}},
    "listening": {"type": "list", "elements": "str"},
}
SSHD_IDS = ("security.sshd",)
LISTENING_IDS = ("security.listening",)

_TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
_LISTENS = {"tcp": "0A", "udp": "07"}
_DECLARED = re.compile(r"(?P<protocol>tcp|udp)/(?:(?P<address>.+):)?(?P<port>\d{1,5})$")
_SAME = {"prohibit-password": "without-password", "true": "yes", "false": "no"}


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return which declared ports cannot be understood, one sentence each."""
    return [
        f"listening holds {text!r}, expected tcp/PORT, udp/PORT or tcp/ADDRESS:PORT; correct it."
        for text in params["listening"] or ()
        if not _DECLARED.match(text) or int(text.rpartition("/")[2].rpartition(":")[2]) > 65535
    ]


def parse_sshd(text: str) -> dict[str, list[str]]:
    """Read what ``sshd -T`` prints: option to its values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _unused, value = line.strip().partition(" ")
        if name:
            found.setdefault(name.lower(), []).append(value.strip())
    return found


def as_sshd(value: object) -> str:
    """Return an expected value as ``sshd -T`` writes it; YAML reads a bare yes as true."""
    text = str(value).strip().lower()
    return _SAME.get(text, text)


def sshd_deviations(policy: t.Mapping[str, t.Any], effective: t.Mapping[str, t.Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return which options are not as declared, and which sshd does not have."""
    wrong, absent = [], []
    for name, value in policy.items():
        allowed = [as_sshd(one) for one in (value if isinstance(value, list) else [value])]
        values = effective.get(name.lower())
        if values is None:
            absent.append(name)
        elif not all(as_sshd(one) in allowed for one in values):
            wrong.append(f"{name} is {clean(', '.join(values), 100)}, declared is {' or '.join(allowed)}")
    return wrong, absent


def look_sshd(review: Review) -> list[Finding]:
    """Compare the options that sshd really uses with the declared ones."""
    try:
        ran = review.host.run(["sshd", "-T"])
    except MaintenanceError as error:
        return [unknown(SSHD_IDS[0], "sshd", f"its options are not known: {error}", "Install sshd, or declare no options for it.")]
    if ran.rc != 0 or not ran.stdout.strip():
        return [
            unknown(SSHD_IDS[0], "sshd", f"its options are not known: {ran.why()}", "Run with become: true, or repair its configuration.")
        ]
    policy = review.params["sshd"]
    wrong, absent = sshd_deviations(policy, parse_sshd(ran.stdout))
    state = "warning" if wrong else "unknown" if absent else "ok"
    advice = {"warning": "Correct sshd's configuration and reload it.", "unknown": "Correct the names of the declared options."}
    return [
        Finding(
            SSHD_IDS[0],
            state,
            "sshd",
            f"{len(wrong)} of {many(len(policy), 'declared option')} not as declared",
            value=len(wrong),
            unit="count",
            threshold="warning from 1",
            not_covered="; ".join(["Match blocks", *(f"sshd has no option {name}" for name in absent)]),
            advice=advice.get(state, ""),
            evidence=wrong,
        )
    ]


def sshd_passes_bad_sample(_review: Review) -> str:
    """Plant an open sshd; return it when it counts as closed."""
    effective = parse_sshd("permitrootlogin yes\npasswordauthentication yes\n")
    wrong, _unused = sshd_deviations({"PermitRootLogin": False, "PasswordAuthentication": "no"}, effective)
    return "" if len(wrong) == 2 else "an sshd that lets root in with a password as one that does not"


class Socket(t.NamedTuple):
    """A socket that waits for somebody."""

    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.protocol}/{self.address}:{self.port}"


def parse_sockets(text: str, protocol: str) -> list[Socket]:
    """Read ``/proc/net/tcp`` and its like; every line after the first must be one."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTENS[protocol]:
            address, _unused, port = fields[1].partition(":")
            found.append(Socket(protocol, _address(address), int(port, 16)))
    return found


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    return str(getattr(address, "ipv4_mapped", None) or address)


def undeclared(sockets: t.Iterable[Socket], declared: t.Iterable[str]) -> list[Socket]:
    """Return the sockets that are reachable from outside and not declared; those of the loopback address are not."""
    allowed = {(found["protocol"], found["address"], int(found["port"])) for found in map(_DECLARED.match, declared) if found}
    return sorted(
        {
            socket
            for socket in sockets
            if not ipaddress.ip_address(socket.address).is_loopback
            and (socket.protocol, None, socket.port) not in allowed
            and (socket.protocol, socket.address, socket.port) not in allowed
        }
    )


def look_listening(review: Review, proc: str = "/proc/net") -> list[Finding]:
    """Compare the ports that listen with the declared ones."""
    sockets: list[Socket] = []
    try:
        for protocol, tables in _TABLES.items():
            for table in tables:
                path = os.path.join(proc, table)
                if table.endswith("6") and not os.path.exists(path):
                    continue  # a host without IPv6
                with open(path, encoding="ascii") as source:
                    sockets += parse_sockets(source.read(), protocol)
    except (OSError, ValueError) as error:
        return [unknown(LISTENING_IDS[0], "ports", f"the sockets could not be read: {why_unread(error)}", "Look by hand with ss -lntu.")]
    review.count("security.listening", "ports", len(set(sockets)))
    declared = review.params["listening"]
    found = undeclared(sockets, declared)
    return [
        Finding(
            LISTENING_IDS[0],
            "warning" if found else "ok",
            "ports",
            f"{len(found)} of {many(len(set(sockets)), 'listening socket')} reachable from outside and not declared",
            value=len(found),
            unit="count",
            threshold="warning from 1",
            not_covered="other network namespaces (containers), the firewall",
            advice="Stop what listens there, bind it to a loopback address, or declare it." if found else "",
            evidence=[str(socket) for socket in found],
        )
    ]


def listening_passes_bad_sample(_review: Review) -> str:
    """Plant a port that listens on every address; return it when it counts as declared."""
    planted = parse_sockets("head\n 0: 00000000:1F90 00000000:0000 0A 0:0\n", "tcp")
    return "" if undeclared(planted, ["tcp/22"]) else "an undeclared port 8080 as a declared one"
