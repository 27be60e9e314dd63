# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disable approved users of an application in its database: one transaction for a rule, whose counts have to agree."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import typing as t
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from . import postgresql, sqlite_db
from .errors import MaintenanceError, VerifyError
from .judge import many
from .record import clean
from .security_app_users import bounded, moment_of

Rule = t.Mapping[str, t.Any]
Row = t.Mapping[str, t.Any]
_DAY = 86400.0


class Store(t.Protocol):
    """What the work asks of a database.

    :param marker: stands for a value in a statement.
    :param same: compares two values of which either may be empty.
    :param lock: keeps the rows of a query from being changed by others until the transaction ends.
    """

    marker: str
    same: str
    lock: str

    def rows(self, statement: str, values: t.Sequence[t.Any] = ()) -> t.Sequence[Row]:
        """Run a query."""

    def change(self, statement: str, values: t.Sequence[t.Any]) -> int:
        """Run a statement, and say how many rows it touched."""

    def quoted(self, name: str) -> str:
        """Quote the name of a column, or of a table with or without its schema."""

    def transaction(self) -> t.ContextManager[None]:
        """Make several statements one transaction."""


class SqliteStore:
    """A SQLite database."""

    marker, same, lock = "?", "IS", ""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def rows(self, statement: str, values: t.Sequence[t.Any] = ()) -> list[Row]:
        """Run a query."""
        with _refused_in_words():
            cursor = self.connection.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor]

    def change(self, statement: str, values: t.Sequence[t.Any]) -> int:
        """Run a statement."""
        with _refused_in_words():
            return self.connection.execute(statement, values).rowcount

    def quoted(self, name: str) -> str:
        """Quote a name."""
        return ".".join(sqlite_db.quoted(part) for part in name.split("."))

    @contextlib.contextmanager
    def transaction(self) -> t.Iterator[None]:
        """Keep other writers out from the beginning on."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:  # a trigger may have ended it
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


class PostgresqlStore:
    """A PostgreSQL database."""

    marker, same, lock = "%s", "IS NOT DISTINCT FROM", " FOR UPDATE"

    def __init__(self, session: postgresql.Session) -> None:
        self.session = session

    def rows(self, statement: str, values: t.Sequence[t.Any] = ()) -> list[Row]:
        """Run a query."""
        return t.cast("list[Row]", self.session.rows(statement, list(values) or None))

    def change(self, statement: str, values: t.Sequence[t.Any]) -> int:
        """Run a statement."""
        return self.session.execute(statement, list(values))

    def quoted(self, name: str) -> str:
        """Quote a name."""
        return self.session.identifier(*name.split("."))

    @contextlib.contextmanager
    def transaction(self) -> t.Iterator[None]:
        """See one state of the database from the beginning to the end."""
        with self.session.transaction():
            self.session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            yield


Result = t.TypeVar("Result")


def with_store(rule: Rule, servers: t.Iterable[postgresql.Server], write: bool, work: t.Callable[[Store], Result]) -> Result:
    """Open the database of a rule, for reading only unless it is to be written, and work with it."""
    if rule["server"]:
        server = next(server for server in servers if server["name"] == rule["server"])
        limit = rule["timeout_seconds"]
        with postgresql.connect(server, rule["database"], read_only=not write, statement_timeout_seconds=limit) as session:
            session.set("search_path", 'pg_catalog, "$user", public')
            return work(PostgresqlStore(session))
    if not write:
        return sqlite_db.reading(rule["sqlite"], lambda connection: work(_limited(connection, rule)))
    with sqlite_db.translated(rule["sqlite"]), contextlib.closing(sqlite_db.open_writable(rule["sqlite"])) as connection:
        return work(_limited(connection, rule))


def _limited(connection: sqlite3.Connection, rule: Rule) -> SqliteStore:
    end = time.monotonic() + rule["timeout_seconds"]
    connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    return SqliteStore(connection)


@contextlib.contextmanager
def _refused_in_words() -> t.Iterator[None]:
    """Tell a statement that is wrong from a database that is locked or damaged."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
        if "locked" in str(error) or "busy" in str(error):
            raise
        raise MaintenanceError(f"SQLite refused a statement: {clean(str(error), 200)}; correct the rule.") from None


@dataclass(frozen=True)
class Due:
    """An account that is to be disabled.

    :param before: the values that the rule is about to change.
    :param matches: what the sessions of the account are found by, one value for each declared table.
    """

    entry: Rule
    before: Row
    matches: t.Sequence[t.Any]

    @property
    def name(self) -> str:
        """The account."""
        return str(self.entry["account"])


@dataclass
class Plan:
    """What a rule comes to, and the counts that must agree afterwards.

    :param total: rows of the table.
    :param closed: rows that are disabled already, on the list or not.
    """

    due: list[Due] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    already: int = 0
    admins: frozenset[str] = frozenset()
    total: int = 0
    closed: int = 0


def plan(rule: Rule, store: Store, now: float, lock: bool = False) -> Plan:
    """Decide about every account on the approved list; nothing else of the table is looked at but its counts.

    :raises MaintenanceError: it cannot be told who the administrators are.
    """
    found = _rows_of(rule, store, lock)
    made = Plan(admins=_admins(rule, store), total=_count(rule, store, False), closed=_count(rule, store, True))
    if not made.admins:
        raise MaintenanceError("admin_query returns nobody, so that the last administrator could not be told; correct it.")
    left = set(made.admins)
    for entry in rule["accounts"]:
        rows = [row for row in found if str(row["k"]) == entry["account"]]
        why = _objection(rule, entry, rows, left, now)
        if not why and rows[0]["done"]:
            made.already += 1
        elif why:
            made.refused.append(f"{entry['account']}: {why}")
        else:
            left.discard(entry["account"])
            before = {column: rows[0][f"c{number}"] for number, column in enumerate(rule["set"])}
            made.due.append(Due(entry, before, [rows[0][f"m{number}"] for number in range(len(rule["sessions"]))]))
    return made


def _objection(rule: Rule, entry: Rule, rows: t.Sequence[Row], left: t.Collection[str], now: float) -> str:
    """Say what speaks against disabling an account; empty when nothing does."""
    name = entry["account"]
    if len(rows) != 1:
        return f"{many(len(rows), 'row')} of {rule['table']} have this {rule['key_column']}, expected one"
    if any(fnmatchcase(name.lower(), pattern.lower()) for pattern in rule["protected"]):
        return "it is protected (a service or an account for emergencies)"
    if rows[0]["done"]:
        return ""
    if not set(left) - {name}:
        return "it is the last administrator by admin_query"
    if entry["inactive_days"] and rows[0]["l"] is not None:
        moment = moment_of(rows[0]["l"], now)
        if moment is None:
            return "its last log-in cannot be read"
        if (now - moment) / _DAY < entry["inactive_days"]:
            return f"it logged in {(now - moment) / _DAY:.0f} days ago, approved from {entry['inactive_days']} days on"
    return ""


def _table(rule: Rule, store: Store) -> str:
    return store.quoted(rule["table"])


def _is_closed(rule: Rule, store: Store) -> str:
    return " AND ".join(f"{store.quoted(column)} {store.same} {store.marker}" for column in rule["set"])


def _rows_of(rule: Rule, store: Store, lock: bool = False) -> t.Sequence[Row]:
    """Return the rows of the approved accounts: key, values to change, last log-in, what sessions go by, whether all is done."""
    names = [entry["account"] for entry in rule["accounts"]]
    columns = [f"{store.quoted(rule['key_column'])} AS k"]
    columns += [f"{store.quoted(column)} AS c{number}" for number, column in enumerate(rule["set"])]
    columns += [f"{store.quoted(session['matches'])} AS m{number}" for number, session in enumerate(rule["sessions"])]
    columns += [f"{store.quoted(rule['last_login_column'])} AS l" if rule["last_login_column"] else "NULL AS l"]
    columns += [f"({_is_closed(rule, store)}) AS done"]
    among = ", ".join(store.marker for _name in names)
    statement = f"SELECT {', '.join(columns)} FROM {_table(rule, store)} WHERE {store.quoted(rule['key_column'])} IN ({among})"  # noqa: S608 - quoted
    return store.rows(statement + (store.lock if lock else ""), [*rule["set"].values(), *names])


def _count(rule: Rule, store: Store, closed: bool) -> int:
    condition, values = (f" WHERE {_is_closed(rule, store)}", list(rule["set"].values())) if closed else ("", [])
    return int(store.rows(f"SELECT count(*) AS n FROM {_table(rule, store)}{condition}", values)[0]["n"])  # noqa: S608 - quoted


def _admins(rule: Rule, store: Store) -> frozenset[str]:
    rows = store.rows(bounded(rule["admin_query"]))
    if rows and rule["key_column"] not in rows[0]:
        raise MaintenanceError(f"admin_query returns no column {rule['key_column']}, expected the accounts of administrators; correct it.")
    return frozenset(str(row[rule["key_column"]]) for row in rows)


def apply(rule: Rule, store: Store, now: float) -> tuple[Plan, dict[str, int]]:
    """Disable what is due and end its sessions; return what was done, and how many sessions of whom were ended.

    :raises VerifyError: the counts do not agree; then nothing was changed.
    """
    ended = {}
    with store.transaction():
        made = plan(rule, store, now, lock=True)
        for due in made.due:
            _disable(rule, store, due.name)
            ended[due.name] = sum(_end(session, store, value) for session, value in zip(rule["sessions"], due.matches))
        if made.due:
            _verify(rule, store, made)
    return made, ended


def _assignments(values: t.Mapping[str, t.Any], store: Store) -> str:
    return ", ".join(f"{store.quoted(column)} = {store.marker}" for column in values)


def _disable(rule: Rule, store: Store, name: str) -> None:
    where = f"{store.quoted(rule['key_column'])} = {store.marker}"
    statement = f"UPDATE {_table(rule, store)} SET {_assignments(rule['set'], store)} WHERE {where}"  # noqa: S608 - quoted
    touched = store.change(statement, [*rule["set"].values(), name])
    if touched != 1:
        raise VerifyError(f"{many(touched, 'row')} would have changed for {name}, expected one; nothing was changed.")


def _end(session: Rule, store: Store, value: t.Any) -> int:
    table, where = store.quoted(session["table"]), f"{store.quoted(session['column'])} = {store.marker}"
    if session["set"]:
        statement = f"UPDATE {table} SET {_assignments(session['set'], store)} WHERE {where}"  # noqa: S608 - quoted
        return store.change(statement, [*session["set"].values(), value])
    return store.change(f"DELETE FROM {table} WHERE {where}", [value])  # noqa: S608 - quoted


def _verify(rule: Rule, store: Store, made: Plan) -> None:
    names = {due.name for due in made.due}
    still_open = names - {str(row["k"]) for row in _rows_of(rule, store) if row["done"]}
    total, closed, admins = _count(rule, store, False), _count(rule, store, True), _admins(rule, store)
    wrong = [f"{name} is not disabled" for name in sorted(still_open)]
    wrong += [f"the table has {total} rows, and had {made.total}"] if total != made.total else []
    wrong += [f"{closed} rows are disabled, expected {made.closed + len(names)}"] if closed != made.closed + len(names) else []
    if admins != made.admins - names:
        wrong.append("admin_query does not return the administrators that are left, expected those who may still log in")
    wrong += ["no administrator would be left"] if not admins else []
    if wrong:
        raise VerifyError(f"Nothing was changed, for afterwards {'; '.join(wrong)}. Look at the rule and at triggers of the table.")


def undo_statement(rule: Rule, due: Due) -> str:
    """Return the statement that puts an account back as it was."""
    values = ", ".join(f"{column} = {_literal(value)}" for column, value in due.before.items())
    return f"UPDATE {rule['table']} SET {values} WHERE {rule['key_column']} = {_literal(due.name)}"  # noqa: S608 - for a person to read


def _literal(value: t.Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (bool, int, float)):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"
