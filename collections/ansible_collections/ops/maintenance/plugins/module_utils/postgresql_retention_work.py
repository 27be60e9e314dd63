# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: S608 - names are quoted by the driver, values are parameters
"""Count and move the rows that a retention rule means: each batch is one transaction, so that no row is lost or doubled."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import postgresql
from .errors import MaintenanceError
from .host import Host
from .postgresql import Session, StatementError
from .postgresql_retention_rules import Named, rows_to_keep
from .postgresql_retention_tables import Facts, Reference

BIG_TABLE_ROWS = 100_000
"""From so many rows on, a condition without an index is a burden for the server."""

_TRY_AGAIN = ("40P01", "40001")  # deadlock, serialization failure
_ATTEMPTS = 3
_IDLE_BATCHES = 3


class Terms:
    """The conditions of one rule as SQL, with parameters whose names no other rule has."""

    def __init__(self, session: Session, facts: Facts, number: int) -> None:
        self._session = session
        self._facts = facts
        rule, start = facts.rule, f"r{number}_"
        self.params: dict[str, t.Any] = {f"{start}cutoff": facts.cutoff, f"{start}null_cutoff": facts.null_cutoff or None}
        self._cutoff = f"%({start}cutoff)s::{facts.kind_of(rule.column)}"
        self._null_cutoff = f"%({start}null_cutoff)s::{facts.kind_of(rule.null_column)}" if rule.null_column else ""
        self._equals = []
        for place, (name, value) in enumerate(rule.equals):
            self.params[f"{start}equal{place}"] = value
            self._equals.append((name, f"%({start}equal{place})s"))

    def name(self, *parts: str) -> str:
        """Quote a name for a statement that has parameters."""
        return self._session.identifier(*parts).replace("%", "%%")

    @property
    def parts(self) -> list[str]:
        """The columns whose age counts: rows with the first, and rows with only the second."""
        return [column for column in (self._facts.rule.column, self._facts.rule.null_column) if column]

    def kind(self, column: str) -> str:
        """Return what a value of a column is cast to."""
        return self._facts.kind_of(column)

    def part(self, alias: str, column: str) -> str:
        """Return the condition for the rows whose age one column tells."""
        if column == self._facts.rule.column:
            own = f"{alias}.{self.name(column)} < {self._cutoff}"
        else:
            own = f"{alias}.{self.name(self._facts.rule.column)} IS NULL AND {alias}.{self.name(column)} < {self._null_cutoff}"
        return f"({own}{self._same(alias)})"

    def due(self, alias: str) -> str:
        """Return the condition for all rows that the rule means; never NULL."""
        return "COALESCE(" + " OR ".join(self.part(alias, column) for column in self.parts) + ", false)"

    def ageless(self, alias: str) -> str:
        """Return the condition for rows that have no age, so that they never match."""
        return "(" + " AND ".join(f"{alias}.{self.name(column)} IS NULL" for column in self.parts) + self._same(alias) + ")"

    def _same(self, alias: str) -> str:
        return "".join(f" AND {alias}.{self.name(name)} = {value}" for name, value in self._equals)

    def refers(self, reference: Reference, alias: str, leaving: t.Mapping[int, Terms]) -> str:
        """Return the condition that a row is referred to, by rows that do not leave themselves.

        :param leaving: rules of child tables, by the table's oid, whose rows are gone by then.
        """
        pairs = " AND ".join(f"{alias}.{self.name(own)} {operator} child.{self.name(other)}" for own, operator, other in reference.pairs)
        rest = f" AND NOT {leaving[reference.child_oid].due('child')}" if reference.child_oid in leaving else ""
        return f"EXISTS (SELECT FROM {self.name(*reference.child)} AS child WHERE {pairs}{rest})"


@dataclass
class Plan:
    """What a rule would do to its table, and what speaks against it.

    :param refused: reasons, each a sentence with advice, by finding id.
    """

    facts: Facts
    terms: Terms
    leaving: t.Mapping[int, Terms] = field(default_factory=dict)
    due: int = 0
    removable: int = 0
    ageless: int = 0
    doubled: int = 0
    total: float = 0
    exact: bool = True
    kept_enough: bool = True
    counted: bool = False
    held_by: dict[str, int] = field(default_factory=dict)

    @property
    def holding(self) -> list[Reference]:
        """The foreign keys that keep a row from being removed."""
        allowed = self.facts.rule.options["allow_cascade"]
        return [reference for reference in self.facts.references if not (reference.reaches_on and allowed)]

    @property
    def params(self) -> dict[str, t.Any]:
        """The parameters of every statement about this rule."""
        merged = dict(self.terms.params)
        for terms in self.leaving.values():
            merged.update(terms.params)
        return merged

    def free(self, alias: str, after_children: bool = False) -> str:
        """Return the condition that no foreign key holds a row."""
        leaving = self.leaving if after_children else {}
        return "".join(f" AND NOT {self.terms.refers(reference, alias, leaving)}" for reference in self.holding)

    @property
    def scan_needed(self) -> list[str]:
        """Columns without which an index every batch would read a big table from end to end."""
        table, missing = self.facts.source, []
        if table.rows > BIG_TABLE_ROWS:
            missing = [f"{'.'.join(table.named)} ({column})" for column in self.terms.parts if column not in table.indexed]
        for reference in self.facts.references:
            if reference.rows > BIG_TABLE_ROWS and not reference.indexed:
                missing.append(f"{'.'.join(reference.child)} ({', '.join(pair[2] for pair in reference.pairs)})")
        return missing


def count(session: Session, plan: Plan, after_children: bool) -> None:
    """Count the rows that are due, that may go, that are held, and that have no age."""
    terms, facts, rule = plan.terms, plan.facts, plan.facts.rule
    table = f"{terms.name(*rule.table)} AS t"
    due = terms.due("t")

    def ask(condition: str) -> int:
        return int(session.value(f"SELECT count(*) FROM {table} WHERE {condition}", plan.params))

    plan.due = ask(due)
    plan.removable = ask(due + plan.free("t", after_children)) if plan.holding and plan.due else plan.due
    plan.ageless = ask(terms.ageless("t"))
    leaving = plan.leaving if after_children else {}
    plan.held_by = {}
    if plan.removable < plan.due:
        for reference in plan.holding:
            held = ask(f"{due} AND {terms.refers(reference, 't', leaving)}")
            if held:
                plan.held_by[f"{reference.name} of {'.'.join(reference.child)}"] = held
    plan.exact = facts.source.rows <= BIG_TABLE_ROWS
    plan.total = ask("true") if plan.exact else facts.source.rows
    needed = rows_to_keep(plan.removable, rule.options["minimum_rows_kept"], rule.options["maximum_share_percent"])
    needed -= plan.due - plan.removable
    if needed > 0:
        kept = f"SELECT count(*) FROM (SELECT FROM {table} WHERE NOT {due} LIMIT {needed}) AS kept"
        plan.kept_enough = int(session.value(kept, plan.params)) >= needed
    plan.doubled = _doubled(session, plan, table, due)
    plan.counted = True


def _doubled(session: Session, plan: Plan, table: str, due: str) -> int:
    """Count due rows that the archive has already, by the table's primary key; what only ever inserted has left such rows."""
    facts, terms = plan.facts, plan.terms
    archive, key = facts.archive, facts.source.key
    if archive is None or not key or not set(key) <= set(archive.columns):
        return 0
    same = " AND ".join(f"a.{terms.name(name)} = t.{terms.name(name)}" for name in key)
    there = f"EXISTS (SELECT FROM {terms.name(*archive.named)} AS a WHERE {same})"
    return int(session.value(f"SELECT count(*) FROM {table} WHERE {due} AND {there}", plan.params))


def create_archive(session: Session, facts: Facts) -> None:
    """Create the archive like the table: same columns and key, same owner; no defaults, no foreign keys."""
    archive, source = facts.rule.archive, facts.source
    if archive is None:
        raise AssertionError("only asked for rules that archive")
    new = session.identifier(*archive)
    with session.transaction():
        session.execute(f"CREATE TABLE {new} (LIKE {session.identifier(*source.named)})")
        if source.key:
            session.execute(f"ALTER TABLE {new} ADD PRIMARY KEY ({', '.join(session.identifier(name) for name in source.key)})")
        if session.value("SELECT current_user::text") != source.owner:
            session.execute(f"ALTER TABLE {new} OWNER TO {session.identifier(source.owner)}")


@dataclass
class Mover:
    """Moves or deletes the rows of one rule, batch by batch.

    :param most: rows that may go in all; what the plan counted.
    """

    session: Session
    plan: Plan
    host: Host
    deadline: float
    most: int
    removed: int = 0
    batches: int = 0
    deferred: bool = False
    _longest: float = 0.0

    def run(self) -> None:
        """Go through the table part by part; where rows refer to each other, until nothing more can go."""
        again = True
        while again and not self._ended():
            before = self.removed
            for leaf in self.plan.facts.source.leaves:
                for column in self.plan.terms.parts:
                    self._part(leaf, column)
            own = any(reference.child_oid in self.plan.facts.source.oids for reference in self.plan.holding)
            again = own and self.removed > before

    def _ended(self) -> bool:
        if self.deadline and self.removed < self.most and self.host.now().timestamp() + self._longest > self.deadline:
            self.deferred = True
        return self.deferred or self.removed >= self.most

    def _part(self, leaf: Named, column: str) -> None:
        start, idle, pause = "-infinity", 0, self.plan.facts.rule.options["pause_seconds"]
        while idle < _IDLE_BATCHES and not self._ended():
            began = self.host.now()
            found, start, gone = self._batch_with_retries(leaf, column, start)
            self._longest = max(self._longest, (self.host.now() - began).total_seconds())
            if not found:
                return
            idle = 0 if gone else idle + 1
            self.removed += gone
            self.batches += 1
            if pause:
                self.host.sleep(pause)

    def _batch_with_retries(self, leaf: Named, column: str, start: str) -> tuple[int, str, int]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.session.transaction():
                    return self._batch(leaf, column, start)
            except StatementError as error:
                if error.sqlstate not in _TRY_AGAIN or attempt == _ATTEMPTS:
                    raise
                self.host.sleep(0.1 * attempt)
        raise AssertionError("unreachable")

    def _batch(self, leaf: Named, column: str, start: str) -> tuple[int, str, int]:
        """Lock, look again, move and compare; returns the rows locked, the age reached and the rows gone."""
        plan, terms = self.plan, self.plan.terms
        table, order = terms.name(*leaf), f"t.{terms.name(column)}"
        most = min(plan.facts.rule.options["batch_rows"], self.most - self.removed)
        locked = self.session.rows(
            f"SELECT t.ctid::text AS place, {order}::text AS age FROM ONLY {table} AS t "
            f"WHERE {terms.part('t', column)} AND {order} >= %(start)s::{terms.kind(column)}{plan.free('t')} "
            f"ORDER BY {order} LIMIT {most} FOR UPDATE OF t SKIP LOCKED",
            {**plan.params, "start": start},
        )
        if not locked:
            return 0, start, 0
        places = [row["place"] for row in locked]
        if plan.facts.references:
            # Nobody can refer to a locked row any more; who did before the lock shows in this new snapshot.
            statement = (
                f"SELECT t.ctid::text AS place FROM ONLY {table} AS t WHERE t.ctid = ANY (%(places)s::text[]::tid[]){plan.free('t')}"
            )
            places = [row["place"] for row in self.session.rows(statement, {**plan.params, "places": places})]
        gone = self._move(table, column, places) if places else 0
        if gone != len(places):
            raise MaintenanceError(
                f"{plan.facts.rule.subject}: {len(places)} rows were locked, but {gone} were removed (a trigger or rule of the "
                "table interferes); the batch was rolled back, nothing of it is lost. Look at the table's triggers."
            )
        return len(locked), locked[-1]["age"], gone

    def _move(self, table: str, column: str, places: list[str]) -> int:
        plan, terms = self.plan, self.plan.terms
        params = {**plan.params, "places": places}
        delete = f"DELETE FROM ONLY {table} AS t WHERE t.ctid = ANY (%(places)s::text[]::tid[]) AND {terms.part('t', column)}"
        archive = plan.facts.rule.archive
        if archive is None:
            return self.session.execute(delete, params)
        names = [terms.name(name) for name in plan.facts.moved]
        found = self.session.rows(
            f"WITH gone AS ({delete} RETURNING {', '.join(f't.{name}' for name in names)}), "
            f"kept AS (INSERT INTO {terms.name(*archive)} ({', '.join(names)}) OVERRIDING SYSTEM VALUE "
            f"SELECT {', '.join(f'gone.{name}' for name in names)} FROM gone RETURNING 1) "
            "SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM kept) AS kept",
            params,
        )[0]
        if found["gone"] != found["kept"]:
            raise MaintenanceError(
                f"{plan.facts.rule.subject}: {found['gone']} rows were to move, but {'.'.join(archive)} took {found['kept']} "
                "(a trigger or rule of the archive interferes); the batch was rolled back, nothing of it is lost. Look at its triggers."
            )
        return int(found["gone"])


def work_session(server: postgresql.Server, database: str, schemas: t.Sequence[str], limit_seconds: float) -> Session:
    """Open a session in which batches can run: each statement sees what is committed, and no policy hides rows."""
    session = postgresql.connect(server, database, statement_timeout_seconds=limit_seconds)
    prepare(session)
    if schemas:
        # Only the triggers of the tables need it; our own names are all qualified.
        session.set("search_path", ", ".join(["pg_catalog", *(session.identifier(name) for name in schemas)]))
    return session


def prepare(session: Session) -> None:
    """Make a session say ages the same way everywhere, and refuse what a row security policy would hide."""
    for name, value in (
        ("default_transaction_isolation", "read committed"),
        ("row_security", "off"),
        ("timezone", "UTC"),
        ("datestyle", "ISO, YMD"),
    ):
        session.set(name, value)
