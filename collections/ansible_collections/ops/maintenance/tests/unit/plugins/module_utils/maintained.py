# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers of these tests: tiny services that a command manages, parameters with the defaults of a spec, a web server."""

from __future__ import annotations

import contextlib
import copy
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ansible_collections.ops.maintenance.plugins.module_utils import undo

CRONTAB = """#!/bin/sh
# as cron's own: -u USER -l prints, -u USER - replaces
file="$(dirname "$0")/crontab.$2"
case "$3" in
-l) [ -e "$file" ] && cat "$file" || { echo "no crontab for $2" >&2; exit 1; } ;;
-) cat >"$file" ;;
esac
"""


def defaults(options):
    """The defaults of a module's options, with those that every module has."""
    common = {"run_id": "", "deadline": 0.0, "state_dir": "/nonexistent", "self_test": False}
    return {**common, **sub_defaults(options)}


def sub_defaults(options):
    return {name: copy.deepcopy(spec.get("default")) for name, spec in options.items()}


def service(folder, name, active=True):
    """A service that runs while its file exists; it writes down the order in which services start and stop."""
    script = folder / "service"
    if not script.exists():
        script.write_text(
            '#!/bin/sh\ncd "$(dirname "$0")" || exit 9\n'
            '[ -e "$2.broken" ] && [ "$1" = start ] && { echo "no licence" >&2; exit 1; }\n'
            '[ -e "$2.stuck" ] && [ "$1" = stop ] && exit 1\n'
            'case "$1" in\nstart) : >"$2.runs"; echo "start $2" >>order ;;\nstop) rm -f "$2.runs"; echo "stop $2" >>order ;;\n'
            'status) [ -e "$2.runs" ] ;;\nesac\n'
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    if active:
        (folder / f"{name}.runs").touch()
    verbs = {verb: [str(script), verb, name] for verb in ("start", "stop", "status")}
    return {"name": name, "manager": "command", "keep_running": False, **verbs}


def crontab_program(folder, monkeypatch):
    """A crontab program with the behaviour of the real one, found first; each user's table is in its folder, crontab.USER."""
    folder.mkdir()
    (folder / "crontab").write_text(CRONTAB)
    (folder / "crontab").chmod(0o755)
    monkeypatch.setattr(undo, "_PATH", f"{folder}:{undo._PATH}")
    return folder


def runs(folder, name):
    return (folder / f"{name}.runs").exists()


def order(folder):
    path = folder / "order"
    return path.read_text().splitlines() if path.exists() else []


def tree(folder):
    """Everything below a folder that a change would alter."""
    return {str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in sorted(folder.rglob("*"))}


@contextlib.contextmanager
def web(answer):
    """Serve what ``answer(path, number of the request)`` returns: status, headers, body."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, headers, body = answer(self.path, len(asked))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                for part in [body] if isinstance(body, bytes) else body:
                    self.wfile.write(part)
                    self.wfile.flush()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
