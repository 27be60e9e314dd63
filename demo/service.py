# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo system's service: a small HTTP API on its SQLite database.

usage: service.py start|stop|status|serve FOLDER PORT
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

QUERIES = {
    "/api/work-orders": "SELECT id, site, status FROM work_orders ORDER BY id DESC LIMIT 20",
    "/api/dispensers": "SELECT id, model FROM dispensers ORDER BY id LIMIT 20",
}


def serve(folder: Path, port: int) -> None:
    """Answer requests until the process ends."""
    database = folder / "backend" / "app.db"

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, answer = 200, self.answer()
            except sqlite3.Error as error:
                status, answer = 500, {"status": "error", "error": str(error)}
            if answer is None:
                status, answer = 404, {"status": "unknown path"}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def answer(self) -> object:
            if self.path == "/api/health":
                query = "SELECT count(*) AS work_orders FROM work_orders"
                return {"status": "healthy", "data": rows(query)[0]}
            return rows(QUERIES[self.path]) if self.path in QUERIES else None

        def log_message(self, form: str, *args: object) -> None:
            line = {"timestamp": datetime.now(timezone.utc).isoformat(), "level": "INFO", "logger": "api", "message": form % args}
            with open(folder / "logs" / "backend" / "backend.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")

    def rows(query: str) -> list[dict[str, object]]:
        with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    ThreadingHTTPServer(("127.0.0.1", port), Api).serve_forever()


def answers(port: int) -> bool:
    """Return whether the service is there."""
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).status == 200
    return False


def running(folder: Path) -> int:
    """Return the process id of the service, 0 when it does not run."""
    try:
        pid = int((folder / "service.pid").read_text())
        return pid if b"service.py" in Path(f"/proc/{pid}/cmdline").read_bytes() else 0
    except (OSError, ValueError):
        return 0


def start(folder: Path, port: int) -> int:
    """Start the service and wait until it answers."""
    if not running(folder):
        nothing = subprocess.DEVNULL
        argv = [sys.executable, __file__, "serve", str(folder), str(port)]
        process = subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        (folder / "service.pid").write_text(str(process.pid))
    for _attempt in range(50):
        if answers(port):
            return 0
        time.sleep(0.1)
    print(f"The service does not answer on port {port}.", file=sys.stderr)
    return 1


def stop(folder: Path) -> int:
    """Stop the service and wait until it is gone."""
    pid = running(folder)
    if pid:
        os.kill(pid, signal.SIGTERM)
    while running(folder):
        time.sleep(0.05)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return 0


def main() -> int:
    """Entry point."""
    verb, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if verb == "serve":
        serve(folder, port)
    return {"start": lambda: start(folder, port), "stop": lambda: stop(folder), "status": lambda: 0 if running(folder) else 3}[verb]()


if __name__ == "__main__":
    sys.exit(main())
