#!/usr/bin/env python3
"""Write what the corruption campaign found into the table of docs/backup-levels.md.

usage: backup_levels.py LOG...   (.cache/host-tests/bookworm.log and trixie.log, both, after the campaign failed there)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "collections/ansible_collections/ops/maintenance/docs/backup-levels.md"
_FOUND = re.compile(r"^backup-levels \| (\d) \| (.+?) \| (.+?) \| (.+)$", re.M)


def found_in(logs: list[str]) -> dict[tuple[str, str], dict[int, str]]:
    """Return by format and fault what each release found."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    for text in logs:
        for release, name, fault, cell in _FOUND.findall(text):
            found.setdefault((name, fault), {})[int(release)] = cell.strip()
    return found


def written(document: str, found: dict[tuple[str, str], dict[int, str]]) -> str:
    """Return the document with those cells in its table; a format that it lacks gets a row at the end."""
    lines = document.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| format | bit flip |"))
    faults = _cells(lines[start])[1:]
    end = next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))
    rows = {cells[0]: dict(zip(faults, cells[1:], strict=True)) for cells in map(_cells, lines[start + 2 : end])}
    for (name, fault), cells in found.items():
        row = rows.setdefault(name, dict.fromkeys(faults, "-"))
        said = row[fault] if row[fault] != "-" else next(iter(cells.values()))
        both = {**dict(enumerate((said.split(" / ") * 2)[:2])), **cells}
        row[fault] = both[0] if both[0] == both[1] else f"{both[0]} / {both[1]}"
    table = [f"| {name} | {' | '.join(row[fault] for fault in faults)} |" for name, row in rows.items()]
    return "\n".join([*lines[: start + 2], *table, *lines[end:]]) + "\n"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    DOCUMENT.write_text(written(DOCUMENT.read_text(), found_in([Path(log).read_text() for log in sys.argv[1:]])))
