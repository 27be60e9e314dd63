# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the demo system: a small application with a database, logs, backups and a certificate, and real faults in them.

usage: build.py FOLDER
"""

import gzip
import json
import os
import random
import shutil
import sqlite3
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
CHANCE = random.Random(42)  # noqa: S311
ERRORS = (
    "Sync of work order {n} failed: upstream answered 502",
    "Database is locked while saving dispenser {n}",
    "Unhandled exception in /api/work-orders/{n}: KeyError 'site'",
)


def build(site: Path) -> None:
    """Make everything below a new folder."""
    for folder in (
        "backend/data",
        "logs/backend",
        "logs/errors",
        "logs/performance",
        "archives/logs",
        "backups/daily",
        "backups/weekly",
        "certs",
    ):
        (site / folder).mkdir(parents=True)
    database(site / "backend" / "app.db")
    secrets(site)
    certificate(site / "certs")
    backups(site)
    logs(site / "logs")


def database(path: Path) -> None:
    """A database that is sound, but a third of it is free space."""
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        PRAGMA journal_mode = WAL;
        CREATE TABLE work_orders (id INTEGER PRIMARY KEY, site TEXT NOT NULL, status TEXT NOT NULL, notes TEXT, created_at TEXT);
        CREATE TABLE dispensers (id INTEGER PRIMARY KEY, work_order_id INTEGER REFERENCES work_orders (id), model TEXT);
        CREATE INDEX work_orders_by_status ON work_orders (status);
        """
    )
    states = ("open", "scheduled", "done")
    orders = [(n, f"Site {n % 97}", states[n % 3], "checked " * 20, (NOW - n * timedelta(minutes=7)).isoformat()) for n in range(1, 20001)]
    connection.executemany("INSERT INTO work_orders VALUES (?, ?, ?, ?, ?)", orders)
    connection.executemany("INSERT INTO dispensers VALUES (?, ?, ?)", [(n, n * 3, f"Encore {n % 5}00") for n in range(1, 4001)])
    connection.commit()
    connection.execute("DELETE FROM work_orders WHERE id > 12500")
    connection.commit()
    connection.close()
    path.chmod(0o600)


def secrets(site: Path) -> None:
    """A file with credentials that everybody may read."""
    (site / "backend" / ".env").write_text("SECRET_KEY=not-a-real-one\n")
    (site / "backend" / ".env").chmod(0o644)


def certificate(folder: Path) -> None:
    """A certificate that ends in five days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo.internal")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), NOW - 85 * DAY, NOW + 5 * DAY)
    names = x509.SubjectAlternativeName([x509.DNSName("demo.internal")])
    made = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "app.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "app.key").write_bytes(private)
    (folder / "app.key").chmod(0o600)


def backups(site: Path) -> None:
    """Daily backups with one day missing, and a weekly one with a damaged page."""
    source = site / "backend" / "app.db"
    for age in range(8):
        if age != 3:
            when = NOW - age * DAY - timedelta(hours=1)
            folder = site / "backups" / "daily" / f"{when:%Y%m%d}"
            folder.mkdir()
            copy(source, folder / "app.db", when)
    for age in (2, 9):
        when = NOW - age * DAY
        copy(source, site / "backups" / "weekly" / f"app_full_{when:%Y%m%d}.db", when)
    newest = max((site / "backups" / "weekly").iterdir())
    stamp = newest.stat().st_mtime
    with newest.open("r+b") as damaged:
        damaged.seek(newest.stat().st_size // 2)
        damaged.write(os.urandom(6000))
    os.utime(newest, (stamp, stamp))


def copy(source: Path, target: Path, when: datetime) -> None:
    """Copy a database the right way, dated as if it had been made then."""
    with sqlite3.connect(source) as live, sqlite3.connect(target) as kept:
        live.backup(kept)
    kept.close()
    live.close()
    target.chmod(0o600)
    os.utime(target, (when.timestamp(), when.timestamp()))


def logs(folder: Path) -> None:
    """Three months of logs: a new kind of error, somebody guessing passwords, files due for compression and deletion."""
    for age in (100, 60, 20, 12, 9, 5, 3, 2, 1, 0):
        day = NOW - age * DAY
        lines = [entry(day, n) for n in range(400)]
        lines += [error(day, n) for n in range(6 if age else 45)]
        if age <= 1:
            lines += [attempt(day, n) for n in range(40)]
        write(folder / "backend" / f"backend-{day:%Y%m%d}.jsonl", lines, day)
        write(folder / "errors" / f"errors-{day:%Y%m%d}.jsonl", [line for line in lines if line["level"] == "ERROR"], day)
    metrics = [metric(NOW - hour * timedelta(hours=1)) for hour in range(24 * 9)]
    write(folder / "performance" / "performance-metrics.jsonl", metrics[::-1], NOW)
    old = folder / "backend" / f"backend-{NOW - 60 * DAY:%Y%m%d}.jsonl"
    with old.open("rb") as plain, gzip.open(f"{old}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    stamp = old.stat().st_mtime
    os.utime(f"{old}.gz", (stamp, stamp))
    old.unlink()


def entry(day: datetime, number: int) -> dict[str, object]:
    """An ordinary line."""
    return {
        "timestamp": stamp(day, number),
        "level": "INFO",
        "logger": "api",
        "message": f"GET /api/work-orders/{number} 200 in {number % 40} ms",
    }


def error(day: datetime, number: int) -> dict[str, object]:
    """A line that tells of a fault."""
    message = ERRORS[number % len(ERRORS)].format(n=number + 1000)
    return {"timestamp": stamp(day, number * 7), "level": "ERROR", "logger": "sync", "message": message}


def attempt(day: datetime, number: int) -> dict[str, object]:
    """Somebody guesses a password."""
    found = {
        "event": "login_failed",
        "username": "admin",
        "ip": "203.0.113.77",
        "message": "Authentication failed for user admin from 203.0.113.77",
    }
    return {"timestamp": stamp(day, number // 4), "level": "WARNING", "logger": "auth", **found}


def metric(moment: datetime) -> dict[str, object]:
    """A sample of the machine's load."""
    system = {"cpu_percent": round(CHANCE.uniform(18, 42), 1), "memory_percent": round(CHANCE.uniform(52, 63), 1)}
    return {"timestamp": moment.isoformat(), "level": "INFO", "system": system}


def stamp(day: datetime, minute: int) -> str:
    """A time of that day that is not later than now."""
    return (day - timedelta(minutes=minute)).isoformat()


def write(path: Path, lines: list[dict[str, object]], day: datetime) -> None:
    """Write a log file, dated as its last line."""
    ordered = sorted(lines, key=lambda line: str(line["timestamp"]))
    path.write_text("".join(json.dumps(line) + "\n" for line in ordered))
    os.utime(path, (day.timestamp(), day.timestamp()))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
