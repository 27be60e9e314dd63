# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQL text that pg_dump and pg_restore write, read piece by piece in constant memory: what it holds, and whether it is whole."""

from __future__ import annotations

import re
import typing as t

_NAME = rb'(?:"(?:[^"]|"")*"|[^\s".(,;]+)'
_QUALIFIED = rb"(" + _NAME + rb"(?:\." + _NAME + rb")?)"
_COPY = re.compile(rb"COPY " + _QUALIFIED + rb" (?:\(.*\) )?FROM stdin;\r?$", re.S)
_TABLE = re.compile(rb"CREATE (?:UNLOGGED |FOREIGN )?TABLE (?:IF NOT EXISTS )?" + _QUALIFIED)
_EXTENSION = re.compile(rb"CREATE EXTENSION (?:IF NOT EXISTS )?(" + _NAME + rb")")
_ROLES = (
    re.compile(rb" OWNER TO (" + _NAME + rb");"),
    re.compile(rb"^(?:GRANT|REVOKE) .* (?:TO|FROM) (" + _NAME + rb")(?: WITH .*| GRANTED BY .*)?;"),
    re.compile(rb"^ALTER DEFAULT PRIVILEGES FOR ROLE (" + _NAME + rb") .* (?:TO|FROM) (" + _NAME + rb")(?: WITH .*)?;"),
    re.compile(rb"^CREATE SCHEMA (?:.* )?AUTHORIZATION (" + _NAME + rb");"),
    re.compile(rb"^(?:CREATE|ALTER) USER MAPPING (?:IF NOT EXISTS )?FOR (" + _NAME + rb") "),
    re.compile(rb"^CREATE POLICY .* TO ((?:" + _NAME + rb"(?:, )?)+)(?: USING| WITH|;)"),
)
_NO_ROLES = frozenset(("public", "current_user", "session_user", "current_role"))
_VERSION = re.compile(rb"-- Dumped (from database|by pg_dump) version (\d+)")
_ENCODING = re.compile(rb"SET client_encoding = '([^']+)'")
_DATA_END = b"\n\\.\n"
_COMPLETE = b"-- PostgreSQL database dump complete"
_CLUSTER = b"-- PostgreSQL database cluster dump"
_OWN_COMMANDS = (b"\\restrict ", b"\\unrestrict ", b"\\connect ", b"\\encoding ")
_LINE_LIMIT = 65536
_LISTED = 20

HEADER = b"-- PostgreSQL database dump"


class Text:
    """What the text of a dump showed so far.

    :param on_role: told of every role that the text names, before the piece that names it has been read to its end.
    """

    def __init__(self, on_role: t.Callable[[str], None] | None = None) -> None:
        self.rows: dict[tuple[str, ...], int] = {}
        self.copies = 0
        self.tables: set[tuple[str, ...]] = set()
        self.roles: set[str] = set()
        self.extensions: set[str] = set()
        self.server_major = 0
        self.program_major = 0
        self.encoding = ""
        self.connects = False
        self.commands: list[str] = []
        self.creates_database = False
        self.is_cluster = False
        self.size = 0
        self._on_role = on_role or (lambda _role: None)
        self._line = b""
        self._copying: tuple[str, ...] | None = None
        self._tail = b""
        self._zeros = 0
        self._was_complete = False
        self._after = ""

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""
        self.size += len(piece)
        self._zeros += piece.count(b"\0")
        while piece:
            piece = self._data(piece) if self._copying is not None else self._statements(piece)

    def problem(self) -> tuple[str, str]:
        """Say at the end why the text is not whole: the kind of damage and a sentence; two empty texts when it is."""
        if self._line:
            self._statement_line(self._line)
            self._line = b""
        if self._zeros:
            return "damaged", f"it holds {self._zeros} zero bytes, which a dump never has: part of it was overwritten"
        if self._copying is not None:
            return "half written", f"it ends among the rows of {'.'.join(self._copying)}: it is cut off or still being written"
        if not self._was_complete:
            return "half written", "it does not end with 'PostgreSQL database dump complete': it is cut off or still being written"
        if self._after:
            return "damaged", f"text follows its end mark: {self._after!r}"
        return "", ""

    def _data(self, piece: bytes) -> bytes:
        """Count rows up to the end of the data, ``\\.`` on a line of its own; return what follows it."""
        joined = self._tail + piece
        end = joined.find(_DATA_END)
        name = self._copying or ()
        if end < 0:
            self.rows[name] += piece.count(b"\n")
            self._tail = joined[-len(_DATA_END) + 1 :]
            return b""
        self.rows[name] += joined[len(self._tail) : end + 1].count(b"\n")
        self._copying = None
        return joined[end + len(_DATA_END) :]

    def _statements(self, piece: bytes) -> bytes:
        start = 0
        while True:
            end = piece.find(b"\n", start)
            if end < 0:
                self._line = (self._line + piece[start:])[:_LINE_LIMIT]
                return b""
            line = self._line + piece[start:end] if self._line else piece[start:end]
            self._line = b""
            start = end + 1
            self._statement_line(line)
            if self._copying is not None:
                return piece[start:]

    def _statement_line(self, line: bytes) -> None:
        if not line.strip():
            return
        if line.startswith(b"--"):
            self._comment(line)
        elif line.startswith(b"\\"):
            self._command(line)
        else:
            if self._was_complete and not self.is_cluster and not self._after:
                self._after = line[:40].decode("utf-8", "replace")
            self._statement(line)

    def _comment(self, line: bytes) -> None:
        if line.rstrip() == _COMPLETE:
            self._was_complete = True
        elif line.rstrip() == _CLUSTER:
            self.is_cluster = True
        else:
            found = _VERSION.match(line)
            if found and found.group(1) == b"from database":
                self.server_major = int(found.group(2))
            elif found:
                self.program_major = int(found.group(2))

    def _command(self, line: bytes) -> None:
        if line.startswith(b"\\connect "):
            self.connects = True
        elif not line.startswith(_OWN_COMMANDS) and len(self.commands) < _LISTED:
            self.commands.append(line[:20].split()[0].decode("utf-8", "replace"))

    def _statement(self, line: bytes) -> None:
        if line.startswith(b"COPY "):
            found = _COPY.match(line)
            if found:
                self._copying = _parts(found.group(1))
                self.rows.setdefault(self._copying, 0)
                self.copies += 1
                self._tail = b"\n"
                return
        if line.startswith(b"CREATE "):
            self._creation(line)
        if line.startswith(b"SET client_encoding"):
            named = _ENCODING.match(line)
            self.encoding = named.group(1).decode("ascii", "replace") if named else ""
        for pattern in _ROLES:
            for groups in pattern.findall(line):
                for group in (groups,) if isinstance(groups, bytes) else groups:
                    self._role(group)

    def _creation(self, line: bytes) -> None:
        if line.startswith(b"CREATE DATABASE "):
            self.creates_database = True
        table, extension = _TABLE.match(line), _EXTENSION.match(line)
        if table:
            self.tables.add(_parts(table.group(1)))
        if extension:
            self.extensions.add(_plain(extension.group(1)))

    def _role(self, group: bytes) -> None:
        for part in group.split(b", "):
            name = _plain(part)
            if name.lower() not in _NO_ROLES and not name.startswith("pg_") and name not in self.roles:
                self.roles.add(name)
                self._on_role(name)


def _parts(name: bytes) -> tuple[str, ...]:
    return tuple(_plain(part) for part in re.findall(_NAME, name))


def _plain(name: bytes) -> str:
    if name.startswith(b'"') and name.endswith(b'"') and len(name) > 1:
        name = name[1:-1].replace(b'""', b'"')
    return name.decode("utf-8", "surrogateescape")
