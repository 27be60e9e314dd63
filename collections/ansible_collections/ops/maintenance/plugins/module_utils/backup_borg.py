# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of Borg: its archives listed, checked, verified and extracted by Borg itself, without a lock of ours in them.

``borg check`` itself notes the next nonce in the repository, and rebuilds its index where that is missing; nothing else is written.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import shlex
import shutil
import tempfile
import typing as t

from .backup_adaptor import Around, Climb
from .backup_kinds import Verdict
from .backup_repository import (
    OPTIONS,
    UNKNOWN_SIZE,
    GoneError,
    Json,
    Ladder,
    Tool,
    entry,
    location_of,
    moment_of,
    name_of,
    problems_of,
    timed,
)
from .backup_sets import Declared, Listing
from .backup_tree import Node, Restored, climb_tree, is_below
from .errors import MaintenanceError
from .host import Ran
from .judge import human_seconds
from .paths import sha256_of
from .postgresql_programs import identity

_SIZES_OF = 3
_CHECKPOINT = re.compile(r"\.checkpoint(\.\d+)?$")
_STALE_SECONDS = 86400.0
_ENCRYPTED = ("repokey", "keyfile")


class Borg:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = OPTIONS
    needs_root = False

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:  # noqa: ARG002
        """See :class:`backup_adaptor.Adaptor`."""
        yield from problems_of(declared, needs_location=True)

    def listed(self, declared: Declared, around: Around) -> Listing:
        """List the archives whose names match; what a broken run left are checkpoints, no backups."""
        declared, zone, listing = timed(declared, around), around.zone, Listing()
        with _tool(declared) as tool:
            try:
                found = _listed(tool, declared)
            except GoneError as error:
                listing.strange.append(str(error))
                return listing
            archives = []
            for archive in found["archives"]:
                name = archive["name"]
                if _CHECKPOINT.search(name):
                    listing.unfinished.append(f"{location_of(declared)}::{name}")
                elif fnmatch.fnmatchcase(name, declared["pattern"]) and _is_of_host(archive, declared):
                    archives.append(archive)
            others = len(found["archives"]) - len(archives) - len(listing.unfinished)
            if others and not archives:
                listing.strange.append(f"{others} archives are of other hosts or names than the declared ones")
            archives.sort(key=lambda archive: moment_of(archive["start"]))
            for place, archive in enumerate(archives):
                start, size = moment_of(archive["start"]), UNKNOWN_SIZE
                if place >= len(archives) - _SIZES_OF:
                    with contextlib.suppress(MaintenanceError):  # level 1 finds an archive that cannot be read
                        size = sum(node.size for node in _nodes(tool, declared, archive["name"], ()))
                took = moment_of(archive["end"]) - start if archive.get("end") else None
                listing.backups.append(entry(f"{location_of(declared)}::{archive['name']}", size, start, zone, took))
        return listing

    def climb(self, climb: Climb) -> None:
        """Check, verify all data, extract and compare."""
        ladder, archive = Ladder(climb), name_of(climb.backup)
        declared = ladder.declared
        with _tool(declared) as tool:
            if ladder.wants(1):
                with ladder.looking(1):
                    found = _listed(tool, declared)
                    _encryption(ladder, found)
                    ladder.rung(1, [*_identity(found, declared), *_checked(tool, declared, 1), *_locks(declared, ladder.now)])
            if ladder.wants(2):
                with ladder.looking(2):
                    ladder.rung(2, _checked(tool, declared, 2, "--archives-only", "--verify-data"))
            if ladder.wants(3):
                climb_tree(ladder, tool.os_user, lambda folder: _restore(tool, archive, folder, declared))


@contextlib.contextmanager
def _tool(declared: Declared) -> t.Iterator[Tool]:
    """Yield Borg with a base folder of its own, so that it neither believes nor changes what its user's cache says."""
    repository = declared["repository"]
    folder = tempfile.mkdtemp(prefix="ops_maintenance_")
    try:
        owner = identity(repository["os_user"])
        if owner:
            os.chown(folder, owner["user"], owner["group"])
        env = {
            "BORG_BASE_DIR": folder,
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_SELFTEST": "disabled",
            "BORG_DISPLAY_PASSPHRASE": "no",
            "BORG_PASSPHRASE": "",
            "TZ": "UTC",  # its times name no zone
        }
        if repository["password_file"]:
            del env["BORG_PASSPHRASE"]
            env["BORG_PASSCOMMAND"] = f"cat {shlex.quote(repository['password_file'])}"
        yield Tool("borg", declared, env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(tool: Tool, *args: str, cwd: str = "/") -> Ran:
    return tool.run("--bypass-lock", "--log-json", *args, cwd=cwd)


def _listed(tool: Tool, declared: Declared) -> Json:
    plain = ("list", "--consider-checkpoints", "--json")
    ran = _run(tool, *plain, "--format", "{hostname}{end}", location_of(declared))
    if ran.rc != 0:  # one archive whose metadata is damaged is enough for that; its name is known nevertheless
        ran = _run(tool, *plain, location_of(declared))
    if ran.rc != 0:
        said = [text for _state, text in read_log(ran.rc, ran.stderr)]
        if "does not exist" in said[0] or "not a valid repository" in said[0]:
            raise GoneError(tool.scrubbed(f"there is no Borg repository: {said[0]}"))
        raise MaintenanceError(tool.scrubbed(f"borg list ended with {ran.rc}: {said[0]}"))
    return tool.json_of(ran)


def _is_of_host(archive: Json, declared: Declared) -> bool:
    wanted = declared["repository"]["host"]
    return not wanted or archive.get("hostname", wanted) == wanted


def read_log(rc: int, said: str) -> list[tuple[str, str]]:
    """Return (state, text) of what a command of Borg logged as JSON: an error or warning counts, whatever its exit status."""
    problems = []
    for line in said.splitlines():
        if not line.startswith("{"):
            if line.strip():
                problems.append(line.strip())
            continue
        message = json.loads(line)
        if message.get("type") == "log_message" and message.get("levelname") in ("WARNING", "ERROR", "CRITICAL"):
            problems.append(str(message.get("message", "")).strip().splitlines()[0])
    if rc == 0 and not problems:
        return [("ok", "no problems found")]
    return [("critical", text) for text in problems[:10] or [f"it ended with {rc}"]]


def _checked(tool: Tool, declared: Declared, level: int, *args: str) -> list[Verdict]:
    ran = _run(tool, "check", *args, location_of(declared))
    return [Verdict(level, state, tool.scrubbed(f"borg check: {text}")) for state, text in read_log(ran.rc, ran.stderr)]


def _encryption(ladder: Ladder, found: Json) -> None:
    mode = str((found.get("encryption") or {}).get("mode", ""))
    is_encrypted = mode.startswith(_ENCRYPTED)
    ladder.encryption("ok" if is_encrypted else "critical", f"the repository's encryption is {mode or 'not said'}")


def _identity(found: Json, declared: Declared) -> list[Verdict]:
    wanted, is_id = declared["repository"]["id"], str(found["repository"].get("id", ""))
    if is_id.startswith(wanted):
        return []
    return [Verdict(1, "critical", f"it is another repository: its id is {is_id[:16]}, expected {wanted[:16]}")]


def _locks(declared: Declared, now: float) -> list[Verdict]:
    """Look for a lock that nobody holds any more; only a repository in a folder shows it."""
    path = os.path.join(location_of(declared), "lock.exclusive")
    try:
        age = now - os.lstat(path).st_mtime
    except OSError:
        return []
    if age < _STALE_SECONDS:
        return []
    return [Verdict(1, "warning", f"{path} is {human_seconds(age)} old: while it is there no backup can be made")]


def _nodes(tool: Tool, declared: Declared, archive: str, wanted: t.Sequence[str], digest: str = "") -> t.Iterator[Node]:
    given = f"{{path}}{{size}}{{mtime}}{digest}"
    for item in tool.lines("--bypass-lock", "list", "--json-lines", "--format", given, f"{location_of(declared)}::{archive}"):
        if item.get("type") == "-" and is_below(item["path"].strip("/"), wanted):
            yield Node(item["path"], int(item["size"]), moment_of(item["mtime"]), item.get("sha256", ""))


def _restore(tool: Tool, archive: str, folder: str, declared: Declared) -> Restored:
    wanted = [path.strip("/") for path in declared["repository"]["restore_paths"]]
    ran = _run(tool, "extract", f"{location_of(declared)}::{archive}", *wanted, cwd=folder)
    said = read_log(ran.rc, ran.stderr)
    if said[0][0] != "ok":
        return Restored([Verdict(3, "critical", tool.scrubbed(f"borg extract: {text}")) for _state, text in said], [], "")
    nodes = list(_nodes(tool, declared, archive, wanted, "{sha256}" if declared["level"] >= 4 else ""))
    proven = "every restored file was read again and has the SHA-256 that Borg says"
    return Restored([], nodes, proven, lambda: _differing(folder, nodes))


def _differing(folder: str, nodes: t.Iterable[Node]) -> list[Verdict]:
    wrong = (node.path for node in nodes if node.sha256 and sha256_of(os.path.join(folder, node.path)) != node.sha256)
    return [Verdict(4, "critical", f"{path!r} is not what the archive holds") for path, _limit in zip(wrong, range(10))]
