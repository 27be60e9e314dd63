# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared sets of backups: which backups lie there, when each was made, what is missing and what is too old."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
import typing as t
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo

from .errors import InputError
from .paths import open_root, walk

Declared = t.Mapping[str, t.Any]
HOUR = 3600.0
DAY = 86400.0
_ZONES_APART = 14 * HOUR

_UNFINISHED = (".tmp", ".part", ".partial", ".incomplete", ".filepart", ".swp")
SIDECARS = ("-wal", "-shm", "-journal")
_DIRECTIVES = {"Y": (r"\d{4}", 366.0), "y": (r"\d{2}", 366.0), "m": (r"\d{2}", 31.0), "d": (r"\d{2}", 1.0),
               "j": (r"\d{3}", 1.0), "H": (r"\d{2}", 1 / 24), "M": (r"\d{2}", 1 / 1440), "S": (r"\d{2}", 1 / 86400)}  # fmt: skip


class File(t.NamedTuple):
    """One regular file of a backup."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Backup:
    """One backup: a file, or a dated folder with all files in it.

    :param moment: when it was made, in seconds since the epoch.
    :param day: the calendar day it stands for.
    :param took_seconds: how long making it took, where name and files tell.
    """

    path: str
    files: tuple[File, ...]
    moment: float
    day: date
    took_seconds: float | None = None

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)


@dataclass
class Listing:
    """The backups of a set, oldest first, and what else was met."""

    backups: list[Backup] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def list_backups(declared: Declared, zone: tzinfo | None) -> Listing:
    """List the backups of a set.

    :raises InputError: the root is missing, a symbolic link or not a folder.
    :raises OSError: a folder in it could not be read.
    """
    listing = Listing()
    with open_root(declared["root"], f"root of set {declared['name']}") as root_fd:
        if declared["layout"] == "dated_folders":
            _list_folders(root_fd, declared, zone, listing)
        elif declared["layout"] == "folders":
            _list_whole_folders(root_fd, declared["root"], "", declared, zone, listing)
        else:
            _list_files(root_fd, declared, zone, listing)
    listing.backups.sort(key=lambda backup: (backup.moment, backup.path))
    return listing


def _list_files(root_fd: int, declared: Declared, zone: tzinfo | None, listing: Listing) -> None:
    for entry in walk(root_fd):
        path = os.path.join(declared["root"], entry.relative)
        if is_unfinished(entry.name):
            listing.unfinished.append(path)
        elif matches(entry.relative, declared["pattern"]) and not _is_companion(entry.name, declared):
            if stat.S_ISREG(entry.status.st_mode):
                file = File(path, entry.status.st_size, entry.status.st_mtime_ns)
                listing.backups.append(_backup_of(path, entry.name, (file,), declared["date_format"], zone))
            else:
                listing.strange.append(f"{path} is not a regular file")


def _list_folders(root_fd: int, declared: Declared, zone: tzinfo | None, listing: Listing) -> None:
    for name in sorted(os.listdir(root_fd)):
        if date_in(name, declared["date_format"], zone, whole=True) is None:
            continue
        path = os.path.join(declared["root"], name)
        if not stat.S_ISDIR(os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_mode):
            listing.strange.append(f"{path} is not a folder")
            continue
        with _opened(name, root_fd) as folder_fd:
            _note_folder(path, folder_fd, declared, zone, listing)


@contextlib.contextmanager
def _opened(name: str, dir_fd: int) -> t.Iterator[int]:
    folder_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def _note_folder(path: str, folder_fd: int, declared: Declared, zone: tzinfo | None, listing: Listing) -> None:
    files = tuple(_files_of(path, folder_fd, listing))
    made = os.fstat(folder_fd).st_mtime_ns
    listing.backups.append(_backup_of(path, os.path.basename(path), files, declared["date_format"], zone, made))


def _list_whole_folders(folder_fd: int, path: str, relative: str, declared: Declared, zone: tzinfo | None, listing: Listing) -> None:
    """Take each folder that matches for a backup; look into the others."""
    for name in sorted(os.listdir(folder_fd)):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            continue
        below, full = os.path.join(relative, name), os.path.join(path, name)
        if is_unfinished(name):
            listing.unfinished.append(full)
            continue
        with _opened(name, folder_fd) as child_fd:
            if matches(below, declared["pattern"]):
                _note_folder(full, child_fd, declared, zone, listing)
            else:
                _list_whole_folders(child_fd, full, below, declared, zone, listing)


def _files_of(path: str, folder_fd: int, listing: Listing) -> t.Iterator[File]:
    for entry in walk(folder_fd):
        full = os.path.join(path, entry.relative)
        if is_unfinished(entry.name):
            listing.unfinished.append(full)
        elif stat.S_ISREG(entry.status.st_mode):
            yield File(full, entry.status.st_size, entry.status.st_mtime_ns)
        else:
            listing.strange.append(f"{full} is not a regular file")


def _backup_of(path: str, name: str, files: tuple[File, ...], date_format: str, zone: tzinfo | None, made_ns: int = 0) -> Backup:
    last = max((file.mtime_ns for file in files), default=made_ns) / 1e9
    named = date_in(name, date_format, zone)
    if named is None:
        return Backup(path, files, last, local(last, zone).date())
    start, period = named
    # A copy may carry an old or a new time stamp; the name says the day, the time stamp refines it within that day.
    earliest, latest = start.timestamp(), start.timestamp() + period
    if earliest - _ZONES_APART <= last < earliest:
        earliest = last  # named in another zone, or begun before midnight: nothing is newer than its bytes
    moment = min(max(last, earliest), latest)
    first = min((file.mtime_ns for file in files), default=made_ns) / 1e9
    begun = start.timestamp() if period < DAY else first
    took = last - begun if 0 < last - begun < DAY else None
    return Backup(path, files, moment, start.date(), took)


def local(moment: float, zone: tzinfo | None) -> datetime:
    """Return a moment in the zone of the backups; without one, in the host's own."""
    return datetime.fromtimestamp(moment, zone) if zone else datetime.fromtimestamp(moment).astimezone()


def date_in(name: str, date_format: str, zone: tzinfo | None, whole: bool = False) -> tuple[datetime, float] | None:
    """Return the moment that a name says and for how many seconds it stands (a day, a minute …)."""
    if not date_format:
        return None
    pattern, period = _pattern_of(date_format)
    for found in re.finditer(rf"\A{pattern}\Z" if whole else rf"(?<!\d){pattern}(?!\d)", name):
        try:
            naive = datetime.strptime(found.group(), date_format)
        except ValueError:
            continue
        return (naive.replace(tzinfo=zone) if zone else naive.astimezone()), period
    return None


def _pattern_of(date_format: str) -> tuple[str, float]:
    pattern, period = "", 366.0
    for part in re.split(r"(%.)", date_format):
        known = _DIRECTIVES.get(part[1:]) if part.startswith("%") else None
        pattern += known[0] if known else re.escape(part)
        period = min(period, known[1]) if known else period
    return pattern, period * DAY


def check_date_format(date_format: str, option: str) -> None:
    """Refuse a date format that names no day or has a part that is not known here."""
    used = re.findall(r"%(.)", date_format)
    days = {"Y", "y"} & set(used) and ({"m", "d"} <= set(used) or "j" in used)
    if date_format and (not days or not set(used) <= set(_DIRECTIVES)):
        raise InputError.of(option, date_format, "year, month and day such as %Y%m%d", "use only %Y %y %m %d %j %H %M %S")


def matches(relative: str, pattern: str) -> bool:
    """Match a path below the root: without ``/`` the pattern is for the name, else for the whole path; ``{a,b}`` is either."""
    return any(_matches_one(relative, single) for single in alternatives(pattern))


def alternatives(pattern: str) -> list[str]:
    """Spell out the braces of a pattern: ``{daily,weekly}/*`` is ``daily/*`` and ``weekly/*``."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return list(dict.fromkeys(one for part in found.group(1).split(",") for one in alternatives(before + part + after)))


def _matches_one(relative: str, pattern: str) -> bool:
    if "/" not in pattern:
        return fnmatch.fnmatchcase(os.path.basename(relative), pattern)
    return _match_parts(relative.split("/"), pattern.split("/"))


def _match_parts(parts: t.Sequence[str], patterns: t.Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match_parts(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _match_parts(parts[1:], patterns[1:])


def is_unfinished(name: str) -> bool:
    """Whether a name is one that tools give to what they are still writing."""
    return name.startswith(".") or name.lower().endswith(_UNFINISHED)


def _is_companion(name: str, declared: Declared) -> bool:
    manifest = declared["manifest"]
    is_manifest = bool(manifest) and (name == manifest or fnmatch.fnmatchcase(name, manifest.replace("{name}", "*")))
    return is_manifest or (declared["kind"] == "sqlite" and name.endswith(SIDECARS))


# What the listing tells ----------------------------------------------------------------------------------------------


def missing_days(backups: t.Sequence[Backup], now: float, zone: tzinfo | None, days: int) -> list[date]:
    """Name the days without a backup that holds anything; today counts only once its backup is there."""
    made = {backup.day for backup in backups if backup.size}
    today = local(now, zone).date()
    last = today if today in made else today - timedelta(days=1)
    return [day for day in (last - timedelta(days=back) for back in range(days - 1, -1, -1)) if day not in made]


def may_be_behind(declared: Declared) -> float:
    """Return how many seconds the content may be behind its source before the backup fails: what its schedule lets pass, or a longer objective.

    A shorter objective that is missed is told by ``backup.rpo``; the backup is as sound as its schedule makes it, and may be all there is.
    """
    return float(max(declared["maximum_age_hours"], declared["maximum_rpo_hours"])) * HOUR


def made_within(backups: t.Sequence[Backup], now: float, days: int) -> list[Backup]:
    """Return the backups that hold anything and were made in the last ``days`` days."""
    return [backup for backup in backups if backup.size and now - days * DAY <= backup.moment <= now + HOUR]


def too_old(backups: t.Sequence[Backup], now: float, maximum_age_days: float, minimum_count: int) -> list[Backup]:
    """Return what retention no longer wants; the newest ``minimum_count`` that hold anything always stay."""
    holding = [backup for backup in backups if backup.size]
    kept = {backup.path for backup in holding[max(len(holding) - minimum_count, 0) :]} if minimum_count else set()
    return [b for b in backups if now - b.moment > maximum_age_days * DAY and b.path not in kept]
