# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answer every question about a log in one pass over it, in constant memory.

Python is slow by the line and fast by the block. So a block of whole lines is taken apart by one regular expression
that fits the lines exactly, and the columns are counted by C code (:mod:`.log_json_blocks`, :mod:`.log_access_blocks`).
What does not fit goes line by line (:mod:`.log_line_counter`), which alone defines what a line means.
"""

from __future__ import annotations

import math
import typing as t

from .log_access import Network
from .log_access_blocks import AccessBlocks
from .log_json_blocks import JsonBlocks
from .log_line_counter import LineCounter
from .log_lines import Clock

_FAST: dict[str, t.Callable[[LineCounter], AccessBlocks | JsonBlocks]] = {"access": AccessBlocks, "json": JsonBlocks}


class LogCounter(LineCounter):
    """Counts the lines of one log (or a part of it) into a tally."""

    def __init__(self, form: str, clock: Clock, since: float = 0.0, until: float = math.inf, proxies: t.Sequence[Network] = ()) -> None:
        super().__init__(form, clock, since, until, proxies)
        self._blocks = _FAST[form](self) if form in _FAST else None

    def add(self, block: bytes) -> None:
        """Count the lines of a block, which holds whole lines."""
        if not block.endswith(b"\n"):
            block += b"\n"
        if self._blocks:
            block = self._blocks.take(block)
        self.add_lines(block)
        self.tally.bound()
