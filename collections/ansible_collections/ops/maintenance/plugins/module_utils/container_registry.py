# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which digest a tag has in its registry now. Docker's own daemon is asked first: it knows the mirrors, the authorities and the registries
without TLS that a pull would use. What it may not read without a login is asked with skopeo or docker buildx, which know the logins."""

from __future__ import annotations

import http.client
import json
import re
import socket
import typing as t
import urllib.parse

from .errors import MaintenanceError
from .host import Host
from .record import clean

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ANSWER_BYTES = 1024 * 1024


def digest_of(host: Host, command: str, tagged: str, timeout: float) -> str:
    """Ask the registry which digest a name with its tag has now.

    :param command: the engine, docker or podman.
    :raises MaintenanceError: it does not answer, or the host has nothing to ask it with; with what each way said.
    """
    said = []
    for way in _ways(host, command):
        try:
            return way(host, tagged, timeout)
        except MaintenanceError as error:
            said.append(str(error))
    raise MaintenanceError("; ".join(said) or "skopeo is not installed")


def _ways(host: Host, command: str) -> t.Iterator[t.Callable[[Host, str, float], str]]:
    if command == "docker":
        yield _from_daemon
    if host.which("skopeo"):
        yield _from_skopeo
    if command == "docker" and host.run(["docker", "buildx", "version"]).rc == 0:
        yield _from_buildx


def _from_skopeo(host: Host, tagged: str, timeout: float) -> str:
    return _printed(host, ["skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}", f"docker://{tagged}"], timeout)


def _from_buildx(host: Host, tagged: str, timeout: float) -> str:
    return _printed(host, ["docker", "buildx", "imagetools", "inspect", tagged, "--format", "{{.Manifest.Digest}}"], timeout)


def _printed(host: Host, argv: t.Sequence[str], timeout: float) -> str:
    ran = host.run(argv, timeout=timeout)
    digest = DIGEST.fullmatch(ran.stdout.strip())
    if ran.rc != 0 or digest is None:
        raise MaintenanceError(ran.why())
    return digest.group()


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def _from_daemon(host: Host, tagged: str, timeout: float) -> str:
    ran = host.run(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
    scheme, _sign, path = ran.stdout.strip().partition("://")
    if ran.rc != 0 or scheme != "unix":
        raise MaintenanceError(
            ran.why() if ran.rc else f"docker is at {clean(ran.stdout.strip(), 100)}, and only one on this host is asked"
        )
    connection = _SocketConnection(path, timeout)
    try:
        connection.request("GET", f"/distribution/{urllib.parse.quote(tagged, safe='/:')}/json")
        text = connection.getresponse().read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise MaintenanceError(f"docker did not say what the registry has: {clean(str(error) or type(error).__name__, 200)}") from error
    finally:
        connection.close()
    return parse_distribution(text)


def parse_distribution(text: bytes) -> str:
    """Read the daemon's answer to ``/distribution/{name}/json``.

    :raises MaintenanceError: it is an error message, or nothing that can be read.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        descriptor = answer.get("Descriptor")
        digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
        if isinstance(digest, str) and DIGEST.fullmatch(digest):
            return digest
        if isinstance(answer.get("message"), str):
            raise MaintenanceError(clean(answer["message"], 200))
    raise MaintenanceError(f"docker's answer about the registry cannot be read: {clean(text[:100].decode('utf-8', 'replace'))}")
