# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import sqlite3
import sys
import tarfile
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import (
    backup_barman,
    backup_borg,
    backup_kinds,
    backup_pgbackrest,
    backup_proof,
    backup_proven,
    backup_redis,
    backup_restic,
    backup_self_test,
    backup_self_test_tools,
    backup_sets,
)
from ansible_collections.ops.maintenance.plugins.module_utils import backup_verification as verification
from ansible_collections.ops.maintenance.plugins.module_utils.backup_kinds import Verdict
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, VerifyError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.paths import write_state

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
HOUR = 3600


class FrozenHost(Host):
    """A host whose clock stands still and whose waits take no time."""

    def __init__(self, now=NOW, while_waiting=lambda: None):
        self.moment = now
        self.while_waiting = while_waiting

    def now(self):
        return self.moment

    def sleep(self, _seconds):
        self.while_waiting()


def with_defaults(options, given):
    """Fill in defaults as AnsibleModule does."""
    full = {}
    for name, spec in options.items():
        value = given.get(name, copy.deepcopy(spec.get("default")))
        if value is not None and "options" in spec:
            nested = spec["options"]
            value = [with_defaults(nested, item) for item in value] if spec["type"] == "list" else with_defaults(nested, value)
        full[name] = value
    unknown = set(given) - set(options)
    assert not unknown, unknown
    return full


def params_of(tmp_path, *sets, **more):
    full = with_defaults(
        verification.OPTIONS,
        {"sets": list(sets), "scratch": str(tmp_path / "scratch"), "timezone": "UTC"}
        | {name: value for name, value in more.items() if name in verification.OPTIONS},
    )
    common = {"run_id": "weekly-20261121T020000Z-3fa9", "deadline": 0.0, "self_test": False}
    return {**common, "state_dir": str(tmp_path / "state"), **more, **full}


def verify(tmp_path, *sets, host=None, check_mode=False, **more):
    return verification.run(params_of(tmp_path, *sets, **more), check_mode, host or FrozenHost())


def state_of(outcome, id_):
    return next(finding.state for finding in outcome.findings if finding.id == id_)


def text_of(outcome, id_):
    return next(finding.summary for finding in outcome.findings if finding.id == id_)


def make_database(path, rows=400, table="work_orders", first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, created TEXT, text TEXT)")
        connection.execute(f"CREATE INDEX idx_tokens ON {table} (text)")
        start = datetime(2026, 11, 20)
        connection.executemany(
            f"INSERT INTO {table} (created, text) VALUES (?, ?)",
            [((start + timedelta(minutes=first + n)).isoformat(), f"order {n} " * 9) for n in range(rows)],
        )
        connection.commit()
    return path


def make_archive(path, files=6, mode="w:gz", seed=1):
    noise = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for number in range(files):
            data = noise.randbytes(3000) + b"text " * 400
            member = tarfile.TarInfo(f"data/{number}.bin")
            member.size, member.mtime = len(data), int(NOW.timestamp())
            archive.addfile(member, io.BytesIO(data))
    return path


def set_time(path, moment):
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    return path


def sqlite_set(root, **more):
    return {"name": "db", "kind": "sqlite", "root": str(root), "pattern": "*.db*", "required_tables": ["work_orders"], **more}


def files_set(root, **more):
    return {"name": "files", "root": str(root), **more}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


# Rung 0 ----------------------------------------------------------------------


def test_the_newest_by_time_is_verified_not_the_first_that_find_names(tmp_path, root):
    set_time(make_database(root / "a_20261114.db"), NOW - timedelta(days=7))
    set_time(make_database(root / "z_20261121.db"), NOW - timedelta(hours=1))
    set_time(make_database(root / "m_20261118.db"), NOW - timedelta(days=3))
    outcome = verify(tmp_path, sqlite_set(root, date_format="%Y%m%d"))
    assert outcome.returned["proofs"]["db"]["path"] == str(root / "z_20261121.db")


def test_a_copied_stale_backup_does_not_become_fresh_by_its_time_stamp(tmp_path, root):
    set_time(make_database(root / "db_20261110.db"), NOW)
    outcome = verify(tmp_path, sqlite_set(root, date_format="%Y%m%d"))
    assert state_of(outcome, "backup.age") == "critical"


def test_yesterdays_backup_is_fresh_at_two_in_the_night(tmp_path, root):
    set_time(make_database(root / "20261120" / "app.db"), NOW - timedelta(hours=23))
    outcome = verify(tmp_path, sqlite_set(root, layout="dated_folders", date_format="%Y%m%d", pattern="*.db"))
    assert state_of(outcome, "backup.age") == "ok"
    assert state_of(outcome, "backup.level") == "ok"


def test_no_recent_backup_is_critical(tmp_path, root):
    outcome = verify(tmp_path, sqlite_set(root))
    assert state_of(outcome, "backup.present") == "critical"
    assert state_of(outcome, "backup.level") == "critical"


def test_a_root_that_does_not_exist_is_a_missing_backup(tmp_path):
    outcome = verify(tmp_path, sqlite_set(tmp_path / "nowhere"))
    assert state_of(outcome, "backup.present") == "critical"


def test_an_empty_dated_folder_is_no_backup(tmp_path, root):
    (root / "20261121").mkdir()
    set_time(root / "20261121", NOW)
    declared = sqlite_set(root, layout="dated_folders", date_format="%Y%m%d", expected={"every": "daily"})
    outcome = verify(tmp_path, declared)
    assert state_of(outcome, "backup.size") == "critical"
    assert state_of(outcome, "backup.level") == "critical"
    assert "2026-11-20" in text_of(outcome, "backup.completeness")


def test_a_zero_byte_database_is_empty_not_ok(tmp_path, root):
    (root / "app.db").touch()
    set_time(root / "app.db", NOW)
    outcome = verify(tmp_path, sqlite_set(root))
    assert "empty" in text_of(outcome, "backup.size")
    assert outcome.returned["proofs"]["db"]["level"] == -1


def test_missing_days_are_named_and_today_is_not_due_yet(tmp_path, root):
    for day in (14, 15, 17, 18, 20):
        folder = root / f"202611{day}"
        set_time(make_database(folder / "app.db"), datetime(2026, 11, day, 3, tzinfo=timezone.utc))
    declared = sqlite_set(root, layout="dated_folders", date_format="%Y%m%d", expected={"every": "daily"})
    outcome = verify(tmp_path, declared)
    assert text_of(outcome, "backup.completeness") == "5 of 7 daily backups, none of 2026-11-16, 2026-11-19"


def test_seven_files_of_one_day_are_one_day(tmp_path, root):
    for number in range(7):
        set_time(make_database(root / f"app-{number}.db"), NOW - timedelta(minutes=number))
    outcome = verify(tmp_path, sqlite_set(root, expected={"every": "daily"}))
    assert "1 of 7 daily backups" in text_of(outcome, "backup.completeness")


@pytest.mark.parametrize(("zone", "day"), [("UTC", "2026-11-19"), ("Pacific/Auckland", "2026-11-20")])
def test_days_are_those_of_the_declared_zone(tmp_path, root, zone, day):
    make = datetime(2026, 11, 19, 23, tzinfo=timezone.utc)  # the 20th in Auckland
    set_time(make_database(root / "app.db"), make)
    listing = backup_sets.list_backups(params_of(tmp_path, sqlite_set(root))["sets"][0], verification.zone_of(zone))
    assert listing.backups[0].day.isoformat() == day


def test_a_weekly_backup_of_last_week_is_enough_and_none_is_critical(tmp_path, root):
    path = set_time(make_database(root / "full.db"), NOW - timedelta(days=6, hours=23))
    declared = sqlite_set(root, expected={"every": "weekly"}, maximum_age_hours=192)
    assert state_of(verify(tmp_path, declared), "backup.completeness") == "ok"
    set_time(path, NOW - timedelta(days=7, hours=1))
    assert state_of(verify(tmp_path, declared), "backup.completeness") == "critical"


def test_retention_counts_from_thirty_days_and_lists_what_is_too_old(tmp_path, root):
    for age in (0.5, 29.9, 30.1, 45):
        set_time(make_database(root / f"age-{age}.db"), NOW - timedelta(days=age))
    outcome = verify(tmp_path, sqlite_set(root, retention={"maximum_age_days": 30, "minimum_count": 2}))
    finding = next(finding for finding in outcome.findings if finding.id == "backup.retention")
    assert [os.path.basename(path) for path in finding.evidence] == ["age-45.db", "age-30.1.db"]
    assert len(list(root.iterdir())) == 4


def test_a_stopped_job_never_leads_to_the_last_good_backups(tmp_path, root):
    for age in (40, 41, 42):
        set_time(make_database(root / f"age-{age}.db"), NOW - timedelta(days=age))
    outcome = verify(tmp_path, sqlite_set(root, retention={"maximum_age_days": 30, "minimum_count": 2}))
    finding = next(finding for finding in outcome.findings if finding.id == "backup.retention")
    assert [os.path.basename(path) for path in finding.evidence] == ["age-42.db"]


def test_too_few_kept_is_a_warning(tmp_path, root):
    set_time(make_database(root / "app.db"), NOW)
    outcome = verify(tmp_path, sqlite_set(root, expected={"every": "weekly", "keep_count": 4}))
    assert state_of(outcome, "backup.retention") == "warning"
    assert "4 are wanted" in text_of(outcome, "backup.retention")


def test_a_sudden_change_of_size_is_a_warning(tmp_path, root):
    for day in (17, 18, 19, 20):
        set_time(make_database(root / f"app_202611{day}.db"), NOW - timedelta(days=21 - day))
    set_time(make_database(root / "app_20261121.db", rows=20), NOW)
    outcome = verify(tmp_path, sqlite_set(root, date_format="%Y%m%d"))
    assert state_of(outcome, "backup.size") == "warning"


def test_a_backup_that_took_much_longer_than_usual_is_a_warning(tmp_path, root):
    """asr-14-4: the name says when each began, the file when it was done."""
    for day, minutes in ((16, 4), (17, 5), (18, 4), (19, 5), (20, 30)):
        begun = datetime(2026, 11, day, 22, 0, tzinfo=timezone.utc)
        set_time(make_database(root / f"app_202611{day}_2200.db"), begun + timedelta(minutes=minutes))
    outcome = verify(tmp_path, sqlite_set(root, date_format="%Y%m%d_%H%M"))
    assert state_of(outcome, "backup.duration") == "warning"
    assert "took 30 min" in text_of(outcome, "backup.duration")
    os.remove(root / "app_20261120_2200.db")
    assert state_of(verify(tmp_path, sqlite_set(root, date_format="%Y%m%d_%H%M")), "backup.duration") == "ok"


def test_room_for_the_backups_to_come_is_judged_by_how_fast_it_goes(tmp_path, root):
    """asr-14-5: a file system that is far from full today may be full within the retention."""
    set_time(make_database(root / "app.db"), NOW)
    status = os.statvfs(root)
    taken, free = (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_bavail * status.f_frsize
    for days_left, state in ((100, "ok"), (5, "warning")):
        a_day = free / days_left
        points = [[(NOW - timedelta(days=day)).timestamp(), taken - day * a_day] for day in (6, 4, 2)]
        write_state(str(tmp_path / "state"), "backup_history.json", {"used": {str(root): points}})
        outcome = verify(tmp_path, sqlite_set(root), capacity_warning_percent=101.0, capacity_critical_percent=102.0)
        assert state_of(outcome, "backup.capacity") == state
        assert "full in about" in text_of(outcome, "backup.capacity")
    for limits, state in (((0.0, 101.0), "warning"), ((0.0, 0.0), "critical")):
        outcome = verify(tmp_path, sqlite_set(root), capacity_warning_percent=limits[0], capacity_critical_percent=limits[1])
        assert state_of(outcome, "backup.capacity") == state


def test_a_backup_that_still_grows_is_half_written_and_the_one_before_is_verified(tmp_path, root):
    set_time(make_database(root / "old.db"), NOW - timedelta(hours=5))
    growing = set_time(make_database(root / "new.db"), NOW)

    def write_more():
        with open(growing, "ab") as target:
            target.write(b"more")

    outcome = verify(tmp_path, sqlite_set(root), host=FrozenHost(while_waiting=write_more))
    assert state_of(outcome, "backup.present") == "warning"
    assert outcome.returned["proofs"]["db"]["path"] == str(root / "old.db")


def test_a_name_from_the_future_is_not_taken_for_the_newest(tmp_path, root):
    set_time(make_database(root / "app_20261121.db"), NOW)
    set_time(make_database(root / "app_20270101.db"), NOW)
    outcome = verify(tmp_path, sqlite_set(root, date_format="%Y%m%d"))
    assert state_of(outcome, "backup.clock") == "warning"
    assert outcome.returned["proofs"]["db"]["path"].endswith("app_20261121.db")


def test_a_name_in_another_zone_is_not_the_future(tmp_path, root):
    late = datetime(2026, 11, 21, 6, tzinfo=timezone.utc)  # still the 20th in Los Angeles
    set_time(make_database(root / "20261121" / "app.db"), late - timedelta(hours=1))
    declared = sqlite_set(root, layout="dated_folders", date_format="%Y%m%d", pattern="*.db")
    outcome = verify(tmp_path, declared, host=FrozenHost(late), timezone="America/Los_Angeles")
    assert {finding.state for finding in outcome.findings} == {"ok"}
    assert outcome.returned["proofs"]["db"]["age_seconds"] == HOUR


# Rungs 1 to 5 -----------------------------------------------------------------


def test_an_intact_database_reaches_the_top_and_raises_nothing(tmp_path, root):
    live = make_database(tmp_path / "live" / "app.db", rows=410)
    set_time(make_database(root / "app.db", rows=400), NOW - timedelta(hours=1))
    outcome = verify(
        tmp_path,
        sqlite_set(root, level=5, source=str(live), count_tables=["work_orders"],
                   sentinel={"table": "work_orders", "column": "created"}),
    )  # fmt: skip
    assert {finding.state for finding in outcome.findings} == {"ok"}
    proof = outcome.returned["proofs"]["db"]
    assert (proof["level"], proof["rpo_seconds"]) == (5, 600.0)
    assert proof["rto_seconds"] > 0


def test_the_drill_leaves_nothing_and_the_source_untouched(tmp_path, root):
    path = set_time(make_database(root / "app.db"), NOW)
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(root))
    verify(tmp_path, sqlite_set(root))
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(root))) == before
    assert not (tmp_path / "scratch").exists()


def test_check_mode_gives_the_same_verdicts_and_leaves_no_trace(tmp_path, root):
    set_time(make_database(root / "app.db"), NOW)
    before = sorted(tmp_path.rglob("*"))
    checked = verify(tmp_path, sqlite_set(root), check_mode=True)
    assert sorted(tmp_path.rglob("*")) == before
    real = verify(tmp_path, sqlite_set(root))
    without_times = [(f.id, f.state) for f in checked.findings]
    assert without_times == [(f.id, f.state) for f in real.findings]
    assert not checked.is_change
    assert not real.is_change


def test_what_a_drill_proved_is_kept_beside_a_daily_reading(tmp_path, root):
    path = make_database(root / "app.db")
    set_time(path, NOW)

    def kept(**more):
        verify(tmp_path, sqlite_set(root, level=4), **more)
        proof = json.loads((tmp_path / "state/backup_proofs.json").read_text())["sets"]["db"]
        return proof["level"], [one["level"] for one in proof["deeper"]], backup_proven.deepest(proof)

    assert kept() == (4, [], 4)
    assert kept(maximum_level=2) == (2, [4], 4)
    assert kept(maximum_level=3) == (3, [4], 4)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM work_orders WHERE id = 3")
        connection.commit()
    set_time(path, NOW + timedelta(minutes=5))
    assert kept(maximum_level=2) == (2, [3, 4], 2), "what was proven were other bytes"
    path.write_bytes(path.read_bytes()[:5000])
    set_time(path, NOW)
    assert kept(maximum_level=2)[::2] == (0, 0), "it is damaged now, whatever was proven before"
    path.unlink()
    assert kept()[::2] == (-1, -1)
    set_time(make_database(path), NOW)
    assert kept() == (4, [], 4)


def test_a_killed_drill_is_swept_by_the_next_run_whoever_has_its_number_now(tmp_path, root):
    left = tmp_path / "scratch" / f"verify-{os.getpid()}-x"
    left.mkdir(parents=True)
    (tmp_path / "scratch").chmod(0o700)
    (left / "restored.db").write_bytes(b"secret")
    set_time(make_database(root / "app.db"), NOW)
    verify(tmp_path, sqlite_set(root))
    assert not left.exists()


def test_an_index_named_tokens_does_not_make_a_damaged_database_ok(tmp_path, root):
    path = make_database(root / "app.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM work_orders WHERE id = 3")
        connection.commit()
    with closing(sqlite3.connect(path)) as connection:  # rows without their index entries
        connection.execute("PRAGMA writable_schema = ON")
        sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'idx_tokens'").fetchone()[0]
        rootpage = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'idx_tokens'").fetchone()[0]
        connection.execute("DELETE FROM sqlite_master WHERE name = 'idx_tokens'")
        connection.commit()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO work_orders (created, text) VALUES ('x', 'y')")
        connection.commit()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES ('index', 'idx_tokens', 'work_orders', ?, ?)", (rootpage, sql))
        connection.commit()
    set_time(path, NOW)
    outcome = verify(tmp_path, sqlite_set(root))
    assert state_of(outcome, "backup.integrity") == "critical"
    assert "\n" not in text_of(outcome, "backup.integrity")
    assert "idx_tokens" in text_of(outcome, "backup.integrity")


def test_an_answer_of_the_quick_check_with_ok_inside_a_name_is_no_ok_fossa_bak_03(tmp_path, root):
    path = root / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE tokens (id INTEGER PRIMARY KEY, book TEXT)")
        connection.execute("INSERT INTO tokens (book) VALUES (NULL)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'book TEXT', 'book TEXT NOT NULL')")
        connection.commit()
    with closing(sqlite3.connect(path)) as connection:
        said = connection.execute("PRAGMA quick_check").fetchall()
        assert said == [("NULL value in tokens.book",)], "the answer that a search for ok takes for one"
        assert backup_kinds._quick_check(connection) == ["NULL value in tokens.book"]
    set_time(path, NOW)
    outcome = verify(tmp_path, sqlite_set(root, level=1, required_tables=["tokens"]))
    assert outcome.state == "critical"
    assert any("tokens.book" in finding.summary for finding in outcome.findings)


def test_the_quick_check_of_a_sound_database_is_ok(root):
    with closing(sqlite3.connect(make_database(root / "app.db"))) as connection:
        assert backup_kinds._quick_check(connection) == []


def test_a_database_without_tables_and_a_foreign_one_are_wrong(tmp_path, root):
    path = root / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
        connection.commit()
    set_time(path, NOW)
    assert "no table at all" in text_of(verify(tmp_path, sqlite_set(root)), "backup.integrity")
    path.unlink()
    set_time(make_database(path, table="dispensers"), NOW)
    assert "lacks the tables work_orders" in text_of(verify(tmp_path, sqlite_set(root)), "backup.integrity")


@pytest.mark.parametrize("level", [1, 2])
def test_low_levels_open_the_backup_itself_and_find_the_wrong_database(tmp_path, root, level):
    set_time(make_database(root / "app.db", table="dispensers"), NOW)
    outcome = verify(tmp_path, sqlite_set(root, level=level))
    assert state_of(outcome, "backup.structure") == "critical"
    assert sorted(os.listdir(root)) == ["app.db"]


def test_an_unfinished_write_beside_the_backup_shows(tmp_path, root):
    set_time(make_database(root / "app.db"), NOW)
    (root / "app.db-journal").write_bytes(b"\xd9\xd5\x05\xf9" * 100)
    outcome = verify(tmp_path, sqlite_set(root))
    assert "half written" in text_of(outcome, "backup.structure")


def test_rows_lost_in_backup_or_source_show(tmp_path, root):
    live = make_database(tmp_path / "live" / "app.db", rows=400)
    declared = sqlite_set(root, level=5, source=str(live), count_tables=["work_orders"],
                          sentinel={"table": "work_orders", "column": "created"})  # fmt: skip
    set_time(make_database(root / "app.db", rows=100), NOW)
    few = verify(tmp_path, declared)
    assert state_of(few, "backup.content") == "warning"
    (root / "app.db").unlink()
    set_time(make_database(root / "app.db", rows=600), NOW + timedelta(minutes=5))
    more = verify(tmp_path, declared)
    assert any("the source lost rows" in line for f in more.findings if f.id == "backup.content" for line in f.evidence)


def test_an_old_copy_under_a_new_name_shows_in_the_measured_rpo(tmp_path, root):
    live = make_database(tmp_path / "live" / "app.db", rows=400, first=4 * 24 * 60)
    set_time(make_database(root / "app_20261121.db", rows=400), NOW)
    outcome = verify(tmp_path, sqlite_set(root, level=5, source=str(live), date_format="%Y%m%d",
                                          sentinel={"table": "work_orders", "column": "created"}))  # fmt: skip
    assert state_of(outcome, "backup.content") == "critical"
    assert outcome.returned["proofs"]["db"]["rpo_seconds"] == 4 * 24 * HOUR


def test_level_five_with_nothing_to_compare_is_unknown(tmp_path, root):
    set_time(make_database(root / "app.db"), NOW)
    outcome = verify(tmp_path, sqlite_set(root, level=5))
    assert state_of(outcome, "backup.content") == "unknown"
    assert state_of(outcome, "backup.level") == "unknown"


def test_silent_damage_after_the_first_look_shows_without_a_manifest(tmp_path, root):
    path = set_time(make_database(root / "app.db"), NOW)
    assert state_of(verify(tmp_path, sqlite_set(root)), "backup.checksum") == "ok"
    data = bytearray(path.read_bytes())
    at = bytes(data).rindex(b"order 7 ")
    data[at] ^= 1
    path.write_bytes(data)
    set_time(path, NOW)
    outcome = verify(tmp_path, sqlite_set(root))
    assert state_of(outcome, "backup.checksum") == "critical"
    assert "silent damage" in text_of(outcome, "backup.checksum")


def test_a_manifest_covers_every_file_of_a_dated_folder(tmp_path, root):
    folder = root / "20261121"
    make_database(folder / "app.db")
    (folder / "uploads.bin").write_bytes(b"x" * 5000)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in ("app.db", "uploads.bin")]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    for path in folder.iterdir():
        set_time(path, NOW)
    declared = sqlite_set(root, layout="dated_folders", date_format="%Y%m%d", pattern="*.db", manifest="SHA256SUMS")
    assert state_of(verify(tmp_path, declared), "backup.level") == "ok"
    (folder / "uploads.bin").write_bytes(b"y" * 5000)
    set_time(folder / "uploads.bin", NOW)
    assert state_of(verify(tmp_path, declared), "backup.checksum") == "critical"
    (folder / "uploads.bin").unlink()
    assert "uploads.bin" in text_of(verify(tmp_path, declared), "backup.structure")


def test_a_declared_manifest_that_is_missing_is_unknown(tmp_path, root):
    set_time(make_database(root / "app.db"), NOW)
    outcome = verify(tmp_path, sqlite_set(root, manifest="{name}.sha256"))
    assert state_of(outcome, "backup.checksum") == "unknown"


def test_an_archive_without_the_required_file_fails_at_level_five(tmp_path, root):
    set_time(make_archive(root / "data.tar.gz"), NOW)
    good = verify(tmp_path, files_set(root, level=5, required_files=["data/0.bin"]))
    assert {finding.state for finding in good.findings} == {"ok"}
    bad = verify(tmp_path, files_set(root, level=5, required_files=["data/config.yml"]))
    assert state_of(bad, "backup.content") == "critical"


def test_an_archive_member_that_leads_outside_is_never_written(tmp_path, root):
    with tarfile.open(root / "data.tar", "w") as archive:
        member = tarfile.TarInfo("../../escaped")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    set_time(root / "data.tar", NOW)
    outcome = verify(tmp_path, files_set(root))
    assert state_of(outcome, "backup.structure") == "critical"
    assert not list(tmp_path.rglob("escaped"))


def second_header(path):
    with tarfile.open(path) as archive:
        return archive.getmembers()[1].offset


@pytest.mark.parametrize("damage", ["zeroed", "cut off"])
def test_an_archive_that_tar_takes_for_shorter_is_damaged_without_any_checksum(tmp_path, root, damage):
    path = make_archive(root / "data.tar", mode="w")
    data, at = path.read_bytes(), second_header(path)
    path.write_bytes(data[:at] + bytes(512) + data[at + 512 :] if damage == "zeroed" else data[:at])
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 1  # what a tool that trusts the exit status would call fine
    set_time(path, NOW)
    outcome = verify(tmp_path, files_set(root))
    assert state_of(outcome, "backup.structure") == "critical"
    assert ("half written" if damage == "cut off" else "damaged") in text_of(outcome, "backup.structure")


@pytest.mark.parametrize("lost", [1, 4, 8])
@pytest.mark.parametrize("shape", ["app.db.gz", "data.tar.gz"])
def test_a_gzip_file_that_lacks_only_its_end_is_half_written(tmp_path, root, shape, lost):
    (root / shape).write_bytes(sample(tmp_path, shape)[:-lost])
    set_time(root / shape, NOW)
    outcome = verify(tmp_path, declared_for(root, shape))
    assert state_of(outcome, "backup.structure") == "critical"
    assert "half written" in text_of(outcome, "backup.structure")


def test_hostile_names_survive(tmp_path, root):
    name = b"-rf \n\xff.tar.gz"
    os.rename(make_archive(root / "x.tar.gz"), os.path.join(os.fsencode(root), name))
    os.utime(os.path.join(os.fsencode(root), name), (NOW.timestamp(), NOW.timestamp()))
    outcome = verify(tmp_path, files_set(root, pattern="*.tar.gz"))
    assert state_of(outcome, "backup.level") == "ok"
    json.dumps(outcome.record()).encode("utf-8")


def test_a_folder_or_link_instead_of_a_file_is_said(tmp_path, root):
    (root / "app.db").symlink_to("/etc/passwd")
    outcome = verify(tmp_path, sqlite_set(root))
    assert state_of(outcome, "backup.present") == "critical"
    finding = next(finding for finding in outcome.findings if finding.id == "backup.present")
    assert "not a regular file" in finding.evidence[0]


def test_no_room_in_the_scratch_folder_is_unknown_not_ok(tmp_path, root, monkeypatch):
    set_time(make_database(root / "app.db"), NOW)
    monkeypatch.setattr(backup_proof, "_RESERVE_BYTES", 1 << 60)
    outcome = verify(tmp_path, sqlite_set(root))
    assert state_of(outcome, "backup.restore") == "unknown"
    assert outcome.returned["proofs"]["db"]["level"] == 2


def test_work_that_does_not_fit_before_the_deadline_is_deferred(tmp_path, root):
    set_time(make_database(root / "app.db"), NOW)
    verify(tmp_path, sqlite_set(root))
    history = tmp_path / "state" / verification.HISTORY
    kept = json.loads(history.read_text())
    kept["seconds"]["db"] = 900
    history.write_text(json.dumps(kept))
    outcome = verify(tmp_path, sqlite_set(root), deadline=NOW.timestamp() + 60)
    assert outcome.status == "deferred"
    assert state_of(outcome, "backup.level") == "unknown"


# Emergency, proofs, input, self test -------------------------------------------


def emergency_script(tmp_path, body):
    script = tmp_path / "backup.py"
    script.write_text(body)
    return [sys.executable, str(script)]


def test_the_emergency_backup_is_believed_only_when_it_lies_there(tmp_path, root):
    made = make_database(tmp_path / "made.db")
    declared = sqlite_set(root, emergency=True)
    idle = emergency_script(tmp_path, "pass\n")
    with pytest.raises(VerifyError, match="did not bring a fresh backup"):
        verify(tmp_path, declared, emergency_command=idle)
    failing = emergency_script(tmp_path, "raise SystemExit('disk full')\n")
    with pytest.raises(VerifyError) as caught:
        verify(tmp_path, declared, emergency_command=failing)
    assert "disk full" in text_of(caught.value.outcome, "backup.emergency")
    working = emergency_script(
        tmp_path, f"import os, shutil\nshutil.copy({str(made)!r}, {str(root / 'app.db')!r})\n"
        f"os.utime({str(root / 'app.db')!r}, ({NOW.timestamp()},) * 2)\n",
    )  # fmt: skip
    assert verify(tmp_path, declared, emergency_command=working, check_mode=True).status == "due"
    assert not (root / "app.db").exists()
    outcome = verify(tmp_path, declared, emergency_command=working)
    assert outcome.status == "changed"
    assert state_of(outcome, "backup.level") == "ok"
    again = verify(tmp_path, declared, emergency_command=idle)
    assert again.status == "ok"


def test_proofs_keep_when_each_level_was_last_reached(tmp_path, root):
    path = set_time(make_database(root / "app.db"), NOW)
    verify(tmp_path, sqlite_set(root))
    later = NOW + timedelta(hours=6)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    set_time(path, later)
    verify(tmp_path, sqlite_set(root), host=FrozenHost(later))
    kept = json.loads((tmp_path / "state" / verification.PROOFS).read_text())["sets"]["db"]
    assert (kept["level"], kept["levels"]["4"], kept["levels"]["0"]) == (0, NOW.isoformat(), later.isoformat())
    path.unlink()
    verify(tmp_path, sqlite_set(root), host=FrozenHost(later))
    kept = json.loads((tmp_path / "state" / verification.PROOFS).read_text())["sets"]["db"]
    assert (kept["path"], kept["level"], kept["levels"]["4"]) == ("", -1, NOW.isoformat())


def test_all_problems_of_the_input_are_told_at_once_and_nothing_is_touched(tmp_path, root):
    link = tmp_path / "link"
    link.symlink_to(root)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        verify(
            tmp_path,
            sqlite_set(root, maximum_age_hours=-1),
            files_set(link),
            files_set("relative", name="other"),
            files_set(root, name="third", layout="dated_folders"),
            files_set(root, name="fourth", date_format="%B"),
            files_set(root, name="fifth", retention={"maximum_age_days": 0}),
        )
    for expected in ("maximum_age_hours", "symbolic link", "relative", "date_format of set third", "%B", "maximum_age_days"):
        assert expected in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_scratch_beside_the_source_is_refused(tmp_path, root):
    with pytest.raises(InputError, match="never goes near the source"):
        verify(tmp_path, sqlite_set(root), scratch=str(root / "scratch"))


def test_nothing_declared_is_unknown(tmp_path):
    assert verify(tmp_path).state == "unknown"


def test_the_self_test_passes_and_a_blind_verifier_makes_everything_unknown(tmp_path, root, monkeypatch):
    set_time(make_database(root / "app.db"), NOW)
    outcome = verify(tmp_path, sqlite_set(root), self_test=True)
    assert state_of(outcome, "backup.self_test") == "ok"
    blind = backup_proof.Proof(reached=4)
    monkeypatch.setattr(backup_self_test, "prove", lambda *_: blind)
    outcome = verify(tmp_path, sqlite_set(root), self_test=True)
    assert {finding.state for finding in outcome.findings} == {"unknown"}


@pytest.mark.parametrize(
    ("tool", "reading", "blind"),
    [
        (backup_pgbackrest, "read_verify", lambda _said, _label, rc, _why: [("critical" if rc else "ok", "")]),
        (backup_barman, "read_verified", lambda rc, _said, _why: [Verdict(2, "critical" if rc else "ok", "")]),
        (backup_restic, "read_check", lambda rc, _said: [("critical" if rc else "ok", "")]),
        (backup_borg, "read_log", lambda rc, _said: [("critical" if rc else "ok", "")]),
        (backup_redis, "read_check_rdb", lambda rc, _said: [(1, "critical" if rc else "ok", "")]),
    ],
)
def test_the_self_test_finds_out_a_reading_that_believes_an_exit_status(tmp_path, root, monkeypatch, tool, reading, blind):
    """These tools end with 0 on damage: that is what a reading must not fall for."""
    set_time(make_database(root / "app.db"), NOW)
    assert backup_self_test_tools.problems() == []
    monkeypatch.setattr(tool, reading, blind)
    assert any("that ends with 0" in problem for problem in backup_self_test_tools.problems())
    outcome = verify(tmp_path, sqlite_set(root), self_test=True)
    assert {finding.state for finding in outcome.findings} == {"unknown"}


def test_the_self_test_finds_out_a_reading_that_lets_nothing_pass(monkeypatch):
    monkeypatch.setattr(backup_borg, "read_log", lambda *_said: [("critical", "")])
    assert backup_self_test_tools.problems() == ["the sample of borg check that is sound did not pass"]


# The campaign: what changes restorable data is found at the level that claims to find it --------------------


def corrupt_flip(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def corrupt_truncate(data, rng):
    return data[: rng.randrange(1, len(data) - 1200)]


def corrupt_zero_block(data, rng):
    at = rng.randrange(0, len(data) - 600)
    return data[:at] + bytes(512) + data[at + 512 :]


def corrupt_noise(data, rng):
    at = rng.randrange(0, len(data) - 600)
    return data[:at] + rng.randbytes(512) + data[at + 512 :]


CORRUPTIONS = [corrupt_flip, corrupt_truncate, corrupt_zero_block, corrupt_noise]
SHAPES = ["app.db", "app.db.gz", "data.tar.gz", "data.tar"]


def sample(tmp_path, shape):
    plain = tmp_path / "sample"
    if shape.startswith("app"):
        make_database(plain / "app.db", rows=120)
        data = (plain / "app.db").read_bytes()
        return gzip.compress(data, mtime=0) if shape.endswith(".gz") else data
    make_archive(plain / shape, mode="w:gz" if shape.endswith(".gz") else "w")
    return (plain / shape).read_bytes()


def declared_for(root, shape, **more):
    return sqlite_set(root, **more) if shape.startswith("app") else files_set(root, pattern="data.*", **more)


def level_of(tmp_path, declared):
    outcome = verify(tmp_path, declared)
    return next(iter(outcome.returned["proofs"].values()))["level"], outcome


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_campaign_random_damage(tmp_path, root, shape, corrupt, seed):
    rng = random.Random(f"{shape} {corrupt.__name__} {seed}")
    data = sample(tmp_path, shape)
    # zeroing what was zero already is no damage: take the next that is one
    bad = next(bad for bad in (corrupt(data, rng) for _attempt in range(100)) if bad != data)
    path = root / shape
    path.write_bytes(data)
    (root / f"{shape}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {shape}\n")
    set_time(path, NOW)
    with_manifest = declared_for(root, shape, manifest="{name}.sha256")
    assert level_of(tmp_path, with_manifest)[0] == 4
    path.write_bytes(bad)
    set_time(path, NOW)
    shutil.rmtree(tmp_path / "state")
    level, outcome = level_of(tmp_path, with_manifest)
    assert level < 2, [finding.summary for finding in outcome.findings]
    if shape.endswith(".gz"):  # the format carries a CRC: found without a manifest as well, unless no content changed
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        level, _outcome = level_of(tmp_path, declared_for(root, shape))
        assert level < 1 or content_of(bad, shape) == content_of(data, shape)


def content_of(data, shape):
    plain = gzip.decompress(data)
    if shape == "app.db.gz":
        return plain
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


@pytest.mark.parametrize("seed", range(8))
def test_campaign_structural_damage_of_a_database_is_found_by_the_engine_alone(tmp_path, root, seed):
    rng = random.Random(seed)
    data = sample(tmp_path, "app.db")
    page = rng.randrange(1, len(data) // 1024) * 1024
    path = root / "app.db"
    path.write_bytes(data[:page] + bytes(1024) + data[page + 1024 :])
    set_time(path, NOW)
    level, outcome = level_of(tmp_path, sqlite_set(root))
    assert level == 3, [finding.summary for finding in outcome.findings]
    assert state_of(outcome, "backup.integrity") == "critical"


@pytest.mark.parametrize("shape", SHAPES)
def test_campaign_swapped_for_another_intact_backup(tmp_path, root, shape):
    (root / shape).write_bytes(sample(tmp_path, shape))
    set_time(root / shape, NOW)
    assert level_of(tmp_path, declared_for(root, shape))[0] == 4
    other = tmp_path / "other" / shape
    if shape.startswith("app"):
        plain = make_database(tmp_path / "other" / "plain.db", rows=90).read_bytes()
        other.write_bytes(gzip.compress(plain) if shape.endswith(".gz") else plain)
    else:
        make_archive(other, mode="w:gz" if shape.endswith(".gz") else "w", seed=2)
    (root / shape).write_bytes(other.read_bytes())
    set_time(root / shape, NOW)
    level, outcome = level_of(tmp_path, declared_for(root, shape))
    assert level == 1
    assert state_of(outcome, "backup.checksum") == "critical"


FLIPPED = {"app.db": b"2026-11-20T00:30", "data.tar": b"text text text"}
"""What neither a checksum nor an index protects: a column that has none, the content of a file in an archive."""


@pytest.mark.parametrize("shape", FLIPPED)
def test_campaign_what_nothing_protects_is_seen_with_a_manifest_only_and_that_is_said(tmp_path, root, shape):
    data = sample(tmp_path, shape)
    at = data.index(FLIPPED[shape])
    (root / shape).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    (root / f"{shape}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {shape}\n")
    set_time(root / shape, NOW)
    level, outcome = level_of(tmp_path, declared_for(root, shape))
    checksum = next(found for found in outcome.findings if found.id == "backup.checksum")
    assert (level, checksum.state, checksum.basis) == (4, "ok", "estimated")
    assert "no checksum was made with the backup" in checksum.not_covered
    shutil.rmtree(tmp_path / "state")
    assert level_of(tmp_path, declared_for(root, shape, manifest="{name}.sha256"))[0] == 1


TREE = {"a.bin": random.Random(3).randbytes(3000), "b.txt": b"text " * 400, "c.txt.gz": gzip.compress(b"text " * 400, mtime=0)}


@pytest.mark.parametrize(
    ("damaged", "alone", "proven"),
    [
        ({}, 4, 4),
        ({"a.bin": corrupt_flip(TREE["a.bin"], random.Random(1))}, 4, 1),
        ({"c.txt.gz": corrupt_flip(TREE["c.txt.gz"], random.Random(1))}, 4, 1),
        ({"a.bin": TREE["a.bin"][:100]}, 4, 1),
        ({"a.bin": TREE["a.bin"][:1000] + bytes(512) + TREE["a.bin"][1512:]}, 4, 1),
        ({"a.bin": TREE["b.txt"], "b.txt": TREE["a.bin"]}, 4, 1),
        ({"b.txt": b""}, 0, 0),
        ({"b.txt": None}, 4, 0),
        (dict.fromkeys(TREE), -1, 0),
    ],
    ids=["intact", "flip", "flip in a packed file", "truncation", "zeroed block", "swapped", "empty file", "file missing", "all missing"],
)
def test_campaign_a_tree_of_files(tmp_path, root, damaged, alone, proven):
    folder = root / "20261121"
    folder.mkdir()
    for name, data in {**TREE, **damaged}.items():
        if data is not None:
            (folder / name).write_bytes(data)
            set_time(folder / name, NOW)
    set_time(folder, NOW)
    declared = files_set(root, layout="dated_folders", date_format="%Y%m%d")
    assert level_of(tmp_path, declared)[0] == alone
    shutil.rmtree(tmp_path / "state")
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in TREE.items()]
    (folder / "SHA256SUMS").write_text("".join(lines))
    set_time(folder / "SHA256SUMS", NOW)
    assert level_of(tmp_path, {**declared, "manifest": "SHA256SUMS"})[0] == proven


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"<html>504</html>" * 99], ids=["empty", "zeroes", "html"])
def test_campaign_something_else_instead(tmp_path, root, shape, content):
    (root / shape).write_bytes(content)
    set_time(root / shape, NOW)
    level, _outcome = level_of(tmp_path, declared_for(root, shape))
    assert level < 1


@pytest.mark.parametrize("shape", SHAPES)
def test_campaign_unreadable(tmp_path, root, shape, monkeypatch):
    (root / shape).write_bytes(sample(tmp_path, shape))
    set_time(root / shape, NOW)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ansible_collections.ops.maintenance.plugins.module_utils.backup_stream.open_regular", refuse)
    level, outcome = level_of(tmp_path, declared_for(root, shape))
    assert level == 0
    assert state_of(outcome, "backup.structure") == "unknown"


@pytest.mark.parametrize("shape", SHAPES)
def test_campaign_intact_backups_raise_nothing(tmp_path, root, shape):
    (root / shape).write_bytes(sample(tmp_path, shape))
    set_time(root / shape, NOW)
    for _run in range(2):
        level, outcome = level_of(tmp_path, declared_for(root, shape))
        assert level == 4
        assert {finding.state for finding in outcome.findings} == {"ok"}
