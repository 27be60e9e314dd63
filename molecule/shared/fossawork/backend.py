# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""FossaWork's API on a test host: port 8000, answers from the SQLite database, logs JSON lines."""

import contextlib
import json
import sqlite3
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

QUERIES = {
    "/api/health": "SELECT count(*) AS work_orders FROM work_orders",
    "/api/work-orders": "SELECT id, site, status FROM work_orders ORDER BY id DESC LIMIT 20",
    "/api/dispensers": "SELECT id, model FROM dispensers LIMIT 20",
}


def log(level: str, message: str) -> None:
    line = {"timestamp": datetime.now(timezone.utc).isoformat(), "level": level, "message": message}
    with open("/logs/backend/backend.jsonl", "a", encoding="utf-8") as target:
        target.write(json.dumps(line) + "\n")


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, answer = 404, {"status": "unknown path"}
        if self.path in QUERIES:
            try:
                with contextlib.closing(sqlite3.connect("/backend/fossawork_v2.db", timeout=5)) as connection:
                    connection.row_factory = sqlite3.Row
                    rows = [dict(row) for row in connection.execute(QUERIES[self.path])]
                status, answer = 200, {"status": "healthy", "data": rows}
            except sqlite3.Error as error:
                status, answer = 500, {"status": "error", "error": str(error)}
                log("CRITICAL", f"database: {error}")
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *args: object) -> None:
        log("INFO", form % args)


log("INFO", "started")
ThreadingHTTPServer(("127.0.0.1", 8000), Api).serve_forever()
