# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Docker 28 answers of containers of each kind, with their files in a real folder."""

from __future__ import annotations

import json

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import container_logs
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host, Ran

ID = "85eec0547ecf25f7537d707da2049525d4f5d381f129787f17abf38022c8569e"


class Docker(Host):
    """A daemon with some containers, as the real one answered."""

    def __init__(self, root, running=True):
        self.root, self.running, self.containers = root, running, []

    def add(self, name, driver, size=0, **options):
        identity = f"{len(self.containers):x}" + ID[1:]
        path = self.root / "containers" / identity / ("local-logs/container.log" if driver == "local" else f"{identity}-json.log")
        path.parent.mkdir(parents=True)
        if size:
            path.write_bytes(b"x" * size)
        config = {key.replace("_", "-"): value for key, value in options.items()}
        shown = str(path) if driver == "json-file" else ""
        self.containers.append({"id": identity, "name": f"/{name}", "log": {"Type": driver, "Config": config}, "path": shown})
        return path

    def which(self, name):
        return f"/usr/bin/{name}"

    def run(self, argv, **_options):
        if not self.running:
            return Ran(argv, 1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
        if argv[1] == "info":
            return Ran(argv, 0, json.dumps({"driver": "json-file", "root": str(self.root)}) + "\n", "")
        if argv[1] == "ps":
            return Ran(argv, 0, "\n".join(one["id"] for one in self.containers), "")
        return Ran(argv, 0, "".join(json.dumps(one) + "\n" for one in self.containers if one["id"] in argv), "")


class NoDocker(Host):
    def which(self, _name):
        return None


@pytest.fixture
def docker(tmp_path):
    return Docker(tmp_path / "docker")


@pytest.fixture
def params(tmp_path):
    (tmp_path / "daemon.json").write_text('{"log-opts": {"max-size": "10m", "max-file": "3"}}')
    defaults = {name: option.get("default") for name, option in container_logs.OPTIONS.items()}
    return {**defaults, "daemon_config": str(tmp_path / "daemon.json")}


def faults(params, host):
    return {
        f.id.partition(".")[2]: (f.state, list(f.evidence)) for f in container_logs.run(params, False, host).findings if f.state != "ok"
    }


def test_limited_containers_are_silent(params, docker):
    docker.add("web", "json-file", 5000, max_size="10m", max_file="3")
    docker.add("db", "local", 5000)
    docker.add("mail", "journald")
    assert faults(params, docker) == {}


def test_a_container_without_a_limit_is_named_with_its_size(params, docker):
    docker.add("small", "json-file", 4096)
    path = docker.add("large", "json-file", 40960)
    path.with_name(path.name + ".1").write_bytes(b"x" * 40960)
    docker.add("endless", "json-file", max_size="-1")
    docker.add("mute", "none")
    state, evidence = faults(params, docker)["limits"]
    assert (state, evidence[:2]) == (
        "warning",
        [
            "large: driver json-file without max-size grows without end, 80.0 KiB now",
            "small: driver json-file without max-size grows without end, 4.0 KiB now",
        ],
    )
    assert [line.split(",")[0] for line in evidence[2:]] == [
        "endless: driver json-file without max-size grows without end",
        "mute: driver none keeps nothing",
    ]


def test_logs_that_are_too_large_and_logs_that_cannot_be_seen(params, docker, tmp_path):
    docker.add("web", "json-file", 2_000_000, max_size="10m")
    docker.add("db", "local", 2_000_000)
    assert sorted(line.split(":")[0] for line in faults({**params, "limit_mb": 1.0}, docker)["size"][1]) == ["db", "web"]
    docker.containers[0]["path"] = "/nowhere/containers/x/x-json.log"
    assert faults(params, docker)["size"][0] == "unknown"


@pytest.mark.parametrize(
    ("text", "state"),
    [(None, "warning"), ("{}", "warning"), ('{"log-opts": {"max-file": "3"}}', "warning"), ("{broken", "critical"), ("[]", "critical")],
)
def test_the_daemon(params, docker, tmp_path, text, state):
    docker.add("db", "local")
    path = tmp_path / "daemon.json"
    path.unlink() if text is None else path.write_text(text)
    assert {name: found[0] for name, found in faults(params, docker).items()} == {"daemon": state}


def test_absent_silent_or_empty_is_never_ok(params, docker):
    assert faults(params, NoDocker()) == {"limits": ("unknown", [])}
    assert faults({**params, "expected": False}, NoDocker()) == {}
    assert faults(params, docker)["limits"][0] == "unknown", "no container"
    docker.add("web", "local")
    assert faults(params, docker) == {}
    docker.running = False
    assert faults(params, docker)["limits"][0] == "unknown"


def test_an_answer_that_cannot_be_read_is_unknown(params, docker):
    docker.add("web", "local")
    docker.containers[0]["log"] = None
    assert faults(params, docker)["limits"][0] == "unknown"


def test_hostile_names_are_inert(params, docker):
    docker.add("x\x1b[31m", "json-file")
    assert "\x1b" not in faults(params, docker)["limits"][1][0]


def test_what_cannot_be_meant(params, docker):
    with pytest.raises(InputError, match=r"limit_mb.*daemon_config"):
        container_logs.run({**params, "limit_mb": -1.0, "daemon_config": "x"}, False, docker)
