# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn from one JSON line a regular expression that fits only valid JSON lines with the same keys in the same order."""

from __future__ import annotations

import functools
import json
import re
import typing as t
from dataclasses import dataclass

from .log_lines import LEVEL_KEYS, TIME_KEYS

TEXT_KEYS = (
    "message", "msg", "event", "error", "text", "exception", "detail", "reason", "category", "type", "status",
    "result", "outcome",
)  # fmt: skip
ACCOUNT_KEYS = ("user", "username", "account", "login", "email")
ENDPOINT_KEYS = ("endpoint", "route", "path", "url")
ADDRESS_KEYS = ("ip", "client_ip", "remote_addr", "remote_ip", "ip_address", "source_ip", "address", "client")

TEXT_LIMIT_BYTES = 4096

_LOOSE_TEXT = rb'[^"]*'
_LOOSE_MESSAGE = rb'([^"]{1,%d})' % TEXT_LIMIT_BYTES
_STRICT_TEXT = rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
_NUMBER = rb"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?"
_LIKE_NUMBERS = (rb"(?!0\d)\d{1,18}", rb"(?!0\d)\d{1,18}\.\d{1,30}")
_LEVEL_NUMBER = rb"[1-9]\d{0,8}"
_STAMP = rb"(\d{4}-\d\d-\d\d[T ][0-2]\d:[0-5]\d:[0-5]\d)"
_FRACTION = rb"(?:[.,]\d{1,9})?"
_LIKE_FRACTIONS = (rb"", rb"\.\d{1,9}", rb",\d{1,9}")
_WHOLE_STAMP = re.compile(_STAMP + b"(" + _FRACTION + rb")(Z|[+-]\d\d:?\d\d|)")
_MISFITS_LIMIT = 3
_KEY = re.compile(rb'\s*"([^"\\\x00-\x1f]*)"\s*:\s*')


def first_text(record: t.Mapping[str, t.Any], keys: t.Iterable[str]) -> bytes:
    """Return the text of the first of several keys that holds one; empty where none does."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str):
            return value.encode("utf-8", "replace")
    return b""


def text_of_record(record: t.Mapping[str, t.Any]) -> bytes:
    """Return what a JSON record says, on one line: its known text fields, or all of it where it has none."""
    parts = [value for value in (record.get(key) for key in TEXT_KEYS) if isinstance(value, str) and value]
    text = " ".join(parts) if parts else json.dumps(record, ensure_ascii=False, sort_keys=True)
    return one_line(text.encode("utf-8", "replace"))


def one_line(text: bytes) -> bytes:
    """Return a text without its line ends, and no longer than what is kept of texts."""
    return text[:TEXT_LIMIT_BYTES].replace(b"\n", b" ")


@dataclass
class Shape:
    """Expressions for lines of one shape, the zone of their times, and the number of the column that holds each part.

    ``fast`` is right only for lines without backslashes and control characters, and only where it matched as often as there are lines.
    It leaves lines with long texts out.
    At first it expects numbers and times written like those in the line that the shape was learned from.
    """

    fast: re.Pattern[bytes]
    layout: _Layout
    zone: bytes
    stamp: int
    level: int | None
    level_is_number: bool
    more_levels: bool
    texts: tuple[int, ...]
    account: int | None
    address: int | None
    endpoint: int | None
    _misfits: int = 0

    @functools.cached_property
    def strict(self) -> re.Pattern[bytes]:
        """The expression for any lines of the shape."""
        return self.layout.expression(_STRICT_TEXT)

    def widen(self) -> None:
        """Take note that ``fast`` missed lines of the shape; after a few times, let it expect any numbers and times."""
        self._misfits += 1
        if self._misfits == _MISFITS_LIMIT:
            self.fast = self.layout.expression(_LOOSE_TEXT)


class _Piece(t.NamedTuple):
    """A key with everything around it as it is written, and the kind of its value."""

    before: bytes
    key: str
    kind: str
    value: bytes


class _Layout(t.NamedTuple):
    """All of a line: its keys in order, what ends it, the zone of its time, and which columns are wanted."""

    pieces: list[_Piece]
    end: bytes
    time_key: str
    zone: bytes
    text_key: str
    wanted: set[str]

    def columns(self) -> dict[str, int]:
        """Return the number of the column of each wanted key."""
        return {key: index for index, key in enumerate(piece.key for piece in self.pieces if piece.key in self.wanted)}

    def expression(self, text: bytes, alike: bool = False) -> re.Pattern[bytes]:
        """Return an expression for lines of that layout.

        :param text: what fits into quotes.
        :param alike: let only such numbers and times fit as are written like those of the line.
        """
        kinds = _kinds(text)
        parts = [b"^"]
        for piece in self.pieces:
            quote = b'"' if piece.kind == "text" else b""
            value = self._value(piece, kinds, text, alike)
            parts += [re.escape(piece.before), quote, value, quote]
        return re.compile(b"".join([*parts, re.escape(self.end), rb"\n"]), re.M)

    def _value(self, piece: _Piece, kinds: dict[str, bytes], text: bytes, alike: bool) -> bytes:
        if piece.key == self.time_key:
            fraction = _like(piece.value[19 : len(piece.value) - len(self.zone)], _LIKE_FRACTIONS, _FRACTION) if alike else _FRACTION
            return _STAMP + fraction + re.escape(self.zone)
        if piece.key == self.text_key:
            return _LOOSE_MESSAGE if text is _LOOSE_TEXT else rb'((?!")' + text + rb")"
        if piece.key in self.wanted:
            return b"(" + (_LEVEL_NUMBER if piece.kind == "number" else kinds[piece.kind]) + b")"
        if piece.kind == "number" and alike:
            return _like(piece.value, _LIKE_NUMBERS, _NUMBER)
        return kinds[piece.kind]


def _like(value: bytes, narrow: t.Iterable[bytes], wide: bytes) -> bytes:
    """Return the first narrow expression that fits a value; the wide one where none does."""
    return next((expression for expression in narrow if re.fullmatch(expression, value)), wide)


def _kinds(text: bytes) -> dict[str, bytes]:
    """Return the expression for each kind of value."""
    scalar = rb'(?:"' + text + rb'"|' + _NUMBER + rb"|true|false|null)"
    member = rb'[ \t]*"' + text + rb'"[ \t]*:[ \t]*' + scalar + rb"[ \t]*"
    item = rb"[ \t]*" + scalar + rb"[ \t]*"
    return {
        "text": text,
        "number": _NUMBER,
        "word": rb"(?:true|false|null)",
        "object": rb"\{(?:" + member + rb"(?:," + member + rb")*|[ \t]*)\}",
        "list": rb"\[(?:" + item + rb"(?:," + item + rb")*|[ \t]*)\]",
    }


def learn(line: bytes) -> Shape | None:
    """Return the shape of a JSON line; None where it is not one that the fast way could answer for."""
    found = _pieces(line)
    if found is None:
        return None
    pieces, end = found
    kinds = {piece.key: piece.kind for piece in pieces}
    time_key = next((key for key in TIME_KEYS if key in kinds), None)
    texts = [key for key in TEXT_KEYS if kinds.get(key) == "text"]
    levels = [key for key in LEVEL_KEYS if key in kinds]
    by_key = {piece.key: piece for piece in pieces}
    if len(kinds) != len(pieces) or time_key is None or not texts or not by_key[texts[0]].value:
        return None
    stamp = _WHOLE_STAMP.fullmatch(by_key[time_key].value)
    if stamp is None or (levels and kinds[levels[0]] not in ("text", "number")):
        return None
    who = (ACCOUNT_KEYS, ADDRESS_KEYS, ENDPOINT_KEYS)
    account, address, endpoint = (next((key for key in keys if kinds.get(key) == "text"), None) for keys in who)
    wanted = {key for key in (time_key, *levels[:1], *texts, account, address, endpoint) if key}
    layout = _Layout(pieces, end, time_key, stamp.group(3), texts[0], wanted)
    columns = layout.columns()
    return Shape(
        fast=layout.expression(_LOOSE_TEXT, alike=True),
        layout=layout,
        zone=layout.zone,
        stamp=columns[time_key],
        level=columns[levels[0]] if levels else None,
        level_is_number=bool(levels) and kinds[levels[0]] == "number",
        more_levels=len(levels) > 1,
        texts=tuple(columns[key] for key in texts),
        account=columns[account] if account else None,
        address=columns[address] if address else None,
        endpoint=columns[endpoint] if endpoint else None,
    )


def _pieces(line: bytes) -> tuple[list[_Piece], bytes] | None:
    """Take a line apart at its top level; None where it is not a JSON object, or a rare kind of one."""
    text = line.decode("latin-1")  # a character for each byte, so that positions agree
    start = text.find("{")
    if start < 0 or text[:start].strip() or len(line) > 64 * 1024:
        return None
    pieces: list[_Piece] = []
    position = last = start + 1
    decoder = json.JSONDecoder()
    while True:
        key = _KEY.match(line, position)
        if key is None or not key.group(1).isascii():
            return None
        try:
            value, end = decoder.raw_decode(text, key.end())
        except (ValueError, RecursionError):
            return None
        kind = _kind(value)
        if kind is None:
            return None
        raw = line[key.end() : end]
        before = line[: key.end()] if not pieces else line[last : key.end()]
        pieces.append(_Piece(before, key.group(1).decode(), kind, raw[1:-1] if kind == "text" else raw))
        last = end
        after = re.compile(rb"\s*([,}])").match(line, end)
        if after is None:
            return None
        position = after.end()
        if after.group(1) == b"}":
            return None if line[position:].strip() else (pieces, line[last:])


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    if value is None or isinstance(value, bool):
        return "word"
    if isinstance(value, (int, float)):
        return "number"
    items = value.values() if isinstance(value, dict) else value
    if isinstance(items, t.Iterable) and all(_kind(item) in ("text", "word", "number") for item in items):
        return "object" if isinstance(value, dict) else "list"
    return None
