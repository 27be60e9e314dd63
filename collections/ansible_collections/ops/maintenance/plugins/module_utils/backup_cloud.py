# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups in a store that only the site's own command reaches: it lists them and fetches one, which is then verified as a file of its kind."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import signal
import stat
import subprocess
import time
import typing as t

from .backup_adaptor import Around, Climb
from .backup_encryption import encryption_of_file
from .backup_kinds import Verdict
from .backup_repository import (
    Json,
    Ladder,
    Tool,
    entry,
    moment_of,
    name_of,
    timed,
    work_folder,
)
from .backup_sets import Declared, Listing, date_in, is_unfinished
from .backup_tree import prove_content
from .errors import InputError, MaintenanceError
from .judge import human_bytes, human_seconds
from .postgresql_programs import identity
from .record import clean

_LEVELS = {f"backup.{name}": level for level, name in enumerate(("structure", "checksum", "restore", "integrity", "content"), 1)}
_LINE = re.compile(r"^(\d+)\s+(\S+)\s+(.+)$")
_PLACES = ("{name}", "{target}")


class Command:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = {
        "command": {
            "type": "dict",
            "options": {
                "list": {"type": "list", "elements": "str", "required": True},
                "fetch": {"type": "list", "elements": "str", "required": True},
                "kind": {"type": "str", "choices": ["files", "postgresql", "redis", "sqlite"], "default": "files"},
                "os_user": {"type": "str", "default": ""},
                "environment_file": {"type": "path", "default": ""},
                "maximum_bytes": {"type": "int", "default": 0},
                "timeout_seconds": {"type": "float", "default": 14400.0},
            },
        }
    }
    needs_root = False

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:  # noqa: ARG002
        """See :class:`backup_adaptor.Adaptor`."""
        name, command = declared["name"], declared["command"]
        if not command:
            yield str(InputError.of(f"command of set {name}", None, "how backups are listed and fetched", "give list and fetch"))
            return
        for option in ("list", "fetch"):
            if not command[option]:
                yield str(InputError.of(f"command.{option} of set {name}", [], "the program and its arguments as a list", "give them"))
        missing = [place for place in _PLACES if not any(place in part for part in command["fetch"])]
        if missing:
            yield f"command.fetch of set {name} lacks {' and '.join(missing)}, expected both; they stand for the backup and the file to write."
        if not command["maximum_bytes"] > 0:
            option = f"command.maximum_bytes of set {name}"
            yield str(InputError.of(option, command["maximum_bytes"], "the largest size that may be fetched, in bytes", "give it"))

    def listed(self, declared: Declared, around: Around) -> Listing:
        """List what the command prints: a line of size, time and name for each, or such objects as JSON."""
        tool, listing = _tool(timed(declared, around)), Listing()
        ran = tool.run(*declared["command"]["list"][1:])
        if ran.rc != 0:
            raise MaintenanceError(f"the backups could not be listed: {tool.why(ran)}")
        for size, when, name in read_list(ran.stdout):
            if is_unfinished(os.path.basename(name)):
                listing.unfinished.append(name)
            elif fnmatch.fnmatchcase(name, declared["pattern"]) or fnmatch.fnmatchcase(os.path.basename(name), declared["pattern"]):
                named = date_in(os.path.basename(name), declared["date_format"], around.zone)
                moment = moment_of(when)
                if named is not None and not named[0].timestamp() <= moment <= named[0].timestamp() + named[1]:
                    moment = named[0].timestamp()
                listing.backups.append(entry(f"{declared['name']}::{name}", size, moment, around.zone))
        listing.backups.sort(key=lambda backup: (backup.moment, backup.path))
        return listing

    def climb(self, climb: Climb) -> None:
        """Fetch it, timed and within its limit, then climb with the file."""
        ladder, command = Ladder(climb), climb.declared["command"]
        with ladder.looking(1):
            if climb.backup.size > command["maximum_bytes"]:
                limit = human_bytes(command["maximum_bytes"])
                raise MaintenanceError(f"it was not fetched: {human_bytes(climb.backup.size)}, more than the limit of {limit}")
            with work_folder(ladder.scratch, climb.backup.size, command["os_user"]) as folder:
                path = _fetched(ladder, folder)
                if path:
                    _verified(ladder, path)


def _tool(declared: Declared) -> Tool:
    command = declared["command"]
    shared = {name: command[name] for name in ("os_user", "environment_file", "timeout_seconds")}
    return Tool(command["list"][0], {**declared, "repository": shared})


def read_list(said: str) -> t.Iterator[tuple[int, str, str]]:
    """Yield (size, time, name) of what the command printed.

    :raises MaintenanceError: a line is not of that form; nothing printed at all is an empty store.
    """
    text = said.strip()
    if text.startswith("["):
        try:
            found: list[Json] = json.loads(text)
            for item in found:
                yield int(item["size"]), str(item["time"]), str(item["name"])
        except (ValueError, KeyError, TypeError) as error:
            raise MaintenanceError(f"the list is not JSON objects with size, time and name ({clean(str(error), 100)})") from None
        return
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if match is None:
            raise MaintenanceError(f"the list has a line that is not size, time and name: {clean(line, 100)!r}")
        yield int(match.group(1)), match.group(2), match.group(3)


def _fetched(ladder: Ladder, folder: str) -> str:
    """Fetch the backup and return its file; empty when it did not come whole."""
    climb, command = ladder.climb, ladder.declared["command"]
    name = name_of(climb.backup)
    path = os.path.join(folder, os.path.basename(name) or "backup")
    argv = [part.replace("{name}", name).replace("{target}", path) for part in command["fetch"]]
    started = time.monotonic()
    said = _watched(ladder, argv, path, int(command["maximum_bytes"]))
    seconds = max(time.monotonic() - started, 0.001)
    if said:
        climb.say(1, "unknown", f"it could not be fetched: {said}")
        return ""
    if not os.path.lexists(path) or not stat.S_ISREG(os.lstat(path).st_mode):
        climb.say(1, "critical", "the command ended well, but fetched no file")
        return ""
    size = os.lstat(path).st_size
    if size != climb.backup.size:
        climb.say(1, "critical", f"half written: {size} bytes were fetched, the store lists {climb.backup.size}")
        return ""
    climb.say(1, "ok", f"fetched {human_bytes(size)} in {human_seconds(seconds)}, {human_bytes(size / seconds)} a second")
    climb.read_seconds = seconds
    return path


def _watched(ladder: Ladder, argv: t.Sequence[str], path: str, limit: int) -> str:
    """Run the fetching command; stop it when it writes more than it may, or takes too long. Return what was wrong."""
    command = ladder.declared["command"]
    tool = _tool(ladder.declared)
    program = Tool(argv[0], {**ladder.declared, "repository": {**command}}).program
    ends = time.monotonic() + tool.left()
    with open(path + ".said", "w+b") as said:
        child = subprocess.Popen([program, *argv[1:]], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=tool.environment(), cwd="/",
                                 start_new_session=True, **identity(command["os_user"]))  # fmt: skip
        problem = ""
        while child.poll() is None and not problem:
            with contextlib.suppress(OSError):
                if os.lstat(path).st_size > limit:
                    problem = f"it wrote more than the limit of {human_bytes(limit)}"
            if time.monotonic() > ends:
                problem = "it did not end in time"
            time.sleep(0.02)
        if problem:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        rc = child.wait()
        said.seek(0)
        lines = said.read(64 * 1024).decode("utf-8", "backslashreplace").strip().splitlines()
    os.unlink(path + ".said")
    if problem or rc == 0:
        return problem
    return tool.scrubbed(f"{os.path.basename(argv[0])} ended with {rc}: {clean(lines[-1] if lines else 'no output', 200)}")


def _verified(ladder: Ladder, path: str) -> None:
    climb = ladder.climb
    name = encryption_of_file(path)
    ladder.encryption("ok" if name else "critical", f"it begins as {name} does" if name else "it does not begin as encrypted data does")
    proof = prove_content(path, ladder.declared["command"]["kind"], ladder)
    for finding in proof.findings:
        level = _LEVELS.get(finding.id)
        if level:
            climb.verdicts.append(Verdict(level, finding.state, finding.summary.partition(": ")[2]))
            climb.notes += [finding.not_covered] if level == 1 and finding.not_covered else []
    climb.basis.update(part for part in proof.basis.split(", ") if part)
    climb.rpo_seconds = proof.rpo_seconds
    if proof.rto_seconds is not None:
        climb.restore_seconds = proof.rto_seconds + (climb.read_seconds or 0.0)
    climb.findings += [finding for finding in proof.findings if finding.id not in _LEVELS]
