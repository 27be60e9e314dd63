"""What the repository asks for is what the locked environment has, and is said the same everywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections/ansible_collections/ops/maintenance"
WANTED = {entry["name"]: entry["version"] for entry in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]}


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    """Collections that the locked `ansible` package brings."""
    listed = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-galaxy")), "collection", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )
    return {name: facts["version"] for path in json.loads(listed.stdout).values() for name, facts in path.items()}


@pytest.mark.parametrize("name", sorted(WANTED))
def test_collection_ranges_hold_for_the_locked_ansible_package(installed, name):
    assert installed[name] in SpecifierSet(WANTED[name])


def test_ranges_have_no_upper_end_so_that_an_installed_newer_one_satisfies_them():
    assert all(re.fullmatch(r">=[\d.]+", version) for version in WANTED.values())


def test_the_collection_depends_on_the_same_ranges():
    needed = yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["dependencies"]
    assert needed == {name: version for name, version in WANTED.items() if name in needed}


def test_locked_packages_satisfy_the_collections_python_requirements():
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    for line in (COLLECTION / "requirements.txt").read_text().splitlines():
        requirement = Requirement(line)
        assert locked[requirement.name.lower()] in requirement.specifier


def test_the_lock_names_no_place_of_the_machine_that_made_it():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert not [line for line in lines if re.search(r"index-url|find-links|file:|@ |://", line)]
