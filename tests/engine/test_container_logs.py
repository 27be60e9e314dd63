"""Limits and sizes of containers' logs, and what they say, read from the files that a real engine writes and rotates."""

from __future__ import annotations

import os

import pytest
from engine import docker, until

from ansible_collections.ops.maintenance.plugins.module_utils import container_logs, log_analysis

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the engine's log files belong to root")
WRITE = 'i=$1; while [ $i -lt $2 ]; do echo "ERROR order $i was refused"; i=$((i + 1)); done >/proc/1/fd/1'
WRITE_LONG = 'x=0123456789; i=0; while [ $i -lt 12 ]; do x=$x$x; i=$((i + 1)); done; echo "ERROR $x" >/proc/1/fd/1'


@pytest.fixture(scope="module")
def image(machine):
    tagged = f"{machine.name}-logs:1"
    machine.image(tagged, "logs")
    return tagged


class Log:
    """The log of a container."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name
        self.path = docker("inspect", "--format", "{{.LogPath}}", name)

    def write(self, script, *arguments, last):
        """Let the container write, until the last of it is in a file."""
        docker("exec", self.name, "/bin/sh", "-c", script, "sh", *map(str, arguments))
        until(lambda: last in docker("logs", "--tail", "1", self.name)[-200:])

    def files(self):
        return sorted(one.name.rpartition("-json.log")[2] for one in os.scandir(os.path.dirname(self.path)) if "-json.log" in one.name)

    def read(self):
        """Return how many errors a run finds that reads on from the last one, with nothing left that it does not know."""
        findings = read(self.machine, f"{self.path}*")
        assert not [f for f in findings if f.state == "unknown"]
        return next(f.value for f in findings if (f.id, f.subject) == ("logs.errors", f"docker/{self.name}"))


def read(machine, pattern):
    own = log_analysis.OPTIONS["sources"]["options"].items()
    source = {**{name: option.get("default") for name, option in own}, "name": "docker", "format": "docker", "paths": [pattern]}
    return machine.ask(log_analysis, sources=[source], only_new=True, report="").findings


@pytest.fixture
def log_of(machine, image):
    return lambda what, *options: Log(machine, machine.container(what, image, "--network", "none", *options))


@pytest.mark.parametrize("compress", ["false", "true"])
def test_each_line_is_counted_once_across_rotation(log_of, compress):
    options = ("max-size=4k", "max-file=4", f"compress={compress}")
    log = log_of(f"rotated-{compress}", "--log-driver", "json-file", *(part for option in options for part in ("--log-opt", option)))
    log.write(WRITE, 0, 30, last="order 29 ")
    assert (len(log.files()), log.read()) == (1, 30)
    log.write(WRITE, 30, 100, last="order 99 ")
    assert (len(log.files()), log.read()) == (3, 70)
    assert log.read() == 0
    log.write(WRITE, 100, 102, last="order 101 ")
    assert log.read() == 2
    log.write(WRITE, 102, 300, last="order 299 ")
    lost = [f for f in read(log.machine, f"{log.path}*") if f.state == "unknown"]
    assert [(f.id, "was rotated or emptied" in f.evidence[0]) for f in lost] == [("logs.unreadable", True)]
    assert log.read() == 0


def test_a_line_that_the_engine_writes_in_pieces_is_one(log_of):
    log = log_of("long")
    log.write(WRITE_LONG, last="0123456789")
    with open(log.path) as source:
        assert len(source.readlines()) > 1
    assert log.read() == 1


def test_a_container_that_logs_elsewhere_is_named(machine, log_of):
    log = log_of("elsewhere", "--log-driver", "local")
    root = docker("info", "--format", "{{.DockerRootDir}}")
    identity = docker("inspect", "--format", "{{.Id}}", log.name)
    findings = read(machine, f"{root}/containers/{identity}/*-json.log*")
    [missing] = [f for f in findings if f.id == "logs.missing"]
    assert (missing.state, f"{log.name} logs with the driver local" in missing.evidence[0]) == ("unknown", True)


def test_containers_without_a_limit_are_named_with_their_size(machine, log_of):
    endless, mute = log_of("endless", "--log-driver", "json-file"), log_of("mute", "--log-driver", "none")
    limited = log_of("limited", "--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3")
    local = log_of("local", "--log-driver", "local")
    endless.write(WRITE, 0, 50, last="order 49 ")
    docker("exec", local.name, "/bin/sh", "-c", WRITE, "sh", "0", "50")
    outcome = machine.ask(container_logs)
    limits = next(f for f in outcome.findings if f.id == "container_logs.limits")
    said = dict(line.partition(": ")[::2] for line in limits.evidence)
    assert said[endless.name] == "driver json-file without max-size grows without end, 8.0 KiB now"
    assert said[mute.name].startswith("driver none keeps nothing")
    assert not {limited.name, local.name} & set(said)
    sizes = {metric.subject: metric.value for metric in outcome.metrics}
    assert sizes[endless.name] == os.stat(endless.path).st_blocks * 512
    assert until(lambda: {m.subject: m.value for m in machine.ask(container_logs).metrics}.get(local.name)) > 0
    large = next(f for f in machine.ask(container_logs, limit_mb=0.001).findings if f.id == "container_logs.size")
    assert f"{endless.name}: 8.0 KiB" in large.evidence
