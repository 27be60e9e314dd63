# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store keeps all runs, for trends and for comparing a run with the one before.

SQLite file by default, any database that SQLAlchemy knows by its URL. A journal stays the original: the store can be
made anew from the journals at any time with :meth:`Store.save_run`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils.redact import redact_text

try:
    import sqlalchemy as sa
    from sqlalchemy import event
    from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError

    HAS_SQLALCHEMY = True
except ImportError:
    HAS_SQLALCHEMY = False

Line = dict[str, Any]
_WAIT_SECONDS = 60
_BATCH = 2000
_DRIVERLESS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}

if HAS_SQLALCHEMY:
    _META = sa.MetaData()
    _NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    # MySQL and MariaDB cannot index texts without a length
    _KEY = sa.String(255)

    VERSIONS = sa.Table(
        "schema_version",
        _META,
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("applied", sa.String(40), nullable=False),
    )
    RUNS = sa.Table(
        "runs",
        _META,
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("run_id", _KEY, nullable=False, unique=True),
        sa.Column("cadence", _KEY, nullable=False),
        sa.Column("playbook", sa.Text, nullable=False),
        sa.Column("check_mode", sa.Boolean, nullable=False),
        sa.Column("started", sa.String(40), nullable=False, index=True),
        sa.Column("finished", sa.String(40), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("performed_by", sa.Text, nullable=False),
        sa.Column("lines", sa.Integer, nullable=False),
        sa.Column("last_hash", sa.String(64), nullable=False),
    )

    def _part(name: str, *columns: sa.Column[Any], index: Sequence[str] = ()) -> sa.Table:
        """Make a table whose rows belong to one line of a run and go with it."""
        return sa.Table(
            name,
            _META,
            sa.Column("run", _NUMBER, sa.ForeignKey("runs.number", ondelete="CASCADE"), nullable=False),
            sa.Column("seq", sa.Integer, nullable=False),
            sa.Column("host", _KEY, nullable=False),
            sa.Column("system", _KEY, nullable=False),
            *columns,
            sa.Index(f"ix_{name}_run", "run", "seq"),
            *([sa.Index(f"ix_{name}_series", *index)] if index else []),
        )

    RECORDS = _part(
        "records",
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("role", _KEY, nullable=False),
        sa.Column("phase", sa.String(100), nullable=False),
        sa.Column("operation", _KEY, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("seconds", sa.Float, nullable=True),
        sa.Column("body", sa.Text, nullable=False),
        index=("role", "run", "host", "seconds"),
    )
    FINDINGS = _part(
        "findings",
        sa.Column("role", _KEY, nullable=False),
        sa.Column("id", _KEY, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("value", sa.Float, nullable=True),
        sa.Column("unit", sa.String(40), nullable=False),
        sa.Column("waived", sa.Boolean, nullable=False),
        index=("id", "run"),
    )
    METRICS = _part(
        "metrics",
        sa.Column("name", _KEY, nullable=False),
        sa.Column("subject", sa.String(500), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("unit", sa.String(40), nullable=False),
        index=("name", "run", "host", "value"),
    )
    OUTCOMES = _part(
        "outcomes",
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("downtime_seconds", sa.Float, nullable=True),
        sa.Column("services_restored", sa.Boolean, nullable=True),
        sa.Column("rollback_required", sa.Boolean, nullable=True),
        index=("system", "run"),
    )
    _PARTS = (RECORDS, FINDINGS, METRICS, OUTCOMES)


def _version_1(connection: Any) -> None:
    _META.create_all(connection, checkfirst=True)


MIGRATIONS = (_version_1,)
"""One function a version, in order. A released one never changes: what comes later is a further function."""


class Store:
    """The database of all runs.

    :param url: SQLAlchemy URL, such as ``sqlite:////var/lib/ops/store.sqlite`` or ``postgresql://host/maintenance``.
    :raises InputError: the URL names no database that SQLAlchemy can open.
    :raises MaintenanceError: SQLAlchemy or the driver is missing, or the database does not answer.
    """

    def __init__(self, url: str) -> None:
        if not HAS_SQLALCHEMY:
            raise MaintenanceError(
                "The store needs the Python package SQLAlchemy (2.0 or newer) on the control node; "
                "install it, or switch the store off with an empty OPS_MAINTENANCE_STORE_URL."
            )
        self._engine = _engine(url)
        self.name = self._engine.url.render_as_string(hide_password=True)
        with self._clear("opened"):
            self._migrate()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _clear(self, verb: str) -> Iterator[None]:
        """Say errors of the database as one sentence without the password."""
        try:
            yield
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
            said = redact_text(" ".join(str(cause).split()))[:300]
            raise MaintenanceError(
                f"The store {self.name} could not be {verb} ({said}); the journals are whole, correct the store and save them again."
            ) from error

    @contextlib.contextmanager
    def _write(self) -> Iterator[Any]:
        with self._engine.connect().execution_options(ops_begin="BEGIN IMMEDIATE") as connection, connection.begin():
            if connection.dialect.name == "postgresql":  # one writer at a time, as SQLite does by itself
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7146330)")
            yield connection

    def _migrate(self) -> None:
        with self._engine.connect() as connection:
            if sa.inspect(connection).has_table("schema_version") and self._version(connection) == len(MIGRATIONS):
                return
        with self._write() as connection:
            VERSIONS.create(connection, checkfirst=True)
            known = self._version(connection)
            for number in range(known + 1, len(MIGRATIONS) + 1):
                MIGRATIONS[number - 1](connection)
                connection.execute(VERSIONS.insert(), {"version": number, "applied": datetime.now(UTC).isoformat()})

    def _version(self, connection: Any) -> int:
        version = connection.scalar(sa.select(sa.func.max(VERSIONS.c.version))) or 0
        if version > len(MIGRATIONS):
            raise MaintenanceError(
                f"The store {self.name} has schema version {version}, this collection knows up to {len(MIGRATIONS)}; "
                "update the collection on this control node."
            )
        return int(version)

    def save_run(self, journal_lines: Sequence[Line]) -> None:
        """Keep a run, from the lines of its journal; one that is kept already is replaced.

        :raises InputError: the first line is not the beginning of a run.
        """
        first = journal_lines[0] if journal_lines else {}
        if first.get("kind") != "run" or not first.get("run_id"):
            raise InputError.of("journal", first.get("kind"), "lines that begin with one of kind run", "give a whole journal")
        with self._clear("written"):
            try:
                self._save(first, journal_lines)
            except IntegrityError:  # another process saved the same run between our look and our insert
                self._save(first, journal_lines)

    def has_run(self, run_id: str) -> bool:
        """Whether a run is kept."""
        return bool(self._read(sa.select(RUNS.c.number).where(RUNS.c.run_id == run_id)))

    def mismatch(self, journal_lines: Sequence[Line]) -> str:
        """Say how a journal differs from what was kept of its run, empty where it does not or nothing is kept.

        It finds what a chain alone cannot: a journal that was made anew from some line on, or lost its last lines.
        A journal that only went on since (somebody signed) does not differ.
        """
        run_id = journal_lines[0]["run_id"] if journal_lines else ""
        kept = self._read(sa.select(RUNS.c.lines, RUNS.c.last_hash).where(RUNS.c.run_id == run_id))
        if not kept:
            return ""
        count, last_hash = kept[0]["lines"], kept[0]["last_hash"]
        if len(journal_lines) >= count and journal_lines[count - 1].get("hash") == last_hash:
            return ""
        return f"the store kept {count} lines of this run, which are not the first {count} of the journal's {len(journal_lines)}"

    def _save(self, first: Line, lines: Sequence[Line]) -> None:
        with self._write() as connection:
            self._forget(connection, first["run_id"])
            done = connection.execute(RUNS.insert(), _run_row(first, lines))
            number = done.inserted_primary_key[0]
            for table, rows in _rows(number, lines):
                for start in range(0, len(rows), _BATCH):
                    connection.execute(table.insert(), rows[start : start + _BATCH])

    def _forget(self, connection: Any, run_id: str) -> None:
        number = connection.scalar(sa.select(RUNS.c.number).where(RUNS.c.run_id == run_id))
        if number is not None:
            for table in _PARTS:
                connection.execute(table.delete().where(table.c.run == number))
            connection.execute(RUNS.delete().where(RUNS.c.number == number))

    def _read(self, query: Any) -> list[Line]:
        with self._clear("read"), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def runs(self, *, since: str = "", until: str = "", cadence: str = "", system: str = "", limit: int = 0) -> list[Line]:
        """Return the runs of a span, oldest first; with ``limit``, the newest of them.

        :param since: ISO 8601 in UTC, included.
        :param until: ISO 8601 in UTC, not included.
        """
        query = (
            sa.select(*_run_columns()).where(*_span(since, until, cadence, system)).order_by(RUNS.c.started.desc(), RUNS.c.number.desc())
        )
        return self._read(query.limit(limit) if limit else query)[::-1]

    def previous_run(self, before: str, *, cadence: str = "", system: str = "", real_only: bool = True) -> Line | None:
        """Return the last run that started before a time (ISO 8601 in UTC), ``None`` when there is none.

        :param real_only: leave check mode runs out.
        """
        query = sa.select(*_run_columns()).where(*_span("", before, cadence, system)).order_by(RUNS.c.started.desc(), RUNS.c.number.desc())
        found = self._read((query.where(RUNS.c.check_mode.is_(False)) if real_only else query).limit(1))
        return found[0] if found else None

    def lines_of(self, run_id: str, hosts: Collection[str] = (), operations: Collection[str] = ()) -> list[Line]:
        """Return the lines of a run, as its journal had them.

        :param hosts: besides the run and its plans, the lines of these hosts only; of all, where they are very many.
        :param operations: likewise of these operations only.
        """
        r = RECORDS.c
        query = sa.select(r.body).join(RUNS).where(RUNS.c.run_id == run_id).order_by(r.seq)
        for column, wanted in ((r.host, hosts), (r.operation, operations)):
            if 0 < len(wanted) <= _BATCH:
                query = query.where(sa.or_(column.in_([_text(name, 255) for name in wanted]), r.kind.in_(("run", "plan"))))
        return [json.loads(row["body"]) for row in self._read(query)]

    def findings_of(self, run_id: str) -> list[Line]:
        """Return what compares two runs: system, host, role, id, subject, state, summary, value, unit, waived."""
        f = FINDINGS.c
        columns = (f.system, f.host, f.role, f.id, f.subject, f.state, f.summary, f.value, f.unit, f.waived)
        return self._read(sa.select(*columns).join(RUNS).where(RUNS.c.run_id == run_id).order_by(f.seq))

    def outcomes_of(self, run_id: str) -> list[Line]:
        """Return how each host of a run ended."""
        o = OUTCOMES.c
        columns = (o.system, o.host, o.outcome, o.reason, o.downtime_seconds, o.services_restored, o.rollback_required)
        return self._read(sa.select(*columns).join(RUNS).where(RUNS.c.run_id == run_id).order_by(o.seq))

    def metric_names(self, *, since: str = "", cadence: str = "", system: str = "") -> list[Line]:
        """Return the names of metrics with their unit and how many points they have."""
        m = METRICS.c
        query = sa.select(m.name, sa.func.min(m.unit).label("unit"), sa.func.count().label("points")).join(RUNS)
        return self._read(query.where(*_span(since, "", cadence, ""), *_equal(m, system=system)).group_by(m.name).order_by(m.name))

    def history(
        self,
        name: str,
        *,
        host: str = "",
        subject: str | None = None,
        system: str = "",
        since: str = "",
        until: str = "",
        cadence: str = "",
    ) -> list[Line]:
        """Return every point of a metric over time: run_id, time, system, host, subject, value, unit."""
        m = METRICS.c
        columns = (RUNS.c.run_id, RUNS.c.started.label("time"), m.system, m.host, m.subject, m.value, m.unit)
        where = [m.name == name, *_equal(m, host=host, system=system), *_span(since, until, cadence, "")]
        if subject is not None:
            where.append(m.subject == subject)
        return self._read(sa.select(*columns).join(RUNS).where(*where).order_by(RUNS.c.started, m.host, m.subject))

    def trends(self, *, names: Sequence[str] = (), system: str = "", since: str = "", until: str = "", cadence: str = "") -> list[Line]:
        """Return each metric over time, summed up over hosts and subjects: name, run_id, time, low, mean, high, points, unit."""
        m, value = METRICS.c, METRICS.c.value
        summed = (
            sa.select(
                m.name,
                m.run,
                sa.func.min(value).label("low"),
                sa.func.avg(value).label("mean"),
                sa.func.max(value).label("high"),
                sa.func.count().label("points"),
            )
            .where(*_equal(m, system=system), *([m.name.in_(names)] if names else []))
            .group_by(m.name, m.run)
            .subquery()
        )
        columns = (RUNS.c.run_id, RUNS.c.started.label("time"), *(column for column in summed.c if column.name != "run"))
        query = sa.select(*columns).join(RUNS, RUNS.c.number == summed.c.run).where(*_span(since, until, cadence, ""))
        found = self._read(query.order_by(summed.c.name, RUNS.c.started))
        units = {row["name"]: row["unit"] for row in self._units([row["name"] for row in found])}
        return [{**row, "unit": units.get(row["name"], "")} for row in found]

    def _units(self, names: Iterable[str]) -> list[Line]:
        """Return the unit of each name, from one of its points."""
        parts = [sa.select(METRICS.c.name, METRICS.c.unit).where(METRICS.c.name == name).limit(1).subquery() for name in sorted(set(names))]
        return [row for part in parts for row in self._read(sa.select(part))]

    def step_durations(
        self, *, role: str = "", host: str = "", system: str = "", since: str = "", until: str = "", cadence: str = ""
    ) -> list[Line]:
        """Return how long each role took on each host in each run, built-in tasks included: run_id, time, role, system, host, seconds.

        Runs in check mode are left out: they say nothing of what the real work takes.
        """
        r = RECORDS.c
        seconds = sa.func.sum(r.seconds).label("seconds")
        where = [r.kind == "step", r.role != "", r.seconds.is_not(None), RUNS.c.check_mode.is_(False)]
        query = (
            sa.select(RUNS.c.run_id, RUNS.c.started.label("time"), r.role, r.system, r.host, seconds)
            .join(RUNS)
            .where(*where, *_equal(r, role=role, host=host, system=system), *_span(since, until, cadence, ""))
            .group_by(RUNS.c.run_id, RUNS.c.started, r.role, r.system, r.host)
            .order_by(RUNS.c.started, r.role, r.host)
        )
        return self._read(query)

    def last_durations(self, system: str, *, cadence: str = "", runs: int) -> list[Line]:
        """Return how long each role took on each host of a system in its last real runs: role, host, seconds, changed."""
        where = [RUNS.c.check_mode.is_(False), *_span("", "", cadence, system)]
        newest = self._read(sa.select(RUNS.c.number).where(*where).order_by(RUNS.c.started.desc(), RUNS.c.number.desc()).limit(runs))
        r = RECORDS.c
        changed = sa.func.max(sa.case((r.status == "changed", 1), else_=0)).label("changed")
        # A step counts what leaves no record, too; a run that was killed in it has only the records.
        step, record = (sa.func.sum(sa.case((r.kind == kind, r.seconds), else_=0)) for kind in ("step", "record"))
        seconds = sa.case((step > record, step), else_=record).label("seconds")
        query = (
            sa.select(r.role, r.host, seconds, changed)
            .where(r.run.in_([row["number"] for row in newest]), r.kind.in_(("step", "record")), r.role != "", r.seconds.is_not(None))
            .where(r.system == system)
            .group_by(r.run, r.role, r.host)
        )
        return self._read(query)


def _engine(url: str) -> Any:
    scheme, separator, rest = url.partition("://")
    try:
        address = sa.make_url(_DRIVERLESS.get(scheme, scheme) + separator + rest)
        engine = sa.create_engine(address, **_options(address))
    except (ArgumentError, NoSuchModuleError, ValueError):
        expected = "an SQLAlchemy URL such as sqlite:////var/lib/ops_maintenance/store.sqlite"
        raise InputError.of("store_url", redact_text(url), expected, "correct OPS_MAINTENANCE_STORE_URL") from None
    except ImportError as error:
        raise MaintenanceError(f"The store needs the Python package {error.name} on the control node; install it.") from error
    if address.get_backend_name() == "sqlite":
        _prepare_sqlite(engine, address.database or "")
    return engine


def _options(address: Any) -> dict[str, Any]:
    if address.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _WAIT_SECONDS}}
    return {"pool_pre_ping": True}


def _prepare_sqlite(engine: Any, path: str) -> None:
    """Let several processes share the file: write-ahead log, patience, and our own BEGIN."""
    if path and not path.startswith("file:"):
        _private_file(os.path.expanduser(path))

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would begin by itself, and too late
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_WAIT_SECONDS * 1000}")
        _into_wal_mode(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("ops_begin", "BEGIN"))


def _into_wal_mode(cursor: Any) -> None:
    """Switch to the write-ahead log; while another process does the same, SQLite answers busy without waiting."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _private_file(path: str) -> None:
    """Make the folder and the file with modes for their owner only; a file that is there keeps its mode."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise MaintenanceError(f"The store {path} cannot be opened ({error.strerror}); correct the path or its owner.") from error


def _run_columns() -> list[Any]:
    return [column for column in RUNS.c if column.name != "number"]


def _equal(columns: Any, **values: str) -> list[Any]:
    return [columns[name] == value for name, value in values.items() if value]


def _span(since: str, until: str, cadence: str, system: str) -> list[Any]:
    where = _equal(RUNS.c, cadence=cadence)
    if since:
        where.append(RUNS.c.started >= _utc(since))
    if until:
        where.append(RUNS.c.started < _utc(until))
    if system:
        where.append(sa.exists().where(OUTCOMES.c.run == RUNS.c.number, OUTCOMES.c.system == system))
    return where


def _utc(moment: str) -> str:
    """Return a time in the one form that compares as text."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        raise InputError.of("time", moment, "ISO 8601 such as 2026-11-21T02:00:00+00:00", "correct it") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def _run_row(first: Line, lines: Sequence[Line]) -> Line:
    end = next((line for line in reversed(lines) if line["kind"] == "end"), None)
    return {
        "run_id": first["run_id"],
        "cadence": _text(first.get("cadence", ""), 255),
        "playbook": _text(first.get("playbook", "")),
        "check_mode": bool(first.get("check_mode")),
        "started": _utc(str(first.get("started") or first["time"])),
        "finished": _utc(str(end.get("finished") or end["time"])) if end else "",
        "status": str(end.get("status", "")) if end else "interrupted",
        "performed_by": _text(first.get("performed_by", "")),
        "lines": len(lines),
        "last_hash": str(lines[-1].get("hash", "")),
    }


def _rows(run: int, lines: Sequence[Line]) -> Iterator[tuple[Any, list[Line]]]:
    """Yield the rows of every table."""
    records, findings, metrics, outcomes = [], [], [], []
    for line in lines:
        place = {"run": run, "seq": line["seq"], "host": _text(line.get("host", ""), 255), "system": _text(line.get("system", ""), 255)}
        records.append({**place, **_record_row(line)})
        role = _text(line.get("role", ""), 255)
        findings += [{**place, "role": role, **_finding_row(item)} for item in line.get("findings", [])]
        metrics += [{**place, **_metric_row(item)} for item in line.get("metrics", []) if _number(item.get("value")) is not None]
        if line["kind"] == "outcome":
            outcomes.append({**place, **_outcome_row(line)})
    yield RECORDS, records
    yield FINDINGS, findings
    yield METRICS, metrics
    yield OUTCOMES, outcomes


def _record_row(line: Line) -> Line:
    return {
        "kind": line["kind"],
        "role": _text(line.get("role", ""), 255),
        "phase": _text(line.get("phase", ""), 100),
        "operation": _text(line.get("operation", ""), 255),
        "status": _text(line.get("status", ""), 20),
        "seconds": seconds_of(line),
        "body": json.dumps(line, ensure_ascii=False, separators=(",", ":")),
    }


def seconds_of(line: Mapping[str, Any]) -> float | None:
    """Return how long the work of a record or a step took, ``None`` where it does not say."""
    try:
        elapsed = datetime.fromisoformat(line["finished"]) - datetime.fromisoformat(line["started"])
    except (KeyError, TypeError, ValueError):
        return None
    return max(0.0, elapsed.total_seconds())


def _finding_row(item: Line) -> Line:
    return {
        "id": _text(item["id"], 255),
        "state": item["state"],
        "subject": _text(item.get("subject", "")),
        "summary": _text(item.get("summary", "")),
        "value": _number(item.get("value")),
        "unit": _text(item.get("unit", ""), 40),
        "waived": bool(item.get("waived")),
    }


def _metric_row(item: Line) -> Line:
    return {
        "name": _text(item["name"], 255),
        "subject": _text(item.get("subject", ""), 500),
        "value": _number(item["value"]),
        "unit": _text(item.get("unit", ""), 40),
    }


def _outcome_row(line: Line) -> Line:
    return {
        "outcome": line["outcome"],
        "reason": _text(line.get("reason", "")),
        "downtime_seconds": _number(line.get("downtime_seconds")),
        "services_restored": line.get("services_restored"),
        "rollback_required": line.get("rollback_required"),
    }


def _text(value: Any, limit: int | None = None) -> str:
    """Return a text that every database can hold, PostgreSQL's dislike of NUL included."""
    return str(value)[:limit].replace("\0", "\\0")[:limit]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)
