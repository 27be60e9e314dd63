# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove temporary files and uploads of a declared age: inside a root, by pattern, never what is in use or referred to."""

from __future__ import annotations

import contextlib
import fnmatch
import math
import os
import stat
import typing as t
from dataclasses import dataclass, field

from . import postgresql
from .errors import MaintenanceError, refusal, refuse
from .host import Host
from .judge import human_bytes
from .kept_state import keep_state
from .paths import open_root
from .record import Action, Finding, Metric, Outcome, clean, status_of
from .stale_files_references import REFERENCE, References, can_be_asked

RULE: dict[str, t.Any] = {
    "name": {"type": "str", "default": ""},
    "root": {"type": "path", "required": True},
    "patterns": {"type": "list", "elements": "str", "required": True},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "age_days": {"type": "float", "required": True},
    "minimum_age_days": {"type": "float", "default": 1.0},
    "age_by": {"type": "str", "choices": ["modified", "changed"], "default": "modified"},
    "remove_empty_folders": {"type": "bool", "default": False},
    "referenced_by": {"type": "list", "elements": "dict", "default": [], "options": REFERENCE},
}

OPTIONS: dict[str, t.Any] = {
    "servers": {"type": "list", "elements": "dict", "required": True, "options": postgresql.SERVER},
    "rules": {"type": "list", "elements": "dict", "required": True, "options": RULE},
}

LISTS = "stale_files_last.json"
DAY = 86400.0

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64
_CHUNK = 500
_NAMES_KEPT = 10_000
_NAMES_SHOWN = 10

Rule = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Stale:
    """A file that is old enough, where it was found."""

    relative: str
    status: os.stat_result

    @property
    def identity(self) -> tuple[int, int]:
        """Device and number, by which a file that is open is recognised."""
        return self.status.st_dev, self.status.st_ino


@dataclass
class Work:
    """What one rule found and did."""

    rule: Rule
    matched: int = 0
    removed: list[str] = field(default_factory=list)
    size: int = 0
    kept: dict[str, list[str]] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    unknown: str = ""
    deferred: bool = False

    @property
    def subject(self) -> str:
        """What the rule is called in findings."""
        return f"{self.rule['root']} ({self.rule['name'] or ', '.join(self.rule['patterns'])})"

    def keep(self, reason: str, relative: str) -> None:
        """Note an old file that stays, and why."""
        self.kept.setdefault(reason, []).append(relative)


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Apply every rule once; in check mode say what is due."""
    servers = {server["name"]: server for server in params["servers"]}
    _check_input(params)
    used, blind = open_files()
    works = []
    for rule in params["rules"]:
        work = Work(rule)
        works.append(work)
        Cleaner(work, servers, used, host, params["deadline"], check_mode).run()
    outcome = Outcome("stale files", "stale_files", "ok", "")
    for work in works:
        outcome.findings += _findings(work, check_mode, blind)
        outcome.actions += _actions(work, check_mode)
        for name, value, unit in (("files", len(work.removed), "count"), ("bytes", work.size, "bytes")):
            outcome.metrics.append(Metric(f"stale_files.removed_{name}", work.subject, value, unit))
    if not works:
        advice = "Declare the rules, or leave this step out."
        outcome.findings.append(Finding("stale_files.rule", "unknown", "stale files", "no rule is declared", advice=advice))
    outcome.status = status_of(outcome.actions, check_mode)
    removed, size = sum(len(work.removed) for work in works), sum(work.size for work in works)
    verb = "due" if check_mode else "removed"
    outcome.summary = f"{len(works)} rule(s), worst state {outcome.state}, {removed} file(s) of {human_bytes(size)} {verb}"
    outcome.returned = {"due": outcome.is_change, "files": removed, "bytes": size}
    if outcome.is_change and not check_mode:
        outcome.findings += keep_state(params["state_dir"], LISTS, {"run_id": params["run_id"], "removed": _lists(works)})
    return outcome


def _lists(works: list[Work]) -> dict[str, list[str]]:
    return {clean(work.subject): [clean(name, 4096) for name in work.removed[:_NAMES_KEPT]] for work in works if work.removed}


def input_problems(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    names = {server["name"] for server in params["servers"]}
    problems = [problem for server in params["servers"] for problem in refusal(postgresql.check_server, server)]
    return problems + [problem for rule in params["rules"] for problem in _faults(rule, names)]


def _check_input(params: dict[str, t.Any]) -> None:
    problems = input_problems(params)
    for rule in params["rules"]:
        try:
            with open_root(rule["root"], "rules[].root"):
                pass
        except MaintenanceError as error:
            problems.append(str(error))
    refuse(problems)


def _faults(rule: Rule, servers: t.Collection[str]) -> t.Iterator[str]:
    where = f"The rule for {clean(rule['root'])}"
    age, least = rule["age_days"], rule["minimum_age_days"]
    if not math.isfinite(age) or not 0 <= least <= age or age <= 0:
        yield f"{where} has age_days {age:g}, expected at least minimum_age_days ({least:g}); correct it."
    for pattern in [*rule["patterns"], *rule["exclude"]]:
        if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            yield f"{where} has pattern {pattern!r}, expected a file name or a path below the root, such as *.tmp or cache/*; correct it."
    if not rule["patterns"]:
        yield f"{where} has no patterns, expected which files may go, such as *.tmp; name them."
    for reference in rule["referenced_by"]:
        if reference["server"] not in servers:
            yield f"{where} is referenced by server {reference['server']!r}, expected one of servers; correct it."


def matches(relative: str, patterns: t.Sequence[str]) -> bool:
    """Whether a path below the root is meant: by its name, or by the whole path where a pattern has a slash."""
    name = os.path.basename(relative)
    return any(fnmatch.fnmatchcase(relative if "/" in pattern else name, pattern) for pattern in patterns)


def open_files(proc: str = "/proc") -> tuple[set[tuple[int, int]], int]:
    """Return the regular files that processes have open, and how many processes did not let us look."""
    used: set[tuple[int, int]] = set()
    blind = 0
    for pid in filter(str.isdigit, os.listdir(proc)):
        folder = os.path.join(proc, pid, "fd")
        try:
            numbers = os.listdir(folder)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            blind += 1
            continue
        for number in numbers:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(folder, number))
                if stat.S_ISREG(status.st_mode):
                    used.add((status.st_dev, status.st_ino))
    return used, blind


@dataclass
class Cleaner:
    """Applies one rule."""

    work: Work
    servers: t.Mapping[str, postgresql.Server]
    used: set[tuple[int, int]]
    host: Host
    deadline: float
    check_mode: bool
    _references: list[References] = field(default_factory=list)

    def run(self) -> None:
        """Find what is old, ask who needs it, remove the rest; where that cannot be asked, remove nothing."""
        rule = self.work.rule
        self._before = self.host.now().timestamp() - rule["age_days"] * DAY
        try:
            for spec in rule["referenced_by"]:
                references = References(spec, self.servers[spec["server"]])
                self._references.append(references)
                references.prepare()
            with open_root(rule["root"]) as root_fd:
                self._device = os.fstat(root_fd).st_dev
                self._folder(root_fd, "", 0)
        except MaintenanceError as error:
            self.work.unknown = str(error)
        finally:
            for references in self._references:
                references.close()

    def _folder(self, folder_fd: int, relative: str, depth: int) -> bool:
        """Work through a folder; whether it is empty afterwards."""
        stale: list[Stale] = []
        stays = 0
        for name in sorted(os.listdir(folder_fd)):
            path = os.path.join(relative, name)
            try:
                status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                stays += not self._below(folder_fd, name, path, status, depth)
            elif self._is_meant(path, status):
                stale.append(Stale(path, status))
            else:
                stays += 1
        for start in range(0, len(stale), _CHUNK):
            stays += self._chunk(folder_fd, stale[start : start + _CHUNK])
        return stays == 0

    def _below(self, folder_fd: int, name: str, path: str, status: os.stat_result, depth: int) -> bool:
        """Work through a folder inside another; whether it is gone afterwards."""
        if status.st_dev != self._device or depth >= _DEEPEST:
            self.work.unseen.append(f"{path}: {'another file system' if depth < _DEEPEST else 'too deep'}")
            return False
        try:
            child_fd = os.open(name, _FOLDER, dir_fd=folder_fd)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.work.unseen.append(f"{path}: {error.strerror}")
            return False
        try:
            empty = self._folder(child_fd, path, depth + 1)
        finally:
            os.close(child_fd)
        if not (empty and self.work.rule["remove_empty_folders"] and self._age_of(status) < self._before) or self._is_late():
            return False
        if not self.check_mode:
            try:
                os.rmdir(name, dir_fd=folder_fd)
            except OSError:  # something came into it meanwhile
                return False
        self.work.folders.append(path)
        return True

    def _age_of(self, status: os.stat_result) -> float:
        by_change = self.work.rule["age_by"] == "changed"
        return max(status.st_mtime, status.st_ctime) if by_change else status.st_mtime

    def _is_meant(self, path: str, status: os.stat_result) -> bool:
        rule = self.work.rule
        if not matches(path, rule["patterns"]) or matches(path, rule["exclude"]) or self._age_of(status) >= self._before:
            return False
        if not stat.S_ISREG(status.st_mode):
            self.work.keep("not a regular file", path)
            return False
        self.work.matched += 1
        return True

    def _is_late(self) -> bool:
        if self.deadline and self.host.now().timestamp() >= self.deadline:
            self.work.deferred = True
        return self.work.deferred

    def _chunk(self, folder_fd: int, stale: list[Stale]) -> int:
        """Remove files of one folder that nobody needs; returns how many stay."""
        if self._is_late():
            return len(stale)
        named = self._referred_to(stale)
        stays = 0
        for one in stale:
            name = os.path.basename(one.relative)
            reason = ""
            if one.identity in self.used:
                reason = "open in a process"
            elif self._references and not can_be_asked(name):
                reason = "name is no valid text, so no row could be asked for"
            elif name in named:
                reason = "a row of the database names it"
            elif not self.check_mode:
                reason = self._remove(folder_fd, name, one)
            if reason:
                self.work.keep(reason, one.relative)
                stays += 1
            else:
                self.work.removed.append(one.relative)
                self.work.size += one.status.st_size
        return stays

    def _referred_to(self, stale: list[Stale]) -> set[str]:
        names = [os.path.basename(one.relative) for one in stale]
        names = [name for name in names if can_be_asked(name)]
        return set().union(*(references.among(names) for references in self._references)) if names else set()

    def _remove(self, folder_fd: int, name: str, one: Stale) -> str:
        """Remove a file that is still the one that was looked at; returns why not."""
        try:
            status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            same = (status.st_dev, status.st_ino) == one.identity and status.st_mtime_ns == one.status.st_mtime_ns
            if not same or not stat.S_ISREG(status.st_mode):
                return "changed while the work was under way"
            os.unlink(name, dir_fd=folder_fd)
        except FileNotFoundError:
            return "vanished while the work was under way"
        except OSError as error:
            return f"cannot be removed ({error.strerror})"
        return ""


# Reporting -----------------------------------------------------------------------------------------------------------


def _findings(work: Work, check_mode: bool, blind: int) -> list[Finding]:
    rule, found = work.rule, []
    threshold = f"older than {rule['age_days']:g} days, by the time it was last {rule['age_by']}"
    if work.unknown:
        words = f"{work.unknown} Nothing more was removed."
        advice = "Correct the cause; without it, nobody knows which files are needed."
        found.append(Finding("stale_files.references", "unknown", work.subject, words, advice=advice, not_covered="files of this rule"))
    elif rule["referenced_by"]:
        named = len(work.kept.get("a row of the database names it", ()))
        words = f"{named} old files are named by rows and stay"
        found.append(Finding("stale_files.references", "ok", work.subject, words, value=named, unit="count"))
    verb = "due" if check_mode else "removed"
    words = f"{len(work.removed)} of {work.matched} old files {verb} ({human_bytes(work.size)}), {len(work.folders)} empty folders {verb}"
    not_covered = "; ".join(work.unseen[:5])
    blinded = f"what {blind} processes have open, for want of privilege" if blind else ""
    found.append(
        Finding(
            "stale_files.files",
            "warning" if work.deferred else "unknown" if work.unseen or work.unknown or blind else "ok",
            work.subject,
            words,
            value=len(work.removed),
            unit="count",
            threshold=threshold,
            not_covered="; ".join(filter(None, (not_covered, blinded))),
            advice="Give the window more time, or let the module read what it could not."
            if work.deferred or work.unseen or work.unknown or blind
            else "",
            evidence=work.removed[:_NAMES_SHOWN],
        )
    )
    failed = {reason: names for reason, names in work.kept.items() if reason.startswith("cannot")}
    for reason, names in sorted(work.kept.items()):
        advice = "Let the module run as a user that may." if reason in failed else ""
        state = "warning" if reason in failed else "ok"
        words = f"{len(names)} old files stay: {reason}"
        found.append(
            Finding(
                "stale_files.kept", state, work.subject, words, value=len(names), unit="count", advice=advice, evidence=names[:_NAMES_SHOWN]
            )
        )
    return found


def _actions(work: Work, check_mode: bool) -> list[Action]:
    actions = []
    if work.removed or work.folders:
        status = "due" if check_mode else "changed"
        words = f"{len(work.removed)} files of {human_bytes(work.size)} older than {work.rule['age_days']:g} days"
        before = {"files": len(work.removed), "bytes": work.size, "folders": len(work.folders)}
        actions.append(Action(work.subject, "remove_files", status, words, before, {"files": 0, "bytes": 0, "folders": 0}))
    if work.deferred:
        actions.append(Action(work.subject, "remove_files", "deferred", "the window closed before all was removed"))
    return actions
