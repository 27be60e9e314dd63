# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools of repositories say of damage, each with the exit status that looks good, and of sound backups: our reading has to tell them apart."""

from __future__ import annotations

import json
import typing as t

from . import backup_barman, backup_borg, backup_pgbackrest, backup_redis, backup_restic
from .host import Ran

_LABEL = "20261121-010000F"
_SEGMENTS = {"start": "000000010000000000000004", "stop": "000000010000000000000006"}
_BAD = ("critical", "unknown")


def problems() -> list[str]:
    """Return which samples were read wrongly; empty when every tool's word can be believed."""
    wrong = []
    for name, states, is_good in _samples():
        is_taken_for_good = bool(states) and not any(state in _BAD for state in states)
        if is_taken_for_good != is_good:
            wrong.append(f"the sample of {name} {'did not pass' if is_good else 'passed'}")
    return wrong


def _samples() -> t.Iterator[tuple[str, list[str], bool]]:
    """Yield the name of a sample, the states that it was given, and whether it is a good one."""
    for name, said, is_good in (
        ("pgbackrest verify of a sound backup", _verify("ok", "valid", 900, 900), True),
        ("pgbackrest verify that ends with 0 on a damaged file", _verify("error", "invalid", 900, 899), False),
        ("pgbackrest verify that ends with 0 on damaged write-ahead log", _verify("error", "valid", 900, 900, 6), False),
        ("pgbackrest verify that says nothing of the backup", "stanza: main\nstatus: ok\n", False),
        ("pgbackrest verify without any answer", "", False),
    ):
        yield name, [state for state, _text in backup_pgbackrest.read_verify(said, _LABEL, 0, "")], is_good
    for name, more, is_good in (
        ("pgbackrest info of a sound backup", {}, True),
        ("pgbackrest info of a backup with pages of wrong checksums", {"error": True}, False),
        ("pgbackrest info without its write-ahead log", {"archive": {"start": None, "stop": None}}, False),
        ("pgbackrest info with a gap in its write-ahead log", {"archive": {**_SEGMENTS, "stop": "000000010000000000000009"}}, False),
    ):
        yield name, [verdict.state for verdict in backup_pgbackrest.judge_info(_stanza(more), _LABEL, 1)], is_good
    for name, checks, is_good in (
        ("barman check that is sound", {"directories": {"status": "OK"}}, True),
        ("barman check that failed", {"directories": {"status": "FAILED"}}, False),
        ("barman check without any answer", {}, False),
    ):
        yield name, [verdict.state for verdict in backup_barman.judge_check(checks)], is_good
    waits = backup_barman.judge_log({"status": "WAITING_FOR_WALS"}, "")
    yield "barman backup that waits for write-ahead log", [verdict.state for verdict in waits], False
    for name, rc, said, is_good in (
        ("barman verify-backup that is sound", 0, "backup successfully verified", True),
        ("barman verify-backup that ends with 0 without a word", 0, "", False),
        ("barman verify-backup that found damage", 1, 'pg_verifybackup: error: checksum mismatch for file "base/1/1"', False),
    ):
        yield name, [verdict.state for verdict in backup_barman.read_verified(rc, said, "")], is_good
    yield from _of_files()


def _of_files() -> t.Iterator[tuple[str, list[str], bool]]:
    for name, rc, said, is_good in (
        ("restic check that is sound", 0, "no errors were found", True),
        ("restic check as JSON that is sound", 0, json.dumps({"message_type": "summary", "num_errors": 0}), True),
        ("restic check that ends with 0 without saying so", 0, "load indexes\ncheck all packs", False),
        (
            "restic check that ends with 0 on a damaged pack",
            0,
            "pack 1234abcd: ciphertext verification failed\nno errors were found",
            False,
        ),
        (
            "restic check as JSON with a broken pack",
            0,
            json.dumps({"message_type": "summary", "num_errors": 0, "broken_packs": ["12"]}),
            False,
        ),
    ):
        yield name, [state for state, _text in backup_restic.read_check(rc, said)], is_good
    damaged = json.dumps({"type": "log_message", "levelname": "ERROR", "message": "Data integrity error"})
    for name, rc, said, is_good in (
        ("borg check that is sound", 0, json.dumps({"type": "log_message", "levelname": "INFO", "message": "Archive consistency"}), True),
        ("borg check that ends with 0 on damage", 0, damaged, False),
        ("borg check that fails without a word", 1, "", False),
    ):
        yield name, [state for state, _text in backup_borg.read_log(rc, said)], is_good
    for name, said, is_good in (
        ("redis-check-rdb of a sound file", "[offset 9] Checksum OK\n[offset 9] \\o/ RDB looks OK! \\o/\n[info] 3 keys read\n", True),
        ("redis-check-rdb that ends with 0 without saying so", "[offset 0] Checking RDB file d\n", False),
    ):
        yield name, [state for _level, state, _text in backup_redis.read_check_rdb(0, said)], is_good
    for name, said, is_good in (
        ("redis-check-aof of sound files", "All AOF files and manifest are valid", True),
        ("redis-check-aof that ends with 0 without saying so", "AOF analyzed: filename=a", False),
    ):
        yield name, [state for _level, state, _text in backup_redis.read_check_aof(Ran(["redis-check-aof"], 0, said, ""))], is_good


def _verify(status: str, backup: str, files: int, valid: int, segments: int = 7) -> str:
    return (
        f"stanza: main\nstatus: {status}\n  archiveId: 15-1, total WAL checked: 7, total valid WAL: {segments}\n"
        f"  backup: {_LABEL}, status: {backup}, total files checked: {files}, total valid files: {valid}\n"
    )


def _stanza(more: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    of = {"id": 1, "repo-key": 1}
    return {
        "name": "main", "status": {"code": 0, "message": "ok"}, "repo": [{"key": 1, "status": {"code": 0, "message": "ok"}}],
        "db": [{"id": 1, "repo-key": 1, "system-id": 7, "version": "15"}],
        "archive": [{"database": of, "min": "000000010000000000000001", "max": "000000010000000000000006"}],
        "backup": [{"label": _LABEL, "database": of, "type": "full", "error": False, "archive": _SEGMENTS, **more}],
    }  # fmt: skip
