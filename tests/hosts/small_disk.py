"""A small filesystem that gets full and is freed again, and clusters that have a part of themselves on it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess

from clusters import AS_IN_PRODUCTION, running_cluster

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql, postgresql_programs

ROOT = pathlib.Path("/small")
"""Mounted by scripts/host_tests.sh."""

_LOG_FILE_BYTES = 1024 * 1024
_BALLAST = ROOT / "ballast"


def fill(leave=0):
    """Fill the filesystem until so many bytes are left."""
    assert os.path.ismount(ROOT), f"{ROOT} is no filesystem of its own, so filling it proves nothing"
    free()
    with open(_BALLAST, "wb") as ballast:
        for _attempt in range(20):  # a server may write at the same time
            status = os.statvfs(ROOT)
            room = status.f_bavail * status.f_frsize - leave
            if room <= 0:
                return
            with contextlib.suppress(OSError):
                os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, room)


def free():
    """Free what was filled."""
    _BALLAST.unlink(missing_ok=True)


@contextlib.contextmanager
def full_once(begin, leave=0, before=lambda: None):
    """Fill the disk when a session is about to run a statement that begins with given words; ``before`` is done just before that."""
    original, struck = postgresql.Session._run, []

    def run(self, statement, params):
        if statement.startswith(begin) and not struck:
            struck.append(statement)
            before()
            fill(leave)
        return original(self, statement, params)

    postgresql.Session._run = run
    try:
        yield struck
    finally:
        postgresql.Session._run = original


def _log_there(cluster):
    """Put the cluster's write-ahead log on the small disk, in files of one megabyte."""
    argv = [cluster.program("pg_resetwal"), f"--wal-segsize={_LOG_FILE_BYTES >> 20}", "-D", cluster.data]
    assert postgresql_programs.run_program(argv, os_user=cluster.os_user).rc == 0
    log = os.path.join(cluster.data, "pg_wal")
    shutil.copytree(log, ROOT / "wal")
    subprocess.run(["chown", "-R", f"{cluster.os_user}:", str(ROOT / "wal")], check=True)
    shutil.rmtree(log)
    os.symlink(ROOT / "wal", log)


# No file of the log is made beforehand, so that the next one meets the full disk.
_SMALL_LOG = {"wal_recycle": "off", "min_wal_size": "'2MB'", "max_wal_size": "'24MB'"}


class Cramped:
    """A cluster of which ``part`` lies on the small disk: the ``data`` of the database ``shop``, or the ``log`` of everything."""

    def __init__(self, cluster, part, settings):
        self.cluster, self.part, self.server = cluster, part, cluster.server
        self.settings = settings

    def session(self, database="shop"):
        return postgresql.connect(self.server, database)

    def make_shop(self):
        """Make the database anew, empty."""
        try:
            self.session("postgres").close()
        except postgresql.NotReachableError:
            self.heal()
        free()
        with self.session("postgres") as session:
            session.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
            session.execute(f"CREATE DATABASE shop{' TABLESPACE small' if self.part == 'data' else ''}")

    def settle(self, left):
        """Keep no file of the log that is not needed, and leave so many bytes in the last one."""
        with self.session() as session:
            session.execute("CHECKPOINT")
            session.execute("SELECT pg_switch_wal()")
            session.execute("SELECT pg_logical_emit_message(false, 'filling', repeat('x', %s))", [_LOG_FILE_BYTES - left])

    def heal(self):
        """Free the disk, and start the server again where that stopped it."""
        free()
        if self.part == "log":
            self.cluster.stop()
            self.cluster.start(self.settings)


@contextlib.contextmanager
def cramped(part):
    """Yield a :class:`Cramped`; the small disk is empty afterwards."""
    settings = {**AS_IN_PRODUCTION, **(_SMALL_LOG if part == "log" else {})}
    try:
        with running_cluster(settings, _log_there if part == "log" else None) as cluster:
            if part == "data":
                (ROOT / "data").mkdir()
                shutil.chown(ROOT / "data", cluster.os_user)
                with postgresql.connect(cluster.server) as session:
                    session.execute(f"CREATE TABLESPACE small LOCATION '{ROOT}/data'")
            yield Cramped(cluster, part, settings)
    finally:
        for left in ROOT.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
