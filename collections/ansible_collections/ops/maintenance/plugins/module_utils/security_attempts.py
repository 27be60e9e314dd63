# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognise log-in attempts in what sshd, sudo, su and login write, and in an application's JSON records."""

from __future__ import annotations

import os
import re
import typing as t

from .log_lines import message_of_record
from .security_common import address_of

_ABOUT = r"(?<![a-z])(auth(?![a-z])|authenticat\w*|log[ _.-]?[io]n|sign[ _.-]?in|password|credentials?)"
FAILURE = (
    rf"(?i){_ABOUT}[\w .:'-]{{0,40}}?(fail|invalid|incorrect|denied|reject|wrong|locked)"
    rf"|(fail\w*|invalid|incorrect|wrong|bad|denied|rejected)[\w .:'-]{{0,40}}?{_ABOUT}"
)
SUCCESS = rf"(?i){_ABOUT}[\w .:'-]{{0,40}}?(succe|accepted)|success\w*[ _.-]{_ABOUT}|logged[ _]in"


class Attempt(t.NamedTuple):
    """One log-in attempt; ``times`` is more than one where the log folded repetitions into one line."""

    failed: bool
    account: str
    address: str
    times: int = 1


_PROCESS = re.compile(r"(?:^|\s)(?P<program>[\w./-]+?)(?:\[(?P<pid>\d+)\])?: (?P<message>.*)$")
_REPEATED = re.compile(r"message repeated (\d+) times: \[ (.*)\]$")
# A client chooses the account's name, so the last " from <address>" of a line is the true one (hence the greedy groups).
_SSHD_FAILED = re.compile(r"Failed (?!none)\S+ for (?:invalid user )?(?P<account>.*) from (?P<address>\S+)(?: port \d+)?(?: ssh2.*)?$")
_SSHD_GONE = re.compile(
    r"(?:Connection (?:closed|reset) by|Disconnected from) (?:authenticating|invalid) user (?P<account>.*) "
    r"(?P<address>\S+) port \d+.*\[preauth\]"
)
_SSHD_ACCEPTED = re.compile(r"Accepted \S+ for (?P<account>.*) from (?P<address>\S+) port \d+")
_PAM_FAILED = re.compile(r"pam_\w+\((?P<service>[\w-]+):auth\): authentication failure;(?P<details>.*)")
_PAM_OPENED = re.compile(
    r"pam_unix\((?P<service>login|remote|su|su-l|sudo-i):session\): session opened for user (?P<account>[^\s(]+)(?:\(uid=\d+\))?"
    r" by (?P<who>[^\s(]*)\(uid=(?P<uid>\d+)\)"
)
_DETAIL = re.compile(r"\b(rhost|user|ruser)=(\S*)")


MAYBE = re.compile(rb"repeated|Failed|preauth|Accepted|authentication failure|\((?:login|remote|su|su-l|sudo-i):session\): session opened")
"""What a line holds that may tell of an attempt, and few others do."""


class AuthReader:
    """Recognises attempts in the messages of sshd, sudo, su and login.

    sshd says up to three things about one failed attempt; each connection (process id) counts by its ``Failed`` lines,
    or once by its end before authentication where it has none (servers without passwords).
    """

    def __init__(self) -> None:
        self._failed_pids: set[str] = set()

    def line(self, line: str) -> Attempt | None:
        """Read a line of an auth log."""
        found = _PROCESS.search(line)
        return self.message(found["program"], found["pid"] or "", found["message"]) if found else None

    def message(self, program: str, pid: str, message: str) -> Attempt | None:
        """Read what a program said."""
        repeated = _REPEATED.match(message)
        times, message = (min(int(repeated[1][:6]), 100_000), repeated[2]) if repeated else (1, message)
        if os.path.basename(program) in ("sshd", "sshd-session", "sshd-auth"):
            return self._sshd(pid, message, times)
        found = _PAM_FAILED.search(message)
        if found and not found["service"].startswith("sshd"):
            details = dict(_DETAIL.findall(found["details"]))
            return Attempt(True, details.get("user") or details.get("ruser", ""), address_of(details.get("rhost", "")), times)
        return self._session(message)

    @staticmethod
    def _session(message: str) -> Attempt | None:
        """Read that somebody logged in at the console or became another; root needs no log-in for that, nor does one command by sudo."""
        found = _PAM_OPENED.match(message)
        if not found or (found["uid"] == "0" and found["service"] not in ("login", "remote")):
            return None
        return Attempt(False, found["account"], "")

    def _sshd(self, pid: str, message: str, times: int) -> Attempt | None:
        found = _SSHD_FAILED.match(message)
        if found:
            if len(self._failed_pids) > 100_000:
                self._failed_pids.clear()
            self._failed_pids.add(pid)
            return Attempt(True, found["account"], address_of(found["address"]) or found["address"], times)
        found = _SSHD_GONE.match(message)
        if found:
            known = pid in self._failed_pids
            self._failed_pids.discard(pid)
            return None if known else Attempt(True, found["account"], address_of(found["address"]) or found["address"])
        found = _SSHD_ACCEPTED.match(message)
        return Attempt(False, found["account"], address_of(found["address"]) or found["address"]) if found else None


_ADDRESS_IN_TEXT = re.compile(r"(?:from|ip|addr(?:ess)?|client)[ =:]+\[?([0-9a-fA-F:.]{3,45})")
_ACCOUNT_IN_TEXT = re.compile(r"(?:for|user(?:name)?|account)[ =:]+['\"]?([\w.@+-]{1,64})")


class JsonReader:
    """Recognises attempts in decoded JSON records: by the event field where it tells, else by the message."""

    def __init__(self, source: t.Mapping[str, t.Any]) -> None:
        self.source = source
        self.failure = re.compile(source.get("failure_pattern") or FAILURE)
        self.success = re.compile(source.get("success_pattern") or SUCCESS)
        self.own_patterns = bool(source.get("failure_pattern") or source.get("success_pattern"))

    def record(self, record: t.Mapping[str, t.Any]) -> Attempt | None:
        """Read a record."""
        message = message_of_record(record)[:4096]
        verdict = None
        for text in (_field(record, self.source["event_fields"]), message):
            verdict = self._failed(text) if text and verdict is None else verdict
        if verdict is None:
            return None
        account = _field(record, self.source["account_fields"]) or _group(_ACCOUNT_IN_TEXT, message)
        address = _field(record, self.source["address_fields"]) or _group(_ADDRESS_IN_TEXT, message)
        return Attempt(verdict, account, address_of(address) or address)

    def _failed(self, text: str) -> bool | None:
        if self.failure.search(text):
            return True
        return False if self.success.search(text) else None


def _field(record: t.Mapping[str, t.Any], names: t.Sequence[str]) -> str:
    nested = [value for value in record.values() if isinstance(value, dict)]
    for part in (record, *nested):
        for name in names:
            value = part.get(name)
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                return str(value)[:4096]
    return ""


def _group(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
