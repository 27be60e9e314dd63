# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn from one JSON line a regular expression that fits only valid JSON lines with the same keys in the same order."""

from __future__ import annotations

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
_STRICT_TEXT = rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
_NUMBER = rb"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?"
_LEVEL_NUMBER = rb"[1-9]\d{0,8}"
_STAMP = rb"(\d{4}-\d\d-\d\d[T ][0-2]\d:[0-5]\d:[0-5]\d)(?:[.,]\d{1,9})?(Z|[+-]\d\d:?\d\d|)"
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


@dataclass(frozen=True)
class Shape:
    """Expressions for lines of one shape, and the number of the column that holds each part.

    ``loose`` is faster, and right only for lines without backslashes and control characters, and only where it matched
    as often as there are lines.
    """

    loose: re.Pattern[bytes]
    strict: re.Pattern[bytes]
    stamp: int
    offset: int
    level: int | None
    level_is_number: bool
    more_levels: bool
    texts: tuple[int, ...]
    account: int | None
    address: int | None
    endpoint: int | None


class _Piece(t.NamedTuple):
    """A key with everything around it as it is written, and the kind of its value."""

    before: bytes
    key: str
    kind: str
    value: bytes


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
    if not re.fullmatch(_STAMP, by_key[time_key].value):
        return None
    if levels and kinds[levels[0]] not in ("text", "number"):
        return None
    who = (ACCOUNT_KEYS, ADDRESS_KEYS, ENDPOINT_KEYS)
    account, address, endpoint = (next((key for key in keys if kinds.get(key) == "text"), None) for keys in who)
    wanted = {key for key in (*levels[:1], *texts, account, address, endpoint) if key}
    columns = _columns(pieces, wanted, time_key)
    loose, strict = (
        _expression(pieces, end, text, {time_key: _STAMP, texts[0]: rb'((?!")' + text + rb")"}, wanted)
        for text in (_LOOSE_TEXT, _STRICT_TEXT)
    )
    return Shape(
        loose=loose,
        strict=strict,
        stamp=columns[time_key],
        offset=columns[time_key] + 1,
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


def _columns(pieces: list[_Piece], wanted: set[str], time_key: str) -> dict[str, int]:
    columns: dict[str, int] = {}
    count = 0
    for piece in pieces:
        if piece.key in wanted or piece.key == time_key:
            columns[piece.key] = count
            count += 2 if piece.key == time_key else 1
    return columns


def _expression(pieces: list[_Piece], end: bytes, text: bytes, special: dict[str, bytes], wanted: set[str]) -> re.Pattern[bytes]:
    scalar = rb'(?:"' + text + rb'"|' + _NUMBER + rb"|true|false|null)"
    member = rb'[ \t]*"' + text + rb'"[ \t]*:[ \t]*' + scalar + rb"[ \t]*"
    item = rb"[ \t]*" + scalar + rb"[ \t]*"
    kinds = {
        "text": text,
        "number": _NUMBER,
        "word": rb"(?:true|false|null)",
        "object": rb"\{(?:" + member + rb"(?:," + member + rb")*|[ \t]*)\}",
        "list": rb"\[(?:" + item + rb"(?:," + item + rb")*|[ \t]*)\]",
    }
    parts = [b"^"]
    for piece in pieces:
        quote = b'"' if piece.kind == "text" else b""
        value = special.get(piece.key) or kinds[piece.kind]
        if piece.key in wanted and piece.key not in special:
            value = b"(" + (_LEVEL_NUMBER if piece.kind == "number" else value) + b")"
        parts += [re.escape(piece.before), quote, value, quote]
    return re.compile(b"".join([*parts, re.escape(end), rb"\n"]), re.M)
