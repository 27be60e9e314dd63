# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration language of logrotate: text in, entries out, as logrotate's own reader understands it."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field

SCRIPTS = frozenset(("firstaction", "lastaction", "postrotate", "preremove", "prerotate"))
_PAIRS = [
    "allowhardlink",
    "compress",
    "copy",
    "copytruncate",
    "dateext",
    "datehourago",
    "dateyesterday",
    "delaycompress",
    "missingok",
    "renamecopy",
    "sharedscripts",
    "shred",
]
SWITCHES = frozenset(
    [
        *_PAIRS,
        *(f"no{name}" for name in _PAIRS),
        *("daily", "errors", "hourly", "ifempty", "ignoreduplicates", "mailfirst", "maillast"),
        *("nocreate", "nocreateolddir", "nomail", "noolddir", "notifempty", "yearly"),
    ]
)
"""Directives that stand alone; several may share a line."""

REST_OF_LINE = frozenset(["compressoptions", "create", "createolddir", "monthly", "su", "weekly"])
"""Directives that take the rest of their line, which may be empty."""

VALUES = frozenset(
    [
        "addextension",
        "compresscmd",
        "compressext",
        "dateformat",
        "extension",
        "include",
        "mail",
        "maxage",
        "maxsize",
        "minage",
        "minsize",
        "minutes",
        "olddir",
        "rotate",
        "shredcycles",
        "size",
        "start",
        "tabooext",
        "taboopat",
        "uncompresscmd",
    ]
)
"""Directives that need a value, after blanks or an equals sign."""

FREQUENCIES = ("hourly", "daily", "weekly", "monthly", "yearly")

_BLANK = " \t"
_SPACE = " \t\n\v\f\r"
_WORD = re.compile(r"[A-Za-z]+")
_ENDSCRIPT = re.compile(r"^[ \t]*endscript", re.MULTILINE)
_SIZE = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)([kKMG]?)$")
_FACTOR = {"": 1, "k": 1024, "K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class Directive:
    """One setting; of a script, ``value`` is its text."""

    name: str
    value: str = ""
    line: int = field(default=0, compare=False)


@dataclass
class Section:
    """Paths and patterns with the settings that hold for them alone."""

    patterns: list[str]
    directives: list[Directive] = field(default_factory=list)
    line: int = field(default=0, compare=False)


@dataclass
class Parsed:
    """A file's settings for all that follows, its sections in order, and what is wrong in which line."""

    items: list[Directive | Section] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)


def parse(text: str) -> Parsed:
    """Read a configuration file. Never raises: what cannot be understood is a fault, and reading goes on."""
    return _Reader(text).read()


def split_paths(text: str) -> tuple[list[str], bool]:
    """Split paths as logrotate does (popt): quotes hold blanks, a backslash takes the next character as it is.

    Returns the paths, and whether every quote was closed.
    """
    paths, current, quote, escaped = [], "", "", False
    for char in text:
        if escaped:
            current += char if not quote or char == quote else "\\" + char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif not quote and char in _SPACE:
            paths += [current] if current else []
            current = ""
        else:
            current += char
    return paths + ([current] if current else []), not quote and not escaped


def size_of(value: str) -> int | None:
    """Return the bytes that a size such as ``100M`` means, None where logrotate would refuse it."""
    found = _SIZE.match(value.strip(_SPACE))
    return int(found.group(1), 16 if found.group(1)[:2] in ("0x", "0X") else 10) * _FACTOR[found.group(2)] if found else None


def number_of(value: str) -> int | None:
    """Return the number that a value is, None where it is none."""
    value = value.strip(_SPACE)
    return int(value) if re.match(r"-?\d{1,9}$", value) else None


def render(section: Section) -> str:
    """Write a section so that :func:`parse` reads the same again."""
    lines = [" ".join(_quoted(path) for path in section.patterns), "{"]
    for directive in section.directives:
        if directive.name in SCRIPTS:
            lines += [f"    {directive.name}", directive.value.rstrip("\n"), "    endscript"]
        else:
            lines.append(f"    {directive.name} {directive.value}".rstrip())
    return "\n".join([*lines, "}", ""])


def _quoted(path: str) -> str:
    return f'"{path}"' if set(path) & set(_SPACE + "'") else path


class _Reader:
    """Goes through the text once; every step moves on by at least one character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.parsed = Parsed()
        self.section: Section | None = None
        self.breaks = [found.start() for found in re.finditer("\n", text)]

    def read(self) -> Parsed:
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in _BLANK + "\n":
                self.at += 1
            elif char == "#":
                self._rest_of_line()
            elif char == "}":
                self._close()
            elif char in "/\"'~":
                self._open()
            elif word := _WORD.match(self.text, self.at):
                self._directive(word.group())
            else:
                self._fault("a line must begin with a directive or a path")
                self._rest_of_line()
        if self.section is not None:
            self._fault("the last section is not closed with }")
        return self.parsed

    def _line(self) -> int:
        return bisect.bisect_left(self.breaks, self.at) + 1

    def _fault(self, what: str) -> None:
        self.parsed.faults.append((self._line(), what))

    def _rest_of_line(self) -> str:
        end = self.text.find("\n", self.at)
        end = len(self.text) if end < 0 else end
        rest, self.at = self.text[self.at : end], max(end, self.at + (end == self.at))
        return rest.strip(_SPACE)

    def _close(self) -> None:
        if self.section is None:
            self._fault("} without a section that it could close")
        self.section = None
        self.at += 1
        rest = self._rest_of_line() if self.text[self.at : self.at + 1] not in ("", "\n") else ""
        if rest:
            self._fault("text after }, which logrotate does not read")

    def _open(self) -> None:
        if self.section is not None:
            self._fault("a path inside a section; a } is missing before it")
            self._rest_of_line()
            return
        line = self._line()
        head, opened = self._head()
        if not opened:
            self._fault("paths without { after them; logrotate leaves the rest of the file out")
            return
        paths, is_whole = split_paths(head)
        if not is_whole:
            self.parsed.faults.append((line, "a quote or backslash in the paths is not closed"))
        if not paths:
            self.parsed.faults.append((line, "a section without a path"))
        self.section = Section(paths, line=line)
        self.parsed.items.append(self.section)

    def _head(self) -> tuple[str, bool]:
        """Take the paths up to the next brace, comment lines left out; return whether it opens a section."""
        head: list[str] = []
        first = True
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end + 1
            part = self.text[self.at : end]
            if first or not part.lstrip(_SPACE).startswith("#"):
                brace = re.search("[{}]", part)
                if brace:
                    self.at += brace.end()
                    return "".join([*head, part[: brace.start()]]), brace.group() == "{"
                head.append(part)
            self.at, first = end, False
        return "".join(head), False

    def _directive(self, name: str) -> None:
        line = self._line()
        self.at += len(name)
        following = self.text[self.at : self.at + 1]
        if following and following not in _SPACE + "=":
            self._fault(f"directive {name} is followed by {following!r}, expected a blank")
            self._rest_of_line()
        elif name in SCRIPTS:
            self._add(Directive(name, self._script(name), line))
        elif name in REST_OF_LINE:
            self._add(Directive(name, self._value(), line))
        elif name in VALUES:
            value = self._value()
            if value:
                self._add(Directive(name, value, line))
            else:
                self.parsed.faults.append((line, f"directive {name} needs a value"))
        elif name in SWITCHES:
            self._add(Directive(name, "", line))
        else:
            self.parsed.faults.append((line, f"unknown directive {name}; logrotate ignores the line"))
            self._value()

    def _value(self) -> str:
        if self.text[self.at : self.at + 1] in ("", "\n"):
            return ""
        value = self._rest_of_line()
        return value[1:].lstrip(_BLANK) if value.startswith("=") else value

    def _script(self, name: str) -> str:
        end = _ENDSCRIPT.search(self.text, self.at)
        if end is None:
            self._fault(f"{name} without endscript")
            self.at = len(self.text)
            return ""
        script, self.at = self.text[self.at : end.start()], end.end()
        return script.lstrip(_BLANK).removeprefix("\n")

    def _add(self, directive: Directive) -> None:
        fault = _value_fault(directive)
        if fault:
            self.parsed.faults.append((directive.line, fault))
        if self.section is not None:
            self.section.directives.append(directive)
        else:
            self.parsed.items.append(directive)


def _value_fault(directive: Directive) -> str:
    name, value = directive.name, directive.value
    if name in ("size", "minsize", "maxsize") and size_of(value) is None:
        return f"{name} is {value!r}, expected a number of bytes with k, M or G"
    if name in ("rotate", "start", "minage", "maxage", "shredcycles", "minutes") and number_of(value) is None:
        return f"{name} is {value!r}, expected a number"
    if name == "su" and len(split_paths(value)[0]) != 2:
        return f"su is {value!r}, expected a user and a group"
    if name in ("weekly", "monthly") and value and number_of(value) is None:
        return f"{name} is followed by {value!r}, expected nothing or the number of a day"
    return ""
