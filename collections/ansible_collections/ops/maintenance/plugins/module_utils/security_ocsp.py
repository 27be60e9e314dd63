# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a served certificate was revoked: what the server staples to it, and what the authority says where it may be asked."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
import time
import typing as t
from dataclasses import dataclass

from . import security_x509
from .host import Host
from .record import Finding, clean

FINDING_ID = "security.ocsp"
_NEXT = re.compile(r"^\s*Next Update: (.+)$", re.M)
_MESSAGE = re.compile(
    r"^<<< TLS (?P<version>1\.\d), Handshake \[length [0-9a-f]+\], (?P<kind>Certificate|CertificateStatus)\n(?P<hex>(?:    [0-9a-f ]+\n)+)",
    re.M,
)
_STATUS_REQUEST = 5
_TIMEOUT_SECONDS = 15
RESPONDER_SECONDS = 5


@dataclass(frozen=True)
class Told:
    """What is known about revocation.

    :param stapled: ``good``, ``revoked`` or ``unknown`` as the server passed it on, signed; empty where it passes nothing on.
    :param doubt: why what it passed on is not to be believed.
    :param until: end of that answer's validity, in seconds since the epoch; 0 where it says none.
    :param must_staple: whether the certificate demands that the server passes it on.
    :param asked: what the authority itself said; empty where it was not asked.
    :param problem: why the authority did not answer, or not to be believed.
    """

    stapled: str = ""
    until: float = 0
    must_staple: bool = False
    asked: str = ""
    problem: str = ""
    doubt: str = ""


def look(host: Host, connect: str, name: str, certificate: bytes, trust: str | None, may_ask: bool) -> Told:
    """Ask the server, and the authority where that is wanted.

    :raises MaintenanceError: openssl is missing or hangs.
    """
    argv = ["openssl", "s_client", "-connect", connect, "-servername", name, "-status", "-showcerts", "-msg"]
    ran = host.run([*argv, *(["-CAfile", trust] if trust else [])], timeout=_TIMEOUT_SECONDS)
    pem = ssl.DER_cert_to_PEM_cert(certificate)
    features = host.run(["openssl", "x509", "-noout", "-ext", "tlsfeature"], stdin=pem)
    others = _sent_after(certificate, ran.stdout)
    stapled, until, doubt, asked, problem = "", 0.0, "", "", ""
    if "OCSP Response Status: successful" in ran.stdout:
        stapled, until, doubt = _believed(host, stapled_answer(ran.stdout), pem, others, trust)
    if may_ask:
        asked, problem = _ask(host, pem, others, trust)
    return Told(stapled, until, "status_request" in features.stdout, asked, problem, doubt)


def _sent_after(certificate: bytes, text: str) -> list[bytes]:
    """Return the certificates that follow the server's own in what openssl shows; those of a stapled answer stand before it."""
    blocks, _unused = security_x509.split(text.encode())
    own = [place for place, block in enumerate(blocks) if ssl.PEM_cert_to_DER_cert(block.decode("ascii", "replace")) == certificate]
    return blocks[own[0] + 1 :] if own else []


def stapled_answer(text: str) -> bytes:
    """Return the answer that a server stapled, from the messages that ``openssl s_client -msg`` shows; empty where there is none."""
    for message in _MESSAGE.finditer(text):
        try:
            body = bytes.fromhex(message["hex"])[4:]
        except ValueError:
            continue
        if message["kind"] == "CertificateStatus":
            return _status_body(body)
        if message["version"] == "1.3":  # there it is an extension of the first certificate
            _context, rest = _taken(body, 1)
            entries, _rest = _taken(rest, 3)
            _certificate, rest = _taken(entries, 3)
            extensions, _rest = _taken(rest, 2)
            while extensions:
                kind = int.from_bytes(extensions[:2], "big")
                value, extensions = _taken(extensions[2:], 2)
                if kind == _STATUS_REQUEST:
                    return _status_body(value)
    return b""


def _taken(data: bytes, width: int) -> tuple[bytes, bytes]:
    """Return what a length of so many bytes announces, and the rest."""
    end = width + int.from_bytes(data[:width], "big")
    return data[width:end], data[end:]


def _status_body(body: bytes) -> bytes:
    return _taken(body[1:], 3)[0] if body[:1] == b"\1" else b""


def _believed(host: Host, answer: bytes, pem: str, others: t.Sequence[bytes], trust: str | None) -> tuple[str, float, str]:
    """Return what a stapled answer says of this certificate, until when, and why that is not to be believed: then it is unknown."""
    if not answer:
        return "unknown", 0, "the stapled answer could not be taken out of what openssl shows"
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "answer.der")
        with open(path, "wb") as target:
            target.write(answer)
        status, said = _verified(host, folder, ["-respin", path], pem, others, trust)
    if not status:
        return "unknown", 0, f"the stapled answer is not believed: {said}"
    return status, until_of(said), ""


def until_of(text: str) -> float:
    """Return until when an answer holds that ``openssl ocsp`` printed; 0 where it does not say."""
    until = _NEXT.search(text)
    try:
        return ssl.cert_time_to_seconds(until[1].strip()) if until else 0
    except ValueError:
        return 0


def _ask(host: Host, pem: str, others: t.Sequence[bytes], trust: str | None) -> tuple[str, str]:
    url = host.run(["openssl", "x509", "-noout", "-ocsp_uri"], stdin=pem).stdout.strip().partition("\n")[0]
    if not url.startswith(("http://", "https://")):
        return "", "the certificate names no responder"
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        status, said = _verified(host, folder, ["-url", url, "-timeout", str(RESPONDER_SECONDS)], pem, others, trust)
    return status, "" if status else said


def _verified(host: Host, folder: str, source: t.Sequence[str], pem: str, others: t.Sequence[bytes], trust: str | None) -> tuple[str, str]:
    """Return the status in an answer about this certificate with all that was printed; or nothing, and why it is not believed.

    :param source: where the answer comes from, as ``openssl ocsp`` wants it.
    """
    leaf, issuer = os.path.join(folder, "leaf.pem"), os.path.join(folder, "issuer.pem")
    with open(leaf, "w", encoding="ascii") as target:
        target.write(pem)
    if others:
        with open(issuer, "wb") as chain:
            chain.write(others[0] + b"\n")
    elif trust:
        issuer = trust
    else:
        return "", "the server does not send its issuer's certificate"
    argv = ["openssl", "ocsp", "-no_nonce", "-issuer", issuer, "-cert", leaf, *source]
    ran = host.run([*argv, *(["-CAfile", trust] if trust else [])], timeout=_TIMEOUT_SECONDS)
    status, problem = parse_answer(ran.stdout, ran.stderr, leaf, ran.why())
    return status, ran.stdout if status else problem


def parse_answer(stdout: str, stderr: str, leaf: str, why: str) -> tuple[str, str]:
    """Read what ``openssl ocsp`` printed: the status, or why there is none to be believed."""
    status = re.search(rf"^{re.escape(leaf)}: (good|revoked|unknown)", stdout, re.M)
    if status is None:
        return "", why
    if "Response verify OK" not in stdout + stderr:
        return "", "the answer is not signed by whom this host trusts"
    return status[1], ""


def verdict(subject: str, told: Told, may_ask: bool) -> Finding | None:
    """Judge what is known; nothing where nobody asked and the certificate demands nothing."""
    if not (told.stapled or told.must_staple or may_ask):
        return None
    is_old = bool(told.stapled and told.until and told.until < time.time())
    said = {told.stapled, told.asked} - {""}
    why = told.doubt or told.problem or "the authority does not know it"
    if "revoked" in said:
        state, summary = "critical", "the certificate was revoked"
    elif told.must_staple and not told.stapled:
        state, summary = "critical", "the certificate demands a stapled answer, and the server sends none: browsers refuse it"
    elif is_old:
        state, summary = "warning", "the stapled answer is out of date"
    elif "unknown" in said or (may_ask and not told.asked and not told.stapled):
        state, summary = "unknown", f"whether it was revoked is not known: {clean(why, 200)}"
    else:
        source = "the stapled answer" if told.stapled else "the authority"
        state, summary = "ok", f"it was not revoked, says {source}"
    advice = {
        "critical": "Replace the certificate, or turn stapling on and let the server reach the authority.",
        "warning": "Look why the server cannot reach the authority, and reload it.",
        "unknown": "Let the server send its issuer's certificate and a fresh answer, or declare trust of the endpoint."
        if told.doubt
        else "Let this host reach the authority, or do not ask for it (ocsp: false).",
    }
    return Finding(
        FINDING_ID,
        state,
        subject,
        summary,
        threshold="critical when revoked, or when a demanded stapled answer is missing",
        not_covered=told.problem if told.stapled else "",
        advice=advice.get(state, ""),
    )


def passes_bad_sample() -> str:
    """Plant a stapled answer that says revoked, and one that nobody trusted signed; return the one that counts as good."""
    for status, signed in (("revoked", "Response verify OK"), ("good", "Response Verify Failure")):
        stapled, why = parse_answer(f"planted: {status}\n", signed, "planted", "")
        found = verdict("planted", Told(stapled or "unknown", 4e9, doubt=why), may_ask=False)
        if found is None or found.state != ("critical" if status == "revoked" else "unknown"):
            return "a revoked certificate as a good one" if status == "revoked" else "an answer without a signature as one with"
    return ""
