# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say operations and steps as a person would: the records keep their short names."""

from __future__ import annotations

from . import report_values as v

_OPERATIONS = {
    "analyze": "renew the planner's statistics",
    "archive": "move logs to the archive",
    "backup_proof": "prove the backup",
    "checkpoint": "empty the write-ahead log",
    "compress": "compress logs",
    "connect": "connect",
    "copy": "copy the database",
    "correct_mode": "correct owner and mode",
    "delete": "delete old logs",
    "downgrade": "put packages back",
    "emergency_backup": "make an emergency backup",
    "install": "install",
    "journal_mode": "set the journal mode",
    "keep_evidence": "keep the evidence",
    "leave": "leave maintenance mode",
    "lock": "lock the host",
    "maintenance_mode": "enter maintenance mode",
    "prune": "remove an old snapshot",
    "reboot": "reboot",
    "recover": "undo an interrupted transaction",
    "reindex": "rebuild the indexes",
    "remove_page": "take the maintenance page away",
    "restart": "restart",
    "restore": "restore from a backup",
    "restore_database": "put the database back",
    "restore_file": "put the file back",
    "restore_files": "put files back",
    "resume": "resume",
    "rotate": "rotate logs",
    "run": "run the site's command",
    "serve": "start the services again",
    "show_page": "show the maintenance page",
    "start": "start",
    "stop": "stop",
    "suspend": "suspend",
    "sweep": "remove leftovers",
    "take": "take the snapshot",
    "tidy": "tidy up after an interrupted run",
    "upgrade": "upgrade",
    "vacuum": "give unused space back",
}


def operation(name: str) -> str:
    """Say what an action does; one without words of its own keeps its name."""
    return _OPERATIONS.get(name, name.replace("_", " "))


def change(what: str, subject: str, summary: str) -> str:
    """Say an action in one line."""
    return f"{operation(what)}: {subject}" + (f" ({summary})" if summary else "")


def deferred(what: str, subject: str) -> str:
    """Say what is left for the next maintenance."""
    return v.text(f"deferred from this run: {operation(what)}: {subject}")
