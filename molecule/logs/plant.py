#!/usr/bin/env python3
"""Logs of a small system: ``twin`` writes healthy ones, ``faults`` the same with what has to be found, ``later`` what comes after a run."""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path

LOGS, CONTAINERS = Path("/srv/logs"), Path("/srv/containers")
NOW = time.time()


def stamp(minutes: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return time.strftime(form, time.gmtime(NOW - minutes * 60))


def write(name: str, lines: list[str], folder: Path | None = None) -> None:
    path = (folder or LOGS) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")


def record(minutes: float, level: str, message: str) -> str:
    return json.dumps({"timestamp": stamp(minutes, "%Y-%m-%dT%H:%M:%SZ"), "level": level, "message": message})


def syslog(minutes: float, text: str) -> str:
    return f"{stamp(minutes, '%b %e %H:%M:%S')} web1 {text}"


def access(minutes: float, status: int, seconds: float, client: int) -> str:
    when = stamp(minutes, "%d/%b/%Y:%H:%M:%S +0000")
    return f'192.0.2.{client} - - [{when}] "GET /orders/{client} HTTP/1.1" {status} 512 "-" "Mozilla/5.0" {seconds:.3f}'


def postgresql(minutes: float, text: str) -> str:
    return f"{stamp(minutes)}.123 UTC [4711] app@shop {text}"


def container(minutes: float, text: str) -> str:
    return json.dumps({"log": text + "\n", "stream": "stderr", "time": stamp(minutes, "%Y-%m-%dT%H:%M:%S.123456789Z")})


HOSTILE = [
    "\x1b]0;owned\x07\x1b[2J\x1b[31mroot@host:~# ",
    "<script>alert(document.cookie)</script><img src=x onerror=alert(1)>",
    "'; DROP TABLE runs; --",
    "\u202egnp.exe \udcff\udcfe {{ lookup('pipe', 'id') }} $(id) `id`",
]


def faults() -> dict[str, list[str]]:
    """What is added to the healthy lines, by file."""
    return {
        "app/app.jsonl": [record(90, "ERROR", f"Timeout after {n} ms while reading order {n}") for n in range(150)],
        "auth.log": [
            syslog(60, f"sshd[{n}]: Failed password for invalid user admin{n % 3} from 203.0.113.7 port 22 ssh2") for n in range(40)
        ],
        "access.log": [access(45, 502, 4.5, n % 50) for n in range(60)],
        "error.log": [
            f'{stamp(45, "%Y/%m/%d %H:%M:%S")} [error] 7#7: *{n} limiting requests, excess: 5.2 by zone "api", client: 203.0.113.9, server: _'
            for n in range(10)
        ],
        "kern.log": [
            syslog(30, "kernel: [ 8000.100000] worker invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0"),
            syslog(30, "kernel: [ 8000.200000] Out of memory: Killed process 4242 (worker) total-vm:9000000kB, anon-rss:8000000kB"),
            syslog(20, "kernel: [ 8600.000000] blk_update_request: I/O error, dev vda, sector 123456 op 0x0:(READ)"),
        ],
        "postgresql/postgresql.log": [
            line
            for n in range(10)
            for line in (
                postgresql(15, "ERROR:  deadlock detected"),
                postgresql(15, f"DETAIL:  Process {n} waits for ShareLock on transaction {n}; blocked by process 1."),
                "\tProcess 1: UPDATE stock SET n = 'out of memory'",
                postgresql(15, "HINT:  See server log for query details."),
            )
        ],
        "uploads/uploads.log": [*(f"{stamp(10)} ERROR name {text}" for text in HOSTILE), f"{stamp(9)} ERROR long " + "x" * 10_000_000],
    }


def healthy() -> dict[str, list[str]]:
    """Lines of a good day, by file."""
    return {
        "app/app.jsonl": [record(120 - n / 10, "INFO", f"Order {n} stored") for n in range(1000)],
        "auth.log": [syslog(100, "sshd[1]: Accepted publickey for deploy from 192.0.2.10 port 22 ssh2")] * 10,
        "access.log": [access(100, 200, 0.1, n % 50) for n in range(500)],
        "error.log": [f"{stamp(100, '%Y/%m/%d %H:%M:%S')} [notice] 7#7: signal process started"] * 10,
        "kern.log": [syslog(100, "kernel: [ 100.000000] EXT4-fs (vda1): mounted filesystem with ordered data mode")],
        "postgresql/postgresql.log": [postgresql(100, "LOG:  checkpoint complete: wrote 3 buffers")] * 10,
        "postgresql/postgresql.csv": [
            f'{stamp(100)}.123 UTC,"app","shop",1,"192.0.2.7:5",1.1,1,"",{stamp(100)} UTC,3/12,0,LOG,00000,"connection\nauthorized",,,,,,,,,"",,0'
        ],
        "uploads/uploads.log": [f"{stamp(100)} INFO stored"] * 10,
    }


def begin(with_faults: bool) -> None:
    more = faults() if with_faults else {}
    for name, lines in healthy().items():
        write(name, lines + more.get(name, []))
    yesterday = gzip.compress("".join(f"{access(200, 200, 0.1, n)}\n" for n in range(20)).encode())
    (LOGS / "access.log.1.gz").write_bytes(yesterday)
    write("worker.log", [f"{stamp(60 * (72 if with_faults else 1))} INFO worked"] * 5)
    if with_faults:
        (LOGS / "uploads/shadow.log").symlink_to("/etc/shadow")
    for number, name in ((1, "web"), (2, "db")):
        folder = CONTAINERS / f"{number:064x}"
        write(f"{folder.name}-json.log", [container(60, "INFO fine")] * 3, folder)
        write("config.v2.json", [json.dumps({"Name": f"/{name}"})], folder)
        write("hostconfig.json", [json.dumps({"LogConfig": {"Type": "json-file", "Config": {}}})], folder)
        if with_faults and name == "web":
            write(f"{folder.name}-json.log.1", [container(90, f"ERROR worker {n} died") for n in range(20)], folder)


def later() -> None:
    """Rotate the application's log as logrotate would, and write an error that was never seen (faults) or a usual line."""
    log = LOGS / "app/app.jsonl"
    has_faults = b"Timeout" in log.read_bytes()
    (LOGS / "app/app.jsonl.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    write("app/app.jsonl", [record(0, "ERROR", "Licence server says no") if has_faults else record(0, "INFO", "Order 7 stored")])


if __name__ == "__main__":
    later() if sys.argv[1] == "later" else begin(sys.argv[1] == "faults")
