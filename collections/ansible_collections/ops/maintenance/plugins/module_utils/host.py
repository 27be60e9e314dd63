# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module may do to the machine, in one small class that tests replace."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
import typing as t
from dataclasses import dataclass
from datetime import datetime, timezone

from .errors import MaintenanceError
from .record import clean

OUTPUT_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    argv: t.Sequence[str]
    rc: int
    stdout: str
    stderr: str

    def why(self) -> str:
        """Say in one line how the command ended, for an error or a finding."""
        said = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return clean(f"{os.path.basename(self.argv[0])} ended with {self.rc}: {said[-1] if said else 'no output'}", 300)


class Host:
    """The machine a module works on."""

    def now(self) -> datetime:
        """Return the time, always with a zone (UTC)."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def which(self, name: str) -> str | None:
        """Return the path of a command, the system folders included."""
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
        return shutil.which(name, path=path)

    def run(
        self,
        argv: t.Sequence[str],
        *,
        timeout: float = 60,
        stdin: str | None = None,
        env: t.Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        """Run a command given as an argument list, in the C locale, and return what it answered.

        :param timeout: seconds; the command is killed after that.
        :raises MaintenanceError: the command is missing or did not end in time.
        """
        program = self.which(argv[0])
        if program is None:
            raise MaintenanceError(f"The command {argv[0]} is not installed; install it or change the inventory.")
        full_env = {**os.environ, "LC_ALL": "C", **(env or {})}
        full_env["PATH"] = os.pathsep.join([full_env.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
        try:
            done = subprocess.run(
                [program, *argv[1:]],
                check=False,
                capture_output=True,
                timeout=timeout,
                input=(stdin or "").encode(),
                env=full_env,
                cwd=cwd,
            )
        except subprocess.TimeoutExpired:
            raise MaintenanceError(
                f"{argv[0]} did not end within {timeout:g} seconds and was stopped; look at what it waits for, or raise its time limit."
            ) from None
        except OSError as error:
            raise MaintenanceError(f"{argv[0]} could not be started: {error.strerror}.") from error
        return Ran(
            argv=list(argv),
            rc=done.returncode,
            stdout=done.stdout[:OUTPUT_LIMIT_BYTES].decode("utf-8", "backslashreplace"),
            stderr=done.stderr[:OUTPUT_LIMIT_BYTES].decode("utf-8", "backslashreplace"),
        )

    def lines(self, argv: t.Sequence[str], *, timeout: float = 600) -> t.Iterator[bytes]:
        """Run a command and yield its output line by line, in constant memory; ending early stops the command.

        :param timeout: seconds; the command is killed after that.
        :raises MaintenanceError: the command is missing, ended with an error or did not end in time.
        """
        program = self.which(argv[0])
        if program is None:
            raise MaintenanceError(f"The command {argv[0]} is not installed; install it or change the inventory.")
        env = {**os.environ, "LC_ALL": "C"}
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen([program, *argv[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=env) as child,
        ):
            watch = threading.Timer(timeout, child.kill)
            watch.start()
            try:
                yield from child.stdout or ()
            except GeneratorExit:
                child.kill()
                raise
            finally:
                late = not watch.is_alive()
                watch.cancel()
            if child.wait() != 0:
                errors.seek(0)
                said = errors.read(4096).decode("utf-8", "backslashreplace")
                why = f"{argv[0]} did not end within {timeout:g} seconds" if late else Ran(argv, child.returncode, "", said).why()
                raise MaintenanceError(f"{why}; look at what it met, or raise its time limit.")
