# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count JSON lines by the block: one regular expression takes all lines of a shape apart, and columns are counted by C code."""

from __future__ import annotations

import json
import typing as t
from collections import Counter
from itertools import compress
from operator import itemgetter

from .log_hours import Hours
from .log_line_counter import LineCounter
from .log_lines import level_name
from .log_shape import TEXT_LIMIT_BYTES, Shape, learn, one_line
from .log_tally import ERROR_LEVELS, KEYS_LIMIT
from .log_texts import STEMS, tags_of

SHAPES_LIMIT = 8

_CONTROLS = bytes(range(32))
_DIGITS = b"0123456789"

Row = tuple[bytes, ...]


class JsonBlocks:
    """The fast way through a log of JSON lines."""

    def __init__(self, counter: LineCounter) -> None:
        self._counter = counter
        self._hours = Hours(counter, 13)
        self._shapes: list[Shape] = []
        self._levels: dict[bytes, str] = {}
        self._tags: dict[bytes, bool] = {}

    def take(self, block: bytes) -> bytes:
        """Count the lines of a block, and return those that it could not answer for."""
        tried = 0
        while block:
            if tried == len(self._shapes) and not self._learn(block):
                return block
            shape, tried = self._shapes[tried], tried + 1
            rows, rest, simple = _take_apart(shape, block)
            if rows:
                if not self._count(shape, rows, simple):
                    return block
                block = rest
        return block

    def _learn(self, block: bytes) -> bool:
        """Learn the shape of one of the first lines that fitted no known one."""
        if len(self._shapes) >= SHAPES_LIMIT:
            return False
        shape = next(filter(None, map(learn, block.split(b"\n", 4)[:4])), None)
        if shape is not None:
            self._shapes.append(shape)
        return shape is not None

    def _count(self, shape: Shape, rows: list[Row], simple: bool) -> bool:
        tally = self._counter.tally
        stamps = _column(rows, shape.stamp)
        raw_levels = [b""] * len(rows) if shape.level is None else _column(rows, shape.level)
        levels = Counter(raw_levels)
        hours = self._hours.of(stamps, shape.zone)
        if hours is None or not self._know_levels(shape, levels):
            return False
        tally.lines += len(rows)
        tally.parsed += len(rows)
        if not hours:
            tally.outside += len(rows)
            return True
        names = self._levels
        self._hours.count(hours, stamps, raw_levels, levels, names.__getitem__)
        texts, joined = _texts(shape, rows, simple)
        errors = {raw for raw in levels if names[raw] in ERROR_LEVELS}
        if errors:
            for raw, text in compress(zip(raw_levels, texts), map(errors.__contains__, raw_levels)):
                self._counter.error(names[raw], text)
        self._tag(shape, rows, texts, joined)
        return True

    def _know_levels(self, shape: Shape, levels: t.Iterable[bytes]) -> bool:
        """Learn the names of levels as they are written; False where the fast way cannot tell one."""
        names = self._levels
        for raw in levels:
            if raw not in names:
                if len(names) > 1000 or b"\\" in raw:
                    return False
                names[raw] = level_name(int(raw) if shape.level_is_number else raw.decode("utf-8", "replace"))
            if not names[raw] and shape.more_levels:
                return False
        return True

    def _tag(self, shape: Shape, rows: list[Row], texts: list[bytes], joined: bytes) -> None:
        """Look for tags in texts without their digits, each once; then exactly in those that may have one."""
        masked = joined.translate(None, _DIGITS).split(b"\n")
        flags = list(map(self._tags.get, masked))
        if None in flags:
            self._learn_tags(masked)
            flags = list(map(self._tags.get, masked))
        if True in flags:
            for row, text in compress(zip(rows, texts), flags):
                who = [_field(row, index) for index in (shape.account, shape.address, shape.endpoint)]
                for tag in tags_of(text):
                    self._counter.tagged(tag, text, *who)

    def _learn_tags(self, texts: list[bytes]) -> None:
        known = self._tags
        if len(known) > KEYS_LIMIT:
            known.clear()
        new = set(texts).difference(known)
        together = b"\n".join(new).lower()
        some = any(stem in together for stem in STEMS)
        known.update((text, some and bool(tags_of(text))) for text in new)


def _take_apart(shape: Shape, block: bytes) -> tuple[list[Row], bytes, bool]:
    """Return the lines of a shape, taken apart, the other lines, and whether the faster expression was enough."""
    rows = shape.fast.findall(block) if b"\\" not in block else []
    if rows and len(rows) == len(block) - len(block.translate(None, _CONTROLS)):  # one line end a row, and no other control character
        return rows, b"", True
    found = len(rows)
    rows = shape.strict.findall(block)
    if found < len(rows) and b"\\" not in block:
        shape.widen()
    return rows, b"" if len(rows) == block.count(b"\n") else shape.strict.sub(b"", block), False


def _column(rows: list[Row], index: int) -> list[bytes]:
    return list(map(itemgetter(index), rows))


def _texts(shape: Shape, rows: list[Row], simple: bool) -> tuple[list[bytes], bytes]:
    """Return the same as :func:`text_of_record` for each row, and all of it together, one a line."""
    if len(shape.texts) == 1:
        texts = _column(rows, shape.texts[0])
        joined = b"\n".join(texts)
        if joined.isascii() and (simple or (b"\\" not in joined and max(map(len, texts)) <= TEXT_LIMIT_BYTES)):
            return texts, joined
    texts = [one_line(b" ".join(filter(None, (_field(row, index) for index in shape.texts)))) for row in rows]
    return texts, b"\n".join(texts)


def _field(row: Row, index: int | None) -> bytes:
    """Return a column as :func:`json.loads` would have read it."""
    if index is None:
        return b""
    raw = row[index]
    if b"\\" not in raw and raw.isascii():
        return raw
    decoded: str = json.loads(b'"%s"' % raw.decode("utf-8", "replace").encode())
    return decoded.encode("utf-8", "replace")
