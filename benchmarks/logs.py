#!/usr/bin/env python3
"""Log analysis of an access log and of a JSON-lines log against grep, awk and sort, goaccess, lnav and logwatch.

Every contestant is whole processes, start to end, our judgement and its findings included; wall and CPU seconds come from the kernel.
lnav is asked the questions of the pipelines as SQL. Logwatch takes so long that it reads a smaller log, and only once.
Peak memory is an upper bound: the largest process times the number of processes; ours is also held against the 100 MB that it may take.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.ops.maintenance.plugins.module_utils import log_scan  # noqa: E402

ACCESS_BYTES = int(os.environ.get("BENCH_ACCESS_BYTES", 300_000_000))
JSON_BYTES = int(os.environ.get("BENCH_JSON_BYTES", 250_000_000))
LOGWATCH_BYTES = min(ACCESS_BYTES, 60_000_000)
ROUNDS = 3
START = 1_794_400_000
MEMORY_MIB = 100e6 / 2**20

OURS = """
import sys
sys.path.insert(0, {collections!r})
from datetime import datetime, timezone
from ansible_collections.ops.maintenance.plugins.module_utils import log_analysis
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
class FixedHost(Host):
    def now(self):
        return datetime.fromtimestamp({now}, timezone.utc)
params = {{name: option.get("default") for name, option in log_analysis.OPTIONS.items()}}
source = dict(name="log", paths=[sys.argv[1]], format="auto", timezone="UTC", silence_hours=24.0)
params.update(sources=[source], state_dir="/nonexistent", deadline=0.0, self_test=False)
outcome = log_analysis.run(params, True, FixedHost())
assert outcome.metrics[0].value == int(sys.argv[2]), outcome.summary
"""

# The commands that the maintenance documents give, for one file; each answers one question.
ACCESS_PIPELINE = r"""
awk '{print $1}' "$0" | sort | uniq -c | sort -nr | head -20
grep -c '" 5[0-9][0-9] ' "$0"
grep -c '" 401 ' "$0"
grep -c '" 429 ' "$0"
"""
JSON_PIPELINE = r"""
wc -l < "$0"
awk -F'"' '{print $8}' "$0" | sort | uniq -c | sort -nr
grep -i 'authentication.*failed' "$0" | wc -l
grep '"level": "ERROR"' "$0" | awk -F'"' '{print $16}' | sed 's/[0-9][0-9]*/N/g' | sort | uniq -c | sort -nr | head -20
"""

# The same questions for lnav, and the number of records, by which one sees that it read them all.
ACCESS_SQL = (
    "SELECT count(*) FROM access_log",
    "SELECT c_ip, count(*) AS n FROM access_log GROUP BY c_ip ORDER BY n DESC LIMIT 20",
    "SELECT count(*) FROM access_log WHERE sc_status BETWEEN 500 AND 599",
    "SELECT count(*) FROM access_log WHERE sc_status = 401",
    "SELECT count(*) FROM access_log WHERE sc_status = 429",
)
JSON_SQL = (
    "SELECT count(*) FROM bench_json",
    "SELECT log_level, count(*) FROM bench_json GROUP BY 1",
    "SELECT count(*) FROM bench_json WHERE log_body LIKE '%authentication%failed%'",
    "SELECT regexp_replace(log_body, '[0-9]+', 'N') AS t, count(*) AS n FROM bench_json WHERE log_level = 'error' GROUP BY t "
    "ORDER BY n DESC LIMIT 20",
)
JSON_FORMAT = {
    "$schema": "https://lnav.org/schemas/format-v1.schema.json",
    "bench_json": {
        "title": "Application",
        "json": True,
        "hide-extra": True,
        "line-format": [{"field": "timestamp"}, " ", {"field": "level"}, " ", {"field": "message"}],
        "timestamp-field": "timestamp",
        "level-field": "level",
        "body-field": "message",
    },
}
QUESTIONS = {"access": (ACCESS_PIPELINE, ACCESS_SQL), "json": (JSON_PIPELINE, JSON_SQL)}

Contestants = dict[str, tuple[list[str], int]]


def access_lines(chance: random.Random, moments: list[int]) -> str:
    """Requests of a week, most of them by few clients, as clients are."""
    octets = random.Random("clients").getrandbits  # noqa: S311 (the same clients in each batch)
    clients = [f"{octets(6) + 20}.{octets(8)}.{octets(8)}.{octets(8)}" for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(clients) + 1)]
    paths = ["/", "/api/work-orders", "/login", "/health", "/static/app.js", *(f"/api/work-orders/{n}" for n in range(3000))]
    agents = [
        f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{v}.0.0.0 Safari/537.36" for v in range(100, 130)
    ]
    count = len(moments)
    parts = zip(
        chance.choices(clients, weights, k=count),
        moments,
        chance.choices(["GET", "GET", "GET", "POST"], k=count),
        chance.choices(paths, k=count),
        chance.choices([200, 304, 301, 404, 500, 401, 429], [800, 80, 30, 50, 10, 5, 5], k=count),
        chance.choices(["-", "https://app.example.com/", "https://app.example.com/dashboard"], k=count),
        chance.choices(agents, k=count),
        strict=True,
    )
    return "".join(
        f'{client} - - [{time.strftime("%d/%b/%Y:%H:%M:%S", time.gmtime(moment))} +0000] "{verb} {path} HTTP/1.1" '
        f'{status} {moment % 90_000} "{referrer}" "{agent}"\n'
        for client, moment, verb, path, status, referrer, agent in parts
    )


def json_lines(chance: random.Random, moments: list[int]) -> str:
    """Records of a week of an application."""
    texts = {
        "INFO": lambda n: f"Work order {n} synchronised in {n % 900} ms",
        "DEBUG": lambda n: f"cache hit for key wo:{n}",
        "WARNING": lambda n: f"slow query took {n % 9000} ms on table work_orders",
        "ERROR": lambda n: (
            f"Timeout after {n % 9000} ms while reading visit {n:016x}",
            f"Authentication failed for user tech{n % 40} from 203.0.113.{n % 20}",
            f"upstream answered {n % 600} for {n}",
        )[n % 3],
    }
    lines = []
    for moment, level in zip(moments, chance.choices(list(texts), [80, 12, 6, 2], k=len(moments)), strict=True):
        number = chance.getrandbits(24)
        record = {
            "timestamp": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment))}.{number % 1_000_000:06d}+00:00",
            "level": level,
            "logger": f"app.{('api', 'auth', 'sync', 'db')[number % 4]}",
            "message": texts[level](number),
            "request_id": f"{chance.getrandbits(128):032x}",
            "user_id": number % 500,
            "duration_ms": number % 3000,
        }
        lines.append(json.dumps(record) + "\n")
    return "".join(lines)


def make(kind: str, path: Path, size: int) -> None:
    """Write a log of about that size that spans a week."""
    chance = random.Random(kind)  # noqa: S311
    write, line_bytes = {"access": (access_lines, 200), "json": (json_lines, 235)}[kind]
    total, batch = size // line_bytes, 20_000
    with path.open("w") as log:
        for first in range(0, total, batch):
            log.write(write(chance, [START + n * 604_800 // total for n in range(first, min(first + batch, total))]))


def measure(command: list[str], processes: int, output: Path) -> dict[str, float]:
    """Run a command and return what it and its children used; what it says goes to a file."""
    started = time.perf_counter()
    opening = (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    # Python ignores SIGPIPE, and what it starts would inherit that
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[opening], setsigdef=[signal.SIGPIPE])
    _pid, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "wall_seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mib": usage.ru_maxrss / 1024 * processes,
    }


def against(contestants: Contestants, folder: Path, count: int = ROUNDS) -> dict[str, Any]:
    """Let all run in turn, several rounds, and keep the best of each."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _round in range(count):
        for name, (command, processes) in contestants.items():
            rounds[name].append(measure(command, processes, folder / f"{name}.out"))
    result: dict[str, Any] = {name: {key: round(min(used[key] for used in tries), 3) for key in tries[0]} for name, tries in rounds.items()}
    result["ratios"] = {
        f"{name}_{kind}": round(result[name][f"{kind}_seconds"] / result["ours"][f"{kind}_seconds"], 2)
        for name in contestants
        if name != "ours"
        for kind in ("wall", "cpu")
    }
    result["ratios"]["ours_memory_of_limit"] = round(result["ours"]["memory_mib"] / MEMORY_MIB, 2)
    return result


class Log:
    """A log made for the benchmark, and what reads it."""

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        self.folder, self.kind = folder, kind
        self.path = folder / f"{kind}.log"
        subprocess.run([sys.executable, __file__, "--make", kind, str(self.path), str(size)], check=True)
        self.lines = int(subprocess.run(["wc", "-l", str(self.path)], capture_output=True, text=True, check=True).stdout.split()[0])

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_error: object) -> None:
        self.path.unlink()

    def facts(self) -> dict[str, int]:
        """Return how large it is."""
        return {"bytes": self.path.stat().st_size, "lines": self.lines}

    def ours(self) -> tuple[list[str], int]:
        """Return the command of our analysis, and how many processes it uses."""
        program = self.folder / "ours.py"
        program.write_text(OURS.format(collections=str(ROOT / "collections"), now=START + 604_800))
        processes = min(len(os.sched_getaffinity(0)), log_scan.WORKERS_LIMIT) + 1
        return [sys.executable, str(program), str(self.path), str(self.lines)], processes

    def lnav(self) -> list[str]:
        """Return the command that asks lnav."""
        formats = self.folder / "lnav/formats/bench/format.json"
        formats.parent.mkdir(parents=True, exist_ok=True)
        formats.write_text(json.dumps(JSON_FORMAT))
        asked = [word for question in QUESTIONS[self.kind][1] for word in ("-c", f";{question}", "-c", ":write-csv-to -")]
        return ["env", f"HOME={self.folder}", "lnav", "-N", "-n", "-q", "-I", str(self.folder / "lnav"), *asked, str(self.path)]

    def contestants(self) -> Contestants:
        """Return whoever can read the whole of it in reasonable time and is installed."""
        found: Contestants = {"ours": self.ours(), "pipeline": (["bash", "-c", QUESTIONS[self.kind][0], str(self.path)], 1)}
        if self.kind == "access" and shutil.which("goaccess"):
            report = str(self.folder / "goaccess.json")
            found["goaccess"] = (["goaccess", str(self.path), "--log-format=COMBINED", "--no-progress", "-o", report], 1)
        if shutil.which("lnav"):
            found["lnav"] = (self.lnav(), 1)
        return found


def whole_pass(folder: Path, kind: str, size: int) -> dict[str, Any]:
    """Measure the readers of one kind of log."""
    with Log(folder, kind, size) as log:
        contestants = log.contestants()
        result = {**log.facts(), **against(contestants, folder)}
        if "lnav" in contestants:
            said = (folder / "lnav.out").read_text().split()
            if str(log.lines) not in said[:2]:
                raise RuntimeError(f"lnav read another number of records than {log.lines}: {said[:2]}")
        return result


def logwatch(folder: Path) -> dict[str, Any]:
    """Measure logwatch, which takes logs by their place below a folder."""
    with Log(folder, "access", LOGWATCH_BYTES) as log:
        place = folder / "logs/apache2/access.log"
        place.parent.mkdir(parents=True)
        os.link(log.path, place)
        command = [
            "logwatch",
            "--service",
            "http",
            "--range",
            "all",
            "--detail",
            "med",
            "--logdir",
            str(folder / "logs"),
            "--output",
            "stdout",
        ]
        result = against({"ours": log.ours(), "logwatch": (command, 1)}, folder, 1)
        counted = re.search(r"in (\d+) responses", (folder / "logwatch.out").read_text(errors="replace"))
        if counted is None or int(counted.group(1)) != log.lines:
            raise RuntimeError(f"logwatch did not count {log.lines} requests")
        return {**log.facts(), **result}


def main(out: Path) -> dict[str, Any]:
    """Measure, write the result as JSON to ``out`` and return it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-logs-"))
    result: dict[str, Any] = {"processors": len(os.sched_getaffinity(0))}
    try:
        result["access"] = whole_pass(folder, "access", ACCESS_BYTES)
        result["json"] = whole_pass(folder, "json", JSON_BYTES)
        if shutil.which("logwatch"):
            result["access_small"] = logwatch(folder)
    finally:
        shutil.rmtree(folder)
    missing = [name for name in ("goaccess", "lnav", "logwatch") if not shutil.which(name)]
    if missing:
        result["not_installed"] = f"apt-get install {' '.join(missing)}"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        print(json.dumps(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist/bench-logs.json")), indent=2))
