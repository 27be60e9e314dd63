"""What runs against what its tag points to, here and in a registry, with a real engine and a real registry."""

from __future__ import annotations

import pytest
from engine import docker

from ansible_collections.ops.maintenance.plugins.module_utils import container_images, snapshot_containers
from ansible_collections.ops.maintenance.plugins.module_utils.container_engine import Engine
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

OTHERS = ["[!z]*"]
"""Containers that other people run meanwhile."""


@pytest.fixture(scope="module")
def shop(machine, registry):
    """Two versions of an image in the registry, and a container of the first."""
    made = Shop(machine, registry)
    made.name = machine.container("shop", f"{made.image}:1.0", "--restart", "unless-stopped", "--env", "PASSWORD=hush")
    return made


class Shop:
    def __init__(self, machine, registry):
        self.machine, self.registry = machine, registry
        self.image = f"{registry.address}/{machine.name}"
        self.ids = [machine.image(f"{self.image}:{version}", version) for version in ("1.0", "2.0")]
        for version in ("1.0", "2.0"):
            docker("push", "--quiet", f"{self.image}:{version}")

    def look(self, **options):
        outcome = self.machine.ask(container_images, ignore=OTHERS, **options)
        assert "hush" not in str(outcome.record())
        return outcome

    def current(self, **options):
        """Return for each container the state and the summary of what it runs."""
        return {f.subject: (f.state, f.summary) for f in self.look(**options).findings if f.id == "container.image_current"}


def found(outcome, finding_id):
    return next(finding for finding in outcome.findings if finding.id == finding_id)


def test_a_tag_that_moves_is_seen_first_in_the_registry_then_here_until_the_container_is_made_anew(shop):
    first = shop.look(remote=True)
    assert [f.state for f in first.findings if f.subject == shop.name] == ["ok"]
    digest = first.after[shop.name]
    assert docker("image", "inspect", "--format", '{{join .RepoDigests " "}}', f"{shop.image}:1.0") == f"{shop.image}@{digest}"

    moved = shop.registry.retag(shop.machine.name, "2.0", "1.0")
    assert shop.current()[shop.name] == ("ok", f"It runs what {shop.image}:1.0 is here.")
    assert shop.current(remote=True)[shop.name] == ("warning", f"The registry has another {shop.image}:1.0: {moved[:19]}…")

    docker("pull", "--quiet", f"{shop.image}:1.0")
    old, new = (identity[:12] for identity in shop.ids)
    assert shop.current()[shop.name] == ("warning", f"It runs {old}, and {shop.image}:1.0 is {new} now.")

    before = snapshot_containers.running(Engine(Host(), "docker", 60.0))
    shop.machine.remove(shop.name)
    assert shop.name in found(shop.look(), "container.gone").evidence
    shop.machine.container("shop", f"{shop.image}:1.0", "--restart", "unless-stopped")
    last = shop.look(remote=True)
    assert [f.state for f in last.findings if f.subject == shop.name] == ["ok"]
    assert last.after[shop.name] == moved
    [entry] = [one for one in before if one["name"] == shop.name]
    assert (entry["image"], entry["digests"]) == (shop.ids[0], [digest])
    way = f"docker tag {old} {shop.image}:1.0, then recreate it"
    assert snapshot_containers.compared([entry], Engine(Host(), "docker", 60.0)) == (
        [f"{shop.name} runs {new}, ran {old} of {shop.image}:1.0: {way}"], [],
    )  # fmt: skip


def test_what_was_started_without_a_tag_or_lost_it_is_not_called_current(shop, machine):
    digest = docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", shop.ids[1])
    short = machine.container("short-id", shop.ids[1][:8])
    pinned = machine.container("pinned", digest)
    docker("tag", shop.ids[1], f"{shop.image}:2.1")
    lost = machine.container("lost", f"{shop.image}:2.1")
    own_tag = f"{machine.name}-own:latest"
    machine.image(own_tag, "own")
    own = machine.container("own", own_tag)
    docker("image", "rm", f"{shop.image}:2.1")
    here, remote = shop.current(), shop.current(remote=True)
    assert here[short][0] == "unknown"
    assert (here[pinned][0], remote[pinned][0]) == ("ok", "ok")
    assert here[lost] == ("unknown", f"{shop.image}:2.1 is not on this host any more.")
    assert here[own][0] == "ok"
    assert remote[own] == ("unknown", f"{own_tag} was built here; no registry knows it.")
    outcome = shop.look()
    floating = [line.partition(":")[0] for line in found(outcome, "container.floating_tag").evidence]
    assert [name for name in (short, pinned, lost, own) if name in floating] == [own]
    named = found(outcome, "container.restart_policy").evidence
    assert (own in named, shop.name in named) == (True, False)


def test_a_registry_that_lost_the_tag_or_is_down_makes_it_unknown(shop, machine):
    other = f"{shop.image}:3.0"
    machine.images.append(other)
    docker("tag", f"{shop.image}:1.0", other)
    name = machine.container("untold", other)
    state, said = shop.current(remote=True)[name]
    assert (state, "manifest unknown" in said) == ("unknown", True)
    docker("stop", "--time", "0", shop.registry.name)
    state, said = shop.current(remote=True)[shop.name]
    assert (state, "connection refused" in said) == ("unknown", True)
    assert shop.current()[shop.name][0] == "ok"


def test_volumes_and_a_volume_that_is_not_there(machine):
    engine = Engine(Host(), "docker", 60.0)
    name = machine.container("volume", machine.test_image, "--volume", "/data", command=("sh",))
    [container] = [one for one in engine.containers() if one.name == name]
    [volume] = container.volumes
    assert snapshot_containers.place_of(Host(), engine, volume) == docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume)
    with pytest.raises(snapshot_containers.MaintenanceError, match="cannot be looked at"):
        snapshot_containers.place_of(Host(), engine, f"{machine.name}-none")
