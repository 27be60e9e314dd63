# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of restic: its snapshots listed, checked, read and restored by restic itself, without a lock of ours in them."""

from __future__ import annotations

import json
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
    has_password,
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

_SIZES_OF = 8
# restic refreshes a lock every five minutes and calls it stale after thirty.
_STALE_SECONDS = 1800.0
_NOT_THERE = ("unable to open config file", "repository does not exist")
_SOUND = "no errors were found"


class Restic:
    """See :class:`backup_adaptor.Adaptor`."""

    options: t.Mapping[str, t.Any] = OPTIONS
    needs_root = False

    def problems(self, declared: Declared, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:  # noqa: ARG002
        """See :class:`backup_adaptor.Adaptor`."""
        yield from problems_of(declared, needs_location=True)

    def listed(self, declared: Declared, around: Around) -> Listing:
        """List the snapshots of the declared host and paths; others are only told of."""
        declared, zone, listing = timed(declared, around), around.zone, Listing()
        tool = _tool(declared)
        try:
            found = _document(tool, "snapshots")
        except GoneError as error:
            listing.strange.append(str(error))
            return listing
        snapshots = [snapshot for snapshot in found.document or [] if _is_wanted(snapshot, declared)]
        listing.strange += found.complaints
        others = len(found.document or []) - len(snapshots)
        if others and not snapshots:
            listing.strange.append(f"{others} snapshots are of other hosts or paths than the declared ones")
        hosts = {str(snapshot.get("hostname")) for snapshot in snapshots}
        if len(hosts) > 1:
            listing.strange.append(f"snapshots of {len(hosts)} hosts, though no host is declared (repository.host)")
        snapshots.sort(key=lambda snapshot: moment_of(snapshot["time"]))
        for place, snapshot in enumerate(snapshots):
            size = _size(tool, snapshot, place >= len(snapshots) - _SIZES_OF)
            listing.backups.append(
                entry(
                    f"{tool.scrubbed(location_of(declared))}::{snapshot['short_id']}",
                    size,
                    moment_of(snapshot["time"]),
                    zone,
                    _took(snapshot),
                )
            )
        return listing

    def climb(self, climb: Climb) -> None:
        """Check, read all data, restore and compare."""
        ladder, snapshot = Ladder(climb), name_of(climb.backup)
        declared, now = ladder.declared, ladder.now
        tool = _tool(declared)
        _encryption(ladder, declared)
        if ladder.wants(1):
            with ladder.looking(1):
                ladder.rung(1, [*_identity(tool, declared), *_checked(tool, 1, now), *_locks(tool, now)])
        if ladder.wants(2):
            percent = declared["repository"]["read_data_percent"]
            part = "--read-data" if percent == 100 else f"--read-data-subset={percent:g}%"
            rest = "" if percent == 100 else f"{100 - percent:g} percent of the packs were not read"
            with ladder.looking(2):
                ladder.rung(2, _checked(tool, 2, now, part), not_covered=rest)
        if ladder.wants(3):
            climb_tree(ladder, tool.os_user, lambda folder: _restore(tool, snapshot, folder, declared))


class _Found(t.NamedTuple):
    document: Json
    complaints: list[str]


def _tool(declared: Declared) -> Tool:
    env = {"RESTIC_REPOSITORY": location_of(declared), "HOME": "/nonexistent"}
    if declared["repository"]["password_file"]:
        env["RESTIC_PASSWORD_FILE"] = declared["repository"]["password_file"]
    return Tool("restic", declared, env)


def _run(tool: Tool, *args: str) -> Ran:
    # No lock: the verifier only reads, and the repository may be one that it cannot write to.
    return tool.run("--no-lock", "--no-cache", "--json", *args)


def _document(tool: Tool, *args: str) -> _Found:
    ran = _run(tool, *args)
    if ran.rc != 0:
        said = _fatal(ran)
        if any(words in said for words in _NOT_THERE) and "permission denied" not in said:
            raise GoneError(tool.scrubbed(f"there is no restic repository: {said}"))
        raise MaintenanceError(tool.scrubbed(f"restic {args[0]} ended with {ran.rc}: {said}"))
    # A snapshot that cannot be loaded is left out of the list with exit status 0.
    return _Found(tool.json_of(ran), [line for line in ran.stderr.splitlines() if line.strip()][:10])


def _fatal(ran: Ran) -> str:
    for line in [*ran.stdout.splitlines(), *ran.stderr.splitlines()]:
        if line.startswith("{") and '"exit_error"' in line:
            return str(json.loads(line).get("message", "")).removeprefix("Fatal: ").splitlines()[0]
        if line.startswith("Fatal: "):
            return line.removeprefix("Fatal: ")
    said = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
    return said[0] if said else "no output"


def _is_wanted(snapshot: Json, declared: Declared) -> bool:
    repository = declared["repository"]
    if repository["host"] and snapshot.get("hostname") != repository["host"]:
        return False
    return set(repository["paths"]) <= set(snapshot.get("paths") or [])


def _size(tool: Tool, snapshot: Json, is_recent: bool) -> int:
    known = (snapshot.get("summary") or {}).get("total_bytes_processed")
    if known is not None:
        return int(known)
    if not is_recent:
        return UNKNOWN_SIZE
    try:
        return int(_document(tool, "stats", "--mode", "restore-size", snapshot["id"]).document["total_size"])
    except MaintenanceError:
        return UNKNOWN_SIZE  # its trees cannot be read, which level 1 finds


def _took(snapshot: Json) -> float | None:
    summary = snapshot.get("summary") or {}
    if "backup_start" not in summary or "backup_end" not in summary:
        return None
    return max(moment_of(summary["backup_end"]) - moment_of(summary["backup_start"]), 0.0)


def _encryption(ladder: Ladder, declared: Declared) -> None:
    if has_password(declared):
        ladder.encryption("ok", "restic encrypts every repository (AES-256), and this one has a password")
    else:
        ladder.encryption("critical", "the repository has an empty password, so anybody can read it")


def _identity(tool: Tool, declared: Declared) -> list[Verdict]:
    wanted = declared["repository"]["id"]
    if not wanted:
        return []
    found = str(_document(tool, "cat", "config").document.get("id", ""))
    if found.startswith(wanted):
        return []
    return [Verdict(1, "critical", f"it is another repository: its id is {found[:16]}, expected {wanted[:16]}")]


def _checked(tool: Tool, level: int, now: float, *args: str) -> list[Verdict]:
    ran = _run(tool, "check", *args)
    verdicts = [Verdict(level, state, tool.scrubbed(text)) for state, text in read_check(ran.rc, ran.stdout + "\n" + ran.stderr)]
    if any(verdict.state == "critical" for verdict in verdicts) and _in_use(tool, now):
        return [Verdict(level, "unknown", f"restic works on it just now, and found meanwhile: {verdicts[0].text}; verify again later")]
    return verdicts


def read_check(rc: int, said: str) -> list[tuple[str, str]]:
    """Return (state, text) of what ``restic check`` said: as JSON since 0.17, in lines before."""
    problems, is_sound, errors = [], False, 0
    for line in said.splitlines():
        text = line.strip()
        if text.startswith("{"):
            message = json.loads(text)
            kind = message.get("message_type")
            if kind == "summary":
                errors = int(message.get("num_errors") or 0) + len(message.get("broken_packs") or ())
                is_sound = errors == 0
            elif kind in ("error", "exit_error"):
                problems.append(str(message.get("message") or message.get("error", "")).strip())
        elif text == _SOUND:
            is_sound = True
        elif _is_problem(text):
            problems.append(text)
    if rc == 0 and is_sound and not problems:
        return [("ok", f"restic check: {_SOUND}")]
    if rc == 0 and not problems and not errors:
        return [("unknown", "restic check ended with 0, but did not say that it found no errors")]
    texts = [text.splitlines()[0] for text in problems if text] or [f"{errors} errors" if errors else f"it ended with {rc}"]
    return [("critical", f"restic check: {text}") for text in texts[:10]]


def _is_problem(text: str) -> bool:
    lowered = text.lower()
    usual = (
        "load indexes",
        "check all packs",
        "check snapshots",
        "read all data",
        "read ",
        "[",
        "using temporary cache",
        "created new cache",
    )
    harmless = ("additional files were found", "this is non-critical", "not referenced in any index")
    return bool(text) and not lowered.startswith(usual) and not any(words in lowered for words in harmless)


def _lock_ages(tool: Tool, now: float) -> list[tuple[float, Json]]:
    ran = _run(tool, "list", "locks")
    if ran.rc != 0:
        raise MaintenanceError(tool.scrubbed(f"restic list locks ended with {ran.rc}: {_fatal(ran)}"))
    found = []
    for name in ran.stdout.split():
        ran = _run(tool, "cat", "lock", name.strip('"'))
        if ran.rc == 0:  # else it was released meanwhile
            lock = tool.json_of(ran)
            found.append((now - moment_of(lock["time"]), lock))
    return found


def _in_use(tool: Tool, now: float) -> bool:
    return any(age < _STALE_SECONDS for age, _lock in _lock_ages(tool, now))


def _locks(tool: Tool, now: float) -> list[Verdict]:
    return [
        Verdict(1, "warning", f"a stale {'exclusive ' if lock.get('exclusive') else ''}lock of {lock.get('hostname')}, "
                f"process {lock.get('pid')}, is {human_seconds(age)} old: backups or clean-up may not run")
        for age, lock in _lock_ages(tool, now) if age >= _STALE_SECONDS
    ]  # fmt: skip


def _restore(tool: Tool, snapshot: str, folder: str, declared: Declared) -> Restored:
    wanted = declared["repository"]["restore_paths"]
    include = [part for path in wanted for part in ("--include", path)]
    ran = _run(tool, "restore", snapshot, "--target", folder, "--verify", *include)
    said = ran.stdout + "\n" + ran.stderr
    problems = [text for text in (_restore_problem(line) for line in said.splitlines()) if text]
    if ran.rc != 0 or problems:
        texts = problems or [_fatal(ran)]
        return Restored([Verdict(3, "critical", tool.scrubbed(f"restic restore: {text}")) for text in texts[:10]], [], "")
    nodes = (
        Node(node["path"], int(node.get("size") or 0), moment_of(node["mtime"]))
        for node in tool.lines("--no-lock", "--no-cache", "--json", "ls", snapshot)
        if node.get("type") == "file" and is_below(node["path"].strip("/"), wanted)
    )
    return Restored([], nodes, "restic read every restored file again, and each is what the snapshot holds")


def _restore_problem(line: str) -> str:
    if line.startswith("{"):
        message = json.loads(line)
        if message.get("message_type") in ("error", "exit_error"):
            inner = message.get("error") or {}
            return f"{message.get('item', '')} {message.get('message') or inner.get('message', '')}".strip()
        return ""
    return line.strip() if line.startswith(("ignoring error", "Fatal:", "error")) else ""
