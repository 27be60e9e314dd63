# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an HTTP endpoint and say what came back, without ever following it elsewhere."""

from __future__ import annotations

import http.client
import ssl
import time
import typing as t
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import InputError
from .record import clean

BODY_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered: status 0 means no answer at all, ``error`` then says why."""

    status: int
    seconds: float
    body: bytes = b""
    headers: t.Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    def told(self) -> str:
        """Say the answer in words."""
        return f"answered {self.status}" if self.status else f"did not answer ({self.error})"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: t.Any, **kwargs: t.Any) -> None:
        return None


def check_url(url: str, option: str) -> None:
    """Accept http and https URLs with a host and without a password in them."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.password or any(ord(c) <= 32 for c in url):
        raise InputError.of(option, url, "an http or https URL without a password", "correct it; give a token by headers_file")


def fetch(
    url: str,
    *,
    timeout: float = 10,
    headers: t.Mapping[str, str] | None = None,
    ca_file: str | None = None,
    tries: int = 1,
    until: t.Collection[int] = (),
) -> Answer:
    """GET a URL.

    :param timeout: seconds.
    :param tries: how often to ask until the status is one of ``until``.
    """
    check_url(url, "url")
    answer = _ask(url, timeout, headers or {}, ca_file)
    while tries > 1 and answer.status not in until:
        time.sleep(0.2)
        answer, tries = _ask(url, timeout, headers or {}, ca_file), tries - 1
    return answer


def _ask(url: str, timeout: float, headers: t.Mapping[str, str], ca_file: str | None) -> Answer:
    context = ssl.create_default_context(cafile=ca_file)
    handlers = [_NoRedirect(), urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    request = urllib.request.Request(url, headers={"User-Agent": "ops.maintenance", **headers})
    started = time.monotonic()
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            return _answer(response.status, started, response.read(BODY_LIMIT_BYTES), response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, started, error.read(BODY_LIMIT_BYTES), error.headers)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(0, time.monotonic() - started, error=clean(str(reason) or type(error).__name__, 200))


def _answer(status: int, started: float, body: bytes, headers: t.Any) -> Answer:
    return Answer(status, time.monotonic() - started, body, {key.lower(): value for key, value in headers.items()})
