# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a TLS server for weak ciphers in a greeting of our own, for an OpenSSL that has unlearned them cannot ask for them."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import typing as t

FAMILIES: dict[str, tuple[int, ...]] = {
    "NULL": (0x0001, 0x0002, 0x003B, 0xC001, 0xC006, 0xC00B, 0xC010, 0xC015),
    "export": (0x0003, 0x0006, 0x0008, 0x000B, 0x000E, 0x0011, 0x0014, 0x0017, 0x0019),
    "DES": (0x0009, 0x000C, 0x000F, 0x0012, 0x0015, 0x001A),
    "RC4": (0x0004, 0x0005, 0x0018, 0xC002, 0xC007, 0xC00C, 0xC011, 0xC016),
    "3DES": (0x000A, 0x000D, 0x0010, 0x0013, 0x0016, 0x001B, 0xC003, 0xC008, 0xC00D, 0xC012, 0xC017),
    "IDEA": (0x0007,),
    "anonymous": (0x0034, 0x003A, 0x0046, 0x006C, 0x006D, 0x0089, 0x009B, 0x00A6, 0x00A7, 0x00BF, 0x00C5, 0xC018, 0xC019),
}
"""Numbers of cipher suites up to TLS 1.2, as IANA has them; what has no key exchange with the server's certificate is weak too."""

_SCSV = 0x00FF  # renegotiation is understood, else some servers refuse
_VERSION = b"\x03\x03"
_GROUPS = (0x001D, 0x0017, 0x0018, 0x0019)
_SIGNATURES = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201, 0x0202)
_ALERT, _HANDSHAKE = 21, 22
_SERVER_HELLO = 2
_RECORDS = 4
_RECORD_LIMIT = 16384 + 2048


def ask(address: tuple[str, int], name: str, timeout: float) -> str | None:
    """Return the families that a server agrees to, each with the suite that it chose; None where it does not say.

    A server tells one suite for each greeting, so it is asked again without the family that it chose.
    """
    found: list[str] = []
    left = dict(FAMILIES)
    while left:
        chosen = _chosen(address, hello(name, [suite for suites in left.values() for suite in suites]), timeout)
        family = next((family for family, suites in left.items() if chosen in suites), "")
        if not family:
            return ", ".join(found) if found or chosen == 0 else None
        found.append(f"{family} (0x{chosen:04x})")
        del left[family]
    return ", ".join(found)


def hello(name: str, suites: t.Sequence[int]) -> bytes:
    """Return the greeting of a client of TLS 1.2 that offers these suites and nothing else."""
    extensions = [
        (0x000A, _sized(_numbers(_GROUPS), 2)),
        (0x000B, _sized(b"\0", 1)),
        (0x000D, _sized(_numbers(_SIGNATURES), 2)),
    ]
    if not _is_address(name):
        extensions.insert(0, (0x0000, _sized(b"\0" + _sized(name.encode("idna"), 2), 2)))
    told = b"".join(struct.pack(">H", kind) + _sized(value, 2) for kind, value in extensions)
    body = _VERSION + os.urandom(32) + b"\0" + _sized(_numbers([*suites, _SCSV]), 2) + _sized(b"\0", 1) + _sized(told, 2)
    return bytes([_HANDSHAKE]) + b"\x03\x01" + _sized(b"\1" + _sized(body, 3), 2)


def _sized(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def _numbers(values: t.Sequence[int]) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _chosen(address: tuple[str, int], greeting: bytes, timeout: float) -> int | None:
    """Return the suite that a server chose; 0 where it refuses all, None where that is not clear."""
    try:
        with socket.create_connection(address, timeout=timeout) as connection, connection.makefile("rb") as answer:
            try:
                connection.sendall(greeting)
                return chosen_of(answer)
            except ConnectionError:
                return 0  # how some refuse
    except OSError:
        return None


def chosen_of(answer: t.BinaryIO) -> int | None:
    """Read what a server says to a greeting: the suite that it chose, 0 where it refuses all, None where it speaks no TLS."""
    said = b""
    for _record in range(_RECORDS):
        head = answer.read(5)
        if not head:
            return 0 if not said else None
        kind, length = head[0], int.from_bytes(head[3:], "big")
        if kind not in (_ALERT, _HANDSHAKE) or head[1:2] != b"\x03" or length > _RECORD_LIMIT:
            return None
        body = answer.read(length)
        if kind == _ALERT:
            if body[:1] == b"\1":  # only a warning, such as an unknown name
                continue
            return 0
        said += body
        if len(said) >= 39 and len(said) >= 41 + said[38]:
            place = 39 + said[38]
            return int.from_bytes(said[place : place + 2], "big") if said[0] == _SERVER_HELLO else None
    return None
