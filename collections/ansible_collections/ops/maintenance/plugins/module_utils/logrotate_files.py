# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration files of logrotate made from data: refused where another file claims a path, tried before they take effect."""

from __future__ import annotations

import contextlib
import glob
import grp
import os
import pwd
import re
import stat
import tempfile
import typing as t

from .errors import InputError, MaintenanceError, VerifyError, refusal, refuse
from .host import Host
from .judge import many
from .logrotate_config import Directive, Section, parse, render, size_of
from .logrotate_lint import fits
from .logrotate_tree import Entry, Tree, refusal_of
from .paths import ensure_private_folder, fsync_folder, open_regular, write_atomic
from .record import Action, Finding, clean

OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "paths": {"type": "list", "elements": "str", "required": True},
    "take_over": {"type": "bool", "default": False},
    "frequency": {"type": "str", "default": "daily", "choices": ["hourly", "daily", "weekly", "monthly", "yearly"]},
    "rotate": {"type": "int", "default": 7},
    "compress": {"type": "bool", "default": True},
    "delaycompress": {"type": "bool", "default": True},
    "dateext": {"type": "bool", "default": False},
    "missingok": {"type": "bool", "default": True},
    "notifempty": {"type": "bool", "default": True},
    "copytruncate": {"type": "bool", "default": False},
    "create_mode": {"type": "str"},
    "create_owner": {"type": "str"},
    "create_group": {"type": "str"},
    "su_user": {"type": "str"},
    "su_group": {"type": "str"},
    "maxsize": {"type": "str"},
    "minsize": {"type": "str"},
    "postrotate_units": {"type": "list", "elements": "str", "default": []},
    "postrotate_action": {"type": "str", "default": "reload", "choices": ["reload", "HUP", "USR1", "USR2"]},
}

HEADER = "# Written by ops.maintenance from the inventory; what is changed here will be overwritten.\n"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?$")
_UNIT = re.compile(r"[A-Za-z0-9@_.:-]+$")
_MODE = re.compile(r"0?[0-7]{3}$")
_UNSAFE = re.compile(r"[{}\"'\\#~\x00-\x1f\x7f]")

Said = t.Callable[[str], list[str]]
"""Asks logrotate what it complains of in a configuration file."""


def input_problems(files: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """Return what cannot be meant, one sentence each, from the input alone."""
    names = [str(entry["name"]) for entry in files]
    paths = [path for entry in files for path in entry["paths"] or []]
    twice = sorted({one for one in names if names.count(one) > 1} | {one for one in paths if paths.count(one) > 1})
    problems = [f"files declares {clean(one)} twice, expected it once; remove one of them." for one in twice]
    return problems + [problem for entry in files for problem in _faults(entry)]


def _faults(entry: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    where = f"files, {clean(str(entry['name']), 80)}:"
    if not _NAME.match(entry["name"]):
        yield f"{where} the name is expected to be letters, digits, - and _, for logrotate leaves others out; rename it."
    if not entry["paths"]:
        yield f"{where} no path is given, expected at least one; name the logs."
    for path in entry["paths"] or []:
        if not os.path.isabs(path) or _UNSAFE.search(path) or not os.path.basename(path).strip("*?."):
            yield f"{where} path {clean(path)!r}, expected an absolute one without quotes, braces or a bare *; correct it."
    if not 0 <= entry["rotate"] <= 10_000:
        yield f"{where} rotate is {entry['rotate']}, expected 0 to 10000; correct it."
    for name in ("maxsize", "minsize"):
        if entry[name] is not None and size_of(entry[name]) is None:
            yield f"{where} {name} is {clean(entry[name])!r}, expected a number with k, M or G; correct it."
    yield from _account_faults(where, entry)
    for unit in entry["postrotate_units"] or []:
        if not _UNIT.match(unit):
            yield f"{where} postrotate_units has {clean(unit)!r}, expected the name of a unit; correct it."


def _account_faults(where: str, entry: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    create = [entry[name] for name in ("create_mode", "create_owner", "create_group")]
    su = [entry["su_user"], entry["su_group"]]
    if any(create) and not all(create):
        yield f"{where} create_mode, create_owner and create_group belong together; give all three or none."
    if any(su) and not all(su):
        yield f"{where} su_user and su_group belong together; give both or none."
    if entry["copytruncate"] and any(create):
        yield f"{where} create has no effect with copytruncate; leave one of them out."
    if create[0] and not _MODE.match(create[0]):
        yield f"{where} create_mode is {clean(create[0])!r}, expected an octal mode such as 0640; correct it."
    for name in (*create[1:], *su):
        if name and not _ACCOUNT.match(name):
            yield f"{where} {clean(name)!r} is no name of a user or group; correct it."


def text_of(entry: t.Mapping[str, t.Any]) -> str:
    """Write the file of one declaration."""
    given = [Directive(entry["frequency"]), Directive("rotate", str(entry["rotate"]))]
    given.append(Directive("compress" if entry["compress"] else "nocompress"))
    if entry["compress"]:
        given.append(Directive("delaycompress" if entry["delaycompress"] else "nodelaycompress"))
    given.append(Directive("dateext" if entry["dateext"] else "nodateext"))
    given.append(Directive("missingok" if entry["missingok"] else "nomissingok"))
    given.append(Directive("notifempty" if entry["notifempty"] else "ifempty"))
    given.append(Directive("copytruncate" if entry["copytruncate"] else "nocopytruncate"))
    if entry["create_mode"]:
        given.append(Directive("create", f"{entry['create_mode']} {entry['create_owner']} {entry['create_group']}"))
    if entry["su_user"]:
        given.append(Directive("su", f"{entry['su_user']} {entry['su_group']}"))
    given += [Directive(name, entry[name]) for name in ("maxsize", "minsize") if entry[name]]
    if entry["postrotate_units"]:
        given += [Directive("sharedscripts"), Directive("postrotate", _script(entry))]
    return HEADER + render(Section(list(entry["paths"]), given))


def _script(entry: t.Mapping[str, t.Any]) -> str:
    action = entry["postrotate_action"]
    command = "reload" if action == "reload" else f"kill --signal={action} --kill-who=main"
    lines = [f"        if systemctl --quiet is-active {unit}; then systemctl {command} {unit}; fi" for unit in entry["postrotate_units"]]
    return "\n".join(lines) + "\n"


class Changes(t.NamedTuple):
    """What is to be written and what to be removed, by path; and what lies there now (None: nothing)."""

    write: dict[str, str]
    remove: list[str]
    before: dict[str, str | None]
    left: list[str]


def plan(params: t.Mapping[str, t.Any], tree: Tree, host: Host) -> Changes:
    """Compare the declaration with what lies in the folder.

    :raises InputError: a file or a path belongs to somebody else, or an account does not exist.
    """
    folder, declared = params["folder"], params["files"]
    wanted = {os.path.join(folder, entry["name"]): text_of(entry) for entry in declared}
    ours = {path: text for path in glob.glob(os.path.join(glob.escape(folder), "*")) if (text := _ours(path)) is not None}
    gone = [path for path in ours if path not in wanted]
    replaced = {*wanted, *(gone if params["remove_undeclared"] else [])}
    foreign = [entry for entry in tree.entries if entry.file not in replaced]
    refuse([problem for entry in declared for problem in _host_problems(folder, entry, ours, foreign, host)])
    write = {path: text for path, text in wanted.items() if ours.get(path) != text or _is_refused(path)}
    remove = gone if params["remove_undeclared"] else []
    return Changes(write, remove, {path: _text(path) for path in [*write, *remove]}, [] if remove else gone)


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError, MaintenanceError), open_regular(path) as source:
        return source.read(1024 * 1024).decode("utf-8", "surrogateescape")
    return None


def _ours(path: str) -> str | None:
    """Return the text of a file that this module wrote, None of any other."""
    text = _text(path)
    return text if text is not None and text.startswith(HEADER) else None


def _is_refused(path: str) -> bool:
    return bool(refusal_of(os.lstat(path), {0, os.geteuid()}))


def _host_problems(
    folder: str, entry: t.Mapping[str, t.Any], ours: t.Container[str], foreign: t.Sequence[Entry], host: Host
) -> t.Iterator[str]:
    path = os.path.join(folder, entry["name"])
    if os.path.lexists(path) and path not in ours:
        package = _package_of(path, host)
        if package:
            yield f"files, {entry['name']}: {path} belongs to package {package}; choose another name."
        elif not entry["take_over"] or not os.path.isfile(path) or os.path.islink(path):
            yield f"files, {entry['name']}: {path} is there and was not written from here; choose another name, or set take_over."
    for one in entry["paths"]:
        claimed = next((other for other in foreign for pattern in other.patterns if _meet(one, pattern)), None)
        if claimed is not None:
            advice = "set remove_undeclared" if claimed.file in ours else "leave it out here, or take it out there"
            yield f"files, {entry['name']}: {one} is claimed by {clean(claimed.where)} already; {advice}."
    for ask, kind, names in ((pwd.getpwnam, "user", ("create_owner", "su_user")), (grp.getgrnam, "group", ("create_group", "su_group"))):
        for name in names:
            if entry[name] and refusal(_known, ask, entry[name]):
                yield f"files, {entry['name']}: {name} is {entry[name]!r}, expected a {kind} of this host; create it or correct the name."


def _package_of(path: str, host: Host) -> str:
    """Return the package that a file came with, empty where no package manager knows it."""
    for argv in (["dpkg-query", "--search", path], ["rpm", "--query", "--file", path]):
        if host.which(argv[0]) is not None:
            ran = host.run(argv)
            if ran.rc == 0:
                return clean(ran.stdout.split(": ")[0].strip(), 100)
    return ""


def _known(ask: t.Callable[[str], object], name: str) -> None:
    try:
        ask(name)
    except KeyError:
        raise InputError(name) from None


def _meet(one: str, other: str) -> bool:
    """Whether two patterns mean a common path, as far as can be told."""
    return fits(one, other) or fits(other, one) or bool(set(glob.glob(one)) & set(glob.glob(os.path.expanduser(other))))


def apply(params: t.Mapping[str, t.Any], changes: Changes, said: Said) -> None:
    """Try the changed configuration aside, write it, ask logrotate again, and put all back where it complains.

    :raises VerifyError: logrotate complains of something that it did not complain of before; nothing was changed.
    """
    known = said(params["config"])
    _refuse_new(_tried(params, changes, said), known, "nothing was changed")
    earlier = [(path, _content(path)) for path in [*changes.write, *changes.remove]]
    try:
        for path, text in changes.write.items():
            write_atomic(path, _bytes(text), 0o644)
        _remove(changes.remove)
        _refuse_new(said(params["config"]), known, "it was put back as it was")
    except BaseException:
        for path, content in earlier:
            if content is None:
                _remove([path])
            else:
                write_atomic(path, *content)
        raise


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _content(path: str) -> tuple[bytes, int, tuple[int, int]] | None:
    """Return a file's bytes, mode and owner, None where there is none."""
    try:
        with open_regular(path) as source:
            status = os.fstat(source.fileno())
            return source.read(), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    except FileNotFoundError:
        return None


def _refuse_new(now: t.Sequence[str], known: t.Sequence[str], outcome: str) -> None:
    new = [one for one in now if one not in known]
    if new:
        raise VerifyError(f"logrotate refuses the configuration that the inventory makes: {clean(new[0], 300)}; {outcome}. Correct files.")


def _remove(paths: t.Sequence[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            fsync_folder(os.path.dirname(path))


def _tried(params: t.Mapping[str, t.Any], changes: Changes, said: Said) -> list[str]:
    """Ask logrotate of a copy of the whole configuration with the changes in it."""
    ensure_private_folder(params["state_dir"])
    with tempfile.TemporaryDirectory(prefix="logrotate-", dir=params["state_dir"]) as aside:
        copy = os.path.join(aside, "logrotate.d")
        os.mkdir(copy, 0o700)
        for name in os.listdir(params["folder"]):
            path = os.path.join(params["folder"], name)
            content = _content(path) if os.path.isfile(path) and not os.path.islink(path) else None
            if content is not None and path not in changes.remove and path not in changes.write:
                write_atomic(os.path.join(copy, name), *content)
        for path, text in changes.write.items():
            write_atomic(os.path.join(copy, os.path.basename(path)), _bytes(text), 0o644)
        main = os.path.join(aside, "logrotate.conf")
        write_atomic(main, _bytes(_including(params["config"], params["folder"], copy)), 0o644)
        return [error.replace(copy, params["folder"]).replace(main, params["config"]) for error in said(main)]


def _including(config: str, folder: str, copy: str) -> str:
    """Return the main file's text with the copy included instead of the folder.

    :raises InputError: the main file does not include the folder.
    """
    with open_regular(config) as source:
        text = source.read(4 * 1024 * 1024).decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    included = [one.line for one in parse(text).items if isinstance(one, Directive) and one.name == "include" and _same(one.value, folder)]
    if not included:
        raise InputError.of("folder", folder, f"a folder that {config} includes", "include it there or name the one that is")
    for line in included:
        lines[line - 1] = f"include {copy}"
    return "\n".join(lines)


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def actions_of(changes: Changes, check_mode: bool) -> list[Action]:
    """Return an action for each file."""
    status = "due" if check_mode else "changed"
    written = [
        Action(
            path,
            "configure",
            status,
            f"{path} {'to be ' if check_mode else ''}written",
            before={"text": changes.before[path]},
            after={"text": text},
        )
        for path, text in changes.write.items()
    ]
    return written + [
        Action(path, "remove", status, f"{path} {'to be ' if check_mode else ''}removed", before={"text": changes.before[path]})
        for path in changes.remove
    ]


def finding_of(params: t.Mapping[str, t.Any], changes: Changes, check_mode: bool) -> Finding:
    """Say whether the declared files lie in the folder, and which lie there that are declared no more."""
    open_work = [*changes.write, *changes.remove] if check_mode else []
    told = [f"{path}: not as declared" for path in open_work] + [f"{path}: not declared any more" for path in changes.left]
    return Finding(
        "logrotate.declared", "warning" if told else "ok", params["folder"],
        f"{many(len(params['files']), 'file')} declared, {len(open_work)} not as declared, {len(changes.left)} declared no more.",
        value=len(told), unit="count", threshold="warning from 1 count", evidence=told,
        advice="Run outside check mode; set remove_undeclared for files that are declared no more." if told else "",
    )  # fmt: skip
