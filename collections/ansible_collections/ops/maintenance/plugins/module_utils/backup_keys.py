# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key of encrypted backups, fetched from where it is kept for the day that this host is lost; the restore test uses that one and no other."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t
from dataclasses import dataclass

from . import held_folder
from .backup_encryption import command_problems
from .backup_proof import PREFIX, Scratch
from .backup_repository import environment_of
from .backup_sets import Declared
from .errors import InputError, MaintenanceError, out_of_range
from .judge import human_seconds
from .postgresql_programs import run_program
from .record import Finding

OPTIONS: dict[str, t.Any] = {
    "recovery_key": {
        "type": "dict",
        "no_log": False,  # how the key is fetched, not the key
        "options": {
            "command": {"type": "list", "elements": "str", "required": True},
            "os_user": {"type": "str", "default": ""},
            "environment_file": {"type": "path", "default": ""},
            "timeout_seconds": {"type": "float", "default": 60.0},
        },
    }
}
"""Options of a set: the program that prints the key, from where it is kept apart from this host."""

PLACE = "{key}"
_DRILL = 3
_ADVICE = "Keep the key where it outlives this host, make it reachable, and drill again; without it nobody can read these backups."


@dataclass
class Key:
    """What came of fetching the key of one set."""

    declared: dict[str, t.Any]
    seconds: float = 0.0
    problem: str = ""


def problems(declared: Declared) -> t.Iterator[str]:
    """Say what cannot be meant, one sentence each."""
    name, key = declared["name"], declared["recovery_key"]
    named = any(PLACE in part for part in declared["decrypt_command"])
    if not key:
        if named:
            yield f"decrypt_command of set {name} has {PLACE}, but recovery_key is not given, which fetches it; give it."
        return
    if not key["command"]:
        yield str(
            InputError.of(f"recovery_key.command of set {name}", [], "the program that prints the key, and its arguments", "give them")
        )
    if not named:
        yield f"decrypt_command of set {name} lacks {PLACE}, expected it where the file with the fetched key is to stand; add it."
    if not declared["encrypted"]:
        yield f"encrypted of set {name} is false while recovery_key is given, expected true; set it, or leave recovery_key out."
    yield from command_problems(key["command"], f"recovery_key.command of set {name}")
    yield from (f"{problem} It is in recovery_key of set {name}." for problem in out_of_range(key, ("timeout_seconds",), least=1))


@contextlib.contextmanager
def fetched(sets: t.Sequence[Declared], scratch_path: str) -> t.Iterator[dict[str, Key]]:
    """Fetch the keys of the sets, and give each of them a command that uses its key alone; no key stays here."""
    wanted = [declared for declared in sets if declared["recovery_key"]]
    if not wanted:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        try:
            scratch = Scratch(scratch_path)
            stack.callback(scratch.close)
            folder = stack.enter_context(held_folder.held(scratch.path, PREFIX))
        except (MaintenanceError, OSError) as error:
            problem = f"the scratch folder cannot be used: {error}"
            yield {declared["name"]: Key({**declared, "decrypt_command": []}, problem=problem) for declared in wanted}
            return
        yield {declared["name"]: _fetched(declared, folder, number) for number, declared in enumerate(wanted)}


def _fetched(declared: Declared, folder: str, number: int) -> Key:
    asked = declared["recovery_key"]
    path, home = os.path.join(folder, f"key-{number}"), os.path.join(folder, f"home-{number}")
    os.mkdir(home, 0o700)
    started = time.monotonic()
    problem = ""
    try:
        program = shutil.which(asked["command"][0])
        if program is None:
            raise MaintenanceError(f"{asked['command'][0]} is not installed")
        env = environment_of(asked["environment_file"], "recovery_key.environment_file")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as target:
            ran = run_program(
                [program, *asked["command"][1:]], os_user=asked["os_user"], timeout=asked["timeout_seconds"], env=env, stdout=target
            )
        if ran.rc != 0:
            raise MaintenanceError(f"{os.path.basename(program)} ended with {ran.rc}")
        if not os.path.getsize(path):
            raise MaintenanceError(f"{os.path.basename(program)} printed nothing")
    except (MaintenanceError, OSError) as error:
        problem = str(error)
    # A key of this host must not help: neither one of the program's own settings nor one of its agent.
    apart = ["/usr/bin/env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", f"HOME={home}", f"GNUPGHOME={home}"]
    command = [*apart, *(part.replace(PLACE, path) for part in declared["decrypt_command"])]
    return Key({**declared, "decrypt_command": [] if problem else command}, time.monotonic() - started, problem)


def finding(declared: Declared, key: Key | None, level: int, encrypted: bool) -> Finding | None:
    """Say whether the key can be had without this host, as the restore test of a set showed it.

    :param level: to what level its newest backup was proven.
    :param encrypted: whether that backup begins as encrypted ones do.
    """
    name, id_ = declared["name"], "backup.recovery_key"
    if key is None:
        if declared["encrypted"] and declared["decrypt_command"] and declared["level"] >= _DRILL:
            words = "it is read with a key of this host; whether the key can be had without this host is not known"
            return Finding(id_, "unknown", name, words, advice="Declare recovery_key: how the key is fetched from where it is kept.")
        return None
    if key.problem:
        return Finding(id_, "critical", name, f"the key could not be fetched: {key.problem}", advice=_ADVICE)
    if level < 1 or not encrypted:
        words = "the key was fetched, but nothing was read with it" if not encrypted else "what was fetched does not open the newest backup"
        return Finding(id_, "critical", name, words, advice=_ADVICE)
    words = f"fetched in {human_seconds(key.seconds)}, and it alone opened the newest backup"
    return Finding(id_, "ok", name, words, round(key.seconds, 3), "seconds")
