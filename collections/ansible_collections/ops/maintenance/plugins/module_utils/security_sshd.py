# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that sshd really uses, for everybody and for those whom Match blocks treat apart, against declared and built-in rules."""

from __future__ import annotations

import re
import tempfile
import typing as t
from datetime import datetime, timezone

from . import security_sshd_config, security_sshd_policy, security_sshd_started
from .errors import MaintenanceError
from .judge import many
from .record import Finding, clean
from .security_common import Review, shown, unknown, why_unread

OPTIONS: dict[str, t.Any] = {
    "sshd": {"type": "dict", "default": {}},
    "sshd_policy": {"type": "bool", "default": False},
    "sshd_connections": {"type": "list", "elements": "str", "default": []},
}
IDS = ("security.sshd", "security.sshd_policy", "security.sshd_reload")

Effective = t.Mapping[str, t.Sequence[str]]
_PAIR = r"(?:user|host|addr|laddr|lport|rdomain)=[\w.@:+%-]+"
_CONNECTION = re.compile(rf"{_PAIR}(?:,{_PAIR})*")
_SAME = {"prohibit-password": "without-password", "true": "yes", "false": "no"}


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return which connections cannot be understood, one sentence each."""
    return [
        f"sshd_connections holds {text!r}, expected user=NAME,host=NAME,addr=ADDRESS; correct it."
        for text in params["sshd_connections"]
        if not _CONNECTION.fullmatch(text)
    ]


def parse_sshd(text: str) -> dict[str, list[str]]:
    """Read what ``sshd -T`` prints: option to its values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _unused, value = line.strip().partition(" ")
        if name:
            found.setdefault(name.lower(), []).append(value.strip())
    return found


def as_sshd(value: object) -> str:
    """Return an expected value as ``sshd -T`` writes it; YAML reads a bare yes as true."""
    text = str(value).strip().lower()
    return _SAME.get(text, text)


def sshd_deviations(policy: t.Mapping[str, t.Any], effective: Effective) -> tuple[list[str], list[str]]:
    """Return which options are not as declared, and which sshd does not have."""
    wrong, absent = [], []
    for name, value in policy.items():
        allowed = [as_sshd(one) for one in (value if isinstance(value, list) else [value])]
        values = effective.get(name.lower())
        if values is None:
            absent.append(name)
        elif not all(as_sshd(one) in allowed for one in values):
            wrong.append(f"{name} is {clean(', '.join(values), 100)}, declared is {' or '.join(allowed)}")
    return wrong, absent


def look(review: Review, proc: str = "/proc") -> list[Finding]:
    """Ask sshd what it really uses, then judge that, and whether the running one uses it too."""
    params = review.params
    asked = [name for name, wanted in zip(IDS, (params["sshd"], params["sshd_policy"], True)) if wanted]
    started = security_sshd_started.started(review.etc, proc)
    config, gaps = security_sshd_config.Config(), [*started.gaps]
    try:
        config = security_sshd_config.read(started.path)
    except (OSError, MaintenanceError) as error:
        gaps.append(f"Match blocks: {shown(started.path)}: {why_unread(error)}")
    try:
        effective = {"": ask(review, started.given, "")}
    except MaintenanceError as error:
        advice = "Run with become: true, install sshd or repair its configuration."
        return [unknown(name, "sshd", f"its options are not known: {error}", advice) for name in asked]
    made_up, unclear = security_sshd_config.connections(config.blocks)
    gaps += [f"{block}: declare a connection for it in sshd_connections" for block in unclear if not params["sshd_connections"]]
    for connection in dict.fromkeys([*params["sshd_connections"], *made_up]):
        try:
            effective[connection] = ask(review, started.given, connection)
        except MaintenanceError as error:
            gaps.append(f"{connection}: {error}")
    findings = [_declared(params["sshd"], effective, gaps)] if params["sshd"] else []
    findings += _policy(params["sshd"], effective, gaps) if params["sshd_policy"] else []
    return [*findings, _reload(config, effective[""], started.running)]


def ask(review: Review, given: t.Sequence[str], connection: str) -> dict[str, list[str]]:
    """Return the options that sshd uses for a connection, or for none in particular.

    :param given: what it is started with.
    :raises MaintenanceError: sshd does not say.
    """
    argv = ["sshd", "-T", *given]
    ran = review.host.run([*argv, *(["-C", connection] if connection else [])])
    if ran.rc != 0 and not connection and "connection test specification" in ran.stderr:  # for some blocks it insists on one
        ran = review.host.run([*argv, "-C", security_sshd_config.ANYBODY])
    if ran.rc != 0 or not ran.stdout.strip():
        raise MaintenanceError(ran.why())
    return parse_sshd(ran.stdout)


def _for(connection: str) -> str:
    return f" (for {connection})" if connection else ""


def _declared(policy: t.Mapping[str, t.Any], effective: t.Mapping[str, Effective], gaps: t.Sequence[str]) -> Finding:
    lines: list[str] = []
    missing: list[str] = []
    for connection, options in effective.items():
        wrong, absent = sshd_deviations(policy, options)
        lines += [f"{line}{_for(connection)}" for line in wrong if line not in lines]
        missing += [name for name in absent if name not in missing]
    state = "warning" if lines else "unknown" if missing or gaps else "ok"
    advice = {"warning": "Correct sshd's configuration and reload it.", "unknown": "Correct what was declared, or make it readable."}
    return Finding(
        IDS[0],
        state,
        "sshd",
        f"{len(lines)} of {many(len(policy), 'declared option')} not as declared",
        value=len(lines),
        unit="count",
        threshold="warning from 1",
        not_covered="; ".join([*gaps, *(f"sshd has no option {name}" for name in missing)]),
        advice=advice.get(state, ""),
        evidence=lines,
    )


def _policy(declared: t.Mapping[str, t.Any], effective: t.Mapping[str, Effective], gaps: t.Sequence[str]) -> list[Finding]:
    """Return a finding for each broken rule, so that one can be waived, or one for all of them; what is declared goes before."""
    own = {name.lower() for name in declared}
    rules = [rule for rule in security_sshd_policy.RULES if rule.option not in own]
    findings = []
    for rule in rules:
        said = {connection: rule.broken(options) for connection, options in effective.items()}
        lines = [f"{line}{_for(connection)}" for connection, line in said.items() if line and (not connection or line != said[""])]
        if lines:
            findings.append(rule.finding(IDS[1], lines))
    if findings and not gaps:
        return findings
    whole = Finding(
        IDS[1],
        "unknown" if gaps else "ok",
        "sshd",
        f"{many(len(findings), 'of the built-in rules is', 'of the built-in rules are')} broken, {len(rules)} were looked at",
        value=len(findings),
        unit="count",
        threshold="warning or critical by rule",
        not_covered="; ".join(gaps),
        advice="Make the configuration readable, and declare a connection for each Match block." if gaps else "",
    )
    return [*findings, whole]


def _reload(config: security_sshd_config.Config, effective: Effective, running: t.Sequence[security_sshd_started.Listener]) -> Finding:
    if not running:
        return Finding(IDS[2], "ok", "sshd", "no sshd waits for connections, so none uses an older configuration")
    if not config.files:
        return unknown(
            IDS[2], "sshd", "whether the running sshd uses its files is not known: they could not be read", "Run with become: true."
        )
    moment = security_sshd_started.loaded(running[0], (effective.get("pidfile") or [""])[0])
    changed = security_sshd_config.changed_since(config, moment)
    when = datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")
    return Finding(
        IDS[2],
        "warning" if changed else "ok",
        "sshd",
        f"{many(len(changed), 'file')} changed since sshd read its configuration at {when}",
        value=len(changed),
        unit="count",
        threshold="warning from 1",
        advice="Reload sshd (systemctl reload ssh): what was looked at here is not what runs." if changed else "",
        evidence=changed,
    )


def passes_bad_sample(_review: Review) -> str:
    """Plant an open sshd; return it when it counts as closed."""
    effective = parse_sshd("permitrootlogin yes\npasswordauthentication yes\nciphers 3des-cbc\n")
    wrong, _unused = sshd_deviations({"PermitRootLogin": False, "PasswordAuthentication": "no"}, effective)
    broken = [rule for rule in security_sshd_policy.RULES if rule.broken(effective)]
    if len(wrong) != 2 or len(broken) < 3:
        return "an sshd that lets root in with a password as one that does not"
    with tempfile.NamedTemporaryFile() as planted:
        config = security_sshd_config.Config([planted.name])
        return "" if security_sshd_config.changed_since(config, 0) else "a configuration that changed as one that did not"
