# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import io
import os
import sqlite3
import struct
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import security_last_seen, security_utmp
from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

DAY = 86400.0
NOW = datetime.fromisoformat("2026-11-21T09:00:00+00:00")


class Now(Host):
    def now(self):
        return NOW


def packed(user, moment, kind=security_utmp.USER_PROCESS, host="192.0.2.1"):
    form = security_utmp.layout()
    return form.pack(kind, 1, b"pts/0", b"0", user.encode(), host.encode(), 0, 0, 0, int(moment), 0, b"", b"")


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_to_their_end(data):
    found = list(security_utmp.records(io.BytesIO(data)))
    assert len(found) == len(data) // security_utmp.layout().size


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=32), st.integers(1, 2**31 - 1))
def test_what_was_written_is_read(user, moment):
    (record,) = security_utmp.records(io.BytesIO(packed(user, moment)))
    assert (record.user, record.moment, record.kind) == (user, moment, security_utmp.USER_PROCESS)


def test_lastlog_is_read_by_uid_without_reading_what_lies_between(tmp_path):
    path = tmp_path / "lastlog"
    with path.open("wb") as target:
        target.seek(4_000_000_000 * 292)  # sparse
        target.write(struct.pack("=I32s256s", 1234, b"pts/0", b""))
    assert security_utmp.last_log_ins(str(path), {"far": 4_000_000_000, "never": 7, "beyond": 2**32}) == {"far": 1234.0}


@pytest.mark.parametrize("content", [b"\xff" * 384, b"nonsense" * 100])
def test_what_is_no_register_of_log_ins_is_said(tmp_path, content):
    (tmp_path / "wtmp").write_bytes(content)
    with pytest.raises(MaintenanceError, match="does not begin"):
        list(security_utmp.read_records(str(tmp_path / "wtmp")))


class Logs:
    """A root folder with the host's registers of log-ins."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "var/log").mkdir(parents=True)

    def write(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def database(self, name, *statements):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def lastlog(self, **moments):
        uids = {"mia": 1000, "tom": 1001}
        data = bytearray(292 * 1002)
        for name, moment in moments.items():
            struct.pack_into("=I32s256s", data, 292 * uids[name], int(moment), b"", b"")
        self.write("var/log/lastlog", bytes(data))

    def gather(self):
        return security_last_seen.gather(Now(), str(self.folder), {"mia": 1000, "tom": 1001}, 90 * DAY)


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path)


def ago(days):
    return NOW.timestamp() - days * DAY


def test_no_register_at_all_proves_nothing(logs):
    seen = logs.gather()
    assert (seen.moments, seen.since, seen.sources) == ({}, None, [])


def test_rotated_and_packed_wtmp_reach_further_back(logs):
    logs.write("var/log/wtmp", packed("mia", ago(3)))
    logs.write("var/log/wtmp.1", packed("reboot", ago(60), kind=2) + packed("tom", ago(50)))
    logs.write("var/log/wtmp.2.gz", gzip.compress(packed("mia", ago(100))))
    seen = logs.gather()
    assert seen.moments == {"mia": int(ago(3)), "tom": int(ago(50))}
    assert seen.since == int(ago(100))


def test_a_wtmp_that_is_a_link_is_not_followed(logs):
    logs.write("elsewhere", packed("mia", ago(3)))
    os.symlink(logs.folder / "elsewhere", logs.folder / "var/log/wtmp")
    seen = logs.gather()
    assert seen.since is None
    assert "symbolic link" in seen.problems[0]


def test_lastlog_that_is_kept_proves_absence(logs):
    logs.lastlog(mia=ago(1))
    seen = logs.gather()
    assert (seen.since, seen.sources) == (0.0, ["lastlog"])
    assert "tom" not in seen.moments


def test_lastlog_that_nobody_writes_any_more_proves_nothing(logs):
    """A host that was upgraded keeps the old file, in which everybody seems to be gone."""
    logs.lastlog(mia=ago(200))
    assert logs.gather().since is None
    logs.write("var/log/wtmp", packed("mia", ago(3)))
    seen = logs.gather()
    assert seen.moments["mia"] == int(ago(3))
    assert seen.since == int(ago(3))
    assert "no longer written" in seen.problems[0]


def test_the_databases_of_newer_systems_are_read(logs):
    logs.database(
        "var/lib/lastlog/lastlog2.db",
        "CREATE TABLE Lastlog2(Name TEXT PRIMARY KEY, Time INTEGER, TTY TEXT, RemoteHost TEXT, PAM_Service TEXT)",
        f"INSERT INTO Lastlog2 VALUES ('mia', {int(ago(2))}, 'pts/0', '', 'sshd')",
    )
    logs.database(
        "var/log/wtmp.db",
        "CREATE TABLE wtmp(ID INTEGER PRIMARY KEY, Type INTEGER, User TEXT, Login INTEGER, Logout INTEGER, TTY TEXT)",
        f"INSERT INTO wtmp VALUES (1, 1, 'reboot', {int(ago(40) * 1e6)}, NULL, '~')",
        f"INSERT INTO wtmp VALUES (2, 3, 'tom', {int(ago(20) * 1e6)}, NULL, 'pts/0')",
    )
    seen = logs.gather()
    assert {name: int(moment) for name, moment in seen.moments.items()} == {"mia": int(ago(2)), "tom": int(ago(20))}
    assert seen.since == 0.0
    assert any(source.startswith("wtmpdb since") for source in seen.sources)


def test_a_database_that_is_none_is_a_problem_and_the_others_are_read(logs):
    logs.write("var/lib/lastlog/lastlog2.db", b"x" * 200)
    logs.write("var/log/wtmp", packed("mia", ago(3)))
    seen = logs.gather()
    assert "mia" in seen.moments
    assert any("SQLite" in problem for problem in seen.problems)
