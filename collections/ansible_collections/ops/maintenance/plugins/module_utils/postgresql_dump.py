# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of PostgreSQL databases as archives: taken, read from beginning to end, restored into an empty database."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import subprocess
import tempfile
import threading
import typing as t

from .errors import MaintenanceError
from .host import Ran
from .paths import open_regular
from .postgresql import Server
from .postgresql_blockers import ADVICE, watched
from .postgresql_programs import client_environment, client_user, find_program, identity, run_program
from .record import clean

FORMATS = ("custom", "directory")
NO_LIMIT_SECONDS = 7 * 86400.0
"""How long a dump or restore may take where no window closes."""

LOCK_WAIT_SECONDS = 60.0
"""How long a dump waits for tables that somebody has locked."""

_CHUNK = 1024 * 1024
_SILENT_SECONDS = 300.0
"""pg_restore reads some damaged archives for ever; one that writes nothing for so long has met such a place."""
# pg_dump waits for locks under a statement_timeout of its own, and has no other.
_NO_LOCK = re.compile(r"canceling statement due to (?:lock|statement) timeout")
_PART = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')
_SIMPLE = re.compile(r"^[a-z_][a-z0-9_$]*$")
_BEGIN, _HEADER_END, _END = b"\nCOPY ", b" FROM stdin;\n", b"\n\\.\n"


class DamagedDumpError(MaintenanceError):
    """An archive is cut off, damaged, or no archive."""


def split_name(text: str) -> tuple[str, ...]:
    """Split ``schema.table``, each part in double quotes or not; letter case stays as it is written."""
    return tuple(quoted.replace('""', '"') if quoted else bare for quoted, bare in _PART.findall(text))


def shown_name(*parts: str) -> str:
    """Write a qualified name in one way, so that names can be compared: quoted only where it has to be."""
    return ".".join(part if _SIMPLE.match(part) else '"' + part.replace('"', '""') + '"' for part in parts)


def connection_text(database: str) -> str:
    """Name a database for ``--dbname`` so that no name, whatever is in it, is taken for more than a name."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


@contextlib.contextmanager
def entered(folder: str) -> t.Iterator[tuple[int, str]]:
    """Open a folder for a program that runs as another user: it gets in however closed the folders above are.

    The second value is the folder's path in the eyes of the program, which needs the first among its ``pass_fds``.
    """
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder_fd, f"/proc/self/fd/{folder_fd}"
    finally:
        os.close(folder_fd)


def private_folder(path: str, server: Server) -> None:
    """Make a folder that the user of the server's programs can write, and nobody else."""
    os.mkdir(path, 0o700)
    owner = identity(client_user(server))
    if owner:
        os.chown(path, owner["user"], owner["group"])


def dump(server: Server, database: str, major: int, folder: str, *, snapshot: str, timeout: float) -> str:
    """Dump a database into a folder under the name ``dump`` and return its path.

    :param server: a server's declaration with ``format`` and ``jobs`` added.
    :param snapshot: what pg_export_snapshot gave to the session that counted the rows.
    :raises MaintenanceError: pg_dump is older than the server, failed, or did not end in time.
    """
    program = find_program("pg_dump", major, or_newer=True)
    with client_environment(server) as env, entered(folder) as (folder_fd, inside):
        argv = [
            program,
            f"--format={server['format']}",
            "--no-password",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={LOCK_WAIT_SECONDS * 1000:.0f}",
        ]
        if server["format"] == "directory":
            argv.append(f"--jobs={server['jobs']}")
        argv += [f"--file={inside}/dump", f"--dbname={connection_text(database)}"]
        with watched(server, database, env["PGAPPNAME"]) as watch:
            ran = run_program(argv, os_user=client_user(server), env=env, timeout=timeout, pass_fds=[folder_fd])
    if ran.rc != 0 and _NO_LOCK.search(ran.stderr):
        raise MaintenanceError(
            f"The dump of database {database!r} of {server['name']} was not taken: no lock within {LOCK_WAIT_SECONDS:g} seconds, "
            f"{watch.words()}; {ADVICE}."
        )
    if ran.rc != 0:
        raise MaintenanceError(f"The dump of database {database!r} of {server['name']} was not taken: {_first_error(ran)}.")
    return os.path.join(folder, "dump")


def _first_error(ran: Ran) -> str:
    """Return what the program itself calls an error; its last line is often the statement only."""
    said = next((line for line in ran.stderr.splitlines() if "error:" in line), ran.why())
    return clean(said.strip().rstrip("."), 300)


def dump_globals(server: Server, major: int, folder: str, *, passwords: bool, timeout: float) -> str:
    """Write roles and tablespaces, which no dump of a database holds, into a folder and return the path.

    :param passwords: keep the hashes of passwords; only a superuser can read them.
    """
    program = find_program("pg_dumpall", major, or_newer=True)
    path = os.path.join(folder, "globals.sql")
    file_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(file_fd, "wb") as target, client_environment(server) as env:
        argv = [program, "--globals-only", "--no-password", *([] if passwords else ["--no-role-passwords"])]
        argv.append(f"--dbname={connection_text(server['connect_database'])}")
        ran = run_program(argv, os_user=client_user(server), env=env, timeout=timeout, stdout=target)
        os.fsync(target.fileno())
    if ran.rc != 0:
        raise MaintenanceError(f"The roles and tablespaces of {server['name']} were not written: {ran.why()}.")
    with open(path, "rb") as source:
        source.seek(max(os.fstat(source.fileno()).st_size - 200, 0))
        if b"PostgreSQL database cluster dump complete" not in source.read():
            raise MaintenanceError(f"What pg_dumpall wrote of {server['name']} has no end; look at disk space and run again.")
    return path


def files_of(path: str) -> list[str]:
    """Return the files of a dump: itself, or what lies in its folder."""
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(path, name) for name in sorted(os.listdir(path))]


def read_whole(path: str, major: int, os_user: str, *, encoding: str = "UTF8", timeout: float = NO_LIMIT_SECONDS) -> dict[str, int]:
    """Read every block of an archive and return the rows it holds by table; a list of its contents would not notice that it is cut off.

    :param major: version of the pg_dump that wrote it.
    :param encoding: PostgreSQL's name for the encoding of the database.
    :raises DamagedDumpError: it cannot be read to its end.
    """
    program = find_program("pg_restore", major, or_newer=True)
    with entered(os.path.dirname(path)) as (folder_fd, inside):
        argv = [program, "--data-only", "--file=-", f"{inside}/{os.path.basename(path)}"]
        with _streaming(argv, os_user, timeout, [folder_fd]) as (stream, ended):
            counted = count_rows(t.cast(t.IO[bytes], stream), _codec(encoding))
            ran = ended()
    if ran.rc != 0 or counted is None:
        raise DamagedDumpError(f"The archive {path} cannot be read to its end: {ran.why()}; use another one.")
    return counted


def _codec(encoding: str) -> str:
    for name in (encoding, encoding.replace("WIN", "cp")):
        with contextlib.suppress(LookupError):
            return codecs.lookup(name).name
    return "utf-8"


def count_rows(stream: t.IO[bytes], codec: str = "utf-8") -> dict[str, int] | None:
    """Count the rows by table in the text that ``pg_restore --data-only`` writes; None when it ends inside a table."""
    counts: dict[str, int] = {}
    table, data, at = "", b"\n", 0
    while True:
        chunk = stream.read(_CHUNK)
        data, at, table = _counted(data + chunk, at, table, counts, codec)
        if not chunk:
            return None if table else counts


def _counted(data: bytes, at: int, table: str, counts: dict[str, int], codec: str) -> tuple[bytes, int, str]:
    """Count what is complete in the data; return what has to be looked at again, from where, and in which table that is."""
    while True:
        if table:
            end = data.find(_END, at - 1)
            if end < 0:
                safe = max(at, len(data) - len(_END))
                counts[table] += data.count(b"\n", at, safe)
                return data[safe - 1 :], 1, table
            counts[table] += data.count(b"\n", at, end + 1)
            at, table = end + len(_END) - 1, ""
        begin = data.find(_BEGIN, at)
        if begin < 0:
            return data[max(at, len(data) - len(_BEGIN)) :], 0, ""
        end = data.find(_HEADER_END, begin)
        if end < 0:
            return data[begin:], 0, ""
        table = _table_of(data[begin + len(_BEGIN) : end].decode(codec, "backslashreplace"))
        counts.setdefault(table, 0)
        at = end + len(_HEADER_END)


def _table_of(header: str) -> str:
    """Take the table's name from what stands between COPY and FROM; its columns follow in parentheses."""
    parts: tuple[str, ...] = ()
    at = 0
    while True:
        found = _PART.match(header, at) if header[at : at + 1] == '"' else re.compile(r"[^. ]+").match(header, at)
        if not found:
            return shown_name(*parts)
        parts += split_name(found.group())
        at = found.end()
        if header[at : at + 1] != ".":
            return shown_name(*parts)
        at += 1


class _Watched:
    """A program's output; the program is killed when none comes for a long time."""

    def __init__(self, stream: t.IO[bytes], kill: t.Callable[[], None]) -> None:
        self._stream = stream
        self._kill = kill

    def read(self, size: int) -> bytes:
        watch = threading.Timer(_SILENT_SECONDS, self._kill)
        watch.daemon = True
        watch.start()
        try:
            return self._stream.read(size)
        finally:
            watch.cancel()


@contextlib.contextmanager
def _streaming(
    argv: t.Sequence[str], os_user: str, timeout: float, pass_fds: t.Sequence[int]
) -> t.Iterator[tuple[_Watched, t.Callable[[], Ran]]]:
    """Run a program and yield its output and what waits for its end; it never outlives the block."""
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=env,
            cwd="/",
            start_new_session=True,
            pass_fds=pass_fds,
            **identity(os_user),
        )

        watch = threading.Timer(timeout, child.kill)
        watch.start()

        def ended() -> Ran:
            code = child.wait()
            errors.seek(0)
            return Ran(list(argv), code, "", errors.read(4096).decode("utf-8", "backslashreplace"))

        try:
            with t.cast(t.IO[bytes], child.stdout) as stream:
                yield _Watched(stream, child.kill), ended
        finally:
            watch.cancel()
            child.kill()
            child.wait()


def restore(server: Server, database: str, path: str, major: int, *, jobs: int, timeout: float, as_input: bool = False) -> None:
    """Restore an archive into an empty database; the first error ends it.

    :param major: version of the server.
    :param as_input: hand the file over opened, because the user of the server's programs may not open it; then ``jobs`` is of no use.
    :raises MaintenanceError: PostgreSQL refused anything in it.
    """
    program = find_program("pg_restore", major, or_newer=True)
    argv = [program, "--exit-on-error", "--no-password", f"--dbname={connection_text(database)}"]
    user = client_user(server)
    with client_environment(server) as env, entered(os.path.dirname(path)) as (folder_fd, inside):
        if as_input:
            with open_regular(path) as source:
                ran = run_program(argv, os_user=user, env=env, timeout=timeout, stdin=source)
        else:
            argv += [f"--jobs={jobs}", f"{inside}/{os.path.basename(path)}"]
            ran = run_program(argv, os_user=user, env=env, timeout=timeout, pass_fds=[folder_fd])
    if ran.rc != 0:
        raise MaintenanceError(f"The archive {path} was not restored: {_first_error(ran)}; nothing of it is in use.")
