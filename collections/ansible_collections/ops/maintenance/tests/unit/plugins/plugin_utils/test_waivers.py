# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import date

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils.record import Finding
from ansible_collections.ops.maintenance.plugins.plugin_utils import waivers

TODAY = date(2026, 11, 21)
GOOD = {"id": "security.mode", "subject": "/srv/*", "owner": "N. Name", "reason": "until the move", "expires": "2026-12-31"}


def parsed(*items):
    return waivers.parse(list(items), "waivers.yml", TODAY)


def found(**more):
    return Finding(**{"id": "security.mode", "state": "warning", "subject": "/srv/a", "summary": "s", "advice": "a", **more}).as_dict()


def test_a_finding_that_matches_is_waived_and_keeps_its_state():
    given, faults = parsed(GOOD)
    assert faults == []
    waived = waivers.apply([found()], given)[0]
    assert waived["waived"] == {"owner": "N. Name", "reason": "until the move", "expires": "2026-12-31"}
    assert waived["state"] == "warning"


@pytest.mark.parametrize(
    "other", [found(id="security.owner"), found(subject="/etc/a"), found(subject="x/srv/a"), {**found(), "state": "ok"}]
)
def test_any_other_finding_is_not_waived(other):
    assert waivers.apply([other], parsed(GOOD)[0]) == [other]


def test_a_module_cannot_waive_its_own_findings():
    assert "waived" not in waivers.apply([{**found(), "waived": {"owner": "me"}}], [])[0]


@pytest.mark.parametrize("field", waivers.FIELDS)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_each_field_is_mandatory(field, value):
    given, faults = parsed({**GOOD, field: value})
    assert given == []
    assert [(f["id"], f["state"]) for f in faults] == [("waiver.invalid", "warning")]
    assert field in faults[0]["summary"]


@pytest.mark.parametrize(
    "bad", ["text", 3, None, [], {**GOOD, "note": "x"}, {**GOOD, "id": "*"}, {**GOOD, "id": "?*.*"}, {**GOOD, "expires": "soon"}]
)
def test_a_malformed_waiver_is_a_finding_and_waives_nothing(bad):
    given, faults = parsed(bad, GOOD)
    assert len(given) == 1
    assert [f["id"] for f in faults] == ["waiver.invalid"]
    assert faults[0]["subject"] == "waivers.yml no. 1"


@pytest.mark.parametrize(
    ("day", "is_in_force"), [("2026-11-20", False), ("2026-11-21", True), (date(2026, 11, 20), False), (date(2026, 11, 22), True)]
)
def test_a_waiver_holds_through_its_last_day_and_is_a_finding_after_it(day, is_in_force):
    given, faults = parsed({**GOOD, "expires": day})
    assert bool(given) == is_in_force
    assert [f["id"] for f in faults] == ([] if is_in_force else ["waiver.expired"])


def test_brackets_in_a_subject_mean_themselves():
    given, _faults = parsed({**GOOD, "subject": "/srv/a[1]*"})
    assert "waived" in waivers.apply([found(subject="/srv/a[1].log")], given)[0]
    assert "waived" not in waivers.apply([found(subject="/srv/a1.log")], given)[0]


@pytest.mark.parametrize("content", ["", "maintenance_waivers:\n", "[]", "---\n"])
def test_an_empty_file_waives_nothing(tmp_path, content):
    (tmp_path / "w.yml").write_text(content)
    assert waivers.load(str(tmp_path / "w.yml"), TODAY) == ([], [])


def test_a_file_with_the_variable_name_is_read(tmp_path):
    lines = "".join(f"    {key}: {value!r}\n" for key, value in GOOD.items())
    (tmp_path / "w.yml").write_text("maintenance_waivers:\n  -\n" + lines)
    assert len(waivers.load(str(tmp_path / "w.yml"), TODAY)[0]) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: [", b"text", b"waivers: []", b"!!python/object/apply:os.system [x]"])
def test_a_file_that_is_no_waiver_list_is_one_finding(tmp_path, content):
    (tmp_path / "w.yml").write_bytes(content)
    given, faults = waivers.load(str(tmp_path / "w.yml"), TODAY)
    assert given == []
    assert [f["id"] for f in faults] == ["waiver.invalid"]
    assert "\n" not in faults[0]["summary"]


def test_a_folder_instead_of_a_file_is_one_finding(tmp_path):
    assert [f["state"] for f in waivers.load(str(tmp_path), TODAY)[1]] == ["unknown"]


def test_waivers_that_nothing_needed_are_named_and_no_fault():
    in_force = parsed(GOOD, {**GOOD, "subject": "elsewhere"})[0]
    assert waivers.used([{**found(), "state": "ok"}], in_force) == set()  # resolved: nothing is left to waive
    covering = waivers.used([found()], in_force)
    said = waivers.unused(in_force, covering, "waivers.yml")
    assert (said["id"], said["state"]) == ("waiver.unused", "ok")
    assert "1 of 2" in said["summary"]
    assert "on elsewhere" in said["summary"]
    assert waivers.unused(in_force[:1], covering, "waivers.yml") is None
