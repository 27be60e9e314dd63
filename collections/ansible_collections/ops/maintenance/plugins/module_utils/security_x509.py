# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read certificates with the openssl command: dates, names, issuer, chain and key."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import re
import ssl
import tempfile
import typing as t
from dataclasses import dataclass

from . import security_x509_names
from .errors import MaintenanceError
from .host import Host
from .record import clean

_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.S)
_LINE = re.compile(r"^(subject|issuer|notBefore|notAfter)=[ \t]*(.*)$", re.M)
_BODY = re.compile(rb"-----BEGIN[^\n]*-----(.*)-----END", re.S)


@dataclass(frozen=True)
class Certificate:
    """What one certificate says; times are seconds since the epoch."""

    pem: str
    subject: str
    issuer: str
    not_before: float
    not_after: float
    names: tuple[str, ...]
    fingerprint: str

    @property
    def is_self_signed(self) -> bool:
        """Whether it names itself as issuer."""
        return self.subject == self.issuer


def split(data: bytes) -> tuple[list[bytes], str]:
    """Return the PEM blocks of a file and what is wrong with the file's form (empty: nothing)."""
    blocks = _PEM.findall(data)
    if blocks:
        return blocks, ""
    if data[:1] == b"\x30":
        return [ssl.DER_cert_to_PEM_cert(data).encode()], "it is in DER form, expected PEM"
    for encoding in ("utf-16", "utf-32"):
        text = data.decode(encoding, "ignore").encode("utf-8", "ignore")
        if _PEM.search(text):
            return _PEM.findall(text), f"it is {encoding.upper()} text, expected plain ASCII"
    return [], "it is empty" if not data.strip() else "it holds no PEM certificate"


def parse(text: str, pem: bytes) -> Certificate:
    """Read what ``openssl x509`` printed about a certificate.

    :raises MaintenanceError: a date or the subject is missing or has an unknown form.
    """
    fields = dict(_LINE.findall(text))
    try:
        return Certificate(
            pem=pem.decode("ascii", "replace"),
            subject=fields["subject"],
            issuer=fields["issuer"],
            not_before=ssl.cert_time_to_seconds(fields["notBefore"].strip()),
            not_after=ssl.cert_time_to_seconds(fields["notAfter"].strip()),
            names=security_x509_names.names(_der(pem)),
            fingerprint=fingerprint(pem),
        )
    except (KeyError, ValueError) as error:
        raise MaintenanceError(f"openssl said something unexpected about a certificate ({clean(str(error), 100)}).") from error


def fingerprint(pem: bytes) -> str:
    """Return the SHA-256 of the certificate inside a PEM block."""
    return hashlib.sha256(_der(pem)).hexdigest()


def _der(pem: bytes) -> bytes:
    body = _BODY.search(pem)
    return base64.b64decode(body[1]) if body else b""


def read(host: Host, pem: bytes) -> Certificate:
    """Ask openssl about one PEM block.

    :raises MaintenanceError: it is not a certificate.
    """
    argv = ["openssl", "x509", "-noout", "-subject", "-issuer", "-startdate", "-enddate", "-nameopt", "RFC2253"]
    ran = host.run(argv, stdin=pem.decode("ascii", "replace"))
    if ran.rc != 0:
        raise MaintenanceError(f"it is not a certificate ({ran.why()})")
    return parse(ran.stdout, pem)


def matches(host_name: str, names: t.Iterable[str]) -> bool:
    """Whether a certificate with these names is good for a host, as browsers judge (no common name, one wildcard label)."""
    wanted = host_name.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        wanted = _ascii(wanted)
        return any(kind == "DNS" and _dns_matches(wanted, name.lower()) for kind, _unused, name in _parts(names))
    return any(kind == "IP" and _same_address(address, name) for kind, _unused, name in _parts(names))


def _parts(names: t.Iterable[str]) -> t.Iterator[tuple[str, str, str]]:
    for name in names:
        kind, _unused, value = name.partition(":")
        yield kind, ":", value.removeprefix("Address:")


def _ascii(name: str) -> str:
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def _dns_matches(wanted: str, name: str) -> bool:
    if name.startswith("*."):
        return wanted.partition(".")[2] == name[2:] and "." in name[2:] and not wanted.startswith(".")
    return wanted == name


def _same_address(address: t.Any, name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.strip()) == address)
    except ValueError:
        return False


def public_key(host: Host, pem: bytes) -> str:
    """Return the public key of a certificate."""
    ran = host.run(["openssl", "x509", "-noout", "-pubkey"], stdin=pem.decode("ascii", "replace"))
    return ran.stdout.strip() if ran.rc == 0 else ""


def public_key_of_private(host: Host, path: str) -> str:
    """Return the public half of a private key file; empty where openssl cannot read it (damaged, or with a passphrase)."""
    ran = host.run(["openssl", "pkey", "-in", path, "-passin", "pass:", "-pubout"])
    return ran.stdout.strip() if ran.rc == 0 else ""


def order_problem(chain: t.Sequence[Certificate]) -> str:
    """Say where a served list is out of order; empty when each certificate is followed by its issuer's."""
    for this, following in zip(chain, chain[1:]):
        if this.issuer != following.subject:
            return f"{clean(this.subject, 80)} is followed by {clean(following.subject, 80)}, expected {clean(this.issuer, 80)}"
    return ""


def trust_problem(host: Host, chain: t.Sequence[Certificate], trust: str | None) -> str:
    """Say why a client that knows this host's roots (and those in ``trust``) does not accept a list of certificates; empty when it does.

    Dates are left out: they are judged on their own, for every certificate of the list.
    """
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        leaf, others = os.path.join(folder, "leaf.pem"), os.path.join(folder, "others.pem")
        for path, part in ((leaf, chain[:1]), (others, chain[1:])):
            with open(path, "w", encoding="ascii", errors="replace") as target:
                target.write("\n".join(certificate.pem for certificate in part) + "\n")
        argv = ["openssl", "verify", "-no_check_time", "-purpose", "sslserver"]
        if len(chain) > 1:
            argv += ["-untrusted", others]
        if trust:
            argv += ["-CAfile", trust]
        ran = host.run([*argv, leaf])
    if ran.rc == 0:
        return ""
    said = re.search(r"error (\d+) at (\d+) depth lookup: ?(.*)", f"{ran.stdout}\n{ran.stderr}")
    return clean(f"{said[3].strip()} (openssl error {said[1]} at depth {said[2]})" if said else ran.why(), 300)
