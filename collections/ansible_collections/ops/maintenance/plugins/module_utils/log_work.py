# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was done, or is due, under the rules of log retention."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from .log_lines import strip_compression
from .log_rules import STEPS, Rule


@dataclass(frozen=True)
class LogFile:
    """A log file with the date that decides."""

    root: str
    relative: str
    status: os.stat_result
    last: float
    basis: str
    problem: str = ""

    @property
    def path(self) -> str:
        """The whole path."""
        return os.path.join(self.root, self.relative)

    @property
    def is_packed(self) -> bool:
        """Whether its name says that it is compressed."""
        return strip_compression(self.relative) != self.relative


@dataclass
class Step:
    """What was done, or is due, in one step of one rule."""

    done: list[str] = field(default_factory=list)
    size: int = 0
    size_after: int = 0
    deferred: list[str] = field(default_factory=list)


@dataclass
class Work:
    """What happened under one rule."""

    rule: Rule
    steps: dict[str, Step] = field(default_factory=lambda: {name: Step() for name in STEPS})
    held: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    renamed: list[str] = field(default_factory=list)
    no_files: set[str] = field(default_factory=set)
    on_hold: set[str] = field(default_factory=set)
    estimated: int = 0
    matched: int = 0
    settled: int = 0
    swept: int = 0
    folders_removed: int = 0
