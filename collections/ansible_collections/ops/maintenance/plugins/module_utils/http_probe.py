# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an HTTP endpoint and say what came back, without ever following it elsewhere."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import typing as t
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import InputError
from .record import clean

BODY_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered: status 0 means no answer at all, ``error`` then says why.

    :param cookies: the headers that set one; ``headers`` has the last of each name.
    """

    status: int
    seconds: float
    body: bytes = b""
    headers: t.Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    cookies: t.Sequence[str] = ()

    def told(self) -> str:
        """Say the answer in words."""
        return f"answered {self.status}" if self.status else f"did not answer ({self.error})"


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Every answer is an answer: nothing is raised, nothing is followed."""

    def http_response(self, request: t.Any, response: t.Any) -> t.Any:  # noqa: ARG002 - urllib names it
        return response

    https_response = http_response


def check_url(url: str, option: str) -> None:
    """Accept http and https URLs with a host and without a password in them."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and not parts.password and parts.port != 0
    except ValueError:  # brackets that do not match, a port beyond 65535
        fits = False
    if not fits or any(ord(char) <= 32 for char in url):
        shown = re.sub(r"//[^/@]*@", "//…@", url)
        raise InputError.of(option, shown, "an http or https URL without a password", "correct it; give a token by headers_file")


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

    :param timeout: seconds for the whole answer.
    :param tries: how often to ask until the status is one of ``until``.
    """
    check_url(url, "url")
    answer = _ask(url, timeout, headers or {}, ca_file)
    while tries > 1 and answer.status not in until:
        time.sleep(0.2)
        answer, tries = _ask(url, timeout, headers or {}, ca_file), tries - 1
    return answer


def post(url: str, body: bytes, *, timeout: float = 10, ca_file: str | None = None) -> Answer:
    """POST JSON to a URL."""
    check_url(url, "url")
    return _ask(url, timeout, {"Content-Type": "application/json"}, ca_file, body)


def _ask(url: str, timeout: float, headers: t.Mapping[str, str], ca_file: str | None, body: bytes | None = None) -> Answer:
    handlers: list[urllib.request.BaseHandler] = [_AsItIs(), urllib.request.ProxyHandler({})]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=_trust(ca_file)))
    request = urllib.request.Request(url, body, headers={"User-Agent": "ops.maintenance", **headers})  # noqa: S310 - see check_url
    started = time.monotonic()
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            return _answer(response.status, started, _body(response, started + timeout), response.headers)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(0, time.monotonic() - started, error=clean(str(reason) or type(error).__name__, 200))


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 refuses what browsers accept
        return context
    except OSError as error:  # missing, or not a certificate (an SSLError is one)
        raise InputError.of("ca_file", ca_file, f"a readable file of PEM certificates ({error})", "correct it") from None


def _body(response: http.client.HTTPResponse, until: float) -> bytes:
    """Read an answer; one that trickles in for ever does not end in time either."""
    body = b""
    while len(body) < BODY_LIMIT_BYTES:
        chunk = response.read1(BODY_LIMIT_BYTES - len(body))
        if not chunk:
            break
        body += chunk
        if time.monotonic() > until:
            raise TimeoutError("the answer did not end in time")
    return body


def _answer(status: int, started: float, body: bytes, headers: t.Any) -> Answer:
    named = {key.lower(): value for key, value in headers.items()}
    return Answer(status, time.monotonic() - started, body, named, cookies=headers.get_all("set-cookie") or ())
