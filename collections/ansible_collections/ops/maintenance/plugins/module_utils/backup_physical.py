# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A physical copy of a PostgreSQL cluster: started from a throw-away copy that nothing of the original can steer, then checked whole.

Nothing of the copy's own configuration is believed: it may archive, replicate, subscribe or run commands. What it needs to recover
comes from its control file and from us.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import typing as t

from . import backup_pg_compare as compare
from . import postgresql, postgresql_programs
from .backup_kinds import Verdict
from .errors import MaintenanceError
from .judge import human_seconds
from .postgresql_scratch import Cluster
from .record import clean

if t.TYPE_CHECKING:
    from .backup_adaptor import Climb

CONTROL = os.path.join("global", "pg_control")
_CONFIGURATION = (
    "postgresql.auto.conf",
    "postgresql.conf",
    "pg_ident.conf",
    "recovery.signal",
    "standby.signal",
    "recovery.conf",
    "postmaster.pid",
    "postmaster.opts",
)
_SIZES = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}
_SAID = re.compile(r"(?:FATAL|PANIC|ERROR|WARNING):\s+(.*)")
_START_SECONDS = 3600.0
# The second where recovery was told to stop there.
_CONSISTENT = ("consistent recovery state reached", "recovery stopping after reaching consistency")


def problems(declared: t.Mapping[str, t.Any], params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Say what of a physical backup's declaration cannot be used."""
    names, name = [server["name"] for server in params["servers"]], declared["name"]
    if declared["source_server"] and declared["source_server"] not in names:
        server = declared["source_server"]
        yield f"source_server of set {name} is {server!r}, expected one of the declared servers ({', '.join(names) or 'none'}); declare it."
    if (declared["source_server"] or declared["count_tables"] or declared["sentinel"]) and not declared["database"]:
        yield f"database of set {name} is empty, expected the name of the database that is looked into; give it."


def major_of(data: str) -> int:
    """Return the major version of a data folder.

    :raises MaintenanceError: it does not say one.
    """
    try:
        with open(os.path.join(data, "PG_VERSION"), encoding="ascii", errors="replace") as source:
            return int(source.read(10).strip().split(".")[0])
    except (OSError, ValueError):
        raise MaintenanceError(f"{data} holds no PG_VERSION that can be read, so it is no data folder of PostgreSQL") from None


def control_data(data: str, major: int) -> dict[str, str]:
    """Return what ``pg_controldata`` says of a data folder; a warning that it is not to be believed is under ``WARNING``.

    :raises MaintenanceError: it cannot be read.
    """
    ran = postgresql_programs.run_program([postgresql_programs.find_program("pg_controldata", major), "-D", data], timeout=60)
    if ran.rc != 0:
        raise MaintenanceError(f"its control file cannot be read: {ran.why()}")
    found = {}
    for line in (ran.stdout + "\n" + ran.stderr).splitlines():
        name, colon, value = line.partition(":")
        if "WARNING" in line:
            found["WARNING"] = clean(line.strip())
        elif colon:
            found[name.strip()] = value.strip()
    return found


def quarantine(cluster: Cluster) -> None:
    """Take everything out of a restored copy that could reach out, or steer how it starts.

    :raises MaintenanceError: a tablespace of the copy lies outside of the scratch folder.
    """
    for name in _CONFIGURATION:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(cluster.data, name))
    spaces = os.path.join(cluster.data, "pg_tblspc")
    for name in os.listdir(spaces) if os.path.isdir(spaces) else ():
        place = os.path.realpath(os.path.join(spaces, name))
        if os.path.commonpath([place, os.path.realpath(cluster.folder)]) != os.path.realpath(cluster.folder):
            raise MaintenanceError(f"its tablespace {name} lies in {place}, outside of the scratch folder; it was not started")
    _check_map(cluster)


def _check_map(cluster: Cluster) -> None:
    """Refuse a tablespace map that leads outside: recovery would follow it to the source's own files."""
    path = os.path.join(cluster.data, "tablespace_map")
    if not os.path.lexists(path):
        return
    with open(path, encoding="utf-8", errors="surrogateescape") as source:
        for line in source.read().splitlines():
            place = os.path.realpath(line.partition(" ")[2])
            if os.path.commonpath([place, os.path.realpath(cluster.folder)]) != os.path.realpath(cluster.folder):
                raise MaintenanceError(f"its tablespace map leads to {place}, outside of the scratch folder; it was not started")


def own(cluster: Cluster) -> None:
    """Give every file of the copy to the cluster's user, links as themselves."""
    owner = postgresql_programs.identity(cluster.os_user)
    if not owner:
        return
    for folder, _folders, names in os.walk(cluster.folder):
        for name in ["", *names]:
            with contextlib.suppress(FileNotFoundError):
                os.chown(os.path.join(folder, name), owner["user"], owner["group"], follow_symlinks=False)
    os.chmod(cluster.data, 0o700)


def recover(cluster: Cluster, restore_command: str = "", timeout: float = _START_SECONDS) -> str:
    """Start the copy until it is consistent and let it end recovery there; return a sentence.

    :raises MaintenanceError: it does not come up, or never became consistent.
    """
    if not os.path.isfile(os.path.join(cluster.data, "backup_label")):
        raise MaintenanceError("it has no backup_label, so nothing says from where it would become consistent; it was not started")
    control = control_data(cluster.data, cluster.major)
    quarantine(cluster)
    settings = {
        **{name: control[label] for label, name in _SIZES.items() if control.get(label, "").isdigit()},
        "hot_standby": "off",
        "max_logical_replication_workers": "0",
        "log_min_messages": "info",
        "lc_messages": "'C'",
        "local_preload_libraries": "''",
        "session_preload_libraries": "''",
    }
    if restore_command:
        settings.update(restore_command=restore_command, recovery_target="'immediate'", recovery_target_action="'promote'")
        with open(os.path.join(cluster.data, "recovery.signal"), "wb"):
            pass
    own(cluster)
    started = time.monotonic()
    try:
        cluster.start(settings, timeout)
    except MaintenanceError:
        raise MaintenanceError(f"it does not start: {_complaint(cluster)}") from None
    _wait_until_writable(cluster, timeout)
    seconds = time.monotonic() - started
    said = cluster.log_tail(100_000)
    if not any(words in said for words in _CONSISTENT):
        raise MaintenanceError("it started, but never said that it is consistent")
    return f"started and recovered until consistent in {human_seconds(seconds)}"


def _complaint(cluster: Cluster) -> str:
    lines = cluster.log_tail(200).split(" | ")
    said = [match.group(1) for match in map(_SAID.search, lines) if match]
    weighty = [text for text in said if "starting up" not in text and "shutting down" not in text]
    if not weighty:
        weighty = [line for line in lines if line.strip()]
    return clean(weighty[-1] if weighty else "its log says nothing", 300)


def _wait_until_writable(cluster: Cluster, timeout: float) -> None:
    """Wait until it has recovered: ``pg_ctl`` comes back before that."""
    ends = time.monotonic() + timeout
    while time.monotonic() < ends and os.path.exists(os.path.join(cluster.data, "postmaster.pid")):
        with contextlib.suppress(MaintenanceError), postgresql.connect(cluster.server) as session:
            if not session.value("SELECT pg_is_in_recovery()"):
                return
        time.sleep(0.1)
    raise MaintenanceError(f"it does not end its recovery: {_complaint(cluster)}")


def prove_running(cluster: Cluster, climb: Climb, restore_command: str = "") -> None:
    """Level 3 and above of a copy that lies in the cluster's folder."""
    started = time.monotonic()
    try:
        control = control_data(cluster.data, cluster.major)
        problem = control.get("WARNING", "")
        climb.say(3, "critical" if problem else "ok", problem or f"restored; its control file says PostgreSQL {cluster.major}")
        if climb.level < 4 or problem:
            return
        climb.say(4, "ok", recover(cluster, restore_command, _left(climb)))
    except MaintenanceError as error:
        climb.say(4 if climb.level >= 4 and climb.stands(3) else 3, "critical", str(error))
        return
    finally:
        climb.restore_seconds = (climb.restore_seconds or 0.0) + time.monotonic() - started
    examine(cluster, climb)


def _left(climb: Climb) -> float:
    deadline = float(climb.around.params["deadline"])
    return min(_START_SECONDS, max(deadline - climb.around.now, 1.0)) if deadline else _START_SECONDS


def examine(cluster: Cluster, climb: Climb) -> None:
    """Levels 4 and 5 of a copy that runs: amcheck on everything, every page against its checksum, then rows and sentinel."""
    climb.verdicts += [*_required(cluster, climb), *_amcheck(cluster)]
    if climb.level >= 5 and climb.stands(4):
        _content(cluster, climb)
    climb.verdicts += _checksums(cluster)


def _required(cluster: Cluster, climb: Climb) -> list[Verdict]:
    wanted = climb.declared["required_tables"]
    if not wanted:
        return []
    try:
        with postgresql.connect(cluster.server, climb.declared["database"], read_only=True) as session:
            tables = compare.tables_of(session)
    except MaintenanceError as error:
        return [Verdict(4, "critical", str(error))]
    missing = [name for name in wanted if compare.table_named(name, tables) is None]
    return [Verdict(4, "critical", f"wrong database: it lacks the tables {', '.join(missing)}")] if missing else []


def _amcheck(cluster: Cluster) -> list[Verdict]:
    argv = [
        cluster.program("pg_amcheck"),
        "-h",
        cluster.socket,
        "-p",
        "5432",
        "-U",
        "postgres",
        "--all",
        "--install-missing",
        "--no-strict-names",
    ]
    ran = postgresql_programs.run_program([*argv, "--heapallindexed"], os_user=cluster.os_user, timeout=_START_SECONDS)
    lines = [clean(line.strip(), 200) for line in (ran.stdout + "\n" + ran.stderr).splitlines() if line.strip()]
    if ran.rc == 0:
        return [Verdict(4, "ok", "pg_amcheck finds nothing in any database")]
    if ran.rc == 1 and "could not connect" in ran.stderr:
        return [Verdict(4, "unknown", f"pg_amcheck could not look: {lines[-1] if lines else 'no output'}")]
    return [Verdict(4, "critical", f"pg_amcheck: {line}") for line in lines[:10] or [f"it ended with {ran.rc}"]]


def _checksums(cluster: Cluster) -> list[Verdict]:
    """Stop the copy cleanly and read every page; ``pg_checksums`` looks at nothing that still runs."""
    stop = [cluster.program("pg_ctl"), "stop", "-D", cluster.data, "-m", "fast", "-w", "-t", "300"]
    ran = postgresql_programs.run_program(stop, os_user=cluster.os_user, timeout=320)
    if ran.rc != 0:
        return [Verdict(4, "unknown", f"the copy could not be stopped, so its pages were not read: {ran.why()}")]
    argv = [cluster.program("pg_checksums"), "--check", "-D", cluster.data]
    ran = postgresql_programs.run_program(argv, os_user=cluster.os_user, timeout=_START_SECONDS)
    if ran.rc != 0 and "not enabled" in ran.stderr:
        return [Verdict(4, "warning", "data checksums are not enabled in it, so a page that rotted in the source does not show")]
    scanned = re.search(r"Blocks scanned:\s+(\d+)", ran.stdout)
    bad = re.search(r"Bad checksums:\s+(\d+)", ran.stdout)
    if scanned and int(scanned.group(1)) and bad and not int(bad.group(1)) and ran.rc == 0:
        return [Verdict(4, "ok", f"{scanned.group(1)} pages agree with their checksums")]
    if bad and int(bad.group(1)):
        where = [line for line in ran.stderr.splitlines() if "checksum verification failed" in line]
        return [Verdict(4, "critical", f"{bad.group(1)} pages have a wrong checksum: {clean(where[0] if where else '', 200)}")]
    return [Verdict(4, "critical" if ran.rc else "unknown", f"pg_checksums: {ran.why()}")]


def _content(cluster: Cluster, climb: Climb) -> None:
    declared = climb.declared
    if not (declared["count_tables"] or declared["sentinel"] or declared["minimum_rows"]):
        climb.say(5, "unknown", "nothing is declared to compare (count_tables, minimum_rows, sentinel)")
        return
    source = _source(climb)
    try:
        with postgresql.connect(cluster.server, declared["database"], read_only=True, statement_timeout_seconds=900.0) as session:
            kept = compare.measured(session, declared)
    except MaintenanceError as error:
        climb.say(5, "critical", str(error))
        return
    live = None
    if source is not None:
        try:
            with postgresql.connect(source, declared["database"], read_only=True, statement_timeout_seconds=900.0) as session:
                live = compare.measured(session, declared)
        except MaintenanceError as error:
            climb.say(5, "unknown", f"the source could not be asked: {error}")
            return
    verdicts, behind = compare.compared(kept, live, declared, kept.roles, climb.around.now, climb.around.zone)
    climb.verdicts += verdicts
    climb.rpo_seconds = behind


def _source(climb: Climb) -> postgresql.Server | None:
    name = climb.declared["source_server"]
    return next((server for server in climb.around.params["servers"] if server["name"] == name), None) if name else None


def setting(text: str) -> str:
    """Quote a value for a line of PostgreSQL's configuration."""
    return "'" + text.replace("'", "''") + "'"


def copy_tree(source: str, cluster: Cluster, scratch_spaces: str) -> None:
    """Copy a data folder into the cluster; tablespaces, which are links in it, are copied as well.

    :raises MaintenanceError: it holds something else that leads outside.
    """
    shutil.copytree(source, cluster.data, symlinks=True, dirs_exist_ok=True)
    spaces = os.path.join(cluster.data, "pg_tblspc")
    for name in sorted(os.listdir(spaces)) if os.path.isdir(spaces) else ():
        link = os.path.join(spaces, name)
        if os.path.islink(link):
            target = os.path.join(scratch_spaces, name)
            shutil.copytree(os.path.join(source, "pg_tblspc", name), target, symlinks=True)
            os.unlink(link)
            os.symlink(target, link)
