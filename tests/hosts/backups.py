"""Call the verifier of backups as a playbook does, and plant damage in what it looks at."""

from __future__ import annotations

import os
import shutil
import subprocess

from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

COMMON = {"run_id": "test", "deadline": 0.0, "self_test": False}


def filled(spec, given):
    """Fill in the defaults of an argument spec, as Ansible does."""
    unknown = set(given) - set(spec)
    assert not unknown, unknown
    values = {}
    for name, option in spec.items():
        value = given.get(name, option.get("default"))
        assert value is not None or not option.get("required"), name
        if value is not None and "options" in option:
            value = [filled(option["options"], item) for item in value] if option["type"] == "list" else filled(option["options"], value)
        if value is not None and option.get("choices"):
            assert value in option["choices"], (name, value)
        values[name] = value
    return values


class Verifier:
    """The module with a scratch and a state folder of its own."""

    def __init__(self, folder):
        self.scratch = os.path.join(folder, "scratch")
        self.state_dir = os.path.join(folder, "state")

    def __call__(self, *, check_mode=False, deadline=0.0, servers=(), **declared):
        given = {"sets": [{"name": "test", "size_change_percent": 1000.0, **declared}], "scratch": self.scratch, "settle_seconds": 0.0}
        given["servers"] = list(servers)
        params = {**filled(backup_verification.OPTIONS, given), **COMMON, "state_dir": self.state_dir, "deadline": deadline}
        outcome = backup_verification.run(params, check_mode, Host())
        assert not os.path.exists(self.scratch) or os.listdir(self.scratch) == [], "something stayed in the scratch folder"
        return Seen(outcome)


class Seen:
    """What one call found."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.findings = {finding.id: finding for finding in outcome.findings}
        self.level = outcome.returned["proofs"]["test"]["level"]
        self.proof = outcome.returned["proofs"]["test"]

    def __getitem__(self, name):
        return self.findings["backup." + name]

    def state(self, name):
        return self[name].state

    @property
    def bad(self):
        """Findings that are not ok, but for the room on the machine of the test."""
        return {
            f.id.partition(".")[2]: (f.state, f.summary) for f in self.outcome.findings if f.state != "ok" and f.id != "backup.capacity"
        }

    @property
    def text(self):
        return str(self.outcome.record())


def flip(path, offset=None):
    """Flip one bit in the middle of a file, its time stamps kept."""
    status = os.stat(path)
    os.chmod(path, 0o600)
    with open(path, "r+b") as target:
        place = status.st_size // 2 if offset is None else offset
        target.seek(place)
        byte = target.read(1)[0]
        target.seek(place)
        target.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def copied(source, target):
    """Copy a repository, so that a test can damage it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    for folder, _folders, names in os.walk(source):
        for name in ["", *names]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            os.chown(os.path.join(target, os.path.relpath(path, source)), status.st_uid, status.st_gid, follow_symlinks=False)
    return str(target)


def files_below(folder):
    """Name every file below a folder, the largest first."""
    found = [os.path.join(where, name) for where, _folders, names in os.walk(folder) for name in names]
    return sorted(found, key=lambda path: (-os.path.getsize(path), path))


def snapshot_of(folder):
    """Say everything about a folder that a call could have changed."""
    return {path: (os.lstat(path).st_size, os.lstat(path).st_mtime_ns) for path in files_below(folder)}


def ran(*argv, env=None, **more):
    """Run a tool that has to succeed."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=120, **more)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout
