#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the report of a fleet with a long history, and print the result as JSON.

A store of HOSTS hosts and WEEKS weeks is made first (not measured). What is measured is what a user waits for: reading the newest
journal, the history from the store, and writing HTML, Markdown and JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.ops.maintenance.plugins.plugin_utils.journal import read_journal  # noqa: E402
from ansible_collections.ops.maintenance.plugins.plugin_utils.report import write_reports  # noqa: E402
from ansible_collections.ops.maintenance.plugins.plugin_utils.store import Store  # noqa: E402
from ansible_collections.ops.maintenance.tests.unit.plugins.plugin_utils.sample_runs import START, SampleRun, maintain, timedelta  # noqa: E402

FAULTS = ("disk", "corrupt", "settings", "errors", "certificate", "mode", "journal", "deferred")
LIMIT_SECONDS, LIMIT_BYTES = 10.0, 5_000_000


def faults(number: int, week: int) -> frozenset[str]:
    """One host in ten has faults, which move on from week to week."""
    if (number + week) % 10:
        return frozenset()
    return frozenset(FAULTS[index] for index in range(len(FAULTS)) if (number + index + week) % 3 == 0)


def run_of(week: int, count: int) -> SampleRun:
    """Make the run of one week: four systems that share the hosts."""
    run = SampleRun(start=START + timedelta(days=7 * week)).opened()
    systems = {f"system{part}": [f"host{n:04d}.example.org" for n in range(part, count, 4)] for part in range(4)}
    for system, hosts in systems.items():
        run.plan(system, hosts)
    for system, hosts in systems.items():
        for host in hosts:
            number = int(host[4:8])
            maintain(run, system, host, week, faults(number, week), pace=0.02)
            run.outcome(system, host, "unreachable" if number % 333 == 7 else "completed")
    return run.ended()


def journals(folder: Path, weeks: int, hosts: int) -> Iterator[Path]:
    """Write the journals, oldest first."""
    for week in range(weeks):
        yield run_of(week, hosts).write(folder)


def main() -> int:
    """Make the data, measure, and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hosts", type=int, default=1000)
    options.add_argument("--weeks", type=int, default=52)
    options.add_argument("--keep", type=Path, help="folder to leave the reports in")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store.sqlite"
        began = time.perf_counter()
        with Store(url) as store:
            for path in journals(Path(folder), given.weeks, given.hosts):
                store.save_run(read_journal(str(path)).lines)
        made = time.perf_counter()
        paths = write_reports(str(path), str(given.keep or Path(folder) / "report"), url)
        done = time.perf_counter()
        size = {kind: Path(written).stat().st_size for kind, written in paths.items()}
    result = {
        "benchmark": "report_scale",
        "hosts": given.hosts,
        "weeks": given.weeks,
        "prepare_seconds": round(made - began, 2),
        "seconds": round(done - made, 2),
        "bytes": size,
        "limit_seconds": LIMIT_SECONDS,
        "limit_html_bytes": LIMIT_BYTES,
        "passed": done - made < LIMIT_SECONDS and size["html"] < LIMIT_BYTES,
    }
    print(json.dumps(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
