# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer over HTTP tells browsers to guard, and what it gives away; the rules are data."""

from __future__ import annotations

import re
import typing as t

from .http_probe import Answer
from .record import clean

Headers = t.Mapping[str, str]
LEAST_HSTS_SECONDS = 15552000

RULES: dict[str, str] = {
    "strict-transport-security": f"max-age of {LEAST_HSTS_SECONDS} seconds or more",
    "content-security-policy": ".+",
    "x-content-type-options": "(?i)nosniff",
    "x-frame-options": "(?i)deny|sameorigin",
    "referrer-policy": "(?i)(?!.*unsafe-url).+",
    "server": r"[^/\d]*",
    "x-powered-by": "",
    "x-aspnet-version": "",
}
"""Header to the whole value that it may have, as a regular expression; those that an answer should rather not have may be absent."""

_MAY_BE_ABSENT = ("server", "x-powered-by", "x-aspnet-version")
_HSTS = re.compile(r"""(?i)(?:^|;)\s*max-age\s*=\s*"?(\d+)""")


def problems(answer: Answer, is_secure: bool, own: t.Mapping[str, t.Any]) -> list[str]:
    """Return what is wrong with the headers and cookies of an answer.

    :param is_secure: whether it came over TLS; without that, nothing about TLS can be told.
    :param own: rules of the endpoint: header to a regular expression, or to nothing where it is not to be judged.
    """
    rules: dict[str, t.Any] = {**RULES, **{name.lower(): pattern for name, pattern in own.items()}}
    found = [_header(name, str(rules[name]), answer.headers, own) for name in rules if rules[name] is not None]
    if not is_secure:
        found = [line for line in found if not line.startswith("strict-transport-security")]
    return [line for line in found if line] + [line for line in (_cookie(text, is_secure) for text in answer.cookies) if line]


def _header(name: str, pattern: str, headers: Headers, own: t.Mapping[str, t.Any]) -> str:
    value = headers.get(name)
    if value is None:
        is_framed = name == "x-frame-options" and "frame-ancestors" in headers.get("content-security-policy", "")
        return "" if name in _MAY_BE_ABSENT or is_framed else f"{name} is missing"
    said = f"{name} is {clean(value, 100)!r}"
    if name == "strict-transport-security" and name not in {key.lower() for key in own}:
        age = _HSTS.search(value)
        return "" if age and int(age[1][:12]) >= LEAST_HSTS_SECONDS else f"{said}, expected {pattern}"
    if re.fullmatch(pattern, value.strip()):
        return ""
    return f"{said}, which tells what runs there" if name in _MAY_BE_ABSENT else f"{said}, expected {pattern}"


def _cookie(text: str, is_secure: bool) -> str:
    """Say what a cookie lacks; its value is never shown."""
    first, *rest = text.split(";")
    attributes = {part.partition("=")[0].strip().lower() for part in rest}
    wanted = {"httponly": "HttpOnly", "samesite": "SameSite", **({"secure": "Secure"} if is_secure else {})}
    missing = [shown for name, shown in wanted.items() if name not in attributes]
    return f"cookie {clean(first.partition('=')[0].strip(), 60)} lacks {', '.join(missing)}" if missing else ""
