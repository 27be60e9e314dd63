# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that logrotate reads from its main file on: every entry with the settings that hold for it, and which files it passes over."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import typing as t
from dataclasses import dataclass, field

from . import logrotate_config
from .logrotate_config import FREQUENCIES, Directive, Section
from .record import clean

TABOO = tuple(
    f"*{ending}"
    for ending in [
        ",v",
        ".bak",
        ".cfsaved",
        ".disabled",
        ".dpkg-bak",
        ".dpkg-del",
        ".dpkg-dist",
        ".dpkg-new",
        ".dpkg-old",
        ".dpkg-tmp",
        ".new",
        ".old",
        ".orig",
        ".pacnew",
        ".pacorig",
        ".pacsave",
        ".rhn-cfg-tmp-*",
        ".rpmnew",
        ".rpmorig",
        ".rpmsave",
        ".swp",
        ".ucf-dist",
        ".ucf-new",
        ".ucf-old",
        "~",
    ]
)
"""Names in an included folder that logrotate leaves out, until a directive says otherwise."""

_DEEPEST = 16
_MOST_FILES = 2000
_LARGEST = 4 * 1024 * 1024


@dataclass
class Entry:
    """A section with where it stands and the settings that hold for it: those before it in the tree, then its own."""

    file: str
    line: int
    patterns: list[str]
    settings: dict[str, str]

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


@dataclass
class Tree:
    """What the configuration holds.

    :param faults: ``file:line: sentence`` of what logrotate cannot understand.
    :param passed_over: ``file: sentence`` of files that logrotate ignores for their mode, owner or kind.
    :param left_out: files in included folders that a name keeps out.
    """

    entries: list[Entry] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_tree(config: str) -> Tree:
    """Read the main file and all that it includes, in logrotate's order."""
    reader = _TreeReader()
    reader.read(config, {}, ())
    return reader.tree


def refusal_of(status: os.stat_result, owners: t.Container[int]) -> str:
    """Say why logrotate, run as root, passes a configuration file over; empty when it does not."""
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file, so logrotate ignores it"
    if mode & 0o022:
        return f"mode {mode:04o} lets group or others write, so logrotate ignores it"
    if status.st_uid not in owners:
        return f"owned by uid {status.st_uid}, expected root, so logrotate ignores it"
    if status.st_size > _LARGEST:
        return "too large for a configuration file, so it was not read"
    return ""


def settings_with(settings: t.Mapping[str, str], directive: Directive) -> dict[str, str]:
    """Return the settings after one more directive: the later one holds, and ``no…`` takes back."""
    name, after = directive.name, dict(settings)
    if name in (*FREQUENCIES, "size", "minutes"):
        for other in (*FREQUENCIES, "size", "minutes"):
            after.pop(other, None)
    if name == "ifempty":
        after.pop("notifempty", None)
    elif name.startswith("no") and name != "notifempty":
        after.pop(name[2:], None)
    else:
        after[name] = directive.value
    return after


class _TreeReader:
    def __init__(self) -> None:
        self.tree = Tree()
        self.taboo = list(TABOO)
        self.owners = frozenset((0, os.geteuid()))

    def read(self, path: str, settings: dict[str, str], above: tuple[str, ...]) -> dict[str, str]:
        """Read a file with the settings that hold where it is included; return those that hold after it."""
        if path in above or len(above) > _DEEPEST or len(self.tree.files) >= _MOST_FILES:
            self.tree.faults.append(f"{_shown(path)}: included in itself or too deep")
            return settings
        text = self._text(path)
        if text is None:
            return settings
        self.tree.files.append(path)
        parsed = logrotate_config.parse(text)
        self.tree.faults += [f"{_shown(path)}:{line}: {what}" for line, what in parsed.faults]
        for item in parsed.items:
            if isinstance(item, Section):
                settings_of = self._of_section(path, item, settings, above)
                self.tree.entries.append(Entry(path, item.line, item.patterns, settings_of))
            else:
                settings = self._directive(path, item, settings, above)
        return settings

    def _of_section(self, path: str, section: Section, settings: dict[str, str], above: tuple[str, ...]) -> dict[str, str]:
        for directive in section.directives:
            if directive.name in ("tabooext", "taboopat"):
                self.tree.faults.append(
                    f"{_shown(path)}:{directive.line}: {directive.name} inside a section, so logrotate skips the section"
                )
            else:
                settings = self._directive(path, directive, settings, above)
        return settings

    def _directive(self, path: str, directive: Directive, settings: dict[str, str], above: tuple[str, ...]) -> dict[str, str]:
        if directive.name == "include":
            return self._include(path, directive, settings, above)
        if directive.name in ("tabooext", "taboopat"):
            self._set_taboo(directive)
            return settings
        return settings_with(settings, directive)

    def _include(self, path: str, directive: Directive, settings: dict[str, str], above: tuple[str, ...]) -> dict[str, str]:
        wanted = os.path.join(os.path.dirname(path), os.path.expanduser(directive.value))
        try:
            names = sorted(os.listdir(wanted)) if os.path.isdir(wanted) else None
            if names is None:
                os.stat(wanted)
        except OSError as error:
            what = f"include {_shown(wanted)}: {error.strerror}; patterns are not allowed here, a folder is"
            self.tree.faults.append(f"{_shown(path)}:{directive.line}: {what}")
            return settings
        for name in [""] if names is None else names:
            one = os.path.join(wanted, name) if name else wanted
            if name and any(_is_meant(name, pattern) for pattern in self.taboo):
                self.tree.left_out.append(one)
            else:
                settings = self.read(one, settings, (*above, path))
        return settings

    def _set_taboo(self, directive: Directive) -> None:
        value = directive.value
        star = "*" if directive.name == "tabooext" else ""
        if not value.startswith("+"):
            self.taboo = []
        self.taboo += [star + name for name in re.split(r"[\s,]+", value.lstrip("+")) if name]

    def _text(self, path: str) -> str | None:
        try:
            file_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.tree.passed_over.append(f"{_shown(path)}: {error.strerror}, so logrotate cannot read it")
            return None
        with os.fdopen(file_fd, "rb") as source:
            why = refusal_of(os.fstat(source.fileno()), self.owners)
            if why:
                self.tree.passed_over.append(f"{_shown(path)}: {why}")
                return None
            return source.read(_LARGEST).decode("utf-8", "surrogateescape")


def _is_meant(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern as fnmatch(3) with FNM_PERIOD sees it."""
    return fnmatch.fnmatchcase(name, pattern) and (not name.startswith(".") or pattern.startswith("."))


def _shown(path: str) -> str:
    return clean(path, 200)
