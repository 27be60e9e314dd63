# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a restored database in the place of a live one: beside it first, verified there, then both names in one transaction.

A journal says before each step what it is about to do, so that whoever comes after a kill finishes or goes back. Under the live
name there always is a database: the present one until the transaction commits, the restored one from then on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
import time
import typing as t
from dataclasses import dataclass, field

from . import postgresql_facts
from .errors import MaintenanceError, VerifyError
from .host import Host
from .judge import human_bytes
from .paths import ensure_private_folder, read_state, write_state
from .postgresql import (
    CONNECTION_LOST,
    LOCK_NOT_AVAILABLE,
    Server,
    Session,
    StatementError,
    connect,
    place_of,
    socket_folder,
    system_identifier,
)
from .postgresql_blockers import ADVICE, blockers_of, named
from .record import Json

JOURNAL = "postgresql_switch.json"
KEPT = "postgresql_kept.json"
_LOCK = ".postgresql_switch.lock"
_LONGEST_NAME_BYTES = 63
_LONG_SECONDS = 3600.0


@dataclass
class Plan:
    """One database that is to be replaced.

    :param known: the properties that it has to have, as :func:`postgresql_facts.properties` gives them.
    :param source: what is restored, so that a later run knows it again.
    :param fill: restores into the empty database of the given name.
    :param rows: rows that every table has to have; empty where nobody knows.
    :param objects: how many tables, indexes and so on; empty where nobody knows.
    :param sentinels: tables that have to be there.
    """

    server: Server
    database: str
    known: dict[str, Json]
    source: str
    needed_bytes: int
    fill: t.Callable[[str], None]
    rows: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    sentinels: t.Sequence[str] = ()

    @property
    def key(self) -> str:
        """What journal and findings call it."""
        return f"{self.server['name']}/{self.database}"


def kept_name(database: str, run_id: str) -> str:
    """Return the name under which the present database is kept, within PostgreSQL's limit and never that of another."""
    suffix = f"_before_{run_id}"
    if len((database + suffix).encode()) <= _LONGEST_NAME_BYTES:
        return database + suffix
    mark = "_" + hashlib.sha256(database.encode()).hexdigest()[:8]
    room = _LONGEST_NAME_BYTES - len((mark + suffix).encode())
    if room < 1:
        return kept_name(database, hashlib.sha256(run_id.encode()).hexdigest()[:16])
    return database.encode()[:room].decode("utf-8", "ignore") + mark + suffix


def beside(server: Server, database: str, **more: t.Any) -> Session:
    """Open a session with a server, not in the database that is to be renamed."""
    other = server["connect_database"]
    if other == database:
        other = "postgres" if database != "postgres" else "template1"
    return connect(server, other, **more)


def oid_of(session: Session, name: str) -> int:
    """Return the number of a database, 0 when there is none of that name."""
    return int(session.value("SELECT oid::bigint FROM pg_database WHERE datname = %s", [name]) or 0)


@contextlib.contextmanager
def alone(state_dir: str) -> t.Iterator[None]:
    """Keep a second run out, which would take what this one is restoring for a leftover."""
    ensure_private_folder(state_dir)
    lock_fd = os.open(os.path.join(state_dir, _LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MaintenanceError("Another run restores PostgreSQL databases on this host right now; wait for it to end.") from None
        yield
    finally:
        os.close(lock_fd)


# Before anything is changed


def free_bytes(session: Session, server: Server, tablespace: str) -> int | None:
    """Return the room where a database of a tablespace will lie; None where that cannot be seen from here."""
    if not socket_folder(server):
        return None
    try:
        place = str(session.value("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = %s", [tablespace]) or "")
        place = place or str(session.value("SHOW data_directory"))
        room = os.statvfs(place)
    except (StatementError, OSError):
        return None
    return room.f_bavail * room.f_frsize


def obstacles(session: Session, plan: Plan) -> list[str]:
    """Say what would keep the names from being switched, or the restored database from being as the present one was."""
    found = [f"the role {role!r} does not exist any more" for role in postgresql_facts.missing_roles(session, plan.known)]
    prepared = session.value("SELECT count(*) FROM pg_prepared_xacts WHERE database = %s", [plan.database])
    if prepared:
        found.append(f"{prepared} prepared transaction(s) hold it: COMMIT PREPARED or ROLLBACK PREPARED them")
    oid = oid_of(session, plan.database)
    subscriptions = session.value("SELECT count(*) FROM pg_subscription WHERE subenabled AND subdbid::bigint = %s", [oid])
    if subscriptions:
        found.append(f"{subscriptions} subscription(s) write to it: disable them")
    return found


def slots_of(session: Session, database: str) -> list[str]:
    """Name the logical replication slots that belong to a database; they stay with the one that is kept."""
    return [row["slot_name"] for row in session.rows("SELECT slot_name FROM pg_replication_slots WHERE database = %s", [database])]


def users_of(session: Session, oid: int) -> list[str]:
    """Say who is connected to a database, autovacuum aside."""
    statement = (
        "SELECT pid, usename, application_name, coalesce(host(client_addr), 'socket') AS address FROM pg_stat_activity"
        " WHERE datid = %s AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker' ORDER BY pid"
    )
    rows = session.rows(statement, [oid])
    return [f"process {row['pid']}, role {row['usename']} from {row['address']} ({row['application_name'] or 'no name'})" for row in rows]


def in_maintenance(state_dir: str) -> bool:
    """Whether the services of this host are stopped by a run, so that nobody but them can be cut off."""
    return bool(read_state(state_dir, "maintenance.json").get("phase") == "entered")


# Doing


class Switcher:
    """Restores beside and switches, under a journal."""

    def __init__(self, state_dir: str, run_id: str, host: Host) -> None:
        self.state_dir = state_dir
        self.run_id = run_id
        self.host = host

    def entries(self) -> dict[str, dict[str, Json]]:
        """Return what the journal says is under way."""
        return read_state(self.state_dir, JOURNAL)

    def note(self, key: str, **entry: Json) -> dict[str, Json]:
        """Say in the journal what comes next; an empty entry says that nothing is under way."""
        entries = self.entries()
        if entry:
            entries[key] = {**entries.get(key, {}), **entry}
        else:
            entries.pop(key, None)
        write_state(self.state_dir, JOURNAL, entries)
        return entries.get(key, {})

    def settle(self, servers: t.Iterable[Server], resume: t.Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """Finish or undo what a killed run left, and say so by database.

        :param resume: the source by key of what is restored now; what is verified already is left to that.
        """
        by_name = {server["name"]: server for server in servers}
        told = []
        for key, entry in self.entries().items():
            server = by_name.get(entry["server"])
            if server is None:
                raise MaintenanceError(
                    f"A killed run left the restore of {key} at the step {entry['step']}, and the server {entry['server']!r} is not declared "
                    f"now; declare it, or look at {os.path.join(self.state_dir, JOURNAL)}."
                )
            if entry["step"] == "verified" and (resume or {}).get(key) == entry["source"]:
                continue
            told.append((key, self._settle(server, key, entry)))
        return told

    def _settle(self, server: Server, key: str, entry: dict[str, Json]) -> str:
        with beside(server, entry["database"], statement_timeout_seconds=_LONG_SECONDS) as session:
            if system_identifier(session) != entry["system_identifier"]:
                raise MaintenanceError(
                    f"A killed run left the restore of {key} on the cluster {entry['system_identifier']}, and {session.where} is another; "
                    f"look at {os.path.join(self.state_dir, JOURNAL)}."
                )
            _end_leftovers(session, entry)
            if entry.get("scratch_oid") and oid_of(session, entry["database"]) == entry["scratch_oid"]:
                self._finish(key, entry)
                return "finished"
            self._drop_scratch(session, entry)
        self.note(key)
        return "undone"

    def _drop_scratch(self, session: Session, entry: t.Mapping[str, Json]) -> None:
        oid = oid_of(session, entry["scratch"])
        if oid and entry.get("scratch_oid", oid) == oid:
            session.execute(f"DROP DATABASE {session.identifier(entry['scratch'])} WITH (FORCE)")

    def stage(self, plan: Plan) -> str:
        """Restore beside the live database and verify it there; a verified one of a killed run is used again.

        :raises VerifyError: what was restored is not what was expected; it is gone again.
        """
        left = self.entries().get(plan.key)
        if left and left["step"] == "verified" and left["source"] == plan.source:
            with beside(plan.server, plan.database) as session:
                if oid_of(session, left["scratch"]) == left["scratch_oid"]:
                    return str(left["scratch"])
            self.note(plan.key)
        scratch = f"ops_restore_{secrets.token_hex(6)}"
        with beside(plan.server, plan.database, statement_timeout_seconds=_LONG_SECONDS) as session:
            entry = self.note(
                plan.key,
                server=plan.server["name"],
                database=plan.database,
                system_identifier=system_identifier(session),
                scratch=scratch,
                source=plan.source,
                run_id=self.run_id,
                step="creating",
                time=self.host.now().isoformat(),
            )
            try:
                postgresql_facts.create(session, scratch, plan.known)
                entry = self.note(plan.key, step="restoring", scratch_oid=oid_of(session, scratch))
                plan.fill(scratch)
                self._verify(plan, scratch)
                postgresql_facts.apply(session, scratch, plan.known)
                self.note(plan.key, step="verified")
            except BaseException as error:
                self._give_up(plan, entry, error)
                raise
        return scratch

    def _give_up(self, plan: Plan, entry: dict[str, Json], error: BaseException) -> None:
        """Leave nothing of a restore that failed; where the server is gone, the journal stays for the next run."""
        with contextlib.suppress(MaintenanceError):
            self._settle(plan.server, plan.key, entry)
        if isinstance(error, StatementError) and error.sqlstate == CONNECTION_LOST:
            raise MaintenanceError(f"{error} The live database was not touched; the next run clears up.") from error

    def _verify(self, plan: Plan, scratch: str) -> None:
        with connect(plan.server, scratch, statement_timeout_seconds=0) as session:
            session.execute("ANALYZE")
            problems = postgresql_facts.row_problems(session, plan.rows)
            now = postgresql_facts.objects(session) if plan.objects else {}
            problems += [f"{now[name]} {name}, expected {count}" for name, count in plan.objects.items() if now[name] != count]
            problems += [f"the index {name} is invalid" for name in postgresql_facts.invalid_indexes(session)]
            missing = [name for name in plan.sentinels if not postgresql_facts.table_of(session, name)]
            problems += [f"there is no table {name}" for name in missing]
        if problems:
            raise VerifyError(
                f"What was restored for {plan.key} is not what was expected: {'; '.join(problems[:5])}. "
                "It was dropped again; the live database was not touched."
            )

    def switch(self, plan: Plan, scratch: str) -> str:
        """Give the restored database the live name and keep the present one under another, as one transaction.

        :returns: the name of the database that is kept; empty when there was none.
        """
        with beside(plan.server, plan.database) as session:
            live_oid = oid_of(session, plan.database)
            kept = self._free_name(session, plan.database) if live_oid else ""
            entry = self.note(plan.key, step="switching", kept=kept, live_oid=live_oid)
        try:
            self._exchange(plan, scratch, entry)
        except MaintenanceError as error:
            with contextlib.suppress(MaintenanceError):
                if self._settle(plan.server, plan.key, entry) == "finished":
                    return kept
            raise MaintenanceError(f"The names of {plan.key} were not switched: {error}") from error
        self._finish(plan.key, entry)
        return kept

    def _free_name(self, session: Session, database: str) -> str:
        name = kept_name(database, self.run_id)
        for attempt in range(2, 100):
            if not oid_of(session, name):
                return name
            name = kept_name(database, f"{self.run_id}_{attempt}")
        raise MaintenanceError(f"There are 98 databases kept as {name!r} already; drop some of them.")

    def _exchange(self, plan: Plan, scratch: str, entry: t.Mapping[str, Json]) -> None:
        """Rename both in one transaction.

        Renaming locks the database: who connects now waits until it is over and then gets the restored one. PostgreSQL gives those
        who are connected five seconds, and a second session ends them meanwhile, where that is allowed.
        """
        with beside(plan.server, plan.database) as session, beside(plan.server, plan.database) as helper:
            live, kept, new = (session.identifier(name) for name in (plan.database, entry["kept"] or scratch, scratch))
            statements = [f"ALTER DATABASE {new} RENAME TO {live}"]
            if entry["live_oid"]:
                statements = [
                    f"ALTER DATABASE {live} RENAME TO {kept}",
                    f"ALTER DATABASE {kept} ALLOW_CONNECTIONS false",
                    *statements,
                ]
            # Where the server commits late by default, a crash could take the switch back after the journal was closed.
            session.set("synchronous_commit", "on")
            ended = [entry["scratch_oid"], *([entry["live_oid"]] if in_maintenance(self.state_dir) else [])]
            failures: list[MaintenanceError] = []
            blockers: dict[int, str] = {}
            pid = int(session.value("SELECT pg_backend_pid()"))

            def rename() -> None:
                try:
                    with session.transaction():
                        for statement in statements:
                            session.execute(statement)
                except MaintenanceError as error:
                    failures.append(error)

            worker = threading.Thread(target=rename)
            worker.start()
            while worker.is_alive():
                worker.join(0.05)
                with contextlib.suppress(StatementError):
                    blockers.update({row["pid"]: row["who"] for row in blockers_of(helper, [pid])})
                    helper.rows(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = ANY(%s::bigint[]::oid[])"
                        " AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'",
                        [ended],
                    )
            for failure in failures:
                if isinstance(failure, StatementError) and failure.sqlstate == LOCK_NOT_AVAILABLE:
                    raise MaintenanceError(f"no lock in time, {named(blockers.values())}; {ADVICE}.") from failure
                raise failure

    def _finish(self, key: str, entry: t.Mapping[str, Json]) -> None:
        """Keep in mind which database was kept, then close the journal."""
        kept = read_state(self.state_dir, KEPT)
        mine = [one for one in kept.get(entry["server"], []) if one["restored_oid"] != entry["scratch_oid"]]
        one = {name: entry[name] for name in ("database", "kept", "source", "run_id")}
        one.update(kept_oid=entry["live_oid"], restored_oid=entry["scratch_oid"], time=self.host.now().isoformat())
        write_state(self.state_dir, KEPT, {**kept, entry["server"]: [*mine, one]})
        self.note(key)

    def is_in_place(self, session: Session, plan: Plan) -> bool:
        """Whether this source was put in place of the database already, and is there still."""
        done = read_state(self.state_dir, KEPT).get(plan.server["name"], [])
        oid = oid_of(session, plan.database)
        return any(one["source"] == plan.source and one["restored_oid"] == oid for one in done if one["database"] == plan.database)


def _end_leftovers(session: Session, entry: t.Mapping[str, Json]) -> None:
    """End what the server still does for a client that was killed: it would create or rename after we looked."""
    names = [session.identifier(entry["scratch"]), session.identifier(entry.get("kept") or entry["scratch"])]
    statement = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state <> 'idle'"
        " AND (position(%s IN query) > 0 OR position(%s IN query) > 0)"
    )
    for _attempt in range(100):
        if not session.value(statement, names):
            return
        time.sleep(0.1)
    raise MaintenanceError(f"{session.where} still works for a killed run on {entry['scratch']}; end that process, then run again.")


class Kept(t.NamedTuple):
    """A database that was kept when another took its place."""

    name: str
    database: str
    time: str
    size: int
    oid: int


def kept_databases(session: Session, server: Server, state_dir: str) -> list[Kept]:
    """Return the databases of a server that restores kept and that are there still, oldest first."""
    found = []
    for one in read_state(state_dir, KEPT).get(server["name"], []):
        if one["kept_oid"] and oid_of(session, one["kept"]) == one["kept_oid"]:
            size = int(session.value("SELECT pg_database_size(%s::bigint::oid)", [one["kept_oid"]]))
            found.append(Kept(one["kept"], one["database"], one["time"], size, one["kept_oid"]))
    return sorted(found, key=lambda kept: kept.time)


def require_room(session: Session, plan: Plan, reserve: int) -> bool:
    """Refuse where there is too little room beside the live database; return whether that could be seen.

    :raises MaintenanceError: there is too little.
    """
    free = free_bytes(session, plan.server, plan.known["tablespace"])
    if free is None:
        return False
    needed = plan.needed_bytes + reserve
    if free < needed:
        room, wanted = human_bytes(free), human_bytes(needed)
        raise MaintenanceError(
            f"{place_of(plan.server)} has {room} free, expected at least {wanted} for restoring {plan.database!r} beside the live one; "
            "nothing was changed. Make room and run again."
        )
    return True
