"""The engine of this machine and a registry, for all tests."""

from __future__ import annotations

import pytest
from engine import Machine, Registry


@pytest.fixture(scope="session")
def machine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("engine"))
    yield made
    made.clear()


@pytest.fixture(scope="session")
def registry(machine):
    return Registry(machine)
