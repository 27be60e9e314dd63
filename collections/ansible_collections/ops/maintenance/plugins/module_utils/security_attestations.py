# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people outside attest for a time, such as a penetration test: who, when, for how long, and where it can be read."""

from __future__ import annotations

import typing as t
from datetime import date, timedelta

from .errors import InputError, out_of_range
from .record import Finding
from .security_common import Review, filled, unknown

ATTESTATION: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "attested_by": {"type": "str", "default": ""},
    "date": {"type": "str", "default": ""},
    "reference": {"type": "str", "default": ""},
    "valid_days": {"type": "int", "default": 365},
    "warning_days": {"type": "int", "default": 30},
}
OPTIONS: dict[str, t.Any] = {"attestations": {"type": "list", "elements": "dict", "default": [], "options": ATTESTATION}}
IDS = ("security.attestation",)


def look(review: Review) -> list[Finding]:
    """Judge each attestation by the days that it is still good for."""
    return [_one(review, given) for given in review.params["attestations"]]


def _one(review: Review, given: t.Mapping[str, t.Any]) -> Finding:
    name = given["name"]
    if not given["date"]:
        return unknown(IDS[0], name, "nobody has attested it yet", "Have it done, then declare who did it, when, and where it can be read.")
    day, today = date.fromisoformat(given["date"]), review.now.date()
    if day > today:
        return unknown(IDS[0], name, f"it is dated {day}, which lies ahead", "Declare it when it was done; correct the date.")
    until = day + timedelta(days=given["valid_days"])
    left = (until - today).days
    review.count("security.attestation_days_left", name, left, "days")
    state = "critical" if left < 0 else "warning" if left < given["warning_days"] else "ok"
    said = f"overdue since {until}" if left < 0 else f"good until {until}"
    return Finding(
        IDS[0],
        state,
        name,
        f"{said}: attested by {given['attested_by']} on {day}",
        value=left,
        unit="days",
        threshold=f"warning below {given['warning_days']} days left, critical when over",
        advice="Have it done anew, then declare who did it, when, and where it can be read." if state != "ok" else "",
        evidence=[f"reference: {given['reference']}"],
    )


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant."""
    wrong = []
    for given in params["attestations"]:
        where = f"attestations, {given['name']}"
        if given["date"]:
            try:
                date.fromisoformat(given["date"])
            except ValueError:
                wrong.append(str(InputError.of(f"date of {where}", given["date"], "a day such as 2026-10-01", "correct it")))
            wrong += [
                str(InputError.of(f"{option} of {where}", given[option], "who attested it and where it can be read", "say it"))
                for option in ("attested_by", "reference")
                if not given[option].strip()
            ]
        limits = [*out_of_range(given, ("valid_days",), least=1, most=3660), *out_of_range(given, ("warning_days",))]
        wrong += [f"{problem} It is in {where}." for problem in limits]
    return wrong


def passes_bad_sample(review: Review) -> str:
    """Plant one that is long over; return the sample when it counts as good."""
    planted = filled(ATTESTATION, {"name": "planted", "attested_by": "nobody", "date": "2000-01-01", "reference": "none"})
    return "an attestation of the year 2000 as a good one" if _one(Review({}, review.host, True, review.now), planted).state == "ok" else ""
