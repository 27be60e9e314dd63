# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL databases of a snapshot: dumped at one moment each, rows counted at that same moment, every block read back."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass
from datetime import datetime

from . import postgresql_dump, postgresql_facts
from .backup_encryption import command_problems
from .errors import InputError, MaintenanceError
from .host import Host
from .judge import human_bytes
from .paths import fsync_folder, sha256_of
from .postgresql import SERVER, Server, Session, check_server, connect, databases_of, major_version, system_identifier
from .postgresql_blockers import told
from .postgresql_programs import client_user, find_program, version_of
from .record import Json

SNAPSHOT_SERVER: dict[str, t.Any] = {
    **SERVER,
    "format": {"type": "str", "choices": list(postgresql_dump.FORMATS), "default": "custom"},
    "jobs": {"type": "int", "default": 2},
    "sentinels": {"type": "list", "elements": "str", "default": []},
    "copy_as": {"type": "str", "default": ""},
    "encrypt_command": {"type": "list", "elements": "str", "default": []},
}
"""One server, and how its databases are dumped. ``sentinels`` are tables (``schema.table``) that have to be there."""

FOLDER = "postgresql"
_NOT_IN_NAMES = str.maketrans(dict.fromkeys('/\\\x00\n"', "_"))


@dataclass
class Source:
    """A server that was looked at before anything is written."""

    server: Server
    major: int
    version: str
    identifier: str
    superuser: bool
    databases: dict[str, int]
    """Size in bytes by name."""
    properties: dict[str, dict[str, Json]]


def problems_of(servers: t.Sequence[Server]) -> list[str]:
    """Say what is wrong with the declaration of the servers."""
    names = [server["name"] for server in servers]
    problems = [
        f"the PostgreSQL server {name!r} is declared twice; remove one." for name in sorted({n for n in names if names.count(n) > 1})
    ]
    for server in servers:
        try:
            check_server(server)
        except InputError as error:
            problems.append(str(error))
        if server["jobs"] < 1:
            problems.append(f"jobs of server {server['name']!r} is {server['jobs']}, expected 1 or more; correct it.")
        problems += command_problems(server["encrypt_command"], f"encrypt_command of server {server['name']!r}")
        shown = server["copy_as"]
        if shown and server["format"] != "custom":
            problems.append(f"copy_as of server {server['name']!r} needs the format custom, which is one file; change one of them.")
        if shown and (not os.path.isabs(shown) or os.path.normpath(shown) != shown or "{time}" not in os.path.basename(shown)):
            expected = "an absolute path with {time} in the file's name"
            problems.append(f"copy_as of server {server['name']!r} is {shown!r}, expected {expected}; correct it.")
        elif shown and "{database}" not in shown and len(server["databases"]) != 1:
            problems.append(
                f"copy_as of server {server['name']!r} is {shown!r}, expected {{database}} in it, for there may be several; add it."
            )
    return problems


def look(server: Server) -> Source:
    """Look at a server and its databases.

    :raises MaintenanceError: it cannot be reached, is a standby, or has no such database or table, or pg_dump is missing.
    """
    with connect(server, read_only=True) as session:
        if session.value("SELECT pg_is_in_recovery()"):
            raise MaintenanceError(
                f"{session.where} is a standby, which may lag behind and cannot be put back; take the snapshot on its primary."
            )
        sizes = {
            row["datname"]: int(row["size"])
            for row in session.rows(
                "SELECT datname, pg_database_size(oid) AS size FROM pg_database WHERE datname = ANY(%s)", [databases_of(session, server)]
            )
        }
        missing = [name for name in server["databases"] if name not in sizes]
        if missing:
            raise MaintenanceError(f"{session.where} has no database {missing[0]!r}; correct databases of {server['name']}.")
        if not sizes:
            raise MaintenanceError(f"{session.where} has no database that allows connections; nothing could be dumped.")
        major = major_version(session)
        superuser = bool(session.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
        # Asked from here: in a database of another encoding its own name may not be what it is elsewhere.
        properties = {name: postgresql_facts.properties(session, name) for name in sizes}
        version = str(session.value("SHOW server_version"))
        source = Source(server, major, version, system_identifier(session), superuser, sizes, properties)
    for program in ("pg_dump", "pg_restore", "pg_dumpall"):
        find_program(program, major, or_newer=True)
    _check_sentinels(source)
    return source


def _check_sentinels(source: Source) -> None:
    wanted = set(source.server["sentinels"])
    for database in source.databases if wanted else ():
        with connect(source.server, database, read_only=True) as session:
            wanted -= {declared for declared in wanted if postgresql_facts.table_of(session, declared)}
    if wanted:
        raise MaintenanceError(
            f"No database of {source.server['name']} has the table {', '.join(sorted(wanted))}; "
            "it is not the expected one, or sentinels has to be corrected."
        )


def needed_bytes(sources: t.Iterable[Source]) -> int:
    """Estimate the room that the dumps need: what the databases take, and as much again for each copy."""
    return sum(sum(source.databases.values()) * (2 if source.server["copy_as"] else 1) for source in sources)


def take(source: Source, work: str, number: int, host: Host, moment: datetime, deadline: float) -> dict[str, Json]:
    """Dump all databases of a server and its globals below a half-written snapshot, and describe them for the manifest."""
    server = source.server
    relative = os.path.join(FOLDER, f"{number:03d}")
    base = os.path.join(work, FOLDER)
    if not os.path.isdir(base):
        os.mkdir(base, 0o700)
    os.mkdir(os.path.join(work, relative), 0o700)
    dumper = version_of(find_program("pg_dump", source.major, or_newer=True))

    def left() -> float:
        return max(deadline - host.now().timestamp(), 1.0) if deadline else postgresql_dump.NO_LIMIT_SECONDS

    path = postgresql_dump.dump_globals(server, source.major, os.path.join(work, relative), passwords=source.superuser, timeout=left())
    entry: dict[str, Json] = {
        "name": server["name"],
        "os_user": client_user(server),
        "system_identifier": source.identifier,
        "server_version": source.version,
        "major": source.major,
        "dump_major": dumper,
        "globals": {**_file(path, work), "passwords": source.superuser},
        "databases": [],
    }
    for place, database in enumerate(source.databases):
        folder = os.path.join(relative, f"{place:03d}")
        postgresql_dump.private_folder(os.path.join(work, folder), server)
        one = _database(source, database, os.path.join(work, folder), host, left)
        one["copy"] = _copy_path(server, database, moment)
        one["bytes_live"] = source.databases[database]
        one["file"] = os.path.join(folder, "dump")
        one["files"] = [_file(name, work) for name in postgresql_dump.files_of(os.path.join(work, one["file"]))]
        one["size"] = sum(file["size"] for file in one["files"])
        encoding = one["properties"]["encoding"]
        one["rows"] = postgresql_dump.read_whole(os.path.join(work, one["file"]), dumper, client_user(server), encoding=encoding)
        differing = [f"{name} ({one['rows'][name]} and {count})" for name, count in one["counted"].items() if one["rows"][name] != count]
        if differing:
            raise MaintenanceError(
                f"The dump of database {database!r} of {server['name']} does not hold the rows counted at its moment: {differing[0]}."
            )
        entry["databases"].append(one)
    return entry


def _database(source: Source, database: str, folder: str, host: Host, left: t.Callable[[], float]) -> dict[str, Json]:
    """Export one moment, count in it, and dump exactly it."""
    started = host.now()
    wait = postgresql_dump.LOCK_WAIT_SECONDS
    with connect(source.server, database, statement_timeout_seconds=0, lock_timeout_seconds=wait) as session:
        # The session has nothing to do while the dump runs, and must not be ended for that.
        session.set("idle_in_transaction_session_timeout", 0)
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot = str(session.value("SELECT pg_export_snapshot()"))
        position = str(session.value("SELECT pg_current_wal_lsn()"))
        with told(source.server, database, session):
            sentinels, counted = _sentinels(session, source.server)
            objects = postgresql_facts.objects(session)
        postgresql_dump.dump(source.server, database, source.major, folder, snapshot=snapshot, timeout=left())
        session.execute("COMMIT")
    return {
        "objects": objects,
        "properties": source.properties[database],
        "database": database,
        "format": source.server["format"],
        "sentinels": sentinels,
        "counted": counted,
        "wal_position": position,
        "started": started.isoformat(),
        "finished": host.now().isoformat(),
    }


def _sentinels(session: Session, server: Server) -> tuple[dict[str, int], dict[str, int]]:
    """Count the sentinel tables of this database; the second holds those that the dump has to show with the same number."""
    tables = [table for table in (postgresql_facts.table_of(session, declared) for declared in server["sentinels"]) if table]
    sentinels = postgresql_facts.counts(session, tables)
    statement = (
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s AND relkind = 'r'"
        " AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')"
    )
    plain = [table for table in tables if session.value(statement, table)]
    return sentinels, postgresql_facts.counts(session, plain, only=True)


def _copy_path(server: Server, database: str, moment: datetime) -> str:
    """Name the copy by the host's own clock, as a person on it would; nothing in a database's name leads elsewhere."""
    if not server["copy_as"]:
        return ""
    time = moment.astimezone().strftime("%Y%m%d_%H%M%S")
    folder, name = os.path.split(server["copy_as"])
    plain: str = database.translate(_NOT_IN_NAMES).lstrip(".") or "_"
    return str(os.path.join(folder.replace("{database}", plain), name.replace("{database}", plain).replace("{time}", time)))


def _file(path: str, work: str) -> dict[str, Json]:
    """Make a file durable and nobody else's, and describe it."""
    file_fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(file_fd, 0o600)
        os.fsync(file_fd)
    finally:
        os.close(file_fd)
    fsync_folder(os.path.dirname(path))
    return {"file": os.path.relpath(path, work), "sha256": sha256_of(path), "size": os.lstat(path).st_size}


def files(manifest: t.Mapping[str, Json]) -> t.Iterator[dict[str, Json]]:
    """Yield every file of the PostgreSQL part of a manifest."""
    for server in manifest.get("postgresql", ()):
        yield server["globals"]
        for database in server["databases"]:
            yield from database["files"]


def databases(manifest: t.Mapping[str, Json]) -> t.Iterator[tuple[dict[str, Json], dict[str, Json]]]:
    """Yield every server and database of a manifest."""
    for server in manifest.get("postgresql", ()):
        for database in server["databases"]:
            yield server, database


def prove_archives(manifest: t.Mapping[str, Json], folder: str) -> str:
    """Read every archive of a snapshot from beginning to end; return what is wrong with one, empty when nothing is."""
    for server, database in databases(manifest):
        path = os.path.join(folder, database["file"])
        known = {os.path.basename(file["file"]) for file in database["files"]}
        present = {os.path.basename(name) for name in postgresql_dump.files_of(path)}
        if known != present:
            return f"{path} does not hold the files of its manifest"
        encoding = database["properties"]["encoding"]
        try:
            rows = postgresql_dump.read_whole(path, server["dump_major"], server["os_user"], encoding=encoding)
        except (MaintenanceError, OSError) as error:
            return str(error)
        if rows != database["rows"]:
            return f"the archive {path} does not hold the rows of its manifest"
    return ""


def report(manifest: dict[str, Json], find: t.Callable[..., None]) -> None:
    """Say what a snapshot holds of PostgreSQL."""
    for server, entry in databases(manifest):
        subject = f"{server['name']}/{entry['database']}"
        rows = sum(entry["rows"].values())
        words = f"the dump ({entry['format']}, {human_bytes(entry['size'])}) was read whole: {len(entry['rows'])} table(s), {rows} row(s)"
        evidence = [f"{table}: {count} row(s) at the moment of the dump" for table, count in entry["sentinels"].items()]
        find("snapshot.postgresql", "ok", subject, words, value=entry["size"], unit="bytes", evidence=evidence)
    for server in manifest.get("postgresql", ()):
        words = "roles and tablespaces are kept"
        if server["globals"]["passwords"]:
            find("snapshot.globals", "ok", server["name"], f"{words}, with the hashes of passwords, mode 0600")
        else:
            advice = "Connect as a superuser to keep them, or be ready to set the passwords again after the loss of the whole cluster."
            find("snapshot.globals", "warning", server["name"], f"{words} without passwords: the role is no superuser", advice=advice)
