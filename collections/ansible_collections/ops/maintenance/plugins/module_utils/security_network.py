# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host offers to the network: the ports that listen, how far they can be reached, and who listens."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
import typing as t

from .judge import many
from .record import Finding, clean
from .security_common import Review, unknown, why_unread

OPTIONS: dict[str, t.Any] = {"listening": {"type": "list", "elements": "str"}}
IDS = ("security.listening",)

_TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
_LISTENS = {"tcp": "0A", "udp": "07"}
_DECLARED = re.compile(r"(?P<protocol>tcp|udp)/(?:(?P<address>.+):)?(?P<port>\d{1,5})$")
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")))
_INODE = re.compile(r"socket:\[(\d+)\]")


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return which declared ports cannot be understood, one sentence each."""
    return [
        f"listening holds {text!r}, expected tcp/PORT, udp/PORT, tcp/ADDRESS:PORT or tcp/private:PORT; correct it."
        for text in params["listening"] or ()
        if not _DECLARED.match(text) or int(text.rpartition("/")[2].rpartition(":")[2]) > 65535
    ]


class Socket(t.NamedTuple):
    """A socket that waits for somebody."""

    protocol: str
    address: str
    port: int
    inode: str = ""

    def __str__(self) -> str:
        return f"{self.protocol}/{self.address}:{self.port}"

    @property
    def scope(self) -> str:
        """How far it can be reached: ``loopback``, ``private`` (this network only), ``any``."""
        address = ipaddress.ip_address(self.address)
        if address.is_loopback:
            return "loopback"
        return "private" if any(address.version == one.version and address in one for one in _PRIVATE) else "any"


def parse_sockets(text: str, protocol: str) -> list[Socket]:
    """Read ``/proc/net/tcp`` and its like; every line after the first must be one."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTENS[protocol]:
            address, _unused, port = fields[1].partition(":")
            found.append(Socket(protocol, _address(address), int(port, 16), fields[9] if len(fields) > 9 else ""))
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
            if socket.scope != "loopback"
            and not any((socket.protocol, place, socket.port) in allowed for place in (None, socket.address))
            and not (socket.scope == "private" and (socket.protocol, "private", socket.port) in allowed)
        }
    )


def sockets_of(proc: str) -> list[Socket]:
    """Read all sockets that listen, over IPv4 and IPv6.

    :param proc: folder of the tables; ``/proc/net`` but in tests.
    """
    sockets: list[Socket] = []
    for protocol, tables in _TABLES.items():
        for table in tables:
            path = os.path.join(proc, table)
            if table.endswith("6") and not os.path.exists(path):
                continue  # a host without IPv6
            with open(path, encoding="ascii") as source:
                sockets += parse_sockets(source.read(), protocol)
    return sockets


def owners(inodes: t.Container[str], proc: str = "/proc") -> dict[str, str]:
    """Return inode of a socket to the program that holds it, as far as that may be read."""
    found: dict[str, str] = {}
    for pid in filter(str.isdigit, os.listdir(proc)):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another's
            folder = os.path.join(proc, pid, "fd")
            for name in os.listdir(folder):
                match = _INODE.match(os.readlink(os.path.join(folder, name)))
                if match and match[1] in inodes and match[1] not in found:
                    with open(os.path.join(proc, pid, "comm"), encoding="utf-8", errors="replace") as source:
                        found[match[1]] = f"{clean(source.read().strip(), 40)} (pid {pid})"
    return found


def look_listening(review: Review, proc: str = "/proc/net") -> list[Finding]:
    """Compare the ports that listen with the declared ones."""
    try:
        sockets = sockets_of(proc)
    except (OSError, ValueError) as error:
        return [unknown(IDS[0], "ports", f"the sockets could not be read: {why_unread(error)}", "Look by hand with ss -lntu.")]
    places = {str(socket) for socket in sockets}
    review.count("security.listening", "ports", len(places))
    found = undeclared(sockets, review.params["listening"])
    names = owners({socket.inode for socket in found}) if found else {}
    lines = {str(socket): f"{socket}, reachable from {_FROM[socket.scope]}{_by(names.get(socket.inode))}" for socket in found}
    return [
        Finding(
            IDS[0],
            "warning" if found else "ok",
            "ports",
            f"{len(lines)} of {many(len(places), 'listening socket')} reachable from outside and not declared",
            value=len(lines),
            unit="count",
            threshold="warning from 1",
            not_covered="other network namespaces (containers), the firewall",
            advice="Stop what listens there, bind it to a loopback address, or declare it." if found else "",
            evidence=list(lines.values()),
        )
    ]


_FROM = {"any": "anywhere", "private": "the private network", "loopback": "this host"}


def _by(owner: str | None) -> str:
    return f", held by {owner}" if owner else ""


def listening_passes_bad_sample(_review: Review) -> str:
    """Plant a port that listens on every address; return it when it counts as declared."""
    planted = parse_sockets("head\n 0: 00000000:1F90 00000000:0000 0A 0:0\n", "tcp")
    return "" if undeclared(planted, ["tcp/22"]) else "an undeclared port 8080 as a declared one"
