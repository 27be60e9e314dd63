"""Dependencies of applications on a real host: root maintains an environment of another user, with the distribution's own Python and pip."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import zipfile

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import node_dependencies, python_dependencies
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

OWNER = pwd.getpwnam("www-data")


def wheel(index, name, version):
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


@pytest.fixture(scope="module")
def place():
    """A folder that others may enter, with an index of packages."""
    with tempfile.TemporaryDirectory(prefix="deps", dir="/tmp") as name:
        os.chmod(name, 0o755)
        folder = pathlib.Path(name)
        for version in ("1.0", "1.1", "2.0"):
            wheel(folder / "index", "shop", version)
        for empty in ("pip", "setuptools"):
            (folder / "index" / empty).mkdir()
            (folder / "index" / empty / "index.html").write_text("<!DOCTYPE html><html><body></body></html>")
        subprocess.run(["python3", "-m", "venv", folder / "template"], check=True)
        yield folder


@pytest.fixture
def app(place, monkeypatch):
    """An application of another user: its environment, and the requirements that it was made from."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (place / "index").as_uri())
    folder = place / "app"
    folder.mkdir()
    os.chown(folder, OWNER.pw_uid, OWNER.pw_gid)
    subprocess.run(["cp", "-a", place / "template", folder / "venv"], check=True)
    subprocess.run([folder / "venv/bin/python", "-m", "pip", "install", "-q", "shop==1.0"], check=True)
    (folder / "requirements.txt").write_text("shop>=1,<2\n")
    subprocess.run(["chown", "-R", "www-data:www-data", folder], check=True)
    yield folder
    shutil.rmtree(folder)


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_uid, path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
        for path in folder.rglob("*")
    }


def run_python(app, check=False, **declared):
    given = {name: option.get("default") for name, option in python_dependencies.OPTIONS["environments"]["options"].items()}
    environment = {
        **given,
        "path": str(app / "venv"),
        "requirements": str(app / "requirements.txt"),
        "audit": False,
        "update": ["shop"],
        **declared,
    }
    limits = {"registry_timeout_seconds": 3, "test_timeout_seconds": 60, "minimum_seconds": 60}
    params = {"environments": [environment], "deadline": 0.0, "state_dir": str(app.parent / "state"), **limits}
    return python_dependencies.run(params, check, Host())


def version(app):
    argv = [app / "venv/bin/python", "-c", "import importlib.metadata as m; print(m.version('shop'))"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_named_package_is_updated_as_the_owner_within_the_requirements(app):
    """The test command proves who it runs as: nothing in an application's folder runs as root."""
    test = ["bin/python", "-c", f"import os, shop; assert os.getuid() == {OWNER.pw_uid} and shop.version == '1.1'"]
    done = run_python(app, test_command=test)
    assert [(a.status, a.after) for a in done.actions] == [("changed", {"version": "1.1"})]
    assert {path.lstat().st_uid for path in (app / "venv").rglob("*")} == {OWNER.pw_uid}


def test_failing_test_command_brings_everything_back(app):
    before = snapshot(app)
    outcome = run_python(app, test_command=["bin/python", "-c", "import sys, shop; sys.exit(shop.version != '1.0')"])
    assert {f.id: f.state for f in outcome.findings}["python.update"] == "critical"
    assert version(app) == "1.0"
    after = snapshot(app)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == set()


def test_index_out_of_reach_is_unknown_and_changes_nothing(app, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    before = snapshot(app)
    outcome = run_python(app)
    assert {f.id: f.state for f in outcome.findings}["python.outdated"] == "unknown"
    assert snapshot(app) == before


def test_lock_file_is_audited_on_a_host_without_npm(place):
    """The offline database answers; what only npm could tell stays unknown."""
    folder = place / "web"
    folder.mkdir()
    (folder / "package.json").write_text('{"dependencies": {"lodash": "^4.17.15"}}')
    packages = {"node_modules/lodash": {"version": "4.17.15", "resolved": "https://registry.npmjs.org/lodash/-/lodash-4.17.15.tgz"}}
    (folder / "package-lock.json").write_text(json.dumps({"lockfileVersion": 3, "packages": packages}))
    span = {"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "4.17.21"}]}
    affected = [{"package": {"ecosystem": "npm", "name": "lodash"}, "ranges": [span]}]
    with zipfile.ZipFile(place / "npm.zip", "w") as archive:
        archive.writestr("GHSA-1.json", json.dumps({"id": "GHSA-1", "modified": Host().now().isoformat(), "affected": affected}))
    given = {name: option.get("default") for name, option in node_dependencies.OPTIONS["projects"]["options"].items()}
    limits = {"registry_timeout_seconds": 3, "test_timeout_seconds": 60, "minimum_seconds": 60}
    params = {
        "projects": [{**given, "path": str(folder), "advisories": str(place / "npm.zip")}],
        "deadline": 0.0,
        "state_dir": "/nonexistent",
        **limits,
    }
    states = {f.id: f.state for f in node_dependencies.run(params, False, Host()).findings}
    assert states == {"node.vulnerable": "warning", "node.outdated": "unknown"}
