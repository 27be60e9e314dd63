# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read values of a journal line whatever they are, and say them as a person would.

A journal may be damaged or hostile; a report is written even so. Every text passes through :func:`text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ansible_collections.ops.maintenance.plugins.module_utils import judge
from ansible_collections.ops.maintenance.plugins.module_utils.record import STATES, clean, plain

RANK = {"ok": 0, "unknown": 1, "warning": 2, "critical": 3}
_UNITS = ("bytes", "seconds", "percent", "days")
_SHOWN = 6


def text(value: Any, limit: int = 500) -> str:
    """Return a value as text that cannot drive a terminal or turn the writing direction."""
    if value is None:
        return ""
    shown = value if isinstance(value, str) else str(plain(value, limit))
    if shown.isascii() and shown.isprintable() and len(shown) <= limit:
        return shown
    return clean(shown, limit)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping, empty when the value is none."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> Sequence[Any]:
    """Return a list, empty when the value is none."""
    return value if isinstance(value, (list, tuple)) else ()


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings in a list."""
    return [item for item in items(value) if isinstance(item, Mapping)]


def texts(value: Any) -> list[str]:
    """Return the entries of a list as text; one bare text counts as a list of one."""
    if isinstance(value, str):
        return [text(value)] if value else []
    return [text(item) for item in items(value)]


def number(value: Any) -> float | None:
    """Return a finite number, or ``None``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1e30 else None  # false for NaN as well


def flag(value: Any) -> bool | None:
    """Return true or false, or ``None`` for anything else."""
    return value if isinstance(value, bool) else None


def state(value: Any) -> str:
    """Return a state; whatever is none counts as ``unknown``, never as ``ok``."""
    return value if isinstance(value, str) and value in STATES else "unknown"


def moment(value: Any) -> datetime | None:
    """Return a time with its zone (UTC where the text has none), or ``None``."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def iso(value: Any) -> str:
    """Return a time in UTC to the second, empty when the value is none."""
    found = moment(value)
    return found.isoformat(timespec="seconds") if found else ""


def seconds_between(start: Any, end: Any) -> float | None:
    """Return the seconds from one time to another, ``None`` when either is none or they are reversed."""
    first, last = moment(start), moment(end)
    if first is None or last is None or last < first:
        return None
    return (last - first).total_seconds()


def amount(value: Any, unit: str = "") -> str:
    """Say a measured value with its unit: ``1.5 MiB``, ``4 min 5 s``, ``91.5 %``."""
    count = number(value)
    if count is None:
        return f"{text(value)} {unit}".strip() if value is not None and value != "" else ""
    if unit == "bytes":
        return judge.human_bytes(count)
    if unit == "seconds":
        return duration(count) if count >= 0 else f"{count:g} s"
    shown = f"{count:,.0f}" if abs(count) >= 1000 or count == int(count) else f"{count:.3g}"
    return f"{shown} {'%' if unit == 'percent' else '' if unit == 'count' else unit}".rstrip()


def duration(seconds: float | None) -> str:
    """Say a duration; empty when it is not known."""
    if seconds is None:
        return ""
    return f"{seconds * 1000:.3g} ms" if 0 < seconds < 1 else judge.human_seconds(max(0.0, seconds))


def state_text(value: Any, depth: int = 3) -> str:
    """Say the state before or after an action in one line: ``size 4.0 MiB, free 31 %``."""
    if not isinstance(value, Mapping):
        return text(value)
    return text(", ".join(_entry(str(key), item, depth) for key, item in value.items()))


def _entry(name: str, value: Any, depth: int) -> str:
    label, unit = _label(name, value)
    return f"{label} {_short(value, unit, depth - 1)}".strip()


def _label(name: str, value: Any) -> tuple[str, str]:
    """Split ``size_bytes`` into what it is and its unit."""
    unit = next((unit for unit in _UNITS if f"_{name}".endswith(f"_{unit}")), "") if number(value) is not None else ""
    return text(name.removesuffix(unit).removesuffix("_") if unit else name).replace("_", " "), unit


def difference(before: Any, after: Any) -> str:
    """Say what became of each value: ``size 454.7 MiB → 363.1 MiB, integrity ok``."""
    first, last = mapping(before), mapping(after)
    parts = []
    for name in dict.fromkeys([*first, *last]):
        label, unit = _label(str(name), last.get(name, first.get(name)))
        sides = [_short(side[name], unit, 2) for side in (first, last) if name in side]
        parts.append(f"{label} {sides[0] if len(set(sides)) == 1 else ' → '.join(sides)}".strip())
    return text(", ".join(parts), 800)


def _short(value: Any, unit: str, depth: int) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if number(value) is not None:
        return amount(value, unit)
    if isinstance(value, (Mapping, list, tuple)) and depth <= 0:
        return "…"
    if isinstance(value, Mapping):
        return f"({state_text(value, depth)})"
    if isinstance(value, (list, tuple)):
        more = f"; {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
        return "; ".join(_short(item, "", depth - 1) for item in value[:_SHOWN]) + more if value else "none"
    return text(value, 200)


def plural(count: int, one: str, many: str = "") -> str:
    """Say a count with its noun: ``1 host``, ``3 hosts``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def local(value: Any, zone: str = "UTC", form: str = "%a %Y-%m-%d %H:%M %Z") -> str:
    """Say a time in a zone (UTC where the zone is not known); empty when the value is no time."""
    found = moment(value)
    if found is None:
        return ""
    try:
        return found.astimezone(ZoneInfo(zone)).strftime(form)
    except (ZoneInfoNotFoundError, ValueError, OSError, OverflowError):
        return found.strftime(form)
