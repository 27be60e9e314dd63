# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import hashlib
import json
import os
import tarfile
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import backup_archive, backup_proven, backup_rotation
from ansible_collections.ops.maintenance.plugins.module_utils.backup_policy import plan
from ansible_collections.ops.maintenance.plugins.module_utils.backup_sets import Backup, File
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, VerifyError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
DAY = 86400


class FrozenHost(Host):
    """A host whose clock stands still."""

    def now(self):
        return NOW


def rule_of(**given):
    full = {name: copy.deepcopy(spec.get("default")) for name, spec in backup_rotation._RULE.items()}
    return {**full, "name": "dumps", "set": "db", "pattern": "*.dump", "date_format": "%Y%m%d", "keep_daily": 5, **given}


@pytest.fixture
def site(tmp_path):
    """Forty daily dumps, the newest of today."""
    (tmp_path / "daily").mkdir()
    for back in range(40):
        moment = NOW - timedelta(days=back, hours=1)
        path = tmp_path / "daily" / f"{moment:%Y%m%d}.dump"
        path.write_bytes(f"dump of {moment:%Y%m%d} ".encode() * 50)
        os.utime(path, (moment.timestamp(),) * 2)
    prove(tmp_path)
    return tmp_path


def prove(site, name="20261121.dump", level=2, **more):
    """Write the proof that the verifier would."""
    path = site / "daily" / name
    (site / "state").mkdir(mode=0o700, exist_ok=True)
    proof = {
        "path": str(path), "level": level, "is_fresh": True, "verified": NOW.isoformat(),
        "time": datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat(),
        "sha256": {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}, **more,
    }  # fmt: skip
    (site / "state" / "backup_proofs.json").write_text(json.dumps({"sets": {"db": proof}}))


def rotate(site, *rules, check_mode=False, **more):
    params = {
        "rules": list(rules) or [rule_of(root=str(site / "daily"))],
        "timezone": "UTC",
        "state_dir": str(site / "state"),
        "deadline": 0.0,
    }
    return backup_rotation.run({**params, "run_id": "", "self_test": False, **more}, check_mode, FrozenHost())


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def state_of(outcome, id_):
    return next((found.state, found.summary) for found in outcome.findings if found.id == id_)


def test_what_the_policy_keeps_stays_and_a_second_run_finds_nothing(site):
    """flow-bak-2"""
    assert rotate(site).status == "changed"
    assert names(site / "daily") == [f"202611{day}.dump" for day in range(17, 22)]
    assert rotate(site).status == "ok"


def test_check_mode_lists_and_removes_nothing(site):
    outcome = rotate(site, check_mode=True)
    assert (outcome.status, len(outcome.actions)) == ("due", 35)
    assert len(names(site / "daily")) == 40


@pytest.mark.parametrize(
    "broken",
    [
        lambda site: prove(site, level=1),
        lambda site: prove(site, verified=(NOW - timedelta(days=3)).isoformat()),
        lambda site: prove(site, is_fresh=False),
        lambda site: (site / "state" / "backup_proofs.json").unlink(),
        lambda site: (site / "daily" / "20261121.dump").write_bytes(b"changed since"),
        lambda site: (site / "daily" / "20261121.dump").unlink(),
    ],
)
def test_nothing_goes_while_no_newer_one_is_proven(site, broken):
    """flow-bak-2: the last good one is never removed, and neither is anything else without it."""
    broken(site)
    before = names(site / "daily")
    outcome = rotate(site)
    assert state_of(outcome, "backup.rotation")[0] == "warning"
    assert names(site / "daily") == before


def earlier(site, name="20261114.dump", level=5, **more):
    """The proof of a drill at the weekend, as the verifier keeps it beside the daily one."""
    path = site / "daily" / name
    return {
        "path": str(path), "level": level, "is_fresh": True, "verified": (NOW - timedelta(days=7)).isoformat(),
        "time": datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat(),
        "sha256": {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}, "files": "", **more,
    }  # fmt: skip


def test_a_daily_reading_does_not_take_from_a_drill_what_it_proved(site):
    deep = {"root": str(site / "daily"), "demanded_level": 5, "maximum_proof_age_hours": 200.0, "keep_daily": 2}
    prove(site, level=2, demanded=2, deeper=[earlier(site)])
    rotate(site, rule_of(**deep))
    left = names(site / "daily")
    assert left == [f"202611{day}.dump" for day in range(14, 22)], "what is newer than the proven one stays, and so does that one"


@pytest.mark.parametrize(
    "broken",
    [
        lambda site: prove(site, level=1, demanded=2, deeper=[earlier(site)]),
        lambda site: prove(site, level=2, demanded=2, deeper=[earlier(site, level=4)]),
        lambda site: prove(site, level=2, demanded=2, deeper=[earlier(site, is_fresh=False)]),
        lambda site: prove(site, level=2, demanded=2, deeper=[earlier(site, sha256={})]),
        lambda site: prove(site, level=2, demanded=2, deeper=[earlier(site, verified=(NOW - timedelta(days=9)).isoformat())]),
        lambda site: (prove(site, deeper=[earlier(site)]), (site / "daily/20261114.dump").write_bytes(b"changed since")),
    ],
)
def test_an_earlier_proof_counts_only_where_nothing_speaks_against_it(site, broken):
    broken(site)
    before = names(site / "daily")
    rule = rule_of(root=str(site / "daily"), demanded_level=5, maximum_proof_age_hours=200.0)
    assert state_of(rotate(site, rule), "backup.rotation")[0] == "warning"
    assert names(site / "daily") == before


def test_what_has_too_many_files_for_a_list_of_sums_is_known_by_their_names_sizes_and_times(site):
    path = site / "daily/20261121.dump"
    prove(site, sha256={}, files=backup_proven.fingerprint(str(path)))
    assert rotate(site, check_mode=True).status == "due"
    os.utime(path, (0, 0))
    assert state_of(rotate(site), "backup.rotation")[0] == "warning"


def test_what_is_newer_than_the_proven_one_never_goes_and_neither_does_that_one(site):
    prove(site, "20261015.dump")
    rotate(site, rule_of(root=str(site / "daily"), keep_daily=1, minimum_copies=1))
    kept = names(site / "daily")
    assert kept[0] == "20261015.dump"
    assert len(kept) == 38


def test_backups_of_maintenance_runs_and_half_written_ones_are_left_alone(site):
    """flow-bak-2: the safety copies of running maintenance are no backups to rotate."""
    for name in ("weekly-20261001T020000Z-3fa9.dump", "20261012.dump.part"):
        (site / "daily" / name).write_bytes(b"x" * 10)
        os.utime(site / "daily" / name, (NOW.timestamp() - 40 * DAY,) * 2)
    rotate(site)
    assert {"weekly-20261001T020000Z-3fa9.dump", "20261012.dump.part"} <= set(names(site / "daily"))


def test_a_link_is_never_followed_out_of_the_root(site):
    outside = site / "outside.dump"
    outside.write_bytes(b"precious")
    (site / "daily" / "20261001.dump").unlink(missing_ok=True)
    (site / "daily" / "20261001.dump").symlink_to(outside)
    rotate(site)
    assert outside.read_bytes() == b"precious"
    (site / "linked").symlink_to(site / "daily")
    with pytest.raises(InputError, match="symbolic link"):
        rotate(site, rule_of(root=str(site / "linked")))


def test_the_archive_is_written_and_proven_before_anything_goes(site):
    """flow-bak-2, flow-bak-3: archived first, by month, with a checksum, never written over."""
    rule = rule_of(root=str(site / "daily"), archive_to=str(site / "archive"))
    before = {path.name: path.read_bytes() for path in (site / "daily").iterdir()}
    rotate(site, rule)
    assert names(site / "archive") == [f"monthly_backup_2026{m}.tar.gz{s}" for m in (10, 11) for s in ("", ".sha256")]
    held = {}
    for month in (10, 11):
        with tarfile.open(site / "archive" / f"monthly_backup_2026{month}.tar.gz") as archive:
            held |= {member.name: archive.extractfile(member).read() for member in archive}
    gone = set(before) - set(names(site / "daily"))
    assert len(gone) == 35
    assert {name: before[name] for name in gone} == held
    # A second run in the month adds another archive, and leaves the first as it was.
    first = (site / "archive" / "monthly_backup_202611.tar.gz").read_bytes()
    rotate(site, {**rule, "keep_daily": 3})
    assert "monthly_backup_202611_2.tar.gz" in names(site / "archive")
    assert (site / "archive" / "monthly_backup_202611.tar.gz").read_bytes() == first


def test_what_lies_in_an_archive_already_is_not_archived_again(site):
    """Killed between archiving and removing: the next run goes on where it was."""
    rule = rule_of(root=str(site / "daily"), archive_to=str(site / "archive"))
    kept = {path: (path.read_bytes(), path.stat().st_mtime) for path in (site / "daily").iterdir()}
    rotate(site, rule)
    for path, (data, moment) in kept.items():
        path.write_bytes(data)
        os.utime(path, (moment, moment))
    outcome = rotate(site, rule)
    assert len(names(site / "archive")) == 4
    assert {action.operation for action in outcome.actions} == {"remove_backup"}


def test_an_archive_that_does_not_hold_all_stops_the_removal(site, monkeypatch):
    monkeypatch.setattr(backup_archive, "_held", lambda _path: ("", {}))
    outcome = rotate(site, rule_of(root=str(site / "daily"), archive_to=str(site / "archive")))
    assert state_of(outcome, "backup.rotation")[0] == "critical"
    assert len(names(site / "daily")) == 40
    assert names(site / "archive") == []


def test_the_monthly_copy_is_promoted_from_a_proven_daily_before_it_expires(site):
    """netpost-bak-02: 30 days of daily ones, 12 months of monthly ones."""
    rule = rule_of(root=str(site / "daily"), monthly_to=str(site / "monthly"), keep_daily=5)
    outcome = rotate(site, rule)
    assert names(site / "monthly") == ["202611-20261121.dump"]
    assert (site / "monthly" / "202611-20261121.dump").read_bytes() == (site / "daily" / "20261121.dump").read_bytes()
    # October had none proven: its newest daily stays, and that is said.
    assert "20261031.dump" in names(site / "daily")
    assert "2026-10" in state_of(outcome, "backup.monthly")[1]
    assert rotate(site, rule).status == "ok"


def test_bad_rules_are_refused_all_at_once(site):
    rules = [
        rule_of(root=str(site / "daily"), minimum_copies=0, archive_to=str(site / "daily" / "archive")),
        rule_of(root=str(site / "nowhere"), keep_daily=0),
        rule_of(root="/", archive_to=str(site / "a"), archive_name="all.tar.gz"),
    ]
    with pytest.raises(InputError) as caught:
        rotate(site, *rules)
    for words in ("minimum_copies", "outside of", "used twice", "existing folder", "are all 0", "%Y and %m", "only the declared data"):
        assert words in str(caught.value)
    assert len(names(site / "daily")) == 40


def test_after_the_deadline_nothing_is_removed(site):
    outcome = rotate(site, deadline=NOW.timestamp() - 1)
    assert {action.status for action in outcome.actions} == {"deferred"}
    assert len(names(site / "daily")) == 40


def test_a_copy_that_is_not_what_was_read_is_no_copy(site, monkeypatch):
    monkeypatch.setattr(backup_archive, "sha256_of", lambda _path: "0" * 64)
    with pytest.raises(VerifyError):
        backup_archive.copy(str(site / "daily" / "20261121.dump"), str(site / "copy"))
    assert not (site / "copy").exists()


made = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3)), min_size=1, max_size=60, unique_by=lambda pair: pair[0])


@given(made, st.integers(0, 40), st.integers(0, 8), st.integers(0, 14), st.integers(1, 5), st.integers(0, 400))
def test_a_plan_never_gives_up_the_last_good_ones(backups, daily, weekly, monthly, copies, proven_back):
    now = NOW.timestamp()
    listed = [
        Backup(f"/b/{back}", (File(f"/b/{back}", size, 0),), now - back * DAY, date(2026, 11, 21) - timedelta(days=back))
        for back, size in sorted(backups, reverse=True)
    ]
    policy = {"keep_daily": daily, "keep_weekly": weekly, "keep_monthly": monthly, "minimum_copies": copies, "minimum_age_days": 1.0}
    plan_ = plan(listed, policy, now, proven=f"/b/{proven_back}", proven_moment=now - proven_back * DAY)
    assert sorted(b.path for b in plan_.keep + plan_.remove) == sorted(b.path for b in listed)
    holding = [b for b in listed if b.size]
    assert {b.path for b in holding[-copies:]} <= {b.path for b in plan_.keep}
    assert all(b.moment < now - proven_back * DAY for b in plan_.remove)
    assert len([b for b in plan_.keep if b.size]) >= min(len(holding), max(daily, copies))
    nothing = plan(listed, policy, now, proven="", proven_moment=None)
    assert nothing.remove == []
