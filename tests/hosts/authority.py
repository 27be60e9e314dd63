"""A real authority (pebble, with the name server made for it) that issues certificates over ACME."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import ssl
import subprocess
import time
import typing as t
import urllib.request
from collections.abc import Iterator

PORTS = {"listenAddress": 14000, "managementListenAddress": 15000, "dns": 8053, "names": 8055}
CHALLENGE_PORT = 5002
URL = f"https://localhost:{PORTS['listenAddress']}/dir"
DAY = 86400


def wait_for(is_there: t.Callable[[], object], seconds: float = 20) -> None:
    """Wait until something is there."""
    end = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.02)


class Authority:
    """pebble, as long as it runs; what it makes is good for ``days``."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.ca_file, self.trust = folder, folder / "https.pem", folder / "root.pem"
        argv = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost")
        files = ("-keyout", str(folder / "https.key"), "-out", str(self.ca_file), "-addext", "subjectAltName=DNS:localhost")
        subprocess.run(["openssl", *argv, *files], check=True, capture_output=True)

    @contextlib.contextmanager
    def running(self, days: int) -> Iterator[None]:
        """Run it; each time it has a new root and knows no accounts, as it keeps nothing."""
        files = {"certificate": str(self.ca_file), "privateKey": str(self.folder / "https.key")}
        ports = {name: f"127.0.0.1:{PORTS[name]}" for name in ("listenAddress", "managementListenAddress")}
        settings = {**files, **ports, "httpPort": CHALLENGE_PORT, "tlsPort": 5001, "certificateValidityPeriod": days * DAY}
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        argv = ["pebble", "-config", str(self.folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{PORTS['dns']}"]
        with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            try:
                wait_for(self._has_root)
                yield
            finally:
                child.kill()

    def _has_root(self) -> bool:
        url = f"https://localhost:{PORTS['managementListenAddress']}/roots/0"
        with contextlib.suppress(OSError):
            context = ssl.create_default_context(cafile=str(self.ca_file))
            with urllib.request.urlopen(url, context=context, timeout=2) as answer:
                self.trust.write_bytes(answer.read())
            return True
        return False


@contextlib.contextmanager
def name_server() -> Iterator[None]:
    """Answer 127.0.0.1 for every name."""
    off = [option for name in ("http01", "https01", "tlsalpn01") for option in (f"-{name}", "")]
    on = ["-dns01", f"127.0.0.1:{PORTS['dns']}", "-management", f"127.0.0.1:{PORTS['names']}", "-defaultIPv6", ""]
    argv = ["pebble-challtestsrv", *off, *on]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            yield
        finally:
            child.kill()
