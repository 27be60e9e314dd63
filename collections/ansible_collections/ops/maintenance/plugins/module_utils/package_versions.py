# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of package versions, and whether a version stays within a pin."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"\d+")
_OTHERS = re.compile(r"\D*")


def compare(one: str, other: str) -> int:
    """Return below 0, 0 or above 0 as dpkg orders two versions: epoch, upstream version, revision; ``~`` sorts before the end."""
    epoch, upstream, revision = _parts(one)
    other_epoch, other_upstream, other_revision = _parts(other)
    return (epoch > other_epoch) - (epoch < other_epoch) or _piece(upstream, other_upstream) or _piece(revision, other_revision)


def _parts(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isdigit():
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    return int(epoch), upstream if dash else rest, revision if dash else ""


def _piece(one: str, other: str) -> int:
    while one or other:
        words = _start(_OTHERS, one), _start(_OTHERS, other)
        one, other = one[len(words[0]) :], other[len(words[1]) :]
        ranks = [_rank(word) for word in words]
        if ranks[0] != ranks[1]:
            return 1 if ranks[0] > ranks[1] else -1
        digits = _start(_DIGITS, one), _start(_DIGITS, other)
        one, other = one[len(digits[0]) :], other[len(digits[1]) :]
        numbers = [int(text or "0") for text in digits]
        if numbers[0] != numbers[1]:
            return 1 if numbers[0] > numbers[1] else -1
    return 0


def _start(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return match.group() if match else ""


def _rank(word: str) -> list[int]:
    """Order what is not a number: ``~`` before the end, the end before letters, letters before the rest."""
    return [-1 if c == "~" else ord(c) if c.isascii() and c.isalpha() else ord(c) + 256 for c in word] + [0]


def is_within(version: str, pin: str) -> bool:
    """Whether a version does not pass a pin: a whole version, or the beginning of one (``15``, ``15.*``).

    A pin without an epoch says nothing about the epoch.
    """
    seen = version if ":" in pin else version.partition(":")[2] or version
    stem = pin.rstrip("*")
    if seen.startswith(stem) and (stem != pin or not seen[len(stem) :][:1].isalnum()):
        return True
    return compare(seen, stem) <= 0
