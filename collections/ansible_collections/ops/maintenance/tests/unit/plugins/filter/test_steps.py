# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.ops.maintenance.plugins.filter.steps import FilterModule, steps

STAGES = {"before": ["backup_verification"], "offline": ["patching", "database_maintenance"], "after": None}


def test_all_steps_stay_by_default_and_each_stage_is_there():
    assert steps({"offline": ["patching"]}) == {"before": [], "offline": ["patching"], "after": []}
    assert steps(STAGES) == {**STAGES, "after": []}


def test_only_and_skip_narrow_every_stage():
    assert steps(STAGES, only=["patching"]) == {"before": [], "offline": ["patching"], "after": []}
    assert steps(STAGES, skip=["patching"])["offline"] == ["database_maintenance"]
    assert steps(STAGES, only=["patching"], skip=["patching"])["offline"] == []


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_name_that_is_no_step_is_refused_with_the_option_that_has_it_and_the_known_ones_are_named(option):
    with pytest.raises(AnsibleFilterError) as caught:
        steps(STAGES, **{option: ["patchin"]})
    assert str(caught.value) == (
        f"maintenance_{option} names patchin; the steps of this cadence in maintenance_steps are "
        "backup_verification, database_maintenance, patching. Correct one of them."
    )


def test_a_step_that_only_other_cadences_have_may_be_left_out_of_all():
    daily = {"before": [], "offline": [], "after": ["log_rotation"]}
    assert steps(daily, skip=["patching"]) == daily
    with pytest.raises(AnsibleFilterError, match="maintenance_only names patching"):
        steps(daily, only=["patching"])


@pytest.mark.parametrize("given", [{"only": "patching"}, {"skip": "patching"}, {"only": 5}])
def test_one_name_instead_of_a_list_is_refused_in_one_sentence(given):
    with pytest.raises(AnsibleFilterError, match="expected lists of steps"):
        steps(STAGES, **given)


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"steps": steps}
