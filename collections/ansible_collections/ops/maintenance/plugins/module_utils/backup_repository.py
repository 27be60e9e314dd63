# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all repositories of backups share: their tool is run with its secrets by reference, and its words become rungs of the ladder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
import typing as t
from datetime import datetime, timezone, tzinfo

from .backup_adaptor import Around, Climb
from .backup_kinds import Verdict
from .backup_proof import Scratch
from .backup_sets import Backup, Declared, File, local
from .errors import InputError, MaintenanceError, refusal
from .host import Ran
from .paths import open_regular
from .postgresql_programs import identity, run_program
from .postgresql_scratch import let_through
from .record import Finding, clean

REPOSITORY: dict[str, t.Any] = {
    "location": {"type": "str", "default": ""},
    "id": {"type": "str", "default": ""},
    "member": {"type": "str", "default": ""},
    "configuration": {"type": "path", "default": ""},
    "password_file": {"type": "path", "default": ""},
    "environment_file": {"type": "path", "default": ""},
    "os_user": {"type": "str", "default": ""},
    "host": {"type": "str", "default": ""},
    "paths": {"type": "list", "elements": "str", "default": []},
    "read_data_percent": {"type": "float", "default": 100.0},
    "restore_paths": {"type": "list", "elements": "str", "default": []},
    "timeout_seconds": {"type": "float", "default": 14400.0},
}
"""Argument spec of a repository; each tool uses what it has a word for."""

OPTIONS: dict[str, t.Any] = {
    "repository": {"type": "dict", "options": REPOSITORY},
    "content": {
        "type": "dict",
        "options": {
            "kind": {"type": "str", "choices": ["files", "postgresql", "redis", "sqlite"], "required": True},
            "pattern": {"type": "str", "default": "*"},
        },
    },
}
"""Options of a set that repositories add."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_URL_LOGIN = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_VARIABLE = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(.*)$")
# A size that is not known; the newest ones always are.
UNKNOWN_SIZE = 1

Json = t.Any


class GoneError(MaintenanceError):
    """There is no repository where one is declared: that is no backup, and not only something that could not be looked at."""


# The tool ------------------------------------------------------------------------------------------------------------


class Tool:
    """A repository's own program, run as the right user and within the time that is left.

    :param env: what the tool needs; values of it never reach a record.
    """

    def __init__(self, name: str, declared: Declared, env: t.Mapping[str, str] | None = None) -> None:
        repository = declared["repository"]
        found = shutil.which(name, path=_PATH)
        if found is None:
            raise MaintenanceError(f"{name} is not installed, so its repository cannot be looked at; install the package.")
        self.name = name
        self.program = found
        self.os_user = str(repository["os_user"])
        secret = environment_of(repository["environment_file"], f"repository.environment_file of set {declared['name']}")
        self._env = {**(env or {}), **secret}
        self._secrets = [value for value in secret.values() if len(value) > 3]
        self._ends = time.monotonic() + float(repository["timeout_seconds"])
        deadline = float(declared.get("deadline") or 0.0)
        if deadline:
            self._ends = min(self._ends, time.monotonic() + max(deadline - time.time(), 1.0))

    def run(self, *args: str, cwd: str = "/", env: t.Mapping[str, str] | None = None) -> Ran:
        """Run it; what it said has no secret in it.

        :raises MaintenanceError: it did not end in time.
        """
        ran = run_program([self.program, *args], os_user=self.os_user, timeout=self.left(), env={**self._env, **(env or {})}, cwd=cwd)
        return Ran(ran.argv, ran.rc, ran.stdout, self.scrubbed(ran.stderr))

    def left(self) -> float:
        """Return the seconds that it may still take."""
        return max(self._ends - time.monotonic(), 1.0)

    def environment(self) -> dict[str, str]:
        """Return what it runs with."""
        return {"PATH": _PATH, "LC_ALL": "C", **self._env}

    def lines(self, *args: str) -> t.Iterator[Json]:
        """Run it and yield what it prints, one JSON object a line, however much that is.

        :raises MaintenanceError: it ended with an error.
        """
        with tempfile.TemporaryFile() as printed:
            ran = run_program([self.program, *args], os_user=self.os_user, timeout=self.left(), env=self._env, stdout=printed)
            if ran.rc != 0:
                raise MaintenanceError(self.scrubbed(ran.why()))
            printed.seek(0)
            for line in printed:
                if line.startswith(b"{"):
                    yield json.loads(line)

    def json_of(self, ran: Ran) -> Json:
        """Return the JSON document that it printed.

        :raises MaintenanceError: it printed none.
        """
        try:
            return json.loads(ran.stdout)
        except ValueError:
            raise MaintenanceError(f"{self.why(ran)}; its answer is not JSON") from None

    def why(self, ran: Ran) -> str:
        """Say in one line how it ended, without any secret."""
        said = [line.strip() for line in (ran.stderr.strip() or ran.stdout.strip()).splitlines() if line.strip()]
        return self.scrubbed(f"{self.name} ended with {ran.rc}: {clean(said[0], 300) if said else 'no output'}")

    def scrubbed(self, text: str) -> str:
        """Take logins of addresses and values of the environment file out of a text."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _URL_LOGIN.sub(r"\1***@", text)


def _private_text(path: str, option: str) -> str:
    """Read a file with a secret; one that others may read is refused.

    :raises InputError: it cannot be read, or others may read it.
    """
    try:
        with open_regular(path) as source:
            mode = os.fstat(source.fileno()).st_mode
            text = source.read(64 * 1024).decode("utf-8", "surrogateescape")
    except (OSError, MaintenanceError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{option} is {path}, which cannot be read ({said}); put the secret there, mode 0600.") from None
    if mode & 0o077:
        raise InputError(f"{option} is {path} with mode {stat.S_IMODE(mode):04o}, expected 0600; others could read it: chmod it.")
    return text


def environment_of(path: str, option: str) -> dict[str, str]:
    """Return the variables of a file with lines such as ``NAME=value``; none where no file is named."""
    if not path:
        return {}
    found = {}
    for line in _private_text(path, option).splitlines():
        match = _VARIABLE.match(line.strip())
        if match:
            value = match.group(2)
            found[match.group(1)] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    return found


def has_password(declared: Declared) -> bool:
    """Whether the password file of a set holds one that is not empty.

    :raises InputError: it cannot be read, or others may read it.
    """
    path = declared["repository"]["password_file"]
    return not path or bool(_private_text(path, f"repository.password_file of set {declared['name']}").strip())


def location_of(declared: Declared) -> str:
    """Return the address of the repository: ``repository.location``, or the folder ``root``."""
    return str(declared["repository"]["location"] or declared["root"])


def problems_of(declared: Declared, *, needs: t.Sequence[str] = (), needs_location: bool = False) -> list[str]:
    """Return what no tool can work with, one sentence each."""
    name, repository = declared["name"], declared["repository"]
    if not repository:
        return [str(InputError.of(f"repository of set {name}", None, f"what {declared['kind']} has to know", "give it"))]
    problems = [
        str(InputError.of(f"repository.{option} of set {name}", "", f"what {declared['kind']} needs", "give it"))
        for option in needs
        if not repository[option]
    ]
    if needs_location and not location_of(declared):
        problems.append(str(InputError.of(f"root of set {name}", "", "the folder of the repository (or repository.location)", "give it")))
    if not 0 < repository["read_data_percent"] <= 100:
        value = repository["read_data_percent"]
        problems.append(str(InputError.of(f"repository.read_data_percent of set {name}", value, "above 0, up to 100", "correct it")))
    if not repository["timeout_seconds"] > 0:
        value = repository["timeout_seconds"]
        problems.append(str(InputError.of(f"repository.timeout_seconds of set {name}", value, "seconds above 0", "correct it")))
    return problems


def host_problems(declared: Declared) -> t.Iterator[str]:
    """Say which files and users of a declaration this host does not have; the control node cannot know."""
    for part in ("repository", "command"):
        given = declared[part] or {}
        for option in ("password_file", "environment_file"):
            if given.get(option):
                yield from refusal(_private_text, given[option], f"{part}.{option} of set {declared['name']}")
        yield from (f"{part} of set {declared['name']}: {problem}" for problem in refusal(identity, given.get("os_user") or ""))


# Backups of a repository ---------------------------------------------------------------------------------------------


def moment_of(text: str) -> float:
    """Return the time of an ISO 8601 text such as the tools print; UTC where it names no zone.

    :raises MaintenanceError: it is none.
    """
    short = re.sub(r"(\.\d{6})\d+", r"\1", text.strip().replace("Z", "+00:00"))
    try:
        made = datetime.fromisoformat(short)
    except ValueError:
        raise MaintenanceError(f"{text!r} is no time that is known here") from None
    return (made if made.tzinfo else made.replace(tzinfo=timezone.utc)).timestamp()


def entry(path: str, size: int, moment: float, zone: tzinfo | None, took: float | None = None) -> Backup:
    """Return a backup of a repository; it is no file that could be looked at by itself."""
    return Backup(path, (File(path, size, 0),), moment, local(moment, zone).date(), took)


def name_of(backup: Backup) -> str:
    """Return what the repository calls a backup."""
    return backup.path.rpartition("::")[2]


# Rungs ---------------------------------------------------------------------------------------------------------------


class Ladder:
    """The climb of one backup of a repository, whose tool has only so much time."""

    def __init__(self, climb: Climb) -> None:
        self.climb = climb
        self.backup = climb.backup
        self.declared = timed(climb.declared, climb.around)
        self.scratch = climb.scratch
        self.now = climb.around.now

    def wants(self, level: int) -> bool:
        """Whether the climb goes on to this level."""
        return self.climb.level >= level and self.climb.stands(level - 1)

    def rung(self, level: int, verdicts: t.Iterable[Verdict], *, not_covered: str = "") -> None:
        """Note what one level said."""
        self.climb.verdicts += verdicts
        if not_covered:
            self.climb.sampled[level] = not_covered

    def encryption(self, state: str, text: str) -> None:
        """Say how the backup is encrypted, where the set says that it has to be."""
        if not self.declared["encrypted"]:
            return
        self.climb.findings.append(
            Finding(
                id="backup.encryption", state=state, subject=self.backup.path, summary=text,
                advice="" if state == "ok" else "Encrypt the repository (a new one, for most tools), or correct what is declared.",
            )
        )  # fmt: skip

    @contextlib.contextmanager
    def looking(self, level: int) -> t.Iterator[None]:
        """Turn what cannot be looked at into an unknown rung."""
        try:
            yield
        except (MaintenanceError, OSError) as error:
            said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            self.climb.say(level, "unknown", said)


def timed(declared: Declared, around: Around) -> Declared:
    """Let a set know when the window closes."""
    return {**declared, "deadline": around.params["deadline"]}


@contextlib.contextmanager
def work_folder(scratch: Scratch, needed: int, os_user: str) -> t.Iterator[str]:
    """Yield an empty folder in the scratch that the tool's user may write to; it is removed whatever happens.

    :raises MaintenanceError: there is no room for ``needed`` bytes.
    """
    with scratch.target(needed, False) as target:
        if target.problem:
            raise MaintenanceError(target.problem)
        folder = target.path_of("")[:-1]
        os.mkdir(folder, 0o700)
        owner = identity(os_user)
        if owner and owner["user"] != os.geteuid():
            let_through(scratch.path)
            os.chmod(os.path.dirname(folder), 0o711)  # noqa: S103 - entered, not read
            os.chown(folder, owner["user"], owner["group"])
        yield folder
