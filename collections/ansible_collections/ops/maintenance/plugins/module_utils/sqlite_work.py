# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write to a SQLite database as its owner, in a child process, so that nothing becomes root's."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import sqlite3
import typing as t

from . import sqlite_db, sqlite_restore
from .errors import MaintenanceError
from .record import Json

STEPS = ("recover", "reindex", "vacuum", "journal_mode", "analyze", "checkpoint")
"""In this order: an interrupted transaction is undone first, the statistics of ANALYZE come last, and the checkpoint
empties what all of it left in the -wal."""


def carry_out(path: str, steps: t.Collection[str], journal_mode: str) -> list[dict[str, Json]]:
    """Carry out steps (some of :data:`STEPS`) on a database, as the owner of its file.

    :returns: the measures before the first step and after each one, so that each step answers for its own effect.
    :raises DatabaseBusyError: somebody else holds a lock.
    :raises MaintenanceError: a step failed; SQLite's transactions leave the database as it was before that step.
    """
    status = os.lstat(path)

    def work() -> list[dict[str, Json]]:
        with sqlite_db.translated(path), contextlib.closing(sqlite_db.open_writable(path)) as connection:
            measured = [_measures(connection, path)]
            for step in STEPS:
                if step in steps:
                    _step(connection, step, journal_mode)
                    measured.append(_measures(connection, path))
            return measured

    return t.cast("list[dict[str, Json]]", as_user(status.st_uid, status.st_gid, work, path))


def _measures(connection: sqlite3.Connection, path: str) -> dict[str, Json]:
    """Measure what a step may change. The size is that of all pages: the file itself follows at the next checkpoint."""
    pages, page_size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return {
        "size_bytes": pages * page_size,
        "free_bytes": sqlite_db.freeable_bytes(connection),
        "wal_bytes": sqlite_restore.sized([path + "-wal"]),
        "journal_mode": sqlite_db.journal_mode(connection),
    }


def recover(path: str) -> None:
    """Let SQLite undo the transaction that a killed process left half written, as the owner of the file.

    :raises MaintenanceError: somebody has the database open, so the transaction may be under way.
    """
    users = sqlite_db.users_of(path)
    if users.holders:
        raise sqlite_db.DatabaseBusyError(f"{path} has a transaction under way ({users.holders[0]}); stop that and try again.")
    carry_out(path, ["recover"], "keep")
    if sqlite_db.interrupted(path):
        raise MaintenanceError(f"The interrupted transaction of {path} could not be undone; open it with its application.")


def _step(connection: sqlite3.Connection, step: str, journal_mode: str) -> None:
    if step == "recover":
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    elif step == "reindex":
        connection.execute("REINDEX")
    elif step == "vacuum":
        connection.execute("VACUUM")
    elif step == "analyze":
        connection.execute("ANALYZE")
        connection.execute("PRAGMA optimize")
    elif step == "journal_mode":
        answer = str(connection.execute(f"PRAGMA journal_mode = {journal_mode}").fetchone()[0]).lower()
        if answer != journal_mode:
            raise MaintenanceError(f"SQLite kept the journal mode {answer}, expected {journal_mode}; is it open elsewhere?")
    else:
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise sqlite_db.DatabaseBusyError("The -wal file could not be emptied because somebody reads it; try again later.")


def as_user(uid: int, gid: int, work: t.Callable[[], Json], path: str) -> Json:
    """Run a function in a child process under another user where we are root; its result or its error comes back."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if not child:
        _in_child(uid, gid, work, read_fd, write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        said = pipe.read()
    _pid, status = os.waitpid(child, 0)
    if not said:
        raise MaintenanceError(f"The work on {path} was killed (wait status {status}); SQLite undoes its open transaction.")
    answer = json.loads(said)
    if answer["error"] == "DatabaseBusyError":
        raise sqlite_db.DatabaseBusyError(answer["message"])
    if answer["error"]:
        raise MaintenanceError(answer["message"])
    return answer["result"]


def _become(uid: int, gid: int) -> None:
    """Give up root for a user, with the groups that the user has."""
    try:
        os.initgroups(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a file may belong to a number without a name
        os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _in_child(uid: int, gid: int, work: t.Callable[[], Json], read_fd: int, write_fd: int) -> t.NoReturn:
    answer: dict[str, Json] = {"error": "", "message": "", "result": None}
    try:
        os.close(read_fd)
        if os.geteuid() == 0 and uid != 0:
            _become(uid, gid)
        answer["result"] = work()
    except BaseException as error:  # whatever it is, the parent has to hear of it
        answer = {"error": type(error).__name__, "message": str(error) or type(error).__name__}
    finally:
        try:
            os.write(write_fd, json.dumps(answer).encode())
        finally:
            os._exit(0)  # whoever cannot say how it went does not go on in the parent's place
