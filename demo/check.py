# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check what two runs on a fresh demo system found, did and wrote; say each thing that is not as it must be.

usage: check.py FOLDER

The last words of the demo come on standard input.
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))

from ansible_collections.ops.maintenance.tests.unit.plugins import schema

PLANTED = {
    ("backup.completeness", "warning"),
    ("backup.integrity", "critical"),
    ("logs.auth_failures", "warning"),
    ("security.brute_force", "warning"),
    ("security.certificate_expiry", "critical"),
    ("security.file_mode", "critical"),
}
DONE = {"maintenance_mode", "snapshot", "sqlite_upkeep", "log_retention", "serve", "leave"}


def main() -> int:
    folder = Path(sys.argv[1])
    first, second = [read(path) for path in sorted((folder / "journal").glob("weekly-*.jsonl"), key=lambda path: path.stat().st_mtime)]
    problems = [f"{what} was not found to be {state}" for what, state in sorted(PLANTED - findings(first))]
    problems += [f"{what} was not done" for what in sorted(DONE - changed(first))]
    problems += [f"the second run did {what} again" for what in sorted(changed(second))]
    problems += [f"{run[-1]['status']} is the end of a run" for run in (first, second) if run[-1].get("status") != "completed"]
    problems += [f"line {line['seq']}: {fault}" for run in (first, second) for line in run for fault in schema.faults(line)]
    for suffix in ("html", "md", "json"):
        if not (folder / "report" / f"latest.{suffix}").stat().st_size:
            problems.append(f"latest.{suffix} is empty")
    problems += said_wrong(sys.stdin.read(), folder)
    print("\n".join(problems) or "The demo found what was planted, did what was due, and did nothing twice.")
    return 1 if problems else 0


def said_wrong(words: str, folder: Path) -> list[str]:
    """Hold the last words against what lies there: which report to open, and what to remove to start afresh."""
    named = {path.suffix: path for path in map(Path, re.findall(r"^  (\S+/latest\.\w+)", words, re.MULTILINE))}
    problems = [f"the last words name {path}, which is no report of this run" for path in named.values() if not is_report(path, folder)]
    problems += [f"the last words name no latest{suffix}" for suffix in (".html", ".md", ".json") if suffix not in named]
    if "latest.html   open it in a browser\n" not in words:
        problems.append("the last words do not say what to open")
    afresh = re.search(r"Start afresh: rm -r (\S+)$", words.rstrip())
    if not afresh or Path(afresh.group(1)).resolve() != folder.resolve():
        problems.append("the last words do not end with what to remove to start afresh")
    return problems


def is_report(path: Path, folder: Path) -> bool:
    return path.is_file() and path.resolve().parent == (folder / "report").resolve()


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def findings(run: list[dict]) -> set[tuple[str, str]]:
    return {(found["id"], found["state"]) for line in run if line["kind"] == "record" for found in line["findings"]}


def changed(run: list[dict]) -> set[str]:
    return {line["operation"] for line in run if line["kind"] == "record" and line["status"] == "changed"}


if __name__ == "__main__":
    sys.exit(main())
