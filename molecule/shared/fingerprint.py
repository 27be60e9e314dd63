# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say everything a maintenance run could change on a host, so that a run in check mode can be proven to change nothing.

usage: fingerprint.py write FILE | compare FILE
"""

import hashlib
import json
import os
import subprocess
import sys

ROOTS = [
    "/backend",
    "/frontend",
    "/logs",
    "/archives",
    "/backups",
    "/srv",
    "/etc",
    "/usr/local",
    "/var/lib/ops_maintenance",
    "/var/backups",
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/lib/logrotate",
    "/var/spool/cron",
]
# What the running application and the host's own daemons write.
OWN = ("/logs/backend/backend.jsonl", "/etc/mtab")
UNITS = ["fossawork-backend.service", "fossawork-frontend.service", "fossawork-sync.timer"]


def look() -> dict[str, object]:
    found: dict[str, object] = {}
    for root in ROOTS:
        for folder, _folders, files in os.walk(root):
            found[folder] = described(folder)
            for name in files:
                path = os.path.join(folder, name)
                if path not in OWN and not path.endswith(("-wal", "-shm")):
                    found[path] = described(path)
    for unit in (name for name in UNITS if os.path.exists(f"/etc/systemd/system/{name}")):
        argv = ["systemctl", "show", "--property", "ActiveState,UnitFileState,MainPID,NRestarts", "--", unit]
        found[unit] = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    if os.path.isdir("/var/run/postgresql") and os.listdir("/var/run/postgresql"):
        found["PostgreSQL"] = databases()
    return found


def databases() -> list[str]:
    """Every row and right of every database, where each table lies on disk, and when it was last worked on."""
    dump = as_postgres("pg_dumpall").encode()
    # Newer releases begin and end a dump with a word that is another one each time.
    lines = [line for line in dump.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]
    names = as_postgres("psql", "-XAtc", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1").split("\n")
    places = """
        SELECT c.oid::regclass, relfilenode, indisvalid, last_vacuum, last_analyze, vacuum_count, analyze_count
        FROM pg_class c LEFT JOIN pg_index ON indexrelid = c.oid LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
        WHERE relnamespace = 'public'::regnamespace ORDER BY c.oid"""
    settings = "SELECT name, setting FROM pg_settings WHERE source = 'configuration file' ORDER BY name"
    asked = [as_postgres("psql", "-XAtd", name, "-c", question) for name in names if name for question in (places, settings)]
    return [hashlib.sha256(b"\n".join(lines)).hexdigest(), *asked]


def as_postgres(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, user="postgres", cwd="/").stdout


def described(path: str) -> list[object]:
    status = os.lstat(path)
    kind = [oct(status.st_mode), status.st_uid, status.st_gid]
    if not os.path.isfile(path) or os.path.islink(path):
        return kind
    with open(path, "rb") as source:
        return [*kind, status.st_size, status.st_mtime_ns, hashlib.sha256(source.read()).hexdigest()]


def main() -> int:
    verb, path = sys.argv[1:]
    now = look()
    if verb == "write":
        with open(path, "w", encoding="utf-8") as target:
            json.dump(now, target)
        return 0
    with open(path, encoding="utf-8") as source:
        before = json.load(source)
    changed = sorted(name for name in {*before, *now} if before.get(name) != json.loads(json.dumps(now.get(name))))
    for name in changed:
        print(name, before.get(name), now.get(name))
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
