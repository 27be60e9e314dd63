# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TLS server really offers: its certificate, whether clients accept it, old protocols and weak ciphers."""

from __future__ import annotations

import hashlib
import socket
import ssl
import warnings
from dataclasses import dataclass, field

from . import security_weak_ciphers
from .record import clean

OLD_VERSIONS = ("TLSv1", "TLSv1_1")
VERSIONS = (*OLD_VERSIONS, "TLSv1_2", "TLSv1_3")
_TIMEOUT_SECONDS = 5.0
_CLIENT_CANNOT = ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "NO_CIPHER_MATCH")


@dataclass
class Served:
    """What a server answered.

    :param problem: why it could not be asked; then nothing else is known.
    :param certificate: what it sent, in DER form.
    :param refused: why a careful client does not accept it; empty when it does.
    :param offered: protocol version to offered, not offered, or not known (None).
    :param weak_cipher: the weak ciphers it agreed to; None where it did not say.
    """

    problem: str = ""
    fingerprint: str = ""
    certificate: bytes = b""
    refused: str = ""
    offered: dict[str, bool | None] = field(default_factory=dict)
    cipher: str = ""
    weak_cipher: str | None = ""


def endpoint(text: str) -> tuple[str, int]:
    """Split ``host:port`` (a bare IPv6 address stands in brackets).

    :raises ValueError: there is no port, or it is not one.
    """
    host, _unused, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"connect is {text!r}, expected host:port")
    return host.strip("[]"), int(port)


def ask(connect: str, name: str, trust: str | None) -> Served:
    """Connect as often as it takes to learn what a server offers."""
    address = endpoint(connect)
    served = Served()
    try:
        with _connected(address, name, _open_context()) as connection:
            served.certificate = connection.getpeercert(binary_form=True) or b""
            served.fingerprint = hashlib.sha256(served.certificate).hexdigest()
            served.cipher = f"{connection.version()} {(connection.cipher() or ('',))[0]}"
    except (OSError, ValueError) as error:
        return Served(problem=clean(str(error), 200))
    served.refused = _refused(address, name, trust)
    served.offered = {version: _offers(address, name, version) for version in VERSIONS}
    served.weak_cipher = security_weak_ciphers.ask(address, name, _TIMEOUT_SECONDS)
    return served


def _connected(address: tuple[str, int], name: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(address, timeout=_TIMEOUT_SECONDS)
    try:
        return context.wrap_socket(plain, server_hostname=name)
    except BaseException:
        plain.close()
        raise


def _open_context(ciphers: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is looked at, not trusted; _refused is the careful client
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def _refused(address: tuple[str, int], name: str, trust: str | None) -> str:
    try:
        context = ssl.create_default_context()
        # Python 3.13 refuses what browsers accept (an authority without key usage): the verdict is not to hang on the host's Python.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if trust:
            context.load_verify_locations(cafile=trust)
        with _connected(address, name, context):
            return ""
    except ssl.SSLCertVerificationError as error:
        return clean(error.verify_message or str(error), 200)
    except (OSError, ValueError) as error:
        return clean(str(error), 200)


def _offers(address: tuple[str, int], name: str, version: str) -> bool | None:
    try:
        context = _open_context("ALL:@SECLEVEL=0")
        _only(context, version)
        with _connected(address, name, context):
            return True
    except ssl.SSLError as error:
        return None if (error.reason or "") in _CLIENT_CANNOT else False
    except (ConnectionError, EOFError):
        return False
    except (OSError, ValueError):
        return None


def _only(context: ssl.SSLContext, version: str) -> None:
    wanted = getattr(ssl.TLSVersion, version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # asking for an old version is the point here
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = wanted
        context.minimum_version = wanted


def said(version: str) -> str:
    """Return a protocol version as people write it."""
    return version.replace("TLSv1_", "TLS 1.").replace("TLSv1", "TLS 1.0")


def old_offered(served: Served) -> list[str]:
    """Return the outdated versions that the server accepts."""
    return [said(version) for version in OLD_VERSIONS if served.offered.get(version)]
