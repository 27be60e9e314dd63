# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Know files again that an earlier run has read, whatever they are called or packed into by now.

A file is known by device and inode together with the first and last bytes of what was read of it: a truncated file has
other ones, and so has a new file that got the inode of a deleted one. A file with an unknown inode is known by these
bytes alone: it is then the copy that copytruncate made, or the compressed form of one that was read.
"""

from __future__ import annotations

import hashlib
import os
import re
import typing as t
from dataclasses import dataclass

from .log_lines import ENDS_BYTES, LineReader, strip_compression
from .paths import open_regular
from .record import Json

KEPT_SECONDS = 35 * 86400
"""A file that was not seen for so long is forgotten."""

KEPT_FILES = 5000
_ROTATED = re.compile(r"[.-]\d+(-\d+)?$")
_LEAST_BYTES = 16  # fewer bytes than these say nothing about a file with another inode

Marks = t.Mapping[str, t.Mapping[str, t.Any]]


@dataclass
class Candidate:
    """A file that is to be read."""

    path: str
    status: os.stat_result
    compressed: bool

    @property
    def key(self) -> str:
        """Return device and inode, as marks are kept by."""
        return key_of(self.status)


def key_of(status: os.stat_result) -> str:
    """Return the name that a file's mark is kept by."""
    return f"{status.st_dev}:{status.st_ino}"


def mark_of(reader: LineReader) -> dict[str, Json]:
    """Describe what was read of a file, to know it again."""
    status = t.cast("os.stat_result", reader.status)
    return {
        "path": reader.path,
        "problem": reader.problem,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "position": reader.position,
        "head_bytes": len(reader.head),
        "head": hashlib.sha256(reader.head).hexdigest(),
        "tail": hashlib.sha256(reader.tail).hexdigest(),
    }


def positions(files: t.Sequence[Candidate], known: Marks) -> dict[str, int]:
    """Return for each path how much of its content an earlier run has read."""
    found: dict[str, int] = {}
    owners = set()
    for file in files:
        own = known.get(file.key)
        if own is not None and (is_untouched(file, known) or _longest(file, [own])):
            found[file.path] = own["position"]
            owners.add(file.key)
    for file in files:
        if file.path not in found:
            marks = [mark for key, mark in known.items() if _may_be_copy(mark, key in owners)]
            found[file.path] = _longest(file, marks)
    return found


def unread(files: t.Sequence[Candidate], starts: t.Mapping[str, int], known: Marks) -> list[str]:
    """Name logs of which lines went away unread, perhaps: what the last run read last of them is there under no name any more.

    :param starts: what :func:`positions` said of these files.
    """
    there = {_log_of(file.path) for file in files}
    last: dict[str, t.Mapping[str, t.Any]] = {}
    for mark in sorted(known.values(), key=lambda mark: int(mark["mtime_ns"])):
        last[_log_of(mark["path"])] = mark
    found = {start for start in starts.values() if start}
    return sorted(name for name, mark in last.items() if name in there and mark["position"] not in {0, *found})


def _log_of(path: str) -> str:
    """Return what a rotated file was called while it was written to."""
    return _ROTATED.sub("", strip_compression(path))


def is_untouched(file: Candidate, known: Marks) -> bool:
    """Say whether a compressed file is just as an earlier run left it, so that it need not be unpacked again."""
    own = known.get(file.key, {})
    same = (file.status.st_size, file.status.st_mtime_ns) == (own.get("size"), own.get("mtime_ns"))
    return file.compressed and same and not own["problem"]


def _may_be_copy(mark: t.Mapping[str, t.Any], has_owner: bool) -> bool:
    """Say whether a file with another inode may hold what was read; short texts are easily the same by chance."""
    return int(mark["head_bytes"]) >= (ENDS_BYTES if has_owner else _LEAST_BYTES)


def _longest(file: Candidate, marks: t.Sequence[t.Mapping[str, t.Any]]) -> int:
    """Return the largest position of those marks that the content of a file agrees with; 0 where none does."""
    head = b""
    for block in LineReader(file.path).blocks():
        head += block[: ENDS_BYTES - len(head)]
        if len(head) >= ENDS_BYTES:
            break
    like = [
        mark for mark in marks if len(head) >= mark["head_bytes"] and hashlib.sha256(head[: mark["head_bytes"]]).hexdigest() == mark["head"]
    ]
    if not like:
        return 0
    tails = _tails(file, {mark["position"] for mark in like})
    return max((mark["position"] for mark in like if tails.get(mark["position"], "") == mark.get("tail")), default=0)


def _tails(file: Candidate, wanted: set[int]) -> dict[int, str]:
    """Return the hash of the bytes before each of some positions of a file's content; none for positions beyond it."""
    tails: dict[int, str] = {}
    with open_regular(file.path) as source:
        if not file.compressed:
            for position in wanted:
                if position <= os.fstat(source.fileno()).st_size:
                    tails[position] = hashlib.sha256(LineReader.ends(source, position)[1]).hexdigest()
            return tails
        start, before = 0, b""
        for chunk in LineReader(file.path).raw(source):
            for position in wanted:
                if start < position <= start + len(chunk):
                    text = before + chunk[: position - start]
                    tails[position] = hashlib.sha256(text[-ENDS_BYTES:]).hexdigest()
            before = (before + chunk)[-ENDS_BYTES:]
            start += len(chunk)
    return tails


def copies(files: t.Sequence[Candidate]) -> set[str]:
    """Return compressed files whose plain form is still beside them: compression is not done yet, or was interrupted."""
    plain = {file.path: file for file in files if not file.compressed}
    return {
        file.path
        for file in files
        if strip_compression(file.path) != file.path
        and strip_compression(file.path) in plain
        and (file.status.st_size == 0 or (file.compressed and _begins_like(file.path, strip_compression(file.path))))
    }


def _begins_like(shorter: str, longer: str) -> bool:
    with open_regular(shorter) as one, open_regular(longer) as two:
        for chunk in LineReader(shorter).raw(one):
            if two.read(len(chunk)) != chunk:
                return False
    return True


def remember(known: Marks, marks: Marks, now: float) -> dict[str, Json]:
    """Add new marks to the known ones; what was not seen for long is forgotten."""
    kept = {key: mark for key, mark in known.items() if now - mark.get("seen", now) < KEPT_SECONDS}
    kept.update({key: {**mark, "seen": now} for key, mark in marks.items()})
    newest = sorted(kept, key=lambda key: -kept[key].get("seen", now))[:KEPT_FILES]
    return {key: {"seen": now, **kept[key]} for key in newest}
