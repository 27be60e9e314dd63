# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of findings says one thing of each, and each table of it has rows of one width."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "collections/ansible_collections/ops/maintenance/docs/findings.md"


def tables() -> list[list[list[str]]]:
    """Return the cells of every table, its heading first."""
    blocks = re.findall(r"(?:^\|.*\n?)+", PAGE.read_text(encoding="utf-8"), re.M)
    return [[re.split(r"(?<!\\)\|", row)[1:-1] for row in block.splitlines()] for block in blocks]


def test_no_finding_stands_twice_in_a_table():
    assert tables()
    assert [first for table in tables() for first, count in Counter(row[0] for row in table).items() if count > 1] == []


def test_every_row_fits_its_table():
    assert [row[0] for table in tables() for row in table if len(row) != len(table[0])] == []
