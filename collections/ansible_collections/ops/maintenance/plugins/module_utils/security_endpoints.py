# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared endpoints as a client meets them: certificate, protocols, revocation, and the headers that guard browsers."""

from __future__ import annotations

import os
import re
import ssl
import typing as t
from urllib.parse import urlsplit

from . import security_certificates, security_headers, security_ocsp, security_tls, security_x509
from .errors import InputError, MaintenanceError
from .http_probe import Answer, check_url, fetch
from .judge import many
from .record import Finding
from .security_common import Review, unknown

OPTIONS: dict[str, t.Any] = {
    "endpoints": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "url": {"type": "str", "required": True},
            "trust": {"type": "str"},
            "warning_days": {"type": "float", "default": 30.0},
            "critical_days": {"type": "float", "default": 7.0},
            "headers": {"type": "dict", "default": {}},
            "judge_headers": {"type": "bool", "default": True},
            "ocsp": {"type": "bool", "default": False},
        },
    }
}
IDS = (
    "security.certificate_expiry",
    "security.certificate_served",
    "security.certificate_name",
    "security.tls_protocols",
    "security.ocsp",
    "security.http_headers",
)
_ADVICE = "Start the service or correct url, then look again."


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what is wrong with the declared endpoints, one sentence each."""
    wrong = []
    for item in params["endpoints"]:
        try:
            check_url(item["url"], "endpoints.url")
        except InputError as error:
            wrong.append(str(error))
            continue
        if item["trust"] and not os.path.isabs(item["trust"]):
            wrong.append(f"endpoints.trust is {item['trust']!r}, expected an absolute path; write it from the root on.")
        if not 0 <= item["critical_days"] <= item["warning_days"]:
            wrong.append(f"endpoints {item['url']}: critical_days must be from 0 up to warning_days; correct the days.")
        wrong += [problem for name, pattern in item["headers"].items() if (problem := _pattern_problem(name, pattern))]
    return wrong


def _pattern_problem(name: str, pattern: t.Any) -> str:
    try:
        re.compile("" if pattern is None else str(pattern))
    except re.error as error:
        return f"endpoints.headers of {name} is not a regular expression ({error}); correct it."
    return ""


def look(review: Review) -> list[Finding]:
    """Ask every declared endpoint."""
    return [finding for item in review.params["endpoints"] for finding in _endpoint(review, item)]


def _endpoint(review: Review, item: t.Mapping[str, t.Any]) -> list[Finding]:
    parts = urlsplit(item["url"])
    findings = _tls(review, item, parts.hostname or "", parts.port or 443) if parts.scheme == "https" else []
    return findings + ([_headers(item)] if item["judge_headers"] else [])


def _tls(review: Review, item: t.Mapping[str, t.Any], name: str, port: int) -> list[Finding]:
    connect = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    served = security_tls.ask(connect, name, item["trust"])
    asked = [IDS[0], IDS[1], IDS[3]]
    if served.problem or not served.certificate:
        return [unknown(finding_id, connect, f"it could not be asked: {served.problem}", _ADVICE) for finding_id in asked]
    findings = [
        Finding(
            IDS[1],
            "critical" if served.refused else "ok",
            connect,
            f"clients refuse it: {served.refused}" if served.refused else f"clients accept what it serves for {name}",
            threshold="critical when a client that knows this host's roots refuses it",
            advice="Send the whole chain of a certificate that is valid for this name." if served.refused else "",
            evidence=[f"served sha256 {served.fingerprint}"],
        ),
        security_certificates.protocols(connect, served),
    ]
    try:
        leaf = security_x509.read(review.host, ssl.DER_cert_to_PEM_cert(served.certificate).encode())
        findings += [security_certificates.expiry(review, item, connect, [leaf]), security_certificates.names([name], connect, leaf)]
    except MaintenanceError as error:
        findings.append(unknown(IDS[0], connect, f"its certificate could not be read: {error}", "Serve a proper certificate."))
    try:
        told = security_ocsp.look(review.host, connect, name, served.certificate, item["trust"], item["ocsp"])
        revocation = security_ocsp.verdict(connect, told, item["ocsp"])
    except MaintenanceError as error:
        revocation = unknown(IDS[4], connect, f"whether it was revoked is not known: {error}", "Install openssl on this host.")
    return findings + ([revocation] if revocation else [])


def _headers(item: t.Mapping[str, t.Any]) -> Finding:
    is_secure = item["url"].startswith("https:")
    try:
        answer = fetch(item["url"], ca_file=item["trust"])
    except MaintenanceError as error:
        return unknown(IDS[5], item["url"], f"it could not be asked: {error}", "Correct trust, then look again.")
    if not answer.status:
        return unknown(IDS[5], item["url"], f"it {answer.told()}", _ADVICE)
    if not is_secure and 300 <= answer.status < 400 and answer.headers.get("location", "").startswith("https://"):
        return Finding(IDS[5], "ok", item["url"], "it only leads to https", threshold="warning when it answers without encryption")
    return judged(item, answer, is_secure)


def judged(item: t.Mapping[str, t.Any], answer: Answer, is_secure: bool) -> Finding:
    """Judge the headers of an answer by the built-in rules and those of the endpoint."""
    lines = security_headers.problems(answer, is_secure, item["headers"])
    if not is_secure:
        lines.insert(0, "it answers without encryption and does not lead to https")
    return Finding(
        IDS[5],
        "warning" if lines else "ok",
        item["url"],
        f"it answered {answer.status} with {many(len(lines), 'weakness', 'weaknesses')} in its headers",
        value=len(lines),
        unit="count",
        threshold="warning from 1",
        not_covered="other pages of the site",
        advice="Correct the headers in the web server; declare what is meant in headers of the endpoint." if lines else "",
        evidence=lines,
    )


def passes_bad_sample(_review: Review) -> str:
    """Plant an answer without any guard; return it when it counts as guarded."""
    answer = Answer(200, 0, headers={"server": "planted/1.0"}, cookies=["sid=planted"])
    if judged({"url": "https://planted", "headers": {}}, answer, is_secure=True).value != 7:
        return "an answer without any guarding header as a guarded one"
    return security_ocsp.passes_bad_sample()
