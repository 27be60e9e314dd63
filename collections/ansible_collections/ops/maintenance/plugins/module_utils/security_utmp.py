# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The binary files of log-ins: wtmp and btmp record by record, lastlog by user id."""

from __future__ import annotations

import gzip
import os
import platform
import struct
import typing as t

from .errors import MaintenanceError
from .paths import open_regular

WTMP_LIMIT_BYTES = 512 * 1024 * 1024
USER_PROCESS = 7
LOGIN_PROCESS = 6

_WIDE_MACHINES = ("aarch64", "loongarch64")
# type, process, line, id, user, host, exit status, session, time and its fraction, address, reserve: see utmp(5)
_NARROW = struct.Struct("=h2xi32s4s32s256shhiIi16s20s")
_WIDE = struct.Struct("=h2xi32s4s32s256shhqqq16s20s4x")
_LASTLOG = struct.Struct("=I32s256s")


class LogIn(t.NamedTuple):
    """One record: ``kind`` 7 is a session that began; in btmp any kind is an attempt that failed."""

    kind: int
    user: str
    host: str
    moment: float


def layout() -> struct.Struct:
    """Return how this machine lays out a record; machines without a 32-bit past keep wider times."""
    return _WIDE if platform.machine() in _WIDE_MACHINES else _NARROW


def records(source: t.BinaryIO) -> t.Iterator[LogIn]:
    """Yield the records of an open file; half a record at its end (a machine that died) is left out."""
    form = layout()
    for raw in iter(lambda: source.read(form.size), b""):
        if len(raw) == form.size:
            kind, _pid, _line, _id, user, host, _term, _exit, _session, seconds, fraction, _address, _reserve = form.unpack(raw)
            yield LogIn(kind, _text(user), _text(host), seconds + min(max(fraction, 0), 999_999) / 1e6)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def read_records(path: str) -> t.Iterator[LogIn]:
    """Yield the records of a file, packed by gzip where its name says so.

    :raises MaintenanceError: it is not a regular file, is larger than any such file is, or is no such file at all.
    """
    with open_regular(path) as opened:
        if os.fstat(opened.fileno()).st_size > WTMP_LIMIT_BYTES:
            raise MaintenanceError(f"{path} is larger than {WTMP_LIMIT_BYTES} bytes and was not read; rotate it.")
        source = t.cast("t.BinaryIO", gzip.GzipFile(fileobj=opened)) if path.endswith(".gz") else opened
        for number, record in enumerate(records(source)):
            if number == 0 and not 0 <= record.kind <= 9:
                raise MaintenanceError(f"{path} does not begin with a record of log-ins; look at what wrote it.")
            yield record


def last_log_ins(path: str, uids: t.Mapping[str, int]) -> dict[str, float]:
    """Return when accounts last logged in as lastlog has it, by name; those that never did are left out."""
    found = {}
    with open_regular(path) as source:
        size = os.fstat(source.fileno()).st_size
        for name, uid in uids.items():
            offset = uid * _LASTLOG.size
            if offset >= 0 and offset + _LASTLOG.size <= size:
                source.seek(offset)
                (moment, _line, _host) = _LASTLOG.unpack(source.read(_LASTLOG.size))
                if moment:
                    found[name] = float(moment)
    return found
