# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_attestations
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled

NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")


def judged(**given):
    entry = {
        "name": "penetration test",
        "attested_by": "Secure Ltd, R. Roe",
        "date": "2026-06-01",
        "reference": "report PT-2026-06",
        **given,
    }
    params = filled(security_attestations.OPTIONS, {"attestations": [entry]})
    assert security_attestations.validate(params) == []
    review = Review(params, Host(), True, NOW)
    [found] = security_attestations.look(review)
    return found


@pytest.mark.parametrize(
    ("day", "state", "left"),
    [
        ("2026-06-01", "ok", 192),
        ("2025-12-21", "ok", 30),
        ("2025-12-20", "warning", 29),
        ("2025-11-21", "warning", 0),
        ("2025-11-20", "critical", -1),
    ],
)
def test_a_penetration_test_is_good_for_its_time_and_overdue_after_it(day, state, left):
    found = judged(date=day)
    assert (found.state, found.value) == (state, left)
    assert ("overdue" in found.summary, "Secure Ltd, R. Roe" in found.summary) == (state == "critical", True)
    assert found.evidence == ["reference: report PT-2026-06"]


@pytest.mark.parametrize("day", ["", "2026-11-22"])
def test_one_that_was_never_made_or_is_yet_to_be_made_is_never_ok(day):
    assert judged(date=day).state == "unknown"


def test_wrong_input_is_said():
    entries = [
        {"name": "a", "date": "soon", "attested_by": "x", "reference": "y"},
        {"name": "b", "date": "2026-01-01", "valid_days": 0, "warning_days": -1},
    ]
    said = " ".join(security_attestations.validate(filled(security_attestations.OPTIONS, {"attestations": entries})))
    for part in (
        "date of attestations, a is 'soon'",
        "attested_by of attestations, b",
        "reference of attestations, b",
        "valid_days is 0",
        "warning_days is -1",
    ):
        assert part in said


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), True, NOW)
    assert security_attestations.passes_bad_sample(review) == ""
    monkeypatch.setattr(security_attestations, "timedelta", lambda **_given: NOW.date() - NOW.date().replace(year=1900))
    assert security_attestations.passes_bad_sample(review)
