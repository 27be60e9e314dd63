# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long each role takes on each host: from its first task to the beginning of what follows, whatever its tasks are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Line = dict[str, Any]


@dataclass
class _Step:
    role: str
    started: str
    finished: str
    tasks: int = 0


@dataclass
class Stopwatch:
    """Follows the tasks of each host and tells each step once it is over.

    An include belongs to what it includes, so that the time Ansible takes to load a role counts for that role.
    """

    _current: dict[str, _Step] = field(default_factory=dict)
    _included: dict[str, str] = field(default_factory=dict)

    def begin(self, host: str, role: str, is_include: bool, now: str) -> Line | None:
        """Take the start of a task; return the step that this ends, if it does."""
        if is_include:
            self._included.setdefault(host, now)
            return None
        begun = self._included.pop(host, now)
        current = self._current.get(host)
        ended = None
        if current is None or current.role != role:
            ended = self._end(host, begun)
            current = self._current[host] = _Step(role, begun, now)
        current.tasks += 1
        return ended

    def end(self, host: str, now: str) -> None:
        """Take the end of a task."""
        if host in self._current:
            self._current[host].finished = now

    def close(self) -> list[Line]:
        """Return the steps that are still open, which ended with their last task: a play is over."""
        self._included.clear()
        ended = [self._end(host, step.finished) for host, step in list(self._current.items())]
        return [line for line in ended if line is not None]

    def _end(self, host: str, now: str) -> Line | None:
        step = self._current.pop(host, None)
        if step is None or not step.role:
            return None
        return {"host": host, "role": step.role, "started": step.started, "finished": now, "tasks": step.tasks}
