# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Shows how far maintenance is, in few lines
version_added: 0.1.0
author: ops.maintenance maintainers (@ops-maintenance)
description:
  - Shows phase, step (role), host counts, elapsed time and what is left of the maintenance window.
  - On a terminal one line at the bottom is kept current; elsewhere each step leaves one plain line when it ends.
  - Failures and findings that need attention are printed in full sentences as they come. What a waiver covers is shown, too.
  - Nothing needs it. The journal has everything it shows, and more.
  - Colours follow Ansible's settings, E(NO_COLOR) included.
requirements:
  - set as stdout in configuration - C(stdout_callback = ops.maintenance.progress) under C([defaults]) in C(ansible.cfg),
    or E(ANSIBLE_STDOUT_CALLBACK)
options:
  live:
    description:
      - Whether to keep a line current at the bottom of the terminal.
      - V(auto) does so where standard output is a terminal that can.
    type: str
    choices: [auto, never]
    default: auto
    env:
      - name: OPS_MAINTENANCE_PROGRESS_LIVE
    ini:
      - section: ops_maintenance
        key: progress_live
"""

import os
import shutil
import sys
import threading
import time
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase

from ansible_collections.ops.maintenance.plugins.module_utils.record import clean
from ansible_collections.ops.maintenance.plugins.plugin_utils.control import JOURNAL, RUN_ID
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal_lines import handled_how, message_of, phase_of
from ansible_collections.ops.maintenance.plugins.plugin_utils.progress import Board, wrapped

_MESSAGE_LIMIT = 4000
_REFRESH_SECONDS = 1.0
_COLORS = {"critical": constants.COLOR_ERROR, "warning": constants.COLOR_WARN, "unknown": constants.COLOR_WARN}


class LiveLine:
    """One line at the bottom of a terminal, redrawn every second, out of the way of everything else that is printed."""

    def __init__(self, display: Any, text: Any) -> None:
        self._text = text
        self._print = display.display
        self._lock = threading.RLock()
        self._drawn = False
        self._paused = False
        self._ended = threading.Event()
        self._pid = os.getpid()
        display.display = self._display  # warnings of Ansible itself come this way, too
        threading.Thread(target=self._keep_drawing, daemon=True).start()

    def _keep_drawing(self) -> None:
        while not self._ended.wait(_REFRESH_SECONDS):
            self.draw()

    def draw(self) -> None:
        """Show the current text."""
        with self._lock:
            if not self._paused and not self._ended.is_set():
                self._write("\r" + self._text() + "\x1b[K")
                self._drawn = True

    def pause(self, paused: bool) -> None:
        """Take the line away while somebody types, and bring it back afterwards."""
        with self._lock:
            self._paused = paused
            self._clear()

    def end(self) -> None:
        """Take the line away for good."""
        self._ended.set()
        with self._lock:
            self._clear()

    def _display(self, *args: Any, **kwargs: Any) -> Any:
        if os.getpid() != self._pid:  # a worker: its messages are sent to the main process
            return self._print(*args, **kwargs)
        with self._lock:
            self._clear()
            printed = self._print(*args, **kwargs)
            sys.stdout.flush()
            return printed

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        try:
            os.write(1, text.encode(sys.stdout.encoding or "ascii", "replace"))
        except OSError:  # the terminal went away; the run goes on
            self._ended.set()


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Shows the progress of a run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "ops.maintenance.progress"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._board = Board(time.monotonic())
        self._live: LiveLine | None = None
        self._play = ""
        self._is_named = False

    # what happens

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ARG002 - Ansible names it
        self._board = Board(time.monotonic())
        self._is_named = False
        if self._live is None and self._can_be_live():
            self._live = LiveLine(self._display, self._status)

    def v2_playbook_on_vars_prompt(self, *args: Any, **kwargs: Any) -> Any:
        self._pause(True)
        return super().v2_playbook_on_vars_prompt(*args, **kwargs)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if not self._is_named and os.environ.get(RUN_ID):
            self._is_named = True
            self._say(f"Run {os.environ[RUN_ID]}{' (check mode)' if play.check_mode else ''}")
        self._play = play.get_name().strip()
        hosts = play.get_variable_manager()._inventory.get_hosts(play.hosts)
        self._board.total = max(self._board.total, len(hosts))

    def v2_playbook_on_no_hosts_matched(self) -> None:
        self._say(f"No host matches the play {self._play}.", constants.COLOR_SKIP)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._say("No host is left to go on with.", constants.COLOR_ERROR)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002 - Ansible names it
        role = task._role.get_name().rpartition(".")[2] if task._role else ""
        step = self._board.enter(role or self._play, phase_of(task.name or ""), time.monotonic())
        self._pause(task.action.rpartition(".")[2] == "pause")
        if step:
            self._say(step)
        if self._display.verbosity:
            self._say(f"          {task.get_name()}")
        self._draw()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:  # noqa: ARG002 - Ansible names it
        self._board.host(host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        if "results" not in result.result or not (result.task.loop or result.task.loop_with):
            self._take(result)
        if result.task.action in constants._ACTION_DEBUG and "msg" in result.result:
            self._say(str(result.result["msg"]))
        self._draw()

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._take(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._failed(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002 - Ansible names it
        if not any(isinstance(item, dict) and item.get("failed") for item in result.result.get("results") or []):
            self._failed(result)
        self._draw()

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._say(self._board.unreachable(result.host.get_name(), message_of(result.result)), constants.COLOR_UNREACHABLE)

    def v2_runner_retry(self, result: Any) -> None:
        if self._display.verbosity:
            self._say(f"{result.host.get_name()} tries {result.task_name} again ({result.result.get('attempts')}).")

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002 - Ansible names it
        step = self._board.leave(time.monotonic())
        if self._live:
            self._live.end()
            self._live = None
        for line in [step, *self._board.summary(time.monotonic())]:
            if line:
                self._say(line, constants.COLOR_ERROR if line.startswith("Failed:") else None)
        journal = os.environ.get(JOURNAL, "")
        if os.path.exists(journal):
            self._display.display(f"Journal: {journal}")

    # what is shown

    def _take(self, result: Any) -> None:
        given = result.result
        self._handle_warnings(given)
        for line in given.get("maintenance_lines") or []:
            if line.get("kind") == "plan":
                self._board.plan(line)
        for record in given.get("maintenance_records") or [given.get("maintenance_record")]:
            if isinstance(record, dict):
                for state, sentence in self._board.record(result.host.get_name(), record):
                    self._say(sentence, _COLORS[state])

    def _failed(self, result: Any) -> None:
        self._take(result)
        if result.result.get("unreachable"):
            self.v2_runner_on_unreachable(result)
            return
        handled = handled_how(result.task, result.task_fields, result.result)
        said = self._board.failure(result.host.get_name(), result.task_name, message_of(result.result), bool(handled))
        self._say(said, constants.COLOR_WARN if handled else constants.COLOR_ERROR)

    def _say(self, text: str, color: str | None = None) -> None:
        for line in clean(text, _MESSAGE_LIMIT).splitlines():
            self._display.display(wrapped(line, self._width()) if len(line) > self._width() else line, color=color)

    def _status(self) -> str:
        return self._board.status(self._width(), time.monotonic(), time.time())

    @staticmethod
    def _width() -> int:
        return shutil.get_terminal_size((80, 24)).columns - 1

    def _can_be_live(self) -> bool:
        is_dumb = os.environ.get("TERM", "dumb") == "dumb"
        return self.get_option("live") == "auto" and sys.stdout.isatty() and not is_dumb

    def _draw(self) -> None:
        if self._live:
            self._live.draw()

    def _pause(self, paused: bool) -> None:
        if self._live:
            self._live.pause(paused)
