# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's own programs: found by major version, run as another user, passwords never on a command line."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import typing as t

from .errors import InputError, MaintenanceError
from .host import OUTPUT_LIMIT_BYTES, Ran
from .paths import password_of
from .postgresql import ABSENT_PASSFILE, Server, socket_folder

_PLACES = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin", "/usr/local/pgsql/bin", "/usr/bin", "/usr/local/bin")


def find_program(name: str, major: int, *, or_newer: bool = False) -> str:
    """Return the path of a program such as ``pg_dump`` or ``initdb`` of one major version.

    :param or_newer: a later version will do (``pg_dump`` and ``pg_restore`` read older servers and archives).
    :raises MaintenanceError: it is not installed.
    """
    majors = [major] if not or_newer else sorted({major, *(found for found in installed_majors() if found > major)})
    for wanted in majors:
        for place in _PLACES:
            path = os.path.join(place.format(major=wanted), name)
            if os.access(path, os.X_OK) and version_of(path) == wanted:
                return path
    package = f"postgresql-{'' if name in ('initdb', 'postgres', 'pg_ctl') else 'client-'}{major}"
    raise MaintenanceError(
        f"{name} of PostgreSQL {major}{' or newer' if or_newer else ''} is not installed; install the package {package}."
    )


def installed_majors() -> list[int]:
    """Return the major versions whose programs are installed where packages put them."""
    found = (re.search(r"(\d+)/bin$", path) for place in _PLACES[:2] for path in glob.glob(place.format(major="*")))
    return sorted({int(match.group(1)) for match in found if match})


def version_of(path: str) -> int:
    """Return the major version that a program says it has; 0 when it does not say."""
    try:
        said = subprocess.run([path, "--version"], check=False, capture_output=True, timeout=20).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r"\) (\d+)", said)
    return int(match.group(1)) if match else 0


def identity(user: str) -> dict[str, t.Any]:
    """Return what subprocess needs to run a program as a user: nothing where we are not root or the name is empty.

    :raises InputError: there is no such user.
    """
    if os.geteuid() != 0 or not user:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise InputError.of("os_user", user, "a user of this host", "correct it") from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": os.getgrouplist(user, entry.pw_gid)}


def run_program(
    argv: t.Sequence[str],
    *,
    os_user: str = "",
    timeout: float = 3600.0,
    env: t.Mapping[str, str] | None = None,
    stdin: t.IO[bytes] | int = subprocess.DEVNULL,
    stdout: t.IO[bytes] | int = subprocess.PIPE,
    nice: int = 0,
    pass_fds: t.Sequence[int] = (),
    cwd: str = "/",
) -> Ran:
    """Run a program (absolute path first) as a user, with a clean environment in the C locale.

    :param timeout: seconds; the program and all that it started are killed after that.
    :param pass_fds: open files and folders that the program shares; it reaches them as ``/proc/self/fd/<number>``.
    :raises MaintenanceError: it could not be started or did not end in time.
    """
    name = os.path.basename(argv[0])
    clean_env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **(env or {})}
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=errors,
                env=clean_env,
                cwd=cwd,
                start_new_session=True,
                pass_fds=pass_fds,
                **identity(os_user),
            )
        except OSError as error:
            raise MaintenanceError(f"{name} could not be started: {error.strerror}.") from error
        if nice:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PGRP, child.pid, nice)
        try:
            said, _none = child.communicate(timeout=timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, 9)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                advice = "look at what it waits for, or raise its time limit"
                raise MaintenanceError(f"{name} did not end within {timeout:g} seconds and was stopped; {advice}.") from None
            raise
        errors.seek(0)
        stderr = errors.read(OUTPUT_LIMIT_BYTES).decode("utf-8", "backslashreplace")
    return Ran(list(argv), child.returncode, (said or b"")[:OUTPUT_LIMIT_BYTES].decode("utf-8", "backslashreplace"), stderr)


@contextlib.contextmanager
def client_environment(server: Server) -> t.Iterator[dict[str, str]]:
    """Yield the environment with which PostgreSQL's client programs reach a server; a password lies in a private file meanwhile."""
    env = {
        "PGHOST": socket_folder(server) or str(server["host"]),
        "PGPORT": str(server["port"]),
        "PGUSER": str(server["user"]),
        "PGCONNECT_TIMEOUT": str(server["connect_timeout_seconds"]),
        "PGAPPNAME": "ops.maintenance",
        "PGPASSFILE": ABSENT_PASSFILE,
    }
    if not socket_folder(server):
        env["PGSSLMODE"] = server["ssl_mode"]
        if server["ssl_root_certificate"]:
            env["PGSSLROOTCERT"] = server["ssl_root_certificate"]
    password = password_of(server)
    if not password:
        yield env
        return
    folder = tempfile.mkdtemp(prefix="ops_maintenance_")
    try:
        path = os.path.join(folder, "pgpass")
        shown = password.replace("\\", "\\\\").replace(":", "\\:")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", errors="surrogateescape") as target:
            target.write(f"*:*:*:*:{shown}\n")
        owner = identity(client_user(server))
        if owner:
            os.chown(path, owner["user"], owner["group"])
            os.chown(folder, owner["user"], owner["group"])
        yield {**env, "PGPASSFILE": path}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def client_user(server: Server) -> str:
    """Return the operating system's user that client programs of a server run as; over TCP that does not matter."""
    return str(server["os_user"]) if socket_folder(server) else ""
