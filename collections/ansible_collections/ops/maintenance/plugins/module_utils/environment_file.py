# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of environment files, values over several lines among them."""

from __future__ import annotations

import os
import re
import typing as t

_VARIABLE = re.compile(rb"^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$")
_NAME = re.compile(r"^\.env(?:\..+)?$|\.env$")
_OVER_LINES = (
    (re.compile(rb'^"(?:[^"\\]|\\.)*\\?$'), re.compile(rb'^((?:[^"\\]|\\.)*)"\s*(?:#.*)?$'), b'"'),
    (re.compile(rb"^'[^']*$"), re.compile(rb"^([^']*)'\s*(?:#.*)?$"), b"'"),
    (re.compile(rb"^`[^`]*$"), re.compile(rb"^([^`]*)`\s*(?:#.*)?$"), b"`"),
    (re.compile(rb"^-----BEGIN .*-----$"), re.compile(rb"^(-----END .*-----)\s*$"), b"-----END "),
)
"""How a value over several lines begins, how its last line looks, and what only that line may have in it."""


def variables(content: bytes) -> dict[str, bytes]:
    """Return the variables of an environment file; nothing of a file that is none."""
    found: dict[str, bytes] = {}
    lines = content.splitlines()
    number = 0
    endless: set[bytes] = set()
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        match = _VARIABLE.match(line)
        if not match:
            return {}
        value, more = _whole(match.group(2), lines, number, endless)
        number += more
        found[match.group(1).decode()] = value.strip(b"\"'`")
    return found


def _whole(value: bytes, lines: t.Sequence[bytes], after: int, endless: set[bytes]) -> tuple[bytes, int]:
    """Return a value with the lines that it goes on over, and how many; a quote that does not end is part of its one line.

    :param endless: what was looked for up to the end before, in vain; this keeps the work linear.
    """
    for opening, closing, end in _OVER_LINES:
        if end in endless or not opening.match(value):
            continue
        for number in range(after, len(lines)):
            if end in lines[number]:
                last = closing.match(lines[number])
                return (b"\n".join([value, *lines[after:number], last.group(1)]), number - after + 1) if last else (value, 0)
        endless.add(end)
    return value, 0


def is_one(path: str, content: bytes) -> bool:
    """Whether a file is an environment file: every line says so, or its name and one line do."""
    named = _NAME.search(os.path.basename(path)) is not None
    return bool(variables(content)) or (named and any(_VARIABLE.match(line) for line in content.splitlines()))
