# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply one rule of log retention: compress, move to the archive, delete, by the date of the last record."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import typing as t
from datetime import datetime, timezone, tzinfo

from . import log_files
from .errors import MaintenanceError
from .host import Host
from .log_files import SUFFIX, TEMPORARY, HeldError, place_of
from .log_folders import make_archive, remove_empty_months, sweep
from .log_lines import Clock, last_record_time
from .log_rules import Rule
from .log_work import LogFile, Work
from .paths import open_root, walk
from .record import clean

BYTES_PER_SECOND = 10 * 1024 * 1024
"""What a slow machine compresses and reads back at least; decides whether a file fits into the window."""

_DAY = 86400.0
_DATE_IN_NAME = re.compile(r"(?<!\d)(20\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")


class Keeper:
    """Applies rules; remembers the date of each file that had to be read through to tell it."""

    def __init__(self, dates: dict[str, t.Any], host: Host, deadline: float, check_mode: bool) -> None:
        self.dates: dict[str, t.Any] = {}
        self._known = dates
        self._host = host
        self._deadline = deadline
        self._check_mode = check_mode
        self._now = host.now().timestamp()
        self._writers = log_files.open_for_writing()

    def keep(self, rule: Rule) -> Work:
        """Apply one rule: finish what was interrupted, then compress, archive, delete, each from a fresh list."""
        work = Work(rule)
        with contextlib.ExitStack() as stack:
            roots = [(rule.root, stack.enter_context(open_root(rule.root)))]
            if rule.archive_to and os.path.lexists(rule.archive_to):
                roots.append((rule.archive_to, stack.enter_context(open_root(rule.archive_to))))
            if not self._check_mode:
                for _path, root_fd in roots:
                    work.swept += sweep(root_fd)
            self._live(work)
            if not self._check_mode and rule.archive_to:
                work.folders_removed = remove_empty_months(rule.archive_to)
        return work

    def _live(self, work: Work) -> None:
        rule = work.rule
        listed = self._list(work, rule.root)
        archived = self._list(work, rule.archive_to) if rule.archive_to and os.path.isdir(rule.archive_to) else []
        work.matched = len(listed) + len(archived)
        work.estimated = sum(1 for one in [*listed, *archived] if one.basis == "estimated")
        doomed = [one for one in [*listed, *archived] if self._is_due(one, rule.delete_after)]
        staying = [one for one in listed if not self._is_due(one, rule.delete_after)]
        for one in staying:
            self._one_file(work, one)
        for one in doomed:
            self._attempt(work, "delete", one, self._delete)

    def _one_file(self, work: Work, one: LogFile) -> None:
        rule = work.rule
        may_move = one.is_packed or rule.compress_after is None
        if not one.is_packed and self._is_due(one, rule.compress_after):
            packed = self._attempt(work, "compress", one, self._compress)
            one, may_move = packed or one, packed is not None
        elif not one.is_packed and not self._check_mode:
            self._undo(work, one)
        if may_move and self._is_due(one, rule.archive_after):
            self._attempt(work, "archive", one, self._archive)

    def _attempt(self, work: Work, step: str, one: LogFile, act: t.Callable[[Work, LogFile], LogFile | None]) -> LogFile | None:
        """Do a step on one file, or say why not; returns the file as it is afterwards, None where it was held."""
        done = work.steps[step]
        try:
            if one.problem:
                raise HeldError(one.problem)
            if (one.status.st_dev, one.status.st_ino) in self._writers:
                log_files.check_not_written(one.status)  # again: numbers of deleted files are given to new ones
            seconds = 0 if step == "delete" else one.status.st_size / BYTES_PER_SECOND
            if self._deadline and self._host.now().timestamp() + seconds > self._deadline:
                done.deferred.append(one.path)
                return None
            after = one if self._check_mode else act(work, one)
        except FileNotFoundError:
            work.held[one.path] = "it vanished while the work was under way"
            return None
        except (OSError, HeldError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            (work.damaged if one.problem else work.held)[one.path] = clean(reason)
            return None
        done.done.append(one.path)
        done.size += one.status.st_size
        done.size_after += after.status.st_size if after and step != "delete" else 0
        return after

    def _compress(self, work: Work, one: LogFile) -> LogFile | None:
        with open_root(one.root) as root_fd, place_of(root_fd, one.relative) as source:
            taken = source._replace(name=source.name + SUFFIX[work.rule.compression])
            target = self._free(work, source, taken, os.path.dirname(one.path))
            if log_files.exists(source):
                log_files.compress(source, target, work.rule.compression)
            status = os.stat(target.name, dir_fd=target.dir_fd, follow_symlinks=False)
        relative = os.path.join(os.path.dirname(one.relative), target.name)
        self._remember(status, one.last, one.basis)
        return LogFile(one.root, relative, status, one.last, one.basis)

    @staticmethod
    def _free(work: Work, source: log_files.Place, target: log_files.Place, folder: str) -> log_files.Place:
        """Settle what lies at the target already; return the target, with a number if it has other content."""
        for candidate in log_files.names_for(target):
            if not log_files.exists(candidate):
                if candidate != target:
                    work.renamed.append(os.path.join(folder, candidate.name))
                return candidate
            if log_files.settle(source, candidate) != "other":
                work.settled += 1
                return candidate
        raise AssertionError("unreachable")

    def _undo(self, work: Work, one: LogFile) -> None:
        """Remove a copy that an interrupted run made of a file that has grown since."""
        with (
            contextlib.suppress(OSError, HeldError),
            open_root(one.root) as root_fd,
            place_of(root_fd, one.relative) as source,
        ):
            target = source._replace(name=source.name + SUFFIX[work.rule.compression])
            for copy in itertools.takewhile(log_files.exists, log_files.names_for(target)):
                work.settled += log_files.settle(source, copy) == "undone"

    def _archive(self, work: Work, one: LogFile) -> LogFile | None:
        archive = work.rule.archive_to or ""
        make_archive(archive)
        month = datetime.fromtimestamp(one.last, timezone.utc).strftime("%Y%m")
        relative = f"{month}/{one.relative}"
        with (
            open_root(one.root) as root_fd,
            place_of(root_fd, one.relative) as source,
            open_root(archive) as archive_fd,
            place_of(archive_fd, relative, make_like=source.dir_fd) as taken,
        ):
            target = self._free(work, source, taken, os.path.join(archive, os.path.dirname(relative)))
            if log_files.exists(source):
                log_files.move(source, target)
            status = os.stat(target.name, dir_fd=target.dir_fd, follow_symlinks=False)
        self._remember(status, one.last, one.basis)
        return LogFile(archive, relative, status, one.last, one.basis)

    def _delete(self, _work: Work, one: LogFile) -> LogFile | None:
        with open_root(one.root) as root_fd, place_of(root_fd, one.relative) as place:
            log_files.delete(place, one.status)
        return None

    def _is_due(self, one: LogFile, days: float | None) -> bool:
        return days is not None and self._now - one.last > days * _DAY

    # Dates

    def _list(self, work: Work, root: str) -> list[LogFile]:
        for _again in range(3):
            with contextlib.suppress(FileNotFoundError):  # somebody rotates logs just now
                return self._list_once(work, root)
        raise MaintenanceError(f"The files below {root} changed three times while they were listed; run again.")

    def _list_once(self, work: Work, root: str) -> list[LogFile]:
        rule, found = work.rule, []
        inside = os.path.relpath(rule.archive_to, root) if rule.archive_to and root == rule.root else ".."
        with open_root(root) as root_fd:
            for entry in walk(root_fd):
                if entry.relative.startswith(inside + "/") or not rule.matches(entry.relative):
                    continue
                if not stat.S_ISREG(entry.status.st_mode):
                    work.no_files.add(os.path.join(root, entry.relative))
                elif rule.is_held(entry.relative):
                    work.on_hold.add(os.path.join(root, entry.relative))
                elif not entry.name.endswith(TEMPORARY):
                    found.append(self._dated(root, entry.relative, entry.status, rule.zone))
        return found

    def _dated(self, root: str, relative: str, status: os.stat_result, zone: tzinfo) -> LogFile:
        known = self._known.get(_key(status)) or self.dates.get(_key(status))
        if known:
            self._remember(status, known["last"], known["basis"])
            return LogFile(root, relative, status, known["last"], known["basis"])
        path = os.path.join(root, relative)
        last, problem = last_record_time(path, Clock(min(status.st_mtime, self._now), zone))
        if problem:
            return LogFile(root, relative, status, status.st_mtime, "estimated", problem)
        basis = "content"
        if last is None:
            last, basis = date_in_name(os.path.basename(relative), zone), "name"
        if last is None:
            last, basis = status.st_mtime, "estimated"
        one = LogFile(root, relative, status, last, basis)
        if one.is_packed:
            self._remember(status, last, basis)
        return one

    def _remember(self, status: os.stat_result, last: float, basis: str) -> None:
        if status.st_size:
            self.dates[_key(status)] = {"last": last, "basis": basis}


def _key(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def date_in_name(name: str, zone: tzinfo = timezone.utc) -> float | None:
    """Return the end of the day that a file name holds, as seconds since the epoch."""
    found = _DATE_IN_NAME.search(name)
    if not found:
        return None
    try:
        day = datetime(*(int(part) for part in found.groups()), tzinfo=zone)  # type: ignore[misc,arg-type]
    except ValueError:
        return None
    return day.timestamp() + _DAY
