# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of files that a repository gave back: compared with what it says of them, and opened by the kinds of what lies in them."""

from __future__ import annotations

import os
import stat
import time
import typing as t

from .backup_adaptor import Climb
from .backup_kinds import KINDS, Seen, Target, Verdict
from .backup_proof import Proof, prove, prove_whole
from .backup_repository import Ladder, work_folder
from .backup_sets import Backup, Declared, File, local, matches
from .judge import human_bytes


def is_below(relative: str, wanted: t.Sequence[str]) -> bool:
    """Whether a path is one of some paths, or below one; every path is where none are named."""
    return not wanted or any(relative == path or relative.startswith(path + "/") for path in (item.strip("/") for item in wanted))


class Node(t.NamedTuple):
    """A regular file that the repository says a backup holds."""

    path: str
    size: int
    mtime: float
    sha256: str = ""


def compare_tree(folder: str, nodes: t.Iterable[Node], declared: Declared, seen: Seen) -> list[Verdict]:
    """Compare the restored files with what the repository says of each, reading those whose checksum is known."""
    wrong: list[str] = []
    for node in nodes:
        relative = node.path.strip("/")
        if ".." in relative.split("/"):
            wrong.append(f"it has a member that leads outside of it: {node.path!r}")
            continue
        seen.files += 1
        seen.newest = max(seen.newest, node.mtime)
        seen.content_bytes += node.size
        seen.names_found.update(p for p in declared["required_files"] if p not in seen.names_found and matches(relative, p))
        if len(wrong) < 20:
            problem = _differs(os.path.join(folder, relative), node)
            if problem:
                wrong.append(f"{node.path!r} {problem}")
    if wrong:
        return [Verdict(3, "critical", text) for text in wrong]
    if not seen.files:
        return [Verdict(3, "critical", "it holds no file at all")]
    return [Verdict(3, "ok", f"{seen.files} files, {human_bytes(seen.content_bytes)} restored")]


def _differs(path: str, node: Node) -> str:
    try:
        status = os.lstat(path)
    except OSError as error:
        return f"was not restored: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "was not restored as a file"
    return "" if status.st_size == node.size else f"has {status.st_size} bytes once restored, the repository says {node.size}"


def open_content(folder: str, ladder: Ladder, always: str) -> None:
    """Prove the restored files that ``content`` names by their own kind, at levels 4 and 5.

    :param always: what is already proven of every file.
    """
    content = ladder.declared["content"]
    if not content:
        ladder.rung(4, [Verdict(4, "ok", always)])
        return
    found = list(_matching(folder, content["pattern"]))
    if not found:
        ladder.rung(4, [Verdict(4, "critical", f"no file in it matches {content['pattern']!r}")])
    for path in found:
        proof = prove_content(path, content["kind"], ladder)
        relative = os.path.relpath(path, folder)
        for finding in proof.findings:
            level = 5 if finding.id == "backup.content" else 4
            if finding.state != "ok" or finding.id in ("backup.integrity", "backup.content"):
                ladder.rung(level, [Verdict(level, finding.state, f"{relative}: {finding.summary}")])


def prove_content(path: str, kind: str, ladder: Ladder) -> Proof:
    """Climb the ladder with one file that was brought out of a repository or a store."""
    from .backup_adaptors import ADAPTORS

    status = os.lstat(path)
    backup = Backup(path, (File(path, status.st_size, status.st_mtime_ns),), ladder.now, local(ladder.now, None).date())
    plain = {**ladder.declared, "kind": kind, "layout": "files", "pattern": "*", "manifest": "", "date_format": "", "encrypted": False}
    if kind in ADAPTORS:
        return prove_whole(ADAPTORS[kind], Climb(plain, backup, ladder.climb.around, ladder.scratch))
    return prove(plain, backup, ladder.scratch, {}, ladder.now)


def _matching(folder: str, pattern: str) -> t.Iterator[str]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(where, name)
            if matches(os.path.relpath(path, folder), pattern) and stat.S_ISREG(os.lstat(path).st_mode):
                yield path


class Restored(t.NamedTuple):
    """What restoring a tree brought."""

    verdicts: list[Verdict]
    nodes: t.Iterable[Node]
    proven: str
    state: t.Callable[[], list[Verdict]] = list


def climb_tree(ladder: Ladder, os_user: str, restore: t.Callable[[str], Restored]) -> None:
    """Climb levels 3 to 5 with a repository that holds trees of files.

    :param restore: restores into the folder that it is given.
    """
    declared, seen = ladder.declared, Seen()
    only = ", ".join(declared["repository"]["restore_paths"])
    rest = f"only {only} was restored" if only else ""
    with ladder.looking(3), work_folder(ladder.scratch, ladder.backup.size, os_user) as folder:
        started = time.monotonic()
        done = restore(folder)
        ladder.rung(3, done.verdicts or compare_tree(folder, done.nodes, declared, seen), not_covered=rest)
        ladder.climb.restore_seconds = time.monotonic() - started
        if ladder.wants(4):
            with ladder.looking(4):
                open_content(folder, ladder, done.proven)
                ladder.rung(4, done.state(), not_covered=rest)
        if ladder.wants(5):
            files = KINDS["files"].content(Target(None), seen, declared, ladder.now)
            has_other = any(verdict.level == 5 for verdict in ladder.climb.verdicts)
            ladder.rung(5, [] if has_other and all(item.state == "unknown" for item in files) else files, not_covered=rest)
            ladder.climb.rpo_seconds = seen.rpo_seconds
