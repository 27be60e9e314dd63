# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run shows of itself: counts and sentences, without a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.ops.maintenance.plugins.module_utils.record import clean

_SAME_LIMIT = 5
_SHOWN = ("warning", "critical", "unknown")
_WORDS = {"warning": "Warning", "critical": "Critical", "unknown": "Unknown"}


@dataclass
class Step:
    """One stretch of tasks of the same role, or of the same play outside roles."""

    name: str
    phases: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    is_worth_a_line: bool = False


class Board:
    """Counts what the hosts of a run do.

    :param started: seconds of a steady clock.
    """

    def __init__(self, started: float) -> None:
        self.started = started
        self.step = Step("")
        self.phase = ""
        self.total = 0
        self.failed: set[str] = set()
        self.attention: set[str] = set()
        self.seen: set[str] = set()
        self.planned: set[str] = set()
        self._gone: set[str] = set()
        self._window_ends: dict[str, float] = {}
        self._sentences: set[str] = set()
        self._said: Counter[tuple[str, str]] = Counter()

    def plan(self, line: Mapping[str, Any]) -> None:
        """Take the plan of a system: its window and its hosts."""
        self.planned.update(str(name) for name in line.get("hosts") or [])
        end = (line.get("window") or {}).get("end")
        try:
            self._window_ends[str(line.get("system"))] = datetime.fromisoformat(end).timestamp()
        except (TypeError, ValueError):
            self._window_ends.pop(str(line.get("system")), None)

    def enter(self, step: str, phase: str, now: float) -> str:
        """Go on to a task of a step.

        :returns: the line about the step that this one ends, empty where there is nothing to say.
        """
        line = ""
        if step != self.step.name:
            line = self.leave(now)
            self.step = Step(step)
        self.phase = phase or self.phase
        if phase and phase not in self.step.phases:
            self.step.phases.append(phase)
        return line

    def leave(self, now: float) -> str:
        """End the step."""
        step, self.step, self.phase = self.step, Step(""), ""
        if not step.is_worth_a_line:
            return ""
        what = f"{step.name} ({', '.join(step.phases)})" if step.phases else step.name
        return f"{elapsed(now - self.started):>8}  {clean(what, 40):<40} {self.counts(step.hosts)}"

    def host(self, name: str) -> None:
        """A host takes part in the step."""
        self.seen.add(name)
        self.step.hosts.add(name)

    def record(self, host: str, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Take a record of a module.

        :returns: (state, sentence) of each finding a person should see; the same finding only for the first few hosts.
        """
        self.step.is_worth_a_line = True
        sentences = []
        for found in record.get("findings") or []:
            state = found.get("state")
            if state not in _SHOWN:
                continue
            self.attention.add(host)
            sentence = _finding_sentence(host, found)
            if sentence in self._sentences:
                continue
            key = (str(found.get("id")), str(state))
            self._said[key] += 1
            if self._said[key] <= _SAME_LIMIT:
                self._sentences.add(sentence)
                sentences.append((state, sentence))
        return sentences

    def failure(self, host: str, task: str, message: str, handled: bool) -> str:
        """Take a failed task.

        :returns: the sentence about it.
        """
        self.step.is_worth_a_line = True
        if not handled:
            self.failed.add(host)
        where = f"{self.step.name}, {task}" if self.step.name else task
        ending = " The run goes on with it." if handled else ""
        return _sentence(f"{_name(host)} failed in {clean(where, 100)}: {_one_line(message)}") + ending

    def unreachable(self, host: str, message: str) -> str:
        """Take a host that does not answer.

        :returns: the sentence about it, only the first time.
        """
        self.step.is_worth_a_line = True
        self.failed.add(host)
        if host in self._gone:
            return ""
        self._gone.add(host)
        return _sentence(f"{_name(host)} cannot be reached: {_one_line(message)}")

    def counts(self, hosts: set[str]) -> str:
        """Count hosts in words: ``10 ok, 1 attention, 1 failed``; without the control node where there is a plan."""
        hosts = self._counted(hosts)
        failed = len(hosts & self.failed)
        attention = len(hosts & self.attention - self.failed)
        parts = [f"{len(hosts) - failed - attention} ok"]
        parts += [f"{count} {word}" for count, word in ((attention, "attention"), (failed, "failed")) if count]
        return ", ".join(parts)

    def _counted(self, hosts: set[str]) -> set[str]:
        return hosts & (self.planned | self.failed | self.attention) if self.planned else hosts

    def status(self, width: int, now: float, clock: float) -> str:
        """Say where the run is, in one line that fits; what matters least is left out first.

        :param clock: seconds since the epoch, to say what is left of the window.
        """
        where = ": ".join(part for part in (self.step.name, self.phase) if part) or "starting"
        seen = len(self._counted(self.seen))
        hosts = f"{seen}/{max(len(self.planned) or self.total, seen)} hosts"
        parts = [clean(where, 30).replace("\n", " "), hosts, self.counts(self.seen), elapsed(now - self.started), self._left(clock)]
        parts = [part for part in parts if part]
        while len(parts) > 1 and len("  ".join(parts)) > width:
            parts.pop(1)
        return "  ".join(parts)[:width]

    def _left(self, clock: float) -> str:
        if not self._window_ends:
            return ""
        left = min(self._window_ends.values()) - clock
        return f"{elapsed(left)} of window left" if left >= 0 else f"window over by {elapsed(-left)}"

    def summary(self, now: float) -> list[str]:
        """Sum the run up, for its end."""
        lines = [f"Ended after {elapsed(now - self.started)}: {_hosts(len(self._counted(self.seen)))}, {self.counts(self.seen)}."]
        for (found_id, state), count in sorted(self._said.items()):
            if count > _SAME_LIMIT:
                lines.append(f"{found_id} ({state}) was found {count} times; the first {_SAME_LIMIT} are shown above.")
        if self.failed:
            shown = sorted(self.failed)
            more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
            lines.append(f"Failed: {', '.join(clean(name, 60) for name in shown[:20])}{more}.")
        return lines


def elapsed(seconds: float) -> str:
    """Say a duration as a clock does: ``4:05``, ``1:04:05``."""
    hours, rest = divmod(max(0, int(seconds)), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def wrapped(text: str, width: int, indent: str = "          ") -> str:
    """Break a sentence into lines that fit, the later ones indented; words longer than a line are cut."""
    lines = textwrap.wrap(text, max(20, width), subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def _finding_sentence(host: str, found: Mapping[str, Any]) -> str:
    said = _sentence(_one_line(str(found.get("summary", ""))))
    advice = _sentence(_one_line(str(found.get("advice", ""))))
    return f"{_WORDS[found['state']]} on {_name(host)} ({_name(found.get('id'))}): {said} {advice}".rstrip()


def _name(value: Any) -> str:
    return clean(" ".join(str(value).split()), 100)


def _one_line(text: str) -> str:
    return " ".join(clean(text).split()) or "no message"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
