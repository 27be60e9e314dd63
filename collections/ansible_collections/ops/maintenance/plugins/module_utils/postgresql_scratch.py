# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away PostgreSQL clusters: on a private socket, reachable over no network, gone afterwards whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import stat
import typing as t

from . import postgresql_programs
from .errors import MaintenanceError
from .paths import ensure_private_folder
from .postgresql import Server

_PREFIX = "pg_"
_LOCK = ".lock"

# Durability is of no use to data that is thrown away. Nothing in here may reach out: no archiving, no replication, no TCP.
_SETTINGS = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "'4GB'",
    "archive_mode": "off",
    "autovacuum": "off",
    "shared_buffers": "'128MB'",
    "maintenance_work_mem": "'256MB'",
    "max_connections": "20",
    "logging_collector": "off",
    "ssl": "off",
    "shared_preload_libraries": "''",
    "cluster_name": "'ops_maintenance_scratch'",
}


class Cluster:
    """A throw-away cluster that runs.

    :param folder: its private folder, with ``data``, ``socket`` and ``log`` in it.
    :param server: how to reach it, in the form of :data:`postgresql.SERVER`.
    """

    def __init__(self, folder: str, major: int, os_user: str) -> None:
        self.folder = folder
        self.major = major
        self.os_user = os_user
        self.data = os.path.join(folder, "data")
        self.socket = os.path.join(folder, "socket")
        self.log = os.path.join(folder, "log")
        self.server: Server = {
            "name": "scratch",
            "host": self.socket,
            "port": 5432,
            "user": "postgres",
            "os_user": os_user,
            "password": "",
            "password_file": "",
            "ssl_mode": "prefer",
            "ssl_root_certificate": "",
            "connect_timeout_seconds": 10,
            "connect_database": "postgres",
            "databases": [],
        }

    def program(self, name: str) -> str:
        """Return the path of a program of the cluster's version."""
        return postgresql_programs.find_program(name, self.major)

    def initialise(self) -> None:
        """Make the empty cluster. Data checksums are on, so that a damaged page shows."""
        argv = [self.program("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-k"]
        self._run(argv, "initdb", 300)

    def start(self, settings: t.Mapping[str, str] | None = None, timeout: float = 60.0) -> None:
        """Write the settings that keep it to itself, start it and wait until it answers.

        :param settings: further lines of ``postgresql.auto.conf``, values already quoted.
        :raises MaintenanceError: it does not start; the message holds the last line of its log.
        """
        lines = {**_SETTINGS, **(settings or {}), "unix_socket_directories": f"'{self.socket}'", "port": "5432"}
        for name, text in (
            ("postgresql.auto.conf", "".join(f"{key} = {value}\n" for key, value in lines.items())),
            ("pg_hba.conf", "local all all trust\nlocal replication all trust\n"),
        ):
            self._write(os.path.join(self.data, name), text)
        argv = [self.program("pg_ctl"), "start", "-D", self.data, "-l", self.log, "-w", "-t", f"{timeout:.0f}"]
        # A restored cluster may name its files elsewhere; a scratch one is complete in its data folder.
        if not os.path.exists(os.path.join(self.data, "postgresql.conf")):
            self._write(os.path.join(self.data, "postgresql.conf"), "")
        self._run(argv, "the throw-away cluster", timeout + 30)

    def stop(self) -> None:
        """Stop it at once, and make sure of it."""
        if os.path.exists(os.path.join(self.data, "postmaster.pid")):
            with contextlib.suppress(MaintenanceError):
                argv = [self.program("pg_ctl"), "stop", "-D", self.data, "-m", "immediate", "-w", "-t", "30"]
                postgresql_programs.run_program(argv, os_user=self.os_user, timeout=40)
        _kill(self.data)

    def log_tail(self, lines: int = 3) -> str:
        """Return the end of the cluster's log."""
        try:
            with open(self.log, encoding="utf-8", errors="backslashreplace") as source:
                return " | ".join(line.strip() for line in source.readlines()[-lines:])
        except OSError:
            return ""

    def _write(self, path: str, text: str) -> None:
        file_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(file_fd, "w", encoding="utf-8") as target:
            target.write(text)
        owner = postgresql_programs.identity(self.os_user)
        if owner:
            os.chown(path, owner["user"], owner["group"])

    def _run(self, argv: t.Sequence[str], what: str, timeout: float) -> None:
        ran = postgresql_programs.run_program(argv, os_user=self.os_user, timeout=timeout)
        if ran.rc != 0:
            said = self.log_tail() or ran.why()
            raise MaintenanceError(f"{what} in {self.folder} failed: {said}; look at disk space and the version of PostgreSQL.")


@contextlib.contextmanager
def scratch_cluster(scratch: str, major: int, os_user: str = "postgres") -> t.Iterator[Cluster]:
    """Yield a cluster whose folder exists and is empty; it is stopped and removed whatever happens.

    Call :meth:`Cluster.initialise` (or fill ``data`` from a physical backup), then :meth:`Cluster.start`.

    :param scratch: private folder of root for such things; the cluster's own folder in it belongs to ``os_user``.
    :raises MaintenanceError: the folder cannot be made, or PostgreSQL's programs of this version are missing.
    """
    postgresql_programs.find_program("initdb", major)
    sweep(scratch)
    folder = os.path.join(scratch, _PREFIX + secrets.token_hex(4))
    cluster = Cluster(folder, major, os_user)
    owner = postgresql_programs.identity(os_user)
    os.mkdir(folder, 0o700)
    lock_fd = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        if owner:
            let_through(scratch)
            os.chown(folder, owner["user"], owner["group"])
        for name in (cluster.data, cluster.socket):
            os.mkdir(name, 0o700)
            if owner:
                os.chown(name, owner["user"], owner["group"])
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock_fd)


def sweep(scratch: str) -> list[str]:
    """Stop and remove clusters that a killed run left; return their folders. One whose run lives is left alone."""
    ensure_private_folder(scratch)
    swept = []
    for name in sorted(os.listdir(scratch)):
        folder = os.path.join(scratch, name)
        if not name.startswith(_PREFIX) or not stat.S_ISDIR(os.lstat(folder).st_mode):
            continue
        try:
            lock_fd = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            _kill(os.path.join(folder, "data"))
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
        finally:
            os.close(lock_fd)
    return swept


def let_through(scratch: str) -> None:
    """Let the cluster's user enter the scratch folder and the one that holds it, without showing what lies in them.

    :raises MaintenanceError: a folder further up lets nobody through.
    """
    for path in (scratch, os.path.dirname(scratch)):
        status = os.lstat(path)
        if status.st_uid == os.geteuid():
            os.chmod(path, stat.S_IMODE(status.st_mode) | 0o011)  # noqa: S103 - entered, not read
    above = os.path.dirname(os.path.realpath(scratch))
    while above != "/":
        if not os.lstat(above).st_mode & 0o001:
            raise MaintenanceError(
                f"PostgreSQL's user cannot reach the scratch folder {scratch}: {above} has mode {os.lstat(above).st_mode & 0o777:04o}; "
                "name a scratch folder that it can reach."
            )
        above = os.path.dirname(above)


def _kill(data: str) -> None:
    """Kill the postmaster of a data folder, if its process really works there."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(os.path.join(data, "postmaster.pid"), encoding="ascii", errors="replace") as source:
            pid = int(source.readline())
        if os.path.realpath(os.readlink(f"/proc/{pid}/cwd")) == os.path.realpath(data):
            os.kill(pid, signal.SIGQUIT)
