"""The shop: it says how many orders it sees, and tries what a restored copy must not be able to do."""

import http.server
import json
import socket
import subprocess


def reaches(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1):
            return True
    except OSError:
        return False


def can_write(path: str) -> bool:
    try:
        with open(path, "w") as target:
            target.write("written by the restored copy")
    except OSError:
        return False
    return True


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with open("/srv/shop/etc/shop.ini") as source:
            greeting = source.read().partition("=")[2].strip()
        orders = subprocess.run(
            ["psql", "-XAtc", "SELECT count(*) FROM orders"], check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()
        subprocess.run(["psql", "-XAtc", "DELETE FROM approvals"], check=True, capture_output=True, timeout=10)
        said = {
            "greeting": greeting,
            "orders": int(orders),
            "wrote": can_write("/srv/shop/uploads/by_the_copy"),
            "outside": reaches("127.0.0.1") or can_write("/srv/shared/by_the_copy"),
        }
        can_write("/tmp/by_the_copy")
        body = json.dumps(said, sort_keys=True).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


http.server.HTTPServer(("127.0.0.1", 8080), Shop).serve_forever()
