"""What docs/coverage.yml leaves to a person is asked of that person: a duty that is gone is missed here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from production import ROOT

COVERAGE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docs/coverage.yml").read_text())["coverage"]
LEFT_TO_A_PERSON = [
    (requirement, path) for requirement, entry in COVERAGE.items() for path in entry.get("by", []) if Path(path).name == "duties.yml"
]


@pytest.mark.parametrize(("requirement", "path"), LEFT_TO_A_PERSON)
def test_a_requirement_that_a_person_answers_for_is_a_duty_of_the_system(requirement, path):
    assert requirement in asked_for(path)


@cache
def asked_for(path: str) -> set[str]:
    return {duty["requirement"] for duty in yaml.safe_load((ROOT / path).read_text())["maintenance_duties"]}


def test_coverage_leaves_something_to_persons_of_every_system():
    named = {Path(path).parent.name for _requirement, path in LEFT_TO_A_PERSON}
    assert named == {path.parent.name for path in ROOT.glob("inventories/prod/group_vars/*/duties.yml")}
