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
_STATUS = re.compile(r"^\s*Cert Status: (\w+)", re.M)
_NEXT = re.compile(r"^\s*Next Update: (.+)$", re.M)
_TIMEOUT_SECONDS = 15
RESPONDER_SECONDS = 5


@dataclass(frozen=True)
class Told:
    """What is known about revocation.

    :param stapled: ``good``, ``revoked`` or ``unknown`` as the server passed it on; empty where it passes nothing on.
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


def look(host: Host, connect: str, name: str, certificate: bytes, trust: str | None, may_ask: bool) -> Told:
    """Ask the server, and the authority where that is wanted.

    :raises MaintenanceError: openssl is missing or hangs.
    """
    argv = ["openssl", "s_client", "-connect", connect, "-servername", name, "-status", "-showcerts"]
    ran = host.run([*argv, *(["-CAfile", trust] if trust else [])], timeout=_TIMEOUT_SECONDS)
    stapled, until = parse_staple(ran.stdout)
    pem = ssl.DER_cert_to_PEM_cert(certificate)
    features = host.run(["openssl", "x509", "-noout", "-ext", "tlsfeature"], stdin=pem)
    asked, problem = "", ""
    if may_ask:
        blocks, _unused = security_x509.split(ran.stdout.encode())
        asked, problem = _ask(host, pem, blocks[1:], trust)
    return Told(stapled, until, "status_request" in features.stdout, asked, problem)


def parse_staple(text: str) -> tuple[str, float]:
    """Read what ``openssl s_client -status`` printed: the status, and until when it holds."""
    if "OCSP Response Status: successful" not in text:
        return "", 0
    status, until = _STATUS.search(text), _NEXT.search(text)
    try:
        return status[1] if status else "unknown", ssl.cert_time_to_seconds(until[1].strip()) if until else 0
    except ValueError:
        return status[1] if status else "unknown", 0


def _ask(host: Host, pem: str, others: t.Sequence[bytes], trust: str | None) -> tuple[str, str]:
    url = host.run(["openssl", "x509", "-noout", "-ocsp_uri"], stdin=pem).stdout.strip().partition("\n")[0]
    if not url.startswith(("http://", "https://")):
        return "", "the certificate names no responder"
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
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
        argv = ["openssl", "ocsp", "-no_nonce", "-issuer", issuer, "-cert", leaf, "-url", url, "-timeout", str(RESPONDER_SECONDS)]
        ran = host.run([*argv, *(["-CAfile", trust] if trust else [])], timeout=_TIMEOUT_SECONDS)
        return parse_answer(ran.stdout, ran.stderr, leaf, ran.why())


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
    if "revoked" in said:
        state, summary = "critical", "the certificate was revoked"
    elif told.must_staple and not told.stapled:
        state, summary = "critical", "the certificate demands a stapled answer, and the server sends none: browsers refuse it"
    elif is_old:
        state, summary = "warning", "the stapled answer is out of date"
    elif "unknown" in said or (may_ask and not told.asked and not told.stapled):
        state, summary = "unknown", f"whether it was revoked is not known: {clean(told.problem or 'the authority does not know it', 200)}"
    else:
        source = "the stapled answer" if told.stapled else "the authority"
        state, summary = "ok", f"it was not revoked, says {source}"
    advice = {
        "critical": "Replace the certificate, or turn stapling on and let the server reach the authority.",
        "warning": "Look why the server cannot reach the authority, and reload it.",
        "unknown": "Let this host reach the authority, or do not ask for it (ocsp: false).",
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
    """Plant a stapled answer that says revoked; return it when it counts as good."""
    stapled, until = parse_staple(
        "OCSP Response Status: successful (0x0)\n    Cert Status: revoked\n    Next Update: Jan  1 00:00:00 2090 GMT\n"
    )
    found = verdict("planted", Told(stapled, until), may_ask=False)
    return "" if found and found.state == "critical" else "a revoked certificate as a good one"
