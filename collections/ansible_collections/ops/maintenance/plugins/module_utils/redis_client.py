# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Redis client: RESP over a socket file, TCP or TLS, with time limits; the password is never shown."""

from __future__ import annotations

import socket
import ssl
import typing as t

from .errors import InputError, MaintenanceError
from .paths import password_of
from .record import clean

CONNECTION: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 6379},
    "user": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "password_file": {"type": "path", "default": ""},
    "tls": {"type": "bool", "default": False},
    "tls_root_certificate": {"type": "path", "default": ""},
    "tls_certificate": {"type": "path", "default": ""},
    "tls_key": {"type": "path", "default": ""},
    "timeout_seconds": {"type": "float", "default": 10.0},
}
"""How to reach one server. ``host`` is a host name, or the path of a socket file."""

_LONGEST_LINE = 64 * 1024
_LONGEST_VALUE = 64 * 1024 * 1024
_DEEPEST = 8

Server = t.Mapping[str, t.Any]
Argument = t.Union[bytes, str, int]
Reply = t.Union[bytes, int, None, "list[t.Any]", "CommandError"]


class CommandError(MaintenanceError):
    """Redis refused a command.

    :param code: the first word of its answer, such as ``NOPERM`` or ``READONLY``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotReachableError(MaintenanceError):
    """The server gave no session, or ended it.

    :param kind: ``refused``, ``lost``, ``tls``, ``password`` or ``loading``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def check_server(server: Server) -> None:
    """Refuse a declaration that cannot work.

    :raises InputError: one sentence that says what to correct.
    """
    option = f"of server {server['name']!r}"
    if not str(server["name"]).strip() or not str(server["host"]).strip():
        raise InputError(f"A Redis server has name {server['name']!r} and host {server['host']!r}, expected both; give it them.")
    if not 0 < server["port"] < 65536:
        raise InputError.of(f"port {option}", server["port"], "1 to 65535", "correct it")
    if not 0 < server["timeout_seconds"] <= 600:
        raise InputError.of(f"timeout_seconds {option}", server["timeout_seconds"], "more than 0, at most 600", "correct it")
    if server["password"] and server["password_file"]:
        raise InputError(f"Both password and password_file {option} are given, expected one of them; remove the other.")
    if server["user"] and not (server["password"] or server["password_file"]):
        raise InputError(f"user {option} is given without a password, expected password or password_file; add it.")
    if server["tls"] and str(server["host"]).startswith("/"):
        raise InputError(f"tls {option} is set for a socket file, expected a host name; remove one of them.")
    if bool(server["tls_certificate"]) != bool(server["tls_key"]):
        raise InputError(f"tls_certificate and tls_key {option} belong together, expected both or none; correct it.")


def encode(arguments: t.Sequence[Argument]) -> bytes:
    """Return a command as it goes over the wire."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        value = argument if isinstance(argument, bytes) else str(argument).encode("utf-8", "surrogateescape")
        parts.append(b"$%d\r\n%s\r\n" % (len(value), value))
    return b"".join(parts)


def read_reply(source: t.BinaryIO, depth: int = 0) -> Reply:
    """Read one answer; a refusal is returned, not raised, so that answers of a pipeline stay in step.

    :raises ValueError: it is not RESP.
    :raises EOFError: the server ended the connection.
    """
    line = source.readline(_LONGEST_LINE)
    if not line:
        raise EOFError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if not line.endswith(b"\r\n") or depth > _DEEPEST:
        raise ValueError("an answer without an end")
    if kind == b"+":
        return rest
    if kind == b"-":
        said = clean(rest.decode("utf-8", "backslashreplace"), 300)
        return CommandError(said.split(" ", 1)[0], said)
    if kind not in (b":", b"$", b"*"):
        raise ValueError(f"an answer that begins with {line[:10]!r}")
    number = int(rest)
    if kind == b":":
        return number
    if number < 0:
        return None
    if number > _LONGEST_VALUE:
        raise ValueError(f"an answer of {number} parts or bytes")
    if kind == b"*":
        return [read_reply(source, depth + 1) for _part in range(number)]
    value = source.read(number + 2)
    if len(value) != number + 2 or not value.endswith(b"\r\n"):
        raise EOFError("an answer ended early")
    return value[:-2]


class Client:
    """One connection with a server."""

    def __init__(self, server: Server) -> None:
        """Connect and log in.

        :raises NotReachableError: its kind says why not.
        :raises InputError: the declaration cannot work.
        """
        check_server(server)
        host = str(server["host"])
        self.where = f"Redis {server['name']} ({host if host.startswith('/') else host + ':' + str(server['port'])})"
        password = password_of(server)
        self._socket = self._connect(server)
        self._source: t.BinaryIO = self._socket.makefile("rb")
        try:
            if password:
                self._log_in(server["user"], password)
            answer = self.pipeline([["PING"]])[0]
            # Other refusals (MISCONF after a failed snapshot, NOPERM) are for the review to tell.
            if isinstance(answer, CommandError) and answer.code in ("NOAUTH", "LOADING"):
                raise self._refusal(answer)
        except BaseException:
            self.close()
            raise

    def call(self, *arguments: Argument) -> t.Any:
        """Send a command and return its answer.

        :raises CommandError: Redis refused it.
        """
        answer = self.pipeline([arguments])[0]
        if isinstance(answer, CommandError):
            raise CommandError(answer.code, f"{self.where} refused {arguments[0]!s}: {answer}.")
        return answer

    def pipeline(self, commands: t.Sequence[t.Sequence[Argument]]) -> list[t.Any]:
        """Send several commands at once and return their answers in order, refusals among them."""
        try:
            self._socket.sendall(b"".join(encode(command) for command in commands))
            return [read_reply(self._source) for _command in commands]
        except (OSError, EOFError, ValueError) as error:
            said = "no answer in time" if isinstance(error, socket.timeout) else str(error)
            raise NotReachableError(
                "lost", f"The session with {self.where} was lost: {clean(said, 200)}; read its log, then run again."
            ) from None

    def select(self, database: int) -> None:
        """Choose a database by its number."""
        self.call("SELECT", database)

    def close(self) -> None:
        """End the connection."""
        self._source.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_of: t.Any) -> None:
        self.close()

    def _connect(self, server: Server) -> socket.socket:
        host, limit = str(server["host"]), server["timeout_seconds"]
        try:
            if host.startswith("/"):
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                opened.settimeout(limit)
                opened.connect(host)
                return opened
            opened = socket.create_connection((host, server["port"]), timeout=limit)
        except (OSError, UnicodeError) as error:
            advice = "start it, or correct host and port"
            raise NotReachableError("refused", f"No session with {self.where}: {clean(str(error), 200)}; {advice}.") from None
        if not server["tls"]:
            return opened
        try:
            context = ssl.create_default_context(cafile=server["tls_root_certificate"] or None)
            if server["tls_certificate"]:
                context.load_cert_chain(server["tls_certificate"], server["tls_key"])
            return context.wrap_socket(opened, server_hostname=host)
        except (OSError, ValueError) as error:
            opened.close()
            advice = "correct tls_root_certificate, tls_certificate or the server's certificate"
            raise NotReachableError("tls", f"No session with {self.where}: {clean(str(error), 200)}; {advice}.") from None

    def _log_in(self, user: str, password: str) -> None:
        given: list[Argument] = ["AUTH", *([user] if user else []), password.encode("utf-8", "surrogateescape")]
        answer = self.pipeline([given])[0]
        if isinstance(answer, CommandError):
            raise self._refusal(answer)

    def _refusal(self, answer: CommandError) -> NotReachableError:
        if answer.code == "LOADING":
            return NotReachableError("loading", f"{self.where} still loads its data; wait until it has, then run again.")
        if answer.code == "NOAUTH":
            return NotReachableError("password", f"{self.where} wants a password; give password_file (or password from a vault).")
        # Other words of an answer to AUTH could repeat what was sent.
        return NotReachableError("password", f"{self.where} refused the log-in ({answer.code}); correct user and password.")


def parse_info(text: bytes) -> dict[str, str]:
    """Read what INFO says into names and values."""
    found = {}
    for line in text.decode("utf-8", "backslashreplace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            found[name.strip()] = value.strip()
    return found


def parse_pairs(text: str) -> dict[str, str]:
    """Read a value of INFO such as ``keys=3,expires=1`` into names and values."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def literal_pattern(prefix: bytes) -> bytes:
    """Return the pattern that matches keys with exactly this beginning: characters of patterns stand for themselves."""
    return b"".join(b"\\" + bytes([one]) if one in b"*?[]^\\" else bytes([one]) for one in prefix) + b"*"
