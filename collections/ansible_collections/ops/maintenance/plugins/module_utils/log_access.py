# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a line of an access log says, and who the client behind proxies is."""

from __future__ import annotations

import functools
import ipaddress
import re
import typing as t

Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

ACCESS_LINE = re.compile(rb'(\S+) [^\["]*\[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d\d\d)(?= |$)')
ZONE = re.compile(rb'\[[^\]"\n]{20}( [+-]\d{4})\] "')
LATENCY = re.compile(rb"(?:(?<= )|\brt=)(\d{1,6}\.\d{1,6})(?= |$)")
"""The seconds that a request took, where the log has them after its last quoted field."""
TAG_OF_STATUS = {b"401": "auth_failures", b"429": "rate_limited"}

_STAMP = rb"(\d\d/[A-Z][a-z][a-z]/\d{4}:[0-2]\d:[0-5]\d:[0-5]\d)"


@functools.lru_cache(maxsize=8)
def in_zone(zone: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return expressions for lines whose times are in a zone.

    The first is for lines that end with a quoted field, and right only where it matches as often as there are lines.
    """
    stamp = rb"\[" + _STAMP + re.escape(zone) + rb"\]"
    combined = re.compile(rb'^(\S+) [^\["]*' + stamp + rb' "([^"]*)" (\d\d\d) .*"\n', re.M)
    return combined, re.compile(rb'^(\S+) [^\["\n]*' + stamp + rb' "([^"\n]*)" (\d\d\d)(?= )(?:[^\n]*")?([^"\n]*)\n', re.M)


def level_of_status(status: bytes) -> str:
    """Return the level of a request by the class of its answer."""
    return "ERROR" if status[:1] == b"5" else "WARNING" if status[:1] == b"4" else "INFO"


def client_behind(address: bytes, forwarded: bytes, proxies: t.Sequence[Network]) -> bytes:
    """Walk back from the server as far as each next hop is a trusted proxy; what stands before that anybody may have made up."""
    hops = [hop.strip() for hop in forwarded.split(b",")] if forwarded else []
    while hops and _is_among(address, proxies) and _is_address(hops[-1]):
        address = hops.pop()
    return address


def _is_address(text: bytes) -> bool:
    return _is_among(text, ()) is not None


def _is_among(text: bytes, networks: t.Sequence[Network]) -> bool | None:
    """Say whether an address lies in one of some networks; None where it is no address."""
    try:
        address = ipaddress.ip_address(text.decode("ascii", "replace"))
    except ValueError:
        return None
    return any(address in network for network in networks)
