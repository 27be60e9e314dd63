# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dnf's history tells of packages that are installed, but not as a whole.

rpm counts a package as installed before its scriptlet has run, and goes on when that fails; only dnf's history knows of either.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import typing as t

from .errors import MaintenanceError
from .record import clean

HISTORY = "/var/lib/dnf/history.sqlite"
_DONE = 1
# Install, downgrade, obsolete, upgrade and reinstall: what a transaction brings.
_LAST_ITEMS = """
SELECT r.name, r.arch, r.epoch || ':' || r.version || '-' || r.release, last.trans_id, trans.state
FROM (SELECT item_id, MAX(trans_id) AS trans_id FROM trans_item WHERE action IN (1, 2, 4, 6, 9) GROUP BY item_id) AS last
JOIN rpm AS r ON r.item_id = last.item_id JOIN trans ON trans.id = last.trans_id"""
_SAID = "SELECT trans_id, line FROM console_output WHERE line LIKE '%scriptlet failed%' ORDER BY id"
_SCRIPTLET = re.compile(r"%(post|posttrans|triggerin|pre|pretrans)\((\S+)\) scriptlet failed, (.*)")

Evra = tuple[str, str, str]
"""Name, architecture and ``epoch:version-release``, without an epoch of 0."""


@contextlib.contextmanager
def copied(history: str = HISTORY) -> t.Iterator[str]:
    """Give a folder with a copy of the history, as dnf's ``persistdir``; to open it where it is would leave a trace."""
    with tempfile.TemporaryDirectory(prefix="ops_maintenance_dnf_") as folder:
        copy_into(folder, history)
        yield folder


def copy_into(folder: str, history: str = HISTORY) -> None:
    """Copy the history, with what of it is not yet in its main file."""
    for name in (history, f"{history}-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(name, folder)


def flags(history: str = HISTORY) -> dict[Evra, str]:
    """Return what is wrong with how each package came; a version that is no longer installed may be among them.

    :raises MaintenanceError: the history cannot be read.
    """
    with copied(history) as folder:
        path = os.path.join(folder, os.path.basename(history))
        if not os.path.exists(path) or not os.path.getsize(path):
            return {}  # dnf has made no transaction here
        try:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                items = connection.execute(_LAST_ITEMS).fetchall()
                said = connection.execute(_SAID).fetchall()
        except sqlite3.Error as error:
            raise MaintenanceError(f"dnf's history could not be read: {clean(str(error), 200)}. Look what dnf history list says.") from None
    return judge(items, said)


def judge(items: t.Iterable[tuple[str, str, str, int, int]], said: t.Iterable[tuple[int, str]]) -> dict[Evra, str]:
    """Judge the last transaction of each package version, and what scriptlets said in it.

    :param items: name, architecture, version, the transaction that brought it last, and the state of that.
    :param said: transaction and line of output.
    """
    failed: dict[tuple[int, str], str] = {}
    for transaction, line in said:
        match = _SCRIPTLET.search(line)
        if match:
            failed[transaction, match[2]] = f"its %{match[1]} scriptlet failed, {match[3]}"
    found: dict[Evra, str] = {}
    for name, arch, evr, transaction, state in items:
        plain = evr[2:] if evr.startswith("0:") else evr
        wrong = failed.get((transaction, f"{name}-{plain}.{arch}"), "")
        if state != _DONE:
            wrong = f"transaction {transaction} was interrupted or failed" + (f", {wrong}" if wrong else "")
        if wrong:
            found[name, arch, plain] = clean(wrong, 200)
    return found
