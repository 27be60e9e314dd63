# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sshd that runs: since when, and what it was started with, which goes before its configuration files."""

from __future__ import annotations

import os
import re
import shlex
import typing as t
from dataclasses import dataclass

from .errors import MaintenanceError
from .security_common import read_small, shown, why_unread

_TITLE = re.compile(r"sshd: /\S+(?P<words>.*?)(?P<end> \[listener\].*)?\Z", re.DOTALL)
_CUT_OFF = "-(cut off)"
_FLAGS, _VALUES, _ASKED = "46DdeGiqTtV", "CEbcfghkopu", "cfghkop"
_OPTIONS_FILES = (("default/ssh", "SSHD_OPTS"), ("sysconfig/sshd", "OPTIONS"))


@dataclass(frozen=True)
class Listener:
    """An sshd that waits for connections.

    :param since: when it was started, in seconds since the epoch.
    :param words: what it was started with.
    """

    pid: str
    since: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """How sshd is asked for what it uses.

    :param path: its main configuration file.
    :param given: the words that ``sshd -T`` gets for it.
    :param running: those that wait for connections; the first one is asked about.
    """

    path: str
    given: tuple[str, ...] = ()
    running: tuple[Listener, ...] = ()
    gaps: tuple[str, ...] = ()


def started(etc: str = "/etc", proc: str = "/proc") -> Started:
    """Find out what sshd was started with, or would be where it is started anew for each connection."""
    gaps, given = [], []
    running = listeners(proc) if proc else []
    try:
        given = options_of(running[0].words if running else given_by_files(etc))
    except MaintenanceError as error:
        gaps.append(str(error))
    others = {one.words for one in running if one.words != running[0].words}
    gaps += [f"another sshd, which was started with {shown(' '.join(words)) or 'no options'}" for words in sorted(others)]
    path = os.path.join(etc, "ssh", "sshd_config")
    if "-f" in given:
        path = given[given.index("-f") + 1]
    elif etc != "/etc":
        given = ["-f", path, *given]
    return Started(path, tuple(given), tuple(running), tuple(gaps))


def listeners(proc: str = "/proc") -> list[Listener]:
    """Return the sshds of this host that wait for connections, the one started last first; those of containers are left out."""
    mine = _namespace(proc, "self")
    found = (_listener(proc, pid) for pid in filter(str.isdigit, os.listdir(proc)) if _namespace(proc, pid) == mine)
    return sorted((one for one in found if one), key=lambda one: one.since, reverse=True)


def _namespace(proc: str, pid: str) -> str:
    try:
        return os.readlink(os.path.join(proc, pid, "ns", "pid"))
    except OSError:
        return ""


def _listener(proc: str, pid: str) -> Listener | None:
    try:
        with open(os.path.join(proc, pid, "cmdline"), "rb") as source:
            words = _words(source.read(65536).decode("utf-8", "replace").rstrip("\0").split("\0"))
        if words is None:
            return None
        with open(os.path.join(proc, pid, "stat"), encoding="utf-8", errors="replace") as source:
            ticks = int(source.read().rpartition(")")[2].split()[19])
        with open(os.path.join(proc, "stat"), encoding="ascii") as source:
            boot = next(int(line.split()[1]) for line in source if line.startswith("btime "))
    except (OSError, ValueError, IndexError, StopIteration):  # it ended meanwhile
        return None
    return Listener(pid, boot + ticks / os.sysconf("SC_CLK_TCK"), words)


def _words(argv: t.Sequence[str]) -> tuple[str, ...] | None:
    """Return what a process was started with when it is an sshd that waits; before OpenSSH 8.2 it does not rename itself."""
    title = _TITLE.match(argv[0])
    if title:
        return (*title["words"].split(), *([] if title["end"] else [_CUT_OFF]))
    is_sshd = os.path.isabs(argv[0]) and os.path.basename(argv[0]) == "sshd"
    return tuple(argv[1:]) if is_sshd and not {"-i", "-R", "-T", "-t"} & set(argv[1:]) else None


def loaded(listener: Listener, pid_file: str) -> float:
    """Return when an sshd read its configuration, in seconds since the epoch.

    Reading it again (SIGHUP) keeps the process, but writes its pid file anew.
    """
    try:
        with open(pid_file, encoding="ascii", errors="replace") as source:
            if source.read().strip() == listener.pid:
                return max(listener.since, os.stat(pid_file).st_mtime)
    except OSError:
        pass
    return listener.since


def options_of(words: t.Sequence[str]) -> list[str]:
    """Return the options that an sshd was started with, as ``sshd -T`` takes them, in two words each.

    :raises MaintenanceError: what the words mean is not known.
    """
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        letters = word[1:].lstrip(_FLAGS)
        if word[:1] != "-" or (letters and letters[0] not in _VALUES):
            raise MaintenanceError(f"sshd was started with {shown(' '.join(words))[:200]}, in which {shown(word)[:80]} is not known")
        if not letters:
            continue
        value = [letters[1:]] if letters[1:] else rest[:1]
        if not letters[1:]:
            del rest[:1]
        while letters[0] == "o" and rest and not rest[0].startswith("-"):  # its title does not tell where a word ends
            value.append(rest.pop(0))
        if letters[0] in _ASKED:
            found += [f"-{letters[0]}", " ".join(value)]
    return found


def given_by_files(etc: str = "/etc") -> list[str]:
    """Return the words that an sshd gets which is started anew for each connection.

    :raises MaintenanceError: they cannot be read.
    """
    for name, variable in _OPTIONS_FILES:
        try:
            text = read_small(os.path.join(etc, name)).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise MaintenanceError(f"{name}: {why_unread(error)}") from error
        values = re.findall(rf"^\s*{variable}=(.*)$", text, re.M)
        words = _unquoted(values[-1]) if values else []
        return words[0].split() if len(words) == 1 else words
    return []


def _unquoted(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError as error:
        raise MaintenanceError(f"what sshd is started with cannot be read: {error}") from error
