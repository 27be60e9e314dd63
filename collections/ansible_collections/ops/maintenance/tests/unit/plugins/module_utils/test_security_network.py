# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import security_network
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.security_common import Review, filled


def params(**given):
    return filled(security_network.OPTIONS, given)


def listening(declared, proc="/proc/net"):
    review = Review(params(listening=declared), Host(), False, Host().now())
    return security_network.look_listening(review, str(proc))[0]


def test_a_real_socket_is_seen_and_may_be_declared():
    with socket.create_server(("0.0.0.0", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as inside:
        port, hidden = listener.getsockname()[1], inside.getsockname()[1]
        found = listening([])
        assert found.state == "warning"
        line = f"tcp/0.0.0.0:{port}, reachable from anywhere, held by "
        told = [said for said in found.evidence if said.startswith(line)]
        assert told
        assert told[0].endswith(f"(pid {os.getpid()})")
        assert not any(f":{hidden}," in said for said in found.evidence)
        assert not any(said.startswith(line) for said in listening([f"tcp/{port}"]).evidence)
        assert any(said.startswith(line) for said in listening([f"udp/{port}", f"tcp/192.0.2.1:{port}", f"tcp/private:{port}"]).evidence)


TABLES = {
    "tcp": "head\n 0: 0100007F:1F40 00000000:0000 0A 0\n 1: 00000000:0016 00000000:0000 0A 0\n 2: 0100000A:0016 0200000A:D431 01 0\n",
    "tcp6": "head\n 0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0\n"
    " 1: 0000000000000000FFFF00000100007F:2328 00000000000000000000000000000000:0000 0A 0\n"
    " 2: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 0\n",
    "udp": "head\n 0: 00000000:0044 00000000:0000 07 0\n",
    "udp6": "head\n",
}


def test_every_table_is_read(tmp_path):
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    found = listening(["tcp/22"], tmp_path)
    assert (found.state, found.value) == ("warning", 2)
    assert list(found.evidence) == ["tcp/2001:db8::1:443, reachable from anywhere", "udp/0.0.0.0:68, reachable from anywhere"]
    assert listening(["tcp/22", "tcp/2001:db8::1:443", "udp/68"], tmp_path).state == "ok"


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "any"),
        ("::", "any"),
        ("192.0.2.1", "any"),
        ("10.1.2.3", "private"),
        ("fd00::1", "private"),
        ("fe80::1", "private"),
    ],
)
def test_how_far_a_socket_can_be_reached(address, scope):
    found = security_network.Socket("tcp", address, 5432)
    assert found.scope == scope
    assert bool(security_network.undeclared([found], ["tcp/private:5432"])) == (scope == "any")
    assert bool(security_network.undeclared([found], [])) == (scope != "loopback")


def test_tables_that_cannot_be_read_are_unknown(tmp_path):
    assert listening([], tmp_path).state == "unknown"
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "tcp").write_text("head\n 0: zz:16 0:0 0A 0\n")
    assert listening([], tmp_path).state == "unknown"


@pytest.mark.parametrize("text", ["22", "tcp", "tcp/", "tcp/x", "tcp/99999", "sctp/5", "tcp/-1"])
def test_ports_that_cannot_be_meant_are_refused(text):
    assert len(security_network.validate(params(listening=[text]))) == 1
    assert security_network.validate(params(listening=["tcp/22", "udp/192.0.2.1:123"])) == []


def test_the_self_test_notices_a_blind_verifier(monkeypatch):
    review = Review({}, Host(), False, Host().now())
    assert security_network.listening_passes_bad_sample(review) == ""
    monkeypatch.setattr(security_network, "parse_sockets", lambda *_: [])
    assert security_network.listening_passes_bad_sample(review)
