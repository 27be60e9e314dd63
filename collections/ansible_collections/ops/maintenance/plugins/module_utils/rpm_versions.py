# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions as rpm orders them."""

from __future__ import annotations

import functools
import re

_PIECE = re.compile(r"[0-9]+|[a-zA-Z]+|~|\^")


def compare_parts(one: str, other: str) -> int:
    """Compare two versions, or two releases, as rpm does; negative when the first is older."""
    if one == other:
        return 0
    left, right = _PIECE.findall(one), _PIECE.findall(other)
    for a, b in zip(left, right):
        if a != b:
            verdict = _compare_piece(a, b)
            if verdict:
                return verdict
    longer, sign = (left, 1) if len(left) > len(right) else (right, -1)
    if len(left) == len(right):
        return 0
    # More is newer, unless it begins with the sign of what comes before a release.
    return -sign if longer[min(len(left), len(right))] == "~" else sign


def _compare_piece(a: str, b: str) -> int:
    for mark, verdict in (("~", -1), ("^", -1)):
        if mark in (a, b):
            return verdict if a == mark else -verdict
    if a.isdigit() and b.isdigit():
        a, b = a.lstrip("0"), b.lstrip("0")
        return (len(a) - len(b)) or (a > b) - (a < b)
    if a.isdigit() != b.isdigit():
        return 1 if a.isdigit() else -1
    return (a > b) - (a < b)


def split_evr(evr: str) -> tuple[int, str, str]:
    """Split ``epoch:version-release``; a missing epoch is 0."""
    epoch, colon, rest = evr.partition(":")
    if not colon:
        epoch, rest = "0", evr
    version, _dash, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return (int(epoch) if epoch.isdigit() else 0, version, release)


def compare(one: str, other: str) -> int:
    """Compare two ``epoch:version-release``; negative when the first is older."""
    (epoch, *parts), (other_epoch, *other_parts) = split_evr(one), split_evr(other)
    if epoch != other_epoch:
        return epoch - other_epoch
    return next((verdict for verdict in map(compare_parts, parts, other_parts) if verdict), 0)


newness = functools.cmp_to_key(compare)
"""Sort key of ``epoch:version-release``, oldest first."""
