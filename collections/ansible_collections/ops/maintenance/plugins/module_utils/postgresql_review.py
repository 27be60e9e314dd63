# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The review of PostgreSQL servers: facts are read in one read-only session a database, then judged all together."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace

from . import (
    postgresql_review_access,
    postgresql_review_activity,
    postgresql_review_archive,
    postgresql_review_bloat,
    postgresql_review_indexes,
    postgresql_review_roles,
    postgresql_review_schema,
    postgresql_review_server,
    postgresql_review_slowest,
    postgresql_review_statements,
    postgresql_review_suspicious,
    postgresql_review_tables,
    postgresql_review_usage,
)
from .errors import InputError, MaintenanceError, refusal, refuse
from .host import Host
from .paths import password_of, read_state, write_state
from .postgresql import (
    CONNECTION_LOST,
    INSUFFICIENT_PRIVILEGE,
    SERVER,
    NotReachableError,
    Server,
    Session,
    StatementError,
    check_server,
    connect,
    databases_of,
    has_role,
)
from .postgresql_review_common import LIMITS, READ_ALL_STATS, About, Check, Look, blind
from .postgresql_review_fit import fitted
from .postgresql_review_usage import UNUSED
from .record import Action, Finding, Json, Outcome, status_of

OPTIONS: dict[str, t.Any] = {
    "servers": {"type": "list", "elements": "dict", "required": True, "options": SERVER},
    "limits": {"type": "dict", "default": {}},
    "superusers": {"type": "list", "elements": "str", "default": ["postgres"]},
    "privileged_roles": {"type": "list", "elements": "str", "default": []},
    "roles_without_expiry": {"type": "list", "elements": "str"},
    "watch_statements": {"type": "bool", "default": False},
    "schema_roles": {"type": "list", "elements": "str", "default": []},
    "recommended_settings": {"type": "dict", "default": {}},
    "newest_minor": {"type": "dict", "default": {}},
    "pgstattuple": {"type": "bool", "default": False},
    "amcheck": {"type": "bool", "default": False},
    "amcheck_seconds": {"type": "int", "default": 3600},
}
SUBJECT, OPERATION, STATE = "databases", "postgresql_review", "postgresql_review.json"
REACHABLE = "postgresql.reachable"

OF_SERVER: tuple[Check, ...] = (
    *postgresql_review_activity.CHECKS,
    *postgresql_review_archive.CHECKS,
    *postgresql_review_server.CHECKS,
    *postgresql_review_access.CHECKS,
    *postgresql_review_roles.CHECKS,
)
OF_DATABASE: tuple[Check, ...] = (
    *postgresql_review_statements.CHECKS,
    *postgresql_review_slowest.CHECKS,
    *postgresql_review_suspicious.CHECKS,
    *postgresql_review_tables.CHECKS,
    *postgresql_review_usage.CHECKS,
    *postgresql_review_indexes.CHECKS,
    *postgresql_review_schema.CHECKS,
    *postgresql_review_bloat.CHECKS,
)
STATEMENT_SECONDS, LOCK_SECONDS = 60.0, 0.5

IDENTITY = """
SELECT pg_is_in_recovery() AS standby, (SELECT system_identifier::text FROM pg_control_system()) AS cluster"""


@dataclass
class Pending:
    """Facts that wait to be judged, or why there are none."""

    check: Check
    about: About
    facts: t.Any = None
    why: tuple[str, str] | None = None


@dataclass
class Reviewed:
    """What was read of one server."""

    server: Server
    findings: list[Finding] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    abouts: dict[str, About] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    cluster: str = ""
    standby: bool = False

    @property
    def name(self) -> str:
        """The server's name in the inventory."""
        return str(self.server["name"])


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Read every server, then judge; nothing is changed on any of them."""
    validate(params)
    params = {**params, "limits": {**LIMITS, **{name: float(value) for name, value in params["limits"].items()}}}
    kept = read_state(params["state_dir"], STATE)
    distrusted = self_test() if params["self_test"] else set()
    servers = [Review(server, params, host, kept.get(server["name"], {})).read() for server in params["servers"]]
    _share(servers)
    outcome = Outcome(SUBJECT, OPERATION, "ok", "")
    if not servers:
        outcome.findings += blind([REACHABLE], SUBJECT, "no server is declared, so nothing was looked at", "Declare the servers.")
    for reviewed in servers:
        outcome.findings += [_trusted(finding, distrusted) for finding in [*reviewed.findings, *_judged(reviewed, servers)]]
        outcome.metrics += [metric for about in reviewed.abouts.values() for metric in about.metrics]
        outcome.actions += reviewed.actions
    outcome.status = status_of(outcome.actions, check_mode)
    bad = sum(finding.state != "ok" for finding in outcome.findings)
    outcome.summary = (
        f"{len(servers)} server(s) looked at, worst state {outcome.state}, {bad} of {len(outcome.findings)} findings need attention"
    )
    outcome.returned = {"servers": {reviewed.name: _lists(reviewed) for reviewed in servers}}
    fitted(outcome)
    if not check_mode:
        _keep(params["state_dir"], {**kept, **{reviewed.name: _remembered(reviewed, kept) for reviewed in servers}}, outcome)
    return outcome


# -- input --


def validate(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what cannot be meant, all of it at once, before any session is opened.

    :raises InputError: one sentence for each problem.
    """
    refuse(input_problems(params) + [problem for server in params["servers"] for problem in refusal(password_of, server)])


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    wrong = [*_wrong_limits(params["limits"]), *_wrong_minors(params["newest_minor"])]
    names = [server["name"] for server in params["servers"]]
    wrong += [f"Server {name!r} is declared twice; give each a name of its own." for name in sorted(set(names)) if names.count(name) > 1]
    if params["amcheck_seconds"] < 1:
        wrong.append(str(InputError.of("amcheck_seconds", params["amcheck_seconds"], "1 or more", "correct it")))
    return wrong + [problem for server in params["servers"] for problem in refusal(check_server, server)]


def _wrong_limits(limits: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    for name, value in limits.items():
        if name not in LIMITS:
            yield str(InputError.of("limits", name, "one of the documented limits", "correct the name"))
        elif isinstance(value, bool) or not _is_number(value) or not 0 <= float(value) < float("inf"):
            yield str(InputError.of(f"limits.{name}", value, "a number from 0 on", "correct it"))
    usable = {name: float(value) for name, value in limits.items() if name in LIMITS and _is_number(value)}
    in_force = {**LIMITS, **usable}
    for name in in_force:
        what, _sep, unit = name.rpartition("_")
        critical = f"{what}_critical_{unit}"
        if critical in in_force and in_force[critical] < in_force[name]:
            yield f"limits.{critical} is {in_force[critical]:g}, expected {name} ({in_force[name]:g}) or more; correct one of them."


def _is_number(value: t.Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _wrong_minors(minors: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    for major, value in minors.items():
        option = f"newest_minor.{major}"
        if not str(major).isdigit():
            yield str(InputError.of("newest_minor", major, "a major version such as 17", "correct it"))
        elif isinstance(value, float):
            yield str(InputError.of(option, value, "text", f"quote it ('{value}'), for 17.10 would be read as 17.1"))
        elif not str(value).rpartition(".")[2].isdigit() or str(value).rpartition(".")[0] not in ("", str(major)):
            yield str(InputError.of(option, value, f"a minor release such as '{major}.4', or 4", "correct it"))


# -- reading --


class Review:
    """The reading of one server."""

    def __init__(self, server: Server, params: t.Mapping[str, t.Any], host: Host, kept: t.Mapping[str, Json]) -> None:
        self.server, self.params, self.host, self.kept = server, params, host, kept
        self.reviewed = Reviewed(server)
        self.shared: dict[str, t.Any] = {}
        self.settings: dict[str, str] = {}
        self.major = 0
        self.stats = False

    def read(self) -> Reviewed:
        """Read what concerns the whole server, then each of its databases."""
        databases = list(self.server["databases"])
        session = self._session(self.server["connect_database"], self.reviewed.name, [*OF_SERVER, *OF_DATABASE])
        if session is None:
            return self.reviewed
        with session:
            look = Look(session, self.server, About(self.reviewed.name), self.host, shared=self.shared)
            try:
                self._get_to_know(look)
                databases = databases_of(session, self.server)
            except StatementError as error:
                self._blind([*OF_SERVER, *OF_DATABASE], self.reviewed.name, str(error), "Read the server's log, then run again.")
                return self.reviewed
            look.about, look.standby = self._about(self.reviewed.name, ""), self.reviewed.standby
            self._ask(look, OF_SERVER)
        for database in databases:
            self._read_database(database)
        return self.reviewed

    def _get_to_know(self, look: Look) -> None:
        self.settings = {row["name"]: row["setting"] for row in postgresql_review_server.fetch_settings(look)}
        self.major = int(self.settings["server_version_num"]) // 10000
        self.stats = has_role(look.session, "pg_read_all_stats")
        identity = look.rows(IDENTITY)[0]
        self.reviewed.cluster, self.reviewed.standby = identity["cluster"], identity["standby"]

    def _read_database(self, database: str) -> None:
        subject = f"{self.reviewed.name}/{database}"
        deadline = self.params["deadline"]
        if deadline and self.host.now().timestamp() >= deadline:
            self._blind(
                OF_DATABASE, subject, "the window closed before it was looked at", "Give the review an earlier start, or run it again."
            )
            self.reviewed.actions.append(Action(subject, "review", "deferred", "the window closed before it was looked at"))
            return
        session = self._session(database, subject, OF_DATABASE)
        if session is not None:
            with session:
                about = self._about(subject, database)
                self._ask(Look(session, self.server, about, self.host, database, self.reviewed.standby, self.shared), OF_DATABASE)

    def _about(self, subject: str, database: str) -> About:
        kept = self.kept.get("databases", {}).get(database, {}) if database else self.kept.get("server", {})
        about = About(
            subject, self.params["limits"], self.params, self.host.now(), self.major, kept, {}, self.settings, self.stats, [], {}
        )  # fmt: skip
        self.reviewed.abouts[database] = about
        return about

    def _session(self, database: str, subject: str, checks: t.Sequence[Check]) -> Session | None:
        """Open a session and prove it with ``SELECT 1``; without one, everything asked of it is unknown."""
        begun = self.host.now()
        state, advice = "critical", "Correct what is named there; until then nothing else of it can be looked at."
        try:
            session = connect(
                self.server, database, read_only=True, statement_timeout_seconds=STATEMENT_SECONDS, lock_timeout_seconds=LOCK_SECONDS
            )
            session.value("SELECT 1")
            session.set("jit", "off")
        except MaintenanceError as error:
            if not isinstance(error, (NotReachableError, StatementError)):
                state = "unknown"
            self.reviewed.findings.append(Finding(REACHABLE, state, subject, str(error), advice=advice))
            self._blind(checks, subject, f"there was no session with {subject}", "Correct what postgresql.reachable says, then run again.")
            return None
        taken = (self.host.now() - begun).total_seconds() * 1000
        words = f"a session answered SELECT 1 after {taken:.0f} ms"
        self.reviewed.findings.append(Finding(REACHABLE, "ok", subject, words, value=round(taken, 1), unit="milliseconds"))
        return session

    def _blind(self, checks: t.Iterable[Check], subject: str, why: str, advice: str) -> None:
        ids = [found_id for check in checks if check.declared(self.params) for found_id in check.ids]
        self.reviewed.findings += blind(ids, subject, why, advice)

    def _ask(self, look: Look, checks: t.Iterable[Check]) -> None:
        lost = ""
        for check in checks:
            if not check.declared(self.params):
                continue
            pending = Pending(check, look.about)
            self.reviewed.pending.append(pending)
            if lost:
                pending.why = (lost, "Read the server's log, then run again.")
            elif check.stats and not self.stats:
                remedy = "GRANT pg_monitor TO the review's role."
                pending.why = (f"what other roles do is hidden, for want of {READ_ALL_STATS}", remedy)
            elif check.primary and self.reviewed.standby:
                pending.why = ("a standby does not tell", "Declare its primary as a server too.")
            else:
                lost = _fetched(pending, look)


def _fetched(pending: Pending, look: Look) -> str:
    """Read the facts of a check; return how the session was lost, if it was."""
    try:
        pending.facts = pending.check.fetch(look)
    except StatementError as error:
        remedy = (
            "GRANT pg_monitor TO the review's role."
            if error.sqlstate == INSUFFICIENT_PRIVILEGE
            else "Correct what it says, then run again."
        )
        pending.why = (str(error), remedy)
        return str(error) if error.sqlstate == CONNECTION_LOST else ""
    except MaintenanceError as error:
        pending.why = (str(error), "Correct what it says, then run again.")
    return ""


# -- judging --


def _share(servers: t.Sequence[Reviewed]) -> None:
    """Tell each server's indexes how the other members of its cluster use theirs."""
    usage = [
        (reviewed, pending.facts)
        for reviewed in servers
        for pending in reviewed.pending
        if UNUSED.id in pending.check.ids and pending.facts is not None
    ]
    for reviewed, facts in usage:
        facts["others"] = [
            other
            for member, other in usage
            if member is not reviewed and member.cluster == reviewed.cluster and other["database"] == facts["database"]
        ]


def _judged(reviewed: Reviewed, servers: t.Sequence[Reviewed]) -> t.Iterator[Finding]:
    is_covered = reviewed.standby and any(not other.standby and other.cluster == reviewed.cluster for other in servers)
    for pending in reviewed.pending:
        if is_covered and (pending.check.primary or UNUSED.id in pending.check.ids):
            continue  # judged once, on the primary
        if pending.why is not None:
            yield from blind(pending.check.ids, pending.about.subject, *pending.why)
        else:
            yield from pending.check.judge(pending.about, pending.facts)


def self_test() -> set[str]:
    """Judge planted bad facts; return the ids whose judge found nothing wrong with them."""
    params = {"recommended_settings": {"autovacuum": "on"}, "newest_minor": {"13": "99"}, "superusers": []}
    missed: set[str] = set()
    for check in (*OF_SERVER, *OF_DATABASE):
        if check.sample is None:
            continue
        about = About("sample", params=params, kept=check.sample_kept, settings={"data_checksums": "on", "password_encryption": "md5"})
        states = {finding.id: finding.state for finding in check.judge(about, check.sample())}
        missed |= {found_id for found_id in check.ids if states.get(found_id) not in ("warning", "critical")}
    return missed


def _trusted(finding: Finding, distrusted: t.Collection[str]) -> Finding:
    if finding.id not in distrusted:
        return finding
    words = f"the self-test failed, so this is not to be trusted: {finding.summary}"
    return replace(finding, state="unknown", summary=words, advice="A planted bad sample passed; report it as a defect and look by hand.")


# -- keeping --


def _keep(state_dir: str, state: t.Mapping[str, Json], outcome: Outcome) -> None:
    """Write what the next run compares with.

    :raises MaintenanceError: it cannot be written; what was found is still in the record.
    """
    try:
        write_state(state_dir, STATE, state)
    except MaintenanceError as error:
        words = f"What the next run compares with could not be kept: {error}"
        outcome.summary = words
        raise MaintenanceError(words, outcome) from error


def _remembered(reviewed: Reviewed, kept: t.Mapping[str, Json]) -> Json:
    """Return what the next run compares with; what could not be looked at this time stays as it was."""
    old = kept.get(reviewed.name, {})
    state: dict[str, Json] = {"server": dict(old.get("server", {})), "databases": dict(old.get("databases", {}))}
    for database, about in reviewed.abouts.items():
        if database:
            state["databases"][database] = {**state["databases"].get(database, {}), **about.keep}
        else:
            state["server"].update(about.keep)
    return state


def _lists(reviewed: Reviewed) -> Json:
    return {"databases": {database: about.lists for database, about in reviewed.abouts.items() if database}}
