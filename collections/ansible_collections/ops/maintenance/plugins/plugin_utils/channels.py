# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand a notice to mail relays, webhooks and files, and remember who has it. No secret is ever part of what is returned."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.paths import ensure_private_folder, read_state, write_atomic, write_state

from . import control
from .notices import Notice, line

Channel = dict[str, Any]
Problems = dict[str, str]
"""Why a recipient did not get the notice; who is not in it did."""

DEFAULT_FOLDER = "~/.local/state/ops_maintenance"
MEMORY = "notices.json"
_REMEMBERED = timedelta(days=400)
_LOCAL = ("localhost", "127.0.0.1", "::1")
_SECRET_BYTES = 4096


def folder() -> str:
    """Return where notices are remembered: beside the journal of this run."""
    return os.path.dirname(os.environ.get(control.JOURNAL, "")) or os.path.expanduser(DEFAULT_FOLDER)


@contextlib.contextmanager
def remembered(where: str) -> Iterator[dict[str, Any]]:
    """Lend what was sent, by notice; nobody else sends meanwhile, and what changed in it is kept, also after an error.

    :raises MaintenanceError: it cannot be read or kept.
    """
    try:
        ensure_private_folder(where)
        with open(os.path.join(where, f"{MEMORY}.lock"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sent = read_state(where, MEMORY)
            before = json.dumps(sent)
            try:
                yield sent
            finally:
                if json.dumps(sent) != before:
                    write_state(where, MEMORY, _recent(sent))
    except OSError as error:
        raise MaintenanceError(f"What was sent cannot be remembered in {where} ({error.strerror}); make it writable.") from error


def recall(where: str) -> dict[str, Any]:
    """Return what was sent, without leaving a trace."""
    return read_state(where, MEMORY)


def _recent(sent: dict[str, Any]) -> dict[str, Any]:
    oldest = (datetime.now(timezone.utc) - _REMEMBERED).isoformat()
    return {name: kept for name, kept in sent.items() if not isinstance(kept, dict) or str(kept.get("time", "9")) >= oldest}


def recipients(channel: Channel) -> list[str]:
    """Return who gets a notice by a channel; a channel that is one place has itself."""
    to = channel.get("to") if channel.get("kind") == "mail" else None
    return list(dict.fromkeys(to or [""]))


def hand_over(channel: Channel, notice: Notice, to: Sequence[str]) -> Problems:
    """Send a notice; whatever goes wrong is the answer, never an exception."""
    try:
        return KINDS[channel["kind"]](channel, notice, to)
    except smtplib.SMTPRecipientsRefused as error:
        return {one: _answered(*error.recipients.get(one, (0, b""))) for one in to}
    except Exception as error:  # a notice must not be what stops maintenance
        return dict.fromkeys(to, _why(error))


def _why(error: Exception) -> str:
    """Word an error without what could hold the address or the password."""
    if isinstance(error, MaintenanceError):
        return str(error)
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered with status {error.code}"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"the relay refused user or password (code {error.smtp_code})"
    if isinstance(error, smtplib.SMTPResponseException):
        return _answered(error.smtp_code, error.smtp_error)
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {cause.verify_message}"
    if isinstance(cause, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return line(cause.strerror)
    return f"{type(cause).__name__}: look at the address and the options of the channel"


def _answered(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return f"the relay answered {code} {line(text, 200)}".rstrip()


def _secret(path: str, option: str) -> str:
    """Read the first line of a file that holds a secret."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as source:
            value = source.read(_SECRET_BYTES).strip().partition("\n")[0].strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError.of(option, path, f"a readable file with one line ({why})", "create it on the control node") from None
    if not value:
        raise InputError.of(option, path, "a file with one line, found an empty one", "fill it")
    return value


def _mail(channel: Channel, notice: Notice, to: Sequence[str]) -> Problems:
    if not all(to):
        raise InputError.of("to", [], "the addresses of those to be told", "name them")
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = notice.subject, channel["sender"], ", ".join(to)
    message["Date"], message["Auto-Submitted"] = format_datetime(datetime.now(timezone.utc)), "auto-generated"
    message.set_content(notice.text)
    host, user = channel["host"], channel.get("user")
    if user and not channel.get("starttls") and host not in _LOCAL:
        raise InputError.of("starttls", False, "true where a password is sent", "set it, or leave out user")
    password = _secret(channel.get("password_file") or "", "password_file") if user else ""
    timeout = channel.get("timeout_seconds") or 10
    with smtplib.SMTP(host, channel.get("port") or 25, local_hostname=socket.gethostname(), timeout=timeout) as relay:
        if channel.get("starttls"):
            relay.starttls(context=ssl.create_default_context())
        if user:
            relay.login(user, password)
        refused = relay.send_message(message, from_addr=channel["sender"], to_addrs=list(to))
    return {one: _answered(*answer) for one, answer in refused.items()}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without the notice, and would look delivered."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def _webhook(channel: Channel, notice: Notice, to: Sequence[str]) -> Problems:
    url = _secret(channel["url_file"], "url_file") if channel.get("url_file") else channel.get("url") or ""
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError("The address of a webhook does not begin with http:// or https://; correct url_file or url.")
    told = {"text": f"{notice.subject}\n\n{notice.text}", **{name: getattr(notice, name) for name in ("id", "kind", "system", "subject")}}
    request = urllib.request.Request(url, json.dumps(told).encode(), {"Content-Type": "application/json"}, method="POST")  # noqa: S310
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=channel.get("timeout_seconds") or 10) as answer:
        return {} if answer.status < http.client.MULTIPLE_CHOICES else dict.fromkeys(to, f"the server answered {answer.status}")


def _file(channel: Channel, notice: Notice, _to: Sequence[str]) -> Problems:
    path = channel.get("path") or ""
    if not os.path.isabs(path):
        raise InputError.of("path", path, "an absolute path", "correct it")
    write_atomic(path, f"{notice.subject}\n\n{notice.text}".encode(), mode=0o644)
    return {}


KINDS: dict[str, Callable[[Channel, Notice, Sequence[str]], Problems]] = {"mail": _mail, "webhook": _webhook, "file": _file}
