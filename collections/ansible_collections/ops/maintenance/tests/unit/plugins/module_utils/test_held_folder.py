# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders and databases of drills: a later run removes those whose run is gone, and no others."""

from __future__ import annotations

import os
import signal
import socket
import tempfile

from ansible_collections.ops.maintenance.plugins.module_utils import backup_pg_restore, held_folder, process
from ansible_collections.ops.maintenance.tests.unit.plugins.module_utils import processes


def in_scratch(parent, prefix, work):
    with held_folder.held(str(parent), prefix):
        return work()


def test_what_a_killed_run_held_is_swept(tmp_path):
    killed = processes.start(lambda: in_scratch(tmp_path, "verify-", lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert processes.end(killed) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "verify-1-of-an-earlier-version").mkdir()
    for other in ("else", "linked"):
        (tmp_path / other).mkdir()
    (tmp_path / "verify-link").symlink_to(tmp_path / "linked")
    held_folder.sweep(str(tmp_path), "verify-")
    assert sorted(os.listdir(tmp_path)) == ["else", "linked", "verify-link"]
    held_folder.sweep(str(tmp_path / "nowhere"), "verify-")


def test_what_a_run_holds_is_not_swept_by_another(tmp_path):
    reading, writing = os.pipe()
    ending, end = os.pipe()
    holder = processes.start(lambda: in_scratch(tmp_path, "verify-", lambda: (os.write(writing, b"."), os.read(ending, 1))[1] != b"."))
    os.read(reading, 1)
    (folder,) = tmp_path.iterdir()
    held_folder.sweep(str(tmp_path), "verify-")
    assert folder.exists()
    os.write(end, b".")
    assert processes.end(holder) == 0
    assert not folder.exists()


def test_a_folder_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real, swept = tempfile.mkdtemp, []

    def mkdtemp(**more):
        folder = real(**more)
        if len(swept) < 2:
            swept.append(folder)
            held_folder.sweep(str(tmp_path), "verify-")
        return folder

    monkeypatch.setattr(held_folder.tempfile, "mkdtemp", mkdtemp)
    with held_folder.held(str(tmp_path), "verify-") as folder:
        assert (os.path.isdir(folder), len(swept), folder in swept) == (True, 2, False)
    assert list(tmp_path.iterdir()) == []


def test_a_drill_database_is_left_when_its_process_is_gone_whoever_has_its_number_now():
    here, number = socket.gethostname(), os.getpid()

    def mark(start, host=here, pid=number):
        return f"{backup_pg_restore._MARK} {host} {pid} {start}".strip()

    me = process.started(number)
    assert [backup_pg_restore._is_left(text) for text in (mark(me), mark(""), mark(me, "other"), "a comment", "")] == [False] * 5
    assert [backup_pg_restore._is_left(text) for text in (mark(int(me) - 1), mark("7", pid=999999999), mark("", pid=999999999))] == [
        True
    ] * 3
