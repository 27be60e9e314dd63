# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: journal
type: aggregate
short_description: Keeps what maintenance did and found, line by line, as it happens
version_added: 0.1.0
author: ops.maintenance maintainers (@ops-maintenance)
description:
  - Writes one JSON line for every record of this collection, flushed to disk and chained by hashes, into one file a run.
  - Covers success, failure, loop items, check mode, unreachable hosts and built-in tasks that fail inside the collection's
    roles. What C(docs/journal.md) of the collection describes is true of a run that was killed, up to its last line.
  - At the end it gives every planned host an outcome, keeps the run in the store and, where no report was made, writes one.
  - A playbook that uses nothing of this collection leaves no file. No error in here ever fails a run.
requirements:
  - enable in configuration - C(callbacks_enabled = ops.maintenance.journal) under C([defaults]) in C(ansible.cfg)
  - SQLAlchemy 2.0 or newer for the store
options:
  folder:
    description: Folder of the journals; created with mode 0700.
    type: path
    default: ~/.local/state/ops_maintenance/journal
    env:
      - name: OPS_MAINTENANCE_JOURNAL_DIR
    ini:
      - section: ops_maintenance
        key: journal_dir
  store_url:
    description:
      - SQLAlchemy URL of the store of all runs. Without it, the variable C(maintenance_store_url) of the inventory, and without
        that the file C(store.sqlite) in O(folder).
      - An empty text switches the store off.
    type: str
    env:
      - name: OPS_MAINTENANCE_STORE_URL
    ini:
      - section: ops_maintenance
        key: store_url
  waivers:
    description:
      - YAML file of waivers. Without it, C(waivers.yml) in the folder of the first inventory source, if there is one.
    type: path
    env:
      - name: OPS_MAINTENANCE_WAIVERS
    ini:
      - section: ops_maintenance
        key: waivers
  report_dir:
    description:
      - Folder for a report of the run, written only where no task of the run wrote one. Without it, the variable
        C(maintenance_report_dir) of the inventory.
    type: path
    env:
      - name: OPS_MAINTENANCE_REPORT_DIR
    ini:
      - section: ops_maintenance
        key: report_dir
"""

import functools
import gc
import getpass
import importlib
import itertools
import json
import os
import platform
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__ as ansible_core_version

from ansible_collections.ops.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.ops.maintenance.plugins.plugin_utils import journal_lines as lines
from ansible_collections.ops.maintenance.plugins.plugin_utils import waivers
from ansible_collections.ops.maintenance.plugins.plugin_utils.control import JOURNAL, RUN_ID, pid_namespace, process_started
from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import (
    JournalWriter,
    check_run_id,
    finding,
    journals,
    new_run_id,
    read_journal,
)
from ansible_collections.ops.maintenance.plugins.plugin_utils.steps import Stopwatch

_CATCH_UP = 50
_INCLUDES = ("include_role", "include_tasks")
_PREFIX = "ops.maintenance."
_ROOT = Path(__file__).resolve().parents[2]
_REPORT = f"ansible_collections.{_PREFIX}plugins.plugin_utils.report"


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _never_fails(hook: Callable[..., None]) -> Callable[..., None]:
    """Turn any error of a hook into a warning: the journal must not be what stops maintenance.

    What a task said and the journal could not keep is counted, and told at the end of the journal.
    """

    @functools.wraps(hook)
    def guarded(self: CallbackModule, *args: Any, **kwargs: Any) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self._lost += hook.__name__.startswith("v2_runner")
            said = (
                str(error) if isinstance(error, MaintenanceError) else f"{hook.__name__} met an unexpected {type(error).__name__}: {error}"
            )
            self._display.warning(f"Journal: {said}")

    return guarded


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Writes the journal of a run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ops.maintenance.journal"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given_id = os.environ.get(RUN_ID, "")
        self._reset()

    def _reset(self) -> None:
        self._writer: JournalWriter | None = None
        self._has_begun = False
        self._playbook = ""
        self._run_id = ""
        self._started = _now()
        self._waivers: list[waivers.Waiver] = []
        self._used_waivers: set[waivers.Waiver] = set()
        self._waiver_file = ""
        self._system_of: dict[str, str] = {}
        self._outcomes: dict[str, str] = {}
        self._dark: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._task_started: dict[tuple[str, str], str] = {}
        self._items_seen: dict[tuple[str, str], set[str]] = {}
        self._touched: set[str] = set()
        self._steps = Stopwatch()
        self._lost = 0
        self._has_report = False
        self._settings: dict[str, str] = {}
        self._extra_vars: dict[str, Any] = {}

    # beginning

    @_never_fails
    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._reset()
        self._playbook = str(playbook._file_name)
        os.environ.pop(JOURNAL, None)
        self._take_id(self._given_id)
        self._given_id = ""  # it names one run; a second playbook of the same command gets its own

    def _take_id(self, given: str) -> None:
        os.environ[RUN_ID] = self._run_id = new_run_id(self._cadence, datetime.now(UTC))
        if given:
            os.environ[RUN_ID] = self._run_id = check_run_id(given)
        os.environ[JOURNAL] = self._path

    @property
    def _cadence(self) -> str:
        name = Path(self._playbook).name.removeprefix(_PREFIX)
        return name.removesuffix(".yml").removesuffix(".yaml") or "run"

    @property
    def _path(self) -> str:
        return os.path.join(os.path.abspath(self.get_option("folder")), f"{self._run_id}.jsonl")

    @_never_fails
    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._extra_vars = dict(play.get_variable_manager().extra_vars)
        self._close_steps()
        roles = any(_role_name(role).startswith(_PREFIX) for role in play.roles)
        if roles or _is_inside(play.get_path()):
            self._begin()
        # Each task is a fork of this process: what is loaded by now is kept from its garbage collector, and so is not copied.
        gc.freeze()

    @_never_fails
    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002 - Ansible names it
        if not self._has_begun and _is_ours(task):
            self._begin()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    @_never_fails
    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if not self._has_begun:
            return
        name, now = host.get_name(), _now()
        self._task_started[name, task._uuid] = now
        role = _role_name(task._role)
        ended = self._steps.begin(name, role if role.startswith(_PREFIX) else "", _module_name(task) in _INCLUDES, now)
        if ended:
            self._step(ended)

    def _step(self, ended: dict[str, Any]) -> None:
        self._append("step", {"system": self._system_of.get(ended["host"], ""), **ended})

    def _close_steps(self) -> None:
        for ended in self._steps.close():
            self._step(ended)

    def _begin(self) -> None:
        """Create the journal once something of this collection takes part in the run."""
        if self._has_begun:
            return
        self._has_begun = True  # whatever happens now: it is tried, and complained about, once
        if os.path.lexists(self._path):
            self._display.warning(f"Journal: the run id {self._run_id} was used before; this run gets its own.")
            self._take_id("")
        self._writer = JournalWriter(self._path, self._run_id)
        self._append("run", self._run_line())
        self._load_waivers()

    def _run_line(self) -> dict[str, Any]:
        extra = self._extra_vars
        cli = context.CLIARGS
        job = extra.get("awx_job_id", extra.get("tower_job_id"))
        return {
            "cadence": self._cadence,
            "playbook": self._playbook,
            "check_mode": bool(cli.get("check")),
            "started": self._started,
            "control": {
                "host": socket.gethostname(),
                "user": _account(),
                "pid": os.getpid(),
                "pid_started": process_started(os.getpid()),
                "pid_namespace": pid_namespace(),
            },
            "performed_by": str(extra.get("awx_user_name") or extra.get("tower_user_name") or os.environ.get("SUDO_USER") or _account()),
            "job": None if job is None else {"id": str(job), "template": str(extra.get("awx_job_template_name", ""))},
            "versions": {
                "collection": _collection_version(),
                "ansible_core": ansible_core_version,
                "python": platform.python_version(),
            },
            "options": {
                "tags": list(cli.get("tags") or []),
                "skip_tags": list(cli.get("skip_tags") or []),
                "limit": str(cli.get("subset") or ""),
                "force_window": str(extra.get("maintenance_force_window") or ""),
            },
        }

    def _load_waivers(self) -> None:
        path = self.get_option("waivers") or waivers.beside(context.CLIARGS.get("inventory") or ())
        if not path:
            return
        self._waiver_file = path
        self._waivers, findings = waivers.load(path, datetime.now(UTC).date())
        if findings:
            summary = f"{len(findings)} entries of the waiver file waive nothing"
            given = {"subject": path, "operation": "waivers", "status": "ok", "summary": summary, "findings": findings}
            place = {"host": "localhost", "system": "", "role": "", "task": "", "phase": "", "check_mode": False, "item": ""}
            self._append("record", {**place, **lines.record_from(given, (self._started, _now()))})

    # results

    @_never_fails
    def v2_runner_on_ok(self, result: Any) -> None:
        self._result(result)

    @_never_fails
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002 - Ansible names it
        self._result(result, failed=True)

    @_never_fails
    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._result(result, failed=True)

    @_never_fails
    def v2_runner_on_skipped(self, result: Any) -> None:
        self._result(result)

    @_never_fails
    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._item(result)

    @_never_fails
    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._item(result, failed=True)

    def _item(self, result: Any, failed: bool = False) -> None:
        """Take one entry of a loop; Ansible tells of the same entry twice when it notified a handler."""
        key = (result.host.get_name(), result.task._uuid)
        content = json.dumps(result.result, sort_keys=True, default=str)
        seen = self._items_seen.setdefault(key, set())
        if content not in seen:
            seen.add(content)
            self._take(result, failed, lines.item_of(result.result))
            self._task_started[key] = _now()

    def _result(self, result: Any, failed: bool = False) -> None:
        key = (result.host.get_name(), result.task._uuid)
        was_told_by_item = self._items_seen.pop(key, None) is not None
        self._steps.end(key[0], _now())
        if not was_told_by_item:
            self._take(result, failed, "")
        self._task_started.pop(key, None)

    def _take(self, result: Any, failed: bool, item: str) -> None:
        given = result.result
        records = given.get("maintenance_records") or [given[key] for key in ("maintenance_record",) if key in given]
        others = [line for line in given.get("maintenance_lines") or [] if lines.is_other(line)]
        if records or others:
            self._begin()
        if self._writer is None:
            return
        self._settings.update(given.get("maintenance_settings") or {})
        handled = lines.handled_how(result.task, result.task_fields, given) if failed else ""
        for other in others:
            self._other(other, result.host.get_name())
        for record in self._records(result, records, failed, handled):
            self._record(result, record, item, handled)
        if given.get("unreachable"):
            self._dark[result.host.get_name()] = lines.message_of(given)
        elif failed and not handled:
            self._failed[result.host.get_name()] = lines.message_of(given)

    def _records(self, result: Any, records: list[Any], failed: bool, handled: str) -> Iterator[dict[str, Any]]:
        given, host = result.result, result.host.get_name()
        times = (self._task_started.get((host, result.task._uuid), _now()), _now())
        operation = _module_name(result.task)
        for record in records:
            yield lines.record_from(record, times)
        if records:
            return
        if given.get("unreachable"):
            yield lines.unreachable(host, lines.message_of(given), times)
        elif failed and _is_ours(result.task):
            yield lines.failure(operation, host, lines.message_of(given), handled, times)
        elif "censored" in given and _resolved(result.task).startswith(_PREFIX):
            yield lines.hidden(operation, host, times)

    def _record(self, result: Any, record: dict[str, Any], item: str, handled: str) -> None:
        host = result.host.get_name()
        name = str(result.task_fields.get("name") or result.task.name or "")
        self._touched.add(host)
        self._has_report = self._has_report or record["operation"] == "report"
        place = {
            "host": host,
            "system": self._system_of.get(host, ""),
            "role": _role_name(result.task._role),
            "task": name,
            "phase": lines.phase_of(name),
            "check_mode": bool(result.task_fields.get("check_mode")),
            "item": item,
        }
        if handled:
            place["handled"] = handled
        self._used_waivers |= waivers.used(record["findings"], self._waivers)
        self._append("record", {**place, **record, "findings": waivers.apply(record["findings"], self._waivers)})

    def _other(self, given: dict[str, Any], host: str) -> None:
        line = lines.other_line(given, host, self._system_of)
        if given["kind"] == "plan":
            self._system_of.update(dict.fromkeys(line["hosts"], line["system"]))
        if given["kind"] == "outcome":
            self._outcomes[line["host"]] = line["outcome"]
        self._append(given["kind"], line)

    def _append(self, kind: str, fields: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.append(kind, fields)

    # end

    @_never_fails
    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._writer is None:
            return
        self._close_steps()
        self._close(self._writer, stats)
        self._keep_and_report()

    def _close(self, writer: JournalWriter, stats: Any) -> None:
        dark = {**dict.fromkeys(stats.dark, "The host did not answer."), **self._dark}
        failed = {**dict.fromkeys(stats.failures, "A task failed."), **self._failed}
        for line in lines.missing_outcomes(self._system_of, self._outcomes, dark, failed, self._touched):
            self._outcomes[line["host"]] = line["outcome"]
            self._append("outcome", line)
        unused = waivers.unused(self._waivers, self._used_waivers, self._waiver_file)
        if unused:
            self._append("record", self._own_line(self._waiver_file, "waivers", unused))
        if self._lost:
            self._append("record", self._lost_line())
        self._append("end", lines.end(self._outcomes, bool(stats.dark or stats.failures), _now()))
        writer.close()
        self._writer = None

    def _lost_line(self) -> dict[str, Any]:
        summary = f"{self._lost} results of tasks could not be kept in the journal; the run has warned of each."
        lost = finding(
            "journal.lost", "unknown", self._path, summary, "Correct what the warnings name, such as a full disk, and run again."
        )
        return self._own_line(self._path, "journal", lost)

    def _own_line(self, subject: str, operation: str, found: dict[str, Any]) -> dict[str, Any]:
        """Make a record of what the journal itself has to say."""
        given = {"subject": subject, "operation": operation, "status": "ok", "summary": found["summary"], "findings": [found]}
        place = {"host": "localhost", "system": "", "role": "", "task": "", "phase": "", "check_mode": False, "item": ""}
        return {**place, **lines.record_from(given, (_now(), _now()))}

    @property
    def _store_url(self) -> str:
        given = self.get_option("store_url")
        if given is None:
            given = self._settings.get("store_url")
        return f"sqlite:///{Path(self._path).with_name('store.sqlite')}" if given is None else str(given)

    @_never_fails
    def _keep_and_report(self) -> None:
        try:
            if self._store_url:
                from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store  # SQLAlchemy takes its time

                with Store(self._store_url) as store:
                    store.save_run(read_journal(self._path).lines)
                    self._catch_up(store)
        finally:
            self._report()

    @_never_fails
    def _catch_up(self, store: Any) -> None:
        """Keep earlier runs that could not do so themselves: they were killed, or the store did not answer."""
        for path in itertools.islice(journals(os.path.dirname(self._path)), _CATCH_UP):
            if not store.has_run(path.stem):
                journal = read_journal(str(path))
                if journal.broken_at:
                    self._display.warning(
                        f"Journal: {path} is not kept in the store: line {journal.broken_at} does not fit, {journal.broken_why}."
                    )
                elif journal.lines and journal.state != "running":
                    store.save_run(journal.lines)

    @_never_fails
    def _report(self) -> None:
        folder = self.get_option("report_dir") or self._settings.get("report_dir")
        if folder and not self._has_report:
            written = importlib.import_module(_REPORT).write_reports(self._path, folder, self._store_url)
            self._display.display(f"Report: {written.get('html') or folder}")


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@functools.cache
def _collection_version() -> str:
    """Return the version of this collection, installed or from its sources."""
    for name, keys in (("MANIFEST.json", ("collection_info", "version")), ("galaxy.yml", ("version",))):
        try:
            value = yaml.safe_load((_ROOT / name).read_text(encoding="utf-8"))
            return str(functools.reduce(lambda found, key: found[key], keys, value))
        except (OSError, KeyError, TypeError, yaml.YAMLError):
            continue
    return ""


def _is_inside(path: str | None) -> bool:
    """Whether a place such as ``/path/tasks/main.yml:3`` lies in this collection."""
    return bool(path) and _ROOT in Path(os.path.realpath(str(path).rpartition(":")[0])).parents


def _is_ours(task: Any) -> bool:
    return _role_name(task._role).startswith(_PREFIX) or _resolved(task).startswith(_PREFIX) or _is_inside(task.get_path())


def _role_name(role: Any) -> str:
    return str(role.get_name()) if role is not None else ""


def _resolved(task: Any) -> str:
    return str(task.resolved_action or task.action)


def _module_name(task: Any) -> str:
    return _resolved(task).rpartition(".")[2]
