# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions with a PostgreSQL server: through psycopg 3 or psycopg2, on the local socket or over TCP with TLS.

A session knows nothing of the search path but ``pg_catalog``, so every other name has to be qualified, and it never waits
for ever: connecting, statements and locks all have a time limit.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pwd
import threading
import typing as t

from .errors import InputError, MaintenanceError
from .paths import password_of
from .record import clean

OLDEST = 13
"""The oldest major version of PostgreSQL that is looked after."""

DRIVERS = ("psycopg2", "psycopg")
"""Modules that can talk to PostgreSQL, the preferred one first: to load psycopg 3 takes five times as long."""

SOCKET_FOLDER = "/var/run/postgresql"

ABSENT_PASSFILE = "/nonexistent/pgpass"
"""Nobody's ``~/.pgpass`` is used; of a file that is not there libpq says nothing, of ``/dev/null`` it warns."""

SERVER: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "host": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 5432},
    "user": {"type": "str", "default": "postgres"},
    "os_user": {"type": "str", "default": "postgres"},
    "password": {"type": "str", "default": "", "no_log": True},
    "password_file": {"type": "path", "default": ""},
    "ssl_mode": {"type": "str", "choices": ["prefer", "require", "verify-ca", "verify-full"], "default": "prefer"},
    "ssl_root_certificate": {"type": "path", "default": ""},
    "connect_timeout_seconds": {"type": "int", "default": 10},
    "connect_database": {"type": "str", "default": "postgres"},
    "databases": {"type": "list", "elements": "str", "default": []},
}
"""Argument spec of one server, shared by every module that talks to PostgreSQL.

``host`` is a host name, or the folder of the socket; empty is Debian's folder. On a socket the connection is made as ``os_user``
where we are root, which is what peer authentication wants; empty stays who we are. No ``databases`` means all of them.
"""

_CHANGING_USER = threading.Lock()

Row = t.Dict[str, t.Any]  # noqa: UP006 - evaluated when the module is loaded, on Python 3.9 too
Server = t.Mapping[str, t.Any]


class DriverMissingError(MaintenanceError):
    """Neither psycopg 3 nor psycopg2 can be imported."""


class NotReachableError(MaintenanceError):
    """The server gave no session.

    :param kind: ``refused``, ``starting``, ``password``, ``not_allowed``, ``no_database``, ``too_many`` or ``other``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StatementError(MaintenanceError):
    """PostgreSQL refused a statement.

    :param sqlstate: PostgreSQL's five-character error code, empty when the connection was lost.
    """

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"
INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED_TABLE = "42P01"
CONNECTION_LOST = ""

# What the messages of libpq and of the server begin a refusal with, and what to do about it.
_REFUSALS = (
    ("starting", "the database system is starting up", "Wait until it has started, then run again"),
    ("starting", "the database system is not yet accepting connections", "Wait until it has recovered, then run again"),
    (
        "starting",
        "the database system is not accepting connections",
        "Set hot_standby to on at this standby, or look after its primary only",
    ),
    ("starting", "the database system is shutting down", "Start it again, then run again"),
    ("starting", "the database system is in recovery mode", "It recovers from a crash: read its log, then run again"),
    ("password", "password authentication failed", "Correct the password or password_file of this server"),
    ("password", "no password supplied", "Give password_file (or password from a vault) for this server"),
    ("not_allowed", "no pg_hba.conf entry", "Allow this role, database and address in pg_hba.conf, or connect another way"),
    ("not_allowed", "Peer authentication failed", "Set os_user to the operating system's user of this role"),
    ("not_allowed", "is not permitted to log in", "Give the role LOGIN, or name another user"),
    ("not_allowed", "permission denied for database", "Grant CONNECT on the database to the role"),
    ("too_many", "too many", "Free connections, or keep some with superuser_reserved_connections"),
    ("too_many", "remaining connection slots", "Free connections, or let this role use the reserved ones"),
    ("no_database", "database", "Correct the name of the database"),
    ("no_role", "role", "Correct the user of this server"),
    ("refused", "Connection refused", "Start PostgreSQL, or correct host and port"),
    ("refused", "No such file or directory", "Start PostgreSQL, or correct host (the folder of the socket) and port"),
    ("refused", "timeout expired", "Look at network and firewall, or correct host and port"),
    ("refused", "could not translate host name", "Correct host"),
    ("certificate", "certificate", "Correct ssl_root_certificate, ssl_mode or the server's certificate"),
)


def load_driver() -> t.Any:
    """Return psycopg2, or else psycopg 3.

    :raises DriverMissingError: this Python has neither.
    """
    for name in DRIVERS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DriverMissingError(
        "This host's Python has neither psycopg2 nor psycopg, so PostgreSQL cannot be looked at; install python3-psycopg2 "
        "(the role database_maintenance does, outside check mode)."
    )


def socket_folder(server: Server) -> str:
    """Return the folder of the server's socket; empty when it is reached over TCP."""
    host = str(server["host"])
    return host if host.startswith("/") else "" if host else SOCKET_FOLDER


def place_of(server: Server, database: str = "") -> str:
    """Say in words which server (and database) is meant."""
    where = f"{socket_folder(server) or server['host']}:{server['port']}"
    return f"database {database!r} of {server['name']} ({where})" if database else f"{server['name']} ({where})"


def check_server(server: Server) -> None:
    """Refuse a declaration that cannot work.

    :raises InputError: one sentence that says what to correct.
    """
    option = f"of server {server['name']!r}"
    if not str(server["name"]).strip():
        raise InputError.of("name", server["name"], "a name for the server", "give it one")
    if not 0 < server["port"] < 65536:
        raise InputError.of(f"port {option}", server["port"], "1 to 65535", "correct it")
    if server["connect_timeout_seconds"] < 1:
        raise InputError.of(f"connect_timeout_seconds {option}", server["connect_timeout_seconds"], "1 or more", "correct it")
    if server["password"] and server["password_file"]:
        raise InputError(f"Both password and password_file {option} are given, expected one of them; remove the other.")
    if "\0" in str(server["host"]) or "," in str(server["host"]):
        raise InputError.of(f"host {option}", server["host"], "one host name or the folder of a socket", "declare each server on its own")


class Session:
    """One connection, in autocommit: every statement is its own transaction unless inside :meth:`transaction`."""

    def __init__(self, raw: t.Any, driver: t.Any, where: str) -> None:
        self.raw = raw
        self.where = where
        self._driver = driver

    def execute(self, statement: str, params: t.Sequence[t.Any] | t.Mapping[str, t.Any] | None = None) -> int:
        """Run a statement and return how many rows it touched (-1 where that makes no sense).

        :raises StatementError: PostgreSQL refused it, or the connection was lost.
        """
        return int(self._run(statement, params).rowcount)

    def rows(self, statement: str, params: t.Sequence[t.Any] | t.Mapping[str, t.Any] | None = None) -> list[Row]:
        """Run a query and return its rows by column name."""
        cursor = self._run(statement, params)
        names = [column[0] for column in cursor.description or ()]
        try:
            return [dict(zip(names, row)) for row in cursor.fetchall()]
        except self._driver.Error as error:
            raise self._worded(error) from error

    def value(self, statement: str, params: t.Sequence[t.Any] | t.Mapping[str, t.Any] | None = None) -> t.Any:
        """Run a query and return the first column of its first row; None when there is none."""
        found = self.rows(statement, params)
        return next(iter(found[0].values())) if found else None

    def identifier(self, *parts: str) -> str:
        """Quote a name, qualified where several parts are given, the way the driver does."""
        return self._composed("Identifier", *parts)

    def literal(self, value: t.Any) -> str:
        """Quote a value for the few statements that take no parameters, the way the driver does."""
        return self._composed("Literal", value)

    def set(self, name: str, value: str | int) -> None:
        """Change a setting for the rest of the session."""
        self.configure({name: value})

    def configure(self, settings: t.Mapping[str, str | int]) -> None:
        """Change settings for the rest of the session, all at once."""
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        self.execute(f"SELECT {calls}", [str(part) for setting in settings.items() for part in setting])

    @contextlib.contextmanager
    def transaction(self) -> t.Iterator[None]:
        """Make several statements one transaction: committed at the end, rolled back on any error."""
        self.execute("BEGIN")
        try:
            yield
        except BaseException:
            with contextlib.suppress(StatementError):
                self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def cancel(self) -> None:
        """Ask the server to stop what this session is doing; may be called from another thread."""
        self.raw.cancel()

    def close(self) -> None:
        """End the session; a server that went away is no error."""
        with contextlib.suppress(self._driver.Error):
            self.raw.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_of: t.Any) -> None:
        self.close()

    def _composed(self, kind: str, *values: t.Any) -> str:
        composed = getattr(importlib.import_module(f"{self._driver.__name__}.sql"), kind)(*values)
        try:
            return str(composed.as_string(self.raw))
        except self._driver.Error as error:
            raise self._worded(error) from error

    def _run(self, statement: str, params: t.Sequence[t.Any] | t.Mapping[str, t.Any] | None) -> t.Any:
        try:
            cursor = self.raw.cursor()
            cursor.execute(statement, params)
        except self._driver.Error as error:
            raise self._worded(error) from error
        return cursor

    def _worded(self, error: t.Any) -> StatementError:
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
        said = clean(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 300)
        if self.raw.closed or not code or code.startswith(("57P", "08")):
            return StatementError(
                CONNECTION_LOST, f"The session with {self.where} was lost: {said}; read the server's log, then run again."
            )
        return StatementError(code, f"PostgreSQL on {self.where} refused a statement ({code}): {said}.")


def connect(
    server: Server,
    database: str = "",
    *,
    read_only: bool = False,
    statement_timeout_seconds: float = 60.0,
    lock_timeout_seconds: float = 5.0,
    application_name: str = "ops.maintenance",
) -> Session:
    """Open a session with a server.

    :param database: empty for the server's ``connect_database``.
    :param read_only: let PostgreSQL itself refuse everything that writes.
    :param statement_timeout_seconds: longest time of one statement; 0 means no limit.
    :param lock_timeout_seconds: longest wait for one lock; 0 means no limit.
    :raises DriverMissingError: no psycopg.
    :raises NotReachableError: the server gave no session; its kind says why.
    :raises InputError: the declaration cannot work, or the server is older than :data:`OLDEST`.
    """
    check_server(server)
    driver = load_driver()
    name = database or server["connect_database"]
    where = place_of(server, name)
    password = password_of(server)
    given: dict[str, t.Any] = {
        "host": socket_folder(server) or server["host"],
        "port": server["port"],
        "user": server["user"],
        "dbname": name,
        "connect_timeout": server["connect_timeout_seconds"],
        "application_name": application_name,
        "client_encoding": "UTF8",
        "passfile": ABSENT_PASSFILE,
    }
    if password:
        given["password"] = password
    if not socket_folder(server):
        given["sslmode"] = server["ssl_mode"]
        if server["ssl_root_certificate"]:
            given["sslrootcert"] = server["ssl_root_certificate"]
    try:
        with _as_peer(server):
            raw = driver.connect(**given, **_client_side(driver))
    except driver.Error as error:
        raise _refusal(error, where, bool(password)) from None
    raw.autocommit = True
    session = Session(raw, driver, where)
    try:
        major = int(session.value("SHOW server_version_num")) // 10000
        if major < OLDEST:
            raise InputError(f"{where} runs PostgreSQL {major}, expected {OLDEST} or newer; upgrade it, or take it out of the inventory.")
        session.configure(
            {
                "search_path": "pg_catalog",
                "statement_timeout": int(statement_timeout_seconds * 1000),
                "lock_timeout": int(lock_timeout_seconds * 1000),
                "idle_in_transaction_session_timeout": 600_000,
                **({"default_transaction_read_only": "on"} if read_only else {}),
            }
        )
    except BaseException:
        session.close()
        raise
    return session


def major_version(session: Session) -> int:
    """Return the major version of the server."""
    return int(session.value("SHOW server_version_num")) // 10000


def databases_of(session: Session, server: Server) -> list[str]:
    """Return the declared databases of a server; where none are, all that allow connections and are no templates."""
    if server["databases"]:
        return list(server["databases"])
    statement = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
    return [row["datname"] for row in session.rows(statement)]


def system_identifier(session: Session) -> str:
    """Return the number that tells this cluster from every other; a restored dump has another, a physical copy the same."""
    return str(session.value("SELECT system_identifier FROM pg_control_system()"))


def has_role(session: Session, role: str) -> bool:
    """Whether the session's role is a superuser or has the privileges of a predefined role."""
    return bool(session.value("SELECT rolsuper OR pg_has_role(rolname, %s, 'USAGE') FROM pg_roles WHERE rolname = current_user", [role]))


def extension_schema(session: Session, name: str) -> str:
    """Return the schema that an extension of this database lives in; empty when it is not installed."""
    statement = "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = %s"
    return str(session.value(statement, [name]) or "")


def _client_side(driver: t.Any) -> dict[str, t.Any]:
    """Let psycopg 3 put parameters into the statement as psycopg2 does: utility statements take no others."""
    return {"cursor_factory": driver.ClientCursor} if driver.__name__ == "psycopg" else {}


@contextlib.contextmanager
def _as_peer(server: Server) -> t.Iterator[None]:
    """Be the server's operating system user while a socket is opened, where we are root: the server looks who connects.

    The whole process is that user meanwhile, with every thread of it, so sessions are opened before threads are started that
    touch files; a thread uses a session that it was given. Two that are opened at once wait for each other.
    """
    wanted = server["os_user"]
    with _CHANGING_USER:
        if os.geteuid() != 0 or not wanted or not socket_folder(server):
            yield
            return
        try:
            user = pwd.getpwnam(wanted)
        except KeyError:
            raise InputError.of(f"os_user of server {server['name']!r}", wanted, "a user of this host", "correct it") from None
        os.seteuid(user.pw_uid)
        try:
            yield
        finally:
            os.seteuid(0)


def _refusal(error: Exception, where: str, had_password: bool) -> NotReachableError:
    text = str(error).strip() or type(error).__name__
    for kind, words, advice in _REFUSALS:
        if words in text and (kind not in ("no_database", "no_role") or (f'{words} "' in text and "does not exist" in text)):
            if kind == "password" and not had_password:
                advice = "Give password_file (or password from a vault) for this server"
            return NotReachableError(kind, f"No session with {where}: {_line_with(words, text)}. {advice}.")
    return NotReachableError("other", f"No session with {where}: {_line_with('', text)}. Read the server's log.")


def _line_with(words: str, text: str) -> str:
    """Return the last line of libpq's message that holds the words, fit for a sentence; hints are lines that a tab begins."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("\t")] or [text]
    holding = [line for line in lines if words in line] or lines
    return clean(holding[-1], 300).rstrip(" .?!")
