"""The archive that Galaxy is given: complete, with all that Galaxy asks for, and nothing that belongs to a working copy."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections/ansible_collections/ops/maintenance"
ANSIBLE_GALAXY = Path(sys.executable).with_name("ansible-galaxy")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([ANSIBLE_GALAXY, "collection", "build", COLLECTION, "--output-path", folder], check=True, capture_output=True)
    [path] = folder.glob("ops-maintenance-*.tar.gz")
    with tarfile.open(path) as opened:
        yield opened


def test_the_manifest_has_all_that_galaxy_asks_for(archive):
    info = json.load(archive.extractfile("MANIFEST.json"))["collection_info"]
    assert (info["namespace"], info["name"]) == ("ops", "maintenance")
    asked = ("version", "authors", "readme", "description", "tags", "repository", "documentation", "homepage", "issues", "dependencies")
    assert [field for field in asked if not info[field]] == []
    assert info["license"] or info["license_file"]
    assert archive.name.endswith(f"ops-maintenance-{info['version']}.tar.gz")
    assert {info["readme"], "LICENSE", "CHANGELOG.md", "meta/runtime.yml", "requirements.txt"} <= set(archive.getnames())
    assert len(info["tags"]) <= 20, "Galaxy refuses more"


def test_the_archive_has_every_module_and_role_and_nothing_of_a_working_copy(archive):
    names = set(archive.getnames())
    parts = [*COLLECTION.glob("plugins/modules/*.py"), *COLLECTION.glob("roles/*/meta/main.yml"), *COLLECTION.glob("playbooks/*.yml")]
    assert len(parts) > 50
    assert {str(path.relative_to(COLLECTION)) for path in parts} - names == set()
    assert [name for name in names if "__pycache__" in name or name.endswith(".tar.gz") or name.startswith("tests/output")] == []
