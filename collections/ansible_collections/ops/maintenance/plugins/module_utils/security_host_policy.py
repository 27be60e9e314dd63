# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built-in rules for the host beside sshd: umask, age of passwords, core dumps, and what is shown before a log-in."""

from __future__ import annotations

import os
import re
import tempfile
import typing as t
from dataclasses import dataclass, field

from . import security_accounts, security_host_settings, security_sshd, security_sshd_started
from .errors import InputError, MaintenanceError, out_of_range
from .judge import many
from .record import Finding, clean
from .security_common import Review, why_unread
from .security_host_settings import Umask

OPTIONS: dict[str, t.Any] = {
    "host_policy": {"type": "bool", "default": False},
    "umask": {"type": "str", "default": "0027"},
    "password_max_days": {"type": "int", "default": 365, "no_log": False},
    "core_dumps": {"type": "bool", "default": False},
    "login_banner": {"type": "bool", "default": False},
}
IDS = ("security.host_policy",)

_SUBJECT = "host"
_TELLING = re.compile(r"\\[mrsv]")


@dataclass
class Seen:
    """What a rule found: how it is broken, and what it could not look at."""

    broken: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def read(self, path: str) -> str:
        """Return the text of a file; one that is not there is empty."""
        try:
            return security_host_settings.text_of(path)
        except (OSError, MaintenanceError) as error:
            self.gaps.append(f"{path}: {why_unread(error)}")
            return ""


@dataclass(frozen=True)
class Rule:
    """One rule.

    :param name: stable, subject of its finding after ``host.``.
    :param cis: sections in the CIS Debian Linux 12 Benchmark, version 1.1.0.
    :param is_asked: whether it holds here.
    :param wanted: what it wants, in words.
    """

    name: str
    cis: str
    is_asked: t.Callable[[t.Mapping[str, t.Any]], bool]
    look: t.Callable[[Review, str], Seen]
    wanted: str
    advice: str


def _umask(review: Review, _proc: str) -> Seen:
    seen, wanted = Seen(), int(review.params["umask"], 8)
    found: list[Umask] = security_host_settings.umasks(review.etc, seen.read)
    seen.broken = [f"{one.where}: umask {one.mask:04o}" for one in found if wanted & ~one.mask]
    if not any(one.is_for_sessions for one in found) and not seen.gaps:
        seen.broken.append("nothing gives sessions a umask of their own: no profile of the shells, and no UMASK that pam_umask applies")
    return seen


def _password_age(review: Review, _proc: str) -> Seen:
    seen, most = Seen(), review.params["password_max_days"]
    new = security_host_settings.login_defs(seen.read(os.path.join(review.etc, "login.defs"))).get("PASS_MAX_DAYS", "none")
    if not (new.isdigit() and int(new) <= most):
        seen.broken.append(f"new accounts: PASS_MAX_DAYS is {clean(new, 20)}")
    try:
        shadows = security_accounts.shadows(review.etc)
    except (OSError, MaintenanceError) as error:
        seen.gaps.append(f"the shadow file could not be read: {why_unread(error)}")
        return seen
    seen.broken += [
        f"{name}: its password {'has no age' if shadow.longest < 0 else f'may grow {shadow.longest} days old'}"
        for name, shadow in sorted(shadows.items())
        if shadow.word[:1] not in ("", "!", "*") and not 0 <= shadow.longest <= most
    ]
    return seen


def _core_dumps(review: Review, proc: str) -> Seen:
    seen = Seen()
    limit = security_host_settings.hard_core_limit(review.etc, seen.read)
    if limit != "0":
        seen.broken.append(f"limits.conf: the hard limit of core for * is {clean(limit, 20) if limit else 'not set'}")
    dumpable = seen.read(os.path.join(proc, "sys/fs/suid_dumpable")).strip()
    if not dumpable:
        seen.gaps.append("fs.suid_dumpable could not be read")
    elif dumpable != "0":
        seen.broken.append(f"fs.suid_dumpable is {clean(dumpable, 20)}: programs with more rights than their user leave dumps too")
    if "systemd-coredump" in seen.read(os.path.join(proc, "sys/kernel/core_pattern")):
        kept = security_host_settings.coredump(os.path.dirname(review.etc), seen.read)
        wanted = {"Storage": "none", "ProcessSizeMax": "0"}
        seen.broken += [
            f"coredump.conf: {name} is {clean(kept.get(name, 'not set'), 20)}" for name in wanted if kept.get(name) != wanted[name]
        ]
    return seen


def _banner(review: Review, proc: str) -> Seen:
    seen = Seen()
    for name in ("issue", "issue.net"):
        text = seen.read(os.path.join(review.etc, name))
        system = security_host_settings.system_name(seen.read(os.path.join(review.etc, "os-release")))
        if not text.strip():
            seen.broken.append(f"{name} says nothing")
        elif _TELLING.search(text) or (system and system.lower() in text.lower()):
            seen.broken.append(f"{name} tells which system this is")
    if review.host.which("sshd"):
        try:
            options = security_sshd.ask(review, security_sshd_started.started(review.etc, proc).given, "")
        except MaintenanceError as error:
            seen.gaps.append(f"the banner of sshd: {error}")
        else:
            seen.broken += ["sshd shows no banner"] if options.get("banner", ["none"])[0] == "none" else []
    return seen


RULES = (
    Rule(
        "umask",
        "5.4.3.3",
        lambda params: bool(params["umask"]),
        _umask,
        "umask {umask} or one that takes more away, wherever one is set",
        "Set UMASK in login.defs and let pam_umask apply it, or the profiles of the shells.",
    ),
    Rule(
        "password_age",
        "5.4.1.1",
        lambda params: bool(params["password_max_days"]),
        _password_age,
        "passwords that have to be changed within {password_max_days} days",
        "Set PASS_MAX_DAYS in login.defs, and chage --maxdays for the accounts that are there.",
    ),
    Rule(
        "core_dumps",
        "1.5.3",
        lambda params: not params["core_dumps"],
        _core_dumps,
        "no core dumps, which hold what the program had in memory",
        "Set '* hard core 0' in limits.d, fs.suid_dumpable=0 in sysctl.d, and Storage=none, ProcessSizeMax=0 in coredump.conf where there is one.",
    ),
    Rule(
        "banner",
        "1.6.2, 1.6.3, 5.1.5",
        lambda params: bool(params["login_banner"]),
        _banner,
        "a warning before a log-in that does not tell the system",
        "Write one into issue and issue.net, and name issue.net as Banner of sshd.",
    ),
)
"""The built-in policy; the banner is a matter of law and taste, and so asked for only where it is declared."""


def look(review: Review, proc: str = "/proc") -> list[Finding]:
    """Return a finding for each broken rule, so that one can be waived, or one for all of them."""
    rules = [rule for rule in RULES if rule.is_asked(review.params)]
    seen = {rule: rule.look(review, proc) for rule in rules}
    findings = [_broken(review, rule, seen[rule].broken) for rule in rules if seen[rule].broken]
    gaps = [gap for rule in rules for gap in seen[rule].gaps]
    if findings and not gaps:
        return findings
    whole = Finding(
        IDS[0],
        "unknown" if gaps or not rules else "ok",
        _SUBJECT,
        f"{many(len(findings), 'of the built-in rules is', 'of the built-in rules are')} broken, {len(rules)} were looked at",
        value=len(findings),
        unit="count",
        threshold="warning by rule",
        not_covered="; ".join(gaps),
        advice="Make it readable for the review." if gaps else "" if rules else "Every rule is switched off: switch host_policy off.",
    )
    return [*findings, whole]


def _broken(review: Review, rule: Rule, lines: t.Sequence[str]) -> Finding:
    return Finding(
        IDS[0],
        "warning",
        f"{_SUBJECT}.{rule.name}",
        lines[0] if len(lines) == 1 else f"{lines[0]}, and {len(lines) - 1} more",
        value=len(lines),
        unit="count",
        threshold=f"warning unless {rule.wanted.format(**review.params)} (CIS Debian Linux 12, {rule.cis})",
        advice=f"{rule.advice} Where it is meant, declare it, or waive it.",
        evidence=list(lines[:20]),
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = out_of_range(params, ("password_max_days",), most=99998)
    if params["umask"] and not re.fullmatch(r"0?[0-7]{3}", params["umask"]):
        wrong.append(str(InputError.of("umask", params["umask"], "three octal digits in quotes, such as '0027'", "correct it")))
    return wrong


def passes_bad_sample(review: Review) -> str:
    """Plant an open umask, a password without an age and dumps of everything; return what was not noticed."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as etc:
        for name, text in (("login.defs", "UMASK 000\nPASS_MAX_DAYS 99999\n"), ("shadow", "planted:$y$x:1:0:99999:7:::\n")):
            with open(os.path.join(etc, name), "w", encoding="utf-8") as sample:
                sample.write(text)
        strict = {**review.params, "umask": "0027", "password_max_days": 365, "core_dumps": False, "login_banner": False}
        told = look(Review(strict, review.host, True, review.now, etc), etc)
        missed = {"umask", "password_age", "core_dumps"} - {one.subject.partition(".")[2] for one in told if one.state == "warning"}
        return f"a host that breaks the rules {', '.join(sorted(missed))} as one that keeps them" if missed else ""
