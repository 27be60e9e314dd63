#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the benchmarks: one JSON document on standard output and in .cache/bench.json, a short table on standard error."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

# What each ratio is held against. "below": ours is this share of the other or less. "above": the other takes this many times ours.
AIMS: dict[str, tuple[str, float]] = {
    "weekly.hosts.20.steady.ratios.cpu": ("below", 0.5),
    "weekly.hosts.20.first.ratios.cpu": ("below", 0.5),
    "logs.access.ratios.goaccess_wall": ("above", 8.0),
    "logs.access.ratios.pipeline_wall": ("above", 1.0),
    "logs.json.ratios.pipeline_wall": ("above", 1.0),
    "logs.access.ratios.ours_memory_of_limit": ("below", 1.0),
    "logs.json.ratios.ours_memory_of_limit": ("below", 1.0),
    "postgresql.review.ratios.wall": ("above", 10.0),
}


def weekly(out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Control-node CPU and wall time of the weekly run."""
    import weekly as benchmark

    return benchmark.main(out, tuple(int(word) for word in options.hosts.split(",")))


def logs(out: Path, _options: argparse.Namespace) -> dict[str, Any]:
    """Log analysis against the documents' pipelines, goaccess, lnav and logwatch."""
    import logs as benchmark

    return benchmark.main(out)


def backup_verify(out: Path, _options: argparse.Namespace) -> dict[str, Any]:
    """One reading of a backup against tools one after another."""
    import backup_verify as benchmark

    return benchmark.main(out)


def report_scale(_out: Path, _options: argparse.Namespace) -> dict[str, Any]:
    """The report of a large fleet with a long history."""
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks/report_scale.py")], capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if not lines:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(lines[-1]))


def security(out: Path, _options: argparse.Namespace) -> dict[str, Any]:
    """The security review against Lynis on one host: time, and planted faults that each misses."""
    import security as benchmark

    return benchmark.main(out)


def postgresql(out: Path, _options: argparse.Namespace) -> dict[str, Any]:
    """Questions to PostgreSQL and a restore drill against Debian's tools."""
    import postgresql as benchmark

    return benchmark.main(out)


BENCHMARKS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "report_scale": report_scale,
    "backup_verify": backup_verify,
    "logs": logs,
    "postgresql": postgresql,
    "security": security,
    "weekly": weekly,
}


def machine() -> dict[str, Any]:
    """Say what was measured on."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": model,
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        # above zero before anything was started: others were working too, and wall times mean less
        "load_before": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """Say with what it was measured."""
    found = {name: importlib.metadata.version(name) for name in ("ansible-core", "sqlalchemy")}
    found["python"] = platform.python_version()
    for tool, words in (("goaccess", ["--version"]), ("lnav", ["-V"]), ("logwatch", ["--version"]), ("docker", ["--version"])):
        if shutil.which(tool):
            said = subprocess.run([tool, *words], capture_output=True, text=True, check=False).stdout
            found[tool] = said.splitlines()[0] if said else ""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    found["commit"] = commit.stdout.strip()
    return found


def ratios(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Find every ratio of the document, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{path}.{key}" if path else key
            if key == "ratios":
                yield from ((f"{place}.{name}", number) for name, number in inner.items())
            else:
                yield from ratios(inner, place)


def held(place: str, number: float) -> str:
    """Say whether a ratio reaches its aim, where it has one."""
    if place not in AIMS:
        return ""
    direction, aim = AIMS[place]
    reached = number <= aim if direction == "below" else number >= aim
    return f"{'reached' if reached else 'MISSED'}: {direction} {aim:g}"


def measure(names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmarks one after another; one that breaks does not hide the others."""
    document: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "benchmarks": {},
    }
    for name in names:
        began = time.perf_counter()
        print(f"bench: {name}", file=sys.stderr, flush=True)
        try:
            found = BENCHMARKS[name](options.out.parent / f"bench-{name}.json", options)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            found = {"error": str(error)}
        document["benchmarks"][name] = {**found, "took_seconds": round(time.perf_counter() - began, 1)}
    return document


def table(document: dict[str, Any]) -> str:
    """Write the ratios for people."""
    rows = [(place, f"{number:g}", held(place, number)) for place, number in ratios(document["benchmarks"])]
    rows += [(name, "failed", found["error"].strip().splitlines()[0]) for name, found in document["benchmarks"].items() if "error" in found]
    rows += [
        (name, "", "reached: its limits" if found["passed"] else "MISSED: its limits")
        for name, found in document["benchmarks"].items()
        if "passed" in found
    ]
    width = max((len(row[0]) for row in rows), default=0)
    return "\n".join(f"{place:{width}}  {number:>7}  {aim}".rstrip() for place, number, aim in rows)


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"which to run, all without: {', '.join(BENCHMARKS)}")
    parser.add_argument("--hosts", default="1,20", help="numbers of hosts of the weekly benchmark, by commas (1,20)")
    parser.add_argument("--out", type=Path, default=ROOT / ".cache/bench.json", help="file of the JSON document (.cache/bench.json)")
    options = parser.parse_args()
    unknown = sorted({*options.names} - {*BENCHMARKS})
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    document = measure(options.names or list(BENCHMARKS), options)
    text = json.dumps(document, indent=2)
    options.out.write_text(text + "\n")
    print(text)
    print(table(document), file=sys.stderr)
    return 1 if any("error" in found for found in document["benchmarks"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
