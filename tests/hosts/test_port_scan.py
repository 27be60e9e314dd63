"""A real nmap on addresses of this container: TCP, UDP and the system, judged against what is declared."""

from __future__ import annotations

import shutil
import socket
import threading

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import port_scan
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import filled

pytestmark = pytest.mark.skipif(not shutil.which("nmap"), reason="this image has no nmap")
AUTHORISED = "the tests, for this container"


@pytest.fixture
def ports():
    """A TCP port that listens and a UDP port that answers whatever it is asked."""
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for each in (tcp, udp):
        each.bind(("127.0.0.1", 0))
    tcp.listen()

    def answer():
        while True:
            try:
                data, peer = udp.recvfrom(2000)
            except OSError:
                return
            udp.sendto(data or b"x", peer)

    threading.Thread(target=answer, daemon=True).start()
    yield tcp.getsockname()[1], udp.getsockname()[1]
    for each in (tcp, udp):
        each.close()


def scanned(**given):
    options = {"addresses": ["127.0.0.1"], "authorised_by": AUTHORISED, "seconds": 50.0, **given}
    outcome = port_scan.run(filled(port_scan.OPTIONS, options), False, Host())
    return {finding.id: finding for finding in outcome.findings}


def test_tcp_and_udp_ports_that_are_open_are_found_and_declared_ones_are_fine(ports):
    tcp, udp = ports
    tried = {"ports": f"{tcp}", "udp_ports": f"{udp}"}
    found = scanned(**tried)["security.port_scan"]
    assert (found.state, found.value) == ("critical", 2), found
    assert {line.split(" (")[0] for line in found.evidence[:2]} == {f"open, not expected: tcp/{tcp}", f"open, not expected: udp/{udp}"}
    assert scanned(**tried, expected=[f"tcp/{tcp}", f"udp/{udp}"])["security.port_scan"].state == "ok"


def test_the_system_is_told_and_compared(ports):
    tcp, _udp = ports
    found = scanned(ports=f"1,{tcp}", expected=[f"tcp/{tcp}"], detect_os=True)
    assert found["security.port_scan"].state == "ok", found
    told = found["security.scanned_os"]
    assert (told.state, "Linux" in told.summary) in (("ok", True), ("unknown", False)), told


def test_an_address_where_nothing_expected_answers_is_unknown():
    assert scanned(ports="1-20", expected=["tcp/443"])["security.port_scan"].state == "unknown"
