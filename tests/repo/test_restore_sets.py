"""What the restore of a database is told of the declared backup sets of each system in production."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from production import ROOT, values

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql_restore_sets

ROLE = ROOT / "collections/ansible_collections/ops/maintenance/roles/snapshot"
SETS = {
    "asr_po": {"database": "asr_po"},
    "flow_motion": {"database": "logistics"},
    "fossawork": {},
    "neff_paving": {"daily": "neff_paving_admin", "latest": "neff_paving_admin"},
    "netpost": {"database": "netpost_production", "database monthly": "netpost_production"},
}


def passed(declared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the role makes of declared sets for its module."""
    variables = {**yaml.safe_load((ROLE / "vars/main.yml").read_text()), "snapshot_restore_sets": declared}
    found: list[dict[str, Any]] = Templar(DataLoader(), variables).template(trust_as_template(variables["__snapshot_restore_sets"]))
    return found


@pytest.mark.parametrize("system", SETS)
def test_only_sets_of_dumps_are_restored_from_with_what_opens_them(system: str) -> None:
    declared = list(values(system)["backup_verification_sets"])
    found = passed(declared)
    assert {one["name"]: one["database"] for one in found} == SETS[system]
    if found:
        empty = {name: option.get("default") for name, option in postgresql_restore_sets.OPTIONS.items()}
        postgresql_restore_sets.check([{**empty, **one} for one in found])
    for one in found:
        assert set(one) <= set(postgresql_restore_sets.OPTIONS)
        (whole,) = [other for other in declared if other["name"] == one["name"]]
        assert [one.get(name) for name in postgresql_restore_sets.OPTIONS] == [whole.get(name) for name in postgresql_restore_sets.OPTIONS]
