# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many hosts may fail before the others are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.action.gate import BAD, over_budget

OUTCOMES = ["completed", "refused", "failed", "rolled_back", "rollback_failed", "unreachable", "not_attempted"]


def test_nothing_failed_nothing_stops():
    assert over_budget({}, 10) == ""
    assert over_budget({"total": 10, "outcomes": ["completed"] * 9}, 0) == ""


@pytest.mark.parametrize("outcome", sorted(BAD))
def test_a_budget_of_zero_stops_at_the_first_that_went_wrong(outcome):
    said = over_budget({"total": 10, "outcomes": ["completed", outcome]}, 0)
    assert said == f"Not attempted: the hosts before it ended with 1 {outcome}, more than the budget of 0 allows."


@pytest.mark.parametrize("outcome", ["refused", "not_attempted", "completed"])
def test_what_was_never_begun_or_went_well_uses_no_budget(outcome):
    assert over_budget({"total": 3, "outcomes": [outcome] * 3}, 0) == ""


def test_the_budget_counts_of_all_hosts_not_of_those_done():
    failures = {"total": 20, "outcomes": ["failed", "failed"]}
    assert over_budget(failures, 10) == ""
    assert over_budget({**failures, "outcomes": ["failed", "failed", "unreachable"]}, 10) == (
        "Not attempted: the hosts before it ended with 2 failed, 1 unreachable, more than the budget of 2 allows."
    )


def test_a_share_of_a_host_is_none():
    assert over_budget({"total": 9, "outcomes": ["failed"]}, 10) != ""


@given(outcomes=st.lists(st.sampled_from(OUTCOMES), max_size=30), percent=st.floats(0, 100))
def test_it_stops_exactly_when_more_went_wrong_than_allowed(outcomes, percent):
    bad = len([outcome for outcome in outcomes if outcome in BAD])
    assert bool(over_budget({"total": len(outcomes), "outcomes": outcomes}, percent)) == (bad > int(len(outcomes) * percent / 100))
