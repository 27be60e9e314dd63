# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modes and owners of declared files and folders: judged by their status, corrected only where declared."""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import re
import stat
import tempfile
import typing as t
from dataclasses import dataclass, field

from .errors import MaintenanceError
from .judge import many
from .record import Action, Finding, worst
from .security_common import Review, filled, shown, unknown, why_unread

OPTIONS: dict[str, t.Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "kind": {"type": "str", "choices": ["file", "directory"], "default": "file"},
            "mode": {"type": "str"},
            "file_mode": {"type": "str"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "recurse": {"type": "bool", "default": False},
            "sqlite": {"type": "bool", "default": False},
            "optional": {"type": "bool", "default": False},
            "correct": {"type": "bool", "default": False},
        },
    },
    "world_writable_roots": {"type": "list", "elements": "str", "default": []},
}
IDS = ("security.file_mode", "security.file_owner", "security.file_missing", "security.world_writable")

MODE = re.compile(r"0[0-7]{3}")
_KIND = {"file": (stat.S_ISREG, "a regular file"), "directory": (stat.S_ISDIR, "a folder")}
_GRAVE = 0o6027
"""Bits that nobody outside the group, and no group member by writing, may have: critical when they are too much."""


@dataclass(frozen=True)
class Rule:
    """What a path may be at most; ``None`` means that nothing is declared about it."""

    mode: int | None
    uid: int | None
    gid: int | None


@dataclass
class Judged:
    """What was met below one declared path."""

    looked: int = 0
    modes: list[tuple[str, str]] = field(default_factory=list)
    owners: list[tuple[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    due: list[tuple[str, Rule, os.stat_result]] = field(default_factory=list)

    def judge(self, path: str, status: os.stat_result, rule: Rule) -> None:
        """Compare one status with its rule."""
        self.looked += 1
        extra = excess(status.st_mode, rule.mode)
        if extra:
            state = "critical" if extra & _GRAVE else "warning"
            allowed = f"at most {rule.mode:04o} is declared"
            self.modes.append((state, f"{shown(path)} is {stat.S_IMODE(status.st_mode):04o}, {allowed}"))
        wrong = [
            (state, f"{kind} {name(found)}, declared is {name(wanted)}")
            for kind, state, name, found, wanted in (
                ("owner", "critical", user_name, status.st_uid, rule.uid),
                ("group", "warning", group_name, status.st_gid, rule.gid),
            )
            if wanted is not None and found != wanted
        ]
        self.owners.extend((state, f"{shown(path)} has {said}") for state, said in wrong)
        if extra or wrong:
            self.due.append((path, rule, status))


def excess(mode: int, allowed: int | None) -> int:
    """Return the permission bits beyond the allowed ones; sticky and set-group-id bits of folders are harmless."""
    if allowed is None:
        return 0
    harmless = stat.S_ISVTX | (stat.S_ISGID if stat.S_ISDIR(mode) else 0)
    return stat.S_IMODE(mode) & ~allowed & ~harmless


def user_name(uid: int) -> str:
    """Return a user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or the number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _id_of(name: str | None, kind: str) -> int | None:
    if name is None or name.isdigit():
        return None if name is None else int(name)
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise MaintenanceError(f"The {kind} {name} does not exist on this host; create it or correct the inventory.") from None


def validate(params: t.Mapping[str, t.Any]) -> list[str]:
    """Return what is wrong with the declared files, one sentence each."""
    wrong = []
    for item in params["files"]:
        wrong += [
            f"files.{name} of {item['path']} is {item[name]!r}, expected an octal mode in quotes such as '0600'."
            for name in ("mode", "file_mode")
            if item[name] is not None and not MODE.fullmatch(item[name])
        ]
        if item["recurse"] and item["kind"] != "directory":
            wrong.append(f"files.recurse of {item['path']} is true, expected kind: directory; correct one of them.")
        if item["mode"] is None and item["owner"] is None and item["group"] is None:
            wrong.append(f"files entry {item['path']} declares no mode, owner or group; declare what is to be judged.")
    paths = [item["path"] for item in params["files"]] + list(params["world_writable_roots"])
    wrong += [f"path {path!r} is not absolute; write it from the root on." for path in paths if not os.path.isabs(path)]
    return wrong


def look(review: Review) -> list[Finding]:
    """Judge every declared path, correct where that is declared, and search the declared roots for open doors."""
    findings: list[Finding] = []
    for item in review.params["files"]:
        findings.extend(_item(review, item))
    findings.extend(_world_writable(root) for root in review.params["world_writable_roots"])
    return findings


def _item(review: Review, item: t.Mapping[str, t.Any]) -> list[Finding]:
    path = item["path"]
    subject = shown(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return [] if item["optional"] else [_missing(subject)]
    except OSError as error:
        return [unknown(IDS[0], subject, f"it could not be looked at: {why_unread(error)}", "Make it readable for the review.")]
    if not _KIND[item["kind"]][0](status.st_mode):
        return [_not_expected(path, status, item["kind"])]
    try:
        judged = _judge_item(item, status)
    except (MaintenanceError, RecursionError) as error:
        return [unknown(IDS[0], subject, f"it could not be judged: {error}", "Correct the inventory or the host, then look again.")]
    corrected = bool(item["correct"] and judged.due) and _correct(review, subject, judged)
    return _verdicts(item, judged, corrected)


def _judge_item(item: t.Mapping[str, t.Any], status: os.stat_result) -> Judged:
    path = item["path"]
    uid, gid = _id_of(item["owner"], "user"), _id_of(item["group"], "group")
    mode = None if item["mode"] is None else int(item["mode"], 8)
    inner = mode if item["file_mode"] is None else int(item["file_mode"], 8)
    own = Rule(mode, uid, gid)
    inside = Rule(None if inner is None else inner & ~0o111 if item["file_mode"] is None else inner, uid, gid)
    judged = Judged()
    judged.judge(path, status, own)
    for companion in (f"{path}-wal", f"{path}-shm", f"{path}-journal") if item["sqlite"] else ():
        try:
            judged.judge(companion, os.lstat(companion), own)
        except FileNotFoundError:
            continue
    if item["recurse"]:
        for inner_path, inner_status in _below(path, judged.unread):
            if stat.S_ISLNK(inner_status.st_mode):
                judged.looked += 1  # the mode of a link means nothing, and what it leads to is not below this folder
            else:
                judged.judge(inner_path, inner_status, own if stat.S_ISDIR(inner_status.st_mode) else inside)
    return judged


def _below(root: str, unread: list[str]) -> t.Iterator[tuple[str, os.stat_result]]:
    """Yield everything below a folder, links as themselves; a folder that is replaced meanwhile is not entered."""

    def note(error: OSError) -> None:
        unread.append(f"{shown(str(error.filename))}: {why_unread(error)}")

    try:
        for place, folders, files, place_fd in os.fwalk(root, onerror=note, follow_symlinks=False):
            for name in sorted([*folders, *files]):
                with contextlib.suppress(FileNotFoundError):  # it went away meanwhile
                    yield os.path.join(place, name), os.stat(name, dir_fd=place_fd, follow_symlinks=False)
    except OSError as error:  # the root itself
        note(error)


def _missing(subject: str) -> Finding:
    return Finding(
        "security.file_missing",
        "critical",
        subject,
        "it is declared, but it is not there",
        threshold="critical when absent",
        advice="Restore it, correct the path, or declare it optional.",
    )


def _not_expected(path: str, status: os.stat_result, kind: str) -> Finding:
    expected = _KIND[kind][1]
    if stat.S_ISLNK(status.st_mode):
        found = f"a symbolic link to {shown(os.readlink(path))}, which was not followed"
    else:
        found = next((said for test, said in _KIND.values() if test(status.st_mode)), "something else")
    return Finding(
        "security.file_mode",
        "warning",
        shown(path),
        f"expected {expected}, found {found}",
        not_covered="mode and owner",
        advice="Declare the path of the file itself, or find out who replaced it.",
    )


def _verdicts(item: t.Mapping[str, t.Any], judged: Judged, corrected: bool) -> list[Finding]:
    subject = shown(item["path"])
    findings = []
    for finding_id, what, wrong, declared in (
        ("security.file_mode", "mode", judged.modes, item["mode"]),
        ("security.file_owner", "owner or group", judged.owners, item["owner"] or item["group"]),
    ):
        if not declared:
            continue
        state = worst((state for state, _unused in wrong), none="unknown" if judged.unread else "ok")
        advice = "Correct it with chmod and chown, or allow it with correct: true."
        if corrected:
            advice = "It was corrected in this run; what it holds may have been read before, so consider new secrets."
        if state == "unknown":
            advice = "Make everything below it readable for the review."
        findings.append(
            Finding(
                finding_id,
                state,
                subject,
                _summary(what, len(wrong), judged.looked) + (" (corrected in this run)" if wrong and corrected else ""),
                value=len(wrong),
                unit="count",
                threshold=_threshold(item, what),
                not_covered="; ".join(judged.unread[:5]),
                advice="" if state == "ok" else advice,
                evidence=[line for _unused, line in wrong[:20]],
            )
        )
    return findings


def _summary(what: str, wrong: int, looked: int) -> str:
    if wrong:
        return f"{wrong} of {looked} looked at {'has' if wrong == 1 else 'have'} another {what} than declared"
    return f"{looked} looked at, {what} as declared"


def _threshold(item: t.Mapping[str, t.Any], what: str) -> str:
    if what == "mode":
        return f"at most {item['mode']}" + (f", files below at most {item['file_mode']}" if item["file_mode"] else "")
    return ", ".join(f"{name} {item[name]}" for name in ("owner", "group") if item[name])


def _correct(review: Review, subject: str, judged: Judged) -> bool:
    """Put right what is wrong below one declared path, as one action; return whether that was done."""
    before = {shown(path): _said(status) for path, _unused, status in judged.due[:20]}
    if review.check_mode:
        after = {shown(path): _said_after(rule, status) for path, rule, status in judged.due[:20]}
        review.actions.append(Action(subject, "correct_mode", "due", f"{len(judged.due)} to be corrected", before, after))
        return False
    problems = [problem for problem in (_correct_one(*due) for due in judged.due) if problem]
    after = {shown(path): _said(os.lstat(path)) for path, *_rest in judged.due[:20] if os.path.lexists(path)}
    summary = f"{len(judged.due) - len(problems)} of {len(judged.due)} corrected" + "".join(f"; {p}" for p in problems[:3])
    review.actions.append(Action(subject, "correct_mode", "failed" if problems else "changed", summary, before, after))
    return not problems


def _correct_one(path: str, rule: Rule, judged: os.stat_result) -> str:
    """Correct one file through its descriptor; return why that was not possible."""
    try:
        file_fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return f"{shown(path)} could not be opened: {why_unread(error)}"
    try:
        status = os.fstat(file_fd)
        if (status.st_dev, status.st_ino) != (judged.st_dev, judged.st_ino):
            return f"{shown(path)} was replaced meanwhile"
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            return f"{shown(path)} has {status.st_nlink} names; correct it by hand, one of them may be another's file"
        if rule.uid not in (None, status.st_uid) or rule.gid not in (None, status.st_gid):
            os.fchown(file_fd, -1 if rule.uid is None else rule.uid, -1 if rule.gid is None else rule.gid)
        extra = excess(status.st_mode, rule.mode)
        if extra:
            os.fchmod(file_fd, stat.S_IMODE(status.st_mode) & ~extra)
        now = os.fstat(file_fd)
        again = Judged()
        again.judge(path, now, rule)
        return f"{shown(path)} is still {_said(now)}" if again.due else ""
    except OSError as error:
        return f"{shown(path)} could not be corrected: {why_unread(error)}"
    finally:
        os.close(file_fd)


def _said(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o} {user_name(status.st_uid)}:{group_name(status.st_gid)}"


def _said_after(rule: Rule, status: os.stat_result) -> str:
    mode = stat.S_IMODE(status.st_mode) & ~excess(status.st_mode, rule.mode)
    uid = status.st_uid if rule.uid is None else rule.uid
    gid = status.st_gid if rule.gid is None else rule.gid
    return f"{mode:04o} {user_name(uid)}:{group_name(gid)}"


def _world_writable(root: str) -> Finding:
    """Search a declared root for what every account can write; a sticky folder (such as /tmp) is meant to be so."""
    subject, looked = shown(root), 0
    found: list[str] = []
    unread: list[str] = []
    try:
        top = os.lstat(root)
        if not stat.S_ISDIR(top.st_mode):
            return unknown(IDS[3], subject, "it is not a folder, and a link is not followed", "Declare the folder itself.")
        for path, status in itertools.chain([(root, top)], _below(root, unread)):
            looked += 1
            sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode) and not sticky:
                found.append(f"{shown(path)} is {stat.S_IMODE(status.st_mode):04o}")
    except (OSError, RecursionError) as error:
        return unknown(IDS[3], subject, f"it could not be looked at: {why_unread(error)}", "Correct the path.")
    state = "critical" if found else "unknown" if unread else "ok"
    advice = {"critical": "Take the right to write from others (chmod o-w).", "unknown": "Make all of it readable for the review."}
    return Finding(
        IDS[3],
        state,
        subject,
        f"every account can write {len(found)} of {many(looked, 'file or folder', 'files and folders')}",
        value=len(found),
        unit="count",
        threshold="critical from 1",
        not_covered="; ".join(unread[:5]),
        advice=advice.get(state, ""),
        evidence=found[:20],
    )


def passes_bad_sample(review: Review) -> str:
    """Plant a file that everyone can read and a folder that everyone can write; return what was not noticed."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_") as folder:
        path = os.path.join(folder, "open")
        with open(path, "wb") as sample:
            os.fchmod(sample.fileno(), 0o646)
        item = filled(OPTIONS["files"]["options"], {"path": path, "mode": "0600"})
        silent = Review(review.params, review.host, True, review.now)
        if all(finding.state == "ok" for finding in _item(silent, item)):
            return "a file with mode 0646 as one with 0600"
        return "a world-writable file as a closed one" if _world_writable(folder).state == "ok" else ""
