# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step should take comes from earlier runs on the host, or else from its time budget (fossa-sched-2)."""

from __future__ import annotations

from typing import Any

from ansible_collections.ops.maintenance.plugins.plugin_utils import durations

STEPS = {"before": ["backup_verification"], "offline": ["patching"], "after": ["log_rotation"]}


def row(step: str, seconds: float, host: str = "h1", changed: int = 0) -> dict[str, Any]:
    return {"role": f"ops.maintenance.{step}", "host": host, "seconds": seconds, "changed": changed}


def test_the_median_of_earlier_runs_goes_before_the_budget_which_goes_before_nothing():
    rows = [row("log_rotation", seconds) for seconds in (10, 500, 20)]
    found = durations.expected(["h1", "h2"], STEPS, {"log_rotation": 1800.0, "patching": 2700.0}, rows)
    assert found["h1"]["log_rotation"] == {"seconds": 20, "basis": "the median of its last 3 runs here"}
    assert found["h2"]["log_rotation"] == {"seconds": 1800.0, "basis": "its time budget"}
    assert found["h1"]["backup_verification"] == {"seconds": 0.0, "basis": "nothing known of it"}


def test_of_a_step_that_stops_services_only_runs_with_something_to_do_say_how_long_that_takes():
    rows = [row("patching", 5), row("patching", 6), row("patching", 1300, changed=1)]
    assert durations.expected(["h1"], STEPS, {"patching": 2700.0}, rows)["h1"]["patching"]["seconds"] == 1300
    assert durations.expected(["h1"], STEPS, {"patching": 2700.0}, rows[:2])["h1"]["patching"]["seconds"] == 2700


def test_a_cadence_may_have_budgets_of_its_own():
    budgets = {"patching": 2700, "log_rotation": 1800, "daily": {"log_rotation": 300}}
    assert durations.budgets_of(budgets, "daily") == {"patching": 2700.0, "log_rotation": 300.0}
    assert durations.budgets_of(budgets, "weekly") == {"patching": 2700.0, "log_rotation": 1800.0}
    assert durations.budgets_of("much", "weekly") == {}
