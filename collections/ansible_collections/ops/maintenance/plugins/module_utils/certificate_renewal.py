# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that certbot renews: what is due, whether a renewal would succeed, and what is served in truth afterwards."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass, field

from . import certbot_files, certbot_run, security_tls, security_x509
from .certbot_files import Lineage
from .errors import InputError, MaintenanceError, out_of_range, refuse
from .host import Host
from .judge import below_limit, limits, many
from .record import Action, Finding, Metric, Outcome, status_of, unknown
from .security_x509 import Certificate

OPTIONS: dict[str, t.Any] = {
    "config_dir": {"type": "path", "default": "/etc/letsencrypt"},
    "work_dir": {"type": "path", "default": "/var/lib/letsencrypt"},
    "logs_dir": {"type": "path", "default": "/var/log/letsencrypt"},
    "certificates": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "connect": {"type": "str", "default": ""},
            "host": {"type": "str", "default": ""},
            "trust": {"type": "path", "default": ""},
            "service": {"type": "str", "default": ""},
            "reload_command": {"type": "list", "elements": "str", "default": []},
            "check_command": {"type": "list", "elements": "str", "default": []},
        },
    },
    "renew": {"type": "bool", "default": False},
    "rehearse": {"type": "bool", "default": False},
    "renew_before_days": {"type": "float", "default": 30.0},
    "critical_days": {"type": "float", "default": 7.0},
    "authority_ca_file": {"type": "path", "default": ""},
    "timeout_seconds": {"type": "float", "default": 300.0},
    "minimum_seconds": {"type": "int", "default": 300},
}
_WAIT_SECONDS = 5.0

Declared = t.Mapping[str, t.Any]


@dataclass
class Seen:
    """One certificate as it lies there and as it is served."""

    lineage: Lineage
    declared: Declared | None
    chain: list[Certificate] = field(default_factory=list)
    problem: str = ""
    served: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the certificate in the file."""
        return self.chain[0].fingerprint if self.chain else ""

    @property
    def is_stale(self) -> bool:
        """Whether something else is served than what lies there."""
        return bool(self.served and self.fingerprint and self.served != self.fingerprint)


def reloaded(declared: Declared) -> str:
    """Name what is reloaded for a certificate; empty where nothing is declared."""
    return str(declared.get("service") or " ".join(declared.get("reload_command") or [])[:80])


class Renewal:
    """certbot on one host."""

    def __init__(self, params: Declared, host: Host) -> None:
        self.params = params
        self.host = host
        self.declared = {item["name"]: item for item in params["certificates"]}

    def look(self, lineage: Lineage) -> Seen:
        """Look at a certificate, its chain and what is served."""
        seen = Seen(lineage, self.declared.get(lineage.name))
        try:
            seen.chain = lineage.chain(self.host)
            disorder = lineage.disorder(self.host, seen.chain)
        except (OSError, MaintenanceError) as error:
            seen.problem = str(error)
            advice = "Repair what certbot keeps, then run again."
            seen.findings = [unknown("certificate.expiry", lineage.name, f"Its dates are not known: {error}.", advice)]
        else:
            seen.findings = [self._expiry(seen), self._chain(seen, disorder)]
        if seen.declared and seen.declared["connect"]:
            seen.findings.append(self._served(seen, seen.declared))
        return seen

    def days_left(self, seen: Seen) -> float:
        """Return how long the certificate, or the first of its chain to end, is good for."""
        return (min(one.not_after for one in seen.chain) - self.host.now().timestamp()) / 86400

    def limit(self, seen: Seen) -> float:
        """Return from when on a renewal is due: by its renewal file, or as declared, but no earlier than in its last third."""
        stated = seen.lineage.renew_before_days
        lifetime = (seen.chain[0].not_after - seen.chain[0].not_before) / 86400
        return min(self.params["renew_before_days"], lifetime / 3) if stated is None else stated

    def is_due(self, seen: Seen) -> bool:
        """Whether the certificate itself is to be renewed now; an authority above it that ends first is no reason to order daily."""
        return bool(seen.chain) and (seen.chain[0].not_after - self.host.now().timestamp()) / 86400 < self.limit(seen)

    def _expiry(self, seen: Seen) -> Finding:
        days = self.days_left(seen)
        warning = self.limit(seen)
        critical = min(self.params["critical_days"], warning / 2)
        advice = "Let the run renew it (renew), and see why the timer has not (/var/log/letsencrypt)."
        if not self.is_due(seen):
            advice = "An authority in its chain ends before it does: order it anew (certbot renew --force-renewal)."
        state = "critical" if days <= 0 else below_limit(days, warning, critical)
        return Finding(
            "certificate.expiry",
            state,
            seen.lineage.name,
            f"It expired {-days:.1f} days ago." if days <= 0 else f"It expires in {days:.1f} days.",
            round(days, 2),
            "days",
            limits("days", warning, critical, low=True),
            advice="" if state == "ok" else advice,
            evidence=[f"names: {', '.join(seen.chain[0].names[:10])}", f"sha256 {seen.fingerprint}"],
        )

    def _chain(self, seen: Seen, disorder: str) -> Finding:
        trust = (seen.declared or {}).get("trust") or None
        problem = disorder or security_x509.trust_problem(self.host, seen.chain, trust)
        return Finding(
            "certificate.chain",
            "critical" if problem else "ok",
            seen.lineage.name,
            f"{problem}."
            if problem
            else f"Its files belong together and lead to a trusted root over {many(len(seen.chain) - 1, 'certificate')}.",
            len(seen.chain),
            "count",
            not_covered="revocation",
            advice="Order the certificate anew, or declare the root of an own authority (trust)." if problem else "",
        )

    def _served(self, seen: Seen, declared: Declared) -> Finding:
        connect = declared["connect"]
        name = declared["host"] or next((n[4:] for n in (seen.chain[0].names if seen.chain else ()) if n.startswith("DNS:")), "")
        answer = security_tls.ask(connect, name or security_tls.endpoint(connect)[0], declared["trust"] or None)
        seen.served = answer.fingerprint
        advice = "Start the service or correct connect, then look again."
        if answer.problem or not seen.chain:
            why = answer.problem or f"there is nothing to compare it with: {seen.problem}"
            return unknown("certificate.served", connect, f"What is served is not known: {why}.", advice)
        sent = self._sent(connect, name)
        problems = [
            *([f"it serves another certificate than {seen.lineage.name} has"] if seen.is_stale else []),
            *([f"clients refuse it: {answer.refused}"] if answer.refused else []),
        ]
        if not problems and sent and sent != [one.fingerprint for one in seen.chain]:
            problems = ["it sends other certificates with it than fullchain.pem holds"]
        return Finding(
            "certificate.served",
            "critical" if problems else "ok",
            connect,
            f"{'; '.join(problems)}." if problems else f"It serves {seen.lineage.name} with its chain, and clients accept it.",
            threshold="critical when another one is served or a client refuses it",
            not_covered="" if sent else "the chain that is sent",
            advice="Reload the service (name it as service), and let it serve fullchain.pem." if problems else "",
            evidence=[f"served sha256 {seen.served}", f"file sha256 {seen.fingerprint}"],
        )

    def _sent(self, connect: str, name: str) -> list[str]:
        argv = ["openssl", "s_client", "-connect", connect, "-showcerts", *(["-servername", name] if name else [])]
        try:
            ran = self.host.run(argv, timeout=15)
        except MaintenanceError:
            return []
        return [security_x509.fingerprint(block) for block in security_x509.split(ran.stdout.encode())[0]]

    def renew(self, seen: Seen) -> Action:
        """Renew a certificate and look whether there is a newer one."""
        name = seen.lineage.name
        before = {"days_left": round(self.days_left(seen), 1), "sha256": seen.fingerprint}
        try:
            ran = certbot_run.run(self.host, self.params, f"--cert-name={name}", "--force-renewal")
            chain = seen.lineage.chain(self.host)
        except MaintenanceError as error:
            return Action(name, "renew", "failed", f"{name} was not renewed: {error}", before)
        after = Seen(seen.lineage, seen.declared, chain)
        if not ran.is_well or chain[0].fingerprint == seen.fingerprint or chain[0].not_after <= seen.chain[0].not_after:
            return Action(name, "renew", "failed", f"{name} was not renewed: {ran.said}", before, {"sha256": chain[0].fingerprint})
        days = round(self.days_left(after), 1)
        return Action(
            name, "renew", "changed", f"{name} is good for {days:g} days now", before, {"days_left": days, "sha256": after.fingerprint}
        )

    def reload(self, declared: Declared) -> Action:
        """Check the service's configuration and reload it; a configuration that does not hold is not loaded."""
        name = reloaded(declared)
        if declared["check_command"]:
            ran = self.host.run(declared["check_command"], timeout=60)
            if ran.rc != 0:
                return Action(name, "reload", "failed", f"{name} was not reloaded, its configuration does not hold: {ran.why()}")
        ran = self.host.run(declared["reload_command"] or ["systemctl", "reload", "--", name], timeout=90)
        done = ran.rc == 0
        return Action(name, "reload", "changed" if done else "failed", f"{name} was reloaded" if done else f"{name}: {ran.why()}")

    def look_again(self, seen: Seen) -> Seen:
        """Look until the file is served soundly, as old and new workers both answer for a moment after a reload."""
        end = self.host.now().timestamp() + _WAIT_SECONDS
        while True:
            found = self.look(seen.lineage)
            is_settled = all(finding.state == "ok" for finding in found.findings if finding.id == "certificate.served")
            if is_settled or self.host.now().timestamp() > end:
                return found
            self.host.sleep(0.2)


def input_problems(params: Declared) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    problems = out_of_range(params, ("renew_before_days", "critical_days", "minimum_seconds")) + out_of_range(
        params, ("timeout_seconds",), 1
    )
    for path in ("config_dir", "work_dir", "logs_dir", *(["authority_ca_file"] if params["authority_ca_file"] else [])):
        if not os.path.isabs(params[path]):
            problems.append(str(InputError.of(path, params[path], "an absolute path", "correct it")))
    names = [item["name"] for item in params["certificates"]]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"certificates has {name!r} more than once, expected each name once; remove one." for name in twice]
    for item in params["certificates"]:
        if not re.fullmatch(r"[A-Za-z0-9*_][A-Za-z0-9*._-]*", item["name"]):
            problems.append(
                str(
                    InputError.of(
                        "certificates.name", item["name"], "the name of a certificate as certbot certificates shows it", "correct it"
                    )
                )
            )
        if item["check_command"] and not reloaded(item):
            problems.append(
                f"certificates.check_command of {item['name']!r} is given without service or reload_command; name what to reload."
            )
        if item["service"] and item["reload_command"]:
            problems.append(f"certificates of {item['name']!r} has service and reload_command, expected one of them; remove the other.")
        if item["connect"]:
            try:
                security_tls.endpoint(item["connect"])
            except ValueError as error:
                problems.append(f"certificates.{error}, such as 127.0.0.1:443; correct it.")
    return problems


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Look at every certificate, renew and reload what is due where that is asked for, and look again."""
    refuse(input_problems(params))
    if not params["certificates"] and not os.path.isdir(os.path.join(params["config_dir"], "renewal")):
        return Outcome("certificates", "certificate_renewal", "skipped", "not configured")
    work = Renewal(params, host)
    try:
        found = certbot_files.lineages(params["config_dir"])
    except MaintenanceError as error:
        advice = "Run with become, or correct config_dir."
        finding = unknown("certificate.expiry", "certbot", f"No certificate could be looked at: {error}.", advice)
        return Outcome("certificates", "certificate_renewal", "ok", str(error), findings=[finding])
    late = bool(params["deadline"]) and params["deadline"] - host.now().timestamp() < params["minimum_seconds"]
    findings, actions, metrics = _missing(work, found), [], []
    for lineage in found:
        seen = work.look(lineage)
        done = _act(work, seen, "deferred" if late else "due" if check_mode else "")
        if any(action.status == "changed" for action in done):
            seen = work.look_again(seen)
        if params["rehearse"] and not check_mode and not late:
            seen.findings.append(certbot_run.rehearsal(host, params, lineage))
        findings += seen.findings
        actions += done
        metrics += [Metric("certificate.days_left", lineage.name, round(work.days_left(seen), 2), "days")] if seen.chain else []
    taken_up = {name for name, declared in work.declared.items() if reloaded(declared)}
    findings.append(certbot_files.timer_finding(host, found, taken_up))
    failed = [action.summary for action in actions if action.status == "failed"]
    said = f"{many(len(found), 'certificate')}, {many(len(actions), 'step')} due or done"
    return Outcome(
        subject="certificates",
        operation="certificate_renewal",
        # A renewal that failed is a finding to act on while the old certificate is still good, and no reason to end a run.
        status=status_of([action for action in actions if action.status != "failed"], check_mode),
        summary="; ".join(failed[:3]) or said,
        findings=findings + _failures(actions),
        metrics=metrics,
        actions=actions,
    )


def _missing(work: Renewal, found: t.Sequence[Lineage]) -> list[Finding]:
    known = {lineage.name for lineage in found}
    advice = "Order it with certbot, or correct the name."
    return [
        unknown("certificate.expiry", name, "It is declared, but certbot does not know it.", advice)
        for name in work.declared
        if name not in known
    ]


def _act(work: Renewal, seen: Seen, instead: str) -> list[Action]:
    """Renew and reload what is due; ``instead`` is the status where that is not to be done now."""
    declared, name = seen.declared or {}, seen.lineage.name
    renewing = work.params["renew"] and work.is_due(seen)
    unit = reloaded(declared)
    reloading = bool(unit) and (renewing or seen.is_stale)
    if instead:
        planned = [Action(name, "renew", instead, f"{name} ends in {work.days_left(seen):.0f} days")] if renewing else []
        return planned + ([Action(unit, "reload", instead, f"{unit} is to serve {name}")] if reloading else [])
    done = [work.renew(seen)] if renewing else []
    if reloading and (seen.is_stale or any(action.status == "changed" for action in done)):
        done.append(work.reload(declared))
    return done


def _failures(actions: t.Sequence[Action]) -> list[Finding]:
    advice = "Read the log of certbot and of the service, repair, and run again before the certificate ends."
    return [
        Finding("certificate.renewal", "critical", action.subject, action.summary, advice=advice)
        for action in actions
        if action.status == "failed"
    ]
