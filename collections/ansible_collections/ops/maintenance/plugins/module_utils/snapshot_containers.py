# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers run, for a snapshot and for comparing with one: image, digest and volumes of each."""

from __future__ import annotations

import json
import typing as t

from .container_engine import Engine
from .errors import MaintenanceError
from .host import Host
from .paths import read_state
from .record import Json

ENGINES = ("docker", "podman")
STATE = "snapshot_containers.json"


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


def look(params: t.Mapping[str, t.Any], host: Host) -> dict[str, Json]:
    """Look at what the engine can only tell while it runs: what its containers run, and where its volumes lie.

    :raises MaintenanceError: it does not answer, or there is no such volume.
    """
    engine = engine_of(host, params["container_engine"])
    places = {name: place_of(host, engine, name) for name in params["volumes"]}
    return {"run_id": params["run_id"], "containers": running(engine) if params["containers"] else [], "volumes": places}


def place_of(host: Host, engine: Engine, name: str) -> str:
    """Return where a volume lies.

    :raises MaintenanceError: there is no such volume, or the engine does not say.
    """
    ran = host.run([engine.command, "volume", "inspect", "--", name])
    if ran.rc != 0:
        raise MaintenanceError(f"The volume {name} cannot be looked at: {ran.why()}.")
    try:
        return str(json.loads(ran.stdout)[0]["Mountpoint"])
    except (ValueError, LookupError, TypeError):
        raise MaintenanceError(f"{engine.command} does not say where the volume {name} lies; it cannot go into the snapshot.") from None


def looked_at(params: t.Mapping[str, t.Any], host: Host) -> dict[str, Json]:
    """Return what this run saw before maintenance stopped the engine; nothing while the engine answers by itself."""
    try:
        engine_of(host, params["container_engine"]).containers()
    except MaintenanceError:
        kept = read_state(params["state_dir"], STATE)
        return kept if params["run_id"] and kept.get("run_id") == params["run_id"] else {}
    return {}


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
