# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a restored application where it can reach nothing: a transient unit of systemd with a network, files and sockets of its own.

A restored copy is the real application with real addresses and keys in it: it must not send mail, call a partner or write to the live data
a second time. So it is started only once the host has shown that it keeps such a unit apart.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import secrets
import threading
import time
import typing as t

from .backup_pg_restore import Place
from .errors import MaintenanceError, refusal
from .host import Host
from .http_probe import Answer, check_url, fetch
from .judge import human_seconds
from .site_command import shown

START: dict[str, t.Any] = {
    "argv": {"type": "list", "elements": "str", "required": True},
    "user": {"type": "str", "default": "nobody"},
    "chdir": {"type": "path", "default": ""},
    "environment": {"type": "dict", "default": {}},
    "url": {"type": "str", "default": ""},
    "expect_status": {"type": "list", "elements": "int", "default": [200]},
    "expect_text": {"type": "str", "default": ""},
    "timeout_seconds": {"type": "float", "default": 60.0},
    "database_user": {"type": "str", "default": "postgres"},
}
"""Argument spec of how an application is started; without ``url`` it is a check that has to end with 0."""

_PLAIN = re.compile(r"^/[A-Za-z0-9._@+/-]+$")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_NEW_NETWORK = 0x40000000
_OWN = ("net", "mnt")
_SOCKETS = "/run/postgresql"
_LATER = "Drill it on a host where systemd can keep a unit apart (PrivateNetwork), or look at it by hand."
_BROKEN = "Read what it said below: what it lacks is in no backup, or the parts do not fit together."


class Said(t.NamedTuple):
    """What starting the application showed."""

    state: str
    text: str
    seconds: float = 0.0
    lines: t.Sequence[str] = ()
    advice: str = _BROKEN


def is_plain(path: str) -> bool:
    """Whether a path is one that a unit can be given as it is."""
    return bool(_PLAIN.match(path)) and os.path.normpath(path) == path


def problems(start: t.Mapping[str, t.Any], of: str) -> t.Iterator[str]:
    """Say what of a start cannot be used, one sentence each."""
    if not start["argv"] or not is_plain(start["argv"][0]):
        yield f"start.argv {of} is {start['argv']!r}, expected the full path of the program and its arguments; correct it."
    if any("$" in word or "\0" in word for word in start["argv"]):
        yield f"start.argv {of} holds a $ or NUL character, which would not reach the program as it is; use environment."
    if start["chdir"] and not is_plain(start["chdir"]):
        yield f"start.chdir {of} is {start['chdir']!r}, expected the full path of a folder; correct it."
    if not start["timeout_seconds"] > 0:
        yield f"start.timeout_seconds {of} is {start['timeout_seconds']}, expected seconds above 0; correct it."
    for name in start["environment"]:
        if not _NAME.match(str(name)):
            yield f"start.environment {of} has the name {name!r}, expected letters, digits and _; correct it."
    if start["url"]:
        yield from refusal(check_url, start["url"], f"start.url {of}")
        if not re.match(r"http://(127\.0\.0\.1|localhost)[:/]", start["url"]):
            yield f"start.url {of} is {start['url']!r}, expected http://127.0.0.1:PORT/…; only that can be reached in a network of its own."


def try_out(start: t.Mapping[str, t.Any], tree: str, paths: t.Sequence[str], place: Place | None, database: str) -> Said:
    """Start the application on its restored tree and database, ask it, and end it."""
    missing = [path for path in paths if not os.path.isdir(path)]
    if missing:
        return Said("unknown", f"{missing[0]} is no folder of this host, so the restored one cannot stand in its place", advice=_LATER)
    try:
        owner = pwd.getpwnam(start["user"])
        if place is not None:
            _open_database(place, database, start["database_user"])
        _hand_over(tree, owner.pw_uid, owner.pw_gid)
        one = _Unit(start, tree, paths, place)
        apart = one.kept_apart()
        return Said("unknown", f"it was not started: {apart}", advice=_LATER) if apart else one.tried()
    except KeyError:
        return Said("unknown", f"start.user {start['user']!r} is no user of this host", advice="Create or correct the user.")
    except (MaintenanceError, OSError) as error:
        return Said("unknown", f"it could not be started: {error}", advice=_LATER)


def _open_database(place: Place, database: str, user: str) -> None:
    """Give the throw-away database the name and the user that the application knows; only who is shown its socket can come in."""
    with place.session("postgres") as session:
        if database and database != place.database:
            session.execute(f"ALTER DATABASE {session.identifier(place.database)} RENAME TO {session.identifier(database)}")
            place.database = database
        known = session.value("SELECT 1 FROM pg_roles WHERE rolname = %s", [user])
        session.execute(f"{'ALTER' if known else 'CREATE'} ROLE {session.identifier(user)} LOGIN SUPERUSER")
    folder = str(place.server["host"])
    os.chmod(folder, 0o711)  # noqa: S103 - the folder above it lets nobody in
    os.chmod(os.path.join(folder, f".s.PGSQL.{place.server['port']}"), 0o777)  # noqa: S103


def _hand_over(tree: str, uid: int, gid: int) -> None:
    for where, folders, names in os.walk(tree):
        for name in ["", *folders, *names]:
            os.chown(os.path.join(where, name) if name else where, uid, gid, follow_symlinks=False)


class _Unit:
    """A transient unit, ended whatever happens, by systemd itself where we are gone."""

    def __init__(self, start: t.Mapping[str, t.Any], tree: str, paths: t.Sequence[str], place: Place | None) -> None:
        self._start = start
        self._host = Host()
        self._name = f"ops-maintenance-drill-{secrets.token_hex(4)}.service"
        self._output = f"{tree}.output"
        self._environment = f"{tree}.environment"
        self._properties = [
            "PrivateNetwork=yes", "PrivateTmp=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "TemporaryFileSystem=/run",
            f"User={start['user']}", f"WorkingDirectory={start['chdir'] or '/'}", f"EnvironmentFile={self._environment}",
            f"RuntimeMaxSec={start['timeout_seconds'] + 30:.0f}", "TimeoutStopSec=5", "KillMode=control-group",
            *(f"BindPaths={tree}{path}:{path}" for path in paths),
        ]  # fmt: skip
        values = {str(name): str(value) for name, value in start["environment"].items()}
        if place is not None:
            self._properties.append(f"BindReadOnlyPaths={place.server['host']}:{_SOCKETS}")
            own = {"PGHOST": _SOCKETS, "PGPORT": place.server["port"], "PGDATABASE": place.database, "PGUSER": start["database_user"]}
            values = {**{name: str(value) for name, value in own.items()}, **values}
        self._secrets = [value for value in start["environment"].values() if len(str(value)) >= 6]
        descriptor = os.open(self._environment, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as target:
            target.writelines(f"{name}={_quoted(value)}\n" for name, value in values.items())

    def _run(self, name: str, more: t.Sequence[str], argv: t.Sequence[str], timeout: float) -> t.Any:
        options = [word for text in self._properties for word in ("-p", text)]
        return self._host.run(["systemd-run", "--quiet", "--collect", f"--unit={name}", *options, *more, "--", *argv], timeout=timeout)

    def kept_apart(self) -> str:
        """Say why a unit would not be kept apart here, empty when it is: its network and its mounts have to be others than ours."""
        links = [f"/proc/self/ns/{kind}" for kind in _OWN]
        ran = self._run(f"probe-{self._name}", ["--wait", "--pipe"], ["/usr/bin/readlink", *links], 60)
        found, ours = ran.stdout.split(), [os.readlink(link) for link in links]
        if ran.rc != 0 or len(found) != len(ours):
            return f"systemd cannot run a unit that is kept apart ({ran.why()})"
        return "" if all(a != b for a, b in zip(found, ours)) else "a unit with PrivateNetwork is not kept apart on this host"

    def tried(self) -> Said:
        """Start it, ask it, end it."""
        started = time.monotonic()
        limit = float(self._start["timeout_seconds"])
        output = ["-p", f"StandardOutput=file:{self._output}", "-p", "StandardError=inherit"]
        try:
            if not self._start["url"]:
                ran = self._run(self._name, [*output, "--wait"], self._start["argv"], limit + 60)
                seconds = time.monotonic() - started
                text = f"its check ended with {ran.rc} after {human_seconds(seconds)}"
                return Said("critical" if ran.rc else "ok", text, seconds, self._lines() if ran.rc else ())
            ran = self._run(self._name, output, self._start["argv"], 60)
            if ran.rc != 0:
                return Said("critical", f"it could not be started: {ran.why()}", 0.0, self._lines())
            answer = self._asked(started + limit)
            seconds = time.monotonic() - started
            return self._judged(answer, seconds)
        finally:
            self._host.run(["systemctl", "stop", self._name], timeout=60)

    def _judged(self, answer: Answer, seconds: float) -> Said:
        url, text = self._start["url"], self._start["expect_text"]
        if answer.status not in self._start["expect_status"]:
            return Said("critical", f"{url} {answer.told()} within {human_seconds(seconds)}", seconds, self._lines())
        if text and text.encode() not in answer.body:
            return Said("critical", f"{url} {answer.told()}, but not with {text!r}", seconds, self._lines())
        return Said("ok", f"it works on what was restored: {url} {answer.told()} after {human_seconds(seconds)}", seconds)

    def _asked(self, ends: float) -> Answer:
        """Ask it from within its own network, by a thread that enters it."""
        answers: list[Answer] = []
        network = self._network(min(ends, time.monotonic() + 10))
        if network < 0:
            return Answer(0, 0.0, error="it ended at once")
        try:
            asking = threading.Thread(target=self._ask, args=(network, ends, answers), daemon=True)
            asking.start()
            asking.join(max(ends - time.monotonic(), 1.0) + 15)
        finally:
            os.close(network)
        return answers[-1] if answers else Answer(0, 0.0, error="its network could not be entered")

    def _ask(self, network: int, ends: float, answers: list[Answer]) -> None:
        if ctypes.CDLL(None, use_errno=True).setns(network, _NEW_NETWORK) != 0:
            return
        while True:
            answers.append(fetch(self._start["url"], timeout=max(min(ends - time.monotonic(), 10.0), 1.0)))
            if answers[-1].status in self._start["expect_status"] or time.monotonic() > ends or not self._pid():
                return
            time.sleep(0.2)

    def _pid(self) -> int:
        said = self._host.run(["systemctl", "show", "--property=MainPID", "--value", self._name]).stdout.strip()
        return int(said) if said.isdigit() else 0

    def _network(self, ends: float) -> int:
        """Open the network of the unit once it has one of its own; -1 when it never has."""
        ours = os.readlink("/proc/self/ns/net")
        while time.monotonic() < ends:
            pid = self._pid()
            try:
                descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                if not pid:
                    return -1
                continue
            if os.readlink(f"/proc/self/fd/{descriptor}") != ours:
                return descriptor
            os.close(descriptor)
            time.sleep(0.05)
        return -1

    def _lines(self) -> list[str]:
        try:
            with open(self._output, "rb") as source:
                return shown(source.read(256 * 1024).decode("utf-8", "backslashreplace"), self._secrets)
        except OSError:
            return []


def _quoted(value: str) -> str:
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value.replace("\n", " ")) + '"'
