# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Feed the verifier backups that are known to be bad, and good ones, before its word is believed."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tarfile
import typing as t
from datetime import date

from . import backup_self_test_tools, held_folder
from .backup_adaptor import Around, Climb
from .backup_adaptors import ADAPTORS
from .backup_proof import PREFIX, Scratch, prove, prove_whole
from .backup_sets import Backup, File
from .host import Host

_ROWS = 400
_DUMP = b"""--
-- PostgreSQL database dump
--
CREATE TABLE public.sample (id integer, text text);
COPY public.sample (id, text) FROM stdin;
1\trow 1
2\trow 2
\\.
--
-- PostgreSQL database dump complete
--
"""
_DECLARED: dict[str, t.Any] = {
    "name": "self test", "layout": "files", "pattern": "*", "manifest": "", "date_format": "", "level": 4,
    "required_tables": ["sample"], "required_files": [], "application_id": 0, "count_tables": [], "sentinel": None,
    "source": "", "decrypt_command": [], "recovery_key": None, "count_change_percent": 0.0, "maximum_rpo_hours": 0.0, "maximum_age_hours": 1.0,
}  # fmt: skip


def problems(scratch: Scratch, now: float) -> list[str]:
    """Return what the verifier got wrong; empty when it can be believed."""
    with held_folder.held(scratch.path, PREFIX) as folder:
        wrong = backup_self_test_tools.problems()
        for name, kind, data, is_good in _samples(folder):
            path = os.path.join(folder, name)
            with open(path, "wb") as sample:
                sample.write(data)
            status = os.stat(path)
            backup = Backup(path, (File(path, status.st_size, status.st_mtime_ns),), now, date.today())
            if (_proven(kind, backup, scratch, now)) != is_good:
                wrong.append(f"the sample {name} {'did not pass' if is_good else 'passed'}")
        return wrong


def _proven(kind: str, backup: Backup, scratch: Scratch, now: float) -> bool:
    """Whether a sample passes: dumps are only read, for a cluster may be missing here."""
    if kind not in ADAPTORS:
        return bool(prove({**_DECLARED, "kind": kind}, backup, scratch, {}, now).reached == _DECLARED["level"])
    defaults = {name: spec["default"] for name, spec in ADAPTORS[kind].options.items()}
    declared = {**_DECLARED, **defaults, "kind": kind, "level": 2}
    return prove_whole(ADAPTORS[kind], Climb(declared, backup, Around({"servers": []}, Host()), scratch)).reached == 2


def _samples(folder: str) -> t.Iterator[tuple[str, str, bytes, bool]]:
    database, archive = _database(os.path.join(folder, "source.db")), _archive()
    page = len(database) // 2 // 4096 * 4096
    yield "good.db", "sqlite", database, True
    yield "zeroed-page.db", "sqlite", database[:page] + bytes(4096) + database[page + 4096 :], False
    yield "cut-off.db", "sqlite", database[:page], False
    yield "empty.db", "sqlite", b"", False
    yield "good.tar.gz", "files", archive, True
    yield "cut-off.tar.gz", "files", archive[: len(archive) // 2], False
    flipped = bytearray(archive)
    flipped[len(archive) // 2] ^= 0x10
    yield "flipped-bit.tar.gz", "files", bytes(flipped), False
    yield "good.sql", "postgresql", _DUMP, True
    yield "cut-off.sql", "postgresql", _DUMP[: _DUMP.index(b"2\t")], False
    yield "zeroed.sql", "postgresql", _DUMP.replace(b"row 1", bytes(5)), False
    yield "no-dump.sql", "postgresql", b"-- nothing was dumped\n", False


def _database(path: str) -> bytes:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("CREATE TABLE sample (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO sample (text) VALUES (?)", [(f"row {i} " * 20,) for i in range(_ROWS)])
        connection.commit()
    with open(path, "rb") as made:
        return made.read()


def _archive() -> bytes:
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"sample/{number}")
            member.size = 4096
            archive.addfile(member, io.BytesIO(os.urandom(4096)))
    return stored.getvalue()
