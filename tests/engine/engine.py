"""The Docker Engine of this machine, a registry on it, and modules that only look. Everything made here carries a name and a label of its
own and is removed; nothing else of the engine is touched."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from pathlib import Path

from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

LABEL = "ops-maintenance-engine-test"
ROOT = Path(__file__).parents[2]
REGISTRY = r"""
dpkg --extract /opt/packages/docker-registry/docker-registry_*.deb /tmp/registry
printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: /tmp/images}}\nhttp: {addr: ":5000"}\n' >/tmp/registry.yml
exec /tmp/registry/usr/bin/docker-registry serve /tmp/registry.yml
"""
ROOT_FILESYSTEM = "tar --create --dereference --absolute-names /bin/sh $(ldd /bin/sh | grep -o '/[^ ]*')"


def docker(*arguments, **more):
    """Run docker and return what it printed."""
    ran = subprocess.run(["docker", *arguments], check=False, capture_output=True, timeout=60, **more)
    assert ran.returncode == 0, f"docker {' '.join(arguments)}: {ran.stderr.decode()}"
    return ran.stdout.decode().strip()


def until(ask, seconds=15.0):
    """Ask until there is an answer."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, "no answer in time"
        time.sleep(0.05)
    return answer


class Machine:
    """Containers and images that go away again."""

    def __init__(self, folder):
        self.name = f"zz-engine-test-{os.getpid()}"
        self.folder = folder
        self.test_image = subprocess.run(
            [ROOT / "scripts/images.sh", "--names"], check=True, capture_output=True, text=True
        ).stdout.split()[0]
        self.filesystem = folder / "filesystem.tar"
        with self.filesystem.open("wb") as target:
            subprocess.run(
                ["docker", "run", "--rm", "--label", LABEL, self.test_image, "sh", "-c", ROOT_FILESYSTEM], check=True, stdout=target
            )
        self.containers, self.images = [], []

    def container(self, what, image, *options, command=()):
        """Start a container that waits, and return its name."""
        name = f"{self.name}-{what}"
        self.containers.append(name)
        docker("run", "--detach", "--interactive", "--name", name, "--label", LABEL, *options, image, *command)
        return name

    def remove(self, name):
        docker("rm", "--force", "--volumes", name)

    def image(self, tagged, version):
        """Make a small image; another version is another image."""
        self.images.append(tagged)
        with self.filesystem.open("rb") as source:
            identity = docker(
                "import", "--change", f"LABEL version={version} {LABEL}=", "--change", "CMD /bin/sh", "-", tagged, stdin=source
            )
        self.images.append(identity)
        return identity.removeprefix("sha256:")

    def clear(self):
        subprocess.run(["docker", "rm", "--force", "--volumes", *self.containers], check=False, capture_output=True)
        # An image that others use too, or that is gone already, is left.
        subprocess.run(["docker", "image", "rm", "--force", *reversed(self.images)], check=False, capture_output=True)

    def ask(self, module, **options):
        """Let a module look, as its defaults have it."""
        given = {name: option.get("default") for name, option in module.OPTIONS.items()}
        common = {"state_dir": str(self.folder / "state"), "deadline": 0.0, "run_id": "", "self_test": False}
        return module.run({**given, **common, **options}, False, Host())


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Registry:
    """A registry on a port of this machine, which the engine talks to without TLS."""

    def __init__(self, machine):
        self.name = machine.container("registry", machine.test_image, "--publish", "127.0.0.1::5000", command=("sh", "-c", REGISTRY))
        self.address = docker("port", self.name, "5000/tcp").splitlines()[0]
        until(self._answers)

    def _answers(self):
        try:
            return _DIRECT.open(f"http://{self.address}/v2/", timeout=5).status == 200
        except OSError:
            return False

    def retag(self, repository, source, target):
        """Let a tag point to what another one does, in the registry only."""
        form = "application/vnd.docker.distribution.manifest.v2+json"
        url = f"http://{self.address}/v2/{repository}/manifests"
        manifest = _DIRECT.open(urllib.request.Request(f"{url}/{source}", headers={"Accept": form}), timeout=5).read()
        put = urllib.request.Request(f"{url}/{target}", manifest, {"Content-Type": form}, method="PUT")
        return _DIRECT.open(put, timeout=5).headers["Docker-Content-Digest"]
