# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL review: connections, transactions, locks, prepared transactions, replication."""

from __future__ import annotations

import typing as t

from .judge import human_bytes, human_seconds
from .postgresql import Row
from .postgresql_blockers import prepared_holders
from .postgresql_review_common import DAY, About, Check, Fault, Look, Wording, filled, found, percent
from .record import Finding, clean

# Never the text of a query: it may hold data. Who blocks is asked only for those that wait.
ACTIVITY = """
SELECT a.pid, a.datname AS database, a.usename AS role, a.application_name AS application, a.state, a.backend_type AS type,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS state_seconds,
       a.wait_event_type = 'Lock' AS waits, a.wait_event AS waits_for,
       CASE WHEN a.wait_event_type = 'Lock' THEN extract(epoch FROM clock_timestamp() - coalesce({waiting}, a.query_start))::float8 END
         AS waited_seconds,
       CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) END AS blockers,
       CASE WHEN a.wait_event_type = 'Lock' THEN {prepared} END AS prepared
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid()"""

WAITING = "(SELECT min(w.waitstart) FROM pg_locks w WHERE w.pid = a.pid AND NOT w.granted)"

PREPARED = """
SELECT gid, database, owner AS role, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds FROM pg_prepared_xacts"""

REPLICAS = """
SELECT application_name AS application, coalesce(host(client_addr), 'the socket') AS address, state,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, replay_lsn)::float8 AS bytes,
       extract(epoch FROM replay_lag)::float8 AS seconds
FROM pg_stat_replication
WHERE application_name NOT IN ('pg_receivewal', 'pg_basebackup', 'pg_recvlogical')"""

STANDBY = """
SELECT (SELECT status FROM pg_stat_wal_receiver) AS receiver,
       pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::float8 AS bytes,
       CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END AS seconds
WHERE pg_is_in_recovery()"""

SLOTS = """
SELECT slot_name AS name, slot_type AS type, database, active, wal_status AS status, temporary,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::float8 AS bytes
FROM pg_replication_slots"""

CONNECTIONS = Wording(
    "postgresql.connections",
    "",
    "",
    "Close what is idle, lower the size of the application's pool, or put a pooler before the server; raising max_connections needs a restart.",
    "percent",
)
IDLE = Wording(
    "postgresql.idle_in_transaction",
    "no session sits idle in a transaction",
    "sessions sit idle in a transaction",
    "Correct the application; set idle_in_transaction_session_timeout. They keep locks, and dead rows from being removed.",
    "seconds",
)
LONG = Wording(
    "postgresql.long_transactions",
    "no transaction is long",
    "transactions are long",
    "Ask who runs them; while they last, VACUUM removes nothing that they might see.",
    "seconds",
)
LOCKS = Wording(
    "postgresql.lock_waits",
    "nobody waits long for a lock",
    "sessions wait for a lock",
    "Look at the session that blocks them; nothing is ended here.",
    "seconds",
)
FORGOTTEN = Wording(
    "postgresql.prepared_transactions",
    "no prepared transaction is forgotten",
    "prepared transactions are old",
    "COMMIT PREPARED or ROLLBACK PREPARED them, as the transaction manager says; they keep locks over restarts.",
    "seconds",
)
LAG = Wording(
    "postgresql.replication_lag",
    "no replica lags behind",
    "replicas lag behind or are away",
    "Look at the replica, its log and the network between; a replica that stays away is to be rebuilt or forgotten.",
    "bytes",
)
SLOT = Wording(
    "postgresql.replication_slots",
    "every replication slot is in use",
    "replication slots are not in use",
    "Bring the consumer back, or drop the slot: it keeps WAL until the disk is full. Bound that with max_slot_wal_keep_size.",
    "bytes",
)


def fetch_activity(look: Look) -> list[Row]:
    """Read who does what, in one query."""
    waiting = WAITING if look.about.major >= 14 else "NULL::timestamptz"
    return look.rows(filled(ACTIVITY, waiting=waiting, prepared=prepared_holders("a.pid")))


def _who(row: Row) -> str:
    application = clean(f", {row['application']}", 40) if row["application"] else ""
    return f"pid {row['pid']} ({row['role']} in {row['database']}{application})"


def judge_connections(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge the number of client connections against what is left of max_connections, split by state."""
    highest = about.setting("max_connections", 100)
    kept = about.setting("superuser_reserved_connections", 3) + about.setting("reserved_connections", 0)
    clients = [row for row in rows if row["type"] == "client backend"]
    count = len(clients) + 1
    states: dict[str, int] = {"active": 1}
    for row in clients:
        name = row["state"] or "disabled"
        states[name] = states.get(name, 0) + 1
    for name, number in states.items():
        about.count(f"connections_{name.replace(' ', '_').replace('(', '').replace(')', '').replace('/', '_')}", number)
    share = percent(count, max(highest - kept, 1))
    about.count("connections", count)
    about.count("connections_share", share, "percent")
    split = ", ".join(f"{number} {name}" for name, number in sorted(states.items(), key=lambda item: -item[1]))
    words = f"{count} of {highest - kept:.0f} connections ({split}); {kept:.0f} more are reserved"
    by_database: dict[str, int] = {}
    for row in clients:
        by_database[row["database"]] = by_database.get(row["database"], 0) + 1
    lines = [f"{name}: {number}" for name, number in sorted(by_database.items(), key=lambda item: -item[1])]
    state = about.level(share, "connections_percent")
    return [
        Finding(
            CONNECTIONS.id, state, about.subject, words, value=round(share, 1), unit="percent", threshold=about.said("connections_percent"),
            not_covered="what waits in front of a pooler: it has figures of its own", advice=CONNECTIONS.advice if state != "ok" else "",
            evidence=lines[:10],
        )
    ]  # fmt: skip


def _timed(about: About, wording: Wording, limit: str, rows: t.Iterable[tuple[float, str]]) -> list[Finding]:
    """Judge durations by a limit and its critical twin."""
    pairs = list(rows)
    faults = [
        Fault(f"{line}, for {human_seconds(seconds)}", seconds, about.level(seconds, limit))
        for seconds, line in pairs
        if about.level(seconds, limit) != "ok"
    ]
    wording = Wording(wording.id, wording.fine, wording.wrong, wording.advice, "seconds", about.said(limit))
    return found(about, wording, faults, value=max((seconds for seconds, _line in pairs), default=0.0))


def judge_idle(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge how long sessions have been idle inside a transaction."""
    idle = [(row["state_seconds"], _who(row)) for row in rows if (row["state"] or "").startswith("idle in transaction")]
    return _timed(about, IDLE, "idle_in_transaction_seconds", idle)


def judge_transactions(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge how long transactions of clients have lasted."""
    clients = [row for row in rows if row["type"] == "client backend" and row["transaction_seconds"] is not None]
    return _timed(about, LONG, "transaction_seconds", [(row["transaction_seconds"], _who(row)) for row in clients])


def judge_locks(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge how long sessions have waited for a lock, and say who holds it."""
    known = {row["pid"]: row for row in rows}
    waiting = []
    for row in rows:
        if row["waits"]:
            blockers = [_who(known[pid]) if pid in known else f"pid {pid}" for pid in row["blockers"] or () if pid]
            # The server counts them as one process, 0.
            if 0 in (row["blockers"] or ()):
                blockers += [f"prepared transaction {clean(name, 100)}" for name in row["prepared"] or ("that is over by now",)]
            waiting.append(
                (row["waited_seconds"] or 0.0, f"{_who(row)} waits for a {row['waits_for']} lock held by {', '.join(blockers[:3])}")
            )
    return _timed(about, LOCKS, "lock_wait_seconds", waiting)


def judge_prepared(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge how old prepared transactions are."""
    lines = [(row["seconds"], f"{clean(row['gid'], 60)} of {row['role']} in {row['database']}") for row in rows]
    return _timed(about, FORGOTTEN, "prepared_seconds", lines)


# -- replication --


def fetch_replication(look: Look) -> Row:
    """Read replicas, and what this server is to its primary."""
    return {"replicas": look.rows(REPLICAS), "standby": look.rows(STANDBY)}


def judge_lag(about: About, facts: Row) -> list[Finding]:
    """Judge how far replicas are behind, and whether one that was there is away."""
    now = about.now.timestamp()
    seen = {f"{row['application']} at {row['address']}" for row in facts["replicas"]}
    kept = {name: time for name, time in about.kept.get("replicas", {}).items() if now - time < 30 * DAY}
    about.keep["replicas"] = {**kept, **dict.fromkeys(seen, now)}
    faults = [
        Fault(f"{name} is away, last seen {human_seconds(now - time)} ago", about.limits["replication_lag_bytes"], "critical")
        for name, time in kept.items()
        if name not in seen
    ]
    most = 0.0
    for row in facts["replicas"]:
        most = max(most, row["bytes"] or 0)
        faults += _behind(
            about, f"{row['application']} at {row['address']}", row, "" if row["state"] in ("streaming", "backup") else row["state"]
        )
    for row in facts["standby"]:
        most = max(most, row["bytes"] or 0)
        faults += _behind(about, "this standby", row, "" if row["receiver"] == "streaming" else "not streaming")
    about.count("replicas", len(seen))
    about.count("replication_lag", most, "bytes")
    threshold = (
        f"warning from {human_bytes(about.limits['replication_lag_bytes'])} or {human_seconds(about.limits['replication_lag_seconds'])}"
    )
    wording = Wording(LAG.id, LAG.fine, LAG.wrong, LAG.advice, "bytes", threshold)
    role = (
        "this standby keeps up"
        if facts["standby"]
        else f"{len(seen)} replicas keep up"
        if seen
        else "no replica is connected, none was known"
    )
    return found(about, wording, faults, value=most, fine=role)


def _behind(about: About, name: str, row: Row, wrong: str) -> list[Fault]:
    behind, seconds = row["bytes"] or 0.0, row["seconds"] or 0.0
    is_late = behind >= about.limits["replication_lag_bytes"] or (behind > 0 and seconds >= about.limits["replication_lag_seconds"])
    if not wrong and not is_late:
        return []
    words = f"{name}: {human_bytes(behind)}, {human_seconds(seconds)} behind"
    return [Fault(f"{words} ({wrong})" if wrong else words, behind)]


def judge_slots(about: About, rows: t.Sequence[Row]) -> list[Finding]:
    """Judge slots that nobody reads, and what they keep."""
    faults = []
    limit = about.limits["slot_retained_bytes"]
    for row in rows:
        kept = row["bytes"] or 0.0
        if row["status"] in ("lost", "unreserved"):
            faults.append(Fault(f"{row['name']} ({row['type']}): WAL is {row['status']}, its consumer cannot go on", kept, "critical"))
        elif not row["active"]:
            faults.append(
                Fault(
                    f"{row['name']} ({row['type']}): inactive, keeps {human_bytes(kept)}", kept, "critical" if kept >= limit else "warning"
                )
            )
        elif kept >= limit:
            faults.append(Fault(f"{row['name']} ({row['type']}): its consumer is {human_bytes(kept)} behind", kept))
    threshold = f"warning when inactive or {human_bytes(limit)} behind, critical when inactive and {human_bytes(limit)} behind"
    wording = Wording(SLOT.id, SLOT.fine, SLOT.wrong, SLOT.advice, "bytes", threshold)
    fine = f"{len(rows)} replication slots are in use" if rows else "there is no replication slot"
    return found(about, wording, faults, value=max((row["bytes"] or 0.0 for row in rows), default=0.0), fine=fine)


# -- samples --


def bad_activity() -> list[Row]:
    """Return sessions that fill the server, one of which waits for another that has been idle in a transaction for days."""
    row = {
        "pid": 1, "database": "d", "role": "r", "application": "", "state": "idle in transaction", "type": "client backend",
        "transaction_seconds": 1e6, "state_seconds": 1e6, "waits": False, "waits_for": None, "waited_seconds": None, "blockers": None,
    }  # fmt: skip
    waiting = {**row, "state": "active", "waits": True, "waits_for": "relation", "waited_seconds": 1e6, "blockers": [1]}
    return [row, *({**waiting, "pid": number} for number in range(2, 1000))]


def _bad_replication() -> Row:
    return {"replicas": [{"application": "a", "address": "b", "state": "streaming", "bytes": 1e15, "seconds": 1e6}], "standby": []}


def _bad_slot() -> list[Row]:
    return [{"name": "s", "type": "physical", "active": False, "status": "extended", "bytes": 1e15}]


CHECKS = (
    Check((CONNECTIONS.id,), fetch_activity, judge_connections, bad_activity, stats=True),
    Check((IDLE.id,), fetch_activity, judge_idle, bad_activity, stats=True),
    Check((LONG.id,), fetch_activity, judge_transactions, bad_activity, stats=True),
    Check((LOCKS.id,), fetch_activity, judge_locks, bad_activity, stats=True),
    Check(
        (FORGOTTEN.id,),
        lambda look: look.rows(PREPARED),
        judge_prepared,
        lambda: [{"gid": "g", "role": "r", "database": "d", "seconds": 1e9}],
    ),
    Check((LAG.id,), fetch_replication, judge_lag, _bad_replication, stats=True),
    Check((SLOT.id,), lambda look: look.rows(SLOTS), judge_slots, _bad_slot),
)
