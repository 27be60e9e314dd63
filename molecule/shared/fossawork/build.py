# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make FossaWork's data on a test host: healthy, with work that is due. Faults are planted by each scenario.

usage: build.py
"""

import gzip
import json
import os
import random
import shutil
import sqlite3
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
DATABASE = Path("/backend/fossawork_v2.db")
FOLDERS = [
    "backend/data",
    "frontend",
    "logs/backend",
    "logs/errors",
    "logs/performance",
    "logs/reports",
    "archives/logs",
    "backups/daily",
    "backups/weekly",
    "backups/maintenance",
    "tools/operations",
]
TOOL = """#!/usr/bin/python3
import json, pathlib, sys
argv = sys.argv[1:]
if "--output" in argv:
    path = pathlib.Path(argv[argv.index("--output") + 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tool": sys.argv[0], "problems": []}))
print("ok")
"""
SETTINGS = """# What the application sets on each connection.
PRAGMAS = ("PRAGMA synchronous=NORMAL", "PRAGMA cache_size=10000", "PRAGMA temp_store=MEMORY")
"""
BACKUP_TOOL = """#!/bin/sh
set -eu
folder=/backups/daily/$(date -u +%Y%m%d)
mkdir -p "$folder"
sqlite3 /backend/fossawork_v2.db ".backup $folder/fossawork_v2.db"
chown -R fossawork: "$folder"
"""


def main() -> None:
    random.seed(7)
    for folder in FOLDERS:
        Path("/", folder).mkdir(parents=True, exist_ok=True)
    database()
    backups()
    logs()
    secret = Path("/backend/.env")
    secret.write_text("SECRET_KEY=only-for-tests\n")
    secret.chmod(0o600)
    for name in ("log-analyzer", "performance-benchmark", "performance-monitor", "security-monitor", "health-check"):
        tool(f"{name}.py", TOOL)
    tool("daily-backup.sh", BACKUP_TOOL)
    Path("/logs/performance/baseline.json").write_text('{"p95_ms": 40}\n')
    subprocess.run(["python3", "-m", "venv", "/backend/venv"], check=True)
    Path("/backend/requirements.txt").write_text("fastapi<1\n")
    for name in ("package.json", "package-lock.json"):
        Path("/frontend", name).write_text('{"name": "fossawork", "lockfileVersion": 3, "packages": {}}\n')
    Path("/frontend/index.html").write_text("<!DOCTYPE html><title>FossaWork</title>\n")
    Path("/backend/database.py").write_text(SETTINGS)
    certificate(200)
    for folder in ("/backend", "/frontend", "/logs", "/archives", "/backups"):
        subprocess.run(["chown", "-R", "fossawork:fossawork", folder], check=True)
    Path("/backend/data").chmod(0o700)


def tool(name: str, text: str) -> None:
    path = Path("/tools/operations", name)
    path.write_text(text)
    path.chmod(0o755)


def certificate(days: int) -> None:
    """Make a certificate that is valid for so many days."""
    name = ["-subj", "/CN=fossawork.internal", "-addext", "subjectAltName=DNS:fossawork.internal"]
    files = ["-keyout", "/etc/ssl/private/fossawork.key", "-out", "/etc/ssl/certs/fossawork.crt"]
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days), *name, *files]
    subprocess.run(argv, check=True, capture_output=True)
    os.chmod("/etc/ssl/private/fossawork.key", 0o600)


def database() -> None:
    connection = sqlite3.connect(DATABASE)
    connection.executescript(
        """
        PRAGMA journal_mode = WAL;
        CREATE TABLE work_orders (id INTEGER PRIMARY KEY, site TEXT NOT NULL, status TEXT NOT NULL, notes TEXT);
        CREATE TABLE dispensers (id INTEGER PRIMARY KEY, work_order_id INTEGER REFERENCES work_orders (id), model TEXT);
        CREATE INDEX work_orders_by_status ON work_orders (status);
        """
    )
    orders = [(n, f"Site {n % 97}", ("open", "done")[n % 2], "checked " * 20) for n in range(1, 40001)]
    connection.executemany("INSERT INTO work_orders VALUES (?, ?, ?, ?)", orders)
    connection.executemany("INSERT INTO dispensers VALUES (?, ?, ?)", [(n, n, "Encore") for n in range(1, 2001)])
    connection.commit()
    # a third of the pages become free: VACUUM is due
    connection.execute("DELETE FROM work_orders WHERE id > 25000")
    connection.commit()
    connection.close()
    DATABASE.chmod(0o600)


def backups() -> None:
    for age in range(8):
        when = NOW - age * DAY - timedelta(hours=1)
        folder = Path(f"/backups/daily/{when:%Y%m%d}")
        folder.mkdir(exist_ok=True)
        copy(folder / "fossawork_v2.db", when)
    for age in (2, 9, 16):
        when = NOW - age * DAY
        copy(Path(f"/backups/weekly/fossawork_v2_full_{when:%Y%m%d}.db"), when)


def copy(target: Path, when: datetime) -> None:
    live, kept = sqlite3.connect(DATABASE), sqlite3.connect(target)
    live.backup(kept)
    kept.close()
    live.close()
    target.chmod(0o600)
    os.utime(target, (when.timestamp(), when.timestamp()))


def logs() -> None:
    for age in (120, 70, 45, 20, 12, 9, 5, 3, 1, 0):
        day = NOW - age * DAY
        lines = [line(day, n, "INFO", f"GET /api/work-orders/{n} 200") for n in range(300)]
        errors = [line(day, n * 9, "ERROR", f"Sync of work order {n + 1000} failed: upstream answered 502") for n in range(3)]
        write(Path(f"/logs/backend/backend-{day:%Y%m%d}.jsonl"), lines + errors, day)
        write(Path(f"/logs/errors/errors-{day:%Y%m%d}.jsonl"), errors, day)
    for age in (45, 70):  # compressed a while ago: due for the archive
        pack(Path(f"/logs/backend/backend-{NOW - age * DAY:%Y%m%d}.jsonl"))
    samples = [
        {"timestamp": stamp(NOW, 60 * h), "system": {"cpu_percent": random.uniform(20, 40), "memory_percent": 55.0}} for h in range(200)
    ]
    write(Path("/logs/performance/performance-metrics.jsonl"), samples, NOW)


def line(day: datetime, minute: int, level: str, message: str) -> dict[str, object]:
    return {"timestamp": stamp(day, minute), "level": level, "message": message}


def stamp(day: datetime, minute: int) -> str:
    return (day - timedelta(minutes=minute)).isoformat()


def write(path: Path, lines: list, day: datetime) -> None:
    ordered = sorted(lines, key=lambda item: str(item["timestamp"]))
    path.write_text("".join(json.dumps(item) + "\n" for item in ordered))
    os.utime(path, (day.timestamp(), day.timestamp()))


def pack(path: Path) -> None:
    status = path.stat()
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    os.utime(f"{path}.gz", (status.st_mtime, status.st_mtime))
    path.unlink()


if __name__ == "__main__":
    main()
