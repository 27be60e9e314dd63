# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers run, for a snapshot and for comparing with one: image, digest and volumes of each."""

from __future__ import annotations

import typing as t

from .container_images import Engine
from .errors import MaintenanceError
from .host import Host
from .record import Json

ENGINES = ("docker", "podman")


def engine_of(host: Host, wanted: str) -> Engine:
    """Return the engine of this host.

    :raises MaintenanceError: there is none.
    """
    names = ENGINES if wanted == "auto" else (wanted,)
    command = next((name for name in names if host.which(name)), "")
    if not command:
        raise MaintenanceError(
            f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} not installed, so what containers run is not known"
        )
    return Engine(host, command, 60.0)


def running(engine: Engine) -> list[dict[str, Json]]:
    """Return every container, those that maintenance stopped too, each with the digests under which registries know its image.

    An image that was built here has none.

    :raises MaintenanceError: the engine does not answer.
    """
    found = []
    for container in engine.containers(stopped=True):
        image = engine.image(container.image)
        digests = list(image.digests) if image else []
        found.append(
            {"name": container.name, "reference": container.reference, "image": container.image, "digests": digests,
             "volumes": list(container.volumes)}
        )  # fmt: skip
    return found


def compared(before: t.Sequence[t.Mapping[str, Json]], engine: Engine) -> tuple[list[str], list[str]]:
    """Say which containers do not run the image of the snapshot, and which of those images are not on the host any more."""
    now = {container.name: container for container in engine.containers(stopped=True)}
    differ, gone = [], []
    for entry in before:
        container = now.get(entry["name"])
        if container is not None and container.image == entry["image"]:
            continue
        is_now = f"runs {container.image[:12]}" if container else "is gone"
        kept = engine.image(entry["image"]) is not None
        way = (
            f"{engine.command} tag {entry['image'][:12]} {entry['reference']}"
            if kept
            else f"pull {next(iter(entry['digests']), 'nothing')}"
        )
        differ.append(f"{entry['name']} {is_now}, ran {entry['image'][:12]} of {entry['reference']}: {way}, then recreate it")
        gone += [] if kept else [entry["name"]]
    return differ, gone
