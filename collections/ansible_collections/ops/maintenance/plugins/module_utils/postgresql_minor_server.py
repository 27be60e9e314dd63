# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running PostgreSQL server says before it is restarted, and what of it speaks against a restart."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from .judge import human_bytes, human_seconds, many
from .postgresql import Server, Session, has_role, system_identifier
from .record import clean

SILENT_SECONDS = 120.0
"""A primary that has nothing to send says at least that every 30 seconds."""


@dataclass(frozen=True)
class Standby:
    """A replica that is connected to this server, and how much of the log it has not replayed yet."""

    name: str
    state: str
    lag_bytes: float


@dataclass(frozen=True)
class Receiver:
    """Where a replica gets its log from, and how far behind it is; ``lag_bytes`` is ``None`` before the first message."""

    status: str
    lag_bytes: float | None
    silent_seconds: float


@dataclass(frozen=True)
class Seen:
    """One running server.

    :param version: as a number, such as 150014.
    :param busy: transactions that have lasted too long, and base backups, that a restart would end: one line each.
    :param blind: what the role may not see, empty when it may see everything.
    :param lost_slots: physical slots that nobody uses: replicas that are away.
    :param old_files: whether the server runs files that were replaced since it started.
    """

    name: str
    port: int
    version: int
    in_recovery: bool
    system: str
    data: str = ""
    busy: tuple[str, ...] = ()
    blind: str = ""
    standbys: tuple[Standby, ...] = ()
    lost_slots: tuple[str, ...] = ()
    receiver: Receiver | None = None
    paused: bool = False
    old_files: bool = False

    @property
    def major(self) -> int:
        """Return the major version."""
        return self.version // 10000

    @property
    def role(self) -> str:
        """Return ``replica`` or ``primary``."""
        return "replica" if self.in_recovery else "primary"


@dataclass(frozen=True)
class Limits:
    """From when a lag speaks against a restart, and how many replicas a primary has to have."""

    lag_bytes: int
    replicas: int = 0


@dataclass
class Peers:
    """What the other servers of the cluster said just now.

    :param known: servers, as this module returns them.
    :param at_once: hosts of the cluster that are maintained at the same moment.
    """

    known: list[dict[str, t.Any]] = field(default_factory=list)
    at_once: list[str] = field(default_factory=list)

    def replicas_of(self, seen: Seen) -> list[dict[str, t.Any]]:
        """Return the other replicas of the same cluster."""
        return [one for one in self.known if str(one.get("system")) == seen.system and one.get("role") == "replica"]


_BUSY = (
    "SELECT pid, usename, datname, application_name, state, extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds"
    " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
    " AND clock_timestamp() - xact_start >= make_interval(secs => %s) ORDER BY xact_start"
)
# A physical replica is a WAL sender without a database that says what it has replayed; pg_receivewal says nothing of that.
_STANDBYS = (
    "SELECT coalesce(nullif(r.application_name, ''), host(r.client_addr), 'socket') AS name, r.state,"
    " pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, r.replay_lsn)::float AS lag"
    " FROM pg_stat_replication r JOIN pg_stat_activity a USING (pid) WHERE a.datid IS NULL AND r.replay_lsn IS NOT NULL ORDER BY 1"
)
_RECEIVER = (
    "SELECT status, pg_wal_lsn_diff(latest_end_lsn, pg_last_wal_replay_lsn())::float AS lag,"
    " extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float AS silent FROM pg_stat_wal_receiver"
)
_LOST_SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active AND NOT temporary ORDER BY 1"


def look(session: Session, server: Server, long_transaction_seconds: float) -> Seen:
    """Ask a server everything, in one session."""
    in_recovery = bool(session.value("SELECT pg_is_in_recovery()"))
    data = str(session.value("SELECT current_setting('data_directory', true)") or "")
    return Seen(
        name=str(server["name"]),
        port=int(server["port"]),
        version=int(session.value("SHOW server_version_num")),
        in_recovery=in_recovery,
        system=system_identifier(session),
        data=data,
        busy=_busy(session, long_transaction_seconds),
        blind="" if has_role(session, "pg_monitor") else "its role is no member of pg_monitor and sees only its own sessions",
        standbys=tuple(Standby(clean(row["name"], 100), str(row["state"]), float(row["lag"] or 0)) for row in session.rows(_STANDBYS)),
        lost_slots=tuple(clean(row["slot_name"], 100) for row in session.rows(_LOST_SLOTS)),
        receiver=_receiver(session) if in_recovery else None,
        paused=in_recovery and bool(session.value("SELECT pg_is_wal_replay_paused()")),
        old_files=runs_old_files(data),
    )


def _busy(session: Session, seconds: float) -> tuple[str, ...]:
    said = [
        clean(
            f"process {row['pid']} of {row['usename']} in {row['datname']} ({row['application_name'] or 'no name'}, {row['state']}): "
            f"a transaction since {human_seconds(row['seconds'])}",
            300,
        )
        for row in session.rows(_BUSY, [seconds])
    ]
    backups = session.rows("SELECT pid, phase FROM pg_stat_progress_basebackup ORDER BY pid")
    return (*said, *(clean(f"process {row['pid']}: a base backup ({row['phase']})") for row in backups))


def _receiver(session: Session) -> Receiver | None:
    rows = session.rows(_RECEIVER)
    if not rows:
        return None
    lag, silent = rows[0]["lag"], rows[0]["silent"]
    return Receiver(str(rows[0]["status"]), None if lag is None else max(0.0, lag), SILENT_SECONDS if silent is None else silent)


def runs_old_files(data: str) -> bool:
    """Whether the server of a data folder runs programs or libraries that are no longer on disk."""
    try:
        with open(os.path.join(data, "postmaster.pid"), encoding="ascii", errors="replace") as source:
            pid = int(source.readline())
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as source:
            return any(
                line.rstrip().endswith(" (deleted)") and f"{line} ".split(None, 5)[-1].startswith(("/usr/", "/lib")) for line in source
            )
    except (OSError, ValueError):
        return False


def behind(seen: Seen, limits: Limits) -> list[str]:
    """Say what of the replication is not as it should be; waiting may help."""
    return _replica_behind(seen, limits) if seen.in_recovery else _standbys_behind(seen, limits)


def _replica_behind(seen: Seen, limits: Limits) -> list[str]:
    receiver = seen.receiver
    if seen.paused:
        return ["its replay is paused"]
    if receiver is None or receiver.status != "streaming":
        return [f"it gets no log from its primary ({receiver.status if receiver else 'no receiver'})"]
    if receiver.lag_bytes is None:
        return ["its primary has not said yet how far it is"]
    if receiver.silent_seconds >= SILENT_SECONDS:
        return [f"its primary has said nothing for {human_seconds(receiver.silent_seconds)}, so its lag is not known"]
    if receiver.lag_bytes > limits.lag_bytes:
        return [f"it is {human_bytes(receiver.lag_bytes)} behind its primary"]
    return _standbys_behind(seen, limits)


def _standbys_behind(seen: Seen, limits: Limits) -> list[str]:
    said = [f"its replica {one.name} is {one.state}, not streaming" for one in seen.standbys if one.state != "streaming"]
    said += [
        f"its replica {one.name} is {human_bytes(one.lag_bytes)} behind"
        for one in seen.standbys
        if one.state == "streaming" and one.lag_bytes > limits.lag_bytes
    ]
    said += [f"nobody uses its slot {name}: a replica is away" for name in seen.lost_slots]
    missing = limits.replicas - len(seen.standbys)
    if not seen.in_recovery and missing > 0:
        said.append(f"{many(len(seen.standbys), 'replica')} of {limits.replicas} connected")
    return said


def out_of_turn(seen: Seen, limits: Limits, peers: Peers, target: int) -> list[str]:
    """Say why it is not this server's turn: replicas come first, one after the other; waiting does not help.

    :param target: the version that the cluster is brought to.
    """
    said = [f"{host} of the same cluster is maintained at the same moment; set maintenance_serial to 1" for host in peers.at_once]
    others = peers.replicas_of(seen)
    if seen.in_recovery:
        return said + [f"another replica, {one.get('host')}, has not caught up" for one in others if one.get("behind")]
    needed = max(limits.replicas, len(seen.standbys) + len(seen.lost_slots))
    done = [one for one in others if int(one.get("version", 0)) >= target and not one.get("behind")]
    if len(done) < needed:
        said.append(f"replicas come first: {len(done)} of {needed} are known to run {shown(target)} and to have caught up")
    return said


def shown(version: int) -> str:
    """Write a version number as people do: ``15.14``."""
    return f"{version // 10000}.{version % 10000}"


def self_test() -> list[str]:
    """Judge planted servers; return what was judged wrong."""
    limits, nobody = Limits(1024, 1), Peers()
    current = Receiver("streaming", 0.0, 1.0)
    sound = Seen("sound", 5432, 150001, True, "1", receiver=current)
    late = Seen("late", 5432, 150001, True, "1", receiver=Receiver("streaming", 4096.0, 1.0))
    lone = Seen("lone", 5432, 150001, True, "1")
    primary = Seen("primary", 5432, 150001, False, "1", standbys=(Standby("r", "streaming", 0.0),))
    done = Peers([{"system": "1", "role": "replica", "version": 150002, "behind": []}])
    judged = {
        "a replica that lags": bool(behind(late, limits)),
        "a replica without a primary": bool(behind(lone, limits)),
        "a replica that keeps up": not behind(sound, limits),
        "a primary before its replica": bool(out_of_turn(primary, limits, nobody, 150002)),
        "a primary after its replica": not out_of_turn(primary, limits, done, 150002),
    }
    return [what for what, right in judged.items() if not right]
