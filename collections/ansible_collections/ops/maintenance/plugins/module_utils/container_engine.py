# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docker or podman says of the containers and images of a host."""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass

from . import container_registry
from .errors import MaintenanceError
from .host import Host

_AT_ONCE = 50  # what the engine says of one may have 80 KB before the answer is cut


def listed(host: Host, command: str, *options: str, timeout: float = 60) -> list[str]:
    """Return the ids of the containers that run; of all with ``--all``.

    :raises MaintenanceError: the engine does not answer.
    """
    ran = host.run([command, "ps", "--quiet", "--no-trunc", *options], timeout=timeout)
    if ran.rc != 0:
        raise MaintenanceError(ran.why())
    return ran.stdout.split()


def inspected(host: Host, command: str, ids: t.Sequence[str], *options: str, timeout: float = 60) -> t.Iterator[str]:
    """Yield what the engine knows of containers, some at once; one that ended meanwhile is left out.

    :raises MaintenanceError: the engine does not answer.
    """
    for first in range(0, len(ids), _AT_ONCE):
        ran = host.run([command, "inspect", "--type", "container", *options, *ids[first : first + _AT_ONCE]], timeout=timeout)
        if not ran.stdout.strip():
            raise MaintenanceError(ran.why())
        yield ran.stdout


@dataclass(frozen=True)
class Running:
    """A container; ``image`` is the id of what it runs, ``volumes`` the named ones that it uses.

    :param comes_back: whether its restart policy, or a systemd unit, starts it again after a reboot.
    """

    name: str
    image: str
    reference: str
    volumes: tuple[str, ...] = ()
    comes_back: bool = True


@dataclass(frozen=True)
class Image:
    """A local image and the digests under which registries know it."""

    id: str
    digests: tuple[str, ...]


def bare_id(text: t.Any) -> str:
    """Return an image id without the name of its hash."""
    return str(text).replace("sha256:", "")


def parse_containers(text: str) -> list[Running]:
    """Read ``docker inspect`` or ``podman inspect`` of containers."""
    found = []
    for item in _list(text):
        config = item.get("Config") or {}
        reference = str(item.get("ImageName") or config.get("Image") or "")
        volumes = tuple(str(mount["Name"]) for mount in item.get("Mounts") or [] if mount.get("Name"))
        found.append(Running(str(item.get("Name", "")).lstrip("/"), bare_id(item.get("Image")), reference, volumes, _comes_back(item)))
    return found


def _comes_back(item: t.Mapping[str, t.Any]) -> bool:
    policy = ((item.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
    labels = (item.get("Config") or {}).get("Labels") or {}
    return policy in ("always", "unless-stopped") or "PODMAN_SYSTEMD_UNIT" in labels


def parse_images(text: str) -> list[Image]:
    """Read ``docker image inspect``."""
    return [
        Image(
            bare_id(item.get("Id")),
            tuple(sorted({found[0] for found in map(container_registry.DIGEST.findall, map(str, item.get("RepoDigests") or [])) if found})),
        )
        for item in _list(text)
    ]


def _list(text: str) -> list[dict[str, t.Any]]:
    try:
        data = json.loads(text or "[]")
    except ValueError as error:
        raise MaintenanceError(f"the engine's answer is no JSON ({error})") from error
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise MaintenanceError("the engine did not answer with a list of objects")
    return data


class Engine:
    """docker or podman on one host, as it is at one time."""

    def __init__(self, host: Host, command: str, timeout: float) -> None:
        self.host = host
        self.command = command
        self.timeout = timeout
        self._images: dict[str, Image | None] = {}
        self._asked: dict[str, str | MaintenanceError] = {}

    def containers(self, stopped: bool = False) -> list[Running]:
        """Return what runs.

        :param stopped: what does not run as well.
        :raises MaintenanceError: the engine does not answer.
        """
        texts = inspected(self.host, self.command, listed(self.host, self.command, *(["--all"] if stopped else [])))
        return sorted((one for text in texts for one in parse_containers(text)), key=lambda container: container.name)

    def image(self, reference: str) -> Image | None:
        """Return a local image, ``None`` when there is none of that name; each is asked for once."""
        if reference not in self._images:
            self._images[reference] = self._image(reference)
        return self._images[reference]

    def _image(self, reference: str) -> Image | None:
        ran = self.host.run([self.command, "image", "inspect", reference])
        if ran.rc != 0:
            if re.search(r"no such image|image not known|failed to find image", ran.stderr, re.IGNORECASE):
                return None
            raise MaintenanceError(ran.why())
        return next(iter(parse_images(ran.stdout)), None)

    def remote_digest(self, tagged: str) -> str:
        """Ask the registry, once, which digest a name with its tag has now.

        :raises MaintenanceError: it does not answer, or the host has nothing to ask it with.
        """
        if tagged not in self._asked:
            try:
                self._asked[tagged] = container_registry.digest_of(self.host, self.command, tagged, self.timeout)
            except MaintenanceError as error:
                self._asked[tagged] = error
        answer = self._asked[tagged]
        if isinstance(answer, MaintenanceError):
            raise answer
        return answer
