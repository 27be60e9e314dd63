# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thresholds: compare a measured value with a warning and a critical limit."""

from __future__ import annotations


def from_limit(value: float, warning: float | None, critical: float | None = None) -> str:
    """Judge a value that is bad when high: ``value >= limit`` reaches the limit."""
    if critical is not None and value >= critical:
        return "critical"
    if warning is not None and value >= warning:
        return "warning"
    return "ok"


def below_limit(value: float, warning: float | None, critical: float | None = None) -> str:
    """Judge a value that is bad when low: ``value < limit`` falls below the limit."""
    if critical is not None and value < critical:
        return "critical"
    if warning is not None and value < warning:
        return "warning"
    return "ok"


def limits(unit: str, warning: float | None, critical: float | None = None, low: bool = False) -> str:
    """Say the limits in words, for a finding's ``threshold``."""
    word = "below" if low else "from"
    parts: list[tuple[str, float | None]] = [("warning", warning), ("critical", critical)]
    return ", ".join(f"{name} {word} {limit:g} {unit}".rstrip() for name, limit in parts if limit is not None)


def human_bytes(count: float) -> str:
    """Say a number of bytes as a person would: ``1.5 MiB``."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def human_seconds(seconds: float) -> str:
    """Say a duration as a person would: ``2 d 3 h``, ``4 min 5 s``, ``0.8 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2]) or "0 s"


def many(count: int, one: str, more: str = "") -> str:
    """Say a number of things: ``1 address``, ``2 addresses``."""
    return f"{count} {one if count == 1 else more or one + 's'}"
