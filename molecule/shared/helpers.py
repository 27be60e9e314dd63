"""What scenarios' tests ask about the runs they follow: the journals that converge left on the control node.

from helpers import finding, last_run

def test_the_corrupt_backup_is_critical():
    assert finding("backup.checksum", host="db1")["state"] == "critical"
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def journal_dir() -> Path:
    """Folder of the scenario's journals, one file a run."""
    return Path(os.environ["OPS_MAINTENANCE_JOURNAL_DIR"])


def runs() -> list[Path]:
    """Journals of all runs so far, the oldest first."""
    return sorted(journal_dir().glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)


def lines(journal: Path | None = None) -> list[Line]:
    """All lines of a run's journal, of the last run when none is named."""
    path = journal or runs()[-1]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_kind(kind: str, journal: Path | None = None, **fields: Any) -> list[Line]:
    """Lines of one kind (`record`, `outcome` …) whose fields have these values: of_kind("record", host="db1")."""
    return [line for line in lines(journal) if line["kind"] == kind and all(line.get(name) == value for name, value in fields.items())]


def findings(finding_id: str = "", host: str = "", subject: str = "", journal: Path | None = None) -> list[Line]:
    """Findings of a run, each with its `host`, narrowed by what is given."""
    return [found for found in _all_findings(journal) if _fits(found, id=finding_id, host=host, subject=subject)]


def finding(finding_id: str, host: str = "", subject: str = "", journal: Path | None = None) -> Line:
    """Return the one finding that fits; anything but one is a failure that says what there was instead."""
    found = findings(finding_id, host, subject, journal)
    if len(found) != 1:
        known = sorted({f"{one['id']} on {one['host']}: {one['subject']} is {one['state']}" for one in _all_findings(journal)})
        raise AssertionError(f"{len(found)} findings {finding_id} {host} {subject}; the run has:\n" + "\n".join(known))
    return found[0]


def _all_findings(journal: Path | None) -> Iterator[Line]:
    for record in of_kind("record", journal):
        for found in record.get("findings", []):
            yield {**found, "host": record["host"]}


def _fits(found: Line, **wanted: str) -> bool:
    return all(found.get(name) == value for name, value in wanted.items() if value)
