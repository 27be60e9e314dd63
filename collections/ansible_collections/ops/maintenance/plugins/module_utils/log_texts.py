# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the text of a record speaks of: failed logins and other trouble, accounts, addresses, and what it has in common with others."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re

from .log_shape import TEXT_LIMIT_BYTES
from .record import clean

TAGS = ("auth_failures", "rate_limited", "io_errors", "out_of_memory", "deadlocks")

# Each pattern holds one of these stems, none needs a digit or is kept from a match by one less: so texts are looked at once without their digits.
STEMS = (
    b"authent", b"login", b"log in", b"logon", b"sign-in", b"sign in", b"password", b"credential", b"unauthori",
    b"invalid user", b"rate", b"too many requests", b"throttl", b"quota", b"i/o error", b"input/output error", b"no space left",
    b"read-only", b"-fs error", b"xfs", b"is malformed", b"medium error", b"read error", b"out of memory", b"oom", b"memoryerror",
    b"allocate memory", b"killed process", b"pg_hba", b"deadlock", b"lock wait", b"limiting requests", b"limiting connections",
)  # fmt: skip
_TAG_PATTERNS = tuple(
    (name, re.compile(pattern))
    for name, pattern in zip(
        TAGS,
        (
            rb"authenticat.*?fail|fail.*?(?:password|log ?in\b|logon|sign[- ]in|authenticat|credential)|unauthori[sz]ed"
            rb"|(?:\blog ?in\b|logon|sign[- ]in|password|credentials?)\b.*?(?:fail|invalid|incorrect|wrong|rejected|denied)"
            rb"|(?:invalid|incorrect|bad|wrong) (?:password|credential|login)|invalid user\b|no pg_hba\.conf entry",
            rb"rate.?limit|limiting (?:requests|connections)|too many requests|throttled|throttling|quota exceeded",
            rb"i/o error|input/output error|no space left on device|read-only file.?system|-fs error"
            rb"|xfs.*?corrupt|disk image is malformed|medium error|unrecovered read error|remounting filesystem read-only",
            rb"out of memory|oom\Dkill|memoryerror|cannot allocate memory|killed process",
            rb"deadlock (?:detected|found)|lock wait timeout exceeded",
        ),
    )
)
_ADDRESS = re.compile(rb"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?=[0-9A-Fa-f:]*::?[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{6,39})(?![\w:])")
_FROM = re.compile(rb".* from (\S+)( port \d+)?(?: ssh2.*| \[preauth\])?$", re.DOTALL)
_ACCOUNT = re.compile(
    rb"(?i)\b(?:(?:for )?(?:invalid )?user(?:name)?|account|login|for|ruser|logname)[ =:]+[\"'<]?"
    rb"([A-Za-z0-9_][\w.@+$-]{0,63})"
)
_NOT_ACCOUNTS = frozenset((b"user", b"from", b"for", b"failed", b"account", b"invalid", b"name", b"with", b"is", b"on"))

_MASK = re.compile(
    rb"(?P<uuid>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"
    rb"|(?P<text>\"[^\"]*\"|(?<!\w)'[^']*')"
    rb"|(?P<email>[\w.+-]+@[\w-]+\.[\w.-]+)"
    rb"|(?P<address>\b\d{1,3}(?:\.\d{1,3}){3}\b)"
    rb"|(?P<hex>\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b)"
    rb"|(?P<n>\d+(?:[.,:]\d+)*)"
)
_REMEMBERED = 1000


def template_of(text: bytes) -> str:
    """Return a text with its numbers, ids, addresses and quoted parts masked, so that like ones group together."""
    text = text[:TEXT_LIMIT_BYTES]
    if b'"' in text or b"'" in text:
        return _shown(_masked(text))
    return _shown(b" ".join(map(_masked_word, text.split(b" "))))  # only what is quoted can hold a space


def _masked(text: bytes) -> bytes:
    return _MASK.sub(lambda found: b"<%s>" % (found.lastgroup or "n").encode(), text)


_masked_word = functools.lru_cache(maxsize=_REMEMBERED)(_masked)


@functools.lru_cache(maxsize=_REMEMBERED)
def _shown(masked: bytes) -> str:
    return clean(masked.decode("utf-8", "replace").replace("\n", " ").replace("\t", " ").strip(), 200)


def tags_of(text: bytes) -> tuple[str, ...]:
    """Return which of :data:`TAGS` a text speaks of."""
    lower = text.lower()
    if not any(stem in lower for stem in STEMS):
        return ()
    return tuple(name for name, pattern in _TAG_PATTERNS if pattern.search(lower))


def account_in(text: bytes) -> bytes:
    """Return the account that a text about a failed login names; empty where it names none."""
    for found in _ACCOUNT.finditer(text):
        if found.group(1).lower() not in _NOT_ACCOUNTS:
            return found.group(1)
    return b""


def address_in(text: bytes) -> bytes:
    """Return the IP address that a text is about; empty where there is none.

    A client chooses the account's name, so where a line ends with ``from <address>``, as those of sshd do, that is the true one.
    """
    ending = _FROM.match(text)
    last = _first_address(ending[1]) if ending else b""
    return last if last or (ending and ending[2]) else _first_address(text)


def _first_address(text: bytes) -> bytes:
    for found in _ADDRESS.findall(text):
        with contextlib.suppress(ValueError):  # a time of day looks like one
            ipaddress.ip_address(found.decode("ascii"))
            return bytes(found)
    return b""
