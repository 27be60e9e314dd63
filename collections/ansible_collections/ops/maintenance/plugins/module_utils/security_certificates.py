# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that the inventory declares: dates, form, chain, names, key, and what is served in truth."""

from __future__ import annotations

import os
import tempfile
import typing as t
from datetime import datetime, timezone

from . import security_files, security_tls, security_x509
from .errors import MaintenanceError
from .judge import below_limit, limits, many
from .record import Finding, clean
from .security_common import Review, filled, read_small, shown, unknown, why_unread
from .security_x509 import Certificate

OPTIONS: dict[str, t.Any] = {
    "certificates": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "key": {"type": "str", "no_log": False},
            "key_mode": {"type": "str", "default": "0640", "no_log": False},
            "chain": {"type": "str"},
            "trust": {"type": "str"},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "connect": {"type": "str"},
            "warning_days": {"type": "float", "default": 30.0},
            "critical_days": {"type": "float", "default": 7.0},
            "missing": {"type": "str", "choices": ["critical", "warning", "unknown"], "default": "critical"},
        },
    }
}
IDS = (
    "security.certificate_expiry",
    "security.certificate_chain",
    "security.certificate_name",
    "security.certificate_key",
    "security.certificate_served",
    "security.certificate_form",
    "security.tls_protocols",
)
_RENEW = "Renew the certificate and reload the service that uses it."
_URGENT_DAYS = 14
_WEAK = "weak ciphers"
_URGENT = "Renew it this week, and do not wait for the next maintenance: what should have renewed it has most likely failed."

_EXPIRED_SAMPLE = b"""-----BEGIN CERTIFICATE-----
MIIBQDCB56ADAgECAgEBMAoGCCqGSM49BAMCMBoxGDAWBgNVBAMMD2V4cGlyZWQu
aW52YWxpZDAeFw0yMDAxMDEwMDAwMDBaFw0yMDAyMDEwMDAwMDBaMBoxGDAWBgNV
BAMMD2V4cGlyZWQuaW52YWxpZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABB9D
fWpKAodqLJiFyGOfNZlgfy0Z2LEAqU13BoDTtRqQWPfGQ+MId/Qu7fPeWdidNE16
MR0JIUsk90TlsBdaJJWjHjAcMBoGA1UdEQQTMBGCD2V4cGlyZWQuaW52YWxpZDAK
BggqhkjOPQQDAgNIADBFAiEArl9KZNplj0qssAU5awZZ/Rm3WcKHosiupXrNRUMs
yKUCIB3C61ILPovRcqDUreQbNu+Ee+kUOEzZT15oX9lYieRz
-----END CERTIFICATE-----
"""


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what is wrong with the declared certificates, one sentence each."""
    wrong = []
    for item in params["certificates"]:
        wrong += [
            f"certificates.{name} is {item[name]!r}, expected an absolute path; write it from the root on."
            for name in ("path", "key", "chain", "trust")
            if item[name] and not os.path.isabs(item[name])
        ]
        if not 0 <= item["critical_days"] <= item["warning_days"]:
            wrong.append(f"certificates {item['path']}: critical_days must be from 0 up to warning_days; correct the days.")
        if not security_files.MODE.fullmatch(item["key_mode"]):
            wrong.append(f"certificates.key_mode is {item['key_mode']!r}, expected an octal mode in quotes such as '0640'.")
        if item["connect"]:
            try:
                security_tls.endpoint(item["connect"])
            except ValueError as error:
                wrong.append(f"certificates.{error}, such as 127.0.0.1:443; correct it.")
    return wrong


def look(review: Review) -> list[Finding]:
    """Look at every declared certificate."""
    return [finding for item in review.params["certificates"] for finding in _item(review, item)]


def _item(review: Review, item: t.Mapping[str, t.Any]) -> list[Finding]:
    path, subject = item["path"], shown(item["path"])
    try:
        blocks, form = security_x509.split(read_small(path))
        served_list = [*blocks, *(security_x509.split(read_small(item["chain"]))[0] if item["chain"] else [])]
        chain = [security_x509.read(review.host, block) for block in served_list] if blocks else []
    except FileNotFoundError as error:
        summary = f"{shown(str(error.filename))} is declared, but it is not there"
        advice = "Put the certificate in place, or correct the path in the inventory."
        return [Finding(IDS[0], item["missing"], subject, summary, threshold=f"{item['missing']} when absent", advice=advice)]
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[0], subject, f"it could not be read: {why_unread(error)}", "Put a PEM certificate there and look again.")]
    if not chain:
        return [
            Finding(IDS[5], "critical", subject, form, advice="Put a PEM certificate there."),
            unknown(IDS[0], subject, f"its dates are not known: {form}", "Put a PEM certificate there."),
        ]
    findings = [_form(subject, form)] if form else []
    findings += [expiry(review, item, subject, chain), _chain(review, item, chain)]
    findings += [names(item["hosts"], subject, chain[0])] if item["hosts"] else []
    findings += _key(review, item, chain[0]) if item["key"] else []
    findings += _served(item, chain[0]) if item["connect"] else []
    return findings


def _form(subject: str, form: str) -> Finding:
    advice = "Convert it (openssl x509 -inform DER -in FILE -out NEW); most servers refuse to start with this."
    return Finding("security.certificate_form", "warning", subject, form, threshold="PEM", advice=advice)


def expiry(review: Review, item: t.Mapping[str, t.Any], subject: str, chain: t.Sequence[Certificate]) -> Finding:
    """Judge the time that is left of a certificate and of those in its chain."""
    now = review.now.timestamp()
    first = min(chain, key=lambda certificate: certificate.not_after)
    early = next((certificate for certificate in chain if certificate.not_before > now), None)
    days = (first.not_after - now) / 86400
    review.count("security.certificate_days_left", subject, round(days, 2), "days")
    # An expired one is critical whatever the limits say.
    state = "critical" if days <= 0 or early else below_limit(days, item["warning_days"], item["critical_days"])
    whose = "" if first is chain[0] else f" (of {clean(first.subject, 80)} in its chain)"
    if early:
        summary = f"it is not valid before {_when(early.not_before)}"
    elif days <= 0:
        summary = f"it expired {-days:.1f} days ago, on {_when(first.not_after)}{whose}"
    else:
        summary = f"it expires in {days:.1f} days, on {_when(first.not_after)}{whose}"
    has_middle = item["critical_days"] < _URGENT_DAYS < item["warning_days"]
    is_urgent = has_middle and state == "warning" and days < _URGENT_DAYS
    threshold = limits("days", item["warning_days"], item["critical_days"], low=True)
    return Finding(
        "security.certificate_expiry",
        state,
        subject,
        f"within two weeks: {summary}" if is_urgent else summary,
        value=round(days, 2),
        unit="days",
        threshold=f"{threshold}, urgent below {_URGENT_DAYS} days" if has_middle else threshold,
        advice="" if state == "ok" else _URGENT if is_urgent else _RENEW,
        evidence=[f"subject {clean(chain[0].subject, 200)}", f"sha256 {chain[0].fingerprint}"],
    )


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).date().isoformat()


def _chain(review: Review, item: t.Mapping[str, t.Any], chain: t.Sequence[Certificate]) -> Finding:
    untrusted = security_x509.trust_problem(review.host, chain, item["trust"])
    disorder = security_x509.order_problem(chain)
    problem = untrusted or disorder
    advice = "Append the issuer's intermediate certificates in order, leaf first; for an own authority declare trust."
    return Finding(
        "security.certificate_chain",
        "critical" if untrusted else "warning" if disorder else "ok",
        shown(item["path"]),
        problem or f"it leads to a trusted root, with {many(len(chain) - 1, 'certificate')} between, in order",
        value=len(chain),
        unit="count",
        threshold="critical when the roots of " + (shown(item["trust"]) if item["trust"] else "this host") + " do not vouch for it",
        not_covered="revocation",
        advice=advice if problem else "",
        evidence=[f"{clean(one.subject, 150)} issued by {clean(one.issuer, 150)}" for one in chain[:5]],
    )


def names(hosts: t.Sequence[str], subject: str, leaf: Certificate) -> Finding:
    """Judge whether a certificate is good for all the hosts that it has to serve."""
    missing = [name for name in hosts if not security_x509.matches(name, leaf.names)]
    return Finding(
        "security.certificate_name",
        "critical" if missing else "ok",
        subject,
        f"it is not good for {', '.join(missing)}" if missing else f"it is good for {', '.join(hosts)}",
        threshold="critical when a declared host is not among its names",
        advice="Order a certificate that names these hosts, or correct the inventory." if missing else "",
        evidence=[f"names: {', '.join(leaf.names) or 'none (a common name alone does not count)'}"],
    )


def _key(review: Review, item: t.Mapping[str, t.Any], leaf: Certificate) -> list[Finding]:
    subject = shown(item["key"])
    try:
        read_small(item["key"])
        status = os.stat(item["key"])
    except FileNotFoundError:
        advice = "Restore the key, or correct the path in the inventory."
        return [Finding(IDS[3], "critical", subject, "the private key is declared, but it is not there", advice=advice)]
    except (OSError, MaintenanceError) as error:
        return [unknown(IDS[3], subject, f"it could not be read: {why_unread(error)}", "Make it readable for the review.")]
    private = security_x509.public_key_of_private(review.host, item["key"])
    public = security_x509.public_key(review.host, leaf.pem.encode())
    if not private or not public:
        advice = "Check by hand; keys with a passphrase cannot be compared."
        return [unknown(IDS[3], subject, "openssl could not read the key or the certificate's public key", advice)]
    match = private == public
    mode = security_files.Judged()
    mode.judge(item["key"], status, security_files.Rule(int(item["key_mode"], 8), None, None))
    return [
        Finding(
            "security.certificate_key",
            "ok" if match else "critical",
            subject,
            f"it {'belongs' if match else 'does not belong'} to the certificate {shown(item['path'])}",
            threshold="critical when key and certificate do not belong together",
            advice="" if match else "Put the pair in place that was issued together; the service cannot start with this one.",
        ),
        Finding(
            "security.file_mode",
            mode.modes[0][0] if mode.modes else "ok",
            subject,
            mode.modes[0][1] if mode.modes else "the private key is as closed as declared",
            threshold=f"at most {item['key_mode']}",
            advice="Close it with chmod and replace the key: others may have read it." if mode.modes else "",
        ),
    ]


def _served(item: t.Mapping[str, t.Any], leaf: Certificate) -> list[Finding]:
    connect = item["connect"]
    name = item["hosts"][0] if item["hosts"] else security_tls.endpoint(connect)[0]
    served = security_tls.ask(connect, name, item["trust"])
    if served.problem:
        advice = "Start the service or correct connect, then look again."
        reason = f"{connect} could not be asked: {served.problem}"
        return [unknown(finding_id, connect, reason, advice) for finding_id in ("security.certificate_served", "security.tls_protocols")]
    same = served.fingerprint == leaf.fingerprint
    problems = [
        *([] if same else [f"it serves another certificate than {shown(item['path'])}: reload it"]),
        *([f"clients refuse it: {served.refused}"] if served.refused else []),
    ]
    return [
        Finding(
            "security.certificate_served",
            "critical" if problems else "ok",
            connect,
            "; ".join(problems) or f"it serves {shown(item['path'])}, and clients accept it for {name}",
            threshold="critical when another one is served or a client refuses it",
            advice="Reload the service, and send the whole chain with the certificate." if problems else "",
            evidence=[f"served sha256 {served.fingerprint}", f"file sha256 {leaf.fingerprint}"],
        ),
        protocols(connect, served),
    ]


def protocols(connect: str, served: security_tls.Served) -> Finding:
    """Judge the protocol versions and ciphers that a server accepted."""
    weak = [*security_tls.old_offered(served), *([f"cipher {served.weak_cipher}"] if served.weak_cipher else [])]
    unasked = [security_tls.said(version) for version, offers in served.offered.items() if offers is None]
    unasked += [_WEAK] if served.weak_cipher is None else []
    offered = [security_tls.said(version) for version, offers in served.offered.items() if offers]
    state = "warning" if weak else "unknown" if set(unasked) & {"TLS 1.0", "TLS 1.1", _WEAK} else "ok"
    advice = {
        "warning": "Offer TLS 1.2 and 1.3 with strong ciphers only.",
        "unknown": "This host cannot ask for what was not covered, or gets no clear answer; look from another one.",
    }
    return Finding(
        "security.tls_protocols",
        state,
        connect,
        f"it offers {', '.join(offered) or 'no known version'}" + (f"; outdated or weak: {', '.join(weak)}" if weak else ""),
        threshold="warning when TLS 1.0, TLS 1.1 or a weak cipher is accepted",
        not_covered=f"could not be asked from this host: {', '.join(unasked)}" if unasked else "",
        advice=advice.get(state, ""),
        evidence=[f"agreed on {served.cipher}"],
    )


def passes_bad_sample(review: Review) -> str:
    """Plant an expired certificate; return it when it counts as valid."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "expired.crt")
        with open(path, "wb") as sample:
            sample.write(_EXPIRED_SAMPLE)
        item = filled(OPTIONS["certificates"]["options"], {"path": path, "hosts": ["planted.invalid"]})
        silent = Review(review.params, review.host, True, review.now)
        states = {finding.id: finding.state for finding in _item(silent, item)}
    wrong = [name for name in IDS[:3] if states.get(name) != "critical"]
    return f"an expired, self-signed certificate for another host ({', '.join(wrong)})" if wrong else ""
