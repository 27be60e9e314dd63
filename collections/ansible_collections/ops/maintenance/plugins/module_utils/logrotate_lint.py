# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a logrotate configuration as a whole, held against the files it is meant for."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
import typing as t
from dataclasses import dataclass, field

from .errors import MaintenanceError
from .judge import human_bytes, many
from .log_files import Writer
from .logrotate_config import size_of
from .logrotate_tree import Entry, Tree
from .paths import open_root, walk
from .record import Finding, clean

PERIOD_DAYS = {"hourly": 1 / 24, "daily": 1.0, "weekly": 7.0, "monthly": 31.0, "yearly": 366.0}
_DAY = 86400.0
_PACKED = r"\.(?:gz|xz|bz2|zst|Z)"
_ROTATED = re.compile(rf"[.-](?:\d{{1,3}}|\d{{8}}(?:-\d+)?)(\.[A-Za-z]\w*)?(?:{_PACKED})?$|{_PACKED}$")
_NO_LOGS = ("lastlog", "faillog", "tallylog", "wtmp.db", "lastlog2.db", "*.journal", "*.journal~", "eipp.log.xz")
"""Files below log folders that are data of fixed size or have a keeper of their own."""


@dataclass
class Look:
    """What the lint looks at besides the configuration.

    :param rotated: seconds since the epoch when each log was last rotated, by logrotate's state file.
    :param ran: when logrotate last ran, None where that is not known.
    :param sizes: what the previous lint saw: path → inode, size and time.
    """

    now: float
    rotated: t.Mapping[str, float] = field(default_factory=dict)
    ran: float | None = None
    sizes: t.Mapping[str, t.Mapping[str, float]] = field(default_factory=dict)
    writers: t.Mapping[tuple[int, int], Writer] = field(default_factory=dict)
    roots: t.Sequence[str] = ()
    ignore: t.Sequence[str] = ()
    growth_bytes: int = 1024**3


@dataclass
class Claims:
    """Which entry claims which path, and what is wrong with the patterns."""

    by_path: dict[str, Entry] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)

    def present(self) -> t.Iterator[tuple[str, Entry, os.stat_result]]:
        """Yield every claimed path that is a regular file."""
        for path, entry in self.by_path.items():
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, entry, status


def claims_of(tree: Tree) -> Claims:
    """Expand every pattern as logrotate does."""
    claims = Claims()
    for entry in tree.entries:
        for pattern in entry.patterns:
            matched = sorted(path for path in glob.iglob(os.path.expanduser(pattern)) if not _is_folder(path))
            if not matched and "missingok" not in entry.settings:
                claims.empty.append(f"{clean(entry.where, 150)}: {clean(pattern, 150)} matches nothing and missingok is not set")
            together = set(matched)
            again = [path for path in matched if (originals(path) & together) - {path}]
            if again:
                claims.again.append(
                    f"{clean(entry.where, 150)}: {clean(pattern, 120)} also means rotated files such as {clean(again[0], 120)}"
                )
            for path in matched or [pattern]:
                first = claims.by_path.get(path)
                if first and "ignoreduplicates" not in first.settings:
                    claims.twice.append(f"{clean(path, 150)}: {clean(first.where, 150)} and {clean(entry.where, 150)}")
                claims.by_path.setdefault(path, entry)
    return claims


def lint(config: str, tree: Tree, look: Look) -> tuple[list[Finding], dict[str, t.Any]]:
    """Return a finding for every question, and the sizes for the next lint."""
    claims = claims_of(tree)
    present = list(claims.present())
    told = [
        _files(config, tree),
        _told(
            "logrotate.syntax", config, tree.faults, "line of the configuration is not understood", "lines of the configuration are not understood",
            "Correct each; logrotate leaves out the line, the section or the rest of the file.",
        ),
        _told(
            "logrotate.claims", config, claims.twice, "log is claimed by two entries", "logs are claimed by two entries",
            "Name it in one only; logrotate skips the whole file that comes second, with all its logs.",
        ),
        _told(
            "logrotate.patterns", config, claims.empty + claims.again, "pattern does not mean what it should", "patterns do not mean what they should",
            "Correct the path or add missingok; name files such as *.log, not *.",
        ),
        _told(
            "logrotate.su", config, _insecure(claims), "log lies in a folder that others may write, without su",
            "logs lie in folders that others may write, without su",
            "Add su with user and group of the folder; logrotate skips these logs.",
        ),
        _copytruncate(config, present, look),
        _told(
            "logrotate.reopened", config, _not_reopened(present, look), "rotated log is still written to", "rotated logs are still written to",
            "Let postrotate reload the service, or use copytruncate; lines go into a file that will be compressed and deleted.",
        ),
        _told(
            "logrotate.overdue", config, _overdue(present, look), "log was rotated too long ago", "logs were rotated too long ago",
            "Run logrotate -v by hand and read what it says of them.",
        ),
        _growth(config, present, look),
    ]  # fmt: skip
    sizes = {path: {"inode": status.st_ino, "size": status.st_size, "at": look.now} for path, _entry, status in present}
    return told + [_uncovered(root, tree, look) for root in look.roots], sizes


def _told(finding_id: str, subject: str, faults: t.Sequence[str], one: str, more: str, advice: str, **extra: t.Any) -> Finding:
    state = "warning" if faults else "ok"
    return Finding(
        finding_id, state, subject, f"{many(len(faults), one, more)}.", value=len(faults), unit="count", threshold="warning from 1 count",
        evidence=[clean(fault, 400) for fault in faults[:20]], advice=advice if faults else "", **extra,
    )  # fmt: skip


def _files(config: str, tree: Tree) -> Finding:
    left_out = f"{many(len(tree.left_out), 'file')} left out by name: {', '.join(clean(path, 80) for path in tree.left_out[:3])}"
    return _told(
        "logrotate.files", config, tree.passed_over, f"of {len(tree.files) + len(tree.passed_over)} configuration files is passed over",
        f"of {len(tree.files) + len(tree.passed_over)} configuration files are passed over",
        "Give it to root with mode 0644; nothing in it holds until then.", not_covered=left_out if tree.left_out else "",
    )  # fmt: skip


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _insecure(claims: Claims) -> list[str]:
    faults = []
    for path, entry in claims.by_path.items():
        folder = os.path.dirname(path)
        if "su" in entry.settings or not os.path.isdir(folder):
            continue
        status = os.stat(folder)
        if is_insecure(status):
            faults.append(f"{clean(path, 150)}: {clean(folder, 150)} has mode {stat.S_IMODE(status.st_mode):04o} and group {status.st_gid}")
    return faults


def is_insecure(folder: os.stat_result) -> bool:
    """Whether logrotate, run as root, refuses to rotate in a folder unless ``su`` is set."""
    return bool(folder.st_mode & stat.S_IWOTH or (folder.st_gid != 0 and folder.st_mode & stat.S_IWGRP))


Present = t.Sequence[tuple[str, Entry, os.stat_result]]
"""Claimed paths that are there."""


def _copytruncate(config: str, present: Present, look: Look) -> Finding:
    used = [one for one in present if "copytruncate" in one[1].settings]
    faults = []
    for path, entry, status in used:
        writer = look.writers.get((status.st_dev, status.st_ino))
        room = os.statvfs(os.path.dirname(path))
        where = f"{clean(path, 150)} ({clean(entry.where, 150)})"
        if writer is not None and not writer.appends:
            faults.append(f"{where}: {writer} does not append, so the file springs back to its old size, filled with zeros")
        if status.st_size > room.f_bavail * room.f_frsize:
            faults.append(f"{where}: no room for a copy of {human_bytes(status.st_size)}")
    named = f"{many(len(used), 'log')} with copytruncate: lines written between copy and truncation are lost" if used else ""
    return _told(
        "logrotate.copytruncate", config, faults, "danger of copytruncate", "dangers of copytruncate",
        "Let the service reopen its log in postrotate instead, or open it for appending.", not_covered=named,
    )  # fmt: skip


def _not_reopened(present: Present, look: Look) -> list[str]:
    faults = []
    for path, entry, _status in present:
        for sibling in sorted(glob.glob(glob.escape(path) + "[.-]*")):
            if not _ROTATED.fullmatch(sibling[len(path) :]) or os.path.islink(sibling) or not os.path.isfile(sibling):
                continue
            status = os.stat(sibling)
            writer = look.writers.get((status.st_dev, status.st_ino))
            if writer is not None:
                faults.append(f"{clean(sibling, 150)} ({clean(entry.where, 150)}): {writer} has it open for writing")
    return faults


def _overdue(present: Present, look: Look) -> list[str]:
    faults = []
    for path, entry, status in present:
        period = next((days for name, days in PERIOD_DAYS.items() if name in entry.settings), None)
        if period is None or path not in look.rotated or not _may_rotate(entry, status):
            continue
        days = (look.now - look.rotated[path]) / _DAY
        allowed = 2 * period + 1
        if days > allowed and look.now - _changed(entry.file) > allowed * _DAY:
            faults.append(
                f"{clean(path, 150)} ({clean(entry.where, 150)}): last rotated {days:.0f} days ago, expected every {period:.2g} days"
            )
    return faults


def _may_rotate(entry: Entry, status: os.stat_result) -> bool:
    least = size_of(entry.settings.get("minsize", "0")) or 0
    return status.st_size >= least and (status.st_size > 0 or "notifempty" not in entry.settings)


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _growth(config: str, present: Present, look: Look) -> Finding:
    faults, new = [], 0
    for path, entry, status in present:
        limit = size_of(entry.settings.get("maxsize", entry.settings.get("size", ""))) if _has_size(entry) else None
        seen = look.sizes.get(path, {})
        same = seen.get("inode") == status.st_ino and status.st_size >= seen.get("size", 0)
        ran_between = look.ran is not None and look.ran > seen.get("at", look.now)
        new += not seen
        where = f"{clean(path, 150)} ({clean(entry.where, 150)}) holds {human_bytes(status.st_size)}"
        if limit is not None and status.st_size > limit and same and seen["size"] > limit and ran_between:
            faults.append(f"{where}, its rule says {human_bytes(limit)}, and logrotate ran since it was larger")
        elif status.st_size > look.growth_bytes:
            faults.append(f"{where}, more than {human_bytes(look.growth_bytes)}")
    unseen = f"{many(new, 'log')} seen for the first time" if new else ""
    return _told(
        "logrotate.growth", config, faults, "log grows despite its rule", "logs grow despite their rules",
        "See why it is not rotated, or add maxsize and run logrotate more often.", not_covered=unseen,
    )  # fmt: skip


def _has_size(entry: Entry) -> bool:
    return "maxsize" in entry.settings or "size" in entry.settings


def _uncovered(root: str, tree: Tree, look: Look) -> Finding:
    patterns = [(os.path.expanduser(pattern), entry.settings.get("olddir", "")) for entry in tree.entries for pattern in entry.patterns]
    faults, links = [], 0
    try:
        with open_root(root, "log_roots") as root_fd:
            for found in walk(root_fd):
                path = os.path.join(root, found.relative)
                links += stat.S_ISLNK(found.status.st_mode)
                if stat.S_ISREG(found.status.st_mode) and found.status.st_size and not _is_covered(path, patterns, look.ignore):
                    faults.append(f"{clean(path, 250)}: {human_bytes(found.status.st_size)}")
    except (OSError, MaintenanceError) as error:
        return Finding(
            "logrotate.uncovered", "unknown", root, f"It could not be looked through: {clean(str(error), 300)}",
            advice="Correct log_roots, or let the module read the folder.",
        )  # fmt: skip
    return _told(
        "logrotate.uncovered", root, faults, "log file is in no rule", "log files are in no rule",
        "Declare them in log_rotation_logrotate_files, or name them in log_rotation_logrotate_ignore.",
        not_covered=f"{many(links, 'symbolic link')} not followed" if links else "",
    )  # fmt: skip


def _is_covered(path: str, patterns: t.Sequence[tuple[str, str]], ignore: t.Sequence[str]) -> bool:
    folder, name = os.path.split(path)
    if any(fnmatch.fnmatchcase(name, known) for known in _NO_LOGS) or any(fnmatch.fnmatchcase(path, known) for known in ignore):
        return True
    return any(
        any(fits(one, pattern) for one in originals(path)) or (olddir and fits(folder, os.path.join(os.path.dirname(pattern), olddir)))
        for pattern, olddir in patterns
    )


def originals(path: str) -> set[str]:
    """Return a path and what it was called before logrotate rotated it: app.log for app.log.2.gz and app-20261101.log."""
    return {path, _ROTATED.sub("", path, count=1), _ROTATED.sub(lambda found: found.group(1) or "", path, count=1)}


def fits(path: str, pattern: str) -> bool:
    """Whether a path is one that a pattern means, or would mean once it is there."""
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
