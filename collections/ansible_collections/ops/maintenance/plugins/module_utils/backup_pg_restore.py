# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a dump into a database that is thrown away afterwards: of a throw-away cluster, or a scratch one of a declared server."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import tempfile
import typing as t
from dataclasses import dataclass

from . import postgresql, postgresql_programs, process
from .backup_pg_archive import CUSTOM, DIRECTORY, convert, pg_restore
from .backup_stream import DamagedError
from .errors import InputError, MaintenanceError
from .judge import human_bytes
from .paths import open_regular
from .postgresql import Server, Session, place_of
from .postgresql_scratch import Cluster, scratch_cluster
from .postgresql_switch import free_bytes
from .record import clean

_PREFIX = "ops_restore_"
_GENERATED = re.compile(rf"^{_PREFIX}[0-9a-f]{{8}}$")
_MARK = "ops.maintenance restore drill"
_ENCODING = re.compile(r"^[A-Za-z0-9_-]{1,30}$")
_BASE_BYTES = 256 * 1024 * 1024
_INDEX_FACTOR = 2.5
_TEXT_LIMIT = 1024 * 1024
# Messages that tell of the host that verifies, not of the backup.
_NOT_ITS_FAULT = re.compile(
    r"extension \"[^\"]*\" is not available|could not open extension control file|could not access file \"[^\"]*\"|"
    r"No space left on device|role \"[^\"]*\" does not exist|unrecognized configuration parameter|invalid locale name|"
    r"could not create locale|tablespace \"[^\"]*\" does not exist|[Pp]ermission denied|must be (?:superuser|owner)|"
    r"collation \"[^\"]*\" .*does not exist|language \"[^\"]*\" does not exist|server closed the connection|"
    r"terminating connection|could not load library|too many clients|\bremaining connection slots"
)
_VALUE = re.compile(r"(: |at or near )\".*\"")


class RestoreError(MaintenanceError):
    """A dump could not be restored.

    :param state: ``critical`` when the dump is at fault, ``unknown`` when the place it was restored into is.
    """

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


@dataclass
class Place:
    """Where a dump is restored into.

    :param database: its name; empty until the dump itself has made it.
    :param is_throw_away: the whole cluster is thrown away, so roles may be made in it.
    """

    server: Server
    major: int
    database: str
    is_throw_away: bool

    def session(self, database: str = "", **more: t.Any) -> Session:
        """Open a session with the restored database."""
        return postgresql.connect(self.server, database or self.database, **{"statement_timeout_seconds": 0.0, **more})

    def make_role(self, name: str) -> None:
        """Let a role that the dump names exist, where that harms nobody."""
        if not self.is_throw_away:
            return
        with self.session("postgres") as session, contextlib.suppress(postgresql.StatementError):
            session.execute(f"CREATE ROLE {session.identifier(name)}")


def needed_bytes(text_bytes: float) -> int:
    """Estimate what a restored database takes, from the bytes of its dump as text: rows, indexes, log and the empty cluster."""
    return int(text_bytes * _INDEX_FACTOR) + _BASE_BYTES


def major_for(server_major: int, program_major: int) -> int:
    """Return the version to restore into: the oldest installed that understands what this pg_dump wrote.

    :raises RestoreError: there is none.
    """
    wanted = max(server_major, program_major)
    fit = [major for major in postgresql_programs.installed_majors() if major >= wanted and _has_server(major)]
    if not fit:
        raise RestoreError(
            "unknown", f"PostgreSQL {wanted or 'of any version'} or newer is not installed here; install postgresql-{wanted}"
        )
    return fit[0]


def _has_server(major: int) -> bool:
    try:
        postgresql_programs.find_program("initdb", major)
    except MaintenanceError:
        return False
    return True


@contextlib.contextmanager
def throw_away(scratch: str, major: int, encoding: str, os_user: str, makes_itself: bool = False) -> t.Iterator[Place]:
    """Yield an empty database in a cluster of its own; nothing is left of either.

    :param makes_itself: the dump has ``CREATE DATABASE`` in it.
    """
    try:
        with scratch_cluster(scratch, major, os_user) as cluster:
            _started(cluster)
            place = Place(cluster.server, major, "", True)
            if not makes_itself:
                place.database = _PREFIX + secrets.token_hex(4)
                with place.session("postgres") as session:
                    _create(session, place.database, encoding)
            yield place
    except RestoreError:
        raise
    except (OSError, MaintenanceError) as error:
        raise RestoreError("unknown", f"no throw-away cluster: {error}") from error


def _started(cluster: Cluster) -> None:
    cluster.initialise()
    cluster.start({"max_wal_size": "'512MB'", "max_connections": "40"})


@contextlib.contextmanager
def scratch_database(server: Server, encoding: str, needed: int, name: str = "", source: Server | None = None) -> t.Iterator[Place]:
    """Yield a new, empty database on a declared server; it is dropped whatever happens.

    :param needed: bytes that it will take; a server whose disk would fill up is left alone.
    :param name: a fixed name, allowed only on a server that is proven to be another than the source.
    :raises RestoreError: it cannot be made there.
    :raises InputError: the fixed name is not allowed.
    """
    try:
        session = postgresql.connect(server, statement_timeout_seconds=600.0)
    except MaintenanceError as error:
        raise RestoreError("unknown", f"restore_into: {error}") from error
    with session:
        if name:
            _refuse_source(session, server, source, name)
        _sweep(session)
        _require_room(session, server, needed)
        database = name or _PREFIX + secrets.token_hex(4)
        if session.value("SELECT 1 FROM pg_database WHERE datname = %s", [database]):
            raise InputError(
                f"restore_database {database!r} is there already on {server['name']}, expected a name that is free; nothing was touched."
            )
        mark = f"{_MARK} {socket.gethostname()} {os.getpid()} {process.started(os.getpid())}"
        try:
            _create(session, database, encoding)
            session.execute(f"COMMENT ON DATABASE {session.identifier(database)} IS {session.literal(mark)}")
        except postgresql.StatementError as error:
            raise RestoreError("unknown", f"restore_into: {error}") from error
        try:
            yield Place(server, postgresql.major_version(session), database, False)
        finally:
            _drop(session, server, database)


def _require_room(session: Session, server: Server, needed: int) -> None:
    """Refuse where the disk of the server has too little room; that of another host cannot be seen from here."""
    free = free_bytes(session, server, "pg_default")
    if free is not None and needed > free:
        raise RestoreError(
            "unknown", f"restore_into: {place_of(server)} has {human_bytes(free)} to spare, restoring needs about {human_bytes(needed)}"
        )


def _refuse_source(session: Session, server: Server, source: Server | None, name: str) -> None:
    """Make sure that a fixed name is used on another server than the source."""
    if source is None:
        raise InputError(
            f"restore_database {name!r} is given without source_server, so nobody can tell that it is not there; declare source_server."
        )
    try:
        with postgresql.connect(source, read_only=True) as other:
            is_same = postgresql.system_identifier(session) == postgresql.system_identifier(other)
    except MaintenanceError as error:
        raise RestoreError("unknown", f"source and target could not be told apart, so nothing was restored: {error}") from error
    if is_same:
        raise InputError(
            f"restore_database {name!r} is given, but {server['name']} is the source itself (same system identifier); "
            "leave the name out, one that nobody uses is generated, or restore into another server."
        )


def _create(session: Session, database: str, encoding: str) -> None:
    wanted = encoding if _ENCODING.match(encoding) else "UTF8"
    session.execute(
        f"CREATE DATABASE {session.identifier(database)} TEMPLATE template0 ENCODING {session.literal(wanted)} LC_COLLATE 'C' LC_CTYPE 'C'"
    )


def _drop(session: Session, server: Server, database: str) -> None:
    statement = f"DROP DATABASE IF EXISTS {session.identifier(database)} WITH (FORCE)"
    try:
        session.execute(statement)
    except postgresql.StatementError:
        with contextlib.suppress(MaintenanceError), postgresql.connect(server) as again:
            again.execute(statement)


def _sweep(session: Session) -> None:
    """Drop what killed drills of this host left; only a generated name with our mark on it, and nobody connected."""
    statement = (
        "SELECT datname, shobj_description(d.oid, 'pg_database') AS mark FROM pg_database d WHERE datname ~ %s "
        "AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)"
    )
    for row in session.rows(statement, [f"^{_PREFIX}"]):
        if _is_left(row["mark"] or "") and _GENERATED.match(row["datname"]):
            with contextlib.suppress(postgresql.StatementError):
                session.execute(f"DROP DATABASE {session.identifier(row['datname'])}")


def _is_left(mark: str) -> bool:
    """Whether a mark is of a drill of this host whose process is gone, whoever has its number now."""
    found = re.match(rf"{re.escape(_MARK)} (\S+) (\d+)(?: (\d+))?$", mark)
    if not found or found.group(1) != socket.gethostname():
        return False
    now = process.started(int(found.group(2)))
    return now != found.group(3) if found.group(3) else not now


class Psql:
    """psql at work on a plain dump that is written to it piece by piece."""

    def __init__(self, place: Place) -> None:
        self._stack = contextlib.ExitStack()
        try:
            env = self._stack.enter_context(postgresql_programs.client_environment(place.server))
            self._errors = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            program = postgresql_programs.find_program("psql", place.major, or_newer=True)
            whole = ["--single-transaction"] if place.database else []
            argv = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", *whole, "-d", place.database or "postgres", "-f", "-"]
            self._child = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, cwd="/",
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", **env},
                **postgresql_programs.identity(postgresql_programs.client_user(place.server)),
            )  # fmt: skip
        except BaseException:
            self._stack.close()
            raise
        self._is_open = True

    def write(self, piece: bytes | memoryview) -> None:
        """Hand over the next piece; once psql has stopped, nothing more is."""
        if self._is_open and self._child.stdin is not None:
            try:
                self._child.stdin.write(piece)
            except BrokenPipeError:
                self._is_open = False

    def finish(self) -> None:
        """Wait until it has worked all in.

        :raises RestoreError: it stopped at an error.
        """
        try:
            with contextlib.suppress(BrokenPipeError):
                if self._child.stdin is not None:
                    self._child.stdin.close()
            if self._child.wait() != 0:
                self._errors.seek(0)
                raise refusal("psql", self._errors.read(_TEXT_LIMIT).decode("utf-8", "replace"))
        finally:
            self.close()

    def close(self) -> None:
        """Stop it, wherever it is."""
        if self._child.returncode is not None:
            self._stack.close()
            return
        self._child.kill()
        with contextlib.suppress(BrokenPipeError):
            if self._child.stdin is not None:
                self._child.stdin.close()
        self._child.wait()
        self._stack.close()


def restore_archive(path: str, form: str, place: Place, jobs: int, timeout: float = 86400.0) -> None:
    """Restore an archive with pg_restore, in parallel where its format can.

    :raises RestoreError: pg_restore stopped at an error.
    """
    options = ["--no-owner", "--no-privileges", "--no-tablespaces", "--exit-on-error", f"--dbname={place.database}"]
    os_user = "" if place.is_throw_away else postgresql_programs.client_user(place.server)
    # A throw-away cluster lets us in as we are. Elsewhere its user may connect, but perhaps not read: it is handed the open file.
    handed = bool(postgresql_programs.identity(os_user))
    if handed and form == DIRECTORY:
        _through_psql(path, options[:3], place)
        return
    if jobs > 1 and form in (CUSTOM, DIRECTORY) and not handed:
        options.append(f"--jobs={jobs}")
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(postgresql_programs.client_environment(place.server))
        source = stack.enter_context(open_regular(path)) if handed else subprocess.DEVNULL
        argv = [pg_restore(), *options, *([] if handed else [path])]
        ran = postgresql_programs.run_program(argv, os_user=os_user, timeout=timeout, env=env, stdin=source)
    if ran.rc != 0 or ran.stderr.strip():
        raise refusal("pg_restore", ran.stderr or f"ended with {ran.rc}")


def _through_psql(path: str, options: t.Sequence[str], place: Place) -> None:
    """Turn a folder into text as who we are, and let psql work it in as the server's user, who may not enter the folder."""
    psql = Psql(place)
    try:
        convert(path, options, psql.write)
        psql.finish()
    except DamagedError as error:
        raise RestoreError("critical", str(error)) from error
    finally:
        psql.close()


def only_database(place: Place) -> str:
    """Return the database that a dump made for itself in a throw-away cluster.

    :raises RestoreError: it made none, or several.
    """
    with place.session("postgres") as session:
        names = [
            row["datname"] for row in session.rows("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
        ]
    if len(names) != 1:
        raise RestoreError("critical", f"the dump made {len(names)} databases, expected one")
    return str(names[0])


def refusal(program: str, said: str) -> RestoreError:
    """Word why a restore stopped, without any value of the application."""
    lines = [line for line in said.splitlines() if "ERROR:" in line or "FATAL:" in line or "error:" in line or "warning:" in line]
    line = lines[0] if lines else (said.strip().splitlines() or ["no message"])[-1]
    for words in ("ERROR:", "FATAL:"):
        if words in line:
            line = line.split(words, 1)[1]
    shown = clean(_VALUE.sub(r"\1…", line.strip()), 300)
    state = "unknown" if _NOT_ITS_FAULT.search(line) else "critical"
    return RestoreError(state, f"{program} stopped: {shown}")
