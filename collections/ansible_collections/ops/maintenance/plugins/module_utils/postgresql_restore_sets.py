# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared sets of dumps that a database can be restored from: what is proven of them, and how an encrypted one is read."""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import backup_keys
from .backup_encryption import command_problems, encryption_of_file
from .backup_proof import Scratch
from .backup_proven import deepest
from .backup_sets import Declared
from .backup_stream import one_pass
from .errors import InputError, MaintenanceError
from .paths import read_state
from .record import Json

OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "root": {"type": "str", "required": True},
    "database": {"type": "str", "default": ""},
    "encrypted": {"type": "bool", "default": False},
    "decrypt_command": {"type": "list", "elements": "str", "default": []},
    **backup_keys.OPTIONS,
}
"""Options of a set, as backup verification has them."""


class Known(t.NamedTuple):
    """A backup that verification proved."""

    path: str
    level: int
    time: str
    set_name: str


def check(sets: t.Sequence[Declared]) -> None:
    """Refuse sets that cannot be meant.

    :raises InputError: some cannot.
    """
    if not sets:
        expected = "the declared sets of PostgreSQL dumps"
        raise InputError.of("sets", sets, expected, "declare them in backup_verification_sets with kind postgresql")
    wrong = [problem for declared in sets for problem in _problems(declared)]
    if wrong:
        raise InputError("Nothing can be restored: " + " ".join(wrong))


def _problems(declared: Declared) -> t.Iterator[str]:
    name, root = declared["name"], declared["root"]
    if not is_absolute(root):
        yield f"the folder of set {name!r} is {root!r}, expected an absolute path; correct the inventory."
    yield from command_problems(declared["decrypt_command"], f"decrypt_command of set {name}")
    yield from backup_keys.problems(declared)


def is_absolute(path: Json) -> bool:
    """Whether a path is a full one without detours."""
    return isinstance(path, str) and os.path.isabs(path) and os.path.normpath(path) == path and path != "/"


def proven(state_dir: str, sets: t.Sequence[Declared]) -> list[Known]:
    """Return what verification proved of the declared sets, the newest first."""
    found = []
    names = {declared["name"] for declared in sets}
    for name, proof in read_state(state_dir, "backup_proofs.json").get("sets", {}).items():
        if name in names and proof.get("path"):
            found.append(Known(proof["path"], deepest(proof), str(proof.get("time", "")), name))
    return sorted(found, key=lambda known: (known.time, known.level), reverse=True)


def clean_before(state_dir: str, sets: t.Sequence[Declared]) -> list[Known]:
    """Return older backups that were found clean when they were the newest and whose files are the same still, newest first."""
    found = []
    names = {declared["name"] for declared in sets}
    for name, files in read_state(state_dir, "backup_history.json").get("files", {}).items():
        for path, seen in files.items() if name in names else ():
            status = os.lstat(path) if os.path.lexists(path) else None
            if status and (status.st_size, status.st_mtime_ns) == (seen.get("size"), seen.get("mtime_ns")):
                found.append((status.st_mtime_ns, Known(path, -1, str(seen.get("first_seen", "")), name)))
    return [known for _time, known in sorted(found, reverse=True)]


@contextlib.contextmanager
def readable(path: str, declared: Declared, scratch_path: str) -> t.Iterator[str]:
    """Give the path of a backup that can be read: its own, or that of a decrypted copy, which is gone afterwards.

    :raises InputError: it is encrypted, and how it is decrypted is not declared.
    :raises MaintenanceError: it cannot be decrypted.
    """
    encryption = encryption_of_file(path)
    if not encryption:
        yield path
        return
    if not declared["decrypt_command"]:
        raise InputError(
            f"The backup {path} is encrypted ({encryption}), expected decrypt_command in its set {declared['name']!r}; declare it. "
            "Nothing was changed."
        )
    with contextlib.ExitStack() as stack:
        scratch = Scratch(scratch_path)
        stack.callback(scratch.close)
        scratch.sweep()
        target = stack.enter_context(scratch.target(os.path.getsize(path), False))
        with backup_keys.fetched([declared], scratch_path) as keys:
            key = keys.get(declared["name"], backup_keys.Key({**declared}))
            if key.problem:
                raise MaintenanceError(f"The key of the backup {path} could not be fetched: {key.problem}; nothing was changed.")
            with one_pass(path, key.declared["decrypt_command"]) as reading:
                target.restore(os.path.basename(path), reading.reader.pieces(1 << 62))
                reading.finish()
        if target.problem:
            raise MaintenanceError(f"The backup {path} could not be decrypted: {target.problem}; nothing was changed.")
        copy = target.path_of(os.path.basename(path))
        os.chmod(copy, 0o600)
        yield copy
