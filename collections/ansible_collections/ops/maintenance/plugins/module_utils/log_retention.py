# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep logs as long as the rules say: compress, move to the archive, delete, by the date of their last record."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import itertools
import os
import re
import stat
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timezone, tzinfo

from . import log_files
from .errors import InputError, MaintenanceError, refusal, refuse
from .host import Host
from .judge import human_bytes, many
from .kept_state import keep_state
from .log_files import SUFFIX, TEMPORARY, HeldError, place_of
from .log_lines import Clock, last_record_time, strip_compression, zone_of
from .paths import ensure_private_folder, open_root, read_state, walk
from .record import Action, Finding, Metric, Outcome, clean, status_of

OPTIONS: dict[str, t.Any] = {
    "rules": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "root": {"type": "path", "required": True},
            "pattern": {"type": "list", "elements": "str", "required": True},
            "compress_after_days": {"type": "float"},
            "archive_to": {"type": "path"},
            "archive_after_days": {"type": "float"},
            "delete_after_days": {"type": "float"},
            "hold": {"type": "list", "elements": "str", "default": []},
            "compression": {"type": "str", "default": "gz", "choices": sorted(SUFFIX)},
            "timezone": {"type": "str", "default": "UTC"},
        },
    },
}

STATE = "log_retention.json"
LISTS = "log_retention_last.json"
LOCK = "log_retention.lock"
BYTES_PER_SECOND = 10 * 1024 * 1024
"""What a slow machine compresses and reads back at least; decides whether a file fits into the window."""

_DAY = 86400.0
_STEPS = ("compress", "archive", "delete")
_NAMES_SHOWN = 20
_DATE_IN_NAME = re.compile(r"(?<!\d)(20\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_MONTH_FOLDER = re.compile(r"20\d\d(?:0[1-9]|1[0-2])$")


@dataclass(frozen=True)
class Rule:
    """What is to happen to the logs of one root."""

    root: str
    patterns: tuple[str, ...]
    compress_after: float | None
    archive_to: str | None
    archive_after: float | None
    delete_after: float | None
    compression: str
    zone: tzinfo
    hold: tuple[str, ...] = ()

    def is_held(self, relative: str) -> bool:
        """Say whether a file stays as it is whatever its age, compressed or archived before or not."""
        plain = strip_compression(relative)
        month, _slash, below = plain.partition("/")
        names = [relative, plain, *([below] if _MONTH_FOLDER.match(month) else [])]
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.hold)

    def matches(self, relative: str) -> bool:
        """Say whether the rule means a file, compressed or not, numbered by us or not."""
        name = strip_compression(os.path.basename(relative))
        names = (name, log_files.without_number(name))
        return any(fnmatch.fnmatchcase(candidate, pattern) for candidate in names for pattern in self.patterns)


@dataclass(frozen=True)
class LogFile:
    """A log file with the date that decides."""

    root: str
    relative: str
    status: os.stat_result
    last: float
    basis: str
    problem: str = ""

    @property
    def path(self) -> str:
        """The whole path."""
        return os.path.join(self.root, self.relative)

    @property
    def is_packed(self) -> bool:
        """Whether its name says that it is compressed."""
        return strip_compression(self.relative) != self.relative


@dataclass
class Step:
    """What was done, or is due, in one step of one rule."""

    done: list[str] = field(default_factory=list)
    size: int = 0
    size_after: int = 0
    deferred: list[str] = field(default_factory=list)


@dataclass
class Work:
    """What happened under one rule."""

    rule: Rule
    steps: dict[str, Step] = field(default_factory=lambda: {name: Step() for name in _STEPS})
    held: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    renamed: list[str] = field(default_factory=list)
    no_files: set[str] = field(default_factory=set)
    on_hold: set[str] = field(default_factory=set)
    estimated: int = 0
    matched: int = 0
    settled: int = 0
    swept: int = 0
    folders_removed: int = 0


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Apply the rules once; in check mode, say what is due."""
    rules = parse_rules(params["rules"])
    for rule in rules:
        with open_root(rule.root, "rules[].root"):
            pass
        if rule.archive_to and os.path.lexists(rule.archive_to):
            with open_root(rule.archive_to, "rules[].archive_to"):
                pass
    known = read_state(params["state_dir"], STATE)
    before = _space(rules)
    with contextlib.nullcontext() if check_mode else _only_one(params["state_dir"]):
        keeper = Keeper(known, host, params["deadline"], check_mode)
        works = [keeper.keep(rule) for rule in rules]
    after = before if check_mode else _space(rules)
    actions = [action for work in works for action in _actions(work, check_mode)]
    outcome = Outcome(
        subject=", ".join(dict.fromkeys(rule.root for rule in rules)) or "log files",
        operation="log_retention",
        status=status_of(actions, check_mode),
        summary=_summary(works, before, after, check_mode),
        before=before,
        after=after,
        findings=[finding for work in works for finding in _findings(work)] or [_nothing_declared()],
        metrics=_metrics(works, before, after),
        actions=actions,
    )
    if not check_mode:
        outcome.findings += keep_state(params["state_dir"], STATE, keeper.dates)
        if outcome.is_change:
            outcome.findings += keep_state(params["state_dir"], LISTS, _lists(works))
    return outcome


# Rules ---------------------------------------------------------------------------------------------------------------


def parse_rules(given: t.Sequence[t.Mapping[str, t.Any]]) -> list[Rule]:
    """Check the rules, all of them before anything is done.

    :raises InputError: with a sentence for each problem.
    """
    refuse(input_problems({"rules": given}))
    return [
        Rule(
            os.path.normpath(entry["root"]),
            tuple(entry["pattern"]),
            entry["compress_after_days"],
            os.path.normpath(entry["archive_to"]) if entry["archive_to"] else None,
            entry["archive_after_days"],
            entry["delete_after_days"],
            entry["compression"],
            zone_of(entry["timezone"], "rules[].timezone"),
            tuple(entry.get("hold") or ()),
        )
        for entry in given
    ]


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    return [problem for entry in params["rules"] for problem in _faults(entry)]


def _faults(entry: t.Mapping[str, t.Any]) -> list[str]:
    where = f"The rule for {clean(str(entry['root']))}"
    ages = {name: entry[f"{name}_after_days"] for name in _STEPS}
    faults = [
        f"{where} has {name}_after_days {age:g}, expected a positive number; correct it."
        for name, age in ages.items()
        if age is not None and not 0 < age < 100_000
    ]
    order = [(name, age) for name, age in ages.items() if age is not None]
    faults += [
        f"{where} has {first}_after_days {a:g} but {second}_after_days {b:g}, expected them in rising order; correct them."
        for (first, a), (second, b) in zip(order, order[1:])
        if a > b
    ]
    if not order:
        faults.append(f"{where} names no age, expected at least one of compress, archive, delete_after_days; add one.")
    if bool(entry["archive_to"]) != (ages["archive"] is not None):
        faults.append(f"{where} needs archive_to and archive_after_days together; give both or none.")
    patterns = entry["pattern"]
    if not patterns or any("/" in pattern or not pattern.strip("*?.") for pattern in patterns):
        faults.append(f"{where} has pattern {patterns}, expected file names such as *.jsonl; a bare * is too much.")
    if any(os.path.isabs(pattern) or not pattern for pattern in entry.get("hold") or []):
        faults.append(f"{where} has hold {entry['hold']}, expected paths below the root; write them from there on.")
    faults += refusal(zone_of, entry["timezone"], "rules[].timezone")
    faults += [
        str(InputError.of(f"rules[].{name}", entry[name], "an absolute path", "write it from the root on"))
        for name in ("root", "archive_to")
        if entry[name] and not os.path.isabs(entry[name])
    ]
    root, archive = os.path.normpath(entry["root"]), os.path.normpath(entry["archive_to"] or "/-")
    if root == archive or root.startswith(archive + "/"):
        faults.append(f"{where} archives into {archive}, which holds the logs themselves; name another folder.")
    return faults


# Work ----------------------------------------------------------------------------------------------------------------


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
                    work.swept += _sweep(root_fd)
            self._live(work)
            if not self._check_mode and rule.archive_to:
                work.folders_removed = _remove_empty_months(rule.archive_to)
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
        _make_archive(archive)
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


# Folders -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _only_one(state_dir: str) -> t.Iterator[None]:
    ensure_private_folder(state_dir)
    lock_fd = os.open(os.path.join(state_dir, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MaintenanceError(f"Another run applies log rules on this host ({LOCK} is locked); wait for it.") from None
        yield
    finally:
        os.close(lock_fd)


def _make_archive(path: str) -> None:
    if not os.path.lexists(path):
        os.makedirs(path, mode=0o750, exist_ok=True)


def _sweep(root_fd: int) -> int:
    """Remove temporary files of ours that an interrupted run left; no other run is under way."""
    count = 0
    for entry in walk(root_fd):
        if entry.name.startswith(".") and entry.name.endswith(TEMPORARY) and stat.S_ISREG(entry.status.st_mode):
            os.unlink(entry.name, dir_fd=entry.dir_fd)
            count += 1
    return count


def _remove_empty_months(archive: str) -> int:
    """Remove month folders, and folders in them, that hold nothing any more."""
    if not os.path.isdir(archive):
        return 0
    count = 0
    for folder, _folders, _files, folder_fd in os.fwalk(archive, topdown=False, follow_symlinks=False):
        relative = os.path.relpath(folder, archive)
        if _MONTH_FOLDER.match(relative.split("/")[0]) and not os.listdir(folder_fd):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
                count += "/" not in relative
    return count


def _space(rules: t.Sequence[Rule]) -> dict[str, t.Any]:
    """Return the disk use of every root and archive (as du counts) and the free space below it (as df counts)."""
    space: dict[str, t.Any] = {}
    for path in dict.fromkeys([*(rule.root for rule in rules), *(rule.archive_to for rule in rules if rule.archive_to)]):
        if os.path.isdir(path):
            system = os.statvfs(path)
            space[path] = {"used_bytes": disk_use(path), "free_bytes": system.f_bavail * system.f_frsize}
        else:
            space[path] = {"used_bytes": 0, "free_bytes": None}
    return space


def disk_use(path: str) -> int:
    """Return the bytes that a folder takes on disk, each file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for _folder, folders, files, folder_fd in os.fwalk(path, follow_symlinks=False):
        for name in [*folders, *files]:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


# Record --------------------------------------------------------------------------------------------------------------

_WORDS = {"compress": "compressed", "archive": "moved to the archive", "delete": "deleted"}


def _actions(work: Work, check_mode: bool) -> list[Action]:
    actions = []
    for name, step in work.steps.items():
        if step.done:
            done = f"{many(len(step.done), 'file')} ({human_bytes(step.size)})"
            actions.append(
                Action(
                    work.rule.root,
                    name,
                    "due" if check_mode else "changed",
                    f"{done} {'to be ' if check_mode else ''}{_WORDS[name]}",
                    before={"files": len(step.done), "bytes": step.size, "names": step.done[:_NAMES_SHOWN]},
                    after={} if check_mode else {"bytes": step.size_after},
                )
            )
        if step.deferred:
            summary = f"no time in this window for {many(len(step.deferred), 'file')}"
            before = {"files": len(step.deferred), "names": step.deferred[:_NAMES_SHOWN]}
            actions.append(Action(work.rule.root, name, "deferred", summary, before=before))
    if work.swept or work.settled or work.folders_removed:
        summary = (
            f"{many(work.swept, 'temporary file')} of an interrupted run removed, {work.settled} of its files settled, "
            f"{many(work.folders_removed, 'empty month folder')} removed"
        )
        actions.append(Action(work.rule.root, "tidy", "changed", summary))
    return actions


def _findings(work: Work) -> list[Finding]:
    rule, findings = work.rule, []
    if not work.matched and not work.held and not work.on_hold:
        return [
            Finding(
                "logs.retention", "unknown", rule.root, f"No file below {rule.root} matches {', '.join(rule.patterns)}.",
                advice="Correct root or pattern of the rule, or remove it.",
            )
        ]  # fmt: skip
    left = [path for step in work.steps.values() for path in step.deferred]
    state = "warning" if left else "ok"
    findings.append(
        Finding(
            "logs.retention", state, rule.root,
            f"{work.matched} files below {rule.root} follow the rule{f', {len(left)} wait for a longer window' if left else ''}.",
            value=len(left), unit="count", threshold="warning from 1 count left undone",
            basis="estimated" if work.estimated else "exact", not_covered=_not_covered(work),
            advice="" if state == "ok" else "Give the window more time, or run the retention more often.", evidence=left[:10],
        )
    )  # fmt: skip
    findings += _listed(
        work.held, "logs.held", "warning", rule.root, "files are due but were left alone",
        "Let the service that writes them reopen its log, or exclude them by the rule's pattern.",
    )  # fmt: skip
    findings += _listed(
        work.damaged, "logs.damaged", "warning", rule.root, "files are damaged and were left alone",
        "Keep a copy, restore them from a backup, or remove them by hand.",
    )  # fmt: skip
    findings += _listed(
        dict.fromkeys(work.renamed, "its plain name was taken by a file with other content"),
        "logs.name_taken", "warning", rule.root, "files got a number in their name, so that none was overwritten",
        "See why the same name is used twice; rotation with dates in the names avoids it.",
    )  # fmt: skip
    return findings


def _nothing_declared() -> Finding:
    return Finding(
        "logs.retention", "unknown", "log files", "No rule is declared, so no log was looked at.",
        advice="Declare which logs are kept how long.",
    )  # fmt: skip


def _not_covered(work: Work) -> str:
    said = []
    if work.estimated:
        said.append(f"{work.estimated} files hold no date, so the time of their last change decided")
    if work.on_hold:
        said.append(f"{many(len(work.on_hold), 'file')} under a hold: {', '.join(clean(path, 120) for path in sorted(work.on_hold)[:3])}")
    if work.no_files:
        said.append(
            f"{many(len(work.no_files), 'link or special file', 'links or special files')} not touched: {', '.join(sorted(work.no_files)[:3])}"
        )
    return "; ".join(said)


def _listed(what: t.Mapping[str, str], finding_id: str, state: str, root: str, words: str, advice: str) -> list[Finding]:
    if not what:
        return [Finding(finding_id, "ok", root, f"0 {words}.", value=0, unit="count")]
    lines = [clean(f"{clean(path, 120)}: {reason}", 200) for path, reason in sorted(what.items())]
    return [
        Finding(finding_id, state, root, f"{len(what)} {words}.", value=len(what), unit="count",
                threshold=f"{state} from 1 count", advice=advice, evidence=lines)
    ]  # fmt: skip


def _summary(works: t.Sequence[Work], before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any], check_mode: bool) -> str:
    counts = [(name, sum(len(work.steps[name].done) for work in works)) for name in _STEPS]
    said = ", ".join(f"{count} {'to be ' if check_mode else ''}{_WORDS[name]}" for name, count in counts)
    return said if check_mode else f"{said}; {human_bytes(_reclaimed(before, after))} reclaimed"


def _reclaimed(before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> int:
    return sum(int(before[path]["used_bytes"]) - int(after[path]["used_bytes"]) for path in before)


def _metrics(works: t.Sequence[Work], before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> list[Metric]:
    metrics = [
        Metric(f"logs.{name}", work.rule.root, len(work.steps[step].done), "count")
        for work in works
        for step, name in (("compress", "compressed"), ("archive", "archived"), ("delete", "deleted"))
    ]
    metrics += [Metric("logs.disk_use", path, after[path]["used_bytes"], "bytes") for path in after]
    return [*metrics, Metric("logs.reclaimed", "all", _reclaimed(before, after), "bytes")]


def _lists(works: t.Sequence[Work]) -> dict[str, t.Any]:
    return {work.rule.root: {name: [clean(path) for path in step.done] for name, step in work.steps.items()} for work in works}
