# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep logs as long as the rules say: compress, move to the archive, delete, by the date of their last record."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from .errors import MaintenanceError
from .host import Host
from .kept_state import keep_state
from .log_files import SUFFIX
from .log_folders import space_of
from .log_keeper import Keeper
from .log_retention_record import actions_of, findings_of, metrics_of, nothing_declared, summary_of
from .log_rules import parse_rules
from .log_work import Work
from .paths import ensure_private_folder, open_root, read_state
from .record import Outcome, clean, status_of

OPTIONS: dict[str, t.Any] = {
    "rules": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "root": {"type": "path", "required": True},
            "pattern": {"type": "list", "elements": "str", "required": True},
            "compress_after_days": {"type": "float"},
            "archive_to": {"type": "path"},
            "archive_after_days": {"type": "float"},
            "delete_after_days": {"type": "float"},
            "hold": {"type": "list", "elements": "str", "default": []},
            "compression": {"type": "str", "default": "gz", "choices": sorted(SUFFIX)},
            "timezone": {"type": "str", "default": "UTC"},
        },
    },
}

STATE = "log_retention.json"
LISTS = "log_retention_last.json"
LOCK = "log_retention.lock"


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Apply the rules once; in check mode, say what is due."""
    rules = parse_rules(params["rules"])
    for rule in rules:
        with open_root(rule.root, "rules[].root"):
            pass
        if rule.archive_to and os.path.lexists(rule.archive_to):
            with open_root(rule.archive_to, "rules[].archive_to"):
                pass
    known = read_state(params["state_dir"], STATE)
    before = space_of(rules)
    with contextlib.nullcontext() if check_mode else _only_one(params["state_dir"]):
        keeper = Keeper(known, host, params["deadline"], check_mode)
        works = [keeper.keep(rule) for rule in rules]
    after = before if check_mode else space_of(rules)
    actions = [action for work in works for action in actions_of(work, check_mode)]
    outcome = Outcome(
        subject=", ".join(dict.fromkeys(rule.root for rule in rules)) or "log files",
        operation="log_retention",
        status=status_of(actions, check_mode),
        summary=summary_of(works, before, after, check_mode),
        before=before,
        after=after,
        findings=[finding for work in works for finding in findings_of(work)] or [nothing_declared()],
        metrics=metrics_of(works, before, after),
        actions=actions,
    )
    if not check_mode:
        outcome.findings += keep_state(params["state_dir"], STATE, keeper.dates)
        if outcome.is_change:
            outcome.findings += keep_state(params["state_dir"], LISTS, _lists(works))
    return outcome


@contextlib.contextmanager
def _only_one(state_dir: str) -> t.Iterator[None]:
    ensure_private_folder(state_dir)
    lock_fd = os.open(os.path.join(state_dir, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MaintenanceError(f"Another run applies log rules on this host ({LOCK} is locked); wait for it.") from None
        yield
    finally:
        os.close(lock_fd)


def _lists(works: t.Sequence[Work]) -> dict[str, t.Any]:
    return {work.rule.root: {name: [clean(path) for path in step.done] for name, step in work.steps.items()} for work in works}
