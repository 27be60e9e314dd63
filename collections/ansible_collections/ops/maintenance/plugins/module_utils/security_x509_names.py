# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the names that a certificate is good for from its bytes.

What openssl prints of them is one text: a name that holds a comma or a line break would read as two names, or as another date.
"""

from __future__ import annotations

import ipaddress
import typing as t

_SEQUENCE, _OCTETS, _OID, _EXTENSIONS = 0x30, 0x04, 0x06, 0xA3
_ALTERNATIVE_NAME = b"\x55\x1d\x11"
_KINDS = {0x81: "email", 0x82: "DNS", 0x86: "URI"}
_ADDRESS = 0x87
_LIMIT = 50_000


def names(der: bytes) -> tuple[str, ...]:
    """Return the alternative names, such as ``DNS:example.org``; characters that no name has are escaped.

    :raises ValueError: it is no certificate.
    """
    certificate = next(_parts(der, _SEQUENCE), b"")
    body = next(_parts(certificate, _SEQUENCE), None)
    if body is None:
        raise ValueError("it is no certificate")
    extensions = next(_parts(body, _EXTENSIONS), b"")
    found = []
    for extension in _parts(next(_parts(extensions, _SEQUENCE), b""), _SEQUENCE):
        if next(_parts(extension, _OID), b"") == _ALTERNATIVE_NAME:
            value = next(_parts(extension, _OCTETS), b"")
            found += [_said(tag, data) for tag, data in _items(next(_parts(value, _SEQUENCE), b""))]
    return tuple(name for name in found[:_LIMIT] if name)


def _said(tag: int, data: bytes) -> str:
    if tag == _ADDRESS:
        try:
            return f"IP:{ipaddress.ip_address(data)}"
        except ValueError:
            return ""
    text = data.decode("ascii", "backslashreplace").replace(",", "\\x2c")
    shown = "".join(char if " " < char < "\x7f" else f"\\x{ord(char):02x}" for char in text)
    return f"{_KINDS[tag]}:{shown}" if tag in _KINDS else ""


def _parts(data: bytes, tag: int) -> t.Iterator[bytes]:
    """Yield what lies under a tag."""
    return (content for found, content in _items(data) if found == tag)


def _items(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    """Split DER into tags and contents.

    :raises ValueError: it ends too early.
    """
    at = 0
    while at < len(data):
        tag, at = data[at], at + 1
        if at >= len(data):
            raise ValueError("it ends too early")
        size, at = data[at], at + 1
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + size > len(data):
            raise ValueError("it ends too early")
        yield tag, data[at : at + size]
        at += size
