# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built-in rules for sshd, as data: option, what it may be, how grave another value is, section of the CIS benchmark."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .record import Finding, clean


@dataclass(frozen=True)
class Rule:
    """One rule; of the three ways to say what may be, one is given.

    :param name: stable, subject of its findings after ``sshd.``.
    :param cis: section in the CIS Debian Linux 12 Benchmark, version 1.1.0.
    :param allowed: values that the option may have.
    :param most: seconds or a number that it may be at most, and never 0.
    :param weak: what none of its comma-separated values may match.
    :param unless: option that makes the rule moot when it is ``yes``.
    """

    name: str
    option: str
    cis: str = ""
    state: str = "warning"
    allowed: t.Sequence[str] = ()
    most: int = 0
    weak: str = ""
    unless: str = ""

    def broken(self, effective: t.Mapping[str, t.Sequence[str]]) -> str:
        """Say how the options of sshd break this rule; empty when they do not, or when this sshd has no such option."""
        values = effective.get(self.option)
        if not values or effective.get(self.unless, ["no"])[0] == "yes":
            return ""
        value = values[0].lower()
        if self.weak:
            weak = [one for one in value.split(",") if re.fullmatch(self.weak, one)]
            return f"{self.option} has {clean(', '.join(weak), 200)}" if weak else ""
        return "" if self._fits(value) else f"{self.option} is {clean(value, 100)}"

    def _fits(self, value: str) -> bool:
        if self.most:
            return value.isdigit() and 0 < int(value) <= self.most
        return value in self.allowed

    def wanted(self) -> str:
        """Say what the rule wants."""
        if self.weak:
            return f"{self.option} without weak algorithms"
        return f"{self.option} {f'from 1 to {self.most}' if self.most else ' or '.join(self.allowed)}"

    def finding(self, finding_id: str, lines: t.Sequence[str]) -> Finding:
        """Return the finding for the broken rule."""
        section = f" (CIS Debian Linux 12, {self.cis})" if self.cis else ""
        return Finding(
            finding_id,
            self.state,
            f"sshd.{self.name}",
            lines[0],
            threshold=f"{self.state} unless {self.wanted()}{section}",
            advice=f"Set {self.wanted()} in sshd's configuration and reload it; where it is meant, declare it in sshd, or waive it.",
            evidence=list(lines),
        )


RULES = (
    Rule("permit_root_login", "permitrootlogin", "5.1.20", "critical", ("no", "without-password", "forced-commands-only")),
    Rule("permit_empty_passwords", "permitemptypasswords", "5.1.19", "critical", ("no",)),
    Rule("password_authentication", "passwordauthentication", allowed=("no",)),
    Rule("hostbased_authentication", "hostbasedauthentication", "5.1.10", allowed=("no",)),
    Rule("ignore_rhosts", "ignorerhosts", "5.1.11", allowed=("yes", "shosts-only")),
    Rule("gssapi_authentication", "gssapiauthentication", "5.1.9", allowed=("no",)),
    Rule("use_pam", "usepam", "5.1.22", allowed=("yes",)),
    Rule("permit_user_environment", "permituserenvironment", "5.1.21", allowed=("no",)),
    Rule("x11_forwarding", "x11forwarding", "5.1.8", allowed=("no",), unless="disableforwarding"),
    Rule("tcp_forwarding", "allowtcpforwarding", "5.1.8", allowed=("no", "local"), unless="disableforwarding"),
    Rule("agent_forwarding", "allowagentforwarding", "5.1.8", allowed=("no",), unless="disableforwarding"),
    Rule("login_grace_time", "logingracetime", "5.1.13", most=60),
    Rule("max_auth_tries", "maxauthtries", "5.1.16", most=4),
    Rule("max_sessions", "maxsessions", "5.1.17", most=10),
    Rule("client_alive_interval", "clientaliveinterval", "5.1.7", most=900),
    Rule("client_alive_count", "clientalivecountmax", "5.1.7", most=3),
    Rule("log_level", "loglevel", "5.1.14", allowed=("info", "verbose")),
    Rule("ciphers", "ciphers", "5.1.6", weak=r"(3des|aes\d+|blowfish|cast128)-cbc|arcfour.*|rijndael-cbc.*"),
    Rule("macs", "macs", "5.1.15", weak=r"hmac-(md5|ripemd160|sha1)(-96)?(-etm)?(@openssh\.com)?|umac-64(-etm)?@openssh\.com"),
    Rule("kex_algorithms", "kexalgorithms", "5.1.12", weak=r"diffie-hellman-.*-sha1"),
    Rule("pubkey_algorithms", "pubkeyacceptedalgorithms", weak=r"ssh-(dss|rsa)(-cert-v01@openssh\.com)?"),
)
"""The built-in policy; what the inventory declares about an option goes before."""
